"""Phone numbers in any notation → E.164 digits without plus, told apart from extensions, SIP logins and addresses.

Platforms send numbers as they like, rules and people compare them: one number must have one spelling. Ringostat
writes digits without plus itself, so this is also the spelling that it takes as a destination.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import unquote

import phonenumbers
from phonenumbers import PhoneNumber, is_possible_number, is_valid_number

from router.core.unset import is_withheld

MAX_NUMBER_CHARS = 128
_LONGEST_ADDRESS = 1024  # characters, with all that stands around the number

_PUNCTUATION = str.maketrans("", "", " \t\u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2014\u2212().\\/~,;'\"")
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # letters and signs that show nothing
_SHORTEST_NUMBER = 5  # digits; what is shorter is an extension in every country
_SHORTEST_WHOLE = 8  # digits; what is shorter is read as it stands: too much could become a number
_OLD_TRUNK_8 = frozenset({"AM", "AZ", "BY", "GE", "KG", "KZ", "LT", "LV", "MD", "RU", "TJ", "TM", "UA", "UZ"})

_SCHEMES = frozenset({"sip", "sips", "tel", "callto", "h323", "whatsapp"})
_NAMED = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^"<]*)\s*<\s*([^<>]*)>')  # a display name, then the address
_PARAMETER = re.compile(r";\s*[A-Za-z][^;,]*")
_CONTEXT = re.compile(r";\s*phone-context=(?:\+|%2B)\d+", re.IGNORECASE)  # RFC 3966
_DATE = re.compile(r"((19|20)\d\d[-./](0\d|1[0-2])[-./][0-3]\d|[0-3]?\d[-./](0\d|1[0-2])[-./](19|20)\d\d)(?![\d.-])")
_FLOAT = re.compile(r"(\d)(?:[.,](\d+)[eE]\+?|[eE]\+)(\d{1,2})|(\d{5,})[.,]0+")  # it passed through arithmetic


def normalise_number(raw: str, country: str) -> str:
    """E.164 digits without plus ("380441234567") where `raw` is a number in the notation of `country` (ISO 3166, "UA")
    or an international one; "" where it is unset, withheld, an address of the network, a date, or was not kept whole;
    else the text itself: an extension ("101"), a SIP login.

    A space before digits is a plus that was sent unencoded. Of SIP and tel addresses the user part counts. Digits that
    are no valid number as they stand give way to the one valid number that they can mean, if there is exactly one.
    """
    text = _normalise(raw, country) if len(raw) <= _LONGEST_ADDRESS else _one_line(raw[:_LONGEST_ADDRESS])
    return text[:MAX_NUMBER_CHARS].strip()


# The same callers, and the same few dialed numbers, come again and again; a number costs 35 µs to read.
@lru_cache(maxsize=8192)
def _normalise(raw: str, country: str) -> str:
    shown = _one_line(raw)
    text = shown if shown.isascii() else _plain(shown)
    if not text.isdigit():
        if is_withheld(shown) or _is_address_or_date(text):
            return ""
        if float_ := _FLOAT.fullmatch(text):
            return _normalise(_whole(float_), country)
        user = user_part(text)
        if (context := _CONTEXT.search(text)) and (number := _parse(f"tel:{user}{unquote(context[0])}", None)):
            return number
        if user != text:
            return _normalise(user, country)
        listed = [part for part in re.split("[,;]", text) if part.strip()]
        if len(listed) > 1:  # a header that was sent twice, say, or an extension to be dialed after a pause
            first, *others = (_normalise(part, country) for part in listed)
            if len(first) > _SHORTEST_WHOLE and first.isdigit():
                return "" if any(len(other) > _SHORTEST_WHOLE and other != first for other in others) else first
    compact = _digits(text)
    has_plus, digits = compact[:1] == "+" or raw[:1] == " ", compact.lstrip("+")
    if not digits.isdigit():
        return (_parse(text, None) or shown) if text[:1] == "+" else shown
    if len(digits) > 3 and not digits.strip("0"):
        return ""  # the caller id of those who have none
    return _read(digits, country, has_plus=has_plus)


def normalise_prefix(raw: str, country: str) -> str:
    """The first digits of a number, for rules: "+38 050" and, in UA, "050" are "38050".

    Without plus and trunk prefix the digits are taken as they are: "48" is Poland, "10" the extensions from 100 to 109.
    """
    digits = _digits(_plain(raw.strip()))
    plan = phonenumbers.PhoneMetadata.metadata_for_region(country.upper(), None)
    trunk = (plan and plan.national_prefix) or "+"
    if plan is None or not digits.startswith(trunk):
        return digits.lstrip("+")
    if digits.startswith("00"):  # the international prefix of the countries with trunk prefix 0
        return digits[2:]
    return f"{plan.country_code}{digits.removeprefix(trunk)}"


def mask_number(number: str) -> str:
    """The number with its middle left out ("38050***33"); what is shorter than eight characters stays."""
    return number if len(number) < 8 else f"{number[:5]}***{number[-2:]}"


# ---- what is no number


def _is_address_or_date(text: str) -> bool:
    """An address of the network, with a port or without, or a day."""
    for host in (text, text.rpartition(":")[0]):
        with suppress(ValueError):
            return bool(ip_address(host.strip("[]")))
    return _DATE.match(text) is not None


def _whole(number: re.Match[str]) -> str:
    """The digits of 380671112233.0 and 3.80671112233E+11; "" where some of them may be lost."""
    first, rest, exponent, plain = number.groups()
    return plain or (f"{first}{rest}" if rest and len(rest) == int(exponent) else "")


# ---- addresses


def _one_line(text: str) -> str:
    """Without what does not show: numbers copied from a screen come with marks for the writing direction."""
    if not text.isprintable():
        text = "".join(c for c in text.replace("\u00a0", " ") if c.isprintable())
    return text.strip()


def _plain(text: str) -> str:
    """As a number is read: other scripts' digits and signs as ASCII, nothing that does not show."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return "".join(c for c in text if unicodedata.category(c)[0] not in "CM" and c not in _FILLERS).strip()


