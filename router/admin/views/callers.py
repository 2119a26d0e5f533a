"""One caller's data, for owners: export as a file, or erase for good. Both are in the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask import Response, flash, render_template, url_for
from flask.typing import ResponseReturnValue
from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField, at_most, required
from router.admin.i18n import _, lazy
from router.admin.page import Role, context, current_project, current_user, done, page
from router.db.personal import erase_caller, export_caller
from router.numbers import normalise_number

_CHECKS = [required(lazy("Write the caller’s number.")), at_most(100)]


def _normalise(text: str | None) -> str:
    """Return the number as calls store it; "" for what is not a caller's number."""
    return normalise_number(text or "", current_project().country)


def _check_number(_form: Any, field: Any) -> None:
    if not _normalise(field.data):
        raise ValidationError(_("Not a valid number: write it like +380501112233, or write a SIP login."))


class ExportForm(Form):
    number = TextField(lazy("Caller’s number"), [*_CHECKS, _check_number])


class EraseForm(Form):
    """The form to erase. Its fields have other names than those of ExportForm on the same page."""

    erased = TextField(lazy("Caller’s number"), [*_CHECKS, _check_number])
    again = TextField(lazy("The number once more"), [at_most(100)])

    def validate_again(self, field: Any) -> None:
        if _normalise(field.data) != _normalise(self.erased.data):
            raise ValidationError(_("Not the same number. Type the one to erase once more."))


@page("/p/<project>/caller", see=Role.OWNER)
def caller_data() -> ResponseReturnValue:
    """Show the forms to export and to erase."""
    return _forms(ExportForm(), EraseForm())


def _forms(export: ExportForm, erase: EraseForm) -> ResponseReturnValue:
    status = 422 if export.errors or erase.errors else 200
    return render_template("callers/caller.html", export=export, erase=erase), status


@page("/p/<project>/caller/export", do=Role.OWNER)
def caller_export() -> ResponseReturnValue:
    """Send all data of one caller as a JSON file, as it is read. Not masked: it is for the caller."""
    form = ExportForm()
    if not form.saves():
        return _forms(form, EraseForm(formdata=None))
    rows = export_caller(context().database, current_project().id, form.number.data, current_user().email)
    headers = {"Content-Disposition": 'attachment; filename="caller.json"'}  # without the number
    return Response(_as_json(rows), headers=headers, content_type="application/json")


def _as_json(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Yield a JSON array, a line for each row, in ASCII."""
    begin = "["
    for row in rows:
        yield f"{begin}\n{json.dumps(row)}"
        begin = ","
    yield "[]\n" if begin == "[" else "\n]\n"


@page("/p/<project>/caller/erase", do=Role.OWNER)
def caller_erase() -> ResponseReturnValue:
    """Erase one caller from all calls of the project. The number is typed twice, since this cannot be undone."""
    form = EraseForm()
    if not form.saves():
        return _forms(ExportForm(formdata=None), form)
    erased = erase_caller(context().database, current_project().id, form.erased.data, current_user().email)
    for rule in erased.rules:
        flash(_("The rule “%(name)s” still names the number: change it on the page of rules.", name=rule), "warning")
    for test in erased.tests:
        flash(_("The test “%(name)s” still names the number: change or delete it.", name=test), "warning")
    message = _(
        "Erased from %(calls)s calls and %(requests)s refused requests.",
        calls=erased.calls,
        requests=erased.refused_requests,
    )
    return done(message, url_for("admin.caller_data"))
