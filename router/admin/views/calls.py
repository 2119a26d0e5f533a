"""Show the log of decisions with a search and figures by agent, explain single calls, and send both as files."""

from __future__ import annotations

import csv
import gzip
import io
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote
from zoneinfo import ZoneInfo

import phonenumbers
from flask import Response, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date
from sqlalchemy.orm import Session
from werkzeug.datastructures import MultiDict
from wtforms import BooleanField, HiddenField, SelectChoice, SelectField
from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField, at_most, choices
from router.admin.forms.parts import InstantField
from router.admin.i18n import _, language, lazy
from router.admin.page import (
    LET_CALLS_IN,
    CurrentProject,
    Role,
    as_id,
    changing,
    context,
    current_configuration,
    current_project,
    current_rules,
    current_user,
    done,
    owned,
    page,
    reading,
)
from router.admin.received import as_received
from router.admin.words import STATES
from router.configuration.blocking import block, blocked_by, can_block
from router.core.model import Outcome, Project
from router.db import models
from router.db.documents import UnknownProjectError
from router.db.log import (
    EMPTY,
    MISSED,
    NO_RULE,
    OPEN,
    OVERFLOW,
    Counted,
    Entry,
    Figures,
    Number,
    Place,
    Search,
    callers_holding,
    count_calls,
    count_newer,
    find,
    steps_of,
)
from router.db.records import record_of
from router.explanation.log import Names, explain_logged, line_of, outcome_of
from router.numbers import is_withheld, normalise_number, normalise_prefix

PAGE_ROWS = 50
SEARCH_SECONDS = 0.04  # time limit of a page's search; that of "search on" may take longer
LONG_SEARCH_SECONDS = 2.0
FIGURES_SECONDS = 0.05  # time limit of counting for a page
AGENTS_SHOWN = 50  # with figures on a page; the file has all
MOST_NEWS = 100
MOST_CALLERS = 200  # with the typed digits in their numbers, for a search by caller
CSV_BATCH = 500  # lines, which take about 50 ms of a process that also answers calls
DOWNLOAD_SECONDS = 600.0
DOWNLOADS = 2  # of one user in one process at the same time
_downloads: Counter[int] = Counter()  # by user
SHORTEST_PART = 4  # characters; fewer are searched for as an extension
_RULE_UNKNOWN = "none"


# ---- the filters


class UntilField(InstantField):
    """A time that means its end: of the minute for "14:05", of the day for "2026-12-24"."""

    def process_formdata(self, valuelist: list[str]) -> None:
        super().process_formdata(valuelist)
        if self.data is not None:
            self.data += self._span(valuelist[0].strip(), self.data)

    def _span(self, text: str, first: datetime) -> timedelta:
        digits = len(re.sub(r"\D", "", re.split(r"[Z+-]", text[10:])[0]))  # of the time of day, without its zone
        if digits:
            return {2: timedelta(hours=1), 4: timedelta(minutes=1), 6: timedelta(seconds=1)}.get(digits, _INSTANT)
        zone = ZoneInfo(self.time_zone or current_project().time_zone)
        next_day = first.astimezone(zone).date() + timedelta(days=1)
        return datetime.combine(next_day, time_of_day(), zone).astimezone(UTC) - first


_INSTANT = timedelta(microseconds=1)


