"""Groups: who is next, members and their order, deleting."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from html import unescape
from typing import Any

import pytest
from sqlalchemy import select

from router.core.model import Call, Offer
from router.core.strategies import STRATEGIES
from router.db import models
from router.routing.route import Routing
from tests.admin.conftest import Admin, Browser
from tests.rows import changing

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    presence: {fresh_seconds: 60}
    schedules:
      - {name: office hours, open: {mon-fri: ["09:00-18:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice]}
      - {name: Bob, sip_logins: [acme_bob]}
      - {name: Carol, sip_logins: [acme_carol]}
      - {name: Dave, sip_logins: [acme_dave]}
    groups:
      - {name: sales, members: [{agent: Alice}, {agent: Bob, tier: 2}, {agent: Carol}]}
      - {name: empty}
    rules:
      - {name: everyone, groups: [sales]}
      - {name: few, when: {free: {group: empty, fewer_than: 2}}, groups: []}
"""


@pytest.fixture(autouse=True)
def configured(admin: Admin) -> None:
    admin.configure(CONFIG)


def see(admin: Admin, *online: str, speaking: tuple[str, ...] = ()) -> None:
    """Presence of this moment: these logins."""
    project_id = admin.one(models.Project, name="acme").id
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        snapshot = models.PresenceSnapshot(project_id=project_id, began_at=now, online=[*online], speaking=[*speaking])
        session.add(snapshot)
        session.flush()
        session.merge(models.Presence(project_id=project_id, snapshot_id=snapshot.id, began_at=now, failures=0))


def url(admin: Admin, name: str, what: str = "") -> str:
    return f"/p/acme/groups/{admin.one(models.Group, name=name).id}{what}"


def ids(admin: Admin, *names: str) -> list[str]:
    return [str(admin.one(models.Agent, name=name).id) for name in names]


def members(admin: Admin, group: str) -> list[tuple[str, int, int]]:
    row = admin.one(models.Group, name=group)
    names = {agent.id: agent.name for agent in admin.all(models.Agent)}
    return [(names[m.agent_id], m.tier, m.weight) for m in row.members]


def post(browser: Browser, address: str, **fields: Any) -> Any:
    """Post lists as several fields of one name."""
    return browser.client.post(address, data={"csrf_token": browser.token, **fields})


def fields(admin: Admin, group: str, **changed: Any) -> dict[str, Any]:
    row = admin.one(models.Group, name=group)
    shown = {"revision": str(row.revision), "name": row.name, "strategy": row.strategy, "ring_seconds": "25",
             "overflow_kind": "unset", "overflow_to": ""}  # fmt: skip
    order = changed.pop("order", None) or [str(m.agent_id) for m in row.members]
    agents = {f"members-{agent}-agent": agent for agent in order}
    tiers = {f"members-{m.agent_id}-tier": str(m.tier) for m in row.members if str(m.agent_id) in order}
    return shown | agents | tiers | changed


def queue(page: str) -> list[tuple[str, str]]:
    part = page.partition('id="queue"')[2].partition("</section>")[0]
    return re.findall(
        r'<span class="(?:strong)?">([^<]+)</span><span class="push"><span class="state [^"]*state-(\w+)', part
    )


def test_who_is_next_is_whom_the_hook_would_offer(admin: Admin, vira: Browser) -> None:
    see(admin, "acme_alice", "acme_bob", "acme_carol", speaking=("acme_alice",))
    page = vira.get(url(admin, "sales")).text
    assert queue(page) == [
        ("Carol", "eligible"),
        ("Bob", "eligible"),
        ("Alice", "speaking"),
    ]  # Bob's tier is the second
    routing = Routing(admin.database)
    routed = routing.route_call(
        admin.one(models.Project, name="acme").id, Call("1", caller="380501234567"), deadline=time.monotonic() + 60
    )
    assert routed.decision is not None
    assert isinstance(routed.decision.answer, Offer)
    assert routed.destination == "acme_carol"
    assert queue(vira.get(url(admin, "sales", "/queue")).text)[0] == ("Bob", "eligible")
    assert ("Carol", "reserved") in queue(vira.get(url(admin, "sales", "/queue")).text)


def test_the_list_tells_the_strategy_who_is_next_and_what_is_wrong(admin: Admin, vira: Browser) -> None:
    see(admin, "acme_alice", "acme_carol")
    page = unescape(vira.get("/p/acme/groups").text)
    assert "Whoever was offered a call the longest ago is next" in page
    assert "2 free now" in page
    assert "This group has no members: nobody can take its calls." in page
    assert "nobody is free" in page


def test_members_are_saved_in_their_order_with_tier_weight_and_hours(admin: Admin, emil: Browser) -> None:
    carol, dave, alice = ids(admin, "Carol", "Dave", "Alice")
    hours = str(admin.one(models.Schedule, name="office hours").id)
    posted = fields(admin, "sales", order=[carol, alice], join=[dave], strategy="weighted", ring_seconds="40",
                    overflow_kind="to", overflow_to="067 123 45 67")  # fmt: skip
    posted |= {f"members-{alice}-tier": "3", f"members-{carol}-weight": "5", f"members-{carol}-hours": hours}
    assert post(emil, url(admin, "sales"), **posted).status_code == 303
    assert members(admin, "sales") == [("Carol", 1, 5), ("Dave", 1, 1), ("Alice", 3, 1)]
    row = admin.one(models.Group, name="sales")
    assert (row.strategy, row.ring_seconds, row.overflow) == ("weighted", 40, "380671234567")
    assert row.members[0].hours_id == int(hours)


