"""The judge of the faults: what it calls a double promise, and what not."""

from __future__ import annotations

import time

import pytest

from chaos.caller import Asked, double_promises

AHEAD = time.time() - time.monotonic()


def asked(call_id: str, at: float, seconds: float = 0.01, ended_at: float = 0.0) -> Asked:
    return Asked(call_id, at, seconds, 200, "ann", ended_at=ended_at)


@pytest.mark.parametrize(
    ("first", "second", "doubles"),
    [
        (asked("a", 10.0), asked("b", 11.0), 1),
        (asked("a", 10.0), asked("b", 12.1), 0),  # the lease is over
        (asked("a", 10.0, ended_at=11.0), asked("b", 11.1), 0),  # and so is the talk
        (asked("a", 10.0, ended_at=11.0), asked("b", 10.5), 1),
        (asked("a", 10.0, ended_at=14.0), asked("b", 13.0), 1),  # it outlasts the lease
        (asked("a", 10.0), asked("b", 11.5, seconds=1.0), 0),  # perhaps decided after the lease
    ],
)
def test_a_login_is_held_until_its_lease_or_its_talk_ends(first: Asked, second: Asked, doubles: int) -> None:
    assert len(double_promises([first, second], 2.0, "overflow")) == doubles
    assert len(double_promises([second, first], 2.0, "overflow")) == doubles, "whoever asks first"


def test_where_nobody_can_know_who_talks_a_login_is_held_until_its_lease_ends() -> None:
    later = [asked("a", 10.0, ended_at=14.0), asked("b", 13.0)]
    assert double_promises(later, 2.0, "overflow", talks_show=False) == []
    earlier = [asked("a", 10.0, ended_at=14.0), asked("b", 11.5)]
    assert len(double_promises(earlier, 2.0, "overflow", talks_show=False)) == 1


def test_what_is_on_record_tells_when_it_was_decided() -> None:
    slow = asked("b", 11.5, seconds=1.0)
    both = [asked("a", 10.0), slow]
    (told,) = double_promises(both, 2.0, "overflow", {"b": 11.8 + AHEAD}, {"b"})
    assert told.startswith("ann: a through the database between 10.000 and 10.010, held until 12.000, and b without")
    assert double_promises(both, 2.0, "overflow", {"b": 12.3 + AHEAD}) == []
    assert double_promises(both, 2.0, "overflow", {"b": 11.8 + AHEAD - 120}) == [], "a clock gone wrong"


def test_the_overflow_may_be_promised_to_everybody() -> None:
    calls = [asked("a", 10.0), asked("b", 10.1)]
    assert double_promises(calls, 2.0, "ann") == []
