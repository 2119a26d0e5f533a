"""create_app(): the only wiring. Who knows whom is decided here and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, jsonify
from werkzeug.middleware.proxy_fix import ProxyFix

from router import admin, log, metrics
from router.background import Background
from router.config import Settings
from router.core.events import CallEvent
from router.db import migrate, models
from router.db.queries import Published
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.hook.views import HookContext, hook
from router.presence.events import apply_event
from router.routing import Routing


def create_app(settings: Settings | None = None) -> Flask:
    """The whole service as one WSGI application. Connects to nothing before the first request or `start()`."""
    settings = settings or Settings.load()
    log.configure(settings)
    use_encryption_keys(settings.fernet_keys)
    budget = settings.hook_budget_ms / 1000
    # The hook's transactions must end within its budget; pages and the keeper have patience.
    hook_database = Database(settings.database_url, lock_seconds=budget, statement_seconds=budget, pool_size=1)
    database = Database(settings.database_url)
    background = Background(database, settings)

    app = Flask("router", static_folder=None)
    app.config.update(SECRET_KEY=settings.secret_key.get_secret_value(), MAX_CONTENT_LENGTH=None)
    if settings.proxy_hops:
        hops = settings.proxy_hops
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]
    app.extensions["router"] = background

    def keep_refused(project_id: int, reason: str, remote: str, request: dict[str, Any]) -> None:
        with database.writing() as session:
            session.add(
                models.RefusedRequest(
                    project_id=project_id, at=datetime.now(UTC), reason=reason, remote=remote, request=request
                )
            )

    def keep_event(published: Published, event: CallEvent) -> str:
        return apply_event(database, published.project, event).result

    routing = Routing(hook_database, background.refresh)
    background.upkeep = routing.keep_up
    app.extensions["hook"] = HookContext(
        routing=routing,
        budget_seconds=budget,
        last_resort=settings.overflow_destination,
        apply_event=keep_event,
        refuse=keep_refused,
        settings={},
    )
    app.register_blueprint(hook)
    admin.register(app, settings, database, Routing(database, background.refresh), background)

    @app.get("/healthz")
    def healthz() -> Response:
        """Alive. Touches no database: killing us because it is down would kill the one who can still answer."""
        return Response("ok\n", mimetype="text/plain")

    @app.get("/readyz")
    def readyz() -> tuple[Response, int]:
        """Ready: the database answers and has the schema we expect."""
        checks: dict[str, str] = {}
        try:
            checks["database"] = "ok"
            checks["migrations"] = "ok" if migrate.is_at_head(database) else "run: router db upgrade"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is not ready
            checks["database"] = type(error).__name__
        good = all(state == "ok" for state in checks.values())
        return jsonify(status="ok" if good else "not ready", checks=checks), 200 if good else 503

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(metrics.exposition(), content_type="text/plain; version=0.0.4; charset=utf-8")

    return app
