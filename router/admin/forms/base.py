"""What every form of the admin stands on: fields that read what people type, and the check that nobody else was first.

A form never saves half: a view stores it only when `saves` says so, in the transaction in which that was asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from flask import request
from flask_wtf import FlaskForm
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session
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

from router.admin import kept
from router.admin.i18n import _
from router.config_file.words import MAX_TEXT_CHARS, UNFIT
from router.db import models


class TextField(StringField):  # type: ignore[misc]
    """One line of text, without blanks around it."""

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = valuelist[0].strip() if valuelist else ""

    def pre_validate(self, form: Any) -> None:
        """What a file may not hold either."""
        if UNFIT.search(self.data or ""):
            raise ValidationError(_("This holds a character that does not show: type it anew."))


class NumberField(FloatField):  # type: ignore[misc]
    """A number from `least` to `most`; a decimal comma does too. Empty: None where `optional`, else an error."""

    widget = TextInput()

    def __init__(
        self, label: Any, *, least: float, most: float, whole: bool = False, optional: bool = False, **kwargs: Any
    ) -> None:
        kwargs.setdefault("render_kw", {}).setdefault("inputmode", "numeric" if whole else "decimal")
        super().__init__(label, **kwargs)
        self.least, self.most, self.whole, self.optional = least, most, whole, optional

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
    """The number in full: "2.5", "3600"."""
    return repr(number).removesuffix(".0")


class LinesField(TextAreaField):  # type: ignore[misc]
    """A list of texts, one a line or separated by commas. Data: list[str], without empty ones."""

    def process_formdata(self, valuelist: list[str]) -> None:
        texts = re.split(r"[\n,;]", valuelist[0]) if valuelist else []
        self.data = [text.strip() for text in texts if text.strip()]

    def _value(self) -> str:
        return str(self.raw_data[0]) if self.raw_data else "\n".join(self.data or [])


def choices(pairs: Iterable[tuple[Any, Any]]) -> list[SelectChoice]:
    """What a SelectField or RadioField offers, from (value, label)."""
    return [SelectChoice(value, label) for value, label in pairs]


class SecretField(PasswordField):  # type: ignore[misc]
    """A credential: taken, never shown. Left empty it keeps what is stored; see `store_secret`."""

    process_formdata, pre_validate = TextField.process_formdata, TextField.pre_validate

    def populate_obj(self, obj: Any, name: str) -> None:
        """Not by itself: what an empty box means is for `store_secret` to say."""


class _Revision(HiddenField):  # type: ignore[misc]
    """Which state of the row the form was made from. Storing the form counts the row's revision up.

    Beside it the page carries a mark of what each field showed then.
    """

    form: RowForm

    def __call__(self, **kwargs: Any) -> Markup:
        """Both, as hidden inputs."""
        if self.raw_data:
            marks = request.form.get(self._marks_name, "")
        else:
            marks = " ".join(f"{name}:{_mark(field)}" for name, field in self.form.merged_fields())
        return Markup('{}<input type="hidden" name="{}" value="{}">').format(
            super().__call__(**kwargs), self._marks_name, marks
        )

    @property
    def marks(self) -> dict[str, str]:
        """By field the mark of what it showed when the form was made."""
        pairs = (part.partition(":") for part in request.form.get(self._marks_name, "").split())
        return {name: mark for name, _colon, mark in pairs}

    @property
    def _marks_name(self) -> str:
        return f"{self.name}_marks"

    def populate_obj(self, obj: Any, name: str) -> None:
        # Also when only rows below this one change (a group's members): those alone would leave the revision as it is.
        flag_modified(obj, "name")


class Conflict(NamedTuple):
    """Somebody else saved first: who, when, and (label, theirs, ours) for each field that both have changed."""

    who: str
    at: datetime | None
    differing: list[tuple[str, str, str]]
    revision: int  # what the row is at now: confirming it overwrites exactly that


class Form(FlaskForm):  # type: ignore[misc]
    """A form without a row, or one that nobody can collide with. The blueprint has checked the token already."""

    class Meta:
        csrf = False

    conflict: Conflict | None = None

    @property
    def is_posted(self) -> bool:
        """Was it sent, whatever is in it?"""
        return request.method == "POST"

    def saves(self) -> bool:
        """Was it sent, and is it in order?"""
        return self.is_posted and not kept.is_only_shown() and bool(self.validate())

    def refuse(self, field: str, message: str) -> None:
        """Put an error beside a field that only the view can find, such as a name that is taken."""
        target = self._fields[field]
        target.errors = [*target.errors, message]


class RowForm(Form):
    """A form that edits a row with a `revision`.

    Give it `obj=row` to show the row, and `saves(row, session)` in the transaction that is to store it. Fields have the
    names of the row's attributes; what does not fit by itself is `fill`ed from the row and `store`d into it.
    """

    revision = _Revision()

    def __init__(self, *args: Any, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, obj=obj, **kwargs)
        self.revision.form = self
        if obj is not None and (not self.is_posted or ("formdata" in kwargs and kwargs["formdata"] is None)):
            self.fill(obj)

    def saves(self, row: Any = None, session: Session | None = None) -> bool:
        """Was it sent, is it in order, and has nobody else changed what was changed here (or is overwriting confirmed)?

        What only others have changed since the form was made is theirs.
        """
        if not super().saves():
            return False
        if row is None or session is None:
            return True
        if self.revision.data == str(row.revision):
            return True
        differing = self._merge(self.anew(row))
        who, at = last_change(session, row)
        if differing and request.form.get("overwrite") != str(row.revision):
            self.conflict = Conflict(who, at, differing, row.revision)
            return False
        return bool(self.validate())  # what belongs together may come from two people now

    def _merge(self, theirs: RowForm) -> list[tuple[str, str, str]]:
        """Take over what was changed by others alone; (label, theirs, ours) of what both have changed."""
        was, differing = self.revision.marks, []
        for name, field in self.merged_fields():
            if name not in theirs or (mark := _mark(theirs[name])) == _mark(field):
                continue
            if was.get(name) == _mark(field):
                _take(field, theirs[name])
            elif was.get(name) != mark:
                differing.append((str(field.label.text), shown(theirs[name]), shown(field)))
        return differing

    def differs_from(self, row: Any) -> bool:
        """Does it hold what the row does not?"""
        saved = self.anew(row)
        return any(_mark(field) != _mark(saved[name]) for name, field in self.merged_fields())

    def merged_fields(self) -> list[tuple[str, Field]]:
        """The fields in which two people can differ. What is typed into a secret's is always meant."""
        return [
            (name, field)
            for name, field in self._fields.items()
            if not isinstance(field, _Revision | SecretField) and not name.endswith("_clear")
        ]

    def anew(self, row: Any) -> RowForm:
        """The form as it would show the row now. For subclasses that take more to make."""
        return type(self)(formdata=None, obj=row)

    def fill(self, row: Any) -> None:
        """Show what of the row does not fit a field by its name. For subclasses."""

    def store(self, row: Any) -> None:
        """Put what was typed into the row."""
        self.populate_obj(row)


