"""Send one HTTP request over its own socket, with one deadline for connecting and the whole exchange.

It uses plain sockets because a PBX gives up after N seconds even if bytes arrive slowly, while the timeouts of HTTP
libraries start again with each byte; and because a simulator must control the bytes that it sends.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

_BODY_LIMIT = 1 << 20


class WireError(Exception):
    """There was no answer. `kind`: `refused` (nobody listens), `timeout`, or `broken` (cut off, or not HTTP)."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Hangup:
    """The open connections, to close all of them at once."""

    def __init__(self) -> None:
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._over = False

    def now(self) -> None:
        """Close all connections, and each one that is opened later."""
        with self._lock:
            self._over = True
            for connection in self._open:
                _wake(connection)

    @contextmanager
    def may_break(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
            if self._over:
                _wake(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


def _wake(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def send_request(
    address: tuple[str, int], request: bytes, *, timeout: float, tls: bool = False, hangup: Hangup | None = None
) -> Reply:
    """Send these bytes and read the answer, all within `timeout` real seconds. Raises WireError."""
    deadline = time.monotonic() + timeout
    try:
        with (
            socket.create_connection(address, timeout=timeout) as plain,
            hangup.may_break(plain) if hangup is not None else nullcontext(),
        ):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not tls:
                return _converse(plain, request, deadline)
            with ssl.create_default_context().wrap_socket(plain, server_hostname=address[0]) as secure:
                return _converse(secure, request, deadline)
    except TimeoutError as error:
        raise WireError("timeout", f"no whole answer within {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise WireError("refused", f"nobody listens on {address[0]}:{address[1]}") from error
    except OSError as error:
        raise WireError("broken", str(error)) from error


def _converse(connection: socket.socket, request: bytes, deadline: float) -> Reply:
    connection.sendall(request)
    received = bytearray()
    end_of_head = -1
    while end_of_head < 0:
        _receive(connection, received, deadline, "an answer")
        end_of_head = received.find(b"\r\n\r\n")
    head = bytes(received[:end_of_head]).decode("latin-1").split("\r\n")
    del received[: end_of_head + 4]
    version, _, rest = head[0].partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise WireError("broken", f"not HTTP: {head[0][:60]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Reply(int(status), headers, _read_chunks(connection, received, deadline))
    length = headers.get("content-length", "")
    if length.isdigit():
        while len(received) < int(length):
            _receive(connection, received, deadline, "the whole body")
        return Reply(int(status), headers, bytes(received[: int(length)]))
    while _receive(connection, received, deadline, None):
        pass
    return Reply(int(status), headers, bytes(received))


def _receive(connection: socket.socket, received: bytearray, deadline: float, wanted: str | None) -> bool:
    """Append the next bytes. Return False at the end; raise WireError there if `wanted` names a missing part."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    more = connection.recv(65536)
    if not more and wanted is not None:
        raise WireError("broken", f"closed before {wanted}")
    received += more
    if len(received) > _BODY_LIMIT:
        raise WireError("broken", "an answer of more than 1 MiB")
    return bool(more)


def _read_chunks(connection: socket.socket, received: bytearray, deadline: float) -> bytes:
    body = bytearray()
    while True:
        while (end := received.find(b"\r\n")) < 0:
            _receive(connection, received, deadline, "the size of a chunk")
        try:
            size = int(bytes(received[:end]).split(b";")[0], 16)
        except ValueError as error:
            raise WireError("broken", "a chunk without a size") from error
        while len(received) < end + 2 + size + 2:
            _receive(connection, received, deadline, "the whole chunk")
        if size == 0:
            return bytes(body)
        body += received[end + 2 : end + 2 + size]
        del received[: end + 2 + size + 2]
