"""Build the WSGI application: create_app() makes all parts and connects them. No other module does."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

from router import admin, health, log
from router.background import Background
from router.check import Watch
from router.config import Settings
from router.configuration.drafts import publish_due
from router.core.events import CallEvent
from router.core.lifecycle import Result
from router.core.model import Project
from router.db import models
from router.db.session import Database, time_limit
from router.db.types import use_encryption_keys
from router.hook.views import Hook
from router.presence.events import apply_event
from router.routing.outbox import Outbox
from router.routing.route import Routing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

REFUSED_SECONDS = 0.25  # for storing a refused request; after that it is not stored


class _App(Flask):
    """Flask with structured log lines for failed requests."""

    def log_exception(self, exc_info: Any) -> None:
        log.log.error("a request failed", method=request.method, path=request.path, exc_info=exc_info)


class _UnderPath:
    """Serve the application under a path, whether or not the proxy in front removes that path.

    `names`: the first segments of our own URLs. A path is removed only if one of them follows it, because the path may
    have such a name itself.
    """

    def __init__(self, app: WSGIApplication, root: str, names: Collection[str]) -> None:
        self._app, self._names = app, names
        self._root = root.encode().decode("latin-1")  # the encoding of PATH_INFO (PEP 3333)
        parts = [part for part in self._root.split("/") if part]
        end = "(?=/)" if parts[0].casefold() in names else "(?=/|$)"
        self._in_front = re.compile("".join(f"/+{re.escape(part)}" for part in parts) + end)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["SCRIPT_NAME"] = self._root
        path = environ.get("PATH_INFO", "")
        if found := self._in_front.match(path):
            rest = path[found.end() :] or "/"
            if rest.lstrip("/").partition("/")[0].casefold() in self._names:
                environ["PATH_INFO"] = rest
        return self._app(environ, start_response)


def create_app(settings: Settings | None = None) -> Flask:
    """Return the whole service as one WSGI application. It connects to nothing before a request or `start()`."""
    settings = settings or Settings.load()
    log.configure(settings)
    use_encryption_keys(settings.fernet_keys)
    app, database = _make_app(settings), _make_database(settings)
    background, outbox = Background(database, settings), Outbox(settings.outbox_folder, database.name)
    budget = settings.hook_budget_ms / 1000
    routing = Routing(database, background.refresh, outbox, budget_seconds=budget)

    def apply(project: Project, event: CallEvent, arrived_at: float) -> Result:
        return apply_event(database, project, event, arrived_at=arrived_at).result

    background.publish_due = partial(publish_due, database)
    background.upkeep, background.recall = lambda: routing.keep_up(apply), routing.projects.recall
    background.share, background.is_behind = routing.outage.share, lambda: routing.is_behind
    app.extensions["router"] = background
    app.extensions["hook"] = hook = Hook(
        app,
        routing,
        budget_seconds=budget,
        last_resort=settings.overflow_destination,
        secret=settings.secret_key.get_secret_value(),
        apply=apply,
        refuse=_keeper_of_refused(database, outbox),
    )
    app.wsgi_app = hook  # type: ignore[method-assign]
    if hops := settings.proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    watch = Watch(settings, database)
    health.register(app, settings, database, routing, watch)
    admin.register(app, settings, database, Routing(database, background.refresh, outbox), background, watch)
    if (root := app.config["APPLICATION_ROOT"]) != "/":
        names = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
        app.wsgi_app = _UnderPath(app.wsgi_app, root, names)  # type: ignore[method-assign]
    return app


def _make_app(settings: Settings) -> _App:
    app = _App("router", static_folder=None)
    app.config.update(
        SECRET_KEY=settings.secret_key.get_secret_value(),
        MAX_CONTENT_LENGTH=None,
        APPLICATION_ROOT=unquote(urlsplit(settings.public_url).path) or "/",
    )
    return app


def _make_database(settings: Settings) -> Database:
    database = Database(settings.database_url)
    for place in database.exposed:
        log.log.warning(
            "other accounts of this host may read what is kept here: let its owner run chmod go=", path=str(place)
        )
    return database


def _keeper_of_refused(database: Database, outbox: Outbox) -> Callable[[int, str, str, dict[str, Any]], None]:
    """Return what stores a refused request: not while the database is away."""

    def keep(project_id: int, reason: str, remote: str, request: dict[str, Any]) -> None:
        if not outbox.is_open:
            with time_limit(REFUSED_SECONDS), database.writing() as session:
                session.merge(
                    models.RefusedRequest(
                        project_id=project_id, at=datetime.now(UTC), reason=reason, remote=remote, request=request
                    )
                )

    return keep
