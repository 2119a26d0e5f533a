"""What is noted of requests: each note with the values that its text holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import router.hook
from router.core.notes import NOTES, read_note
from router.core.words import Message
from router.explanation.words import ENGLISH
from router.routing import known


def noted() -> Iterator[tuple[str, set[str]]]:
    """Each note in the source of the hook: its code, and the names of its values."""
    for path in sorted(Path(router.hook.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "note":
                yield ast.literal_eval(node.args[0]), {str(value.arg) for value in node.keywords}


def test_a_note_has_the_values_of_its_text() -> None:
    for name, values in noted():
        assert set(re.findall(r"%\((\w+)\)s", NOTES[name].words)) == values, name


def test_each_note_is_made_somewhere() -> None:
    elsewhere = set(re.findall(r'NOTES\["(\w+)"\]', Path(known.__file__).read_text()))
    assert {name for name, _values in noted()} | elsewhere == NOTES.keys()


def test_a_note_is_read_back_as_it_was_stored() -> None:
    note = Message(NOTES["cut_off"], {"name": "'a'"})
    assert read_note(note.as_json()) == note
    assert ENGLISH.say(note) == "The value of 'a' was cut off; it was left out."
    assert read_note({"code": "of a later release"}) is None
