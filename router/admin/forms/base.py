"""The base of all forms: fields, validators, and the check for conflicting edits.

A view stores a form only if `saves` returns true, and in the same transaction.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, ClassVar, NamedTuple

from flask import request
from flask_wtf import FlaskForm
from markupsafe import Markup
from sqlalchemy import or_, select
from sqlalchemy.orm import Session, object_session
from sqlalchemy.orm.attributes import flag_modified
from wtforms import (
    BooleanField,
    Field,
    FloatField,
    HiddenField,
    PasswordField,
    SelectChoice,
    StringField,
    TextAreaField,
)
from wtforms.validators import StopValidation, ValidationError
from wtforms.widgets import TextInput

from router.admin import auth, unsaved_form
from router.admin.i18n import _
from router.admin.page import is_in_draft
from router.configuration.schema import MAX_TEXT_CHARS, UNFIT
from router.db import models


class TextField(StringField):  # type: ignore[misc]
    """One line of text, stripped."""

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = valuelist[0].strip() if valuelist else ""

    def pre_validate(self, form: Any) -> None:
        """Refuse invisible characters, as the configuration file does."""
        if UNFIT.search(self.data or ""):
            raise ValidationError(_("This holds an invisible character: type it again."))


class EmailField(TextField):
    """An email address in lower case."""

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = auth.normal_email(valuelist[0]) if valuelist else ""


class NumberField(FloatField):  # type: ignore[misc]
    """A number from `least` to `most`, with a decimal point or comma. Empty: None where `optional`, else an error."""

    widget = TextInput()

    def __init__(
        self,
        label: Any,
        *,
        least: float,
        most: float,
        whole: bool = False,
        optional: bool = False,
        unit: Any = "",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("render_kw", {}).setdefault("inputmode", "numeric" if whole else "decimal")
        super().__init__(label, **kwargs)
        self.least, self.most, self.whole, self.optional, self.unit = least, most, whole, optional, unit

    def process_formdata(self, valuelist: list[str]) -> None:
        text = valuelist[0].strip() if valuelist else ""
        self.data = None
        if not text and self.optional:
            return
        try:
            number = float(text.replace(",", ".").replace("\xa0", "").replace(" ", ""))
        except ValueError:
            number = math.nan
        if not self.least <= number <= self.most or (self.whole and number != int(number)):
            shape = {"least": f"{self.least:g}", "most": f"{self.most:g}"}
            if self.whole:
                raise ValueError(_("Write a whole number from %(least)s to %(most)s.", **shape))
            raise ValueError(_("Write a number from %(least)s to %(most)s.", **shape))
        self.data = int(number) if self.whole else number

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "" if self.data is None else plain_number(self.data)


def plain_number(number: float) -> str:
    """Render the number without exponent or ".0": "2.5", "3600"."""
    return repr(number).removesuffix(".0")


class LinesField(TextAreaField):  # type: ignore[misc]
    """A list of texts, by line or comma. Data: list[str], without empty ones."""

    def process_formdata(self, valuelist: list[str]) -> None:
        texts = re.split(r"[\n,;]", valuelist[0]) if valuelist else []
        self.data = [text.strip() for text in texts if text.strip()]

    def _value(self) -> str:
        return str(self.raw_data[0]) if self.raw_data else "\n".join(self.data or [])


def choices(pairs: Iterable[tuple[Any, Any]]) -> list[SelectChoice]:
    """Return the choices of a SelectField or RadioField from (value, label)."""
    return [SelectChoice(value, label) for value, label in pairs]


class SecretField(PasswordField):  # type: ignore[misc]
    """A credential, which is never shown. Left empty it keeps the stored one."""

    process_formdata, pre_validate = TextField.process_formdata, TextField.pre_validate

    def populate_obj(self, obj: Any, name: str) -> None:
        """Do nothing: see `store_secret`."""


class _Revision(HiddenField):  # type: ignore[misc]
    """The revision of the row that the form was made from. Storing the form counts it up.

    The page also carries a mark (a short hash) of what each field showed then.
    """

    form: RowForm

    def __call__(self, **kwargs: Any) -> Markup:
        """Render the revision and the marks as hidden inputs."""
        if self.raw_data:
            marks = request.form.get(self._marks_name, "")
        else:
            marks = " ".join(f"{name}:{_mark(field)}" for name, field in self.form.merged_fields())
        return Markup('{}<input type="hidden" name="{}" value="{}">').format(
            super().__call__(**kwargs), self._marks_name, marks
        )

    @property
    def marks(self) -> dict[str, str]:
        """By field, the mark of the content that it showed when the form was made."""
        pairs = (part.partition(":") for part in request.form.get(self._marks_name, "").split())
        return {name: mark for name, _colon, mark in pairs}

    @property
    def _marks_name(self) -> str:
        return f"{self.name}_marks"

    def populate_obj(self, obj: Any, name: str) -> None:
        # A change of child rows only (a group's members) would not count the revision up.
        flag_modified(obj, "name")


class Conflict(NamedTuple):
    """Somebody else saved first: who, when, and (name, label, theirs, ours) of each field that both have changed."""

    who: str
    at: datetime | None
    differing: list[tuple[str, str, str, str]]
    revision: int  # of the row now; a confirmed overwrite is for this revision only


class Form(FlaskForm):  # type: ignore[misc]
    """A form that cannot conflict with another. The blueprint checks the CSRF token."""

    class Meta:
        csrf = False

    conflict: Conflict | None = None

    @property
    def is_posted(self) -> bool:
        """Whether the request is a post, valid or not."""
        return request.method == "POST"

    def saves(self) -> bool:
        """Return whether it was posted, is valid and is to be stored."""
        return self.is_posted and not unsaved_form.is_only_shown() and bool(self.validate())

    def refuse(self, field: str, message: str) -> None:
        """Add an error to a field, for checks that need more than the form."""
        target = self._fields[field]
        target.errors = [*target.errors, message]


class RowForm(Form):
    """A form that edits a row with a `revision`.

    Make it with `obj=row` to show the row, and ask `saves(row)` in the transaction that stores it. Fields have the
    names of the row's attributes; `fill` and `store` convert what does not fit a field by its name.
    """

    FIELDS: ClassVar[Mapping[str, str]] = {}
    """By key of the schema that has no field of its own: the field that shows its errors."""

    BUTTONS: Sequence[str] = ("preview",)
    """Names of buttons that post the form only to change the page, as "one more row"; preview: see page.editing."""

    revision = _Revision()

    def __init__(self, *args: Any, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, obj=obj, **kwargs)
        self.revision.form = self
        self.offer()
        if obj is not None and (not self.is_posted or "formdata" in kwargs):
            self.fill(obj)

    @property
    def is_being_edited(self) -> bool:
        """Whether it was posted by one of BUTTONS, or by a button of a field."""
        of_fields = (name for field in self for name in getattr(field, "buttons", ()))
        return any(name in request.form for name in (*self.BUTTONS, *of_fields))

    def saves(self, row: Any = None) -> bool:
        """Return whether it was posted, is valid, and does not conflict with an edit by somebody else.

        Fields that only others have changed since the form was made are taken over from the row. Those that both have
        changed are asked about, and posted as keep-NAME=theirs or mine.
        """
        if self.is_being_edited or not super().saves():
            return False
        if row is None or self.revision.data == str(row.revision):
            return True
        theirs = self.as_stored(row)
        differing = self._merge(theirs)
        if differing and request.form.get("overwrite") != str(row.revision):
            self.conflict = Conflict(*self.last_change(row), differing, row.revision)
            return False
        for name, *_rest in differing:
            if request.form.get(f"keep-{name}") == "theirs":
                _take(self._fields[name], theirs[name])
        return bool(self.validate())  # the merged fields may not fit together

    def _merge(self, theirs: RowForm) -> list[tuple[str, str, str, str]]:
        """Take over what only others have changed. Return (name, label, theirs, ours) of what both have changed."""
        was, differing = self.revision.marks, []
        for name, field in self.merged_fields():
            if name not in theirs or (mark := _mark(theirs[name])) == _mark(field):
                continue
            if was.get(name) == _mark(field):
                _take(field, theirs[name])
            elif was.get(name) != mark:
                differing.append((name, str(field.label.text), shown(theirs[name]), shown(field)))
        return differing

    def differs_from(self, row: Any) -> bool:
        """Return whether it holds anything that is not stored."""
        saved = self.as_stored(row)
        return any(_mark(field) != _mark(saved[name]) for name, field in self.merged_fields())

    def merged_fields(self) -> list[tuple[str, Field]]:
        """Return the fields that can conflict. What is typed as a secret is always stored."""
        return [
            (name, field)
            for name, field in self._fields.items()
            if not isinstance(field, _Revision | SecretField) and not name.endswith("_clear")
        ]

    def as_stored(self, row: Any) -> RowForm:
        """Return a form that shows the row as it is stored."""
        return type(self)(formdata=None, obj=row)

    def last_change(self, row: Any) -> tuple[str, datetime | None]:
        """Return who changed the row last, and when."""
        session = object_session(row)
        project_id = row.id if isinstance(row, models.Project) else None
        subject = type(row).__tablename__.removesuffix("s")
        return (_("Somebody else"), None) if session is None else last_change(session, subject, row.id, project_id)

    def offer(self) -> None:
        """Set what fields offer to choose from. For subclasses."""

    def fill(self, row: Any) -> None:
        """Fill the fields that have no attribute of their name. For subclasses."""

    def store(self, row: Any) -> None:
        """Store the fields in the row."""
        self.populate_obj(row)


def _mark(field: Field) -> str:
    """Return a short hash of what a field shows. It is the same for what a browser sends back unchanged."""
    content: Any
    if hasattr(field, "rows"):
        content = [row.typed for row in field.rows]
    elif isinstance(field, BooleanField):
        content = bool(field.data)
    elif hasattr(field, "_value"):
        content = field._value().replace("\r\n", "\n").strip()  # noqa: SLF001 - what WTForms renders
    else:
        content = "" if field.data is None else str(field.data)
    return blake2b(repr(content).encode(), digest_size=6).hexdigest()


def _take(ours: Field, theirs: Field) -> None:
    """Copy the content of another field."""
    ours.raw_data = None
    attribute = "rows" if hasattr(theirs, "rows") else "data"
    setattr(ours, attribute, getattr(theirs, attribute))


def shown(field: Field) -> str:
    """Return a field's content in words."""
    if isinstance(field, BooleanField):
        return _("yes") if field.data else _("no")
    if isinstance(field, SecretField):
        return _("a new value") if field.data else _("what is stored")
    if getattr(field, "choices", None):
        for choice in field.iter_choices():
            if str(choice.value) == str(field.data):
                return str(choice.label)
    if hasattr(field, "names"):
        return ", ".join(field.names)
    if hasattr(field, "words"):
        return str(field.words)
    if isinstance(field.data, list | tuple):
        return ("; " if hasattr(field, "rows") else ", ").join(map(str, field.data))
    if hasattr(field, "_value"):
        return "; ".join(field._value().splitlines())  # noqa: SLF001 - what WTForms renders
    return "" if field.data is None else str(field.data)


