"""The draft: changes that are collected. Review shows what they change; publish now or at a chosen time, or discard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from flask import abort, g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from router.admin.advice import advise
from router.admin.audit_words import Change, Names, action_words, changes_in_words, names_in
from router.admin.faults import words_of_fault
from router.admin.forms.base import Form, TextField, at_most
from router.admin.forms.parts import InstantField
from router.admin.i18n import _, lazy
from router.admin.page import (
    ACCEPT_FAILING,
    Role,
    as_id,
    changing,
    context,
    current_project,
    current_user,
    done,
    draft_configuration,
    draft_of,
    may,
    page,
    reading,
    render_form,
)
from router.admin.views.replay import Section, section_of, start_replay
from router.configuration.change import ConfigurationError, Difference, NoSuchRowError, change_as
from router.configuration.document import ITEMS, names_of
from router.configuration.drafts import (
    CannotPublishError,
    KeptDraft,
    authors_of,
    check_publishable,
    faults_of,
    publish_into,
)
from router.configuration.merging import Conflict
from router.configuration.rows import ORDERED
from router.configuration.rule_tests import Result, run_tests
from router.configuration.schema import Fault
from router.configuration.versions import MAX_COMMENT_CHARS
from router.db.documents import KINDS, BuildError, Document, configured, is_buildable, made_once

MOST_SHOWN = 200
SUBJECTS = {**{word: kind for kind, word in KINDS.items()}, **{kind: kind for kind in ORDERED}, "project": "project"}

TROUBLES: Mapping[str, Any] = {
    "nothing": lazy("The draft is empty, or was published meanwhile."),
    "conflicts": lazy("Something was changed outside of the draft meanwhile: decide below what shall apply."),
    "owner": lazy("The draft changes where credentials are sent: only an owner may publish it."),
    "invalid": lazy("The draft does not fit together: correct what is named below."),
    "tests": lazy("A test fails: correct the rules or the test, or let an owner publish it nevertheless."),
    "name": lazy("Another project has the name that this draft gives to the project."),
    "late": lazy("When the service could publish it, its time had been over for more than an hour."),
    "planner": lazy("Who planned it may not publish any more."),
}
"""By the code of CannotPublishError."""


class Changed(NamedTuple):
    """One thing that the draft changes. `url`: of its page in the draft. `kind`, `id`: to take it back."""

    words: str
    name: str
    changes: Sequence[Change]
    by: Sequence[str]
    url: str
    kind: str
    id: int


class Unsettled(NamedTuple):
    """A conflict in words. `rows`: (label, published, in the draft)."""

    conflict: Conflict
    words: str
    name: str
    rows: Sequence[Change]


class Warned(NamedTuple):
    """A warning about the draft. `is_new`: it does not hold of what is published."""

    name: str
    url: str
    text: str
    is_new: bool


class PublishForm(Form):
    """Publish the draft, now or at a moment of the project's time zone."""

    comment = TextField(
        lazy("Comment"), [at_most(MAX_COMMENT_CHARS)], description=lazy("What changes, and why. Shown in the versions.")
    )
    publish_at = InstantField(lazy("Publish at"), description=lazy("In the project’s time zone. Empty: now."))


@page("/p/<project>/draft", see=Role.VIEWER)
def draft() -> ResponseReturnValue:
    """Review the draft: what it changes, what it warns of, whether the tests pass."""
    return _review(PublishForm(formdata=None))


def _review(form: PublishForm) -> ResponseReturnValue:
    with reading() as session:
        kept = draft_of(session)
        if kept.row is None:
            return render_template("drafts/none.html")
        changed, more = _changed(session, kept)
        tests = _results(kept.document)
        page = {
            "kept": kept.row,
            "changed": changed,
            "more": more,
            "unsettled": [*_unsettled(kept)],
            "faults": _faults(session, kept),
            "warned": _warned(session, kept),
            "tests": tests,
            "failing": [one for one in tests or () if one.failures],
            "failed": {one.name for one in _results(kept.live) or () if one.failures},
            "trouble": TROUBLES.get(kept.row.trouble, ""),
            "accept": ACCEPT_FAILING,
            "seen": _mark(kept),
            "section": _section(kept.document),
        }
    return render_form("drafts/draft.html", form, **page)


def _section(document: Document) -> Section:
    return section_of(document, url_for("admin.draft"), url_for("admin.draft_replay"))


@page("/p/<project>/draft/replay", see=Role.VIEWER, do=Role.VIEWER)
def draft_replay() -> ResponseReturnValue:
    """Replay yesterday's calls through the draft; show how far that is, as part of Review."""
    with reading() as session:
        document = draft_of(session).document
    if request.method == "GET":
        return render_template("replay/_section.html", section=_section(document))
    if not is_buildable(document):
        return done(str(TROUBLES["invalid"]), url_for("admin.draft"), "warning")
    return start_replay(document, {"through": "draft", "version": None}, back=url_for("admin.draft"))


