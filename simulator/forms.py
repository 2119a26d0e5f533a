"""Render the PBX's requests and read the answers, in every method, submission type and answer form of the platform.

It reads strictly on purpose: an answer that a lenient reader would accept may lose a call on the real platform.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote, urlencode, urlsplit

USER_AGENT = "ringostat HTTP Client v1.1"

PercentEncoded = Literal["none", "step", "all"]
QueryEncoding = Literal["percent", "raw-utf-8", "raw-cp1251"]

# Each value's parameter name, as customers set it. "" leaves the value out.
DEFAULT_NAMES: dict[str, str] = {
    "call_id": "call_id",
    "step": "step_forward",
    "uuid": "uuid",
    "caller": "userfield",
    "e164": "E164",
    "dialed": "dst",
    "direction": "call_type",
}


class UnreadableAnswerError(ValueError):
    """The answer does not have the expected form."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The parts of a URL. User and password become HTTP Basic; the query stays."""

    address: tuple[str, int]
    tls: bool
    host: str
    path: str
    query: str
    authorization: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Return the parts. Raises ValueError for anything but an absolute http or https URL."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"not an http or https URL: {url!r}")
        tls = parts.scheme == "https"
        host = parts.netloc.rpartition("@")[2]
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return cls(
            (parts.hostname, parts.port or (443 if tls else 80)),
            tls,
            host,
            parts.path or "/",
            parts.query,
            "" if user == ":" else "Basic " + base64.b64encode(user.encode()).decode(),
        )


@dataclass(frozen=True, slots=True)
class Style:
    """Details of requests that customers choose or that are not documented: see PbxSettings for each."""

    rpc_method: str = "getDestination"
    encoded_names: Collection[str] | None = ()  # parameters whose values are percent-encoded in JSON; None: all
    query_encoding: QueryEncoding = "percent"
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    method: str
    query: bytes = b""
    body: bytes | None = None
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def build_request(
    form: str, endpoint: Endpoint, fields: Mapping[str, str], style: Style = Style(), *, rpc_id: int = 1
) -> bytes:
    """Return the whole request as bytes. `form` is a key of FORMS."""
    parts = FORMS[form](fields, style, rpc_id)
    query = b"&".join(part for part in (endpoint.query.encode("utf-8"), parts.query) if part)
    target = endpoint.path.encode("utf-8") + (b"?" + query if query else b"")
    head = [
        parts.method.encode() + b" " + target + b" HTTP/1.1",
        f"Host: {endpoint.host}".encode(),
        f"User-Agent: {USER_AGENT}".encode(),
    ]
    if endpoint.authorization:
        head.append(f"Authorization: {endpoint.authorization}".encode())
    content_type = parts.content_type if style.content_type is None else style.content_type
    if parts.body is not None:
        if content_type:
            head.append(f"Content-Type: {content_type}".encode())
        head.append(f"Content-Length: {len(parts.body)}".encode())
    head += [f"{name}: {value}".encode() for name, value in parts.headers]
    head += [b"Connection: close", b"", parts.body or b""]
    return b"\r\n".join(head)


def _in_query(fields: Mapping[str, str], style: Style) -> bytes:
    if style.query_encoding == "percent":
        return urlencode(fields).encode()
    charset = style.query_encoding.removeprefix("raw-")
    return b"&".join(
        b"=".join(_RESERVED.sub(lambda m: b"%%%02X" % m[0][0], text.encode(charset, "replace")) for text in pair)
        for pair in fields.items()
    )


_RESERVED = re.compile(rb"[^\x80-\xffA-Za-z0-9_.~-]")  # not letters, digits, a few marks, or bytes above ASCII


def _encoded(fields: Mapping[str, str], style: Style) -> dict[str, str]:
    """Percent-encode values inside JSON, as in a documented request: `"step_forward":"webhookNumber%3A120"`."""
    names = style.encoded_names
    return {name: quote(value, safe="") if names is None or name in names else value for name, value in fields.items()}


