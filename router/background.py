"""What runs beside the requests of a process: the presence keeper, the refresh that a hook asks for, what a hook puts
off, the upkeep of what the process knows should the database go away, the drafts whose time has come, and, in one of
all processes, the deletion of what was kept long enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from router.config import Settings
from router.db.retention import Pruner, is_first_keeper
from router.db.session import DATABASE_ERRORS, Database, time_limit
from router.log import log
from router.metrics import PRUNED, REFRESHES
from router.presence.fetch import Fetcher
from router.presence.keeper import Keeper

UPKEEP_SECONDS = 5.0
BEHIND_SECONDS = 1.0  # where there is more to do than to learn what is known
START_SECONDS = 3.0  # for which the first calls may wait until the process knows where to send them
RECALL_SECONDS = 0.5  # after which it goes by what other processes of the host knew, if they left it anything
RESERVE_PAUSE_SECONDS = 0.1
SHARE_SECONDS = 0.1  # between two looks whether the other processes must know something: see Outage.share
DRAFTS_SECONDS = 5.0  # between two looks whether a draft is to be published now
PRUNE_SECONDS = 3600.0
FIRST_PRUNE_SECONDS = 600.0  # after the start, so that processes which do not live long prune too


class Background:
    """Made in every process; what holds connections and threads is made at the first use, after any fork."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._stopped = threading.Event()
        self._kept_up = threading.Event()
        self._threads: list[threading.Thread] = []
        self.upkeep: Callable[[], object] | None = None
        self.publish_due: Callable[[datetime], int] = lambda _now: 0
        self.share: Callable[[], object] = lambda: None  # with the other processes of the host, in an outage
        self.is_behind: Callable[[], bool] = lambda: False
        self.recall: Callable[[], bool] = lambda: False  # does the process know of projects now?

    @property
    def keeper(self) -> Keeper:
        with self._lock:
            if self._keeper is None:
                fetcher = Fetcher(allow_private=self._settings.presence_allow_private, max_in_flight=192)
                self._keeper = Keeper(self._database, fetcher)
            return self._keeper

    def start(self) -> None:
        """Poll presence, if this kind of process does, and keep up what the hook knows.

        Returns once it knows all projects: who does not would read them while a caller waits, and the first time takes
        long. It does not wait for ever: without the database calls are answered all the same, and at once where the
        processes before it left what they knew.
        """
        if self._threads:
            return
        if self.upkeep is not None:
            self._start("upkeep", self._run_upkeep)
            self._start("share", self._run_share)
            self._start("drafts", self._run_drafts)
        self._reserve()
        if self._settings.presence_keeper == "inline":
            self._start("keeper", self.keeper.run, self._stopped)
            self._start("prune", self._run_prune)
        if self.upkeep is not None and not self._kept_up.wait(RECALL_SECONDS) and not self.recall():
            self._kept_up.wait(START_SECONDS - RECALL_SECONDS)

    def _reserve(self) -> None:
        """Have the connection of calls before the keeper has any. Where other processes took all that the server
        allows, they need few of them for longer than a moment; in an outage nobody waits for it."""
        give_up_at = time.monotonic() + START_SECONDS
        while (left := give_up_at - time.monotonic()) > 0:
            with suppress(*DATABASE_ERRORS), time_limit(left):
                return self._database.reserve()
            if self.is_behind() or self._stopped.wait(RESERVE_PAUSE_SECONDS):
                return None
        return None

    def _start(self, name: str, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run_upkeep(self) -> None:
        self._keep_up()
        self._kept_up.set()
        kept_up_at = time.monotonic()
        while not self._stopped.wait(BEHIND_SECONDS):
            if time.monotonic() - kept_up_at >= UPKEEP_SECONDS or self.is_behind():
                self._keep_up()
                kept_up_at = time.monotonic()

    def _run_share(self) -> None:  # apart from the upkeep, which waits for the database
        while not self._stopped.wait(SHARE_SECONDS):
            try:
                self.share()
            except Exception:  # noqa: BLE001 - the other processes rely on it in the next outage
                log.exception("what the other processes must know could not be shared; trying on")

    def _keep_up(self) -> None:
        try:
            if self.upkeep is not None:
                self.upkeep()
        except Exception as error:  # noqa: BLE001 - tried again in a moment; the hook tells of what matters
            log.warning("upkeep: postponed", error=str(error), kind=type(error).__name__)

    def _run_drafts(self) -> None:
        while not self._stopped.wait(DRAFTS_SECONDS):
            try:
                published = self.publish_due(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - tried again in a moment
                log.warning("drafts: postponed", error=str(error), kind=type(error).__name__)
            else:
                if published:
                    log.info("drafts: published as planned", count=published)

    def _run_prune(self) -> None:
        pruner = Pruner(self._database, self._stopped)
        wait = FIRST_PRUNE_SECONDS
        while not self._stopped.wait(wait):
            wait = PRUNE_SECONDS
            self._prune(pruner)

    def _prune(self, pruner: Pruner) -> None:
        try:
            if not is_first_keeper(self._database, self.keeper.name):
                return
            deleted = pruner.run()
        except Exception as error:  # noqa: BLE001 - tried again in an hour
            log.warning("prune: postponed", error=str(error), **pruner.deleted)
            deleted = pruner.deleted
        else:
            if deleted:
                log.info("pruned", **deleted)
        for table, count in deleted.items():
            PRUNED.labels(table).inc(count)

    def stop(self) -> None:
        """Stop; the keeper gives its leases back, so that another process takes over at once."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(timeout=5)
        if self._threads and self.is_behind():
            self._keep_up()  # what still waits to be written

    def refresh(self, project_id: int, deadline: float) -> bool:
        """Ask for fresher presence now, until `deadline` (time.monotonic) at most; was there news?"""
        try:
            with time_limit(deadline - time.monotonic()):
                has_news = self.keeper.refresh(project_id, deadline)
        except TimeoutError:  # the keeper minds the time, but a database that has stopped answers nobody
            has_news = False
        REFRESHES.labels("yes" if has_news else "no").inc()
        return has_news
