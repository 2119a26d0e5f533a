"""Rules: the list in their order, how often each matched, editing, deleting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple
from zoneinfo import ZoneInfo

from flask import Response, abort, flash, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date
from sqlalchemy import BigInteger, func, select, type_coerce
from sqlalchemy.orm import Session
from wtforms import RadioField
from wtforms.validators import ValidationError

from router.admin.advice import Advice, advise
from router.admin.conditions import KINDS, Known, Row, Words, first_refused, split_values
from router.admin.forms.base import TextField, choices, too_many_entries
from router.admin.forms.overflow import fill_overflow, overflow_fields, read_overflow
from router.admin.forms.parts import (
    ItemForm,
    RowsField,
    TypedRow,
    move_by_button,
    name_field,
)
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    as_id,
    changing,
    current_configuration,
    current_project,
    done,
    editing,
    enter_project,
    or_drafted,
    page,
    reading,
    render_form,
    saved_message,
    toast_header,
)
from router.admin.views.schedules import overridden
from router.configuration.change import Draft
from router.configuration.document import convert
from router.configuration.schema import MAX_TEXT_CHARS, RuleConfig, WhenConfig, check_param_name, most_of, section_of
from router.core.coverage import uncovered_hours
from router.db import models
from router.db.documents import BuildError, build_project, named_when
from router.db.queries import is_of_call
from router.db.types import to_micros

MATCH_DAYS = 7
MOST_COUNTED = 20_000  # decisions: reading these from an index takes a few milliseconds, however long the log is
TREND_PARTS = 14
SPANS_NAMED = 4


@page("/p/<project>/rules", see=Role.VIEWER, drafts=True)
def rules() -> ResponseReturnValue:
    """List the rules as sentences, first to last."""
    with reading() as session:
        document, project, _fault = current_configuration(session)
        now = datetime.now(UTC)
        matches, closed = count_matches(session, current_project().id, now), overridden(session, document, now)
    advice = advise(document, project)
    cards = {
        "rules": [*_cards(document, document["rules"], matches, advice, closed)],
        "project_overflow": project.overflow,
    }
    if request.method == "POST":  # by htmx, for a new order
        html = render_template("rules/_cards.html", **cards)
        return Response(html, headers=toast_header(saved_message(), back=url_for("admin.rules")))
    return render_template(
        "rules/rules.html",
        **cards,
        overridden=closed,
        back=url_for("admin.rules"),
        counted_since=matches.since,
        is_capped=matches.is_capped,
        gaps=[*_span_words(uncovered_hours(project, _monday(project.time_zone)))],
        no_overflow=any(one.kind == "no_overflow" for one in advice),
        has_groups=bool(project.groups),
    )


# ---- how often, and when last


class Matches(NamedTuple):
    """By rule: the number of calls, the last of them, and the numbers in TREND_PARTS equal parts of the time since
    `since`.
    """

    since: datetime
    is_capped: bool
    counts: dict[int, int]
    last_at: dict[int, datetime]
    trend: dict[int, list[int]]


def count_matches(session: Session, project_id: int, now: datetime) -> Matches:
    """Count the matches of the last MATCH_DAYS or the last MOST_COUNTED calls, whichever are fewer.

    Reads only an index.
    """
    decision = models.Decision
    since = now - timedelta(days=MATCH_DAYS)
    of_project = (decision.project_id == project_id, decision.asked_at >= since, is_of_call([project_id]))
    newest_first = select(decision.asked_at).where(*of_project).order_by(decision.asked_at.desc())
    oldest = session.scalar(newest_first.offset(MOST_COUNTED - 1).limit(1))
    is_capped = oldest is not None
    since = oldest or since
    part = max(1, (to_micros(now) - to_micros(since)) // TREND_PARTS + 1)
    # As a number: SQLAlchemy allows no plain arithmetic with the column's own type.
    place = (type_coerce(decision.asked_at, BigInteger) - to_micros(since)) // part
    rows = session.execute(
        select(decision.rule_id, place, func.count(), func.max(decision.asked_at))
        .where(*of_project, decision.asked_at >= since)
        .group_by(decision.rule_id, place)
    )
    matches = Matches(since, is_capped, {}, {}, {})
    for rule_id, where, count, last_at in rows:
        if rule_id is None:
            continue  # no rule matched
        trend = matches.trend.setdefault(rule_id, [0] * TREND_PARTS)
        trend[min(max(int(where), 0), TREND_PARTS - 1)] += count
        matches.counts[rule_id] = matches.counts.get(rule_id, 0) + count
        matches.last_at[rule_id] = max(last_at, matches.last_at.get(rule_id, last_at))
    return matches


# ---- in words


def _cards(
    document: Mapping[str, Any],
    rows: Iterable[Mapping[str, Any]],
    matches: Matches,
    advice: Iterable[Advice],
    closed: Iterable[Mapping[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Yield what _cards.html needs of these rules of the document."""
    names = {kind: {row["id"]: row["name"] for row in document[kind]} for kind in ("agents", "groups", "schedules")}
    warnings: dict[int, list[str]] = {}
    empty: set[int] = set()
    for one in advice:
        if one.subject == "rule":
            warnings.setdefault(one.subject_id, []).append(one.text)
        if one.kind == "no_members":
            empty.add(one.subject_id)
    for row in rows:
        is_tried = row["enabled"] and row["id"] not in warnings
        nobody = [names["groups"][group_id] for group_id in row["groups"] if group_id in empty]
        if nobody and row["enabled"]:
            text = _("No members in %(groups)s: such calls go on to what follows.", groups=", ".join(nobody))
            warnings.setdefault(row["id"], []).append(text)
        yield {
            "id": row["id"],
            "name": row["name"],
            "enabled": row["enabled"],
            "matched_count": matches.counts.get(row["id"], 0),
            "matched_at": matches.last_at.get(row["id"]),
            "trend": matches.trend.get(row["id"], []),
            "warnings": warnings.get(row["id"], []),
            "overridden": [
                (one["open"] is (key == "schedule"), one)
                for key in ("schedule", "outside")
                for one in closed
                if is_tried and row["when"].get(key) == one["id"]
            ],
            **sentence(row, names),
        }


