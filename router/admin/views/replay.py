"""Replay: calls of the past through another configuration. What would have gone otherwise, and why. Changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import SelectField

from router.admin import studying
from router.admin.forms.base import Form, NumberField, choices
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    as_id,
    context,
    current_project,
    done,
    owned,
    page,
    reading,
    render_form,
)
from router.configuration.document import names_of
from router.core.model import Call
from router.db import models
from router.db.documents import (
    BuildError,
    Configured,
    Document,
    build_project,
    is_buildable,
)
from router.db.records import record_of
from router.db.types import EPOCH
from router.explanation import studies
from router.explanation.decision import Decided, explain
from router.explanation.log import MOST_CANDIDATES, Names, explain_logged
from router.explanation.replay import LISTED, Answer, Unknown, decide_again, reconstruct_alone
from router.explanation.studies import Study
from router.numbers import mask_within

PAGE_ROWS = 50
MOST_CALLS = 10_000
AGENTS_SHOWN = 50
MOST_EARLIER = 10


class Span(NamedTuple):
    """A choice of calls. `first`: how many days ago it begins; None: with the first call. `last`: its last day."""

    label: Any
    first: int | None
    last: int


PERIODS: Mapping[str, Span] = {
    "yesterday": Span(lazy("Yesterday"), 1, 1),
    "today": Span(lazy("Today"), 0, 0),
    "week": Span(lazy("The last 7 days"), 6, 0),
    "month": Span(lazy("The last 30 days"), 29, 0),
    "all": Span(lazy("All stored calls"), None, 0),
}


class ReplayForm(Form):
    """What is replayed, through which configuration."""

    through = SelectField(lazy("Configuration"), validate_choice=False)
    period = SelectField(lazy("Calls"), default="yesterday", validate_choice=False)
    most = NumberField(
        lazy("At most"), least=1, most=MOST_CALLS, whole=True, default=MOST_CALLS, unit=lazy("newest answers")
    )

    gone: Sequence[str] = ()  # fields whose choice is not there

    def offer(self, session: Session) -> None:
        """Set the choices. What is chosen already and not there is replaced, and refused if it was posted."""
        self.through.choices = choices(studying.offered(session, self.through.data))
        self.period.choices = choices([(name, span.label) for name, span in PERIODS.items()])
        fields = (self.through, self.period)
        unknown = [field for field in fields if field.data not in {choice.value for choice in field.choices}]
        self.gone = [field.name for field in unknown if field.data]
        for field in unknown:
            field.data = field.choices[0].value
        if self.most.data is None and not self.is_posted:  # a link need not say all
            self.most.data, self.most.raw_data = self.most.default, None

    def validate(self, extra_validators: Any = None) -> bool:
        """Refuse a choice that is gone."""
        is_valid = super().validate(extra_validators)
        for name in self.gone:
            self.refuse(name, _("What you chose is not there any more. Choose again."))
        return bool(is_valid) and not self.gone


# ---- start


@page("/p/<project>/replay", see=Role.VIEWER, do=Role.VIEWER)
def replay() -> ResponseReturnValue:
    """Show the form and the replays before; start one."""
    form = ReplayForm(request.form if request.method == "POST" else request.args or None)
    project = current_project()
    with reading() as session:
        form.offer(session)
        has_calls = studying.has_calls(session)
    if form.saves():
        return _start(form.through.data, form.period.data, int(form.most.data or MOST_CALLS))
    found = studies.list_studies(context().database, project.id, kind="replay", limit=MOST_EARLIER)
    sums = studies.sums_of(context().database, [one.id for one in found], "total", "differing", "cannot_be_said")
    earlier = [described(one, sums.get(one.id)) for one in found]
    return render_form("replay/replay.html", form, earlier=earlier, has_calls=has_calls)


def _start(through: str, period: str, most: int) -> ResponseReturnValue:
    with reading() as session:
        document, told = studying.chosen(session, through)
    back = url_for("admin.replay")
    if not is_buildable(document):
        return done(
            _("Calls cannot be routed by this configuration, so none can be replayed through it."), back, "warning"
        )
    return start_replay(document, told, period, most, back)


def start_replay(
    document: Document, told: Mapping[str, Any], period: str = "yesterday", most: int = MOST_CALLS, back: str = ""
) -> ResponseReturnValue:
    """Start a replay through this document and go to its page; `back` with a message if that cannot be now.

    `told`: what the document is: `through` = now, version or draft, and `version`.
    """
    since, until = _times(period)
    parameters = {**told, "period": period, "most": most, "digest": digest_of(document)}
    parameters |= {"since": since.isoformat(), "until": until.isoformat()}
    return studying.start("replay", document, parameters, back or url_for("admin.replay"))


def digest_of(document: Document) -> str:
    """Return a text that is the same for the same configuration."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _times(period: str) -> tuple[datetime, datetime]:
    """Return the first instant of the period, and that after it, by the project's clock."""
    zone = ZoneInfo(current_project().time_zone)
    span, today = PERIODS[period], datetime.now(zone).date()

    def begin(days_ago: int) -> datetime:
        return datetime.combine(today - timedelta(days=days_ago), time_of_day(), zone).astimezone(UTC)

    return EPOCH if span.first is None else begin(span.first), min(begin(span.last - 1), datetime.now(UTC))


