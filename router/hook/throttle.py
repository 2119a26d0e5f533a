"""Bound the work that wrong tokens and passwords cause, per network and in all. A right token is never refused.

A limit that could refuse a right token would lose calls: of everybody who shares an address with an attacker, behind a
proxy or in the platform's own network. And it would protect nothing: 192 random bits cannot be guessed. So past the
limit a wrong token gets the same answer with less work: no query of its own, no log line, no row. A password chosen by
an admin can be guessed: see `PasswordThrottle`. Each process counts for itself, because shared counts would cost the
work that the throttle saves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from time import monotonic
from typing import Any

from router.addresses import networks_of

FREE = 20  # refusals of one address without limit: for typing errors, and hooks that were left behind
EVERY_SECONDS = 6.0  # after that, time until one more is free
ADDRESSES = 4096  # remembered; the least recently used one is dropped
FREE_OF_ALL = 100  # refusals of all addresses together without limit: an attacker easily gets many addresses
ALL_EVERY_SECONDS = 0.1
WRONG_REMEMBERED = 64  # wrong credentials per network: the same ones sent again do not count as a guess


def _bound(cache: OrderedDict[Any, Any], most: int) -> None:
    if len(cache) > most:
        cache.popitem(last=False)


class _TokenBuckets:
    """Token buckets by key: `free` tokens at once, then one every `every` seconds. Rarely used keys are dropped."""

    def __init__(self, free: int, every: float) -> None:
        self._free, self._every = free, every
        self._by_key: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens left, at which time

    def __len__(self) -> int:
        return len(self._by_key)

    def left(self, key: Hashable, share: int = 1) -> float:
        """Return how many tokens are left. `share`: how many times the rate of one address this key may use."""
        most, now = self._free * share, monotonic()
        left, at = self._by_key.get(key, (most, now))
        return min(most, left + (now - at) * share / self._every)

    def take(self, key: Hashable, share: int = 1) -> float:
        """Take one token; return how many were left before."""
        left = self.left(key, share)
        self._by_key[key] = max(0.0, left - 1), monotonic()  # never below 0: the wait for a token does not grow
        self._by_key.move_to_end(key)
        _bound(self._by_key, ADDRESSES)
        return left


class TokenThrottle:
    """Counts refused requests by address, by the networks around it, and in all."""

    def __init__(self) -> None:
        self._networks = _TokenBuckets(FREE, EVERY_SECONDS)
        self._all = _TokenBuckets(FREE_OF_ALL, ALL_EVERY_SECONDS)

    def __len__(self) -> int:
        """Return how many networks are remembered."""
        return len(self._networks)

    def count(self, address: str) -> bool:
        """Count one refused request. Return whether it was within all limits, and so may be logged."""
        left = [self._networks.take(network.name, network.share) for network in networks_of(address)]
        return min(self._all.take(""), *left) >= 1

    def is_exceeded(self, address: str) -> bool:
        """Return whether this address, a network around it, or all addresses together have used up their limit."""
        left = (self._networks.left(network.name, network.share) for network in networks_of(address))
        return min(self._all.left(""), *left) < 1


class PasswordThrottle:
    """Limit guesses of a hook's user and password.

    One network may guess a project's password FREE times, then once in EVERY_SECONDS; more guesses are refused without
    comparing them. No PBX is locked out by that: the same wrong password sent many times is one guess, and an address
    that was accepted before is never limited.
    """

    def __init__(self) -> None:
        self._buckets = _TokenBuckets(FREE, EVERY_SECONDS)
        self._wrong: OrderedDict[Hashable, OrderedDict[bytes, None]] = OrderedDict()
        self._admitted: OrderedDict[Hashable, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many networks and credentials are remembered."""
        return len(self._buckets) + len(self._admitted) + sum(map(len, self._wrong.values()))

    def allows(self, project_id: int, address: str, credentials: bytes) -> bool:
        """Return whether these credentials may be compared. `credentials`: their digest."""
        networks = networks_of(address)
        nearest = (project_id, networks[0].name)
        if nearest in self._admitted or credentials in self._wrong.get(nearest, ()):
            return True
        return all(self._buckets.left((project_id, network.name), network.share) >= 1 for network in networks)

    def count_success(self, project_id: int, address: str) -> None:
        """Remember that this address was accepted."""
        self._admitted.setdefault((project_id, networks_of(address)[0].name))
        _bound(self._admitted, ADDRESSES)

    def count_failure(self, project_id: int, address: str, credentials: bytes) -> None:
        """Count wrong credentials as a guess, unless this address sent the same ones before."""
        networks = networks_of(address)
        nearest = (project_id, networks[0].name)
        tried = self._wrong.setdefault(nearest, OrderedDict())
        self._wrong.move_to_end(nearest)
        if credentials not in tried:
            tried[credentials] = None
            for network in networks:
                self._buckets.take((project_id, network.name), network.share)
        _bound(tried, WRONG_REMEMBERED)
        _bound(self._wrong, ADDRESSES)
