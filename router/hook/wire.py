"""Read the bytes of a request as names and values, whatever their format and Content-Type, and find the fields of a
call among them.

Knows no platform. Never raises: unreadable parts are left out and named in `problems`.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import orjson
from werkzeug.http import parse_options_header

from router.core.model import Call
from router.core.notes import NOTES
from router.core.words import Message
from router.hook.fields import (
    BUILT_IN,
    NOT_PARAMETERS,
    SECRET_HEADERS,
    TOO_COMMON,
    AliasTable,
    HookSettings,
    folded_name,
)
from router.numbers import identifies_nothing, is_placeholder, is_unset, is_withheld, normalise_number, user_part

MAX_BODY_BYTES = 65_536
MAX_VALUES = 1_000  # per place; more is an attack or a mistake, and reading them would delay the caller
MAX_NAME_CHARS = 200
MAX_DEPTH = 8
MAX_ID_CHARS = 190
MAX_PARAMS = 200
MAX_PARAM_CHARS = 2_000
MAX_PARAMS_CHARS = 16_384  # names and values of a call's parameters together: they are stored with every decision

POSITIONS = ("call_id", "caller", "dialed", "step")
"""Names for the values of a JSON-RPC request whose `params` is an array of plain values."""


class RawRequest(NamedTuple):
    """A request as received. `query`: the bytes after `?`; `headers`: by name, in any case, with `-` or `_`."""

    method: str = "GET"
    query: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    content_type: str = ""
    body: bytes = b""
    is_cut: bool = False  # the body is shorter than announced

    @classmethod
    def from_environ(cls, environ: Mapping[str, object], body: bytes) -> RawRequest:
        """Return the request from a WSGI environment, which holds bytes decoded as latin-1 (PEP 3333)."""
        return cls(
            str(environ.get("REQUEST_METHOD", "")),
            str(environ.get("QUERY_STRING", "")).encode("latin-1", "replace"),
            {name[5:]: value for name, value in environ.items() if name[:5] == "HTTP_" and isinstance(value, str)},
            str(environ.get("CONTENT_TYPE", "")),
            body,
        )

    def without_secrets(self) -> RawRequest:
        """Return the request with credentials in headers masked, so that it can be stored and shown."""
        secret = {name for name in self.headers if name.lower().replace("_", "-") in SECRET_HEADERS}
        return self._replace(headers={**self.headers, **dict.fromkeys(secret, "***")})


@dataclass(slots=True)
class Sent:
    """The values of a request as text, by name, for each place. Nested names are joined by dots.

    `is_json`: the body is JSON, perhaps broken. `rpc_id`: the JSON text of a JSON-RPC request's id ("null" when it has
    none), None for other requests. `empty_id`: a call id that identifies no call. `problems`: what could not be read,
    as notes for an admin.
    """

    body: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    is_json: bool = False
    rpc_id: bytes | None = None
    is_batch: bool = False
    empty_id: str = ""
    problems: list[Message] = field(default_factory=list)

    def note(self, code: str, **values: Any) -> None:
        """Add a note for an admin, once."""
        if (problem := Message(NOTES[code], values)) not in self.problems:
            self.problems.append(problem)


def read_request(raw: RawRequest) -> Sent:
    """Return all names and values of the request, whatever its method and Content-Type are."""
    sent = Sent()
    if raw.query:
        sent.query = _read_form(raw.query, "query", sent)
        _open_nested(sent.query, sent)
    if raw.headers:
        sent.headers = _read_headers(raw.headers)
    if raw.body:
        body, is_cut = unpacked(raw)
        _read_body(body, raw.content_type.lower(), sent, is_cut=is_cut)
        _open_nested(sent.body, sent)
    return sent


# ---- text


def one_line(text: str) -> str:
    """Return the text without control and invisible characters, lone surrogates and line breaks."""
    if text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})


def _decode(raw: bytes) -> str:
    """Decode UTF-8, else the Windows Cyrillic of older PBX and CRM software; bytes of neither become U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1251", "replace")


