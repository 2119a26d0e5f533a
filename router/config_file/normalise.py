"""Check across keys and normalise: references by name, owners of logins, the spelling of numbers and times.

Reads no file and no database. Works on one project at a time and reports every fault, not only the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from router.config_file.schema import (
    AgentConfig,
    Fault,
    GroupConfig,
    Path,
    ProjectConfig,
    RuleConfig,
    ScheduleConfig,
    SchemaError,
    advise,
    check_direction,
    destination,
    instant,
    number_pattern,
    param_test,
)
from router.core.patterns import PatternError
from router.core.schedule_words import ScheduleError, parse_schedule, render_exceptions, render_open
from router.presence.source import OnlineFrom


def normalise(project: ProjectConfig) -> tuple[ProjectConfig, list[Fault]]:
    """Return the project with every value normalised, and the faults that no single key shows.

    Numbers are made international by the project's country, instants get their offset, hours their shortest form; a
    schedule without time zone gets the project's; members are sorted by tier. A name of "" stands for an item that
    could not be read: it is skipped.
    """
    faults = _Faults()
    for kind in ("schedules", "agents", "groups", "rules"):
        faults.check_names(kind, getattr(project, kind))
    faults.check_owners(project.agents)
    presence = project.presence
    if presence.online_from not in (None, OnlineFrom.SIP) and not presence.project_id:
        faults.refuse(
            ("presence", "online_from"),
            f"{presence.online_from} needs the project's id on the platform",
            "add project_id, and token",
        )
    elif presence.online_from not in (None, OnlineFrom.SIP) and presence.token is not None and not len(presence.token):
        faults.refuse(("presence", "online_from"), *token_needed(presence.online_from))
    for i, agent in enumerate(project.agents):
        _check_agent(faults, ("agents", i), agent)
    normalised = normalise_times(project, faults).model_copy(
        update={
            "overflow": faults.attempt(("overflow",), destination, project.overflow, project.country),
            "groups": tuple(
                _normalise_group(faults, ("groups", i), row, project.country) for i, row in enumerate(project.groups)
            ),
            "rules": tuple(
                _normalise_rule(faults, ("rules", i), row, project.country) for i, row in enumerate(project.rules)
            ),
        }
    )
    return normalised, list(faults)


def token_needed(online_from: str | None) -> tuple[str, str]:
    """Return the fault and the remedy where the token of the Smart Phone extension is missing."""
    return f"{online_from} needs the token of the Smart Phone extension", "add token, or write online_from: sip"


def normalise_times(project: ProjectConfig, faults: _Faults | None = None) -> ProjectConfig:
    """Return the project with its schedules and instants normalised."""
    faults = _Faults() if faults is None else faults
    agents = []
    for i, agent in enumerate(project.agents):
        until = agent.away_until and faults.attempt(
            ("agents", i, "away_until"), instant, agent.away_until, project.time_zone
        )
        agents.append(agent.model_copy(update={"away_until": until or None}))
    schedules = (
        _normalise_schedule(faults, ("schedules", i), row, project.time_zone) for i, row in enumerate(project.schedules)
    )
    return project.model_copy(update={"agents": tuple(agents), "schedules": tuple(schedules)})


class _Faults(list[Fault]):
    """The faults found so far in one project. `names`: those that may be referred to, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}

    def check_reference(self, path: Path, what: str, name: str | None) -> None:
        known = self.names[f"{what}s"]
        if name and name not in known:
            otherwise = f"there are: {', '.join(known)}" if 0 < len(known) <= 12 else f"add it under {what}s"
            self.refuse(path, f"there is no {what} {name!r}", advise(name, known, otherwise))

    def refuse(self, path: Path, message: str, remedy: str) -> None:
        self.append(Fault(path, message, remedy))

    def attempt(self, path: Path, read: Callable[..., str], text: str, *arguments: str) -> str:
        """Return the text normalised by `read`; note the fault and return it unchanged when that fails."""
        try:
            return read(text, *arguments)
        except SchemaError as error:
            self.refuse(path, error.message, error.remedy)
        except PatternError as error:
            self.refuse(path, f"{error.value!r} {error.message}", error.remedy)
        return text

    def attempt_all(self, path: Path, read: Callable[..., str], texts: Iterable[str], *arguments: str) -> list[str]:
        found = [self.attempt((*path, i), read, text, *arguments) for i, text in enumerate(texts)]
        return list(dict.fromkeys(found))  # two notations of one number count once

    def check_names(self, kind: str, rows: Sequence[ScheduleConfig | AgentConfig | GroupConfig | RuleConfig]) -> None:
        first: dict[str, int] = {}
        for i, row in enumerate(rows):
            if row.name and first.setdefault(row.name, i) != i:
                earlier = f"{kind}[{first[row.name]}]"
                self.refuse((kind, i, "name"), f"{row.name!r} is the name of {earlier} already", "rename one")
        self.names[kind] = list(first)

    def check_owners(self, agents: Sequence[AgentConfig]) -> None:
        owners: dict[str, tuple[int, int]] = {}
        for i, agent in enumerate(agents):
            for j, login in enumerate(agent.sip_logins):
                owner, place = owners.setdefault(login, (i, j))
                if owner != i:
                    self.refuse(
                        ("agents", i, "sip_logins", j),
                        f"{login!r} belongs to {agents[owner].name!r} already",
                        "a login has one owner: remove it from one of the two",
                    )
                elif place != j:
                    self.refuse(("agents", i, "sip_logins", j), f"{login!r} is listed twice", "remove one of the two")


