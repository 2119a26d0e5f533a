"""Serve a status API that answers after 80 ms, like a real one: `PORT=… python -m bench.status_api LOGIN…`."""

from __future__ import annotations

import asyncio
import json
import os
import sys

LATENCY_SECONDS = 0.08


async def serve(port: int, online: list[str]) -> None:
    """Answer /sipstatus/online with all logins and every other path with none, for ever."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(LATENCY_SECONDS)
        body = json.dumps(online if b"/online" in request.partition(b"\r\n")[0] else []).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=512) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(os.environ["PORT"]), sys.argv[1:]))