# A template variable such as %CALLID% looks like an escape if its name begins with two hexadecimal digits.
_VARIABLE = re.compile(rb"%([A-Za-z_]\w{2,})%(?![0-9A-Fa-f]{2})")


def _unquote_bytes(raw: bytes) -> bytes:
    """Decode percent escapes once. Template variables such as %CALLID% are kept."""
    return unquote_to_bytes(_VARIABLE.sub(rb"%25\1%25", raw)) if b"%" in raw else raw


def _unquote(text: str) -> str:
    """Decode percent escapes once."""
    raw = _unquote_bytes(text.encode("utf-8", "replace"))
    return _decode(raw) if text.isascii() else raw.decode("utf-8", "replace")


# ---- query and form


def _read_form(data: bytes, place: str, sent: Sent) -> dict[str, str]:
    """Read `a=1&b=2`, percent-encoded or raw, with PHP's nested names; also JSON-RPC over GET, whose params are JSON.

    The values may have different charsets, so bytes are decoded last.
    """
    named: dict[str, str] = {}
    parts = data.split(b"&")
    if b"?" in data and place == "query":  # parameters were added to a URL that already had some
        parts = b"&".join(part if _PAGE.match(part) else _SECOND_QUERY.sub(b"&", part) for part in parts).split(b"&")
    parts = [part for part in parts if part]
    if len(parts) > MAX_VALUES:
        sent.note("many_parameters", place=place, n=MAX_VALUES)
    for part in parts[:MAX_VALUES]:
        raw_name, _, value = (_unquote_bytes(half.replace(b"+", b" ")) for half in part.partition(b"="))
        if len(raw_name) > MAX_NAME_CHARS:
            sent.note("long_name", place=place, n=MAX_NAME_CHARS)
        elif name := _form_name(raw_name):
            _keep(named, name, _decode(value))
    return _read_rpc_form(named, sent) if "jsonrpc" in named else named


_SECOND_QUERY = re.compile(rb"\?(?=[\w.\[\]\x80-\xff-]+=)")
_PAGE = re.compile(rb"[^?]*?(/|%2f)", re.IGNORECASE)  # a value may hold the URL of a page, unescaped


@lru_cache(maxsize=1024)
def _form_name(raw: bytes) -> str:
    """Return the parameter's name. a[b][c], PHP's notation of nested data, becomes a.b.c."""
    name = one_line(_decode(raw)).strip().removeprefix("amp;")  # from a URL copied out of an HTML page
    for only in ("[]", "[0]"):
        name = name.removesuffix(only) or name
    if name.endswith("]") and "[" in name[1:] and "[]" not in name:
        name = name[:-1].replace("][", ".").replace("[", ".")
    return name


# What neither a database nor UTF-8 can hold, and what would control a terminal.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _keep(named: dict[str, str], name: str, text: str) -> None:
    """Store the value. For a name that was sent twice, the last value that is not unset counts, as in JSON."""
    value = text if text.isprintable() else _UNFIT.sub("", text)
    if name not in named or not is_unset(value):
        named[name] = value


def _open_nested(named: dict[str, str], sent: Sent) -> None:
    """Add the values inside values that are JSON: additional_call_data={"caller":…}."""
    for name, value in tuple(named.items()):
        if value[:1] + value[-1:] in ("{}", "[]") and not is_placeholder(value):
            inner = _load_json(value.encode("utf-8", "replace"))
            if isinstance(inner, dict | list):
                _flatten({name: inner}, named, sent)


def _read_rpc_form(named: dict[str, str], sent: Sent) -> dict[str, str]:
    """Read a JSON-RPC request spread over a query or form: id=1&method=route&params={…}."""
    request: dict[str, object] = {name.removeprefix("params."): value for name, value in named.items()}
    for name in ("id", "params"):
        text = named.get(name) or "null"
        value = _load_json(text.encode("utf-8", "replace"))
        request[name] = text if value is _UNREADABLE else value
    return _read_rpc(request, sent)


