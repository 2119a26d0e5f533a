"""Structured logs on standard output: one line per decision, the call id on every line of a call, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

from router.config import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


def _dumps(event: dict[str, Any], **_: Any) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)


def configure(settings: Settings) -> None:
    """Set up logging once per process, libraries' own log records included."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    as_json = settings.log_format == "json"
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.JSONRenderer(serializer=_dumps)
            if as_json
            else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer) if as_json else structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # The libraries' lines look the same; their chatter (one line per connection) stays out.
    handler = logging.StreamHandler(sys.stdout)
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
