"""Sign-in and sign-out, one-time links, the own account, the language."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import generate_csrf
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response
from wtforms import PasswordField, SelectField
from wtforms.validators import ValidationError

from router.admin import auth, i18n, security
from router.admin.forms.base import EmailField, Form, TextField, at_most, check_email, choices, required
from router.admin.i18n import LANGUAGES, _, lazy, ngettext
from router.admin.page import Role, context, current_user, done, page, reading_or_writing, render_form, signed_in
from router.db import models
from router.log import log

# ---- forms


class SignInForm(Form):
    email = EmailField(lazy("Email"), [at_most(254)])
    password = PasswordField(lazy("Password"))


class NewPasswordForm(Form):
    """A password, twice. `email_of`: the user's address, where there is no field for it."""

    password = PasswordField(lazy("Password"), [required(lazy("Choose a password."))])
    again = PasswordField(lazy("Password again"))
    email_of = ""

    def validate_password(self, field: Any) -> None:
        email = self._fields["email"].data if "email" in self._fields else self.email_of
        if problem := auth.weakness(field.data or "", email or ""):
            raise ValidationError(problem)

    def validate_again(self, field: Any) -> None:
        if field.data != self.password.data:
            raise ValidationError(_("The two passwords differ."))


class FirstOwnerForm(NewPasswordForm):
    email = EmailField(lazy("Email"), [required(lazy("Enter your email address.")), check_email])
    name = TextField(lazy("Your name"), [at_most(100)])


class WelcomeForm(NewPasswordForm):
    """The password and name of an invited user."""

    name = TextField(lazy("Your name"), [at_most(100)])


class ChangePasswordForm(NewPasswordForm):
    current = PasswordField(lazy("Current password"), [required()])


class AccountForm(Form):
    """The settings of the own account."""

    name = TextField(lazy("Your name"), [at_most(100)])
    language = SelectField(lazy("Language"), choices=choices([("", lazy("Same as the browser")), *LANGUAGES.items()]))


# ---- sign-in


@page("/sign-in", see=Role.ANYBODY, do=Role.ANYBODY, is_form=True)
def sign_in() -> ResponseReturnValue:
    """Sign in. The answer never shows whether the email or the password was wrong, or whether the account exists."""
    target = security.safe_next(request.args.get("next"), url_for("admin.home"))
    if signed_in() is not None and request.method != "POST":
        return redirect(target)
    form = SignInForm()
    problem = ""
    if form.saves():
        email, password = form.email.data, form.password.data or ""
        device = auth.known_device(email)
        found = auth.sign_in(context().database, email, password, request.remote_addr or "", device)
        if found.user is not None:
            auth.start_session(found.user)
            log.info("admin: signed in", user=found.user.email, remote=request.remote_addr)
            return _remembering(redirect(target, 303), found.user)
        log.warning("admin: sign-in refused", remote=request.remote_addr, throttled=bool(found.wait))
        problem = _wait_message(found.wait) if found.wait else _("Wrong email or password.")
        status = 429 if found.wait else 422
        return render_template("auth/sign_in.html", form=form, problem=problem), status
    with context().database.reading() as session:
        nobody = session.scalar(select(models.User.id).limit(1)) is None
    if nobody:
        flash(_("Nobody has an account yet. The log of the service shows a one-time link for the first owner."), "info")
    return render_template("auth/sign_in.html", form=form, problem=problem)


def _remembering(response: Response, user: models.User) -> Response:
    auth.remember_device(response, user.email)
    return response


