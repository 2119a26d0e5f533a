"""Read phone numbers in any notation as E.164 digits without plus. Recognise extensions, SIP logins and addresses.

Platforms write numbers differently, and rules and people compare them, so each number gets one form: that of Ringostat,
which also accepts it as a destination.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

import phonenumbers
from phonenumbers import PhoneNumber, is_possible_number, is_valid_number

from router.core import patterns

MAX_NUMBER_CHARS = 128
_LONGEST_ADDRESS = 1024  # characters, with everything around the number

_PUNCTUATION = str.maketrans("", "", " \t\u00a0\u2007\u2009\u202f-\u2010\u2011\u2012\u2013\u2014\u2212().\\/~,;'\"")
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"  # invisible letters and signs
_SHORTEST_NUMBER = 5  # digits; fewer are an extension in every country
_SHORTEST_WHOLE = 8  # digits; fewer are kept as they are: too many could become a number
_OLD_TRUNK_8 = frozenset({"AM", "AZ", "BY", "GE", "KG", "KZ", "LT", "LV", "MD", "RU", "TJ", "TM", "UA", "UZ"})

_SCHEMES = frozenset({"sip", "sips", "tel", "callto", "h323", "whatsapp"})
_NAMED = re.compile(r'\s*(?:"(?:[^"\\]|\\.)*"|[^"<]*)\s*<\s*([^<>]*)>')  # a display name, then the address
_PARAMETER = re.compile(r";\s*[A-Za-z][^;,]*")
_CONTEXT = re.compile(r";\s*phone-context=(?:\+|%2B)\d+", re.IGNORECASE)  # RFC 3966
_DATE = re.compile(r"((19|20)\d\d[-./](0\d|1[0-2])[-./][0-3]\d|[0-3]?\d[-./](0\d|1[0-2])[-./](19|20)\d\d)(?![\d.-])")
_FLOAT = re.compile(r"(\d)(?:[.,](\d+)[eE]\+?|[eE]\+)(\d{1,2})|(\d{5,})[.,]0+")  # a number that became a float


def normalise_number(raw: str, country: str) -> str:
    """Return the E.164 digits ("380441234567") of a number in the notation of `country` (ISO 3166) or an international
    one; "" of an unset or withheld one, an IP address, a date, or a number that lost digits; else the text itself: an
    extension ("101"), a SIP login.

    A space before digits is a plus that was sent unencoded. Of SIP and tel addresses the user part is read. Digits that
    are not a valid number are replaced by the valid number that they can mean, if there is exactly one.
    """
    text = _normalise(raw, country) if len(raw) <= _LONGEST_ADDRESS else _one_line(raw[:_LONGEST_ADDRESS])
    return text[:MAX_NUMBER_CHARS].strip()


@lru_cache(maxsize=8192)  # callers and dialed numbers repeat
def _normalise(raw: str, country: str) -> str:
    if _plain_numbers(country).fullmatch(raw):  # fast path of nearly every call: 1 µs instead of 35
        return raw.removeprefix("+")
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
        if len(listed) > 1:  # a header that was sent twice, or an extension to dial after a pause
            first, *others = (_normalise(part, country) for part in listed)
            if len(first) > _SHORTEST_WHOLE and first.isdigit():
                return "" if any(len(other) > _SHORTEST_WHOLE and other != first for other in others) else first
    compact = _digits(text)
    has_plus, digits = compact[:1] == "+" or raw[:1] == " ", compact.lstrip("+")
    if not digits.isdigit():
        return (_parse(text, None) or shown) if text[:1] == "+" else shown
    if len(digits) > 3 and not digits.strip("0"):
        return ""  # a placeholder for an unknown caller
    return _read(digits, country, has_plus=has_plus)


@lru_cache(maxsize=256)
def _plain_numbers(country: str) -> re.Pattern[str]:
    """Return a pattern of the country's mobile and fixed numbers in E.164 that `_read` would leave as they are.

    It matches nothing where countries share a calling code or a national prefix would be removed. It requires the plus
    where E.164 without plus can be a national number.
    """
    plan: Any = phonenumbers.PhoneMetadata.metadata_for_region(country.upper(), None)
    if plan is None or len(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[plan.country_code]) > 1:
        return re.compile("(?!)")
    code, prefix = str(plan.country_code), plan.national_prefix
    plus = r"\+" if not prefix or code.startswith(prefix) else r"\+?"
    kinds = "|".join(
        rf"(?=\d{{{length}}}\Z)(?:{kind.national_number_pattern})"
        for kind in (plan.mobile, plan.fixed_line)
        for length in kind.possible_length
    )
    return re.compile(rf"{plus}(?=[0-9]+\Z){code}(?!0|{plan.national_prefix_for_parsing or 0})(?:{kinds})\Z")


def normalise_prefix(raw: str, country: str) -> str:
    """Return the first digits of a number, for rules: "+38 050" and, in UA, "050" are "38050".

    Without plus and trunk prefix the digits are kept: "48" is Poland, "10" the extensions from 100 to 109.
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
    """Return the number without its middle ("38050***33"); one of fewer than eight characters as it is."""
    return number if len(number) < 8 else f"{number[:5]}***{number[-2:]}"


