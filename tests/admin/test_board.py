"""The live board: it says what the rules say, counts what there is, sends what changed, and takes one-click deeds."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, func, select

from router.admin.leave import leave_for
from router.admin.views.board import AGENT_ROWS, STATES, TILES, ActionError, Look, _until
from router.core.model import Call, SkipReason
from router.db import models
from router.db.board import HOUR, day_start, read_now, tally
from router.db.documents import configured
from router.db.types import to_micros
from router.explanation.agents import board_agents, present_of
from router.routing.route import Routing
from tests.admin.conftest import Admin, Browser
from tests.admin.day import CONFIG, Day

BOARD = "/p/acme/board"


@pytest.fixture
def day(admin: Admin) -> Day:
    return Day(admin)


@pytest.fixture
def day_everywhere(admin_everywhere: Admin) -> Day:
    return Day(admin_everywhere)


def words(html: str) -> str:
    """The text of a piece of a page."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def row_of(page: str, day: Day, name: str) -> str:
    """An agent's row, in words."""
    found = re.search(rf'<tr role="row" id="agent-{day.agents[name]}">(.*?)</tr>', page, re.DOTALL)
    assert found is not None, f"{name} is not on the board"
    return words(found[1])


def seen_of(page: str) -> str:
    found = re.search(r'id="board-seen" name="seen" value="([^"]*)"', page)
    assert found is not None
    return found[1]


def partials(html: str) -> list[str]:
    return re.findall(r'<hx-partial hx-target="#([\w-]+)"', html)


# ---- what it shows


def test_tells_each_agents_state_in_words(day: Day, vira: Browser) -> None:
    page = vira.get(BOARD).text
    assert row_of(page, day, "Alice").startswith("Alice sales acme_alice acme_alice_mob Idle")
    assert page.index('aria-label="Online"') < page.index("acme_alice<") < page.index('aria-label="Offline"')
    assert "Speaking" in row_of(page, day, "Bob")
    assert "On break" in row_of(page, day, "Carol")
    assert "Offline" in row_of(page, day, "Dave")
    assert "at most 80" in row_of(page, day, "Bob")


def test_a_reserved_agent_stands_with_the_caller_and_a_talk_with_its_call(day: Day, vira: Browser) -> None:
    decision_id = day.call("380671112233", call_id="c1").decision_id
    row = row_of(vira.get(BOARD).text, day, "Alice")
    assert "Reserved +380 67 111 22 33" in row
    day.hear("pickup", "c1", "acme_alice")
    page = vira.get(BOARD).text
    assert "Speaking +380 67 111 22 33" in row_of(page, day, "Alice")
    assert f'href="/p/acme/calls/{decision_id}"' in page
    day.hear("after_call", "c1", "acme_alice", disposition="ANSWERED", billsec="30")
    assert "Wrap-up until" in row_of(vira.get(BOARD).text, day, "Alice")
    assert "1 / 1" in row_of(vira.get(BOARD).text, day, "Alice")


def test_who_talks_on_a_break_is_shown_to_do_both(day: Day, vira: Browser) -> None:
    day.see(speaking={"acme_carol"})
    assert "Speaking On break" in row_of(vira.get(BOARD).text, day, "Carol")


def test_says_why_the_service_set_somebody_on_a_break(day: Day, vira: Browser) -> None:
    day.declare("Carol", status_reason="no_answers")
    assert "after missed calls" in row_of(vira.get(BOARD).text, day, "Carol")


