"""Show a request that the hook received: as it was sent, and the hook's notes, which are stored in English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from router.admin.i18n import _, lazy
from router.core.words import N_

_PLACES: dict[str, Any] = {"body": lazy("body"), "query": lazy("query"), "header": lazy("header")}

_NOTES = (
    N_(
        "The call id is %(sent)s, which identifies no call: each request counts as its own call. Send Ringostat's "
        "call id as uniqueid."
    ),
    N_("No call id was found: each request counts as its own call. Send Ringostat's call id as uniqueid."),
    N_("No call id was found: the event cannot be matched to a call. Send Ringostat's call id as uniqueid."),
    N_("No caller's number was found: rules by caller cannot match. Send it as caller."),
    N_("No dialed number was found: rules by dialed number cannot match. Send it as destination."),
    N_("The URL's answer=%(sent)s is unknown and was ignored; use one of %(known)s."),
    N_("The URL's key is not a valid name and was ignored; use up to 100 visible characters."),
    N_("The event does not say what happened. Add event= to the URL, with one of %(known)s."),
    N_("%(place)s %(name)s is %(sent)s, a placeholder that the template did not fill in."),
    N_("%(place)s %(name)s is %(sent)s: not a complete phone number. It was left out."),
    N_("%(place)s %(name)s is %(sent)s: not an event that we know."),
    N_("%(place)s %(name)s is %(sent)s: not a disposition that we know."),
    N_("%(place)s %(name)s is %(sent)s: not a number of seconds."),
    N_("%(place)s %(name)s is %(sent)s: not a date with its time zone."),
    N_(
        "The parameters are more than %(n)s, or longer than %(chars)s characters each or %(all)s together; "
        "the rest was left out."
    ),
    N_("Parameters came without names; they were read by place as %(names)s. Send an object with names instead."),
    N_("The %(place)s holds more than %(n)s parameters; the rest was left out."),
    N_("The %(place)s holds a parameter name longer than %(n)s characters; it was left out."),
    N_("The body is larger than %(n)s bytes; only its beginning was read."),
    N_("The body (%(n)s bytes, Content-Type: %(label)s) is neither JSON nor a form; it was left out."),
    N_("The value of %(name)s was cut off; it was left out."),
    N_("The body (%(n)s bytes) is broken JSON; its readable part was read."),
    N_(
        "The body (%(n)s bytes) is broken JSON; its readable part was read. The value of %(name)s "
        "was cut off; it was left out."
    ),
    N_("The JSON-RPC batch holds %(n)s requests; the first was read."),
    N_("The JSON is neither an object nor an array; it was left out."),
    N_("The body holds more than %(n)s values; the rest was left out."),
    N_("The body holds a name that is empty or longer than %(n)s characters; it was left out."),
    N_("The body is nested deeper than %(n)s levels; the rest was left out."),
)


def _pattern(note: str) -> re.Pattern[str]:
    found = re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.+?)", re.escape(note))
    return re.compile(found.replace("(?P<place>.+?)", f"(?P<place>{'|'.join(_PLACES)})"), re.DOTALL)


_PATTERNS = tuple((note, _pattern(note)) for note in _NOTES)


def note_words(written: str) -> str:
    """Return the note in the reader's language; unchanged when this release does not know it."""
    for note, pattern in _PATTERNS:
        if found := pattern.fullmatch(written):
            values = found.groupdict()
            if (place := values.get("place")) in _PLACES:
                values["place"] = str(_PLACES[place])
            return _(note, **values)
    return written


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
