"""Read the requests of Ringostat's webhook number and event webhooks, and render the answers.

Its cabinet has separate settings for the format of requests (submission type) and of answers (data import type). So the
format of a request is detected, and the answer has the form that the project or the URL asks for. docs/hook.md is the
reference; help.ringostat.com 6475030, 6325129 and 6313229 are the sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from router.core.events import CallEvent, Disposition, EventKind, folded_word, parse_disposition
from router.hook.fields import ANSWERS, HookSettings, Question, is_key
from router.hook.wire import Found, RawRequest, Sent, find_fields, read_call, read_request, read_text

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

# ---- the question


def parse_call(raw: RawRequest, settings: HookSettings) -> Question:
    """Return the call that the platform asks about, and the form of the answer. Never raises, whatever the bytes."""
    sent = read_request(raw)
    found = find_fields(sent, settings.call_aliases)
    answer, key = _url_options(sent)
    ours = [name for name, value in (("answer", answer), ("key", key)) if value] if answer or key else ()
    call, understood = read_call(sent, found, settings, leave_out=ours)
    if call.call_id:
        sent.empty_id = ""
    else:
        if sent.empty_id:
            sent.note("empty_call_id", sent=repr(sent.empty_id))
        else:
            sent.note("no_call_id")
    if "caller" not in understood:
        sent.note("no_caller")
    if "dialed" not in understood:
        sent.note("no_dialed")
    return Question(
        call=call,
        form="json-rpc" if sent.rpc_id is not None else "json" if sent.is_json else "http",
        answer=answer,
        key=key,
        rpc_id=sent.rpc_id or b"null",
        is_batch=sent.is_batch,
        understood=understood,
        empty_id=sent.empty_id,
        problems=tuple(sent.problems),
    )


def _url_options(sent: Sent) -> tuple[str, str]:
    """Return `answer` and `key` of the URL; "" where they are missing or invalid."""
    if "answer" not in sent.query and "key" not in sent.query:
        return "", ""
    sent_answer, key = sent.query.get("answer", ""), sent.query.get("key", "")
    answer = sent_answer.strip().lower()
    if answer and answer not in ANSWERS:
        sent.note("unknown_answer", sent=sent_answer[:40], known=", ".join(ANSWERS))
        answer = ""
    if key and not is_key(key):
        sent.note("bad_key")
        key = ""
    return answer, key


# ---- the answer


def render_decision(destination: str, question: Question, settings: HookSettings) -> tuple[bytes, str]:
    """Return body and Content-Type of the answer with this destination ("": an empty answer on purpose)."""
    form = question.answer or settings.answer
    if form == "auto":
        form = question.form
    text = destination.encode("utf-8", "replace")
    if form == "http":
        return text, TEXT
    body = orjson.dumps({question.key or settings.key: text.decode()})
    if form == "json":
        return body, JSON
    if settings.rpc_result == "string":
        body = orjson.dumps(text.decode())
    reply = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (question.rpc_id, body)
    return (b"[%b]" % reply if question.is_batch else reply), JSON


# ---- the event

EVENT_KINDS: Mapping[str, EventKind] = {
    "before_call": EventKind.BEFORE_CALL,
    "before": EventKind.BEFORE_CALL,
    "forwarding": EventKind.FORWARDING,
    "ringing": EventKind.FORWARDING,
    "pickup": EventKind.PICKUP,
    "picked_up": EventKind.PICKUP,
    "answered": EventKind.PICKUP,
    "answer": EventKind.PICKUP,
    "connected": EventKind.PICKUP,
    "after_call": EventKind.AFTER_CALL,
    "after": EventKind.AFTER_CALL,
    "ended": EventKind.AFTER_CALL,
    "end": EventKind.AFTER_CALL,
    "hangup": EventKind.AFTER_CALL,
    "hung_up": EventKind.AFTER_CALL,
    "completed": EventKind.AFTER_CALL,
    "cancel": EventKind.AFTER_CALL,
    "finished": EventKind.AFTER_CALL,
    "disconnected": EventKind.AFTER_CALL,
    "unavailable": EventKind.UNAVAILABLE,
    "busy": EventKind.UNAVAILABLE,
    "declined": EventKind.UNAVAILABLE,
    "no_answer": EventKind.UNAVAILABLE,
}
_KINDS = {folded_word(word): kind for word, kind in EVENT_KINDS.items()}

_LONGEST_CALL = 7 * 24 * 3600  # seconds; a longer "duration" is a date or a mistake


def parse_event(raw: RawRequest, settings: HookSettings) -> CallEvent:
    """Return the event that the platform reports. Never raises, whatever the bytes: missing or invalid values stay
    unknown.
    """
    sent = read_request(raw)
    found = find_fields(sent, settings.event_aliases)
    call, understood = read_call(sent, found, settings)
    disposition = _read_disposition(found, sent)
    billsec, duration, waittime = (_read_seconds(name, found, sent) for name in ("billsec", "duration", "waittime"))
    sip_login = read_text("sip_login", found, understood)  # core/phones.py finds the phone of this name
    is_connected = "connected" in understood.get("sip_login", "").casefold()
    kind, word = _read_kind(found, sent)
    if kind is EventKind.UNKNOWN:
        kind = _infer_kind(sip_login, is_connected, disposition, max(billsec or 0, duration or 0))
    if kind in {EventKind.UNAVAILABLE, EventKind.AFTER_CALL} and not disposition:
        told = parse_disposition(word) or Disposition.UNKNOWN
        disposition = told if told.is_refusal or told is Disposition.CLIENT_NO_ANSWER else Disposition.UNKNOWN
    if not call.call_id:
        sent.note("no_call_id_of_event")
    if kind is EventKind.UNKNOWN:
        sent.note("no_event", known=", ".join(filter(None, EventKind)))
    return CallEvent(
        kind=kind,
        call_id=call.call_id,
        step=call.step,
        sip_login=sip_login,
        caller=call.caller,
        dialed=call.dialed,
        direction=call.direction,
        disposition=disposition,
        answered=_is_answered(kind, disposition),
        billsec=billsec,
        duration=duration,
        waittime=waittime,
        at=_read_instant(found, sent),
        params=call.params,
        problems=tuple(sent.problems),
    )


_OF_CALL = re.compile("^(?:on)?(?:call|channel)|complete$")


def _kind_of_result(word: str) -> EventKind | None:
    """Return the kind for a word that names a call's result instead of an event: CHANUNAVAIL, abandoned."""
    disposition = parse_disposition(word) or Disposition.UNKNOWN
    if disposition is Disposition.CLIENT_NO_ANSWER:
        return EventKind.AFTER_CALL
    return EventKind.UNAVAILABLE if disposition.is_refusal else None


