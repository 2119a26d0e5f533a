"""Explain why presence is not known, in the reader's language: by the code, with the source's own text as a detail."""

from __future__ import annotations

import re
from typing import NamedTuple

from router.admin.i18n import _
from router.presence.source import ErrorCode

_STATUS = re.compile(r" \(HTTP \d+\)")


class Explained(NamedTuple):
    """The error, the remedy, and as `detail` the source's own text where `message` is another."""

    message: str
    remedy: str
    detail: str


def explain_source(code: str, message: str, remedy: str) -> Explained:
    """Explain the error of a SourceError or of a row of `presence`."""
    if code not in set(ErrorCode) or code == ErrorCode.BAD_SETTINGS:
        return Explained(_(message), _(remedy), "")
    known, status = ErrorCode(code), _STATUS.search(message)
    words = _(known.words)
    if status is not None:
        words = f"{words.removesuffix('.')}{status[0]}."
    return Explained(words, _(known.help), "" if message == known.words else message)
