"""Who may be offered a call now, and the first reason why not: by the cast, by example, and by law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.decision import Observed, device_state, observe, offered_login, skip_reason
from router.core.model import Agent, AgentState, DeviceState, Member, Presence, Project, SkipReason, Status, WhenUnknown
from router.core.schedule import DAY, Schedule, Span

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ALWAYS = Schedule(1, "always", weekly=((Span(0, DAY),),) * 7)
NEVER = Schedule(2, "never")

AS_USUAL = AgentState()
ALICE = Agent(1, "Alice", ("acme_alice", "acme_alice_mob"))
BOB = Agent(2, "Bob", ("acme_bob",))
CAROL = Agent(3, "Carol", ("acme_carol",))
DAVE = Agent(4, "Dave", ("acme_dave",))
ALICE_AT_HER_DESK = replace(ALICE, sip_logins=("acme_alice",))
FRESH = Presence(
    online=frozenset({"acme_alice", "acme_alice_mob", "acme_bob", "acme_carol"}),
    speaking=frozenset({"acme_bob"}),
    age=SECOND,
)


def observed(presence: Presence = FRESH, when_unknown: WhenUnknown = WhenUnknown.LAST_KNOWN) -> Observed:
    project = Project(1, "acme", 1, when_unknown=when_unknown, fresh=5 * SECOND, last_known=60 * SECOND)
    return observe(project, presence)


def reason(
    agent: Agent,
    state: AgentState = AS_USUAL,
    *,
    member: Member | None = None,
    presence: Presence = FRESH,
    tried: frozenset[str] = frozenset(),
) -> SkipReason | None:
    return skip_reason(agent, member or Member(agent.id), state, observed(presence), NOW, tried)


def clocked(name: str, until: datetime, state: AgentState = AS_USUAL) -> AgentState:
    values: dict[str, Any] = {name: until}
    return state._replace(**values)


# ---- the cast


def test_offers_alice_who_is_free() -> None:
    assert reason(ALICE) is None


def test_skips_bob_who_is_on_a_call() -> None:
    assert reason(BOB) == SkipReason.SPEAKING


def test_skips_carol_who_is_on_a_break() -> None:
    assert reason(CAROL, AgentState(status=Status.ON_BREAK)) == SkipReason.ON_BREAK


def test_skips_dave_who_is_offline() -> None:
    assert reason(DAVE) == SkipReason.OFFLINE


# ---- every reason, and the first that fails wins


@dataclass
class Situation:
    """Alice as she is offered a call; each fault makes one check fail."""

    agent: Agent = ALICE_AT_HER_DESK
    member: Member = field(default_factory=lambda: Member(ALICE.id, hours=ALWAYS))
    state: AgentState = AS_USUAL
    presence: Presence = FRESH
    tried: frozenset[str] = frozenset()

    def reason(self) -> SkipReason | None:
        given = self.agent, self.state
        return reason(*given, member=self.member, presence=self.presence, tried=self.tried)


def _paused(s: Situation) -> None:
    s.agent = replace(s.agent, paused=True)


def _paused_until(s: Situation) -> None:
    s.state = s.state._replace(paused_until=NOW + SECOND)


def _status(status: Status) -> Callable[[Situation], None]:
    def fault(s: Situation) -> None:
        s.state = s.state._replace(status=status)

    return fault


def _away(s: Situation) -> None:
    s.agent = replace(s.agent, away_until=NOW + SECOND)


def _agent_hours(s: Situation) -> None:
    s.agent = replace(s.agent, hours=NEVER)


def _member_hours(s: Situation) -> None:
    s.member = replace(s.member, hours=NEVER)


def _unknown(s: Situation) -> None:
    s.presence = replace(s.presence, age=None)


def _offline(s: Situation) -> None:
    s.presence = replace(s.presence, online=s.presence.online - set(s.agent.sip_logins))


def _speaking(s: Situation) -> None:
    s.presence = replace(s.presence, speaking=s.presence.speaking | set(s.agent.sip_logins))


def _clock(name: str) -> Callable[[Situation], None]:
    def fault(s: Situation) -> None:
        s.state = clocked(name, NOW + SECOND, s.state)

    return fault


def _cap(s: Situation) -> None:
    s.agent = replace(s.agent, daily_cap=3)
    s.state = s.state._replace(answered_today=3)


def _talked(s: Situation) -> None:
    s.agent = replace(s.agent, max_talk_per_day=2)
    s.state = s.state._replace(talked_today=120)


def _tried(s: Situation) -> None:
    s.tried = frozenset(s.agent.sip_logins)


FAULTS: list[tuple[SkipReason, Callable[[Situation], None]]] = [
    (SkipReason.PAUSED, _paused),
    (SkipReason.PAUSED, _paused_until),
    (SkipReason.ON_BREAK, _status(Status.ON_BREAK)),
    (SkipReason.OFF_DUTY, _status(Status.OFF_DUTY)),
    (SkipReason.OFF_DUTY, _away),
    (SkipReason.OFF_HOURS, _agent_hours),
    (SkipReason.OFF_HOURS, _member_hours),
    (SkipReason.PRESENCE_UNKNOWN, _unknown),
    (SkipReason.OFFLINE, _offline),
    (SkipReason.SPEAKING, _speaking),
    (SkipReason.RESERVED, _clock("reserved_until")),
    (SkipReason.WRAP_UP, _clock("wrap_up_until")),
    (SkipReason.COOLING_DOWN, _clock("cooling_until")),
    (SkipReason.AT_CAP, _cap),
    (SkipReason.TALKED_ENOUGH, _talked),
    (SkipReason.ALREADY_TRIED, _tried),
]


@pytest.mark.parametrize(("expected", "fault"), FAULTS)
def test_one_fault_is_one_reason(expected: SkipReason, fault: Callable[[Situation], None]) -> None:
    situation = Situation()
    assert situation.reason() is None
    fault(situation)
    assert situation.reason() == expected


def test_every_reason_has_an_example() -> None:
    assert [reason for reason, _ in FAULTS] == sorted((r for r, _ in FAULTS), key=list(SkipReason).index)
    assert {reason for reason, _ in FAULTS} == set(SkipReason) - {SkipReason.EXCLUDED}  # by the rule, not the agent


@given(st.lists(st.sampled_from(range(len(FAULTS))), min_size=1, unique=True))
def test_the_first_check_that_fails_is_the_reason(in_order_of_coming: list[int]) -> None:
    situation = Situation()
    for index in in_order_of_coming:
        FAULTS[index][1](situation)
    expected = FAULTS[min(in_order_of_coming)][0]
    if expected in {SkipReason.ON_BREAK, SkipReason.OFF_DUTY} and situation.state.status != Status.AVAILABLE:
        expected = SkipReason(situation.state.status)  # of two declarations the later one holds
    assert situation.reason() == expected


@pytest.mark.parametrize("name", ["paused_until", "reserved_until", "wrap_up_until", "cooling_until"])
def test_a_clock_that_ran_out_says_nothing(name: str) -> None:
    assert reason(ALICE, clocked(name, NOW)) is None


def test_a_leave_that_ended_says_nothing() -> None:
    assert reason(replace(ALICE, away_until=NOW)) is None


def test_below_the_cap_an_agent_is_offered_calls() -> None:
    assert reason(replace(ALICE, daily_cap=3), AgentState(answered_today=2)) is None


def test_below_the_limit_of_talk_an_agent_is_offered_calls() -> None:
    assert reason(replace(ALICE, max_talk_per_day=2), AgentState(talked_today=119)) is None


def test_a_preferred_agent_needs_no_membership() -> None:
    assert skip_reason(ALICE, None, AgentState(), observed(), NOW) is None


# ---- several logins


def test_offers_the_first_login_in_the_agents_order_that_is_online() -> None:
    only_mobile = replace(FRESH, online=frozenset({"acme_alice_mob"}))
    assert offered_login(ALICE, observed()) == "acme_alice"
    assert offered_login(ALICE, observed(only_mobile)) == "acme_alice_mob"
    assert offered_login(replace(ALICE, sip_logins=ALICE.sip_logins[::-1]), observed()) == "acme_alice_mob"
    assert offered_login(DAVE, observed()) == ""


def test_one_login_speaking_makes_the_whole_agent_speaking() -> None:
    assert reason(ALICE, presence=replace(FRESH, speaking=frozenset({"acme_alice_mob"}))) == SkipReason.SPEAKING


def test_one_login_tried_means_the_agent_was_tried() -> None:
    assert reason(ALICE, tried=frozenset({"acme_alice_mob"})) == SkipReason.ALREADY_TRIED


def test_an_agent_without_logins_is_offline() -> None:
    nobody = replace(ALICE, sip_logins=())
    assert reason(nobody) == SkipReason.OFFLINE
    assumed = observed(replace(FRESH, age=None), WhenUnknown.ASSUME_ONLINE)
    assert skip_reason(nobody, None, AgentState(), assumed, NOW) == SkipReason.OFFLINE


# ---- how far presence is relied on


@pytest.mark.parametrize(
    ("age", "policy", "basis"),
    [
        (0, WhenUnknown.OVERFLOW, "fresh"),
        (5, WhenUnknown.OVERFLOW, "fresh"),
        (5.1, WhenUnknown.OVERFLOW, "unknown"),
        (5.1, WhenUnknown.LAST_KNOWN, "last_known"),
        (60, WhenUnknown.LAST_KNOWN, "last_known"),
        (60.1, WhenUnknown.LAST_KNOWN, "unknown"),
        (None, WhenUnknown.LAST_KNOWN, "unknown"),
        (None, WhenUnknown.OVERFLOW, "unknown"),
        (None, WhenUnknown.ASSUME_ONLINE, "assume_online"),
        (5, WhenUnknown.ASSUME_ONLINE, "fresh"),
        (5.1, WhenUnknown.ASSUME_ONLINE, "assume_online"),
    ],
)
def test_the_projects_policy_decides_what_old_presence_is_worth(
    age: float | None, policy: WhenUnknown, basis: str
) -> None:
    presence = replace(FRESH, age=None if age is None else timedelta(seconds=age))
    found = observed(presence, policy)
    assert found.basis == basis
    assert found.known is (basis != "unknown")


def test_unknown_is_not_nobody() -> None:
    """Nothing is concluded from silence: not that agents are offline, not that they are free."""
    unknown = replace(FRESH, age=None)
    assert {reason(agent, presence=unknown) for agent in (ALICE, BOB, CAROL, DAVE)} == {SkipReason.PRESENCE_UNKNOWN}


def test_assumed_online_everybody_is_offered_calls_but_who_is_heard_talking() -> None:
    presence = replace(FRESH, age=timedelta(hours=1), events={"acme_carol": True, "acme_dave": False})
    seen = observed(presence, WhenUnknown.ASSUME_ONLINE)
    reasons = {a.name: skip_reason(a, None, AgentState(), seen, NOW) for a in (ALICE, BOB, CAROL, DAVE)}
    assert reasons == {"Alice": None, "Bob": None, "Carol": SkipReason.SPEAKING, "Dave": None}


def test_call_events_are_newer_than_the_reading() -> None:
    presence = replace(FRESH, events={"acme_bob": False, "acme_alice": True})
    assert reason(BOB, presence=presence) is None
    assert reason(ALICE, presence=presence) == SkipReason.SPEAKING
    of_others = replace(FRESH, events={"acme_alice": False})
    assert reason(BOB, presence=of_others) == SkipReason.SPEAKING, "of whom nothing was said since, the reading holds"


# ---- what people see


def test_shows_the_device_state_of_the_cast() -> None:
    reserved = AgentState(reserved_until=NOW + SECOND)
    assert device_state(ALICE, AgentState(), observed(), NOW) == DeviceState.IDLE
    assert device_state(ALICE, reserved, observed(), NOW) == DeviceState.RESERVED
    assert device_state(ALICE, reserved._replace(reserved_until=NOW), observed(), NOW) == DeviceState.IDLE
    assert device_state(BOB, reserved, observed(), NOW) == DeviceState.SPEAKING
    assert device_state(DAVE, reserved, observed(), NOW) == DeviceState.OFFLINE
    assert device_state(ALICE, AgentState(), observed(replace(FRESH, age=None)), NOW) == DeviceState.UNKNOWN
