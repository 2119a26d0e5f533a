"""The settings of a project, by the schema of the file (configuration.schema), and the connection check."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

import phonenumbers
from babel import Locale
from flask import abort, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import BooleanField, Field, SelectField, TextAreaField
from wtforms.validators import ValidationError

from router.admin.faults import words_of_fault
from router.admin.forms.base import RowForm, SecretField, choices, last_change, too_many_entries
from router.admin.forms.overflow import check_destination, doubt_of
from router.admin.forms.parts import Stored, add_fields, field_of, name_field, zones
from router.admin.i18n import _, language, lazy
from router.admin.page import (
    Role,
    context,
    current_project,
    done,
    editing,
    is_in_draft,
    may,
    page,
    reading,
    render_form,
    saved_message,
)
from router.admin.source_words import explain_source
from router.configuration.change import ConfigurationError, Draft
from router.configuration.drafts import KeptDraft, revision_of
from router.configuration.schema import (
    SECRETS,
    Config,
    HookConfig,
    PresenceConfig,
    ProjectConfig,
    destination,
    most_of,
    notation,
    notes_of,
)
from router.db import models
from router.db.types import Unreadable
from router.hook.fields import FIELD_NAMES
from router.presence.fetch import Fetcher
from router.presence.source import CheckResult, SourceSettings
from router.presence.sources import CHECKS

CHECK_SECONDS = 5.0


@cache
def countries(language: str) -> list[tuple[str, str]]:
    """Return (code, name) of all countries with a numbering plan, by name in this language."""
    names = Locale.parse(language).territories
    return sorted(((code, str(names.get(code, code))) for code in phonenumbers.SUPPORTED_REGIONS), key=lambda c: c[1])


_MODELS: Mapping[str, type[Config]] = {"": ProjectConfig, "hook_": HookConfig, "presence_": PresenceConfig}
"""The models of the settings, by the beginning of their fields' names."""

PARTS: Mapping[str, Any] = {
    "general": lazy("General"),
    "presence": lazy("Presence"),
    "hook": lazy("Hook"),
    "calls": lazy("Calls"),
    "privacy": lazy("Privacy"),
}
"""The parts of the settings, each a page with a form of its own."""

_NOTES = {
    f"{start}{key}": notes_of(field) for start, model in _MODELS.items() for key, field in model.model_fields.items()
}


def part_of(name: str) -> str:
    """Return the part of the settings that has this field."""
    start = next((start for start in ("hook", "presence") if name.startswith(f"{start}_")), "general")
    notes = _NOTES.get(name.removesuffix("_clear"))
    return notes.section if notes and notes.section else start


class _Clear(BooleanField):  # type: ignore[misc]
    """A tick that removes a stored credential."""


