"""The Undo button of messages."""

from __future__ import annotations

from flask import abort, request, url_for
from flask.typing import ResponseReturnValue

from router.admin import security
from router.admin.faults import words_of_fault
from router.admin.i18n import _
from router.admin.page import Role, as_id, changing, current_project, done, page
from router.configuration.change import ConfigurationError
from router.configuration.undo import CannotUndoError, undo_version


@page("/p/<project>/undo", do=Role.EDITOR)
def undo() -> ResponseReturnValue:
    """Undo what one version changed."""
    version = as_id(request.form.get("version"))
    if version is None:
        abort(400)
    back = security.safe_next(request.form.get("next"), url_for("admin.board"))
    try:
        with changing() as draft:
            undo_version(draft, version)
            name = draft.project.name
    except CannotUndoError:
        return done(_("Nothing was undone: this was changed again since, or is no longer stored."), back, "warning")
    except ConfigurationError as error:
        reason = " ".join(dict.fromkeys(map(words_of_fault, error.faults)))
        return done(_("Nothing was undone: %(reason)s", reason=reason), back, "warning")
    if name != current_project().name:  # the undo has renamed the project, and `back` has the other name
        back = url_for("admin.settings", project=name)
    return done(_("Undone. Applies from the next call."), back)