@pytest.mark.parametrize("seed", range(12))
def test_says_of_everybody_what_a_decision_would_say(day: Day, seed: int) -> None:
    dice = random.Random(seed)
    now = datetime.now(UTC)
    soon = now + timedelta(minutes=3)
    for name in day.agents:
        day.declare(
            name,
            status=dice.choice(["available", "available", "available", "on_break", "off_duty"]),
            paused_until=dice.choice([None, None, soon, now - timedelta(minutes=1)]),
            wrap_up_until=dice.choice([None, soon]),
            cooling_until=dice.choice([None, soon]),
            answered_today=dice.choice([0, 80]),
            day=now.astimezone(ZoneInfo("Europe/Kyiv")).date(),
        )
    logins = ["acme_alice", "acme_alice_mob", "acme_bob", "acme_carol", "acme_dave"]
    day.see(dice.sample(logins, 4), dice.sample(logins, 1), ago=timedelta(seconds=dice.choice([0, 0, 100, 5000])))
    with day.database.reading() as session:
        found = configured(session, day.project_id, day.admin.one(models.Project, name="acme").version)
        assert found is not None
        seen = read_now(session, day.project_id)
        counts = tally(session, day.project_id, now=seen.health.now, day_at=0, hours_at=0)
    told = {agent.id: agent for agent in board_agents(present_of(found.project, seen), seen, counts)}
    _project, _snapshot, decision = Routing(day.database).explain(day.project_id, Call(caller="380501112233"))
    (trial,) = decision.trials
    for candidate in trial.candidates:
        agent = told[candidate.agent_id]
        wanted = str(candidate.skip) if candidate.skip else "idle"
        assert wanted == agent.state or wanted in agent.also, agent.name
        assert agent.state in STATES


def test_each_state_is_counted_once(day: Day) -> None:
    counted = [state for states in TILES.values() for state in states]
    assert sorted(counted) == sorted(STATES)
    assert {str(reason) for reason in SkipReason} - {"already_tried"} < set(STATES)


