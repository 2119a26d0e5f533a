"""Warns of what a configuration allows but its owner will likely regret: rules that can never match, empty groups.

Pure: it looks at the rules' own view of a project, so files, forms and stored versions get the same warnings. A warning
never forbids anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from router.core.conditions import Condition, Hours
from router.core.model import Agent, Call, Project
from router.core.rules import Rule, RuleIndex, counted_groups, hours_of
from router.core.schedule import Schedule, lost_minutes, never_open
from router.core.words import N_


class Wording(NamedTuple):
    """What a kind of warning says of its subject, and what to do. %(by)s stands for the names of what causes it."""

    message: str
    remedy: str


_MOVE = N_("move it up, narrow what stands above it, or remove it")

WORDINGS: Mapping[str, Wording] = {
    "no_overflow": Wording(
        N_("has no overflow: a call that nobody can take is answered empty"),
        N_("name a number, SIP login or scheme id that always answers"),
    ),
    "no_rules": Wording(N_("has no rule that is enabled: every call goes to the overflow"), N_("add a rule")),
    "shadowed": Wording(N_("can never match: %(by)s above it takes every call that it would match"), _MOVE),
    "shadowed_by_two": Wording(
        N_("can never match: %(by)s above it together take every call that it would match, in hours and out of hours"),
        _MOVE,
    ),
    "excludes_itself": Wording(
        N_("can never match: what it excludes of %(by)s is all that it allows"),
        N_("take values out of one of the two"),
    ),
    "in_and_out": Wording(
        N_("can never match: it asks %(by)s to be open and closed at once"), N_("take one of the two out")
    ),
    "never_in_hours": Wording(
        N_("can never match: its schedule %(by)s is never open"), N_("give the schedule hours, or use another")
    ),
    "never_open": Wording(N_("is never open"), N_("give it hours, or an exception that has some")),
    "loses_minute": Wording(
        N_("leaves one minute closed with %(by)s: the end of hours is not open any more"),
        N_("write 24:00 for the end of the day, and 18:00 rather than 17:59"),
    ),
    "unused_schedule": Wording(N_("is used by no rule, agent or member"), N_("use it, or remove it")),
    "no_members": Wording(N_("has no members: nobody can take its calls"), N_("add members")),
    "unused_group": Wording(N_("is used by no rule"), N_("use it in a rule, or remove it")),
    "no_logins": Wording(
        N_("has no SIP login: no call can be offered"), N_("add the login that rings this agent's phone")
    ),
    "deputies_in_a_circle": Wording(
        N_("has deputies in a circle, %(by)s: while all of them are away nobody stands in"),
        N_("give one of them a deputy outside the circle, or none"),
    ),
    "no_group": Wording(N_("is in no group: no call is offered"), N_("add the agent to a group, or remove the agent")),
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
    by: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        return WORDINGS[self.kind].message % {"by": " and ".join(map(repr, self.by))}

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
    used = {group_id for rule in project.rules for group_id in (*rule.group_ids, *counted_groups(rule))}
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
            names = tuple(other.name for other in others)
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
    members = [member for group in project.groups.values() for member in group.members]
    uses: list[Schedule | None] = [hours.value for rule in project.rules for hours in hours_of(rule)]
    uses += [agent.hours for agent in project.agents.values()] + [member.hours for member in members]
    used = {schedule.id for schedule in uses if schedule is not None}
    for schedule in schedules:
        if never_open(schedule):
            yield ConfigWarning("never_open", "schedule", schedule.id, schedule.name)
        if lost := dict.fromkeys(str(minute.span) for minute in lost_minutes(schedule)):
            yield ConfigWarning("loses_minute", "schedule", schedule.id, schedule.name, tuple(lost))
        if schedule.id not in used:
            yield ConfigWarning("unused_schedule", "schedule", schedule.id, schedule.name)


# ---- rules that can never match


def _never_matches(rule: Rule, index: RuleIndex) -> tuple[str, tuple[str, ...]] | None:
    """Return the kind of warning and what causes it, None when the rule may match.

    A rule named here truly cannot match, but not every such rule is found.
    """
    for excluded in (one for one in rule.conditions if not one.wanted):
        for wanted in (one for one in rule.conditions if one.wanted and _covers(excluded, one)):
            return (
                ("in_and_out", (wanted.value.name,))
                if isinstance(wanted, Hours)
                else ("excludes_itself", (wanted.key,))
            )
    for hours in hours_of(rule):
        if hours.wanted and never_open(hours.value):
            return "never_in_hours", (hours.value.name,)
    return _shadowed(rule, index)


def _shadowed(rule: Rule, index: RuleIndex) -> tuple[str, tuple[str, ...]] | None:
    halves: dict[tuple[int, bool], Rule] = {}  # by schedule, open or closed: a rule above that takes all these calls
    # Whatever covers this rule matches each call that the rule allows, so it is among the candidates for one of them.
    texts = {one.key: starts[0] for one in rule.conditions if one.wanted and (starts := one.starts())}
    params = {name: text for key, text in texts.items() if (name := key.partition("params.")[2])}
    for above in index.candidates(Call(caller=texts.get("caller", ""), dialed=texts.get("dialed", ""), params=params)):
        if above.id == rule.id:
            return None
        lacking = [one for one in above.conditions if not any(_follows(one, other) for other in rule.conditions)]
        if not lacking:
            return "shadowed", (above.name,)
        if len(lacking) == 1 and isinstance(hours := lacking[0], Hours):
            halves[hours.value.id, hours.wanted] = above
            if other := halves.get((hours.value.id, not hours.wanted)):
                return "shadowed_by_two", tuple(sorted((above.name, other.name)))
    return None


def _follows(one: Condition[Any], other: Condition[Any]) -> bool:
    """Return whether the one surely holds for each call for which the other does."""
    return one.wanted is other.wanted and (_covers(one, other) if one.wanted else _covers(other, one))


def _covers(wide: Condition[Any], narrow: Condition[Any]) -> bool:
    return isinstance(narrow, type(wide)) and wide.covers(narrow)
