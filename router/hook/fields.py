"""The fields of a call or event: the names that requests use for them, and a project's settings of its hook.

Customers choose the names in the platform's cabinet, so the tables hold all names ever seen, and a project can add
more. Knows no platform's answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from router.core.model import Call
from router.core.words import Message
from router.hook.auth import Network

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
TOO_COMMON = frozenset({"date", "from", "id", "login", "phone", "sip", "status", "time", "timestamp", "to", "uuid"})

# Headers of HTTP, browsers, proxies and clouds, and headers with secrets are never parameters of a call.
NOT_PARAMETERS = re.compile(
    r"""(age|allow|auth-key|authorization|baggage|cache-control|connection|cookie|date|dnt|etag|expect|expires|forwarded
    |from|host|keep-alive|last-modified|link|location|max-forwards|origin|pragma|prefer|priority|range|referer
    |referrer-policy|save-data|server|te|traceparent|tracestate|trailer|transfer-encoding|true-client-ip|upgrade
    |upgrade-insecure-requests|user-agent|vary|via|warning|www-authenticate|x-api-key|x-auth-token|x-client-ip
    |x-correlation-id|x-csrf-token|x-http-method-override|x-original-url|x-real-ip|x-request-id|x-request-start
    |x-requested-with|x-rewrite-url|x-scheme)$
    |accept|access-control-|cdn-|cf-|content-|fastly-|fly-|http2-|if-|ngrok-|proxy-|render-|rndr-|sec-|x-amz
    |x-appengine-|x-azure-|x-b3-|x-cloud-|x-envoy-|x-forwarded|x-heroku-|x-railway-|x-vercel-""",
    re.VERBOSE,
)
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "auth-key", "x-api-key", "x-auth-token"})

# ---- the project's settings

Hits = tuple[tuple[str, int], ...]
"""The fields that an alias can fill, each with the alias's rank in that field's list."""

AliasTable = Mapping[str, Hits]
"""The fields by folded alias."""

BUILT_IN = 1_000_000  # the lowest rank of a built-in alias; a project's aliases have lower ranks


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
    for first, fields in ((0, added), (BUILT_IN, built_in)):
        taken = frozenset(table)
        for name in built_in:
            for rank, alias in enumerate(fields.get(name, ()), first):
                if (folded := folded_name(alias)[0]) not in taken:
                    table.setdefault(folded, {}).setdefault(name, rank)
    return {alias: tuple(ranks.items()) for alias, ranks in table.items()}


@lru_cache(maxsize=4096)
def folded_name(name: str) -> tuple[str, str, int]:
    """Return the name in the form for comparison, its last part if it is nested, and its depth."""
    whole = name.casefold().replace("_", "").replace("-", "").replace(" ", "")
    return whole, whole.rpartition(".")[2], whole.count(".")


# ---- a request that was read


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
