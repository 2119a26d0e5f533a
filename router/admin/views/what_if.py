"""What-if: past calls as one day through a changed configuration, beside what really happened. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_decimal
from sqlalchemy.orm import Session
from wtforms import SelectField

from router.admin import studying
from router.admin.forms.base import Form, TextField, choices
from router.admin.i18n import READER, _, lazy
from router.admin.page import Role, context, current_project, done, draft_of, page, reading, render_form
from router.admin.views.replay import Naming
from router.admin.words import WORDS
from router.configuration.document import names_of
from router.core.instants import YEARS
from router.core.strategies import STRATEGIES
from router.core.words import N_, Message
from router.db.documents import BuildError, Document, build_project
from router.explanation import studies
from router.explanation.logged_day import (
    MOST_CALLS,
    Nothing,
    NothingLoggedError,
    TooManyCallsError,
    check_calls,
)
from router.explanation.studies import State, Study
from router.explanation.variations import TEXTS, Hours, Variation, VariationError, read_hours, varied

MOST_DAYS = 7
MOST_EARLIER = 10
AGENTS_SHOWN = 50


class WhatIfForm(Form):
    """The days, the configuration, and changes of it."""

    through = SelectField(lazy("Configuration"), validate_choice=False)
    first = TextField(lazy("First day"), render_kw={"type": "date"})
    last = TextField(lazy("Last day"), render_kw={"type": "date"})
    group = SelectField(lazy("Group"), validate_choice=False)
    strategy = SelectField(lazy("Strategy"), validate_choice=False)
    without = SelectField(lazy("Leave out"), validate_choice=False)
    more = SelectField(lazy("One more like"), validate_choice=False)
    schedule = SelectField(lazy("Schedule"), validate_choice=False)
    begin = TextField(lazy("Opens at"), render_kw={"placeholder": "09:00", "inputmode": "numeric"})
    end = TextField(lazy("Closes at"), render_kw={"placeholder": "18:00", "inputmode": "numeric"})

    gone: Sequence[str] = ()  # names of the fields in which something was chosen that is there no more
    days: tuple[datetime, datetime]  # once it is valid: the first instant, and that after it
    variation: Variation

    def offer(self, session: Session) -> None:
        """Set the choices, and yesterday."""
        self.through.choices = choices(studying.offered(session))
        names = _names(session)
        nobody, unchanged = ("", _("nobody")), ("", _("as it is"))
        agents = [nobody, *_sorted(names["agents"])]
        self.group.choices = choices([("", _("none")), *_sorted(names["groups"])])
        self.strategy.choices = choices([unchanged, *((name, WORDS["strategy"][name]) for name in STRATEGIES)])
        self.without.choices = self.more.choices = choices(agents)
        self.schedule.choices = choices([("", _("none")), *_sorted(names["schedules"])])
        fields = (self.through, self.group, self.strategy, self.without, self.more, self.schedule)
        unknown = [field for field in fields if field.data not in {choice.value for choice in field.choices}]
        self.gone = [field.name for field in unknown if field.data]
        for field in unknown:
            field.data = field.choices[0].value
        yesterday = (datetime.now(_zone()).date() - timedelta(days=1)).isoformat()
        self.first.data = self.first.data or yesterday
        self.last.data = self.last.data or self.first.data

    def validate(self, extra_validators: Any = None) -> bool:
        """Read the days and the changes too."""
        is_valid = super().validate(extra_validators)
        for name in self.gone:
            self.refuse(name, _("What you chose is not there any more. Choose again."))
        first, last = (self._date(name) for name in ("first", "last"))
        if first and last and not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
            self.refuse("last", _("Choose the first day or a later one, %(n)s days in all at most.", n=MOST_DAYS))
        if bool(self.group.data) is not bool(self.strategy.data):
            self.refuse("strategy", _("Choose a group and its new strategy."))
        hours = self._hours()
        if not first or not last or not is_valid or any(field.errors for field in self):
            return False
        self.days = _start_of(first), _start_of(last + timedelta(days=1))
        self.variation = Variation(
            {int(self.group.data): self.strategy.data} if self.group.data else {},
            [int(self.without.data)] if self.without.data else [],
            [int(self.more.data)] if self.more.data else [],
            hours,
        )
        return True

    def _date(self, name: str) -> date | None:
        with suppress(ValueError):
            if (found := date.fromisoformat(self._fields[name].data)).year in YEARS:
                return found
        self.refuse(name, _("Choose a day."))
        return None

    def _hours(self) -> Hours | None:
        is_given = bool(self.begin.data or self.end.data)
        if not self.schedule.data:
            if is_given:
                self.refuse("schedule", _("Choose the schedule whose hours these are."))
            return None
        try:
            return read_hours(int(self.schedule.data), self.begin.data or "", self.end.data or "")
        except VariationError:
            self.refuse("begin", _("Write from when until when, as 09:00 and 18:00."))
            return None


def _zone() -> ZoneInfo:
    return ZoneInfo(current_project().time_zone)


def _start_of(day: date) -> datetime:
    return datetime.combine(day, time_of_day(), _zone()).astimezone(UTC)


def _names(session: Session) -> dict[str, dict[int, str]]:
    """Return the names of the draft's rows or, without one, of those in use."""
    return names_of(draft_of(session).document)


