"""Handle requests before and after each page, and the errors of all pages."""

from __future__ import annotations

import importlib
import pkgutil
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    current_app,
    flash,
    g,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue
from psycopg.errors import Error as PostgresError
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException, InternalServerError, NotFound

from router.admin import assets, auth, i18n, security, unsaved_form, views, words
from router.admin.faults import words_of_fault
from router.admin.first_steps import next_step
from router.admin.forms.overflow import doubt_of
from router.admin.i18n import _, lazy
from router.admin.leave import leave_words
from router.admin.page import (
    ACCEPT_FAILING,
    ACCESS,
    FORMS,
    LET_CALLS_IN,
    MENU_KEEPERS,
    SAFE_METHODS,
    AdminContext,
    BackgroundLike,
    Role,
    admin,
    check_access,
    context,
    enter_project,
    is_in_draft,
    may,
    page,
    signed_in,
)
from router.admin.paths import ProjectConverter
from router.admin.views.session import SignInForm
from router.admin.views.session import sign_in as view_of_sign_in
from router.check import Watch
from router.config import Settings
from router.configuration.change import ConfigurationError, NoSuchRowError
from router.configuration.drafts import summary_of
from router.configuration.rule_tests import FailingTestsError
from router.db import models
from router.db.documents import BuildError
from router.db.session import DATABASE_ERRORS, Database, DatabaseBusyError
from router.db.types import SecretError
from router.log import log
from router.metrics import ADMIN_SHED
from router.routing.route import Routing

WAIT_FOR_TURN_SECONDS = 5.0
_STATIC = "admin.static"


class _BusyError(Exception):
    """Another page of this process has worked for too long."""


def register(
    app: Flask,
    settings: Settings,
    database: Database,
    routing: Routing,
    background: BackgroundLike,
    watch: Watch,
) -> None:
    """See router.admin.register."""
    for module in pkgutil.iter_modules(views.__path__):  # importing a module declares its pages
        importlib.import_module(f"{views.__name__}.{module.name}")
    app.extensions["admin"] = AdminContext(settings, database, routing, background, watch, threading.BoundedSemaphore())
    app.config["ASSET_VERSION"] = assets.version()
    security.configure(app, settings)
    i18n.use_languages(app)
    says = {"say": i18n.READER.say, "say_all": i18n.READER.join, "duration": i18n.READER.duration, "doubt_of": doubt_of}
    app.jinja_env.globals.update(
        leave_words=leave_words, STATES=words.STATES, WORDS=words.WORDS, HELPS=words.HELPS, **says
    )
    app.url_map.converters["project"] = ProjectConverter
    app.register_blueprint(admin)
    check_access(app)


@page("/static/<path:filename>", see=Role.ANYBODY)
def static(filename: str) -> ResponseReturnValue:
    """Return a style sheet, script or icon."""
    return assets.respond(filename)


@page("/<path:_anything>", see=Role.ANYBODY)
def nothing(_anything: str) -> ResponseReturnValue:
    """Answer 404 with a page of the admin for all other paths."""
    abort(404)


# ---- before a page


