"""What the web server lets in and what it refuses, by slow, broken and oversized clients on real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.test_gunicorn_conf import Server

ASK = b"GET /hook/t?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
IN_CHUNKS = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process, which no test stops."""
    with Server(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1") as started:
        yield started


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while data := client.recv(65536):
        answer += data
    return answer


def is_refused(server: Server, sent: bytes) -> bool:
    """By an answer that says so, or by the end of the connection, which may overtake it."""
    with connect(server) as client:
        try:
            client.sendall(sent)
            answer = read_all(client)
        except (BrokenPipeError, ConnectionResetError):
            return True
        return answer == b"" or answer.split()[1].startswith(b"4")


def told(answer: bytes) -> dict[str, Any]:
    """What the small app saw of the request."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer[:200]
    seen: dict[str, Any] = json.loads(body)
    return seen


def is_answered(server: Server) -> bool:
    """Is a call answered, though others hold their connections open? Those would never end by themselves."""
    with connect(server) as quick:
        quick.send(ASK)
        return read_all(quick).startswith(b"HTTP/1.1 200")


STALLED = {
    "half a request line": ASK[:12],
    "half a head": b"GET /hook/t HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8000) for n in range(17)),
    "half a body": b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 60_000,
    "half a form": b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 140_000,
    "half the chunks": IN_CHUNKS % b"/hook/t" + b"1\r\na\r\n" * 5_000,
    "nothing but an empty line": b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", STALLED.values(), ids=STALLED)
def test_whoever_stalls_holds_up_nobody(server: Server, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(server)).sendall(sent)
        assert is_answered(server)


def test_whoever_does_not_take_the_answer_holds_up_nobody(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connect(server)).send(b"GET /long?30 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert is_answered(server)


def test_whoever_goes_away_with_the_answer_half_taken_ends_nothing(server: Server) -> None:
    for _ in range(4):
        with connect(server) as client:
            client.send(b"GET /long?6 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    assert is_answered(server)


def test_a_body_of_very_many_chunks_is_refused(server: Server) -> None:
    assert is_refused(server, IN_CHUNKS % b"/sign-in" + b"1\r\na\r\n" * 300_000 + b"0\r\n\r\n")
    with connect(server) as client:
        client.sendall(IN_CHUNKS % b"/hook/t" + b"5\r\nhello\r\n5;x=1\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert told(read_all(client))["body"] == 10


def test_a_hook_may_have_a_long_address_and_a_page_may_not(server: Server) -> None:
    landing = b"x" * 60_000
    assert bytes.fromhex(told(server.get(b"/hook/t?landing=" + landing))["query"]) == b"landing=" + landing
    for path in (b"/projects?next=" + landing, b"/hook/t?landing=" + b"x" * 200_000):
        assert is_refused(server, b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path)


@pytest.mark.parametrize("target", [b"/hook/t?name=Ann Lee", b"/hook/t?name=Ann  Lee&x= "])
def test_a_raw_space_in_the_address_of_a_hook_belongs_to_it(server: Server, target: bytes) -> None:
    query = bytes.fromhex(told(server.get(target))["query"])
    assert query == target.partition(b"?")[2].replace(b" ", b"%20")


def test_a_content_type_sent_twice_is_read_once(server: Server) -> None:
    twice = (b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded")
    assert told(server.get(b"/hook/t", *twice))["content_type"] == "application/json"


@pytest.mark.parametrize("name", [b"SCRIPT_NAME", b"Script_Name", b"PATH_INFO"])
def test_no_header_tells_us_where_we_are(server: Server, name: bytes) -> None:
    assert told(server.get(b"/hook/t", name + b": /elsewhere"))["script_name"] == ""


def test_whoever_waits_for_a_word_before_the_body_gets_it(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n")
        client.send(b"Content-Length: 5\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert told(read_all(client))["body"] == 5


def test_a_giant_body_gets_its_answer(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
        client.sendall(b"x" * 3_000_000)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_whoever_has_connected_is_answered_at_the_end(tmp_path: Path) -> None:
    with Server(tmp_path, WEB_CONCURRENCY="1") as mortal, ExitStack() as stack:
        busy = [stack.enter_context(connect(mortal)) for _ in range(16)]
        for client in busy:
            client.send(b"GET /hook/t?slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        mortal.wait_until((tmp_path / "slow").exists)
        os.kill(mortal.pid, signal.SIGTERM)
        assert any(read_all(client).startswith(b"HTTP/1.1 200") for client in busy)


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with Server(tmp_path, WEB_CONCURRENCY="1") as mortal:
        (first,) = mortal.workers()
        os.kill(first, signal.SIGKILL)
        mortal.wait_until(lambda: mortal.workers() not in ([], [first]))
        assert is_answered(mortal)


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_any_stock_worker_starts_and_answers(tmp_path: Path, worker: str) -> None:
    with Server(tmp_path, GUNICORN_CMD_ARGS=f"-k {worker}") as started:
        assert told(started.get(b"/hook/t?name=Ann Lee"))["query"]
