"""Laws of the parsers: never raise, let nothing through that cannot be stored, read one call by any road."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from router.core.events import CallEvent
from router.core.model import Call
from router.explanation.words import ENGLISH
from router.hook.fields import ANSWERS, CALL_ALIASES, EVENT_ALIASES, HookSettings, Question
from router.hook.formats.ringostat import parse_call, parse_event, render_decision
from router.hook.wire import MAX_ID_CHARS, MAX_PARAMS, RawRequest
from router.numbers import identifies_nothing, is_unset

ALIASES = sorted({alias for aliases in [*CALL_ALIASES.values(), *EVENT_ALIASES.values()] for alias in aliases})
MARKERS = [
    *("", "-1", "(none)", "(not set)", "null", "anonymous", "{call_id}", "{", "{}", "[]", "%", "%00"),
    *("\x00", "\ud800"),
]
NUMBERS = ["+380501112233", " 380501112233", "0501112233", "101", "sip:a@b", "acme_ann", "1e999", "NaN", "9" * 5_000]

texts = st.text(max_size=20) | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "Lu", "Nd"]), max_size=10)
names = (
    st.sampled_from([*ALIASES, "answer", "key", "jsonrpc", "id", "method", "params", "a.b", "a[b]", "call.id"]) | texts
)
values = st.sampled_from([*MARKERS, *NUMBERS, *ANSWERS]) | texts
leaves = values | st.none() | st.booleans() | st.integers() | st.floats() | st.integers(-(10**40), 10**40)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)
requests_by_rpc = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": leaves | trees, "method": values, "params": trees}
)


def as_json(tree: object) -> bytes:
    """With NaN, lone surrogates as escapes, and integers of any size: more than JSON allows."""
    return json.dumps(tree).encode()


def as_raw_json(tree: object) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def as_form(pairs: list[tuple[str, str]]) -> bytes:
    return urlencode(
        [(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in pairs]
    ).encode()


def as_cp1251(pairs: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={value}" for name, value in pairs).encode("cp1251", "replace")


pairs = st.lists(st.tuples(names, values), max_size=8)
readable = (
    (trees | requests_by_rpc | st.lists(requests_by_rpc, max_size=2)).flatmap(
        lambda tree: st.sampled_from([as_json, as_raw_json]).map(lambda write: write(tree))
    )
    | pairs.map(as_form)
    | pairs.map(as_cp1251)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Something readable, cut, doubled, quoted, in another encoding, or with a foreign byte in it."""
    data: bytes = draw(readable)
    place = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["cut", "insert", "quoted", "json", "utf-16", "bom", "padded", "multipart", "whole"]))
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + draw(st.binary(max_size=4)) + data[place:]
    if kind == "quoted":
        return quote_plus(data).encode() + draw(st.sampled_from([b"", b"="]))
    if kind == "json":
        return json.dumps(data.decode("utf-8", "replace")).encode()
    if kind == "utf-16":
        return data.decode("utf-8", "replace").encode(draw(st.sampled_from(["utf-16", "utf-16-le", "utf-16-be"])))
    if kind == "bom":
        return b"\xef\xbb\xbf" + data
    if kind == "padded":
        return data + b" " * draw(st.sampled_from([0, 1, 65_536]))
    if kind == "multipart":
        return (
            b'--x\r\nContent-Disposition: form-data; name="' + data[:place] + b'"\r\n\r\n' + data[place:] + b"\r\n--x--"
        )
    return data


bodies = st.binary(max_size=200) | damaged()
content_types = st.sampled_from(
    [
        *("", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("text/xml", "APPLICATION/JSON;"),
    ]
) | st.text(max_size=20)
raw_requests = st.builds(
    RawRequest,
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "", "\x00"]),
    query=bodies,
    headers=st.dictionaries(names, values, max_size=4),
    content_type=content_types,
    body=bodies,
)
settings = st.builds(
    HookSettings,
    answer=st.sampled_from(ANSWERS),
    key=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20),
    rpc_result=st.sampled_from(["object", "string"]),
    fields=st.dictionaries(
        st.sampled_from([*CALL_ALIASES, *EVENT_ALIASES]), st.lists(names, max_size=3).map(tuple), max_size=3
    ),
    country=st.sampled_from(["UA", "US", "DE", "", "XX"]),
)


def assert_storable(text: str) -> None:
    """UTF-8 can hold it, PostgreSQL can (which has no NUL), and no terminal does tricks when it is logged."""
    text.encode()
    assert not any(c < " " and c not in "\t\n" for c in text)


def assert_clean(call: Call | CallEvent) -> None:
    for text in (call.call_id, call.step, call.caller, call.dialed, call.direction):
        assert_storable(text)
        assert text == text.strip()
        assert "\n" not in text
        assert len(text) <= MAX_ID_CHARS
        assert text == "" or not is_unset(text)
    assert len(call.params) <= MAX_PARAMS
    assert sum(len(name) + len(value) for name, value in call.params.items()) <= 16_384
    for name, value in call.params.items():
        assert_storable(name)
        assert_storable(value)


