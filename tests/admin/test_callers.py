"""One caller's data by form: owners give it out and erase it, and it is written down that they did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from router.configuration.change import change
from router.db import models
from tests.admin.conftest import Admin, Browser
from tests.rows import publish

CALLER = "380501112233"
PAGE = "/p/acme/caller"


def add_call(admin: Admin, call_id: str, caller: str = CALLER, project: str = "acme") -> None:
    asked = {"caller": caller, "direction": "in", "params": {"name": "Ivan the caller"}}
    with admin.database.writing() as session:
        session.add(
            models.Decision(
                project_id=admin.one(models.Project, name=project).id, call_id=call_id, step="", caller=caller,
                asked_at=datetime.now(UTC), dialed="", destination="101", result="overflow", config_version=1,
                latency_us=1, record={"call": asked, "received": {"body": f"caller={caller}"}},
            )
        )  # fmt: skip


@pytest.fixture
def called(admin: Admin) -> Admin:
    """Two calls of the caller, one of somebody else, one of the caller to another project."""
    for values in (("1",), ("2",), ("3", "380671112233"), ("4", CALLER, "globex")):
        add_call(admin, *values)
    return admin


def entries(admin: Admin) -> list[tuple[str, str, Any]]:
    return [(row.action, row.subject_name, row.after) for row in admin.all(models.AuditEntry, subject="caller")]


def test_settings_lead_owners_there(olena: Browser, emil: Browser) -> None:
    assert f'href="{PAGE}"' in olena.get("/p/acme/settings/privacy").text
    assert f'href="{PAGE}"' not in emil.get("/p/acme/settings/privacy").text


@pytest.mark.parametrize("name", ["emil", "vira", ""])
@pytest.mark.parametrize("deed", ["export", "erase"])
def test_a_request_made_by_hand_is_worth_nothing_without_the_role(called: Admin, name: str, deed: str) -> None:
    answer = called.browser(name).post(f"{PAGE}/{deed}", number=CALLER, erased=CALLER, again=CALLER)
    assert answer.status_code == (403 if name else 401)
    assert "Ivan" not in answer.text
    assert len(called.all(models.Decision, caller=CALLER)) == 3
    assert entries(called) == []


@pytest.mark.parametrize("notation", ["050 111 22 33", "+380501112233"])
def test_an_owner_gets_all_that_this_project_keeps_as_a_file(called: Admin, olena: Browser, notation: str) -> None:
    answer = olena.post(f"{PAGE}/export", number=notation)
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == 'attachment; filename="caller.json"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    rows = answer.get_json()
    assert [(row["call_id"], row["params"]["name"]) for row in rows] == [(n, "Ivan the caller") for n in "12"]
    assert entries(called) == [("exported", "38050***33", None)]


def test_of_a_stranger_the_file_is_an_empty_list(called: Admin, olena: Browser) -> None:
    assert olena.post(f"{PAGE}/export", number="+380990000000").get_json() == []


def test_an_owner_erases_by_typing_the_number_twice(called: Admin, olena: Browser) -> None:
    page = olena.post(f"{PAGE}/erase", erased="0501112233", again="+380501112233", follow=True)
    assert "Erased from 2 calls and 0 refused requests." in page.text
    kept = called.all(models.Decision)
    assert [row.caller for row in kept] == ["", "", "380671112233", CALLER]
    assert ["Ivan" in str(row.record) for row in kept] == [False, False, True, True]
    assert entries(called) == [("erased", "38050***33", {"calls": 2, "refused_requests": 0, "logged_talks": 0})]
    assert "erased the data of the caller" in olena.get("/audit").text


@pytest.mark.parametrize("again", ["", "0501112234"])
def test_nothing_is_erased_unless_it_is_confirmed(called: Admin, olena: Browser, again: str) -> None:
    answer = olena.post(f"{PAGE}/erase", erased=CALLER, again=again)
    assert answer.status_code == 422
    assert "Type the one to erase once more" in answer.text
    assert len(called.all(models.Decision, caller=CALLER)) == 3
    assert entries(called) == []


@pytest.mark.parametrize("typed", ["", "anonymous", "  ", "0" * 101])
@pytest.mark.parametrize("deed", ["export", "erase"])
def test_what_is_nobodys_number_is_refused_beside_the_field(
    called: Admin, olena: Browser, deed: str, typed: str
) -> None:
    answer = olena.post(f"{PAGE}/{deed}", number=typed, erased=typed, again=typed)
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.text
    assert entries(called) == []


def test_a_rule_that_still_names_the_caller_is_told(called: Admin, olena: Browser) -> None:
    with called.database.writing() as session:
        project_id = called.one(models.Project, name="acme").id
        session.add(models.Rule(project_id=project_id, name="<b>VIP</b>", conditions={"caller": [CALLER]}))
        session.flush()
        publish(session, project_id, "test")
    page = olena.post(f"{PAGE}/erase", erased=CALLER, again=CALLER, follow=True)
    assert "The rule “&lt;b&gt;VIP&lt;/b&gt;” still names the number" in page.text


def test_a_test_that_still_names_the_caller_is_told(called: Admin, olena: Browser) -> None:
    with change(called.database, called.one(models.Project, name="acme").id, "test") as draft:
        call = {"caller": CALLER, "dialed": "", "direction": "", "params": {}, "at": "2026-12-01T10:00:00+00:00"}
        expect: dict[str, object] = {"rule": None, "groups": [], "agent": None, "overflow": "1"}
        draft.put("tests", {"name": "VIP", "call": call, "expect": expect})
        draft.accepts_failing = True
    page = olena.post(f"{PAGE}/erase", erased=CALLER, again=CALLER, follow=True)
    assert "The test “VIP” still names the number" in page.text
