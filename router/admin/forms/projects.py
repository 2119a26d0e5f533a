"""Forms of projects: a new one, settings, deletion. Validated by the schema of the file (configuration.schema)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import phonenumbers
from babel import Locale
from wtforms import BooleanField, RadioField, SelectField, TextAreaField
from wtforms.validators import ValidationError

from router.admin.audit_words import LABELS
from router.admin.faults import words_of_fault
from router.admin.forms.base import (
    Form,
    LinesField,
    NumberField,
    RowForm,
    SecretField,
    TextField,
    accepted_by,
    at_most,
    at_most_entries,
    choices,
    required,
    too_many_entries,
)
from router.admin.forms.parts import check_destination, number_field
from router.admin.i18n import _, language, lazy
from router.admin.words import WORDS
from router.configuration.change import ConfigurationError, Draft
from router.configuration.schema import (
    MAX_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_SECRET_CHARS,
    SECRETS,
    Config,
    HookConfig,
    PresenceConfig,
    ProjectConfig,
    destination,
    most_of,
    notation,
)
from router.core.model import WhenUnknown
from router.core.schedule_words import time_zones
from router.db import models
from router.db.types import Unreadable
from router.hook.fields import ANSWERS, FIELD_NAMES, RPC_RESULTS
from router.presence.source import OnlineFrom, SourceSettings
from router.presence.sources import SOURCES

OWNERS_ONLY = ("presence_source", "presence_api_url", "presence_auth_key", "presence_token", "hook_basic_auth")
"""Secrets, and where they are sent: whoever may change only the address could have the key sent there."""

_MODELS: dict[str, type[Config]] = {"": ProjectConfig, "hook": HookConfig, "presence": PresenceConfig}


def _model_of(path: str) -> tuple[type[Config], str]:
    """Return the model and the key of a setting such as "presence.poll_seconds"."""
    part, _dot, key = path.rpartition(".")
    return _MODELS[part], key


def _valid(path: str, message: Any) -> Callable[[Any, Any], None]:
    """Return a validator with the check of the configuration file for this setting."""
    model, key = _model_of(path)
    needed = {"name": "x"} if model is ProjectConfig and key != "name" else {}
    return accepted_by(lambda text: model(**{**needed, key: text}), message)


def _number(path: str) -> NumberField:
    """Return the field of a setting that is a number."""
    return number_field(LABELS[path], *_model_of(path))


def _choice(path: str, words: Iterable[str], field: type = SelectField) -> Any:
    """Return the field of a setting that is one of these words, labelled as in the audit trail."""
    return field(LABELS[path], choices=choices((word, WORDS[path].get(word, word)) for word in words))


def _check_overflow(form: Any, field: Any) -> None:
    check_destination(form.read_overflow)


@cache
def countries(language: str) -> list[tuple[str, str]]:
    """Return (code, name) of all countries with a numbering plan, by name in this language."""
    names = Locale.parse(language).territories
    return sorted(((code, str(names.get(code, code))) for code in phonenumbers.SUPPORTED_REGIONS), key=lambda c: c[1])


@cache
def zones() -> list[str]:
    """Return the time zones to choose from: those of regions ("Europe/Kyiv"), not "EST5EDT"."""
    return sorted(name for name in time_zones() if "/" in name and not name.startswith("Etc/"))


class _Clear(BooleanField):  # type: ignore[misc]
    """Removes the credential whose field it follows."""


class _Basics(RowForm):
    """The settings of a new project."""

    name = TextField(
        LABELS["name"],
        [
            required(lazy("Give the project a name.")),
            at_most(MAX_NAME_CHARS),
            _valid("name", lazy("Not a valid name.")),
        ],
    )
    time_zone = TextField(
        LABELS["time_zone"],
        [required(), _valid("time_zone", lazy("There is no such time zone: write it like Europe/Kyiv."))],
        default="Europe/Kyiv",
    )
    country = SelectField(LABELS["country"], default="UA")
    overflow = TextField(LABELS["overflow"], [_check_overflow])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.country.choices = choices(countries(language()))

    def fill(self, row: Any) -> None:
        self.overflow.data = notation(row.overflow, row.country, destination)

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
            if isinstance(field, SecretField | _Clear) or name == "revision":
                continue
            values.get(part, values)[key if part in values else name] = field.data
        return values | {"overflow": self.read_overflow()}

    def saves_in(self, draft: Draft) -> bool:
        """Return whether the form is saved in the draft. Adds the draft's faults to fields."""
        draft.put_project(self.values())
        try:
            draft.save()
        except ConfigurationError as error:
            for fault in error.faults:
                name = {"no_token": "presence_token", "no_project_id": "presence_project_id"}.get(fault.kind)
                name = name or "_".join(map(str, fault.path))
                self.refuse(name if name in self._fields else "name", words_of_fault(fault))
            return False
        return True


