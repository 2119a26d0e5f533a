"""What a file may say, its form saves as it is: opened and saved untouched, no form changes anything or complains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import phonenumbers
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from router.admin.views.settings import PARTS
from router.configuration import ConfigFileError, apply, load
from router.db import models
from router.db.documents import Document, load_document
from tests.admin.conftest import PEOPLE, Admin, Browser
from tests.admin.test_projects import address_of
from tests.configuration.test_exporting import escaped, projects

COUNTRIES = sorted(phonenumbers.SUPPORTED_REGIONS)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """One for all examples: each is applied over the one before."""
    path: Path = tmp_path_factory.mktemp("forms") / "router.db"
    with closing(Admin(f"sqlite+pysqlite:///{path}")) as made:
        models.Base.metadata.create_all(made.database.engine)
        for name, role in PEOPLE.items():
            made.add_user(name, role)
        yield made


@pytest.fixture(scope="module")
def olena(admin: Admin) -> Browser:
    return admin.browser("olena")


class _Form(HTMLParser):
    """What a browser posts of the page's form (the one with data-guard) as it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: list[tuple[str, str]] = []
        self._inside = False
        self._template = 0
        self._select: tuple[str, list[tuple[str | None, bool, str]]] | None = None
        self._text: list[str] | None = None
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self._inside = "data-guard" in given
        elif tag == "template":
            self._template += 1
        if not self._inside or self._template:
            return
        name = given.get("name") or ""
        if tag == "input" and name:
            kind = given.get("type") or "text"
            if kind not in ("radio", "checkbox", "submit", "button") or "checked" in given:
                value = given.get("value")
                self.fields.append((name, "on" if value is None and kind == "checkbox" else value or ""))
        elif tag == "select" and name:
            self._select = (name, [])
        elif tag == "option" and self._select:
            self._select[1].append((given.get("value"), "selected" in given, ""))
            self._text = []
        elif tag == "textarea" and name:
            self._area, self._text = name, []

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        (text,) = ["".join(self._text)] if self._text is not None else [""]
        if tag == "template":
            self._template -= 1
        elif tag == "form":
            self._inside = False
        elif tag == "option" and self._select and self._text is not None:
            value, is_selected, _text = self._select[1].pop()
            self._select[1].append((" ".join(text.split()) if value is None else value, is_selected, text))
            self._text = None
        elif tag == "select" and self._select:
            name, options = self._select
            chosen = [value for value, is_selected, _text in options if is_selected] or [o[0] for o in options[:1]]
            self.fields += [(name, value or "") for value in chosen[-1:]]
            self._select = None
        elif tag == "textarea" and self._area:
            self.fields.append((self._area, text.removeprefix("\n").replace("\n", "\r\n")))
            self._area, self._text = "", None


def posted(page: str) -> dict[str, list[str]]:
    form = _Form()
    form.feed(page)
    found: dict[str, list[str]] = {}
    for name, value in form.fields:
        found.setdefault(name, []).append(value)
    found.pop("csrf_token", None)
    return found


def published(admin: Admin) -> tuple[int, Document]:
    with admin.database.reading() as session:
        project = session.scalars(select(models.Project)).one()
        found = load_document(session, project.id, project.version)
    assert found is not None
    return project.version, found


def forms(document: Document) -> list[str]:
    kinds = {"agents": "agents", "groups": "groups", "rules": "rules", "schedules": "schedules"}
    rows = (f"{page}/{row['id']}" for kind, page in kinds.items() for row in document[kind])
    return [*(address_of(part).removeprefix("/p/acme/") for part in PARTS), *rows]


def check_all(admin: Admin, browser: Browser) -> None:
    """Open every form and save it untouched, twice."""
    before = published(admin)
    for form in forms(before[1]):
        page = f"/p/acme/{form}"
        for _ in range(2):
            answer = browser.post(page, **posted(browser.get(page).text))
            assert answer.status_code == 303, (page, answer.text)
            assert published(admin) == before, page