def _read_kind(found: Found, sent: Sent) -> tuple[EventKind, str]:
    """Return the kind and the word of the first value that is known: the body may have an `event` beside the URL's."""
    candidates = found.get("event", ())
    for _, _, value, _ in candidates:
        folded = folded_word(value)
        for word in (folded, _OF_CALL.sub("", folded)):  # call.ended, CallEnded, CHANNEL_HANGUP
            if kind := _KINDS.get(word) or _kind_of_result(word):
                return kind, word
    for _, name, value, place in candidates:
        sent.note("not_an_event", place=place, name=name, sent=repr(value[:40]))
    return EventKind.UNKNOWN, ""


def _infer_kind(sip_login: str, is_connected: bool, disposition: Disposition, seconds: int) -> EventKind:
    """Return the kind of an event without a name, only where it is certain.

    A call with a duration and a result is over. With `connected_with` and no result yet, that agent talks. A login with
    BUSY did not take the call. No other combination is certain: `sip_login` and `login` may name a phone that rings,
    and a call in progress may show NO ANSWER and zero seconds.
    """
    if disposition.is_final and seconds > 0:
        return EventKind.AFTER_CALL
    if is_connected and disposition in {Disposition.UNKNOWN, Disposition.IN_PROGRESS} and seconds == 0:
        return EventKind.PICKUP
    if sip_login and disposition.is_refusal and disposition is not Disposition.NO_ANSWER:
        return EventKind.UNAVAILABLE
    return EventKind.UNKNOWN


def _is_answered(kind: EventKind, disposition: Disposition) -> bool | None:
    if kind is EventKind.PICKUP:
        return disposition is not Disposition.VOICEMAIL
    if kind is EventKind.AFTER_CALL and disposition.is_final:
        return disposition.is_answered
    return True if disposition.is_answered else None


def _read_disposition(found: Found, sent: Sent) -> Disposition:
    candidates = found.get("disposition", ())
    for _, _, value, _ in candidates:
        if disposition := parse_disposition(value):
            return disposition
    for _, name, value, place in candidates:
        if parse_disposition(value) is None:
            sent.note("not_a_disposition", place=place, name=name, sent=repr(value[:40]))
    return Disposition.UNKNOWN


def _read_seconds(field_name: str, found: Found, sent: Sent) -> int | None:
    for _, name, value, place in found.get(field_name, ()):
        text = value.strip()
        try:
            parts = [float(part) for part in text.split(":")] if len(text) <= 20 else []
        except ValueError:
            parts = []
        seconds = sum(part * 60**place for place, part in enumerate(reversed(parts)))
        if parts and len(parts) <= 3 and 0 <= seconds <= _LONGEST_CALL:
            return int(seconds)
        sent.note("not_seconds", place=place, name=name, sent=repr(text[:40]))
    return None


def _read_instant(found: Found, sent: Sent) -> datetime | None:
    for _, name, value, place in found.get("at", ()):
        if instant := _instant(value.strip()[:40]):
            return instant
        sent.note("not_a_date", place=place, name=name, sent=repr(value[:40]))
    return None


def _instant(text: str) -> datetime | None:
    """Parse 2019-06-02T09:30:47+0300, or seconds, milli-, micro- or nanoseconds since 1970. Return None for other
    texts, and for a date without a zone, which is ambiguous.
    """
    try:
        if text.isascii() and text.replace(".", "", 1).isdigit():
            seconds = float(text)
            while seconds > 1e11:
                seconds /= 1000
            return datetime.fromtimestamp(seconds, UTC) if seconds > 1e9 else None
        if text[-5:-4] == " " and text[-4:].isdigit():
            text = f"{text[:-5]}+{text[-4:]}"  # an unencoded plus sign became a space
        elif text[-6:-5] == " " and text[-3:-2] == ":" and ":" in text[:-6]:
            text = f"{text[:-6]}+{text[-5:]}"
        instant = datetime.fromisoformat(text)
        return instant.astimezone(UTC) if instant.tzinfo else None
    except (ValueError, OverflowError, OSError):
        return None
