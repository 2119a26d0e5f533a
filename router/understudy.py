"""A call outlives the process that is killed while answering it.

`python -m router.understudy` runs beside the web processes and knows nothing but this: each of them shows it the call
that it is about to answer, with the caller's connection, and says when it has. Of a process that dies in between, the
calls are handed to another one, connection and all: the PBX notices nothing, and since the same question gets the same
answer, it does not matter how far the first had come. A call is handed on once, lest one that kills whoever answers it
kill them all.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import NamedTuple

_MARK = struct.Struct("=iQ")  # process, number of the call in it; the request follows, or nothing when it is answered
_LONGEST = 256 * 1024


class Stage(NamedTuple):
    """The ends that the web processes have."""

    shown: socket.socket  # what is being answered, to the understudy
    orphans: socket.socket  # what others left behind, from the understudy


def start() -> Stage:
    """Start the understudy; it ends by itself with the last of the processes that have these ends.

    Raises OSError where the kernel cannot tell of a process's end (pidfd_open, Linux 5.3).
    """
    os.close(os.pidfd_open(os.getpid()))
    shown, seen = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given, orphans = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with seen, given:
        # In a session of its own: a signal to all processes, such as Ctrl-C, must not end it before those it stands in
        # for. Nothing else is inherited, above all no listening socket.
        subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "router.understudy", str(seen.fileno()), str(given.fileno())],
            pass_fds=(seen.fileno(), given.fileno()),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    for end in (shown, orphans):
        end.setblocking(False)
    return Stage(shown, orphans)


def show(stage: Stage, number: int, connection: int, request: bytes) -> bool:
    """Show a call that is about to be answered: this process's number for it, its connection, what was read of it."""
    try:
        socket.send_fds(stage.shown, [_MARK.pack(os.getpid(), number) + request], [connection])
    except OSError:  # it is busy, or gone: then this call is answered as well as ever
        return False
    return True


def done(stage: Stage, number: int) -> None:
    """Say that the call was answered."""
    with suppress(OSError):
        stage.shown.send(_MARK.pack(os.getpid(), number))


def adopt(stage: Stage) -> tuple[int, bytes] | None:
    """A call that another process left behind: its connection and its request. None: there is none.

    Raises EOFError when there will be none any more, because the understudy is gone.
    """
    try:
        request, connections, _, _ = socket.recv_fds(stage.orphans, _LONGEST, 1)
    except BlockingIOError:
        return None
    if not connections:
        raise EOFError
    return connections[0], request


class _Understudy:
    def __init__(self, seen: socket.socket, given: socket.socket) -> None:
        self._seen, self._given = seen, given
        self._poll = select.epoll()
        seen.setblocking(False)
        self._poll.register(seen, select.EPOLLIN)
        self._calls: dict[int, dict[int, tuple[int, bytes]]] = {}  # by process and number: connection, request
        self._processes: dict[int, int] = {}  # by the descriptor that tells of their end
        self._gone: set[int] = set()

    def run(self) -> None:
        """Until all the web processes, and the one that starts them, are gone."""
        while True:
            found = {number for number, _ in self._poll.poll()}
            # First all that was shown and done, then who died: what was answered is not handed on.
            try:
                while self._look():
                    pass
            except EOFError:
                return
            for descriptor in self._processes.keys() & found:
                self._gone.add(self._processes.pop(descriptor))
                self._poll.unregister(descriptor)
                os.close(descriptor)
            while self._gone:
                self._hand_on(self._gone.pop())

    def _look(self) -> bool:
        """Was there a message? Raises EOFError when there will be none any more."""
        try:
            message, connections, _, _ = socket.recv_fds(self._seen, _LONGEST, 1)
        except BlockingIOError:
            return False
        if not message:
            raise EOFError
        process, number = _MARK.unpack_from(message)
        if connections:
            self._meet(process)[number] = connections[0], message[_MARK.size :]
        elif (answered := self._calls.get(process, {}).pop(number, None)) is not None:
            os.close(answered[0])
        return True

    def _meet(self, process: int) -> dict[int, tuple[int, bytes]]:
        if process not in self._calls:
            self._calls[process] = {}
            try:
                descriptor = os.pidfd_open(process)
            except ProcessLookupError:  # it died before this was read
                self._gone.add(process)
            else:
                self._processes[descriptor] = process
                self._poll.register(descriptor, select.EPOLLIN)
        return self._calls[process]

    def _hand_on(self, process: int) -> None:
        for connection, request in self._calls.pop(process).values():
            with suppress(OSError):
                socket.send_fds(self._given, [request], [connection])
            os.close(connection)


def main() -> None:
    seen, given = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    _Understudy(seen, given).run()


if __name__ == "__main__":
    main()
