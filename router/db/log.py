"""Search the call log, decisions and their outcomes, at a cost that does not grow with the log.

Newest first, from a place on (keyset): by time, or by id if the whole caller is known. Conditions that no index holds
(a part of a number, an outcome) are searched piece by piece until the page is full or the time is up; `Found.reached`
says how far that was, and the next page continues there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, case, exists, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from router.core.model import Outcome
from router.db.models import Decision
from router.db.types import from_micros, to_micros

Entry = Row[*tuple[Any, ...]]
"""A decision as the log shows it: the columns of COLUMNS by name."""

_NOT_SHOWN = {"project_id", "attempt", "snapshot_id", "answered_at", "ended_at", "record", "packed"}
COLUMNS = tuple(column for column in Decision.__table__.c if column.name not in _NOT_SHOWN)

NO_RULE = 0  # a value of Search.rule_id: no rule matched
MISSED = "missed"  # a value of Search.outcome: any of MISSED_OUTCOMES
MISSED_OUTCOMES = (Outcome.NO_ANSWER, Outcome.BUSY, Outcome.ABANDONED, Outcome.VOICEMAIL, Outcome.FAILED)
OPEN = "open"  # a value of Search.outcome: offered to an agent, no outcome yet
OVERFLOW = "overflow"  # sent to the overflow, with any outcome
EMPTY = "empty"  # sent to an empty overflow

_FIRST_PIECE = 1_000  # decisions in the first piece; later ones have as many as fit half of the time left
_LARGEST_PIECE = 64_000
# Ids are in the order of time, except for decisions made while the database was away, which are stored later.
_LATE = timedelta(days=1)
_HIGHEST_ID = 2**63 - 1


class Place(NamedTuple):
    """A decision's place in the log: `asked_at` in microseconds since the epoch."""

    asked_at: int
    id: int

    def __str__(self) -> str:
        return f"{self.asked_at}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Return the place that `str` wrote as this text; None for any other text."""
        asked_at, dash, number = text.partition("-")
        if not dash or not (asked_at + number).isascii() or not (asked_at.isdigit() and number.isdigit()):
            return None
        place = cls(int(asked_at), int(number))
        return place if max(place) <= _HIGHEST_ID else None

    @classmethod
    def of(cls, entry: Entry) -> Place:
        return cls(to_micros(entry.asked_at), entry.id)

    @property
    def at(self) -> datetime:
        return from_micros(self.asked_at)


