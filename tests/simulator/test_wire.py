"""One request, one deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from simulator.wire import WireError, send_request


@contextlib.contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()
        thread.join(60)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbob and more",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbob",
        b"HTTP/1.0 200 OK\r\n\r\nbob",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n2;x=y\r\nob\r\n0\r\n\r\n",
    ],
)
def test_reads_a_whole_body_however_its_end_is_told(answer: bytes) -> None:
    with server(lambda connection: connection.sendall(answer)) as address:
        reply = send_request(address, b"GET / HTTP/1.1\r\n\r\n", timeout=60)
    assert (reply.status, reply.body) == (200, b"bob")


def trickle(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbob":
        connection.send(bytes([byte]))
        time.sleep(0.2)


def test_a_trickle_does_not_stretch_the_deadline() -> None:
    with server(trickle) as address, pytest.raises(WireError) as caught:
        send_request(address, b"GET / HTTP/1.1\r\n\r\n", timeout=0.3)
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nbob"],
    ids=["nothing", "ssh", "half"],
)
def test_half_an_answer_is_none(answer: bytes) -> None:
    with server(lambda connection: connection.sendall(answer)) as address, pytest.raises(WireError) as caught:
        send_request(address, b"GET / HTTP/1.1\r\n\r\n", timeout=60)
    assert caught.value.kind == "broken"


def test_says_when_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, not listening: refused, and nobody else's
        with pytest.raises(WireError) as caught:
            send_request(bound.getsockname(), b"GET / HTTP/1.1\r\n\r\n", timeout=60)
    assert caught.value.kind == "refused"