def last_change(session: Session, subject: str, subject_id: int, project_id: int | None) -> tuple[str, datetime | None]:
    """Return who changed this subject last, and when, by the audit trail."""
    entry = models.AuditEntry
    draft = select(models.Draft.id).where(models.Draft.project_id == project_id).scalar_subquery()
    row = session.execute(
        select(entry.actor, entry.at)
        .where(
            entry.project_id.is_not_distinct_from(project_id),
            entry.subject == subject,
            entry.subject_id == subject_id,
            or_(entry.draft_id.is_(None), entry.draft_id == draft) if is_in_draft() else entry.draft_id.is_(None),
        )
        .order_by(entry.id.desc())
        .limit(1)
    ).first()
    return (row.actor, row.at) if row else (_("Somebody else"), None)


# ---- validators: functions of (form, field) that raise, as WTForms defines them


def required(message: Any = None) -> Callable[[Any, Any], None]:
    """Refuse an empty field."""

    def check(_form: Any, field: Any) -> None:
        if not field.data:
            raise StopValidation(message or _("This may not be empty."))

    check.field_flags = {"required": True}  # type: ignore[attr-defined]
    return check


def check_email(_form: Any, field: Any) -> None:
    """Refuse a text that is not an email address."""
    if not auth.is_email(field.data or ""):
        raise ValidationError(_("Not a valid email address: write it like ann@example.org."))


