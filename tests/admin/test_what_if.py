"""The pages of what-ifs: chosen by anybody who may look, told in figures, with their error and what they rest on."""

from __future__ import annotations

import html
import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from router.configuration import apply, load
from router.db import models
from router.explanation import studies
from tests.admin.conftest import Admin, Browser
from tests.admin.day import CONFIG, Day
from tests.admin.test_replays import run_at_once, store, words_of

TODAY = datetime.now(ZoneInfo("Europe/Kyiv")).date().isoformat()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "launch", run_at_once)


@pytest.fixture
def day(admin: Admin) -> Day:
    """Alice answers the first call of today, and nobody is free for the others."""
    day = Day(admin)
    day.call("380501110000", call_id="first")
    day.hear("pickup", "first", "acme_alice")
    for number in range(1, 6):
        day.call(f"38050111{number:04}")
    return day


def id_of(day: Day, model: Any, name: str) -> str:
    return str(day.admin.one(model, project_id=day.project_id, name=name).id)


def start(browser: Browser, **fields: Any) -> str:
    """The address of a new what-if of today."""
    answer = browser.post("/p/acme/what-if", **({"through": "now", "first": TODAY, "last": TODAY} | fields))
    assert answer.status_code == 303, answer.text
    return str(answer.location)


def refused(browser: Browser, **fields: Any) -> str:
    answer = browser.post("/p/acme/what-if", **({"through": "now", "first": TODAY, "last": TODAY} | fields))
    assert answer.status_code == 422, answer.status_code
    return html.unescape(answer.text)


def test_a_viewer_sees_what_a_day_without_an_agent_would_have_been(day: Day, vira: Browser) -> None:
    told = words_of(vira, start(vira, without=id_of(day, models.Agent, "Alice")))
    assert "What if: without Alice" in told
    assert "About as many calls would have gone to the overflow: 100.0 % instead of 83.3 %." in told
    assert "A difference of up to 16.7 points says nothing" in told  # one of six calls
    assert re.search(r"Calls to the overflow 83\.3 % 83\.3 % 100\.0 % \+16\.7 points", told)
    assert "With nothing changed, the simulation differs from what happened by 0.0 points for the overflow" in told
    assert "The same callers call at the same moments" in told
    assert "With other hours" not in told


def test_nothing_is_said_where_the_log_does_not_tell_of_answers(admin: Admin, vira: Browser) -> None:
    day = Day(admin)
    for number in range(6):
        day.call(f"38050111{number:04}")
    told = words_of(vira, start(vira, without=id_of(day, models.Agent, "Alice")))
    assert "Whether more or fewer calls would have gone to the overflow cannot be said." in told
    assert "The log does not tell of most offers whether agents answered." in told
    assert "Wait until an agent answers – – – –" in told


def test_each_change_can_be_chosen(day: Day, vira: Browser) -> None:
    told = words_of(
        vira,
        start(
            vira,
            more=id_of(day, models.Agent, "Alice"),
            group=id_of(day, models.Group, "sales"),
            strategy="priority",
            schedule=id_of(day, models.Schedule, "office hours"),
            begin="8",
            end="20:30",
        ),
    )
    assert "What if: sales: Priority, one more like Alice, office hours: 08:00–20:30" in told
    assert "About as many calls would have gone to the overflow" in told
    assert re.search(r"Alice 2 0\.0 % 0\.0 % \d+\.\d %", told)
    assert "A further agent is at work when" in told
    assert "With other hours" in told


def test_an_agent_is_replaced_by_one_alike(day: Day, vira: Browser) -> None:
    alice = id_of(day, models.Agent, "Alice")
    told = words_of(vira, start(vira, without=alice, more=alice))
    assert "What if: without Alice, one more like Alice" in told
    assert "83.3 % instead of 83.3 %" in told


def test_the_form_can_be_filled_in_as_it_was(day: Day, vira: Browser) -> None:
    alice = id_of(day, models.Agent, "Alice")
    page = vira.get(start(vira, without=alice)).text
    (url,) = re.findall(r'href="(/p/acme/what-if\?[^"]*)"', page)
    form = vira.get(html.unescape(url)).text
    assert re.search(rf'<option selected value="{alice}">Alice', form.partition('id="without"')[2])
    assert form.count(f'value="{TODAY}"') == 2


