"""Bytes → names and values: what each place and each submission type gives, and what is left out of it."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Mapping

import orjson
import pytest
from werkzeug.test import EnvironBuilder

from router.hook.fields import HookSettings
from router.hook.formats.ringostat import parse_call, parse_event
from router.hook.wire import MAX_BODY_BYTES, RawRequest, Sent, read_request
from tests.hook.sample_files import told


def body(data: bytes | str, content_type: str = "") -> Sent:
    return read_request(
        RawRequest("POST", content_type=content_type, body=data.encode() if isinstance(data, str) else data)
    )


def query(data: bytes | str) -> Sent:
    return read_request(RawRequest("GET", query=data.encode() if isinstance(data, str) else data))


def headers(given: Mapping[str, str]) -> dict[str, str]:
    return read_request(RawRequest("GET", headers=given)).headers


# ---- query and form


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("&&a=1&&", {"a": "1"}),
        ("a", {"a": ""}),
        ("=1", {}),
        ("a=b=c", {"a": "b=c"}),
        ("a+b=c+d", {"a b": "c d"}),
        ("a%20b=c%2Bd", {"a b": "c+d"}),
        ("a=100%&b=%zz&c=%4", {"a": "100%", "b": "%zz", "c": "%4"}),
        ("a=%2541", {"a": "%41"}),
        ("a=1&a=2", {"a": "2"}),
        ("a=1&a=", {"a": "1"}),
        ("a=&a=-1", {"a": ""}),
        ("a[b]=1&a[c][d]=2&e[]=3&[f]=4", {"a.b": "1", "a.c.d": "2", "e": "3", "[f]": "4"}),
        ("a=%00x%1b%0a", {"a": "x\n"}),
        ("a%00%0a=1", {"a": "1"}),
        ("a;b=1", {"a;b": "1"}),
    ],
)
def test_a_form_is_read_the_same_in_the_query_and_in_the_body(data: str, named: dict[str, str]) -> None:
    assert query(data).query == named
    if "=" in data:
        assert body(data).body == named


def test_each_value_may_have_a_charset_of_its_own() -> None:
    mixed = b"a=\xc8\xe2\xe0\xed&b=%D0%98%D0%B2%D0%B0%D0%BD&c=%C8%E2%E0%ED&d=" + "Иван".encode() + b"&\xe8=\x98"
    assert query(mixed).query == {"a": "Иван", "b": "Иван", "c": "Иван", "d": "Иван", "и": "\ufffd"}


def test_of_too_many_or_too_long_names_the_rest_is_left_out_with_a_note() -> None:
    many = query("&".join(f"p{place}=1" for place in range(1_500)))
    assert len(many.query) == 1_000
    assert told(many.problems) == ["The query holds more than 1000 parameters; the rest was left out."]
    long = query("n" * 201 + "=1&a=1")
    assert long.query == {"a": "1"}
    assert told(long.problems) == ["The query holds a parameter name longer than 200 characters; it was left out."]


# ---- headers


def test_headers_of_http_browsers_proxies_and_clouds_are_no_parameters() -> None:
    sent = [
        *("Host", "User-Agent", "Accept", "Accept-Language", "Connection", "Content-Type", "Content-Length", "Cookie"),
        *("Authorization", "Via", "Referer", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "X-Request-Id"),
        *("CF-Ray", "CF-Connecting-IP", "Sec-Fetch-Mode", "X-Amzn-Trace-Id", "Fly-Client-IP", "X-Request-Start"),
        *("Traceparent", "If-None-Match", "Proxy-Authorization", "Auth-Key", "X-Api-Key", "From", "Date"),
    ]
    assert headers(dict.fromkeys(sent, "x")) == {}
    assert headers({name.upper().replace("-", "_"): "x" for name in sent}) == {}


def test_header_names_are_folded_and_values_decoded() -> None:
    raw_utf8, raw_cp1251 = "Іван".encode().decode("latin-1"), "Іван".encode("cp1251").decode("latin-1")
    assert headers(
        {"X-Call-Id": "a%3Ab", "UTM_SOURCE": raw_utf8, "utm-term": raw_cp1251, "N": "Іван", "%D1%96": ""}
    ) == {"call_id": "a:b", "utm_source": "Іван", "utm_term": "Іван", "n": "Іван", "і": ""}


# ---- JSON


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (
            {"a": "x", "b": 1, "c": True, "d": False, "e": None},
            {"a": "x", "b": "1", "c": "true", "d": "false", "e": ""},
        ),
        ({"a": {"b": {"c": "1"}}, "d": ["x", {"y": 2}]}, {"a.b.c": "1", "d.0": "x", "d.1.y": "2"}),
        (
            {
                "a": "webhookNumber%3A120",
                "b": "%D0%86",
                "c": "%C8",
                "d": "100%",
                "e": "%2541",
                "f": "І%D0%86",
                "g": "І%C8",
            },
            {"a": "webhookNumber:120", "b": "І", "c": "И", "d": "100%", "e": "%41", "f": "ІІ", "g": "І\ufffd"},
        ),
        ({"a": "+380", "b": "a+b"}, {"a": "+380", "b": "a+b"}),
        ({"a": '{"b":"1"}'}, {"a": '{"b":"1"}', "a.b": "1"}),
        ([{"a": "1"}, {"b": "2", "a": ""}], {"a": "1", "b": "2"}),
        ([["a", "1"], {"key": "b", "value": {"c": "2"}}], {"a": "1", "b.c": "2"}),
        ([], {}),
        ({}, {}),
    ],
)
def test_json_is_flattened_and_percent_decoded_once(data: object, named: dict[str, str]) -> None:
    sent = body(orjson.dumps(data))
    assert sent.is_json
    assert sent.body == named
    assert sent.problems == []


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b'{"a":1.10,"b":-0,"c":1e400,"d":123456789012345678901234567890}', ("1.10", "-0", "1e400")),
        (b'{"a":NaN,"b":Infinity,"c":-Infinity}', ("NaN", "Infinity", "-Infinity")),
        (b'{"a":"\\ud800x","b":"\\ud83d\\ude00","c":"\\u0000"}', ("x", "\U0001f600", "")),
        (b'{"a":"x\ny","b":"\x01","c":"\xc8"}', ("x\ny", "", "И")),
        (b'\xef\xbb\xbf{"a":"1","b":"2","c":"3"}', ("1", "2", "3")),
        (b'  \r\n{"a":"1","b":"2","c":"3"}\n\n', ("1", "2", "3")),
        (b'{"a":"0","a":"1","b":"2","c":"3"}', ("1", "2", "3")),
        ('{"a":"1","b":"2","c":"3"}'.encode("utf-16"), ("1", "2", "3")),
        ('{"a":"1","b":"2","c":"3"}'.encode("utf-16-le"), ("1", "2", "3")),
        ('{"a":"1","b":"2","c":"3"}'.encode("utf-16-be"), ("1", "2", "3")),
    ],
)
def test_json_that_a_strict_reader_refuses_is_read(data: bytes, named: tuple[str, ...]) -> None:
    sent = body(data)
    assert sent.is_json
    assert tuple(sent.body[name] for name in "abc") == named
    assert sent.problems == []


@pytest.mark.parametrize(
    "data",
    [
        *(b'{"uniqueid":"1","caller":"101",}', b'{"uniqueid":"1","caller":"101"'),
        *(b'{"uniqueid":"1","caller":"101","x":"', b'{"uniqueid":"1","caller":"101","x":"a"b"}'),
        b'{"uniqueid":"1","caller":101}}',
        *(b'{"uniqueid":"1","caller":"101",\'x\':\'y\'}', b'{"uniqueid":"1" "caller":"101"}'),
    ],
)
def test_of_broken_json_is_read_what_can_be_made_out(data: bytes) -> None:
    sent = body(data)
    assert sent.is_json
    assert (sent.body["uniqueid"], sent.body["caller"]) == ("1", "101")
    assert any("broken JSON" in problem for problem in told(sent.problems))


def test_of_a_broken_json_rpc_request_the_id_is_no_parameter() -> None:
    sent = body('{"jsonrpc":"2.0","id":9,"params":{"uniqueid":"1","caller":"101"}')
    assert sent.rpc_id == b"9"
    assert sent.body == {"uniqueid": "1", "caller": "101"}


@pytest.mark.parametrize("data", [b"5", b"true", b"null", b'"text"', b"[[[[]]]]"])
def test_json_without_names_gives_nothing(data: bytes) -> None:
    sent = body(data, "application/json")
    assert sent.is_json
    assert set(sent.body) <= {"call_id"}
    assert sent.problems or data == b"[[[[]]]]"


def test_an_id_that_no_json_can_hold_is_echoed_as_null() -> None:
    assert body(b'{"jsonrpc":"2.0","id":"\\ud800","params":{}}').rpc_id == b"null"


@pytest.mark.parametrize("name", ["", "\x00", "n" * 201])
def test_a_name_in_json_that_is_none_is_left_out_with_a_note(name: str) -> None:
    sent = body(orjson.dumps({name: "1", "a": "2"}))
    assert sent.body == {"a": "2"}
    assert told(sent.problems) == [
        "The body holds a name that is empty or longer than 200 characters; it was left out."
    ]


def test_deep_nesting_is_cut_off_with_a_note() -> None:
    for depth in (20, 200, 5_000, 30_000):
        sent = body(b'{"uniqueid":"1","x":' + b"[" * depth + b"]" * depth + b"}")
        assert sent.body["uniqueid"] == "1"
        assert sent.problems


def test_values_nested_eight_deep_are_kept() -> None:
    assert body(orjson.dumps({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": "x"}}}}}}}})).body == {
        "a.b.c.d.e.f.g.h": "x"
    }


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "x"]
)
@pytest.mark.parametrize("data", [b'{"a":"1"}', b"a=1"])
def test_the_label_does_not_matter(data: bytes, content_type: str) -> None:
    sent = body(data, content_type)
    assert sent.body == {"a": "1"}
    assert sent.is_json == data.startswith(b"{")
    assert sent.problems == []


@pytest.mark.parametrize("data", [b"<a b='c'/>", b"hello", b"\xff\xfe\x00\x00", b"\x00\x01\x02\x03", b"%", b"&&&"])
def test_what_is_neither_json_nor_form_is_named_by_size_and_label(data: bytes) -> None:
    sent = body(data, "text/\nxml")
    assert sent.body == {}
    assert len(sent.problems) == 1
    assert "Content-Type: text/xml) is neither JSON nor a form" in told(sent.problems)[0]


def test_an_empty_body_is_no_problem() -> None:
    assert body(b"", "application/json") == Sent()
    assert body(b" \r\n ", "application/json") == Sent()


# ---- size


def test_a_body_of_64_kib_is_read_whole() -> None:
    filler = "x" * (MAX_BODY_BYTES - len('{"uniqueid":"1","x":""}'))
    data = f'{{"uniqueid":"1","x":"{filler}"}}'
    assert len(data) == MAX_BODY_BYTES
    sent = body(data)
    assert sent.body == {"uniqueid": "1", "x": filler}
    assert sent.problems == []


@pytest.mark.parametrize("data", ['{"uniqueid":"1","x":"%s"}', "uniqueid=1&x=%s&y=2"])
def test_of_a_longer_body_the_beginning_is_read(data: str) -> None:
    sent = body(data % ("x" * MAX_BODY_BYTES))
    assert sent.body == {"uniqueid": "1"}
    assert told(sent.problems)[0] == "The body is larger than 65536 bytes; only its beginning was read."


def repeated(unit: bytes, start: bytes = b"", end: bytes = b"") -> bytes:
    return start + unit * ((MAX_BODY_BYTES - len(start) - len(end)) // len(unit)) + end


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(repeated(b"["), id="open brackets"),
        pytest.param(repeated(b'{"a":'), id="open objects"),
        pytest.param(repeated(b'"a":"\\"', b"{"), id="open strings"),
        pytest.param(repeated(b'"a":"b', b"{"), id="pairs without end"),
        pytest.param(repeated(b"%", b"a="), id="percent signs"),
        pytest.param(repeated(b"%D0", b"a="), id="escapes"),
        pytest.param(repeated(b"\x01", b"call_id="), id="control characters"),
        pytest.param(repeated(b"\xe2\x80\x8b", b"call_id="), id="invisible characters"),
        pytest.param(repeated(b'{"a":"{"},', b"[", b"1]"), id="objects to merge"),
        pytest.param(repeated(b'{"name":"a","value":"{\\"b\\":1}"},', b"[", b"1]"), id="pairs to open"),
        pytest.param(repeated(b"1,", b"[", b"1]"), id="plain values"),
        pytest.param(repeated(b"9", b'{"a":', b"}"), id="a long number"),
        pytest.param(repeated(b"a=1&"), id="one name"),
        pytest.param(b"&".join(b"a%d.caller=+38%d x" % (place, place) for place in range(2_500)), id="many callers"),
        pytest.param(repeated(b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'), id="many parts"),
        pytest.param(repeated(b"; name= ", b"--x\r\n\r\n--x"), id="a part's head"),
        pytest.param(repeated(b"a[b][c][d]=1&"), id="nested names"),
        pytest.param(repeated('"a":1'.encode("utf-16-le"), "{".encode("utf-16-le")), id="UTF-16"),
        pytest.param(repeated(b"\x00"), id="zeros"),
    ],
)
def test_no_body_takes_the_time_of_another_call(data: bytes) -> None:
    """A hook's whole budget is 1.5 s; half a second of CPU is 25 times what the worst takes on a slow machine."""
    assert len(data) <= MAX_BODY_BYTES
    for content_type in ("", "application/json", "multipart/form-data; boundary=x"):
        raw = RawRequest("POST", content_type=content_type, body=data)
        for parse in (parse_call, parse_event):
            began = time.thread_time()  # of this thread's own work, however busy the machine is
            parse(raw, HookSettings())
            assert time.thread_time() - began < 0.5