def _changed(session: Session, kept: KeptDraft) -> tuple[list[Changed], int]:
    """Return what the draft changes, and how much more than is shown."""
    names, found = names_in(kept.live, kept.document), kept.differences
    authors = {} if kept.row is None else authors_of(session, kept.row)
    return [_in_words(one, names, authors) for one in found[:MOST_SHOWN]], max(0, len(found) - MOST_SHOWN)


def _in_words(one: Difference, names: Names, authors: Mapping[tuple[str, int | None], Sequence[str]]) -> Changed:
    kind, row_id = SUBJECTS[one.subject], 0 if one.subject_id is None or one.subject == "project" else one.subject_id
    url = ""
    if one.subject == "project" or one.subject in ORDERED:
        url = url_for("admin.settings" if one.subject == "project" else f"admin.{one.subject}", mode="draft")
    elif one.after is not None:
        url = url_for(f"admin.{one.subject}", id=row_id, mode="draft")
    by = sorted(authors.get((one.subject, one.subject_id), ()))
    words = action_words(one.action, one.subject)
    return Changed(words, one.subject_name, changes_in_words(one, names, g.time_zone), by, url, kind, row_id)


def _unsettled(kept: KeptDraft) -> list[Unsettled]:
    names = names_in(kept.live, kept.document)
    found = []
    for one in kept.conflicts:
        subject = KINDS.get(one.kind, "project")
        live, ours = (_part(document, one) for document in (kept.live, kept.document))
        name = names.of(subject, one.id) if one.id else ""
        if one.id and not one.key:
            words = _DELETED_LIVE if live is None else _DELETED_HERE
            found.append(Unsettled(one, str(words), name, ()))
            continue
        words = action_words("reordered", one.kind) if one.key == "order" else ""
        difference = Difference("changed", subject, one.id, name, live, ours)
        found.append(Unsettled(one, words, name, changes_in_words(difference, names, g.time_zone)))
    return found


_DELETED_LIVE = lazy("was deleted outside of the draft, and the draft changes or uses it.")
_DELETED_HERE = lazy("is deleted in the draft, and was changed or used outside of it.")


def _part(document: Document, one: Conflict) -> dict[str, Any] | None:
    """Return what a conflict is about, as part of a row; None where the row is not there."""
    if one.kind == "project":
        part, dot, key = one.key.partition(".")
        return {part: {key: document["project"][part].get(key)} if dot else document["project"].get(part)}
    if one.key == "order":
        return {"order": [row["name"] for row in document[one.kind]]}
    row = next((row for row in document[one.kind] if row["id"] == one.id), None)
    return {one.key: row.get(one.key)} if row is not None and one.key else row


def _faults(session: Session, kept: KeptDraft) -> list[tuple[str, str]]:
    """Return what must be corrected before it can be published, as (name, words)."""
    faults = made_once(session, ("faults", *kept.key), partial(faults_of, kept)) or ()
    found = [_named(fault, kept.document) for fault in faults]
    if why := draft_configuration(session).fault:
        found.append(("", why))
    return found


def _named(fault: Fault, document: Document) -> tuple[str, str]:
    """Return the name of the row that a fault is about, and its words."""
    kind, *place = fault.path
    rows = document[str(kind)] if kind in KINDS else ()
    name = rows[place[0]]["name"] if place and isinstance(place[0], int) and place[0] < len(rows) else ""
    return name, words_of_fault(fault)


def _warned(session: Session, kept: KeptDraft) -> list[Warned]:
    live, draft = configured(session, kept.project.id, kept.project.version), draft_configuration(session)
    before = set() if live is None else {(one.subject, one.subject_id, one.text) for one in advise(*live[:2])}
    names = names_of(kept.document)
    warned = []
    for one in () if draft.fault else advise(draft.document, draft.project):
        kind = SUBJECTS[one.subject]
        url = url_for(f"admin.{one.subject}", id=one.subject_id, mode="draft") if kind in ITEMS else _settings_url()
        name = names[kind].get(one.subject_id, "") if kind in ITEMS else ""
        warned.append(Warned(name, url, one.text, (one.subject, one.subject_id, one.text) not in before))
    return sorted(warned, key=lambda one: (not one.is_new, one.name.casefold(), one.text))


def _settings_url() -> str:
    return url_for("admin.settings", mode="draft")


def _results(document: Document) -> list[Result] | None:
    """Return the results of a document's tests; None where calls could not be routed by it."""
    try:
        return run_tests(document)
    except BuildError:
        return None


# ---- what is done with it


def _mark(kept: KeptDraft) -> str:
    """Return a text that changes with the draft and with what is published."""
    return " ".join(str(part) for part in kept.key[2:])


def _refuse_unseen(kept: KeptDraft) -> None:
    """Raise _UnseenError if the draft is not what the page showed that was posted."""
    if request.form.get("seen", _mark(kept)) != _mark(kept):
        raise _UnseenError


