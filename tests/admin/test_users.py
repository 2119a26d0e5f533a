"""Users: invited, changed, shut out, let in again; and never without an owner."""

from __future__ import annotations

import re
import threading

import pytest

from router.db import models
from tests.admin.conftest import PASSWORD, Admin, Browser


def id_of(admin: Admin, name: str) -> int:
    return admin.user(name).id


def test_lists_everybody_with_role_and_state(admin: Admin, olena: Browser) -> None:
    admin.add_user("ivan", "viewer", password_hash="")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", olena.get("/users").text))
    assert "Emil emil@example.org Active Editor" in text
    assert "Ivan ivan@example.org Invited Viewer" in text


def test_invites_with_a_link_that_is_shown_once(admin: Admin, olena: Browser) -> None:
    answer = olena.post("/users/new", email="Ivan@Example.org", name="Ivan", role="viewer")
    link = re.search(r'value="(http://127\.0\.0\.1:8000(/welcome/[\w-]+))"', answer.text)
    assert link, "with the address of this service in it"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "welcome/" not in olena.get("/users").text
    assert "welcome/" not in olena.get("/audit").text
    visitor = admin.browser()
    assert visitor.post(link[2], name="Ivan", password="a long sentence", again="a long sentence").status_code == 303
    assert visitor.get("/projects").status_code == 200
    assert visitor.get("/users").status_code == 403


def test_an_address_is_invited_once(admin: Admin, olena: Browser) -> None:
    answer = olena.post("/users/new", email="EMIL@example.org", name="Another", role="owner")
    assert answer.status_code == 422
    assert "is a user with this address already" in answer.text
    assert 'value="Another"' in answer.text
    assert admin.user("emil").role == "editor"


@pytest.mark.parametrize("email", ["", "emil", "a b@example.org", "x@y@z", "<i>@example.org"])
def test_refuses_what_is_no_address(admin: Admin, olena: Browser, email: str) -> None:
    assert olena.post("/users/new", email=email, role="viewer").status_code == 422
    assert len(admin.all(models.User)) == 3


@pytest.mark.parametrize("number", ["0", "77", "9223372036854775807", "99999999999999999999"])
def test_there_is_no_page_of_nobody(olena: Browser, number: str) -> None:
    assert olena.get(f"/users/{number}").status_code == 404
    assert olena.post(f"/users/{number}/disable").status_code in {404, 405}


def test_refuses_a_role_that_there_is_not(admin: Admin, olena: Browser) -> None:
    assert olena.post("/users/new", email="eve@example.org", role="root").status_code == 422
    assert olena.post(f"/users/{id_of(admin, 'emil')}", role="root", revision="1").status_code == 422
    assert {user.role for user in admin.all(models.User)} == {"owner", "editor", "viewer"}


def test_changes_a_role_and_says_so_in_the_audit_trail(admin: Admin, olena: Browser) -> None:
    answer = olena.post(f"/users/{id_of(admin, 'vira')}", name="Vira", role="editor", revision="1")
    assert answer.status_code == 303
    assert admin.user("vira").role == "editor"
    entry = admin.one(models.AuditEntry, action="changed", subject="user")
    assert (entry.actor, entry.before["role"], entry.after["role"]) == ("olena@example.org", "viewer", "editor")


def test_two_owners_who_edit_one_user_are_told_of_each_other(admin: Admin, olena: Browser) -> None:
    url = f"/users/{id_of(admin, 'vira')}"
    olena.post(url, name="Vira K.", role="viewer", revision="1")
    late = olena.post(url, name="Vira", role="owner", revision="1")
    assert late.status_code == 409
    assert "Vira K." in late.text
    assert admin.user("vira").role == "viewer"


def test_disables_at_once_and_enables_again(admin: Admin, olena: Browser, emil: Browser) -> None:
    olena.post(f"/users/{id_of(admin, 'emil')}/disable")
    assert emil.get("/projects").status_code == 302, "signed out"
    assert admin.browser().post("/sign-in", email="emil@example.org", password=PASSWORD).status_code == 422
    olena.post(f"/users/{id_of(admin, 'emil')}/enable")
    assert emil.get("/projects").status_code == 302, "the old session stays ended"
    assert admin.browser().post("/sign-in", email="emil@example.org", password=PASSWORD).status_code == 303
    assert [entry.action for entry in admin.all(models.AuditEntry, subject_name="emil@example.org")] == [
        "disabled", "sign_in_failed", "enabled", "signed_in",
    ]  # fmt: skip


def test_a_new_link_ends_the_one_before(admin: Admin, olena: Browser) -> None:
    url = f"/users/{id_of(admin, 'emil')}/link"
    first, second = (re.findall(r"/welcome/[\w-]+", olena.post(url).text)[0] for _ in range(2))
    assert admin.browser().get(first).status_code == 410
    assert admin.browser().get(second).status_code == 200


def test_there_is_no_link_for_somebody_disabled(admin: Admin, olena: Browser) -> None:
    olena.post(f"/users/{id_of(admin, 'emil')}/disable")
    answer = olena.post(f"/users/{id_of(admin, 'emil')}/link", follow=True)
    assert "Enable the account first." in answer.text
    assert admin.all(models.OneTimeLink) == []


# ---- the last owner


def test_the_last_owner_can_be_neither_disabled_nor_demoted(admin: Admin, olena: Browser) -> None:
    me = id_of(admin, "olena")
    assert "This is the last owner" in olena.post(f"/users/{me}/disable", follow=True).text
    answer = olena.post(f"/users/{me}", name="Olena", role="viewer", revision="1")
    assert answer.status_code == 422
    assert "This is the last owner" in answer.text
    assert (admin.user("olena").role, admin.user("olena").disabled_at) == ("owner", None)


def test_an_owner_who_cannot_sign_in_does_not_count(admin: Admin, olena: Browser) -> None:
    admin.add_user("ivan", "owner", password_hash="")
    admin.add_user("petro", "owner", disabled_at=admin.user("olena").created_at)
    olena.post(f"/users/{id_of(admin, 'olena')}/disable")
    assert admin.user("olena").disabled_at is None


def test_with_another_owner_one_may_go(admin: Admin, olena: Browser) -> None:
    admin.add_user("petro", "owner")
    olena.post(f"/users/{id_of(admin, 'olena')}/disable")
    assert admin.user("olena").disabled_at is not None
    assert olena.get("/projects").status_code == 302


def test_two_owners_who_shut_each_other_out_at_once_leave_one(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    admin.add_user("petro", "owner")
    both = {name: admin.browser(name) for name in ("olena", "petro")}
    ids = {"olena": id_of(admin, "petro"), "petro": id_of(admin, "olena")}
    threads = [
        threading.Thread(target=both[name].post, args=(f"/users/{target}/disable",)) for name, target in ids.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = admin.all(models.User, role="owner")
    assert len([owner for owner in owners if owner.disabled_at is None]) == 1
