"""Define all settings of the demo PBX as one frozen value, checked when it is created. The defaults are calm: nobody
comes or goes, everybody answers, nothing fails. The command line sets livelier values for a demo.
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
    """An invalid setting of the demo PBX. The text names the setting and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PbxSettings:
    """All settings. Times of the simulation are in simulated seconds, `speed` of which pass in a real one. Times of the
    network (latencies, timeouts, budgets, event delays) are real; their comments say so.
    """

    # ---- the project in the status API
    staff: tuple[StaffMember, ...] = DEMO_STAFF
    numbers: Mapping[str, str] = field(default_factory=lambda: dict(DEMO_NUMBERS))
    auth_key: str = "demo-key"
    project_id: str = "12345"
    token: str = "demo-token"  # noqa: S105 - of the simulator only
    time_zone: str = "Europe/Kyiv"
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    control_port: int = 0
    latency_ms: float = 0.0  # real: delay of every answer of the status API

    # ---- requests to the hook
    hook_url: str = ""
    event_url: str = ""
    form: str = "json"  # one of FORMS, or mixed
    answer: str = "auto"  # one of ANSWERS; auto: the one that fits the form
    answer_key: str = "destination"
    rpc_method: str = "getDestination"
    names: Mapping[str, str] = field(
        default_factory=lambda: dict(DEFAULT_NAMES)
    )  # role → the customer's parameter name
    percent_encoded: PercentEncoded = "step"  # which JSON and header values are percent-encoded
    query_encoding: QueryEncoding = "percent"
    content_type: str | None = None  # None: the correct one; "": none; else this text
    hook_timeout_ms: float = 5000.0  # real: how long the PBX waits
    budget_ms: float = 1500.0  # real: after this an answer counts as late
    steps: int = 3  # the most questions of a call, each with the next `step_forward`
    on_failure: OnFailure = "next_step"  # after a question without a usable answer
    duplicate_probability: float = 0.0  # of sending a question twice, a few milliseconds apart

    # ---- callers
    seed: int = 1
    calls_per_minute: float = 12.0
    callers: int = 400  # the number of different people who call
    anonymous_probability: float = 0.02
    talk_seconds: float = 90.0  # mean, exponential
    patience_seconds: float = 0.0  # mean, exponential; 0: callers wait for ever

    # ---- agents
    ring_seconds: float = 20.0  # how long the PBX lets one login ring
    answer_after_seconds: tuple[float, float] = (2.0, 8.0)
    answer_probability: float = 1.0
    answer_probabilities: Mapping[str, float] = field(
        default_factory=dict
    )  # by the person's name, instead of the one above
    own_calls_per_hour: float = 0.0  # per person
    own_talk_seconds: float = 60.0  # mean
    shift_seconds: float = 0.0  # mean time on shift; 0: always on shift
    away_seconds: float = 300.0  # mean time between shifts
    second_login_probability: float = 0.7  # of a person's other logins coming online with the first; only with shifts
    transfer_probability: float = 0.0

    # ---- call events, which are never repeated
    event_form: str = "json"
    event_loss: float = 0.0
    event_delay_ms: float = 0.0  # real, mean; events of one call stay in order
    event_duplicates: float = 0.0
    event_reorder: float = 0.0  # probability that an event is overtaken
    event_reorder_ms: float = 500.0  # real: how much later an overtaken event arrives

    # ---- the machine
    speed: float = 1.0
    hook_workers: int = 64
    event_workers: int = 8
    settle_ms: float = 250.0  # real: time for the router to store news, before these count as knowable
    keep_calls: int = 20_000  # finished calls kept with all details; counts are of all calls

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
