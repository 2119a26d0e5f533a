"""What wrong tokens and wrong passwords may cost. Bounded by network and in all; no right token is ever refused.

A limit that could refuse a right token would lose calls: whoever shares an address with the guesser, behind a proxy or
in the platform's own network, would be shut out with them. And it would protect nothing, because 192 random bits cannot
be guessed at any rate. So past the limit a wrong token gets the same answer for less work: no look-up of its own in the
database, no line in the log, no row. A password that an admin chose can be guessed: see `Passwords`. Per process: to
share the count would cost the very work that is saved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from time import monotonic
from typing import NamedTuple

from router.addresses import networks_of

FREE = 20  # at once from one address: somebody who mistypes, a hook that was left behind
EVERY_SECONDS = 6.0  # then one more
ADDRESSES = 4096  # remembered; the one that was quiet longest is forgotten
FREE_OF_ALL = 100  # at once from all addresses together: many addresses are easily had
ALL_EVERY_SECONDS = 0.1
WRONG_REMEMBERED = 64  # wrong credentials of one address: the same one again is no new guess


class _Bucket(NamedTuple):
    """How many are left, as of when (time.monotonic)."""

    left: float
    at: float


class _Buckets:
    """Token buckets by key; the one that was quiet longest is forgotten."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def left(self, key: Hashable, share: int = 1) -> float:
        """How many are free. `share`: how many times as much as one address this one may have."""
        now = monotonic()
        return _filled(self._by_key.get(key, _Bucket(FREE * share, now)), now, EVERY_SECONDS / share, FREE * share).left

    def spend(self, key: Hashable, share: int = 1) -> float:
        """Take one; how many were free."""
        now = monotonic()
        bucket = _filled(self._by_key.pop(key, _Bucket(FREE * share, now)), now, EVERY_SECONDS / share, FREE * share)
        self._by_key[key] = _spent(bucket)
        if len(self._by_key) > ADDRESSES:
            self._by_key.popitem(last=False)
        return bucket.left


class Guesses:
    """Counts what is refused, by address and by the networks around it."""

    def __init__(self) -> None:
        self._buckets = _Buckets()
        self._all = _Bucket(FREE_OF_ALL, monotonic())

    def __len__(self) -> int:
        """How many networks are remembered."""
        return len(self._buckets)

    def count(self, address: str) -> bool:
        """Count one. Was it still free, and so worth a line in the log?"""
        self._all = _filled(self._all, monotonic(), ALL_EVERY_SECONDS, FREE_OF_ALL)
        left = [self._all.left, *(self._buckets.spend(network.name, network.share) for network in networks_of(address))]
        self._all = _spent(self._all)
        return min(left) >= 1

    def are_too_many(self, address: str) -> bool:
        """Has this address, or a network around it, or have all together, used up what is free?"""
        of_all = _filled(self._all, monotonic(), ALL_EVERY_SECONDS, FREE_OF_ALL)
        return of_all.left < 1 or any(
            self._buckets.left(network.name, network.share) < 1 for network in networks_of(address)
        )


class Passwords:
    """Which credentials are compared at all, where a hook asks for a user and a password.

    From one network a project's password may be guessed FREE times, then once in EVERY_SECONDS: more guesses are
    refused unread, right or wrong. That keeps no PBX out: the same wrong password sent again and again is one guess,
    and whoever was let in from an address before is never kept waiting there.
    """

    def __init__(self) -> None:
        self._buckets = _Buckets()
        self._wrong: OrderedDict[Hashable, OrderedDict[bytes, None]] = OrderedDict()
        self._known: OrderedDict[Hashable, None] = OrderedDict()

    def may_be_tried(self, project_id: int, address: str, credentials: bytes) -> bool:
        """May these be compared? `credentials`: their digest."""
        networks = networks_of(address)
        near = (project_id, networks[0].name)
        if near in self._known or credentials in self._wrong.get(near, ()):
            return True
        return all(self._buckets.left((project_id, network.name), network.share) >= 1 for network in networks)

    def were_right(self, project_id: int, address: str) -> None:
        """Somebody was let in from there."""
        near = (project_id, networks_of(address)[0].name)
        if near not in self._known:
            self._known[near] = None
            if len(self._known) > ADDRESSES:
                self._known.popitem(last=False)

    def were_wrong(self, project_id: int, address: str, credentials: bytes) -> None:
        """Count a guess."""
        networks = networks_of(address)
        near = (project_id, networks[0].name)
        tried = self._wrong.pop(near, OrderedDict())
        self._wrong[near] = tried
        if credentials not in tried:
            tried[credentials] = None
            for network in networks:
                self._buckets.spend((project_id, network.name), network.share)
        if len(tried) > WRONG_REMEMBERED:
            tried.popitem(last=False)
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)


def _filled(bucket: _Bucket, now: float, every: float, most: int) -> _Bucket:
    return _Bucket(min(most, bucket.left + (now - bucket.at) / every), now)


def _spent(bucket: _Bucket) -> _Bucket:
    # Never below nothing: who stops is forgiven at the normal pace.
    return _Bucket(max(0.0, bucket.left - 1), bucket.at)
