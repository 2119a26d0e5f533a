"""The words of what has a name in the code, each once: states and results, and what stored values mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from router.admin.i18n import lazy
from router.core.model import Status


class State(NamedTuple):
    """How a state is shown: its word, the icon that is its shape, and its colour."""

    label: Any
    shape: str
    tone: str


STATES: Mapping[str, State] = {
    "idle": State(lazy("Idle"), "s-idle", "ok"), "available": State(lazy("Available"), "s-idle", "ok"),
    "reserved": State(lazy("Reserved"), "s-reserved", "wait"),
    "speaking": State(lazy("Speaking"), "s-speaking", "talk"), "offline": State(lazy("Offline"), "s-offline", "off"),
    "on_break": State(lazy("On break"), "s-break", "rest"), "off_duty": State(lazy("Off duty"), "s-offduty", "off"),
    "wrap_up": State(lazy("Wrap-up"), "s-wrapup", "wrap"),
    "cooling_down": State(lazy("Cooling down"), "s-cooling", "wait"),
    "unknown": State(lazy("Unknown"), "s-unknown", "off"),
    "presence_unknown": State(lazy("Presence unknown"), "s-unknown", "off"),
    "paused": State(lazy("Paused"), "s-paused", "rest"), "off_hours": State(lazy("Outside hours"), "s-hours", "off"),
    "at_cap": State(lazy("At daily cap"), "s-cap", "wait"),
    "already_tried": State(lazy("Already tried"), "s-tried", "wait"), "offered": State(lazy("Offered"), "arrow", "ok"),
    "eligible": State(lazy("Eligible"), "s-idle", "ok"), "lost": State(lazy("Taken by another call"), "s-lost", "wait"),
    "matched": State(lazy("Matched"), "check", "ok"), "answered": State(lazy("Answered"), "check", "ok"),
    "no_answer": State(lazy("No answer"), "s-tried", "wait"),
    "abandoned": State(lazy("Caller hung up"), "s-failed", "off"),
    "busy": State(lazy("Declined or busy"), "s-tried", "bad"),
    "voicemail": State(lazy("Voice mail"), "s-overflow", "off"),
    "unheard": State(lazy("Nothing heard"), "s-unknown", "off"), "open": State(lazy("In progress"), "s-pending", "off"),
    "": State(lazy("In progress"), "s-pending", "off"), "overflow": State(lazy("Overflow"), "s-overflow", "wait"),
    "empty": State(lazy("Empty answer"), "s-offline", "off"), "refused": State(lazy("Refused"), "s-failed", "bad"),
    "tested": State(lazy("Answered"), "check", "ok"), "degraded": State(lazy("Degraded"), "warning", "wait"),
    "failed": State(lazy("Failed"), "s-failed", "bad"), "fresh": State(lazy("Fresh"), "s-idle", "ok"),
    "old": State(lazy("Old"), "s-cooling", "wait"), "enabled": State(lazy("On"), "s-idle", "ok"),
    "disabled": State(lazy("Off"), "s-offline", "off"), "away": State(lazy("Not ready"), "s-break", "rest"),
}  # fmt: skip
"""By a value of DeviceState, Status, SkipReason or Outcome, or a result; "" is a call in progress."""

WORDS: dict[str, dict[str, Any]] = {
    "strategy": {
        "round_robin": lazy("Round robin"),
        "priority": lazy("Priority"),
        "longest_idle": lazy("Longest idle"),
        "fewest_calls": lazy("Fewest calls"),
        "weighted": lazy("Weighted"),
        "random": lazy("Random"),
    },
    "hook.answer": {
        "auto": lazy("As the question was asked"),
        "http": lazy("Plain text"),
        "json": lazy("JSON object"),
        "json-rpc": lazy("JSON-RPC"),
    },
    "hook.rpc_result": {"object": lazy("an object with the key"), "string": lazy("the destination itself")},
    "presence.source": {"ringostat": "Ringostat"},
    "presence.online_from": {
        "sip": lazy("SIP devices"),
        "smart_phone": lazy("Smart Phone extension"),
        "either": lazy("Either of them"),
    },
    "presence.when_unknown": {
        "last_known": lazy("Go by what was last known"),
        "assume_online": lazy("Take everybody to be online"),
        "overflow": lazy("Send calls to the overflow"),
    },
    "status": {status.value: STATES[status].label for status in Status},
    "role": {"viewer": lazy("Viewer"), "editor": lazy("Editor"), "owner": lazy("Owner")},
    "override": {"open": lazy("open"), "closed": lazy("closed")},
    "prefer": {"last_agent": lazy("who last talked with the caller"), "param": lazy("named by a parameter")},
}
"""The labels of stored words, by path in a document."""

HELPS: Mapping[str, Mapping[str, Any]] = {
    "strategy": {
        "round_robin": lazy("Whoever was offered a call the longest ago is next, so everybody gets a turn."),
        "priority": lazy("Always from the top of the list: the first free agent gets the call."),
        "longest_idle": lazy("Whoever has been free the longest is next."),
        "fewest_calls": lazy("Whoever has answered the fewest calls today is next."),
        "weighted": lazy("Calls are shared in proportion to the weights: 2 gets twice as many as 1."),
        "random": lazy("Any free agent, by chance."),
    },
    "presence.when_unknown": {
        "last_known": lazy("For the time below; then calls go to the overflow."),
        "assume_online": lazy("Calls may ring at somebody who is not there, and come back unanswered."),
        "overflow": lazy("Nobody is offered a call before presence is known again."),
    },
    "role": {
        "viewer": lazy("Looks at everything in the projects, changes nothing."),
        "editor": lazy("Agents, groups, rules, schedules and settings of all projects; no credentials."),
        "owner": lazy("Everything: users, credentials, making and deleting projects, the audit trail."),
    },
}
"""What choosing one of them does, in a sentence."""
