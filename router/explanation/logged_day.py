"""Read a period of the log as a day that can be simulated: callers, rings and talks, presence and what people declared.

Only reads. What the log does not tell is left open: what_if.py draws it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median, mode
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Row, Select, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from router.core.events import Disposition
from router.core.model import Call, Cause, LastTalk, Outcome, Project
from router.core.rules import asks_previous_call
from router.core.words import N_, Worded
from router.db import models
from router.db.claim import AgentRow, MemberRow
from router.db.documents import configured
from router.db.records import Inputs, record_of
from router.db.retention import LATE
from router.db.session import Database
from router.db.types import MICROSECOND, to_micros
from router.explanation.what_if import ANSWERS_AFTER, SECOND, UNTIL_HUNG_UP, Asked, Caller, Day, Ring, Spans

BEFORE = timedelta(hours=1)  # calls that may still ring or talk when the period begins
AFTER = timedelta(hours=1)  # steps and ends of its last calls
_LONGEST = 4 * 3600 * SECOND  # a talk whose end is not known
_RANG = 0.95  # of the time for which a phone rings: until then the caller hung up, later nobody answered
_REMEMBERED = timedelta(days=31)  # earlier calls of a caller
_BATCH = 200  # rows read in one transaction
MOST_CALLS = 30_000


class Nothing(Worded):
    """Why no call of a period can be simulated."""

    CALLS = "calls", N_("There are no calls of this time in the log.")
    BEGINNING = "beginning", N_("No call begins in this time: those in the log are from before.")
    ERASED = "erased", N_("The callers of all calls of this time were erased.")
    VERSIONS = "versions", N_("The configurations by which calls of this time were answered are no longer kept.")


class NothingLoggedError(LookupError):
    """The log has no calls of the period that can be simulated."""

    def __init__(self, why: Nothing) -> None:
        super().__init__(why.words)
        self.why = why


class TooManyCallsError(ValueError):
    """The period has more calls than are simulated at once."""

    def __init__(self, calls: int) -> None:
        super().__init__(f"these are {calls:,} calls: choose a shorter time, for {MOST_CALLS:,} at most")
        self.calls = calls


class _Row(NamedTuple):
    """The columns of a decision that are looked at."""

    id: int
    call_id: str
    step: str
    asked_at: datetime
    caller: str
    dialed: str
    agent_id: int | None
    sip_login: str
    config_version: int
    snapshot_id: int | None
    outcome: str
    inferred: bool
    answered_login: str
    answered_at: datetime | None
    ended_at: datetime | None
    talked_seconds: float | None
    disposition: str


class _Logged(NamedTuple):
    """A decision with what is needed of its record. `seed` "": the caller was erased. `age`: of presence; None: there
    was none. `said`: the logins that talked by events."""

    row: _Row
    at: int
    call: Call
    cause: str
    seed: str = ""
    age: int | None = None
    said: tuple[str, ...] = ()
    last_talk: LastTalk | None = None


class _States:
    """The states of agents and members as they were read first, with when that was."""

    def __init__(self) -> None:
        self.agents: dict[int, tuple[int, AgentRow]] = {}
        self.members: dict[tuple[int, int], MemberRow] = {}

    def learn(self, inputs: Inputs) -> None:
        """Keep what is not known yet."""
        for member in inputs.members:
            if (key := (member.group_id, member.agent_id)) not in self.members:
                self.members[key] = member
                agent = AgentRow._make(member[-len(AgentRow._fields) :])
                self.agents.setdefault(member.agent_id, (inputs.now, agent))
        for agent in inputs.agents:
            self.agents.setdefault(agent.agent_id, (inputs.now, agent))

    def at_first(
        self,
        audited: Iterable[tuple[int, int, Mapping[str, Any]]],
        answered: Mapping[int, tuple[int, int]],
        today: str,
    ) -> list[AgentRow]:
        """Return the states of agents at the beginning, without what people declared until they were read.

        `answered`: calls answered and seconds talked on that day until then.
        """
        was: dict[int, dict[str, Any]] = {}
        for at, agent_id, changed in audited:
            if agent_id not in self.agents or at <= self.agents[agent_id][0]:
                for name, value in changed["was"].items():
                    was.setdefault(agent_id, {}).setdefault(name, value)
        found = []
        for agent_id, (_, row) in self.agents.items():
            number, talked = answered.get(agent_id, (0, 0))
            counted = row._replace(reserved_until=None, day=today, answered_today=number, talked_today=talked)
            found.append(counted._replace(**was.get(agent_id, {})))
        return found + [AgentRow(agent_id, **values) for agent_id, values in was.items() if agent_id not in self.agents]


def read_day(database: Database, project_id: int, since: datetime, until: datetime, *others: Project) -> Day:
    """Read the calls from `since` to before `until`. `others`: configurations that will be simulated, for what their
    rules ask. Raises NothingLoggedError and TooManyCallsError."""
    with database.reading() as session:
        check_calls(session, project_id, since, until)
    start, states = since - BEFORE, _States()
    logged = list(_decisions(database, project_id, start, until + AFTER, states))
    online, speaking, readings = _presence(database, project_id, start, until + AFTER)
    with database.reading() as session:
        projects = _projects(session, project_id, logged)
        if not projects:
            raise NothingLoggedError(Nothing.VERSIONS)
        zone = ZoneInfo(projects[0][1].time_zone)
        everyone = [*(project for _, project in projects), *others]
        looks_back = max(map(_looks_back, everyone))
        session.commit()
        talks = _last_talks(session, project_id, start - looks_back, start) if looks_back else {}
        asks_previous = any(asks_previous_call(project.rules) for project in everyone)
        session.commit()
        previous = _previous_calls(session, project_id, start) if asks_previous else {}
        session.commit()
        audited = list(_audited(session, project_id, start, until + AFTER))
        answered = _answered_before(session, project_id, start, zone)
        heard = _heard(session, project_id, start, until + AFTER, {one.row.call_id for one in logged})
        is_recent = database.now(session) - start < LATE  # so that no reading is deleted yet
        poll = session.scalar(select(models.Project.presence_poll_seconds).where(models.Project.id == project_id))
    everything, polled = _calls(logged), round((poll or 2) * SECOND)
    calls = [rows for rows in everything if all(one.seed for one in rows)]
    erased = [rows for rows in everything if not all(one.seed for one in rows)]
    told = [rows[0].row.inferred for rows in calls for rows in [[one for one in rows if _is_answered(one)]] if rows]
    tells = 2 * sum(not inferred for inferred in told) >= len(told) and bool(told)
    rings_out, answers_after = _rings_out(calls), _answers_after(calls)
    callers = [_caller(rows, tells, rings_out, answers_after, talks, previous, speaking) for rows in calls]
    begin, end = to_micros(since), to_micros(until)
    callers = [caller for caller in callers if caller.at < end]
    left_out = sum(begin <= rows[0].at < end for rows in erased)
    if not any(caller.at >= begin for caller in callers):
        raise NothingLoggedError(Nothing.ERASED if left_out else Nothing.BEGINNING)
    agents = states.at_first(audited, answered, start.astimezone(zone).date().isoformat())
    is_whole = is_recent or not {one.row.snapshot_id for one in logged}.issuperset(readings[:-1])
    own = _own_talks(speaking, calls, _joined(heard, _talks(erased)), polled, is_whole=is_whole)
    return Day(
        begin,
        end,
        tuple(callers),
        tuple(projects),
        online,
        own,
        [(one.at, one.age) for one in logged if one.seed],
        agents,
        list(states.members.values()),
        audited,
        _followed(calls, callers),
        tells=tells,
        tells_own=bool(heard) or _tells_own(logged, own, 2 * polled),
        is_whole=is_whole,
        gave_up_as=_gave_up_as(calls),
        erased=left_out,
    )


def check_calls(session: Session, project_id: int, since: datetime, until: datetime) -> None:
    """Raise NothingLoggedError or TooManyCallsError if it is plain that this period cannot be simulated."""
    decision = models.Decision
    wanted = (decision.project_id == project_id, decision.asked_at >= since, decision.asked_at < until)
    by_version = select(decision.config_version, func.count()).where(*wanted, ~decision.is_test)
    counts = dict(session.execute(by_version.group_by(decision.config_version)).all())
    if not counts:
        raise NothingLoggedError(Nothing.CALLS)
    if (calls := sum(counts.values())) > MOST_CALLS:
        raise TooManyCallsError(calls)
    if not any(configured(session, project_id, version) for version in counts):
        raise NothingLoggedError(Nothing.VERSIONS)


# ---- the tables


def _batches(
    database: Database, query: Select[*tuple[Any, ...]], *order: InstrumentedAttribute[Any]
) -> Iterator[tuple[Session, Sequence[Row[*tuple[Any, ...]]]]]:
    """Yield the rows of a query in order of an instant and an id, some at a time, with the session that read them.

    Nobody works on them inside a transaction: while one reads, SQLite cannot begin its log anew, which calls write to.
    """
    at, row_id = order
    query = query.order_by(at, row_id).limit(_BATCH)
    page = query
    while True:
        with database.reading() as session:
            rows = session.execute(page).all()
            session.commit()
            yield session, rows
        if len(rows) < _BATCH:
            return
        last_at, last_id = (getattr(rows[-1], column.key) for column in order)
        page = query.where(or_(at > last_at, and_(at == last_at, row_id > last_id)))


def _decisions(
    database: Database, project_id: int, since: datetime, until: datetime, states: _States
) -> Iterator[_Logged]:
    """Yield the decisions in order, and let `states` learn what they were made by."""
    decision = models.Decision
    wanted = (decision.project_id == project_id, decision.asked_at >= since, decision.asked_at < until)
    columns = [getattr(decision, name) for name in (*_Row._fields, "project_id", "record", "packed")]
    batches = _batches(database, select(*columns).where(*wanted, ~decision.is_test), decision.asked_at, decision.id)
    for session, found in ((session, found) for session, rows in batches for found in rows):
        row, record = _Row._make(found[: len(_Row._fields)]), record_of(session, found)
        session.commit()  # what the record has read of its version
        call_id = row.call_id or f"~{row.id}"
        stored = {"step": row.step, "caller": row.caller, "dialed": row.dialed, **(record.get("call") or {})}
        cause = (record.get("answer") or [None, ""])[1]
        logged = _Logged(row, to_micros(row.asked_at), Call(call_id=call_id, **stored), cause)
        if "erased_at" not in record:
            inputs = Inputs.of_json(record["inputs"])
            states.learn(inputs)
            logged = logged._replace(
                seed=inputs.seed,
                age=None if inputs.began_at is None else max(0, logged.at - inputs.began_at),
                said=tuple(login for login, talks in inputs.events.items() if talks),
                last_talk=inputs.last_talk,
            )
        yield logged


def _projects(session: Session, project_id: int, logged: Iterable[_Logged]) -> list[tuple[int, Project]]:
    """Return the configurations by which the calls were decided, from when on."""
    found: list[tuple[int, Project]] = []
    for one in logged:
        version = one.row.config_version
        if (not found or found[-1][1].version != version) and (known := configured(session, project_id, version)):
            kept = session.get(models.ConfigVersion, (project_id, version))
            at = one.at if kept is None or not found else max(found[-1][0], min(one.at, to_micros(kept.published_at)))
            found.append((at, known.project))
    return found


def _presence(
    database: Database, project_id: int, since: datetime, until: datetime
) -> tuple[dict[str, Spans], dict[str, Spans], list[int]]:
    """Return when each login was online, and when it spoke, by which readings. Each holds until the next one."""
    snapshot = models.PresenceSnapshot
    of_project = snapshot.project_id == project_id
    with database.reading() as session:
        first = session.scalar(select(func.max(snapshot.began_at)).where(of_project, snapshot.began_at <= since))
    query = select(snapshot.id, snapshot.began_at, snapshot.online, snapshot.speaking).where(
        of_project, snapshot.began_at >= (first or since), snapshot.began_at < until
    )
    rows = [row for _, found in _batches(database, query, snapshot.began_at, snapshot.id) for row in found]
    times = [to_micros(row.began_at) for row in rows]
    end = to_micros(until)
    online = _spans(zip(times, [set(row.online) for row in rows], strict=True), end)
    speaking = _spans(zip(times, [set(row.speaking) for row in rows], strict=True), end)
    return online, speaking, [row.id for row in rows]


def _spans(readings: Iterable[tuple[int, set[str]]], end: int) -> dict[str, Spans]:
    found: dict[str, list[tuple[int, int]]] = {}
    since: dict[str, int] = {}
    for at, names in readings:
        for name in since.keys() - names:
            found.setdefault(name, []).append((since.pop(name), at))
        for name in names - since.keys():
            since[name] = at
    for name, at in since.items():
        found.setdefault(name, []).append((at, end))
    return dict(found)


def _heard(
    session: Session, project_id: int, since: datetime, until: datetime, ours: Collection[str]
) -> dict[str, Spans]:
    """Return when events told that a login talked on a call of its own: they are kept for a day."""
    row = models.HeardCall
    query = select(row.call_id, row.heard_at, row.talked, row.ended_at).where(
        row.project_id == project_id, row.heard_at >= since, row.heard_at < until, row.ended_at.is_not(None)
    )
    found: dict[str, list[tuple[int, int]]] = {}
    for call_id, heard_at, talked, ended_at in session.execute(query.order_by(row.heard_at)):
        if call_id in ours or ended_at is None:
            continue
        for login in talked:
            found.setdefault(login, []).append((to_micros(heard_at), to_micros(ended_at)))
    return dict(found)


def _audited(
    session: Session, project_id: int, since: datetime, until: datetime
) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Yield what people declared of agents; the values before are under "was"."""
    entry = models.AuditEntry
    query = select(entry).where(
        entry.project_id == project_id, entry.subject == "agent", entry.at >= since, entry.at < until
    )
    for row in session.scalars(query.order_by(entry.id)):
        before, after = row.before or {}, row.after or {}
        if row.subject_id is None or not after.keys() & {"status", "paused_until"} or len(after) > 1:
            continue
        values = [{name: _instant(name, value) for name, value in of.items()} for of in (before, after)]
        yield to_micros(row.at), row.subject_id, {**values[1], "was": values[0]}


