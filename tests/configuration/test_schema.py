"""One spelling for numbers and times; the reference and the database agree with the keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Table

from router.configuration import check, load
from router.configuration.document import config_from, document_of
from router.configuration.schema import (
    SECRETS,
    SECTIONS,
    AgentConfig,
    Config,
    GroupConfig,
    HookConfig,
    MemberConfig,
    PresenceConfig,
    ProjectConfig,
    RuleConfig,
    ScheduleConfig,
    SchemaError,
    destination,
    instant,
    notation,
    number_pattern,
    render_reference,
    takes,
)
from router.core.instants import InstantError
from router.core.patterns import PatternError, number_test
from router.core.rules import counted_groups
from router.db import models
from router.db.documents import build_project
from tests.configuration.conftest import ENVIRON, load_sample

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration-file.md"


@pytest.mark.parametrize(
    ("written", "country", "meant"),
    [
        ("+380 44 111-22-33", "UA", "380441112233"),
        ("0441112233", "UA", "380441112233"),
        ("044-111-22-33", "UA", "380441112233"),
        ("050*", "UA", "38050*"),
        ("+38 (050) *", "UA", "38050*"),
        ("38050*", "UA", "38050*"),
        ("48*", "UA", "48*"),
        ("0441112200-0441112299", "UA", "380441112200-380441112299"),
        ("+380 44 111-22-00 – +380 44 111-22-99", "UA", "380441112200-380441112299"),
        ("044 111 22 00 - 044 111 22 99", "UA", "380441112200-380441112299"),
        ("100-199", "UA", "100-199"),
        ("101", "UA", "101"),
        ("Anonymous", "UA", "anonymous"),
        ("acme_ann", "UA", "acme_ann"),
        ("acme_*", "UA", "acme_*"),
        ("(212) 555-0123", "US", "12125550123"),
    ],
)
def test_a_number_has_one_spelling(written: str, country: str, meant: str) -> None:
    assert number_pattern(written, country) == meant


@pytest.mark.parametrize(
    "written", ["", "*", "+*", "38*44", "+38050abc", "Ann Lee", "unknown", "2-1", "199-100", "1" * 16, "+", "a*b"]
)
def test_what_is_no_number_is_refused_with_a_remedy(written: str) -> None:
    with pytest.raises(PatternError) as caught:
        number_pattern(written, "UA")
    assert caught.value.values["text"] == written
    assert caught.value.remedy


@given(st.text("+0123456789-* ()", max_size=14) | st.text(max_size=6), st.sampled_from(["UA", "DE", "US", "PL"]))
def test_a_spelling_that_is_taken_is_a_pattern_that_the_rules_understand(written: str, country: str) -> None:
    try:
        pattern = number_pattern(written, country)
    except PatternError:
        assume(False)
        raise
    test = number_test([pattern])
    assert test.anonymous or test.exact or test.prefixes or test.ranges
    assert not (test.exact | set(test.prefixes)) & {""}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("", ""),
        ("044 111 22 33", "380441112233"),
        ("+49 30 901820", "4930901820"),
        ("120", "120"),
        ("acme_desk", "acme_desk"),
        ("sip:desk@acme.example", "sip:desk@acme.example"),
        ("anonymous", "anonymous"),
    ],
)
def test_a_destination_is_a_number_or_one_word(written: str, sent: str) -> None:
    assert destination(written, "UA") == sent


@pytest.mark.parametrize("written", ["two words", "a\nb", "x" * 129, "a\u200bb"])
def test_a_destination_that_no_platform_takes_is_refused(written: str) -> None:
    with pytest.raises(SchemaError, match="is not a valid destination; write a number, a SIP login"):
        destination(written, "UA")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-12-25", "2026-12-24T22:00:00+00:00"),
        ("2026-07-01T14:00", "2026-07-01T11:00:00+00:00"),
        ("2026-07-01 14:00", "2026-07-01T11:00:00+00:00"),
        ("2026-07-01T14:00Z", "2026-07-01T14:00:00+00:00"),
    ],
)
def test_an_instant_is_in_the_zone_of_the_project(written: str, meant: str) -> None:
    assert instant(written, "Europe/Kyiv") == meant
    assert instant(meant, "Europe/Kyiv") == meant


@pytest.mark.parametrize(
    ("written", "said"),
    [
        *(
            (word, "is not a valid date or time; write it as 2026-12-25")
            for word in ("tomorrow", "25.12.2026", "2026-02-30")
        ),
        *((word, "is out of range; check the year") for word in ("1969-01-01", "9999-12-31T23:00-12:00")),
        ("2026-03-29T03:30", "does not exist in Europe/Kyiv: the clocks go forward then; write 02:30 or 04:30"),
    ],
)
def test_what_is_no_date_is_refused(written: str, said: str) -> None:
    with pytest.raises(InstantError, match=said):
        instant(written, "Europe/Kyiv")


# ---- words and documents


def test_a_document_holds_all_that_the_words_say_but_secrets() -> None:
    (words,) = load_sample().projects
    plain = words.model_copy(
        update={
            "hook": words.hook.model_copy(update={"basic_auth": None}),
            "presence": words.presence.model_copy(update={"auth_key": None, "token": None, "online_from": "sip"}),
        }
    )
    document = document_of(words)
    assert config_from(document) == plain
    assert "pa55word" not in str(document)
    assert document["project"]["hook"]["basic_auth"] is True


def test_the_rules_view_is_built_from_the_words_alone() -> None:
    project = build_project(document_of(load_sample().projects[0]), 1, 1)
    assert [rule.name for rule in project.rules] == ["blocked", "VIP", "CRM", "night", "everyone"]
    assert counted_groups(project.rules[1]) == [1]
    assert project.agents[3].deputy_id == 2


# ---- the keys, the database and the reference


@pytest.mark.parametrize(
    ("words", "model", "prefix", "renamed"),
    [
        (ProjectConfig, models.Project, "", {}),
        (HookConfig, models.Project, "hook_", {}),
        (PresenceConfig, models.Project, "presence_", {"online_from": "sip"}),
        (AgentConfig, models.Agent, "", {"staff_id": ""}),
        (MemberConfig, models.Member, "", {}),
        (GroupConfig, models.Group, "", {}),
        (ScheduleConfig, models.Schedule, "", {"override": ""}),
        (RuleConfig, models.Rule, "", {"prefer": ""}),
    ],
)
def test_a_key_left_out_means_what_a_new_row_has(
    words: type[Config], model: type[models.Base], prefix: str, renamed: dict[str, Any]
) -> None:
    table = model.__table__
    assert isinstance(table, Table)
    compared = 0
    for key, field in words.model_fields.items():
        column = table.columns.get(prefix + ("external_id" if key == "staff_id" else key))
        if column is None or field.is_required() or (words is ScheduleConfig and key == "time_zone"):
            continue
        default = column.default.arg if column.default is not None else None
        default = default(None) if callable(default) else default
        expected = renamed.get(key, field.default)
        assert default == (list(expected) if isinstance(expected, tuple) else expected), key
        compared += 1
    assert compared


def test_secrets_are_kept_out_of_sight() -> None:
    for section, part in ((HookConfig, "hook"), (PresenceConfig, "presence")):
        for key, field in section.model_fields.items():
            assert (SecretStr.__name__ in str(field.annotation)) is (key in SECRETS[part])


@pytest.mark.parametrize("section", SECTIONS)
def test_each_key_says_what_it_does_and_what_it_takes(section: type[Config]) -> None:
    for field in section.model_fields.values():
        assert takes(field)
        assert field.description
        assert field.description.endswith(".")


def test_the_example_of_the_reference_is_good() -> None:
    found = re.search(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    assert check(load(found[1], ENVIRON)) == []


def test_the_reference_is_what_the_keys_say() -> None:
    found = re.search(
        r"<!-- keys:[^\n]*-->\n(.*?)<!-- end of keys -->", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL
    )
    assert found
    assert found[1] == render_reference(), "Renew it: python -m router.configuration.schema"


# ---- what is stored can be written again, in every country


_WRITTEN = st.one_of(
    st.text(st.sampled_from("0123456789"), min_size=1, max_size=15),
    st.tuples(st.sampled_from(["+", "", "00", "0", "8"]), st.text(st.sampled_from("0123456789 -()"), max_size=14)).map(
        "".join
    ),
    st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)).map(
        lambda region: str((phonenumbers.example_number(region) or phonenumbers.PhoneNumber()).national_number)
    ),
)


@settings(max_examples=250)
@given(country=st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)), text=_WRITTEN, star=st.sampled_from(["", "*"]))
def test_a_stored_number_is_written_so_that_it_is_read_back(country: str, text: str, star: str) -> None:
    for read, written in ((number_pattern, text + star), (destination, text)):
        try:
            stored = read(written, country)
        except (PatternError, SchemaError):
            continue
        assert read(notation(stored, country, read), country) == stored


@settings(max_examples=200)
@given(
    country=st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)),
    first=st.integers(1, 10**12),
    more=st.integers(0, 99),
)
def test_a_stored_range_is_written_so_that_it_is_read_back(country: str, first: int, more: int) -> None:
    try:
        stored = number_pattern(f"+{first}-+{first + more}", country)
    except PatternError:
        return
    assert number_pattern(notation(stored, country, number_pattern), country) == stored