def project(**words: Any) -> dict[str, Any]:
    return {"name": "acme", "overflow": "", **words}


def applied(admin: Admin, words: dict[str, Any]) -> None:
    apply(admin.database, load(yaml.safe_dump(escaped({"projects": [words]}), allow_unicode=True), {}))


def test_foreign_numbers_stay_what_they_are(admin: Admin, olena: Browser) -> None:
    numbers = ["+4915112345678", "+49151*", "+4915112345678-+4915112345688", "+380441112233", "101", "anonymous"]
    applied(
        admin,
        project(
            country="DE",
            overflow="+4915112345678",
            groups=[{"name": "sales", "overflow": "+4915112345678"}],
            rules=[{"name": "VIP", "overflow": "+15112345678", "when": {"caller": numbers, "not_dialed": numbers}}],
        ),
    )
    check_all(admin, olena)
    when = published(admin)[1]["rules"][0]["when"]
    assert when["caller"][0] == "4915112345678"


def test_a_change_of_country_leaves_the_overflow_alone(admin: Admin, olena: Browser) -> None:
    applied(admin, project(country="UA", overflow="044 111 22 33"))
    for country in ("DE", "US", "UA", "KZ"):
        fields = posted(olena.get("/p/acme/settings").text) | {"country": country}
        assert olena.post("/p/acme/settings", **fields).status_code == 303
        assert (published(admin)[1]["project"]["country"], published(admin)[1]["project"]["overflow"]) == (
            country,
            "380441112233",
        )


@pytest.mark.parametrize(
    "words",
    [
        {"hook": {"retry_seconds": 12.3456789, "fields": {"caller": ["a: b", "x y"]}}},
        {"hook": {"allow_addresses": ["10.0.0.5/8", "2001:DB8::1"]}, "cool_down_seconds": 86399.123},
        {"agents": [{"name": "Ann", "wrap_up_seconds": 1234.567, "away_until": "2026-10-25T03:30:07+02:00"}]},
        {
            "agents": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
            "groups": [
                {"name": "x", "members": [{"agent": "a", "tier": 3}, {"agent": "b"}, {"agent": "c", "tier": 2}]}
            ],
        },
        {
            "groups": [{"name": "two  spaces"}],
            "schedules": [{"name": "a  b", "open": {"mon": ["9:00-10:00"]}}],
            "rules": [
                {
                    "name": "r",
                    "when": {
                        "free": {"group": "two  spaces", "fewer_than": 2},
                        "schedule": "a  b",
                        "params": {"x": ["a*", "b", "c*", "*", '"q', "a,b", 'a"b', "*d*", "b"], "y": "  z "},
                        "not_params": {"x": ["a b"]},
                        "direction": ["IN", "in", "call,back"],
                        "caller": ["ann,bob", 'a"b', "050*", "agent_" * 21 + "ab"],
                    },
                }
            ],
        },
    ],
)  # fmt: skip
def test_what_a_file_may_say_its_form_saves_as_it_is(admin: Admin, olena: Browser, words: dict[str, Any]) -> None:
    applied(admin, project(**words))
    check_all(admin, olena)


def test_members_whose_tier_was_changed_stay_where_they_are_shown(admin: Admin, olena: Browser) -> None:
    agents = [{"name": name} for name in "abc"]
    applied(admin, project(agents=agents, groups=[{"name": "x", "members": [{"agent": name} for name in "abc"]}]))
    page = f"/p/acme/groups/{published(admin)[1]['groups'][0]['id']}"
    fields = posted(olena.get(page).text)
    assert olena.post(page, **fields | {"members-0-tier": "3"}).status_code == 303
    check_all(admin, olena)


@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(words=projects(), country=st.sampled_from(COUNTRIES))
def test_whatever_a_file_may_say_its_form_saves_as_it_is(
    admin: Admin, olena: Browser, words: dict[str, Any], country: str
) -> None:
    try:
        applied(admin, words | {"country": country})
    except ConfigFileError:
        assume(False)
    check_all(admin, olena)
