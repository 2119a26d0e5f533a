"""Read the text of a configuration file into normalised models, or report all its problems with line and remedy.

Scalars stay text until the key's type is known, so that YAML's implicit types never change a value: `0441112233` is not
an octal number, `no` not a boolean, 2026-12-25 not a date. Reads no database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from router.configuration.check import normalise, read
from router.configuration.document import document_of
from router.configuration.schema import UNFIT, Path, ProjectConfig, advise
from router.core.phones import phone_of
from router.core.review import warnings_of
from router.core.schedule_words import doubts_of
from router.db.documents import build_project, build_schedule

MAX_CHARS = 10_000_000
MAX_VALUES = 500_000  # after aliases are resolved
MAX_DEPTH = 20

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where the wheel has it
_NULLS = {"", "~", "null", "Null", "NULL"}
_TAGS = {None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map"))}
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<has_default>:-(?P<default>[^}]*))?\}|\$\{")


class Problem(NamedTuple):
    """A fault or a warning. `place` as `projects[0].groups[1].strategy`, "" for the file; `line` counts from 1."""

    place: str
    message: str
    remedy: str
    line: int

    def __str__(self) -> str:
        text = f"{self.message}; {self.remedy}" if self.remedy else self.message
        return f"{self.place}: {text}" if self.place else text


class ConfigFileError(ValueError):
    """A file that cannot be used. Its text has one line for each problem: `acme.yaml:12: place: message; remedy`."""

    def __init__(self, filename: str, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(f"{filename}:{problem.line}: {problem}" for problem in problems))
        self.filename, self.problems = filename, problems


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that can be applied. `projects` are normalised; `lines` gives the line of each path, for warnings."""

    projects: tuple[ProjectConfig, ...]
    filename: str = field(default="", compare=False)
    lines: Mapping[Path, int] = field(default_factory=dict, compare=False, repr=False)
    given_overflow: frozenset[str] = field(default=frozenset(), compare=False)  # projects with an overflow in the file
    doubts: tuple[Problem, ...] = field(default=(), compare=False)  # likely mistakes in schedules


def load(text: str, environ: Mapping[str, str], *, filename: str = "the configuration") -> ConfigFile:
    """Read a file. `${NAME}` and `${NAME:-default}` in values are taken from `environ`, where an empty variable counts
    as missing; `$${` is a plain `${`. Raises ConfigFileError with all problems.
    """
    tree = _Tree(environ)
    try:
        raw = _projects(tree.read(text), tree)
    except _FatalError as error:
        raise ConfigFileError(filename, [*tree.problems, error.problem]) from None
    projects = []
    written = [read(ProjectConfig, value, ("projects", i), tree.refuse) for i, value in enumerate(raw)]
    for i, project in enumerate(written):
        normalised, faults = normalise(project)
        for fault in faults:
            tree.refuse(("projects", i, *fault.path), fault.message, fault.remedy)
        projects.append(normalised)
    first: dict[str, int] = {}
    for i, project in enumerate(projects):
        if project.name and first.setdefault(project.name, i) != i:
            earlier = f"projects[{first[project.name]}]"
            tree.refuse(("projects", i, "name"), f"{project.name!r} is the name of {earlier} already", "rename one")
    if tree.problems:
        raise ConfigFileError(filename, sorted(tree.problems, key=lambda problem: problem.line))
    given = frozenset(project.name for project, value in zip(projects, raw, strict=True) if "overflow" in value)
    doubts = tuple(
        doubt for i, project in enumerate(written) for doubt in _doubts(project, ("projects", i), tree.lines)
    )
    return ConfigFile(tuple(projects), filename, tree.lines, given, doubts)


def _doubts(project: ProjectConfig, path: Path, lines: Mapping[Path, int]) -> Iterator[Problem]:
    for i, schedule in enumerate(project.schedules):
        for doubt in doubts_of(schedule.open, schedule.exceptions):
            place: Path = (*path, "schedules", i, doubt.part, doubt.key)
            place += () if doubt.position is None else (doubt.position,)
            yield Problem(place_of(place), doubt.message, doubt.remedy, line_of(lines, place))