def _instant(name: str, value: Any) -> Any:
    return to_micros(datetime.fromisoformat(value)) if name == "paused_until" and value else value


def _looks_back(project: Project) -> timedelta:
    """Return how far a rule looks back for who last talked with a caller."""
    preferences = [rule.prefer.within for rule in project.rules if rule.prefer is not None and rule.prefer.last_agent]
    return max(preferences, default=timedelta(0))


def _last_talks(session: Session, project_id: int, since: datetime, before: datetime) -> dict[str, LastTalk]:
    """Return who last talked with each caller before the calls that are simulated."""
    decision, kept = models.Decision, models.LastTalk
    query = select(decision.caller, decision.answered_agent_id, func.max(decision.asked_at)).where(
        decision.project_id == project_id,
        decision.asked_at >= since,
        decision.asked_at < before,
        decision.answered_agent_id.is_not(None),
        decision.caller != "",
    )
    ours = session.execute(query.group_by(decision.caller, decision.answered_agent_id))
    older = session.execute(
        select(kept.caller, kept.agent_id, kept.talked_at).where(kept.project_id == project_id, kept.talked_at >= since)
    )
    found: dict[str, LastTalk] = {}
    for caller, agent_id, at in (*ours, *older):
        if agent_id is not None and (caller not in found or found[caller].at < at):
            found[caller] = LastTalk(agent_id, at)
    return found


