"""Serve static files, compressed, from memory.

Their URLs carry a hash of all files, so browsers cache them for a year and never use an old one.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flask import Response, abort, request

STATIC = Path(__file__).parent / "static"

_YEAR = 365 * 24 * 3600
_COMPRESSED = {".css", ".js", ".svg", ".txt"}


class Asset(NamedTuple):
    """A file as it is sent. `compressed` None: compression would not make it smaller."""

    content_type: str
    plain: bytes
    compressed: bytes | None
    etag: str


@cache
def version() -> str:
    """Return a hash of all files."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(STATIC)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@cache
def _names() -> frozenset[str]:
    return frozenset(str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file())


@cache
def _load(name: str) -> Asset:
    path = STATIC / name
    plain = path.read_bytes()
    packed = gzip.compress(plain, 9, mtime=0) if path.suffix in _COMPRESSED else plain
    kind = mimetypes.types_map.get(path.suffix, "application/octet-stream")
    return Asset(
        f"{kind}; charset=utf-8" if path.suffix in _COMPRESSED else kind,
        plain,
        packed if len(packed) < len(plain) else None,
        hashlib.sha256(plain).hexdigest()[:16],
    )


def respond(name: str) -> Response:
    """Return the file of this name; 404 for any name that is not in the folder."""
    if name not in _names():
        abort(404)
    asset = _load(name)
    if request.if_none_match.contains(asset.etag):
        response = Response(status=304)
    else:
        response = Response(asset.plain, content_type=asset.content_type)
        if asset.compressed is not None and request.accept_encodings["gzip"]:
            response.set_data(asset.compressed)
            response.content_encoding = "gzip"
    response.vary.add("Accept-Encoding")
    response.set_etag(asset.etag)
    is_current = request.args.get("v") == version()
    response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable" if is_current else "no-cache"
    return response
