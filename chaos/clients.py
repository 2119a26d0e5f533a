"""Load the server with other clients, which must not delay calls. They run in separate processes, so that they do not
slow down the callers. A job is a function of an event, which ends it, and of texts.
"""

from __future__ import annotations

import multiprocessing
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing.synchronize import Event
from urllib.parse import urlsplit

import requests

from simulator.service import Service

SLOW_CLIENTS = 300
CHUNKS = 340_000  # of a byte: some 2 MB
PASSWORD = "a password that nobody guesses"  # noqa: S105 - of a service that runs for a minute
PAGES = ("board", "board/live", "calls", "agents", "groups", "rules", "hook", "settings", "calls?caller=050")


@contextmanager
def at_work(count: int, job: Callable[..., None], *texts: str) -> Iterator[None]:
    """Run this job in `count` processes until the block ends."""
    spawn = multiprocessing.get_context("spawn")
    is_over, begun = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_work, args=(count, job, is_over, begun, texts), daemon=True)
    process.start()
    try:
        begun.wait(30)
        yield
    finally:
        is_over.set()
        process.join(15)
        process.kill()


def _work(count: int, job: Callable[..., None], is_over: Event, begun: Event, texts: tuple[str, ...]) -> None:
    for _ in range(count):
        threading.Thread(target=job, args=(is_over, *texts), daemon=True).start()
    begun.set()
    is_over.wait()


def sign_in(service: Service) -> str:
    """Make a viewer's account and sign in as people do. Return the cookie."""
    service.run("user", "add", "visitor@example.org", "--role", "viewer", "--password-stdin", given=PASSWORD)
    with requests.Session() as browser:
        form = browser.get(f"{service.url}/sign-in", timeout=30).text
        token = (re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form) or ["", ""])[1]
        given = {"csrf_token": token, "email": "visitor@example.org", "password": PASSWORD}
        browser.post(f"{service.url}/sign-in", data=given, timeout=30, allow_redirects=False)
        if browser.get(f"{service.url}/p/acme/calls", timeout=30, allow_redirects=False).status_code != 200:
            raise RuntimeError("could not sign in")
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)


def send_slowly(is_over: Event, url: str) -> None:
    """Send a byte a second on three hundred connections: by turns of a hook's head, its body, a page's head, a form."""
    path = urlsplit(url).path
    texts = [
        f"GET {path}?caller=380501112233&name={'x' * 500} HTTP/1.1\r\nHost: x\r\n".encode(),
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 900,
        f"GET /sign-in HTTP/1.1\r\nHost: x\r\nX-Long: {'x' * 500}\r\n".encode(),
        b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900,
    ]
    crowd = [_Slow(url, texts[number % len(texts)]) for number in range(SLOW_CLIENTS)]
    while True:
        for one in crowd:
            one.send_a_byte()
        if is_over.wait(1.0):
            return


class _Slow:
    """One slow connection, replaced by another when the server closes it."""

    def __init__(self, url: str, text: bytes) -> None:
        self._address, self._text, self._sent = (urlsplit(url).hostname, urlsplit(url).port), text, 0
        self._socket: socket.socket | None = None

    def send_a_byte(self) -> None:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, timeout=1.0)
                # A request with a body sends its head at once, and only the body slowly.
                self._sent = self._text.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in self._text else 0
                self._socket.sendall(self._text[: self._sent])
            self._socket.sendall(self._text[self._sent : self._sent + 1])
            self._sent += 1
        except OSError:
            if self._socket is not None:
                self._socket.close()
            self._socket = None


def send_chunks(is_over: Event, url: str) -> None:
    """Send a form of two megabytes in chunks of one byte, again and again."""
    kind = b"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = b"POST /sign-in HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + kind
    form = head + b"1\r\na\r\n" * CHUNKS + b"0\r\n\r\n"
    while not is_over.wait(0.05):
        with suppress(OSError), _connected(url) as sock:
            sock.sendall(form)
            sock.recv(65536)


def download_slowly(is_over: Event, url: str, cookie: str) -> None:
    """Download all calls as CSV, reading a kilobyte now and then."""
    head = f"GET /p/acme/calls.csv HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nCookie: {cookie}\r\n\r\n"
    while not is_over.wait(0.5):  # again after a refusal or a cut connection
        with suppress(OSError), _connected(url, receive_buffer=4096) as sock:
            sock.sendall(head.encode())
            while not is_over.wait(0.5) and sock.recv(1024):
                pass


def hammer(is_over: Event, url: str, cookie: str) -> None:
    """Request every page of a viewer without a pause, and then a URL of 2 MB."""
    rest = f" HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n".encode()
    requests = [f"GET /p/acme/{page}".encode() + rest for page in PAGES]
    requests.append(b"GET /p/acme/calls?caller=" + b"5" * 2_000_000 + rest)
    for request in cycle(requests):
        if is_over.is_set():
            return
        with suppress(OSError), _connected(url) as sock:
            sock.sendall(request)
            while sock.recv(65536):
                pass


@contextmanager
def _connected(url: str, receive_buffer: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as sock:
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(5.0)
        sock.connect((urlsplit(url).hostname or "", urlsplit(url).port or 80))
        yield sock
