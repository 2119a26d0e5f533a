"""Check who may use a hook: hook tokens, HTTP Basic, address lists. The view decides how a request is refused.

No request makes these functions raise. Secrets are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network

from router.addresses import parse_address

Network = IPv4Network | IPv6Network

_TOKEN_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class AddressError(ValueError):
    """An entry of an address list that is not a network. `value`: as it was written."""

    def __init__(self, value: str) -> None:
        super().__init__(
            f"{value[:80]!r} is not an address; write one such as 203.0.113.7 or a range such as 203.0.113.0/24"
        )
        self.value = value


def new_token() -> str:
    """Return a new hook token: 192 random bits in 32 characters that need no escaping in a URL."""
    return secrets.token_urlsafe(24)


def looks_like_token(text: str) -> bool:
    """Return whether this can be a token, ours or one that an admin chose: 16 to 128 URL-safe characters."""
    return 16 <= len(text) <= 128 and _TOKEN_CHARS.issuperset(text)


def basic_auth_matches(header: str | None, expected: str) -> bool:
    """Return whether the Authorization header carries these credentials ("user:password"). "" matches nobody.

    Clients disagree about the charset of what they encode (RFC 7617, section 2.1): UTF-8, Latin-1 and Windows Cyrillic
    are accepted.
    """
    given = credentials_digest(header)
    is_match = False
    for charset in ("utf-8", "latin-1", "cp1251"):
        with suppress(UnicodeEncodeError):  # replacing missing characters by "?" would match other passwords too
            is_match |= hmac.compare_digest(given, hashlib.sha256(expected.encode(charset)).digest())
    return is_match and bool(expected)


def credentials_digest(header: str | None) -> bytes:
    """Return the digest by which the credentials of an Authorization header are compared and counted."""
    return hashlib.sha256(_credentials(header)).digest()


def _credentials(header: str | None) -> bytes:
    scheme, _, encoded = (header or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        raw = encoded.strip().encode("ascii").translate(bytes.maketrans(b"-_", b"+/"))
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return b""


def parse_networks(addresses: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of an address list. Raises AddressError for the first invalid entry."""
    networks: list[Network] = []
    for text in addresses:
        try:
            network = ip_network(text.strip(), strict=False)  # 10.0.0.5/8 is what people write for 10.0.0.0/8
        except ValueError:
            raise AddressError(text) from None
        networks.append(network)
    return tuple(networks)


def address_allowed(remote: str | None, networks: Iterable[Network]) -> bool:
    """Return whether the client's address is in one of the networks. An empty list allows everybody."""
    networks = tuple(networks)
    address = parse_address(remote)
    return not networks or (address is not None and any(address in _unmapped(network) for network in networks))


def _unmapped(network: Network) -> Network:
    """Return the IPv4 network that ::ffff:203.0.113.0/120 stands for; any other network as it is."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


# ---- test requests of the admin's page: recognised by their call id, which nobody else can forge

TEST_PREFIX = "test-"
TEST_SECONDS = 60


def new_test_id(secret: str) -> str:
    """Return a call id that marks a test for the next minute."""
    content = f"{TEST_PREFIX}{int(time.time())}-{secrets.token_hex(4)}"
    return f"{content}-{_test_mark(content, secret)}"


def is_test(call_id: str, secret: str) -> bool:
    """Return whether this is the id of a test that we sent within the last minute."""
    if not call_id.startswith(TEST_PREFIX):
        return False
    content, _dash, mark = call_id.rpartition("-")
    if not hmac.compare_digest(mark.encode("utf-8", "replace"), _test_mark(content, secret).encode()):
        return False
    return 0 <= time.time() - int(content.split("-")[1]) <= TEST_SECONDS


def _test_mark(content: str, secret: str) -> str:
    return hmac.new(secret.encode(), f"test call {content}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:20]
