"""The words of what has a name in the code: those that core/ has beside each, translated, and those of the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from router.admin.i18n import lazy
from router.core.model import DeviceState, Outcome, SkipReason, Status
from router.core.strategies import STRATEGIES
from router.core.words import Worded


class State(NamedTuple):
    """How a state is shown: its word, the icon that is its shape, and its colour."""

    label: Any
    shape: str
    tone: str


_LOOKS: Mapping[str, tuple[str, str]] = {
    "idle": ("s-idle", "ok"), "available": ("s-idle", "ok"), "reserved": ("s-reserved", "wait"),
    "speaking": ("s-speaking", "talk"), "offline": ("s-offline", "off"), "on_break": ("s-break", "rest"),
    "off_duty": ("s-offduty", "off"), "wrap_up": ("s-wrapup", "wrap"), "cooling_down": ("s-cooling", "wait"),
    "paused": ("s-paused", "rest"), "off_hours": ("s-hours", "off"), "at_cap": ("s-cap", "wait"),
    "already_tried": ("s-tried", "wait"), "answered": ("check", "ok"), "no_answer": ("s-tried", "wait"),
    "abandoned": ("s-failed", "off"), "busy": ("s-tried", "bad"), "voicemail": ("s-overflow", "off"),
    "failed": ("s-failed", "bad"), "presence_unknown": ("s-unknown", "off"),
}  # fmt: skip
"""The shape and colour of a state, where a skip reason has other ones than a limit, and any other than unknown."""


def _state(value: Worded) -> State:
    other = ("s-cap", "wait") if isinstance(value, SkipReason) else ("s-unknown", "off")
    return State(lazy(value.words), *_LOOKS.get(value, other))


STATES: Mapping[str, State] = {
    **{value: _state(value) for kind in (Status, DeviceState, SkipReason, Outcome) for value in kind},
    "unknown": _state(DeviceState.UNKNOWN), "unheard": _state(Outcome.UNKNOWN),
    "offered": State(lazy("Offered"), "arrow", "ok"), "eligible": State(lazy("Eligible"), "s-idle", "ok"),
    "lost": State(lazy("Taken by another call"), "s-lost", "wait"), "matched": State(lazy("Matched"), "check", "ok"),
    "open": State(lazy("In progress"), "s-pending", "off"), "": State(lazy("In progress"), "s-pending", "off"),
    "overflow": State(lazy("Overflow"), "s-overflow", "wait"),
    "empty": State(lazy("No destination"), "s-offline", "off"), "refused": State(lazy("Refused"), "s-failed", "bad"),
    "tested": State(lazy("Answered"), "check", "ok"), "degraded": State(lazy("During an outage"), "warning", "wait"),
    "fresh": State(lazy("Up to date"), "s-idle", "ok"), "old": State(lazy("Out of date"), "s-cooling", "wait"),
    "enabled": State(lazy("On"), "s-idle", "ok"), "disabled": State(lazy("Off"), "s-offline", "off"),
    "away": State(lazy("Not ready"), "s-break", "rest"),
}  # fmt: skip
"""By a value of Status, DeviceState, SkipReason or Outcome, or a result; "" is a call in progress."""

WORDS: dict[str, dict[str, Any]] = {
    "strategy": {name: lazy(strategy.label) for name, strategy in STRATEGIES.items()},
    "status": {status.value: STATES[status].label for status in Status},
    "role": {"viewer": lazy("Viewer"), "editor": lazy("Editor"), "owner": lazy("Owner")},
}
"""The labels of stored words, by path in a document."""

HELPS: Mapping[str, Mapping[str, Any]] = {
    "strategy": {name: lazy(strategy.help) for name, strategy in STRATEGIES.items()},
    "role": {
        "viewer": lazy("Looks at everything in the projects, changes nothing."),
        "editor": lazy("Agents, groups, rules, schedules and settings of all projects; no credentials."),
        "owner": lazy("Everything: users, credentials, making and deleting projects, the audit trail."),
    },
}
"""What choosing one of them does, in a sentence."""
