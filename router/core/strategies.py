"""The orders in which eligible members are tried. A strategy only orders: who is eligible is settled before.

`STRATEGIES` maps a name to a function from the entrants to one key each; least goes first. `order` puts the tier before
the key and position and login behind it, so that every order is total and can be recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from router.core.model import AgentState, Member, MemberClock

Key = tuple[int | str, ...]

VIRTUAL_STEP = 2**40  # virtual time that an offer costs a member of weight 1: finely divisible, far from overflow


class Entrant(NamedTuple):
    """A member with everything that a strategy may look at. `eligible` False: present, but busy just now."""

    member: Member
    sip_login: str
    state: AgentState
    clock: MemberClock
    eligible: bool


Strategy = Callable[[Sequence[Entrant], str], list[Key]]


def round_robin(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Least recently offered in this group; never offered first."""
    return [(entrant.clock.last_offered,) for entrant in entrants]


def priority(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Position alone: from the top for every new call."""
    return [()] * len(entrants)


def longest_idle(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Least recent of the last talk's end and becoming available; then the least recently offered."""
    return [(entrant.state.idle_since, entrant.clock.last_offered) for entrant in entrants]


def fewest_calls(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Fewest answered today, where a newcomer of the day starts at the mean of the present peers."""
    start = newcomers_start(entrants)
    return [
        (entrant.state.answered_today + (start if entrant.clock.head_start is None else entrant.clock.head_start),
         entrant.clock.last_offered)
        for entrant in entrants
    ]  # fmt: skip


def newcomers_start(entrants: Sequence[Entrant]) -> int:
    """The mean, rounded down, of what the present members who had a start today count; 0 when there are none."""
    counts = [e.state.answered_today + e.clock.head_start for e in entrants if e.clock.head_start is not None]
    return sum(counts) // len(counts) if counts else 0


def weighted(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Greatest shortfall of the member's share.

    Each offer moves a member's virtual time on by VIRTUAL_STEP ÷ weight, so equal virtual times mean that everybody
    has had a share in proportion to the weights. The least of (virtual time + half the next step) goes first: the
    divisor method of Webster, which stays nearest to the exact shares. Absent members are carried along with the
    others (see `Offer.absent`), so the shares are those of the members present, and nobody comes back to a streak.
    """
    floor = _floor(entrants)
    return [(_virtual_time(e, floor) + VIRTUAL_STEP // (2 * e.member.weight), e.clock.last_offered) for e in entrants]


def _floor(entrants: Sequence[Entrant]) -> int:
    """The virtual time of whoever is furthest behind: where a newcomer, never offered before, starts."""
    return min((e.clock.virtual_time for e in entrants if e.clock.last_offered), default=0)


def _virtual_time(entrant: Entrant, floor: int) -> int:
    return entrant.clock.virtual_time if entrant.clock.last_offered else max(floor, entrant.clock.virtual_time)


def random(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """By a hash of the seed (the call id) and the agent: any order, yet the same on replay."""
    return [(sha256(f"{seed}:{entrant.member.agent_id}".encode()).hexdigest()[:16],) for entrant in entrants]


STRATEGIES: dict[str, Strategy] = {
    "round_robin": round_robin,
    "priority": priority,
    "longest_idle": longest_idle,
    "fewest_calls": fewest_calls,
    "weighted": weighted,
    "random": random,
}


def order(strategy: str, entrants: Sequence[Entrant], seed: str) -> list[tuple[Key, Entrant]]:
    """The eligible entrants with their sort keys, best first. Present but busy ones only lend their counts."""
    keys = STRATEGIES[strategy](entrants, seed)
    ranked = [
        ((entrant.member.tier, *key, entrant.member.position, entrant.sip_login), entrant)
        for key, entrant in zip(keys, entrants, strict=True)
        if entrant.eligible
    ]
    ranked.sort(key=lambda pair: pair[0])
    return ranked


def after_offer(winner: Entrant, entrants: Sequence[Entrant], clocks: Iterable[MemberClock]) -> MemberClock:
    """The winner's clock once the call was offered. `clocks` are those of all the group's members, absent ones too.

    Every strategy moves every clock, so that changing a group's strategy starts from the truth.
    """
    return MemberClock(
        last_offered=1 + max((clock.last_offered for clock in clocks), default=0),
        virtual_time=_virtual_time(winner, _floor(entrants)) + VIRTUAL_STEP // winner.member.weight,
        head_start=newcomers_start(entrants) if winner.clock.head_start is None else winner.clock.head_start,
    )

