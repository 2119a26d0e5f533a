"""Check across keys and normalise: references by name, owners of logins, the spelling of numbers and times.

Reads no file and no database. Works on one project at a time and reports every fault, not only the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from router.config_file.schema import (
    AgentConfig,
    Config,
    Fault,
    Path,
    ProjectConfig,
    ScheduleConfig,
    SchemaError,
    advise,
    instant,
    notes_of,
)
from router.core.patterns import PatternError
from router.core.schedule_words import ScheduleError, parse_schedule, render_exceptions, render_open
from router.presence.source import OnlineFrom

W = TypeVar("W", bound=Config)


def normalise(project: ProjectConfig) -> tuple[ProjectConfig, list[Fault]]:
    """Return the project with every value normalised, and the faults that involve more than one key.

    Numbers become international by the project's country, instants get their offset, hours their shortest form. A
    schedule without a time zone gets the project's. Members are sorted by tier. Items with the name "" could not be
    read and are skipped.
    """
    faults = _Faults()
    for kind in ("schedules", "agents", "groups", "rules"):
        names = [((kind, i, "name"), row.name) for i, row in enumerate(getattr(project, kind))]
        faults.names[kind] = faults.check_once(names, f"is the name of {kind}[{{}}] already", "rename one")
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
    normalised = normalise_times(_normalise(project, (), project.country, faults), faults)
    for i, agent in enumerate(project.agents):
        if agent.deputy and agent.deputy == agent.name:
            faults.refuse(("agents", i, "deputy"), "nobody stands in for oneself", "name another agent")
    for i, group in enumerate(project.groups):
        members = [(("groups", i, "members", j, "agent"), member.agent) for j, member in enumerate(group.members)]
        faults.check_once(members, "is a member already", "name each agent once")
    for i, rule in enumerate(project.rules):
        chain = [(("rules", i, "groups", j), name) for j, name in enumerate(rule.groups)]
        faults.check_once(chain, "is in this rule already", "name each group once")
    groups = (
        group.model_copy(update={"members": tuple(sorted(group.members, key=lambda member: member.tier))})
        for group in normalised.groups
    )
    return normalised.model_copy(update={"groups": tuple(groups)}), list(faults)


def _normalise(config: W, path: Path, country: str, faults: _Faults) -> W:
    """Return a mapping of the file with its texts in their one notation, and its references checked."""
    found: dict[str, Any] = {}
    for key, field in type(config).model_fields.items():
        place, value = (*path, key), getattr(config, key)
        notes = notes_of(field)
        if notes.reads:
            found[key] = faults.attempt_all(place, notes.reads, value, country)
        elif notes.refers:
            faults.check_references(place, notes.refers, value)
        elif isinstance(value, Config):
            found[key] = _normalise(value, place, country, faults)
        elif isinstance(value, tuple) and value and isinstance(value[0], Config):
            found[key] = tuple(_normalise(row, (*place, i), country, faults) for i, row in enumerate(value))
    return config.model_copy(update=found) if found else config


def token_needed(online_from: str | None) -> tuple[str, str]:
    """Return the fault and the remedy for a missing token of the Smart Phone extension."""
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

    def check_references(self, path: Path, what: str, names: str | tuple[str, ...] | None) -> None:
        if isinstance(names, tuple):
            for i, name in enumerate(names):
                self.check_references((*path, i), what, name)
        elif names and names not in (known := self.names[f"{what}s"]):
            otherwise = f"there are: {', '.join(known)}" if 0 < len(known) <= 12 else f"add it under {what}s"
            self.refuse(path, f"there is no {what} {names!r}", advise(names, known, otherwise))

    def check_once(self, names: Sequence[tuple[Path, str]], message: str, remedy: str) -> list[str]:
        """Return the names, each once. Note those that occur again; {} in the message is the first one's place."""
        first: dict[str, Path] = {}
        for path, name in names:
            if name and first.setdefault(name, path) != path:
                self.refuse(path, f"{name!r} {message.format(first[name][1])}", remedy)
        return list(first)

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

    def attempt_all(self, path: Path, read: Callable[..., str], value: Any, *arguments: str) -> Any:
        """Return a text, the texts of a list, or those of the lists of a mapping, normalised by `read`."""
        match value:
            case str():
                return self.attempt(path, read, value, *arguments)
            case tuple():
                texts = (self.attempt((*path, i), read, text, *arguments) for i, text in enumerate(value))
                return tuple(dict.fromkeys(texts))  # two notations of one number count once
            case dict():
                folded, found = Counter(map(str.casefold, value)), {}
                for name, texts in value.items():
                    if folded[name.casefold()] > 1:
                        self.refuse((*path, name), "this parameter occurs twice, apart from case", "join the two")
                    found[name] = self.attempt_all((*path, name), read, texts, *arguments)
                return found
        return value

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


def _normalise_schedule(faults: _Faults, path: Path, row: ScheduleConfig, project_zone: str) -> ScheduleConfig:
    zone = row.time_zone or project_zone
    normalised: dict[str, Any] = {"time_zone": zone}
    count = len(faults)
    for key, entries in (("open", row.open), ("exceptions", row.exceptions)):
        # First each entry by itself, so that every fault is reported; then all together, for conflicts.
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
