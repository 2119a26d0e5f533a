"""Warns of what a configuration allows but its owner will likely regret: rules that can never match, empty groups.

Pure: it looks at the rules' own view of a project, so files, forms and stored versions get the same warnings. A warning
never forbids anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from router.core.model import Agent, Call, Project
from router.core.rules import PARAM_TESTS, UNSET, Conditions, NumberTest, ParamTest, Rule, RuleIndex
from router.core.schedule import Schedule, lost_minutes, never_open


class Wording(NamedTuple):
    """The text of a kind of warning. `{by}` stands for the names of what causes it."""

    message: str
    remedy: str


WORDINGS: Mapping[str, Wording] = {
    "no_overflow": Wording(
        "has no overflow: a call that nobody can take is answered empty",
        "name a number, SIP login or scheme id that always answers",
    ),
    "no_rules": Wording("has no rule that is enabled: every call goes to the overflow", "add a rule"),
    "shadowed": Wording(
        "can never match: {by} above it takes every call that it would match",
        "move it up, narrow what stands above it, or remove it",
    ),
    "shadowed_by_two": Wording(
        "can never match: {by} above it together take every call that it would match, in hours and out of hours",
        "move it up, narrow what stands above it, or remove it",
    ),
    "excludes_itself": Wording(
        "can never match: not_{by} excludes all that {by} allows", "take values out of one of the two"
    ),
    "in_and_out": Wording(
        "can never match: it asks {by} to be open and closed at once", "leave out schedule or outside"
    ),
    "never_in_hours": Wording(
        "can never match: its schedule {by} is never open", "give the schedule hours, or use another"
    ),
    "never_open": Wording("is never open", "give it hours, or an exception that has some"),
    "loses_minute": Wording(
        "leaves one minute closed with {by}: the end of hours is not open any more",
        "write 24:00 for the end of the day, and 18:00 rather than 17:59",
    ),
    "unused_schedule": Wording("is used by no rule, agent or member", "use it, or remove it"),
    "no_members": Wording("has no members: nobody can take its calls", "add members"),
    "unused_group": Wording("is used by no rule: it gets no calls", "name it in a rule, or remove it"),
    "no_logins": Wording("has no SIP login: no call can be offered", "add the login that rings this agent's phone"),
    "deputies_in_a_circle": Wording(
        "has deputies in a circle, {by}: while all of them are away nobody stands in",
        "give one of them a deputy outside the circle, or none",
    ),
    "no_group": Wording("is in no group: no call is offered", "add the agent to a group, or remove the agent"),
}


MOST_NAMED = 5  # of a circle of deputies


@dataclass(frozen=True, slots=True)
class ConfigWarning:
    """`kind` is a key of WORDINGS. `subject` is project, schedule, agent, group or rule, with its id and name.

    `by` names what causes it: rules, a schedule, a kind of condition.
    """

    kind: str
    subject: str
    subject_id: int
    name: str
    by: str = ""

    @property
    def message(self) -> str:
        return WORDINGS[self.kind].message.format(by=self.by)

    @property
    def remedy(self) -> str:
        return WORDINGS[self.kind].remedy


def warnings_of(project: Project, schedules: Iterable[Schedule]) -> list[ConfigWarning]:
    """Return all warnings: of the project, its rules in order, groups, agents and schedules.

    `schedules`: all that the project has, used or not.
    """
    return [
        *_of_project(project),
        *_of_rules(project),
        *_of_groups(project),
        *warnings_of_agents(project),
        *_of_schedules(project, schedules),
    ]


def _of_project(project: Project) -> Iterator[ConfigWarning]:
    if not project.overflow:
        yield ConfigWarning("no_overflow", "project", project.id, project.name)
    if not any(rule.enabled for rule in project.rules):
        yield ConfigWarning("no_rules", "project", project.id, project.name)


def _of_rules(project: Project) -> Iterator[ConfigWarning]:
    for rule in project.rules:
        if rule.enabled and (found := _never_matches(rule, project.index)):
            kind, by = found
            yield ConfigWarning(kind, "rule", rule.id, rule.name, by)


def _of_groups(project: Project) -> Iterator[ConfigWarning]:
    used = {group_id for rule in project.rules for group_id in (*rule.group_ids, rule.conditions.free_group_id)}
    for group in project.groups.values():
        if not group.members:
            yield ConfigWarning("no_members", "group", group.id, group.name)
        if group.id not in used:
            yield ConfigWarning("unused_group", "group", group.id, group.name)


def warnings_of_agents(project: Project) -> Iterator[ConfigWarning]:
    """Yield the warnings about agents alone."""
    reached = {member.agent_id for group in project.groups.values() for member in group.members}
    reached |= {agent.deputy_id for agent in project.agents.values() if agent.deputy_id is not None}
    anybody = any(rule.prefer is not None and rule.prefer.param for rule in project.rules)  # a parameter may name them
    for agent in project.agents.values():
        if not agent.sip_logins:
            yield ConfigWarning("no_logins", "agent", agent.id, agent.name)
        if agent.id not in reached and not anybody:
            yield ConfigWarning("no_group", "agent", agent.id, agent.name)
    for circle in _circles(project.agents):
        for place, agent in enumerate(circle):
            others = [*circle[place + 1 :], *circle[:place]][:MOST_NAMED] or circle
            names = " and ".join(repr(other.name) for other in others)
            yield ConfigWarning("deputies_in_a_circle", "agent", agent.id, agent.name, names)


def _circles(agents: Mapping[int, Agent]) -> Iterator[list[Agent]]:
    """Yield the agents of each circle, in which each one's deputy is the next."""
    seen: set[int] = set()
    for start in agents.values():
        chain: list[Agent] = []
        agent: Agent | None = start
        while agent is not None and agent.id not in seen:
            seen.add(agent.id)
            chain.append(agent)
            agent = agents.get(agent.deputy_id or 0)
        if agent in chain:
            yield chain[chain.index(agent) :]