@given(raw_requests, settings, st.text())
@example(RawRequest("POST", body=b"[" * 65_536), HookSettings(), "101")
@example(RawRequest("POST", body=b'{"jsonrpc":"2.0","id":' + b"9" * 60_000 + b"}"), HookSettings(), "101")
@example(RawRequest("POST", body=b'{"a":1.5,"b":' + b"[" * 1_000 + b"]" * 1_000 + b"}"), HookSettings(), "101")
@example(RawRequest("POST", body=b'{"jsonrpc":"2.0","id":1\x00}'), HookSettings(), "101")
@example(RawRequest("GET", query=bytes(range(256)) * 16), HookSettings(), "101")
@example(RawRequest("GET", headers={"\ud800": "\ud800", "X-\xff": "\xff%ff"}), HookSettings(), "101")
def test_every_request_gives_a_call_and_an_answer(raw: RawRequest, settings: HookSettings, destination: str) -> None:
    question = parse_call(raw, settings)
    assert_clean(question.call)
    for text in (*map(ENGLISH.say, question.problems), *question.understood.values()):
        assert_storable(text)
    body, content_type = render_decision(destination, question, settings)
    expected = destination.encode("utf-8", "replace").decode()
    if content_type.startswith("text/plain"):
        assert body.decode() == expected
        return
    answer: Any = json.loads(body, parse_int=str, parse_float=str)
    if question.is_batch and isinstance(answer, list):
        (answer,) = answer
    result = answer["result"] if "jsonrpc" in answer and "result" in answer else answer
    assert result in (expected, {question.key or settings.key: expected})


@given(raw_requests, settings)
def test_every_request_gives_an_event(raw: RawRequest, settings: HookSettings) -> None:
    event = parse_event(raw, settings)
    assert_clean(event)
    assert_storable(event.sip_login)
    assert len(event.sip_login) <= MAX_ID_CHARS
    for seconds in (event.billsec, event.duration, event.waittime):
        assert seconds is None or 0 <= seconds <= 7 * 24 * 3600
    assert event.at is None or event.at.tzinfo is not None
    for problem in event.problems:
        assert_storable(ENGLISH.say(problem))


@given(raw_requests, settings)
def test_the_same_bytes_mean_the_same(raw: RawRequest, settings: HookSettings) -> None:
    assert parse_call(raw, settings) == parse_call(raw, settings)
    assert parse_event(raw, settings) == parse_event(raw, settings)


# ---- the order of the parameters

plain_names = st.sampled_from(
    [alias for alias in ALIASES if "." not in alias] + ["utm_source", "callId", "CALL_ID", "x.caller"]
)
plain_values = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=12)


@given(st.dictionaries(plain_names, plain_values, max_size=10), st.randoms(use_true_random=False), settings)
def test_the_order_of_the_parameters_changes_nothing(sent: dict[str, str], dice: Any, settings: HookSettings) -> None:
    shuffled = list(sent.items())
    dice.shuffle(shuffled)
    for one_body, other_body in (
        (urlencode(sent).encode(), urlencode(shuffled).encode()),
        (orjson.dumps(sent), orjson.dumps(dict(shuffled))),
    ):
        one = parse_call(RawRequest("POST", body=one_body), settings)
        other = parse_call(RawRequest("POST", body=other_body), settings)
        assert (one.call, one.understood) == (other.call, other.understood)


# ---- one call by every road

# Letters whose cp1251 bytes are never valid UTF-8 by accident. Those of "Ві" are: which of the two it is nobody knows.
letters = st.sampled_from("АБВЮЯабвюя") | st.characters(codec="ascii", categories=["L", "N"])
words = st.text(letters, min_size=1, max_size=9)
phone_numbers = st.sampled_from(["380501112233", "+380501112233", "(050) 111-22-33", "101", "acme_ann", "anonymous"])
calls = st.fixed_dictionaries(
    {"uniqueid": words, "step_forward": words.map(lambda text: f"webhook:{text}"), "userfield": phone_numbers},
    optional={"dst": phone_numbers, "call_type": st.sampled_from(["in", "out"]), "utm_source": words, "відділ": words},
)


def escaped(sent: dict[str, str]) -> dict[str, str]:
    return {name: quote(value) for name, value in sent.items()}


