"""Check and normalise a configuration: each value by its schema, then across keys.

References by name, owners of logins, the spelling of numbers and times. Reads no file and no database. Reports every
fault, not only the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from router.configuration.document import ITEMS, config_from, ids_of, item_of, plain, project_of
from router.configuration.schema import (
    AgentConfig,
    Config,
    ExpectConfig,
    Fault,
    Path,
    ProjectConfig,
    ScheduleConfig,
    SchemaError,
    advise,
    bounds,
    instant,
    notes_of,
    part_of,
    takes,
    too_many,
)
from router.core.schedule_words import ScheduleError, parse_schedule, render_exceptions, render_names, render_open
from router.core.words import WordedError
from router.db.documents import KINDS, Document
from router.presence.source import OnlineFrom

W = TypeVar("W", bound=Config)
Place = tuple[str, int]
"""The kind of a row and its position in its list."""


class Refuse(Protocol):
    """Notes a fault."""

    def __call__(self, path: Path, message: str, remedy: str, kind: str = "", **values: Any) -> None: ...


# ---- one mapping


def _shown(value: object) -> str:
    match value:
        case str() as text:
            return repr(text[:80])
        case list() | tuple():
            return "a list" if value else "an empty list"
        case Mapping():
            return "a mapping"
    return "nothing"


def read(model: type[W], value: object, path: Path, refuse: Refuse) -> W:
    """Return the model of a mapping of the file. Unreadable values are refused and left out; the rest is checked."""
    if not isinstance(value, dict):
        refuse(path, f"found {_shown(value)}", f"write a mapping of {', '.join(model.model_fields)}", "of_wrong_kind")
        return _blank(model)
    found: dict[str, Any] = {}
    for key, given in value.items():
        if given is None and key in model.model_fields:
            continue  # a key without value counts as left out
        part, is_list = part_of(model, key)
        place = (*path, key)
        excess = too_many(model, key, given) if key in model.model_fields else None
        if excess is not None:  # not each entry is checked: that would take long
            refuse((*place, *excess.path), excess.message, excess.remedy, excess.kind, **excess.values)
        elif part is None:
            found[key] = given
        elif not is_list:
            found[key] = read(part, given, place, refuse)
        elif isinstance(given, list):
            found[key] = tuple(read(part, item, (*place, i), refuse) for i, item in enumerate(given))
        else:
            refuse(place, f"found {_shown(given)}", f"write {takes(model.model_fields[key])}", "of_wrong_kind")
    try:
        return model.model_validate(found)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    for fault in faults:
        _report(fault, model, path, refuse)
    bad = {fault["loc"][0] for fault in faults}
    try:
        return model.model_validate({key: given for key, given in found.items() if key not in bad})
    except ValidationError:
        return _blank(model)


def _blank(model: type[W]) -> W:
    """Return a model with empty names, in place of an item that cannot be read."""
    names: dict[str, Any] = {key: "" for key, field_ in model.model_fields.items() if field_.is_required()}
    return cast("W", model.model_construct(**names))


def _report(fault: ErrorDetails, model: type[Config], path: Path, refuse: Refuse) -> None:
    place: Path = (*path, *(part for part in fault["loc"] if part != "[key]"))
    key = str(fault["loc"][0])
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, SchemaError | WordedError):
        refuse(place, cause.message, cause.remedy, cause.kind, **cause.values)
    elif fault["type"] == "extra_forbidden":
        keys = [*model.model_fields]
        remedy = advise(key, keys, f"the keys are {', '.join(keys)}")
        refuse(place, f"there is no key {key!r}", remedy, "unknown_key", name=key)
    elif fault["type"] == "missing":
        refuse(place, "is missing", f"write {takes(model.model_fields[key])}", "missing")
    else:
        limits = bounds(model, key)
        kind = "limits" if limits else "of_wrong_kind"
        refuse(place, f"found {_shown(fault['input'])}", f"write {takes(model.model_fields[key])}", kind, **limits)


# ---- some rows of a document


def check_document(
    document: Document, changed: Collection[Place], *, is_project_changed: bool
) -> tuple[Document, list[Fault]]:
    """Return the document with these rows checked and normalised as if they stood in a file, and all their faults.

    Faults of other rows are not reported, so that several can be corrected one by one.
    """
    config, faults = config_from(document), Faults()
    lists = {kind: list(getattr(config, kind)) for kind in KINDS}
    for kind, place in changed:
        lists[kind][place] = read(ITEMS[kind], plain(lists[kind][place], config), (kind, place), faults.refuse)
    if is_project_changed:
        bare = config.model_copy(update=dict.fromkeys(KINDS, ()))
        config = read(ProjectConfig, plain(bare, config), (), faults.refuse)
    config = config.model_copy(update={kind: tuple(rows) for kind, rows in lists.items()})
    normalised, more = normalise(config, set(changed))
    for fault in more:
        if fault.path[:2] in changed or (is_project_changed and fault.path[0] not in KINDS):
            faults.append(fault)
    if faults:
        return document, faults
    ids = ids_of(document)
    found = {**document, **{kind: list(document[kind]) for kind in KINDS}}
    for kind, place in changed:
        found[kind][place] = {"id": document[kind][place]["id"], **item_of(getattr(normalised, kind)[place], ids)}
    if is_project_changed:
        of_secrets = {"secrets": document["project"]["secrets"]}
        hook = {**project_of(normalised)["hook"], "basic_auth": document["project"]["hook"]["basic_auth"]}
        found["project"] = {**project_of(normalised), "hook": hook, **of_secrets}
    return found, []


# ---- a whole configuration


def normalise(project: ProjectConfig, only: Collection[Place] | None = None) -> tuple[ProjectConfig, list[Fault]]:
    """Return the project with every value normalised, and the faults that involve more than one key.

    `only`: the rows to normalise, the others are normal already; None: all.

    Numbers become international by the project's country, instants get their offset, hours their shortest form. A
    schedule without a time zone gets the project's. Members are sorted by tier. Items with the name "" could not be
    read and are skipped.
    """
    faults = Faults()
    for kind in KINDS:
        rows, taken = enumerate(getattr(project, kind)), f"is the name of {kind}[{{}}] already"
        names = sorted((((kind, i, "name"), row.name) for i, row in rows), key=lambda name: name[0][:2] in (only or ()))
        faults.names[kind] = faults.check_once(names, taken, "rename one", "name_taken")
    faults.check_owners(sorted(enumerate(project.agents), key=lambda agent: ("agents", agent[0]) in (only or ())))
    presence = project.presence
    if presence.online_from not in (None, OnlineFrom.SIP) and not presence.project_id:
        faults.refuse(
            ("presence", "online_from"),
            f"{presence.online_from} needs the project's id on the platform",
            "add project_id, and token",
            "no_project_id",
        )
    elif presence.online_from not in (None, OnlineFrom.SIP) and presence.token is not None and not len(presence.token):
        faults.refuse(("presence", "online_from"), *token_needed(presence.online_from), "no_token")
    normalised = _normalise_schedules(_normalise(project, (), project, faults, only), faults, only)
    for i, agent in enumerate(project.agents):
        if agent.deputy and agent.deputy == agent.name:
            faults.refuse(("agents", i, "deputy"), "nobody stands in for oneself", "name another agent", "own_deputy")
        of_agent = normalised.agents[i]
        if of_agent.away_from and not _is_before(of_agent.away_from, of_agent.away_until):
            remedy = "write away_until too, and later than away_from; or leave both out"
            faults.refuse(("agents", i, "away_from"), "a leave begins before it ends", remedy, "leave_order")
    for i, group in enumerate(project.groups):
        members = [(("groups", i, "members", j, "agent"), member.agent) for j, member in enumerate(group.members)]
        faults.check_once(members, "is a member already", "name each agent once", "twice")
    for i, rule in enumerate(project.rules):
        chain = [(("rules", i, "groups", j), name) for j, name in enumerate(rule.groups)]
        faults.check_once(chain, "is in this rule already", "name each group once", "twice")
    _check_tests(project, faults)
    groups = (
        group.model_copy(update={"members": tuple(sorted(group.members, key=lambda member: member.tier))})
        for group in normalised.groups
    )
    return normalised.model_copy(update={"groups": tuple(groups)}), list(faults)


def _check_tests(project: ProjectConfig, faults: Faults) -> None:
    """Note the tests without a moment, and those that expect nothing."""
    for i, test in enumerate(project.tests):
        if test.name and test.call.at is None:
            path, remedy = ("tests", i, "call", "at"), "write a time, as 2026-12-01T12:00"
            faults.refuse(path, "a test needs the moment of its call", remedy, "no_moment")
        if test.name and test.expect == ExpectConfig():
            remedy = "write rule, groups, agent or overflow"
            faults.refuse(("tests", i, "expect", "rule"), "nothing is expected", remedy, "no_expectation")


def _normalise(config: W, path: Path, project: ProjectConfig, faults: Faults, only: Collection[Place] | None) -> W:
    """Return a mapping of the file with its texts in their one notation, and its references checked."""
    found: dict[str, Any] = {}
    for key, field in type(config).model_fields.items():
        place, value = (*path, key), getattr(config, key)
        notes = notes_of(field)
        if notes.reads:
            found[key] = faults.attempt_all(place, notes.reads, value, project.country)
        elif notes.is_instant:
            found[key] = value and faults.attempt(place, instant, value, project.time_zone)
        elif notes.refers:
            faults.check_references(place, notes.refers, value)
        elif isinstance(value, Config):
            found[key] = _normalise(value, place, project, faults, only)
        elif isinstance(value, tuple) and value and isinstance(value[0], Config):
            found[key] = tuple(
                row if _is_normal((*place, i), only) else _normalise(row, (*place, i), project, faults, only)
                for i, row in enumerate(value)
            )
    return config.model_copy(update=found) if found else config


def _is_before(begin: str, end: str | None) -> bool:
    """Return whether one instant is before the other, which may be missing. True for one that could not be read."""
    try:
        return end is not None and datetime.fromisoformat(begin) < datetime.fromisoformat(end)
    except (ValueError, TypeError):
        return True


def token_needed(online_from: str | None) -> tuple[str, str]:
    """Return the fault and the remedy for a missing token of the Smart Phone extension."""
    return f"{online_from} needs the token of the Smart Phone extension", "add token, or write online_from: sip"


def _is_normal(place: Path, only: Collection[Place] | None) -> bool:
    """Return whether a row at this place is normal already."""
    return only is not None and len(place) == 2 and place not in only


def _normalise_schedules(project: ProjectConfig, faults: Faults, only: Collection[Place] | None) -> ProjectConfig:
    rows = (
        row if _is_normal(place, only) else _normalise_schedule(faults, place, row, project.time_zone)
        for place, row in ((("schedules", i), row) for i, row in enumerate(project.schedules))
    )
    return project.model_copy(update={"schedules": tuple(rows)})


class Faults(list[Fault]):
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
            self.refuse(path, f"there is no {what} {names!r}", advise(names, known, otherwise), "no_such_row")

    def check_once(self, names: Sequence[tuple[Path, str]], message: str, remedy: str, kind: str) -> list[str]:
        """Return the names, each once. Note those that occur again; {} in the message is the first one's place."""
        first: dict[str, Path] = {}
        for path, name in names:
            if name and first.setdefault(name, path) != path:
                self.refuse(path, f"{name!r} {message.format(first[name][1])}", remedy, kind, name=name)
        return list(first)

    def refuse(self, path: Path, message: str, remedy: str, kind: str = "", **values: Any) -> None:
        self.append(Fault(path, message, remedy, kind, values))

    def attempt(self, path: Path, read: Callable[..., str], text: str, *arguments: str) -> str:
        """Return the text normalised by `read`; note the fault and return it unchanged when that fails."""
        try:
            return read(text, *arguments)
        except (SchemaError, WordedError) as error:
            self.refuse(path, error.message, error.remedy, error.kind, **error.values)
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
                        message = "this parameter occurs twice, apart from case"
                        self.refuse((*path, name), message, "join the two", "param_twice")
                    found[name] = self.attempt_all((*path, name), read, texts, *arguments)
                return found
        return value

    def check_owners(self, agents: Sequence[tuple[int, AgentConfig]]) -> None:
        """Note logins that occur twice. `agents`: with their positions; of two owners the first keeps the login."""
        owners: dict[str, tuple[int, int, str]] = {}
        for i, agent in agents:
            for j, login in enumerate(agent.sip_logins):
                owner, place, name = owners.setdefault(login, (i, j, agent.name))
                path = ("agents", i, "sip_logins", j)
                if owner != i:
                    remedy = "a login has one owner: remove it from one of the two"
                    self.refuse(path, f"{login!r} belongs to {name!r} already", remedy, "taken", login=login, name=name)
                elif place != j:
                    self.refuse(path, f"{login!r} is listed twice", "remove one of the two", "twice", name=login)