def at_most(chars: int) -> Callable[[Any, Any], None]:
    """Refuse a longer text."""

    def check(_form: Any, field: Any) -> None:
        if field.data and len(field.data) > chars:
            raise ValidationError(_("At most %(n)s characters.", n=chars))

    return check


def at_most_entries(most: int) -> Callable[[Any, Any], None]:
    """Refuse a longer list, before each of its entries is checked: that would delay calls."""

    def check(_form: Any, field: Any) -> None:
        if len(field.data or ()) > most:
            raise StopValidation(too_many_entries(len(field.data), most))
        if too_long := next((text for text in field.data or () if len(text) > MAX_TEXT_CHARS), None):
            raise StopValidation(_("“%(value)s…”: at most %(n)s characters.", value=too_long[:40], n=MAX_TEXT_CHARS))

    return check


def too_many_entries(count: int, most: int) -> str:
    """Return the message for a list that is too long."""
    return _(
        "%(count)s entries are too many: at most %(most)s fit. Take some out, or divide them.", count=count, most=most
    )


def accepted_by(read: Callable[[str], object], message: Any) -> Callable[[Any, Any], None]:
    """Refuse a text, or each text of a list, for which `read` raises ValueError.

    `message` may hold %(text)s: the text that was refused.
    """

    def check(_form: Any, field: Any) -> None:
        texts: Iterable[str] = field.data if isinstance(field.data, list) else [field.data or ""]
        for text in texts:
            try:
                read(text)
            except ValueError:
                raise ValidationError(str(message) % {"text": text[:80]}) from None

    return check
