"""What the hook notes of a request, for the admin who sets the platform up. The codes are stored with the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.core.words import N_, Message, Text

PLACES = N_("body"), N_("query"), N_("header")

_WORDS = {
    "no_call_id": N_(
        "No call id was found: each request counts as its own call. Send Ringostat's call id as uniqueid."
    ),
    "empty_call_id": N_(
        "The call id is %(sent)s, which identifies no call: each request counts as its own call. Send Ringostat's "
        "call id as uniqueid."
    ),
    "shared_call_id": N_(
        "The call id %(sent)s was sent for another caller too, so it says nothing, and this is a call of its own. "
        "Fill the parameter with the call's id in the platform's settings."
    ),
    "no_call_id_of_event": N_(
        "No call id was found: the event cannot be matched to a call. Send Ringostat's call id as uniqueid."
    ),
    "no_caller": N_("No caller's number was found: rules by caller cannot match. Send it as caller."),
    "no_dialed": N_("No dialed number was found: rules by dialed number cannot match. Send it as destination."),
    "unknown_answer": N_("The URL's answer=%(sent)s is unknown and was ignored; use one of %(known)s."),
    "bad_key": N_("The URL's key is not a valid name and was ignored; use up to 100 visible characters."),
    "no_event": N_("The event does not say what happened. Add event= to the URL, with one of %(known)s."),
    "placeholder": N_("%(place)s %(name)s is %(sent)s, a placeholder that the template did not fill in."),
    "not_a_number": N_("%(place)s %(name)s is %(sent)s: not a complete phone number. It was left out."),
    "not_an_event": N_("%(place)s %(name)s is %(sent)s: not an event that we know."),
    "not_a_disposition": N_("%(place)s %(name)s is %(sent)s: not a disposition that we know."),
    "not_seconds": N_("%(place)s %(name)s is %(sent)s: not a number of seconds."),
    "not_a_date": N_("%(place)s %(name)s is %(sent)s: not a date with its time zone."),
    "large_parameters": N_(
        "The parameters are more than %(n)s, or longer than %(chars)s characters each or %(all)s together; "
        "the rest was left out."
    ),
    "unnamed_parameters": N_(
        "Parameters came without names; they were read by place as %(names)s. Send an object with names instead."
    ),
    "many_parameters": N_("The %(place)s holds more than %(n)s parameters; the rest was left out."),
    "long_name": N_("The %(place)s holds a parameter name longer than %(n)s characters; it was left out."),
    "large_body": N_("The body is larger than %(n)s bytes; only its beginning was read."),
    "unreadable_body": N_(
        "The body (%(n)s bytes, Content-Type: %(label)s) is neither JSON nor a form; it was left out."
    ),
    "cut_off": N_("The value of %(name)s was cut off; it was left out."),
    "broken_json": N_("The body (%(n)s bytes) is broken JSON; its readable part was read."),
    "broken_json_cut": N_(
        "The body (%(n)s bytes) is broken JSON; its readable part was read. The value of %(name)s "
        "was cut off; it was left out."
    ),
    "batch": N_("The JSON-RPC batch holds %(n)s requests; the first was read."),
    "no_object": N_("The JSON is neither an object nor an array; it was left out."),
    "many_values": N_("The body holds more than %(n)s values; the rest was left out."),
    "bad_name": N_("The body holds a name that is empty or longer than %(n)s characters; it was left out."),
    "nested": N_("The body is nested deeper than %(n)s levels; the rest was left out."),
}
NOTES: Mapping[str, Text] = {code: Text(code, words) for code, words in _WORDS.items()}
"""By code. `place`: one of PLACES. `sent`: what came, as Python quotes it."""


def read_note(stored: Mapping[str, Any]) -> Message | None:
    """Return a note as Message.as_json wrote it, None for one that this release does not know."""
    values = dict(stored)
    text = NOTES.get(values.pop("code"))
    return None if text is None else Message(text, values)