def _check_agent(faults: _Faults, path: Path, row: AgentConfig) -> None:
    faults.check_reference((*path, "hours"), "schedule", row.hours)
    faults.check_reference((*path, "deputy"), "agent", row.deputy)
    if row.deputy and row.deputy == row.name:
        faults.refuse((*path, "deputy"), "nobody stands in for oneself", "name another agent")


def _normalise_group(faults: _Faults, path: Path, row: GroupConfig, country: str) -> GroupConfig:
    seen: set[str] = set()
    for j, member in enumerate(row.members):
        place = (*path, "members", j)
        faults.check_reference((*place, "agent"), "agent", member.agent)
        faults.check_reference((*place, "hours"), "schedule", member.hours)
        if member.agent and member.agent in seen:
            faults.refuse((*place, "agent"), f"{member.agent!r} is a member already", "name each agent once")
        seen.add(member.agent)
    return row.model_copy(
        update={
            "overflow": _overflow(faults, (*path, "overflow"), row.overflow, country),
            "members": tuple(sorted(row.members, key=lambda member: member.tier)),
        }
    )


def _normalise_rule(faults: _Faults, path: Path, row: RuleConfig, country: str) -> RuleConfig:
    when, place = row.when, (*path, "when")
    for j, name in enumerate(row.groups):
        faults.check_reference((*path, "groups", j), "group", name)
        if name in row.groups[:j]:
            faults.refuse((*path, "groups", j), f"{name!r} is in this rule already", "name each group once")
    faults.check_reference((*place, "schedule"), "schedule", when.schedule)
    faults.check_reference((*place, "outside"), "schedule", when.outside)
    if when.free is not None:
        faults.check_reference((*place, "free", "group"), "group", when.free.group)
    normalised: dict[str, Any] = {
        kind: tuple(faults.attempt_all((*place, kind), number_pattern, getattr(when, kind), country))
        for kind in ("caller", "not_caller", "dialed", "not_dialed")
    }
    normalised["direction"] = tuple(faults.attempt_all((*place, "direction"), check_direction, when.direction))
    for kind in ("params", "not_params"):
        normalised[kind] = _normalise_params(faults, (*place, kind), getattr(when, kind))
    return row.model_copy(
        update={
            "when": when.model_copy(update=normalised),
            "overflow": _overflow(faults, (*path, "overflow"), row.overflow, country),
        }
    )


def _normalise_params(
    faults: _Faults, path: Path, tests: Mapping[str, tuple[str, ...]]
) -> Mapping[str, tuple[str, ...]]:
    folded = Counter(name.casefold() for name in tests)
    normalised = {}
    for name, values in tests.items():
        if folded[name.casefold()] > 1:
            faults.refuse((*path, name), "this parameter occurs twice, apart from case", "join the two")
        normalised[name] = tuple(faults.attempt_all((*path, name), _param_value, values))
    return normalised


def _param_value(text: str) -> str:
    param_test(text)
    return text


def _overflow(faults: _Faults, path: Path, text: str | None, country: str) -> str | None:
    return None if text is None else faults.attempt(path, destination, text, country)


def _normalise_schedule(faults: _Faults, path: Path, row: ScheduleConfig, project_zone: str) -> ScheduleConfig:
    zone = row.time_zone or project_zone
    normalised: dict[str, Any] = {"time_zone": zone}
    count = len(faults)
    for key, entries in (("open", row.open), ("exceptions", row.exceptions)):
        # Each entry alone, so that every fault is reported; then all together, for conflicts between them.
        for name, hours in entries.items():
            _parse_part(faults, (*path, key, name), {key: {name: hours}})
        if len(faults) == count:
            _parse_part(faults, (*path, key), {key: entries})
    override = {"time_zone": zone, "override": row.override, "override_until": row.override_until}
    _parse_part(faults, (*path, "override_until"), override)
    if len(faults) == count:
        schedule = parse_schedule(row.name, zone, row.open, row.exceptions, row.override or "", row.override_until)
        until = None if schedule.override is None else schedule.override.until
        normalised |= {
            "open": render_open(schedule),
            "exceptions": render_exceptions(schedule),
            "override_until": None if until is None else until.astimezone(ZoneInfo(zone)).isoformat(),
        }
    return row.model_copy(update=normalised)


def _parse_part(faults: _Faults, path: Path, part: Mapping[str, Any]) -> None:
    try:
        parse_schedule("", **{"time_zone": "UTC", **part})
    except ScheduleError as error:
        # The place "open.mon-fri[1]" is a key, a name in it and a position.
        name, _, position = error.place.partition(".")[2].removesuffix("]").partition("[")
        path = path if name in ("", path[-1]) else (*path, name)
        faults.refuse((*path, int(position)) if position else path, error.message, error.remedy)
