"""A request's bytes → names and values, whatever the submission type and however it is labelled.

Knows neither flask nor any field of a call, and never raises: what cannot be read is left out and named in `problems`.
The PBX waits while this runs, so the common case (a short query of ASCII text) takes plain splits and no regex.
"""

from __future__ import annotations

import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

import orjson
from werkzeug.http import parse_options_header

from router.core.unset import is_placeholder, is_unset

MAX_BODY_BYTES = 65_536
MAX_VALUES = 1_000  # per place; more is an attack or a mistake, and the time to read is the caller's time to wait
MAX_NAME_CHARS = 200
MAX_DEPTH = 8

POSITIONS = ("call_id", "caller", "dialed", "step")
"""What parameters without names mean, by place, in a JSON-RPC request whose `params` is an array of plain values."""

# Headers of HTTP itself, of browsers, proxies and clouds, and those that carry secrets: never parameters of a call.
_NOT_PARAMETERS = re.compile(
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
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "auth-key", "x-api-key", "x-auth-token"})


class RawRequest(NamedTuple):
    """One request as it came. `query` is what follows `?`, undecoded; `headers` by name, in any case, `-` or `_`."""

    method: str = "GET"
    query: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    content_type: str = ""
    body: bytes = b""
    is_cut: bool = False  # less of the body came than was announced

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
        secret = {name for name in self.headers if name.lower().replace("_", "-") in _SECRET_HEADERS}
        return self._replace(headers={**self.headers, **dict.fromkeys(secret, "***")})


@dataclass(slots=True)
class Sent:
    """What a request holds: values by name for each place, nested names joined by dots, values as text.

    `is_json`: the body is JSON, or was meant to be. `rpc_id`: the JSON text of a JSON-RPC request's id ("null" when it
    has none), None when it is no JSON-RPC request. `empty_id`: what was sent as the call id and says nothing.
    `problems`: what could not be read, for an admin.
    """

    body: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    is_json: bool = False
    rpc_id: bytes | None = None
    is_batch: bool = False
    empty_id: str = ""
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
        body, is_cut = unpacked(raw)
        _read_body(body, raw.content_type.lower(), sent, is_cut=is_cut)
        _open_nested(sent.body, sent)
    return sent


# ---- text


def one_line(text: str) -> str:
    """Without control and invisible characters, lone surrogates and line breaks: fit for an id, a log, a database."""
    if text.isprintable():
        return text
    return "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"})


_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _clean(text: str) -> str:
    """As sent, but for what no database or UTF-8 answer can hold and what would drive a terminal that shows it."""
    return text if text.isprintable() else _UNFIT.sub("", text)


def _decode(raw: bytes) -> str:
    """UTF-8, else the Windows Cyrillic that older PBX and CRM software sends; bytes of neither become U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1251", "replace")


# A template's variable looks like an escape where its name begins with two hexadecimal digits: %CALLID%.
_VARIABLE = re.compile(r"%([A-Za-z_]\w{2,})%(?![0-9A-Fa-f]{2})", re.ASCII)


def _unquote(text: str) -> str:
    """Percent-decoded once; unchanged where the escapes do not make text."""
    raw = unquote_to_bytes(_VARIABLE.sub(r"%25\1%25", text).encode("utf-8", "replace"))
    return _decode(raw) if text.isascii() else raw.decode("utf-8", "replace")


# ---- query and form


def _read_form(data: bytes, place: str, sent: Sent) -> dict[str, str]:
    """`a=1&b=2`, percent-encoded or raw, with PHP's nested names. Also JSON-RPC over GET, whose params are JSON."""
    named: dict[str, str] = {}
    text = data.decode("latin-1")  # bytes kept as they are, for each value may be in a charset of its own
    if "?" in text and place == "query":  # what was added behind an address that had parameters already
        parts = (part if _PAGE.match(part) else _SECOND_QUERY.sub("&", part) for part in text.split("&"))
        text = "&".join(parts)
    pairs = parse_qsl(_VARIABLE.sub(r"%25\1%25", text), keep_blank_values=True, encoding="latin-1")
    if len(pairs) > MAX_VALUES:
        sent.note(f"The {place} holds more than {MAX_VALUES} parameters; the rest was left out.")
    for raw_name, value in pairs[:MAX_VALUES]:
        if len(raw_name) > MAX_NAME_CHARS:
            sent.note(f"The {place} holds a parameter name longer than {MAX_NAME_CHARS} characters; it was left out.")
        elif name := _form_name(raw_name):
            _keep(named, name, _clean(_decode(value.encode("latin-1"))))
    return _read_rpc_form(named, sent) if "jsonrpc" in named else named


_SECOND_QUERY = re.compile(r"\?(?=[\w.\[\]-]+=)")
_PAGE = re.compile(r"[^?]*?(/|%2f)", re.IGNORECASE)  # the address of a page may stand in a value as it is


