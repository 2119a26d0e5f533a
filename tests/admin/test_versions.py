"""The pages of versions: what each changed, in words; compared, restored, commented."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from router.configuration import apply, load
from router.configuration.change import change
from router.db import models
from router.db.documents import load_document
from tests.admin.conftest import Admin, Browser
from tests.admin.test_undo import undo

OLD = """\
projects:
  - name: acme
    overflow: "100"
    agents: [{name: Ann}, {name: Bob}]
    groups: [{name: sales, members: [{agent: Ann}]}]
    rules: [{name: everyone, groups: [sales]}]
"""


@pytest.fixture
def acme(admin: Admin) -> int:
    """The project's id; it has three versions."""
    apply(admin.database, load(OLD, {}))
    new = OLD.replace("{name: Bob}", "{name: Bob, wrap_up_seconds: 7}").replace("{agent: Ann}", "{agent: Bob}")
    apply(admin.database, load(new, {}), comment="Ann goes home")
    project_id: int = admin.one(models.Project, name="acme").id
    with change(admin.database, project_id, "olena") as draft:
        draft.forget("agents", next(row["id"] for row in draft.document["agents"] if row["name"] == "Ann"))
    return project_id


def text_of(page: str) -> str:
    """The words of a page's main part."""
    main = page.partition("<main")[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]*>", " ", main).split())


def newest(admin: Admin, project_id: int) -> int:
    return int(admin.one(models.Project, id=project_id).version)


def test_lists_what_each_version_changed_by_whom_and_why(admin: Admin, acme: int, vira: Browser) -> None:
    with admin.database.writing() as session:
        given = {"caller": "1", "dialed": "2", "destination": "3", "result": "overflow", "latency_us": 1, "record": {}}
        of = {"project_id": acme, "step": "1", "asked_at": datetime.now(UTC), "config_version": newest(admin, acme)}
        session.add_all(models.Decision(call_id=call_id, **of, **given) for call_id in ("a", "b"))
    page = vira.get("/p/acme/versions").text
    rows = [text_of(f"<main {row}</main>") for row in page.split('<tr role="row">')[2:]]
    assert "olena" in rows[0]
    assert "deleted the agent Ann" in rows[0]
    assert "2 in use" in rows[0]
    assert "Ann goes home changed the agent Bob changed the group sales" in rows[1]
    assert len(rows) == newest(admin, acme)
    assert '<form method="post"' not in page.partition("<main")[2]


def test_pages_lead_to_older_versions(admin: Admin, acme: int, vira: Browser) -> None:
    for seconds in range(1, 23):
        with change(admin.database, acme, "test") as draft:
            draft.put_project({"cool_down_seconds": seconds})
    first = vira.get("/p/acme/versions").text
    (older,) = re.findall(r'rel="next" href="([^"]*)"', first)
    second = vira.get(older).text
    numbers = [int(n) for page in (first, second) for n in re.findall(r">Version (\d+)<", page)]
    assert numbers == [*range(newest(admin, acme), 0, -1)]
    assert 'rel="next"' not in second


def test_compares_any_two_in_words(admin: Admin, acme: int, vira: Browser) -> None:
    now = newest(admin, acme)
    alone = text_of(vira.get(f"/p/acme/versions/{now}").text)
    assert "deleted the agent Ann" in alone
    assert "Wrap-up" not in alone
    both = text_of(vira.get(f"/p/acme/versions/{now}?with={now - 2}").text)
    assert "changed the agent Bob" in both
    assert "Member Ann: was tier 1, weight 1" in both, "also the names of what is gone"
    assert "Nothing differs." in vira.get(f"/p/acme/versions/{now}?with={now}").text
    assert "cannot be compared" in vira.get(f"/p/acme/versions/{now}?with={now + 7}").text
    assert "added the project acme" in text_of(vira.get("/p/acme/versions/1").text)


def test_restores_a_version_which_can_be_undone(admin: Admin, acme: int, emil: Browser) -> None:
    now = newest(admin, acme)
    with admin.database.reading() as session:
        wanted, before = (load_document(session, acme, number) for number in (now - 2, now))
    after = emil.post(f"/p/acme/versions/{now - 2}/restore", follow=True).text
    assert f"Version {now - 2} is restored. Applies from the next call." in after
    assert f"Version {now - 2} restored" in text_of(after)
    with admin.database.reading() as session:
        assert load_document(session, acme, now + 1) == wanted
    undo(emil, after)
    with admin.database.reading() as session:
        assert load_document(session, acme, now + 2) == before


def test_a_restored_version_is_not_restored_again(admin: Admin, acme: int, emil: Browser) -> None:
    now = newest(admin, acme)
    assert "Nothing differs" in emil.post(f"/p/acme/versions/{now}/restore", follow=True).text
    assert newest(admin, acme) == now


def test_a_comment_is_stored(admin: Admin, acme: int, emil: Browser) -> None:
    page = emil.post("/p/acme/versions/1/comment", comment="  how it\tbegan ", follow=True).text
    assert "The comment is saved." in page
    assert "how it began" in text_of(emil.get("/p/acme/versions").text)
    assert "at most 200 characters" in emil.post("/p/acme/versions/1/comment", comment="x" * 201, follow=True).text
    assert admin.one(models.ConfigVersion, project_id=acme, version=1).comment == "how it began"


def test_a_version_that_was_pruned_is_said_to_be_and_one_that_never_was_is_not_found(
    admin: Admin, acme: int, emil: Browser
) -> None:
    with admin.database.writing() as session:
        session.delete(session.get_one(models.ConfigVersion, (acme, 2)))
    for answer in (
        emil.get("/p/acme/versions/2", follow_redirects=True),
        emil.post("/p/acme/versions/2/restore", follow=True),
        emil.post("/p/acme/versions/2/comment", comment="x", follow=True),
    ):
        assert "Version 2 is no longer stored" in answer.text
    assert emil.get("/p/acme/versions/99").status_code == 404
    assert emil.post("/p/acme/versions/99/restore").status_code == 404
