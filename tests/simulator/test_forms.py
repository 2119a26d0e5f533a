"""How the demo PBX asks, byte by byte, and how strictly it reads."""

from __future__ import annotations

import json

import pytest

from simulator.forms import (
    FORMS,
    Endpoint,
    Style,
    UnreadableAnswerError,
    answer_form,
    build_request,
    read_answer,
)

HOOK = Endpoint.parse("http://user:p%40ss@127.0.0.1:8000/hook/t0k?answer=auto")
FIELDS = {"call_id": "pkv", "step_forward": "webhookNumber:120", "utm_campaign": "весна"}
STEP = Style(encoded_names=("step_forward",))


def split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def test_asks_as_the_documented_request_does() -> None:
    first, headers, body = split(build_request("json", HOOK, FIELDS, STEP))
    assert first == "POST /hook/t0k?answer=auto HTTP/1.1"
    assert headers == {
        "Host": "127.0.0.1:8000",
        "User-Agent": "ringostat HTTP Client v1.1",
        "Authorization": "Basic dXNlcjpwQHNz",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    assert body == '{"call_id":"pkv","step_forward":"webhookNumber%3A120","utm_campaign":"весна"}'.encode()


@pytest.mark.parametrize(
    ("form", "method", "where"),
    [("get", "GET", "query"), ("delete", "DELETE", "query"), ("post-query", "POST", "query"),
     ("post-form", "POST", "body"), ("put", "PUT", "body")],
)  # fmt: skip
def test_encodes_parameters_once_in_a_query_or_a_form(form: str, method: str, where: str) -> None:
    first, headers, body = split(build_request(form, HOOK, FIELDS, STEP))
    encoded = "call_id=pkv&step_forward=webhookNumber%3A120&utm_campaign=%D0%B2%D0%B5%D1%81%D0%BD%D0%B0"
    target = "/hook/t0k?answer=auto" + ("&" + encoded if where == "query" else "")
    assert first == f"{method} {target} HTTP/1.1"
    assert body.decode() == (encoded if where == "body" else "")
    assert headers.get("Content-Type") == ("application/x-www-form-urlencoded" if where == "body" else None)


def test_asks_json_rpc_with_an_object_or_an_array() -> None:
    style = Style(rpc_method="whereTo")
    _, _, body = split(build_request("json-rpc", HOOK, {"call_id": "pkv"}, style, rpc_id=7))
    assert json.loads(body) == {"jsonrpc": "2.0", "id": 7, "method": "whereTo", "params": {"call_id": "pkv"}}
    _, _, body = split(build_request("json-rpc-array", HOOK, {"call_id": "pkv"}, style, rpc_id=7))
    assert json.loads(body)["params"] == [{"call_id": "pkv"}]


def test_no_parameter_breaks_out_of_its_header_line() -> None:
    _, headers, _ = split(build_request("headers", HOOK, {"name": "a\r\nX-Evil: 1", "city": "Київ"}, STEP))
    assert headers["name"] == "a%0D%0AX-Evil: 1"
    assert headers["city"] == "%D0%9A%D0%B8%D1%97%D0%B2"
    assert "X-Evil" not in headers


def test_sends_raw_bytes_in_the_query_when_told_to() -> None:
    for charset in ("utf-8", "cp1251"):
        style = Style(query_encoding=f"raw-{charset}")  # type: ignore[arg-type]
        request = build_request("get", HOOK, {"utm": "весна &=1"}, style)
        assert b"&utm=" + "весна".encode(charset) + b"%20%26%3D1 HTTP/1.1" in request


def test_sends_the_content_type_that_it_is_told_or_none() -> None:
    assert (
        split(build_request("json", HOOK, FIELDS, Style(content_type="text/plain")))[1]["Content-Type"] == "text/plain"
    )
    assert "Content-Type" not in split(build_request("json", HOOK, FIELDS, Style(content_type="")))[1]


def test_expects_the_answer_that_fits_the_question() -> None:
    expected = {form: answer_form("auto", form) for form in FORMS}
    assert {form for form, answer in expected.items() if answer == "json-rpc"} == {"json-rpc", "json-rpc-array"}
    assert {form for form, answer in expected.items() if answer == "json"} == {"json"}
    assert answer_form("http", "json") == "http"


@pytest.mark.parametrize(
    ("answer", "body", "read"),
    [
        ("http", "demo_bob", "demo_bob"),
        ("http", "", ""),
        ("json", '{"to":"demo_bob"}', "demo_bob"),
        ("json", '{"to":380441234567}', "380441234567"),
        ("json-rpc", '{"jsonrpc":"2.0","id":7,"result":{"to":"demo_bob"}}', "demo_bob"),
        ("json-rpc", '{"jsonrpc":"2.0","id":7,"result":"demo_bob"}', "demo_bob"),
    ],
)
def test_reads_each_form_of_answer(answer: str, body: str, read: str) -> None:
    assert read_answer(answer, body.encode(), key="to", rpc_id=7) == read


@pytest.mark.parametrize(
    ("answer", "body", "why"),
    [
        ("http", b"demo_bob\n", "white space"),
        ("http", b"\xff", "not UTF-8"),
        ("json", b"demo_bob", "not JSON"),
        ("json", b'["demo_bob"]', "no object"),
        ("json", b'{"destination":"demo_bob"}', "no member 'to'"),
        ("json", b'{"to":true}', "neither a string"),
        ("json", b'{"to":null}', "neither a string"),
        ("json-rpc", b'{"jsonrpc":"2.0","id":8,"result":"demo_bob"}', "for id 7"),
        ("json-rpc", b'{"id":7,"result":"demo_bob"}', "JSON-RPC 2.0"),
        ("json-rpc", b'{"jsonrpc":"2.0","id":7,"error":{"code":1}}', "JSON-RPC 2.0"),
    ],
)
def test_forgives_nothing_in_an_answer(answer: str, body: bytes, why: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=why):
        read_answer(answer, body, key="to", rpc_id=7)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "127.0.0.1:80/hook", "http:///hook"])
def test_refuses_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        Endpoint.parse(url)