class CallsForm(Form):
    """The filters of the call log, which are in its URL."""

    caller = TextField(lazy("Caller"), [at_most(100)])
    dialed = TextField(lazy("Dialed"), [at_most(100)])
    agent = SelectField(lazy("Offered to"), validate_choice=False)
    rule = SelectField(lazy("Rule"), validate_choice=False)
    outcome = SelectField(lazy("Outcome"), validate_choice=False)
    since = InstantField(lazy("From"))
    until = UntilField(lazy("Until"))
    period = HiddenField()  # a key of PERIODS, where neither time is set
    degraded = BooleanField(lazy("Only calls routed during an outage"))
    tests = SelectField(
        lazy("Test requests"),
        choices=choices([("", lazy("hidden")), ("only", lazy("only these")), ("all", lazy("shown too"))]),
        validate_choice=False,
    )

    def validate_until(self, field: Any) -> None:
        if field.data is not None and self.since.data is not None and field.data <= self.since.data:
            raise ValidationError(_("Not after “From”: choose a later time."))

    def offer(self, project: Project) -> None:
        """Set the choices. A chosen agent or rule that was deleted stays chosen: its calls are still in the log."""
        agents = sorted((agent.name.casefold(), str(agent.id), agent.name) for agent in project.agents.values())
        self.agent.choices = _or_any((key, name) for _order, key, name in agents)
        rules = [(str(rule.id), rule.name) for rule in project.rules]
        self.rule.choices = _or_any([*rules, (_RULE_UNKNOWN, _("no rule matched"))])
        for field in (self.agent, self.rule):
            if as_id(field.data) and field.data not in {choice.value for choice in field.choices}:
                field.choices.append(choices([(field.data, f"#{field.data}")])[0])
        self.outcome.choices = _or_any(OUTCOME_WORDS.items())

    def search(self, project: CurrentProject) -> Search:
        """Return the search. Invalid values are ignored."""
        since, until = self.since.data, self.until.data
        if self.period.data in PERIODS and since is None and until is None:
            since, until = days_of(self.period.data, project)
        return Search(
            caller=number_of(self.caller.data or "", project.country),
            dialed=number_of(self.dialed.data or "", project.country),
            agent_id=as_id(self.agent.data),
            rule_id=NO_RULE if self.rule.data == _RULE_UNKNOWN else as_id(self.rule.data),
            outcome=self.outcome.data if self.outcome.data in OUTCOME_WORDS else "",
            degraded=bool(self.degraded.data),
            since=since,
            until=until,
            is_test={"only": True, "all": None}.get(self.tests.data, False),
        )


PERIODS = {"today": (0, 1, lazy("Today")), "yesterday": (1, 1, lazy("Yesterday")), "week": (6, 7, lazy("Week"))}
"""By name: how many days ago the period began, how many days it has, and its label."""


def days_of(period: str, project: CurrentProject) -> tuple[datetime, datetime]:
    """Return the first instant of a period, and that after it, by the project's clock."""
    ago, days, _label = PERIODS[period]
    zone = ZoneInfo(project.time_zone)
    first = datetime.now(zone).date() - timedelta(days=ago)
    begin, end = (datetime.combine(day, time_of_day(), zone) for day in (first, first + timedelta(days=days)))
    return begin.astimezone(UTC), end.astimezone(UTC)


OUTCOME_WORDS: dict[str, Any] = {MISSED: lazy("Missed (all kinds)"), OPEN: STATES[OPEN].label}
OUTCOME_WORDS |= {name: STATES["unheard" if name == Outcome.UNKNOWN else name].label for name in Outcome}
OUTCOME_WORDS |= {name: STATES[name].label for name in (OVERFLOW, EMPTY)}
"""The outcomes to search for, in the words of the log."""


def _or_any(pairs: Iterable[tuple[str, Any]]) -> list[SelectChoice]:
    return choices([("", _("all")), *((key, str(label)) for key, label in pairs)])


def number_of(text: str, country: str) -> Number | None:
    """Return how to search for what was typed: as a whole number, as withheld, or as a part; None when empty."""
    text = text.strip()
    if not text:
        return None
    if is_withheld(text) or text.casefold() == _("anonymous").casefold():
        return Number(exact=("",))
    whole = normalise_number(text, country)
    digits = re.sub(r"[^\d]", "", text)
    if not digits or re.search(r"[^\W\d_]", text):  # a SIP login
        return Number(exact=(whole,)) if len(text) < SHORTEST_PART else Number(parts=(text,))
    if len(digits) < SHORTEST_PART or _is_complete(whole):
        return Number(exact=(whole,))
    # "050 123" may be the beginning of a national number, or anywhere in one.
    parts = dict.fromkeys((digits, normalise_prefix(text, country) or digits))
    return Number(parts=tuple(part for part in parts if not any(other != part and other in part for other in parts)))


