"""The orders in which eligible members are tried. A strategy only orders: who is eligible is settled before.

`STRATEGIES` maps a name to a function from the entrants to one key each; least goes first. `order` puts the tier before
the key and position and login behind it, so that every order is total and can be recomputed. See docs/strategies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from router.core.model import AgentState, Member, MemberClock, Turn

Key = tuple[int | str, ...]

VIRTUAL_STEP = 2**30  # virtual time that an offer costs a member of weight 1: finely divisible, far from overflow
_START = VIRTUAL_STEP  # where a tier begins: 0 says that a member has no virtual time
CREDIT = 10  # calls of its share that a member may miss while busy and still be given later


class Entrant(NamedTuple):
    """A member with everything that a strategy may look at. `present` but not `eligible`: busy just now."""

    member: Member
    sip_login: str
    state: AgentState
    clock: MemberClock
    eligible: bool
    present: bool = True


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
    means = _means(entrants)
    return [(e.state.answered_today + _head_start(e, means), e.clock.last_offered) for e in entrants]


def _means(entrants: Iterable[Entrant]) -> dict[int, int]:
    """By tier: the mean, rounded down, of what those count who were offered a call today already.

    Of the present ones; of the absent where none of the tier is present, lest who comes first take all their calls.
    """
    counts: dict[tuple[int, bool], list[int]] = {}
    for entrant in entrants:
        if entrant.clock.head_start is not None:
            place = entrant.member.tier, entrant.present
            counts.setdefault(place, []).append(entrant.state.answered_today + entrant.clock.head_start)
    means = {tier: sum(found) // len(found) for (tier, present), found in counts.items() if not present}
    return means | {tier: sum(found) // len(found) for (tier, present), found in counts.items() if present}


def _head_start(entrant: Entrant, means: Mapping[int, int]) -> int:
    """The calls counted to a member beside those it answered: a newcomer is lifted to the mean, not beyond."""
    if entrant.clock.head_start is not None:
        return entrant.clock.head_start
    return max(0, means.get(entrant.member.tier, 0) - entrant.state.answered_today)


def weighted(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Greatest shortfall of the member's share.

    Each offer moves a member's virtual time on by VIRTUAL_STEP ÷ weight, so equal virtual times mean that everybody
    has had a share in proportion to the weights. The least of (virtual time + half the next step) goes first: the
    divisor method of Webster, which stays nearest to the exact shares.
    """
    levels = _levels(entrants)
    return [(_stands_at(e, levels) + _step(e.member) // 2, e.clock.last_offered) for e in entrants]


def _step(member: Member) -> int:
    return VIRTUAL_STEP // member.weight


def _levels(entrants: Iterable[Entrant]) -> dict[int, int]:
    """How far each tier has come: the latest virtual time at which one of its members was offered a call."""
    levels: dict[int, int] = {}
    for entrant in entrants:
        if own := entrant.clock.virtual_time:
            tier = entrant.member.tier
            levels[tier] = max(levels.get(tier, _START), own - _step(entrant.member))
    return levels


def _stands_at(entrant: Entrant, levels: Mapping[int, int]) -> int:
    """A member's virtual time. One who is new, or was away, has none: it starts level with its tier, to no streak."""
    level = levels.get(entrant.member.tier, _START)
    own = entrant.clock.virtual_time
    return max(own, level - CREDIT * _step(entrant.member)) if own else level


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


def after_offer(
    strategy: str, winner: Entrant, entrants: Sequence[Entrant], clocks: Mapping[int, MemberClock]
) -> MemberClock:
    """The winner's clock once the call was offered. `clocks`: all that the group has, those of former members too.

    Only `weighted` moves virtual time: its shares are of the calls that it gives out, not of what was before.
    """
    clock = winner.clock
    return MemberClock(
        last_offered=1 + max((other.last_offered for other in clocks.values()), default=0),
        virtual_time=clock.virtual_time
        if strategy != "weighted"
        else _stands_at(winner, _levels(entrants)) + _step(winner.member),
        head_start=_head_start(winner, _means(entrants)) if clock.head_start is None else clock.head_start,
    )


def turns(winner: Entrant, entrants: Sequence[Entrant], clocks: Mapping[int, MemberClock]) -> tuple[Turn, ...]:
    """Of `weighted`: whose virtual time changes beside the winner's, in the winner's tier.

    Who is present without one gets it now, lest a light member wait for its first call for ever while the level rises.
    Who is away loses it once the level has passed it, and comes back level with the others: shares are of those
    present, and nobody returns to a streak. Former members, and deputies who do not stand in, are away from all tiers.
    """
    tier = winner.member.tier
    levels = _levels(entrants)
    level = max(levels.get(tier, _START), _stands_at(winner, levels))
    came = [e.member.agent_id for e in entrants if e.present and e.member.tier == tier and not e.clock.virtual_time]
    kept = {e.member.agent_id for e in entrants if e.present or e.member.tier != tier}
    left = [agent_id for agent_id, clock in clocks.items() if 0 < clock.virtual_time <= level and agent_id not in kept]
    changes = Turn(level, tuple(i for i in came if i != winner.member.agent_id)), Turn(0, tuple(left))
    return tuple(change for change in changes if change.agent_ids)
