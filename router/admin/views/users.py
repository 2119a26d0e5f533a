"""Users, for owners: who may sign in, with which role. One owner who can sign in always remains."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import RadioField

from router.admin import auth, security
from router.admin.forms.base import EmailField, Form, RowForm, TextField, at_most, check_email, choices, required
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    as_id,
    context,
    current_user,
    done,
    offer_undo,
    page,
    reading,
    reading_or_writing,
    render_form,
)
from router.admin.words import WORDS
from router.db import models

_ROLES = WORDS["role"].items()
_LAST_OWNER = lazy("This is the last owner: make somebody else an owner first.")


class InviteForm(Form):
    email = EmailField(lazy("Email"), [required(), check_email])
    name = TextField(lazy("Full name"), [at_most(100)])
    role = RadioField(lazy("Role"), choices=choices(_ROLES), default="editor")


class UserForm(RowForm):
    name = TextField(lazy("Full name"), [at_most(100)])
    role = RadioField(lazy("Role"), choices=choices(_ROLES))


@page("/users", see=Role.OWNER, keeps_menu=True)
def users() -> ResponseReturnValue:
    """List all users, disabled ones last."""
    with reading() as session:
        rows = session.scalars(
            select(models.User).order_by(models.User.disabled_at.is_not(None), models.User.email)
        ).all()
    return render_template("users/users.html", rows=rows)


@page("/users/new", see=Role.OWNER, do=Role.OWNER, is_form=True, keeps_menu=True)
def user_new() -> ResponseReturnValue:
    """Invite a user: add an account without password, and show a link to choose one."""
    form = InviteForm()
    if form.saves():
        with context().database.writing() as session:
            if session.scalar(select(models.User.id).where(models.User.email == form.email.data)) is None:
                user = models.User(
                    email=form.email.data, name=form.name.data, role=form.role.data, created_at=datetime.now(UTC)
                )
                session.add(user)
                session.flush()
                link = auth.user_link(session, context().settings.base_url, user)
                auth.record(session, current_user().email, "invited", user, {"role": user.role})
                return _show_link(user, link)
            form.refuse("email", _("There is a user with this address already."))
    return render_form("users/new.html", form)


def _show_link(user: models.User, link: str) -> ResponseReturnValue:
    # In the answer itself, not after a redirect: the link is not stored.
    return render_template("users/link.html", user=user, link=link, hours=auth.LINK_LIFETIME.total_seconds() // 3600)


@page("/users/<int:id>", see=Role.OWNER, do=Role.OWNER, is_form=True, keeps_menu=True)
def user(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change name and role."""
    with reading_or_writing() as session:
        row = _lock_user(session, id)
        form = UserForm(obj=row)
        if form.saves(row) and _keeps_an_owner(session, row, form):
            values = {"name": form.name.data, "role": form.role.data}
            return _done(_("Saved."), auth.change_user(session, row, current_user().email, values))
    return render_form("users/user.html", form, row=row)


def _done(message: str, entry: models.AuditEntry | None) -> ResponseReturnValue:
    """Redirect to all users, show the message there, and offer to undo the change that the entry tells of."""
    back = url_for("admin.users")
    if entry is not None:
        offer_undo(url_for("admin.user_undo"), entry=entry.id, next=back)
    return done(message, back)


def _lock_user(session: Session, user_id: int) -> models.User:
    row = session.get(models.User, user_id, with_for_update=True)
    if row is None:
        abort(404)
    return row


def _keeps_an_owner(session: Session, row: models.User, form: Any) -> bool:
    if form.role.data != "owner" and auth.is_last_owner(session, row):
        form.refuse("role", str(_LAST_OWNER))
        return False
    return True


@page("/users/<int:id>/link", do=Role.OWNER, keeps_menu=True)
def user_link(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Make a new one-time link to choose a password. Earlier ones stop working."""
    with context().database.writing() as session:
        row = _lock_user(session, id)
        if row.disabled_at is not None:
            return done(_("Enable the account first."), url_for("admin.users"), "warning")
        link = auth.user_link(session, context().settings.base_url, row)
        auth.record(session, current_user().email, "made_link", row)
    return _show_link(row, link)


@page("/users/<int:id>/disable", do=Role.OWNER, keeps_menu=True)
def user_disable(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Sign a user out everywhere, until enabled again."""
    with context().database.writing() as session:
        row = _lock_user(session, id)
        if auth.is_last_owner(session, row):
            return done(_LAST_OWNER, url_for("admin.users"), "danger")
        entry = auth.disable(session, row, current_user().email)
        return _done(_("%(email)s can no longer sign in.", email=row.email), entry)


@page("/users/<int:id>/enable", do=Role.OWNER, keeps_menu=True)
def user_enable(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Let a user sign in again, with the same password and role. Earlier links stay invalid."""
    with context().database.writing() as session:
        row = _lock_user(session, id)
        entry = auth.enable(session, row, current_user().email)
        return _done(_("%(email)s can sign in again.", email=row.email), entry)


@page("/users/undo", do=Role.OWNER, keeps_menu=True)
def user_undo() -> ResponseReturnValue:
    """Undo one change of a user, unless something has changed since."""
    back = security.safe_next(request.form.get("next"), url_for("admin.users"))
    with context().database.writing() as session:
        entry = session.get(models.AuditEntry, as_id(request.form.get("entry")) or 0)
        if entry is None or entry.subject != "user":
            abort(404)
        row = session.get(models.User, entry.subject_id or 0, with_for_update=True)
        if row is None or not auth.can_undo(row, entry):
            return done(_("Nothing was undone: this was changed again since, or is no longer stored."), back, "warning")
        loses_owner = entry.action != "disabled" and (entry.before or {}).get("role") != "owner"
        if loses_owner and auth.is_last_owner(session, row):
            return done(_LAST_OWNER, back, "danger")
        auth.undo_change(session, row, current_user().email, entry)
    return done(_("Undone."), back)
