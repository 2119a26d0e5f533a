"""Applies call events: who picked up, who is free again, what became of the call. Writes, never decides.

Events are lossy, late, repeated and out of order. What a call has gone through is kept in `heard_calls`: nobody picks
up the same call twice, and a call that ended stays ended. The platform's own time of an event is not looked at:
Ringostat's `calldate` is when the call came in, the same in all its events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import (
    Connection,
    Date,
    Executable,
    Integer,
    Row,
    String,
    Update,
    bindparam,
    case,
    delete,
    insert,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from router.core.events import CallEvent, Disposition, EventKind
from router.core.model import Agent, Outcome, Project, is_own_call_id, own_call_id
from router.core.phones import phone_of
from router.db.aside import NotYetError
from router.db.models import AgentState, Decision, HeardCall, LoginState, Reservation
from router.db.reservations import COOL_DOWN, call_key
from router.db.session import CLOCK_STEP, Database
from router.db.types import Instant, from_micros, to_micros
from router.presence.readings import lock_agents

DECISION_LIMIT = 50  # steps of one call that are looked at, newest first
RANG_OUT = 0.9  # of the reservation's time: who rang that long did not answer; before that, the caller hung up

AnyRow = Row[*tuple[Any, ...]]


class Result(StrEnum):
    """What an event did."""

    APPLIED = "applied"
    REPEATED = "repeated"  # known already: nothing changed
    NOTED = "noted"  # understood, and nothing follows from it
    UNMATCHED = "unmatched"  # neither the call nor the login is ours
    UNCLEAR = "unclear"  # it does not say what happened, or to which call


class UnwrittenError(NotYetError):
    """Later the event will say more: it belongs to a decision that is not on record yet."""


class Applied(NamedTuple):
    """What an event did, and in words what it left open."""

    result: Result
    notes: tuple[str, ...] = ()


OUTCOMES: Mapping[Disposition, Outcome] = {
    Disposition.ANSWERED: Outcome.ANSWERED,
    Disposition.PROPER: Outcome.ANSWERED,
    Disposition.REPEATED: Outcome.ANSWERED,
    Disposition.VOICEMAIL: Outcome.VOICEMAIL,
    Disposition.NO_ANSWER: Outcome.NO_ANSWER,
    Disposition.CLIENT_NO_ANSWER: Outcome.ABANDONED,
    Disposition.BUSY: Outcome.BUSY,
    Disposition.DECLINE: Outcome.BUSY,
    Disposition.FAILED: Outcome.FAILED,
    Disposition.FAILED_FORBIDDEN_DESTINATION: Outcome.FAILED,
    Disposition.NO_FORWARD: Outcome.FAILED,
    Disposition.NO_EXTENSION: Outcome.FAILED,
    Disposition.WRONG_EXTENSION: Outcome.FAILED,
    # A call that is over is neither of these: what became of it was not said.
    Disposition.IN_PROGRESS: Outcome.UNKNOWN,
    Disposition.CALLING: Outcome.UNKNOWN,
    Disposition.UNKNOWN: Outcome.UNKNOWN,
}


def apply_event(
    database: Database,
    project: Project,
    event: CallEvent,
    now: datetime | None = None,
    *,
    arrived_at: float | None = None,
    is_ours: bool = False,
) -> Applied:
    """Apply one event in one short transaction. The same event again, or too late, changes nothing.

    `arrived_at`: when it came, by time.monotonic(), if that is a while ago: it says what was so then, and what was
    observed since is newer. `now`: an instant to take for the database's clock, aware. `is_ours`: we were asked where
    the call should go. Raises UnwrittenError when that is not on record yet.
    """
    if event.kind is EventKind.UNKNOWN:
        return Applied(Result.UNCLEAR, ("The event does not say what happened.",))
    if not event.call_id:
        return Applied(Result.UNCLEAR, ("The event names no call.",))
    kind = event.kind
    if kind is EventKind.FORWARDING or (kind is EventKind.BEFORE_CALL and event.direction != "out"):
        # A call that is still to be answered may show NO ANSWER: that says nothing yet.
        refused = event.disposition.is_refusal and event.disposition is not Disposition.NO_ANSWER
        kind = EventKind.UNAVAILABLE if refused else EventKind.FORWARDING
    apply = _APPLY.get(kind)
    if apply is None:
        return Applied(Result.NOTED)  # ringing: the reservation says so already
    with database.writing() as session:
        call = _load(database, session, project, _by_own_id(session, project, event), now, arrived_at)
        if is_ours and not call.is_ours:
            raise UnwrittenError("what was decided for the call without the database is still to be written")
        return apply(call)


def _by_own_id(session: Session, project: Project, event: CallEvent) -> CallEvent:
    """The event by the id of its own call, where calls of several callers came with the same id: that of its caller,
    else that of the call which the named login rings for or talks on.
    """
    own = own_call_id(event.call_id, event.caller)
    login = project.login_named(event.sip_login)[0]
    if not event.caller and not login:
        return event
    statement = _CALL_BY_ID if event.caller else _CALLS_OF_LOGIN
    found = session.scalars(statement, {"project": project.id, "call": own, "login": login})
    its_own = next((call_id for call_id in found if is_own_call_id(call_id, event.call_id)), event.call_id)
    return replace(event, call_id=its_own)


@dataclass(slots=True)
class _Call:
    """The event's call as it is known, held until the transaction ends."""

    connection: Connection
    project: Project
    event: CallEvent
    now: datetime  # when the event came
    displaces: datetime  # what was said of a login up to then, or not before `ahead`, is older
    ahead: datetime  # what is later was written before the database's clock was set back
    is_heard: bool = False
    talked: list[str] = field(default_factory=list)
    ended_at: datetime | None = None
    decisions: Sequence[AnyRow] = ()  # newest first

    @property
    def is_ours(self) -> bool:
        """We were asked where it should go."""
        return bool(self.decisions)

    def named(self, name: str) -> tuple[str, Agent | None]:
        """The login that is meant, as its agent's configuration writes it, and the agent; a number has none.

        Of a phone that the call was offered or answered at it is the agent who had it then, if they are still there.
        """
        login, owner = self.project.login_named(name, [decision.sip_login for decision in self.decisions])
        phone = phone_of(login)
        for decision in self.decisions:
            for of_login, agent_id in (
                (decision.answered_login, decision.answered_agent_id),
                (decision.sip_login, decision.agent_id),
            ):
                if login and phone_of(of_login) == phone and (agent := self.project.agents.get(agent_id)) is not None:
                    return (login if owner is not None else next(iter(agent.sip_logins), login)), agent
        return login, owner

    def is_sent_to(self, name: str) -> bool:
        """Was the call sent there, agent or not?"""
        return any(name.removeprefix("+") in (decision.sip_login, decision.destination) for decision in self.decisions)

    def is_with_agent(self) -> bool:
        """Does an agent talk on it, by what is known?"""
        return any(
            decision.outcome == Outcome.ANSWERED
            and decision.ended_at is None
            and decision.answered_agent_id is not None
            for decision in self.decisions
        )

    def agents_of(self, logins: Iterable[str]) -> set[int]:
        agents = (self.named(login)[1] for login in logins)
        return {agent.id for agent in agents if agent is not None}

    def decision_of(self, login: str) -> AnyRow | None:
        """The one that this login's answer belongs to: the open offer of it, else that of the talk, else the newest
        that offered it, else the newest. Where the call went on, a talk that was only concluded was another one."""
        offered = [decision for decision in self.decisions if login and decision.sip_login == login]
        open_offers = [decision for decision in offered if decision.outcome == ""]
        answered = [
            decision
            for place, decision in enumerate(self.decisions)
            if decision.outcome == Outcome.ANSWERED and not (place and decision.inferred)
        ]
        return next(iter([*open_offers, *answered, *offered, *self.decisions]), None)

    def run(self, statement: Executable, **values: Any) -> Sequence[AnyRow]:
        """Execute one of the statements of this module with these values, on this project and call."""
        known = {"project": self.project.id, "call": self.event.call_id}
        result = self.connection.execute(statement, known | values)
        return result.all() if result.returns_rows else ()

    def hold(self, logins: Iterable[str]) -> dict[str, AnyRow]:
        """What events said of these logins, held until the transaction ends."""
        return {row.login: row for row in self.run(_HOLD, logins=sorted(set(logins)))}

    def talks_here(self, row: AnyRow | None) -> bool:
        return row is not None and bool(row.event_speaking) and row.event_call_id == self.event.call_id

    def talks_elsewhere(self, row: AnyRow | None) -> bool:
        return row is not None and bool(row.event_speaking) and row.event_call_id != self.event.call_id

    def say(self, speaking: Mapping[str, bool]) -> None:
        """Note which logins speak from now on and which do not, unless an event of another call said so later."""
        said = {
            "project": self.project.id,
            "now": to_micros(self.now),
            "displaces": to_micros(self.displaces),
            "ahead": to_micros(self.ahead),
            "call_id": self.event.call_id,
        }
        rows = [{**said, "login": login, "speaking": speaks} for login, speaks in sorted(speaking.items())]
        if rows:
            self.connection.execute(_SAY, rows)

    def free(self, logins: Iterable[str]) -> set[str]:
        """These logins do not speak on this call any more. Gives those for which the event is late: what it tells is
        older than what was seen since, so nothing is said of them."""
        logins = set(logins)
        late = {login for login in logins if self._was_left_before(login)}
        self.say(dict.fromkeys(logins - late, False))
        for login in sorted(late):
            self.run(_UNSAY, of_login=login)
        return late

    def _was_left_before(self, login: str) -> bool:
        """Was the login seen to hang up, or its agent offered a newer call, before this event came?"""
        if any(d.answered_login == login and d.ended_at is not None for d in self.decisions):
            return True
        agent = self.named(login)[1]
        if agent is None:
            return False
        # When any other call began is not known: what is first heard of it may be late too.
        since = self.decisions[-1].asked_at if self.is_ours else from_micros(0)
        return bool(self.run(_NEWER, agent=agent.id, since=since))

    def save(self) -> None:
        if self.is_heard:
            self.run(_HEARD_MORE, said=self.talked, over=self.ended_at)
        else:
            self.run(_HEARD_FIRST, said=self.talked, over=self.ended_at, now=self.now)

    def end_reservations(self) -> Sequence[AnyRow]:
        """The call rings nowhere any more."""
        return self.run(_END_RESERVATIONS)

    def change(self, decision: AnyRow, **values: Any) -> None:
        """Set these columns of the decision."""
        self.connection.execute(_CHANGE, {"row": decision.id, **values})

    def close_others(self, decision: AnyRow, close: Update) -> None:
        """The call's other decisions are over, by this statement. Those without an outcome had no answer."""
        if others := [other.id for other in self.decisions if other.id != decision.id]:
            self.run(close, others=others, now=self.now)


