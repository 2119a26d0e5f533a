"""Make fields from the schema of the configuration, and the forms of its rows: agents, groups, rules, schedules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape
from wtforms import BooleanField, Field, RadioField, SelectField, StringField
from wtforms.fields.core import UnboundField
from wtforms.validators import ValidationError
from wtforms.widgets import html_params

from router.admin.faults import words_of_fault
from router.admin.forms.base import (
    LinesField,
    NumberField,
    RowForm,
    SecretField,
    TextField,
    accepted_by,
    at_most,
    at_most_entries,
    choices,
    last_change,
    required,
    too_many_entries,
)
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.configuration.change import ConfigurationError, Draft
from router.configuration.document import ITEMS, defaults_of
from router.configuration.schema import (
    MAX_NAME_CHARS,
    Config,
    bounds,
    check_name,
    notes_of,
    section_of,
)
from router.core.instants import InstantError, is_repeated, parse_instant
from router.core.schedule_words import time_zones
from router.db.documents import KINDS


@cache
def zones() -> list[str]:
    """Return the time zones to choose from: those of regions ("Europe/Kyiv"), not "EST5EDT"."""
    return sorted(name for name in time_zones() if "/" in name and not name.startswith("Etc/"))


def is_whole(text: str, least: float, most: float) -> bool:
    """Return whether it is a whole number in this range."""
    return text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most


def field_of(model: type[Config], key: str) -> Any:
    """Return the field of a key of the schema: its label, help, unit, limits and choices. None for a key that is not
    one value, or a list of texts.
    """
    field = model.model_fields[key]
    notes, kinds = notes_of(field), str(field.annotation)
    words: dict[str, Any] = {"label": lazy(notes.label), "description": lazy(str(field.description))}
    if notes.is_instant:
        return InstantField(**words)
    if notes.refers:
        return ReferenceField(**words, nobody=lazy(notes.shown)) if field.default is None else ReferencesField(**words)
    if notes.words:
        words |= {
            "choices": choices((value, lazy(text)) for value, text in notes.words.items()),
            "default": field.default,
        }
        texts = {value: lazy(text) for value, text in notes.helps.items()}
        return ChoicesField(**words, texts=texts) if texts else SelectField(**words)
    if "bool" in kinds:
        return BooleanField(**words, default=field.default)
    if "int" in kinds or "float" in kinds:
        limits: dict[str, Any] = {**bounds(model, key), "whole": "int" in kinds, "optional": "None" in kinds}
        return NumberField(**words, **limits, unit=notes.unit and lazy(notes.unit), default=field.default)
    if "dict" in kinds or "Config" in kinds:
        return None
    if "tuple" in kinds:
        return LinesField(**words, validators=[at_most_entries(notes.most)])
    return SecretField(**words) if "SecretStr" in kinds else TextField(**words, default=field.default)


def name_field(missing: Any, label: Any = "") -> TextField:
    """Return a field for a name that is unique in the project. `missing`: the message for an empty one."""
    unfit = lazy("This holds an invisible character: type it again.")
    checks = [required(missing), at_most(MAX_NAME_CHARS), accepted_by(check_name, unfit)]
    return TextField(label or lazy("Name"), checks)


class Stored(SimpleNamespace):
    """A row of a document as a form shows it, by attributes. `revision`: counts its changes."""

    id: int
    revision: int


class ChoicesField(RadioField):  # type: ignore[misc]
    """One of several values. `texts`: what choosing each does."""

    def __init__(self, label: Any, *, texts: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.texts = texts


def add_fields(form: type[RowForm], model: type[Config], prefix: str = "") -> None:
    """Add a field for each key of the model that the form's class does not define, and put all in the model's order."""
    for key in model.model_fields:
        field = getattr(form, prefix + key, None) or (None if key in form.FIELDS else field_of(model, key))
        if field is not None:
            UnboundField.creation_counter += 1
            field.creation_counter = UnboundField.creation_counter
            setattr(form, prefix + key, field)


class ItemForm(RowForm):
    """A form of one row of the configuration: an agent, group, rule or schedule.

    It has a field for each key of the schema, by its name; a subclass defines those that are more than one value.
    `value` of a field is what a document holds, by default its data.
    """

    kind: str
    """Of the row, as "agents"."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        add_fields(cls, ITEMS[cls.kind])

    def __init__(self, draft: Draft, row_id: int | None = None, revision: int | None = None, **kwargs: Any) -> None:
        self.draft, self.row_id = draft, row_id
        self.stored = None if row_id is None else self._stored(row_id, revision)
        super().__init__(obj=self.stored, **kwargs)

    def offer(self) -> None:
        for key, one in self._fields.items():
            if isinstance(one, ReferenceField | ReferencesField):
                if key not in ITEMS[self.kind].model_fields:
                    continue  # of a part
                refers = f"{notes_of(ITEMS[self.kind].model_fields[key]).refers}s"
                own = self.row_id if refers == self.kind else None
                one.offer(choice for choice in self.choices_of(refers) if choice[0] != own)

    def _stored(self, row_id: int, revision: int | None) -> Stored:
        if revision is None:
            revision = self.draft.revision_of(self.kind, row_id)
        return Stored(**defaults_of(ITEMS[self.kind]) | self.draft.item(self.kind, row_id), revision=revision)

    def choices_of(self, kind: str) -> list[tuple[int, str]]:
        """Return (id, name) of all rows of a kind, by name."""
        return sorted(((row["id"], row["name"]) for row in self.draft.document[kind]), key=lambda choice: choice[1])

    def section(self, name: str) -> list[Field]:
        """Return the fields of this section of the schema."""
        return [self._fields[key] for key, _notes in section_of(ITEMS[self.kind], name)]

    def as_stored(self, row: Any) -> RowForm:
        revision = 0 if self.stored is None else self.stored.revision  # not read: the transaction may have ended
        return type(self)(self.draft, self.row_id, revision, formdata=None)

    def last_change(self, row: Any) -> tuple[str, datetime | None]:
        return last_change(self.draft.session, KINDS[self.kind], row.id, current_project().id)

    def values(self) -> dict[str, Any]:
        """Return what was typed, as a document holds it."""
        fields = {key: self._fields[key] for key in ITEMS[self.kind].model_fields if key in self._fields}
        return {key: field.value if hasattr(field, "value") else field.data for key, field in fields.items()}

    def put(self, draft: Draft, values: Mapping[str, Any]) -> int:
        """Put the row into a draft; return its id there."""
        return draft.put(self.kind, values, self.row_id)

    def saves(self, row: Any = None) -> bool:
        """Return whether it was posted, is valid, does not conflict, and is saved. Fields get the draft's faults."""
        if not super().saves(self.stored):
            return False
        row_id = self.put(self.draft, self.values())
        try:
            ids = self.draft.save()
        except ConfigurationError as error:
            self._refuse_faults(error, row_id)
            return False
        self.row_id = ids.get((self.kind, row_id), row_id)
        return True

    def _refuse_faults(self, error: ConfigurationError, row_id: int) -> None:
        for fault in error.faults:
            is_own = fault.path[0] == self.kind and error.document[self.kind][fault.path[1]]["id"] == row_id
            keys = [str(key) for key in fault.path[2:]] if is_own else []
            fields = ("_".join(keys[:2]), *(self.FIELDS.get(key, key) for key in keys[:1]), "name")
            self.refuse(next(name for name in fields if name in self._fields), words_of_fault(fault))


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

    @property
    def value(self) -> int | None:
        """The id."""
        return int(self.data) if self.data else None

    def pre_validate(self, form: Any) -> None:
        if (self.data or "") not in {choice.value for choice in self.choices}:
            raise ValidationError(_("This no longer exists: choose another."))


