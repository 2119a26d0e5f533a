"""Reads the names of a phone: SIP logins as admins write them, and what telephony programs call the same phone.

Asterisk names the channel (`PJSIP/ann-0000001f`, `Local/ann@queue-0001;1`), SIP the address (`"Ann" <sip:ann@pbx>`).
Logins hold dashes, dots and at signs themselves, so each name is read in several ways, the most literal first. Standard
library only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_NAME_CHARS = 512

_PLAIN = re.compile(r"[\w.+]*")
_BRACKETS = re.compile(r"<([^<>]*)>")
_SCHEME = re.compile(r"\s*(?:sips?|tel|im|pres|xmpp)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_CHANNEL = re.compile(r"([A-Za-z][A-Za-z0-9_.]*)/(.+)", re.DOTALL)
_LEG = re.compile(r"[;,][12]$")  # of a Local channel, which has two
# The number that Asterisk gives each channel: eight hex digits, four or more in older releases. IAX2 counts in decimal.
_NUMBERED = re.compile(r"(.+)-(?:[0-9a-f]{8,16}|(?=[a-f]*[0-9])[0-9a-f]{4,7})", re.IGNORECASE | re.DOTALL)
_NUMBERED_IAX = re.compile(r"(.+)-[0-9]+", re.DOTALL)
_ESCAPED = re.compile(r"(?:%[0-9a-f]{2})+", re.IGNORECASE)
_NUMBERED_ALONE = re.compile(r"(.+)-[0-9a-f]{8}", re.IGNORECASE | re.DOTALL)


class PhoneName(NamedTuple):
    """What a name may mean, the most literal reading first and the plainest last, and the host in it, if any."""

    readings: tuple[str, ...]
    host: str


def is_outside_number(name: str) -> bool:
    """Return whether this is an outside number; a shorter one may be the extension of one of our phones."""
    digits = name.removeprefix("+")
    return len(digits) > 6 and digits.isdecimal()


def phone_of(login: str) -> str:
    """Return the phone of a SIP login: the same for every owner and every spelling."""
    return login.casefold()


def read_phone(name: str) -> PhoneName:
    """Read a channel, an address or a bare login, however it is written."""
    if _PLAIN.fullmatch(name):
        return PhoneName((name,), "")
    text = name.strip()[:MAX_NAME_CHARS]
    found = {name: None, text: None}
    if in_brackets := _BRACKETS.search(text):
        text = in_brackets[1].strip()
    if channel := None if _SCHEME.match(text) else _CHANNEL.fullmatch(text):
        technology, peer, part = channel[1], _LEG.sub("", channel[2]), ""
        numbered = (_NUMBERED_IAX if technology.casefold().startswith("iax") else _NUMBERED).fullmatch(peer)
        for whole in (peer, *((numbered[1],) if numbered else ())):
            parts = whole.split("/")  # PJSIP/ann/sip:ann@host, sofia/internal/ann@host, Local/ann@queue/n
            part = parts[-1] if technology.casefold() == "sofia" else parts[0]
            found |= {f"{technology}/{whole}": None, f"{technology}/{part}": None, part: None}
        host = _read_address(part, found)
        return PhoneName(tuple(found), "" if technology.casefold() == "local" else host)  # a context is no host
    host = _read_address(text, found)
    if not host and (numbered := _NUMBERED_ALONE.fullmatch(_LEG.sub("", text))):
        found[numbered[1]] = None
    return PhoneName(tuple(found), host)


def _read_address(text: str, found: dict[str, None]) -> str:
    """Add the readings of an address, with its host and without; return the host."""
    scheme = _SCHEME.match(text)
    body = scheme[1] if scheme else text
    user, at, rest = body.rpartition("@")
    if not at:
        user, rest = (re.split(r"[;?]", body, maxsplit=1)[0] if scheme else body), ""
    host_and_port = re.split(r"[;?,>\s/]", rest, maxsplit=1)[0]
    host = re.sub(r":\d+$", "", host_and_port)
    if at and scheme:
        user = user.partition(":")[0]  # sip:user:password@host
    user = _ESCAPED.sub(_unescaped, user.partition(";")[0] if at else user).strip()
    for reading in (body, f"{user}@{host_and_port}" if at else "", f"{user}@{host}" if at else "", user):
        if reading:
            found.setdefault(reading, None)
    return host.casefold()


def _unescaped(match: re.Match[str]) -> str:
    return bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace")
