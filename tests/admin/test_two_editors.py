"""Two edit the same: what only one of them changed is kept, whoever saves last; what both changed is asked about."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from router.db import models
from tests.admin.conftest import Admin, Browser, shown_fields
from tests.admin.day import Day
from tests.admin.test_projects import fields_of as settings_of
from tests.admin.test_projects import save

KINDS: dict[str, tuple[Any, str, dict[str, Any], dict[str, Any]]] = {
    "agents": (models.Agent, "Alice", {"name": "Alice Renamed"}, {"staff_id": "42"}),
    "groups": (models.Group, "sales", {"name": "sales renamed"}, {"ring_seconds": "44"}),
    "rules": (models.Rule, "VIP", {"name": "VIP renamed"}, {"prefer_days": "7"}),
    "schedules": (models.Schedule, "office hours", {"name": "hours renamed"}, {"sat": "10:00-12:00"}),
}


def fields_of(browser: Browser, url: str) -> dict[str, Any]:
    return shown_fields(browser.get(url).text)


@pytest.fixture
def day(admin: Admin) -> Day:
    return Day(admin)


def url_of(day: Day, kind: str) -> str:
    model, name, *_ = KINDS[kind]
    return f"/p/acme/{kind}/{day.admin.one(model, name=name, project_id=day.project_id).id}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_reverts_nothing_that_they_did_not_touch(day: Day, olena: Browser, emil: Browser, kind: str) -> None:
    model, _name, theirs, mine = KINDS[kind]
    url = url_of(day, kind)
    opened = fields_of(emil, url)
    assert olena.post(url, **fields_of(olena, url) | theirs).status_code == 303
    assert emil.post(url, **opened | mine).status_code == 303
    row = day.admin.one(model, id=int(url.rpartition("/")[2]))
    assert row.name == theirs["name"]
    shown = fields_of(emil, url)
    for name, text in mine.items():
        assert shown[name] == [text]


@pytest.mark.parametrize("kind", KINDS)
def test_what_both_changed_is_asked_about_and_nothing_else(day: Day, olena: Browser, emil: Browser, kind: str) -> None:
    model, _name, theirs, more = KINDS[kind]
    url = url_of(day, kind)
    opened = fields_of(emil, url)
    assert olena.post(url, **fields_of(olena, url) | theirs | more).status_code == 303
    refused = emil.post(url, **opened | {"name": "mine"})
    assert refused.status_code == 409
    table = unescape(refused.text).partition("saved this while you were editing")[2].partition("</table>")[0]
    assert table.count("<tr>") == 2, "its head and the name"
    assert theirs["name"] in table
    again = shown_fields(refused.text)
    revision = day.admin.one(model, id=int(url.rpartition("/")[2])).revision
    assert emil.post(url, **again, overwrite=str(revision)).status_code == 303
    assert day.admin.one(model, id=int(url.rpartition("/")[2])).name == "mine"
    shown = fields_of(emil, url)
    for name, text in more.items():
        assert shown[name] == [text], "what only the other one changed is theirs, also then"


@pytest.mark.parametrize(
    ("kind", "theirs", "mine", "words"),
    [
        (
            "agents",
            {"away_from": "2027-01-10T14:00", "away_until": "2027-01-12T18:00"},
            {"away_from": "2027-01-11T15:00", "away_until": "2027-01-12T18:00"},
            ["2027-01-10 14:00", "2027-01-11 15:00"],
        ),
        (
            "rules",
            {"conditions-0-kind": "caller", "conditions-0-op": "is_not", "conditions-0-value": "380501112233"},
            {"conditions-0-kind": "called_before", "conditions-0-name": "days", "conditions-0-value": "2"},
            ["Хто дзвонить: не дорівнює 380501112233", "Телефонував раніше: "],
        ),
    ],
)
def test_both_values_are_shown_in_the_words_of_the_page(
    day: Day, olena: Browser, emil: Browser, kind: str, theirs: dict[str, str], mine: dict[str, str], words: list[str]
) -> None:
    emil.client.set_cookie("language", "uk")
    url = url_of(day, kind)
    opened = {name: value for name, value in fields_of(emil, url).items() if not name.startswith("conditions-")}
    assert olena.post(url, **opened | theirs).status_code == 303
    refused = emil.post(url, **opened | mine)
    assert refused.status_code == 409
    table = unescape(refused.text).partition('name="keep-')[2].partition("</table>")[0]
    for text in words:
        assert text in table
    assert 'aria-label="' in table


def test_more_names_for_fields_are_shown_as_they_are_typed(admin: Admin, olena: Browser, emil: Browser) -> None:
    url = "/p/acme/settings/hook"
    opened, theirs = settings_of(emil, url), settings_of(olena, url)
    assert olena.post(url, **theirs | {"hook_fields": "caller: cli\ndialed: dnis"}).status_code == 303
    refused = emil.post(url, **opened | {"hook_fields": "caller: ani"})
    assert refused.status_code == 409
    assert "caller: cli; dialed: dnis" in refused.text


def test_the_same_change_by_both_is_no_conflict(day: Day, olena: Browser, emil: Browser) -> None:
    url = url_of(day, "agents")
    opened = fields_of(emil, url)
    olena.post(url, **fields_of(olena, url) | {"name": "Alice S."})
    assert emil.post(url, **opened | {"name": "Alice S.", "daily_cap": "9"}).status_code == 303


def test_members_that_somebody_else_added_stay(day: Day, olena: Browser, emil: Browser) -> None:
    url = url_of(day, "groups")
    opened = fields_of(emil, url)
    last = max(name for name in opened if name.endswith("-agent")).removesuffix("agent")
    fewer = {name: value for name, value in fields_of(olena, url).items() if not name.startswith(last)}
    assert olena.post(url, **fewer).status_code == 303
    assert emil.post(url, **opened | {"name": "renamed by emil"}).status_code == 303
    assert len(day.admin.all(models.Member, group_id=int(url.rpartition("/")[2]))) == 3


def test_settings_are_merged_field_by_field(admin: Admin, olena: Browser, emil: Browser) -> None:
    opened, hook = settings_of(emil), settings_of(emil, "/p/acme/settings/hook")
    assert save(olena, country="PL", name="Acme Ltd").status_code == 303
    assert emil.post("/p/Acme%20Ltd/settings", **opened | {"time_zone": "Europe/Paris"}).status_code == 303
    assert emil.post("/p/Acme%20Ltd/settings/hook", **hook | {"hook_key": "where_to"}).status_code == 303
    project = admin.one(models.Project, id=1)
    assert (project.name, project.country, project.time_zone) == ("Acme Ltd", "PL", "Europe/Paris")
    assert project.hook_key == "where_to"


def test_a_form_that_was_open_when_the_project_was_renamed_is_saved(admin_everywhere: Admin) -> None:
    olena, emil = admin_everywhere.browser("olena"), admin_everywhere.browser("emil")
    opened = settings_of(emil)
    new = shown_fields(emil.get("/p/acme/agents/new").text)
    assert save(olena, name="acme / Kyiv").status_code == 303
    assert emil.post("/p/acme/settings", **opened | {"overflow": "reception"}).status_code == 303
    assert emil.post("/p/acme/agents/new", **new | {"name": "Zoe"}).status_code == 303
    project = admin_everywhere.one(models.Project, overflow="reception")
    assert project.name == "acme / Kyiv"
    assert admin_everywhere.one(models.Agent, name="Zoe").project_id == project.id
    assert emil.get("/p/acme/board").status_code == 200
    assert emil.get("/p/nobodys/board").status_code == 404


def test_a_users_role_is_not_set_back_by_who_renames_them(admin: Admin, olena: Browser) -> None:
    url = f"/users/{admin.user('vira').id}"
    opened = fields_of(olena, url)
    assert olena.post(url, **fields_of(olena, url) | {"role": "editor"}).status_code == 303
    assert olena.post(url, **opened | {"name": "Vira K."}).status_code == 303
    user = admin.user("vira")
    assert (user.name, user.role) == ("Vira K.", "editor")


def test_an_untouched_form_changes_nothing_whatever_others_did(day: Day, olena: Browser, emil: Browser) -> None:
    for kind, (_model, _name, theirs, more) in KINDS.items():
        url = url_of(day, kind)
        opened = fields_of(emil, url)
        olena.post(url, **fields_of(olena, url) | theirs | more)
        after = fields_of(olena, url)
        assert emil.post(url, **opened).status_code == 303, kind
        now = fields_of(olena, url)
        for fields in (after, now):
            fields.pop("revision"), fields.pop("revision_marks")
        assert now == after, kind