@dataclass(frozen=True, slots=True)
class Number:
    """A condition on a number: equal to one of `exact` ("" is a hidden one), or containing one of `parts`."""

    exact: tuple[str, ...] | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions of a search. None and "" mean any value.

    `outcome`: of core.model.Outcome, or MISSED, OPEN, OVERFLOW, EMPTY. `agent_id`: who was offered the call. `since` is
    included, `until` is not. `is_test`: test requests alone, or none; None: both.
    """

    caller: Number | None = None
    dialed: Number | None = None
    agent_id: int | None = None
    rule_id: int | None = None
    outcome: str = ""
    degraded: bool = False
    since: datetime | None = None
    until: datetime | None = None
    is_test: bool | None = False


class Found(NamedTuple):
    """The result of a search. `entries`: newest first. `has_more`: there may be more in the direction of the search.
    `reached`: where the search stopped because its time was up; None if it did not.
    """

    entries: list[Entry]
    has_more: bool
    reached: Place | None


def find(
    session: Session,
    project_id: int,
    search: Search,
    *,
    limit: int,
    older_than: Place | None = None,
    newer_than: Place | None = None,
    seconds: float | None = None,
) -> Found:
    """Return the newest entries, or those next to a place, `limit` at most. `seconds`: the time limit, if any.

    `newer_than` asks for those right above the place, `older_than` for those right below it.
    """
    scan = _Scan(session, project_id, search, is_rising=newer_than is not None)
    start = newer_than or older_than
    entries: list[Entry] = []
    reached = None
    for begin, end in _pieces(scan, start, seconds) if scan.is_sieved else [(start, None)]:
        entries += scan.entries(begin, end, limit + 1 - len(entries))
        reached = None if len(entries) > limit else end
        if len(entries) > limit:
            break
    has_more = len(entries) > limit
    del entries[limit:]
    if newer_than is not None:
        entries.reverse()
    return Found(entries, has_more or reached is not None, reached)


def _pieces(scan: _Scan, start: Place | None, seconds: float | None) -> Iterator[tuple[Place | None, Place | None]]:
    """Yield beginning and end of one piece after the other. The last one has no end, unless the time is up."""
    deadline = None if seconds is None else time.monotonic() + seconds
    size = _FIRST_PIECE if seconds is not None else _LARGEST_PIECE
    while True:
        began = time.monotonic()
        end = scan.end_of_piece(start, size)
        yield start, end
        now = time.monotonic()
        if end is None or (deadline is not None and now >= deadline):
            return
        if deadline is not None:
            fits = size * (deadline - now) / max(now - began, 1e-6) / 2
            size = round(min(max(fits, size / 4, 100), size * 4, _LARGEST_PIECE))
        start = end


@dataclass(slots=True)
class Figures:
    """Counts of calls, or of what one agent was offered. Seconds in sum; `waits`: how many waited `waited` together.

    Each count is of what a search by that outcome finds, so `overflow` and `empty` hold calls with any outcome.
    """

    calls: int = 0
    answered: int = 0
    missed: int = 0
    overflow: int = 0
    empty: int = 0
    waits: int = 0
    waited: float = 0.0
    talked: float = 0.0

    @property
    def average_wait(self) -> float | None:
        """Return how long a caller waited on average until somebody answered; None if nobody did."""
        return self.waited / self.waits if self.waits else None


class Counted(NamedTuple):
    """The figures of a search, in total and by agent. `reached`: as in Found."""

    total: Figures
    agents: dict[int, Figures]
    reached: Place | None


def count_calls(
    session: Session,
    project_id: int,
    search: Search,
    *,
    before: Counted | None = None,
    seconds: float | None = None,
) -> Counted:
    """Count calls and offers, newest first. A call counts once in total, by its last step, and for each agent it was
    offered to. `before`: what was counted so far, to go on from there. `seconds`: the time limit, if any.
    """
    total, agents, reached = before or Counted(Figures(), {}, None)
    scan = _Scan(session, project_id, search, is_rising=False)
    for begin, end in _pieces(scan, reached, seconds):
        for agent, outcome, by, is_last, is_empty, count, waits, waited, talked in scan.counts(begin, end):
            is_answered, is_missed = outcome == Outcome.ANSWERED, outcome in MISSED_OUTCOMES
            talk = Figures(answered=count, waits=waits, waited=waited, talked=talked) if is_answered else Figures()
            if is_last:
                sent = {} if agent is not None else {"empty": count} if is_empty else {"overflow": count}
                _add(total, replace(talk, calls=count, missed=count * is_missed, **sent))
            if agent is not None:
                _add(agents.setdefault(agent, Figures()), Figures(calls=count, missed=count * is_missed))
            if is_answered and by is not None:
                _add(agents.setdefault(by, Figures()), talk)
        reached = end
    return Counted(total, agents, reached)


def _add(figures: Figures, more: Figures) -> None:
    for name in Figures.__slots__:
        setattr(figures, name, getattr(figures, name) + getattr(more, name))


def callers_holding(session: Session, project_id: int, number: Number, *, most: int) -> Number | None:
    """Return all callers in the log that contain one of the parts; None if there are more than `most`.

    It reads only an index, all of it: 0.2 s for a million calls. Searching the calls themselves takes seconds.
    """
    query = (
        select(Decision.caller)
        .where(Decision.project_id == project_id, _matches(Decision.caller, number))
        .distinct()
        .limit(most + 1)
    )
    found = tuple(session.scalars(query))
    return Number(exact=found) if len(found) <= most else None


def count_newer(session: Session, project_id: int, search: Search, place: Place | None, *, limit: int) -> int:
    """Return how many entries are newer than this place, `limit` at most."""
    scan = _Scan(session, project_id, search, is_rising=True)
    found = scan.ids(place or Place(0, 0), limit).subquery()
    return session.scalar(select(func.count()).select_from(found)) or 0


def steps_of(session: Session, project_id: int, call_id: str, *, limit: int = 50) -> list[Entry]:
    """Return all questions about one call, in order; [] for a call without an id."""
    if not call_id:
        return []
    query = select(*COLUMNS).where(
        Decision.project_id == project_id, Decision.call_id == call_id, Decision.call_id != ""
    )
    return list(session.execute(query.order_by(Decision.id).limit(limit)))


class _Scan:
    """A scan of the log along an index: by caller and id if the caller is known, else by time."""

    def __init__(self, session: Session, project_id: int, search: Search, *, is_rising: bool) -> None:
        self._session = session
        self._is_rising = is_rising
        self._base: list[ColumnElement[bool]] = [Decision.project_id == project_id]
        caller = search.caller
        self._by_caller = caller is not None and caller.exact is not None
        self._sieve = list(_sieve(search))
        # Nearly all decisions are of calls: it is no reason to search in pieces.
        self._hidden = [~Decision.is_test] if search.is_test is False else []
        self._base += [Decision.is_test == true()] if search.is_test else []
        if caller is not None and caller.exact is not None:
            self._base += [_matches(Decision.caller, caller), *self._ids_between(project_id, search)]
            self._sieve += _between(search)
        else:
            self._base += _between(search)

    @property
    def is_sieved(self) -> bool:
        """Return whether some rows of the scan do not match the search."""
        return bool(self._sieve)

    def _ids_between(self, project_id: int, search: Search) -> Iterator[ColumnElement[bool]]:
        """Yield conditions on ids for the search's time span: the index by caller holds no times."""
        for bound, is_lower in ((search.since, True), (search.until, False)):
            if bound is None:
                continue
            beyond = Decision.asked_at < bound - _LATE if is_lower else Decision.asked_at > bound + _LATE
            order = Decision.asked_at.desc() if is_lower else Decision.asked_at
            nearest = select(Decision.id).where(Decision.project_id == project_id, beyond).order_by(order).limit(1)
            number = self._session.scalar(nearest)
            if number is not None:
                yield Decision.id > number if is_lower else Decision.id < number

    def _beyond(self, place: Place | None, *, until: Place | None = None) -> Iterator[ColumnElement[bool]]:
        """Yield conditions for rows after `place` in the scan's direction, up to and including `until`."""
        behind, not_before, not_behind = (gt, ge, le) if self._is_rising else (lt, le, ge)
        if place is not None and self._by_caller:
            yield behind(Decision.id, place.id)
        elif place is not None:
            yield not_before(Decision.asked_at, place.at)  # lets the database use the index, which holds times only
            yield or_(behind(Decision.asked_at, place.at), behind(Decision.id, place.id))
        if until is not None:
            yield not_behind(*((Decision.id, until.id) if self._by_caller else (Decision.asked_at, until.at)))

    def _ordered(self, query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        keys = (Decision.id,) if self._by_caller else (Decision.asked_at, Decision.id)
        return query.order_by(*(key if self._is_rising else key.desc() for key in keys))

    def end_of_piece(self, start: Place | None, size: int) -> Place | None:
        """Return the place at the end of the next `size` decisions after `start`; None if there are fewer."""
        beyond = list(self._beyond(start))
        if self._by_caller:
            by_id = select(Decision.id, Decision.asked_at).where(*self._base, *beyond)
            row = self._session.execute(self._ordered(by_id).offset(size).limit(1)).first()
            return None if row is None else Place(to_micros(row.asked_at), row.id)
        # Found in the index alone, which holds no ids: a piece may hold a few more or fewer, but ends between two
        # instants.
        at = Decision.asked_at
        if start is not None and start.id in (0, _HIGHEST_ID):
            beyond = [at > start.at if self._is_rising else at < start.at]
        by_time = select(at).where(*self._base, *beyond[:1]).order_by(at if self._is_rising else at.desc())
        found = self._session.scalar(by_time.offset(size).limit(1))
        # All decisions of that instant belong to the piece.
        return None if found is None else Place(to_micros(found), _HIGHEST_ID if self._is_rising else 0)

    def entries(self, start: Place | None, end: Place | None, limit: int) -> Sequence[Entry]:
        """Return the matching entries of a piece of the log."""
        query = select(*COLUMNS).where(*self._base, *self._beyond(start, until=end), *self._sieve, *self._hidden)
        return self._session.execute(self._ordered(query).limit(limit)).all()

    def counts(self, start: Place | None, end: Place | None) -> Sequence[Entry]:
        """Return how often each pair of agents and outcome occurs in a piece of the log, with the seconds in sum.

        Apart by whether there is a later step of the call, and whether the answer was empty.
        """
        later, is_answered = aliased(Decision), Decision.outcome == Outcome.ANSWERED
        is_last = ~exists().where(
            later.project_id == Decision.project_id,
            later.call_id == Decision.call_id,
            later.call_id != "",  # as in the index's condition
            later.id > Decision.id,
        )
        by = case((is_answered, Decision.answered_agent_id), else_=None)
        waited, talked = (
            func.coalesce(func.sum(column), 0) for column in (Decision.waited_seconds, Decision.talked_seconds)
        )
        keys = (Decision.agent_id, Decision.outcome)
        # Grouped by label: otherwise SQLite looks for a later step twice.
        labelled = (by.label("by_agent"), is_last.label("is_last"), (Decision.destination == "").label("is_empty"))
        numbers = (func.count(), func.count(Decision.waited_seconds), waited, talked)
        beyond = self._beyond(start, until=end)
        where = (*self._base, *beyond, *self._sieve, *self._hidden)
        return self._session.execute(
            select(*keys, *labelled, *numbers).where(*where).group_by(*keys, *(one.name for one in labelled))
        ).all()

    def ids(self, start: Place, limit: int) -> Select[*tuple[Any, ...]]:
        query = select(Decision.id).where(*self._base, *self._beyond(start), *self._sieve, *self._hidden)
        return self._ordered(query).limit(limit)


def _matches(column: InstrumentedAttribute[str], number: Number) -> ColumnElement[bool]:
    if number.exact is None:
        return or_(*(column.icontains(part, autoescape=True) for part in number.parts))
    return column == number.exact[0] if len(number.exact) == 1 else column.in_(number.exact)


def _between(search: Search) -> list[ColumnElement[bool]]:
    bounds = []
    if search.since is not None:
        bounds.append(Decision.asked_at >= search.since)
    if search.until is not None:
        bounds.append(Decision.asked_at < search.until)
    return bounds


def _sieve(search: Search) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions on columns that do not lead the index."""
    if search.caller is not None and search.caller.exact is None:
        yield _matches(Decision.caller, search.caller)
    if search.dialed is not None:
        yield _matches(Decision.dialed, search.dialed)
    if search.agent_id is not None:
        yield Decision.agent_id == search.agent_id
    if search.rule_id is not None:
        yield Decision.rule_id.is_(None) if search.rule_id == NO_RULE else Decision.rule_id == search.rule_id
    if search.outcome in (OVERFLOW, EMPTY):
        yield Decision.agent_id.is_(None)  # in the index, as `result` is not
        yield Decision.destination != "" if search.outcome == OVERFLOW else Decision.destination == ""
    elif search.outcome == OPEN:
        yield Decision.agent_id.is_not(None)
        yield Decision.outcome == ""
        yield ~Decision.is_test
    elif search.outcome == MISSED:
        yield Decision.outcome.in_(MISSED_OUTCOMES)
    elif search.outcome:
        yield Decision.outcome == search.outcome
    if search.degraded:
        yield Decision.degraded != ""