def test_buttons_of_the_list_change_the_page_and_save_nothing(admin: Admin, emil: Browser) -> None:
    alice, bob, carol, dave = ids(admin, "Alice", "Bob", "Carol", "Dave")
    before = admin.one(models.Project, name="acme").version

    def order(**button: Any) -> list[str]:
        answer = post(emil, url(admin, "sales"), **fields(admin, "sales", order=[alice, bob, carol]) | button)
        assert answer.status_code == 200
        return re.findall(r'name="members-\d+-agent" value="(\d+)"', answer.text)

    assert order(move_members=f"up:{carol}") == [alice, carol, bob]
    assert order(move_members=f"down:{alice}") == [bob, alice, carol]
    assert order(move_members=f"up:{alice}") == [alice, bob, carol]
    assert order(remove_members=bob) == [alice, carol]
    assert order(add="1", join=[dave]) == [alice, bob, carol, dave]
    assert admin.one(models.Project, name="acme").version == before


def test_a_fault_of_a_member_is_told_and_nothing_is_saved(admin: Admin, emil: Browser) -> None:
    (alice,) = ids(admin, "Alice")
    answer = post(emil, url(admin, "sales"), **fields(admin, "sales") | {f"members-{alice}-tier": "first"})
    assert answer.status_code == 422
    assert "Tier: write a whole number from 0 to 1000." in answer.text
    assert 'value="first"' in answer.text
    assert members(admin, "sales")[0] == ("Alice", 1, 1)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "empty"}, "Another one has this name already"),
        ({"ring_seconds": "-1"}, "Write a number from 0 to 3600."),
        ({"overflow_kind": "to", "overflow_to": ""}, "Write where the call goes"),
        ({"overflow_kind": "to", "overflow_to": "two words"}, "Not a valid destination"),
    ],
)
def test_a_fault_of_the_group_is_told(admin: Admin, emil: Browser, changed: dict[str, str], said: str) -> None:
    answer = post(emil, url(admin, "sales"), **fields(admin, "sales") | changed)
    assert answer.status_code == 422
    assert said in unescape(answer.text)


def test_an_unknown_strategy_is_refused(admin: Admin, emil: Browser) -> None:
    assert post(emil, url(admin, "sales"), **fields(admin, "sales", strategy="loudest")).status_code == 422
    assert admin.one(models.Group, name="sales").strategy == "round_robin"


def test_each_strategy_can_be_chosen_and_is_explained(admin: Admin, emil: Browser) -> None:
    page = emil.get(url(admin, "sales")).text
    assert re.findall(r'name="strategy" type="radio" value="(\w+)"', page) == list(STRATEGIES)
    for name in STRATEGIES:
        assert post(emil, url(admin, "sales"), **fields(admin, "sales", strategy=name)).status_code == 303
        assert admin.one(models.Group, name="sales").strategy == name


def test_a_group_is_added_with_its_members(admin: Admin, emil: Browser) -> None:
    posted = {"name": "vip", "strategy": "priority", "ring_seconds": "20", "overflow_kind": "empty", "overflow_to": ""}
    assert post(emil, "/p/acme/groups/new", **posted, join=ids(admin, "Dave", "Alice")).status_code == 303
    assert members(admin, "vip") == [("Dave", 1, 1), ("Alice", 1, 1)]
    row = admin.one(models.Group, name="vip")
    assert (row.overflow, row.position) == ("", 2)


def test_two_who_change_the_members_are_told_of_each_other(admin: Admin, emil: Browser, olena: Browser) -> None:
    alice, carol, dave = ids(admin, "Alice", "Carol", "Dave")
    mine = fields(admin, "sales", order=[alice, carol])
    post(olena, url(admin, "sales"), **fields(admin, "sales"), join=[dave])
    answer = post(emil, url(admin, "sales"), **mine)
    assert answer.status_code == 409
    assert "Dave" in answer.text.split("Fields that you both changed")[1].split("</table>")[0]
    assert len(members(admin, "sales")) == 4


def test_deleting_a_group_asks_first_and_says_which_rules_lose_it(admin: Admin, emil: Browser) -> None:
    page = emil.get(url(admin, "sales", "/delete")).text
    assert re.search(r'in the rule <a href="/p/acme/rules/\d+">everyone</a>: it has no other group', page)
    assert admin.one(models.Group, name="sales")
    assert "sales is deleted." in emil.post(url(admin, "sales", "/delete"), follow=True).text
    assert admin.all(models.Group, name="sales") == []
    assert admin.all(models.RuleGroup) == []


def test_a_group_that_a_condition_counts_is_not_deleted(admin: Admin, emil: Browser) -> None:
    page = emil.get(url(admin, "empty", "/delete")).text
    assert re.search(r'in the rule <a href="/p/acme/rules/\d+">few</a>: its condition counts the free agents', page)
    assert "You can undo this" not in page
    assert emil.post(url(admin, "empty", "/delete")).status_code == 409
    assert admin.one(models.Group, name="empty")


@pytest.mark.parametrize("reader", ["olena", "vira"])
def test_names_of_agents_and_schedules_are_text_in_the_rows_of_members(admin: Admin, reader: str) -> None:
    """The template of the rows escapes by hand."""
    script = "<script>\"'&"
    with changing(admin.database, admin.one(models.Project, name="acme").id, "test") as session:
        session.scalars(select(models.Agent).filter_by(name="Alice")).one().name = script
        schedule = session.scalars(select(models.Schedule)).one()
        schedule.name = script
        member = session.scalars(select(models.Member).join(models.Group).where(models.Group.name == "sales")).first()
        assert member is not None
        member.hours_id = schedule.id
    html = admin.browser(reader).get(url(admin, "sales")).text
    assert '<script>"' not in html
    assert "&lt;script&gt;&#34;&#39;&amp;" in html
    assert "&amp;lt;" not in html, "nor is anything escaped twice"
    assert html.count("<li data-item=") == 3
