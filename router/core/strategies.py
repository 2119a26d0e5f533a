"""Orders eligible members. A strategy only orders; decision.py says who is eligible.

`STRATEGIES` has an entry for each: a function from the entrants to one key each, of which the least goes first, and its
words. `order` puts the tier before the key and position and login behind it, so that every order is total and can be
recomputed. See docs/strategies.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from router.core.model import AgentState, Member, MemberClock
from router.core.words import N_, NN_, Message, Text

Key = tuple[int | str, ...]

VIRTUAL_STEP = 2**30  # virtual time that an offer costs a member of weight 1: finely divisible, far from overflow
_START = VIRTUAL_STEP  # where a tier begins: 0 says that a member has no virtual time
CREDIT = 10  # calls of its share that a member may miss while busy and still be given later


class Entrant(NamedTuple):
    """A member with all that a strategy may look at. `present` but not `eligible`: busy just now."""

    member: Member
    sip_login: str
    state: AgentState
    clock: MemberClock
    eligible: bool
    present: bool = True


class Turn(NamedTuple):
    """A candidate's place in the order, with what its key is explained by."""

    key: Key  # as `order` gives it: (tier, the strategy's values …, position, login)
    best: Key  # of the first of the tier
    member: Member
    state: AgentState
    offers: int  # number of the last offer in this group
    now: int  # µs since the epoch

    def value(self, place: int) -> int:
        value = self.key[place]
        return value if isinstance(value, int) else 0


class Strategy(NamedTuple):
    """The order of the members of a group. `explain`: says what a key means. `reads`: what of an AgentState it orders
    by, which is therefore stored with a decision."""

    keys: Callable[[Sequence[Entrant], str], list[Key]]
    label: str
    help: str
    explain: Callable[[Turn], Sequence[Message]]
    reads: str = ""


