"""Ways back: whatever a project is called, signing in, undoing and switching the language lead to where one was."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.admin.security import safe_next
from router.db import models
from tests.admin.conftest import PASSWORD, Admin
from tests.rows import publish

NAMES = ["a b", "a/b", "100%", "%2F", "%20", "a+b", "?x=1", "#top", "a?b#c d", "Ромашка & Ко", "..", "a\\b",
         "//evil.example", "a;b=c", "'\"<i>"]  # fmt: skip
ANY_NAME = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1, max_size=20).map(
    str.strip
)
QUICKLY = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rename(admin: Admin, name: str) -> None:
    with admin.database.writing() as session:
        session.get_one(models.Project, 1).name = name
        publish(session, 1, "test")


def page_of(admin: Admin, endpoint: str, name: str, **values: Any) -> str:
    with admin.app.test_request_context():
        from flask import url_for

        return url_for(endpoint, project=name, **values)


def next_of(page: str) -> str:
    found = re.search(r'name="next" value="([^"]*)"', page)
    assert found is not None
    return unescape(found[1])


def undo_fields(page: str) -> dict[str, str]:
    """What the Undo button of this page posts."""
    form = page.partition('/undo"')[2].partition("</form>")[0]
    fields = {name: unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form)}
    del fields["csrf_token"]
    return fields


def check_ways_back(admin: Admin, name: str) -> None:
    rename(admin, name)
    url = page_of(admin, "admin.agents", name, q="a b&c=ü")
    nobody, emil = admin.browser(), admin.browser("emil")
    sent = nobody.get(url)
    assert sent.status_code == 302
    signed_in = nobody.post(sent.location, email="vira@example.org", password=PASSWORD)
    assert signed_in.location == url
    assert nobody.get(signed_in.location).status_code == 200
    switched = emil.post("/language", language="uk", next=next_of(emil.get(url).text))
    assert switched.location == url
    added = emil.post(page_of(admin, "admin.agent_add_login", name), login=["one"], follow=True).text
    undone = emil.post(page_of(admin, "admin.undo", name), **undo_fields(added))
    assert undone.location == page_of(admin, "admin.agents", name)


@pytest.mark.parametrize("name", NAMES)
def test_every_way_back_leads_back_whatever_the_project_is_called(admin: Admin, name: str) -> None:
    check_ways_back(admin, name)


@QUICKLY
@given(name=ANY_NAME.filter(bool))
def test_a_name_of_any_characters_is_no_obstacle(admin: Admin, name: str) -> None:
    rename(admin, name)
    url = page_of(admin, "admin.board", name)
    nobody = admin.browser()
    signed_in = nobody.post(nobody.get(url).location, email="vira@example.org", password=PASSWORD)
    assert signed_in.location == url
    assert nobody.get(url).status_code == 200


@pytest.mark.parametrize("name", ["acme", "a b", "a?b#c", "100%"])
def test_the_undo_button_leads_to_a_page_that_can_be_seen(admin: Admin, name: str) -> None:
    rename(admin, name)
    emil = admin.browser("emil")
    said = emil.post(page_of(admin, "admin.agent_add_login", name), login=["one"], follow=True).text
    fields = undo_fields(said)
    answer = emil.post(page_of(admin, "admin.undo", name), follow=True, **fields)
    assert answer.status_code == 200
    assert answer.request.path.endswith("/agents")
    assert "Undone." in answer.text


def test_a_way_back_with_blanks_is_taken_as_browsers_write_it() -> None:
    assert safe_next("/p/a b/agents?q=x y", "/otherwise") == "/p/a%20b/agents?q=x%20y"


@QUICKLY
@given(target=st.text(max_size=30) | st.text("/\\:@?#%.\t\nevil ", max_size=12).map(lambda text: f"/{text}"))
def test_no_way_back_leads_to_another_site(target: str) -> None:
    back = safe_next(target, "/otherwise")
    assert back.startswith("/")
    assert not back.startswith(("//", "/\\"))
    assert not urlsplit(back).netloc
    assert back.isascii()
    assert back.isprintable()
    assert " " not in back
