"""Configurations that calls could not be routed by: refused when they would be published, told where they are."""

from __future__ import annotations

from html import unescape

import pytest
from sqlalchemy import select

from router.db import models
from tests.admin.conftest import Admin, Browser, shown_fields


@pytest.fixture(autouse=True)
def _sales(admin: Admin) -> None:
    admin.browser("emil").post("/p/acme/groups/new", name="sales", strategy="priority", ring_seconds="25")


def spoil(admin: Admin, *, published: bool) -> None:
    """As a hand in the database does, or another release."""
    with admin.database.writing() as session:
        group = session.get_one(models.Group, admin.one(models.Group).id)
        group.strategy = "of tomorrow"
        if published:
            project = admin.one(models.Project, name="acme")
            version = session.get_one(models.ConfigVersion, (project.id, project.version))
            groups = [row | {"strategy": "of tomorrow"} for row in version.document["groups"]]
            version.document = version.document | {"groups": groups}


def test_a_form_that_would_publish_it_is_refused_and_says_what_to_mend(admin: Admin, emil: Browser) -> None:
    spoil(admin, published=False)
    answer = emil.post("/p/acme/agents/new", name="Ann", sip_logins="ann", wrap_up_seconds="0")
    assert answer.status_code == 422
    assert "Not saved" in answer.text
    assert "group 'sales': there is no strategy 'of tomorrow'" in unescape(answer.text)
    assert admin.all(models.Agent) == []
    assert "is added" not in emil.get("/p/acme/agents").text


def test_the_form_of_what_is_wrong_mends_it(admin: Admin, emil: Browser) -> None:
    spoil(admin, published=True)
    url = f"/p/acme/groups/{admin.one(models.Group).id}"
    assert emil.post(url, **shown_fields(emil.get(url).text) | {"strategy": "random"}).status_code == 303
    assert "the newest one has a fault" not in emil.get("/p/acme/board").text


def test_the_form_of_what_no_version_in_use_has_can_be_opened(admin: Admin, emil: Browser) -> None:
    emil.post("/p/acme/agents/new", name="Ann", sip_logins="ann", wrap_up_seconds="0")
    with admin.database.writing() as session:
        for version in session.scalars(select(models.ConfigVersion).where(models.ConfigVersion.version > 1)):
            version.document = {}
    for page in ("agents", "groups"):
        assert emil.get(f"/p/acme/{page}/1").status_code == 200


def test_where_no_version_can_be_built_the_pages_are_there_to_mend_it(admin: Admin, emil: Browser) -> None:
    spoil(admin, published=False)
    with admin.database.writing() as session:
        for version in session.scalars(select(models.ConfigVersion)):
            version.document = {}
    url = f"/p/acme/groups/{admin.one(models.Group).id}"
    for page in ("/p/acme/board", "/p/acme/rules", "/p/acme/groups", "/p/acme/agents", "/p/acme/settings", url):
        assert emil.get(page).status_code == 200
    assert emil.post(url, **shown_fields(emil.get(url).text) | {"strategy": "random"}).status_code == 303
    assert "the newest one has a fault" not in emil.get("/p/acme/board").text


@pytest.mark.parametrize("page", ["board", "rules", "agents", "groups", "schedules", "hook"])
def test_pages_say_that_calls_go_by_an_older_version(admin: Admin, vira: Browser, page: str) -> None:
    spoil(admin, published=True)
    told = unescape(vira.get(f"/p/acme/{page}").text)
    assert told.count("the newest one has a fault") == 1
    assert "group 'sales': there is no strategy 'of tomorrow'" in told


def test_a_board_that_is_open_learns_of_it(admin: Admin, vira: Browser) -> None:
    seen = vira.get("/p/acme/board").text.partition('name="seen" value="')[2].partition('"')[0]
    assert "the newest one has a fault" not in vira.get("/p/acme/board/live", query_string={"seen": seen}).text
    with admin.database.writing() as session:
        session.get_one(models.Project, admin.one(models.Project, name="acme").id).version += 1
    news = vira.get("/p/acme/board/live", query_string={"seen": seen}).text
    assert 'hx-target="#board-fault"' in news
    assert "the newest one has a fault" in news
