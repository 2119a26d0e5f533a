"""Structured logs on standard output: one line per decision, the call id on every line of a call, never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import orjson
import structlog

from router.config import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


# Measured: a third of what structlog's own bound variables cost a call that writes one line.
_call_id: ContextVar[str] = ContextVar("call_id", default="")


@contextmanager
def about_call(call_id: str) -> Iterator[None]:
    """Every line of this thread within the block is about this call, whoever writes it."""
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)


# However the slashes are written: as they came, doubled, escaped. Our own modules in a traceback have such paths too.
_TOKEN = re.compile(r"((?:/|%2f)(?:hook|welcome)(?:/|%2f)+)(?!\w+\.py\b)[^/?#\s'\"]+", re.IGNORECASE)


def without_tokens(text: str) -> str:
    """The text, less the tokens in URLs: a hook's address and a one-time link let in whoever reads them."""
    return _TOKEN.sub(r"\1[token]", text) if "hook" in (folded := text.casefold()) or "welcome" in folded else text


def _hide_tokens(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Whoever writes the line, and whatever failed."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = without_tokens(value)
    return event


def _add_call_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    if call_id := _call_id.get():
        event.setdefault("call_id", call_id)
    return event


def _on_one_line(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """For eyes only, JSON does it by itself: what strangers send can neither begin a line nor steer a terminal."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(f"    {_visible(line)}" for line in str(value).splitlines())
        elif isinstance(value, str):
            event[name] = _visible(value)
        elif not isinstance(value, int | float | None):
            event[name] = _visible(repr(value))
    return event


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _dumps(event: dict[str, Any], **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # half a character, a number of more than 64 bits: rare, and a line must not cost a call
        return json.dumps(event, default=str).encode()


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
    as_json = settings.log_format == "json"
    shared: list[Any] = [
        _add_call_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        _hide_tokens,
    ]
    for_eyes = [_on_one_line, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    output: Any = _Output()
    structlog.configure(
        processors=[*shared, *([structlog.processors.JSONRenderer(serializer=_dumps)] if as_json else for_eyes)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(output) if as_json else structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    vars(log).pop("bind", None)  # what was cached under an earlier configuration
    # The libraries' lines look the same; their chatter (one line per connection) stays out.
    as_text = structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumps(event).decode())
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([as_text] if as_json else for_eyes),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
