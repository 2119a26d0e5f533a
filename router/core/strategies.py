"""The orders in which eligible members are tried. A strategy only orders: who is eligible is settled before.

`STRATEGIES` maps a name to a function from the entrants to one key each; least goes first. `order` puts the tier before
the key and position and login behind it, so that every order is total and can be recomputed. See docs/strategies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from router.core.model import AgentState, Member, MemberClock

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
        head_start = entrant.clock.head_start
        if head_start is not None and _is_of_tier(entrant):
            place = entrant.member.tier, entrant.present
            counts.setdefault(place, []).append(entrant.state.answered_today + head_start)
    means = {tier: sum(found) // len(found) for (tier, present), found in counts.items() if not present}
    return means | {tier: sum(found) // len(found) for (tier, present), found in counts.items() if present}


def _head_start(entrant: Entrant, means: Mapping[int, int]) -> int:
    """The calls counted to a member beside those it answered: a newcomer is lifted to the mean, not beyond."""
    if entrant.clock.head_start is not None and _is_of_tier(entrant):
        return entrant.clock.head_start
    return max(0, means.get(entrant.member.tier, 0) - entrant.state.answered_today)


def _is_of_tier(entrant: Entrant) -> bool:
    """Was the clock written in the tier that the member is in now? In another one it says nothing."""
    return entrant.clock.tier == entrant.member.tier or not entrant.clock.weight


def weighted(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Greatest shortfall of the member's share.

    Each offer moves a member's virtual time on by VIRTUAL_STEP ÷ weight, so equal virtual times mean that everybody
    has had a share in proportion to the weights. The least of (virtual time + half the next step) goes first: the
    divisor method of Webster, which stays nearest to the exact shares.
    """
    levels = _levels(entrants)
    return [(_stands_at(e, levels) + _step(e.member.weight) // 2, e.clock.last_offered) for e in entrants]


def _step(weight: int) -> int:
    return VIRTUAL_STEP // weight


def _own_time(entrant: Entrant) -> int:
    """The stored virtual time, 0: none, or of another tier."""
    return entrant.clock.virtual_time if _is_of_tier(entrant) else 0


def _own_weight(entrant: Entrant) -> int:
    """The weight by which the stored virtual time was counted."""
    return entrant.clock.weight or entrant.member.weight


def _levels(entrants: Iterable[Entrant]) -> dict[int, int]:
    """How far each tier has come: the latest virtual time at which one of its members was offered a call."""
    levels: dict[int, int] = {}
    for entrant in entrants:
        if own := _own_time(entrant):
            tier = entrant.member.tier
            levels[tier] = max(levels.get(tier, _START), own - _step(_own_weight(entrant)))
    return levels


def _stands_at(entrant: Entrant, levels: Mapping[int, int]) -> int:
    """A member's virtual time, by the weight of now.

    One who is new, or was away, has none: it starts level with its tier, to no streak. A weight that was changed leaves
    a member as many calls ahead or behind as before; but what was missed by the old one is owed up to half a call only,
    and so is what was missed while away for a moment.
    """
    level = levels.get(entrant.member.tier, _START)
    own, weight = _own_time(entrant), entrant.member.weight
    if not own:
        return level
    if _own_weight(entrant) != weight:
        return level + max(-VIRTUAL_STEP // 2, (own - level) * _own_weight(entrant)) // weight
    return max(own, level - (VIRTUAL_STEP // 2 // weight if entrant.clock.left_at else CREDIT * _step(weight)))


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

    Only `weighted` has virtual time: its shares are of the calls that it gives out, not of what was before.
    """
    member = winner.member
    return MemberClock(
        last_offered=1 + max((other.last_offered for other in clocks.values()), default=0),
        virtual_time=_stands_at(winner, _levels(entrants)) + _step(member.weight) if strategy == "weighted" else 0,
        head_start=_head_start(winner, _means(entrants)),
        weight=member.weight,
        tier=member.tier,
    )


def turns(
    strategy: str,
    winner: Entrant,
    entrants: Sequence[Entrant],
    clocks: Mapping[int, MemberClock],
    *,
    now: int,
    away: int,
) -> tuple[tuple[int, MemberClock], ...]:
    """Whose clock changes beside the winner's, each with the clock that it gets.

    In µs: `now`, and `away`, for what is shorter is no absence.

    A former member, and a deputy who does not stand in, has no claim any more: one who is back begins like a newcomer.
    """
    here = {entrant.member.agent_id for entrant in entrants}
    changed = {
        agent_id: clock._replace(virtual_time=0, head_start=None)
        for agent_id, clock in clocks.items()
        if agent_id not in here and (clock.virtual_time or clock.head_start is not None)
    }
    if strategy == "weighted":
        changed |= _virtual_times(winner, entrants, now, away)
    return tuple(sorted(changed.items()))


def _virtual_times(winner: Entrant, entrants: Sequence[Entrant], now: int, away: int) -> dict[int, MemberClock]:
    """The clocks of the other members whose virtual time in the winner's tier changes with this offer.

    Who is present without one gets it now, lest a light member wait for its first call for ever while the level rises.
    Who is away loses it once the level has passed it, and comes back level with the others: shares are of those
    present, and nobody returns to a streak. Not for a moment's absence, lest a light member never get a call. Who was
    moved to another tier loses it too. Where a weight was changed it is counted by the new one from now on.
    """
    tier = winner.member.tier
    levels = _levels(entrants)
    level = max(levels.get(tier, _START), _stands_at(winner, levels))
    changed: dict[int, MemberClock] = {}
    for entrant in entrants:
        member, clock, own = entrant.member, entrant.clock, _own_time(entrant)
        if member.tier != tier:
            if clock.virtual_time and clock.weight and clock.tier == tier:
                changed[member.agent_id] = clock._replace(virtual_time=0)
        elif member.agent_id == winner.member.agent_id:
            continue
        elif own:
            left_at = 0 if entrant.present or own > level else clock.left_at or now
            if left_at and not 0 <= now - left_at < away:
                changed[member.agent_id] = clock._replace(virtual_time=0, left_at=0)
            elif left_at != clock.left_at or _own_weight(entrant) != member.weight:
                stands_at = _stands_at(entrant, levels)
                changed[member.agent_id] = clock._replace(
                    virtual_time=stands_at, weight=member.weight, tier=tier, left_at=left_at
                )
        elif entrant.present:
            head_start = clock.head_start if _is_of_tier(entrant) else None
            changed[member.agent_id] = MemberClock(clock.last_offered, level, head_start, member.weight, tier)
    return changed