class BasicsForm(RowForm):
    """The settings of a new project."""

    name = name_field(lazy("Give the project a name."))
    time_zone = field_of(ProjectConfig, "time_zone")
    country = SelectField(
        lazy("Country"), default="UA", description=lazy("How numbers without a country code are read.")
    )
    overflow = field_of(ProjectConfig, "overflow")
    overflow_none = BooleanField(
        lazy("Send no destination"),
        description=lazy("Ringostat then follows its own scheme for calls that nobody can take."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.country.choices = choices(countries(language()))

    def validate_overflow(self, _field: Any) -> None:
        check_destination(self.read_overflow)
        if not self.overflow.data and (self.overflow.object_data or not self._shown_in) and not self.overflow_none.data:
            raise ValidationError(
                _("Where do calls go that nobody can take? Write it here, or tick “Send no destination”.")
            )

    def fill(self, row: Any) -> None:
        self.overflow.data = notation(row.overflow, row.country, destination)
        self.overflow_none.data = not row.overflow

    def read_overflow(self) -> str:
        """Return the overflow normalised. Left unchanged it stays, even if the country changes. Raises SchemaError."""
        stored = self.overflow.object_data or ""
        if self._shown_in and self.overflow.data == notation(stored, self._shown_in, destination):
            return str(stored)
        return destination(self.overflow.data or "", self.country.data or "UA")

    @property
    def _shown_in(self) -> str:
        """The country by which the form was shown, "" for a new project."""
        return str(self.country.object_data or "") if self.revision.object_data else ""

    def values(self) -> dict[str, Any]:
        """Return what was typed, as a document holds it: the keys of `hook` and `presence` apart."""
        values: dict[str, Any] = {"hook": {}, "presence": {}}
        for name, field in self._fields.items():
            part, _underscore, key = name.partition("_")
            if isinstance(field, SecretField | _Clear) or name in ("revision", "overflow_none"):
                continue
            values.get(part, values)[key if part in values else name] = field.data
        return values | ({"overflow": self.read_overflow()} if "overflow" in self else {})

    def saves_in(self, draft: Draft) -> bool:
        """Return whether the form is saved in the draft. Adds the draft's faults to fields."""
        draft.put_project(self.values())
        try:
            draft.save()
        except ConfigurationError as error:
            for fault in error.faults:
                name = {"no_token": "presence_token", "no_project_id": "presence_project_id"}.get(fault.kind)
                name, words = name or "_".join(map(str, fault.path)), words_of_fault(fault)
                if name in self._fields:
                    self.refuse(name, words)
                else:
                    self.form_errors.append(f"{PARTS[part_of(name)]}: {words}")
            return False
        return True


class FieldNamesField(TextAreaField):  # type: ignore[misc]
    """More names of parameters, one field a line: "caller: cli, ani". Data: {field: [names]}."""

    def process_formdata(self, valuelist: list[str]) -> None:
        found: dict[str, list[str]] = {}
        for line in (valuelist[0] if valuelist else "").splitlines():
            field, colon, names = line.partition(":")
            field, listed = field.strip(), [name.strip() for name in names.split(",") if name.strip()]
            if not line.strip():
                continue
            if not colon or not listed:
                raise ValueError(_("“%(line)s” is not understood: write it like caller: cli, ani.", line=line[:80]))
            if field not in FIELD_NAMES:
                known = ", ".join(FIELD_NAMES)
                raise ValueError(_("There is no field %(name)s. There are: %(known)s.", name=field[:40], known=known))
            try:
                HookConfig(fields={field: tuple(listed)})
            except ValueError:
                raise ValueError(_("“%(line)s” holds a name that no field can have.", line=line[:80])) from None
            found.setdefault(field, []).extend(listed)
            if len(found[field]) > most_of(HookConfig, "fields"):
                raise ValueError(too_many_entries(len(found[field]), most_of(HookConfig, "fields")))
        self.data = found

    def _value(self) -> str:
        if self.raw_data:
            return str(self.raw_data[0])
        return "\n".join(f"{field}: {', '.join(names)}" for field, names in (self.data or {}).items())


class SettingsForm(BasicsForm):
    """One part of the settings of a project. `with_secrets`: with what only owners may change."""

    hook_basic_auth_clear = _Clear(lazy("Remove the password"))
    hook_fields = FieldNamesField(lazy("More names for fields"))
    presence_auth_key_clear = _Clear(lazy("Remove the Auth-key"))
    presence_token_clear = _Clear(lazy("Remove the token"))

    def __init__(self, part: str, *, with_secrets: bool, **kwargs: Any) -> None:
        with_secrets = with_secrets and not is_in_draft()  # they take effect at once
        super().__init__(**kwargs)
        self.part, self.with_secrets = part, with_secrets
        for name in [*self._fields]:
            notes = _NOTES.get(name.removesuffix("_clear"))
            is_hidden = notes is not None and notes.is_for_owners and not with_secrets
            if name != "revision" and (part_of(name) != part or is_hidden):
                delattr(self, name)

    @property
    def shown(self) -> list[Field]:
        """Its fields, in order."""
        return [field for name, field in self._fields.items() if name != "revision"]

    def last_change(self, row: Any) -> tuple[str, datetime | None]:
        with reading() as session:
            return last_change(session, "project", current_project().id, current_project().id)

    def as_stored(self, row: Any) -> SettingsForm:
        return SettingsForm(self.part, formdata=None, obj=row, with_secrets=self.with_secrets)

    def source_settings(self, row: models.Project) -> SourceSettings:
        """Return the settings of the presence source as typed; an empty secret counts as the stored one."""

        def secret(name: str) -> str:
            field = self._fields.get(name)
            clear = self._fields.get(f"{name}_clear")
            if clear is not None and clear.data:
                return ""
            stored = getattr(row, name)
            readable = "" if isinstance(stored, Unreadable) else stored or ""
            return (field.data if field is not None else "") or readable

        return SourceSettings(
            api_url=self.presence_api_url.data if self.with_secrets else row.presence_api_url,
            auth_key=secret("presence_auth_key"),
            online_from=self.presence_online_from.data,
            project_id=self.presence_project_id.data,
            token=secret("presence_token"),
            with_do_not_disturb=self.presence_with_do_not_disturb.data,
        )

    def saves_in(self, draft: Draft) -> bool:
        for part, keys in SECRETS.items():
            for key in keys:
                typed, clear = (self._fields.get(f"{part}_{key}{end}") for end in ("", "_clear"))
                if typed is not None and clear is not None and (typed.data or clear.data):
                    draft.put_secret(part, key, "" if clear.data else typed.data)
        return super().saves_in(draft)


for _start, _model in _MODELS.items():
    add_fields(SettingsForm, _model, _start)


# ---- settings


_ACCESS: Any = {"see": Role.VIEWER, "do": Role.EDITOR, "is_form": True, "drafts": True}


@page("/p/<project>/settings", defaults={"part": "general"}, **_ACCESS)
@page(f"/p/<project>/settings/<any({','.join(PARTS)}):part>", **_ACCESS)
def settings(part: str) -> ResponseReturnValue:
    """Show and change one part of the settings; credentials only for owners."""
    with editing() as draft:
        row, shown = draft.project, _shown(draft)
        form = SettingsForm(part, obj=shown, with_secrets=may(Role.OWNER))
        if form.saves(shown) and not is_taken(draft.session, form, row.id) and form.saves_in(draft):
            url = url_for("admin.settings", project=row.name, part=part)
            return done(saved_message(), url)
        facts = _facts(draft.session, row)
    return render_form("settings/settings.html", form, **facts, check=None)


def _shown(draft: Draft) -> Any:
    """Return what the form shows: the project's row, or a draft's settings by the same names."""
    if not isinstance(draft, KeptDraft):
        return draft.project
    settings = draft.document["project"]
    parts = {f"{part}_{key}": value for part in SECRETS for key, value in settings[part].items()}
    return Stored(**settings | parts, revision=revision_of(settings), id=draft.project.id)


def _facts(session: Session, row: models.Project) -> dict[str, Any]:
    """Return what the page shows besides the form."""
    who, at = last_change(session, "project", row.id, row.id)
    log = session.get(models.CallLog, row.id) if row.presence_call_log_days else None
    credentials = {name: getattr(row, name) for name in ("presence_auth_key", "presence_token", "hook_basic_auth")}
    return {
        "row": row,
        "parts": PARTS,
        "zones": zones(),
        "stored": {name: stored is not None for name, stored in credentials.items()},
        "unreadable": {part_of(name) for name, stored in credentials.items() if isinstance(stored, Unreadable)},
        "changed_by": who,
        "changed_at": at,
        "call_log": log
        and {
            "until": log.known_until,
            "trouble": log.failures and explain_source(log.error_code, log.error_message, log.error_remedy),
        },
    }


def is_taken(session: Session, form: Any, own_id: int | None) -> bool:
    """Return whether another project has this name, and add the error to the field."""
    if "name" not in form:
        return False
    other = session.execute(
        select(models.Project.id, models.Project.deleted_at).where(models.Project.name == form.name.data)
    ).first()
    if other is None or other.id == own_id:
        return False
    if other.deleted_at is None:
        form.refuse("name", _("There is a project of this name already."))
    else:
        form.refuse("name", _("A deleted project has this name: bring it back, or choose another name."))
    return True


@page("/p/<project>/overflow", see=Role.VIEWER)
@page("/overflow", see=Role.VIEWER)
def overflow_doubt() -> ResponseReturnValue:
    """Render what is likely wrong with the overflow that is being typed."""
    text = request.args.get("overflow") or request.args.get("overflow_to") or ""
    return render_template("forms/_doubt.html", doubt=doubt_of(text[:1000], _country_of(request.args.get("country"))))


def _country_of(code: str | None) -> str:
    return code if code in phonenumbers.SUPPORTED_REGIONS else ""


# ---- the connection check


class Check(NamedTuple):
    """The result of a connection check. `took_seconds`: to the last answer."""

    ok: bool
    took_seconds: float
    online: list[str]
    speaking: list[str]
    unowned: int = 0
    message: str = ""
    remedy: str = ""
    detail: str = ""


@page("/p/<project>/settings/check", do=Role.EDITOR)
def settings_check() -> ResponseReturnValue:
    """Ask the status API with the settings in the form, without saving them."""
    with reading() as session:
        row = session.get_one(models.Project, current_project().id)
        form = SettingsForm("presence", obj=row, with_secrets=may(Role.OWNER))
        facts = _facts(session, row)
        owned = set(session.scalars(select(models.SipLogin.login).where(models.SipLogin.project_id == row.id)))
    source = (form.presence_source.data if may(Role.OWNER) else row.presence_source) or ""
    if source not in CHECKS:
        abort(400)
    deadline = time.monotonic() + CHECK_SECONDS
    with Fetcher(allow_private=context().settings.presence_allow_private) as fetcher:
        results = CHECKS[source](form.source_settings(row), deadline=deadline, session=fetcher)
    check = _result_of(results, owned)
    if request.headers.get("HX-Request"):
        return render_template("settings/_connection.html", check=check)
    return render_template("settings/settings.html", form=form, **facts, check=check)


def _result_of(results: Sequence[CheckResult], owned: set[str]) -> Check:
    took = max(result.milliseconds for result in results) / 1000
    errors = [result.error for result in results if result.error is not None]
    if errors:
        said = {True: _("answered"), False: _("failed")}
        explained = explain_source(errors[0].code, errors[0].message, errors[0].remedy)
        lines = [explained.detail] if explained.detail else []
        lines += [
            f"{result.asked}: {said[result.error is None]}, {result.milliseconds} ms"
            for result in results
            if result.asked
        ]
        return Check(False, took, [], [], 0, explained.message, explained.remedy, "\n".join(lines))
    *online, speaking = results
    logins = sorted({login for result in online for login in result.logins})
    return Check(True, took, logins, sorted(speaking.logins), len(set(logins) - owned))
