"""Vary a configuration for a what-if: another strategy, an agent fewer or more, other hours; and run it as a study.

Nothing is published: the document that is made is only simulated, see what_if.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Self

from router.core.strategies import STRATEGIES
from router.core.words import N_, NN_, Message, Text
from router.db.documents import Document, build_project
from router.db.session import Database
from router.explanation.logged_day import NothingLoggedError, read_day
from router.explanation.what_if import Day, Presence, Progress, WhatIf, presence_by, what_if

_SPAN = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_NAMED = 10  # agents in a text
_TIME = re.compile(r"([01]?\d|2[0-4])(?::([0-5]\d))?")

STRATEGY = Text("strategy", N_("%(group)s: %(strategy)s"))
WITHOUT = Text("without", N_("without %(agent)s"))
MORE = Text("more", N_("one more like %(agent)s"))
HOURS = Text("hours", N_("%(schedule)s: %(from)s–%(until)s"))


class VariationError(ValueError):
    """A variation that makes no sense."""


class Hours(NamedTuple):
    """New hours of a schedule, on the days on which it is open: "09:00", "18:00"."""

    schedule: int
    begin: str
    end: str


@dataclass(frozen=True, slots=True)
class Variation:
    """Changes of a configuration. `strategies`: by group. `without`: agents. `more`: agents of whom there is one more,
    in the same groups. All by id."""

    strategies: Mapping[int, str] = field(default_factory=dict)
    without: Sequence[int] = ()
    more: Sequence[int] = ()
    hours: Hours | None = None

    def __bool__(self) -> bool:
        return bool(self.strategies or self.without or self.more or self.hours)

    def as_json(self) -> dict[str, Any]:
        """Return what `of_json` reads."""
        return asdict(self)

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return a stored variation."""
        strategies = {int(group): name for group, name in stored["strategies"].items()}
        hours = Hours(*stored["hours"]) if stored["hours"] else None
        return cls(strategies, tuple(stored["without"]), tuple(stored["more"]), hours)

    def words(self, names: Mapping[str, Mapping[int, str]]) -> Iterator[Message]:
        """Yield what is changed. `names`: by kind and id."""
        for group, strategy in self.strategies.items():
            yield Message(STRATEGY, {"group": names["groups"].get(group, f"#{group}"), "strategy": strategy})
        for text, agents in ((WITHOUT, self.without), (MORE, self.more)):
            for agent in agents:
                yield Message(text, {"agent": names["agents"].get(agent, f"#{agent}")})
        if self.hours is not None:
            name = names["schedules"].get(self.hours.schedule, f"#{self.hours.schedule}")
            yield Message(HOURS, {"schedule": name, "from": self.hours.begin, "until": self.hours.end})


class Varied(NamedTuple):
    """A configuration with changes. `alike`: new agents with those whom they are copies of, by id."""

    document: Document
    alike: Mapping[int, int]


def varied(document: Document, variation: Variation) -> Varied:
    """Return the document with these changes. Raises VariationError."""
    unknown = set(variation.strategies.values()) - STRATEGIES.keys()
    if unknown:
        raise VariationError(f"there is no strategy {min(unknown)!r}")
    groups = [{**row, "strategy": variation.strategies.get(row["id"], row["strategy"])} for row in document["groups"]]
    agents = [{**row, "paused": row["paused"] or row["id"] in variation.without} for row in document["agents"]]
    first = min([0, *(row["id"] for row in agents)])
    alike: dict[int, int] = {}
    names = {row["name"] for row in agents}
    for row in [row for row in document["agents"] if row["id"] in variation.more]:
        new = first - len(alike) - 1
        alike[new] = row["id"]
        name = next(name for n in range(2, len(names) + 3) if (name := f"{row['name']} {n}") not in names)
        names.add(name)
        own = {"id": new, "name": name, "sip_logins": [f"~{new}"], "staff_id": "", "deputy": None, "paused": False}
        agents.append({**row, **own})
        for group in groups:
            members = [[one, {**one, "agent": new}] if one["agent"] == row["id"] else [one] for one in group["members"]]
            group["members"] = [one for pair in members for one in pair]
    schedules = [
        {**row, "open": _opened(row["open"], variation.hours)}
        if variation.hours and row["id"] == variation.hours.schedule
        else row
        for row in document["schedules"]
    ]
    return Varied({**document, "groups": groups, "agents": agents, "schedules": schedules}, alike)


