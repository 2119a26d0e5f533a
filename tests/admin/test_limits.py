"""Long lists: refused beside their field, in words, and before they cost anything; calls never wait for a form."""

from __future__ import annotations

import time
from typing import Any

import pytest

from router.admin.forms.try_call import MOST_IDS
from router.configuration.schema import AgentConfig, HookConfig, ScheduleConfig, WhenConfig, most_of
from router.db import models
from router.db.session import FileLock
from tests.admin.conftest import Admin, Browser
from tests.admin.test_projects import save

HUGE = 20_000
RULE = {"enabled": "y", "prefer": "", "prefer_days": "30", "overflow_kind": "unset", "overflow_to": ""}


def numbers(count: int) -> str:
    return ", ".join(f"0{671_000_000 + n}" for n in range(count))


def condition(kind: str, op: str, value: str, name: str = "") -> dict[str, str]:
    parts = {"kind": kind, "op": op, "name": name, "value": value}
    return RULE | {f"conditions-0-{part}": text for part, text in parts.items()}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How many seconds of work were done while the lock of all writers was held, each time."""
    times: list[float] = []
    acquire, release = FileLock.acquire, FileLock.release
    since: list[float] = []

    def acquire_timed(lock: FileLock, deadline: float) -> None:
        acquire(lock, deadline)
        since.append(time.thread_time())

    def release_timed(lock: FileLock) -> None:
        times.append(time.thread_time() - since.pop())
        release(lock)

    monkeypatch.setattr(FileLock, "acquire", acquire_timed)
    monkeypatch.setattr(FileLock, "release", release_timed)
    return times


@pytest.mark.parametrize(
    "fields",
    [
        condition("caller", "is", numbers(HUGE)),
        condition("caller", "is_not", numbers(HUGE)),
        condition("dialed", "is", numbers(HUGE)),
        condition("param", "equals", numbers(HUGE), "q"),
        condition("param", "not_contains", numbers(HUGE), "q"),
        condition("direction", "is", numbers(HUGE)),
        RULE | {f"conditions-{n}-{part}": text for n in range(2000)
                for part, text in (("kind", "param"), ("op", "present"), ("name", f"p{n}"), ("value", ""))},
    ],
    ids=["caller", "not caller", "dialed", "param", "not param", "direction", "rows"],
)  # fmt: skip
def test_a_pasted_list_of_20_000_is_refused_beside_its_condition(
    admin: Admin, olena: Browser, held: list[float], fields: dict[str, str]
) -> None:
    answer = olena.post("/p/acme/rules/new", name="blocked", **fields)
    assert answer.status_code == 422
    assert "are too many: at most" in answer.text
    assert "Take some out" in answer.text
    assert max(held) < 1, "it took nine seconds"
    assert admin.all(models.Rule) == []


def test_several_conditions_of_one_kind_make_one_list(admin: Admin, olena: Browser) -> None:
    most = most_of(WhenConfig, "caller")
    fields = condition("caller", "is", numbers(most))
    more = {
        "conditions-1-kind": "caller",
        "conditions-1-op": "is",
        "conditions-1-name": "",
        "conditions-1-value": "101",
    }
    assert olena.post("/p/acme/rules/new", name="blocked", **fields, **more).status_code == 422
    assert admin.all(models.Rule) == []


def test_the_longest_list_that_fits_is_saved_and_shown_and_holds_up_nobody(
    admin: Admin, olena: Browser, held: list[float]
) -> None:
    most = most_of(WhenConfig, "caller")
    for number in range(5):
        fields = condition("caller", "is_not", numbers(most))
        assert olena.post("/p/acme/rules/new", name=f"blocked {number}", **fields).status_code == 303
    assert max(held) < 1
    assert {len(rule.conditions["not_caller"]) for rule in admin.all(models.Rule)} == {most}
    assert olena.get("/p/acme/rules").status_code == 200
    assert olena.get(f"/p/acme/rules/{admin.all(models.Rule)[0].id}").status_code == 200


def test_an_agent_has_only_so_many_logins(admin: Admin, olena: Browser, held: list[float]) -> None:
    logins = "\n".join(f"login{n}" for n in range(HUGE))
    answer = olena.post("/p/acme/agents/new", name="Ann", sip_logins=logins, wrap_up_seconds="0", daily_cap="")
    assert answer.status_code == 422
    assert f"at most {most_of(AgentConfig, 'sip_logins')} fit" in answer.text
    assert max(held) < 1
    assert admin.all(models.Agent) == []


def test_a_schedule_has_only_so_many_exceptions_and_hours(admin: Admin, olena: Browser, held: list[float]) -> None:
    spans = ",".join(f"{n % 24:02}:00-{n % 24:02}:30" for n in range(HUGE))
    answer = olena.post("/p/acme/schedules/new", name="long", time_zone="Europe/Kyiv", mon=spans)
    assert answer.status_code == 422
    assert "At most 1000 characters." in answer.text
    rows: dict[str, Any] = {f"exceptions-{n}-hours": "" for n in range(most_of(ScheduleConfig, "exceptions") + 1)}
    rows |= {key.replace("hours", part): "2027-01-01" for key in list(rows) for part in ("date", "first", "kind")}
    answer = olena.post("/p/acme/schedules/new", name="long", time_zone="Europe/Kyiv", **rows)
    assert answer.status_code == 422
    assert max(held) < 5
    assert admin.all(models.Schedule) == []


def test_a_hook_has_only_so_many_addresses(admin: Admin, olena: Browser) -> None:
    addresses = "\n".join(f"10.{n >> 8 & 255}.{n & 255}.0/24" for n in range(HUGE))
    answer = save(olena, hook_allow_addresses=addresses)
    assert answer.status_code == 422
    assert f"at most {most_of(HookConfig, 'allow_addresses')} fit" in answer.text


def test_so_many_people_are_imported_at_once(admin: Admin, olena: Browser, held: list[float]) -> None:
    people: dict[str, Any] = {"take": [str(n) for n in range(HUGE)]}
    answer = olena.post("/p/acme/agents/import", **people)
    assert answer.status_code in (303, 404, 405)
    assert max(held, default=0) < 1
    assert admin.all(models.Agent) == []


def test_an_address_that_names_endless_agents_is_read_in_no_time(olena: Browser) -> None:
    spans = ".".join(f"{n * 100_000}-{n * 100_000 + 99_999}" for n in range(1, 500))
    began = time.thread_time()
    assert olena.get(f"/p/acme/try?presence=chosen&listed=1&online={spans}").status_code == 200
    assert time.thread_time() - began < 20, f"of {MOST_IDS} ids the rest is left out"
