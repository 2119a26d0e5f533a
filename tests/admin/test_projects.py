"""Projects: made, set up, checked, deleted, brought back; and edited by two at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from pytest_httpserver import HTTPServer
from sqlalchemy import update
from werkzeug import Request, Response

from router.admin.views import settings as views
from router.admin.views.settings import PARTS, part_of
from router.configuration.schema import HookConfig, PresenceConfig, notes_of
from router.db import models, queries
from tests.admin.conftest import Admin, Browser, shown_fields

NEW = {"name": "initech", "time_zone": "Europe/Kyiv", "country": "UA", "overflow": "044 123 45 67"}

OWNERS_ONLY = [
    start + key
    for start, model in (("hook_", HookConfig), ("presence_", PresenceConfig))
    for key, field in model.model_fields.items()
    if notes_of(field).is_for_owners
]


def fields_of(browser: Browser, path: str = "/p/acme/settings") -> dict[str, str]:
    """The form as it is shown: what a browser would post if nothing were touched."""
    form = browser.get(path).text.partition('<form method="post" class="stack stack-lg"')[2].partition("</form>")[0]
    fields: dict[str, str] = {}
    for name, body in re.findall(r'<select[^>]* name="(\w+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        fields[name] = re.findall(r'<option selected value="([^"]*)"', body)[0]
    fields |= dict(re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\s*(.*?)</textarea>', form, re.DOTALL))
    for box in re.findall(r"<input[^>]*>", form):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', box))
        if attributes.get("type") in {"checkbox", "radio"} and " checked" not in box:
            continue
        fields[attributes["name"]] = attributes.get("value", "")
    return fields


def address_of(part: str) -> str:
    return "/p/acme/settings" + ("" if part == "general" else f"/{part}")


def save(browser: Browser, **changed: str) -> Any:
    """Save each part of the settings that has one of these fields. Return the first refusal, else the last answer."""
    answer = None
    for part in dict.fromkeys(map(part_of, changed or ["name"])):
        path = address_of(part)
        of_part = {name: text for name, text in changed.items() if part_of(name) == part}
        answer = browser.post(path, **fields_of(browser, path) | of_part)
        if answer.status_code != 303:
            break
    return answer


def acme(admin: Admin) -> models.Project:
    project: models.Project = admin.one(models.Project, id=1)
    return project


# ---- the list


def test_shows_each_project_with_its_health(admin: Admin, vira: Browser) -> None:
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        session.add(models.Presence(project_id=1, began_at=now - timedelta(hours=3)))
        session.add(models.Presence(project_id=2, failures=3, error_code="unauthorized", error_message="Key refused."))
        session.add(models.Agent(project_id=1, name="Ann"))
    text = " ".join(re.sub(r"<[^>]+>", " ", vira.get("/projects").text).split())
    assert "acme No overflow: for a call that nobody can take no destination is sent. Out of date" in text
    assert "globex Ringostat does not accept the Auth-key. Unknown" in text


def test_counts_the_calls_of_the_projects_own_day(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    noon = datetime(2026, 11, 23, 12, 0, tzinfo=ZoneInfo("Europe/Kyiv"))
    with admin.database.writing() as session:
        session.get_one(models.Project, 2).time_zone = "Asia/Kolkata"
        for project, hours in ((1, (0, 0.1, 1, 11.9, 12.1)), (2, (0, 1))):
            for ago in hours:
                session.add(
                    models.Decision(
                        project_id=project, call_id="", step="", asked_at=noon - timedelta(hours=ago), caller="",
                        dialed="", destination="", result="overflow", config_version=1, latency_us=1, record={},
                    )
                )  # fmt: skip
    with time_machine.travel(noon, tick=False):
        text = admin.browser("vira").get("/projects").text
    assert re.findall(r"</svg>(\d+)</span>", text) == ["4", "2"], "the fifth was yesterday in Kyiv"
    assert "Calls per hour today, at most 2" in text


def test_without_projects_says_what_to_do_next(admin: Admin, olena: Browser, vira: Browser) -> None:
    with admin.database.writing() as session:
        for project in session.query(models.Project):
            project.deleted_at = datetime.now(UTC)
    assert "Create the first project" in olena.get("/projects").text
    assert "Create the first project" not in vira.get("/projects").text


def test_home_leads_to_the_board_of_the_one_project_or_to_the_list(admin: Admin, vira: Browser) -> None:
    assert vira.get("/").location == "/projects"
    with admin.database.writing() as session:
        session.get_one(models.Project, 2).deleted_at = datetime.now(UTC)
    assert vira.get("/").location == "/p/acme/board"


# ---- making one


def test_a_new_project_has_a_hook_that_answers(admin: Admin, olena: Browser, nobody: Browser) -> None:
    answer = olena.post("/projects/new", **NEW)
    assert (answer.status_code, answer.location) == (303, "/p/initech/board")
    project = admin.one(models.Project, name="initech")
    assert (project.overflow, project.version) == ("380441234567", 1)
    with admin.database.reading() as session:
        token = queries.current_token(session, project.id)
    assert nobody.client.post(f"/hook/{token}").text == "380441234567"
    assert admin.one(models.AuditEntry, subject_name="initech").actor == "olena@example.org"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "", "Give the project a name."),
        ("name", "acme", "There is a project of this name already."),
        ("name", "x" * 201, "At most 200 characters."),
        ("time_zone", "Kyiv", "There is no such time zone"),
        ("time_zone", "", "There is no such time zone"),
        ("country", "XX", "Not a valid choice"),
        ("overflow", "two words", "Not a valid destination"),
    ],
)
def test_a_mistake_is_told_beside_its_field_and_keeps_what_was_typed(
    admin: Admin, olena: Browser, field: str, value: str, says: str
) -> None:
    answer = olena.post("/projects/new", **NEW | {field: value})
    assert answer.status_code == 422
    beside = re.findall(rf'id="{field}-error"[^§]*?<span>([^<]*)</span>', answer.text)
    assert beside
    assert says in beside[0]
    for name, typed in (NEW | {field: value}).items():
        if name != "country":
            assert f'name="{name}"' in answer.text
            assert f'value="{typed}"' in answer.text
    assert len(admin.all(models.Project)) == 2


def test_no_overflow_is_asked_about_in_the_form_itself(admin: Admin, olena: Browser) -> None:
    asked = olena.post("/projects/new", **NEW | {"overflow": ""})
    assert asked.status_code == 422
    assert "Where do calls go that nobody can take?" in asked.text
    assert olena.post("/projects/new", **NEW | {"overflow": ""}, overflow_none="y").status_code == 303
    assert "The project has no overflow" in olena.get("/p/initech/board").text
    assert "The project has no overflow" in olena.get("/p/initech/rules").text
    shown = fields_of(olena, "/p/initech/settings")
    assert shown["overflow_none"]
    assert olena.post("/p/initech/settings", **shown | {"overflow": "reception"}).status_code == 303
    assert "The project has no overflow" not in olena.get("/p/initech/board").text
    shown = fields_of(olena, "/p/initech/settings")
    assert olena.post("/p/initech/settings", **shown | {"overflow": ""}).status_code == 422
    assert admin.one(models.Project, name="initech").overflow == "reception"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("044 123 45 67", ""), ("+48 601 123 456", ""), ("acme_alice", ""), ("ACME_seen", ""), ("", ""), ("101", ""),
        ("044 123 45", "Not a complete Ukrainian number."), ("0441234567890", "Not a complete Ukrainian number."),
        ("+48 60", "Not a complete phone number."), ("acme_alise", "No such SIP login is known."),
        ("102", "No such SIP login is known."), ("two words", "Not a valid destination"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["overflow", "overflow_to"])
def test_an_overflow_is_looked_at_while_it_is_typed(
    admin: Admin, emil: Browser, field: str, typed: str, says: str
) -> None:
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        logins = [models.SipLogin(project_id=1, login=login) for login in ("acme_alice", "101")]
        session.add(models.Agent(project_id=1, name="Ann", sip_logins=logins))
        session.add(models.LoginState(project_id=1, login="acme_seen", since_at=now))
    text = emil.get("/p/acme/overflow", query_string={field: typed}).text
    assert says in text
    assert bool(says) == ("field-doubt" in text)
    elsewhere = emil.get("/overflow", query_string={field: typed, "country": "UA"}).text
    assert ("field-doubt" in elsewhere) == (bool(says) and "login" not in says), "there are no logins yet"


def test_what_is_likely_wrong_is_no_refusal(admin: Admin, olena: Browser) -> None:
    assert save(olena, overflow="scheme_7").status_code == 303
    assert acme(admin).overflow == "scheme_7"
    assert "No such SIP login is known." in olena.get("/p/acme/settings").text


# ---- settings


def test_saving_what_is_shown_changes_nothing(admin: Admin, olena: Browser) -> None:
    before = vars(acme(admin)) | {"_sa_instance_state": None, "revision": None}
    assert save(olena).status_code == 303
    assert vars(acme(admin)) | {"_sa_instance_state": None, "revision": None} == before
    assert len(admin.all(models.AuditEntry, project_id=1)) == 1, "that of the beginning"


SETTINGS: list[tuple[str, str, Any]] = [
    ("name", "acme 2", "acme 2"),
    ("time_zone", "Europe/Warsaw", "Europe/Warsaw"),
    ("country", "PL", "PL"),
    ("overflow", "+38 (044) 123-45-67", "380441234567"),
    ("hook_answer", "json-rpc", "json-rpc"),
    ("hook_key", "to", "to"),
    ("hook_rpc_result", "string", "string"),
    ("hook_retry_seconds", "7,5", 7.5),
    ("hook_allow_addresses", "203.0.113.0/24\n 198.51.100.7 ", ["203.0.113.0/24", "198.51.100.7"]),
    ("hook_fields", "caller: cli, ani\n\ndialed: did", {"caller": ["cli", "ani"], "dialed": ["did"]}),
    ("presence_api_url", "https://pbx.example.org", "https://pbx.example.org"),
    ("presence_poll_seconds", "3", 3),
    ("presence_fresh_seconds", "0", 0),
    ("presence_project_id", "12345", "12345"),
    ("presence_when_unknown", "overflow", "overflow"),
    ("presence_last_known_seconds", "120", 120),
    ("presence_away_seconds", "45", 45),
    ("presence_call_log_days", "14", 14),
    ("presence_with_do_not_disturb", "y", True),
    ("cool_down_seconds", "0", 0),
    ("break_after_no_answers", "0", 0),
    ("keep_days", "30", 30),
    ("mask_numbers", "y", True),
]


@pytest.mark.parametrize(("field", "typed", "stored"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_each_setting_is_stored_published_and_shown_again(
    admin: Admin, olena: Browser, field: str, typed: str, stored: Any
) -> None:
    answer = save(olena, **{field: typed})
    assert answer.status_code == 303, re.findall(r"field-error.*", answer.text)
    assert getattr(acme(admin), field) == stored
    assert acme(admin).version == 2, "published: it holds for the next call"
    entry = admin.all(models.AuditEntry, project_id=1)[-1]
    assert (entry.actor, entry.action, entry.version) == ("olena@example.org", "changed", 2)
    assert save(olena, **fields_of(olena, answer.location)).status_code in {303, 404}


@pytest.mark.parametrize(
    ("field", "typed", "says"),
    [
        ("hook_retry_seconds", "-1", "from 0 to 3600"),
        ("hook_retry_seconds", "nan", "from 0 to 3600"),
        ("hook_retry_seconds", "", "from 0 to 3600"),
        ("presence_poll_seconds", "0", "from 0.1 to 3600"),
        ("presence_call_log_days", "366", "whole number from 0 to 365"),
        ("keep_days", "1.5", "whole number from 1 to 3650"),
        ("keep_days", "inf", "whole number from 1 to 3650"),
        ("hook_allow_addresses", "203.0.113.0/24\noffice", "“office” is not a valid address"),
        ("hook_fields", "caller = cli", "“caller = cli” is not understood"),
        ("hook_fields", "colour: red", "There is no field colour"),
        ("hook_key", "", "Write 1 to 100 visible characters"),
        ("hook_basic_auth", "no-colon", "Write user:password"),
        ("presence_api_url", "ftp://x", "Write it like https://api.ringostat.net"),
        ("presence_api_url", "https://user:secret@x", "Write it like https://api.ringostat.net"),
        ("presence_online_from", "smart_phone", ""),
        ("name", "globex", "There is a project of this name already."),
    ],
)
def test_a_wrong_setting_saves_nothing_of_its_part_and_hinders_no_other(
    admin: Admin, olena: Browser, field: str, typed: str, says: str
) -> None:
    beside = BESIDE[part_of(field)]
    answer = save(olena, **{beside: "77", field: typed})
    assert answer.status_code == 422
    assert says in answer.text
    assert "Nothing was saved yet" in answer.text
    assert acme(admin).version == 1
    if field != beside:
        assert 'value="77"' in answer.text, "what was typed stays"
    other = next(part for part in BESIDE if part != part_of(field))
    assert save(olena, **{BESIDE[other]: "77"}).status_code == 303


BESIDE = {"privacy": "keep_days", "calls": "cool_down_seconds", "hook": "hook_retry_seconds",
          "presence": "presence_away_seconds", "general": "overflow"}  # fmt: skip
"""A field of each part of the settings."""


def test_each_setting_stands_on_one_page_and_each_page_leads_to_all(olena: Browser) -> None:
    seen: list[str] = []
    for part in PARTS:
        text = olena.get(address_of(part)).text
        assert all(f'href="{address_of(other)}"' in text for other in PARTS)
        assert re.findall(r'href="([^"]*)" aria-current="page"', text.partition("Parts of the settings")[2])[0]
        assert BESIDE[part] in fields_of(olena, address_of(part))
        seen += fields_of(olena, address_of(part))
    twice = {name for name in seen if seen.count(name) > 1}
    assert twice <= {"csrf_token", "revision", "revision_marks"}
    ticked = {"presence_when_unknown", "mask_numbers", "presence_with_do_not_disturb"}
    assert {name for name, _typed, _stored in SETTINGS} <= {*seen, *ticked}


def test_tells_how_far_the_call_log_was_read_and_what_is_wrong_with_it(admin: Admin, olena: Browser) -> None:
    assert "call-log" not in olena.get("/p/acme/settings/calls").text, "nobody wants it"
    save(olena, presence_call_log_days="14")
    read = {"known_until": datetime(2026, 11, 20, 12, tzinfo=UTC), "next_at": datetime.now(UTC)}
    with admin.database.writing() as session:
        session.add(models.CallLog(project_id=1, **read))
    text = olena.get("/p/acme/settings/calls").text
    assert "Read up to:" in text
    assert "2026-11-20 14:00" in text, "on the project's clock"
    assert "cannot be read" not in text
    wrong = {"failures": 3, "error_code": "forbidden", "error_message": "<b>No.</b>", "error_remedy": "Check the key."}
    with admin.database.writing() as session:
        session.execute(update(models.CallLog).values(**wrong))
    text = olena.get("/p/acme/settings/calls").text
    assert "The call log cannot be read. Ringostat denies access." in text
    assert "&lt;b&gt;No.&lt;/b&gt;</pre>" in text, "what it said, under Details"


def test_the_smart_phone_extension_needs_its_id_and_token(admin: Admin, olena: Browser) -> None:
    text = save(olena, presence_online_from="either").text
    assert "it stands in the cabinet’s URL" in text
    assert "needs its token" in text
    assert save(olena, presence_online_from="either", presence_project_id="1", presence_token="t").status_code == 303


def test_a_renamed_project_is_found_under_its_new_name_and_its_old_one_until_another_has_that(
    admin: Admin, olena: Browser
) -> None:
    assert save(olena, name="Acme & Söhne").location == "/p/Acme%20&%20S%C3%B6hne/settings"
    assert olena.get("/p/Acme & Söhne/settings").status_code == 200
    assert "Acme &amp; Söhne" in olena.get("/p/acme/board").text
    other = admin.add_project("acme", overflow="reception of another")
    assert "reception of another" in olena.get("/p/acme/settings").text
    assert admin.one(models.Project, name="acme").id == other


# ---- credentials


SECRETS = {
    "presence_auth_key": "key-swordfish",
    "presence_token": "token-swordfish",
    "hook_basic_auth": "pbx:pass-swordfish",
}


def test_credentials_are_taken_and_never_shown(admin: Admin, olena: Browser) -> None:
    assert save(olena, **SECRETS).status_code == 303
    project = acme(admin)
    assert {name: getattr(project, name) for name in SECRETS} == SECRETS
    assert project.secrets_revision == 3
    shown = "".join(olena.get(url).text for url in (*map(address_of, PARTS), "/audit"))
    assert "Kept, and never shown again." in shown
    assert "swordfish" not in shown
    assert "swordfish" not in repr([entry.after for entry in admin.all(models.AuditEntry)])


def test_an_empty_box_keeps_what_is_stored(admin: Admin, olena: Browser) -> None:
    save(olena, **SECRETS)
    save(olena, keep_days="7")
    project = acme(admin)
    assert {name: getattr(project, name) for name in SECRETS} == SECRETS
    assert (project.keep_days, project.secrets_revision) == (7, 3)


def test_credentials_are_removed_on_demand(admin: Admin, olena: Browser) -> None:
    save(olena, **SECRETS)
    save(olena, presence_auth_key_clear="y", hook_basic_auth_clear="y")
    project = acme(admin)
    assert (project.presence_auth_key, project.hook_basic_auth) == (None, None)
    assert project.presence_token == SECRETS["presence_token"]


def test_a_changed_credential_is_a_new_version_for_every_process(admin: Admin, olena: Browser) -> None:
    save(olena, presence_auth_key="another")
    assert acme(admin).version == 2
    assert "Credentials" in olena.get("/audit").text


def test_a_refused_form_does_not_send_a_credential_back(olena: Browser) -> None:
    answer = save(olena, presence_away_seconds="x", **SECRETS)
    assert answer.status_code == 422
    assert "swordfish" not in answer.text


@pytest.mark.parametrize("name", OWNERS_ONLY)
def test_editors_change_neither_credentials_nor_where_they_are_sent(admin: Admin, emil: Browser, name: str) -> None:
    page = emil.get(address_of(part_of(name))).text
    assert f'name="{name}"' not in page
    before, beside = getattr(acme(admin), name), BESIDE[part_of(name)]
    assert save(emil, **{name: "https://evil.example", f"{name}_clear": "y", beside: "7"}).status_code == 303
    assert (getattr(acme(admin), name), getattr(acme(admin), beside)) == (before, 7)


# ---- two at once

PRESENCE = "/p/acme/settings/presence"


def test_the_second_to_save_is_told_and_sees_both_versions(admin: Admin, olena: Browser, emil: Browser) -> None:
    mine = fields_of(emil, PRESENCE)
    save(olena, presence_away_seconds="20", presence_poll_seconds="9")
    answer = emil.post(PRESENCE, **mine | {"presence_away_seconds": "60", "presence_fresh_seconds": "7"})
    assert answer.status_code == 409
    text = " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())
    assert "olena@example.org saved this while you were editing." in text
    assert "Ignore shorter gaps in presence 20 60" in text
    assert "Ask every 9" not in text, "only one of them changed it"
    shown = shown_fields(answer.text)
    assert shown["presence_away_seconds"] == ["60"], "what was typed stays"
    assert shown["presence_fresh_seconds"] == ["7"]
    assert shown["presence_poll_seconds"] == ["9"], "and what only the other changed"
    assert (acme(admin).presence_away_seconds, acme(admin).presence_fresh_seconds) == (20, 5)


def test_the_second_may_overwrite_knowingly(admin: Admin, olena: Browser, emil: Browser) -> None:
    mine = fields_of(emil, PRESENCE) | {"presence_away_seconds": "60"}
    save(olena, presence_away_seconds="20")
    told = emil.post(PRESENCE, **mine)
    confirmed = re.findall(r'name="overwrite" value="(\d+)"', told.text)[0]
    save(olena, presence_away_seconds="10")
    again = emil.post(PRESENCE, **mine, overwrite=confirmed)
    assert again.status_code == 409, "what was confirmed is not what stands there now"
    confirmed = re.findall(r'name="overwrite" value="(\d+)"', again.text)[0]
    assert emil.post(PRESENCE, **mine, overwrite=confirmed).status_code == 303
    assert acme(admin).presence_away_seconds == 60


def test_pressing_save_again_does_not_overwrite_by_itself(admin: Admin, olena: Browser, emil: Browser) -> None:
    mine = fields_of(emil, PRESENCE) | {"presence_away_seconds": "60"}
    save(olena, presence_away_seconds="20")
    told = emil.post(PRESENCE, **mine)
    kept = re.findall(r'name="revision"[^>]* value="(\d+)"', told.text)[0]
    assert kept == mine["revision"]
    assert emil.post(PRESENCE, **mine).status_code == 409


# ---- the connection check


@pytest.fixture
def api(httpserver: HTTPServer) -> Iterator[HTTPServer]:
    """A status API: Alice and Bob are online, Bob is on a call; the key is right-key."""

    def answer(request: Request) -> Response:
        if request.headers.get("Auth-key") != "right-key":
            return Response("", 401)
        speaking = request.path.endswith("speaking")
        return Response('["acme_bob"]' if speaking else '["acme_alice", "acme_bob"]', content_type="application/json")

    httpserver.expect_request(re.compile("/sipstatus/.*")).respond_with_handler(answer)
    yield httpserver
    httpserver.clear()


def check(browser: Browser, *, htmx: bool = True, **changed: str) -> Any:
    return browser.post("/p/acme/settings/check", htmx=htmx, **fields_of(browser, PRESENCE) | changed)


def test_checks_with_what_stands_in_the_form_and_saves_nothing(admin: Admin, olena: Browser, api: HTTPServer) -> None:
    with admin.database.writing() as session:
        ann = models.Agent(project_id=1, name="Ann", sip_logins=[models.SipLogin(project_id=1, login="acme_alice")])
        session.add(ann)
    text = check(olena, presence_api_url=api.url_for(""), presence_auth_key="right-key").text
    assert '<div id="connection"' in text
    assert "<html" not in text
    assert "2 logins are online" in text
    assert "1 of them speaking" in text
    assert "acme_alice" in text
    assert "1 of them is not assigned to an agent yet" in text
    assert acme(admin).presence_auth_key == "acme-secret-key"


def test_checks_with_the_stored_key_when_the_box_is_empty(admin: Admin, olena: Browser, api: HTTPServer) -> None:
    text = check(olena, presence_api_url=api.url_for("")).text
    assert "401" in text
    assert "Copy the Auth-key again" in text
    with admin.database.writing() as session:
        session.get_one(models.Project, 1).presence_auth_key = "right-key"
    assert "2 logins are online" in check(olena, presence_api_url=api.url_for("")).text


def test_says_what_is_wrong_in_the_readers_language(admin: Admin, olena: Browser, api: HTTPServer) -> None:
    with admin.database.writing() as session:
        session.get_one(models.User, 1).language = "uk"
    text = check(olena, presence_api_url=api.url_for("")).text
    assert "Скопіюйте" in text
    assert "401" in text, "and what the API said, as it said it"


def test_an_api_that_hangs_is_given_up_in_time(
    olena: Browser, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()

    def hang(_request: Request) -> Response:
        may_answer.wait(60)
        return Response("[]")

    monkeypatch.setattr(views, "CHECK_SECONDS", 0.3)
    httpserver.expect_request(re.compile(".*")).respond_with_handler(hang)
    text = check(olena, presence_api_url=httpserver.url_for("")).text
    may_answer.set()
    assert "did not answer in time" in text


def test_without_javascript_the_whole_page_comes_back_with_what_was_typed(olena: Browser, api: HTTPServer) -> None:
    answer = check(
        olena, htmx=False, presence_api_url=api.url_for(""), presence_auth_key="right-key", presence_away_seconds="33"
    )
    assert "2 logins are online" in answer.text
    assert 'value="33"' in answer.text
    assert "right-key" not in answer.text


def test_editors_check_what_is_stored_wherever_their_form_says(admin: Admin, emil: Browser, api: HTTPServer) -> None:
    with admin.database.writing() as session:
        project = session.get_one(models.Project, 1)
        project.presence_api_url, project.presence_auth_key = api.url_for(""), "right-key"
    text = check(emil, presence_api_url="https://evil.example", presence_auth_key="x").text
    assert "2 logins are online" in text


def test_what_the_api_says_is_shown_as_text(admin: Admin, olena: Browser, httpserver: HTTPServer) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data('["<script>alert(1)</script>"]')
    text = check(olena, presence_api_url=httpserver.url_for("")).text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text


def test_addresses_inside_are_refused_unless_the_operator_allows_them(
    migrated_sqlite_url: str, api: HTTPServer
) -> None:
    made = Admin(migrated_sqlite_url, PRESENCE_ALLOW_PRIVATE="0")
    made.add_user("olena", "owner")
    made.add_project("acme", presence_auth_key="k")
    text = check(made.browser("olena"), presence_api_url=api.url_for("")).text
    made.close()
    assert "PRESENCE_ALLOW_PRIVATE" in text
    assert api.log == []


# ---- deletion


def test_deletion_asks_for_the_name(admin: Admin, olena: Browser) -> None:
    for typed in ("", "Acme", "globex"):
        answer = olena.post("/p/acme/delete", name=typed)
        assert answer.status_code == 422
        assert "Type the name exactly: acme." in answer.text
    assert acme(admin).deleted_at is None


def test_a_deleted_project_is_gone_and_its_hook_with_it(admin: Admin, olena: Browser, nobody: Browser) -> None:
    with admin.database.reading() as session:
        token = queries.current_token(session, 1)
    assert nobody.client.post(f"/hook/{token}").status_code == 200
    answer = olena.post("/p/acme/delete", name="acme", follow=True)
    assert "Project acme is deleted." in " ".join(answer.text.split())
    assert olena.get("/p/acme/settings").status_code == 404
    assert acme(admin).version == 2, "so that no process goes on by what it knew"
    entries = [(entry.action, entry.actor) for entry in admin.all(models.AuditEntry, project_id=1)]
    assert ("deleted", "olena@example.org") in entries


def test_a_deletion_can_be_undone_at_once(admin: Admin, olena: Browser) -> None:
    page = olena.post("/p/acme/delete", name="acme", follow=True).text
    form = re.findall(r'action="(/projects/restore)"[^§]*?name="id" value="(\d+)"', page)[0]
    assert olena.post(form[0], id=form[1]).location == "/p/acme/settings"
    project = acme(admin)
    assert (project.deleted_at, project.version) == (None, 3)
    with admin.database.reading() as session:
        assert queries.load_published(session, 1).document["project"]["name"] == "acme"


@pytest.mark.parametrize("sent", ["", "x", "2", "99", "99999999999999999999"])
def test_only_what_was_deleted_can_be_brought_back(olena: Browser, sent: str) -> None:
    assert olena.post("/projects/restore", id=sent).status_code == 404


def test_the_name_of_a_deleted_project_stays_taken(admin: Admin, olena: Browser) -> None:
    olena.post("/p/acme/delete", name="acme")
    answer = olena.post("/projects/new", **NEW | {"name": "acme"})
    assert "A deleted project has this name" in answer.text


def test_an_editor_neither_sees_nor_can_delete(emil: Browser) -> None:
    assert "/delete" not in emil.get("/p/acme/settings").text
    assert emil.get("/p/acme/delete").status_code == 403
