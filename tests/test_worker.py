"""The worker's waiting room, by slow, broken and oversized clients on real sockets."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from router.worker import OTHER_DESCRIPTORS, PAGES, SEND_SECONDS, TRAYS
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


def is_cut_off(client: socket.socket) -> bool:
    try:
        return read_all(client) == b""
    except ConnectionResetError:  # what it had sent was still unread
        return True


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


IN_CHUNKS = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
STALLED = {
    "a chunk's extension": IN_CHUNKS % b"/hook/t" + b"1;" + b"a" * 140_000,
    "many small chunks": IN_CHUNKS % b"/hook/t" + b"1\r\na\r\n" * 22_000,
    "a body": b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 60_000,
    "a form": b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"x" * 140_000,
    "a head": b"GET /hook/t HTTP/1.1\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"x" * 8000) for n in range(17)),
    "nothing but an empty line": b"\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", STALLED.values(), ids=STALLED)
def test_whoever_sends_much_and_then_stalls_holds_up_nobody(server: Server, sent: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(4):
            stalled = stack.enter_context(connect(server))
            stalled.sendall(sent)
        time.sleep(0.2)  # the only process has them
        began = time.monotonic()
        with connect(server) as quick:
            quick.send(ASK)
            assert read_all(quick).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < SEND_SECONDS / 2, "a caller waited for somebody who sends nothing"


def test_who_trickles_takes_no_descriptor_from_a_call(mortal: Server) -> None:
    """However few the system allows."""
    (first,) = children(mortal.process.pid)
    allowed = OTHER_DESCRIPTORS + 100
    resource.prlimit(mortal.process.pid, resource.RLIMIT_NOFILE, (allowed, allowed))
    os.kill(first, signal.SIGKILL)
    mortal.wait_until(lambda: first not in children(mortal.process.pid) != [])
    (worker,) = children(mortal.process.pid)
    with ExitStack() as stack:
        for _ in range(allowed):
            stack.enter_context(connect(mortal)).send(b"GET /hook/t?x=1 HTTP/1.1\r\n")
        for _ in range(3):
            with connect(mortal) as client:
                client.send(ASK)
                assert read_all(client).startswith(b"HTTP/1.1 200")
        assert sum(1 for _ in Path(f"/proc/{worker}/fd").iterdir()) < allowed - 50
    assert children(mortal.process.pid) == [worker], "it is still the same"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /hook/t HTTP/1.1\r\n" + b"X: %s\r\n" % (b"x" * 8000) * 140, b"431"),
        (b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 100_000, b"413"),
        (IN_CHUNKS % b"/sign-in" + b"10000\r\n" + b"x" * 2**22, b"413"),
    ],
    ids=["a head", "a page by its length", "a page in chunks"],
)  # fmt: skip
def test_what_is_too_long_is_refused_in_so_many_words(server: Server, sent: bytes, status: bytes) -> None:
    with connect(server) as client:
        client.sendall(sent)
        assert read_all(client).split()[1] == status


def test_half_a_form_does_not_pass_for_a_whole_one(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /p/acme/groups HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nname=Sales&member=1")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""


def test_a_call_that_breaks_off_is_answered_by_what_came(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nfrom=1")
        client.shutdown(socket.SHUT_WR)
        assert b'"body":6' in read_all(client).replace(b" ", b"")


def test_who_waits_for_a_word_before_the_body_gets_it(server: Server) -> None:
    with connect(server) as client:
        client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        assert b'"body":5' in read_all(client).replace(b" ", b"")


def test_who_does_not_take_the_answer_holds_up_nobody(server: Server) -> None:
    with ExitStack() as stack:
        stalled = [stack.enter_context(connect(server)) for _ in range(4)]
        for client in stalled:
            client.send(b"GET /long?6 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.5)  # the only process has sent what the connections take
        began = time.monotonic()
        with connect(server) as quick:
            quick.send(ASK)
            assert read_all(quick).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < SEND_SECONDS / 2, "a caller waited for somebody who takes nothing"
        for client in stalled:
            assert read_all(client).count(b"x") >= 6_000_000, "and who takes it late gets it whole"


def test_a_long_answer_is_sent_at_the_pace_of_the_client(server: Server) -> None:
    with connect(server) as client:
        client.send(b"GET /long?16 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)  # longer than the process looks at the client at a time
        assert read_all(client).count(b"x") >= 16_000_000
    with connect(server) as quick:
        quick.send(ASK)
        assert read_all(quick).startswith(b"HTTP/1.1 200")


def test_who_goes_away_with_the_answer_half_taken_keeps_nobody_busy(server: Server) -> None:
    (worker,) = children(server.process.pid)
    for _ in range(4):
        with connect(server) as client:
            client.send(b"GET /long?6 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
    time.sleep(0.5)
    before = cpu_seconds(worker)
    time.sleep(1)
    assert cpu_seconds(worker) - before < 0.5


def test_an_answer_that_is_leaving_at_the_end_is_sent_whole(mortal: Server) -> None:
    with connect(mortal) as client:
        client.send(b"GET /long?6 HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        mortal.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert read_all(client).count(b"x") >= 6_000_000


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


@pytest.mark.parametrize(
    ("first", "rest", "length"),
    [
        (b"5\r\nhello\r\n", b"0\r\n\r\n", 5),
        (
            b"c\r\nhello 0\r\n\r\n",
            b"!\r\n5;x=1\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n",
            17,
        ),  # what looks like the end is not
    ],
)
def test_a_chunked_body_is_read_whole(server: Server, first: bytes, rest: bytes, length: int) -> None:
    with connect(server) as client:
        client.send(IN_CHUNKS % b"/hook/t" + first)
        time.sleep(0.05)
        client.send(rest)
        assert b'"body":%d' % length in read_all(client).replace(b" ", b"")


def test_a_long_address_is_read(server: Server) -> None:
    with connect(server) as client:
        client.sendall(b"GET /hook/t?landing_page=%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 60_000))
        assert b"78" * 60_000 in read_all(client), "the query in hexadecimal"


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


def test_a_process_that_stands_still_keeps_no_call_from_the_others(tmp_path: Path) -> None:
    """The system tells one process of a connection, be it one that was just stopped."""
    with running(tmp_path, WEB_CONCURRENCY="2") as server:
        server.wait_until(lambda: len(children(server.process.pid)) == 2)
        for stopped in children(server.process.pid):
            os.kill(stopped, signal.SIGSTOP)
            try:
                for _ in range(8):
                    with connect(server) as client:
                        client.send(ASK)
                        assert read_all(client).startswith(b"HTTP/1.1 200")
            finally:
                os.kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize("pieces", [2, 3])
def test_a_call_outlives_the_process_that_is_killed_while_it_arrives(mortal: Server, pieces: int) -> None:
    """As the libraries of PBXs send it: the head, and then the body."""
    sent = b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    with connect(mortal) as client:
        client.send(sent)
        for _ in range(pieces - 2):
            time.sleep(0.1)
            client.send(b"01234")
        time.sleep(0.2)
        (first,) = children(mortal.process.pid)
        os.kill(first, signal.SIGKILL)
        mortal.wait_until(lambda: "in place of a process that died" in mortal.log.read_text())
        client.send(b"0123456789"[5 * (pieces - 2) :])
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert (json.loads(body)["body"], json.loads(body)["pid"] == first) == (10, False)


def test_as_many_calls_as_there_are_trays_outlive_the_process_they_arrive_at(mortal: Server) -> None:
    """One more, and the first of them is cut off."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(mortal)) for _ in range(TRAYS + 1)]
        for client in clients:
            client.send(b"POST /hook/t HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
            time.sleep(0.05)  # so that they are taken in this order
        time.sleep(0.2)
        (first,) = children(mortal.process.pid)
        os.kill(first, signal.SIGKILL)
        mortal.wait_until(lambda: mortal.log.read_text().count("in place of a process that died") == TRAYS)
        for client in clients[1:]:
            client.send(b"0123456789")
            assert json.loads(read_all(client).partition(b"\r\n\r\n")[2])["body"] == 10
        assert is_cut_off(clients[0])


def test_a_page_that_is_killed_while_it_arrives_is_asked_once(mortal: Server) -> None:
    with connect(mortal) as client:
        client.send(b"POST /p/acme/agents?deadly HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        time.sleep(0.2)
        (first,) = children(mortal.process.pid)
        os.kill(first, signal.SIGKILL)
        mortal.wait_until(lambda: "in place of a process that died" in mortal.log.read_text())
        client.send(b"name=")
        assert is_cut_off(client)
        mortal.wait_until(lambda: children(mortal.process.pid) != [])
        with connect(mortal) as other:
            other.send(ASK)
            assert read_all(other).startswith(b"HTTP/1.1 200")
    assert len(mortal.files("deadly-")) == 1


def test_a_call_that_kills_whoever_answers_it_is_not_handed_on_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server, connect(server) as client:
        client.send(b"GET /hook/t?deadly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert is_cut_off(client)
        server.wait_until(lambda: len(server.files("deadly-")) == 2)
        with connect(server) as other:
            other.send(ASK)
            assert read_all(other).startswith(b"HTTP/1.1 200")
        assert len(server.files("deadly-")) == 2


def test_what_is_no_call_is_not_asked_twice(tmp_path: Path) -> None:
    with running(tmp_path, WEB_CONCURRENCY="2") as server, connect(server) as client:
        client.send(b"POST /p/acme/agents?deadly HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert is_cut_off(client)
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