@lru_cache(maxsize=1024)
def _form_name(raw: str) -> str:
    """a[b][c], as PHP writes nested data into forms, is a.b.c. `raw` is bytes read as latin-1."""
    name = one_line(_decode(raw.encode("latin-1", "replace"))).strip()
    name = name.removeprefix("amp;")  # an address that was copied out of a page
    for only in ("[]", "[0]"):
        name = name.removesuffix(only) or name
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
        if value[:1] + value[-1:] in ("{}", "[]") and not is_placeholder(value):
            inner = _load_json(value.encode("utf-8", "replace"))
            if isinstance(inner, dict | list):
                _flatten({name: inner}, named, sent)


def _read_rpc_form(named: dict[str, str], sent: Sent) -> dict[str, str]:
    """JSON-RPC spread over a query or form: id=1&method=route&params={…}."""
    request: dict[str, object] = {name.removeprefix("params."): value for name, value in named.items()}
    for name in ("id", "params"):
        text = named.get(name, "")
        value = _load_json(text.encode("utf-8", "replace")) if text else None
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
        if "," in value:  # sent twice, as servers and proxies join it
            twice = {part.strip() for part in value.split(",") if not is_unset(part)}
            value = twice.pop() if len(twice) == 1 else value
        _keep(named, name, _clean(_unquote(value) if "%" in value else value))
    return named


@lru_cache(maxsize=1024)
def _header_name(raw: str) -> str:
    """X-Step-Forward and STEP_FORWARD are step_forward: headers keep neither case nor, behind proxies, underscores."""
    name = one_line(_unquote(raw) if "%" in raw else raw).strip().lower().replace("_", "-")
    return "" if _NOT_PARAMETERS.match(name) else name.removeprefix("x-").replace("-", "_")


# ---- body


def unpacked(raw: RawRequest) -> tuple[bytes, bool]:
    """The body out of gzip or deflate, labelled or not, as far as it may be long; and was it cut off?"""
    body, headers = raw.body, raw.headers.items()
    label = next((text for name, text in headers if name.lower() in {"content-encoding", "content_encoding"}), "")
    wbits = 47 if body[:2] == b"\x1f\x8b" or (body[:1] == b"\x78" and int.from_bytes(body[:2]) % 31 == 0) else 0
    reader = zlib.decompressobj(wbits or -15)  # "deflate" without its head is often sent, too
    with suppress(zlib.error):
        if wbits or "deflate" in label.lower():
            return reader.decompress(body, MAX_BODY_BYTES + 1), not reader.eof or raw.is_cut
    return body, raw.is_cut


def _read_body(body: bytes, content_type: str, sent: Sent, *, is_cut: bool) -> None:
    if len(body) > MAX_BODY_BYTES:
        body, is_cut = body[:MAX_BODY_BYTES], True
        sent.note(f"The body is larger than {MAX_BODY_BYTES} bytes; only its beginning was read.")
    if body.lstrip()[:2] == b"--" and _read_multipart(body.lstrip(), sent):
        return
    body = _as_utf8(body).strip()
    first, is_labelled_json = body[:1], "json" in content_type
    if not body:
        return
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
        if is_cut:
            body, _, last = body.rpartition(b"&")
            _note_cut(_form_name(unquote_to_bytes(last.partition(b"=")[0])[:MAX_NAME_CHARS].decode("latin-1")), sent)
        sent.body = _read_form(body, "body", sent)
    else:
        sent.is_json = is_labelled_json
        label = one_line(content_type)[:100] or "none"
        sent.note(f"The body ({len(body)} bytes, Content-Type: {label}) is neither JSON nor a form; it was left out.")


def _note_cut(name: str, sent: Sent) -> None:
    sent.note(f"The value of {name[:40]!r} was cut off; it was left out.")


def _as_utf8(body: bytes) -> bytes:
    encoding = json.detect_encoding(body)
    if encoding.startswith("utf-16"):
        return body.decode(encoding, "replace").encode("utf-8", "replace")
    return body.removeprefix(b"\xef\xbb\xbf")


def _read_multipart(body: bytes, sent: Sent) -> bool:
    """multipart/form-data, False when it is none. The boundary is that of the body itself: labels may be wrong."""
    boundary = body.partition(b"\n")[0].strip()
    parts = body.split(boundary, MAX_VALUES)[1:]
    for place, part in enumerate(parts, 1):
        head, _, value = part.replace(b"\r\n", b"\n").partition(b"\n\n")
        for line in head.splitlines():
            label, _, told = line.partition(b":")
            name = _form_name(parse_options_header(told.decode("latin-1"))[1].get("name", "")[:MAX_NAME_CHARS])
            if label.strip().lower() != b"content-disposition" or not name:
                continue
            if place == len(parts):
                _note_cut(name, sent)
            else:
                _keep(sent.body, name, _clean(_decode(value.removesuffix(b"\n"))))
    return bool(sent.body)