def _wait_message(wait: timedelta) -> str:
    seconds = int(wait.total_seconds()) + 1
    if seconds < 60:
        return ngettext("Too many tries. Wait %(num)s second.", "Too many tries. Wait %(num)s seconds.", seconds)
    minutes = -(-seconds // 60)
    return ngettext("Too many tries. Wait %(num)s minute.", "Too many tries. Wait %(num)s minutes.", minutes)


@page("/session", see=Role.ANYBODY)
def session_now() -> ResponseReturnValue:
    """Return who is signed in, and the token that their posts must carry: app.js asks before a form is sent."""
    user = signed_in()
    return {"user": None if user is None else user.id, "token": generate_csrf()}


@page("/sign-out", do=Role.ANYBODY)
def sign_out() -> ResponseReturnValue:
    """Sign out in this browser."""
    user = signed_in()
    if user is not None:
        with context().database.writing() as session:
            row = session.get_one(models.User, user.id)
            auth.record(session, user.email, "signed_out", row)
            auth.end_session(session, row)
    return done(_("You are signed out."), url_for("admin.sign_in"), "info")


@page("/account/sign-out-everywhere", do=Role.VIEWER)
def sign_out_everywhere() -> ResponseReturnValue:
    """Sign out in all browsers."""
    with context().database.writing() as session:
        user = session.get_one(models.User, current_user().id)
        auth.record(session, user.email, "signed_out_everywhere", user)
        auth.end_sessions(session, user)
        auth.end_session(session, user)
    return done(_("You are signed out everywhere."), url_for("admin.sign_in"), "info")


# ---- one-time links


@page("/welcome/<token>", see=Role.ANYBODY, do=Role.ANYBODY, is_form=True)
def welcome(token: str) -> ResponseReturnValue:
    """Set a password by a one-time link: for the first owner, an invited user, or after a forgotten password.

    Opening the page does not use up the link.
    """
    with reading_or_writing() as session:
        link = auth.find_link(session, token)
        user = session.get(models.User, link.user_id) if link is not None and link.user_id else None
        form = _welcome_form(user)
        started = _accept(session, link, user, form) if link is not None and form.saves() else None
    if link is None:
        title = _("This link does not work any more")
        message = _("It was used already, or is older than a day. An owner can make you a new one.")
        return render_template("error.html", code=410, title=title, message=message), 410
    if started is not None:
        auth.start_session(started)
        log.info("admin: signed in by a one-time link", user=started.email, remote=request.remote_addr)
        return _remembering(done(_("Welcome! You are signed in."), url_for("admin.home")), started)
    return render_form("auth/first_run.html", form, email=user.email if user else "", **_welcome_words(user))


def _welcome_form(user: models.User | None) -> Form:
    if user is None:
        return FirstOwnerForm()
    form = WelcomeForm(data={"name": user.name})
    form.email_of = user.email
    return form


def _welcome_words(user: models.User | None) -> dict[str, str]:
    if user is None:
        return {
            "heading": _("Welcome"),
            "text": _("Create the account of the first owner. This link works once."),
            "action": _("Create account"),
        }
    if user.password_hash:
        return {
            "heading": _("A new password"),
            "text": _("This link works once, and signs you out everywhere else."),
            "action": _("Save the new password"),
        }
    return {
        "heading": _("Welcome"),
        "text": _("Choose a password to sign in. This link works once."),
        "action": _("Create account"),
    }


def _accept(session: Session, link: models.OneTimeLink, user: models.User | None, form: Form) -> models.User:
    now = datetime.now(UTC)
    is_new = user is None
    if user is None:
        email = form["email"].data
        user = session.scalar(select(models.User).where(models.User.email == email))
        if user is None:
            user = models.User(email=email, role="owner", created_at=now)
            session.add(user)
        user.role, user.disabled_at = "owner", None  # an owner who never signed in, or was disabled
    user.name = form["name"].data
    user.password_hash = auth.hash_password(form["password"].data)
    user.seen_at = now
    link.used_at = now
    session.flush()
    auth.end_sessions(session, user)
    auth.record(session, user.email, "made_first_owner" if is_new else "used_link", user)
    return user


# ---- the own account


@page("/account", see=Role.VIEWER, do=Role.VIEWER, is_form=True)
def account() -> ResponseReturnValue:
    """Show and change name, language and password."""
    form, password = _account_forms()
    if "current" in request.form:
        if password.saves() and _change_password(password):
            return done(_("The password is changed. You are signed out everywhere else."), url_for("admin.account"))
    elif form.saves():
        with context().database.writing() as session:
            user = session.get_one(models.User, current_user().id)
            user.name, user.language = form.name.data, form.language.data
        return done(_("Saved."), url_for("admin.account"))
    refused = password if password.errors else form
    return render_form("auth/account.html", refused, account=form, password=password)


def _account_forms() -> tuple[AccountForm, ChangePasswordForm]:
    user = current_user()
    is_password = "current" in request.form
    shown = {"name": user.name, "language": user.language}
    form = AccountForm(formdata=None, data=shown) if is_password or not request.form else AccountForm(data=shown)
    password = ChangePasswordForm() if is_password else ChangePasswordForm(formdata=None)
    password.email_of = user.email
    return form, password


def _change_password(form: ChangePasswordForm) -> bool:
    database = context().database
    user = current_user()
    # Throttled like a sign-in: somebody may use an unlocked screen.
    device = auth.known_device(user.email)
    found = auth.sign_in(database, user.email, form.current.data, request.remote_addr or "", device)
    if found.user is None:
        form.refuse("current", _wait_message(found.wait) if found.wait else _("That is not your current password."))
        return False
    with database.writing() as session:
        row = session.get_one(models.User, user.id)
        row.password_hash = auth.hash_password(form.password.data)
        session.flush()
        auth.end_sessions(session, row)
        auth.record(session, row.email, "changed_password", row)
    auth.start_session(row)
    return True


@page("/language", do=Role.ANYBODY)
def set_language() -> ResponseReturnValue:
    """Choose the language of this browser, and of the account."""
    chosen = request.form.get("language", "")
    response = redirect(security.safe_next(request.form.get("next"), url_for("admin.home")), 303)
    if chosen not in LANGUAGES:
        return response
    user = signed_in()
    if user is not None:
        with context().database.writing() as session:
            session.execute(update(models.User).where(models.User.id == user.id).values(language=chosen))
    i18n.remember(response, chosen, secure=security.is_https(context().settings))  # type: ignore[arg-type]
    return response
