"""The metrics for Prometheus. Names are stable: docs/operations.md lists them. Labels hold no secrets or numbers.

Each process counts these. router/health.py reads other metrics (presence, reservations) from the database.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.registry import Collector


class _ReservedCounts(MmapedDict):
    """The file in which a process counts, with its disk space reserved. On a full disk the process counts in memory.

    The library makes a sparse file: on a full disk a write to it ends the process (SIGBUS), and every new one.
    """

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        try:
            if not read_mode:
                _reserve(Path(filename), _COUNTS_SIZE)
            super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]
        except OSError:  # the library needs somewhere to count, though nobody reads it
            self._f, self._fname = Path(os.devnull).open("ab"), os.devnull  # noqa: SIM115 - closed by close()
            self._m, self._capacity = mmap.mmap(-1, _COUNTS_SIZE), _COUNTS_SIZE
            self._positions: dict[str, int] = {}
            self._used = 8

    def _init_value(self, key: str) -> Any:
        while self._used + len(key.encode()) + 32 > self._capacity:  # 32: the key's length, its padding, two numbers
            size = 2 * self._capacity
            try:
                _reserve(Path(self._fname), size)
                grown = mmap.mmap(self._f.fileno(), size)
            except OSError:
                grown = mmap.mmap(-1, size)
                grown[: self._capacity] = self._m[: self._capacity]
            self._m, self._capacity = grown, size
        return super()._init_value(key)  # type: ignore[no-untyped-call]


_COUNTS_SIZE = 1 << 16  # bytes of a new file, as in the library


def _reserve(path: Path, size: int) -> None:
    """Extend the file with zeros to this size. On OSError the file stays as it was; a new one is removed."""
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            if file.write(bytes(max(0, size - before))) < size - before:
                raise OSError(errno.ENOSPC, "no room for counts", str(path))
        except OSError:
            file.truncate(before) if before else path.unlink()
            raise


values.MmapedDict = _ReservedCounts  # type: ignore[attr-defined]
disable_created_metrics()  # type: ignore[no-untyped-call]  # meaningless where several processes count together

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
DEGRADED_AT = Gauge(
    "router_degraded_at_seconds",
    "When the last degraded answer was given, in seconds since 1970, by what failed: the name of the error.",
    ["reason"],
    multiprocess_mode="max",
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

# Start the counters used in alerts at 0: Prometheus sees no increase when a counter first appears with 1.
for _result in ("offer", "overflow", "repeated", "degraded"):
    for _form in ("http", "json", "json-rpc"):
        HOOKS.labels(_result, _form)
HOOKS.labels("refused", "none")
for _reason in ("token", "address", "credentials", "path"):
    REFUSED.labels(_reason)
for _kind in ("before_call", "forwarding", "pickup", "after_call", "unavailable", "unknown"):
    EVENTS.labels(_kind, "lost")


def count_degraded(reason: str) -> None:
    """Count a degraded answer."""
    DEGRADED.labels(reason).inc()
    DEGRADED_AT.labels(reason).set(time.time())


def degraded_since(instant: float) -> frozenset[str]:
    """Return why any process of this host gave degraded answers since an instant (in seconds since 1970)."""
    families = (family for family in _registry().collect() if family.name == "router_degraded_at_seconds")
    return frozenset(
        sample.labels["reason"] for family in families for sample in family.samples if sample.value >= instant
    )


def exposition(more: Iterable[Collector] = ()) -> bytes:
    """Return all metrics of all worker processes, and those of `more` collectors, in Prometheus's text format."""
    registry = _registry()
    for collector in more:
        registry.register(collector)
    return generate_latest(registry)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    return registry