def _is_complete(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(f"+{number}", None))
    except phonenumbers.NumberParseException:
        return False


# ---- the log


class _Asked(NamedTuple):
    """The arguments of the URL: a search, and a place in the log."""

    form: CallsForm
    search: Search
    arguments: dict[str, Any]  # of the search alone, for links: texts, as url_for takes them
    goes_on: bool  # for longer than a page may normally take


def _asked() -> _Asked:
    project = current_project()
    with reading() as session:
        rules = current_rules(session)
    sent = MultiDict((name, value) for name, value in request.args.items(multi=True))
    form = CallsForm(formdata=sent)
    form.offer(rules)
    is_valid = form.validate()
    search = form.search(project) if is_valid else Search()
    arguments = {name: sent[name].strip() for name in form.data if sent.get(name, "").strip()}
    return _Asked(form, search, arguments, sent.get("on") == "1")


@page("/p/<project>/calls", see=Role.VIEWER)
def calls() -> ResponseReturnValue:
    """Show a page of the log, newest first: from a place on, upwards or downwards."""
    asked = _asked()
    project = current_project()
    deadline = time.monotonic() + LONG_SEARCH_SECONDS  # of the list and the figures together
    older_than, newer_than = (Place.parse(request.args.get(name, "")) for name in ("older", "newer"))
    with reading() as session:
        search = _completed(session, project.id, asked.search) if asked.goes_on else asked.search
        found = find(
            session,
            project.id,
            search,
            limit=PAGE_ROWS,
            older_than=older_than,
            newer_than=newer_than,
            seconds=LONG_SEARCH_SECONDS if asked.goes_on else SEARCH_SECONDS,
        )
        names = _names(session, project)
        lines = [line_of(entry, names, project.mask) for entry in found.entries]
        is_counted = asked.search.since is not None and not asked.search.is_test and not asked.form.errors
        seconds = max(0.0, deadline - time.monotonic()) if asked.goes_on else FIGURES_SECONDS
        figures = _figures(session, project, asked, search, names, seconds) if is_counted else {}
    entries = found.entries
    first, last = (Place.of(entries[0]), Place.of(entries[-1])) if entries else (None, None)
    is_top = older_than is None and (newer_than is None or not found.has_more)
    older = last if newer_than is not None else (None if found.reached else last) if found.has_more else None
    newer = None if is_top else first if newer_than is None else (None if found.reached else first)
    status = 422 if asked.form.errors else 200
    return render_template(
        "calls/calls.html",
        form=asked.form,
        calls=lines,
        is_filtered=bool(asked.arguments),
        periods=[*_periods(asked)],
        agents_csv_url=url_for("admin.agents_csv", **asked.arguments),
        agents_excel_url=url_for("admin.agents_csv", excel="1", **asked.arguments),
        days=_days_in_words(asked.search, ZoneInfo(project.time_zone)) if asked.search.since else "",
        **figures,
        older_url=_url(asked, older=older) if older else None,
        newer_url=_url(asked, newer=newer) if newer else None,
        reached=found.reached,
        on_url=_on_url(asked, found.reached, older_than, newer_than),
        top=first if is_top else None,
        news_url=_url(asked, endpoint="admin.calls_news", newer=first or Place(0, 0)) if is_top else None,
        csv_url=url_for("admin.calls_csv", **asked.arguments),
        excel_url=url_for("admin.calls_csv", excel="1", **asked.arguments),
    ), status


def _periods(asked: _Asked) -> Iterator[tuple[Any, str, bool]]:
    """Yield label and URL of each period, and whether it is the chosen one."""
    others = {name: value for name, value in asked.arguments.items() if name not in {"since", "until"}}
    is_free = asked.form.since.data is not None or asked.form.until.data is not None
    for name, (_ago, _days, label) in PERIODS.items():
        url = url_for("admin.calls", **others | {"period": name})
        yield label, url, asked.form.period.data == name and not is_free