def _mark(field: Field) -> str:
    """What a field shows, as a short mark: the same for what browsers send back of it untouched."""
    content: Any
    if hasattr(field, "rows"):
        content = [sorted(vars(row).items()) if hasattr(row, "__dict__") else row for row in field.rows]
        content = [
            [part for part in row if part[0] not in _SET_BY_US] if isinstance(row, list) else row for row in content
        ]
    elif isinstance(field, BooleanField):
        content = bool(field.data)
    elif hasattr(field, "_value"):
        content = field._value().replace("\r\n", "\n").strip()  # noqa: SLF001 - WTForms' word for what it renders
    else:
        content = "" if field.data is None else str(field.data)
    return blake2b(repr(content).encode(), digest_size=6).hexdigest()


_SET_BY_US = {"error", "errors", "part", "state", "dates_error", "hours_error", "doubt"}  # of a row; nobody types them


def _take(ours: Field, theirs: Field) -> None:
    """Let a field hold what another one holds."""
    ours.raw_data = None
    for name in ("rows", "ids"):
        if name in vars(theirs):
            setattr(ours, name, getattr(theirs, name))
            return
    ours.data = theirs.data


def shown(field: Field) -> str:
    """A field's content in words."""
    if isinstance(field, BooleanField):
        return _("yes") if field.data else _("no")
    if isinstance(field, SecretField):
        return _("a new value") if field.data else _("what is stored")
    if getattr(field, "choices", None):
        for choice in field.iter_choices():
            if str(choice.value) == str(field.data):
                return str(choice.label)
    if isinstance(field.data, list | tuple):
        return ", ".join(str(item) for item in field.data)
    if isinstance(field.data, float):
        return plain_number(field.data)
    return "" if field.data is None else str(field.data)