def _load(
    database: Database,
    session: Session,
    project: Project,
    event: CallEvent,
    now: datetime | None,
    arrived_at: float | None,
) -> _Call:
    connection = session.connection()
    if not database.is_sqlite:
        # Events and questions of one call queue here; on SQLite all writers queue anyway.
        connection.execute(_LOCK, {"key": call_key(project.id, event.call_id)})
    if now is None:
        now = database.now(session)
    late = timedelta(seconds=0 if arrived_at is None else time.monotonic() - arrived_at)
    # What has just come is newer than all that was said before, whatever the clock said then.
    displaces = now + CLOCK_STEP if late < CLOCK_STEP else now - late
    call = _Call(connection, project, event, now - late, displaces, now + CLOCK_STEP)
    for heard in call.run(_HEARD):
        call.is_heard, call.talked, call.ended_at = True, list(heard.talked), heard.ended_at
    call.decisions = call.run(_DECISIONS)
    return call


# Built once: to build a statement takes longer than to run it. `project` and `call` are those of the event.
_PROJECT = bindparam("project", type_=Integer)
_CALL_ID = bindparam("call", type_=String)
_NOW = bindparam("now", type_=Instant)
_LOCK = text("SELECT pg_advisory_xact_lock(:key)")
_CALL_BY_ID = (
    select(Decision.call_id)
    .where(Decision.project_id == _PROJECT, Decision.call_id == _CALL_ID, Decision.call_id != "")
    .limit(1)
)
_CALLS_OF_LOGIN = union_all(
    select(Reservation.call_id).where(Reservation.project_id == _PROJECT, Reservation.sip_login == bindparam("login")),
    select(LoginState.event_call_id).where(
        LoginState.project_id == _PROJECT, LoginState.login == bindparam("login"), LoginState.event_speaking.is_(True)
    ),
)
_HEARD = select(HeardCall.talked, HeardCall.ended_at).where(
    HeardCall.project_id == _PROJECT, HeardCall.call_id == _CALL_ID
)
_HEARD_FIRST = insert(HeardCall).values(
    project_id=_PROJECT,
    call_id=_CALL_ID,
    heard_at=_NOW,
    talked=bindparam("said"),
    ended_at=bindparam("over"),
)
_HEARD_MORE = (
    update(HeardCall)
    .where(HeardCall.project_id == _PROJECT, HeardCall.call_id == _CALL_ID)
    .values(talked=bindparam("said"), ended_at=bindparam("over"))
)
_DECISIONS = (
    select(
        Decision.id,
        Decision.agent_id,
        Decision.sip_login,
        Decision.destination,
        Decision.asked_at,
        Decision.outcome,
        Decision.inferred,
        Decision.answered_agent_id,
        Decision.answered_login,
        Decision.answered_at,
        Decision.ended_at,
    )
    .where(Decision.project_id == _PROJECT, Decision.call_id == _CALL_ID, Decision.call_id != "")
    .order_by(Decision.id.desc())
    .limit(DECISION_LIMIT)
)
_CAME = (
    select(Decision.asked_at)
    .where(Decision.project_id == _PROJECT, Decision.call_id == bindparam("other"), Decision.call_id != "")
    .order_by(Decision.id)
    .limit(1)
)
_NEWER = (
    select(Decision.id)
    .where(
        Decision.project_id == _PROJECT,
        Decision.call_id != _CALL_ID,
        Decision.ended_at.is_(None),
        or_(Decision.agent_id == bindparam("agent"), Decision.answered_agent_id == bindparam("agent")),
        Decision.asked_at > bindparam("since"),
    )
    .limit(1)
)
_CHANGE = update(Decision).where(Decision.id == bindparam("row"))
_CLOSE = (
    update(Decision)
    .where(
        Decision.project_id == _PROJECT,
        Decision.call_id == _CALL_ID,
        Decision.id.in_(bindparam("others", expanding=True)),
    )
    .values(ended_at=_NOW, outcome=case((Decision.outcome == "", Outcome.NO_ANSWER), else_=Decision.outcome))
)
_CLOSE_UNANSWERED = _CLOSE.where(Decision.outcome == "")
_CLOSE_OPEN = _CLOSE.where(Decision.ended_at.is_(None))
_UNDO_CONCLUDED = _CLOSE.where(Decision.outcome == Outcome.ANSWERED, Decision.inferred).values(
    outcome=Outcome.NO_ANSWER,
    inferred=False,
    answered_agent_id=None,
    answered_login="",
    answered_at=None,
    waited_seconds=None,
    talked_seconds=None,
)
_END_RESERVATIONS = (
    delete(Reservation)
    .where(Reservation.project_id == _PROJECT, Reservation.call_id == _CALL_ID)
    .returning(Reservation.agent_id, Reservation.claimed_at, Reservation.expires_at)
)
_END_RESERVATION = (
    delete(Reservation)
    .where(Reservation.agent_id == bindparam("agent"), Reservation.decision_id == bindparam("decision"))
    .returning(Reservation.agent_id, Reservation.claimed_at, Reservation.expires_at)
)
_HOLD = (
    select(LoginState.login, LoginState.event_speaking, LoginState.event_call_id)
    .where(LoginState.project_id == _PROJECT, LoginState.login.in_(bindparam("logins", expanding=True)))
    .order_by(LoginState.login)
    .with_for_update()
)
_SAY = text(
    "INSERT INTO login_states (project_id, login, online, speaking, since_at, event_speaking, event_at, event_call_id)"
    " VALUES (:project, :login, false, false, :now, :speaking, :now, :call_id) ON CONFLICT (project_id, login)"
    " DO UPDATE SET event_speaking = excluded.event_speaking, event_at = excluded.event_at,"
    " event_call_id = excluded.event_call_id WHERE login_states.event_call_id = excluded.event_call_id"
    " OR login_states.event_at IS NULL OR login_states.event_at <= :displaces OR login_states.event_at > :ahead"
)
_UNSAY = (
    update(LoginState)
    .where(
        LoginState.project_id == _PROJECT,
        LoginState.login == bindparam("of_login"),
        LoginState.event_call_id == _CALL_ID,
    )
    .values(event_speaking=None, event_at=None)
)


