"""A request's bytes → names and values, whatever the submission type and however it is labelled.

Knows neither flask nor any field of a call, and never raises: what cannot be read is left out and named in `problems`.
The PBX waits while this runs, so the common case (a short query of ASCII text) takes plain splits and no regex.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import orjson

from router.core import rules

MAX_BODY_BYTES = 65_536
MAX_VALUES = 1_000  # per place; more is an attack or a mistake, and the time to read is the caller's time to wait
MAX_NAME_CHARS = 200
MAX_DEPTH = 8

# What marketing and telephony systems, and templates gone wrong, send when they have nothing to say. "null" must not
# count as a call id: all calls of the project would be one call.
UNSET = rules.UNSET | {"null", "none", "nil", "undefined", "nan"}

POSITIONS = ("call_id", "caller", "dialed", "step")
"""What parameters without names mean, by place, in a JSON-RPC request whose `params` is an array of plain values."""

# Headers of HTTP itself, of browsers, proxies and clouds, and those that carry secrets: never parameters of a call.
_NOT_PARAMETERS = frozenset(
    {
        *("age", "allow", "auth-key", "authorization", "baggage", "cache-control", "connection", "cookie", "date"),
        *("dnt", "etag", "expect", "expires", "forwarded", "from", "host", "keep-alive", "last-modified", "link"),
        *("location", "max-forwards", "origin", "pragma", "prefer", "priority", "range", "referer"),
        *("referrer-policy", "save-data", "server", "te", "traceparent", "tracestate", "trailer"),
        *("transfer-encoding", "true-client-ip", "upgrade", "upgrade-insecure-requests", "user-agent", "vary"),
        *("via", "warning", "www-authenticate", "x-api-key", "x-auth-token", "x-client-ip", "x-correlation-id"),
        *("x-csrf-token", "x-http-method-override", "x-original-url", "x-real-ip", "x-request-id"),
        *("x-request-start", "x-requested-with", "x-rewrite-url", "x-scheme"),
    }
)
_NOT_PARAMETERS_PREFIXES = (
    *("accept", "access-control-", "cdn-", "cf-", "content-", "fastly-", "fly-", "http2-", "if-", "ngrok-", "proxy-"),
    *("render-", "rndr-", "sec-", "x-amz", "x-appengine-", "x-azure-", "x-b3-", "x-cloud-", "x-envoy-", "x-forwarded"),
    *("x-heroku-", "x-railway-", "x-vercel-"),
)
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "auth-key", "x-api-key", "x-auth-token"})


class RawRequest(NamedTuple):
    """One request as it came. `query` is what follows `?`, undecoded; `headers` by name, in any case, `-` or `_`."""

    method: str = "GET"
    query: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    content_type: str = ""
    body: bytes = b""

    @classmethod
    def from_environ(cls, environ: Mapping[str, object], body: bytes) -> RawRequest:
        """The request of a WSGI server, whose text is bytes read as latin-1 (PEP 3333)."""
        return cls(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("QUERY_STRING", "")).encode("latin-1", "replace"),
            {name[5:]: value for name, value in environ.items() if name[:5] == "HTTP_" and isinstance(value, str)},
            str(environ.get("CONTENT_TYPE", "")),
            body,
        )

    def without_secrets(self) -> RawRequest:
        """The same, fit to be stored and shown: headers that hold credentials keep their name alone."""
        return self._replace(
            headers={
                name: "***" if name.lower().replace("_", "-") in _SECRET_HEADERS else value
                for name, value in self.headers.items()
            }
        )


@dataclass(slots=True)
class Sent:
    """What a request holds: values by name for each place, nested names joined by dots, values as text.

    `is_json`: the body is JSON, or was meant to be. `rpc_id`: the JSON text of a JSON-RPC request's id ("null" when it
    has none), None when it is no JSON-RPC request. `problems`: what could not be read, for an admin.
    """

    body: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    is_json: bool = False
    rpc_id: bytes | None = None
    is_batch: bool = False
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def read_request(raw: RawRequest) -> Sent:
    """All names and values of the request. Method and labels do not matter: what is there is read."""
    sent = Sent()
    if raw.query:
        sent.query = _read_form(raw.query, "query", sent)
        _open_nested(sent.query, sent)
    if raw.headers:
        sent.headers = _read_headers(raw.headers)
    if raw.body:
        _read_body(raw.body, raw.content_type.lower(), sent)
        _open_nested(sent.body, sent)
    return sent


# ---- text


def is_unset(value: str) -> bool:
    """Does this value say nothing? Markers such as -1 and (not set), and placeholders that nobody filled in."""
    text = value.strip()
    if len(text) < 10 and text.lower() in UNSET:
        return True
    return text[:1] in "{$" and is_placeholder(text)


def is_placeholder(text: str) -> bool:
    """A template's variable instead of its value: {call_id}, {{call_id}}, ${call_id}."""
    return text.startswith(("{", "${")) and text.endswith("}") and text.strip("${} ").replace("_", "").isalnum()


