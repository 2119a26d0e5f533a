"""Read network addresses as proxies write them, and group neighbouring ones for the throttles. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

UNREADABLE = "no address"  # one name for all texts that are not addresses: each request could send a new text


class Network(NamedTuple):
    """Addresses that are counted together. `share`: how many times the rate of one host they may use."""

    name: str
    share: int


def parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """Return the address in REMOTE_ADDR or in a proxy's header; None for any other text.

    Ports, brackets, quotes and zones are removed. An IPv4 address mapped to IPv6 (by a dual-stack socket) becomes IPv4.
    """
    text = (text or "").strip().strip('"').strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


@lru_cache(maxsize=4096)  # called for every request; the platform has few addresses
def client_address(text: str | None) -> str:
    """Return the address in its normal form, without a port; any other text as it is, at most 64 characters of it."""
    address = parse_address(text)
    return (text or "")[:64] if address is None else str(address)


@lru_cache(maxsize=4096)
def networks_of(text: str) -> tuple[Network, ...]:
    """Return the networks that hold an address, the smallest first. IPv6: a home has a /64, a rented server a /48."""
    address = parse_address(text)
    if address is None:
        return (Network(UNREADABLE, 1),)
    around = ((32, 1), (24, 5)) if isinstance(address, IPv4Address) else ((64, 1), (56, 3), (48, 5))
    return tuple(
        Network(str(ip_network((address, prefix), strict=False)).removesuffix("/32"), share) for prefix, share in around
    )