def _get(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    return _Parts("GET", _in_query(fields, style))


def _delete(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    return _Parts("DELETE", _in_query(fields, style))


def _post_query(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    """Put the parameters of a POST into the query. The platform's articles disagree on their place for type `http`."""
    return _Parts("POST", _in_query(fields, style), b"")


def _post_form(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    return _Parts("POST", body=_in_query(fields, style), content_type="application/x-www-form-urlencoded")


def _put(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    return _Parts("PUT", body=_in_query(fields, style), content_type="application/x-www-form-urlencoded")


def _json(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    return _Parts("POST", body=_dumps(_encoded(fields, style)), content_type="application/json")


def _json_rpc(fields: Mapping[str, str], style: Style, rpc_id: int) -> _Parts:
    return _rpc(_encoded(fields, style), style, rpc_id)


def _json_rpc_array(fields: Mapping[str, str], style: Style, rpc_id: int) -> _Parts:
    return _rpc([_encoded(fields, style)], style, rpc_id)


def _rpc(params: object, style: Style, rpc_id: int) -> _Parts:
    body = {"jsonrpc": "2.0", "id": rpc_id, "method": style.rpc_method, "params": params}
    return _Parts("POST", body=_dumps(body), content_type="application/json")


def _headers(fields: Mapping[str, str], style: Style, _rpc_id: int) -> _Parts:
    """Put the parameters into headers. Characters that a header cannot hold are percent-encoded."""
    return _Parts(
        "GET",
        headers=tuple(
            (quote(name, safe="!#$&'*+^_`|~"), quote(value, safe=_PRINTABLE))
            for name, value in _encoded(fields, style).items()
        ),
    )


_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F))

FORMS: dict[str, Callable[[Mapping[str, str], Style, int], _Parts]] = {
    "get": _get,
    "post-form": _post_form,
    "post-query": _post_query,
    "put": _put,
    "delete": _delete,
    "json": _json,
    "json-rpc": _json_rpc,
    "json-rpc-array": _json_rpc_array,
    "headers": _headers,
}


def _dumps(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


# ---- the answer


def answer_form(answer: str, form: str) -> str:
    """Return the answer form that is set, or for `auto` the one that fits the form of the question."""
    if answer != "auto":
        return answer
    return "json-rpc" if form.startswith("json-rpc") else "json" if form == "json" else "http"


def read_answer(answer: str, body: bytes, *, key: str, rpc_id: int) -> str:
    """Return the destination in this answer, "" for an empty one. Raises UnreadableAnswerError."""
    return ANSWERS[answer](body, key, rpc_id)


def _read_http(body: bytes, _key: str, _rpc_id: int) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableAnswerError("plain text that is not UTF-8") from error
    if text != text.strip():
        raise UnreadableAnswerError("white space around the destination: the body is the destination, nothing else")
    return text


def _read_json(body: bytes, key: str, _rpc_id: int) -> str:
    return _member(_object(body), key)


def _read_json_rpc(body: bytes, key: str, rpc_id: int) -> str:
    envelope = _object(body)
    if envelope.get("jsonrpc") != "2.0" or envelope.get("id") != rpc_id or "result" not in envelope:
        raise UnreadableAnswerError(f"not a JSON-RPC 2.0 result for id {rpc_id}")
    result = envelope["result"]
    return _member(result, key) if isinstance(result, dict) else _destination(result)


ANSWERS: dict[str, Callable[[bytes, str, int], str]] = {
    "http": _read_http,
    "json": _read_json,
    "json-rpc": _read_json_rpc,
}


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise UnreadableAnswerError("not JSON") from error
    if not isinstance(value, dict):
        raise UnreadableAnswerError("JSON, but no object")
    return value


def _member(value: dict[str, object], key: str) -> str:
    if key not in value:
        raise UnreadableAnswerError(f"no member {key!r}")
    return _destination(value[key])


def _destination(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # a number or the id of a forwarding scheme
    raise UnreadableAnswerError("the destination is neither a string nor an integer")