def read_hours(schedule: int, begin: str, end: str) -> Hours:
    """Read two times of day. Raises VariationError."""
    found = [_TIME.fullmatch(text.strip()) for text in (begin, end)]
    times = [int(one[1]) * 60 + int(one[2] or 0) for one in found if one]
    if len(times) != 2 or not times[0] < times[1] <= 24 * 60:
        raise VariationError("write the hours as 09:00 and 18:00, the earlier one first")
    return Hours(schedule, *map(_clock, times))


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _opened(days: Mapping[str, Any], hours: Hours) -> dict[str, Any]:
    """Return the hours of a week from and until other times of day. The breaks in between stay."""
    begin, end = (int(text[:2]) * 60 + int(text[3:]) for text in (hours.begin, hours.end))
    found: dict[str, Any] = {}
    for day, spans in days.items():
        if not isinstance(spans, list | tuple) or not spans:
            found[day] = spans
            continue
        times = sorted(_minutes(span) for span in spans)
        times[0] = (begin, times[0][1])
        times[-1] = (times[-1][0], end)
        kept = [(max(a, begin), min(b, end)) for a, b in times if max(a, begin) < min(b, end)]
        found[day] = [f"{_clock(a)}-{_clock(b)}" for a, b in kept or [(begin, end)]]
    return found


def _minutes(span: str) -> tuple[int, int]:
    if (match := _SPAN.fullmatch(span)) is None:
        raise VariationError(f"{span!r} is not a span of hours")
    first, second = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    return first, second if second > first else 24 * 60


# ---- what the simulation takes for granted

SAME_CALLS = Text(
    "same_calls",
    N_("The same callers call at the same moments, for as long a talk as they had, whoever answers."),
)
TALKS = Text(
    "talks",
    *NN_(
        "%(num)s call had no talk whose length is known: if an agent gets it, it is as long as another one.",
        "%(num)s calls had no talk whose length is known: if an agent gets one, it is as long as another one.",
    ),
)
RINGS = Text(
    "rings",
    N_(
        "An agent answers a call, or not, as in reality if it was offered to the agent then; else as the agent’s other"
        " calls, of which %(answered)s%% were answered on average."
    ),
)
PATIENCE = Text(
    "patience",
    N_(
        "Who hung up does so after the same time unless answered before. Who waits longer than in reality may hang up"
        " too, as others did who waited as long."
    ),
)
NO_PATIENCE = Text("no_patience", N_("No caller of this time hung up unanswered, so none does."))
RINGS_UNKNOWN = Text("rings_unknown", N_("The log does not tell whether agents answer: they do, after some seconds."))
ASSUMED = Text(
    "assumed",
    *NN_(
        "%(num)s call whose outcome is not known counts as answered by whom it was offered to.",
        "%(num)s calls whose outcome is not known count as answered by whom they were offered to.",
    ),
)
STEPS = Text(
    "steps",
    N_("After a call that rang in vain, the platform asks again as often as it did, %(most)s times in all at most."),
)
ONE_STEP = Text("one_step", N_("The platform asks once for each call, as it did."))
PRESENCE = Text(
    "presence",
    N_("Phones are online, and agents on a break or off duty, when they were. Agents’ own calls are as they were."),
)
CALLS_ONLY = Text(
    "calls_only",
    N_("For days that are over, presence is known only for the moments of calls: old readings in between are deleted."),
)
UNTOLD = Text(
    "untold",
    N_("No events told of answers and ends of talks. Presence shows them seconds later, and short talks not at all."),
)
NO_CALL_BACK = Text(
    "no_call_back", N_("Nobody calls again because nobody answered, or less often because somebody did.")
)
COPIES = Text("copies", N_("A further agent is at work when the agent is whose copy it is, and answers as often."))
ERASED = Text(
    "erased",
    *NN_(
        "%(num)s call is left out, because its caller was erased.",
        "%(num)s calls are left out, because their callers were erased.",
    ),
)
UNSEEN = Text(
    "unseen", N_("No reading of presence could know these agents, taken to be online whenever anybody was: %(values)s.")
)
RENAMED = Text("renamed", N_("Phones that are new are online when the agent’s phones of that time were: %(values)s."))
OTHER_HOURS = Text("other_hours", N_("With other hours, agents are at work when they were, and no longer."))


