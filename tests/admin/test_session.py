"""Signing in and out, one-time links, one's own account."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from argon2 import PasswordHasher

from router.admin import auth
from router.db import models
from tests.admin.conftest import PASSWORD, REAL_HASHER, Admin, Browser, password_hash

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
WRONG = "not the password at all"


def sign_in(browser: Browser, password: str = PASSWORD, email: str = "olena@example.org", **options: Any) -> Any:
    token = browser.token
    data = {"csrf_token": token, "email": email, "password": password}
    return browser.client.post("/sign-in", data=data, **options)


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/projects").status_code == 200


def link_in(answer: Any) -> str:
    found = re.search(r"/welcome/[\w-]+", answer.text)
    assert found
    return found[0]


# ---- signing in


def test_signs_in_with_email_and_password(admin: Admin, nobody: Browser) -> None:
    answer = nobody.post("/sign-in", email=" Olena@Example.org ", password=PASSWORD)
    assert (answer.status_code, answer.location) == (303, "/")
    assert is_signed_in(nobody)
    assert admin.one(models.AuditEntry, action="signed_in").actor == "olena@example.org"


@pytest.mark.parametrize(
    ("email", "password"), [("olena@example.org", WRONG), ("olena@example.org", ""), ("who@example.org", PASSWORD)]
)
def test_never_says_which_of_the_two_was_wrong(nobody: Browser, email: str, password: str) -> None:
    answer = sign_in(nobody, password, email)
    assert answer.status_code == 422
    assert "Wrong email or password." in answer.text
    assert not is_signed_in(nobody)


@pytest.mark.parametrize("email", ["olena@example.org", "who@example.org", "ivan@example.org", "petro@example.org"])
def test_an_account_that_is_not_there_takes_as_long_as_one_that_is(
    admin: Admin, nobody: Browser, monkeypatch: pytest.MonkeyPatch, email: str
) -> None:
    admin.add_user("ivan", "viewer", password_hash="")  # invited
    admin.add_user("petro", "viewer", disabled_at=NOW)
    verified = []

    class Hasher:
        def verify(self, stored: str, password: str) -> bool:
            verified.append(stored.rpartition("$")[0].rpartition("$")[0])
            return cheap.verify(stored, password)

    cheap = auth._HASHER
    auth._random_hash()
    monkeypatch.setattr(auth, "_HASHER", Hasher())
    sign_in(nobody, WRONG, email)
    assert verified == [password_hash().rpartition("$")[0].rpartition("$")[0]], "each try costs the same work"


def test_passwords_cost_what_is_good_practice() -> None:
    assert REAL_HASHER.hash(PASSWORD).startswith("$argon2id$v=19$m=32768,t=3,p=1$")


def test_a_disabled_user_cannot_sign_in_with_the_right_password(admin: Admin, nobody: Browser) -> None:
    admin.add_user("petro", "viewer", disabled_at=NOW)
    assert sign_in(nobody, email="petro@example.org").status_code == 422


def test_goes_on_to_the_page_that_was_wanted(nobody: Browser) -> None:
    asked = nobody.get("/p/acme/settings?x=1")
    assert asked.location == "/sign-in?next=/p/acme/settings?x%3D1"
    answer = nobody.client.post(
        asked.location, data={"csrf_token": nobody.token, "email": "olena@example.org", "password": PASSWORD}
    )
    assert answer.location == "/p/acme/settings?x=1"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil", "/\t/evil"])
def test_never_leads_away_from_here(nobody: Browser, target: str) -> None:
    answer = nobody.client.post(
        "/sign-in",
        query_string={"next": target},
        data={"csrf_token": nobody.token, "email": "olena@example.org", "password": PASSWORD},
    )
    assert answer.location == "/"


def test_the_password_is_hashed_anew_when_the_cost_has_risen(admin: Admin, nobody: Browser) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    admin.add_user("ivan", "viewer", password_hash=weak)
    sign_in(nobody, email="ivan@example.org")
    assert admin.user("ivan").password_hash != weak
    assert sign_in(admin.browser(), email="ivan@example.org").status_code == 303


# ---- the throttle


def test_guesses_at_an_account_have_to_wait_longer_and_longer(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    stranger = {"REMOTE_ADDR": "203.0.113.7"}
    with time_machine.travel(NOW, tick=False) as clock:
        for _ in range(5):
            assert sign_in(admin.browser(), WRONG, environ_base=stranger).status_code == 422
        answer = sign_in(admin.browser(), PASSWORD, environ_base=stranger)
        assert answer.status_code == 429, "even the right password has to wait"
        waits = []
        for _ in range(12):
            with admin.app.app_context():
                attempt = auth.Attempt(admin.database, "olena@example.org", "203.0.113.7")
            waits.append(attempt.begin())
            clock.shift(waits[-1])
            assert not attempt.begin(), "that long and no longer"
        assert [wait.total_seconds() for wait in waits] == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


def guess_for_hours(admin: Admin, clock: Any, addresses: list[str]) -> None:
    """Whoever guesses never gives up, and waits no longer than they have to."""
    with admin.app.app_context():
        attempts = [auth.Attempt(admin.database, "olena@example.org", address) for address in addresses]
        for _ in range(12):
            clock.shift(max(attempt.begin() for attempt in attempts))
        again = [attempt.begin() for attempt in attempts for _ in range(2)]
        assert any(again), "they are at it still"


def test_a_strangers_guesses_do_not_lock_the_owner_out(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    with time_machine.travel(NOW, tick=False) as clock:
        guess_for_hours(admin, clock, ["203.0.113.7"])
        owner = sign_in(admin.browser(), environ_base={"REMOTE_ADDR": "198.51.100.1"})
        assert owner.status_code == 303, "from another address, in a new browser"


def test_guesses_from_everywhere_do_not_lock_the_owners_own_browser_out(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    known = admin.browser()
    with time_machine.travel(NOW, tick=False) as clock:
        assert sign_in(known).status_code == 303
        known.post("/sign-out")
        addresses = ["127.0.0.1", *(f"203.0.{number}.7" for number in range(30))]
        guess_for_hours(admin, clock, addresses)
        statuses = {
            sign_in(admin.browser(), environ_base={"REMOTE_ADDR": address}).status_code
            for address in ("127.0.0.1", "198.51.100.1")
        }
        assert statuses == {429}, "all addresses together are bounded too"
        assert sign_in(known).status_code == 303


def test_what_a_browser_is_known_by_lets_nobody_in_and_is_bounded_itself(admin: Admin) -> None:
    known = admin.browser()
    with time_machine.travel(NOW, tick=False):
        sign_in(known)
        known.post("/sign-out")
        statuses = [sign_in(known, WRONG).status_code for _ in range(7)]
        assert statuses == [422] * 5 + [429] * 2
        stolen = known.client.get_cookie("device")
        assert stolen is not None
        thief = admin.browser()
        thief.client.set_cookie("device", stolen.value)
        assert not is_signed_in(thief)
        assert sign_in(thief, WRONG).status_code == 429
        other = sign_in(thief, WRONG, "emil@example.org")
        assert other.status_code == 422, "it is of one account alone"


def test_a_made_up_device_is_no_known_one(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False):
        for number in range(5):
            browser = admin.browser()
            browser.client.set_cookie("device", f"made-up-{number}")
            assert sign_in(browser, WRONG).status_code == 422
        assert sign_in(admin.browser()).status_code == 429


@pytest.mark.parametrize("written", ["203.0.113.7:{port}", "[2001:db8:1:2::{port}]:{port}", "2001:db8:1:{port}00::1"])
def test_guesses_are_throttled_whatever_the_proxy_writes(migrated_sqlite_url: str, written: str) -> None:
    """A port that is another one each time, and a /48 full of networks, make no new address."""
    with closing(Admin(migrated_sqlite_url, PROXY_HOPS="1")) as admin, time_machine.travel(NOW, tick=False):
        statuses = [
            sign_in(
                admin.browser(),
                WRONG,
                f"user{number}@example.org",
                headers={"X-Forwarded-For": written.format(port=1000 + number)},
            ).status_code
            for number in range(110)
        ]
        assert set(statuses[:20]) == {422}
        assert statuses[-1] == 429


def test_unknown_accounts_are_throttled_like_known_ones(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False):
        answers = [
            [sign_in(admin.browser(), WRONG, email).status_code for _ in range(7)]
            for email in ("olena@example.org", "who@example.org")
        ]
    assert answers[0] == answers[1] == [422] * 5 + [429] * 2


def test_guesses_from_one_address_have_to_wait_whatever_the_account(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False):
        same_home = [{"REMOTE_ADDR": f"2001:db8:1:2::{number}"} for number in range(22)]
        statuses = [
            sign_in(admin.browser(), WRONG, f"user{number}@example.org", environ_base=remote).status_code
            for number, remote in enumerate(same_home)
        ]
        assert statuses == [422] * 20 + [429] * 2
        elsewhere = {"REMOTE_ADDR": "2001:db8:1:3::1"}
        assert sign_in(admin.browser(), environ_base=elsewhere).status_code == 303


def test_the_right_password_forgives_the_wrong_ones(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False):
        for _ in range(3):
            for _ in range(4):
                assert sign_in(admin.browser(), WRONG).status_code == 422
            assert sign_in(admin.browser()).status_code == 303


def test_many_guesses_at_once_gain_nothing(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    statuses: list[int] = []

    def guess() -> None:
        statuses.append(sign_in(admin.browser(), WRONG).status_code)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    with time_machine.travel(NOW, tick=False):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [422] * 5 + [429] * 7


def test_another_process_counts_the_same_guesses(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False):
        for _ in range(5):
            sign_in(admin.browser(), WRONG)
        with closing(Admin(admin.settings.database_url)) as twin:
            assert sign_in(twin.browser()).status_code == 429


def test_what_is_kept_of_guesses_names_nobody_and_goes_away(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        sign_in(admin.browser(), WRONG, "my-password-in-the-wrong-box")
        kept = repr([row.key for row in admin.all(models.SignInFailure)])
        assert "password" not in kept
        assert "127.0.0.1" not in kept
        clock.shift(timedelta(days=2))
        sign_in(admin.browser())
        assert admin.all(models.SignInFailure) == []


def test_failures_are_in_the_audit_trail_without_what_was_typed(admin: Admin) -> None:
    sign_in(admin.browser(), WRONG)
    sign_in(admin.browser(), WRONG, "my-password-in-the-wrong-box")
    known, unknown = admin.all(models.AuditEntry, action="sign_in_failed")
    assert (known.actor, known.after) == ("olena@example.org", {"address": "127.0.0.1"})
    assert (unknown.actor, unknown.subject_name, unknown.subject_id) == ("", "", None)


# ---- sessions


def test_signing_in_drops_whatever_session_was_there(admin: Admin, nobody: Browser) -> None:
    with nobody.client.session_transaction() as session:
        session.update(csrf_token="planted", seed="planted")
    sign_in(nobody)
    with nobody.client.session_transaction() as session:
        assert "seed" not in session
        assert session.get("csrf_token") != "planted"


def test_a_session_ends_when_it_is_not_used(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        browser = admin.browser("olena")
        clock.shift(auth.IDLE_LIFETIME - timedelta(minutes=1))
        assert is_signed_in(browser)
        clock.shift(auth.IDLE_LIFETIME - timedelta(minutes=1))
        assert is_signed_in(browser), "use has renewed it"
        clock.shift(auth.IDLE_LIFETIME + timedelta(minutes=1))
        assert not is_signed_in(browser)


def test_a_session_ends_in_any_case(admin: Admin) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        browser = admin.browser("olena")
        for _ in range(auth.SESSION_LIFETIME // timedelta(hours=8)):
            clock.shift(timedelta(hours=8))
            assert is_signed_in(browser)
        clock.shift(timedelta(minutes=1))
        assert not is_signed_in(browser)


def test_signs_out_of_this_browser_only(admin: Admin, olena: Browser) -> None:
    other = admin.browser("olena")
    assert olena.post("/sign-out").location == "/sign-in"
    assert not is_signed_in(olena)
    assert is_signed_in(other)


def test_signs_out_everywhere(admin: Admin, olena: Browser) -> None:
    other = admin.browser("olena")
    olena.post("/account/sign-out-everywhere")
    assert not is_signed_in(olena)
    assert not is_signed_in(other)
    assert sign_in(other).status_code == 303


def copy_of(admin: Admin, browser: Browser) -> Browser:
    """Somebody else with the same cookie."""
    cookie = browser.client.get_cookie("session")
    assert cookie is not None
    thief = admin.browser()
    thief.client.set_cookie("session", cookie.value)
    return thief


def test_a_copied_cookie_is_worth_nothing_after_signing_out(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    olena, other = admin.browser(), admin.browser()
    for browser in (olena, other):
        assert sign_in(browser).status_code == 303
    thief = copy_of(admin, olena)
    assert is_signed_in(thief)
    olena.post("/sign-out")
    assert not is_signed_in(thief)
    assert thief.get("/users").location.startswith("/sign-in")
    assert is_signed_in(other), "the other browser's session is another one"
    with closing(Admin(admin.settings.database_url)) as twin:
        assert is_signed_in(copy_of(twin, other)), "in every process alike"


@pytest.mark.parametrize("deed", ["everywhere", "password", "disabled"])
def test_a_copied_cookie_is_worth_nothing_after(admin: Admin, olena: Browser, deed: str) -> None:
    emil = admin.browser()
    sign_in(emil, email="emil@example.org")
    thief = copy_of(admin, emil)
    assert is_signed_in(thief)
    if deed == "everywhere":
        emil.post("/account/sign-out-everywhere")
    elif deed == "password":
        emil.post("/account", current=PASSWORD, password="another sentence", again="another sentence")
        assert is_signed_in(emil)
    else:
        olena.post(f"/users/{admin.user('emil').id}/disable")
    assert not is_signed_in(thief)


def test_a_role_that_was_taken_away_is_gone_from_every_copy_at_once(admin: Admin, olena: Browser) -> None:
    emil = admin.browser()
    sign_in(emil, email="emil@example.org")
    thief = copy_of(admin, emil)
    assert thief.get("/p/acme/agents/new").status_code == 200
    olena.post(f"/users/{admin.user('emil').id}", revision=str(admin.user("emil").revision), name="Emil", role="viewer")
    assert admin.user("emil").role == "viewer"
    assert thief.get("/p/acme/agents/new").status_code == 403


def test_signing_out_of_a_session_of_the_release_before_ends_all_of_them(admin: Admin) -> None:
    old = admin.browser("olena")
    with old.client.session_transaction() as session:
        del session["id"]
    thief = copy_of(admin, old)
    old.post("/sign-out")
    assert not is_signed_in(thief)


def test_a_cookie_that_was_changed_is_worth_nothing(admin: Admin, vira: Browser) -> None:
    forged = admin.session_cookie("vira")[:-3] + "abc"
    vira.client.set_cookie("session", forged)
    assert not is_signed_in(vira)


# ---- one-time links


@pytest.fixture
def empty(migrated_url: str) -> Iterator[Admin]:
    """Nobody has an account yet."""
    with closing(Admin(migrated_url)) as made:
        yield made


OWNER = {"email": "Ann@example.org", "name": "Ann", "password": "a long sentence", "again": "a long sentence"}


def test_the_first_owner_comes_in_by_a_link(empty: Admin) -> None:
    link = auth.first_owner_link(empty.database, "https://router.example.org")
    assert link is not None
    assert link.startswith("https://router.example.org/welcome/")
    path = link.removeprefix("https://router.example.org")
    browser = empty.browser()
    assert browser.get(path).status_code == 200
    assert browser.get(path).status_code == 200, "looking at it does not use it up"
    assert browser.post(path, **OWNER).status_code == 303
    assert is_signed_in(browser)
    assert (empty.user("ann").role, empty.user("ann").name) == ("owner", "Ann")
    assert sign_in(empty.browser(), "a long sentence", "ann@example.org").status_code == 303


def test_only_the_hash_of_a_link_is_kept(empty: Admin) -> None:
    link = str(auth.first_owner_link(empty.database, ""))
    kept = empty.one(models.OneTimeLink)
    assert kept.token_hash not in link
    assert link.removeprefix("/welcome/") not in repr(vars(kept))


def test_a_link_works_once(empty: Admin) -> None:
    path = str(auth.first_owner_link(empty.database, ""))
    assert empty.browser().post(path, **OWNER).status_code == 303
    late = empty.browser()
    assert late.get(path).status_code == 410
    assert late.post(path, **OWNER | {"email": "eve@example.org"}).status_code == 410
    assert len(empty.all(models.User)) == 1


def test_a_link_ends_after_a_day(empty: Admin) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        path = str(auth.first_owner_link(empty.database, ""))
        clock.shift(timedelta(hours=23))
        assert empty.browser().get(path).status_code == 200
        clock.shift(timedelta(hours=1))
        assert empty.browser().get(path).status_code == 410


def test_each_start_makes_a_link_until_there_is_an_owner(empty: Admin) -> None:
    first, second = (str(auth.first_owner_link(empty.database, "")) for _ in range(2))
    assert first != second
    assert empty.browser().get(first).status_code == 200
    empty.browser().post(second, **OWNER)
    assert auth.first_owner_link(empty.database, "") is None
    assert empty.browser().get(first).status_code == 410, "the others die with the first that is used"


def test_two_links_used_at_once_make_one_owner(empty: Admin) -> None:
    paths = [str(auth.first_owner_link(empty.database, "")) for _ in range(4)]
    statuses: list[int] = []

    def use(number: int) -> None:
        answer = empty.browser().post(paths[number], **OWNER | {"email": f"user{number}@example.org"})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303, 410, 410, 410]
    assert len(empty.all(models.User)) == 1


def test_an_owner_who_never_chose_a_password_is_no_owner_yet(empty: Admin) -> None:
    empty.add_user("olena", "owner", password_hash="")
    assert auth.first_owner_link(empty.database, "") is not None


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("short", "Too short"),
        ("a" * 30, "more different characters"),
        ("ann@example.org", "it is your address"),
        ("x1y2z" * 60, "Too long"),
    ],
)
def test_a_weak_password_is_refused_beside_the_field(empty: Admin, password: str, says: str) -> None:
    path = str(auth.first_owner_link(empty.database, ""))
    answer = empty.browser().post(path, **OWNER | {"password": password, "again": password})
    assert answer.status_code == 422
    assert says in answer.text
    assert 'value="Ann"' in answer.text, "what was typed stays"
    boxes = re.findall(r'<input[^>]* type="password"[^>]*>', answer.text)
    assert len(boxes) == 2
    assert not any(password in box for box in boxes)
    assert empty.all(models.User) == []


def test_a_made_up_link_is_no_link(nobody: Browser) -> None:
    assert nobody.get("/welcome/abc").status_code == 410


def test_a_link_for_a_new_password_ends_all_sessions(admin: Admin, olena: Browser, emil: Browser) -> None:
    path = link_in(olena.post(f"/users/{admin.user('emil').id}/link"))
    visitor = admin.browser()
    assert "A new password" in visitor.get(path).text
    fields = {"name": "Emil", "password": "another sentence", "again": "another sentence"}
    assert visitor.post(path, **fields).status_code == 303
    assert is_signed_in(visitor)
    assert not is_signed_in(emil)
    assert sign_in(admin.browser(), PASSWORD, "emil@example.org").status_code == 422
    assert sign_in(admin.browser(), "another sentence", "emil@example.org").status_code == 303


def test_the_link_of_somebody_disabled_does_not_work(admin: Admin, olena: Browser) -> None:
    path = link_in(olena.post(f"/users/{admin.user('emil').id}/link"))
    olena.post(f"/users/{admin.user('emil').id}/disable")
    assert admin.browser().get(path).status_code == 410


def test_enabling_somebody_revives_no_link_of_before(admin: Admin, olena: Browser) -> None:
    path = link_in(olena.post(f"/users/{admin.user('emil').id}/link"))
    olena.post(f"/users/{admin.user('emil').id}/disable")
    olena.post(f"/users/{admin.user('emil').id}/enable")
    fields = {"name": "Eve", "password": "another sentence", "again": "another sentence"}
    assert admin.browser().get(path).status_code == 410
    assert admin.browser().post(path, **fields).status_code == 410
    assert sign_in(admin.browser(), email="emil@example.org").status_code == 303


def test_no_link_outlives_a_change_of_the_password(admin: Admin, olena: Browser, emil: Browser) -> None:
    path = link_in(olena.post(f"/users/{admin.user('emil').id}/link"))
    emil.post("/account", current=PASSWORD, password="another sentence", again="another sentence")
    assert admin.browser().get(path).status_code == 410


def test_with_nobody_there_the_page_says_where_the_link_is(empty: Admin) -> None:
    assert "one-time link for the first owner" in empty.browser().get("/sign-in").text


# ---- one's own account


def test_changes_the_password_and_stays_signed_in(admin: Admin, olena: Browser) -> None:
    other = admin.browser("olena")
    answer = olena.post("/account", current=PASSWORD, password="another sentence", again="another sentence")
    assert answer.status_code == 303
    assert is_signed_in(olena)
    assert not is_signed_in(other)
    assert sign_in(admin.browser()).status_code == 422
    assert sign_in(admin.browser(), "another sentence").status_code == 303


def test_a_new_password_needs_the_present_one(admin: Admin, olena: Browser) -> None:
    answer = olena.post("/account", current=WRONG, password="another sentence", again="another sentence")
    assert answer.status_code == 422
    assert "That is not your current password." in answer.text
    assert sign_in(admin.browser()).status_code == 303


def test_sets_name_and_language(admin: Admin, vira: Browser) -> None:
    vira.post("/account", name="Vira K.", language="uk")
    assert (admin.user("vira").name, admin.user("vira").language) == ("Vira K.", "uk")


# ---- the language


def heading(answer: Any) -> str:
    found = re.search(r'<html lang="(\w+)"', answer.text)
    assert found
    return found[1]


def test_the_language_is_what_the_browser_asks_for(nobody: Browser) -> None:
    assert heading(nobody.get("/sign-in")) == "en"
    assert heading(nobody.get("/sign-in", headers={"Accept-Language": "de, uk;q=0.8, en;q=0.5"})) == "uk"
    assert heading(nobody.get("/sign-in", headers={"Accept-Language": "de"})) == "en"


def test_the_switch_wins_over_the_browser(nobody: Browser) -> None:
    asks = {"Accept-Language": "en"}
    answer = nobody.client.post("/language", data={"csrf_token": nobody.token, "language": "uk", "next": "/sign-in"})
    assert answer.location == "/sign-in"
    assert heading(nobody.get("/sign-in", headers=asks)) == "uk"


def test_the_switch_is_kept_with_the_account(admin: Admin, olena: Browser) -> None:
    olena.post("/language", language="uk", next="/projects")
    assert heading(admin.browser("olena").get("/projects", headers={"Accept-Language": "en"})) == "uk"


def test_the_switch_takes_no_other_words_and_leads_nowhere_else(admin: Admin, olena: Browser) -> None:
    answer = olena.post("/language", language="xx", next="//evil.example")
    assert answer.location == "/"
    assert admin.user("olena").language == ""
