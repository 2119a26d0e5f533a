"""Define the base of all admin pages: the blueprint, roles, the request's user and project, transactions, answers.

Every view must be declared with `page`, which names the roles that may see it and post to it. Nothing here runs for the
hook.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar
from zoneinfo import ZoneInfo

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    g,
    get_template_attribute,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlalchemy.sql.base import ExecutableOption
from werkzeug.wrappers import Response as WerkzeugResponse

from router.admin.i18n import _, lazy
from router.check import Watch
from router.config import Settings
from router.configuration.change import Draft, change_as
from router.configuration.drafts import KeptDraft
from router.configuration.rows import read_version
from router.configuration.undo import is_undoable, owners_settings
from router.core.model import Project
from router.db import models
from router.db.documents import BuildError, Configured, UnknownProjectError, build_project, in_use, made_once
from router.db.session import Database
from router.explanation.agents import Present, load_present
from router.numbers import mask_number, mask_within
from router.routing.route import Routing

admin = Blueprint("admin", __name__, template_folder="templates")

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
MAX_ID = 2**63 - 1  # the largest integer in the databases

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])
Row = TypeVar("Row")


class Role(IntEnum):
    """The roles of users. Each includes those below. In the database the names are in lower case."""

    ANYBODY = 0  # signed in or not
    VIEWER = 1
    EDITOR = 2
    OWNER = 3


class Access(NamedTuple):
    """The lowest role that may see a page (GET) and that may post to it. None: no such method."""

    see: Role | None
    do: Role | None

    def needed(self, method: str) -> Role:
        """Return the lowest role for a request. Raises LookupError for a method that the page does not have."""
        role = self.see if method in SAFE_METHODS else self.do
        if role is None:
            raise LookupError(method)
        return role


FORMS: set[str] = set()
"""Endpoints that show a form and store it only when it `saves`, so that a post can be shown without storing it."""

MENU_KEEPERS: set[str] = set()
"""Endpoints outside projects that keep the menu of the project that one comes from: its name is in the URL, as `in`."""

ACCESS: dict[str, Access] = {}
"""The access of each endpoint. Filled by `page`; `check_access` refuses to start with an endpoint that is missing."""


def page(
    rule: str,
    *,
    see: Role | None = None,
    do: Role | None = None,
    endpoint: str = "",
    is_form: bool = False,
    keeps_menu: bool = False,
    drafts: bool = False,
    **options: Any,
) -> Callable[[View], View]:
    """Declare a view of the admin: GET for `see` and above, POST for `do` and above.

    The endpoint is `admin.` and the function's name, unless `endpoint` says otherwise. `<project>` in the rule is the
    project's name: it is looked up before the view runs, and is not among the view's arguments. `is_form`: see FORMS;
    `keeps_menu`: see MENU_KEEPERS. `drafts`: it works on the project's draft too, under `/p/<project>/draft/…`; links
    from there to other such pages stay in the draft.
    """
    methods = [method for method, role in (("GET", see), ("POST", do)) if role is not None]

    def declare(view: View) -> View:
        name = endpoint or view.__name__
        ACCESS[f"admin.{name}"] = Access(see, do)
        if is_form:
            FORMS.add(f"admin.{name}")
        if keeps_menu:
            MENU_KEEPERS.add(f"admin.{name}")
        full = rule.replace("<project>", "<project:project>").replace("<int:", f"<int(max={MAX_ID}):")
        admin.add_url_rule(full, name, view, methods=methods, **options)
        if drafts:
            in_draft = full.replace("<project:project>", "<project:project>/<any(draft):mode>")
            admin.add_url_rule(in_draft, name, view, methods=methods, **options)
        return view

    return declare


def check_access(app: Flask) -> None:
    """Refuse to start when a view of the admin declares no role."""
    bare = sorted(
        {rule.endpoint for rule in app.url_map.iter_rules() if rule.endpoint.startswith("admin.")} - ACCESS.keys()
    )
    if bare:
        raise RuntimeError(
            f"views without a declared role: {', '.join(bare)}. Declare them with router.admin.page.page"
        )


# ---- the context of a request


class BackgroundLike(Protocol):
    """The part of the process's background work that pages use."""

    def refresh(self, project_id: int, deadline: float) -> bool: ...


