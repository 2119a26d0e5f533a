"""What the pages of all studies of the call log share: which configuration they look at, their start, their words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_date
from sqlalchemy import select
from sqlalchemy.orm import Session

from router.admin.i18n import _, lazy
from router.admin.page import as_id, context, current_configuration, current_project, current_user, done, draft_of
from router.admin.security import safe_next
from router.configuration.drafts import summary_of
from router.configuration.versions import list_versions
from router.db import models
from router.db.documents import Document, UnknownProjectError, load_document
from router.explanation import studies
from router.explanation.studies import BusyError

MOST_VERSIONS = 100
_NOW, _DRAFT = "now", "draft"

RESULTS: Mapping[str, str] = {"replay": "admin.replay_result", "what_if": "admin.what_if_result"}
"""The page of a study, by its kind."""

_RUNS: Mapping[str, Any] = {
    "replay": lazy("%(who)s’s replay is running. Wait until it is done, or stop it."),
    "what_if": lazy("%(who)s’s what-if is running. Wait until it is done, or stop it."),
}


def offered(session: Session, also: str | None = None) -> list[tuple[str, str]]:
    """Return the configurations that a study can look at: value and words of each choice. Of versions the newest, and
    `also`, if that is the number of one.
    """
    project = current_project()
    try:
        version = current_configuration(session).project.version
    except UnknownProjectError:
        version = project.version
    now = [(_NOW, _("The configuration in use (version %(n)s)", n=version))]
    now += [(_DRAFT, _("The draft"))] if summary_of(session, project.id) else []
    found = list_versions(session, project.id, limit=MOST_VERSIONS)
    number = as_id(also)
    if number is not None and number not in {one.number for one in found}:
        found += list_versions(session, project.id, limit=1, number=number)
    return [*now, *((str(one.number), _version(one.number, one.comment)) for one in found)]


def _version(number: int, comment: str) -> str:
    version = _("Version %(n)s", n=number)
    return f"{version} · {comment}" if comment else version


def chosen(session: Session, value: str) -> tuple[Document, dict[str, Any]]:
    """Return the configuration of a choice, and what it is, for the study's parameters: `through` and `version`."""
    number = as_id(value)
    if value == _NOW:
        found = current_configuration(session)
        document, number = found.document, found.project.version
    elif value == _DRAFT:
        document = draft_of(session).document
    else:
        document = load_document(session, current_project().id, number or 0) or {}
    return document, {"through": value if value in (_NOW, _DRAFT) else "version", "version": number}


def choice(told: Mapping[str, Any]) -> str:
    """Return the value of the choice that a study was started with."""
    return str(told["version"] if told["through"] == "version" else told["through"])


def has_calls(session: Session) -> bool:
    """Return whether the log of the current project has a call."""
    of_project = models.Decision.project_id == current_project().id
    return session.scalar(select(models.Decision.id).where(of_project).limit(1)) is not None


def start(kind: str, document: Document, parameters: Mapping[str, Any], back: str) -> ResponseReturnValue:
    """Start a study and go to its page; `back` with a message if that cannot be now."""
    project_id, database = current_project().id, context().database
    try:
        number = studies.start(database, project_id, kind, document, parameters, current_user().email)
    except BusyError as busy:
        if busy.study is None:
            return done(_("Other projects are studying calls at this moment. Try again in a minute."), back, "warning")
        message = str(_RUNS[busy.study.kind]) % {"who": busy.study.started_by}
        return done(message, url_for(RESULTS[busy.study.kind], number=busy.study.id), "warning")
    return redirect(safe_next(request.form.get("next"), url_for(RESULTS[kind], number=number)), 303)


def through(told: Mapping[str, Any]) -> str:
    """Return through which configuration a study looks, in words."""
    return _("the draft") if told["through"] == "draft" else _("version %(n)s", n=told["version"])


def days(told: Mapping[str, Any]) -> str:
    """Return the first and the last day of a study in words."""
    zone = ZoneInfo(current_project().time_zone)
    since, until = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
    ends = (since, until - timedelta(microseconds=1))
    return " – ".join(dict.fromkeys(format_date(at.astimezone(zone).date(), "EEE, d MMMM") for at in ends))