def _previous_calls(session: Session, project_id: int, before: datetime) -> dict[str, Sequence[Any]]:
    decision = models.Decision
    newest = (
        select(func.max(decision.id))
        .where(
            decision.project_id == project_id,
            decision.asked_at.between(before - _REMEMBERED, before),
            decision.caller != "",
            ~decision.is_test,
        )
        .group_by(decision.caller)
    )
    rows = session.execute(select(decision.caller, decision.asked_at, decision.outcome).where(decision.id.in_(newest)))
    return {row.caller: [to_micros(row.asked_at), row.outcome == Outcome.ANSWERED] for row in rows}


def _answered_before(session: Session, project_id: int, at: datetime, zone: ZoneInfo) -> dict[int, tuple[int, int]]:
    """Return by agent how many calls were answered, and how many seconds talked, on the local day until then."""
    decision = models.Decision
    midnight = at.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    query = select(decision.answered_agent_id, func.count(), func.sum(decision.talked_seconds)).where(
        decision.project_id == project_id,
        decision.asked_at >= midnight,
        decision.asked_at < at,
        decision.outcome == Outcome.ANSWERED,
        decision.answered_agent_id.is_not(None),
    )
    rows = session.execute(query.group_by(decision.answered_agent_id))
    return {agent_id: (number, round(talked or 0)) for agent_id, number, talked in rows if agent_id is not None}


