"""What the hook notes of a request is told in the reader's language, every note of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import router.hook
from router.admin.received import note_words
from tests.admin.conftest import Admin

KNOWN = {
    "why": "No call id was found",
    "cut": " The value of 'a' was cut off; it was left out.",
    "place": "body",
    "read_as": "they were read by place as '7'. Send an object with names instead.",
    "problem": "a name that is empty or longer than '7' characters; it was left out",
}

IDENTIFIES_NOTHING = (
    "The call id is '%ID%', which identifies no call: each request counts as its own call. "
    "Send Ringostat's call id as uniqueid."
)


def notes() -> Iterator[str]:
    """Each note in the source of the hook, as it may be written down."""
    for path in sorted(Path(router.hook.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                yield "".join(map(written, parts))


def written(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    return KNOWN.get(ast.unparse(part.value), "'7'")


@pytest.mark.parametrize("note", [*notes(), IDENTIFIES_NOTHING])
def test_a_note_of_the_hook_is_told_in_both_languages(admin: Admin, note: str) -> None:
    with admin.app.test_request_context("/", headers={"Accept-Language": "en"}):
        assert note_words(note) == note
    with admin.app.test_request_context("/", headers={"Accept-Language": "uk"}):
        assert note_words(note)[:12] != note[:12]


def test_a_note_of_another_release_is_told_as_it_was_written(admin: Admin) -> None:
    with admin.app.test_request_context("/", headers={"Accept-Language": "uk"}):
        assert note_words("The body is on fire.") == "The body is on fire."
