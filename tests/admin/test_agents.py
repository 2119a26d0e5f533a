"""Agents: the table, logins that are nobody's, the import, editing, deleting and taking that back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from sqlalchemy import select

from router.admin.views.agents import name_from_login, propose
from router.configuration import apply, load
from router.core.model import Agent
from router.db import models
from router.presence.source import StaffMember
from tests.admin.conftest import Admin, Browser

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    schedules:
      - {name: office hours, open: {mon-fri: ["09:00-18:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice, acme_alice_mob], staff_id: "101"}
      - {name: Bob, sip_logins: [acme_bob]}
      - {name: Carol, sip_logins: [acme_carol], deputy: Bob, away_until: 2030-01-01}
      - {name: Олена Коваленко, sip_logins: [acme_olena]}
    groups:
      - {name: sales, members: [{agent: Alice}, {agent: Bob, tier: 2}]}
      - {name: support, strategy: priority, members: [{agent: Carol}, {agent: Bob}]}
    rules:
      - {name: everyone, groups: [sales, support]}
"""


@pytest.fixture(autouse=True)
def configured(admin: Admin) -> None:
    admin.configure(CONFIG)


def agent(admin: Admin, name: str) -> models.Agent:
    row: models.Agent = admin.one(models.Agent, name=name)
    return row


def url(admin: Admin, name: str, what: str = "") -> str:
    return f"/p/acme/agents/{agent(admin, name).id}{what}"


def fields(admin: Admin, who: str, **changed: Any) -> dict[str, Any]:
    """What the form of this agent posts."""
    row = agent(admin, who)
    logins = "\n".join(login.login for login in row.sip_logins)
    shown = {"name": row.name, "sip_logins": logins, "wrap_up_seconds": "0", "daily_cap": ""}
    shown["staff_id"] = row.external_id
    return {"revision": str(row.revision), **shown, **changed}


def see_online(admin: Admin, *logins: str) -> None:
    with admin.database.writing() as session:
        for login in logins:
            session.add(
                models.LoginState(project_id=admin.one(models.Project, name="acme").id, login=login, online=True,
                                  speaking=False, since_at=datetime.now(UTC))
            )  # fmt: skip


def test_the_table_shows_logins_groups_and_state(vira: Browser) -> None:
    page = vira.get("/p/acme/agents").text
    assert re.findall(r'rowheader"[^>]*><a[^>]*>([^<]+)<', page) == ["Alice", "Bob", "Carol", "Олена Коваленко"]
    assert "acme_alice_mob" in page
    assert "deputy Bob" in page
    assert page.count("Presence unknown") >= 2  # nothing was ever seen of presence


def test_the_table_shows_all_limits(admin: Admin, emil: Browser) -> None:
    limits = {"wrap_up_seconds": "7,5", "daily_cap": "80", "max_talk_per_day": "30"}
    assert emil.post(url(admin, "Alice"), **fields(admin, "Alice", **limits)).status_code == 303
    page = emil.get("/p/acme/agents").text
    for shown in ("Wrap-up: 7.5 seconds", "Daily cap: 80 calls a day", "Most talk a day: 30 minutes a day"):
        assert shown in page


def test_deputies_in_a_circle_are_warned_about_where_they_are_set(admin: Admin, vira: Browser) -> None:
    warning = "This agent has deputies in a circle, “{}”: while all of them are away nobody stands in."
    assert "deputies in a circle" not in unescape(vira.get("/p/acme/agents").text)
    circle = CONFIG.replace("sip_logins: [acme_bob]", "sip_logins: [acme_bob], deputy: Carol")
    apply(admin.database, load(circle, {}), actor="test")
    everybody = unescape(vira.get("/p/acme/agents").text)
    assert warning.format("Carol") in everybody
    assert warning.format("Bob") in everybody
    assert warning.format("Bob") in unescape(vira.get(url(admin, "Carol")).text)
    assert "deputies in a circle" not in unescape(vira.get(url(admin, "Alice")).text)