# ---- calls


def _calls(logged: Iterable[_Logged]) -> list[list[_Logged]]:
    found: dict[str, list[_Logged]] = {}
    for one in logged:
        found.setdefault(one.call.call_id, []).append(one)
    return list(found.values())


def _is_answered(one: _Logged) -> bool:
    return one.row.outcome == Outcome.ANSWERED and one.row.agent_id is not None and one.row.answered_at is not None


def _rings_out(calls: Iterable[Sequence[_Logged]]) -> float | None:
    """Return for how long a phone rings before the platform asks for the next agent."""
    waits = [
        (after.at - one.at) / SECOND
        for rows in calls
        for one, after in pairwise(rows)
        if one.row.agent_id is not None and not _is_answered(one) and not one.row.disposition
    ]
    # A phone that is busy or gone does not ring, so that the shortest say nothing.
    long = [seconds for seconds in waits if seconds > 0 and 2 * seconds >= max(waits)]
    return median(long) if long else None


def _answers_after(calls: Iterable[Sequence[_Logged]]) -> float:
    """Return after how long agents answer."""
    waits = [
        (one.row.answered_at - one.row.asked_at).total_seconds()
        for rows in calls
        for one in rows
        if _is_answered(one) and one.row.answered_at is not None
    ]
    return max(0.0, median(waits)) if waits else ANSWERS_AFTER


