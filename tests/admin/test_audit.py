"""The audit trail: who changed what, in words, page by page."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from router.admin.audit_words import ACTIONS, Names, changes_in_words
from router.db import models
from tests.admin.conftest import Admin, Browser
from tests.admin.test_forms_keep import posted
from tests.admin.test_projects import save
from tests.rows import changing

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
NAMES = Names({"agent": {1: "Ann", 2: "Bob"}, "group": {5: "Sales"}, "schedule": {9: "Office hours"}})


def words(before: dict[str, Any] | None, after: dict[str, Any] | None, subject: str = "group") -> list[Any]:
    entry = models.AuditEntry(at=NOW, actor="x", action="changed", subject=subject, before=before, after=after)
    return changes_in_words(entry, NAMES)


def text_of(answer: Any) -> str:
    """What a reader sees, in one line."""
    main = answer.text.partition('<main class="page')[2].partition("</main>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", main).split())


@pytest.fixture
def no_context(admin: Admin) -> Any:
    with admin.app.test_request_context():
        yield


@pytest.mark.usefixtures("no_context")
class TestWords:
    def test_only_what_differs_is_told(self) -> None:
        before = {"id": 5, "name": "Sales", "strategy": "round_robin", "ring_seconds": 25.0}
        after = {"id": 5, "name": "Sales", "strategy": "longest_idle", "ring_seconds": 25.0}
        assert words(before, after) == [("Strategy", "Round robin", "Longest idle")]

    def test_what_is_new_or_gone_is_told_whole_but_for_what_is_empty(self) -> None:
        row = {"id": 5, "name": "Sales", "overflow": None, "members": []}
        assert words(None, row) == [("Name", None, "Sales")]
        assert words(row, None) == [("Name", "Sales", None)]

    def test_references_are_told_by_name(self) -> None:
        assert words({"hours": None, "deputy": 1}, {"hours": 9, "deputy": 77}, "agent") == [
            ("Working hours", "", "Office hours"),
            ("Deputy", "Ann", "#77"),
        ]
        assert words({"groups": []}, {"groups": [5]}, "rule") == [("Groups", "", "Sales")]

    def test_members_are_told_one_by_one(self) -> None:
        ann = {"agent": 1, "tier": 1, "position": 0, "weight": 1, "hours": None}
        bob = {"agent": 2, "tier": 1, "position": 1, "weight": 1, "hours": None}
        assert words({"members": [ann]}, {"members": [ann, bob]}) == [("Member Bob", None, "tier 1, weight 1")]
        assert words({"members": [ann, bob]}, {"members": [ann | {"tier": 2, "hours": 9}, bob]}) == [
            ("Member Ann", "tier 1, weight 1", "tier 2, weight 1, Office hours")
        ]
        assert words({"members": [ann, bob]}, {"members": [bob, ann]}) == [("Order of members", "Ann, Bob", "Bob, Ann")]

    def test_conditions_are_told_one_by_one(self) -> None:
        before = {"when": {"caller": ["38050*"], "params": {"utm_source": ["google"]}}, "enabled": True}
        after = {"when": {"params": {"utm_source": ["google", "bing"]}}, "enabled": False}
        assert words(before, after, "rule") == [
            ("Caller is", "38050*", ""),
            ("Parameter utm_source is", "google", "google, bing"),
            ("Turned on", "yes", "no"),
        ]

    def test_credentials_are_told_without_a_word_of_them(self) -> None:
        assert words({"secrets": 3}, {"secrets": 4}, "project") == [("Credentials", None, "changed")]
        assert words(None, {"secrets": 0}, "project") == []

    def test_an_overflow_that_answers_empty_is_no_missing_one(self) -> None:
        assert words({"overflow": "380441112233"}, {"overflow": ""}) == [
            ("Overflow", "380441112233", "an empty answer")
        ]
        assert words({"overflow": None}, {"overflow": ""}) == [("Overflow", "none of its own", "an empty answer")]
        assert words({"overflow": ""}, {"overflow": None}) == [("Overflow", "an empty answer", "none of its own")]
        assert words(None, {"overflow": ""}) == [("Overflow", None, "an empty answer")]
        assert words({"overflow": ""}, None) == [("Overflow", "an empty answer", None)]
        assert words(None, {"overflow": None}) == []

    @pytest.mark.parametrize("path", ["away_from", "away_until", "override_until", "paused_until"])
    def test_instants_are_told_in_words_on_the_projects_clock(self, path: str) -> None:
        entry = models.AuditEntry(before={path: None}, after={path: "2026-11-30T12:00:00+00:00"})
        ((_label, before, after),) = changes_in_words(entry, NAMES, ZoneInfo("Europe/Kyiv"))
        assert (before, after) == ("", "Mon, 30 Nov 2026, 14:00 (Europe/Kyiv)")

    def test_two_instants_that_one_clock_shows_alike_are_told_apart(self) -> None:
        before, after = "2027-10-31T03:30:00+03:00", "2027-10-31T03:30:00+02:00"
        entry = models.AuditEntry(before={"away_until": before}, after={"away_until": after})
        ((_label, first, second),) = changes_in_words(entry, NAMES, ZoneInfo("Europe/Kyiv"))
        assert first == "Sun, 31 Oct 2027, 03:30 (UTC+03:00)"
        assert second == "Sun, 31 Oct 2027, 03:30 (UTC+02:00)"

    def test_more_than_a_screenful_is_cut(self) -> None:
        told = words(None, {"when": {"params": {f"p{number}": ["x"] for number in range(60)}}}, "rule")
        assert len(told) == 41
        assert told[-1] == ("and", None, "20 more")


def test_every_change_of_configuration_is_there_with_who_and_what(admin: Admin, olena: Browser) -> None:
    project = admin.one(models.Project, name="acme").id
    with changing(admin.database, project, "emil@example.org") as session:
        session.add(models.Agent(project_id=project, name="Ann", wrap_up_seconds=10))
    with changing(admin.database, project, "emil@example.org") as session:
        session.get_one(models.Agent, 1).wrap_up_seconds = 20
    text = text_of(olena.get("/audit"))
    assert "emil@example.org added the agent Ann version 2 acme" in text
    assert "emil@example.org changed the agent Ann version 3 acme" in text
    assert "Wrap-up: was 10 → now 20" in text


def test_a_new_hook_address_is_told_once(admin: Admin, olena: Browser) -> None:
    before = len(admin.all(models.AuditEntry))
    olena.post("/p/acme/hook/rotate", grace="24")
    assert len(admin.all(models.AuditEntry)) == before + 1
    assert "olena@example.org made a new hook address for acme" in text_of(olena.get("/audit"))


def test_a_deletion_and_its_undoing_are_told_once_each(admin: Admin, olena: Browser) -> None:
    before = len(admin.all(models.AuditEntry))
    olena.post("/p/acme/delete", name="acme")
    olena.post("/projects/restore", id="1")
    assert [entry.action for entry in admin.all(models.AuditEntry)][before:] == ["deleted", "restored"]


def test_a_changed_credential_is_still_told(admin: Admin, olena: Browser) -> None:
    save(olena, presence_auth_key="another-key")
    assert "olena@example.org changed the settings of acme" in text_of(olena.get("/audit"))
    assert "Credentials: now changed" in text_of(olena.get("/audit"))


def test_times_and_dates_are_of_the_projects_clock(admin: Admin, olena: Browser) -> None:
    for entry in admin.all(models.AuditEntry):
        with admin.database.writing() as session:
            session.delete(session.get_one(models.AuditEntry, entry.id))
    with admin.database.writing() as session:
        late = datetime(2026, 7, 1, 21, 30, tzinfo=UTC)  # the next day in Kyiv
        session.add(
            models.AuditEntry(at=late, actor="late@example.org", action="changed", subject="agent", project_id=1)
        )
    assert "2026-07-02 00:30:00" in text_of(olena.get("/audit"))
    assert "late@example.org" in text_of(olena.get("/audit?since=2026-07-02&until=2026-07-02"))
    assert "late@example.org" not in text_of(olena.get("/audit?since=2026-07-01&until=2026-07-01"))


def test_what_is_declared_on_the_board_is_told_in_words(admin: Admin, emil: Browser, olena: Browser) -> None:
    with changing(admin.database, 1, "cli") as session:
        session.add(models.Agent(project_id=1, name="Ann"))
    emil.post("/p/acme/board/deed", do="on_break:1")
    assert "State: was Available → now On break" in text_of(olena.get("/audit"))


def test_sign_ins_and_failures_are_there(admin: Admin, olena: Browser) -> None:
    admin.browser().post("/sign-in", email="vira@example.org", password="wrong")
    admin.browser().post("/sign-in", email="nobody@example.org", password="wrong")
    text = text_of(olena.get("/audit?subject=user"))
    assert "vira@example.org tried to sign in with a wrong password" in text
    assert "? tried to sign in with a wrong password" in text
    assert "From the address: now 127.0.0.1" in text
    assert "nobody@example.org" not in text


def fill(admin: Admin, count: int) -> None:
    with admin.database.writing() as session:
        for number in range(count):
            session.add(
                models.AuditEntry(
                    at=NOW + timedelta(days=number // 10), actor=f"user{number % 3}@example.org", action="changed",
                    subject="agent" if number % 2 else "rule", subject_id=1, subject_name=f"row {number:03}",
                    project_id=1 if number % 2 else 2, version=1,
                )
            )  # fmt: skip


def rows(answer: Any) -> list[int]:
    return [int(number) for number in re.findall(r"row (\d{3})", text_of(answer))]


def test_pages_go_from_new_to_old_and_back(admin: Admin, olena: Browser) -> None:
    fill(admin, 120)
    first = olena.get("/audit?actor=user")
    older = re.findall(r'rel="next" href="([^"]+)"', first.text)[0].replace("&amp;", "&")
    second = olena.get(older)
    oldest = olena.get(re.findall(r'rel="next" href="([^"]+)"', second.text)[0].replace("&amp;", "&"))
    assert [rows(page) for page in (first, second, oldest)] == [
        list(range(119, 69, -1)), list(range(69, 19, -1)), list(range(19, -1, -1)),
    ]  # fmt: skip
    assert 'rel="prev"' not in first.text
    assert 'rel="next"' not in oldest.text
    newer = re.findall(r'rel="prev" href="([^"]+)"', oldest.text)[0].replace("&amp;", "&")
    assert rows(olena.get(newer)) == rows(second)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("actor=USER1", [n for n in range(29, -1, -1) if n % 3 == 1]),
        ("project=globex&actor=user", [n for n in range(29, -1, -1) if n % 2 == 0]),
        ("subject=agent", [n for n in range(29, -1, -1) if n % 2 == 1]),
        ("since=2026-11-24&until=2026-11-24", list(range(19, 9, -1))),
        ("project=unheard-of", []),
        ("actor=%25", []),
    ],
)
def test_filters_by_who_where_what_and_when(admin: Admin, olena: Browser, query: str, expected: list[int]) -> None:
    fill(admin, 30)
    assert rows(olena.get(f"/audit?{query}")) == expected


@pytest.mark.parametrize("query", ["since=yesterday", "before=x", "until=9999-12-31", "after=99999999999999999999"])
def test_filters_that_make_no_sense_break_nothing(olena: Browser, query: str) -> None:
    assert olena.get(f"/audit?{query}").status_code == 200


def test_every_action_that_pages_record_has_words(admin: Admin, olena: Browser) -> None:
    user = admin.user("emil").id
    olena.post("/users/new", email="ivan@example.org", role="viewer")
    for deed in ("link", "disable", "enable"):
        olena.post(f"/users/{user}/{deed}")
    olena.post(f"/users/{user}", name="E", role="viewer", revision=str(admin.user("emil").revision))
    olena.post("/p/acme/delete", name="acme")
    olena.post("/projects/restore", id="1")
    recorded = {(entry.action, entry.subject) for entry in admin.all(models.AuditEntry)}
    assert len(recorded) >= 8
    assert recorded <= ACTIONS.keys()


# ---- undo, and the project that one comes from


def buttons(page: str) -> list[tuple[str, dict[str, str]]]:
    """The buttons that undo something, from the top: where they post, and what."""
    found = []
    for action, form in re.findall(r'<form method="post" action="([^"]*)"(.*?)</form>', page, re.DOTALL):
        if re.search(r"</svg>\s*Undo\s*</button>", form):
            fields = dict(re.findall(r'name="(version|entry|id|next|do)" value="([^"]*)"', form))
            found.append((unescape(action), {name: unescape(value) for name, value in fields.items()}))
    return found


def press_first(browser: Browser, page: str) -> str:
    url, fields = buttons(page)[0]
    return browser.post(url, **fields, follow=True).text


def test_a_change_of_the_configuration_is_undone_from_its_entry(admin: Admin, olena: Browser) -> None:
    for wrap_up in (10, 20):
        with changing(admin.database, 1, "emil@example.org") as session:
            agent = session.get(models.Agent, 1) or models.Agent(project_id=1, name="Ann")
            agent.wrap_up_seconds = wrap_up
            session.add(agent)
    page = olena.get("/audit?project=acme&subject=agent").text
    assert len(buttons(page)) == 1, "what was changed again since cannot be undone"
    assert "Undone." in press_first(olena, page)
    assert admin.one(models.Agent, id=1).wrap_up_seconds == 10
    assert f'href="/p/acme/versions/{admin.one(models.Project, name="acme").version}"' in olena.get("/audit").text


def test_a_break_and_a_pause_are_undone_from_their_entries_unless_they_were_changed_since(
    admin: Admin, olena: Browser
) -> None:
    with changing(admin.database, 1, "emil@example.org") as session:
        session.add(models.Agent(project_id=1, name="Ann"))
    agent_id = admin.one(models.Agent, name="Ann").id
    deed = "/p/acme/board/deed"

    def entries() -> list[dict[str, str]]:
        page = olena.get("/audit?project=acme&subject=agent").text
        found = buttons(page.partition('<ol class="list">')[2])  # not the message about the last one
        return [fields for url, fields in found if url == deed]

    olena.post(deed, do=f"on_break:{agent_id}")
    assert [fields["do"] for fields in entries()] == [f"available:{agent_id}"]
    olena.post(deed, **entries()[0])
    assert admin.one(models.AgentState, agent_id=agent_id).status == "available"
    assert [fields["do"] for fields in entries()] == [f"on_break:{agent_id}"], "the break itself was changed since"
    olena.post(deed, do=f"pause:{agent_id}:30")
    assert f"resume:{agent_id}" in [fields["do"] for fields in entries()]
    until = admin.one(models.AgentState, agent_id=agent_id).paused_until
    olena.post(deed, do=f"resume:{agent_id}")
    assert f"resume:{agent_id}" not in [fields["do"] for fields in entries()]
    (again,) = (fields for fields in entries() if fields["do"].startswith("pause:"))
    olena.post(deed, **again)
    assert admin.one(models.AgentState, agent_id=agent_id).paused_until == until


def test_of_what_one_version_changed_one_entry_has_the_button(admin: Admin, olena: Browser) -> None:
    with changing(admin.database, 1, "emil@example.org") as session:
        session.add_all([models.Agent(project_id=1, name=name) for name in ("Ann", "Bob")])
    page = olena.get("/audit?project=acme&subject=agent").text
    assert len(buttons(page)) == 1
    press_first(olena, page)
    assert admin.all(models.Agent) == []


def test_that_credentials_are_not_restored_is_said_in_the_message_and_in_the_entry(olena: Browser) -> None:
    page = "/p/acme/settings/presence"
    answer = olena.post(page, **posted(olena.get(page).text) | {"presence_auth_key": "another"}, follow=True).text
    assert "This cannot be undone: credentials" in answer
    assert "cannot be undone: credentials" in text_of(olena.get("/audit"))
    assert buttons(olena.get("/audit?subject=project").text) == []


def test_a_deleted_project_is_brought_back_from_the_audit(admin: Admin, olena: Browser) -> None:
    olena.post("/p/acme/delete", name="acme")
    press_first(olena, olena.get("/audit").text)
    assert admin.one(models.Project, name="acme").deleted_at is None


def test_changes_of_users_are_undone_from_the_message_and_from_the_audit(admin: Admin, olena: Browser) -> None:
    vira = admin.user("vira").id
    answer = olena.post(f"/users/{vira}", name="Vira", role="editor", revision="1", follow=True).text
    assert "Undone." in press_first(olena, answer)
    assert admin.user("vira").role == "viewer"
    olena.post(f"/users/{vira}/disable")
    press_first(olena, olena.get("/audit?subject=user").text)
    assert admin.user("vira").disabled_at is None
    press_first(olena, olena.post(f"/users/{vira}/disable", follow=True).text)
    press_first(olena, olena.get("/audit?subject=user").text)
    assert admin.user("vira").disabled_at is not None, "the undoing is a change as well"
    olena.post("/users/new", email="new@example.org", name="", role="owner")
    press_first(olena, olena.get("/audit?subject=user").text)
    assert admin.user("new").disabled_at is not None


def test_what_was_changed_since_and_the_last_owner_are_left_alone(admin: Admin, olena: Browser) -> None:
    vira, me = admin.user("vira").id, admin.user("olena").id
    late = buttons(olena.post(f"/users/{vira}", name="Vira", role="editor", revision="1", follow=True).text)[0]
    olena.post(f"/users/{vira}", name="Vira", role="owner", revision="2")
    assert "Nothing was undone" in olena.post(late[0], **late[1], follow=True).text
    assert admin.user("vira").role == "owner"
    olena.post(f"/users/{me}", name="Olena", role="owner", revision="1")
    made_owner = buttons(olena.get("/audit?subject=user").text)[0]
    admin.browser("vira").post(f"/users/{me}/disable")
    answer = admin.browser("vira").post(made_owner[0], **made_owner[1], follow=True).text
    assert "last owner" in answer
    assert admin.user("vira").role == "owner"


def menu(page: str) -> list[str]:
    return re.findall(r'<a href="(/p/[^"]*/board|[^"]*)"', page.partition('id="side"')[2].partition("</nav>")[0])


def test_users_and_audit_keep_the_menu_of_the_project_one_comes_from(admin: Admin, olena: Browser) -> None:
    in_project = menu(olena.get("/p/acme/calls").text)
    for endpoint in ("/users", "/audit"):
        url = next(unescape(url) for url in in_project if url.startswith(endpoint))
        assert menu(olena.get(url).text) == in_project
        assert "/p/acme/board" not in menu(olena.get(endpoint).text)
    user = re.search(r'href="(/users/\d+\?in=acme)"', olena.get("/users?in=acme").text)
    assert user is not None
    assert menu(olena.get(user[1]).text) == in_project
    answer = olena.post(f"/users/{admin.user('vira').id}/disable?in=acme")
    assert answer.location == "/users?in=acme"
    assert olena.get("/audit?in=nowhere").status_code == 200


def test_the_audit_begins_with_the_project_one_comes_from_on_its_clock(admin: Admin, olena: Browser) -> None:
    with admin.database.writing() as session:
        for number, zone in ((1, "Europe/Kyiv"), (2, "Asia/Tokyo")):
            session.get_one(models.Project, number).time_zone = zone
    for project in (1, 2):
        with changing(admin.database, project, "cli") as session:
            session.add(models.Agent(project_id=project, name=f"Agent of {project}"))
    text = text_of(olena.get("/audit?in=globex"))
    assert "Agent of 2" in text
    assert "Agent of 1" not in text
    assert "Asia/Tokyo" in text
    at = admin.all(models.AuditEntry, project_id=2)[-1].at.astimezone(ZoneInfo("Asia/Tokyo"))
    assert at.strftime("%Y-%m-%d %H:%M:%S") in text
    everything = olena.get("/audit?in=globex&project=")
    assert "Agent of 1" in text_of(everything)
    assert "Agent of 2" in text_of(everything)
