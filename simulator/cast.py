"""Define the staff of the demo company and its numbers. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

DEPARTMENTS: dict[int, str] = {1: "Sales", 2: "Support"}

# The project's own (tracking) numbers, as digits like the platform writes them, and the department of each.
DEMO_NUMBERS: dict[str, str] = {"380443330001": "Sales", "380443330002": "Support", "380443330003": "Sales"}


@dataclass(frozen=True, slots=True)
class StaffMember:
    """A person in the platform's staff list.

    `logins`: in the person's own order. Those in `smart_phone_logins` belong to the browser's Smart Phone extension,
    and only that variant of the status API shows them; all others are SIP devices.
    """

    name: str
    staff_id: int
    logins: tuple[str, ...]
    departments: tuple[int, ...] = (1,)
    phone: str = ""
    extension: str = ""
    smart_phone_logins: tuple[str, ...] = ()

    @property
    def email(self) -> str:
        return f"{self.name.split()[0].lower()}@demo.example"


DEMO_STAFF: tuple[StaffMember, ...] = (
    StaffMember("Alice", 101, ("demo_alice", "demo_alice_mob"), (1,), "380671110001", "101"),
    StaffMember("Bob", 102, ("demo_bob",), (1,), "380671110002", "102"),
    StaffMember("Carol", 103, ("demo_carol", "demo_carol_mob"), (1, 2), "380671110003", "103"),
    StaffMember("Dave", 104, ("demo_dave",), (2,), "380671110004", "104"),
    StaffMember("Eve", 105, ("demo_eve", "demo_eve_web"), (2,), "380671110005", "105", ("demo_eve_web",)),
    StaffMember("Frank", 106, ("demo_frank",), (2,), "380671110006", "106"),
    StaffMember("Grace", 107, ("demo_grace_web",), (1, 2), "380671110007", "107", ("demo_grace_web",)),
    StaffMember("Heidi", 108, ("demo_heidi", "demo_heidi_mob"), (1,), "380671110008", "108"),
)


def make_staff(people: int, *, logins_each: int = 1) -> tuple[StaffMember, ...]:
    """Return a staff of any size, for load: `demo_agent_0001`, … with `logins_each` SIP logins per person."""
    return tuple(
        StaffMember(
            f"Agent {n:04d}",
            1000 + n,
            tuple(f"demo_agent_{n:04d}" + (f"_{k}" if k else "") for k in range(logins_each)),
            (1 + n % len(DEPARTMENTS),),
            f"38067{2000000 + n}",
            str(1000 + n),
        )
        for n in range(1, people + 1)
    )