def test_the_draft_is_simulated(day: Day, emil: Browser) -> None:
    alice = id_of(day, models.Agent, "Alice")
    shown = emil.get(f"/p/acme/draft/agents/{alice}").text
    revision, marks = (
        re.search(rf'name="{name}"[^>]*value="([^"]*)"', shown) for name in ("revision", "revision_marks")
    )
    assert revision
    fields = {
        "name": "Alice",
        "sip_logins": "acme_alice",
        "paused": "y",
        "revision": revision[1],
        "wrap_up_seconds": "10",
    }
    emil.post(f"/p/acme/draft/agents/{alice}", **fields, revision_marks=marks[1] if marks else "")
    told = words_of(emil, start(emil, through="draft"))
    assert "What if: the draft" in told
    assert "100.0 % instead of 83.3 %" in told


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"first": "2026-01-01", "last": "2026-01-01"}, "There are no calls of this time in the log."),
        ({"first": TODAY, "last": "2026-01-01"}, "7 days in all at most"),
        ({"first": "yesterday"}, "Choose a day."),
        ({"first": "9999-12-31", "last": "9999-12-31"}, "Choose a day."),
        ({"first": "0001-01-01", "last": "0001-01-01"}, "Choose a day."),
        ({"through": "draft"}, "What you chose is not there any more. Choose again."),
        ({"through": "77"}, "What you chose is not there any more. Choose again."),
        ({"without": "999999"}, "What you chose is not there any more. Choose again."),
        ({"strategy": "by_name"}, "What you chose is not there any more. Choose again."),
        ({"strategy": "priority"}, "Choose a group and its new strategy."),
        ({"begin": "8", "end": "9"}, "Choose the schedule whose hours these are."),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_with_words(day: Day, vira: Browser, fields: dict[str, str], words: str) -> None:
    assert words in refused(vira, **fields)
    assert not day.admin.all(models.Study)


def test_days_whose_configurations_are_gone_are_refused(day: Day, vira: Browser) -> None:
    with day.database.writing() as session:
        session.execute(update(models.Decision).values(config_version=99))
    assert "The configurations by which calls of this time were answered are no longer kept." in refused(vira)


def test_a_day_on_which_only_a_call_from_before_is_asked_for_gives_no_verdict(admin: Admin, vira: Browser) -> None:
    day = Day(admin)
    midnight = datetime.now(ZoneInfo("Europe/Kyiv")).replace(hour=0, minute=0, second=0, microsecond=0)
    for step, seconds in (("webhookNumber:1", -10), ("webhookNumber:2", 10)):
        day.call(call_id="late", step=step)
        newest = max(one.id for one in admin.all(models.Decision))
        with day.database.writing() as session:
            moved = update(models.Decision).where(models.Decision.id == newest)
            session.execute(moved.values(asked_at=midnight + timedelta(seconds=seconds)))
    told = words_of(vira, start(vira))
    assert "No call begins in this time" in told
    assert "calls would have gone" not in told


def test_hours_need_a_beginning_before_an_end(day: Day, vira: Browser) -> None:
    office = id_of(day, models.Schedule, "office hours")
    assert "Write from when until when" in refused(vira, schedule=office, begin="20", end="8")


def test_a_change_of_what_the_configuration_lacks_is_refused(day: Day, vira: Browser) -> None:
    before = day.admin.one(models.Project, name="acme").version
    apply(
        day.database,
        load(CONFIG.replace("    agents:\n", "    agents:\n      - {name: Eve, sip_logins: [acme_eve]}\n"), {}),
    )
    eve = id_of(day, models.Agent, "Eve")
    assert "This is not in the configuration that you chose." in refused(vira, through=str(before), more=eve)
    assert "one more like Eve" in words_of(vira, start(vira, more=eve))


def test_an_interrupted_what_if_says_so(day: Day, vira: Browser) -> None:
    url = start(vira)
    store(day.database, int(url.rpartition("/")[2]), state="interrupted", result=None)
    told = words_of(vira, url)
    assert "The what-if was interrupted" in told
    assert "Start again" in told


def test_one_that_runs_shows_how_far_it_is_and_is_stopped(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studies, "launch", lambda *_: None)
    url = start(vira)
    store(day.database, int(url.rpartition("/")[2]), done=3, total=12)
    assert "3 of 12 calls" in words_of(vira, url)
    answer = vira.post("/p/acme/replay", through="now", period="today", most="10")
    assert answer.location == url
    assert "vira@example.org’s what-if is running." in html.unescape(vira.get(url).text)
    vira.post(f"{url}/stop")
    assert "The what-if was stopped." in words_of(vira, url)


def test_a_replay_is_no_what_if(day: Day, vira: Browser) -> None:
    replay = vira.post("/p/acme/replay", through="now", period="today", most="10").location
    number = str(replay).rpartition("/")[2]
    assert vira.get(f"/p/acme/what-if/{number}").status_code == 404


def test_an_empty_log_says_that_there_is_nothing_to_simulate(admin: Admin, vira: Browser) -> None:
    Day(admin)
    assert "There are no calls to simulate yet" in vira.get("/p/acme/what-if").text