# ---- what each kind of event does


def _before_own_call(call: _Call) -> Applied:
    """An agent dials somebody: the phone is in use from now on."""
    login, agent = call.named(call.event.sip_login or call.event.caller)
    if agent is None:
        return _unmatched(login)
    if call.ended_at is not None or login in call.talked:
        return Applied(Result.REPEATED)
    call.talked.append(login)
    call.say({login: True})
    call.save()
    return Applied(Result.APPLIED)


def _pick_up(call: _Call) -> Applied:
    """Somebody answered: the talk is theirs from now on, and whoever had it before is free."""
    decision = call.decision_of("")
    fallback = (decision.sip_login or decision.destination) if decision is not None else ""
    login, agent = call.named(call.event.sip_login or fallback)
    if call.event.answered is False:
        return _reach_voicemail(call, decision)
    if not login or (agent is None and not call.is_ours):
        return _unmatched(login)
    notes = () if agent else (_stranger(login),)
    if agent is None and not call.is_sent_to(login):
        # Perhaps a phone of the agent's under a name that nobody can read: it frees nobody.
        if call.is_with_agent():
            return Applied(Result.NOTED, notes)
        if decision is not None and decision.agent_id is not None and _is_open(decision) and not _is_number(login):
            login, agent = call.named(decision.sip_login)
    if login in call.talked:
        return _confirm(call, login)
    talkers = call.agents_of(call.talked)
    lock_agents(call.connection, talkers | call.agents_of([login]))
    if call.ended_at is None:
        _take_over(call, login, agent)
    call.talked.append(login)
    call.save()
    call.end_reservations()
    _record_answer(call, login, agent)
    if agent is not None and call.is_ours and agent.id not in talkers:
        count_answer(call.connection, agent.id, call.now, call.project.time_zone)
    return Applied(Result.APPLIED, notes)


