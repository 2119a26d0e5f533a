"""A real HTTP server on loopback that does what a test scripts, down to the bytes. Shares nothing with the product."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    """One request as it came in; `connection` counts the server's connections from 1."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    connection: int


T = TypeVar("T")
Script = Callable[[Asked, socket.socket], bytes | None]


def with_time_enough(ask: Callable[[float], T], suffices: Callable[[T], bool]) -> tuple[T, float]:
    """Ask, with more and more seconds until they suffice. The outcome and the seconds."""
    seconds = 0.3
    while not suffices(outcome := ask(seconds)):
        assert seconds < 60, "there was time enough"
        seconds *= 3
    return outcome, seconds


def reply(body: bytes | str, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP answer that keeps the connection alive."""
    if isinstance(body, str):
        body = body.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def always(answer: bytes) -> Script:
    """The same answer to everything, over connections that stay open."""

    def script(asked: Asked, sock: socket.socket) -> bytes:
        return answer

    return script


def always_and_close(sent: bytes) -> Script:
    """The same bytes for every request, and then the end of the connection."""

    def script(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(sent)

    return script


class ScriptedServer:
    """Calls `script` for each request and sends what it returns; None means that the script used the socket itself,
    and the connection is closed. `hung_up` is set when a script could not write because the client had gone."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.hung_up = threading.Event()
        self._script = script
        self._tls = tls
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            try:
                if self._tls:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                    self._open.append(sock)
                    stack.callback(sock.close)
                while asked := _read_request(sock, number):
                    self.asked.append(asked)
                    answer = self._script(asked, sock)
                    if answer is None:
                        return
                    sock.sendall(answer)
            except OSError:
                self.hung_up.set()


def _read_request(sock: socket.socket, number: int) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        if not received:
            return None
        data += received
    head, body = data.split(b"\r\n\r\n", 1)
    request_line, *header_lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in header_lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += sock.recv(65536)
    method, target, _ = request_line.split(" ")
    split = urlsplit(target)
    return Asked(method, split.path, dict(parse_qsl(split.query)), headers, body, number)
