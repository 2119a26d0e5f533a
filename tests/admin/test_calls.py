"""The call log on its pages: found by what people type, explained in words, and taken away as a file."""

from __future__ import annotations

import csv
import gzip
import io
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import delete, update

from router.admin.views import calls as views
from router.admin.views.calls import OUTCOME_WORDS, number_of
from router.configuration import apply, load
from router.core.model import Outcome
from router.core.strategies import STRATEGIES
from router.db import log, models
from router.db.log import Number
from router.db.personal import erase_caller
from router.db.records import record_of
from tests.admin.conftest import Admin, Browser
from tests.admin.day import CONFIG, Day

CALLS = "/p/acme/calls"


@pytest.fixture
def day(admin: Admin) -> Day:
    return Day(admin)


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def shown(page: str) -> list[int]:
    """The ids of the calls on a page of the log, in order."""
    return list(dict.fromkeys(int(found) for found in re.findall(rf'href="{CALLS}/(\d+)"', page)))


def link(page: str, label: str) -> str:
    found = re.search(rf'href="([^"]*)"[^>]*>(?:<svg.*?</svg>)?{label}', page)
    assert found is not None, f"there is no link {label!r}"
    return unescape(found[1])


def explained(browser: Browser, decision_id: int) -> str:
    return words(browser.get(f"{CALLS}/{decision_id}").text.partition("<main")[2])


# ---- numbers as people type them


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("", None),
        ("  ", None),
        ("+38 (050) 111-22-33", Number(("380501112233",))),
        ("0501112233", Number(("380501112233",))),
        ("380501112233", Number(("380501112233",))),
        (" 050 111 22 33 ", Number(("380501112233",))),
        ("+48 22 123 45 67", Number(("48221234567",))),
        ("1112233", Number(parts=("1112233",))),
        ("111-22", Number(parts=("11122",))),
        ("+38050", Number(parts=("38050",))),
        ("050 11", Number(parts=("05011",))),
        ("0301 23", Number(parts=("030123",))),
        ("101", Number(("101",))),
        ("anonymous", Number(("",))),
        ("прихований", Number(("",))),
        ("acme_bob", Number(parts=("acme_bob",))),
        ("bob", Number(("bob",))),
    ],
)
def test_understands_a_number_in_any_notation(admin: Admin, typed: str, known: Number | None) -> None:
    with admin.app.test_request_context("/"):
        assert number_of(typed, "UA") == known


def test_a_national_part_is_searched_with_the_countrys_code_too(admin: Admin) -> None:
    with admin.app.test_request_context("/"):
        assert number_of("089 1", "DE") == Number(parts=("0891", "49891"))


@pytest.mark.parametrize("typed", ["+38 (067) 111-22-33", "0671112233", "67111", "111 22 33", "380671112233"])
def test_finds_a_caller_in_any_notation(day: Day, vira: Browser, typed: str) -> None:
    wanted = day.call("380671112233").decision_id
    day.call("380505556677")
    page = vira.get(CALLS, query_string={"caller": typed}).text
    assert shown(page) == [wanted]
    assert f'value="{typed}"' in page


# ---- filters and pages


def test_filters_by_agent_rule_outcome_and_time(day: Day, vira: Browser) -> None:
    offered = day.call("380501112233", call_id="c1").decision_id
    lost = day.call("380671112233").decision_id
    day.hear("after_call", "c1", "acme_alice", disposition="BUSY")
    rules = {row.name: row.id for row in day.admin.all(models.Rule)}
    for asked, found in {
        f"agent={day.agents['Alice']}": [offered],
        f"agent={day.agents['Bob']}": [],
        f"rule={rules['VIP']}": [lost],
        "rule=none": [],
        "outcome=overflow": [lost],
        "outcome=busy": [offered],
        "outcome=answered": [],
        "outcome=nonsense": [lost, offered],
        "dialed=044+111+22+33": [lost, offered],
        "dialed=999999": [],
        "degraded=y": [],
        "since=2020-01-01T00:00": [lost, offered],
        "until=2020-01-01T00:00": [],
    }.items():
        assert shown(vira.get(f"{CALLS}?{asked}").text) == found, asked


def test_times_are_of_the_projects_clock(day: Day, vira: Browser) -> None:
    wanted = day.log(asked_at=datetime(2026, 7, 1, 9, 30, tzinfo=UTC))  # 12:30 in Kyiv
    assert shown(vira.get(f"{CALLS}?since=2026-07-01T12:30&until=2026-07-01T12:31").text) == [wanted]
    assert "2026-07-01 12:30:00" in vira.get(CALLS).text


@pytest.mark.parametrize(
    ("until", "is_found"),
    [("12:30", True), ("12:29", False), ("12:30:05", True), ("12:30:04", False), ("12:30:05.5", True), ("12", True),
     ("11", False), ("09:30+00:00", True), ("09:29Z", False)],
)  # fmt: skip
def test_until_means_all_of_what_was_written(day: Day, vira: Browser, until: str, *, is_found: bool) -> None:
    wanted = day.log(asked_at=datetime(2026, 7, 1, 9, 30, 5, 400000, tzinfo=UTC))  # 12:30:05.4 in Kyiv
    query = {"since": "2026-07-01T00:00", "until": f"2026-07-01T{until}"}
    assert shown(vira.get(CALLS, query_string=query).text) == [wanted] * is_found


def test_from_and_until_in_the_same_minute_find_its_calls(day: Day, vira: Browser) -> None:
    wanted = day.log(asked_at=datetime(2026, 7, 1, 9, 30, 59, 900000, tzinfo=UTC))
    day.log(asked_at=datetime(2026, 7, 1, 9, 31, tzinfo=UTC))
    assert shown(vira.get(f"{CALLS}?since=2026-07-01T12:30&until=2026-07-01T12:30").text) == [wanted]


