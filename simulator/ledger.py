"""Record what happens, and check each offer against the true states of its instant. Decides nothing.

An offer is *wrong* if the login's owner rang, talked, was offline or in do-not-disturb at that instant. It is
*knowable* if the router could know it, long enough before the PBX asked (`settle_ms`):
  promised  the router itself had offered a login of this person to another call, which still rings or talks there, less
            than a ring time ago: its own reservation shows it, even if presence does not;
  polled    the status API showed the state in its last true answer;
  event     the router had acknowledged the pickup event of this talk.
Other wrong offers, which no router could have avoided, are counted apart. Callers hold the scheduler's lock.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from simulator.lines import Line, State, Truth
from simulator.settings import PbxSettings

WRONG = (State.RINGING, State.TALKING, State.OFFLINE, State.DND)
_LATENCIES_KEPT = 200_000


@dataclass(slots=True)
class Question:
    """One request to the hook. `failure`: "" or `refused`, `timeout`, `broken`, `status`, `unreadable`, `empty`,
    `unknown_destination`. `destination`: as read, also if it cannot be called.
    """

    step: int
    step_forward: str
    duplicate: bool = False
    asked_at: float = 0.0  # time.monotonic(), when the first byte left
    queued_ms: float = 0.0  # waiting for one of the PBX's own workers before that
    latency_ms: float = 0.0
    status: int | None = None
    destination: str = ""
    failure: str = ""
    detail: str = ""
    late: bool = False  # answered, but after the budget
    answered: bool = False  # the request has ended, with or without an answer


@dataclass(slots=True)
class Offer:
    """A login that the hook named. `result`: `answered`, `no_answer`, `busy`, `offline`, `declined`, `gone` (the login
    went offline while it rang), `abandoned`.
    """

    step: int
    login: str
    person: str
    at: float
    state: State
    state_age_ms: float
    knowable: str = ""  # promised, polled, event; "" if the offer was right, or no router could know
    repeated: bool = False  # this person had been tried for this call before
    result: str = ""


@dataclass(slots=True)
class EventSent:
    """An event of a call. `result`: an HTTP status, `lost` (on purpose), or the kind of failure."""

    event: str
    login: str
    result: str = ""
    acknowledged_at: float | None = None


@dataclass(slots=True)
class CallRecord:
    """One call. `outcome`: "" while it goes on, then `answered` (by `answered_by`), `outside` (a number answered),
    `scheme` (the id of a forwarding scheme), or `lost` because of `lost_because`: `abandoned`, or the last offer's
    result, or the last question's failure. Durations in simulated seconds.
    """

    number: int
    call_id: str
    uuid: str
    caller: str
    dialed: str
    params: dict[str, str]
    form: str
    arrived_on: datetime
    arrived_at: float
    questions: list[Question] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)
    events: list[EventSent] = field(default_factory=list)
    outcome: str = ""
    destination: str = ""
    answered_by: str = ""
    transferred_to: str = ""
    lost_because: str = ""
    disposition: str = ""
    waited_seconds: float = 0.0
    talked_seconds: float = 0.0
    ended: bool = False

    def to_dict(self) -> dict[str, object]:
        """Return the record for JSON. Instants become milliseconds after the call's arrival, in real time."""
        shown = asdict(self)
        shown["arrived_on"] = self.arrived_on.isoformat(timespec="milliseconds")
        del shown["arrived_at"]
        for part, name in (("questions", "asked_at"), ("offers", "at"), ("events", "acknowledged_at")):
            for row in shown[part]:
                at = row.pop(name)
                row[name.removesuffix("_at") + "_after_ms"] = at and round((at - self.arrived_at) * 1000, 1)
        return shown


