"""The pages of replays: started by anybody who may look, shown while they run, and told in words and figures."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from flask import render_template
from sqlalchemy import update

from router.admin import studying
from router.admin.page import enter_project
from router.admin.views.replay import digest_of, section_of
from router.configuration import apply, load
from router.db import models
from router.db.documents import load_document
from router.db.session import Database
from router.explanation import studies
from tests.admin.conftest import Admin, Browser
from tests.admin.day import CONFIG, Day
from tests.admin.test_versions import text_of

OTHER = CONFIG.replace("{name: everyone, groups: [sales]}", '{name: everyone, groups: [], overflow: "380999999999"}')


def run_at_once(database: Database, study_id: int) -> None:
    """Run a study in this process, in place of studies.launch."""
    out = StringIO()
    studies.run(database, study_id, out)
    store(database, study_id, **json.loads(out.getvalue().splitlines()[-1]))


def store(database: Database, study_id: int, **values: Any) -> None:
    with database.writing() as session:
        session.execute(update(models.Study).where(models.Study.id == study_id).values(values))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "launch", run_at_once)


@pytest.fixture
def day(admin: Admin) -> Day:
    """Calls by the first rules, of which version 2 is; then others are published."""
    day = Day(admin)
    for number in range(6):
        day.call(f"38050111{number:04}")
    day.call("380671234567")
    apply(admin.database, load(OTHER, {}), comment="Everybody to the overflow")
    return day


def start(browser: Browser, **fields: Any) -> str:
    """The address of a new replay."""
    given = {"through": "now", "period": "today", "most": "10000"} | fields
    answer = browser.post("/p/acme/replay", **given)
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def words_of(browser: Browser, url: str) -> str:
    return html.unescape(text_of(browser.get(url).text))


def test_a_viewer_replays_todays_calls_through_the_rules_in_use(day: Day, vira: Browser) -> None:
    told = words_of(vira, start(vira))
    offered = len([row for row in day.admin.all(models.Decision) if row.agent_id and row.rule_id])
    assert offered == 1, "Alice got the first call, then nobody was free"
    assert (
        "6 of 7 answers would have been different. 1 that named an agent would have sent the call to the overflow."
        in told
    )
    assert "through version" in told
    assert re.search(r"Alice 1 0 -1", told)
    assert re.search(r"Overflow 6 7 \+1", told)
    assert "everyone 6 6 –" in told
    assert told.count("+380 99 999 99 99") == 6


def test_the_same_rules_change_nothing(day: Day, emil: Browser) -> None:
    version = day.decision(1).config_version
    told = words_of(emil, start(emil, through=str(version)))
    assert "All 7 answers would have been the same." in told
    assert "Answers that differ" not in told


def test_the_list_can_be_narrowed_to_the_overflow(day: Day, vira: Browser) -> None:
    page = vira.get(start(vira)).text
    (url,) = re.findall(r'href="([^"]*kind=to[^"]*)"', page)
    told = words_of(vira, html.unescape(url).partition("#")[0])
    assert told.partition("Answers that differ")[2].count("Compare ") == 1


def test_a_long_list_has_pages(day: Day, vira: Browser) -> None:
    url = start(vira)
    study_id = int(url.rpartition("/")[2])
    row = day.admin.one(models.Study, id=study_id)
    many = {**row.result, "differences": row.result["differences"][:1] * 120}
    store(day.database, study_id, result=many)
    sizes = []
    while url:
        page = vira.get(url).text
        sizes.append(page.count(f"/replay/{study_id}/calls/"))
        url = "".join(map(html.unescape, re.findall(r'rel="next" href="([^"]*)"', page)))
    assert sizes == [50, 50, 20]


def test_a_call_is_explained_twice_side_by_side(day: Day, vira: Browser) -> None:
    page = vira.get(start(vira)).text
    links = re.findall(r'href="(/p/acme/replay/\d+/calls/\d+)"', page)
    told = words_of(vira, links[-1])
    then, _, would = told.partition("What would have happened")
    assert "Alice acme_alice" in then
    assert "Next in sales (Round robin)." in then
    assert "Overflow +380 99 999 99 99" in would
    assert 'href="/p/acme/calls/1"' in vira.get(links[-1]).text


def test_what_was_not_looked_at_is_said(day: Day, vira: Browser) -> None:
    with day.database.writing() as session:
        session.query(models.PresenceSnapshot).delete()
    told = words_of(vira, start(vira))
    assert "It cannot be said of any of the 7 answers" in told
    assert "what the decision was made by is no longer kept: 7" in told
    assert "Cannot be said vira@example.org" in words_of(vira, "/p/acme/replay")
    assert "Not known" in words_of(vira, "/p/acme/replay/1/calls/1")


def test_what_was_found_out_from_other_calls_is_marked(day: Day, vira: Browser) -> None:
    url = start(vira)
    result = day.admin.one(models.Study).result
    first, *others = result["differences"]
    store(day.database, 1, result={**result, "reconstructed": 1, "differences": [[*first[:3], True], *others]})
    told = words_of(vira, url)
    assert "For 1 answer, what was not looked at then was found out from the calls before and after it." in told
    assert told.count("reconstructed") == 1


def test_a_masked_number_stays_masked(day: Day, vira: Browser) -> None:
    with day.database.writing() as session:
        session.execute(update(models.Project).values(mask_numbers=True))
    url = start(vira)
    for address in (url, f"{url}/calls/1"):
        told = vira.get(address).text
        assert "38050111" not in re.sub(r"\D", "", told.replace("38050***", ""))
        assert "***" in told


def test_calls_that_are_deleted_leave_nothing_but_their_answers(day: Day, vira: Browser) -> None:
    url = start(vira)
    with day.database.writing() as session:
        session.query(models.Decision).delete()
    assert words_of(vira, url).count("no longer stored") == 6
    assert vira.get(f"{url}/calls/1").status_code == 404


def test_a_running_replay_shows_how_far_it_is_and_can_be_stopped(
    day: Day, vira: Browser, emil: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "launch", lambda *_: None)
    url = start(vira)
    assert "Starting" in words_of(vira, url)
    store(day.database, 1, done=30, total=120)
    page = vira.get(url).text
    assert "30 of 120 answers" in page
    assert 'value="25"' in page
    assert f'hx-get="{url}"' in page
    refused = emil.post("/p/acme/replay", through="now", period="today", most="10", follow=True)
    assert "vira@example.org’s replay is running" in refused.text
    stopped = emil.post(f"{url}/stop", follow=True)
    assert "The replay is stopped." in stopped.text
    told = vira.get(url).text
    assert "The replay was stopped." in told
    (again,) = re.findall(r'href="(/p/acme/replay\?[^"]*)"', told)
    assert '<option selected value="today">' in vira.get(html.unescape(again)).text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"state": "failed", "error": "the disk is full"}, "the disk is full"),
        ({"heartbeat_at": datetime.now(UTC) - timedelta(minutes=5)}, "The replay was interrupted"),
    ],
)
def test_a_replay_without_a_result_says_why(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(studies, "launch", lambda *_: None)
    url = start(vira)
    store(day.database, 1, **values)
    assert said in vira.get(url).text
    assert "Start again" in vira.get(url).text
    assert vira.get("/p/acme/replay").status_code == 200


def test_the_form_offers_versions_and_lists_the_replays_before(day: Day, vira: Browser) -> None:
    start(vira)
    told = words_of(vira, "/p/acme/replay")
    assert "Version 3 · Everybody to the overflow" in told
    assert "6 of 7 differently vira@example.org" in told


def test_a_link_need_not_say_all(day: Day, vira: Browser) -> None:
    page = vira.get("/p/acme/replay?through=2&period=week").text
    assert '<option selected value="2">' in page
    assert '<option selected value="week">' in page
    assert 'value="10000"' in page


def test_a_number_of_calls_that_is_none_is_refused(day: Day, vira: Browser) -> None:
    answer = vira.post("/p/acme/replay", through="now", period="today", most="0")
    assert answer.status_code == 422
    assert "from 1 to 10000" in answer.text


@pytest.mark.parametrize("given", [{"through": "draft"}, {"through": "99"}, {"period": "decade"}])
def test_a_choice_that_is_gone_is_refused(day: Day, vira: Browser, given: dict[str, str]) -> None:
    answer = vira.post("/p/acme/replay", **{"through": "now", "period": "today", "most": "10"} | given)
    assert answer.status_code == 422
    assert "What you chose is not there any more. Choose again." in answer.text
    assert day.admin.all(models.Study) == []
    assert vira.get("/p/acme/replay", query_string=given).status_code == 200


def test_an_old_version_can_be_replayed_again(day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studying, "MOST_VERSIONS", 1)
    version = day.decision(1).config_version
    assert f'value="{version}"' not in vira.get("/p/acme/replay").text
    assert f'<option selected value="{version}">' in vira.get(f"/p/acme/replay?through={version}").text
    assert f"through version {version}" in words_of(vira, start(vira, through=str(version)))


def test_nothing_to_replay_says_what_to_do(admin: Admin, vira: Browser) -> None:
    assert "There are no calls to replay yet" in words_of(vira, "/p/acme/replay")
    Day(admin).call()
    told = words_of(vira, start(vira, period="yesterday"))
    assert "There were no calls in this time. Choose other calls" in told


def section(admin: Admin, document: dict[str, Any]) -> str:
    """The part of a draft's page."""
    with admin.app.test_request_context("/p/acme/draft"):
        enter_project("acme")
        shown = section_of(document, "/p/acme/draft", "/p/acme/draft/replay")
        return text_of(f"<main {render_template('replay/_section.html', section=shown)}</main>")