ACCEPT_FAILING = "accept_failing"  # in a post: an owner saves it although tests of the rules fail

LET_CALLS_IN = 0.001  # seconds that a page sleeps before it works, so that waiting calls are answered first


class AdminContext(NamedTuple):
    """The services that pages use, set up by `register`."""

    settings: Settings
    database: Database
    routing: Routing
    background: BackgroundLike
    watch: Watch
    turn: threading.BoundedSemaphore  # one page of a process works at a time, so that calls wait for one at most


def context() -> AdminContext:
    """Return the app's settings, database, routing and background work."""
    made: AdminContext = current_app.extensions["admin"]
    return made


class SignedIn(NamedTuple):
    """The user of this request. `role` in the database's words; `rank` to compare."""

    id: int
    email: str
    name: str
    role: str
    language: str

    @property
    def rank(self) -> Role:
        return Role[self.role.upper()]


def signed_in() -> SignedIn | None:
    """Return who is signed in, if anybody."""
    found: SignedIn | None = g.get("user")
    return found


def current_user() -> SignedIn:
    """Return who is signed in, on pages that require it."""
    user = signed_in()
    if user is None:
        raise LookupError("nobody is signed in: this page is open to anybody")
    return user


def may(role: Role) -> bool:
    """Return whether the user has this role or a higher one."""
    user = signed_in()
    return user is not None and user.rank >= role


class CurrentProject(NamedTuple):
    """The project of this request, without its secrets. Its row: session.get_one(models.Project, id)."""

    id: int
    name: str
    version: int
    time_zone: str
    country: str
    overflow: str
    mask_numbers: bool
    created_at: datetime

    def mask(self, number: str) -> str:
        """Return a caller's number, masked if the project masks them."""
        return mask_number(number) if self.mask_numbers else number

    def mask_within(self, text: str, number: str) -> str:
        """Return a text in which a caller's number is masked if the project masks them."""
        return mask_within(text, number) if self.mask_numbers else text


def current_project() -> CurrentProject:
    """Return the project that the URL names, on pages of a project."""
    found: CurrentProject = g.project
    return found


def find_project(name: str) -> CurrentProject:
    """Return the project that has this name, or had it last, for pages that were open when it was renamed; else 404."""
    columns = [getattr(models.Project, field) for field in CurrentProject._fields]
    existing = select(*columns).where(models.Project.deleted_at.is_(None))
    entry = models.AuditEntry
    renamed = (
        select(entry.project_id)
        .where(entry.subject == "project", entry.action == "changed", entry.draft_id.is_(None))
        .where(entry.before["name"].as_string() == name)
        .order_by(entry.id.desc())
        .limit(1)
    )
    with context().database.reading() as session:
        row = session.execute(existing.where(models.Project.name == name)).one_or_none()
        if row is None:
            row = session.execute(existing.where(models.Project.id == renamed.scalar_subquery())).one_or_none()
    if row is None:
        abort(404)
    return CurrentProject(*row)


def local_now() -> datetime:
    """Return the present moment in the current project's time zone."""
    return datetime.now(UTC).astimezone(ZoneInfo(current_project().time_zone))


def current_configuration(session: Session) -> Configured:
    """Return the configuration by which the current project's calls are routed, on pages of its draft what the draft
    says. It is shared and must not be changed.

    If it is not the newest one, the page says so: see base.html. If there is none, it is the edited one without rules,
    so that it can be corrected.
    """
    project = current_project()
    if is_in_draft():
        return draft_configuration(session)
    try:
        found = in_use(session, project.id, project.version)
    except BuildError as error:
        found = Configured(edited(session).document, Project(project.id, project.name, project.version), str(error))
    g.configuration_fault = found.fault
    return found


