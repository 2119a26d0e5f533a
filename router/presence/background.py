"""What runs beside the requests of a process: the presence keeper, and the refresh that a hook asks for."""

from __future__ import annotations

import threading

from router.config import Settings
from router.db.session import Database
from router.log import log
from router.presence.fetch import Fetcher
from router.presence.keeper import Keeper


class Background:
    """Made in every process, after any fork at the first use: connections and threads do not survive one."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def keeper(self) -> Keeper:
        with self._lock:
            if self._keeper is None:
                fetcher = Fetcher(allow_private=self._settings.presence_allow_private, max_in_flight=192)
                self._keeper = Keeper(self._database, fetcher)
            return self._keeper

    def start(self) -> None:
        """Poll presence in a thread, if this kind of process does."""
        if self._settings.presence_keeper == "inline" and self._thread is None:
            self._thread = threading.Thread(target=self.keeper.run, args=(self._stopped,), name="keeper", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop polling and give the leases back, so that another process takes over at once."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            if self._thread.is_alive():
                log.warning("the presence keeper did not stop in time; its leases run out by themselves")

    def refresh(self, project_id: int, deadline: float) -> bool:
        """Ask for fresher presence now, until `deadline` (time.monotonic) at most; was there news?"""
        return self.keeper.refresh(project_id, deadline)
