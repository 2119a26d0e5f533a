"""What wrong tokens may cost. Bounded by address and in all; nothing here ever refuses a right one.

A limit that could refuse a right token would lose calls: whoever shares an address with the guesser, behind a proxy or
in the platform's own network, would be shut out with them. And it would protect nothing, because 192 random bits cannot
be guessed at any rate. So past the limit a wrong token gets the same answer for less work: no look-up of its own in the
database, no line in the log, no row. Per process: to share the count would cost the very work that is saved.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from time import monotonic
from typing import NamedTuple

FREE = 20  # at once from one address: somebody who mistypes, a hook that was left behind
EVERY_SECONDS = 6.0  # then one more
ADDRESSES = 4096  # remembered; the one that was quiet longest is forgotten
FREE_OF_ALL = 100  # at once from all addresses together: many addresses are easily had
ALL_EVERY_SECONDS = 0.1


class _Bucket(NamedTuple):
    """How many are left, as of when (time.monotonic)."""

    left: float
    at: float


class Guesses:
    """Counts what is refused, by address."""

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, _Bucket] = OrderedDict()
        self._all = _Bucket(FREE_OF_ALL, monotonic())

    def count(self, address: str) -> bool:
        """Count one. Was it still free, and so worth a line in the log?"""
        key = network_of(address)
        now = monotonic()
        bucket = _filled(self._by_address.pop(key, _Bucket(FREE, now)), now, EVERY_SECONDS, FREE)
        self._all = _filled(self._all, now, ALL_EVERY_SECONDS, FREE_OF_ALL)
        is_free = min(bucket.left, self._all.left) >= 1
        self._by_address[key] = _spent(bucket)
        self._all = _spent(self._all)
        if len(self._by_address) > ADDRESSES:
            self._by_address.popitem(last=False)
        return is_free

    def are_too_many(self, address: str) -> bool:
        """Has this address, or have all together, used up what is free?"""
        now = monotonic()
        bucket = self._by_address.get(network_of(address), _Bucket(FREE, now))
        of_address = _filled(bucket, now, EVERY_SECONDS, FREE)
        of_all = _filled(self._all, now, ALL_EVERY_SECONDS, FREE_OF_ALL)
        return min(of_address.left, of_all.left) < 1


def _filled(bucket: _Bucket, now: float, every: float, most: int) -> _Bucket:
    return _Bucket(min(most, bucket.left + (now - bucket.at) / every), now)


def _spent(bucket: _Bucket) -> _Bucket:
    # Never below nothing: who stops is forgiven at the normal pace.
    return _Bucket(max(0.0, bucket.left - 1), bucket.at)


@lru_cache(maxsize=ADDRESSES)  # read for every call, and the platform has few
def network_of(address: str) -> str:
    """What counts as one address: a home has 2^64 of IPv6."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or ip_network((parsed, 64), strict=False))
    return str(parsed)