def test_until_a_date_means_all_of_that_day_on_the_projects_clock(day: Day, vira: Browser) -> None:
    wanted = day.log(asked_at=datetime(2026, 10, 25, 21, 59, tzinfo=UTC))  # 23:59 in Kyiv, the day has 25 hours
    day.log(asked_at=datetime(2026, 10, 25, 22, 0, tzinfo=UTC))
    assert shown(vira.get(f"{CALLS}?since=2026-10-25&until=2026-10-25").text) == [wanted]


def test_an_end_before_the_beginning_is_said_and_is_no_download(day: Day, vira: Browser) -> None:
    answer = vira.get(f"{CALLS}?since=2026-07-02T12:30&until=2026-07-01T12:30")
    assert answer.status_code == 422
    assert "Not after “From”" in words(answer.text)
    assert "since=2026-07-02" in vira.get(f"{CALLS}.csv?since=2026-07-02T12:30&until=2026-07-01T12:30").location


FATES = [("agent", "x"), (None, "x"), (None, "")]


def test_what_a_filter_shows_is_what_bears_its_sign_on_the_page_and_in_the_file(day: Day, vira: Browser) -> None:
    """For every outcome, of calls that were offered, sent to an overflow, and answered empty."""
    for whom, destination in FATES:
        for outcome in ("", *Outcome):
            agent = day.agents["Alice"] if whom else None
            day.log(agent_id=agent, destination=destination, outcome=outcome)
    signs = signs_of(vira.get(CALLS).text)
    assert len(signs) == len(FATES) * (1 + len(Outcome))
    for name, label in OUTCOME_WORDS.items():
        labels = {str(OUTCOME_WORDS[one]) for one in (log.MISSED_OUTCOMES if name == log.MISSED else [name])}
        wanted = {id_ for id_, borne in signs.items() if labels & borne}
        assert wanted, f"no call bears {label}"
        assert set(shown(vira.get(f"{CALLS}?outcome={name}").text)) == wanted, name
        rows = rows_of(vira.get(f"{CALLS}.csv?outcome={name}").text)
        assert {int(row["Number"]) for row in rows} == wanted, name
        for row in rows:
            assert row["Outcome"] in labels or name in (log.OVERFLOW, log.EMPTY)
            assert row["Overflow"] == "1" or name != log.OVERFLOW


def signs_of(page: str) -> dict[int, set[str]]:
    """By call the words of the signs in its row."""
    rows = re.findall(r'<tr role="row">(.*?)</tr>', page.partition("<tbody")[2], re.DOTALL)
    return {shown(row)[0]: {words(sign) for sign in re.findall(r'<span class="state.*?</span>', row)} for row in rows}


@pytest.mark.parametrize("asked", ["since=yesterday", "until=2026-13-01T00:00", "since=99999-01-01T00:00"])
def test_a_time_that_cannot_be_read_is_said_beside_the_field_and_kept(day: Day, vira: Browser, asked: str) -> None:
    response = vira.get(f"{CALLS}?{asked}")
    assert response.status_code == 422
    assert "is-invalid" in response.text
    assert f'value="{asked.partition("=")[2]}"' in response.text


@pytest.mark.parametrize("asked", ["agent=x", "rule=-1", "older=x", "newer=1-2-3", "on=9"])
def test_an_address_that_makes_no_sense_still_gives_a_page(day: Day, vira: Browser, asked: str) -> None:
    assert vira.get(f"{CALLS}?{asked}").status_code == 200


def test_pages_lead_down_and_up_again_keeping_the_filters(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "PAGE_ROWS", 3)
    ids = [day.log(caller="380501112233") for _ in range(7)][::-1]
    day.log(caller="380999999999")
    first = vira.get(f"{CALLS}?caller=0501112233").text
    assert shown(first) == ids[:3]
    assert "Newer" not in first
    second = vira.get(link(first, "Older")).text
    assert shown(second) == ids[3:6]
    third = vira.get(link(second, "Older")).text
    assert shown(third) == ids[6:]
    assert "Older" not in third
    back = vira.get(link(third, "Newer")).text
    assert shown(back) == ids[3:6]
    assert shown(vira.get(link(back, "Newer")).text) == ids[:3]


