"""One caller's data, for owners: given out as a file, or erased for good. Both leave a line in the audit trail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from flask import Response, flash, render_template, url_for
from flask.typing import ResponseReturnValue

from router.admin.forms.callers import EraseForm, ExportForm
from router.admin.i18n import _
from router.admin.page import Role, context, current_project, current_user, done, page
from router.db.personal import erase_caller, export_caller


@page("/p/<project>/caller", see=Role.OWNER)
def caller_data() -> ResponseReturnValue:
    """Two forms: one gives out, one erases."""
    return _forms(ExportForm(), EraseForm())


def _forms(export: ExportForm, erase: EraseForm) -> ResponseReturnValue:
    status = 422 if export.errors or erase.errors else 200
    return render_template("callers/caller.html", export=export, erase=erase), status


@page("/p/<project>/caller/export", do=Role.OWNER)
def caller_export() -> ResponseReturnValue:
    """All that is kept of one caller, as a JSON file, sent as it is read. Not masked: it is for the caller."""
    form = ExportForm()
    if not form.saves():
        return _forms(form, EraseForm(formdata=None))
    rows = export_caller(context().database, current_project().id, form.number.data, current_user().email)
    headers = {"Content-Disposition": 'attachment; filename="caller.json"'}  # the number stays out of names of files
    return Response(_as_json(rows), headers=headers, content_type="application/json")


def _as_json(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """A JSON array, a line for each row."""
    mark = "["
    for row in rows:
        yield f"{mark}\n{json.dumps(row)}"  # in ASCII: no reader guesses the charset
        mark = ","
    yield "[]\n" if mark == "[" else "\n]\n"


@page("/p/<project>/caller/erase", do=Role.OWNER)
def caller_erase() -> ResponseReturnValue:
    """Erase one caller from all calls of the project. The number is typed twice: nothing brings it back."""
    form = EraseForm()
    if not form.saves():
        return _forms(ExportForm(formdata=None), form)
    erased = erase_caller(context().database, current_project().id, form.erased.data, current_user().email)
    for rule in erased.rules:
        flash(_("The rule “%(name)s” still names the number: change it on the page of rules.", name=rule), "warning")
    told = _(
        "Erased from %(calls)s calls and %(requests)s refused requests.",
        calls=erased.calls,
        requests=erased.refused_requests,
    )
    return done(told, url_for("admin.caller_data"))