def test_a_draft_shows_its_newest_replay(day: Day) -> None:
    with day.database.reading() as session:
        document = load_document(session, day.project_id, 3)
    assert document is not None
    assert "Replay yesterday’s calls" in section(day.admin, document)
    told = {"through": "draft", "version": 3, "period": "today", "digest": digest_of(document), "most": 100}
    told |= {"since": "2026-01-01T00:00:00+00:00", "until": "2999-01-01T00:00:00+00:00"}
    studies.start(day.database, day.project_id, "replay", document, told, "emil")
    assert "6 of 7 answers would have been different." in section(day.admin, document)
    assert "The draft was changed since." not in section(day.admin, document)
    assert "The draft was changed since." in section(day.admin, {**document, "rules": document["rules"][:1]})


def test_a_draft_is_replayed_from_its_review_and_from_the_replay_page(day: Day, vira: Browser) -> None:
    assert 'value="draft"' not in vira.get("/p/acme/replay").text
    apply(day.database, load(CONFIG, {}), as_draft=True)
    assert "7 of 7" not in words_of(vira, "/p/acme/draft")
    page = words_of(vira, start(vira, through="draft"))
    assert "All 7 answers would have been the same." in page
    assert "through the draft" in page
    answer = vira.post("/p/acme/draft/replay", next="/p/acme/draft#replay")
    assert answer.location == "/p/acme/draft#replay"
    assert "There were no calls in this time." in words_of(vira, "/p/acme/draft")
    part = vira.get("/p/acme/draft/replay").text
    assert "There were no calls in this time." in part
    assert "<main" not in part