def _figures(
    session: Session, project: CurrentProject, asked: _Asked, search: Search, names: Names, seconds: float
) -> dict[str, Any]:
    """Return what _figures.html needs, counted within `seconds`. Of all outcomes: whoever looks for missed calls wants
    to see out of how many. Of no test requests, so its links leave them out too.
    """
    counted = count_calls(session, project.id, _all_outcomes(search), seconds=seconds)

    of_calls = {name: value for name, value in asked.arguments.items() if name != "tests"}

    def url(**more: str) -> str:
        return url_for("admin.calls", **of_calls | more)

    total, agents = counted.total, _by_agent(counted, names, project)
    return {
        "total": total,
        "tiles": [
            (_("Calls"), total.calls, url(outcome=""), ""),
            (_("Answered"), total.answered, url(outcome=Outcome.ANSWERED), Outcome.ANSWERED),
            (_("Missed"), total.missed, url(outcome=MISSED), MISSED),
            (_("Overflow"), total.overflow, url(outcome=OVERFLOW), OVERFLOW),
            (OUTCOME_WORDS[EMPTY], total.empty, url(outcome=EMPTY), EMPTY),
        ],
        "agents": [
            (name, figures, url(agent=str(agent), outcome=""), url(agent=str(agent), outcome=MISSED))
            for agent, name, figures in agents[:AGENTS_SHOWN]
        ],
        "more_agents": max(0, len(agents) - AGENTS_SHOWN),
        "counted_to": counted.reached,
        "count_on_url": url_for("admin.calls", **asked.arguments, on="1"),
    }


def _days_in_words(search: Search, zone: ZoneInfo) -> str:
    """Return the first and the last day of the search."""
    now = datetime.now(UTC)
    until = min(search.until or now, now) - timedelta(microseconds=1)
    days = (format_date(at.astimezone(zone).date(), "EEE, d MMMM") for at in (search.since, until) if at)
    return " – ".join(dict.fromkeys(days))


def _all_outcomes(search: Search) -> Search:
    return replace(search, outcome="", is_test=False)


def _by_agent(counted: Counted, names: Names, project: CurrentProject) -> list[tuple[int, str, Figures]]:
    """Return id, name and figures of each agent, whoever missed the most first."""
    named = [(agent, names.of("agents", agent, project.version), one) for agent, one in counted.agents.items()]
    return sorted(named, key=lambda row: (-row[2].missed, -row[2].calls, row[1].casefold()))


def _completed(session: Session, project_id: int, search: Search) -> Search:
    """Return the search with all callers whose numbers contain the typed part, unless there are too many."""
    if search.caller is None or search.caller.exact is not None:
        return search
    callers = callers_holding(session, project_id, search.caller, most=MOST_CALLERS)
    return search if callers is None else replace(search, caller=callers)


def _url(asked: _Asked, endpoint: str = "admin.calls", **places: Place) -> str:
    return url_for(endpoint, **asked.arguments | {name: str(place) for name, place in places.items()})


def _on_url(asked: _Asked, reached: Place | None, older_than: Place | None, newer_than: Place | None) -> str | None:
    """Return the URL that continues a search whose time was up: from there, or for a part of a caller's number once
    more from where this page began, through all callers that hold it.
    """
    if reached is None:
        return None
    name, place = ("newer", newer_than) if newer_than else ("older", older_than)
    if asked.goes_on or asked.search.caller is None or asked.search.caller.exact is not None:
        place = reached
    return url_for("admin.calls", **asked.arguments | {name: place and str(place), "on": "1"})


@page("/p/<project>/calls/news", see=Role.VIEWER)
def calls_news() -> ResponseReturnValue:
    """Show how many calls are newer than the top of the page; 204 for none."""
    asked = _asked()
    top = Place.parse(request.args.get("newer", ""))
    with reading() as session:
        count = count_newer(session, current_project().id, asked.search, top, limit=MOST_NEWS)
    if not count:
        return Response(status=204)
    return render_template(
        "calls/_news.html",
        count=count,
        most=MOST_NEWS,
        url=url_for("admin.calls", **asked.arguments),
        news_url=_url(asked, endpoint="admin.calls_news", newer=top or Place(0, 0)),
    )