def one_line(text: str) -> str:
    """Without control and invisible characters, lone surrogates and line breaks: fit for an id, a log, a database."""
    if text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})


_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _clean(text: str) -> str:
    """As sent, but for what no database or UTF-8 answer can hold and what would drive a terminal that shows it."""
    if text.isprintable():
        return text
    return _UNFIT.sub("", text)


def _decode(raw: bytes) -> str:
    """UTF-8, else the Windows Cyrillic that older PBX and CRM software sends; bytes of neither become U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1251", "replace")


def _unquote(text: str) -> str:
    """Percent-decoded once; unchanged where the escapes do not make text."""
    raw = unquote_to_bytes(text.encode("utf-8", "replace"))
    return _decode(raw) if text.isascii() else raw.decode("utf-8", "replace")


# ---- query and form


def _read_form(data: bytes, place: str, sent: Sent) -> dict[str, str]:
    """`a=1&b=2`, percent-encoded or raw, with PHP's nested names. Also JSON-RPC over GET, whose params are JSON."""
    named: dict[str, str] = {}
    charset = "utf-8"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode(
            charset := "latin-1"
        )  # bytes kept as they are, for each value may be in a charset of its own
    is_plain = charset == "utf-8" and text.isprintable()
    parts = text.replace("+", " ").split("&", MAX_VALUES)
    if len(parts) > MAX_VALUES:
        sent.note(f"The {place} holds more than {MAX_VALUES} parameters; the rest was left out.")
        parts.pop()
    for part in parts:
        raw_name, _, value = part.partition("=")
        if len(raw_name) > MAX_NAME_CHARS:
            sent.note(f"The {place} holds a parameter name longer than {MAX_NAME_CHARS} characters; it was left out.")
            continue
        name = _form_name(raw_name, charset)
        if not is_plain or "%" in value:
            value = _clean(_decode(unquote_to_bytes(value.encode(charset))))
        if name in named:
            _keep(named, name, value)
        elif name:
            named[name] = value
    return _read_rpc_form(named, sent) if "jsonrpc" in named else named


@lru_cache(maxsize=1024)
def _form_name(raw: str, charset: str = "utf-8") -> str:
    """a[b][c], as PHP writes nested data into forms, is a.b.c."""
    name = one_line(_decode(unquote_to_bytes(raw.encode(charset)))).strip()
    if name.endswith("]") and "[" in name[1:] and "[]" not in name:
        name = name[:-1].replace("][", ".").replace("[", ".")
    return name


def _keep(named: dict[str, str], name: str, value: str) -> None:
    """Of a name sent twice, the last value that says something counts, as it does in JSON."""
    if name not in named or not is_unset(value):
        named[name] = value


