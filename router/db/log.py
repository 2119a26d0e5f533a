"""The call log: pages of decisions and of their outcomes, found at a cost that does not grow with the log.

Newest first, from a place on (keyset): by time, or by id where the caller is known in full. What no index holds (a part
of a number, an outcome) is looked for piece by piece, back from there, until the page is full or the time is up;
`Found.reached` tells how far that was, and the next page goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from router.db.models import Decision
from router.db.types import from_micros, to_micros

Entry = Row[*tuple[Any, ...]]
"""A decision as the log shows it: the columns of COLUMNS by name."""

COLUMNS = (
    Decision.id,
    Decision.asked_at,
    Decision.call_id,
    Decision.step,
    Decision.caller,
    Decision.dialed,
    Decision.rule_id,
    Decision.group_id,
    Decision.agent_id,
    Decision.sip_login,
    Decision.destination,
    Decision.result,
    Decision.degraded,
    Decision.config_version,
    Decision.latency_us,
    Decision.outcome,
    Decision.inferred,
    Decision.answered_agent_id,
    Decision.answered_login,
    Decision.waited_seconds,
    Decision.talked_seconds,
    Decision.disposition,
)

NO_RULE = 0  # of Search.rule_id: the calls that no rule matched
OPEN = "open"  # of Search.outcome: offered, and nothing heard since
OVERFLOW = "overflow"  # sent to the overflow, whatever became of the call there
EMPTY = "empty"  # the same, with an empty answer

_FIRST_PIECE = 1_000  # decisions looked through at once; from then on as many as fit half of the time that is left
_LARGEST_PIECE = 64_000
# Decisions made while the database was away are written down later: ids are in the order of time but for that.
_LATE = timedelta(days=1)
_HIGHEST_ID = 2**63 - 1


class Place(NamedTuple):
    """A place in the log, at a decision: `asked_at` in microseconds since the epoch."""

    asked_at: int
    id: int

    def __str__(self) -> str:
        return f"{self.asked_at}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """What `str` wrote, None when it is nothing of the kind."""
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
    """What is known of a number: that it is one of `exact` ("" is a hidden one), or that it holds one of `parts`."""

    exact: tuple[str, ...] | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """What calls are looked for; None and "" ask for nothing.

    `outcome`: of core.model.Outcome, or OPEN, OVERFLOW, EMPTY. `agent_id`: who was offered the call.
    `since` is included, `until` is not.
    """

    caller: Number | None = None
    dialed: Number | None = None
    agent_id: int | None = None
    rule_id: int | None = None
    outcome: str = ""
    degraded: bool = False
    since: datetime | None = None
    until: datetime | None = None


class Found(NamedTuple):
    """`entries` newest first. `has_more`: there may be more in the direction that was asked for. `reached`: the time
    was up, and only what lies between the start and this place was looked through."""

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
    """The `limit` entries next to a place, or the newest of all. `seconds`: how long may be searched, None: to the end.

    `newer_than` gives those right above the place, `older_than` those right below.
    """
    scan = _Scan(session, project_id, search, is_rising=newer_than is not None)
    start = newer_than or older_than
    entries: list[Entry] = []
    deadline = None if seconds is None else time.monotonic() + seconds
    size = _FIRST_PIECE if seconds is not None else _LARGEST_PIECE
    reached = None
    while True:
        began = time.monotonic()
        end = scan.end_of_piece(start, size) if scan.is_sieved else None
        entries += scan.entries(start, end, limit + 1 - len(entries))
        if len(entries) > limit or end is None:
            break
        if deadline is not None:
            now = time.monotonic()
            if now >= deadline:
                reached = end
                break
            fits = size * (deadline - now) / max(now - began, 1e-6) / 2
            size = round(min(max(fits, size / 4, 100), size * 4, _LARGEST_PIECE))
        start = end
    has_more = len(entries) > limit
    del entries[limit:]
    if newer_than is not None:
        entries.reverse()
    return Found(entries, has_more or reached is not None, reached)


def callers_holding(session: Session, project_id: int, number: Number, *, most: int) -> Number | None:
    """All callers of the log that hold one of the parts, found in the index alone; None: there are more than `most`.

    Costs 0.2 s for a million calls, where finding the calls themselves takes several, but does not stop halfway.
    """
    query = (
        select(Decision.caller)
        .where(Decision.project_id == project_id, _holds(Decision.caller, number.parts))
        .distinct()
        .limit(most + 1)
    )
    found = tuple(session.scalars(query))
    return Number(exact=found) if len(found) <= most else None


def count_newer(session: Session, project_id: int, search: Search, place: Place | None, *, limit: int) -> int:
    """How many entries came in above this place, `limit` at most."""
    scan = _Scan(session, project_id, search, is_rising=True)
    found = scan.ids(place or Place(0, 0), limit).subquery()
    return session.scalar(select(func.count()).select_from(found)) or 0


def steps_of(session: Session, project_id: int, call_id: str, *, limit: int = 50) -> list[Entry]:
    """All that was asked about one call, in the order of asking; [] for a call without id."""
    if not call_id:
        return []
    query = select(*COLUMNS).where(
        Decision.project_id == project_id, Decision.call_id == call_id, Decision.call_id != ""
    )
    return list(session.execute(query.order_by(Decision.id).limit(limit)))


class _Scan:
    """One way through the log, along the index that fits: by caller and id, else by time."""

    def __init__(self, session: Session, project_id: int, search: Search, *, is_rising: bool) -> None:
        self._session = session
        self._is_rising = is_rising
        self._base: list[ColumnElement[bool]] = [Decision.project_id == project_id]
        caller = search.caller
        self._by_caller = caller is not None and caller.exact is not None
        self._sieve = list(_sieve(search))
        if caller is not None and caller.exact is not None:
            self._base += [_is_one_of(Decision.caller, caller.exact), *self._ids_between(project_id, search)]
            self._sieve += _between(search)
        else:
            self._base += _between(search)

    @property
    def is_sieved(self) -> bool:
        """Has more to look through than it gives?"""
        return bool(self._sieve)

    def _ids_between(self, project_id: int, search: Search) -> Iterator[ColumnElement[bool]]:
        """Of a time, the ids that can be in it: the caller's index knows no times."""
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
        """Behind `place` in the scan's direction; up to and with `until`."""
        rising = self._is_rising
        if self._by_caller:
            if place is not None:
                yield Decision.id > place.id if rising else Decision.id < place.id
            if until is not None:
                yield Decision.id <= until.id if rising else Decision.id >= until.id
            return
        if place is not None:
            # The first part is for the index, which knows of times only.
            at = place.at
            yield Decision.asked_at >= at if rising else Decision.asked_at <= at
            if rising:
                yield or_(Decision.asked_at > at, Decision.id > place.id)
            else:
                yield or_(Decision.asked_at < at, Decision.id < place.id)
        if until is not None:
            yield Decision.asked_at <= until.at if rising else Decision.asked_at >= until.at

    def _ordered(self, query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        keys = (Decision.id,) if self._by_caller else (Decision.asked_at, Decision.id)
        return query.order_by(*(key if self._is_rising else key.desc() for key in keys))

    def end_of_piece(self, start: Place | None, size: int) -> Place | None:
        """The place up to which `size` decisions lie beyond `start`, None when there are fewer."""
        beyond = list(self._beyond(start))
        if self._by_caller:
            by_id = select(Decision.id, Decision.asked_at).where(*self._base, *beyond)
            row = self._session.execute(self._ordered(by_id).offset(size).limit(1)).first()
            return None if row is None else Place(to_micros(row.asked_at), row.id)
        # From the index alone, so without the id: whether a few more or less is all the same here. Behind the end of a
        # piece comes another instant, however many calls came at one.
        at = Decision.asked_at
        if start is not None and start.id in (0, _HIGHEST_ID):
            beyond = [at > start.at if self._is_rising else at < start.at]
        by_time = select(at).where(*self._base, *beyond[:1]).order_by(at if self._is_rising else at.desc())
        found = self._session.scalar(by_time.offset(size).limit(1))
        # All that came at that very instant belongs to the piece.
        return None if found is None else Place(to_micros(found), _HIGHEST_ID if self._is_rising else 0)

    def entries(self, start: Place | None, end: Place | None, limit: int) -> Sequence[Entry]:
        """What is looked for in a piece of the log."""
        query = select(*COLUMNS).where(*self._base, *self._beyond(start, until=end), *self._sieve)
        return self._session.execute(self._ordered(query).limit(limit)).all()

    def ids(self, start: Place, limit: int) -> Select[*tuple[Any, ...]]:
        query = select(Decision.id).where(*self._base, *self._beyond(start), *self._sieve)
        return self._ordered(query).limit(limit)


def _is_one_of(column: InstrumentedAttribute[str], texts: tuple[str, ...]) -> ColumnElement[bool]:
    return column == texts[0] if len(texts) == 1 else column.in_(texts)


def _holds(column: InstrumentedAttribute[str], parts: tuple[str, ...]) -> ColumnElement[bool]:
    return or_(*(column.icontains(part, autoescape=True) for part in parts))


def _between(search: Search) -> list[ColumnElement[bool]]:
    bounds = []
    if search.since is not None:
        bounds.append(Decision.asked_at >= search.since)
    if search.until is not None:
        bounds.append(Decision.asked_at < search.until)
    return bounds


def _sieve(search: Search) -> Iterator[ColumnElement[bool]]:
    """What is asked beside the index's leading columns."""
    if search.caller is not None and search.caller.exact is None:
        yield _holds(Decision.caller, search.caller.parts)
    if search.dialed is not None:
        number = search.dialed
        yield (
            _holds(Decision.dialed, number.parts) if number.exact is None else _is_one_of(Decision.dialed, number.exact)
        )
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
    elif search.outcome:
        yield Decision.outcome == search.outcome
    if search.degraded:
        yield Decision.degraded != ""