def round_robin(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: least recently offered in this group; never offered first."""
    return [(entrant.clock.last_offered,) for entrant in entrants]


_NEVER = Text("never_offered", N_("not offered a call yet"))
_LAST = Text("last_offered", *NN_("last offered %(num)s call ago", "last offered %(num)s calls ago"))


def _explain_round_robin(turn: Turn) -> list[Message]:
    last = turn.value(1)
    return [Message(_LAST, {"num": max(1, 1 + turn.offers - last)}) if last else Message(_NEVER)]


def priority(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: position alone, from the top for every new call."""
    return [()] * len(entrants)


_PLACE = Text("place", N_("number %(n)s on the list"))


def longest_idle(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: least recent of the last talk's end and becoming available; then least recently offered."""
    return [(entrant.state.idle_since, entrant.clock.last_offered) for entrant in entrants]


_NO_TALK = Text("no_talk", N_("no talk yet"))
_FREE = Text("free_for", N_("free for %(seconds)s"))


def _explain_longest_idle(turn: Turn) -> list[Message]:
    since = turn.value(1)
    return [Message(_FREE, {"seconds": (turn.now - since) / 1_000_000}) if since else Message(_NO_TALK)]


def fewest_calls(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: fewest answered today, where a newcomer of the day starts at the mean of the present peers."""
    means = _means(entrants)
    return [(e.state.answered_today + _head_start(e, means).calls, e.clock.last_offered) for e in entrants]


class _Counted(NamedTuple):
    """Calls answered and seconds talked."""

    calls: int = 0
    seconds: int = 0


def _means(entrants: Iterable[Entrant]) -> dict[int, _Counted]:
    """Return by tier the means, rounded down, of what counts for those who were offered a call today already.

    Of the present ones; of the absent where nobody of the tier is present, or the first to come would take all their
    calls.
    """
    sums: dict[tuple[int, bool], list[int]] = {}
    for entrant in entrants:
        state, clock = entrant.state, entrant.clock
        if clock.head_start is not None and _is_of_tier(entrant):
            found = sums.setdefault((entrant.member.tier, entrant.present), [0, 0, 0])
            found[0] += 1
            found[1] += state.answered_today + clock.head_start
            found[2] += state.talked_today + clock.head_start_seconds
    means = {place: _Counted(calls // number, seconds // number) for place, (number, calls, seconds) in sums.items()}
    return {tier: mean for (tier, _present), mean in sorted(means.items())}  # of the present last: theirs stays


def _head_start(entrant: Entrant, means: Mapping[int, _Counted]) -> _Counted:
    """Return what counts for a member beside what it did today: a newcomer is lifted to the mean, not beyond."""
    state, clock = entrant.state, entrant.clock
    if clock.head_start is not None and _is_of_tier(entrant):
        return _Counted(clock.head_start, clock.head_start_seconds)
    mean = means.get(entrant.member.tier, _Counted())
    return _Counted(max(0, mean.calls - state.answered_today), max(0, mean.seconds - state.talked_today))


_ANSWERED = Text("answered_today", *NN_("%(num)s call answered today", "%(num)s calls answered today"))
_LIFTED = Text("head_start", N_("counted as %(n)s, so that a newcomer does not get a streak of calls"))


def _explain_fewest_calls(turn: Turn) -> list[Message]:
    counted, answered = turn.value(1), turn.state.answered_today
    lifted = [Message(_LIFTED, {"n": counted})] if counted != answered else []
    return [Message(_ANSWERED, {"num": answered}), *lifted]


def least_talk_time(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: fewest seconds talked today, where a newcomer of the day starts at the mean as well."""
    means = _means(entrants)
    return [(e.state.talked_today + _head_start(e, means).seconds, e.clock.last_offered) for e in entrants]


_TALKED = Text("talked_today", N_("talked %(seconds)s today"))
_TALK_LIFTED = Text("head_start", N_("counted as %(seconds)s, so that a newcomer does not get a streak of calls"))


def _explain_least_talk_time(turn: Turn) -> list[Message]:
    counted, talked = turn.value(1), turn.state.talked_today
    lifted = [Message(_TALK_LIFTED, {"seconds": counted})] if counted != talked else []
    return [Message(_TALKED, {"seconds": talked}), *lifted]


def _is_of_tier(entrant: Entrant) -> bool:
    """Return whether the clock was written in the member's present tier; one of another tier says nothing."""
    return entrant.clock.tier == entrant.member.tier or not entrant.clock.weight


def weighted(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: greatest shortfall of the member's share.

    Each offer moves a member's virtual time on by VIRTUAL_STEP ÷ weight, so at equal virtual times everybody has had a
    share in proportion to the weights. The least of (virtual time + half the next step) goes first: Webster's divisor
    method, which stays nearest to the exact shares.
    """
    levels = _levels(entrants)
    return [(_stands_at(e, levels) + _step(e.member.weight) // 2, e.clock.last_offered) for e in entrants]


def _step(weight: int) -> int:
    return VIRTUAL_STEP // weight


def _own_time(entrant: Entrant) -> int:
    """Return the stored virtual time, 0 for none or one of another tier."""
    return entrant.clock.virtual_time if _is_of_tier(entrant) else 0


def _own_weight(entrant: Entrant) -> int:
    """Return the weight by which the stored virtual time was counted."""
    return entrant.clock.weight or entrant.member.weight


def _levels(entrants: Iterable[Entrant]) -> dict[int, int]:
    """Return how far each tier has come: the latest virtual time at which one of its members was offered a call."""
    levels: dict[int, int] = {}
    for entrant in entrants:
        if own := _own_time(entrant):
            tier = entrant.member.tier
            levels[tier] = max(levels.get(tier, _START), own - _step(_own_weight(entrant)))
    return levels


def _stands_at(entrant: Entrant, levels: Mapping[int, int]) -> int:
    """Return a member's virtual time, by the present weight.

    A member who is new, or was away, has none and starts level with the tier, without a streak. After a change of
    weight a member is as many calls ahead or behind as before; but of what was missed by the old weight, or while away
    for a moment, at most half a call is owed.
    """
    level = levels.get(entrant.member.tier, _START)
    own, weight = _own_time(entrant), entrant.member.weight
    if not own:
        return level
    if _own_weight(entrant) != weight:
        return level + max(-VIRTUAL_STEP // 2, (own - level) * _own_weight(entrant)) // weight
    return max(own, level - (VIRTUAL_STEP // 2 // weight if entrant.clock.left_at else CREDIT * _step(weight)))


_BEHIND = Text("behind", N_("furthest behind its share (weight %(weight)s)"))
_AHEAD = Text("ahead", N_("%(n)s calls ahead of that (weight %(weight)s)"))


def _explain_weighted(turn: Turn) -> list[Message]:
    weight = turn.member.weight
    ahead = round((turn.value(1) - int(turn.best[1])) * weight / VIRTUAL_STEP, 1)
    return [Message(_AHEAD, {"n": ahead, "weight": weight}) if ahead else Message(_BEHIND, {"weight": weight})]


def random(entrants: Sequence[Entrant], seed: str) -> list[Key]:
    """Return the key of: a hash of the seed (the call id) and the agent, in any order, yet the same on replay."""
    return [(sha256(f"{seed}:{entrant.member.agent_id}".encode()).hexdigest()[:16],) for entrant in entrants]


_DRAWN = Text("drawn", N_("drawn at random for this call"))

STRATEGIES: dict[str, Strategy] = {
    "round_robin": Strategy(
        round_robin,
        N_("Round robin"),
        N_("Whoever was offered a call the longest ago is next, so everybody gets a turn."),
        _explain_round_robin,
    ),
    "priority": Strategy(
        priority,
        N_("Priority"),
        N_("Always from the top of the list: the first free agent gets the call."),
        lambda turn: [Message(_PLACE, {"n": turn.value(-2) + 1})],
    ),
    "longest_idle": Strategy(
        longest_idle,
        N_("Longest idle"),
        N_("Whoever has been free the longest is next."),
        _explain_longest_idle,
        reads="idle_since",
    ),
    "fewest_calls": Strategy(
        fewest_calls,
        N_("Fewest calls"),
        N_("Whoever has answered the fewest calls today is next."),
        _explain_fewest_calls,
        reads="answered_today",
    ),
    "least_talk_time": Strategy(
        least_talk_time,
        N_("Least talk time"),
        N_("Whoever has talked the least today, on calls that came through here, is next."),
        _explain_least_talk_time,
        reads="talked_today",
    ),
    "weighted": Strategy(
        weighted,
        N_("Weighted"),
        N_("Calls are shared in proportion to the weights: 2 gets twice as many as 1."),
        _explain_weighted,
    ),
    "random": Strategy(random, N_("Random"), N_("Any free agent, by chance."), lambda _turn: [Message(_DRAWN)]),
}


def order(strategy: str, entrants: Sequence[Entrant], seed: str) -> list[tuple[Key, Entrant]]:
    """Return the eligible entrants with their sort keys, best first. Busy ones only contribute their counts."""
    keys = STRATEGIES[strategy].keys(entrants, seed)
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
    """Return the winner's clock after the offer. `clocks`: all that the group has, those of former members too.

    Only `weighted` has virtual time: its shares count the calls it gives out, not those before.
    """
    member, head_start = winner.member, _head_start(winner, _means(entrants))
    return MemberClock(
        last_offered=1 + max((other.last_offered for other in clocks.values()), default=0),
        virtual_time=_stands_at(winner, _levels(entrants)) + _step(member.weight) if strategy == "weighted" else 0,
        head_start=head_start.calls,
        weight=member.weight,
        tier=member.tier,
        head_start_seconds=head_start.seconds,
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
    """Return the clocks that change beside the winner's. In µs: `now`, and `away`, below which a gap is no absence.

    A former member, or a deputy who does not stand in, has no claim any more and begins like a newcomer later.
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
    """Return the clocks of the other members whose virtual time in the winner's tier changes with this offer.

    A present member without one gets it now, or a light member would wait for its first call forever while the level
    rises. An absent member loses it once the level has passed it, and returns level with the others: shares are of
    those present. A moment's absence is none, or a light member would never get a call. A move to another tier loses it
    too. After a change of weight it is counted by the new one.
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
            changed[member.agent_id] = clock._replace(
                virtual_time=level, head_start=head_start, weight=member.weight, tier=tier, left_at=0
            )
    return changed