# ---- the request as a WSGI server gives it


def test_a_wsgi_environment_is_taken_over_byte_for_byte() -> None:
    environ = EnvironBuilder(
        path="/hook/x", method="PUT", data=b"a=1", content_type="text/plain", headers=[("X-Caller", "101")]
    ).get_environ()
    environ["QUERY_STRING"] = b"name=\xc8&n=\xd0\x86".decode("latin-1")
    raw = RawRequest.from_environ(environ, b"a=1")
    assert raw.method == "PUT"
    assert raw.query == b"name=\xc8&n=\xd0\x86"
    assert raw.content_type == "text/plain"
    assert raw.body == b"a=1"
    sent = read_request(raw)
    assert (sent.query, sent.headers, sent.body) == ({"name": "И", "n": "І"}, {"caller": "101"}, {"a": "1"})


def test_an_environment_without_anything_is_an_empty_request() -> None:
    assert read_request(RawRequest.from_environ({}, b"")) == Sent()


def test_what_is_stored_of_a_request_holds_no_credentials() -> None:
    given = {"AUTHORIZATION": "Basic c2VjcmV0", "Cookie": "s=c2VjcmV0", "Auth-Key": "c2VjcmV0", "X-Caller": "101"}
    stored = RawRequest("GET", b"a=1", given).without_secrets()
    assert "c2VjcmV0" not in repr(stored)
    assert stored.headers["X-Caller"] == "101"
    assert stored.query == b"a=1"
    assert given["Cookie"] == "s=c2VjcmV0"


