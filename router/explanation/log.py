"""Explains decisions of the log: as lines of a list, and one with everything that is known of it. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from router.core.model import Call, Candidate, Cause, Decision, Offer, Outcome, Overflow, OverflowOf, SkipReason, Trial
from router.core.words import N_, Message, Text
from router.db import models
from router.db.documents import BuildError, Configured, Document, UnknownProjectError, configured, in_use
from router.db.records import Record
from router.explanation.decision import Decided, Explanation, explain
from router.numbers import mask_number, mask_within
from router.routing.route import NotRecomputableError, recompute

MOST_CANDIDATES = 100  # of a group are listed; the others are counted


class Names:
    """The names of ids: in the configuration in use, else in that of the decision."""

    def __init__(self, session: Session, project_id: int, version: int) -> None:
        self._session, self._project_id = session, project_id
        try:
            now: Configured | None = in_use(session, project_id, version)
        except (BuildError, UnknownProjectError):
            now = None
        self._now = _index(now)
        self._then: dict[int, dict[str, dict[int, str]]] = {}

    def of(self, kind: str, number: int | None, version: int) -> str:
        """Return the name of an agent, group or rule; "" for None, "#7" when it is not known any more."""
        if number is None:
            return ""
        if (name := self._now[kind].get(number)) is not None:
            return name
        if version not in self._then:
            self._then[version] = _index(configured(self._session, self._project_id, version))
        return self._then[version][kind].get(number, f"#{number}")

    def is_there(self, kind: str, number: int | None) -> bool:
        """Return whether an agent, group or rule is still configured."""
        return number in self._now[kind]


def _index(found: Configured | None) -> dict[str, dict[int, str]]:
    document: Document = found.document if found else {}
    return {kind: {row["id"]: row["name"] for row in document.get(kind, ())} for kind in ("agents", "groups", "rules")}


# ---- a line


class Line(NamedTuple):
    """A decision in a list. `rule` None: none matched. `outcome`: see `outcome_of`."""

    id: int
    at: datetime
    caller: str
    dialed: str
    rule: str | None
    agent: str
    sip_login: str
    destination: str
    outcome: str | None
    degraded: Message | None
    is_test: bool


def line_of(entry: Any, names: Names, mask: Callable[[str], str]) -> Line:
    """Return a row of the log."""
    name = partial(names.of, version=entry.config_version)
    return Line(
        id=entry.id,
        at=entry.asked_at,
        caller=mask(entry.caller),
        dialed=entry.dialed,
        rule=name("rules", entry.rule_id) or None,
        agent=name("agents", entry.agent_id),
        sip_login=entry.sip_login,
        destination=entry.destination,
        outcome=outcome_of(entry),
        degraded=degraded_of(entry),
        is_test=entry.is_test,
    )


def outcome_of(entry: Any) -> str | None:
    """Return the outcome; "" while it is open, None if no outcome is expected, as for an overflow or a test."""
    if entry.outcome == Outcome.UNKNOWN:
        return "unheard"  # "unknown" is the state of a phone
    return entry.outcome or ("" if entry.agent_id is not None and not entry.is_test else None)


_DEGRADED = {
    "RoutingError": Text("no_decision", N_("There was no decision in time.")),
    "DatabaseBusyError": Text("database_locked", N_("The database was locked for too long.")),
    "TimeoutError": Text("database_slow", N_("The database did not answer in time.")),
    "OperationalError": Text("database_away", N_("The database could not be reached.")),
}
_FAILED = Text("database_failed", N_("The database failed (%(error)s)."))


def degraded_of(entry: Any) -> Message | None:
    """Return why a call was answered without the database, None if it was answered with it."""
    return Message(_DEGRADED.get(entry.degraded, _FAILED), {"error": entry.degraded}) if entry.degraded else None


# ---- one decision


class Logged(NamedTuple):
    """A decision of the log. `check`: whether recomputing it gives the same, None if that is not possible."""

    id: int
    call: Call
    params: Mapping[str, str]  # those that are no field of the call
    received: Mapping[str, Any] | None
    explanation: Explanation
    latency_seconds: float
    degraded: Message | None
    outcome: Mapping[str, Any] | None
    check: bool | None
    is_config_kept: bool
    is_test: bool


def params_of(record: Record) -> dict[str, str]:
    """Return the parameters of a call that are no field of it."""
    places = ((record.get("received") or {}).get("understood") or {}).values()
    fields = {str(place).partition(" ")[2] for place in places}  # "body userfield"
    return {name: value for name, value in record["call"]["params"].items() if name not in fields}


def explain_logged(session: Session, row: models.Decision, record: Record, names: Names, *, masked: bool) -> Logged:
    """Explain a decision, given its record. `masked`: without the caller's whole number."""
    found = configured(session, row.project_id, row.config_version)
    try:
        again = recompute(session, row.id)
    except NotRecomputableError:
        again = None
    call = Call(row.call_id, **record["call"])
    hide = partial(mask_within, number=call.caller) if masked else str
    decided = Decided(
        row.asked_at,
        row.config_version,
        call,
        _decision_of(row, record),
        found,
        again.snapshot if again else None,
        partial(names.of, version=row.config_version),
        hide,
        MOST_CANDIDATES,
    )
    received = record.get("received")
    caller = mask_number(call.caller) if masked else call.caller
    return Logged(
        row.id,
        Call(call.call_id, call.step, caller, call.dialed, call.direction),
        {name: hide(value) for name, value in params_of(record).items()},
        received,
        explain(decided),
        row.latency_us / 1_000_000,
        degraded_of(row),
        _outcome(row, names),
        again.is_same if again else None,
        found is not None,
        row.is_test,
    )


def _decision_of(row: models.Decision, record: Record) -> Decision:
    """Return the decision as `records.row_of` stored it."""
    answer: Offer | Overflow
    if row.agent_id is not None:
        answer = Offer(row.agent_id, row.sip_login, row.group_id, timedelta(0), None)
    else:
        of, cause = record.get("answer") or (OverflowOf.PROJECT, Cause.NOBODY_FREE)
        answer = Overflow(row.destination, OverflowOf(of), Cause(cause))
    trials = [
        Trial(
            group_id,
            tuple(
                Candidate(agent_id, login, SkipReason(skip) if skip else None, tuple(key))
                for agent_id, login, skip, *key in candidates
            ),
        )
        for group_id, candidates in record["trials"]
    ]
    return Decision(row.rule_id, tuple(trials), answer)


def _outcome(row: models.Decision, names: Names) -> dict[str, Any] | None:
    """Return the outcome; `agent`: who answered, or the number that did."""
    name = outcome_of(row)
    if not name:
        return None
    columns = ("waited_seconds", "talked_seconds", "disposition", "inferred", "answered_at", "ended_at")
    agent = names.of("agents", row.answered_agent_id, row.config_version) or row.answered_login
    return {"name": name, "agent": agent, **{column: getattr(row, column) for column in columns}}
