"""What says nothing: no list of it is complete, and none of it may pass for an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.numbers import identifies_nothing, is_placeholder, is_unset

TEMPLATES = [
    "%CALLID%",
    "%callid%",
    "%{CALLID}",
    "%(call_id)s",
    "%s",
    "%d",
    "${CHANNEL(linkedid)}",
    "${CDR(uniqueid):1}",
    *("$uniqueid", "$(uniqueid)", "{uniqueid}", "{{call.id}}", "{{ call['id'] }}", '{{ call["id"] }}'),
    *("{%id%}", "[call_id]"),
    *("[[id]]", "<unknown>", "<call-id>", "<%= id %>", "#{id}", "#id#", "@id", "@{id}", "&callid;"),
    *("*|ID|*", "__CALL_ID__"),
    "call-${UNIQUEID}",
    "pbx-%UNIQUEID%-1",
    "x{{id}}",
    "'%CALLID%'",
    '"{call_id}"',
    "  {call_id} ",
]
MARKERS = [
    *("null", "NULL", "(null)", "undefined", "None", "nil", "N/A", "NaN", "-", "--", "-1", "0", "000", "???"),
    *("...", "n/a"),
    *("00000000-0000-0000-0000-000000000000", "null-null", "undefined.undefined", "unknown"),
    *("(unknown)", "[object Object]"),
    *("uniqueid", "call_id", "CALLID", "CallSid", "linkedid", "Call-UUID"),
    "",
    " ",
    "'null'",
    "(not set)",
]
IDS = [
    "1",
    "12",
    "c1",
    "abc",
    "ua9_-1790775458.2139025",
    "1790775458.2139025",
    "a84b4c76e66710@pc33.atlanta.com",
    *(
        "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "[1790775458]",
        "<1790775458.7>",
    ),
    "CA5ef8732a3c49700934481addd5ce1659",
    "deadbeef",
    "100%",
    "a#b",
    "x@y",
    "webhook:120",
    "call-1",
    "0001",
]


@pytest.mark.parametrize("text", [*TEMPLATES, *MARKERS])
def test_a_template_or_a_marker_is_the_id_of_no_call(text: str) -> None:
    assert identifies_nothing(text)


@pytest.mark.parametrize("text", TEMPLATES[:-3])
def test_a_template_is_known_as_one(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize("text", IDS)
def test_an_id_is_one_whatever_stands_around_it(text: str) -> None:
    assert not identifies_nothing(text)


@given(st.text())
def test_what_is_unset_is_no_id_and_what_holds_a_long_number_is_one(text: str) -> None:
    assert identifies_nothing(text) or not is_unset(text)
    assert not identifies_nothing(f"{text}-17907754582139025")
