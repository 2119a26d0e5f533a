"""Phone numbers in any notation → E.164 digits without plus, told apart from extensions and SIP logins.

Platforms send numbers as they like, rules and people compare them: one number must have one spelling. Ringostat
writes digits without plus itself, so this is also the spelling that it takes as a destination.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

import phonenumbers

from router.core.rules import UNSET

MAX_NUMBER_CHARS = 128

WITHHELD = UNSET | {
    *("anonym", "anonymous", "blocked", "hidden", "n/a", "nil", "none", "not available", "null", "number withheld"),
    *("private", "private number", "restricted", "unavailable", "undefined", "unknown", "withheld"),
    *("анонім", "аноним", "невідомий", "неизвестный", "прихований", "скрытый"),
}
"""What is sent in place of the number of a caller who hides it (RFC 3323 and the usage of common PBXs), case-folded."""

_PUNCTUATION = str.maketrans("", "", " \t\u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2014\u2212().\\/~")
_SHORTEST_NUMBER = 5  # digits; what is shorter is an extension in every country


def normalise_number(raw: str, country: str) -> str:
    """E.164 digits without plus ("380441234567") where `raw` is a number in the notation of `country` (ISO 3166, "UA")
    or an international one; "" where it is unset or withheld; else the text itself: an extension ("101"), a SIP login.

    A space before digits is a plus that was sent unencoded. Of sip:, sips: and tel: addresses the user part counts.
    A national number must be a valid one of the country; an international one is taken at its word.
    """
    if len(raw) > MAX_NUMBER_CHARS:
        return _one_line(raw[:4096])[:MAX_NUMBER_CHARS].strip()
    return _normalise(raw, country)


# The same callers, and the same few dialed numbers, come again and again; a national number costs 35 µs to read.
@lru_cache(maxsize=8192)
def _normalise(raw: str, country: str) -> str:
    text = _one_line(raw)
    has_plus = text[:1] == "+" or (raw[:1] == " " and text[:1].isdecimal())
    digits = text[1:] if text[:1] == "+" else text
    if not (digits.isascii() and digits.isdigit()):
        if is_withheld(text):
            return ""
        if ":" in text or "@" in text or text.endswith(">"):
            user = user_part(text)
            if user != text:
                return _normalise(user, country)
        digits = _digits(text)
        if not digits:
            return text
        has_plus = has_plus or digits[0] == "+"
        digits = digits.lstrip("+")
        if not digits.isdigit():
            return (_parse(text, None) or text) if text[0] == "+" else text
    if len(digits) > 6 and not digits.strip("0"):
        return ""  # FreeSWITCH's caller id of those who have none
    if has_plus and digits[0] != "0":
        return digits
    return _read_national(digits, country)


def normalise_prefix(raw: str, country: str) -> str:
    """The first digits of a number, for rules: "+38 050" and, in UA, "050" are "38050".

    Without plus and trunk prefix the digits are taken as they are: "48" is Poland, "10" the extensions from 100 to 109.
    """
    digits = _digits(raw.strip())
    plan = _plan(country)
    if digits[:1] == "+" or plan is None or not plan.trunk_prefix or not digits.startswith(plan.trunk_prefix):
        return digits.lstrip("+")
    if digits.startswith("00"):  # the international prefix of the countries with trunk prefix 0
        return digits[2:]
    return plan.calling_code + digits.removeprefix(plan.trunk_prefix)


def is_withheld(text: str) -> bool:
    """Does this stand in place of a hidden or unknown number?"""
    return text.strip().casefold() in WITHHELD


def mask_number(number: str) -> str:
    """The number with its middle left out ("38050***33"); what is shorter than eight characters stays."""
    return number if len(number) < 8 else f"{number[:5]}***{number[-2:]}"


def _one_line(text: str) -> str:
    """Without what does not show: numbers copied from a screen come with marks for the writing direction."""
    if not text.isprintable():
        text = "".join(c for c in text.replace("\u00a0", " ") if c.isprintable())
    return text.strip()


def user_part(text: str) -> str:
    """sip:+380441234567@pbx;user=phone and "Ann" <sip:ann@pbx> without what surrounds the number or name."""
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") + 1 : -1]
    scheme, colon, rest = text.partition(":")
    is_address = bool(colon) and scheme.strip().lower() in {"sip", "sips", "tel"}
    user = rest if is_address else text
    user, at, _ = user.partition("@")
    if is_address:
        user = unquote(user.partition(";")[0])
        return user.partition(":")[0] if at else user  # sip:user:password@host
    return user if user.strip("+").isdigit() else text


def _digits(text: str) -> str:
    """Without punctuation, other scripts' digits as ASCII; "" when there is nothing of a number in it."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    compact = text.translate(_PUNCTUATION)
    if compact[:1] != "+" and not compact.isdigit():
        return ""
    if compact[:1] == "+" and "(0)" in text:  # +44 (0)20…: the trunk digit, which is not dialed after the plus
        compact = text.replace("(0)", "").translate(_PUNCTUATION)
    return compact if compact.strip("+") and compact.isascii() else ""


class _Plan(NamedTuple):
    """How long the numbers of a country are, without calling code and trunk prefix."""

    calling_code: str
    lengths: frozenset[int]
    shortest: int
    trunk_prefix: str


@lru_cache(maxsize=256)
def _plan(country: str) -> _Plan | None:
    meta = phonenumbers.PhoneMetadata.metadata_for_region(country.upper(), None)
    if meta is None or meta.general_desc is None:
        return None
    lengths = frozenset(meta.general_desc.possible_length or ())
    shortest = max(_SHORTEST_NUMBER, min(lengths, default=0))
    return _Plan(str(meta.country_code), lengths, shortest, meta.national_prefix or "")


def _read_national(digits: str, country: str) -> str:
    """E.164 of digits that came without plus; the digits themselves where they are no number of the country: then they
    are an extension, or international already.
    """
    plan = _plan(country)
    if plan is None or len(digits) < plan.shortest:
        return digits
    rest = len(digits) - len(plan.calling_code)
    if digits.startswith(plan.calling_code) and rest in plan.lengths and len(digits) not in plan.lengths:
        return digits  # the country's own international notation, and too long for a national one
    if len(digits) <= 6 and not (plan.trunk_prefix == "" or digits.startswith(plan.trunk_prefix)):
        return digits  # an extension, though the country may have numbers as short
    return _parse(digits, country.upper()) or digits


def _parse(text: str, country: str | None) -> str:
    """E.164 digits of a valid number, else ""."""
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return ""
    if not phonenumbers.is_valid_number(number):
        return ""
    return f"{number.country_code}{phonenumbers.national_significant_number(number)}"