def _of_schedules(project: Project, schedules: Iterable[Schedule]) -> Iterator[ConfigWarning]:
    conditions = [rule.conditions for rule in project.rules]
    members = [member for group in project.groups.values() for member in group.members]
    uses = [when.inside for when in conditions] + [when.outside for when in conditions]
    uses += [agent.hours for agent in project.agents.values()] + [member.hours for member in members]
    used = {schedule.id for schedule in uses if schedule is not None}
    for schedule in schedules:
        if never_open(schedule):
            yield ConfigWarning("never_open", "schedule", schedule.id, schedule.name)
        if lost := dict.fromkeys(str(minute.span) for minute in lost_minutes(schedule)):
            by = " and ".join(map(repr, lost))
            yield ConfigWarning("loses_minute", "schedule", schedule.id, schedule.name, by)
        if schedule.id not in used:
            yield ConfigWarning("unused_schedule", "schedule", schedule.id, schedule.name)


# ---- rules that can never match


def _never_matches(rule: Rule, index: RuleIndex) -> tuple[str, str] | None:
    """Return the kind of warning and what causes it, None when the rule may match.

    A rule named here truly cannot match, but not every such rule is found.
    """
    when = rule.conditions
    for kind, wanted, unwanted in (("caller", when.caller, when.not_caller), ("dialed", when.dialed, when.not_dialed)):
        if wanted is not None and unwanted is not None and _numbers_cover(unwanted, wanted):
            return "excludes_itself", kind
    for name, wanted_tests in when.params.items():
        if name in when.not_params and _params_cover(when.not_params[name], wanted_tests):
            return "excludes_itself", f"params.{name}"
    if when.inside is not None and when.outside is not None and when.inside.id == when.outside.id:
        return "in_and_out", repr(when.inside.name)
    if when.inside is not None and never_open(when.inside):
        return "never_in_hours", repr(when.inside.name)
    return _shadowed(rule, index)