def check(config: ConfigFile) -> list[Problem]:
    """Return warnings about a valid file, in the order of its lines."""
    found = list(config.doubts)
    for i, wanted in enumerate(config.projects):
        document = document_of(wanted)
        project = build_project(document, 0, 0)
        for warning in warnings_of(project, map(build_schedule, document["schedules"])):
            if warning.kind == "no_overflow" and wanted.name in config.given_overflow:
                continue  # the overflow is empty on purpose
            if warning.kind == "loses_minute":
                continue  # config.doubts has the same warning with its line
            path: Path = ("projects", i)
            if warning.subject != "project":
                path = (*path, f"{warning.subject}s", warning.subject_id - 1)
            about = f"{warning.subject} {warning.name!r} {warning.message}"
            found.append(Problem(place_of(path), about, warning.remedy, line_of(config.lines, path)))
    found += _shared_logins(config)
    return sorted(found, key=lambda problem: problem.line)


def _shared_logins(config: ConfigFile) -> Iterator[Problem]:
    """Yield logins that two projects own in one presence account: both would reserve the same phone."""
    owners: dict[tuple[str, ...], tuple[int, str]] = {}
    for i, wanted in enumerate(config.projects):
        presence = wanted.presence
        key = presence.auth_key.get_secret_value().strip() if presence.auth_key else ""
        account = (presence.source, presence.api_url.strip().rstrip("/").casefold(), key)
        for j, agent in enumerate(wanted.agents if key else ()):
            for k, login in enumerate(agent.sip_logins):
                project, name = owners.setdefault((*account, phone_of(login)), (i, wanted.name))
                if project != i:
                    path: Path = ("projects", i, "agents", j, "sip_logins", k)
                    message = f"{login!r} is a login of project {name!r} too, on the same presence account"
                    remedy = "projects do not know of each other's calls: own it in one of them"
                    yield Problem(place_of(path), message, remedy, line_of(config.lines, path))


def place_of(path: Path) -> str:
    """Return the path as people write it: projects[0].groups[1].strategy."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """Return the line of the path, or of the nearest element around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


# ---- YAML as a tree of text


class _FatalError(Exception):
    """A fault after which the file cannot be read further."""

    def __init__(self, message: str, remedy: str, line: int = 1) -> None:
        super().__init__(message)
        self.problem = Problem("", message, remedy, line)


class _Node(NamedTuple):
    """A value of YAML: text (None for no value), a list, or pairs, in which a key may occur twice."""

    line: int
    value: str | list[_Node] | _Pairs | None


class _Pairs(list[tuple[_Node, _Node]]):
    pass