@admin.url_value_preprocessor
def _take_project(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    g.project_name = None if values is None else values.pop("project", None)
    g.is_in_draft = values is not None and values.pop("mode", None) is not None


@admin.url_defaults
def _put_project(endpoint: str, values: dict[str, Any]) -> None:
    """Add the current project to links within it; on pages of its draft, keep to the draft."""
    project = g.get("project")
    known = endpoint in current_app.view_functions  # for others url_for raises its own error
    if project is not None and known and current_app.url_map.is_endpoint_expecting(endpoint, "project"):
        values.setdefault("project", project.name)
        if is_in_draft() and current_app.url_map.is_endpoint_expecting(endpoint, "mode"):
            values.setdefault("mode", "draft")
    elif project is not None and endpoint in MENU_KEEPERS:
        values.setdefault("in", project.name)


@admin.before_request
def _enter() -> ResponseReturnValue | None:
    if request.endpoint == _STATIC:
        return None  # served from memory: needs no turn, no session, no database
    request.max_content_length = security.MAX_BODY_BYTES
    if request.content_length is not None:  # then werkzeug checks the length, so that half a form is refused
        request.environ.pop("wsgi.input_terminated", None)
    if not context().turn.acquire(timeout=WAIT_FOR_TURN_SECONDS):
        ADMIN_SHED.inc()
        raise _BusyError
    g.has_turn = True
    time.sleep(LET_CALLS_IN)
    is_posted = request.method not in SAFE_METHODS
    is_genuine = is_posted and security.is_genuine()  # checked before an ended session is cleared
    ended = session.get("user")
    g.user = auth.user_of_session(context().database)
    needed = ACCESS[str(request.endpoint)].needed(request.method) if request.method != "OPTIONS" else Role.ANYBODY
    if needed > Role.ANYBODY and signed_in() is None:
        answer = _sign_in_first(ended, is_genuine=is_genuine)
        if answer is not None:
            return answer
    elif is_posted and not is_genuine:
        _refuse_or_show()
    elif unsaved_form.FIELD in request.form and not _restore():
        abort(400)
    if needed > Role.ANYBODY and not may(needed):
        abort(403)
    security.refuse_unstorable_text()
    if g.project_name is not None:
        enter_project(g.project_name)
    elif request.endpoint in MENU_KEEPERS and (name := request.args.get("in")):
        with suppress(NotFound):  # it was renamed or deleted
            enter_project(name)
    return None


def _sign_in_first(ended: int | None, *, is_genuine: bool) -> ResponseReturnValue | None:
    """Return the sign-in page, with the posted form in it; None once somebody has signed in there, so that the page of
    the form runs.

    `ended`: the user of the session that ended. An action without a form must be genuine, and is posted again only by
    hand.
    """
    if request.headers.get("HX-Request"):
        return Response(status=401)  # app.js shows the dialog
    is_form = request.endpoint in FORMS
    if unsaved_form.FIELD in request.form:
        return _sign_in_here(is_form=is_form)
    if unsaved_form.is_anything_typed() and (is_genuine or (is_form and security.is_of_our_page())):
        return _sign_in_page(unsaved_form.seal_form(ended))
    wanted = security.here() if request.method in SAFE_METHODS else None
    return redirect(url_for("admin.sign_in", next=None if request.path == "/" else wanted))


def _sign_in_page(sealed: str) -> ResponseReturnValue:
    return render_template(
        "auth/sign_in.html", form=SignInForm(formdata=None), problem="", kept=sealed, languages=[]
    ), 401


def _sign_in_here(*, is_form: bool) -> ResponseReturnValue | None:
    security.refuse_unstorable_text()
    sealed = request.form[unsaved_form.FIELD]
    if not security.is_of_our_page():
        return _sign_in_page(sealed)
    answer = make_response(view_of_sign_in())
    g.user = auth.user_of_session(context().database)
    if signed_in() is None:
        return answer
    after_this_request(lambda response: _with_cookies_of(answer, response))
    problem = ""
    if not may(ACCESS[str(request.endpoint)].needed("POST")):
        problem = _(
            "You are signed in. What had been typed before is not shown: your role does not allow you to save it."
        )
    elif not _restore():
        problem = _("You are signed in. What had been typed before is another user’s, or too old, and is not shown.")
    if problem:
        flash(problem, "info")
        return redirect(
            security.here() if ACCESS[str(request.endpoint)].see is not None else url_for("admin.home"), 303
        )
    if not is_form:
        return render_template("auth/send_again.html", kept=sealed)
    unsaved_form.only_show()
    flash(
        _("You are signed in again. What you had typed is here, and not saved yet: look it through, and save."),
        "warning",
    )
    return None


def _with_cookies_of(answer: Response, response: Response) -> Response:
    for cookie in answer.headers.getlist("Set-Cookie"):
        response.headers.add("Set-Cookie", cookie)
    return response


def _restore() -> bool:
    """Replace the posted form by the unsaved one of the user who is signed in. Return whether there was one."""
    user = signed_in()
    return user is not None and unsaved_form.restore_form(user.id)


def _refuse_or_show() -> None:
    """Refuse a request that is not genuine. A form of ours for an earlier session is shown as typed instead."""
    refused = security.why_refused(context().settings)
    if refused.reason != "old" or request.endpoint not in FORMS or not security.is_of_our_page():
        raise refused
    if not unsaved_form.is_anything_typed() or (unsaved_form.FIELD in request.form and not _restore()):
        raise refused
    unsaved_form.only_show()
    flash(
        _("The page was out of date: you have signed in again since. What you had typed is here, and not saved yet."),
        "warning",
    )


@admin.context_processor
def _surroundings() -> dict[str, Any]:
    """Return the values for base.html and all pages; see docs/frontend.md."""
    return {
        "language": i18n.language(),
        "languages": list(i18n.LANGUAGES.items()),
        "now": datetime.now(UTC),
        "configuration_fault": g.get("configuration_fault", ""),
        "project": g.get("project"),
        "projects": [] if signed_in() is None or request.headers.get("HX-Request") else _all_projects(),
        "current_user": signed_in(),
        "is_owner": may(Role.OWNER),
        "in_draft": is_in_draft(),
        "draft": _draft(),
        "can_edit": may(Role.EDITOR),
        "next_step": next_step,
    }


def _draft() -> Any:
    """Return what a page of the set-up says of the project's draft: see base.html. None on other pages."""
    rule = request.url_rule
    project = g.get("project")
    is_set_up = rule is not None and current_app.url_map.is_endpoint_expecting(rule.endpoint, "mode")
    if project is None or not is_set_up or request.headers.get("HX-Request"):
        return None
    kept: Any = None
    with suppress(*DATABASE_ERRORS), context().database.reading() as reading:
        kept = summary_of(reading, project.id)
    asked = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
    arguments = request.view_args or {}
    live, draft = (url_for(str(request.endpoint), mode=mode, **arguments) + asked for mode in (None, "draft"))
    return {"kept": kept, "edit_url": draft, "leave_url": live}


def _all_projects() -> list[Any]:
    query = (
        select(models.Project.id, models.Project.name)
        .where(models.Project.deleted_at.is_(None))
        .order_by(models.Project.name)
    )
    with suppress(*DATABASE_ERRORS), context().database.reading() as reading:  # the page of an error shows all the same
        return list(reading.execute(query))
    return []


# ---- after a page


@admin.after_request
def _leave(response: Response) -> Response:
    security.add_headers(response, context().settings)
    return response


@admin.teardown_request
def _free(_error: BaseException | None) -> None:
    if g.pop("has_turn", False):
        context().turn.release()


# ---- errors


@admin.errorhandler(HTTPException)
def _refused(error: HTTPException) -> ResponseReturnValue:
    response = error.get_response()
    if response.status_code < 400:
        return response
    page = Response(_error_page(error.code or 500), error.code, mimetype="text/html")
    for name in ("Allow", "Retry-After"):
        if name in response.headers:
            page.headers[name] = response.headers[name]
    return page


@admin.errorhandler(security.ForgedRequestError)
def _forged(error: security.ForgedRequestError) -> ResponseReturnValue:
    if error.reason == "old":
        return _error_page(400), 400
    root = context().settings.base_url
    is_page = ACCESS[str(request.endpoint)].see is not None
    url = security.here_under(root) if is_page else f"{root}/"
    if error.reason == "http":
        title = _("This page was opened over http")
        message = _(
            "The address of this service is %(root)s (PUBLIC_URL), and browsers send the session over https alone. "
            "Nothing was done. Open the page there and do it again; or whoever runs the service sets PUBLIC_URL to the "
            "address that people use.",
            root=root,
        )
    else:
        title = _("Your browser sent no cookie")
        message = _(
            "Without the cookie of the session nobody can sign in or save. Nothing was done. Allow cookies for this "
            "site, and open it by its address, %(root)s.",
            root=root,
        )
    return _error_page(400, title=title, message=message, remedy_url=url), 400


@admin.errorhandler(_BusyError)
def _busy(_error: _BusyError) -> ResponseReturnValue:
    text = _error_page(
        503,
        title=_("Busy with calls"),
        message=_("Calls go first, and right now they need the whole server. Try again in a few seconds."),
    )
    return Response(text, 503, {"Retry-After": "3"}, mimetype="text/html")


@admin.errorhandler(DBAPIError)
@admin.errorhandler(PostgresError)
@admin.errorhandler(PoolTimeoutError)
@admin.errorhandler(DatabaseBusyError)
def _without_database(error: Exception) -> ResponseReturnValue:
    reference = secrets.token_hex(4)
    log.error("admin: the database failed", path=request.path, reference=reference, error=type(error).__name__)
    return Response(_error_page(503, reference=reference), 503, {"Retry-After": "10"}, mimetype="text/html")


@admin.errorhandler(NoSuchRowError)
def _gone(_error: NoSuchRowError) -> ResponseReturnValue:
    return _error_page(404), 404


@admin.errorhandler(ConfigurationError)
def _not_saved(error: ConfigurationError) -> ResponseReturnValue:
    session.pop("_flashes", None)  # a message that something was saved is wrong now
    text = " ".join(dict.fromkeys(map(words_of_fault, error.faults)))
    return _whole_page(_error_page(422, title=_("Not saved"), message=text))


@admin.errorhandler(FailingTestsError)
def _tests_fail(error: FailingTestsError) -> ResponseReturnValue:
    session.pop("_flashes", None)  # a message that something was saved is wrong now
    given = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    facts = {"results": error.results, "given": given, "accept": ACCEPT_FAILING, "action": security.requested()}
    return _whole_page(render_template("tests/failing.html", **facts))


@admin.errorhandler(BuildError)
def _not_publishable(error: BuildError) -> ResponseReturnValue:
    session.pop("_flashes", None)  # a message that something was saved is wrong now
    text = _error_page(
        422,
        title=_("Not saved"),
        message=_(
            "Calls could not be routed with this configuration: %(error)s. Nothing was changed: fix this first.",
            error=str(error),
        ),
    )
    return _whole_page(text)


def _whole_page(text: str) -> Response:
    """Answer 422 with a page. After a post by htmx it replaces the page, to which the browser goes back."""
    response = Response(text, 422, mimetype="text/html")
    if "HX-Request" in request.headers:
        headers = {"HX-Retarget": "body", "HX-Reselect": "body", "HX-Reswap": "outerHTML"}
        response.headers.update(headers, **{"HX-Push-Url": request.headers.get("HX-Current-URL", "false")})
    return response


@admin.errorhandler(SecretError)
def _without_key(error: SecretError) -> ResponseReturnValue:
    log.error("admin: a stored credential cannot be read", path=request.path, error=str(error))
    text = _error_page(
        500,
        title=_("Stored credentials cannot be read"),
        message=_(
            "SECRET_KEY or ENCRYPTION_KEYS changed. Enter the credentials again in Settings and make a new hook "
            "address, or have the operator of this service add the old key behind the new one in ENCRYPTION_KEYS."
        ),
    )
    return Response(text, 500, mimetype="text/html")


@admin.errorhandler(InternalServerError)
def _bug(error: InternalServerError) -> ResponseReturnValue:
    reference = secrets.token_hex(4)  # logged with the traceback
    log.error("admin: a page failed", path=request.path, reference=reference, error=repr(error.original_exception))
    return Response(_error_page(500, reference=reference), 500, mimetype="text/html")


_ERRORS = {
    400: (lazy("The page is out of date"), lazy("Go back, reload the page and try again.")),
    403: (
        lazy("Your role does not allow this"),
        lazy("Ask an owner of this service to do it, or to change your role."),
    ),
    404: (lazy("Nothing here"), lazy("The address is wrong, or what was here has been deleted.")),
    413: (lazy("Too large"), lazy("What was sent is larger than this service accepts.")),
    429: (lazy("Too many tries"), lazy("Wait a minute, then try again.")),
    503: (
        lazy("The database does not answer"),
        lazy(
            "Calls are still answered from what was last known. Try this page again in a moment. If it lasts, "
            "`router check` tells the operator of this service what is wrong."
        ),
    ),
}
_OTHER_ERROR = (
    lazy("Something went wrong here"),
    lazy("It was noted in the log. Nothing was changed. Try again, or go back to the board."),
)


def _error_page(code: int, **values: Any) -> str:
    title, message = _ERRORS.get(code, _OTHER_ERROR)
    return render_template("error.html", code=code, **{"title": title, "message": message} | values)
