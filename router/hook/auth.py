"""Who may ask: hook tokens, HTTP Basic, address lists. Pure checks; who is refused, and how, is the view's to say.

Nothing here raises on what a stranger sends, and a secret is compared in time that tells nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_TOKEN_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


class AddressError(ValueError):
    """An entry of an address list that is no network. `value` as it was written."""

    def __init__(self, value: str) -> None:
        super().__init__(
            f"{value[:80]!r} is no address; write one such as 203.0.113.7 or a range such as 203.0.113.0/24"
        )
        self.value = value


def new_token() -> str:
    """A hook token: 192 random bits in 32 characters that need no escaping in a URL."""
    return secrets.token_urlsafe(24)


def looks_like_token(text: str) -> bool:
    """Could this be a token of ours or one that an admin chose? 16 to 128 characters of the URL-safe alphabet."""
    return 16 <= len(text) <= 128 and _TOKEN_CHARS.issuperset(text)


def token_hash(token: str) -> str:
    """What is stored and looked up in the token's place: SHA-256 in hex. Tokens are random, so salt adds nothing."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def basic_auth_matches(header: str | None, expected: str) -> bool:
    """Does the Authorization header carry these credentials ("user:password")?

    Clients disagree about the charset of what they encode (RFC 7617, section 2.1): UTF-8, Latin-1 and Windows Cyrillic
    are taken. An empty expectation matches nobody.
    """
    given = credentials_digest(header)
    is_match = False
    for charset in ("utf-8", "latin-1", "cp1251"):
        wanted = hashlib.sha256(expected.encode(charset, "replace")).digest()
        if charset == "utf-8" or _can_encode(expected, charset):
            is_match |= hmac.compare_digest(given, wanted)
    return is_match and bool(expected)


def credentials_digest(header: str | None) -> bytes:
    """What stands for the credentials of an Authorization header: to compare and to count them by."""
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


def _can_encode(text: str, charset: str) -> bool:
    """Only then: with a "?" in place of what the charset lacks, other passwords would match as well."""
    try:
        text.encode(charset)
    except UnicodeEncodeError:
        return False
    return True


def parse_networks(addresses: Iterable[str]) -> tuple[Network, ...]:
    """The address list of the configuration. Raises AddressError for the first entry that is no address or range."""
    networks: list[Network] = []
    for text in addresses:
        try:
            network = ip_network(text.strip(), strict=False)  # 10.0.0.5/8 is what people write for 10.0.0.0/8
        except ValueError:
            raise AddressError(text) from None
        networks.append(network)
    return tuple(networks)


def address_allowed(remote: str | None, networks: Iterable[Network]) -> bool:
    """Is the client's address in one of the networks? An empty list allows everybody.

    An IPv4 client of a dual-stack socket shows as ::ffff:203.0.113.7 and is the same client.
    """
    networks = tuple(networks)
    if not networks:
        return True
    try:
        address = _plain(ip_address((remote or "").strip()))
    except ValueError:
        return False
    return any(address in _plain_network(network) for network in networks)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _plain_network(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


# ---- tests that the admin's page sends: known by their call id, which nobody else can make up

TEST_PREFIX = "test-"
TEST_SECONDS = 60


def new_test_id(secret: str) -> str:
    """A call id that says: this is a test, for the next minute."""
    content = f"{TEST_PREFIX}{int(time.time())}-{secrets.token_hex(4)}"
    return f"{content}-{_test_mark(content, secret)}"


def is_test(call_id: str, secret: str) -> bool:
    """Is this the id of a test that we sent within the last minute?"""
    if not call_id.startswith(TEST_PREFIX):
        return False
    content, _dash, mark = call_id.rpartition("-")
    if not hmac.compare_digest(mark.encode("utf-8", "replace"), _test_mark(content, secret).encode()):
        return False
    return 0 <= time.time() - int(content.split("-")[1]) <= TEST_SECONDS


def _test_mark(content: str, secret: str) -> str:
    return hmac.new(secret.encode(), f"test call {content}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:20]
