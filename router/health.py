"""Report the state of the service to machines: /healthz, /readyz, /metrics. Reads only, and names no person."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router import metrics
from router.addresses import parse_address
from router.check import Finding, Watch
from router.config import Settings
from router.db import migrate
from router.db.session import Database, time_limit
from router.db.vitals import Probe, ProjectVitals, Vitals, read_vitals
from router.routing.outbox import Outbox
from router.routing.route import Routing

health = Blueprint("health", __name__)

_LOOK_SECONDS = 1.0  # how long a probe or a scrape waits for the database


class HealthContext(NamedTuple):
    """The services that the views use, set up by `register`."""

    probe: Probe[Vitals]
    watch: Watch
    routing: Routing
    is_polled: bool  # some process should poll presence: PRESENCE_KEEPER is not off
    metrics_token: str
    is_public: bool  # a proxy on this host passes requests on, so that a request from loopback may be anybody's


def register(app: Any, settings: Settings, database: Database, routing: Routing, watch: Watch) -> None:
    """Put the endpoints into the app."""
    migrate.revisions()  # reads files, and caches them: now, not in the time of a probe

    def read() -> Vitals:
        with time_limit(_LOOK_SECONDS):
            return read_vitals(database)

    app.extensions["health"] = HealthContext(
        probe=Probe(read),
        watch=watch,
        routing=routing,
        is_polled=settings.presence_keeper != "off",
        metrics_token=settings.metrics_token.get_secret_value(),
        is_public=settings.proxy_hops > 0 or not _is_loopback(urlsplit(settings.base_url).hostname or ""),
    )
    app.register_blueprint(health)


def _context() -> HealthContext:
    context: HealthContext = current_app.extensions["health"]
    return context


@health.get("/healthz")
def healthz() -> Response:
    """Answer that the process is alive. Reads no database: while that is down, this process still answers calls."""
    return Response("ok\n", mimetype="text/plain")


# ---- readiness


@health.get("/readyz")
def readyz() -> tuple[Response, int]:
    """Report whether the service is ready: 503 when the database does not answer, or calls cannot use it."""
    context = _context()
    spool, configuration = _spool(context.routing.outbox), _configuration(context.routing)
    try:
        vitals = context.probe.look(_LOOK_SECONDS)
    except Exception as error:  # noqa: BLE001 - any error means: not ready
        cause = getattr(error, "orig", None) or error  # the driver's error says more than SQLAlchemy's
        does_answer = bool(getattr(cause, "sqlstate", None))
        database = {"state": "fails" if does_answer else "unreachable", "error": type(cause).__name__}
        setup = _setup(context.watch.errors(_LOOK_SECONDS if does_answer else 0))
        checks = {"database": database, "setup": setup, "configuration": configuration, "spool": spool}
        return jsonify(status="not ready", checks=checks), 503
    wrong = context.watch.errors(_LOOK_SECONDS)
    checks = {
        "database": {"state": "ok"},
        "setup": _setup(wrong),
        "migrations": _schema(vitals),
        "configuration": configuration,
        "presence": _presence(vitals),
        "keeper": _keeper(vitals, context),
        "spool": spool,
    }
    if vitals.schema in {"none", "behind"} or any(finding.lasts for finding in wrong or []):
        return jsonify(status="not ready", checks=checks), 503
    # A failing presence source or outbox is no reason for 503: other processes would answer calls no better.
    good = all(check["state"] in {"ok", "off"} for check in checks.values())
    return jsonify(status="ok" if good else "degraded", checks=checks), 200


def _setup(wrong: list[Finding] | None) -> dict[str, Any]:
    """Return the errors that `router check` finds, without details that name a host or a role."""
    if wrong is None:
        return {"state": "unknown"}
    errors = [
        {"check": finding.check, "found": finding.found, **({"error": finding.error} if finding.error else {})}
        for finding in wrong
    ]
    return {"state": "error", "errors": errors, "remedy": "run: router check"} if errors else {"state": "ok"}


def _schema(vitals: Vitals) -> dict[str, Any]:
    if vitals.schema in {"none", "behind"}:
        return {"state": vitals.schema, "remedy": "run: router db upgrade"}
    # A newer schema is safe: a newer release is being deployed.
    return {"state": "ok"} if vitals.schema == "ok" else {"state": "ok", "schema": vitals.schema}


def _presence(vitals: Vitals) -> dict[str, Any]:
    projects = [
        {
            "project": project.id,
            "state": project.state,
            "age_seconds": None if project.age is None else round(project.age.total_seconds(), 1),
            **({"error": project.error} if project.error else {}),
        }
        for project in vitals.projects
    ]
    good = all(project.state == "fresh" for project in vitals.projects)
    return {"state": "ok" if good else "unknown", "projects": projects}


def _keeper(vitals: Vitals, context: HealthContext) -> dict[str, Any]:
    if not context.is_polled:
        return {"state": "off"}
    idle = [project.id for project in vitals.projects if not project.is_polled]
    return {"state": "nobody polls", "projects": idle} if idle else {"state": "ok"}


def _configuration(routing: Routing) -> dict[str, Any]:
    """Return whether the configurations that this process has loaded could be built. The log and the board say why
    not: that text names agents and groups.
    """
    projects = sorted(routing.projects.faults)
    return {"state": "cannot be built", "projects": projects} if projects else {"state": "ok"}


def _spool(outbox: Outbox) -> dict[str, Any]:
    decisions, events = outbox.waiting()
    state = "waiting" if decisions or events else "ok"
    return {"state": state, "decisions": decisions, "events": events, "dropped": outbox.dropped}


# ---- metrics


@health.get("/metrics")
def prometheus() -> Response:
    """Return all metrics to clients with METRICS_TOKEN. If none is set: to programs on this host, unless a proxy is in
    front.
    """
    context = _context()
    if context.metrics_token:
        if not _carries(context.metrics_token):
            ask = {"WWW-Authenticate": 'Bearer realm="metrics"'}
            return Response("Send METRICS_TOKEN as a bearer token.\n", 401, ask, mimetype="text/plain")
    elif context.is_public or not _is_on_this_host():
        text = (
            "Metrics need no token only where this host is asked directly, at its loopback address, and neither "
            "PUBLIC_URL nor PROXY_HOPS says that others come in through a proxy. Set METRICS_TOKEN, and send it as a "
            "bearer token.\n"
        )
        return Response(text, 403, mimetype="text/plain")
    body = metrics.exposition([DatabaseMetrics(context.probe)])
    return Response(body, content_type="text/plain; version=0.0.4; charset=utf-8")


def _carries(token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


_FORWARDED = {"forwarded", "via", "true-client-ip", "cf-connecting-ip", "fly-client-ip", "x-real-ip", "x-client-ip"}


def _is_on_this_host() -> bool:
    """Return whether a program on this host sent the request, to our own address and port. A proxy on this host does
    not count, because it passes on requests of others.
    """
    if any(name.lower() in _FORWARDED or name.lower().startswith("x-forwarded") for name, _value in request.headers):
        return False
    try:
        asked = urlsplit(f"//{request.headers.get('Host', '')}")
        port = asked.port or 80
    except ValueError:
        return False
    is_our_port = str(port) == str(request.environ.get("SERVER_PORT", port))
    return is_our_port and _is_loopback(asked.hostname or "") and _is_loopback(request.remote_addr or "")


def _is_loopback(host: str) -> bool:
    address = parse_address(host)
    return host == "localhost" if address is None else address.is_loopback


class DatabaseMetrics(Collector):
    """Gauges read from the database at each scrape, so that all processes report the same. Never fails the scrape."""

    def __init__(self, probe: Probe[Vitals]) -> None:
        self._probe = probe

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield _gauge("router_build_info", "The release that runs.", {(version("router"),): 1}, "version")
        try:
            vitals = self._probe.look(_LOOK_SECONDS)
        except Exception:  # noqa: BLE001 - reported by the gauge
            yield _gauge("router_database_up", "Did the database answer this scrape?", {(): 0})
            return
        yield _gauge("router_database_up", "Did the database answer this scrape?", {(): 1})
        current = vitals.schema in {"ok", "ahead"}
        yield _gauge("router_schema_current", "Is the schema at least that of this release?", {(): int(current)})
        for name, help_text, value in _PER_PROJECT:
            values = {(str(project.id),): value(project) for project in vitals.projects}
            known = {labels: number for labels, number in values.items() if number is not None}
            yield _gauge(name, help_text, known, "project")
        failing = {(str(p.id), p.error): float(p.failures) for p in vitals.projects if p.failures}
        text = "Failures of the project's presence source in a row, by the last error's code; absent when it works."
        yield _gauge("router_presence_failures", text, failing, "project", "error")


_PER_PROJECT: list[tuple[str, str, Callable[[ProjectVitals], float | None]]] = [
    (
        "router_presence_age_seconds",
        "Age of the newest good reading of the project's presence; absent before the first.",
        lambda project: None if project.age is None else project.age.total_seconds(),
    ),
    (
        "router_presence_fresh_seconds",
        "The project's setting: how old a reading may be before the hook asks again.",
        lambda project: project.fresh.total_seconds(),
    ),
    (
        "router_presence_poll_seconds",
        "How long the newest good reading of the project's presence took.",
        lambda project: None if project.poll is None else project.poll.total_seconds(),
    ),
    ("router_presence_polled", "Does any process poll the project's presence?", lambda project: int(project.is_polled)),
    ("router_reservations_live", "Agents promised to a call right now.", lambda project: project.reservations),
    (
        "router_decisions_overdue_seconds",
        "For how long the project's oldest decision should have been deleted.",
        lambda project: project.overdue.total_seconds(),
    ),
]


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    """Return a gauge. `values`: its numbers by tuples of label values, in the order of `labels`."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family
