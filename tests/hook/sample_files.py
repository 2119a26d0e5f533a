"""The samples: requests as a platform sends them, and exactly what must be understood and answered. One case per file.

    What the case shows, in words.
    settings: {key: to}              the project's hook settings, when they are not the defaults
    charset: cp1251                  of the query's and the body's bytes, when it is not UTF-8
    ### request
    GET /hook/TOKEN?uniqueid=1 HTTP/1.1
    User-Agent: ringostat HTTP Client v1.1

    the body, if there is one
    ### call                         fields of the Call (those left out are empty), and what else was understood
    call_id: "1"
    ### answer 380671234567          the destination that is to be told, and the exact answer
    Content-Type: text/plain; charset=utf-8

    380671234567

A sample of an event has `### event` in place of the last two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from router.core.words import Message
from router.explanation.words import ENGLISH
from router.hook.fields import HookSettings
from router.hook.wire import RawRequest

FOLDER = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Sample:
    """One file, taken apart. `head` holds the lines before the first section as a mapping, `sections` the rest."""

    name: str
    head: dict[str, Any]
    sections: dict[str, str]

    @property
    def settings(self) -> HookSettings:
        given = dict(self.head.get("settings", {}))
        fields = {name: tuple(aliases) for name, aliases in given.pop("fields", {}).items()}
        return HookSettings(**given, fields=fields)

    @cached_property
    def request(self) -> RawRequest:
        charset = self.head.get("charset", "utf-8")
        head, _, body = self.sections["request"].partition("\n\n")
        first, *lines = head.splitlines()
        method, target, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines)
        return RawRequest(
            method,
            target.partition("?")[2].encode(charset if "?" in target else "ascii"),
            headers,
            headers.get("Content-Type", ""),
            body.encode(charset),
        )

    def over_http(self, path: str) -> bytes:
        """The request's bytes for a server that has its hook at `path`; the server closes after its answer."""
        raw = self.request
        target = path.encode() + (b"?" + raw.query if raw.query else b"")
        headers = {"Host": "127.0.0.1", **raw.headers, "Connection": "close", "Content-Length": str(len(raw.body))}
        lines = [b"%b %b HTTP/1.1" % (raw.method.encode(), target)]
        lines += [f"{name}: {value}".encode() for name, value in headers.items()]
        return b"\r\n".join([*lines, b"", raw.body])

    @property
    def expected(self) -> dict[str, Any]:
        return yaml.safe_load(self.sections.get("call") or self.sections["event"]) or {}

    @property
    def destination(self) -> str:
        return next(title for title in self.sections if title.startswith("answer")).partition(" ")[2]

    @property
    def answer(self) -> tuple[bytes, str]:
        head, _, body = self.sections[f"answer {self.destination}".rstrip()].partition("\n\n")
        return body.encode(), head.removeprefix("Content-Type: ")


def load_samples(platform: str) -> list[Sample]:
    """All samples of a platform, by name."""
    return [_load(path) for path in sorted((FOLDER / platform).glob("*.http"))]


def _load(path: Path) -> Sample:
    head, *parts = path.read_text(encoding="utf-8").split("\n### ")
    settings: dict[str, Any] = {}
    for line in head.splitlines():
        if line.startswith(("settings:", "charset:")):
            settings |= yaml.safe_load(line)
    sections = {}
    for part in parts:
        title, _, text = part.partition("\n")
        sections[title.strip()] = text.removesuffix("\n")
    return Sample(path.stem, settings, sections)


def told(problems: Iterable[Message]) -> list[str]:
    """The notes of a request, as text."""
    return [ENGLISH.say(problem) for problem in problems]
