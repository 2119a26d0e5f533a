"""The notation of conditions: what each form means, and that what means nothing is refused with a remedy."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.core.patterns import UNSET, NumberRange, NumberTest, ParamTest, PatternError, number_test, param_tests

DIGITS = st.text("0123", min_size=1, max_size=5)


def test_reads_every_form_of_a_number() -> None:
    values = ["+380441112233", " 38050* ", "380441112200-380441112299", "+10 - +19", "Anonymous", "acme_ann-mob"]
    assert number_test(values) == NumberTest(
        exact=frozenset({"380441112233", "acme_ann-mob"}),
        prefixes=("38050",),
        ranges=(NumberRange("380441112200", "380441112299"), NumberRange("10", "19")),
        anonymous=True,
    )


def test_reads_every_form_of_a_parameters_value() -> None:
    assert param_tests(["google", "goo*", "*oog*", "*", "", "**", "***"]) == (
        ParamTest("equals", "google"),
        ParamTest("prefix", "goo"),
        ParamTest("contains", "oog"),
        ParamTest("present"),
        ParamTest("equals", ""),
        ParamTest("prefix", "*"),
        ParamTest("contains", "*"),
    )


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("*", "leave the condition out"),
        ("+*", "leave the condition out"),
        ("**", "leave the condition out"),
        ("38*50*", "at the end only"),
        ("38*50", "at the end only"),
        ("*50", "at the end only"),
        ("", "at the end only"),
        ("+", "at the end only"),
        ("20-10", "the lower one first"),
        ("9-10", "two numbers of one length"),
    ],
)
def test_refuses_a_number_that_means_nothing(value: str, remedy: str) -> None:
    with pytest.raises(PatternError, match=remedy) as caught:
        number_test(["380441112233", value])
    assert caught.value.values["text"] == value
    assert caught.value.message


@pytest.mark.parametrize("value", ["*oog", "*o*g"])
def test_refuses_a_parameters_value_that_cannot_be_searched_for(value: str) -> None:
    with pytest.raises(PatternError, match=r"write \*text\* for contains"):
        param_tests([value])


@given(DIGITS, DIGITS)
@example("10", "1")
def test_a_prefix_takes_all_numbers_that_begin_with_it(number: str, prefix: str) -> None:
    assert number_test([f"+{prefix}*"]).matches(number) is number.startswith(prefix)


@given(DIGITS, st.integers(0, 333), st.integers(0, 333))
def test_a_range_takes_the_numbers_of_its_length_between_its_ends(number: str, one: int, other: int) -> None:
    first, last = f"{min(one, other):03}", f"{max(one, other):03}"
    expected = len(number) == 3 and int(first) <= int(number) <= int(last)
    assert number_test([f"{first}-{last}"]).matches(number) is expected


@given(st.lists(st.sampled_from(["0", "01*", "20-31", "anonymous", "330-333", "2*"]), max_size=4), st.text("0123"))
def test_values_of_one_kind_are_ored(values: list[str], number: str) -> None:
    assert number_test(values).matches(number) is any(number_test([value]).matches(number) for value in values)


@given(st.text(min_size=1, max_size=8), st.text(max_size=8))
def test_parameters_are_compared_whatever_their_case(sent: str, around: str) -> None:
    if "*" in sent:
        return
    told = sent.swapcase() if sent.swapcase().casefold() == sent.casefold() else sent
    (equals, prefix, contains) = param_tests([told, f"{told}*", f"*{told}*"])
    assert equals.passes(sent)
    assert prefix.passes(sent + around)
    assert contains.passes(around + sent + around)


@pytest.mark.parametrize("sent", sorted(UNSET))
def test_a_marker_for_nothing_is_not_present(sent: str) -> None:
    (present,) = param_tests(["*"])
    assert not present.passes(sent)
    assert present.passes("google")
