"""Phone numbers: one number has one spelling; extensions, SIP logins and hidden callers are told apart."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat

from router.numbers import UNSET, is_withheld, mask_within, normalise_number, normalise_prefix


def is_valid(digits: str) -> bool:
    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return False
    # As it stands: the library forgives a trunk prefix behind the country's code, which E.164 has not.
    written = f"{number.country_code}{phonenumbers.national_significant_number(number)}"
    return phonenumbers.is_valid_number(number) and written == digits


REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)
AS_SHORT_AS_EXTENSIONS = {"KI", "NU", "TA", "TK"}  # islands whose national numbers have four or five digits


@pytest.mark.parametrize(
    "raw",
    [
        *("380441234567", "+380441234567", " 380441234567", "+380 44 123-45-67", "+38 (044) 123 45 67"),
        *("00380441234567", "0441234567", "044 123-45-67", "(044)123.45.67", "441234567", "+0441234567"),
        *("044\u00a0123\u201045\u201067", "\u202a+380441234567\u202c", "+380441234567\r\n", "٠٤٤١٢٣٤٥٦٧"),
        *("０４４１２３４５６７", "＋380441234567", "tel:+380-44-123-45-67", "tel:0441234567;phone-context=+380"),
        *("sip:+380441234567@pbx.example.com", "sips:380441234567@pbx.example.com:5061;transport=tls"),
        *("SIP:%2B380441234567:secret@pbx;user=phone", '"Ann" <sip:0441234567@pbx>;tag=as1'),
        '"Lee, <Ann>" <tel:+380-44-123-45-67>, <sip:ann@pbx>',
        *("Ann <sips:%2B380441234567;isub=12@pbx:5061;user=phone>;tag=1", "<tel:044-123-45-67;isub=1234>"),
        *("tel:+380441234567;ext=5", "sip:0441234567;phone-context=+380@pbx;user=phone"),
        *("sip:+380441234567@pbx?Replaces=a%40b", "+380441234567;oli=62", "380441234567;cpc=ordinary;user=phone"),
        *("+380441234567@192.0.2.7", "%2B380441234567", "'0441234567", "380441234567,380441234567"),
        *("+380441234567;+380441234567", "044;123;45;67", "+380441234567,12", "0441234567;12", "380441234567.0"),
        *("3.80441234567E+11", "380\ufe0f441\u200b23\u20604567", "+380\u034f44123\u180e4567", "Ann <+380441234567>"),
        *("380441234567@pbx", "+380441234567 ext. 12"),
    ],
)
def test_a_number_has_one_spelling_in_any_notation(raw: str) -> None:
    assert normalise_number(raw, "UA") == "380441234567"


@pytest.mark.parametrize(
    ("raw", "country", "number"),
    [
        ("+442079460018", "UA", "442079460018"),
        ("+44 (0)20 7946 0018", "UA", "442079460018"),
        ("442079460018", "UA", "442079460018"),
        ("020 7946 0018", "GB", "442079460018"),
        ("(202) 555-0123", "US", "12025550123"),
        ("12025550123", "US", "12025550123"),
        ("011 380 44 123 45 67", "US", "380441234567"),
        ("8 495 123-45-67", "RU", "74951234567"),
        ("06 698 12345", "IT", "390669812345"),
        ("0800 123 456", "UA", "380800123456"),
        ("3931234567", "IT", "393931234567"),  # begins like the calling code, but is a whole national number
        ("030 123456", "DE", "4930123456"),
        ("801 234", "AD", "376801234"),
        ("22222", "SH", "29022222"),
        ("+99912345678", "UA", "99912345678"),
        ("0441234567", "ua", "380441234567"),
        # As platforms write them, although a national number may be as long.
        ("4915112345678", "DE", "4915112345678"),
        ("318001234", "NL", "318001234"),
        ("015112345678", "DE", "4915112345678"),
    ],
)
def test_the_country_says_how_national_numbers_are_read(raw: str, country: str, number: str) -> None:
    assert normalise_number(raw, country) == number


@pytest.mark.parametrize(
    "raw",
    [
        *("+38 (0) 67 111 22 33", "+3800671112233", "80671112233", "8 (067) 111-22-33", "+80671112233", "+671112233"),
        *("+0671112233", "380380671112233", "+380380671112233", "38380671112233"),
        *("0000380671112233", "+00380671112233"),
        *("810380671112233", "8~10 380 67 111 22 33", "011380671112233", "380 (067) 111-22-33", "+3 8067 111 22 33"),
    ],
)
def test_digits_that_are_no_number_give_way_to_the_one_that_they_can_mean(raw: str) -> None:
    assert normalise_number(raw, "UA") == "380671112233"


@pytest.mark.parametrize(
    ("raw", "country", "number"),
    [
        *(("+4848512345678", "PL", "48512345678"), ("0048 48 512 345 678", "PL", "48512345678")),
        *(("+44 020 7946 0018", "GB", "442079460018"),),
        *(("8 8 701 234 56 78", "KZ", "77012345678"), ("+7 8 701 234 56 78", "KZ", "77012345678")),
        *(("+48 (0) 601 123 456", "PL", "48601123456"), ("+972 (0) 50-234-5678", "UA", "972502345678")),
        *(("+1 1 202 555 0123", "US", "12025550123"), ("+39 06 698 12345", "IT", "390669812345")),
    ],
)
def test_other_countries_have_their_own_ways_to_be_no_number(raw: str, country: str, number: str) -> None:
    assert normalise_number(raw, country) == number


@pytest.mark.parametrize(
    "raw",
    [
        *("67.111.22.33", "67.111.22.33:5060", "<sip:67.111.22.33>", "sip:67.111.22.33:5060;transport=udp"),
        *("[2001:db8::1]:5060", "2001:db8::1", "sip:pbx.example.com", "sips:[2001:db8::1]", '"Ann" <sip:192.0.2.7>'),
        *("2026-11-29", "2026-11-29 09:30:47", "29.11.2026", "2019-06-02T09:30:47+0300", "3.80671E+11", "4E+11"),
        *("380671112233,380501112233", "380671112233;380501112233"),
    ],
)
def test_an_address_a_date_and_what_is_not_whole_are_no_number(raw: str) -> None:
    assert normalise_number(raw, "UA") == ""


def test_digits_that_can_mean_several_numbers_stay_as_they_are() -> None:
    assert normalise_number("38044123456", "UA") == "38044123456"
    assert normalise_number("+99912345678", "UA") == "99912345678"
    assert normalise_number("+1 511 234 5678", "DE") == "15112345678", "no number yet, but it may become one"


@pytest.mark.parametrize(
    ("raw", "country"),
    [
        *(("101", "UA"), ("112233", "UA"), ("1234", "DE"), ("301234", "DE"), ("7", "UA"), ("0", "UA"), ("911", "US")),
        *(("38044123456", "UA"), ("000", "UA"), ("123456789012345678901", "UA"), ("0441234567", "XX"), ("1234567", "")),
    ],
)
def test_digits_that_are_no_number_of_the_country_stay_as_they_are(raw: str, country: str) -> None:
    assert normalise_number(raw, country) == raw


def test_an_extension_with_a_space_before_it_is_no_international_number() -> None:
    assert normalise_number(" 101", "UA") == "101"


@pytest.mark.parametrize(
    "login",
    ["acme_ann", "acme_ann_mob", "brandcom_julian_mob", "3cx_ann", "101a", "1_101", "ann.lee", "*100#", "Ann Lee", "s"],
)
def test_a_sip_login_stays_as_it_is(login: str) -> None:
    assert normalise_number(login, "UA") == login
    assert normalise_number(f" {login} ", "UA") == login


@pytest.mark.parametrize(
    ("address", "user"),
    [
        ("sip:acme_ann@pbx.example.com", "acme_ann"),
        ("sip:101@pbx.example.com;user=phone", "101"),
        ('"Ann" <sip:acme_ann@pbx>', "acme_ann"),
        ("tel:101", "101"),
        ("ann@example.com", "ann@example.com"),
        ("sip:", ""),
    ],
)
def test_of_an_address_the_user_counts(address: str, user: str) -> None:
    assert normalise_number(address, "UA") == user


@pytest.mark.parametrize(
    "raw",
    [
        *sorted(UNSET),
        *("Anonymous", "PRIVATE", " Unknown ", "sip:anonymous@anonymous.invalid", '"Anonymous" <unknown>'),
        *("Прихований", "No Caller ID", "no-caller-id", "Caller ID blocked", "PRIVATE NUMBER", "Number Withheld"),
        *("Not Provided", "Out of area", "anonymous@anonymous.invalid"),
        *('"380671112233" <sip:anonymous@anonymous.invalid>;tag=1', "sip:Anonymous@192.0.2.7", "unknown@pbx"),
        *("<unknown>", "Прихований номер", "номер прихований", "Номер не визначено", "Невідомий абонент"),
        *("Скрытый номер", "номер не определён", "Неизвестный", "без номера", "numer zastrzeżony", "Nieznany numer"),
        *("brak numeru", "Unterdrückte Nummer", "Unbekannter Anrufer", "neznámé číslo", "skryté číslo"),
        *("rejtett szám", "număr ascuns", "скрит номер", "схаваны нумар"),
        *("-", "--", "+", "***", "*****", "xxxxxxxxxx", "XXX-XXX-XXXX", "ХХХХХХ", "____", "false"),
        *("00000", "0000", "0000000000", "+0000000", "\x00", "\u202e"),
    ],
)
def test_a_hidden_number_is_nothing(raw: str) -> None:
    assert normalise_number(raw, "UA") == ""


@pytest.mark.parametrize("raw", ["x" * 5_000, "+" + "1" * 5_000, "sip:" * 2_000, " " * 5_000 + "101", "x" * 1_000])
def test_what_is_too_long_for_a_number_is_cut(raw: str) -> None:
    assert len(normalise_number(raw, "UA")) <= 128


def test_a_login_that_contains_such_a_word_is_no_hidden_number() -> None:
    assert normalise_number("private_ann", "UA") == "private_ann"
    assert not is_withheld("private_ann")
    for login in ("x", "xx1", "*100", "max", "acme_unknown", "number", "ann.private", "unknown7", "ООО Номер"):
        assert normalise_number(login, "UA") == login


@pytest.mark.parametrize("region", REGIONS)
def test_all_notations_of_a_number_of_any_country_are_one(region: str) -> None:
    example = phonenumbers.example_number(region)
    assert example is not None
    digits = phonenumbers.format_number(example, PhoneNumberFormat.E164).removeprefix("+")
    for notation in (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL):
        assert normalise_number(phonenumbers.format_number(example, notation), region) == digits
    national = phonenumbers.format_number(example, PhoneNumberFormat.NATIONAL)
    assert normalise_number(national, region) == (national if region in AS_SHORT_AS_EXTENSIONS else digits)
    assert normalise_number(f" {digits}", region) == digits
    if len(digits) >= 8:
        assert normalise_number(digits, region) == digits, "as platforms write it"
    foreign = "UA" if region != "UA" else "PL"
    assert normalise_number(phonenumbers.format_number(example, PhoneNumberFormat.INTERNATIONAL), foreign) == digits


@given(st.text() | st.text(alphabet="+0123456789 -()<>@:;spit%"), st.sampled_from(["UA", "US", "DE", "AD", "XX", ""]))
def test_no_text_breaks_it_and_what_comes_out_is_clean(raw: str, country: str) -> None:
    number = normalise_number(raw, country)
    assert number == number.strip()
    assert len(number) <= 128
    assert number.isprintable()
    assert not is_withheld(number) or number == ""


@given(st.text(alphabet="0123456789", min_size=8, max_size=15).filter(lambda digits: digits[0] != "0"))
def test_a_plus_a_space_and_punctuation_make_no_difference(digits: str) -> None:
    spaced = " ".join(digits)
    notations = (f"+{digits}", f" {digits}", f"+{spaced}", f"tel:+{digits}", f"<sip:+{digits}@pbx>", f"+{digits};a=b")
    (read,) = {normalise_number(raw, "UA") for raw in notations}
    assert read == digits or is_valid(read)


@given(region=st.sampled_from(REGIONS), data=st.data())
def test_plain_digits_are_read_like_the_same_digits_with_punctuation(region: str, data: st.DataObject) -> None:
    """Plain digits take a short way."""
    examples = filter(None, (phonenumbers.example_number_for_type(region, kind) for kind in range(11)))
    known = sorted({str(example.national_number) for example in examples})
    national = data.draw(st.sampled_from(known)) if data.draw(st.booleans()) else ""
    kept = data.draw(st.integers(0, len(national)))
    changed = national[:kept] + data.draw(st.text(alphabet="0123456789", max_size=4 + len(national) - kept))
    prefix = data.draw(st.sampled_from(["", "0", "8"]))
    digits = f"{phonenumbers.country_code_for_region(region)}{prefix}{changed}"
    for plus in ("", "+"):
        assert normalise_number(plus + digits, region) == normalise_number(f"{plus}{digits[0]} {digits[1:]}", region)


@given(st.text(alphabet="0123456789", min_size=5, max_size=18), st.sampled_from(["UA", "PL", "DE", "US", "KZ", "XX"]))
def test_what_was_read_is_read_as_itself(digits: str, country: str) -> None:
    for raw in (digits, f"+{digits}"):
        number = normalise_number(raw, country)
        if is_valid(number):
            assert normalise_number(f"+{number}", country) == number


@pytest.mark.parametrize(
    ("raw", "country", "prefix"),
    [
        ("+38050", "UA", "38050"),
        ("+38 (050)", "UA", "38050"),
        ("38050", "UA", "38050"),
        ("050", "UA", "38050"),
        ("0", "UA", "380"),
        ("0048", "UA", "48"),
        ("48", "UA", "48"),
        ("10", "UA", "10"),
        ("8 495", "RU", "7495"),
        ("+86", "RU", "86"),
        ("06", "IT", "06"),
        ("1212", "US", "1212"),
        ("050", "XX", "050"),
        ("acme", "UA", ""),
        ("+", "UA", ""),
    ],
)
def test_a_prefix_is_read_like_the_numbers_it_begins(raw: str, country: str, prefix: str) -> None:
    assert normalise_prefix(raw, country) == prefix


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("userfield=%2B380501112233&x=1", "userfield=%2B38050***33&x=1"),
        ('{"E164":"+380 50 111-22-33"}', '{"E164":"+380 50 ***-33"}'),
        ("phone=0501112233", "phone=050***33"),
        ("tel=%2B38%20%28050%29%20111-22-33", "tel=%2B38%20%28050%29%20***-33"),
        ("other=380671112233", "other=380671112233"),
    ],
)
def test_masks_a_number_in_whatever_notation_it_was_sent(text: str, masked: str) -> None:
    assert mask_within(text, "380501112233") == masked