def test_a_login_of_another_project_on_the_same_account_is_warned_about(admin: Admin, vira: Browser) -> None:
    warning = "“acme_bob” is a login of project other too, on the same Ringostat account."
    other = """
projects:
  - {name: other, presence: {auth_key: %s}, agents: [{name: Robert, sip_logins: [acme_bob]}]}
"""
    with admin.database.writing() as session:
        acme = session.scalars(select(models.Project).where(models.Project.name == "acme")).one()
        acme.presence_auth_key = "of both"
    for key, is_warned in (("another", False), ("of both", True)):
        apply(admin.database, load(other % key, {}), actor="test")
        for page in ("/p/acme/agents", url(admin, "Bob")):
            assert (warning in unescape(vira.get(page).text)) is is_warned
    assert warning not in unescape(vira.get(url(admin, "Alice")).text)


def test_a_search_finds_by_name_and_login_whatever_the_case(vira: Browser) -> None:
    assert "Alice" not in vira.get("/p/acme/agents?q=ОЛЕНА").text.split("<tbody")[1]
    found = vira.get("/p/acme/agents?q=ALICE_mob").text
    assert "Alice" in found
    assert ">Bob<" not in found
    assert "No agent matches" in vira.get("/p/acme/agents?q=zzz").text


def test_pages_follow_each_other_without_a_gap(admin: Admin, vira: Browser) -> None:
    many = "".join(f"      - {{name: Agent {n:03}, sip_logins: [acme_{n}]}}\n" for n in range(120))
    apply(admin.database, load(f"projects:\n  - name: acme\n    agents:\n{many}", {}), actor="test")
    seen, address, page = [], "/p/acme/agents", ""
    while address:
        page = vira.get(address).text
        seen += re.findall(r'rowheader"[^>]*><a[^>]*>([^<]+)<', page)
        onward = re.search(r'rel="next" href="([^"]+)"', page)
        address = unescape(onward[1]) if onward else ""
    assert seen == [f"Agent {n:03}" for n in range(120)]
    back = re.search(r'rel="prev" href="([^"]+)"', page)
    assert back is not None
    assert "Agent 050" in vira.get(unescape(back[1])).text