class ReferencesField(Field):  # type: ignore[misc]
    """Some rows of the project, ticked in a list. Data: their ids, those stored before in their order."""

    def __init__(self, label: Any, **kwargs: Any) -> None:
        super().__init__(label, **kwargs)
        self.offered: dict[int, str] = {}
        self.data: list[int]

    def offer(self, rows: Iterable[tuple[int, str]]) -> None:
        """Set what can be ticked, from (id, name)."""
        self.offered = dict(rows)
        self.data = [row_id for row_id in self.data if row_id in self.offered]

    def process_data(self, value: Any) -> None:
        self.data = list(value or ())

    def process_formdata(self, valuelist: list[str]) -> None:
        ticked = [int(text) for text in valuelist if text.isascii() and text.isdigit() and len(text) < 20]
        stored = [row_id for row_id in self.object_data or () if row_id in ticked]
        self.data = [*dict.fromkeys([*stored, *ticked])]

    @property
    def names(self) -> list[str]:
        """The names of those ticked."""
        return [self.offered[row_id] for row_id in self.data]

    def __call__(self, **attributes: Any) -> Markup:
        """Render a tick for each row."""
        checked = Markup(" checked")
        tick = Markup(
            '<label class="tick"><input class="form-check-input" type="checkbox" name="{}" value="{}"{}>'
            '<span class="clip">{}</span></label>'
        )
        ticks = (
            tick.format(self.name, row_id, checked if row_id in self.data else "", name)
            for row_id, name in self.offered.items()
        )
        return Markup('<fieldset id="{}" class="ticks-list">{}</fieldset>').format(self.id, Markup("").join(ticks))


