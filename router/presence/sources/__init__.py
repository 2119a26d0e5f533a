"""Map the names of presence sources in projects' settings to their functions. A new platform adds one file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from router.presence.fetch import Fetcher
from router.presence.source import CheckResult, LoggedCall, Reading, SourceSettings
from router.presence.sources import ringostat


class ReadPresence(Protocol):
    """Ask the platform once. Raises SourceError when presence is not known. See ringostat.read."""

    def __call__(self, settings: SourceSettings, *, deadline: float, session: Fetcher) -> Reading: ...


class CheckConnection(Protocol):
    """Ask the platform as ReadPresence does, and report on each request. See ringostat.check."""

    def __call__(self, settings: SourceSettings, *, deadline: float, session: Fetcher) -> list[CheckResult]: ...


class ReadCallLog(Protocol):
    """Return the calls between two aware instants, in the project's zone. Raises SourceError. See
    ringostat.fetch_call_log.
    """

    def __call__(
        self, settings: SourceSettings, since: datetime, until: datetime, *, deadline: float, session: Fetcher
    ) -> list[LoggedCall]: ...


SOURCES: Mapping[str, ReadPresence] = {"ringostat": ringostat.read}
CHECKS: Mapping[str, CheckConnection] = {"ringostat": ringostat.check}
CALL_LOGS: Mapping[str, ReadCallLog] = {"ringostat": ringostat.fetch_call_log}
