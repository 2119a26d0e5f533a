"""A wire to a database server that can fall silent or break: what a stopped server looks like to its clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict


class Wire:
    """Listens on a free port of this machine and passes bytes on both ways, as long as it is told to."""

    def __init__(self, conninfo: str) -> None:
        self._server = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._flows = threading.Event()
        self._flows.set()
        host, port = self._listener.getsockname()
        given = conninfo_to_dict(conninfo)
        login = f"{quote(str(given.get('user', '')), safe='')}:{quote(str(given.get('password', '')), safe='')}"
        self.url = f"postgresql://{login}@{host}:{port}/{given['dbname']}?sslmode=disable"
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Connections are accepted and bytes taken, but nothing comes through."""
        self._flows.clear()

    def speak_again(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        while self._sockets:
            with suppress(OSError):
                self._sockets.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would let the waiting accept() take one more
        self._listener.close()
        self.cut()
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._sockets += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _connect(self) -> socket.socket:
        host, port = self._server.get("host", "127.0.0.1"), self._server.get("port", "5432")
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((host, int(port)))

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            try:
                while block := source.recv(65536):
                    self._flows.wait()
                    target.sendall(block)
            finally:  # to close is not enough: the thread of the other direction waits in recv(), which keeps it open
                for end in (source, target):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def wire_to(conninfo: str) -> Iterator[Wire]:
    wire = Wire(conninfo)
    try:
        yield wire
    finally:
        wire.close()