def _is_number(name: str) -> bool:
    """A number of the world outside: what is shorter may be the extension of one of our phones."""
    return len(name) > 6 and name.removeprefix("+").isdecimal()


def _take_over(call: _Call, login: str, agent: Agent | None) -> None:
    rows = call.hold([*call.talked, login])
    left = {other for other, row in rows.items() if call.talks_here(row)}
    late = call.free(left - {login})
    if agent is not None and not (call.talks_elsewhere(rows.get(login)) and _is_older(call, rows[login])):
        call.say({login: True})
    for agent_id in call.agents_of(left) - call.agents_of([login, *late]):
        end_talk(call.connection, call.project.agents[agent_id], call.now)


def _is_older(call: _Call, elsewhere: AnyRow) -> bool:
    """Did this call come before the one that the login talks on? Then that pickup is newer, and this one was late."""
    if not call.is_ours:
        return False
    found = call.run(_CAME, other=elsewhere.event_call_id)
    return bool(found) and call.decisions[-1].asked_at < found[0].asked_at


def _record_answer(call: _Call, login: str, agent: Agent | None) -> None:
    decision = call.decision_of(login)
    if decision is None or (decision.outcome == Outcome.VOICEMAIL and call.ended_at is not None):
        return
    answered_at = decision.answered_at or call.now
    values: dict[str, Any] = {"outcome": Outcome.ANSWERED, "inferred": False, "answered_at": answered_at}
    if call.ended_at is None:
        # Whatever was concluded meanwhile, the talk goes on.
        values["ended_at"] = None
        values["waited_seconds"] = _seconds(answered_at - call.decisions[-1].asked_at)
    if call.ended_at is None or not decision.answered_login:
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_login"] = login
    call.change(decision, **values)
    call.close_others(decision, _CLOSE_UNANSWERED)


