"""Find the fields of a call or event among the values of a request, by tables of aliases.

Customers choose the names in the platform's cabinet, so the tables hold all names ever seen, and a project can add
more. Knows no platform's answers, no flask and no database. No request makes these functions raise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from router.core.model import Call
from router.core.unset import identifies_nothing, is_placeholder, is_unset, is_withheld
from router.core.words import Message
from router.hook.auth import Network
from router.hook.wire import Sent, one_line
from router.numbers import normalise_number, user_part

MAX_ID_CHARS = 190
MAX_PARAMS = 200
MAX_PARAM_CHARS = 2_000
MAX_PARAMS_CHARS = 16_384  # names and values of a call's parameters together: they are stored with every decision
MAX_KEY_CHARS = 100

ANSWERS = ("auto", "http", "json", "json-rpc")
RPC_RESULTS = ("object", "string")

# Earlier names are preferred to later ones; case, "_" and "-" do not matter. The first line of each field has
# Ringostat's names, from its articles and public code; the others come from other telephony software.
CALL_ALIASES: Mapping[str, tuple[str, ...]] = {
    "call_id": ("uniqueid", "call_id", "cdr_id", "uuid", "id", "call_uuid", "call_sid", "linkedid", "call.id"),
    "caller": (
        *("userfield", "E164", "caller", "caller_number", "callers_number", "caller_id", "client_number"),
        *("caller_phone", "client_phone", "calling_number", "cli", "ani", "src", "phone", "from", "call.from"),
    ),
    "dialed": (
        *("dst", "destination", "callee", "called_id"),
        *("dialed", "dialed_number", "called", "called_number", "did", "dnis", "to", "call.to"),
    ),
    "direction": ("call_type", "direction"),
    "step": ("step_forward", "step"),
}

EVENT_ALIASES: Mapping[str, tuple[str, ...]] = {
    "event": ("event", "event_type", "event_name", "call_event"),
    "sip_login": ("connected_with", "sip_login", "sip", "login"),
    "disposition": ("disposition", "call_status", "status", "dialstatus", "hangup_cause"),
    "billsec": ("billsec", "talk_time"),
    "duration": ("duration", "call_duration"),
    "waittime": ("waittime", "wait_time"),
    "at": ("calldate", "call_date", "event_time", "event_at", "start_time", "timestamp", "date", "time"),
}

FIELD_NAMES = (*CALL_ALIASES, *EVENT_ALIASES)
"""The fields that `hook.fields` of the configuration may give more aliases."""

# Not used in nested data (a client's id is not a call id) and in headers, unless the project adds them.
_TOO_COMMON = frozenset({"date", "from", "id", "login", "phone", "sip", "status", "time", "timestamp", "to", "uuid"})

# ---- the project's settings

Hits = tuple[tuple[str, int], ...]
"""The fields that an alias can fill, each with the alias's rank in that field's list."""

AliasTable = Mapping[str, Hits]
"""The fields by folded alias."""

_BUILT_IN = 1_000_000  # the lowest rank of a built-in alias; a project's aliases have lower ranks


class HookSettingsError(ValueError):
    """An invalid setting. `name`: its key under `hook` in the YAML."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"hook.{name}: {message}")
        self.name = name


@dataclass(frozen=True, slots=True)
class HookSettings:
    """The `hook` part of a project's YAML, and its country. Raises HookSettingsError for invalid values."""

    answer: str = "auto"
    key: str = "destination"
    rpc_result: str = "object"
    retry_seconds: float = 5
    allow_addresses: tuple[Network, ...] = ()
    basic_auth: str | None = field(default=None, repr=False)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    country: str = "UA"
    call_aliases: AliasTable = field(init=False, repr=False, compare=False)
    event_aliases: AliasTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value, known in (("answer", self.answer, ANSWERS), ("rpc_result", self.rpc_result, RPC_RESULTS)):
            if value not in known:
                raise HookSettingsError(name, f"{value!r} is unknown; use one of {', '.join(known)}")
        if not is_key(self.key):
            raise HookSettingsError(
                "key", f"{self.key[:40]!r} is not a valid name; use 1 to {MAX_KEY_CHARS} visible characters"
            )
        for name in self.fields.keys() - set(FIELD_NAMES):
            raise HookSettingsError("fields", f"{name!r} is not a field of a call; use one of {', '.join(FIELD_NAMES)}")
        object.__setattr__(self, "call_aliases", _alias_table(CALL_ALIASES, self.fields))
        object.__setattr__(self, "event_aliases", _alias_table({**CALL_ALIASES, **EVENT_ALIASES}, self.fields))


def is_key(text: str) -> bool:
    """Return whether this can be the name of the destination in a JSON answer."""
    return 0 < len(text) <= MAX_KEY_CHARS and text.isprintable() and bool(text.strip())


def _alias_table(built_in: Mapping[str, tuple[str, ...]], added: Mapping[str, tuple[str, ...]]) -> AliasTable:
    """Return the table. A project's alias loses its built-in meaning: with `caller: [id]`, `id` is not the call id."""
    table: dict[str, dict[str, int]] = {}
    for first, fields in ((0, added), (_BUILT_IN, built_in)):
        taken = frozenset(table)
        for name in built_in:
            for rank, alias in enumerate(fields.get(name, ()), first):
                if (folded := _fold(alias)[0]) not in taken:
                    table.setdefault(folded, {}).setdefault(name, rank)
    return {alias: tuple(ranks.items()) for alias, ranks in table.items()}


@lru_cache(maxsize=4096)
def _fold(name: str) -> tuple[str, str, int]:
    """Return the name in the form for comparison, its last part if it is nested, and its depth."""
    whole = name.casefold().replace("_", "").replace("-", "").replace(" ", "")
    return whole, whole.rpartition(".")[2], whole.count(".")