def _shadowed(rule: Rule, index: RuleIndex) -> tuple[str, str] | None:
    inside: dict[int, Rule] = {}  # by schedule: a rule above that takes all these calls while it is open
    outside: dict[int, Rule] = {}
    # Whatever covers this rule matches each call that the rule allows, so it is among the candidates for one of them.
    for above in index.candidates(_a_call(rule.conditions)):
        if above.id == rule.id:
            return None
        if not _covers_but_hours(above.conditions, rule.conditions):
            continue
        opens, closes = above.conditions.inside, above.conditions.outside
        if _hours_cover(above.conditions, rule.conditions):
            return "shadowed", repr(above.name)
        if opens is not None and closes is None:
            inside[opens.id] = above
        elif closes is not None and opens is None:
            outside[closes.id] = above
        for schedule_id in inside.keys() & outside.keys():
            pair = sorted((inside[schedule_id].name, outside[schedule_id].name))
            return "shadowed_by_two", " and ".join(map(repr, pair))
    return None


def _a_call(when: Conditions) -> Call:
    """Return a call with a caller, a dialed number and parameters that these conditions allow, ignoring exclusions."""
    return Call(
        caller=_a_number(when.caller),
        dialed=_a_number(when.dialed),
        params={name: tests[0].value for name, tests in when.params.items() if tests},
    )


def _a_number(test: NumberTest | None) -> str:
    if test is None:
        return ""
    return next(iter((*test.exact, *test.prefixes, *(r.first for r in test.ranges))), "")


def _covers_but_hours(above: Conditions, below: Conditions) -> bool:
    """Return whether `above` surely allows every call that `below` allows, ignoring the hours."""
    return (
        _number_test_covers(above.caller, below.caller)
        and _number_test_covers(above.dialed, below.dialed)
        and _excludes_no_more(above.not_caller, below.not_caller)
        and _excludes_no_more(above.not_dialed, below.not_dialed)
        and all(_params_cover(tests, below.params.get(name)) for name, tests in above.params.items())
        and all(name in below.not_params and _params_cover(below.not_params[name], tests)
                for name, tests in above.not_params.items())
        and (not above.direction or (bool(below.direction) and below.direction <= above.direction))
        and (above.free_group_id is None
             or (above.free_group_id == below.free_group_id and below.free_fewer_than <= above.free_fewer_than))
    )  # fmt: skip


def _hours_cover(above: Conditions, below: Conditions) -> bool:
    return all(
        mine is None or (yours is not None and mine.id == yours.id)
        for mine, yours in ((above.inside, below.inside), (above.outside, below.outside))
    )


def _number_test_covers(above: NumberTest | None, below: NumberTest | None) -> bool:
    return above is None or (below is not None and _numbers_cover(above, below))


def _excludes_no_more(above: NumberTest | None, below: NumberTest | None) -> bool:
    return above is None or (below is not None and _numbers_cover(below, above))


def _numbers_cover(wide: NumberTest, narrow: NumberTest) -> bool:
    """Return whether `wide` matches every number that `narrow` matches."""
    return (
        (wide.anonymous or not narrow.anonymous)
        and all(wide.matches(number) for number in narrow.exact)
        and all(prefix.startswith(wide.prefixes) for prefix in narrow.prefixes)
        and all(
            # Of one length, so what begins both ends begins all between them.
            any(span.first.startswith(prefix) and span.last.startswith(prefix) for prefix in wide.prefixes)
            or any(
                len(other.first) == len(span.first) and other.first <= span.first and span.last <= other.last
                for other in wide.ranges
            )
            for span in narrow.ranges
        )
    )


def _params_cover(wide: Iterable[ParamTest], narrow: Iterable[ParamTest] | None) -> bool:
    """Return whether one of `wide` surely passes whenever one of `narrow` does."""
    tests = tuple(wide)
    return narrow is not None and all(any(_test_covers(one, other) for one in tests) for other in narrow)


def _test_covers(wide: ParamTest, narrow: ParamTest) -> bool:
    """Return whether each value that passes `narrow`, and so holds its text, passes `wide`."""
    if narrow.kind == "present":
        return wide.kind == "present"
    if wide.kind == "present":
        return not any(PARAM_TESTS[narrow.kind](unset, narrow.value) for unset in UNSET)
    is_sure = {"equals": {"equals", "prefix", "contains"}, "prefix": {"prefix", "contains"}, "contains": {"contains"}}
    return wide.kind in is_sure[narrow.kind] and PARAM_TESTS[wide.kind](narrow.value, wide.value)
