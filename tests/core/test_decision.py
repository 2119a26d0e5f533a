"""decide(): the cast and the chain by example; and by law that some answer is always given, to the eligible alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.conditions import read_conditions
from router.core.decision import decide, free_count
from router.core.model import (
    Agent,
    AgentState,
    Call,
    Candidate,
    Cause,
    Decision,
    Group,
    LastTalk,
    Member,
    MemberClock,
    Offer,
    Overflow,
    OverflowOf,
    Presence,
    Project,
    SkipReason,
    Snapshot,
    Status,
    WhenUnknown,
)
from router.core.rules import Preference, Rule
from router.core.strategies import STRATEGIES

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LATER = NOW + timedelta(days=1)

ALICE = Agent(1, "Alice", ("acme_alice", "acme_alice_mob"), staff_id="501")
BOB = Agent(2, "Bob", ("acme_bob",))
CAROL = Agent(3, "Carol", ("acme_carol",))
DAVE = Agent(4, "Dave", ("acme_dave",))
ERIN = Agent(5, "Erin", ("acme_erin",), staff_id="505")  # free, and in no group

SALES, SUPPORT = 10, 20
CALL = Call(call_id="c1", caller="380501112233", dialed="380441112233")
SNAPSHOT = Snapshot(
    now=NOW,
    presence=Presence(
        online=frozenset({"acme_alice", "acme_bob", "acme_carol", "acme_erin"}),
        speaking=frozenset({"acme_bob"}),
        age=SECOND,
    ),
    agents={CAROL.id: AgentState(status=Status.ON_BREAK)},
    seed="c1",
)


def group(group_id: int, *members: Agent | Member, strategy: str = "priority", **settings: Any) -> Group:
    placed = [m if isinstance(m, Member) else Member(m.id, position=n) for n, m in enumerate(members)]
    return Group(group_id, f"group {group_id}", strategy, tuple(placed), **settings)


def project(
    *groups: Group, rules: tuple[Rule, ...] | None = None, agents: tuple[Agent, ...] = (), **more: Any
) -> Project:
    everybody = {agent.id: agent for agent in (ALICE, BOB, CAROL, DAVE, ERIN, *agents)}
    if rules is None:
        rules = (Rule(1, "everyone", tuple(each.id for each in groups)),)
    settings = {"overflow": "380440000000"} | more
    return Project(1, "acme", 1, agents=everybody, groups={each.id: each for each in groups}, rules=rules, **settings)


def skips(decision: Decision, trial: int = 0) -> dict[int, str | None]:
    return {candidate.agent_id: candidate.skip for candidate in decision.trials[trial].candidates}


# ---- the cast


def test_offers_alice_and_tells_why_nobody_else() -> None:
    decision = decide(project(group(SALES, DAVE, CAROL, BOB, ALICE, ring=timedelta(seconds=20))), CALL, SNAPSHOT)
    assert decision.rule_id == 1
    (trial,) = decision.trials
    assert trial.group_id == SALES
    assert trial.candidates == (
        Candidate(ALICE.id, "acme_alice", None, (1, 3, "acme_alice")),
        Candidate(DAVE.id, "", SkipReason.OFFLINE),
        Candidate(CAROL.id, "acme_carol", SkipReason.ON_BREAK),
        Candidate(BOB.id, "acme_bob", SkipReason.SPEAKING),
    )
    assert decision.answer == Offer(ALICE.id, "acme_alice", SALES, timedelta(seconds=20), MemberClock(1, 0, 0, 1, 1))
    assert (decision.result, decision.answer.destination) == ("offer", "acme_alice")


def test_tries_the_groups_of_the_chain_in_order() -> None:
    decision = decide(project(group(SALES, BOB, CAROL), group(SUPPORT, DAVE, ALICE)), CALL, SNAPSHOT)
    assert [trial.group_id for trial in decision.trials] == [SALES, SUPPORT]
    assert isinstance(decision.answer, Offer)
    assert decision.answer.group_id == SUPPORT


def test_does_not_look_at_groups_behind_the_one_that_took_the_call() -> None:
    decision = decide(project(group(SALES, ALICE), group(SUPPORT, ERIN)), CALL, SNAPSHOT)
    assert [trial.group_id for trial in decision.trials] == [SALES]


def test_a_lower_tier_is_offered_calls_while_the_first_is_busy() -> None:
    first, second = Member(BOB.id, tier=1), Member(ALICE.id, tier=2)
    assert decide(project(group(SALES, second, first)), CALL, SNAPSHOT).answer.destination == "acme_alice"
    bob_hung_up = replace(SNAPSHOT, presence=replace(SNAPSHOT.presence, speaking=frozenset()))
    assert decide(project(group(SALES, second, first)), CALL, bob_hung_up).answer.destination == "acme_bob"


def test_a_login_tried_before_is_not_named_again() -> None:
    tried = replace(SNAPSHOT, tried=frozenset({"acme_alice"}))
    decision = decide(project(group(SALES, ALICE, ERIN)), CALL, tried)
    assert decision.answer.destination == "acme_erin"
    assert skips(decision) == {ERIN.id: None, ALICE.id: SkipReason.ALREADY_TRIED}


def test_members_clocks_are_those_of_the_group_that_asks() -> None:
    clocks = {SALES: {ALICE.id: MemberClock(7), ERIN.id: MemberClock(3)}, SUPPORT: {ERIN.id: MemberClock(9)}}
    told = project(group(SALES, ALICE, ERIN, strategy="round_robin"))
    answer = decide(told, CALL, replace(SNAPSHOT, clocks=clocks)).answer
    assert isinstance(answer, Offer)
    assert (answer.sip_login, answer.clock) == ("acme_erin", MemberClock(8, 0, 0, 1, 1))


# ---- the overflow


@pytest.mark.parametrize(
    ("of_rule", "of_group", "destination", "of"),
    [
        ("rule", "group", "rule", OverflowOf.RULE),
        (None, "group", "group", OverflowOf.GROUP),
        (None, None, "project", OverflowOf.PROJECT),
        ("", "group", "", OverflowOf.RULE),
        (None, "", "", OverflowOf.GROUP),
    ],
)
def test_the_nearest_overflow_wins_and_may_be_empty_on_purpose(
    of_rule: str | None, of_group: str | None, destination: str, of: OverflowOf
) -> None:
    groups = group(SUPPORT, DAVE, overflow="not this one"), group(SALES, BOB, overflow=of_group)
    rules = (Rule(1, "everyone", (SUPPORT, SALES), overflow=of_rule),)
    decision = decide(project(*groups, rules=rules, overflow="project"), CALL, SNAPSHOT)
    assert decision.answer == Overflow(destination, of, Cause.NOBODY_FREE)
    assert decision.result == "overflow"
    assert [len(trial.candidates) for trial in decision.trials] == [1, 1], "with a reason for everybody all the same"


def test_a_rule_without_groups_sends_calls_to_its_overflow() -> None:
    decision = decide(project(rules=(Rule(3, "night", overflow="380671234567"),)), CALL, SNAPSHOT)
    assert decision == Decision(3, (), Overflow("380671234567", OverflowOf.RULE, Cause.NO_GROUPS))


def test_a_call_that_no_rule_matches_goes_to_the_projects_overflow() -> None:
    night = Rule(1, "night", (SALES,), read_conditions({"dialed": ["1"]}))
    decision = decide(project(group(SALES, ALICE), rules=(night,)), CALL, SNAPSHOT)
    assert decision == Decision(None, (), Overflow("380440000000", OverflowOf.PROJECT, Cause.NO_RULE))


def test_without_presence_the_projects_policy_decides() -> None:
    unknown = replace(SNAPSHOT, presence=Presence())
    told = project(group(SALES, ALICE, DAVE))
    decision = decide(told, CALL, unknown)
    assert decision.answer.destination == "380440000000"
    assert set(skips(decision).values()) == {SkipReason.PRESENCE_UNKNOWN}
    trusting = replace(told, when_unknown=WhenUnknown.ASSUME_ONLINE)
    assert decide(trusting, CALL, unknown).answer.destination == "acme_alice"


# ---- rules that count the free


@pytest.mark.parametrize(("fewer_than", "rule_id"), [(1, 2), (2, 1), (3, 1)])
def test_a_rule_may_ask_how_many_are_free(fewer_than: int, rule_id: int) -> None:
    busy = Rule(1, "busy", (SUPPORT,), read_conditions({"free": {"group": SALES, "fewer_than": fewer_than}}))
    told = project(group(SALES, ALICE, BOB, DAVE), group(SUPPORT, ERIN), rules=(busy, Rule(2, "everyone", (SALES,))))
    assert decide(told, CALL, SNAPSHOT).rule_id == rule_id
    assert free_count(told, SNAPSHOT, SALES) == 1


# ---- the preferred agent

LAST = Preference(last_agent=True)
NAMED = Preference(param="Responsible")


def preferring(preference: Preference, *agents: Agent, ring: int = 20) -> Project:
    rule = Rule(1, "everyone", (SALES,), prefer=preference)
    return project(group(SALES, ALICE, ring=timedelta(seconds=ring)), rules=(rule,), agents=agents)


def test_offers_the_agent_who_last_talked_with_the_caller() -> None:
    decision = decide(preferring(LAST), CALL, replace(SNAPSHOT, last_talk=LastTalk(ERIN.id, NOW - timedelta(days=3))))
    assert decision.answer == Offer(ERIN.id, "acme_erin", None, timedelta(seconds=20), None)
    assert [(trial.group_id, trial.candidates) for trial in decision.trials] == [
        (None, (Candidate(ERIN.id, "acme_erin", None),))
    ]


def test_a_talk_before_the_rules_days_is_forgotten() -> None:
    told = preferring(Preference(last_agent=True, within=timedelta(days=7)))
    for days, destination in ((7, "acme_erin"), (7.1, "acme_alice")):
        talk = LastTalk(ERIN.id, NOW - timedelta(days=days))
        assert decide(told, CALL, replace(SNAPSHOT, last_talk=talk)).answer.destination == destination


@pytest.mark.parametrize("name", ["acme_erin", "ACME_Erin", "505", "Erin", " erin "])
def test_offers_the_agent_whom_a_parameter_names_by_login_staff_id_or_name(name: str) -> None:
    named = replace(CALL, params={"responsible": name})
    assert decide(preferring(NAMED), named, SNAPSHOT).answer.destination == "acme_erin"


def test_a_login_is_believed_before_a_staff_id_and_that_before_a_name() -> None:
    frank = Agent(6, "505", ("erin",), staff_id="acme_erin")
    told = preferring(NAMED, frank)
    for name, agent in (("acme_erin", ERIN), ("505", ERIN), ("erin", frank)):
        assert told.agent_named(name) == agent


@pytest.mark.parametrize("params", [{}, {"responsible": ""}, {"responsible": "nobody we know"}])
def test_without_a_preferred_agent_the_chain_is_asked(params: dict[str, str]) -> None:
    decision = decide(preferring(NAMED), replace(CALL, params=params), SNAPSHOT)
    assert decision.answer.destination == "acme_alice"
    assert [(trial.group_id, len(trial.candidates)) for trial in decision.trials] == [(None, 0), (SALES, 1)]


def test_a_preferred_agent_who_is_busy_is_told_and_the_chain_is_asked() -> None:
    decision = decide(preferring(NAMED), replace(CALL, params={"responsible": "Bob"}), SNAPSHOT)
    assert decision.answer.destination == "acme_alice"
    assert skips(decision) == {BOB.id: SkipReason.SPEAKING}


def test_a_preferred_agent_who_left_the_company_is_no_candidate() -> None:
    decision = decide(preferring(LAST), CALL, replace(SNAPSHOT, last_talk=LastTalk(99, NOW)))
    assert decision.answer.destination == "acme_alice"


def test_a_preference_alone_may_be_all_that_a_rule_has() -> None:
    rule = Rule(1, "own customers", (), prefer=LAST)
    decision = decide(
        project(rules=(rule,)), CALL, replace(SNAPSHOT, last_talk=LastTalk(ERIN.id, NOW - timedelta(days=3)))
    )
    assert decision.answer.destination == "acme_erin"
    assert isinstance(decision.answer, Offer)
    assert decision.answer.ring == timedelta(seconds=25)
    busy = decide(project(rules=(rule,)), CALL, replace(SNAPSHOT, last_talk=LastTalk(BOB.id, NOW)))
    assert busy.answer == Overflow("380440000000", OverflowOf.PROJECT, Cause.NOBODY_FREE)


# ---- deputies


def test_a_deputy_stands_in_for_a_preferred_agent_on_leave() -> None:
    on_leave = replace(BOB, away_until=LATER, deputy_id=ERIN.id)
    decision = decide(preferring(NAMED, on_leave), replace(CALL, params={"responsible": "Bob"}), SNAPSHOT)
    assert decision.answer.destination == "acme_erin"


def test_a_deputy_has_the_place_of_the_member_on_leave() -> None:
    on_leave = replace(BOB, away_until=LATER, deputy_id=ERIN.id)
    place = Member(BOB.id, tier=1, position=5, weight=3)
    told = project(group(SALES, Member(ALICE.id, tier=2), place), agents=(on_leave,))
    decision = decide(told, CALL, SNAPSHOT)
    assert decision.answer.destination == "acme_erin"
    assert decision.trials[0].candidates[0] == Candidate(ERIN.id, "acme_erin", None, (1, 5, "acme_erin"))
    back = replace(SNAPSHOT, now=LATER, presence=replace(SNAPSHOT.presence, speaking=frozenset()))
    assert decide(told, CALL, back).answer.destination == "acme_bob"


def test_leave_begins_at_its_first_moment_and_is_over_at_its_last() -> None:
    on_leave = replace(BOB, away_from=NOW, away_until=LATER, deputy_id=ERIN.id)
    for prefer in (None, Preference(param="who")):
        told = project(group(SALES, BOB), agents=(on_leave,), rules=(Rule(1, "all", (SALES,), prefer=prefer),))
        for at, login in (
            (NOW - SECOND, "acme_bob"),
            (NOW, "acme_erin"),
            (LATER - SECOND, "acme_erin"),
            (LATER, "acme_bob"),
        ):
            presence = replace(SNAPSHOT.presence, speaking=frozenset())
            call, then = replace(CALL, params={"who": "Bob"}), replace(SNAPSHOT, now=at, presence=presence)
            assert decide(told, call, then).answer.destination == login


def test_a_deputy_who_is_a_member_anyway_keeps_one_place() -> None:
    on_leave = replace(BOB, away_until=LATER, deputy_id=ALICE.id)
    decision = decide(project(group(SALES, BOB, ALICE), agents=(on_leave,)), CALL, SNAPSHOT)
    assert skips(decision) == {ALICE.id: None, BOB.id: SkipReason.OFF_DUTY}


def test_a_deputy_of_two_stands_in_for_the_first() -> None:
    agents = (replace(BOB, away_until=LATER, deputy_id=ERIN.id), replace(DAVE, away_until=LATER, deputy_id=ERIN.id))
    decision = decide(project(group(SALES, BOB, DAVE), agents=agents), CALL, SNAPSHOT)
    assert skips(decision) == {ERIN.id: None, DAVE.id: SkipReason.OFF_DUTY}


def test_a_deputy_on_leave_has_no_deputy() -> None:
    agents = (replace(BOB, away_until=LATER, deputy_id=CAROL.id), replace(CAROL, away_until=LATER, deputy_id=ERIN.id))
    decision = decide(project(group(SALES, BOB), agents=agents), CALL, replace(SNAPSHOT, agents={}))
    assert skips(decision) == {CAROL.id: SkipReason.OFF_DUTY}


@pytest.mark.parametrize("prefer", [None, Preference(param="who")])
def test_deputies_in_a_circle_who_are_all_away_are_passed_over_with_a_reason(prefer: Preference | None) -> None:
    away = [replace(agent, away_until=LATER) for agent in (BOB, DAVE, ERIN)]
    circle = [replace(one, deputy_id=other.id) for one, other in zip(away, [*away[1:], away[0]], strict=True)]
    told = project(group(SALES, *circle), agents=tuple(circle), rules=(Rule(1, "all", (SALES,), prefer=prefer),))
    decision = decide(told, replace(CALL, params={"who": "Bob"}), SNAPSHOT)
    assert decision.result == "overflow"
    assert all(c.skip is SkipReason.OFF_DUTY for trial in decision.trials for c in trial.candidates)


def test_nobody_returns_from_leave_to_a_streak() -> None:
    """The turns of `weighted` go on without who is stood in for, and without deputies who do not stand in."""
    on_leave = replace(BOB, away_until=LATER, deputy_id=ERIN.id)
    told = project(group(SALES, BOB, ALICE, strategy="weighted"), agents=(on_leave,))
    clocks = {
        BOB.id: MemberClock(1, 2**31),
        ERIN.id: MemberClock(2, 2**35),
        ALICE.id: MemberClock(3, 2**35),
        DAVE.id: MemberClock(4, 2**31),  # a former member
    }
    answer = decide(told, CALL, replace(SNAPSHOT, clocks={SALES: clocks})).answer
    assert isinstance(answer, Offer)
    assert {agent_id: clock.virtual_time for agent_id, clock in answer.turns} == {BOB.id: 0, DAVE.id: 0}
    back = replace(SNAPSHOT, now=LATER, clocks={SALES: clocks}, presence=Presence(SNAPSHOT.presence.online, age=SECOND))
    answer = decide(told, CALL, back).answer
    assert isinstance(answer, Offer)
    assert {agent_id: clock.virtual_time for agent_id, clock in answer.turns} == {DAVE.id: 0, ERIN.id: 0}


@pytest.mark.parametrize("is_excluded", [False, True])
@pytest.mark.parametrize(
    ("state", "tried", "is_present"),
    [
        (AgentState(reserved_until=LATER), "", True),
        (AgentState(wrap_up_until=LATER), "", True),
        (AgentState(cooling_until=LATER), "", True),
        (AgentState(), "acme_erin", True),
        (AgentState(paused_until=LATER), "", False),
        (AgentState(status=Status.ON_BREAK), "", False),
    ],
)
def test_who_is_busy_or_excluded_by_the_rule_is_present_and_keeps_the_turn(
    state: AgentState, tried: str, is_present: bool, is_excluded: bool
) -> None:
    clocks = {SALES: {ERIN.id: MemberClock(1, 2**31), ALICE.id: MemberClock(3, 2**33)}}
    told = project(
        group(SALES, ERIN, ALICE, strategy="weighted"),
        rules=(Rule(1, "everyone", (SALES,), never=(ERIN.id,) if is_excluded else ()),),
    )
    snapshot = replace(SNAPSHOT, agents={ERIN.id: state}, clocks=clocks, tried=frozenset({tried}))
    answer = decide(told, CALL, snapshot).answer
    assert isinstance(answer, Offer)
    marked = MemberClock(1, 2**31, None, 1, 1, left_at=int(NOW.timestamp()) * 1_000_000)
    left = {} if is_present else {ERIN.id: marked}
    assert dict(answer.turns) == left, "for a moment, until that is longer than a gap in presence"
    later = replace(snapshot, now=NOW + told.away, clocks={SALES: clocks[SALES] | left})
    answer = decide(told, CALL, later).answer
    assert isinstance(answer, Offer)
    assert {agent_id: clock.virtual_time for agent_id, clock in answer.turns} == ({} if is_present else {ERIN.id: 0})


def test_whose_leave_is_over_became_available_then() -> None:
    """As one does who is taken back from it by hand."""
    back = replace(ERIN, away_until=NOW - SECOND)
    told = project(group(SALES, ERIN, ALICE, strategy="longest_idle"), agents=(back,))
    agents = {ERIN.id: AgentState(idle_since=1), ALICE.id: AgentState(idle_since=2)}
    assert decide(told, CALL, replace(SNAPSHOT, agents=agents)).answer.destination == "acme_alice"
    by_then = replace(SNAPSHOT, agents=agents, laws=1)
    assert decide(told, CALL, by_then).answer.destination == "acme_erin", "as it was decided before this was the law"


# ---- by law

AGENTS = tuple(Agent(n, f"agent {n}", (f"login{n}", f"mobile{n}")[: 1 + n % 2]) for n in range(1, 6))
STATES = [
    AgentState(status, reserved_until=reserved, cooling_until=cooling)
    for status in (Status.AVAILABLE, Status.AVAILABLE, Status.ON_BREAK)
    for reserved in (None, NOW - SECOND, NOW + SECOND)
    for cooling in (None, None, NOW + SECOND)
]
ONLINE = frozenset(f"login{n}" for n in range(1, 6))
SOME_LOGINS = st.sampled_from([frozenset[str](), frozenset({"login1", "mobile3"}), frozenset({"login2", "login5"})])
PRESENCES = st.builds(
    Presence,
    online=st.sampled_from([ONLINE, ONLINE, frozenset({"mobile1", "login4"})]),
    speaking=SOME_LOGINS,
    age=st.sampled_from([SECOND, SECOND, SECOND, 30 * SECOND, timedelta(hours=1), None]),
)
CLOCKS = {n: MemberClock(7 - n, n * 2**30, n % 2 or None) for n in range(1, 6)}
SNAPSHOTS = st.builds(
    Snapshot,
    now=st.just(NOW),
    presence=PRESENCES,
    agents=st.dictionaries(st.integers(1, 5), st.sampled_from(STATES), max_size=3),
    clocks=st.sampled_from([{}, {1: CLOCKS}]),
    tried=SOME_LOGINS,
    last_talk=st.sampled_from([None, LastTalk(1, NOW - SECOND), LastTalk(9, NOW)]),
    seed=st.sampled_from(["a", "b"]),
)
TIERED = tuple(Member(n, tier=1 + n % 2, position=n % 3, weight=n) for n in range(1, 6))
PROJECTS = st.builds(
    lambda first, second, prefer, overflow, unknown: Project(
        1,
        "acme",
        1,
        overflow="last resort",
        agents={agent.id: agent for agent in AGENTS},
        groups={1: Group(1, "one", first, TIERED[:3]), 2: Group(2, "two", second, TIERED[2:], overflow=overflow)},
        rules=(
            Rule(1, "few", (2,), read_conditions({"free": {"group": 1, "fewer_than": 1}}), prefer),
            Rule(2, "all", (1, 2), prefer=prefer, overflow=overflow),
        ),
        when_unknown=unknown,
    ),
    st.sampled_from(sorted(STRATEGIES)),
    st.sampled_from(sorted(STRATEGIES)),
    st.sampled_from([None, LAST, NAMED]),
    st.sampled_from([None, "", "elsewhere"]),
    st.sampled_from(list(WhenUnknown)),
)


@given(PROJECTS, SNAPSHOTS, st.sampled_from([CALL, replace(CALL, params={"RESPONSIBLE": "agent 2"})]))
def test_some_answer_always_and_only_to_the_eligible(told: Project, snapshot: Snapshot, call: Call) -> None:
    decision = decide(told, call, snapshot)
    eligible = [candidate for trial in decision.trials for candidate in trial.candidates if candidate.skip is None]
    if isinstance(decision.answer, Offer):
        first = next(candidate for candidate in decision.trials[-1].candidates if candidate.skip is None)
        assert (decision.answer.agent_id, decision.answer.sip_login) == (first.agent_id, first.sip_login)
        assert decision.answer.sip_login in told.agents[first.agent_id].sip_logins
        assert eligible[0] == first, "who is free in an earlier group is not passed over"
        assert snapshot.tried.isdisjoint(told.agents[first.agent_id].sip_logins)
    else:
        assert eligible == [], "somebody free means no overflow"
        assert decision.answer.destination in {"", "elsewhere", "last resort"}
    for trial in decision.trials:
        considered = [candidate.agent_id for candidate in trial.candidates]
        assert len(considered) == len(set(considered)), "everybody once"
        keys = [candidate.key for candidate in trial.candidates if candidate.skip is None]
        assert keys == sorted(keys)
        if trial.group_id is not None:
            assert set(considered) == {each.agent_id for each in told.groups[trial.group_id].members}


@given(PROJECTS, SNAPSHOTS, st.sets(st.integers(1, 5)).map(tuple))
def test_a_rules_calls_are_never_offered_to_those_it_excludes(
    told: Project, snapshot: Snapshot, never: tuple[int, ...]
) -> None:
    without = replace(told, rules=tuple(replace(rule, never=never) for rule in told.rules))
    decision = decide(without, CALL, snapshot)
    assert not isinstance(decision.answer, Offer) or decision.answer.agent_id not in never
    for trial in decision.trials:
        for candidate in trial.candidates:
            assert (candidate.skip is SkipReason.EXCLUDED) == (candidate.agent_id in never)
    if not isinstance(told_alone := decide(told, CALL, snapshot).answer, Offer) or told_alone.agent_id not in never:
        assert decision.answer == told_alone, "who is not excluded keeps the place in the order"


@settings(max_examples=50)
@given(PROJECTS, SNAPSHOTS)
def test_equal_arguments_give_an_equal_decision(told: Project, snapshot: Snapshot) -> None:
    again = replace(told, groups={n: replace(each, members=each.members[::-1]) for n, each in told.groups.items()})
    one, other = decide(told, CALL, snapshot), decide(again, CALL, replace(snapshot))
    assert one.answer == other.answer
    assert decide(told, CALL, snapshot) == one