def mask_within(text: str, number: str) -> str:
    """Mask a number wherever it occurs in the text, in any notation."""
    digits = re.sub(r"\D", "", number)
    if len(digits) < 8 or digits != number:
        return text.replace(number, mask_number(number)) if number else text
    # The country code and trunk prefix before the last nine digits need no mask.
    national = digits[-9:]
    between = r"(?:[\s().+/-]|%(?:20|28|29|2B|2D|2b|2d)){0,3}"
    hidden = len(national) - len(national[:2]) - 2
    pattern = (
        f"({between.join(national[:2])}{between}){between.join(national[2 : 2 + hidden])}"
        f"({between}{between.join(national[-2:])})"
    )
    return re.sub(pattern, r"\1***\2", text)


# ---- IP addresses, dates, floats


def _is_address_or_date(text: str) -> bool:
    """Return whether the text is an IP address, with or without port, or a date."""
    for host in (text, text.rpartition(":")[0]):
        with suppress(ValueError):
            return bool(ip_address(host.strip("[]")))
    return _DATE.match(text) is not None


def _whole(number: re.Match[str]) -> str:
    """Return the digits of 380671112233.0 and 3.80671112233E+11; "" where some may be lost."""
    first, rest, exponent, plain = number.groups()
    return plain or (f"{first}{rest}" if rest and len(rest) == int(exponent) else "")


# ---- addresses


def _one_line(text: str) -> str:
    """Return the text without invisible characters: numbers copied from a screen hold marks of writing direction."""
    if not text.isprintable():
        text = "".join(c for c in text.replace("\u00a0", " ") if c.isprintable())
    return text.strip()


def _plain(text: str) -> str:
    """Return the text with other scripts' digits and signs as ASCII and without invisible characters."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return "".join(c for c in text if unicodedata.category(c)[0] not in "CM" and c not in _FILLERS).strip()


def user_part(text: str) -> str:
    """Return the number or name in sip:+380441234567@pbx;user=phone or "Ann" <sip:ann@pbx>;tag=1 (RFC 3261); "" of an
    address with a host alone.
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
    """Return the ASCII text without punctuation, "" when it is not a number."""
    compact = text.translate(_PUNCTUATION)
    is_number = compact.strip("+") and compact.isascii() and (compact[0] == "+" or compact.isdigit())
    return compact if is_number else ""


def _read(digits: str, country: str, *, has_plus: bool) -> str:
    """Return the E.164 number of these digits; the digits themselves when they are not a number."""
    plan = phonenumbers.PhoneMetadata.metadata_for_region(country.upper(), None)
    if has_plus and digits[0] != "0":
        if number := _parse(f"+{digits}", None) or _without_trunk(digits):
            return number
        if _parse(f"+{digits}", None, is_possible_number):
            return digits
    elif plan is not None:
        code, described = str(plan.country_code), plan.general_desc
        lengths = (described and described.possible_length) or (0,)
        # In countries with a trunk prefix, digits without it are more likely E.164 without plus, as platforms send it.
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
    """Yield the numbers that invalid digits can mean, as they would be dialed."""
    bare = digits.lstrip("0")
    yield from (digits, f"+{bare}", f"+{code}{bare}")
    if bare.startswith(("810", "11")):  # dialed before international numbers: 8 10, 011
        yield f"+{bare.removeprefix('8')[2:]}"
    if digits[0] == "8" and country.upper() in _OLD_TRUNK_8:
        yield digits[1:]
    for place in range(1, len(code) + 1):  # a part of the country's code is missing, or repeated
        if digits.startswith(code[place:]):
            yield f"+{code[:place]}{digits}"
        if bare.startswith(code[:place] + code):
            yield f"+{bare[place:]}"


def _without_trunk(digits: str) -> str:
    """Return the number without the trunk prefix behind the country's code, as in +48 (0) 601 123 456."""
    try:
        number = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        return ""
    return _parse(f"+{number.country_code}{number.national_number}", None) if number.italian_leading_zero else ""


def _parse(text: str, country: str | None, is_good: Callable[[PhoneNumber], bool] = is_valid_number) -> str:
    """Return the E.164 digits of a valid number, else ""."""
    try:
        number = phonenumbers.parse(text, country and country.upper())
    except phonenumbers.NumberParseException:
        return ""
    national = phonenumbers.national_significant_number(number)
    return f"{number.country_code}{national}" if is_good(number) else ""


def is_complete(text: str, country: str) -> bool:
    """Return whether it has as many digits as a phone number of its country."""
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE


# ---- texts that stand for no value: markers, unfilled templates, words for a hidden caller

# None of them may pass for a value: one id for all calls would make them one call, and a hidden caller would be
# somebody. No list of such texts is ever complete, so nothing may depend on these lists alone.