def by_every_road(sent: dict[str, str]) -> dict[str, RawRequest]:
    form = urlencode(sent).encode()
    rpc = {"jsonrpc": "2.0", "id": 1, "method": "route"}
    bodies = {
        "a form": form,
        "a form in cp1251": urlencode(sent, encoding="cp1251").encode(),
        "raw cp1251": "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in sent.items()).encode("cp1251"),
        "raw UTF-8": "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in sent.items()).encode(),
        "JSON": orjson.dumps(sent),
        "JSON with escapes": json.dumps(sent).encode(),
        "JSON with percent-encoded values": orjson.dumps(escaped(sent)),
        "JSON in cp1251": json.dumps(sent, ensure_ascii=False).encode("cp1251"),
        "JSON in UTF-16": json.dumps(sent, ensure_ascii=False).encode("utf-16"),
        "JSON with a byte order mark": b"\xef\xbb\xbf" + orjson.dumps(sent),
        "JSON as a form": quote_plus(orjson.dumps(sent)).encode() + b"=",
        "an array of objects": orjson.dumps([{name: value} for name, value in sent.items()]),
        "JSON-RPC": orjson.dumps({**rpc, "params": sent}),
        "JSON-RPC, percent-encoded": orjson.dumps({**rpc, "params": escaped(sent)}),
        "JSON-RPC, an array of one object": orjson.dumps({**rpc, "params": [sent]}),
        "JSON-RPC, an array of pairs": orjson.dumps({**rpc, "params": list(sent.items())}),
        "JSON-RPC, an array of names and values": orjson.dumps(
            {**rpc, "params": [{"name": name, "value": value} for name, value in sent.items()]}
        ),
        "a JSON-RPC batch": orjson.dumps([{**rpc, "params": sent}]),
    }
    roads = {
        f"{method} {kind} as {label}": RawRequest(method, body=body, content_type=label)
        for kind, body in bodies.items()
        for method, label in (
            ("POST", "application/json"),
            ("PUT", "application/x-www-form-urlencoded"),
            ("DELETE", ""),
        )
    }
    roads |= {f"{method}, query": RawRequest(method, query=form) for method in ("GET", "POST", "PUT", "DELETE")}
    roads["raw cp1251 query"] = RawRequest("GET", query=bodies["raw cp1251"])
    roads["half query, half body"] = RawRequest(
        "POST", query=urlencode(list(sent.items())[::2]).encode(), body=urlencode(list(sent.items())[1::2]).encode()
    )
    return roads


@given(calls)
def test_one_call_is_one_call_in_every_submission_type(sent: dict[str, str]) -> None:
    understood = {road: parse_call(raw, HookSettings()).call for road, raw in by_every_road(sent).items()}
    expected = parse_call(RawRequest("POST", body=orjson.dumps(sent)), HookSettings()).call
    assert expected.call_id == sent["uniqueid"].strip() or identifies_nothing(sent["uniqueid"])
    assert dict(expected.params) == sent
    assert {road: call for road, call in understood.items() if call != expected} == {}


@given(calls.map(lambda sent: {name: value for name, value in sent.items() if name.isascii()}))
def test_a_call_in_headers_is_the_same_call(sent: dict[str, str]) -> None:
    expected = parse_call(RawRequest("POST", body=orjson.dumps(sent)), HookSettings()).call
    spellings = [
        {f"X-{name.replace('_', '-').title()}": quote(value) for name, value in sent.items()},
        {name.upper(): value.encode().decode("latin-1") for name, value in sent.items()},
        {name: value.encode("cp1251").decode("latin-1") for name, value in sent.items()},
    ]
    for headers in spellings:
        assert parse_call(RawRequest("GET", headers=headers), HookSettings()).call == expected


# ---- the JSON-RPC id

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=5,
)
rpc_settings = st.sampled_from(["object", "string"]).map(
    lambda shape: HookSettings(answer="json-rpc", rpc_result=shape)
)


def round_trip(request_id: bytes, settings: HookSettings) -> bytes:
    body = b'{"jsonrpc":"2.0","id":%b,"method":"route","params":{"uniqueid":"1"}}' % request_id
    question: Question = parse_call(RawRequest("POST", body=body), settings)
    answer, _ = render_decision("101", question, settings)
    assert answer.startswith(b'{"jsonrpc":"2.0","id":')
    return answer.removeprefix(b'{"jsonrpc":"2.0","id":').partition(b',"result":')[0]


@given(json_values, rpc_settings)
def test_the_id_of_a_json_rpc_request_comes_back(request_id: object, settings: HookSettings) -> None:
    body = orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": "route", "params": {"uniqueid": "1"}})
    answer, _ = render_decision("101", parse_call(RawRequest("POST", body=body), settings), settings)
    assert orjson.loads(answer)["id"] == request_id


@given(st.from_regex(rb"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True), rpc_settings)
def test_a_number_as_id_comes_back_digit_by_digit(request_id: bytes, settings: HookSettings) -> None:
    given_back = round_trip(request_id, settings)
    assert given_back == request_id or (request_id == b"-0" and given_back == b"0")