def _sorted(names: Mapping[int, str]) -> list[tuple[str, str]]:
    return sorted(((str(row_id), name) for row_id, name in names.items()), key=lambda one: one[1].casefold())


# ---- start


@page("/p/<project>/what-if", see=Role.VIEWER, do=Role.VIEWER)
def what_if() -> ResponseReturnValue:
    """Show the form and the studies before; start one."""
    form = WhatIfForm(request.form if request.method == "POST" else request.args or None)
    with reading() as session:
        form.offer(session)
        has_calls = studying.has_calls(session)
        if form.saves() and (document := _document(session, form)) is not None:
            found, told = document
            since, until = form.days
            told |= {"since": since.isoformat(), "until": until.isoformat(), "variation": form.variation.as_json()}
            return studying.start("what_if", found, told, url_for("admin.what_if"))
    earlier = [described(one) for one in studies.list_studies(context().database, current_project().id, kind="what_if")]
    return render_form("what_if/what_if.html", form, earlier=earlier[:MOST_EARLIER], has_calls=has_calls)


def _document(session: Session, form: WhatIfForm) -> tuple[Document, dict[str, Any]] | None:
    """Return the configuration that was chosen, and what it is; None with errors in the form."""
    document, told = studying.chosen(session, form.through.data)
    try:
        names = names_of({"tests": [], **document})
        build_project(varied(document, form.variation).document, current_project().id, 0)
    except (BuildError, VariationError, KeyError):
        form.refuse("through", _("Calls cannot be routed by this configuration, so none can be simulated by it."))
        return None
    for name, kind in (("group", "groups"), ("without", "agents"), ("more", "agents"), ("schedule", "schedules")):
        if (value := form[name].data) and int(value) not in names[kind]:
            form.refuse(name, _("This is not in the configuration that you chose."))
    try:
        check_calls(session, current_project().id, *form.days)
    except NothingLoggedError as error:
        form.refuse("first", READER.say(Message(error.why)))
    except TooManyCallsError as error:
        words = _("These are %(n)s calls: choose fewer days, for %(most)s at most.", n=error.calls, most=MOST_CALLS)
        form.refuse("last", words)
    return None if any(field.errors for field in form) else (document, told)


# ---- its result


class Described(NamedTuple):
    """A what-if as lists and pages name it."""

    study: Study
    through: str
    calls: str
    changes: Sequence[str]


def described(study: Study, document: Document | None = None) -> Described:
    """Return a what-if with its words. `document`: the configuration that it looks at; by default the one in use."""
    told = study.parameters
    with reading() as session:
        names = names_of({"tests": [], **document}) if document else _names(session)
    changes = [READER.say(message) for message in Variation.of_json(told["variation"]).words(names)]
    return Described(study, studying.through(told), studying.days(told), changes)


class Figure(NamedTuple):
    """A figure three times: as it really was, simulated as it was, and simulated with the changes. `difference`: of the
    last from the first. `bars`: in per cent of the longest."""

    name: str
    real: str
    reproduced: str
    changed: str
    difference: str
    bars: Sequence[float]


_FIGURES: Sequence[tuple[str, Any]] = (
    ("overflow_rate", lazy("Calls to the overflow")),
    ("found_nobody_rate", lazy("Nobody was free at first")),
    ("answered_rate", lazy("Answered by an agent")),
    ("unanswered_rate", lazy("Neither agent nor overflow")),
)
_POINTS = N_("%(n)s points")
_TALLIES = ("real", "reproduced", "changed")


def _per_cent(value: float) -> str:
    return _("%(n)s %%", n=format_decimal(value, "#,##0.0"))


def _figure(name: str, values: Sequence[float | None], top: float, write: Callable[[float], str], unit: str) -> Figure:
    """Return a figure. None: it is not known."""
    real, reproduced, changed = ("–" if value is None else write(value) for value in values)
    difference = 0 if values[0] is None or values[2] is None else values[2] - values[0]
    words = _(unit, n=format_decimal(difference, "+0.0;-0.0")) if round(difference, 1) else "–"
    bars = [round(100 * value / top, 1) if value and top else 0.0 for value in values]
    return Figure(name, real, reproduced, changed, words, bars)