def _confirm(call: _Call, login: str) -> Applied:
    """Known already, if only because presence showed it: then it is no conclusion any more."""
    for decision in call.decisions:
        if decision.inferred and decision.answered_login == login:
            call.change(decision, inferred=False)
            return Applied(Result.APPLIED)
    return Applied(Result.REPEATED)


def _reach_voicemail(call: _Call, decision: AnyRow | None) -> Applied:
    """The call rings nobody any more. A voice mail box is nobody, and the end of the call will say so too."""
    if decision is None:
        return Applied(Result.NOTED)
    if call.ended_at is not None or call.talked or decision.outcome == Outcome.VOICEMAIL:
        return Applied(Result.REPEATED)
    call.end_reservations()
    call.change(decision, outcome=Outcome.VOICEMAIL, inferred=False, ended_at=call.now)
    return Applied(Result.APPLIED)


def _end(call: _Call) -> Applied:
    """The call is over: everybody on it is free, and this is what became of it."""
    event = call.event
    if call.ended_at is not None:
        return Applied(Result.REPEATED)
    outcome = _outcome(call)
    login, agent = call.named(_who_ended(call, outcome))
    if not call.is_ours and not call.is_heard and agent is None:
        return _unmatched(login)
    decision = call.decision_of(login)
    talkers = call.agents_of(call.talked)
    offered = {d.agent_id for d in call.decisions if d.agent_id is not None}
    lock_agents(call.connection, talkers | call.agents_of([login]) | offered)
    talked = outcome is Outcome.ANSWERED
    _free(call, login if talked else "", decision)
    if talked and agent is not None and call.is_ours and agent.id not in talkers:
        count_answer(call.connection, agent.id, call.now, call.project.time_zone)
    if talked and login and login not in call.talked:
        call.talked.append(login)
    call.ended_at = call.now
    call.save()
    leases = call.end_reservations()
    if decision is not None:
        # Neither is held against an agent who was told so already, nor a caller's impatience against anyone.
        if decision.agent_id is not None and _is_open(decision):
            if outcome is Outcome.NO_ANSWER and _hung_up_early(call, decision, leases):
                outcome = Outcome.ABANDONED
            elif outcome in {Outcome.NO_ANSWER, Outcome.BUSY, Outcome.FAILED}:
                _cool_down(call, decision.agent_id, is_missed=outcome is Outcome.NO_ANSWER)
        _record_end(call, decision, outcome, login, agent)
    named = event.sip_login and talked and agent is None
    return Applied(Result.APPLIED, (_stranger(login),) if named else ())