UNSET = patterns.UNSET | frozenset(
    ("null", "(null)", "none", "nil", "undefined", "_undef_", "nan", "n/a", "[object object]")
)
"""Case-folded markers that marketing and telephony systems, and faulty programs, send for nothing."""


def is_unset(value: str) -> bool:
    """Return whether this is no value: a marker such as -1 and (not set), or an unfilled template."""
    text = value.strip(" \t\r\n'\"")
    return (len(text) < 16 and text.casefold() in UNSET) or is_placeholder(text)


_SIGILS = frozenset("%${[<#@&:*|=~")
_TEMPLATE = re.compile(r"\$[A-Za-z_{(\[]|\{\{|\{%|<%|[%#@]\{|%\(|%[A-Za-z_]{3,}%|\*\||^__\w+__$")
_SIGN = re.compile(r"[%${\[<#@&:*|=~]|^__")  # every template holds one
_LONGEST_TEMPLATE = 100


def is_placeholder(text: str) -> bool:
    """Return whether this is a template's variable, in any language: {call_id}, ${CHANNEL(linkedid)}, %CALLID%.

    Four digits make it a value: {3F2504E0-4F89-11D3-9A0C-0305E82C3301}.
    """
    if text.isalnum() or not _SIGN.search(text):  # nearly every value
        return False
    if len(text) > _LONGEST_TEMPLATE or sum(map(str.isdigit, text)) > 3 or text.startswith(('{"', "[{", '["')):  # JSON
        return False
    if text[:1] in _SIGILS and not {":", "@", '"'} & {*text[1:]}:
        return re.sub(r"[\W_]", "", text)[:1].isalpha()
    return _TEMPLATE.search(text) is not None


def identifies_nothing(call_id: str) -> bool:
    """Return whether this id identifies no call: unset, -, 0, 000-000, null-null, or the parameter's own name."""
    words = (word for word in _SEPARATORS.split(call_id.casefold()) if word.strip("0"))
    return all(word in _EMPTY_IDS for word in words) or is_unset(call_id)


_SEPARATORS = re.compile(r"[\W_]+")
_EMPTY_IDS = UNSET | {
    *("unknown", "unset", "empty", "false", "true", "missing"),
    *("call", "callid", "callsid", "calluuid", "cdrid", "id", "linkedid", "sid", "uniqueid", "uuid"),
}


# ---- hidden callers


def _words(text: str) -> list[str]:
    """Return the text's words without case and accents."""
    folded = unicodedata.normalize("NFKD", text.casefold().replace("ł", "l").replace("_", " "))
    return re.findall(r"\w+", "".join(c for c in folded if not unicodedata.combining(c)))


_MASK = re.compile(r"[\W_]*(?:[xх\W_]{3,})?")  # ***, xxx-xxx-xxxx, -: signs in place of digits

# A text stands for a hidden number when it has words of the first list and none of outside both.
_HIDING = frozenset(
    _words("""
anonim anonimo anonimowy anonym anonyme anonymer anonymni anonymous area ascuns ascunsa bilinmeyen blocked brak
desconocido gizli hidden inconnu ismeretlen kein keine masked masque missing nan nascosto necunoscut nezname neznamy
false nicht nie niedostepny nieznany nil no none not null oculto ohne ozel privado privat private privatni privato prive
prywatny rejtett restricted restrictionat sconosciuto secret skryte skryty soukrome sukromne suppressed titkos ukryty
unavailable unbekannt unbekannte unbekannter undefined undisclosed unidentified unknown unlisted unterdruckt
unterdruckte utajene verborgen withheld without zastrzezony аноним анонимен анонимно анонимный анонім анонімний
анонімно без відсутній закритий закрыт закрытый засекречен засекречений засекреченный не невизначений невядомы
невідомий невідомо недоступен недоступний неизвестен неизвестно неизвестный неопределен непознат отсутствует приватний
приватный прихований приховано прыватны скрит скрыт скрыто скрытый схаваны схований частен частный
""")
)
_BESIDE = _HIDING | frozenset(
    _words("""
a abonent anruf anrufer apel appel appelant available bekannt call caller chiamata cid cislo client dostepny id
identified identity line llamada n name numar numara number numer numero numeru nummer of out party person phone
provided rufnummer sender set shown subscriber szam teilnehmer the user verfugbar volajici volajuci абонент абонента
визначений визначено виклик вызов дзвінок доступен доступний звонок клиент клієнт контакт номер номера нумар определен
телефон
""")
)


def is_withheld(text: str) -> bool:
    """Return whether this stands in place of a hidden or unknown number."""
    folded = text.strip().casefold()
    if is_unset(folded) or folded.rstrip(">").endswith("anonymous.invalid") or _MASK.fullmatch(folded):
        return True
    words = _words(folded)
    return not _HIDING.isdisjoint(words) and _BESIDE.issuperset(words)