# ---- what was wrapped, and what was cut off

CALL = {"uniqueid": "1", "userfield": "380671112233"}
AS_FORM = b"uniqueid=1&userfield=380671112233"
AS_JSON = orjson.dumps(CALL)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def multipart(**parts: str) -> bytes:
    each = "".join(f'--X\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in parts.items())
    return f"{each}--X--\r\n".encode()


def rpc(params: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "route", "params": params})


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(AS_JSON, mtime=0), id="gzip"),
        pytest.param(gzip.compress(AS_FORM, mtime=0), id="gzip of a form"),
        pytest.param(zlib.compress(AS_JSON), id="zlib"),
        pytest.param(multipart(**CALL), id="multipart"),
        pytest.param(gzip.compress(multipart(**CALL), mtime=0), id="gzip of multipart"),
        pytest.param(rpc(AS_JSON.decode()), id="params as JSON text"),
        pytest.param(rpc(AS_FORM.decode()), id="params as a form"),
        pytest.param(rpc([AS_JSON.decode()]), id="params as an array of a text"),
        pytest.param(rpc([CALL]), id="params as an array of one"),
        pytest.param(orjson.dumps({name: [value] for name, value in CALL.items()}), id="arrays of one"),
        pytest.param(orjson.dumps([CALL]), id="an array of one object"),
        pytest.param(b"uniqueid[]=1&userfield[0]=380671112233", id="arrays of one in a form"),
        pytest.param(b'uniqueid=["1"]&userfield=["380671112233"]', id="arrays of one as texts in a form"),
        pytest.param(b'data=[{"uniqueid":"1","userfield":"380671112233"}]', id="an array of one object in a form"),
        pytest.param(b"{'uniqueid': '1', 'userfield': '380671112233'}", id="single quotes"),
        pytest.param(b'{"uniqueid":"1","userfield":380671112233.0}', id="a float"),
        pytest.param(b'{"uniqueid":"1","userfield":0671112233}', id="a zero in front"),
        pytest.param(b'{"uniqueid":"1","uniqueid":"","userfield":"380671112233","userfield":null}', id="names twice"),
    ],
)
@pytest.mark.parametrize("label", ["", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_call_is_read_however_it_is_wrapped(data: bytes, label: str) -> None:
    call = parse_call(RawRequest("POST", content_type=label, body=data), HookSettings()).call
    assert (call.call_id, call.caller) == ("1", "380671112233")


def test_a_deflated_body_without_its_head_is_read_by_its_label() -> None:
    raw = RawRequest("POST", headers={"CONTENT_ENCODING": "deflate"}, body=raw_deflate(AS_FORM))
    assert read_request(raw).body == CALL
    plain = RawRequest("POST", headers={"Accept-Encoding": "deflate", "Content-Encoding": "gzip"}, body=AS_FORM)
    assert read_request(plain).body == CALL, "a label that is wrong, or another's, does no harm"


def test_a_packed_body_is_unpacked_no_further_than_a_body_may_be_long() -> None:
    sent = body(gzip.compress(b"uniqueid=1&x=" + b"x" * 50_000_000))
    assert sent.body == {"uniqueid": "1"}
    assert told(sent.problems)[0] == "The body is larger than 65536 bytes; only its beginning was read."


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (
            "answer=json?userfield=380671112233&uniqueid=1",
            {"answer": "json", "userfield": "380671112233", "uniqueid": "1"},
        ),
        ("a=1?b=2?c=3", {"a": "1", "b": "2", "c": "3"}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("a=%2B380?b=2", {"a": "+380", "b": "2"}),
        ("page=https://x.test/p?utm=1&b=2", {"page": "https://x.test/p?utm=1", "b": "2"}),
        ("page=https%3A%2F%2Fx.test%2Fp?utm=1", {"page": "https://x.test/p?utm=1"}),
        ("q=what?&b=2", {"q": "what?", "b": "2"}),
        ("uniqueid=%CALLID%&b=a%20%DATE%", {"uniqueid": "%CALLID%", "b": "a %DATE%"}),
        ("a=1&amp;b=2&amp;c=3", {"a": "1", "b": "2", "c": "3"}),
    ],
)
def test_a_second_question_mark_begins_another_parameter(data: str, named: dict[str, str]) -> None:
    assert query(data).query == named


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        (b'{"uniqueid":"1","userfield":38067111223', {"uniqueid": "1"}),
        (b'{"uniqueid":"1","userfield":"38067111223', {"uniqueid": "1"}),
        (b'{"uniqueid":"1","userfield":"380671112233\\', {"uniqueid": "1"}),
        (
            b'{"client":{"phone":"380501112233"},"uniqueid":"1","userfield":38',
            {"client.phone": "380501112233", "uniqueid": "1"},
        ),
        (b'{"jsonrpc":"2.0","id":1,"params":{"uniqueid":"1","userfield":38', {"uniqueid": "1"}),
        (multipart(**CALL)[:-12], {"uniqueid": "1"}),
        (gzip.compress(AS_FORM, mtime=0)[:-12], {"uniqueid": "1"}),
    ],
)
def test_what_was_cut_off_is_not_believed_and_named(data: bytes, kept: dict[str, str]) -> None:
    sent = body(data)
    assert sent.body == kept
    assert any("'userfield' was cut off" in problem for problem in told(sent.problems))
    assert parse_call(RawRequest("POST", body=data), HookSettings()).call.caller == ""