def draft_configuration(session: Session) -> Configured:
    """Return what the draft says; where calls could not be routed by it, without rules."""
    project, kept = current_project(), draft_of(session)

    def make() -> Configured:
        return Configured(kept.document, build_project(kept.document, project.id, project.version))

    try:
        return made_once(session, ("built", *kept.key), make) or make()
    except BuildError as error:
        return Configured(kept.document, Project(project.id, project.name, project.version), str(error))


def draft_of(session: Session) -> KeptDraft:
    """Return the current project's draft, to be read only. Where there is none it says what is published."""
    return KeptDraft(session, session.get_one(models.Project, current_project().id), current_user().email)


def edited(session: Session) -> Draft:
    """Return what the page edits, to be read only: the project's configuration, or on pages of its draft the draft."""
    if is_in_draft():
        return draft_of(session)
    return Draft(session, session.get_one(models.Project, current_project().id), current_user().email)


def current_rules(session: Session) -> Project:
    """Return the rules' view of that configuration; one without rules before anything was published."""
    project = current_project()
    try:
        return current_configuration(session).project
    except UnknownProjectError:
        return Project(project.id, project.name, project.version)


def present(group_ids: Collection[int] | None = None) -> Present:
    """Return the current project's present state. `group_ids`: the groups whose queues are needed; None: all."""
    with reading() as session:
        found = current_configuration(session)
    return load_present(context().database, found, group_ids)


_SETTINGS = ("time_zone", "country", "overflow", "mask_numbers")


def is_in_draft() -> bool:
    """Return whether the page works on the project's draft."""
    return bool(g.get("is_in_draft"))


def enter_project(name: str) -> None:
    """Make this the project of the request, for links and local times. In its draft it has the draft's settings."""
    g.project = find_project(name)
    if is_in_draft():
        with reading() as session:
            settings = edited(session).document["project"]
        g.project = g.project._replace(**{key: settings[key] for key in _SETTINGS})
    g.time_zone = ZoneInfo(g.project.time_zone)


def as_id(text: str | None) -> int | None:
    """Return the id in a query or form; None for any other text."""
    number = int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else 0
    return number if 0 < number <= MAX_ID else None


# ---- transactions


def reading() -> AbstractContextManager[Session]:
    """Return a session whose changes are discarded."""
    return context().database.reading()


@contextmanager
def changing() -> Iterator[Draft]:
    """Change the current project's configuration in one transaction: its draft is saved when it ends without error.

    `done` in it or after it offers to undo the change.
    """
    kind: type[Draft] = KeptDraft if is_in_draft() else Draft
    with change_as(kind, context().database, current_project().id, current_user().email) as draft:
        g.change = _Change(draft, draft.project.version)
        draft.accepts_failing = may(Role.OWNER) and ACCEPT_FAILING in request.form
        yield draft
    g.change = g.change._replace(is_committed=True)


class _Change(NamedTuple):
    """The change of this request."""

    draft: Draft
    version_before: int
    is_committed: bool = False

    def undo(self, back: str) -> Undo | str:
        """Return how to undo the change and come `back`; words why that is not possible; "" if nothing changed."""
        project = self.draft.project
        if not self.is_committed:
            self.draft.save()
        if isinstance(self.draft, KeptDraft):
            first, last = self.draft.saved or (0, 0)
            return Undo(url_for("admin.undo"), {"first": first, "last": last, "next": back}) if last else ""
        with reading() if self.is_committed else nullcontext(self.draft.session) as session:
            version = project.version
            before, after = (read_version(session, project.id, number) for number in (self.version_before, version))
        if is_undoable(before, after):
            url = url_for("admin.undo", project=project.name)  # by the name after the change
            return Undo(url, {"version": version, "next": back})
        is_secret = before and after and "project" in before and owners_settings(before) != owners_settings(after)
        return str(_NEVER_UNDONE) if is_secret else ""


class Undo(NamedTuple):
    """How to undo something: by posting these fields to the URL."""

    url: str
    fields: Mapping[str, Any]


def offer_undo(url: str, **fields: Any) -> None:
    """Let the message of this request offer to undo a change outside the configuration."""
    g.undo = Undo(url, fields)


def _offered(back: str) -> Undo | str:
    change: _Change | None = g.get("change")
    undo: Undo | None = g.get("undo")
    return undo or (change.undo(back) if change is not None else "")