@page("/p/<project>/calls/<int:id>", see=Role.VIEWER)
def call(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Explain one decision, and list the other questions of the same call."""
    project = current_project()
    with reading() as session:
        row = owned(session, models.Decision, id)
        record = record_of(session, row)
        names = _names(session, project)
        logged = explain_logged(session, row, record, names, masked=project.mask_numbers)
        entries = steps_of(session, project.id, row.call_id)
        steps = [(entry.step, line_of(entry, names, project.mask)) for entry in entries]
        try:
            blocked = blocked_by(current_configuration(session).document, row.caller)
        except UnknownProjectError:  # nothing is published
            blocked = None
    again: dict[str, Any] = (
        {"dialed": row.dialed} if project.mask_numbers else {"caller": row.caller, "dialed": row.dialed}
    )
    params = record["call"]["params"] if not project.mask_numbers else {}
    return render_template(
        "calls/call.html",
        d=logged.explanation,
        logged=logged,
        call=logged.call,
        params=logged.params,
        received=logged.received and as_received(logged.received, row.caller),
        is_there=names.is_there,
        checked=_CHECKED[logged.check],
        steps=steps,
        blocked=blocked,
        hears=HEARS,
        can_block=can_block(row.caller, project.country),
        is_erased="erased_at" in record,
        again_url=url_for(
            "admin.try_call",
            **again,
            direction=record["call"]["direction"] or None,
            name=list(params)[:20] or None,
            value=list(params.values())[:20] or None,
        ),
    )


@page("/p/<project>/calls/<int:id>/block", do=Role.EDITOR)
def call_block(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Block the caller of this call."""
    project, back = current_project(), url_for("admin.call", id=id)
    with changing() as draft:
        caller = owned(draft.session, models.Decision, id).caller
        if not can_block(caller, project.country):
            return done(_("This caller cannot be blocked by number."), back, "warning")
        if rule := blocked_by(draft.document, caller):
            return done(_("The rule “%(name)s” blocks this caller already.", name=rule["name"]), back, "info")
        block(draft, caller, _("Blocked numbers"))
        rule = draft.document["rules"][0]
    said = _("Blocked from the next call by the rule “%(name)s”, at the top. %(hears)s", name=rule["name"], hears=HEARS)
    return done(said, back)


_CHECKED = {
    True: ("matched", lazy("The same inputs give the same result.")),
    False: ("degraded", lazy("The same inputs give another result now: this release decides differently.")),
    None: ("unknown", lazy("Not possible: the inputs are no longer stored.")),
}
"""Sign and words, by whether deciding again gives the same."""

HEARS = lazy(
    "Ringostat gets no destination for such a call and follows its own scheme: what the caller hears, such as a "
    "message or a busy tone, is set there."
)


def _names(session: Session, project: CurrentProject) -> Names:
    return Names(session, project.id, project.version)


# ---- as a file


class _Dialect(NamedTuple):
    """A format of CSV files."""

    delimiter: str
    decimal: str
    mark: str  # a byte order mark before the first line, or ""

    def number(self, value: float | None) -> str:
        return "" if value is None else f"{value:.12g}".replace(".", self.decimal)


T = TypeVar("T")
_Read = Callable[[Session, T | None], tuple[str, T | None]]
"""Read lines, given how far the read before came, and return them with how far it came; None at the end."""

_PLAIN = _Dialect(",", ".", "")


def _excel() -> _Dialect:
    """Return Excel's format: it recognises UTF-8 by the mark, and expects the separator of the reader's country."""
    return _Dialect(";", ",", "\ufeff") if language() == "uk" else _Dialect(",", ".", "\ufeff")


@page("/p/<project>/calls.csv", see=Role.VIEWER)
def calls_csv() -> ResponseReturnValue:
    """Send all calls that the filters find, newest first, while they are read. `excel=1`: in Excel's format."""
    asked, project = _asked(), current_project()
    columns = _columns()
    outcomes = {name: str(label) for name, label in OUTCOME_WORDS.items()}
    zone, dialect = ZoneInfo(project.time_zone), _dialect()

    def read(session: Session, place: Place | None) -> tuple[str, Place | None]:
        search = _completed(session, project.id, asked.search)
        found = find(session, project.id, search, limit=CSV_BATCH, older_than=place)
        names = _names(session, project)
        cells = (_Cell(entry, names, project.mask(entry.caller), zone, dialect, outcomes) for entry in found.entries)
        text = "".join(_line([content(cell) for _label, content in columns], dialect) for cell in cells)
        return text, Place.of(found.entries[-1]) if found.has_more else None

    return _file(asked, "calls", dialect, [label for label, _content in columns], read)


@page("/p/<project>/calls/agents.csv", see=Role.VIEWER)
def agents_csv() -> ResponseReturnValue:
    """Send the figures of all calls that the filters find, of any outcome: by agent, and in total."""
    asked, project, dialect, in_total = _asked(), current_project(), _dialect(), _("Calls in total")

    def line(name: str, figures: Figures) -> str:
        wait = None if figures.average_wait is None else round(figures.average_wait, 1)
        numbers = (figures.calls, figures.answered, figures.missed, wait, figures.talked)
        return _line([name, *map(dialect.number, numbers)], dialect)

    def read(session: Session, before: Counted | None) -> tuple[str, Counted | None]:
        search = _all_outcomes(_completed(session, project.id, asked.search))
        counted = count_calls(session, project.id, search, before=before, seconds=FIGURES_SECONDS)
        if counted.reached is not None:
            return "", counted
        agents = _by_agent(counted, _names(session, project), project)
        return "".join(line(name, one) for _id, name, one in agents) + line(in_total, counted.total), None

    labels = (_("Agent"), _("Offered"), _("Answered"), _("Missed"), _("Average wait, seconds"), _("Talked, seconds"))
    return _file(asked, "agents", dialect, labels, read)


def _dialect() -> _Dialect:
    return _excel() if request.args.get("excel") == "1" else _PLAIN


def _file(asked: _Asked, what: str, dialect: _Dialect, labels: Sequence[str], read: _Read[T]) -> ResponseReturnValue:
    """Return a file with a line of labels, and then all that `read` returns, as it is read."""
    if asked.form.errors:  # the page shows them
        return redirect(url_for("admin.calls", **asked.arguments))
    project = current_project()
    is_packed = bool(request.accept_encodings["gzip"])
    stream = _encoded(dialect.mark + _line(labels, dialect), _in_turns(read))
    day = datetime.now(ZoneInfo(project.time_zone)).strftime("%Y-%m-%d")
    name = f"{what} {project.name} {day}.csv"
    user = current_user().id
    if _downloads[user] >= DOWNLOADS:
        abort(429, _("You are downloading two files already. Wait until one of them is complete."))
    counted = _counted(_packed(stream) if is_packed else stream, user)
    response = Response(counted, content_type="text/csv; charset=utf-8")
    ascii_name = "".join(c if (c.isascii() and c.isalnum()) or c in " -_." else "_" for c in name)
    response.headers["Content-Disposition"] = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name)}"
    if is_packed:
        response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    return response