def _caller(
    rows: Sequence[_Logged],
    tells: bool,
    rings_out: float | None,
    answers_after: float,
    talks: Mapping[str, LastTalk],
    previous: Mapping[str, Sequence[Any]],
    speaking: Mapping[str, Spans],
) -> Caller:
    first, last = rows[0], rows[-1]
    asked = tuple(
        _asked(one, rows[place + 1] if place + 1 < len(rows) else None, answers_after) for place, one in enumerate(rows)
    )
    caller = Caller(first.call, first.seed or first.call.call_id, first.at, asked)
    row, call = last.row, first.call
    waited = (last.at - first.at) / SECOND
    answered = next((one for one in rows if _is_answered(one)), None)
    talked: float | None = None
    is_told = tells and bool(row.call_id)
    gave_up: float | None = None
    if answered is not None:
        waited = (to_micros(answered.row.answered_at) - first.at) / SECOND  # type: ignore[arg-type]
        talked = _talked(answered.row, speaking)
        is_told = not answered.row.inferred and bool(row.call_id)
    elif row.agent_id is None:
        talked = _talked(row, speaking) if row.outcome == Outcome.ANSWERED else None
    elif row.ended_at is not None and row.outcome in (Outcome.ABANDONED, Outcome.NO_ANSWER):
        rang = (row.ended_at - row.asked_at) / MICROSECOND / SECOND
        waited += rang
        limit = _RANG * rings_out if rings_out else 0.0
        if (rang < limit or (rings_out is None and row.outcome == Outcome.ABANDONED)) and not (
            row.inferred and row.outcome == Outcome.NO_ANSWER
        ):
            gave_up = waited
            asked = (*asked[:-1], asked[-1]._replace(ring=Ring(row.agent_id, UNTIL_HUNG_UP, is_answered=False)))
    stored = next((one.last_talk for one in rows if one.last_talk), None)
    last_talk = talks.get(call.caller) if call.caller else None
    if stored is not None and stored.logged and (last_talk is None or last_talk.at < stored.at):
        last_talk = stored
    return replace(
        caller,
        asked=asked,
        talked=talked,
        gave_up=gave_up,
        waited=waited,
        is_told=is_told,
        last_talk=last_talk,
        previous_call=previous.get(call.caller) if call.caller else None,
    )


def _asked(one: _Logged, after: _Logged | None, answers_after: float) -> Asked:
    row = one.row
    found_nobody = row.agent_id is None and one.cause == Cause.NOBODY_FREE
    return Asked(row.step, one.at, row.agent_id, _ring(one, after, answers_after), found_nobody)


def _ring(one: _Logged, after: _Logged | None, answers_after: float) -> Ring | None:
    row = one.row
    if row.agent_id is None:
        return None
    if _is_answered(one):
        return Ring(row.agent_id, max(0, to_micros(row.answered_at) - one.at) / SECOND, is_answered=True)  # type: ignore[arg-type]
    disposition = _disposition(row) if after is not None else Disposition.UNKNOWN
    until = after.at if after is not None else to_micros(row.ended_at) if row.ended_at else None
    if until is None or (after is None and row.outcome in ("", Outcome.UNKNOWN)):
        return Ring(row.agent_id, answers_after, is_answered=True, is_assumed=True)
    seconds = max(0, until - one.at) / SECOND
    return Ring(row.agent_id, seconds, is_answered=False, disposition=disposition, is_followed=after is not None)


def _disposition(row: _Row) -> Disposition:
    return Disposition(row.disposition) if row.disposition in set(Disposition) else Disposition.UNKNOWN