# ---- headers


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for raw_name, raw_value in headers.items():
        name = _header_name(raw_name[:MAX_NAME_CHARS])
        if not name or len(named) >= MAX_VALUES:
            continue
        # WSGI decodes bytes as latin-1; a value with other characters has been decoded already.
        is_bytes = not raw_value.isascii() and max(raw_value) < "\u0100"
        value = _decode(raw_value.encode("latin-1")) if is_bytes else raw_value
        if "," in value:  # servers and proxies join a header that was sent twice
            twice = {part.strip() for part in value.split(",") if not is_unset(part)}
            value = twice.pop() if len(twice) == 1 else value
        _keep(named, name, _unquote(value) if "%" in value else value)
    return named


@lru_cache(maxsize=1024)
def _header_name(raw: str) -> str:
    """Return the parameter's name: step_forward for X-Step-Forward and STEP_FORWARD; "" for a header of HTTP itself."""
    name = one_line(_unquote(raw) if "%" in raw else raw).strip().lower().replace("_", "-")
    return "" if NOT_PARAMETERS.match(name) else name.removeprefix("x-").replace("-", "_")


# ---- body


def unpacked(raw: RawRequest) -> tuple[bytes, bool]:
    """Return the body, decompressed from gzip or deflate with or without a label, and whether it was cut off."""
    body = raw.body
    has_header = body[:2] == b"\x1f\x8b" or (body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0)
    labels = (text for name, text in raw.headers.items() if name.lower() in {"content-encoding", "content_encoding"})
    with suppress(zlib.error):
        if has_header or any("deflate" in label.lower() for label in labels):
            reader = zlib.decompressobj(47 if has_header else -15)
            return reader.decompress(body, MAX_BODY_BYTES + 1), not reader.eof or raw.is_cut
    return body, raw.is_cut


def _read_body(body: bytes, content_type: str, sent: Sent, *, is_cut: bool) -> None:
    if len(body) > MAX_BODY_BYTES:
        body, is_cut = body[:MAX_BODY_BYTES], True
        sent.note("large_body", n=MAX_BODY_BYTES)
    if body.lstrip()[:2] == b"--" and _read_multipart(body.lstrip(), sent):
        return
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-16"):
        body = body.decode(encoding, "replace").encode("utf-8", "replace")
    body = body.removeprefix(b"\xef\xbb\xbf").strip()
    first, is_labelled_json = body[:1], "json" in content_type
    if not body:
        return
    if (first in b'{["' or is_labelled_json) and _read_json(body, sent):
        return
    # A library set to "form" sends the JSON text as the name of one parameter without value.
    whole = unquote_to_bytes(body.replace(b"+", b" ")).strip() if first in b"{[%" else b""
    if whole[:1] in b"{[" and whole and (_read_json(whole.removesuffix(b"="), sent) or _read_json(whole, sent)):
        return
    if first in b"{[":
        _read_broken_json(body, sent)
    elif b"=" in body and first != b"<":
        if is_cut:
            body, _, last = body.rpartition(b"&")
            _note_cut(_form_name(unquote_to_bytes(last.partition(b"=")[0])[:MAX_NAME_CHARS]), sent)
        sent.body = _read_form(body, "body", sent)
    else:
        sent.is_json = is_labelled_json
        sent.note("unreadable_body", n=len(body), label=one_line(content_type)[:100] or "none")


def _note_cut(name: str, sent: Sent) -> None:
    sent.note("cut_off", name=repr(name[:40]))


