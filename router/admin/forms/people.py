"""Forms for sign-in, one-time links and the own account, and what they share with those of users."""

from __future__ import annotations

import re
from typing import Any

from wtforms import PasswordField, SelectField
from wtforms.validators import ValidationError

from router.admin.auth import LEAST_PASSWORD_CHARS, MOST_PASSWORD_CHARS, normal_email
from router.admin.forms.base import Form, TextField, at_most, choices, required
from router.admin.i18n import LANGUAGES, _, lazy

_EMAIL = re.compile(r"[^@\s<>\"',;:]{1,64}@[^@\s<>\"',;:]{1,190}")


class EmailField(TextField):
    """An email address in lower case."""

    def process_formdata(self, valuelist: list[str]) -> None:
        self.data = normal_email(valuelist[0]) if valuelist else ""


def check_email(_form: Any, field: Any) -> None:
    if not is_email(field.data or ""):
        raise ValidationError(_("Not a valid email address: write it like ann@example.org."))


def is_email(text: str) -> bool:
    """Return whether it looks like an address. Nothing is sent to it: it is only a name to sign in with."""
    return _EMAIL.fullmatch(text) is not None


def weakness(password: str, email: str) -> str:
    """Return what is wrong with a new password, in words; "" when it is accepted."""
    if len(password) < LEAST_PASSWORD_CHARS:
        return _("Too short: at least %(n)s characters.", n=LEAST_PASSWORD_CHARS)
    if len(password) > MOST_PASSWORD_CHARS:
        return _("Too long: at most %(n)s characters.", n=MOST_PASSWORD_CHARS)
    if len(set(password)) < 5:
        return _("Too easy to guess: use more different characters.")
    if email and password.casefold() in {email.casefold(), email.casefold().partition("@")[0]}:
        return _("Too easy to guess: it is your address.")
    return ""


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
        if problem := weakness(field.data or "", email or ""):
            raise ValidationError(problem)

    def validate_again(self, field: Any) -> None:
        if field.data != self.password.data:
            raise ValidationError(_("The two are not the same."))


class FirstOwnerForm(NewPasswordForm):
    email = EmailField(lazy("Email"), [required(lazy("Enter your email address.")), check_email])
    name = TextField(lazy("Name"), [at_most(100)])


class WelcomeForm(NewPasswordForm):
    """The password and name of an invited user."""

    name = TextField(lazy("Name"), [at_most(100)])


class ChangePasswordForm(NewPasswordForm):
    current = PasswordField(lazy("Present password"), [required()])


class AccountForm(Form):
    """The settings of the own account."""

    name = TextField(lazy("Name"), [at_most(100)])
    language = SelectField(lazy("Language"), choices=choices([("", lazy("As the browser asks")), *LANGUAGES.items()]))