def _open_nested(named: dict[str, str], sent: Sent) -> None:
    """Values that are JSON objects themselves are opened: additional_call_data={"caller":…}."""
    for name, value in tuple(named.items()):
        if value[:1] == "{" and value[-1:] == "}" and not is_placeholder(value):
            inner = _load_json(value.encode("utf-8", "replace"), exact=True)
            if isinstance(inner, dict):
                _flatten(inner, named, sent, prefix=f"{name}.", depth=1)


def _read_rpc_form(named: dict[str, str], sent: Sent) -> dict[str, str]:
    """JSON-RPC spread over a query or form: id=1&method=route&params={…}."""
    request: dict[str, object] = {name.removeprefix("params."): value for name, value in named.items()}
    for name in ("id", "params"):
        text = named.get(name, "")
        value = _load_json(text.encode("utf-8", "replace"), exact=True) if text else None
        request[name] = text if value is _UNREADABLE else value
    return _read_rpc(request, sent)


# ---- headers


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for raw_name, raw_value in headers.items():
        name = _header_name(raw_name[:MAX_NAME_CHARS])
        if not name or len(named) >= MAX_VALUES:
            continue
        # WSGI shows bytes as latin-1; what is not in it (a test's own text) is text already.
        is_bytes = not raw_value.isascii() and max(raw_value) < "\u0100"
        value = _decode(raw_value.encode("latin-1")) if is_bytes else raw_value
        _keep(named, name, _clean(_unquote(value) if "%" in value else value))
    return named


@lru_cache(maxsize=1024)
def _header_name(raw: str) -> str:
    """X-Step-Forward and STEP_FORWARD are step_forward: headers keep neither case nor, behind proxies, underscores."""
    name = one_line(_unquote(raw) if "%" in raw else raw).strip().lower().replace("_", "-")
    if name in _NOT_PARAMETERS or name.startswith(_NOT_PARAMETERS_PREFIXES):
        return ""
    return name.removeprefix("x-").replace("-", "_")


# ---- body


def _read_body(body: bytes, content_type: str, sent: Sent) -> None:
    is_cut = len(body) > MAX_BODY_BYTES
    if is_cut:
        body = body[:MAX_BODY_BYTES]
        sent.note(f"The body is larger than {MAX_BODY_BYTES} bytes; only its beginning was read.")
    if content_type.startswith("multipart/"):
        sent.body = _read_multipart(body)
        if sent.body:
            return
    body = _as_utf8(body).strip()
    if not body:
        return
    first = body[:1]
    is_labelled_json = "json" in content_type
    if (first in b'{["' or is_labelled_json) and _read_json(body, sent):
        return
    if first in b"{[" or body[:3].upper() in {b"%7B", b"%5B"}:
        # A library that was told "form" sends the JSON text as the name of one parameter without value.
        whole = unquote_to_bytes(body.replace(b"+", b" ")).strip()
        if _read_json(whole.removesuffix(b"="), sent) or _read_json(whole, sent):
            return
    if first in b"{[":
        _read_broken_json(body, sent)
    elif b"=" in body and first != b"<":
        sent.body = _read_form(body.rpartition(b"&")[0] if is_cut else body, "body", sent)
    else:
        sent.is_json = is_labelled_json
        label = one_line(content_type)[:100] or "none"
        sent.note(f"The body ({len(body)} bytes, Content-Type: {label}) is neither JSON nor a form; it was left out.")


def _as_utf8(body: bytes) -> bytes:
    """Without byte order mark, and out of UTF-16, which shows by its mark or by the zero beside the first letter."""
    if body.startswith(b"\xef\xbb\xbf"):
        return body[3:]
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace").encode("utf-8", "replace")
    if len(body) > 3 and (body[0] == 0) != (body[1] == 0) and body.count(0) * 3 > len(body):
        return body.decode("utf-16-be" if body[0] == 0 else "utf-16-le", "replace").encode("utf-8", "replace")
    return body