def user_part(text: str) -> str:
    """sip:+380441234567@pbx;user=phone and "Ann" <sip:ann@pbx>;tag=1 without what surrounds the number or name (RFC
    3261); "" of an address that names a host alone.
    """
    named = _NAMED.match(text)
    address = named[1].strip() if named else text
    scheme, colon, rest = address.partition(":")
    is_uri = bool(colon) and scheme.strip().lower() in _SCHEMES
    user, at, _ = (rest if is_uri else address).partition("@")
    user = unquote(_PARAMETER.sub("", user)).strip()
    if at and is_uri:
        return user.partition(":")[0]  # sip:user:password@host
    if is_uri:
        is_host = (scheme.strip().lower() != "tel" and "." in user) or _is_address_or_date(user)
        return "" if is_host else user
    if is_withheld(user) or (user != address and _digits(user).lstrip("+").isdigit()):
        return user
    return unquote(address) if address.startswith(("%2B", "%2b")) else address


# ---- digits


def _digits(text: str) -> str:
    """The ASCII text without punctuation, "" when there is nothing of a number in it."""
    compact = text.translate(_PUNCTUATION)
    is_number = compact.strip("+") and compact.isascii() and (compact[0] == "+" or compact.isdigit())
    return compact if is_number else ""


def _read(digits: str, country: str, *, has_plus: bool) -> str:
    """E.164 of the digits; themselves where they are no number: then they are an extension, or nobody knows."""
    plan = phonenumbers.PhoneMetadata.metadata_for_region(country.upper(), None)
    if has_plus and digits[0] != "0":
        if number := _parse(f"+{digits}", None) or _without_trunk(digits):
            return number
        if _parse(f"+{digits}", None, is_possible_number):
            return digits
    elif plan is not None:
        code, described = str(plan.country_code), plan.general_desc
        lengths = (described and described.possible_length) or (0,)
        # Without the trunk prefix, where there is one, few dial; E.164 without its plus is what platforms send.
        is_national = len(digits) in lengths and (
            not plan.national_prefix or digits.startswith(plan.national_prefix) or not _parse(f"+{digits}", None)
        )
        is_own = digits.startswith(code) and len(digits) - len(code) in lengths and not is_national
        # An extension may be as short as the country's shortest numbers.
        if len(digits) < max(_SHORTEST_NUMBER, min(lengths)) or (
            not is_own and len(digits) <= 6 and not digits.startswith(plan.national_prefix or "")
        ):
            return digits
        number = _parse(f"+{digits}" if is_own else digits, country)
        if number or (number := (len(digits) >= _SHORTEST_WHOLE and _parse(f"+{digits}", None)) or ""):
            return number
    if plan is None or len(digits) < _SHORTEST_WHOLE:
        return digits
    meant = {number for text in _readings(digits, str(plan.country_code), country) if (number := _parse(text, country))}
    return meant.pop() if len(meant) == 1 else digits


def _readings(digits: str, code: str, country: str) -> Iterator[str]:
    """What digits that are no number can mean, as it would be dialed: of these the valid ones count."""
    bare = digits.lstrip("0")
    yield from (digits, f"+{bare}", f"+{code}{bare}")
    if bare.startswith(("810", "11")):  # dialed before international numbers: 8 10, 011
        yield f"+{bare.removeprefix('8')[2:]}"
    if digits[0] == "8" and country.upper() in _OLD_TRUNK_8:
        yield digits[1:]
    for place in range(1, len(code) + 1):  # the country's code lost in part, or sent twice in part
        if digits.startswith(code[place:]):
            yield f"+{code[:place]}{digits}"
        if bare.startswith(code[:place] + code):
            yield f"+{bare[place:]}"


def _without_trunk(digits: str) -> str:
    """+48 (0) 601 123 456: what is dialed within the country has no place behind its code."""
    try:
        number = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        return ""
    return _parse(f"+{number.country_code}{number.national_number}", None) if number.italian_leading_zero else ""


def _parse(text: str, country: str | None, is_good: Callable[[PhoneNumber], bool] = is_valid_number) -> str:
    """E.164 digits of a valid number, else ""."""
    try:
        number = phonenumbers.parse(text, country and country.upper())
    except phonenumbers.NumberParseException:
        return ""
    national = phonenumbers.national_significant_number(number)
    return f"{number.country_code}{national}" if is_good(number) else ""