# ---- its result


class Described(NamedTuple):
    """A replay as lists and pages name it."""

    study: Study
    through: str
    calls: str
    result: Mapping[str, Any]


def described(study: Study, result: Mapping[str, Any] | None = None) -> Described:
    """Return a replay with its words."""
    told = study.parameters
    calls = str(PERIODS["all"].label) if PERIODS[told["period"]].first is None else studying.days(told)
    return Described(study, studying.through(told), calls, result or {})


class Change(NamedTuple):
    """Calls of a rule or an agent then and now. `id` None: no rule, or the overflow."""

    id: int | None
    name: str
    then: int
    now: int


class Line(NamedTuple):
    """A call that would have been answered otherwise. `at` None: it is no longer stored. `is_reconstructed`: by what
    other calls found.
    """

    id: int
    at: datetime | None
    caller: str
    then: Mapping[str, Any]
    now: Mapping[str, Any]
    is_reconstructed: bool


class Naming:
    """Names of rules and agents: as the replayed configuration has them, else as they are or were."""

    def __init__(self, session: Session, document: Document) -> None:
        project = current_project()
        self._version, self._names = project.version, Names(session, project.id, project.version)
        self._known = names_of({"tests": [], **document})

    def of(self, kind: str, row_id: int | None) -> str:
        if row_id is None:
            return _("no rule") if kind == "rules" else _("Overflow")
        return self._known[kind].get(row_id) or self._names.of(kind, row_id, self._version)

    def changes(self, kind: str, rows: Sequence[Sequence[Any]]) -> list[Change]:
        return [Change(row_id, self.of(kind, row_id), then, now) for row_id, then, now in rows]

    def answer(self, answer: Answer) -> dict[str, Any]:
        """Return what the macro `answer` shows, and the rule."""
        offered = answer.agent_id is not None
        return {
            "agent": self.of("agents", answer.agent_id) if offered else "",
            "sip_login": answer.destination if offered else "",
            "destination": answer.destination,
            "rule": self.of("rules", answer.rule_id),
        }


KINDS: Mapping[str, Any] = {
    "": lazy("Differently"),
    "to": lazy("To the overflow now"),
    "from": lazy("No longer to the overflow"),
}
"""Which of the differing calls are listed."""


class _Difference(NamedTuple):
    """A difference as a study stores it."""

    id: int
    then: Answer
    now: Answer
    is_reconstructed: bool

    @classmethod
    def read(cls, stored: Sequence[Any]) -> _Difference:
        row_id, then, now, is_reconstructed = stored
        return cls(row_id, Answer(*then), Answer(*now), is_reconstructed)

    def is_of(self, kind: str) -> bool:
        gone, come = self.then.agent_id is None, self.now.agent_id is None
        return {"to": come and not gone, "from": gone and not come}.get(kind, True)


@page("/p/<project>/replay/<int:number>", see=Role.VIEWER)
def replay_result(number: int) -> ResponseReturnValue:
    """Show how far a replay is, then its result. `kind`: which calls are listed; `from`: the place of the first."""
    project = current_project()
    loaded = studies.load_study(context().database, project.id, number)
    if loaded is None or loaded[0].kind != "replay":
        abort(404)
    study, document, result = loaded
    kind = request.args.get("kind", "")
    kind = kind if kind in KINDS else ""
    place = max(0, (as_id(request.args.get("from")) or 1) - 1)
    found = [_Difference.read(one) for one in result.get("differences", ())]
    found = [one for one in found if one.is_of(kind)]
    with reading() as session:
        naming = Naming(session, document)
        lines = list(_lines(session, naming, found[place : place + PAGE_ROWS]))

        def url(**more: Any) -> str:
            return url_for("admin.replay_result", number=number, **({"kind": kind or None} | more))

        return render_template(
            "replay/result.html",
            replay=described(study, result),
            rules=naming.changes("rules", result.get("rules", ())),
            agents=naming.changes("agents", result.get("agents", ()))[:AGENTS_SHOWN],
            more_agents=max(0, len(result.get("agents", ())) - AGENTS_SHOWN),
            unknown=[(UNKNOWN_WORDS[why], count) for why, count in result.get("unknown", {}).items()],
            lines=lines,
            kind=kind,
            tiles=_tiles(result, url),
            listed=LISTED,
            again_url=_again_url(study),
            newer_url=url(**{"from": max(1, place - PAGE_ROWS + 1)}) if place else None,
            older_url=url(**{"from": place + PAGE_ROWS + 1}) if place + PAGE_ROWS < len(found) else None,
        )