_PART_NAME = re.compile(rb';\s*name\s*=\s*(?:"([^"\r\n]*)"|([^\s;"]+))', re.IGNORECASE)


def _read_multipart(body: bytes) -> dict[str, str]:
    """multipart/form-data. The boundary is taken from the body itself: labels may be wrong, the first line is not."""
    boundary, _, _ = body.lstrip().partition(b"\n")
    boundary = boundary.strip()
    named: dict[str, str] = {}
    if not boundary.startswith(b"--"):
        return named
    for part in body.split(boundary, MAX_VALUES)[1:]:
        head, _, value = part.replace(b"\r\n", b"\n").partition(b"\n\n")
        match = _PART_NAME.search(head)
        if match:
            name = _form_name(
                (match[1] or match[2] or b"")[:MAX_NAME_CHARS].replace(b"%", b"%25").decode("latin-1"), "latin-1"
            )
            if name:
                _keep(named, name, _clean(_decode(value.removesuffix(b"\n"))))
    return named


# ---- JSON


class _NumberText(str):
    """A JSON number in its own digits."""

    __slots__ = ()


class _ExactNeededError(Exception):
    """A float turned up: its digits are lost, and as an id they matter. Read again with the numbers as text."""


_UNREADABLE = object()


def _load_json(data: bytes, *, exact: bool = False) -> object:
    """The value, or _UNREADABLE. The fast reader first; the patient one knows NaN, cp1251, raw controls, surrogates."""
    if not exact:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    try:
        return json.loads(
            _decode(data), strict=False, parse_float=_NumberText, parse_int=_NumberText, parse_constant=str
        )
    except (ValueError, RecursionError):
        return _UNREADABLE


def _read_json(data: bytes, sent: Sent) -> bool:
    """Read the body as JSON; False when it is none."""
    value = _load_json(data)
    if value is _UNREADABLE:
        return False
    sent.is_json = True
    try:
        sent.body = _read_value(value, sent)
    except _ExactNeededError:
        sent.body = _read_value(_load_json(data, exact=True), sent)
    return True


def _read_value(value: object, sent: Sent) -> dict[str, str]:
    if isinstance(value, dict):
        return _read_rpc(value, sent) if _is_rpc(value) else _flattened(value, sent)
    if isinstance(value, list):
        if value and isinstance(value[0], dict) and _is_rpc(value[0]):
            sent.is_batch = True
            if len(value) > 1:
                sent.note(f"The JSON-RPC batch holds {len(value)} requests; the first was read.")
            return _read_rpc(value[0], sent)
        return _read_array(value, sent)
    if type(value) is str:
        inner = value.encode("utf-8", "replace").strip()
        again = _load_json(inner, exact=True)  # JSON within a JSON string
        if isinstance(again, dict | list):
            return _read_value(again, sent)
        if b"=" in inner:
            return _read_form(inner, "body", sent)
    sent.note("The JSON body is not an object with names; it was left out.")
    return {}


_BROKEN_PAIR = re.compile(r'"([^"\\]{1,200})"\s*:\s*(?:("(?:[^"\\]|\\.){0,4000}")|(-?\d+(?:\.\d+)?))')


def _read_broken_json(body: bytes, sent: Sent) -> None:
    """Cut off, with a comma too many, …: the call is routed with the names and plain values that can be made out."""
    sent.is_json = True
    sent.note(f"The body ({len(body)} bytes) is broken JSON; what could be made out of it was read.")
    found: dict[str, object] = {}
    for match in islice(_BROKEN_PAIR.finditer(_decode(body)), MAX_VALUES):
        name, text, number = match.groups()
        value = _load_json((text or number).encode("utf-8", "replace"), exact=True)
        if value is not _UNREADABLE:
            found.setdefault(name, value)
    sent.body = _read_rpc(found, sent) if "jsonrpc" in found else _flattened(found, sent)