def test_counts_calls_of_the_day_by_agent_and_by_the_hour(day_everywhere: Day) -> None:
    day = day_everywhere
    dice = random.Random(1)
    zone = ZoneInfo("Europe/Kyiv")
    agents = [None, *day.agents.values()]
    noon = datetime(2026, 11, 23, 12, 34, tzinfo=zone)
    for _ in range(120):
        at = noon - timedelta(minutes=dice.randrange(60 * 20))
        day.log(asked_at=at, agent_id=dice.choice(agents))

    def check(now: datetime) -> None:
        day_at, hours_at = day_start(now), to_micros(now.replace(minute=0, second=0) - timedelta(hours=11))
        with day.database.reading() as session:
            found = tally(session, day.project_id, now=to_micros(now), day_at=day_at, hours_at=hours_at)
            rows = session.execute(select(models.Decision.asked_at, models.Decision.agent_id)).all()
        offers = Counter(row.agent_id for row in rows if row.agent_id and to_micros(row.asked_at) >= day_at)
        hours = Counter(
            (to_micros(row.asked_at) // HOUR, row.agent_id is not None)
            for row in rows
            if to_micros(row.asked_at) >= hours_at
        )
        assert found.offers == offers
        assert found.to_agents == Counter({hour: n for (hour, offered), n in hours.items() if offered})
        assert found.to_overflow == Counter({hour: n for (hour, offered), n in hours.items() if not offered})

    check(noon)
    for minutes in (1, 3, 4, 30, 90, 700, 800):  # across hours and midnight, within and beyond what is kept
        for _ in range(3):
            day.log(
                asked_at=noon + timedelta(minutes=minutes, seconds=-dice.randrange(50)), agent_id=dice.choice(agents)
            )
        check(noon + timedelta(minutes=minutes))


def test_a_call_written_down_late_is_counted_within_two_minutes(day: Day) -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    at = {"day_at": to_micros(now) - HOUR, "hours_at": to_micros(now) - HOUR}

    def offers(micros: int) -> int:
        with day.database.reading() as session:
            return sum(tally(session, day.project_id, now=micros, **at).offers.values())

    assert offers(to_micros(now)) == 0
    day.log(asked_at=now - timedelta(minutes=30), agent_id=day.agents["Alice"])
    assert offers(to_micros(now) + 120_000_001) == 1


def test_shows_the_last_calls_with_who_was_passed_over(day: Day, vira: Browser) -> None:
    day.call("380671112233")
    day.call("")
    page = vira.get(BOARD).text
    first, second = re.findall(r'<li id="decision-\d+">(.*?)</li>', page, re.DOTALL)
    assert "+380 67 111 22 33" in words(second)
    assert "Alice acme_alice" in words(second)
    assert "VIP" in words(second)
    assert "passed over: 2 speaking" in words(second)  # Bob is in both groups of the rule
    assert "anonymous" in words(first)
    assert "Overflow +380 44 123 45 67" in words(first)


def test_a_number_is_masked_where_the_project_says_so(admin: Admin, vira: Browser) -> None:
    day = Day(admin, CONFIG.replace("overflow:", "mask_numbers: true\n    overflow:", 1))
    day.call("380671112233")
    page = vira.get(BOARD).text
    assert "38067***33" in page
    assert "1112233" not in page.replace(" ", "").replace("380441112233", "")


def test_what_strangers_send_is_only_text(day: Day, vira: Browser) -> None:
    day.call('"><script>alert(1)</script>', step="<b>step</b>")
    page = vira.get(BOARD).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize(
    ("ago", "error", "told"),
    [
        (0, "", "Presence up to date"),
        (100, "", "Presence is out of date: read"),
        (100, "", "Meanwhile calls go by what was last known, for up to 600 s."),
        (5000, "", "The last known presence is too old: all calls go to the overflow."),
        (5000, "unauthorized", "Ringostat does not accept the Auth-key. Copy the Auth-key again"),
        (0, "timeout", "Presence up to date"),
    ],
)
def test_tells_how_old_presence_is_what_is_wrong_and_what_calls_do(
    day: Day, vira: Browser, ago: int, error: str, told: str
) -> None:
    day.see(ago=timedelta(seconds=ago))
    with day.database.writing() as session:
        presence = session.get_one(models.Presence, day.project_id)
        presence.error_code, presence.error_message, presence.error_remedy = error, "the key is wrong", "Copy it anew."
    assert told in words(vira.get(BOARD).text)


# ---- from nothing


def test_leads_from_an_empty_project_to_the_first_call(admin: Admin, emil: Browser) -> None:
    def steps() -> list[str]:
        page = emil.get("/p/acme/board").text
        return [words(found) for found in re.findall(r'<li class="done">(.*?)</li>', page, re.DOTALL)]

    page = words(emil.get(BOARD).text)
    assert "From here to the first routed call" in page
    assert "Presence was never read" not in page, "the steps say what to do"
    assert "No agents yet" in page
    assert "No calls yet" in page
    assert len(steps()) == 1
    day = Day(admin)
    assert len(steps()) == 5
    day.call()
    assert "From here to the first routed call" not in emil.get(BOARD).text


def test_the_list_of_steps_says_how_many_logins_are_nobodys(admin: Admin, emil: Browser) -> None:
    config = CONFIG[: CONFIG.index("    agents:")]
    day = Day.__new__(Day)
    day.agents = {"Carol": 0}
    day.__init__(admin, config + "    agents: [{name: Carol, sip_logins: []}]\n")  # type: ignore[misc]
    assert "3 logins are online and not assigned to an agent yet." in words(emil.get(BOARD).text)


# ---- what is looked at


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("", ["Alice", "Bob", "Carol", "Dave"]),
        ("?state=idle", ["Alice"]),
        ("?state=away", ["Carol"]),
        ("?state=offline", ["Dave"]),
        ("?state=nonsense", ["Alice", "Bob", "Carol", "Dave"]),
        ("?q=ALICE_mob", ["Alice"]),
        ("?q=bO", ["Bob"]),
        ("?sort=state", ["Alice", "Bob", "Carol", "Dave"]),
        ("?group=999", []),
        ("?q=zzz", []),
    ],
)
def test_narrows_the_table(day: Day, vira: Browser, asked: str, names: list[str]) -> None:
    page = vira.get(BOARD + asked).text
    shown = re.findall(r'id="agent-(\d+)"', page)
    by_id = {str(number): name for name, number in day.agents.items()}
    assert [by_id[number] for number in shown] == names
    assert ("Nobody matches right now" in page) is (not names)