def last_change(session: Session, row: Any) -> tuple[str, datetime | None]:
    """Who changed this row last, and when, by the audit trail."""
    subject = type(row).__tablename__.removesuffix("s")
    project_id = row.id if isinstance(row, models.Project) else getattr(row, "project_id", None)
    entry = session.execute(
        select(models.AuditEntry.actor, models.AuditEntry.at)
        .where(
            models.AuditEntry.project_id.is_not_distinct_from(project_id),
            models.AuditEntry.subject == subject,
            models.AuditEntry.subject_id == row.id,
        )
        .order_by(models.AuditEntry.id.desc())
        .limit(1)
    ).first()
    return (entry.actor, entry.at) if entry else (_("Somebody else"), None)


# ---- validators: functions that take (form, field) and raise, as WTForms wants them


def required(message: Any = None) -> Callable[[Any, Any], None]:
    """Something must be typed."""

    def check(_form: Any, field: Any) -> None:
        if not field.data:
            raise StopValidation(message or _("This may not be empty."))  # one error is enough

    check.field_flags = {"required": True}  # type: ignore[attr-defined]
    return check


def at_most(chars: int) -> Callable[[Any, Any], None]:
    """No longer than this."""

    def check(_form: Any, field: Any) -> None:
        if field.data and len(field.data) > chars:
            raise ValidationError(_("At most %(n)s characters.", n=chars))

    return check


def at_most_entries(most: int) -> Callable[[Any, Any], None]:
    """A list no longer than this. Stops there: to look at each entry of a very long one would hold up the calls."""

    def check(_form: Any, field: Any) -> None:
        if len(field.data or ()) > most:
            raise StopValidation(too_many_entries(len(field.data), most))
        if too_long := next((text for text in field.data or () if len(text) > MAX_TEXT_CHARS), None):
            raise StopValidation(_("“%(value)s…”: at most %(n)s characters.", value=too_long[:40], n=MAX_TEXT_CHARS))

    return check


def too_many_entries(count: int, most: int) -> str:
    """What is wrong with a list of so many entries, for the reader."""
    return _(
        "%(count)s entries are too many: at most %(most)s fit. Take some out, or divide them.", count=count, most=most
    )


def accepted_by(read: Callable[[str], object], message: Any) -> Callable[[Any, Any], None]:
    """`read` must take the text, or each text of a list; what it raises (ValueError) is told as `message`.

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


def store_secret(row: Any, name: str, field: SecretField, clear: BooleanField | None = None) -> bool:
    """Set, keep (empty box) or take away (`clear`) the credential `name` of a row. Did it change?"""
    before = getattr(row, name)
    after = None if clear is not None and clear.data else field.data or before
    setattr(row, name, after)
    return bool(after != before)