@pytest.mark.parametrize("place", range(1, len(AS_FORM)))
def test_a_body_that_came_in_part_asserts_no_part_of_a_value(place: int) -> None:
    for whole in (AS_FORM, AS_JSON):
        raw = RawRequest("POST", body=whole[:place], is_cut=place < len(whole))
        assert set(read_request(raw).body.items()) <= set(CALL.items())


@pytest.mark.parametrize("number", [b"0671112233", b"067 111 22 33", b"067\t111 22-33", b"+38 (067) 111 22 33"])
def test_a_number_without_quotes_is_read_whole(number: bytes) -> None:
    for data in (b'{"uniqueid":"1","userfield":%b,"dst":"101"}' % number, b"{uniqueid: 1, userfield: %b }" % number):
        call = parse_call(RawRequest("POST", body=data), HookSettings()).call
        assert (call.call_id, call.caller) == ("1", "380671112233")


def test_nested_values_of_broken_json_are_not_the_calls() -> None:
    call = parse_call(
        RawRequest("POST", body=b'{"uniqueid":"1","client":{"phone":"380501112233"},}'), HookSettings()
    ).call
    assert (call.call_id, call.caller, call.params["client.phone"]) == ("1", "", "380501112233")


def test_a_header_sent_twice_has_its_value_once() -> None:
    sent = headers({"Uniqueid": "1, 1", "X-Userfield": "380671112233,380671112233", "Name": "Lee, Ann", "Dst": ", 101"})
    assert sent == {"uniqueid": "1", "userfield": "380671112233", "name": "Lee, Ann", "dst": "101"}