def _read_multipart(body: bytes, sent: Sent) -> bool:
    """Read multipart/form-data; return whether it is that. The boundary is the first line: the header may be wrong."""
    boundary = body.partition(b"\n")[0].strip()
    parts = body.split(boundary, MAX_VALUES)[1:]
    for place, part in enumerate(parts, 1):
        head, _, value = part.replace(b"\r\n", b"\n").partition(b"\n\n")
        for line in head.splitlines():
            label, _, options = line.partition(b":")
            name_option = parse_options_header(options.decode("latin-1"))[1].get("name", "")[:MAX_NAME_CHARS]
            name = _form_name(name_option.encode("latin-1", "replace"))
            if label.strip().lower() != b"content-disposition" or not name:
                continue
            if place == len(parts):
                _note_cut(name, sent)
            else:
                _keep(sent.body, name, _decode(value.removesuffix(b"\n")))
    return bool(sent.body)


# ---- JSON


class _NumberText(str):
    """A JSON number as text, so that a call id keeps all its digits."""

    __slots__ = ()


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    named: dict[str, object] = {}
    for name, value in pairs:
        if name not in named or not (value is None or (isinstance(value, str) and is_unset(value))):
            named[name] = value
    return named


_JSON = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_NumberText, parse_int=_NumberText, parse_constant=str, strict=False
)
_UNREADABLE = object()


def _load_json(data: bytes) -> object:
    """Return the value, or _UNREADABLE. Accepts also NaN, cp1251, raw control characters and surrogates."""
    try:
        return _JSON.decode(_decode(data))
    except (ValueError, RecursionError):
        return _UNREADABLE


def _read_json(data: bytes, sent: Sent) -> bool:
    """Read the body as JSON; return whether it is JSON."""
    if (value := _load_json(data)) is not _UNREADABLE:
        sent.is_json, sent.body = True, _read_value(value, sent)
    return value is not _UNREADABLE


def _read_value(value: object, sent: Sent) -> dict[str, str]:
    if type(value) is str and isinstance(inner := _load_json(value.strip().encode("utf-8", "replace")), dict | list):
        value = inner
    request = value[0] if isinstance(value, list) and value else value
    if not isinstance(request, dict) or not ("jsonrpc" in request or {"method", "params"} <= request.keys()):
        return _read_named(value, sent)
    if isinstance(value, list):
        sent.is_batch = True
        if len(value) > 1:
            sent.note("batch", n=len(value))
    return _read_rpc(request, sent)


def _read_named(value: object, sent: Sent) -> dict[str, str]:
    if isinstance(value, list) and len(value) == 1 and str(value[0])[:1] == "{":
        (value,) = value
    if type(value) is str:  # JSON or a form inside a JSON string
        inner = value.encode("utf-8", "replace").strip()
        value = _load_json(inner)
        if b"=" in inner and value is _UNREADABLE:
            return _read_form(inner, "body", sent)
    if isinstance(value, list):
        return _read_array(value, sent)
    named: dict[str, str] = {}
    if isinstance(value, dict):
        _flatten(value, named, sent)
    else:
        sent.note("no_object")
    return named


# A string in single or double quotes, perhaps cut off, or words without quotes. A colon after it makes it a name.
_WORD = r"""[^\s,:{}\[\]"']+"""
_TOKEN = re.compile(
    rf"""(?:"((?:[^"\\]|\\.)*)("|\\?$)|'((?:[^'\\]|\\.)*)'|({_WORD}(?:[ \t]+{_WORD})*))(\s*:)?|[{{}}\[\]]"""
)


