"""Forms to export and to erase one caller's data."""

from __future__ import annotations

from typing import Any

from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField, at_most, required
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.numbers import normalise_number

_CHECKS = [required(lazy("Write the caller’s number.")), at_most(100)]


def _normalise(text: str | None) -> str:
    """Return the number as calls store it; "" for what is not a caller's number."""
    return normalise_number(text or "", current_project().country)


def _check_number(_form: Any, field: Any) -> None:
    if not _normalise(field.data):
        raise ValidationError(_("Not a valid caller’s number: write one such as +380501112233, or a SIP login."))


class ExportForm(Form):
    number = TextField(lazy("Caller’s number"), [*_CHECKS, _check_number])


class EraseForm(Form):
    """The form to erase. Its fields have other names than those of ExportForm on the same page."""

    erased = TextField(lazy("Caller’s number"), [*_CHECKS, _check_number])
    again = TextField(lazy("The number once more"), [at_most(100)])

    def validate_again(self, field: Any) -> None:
        if _normalise(field.data) != _normalise(self.erased.data):
            raise ValidationError(_("Not the same number. Type the one to erase once more."))