def test_narrows_to_a_group(day: Day, vira: Browser) -> None:
    vip = day.admin.one(models.Group, name="vip").id
    assert re.findall(r'id="agent-(\d+)"', vira.get(f"{BOARD}?group={vip}").text) == [str(day.agents["Bob"])]


def test_sorts_by_calls_and_by_since(day: Day, vira: Browser) -> None:
    today = datetime.now(ZoneInfo("Europe/Kyiv")).date()
    day.declare("Dave", answered_today=5, day=today)
    day.declare("Bob", answered_today=2, day=today)
    page = vira.get(f"{BOARD}?sort=calls").text
    assert re.findall(r'id="agent-(\d+)"', page)[:2] == [str(day.agents["Dave"]), str(day.agents["Bob"])]
    assert 'aria-sort="descending"' in page


def test_tells_how_long_an_agent_talked_today(day: Day, emil: Browser) -> None:
    today = datetime.now(ZoneInfo("Europe/Kyiv")).date()
    panel = f"{BOARD}/agents/{day.agents['Bob']}"
    assert "Talked today" not in emil.get(panel).text
    for seconds, words in ((40, "40 s"), (125, "2 min 5 s"), (7500, "2 h 5 min")):
        day.declare("Bob", answered_today=2, talked_today=seconds, day=today)
        assert f"<dt>Talked today</dt><dd>{words}</dd>" in re.sub(r"\s+(?=<)", "", emil.get(panel).text)


def test_a_long_list_is_cut_and_unfolds(admin: Admin, vira: Browser) -> None:
    agents = [{"name": f"Agent {n:04}", "sip_logins": [f"acme_{n}"]} for n in range(AGENT_ROWS + 5)]
    lines = "\n".join(f"      - {{name: {a['name']}, sip_logins: {a['sip_logins']}}}" for a in agents)
    day = Day.__new__(Day)
    config = CONFIG[: CONFIG.index("    agents:")] + f"    agents:\n      - {{name: Carol}}\n{lines}\n"
    day.__init__(admin, config)  # type: ignore[misc]
    page = vira.get(BOARD).text
    assert page.count('id="agent-') == AGENT_ROWS
    assert f"The first {AGENT_ROWS} of {AGENT_ROWS + 6}." in page
    assert vira.get(f"{BOARD}?all=1").text.count('id="agent-') == AGENT_ROWS + 6


def test_a_look_survives_its_address() -> None:
    look = Look("idle", 3, "ann & co", "calls", is_all=True)
    assert Look.read(look.arguments) == look
    assert Look().arguments == {}


# ---- what is sent again


def test_a_tick_brings_nothing_when_nothing_changed(day: Day, vira: Browser) -> None:
    seen = seen_of(vira.get(BOARD).text)
    response = vira.get(f"{BOARD}/live?seen={seen}")
    assert (response.status_code, response.text) == (204, "")


def test_a_tick_brings_the_rows_and_parts_that_changed(day: Day, vira: Browser) -> None:
    seen = seen_of(vira.get(BOARD).text)
    day.declare("Alice", status="off_duty")
    news = vira.get(f"{BOARD}/live?seen={seen}").text
    assert partials(news) == ["board-tiles", f"agent-{day.agents['Alice']}", "board-seen"]
    assert "Off duty" in row_of(news, day, "Alice")
    assert vira.get(f"{BOARD}/live?seen={seen_of(news)}").status_code == 204


def test_a_new_reading_alone_brings_presence_alone(day: Day, vira: Browser) -> None:
    seen = seen_of(vira.get(BOARD).text)
    with day.database.writing() as session:
        session.get_one(models.Presence, day.project_id).began_at = datetime.now(UTC)
    assert partials(vira.get(f"{BOARD}/live?seen={seen}").text) == ["board-presence", "board-seen"]


def test_a_tick_brings_the_table_when_others_are_to_be_shown(day: Day, vira: Browser) -> None:
    seen = seen_of(vira.get(f"{BOARD}?state=idle").text)
    day.see(online={"acme_alice", "acme_dave"}, speaking=set())
    news = vira.get(f"{BOARD}/live?state=idle&seen={seen}").text
    assert "board-agents" in partials(news)
    assert re.findall(r'<tr role="row" id="agent-(\d+)"', news) == [str(day.agents["Alice"]), str(day.agents["Dave"])]