# ---- reading the fields


class Question(NamedTuple):
    """A hook request after reading.

    `form`: the answer form that `auto` stands for: json-rpc, json or http. `answer`, `key`: those in the URL, else "".
    `rpc_id`: the JSON text of the JSON-RPC id. `is_batch`: the request was in an array. `understood`: where each field
    was read, as "query userfield". `empty_id`: a call id that identifies no call. `problems`: notes for an admin.
    """

    call: Call
    form: str = "http"
    answer: str = ""
    key: str = ""
    rpc_id: bytes = b"null"
    is_batch: bool = False
    understood: Mapping[str, str] = MappingProxyType({})
    empty_id: str = ""
    problems: tuple[Message, ...] = ()


Candidate = tuple[int, str, str, str]
"""A value found by an alias: rank, name as sent, value, place. Sorts best first."""

Found = Mapping[str, list[Candidate]]
"""The candidates of each field, best first."""


def find_fields(sent: Sent, aliases: AliasTable) -> Found:
    """Return the values of each field, best first, without unset ones.

    Preferred in this order: the project's aliases to built-in ones; the body to the query, and that to the headers; the
    root to nested data; an earlier alias to a later one.
    """
    found: dict[str, list[Candidate]] = {}
    for offset, (place, named) in enumerate((("body", sent.body), ("query", sent.query), ("header", sent.headers))):
        for name, value in named.items():
            whole, last, depth = _fold(name)
            hits = aliases.get(whole)
            if depth or place == "header":
                hits = hits or aliases.get(last)
                if hits and last in _TOO_COMMON and not whole.startswith("call."):
                    hits = tuple(hit for hit in hits if hit[1] < _BUILT_IN)
            if not hits:
                continue
            is_id = any(field_name == "call_id" for field_name, _ in hits)
            if identifies_nothing(value) if is_id else is_unset(value):
                sent.empty_id = (is_id and one_line(value).strip()[:80]) or sent.empty_id
                if is_placeholder(value.strip()):
                    sent.note("placeholder", place=place, name=name, sent=value[:40])
                continue
            for field_name, rank in hits:
                candidate = (rank + 100_000 * offset + 1_000 * min(depth, 9), name, value, place)
                found.setdefault(field_name, []).append(candidate)
    for candidates in found.values():
        candidates.sort()
    return found


def read_call(
    sent: Sent, found: Found, settings: HookSettings, leave_out: Collection[str] = ()
) -> tuple[Call, dict[str, str]]:
    """Return the call, and where each field was read. `leave_out`: query parameters that do not belong to the call."""
    understood: dict[str, str] = {}
    direction = read_text("direction", found, understood).casefold()
    call = Call(
        call_id=read_text("call_id", found, understood),
        step=read_text("step", found, understood),
        caller=_read_number("caller", found, understood, settings.country, sent),
        dialed=_read_number("dialed", found, understood, settings.country, sent),
        direction=_DIRECTIONS.get(direction, direction),
        params=_gather_params(sent, found, leave_out),
    )
    return call, understood


_DIRECTIONS = {"incoming": "in", "inbound": "in", "outgoing": "out", "outbound": "out"}


def read_text(name: str, found: Found, understood: dict[str, str]) -> str:
    """Return the field's best value as an opaque id, in one line and of bounded length; "" when there is none."""
    for _, sent_name, value, place in found.get(name, ()):
        text = one_line(value[:4096]).strip()
        if len(text) > MAX_ID_CHARS:  # cut, with a hash so that different ids stay different
            digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:32]
            text = f"{text[: MAX_ID_CHARS - 33]}~{digest}"
        if text == value or not is_unset(text):
            understood[name] = f"{place} {sent_name}"
            return text
    return ""


def _read_number(name: str, found: Found, understood: dict[str, str], country: str, sent: Sent) -> str:
    """Return the field's first value that is a number, else its first value (a SIP login; "" for a withheld number)."""
    best = ""
    for _, sent_name, value, place in found.get(name, ()):
        number = normalise_number(value, country)
        if name == "caller":
            number = number if number.strip("0") else ""
        if not number and value.strip("+0 ") and not is_withheld(user_part(value) or "a host"):
            sent.note("not_a_number", place=place, name=sent_name, sent=repr(value[:40]))
        if number.isdigit() or name not in understood:
            best, understood[name] = number, f"{place} {sent_name}"
        if number.isdigit():
            break
    return best


def _gather_params(sent: Sent, found: Found, leave_out: Collection[str]) -> dict[str, str]:
    """Return all values by name: those of the body, then of the query, then of the headers.

    Only as many as may be stored with a decision; values that were read as a field come first.
    """
    params = dict(sent.body)
    query = ((name, value) for name, value in sent.query.items() if name not in leave_out)
    for name, value in chain(query, sent.headers.items()):
        if name not in params or (is_unset(params[name]) and not is_unset(value)):
            params[name] = value
    if len(params) <= MAX_PARAMS and sum(map(len, params)) + sum(map(len, params.values())) <= MAX_PARAMS_CHARS:
        return params
    needed = {candidate[1] for candidates in found.values() for candidate in candidates}
    kept: dict[str, str] = {}
    room = MAX_PARAMS_CHARS
    for name in sorted(params, key=lambda name: name not in needed):
        value = params[name][:MAX_PARAM_CHARS]
        if len(kept) < MAX_PARAMS and len(name) + len(value) <= room:
            kept[name] = value
            room -= len(name) + len(value)
    sent.note("large_parameters", n=MAX_PARAMS, chars=MAX_PARAM_CHARS, all=MAX_PARAMS_CHARS)
    return kept
