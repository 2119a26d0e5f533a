"""Every knob of the demo PBX in one frozen value, checked when it is made. The defaults are calm: nobody comes or goes,
everybody answers, nothing fails; the command line turns on the life that a demo wants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from simulator.cast import DEMO_NUMBERS, DEMO_STAFF, StaffMember
from simulator.forms import ANSWERS, DEFAULT_NAMES, FORMS, PercentEncoded, QueryEncoding

OnFailure = Literal["next_step", "lost"]


class SettingsError(ValueError):
    """A setting of the demo PBX that cannot be: names the setting and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxSettings:
    """All of it. Times of the simulation are in simulated seconds, `speed` of which pass in a real one; everything that
    has to do with the network (latencies, timeouts, budgets, event delays) is in real time and says so.
    """

    # ---- the project, as its status API shows it
    staff: tuple[StaffMember, ...] = DEMO_STAFF
    numbers: Mapping[str, str] = field(default_factory=lambda: dict(DEMO_NUMBERS))
    auth_key: str = "demo-key"
    project_id: str = "12345"
    token: str = "demo-token"  # noqa: S105 - opens the simulator alone
    time_zone: str = "Europe/Kyiv"
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    control_port: int = 0
    latency_ms: float = 0.0  # real: of every answer of the status API

    # ---- how the hook is asked
    hook_url: str = ""
    event_url: str = ""
    form: str = "json"  # one of FORMS, or mixed
    answer: str = "auto"  # one of ANSWERS; auto: the one that fits the form
    answer_key: str = "destination"
    rpc_method: str = "getDestination"
    names: Mapping[str, str] = field(
        default_factory=lambda: dict(DEFAULT_NAMES)
    )  # role → the customer's parameter name
    percent_encoded: PercentEncoded = "step"  # which JSON and header values arrive percent-encoded
    query_encoding: QueryEncoding = "percent"
    content_type: str | None = None  # None: the right one; "": none; else sent as it is
    hook_timeout_ms: float = 5000.0  # real: how long the PBX waits
    budget_ms: float = 1500.0  # real: how long the hook may take before it is called late
    steps: int = 3  # how often one call may ask, each time with the next `step_forward`
    on_failure: OnFailure = "next_step"  # after a question without a usable answer
    duplicate_probability: float = 0.0  # the same question twice, a few milliseconds apart

    # ---- callers
    seed: int = 1
    calls_per_minute: float = 12.0
    callers: int = 400  # how many different people call
    anonymous_probability: float = 0.02
    talk_seconds: float = 90.0  # mean, exponential
    patience_seconds: float = 0.0  # mean, exponential; 0: callers wait for ever

    # ---- agents
    ring_seconds: float = 20.0  # how long the PBX lets one login ring
    answer_after_seconds: tuple[float, float] = (2.0, 8.0)
    answer_probability: float = 1.0
    answer_probabilities: Mapping[str, float] = field(
        default_factory=dict
    )  # by the person's name, before the one above
    own_calls_per_hour: float = 0.0  # per person
    own_talk_seconds: float = 60.0  # mean
    shift_seconds: float = 0.0  # mean time on shift; 0: always on shift
    away_seconds: float = 300.0  # mean time between shifts
    second_login_probability: float = 0.7  # that a person's further logins come online with the first; with shifts only
    transfer_probability: float = 0.0

    # ---- call events, none of which is ever sent again
    event_form: str = "json"
    event_loss: float = 0.0
    event_delay_ms: float = 0.0  # real, mean; keeps the order of one call's events
    event_duplicates: float = 0.0
    event_reorder: float = 0.0  # probability to be overtaken
    event_reorder_ms: float = 500.0  # real: how much later an overtaken event arrives

    # ---- the machine
    speed: float = 1.0
    hook_workers: int = 64
    event_workers: int = 8
    settle_ms: float = (
        250.0  # real: how long the router may take to store what it was told before it counts as knowable
    )
    keep_calls: int = 20_000  # finished calls kept with all details; the counts go on for ever

    def __post_init__(self) -> None:
        for name in (
            "duplicate_probability",
            "anonymous_probability",
            "answer_probability",
            "second_login_probability",
            "transfer_probability",
            "event_loss",
            "event_duplicates",
            "event_reorder",
        ):
            self._require(0.0 <= getattr(self, name) <= 1.0, name, "a probability from 0 to 1")
        for person, probability in self.answer_probabilities.items():
            self._require(0.0 <= probability <= 1.0, f"answer_probabilities[{person!r}]", "a probability from 0 to 1")
        for name in ("speed", "hook_timeout_ms", "budget_ms", "calls_per_minute", "talk_seconds", "ring_seconds"):
            self._require(getattr(self, name) > 0, name, "greater than 0")
        for name in ("own_talk_seconds", "away_seconds"):
            self._require(getattr(self, name) > 0, name, "greater than 0")
        for name in ("latency_ms", "patience_seconds", "own_calls_per_hour", "shift_seconds", "event_delay_ms"):
            self._require(getattr(self, name) >= 0, name, "0 or more")
        for name in ("steps", "callers", "hook_workers", "event_workers", "keep_calls"):
            self._require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("port", "control_port"):
            self._require(0 <= getattr(self, name) <= 65535, name, "a port from 0 (a free one) to 65535")
        low, high = self.answer_after_seconds
        self._require(0 <= low <= high, "answer_after_seconds", "two times, the smaller first")
        self._require(self.form in {*FORMS, "mixed"}, "form", f"one of {', '.join(FORMS)}, mixed")
        self._require(self.event_form in {*FORMS, "mixed"}, "event_form", f"one of {', '.join(FORMS)}, mixed")
        self._require(self.answer in {*ANSWERS, "auto"}, "answer", f"one of auto, {', '.join(ANSWERS)}")
        for name, choice in (
            ("on_failure", OnFailure),
            ("percent_encoded", PercentEncoded),
            ("query_encoding", QueryEncoding),
        ):
            self._require(getattr(self, name) in get_args(choice), name, f"one of {', '.join(get_args(choice))}")
        unknown = set(self.names) - set(DEFAULT_NAMES)
        self._require(not unknown, "names", f"made of {', '.join(DEFAULT_NAMES)}; not {', '.join(sorted(unknown))}")
        self._require(bool(self.numbers), "numbers", "at least one number that can be dialed")
        logins = [login for member in self.staff for login in member.logins]
        twice = {login for login in logins if logins.count(login) > 1} if len(set(logins)) < len(logins) else set()
        self._require(not twice, "staff", f"without a login owned twice: {', '.join(sorted(twice))}")
        try:
            ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError):
            self._require(False, "time_zone", "an IANA zone such as Europe/Kyiv")

    def _require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            shown = getattr(self, name, None)
            raise SettingsError(
                f"{name} must be {what}" + ("" if shown is None or name == "staff" else f", not {shown!r}")
            )
