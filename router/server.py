"""Bound the size and duration of requests, and accept hooks that gunicorn's parser would refuse.

Set in gunicorn.conf.py, for any of gunicorn's workers. gunicorn answers a refused request with 4xx and logs it.
"""

from __future__ import annotations

import time
from typing import Any

from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import InvalidChunkSize, LimitRequestLine
from gunicorn.http.message import Request

ARRIVAL_SECONDS = 10.0  # time for a whole request to arrive, and for the client to read each piece of the answer
PAGE_URL_BYTES = 32 * 1024
HOOK_URL_BYTES = 128 * 1024  # GET hooks carry landing pages and marketing tags
_MOST_CHUNKS = 2_000


class HookRequest(Request):
    """gunicorn's request, with tolerance for the mistakes of telephony platforms."""

    def __init__(self, cfg: Any, unreader: Any, peer_addr: Any, req_number: int = 1) -> None:
        give_up_at = time.monotonic() + ARRIVAL_SECONDS
        sock = unreader.sock

        def chunk() -> bytes:
            sock.settimeout(max(0.001, give_up_at - time.monotonic()))
            try:
                return sock.recv(8192)  # type: ignore[no-any-return]
            except TimeoutError:
                return b""  # treated like a client that disconnected

        unreader.chunk = chunk
        super().__init__(cfg, unreader, peer_addr, req_number)

    def read_line(self, unreader: Any, buf: Any, limit: int = 0) -> Any:
        return super().read_line(unreader, buf, HOOK_URL_BYTES)

    def parse_request_line(self, line: bytes) -> None:
        """Accept spaces in the URL: Asterisk's CURL does not escape them."""
        method, _, rest = line.partition(b" ")
        target, _, version = rest.rpartition(b" ")
        super().parse_request_line(b" ".join((method, target.replace(b" ", b"%20"), version)))
        if len(line) > PAGE_URL_BYTES and "/hook/" not in (self.path or ""):
            raise LimitRequestLine(len(line), PAGE_URL_BYTES)

    def _apply_header_policy(
        self, name: str, value: str, state: Any, seen: set[str], *more: Any, **options: Any
    ) -> Any:
        if name in {"SCRIPT_NAME", "PATH_INFO"} or (name == "CONTENT-TYPE" and name in seen):
            return None  # Asterisk sends the type twice; a client must not set our path
        return super()._apply_header_policy(name, value, state, seen, *more, **options)  # type: ignore[misc]

    def set_body_reader(self) -> None:
        super().set_body_reader()
        if self.body is not None and isinstance(self.body.reader, ChunkedReader):
            self.body.reader = _FewChunks(self, self.unreader)


class _FewChunks(ChunkedReader):
    """A chunked body with a bounded number of chunks: each costs as much time as a thousand bytes."""

    count = 0

    def parse_chunk_size(self, unreader: Any, data: Any = None) -> Any:
        self.count += 1
        if self.count > _MOST_CHUNKS:
            raise InvalidChunkSize(b"too many chunks")
        return super().parse_chunk_size(unreader, data)
