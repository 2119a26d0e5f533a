"""The presence sources by the name that a project's settings give. A new platform is one file and one line each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from router.presence.fetch import Fetcher
from router.presence.source import CheckResult, LoggedCall, Reading, SourceSettings
from router.presence.sources import ringostat


class ReadPresence(Protocol):
    """Asks the platform once; raises SourceError when nothing is known. See ringostat.read."""

    def __call__(self, settings: SourceSettings, *, deadline: float, session: Fetcher) -> Reading: ...


class CheckConnection(Protocol):
    """Asks the same and reports on each request. See ringostat.check."""

    def __call__(self, settings: SourceSettings, *, deadline: float, session: Fetcher) -> list[CheckResult]: ...


class ReadCallLog(Protocol):
    """The calls between two aware instants of the project's zone; raises SourceError. See ringostat.fetch_call_log."""

    def __call__(
        self, settings: SourceSettings, since: datetime, until: datetime, *, deadline: float, session: Fetcher
    ) -> list[LoggedCall]: ...


SOURCES: Mapping[str, ReadPresence] = {"ringostat": ringostat.read}
CHECKS: Mapping[str, CheckConnection] = {"ringostat": ringostat.check}
CALL_LOGS: Mapping[str, ReadCallLog] = {"ringostat": ringostat.fetch_call_log}
