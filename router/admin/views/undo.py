"""The Undo button of messages."""

from __future__ import annotations

from flask import abort, request, url_for
from flask.typing import ResponseReturnValue

from router.admin import security
from router.admin.faults import words_of_fault
from router.admin.i18n import _
from router.admin.page import Role, as_id, changing, current_project, done, is_in_draft, page
from router.configuration.change import ConfigurationError
from router.configuration.drafts import KeptDraft
from router.configuration.undo import CannotUndoError, undo_version


@page("/p/<project>/undo", do=Role.EDITOR, drafts=True)
def undo() -> ResponseReturnValue:
    """Undo what one version changed, in the draft what was changed there by some entries of the audit trail."""
    version, first, last = (as_id(request.form.get(name)) for name in ("version", "first", "last"))
    back = security.safe_next(request.form.get("next"), url_for("admin.board"))
    try:
        with changing() as draft:
            if isinstance(draft, KeptDraft) and first and last:
                draft.undo(first, last)
            elif version and not isinstance(draft, KeptDraft):
                undo_version(draft, version)
            else:
                abort(400)
            name = draft.project.name
    except CannotUndoError:
        return done(_("Nothing was undone: this was changed again since, or is no longer stored."), back, "warning")
    except ConfigurationError as error:
        reason = " ".join(dict.fromkeys(map(words_of_fault, error.faults)))
        return done(_("Nothing was undone: %(reason)s", reason=reason), back, "warning")
    if name != current_project().name:  # the undo has renamed the project, and `back` has the other name
        back = url_for("admin.settings", project=name)
    return done(_("Undone in the draft.") if is_in_draft() else _("Undone. Applies from the next call."), back)