class NewProjectForm(_Basics):
    """A project that does not exist yet."""


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


class SettingsForm(_Basics):
    """All settings of a project except its agents, groups, rules and schedules."""

    hook_answer = _choice("hook.answer", ANSWERS)
    hook_key = TextField(
        LABELS["hook.key"], [required(), _valid("hook.key", lazy("Write 1 to 100 visible characters."))]
    )
    hook_rpc_result = _choice("hook.rpc_result", RPC_RESULTS)
    hook_retry_seconds = _number("hook.retry_seconds")
    hook_allow_addresses = LinesField(
        LABELS["hook.allow_addresses"],
        [
            at_most_entries(most_of(HookConfig, "allow_addresses")),
            _valid(
                "hook.allow_addresses",
                lazy("“%(text)s” is not a valid address: write 203.0.113.7 or 203.0.113.0/24."),
            ),
        ],
    )
    hook_basic_auth = SecretField(
        LABELS["hook.basic_auth"],
        [_valid("hook.basic_auth", lazy("Write user:password, with a colon between the two."))],
    )
    hook_basic_auth_clear = _Clear(lazy("Ask for no password any more"))
    hook_fields = FieldNamesField(LABELS["hook.fields"])

    presence_source = _choice("presence.source", SOURCES)
    presence_api_url = TextField(
        LABELS["presence.api_url"],
        [
            required(),
            _valid("presence.api_url", lazy("Write it like https://api.ringostat.net, without user, ? and #.")),
        ],
    )
    presence_auth_key = SecretField(lazy("Auth-key"), [at_most(MAX_SECRET_CHARS)])
    presence_auth_key_clear = _Clear(lazy("Remove the Auth-key"))
    presence_online_from = _choice("presence.online_from", OnlineFrom)
    presence_project_id = TextField(LABELS["presence.project_id"], [at_most(MAX_ID_CHARS)])
    presence_token = SecretField(lazy("Token of the Smart Phone extension"), [at_most(MAX_SECRET_CHARS)])
    presence_token_clear = _Clear(lazy("Remove the token"))
    presence_with_do_not_disturb = BooleanField(LABELS["presence.with_do_not_disturb"])
    presence_poll_seconds = _number("presence.poll_seconds")
    presence_fresh_seconds = _number("presence.fresh_seconds")
    presence_when_unknown = _choice("presence.when_unknown", WhenUnknown, RadioField)
    presence_last_known_seconds = _number("presence.last_known_seconds")
    presence_away_seconds = _number("presence.away_seconds")
    presence_call_log_days = _number("presence.call_log_days")

    cool_down_seconds = _number("cool_down_seconds")
    break_after_no_answers = _number("break_after_no_answers")
    keep_days = _number("keep_days")
    mask_numbers = BooleanField(LABELS["mask_numbers"])

    def __init__(self, *args: Any, with_secrets: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.with_secrets = with_secrets
        if not with_secrets:
            for name in OWNERS_ONLY:
                for field in {name, f"{name}_clear"} & self._fields.keys():
                    delattr(self, field)

    def as_stored(self, row: Any) -> SettingsForm:
        return SettingsForm(formdata=None, obj=row, with_secrets=self.with_secrets)

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
        for part, keys in SECRETS.items() if self.with_secrets else ():
            for key in keys:
                typed = self._fields[f"{part}_{key}"].data
                if typed or self._fields[f"{part}_{key}_clear"].data:
                    draft.put_secret(part, key, "" if self._fields[f"{part}_{key}_clear"].data else typed)
        return super().saves_in(draft)


class DeleteProjectForm(Form):
    """The name, typed to confirm."""

    name = TextField(lazy("The project’s name"))
    expected = ""

    def validate_name(self, field: Any) -> None:
        if field.data != self.expected:
            raise ValidationError(_("Type the name exactly as it is: %(name)s.", name=self.expected))