def figures(result: Mapping[str, Any]) -> list[Figure]:
    """Return what is compared of all calls."""
    rows = [(str(words), [result[tally][key] for tally in _TALLIES]) for key, words in _FIGURES]
    top = max(max(values) for _name, values in rows)
    return [_figure(name, values, top, _per_cent, _POINTS) for name, values in rows]


def wait(result: Mapping[str, Any]) -> Figure:
    """Return how long callers wait until an agent answers."""
    values = [result[tally]["mean_wait"] for tally in _TALLIES]
    name = _("Wait until an agent answers")
    top = max(value or 0.0 for value in values)
    return _figure(name, values, top, lambda value: READER.duration(value, exact=True), "%(n)s s")


def shares(result: Mapping[str, Any], naming: Naming) -> list[Figure]:
    """Return the part of each agent of all calls that agents answered, the greatest first."""
    known = dict.fromkeys(agent for tally in _TALLIES for agent in result[tally]["agents"])
    found = {
        agent: [result[tally]["agents"].get(agent, {"share": 0.0})["share"] for tally in _TALLIES] for agent in known
    }
    top = max((max(values) for values in found.values()), default=0.0)
    rows = sorted(found.items(), key=lambda one: (-one[1][0], -one[1][2]))
    return [_figure(naming.of("agents", int(agent)), values, top, _per_cent, _POINTS) for agent, values in rows]


class Verdict(NamedTuple):
    """What the study says of the overflow. `margin`: within which a difference says nothing, in percentage points. Not
    `is_known`: the log does not tell whether agents answer."""

    real: str
    changed: str
    is_more: bool
    is_clear: bool
    margin: str
    is_known: bool


def verdict(result: Mapping[str, Any]) -> Verdict:
    """Return what the study says of the overflow."""
    real, changed = result["real"]["overflow_rate"], result["changed"]["overflow_rate"]
    margin = result.get("margin", result["error"]["overflow"])  # older results have none
    words = format_decimal(max(margin, 0.1), "0.0")
    is_clear = round(abs(changed - real), 2) > margin
    return Verdict(_per_cent(real), _per_cent(changed), changed > real, is_clear, words, result.get("is_known", True))


@page("/p/<project>/what-if/<int:number>", see=Role.VIEWER)
def what_if_result(number: int) -> ResponseReturnValue:
    """Show how far a what-if is, then its result."""
    loaded = studies.load_study(context().database, current_project().id, number)
    if loaded is None or loaded[0].kind != "what_if":
        abort(404)
    study, document, result = loaded
    values: dict[str, Any] = {}
    if why := result.get("nothing"):
        values = {"nothing": READER.say(Message(Nothing(why)))}
    elif study.state is State.DONE:
        with reading() as session:
            variation = Variation.of_json(study.parameters["variation"])
            agents = shares(result, Naming(session, varied(document, variation).document))
        values = {
            "figures": [*figures(result), wait(result)],
            "agents": agents[:AGENTS_SHOWN],
            "more_agents": max(0, len(agents) - AGENTS_SHOWN),
            "verdict": verdict(result),
            "error": {name: format_decimal(value, "0.0") for name, value in result["error"].items()},
            "by_chance": {name: format_decimal(value, "0.0") for name, value in result["by_chance"].items()},
            "assumptions": list(_assumptions(result)),
        }
    what = described(study, document)
    return render_template("what_if/result.html", what=what, result=result, again_url=_again_url(study), **values)


def _assumptions(result: Mapping[str, Any]) -> Iterator[str]:
    for told in result["assumptions"]:
        if text := TEXTS.get(told["code"]):
            yield READER.say(Message(text, told))


def _again_url(study: Study) -> str:
    """Return the URL of the form, filled in as it was."""
    told, variation = study.parameters, Variation.of_json(study.parameters["variation"])
    since, until = (datetime.fromisoformat(told[name]).astimezone(_zone()) for name in ("since", "until"))
    chosen: dict[str, Any] = {"through": studying.choice(told), "first": since.date().isoformat()}
    chosen["last"] = (until - timedelta(microseconds=1)).date().isoformat()
    for group, strategy in variation.strategies.items():
        chosen |= {"group": group, "strategy": strategy}
    chosen |= {name: next(iter(getattr(variation, name)), None) for name in ("without", "more")}
    if variation.hours:
        chosen |= {"schedule": variation.hours.schedule, "begin": variation.hours.begin, "end": variation.hours.end}
    return url_for("admin.what_if", **chosen)


@page("/p/<project>/what-if/<int:number>/stop", do=Role.VIEWER)
def what_if_stop(number: int) -> ResponseReturnValue:
    """Stop a what-if."""
    stopped = studies.stop(context().database, current_project().id, number)
    message = _("The what-if is stopped.") if stopped else _("The what-if has ended already.")
    return done(message, url_for("admin.what_if"), "success" if stopped else "info")