@dataclass(slots=True)
class OwnCall:
    """A call made by an agent."""

    number: int
    call_id: str
    login: str
    client: str
    started_on: datetime
    talked_seconds: float = 0.0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The counts since the start. Latencies in real milliseconds, of all questions with an answer."""

    calls: int
    in_progress: int
    answered: int
    outside: int
    scheme: int
    lost: int
    lost_because: dict[str, int]
    own_calls: int
    transfers: int
    questions: int
    hook_failures: dict[str, int]  # by kind; `late`: answered after the budget
    hook_late: int
    duplicates: int
    duplicates_differing: int
    hook_latency_ms: dict[str, float]
    hook_queue_ms_max: float  # if large, the PBX itself was the bottleneck: raise hook_workers
    offers: int
    offers_by_state: dict[str, int]
    wrong_knowable: dict[str, int]  # by true state
    wrong_knowable_by: dict[str, int]  # by the way in which it could be known
    repeated_offers: int
    outside_while_idle: int  # sent outside while somebody was idle (perhaps because of a wrap-up or a cool-down)
    offers_by_login: dict[str, int]
    answers_by_login: dict[str, int]
    events: dict[str, int]  # by result
    status_api: dict[str, int]  # answers by "endpoint status" or "endpoint fault"
    mean_wait_seconds: float
    clock_lag_ms: float

    @property
    def wrong(self) -> int:
        return sum(self.offers_by_state[state] for state in WRONG)

    @property
    def knowable(self) -> int:
        return sum(self.wrong_knowable.values())

    @property
    def failures(self) -> int:
        """The number of questions that were not answered 200 with a destination in time."""
        return sum(self.hook_failures.values()) + self.hook_late

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "wrong": self.wrong, "knowable": self.knowable, "failures": self.failures}

    def line(self) -> str:
        """The report in one line."""
        return (
            f"{self.calls} calls: {self.answered} answered, {self.outside + self.scheme} sent outside, "
            f"{self.lost} lost, {self.in_progress} going on · hook p50 {self.hook_latency_ms['p50']:.0f} ms, "
            f"p99 {self.hook_latency_ms['p99']:.0f} ms, {self.failures} failed · "
            f"{self.wrong} wrong offers, {self.knowable} knowable"
        )

    def summary(self) -> str:
        """The report for people, several lines."""
        outcomes = f"answered {self.answered} · outside {self.outside} · scheme {self.scheme}"
        lost = f"lost {self.lost}{_listed(self.lost_because)}"
        doubled = f"{self.duplicates} duplicated ({self.duplicates_differing} answered differently)"
        failed = f"failed {sum(self.hook_failures.values())}{_listed(self.hook_failures)}, late {self.hook_late}"
        wrong = f"{self.wrong}, of which knowable {self.knowable}"
        ways = f"{_listed(self.wrong_knowable)}{_listed(self.wrong_knowable_by)}"
        oddities = f"same person twice {self.repeated_offers}; outside while somebody idle {self.outside_while_idle}"
        rows = [
            ("calls", f"{self.calls}  {outcomes} · {lost} · going on {self.in_progress}"),
            ("waited", f"{self.mean_wait_seconds:.1f} s on average until somebody answered"),
            ("hook", f"{self.questions} questions, {doubled}, {failed}"),
            ("latency", " · ".join(f"{name} {value:.1f}" for name, value in self.hook_latency_ms.items()) + " ms"),
            ("offers", f"{self.offers}{_listed(self.offers_by_state)}"),
            ("wrong", f"{wrong}{ways}; {oddities}"),
            ("events", _listed(self.events).strip(" ()") or "none"),
            ("status API", _listed(self.status_api).strip(" ()") or "not asked"),
            ("own calls", f"{self.own_calls} by agents, {self.transfers} transfers"),
        ]
        logins = sorted(self.offers_by_login | self.answers_by_login)
        lines = [f"{name:>11}  {text}" for name, text in rows]
        lines += [
            f"{'' if n else 'per login':>11}  {login:<24} offered {self.offers_by_login.get(login, 0):>5}"
            f"  answered {self.answers_by_login.get(login, 0):>5}"
            for n, login in enumerate(logins[:40])
        ]
        if len(logins) > 40:
            lines.append(f"{'':>11}  … and {len(logins) - 40} more")
        return "\n".join(lines)


def _listed(counts: dict[str, int]) -> str:
    named = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f" ({named})" if named else ""


class Ledger:
    """All records. Of the finished calls before the last `keep_calls` only the counts stay."""

    def __init__(self, settings: PbxSettings) -> None:
        self.calls: deque[CallRecord] = deque(maxlen=settings.keep_calls)
        self.own_calls: deque[OwnCall] = deque(maxlen=settings.keep_calls)
        self.in_progress = 0
        self.transfers = 0
        self._settings = settings
        self._settle = settings.settle_ms / 1000
        self._ring = settings.ring_seconds / settings.speed
        self._count: Counter[str] = Counter()
        self._own_calls = 0
        self._lost: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._states: Counter[str] = Counter()
        self._knowable: Counter[str] = Counter()
        self._knowable_by: Counter[str] = Counter()
        self._offered: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._queue_ms_max = 0.0
        self._waited = 0.0
        self._polls: defaultdict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=512))

    # ---- written by the exchange

    def open_call(self, record: CallRecord) -> None:
        self.calls.append(record)
        self._count["calls"] += 1
        self.in_progress += 1

    def note_question(self, question: Question) -> None:
        """Count a question that has ended."""
        self._count["questions"] += 1
        if question.duplicate:
            self._count["duplicates"] += 1
        if question.failure:
            self._failures[question.failure] += 1
        if question.status is not None:
            self._latencies.append(question.latency_ms)
            question.late = question.latency_ms > self._settings.budget_ms
            if question.late and not question.failure:
                self._count["late"] += 1
        self._queue_ms_max = max(self._queue_ms_max, question.queued_ms)

    def note_duplicates(self, *, differing: bool) -> None:
        if differing:
            self._count["differing"] += 1

    def note_offer(self, record: CallRecord, question: Question, truth: Truth, login: str) -> Offer:
        """Record an offer, checked against the true state of this instant."""
        now = time.monotonic()
        person = truth.line.person.member.name
        offer = Offer(
            question.step,
            login,
            person,
            now,
            truth.state,
            (now - truth.since) * 1000,
            self._knowable_as(truth, question.asked_at, now),
            any(earlier.person == person for earlier in record.offers),
        )
        record.offers.append(offer)
        self._count["offers"] += 1
        self._count["repeated"] += offer.repeated
        self._states[offer.state] += 1
        self._offered[login] += 1
        if offer.knowable:
            self._knowable[offer.state] += 1
            self._knowable_by[offer.knowable] += 1
        return offer

    def _knowable_as(self, truth: Truth, asked_at: float, now: float) -> str:
        line = truth.line
        known_by = asked_at - self._settle
        if truth.state is State.IDLE:
            return ""
        rings = truth.state is State.RINGING
        talks = truth.state is State.TALKING
        if line.offered_at is not None and (rings or (talks and now - line.offered_at < self._ring)):
            return "promised"
        if talks and line.acknowledged_at is not None and line.acknowledged_at <= known_by:
            return "event"
        return "polled" if self._was_polled(truth, line, known_by) else ""

    def _was_polled(self, truth: Truth, line: Line, known_by: float) -> bool:
        """Return whether the last true answer that the router can have read showed this state."""
        what = {
            State.TALKING: "speaking",
            State.OFFLINE: "smart_phone" if line.smart_phone else "online",
            State.DND: "do_not_disturb" if line.smart_phone else "",
        }.get(truth.state, "")
        for looked_at, answered_at in reversed(self._polls[what]):
            if answered_at <= known_by:
                return truth.since <= looked_at
        return False

    def note_answer(self, record: CallRecord, login: str, waited_seconds: float) -> None:
        record.outcome, record.answered_by, record.waited_seconds = "answered", login, waited_seconds
        self._answers[login] += 1
        self._note_waited(waited_seconds)

    def note_outside(self, record: CallRecord, kind: str, waited_seconds: float, *, somebody_idle: bool) -> None:
        record.outcome, record.waited_seconds = kind, waited_seconds
        self._count["idle_elsewhere"] += somebody_idle
        self._note_waited(waited_seconds)

    def _note_waited(self, waited_seconds: float) -> None:
        self._count["waited"] += 1
        self._waited += waited_seconds

    def close_call(self, record: CallRecord) -> None:
        record.ended = True
        self.in_progress -= 1
        self._count[record.outcome] += 1
        if record.outcome == "lost":
            self._lost[record.lost_because] += 1

    def open_own_call(self, call: OwnCall) -> None:
        self.own_calls.append(call)
        self._own_calls += 1

    def note_event(self, sent: EventSent) -> None:
        self._events[sent.result] += 1

    # ---- written by the status API

    def note_poll(self, what: str, looked_at: float, answered_at: float) -> None:
        """Record a true and complete answer of an endpoint, or of `do_not_disturb`."""
        self._polls[what].append((looked_at, answered_at))

    def note_asked(self, endpoint: str, result: str) -> None:
        self._asked[f"{endpoint} {result}"] += 1

    # ---- read by everybody

    def report(self, clock_lag: float = 0.0) -> Report:
        count = self._count
        latencies = sorted(self._latencies)
        open_outcomes = Counter(record.outcome for record in self.calls if not record.ended)
        return Report(
            calls=count["calls"],
            in_progress=self.in_progress,
            answered=count["answered"] + open_outcomes["answered"],
            outside=count["outside"] + open_outcomes["outside"],
            scheme=count["scheme"] + open_outcomes["scheme"],
            lost=count["lost"],
            lost_because=dict(self._lost),
            own_calls=self._own_calls,
            transfers=self.transfers,
            questions=count["questions"],
            hook_failures=dict(self._failures),
            hook_late=count["late"],
            duplicates=count["duplicates"],
            duplicates_differing=count["differing"],
            hook_latency_ms={
                "p50": _percentile(latencies, 0.5),
                "p90": _percentile(latencies, 0.9),
                "p95": _percentile(latencies, 0.95),
                "p99": _percentile(latencies, 0.99),
                "max": latencies[-1] if latencies else 0.0,
            },
            hook_queue_ms_max=self._queue_ms_max,
            offers=count["offers"],
            offers_by_state={state.value: self._states[state] for state in State},
            wrong_knowable={state.value: self._knowable[state] for state in WRONG},
            wrong_knowable_by=dict(self._knowable_by),
            repeated_offers=count["repeated"],
            outside_while_idle=count["idle_elsewhere"],
            offers_by_login=dict(self._offered),
            answers_by_login=dict(self._answers),
            events=dict(self._events),
            status_api=dict(sorted(self._asked.items())),
            mean_wait_seconds=self._waited / count["waited"] if count["waited"] else 0.0,
            clock_lag_ms=clock_lag * 1000,
        )


def _percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value such that this share of all values is not larger; 0 of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def whole_seconds(seconds: float) -> int:
    """Return a duration as the platform writes it. Half a second counts as one, so that it is not "no talk"."""
    return round(seconds) or (1 if seconds > 0 else 0)


def utc_now() -> datetime:
    return datetime.now(UTC)
