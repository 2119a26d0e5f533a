"""The overflow of a rule, a group or the project: its fields, and what is likely wrong with what is typed there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import g
from sqlalchemy import func, literal, or_, select
from wtforms import RadioField
from wtforms.validators import ValidationError

from router.admin.faults import WORDS
from router.admin.forms.base import TextField, choices
from router.admin.i18n import _, lazy
from router.admin.page import current_project, reading
from router.configuration.schema import SchemaError, destination, notation
from router.db import models
from router.numbers import is_complete


def overflow_fields(unset: Any) -> tuple[RadioField, TextField]:
    """Return the fields of an optional overflow. `unset`: the label for none, which says what counts instead."""
    kinds = [
        ("unset", unset),
        ("to", lazy("A number, SIP login or scheme")),
        ("empty", lazy("Send no destination")),
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
        raise ValidationError(str(WORDS["destination"])) from None


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


# ---- while it is typed


def doubt_of(text: str | None, country: str = "") -> str:
    """Return what is likely wrong with a destination, in words; "" if nothing is. `country`: "" for the project's."""
    project, typed = g.get("project"), (text or "").strip()
    country = country or (project.country if project is not None else "UA")
    try:
        destination(typed, country)
    except SchemaError:
        return str(WORDS["destination"])
    digits = re.sub(r"[\s().+-]", "", typed)
    if digits.isdecimal() and (typed.startswith(("+", "0", "(")) or len(digits) > _LONGEST_SHORT):
        if is_complete(typed, country):
            return ""
        if country == "UA" and not typed.startswith("+"):
            return _("Not a complete Ukrainian number. Write it with all digits, like 044 123 45 67.")
        return _("Not a complete phone number. Write it with the country code, like +380 44 123 45 67.")
    if not typed or project is None or _is_known_login(project.id, typed):
        return ""
    return _("No such SIP login is known. Check the spelling, unless it is the id of a scheme in Ringostat.")


_LONGEST_SHORT = 6  # digits of an extension or of the id of a scheme


def _is_known_login(project_id: int, login: str) -> bool:
    """Return whether the project's agents have this login, or Ringostat has ever said that it is online."""
    found = (
        select(model.login).where(model.project_id == project_id, func.lower(model.login) == login.lower()).exists()
        for model in (models.SipLogin, models.LoginState)
    )
    with reading() as session:
        return session.scalar(select(literal(1)).where(or_(*found))) is not None
