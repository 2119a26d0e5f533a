"""What is counted, for Prometheus. Names are stable, see docs/operations.md. No secret and no number in a label."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

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
EVENTS = Counter("router_events_total", "Call events by kind and by what they did.", ["kind", "result"])


def exposition() -> bytes:
    """All metrics of all worker processes, in Prometheus's text format."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
    return generate_latest()