def _normalise_schedule(faults: Faults, path: Path, row: ScheduleConfig, project_zone: str) -> ScheduleConfig:
    zone = row.time_zone or project_zone
    normalised: dict[str, Any] = {"time_zone": zone}
    count = len(faults)
    for key, entries in (("open", row.open), ("exceptions", row.exceptions)):
        # First each entry by itself, so that every fault is reported; then all together, for conflicts.
        for name, hours in entries.items():
            _parse_part(faults, (*path, key, name), {key: {name: hours}})
        if len(faults) == count:
            _parse_part(faults, (*path, key), {key: entries})
    if len(faults) == count:
        named = {"exceptions": row.exceptions, "exception_names": row.exception_names}
        _parse_part(faults, (*path, "exception_names"), named)
    override = {"time_zone": zone, "override": row.override, "override_until": row.override_until}
    _parse_part(faults, (*path, "override_until"), override)
    if len(faults) == count:
        schedule = parse_schedule(
            *(row.name, zone, row.open, row.exceptions, row.override or "", row.override_until, row.exception_names)
        )
        until = None if schedule.override is None else schedule.override.until
        normalised |= {
            "open": render_open(schedule),
            "exceptions": render_exceptions(schedule),
            "exception_names": render_names(schedule),
            "override_until": None if until is None else until.isoformat(),
        }
    return row.model_copy(update=normalised)


def _parse_part(faults: Faults, path: Path, part: Mapping[str, Any]) -> None:
    try:
        parse_schedule("", **{"time_zone": "UTC", **part})
    except ScheduleError as error:
        # The place "open.mon-fri[1]" is a key, a name in it and a position.
        name, _, position = error.place.partition(".")[2].removesuffix("]").partition("[")
        path = path if name in ("", path[-1]) else (*path, name)
        path = (*path, int(position)) if position else path
        faults.refuse(path, error.message, error.remedy, error.kind, **error.values)