class _Cell(NamedTuple):
    """The data for the cells of a line."""

    entry: Entry
    names: Names
    caller: str
    zone: ZoneInfo
    dialect: _Dialect
    outcomes: dict[str, str]


def _columns() -> list[tuple[str, Callable[[_Cell], str]]]:
    """Return label and content of each column."""
    return [
        (_("Number"), lambda c: str(c.entry.id)),
        (_("When"), lambda c: c.entry.asked_at.astimezone(c.zone).strftime("%Y-%m-%d %H:%M:%S")),
        (_("Call id"), lambda c: c.entry.call_id),
        (_("Step"), lambda c: c.entry.step),
        (_("Caller"), lambda c: c.caller),
        (_("Dialed"), lambda c: c.entry.dialed),
        (_("Rule"), lambda c: c.names.of("rules", c.entry.rule_id, c.entry.config_version)),
        (_("Group"), lambda c: c.names.of("groups", c.entry.group_id, c.entry.config_version)),
        (_("Offered to"), lambda c: c.names.of("agents", c.entry.agent_id, c.entry.config_version)),
        (_("SIP login"), lambda c: c.entry.sip_login),
        (_("Answer"), lambda c: c.entry.destination),
        (_("Overflow"), lambda c: "1" if c.entry.destination and c.entry.agent_id is None else ""),
        (_("Outcome"), _outcome),
        (_("Estimated"), lambda c: "1" if c.entry.inferred else ""),
        (_("Answered by"), _answered_by),
        (_("Waited, seconds"), lambda c: c.dialect.number(c.entry.waited_seconds)),
        (_("Talked, seconds"), lambda c: c.dialect.number(c.entry.talked_seconds)),
        (_("Reported as"), lambda c: c.entry.disposition),
        (_("Routed during an outage"), lambda c: c.entry.degraded),
        (_("Answered in, ms"), lambda c: c.dialect.number(c.entry.latency_us / 1000)),
        (_("Configuration"), lambda c: str(c.entry.config_version)),
        (_("Test"), lambda c: "1" if c.entry.is_test else ""),
    ]


