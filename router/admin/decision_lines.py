"""Render decisions as lines of a list, for the board, the call log and its download: names, masked numbers, answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from router.admin.i18n import _
from router.admin.page import CurrentProject
from router.core.model import Outcome
from router.db.configuration import BuildError, Configured, Document, UnknownProjectError
from router.db.versions import configured, in_use
from router.numbers import mask_number

Mask = Callable[[str], str]
"""Masks a caller's number, or leaves it as it is."""


def mask_of(project: CurrentProject) -> Mask:
    """Return the function that masks callers' numbers if the project masks them."""
    return mask_number if project.mask_numbers else str


def mask_within(text: str, number: str) -> str:
    """Mask a number wherever it occurs in the text, in any notation."""
    digits = re.sub(r"\D", "", number)
    if len(digits) < 8 or digits != number:
        return text.replace(number, mask_number(number)) if number else text
    # The country code and trunk prefix before the last nine digits need no mask.
    national = digits[-9:]
    between = r"(?:[\s().+/-]|%(?:20|28|29|2B|2D|2b|2d)){0,3}"
    hidden = len(national) - len(national[:2]) - 2
    pattern = (
        f"({between.join(national[:2])}{between}){between.join(national[2 : 2 + hidden])}"
        f"({between}{between.join(national[-2:])})"
    )
    return re.sub(pattern, r"\1***\2", text)


def mask_raw(text: str, number: str, mask: Mask) -> str:
    """Mask a caller's number within a request, if the project masks it."""
    return text if mask(number) == number else mask_within(text, number)


def render_request(received: Mapping[str, Any]) -> str:
    """Render a request as it was sent, without the token of its URL."""
    query = f"?{received['query']}" if received.get("query") else ""
    lines = [f"{received.get('method', '')} /hook/…{query}"]
    if received.get("user_agent") and "headers" not in received:
        lines.append(f"User-Agent: {received['user_agent']}")
    lines += [f"{name}: {value}" for name, value in (received.get("headers") or {}).items()]
    if received.get("content_type") and "headers" not in received:
        lines.append(f"Content-Type: {received['content_type']}")
    if received.get("body"):
        lines += ["", str(received["body"])]
    return "\n".join(lines)


def shown_pattern(pattern: str) -> str:
    """Return a condition's number as people read it: "+38050…", "+380441112200–+380441112299", _("anonymous")."""
    if pattern == "anonymous":
        return _("anonymous")
    first, dash, last = pattern.partition("-")
    if dash and first.isdigit() and last.isdigit():
        return f"{_plus(first)}–{_plus(last)}"
    return f"{_plus(pattern[:-1])}…" if pattern.endswith("*") else _plus(pattern)


def _plus(digits: str) -> str:
    return f"+{digits}" if digits.isdigit() and len(digits) > 4 else digits


class Names:
    """The names of ids: in the present configuration, else in that of the decision."""

    def __init__(self, session: Session, project: CurrentProject) -> None:
        self._session, self._project_id = session, project.id
        try:
            now: Configured | None = in_use(session, project.id, project.version)
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


_KINDS = ("agents", "groups", "rules")


def _index(found: Configured | None) -> dict[str, dict[int, str]]:
    document: Document = found.document if found else {}
    return {kind: {row["id"]: row["name"] for row in document.get(kind, ())} for kind in _KINDS}


class Answer(NamedTuple):
    """Where a call went: `kind` agent, overflow or empty."""

    kind: str
    agent: str
    login: str
    destination: str


class Line(NamedTuple):
    """A decision in a list. `rule` None: none matched. `outcome` for ui.state; None: no outcome is expected."""

    id: int
    at: datetime
    caller: str
    dialed: str
    rule: str | None
    answer: Answer
    outcome: str | None
    degraded: str


def line_of(entry: Any, names: Names, mask: Mask) -> Line:
    """Return a row of the log."""
    version = entry.config_version
    return Line(
        id=entry.id,
        at=entry.asked_at,
        caller=mask(entry.caller),
        dialed=entry.dialed,
        rule=names.of("rules", entry.rule_id, version) or None,
        answer=answer_of(entry, names),
        outcome=outcome_of(entry),
        degraded=entry.degraded,
    )


def answer_of(entry: Any, names: Names) -> Answer:
    if entry.agent_id is None:
        return Answer("overflow" if entry.destination else "empty", "", "", entry.destination)
    agent = names.of("agents", entry.agent_id, entry.config_version)
    return Answer("agent", agent, entry.sip_login, entry.destination)


def outcome_of(entry: Any) -> str | None:
    """Return the outcome; "" while it is open, None if no outcome is expected, as for an overflow."""
    if entry.outcome == Outcome.UNKNOWN:
        return "unheard"  # "unknown" is the state of a phone in ui.state
    return entry.outcome or ("" if entry.agent_id is not None else None)
