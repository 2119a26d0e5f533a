"""Write structured logs to standard output: one line per decision, the call id in each line of a call, no secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import TextIOBase
from typing import Any

import orjson
import structlog

from router.config import Settings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

# For a call that logs one line, this takes a third of the time of structlog's context variables.
_call_id: ContextVar[str] = ContextVar("call_id", default="")


@contextmanager
def about_call(call_id: str) -> Iterator[None]:
    """Add the call id to every line that is logged within the block."""
    token = _call_id.set(call_id)
    try:
        yield
    finally:
        _call_id.reset(token)


# Matches plain, doubled and escaped slashes; not the paths of our own modules in a traceback.
_TOKEN = re.compile(r"((?:/|%2f)(?:hook|welcome)(?:/|%2f)+)(?!\w+\.py\b)[^/?#\s'\"]+", re.IGNORECASE)


def without_tokens(text: str) -> str:
    """Return the text without the tokens of hook URLs and one-time links: whoever reads one has access."""
    return _TOKEN.sub(r"\1[token]", text) if "hook" in (folded := text.casefold()) or "welcome" in folded else text


def _complete(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Add the call id, and remove tokens from every value, including tracebacks."""
    if call_id := _call_id.get():
        event.setdefault("call_id", call_id)
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = without_tokens(value)
    return event


def _on_one_line(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Escape text from requests, so that it can neither begin a line nor control a terminal. JSON escapes it anyway."""
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
    except TypeError:  # a lone surrogate, or a number of more than 64 bits
        return json.dumps(event, default=str).encode()


class _Output(TextIOBase):
    """Standard output that ignores errors: a full disk must not fail a call. Nothing stays in a buffer."""

    def write(self, text: Any) -> int:
        with suppress(OSError, ValueError):
            stream: Any = sys.stdout.buffer if isinstance(text, bytes) else sys.stdout
            stream.write(text)
            stream.flush()
        return len(text)


def configure(settings: Settings) -> None:
    """Set up logging once per process, for libraries' log records too."""
    level = logging.getLevelNamesMapping()[settings.log_level]
    as_json = settings.log_format == "json"
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        _complete,
    ]
    as_text = [_on_one_line, structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())]
    output: Any = _Output()
    structlog.configure(
        processors=[*shared, *([structlog.processors.JSONRenderer(serializer=_dumps)] if as_json else as_text)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(output) if as_json else structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    vars(log).pop("bind", None)  # cached under an earlier configuration
    # Libraries log in the same format, from warnings on: else one line per connection.
    render_json = structlog.processors.JSONRenderer(serializer=lambda event, **_: _dumps(event).decode())
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([render_json] if as_json else as_text),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