def _read_broken_json(body: bytes, sent: Sent) -> None:
    """Read the complete values of invalid JSON (cut off, with a comma too many, …) at their depth."""
    sent.is_json = True
    text, name, cut = _decode(body), "", ""
    root: dict[str, object] = {}
    open_ones = [root]
    for match in _TOKEN.finditer(text):
        quoted, end, single, bare, colon = match.groups()
        value: object = next((part for part in (quoted, single) if part is not None), bare)
        if value is None:
            if match[0] in "]}":
                del open_ones[max(1, len(open_ones) - 1) :]
            elif match.start():  # the first one opens the root
                inner: dict[str, object] = {}
                open_ones[-1][name or str(len(open_ones[-1]))] = inner
                open_ones.append(inner)
            name = ""
            continue
        is_cut = end != '"' if quoted is not None else bare is not None and match.end() == len(text)
        if quoted is not None and (whole := _load_json(f'"{quoted}"'.encode("utf-8", "replace"))) is not _UNREADABLE:
            value = whole
        if colon:
            name = str(value)
        elif name and is_cut:
            cut = one_line(name)[:40]
        elif name:
            open_ones[-1][name] = None if bare == "null" else _NumberText(bare) if bare else value
            name = ""
    if cut:
        sent.note("broken_json_cut", n=len(body), name=repr(cut))
    else:
        sent.note("broken_json", n=len(body))
    sent.body = _read_value(root, sent)


def _read_rpc(request: Mapping[str, object], sent: Sent) -> dict[str, str]:
    """Read a JSON-RPC request. Its id, which numbers requests and not calls, is no parameter."""
    try:
        sent.rpc_id = orjson.dumps(request.get("id"), _in_its_digits, orjson.OPT_PASSTHROUGH_SUBCLASS)
    except (orjson.JSONEncodeError, RecursionError):  # lone surrogates, deep nesting: no valid JSON
        sent.rpc_id = b"null"
    params = request.get("params")
    named = {} if params is None else _read_named(params, sent)
    beside = {name: value for name, value in request.items() if name not in {"jsonrpc", "id", "method", "params"}}
    return _read_named(beside, sent) | named


_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _in_its_digits(number: _NumberText) -> object:
    """Return a number as it was written; as text what no reader of the answer would take for a number."""
    return orjson.Fragment(str(number)) if _JSON_NUMBER.fullmatch(str(number)) else str(number)


def _read_array(items: Sequence[object], sent: Sent) -> dict[str, str]:
    """Read an array of objects (merged), of pairs ([name, value] or {"name":…, "value":…}), or of POSITIONS' values."""
    named: dict[str, str] = {}
    plain = 0
    for item in items[:MAX_VALUES]:
        match item:
            case [name, value] if type(name) is str:
                found = {name: value}
            case {"value": value, "name": name, **more} | {"value": value, "key": name, **more} if (
                not more and type(name) is str
            ):
                found = {name: value}
            case dict():
                found = item
            case _:
                found = {POSITIONS[plain] if plain < len(POSITIONS) else str(plain): item}
                plain += 1
        _flatten(found, named, sent)
    if plain:
        sent.note("unnamed_parameters", names=", ".join(POSITIONS))
    return named


def _flatten(
    node: Mapping[str, object] | list[object], named: dict[str, str], sent: Sent, prefix: str = "", depth: int = 0
) -> None:
    """Add the node's values to `named`. Text is percent-decoded once, because Ringostat also encodes values in JSON."""
    items = node.items() if isinstance(node, Mapping) else ((str(place), item) for place, item in enumerate(node))
    for key, given in items:
        value = given[0] if isinstance(given, list) and len(given) == 1 else given  # an array of one element
        if len(named) >= MAX_VALUES:
            sent.note("many_values", n=MAX_VALUES)
            return
        name = one_line(prefix + key)
        if not name or len(name) > MAX_NAME_CHARS:
            sent.note("bad_name", n=MAX_NAME_CHARS)
        elif not isinstance(value, dict | list):
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            _keep(named, name, _unquote(text) if "%" in text else text)
        elif depth + 1 < MAX_DEPTH:
            _flatten(value, named, sent, f"{name}.", depth + 1)
        else:
            sent.note("nested", n=MAX_DEPTH)


# ---- the fields of a call

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
            whole, last, depth = folded_name(name)
            hits = aliases.get(whole)
            if depth or place == "header":
                hits = hits or aliases.get(last)
                if hits and last in TOO_COMMON and not whole.startswith("call."):
                    hits = tuple(hit for hit in hits if hit[1] < BUILT_IN)
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