class _Tree:
    """Reads a file into text, lists and dicts. Collects the problems, and the line of each path."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[Path, int] = {}
        self._environ = environ
        self._followed: dict[Path, tuple[str, str]] = {}  # by path of a reference: its value, and its text in the file
        self._unread: set[Path] = set()  # reported as unreadable: no other faults there are reported
        self._anchors: dict[str, _Node] = {}
        self._values = 0

    def refuse(self, path: Path, message: str, remedy: str, kind: str = "", **values: Any) -> None:
        written_at = path if path in self._followed else path[:-1]  # a single value is read as a list of one
        if {path, written_at} & self._unread:
            return
        if followed := self._followed.get(written_at):
            value, written = followed  # the value may be a secret from the environment: do not quote it
            for length in (len(value), 80, 40):
                message = message.replace(repr(value[:length]), repr(written[:80]))
        self.problems.append(Problem(place_of(path), message, remedy, line_of(self.lines, path)))

    def read(self, text: str) -> object:
        if len(text) > MAX_CHARS:
            raise _FatalError(f"the file is longer than {MAX_CHARS:,} characters", "split it by project")
        if unfit := re.search(r"[\ud800-\udfff]", text):
            raise _FatalError("the file is not UTF-8 text", "save it as UTF-8", 1 + text.count("\n", 0, unfit.start()))
        try:
            root = self._document(yaml.parse(text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = ", ".join(filter(None, (error.context, error.problem)))
            remedy = "check indentation, quotes and brackets here and above"
            line = 1 if mark is None else mark.line + 1
            # YAML reports a missing end at the line after the last one.
            raise _FatalError(f"this is not YAML: {message}", remedy, min(line, len(text.splitlines()))) from None
        except yaml.reader.ReaderError as error:
            line = 1 + text.encode()[: error.position].count(b"\n")  # the C parser counts bytes
            raise _FatalError(f"YAML does not allow this character: {error.reason}", "remove it", line) from None
        return self._unfold(root, ())

    def _document(self, events: Iterator[Any]) -> _Node:
        root: _Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise _FatalError("a second document starts here", "write one, without ---", line)
                root = self._node(next(events), events, 0)
        if root is None or root.value is None:
            raise _FatalError("the file is empty", "start with projects:, see docs/configuration-file.md")
        return root

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> _Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _FatalError(f"*{event.anchor} is not known here", f"put &{event.anchor} above it", line)
            return self._anchors[event.anchor]
        if depth > MAX_DEPTH:
            raise _FatalError("this is nested too deeply", "see docs/configuration-file.md for the form", line)
        if event.tag not in _TAGS:
            raise _FatalError(f"tags such as {event.tag} are not read", "remove the tag", line)
        if isinstance(event, yaml.ScalarEvent):
            is_null = event.implicit[0] and event.value in _NULLS
            node = _Node(line, None if is_null else event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            items: list[_Node] = []
            while not isinstance(event_ := next(events), yaml.SequenceEndEvent):
                items.append(self._node(event_, events, depth + 1))
            node = _Node(line, items)
        else:
            pairs = _Pairs()
            while not isinstance(event_ := next(events), yaml.MappingEndEvent):
                key = self._node(event_, events, depth + 1)
                pairs.append((key, self._node(next(events), events, depth + 1)))
            node = _Node(line, pairs)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _unfold(self, node: _Node, path: Path) -> object:
        """Return the node's value with aliases and references resolved."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _FatalError(
                f"the file holds more than {MAX_VALUES:,} values", "split it by project, use fewer aliases", node.line
            )
        self.lines.setdefault(path, node.line)
        match node.value:
            case None:
                return None
            case str() as text:
                return self._scalar(text.strip(), path)
            case _Pairs() as pairs:
                return self._mapping(pairs, path)
            case items:
                return [self._unfold(item, (*path, i)) for i, item in enumerate(items)]

    def _mapping(self, pairs: _Pairs, path: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if isinstance(key.value, list):
                raise _FatalError("a key must be one word", "write lists and mappings behind the colon", key.line)
            name = (key.value or "").strip()
            place = (*path, name)
            if name in found:
                self.problems.append(
                    Problem(
                        place_of(place),
                        f"this key occurs twice, first in line {self.lines[place]}",
                        "keep one of the two",
                        key.line,
                    )
                )
                continue
            self.lines[place] = key.line
            if UNFIT.search(name):
                self.refuse(place, "the key holds an invisible character", "remove it")
            found[name] = self._unfold(value, place)
        return found

    def _scalar(self, text: str, path: Path) -> str:
        if "${" in text:
            written, count = text, len(self.problems)
            text = _REFERENCE.sub(lambda found: self._follow(found, path), written).strip()
            self._followed[path] = (text, written)
            if len(self.problems) > count:
                self._unread.add(path)
        if UNFIT.search(text):
            self.refuse(path, "found a line break or an invisible character", "remove it")
            self._unread.add(path)
        return text

    def _follow(self, found: re.Match[str], path: Path) -> str:
        if found[0] == "$${":
            return "${"
        name = found["name"]
        if name is None:
            self.refuse(path, "this is no reference", "write ${NAME} or ${NAME:-default}, and $${ for a plain ${")
            return ""
        if value := self._environ.get(name, ""):
            return value
        if found["has_default"] is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            self.refuse(path, f"the environment variable {name} is not set", remedy)
        return found["default"] or ""


# ---- from the tree to models


def _projects(top: object, tree: _Tree) -> list[Any]:
    keys = top if isinstance(top, dict) else {}
    for key in keys:
        if key != "projects":
            tree.refuse((key,), f"there is no key {key!r}", advise(key, ["projects"], "the only one here is projects"))
    if not isinstance(projects := keys.get("projects"), list):
        remedy = "start with projects: and a list of them, each with a name; see docs/configuration-file.md"
        raise _FatalError("there is no list of projects", remedy)
    return projects