def sentence(rule: Mapping[str, Any], names: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """Return what _phrase.html needs of a rule of a document. `names`: of groups and schedules by id."""
    prefer = rule["prefer"]
    return {
        "phrases": [phrase for kind in KINDS.values() for phrase in kind.phrases(named_when(rule["when"], names))],
        "prefer": f"param:{prefer['param']}" if isinstance(prefer, dict) else prefer,
        "prefer_days": rule["prefer_days"],
        "groups": [
            {"name": names["groups"][group_id], "url": url_for("admin.group", id=group_id)}
            for group_id in rule["groups"]
        ],
        "overflow": rule["overflow"],
        "options": [
            (lazy(notes.label), [names[f"{notes.refers}s"].get(row_id, "") for row_id in rule.get(key, ())])
            for key, notes in section_of(RuleConfig, "options")
            if rule.get(key)
        ],
    }


def _monday(time_zone: str) -> date:
    today = datetime.now(ZoneInfo(time_zone)).date()
    return today - timedelta(days=today.weekday())


def _span_words(spans: list[tuple[int, int]]) -> Iterator[str]:
    """Yield the first few spans of a week: "Mon 13:00–14:00", "Mon 18:00 – Tue 09:00"."""
    for start, end in spans[:SPANS_NAMED]:
        (day, first), (last_day, last) = _at(start), _at(end, ends=True)
        yield f"{day} {first}–{last}" if day == last_day else f"{day} {first} – {last_day} {last}"
    if len(spans) > SPANS_NAMED:
        yield "…"


def _at(minute: int, *, ends: bool = False) -> tuple[str, str]:
    """Return day and time. The end of a day is its 24:00, not midnight of the next."""
    day, minute = divmod(minute, 24 * 60)
    if ends and minute == 0:
        day, minute = day - 1, 24 * 60
    return format_date(date(2024, 1, 1 + day % 7), "EEE"), f"{minute // 60:02}:{minute % 60:02}"


# ---- one rule


@page("/p/<project>/rules/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True, drafts=True)
def rule_new() -> ResponseReturnValue:
    """Add a rule."""
    cache_posted_numbers()
    with editing() as draft:
        form = RuleForm(draft)
        if form.saves():
            return _done(form, _("%(name)s is added.", name=form.name.data))
    return _form_page(form, None)


@page("/p/<project>/rules/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True, drafts=True)
def rule(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change one rule."""
    cache_posted_numbers()
    with editing() as draft:
        form = RuleForm(draft, id)
        if form.saves():
            return _done(form, saved_message())
    return _form_page(form, id)


def _done(form: RuleForm, message: str) -> ResponseReturnValue:
    if never := form.never_matches():
        flash(never, "warning")
    return done(message, url_for("admin.rules"))


def _form_page(form: RuleForm, rule_id: int | None) -> ResponseReturnValue:
    if "preview" in request.form:
        return render_template("rules/_never.html", never=form.never_matches())
    ids = form.conditions.ids
    return render_form(
        "rules/rule.html",
        form,
        card=None if rule_id is None else _card(rule_id),
        kinds=KINDS,
        offered=[(kind.name, kind.label) for kind in KINDS.values() if not kind.chosen or ids[kind.chosen]],
        is_edited=form.is_being_edited,
    )


def _card(rule_id: int) -> dict[str, Any] | None:
    """Return what _cards.html needs of the rule as it is saved."""
    with reading() as session:
        document, project, _fault = current_configuration(session)
        matches = count_matches(session, current_project().id, datetime.now(UTC))
    rows = [row for row in document["rules"] if row["id"] == rule_id]
    return next(_cards(document, rows, matches, advise(document, project)), None)


@page("/p/<project>/rules/<int:id>/delete", do=Role.EDITOR, drafts=True)
def rule_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete a rule."""
    with changing() as draft:
        name = draft.item("rules", id)["name"]
        draft.remove("rules", id)
    return done(_("%(name)s is deleted.", name=name), url_for("admin.rules"))


@page("/p/<project>/rules/<int:id>/switch", do=Role.EDITOR, drafts=True)
def rule_switch(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Turn a rule on or off."""
    is_on = request.form.get("on") == "1"
    with changing() as draft:
        name = draft.item("rules", id)["name"]
        draft.put("rules", {"enabled": is_on}, id)
    if is_on:
        return done(or_drafted(_("%(name)s is turned on.", name=name)), url_for("admin.rules"))
    return done(or_drafted(_("%(name)s is turned off: calls skip it.", name=name)), url_for("admin.rules"))


@page("/p/<project>/rules/order", do=Role.EDITOR, drafts=True)
def rules_order() -> ResponseReturnValue:
    """Store the order of all rules: as posted by a script, or after a move by a button."""
    wanted = [id_ for text in request.form.getlist("order") if (id_ := as_id(text))]
    with changing() as draft:
        ids = [row["id"] for row in draft.document["rules"]]
        if set(wanted) - set(ids) or len(set(wanted)) != len(wanted):
            abort(404)  # a rule was deleted since the page was shown
        order = wanted + [id_ for id_ in ids if id_ not in set(wanted)]  # rules added since then stay at the end
        move_by_button(order, request.form.get("move", ""))
        draft.order("rules", order)
    if request.headers.get("HX-Request"):
        enter_project(current_project().name)  # as it is now
        return rules()
    return done(saved_message(), url_for("admin.rules"))


# ---- the form


class ConditionsField(RowsField):
    """The conditions of a rule. `ids`: of schedules and groups by name, set before it is validated."""

    row, most = Row, most_of(WhenConfig, "params")
    rows: list[Row]
    ids: Known = MappingProxyType({})

    def check(self) -> None:
        """Set the errors of each row. First the values are counted, because checking very many would delay calls."""
        self._count()
        seen: set[str] = set()
        for row in () if any(row.errors for row in self.rows) else self.rows:
            kind, key = KINDS[row.kind], KINDS[row.kind].op(row.op).key
            kind.check(row, self.ids)
            if kind.is_single and key in seen and not row.errors:
                row.refuse(_("Only one condition of this kind is possible: remove the other one."))
            seen.add(key)

    def _count(self) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            key = KINDS[row.kind].op(row.op).key
            most, values, test = most_of(WhenConfig, key), split_values(row.value), (key, row.name.casefold())
            counts[test] += len(values)
            if most and counts[test] > most:
                row.refuse(too_many_entries(counts[test], most))
            elif any(len(value) > MAX_TEXT_CHARS for value in values):
                row.refuse(_("At most %(n)s characters.", n=MAX_TEXT_CHARS))

    def fill_from(self, when: Words) -> None:
        """Show the conditions of a document's rule."""
        stored = self._named(when)
        self.rows = [row for kind in KINDS.values() for row in kind.rows(stored)]

    def when(self, stored: Words) -> Words:
        """Return what was typed, as a document holds it. Kinds left unchanged stay as they are stored."""
        named = self._named(stored)
        when: Words = {}
        for kind in KINDS.values():
            rows = [row for row in self.rows if row.kind == kind.name]
            if rows == [*kind.rows(named)]:
                when |= {op.key: named[op.key] for op in kind.ops if op.key in named}
            else:
                for row in rows:
                    kind.store(row, when)
        return convert(WhenConfig, when, lambda of, name: self.ids[of][name])

    def _named(self, when: Words) -> Words:
        return named_when(when, {of: {id_: name for name, id_ in ids.items()} for of, ids in self.ids.items()})


def cache_posted_numbers() -> None:
    """Normalise the posted numbers, so that router.numbers caches them.

    Called before the transaction begins, because normalising a thousand numbers takes longer than storing them.
    """
    for key, text in request.form.items():
        if key.startswith("conditions-") and key.endswith("-value"):
            values = split_values(text)
            if len(values) <= most_of(WhenConfig, "caller"):
                first_refused(values, KINDS["caller"].read)


# ---- the chain of groups


@dataclass
class ChainRow(TypedRow):
    """A group of the chain by its id, "" before one is chosen."""

    group: str = ""


class ChainField(RowsField):
    """Groups in the order in which they are tried. `offered`: the names of all in the project, by their ids as text."""

    row, most = ChainRow, most_of(RuleConfig, "groups")
    rows: list[ChainRow]

    def offer(self, groups: Sequence[tuple[int, str]]) -> None:
        """Set (id, name) of all groups. One that was deleted meanwhile is left out."""
        self.offered = {str(id_): name for id_, name in groups}
        self.rows = [row for row in self.rows if row.group in ("", *self.offered)]

    @property
    def names(self) -> list[str]:
        """The names of the groups."""
        return [self.offered[row.group] for row in self.rows if row.group]

    @property
    def value(self) -> list[int]:
        """The ids of the groups."""
        return [int(row.group) for row in self.rows if row.group]


class RuleForm(ItemForm):
    kind = "rules"
    FIELDS: ClassVar = {"overflow": "overflow_to", "when": "conditions"}

    name = name_field(lazy("Give the rule a name."))
    place = RadioField(lazy("Where it stands"))
    conditions = ConditionsField(lazy("Conditions"))
    prefer = RadioField(
        lazy("Preferred agent"),
        choices=choices(
            [
                ("", lazy("No one: start with the groups")),
                ("last_agent", lazy("Whoever last talked with the caller")),
                ("param", lazy("The agent named in a call parameter")),
            ]
        ),
        default="",
    )
    prefer_param = TextField(lazy("Parameter that names the agent"))
    groups = ChainField(lazy("Groups"))
    overflow_kind, overflow_to = overflow_fields(lazy("Use the group’s or the project’s overflow"))

    def offer(self) -> None:
        super().offer()
        rules = self.draft.document["rules"]
        last = next((rule for rule in reversed(rules) if rule["enabled"]), None)
        self.catch_all = last if last is not None and not last["when"] else None
        if self.row_id is not None or not rules:
            del self.place
        else:
            above = [("above", _("Above “%(name)s”", name=self.catch_all["name"]))] if self.catch_all else []
            self.place.choices = choices([("top", _("At the top")), *above, ("bottom", _("At the bottom"))])
            self.place.data = self.place.data or self.place.choices[-1 - bool(above)].value
        self.groups.offer(self.choices_of("groups"))
        self.conditions.ids = {of: {name: id_ for id_, name in self.choices_of(of)} for of in ("schedules", "groups")}

    def validate_prefer_param(self, field: Any) -> None:
        missing = _("Write the parameter’s name as Ringostat sends it: responsible.")
        if self.prefer.data == "param" and (wrong := first_refused([field.data or ""], check_param_name, missing)):
            raise ValidationError(wrong)

    def fill(self, row: Any) -> None:
        self.conditions.fill_from(row.when)
        self.groups.rows = [ChainRow(str(group_id)) for group_id in row.groups]
        if isinstance(row.prefer, dict):
            self.prefer.data, self.prefer_param.data = "param", row.prefer["param"]
        elif row.prefer is None:
            self.prefer.data = ""
        fill_overflow(self, row.overflow)

    def put(self, draft: Draft, values: Mapping[str, Any]) -> int:
        row_id = super().put(draft, values)
        if self.place is not None:
            ids = [rule["id"] for rule in draft.document["rules"] if rule["id"] != row_id]
            above = self.catch_all["id"] if self.catch_all else None
            place = {"top": 0, "above": ids.index(above) if above in ids else len(ids)}.get(self.place.data, len(ids))
            draft.order("rules", [*ids[:place], row_id, *ids[place:]])
        return row_id

    def never_matches(self) -> str:
        """Return why the rule as typed can never match at its place; "" if it may, or cannot be read yet."""
        if not self.enabled.data or not self.conditions.validate(self):
            return ""
        draft = copy(self.draft)  # only its document is replaced
        when = self.conditions.when({} if self.stored is None else self.stored.when)
        row_id = self.put(draft, {"name": self.name.data or _("New rule"), "enabled": True, "when": when})
        try:
            project = build_project(draft.document, draft.project.id, 0)
        except BuildError:
            return ""
        found = advise(draft.document, project)
        return next((one.text for one in found if (one.subject, one.subject_id) == ("rule", row_id)), "")

    def values(self) -> dict[str, Any]:
        prefer = {"param": self.prefer_param.data} if self.prefer.data == "param" else self.prefer.data or None
        when = self.conditions.when({} if self.stored is None else self.stored.when)
        return super().values() | {"prefer": prefer, "when": when, "overflow": read_overflow(self)}