def _outcome(cell: _Cell) -> str:
    """Return the outcome in words, as on the page; "" for an overflow without an outcome."""
    if outcome_of(cell.entry) is None:
        return ""
    outcome: str = cell.entry.outcome or OPEN
    return cell.outcomes.get(outcome, outcome)


def _answered_by(cell: _Cell) -> str:
    entry = cell.entry
    return cell.names.of("agents", entry.answered_agent_id, entry.config_version) or entry.answered_login


def _in_turns(read: _Read[T]) -> Iterator[str]:
    """Return an iterator of what `read` returns, until there is no more. It runs after the request.

    Between two reads it holds neither a connection nor the turn of pages, however slowly the client reads.
    """
    database, turn = context().database, context().turn

    def run() -> Iterator[str]:
        state: T | None = None
        give_up_at = time.monotonic() + DOWNLOAD_SECONDS
        while True:
            if time.monotonic() > give_up_at:
                raise TimeoutError("a download took too long")
            time.sleep(LET_CALLS_IN)
            with turn, database.reading() as session:
                text, state = read(session, state)
            if text:  # an empty piece would end the answer
                yield text
            if state is None:
                return

    return run()


def _line(values: Sequence[str], dialect: _Dialect) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter=dialect.delimiter).writerow([_harmless(value) for value in values])
    return line.getvalue()


_FORMULA_MARKS = frozenset("=+-@|%\u2212")  # superscript minuses are normalised to the last one
_LEFT_OUT = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})  # invisible characters, which spreadsheets skip before a formula


def _harmless(value: str) -> str:
    """Return the value with a quote in front if a spreadsheet would run it as a formula, also one that begins with a
    wide, small or raised sign: callers and call ids come from strangers.
    """
    first = next((char for char in value if unicodedata.category(char) not in _LEFT_OUT), "")
    begins_badly = unicodedata.normalize("NFKC", first)[:1] in _FORMULA_MARKS or value[:1] in "\t\r\n"
    return f"'{value}" if value and begins_badly else value


def _encoded(first: str, lines: Iterator[str]) -> Iterator[bytes]:
    yield first.encode()
    for text in lines:
        yield text.encode("utf-8", "replace")


def _counted(stream: Iterator[bytes], user: int) -> Iterator[bytes]:
    _downloads[user] += 1
    try:
        yield from stream
    finally:
        _downloads[user] -= 1


def _packed(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Compress the stream, so that sending it takes less time of the process."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packer:
        for chunk in stream:
            packer.write(chunk)
            if buffer.tell():
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
    yield buffer.getvalue()
