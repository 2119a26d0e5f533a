"""The web server's worker: one request at a time, and only such as have arrived in full.

A client that trickles its request, or never ends it, waits in this process's selector and holds up nobody: gunicorn's
own sync worker would read from it, and answer no call meanwhile. Of what has come, calls are answered first, and pages
one by one between them. Everything else is gunicorn's.

A call outlives the process that is killed while answering it. It lies in a tray of that process meanwhile, connection
and all; the arbiter, which has the same tray, hands what it finds there after a process died to another one. The PBX
notices nothing, and since the same question gets the same answer, it does not matter how far the first had come. A call
is handed on once, lest one that kills whoever answers it kill them all.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

from gunicorn.workers.sync import SyncWorker

LINGER_SECONDS = 2.0  # in which the rest of a long body is taken in after the answer
ARRIVAL_SECONDS = 10.0  # within which a request must have arrived in full
SEND_SECONDS = 10.0  # a client that takes nothing for this long is given up
BODY_BYTES = 128 * 1024  # of a longer body the rest is left to whoever reads it
QUIET_SECONDS = 0.3  # told to stop, a process goes on until nothing has come for this long
FINISH_SECONDS = 10.0  # and no longer than this
WAITING = 512  # connections whose request is still arriving; beyond that the oldest is closed
_BURST = 32  # requests taken from the listener before a look at those that arrived meanwhile
_LONGEST_REQUEST = 256 * 1024
_TICK_SECONDS = 1.0
_LAST_DATA_RECEIVED = struct.Struct("=52xI")  # ms since then, in the kernel's struct tcp_info (linux/tcp.h)
PAGES = 64  # that wait for calls to be answered first; beyond that they are told to come back
_CALL = re.compile(rb"[A-Z]+ /hook/")  # what may be asked again: the same question gets the same answer
_HEALTH = re.compile(rb"GET /(healthz|readyz)\b")  # a platform that gets no answer ends the process
_COME_BACK = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)


class Tray:
    """Connections that lie here belong to no process: they are still here when the one that put them here is gone."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        """Readable while something lies here."""
        return self._out.fileno()

    def put(self, connection: int, request: bytes) -> bool:
        """Put a connection here, with what was read of its request. False: there was no room for it."""
        try:
            socket.send_fds(self._in, [request], [connection])
        except OSError:
            return False
        return True

    def take(self) -> tuple[int, bytes] | None:
        """The connection that came first, and its request; None: nothing lies here."""
        try:
            request, connections, _, _ = socket.recv_fds(self._out, _LONGEST_REQUEST, 1)
        except BlockingIOError:
            return None
        return connections[0], request

    def drop(self) -> None:
        """Forget what came first. Its connection is closed once nobody else has it."""
        self._out.recv(1)  # of a message the rest is dropped, and so are descriptors that nobody asks for

    def close(self) -> None:
        """Of this process; others may have the tray as well."""
        self._in.close()
        self._out.close()


class Client(socket.socket):
    """A connection with what has arrived of its request, read ahead; `recv` gives that first."""

    def begin(self, peer: Any) -> None:
        self.peer = peer
        self.arrived = bytearray()
        self.arrived_at = 0.0  # time.monotonic(), once the request is complete
        self.give_up_at = time.monotonic() + ARRIVAL_SECONDS
        self.is_unfinished = False  # more of its request may come than was waited for
        self.is_answered = False
        self.setblocking(False)

    def is_complete(self) -> bool:
        """Read what is there. Is the request whole, broken off, or long enough to be handed over?"""
        while True:
            try:
                data = socket.socket.recv(self, 65536)
            except BlockingIOError:
                return self._is_whole()
            except OSError:
                return True  # the parser will find the same
            self.arrived += data
            if not data:
                return True
            if len(self.arrived) > BODY_BYTES:
                self.is_unfinished = True
                return True

    def _is_whole(self) -> bool:
        end = self.arrived.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.arrived[: end + 2])
        if _CHUNKED.search(head):
            return self.arrived.endswith(b"0\r\n\r\n")
        length = _LENGTH.search(head)
        return length is None or len(self.arrived) - end - 4 >= int(length[1])

    def hand_over(self) -> None:
        """From here on the parser reads: first what was read ahead, then, with a time limit, the connection."""
        self.arrived_at = time.monotonic() - self._waited()
        self.settimeout(SEND_SECONDS)

    def _waited(self) -> float:
        """Seconds since the request's last bytes came: the caller waits as well while this process serves others."""
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
            return float(_LAST_DATA_RECEIVED.unpack(info)[0]) / 1000
        except (OSError, struct.error):  # no TCP, or a kernel that does not tell
            return 0.0

    def drain(self) -> bool:
        """Throw away what still arrives. Has the client finished, or is there nothing left to throw away?"""
        self.setblocking(False)
        for _ in range(16):
            try:
                if not socket.socket.recv(self, 65536):
                    return True
            except BlockingIOError:
                return not self.is_unfinished
            except OSError:
                return True
        return False

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """The head of the answer, which comes first, waits for the body, to leave with it in one packet."""
        super().sendall(data, flags if self.is_answered else flags | socket.MSG_MORE)
        self.is_answered = True

    def shutdown(self, how: int, /) -> None:
        """Tell the client that the answer is complete; the error makes gunicorn leave the rest to the worker.

        gunicorn would wait here for the client to close, for up to two seconds in which nobody else is answered.
        """
        super().shutdown(how)
        raise OSError("closed by the worker")

    def close(self) -> None:
        """Left to the worker, which may have to take in the rest of a long body first: else the answer is lost."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if self.arrived:
            data = bytes(self.arrived[:size])
            del self.arrived[:size]
            return data
        return super().recv(size, flags)


class Worker(SyncWorker):
    """gunicorn's sync worker with a waiting room."""

    orphans: ClassVar[Tray]  # calls of processes that died; made before the processes part

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tray = Tray()  # the call that is being answered

    def leave_behind(self) -> None:
        """In the arbiter, after this process ended: let the others have the call that it was answering."""
        while (call := self.tray.take()) is not None:
            self.orphans.put(*call)
            os.close(call[0])
        self.tray.close()

    def run(self) -> None:
        self._poll = select.epoll()
        self._arriving: dict[int, tuple[Client, socket.socket]] = {}
        self._ending: dict[int, Client] = {}
        self._pages: deque[tuple[Client, socket.socket]] = deque()
        # What the arbiter hands down wraps a socket, by whatever name a release of gunicorn gives its type.
        listeners = {listener.fileno(): getattr(listener, "sock", listener) for listener in self.sockets}
        for listener in listeners.values():
            listener.setblocking(False)
            with suppress(OSError):  # no TCP
                # A connection is taken when its request begins to arrive. One taken before would wait in this process
                # while that is busy, and end with it.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            # One connection wakes one worker, not all of them.
            self._poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._poll.register(self.PIPE[0], select.EPOLLIN)
        self._poll.register(self.orphans, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        while self.alive and self.is_parent_alive():
            self._look(listeners, _TICK_SECONDS)
        # What has connected would be cut off with the listener: somebody's call, sent here a moment before the platform
        # learned that this process goes. Of clients that send more slowly than that there is no end, so not for ever.
        until = time.monotonic() + FINISH_SECONDS
        while (self._look(listeners, QUIET_SECONDS) or self._arriving or self._pages) and time.monotonic() < until:
            pass
        for number in list(self._arriving):
            self._drop(number)
        self._poll.close()

    def _look(self, listeners: Mapping[int, socket.socket], seconds: float) -> bool:
        """Serve what has come, or comes within these seconds. Was there anything?"""
        self.notify()
        found = [number for number, _ in self._poll.poll(0 if self._pages else seconds)]
        for number in found:
            if number in listeners:
                self._take(listeners[number])
            elif number in self._arriving:
                self._go_on(number)
            elif number in self._ending and self._ending[number].drain():
                self._close(self._ending.pop(number))
        if self.orphans.fileno() in found:
            self._adopt(next(iter(listeners.values())))
        if self.PIPE[0] in found:  # a signal came, and its handler has run
            os.read(self.PIPE[0], 4096)
        if self._pages:
            self._serve(*self._pages.popleft())
        self._close_late_ones()
        return bool(found)

    def _take(self, listener: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                number, peer = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - no second object
            except (BlockingIOError, ConnectionAbortedError):
                return
            client = Client(listener.family, listener.type, listener.proto, fileno=number)
            client.begin(peer)
            if client.is_complete():
                self._serve_in_turn(client, listener)
                self.notify()
            else:
                self._arriving[number] = (client, listener)
                self._poll.register(number, select.EPOLLIN)
                if len(self._arriving) > WAITING:
                    self._drop(next(iter(self._arriving)))

    def _go_on(self, number: int) -> None:
        client, listener = self._arriving[number]
        if client.is_complete():
            self._poll.unregister(number)
            del self._arriving[number]
            self._serve_in_turn(client, listener)

    def _serve_in_turn(self, client: Client, listener: socket.socket) -> None:
        """A call at once; a page when none waits."""
        if _CALL.match(client.arrived):
            self._serve_call(client, listener)
        elif _HEALTH.match(client.arrived):
            self._serve(client, listener)
        elif len(self._pages) < PAGES:
            self._pages.append((client, listener))
        else:
            with suppress(OSError):
                client.send(_COME_BACK)
            socket.socket.close(client)

    def _adopt(self, listener: socket.socket) -> None:
        """Answer what a process that died left behind; out of the tray, lest it be what killed that one."""
        while (left_behind := self.orphans.take()) is not None:
            client = Client(fileno=left_behind[0])
            try:
                client.begin(client.getpeername())
            except OSError:  # the caller is gone too
                socket.socket.close(client)
                continue
            client.arrived += left_behind[1]
            self.log.warning("A call is answered in place of a process that died.")
            self._serve(client, listener)

    def _serve_call(self, client: Client, listener: socket.socket) -> None:
        is_whole = not client.is_unfinished
        lies_there = is_whole and self.tray.put(client.fileno(), bytes(client.arrived))
        self._serve(client, listener)
        if lies_there:
            self.tray.drop()

    def _serve(self, client: Client, listener: socket.socket) -> None:
        client.hand_over()
        self.handle(listener, client, client.peer)
        if client.drain():
            socket.socket.close(client)
        else:
            client.give_up_at = time.monotonic() + LINGER_SECONDS
            self._ending[client.fileno()] = client
            self._poll.register(client.fileno(), select.EPOLLIN)

    def _drop(self, number: int) -> None:
        client, _ = self._arriving.pop(number)
        with suppress(OSError):
            client.send(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self._close(client)

    def _close(self, client: Client) -> None:
        self._poll.unregister(client.fileno())
        socket.socket.close(client)

    def _close_late_ones(self) -> None:
        now = time.monotonic()
        for number in [n for n, (client, _) in self._arriving.items() if client.give_up_at < now]:
            self._drop(number)
        for number in [n for n, client in self._ending.items() if client.give_up_at < now]:
            self._close(self._ending.pop(number))
