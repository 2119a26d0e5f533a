"""A hook of a few lines for the demo PBX to ask: answers what a function says and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qsl


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """The parameters of a query, a form, or a flat JSON object."""
        if self.body.startswith(b"{"):
            found: dict[str, str] = json.loads(self.body)
            return found
        return dict(parse_qsl(self.query, keep_blank_values=True)) | dict(parse_qsl(self.body.decode()))


Answer = str | bytes | tuple[int, str] | None  # None: hang up without a word


class FakeHook:
    """`answer` gets the request and gives the body, or (status, body). Events are answered 200 and kept apart."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.events: list[Asked] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, path, query, dict(self.headers.items()), body)
                answer: Answer = ""
                if path == "/event":
                    hook.events.append(asked)
                else:
                    hook.asked.append(asked)
                    answer = hook.answer(asked)
                if answer is None:
                    return
                status, text = answer if isinstance(answer, tuple) else (200, answer)
                self.send_response(status)
                self.end_headers()
                with contextlib.suppress(OSError):  # hung up: a timeout is what some tests are about
                    self.wfile.write(text if isinstance(text, bytes) else text.encode())

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names are the base class's

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self.event_url = f"http://127.0.0.1:{self._server.server_port}/event"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def destination(login: str) -> str:
    return json.dumps({"destination": login})