def _outcome(call: _Call) -> Outcome:
    """The same whichever of pickup and end is heard first: a pickup is a fact, a voice mail box is nobody."""
    said = OUTCOMES[call.event.disposition]
    if said is Outcome.VOICEMAIL:
        return said
    concluded = {decision.answered_login for decision in call.decisions if decision.inferred}
    told = set(call.talked) - concluded
    if told or call.event.answered or (call.event.billsec or 0) > 0 or (call.talked and said is Outcome.UNKNOWN):
        return Outcome.ANSWERED
    return said


def _who_ended(call: _Call, outcome: Outcome) -> str:
    """Who talked, as the event names it, else as the pickups did, else whoever it was offered to."""
    named = call.event.sip_login
    if outcome is not Outcome.ANSWERED or not (call.is_ours or call.talked):
        return named
    if named and (_is_number(named) or call.named(named)[1] is not None or call.is_sent_to(named)):
        return named
    if call.talked:
        return call.talked[-1]
    decision = call.decision_of("")
    return str(decision.sip_login or decision.destination) if decision is not None else ""


def _free(call: _Call, login: str, decision: AnyRow | None) -> None:
    """End the talks of this call. `login`: who talked last, known from the event alone perhaps."""
    rows = call.hold([*call.talked, login])
    freed = {name for name, row in rows.items() if call.talks_here(row)}
    finished = call.agents_of(freed)
    agent = call.named(login)[1] if login else None
    if agent is not None and not call.talks_elsewhere(rows.get(login)):
        freed.add(login)
        # The talk of a login that had picked up may be over for us: transferred, or seen to end by presence.
        goes_on = decision is not None and decision.answered_login == login and decision.ended_at is None
        if login not in call.talked or goes_on:
            finished.add(agent.id)
    late = call.free(freed)
    for agent_id in sorted(finished - call.agents_of(late)):
        wraps_up = call.event.direction != "out"  # nothing to note down after a call of one's own
        end_talk(call.connection, call.project.agents[agent_id], call.now, wraps_up=wraps_up)


