"""Show a request that the hook received: as it was sent, and the hook's notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.admin.i18n import READER
from router.admin.page import current_project
from router.core.notes import read_note


def notes_of(received: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hook's notes in the reader's language. Those that an earlier release stored are in English."""
    for stored in received.get("problems") or ():
        note = None if isinstance(stored, str) else read_note(stored)
        yield READER.say(note) if note else str(stored)


def as_received(received: Mapping[str, Any], caller: str) -> dict[str, Any]:
    """Return a request as it was sent, by anybody, and the notes. `caller`: whose number the project may mask."""
    texts = {name: str(received.get(name) or "") for name in ("method", "form", "remote", "user_agent")}
    raw = current_project().mask_within(render_request(received), caller)
    return {**texts, "raw": raw, "problems": [*notes_of(received)]}


def render_request(received: Mapping[str, Any]) -> str:
    """Render a request as it was sent, without the token of its URL."""
    query = f"?{received['query']}" if received.get("query") else ""
    lines = [f"{received.get('method', '')} /hook/…{query}"]
    if received.get("user_agent") and "headers" not in received:
        lines.append(f"User-Agent: {received['user_agent']}")
    lines += [f"{name}: {value}" for name, value in (received.get("headers") or {}).items()]
    if received.get("content_type") and "headers" not in received:
        lines.append(f"Content-Type: {received['content_type']}")
    if received.get("body"):
        lines += ["", str(received["body"])]
    return "\n".join(lines)
