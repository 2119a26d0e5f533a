"""Explain why presence is not known, in the reader's language: in English by the source's text, else by the code."""

from __future__ import annotations

from typing import NamedTuple

from router.admin.i18n import _, language
from router.presence.source import ErrorCode


class Explained(NamedTuple):
    """The error, the remedy, and as `detail` the source's own text where `message` is another."""

    message: str
    remedy: str
    detail: str


def explain_source(code: str, message: str, remedy: str) -> Explained:
    """Explain the error of a SourceError or of a row of `presence`."""
    if language() == "en" or code not in set(ErrorCode):
        return Explained(message, remedy, "")
    known = ErrorCode(code)
    return Explained(_(known.words), _(known.help), message)