@pytest.mark.parametrize("seen", ["", "x", "AAAA" * 3, "AAAA" * 40, "%00", "ї"])
def test_a_browser_that_has_something_else_gets_everything(day: Day, vira: Browser, seen: str) -> None:
    news = vira.get(f"{BOARD}/live", query_string={"seen": seen}).text
    assert {"board-presence", "board-tiles", "board-calls", "board-agents", "board-decisions"} <= set(partials(news))


def test_looks_with_five_statements_whatever_there_is(day: Day, vira: Browser) -> None:
    for _ in range(3):
        day.call()
    vira.get(f"{BOARD}/live")
    statements: list[str] = []
    engine = day.admin.app.extensions["admin"].database.engine
    page = threading.get_ident()  # what is looked at in other threads keeps no page waiting

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == page:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    vira.get(f"{BOARD}/live")
    asked = [
        one for one in statements if "FROM users" not in one and one != "BEGIN" and "projects.created_at" not in one
    ]
    assert len(asked) == 5, asked


# ---- deeds


def deed(browser: Browser, day: Day, what: str, name: str, argument: str = "", **more: Any) -> Any:
    value = f"{what}:{day.agents[name]}" + (f":{argument}" if argument else "")
    return browser.post(f"{BOARD}/deed", do=value, **more)


def test_one_click_sets_on_a_break_and_back(day: Day, emil: Browser) -> None:
    day.declare("Alice", no_answers=2, status_reason="no_answers")
    before = datetime.now(UTC)
    assert deed(emil, day, "on_break", "Alice").status_code == 303
    state = day.state("Alice")
    assert (state.status, state.status_reason) == ("on_break", "")
    assert state.status_since_at is not None
    assert state.status_since_at >= before - timedelta(seconds=1)
    deed(emil, day, "available", "Alice")
    state = day.state("Alice")
    assert (state.status, state.no_answers, state.cooling_until) == ("available", 0, None)
    assert state.available_since_at is not None
    assert state.available_since_at >= before - timedelta(seconds=1)


def test_a_deed_counts_for_the_next_call(day: Day, emil: Browser) -> None:
    deed(emil, day, "on_break", "Alice")
    decision = day.call().decision
    assert decision is not None
    assert decision.result == "overflow"


def test_a_deed_is_written_down_with_who_did_it(day: Day, emil: Browser) -> None:
    deed(emil, day, "off_duty", "Alice")
    deed(emil, day, "off_duty", "Alice")  # nothing more happens
    (entry,) = [e for e in day.admin.all(models.AuditEntry, subject="agent") if e.after == {"status": "off_duty"}]
    assert (entry.actor, entry.subject_name, entry.before) == ("emil@example.org", "Alice", {"status": "available"})


def test_pauses_for_minutes_and_resumes(day: Day, emil: Browser) -> None:
    before = datetime.now(UTC)
    assert "Alice is paused until" in deed(emil, day, "pause", "Alice", "30", follow=True).text
    until = day.state("Alice").paused_until
    assert until is not None
    assert timedelta(minutes=29) < until - before < timedelta(minutes=31)
    assert "Paused" in row_of(emil.get(BOARD).text, day, "Alice")
    deed(emil, day, "resume", "Alice")
    assert day.state("Alice").paused_until is None


def test_resuming_takes_back_a_pause_of_the_configuration(admin: Admin, emil: Browser) -> None:
    day = Day(admin, CONFIG.replace("wrap_up_seconds: 10", "paused: true"))
    version = admin.one(models.Project, name="acme").version
    deed(emil, day, "resume", "Alice")
    assert admin.one(models.Agent, name="Alice").paused is False
    assert admin.one(models.Project, name="acme").version == version + 1


