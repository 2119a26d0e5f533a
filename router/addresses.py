"""Whom an address stands for: read as proxies write it, and counted together with its neighbours by the throttles.

Pure: no request and no setting is looked at here.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

UNREADABLE = "no address"  # all that is none counts together: whoever can write one could write a new one each time


class Network(NamedTuple):
    """`name` counts as one. `share`: how many times what one host may do it may, because many live there."""

    name: str
    share: int


def parse_address(text: str | None) -> IPv4Address | IPv6Address | None:
    """The address, as it stands in REMOTE_ADDR or in a proxy's header, which may add a port, brackets, quotes or a zone
    to it; None when there is none. An IPv4 client of a dual-stack socket is that client."""
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


@lru_cache(maxsize=4096)  # read for every request, and the platform has few
def client_address(text: str | None) -> str:
    """The address in its one spelling, without port; the text itself when it is none."""
    address = parse_address(text)
    return (text or "")[:64] if address is None else str(address)


@lru_cache(maxsize=4096)
def networks_of(text: str) -> tuple[Network, ...]:
    """What an address counts as, from near to far. A home has a /64 of IPv6, and whoever rents a server a /48."""
    address = parse_address(text)
    if address is None:
        return (Network(UNREADABLE, 1),)
    if isinstance(address, IPv4Address):
        return Network(str(address), 1), _around(address, 24, 5)
    return _around(address, 64, 1), _around(address, 56, 3), _around(address, 48, 5)


def _around(address: IPv4Address | IPv6Address, prefix: int, share: int) -> Network:
    return Network(str(ip_network((address, prefix), strict=False)), share)
