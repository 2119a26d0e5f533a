"""The web server's worker: one request at a time, and only such as have arrived in full.

A client that trickles its request, or never ends it, waits in this process's selector and holds up nobody: gunicorn's
own sync worker would read from it, and answer no call meanwhile. The parser sees what has arrived and then the end,
never the connection. Nor does anybody wait for a client to take its answer. Of what has come, calls are answered first,
and pages one by one between them. Everything else is gunicorn's.

A call outlives the process that is killed while answering it. Its connection lies in a tray of that process from the
start, and what arrives is not taken out of it before it is answered; the arbiter, which has the same trays, hands what
it finds there after a process died to another one. The PBX notices nothing, and since the same question gets the same
answer, it does not matter how far the first had come. A call is handed on once, lest one that kills whoever answers it
kill them all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar

from gunicorn.workers.sync import SyncWorker

LINGER_SECONDS = 2.0  # in which the rest of a long body is taken in after the answer
ARRIVAL_SECONDS = 10.0  # within which a request must have arrived in full
SEND_SECONDS = 10.0  # within which an answer must be taken; a long one, some of it
UNSENT_BYTES = 4 * 1024 * 1024  # of an answer in memory; whoever streams more waits for the client
_PIECES = 64  # of an answer that are sent at once
PEEKED_BYTES = 32 * 1024  # that are left in the connection while they arrive: less than it holds before it stalls
CALL_BYTES = 128 * 1024  # of a longer call the rest is not looked at: the hook reads half of that
PAGE_BYTES = CALL_BYTES + 2 * 1024 * 1024  # a longer page request is refused: a form may have 2 MiB
QUIET_SECONDS = 0.3  # told to stop, a process goes on until nothing has come for this long
FINISH_SECONDS = 10.0  # and no longer than this
WAITING = 512  # connections whose request is still arriving, or whose answer is leaving; else the oldest is closed
OTHER_DESCRIPTORS = 200  # that a process may have open beside those: its database, files, pages that wait
WAITING_BYTES = 64 * 1024 * 1024  # and beyond so much of them in memory
_BURST = 32  # requests taken from the listener before a look at those that arrived meanwhile
_LONGEST_REQUEST = 256 * 1024
_TICK_SECONDS = 0.25
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_DESCRIPTOR = struct.Struct("i")
_LAST_DATA_RECEIVED = struct.Struct("=52xI")  # ms since then, in the kernel's struct tcp_info (linux/tcp.h)
TRAYS = 8  # connections that outlive their process: those that are arriving, and the one that is answered
PAGES = 64  # that wait for calls to be answered first; beyond that they are told to come back
_CALL = re.compile(rb"[A-Z]+ /+hook/")  # what may be asked again: the same question gets the same answer
_HEALTH = re.compile(rb"GET /(healthz|readyz)\b")  # a platform that gets no answer ends the process
_COME_BACK = "503 Service Unavailable\r\nRetry-After: 1"
_TOO_LONG = {True: "413 Content Too Large", False: "431 Request Header Fields Too Large"}  # is the head whole?
_LATE = "408 Request Timeout"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,19})[ \t]*\r", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
_EXPECTS_WORD = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


class Tray:
    """Connections that lie here belong to no process: they are still here when the one that put them here is gone."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        """Readable while something lies here."""
        return self._out.fileno()

    def put(self, connection: int, request: bytes = b"") -> bool:
        """Put a connection here, with what was read of its request. False: there was no room for it."""
        try:
            self._in.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(connection))])
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


# Unlike socket.accept it keeps the interpreter's lock: else another thread could be at work before the connection lies
# in a tray, and until then it ends with its process.
_accept4 = ctypes.PyDLL(None, use_errno=True).accept4
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _accept(listener: int) -> int:
    """Take a connection that waits here. Below 0: there is none, or the negative number of the error."""
    connection = int(_accept4(listener, None, None, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    return connection if connection >= 0 else -ctypes.get_errno()


class Client(socket.socket):
    """A connection with what has arrived of its request, read ahead; `recv` gives that, and then the end."""

    def begin(self, peer: Any, notify: Callable[[], object]) -> None:
        """`notify` is called now and then while a long answer waits for the client."""
        self.peer = peer
        self.notify = notify
        self.arrived = bytearray()
        self.arrived_at = 0.0  # time.monotonic(), once the request is complete
        self.give_up_at = time.monotonic() + ARRIVAL_SECONDS
        self.tray: Tray | None = None  # where this connection lies, to outlive the process
        self.is_untouched = True  # all that has arrived can still be read from the connection
        self.is_adopted = False
        self.is_broken_off = False  # the client ended before its request did
        self.is_too_long = False  # and more may come: nobody waits for it
        self.is_answered = False
        self.unsent = 0  # bytes of the answer that the connection has not taken yet
        self._unsent: deque[memoryview] = deque()
        self._is_shut = False
        self._looked_to = 0  # of what arrived, in search of the head's end
        self._body_at = 0  # where it begins; 0: the head has not arrived yet
        self._length = 0  # of the body; -1: chunked
        self._chunk_at = 0  # where the first chunk begins that has not arrived in full
        self.setblocking(False)

    @property
    def is_call(self) -> bool:
        return _CALL.match(self.arrived) is not None

    @property
    def has_head(self) -> bool:
        return self._body_at > 0

    def is_complete(self, *, has_ended: bool = False) -> bool:
        """Look at what is there. Is the request whole, or will nothing more of it be waited for?

        `has_ended`: the client will send no more.
        """
        if self.is_untouched and not has_ended:
            try:
                self.arrived[:] = socket.socket.recv(self, 65536, socket.MSG_PEEK)
            except BlockingIOError:
                return False
            except OSError:
                self.arrived.clear()
            if self.arrived and self._is_whole():
                return True
            if 0 < len(self.arrived) < PEEKED_BYTES:
                return False
        if self.is_untouched:
            self.is_untouched = False
            self.arrived.clear()
        while not self.is_too_long:
            try:
                data = socket.socket.recv(self, 65536)
            except BlockingIOError:
                return self._is_whole()
            except OSError:
                data = b""
            self.arrived += data
            if not data:
                self.is_broken_off = not self._is_whole()
                return True
            self.is_too_long = len(self.arrived) > (CALL_BYTES if self.is_call else PAGE_BYTES)
        self._is_whole()  # the head at least may be
        return True

    def _is_whole(self) -> bool:
        if not self._body_at and not self._read_head():
            return False
        if self._length < 0:
            return self._has_last_chunk()
        if self._length > PAGE_BYTES and not self.is_call:
            self.is_too_long = True
            return True
        return len(self.arrived) - self._body_at >= self._length

    def _read_head(self) -> bool:
        end = self.arrived.find(b"\r\n\r\n", max(0, self._looked_to - 3))
        self._looked_to = len(self.arrived)
        if end < 0:
            return False
        head = bytes(self.arrived[: end + 2])
        self._body_at = self._chunk_at = end + 4
        length = _LENGTH.search(head)
        self._length = -1 if _CHUNKED.search(head) else int(length[1]) if length else 0
        # Such a client waits a second for the word before it sends the body, and so would its caller.
        if self._length and len(self.arrived) == self._body_at and _EXPECTS_WORD.search(head):
            with suppress(OSError):
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _has_last_chunk(self) -> bool:
        """What is no chunk is for the parser to refuse."""
        while (end := self.arrived.find(b"\r\n", self._chunk_at)) >= 0:
            size = _CHUNK_SIZE.match(self.arrived, self._chunk_at)
            if size is None:
                return True
            if not int(size[0], 16):  # then trailers, or none, and an empty line
                return self.arrived.find(b"\r\n\r\n", end) >= 0
            after = end + 2 + int(size[0], 16) + 2
            if after > len(self.arrived):
                return False
            self._chunk_at = after
        return False

    def hand_over(self) -> None:
        """From here on the parser reads what has arrived."""
        self.arrived_at = time.monotonic() - self._waited()

    def _waited(self) -> float:
        """Seconds since the request's last bytes came: the caller waits as well while this process serves others."""
        try:
            info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size)
            return float(_LAST_DATA_RECEIVED.unpack(info)[0]) / 1000
        except (OSError, struct.error):  # no TCP, or a kernel that does not tell
            return 0.0

    def finish(self) -> bool:
        """Send what is left of the answer, then throw away what still arrives. Is there nothing left of either?"""
        try:
            self._flush()
            if self.unsent:
                return False
            if not self._is_shut:
                self._is_shut = True
                super().shutdown(socket.SHUT_WR)
        except OSError:
            return True
        return self._drain()

    def _drain(self) -> bool:
        for _ in range(16):
            try:
                if not socket.socket.recv(self, 65536):
                    return True
            except BlockingIOError:
                return not self.is_too_long
            except OSError:
                return True
        return False

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send what the connection takes now, and keep the rest for later.

        The head of the answer, which comes first, waits here for the body, to leave with it in one packet: a process
        that is killed in between must not leave a head behind to which another one adds a whole answer.
        """
        self._unsent.append(memoryview(data))
        self.unsent += len(data)
        if self.is_answered:
            self._flush()
        self.is_answered = True
        if self.unsent > UNSENT_BYTES:
            self._wait_until_taken()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self.sendmsg(islice(self._unsent, _PIECES))
                self.unsent -= sent
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.popleft())
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._forget_answer()
            raise

    def _forget_answer(self) -> None:
        """Nobody takes it any more."""
        self._unsent.clear()
        self.unsent = 0

    def _wait_until_taken(self) -> None:
        writable = select.poll()
        writable.register(self, select.POLLOUT)
        give_up_at = time.monotonic() + SEND_SECONDS
        while (before := self.unsent) > UNSENT_BYTES:
            writable.poll(1000)
            self._flush()
            self.notify()
            if self.unsent < before:
                give_up_at = time.monotonic() + SEND_SECONDS
            elif time.monotonic() > give_up_at:
                self._forget_answer()
                raise TimeoutError("the client takes nothing of its answer")

    def shutdown(self, how: int, /) -> None:
        """The answer is complete: the error makes gunicorn leave the rest to the worker.

        gunicorn would wait here for the client to close, for up to two seconds in which nobody else is answered.
        """
        raise OSError("closed by the worker")

    def close(self) -> None:
        """Left to the worker, which may have to take in the rest of a long body first: else the answer is lost."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """What has arrived, then the end: who reads here answers nobody else meanwhile, so nobody may wait here."""
        data = bytes(self.arrived[:size])
        del self.arrived[:size]
        return data


class Worker(SyncWorker):
    """gunicorn's sync worker with a waiting room."""

    orphans: ClassVar[Tray]  # calls of processes that died; made before the processes part

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.trays = [Tray() for _ in range(TRAYS)]  # for one connection each
        self._empty = list(self.trays)

    def leave_behind(self) -> None:
        """In the arbiter, after this process ended: let the others have the calls that it had taken."""
        for tray in self.trays:
            while (call := tray.take()) is not None:
                self.orphans.put(*call)
                os.close(call[0])
        self.close_trays()

    def close_trays(self) -> None:
        """Of this process; the one that works with them has them still."""
        for tray in self.trays:
            tray.close()

    def run(self) -> None:
        self._poll = select.epoll()
        self._arriving: dict[int, tuple[Client, socket.socket]] = {}
        self._ending: dict[int, Client] = {}
        self._pages: deque[tuple[Client, socket.socket]] = deque()
        self._room = WAITING
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if allowed != resource.RLIM_INFINITY:
            self._room = max(2 * TRAYS, min(WAITING, (allowed - OTHER_DESCRIPTORS) // 2))
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
        while (
            self._look(listeners, QUIET_SECONDS)
            or self._arriving
            or self._pages
            or any(client.unsent for client in self._ending.values())
        ) and time.monotonic() < until:
            pass
        for number in list(self._arriving):
            self._drop(number)
        self._poll.close()

    def _look(self, listeners: Mapping[int, socket.socket], seconds: float) -> bool:
        """Serve what has come, or comes within these seconds. Was there anything?"""
        self.notify()
        found = dict(self._poll.poll(0 if self._pages else seconds))
        came = bool(found)
        for number, events in found.items():
            if number in self._arriving:
                self._go_on(number, has_ended=events & _ENDED != 0)
            elif number in self._ending:
                self._go_on_ending(number)
        # Where nothing is told of, too: the one process that was told of it may have been killed or stopped just then.
        for number, listener in listeners.items():
            if number in found or not found:
                came |= self._take(listener)
        if self.orphans.fileno() in found or not found:
            came |= self._adopt(next(iter(listeners.values())))
        if self.PIPE[0] in found:  # a signal came, and its handler has run
            os.read(self.PIPE[0], 4096)
        if self._pages:
            self._serve(*self._pages.popleft())
        self._close_late_ones()
        return came

    def _take(self, listener: socket.socket) -> bool:
        """Take who waits here, some at least; was there anybody?"""
        for count in range(_BURST):
            if (number := _accept(listener.fileno())) < 0:
                if -number in _FULL:
                    self._free_a_descriptor()
                return count > 0
            tray = self._empty_tray()
            is_kept = tray.put(number)  # before anything else
            client = Client(listener.family, listener.type, listener.proto, fileno=number)
            try:
                client.begin(client.getpeername(), self.notify)
            except OSError:  # gone already
                client.begin(None, self.notify)
            if is_kept:
                client.tray = tray
            else:
                self._empty.append(tray)
            self._begin(client, listener)
            self.notify()
        return True

    def _free_a_descriptor(self) -> None:
        """The system gives no more: whoever has waited longest goes, so that calls are answered."""
        if self._arriving:
            self._drop(next(iter(self._arriving)))
        elif self._ending:
            self._close(self._ending.pop(next(iter(self._ending))))
        else:
            time.sleep(0.01)

    def _begin(self, client: Client, listener: socket.socket) -> None:
        if client.is_complete():
            self._serve_in_turn(client, listener)
            return
        number = client.fileno()
        self._arriving[number] = (client, listener)
        # Told of each arrival once: what is left in the connection would be told of for ever.
        self._poll.register(number, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        self._make_room(client)

    def _go_on(self, number: int, *, has_ended: bool) -> None:
        client, listener = self._arriving[number]
        if client.is_complete(has_ended=has_ended):
            self._poll.unregister(number)
            del self._arriving[number]
            self._serve_in_turn(client, listener)
        else:
            self._make_room(client)

    def _empty_tray(self) -> Tray:
        """Whoever has been arriving for longest has to give up its tray if there is none."""
        if not self._empty:
            self._let_go(next(client for client, _ in self._arriving.values() if client.tray))
        return self._empty.pop()

    def _keep(self, client: Client) -> None:
        """Let this connection outlive the process."""
        if client.tray or client.is_adopted or client.is_too_long:
            return
        tray = self._empty_tray()
        if tray.put(client.fileno(), b"" if client.is_untouched else bytes(client.arrived)):
            client.tray = tray
        else:
            self._empty.append(tray)

    def _let_go(self, client: Client) -> None:
        if client.tray is not None:
            client.tray.drop()
            self._empty.append(client.tray)
            client.tray = None

    def _make_room(self, client: Client) -> None:
        """Close those that have waited longest when there are too many, or too much of them. `client` has grown."""
        if not client.is_untouched:  # another process would find half of it
            self._let_go(client)
        while len(self._arriving) > self._room or (
            len(client.arrived) > CALL_BYTES
            and sum(len(each.arrived) for each, _ in self._arriving.values()) > WAITING_BYTES
        ):
            self._drop(next(iter(self._arriving)))

    def _serve_in_turn(self, client: Client, listener: socket.socket) -> None:
        """A call at once, with as much of it as came; a page when no call waits, and only if it came whole."""
        if not client.is_untouched:
            self._let_go(client)
        if client.is_call and client.has_head:
            self._keep(client)
            self._serve(client, listener)
            return
        self._let_go(client)
        if client.is_too_long:
            self._refuse(client, _TOO_LONG[client.has_head])
        elif client.is_broken_off:  # half a form must not pass for a whole one
            socket.socket.close(client)
        elif _HEALTH.match(client.arrived):
            self._serve(client, listener)
        elif len(self._pages) < PAGES:
            self._pages.append((client, listener))
        else:
            self._refuse(client, _COME_BACK)

    def _adopt(self, listener: socket.socket) -> bool:
        """Go on with what a process that died left behind; was there anything? Out of the tray, lest it be what killed
        that one.
        """
        count = 0
        while (left_behind := self.orphans.take()) is not None:
            client = Client(fileno=left_behind[0])
            try:
                client.begin(client.getpeername(), self.notify)
            except OSError:  # the caller is gone too
                socket.socket.close(client)
                continue
            count += 1
            self.log.warning("A request is answered in place of a process that died.")
            client.is_adopted = True
            if left_behind[1]:
                client.arrived += left_behind[1]
                self._serve(client, listener)
            else:
                self._begin(client, listener)
        return count > 0

    def _serve(self, client: Client, listener: socket.socket) -> None:
        client.hand_over()
        self.handle(listener, client, client.peer)
        self._end(client)
        self._let_go(client)

    def _refuse(self, client: Client, status: str) -> None:
        with suppress(OSError):
            client.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        self._end(client)

    def _end(self, client: Client) -> None:
        """Close, once the answer has left and what still arrives of a long request was taken in: else it is lost."""
        if client.finish():
            socket.socket.close(client)
            return
        number = client.fileno()
        client.give_up_at = time.monotonic() + (SEND_SECONDS if client.unsent else LINGER_SECONDS)
        self._ending[number] = client
        self._poll.register(number, select.EPOLLOUT if client.unsent else select.EPOLLIN)
        if len(self._ending) > self._room:
            self._close(self._ending.pop(next(iter(self._ending))))

    def _go_on_ending(self, number: int) -> None:
        client, was_leaving = self._ending[number], self._ending[number].unsent > 0
        if client.finish():
            self._close(self._ending.pop(number))
        elif was_leaving and not client.unsent:
            client.give_up_at = time.monotonic() + LINGER_SECONDS
            self._poll.modify(number, select.EPOLLIN)

    def _drop(self, number: int) -> None:
        client, _ = self._arriving.pop(number)
        self._poll.unregister(number)
        self._let_go(client)
        self._refuse(client, _LATE)

    def _close(self, client: Client) -> None:
        self._poll.unregister(client.fileno())
        socket.socket.close(client)

    def _close_late_ones(self) -> None:
        now = time.monotonic()
        for number in [n for n, (client, _) in self._arriving.items() if client.give_up_at < now]:
            self._drop(number)
        for number in [n for n, client in self._ending.items() if client.give_up_at < now]:
            self._close(self._ending.pop(number))