@pytest.mark.parametrize(
    ("text", "hours_ahead"),
    [("14:30", 2.5), ("11:00", 23), ("90", 1.5), ("23:59", 11.983), ("12:00", 24), ("44640", 744)],
)
def test_until_is_minutes_or_the_next_time_the_clock_shows_it(text: str, hours_ahead: float) -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=ZoneInfo("Europe/Kyiv"))
    assert (_until(text, now) - now).total_seconds() / 3600 == pytest.approx(hours_ahead, abs=0.01)


def test_until_minutes_are_real_ones_when_the_clocks_change() -> None:
    now = datetime(2026, 3, 29, 2, 50, tzinfo=ZoneInfo("Europe/Kyiv"))  # ten minutes later it is four
    assert _until("20", now).strftime("%H:%M") == "04:10"


@pytest.mark.parametrize("text", ["", "x", "25:00", "12:60", "0", "-5", "1e3", "99999", "12:30:15", "²"])
def test_until_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(ActionError):
        _until(text, datetime(2026, 11, 23, 12, 0, tzinfo=ZoneInfo("Europe/Kyiv")))


def test_a_pause_until_no_time_is_refused_and_changes_nothing(day: Day, emil: Browser) -> None:
    assert "Write until when, as in 14:30." in deed(emil, day, "pause", "Alice", until="25:00", follow=True).text
    assert day.state("Alice").paused_until is None


@pytest.mark.parametrize("do", ["", "on_break", "on_break:", "dance:1", "on_break:x", f"on_break:{10**20}", "pause:²"])
def test_a_deed_that_makes_no_sense_is_refused(day: Day, emil: Browser, do: str) -> None:
    assert emil.post(f"{BOARD}/deed", do=do).status_code == 400


def test_a_deed_reaches_no_other_projects_agents(day: Day, emil: Browser) -> None:
    assert emil.post("/p/globex/board/deed", do=f"on_break:{day.agents['Alice']}").status_code == 404
    assert day.state("Alice").status == "available"


def test_a_deed_in_the_background_brings_what_changed_and_says_so(day: Day, emil: Browser) -> None:
    seen = seen_of(emil.get(f"{BOARD}?state=idle").text)
    response = emil.post(f"{BOARD}/deed", do=f"on_break:{day.agents['Alice']}", seen=seen, look="state=idle", htmx=True)
    assert "board-agents" in partials(response.text)
    assert "Alice is on a break." in response.headers["HX-Trigger"]


def test_a_message_in_a_header_may_be_in_any_language(day: Day, emil: Browser) -> None:
    emil.client.set_cookie("language", "uk")
    response = deed(emil, day, "pause", "Alice", "30", htmx=True)
    assert response.headers["HX-Trigger"].isascii()


def test_an_editor_and_a_viewer_get_rows_of_their_own(day: Day, emil: Browser, vira: Browser) -> None:
    assert "Set on break" in emil.get(BOARD).text
    assert "Set on break" not in vira.get(BOARD).text
    emil.client.set_cookie("language", "uk")
    assert "Set on break" not in emil.get(BOARD).text


def test_the_panel_of_an_agent_offers_every_deed(day: Day, emil: Browser) -> None:
    page = emil.get(f"{BOARD}/agents/{day.agents['Alice']}").text
    for what in ("available", "on_break", "off_duty", "pause"):
        assert f'value="{what}:{day.agents["Alice"]}' in page
    assert emil.get(f"{BOARD}/agents/999999").status_code == 404


@pytest.mark.parametrize(
    ("at", "preset", "start", "end"),
    [
        ("2026-11-25T12:00:00+02:00", "today", None, "2026-11-26T00:00:00+02:00"),
        ("2026-11-25T12:00:00+02:00", "tomorrow", "2026-11-26T00:00:00+02:00", "2026-11-27T00:00:00+02:00"),
        ("2026-11-25T12:00:00+02:00", "week", None, "2026-11-30T00:00:00+02:00"),
        ("2026-11-29T23:59:00+02:00", "week", None, "2026-11-30T00:00:00+02:00"),
        ("2026-03-28T23:30:00+02:00", "tomorrow", "2026-03-29T00:00:00+02:00", "2026-03-30T00:00:00+03:00"),
        ("2026-10-25T01:30:00+03:00", "today", None, "2026-10-26T00:00:00+02:00"),
    ],
)
def test_a_leave_ends_at_midnight_also_when_the_clocks_change(
    at: str, preset: str, start: str | None, end: str
) -> None:
    begin, until = leave_for(preset, datetime.fromisoformat(at).astimezone(ZoneInfo("Europe/Kyiv")))
    assert (begin and begin.isoformat(), until.isoformat()) == (start, end)


