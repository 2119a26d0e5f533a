"""Define the fields that forms of agents, groups, rules and schedules share: names, numbers, rows, references.

The limits come from the schema of the configuration file (config_file.schema); the messages are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any, get_args
from zoneinfo import ZoneInfo

from flask import request
from markupsafe import Markup, escape
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from wtforms import Field, RadioField, SelectField, StringField
from wtforms.validators import ValidationError
from wtforms.widgets import html_params

from router.admin.forms.base import NumberField, RowForm, TextField, accepted_by, at_most, choices, required
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.config_file.schema import (
    MAX_NAME_CHARS,
    Config,
    ProjectConfig,
    SchemaError,
    check_name,
    destination,
    most_of,
    notation,
)
from router.core.instants import InstantError, is_repeated, parse_instant


def bounds(model: type[Config], key: str) -> dict[str, Any]:
    """Return the lowest and the highest value of a key of the configuration file."""
    metadata = model.model_fields[key].metadata
    return {
        "least": next(rule.ge for rule in metadata if hasattr(rule, "ge")),
        "most": next(rule.le for rule in metadata if hasattr(rule, "le")),
    }


def is_whole(text: str, least: float, most: float) -> bool:
    """Return whether it is a whole number in this range."""
    return text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most


def number_field(label: Any, model: type[Config], key: str) -> NumberField:
    """Return a field for a number with the limits of this key of the configuration file."""
    field = model.model_fields[key]
    kinds = get_args(field.annotation) or (field.annotation,)
    is_whole, is_optional = int in kinds, NoneType in kinds
    return NumberField(label, **bounds(model, key), whole=is_whole, optional=is_optional, default=field.default)


def name_field(missing: Any) -> TextField:
    """Return a field for a name that is unique in the project. `missing`: the message for an empty one."""
    unfit = lazy("This holds an invisible character: type it again.")
    return TextField(lazy("Name"), [required(missing), at_most(MAX_NAME_CHARS), accepted_by(check_name, unfit)])


class NamedForm(RowForm):
    """A form of a row with a name that is unique in the project: an agent, group, rule or schedule."""

    model: Any

    def __init__(self, *args: Any, session: Session, obj: Any = None, **kwargs: Any) -> None:
        self._session = session
        super().__init__(*args, obj=obj, **kwargs)

    def as_stored(self, row: Any) -> RowForm:
        return type(self)(formdata=None, obj=row, session=self._session)

    def saves(self, row: Any = None) -> bool:
        return super().saves(row) and self._is_name_free(row)

    def _is_name_free(self, row: Any) -> bool:
        of_project = select(self.model).where(self.model.project_id == current_project().id)
        most = most_of(ProjectConfig, self.model.__tablename__)
        count = select(func.count()).select_from(of_project.subquery())
        if row is None and (self._session.scalar(count) or 0) >= most:
            self.refuse("name", _("The project has %(most)s of these already, and more do not fit.", most=most))
            return False
        other = self._session.scalar(of_project.where(self.model.name == self.name.data).limit(1))
        if other is not None and other is not row:
            self.refuse("name", _("Another one has this name already: choose another."))
            return False
        return True

    def add(self) -> Any:
        """Add the new row after all others. Return it."""
        row = self.model(project_id=current_project().id, name=self.name.data)
        if hasattr(row, "position"):
            of_project = self.model.project_id == current_project().id
            last = self._session.scalar(select(func.max(self.model.position)).where(of_project))
            row.position = 0 if last is None else last + 1
        self.store(row)
        self._session.add(row)
        self._session.flush()
        return row


def _render_select(field: Any, **attributes: Any) -> Markup:
    """Render a select as WTForms' own widget does, in a twentieth of the time: there may be 1,000 agents."""
    chosen = field.data or ""
    options = "".join(
        f'<option value="{escape(choice.value)}"{" selected" if choice.value == chosen else ""}>'
        f"{escape(choice.label)}</option>"
        for choice in field.choices
    )
    attributes |= {"id": field.id, "name": field.name}
    return Markup(f"<select {html_params(**attributes)}>{options}</select>")  # noqa: S704 - escaped


class ReferenceField(SelectField):  # type: ignore[misc]
    """A row of the project by id, or none (`nobody`: its label). Data: the id as text, or ""."""

    widget = staticmethod(_render_select)

    def __init__(self, label: Any, *, nobody: Any, **kwargs: Any) -> None:
        super().__init__(label, coerce=self._read, choices=[], validate_choice=True, **kwargs)
        self.nobody = nobody

    def offer(self, rows: Iterable[tuple[int, str]]) -> None:
        """Set the choices from (id, name)."""
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
"""The message for each kind of InstantError."""


