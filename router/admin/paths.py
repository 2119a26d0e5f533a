"""Convert names of projects for URLs: readable, with any characters."""

from __future__ import annotations

from urllib.parse import unquote

from werkzeug.routing import BaseConverter


class ProjectConverter(BaseConverter):
    """`<project:project>`: one segment of the path.

    Servers decode %2F before we see the path, and browsers resolve "..". So a slash, a percent sign and a name of dots
    are escaped twice.
    """

    def to_url(self, value: str) -> str:
        escaped = value.replace("%", "%25").replace("/", "%2F")
        if not escaped.strip("."):
            escaped = escaped.replace(".", "%2E")
        return super().to_url(escaped)

    def to_python(self, value: str) -> str:
        return unquote(value)
