"""Structured logs on standard output: one line per decision, the call id on every line of a call, never a secret."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import orjson
import structlog

from router.config import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def _dumps(event: dict[str, Any], **_: Any) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


class _Output:
    """Standard output that never fails: a full disk behind it must not cost a call."""

    def write(self, text: Any) -> int:
        with suppress(OSError, ValueError):
            self._stream(text).write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()

    @staticmethod
    def _stream(text: Any) -> Any:
        return sys.stdout.buffer if isinstance(text, bytes) else sys.stdout


def configure(settings: Settings) -> None:
    """Set up logging once per process, libraries' own log records included."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    output: Any = _Output()
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.JSONRenderer(serializer=_dumps)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(output) if as_json else structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    # The libraries' lines look the same; their chatter (one line per connection) stays out.
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumps(event).decode())
                if as_json
                else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
