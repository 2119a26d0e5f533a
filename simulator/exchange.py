"""Simulate calls, which arrive, ask the hook, ring, talk and end; and agents, who come, go and make calls themselves.

Each step of a call is a method that runs while holding the scheduler's lock and sets the timers for the next step.
Requests are sent by two bounded pools of threads, one for questions, one for events, so that slow events delay no call.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from zoneinfo import ZoneInfo

from simulator.clock import Scheduler, Timer
from simulator.forms import FORMS, Endpoint, Style, UnreadableAnswerError, answer_form, build_request, read_answer
from simulator.ledger import CallRecord, EventSent, Ledger, OwnCall, Question, utc_now, whole_seconds
from simulator.lines import Line, Lines, Person, State
from simulator.plan import CallPlan, answers_after, plan_call
from simulator.settings import PbxSettings
from simulator.wire import Hangup, Reply, WireError, send_request

log = logging.getLogger("simulator")

_NUMBER = re.compile(r"\+?\d{7,15}")
_SCHEME = re.compile(r"\d{1,6}")
_NEVER = float("inf")

AnswerWith = Callable[[CallRecord], str]


@dataclass(slots=True, eq=False)
class LiveCall:
    """The state of a call while it goes on."""

    record: CallRecord
    plan: CallPlan
    event_dice: Random
    answers: bool | None = None  # whether agents answer, if that is forced
    step: int = 0
    asking: int = 0  # questions of this step without an answer yet
    settled: bool = False  # this step has a destination, or has failed
    line: Line | None = None
    talk_began_at: float | None = None
    leg: Timer | None = None  # the next change: pickup, end of ringing, or end of the talk
    patience: Timer | None = None
    transfer: Timer | None = None
    lane: deque[tuple[EventSent, bytes]] = field(default_factory=deque)
    lane_busy: bool = False
    lane_due: float = 0.0


class Exchange:
    """The simulation. Public methods may be called from any thread."""

    def __init__(self, settings: PbxSettings, scheduler: Scheduler, answer_with: AnswerWith | None = None) -> None:
        self.settings = settings
        self.scheduler = scheduler
        self.lines = Lines(settings.staff)
        self.ledger = Ledger(settings)
        self.changed = threading.Condition(scheduler.lock)  # notified when a call gets its outcome or ends
        self._answer_with = answer_with
        self._hook = Endpoint.parse(settings.hook_url) if settings.hook_url else None
        self._event = Endpoint.parse(settings.event_url) if settings.event_url else None
        encoded = {"none": (), "step": (settings.names.get("step", ""),), "all": None}[settings.percent_encoded]
        self._style = Style(settings.rpc_method, encoded, settings.query_encoding, settings.content_type)
        self._event_style = Style(settings.rpc_method)
        self._zone = ZoneInfo(settings.time_zone)
        self._hook_pool = ThreadPoolExecutor(settings.hook_workers, "demo-pbx-hook")
        self._event_pool = ThreadPoolExecutor(settings.event_workers, "demo-pbx-event")
        self._hangup = Hangup()
        self._rpc_ids = itertools.count(1)
        self._numbers = itertools.count(1)
        self._live: set[LiveCall] = set()
        self._known_callers: set[str] = set()
        self._requests_out = 0  # questions and events that are due, queued or being sent
        self._to_come = 0.0
        self._due = 0.0
        self._arrival: Timer | None = None
        self._stopped = False

    # ---- from outside

    def start(self) -> None:
        self.scheduler.start()
        with self.scheduler.lock:
            for person in self.lines.people:
                self._begin_life(person)

    def stop(self) -> None:
        with self.scheduler.lock:
            self._stopped = True
            self._stop_arrivals()
            self.changed.notify_all()
        self.scheduler.stop()
        self._hangup.now()  # does not wait for a hook that hangs until its timeout
        self._hook_pool.shutdown(wait=False, cancel_futures=True)
        self._event_pool.shutdown(wait=False, cancel_futures=True)

    def place_calls(self, total: int | None) -> None:
        """Let callers arrive from now on, `total` of them or for ever, by the plan of the seed."""
        with self.scheduler.lock:
            self._to_come = _NEVER if total is None else total
            self._due = time.monotonic()
            self._next_arrival()

    def stop_calls(self) -> None:
        with self.scheduler.lock:
            self._stop_arrivals()

    def wait_idle(self, timeout: float | None) -> bool:
        """Wait until all calls have ended, none is to come, and every event is sent. Return False after the timeout."""
        with self.scheduler.lock:
            return self.changed.wait_for(
                lambda: self._stopped or (not self._to_come and not self._live and not self._requests_out), timeout
            )

    def place_call(
        self,
        *,
        caller: str | None = None,
        dialed: str | None = None,
        params: Mapping[str, str] | None = None,
        form: str | None = None,
        answers: bool | None = None,
        talk_seconds: float | None = None,
        patience_seconds: float | None = None,
    ) -> CallRecord:
        """Place one call now. Arguments not given come from the seed; `answers` forces what every agent does."""
        with self.scheduler.lock:
            plan = plan_call(self.settings, next(self._numbers))
            given = {
                "caller": None if caller is None else caller.removeprefix("+"),
                "dialed": None if dialed is None else dialed.removeprefix("+"),
                "params": None if params is None else dict(params),
                "form": form,
                "talk_seconds": talk_seconds,
                "patience_seconds": patience_seconds,
            }
            changes = {name: value for name, value in given.items() if value is not None}
            return self._arrive(replace(plan, **changes), answers).record  # type: ignore[arg-type]  # named above

    def set_state(self, login: str, state: str) -> None:
        """Set the state of a login for good: `idle`, `speaking`, `offline`, `dnd`; or `auto`: by the settings again.

        A call that rings or talks there is cut off. Raises KeyError, ValueError.
        """
        if state not in {"idle", "speaking", "offline", "dnd", "auto"}:
            raise ValueError(f"state must be one of idle, speaking, offline, dnd, auto, not {state!r}")
        with self.scheduler.lock:
            line = self.lines.by_login[login]
            line.pinned = state != "auto"
            if line.on_cut is not None:
                line.on_cut()
            if line.activity is not State.IDLE:
                self.lines.change(line, State.IDLE)
            if state == "auto" and self.settings.shift_seconds and not line.person.on_shift:
                self.lines.connect(line, online=False)
            else:
                self.lines.connect(line, online=state != "offline")
            line.dnd_since = time.monotonic() if state == "dnd" else None
            if state == "speaking":
                self.lines.change(line, State.TALKING)

    def ideal_answer(self, record: CallRecord) -> str:
        """Return the answer of an ideal router, which knows every state at once: the person idle longest and not tried
        before, at their first free login; else the first number of the settings, as an overflow. For `answer_with`.
        """
        tried = {offer.person for offer in record.offers}
        free = [
            truth
            for person in self.lines.people
            if person.member.name not in tried
            for truth in [self.lines.truth(line.login) for line in person.lines]
            if truth.state is State.IDLE
        ]
        if not free:
            return next(iter(self.settings.numbers))
        return min(free, key=lambda truth: truth.line.person.idle_since).line.login

    # ---- arrivals

    def _next_arrival(self) -> None:
        if self._to_come <= 0 or self._stopped:
            return
        plan = plan_call(self.settings, next(self._numbers))
        # Counted from the last due arrival, so that a slow machine does not make callers arrive more slowly.
        self._due += plan.gap * 60 / self.settings.calls_per_minute / self.settings.speed
        self._arrival = self.scheduler.at(self._due, partial(self._arrive_on_time, plan))

    def _arrive_on_time(self, plan: CallPlan) -> None:
        self._to_come -= 1
        self._arrive(plan, None)
        self._next_arrival()

    def _stop_arrivals(self) -> None:
        self._to_come = 0
        if self._arrival is not None:
            self._arrival.cancel()

    def _arrive(self, plan: CallPlan, answers: bool | None) -> LiveCall:
        now = time.monotonic()
        wall = utc_now()
        record = CallRecord(
            plan.number,
            f"ua9_-{int(wall.timestamp())}.{2_000_000 + plan.number}",  # different from the ids of earlier runs
            uuid.uuid4().hex,
            plan.caller,
            plan.dialed,
            dict(plan.params),
            plan.form,
            wall,
            now,
        )
        live = LiveCall(record, plan, Random(f"{self.settings.seed}/events/{plan.number}"), answers)
        self._live.add(live)
        self.ledger.open_call(record)
        self._emit(live, "before_call")
        if plan.patience_seconds < _NEVER:
            live.patience = self.scheduler.after(plan.patience_seconds, partial(self._abandon, live))
        self._next_step(live, "")
        return live

    # ---- asking

    def _next_step(self, live: LiveCall, why: str) -> None:
        """Ask the hook (again); or lose the call after the last step, for the reason `why`."""
        if live.step >= self.settings.steps or (self._hook is None and self._answer_with is None):
            self._lose(live, why or "no_hook")
            return
        live.step += 1
        live.settled = False
        question = Question(live.step, f"webhookNumber:{110 + 10 * live.step}")
        if self._answer_with is not None:
            live.asking = 1
            live.record.questions.append(question)
            question.asked_at, question.status = time.monotonic(), 200
            question.destination = self._answer_with(live.record)
            question.failure = self._failure_of(question.destination)
            self._heard(live, question)
            return
        rpc_id = next(self._rpc_ids)
        request = self._question_bytes(live, question, rpc_id)
        live.asking = 1
        self._requests_out += 1
        self._ask(live, question, request, rpc_id)
        if live.plan.duplicate_after_ms is not None:
            live.asking += 1
            self._requests_out += 1
            copy = Question(question.step, question.step_forward, duplicate=True)
            due = time.monotonic() + live.plan.duplicate_after_ms / 1000
            self.scheduler.at(due, partial(self._ask, live, copy, request, rpc_id))

    def _question_bytes(self, live: LiveCall, question: Question, rpc_id: int) -> bytes:
        record = live.record
        values = {
            "call_id": record.call_id,
            "step": question.step_forward,
            "uuid": record.uuid,
            "caller": record.caller,
            "e164": f"+{record.caller}" if record.caller.isdigit() else record.caller,
            "dialed": record.dialed,
            "direction": "in",
        }
        named = {name: values[role] for role, name in self.settings.names.items() if name}
        assert self._hook is not None  # noqa: S101 - _next_step has looked
        return build_request(live.plan.form, self._hook, {**named, **record.params}, self._style, rpc_id=rpc_id)

    def _ask(self, live: LiveCall, question: Question, request: bytes, rpc_id: int) -> None:
        live.record.questions.append(question)
        if not self._stopped:
            self._hook_pool.submit(_logged, self._ask_now, live, question, request, rpc_id, time.monotonic())

    def _ask_now(self, live: LiveCall, question: Question, request: bytes, rpc_id: int, queued_at: float) -> None:
        """Ask the hook, on a thread of the pool."""
        assert self._hook is not None  # noqa: S101 - _next_step has looked
        if live.record.ended:  # the caller hung up while the question waited for a thread
            with self.scheduler.lock:
                self._request_over()
            return
        question.asked_at = time.monotonic()
        question.queued_ms = (question.asked_at - queued_at) * 1000
        try:
            reply = self._send(self._hook, request)
        except WireError as error:
            question.failure, question.detail = error.kind, str(error)
        else:
            question.status = reply.status
            self._read(live, question, reply.body, rpc_id)
        question.latency_ms = (time.monotonic() - question.asked_at) * 1000
        with self.scheduler.lock:
            self._heard(live, question)
            self._request_over()

    def _send(self, endpoint: Endpoint, request: bytes) -> Reply:
        timeout = self.settings.hook_timeout_ms / 1000
        return send_request(endpoint.address, request, timeout=timeout, tls=endpoint.tls, hangup=self._hangup)

    def _read(self, live: LiveCall, question: Question, body: bytes, rpc_id: int) -> None:
        if question.status != 200:
            question.failure, question.detail = "status", body[:200].decode("utf-8", "replace")
            return
        form = answer_form(self.settings.answer, live.plan.form)
        try:
            question.destination = read_answer(form, body, key=self.settings.answer_key, rpc_id=rpc_id)
        except UnreadableAnswerError as error:
            question.failure = "unreadable"
            question.detail = f"{error}: {body[:200].decode('utf-8', 'replace')}"
        else:
            question.failure = self._failure_of(question.destination)

    def _failure_of(self, destination: str) -> str:
        if not destination:
            return "empty"
        known = destination in self.lines.by_login or _NUMBER.fullmatch(destination) or _SCHEME.fullmatch(destination)
        return "" if known else "unknown_destination"

    def _heard(self, live: LiveCall, question: Question) -> None:
        """Handle an answer or its failure. Of a step's copies the first good answer counts; a step fails if all do."""
        if self._stopped:
            return  # the simulation itself cut the connections
        question.answered = True
        self.ledger.note_question(question)
        self._compare_copies(live.record, question)
        if question.step != live.step or live.settled or live.record.ended:
            return
        live.asking -= 1
        if not question.failure:
            live.settled = True
            self._forward(live, question)
        elif live.asking == 0:
            live.settled = True
            if self.settings.on_failure == "lost":
                self._lose(live, question.failure)
            else:
                self._next_step(live, question.failure)

    def _compare_copies(self, record: CallRecord, question: Question) -> None:
        copies = [one for one in record.questions if one.step == question.step and one.answered]
        if len(copies) == 2 and not copies[0].failure and not copies[1].failure:
            self.ledger.note_duplicates(differing=copies[0].destination != copies[1].destination)

    # ---- forwarding

    def _forward(self, live: LiveCall, question: Question) -> None:
        live.record.destination = question.destination
        line = self.lines.by_login.get(question.destination)
        if line is None:
            self._emit(live, "forwarding", step_forward=question.step_forward)
            self._go_outside(live, question.destination)
            return
        truth = self.lines.truth(line.login)
        offer = self.ledger.note_offer(live.record, question, truth, line.login)
        self._emit(live, "forwarding", line.login, sip_login=line.login, step_forward=question.step_forward)
        self.changed.notify_all()
        if not line.online:
            offer.result = "offline"
        elif line.activity is not State.IDLE:
            offer.result = "busy"
        elif line.dnd_since is not None:
            offer.result = "declined"
        else:
            self._ring(live, line)
            return
        self._next_step(live, offer.result)

    def _ring(self, live: LiveCall, line: Line) -> None:
        settings = self.settings
        self.lines.change(line, State.RINGING)
        line.call_number, line.offered_at = live.plan.number, time.monotonic()
        line.on_cut = partial(self._stop_ringing, live, "gone")
        live.line = line
        person = line.person
        after = answers_after(settings, live.plan.number, person.member.name, line.login)
        if live.answers is not None:
            after = settings.answer_after_seconds[0] if live.answers else None
        if after is not None and after < settings.ring_seconds:
            live.leg = self.scheduler.after(after, partial(self._pick_up, live, settings.ring_seconds - after))
        else:
            live.leg = self.scheduler.after(settings.ring_seconds, partial(self._stop_ringing, live, "no_answer"))

    def _pick_up(self, live: LiveCall, ring_left: float) -> None:
        line = live.line
        assert line is not None  # noqa: S101 - set by _ring, whose timer we are
        if any(other.activity is State.TALKING for other in line.person.lines):
            # A person can take one call at a time: the second phone rings until the PBX ends that.
            live.leg = self.scheduler.after(ring_left, partial(self._stop_ringing, live, "no_answer"))
            return
        self.lines.change(line, State.TALKING)
        line.on_cut = partial(self._hang_up, live)
        live.record.offers[-1].result = "answered"
        self.ledger.note_answer(live.record, line.login, self._simulated_since(live.record.arrived_at))
        self._talk(live)
        self._emit(live, "pickup", line.login, connected_with=line.login)
        if live.plan.transfer_at is not None:
            due = live.plan.talk_seconds * live.plan.transfer_at
            live.transfer = self.scheduler.after(due, partial(self._transfer, live))

    def _talk(self, live: LiveCall) -> None:
        if live.patience is not None:
            live.patience.cancel()
        live.talk_began_at = time.monotonic()
        live.leg = self.scheduler.after(live.plan.talk_seconds, partial(self._hang_up, live))
        self.changed.notify_all()

    def _transfer(self, live: LiveCall) -> None:
        """Transfer the talk to a free colleague, if there is one: a second pickup of the same call."""
        line = live.line
        assert line is not None  # noqa: S101 - set by _ring
        free = [
            other
            for person in self.lines.people
            if person is not line.person and self.lines.is_free(person)
            for other in person.lines
            if self.lines.truth(other.login).state is State.IDLE
        ]
        if not free:
            return
        target = live.event_dice.choice(free)
        self.lines.change(line, State.IDLE)
        self.lines.change(target, State.TALKING)
        target.call_number, target.on_cut = live.plan.number, partial(self._hang_up, live)
        live.line = target
        live.record.transferred_to = target.login
        self.ledger.transfers += 1
        self._emit(live, "pickup", target.login, connected_with=target.login)

    def _go_outside(self, live: LiveCall, destination: str) -> None:
        """Send the call to a number or scheme outside, which counts as answered at once."""
        kind = "scheme" if _SCHEME.fullmatch(destination) else "outside"
        idle = any(self.lines.is_free(person) for person in self.lines.people)
        waited = self._simulated_since(live.record.arrived_at)
        self.ledger.note_outside(live.record, kind, waited, somebody_idle=idle)
        self._talk(live)
        self._emit(live, "pickup", connected_with=destination)

    # ---- endings

    def _stop_ringing(self, live: LiveCall, why: str) -> None:
        self._release(live)
        live.record.offers[-1].result = why
        self._next_step(live, why)

    def _abandon(self, live: LiveCall) -> None:
        if live.line is not None:
            self._release(live)
            live.record.offers[-1].result = "abandoned"
        self._lose(live, "abandoned")

    def _lose(self, live: LiveCall, why: str) -> None:
        live.record.outcome, live.record.lost_because = "lost", why
        self._end(live, {"busy": "BUSY", "abandoned": "NO ANSWER", "no_answer": "NO ANSWER"}.get(why, "FAILED"))

    def _hang_up(self, live: LiveCall) -> None:
        assert live.talk_began_at is not None  # noqa: S101 - only a talk is hung up
        live.record.talked_seconds = self._simulated_since(live.talk_began_at)
        self._release(live)
        known = live.plan.caller in self._known_callers
        self._known_callers.add(live.plan.caller)
        self._end(live, "REPEATED" if known else "PROPER" if live.record.talked_seconds >= 60 else "ANSWERED")

    def _release(self, live: LiveCall) -> None:
        if live.leg is not None:
            live.leg.cancel()
        if live.line is not None:
            self.lines.change(live.line, State.IDLE)
            live.line = None

    def _end(self, live: LiveCall, disposition: str) -> None:
        record = live.record
        for timer in (live.leg, live.patience, live.transfer):
            if timer is not None:
                timer.cancel()
        record.disposition = disposition
        if record.outcome == "lost":
            record.waited_seconds = self._simulated_since(record.arrived_at)
        outside = record.destination if record.outcome in {"outside", "scheme"} else ""
        self._emit(
            live,
            "after_call",
            record.transferred_to or record.answered_by,
            connected_with=record.transferred_to or record.answered_by or outside,
            disposition=disposition,
            billsec=str(whole_seconds(record.talked_seconds)),
            waittime=str(whole_seconds(record.waited_seconds)),
            duration=str(whole_seconds(record.waited_seconds) + whole_seconds(record.talked_seconds)),
        )
        self.ledger.close_call(record)
        self._live.discard(live)
        self.changed.notify_all()

    def _simulated_since(self, instant: float) -> float:
        return (time.monotonic() - instant) * self.settings.speed

    # ---- events

    def _emit(self, live: LiveCall, event: str, login: str = "", **fields: str) -> None:
        """Send an event of this call, after its earlier ones unless the settings let events overtake each other."""
        if self._event is None or self._stopped:
            return
        settings, dice, record = self.settings, live.event_dice, live.record
        lost, doubled, overtaken = (dice.random() for _ in range(3))
        delay = dice.expovariate(1.0) * settings.event_delay_ms / 1000
        sent = EventSent(event, login)
        record.events.append(sent)
        if lost < settings.event_loss:
            sent.result = "lost"
            self.ledger.note_event(sent)
            return
        body = {
            "event": event,
            "call_type": "in",
            "uniqueid": record.call_id,
            "dst": record.dialed,
            "E164": f"+{record.caller}" if record.caller.isdigit() else record.caller,
            "userfield": record.caller,
            "calldate": record.arrived_on.astimezone(self._zone).strftime("%Y-%m-%dT%H:%M:%S%z"),
            **fields,
        }
        request = build_request(live.plan.event_form, self._event, body, self._event_style, rpc_id=next(self._rpc_ids))
        copies = [sent]
        if doubled < settings.event_duplicates:
            copies.append(EventSent(event, login))
            record.events.append(copies[1])
        now = time.monotonic()
        for copy in copies:
            self._requests_out += 1
            if overtaken < settings.event_reorder:
                due = now + delay + settings.event_reorder_ms / 1000
                self.scheduler.at(due, partial(self._post, live, copy, request, in_lane=False))
            elif delay:
                live.lane_due = max(live.lane_due, now + delay)
                self.scheduler.at(live.lane_due, partial(self._into_lane, live, copy, request))
            else:
                self._into_lane(live, copy, request)

    def _into_lane(self, live: LiveCall, sent: EventSent, request: bytes) -> None:
        """Send the events of one call one after the other, each when the one before has been answered."""
        live.lane.append((sent, request))
        if not live.lane_busy:
            self._next_in_lane(live)

    def _next_in_lane(self, live: LiveCall) -> None:
        live.lane_busy = bool(live.lane)
        if live.lane:
            self._post(live, *live.lane.popleft(), in_lane=True)

    def _post(self, live: LiveCall, sent: EventSent, request: bytes, *, in_lane: bool) -> None:
        if not self._stopped:
            self._event_pool.submit(_logged, self._post_now, live, sent, request, in_lane)

    def _post_now(self, live: LiveCall, sent: EventSent, request: bytes, in_lane: bool) -> None:
        """Send an event, on a thread of the pool. It is never repeated, as on the platform."""
        assert self._event is not None  # noqa: S101 - _emit has looked
        try:
            sent.result = str(self._send(self._event, request).status)
        except WireError as error:
            sent.result = error.kind
        with self.scheduler.lock:
            self.ledger.note_event(sent)
            if sent.result == "200":
                sent.acknowledged_at = time.monotonic()
                line = live.line
                if sent.event == "pickup" and line is not None and line.login == sent.login:
                    line.acknowledged_at = line.acknowledged_at or sent.acknowledged_at
            if in_lane:
                self._next_in_lane(live)
            self._request_over()

    def _request_over(self) -> None:
        self._requests_out -= 1
        if not self._requests_out:
            self.changed.notify_all()

    # ---- agents: shifts and their own calls

    def _begin_life(self, person: Person) -> None:
        settings = self.settings
        if settings.shift_seconds:
            dice = Random(f"{settings.seed}/shifts/{person.member.staff_id}")
            # At the beginning as many are away as on average.
            share = settings.shift_seconds / (settings.shift_seconds + settings.away_seconds)
            (self._begin_shift if dice.random() < share else self._end_shift)(person, dice)
        if settings.own_calls_per_hour:
            self._next_own_call(person, Random(f"{settings.seed}/own/{person.member.staff_id}"))

    def _begin_shift(self, person: Person, dice: Random) -> None:
        person.on_shift = True
        for n, line in enumerate(person.lines):
            present = n == 0 or dice.random() < self.settings.second_login_probability
            if not line.pinned:
                line.leaving = False
                self.lines.connect(line, online=present)
        self.scheduler.after(dice.expovariate(1 / self.settings.shift_seconds), partial(self._end_shift, person, dice))

    def _end_shift(self, person: Person, dice: Random) -> None:
        """Go offline: after the talk, if the person talks; a phone that rings stops ringing."""
        person.on_shift = False
        for line in person.lines:
            if line.pinned:
                continue
            if line.activity is State.TALKING:
                line.leaving = True
                continue
            self.lines.connect(line, online=False)
            if line.on_cut is not None:
                line.on_cut()
        self.scheduler.after(dice.expovariate(1 / self.settings.away_seconds), partial(self._begin_shift, person, dice))

    def _next_own_call(self, person: Person, dice: Random) -> None:
        after = dice.expovariate(self.settings.own_calls_per_hour / 3600)
        self.scheduler.after(after, partial(self._own_call, person, dice))

    def _own_call(self, person: Person, dice: Random) -> None:
        """Let the agent call somebody, if free. Dialing counts as talking: the phone is in use from the first digit."""
        talk, client = dice.expovariate(1 / self.settings.own_talk_seconds), f"38044{dice.randrange(10_000_000):07d}"
        free = [line for line in person.lines if self.lines.truth(line.login).state is State.IDLE and not line.pinned]
        if free:
            line, wall = free[0], utc_now()
            number = next(self._rpc_ids)
            call = OwnCall(number, f"ua9_-{int(wall.timestamp())}.{5_000_000 + number}", line.login, client, wall)
            self.ledger.open_own_call(call)
            self.lines.change(line, State.TALKING)
            form = self.settings.event_form if self.settings.event_form != "mixed" else dice.choice(list(FORMS))
            plan = CallPlan(number, client, client, event_form=form)
            # Its record is only for the events; it is not one of the ledger's calls.
            live = LiveCall(_own_record(call), plan, Random(f"{self.settings.seed}/own events/{number}"))
            ending = partial(self._end_own_call, live, call, line)
            live.leg = self.scheduler.after(talk, ending)
            line.on_cut = ending
            self._emit(live, "before_call", line.login, call_type="out", caller=line.login, sip_login=line.login)
        self._next_own_call(person, dice)

    def _end_own_call(self, live: LiveCall, call: OwnCall, line: Line) -> None:
        if live.leg is not None:
            live.leg.cancel()
        self.lines.change(line, State.IDLE)
        call.ended = True
        call.talked_seconds = self._simulated_since(live.record.arrived_at)
        self._emit(
            live,
            "after_call",
            line.login,
            call_type="out",
            caller=line.login,
            sip_login=line.login,
            disposition="ANSWERED",
            billsec=str(whole_seconds(call.talked_seconds)),
            duration=str(whole_seconds(call.talked_seconds)),
        )


def _own_record(call: OwnCall) -> CallRecord:
    return CallRecord(
        call.number, call.call_id, "", call.client, call.client, {}, "", call.started_on, time.monotonic()
    )


def _logged(job: Callable[..., None], *args: object) -> None:
    """Run a job and log its exception, which a pool of threads would hide."""
    try:
        job(*args)
    except Exception:
        log.exception("a request of the simulation failed")