def test_a_search_that_takes_long_says_how_far_it_came_and_goes_on(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(log, "_FIRST_PIECE", 5)
    now = datetime.now(UTC)
    wanted = day.log(caller="380671119999", asked_at=now - timedelta(days=3))
    for minutes in range(20):
        day.log(caller="380501112233", asked_at=now - timedelta(minutes=minutes))
    page = vira.get(f"{CALLS}?caller=1119999").text
    assert shown(page) == []
    assert "Nothing found so far" in page
    assert "The log was searched back to" in page
    on = vira.get(link(page, "Search further")).text
    assert shown(on) == [wanted]
    assert "Search further" not in on
    page = vira.get(f"{CALLS}?outcome=busy").text
    assert "older=" in link(page, "Search further")


# ---- figures


def noon(days_ago: int) -> datetime:
    """Noon of a day by the project's clock."""
    now = datetime.now(ZoneInfo("Europe/Kyiv"))
    return (now - timedelta(days=days_ago)).replace(hour=12, minute=0, second=0, microsecond=0)


def offer(day: Day, name: str, outcome: str, at: datetime, **values: Any) -> int:
    agent = day.agents[name]
    took = {"answered_agent_id": agent} if outcome == "answered" else {}
    return day.log(agent_id=agent, outcome=outcome, asked_at=at, **took, **values)


def figures(page: str) -> tuple[list[str], list[list[str]]]:
    """The figures in total, and by agent: name, offered, answered, missed, average wait, talked."""
    values = re.findall(r'<span class="value num">(.*?)</span>(?=<span class="label">)', page, re.DOTALL)
    table = page.partition('id="agents"')[2].partition("</details>")[0]
    rows = re.findall(r'<tr role="row">\s*<th role="rowheader"(.*?)</tr>', table, re.DOTALL)
    return [words(value) for value in values], [
        [words(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", f"<th {row}", re.DOTALL)] for row in rows
    ]


def test_tells_who_missed_calls_on_a_day_of_the_projects_clock(day: Day, vira: Browser) -> None:
    today = noon(0)
    offer(day, "Alice", "answered", today, waited_seconds=10, talked_seconds=65)
    offer(day, "Alice", "answered", today, waited_seconds=20, talked_seconds=60)
    offer(day, "Bob", "no_answer", today, call_id="both", step="1")
    offer(day, "Alice", "busy", today, call_id="both", step="2")
    day.log(asked_at=today)
    for outcome in ("abandoned", "voicemail", "failed", "unknown"):
        offer(day, "Carol", outcome, noon(1))
    offer(day, "Dave", "answered", today.replace(hour=0) - timedelta(seconds=1), waited_seconds=1, talked_seconds=1)
    offer(day, "Dave", "no_answer", noon(6).replace(hour=0))
    offer(day, "Dave", "no_answer", noon(6).replace(hour=0) - timedelta(seconds=1))  # of last week
    page = vira.get(link(vira.get(CALLS).text, "Today")).text
    assert figures(page) == (
        ["4", "2", "1", "1", "0", "15 s", "2 min 5 s"],
        [["Alice", "3", "2", "1", "15 s", "2 min 5 s"], ["Bob", "1", "0", "1", "–", "–"]],
    )
    page = vira.get(link(page, "Yesterday")).text
    assert figures(page)[1] == [["Carol", "4", "0", "3", "–", "–"], ["Dave", "1", "1", "0", "1 s", "1 s"]]
    page = vira.get(link(page, "Week")).text
    assert [row[:4] for row in figures(page)[1]] == [
        ["Carol", "4", "0", "3"], ["Alice", "3", "2", "1"], ["Dave", "2", "1", "1"], ["Bob", "1", "0", "1"]
    ]  # fmt: skip
    assert f"{day.agents['Dave']}&amp;outcome=missed" in page or "outcome=missed&amp;" in page


def test_figures_are_of_all_outcomes_and_lead_to_the_calls(day: Day, vira: Browser) -> None:
    answered, missed = (offer(day, "Alice", outcome, noon(0)) for outcome in ("answered", "no_answer"))
    page = vira.get(f"{CALLS}?period=today&outcome=missed").text
    assert shown(page) == [missed]
    assert [row[:4] for row in figures(page)[1]] == [["Alice", "2", "1", "1"]]
    of_alice = re.search(r'<a class="plain" href="([^"]*)">Alice</a>', page)
    assert of_alice is not None
    assert set(shown(vira.get(unescape(of_alice[1])).text)) == {answered, missed}


def test_every_total_leads_to_as_many_calls(day: Day, vira: Browser) -> None:
    """Also of calls with an empty answer, and of those that somebody answered at the overflow."""
    for outcome in ("answered", "no_answer"):
        offer(day, "Alice", outcome, noon(0))
    for destination in ("380441234567", ""):
        for outcome in ("", "answered", "no_answer"):
            day.log(asked_at=noon(0), destination=destination, outcome=outcome)
    day.log(asked_at=noon(0), destination="")
    page = vira.get(f"{CALLS}?period=today&tests=all&on=1").text
    tiles = page.partition('aria-label="In total"')[2].partition("</nav>")[0]
    links = re.findall(r'<a href="([^"]*)".*?>(\d+)</span><span class="label">([^<]*)<', tiles, re.DOTALL)
    assert [(label, int(count)) for _url, count, label in links] == [
        ("Calls", 9), ("Answered", 3), ("Missed", 3), ("Overflow", 3), ("No destination", 4)
    ]  # fmt: skip
    for url, count, label in links:
        assert len(shown(vira.get(unescape(url)).text)) == int(count), label


def test_figures_lead_to_calls_alone_and_count_no_test_requests(day: Day, vira: Browser) -> None:
    offer(day, "Alice", "no_answer", noon(0))
    day.log(asked_at=noon(0), is_test=True)
    page = vira.get(f"{CALLS}?period=today&tests=only").text
    assert figures(page) == ([], [])
    assert "Totals per agent" not in page
    page = vira.get(f"{CALLS}?period=today&tests=all&on=1").text
    totals = page.partition('aria-label="In total"')[2].partition('id="calls-news"')[0]
    links = [unescape(url) for url in re.findall(r'<a [^>]*href="([^"]*)"', totals)]
    assert len(links) == 7  # five totals, the agent's calls, the missed ones
    assert [url for url in links if "tests=" in url or "on=" in url] == []


def test_the_figures_come_as_a_file_too(day: Day, vira: Browser) -> None:
    offer(day, "Alice", "answered", noon(0), waited_seconds=10, talked_seconds=1234567)
    offer(day, "Alice", "answered", noon(0), waited_seconds=5, talked_seconds=1)
    offer(day, "Bob", "no_answer", noon(0))
    page = vira.get(f"{CALLS}?period=today&outcome=missed").text
    rows = rows_of(vira.get(link(page, "Totals per agent as CSV")).text)
    assert [list(row.values()) for row in rows] == [
        ["Bob", "1", "0", "1", "", "0"],
        ["Alice", "2", "2", "0", "7.5", "1234568"],
        ["Calls in total", "3", "2", "1", "7.5", "1234568"],
    ]
    assert list(rows[0]) == ["Agent", "Offered", "Answered", "Missed", "Average wait, seconds", "Talked, seconds"]
    assert vira.get(link(page, "Totals per agent for Excel")).data.startswith(b"\xef\xbb\xbf")


def test_counting_that_takes_long_says_how_far_it_came_and_goes_on(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "FIGURES_SECONDS", 0.0)
    monkeypatch.setattr(log, "_FIRST_PIECE", 5)
    for minutes in range(20):
        offer(day, "Alice", "no_answer", noon(1) - timedelta(minutes=minutes))
    page = vira.get(f"{CALLS}?period=yesterday").text
    assert figures(page)[1][0][1] == "6"
    assert "These are many calls: those since" in page
    on = vira.get(link(page, "Count all")).text
    assert figures(on)[1][0][1] == "20"
    assert "These are many calls" not in on
    assert rows_of(vira.get(link(page, "Totals per agent as CSV")).text)[0]["Offered"] == "20"


def test_the_list_and_the_figures_share_the_time_of_a_long_search(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def counting(*args: Any, seconds: float, **more: Any) -> log.Counted:
        limits.append(seconds)
        return log.count_calls(*args, seconds=seconds, **more)

    def finding(*args: Any, seconds: float, **more: Any) -> log.Found:
        limits.append(seconds)
        return log.find(*args, seconds=seconds, **more)

    monkeypatch.setattr(views, "count_calls", counting)
    monkeypatch.setattr(views, "find", finding)
    offer(day, "Alice", "no_answer", noon(0))
    vira.get(f"{CALLS}?period=today&on=1")
    found, counted = limits
    assert counted < found


def test_pages_of_a_long_search_are_short_ones_and_a_part_of_a_number_goes_on_from_the_page(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "PAGE_ROWS", 3)
    monkeypatch.setattr(views, "SEARCH_SECONDS", 0.0)
    monkeypatch.setattr(log, "_FIRST_PIECE", 2)
    now = datetime.now(UTC)
    ids = [day.log(caller="380671119999", asked_at=now - timedelta(hours=6 - hour)) for hour in range(5)][::-1]
    older = link(vira.get(f"{CALLS}?caller=1119999&on=1").text, "Older")
    assert "on=1" not in older
    assert shown(vira.get(link(vira.get(older).text, "Search further")).text) == ids[3:]


def test_tells_of_calls_that_came_in_meanwhile(day: Day, vira: Browser) -> None:
    day.call("380501112233")
    page = vira.get(f"{CALLS}?caller=0501112233").text
    news = re.search(r'hx-get="([^"]*)" hx-trigger="every 4s"', page)
    assert news is not None
    url = unescape(news[1])
    assert vira.get(url).status_code == 204
    day.call("380671112233")
    assert vira.get(url).status_code == 204, "it is not looked for"
    day.call("380501112233")
    day.call("380501112233")
    assert "2 new calls: show them" in vira.get(url).text


def test_an_empty_log_and_an_empty_search_say_what_to_do(admin: Admin, vira: Browser) -> None:
    assert "No calls yet" in vira.get(CALLS).text
    assert "Clear the filters" in vira.get(f"{CALLS}?caller=0501112233").text


def test_who_is_gone_is_still_named_by_the_configuration_of_then(day: Day, vira: Browser) -> None:
    day.call("380501112233")
    with day.database.writing() as session:
        session.execute(delete(models.Agent).where(models.Agent.name == "Alice"))
        session.execute(update(models.Project).values(version=1))
    assert "Alice" in words(vira.get(CALLS).text.partition("<table")[2])


# ---- one call explained


def test_explains_which_rule_matched_and_why_the_others_did_not(day: Day, vira: Browser) -> None:
    text = explained(vira, day.call("380501112233", params={"utm_source": "yandex"}).decision_id)
    assert "No match VIP the caller is not +38067…" in text
    assert "No match from adverts utm_source is “yandex”, not google, bing" in text
    assert "Matched everyone It has no conditions: every call matches." in text
    assert "utm_source was not sent; the rule needs google, bing" in explained(vira, day.call().decision_id)
    assert "the caller withholds the number; the rule needs +38067…" in explained(vira, day.call("").decision_id)


def test_explains_every_kind_of_condition(admin: Admin, vira: Browser) -> None:
    rules = """    rules:
      - {name: off, enabled: false, groups: [sales]}
      - {name: not this caller, when: {not_caller: ["+38050*"]}, groups: [sales]}
      - {name: other number, when: {dialed: ["380443330000"]}, groups: [sales]}
      - {name: not this number, when: {not_dialed: ["380441112233"]}, groups: [sales]}
      - {name: outgoing, when: {direction: [out]}, groups: [sales]}
      - {name: no adverts, when: {not_params: {UTM_Source: [google]}}, groups: [sales]}
      - {name: never, when: {schedule: never}, groups: [sales]}
      - {name: always closed, when: {outside: always}, groups: [sales]}
      - {name: few free, when: {free: {group: sales, fewer_than: 1}}, groups: [sales]}
      - {name: last, groups: []}
"""
    config = CONFIG[: CONFIG.index("    rules:")] + rules
    config = config.replace(
        "      - {name: office hours",
        "      - {name: never, open: {}, exceptions: {2020-01-01: ['09:00-18:00']}}\n"
        "      - {name: always, open: {daily: ['00:00-24:00']}}\n      - {name: office hours",
    )
    day = Day(admin, config)
    text = explained(vira, day.call("380501112233", params={"utm_source": "Google"}).decision_id)
    for told in (
        "off it is turned off",
        "not this caller the caller is excluded: +38050…",
        "other number the dialed number is +380441112233, not +380443330000",
        "not this number the dialed number is excluded: +380441112233",
        "outgoing no direction was sent; the rule needs out",
        "no adverts utm_source “Google” is excluded",
        "never “never” is closed at this time",
        "always closed “always” is open at this time",
        "few free 1 member of sales is free, not fewer than 1",
        "The rule sends such calls straight to its overflow.",
        "4 rules above do not match",
    ):
        assert told in text, told


def test_explains_everybody_who_was_considered(day: Day, vira: Browser) -> None:
    day.declare("Alice", wrap_up_until=datetime.now(UTC) + timedelta(seconds=90))
    day.see(online={"acme_alice", "acme_bob", "acme_carol", "acme_dave"})
    text = explained(vira, day.call("380501112233").decision_id)
    assert "Next in sales (Round robin)." in text
    assert "Dave acme_dave Offered 1 not offered a call yet" in text
    assert re.search(r"Alice acme_alice Wrap-up – for another 1 min (2\d|30) s", text)
    assert "Bob acme_bob Speaking" in text
    assert "Carol acme_carol On break" in text


PREFERRING = """
projects:
  - name: acme
    overflow: "380441234567"
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, fresh_seconds: 60, call_log_days: 30}
    agents:
      - {name: Alice, sip_logins: [acme_alice], deputy: Dave}
      - {name: Bob, sip_logins: [acme_bob]}
      - {name: Carol, sip_logins: [acme_carol]}
      - {name: Dave, sip_logins: [acme_dave]}
    groups: [{name: sales, members: [{agent: Bob}]}]
    rules:
      - {name: responsible, when: {params: {crm: "*"}}, prefer: {param: crm}, groups: [sales]}
      - {name: everyone, prefer: last_agent, prefer_days: 30, groups: [sales]}
"""


def test_tells_whom_the_rule_prefers_and_how_that_is_known(admin: Admin, vira: Browser) -> None:
    day = Day(admin, PREFERRING)
    day.see({"acme_alice", "acme_bob", "acme_dave"}, set())

    def told(caller: str = "380501112233", **params: str) -> str:
        text = explained(vira, day.call(caller, params=params).decision_id)
        with admin.database.writing() as session:
            session.execute(delete(models.Reservation))
        return text

    assert "Preferred agent None of the present agents talked with this caller within 30 days." in told()
    assert "The caller withholds the number." in told("anonymous")
    assert "The parameter crm is “nobody”, which names no agent." in told(crm="nobody")
    assert re.search(r"crm names Alice\. .{,80} Alice acme_alice Offered", told(crm="acme_alice"))
    ago = datetime.now(UTC) - timedelta(days=3, seconds=5)
    day.log(asked_at=ago, answered_agent_id=day.agents["Alice"], outcome="answered", ended_at=ago)
    assert "Alice talked with this caller 3 days ago." in told()
    later = ago + timedelta(days=1)
    with admin.database.writing() as session:
        talk = {"caller": "380501112233", "login": "acme_bob", "talked_at": later}
        session.add(models.LoggedTalk(project_id=day.project_id, **talk))
    assert "Bob talked with this caller 2 days ago. Ringostat’s call log says so." in told()
    away = PREFERRING.replace("deputy: Dave", "deputy: Dave, away_until: 2099-01-01")
    apply(admin.database, load(away, {}), actor="test")
    text = told(crm="acme_alice")
    assert re.search(r"crm names Alice\. Alice is away; Dave stands in\. .{,80} Dave acme_dave Offered", text)


def test_every_strategy_tells_its_order_in_words(admin: Admin, vira: Browser) -> None:
    everybody = {"acme_alice", "acme_bob", "acme_dave"}
    told = {
        "round_robin": "last offered 1 call ago",
        "priority": "number 2 on the list",
        "longest_idle": "free for 5 min 0 s",
        "fewest_calls": "1 call answered today",
        "least_talk_time": "talked 1 min 15 s today",
        "weighted": "furthest behind its share (weight 1)",
        "random": "drawn at random for this call",
    }
    assert told.keys() == STRATEGIES.keys()
    for strategy, phrase in told.items():
        config = CONFIG.replace("strategy: round_robin", f"strategy: {strategy}").replace(
            "members: [{agent: Alice}, ", "members: [{agent: Alice, weight: 2}, "
        )
        day = Day.__new__(Day)
        with admin.database.writing() as session:
            session.execute(delete(models.Presence))
        day.__init__(admin, config)  # type: ignore[misc]
        day.see(everybody, set())
        day.call("380501112233", call_id=f"{strategy}-1")
        with admin.database.writing() as session:
            session.execute(delete(models.Reservation))
        at = datetime.now(UTC)
        day.declare("Alice", last_talk_end_at=at - timedelta(minutes=5, seconds=0.2), available_since_at=None)
        day.declare("Alice", answered_today=1, talked_today=75, day=at.astimezone(ZoneInfo("Europe/Kyiv")).date())
        assert phrase in explained(vira, day.call("380501112233", call_id=f"{strategy}-2").decision_id), strategy


def test_explains_what_was_received_and_how_it_was_understood(day: Day, vira: Browser) -> None:
    text = explained(vira, day.call("%2B38050111-22-33", params={"landing": "https://x/?a=<b>"}).decision_id)
    assert "The request as it came (POST, http) POST /hook/… " in text
    assert "Content-Type: application/x-www-form-urlencoded" in text
    assert "userfield=%2B38050111-22-33" in text
    assert "caller body userfield" in text
    assert "From the address 203.0.113.7" in text
    assert "Caller +380 50 111 22 33" in text
    assert "landing https://x/?a=<b>" in text
    question = text.partition("The request as it came")[0]
    assert "userfield" not in question, "who calls whom is said already"


def test_what_strangers_send_is_only_text(day: Day, vira: Browser) -> None:
    sent = day.call("<script>alert(1)</script>", call_id='"><svg onload=alert(2)>', params={"<i>": "<script>x"})
    page = vira.get(f"{CALLS}/{sent.decision_id}").text
    assert "<script>alert" not in page
    assert "<svg onload" not in page
    assert "<script>x" not in page
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in vira.get(CALLS).text


def test_tells_the_outcome_and_whether_it_was_told_or_concluded(day: Day, vira: Browser) -> None:
    sent = day.call("380501112233", call_id="c1").decision_id
    assert "Outcome In progress" in explained(vira, sent)
    day.hear("pickup", "c1", "acme_alice")
    assert "Answered Answered by Alice Picked up" in explained(vira, sent)
    assert "Still talking" in explained(vira, sent)
    day.hear("after_call", "c1", "acme_alice", disposition="PROPER", billsec="204", waittime="7")
    text = explained(vira, sent)
    assert "Talked 3 min 24 s" in text
    assert "Reported as proper" in text
    assert "Reported by Ringostat." in text
    with day.database.writing() as session:
        session.execute(update(models.Decision).values(inferred=True))
    assert "Estimated: Ringostat sent no event for this call." in explained(vira, sent)


def test_recomputes_the_decision_from_what_was_stored(day: Day, vira: Browser) -> None:
    for number in range(4):
        assert "Checked The same inputs give the same result." in explained(
            vira, day.call(f"38067111223{number}").decision_id
        )
    tampered = day.call("380501112233").decision_id
    with day.database.writing() as session:
        row = session.get_one(models.Decision, tampered)
        row.destination = "acme_dave"
    assert "Checked The same inputs give another result now" in explained(vira, tampered)


def test_explains_a_packed_decision_as_it_does_the_same_stored_plain(admin: Admin, vira: Browser) -> None:
    """Packed by column, and as an earlier release stored it: agents by the dozen, in an order of their own."""
    names = [f"Agent {number}" for number in range(40)]
    agents = "".join(f"      - {{name: {name}, sip_logins: [acme_{name[6:]}]}}\n" for name in names)
    members = "".join(f", {{agent: {name}}}" for name in reversed(names))
    config = CONFIG.replace("    groups:\n", f"{agents}    groups:\n")
    day = Day(admin, config.replace(", {agent: Dave}]", f", {{agent: Dave}}{members}]"))
    day.see({f"acme_{number}" for number in range(0, 40, 2)}, {"acme_8"})
    sent = day.call("380501112233").decision_id
    packed = explained(vira, sent)
    assert "Checked The same inputs give the same result." in packed
    with day.database.writing() as session:
        row = session.get_one(models.Decision, sent)
        record = record_of(session, row)
        assert row.packed is not None
        row.record, row.packed = record, None
    assert explained(vira, sent) == packed


def test_says_when_what_it_was_made_by_is_no_longer_kept(day: Day, vira: Browser) -> None:
    sent = day.call("380501112233").decision_id
    with day.database.writing() as session:
        session.execute(delete(models.ConfigVersion))
    text = explained(vira, sent)
    assert "of the configuration is no longer stored, so rules and orders are not shown in full." in text
    assert "Checked Not possible" in text
    assert "Bob" not in text.partition("What")[0] or "#" in text


def test_says_why_an_answer_came_without_the_database(day: Day, vira: Browser) -> None:
    sent = day.call("380501112233").decision_id
    for stored, told in {
        "DatabaseBusyError": "The database was locked for too long.",
        "WeirdError": "The database failed (WeirdError).",
    }.items():
        with day.database.writing() as session:
            session.execute(update(models.Decision).values(degraded=stored))
        assert told in explained(vira, sent)
    assert "During an outage" in vira.get(f"{CALLS}?degraded=y").text


def test_shows_all_steps_of_one_call(day: Day, vira: Browser) -> None:
    day.see(online={"acme_alice", "acme_dave"}, speaking=set())
    first = day.call(call_id="c1", step="one").decision_id
    second = day.call(call_id="c1", step="two").decision_id
    page = vira.get(f"{CALLS}/{second}").text
    steps = words(page.partition('aria-label="Steps of this call"')[2].partition("</nav>")[0])
    assert re.search(r"1 Alice acme_alice one No answer .* 2 Dave acme_dave two In progress", steps)
    assert f'href="{CALLS}/{first}"' in page
    assert "Already tried" in explained(vira, second)


def test_a_long_group_is_listed_in_part_and_counted(admin: Admin, vira: Browser) -> None:
    names = [f"Agent {n:03}" for n in range(120)]
    agents = "\n".join(f"      - {{name: {name}, sip_logins: [acme_{n}]}}" for n, name in enumerate(names))
    members = ", ".join(f"{{agent: {name}}}" for name in names)
    config = CONFIG[: CONFIG.index("    agents:")] + (
        f"    agents:\n      - {{name: Carol}}\n{agents}\n    groups:\n      - {{name: all, members: [{members}]}}\n"
        "    rules:\n      - {name: everyone, groups: [all]}\n"
    )
    day = Day.__new__(Day)
    day.__init__(admin, config)  # type: ignore[misc]
    assert "Not listed: offline 20" in explained(vira, day.call().decision_id)


# ---- masked numbers


def test_no_page_and_no_file_shows_a_masked_number(admin: Admin, vira: Browser) -> None:
    day = Day(admin, CONFIG.replace("overflow:", "mask_numbers: true\n    overflow:", 1))
    sent = day.call("%2B380501119988", params={"note": "call +38 050 111-99-88 back"}).decision_id
    for url in (CALLS, f"{CALLS}/{sent}", f"{CALLS}.csv"):
        page = vira.get(url).text
        assert "38050***88" in page, url
        assert "1119988" not in re.sub(r"[\s-]", "", page), url
    assert shown(vira.get(f"{CALLS}?caller=0501119988").text) == [sent], "it can be found all the same"


# ---- as a file


def rows_of(text: str, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


def test_the_file_holds_every_call_that_the_filters_find(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "CSV_BATCH", 3)
    ids = [day.log(caller="380501112233") for _ in range(8)]
    day.log(caller="380999999999")
    response = vira.get(f"{CALLS}.csv?caller=050+111+22+33")
    assert response.content_type == "text/csv; charset=utf-8"
    assert [int(row["Number"]) for row in rows_of(response.text)] == ids[::-1]
    part = vira.get(f"{CALLS}.csv?caller=9999").text
    assert [row["Caller"] for row in rows_of(part)] == ["380999999999"]


def test_a_line_of_the_file_tells_the_call(day: Day, vira: Browser) -> None:
    day.call("380501112233", call_id="c1")
    day.hear("pickup", "c1", "acme_alice")
    day.hear("after_call", "c1", "acme_alice", disposition="PROPER", billsec="12", waittime="3")
    (row,) = rows_of(vira.get(f"{CALLS}.csv").text)
    told = {name: row[name] for name in ("Caller", "Rule", "Group", "Offered to", "Answer", "Outcome", "Answered by")}
    assert list(told.values()) == ["380501112233", "everyone", "sales", "Alice", "acme_alice", "Answered", "Alice"]
    assert float(row["Talked, seconds"]) == 12
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["When"])


def test_no_cell_begins_like_a_formula(day: Day, vira: Browser) -> None:
    before = ["", " ", "\t", "\r", "\n", "\u00a0", "\u3000", "\u200b", "\ufeff", " \t "]
    sent = [f"{blank}{sign}1+1" for blank in before for sign in "=+-@＝＋－＠﹦﹢﹣﹫⁼⁺⁻₌₊₋−|%"]
    for text in sent:
        day.log(caller=text)
    found = {row["Caller"] for row in rows_of(vira.get(f"{CALLS}.csv").text)}
    assert found == {f"'{text}" for text in sent}


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "﹢1", " =1", "\ttext"]
)
def test_what_strangers_send_is_no_formula_in_the_file(day: Day, vira: Browser, text: str) -> None:
    day.log(caller=text, call_id=f"{text}1", degraded=text)
    (row,) = rows_of(vira.get(f"{CALLS}.csv").text)
    assert row["Caller"] == f"'{text}"
    assert not [value for value in row.values() if value.lstrip().startswith(("=", "+", "-", "@", "＝", "﹢"))]


def test_a_cell_may_hold_anything_else(day: Day, vira: Browser) -> None:
    day.log(call_id='a "quote", a; semicolon\nand a line', caller="Олена")
    for excel in ("", "?excel=1"):
        (row,) = rows_of(vira.get(f"{CALLS}.csv{excel}").text.removeprefix("\ufeff"))
        assert (row["Call id"], row["Caller"]) == ('a "quote", a; semicolon\nand a line', "Олена")


def test_excel_gets_its_mark_and_the_separators_of_the_readers_country(day: Day, vira: Browser) -> None:
    day.log(latency_us=1500)
    assert vira.get(f"{CALLS}.csv?excel=1").data.startswith(b"\xef\xbb\xbfNumber,")
    assert not vira.get(f"{CALLS}.csv").data.startswith(b"\xef\xbb\xbf")
    vira.client.set_cookie("language", "uk")
    text = vira.get(f"{CALLS}.csv?excel=1").text.removeprefix("\ufeff")
    header, line = text.splitlines()
    assert header.count(";") == line.count(";") == 21
    assert ";1,5;" in line
    assert vira.get(f"{CALLS}.csv").text.count(",") >= 40


def test_the_file_is_compressed_on_its_way_and_named_after_the_project(day: Day, vira: Browser) -> None:
    for _ in range(5):
        day.log()
    response = vira.get(f"{CALLS}.csv", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(rows_of(gzip.decompress(response.data).decode())) == 5
    assert re.search(r'filename="calls acme \d{4}-\d\d-\d\d\.csv"', response.headers["Content-Disposition"])


def test_the_file_is_sent_as_it_is_read_in_short_transactions(
    day: Day, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "CSV_BATCH", 2)
    for _ in range(6):
        day.log()
    response = vira.get(f"{CALLS}.csv", buffered=False)
    chunks = iter(response.response)
    next(chunks)
    first = next(chunks)
    assert first.count(b"\r\n") == 2
    day.log()  # nothing is locked meanwhile
    assert sum(chunk.count(b"\r\n") for chunk in chunks) == 4
    response.close()


# ---- a nuisance caller


def rules(admin: Admin) -> list[tuple[str, tuple[str, ...]]]:
    """The rules from the top: name, and the callers that they are for."""
    rows = sorted(admin.all(models.Rule), key=lambda row: row.position)
    return [(row.name, tuple(row.conditions.get("caller", ()))) for row in rows]


BEFORE = [("VIP", ("38067*",)), ("from adverts", ()), ("everyone", ())]


def test_a_caller_is_blocked_by_one_rule_at_the_top(admin: Admin, day: Day, emil: Browser) -> None:
    first, second = day.call("380671110000").decision_id, day.call("15112345678").decision_id
    page = emil.get(f"{CALLS}/{first}").text
    assert "follows its own scheme" in page, "what the caller then hears is said before"
    answer = emil.post(f"{CALLS}/{first}/block", follow=True).text
    assert "Blocked from the next call by the rule “Blocked numbers”, at the top." in unescape(answer)
    assert "what the caller hears, such as a message or a busy tone, is set there" in answer
    assert rules(admin) == [("Blocked numbers", ("380671110000",)), *BEFORE]
    assert day.call("380671110000").destination == ""
    emil.post(f"{CALLS}/{second}/block")
    assert rules(admin) == [("Blocked numbers", ("380671110000", "15112345678")), *BEFORE]
    assert day.call("15112345678").destination == ""
    assert day.call("380671110001").destination != ""


def test_blocking_is_undone_from_its_message(admin: Admin, day: Day, emil: Browser) -> None:
    emil.post(f"{CALLS}/{day.call('380671110000').decision_id}/block", follow=True)
    answer = emil.post(f"{CALLS}/{day.call('380672220000').decision_id}/block", follow=True).text
    version = re.search(r'name="version" value="(\d+)"', answer)
    assert version is not None
    emil.post("/p/acme/undo", version=version[1], next=CALLS)
    assert rules(admin)[0] == ("Blocked numbers", ("380671110000",))
    emil.post("/p/acme/undo", version=str(int(version[1]) - 1), next=CALLS)
    assert rules(admin) == BEFORE


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{name: Spam, when: {caller: ['+380991112233']}, overflow: ''}", ["Spam"]),
        ("{name: Prefix, when: {caller: ['+38099*']}, overflow: ''}", ["Blocked numbers", "Prefix"]),
        ("{name: Off, enabled: false, when: {caller: ['+380991112233']}, overflow: ''}", ["Blocked numbers", "Off"]),
        ("{name: Mail, when: {caller: ['+380991112233']}, overflow: '380441110000'}", ["Blocked numbers", "Mail"]),
        ("{name: Late, when: {caller: ['+380991112233'], dialed: ['101']}, overflow: ''}", ["Blocked numbers", "Late"]),
        ("{name: Blocked numbers, when: {dialed: ['101']}, overflow: ''}", ["Blocked numbers 2", "Blocked numbers"]),
    ],
)
def test_a_rule_that_is_built_to_block_is_extended_whatever_its_name(
    admin: Admin, emil: Browser, rule: str, expected: list[str]
) -> None:
    """Below another rule: single numbers move to the top, what concerns others stays where it is."""
    day = Day(admin, CONFIG.replace("- {name: everyone", f"- {rule}\n      - {{name: everyone"))
    emil.post(f"{CALLS}/{day.call('380671110000').decision_id}/block")
    names = [name for name, _callers in rules(admin)]
    others = [name for name, _callers in BEFORE]
    assert [name for name in names if name not in others] == expected
    assert names[0] == expected[0]
    assert rules(admin)[0][1][-1] == "380671110000"


def test_who_is_blocked_is_told_and_not_blocked_twice(admin: Admin, day: Day, emil: Browser, vira: Browser) -> None:
    decision = day.call("380671110000").decision_id
    assert "Block this number" not in vira.get(f"{CALLS}/{decision}").text
    assert vira.post(f"{CALLS}/{decision}/block").status_code == 403
    emil.post(f"{CALLS}/{decision}/block")
    page = emil.get(f"{CALLS}/{decision}").text
    assert "Block this number" not in page
    assert "Blocked by Blocked numbers" in words(page)
    answer = emil.post(f"{CALLS}/{decision}/block", follow=True).text
    assert "blocks this caller already" in answer
    assert rules(admin)[0][1] == ("380671110000",)


@pytest.mark.parametrize(
    ("above", "is_blocked"),
    [
        ("{name: sales, groups: [sales]}", False),
        ("{name: one number, when: {dialed: ['101']}, groups: [sales]}", False),
        ("{name: him, when: {caller: ['+38067*']}, groups: [sales]}", False),
        ("{name: others, when: {caller: ['+38050*']}, groups: [sales]}", True),
        ("{name: all but him, when: {not_caller: ['+38067*']}, groups: [sales]}", True),
        ("{name: off, enabled: false, groups: [sales]}", True),
    ],
)
def test_a_rule_blocks_only_if_none_above_it_could_take_the_call(
    admin: Admin, emil: Browser, above: str, is_blocked: bool
) -> None:
    spam = "{name: Spam, when: {caller: ['+380671110000']}, overflow: ''}"
    day = Day(admin, CONFIG.partition("    rules:")[0] + f"    rules:\n      - {above}\n      - {spam}\n")
    decision = day.call("380671110000").decision_id
    assert ("Block this number" in emil.get(f"{CALLS}/{decision}").text) is not is_blocked
    answer = emil.post(f"{CALLS}/{decision}/block", follow=True).text
    assert ("blocks this caller already" in answer) is is_blocked
    assert rules(admin)[1 if is_blocked else 0] == ("Spam", ("380671110000",))
    assert is_blocked or day.call("380671110000").destination == ""


def test_a_withheld_number_cannot_be_blocked_and_the_page_says_what_to_do(day: Day, emil: Browser) -> None:
    decision = day.call("anonymous").decision_id
    page = emil.get(f"{CALLS}/{decision}").text
    assert "Block this number" not in page
    assert "so it cannot be blocked" in page
    assert "/p/acme/rules/new" in page
    assert "cannot be blocked by number" in emil.post(f"{CALLS}/{decision}/block", follow=True).text


def test_of_an_erased_caller_the_page_says_that_and_not_that_the_number_is_withheld(
    admin: Admin, day: Day, emil: Browser
) -> None:
    decision = day.call("380671110000").decision_id
    erase_caller(admin.database, day.project_id, "380671110000", "test")
    page = emil.get(f"{CALLS}/{decision}").text
    assert "This caller’s number was erased, so it cannot be blocked." in page
    assert "withholds" not in page


def test_where_numbers_are_masked_the_page_says_that_a_rule_and_a_test_show_them(
    admin: Admin, emil: Browser, vira: Browser
) -> None:
    day, said = (
        Day(admin, CONFIG.replace("overflow:", "mask_numbers: true\n    overflow:", 1)),
        "show the whole number to",
    )
    known, hidden = (day.call(caller).decision_id for caller in ("380671110000", "anonymous"))
    assert said in emil.get(f"{CALLS}/{known}").text
    assert said not in emil.get(f"{CALLS}/{hidden}").text
    assert said not in vira.get(f"{CALLS}/{known}").text, "a viewer has no such buttons"
