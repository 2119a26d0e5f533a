"""What the forms of agents, groups, rules and schedules share: rows of fields, overflows, choices by id, words refused.

What a word may be is the configuration file's to say (config_file.words); here it is asked and told to the reader.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from wtforms import Field, RadioField, SelectField, StringField
from wtforms.validators import ValidationError
from wtforms.widgets import html_params

from router.admin.forms.base import TextField, accepted_by, at_most, choices, required
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.config_file.words import (
    MAX_NAME_CHARS,
    ProjectWords,
    WordError,
    check_name,
    destination,
    most_of,
    notation,
)
from router.core.instants import InstantError, is_repeated, parse_instant
from router.core.patterns import PatternError


def bounds(model: Any, key: str) -> dict[str, Any]:
    """The least and the most that a key of the configuration file takes."""
    metadata = model.model_fields[key].metadata
    return {
        "least": next(rule.ge for rule in metadata if hasattr(rule, "ge")),
        "most": next(rule.le for rule in metadata if hasattr(rule, "le")),
    }


def name_field(missing: Any) -> TextField:
    """A name that is unique in the project; see `refuse_taken_name`."""
    unfit = lazy("This holds a character that does not show: type it anew.")
    return TextField(lazy("Name"), [required(missing), at_most(MAX_NAME_CHARS), accepted_by(check_name, unfit)])


def refuse_taken_name(form: Any, session: Session, model: Any, row_id: int | None) -> bool:
    """Is the name free in this project? Else it says so beside the field."""
    query = select(model.id).where(model.project_id == current_project().id, model.name == form.name.data)
    taken = session.scalar(query if row_id is None else query.where(model.id != row_id))
    most = most_of(ProjectWords, model.__tablename__)
    of_project = select(func.count()).select_from(model).where(model.project_id == current_project().id)
    if row_id is None and (session.scalar(of_project) or 0) >= most:
        form.refuse("name", _("The project has %(most)s of these already, and more do not fit.", most=most))
        return False
    if taken is not None:
        form.refuse("name", _("Another one has this name already: choose another."))
    return taken is None


def _render_select(field: Any, **attributes: Any) -> Markup:
    """What WTForms' own widget makes of a select, in a twentieth of its time: there may be 1,000 agents."""
    chosen = field.data or ""
    options = "".join(
        f'<option value="{escape(choice.value)}"{" selected" if choice.value == chosen else ""}>'
        f"{escape(choice.label)}</option>"
        for choice in field.choices
    )
    attributes |= {"id": field.id, "name": field.name}
    return Markup(f"<select {html_params(**attributes)}>{options}</select>")  # noqa: S704 - escaped, by WTForms and here


class ReferenceField(SelectField):  # type: ignore[misc]
    """A row of the project by id, or nobody. Data: int or None. Give it `choices` of (id, name)."""

    widget = staticmethod(_render_select)

    def __init__(self, label: Any, *, nobody: Any, **kwargs: Any) -> None:
        super().__init__(label, coerce=self._read, choices=[], validate_choice=True, **kwargs)
        self.nobody = nobody

    def offer(self, rows: Iterable[tuple[int, str]]) -> None:
        """Let one of these (id, name) be chosen, or nobody."""
        self.choices = choices([("", self.nobody), *((str(id_), name) for id_, name in rows)])

    def _read(self, value: Any) -> str:
        return "" if value in (None, "", "None") else str(value)

    def populate_obj(self, obj: Any, name: str) -> None:
        setattr(obj, name, int(self.data) if self.data else None)

    def pre_validate(self, form: Any) -> None:
        if (self.data or "") not in {choice.value for choice in self.choices}:
            raise ValidationError(_("This no longer exists: choose another."))


INSTANT_REFUSED: dict[str, Any] = {
    "unreadable": lazy("Write it like 2026-12-24 14:00."),
    "year": lazy("Check the year."),
    "skipped": lazy("There is no such time: the clocks go forward then."),
}
"""What is said of an instant that cannot be used, by the kind of InstantError."""


class InstantField(StringField):  # type: ignore[misc]
    """A date, or date and time: "2026-12-24T14:00". Data: aware datetime or None.

    On the clock of `time_zone`, "" for the project's. What is shown and left as it is keeps its instant: the seconds,
    and which of two equal times it is when the clocks go back.
    """

    time_zone = ""

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        self.data = None
        if not text:
            return
        if isinstance(self.object_data, datetime) and text == self._shown(self.object_data):
            self.data = self.object_data
            return
        try:
            self.data = parse_instant(text, self.time_zone or current_project().time_zone)
        except InstantError as error:
            raise ValueError(str(INSTANT_REFUSED[error.kind])) from None

    def _shown(self, at: datetime) -> str:
        return local_input(at, self.time_zone or current_project().time_zone)

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else self._shown(self.data)


def local_input(at: datetime, time_zone: str) -> str:
    """An instant as a datetime-local input shows it, on that zone's clock."""
    return at.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%dT%H:%M")


def which_of_two(at: datetime, time_zone: str) -> str:
    """The offset of an instant whose time the zone's clock shows twice, as " (UTC+03:00)"; else ""."""
    offset = at.astimezone(ZoneInfo(time_zone)).isoformat()[-6:]
    return f" (UTC{offset})" if is_repeated(at, time_zone) else ""


