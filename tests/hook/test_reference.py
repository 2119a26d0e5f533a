"""docs/hook.md is complete: it names every alias, word, marker and limit that the code knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from router.core.events import Disposition, EventKind
from router.hook import fields, wire
from router.hook.formats.ringostat import EVENT_KINDS
from router.numbers import UNSET

TEXT = (Path(__file__).parents[2] / "docs" / "hook.md").read_text(encoding="utf-8")
ROWS = {
    tuple(re.findall(r"`([^`]+)`", cells[0])): re.findall(r"`([^`]+)`", cells[1])
    for cells in (line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| `"))
    if len(cells) > 1
}


@pytest.mark.parametrize("field", fields.CALL_ALIASES)
def test_the_names_of_a_call_field_stand_in_their_order(field: str) -> None:
    assert ROWS[(field,)] == list(fields.CALL_ALIASES[field])


@pytest.mark.parametrize("field", ["event", "sip_login", "disposition", "at"])
def test_the_names_of_an_event_field_stand_in_their_order(field: str) -> None:
    assert ROWS[(field,)] == list(fields.EVENT_ALIASES[field])


def test_the_names_of_durations_stand_in_their_order() -> None:
    durations = ("billsec", "duration", "waittime")
    assert ROWS[durations] == [alias for name in durations for alias in fields.EVENT_ALIASES[name]]


@pytest.mark.parametrize("kind", [kind for kind in EventKind if kind])
def test_the_words_for_an_event_are_named(kind: EventKind) -> None:
    assert {kind.value, *ROWS[(kind.value,)]} == {word for word, meant in EVENT_KINDS.items() if meant is kind}


def test_the_dispositions_are_named() -> None:
    table = TEXT.partition("| result | answered |")[2].partition("\n\n")[0]
    named = {word.strip() for row in re.findall(r"^\| ([A-Z ,]+) \|", table, re.MULTILINE) for word in row.split(",")}
    assert named == {disposition.replace("_", " ").upper() for disposition in Disposition if disposition}


def test_plain_words_and_values_that_say_nothing_are_named() -> None:
    plain = re.search(r"The plain words (.*?) count", TEXT, re.DOTALL)
    unset = re.search(r"\*\*Unset values\*\* are skipped: empty, (.*?), and placeholders", TEXT, re.DOTALL)
    assert plain
    assert unset
    assert set(re.findall(r"`([^`]+)`", plain[1])) == fields.TOO_COMMON
    assert {"", *re.findall(r"`([^`]+)`", unset[1])} == UNSET


def test_limits_are_named() -> None:
    limits = (wire.MAX_BODY_BYTES, wire.MAX_VALUES, wire.MAX_NAME_CHARS, wire.MAX_PARAMS, wire.MAX_PARAM_CHARS)
    for limit in (*limits, wire.MAX_PARAMS_CHARS, wire.MAX_ID_CHARS):
        assert re.search(rf"\b{limit:,}\b", TEXT), limit


def test_fields_that_may_be_given_names_are_named() -> None:
    assert set(fields.FIELD_NAMES) <= set(re.findall(r"`([a-z_]+)`", TEXT))
    assert re.findall(r"`([a-z_]+)`", TEXT.partition("may be given names")[2].partition(".")[0]) == [
        *fields.EVENT_ALIASES
    ]
