"""A WSGI app that gives back the request as RawRequest saw it: what a real server leaves of what a PBX sends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from router.hook.wire import RawRequest


def app(environ: Mapping[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    raw = RawRequest.from_environ(environ, environ["wsgi.input"].read())
    seen = orjson.dumps([raw.method, raw.query.hex(), dict(raw.headers), raw.content_type, raw.body.hex()])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(seen)))])
    return [seen]
