"""What is counted, for Prometheus. Names are stable: docs/operations.md lists them. No secret and no number in a label.

Here is what processes count. What the database knows (presence, reservations) is read at each scrape: router/health.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # several processes have no one time of creation

HOOKS = Counter(
    "router_hooks_total",
    "Hook requests by result (offer, overflow, repeated, degraded, refused) and by the form of the answer.",
    ["result", "form"],
)
HOOK_SECONDS = Histogram(
    "router_hook_seconds",
    "Seconds from reading a hook request to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5),
)
REFUSED = Counter(
    "router_refused_total",
    "Requests at the hook that were turned away, by reason (token, address, credentials, path).",
    ["reason"],
)
DEGRADED = Counter(
    "router_degraded_total",
    "Answers that are not what they would be on a good day, by what failed: the name of the error.",
    ["reason"],
)
EVENTS = Counter("router_events_total", "Call events by kind and by what they did.", ["kind", "result"])
SPOOLED = Gauge(
    "router_spooled_decisions",
    "Decisions that wait for the database to be written down, of all processes of the host.",
    multiprocess_mode="livemostrecent",
)
SPOOL_DROPPED = Counter(
    "router_spool_dropped_total", "Decisions that were dropped: the spool was full, or the database refused them."
)
POLLS = Counter(
    "router_presence_polls_total", "Polls of presence sources by result: ok, or the error's code.", ["result"]
)
REFRESHES = Counter(
    "router_presence_refreshes_total",
    "Presence asked for by a waiting hook, by whether there was news (yes, no).",
    ["news"],
)
ADMIN_SHED = Counter("router_admin_shed_total", "Admin requests turned away because calls needed the processes.")
PRUNED = Counter("router_pruned_rows_total", "Rows deleted at the end of their retention, by table.", ["table"])

# What an alert waits for must be there before it first happens: of a count that begins with 1 Prometheus sees no
# increase, and of one that is missing it cannot tell that it stands still.
for _result in ("offer", "overflow", "repeated", "degraded"):
    for _form in ("http", "json", "json-rpc"):
        HOOKS.labels(_result, _form)
HOOKS.labels("refused", "none")
for _reason in ("token", "address", "credentials", "path"):
    REFUSED.labels(_reason)
for _kind in ("before_call", "forwarding", "pickup", "after_call", "unavailable", "unknown"):
    EVENTS.labels(_kind, "lost")


def exposition(more: Iterable[Collector] = ()) -> bytes:
    """All metrics of all worker processes, and those of `more` collectors, in Prometheus's text format."""
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    for collector in more:
        registry.register(collector)
    return generate_latest(registry)