class _UnseenError(Exception):
    """The draft, or what is published, was changed since it was looked at."""


_UNSEEN = lazy("Nothing was done: the draft or what is published was changed meanwhile. Look at it as it is now.")


@page("/p/<project>/draft/publish", do=Role.EDITOR)
def draft_publish() -> ResponseReturnValue:
    """Publish the draft as one version, now or at a moment."""
    form = PublishForm()
    if not form.validate():
        return _review(form)
    at, accepts = form.publish_at.data, may(Role.OWNER) and ACCEPT_FAILING in request.form
    if at is not None and at <= datetime.now(UTC):
        form.refuse("publish_at", _("This moment is over: choose a later one, or leave it empty to publish now."))
        return _review(form)
    back, comment = url_for("admin.draft"), form.comment.data or ""
    try:
        if at is not None:
            who = (current_project().id, current_user().email)
            check_publishable(context().database, *who, is_owner=may(Role.OWNER), accepts_failing=accepts)
            with _changing_draft() as kept:
                _refuse_unseen(kept)
                kept.plan(at, comment, accepts_failing=accepts)
            return done(_("Planned. You can call it off until then."), back)
        with changing() as live:
            live.comment, live.accepts_failing = comment, accepts
            _refuse_unseen(KeptDraft(live.session, live.project, ""))
            before = live.project.version
            publish_into(live, current_user().email, is_owner=may(Role.OWNER))
            name, version = live.project.name, live.project.version
    except CannotPublishError as error:
        return done(_refusal(error), back, "warning")
    except _UnseenError:
        return done(str(_UNSEEN), back, "warning")
    if version == before:
        return done(_("The draft said what is published already, and is closed."), url_for("admin.versions"), "info")
    message = _("Published as version %(n)s. Applies from the next call.", n=version)
    return done(message, url_for("admin.version", project=name, number=version))


def _refusal(error: CannotPublishError) -> str:
    details = ""
    if isinstance(error.cause, ConfigurationError):
        details = " ".join(dict.fromkeys(map(words_of_fault, error.cause.faults)))
    return _("Not published. %(reason)s", reason=f"{TROUBLES[error.code]} {details}".strip())


@page("/p/<project>/draft/unplan", do=Role.EDITOR)
def draft_unplan() -> ResponseReturnValue:
    """Call the planned publication off."""
    try:
        with _changing_draft() as kept:
            kept.plan(None)
    except CannotPublishError as error:
        return done(str(TROUBLES[error.code]), url_for("admin.draft"), "warning")
    return done(_("Called off. The draft stays."), url_for("admin.draft"))


@page("/p/<project>/draft/discard", do=Role.EDITOR)
def draft_discard() -> ResponseReturnValue:
    """Drop the draft."""
    try:
        with _changing_draft() as kept:
            _refuse_unseen(kept)
            kept.discard()
    except _UnseenError:
        return done(str(_UNSEEN), url_for("admin.draft"), "warning")
    return done(_("The draft is discarded. Nothing of it applies."), url_for("admin.versions"))


@page("/p/<project>/draft/settle", do=Role.EDITOR)
def draft_settle() -> ResponseReturnValue:
    """Decide a conflict: for the draft, or for what is published."""
    sent = request.form
    conflict = Conflict(sent.get("kind", ""), _number(sent.get("id")), sent.get("key", ""))
    return _edit_draft(lambda kept: kept.settle(conflict, takes_live=sent.get("keep") == "published"), _("Decided."))


@page("/p/<project>/draft/take-back", do=Role.EDITOR)
def draft_take_back() -> ResponseReturnValue:
    """Take one change out of the draft."""
    kind, row_id = request.form.get("kind", ""), _number(request.form.get("id"))
    if kind not in SUBJECTS.values():
        abort(400)
    return _edit_draft(lambda kept: kept.take_back(kind, row_id), _("Taken back: this stays as it is published."))


def _edit_draft(edit: Callable[[KeptDraft], object], message: str) -> ResponseReturnValue:
    back = url_for("admin.draft")
    try:
        with _changing_draft() as kept:
            _refuse_unseen(kept)
            edit(kept)
    except ConfigurationError as error:
        told = (_named(fault, error.document) for fault in error.faults)
        words = (f"{name}: {text}" if name else text for name, text in told)
        return done(_("Nothing was changed. %(reason)s", reason=" ".join(dict.fromkeys(words))), back, "warning")
    except _UnseenError:
        return done(str(_UNSEEN), back, "warning")
    except NoSuchRowError:
        return done(_("This is not in the draft any more."), back, "warning")
    return done(message, back)


def _changing_draft() -> AbstractContextManager[KeptDraft]:
    return change_as(KeptDraft, context().database, current_project().id, current_user().email)


def _number(text: str | None) -> int:
    return as_id(text) or 0