def _is_open(decision: AnyRow) -> bool:
    """Nothing was reported of it yet."""
    return decision.outcome == "" or bool(decision.inferred and decision.outcome != Outcome.ANSWERED)


def _hung_up_early(call: _Call, decision: AnyRow, leases: Sequence[AnyRow]) -> bool:
    """Did the caller not wait until the agent's phone had rung out? The platform calls that NO ANSWER too."""
    for lease in leases:
        if lease.agent_id == decision.agent_id:
            return bool(call.now - lease.claimed_at < RANG_OUT * (lease.expires_at - lease.claimed_at))
    return False


def _cool_down(call: _Call, agent_id: int, *, is_missed: bool) -> None:
    if not is_missed:  # busy or out of reach: not first for the next call either, but no call was missed
        call.connection.execute(_COOL, {"agent": agent_id, "until": call.now + call.project.cool_down})
        return
    values = {
        "agent_id": agent_id,
        "now": to_micros(call.now),
        "until": to_micros(call.now + call.project.cool_down),
        "limit": call.project.break_after_no_answers,
    }
    call.connection.execute(_COOL_DOWN, values)


_COOL_DOWN = text(COOL_DOWN)
_COOL = update(AgentState).where(AgentState.agent_id == bindparam("agent")).values(cooling_until=bindparam("until"))


def _record_end(call: _Call, decision: AnyRow, outcome: Outcome, login: str, agent: Agent | None) -> None:
    event = call.event
    values: dict[str, Any] = {
        "outcome": outcome,
        "inferred": outcome is Outcome.ABANDONED and OUTCOMES[event.disposition] is not outcome,
        "disposition": event.disposition,
        "ended_at": call.now,
        "answered_agent_id": None,
        "answered_login": "",
        "answered_at": None,
        "talked_seconds": None,
    }
    reached_at = call.now
    if outcome is Outcome.ANSWERED:
        talked = timedelta(seconds=event.billsec or 0)
        reached_at = decision.answered_at or max(call.now - talked, decision.asked_at)
        values["answered_at"] = reached_at
        values["answered_agent_id"] = agent.id if agent else None
        values["answered_login"] = login
        if decision.outcome == Outcome.ANSWERED and decision.ended_at is not None:
            values["ended_at"] = decision.ended_at  # seen by presence before we were told
        values["talked_seconds"] = _seconds(values["ended_at"] - reached_at) if event.billsec is None else event.billsec
    waited = event.waittime
    if waited is None and event.duration is not None:
        waited = max(0, event.duration - (event.billsec or 0))
    values["waited_seconds"] = _seconds(reached_at - call.decisions[-1].asked_at) if waited is None else waited
    call.change(decision, **values)
    if outcome is not Outcome.ANSWERED:
        call.close_others(decision, _UNDO_CONCLUDED)
    call.close_others(decision, _CLOSE_OPEN)