class InstantField(StringField):  # type: ignore[misc]
    """A date, or date and time: "2026-12-24T14:00". Data: aware datetime or None. Value: ISO 8601 in UTC.

    In local time of `time_zone` ("": the project's). Left unchanged it keeps the exact instant, with the seconds and,
    when the clocks go back, with which of two equal times it is.
    """

    time_zone = ""

    @property
    def value(self) -> str | None:
        """The instant as a document holds it."""
        return None if self.data is None else self.data.astimezone(UTC).isoformat()

    def process_data(self, value: Any) -> None:
        self.object_data = self.data = datetime.fromisoformat(value) if isinstance(value, str) else value

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
            raise ValueError(words_of_fault(error)) from None

    @property
    def words(self) -> str:
        """What the input shows, as people write it."""
        return self._value().replace("T", " ")

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


# ---- rows


@dataclass
class TypedRow:
    """A row of inputs as typed. A subclass has a text for each input, of which its button sets the first.

    `errors`: by input.
    """

    errors: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def inputs(cls) -> list[str]:
        """Return the names of the inputs."""
        return [one.name for one in fields(cls) if one.init]

    @property
    def typed(self) -> list[str]:
        """What the inputs hold."""
        return [getattr(self, name) for name in self.inputs()]


class RowsField(Field):  # type: ignore[misc]
    """Rows of inputs named FIELD-N-INPUT, in the order in which they are posted. Data: one text a row, for a conflict.

    Its buttons add_FIELD=FIRST, remove_FIELD=N and move_FIELD=up:N only change the page, which does the same by itself
    with JavaScript: see `ui.rows`. A row needs only one of its inputs.
    """

    row: type[TypedRow]
    most: int  # rows
    rows: list[Any]
    errors: list[str]

    def process(self, formdata: Any, data: Any = None, extra_filters: Any = None) -> None:
        self.process_errors: list[str] = []
        self.rows = []
        if formdata:
            self.read(formdata)

    def read(self, formdata: Any) -> None:
        """Read the posted rows, and do what the pressed button says."""
        pattern = re.compile(rf"{re.escape(self.name)}-(\d{{1,19}})-({'|'.join(self.row.inputs())})")
        found: dict[str, dict[str, str]] = {}
        for key in formdata:
            if match := pattern.fullmatch(key):
                found.setdefault(match[1], {})[match[2]] = formdata[key].strip()
        add, remove, move = (formdata.get(button) for button in self.buttons)
        numbers = [number for number in found if number != remove]
        move_by_button(numbers, move or "")
        self.rows = [self.row(**found[number]) for number in numbers]
        if add is not None:
            self.rows.append(self.row(add))  # type: ignore[call-arg]  # of the subclass

    @property
    def buttons(self) -> tuple[str, ...]:
        """The names of its buttons."""
        return tuple(f"{does}_{self.name}" for does in ("add", "remove", "move"))

    def post_validate(self, form: Any, validation_stopped: bool) -> None:
        """Set the errors of each row, unless they are so many that checking them would delay calls."""
        if len(self.rows) > self.most:
            self.errors = [too_many_entries(len(self.rows), self.most)]
            return
        for row in self.rows:
            row.errors.clear()
        self.check()
        self.errors = [text for row in self.rows for text in row.errors.values()][:1]

    def check(self) -> None:
        """Set the errors of each row."""

    @property
    def wrong_id(self) -> str:
        """The id of the first input with an error."""
        wrong = ((n, name) for n, row in enumerate(self.rows) for name in row.errors)
        return next((f"{self.name}-{n}-{name}" for n, name in wrong), self.id)

    @property
    def data(self) -> list[str]:
        return [str(row) for row in self.rows]

    @data.setter
    def data(self, _value: Any) -> None:
        """Do nothing: see the form's `fill`."""


def move_by_button(ids: list[Any], pressed: str) -> None:
    """Move an id in the list for a button that was pressed without JavaScript: up, down, top or bottom:ID."""
    way, _colon, moved = pressed.partition(":")
    here = next((place for place, id_ in enumerate(ids) if str(id_) == moved), -1)
    there = {"up": here - 1, "down": here + 1, "top": 0, "bottom": len(ids) - 1}.get(way, -1)
    if here >= 0 and 0 <= there < len(ids):
        ids.insert(there, ids.pop(here))