def assumptions(day: Day, variation: Variation, presence: Presence) -> Iterator[Message]:
    """Yield what the simulation of this day takes for granted. `presence`: by the changed configuration."""
    rings = [one.ring for caller in day.callers for one in caller.asked if one.ring]
    yield Message(SAME_CALLS)
    if day.erased:
        yield Message(ERASED, {"num": day.erased})
    if unknown := sum(caller.talked is None for caller in day.callers):
        yield Message(TALKS, {"num": unknown})
    known = [ring for ring in rings if not ring.is_assumed]
    answered = sum(ring.is_answered for ring in known)
    yield Message(RINGS, {"answered": round(100 * answered / len(known))}) if known else Message(RINGS_UNKNOWN)
    if len(rings) > len(known):
        yield Message(ASSUMED, {"num": len(rings) - len(known)})
    gave_up = any(caller.gave_up is not None for caller in day.callers)
    yield Message(PATIENCE if gave_up else NO_PATIENCE)
    most = max(len(caller.asked) for caller in day.callers)
    yield Message(STEPS, {"most": most}) if most > 1 else Message(ONE_STEP)
    yield Message(PRESENCE)
    for text, agents in ((UNSEEN, presence.unseen), (RENAMED, presence.renamed)):
        if agents:
            yield Message(text, {"values": [*agents[:_NAMED], *["…"][: len(agents) > _NAMED]]})
    if not day.is_whole:
        yield Message(CALLS_ONLY)
    if not day.tells:
        yield Message(UNTOLD)
    yield Message(NO_CALL_BACK)
    if variation.more:
        yield Message(COPIES)
    if variation.hours:
        yield Message(OTHER_HOURS)


TEXTS: Mapping[str, Text] = {
    text.code: text
    for text in (
        *(SAME_CALLS, TALKS, RINGS, RINGS_UNKNOWN, ASSUMED, PATIENCE, NO_PATIENCE, STEPS, ONE_STEP, PRESENCE),
        *(ERASED, UNSEEN, RENAMED, CALLS_ONLY, UNTOLD, NO_CALL_BACK, COPIES, OTHER_HOURS),
    )
}


# ---- a study


class Studied(NamedTuple):
    """A what-if with what it takes for granted."""

    found: WhatIf
    assumptions: Sequence[Message]

    def as_json(self) -> dict[str, Any]:
        """Return it for the page and for programs."""
        return {**self.found.as_json(), "assumptions": [message.as_json() for message in self.assumptions]}


def study(
    database: Database,
    project_id: int,
    document: Document,
    variation: Variation,
    since: datetime,
    until: datetime,
    progress: Progress = lambda _done, _all: None,
) -> Studied:
    """Simulate the calls from `since` to before `until` by this configuration with these changes.

    Raises NothingLoggedError, TooManyCallsError, VariationError, and BuildError where calls could not be routed.
    """
    changed = varied(document, variation)
    project = build_project(changed.document, project_id, 0)
    day = read_day(database, project_id, since, until, project)
    told = tuple(assumptions(day, variation, presence_by(day, [project], changed.alike)))
    return Studied(what_if(day, project, changed.alike, progress), told)


def what_if_study(
    database: Database, project_id: int, document: Document, parameters: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """Run a what-if as a study: see studies.py. `parameters`: `since`, `until` (ISO 8601) and `variation`.

    The result of a time that cannot be simulated is only why: `nothing`.
    """
    since, until = (datetime.fromisoformat(parameters[name]) for name in ("since", "until"))
    variation = Variation.of_json(parameters["variation"])
    try:
        return study(database, project_id, document, variation, since, until, progress).as_json()
    except NothingLoggedError as error:
        return {"nothing": error.why.code}


def names_with_copies(
    names: Mapping[str, Mapping[int, str]], document: Document, variation: Variation
) -> dict[int, str]:
    """Return the names of agents, those of copies too."""
    changed = varied(document, variation).document["agents"]
    return {**names["agents"], **{row["id"]: row["name"] for row in changed}}
