"""Every sample over a socket, through gunicorn as the Procfile configures it: nothing is lost on the way in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import orjson
import pytest

from router.core.model import Call
from router.hook.fields import HookSettings
from router.hook.formats.ringostat import parse_call, parse_event, render_decision
from router.hook.wire import RawRequest
from simulator.forms import FORMS, Endpoint, Style, answer_form, build_request, read_answer
from simulator.processes import Server, gunicorn
from tests.hook.sample_files import Sample, load_samples

SAMPLES = load_samples("ringostat")

Send = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def send(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """Sends the bytes of one request to the server and gives the bytes of its answer."""
    app = gunicorn("tests.hook.echo_app:app")
    with Server(tmp_path_factory.mktemp("gunicorn"), app, WEB_CONCURRENCY="1") as server:

        def send(data: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                connection.sendall(data)
                return b"".join(iter(lambda: connection.recv(65_536), b""))

        yield send


def received(answer: bytes) -> RawRequest:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer[:300]
    method, query, headers, content_type, sent_body = orjson.loads(body)
    return RawRequest(method, bytes.fromhex(query), headers, content_type, bytes.fromhex(sent_body))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_sample_means_the_same_after_a_real_server(sample: Sample, send: Send) -> None:
    raw = received(send(sample.over_http("/hook/TOKEN")))
    settings = sample.settings
    if "event" in sample.sections:
        assert parse_event(raw, settings) == parse_event(sample.request, settings)
        return
    question = parse_call(raw, settings)
    assert question == parse_call(sample.request, settings)
    assert render_decision(sample.destination, question, settings) == sample.answer


STYLES = {
    "as text": Style(),
    "the step percent-encoded in JSON": Style(encoded_names=["step_forward"]),
    "all percent-encoded in JSON": Style(encoded_names=None),
    "raw UTF-8": Style(query_encoding="raw-utf-8"),
    "raw cp1251": Style(query_encoding="raw-cp1251"),
    "no Content-Type": Style(content_type=""),
    "a wrong Content-Type": Style(content_type="text/html; charset=koi8-r"),
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())
@pytest.mark.parametrize("form", FORMS)
def test_what_the_simulated_pbx_asks_is_understood_and_it_understands_the_answer(
    form: str, style: Style, send: Send
) -> None:
    fields = {
        "uniqueid": "ua9_-1790775458.2139025",
        "step_forward": "webhookNumber:120",
        "E164": "+380501112233",
        "dst": "380441112233",
        "utm_campaign": "Реклама + знижка 20%!",
    }
    endpoint = Endpoint.parse("http://127.0.0.1/hook/TOKEN?department=sales")
    raw = received(send(build_request(form, endpoint, fields, style, rpc_id=77)))
    question = parse_call(raw, HookSettings())
    assert question.call == Call(
        call_id="ua9_-1790775458.2139025",
        step="webhookNumber:120",
        caller="380501112233",
        dialed="380441112233",
        params={"department": "sales"} | (fields if form != "headers" else {n.lower(): v for n, v in fields.items()}),
    )
    assert question.problems == ()
    answer, _ = render_decision("380671234567", question, HookSettings())
    assert read_answer(answer_form("auto", form), answer, key="destination", rpc_id=77) == "380671234567"


def test_a_body_of_64_kib_in_chunks_arrives_whole(send: Send) -> None:
    body = b'{"uniqueid":"1.1","x":"%b"}' % (b"x" * 65_000)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:1], body[1:40_000], body[40_000:]))
    head = b"POST /hook/TOKEN HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert received(send(head + chunks + b"0\r\n\r\n")).body == body