# ---- overflow: unset, a destination, or empty on purpose


def overflow_fields(unset: Any) -> tuple[RadioField, TextField]:
    """The choice and the destination of an overflow that may be left to others (`unset`: to whom, in words)."""
    kinds = [
        ("unset", unset),
        ("to", lazy("A number, SIP login or scheme")),
        ("empty", lazy("An empty answer, on purpose")),
    ]
    return (
        RadioField(lazy("Overflow"), choices=choices(kinds), default="unset"),
        TextField(lazy("Overflow destination"), [_is_destination]),
    )


def _is_destination(form: Any, field: Any) -> None:
    if form.overflow_kind.data != "to":
        return
    if not field.data:
        raise ValidationError(_("Write where the call goes, or choose another overflow."))
    try:
        destination(field.data, current_project().country)
    except WordError:
        raise ValidationError(
            _("This is no destination: write a number, a SIP login or the id of a scheme, in one word.")
        ) from None


def fill_overflow(form: Any, overflow: str | None) -> None:
    """Show a row's overflow."""
    form.overflow_kind.data = "unset" if overflow is None else "to" if overflow else "empty"
    form.overflow_to.data = notation(overflow or "", current_project().country, destination)


def read_overflow(form: Any) -> str | None:
    """What the two fields say, in its one spelling."""
    kind = form.overflow_kind.data
    if kind == "unset":
        return None
    return destination(form.overflow_to.data, current_project().country) if kind == "to" else ""


# ---- rows


class RowsField(Field):  # type: ignore[misc]
    """A list of rows of inputs named `field-N-part`. `rows` are of the subclass's own kind.

    Data: one text a row, for telling what two people saved apart. Not stored by itself.
    """

    parts: Sequence[str] = ()

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.rows: list[Any] = []

    def process(self, formdata: Any, data: Any = None, extra_filters: Any = None) -> None:
        """Read the rows that were posted, in the order in which they came."""
        self.process_errors: list[str] = []
        if formdata:
            self.rows = [self.read_row(values) for values in self._posted(formdata)]

    def _posted(self, formdata: Any) -> Iterable[dict[str, str]]:
        pattern = re.compile(rf"{re.escape(self.name)}-(\d{{1,6}})-{self.parts[0]}")
        for key in formdata:
            if found := pattern.fullmatch(key):
                yield {part: formdata.get(f"{self.name}-{found[1]}-{part}", "").strip() for part in self.parts} | {
                    "n": found[1]
                }

    def read_row(self, values: dict[str, str]) -> Any:
        """One row from its posted parts."""
        raise NotImplementedError

    @property
    def data(self) -> list[str]:
        return [str(row) for row in self.rows]

    @data.setter
    def data(self, _value: Any) -> None:
        """What a row of the database holds is for the form's `fill`."""

    def populate_obj(self, obj: Any, name: str) -> None:
        """Not by itself: see the form's `store`."""


# ---- words that were refused


_REFUSED: dict[str, Any] = {
    "is no range": lazy("“%(text)s” is no range: write two numbers of one length, the lower one first."),
    "matches every number": lazy(
        "“%(text)s” matches every number: write the first digits before the star, or leave the condition out."
    ),
    "is no number": lazy(
        "“%(text)s” is no number: write it like +380441112233, like +38050* for all that begin so, or anonymous."
    ),
    "stands for a hidden number": lazy("“%(text)s” stands for a hidden number: write anonymous."),
    "has a star too many": lazy("“%(text)s”: leave the star out, and choose “begins with” or “contains”."),
    "is no value": lazy("“%(text)s…” is too long, or holds a character that does not show."),
    "cannot be searched for": lazy("“%(text)s” cannot be searched for: choose “contains” instead of stars."),
}


def pattern_refused(error: PatternError) -> str:
    """What is wrong with a condition's value, for the reader."""
    words = _REFUSED.get(error.message)
    return str(words) % {"text": error.value[:80]} if words is not None else str(error)


def split_values(text: str) -> list[str]:
    """Values separated by commas; one that holds a comma stands in double quotes."""
    try:
        rows = list(csv.reader([" ".join(text.splitlines())], skipinitialspace=True))
    except csv.Error:
        return [text]
    return [value.strip() for value in (rows[0] if rows else []) if value.strip()]


def join_values(values: Iterable[str]) -> str:
    """The text that `split_values` reads back."""

    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if "," in value or value.startswith('"') else value

    return ", ".join(quoted(value) for value in values)


def choices_of(session: Session, model: Any) -> list[tuple[int, str]]:
    """(id, name) of all rows of the project, by name."""
    rows = session.execute(
        select(model.id, model.name).where(model.project_id == current_project().id).order_by(model.name)
    )
    return [(row.id, row.name) for row in rows]


def each_refused(texts: Iterable[str], read: Callable[[str], object]) -> str:
    """The first refusal of these texts in words, "" when all are taken."""
    for text in texts:
        try:
            read(text)
        except PatternError as error:
            return pattern_refused(error)
    return ""
