"""The worker's waiting room, by slow, broken and oversized clients on real sockets."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from router.worker import PAGES
from tests.test_gunicorn_conf import Server, running

ASK = b"GET /hook/t?x=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process, which no test stops."""
    with running(tmp_path_factory.mktemp("server"), WEB_CONCURRENCY="1") as started:
        yield started


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """One process of the test's own."""
    with running(tmp_path, WEB_CONCURRENCY="1") as started:
        yield started


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while data := client.recv(65536):
        answer += data
    return answer


def test_slow_clients_hold_up_nobody(server: Server) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(64)]
        for client in slow:
            client.send(ASK[:30])
        for _ in range(20):
            with connect(server) as quick:
                quick.send(ASK)
                assert read_all(quick).startswith(b"HTTP/1.1 200")
        slow[0].send(ASK[30:])
        assert read_all(slow[0]).startswith(b"HTTP/1.1 200"), "and who was slow gets an answer in the end"


def test_clients_that_do_not_close_hold_up_nobody(server: Server) -> None:
    with ExitStack() as stack:
        # gunicorn alone waits two seconds for each to close: the last of these would run into its time limit.
        clients = [stack.enter_context(connect(server)) for _ in range(10)]
        for client in clients:
            client.send(ASK)
        for client in clients:
            assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_in_pieces_is_read_whole(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n")
        for _ in range(7):
            client.send(b"x" * 10_000)
            time.sleep(0.01)
        assert b'"body":70000' in read_all(client).replace(b" ", b"")


def test_a_chunked_body_is_read_whole(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        time.sleep(0.05)
        client.send(b"0\r\n\r\n")
        assert b'"body":5' in read_all(client).replace(b" ", b"")


def test_a_giant_body_gets_its_answer(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t?slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
        client.sendall(b"x" * 3_000_000)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_who_breaks_off_is_forgotten(server: Server) -> None:
    for _ in range(20):
        with connect(server) as client:
            client.send(ASK[:20])
    with connect(server) as client:
        client.send(ASK)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_request_still_arriving_at_the_end_is_answered(mortal: Server) -> None:
    with connect(mortal) as client:
        client.send(ASK[:30])
        time.sleep(0.3)
        mortal.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        client.send(ASK[30:])
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_who_has_connected_is_answered_at_the_end(mortal: Server) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(connect(mortal))
        busy.send(b"GET /hook/t?slow HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)  # the only process is at work now: these wait where nobody has taken them
        waiting = [stack.enter_context(connect(mortal)) for _ in range(64)]
        for client in waiting:
            client.send(ASK)
        mortal.process.send_signal(signal.SIGTERM)
        for client in [busy, *waiting]:
            assert read_all(client).startswith(b"HTTP/1.1 200")


def test_the_time_for_which_a_request_waited_is_known(server: Server) -> None:
    with connect(server) as busy, connect(server) as waiting:
        busy.send(b"GET /hook/t?slow HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)  # the only process is at work now
        waiting.send(ASK)
        read_all(busy)
        assert waited(read_all(waiting)) > 0.3


def test_a_signal_does_not_keep_it_busy(server: Server) -> None:
    (worker,) = children(server.process.pid)
    os.kill(worker, signal.SIGUSR1)  # reopen the log files
    with connect(server) as client:
        client.send(ASK)
        assert read_all(client).startswith(b"HTTP/1.1 200")
    before = cpu_seconds(worker)
    time.sleep(1)
    assert cpu_seconds(worker) - before < 0.5


def waited(answer: bytes) -> float:
    """Seconds from the request's arrival to the answer, as the worker knows them."""
    seconds: float = json.loads(answer.partition(b"\r\n\r\n")[2])["waited"]
    return seconds


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_call_outlives_the_process_that_is_killed_while_answering_it(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server, connect(server) as client:
        client.send(b"GET /hook/t?slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        server.wait_until(lambda: (tmp_path / "slow").exists() and (tmp_path / "slow").read_text())
        answering = int((tmp_path / "slow").read_text())
        os.kill(answering, signal.SIGKILL)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body)["pid"] != answering
        assert json.loads(body)["waited"] > 0.4, "it waited since the first took it"
    assert "in place of a process that died" in server.log.read_text()


def test_a_call_that_kills_whoever_answers_it_is_not_handed_on_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server, connect(server) as client:
        client.send(b"GET /hook/t?deadly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(client) == b""
        server.wait_until(lambda: len(server.files("deadly-")) == 2)
        with connect(server) as other:
            other.send(ASK)
            assert read_all(other).startswith(b"HTTP/1.1 200")
        assert len(server.files("deadly-")) == 2


def test_what_is_no_call_is_not_asked_twice(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server, connect(server) as client:
        client.send(b"POST /p/acme/agents?deadly HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert read_all(client) == b""
        with connect(server) as other:
            other.send(ASK)
            assert read_all(other).startswith(b"HTTP/1.1 200")
        assert len(server.files("deadly-")) == 1


def test_calls_go_before_the_pages_that_wait(server: Server) -> None:
    page = b"GET /p/acme/board?slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:
        pages = [stack.enter_context(connect(server)) for _ in range(4)]
        for client in pages:
            client.send(page)
        time.sleep(0.1)  # the only process is at work on the first
        with connect(server) as call:
            call.send(ASK)
            assert read_all(call).startswith(b"HTTP/1.1 200")
        unanswered = [client for client in pages if not select.select([client], [], [], 0)[0]]
        assert len(unanswered) >= 2
        for client in pages:
            assert read_all(client).startswith(b"HTTP/1.1 404"), "but no page is forgotten"


def test_more_pages_than_can_wait_are_told_to_come_back(server: Server) -> None:
    with ExitStack() as stack:
        busy = stack.enter_context(connect(server))
        busy.send(b"GET /hook/t?slow HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.1)
        pages = [stack.enter_context(connect(server)) for _ in range(PAGES + 8)]
        for client in pages:
            client.send(b"GET /p/acme/board HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = [read_all(client).split()[1] for client in pages]
        assert answers.count(b"404") >= PAGES
        assert answers.count(b"503") >= 4, "some of the first were answered before the last came"
        assert len(answers) == answers.count(b"404") + answers.count(b"503")