def test_a_leave_begins_when_it_is_set_or_later_and_ends_by_one_click(day: Day, emil: Browser) -> None:
    deed(emil, day, "leave", "Alice", "today", deputy=str(day.agents["Dave"]))
    alice = row_of(emil.get(BOARD).text, day, "Alice")
    assert re.search(r"Off duty Away until \d\d\.\d\d 24:00 · deputy Dave .*End leave", alice)
    day.see(online={"acme_alice", "acme_dave"}, speaking=set())
    assert day.call().destination == "acme_dave"
    assert "Alice is back." in deed(emil, day, "return", "Alice", follow=True).text
    assert "Away" not in row_of(emil.get(BOARD).text, day, "Alice")
    deed(emil, day, "leave", "Alice", "tomorrow", deputy="")
    alice = row_of(emil.get(BOARD).text, day, "Alice")
    assert re.search(r"Idle Away from \d\d\.\d\d until \d\d\.\d\d 24:00", alice)
    assert "End leave" not in alice
    (agent,) = day.admin.all(models.Agent, name="Alice")
    assert agent.deputy_id is None


def test_days_of_a_leave_include_the_last(day: Day, emil: Browser) -> None:
    deed(emil, day, "leave", "Alice", first="2090-12-24", last="2090-12-31")
    assert "Away from 24.12 until 31.12 24:00" in row_of(emil.get(BOARD).text, day, "Alice")


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({}, "Choose the days of the leave."),
        ({"first": "soon", "last": "2090-12-31"}, "Choose the days of the leave."),
        ({"first": "2090-12-24", "last": "2090-12-23"}, "The last day is before the first one, or past."),
        ({"last": "2020-12-24"}, "The last day is before the first one, or past."),
        ({"last": "2090-12-24", "deputy": "999999"}, "This deputy no longer exists: choose another."),
    ],
)
@pytest.mark.parametrize("htmx", [False, True])
def test_a_refused_leave_stays_in_the_panel_as_typed(
    day: Day, emil: Browser, sent: dict[str, str], told: str, htmx: bool
) -> None:
    answer = deed(emil, day, "leave", "Alice", **sent, htmx=htmx)
    assert (answer.status_code, told in answer.text) == (422, True)
    assert all(f'name="{name}" value="{sent[name]}"' in answer.text for name in ("first", "last") if name in sent)
    assert "Away" not in row_of(emil.get(BOARD).text, day, "Alice")


def test_who_is_away_is_offered_no_status_that_contradicts(day: Day, emil: Browser) -> None:
    panel = f"{BOARD}/agents/{day.agents['Alice']}"
    deed(emil, day, "leave", "Alice", "week", deputy="")
    page = emil.get(panel).text
    assert "End leave" in page
    assert "Available" not in page
    deed(emil, day, "return", "Alice")
    assert "Available" in emil.get(panel).text


def test_states_are_all_told_in_words(day: Day, vira: Browser) -> None:
    with day.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(models.AgentState)) == 4
    for name, values in {
        "Alice": {"wrap_up_until": datetime.now(UTC) + timedelta(seconds=9)},
        "Bob": {"cooling_until": datetime.now(UTC) + timedelta(seconds=9)},
    }.items():
        day.declare(name, **values)
    day.see(online={"acme_alice", "acme_bob"}, speaking=set())
    page = vira.get(BOARD).text
    assert "Wrap-up until" in row_of(page, day, "Alice")
    assert "Cooling down until" in row_of(page, day, "Bob")
