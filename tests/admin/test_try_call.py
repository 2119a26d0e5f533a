"""Trying a call: the live decision and its explanation, on live or chosen presence, and nothing is changed by it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from werkzeug.datastructures import MultiDict

from router.admin.forms.try_call import MAX_PARAMS_CHARS, TryForm, _ids, ranges
from router.core.model import Call
from router.db import models
from router.db.models import Base
from tests.admin.conftest import Admin, Browser
from tests.admin.day import CONFIG, Day

TRY = "/p/acme/try"


@pytest.fixture
def day(admin: Admin) -> Day:
    return Day(admin)


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def result(browser: Browser, **asked: Any) -> str:
    """What the page says of a call."""
    page = browser.get(TRY, query_string={"caller": "", "dialed": "044 111 22 33"} | asked).text
    return words(page.partition('id="result"')[2].partition('id="try-address"')[0])


def everything(day: Day) -> dict[str, Any]:
    """All that is stored, but for when somebody was last seen."""
    with day.database.reading() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in Base.metadata.sorted_tables
            if table.name != "users"
        }


# ---- what it decides


def test_shows_the_decision_that_the_hook_would_make(day: Day, vira: Browser) -> None:
    text = ""
    for caller in ("380501112233", "380671112233", ""):
        text = result(vira, caller=caller)
        decision = day.call(caller).decision
        assert decision is not None
        assert (decision.answer.destination if caller else "") in re.sub(r"[ +](?=\d)", "", text)
    assert "What would happen On presence as it is now." in text


def test_explains_it_as_the_log_does(day: Day, vira: Browser) -> None:
    text = result(vira, caller="+38 (067) 111-22-33", name=["utm_source"], value=["google"])
    assert "Caller +380 67 111 22 33" in text
    assert "utm_source google" in text
    assert "Matched VIP" in text
    assert "Alice acme_alice Offered 1 not offered a call yet" in text
    assert "Bob acme_bob Speaking" in text
    assert "What would be answered Alice acme_alice" in text
    assert "Checked" not in text


def test_changes_nothing(day: Day, vira: Browser) -> None:
    day.call()
    before = everything(day)
    for asked in ({"caller": "380501112233"}, {"caller": "", "presence": "chosen", "online": "1-4", "ready": "y"}):
        assert "What would happen" in result(vira, **asked)
        vira.post(TRY, **asked, dialed="1", follow=True)
    assert everything(day) == before


def test_parameters_and_direction_count(admin: Admin, vira: Browser) -> None:
    rules = "    rules:\n      - {name: outgoing, when: {direction: [out]}, groups: [vip]}\n"
    day = Day(admin, CONFIG.replace("    rules:\n", rules))
    assert "Matched outgoing" in result(vira, direction="out")
    assert "Matched from adverts" in result(vira, name=["UTM_SOURCE", "x"], value=["Bing", "y"])
    assert "Matched everyone" in result(vira)
    assert day.agents


def test_a_moment_is_of_the_projects_clock(admin: Admin, vira: Browser) -> None:
    rule = "      - {name: office, when: {schedule: office hours}, groups: [sales]}\n"
    Day(admin, CONFIG.replace("    rules:\n", "    rules:\n" + rule))
    assert "Matched office" in result(vira, at="2026-11-23T09:00")  # a Monday
    assert "“office hours” is closed at this time" in result(vira, at="2026-11-23T18:00")
    assert "“office hours” is closed at this time" in result(vira, at="2026-11-22T10:00")
    assert "At 2026-11-23 09:00." in result(vira, at="2026-11-23T09:00")


def test_a_time_that_the_clocks_leave_out_is_refused(day: Day, vira: Browser) -> None:
    response = vira.post(TRY, caller="", dialed="1", at="2026-03-29T03:30")
    assert response.status_code == 422
    assert "There is no such time: the clocks go forward then." in response.text
    assert 'value="2026-03-29T03:30"' in response.text
    assert "At 2026-10-25 03:30 (UTC+03:00)." in result(vira, at="2026-10-25T03:30")  # comes twice: the first counts
    assert "At 2026-10-25 03:30 (UTC+02:00)." in result(vira, at="2026-10-25T03:30+02:00")


def test_a_moment_in_the_future_lets_breaks_of_today_pass(day: Day, vira: Browser) -> None:
    day.declare("Alice", paused_until=datetime.now(UTC) + timedelta(hours=1))
    assert "Alice acme_alice Paused" in result(vira)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    assert "Alice acme_alice Offered" in result(vira, at=tomorrow)


# ---- chosen presence


def test_on_chosen_presence_those_who_are_ticked_are_there(day: Day, vira: Browser) -> None:
    ids = day.agents
    chosen = {"presence": "chosen", "online": f"{ids['Dave']}", "speaking": f"{ids['Alice']}"}
    text = result(vira, **chosen)
    assert "On the presence that you chose." in text
    assert "Dave acme_dave Offered" in text
    assert "Alice acme_alice Speaking" in text
    assert "Bob Offline" in text
    assert "Up to date as you chose" in text
    nobody = result(vira, presence="chosen", online="", speaking="")
    assert "Nobody could be offered the call" in nobody


def test_chosen_presence_stands_in_for_a_source_that_fails(day: Day, vira: Browser) -> None:
    day.see(ago=timedelta(days=1))
    assert "Presence unknown" in result(vira)
    assert "Alice acme_alice Offered" in result(vira, presence="chosen", online=str(day.agents["Alice"]), speaking="")


def test_everybody_can_be_taken_for_available(day: Day, vira: Browser) -> None:
    later = datetime.now(UTC) + timedelta(minutes=5)
    day.declare("Alice", paused_until=later)
    day.declare("Dave", wrap_up_until=later, cooling_until=later)
    day.call("380501112233")
    all_four = ranges(day.agents.values())
    text = result(vira, presence="chosen", online=all_four, speaking="", ready="y")
    assert text.count("Eligible") == 3
    assert "On break" in result(vira, presence="chosen", online=all_four, speaking="")


def test_the_list_to_tick_shows_what_is_so_now(day: Day, vira: Browser) -> None:
    page = vira.get(TRY).text
    ticked = set(re.findall(r'name="(\w+)" value="\d+"\s+aria-label="(\w+): [^"]*" checked', page))
    assert ticked == {("online", "Alice"), ("online", "Bob"), ("speaking", "Bob"), ("online", "Carol")}


def test_a_long_list_waits_until_it_is_asked_for(admin: Admin, vira: Browser) -> None:
    agents = "\n".join(f"      - {{name: Agent {n:03}, sip_logins: [acme_{n}]}}" for n in range(305))
    config = CONFIG[: CONFIG.index("    agents:")] + f"    agents:\n      - {{name: Carol}}\n{agents}\n"
    day = Day.__new__(Day)
    day.__init__(admin, config)  # type: ignore[misc]
    assert 'name="online"' not in vira.get(TRY).text
    page = vira.post(TRY, caller="", dialed="1", presence="chosen", follow=True).text
    assert page.count('name="online"') == 306


# ---- its address


def test_a_post_leads_to_an_address_that_says_the_same_to_everybody(day: Day, vira: Browser, emil: Browser) -> None:
    ids = day.agents
    response = vira.post(
        TRY, caller="067 111 22 33", dialed="044 111 22 33", direction="in", at="2026-11-23T09:00",
        name=["utm_source", "", "note"], value=["google & co", "dropped", ""], presence="chosen", listed="1",
        online=[ids["Alice"], ids["Bob"], ids["Carol"]], speaking=[ids["Bob"]], ready="y",
    )  # fmt: skip
    assert response.status_code == 303
    parts = urlsplit(response.headers["Location"])
    assert parts.fragment == "result"
    sent = parse_qs(parts.query, keep_blank_values=True)
    assert sent["online"] == [f"{ids['Alice']}-{ids['Carol']}"]
    assert (sent["name"], sent["value"]) == (["utm_source", "note"], ["google & co", ""])
    theirs, ours = (one.get(f"{parts.path}?{parts.query}").text for one in (emil, vira))
    shown = (words(page.partition('id="result"')[2]).replace(" Keep as a test", "") for page in (theirs, ours))
    assert next(shown) == next(shown), "but for what an editor may do with it"
    assert "utm_source google &amp; co" in " ".join(re.sub(r"<[^>]*>", " ", theirs).split())


@given(st.frozensets(st.integers(min_value=0, max_value=400)))
def test_ranges_hold_exactly_the_numbers(numbers: frozenset[int]) -> None:
    text = ranges(numbers)
    assert _ids([text]) == numbers
    assert re.fullmatch(r"[\d.-]*", text)
    assert len(text) <= 4 * len(numbers) + 3


@pytest.mark.parametrize("text", ["x", "1-", "-", "²", "5-1", "1-2-3", ".", "9" * 30, "1 - 2"])
def test_what_is_no_range_ticks_nobody_else(text: str) -> None:
    assert _ids([text]) <= frozenset(range(10))
    assert len(_ids(["1-999999999"])) <= 100_001


def test_parameters_that_fit_no_address_are_refused(day: Day, vira: Browser) -> None:
    response = vira.post(TRY, caller="", dialed="1", name=["a"], value=["x" * MAX_PARAMS_CHARS])
    assert response.status_code == 422
    assert "At most 20 parameters, and 3000 characters in all." in response.text
    assert vira.post(TRY, caller="", dialed="1", name=["a"] * 21, value=["x"] * 21).status_code == 422


@pytest.mark.parametrize(
    "asked",
    [
        {"caller": "x" * 500}, {"at": "never"}, {"direction": "<b>"}, {"presence": "x"},
        {"online": "x"}, {"name": ["<script>alert(1)</script>"], "value": ["<script>alert(2)</script>"]},
        {"value": ["alone"]},
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_still_gives_a_page(day: Day, vira: Browser, asked: dict[str, Any]) -> None:
    response = vira.get(TRY, query_string={"caller": "", "dialed": "1"} | asked)
    assert response.status_code == 200
    assert "<script>alert" not in response.text


@pytest.mark.parametrize("root", ["https://router.example.org", "https://example.org/our/router", "https://host/a%20b"])
def test_the_address_is_the_public_one(migrated_sqlite_url: str, root: str) -> None:
    admin = Admin(migrated_sqlite_url, PUBLIC_URL=root)
    admin.add_user("vira", "viewer")
    admin.add_project("acme")
    with admin.app.test_request_context("/"):
        cookie = admin.session_cookie("vira")
    stranger = admin.browser()  # whose requests come under whatever name a proxy forwards
    name, path = admin.app.config["SESSION_COOKIE_NAME"], urlsplit(root).path or "/"
    stranger.client.set_cookie(name, cookie, domain="127.0.0.1", path=path, secure=True)
    page = stranger.get(f"{TRY}?caller=&dialed=1", base_url=f"https://127.0.0.1{urlsplit(root).path}").text
    admin.close()
    assert f'value="{root}/p/acme/try?caller=&amp;dialed=1"' in page


def test_a_project_without_anything_says_where_the_call_would_go(admin: Admin, vira: Browser) -> None:
    assert "There are no agents yet." in vira.get(TRY).text
    assert "No rule matched, so the call went to the overflow of the project." in result(vira)
    assert admin.one(models.Project, name="acme").overflow == ""


def test_the_form_reads_numbers_as_the_hook_does(admin: Admin) -> None:
    with admin.app.test_request_context("/p/acme/try"):
        form = TryForm(MultiDict([("caller", "050 111-22-33"), ("dialed", "sip:101@pbx")]))
        assert form.call("UA") == Call(caller="380501112233", dialed="101")
