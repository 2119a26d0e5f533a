"""Forms about one caller's data: whose it is, and, before it is erased, whose once more."""

from __future__ import annotations

from typing import Any

from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField, at_most, required
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.numbers import normalise_number

_CHECKS = [required(lazy("Write the caller’s number.")), at_most(100)]


def _meant(text: str | None) -> str:
    """The number as calls have it, from any notation; "" when it is nobody's."""
    return normalise_number(text or "", current_project().country)


def _is_somebodys(_form: Any, field: Any) -> None:
    if not _meant(field.data):
        raise ValidationError(_("This is nobody’s number: write one such as +380501112233, or a SIP login."))


class ExportForm(Form):
    number = TextField(lazy("Caller’s number"), [*_CHECKS, _is_somebodys])


class EraseForm(Form):
    """The fields have names of their own: both forms stand on one page."""

    erased = TextField(lazy("Caller’s number"), [*_CHECKS, _is_somebodys])
    again = TextField(lazy("The number once more"), [at_most(100)])

    def validate_again(self, field: Any) -> None:
        """Any notation will do, for both."""
        if _meant(field.data) != _meant(self.erased.data):
            raise ValidationError(_("This is another number. Type the one to erase once more."))