# ---- JSON


class _NumberText(str):
    """A JSON number in its own digits: as an id they matter."""

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
    """The value, or _UNREADABLE. Takes NaN, cp1251, raw controls and surrogates too."""
    try:
        return _JSON.decode(_decode(data))
    except (ValueError, RecursionError):
        return _UNREADABLE


def _read_json(data: bytes, sent: Sent) -> bool:
    """Read the body as JSON; False when it is none."""
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
            sent.note(f"The JSON-RPC batch holds {len(value)} requests; the first was read.")
    return _read_rpc(request, sent)


def _read_named(value: object, sent: Sent) -> dict[str, str]:
    named: dict[str, str] = {}
    if isinstance(value, list) and len(value) == 1 and str(value[0])[:1] == "{":
        (value,) = value
    if type(value) is str:  # JSON or a form within a JSON string
        inner = value.encode("utf-8", "replace").strip()
        again = _load_json(inner)
        if b"=" in inner and again is _UNREADABLE:
            return _read_form(inner, "body", sent)
        value = again
    if isinstance(value, list):
        return _read_array(value, sent)
    if isinstance(value, dict):
        _flatten(value, named, sent)
    else:
        sent.note("The JSON is neither an object nor an array; it was left out.")
    return named


# A string in either quotes, perhaps without its end, or bare words; a colon behind it makes it a name.
_WORD = r"""[^\s,:{}\[\]"']+"""
_TOKEN = re.compile(
    rf"""(?:"((?:[^"\\]|\\.)*)("|\\?$)|'((?:[^'\\]|\\.)*)'|({_WORD}(?:[ \t]+{_WORD})*))(\s*:)?|[{{}}\[\]]"""
)


def _read_broken_json(body: bytes, sent: Sent) -> None:
    """Cut off, with a comma too many, …: what is whole is read, and stays as deep as it stands."""
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
            cut = f" The value of {one_line(name)[:40]!r} was cut off; it was left out."
        elif name:
            open_ones[-1][name] = None if bare == "null" else _NumberText(bare) if bare else value
            name = ""
    sent.note(f"The body ({len(body)} bytes) is broken JSON; what could be made out of it was read.{cut}")
    sent.body = _read_value(root, sent)


def _read_rpc(request: Mapping[str, object], sent: Sent) -> dict[str, str]:
    """A JSON-RPC request. Its id numbers requests, not calls: it is echoed and is no parameter."""
    try:
        in_its_digits, option = lambda number: orjson.Fragment(str(number)), orjson.OPT_PASSTHROUGH_SUBCLASS
        sent.rpc_id = orjson.dumps(request.get("id"), in_its_digits, option)
    except (orjson.JSONEncodeError, RecursionError):  # lone surrogates, depth: no valid JSON could echo them
        sent.rpc_id = b"null"
    params = request.get("params")
    named = {} if params is None else _read_named(params, sent)
    beside = {name: value for name, value in request.items() if name not in {"jsonrpc", "id", "method", "params"}}
    return _read_named(beside, sent) | named


def _read_array(items: Sequence[object], sent: Sent) -> dict[str, str]:
    """An array of objects (merged), of pairs ([name, value] or {"name":…, "value":…}), or of plain values by place."""
    named: dict[str, str] = {}
    plain = 0
    for item in items[:MAX_VALUES]:
        pair = _pair(item)
        if pair is None and not isinstance(item, dict):
            pair = (POSITIONS[plain] if plain < len(POSITIONS) else str(plain), item)
            plain += 1
        _flatten(dict([pair]) if pair else item, named, sent)  # type: ignore[arg-type]
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


def _flatten(
    node: Mapping[str, object] | list[object], named: dict[str, str], sent: Sent, prefix: str = "", depth: int = 0
) -> None:
    """Put the node's values into `named`. Text is percent-decoded once: Ringostat encodes values inside JSON too."""
    items = node.items() if isinstance(node, Mapping) else ((str(place), item) for place, item in enumerate(node))
    for key, given in items:
        value = given[0] if isinstance(given, list) and len(given) == 1 else given  # an array of one is its element
        if len(named) >= MAX_VALUES:
            sent.note(f"The body holds more than {MAX_VALUES} values; the rest was left out.")
            return
        name = one_line(prefix + key)
        if not name or len(name) > MAX_NAME_CHARS:
            sent.note(
                f"The body holds a name that is empty or longer than {MAX_NAME_CHARS} characters; it was left out."
            )
            continue
        if isinstance(value, dict | list):
            if depth + 1 < MAX_DEPTH:
                _flatten(value, named, sent, f"{name}.", depth + 1)
            else:
                sent.note(f"The body is nested deeper than {MAX_DEPTH} levels; what is beyond was left out.")
            continue
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if "%" in text:
            text = _unquote(text)
        _keep(named, name, _clean(text))