def _talked(row: _Row, speaking: Mapping[str, Spans]) -> float | None:
    """Return for how long the agent who answered talked: until the talk was handed on, if it was."""
    if row.answered_at is None:
        return None
    talked = row.talked_seconds  # as the platform rounds it
    if row.ended_at is not None:
        talked = max(0.0, (row.ended_at - row.answered_at).total_seconds())
    if talked is not None and row.answered_login not in ("", row.sip_login):
        began_at = to_micros(row.answered_at)
        for begin, end in speaking.get(row.sip_login, ()):  # the first that ends after it began
            if began_at < end and begin - began_at < _LONGEST:
                return min(talked, max(0, end - began_at) / SECOND)
    return talked


def _followed(calls: Sequence[Sequence[_Logged]], callers: Sequence[Caller]) -> dict[int, tuple[int, int]]:
    """Count by number of the question whether the platform asked again after an offer that nobody took; 0: after the
    overflow."""
    counts: dict[int, list[int]] = {}
    for caller in callers:
        for place, asked in enumerate(caller.asked):
            has_next = place + 1 < len(caller.asked)
            if asked.agent_id is None:
                number = 0
            elif asked.ring is not None and not asked.ring.is_answered and asked.ring.seconds < UNTIL_HUNG_UP:
                number = place + 1
            else:
                continue
            counts.setdefault(number, [0, 0])[0 if has_next else 1] += 1
    return {number: (did, did_not) for number, (did, did_not) in counts.items()}


def _gave_up_as(calls: Iterable[Sequence[_Logged]]) -> Disposition:
    told = [_disposition(rows[-1].row) for rows in calls if rows[-1].row.outcome == Outcome.ABANDONED]
    return mode(filter(None, told)) if any(told) else Disposition.NO_ANSWER


# ---- agents


def _own_talks(
    speaking: Mapping[str, Spans],
    calls: Iterable[Sequence[_Logged]],
    heard: Mapping[str, Spans],
    poll: int,
    *,
    is_whole: bool,
) -> dict[str, Spans]:
    """Return when logins spoke on calls that did not come through here: as was heard, and outside the talks of ours.

    `poll`: of presence, in whose steps they are seen. Not `is_whole`: readings were deleted, and a login that speaks on
    after a talk of ours may have stopped and be seen late.
    """
    ours: dict[str, list[tuple[int, int]]] = {}
    slack = poll + SECOND
    for rows in calls:
        for one in rows:
            if _is_answered(one) and one.row.answered_at is not None:
                end = to_micros(one.row.ended_at) if one.row.ended_at else one.at + _LONGEST
                ours.setdefault(one.row.sip_login, []).append((to_micros(one.row.answered_at) - slack, end + slack))
    found: dict[str, Spans] = dict(heard)
    for login, spans in speaking.items():
        told = heard.get(login, ())
        talks = sorted([*ours.get(login, []), *((begin - slack, end + slack) for begin, end in told)])
        own = list(told)
        for begin, end in spans:
            # Seen at the poll after: on average half an interval late.
            parts = list(_outside(begin - poll // 2, end - poll // 2, talks))
            own += parts if is_whole or (len(parts) == 1 and parts[0][0] < begin) else []
        if own:
            found[login] = sorted(own)
    return found


def _talks(calls: Iterable[Sequence[_Logged]]) -> dict[str, Spans]:
    """Return when logins talked on these calls, as far as that is known."""
    found: dict[str, list[tuple[int, int]]] = {}
    for one in (one for rows in calls for one in rows if _is_answered(one)):
        if one.row.answered_at is not None and one.row.ended_at is not None:
            span = to_micros(one.row.answered_at), to_micros(one.row.ended_at)
            found.setdefault(one.row.answered_login or one.row.sip_login, []).append(span)
    return dict(found)


def _joined(one: Mapping[str, Spans], other: Mapping[str, Spans]) -> dict[str, Spans]:
    return {login: sorted([*one.get(login, ()), *other.get(login, ())]) for login in one.keys() | other.keys()}


def _outside(begin: int, end: int, talks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a span that these leave over."""
    for of_begin, of_end in talks:
        if of_end <= begin or of_begin >= end:
            continue
        if of_begin > begin:
            yield begin, of_begin
        begin = max(begin, of_end)
    if begin < end:
        yield begin, end


def _tells_own(logged: Iterable[_Logged], own: Mapping[str, Spans], slack: int) -> bool:
    """Return whether events told of an agent's own call before presence showed it."""
    return any(
        any(begin - slack <= one.at < end for begin, end in own.get(login, ())) for one in logged for login in one.said
    )
