"""Call events: applied at once, or when the database allows; by another process of the host, should the one that put
them off be killed before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from router.core.events import CallEvent, Disposition, EventKind
from router.core.lifecycle import Result
from router.core.model import Project
from router.db import queries
from router.db.aside import Aside
from router.db.session import Database
from router.host_store import HostStore
from router.log import log
from router.presence.events import UnwrittenError, apply_event

WAIT_SECONDS = 0.25  # for which an event may hold a process; one that is applied later does no harm
UNWRITTEN_TRIES = 30  # a second apart; a decision that the database will never take holds up no event for ever
# What an event is applied by. What else the platform sent with it is for people to look at.
_FIELDS = (
    *("kind", "call_id", "step", "sip_login", "caller", "dialed", "direction", "disposition"),
    *("answered", "billsec", "duration", "waittime"),
)


class CallEvents:
    """Applies the events of all projects for one process.

    `is_degraded(project id, call id)`: was such a call answered without the database lately?
    """

    def __init__(
        self, database: Database, aside: Aside, store: HostStore, is_degraded: Callable[[int, str], bool]
    ) -> None:
        self._database, self._aside, self._store, self._is_degraded = database, aside, store, is_degraded

    def apply(self, project: Project, event: CallEvent, arrived_at: float) -> Result | None:
        """What it did; None: that is put off. `arrived_at` is of time.monotonic()."""
        return self._aside.do(
            self._work(lambda: project, project.id, event, arrived_at),
            wait=WAIT_SECONDS,
            about=(project.id, event.call_id),
            keep=lambda: self._keep(project.id, event, arrived_at),
        )

    def _work(
        self, load: Callable[[], Project], project_id: int, event: CallEvent, arrived_at: float
    ) -> Callable[[], Result]:
        tries = iter(range(UNWRITTEN_TRIES))

        def work() -> Result:
            is_ours = bool(event.call_id) and self._is_degraded(project_id, event.call_id)
            try:
                return apply_event(self._database, load(), event, arrived_at=arrived_at, is_ours=is_ours).result
            except UnwrittenError:
                if next(tries, None) is not None:
                    raise
                return apply_event(self._database, load(), event, arrived_at=arrived_at).result

        return work

    def _load(self, project_id: int) -> Project:
        with self._database.reading() as session:
            return queries.load_published(session, project_id).project

    def _keep(self, project_id: int, event: CallEvent, arrived_at: float) -> Callable[[], object] | None:
        said = {name: getattr(event, name) for name in _FIELDS}
        number = self._store.keep_event(orjson.dumps([project_id, arrived_at, said]))
        return partial(self._store.forget_event, number) if number else None

    def take_over(self) -> None:
        """Apply what processes of this host had put off that are gone."""
        for number, text in self._store.events_left():
            self._adopt(partial(self._store.forget_event, number), text)

    def _adopt(self, forget: Callable[[], object], text: bytes) -> None:
        try:
            project_id, arrived_at, said = orjson.loads(text)
            event = _read(said)
        except (ValueError, TypeError, KeyError) as error:  # of another release
            log.error("a call event that was put off cannot be read", error=repr(error))
            forget()
        else:
            arrived_at = min(arrived_at, time.monotonic())  # the machine may have been started anew since
            work = self._work(partial(self._load, project_id), project_id, event, arrived_at)
            self._aside.do(work, wait=0, about=(project_id, event.call_id), keep=lambda: forget)


def _read(said: dict[str, Any]) -> CallEvent:
    kind, disposition = EventKind(said["kind"]), Disposition(said["disposition"])
    return CallEvent(**said | {"kind": kind, "disposition": disposition})
