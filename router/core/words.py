"""What the rules tell people: a code and its values, with the English text beside the code. The pages translate it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self


def N_(text: str) -> str:  # noqa: N802 - the name by which translators' tools find texts
    """Mark a text for the catalog of translations (router/admin/translate.py)."""
    return text


def NN_(one: str, many: str) -> tuple[str, str]:  # noqa: N802 - as N_
    """Mark a text in the form for one and in that for other numbers."""
    return one, many


class Text(NamedTuple):
    """A text of this code, in which %(name)s stands for a value. `many`: the text for a %(num)s that is not one."""

    code: str
    words: str
    many: str = ""


class Worded(StrEnum):
    """A value with its label or its sentence, and what choosing it does."""

    words: str
    many: str
    help: str

    def __new__(cls, value: str, words: str = "", help: str = "") -> Self:  # noqa: A002 - the word of the pages
        member = str.__new__(cls, value)
        member._value_, member.words, member.many, member.help = value, words, "", help
        return member

    @property
    def code(self) -> str:
        return self.value


class Wrong(Worded):
    """What can be wrong with a value: its sentence, and what to write instead (`help`)."""


class WordedError(ValueError):
    """A value that cannot be used. `kind` and `values`: what is wrong; `message` and `remedy`: that in English."""

    def __init__(self, kind: Wrong, remedy: str = "", **values: Any) -> None:
        self.kind, self.values = kind, values
        self.message, self.remedy = kind.words % values, remedy or kind.help % values
        super().__init__(f"{self.message}; {self.remedy}")


class Message(NamedTuple):
    """A text with its values."""

    text: Text | Worded
    values: Mapping[str, Any] = {}

    def as_json(self) -> dict[str, Any]:
        """Return the code and the values, flat."""
        return {"code": self.text.code, **self.values}