def test_an_agent_is_changed_with_everything(admin: Admin, emil: Browser) -> None:
    hours = admin.one(models.Schedule, name="office hours").id
    bob = agent(admin, "Bob").id
    posted = fields(
        admin, "Alice", name="Alice Shevchenko", sip_logins="acme_alice_mob\nacme_alice", wrap_up_seconds="12,5",
        daily_cap="80", hours=str(hours), deputy=str(bob), away_until="2031-05-01T09:00", paused="y",
    )  # fmt: skip
    assert emil.post(url(admin, "Alice"), **posted).status_code == 303
    row = agent(admin, "Alice Shevchenko")
    assert [login.login for login in row.sip_logins] == ["acme_alice_mob", "acme_alice"]
    assert (row.wrap_up_seconds, row.daily_cap, row.hours_id, row.deputy_id, row.paused) == (12.5, 80, hours, bob, True)
    assert row.away_until == datetime(2031, 5, 1, 6, tzinfo=UTC)  # summer in Kyiv
    entry = admin.all(models.AuditEntry, subject="agent", subject_id=row.id)[-1]
    assert (entry.actor, entry.action, entry.before["name"]) == ("emil@example.org", "changed", "Alice")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": ""}, "Give the agent a name."),
        ({"name": "Bob"}, "Another one has this name already"),
        ({"sip_logins": "acme_bob"}, "“acme_bob” belongs to Bob already"),
        ({"sip_logins": "acme_new\nacme_new"}, "“acme_new” is listed twice."),
        ({"sip_logins": "two words"}, "“two words” is not a valid SIP login"),
        ({"wrap_up_seconds": "soon"}, "Write a number from 0 to 86400."),
        ({"daily_cap": "0"}, "Write a whole number from 1 to"),
        ({"away_until": "tomorrow"}, "Write it like 2026-12-24 14:00."),
        ({"away_until": "2027-03-28T03:30"}, "There is no such time: the clocks go forward then."),
        ({"deputy": "999"}, "This no longer exists"),
    ],
)
def test_a_fault_stands_beside_its_field_and_nothing_is_saved(
    admin: Admin, emil: Browser, changed: dict[str, str], said: str
) -> None:
    before = admin.one(models.Project, name="acme").version
    answer = emil.post(url(admin, "Alice"), **fields(admin, "Alice", **changed))
    assert answer.status_code == 422
    (name,) = changed
    beside = re.search(rf'id="{name}-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert said in unescape(beside[1])
    if changed[name] not in ("", "999"):  # an id that is not among the choices cannot be shown
        assert unescape(changed[name].split("\n")[0]) in unescape(answer.text)  # what was typed is still there
    assert admin.one(models.Project, name="acme").version == before


@pytest.mark.parametrize(
    ("preset", "is_set"), [("today", (False, True)), ("tomorrow", (True, True)), ("none", (False, False))]
)
def test_a_leave_is_filled_in_by_one_click_and_saved_with_the_rest(
    admin: Admin, emil: Browser, preset: str, is_set: tuple[bool, bool]
) -> None:
    typed = fields(admin, "Alice", wrap_up_seconds="7", away_from="2031-05-01T09:00", away_until="2031-05-02T09:00")
    page = emil.post(url(admin, "Alice"), **typed, leave=preset).text
    assert agent(admin, "Alice").away_until is None
    assert 'name="wrap_up_seconds" value="7"' in re.sub(r' (?!name=|value=)[\w-]+="[^"]*"', "", page)
    found = [re.search(rf'name="{name}"[^>]*value="([^"]*)"', page) for name in ("away_from", "away_until")]
    filled = [one[1] if one else "" for one in found]
    assert tuple(map(bool, filled)) == is_set
    typed |= dict(zip(("away_from", "away_until"), filled, strict=True))
    emil.post(url(admin, "Alice"), **typed)
    assert (agent(admin, "Alice").away_until is not None) is is_set[1]


def test_a_leave_ends_after_it_begins(admin: Admin, emil: Browser) -> None:
    for until in ("", "2031-05-01T09:00"):
        page = emil.post(url(admin, "Alice"), **fields(admin, "Alice", away_from="2031-05-01T09:00", away_until=until))
        assert page.status_code == 422
        assert "Say until when, and choose a later moment than this" in page.text


def test_nobody_is_their_own_deputy(admin: Admin, emil: Browser) -> None:
    own = agent(admin, "Alice").id
    assert emil.post(url(admin, "Alice"), **fields(admin, "Alice", deputy=str(own))).status_code == 422


def test_logins_that_are_nobodys_are_added_with_one_click(admin: Admin, emil: Browser, vira: Browser) -> None:
    see_online(admin, "acme_petro_mob", "acme_bob_web", "acme_alice")
    page = emil.get("/p/acme/agents").text
    assert "Petro mob" in page
    assert "Add to Bob" in page  # acme_bob_web extends acme_bob
    assert page.count("acme_alice</code>") == 0
    assert "not assigned to an agent" not in vira.get("/p/acme/agents").text
    answer = emil.post("/p/acme/agents/add-login", login="acme_petro_mob", name="Petro", follow=True)
    assert "Petro is added." in answer.text
    assert [login.login for login in agent(admin, "Petro").sip_logins] == ["acme_petro_mob"]
    emil.post("/p/acme/agents/add-login", login="acme_bob_web", agent=str(agent(admin, "Bob").id))
    assert [login.login for login in agent(admin, "Bob").sip_logins] == ["acme_bob", "acme_bob_web"]
    assert "not assigned to an agent" not in emil.get("/p/acme/agents").text


def test_a_login_that_somebody_took_meanwhile_is_not_taken_twice(admin: Admin, emil: Browser) -> None:
    answer = emil.post("/p/acme/agents/add-login", login="acme_bob", name="Robert", follow=True)
    assert "belongs to Bob already" in answer.text
    assert admin.all(models.Agent, name="Robert") == []


def test_several_logins_become_an_agent_each_with_names_of_their_own(admin: Admin, emil: Browser) -> None:
    answer = emil.client.post(
        "/p/acme/agents/add-login", data={"csrf_token": emil.token, "login": ["acme_ivan", "other_ivan"], "agent": ""}
    )
    assert answer.status_code == 303
    assert {row.name for row in admin.all(models.Agent)} >= {"Ivan", "Ivan (other_ivan)"}


def test_deleting_lists_where_the_agent_is_named_and_can_be_undone(admin: Admin, emil: Browser) -> None:
    bob = agent(admin, "Bob").id
    page = emil.get(url(admin, "Bob", "/delete")).text
    assert re.findall(r'(?:group|deputy of) <a href="[^"]*">([^<]+)</a>', page) == ["sales", "support", "Carol"]
    gone = emil.post(url(admin, "Bob", "/delete"), follow=True).text
    assert "Bob is deleted." in gone
    assert admin.all(models.Agent, name="Bob") == []
    assert [m.agent_id for m in admin.all(models.Member)].count(bob) == 0
    assert agent(admin, "Carol").deputy_id is None
    version = re.search(r'name="version" value="(\d+)"', gone)
    assert version is not None
    assert "Undone." in emil.post("/p/acme/undo", version=version[1], follow=True).text
    again = agent(admin, "Bob")
    assert (again.id, [login.login for login in again.sip_logins]) == (bob, ["acme_bob"])
    assert agent(admin, "Carol").deputy_id == bob
    assert {(m.group_id, m.tier) for m in admin.all(models.Member) if m.agent_id == bob} == {
        (admin.one(models.Group, name="sales").id, 2),
        (admin.one(models.Group, name="support").id, 1),
    }


# ---- import


def person(staff_id: str, name: str, *logins: str) -> StaffMember:
    return StaffMember(staff_id, name, "", "", "", (), logins)


def test_a_name_is_guessed_from_a_login_and_people_correct_it() -> None:
    assert name_from_login("supportrngst_manager1") == "Manager1"
    assert name_from_login("brandcom_julian_mob") == "Julian mob"
    assert name_from_login("101") == "101"


def test_the_import_knows_agents_by_staff_id_then_by_login() -> None:
    ours = [Agent(1, "Alice", ("acme_alice",), staff_id="101"), Agent(2, "Bob", ("acme_bob",))]
    staff = [
        person("101", "Alice Shevchenko", "acme_alice", "acme_alice_mob"),
        person("102", "Bob", "acme_bob"),
        person("103", "Zoe", "acme_zoe", "acme_bob"),
        person("104", "Paper only"),
        person("105", "", "acme_nameless"),
    ]
    found = {p.staff_id: p for p in propose(ours, staff)}
    assert (found["101"].kind, found["101"].agent_id) == ("changed", 1)
    assert found["101"].logins == ["acme_alice", "acme_alice_mob"]
    assert (found["102"].kind, found["102"].agent_id) == ("changed", 2)  # the staff id is new
    assert (found["103"].kind, found["103"].logins) == ("new", ["acme_zoe"])
    assert found["103"].refused == [("acme_bob", "Bob")]
    assert found["104"].kind == "no_login"
    assert found["105"].name == "Nameless"
    done = [Agent(1, "Alice Shevchenko", ("acme_alice", "acme_alice_mob"), staff_id="101")]
    assert [p.kind for p in propose(done, staff[:1])] == ["same"]


def staff_api(server: HTTPServer, result: Any) -> None:
    server.expect_request("/api/json-rpc", method="POST", headers={"Auth-key": "acme-secret-key"}).respond_with_json(
        {"jsonrpc": "2.0", "id": 1, "result": result}
    )


def directions(*logins: str) -> dict[str, Any]:
    return {"main": [{"direction": login, "type": "sip"} for login in logins], "additional": []}


@pytest.fixture
def ringostat(admin: Admin, httpserver: HTTPServer) -> HTTPServer:
    with admin.database.writing() as session:
        project = session.get_one(models.Project, admin.one(models.Project, name="acme").id)
        project.presence_api_url, project.presence_project_id = httpserver.url_for("").rstrip("/"), "12345"
    context = admin.app.extensions["admin"]
    settings = context.settings.model_copy(update={"presence_allow_private": True})
    admin.app.extensions["admin"] = context._replace(settings=settings)
    return httpserver


def test_the_import_does_only_what_is_ticked(admin: Admin, emil: Browser, ringostat: HTTPServer) -> None:
    staff_api(ringostat, {
        "101": {"staffId": "101", "fio": "Alice Shevchenko", "directions": directions("acme_alice", "acme_alice_mob")},
        "201": {"staffId": "201", "fio": "Zoe <b>", "directions": directions("acme_zoe")},
        "202": {"staffId": "202", "fio": "Yan", "directions": directions("acme_yan")},
    })  # fmt: skip
    page = emil.get("/p/acme/agents/import").text
    assert "Zoe &lt;b&gt;" in page
    assert admin.all(models.Agent, name="Yan") == []
    values = dict(re.findall(r'type="hidden" name="((?:name|staff|agent|login)-\d+)"\s+value="([^"]*)"', page))
    ticks = {unescape(name): n for n, name in re.findall(r'name="name-(\d+)"\s+value="([^"]*)"', page)}
    posted: dict[str, Any] = {name: unescape(value) for name, value in values.items()}
    posted["take"] = [ticks["Zoe <b>"], ticks["Alice Shevchenko"]]
    answer = emil.client.post(
        "/p/acme/agents/import", data={"csrf_token": emil.token, **posted}, follow_redirects=True
    ).text
    assert "1 agent added, 1 changed." in answer
    assert agent(admin, "Zoe <b>").external_id == "201"
    assert agent(admin, "Alice Shevchenko").external_id == "101"
    assert admin.all(models.Agent, name="Yan") == []


def posted_by(page: str, **ticked: list[str]) -> dict[str, Any]:
    """What the form of the import posts, with only these ticks."""
    posted: dict[str, Any] = dict(ticked)
    for name, value in re.findall(r'type="hidden"\s+name="([\w-]+-\d+)"\s+value="([^"]*)"', page):
        posted.setdefault(name, []).append(unescape(value))
    return posted


def test_departments_make_and_extend_groups_of_who_is_imported(
    admin: Admin, emil: Browser, ringostat: HTTPServer
) -> None:
    def staff(staff_id: str, name: str, *departments: Any) -> dict[str, Any]:
        login = f"acme_{name.lower()}"
        return {"staffId": staff_id, "fio": name, "departments": departments, "directions": directions(login)}

    lists = {"id": 1, "name": "Sales"}, {"id": 2, "name": "Night <b>"}
    staff_api(ringostat, {
        "102": staff("102", "Bob", *lists), "201": staff("201", "Zoe", *lists), "202": staff("202", "Yan", *lists, 7),
        "203": {"staffId": "203", "fio": "Paper only", "departments": [7]},
    })  # fmt: skip
    page = emil.get("/p/acme/agents/import").text
    shown = page.partition('id="departments"')[2]
    names = [unescape(name) for name in re.findall(r'name="group-name-\d+"\s+value="([^"]*)"', shown)]
    assert names == ["Department 7", "Night <b>", "sales"]
    ticked = re.findall(r'name="group"\s+value="(\d)"\s+id="group-\d"( checked)?', shown)
    assert ticked == [("1", " checked"), ("2", " checked"), ("3", "")], "a group that there is takes calls at once"
    assert "2 people join this group" in shown  # Bob is a member already
    rows = {name: n for n, name in re.findall(r'name="name-(\d+)"\s+value="([^"]*)"', page)}
    posted = posted_by(page, take=[rows["Zoe"]], group=["1", "2", "3"])
    answer = emil.client.post(
        "/p/acme/agents/import", data={"csrf_token": emil.token, **posted}, follow_redirects=True
    ).text
    assert "1 agent added, 0 changed. They are in the groups: Night &lt;b&gt;, sales." in answer
    members = {
        group.name: {member.agent_id for member in admin.all(models.Member, group_id=group.id)}
        for group in admin.all(models.Group, project_id=admin.one(models.Project, name="acme").id)
    }
    zoe, bob = agent(admin, "Zoe").id, agent(admin, "Bob").id
    assert members["Night <b>"] == {zoe, bob}
    assert zoe in members["sales"]
    assert "Department 7" not in members, "nobody of it was imported"


def test_departments_whose_names_differ_in_case_alone_are_one_group(
    admin: Admin, emil: Browser, ringostat: HTTPServer
) -> None:
    def staff(staff_id: str, name: str, department: str) -> dict[str, Any]:
        departments = [{"id": staff_id, "name": department}]
        return {"staffId": staff_id, "fio": name, "departments": departments, "directions": directions(f"a_{name}")}

    staff_api(ringostat, {
        "201": staff("201", "Zoe", "Sales"), "202": staff("202", "Yan", "SALES"), "203": staff("203", "Uma", "Night"),
        "204": staff("204", "Tim", "night"),
    })  # fmt: skip
    page = emil.get("/p/acme/agents/import").text
    names = re.findall(r'name="group-name-\d+"\s+value="([^"]*)"', page)
    assert names == ["Night", "sales"]
    people = re.findall(r'name="name-(\d+)"', page)
    posted = posted_by(page, take=people, group=["1", "2"])
    emil.client.post("/p/acme/agents/import", data={"csrf_token": emil.token, **posted})
    for name, joined in (("Night", {"Uma", "Tim"}), ("sales", {"Zoe", "Yan"})):
        group = admin.one(models.Group, project_id=admin.one(models.Project, name="acme").id, name=name)
        members = {member.agent_id for member in admin.all(models.Member, group_id=group.id)}
        assert members >= {agent(admin, one).id for one in joined}


def test_the_import_takes_no_text_that_the_form_would_refuse(admin: Admin, emil: Browser) -> None:
    person = {"name-0": "Yan", "staff-0": "7\u20288", "login-0": "yan", "agent-0": "", "take": "0"}
    emil.post("/p/acme/agents/import", **person)
    assert admin.all(models.Agent, name="Yan") == []
    emil.post("/p/acme/agents/import", **person | {"staff-0": "7"})
    assert agent(admin, "Yan").external_id == "7"


def test_the_import_says_why_the_staff_list_could_not_be_had(emil: Browser, ringostat: HTTPServer) -> None:
    ringostat.expect_request("/api/json-rpc").respond_with_data("no", status=401)
    page = emil.get("/p/acme/agents/import")
    assert page.status_code == 200
    assert "Auth-key" in page.text
    assert "acme-secret-key" not in page.text


def test_the_import_checks_again_what_was_posted(admin: Admin, emil: Browser) -> None:
    posted: dict[str, Any] = {"take": "1", "name-1": "Zoe", "staff-1": "9", "agent-1": "", "login-1": "acme_bob"}
    emil.post("/p/acme/agents/import", **posted)
    assert [login.login for login in agent(admin, "Zoe").sip_logins] == []  # Bob's login stays Bob's
    emil.post("/p/acme/agents/import", **(posted | {"name-1": "Yan", "agent-1": "99999"}))
    assert admin.all(models.Agent, name="Yan") == []


def test_an_agent_away_until_yesterday_is_shown_as_here(admin: Admin, emil: Browser, vira: Browser) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    emil.post(url(admin, "Carol"), **fields(admin, "Carol", away_until=yesterday))
    assert "away until" not in vira.get("/p/acme/agents").text


@pytest.mark.parametrize("until", ["2026-10-25T03:30+02:00", "2026-10-25T03:30+03:00", "2030-05-01T09:00:30+03:00"])
def test_a_leave_that_is_saved_untouched_ends_when_it_did(admin: Admin, emil: Browser, until: str) -> None:
    apply(admin.database, load(CONFIG.replace("2030-01-01", f'"{until}"'), {}), actor="test")
    shown = re.search(r'name="away_until"[^>]*value="([^"]*)"', emil.get(url(admin, "Carol")).text)
    assert shown is not None
    emil.post(url(admin, "Carol"), **fields(admin, "Carol", away_until=shown[1], wrap_up_seconds="7"))
    found = agent(admin, "Carol")
    assert (found.wrap_up_seconds, found.away_until) == (7, datetime.fromisoformat(until))