_NEVER_UNDONE = lazy("This cannot be undone: credentials, and where they are sent, are not restored.")


def undo_button(url: str, **fields: Any) -> Markup:
    """Return a button that posts the fields to a URL, which undoes something."""
    made: Markup = get_template_attribute("_macros.html", "post_button")(_("Undo"), url, "undo", fields=fields)
    return made


@contextmanager
def editing() -> Iterator[Draft]:
    """Yield `changing` for a POST, else a draft that is only shown, for a view that shows and stores a form.

    A form that is posted as `preview`, while somebody types, is only shown too: it must hold up no call.
    """
    if request.method == "POST" and "preview" not in request.form:
        with changing() as draft:
            yield draft
        return
    with reading() as session:
        yield edited(session)


def reading_or_writing() -> AbstractContextManager[Session]:
    """Return a session that writes for a POST, else reads, for data outside a project's configuration."""
    return context().database.writing() if request.method == "POST" else reading()


class _OfProject(Protocol):
    """A model with a project."""

    id: Any
    project_id: Any


def owned(
    session: Session,
    model: type[Row],
    id: int,  # noqa: A002 - the word of the URL
    *options: ExecutableOption,
) -> Row:
    """Return the row of this id in the current project; 404 when there is none."""
    columns: type[_OfProject] = model  # type: ignore[assignment]
    query = select(model).where(columns.id == id, columns.project_id == current_project().id)
    row = session.scalar(query.options(*options))
    if row is None:
        abort(404)
    return row


def audit_entry(action: str, subject: str, *, project_id: int, name: str, **values: Any) -> models.AuditEntry:
    """Return an entry of the audit trail by the current user. `name`: of the subject."""
    return models.AuditEntry(
        at=datetime.now(UTC),
        actor=current_user().email,
        project_id=project_id,
        action=action,
        subject=subject,
        subject_name=name,
        **values,
    )


# ---- answers


def done(message: str, url: str, level: str = "success") -> WerkzeugResponse:
    """Redirect, show the message there, and offer to undo a change of the configuration."""
    offered = _offered(url) if level == "success" else ""
    if isinstance(offered, Undo):
        message = with_button(message, undo_button(offered.url, **offered.fields))
    elif offered:
        message = with_button(message, Markup('<span class="small">{}</span>').format(offered))
    flash(message if isinstance(message, Markup) else str(message), level)
    return redirect(url, 303)


def saved_message() -> str:
    """Return the message for what was saved: when it applies."""
    if is_in_draft():
        return _("Saved in the draft. Calls are routed as before until it is published.")
    return _("Saved. Applies from the next call.")


def or_drafted(message: str) -> str:
    """Return a message that is true of what applies; in the draft that it was saved there."""
    return saved_message() if is_in_draft() else message


def with_button(message: str, button: Markup) -> Markup:
    """Return a message with a button behind it."""
    return Markup('<div class="row-flex"><span>{}</span>{}</div>').format(message, button)


def render_form(template: str, form: Any, **values: Any) -> tuple[str, int]:
    """Render a page with its form: 422 when it was refused, 409 when it conflicts, else 200."""
    status = 409 if form.conflict else 422 if form.errors or form.form_errors else 200
    return render_template(template, form=form, **values), status


def links_to(pages: Iterable[tuple[str, str]]) -> Markup:
    """Return links from (url, text), separated by commas."""
    return Markup(", ").join(Markup('<a href="{}">{}</a>').format(url, text) for url, text in pages)


def toast_header(message: str, level: str = "success", back: str = "") -> dict[str, str]:
    """Return the header with which htmx shows a message besides handling the answer, and offers to undo what was done.

    `back`: where that leads.
    """
    shown: dict[str, Any] = {"message": str(message), "level": level}
    if isinstance(offered := _offered(back) if back else "", Undo):
        shown["undo"] = {**offered._asdict(), "label": _("Undo")}
    return {"HX-Trigger": json.dumps({"toast": shown})}  # header values are Latin-1; json writes ASCII
