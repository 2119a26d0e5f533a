"""The truth: which SIP login is online, rings, talks. No timers, no network; the exchange changes it, all others ask.

Not thread-safe by itself: every caller holds the scheduler's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from simulator.cast import StaffMember


class State(StrEnum):
    """What a login is in truth, seen from the person who owns it."""

    IDLE = "idle"
    RINGING = "ringing"
    TALKING = "talking"
    OFFLINE = "offline"
    DND = "dnd"


@dataclass(slots=True, eq=False)
class Person:
    """Someone of the staff with the lines of all their logins."""

    member: StaffMember
    lines: list[Line] = field(default_factory=list)
    on_shift: bool = True
    idle_since: float = 0.0


@dataclass(slots=True, eq=False)
class Line:
    """One SIP login. `activity` is IDLE, RINGING or TALKING; instants are those of `time.monotonic()`."""

    login: str
    person: Person
    smart_phone: bool
    online: bool = True
    online_since: float = 0.0  # … or offline since
    dnd_since: float | None = None
    activity: State = State.IDLE
    activity_since: float = 0.0
    call_number: int | None = None  # the call from the hook that rings or talks here
    offered_at: float | None = None  # when the router named this login for that call
    told_at: float | None = None  # when the router acknowledged the event of this talk
    pinned: bool = False  # set by hand: the simulation leaves it as it is
    leaving: bool = False  # goes offline when this talk is over
    on_cut: Callable[[], None] | None = None  # what to do when the line is torn out of its call


class Truth(NamedTuple):
    """A login's state, since when, and the line of its owner that explains it."""

    state: State
    since: float
    line: Line


class Lines:
    """Every login of the staff."""

    def __init__(self, staff: Iterable[StaffMember]) -> None:
        now = time.monotonic()
        self.people: list[Person] = []
        self.by_login: dict[str, Line] = {}
        for member in staff:
            person = Person(member, idle_since=now)
            for login in member.logins:
                line = Line(login, person, login in member.smart_phone_logins, online_since=now, activity_since=now)
                person.lines.append(line)
                self.by_login[login] = line
            self.people.append(person)

    def truth(self, login: str) -> Truth:
        """One login that talks or rings makes its owner talk or ring at all of them. Raises KeyError."""
        line = self.by_login[login]
        if not line.online:
            return Truth(State.OFFLINE, line.online_since, line)
        for state in (State.TALKING, State.RINGING):
            for other in line.person.lines:
                if other.activity is state:
                    return Truth(state, other.activity_since, other)
        if line.dnd_since is not None:
            return Truth(State.DND, line.dnd_since, line)
        return Truth(State.IDLE, max(line.person.idle_since, line.online_since), line)

    def is_free(self, person: Person) -> bool:
        return any(self.truth(line.login).state is State.IDLE for line in person.lines)

    def change(self, line: Line, activity: State) -> None:
        """Ring, talk or fall idle, now."""
        now = time.monotonic()
        line.activity, line.activity_since = activity, now
        if activity is State.IDLE:
            line.call_number = line.offered_at = line.told_at = line.on_cut = None
            line.person.idle_since = now
            if line.leaving:
                line.leaving = False
                self.connect(line, online=False)

    def connect(self, line: Line, *, online: bool) -> None:
        """Come online or go offline, now."""
        if line.online is not online:
            line.online, line.online_since = online, time.monotonic()

    # ---- what the status API says of it

    def online(self, *, smart_phone: bool, with_dnd: bool = True) -> list[str]:
        return [
            line.login
            for line in self.by_login.values()
            if line.online and line.smart_phone is smart_phone and (with_dnd or line.dnd_since is None)
        ]

    def speaking(self) -> list[str]:
        """Talking logins. A login that rings is not among them: the platform does not say so, and we do not guess."""
        return [line.login for line in self.by_login.values() if line.activity is State.TALKING]