def _refuse(call: _Call) -> Applied:
    """The agent named did not take it, and the call goes on: the same question gets the next agent."""
    login, agent = call.named(call.event.sip_login)
    offers = [
        decision
        for decision in call.decisions
        if decision.agent_id is not None
        and (not login or decision.sip_login == login or (agent is not None and decision.agent_id == agent.id))
    ]
    if not offers:
        return Applied(Result.NOTED) if call.is_ours else _unmatched(login)
    offer = offers[0]
    if not _is_open(offer) or call.ended_at is not None:
        return Applied(Result.REPEATED)
    lock_agents(call.connection, {offer.agent_id})
    leases = call.run(_END_RESERVATION, agent=offer.agent_id, decision=offer.id)
    outcome = OUTCOMES[call.event.disposition]
    if not call.event.disposition.is_refusal:
        outcome = Outcome.NO_ANSWER
    _cool_down(call, offer.agent_id, is_missed=outcome is Outcome.NO_ANSWER and not _hung_up_early(call, offer, leases))
    values = {"outcome": outcome, "inferred": False, "disposition": call.event.disposition, "ended_at": call.now}
    call.change(offer, **values)
    return Applied(Result.APPLIED)


_APPLY: Mapping[EventKind, Callable[[_Call], Applied]] = {
    EventKind.BEFORE_CALL: _before_own_call,
    EventKind.PICKUP: _pick_up,
    EventKind.AFTER_CALL: _end,
    EventKind.UNAVAILABLE: _refuse,
}


# ---- the clocks of agents that talks move


def count_answer(connection: Connection, agent_id: int, now: datetime, time_zone: str) -> None:
    """One more call answered on the project's local day; no no-answers in a row any more. What is told of an earlier
    day counts no more."""
    connection.execute(_COUNT_ANSWER, {"agent": agent_id, "today": _day(now, time_zone)})


def end_talk(connection: Connection, agent: Agent, at: datetime, *, wraps_up: bool = True) -> None:
    """A talk of this agent ended at this instant: idle from then on, after the wrap-up. The latest end counts."""
    until = {"wrap_up_until": at + agent.wrap_up} if wraps_up and agent.wrap_up else {}
    connection.execute(_END_TALK, {"agent": agent.id, "at": at, **until})


_COUNT_ANSWER = (
    update(AgentState)
    .where(AgentState.agent_id == bindparam("agent"))
    .values(
        answered_today=case(
            (AgentState.day == bindparam("today"), AgentState.answered_today + 1),
            (AgentState.day > bindparam("today"), AgentState.answered_today),
            else_=1,
        ),
        day=case((AgentState.day > bindparam("today"), AgentState.day), else_=bindparam("today", type_=Date)),
        no_answers=0,
        cooling_until=None,
    )
)
_END_TALK = (
    update(AgentState)
    .where(
        AgentState.agent_id == bindparam("agent"),
        or_(AgentState.last_talk_end_at.is_(None), AgentState.last_talk_end_at <= bindparam("at")),
    )
    .values(last_talk_end_at=bindparam("at"))
)


def _day(now: datetime, time_zone: str) -> date:
    return now.astimezone(ZoneInfo(time_zone)).date()


def _seconds(span: timedelta) -> float:
    return max(0.0, span.total_seconds())


def _unmatched(login: str) -> Applied:
    return Applied(
        Result.UNMATCHED, (_stranger(login) if login else "The event names nobody.", "The call is not ours.")
    )


def _stranger(login: str) -> str:
    return f"{login!r} is no agent's SIP login."