def _again_url(study: Study) -> str:
    """Return the URL of the form, filled in as it was."""
    told = study.parameters
    return url_for("admin.replay", through=studying.choice(told), period=told["period"], most=told["most"])


UNKNOWN_WORDS: Mapping[str, Any] = {why.value: lazy(why.words) for why in Unknown}


def _tiles(result: Mapping[str, Any], url: Any) -> list[tuple[str, int, str | None, str | None]]:
    """Return label, number, link and kind of each figure."""
    if not result:
        return []
    unknown = sum(result["unknown"].values())
    same = result["total"] - result["differing"] - unknown
    return [
        (_("Answers"), result["total"], None, None),
        (_("As before"), same, None, None),
        (str(KINDS[""]), result["differing"], url(kind=None), ""),
        (str(KINDS["to"]), result["to_overflow"], url(kind="to"), "to"),
        (str(KINDS["from"]), result["from_overflow"], url(kind="from"), "from"),
        (_("Cannot be said"), unknown, None, None),
    ]


def _lines(session: Session, naming: Naming, found: Sequence[_Difference]) -> Iterator[Line]:
    """Yield what the list shows of these calls: when and who is in the log alone."""
    project, decision = current_project(), models.Decision
    query = select(decision.id, decision.asked_at, decision.caller).where(
        decision.project_id == project.id, decision.id.in_([one.id for one in found])
    )
    stored = {row.id: row for row in session.execute(query)}
    for one in found:
        row = stored.get(one.id)
        caller = project.mask(row.caller) if row else ""
        then, now = naming.answer(one.then), naming.answer(one.now)
        yield Line(one.id, row and row.asked_at, caller, then, now, one.is_reconstructed)


class Section(NamedTuple):
    """The newest replay through a draft, as replay/_section.html shows it on the page at `url`.

    `is_old`: the draft was changed since. `start_url`: where a new one is posted to, and the section alone is shown.
    """

    replay: Described | None
    is_old: bool
    rules: Sequence[Change]  # which gain or lose calls
    url: str
    start_url: str


def section_of(document: Document, url: str, start_url: str) -> Section:
    """Return the newest replay through the current project's draft, of which this is the document."""
    project_id, database = current_project().id, context().database
    newest = next(
        (
            one
            for one in studies.list_studies(database, project_id, kind="replay")
            if one.parameters["through"] == "draft"
        ),
        None,
    )
    loaded = newest and studies.load_study(database, project_id, newest.id)
    if not loaded:
        return Section(None, False, (), url, start_url)
    study, replayed, result = loaded
    with reading() as session:
        rules = Naming(session, replayed).changes("rules", result.get("rules", ()))
    changed = [one for one in rules if one.then != one.now]
    is_old = study.parameters["digest"] != digest_of(document)
    return Section(described(study, result), is_old, changed, url, start_url)


@page("/p/<project>/replay/<int:number>/stop", do=Role.VIEWER)
def replay_stop(number: int) -> ResponseReturnValue:
    """Stop a replay."""
    stopped = studies.stop(context().database, current_project().id, number)
    message = _("The replay is stopped.") if stopped else _("The replay has ended already.")
    return done(message, url_for("admin.replay"), "success" if stopped else "info")


@page("/p/<project>/replay/<int:number>/calls/<int:id>", see=Role.VIEWER)
def replay_call(number: int, id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show side by side what happened to a call, and what would have."""
    project = current_project()
    loaded = studies.load_study(context().database, project.id, number)
    if loaded is None or loaded[0].kind != "replay":
        abort(404)
    study, document, _result = loaded
    with reading() as session:
        row = owned(session, models.Decision, id)
        record = record_of(session, row)
        names = Names(session, project.id, project.version)
        logged = explain_logged(session, row, record, names, masked=project.mask_numbers)
        try:
            found = Configured(document, build_project(document, project.id, study.parameters["version"] or 0))
        except BuildError:
            abort(404)
        replayed = decide_again(session, found.project, row)
        would, is_reconstructed = None, False
        unknown: Unknown | None = Unknown.GONE
        if replayed is not None:
            if replayed.unknown is not None:
                replayed = reconstruct_alone(context().database, session, found.project, replayed)
            hide = partial(mask_within, number=row.caller) if project.mask_numbers else str
            case, unknown = replayed.case, replayed.unknown
            facts = (case.snapshot.now, found.project.version, case.then.call, replayed.decision, found, case.snapshot)
            would = explain(Decided(*facts, hide=hide, most=MOST_CANDIDATES))
            is_reconstructed = case.is_reconstructed
    caller = project.mask(row.caller)
    return render_template(
        "replay/call.html",
        replay=described(study),
        logged=logged,
        would=would,
        unknown=UNKNOWN_WORDS[unknown] if unknown else "",
        is_reconstructed=is_reconstructed,
        call=Call(row.call_id, row.step, caller, row.dialed, record["call"]["direction"]),
        params=logged.params,
        is_there=names.is_there,
    )