class InstantField(StringField):  # type: ignore[misc]
    """A date, or date and time: "2026-12-24T14:00". Data: aware datetime or None.

    In local time of `time_zone` ("": the project's). Left unchanged it keeps the exact instant, with the seconds and,
    when the clocks go back, with which of two equal times it is.
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
    """Render an instant for a datetime-local input, in local time of the zone."""
    return at.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%dT%H:%M")


def which_of_two(at: datetime, time_zone: str) -> str:
    """Return the offset of an instant whose local time occurs twice, as " (UTC+03:00)"; else ""."""
    offset = at.astimezone(ZoneInfo(time_zone)).isoformat()[-6:]
    return f" (UTC{offset})" if is_repeated(at, time_zone) else ""


# ---- overflow: not set, a destination, or empty on purpose


def overflow_fields(unset: Any) -> tuple[RadioField, TextField]:
    """Return the fields of an optional overflow. `unset`: the label for none, which says what counts instead."""
    kinds = [
        ("unset", unset),
        ("to", lazy("A number, SIP login or scheme")),
        ("empty", lazy("An empty answer, on purpose")),
    ]
    return (
        RadioField(lazy("Overflow"), choices=choices(kinds), default="unset"),
        TextField(lazy("Overflow destination"), [_check_overflow]),
    )


def _check_overflow(form: Any, field: Any) -> None:
    if form.overflow_kind.data == "to" and not field.data:
        raise ValidationError(_("Write where the call goes, or choose another overflow."))
    check_destination(lambda: read_overflow(form))


def check_destination(read: Callable[[], object]) -> None:
    """Raise ValidationError where `read` raises SchemaError for a destination."""
    try:
        read()
    except SchemaError:
        raise ValidationError(
            _("Not a valid destination: write a number, a SIP login or the id of a scheme, in one word.")
        ) from None


def fill_overflow(form: Any, overflow: str | None) -> None:
    """Fill the two fields from a row's overflow."""
    form.overflow_kind.data = "unset" if overflow is None else "to" if overflow else "empty"
    form.overflow_to.data = notation(overflow or "", current_project().country, destination)


def read_overflow(form: Any) -> str | None:
    """Return the overflow that the two fields hold, normalised. Raises SchemaError."""
    kind = form.overflow_kind.data
    if kind == "unset":
        return None
    return destination(form.overflow_to.data, current_project().country) if kind == "to" else ""


# ---- rows


class RowsField(Field):  # type: ignore[misc]
    """A list of rows. The form fills it from the database and stores it. Data: one text a row, to show a conflict."""

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.rows: list[Any] = []

    def process(self, formdata: Any, data: Any = None, extra_filters: Any = None) -> None:
        self.process_errors: list[str] = []

    @property
    def data(self) -> list[str]:
        return [str(row) for row in self.rows]

    @data.setter
    def data(self, _value: Any) -> None:
        """Do nothing: see the form's `fill`."""

    def populate_obj(self, obj: Any, name: str) -> None:
        """Do nothing: see the form's `store`."""


class InputsField(RowsField):
    """Rows of inputs named `field-N-part`. Its buttons post add_ITEM=KIND and remove_ITEM=N (`item`)."""

    item = ""
    parts: Sequence[str] = ()

    def process(self, formdata: Any, data: Any = None, extra_filters: Any = None) -> None:
        """Read the posted rows, in the order in which they came."""
        super().process(formdata)
        if formdata:
            self.rows = [self.read_row(values) for values in self._posted(formdata).values()]

    def _posted(self, formdata: Any) -> dict[str, dict[str, str]]:
        """Return the parts of each row by its N. A row needs only one of its parts."""
        pattern = re.compile(rf"{re.escape(self.name)}-(\d{{1,6}})-(?:{'|'.join(self.parts)})")
        found = dict.fromkeys(match[1] for key in formdata if (match := pattern.fullmatch(key)))
        return {n: {part: formdata.get(f"{self.name}-{n}-{part}", "").strip() for part in self.parts} for n in found}

    def read_row(self, values: Mapping[str, str]) -> Any:
        """Return a row from its posted parts."""
        raise NotImplementedError

    def apply_buttons(self) -> None:
        """Add or remove a row for a button that was pressed without JavaScript."""
        if (kind := request.form.get(f"add_{self.item}")) is not None:
            self.rows.append(self.read_row(dict.fromkeys(self.parts, "") | {"kind": kind}))
        removed, posted = request.form.get(f"remove_{self.item}"), list(self._posted(request.form))
        if removed in posted:
            del self.rows[posted.index(removed)]


def move_by_button(ids: list[Any]) -> None:
    """Move an id in the list for a button that was pressed without JavaScript: move=up:ID or move=down:ID."""
    way, _colon, moved = request.form.get("move", "").partition(":")
    here = next((place for place, id_ in enumerate(ids) if str(id_) == moved), -1)
    there = here + {"up": -1, "down": 1}.get(way, 0)
    if here >= 0 and 0 <= there < len(ids):
        ids[here], ids[there] = ids[there], ids[here]


def choices_of(session: Session, model: Any) -> list[tuple[int, str]]:
    """Return (id, name) of all rows of the project, by name."""
    of_project = model.project_id == current_project().id
    rows = session.execute(select(model.id, model.name).where(of_project).order_by(model.name))
    return [(row.id, row.name) for row in rows]