def _is_rpc(value: Mapping[str, object]) -> bool:
    return "jsonrpc" in value or ("method" in value and "params" in value)


def _read_rpc(request: Mapping[str, object], sent: Sent) -> dict[str, str]:
    """A JSON-RPC request. Its id numbers requests, not calls: it is echoed and is no parameter."""
    sent.rpc_id = _id_text(request.get("id"))
    params = request.get("params")
    if isinstance(params, dict):
        named = _flattened(params, sent)
    elif isinstance(params, list):
        named = _read_array(params, sent)
    else:
        named = {}
        if params is not None:
            sent.note("The JSON-RPC request's params is neither an object nor an array; it was left out.")
    beside = {name: value for name, value in request.items() if name not in {"jsonrpc", "id", "method", "params"}}
    if beside:
        for name, text in _flattened(beside, sent).items():
            named.setdefault(name, text)
    return named


def _id_text(value: object) -> bytes:
    if isinstance(value, _NumberText):
        return value.encode()
    if type(value) is float:
        raise _ExactNeededError
    try:
        return orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):  # lone surrogates, depth: no valid JSON could echo them
        return b"null"


def _read_array(items: Iterable[object], sent: Sent) -> dict[str, str]:
    """An array of objects (merged), of pairs ([name, value] or {"name":…, "value":…}), or of plain values by place."""
    named: dict[str, str] = {}
    plain = 0
    for item in items:
        pair = _pair(item)
        if pair is not None:
            _flatten({pair[0]: pair[1]}, named, sent)
        elif isinstance(item, dict):
            _flatten(item, named, sent)
        else:
            name = POSITIONS[plain] if plain < len(POSITIONS) else str(plain)
            plain += 1
            _flatten({name: item}, named, sent)
        if len(named) >= MAX_VALUES:
            break
    if plain:
        sent.note(
            f"Parameters came without names; they were read by place as {', '.join(POSITIONS)}. "
            "Send an object with names instead."
        )
    return named


def _pair(item: object) -> tuple[str, object] | None:
    if isinstance(item, list) and len(item) == 2 and type(item[0]) is str:
        return item[0], item[1]
    if isinstance(item, dict) and len(item) == 2 and "value" in item:
        name = item.get("name", item.get("key"))
        if type(name) is str:
            return name, item["value"]
    return None


def _flattened(node: Mapping[str, object], sent: Sent) -> dict[str, str]:
    named: dict[str, str] = {}
    _flatten(node, named, sent)
    return named


def _flatten(
    node: Mapping[str, object] | list[object], named: dict[str, str], sent: Sent, prefix: str = "", depth: int = 0
) -> None:
    """Put the node's values into `named`. Text is percent-decoded once: Ringostat encodes values inside JSON too."""
    items = node.items() if isinstance(node, Mapping) else ((str(place), item) for place, item in enumerate(node))
    for key, value in items:
        if len(named) >= MAX_VALUES:
            sent.note(f"The body holds more than {MAX_VALUES} values; the rest was left out.")
            return
        name = prefix + key
        if not name.isprintable():
            name = one_line(name)
        if not name or len(name) > MAX_NAME_CHARS:
            sent.note(
                f"The body holds a name that is empty or longer than {MAX_NAME_CHARS} characters; it was left out."
            )
            continue
        if type(value) is str:
            text = value
        elif isinstance(value, dict | list):
            if depth + 1 < MAX_DEPTH:
                _flatten(value, named, sent, f"{name}.", depth + 1)
            else:
                sent.note(f"The body is nested deeper than {MAX_DEPTH} levels; what is beyond was left out.")
            continue
        else:
            text = _plain_text(value)
        if "%" in text:
            text = _unquote(text)
        _keep(named, name, _clean(text))


def _plain_text(value: object) -> str:
    """null as the empty text that forms send for it, numbers in their own digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        raise _ExactNeededError
    return str(value)
