"""Hold the true states: which SIP login is online, rings, talks. No timers, no network. Only the exchange changes them.

Not thread-safe: callers hold the scheduler's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from simulator.cast import StaffMember


class State(StrEnum):
    """The true state of a login, which depends on all logins of its owner."""

    IDLE = "idle"
    RINGING = "ringing"
    TALKING = "talking"
    OFFLINE = "offline"
    DND = "dnd"


@dataclass(slots=True, eq=False)
class Person:
    """A person of the staff, with the lines of all their logins."""

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
    online_since: float = 0.0  # or offline since, if it is offline
    dnd_since: float | None = None
    activity: State = State.IDLE
    activity_since: float = 0.0
    call_number: int | None = None  # the call from the hook that rings or talks here
    offered_at: float | None = None  # when the router named this login for that call
    acknowledged_at: float | None = None  # when the router acknowledged the event of this talk
    pinned: bool = False  # set by hand: the simulation does not change it
    leaving: bool = False  # goes offline after this talk
    on_cut: Callable[[], None] | None = None  # called when the line's call is cut off


class Truth(NamedTuple):
    """A login's state, its beginning, and the line of its owner that is the reason."""

    state: State
    since: float
    line: Line


class Lines:
    """All logins of the staff."""

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
        """Return a login's state. If one of the owner's logins talks or rings, all of them do. Raises KeyError."""
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
        """Make the line ring, talk or be idle from now on."""
        now = time.monotonic()
        line.activity, line.activity_since = activity, now
        if activity is State.IDLE:
            line.call_number = line.offered_at = line.acknowledged_at = line.on_cut = None
            line.person.idle_since = now
            if line.leaving:
                line.leaving = False
                self.connect(line, online=False)

    def connect(self, line: Line, *, online: bool) -> None:
        """Make the login go online or offline now."""
        if line.online is not online:
            line.online, line.online_since = online, time.monotonic()

    # ---- for the status API

    def online(self, *, smart_phone: bool, with_dnd: bool = True) -> list[str]:
        return [
            line.login
            for line in self.by_login.values()
            if line.online and line.smart_phone is smart_phone and (with_dnd or line.dnd_since is None)
        ]

    def speaking(self) -> list[str]:
        """Return the logins that talk. Those that ring are not among them: the platform does not document that."""
        return [line.login for line in self.by_login.values() if line.activity is State.TALKING]
