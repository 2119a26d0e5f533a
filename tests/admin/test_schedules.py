"""Schedules: hours in text, the drawn week, dates, holidays, the override, what it says at a moment."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import event

from router.admin.views import schedules as views
from router.admin.views.schedules import holidays_of, read_hours
from router.configuration import apply, load
from router.configuration.schema import MAX_TEXT_CHARS
from router.core.dates import DAYS
from router.core.schedule import Schedule, is_open
from router.core.schedule_words import render_exceptions, render_open
from router.db import models
from router.db.documents import build_schedule
from router.db.queries import load_published
from tests.admin.conftest import Admin, Browser, shown_fields
from tests.core.test_schedule import KYIV, schedules

CONFIG = """
projects:
  - name: acme
    country: PL
    overflow: "380441234567"
    schedules:
      - name: office hours
        open: {mon-fri: ["09:00-13:00", "14:00-18:00"], sat: ["10:00-15:00"]}
        exceptions: {2026-12-24: closed, 2026-12-31: ["10:00-14:00"]}
      - {name: spare, open: {daily: ["22:00-06:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice], hours: office hours}
    groups:
      - {name: sales, members: [{agent: Alice, hours: office hours}]}
    rules:
      - {name: night, when: {outside: office hours}, groups: []}
      - {name: everyone, groups: [sales]}
"""


@pytest.fixture(autouse=True)
def configured(request: pytest.FixtureRequest) -> None:
    of = "admin_everywhere" if "admin_everywhere" in request.fixturenames else "admin"
    request.getfixturevalue(of).configure(CONFIG)


def row(admin: Admin, name: str = "office hours") -> models.Schedule:
    found: models.Schedule = admin.one(models.Schedule, name=name)
    return found


def url(admin: Admin, name: str = "office hours", what: str = "") -> str:
    return f"/p/acme/schedules/{row(admin, name).id}{what}"


def fields(admin: Admin, of: str = "office hours", **changed: str) -> dict[str, Any]:
    found = row(admin, of)
    shown = dict.fromkeys(DAYS[:5], "09:00-13:00, 14:00-18:00") | {"sat": "10:00-15:00", "sun": ""}
    dates = {"exceptions-0-date": "2026-12-24", "exceptions-0-hours": ""}
    dates |= {"exceptions-1-date": "2026-12-31", "exceptions-1-hours": "10:00-14:00"}
    return {
        "revision": str(found.revision),
        "name": found.name,
        "time_zone": found.time_zone,
        **shown,
        **dates,
        **changed,
    }


def says_open(admin: Admin, at: str, name: str = "office hours") -> bool:
    """What the rules would go by, at this moment in Kyiv."""
    with admin.database.reading() as session:
        document = load_published(session, admin.one(models.Project, name="acme").id).document
    schedule = next(build_schedule(one) for one in document["schedules"] if one["name"] == name)
    return is_open(schedule, datetime.fromisoformat(at + "+02:00"))


def test_the_list_shows_each_week_and_who_uses_it(vira: Browser) -> None:
    page = vira.get("/p/acme/schedules").text
    assert page.count('class="week"') == 2
    assert page.count('class="open"') >= 11 + 14  # two spans on five days and one; a night is on two days
    used = page.partition("office hours</a>")[2].partition("</section>")[0]
    assert re.findall(r'class="chip" href="[^"]*">([^<]+)<', used) == ["night", "sales", "Alice"]
    assert "This schedule is used by no rule, agent or member." in page


def test_hours_are_saved_in_the_words_of_the_file(admin: Admin, emil: Browser) -> None:
    posted = fields(admin, sun="10:00 – 12:00", mon="8:30-12:00; 13:00-17:15", tue="closed")
    posted |= {"exceptions-7-date": "2027-01-01", "exceptions-7-hours": "closed"}
    assert emil.post(url(admin), **posted).status_code == 303
    assert row(admin).open == {
        "mon": ["08:30-12:00", "13:00-17:15"],
        "wed-fri": ["09:00-13:00", "14:00-18:00"],
        "sat": ["10:00-15:00"],
        "sun": ["10:00-12:00"],
    }
    assert row(admin).exceptions == {"2026-12-24": "closed", "2026-12-31": ["10:00-14:00"], "2027-01-01": "closed"}
    assert says_open(admin, "2026-11-29T11:00")
    assert not says_open(admin, "2026-11-24T11:00")  # a Tuesday


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("9-13", ["09:00-13:00"]),
        ("9–13", ["09:00-13:00"]),
        ("09.00–13.00", ["09:00-13:00"]),
        ("  9:00 - 13:00, 14-18 ", ["09:00-13:00", "14:00-18:00"]),
        ("9 — 13; 14.30 - 18", ["09:00-13:00", "14:30-18:00"]),
        ("9-13 14-18", ["09:00-13:00", "14:00-18:00"]),
        ("0-24", ["00:00-24:00"]),
        ("22-6", ["22:00-06:00"]),
    ],
)
def test_hours_are_read_as_people_type_them_and_kept_in_one_notation(
    admin: Admin, emil: Browser, typed: str, stored: list[str]
) -> None:
    assert emil.post(url(admin), **fields(admin, sun=typed, mon="10-12")).status_code == 303
    assert shown_hours(emil.get(url(admin)).text)[-1] == ", ".join(stored)


@pytest.mark.parametrize("typed", ["closed 9-18", "closed, 14-18", "9-18 closed"])
def test_closed_stands_alone(admin: Admin, emil: Browser, typed: str) -> None:
    answer = emil.post(url(admin), **fields(admin, mon=typed))
    assert answer.status_code == 422
    assert "Leave empty for closed." in told(answer.text)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("9" + " " * 100_000 + "-" + "\n" * 100_000 + "18", ["9-18"]),
        (" " * 100_000 + "9-13" + " " * 100_000 + "14-18", ["9-13", "14-18"]),
        (" " * 100_000, "closed"),
        ("," + " " * 100_000 + "closed", "closed"),
        (", 9-13 ;", ["9-13"]),
    ],
)
def test_spaces_are_no_part_of_hours_however_many(admin: Admin, typed: str, read: list[str] | str) -> None:
    with admin.app.test_request_context():
        assert read_hours(typed) == read


@pytest.mark.parametrize("button", ["preview", "add_exceptions", "add_lunch", "copy", ""])
@pytest.mark.parametrize("field", ["sun", "exceptions-0-hours"])
def test_hours_over_the_limit_are_refused_without_being_parsed(
    admin: Admin, emil: Browser, monkeypatch: pytest.MonkeyPatch, button: str, field: str
) -> None:
    read: list[str] = []

    def note(text: str) -> list[str] | str:
        read.append(text)
        return read_hours(text)

    monkeypatch.setattr(views, "read_hours", note)
    long = "9-18" + " " * MAX_TEXT_CHARS + ";"
    posted = fields(admin) | {field: long} | ({button: "1"} if button else {})
    for page in (url(admin), "/p/acme/schedules/new"):
        answer = emil.post(page, **posted)
        assert button == "add_exceptions" or f"At most {MAX_TEXT_CHARS} characters." in told(answer.text)
        assert emil.post(page, **posted, htmx=True).status_code == (204 if button == "preview" else answer.status_code)
    assert read
    assert long not in read


def shown_hours(page: str) -> list[str]:
    return [unescape(re.search(rf'id="{day}" name="{day}"[^>]* value="([^"]*)"', page)[1]) for day in DAYS]  # type: ignore[index]


def test_monday_is_copied_to_the_other_workdays_and_lunch_to_all(admin: Admin, emil: Browser) -> None:
    page = emil.post(url(admin), **fields(admin, mon="8-12"), copy="1").text
    assert shown_hours(page) == [*["8-12"] * 5, "10:00-15:00", ""]
    page = emil.post(
        url(admin), **fields(admin, mon="8-18", tue="12-14, 15-20", wed="9-13"), add_lunch="1", lunch="13-14"
    ).text
    assert shown_hours(page)[:3] == ["08:00-13:00, 14:00-18:00", "12:00-14:00, 15:00-20:00", "09:00-13:00"]
    assert shown_hours(page)[5:] == ["10:00-13:00, 14:00-15:00", ""]
    page = emil.post(url(admin), **fields(admin, mon="8-18"), add_lunch="1", lunch="noon").text
    assert shown_hours(page)[0] == "8-18"
    assert 'id="lunch-error"' in page
    assert "data-dirty" in page
    assert row(admin).open["mon-fri"] == ["09:00-13:00", "14:00-18:00"]


def test_the_week_is_drawn_while_it_is_typed(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin), **fields(admin, sun="0-24"), preview="1", htmx=True)
    assert answer.text.lstrip().startswith('<div id="drawn"')
    assert 'x="0" y="0" width="1440"' in answer.text
    assert emil.post(url(admin), **fields(admin, sun="0-"), preview="1", htmx=True).status_code == 204
    for name in ("another", ""):  # the name may come last
        typed = fields(admin, sun="0-24", name=name)
        assert 'width="1440"' in emil.post("/p/acme/schedules/new", **typed, preview="1", htmx=True).text
    assert "sun" not in row(admin).open


def test_a_preview_does_not_ask_who_uses_the_schedule(
    admin: Admin, emil: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(views, "users_of")
    assert emil.post(url(admin), **fields(admin, sun="0-24"), preview="1", htmx=True).status_code == 200


def test_dates_have_names(admin: Admin, emil: Browser, olena: Browser) -> None:
    posted = fields(admin) | {"exceptions-0-name": "Christmas Eve", "exceptions-2-kind": "range"}
    posted |= {"exceptions-2-date": "2027-01-01", "exceptions-2-last": "2027-01-08", "exceptions-2-name": "Holidays"}
    assert emil.post(url(admin), **posted).status_code == 303
    names = {"2026-12-24": "Christmas Eve", "2027-01-01..2027-01-08": "Holidays"}
    assert row(admin).more["exception_names"] == names
    page = unescape(emil.get(url(admin, what="?week=2027-01-04&at=2027-01-05T10:30")).text)
    assert 'name="exceptions-2-name" value="Holidays"' in page
    assert "Tuesday, 5 January 2027 (Holidays) is a date with other hours" in page
    assert "Mon 4: Holidays: closed" in page
    assert (
        "Name of 24 December 2026" in unescape(olena.get("/audit").text) or "Christmas Eve" in olena.get("/audit").text
    )
    assert emil.post(url(admin), **shown_fields(page)).status_code == 303
    assert row(admin).more["exception_names"] == names
    del posted["exceptions-0-date"], posted["exceptions-0-hours"], posted["exceptions-0-name"]
    assert emil.post(url(admin), **posted | {"revision": str(row(admin).revision)}).status_code == 303
    assert row(admin).more["exception_names"] == {"2027-01-01..2027-01-08": "Holidays"}
    assert emil.post(url(admin), **fields(admin) | {"exceptions-0-name": "x" * 201}).status_code == 422


def test_a_viewer_sees_the_page_of_the_editors_with_nothing_to_press(
    admin: Admin, vira: Browser, emil: Browser
) -> None:
    page = vira.get(url(admin)).text
    form = page.partition('id="hours"')[2].partition("</form>")[0]
    assert '<fieldset class="stack stack-lg" disabled>' in form
    assert "<button" not in form
    assert shown_hours(page) == shown_hours(emil.get(url(admin)).text)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("mon", "9 to 5", "Write hours like 09:00-13:00"),
        ("mon", "09:00-13:00, 12:00-14:00", "These hours overlap others"),
        ("mon", "25:00-26:00", "There is no such time of day"),
        ("mon", "09:00-09:00", "start and end at the same time"),
        ("sat", "22:00-08:00", ""),
        ("time_zone", "Kyiv", "There is no such time zone"),
        ("name", "spare", "Another one has this name already"),
    ],
)
def test_a_fault_stands_beside_its_day(admin: Admin, emil: Browser, field: str, value: str, said: str) -> None:
    answer = emil.post(url(admin), **fields(admin, **{field: value}))
    if not said:
        assert answer.status_code == 303
        return
    assert answer.status_code == 422
    beside = re.search(rf'id="{field}-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert said in unescape(beside[1])
    assert f'value="{value}"' in answer.text
    assert row(admin).open["sat"] == ["10:00-15:00"]


def test_a_night_that_runs_into_the_next_morning_is_told(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin), **fields(admin, mon="22:00-10:00"))
    assert answer.status_code == 422
    assert "These hours overlap others" in answer.text


@pytest.mark.parametrize(
    ("date_", "hours", "said"),
    [
        ("", "", "Write the date like 2026-12-25."),
        ("2026-12-24", "", "This date occurs twice"),
        ("2027-01-01", "noon", "Write hours like"),
        ("9999-01-01", "", "Check the year."),
    ],
)
def test_a_fault_stands_beside_its_date(admin: Admin, emil: Browser, date_: str, hours: str, said: str) -> None:
    posted = fields(admin) | {"exceptions-2-date": date_, "exceptions-2-hours": hours}
    answer = emil.post(url(admin), **posted)
    assert answer.status_code == 422
    beside = re.search(r'id="exceptions-2-\w+-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert said in unescape(beside[1])


def test_a_date_may_not_run_into_another_date(admin: Admin, emil: Browser) -> None:
    posted = fields(admin) | {"exceptions-2-date": "2026-12-30", "exceptions-2-hours": "22:00-04:00"}
    answer = emil.post(url(admin), **posted)
    assert answer.status_code == 422
    assert "These hours run into the next date" in answer.text


def test_the_week_is_drawn_before_it_is_saved(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin), **fields(admin, sun="00:00-24:00"), preview="1")
    assert answer.status_code == 200
    assert "The week as typed, not saved yet" in answer.text
    assert 'x="0" y="0" width="1440"' in answer.text
    assert "sun" not in row(admin).open


def test_the_buttons_beside_the_dates_work_without_a_script(admin: Admin, emil: Browser) -> None:
    def dates(page: str) -> list[str]:
        shown = re.sub(r"<template.*?</template>", "", page, flags=re.DOTALL)
        return re.findall(r'name="exceptions-\d+-date" value="([^"]*)"', shown)

    assert dates(emil.post(url(admin), **fields(admin), add_exceptions="date").text) == ["2026-12-24", "2026-12-31", ""]
    page = emil.post(url(admin), **fields(admin, sun="0-24"), remove_exceptions="0").text
    assert dates(page) == ["2026-12-31"]
    assert 'x="0" y="0" width="1440"' in page, "the week is drawn as typed"


def test_two_who_edit_the_hours_are_told_of_each_other(admin: Admin, emil: Browser, olena: Browser) -> None:
    mine = fields(admin, sun="10:00-12:00")
    assert olena.post(url(admin), **fields(admin, sat="")).status_code == 303
    answer = emil.post(url(admin), **mine)
    assert answer.status_code == 409
    assert re.search(r"Saturday</th>.{0,300}empty.{0,300}10:00-15:00", answer.text, re.DOTALL)


def test_a_new_schedule_starts_with_usual_hours(admin: Admin, emil: Browser) -> None:
    page = emil.get("/p/acme/schedules/new").text
    assert page.count('value="09:00-18:00"') == 5
    assert 'value="Europe/Kyiv"' in page
    posted: dict[str, Any] = dict.fromkeys(DAYS, "") | {
        "name": "weekend",
        "time_zone": "Europe/Warsaw",
        "sun": "10:00-12:00",
    }
    assert emil.post("/p/acme/schedules/new", **posted).status_code == 303
    assert row(admin, "weekend").open == {"sun": ["10:00-12:00"]}


# ---- hours that lose a minute


def doubt(page: str, id_: str) -> str:
    found = re.search(rf'id="{id_}-doubt">.*?<span>([^<]*)</span>', page, re.DOTALL)
    return unescape(found[1]) if found else ""


def test_hours_that_lose_a_minute_are_told_beside_them_when_typed_and_when_saved(admin: Admin, emil: Browser) -> None:
    posted = fields(admin, sun="00:00-23:59") | {"exceptions-1-hours": "9:00-12:00, 13:00-23:59"}
    for page in (
        emil.post(url(admin), **posted, preview="1").text,
        emil.post(url(admin), **posted, follow=True).text,
        emil.get(url(admin)).text,
    ):
        assert "00:00-23:59 leaves one minute closed" in doubt(page, "sun")
        assert "Did you mean 00:00-24:00?" in doubt(page, "sun")
        assert re.search(r'<input[^>]*aria-describedby="sun-doubt"', page)
        assert "Did you mean 13:00-24:00?" in doubt(page, "exceptions-1-hours")
        assert doubt(page, "mon") == ""
    assert row(admin).open["sun"] == ["00:00-23:59"]
    assert "This schedule leaves one minute closed with “00:00-23:59”, “13:00-23:59”" in unescape(
        emil.get("/p/acme/schedules").text
    )
    page = emil.post(url(admin), **fields(admin, sun="00:00-24:00"), follow=True).text
    assert "-doubt" not in page


def test_days_of_every_year_that_are_nearly_all_are_told(admin: Admin, emil: Browser) -> None:
    configure(admin, {"2026-12-31": "closed", "08-24..08-20": "closed"})
    page = emil.get(url(admin)).text
    assert "Nearly a whole year" in doubt(page, "exceptions-1-hours")
    assert doubt(page, "exceptions-0-hours") == ""


@pytest.mark.parametrize("typed", ["00:00-23:59:59", "00:00-00:00"])
def test_what_cannot_be_the_whole_day_is_refused_with_what_is(admin: Admin, emil: Browser, typed: str) -> None:
    answer = emil.post(url(admin), **fields(admin, sun=typed))
    assert answer.status_code == 422
    beside = re.search(r'id="sun-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert "24:00" in beside[1]


# ---- what happens at …


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (
            "2026-11-24T10:30",
            ["Open", "the hours of Tuesday, 24 November 2026: 09:00-13:00", "Until Tue, 24 Nov 2026, 13:00"],
        ),
        ("2026-11-24T13:30", ["Closed", "outside the hours of Tuesday", "Until Tue, 24 Nov 2026, 14:00"]),
        ("2026-12-24T10:30", ["Closed", "is a date with other hours", "Until Fri, 25 Dec 2026, 09:00"]),
        ("2026-12-31T10:30", ["Open", "a date of its own: 10:00-14:00", "Until Thu, 31 Dec 2026, 14:00"]),
        ("gestern", ["Write it like 2026-12-24 14:00."]),
        ("0001-01-01", ["Check the year."]),
        ("2026-03-29T03:30", ["There is no such time: the clocks go forward then."]),
        ("2026-10-25T03:30", ["Sun, 25 Oct 2026, 03:30 (UTC+03:00)", "Closed"]),
        ("2026-10-25T03:30+02:00", ["Sun, 25 Oct 2026, 03:30 (UTC+02:00)", "Closed"]),
    ],
)
def test_it_tells_what_happens_at_a_moment(admin: Admin, vira: Browser, at: str, said: list[str]) -> None:
    page = unescape(vira.get(url(admin, what="?" + urlencode({"at": at}))).text)
    told = page.partition('<div role="status">')[2].partition("</form>")[0]
    for words in said:
        assert words in told


def test_any_week_can_be_looked_at(admin: Admin, vira: Browser) -> None:
    page = unescape(vira.get(url(admin, what="?week=2026-12-23")).text)
    assert "The week from 21 December 2026" in page
    assert "Thursday, 24 Dec: closed" in page
    assert "?week=2026-12-14" in page
    for nonsense in ("0001-01-01", "9999-12-31", "soon"):
        assert vira.get(url(admin, what=f"?week={nonsense}")).status_code == 200


# ---- override


def test_it_is_closed_for_a_while_and_opens_by_itself(admin: Admin, emil: Browser) -> None:
    until = (datetime.now(UTC) + timedelta(hours=3)).astimezone(tz=None)
    in_kyiv = until.astimezone(UTC) + timedelta(hours=2)
    answer = emil.post(
        url(admin, what="/override"), override="closed", override_until=f"{in_kyiv:%Y-%m-%dT%H:%M}", follow=True
    )
    assert "Closed from the next call on." in answer.text
    found = row(admin)
    assert found.override == "closed"
    assert found.override_until is not None
    assert abs(found.override_until - until) < timedelta(minutes=1)
    assert "set by hand" in answer.text
    assert "Open again" in answer.text
    emil.post(url(admin, what="/override"), end="1")
    assert (row(admin).override, row(admin).override_until) == ("", None)


def test_an_override_needs_a_moment_to_come(admin: Admin, emil: Browser) -> None:
    for until, said in (("2020-01-01T10:00", "That moment is past"), ("soon", "Write it like")):
        answer = emil.post(url(admin, what="/override"), override="open", override_until=until, follow=True)
        assert said in answer.text
    assert "Choose open or closed." in emil.post(url(admin, what="/override"), override_until="", follow=True).text
    assert row(admin).override == ""


def test_a_time_that_the_clocks_skip_ends_no_override(admin: Admin, emil: Browser) -> None:
    april = date(datetime.now(UTC).year + 1, 4, 1)
    skipped = f"{april - timedelta(days=april.isoweekday())}T03:30"  # the last Sunday of March
    answer = emil.post(url(admin, what="/override"), override="open", override_until=skipped, follow=True)
    assert "There is no such time: the clocks go forward then." in answer.text
    assert row(admin).override == ""


# ---- closed early


def told(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def close(browser: Browser, admin: Admin, until: str, **more: Any) -> Any:
    return browser.post(url(admin, what="/close"), override="closed", override_until=until, **more)


def test_closing_proposes_the_end_of_the_day(admin: Admin, emil: Browser) -> None:
    tomorrow = (datetime.now(ZoneInfo(KYIV)) + timedelta(days=1)).date()
    for page in (emil.get(url(admin)).text, emil.get(url(admin, what="/close")).text):
        assert re.search(rf'name="override_until"[^>]*value="{tomorrow}T00:00"', page)
    answer = close(emil, admin, f"{tomorrow}T00:00", follow=True).text
    assert "Closed from the next call on." in answer
    assert "closed until the end of the day by emil@example.org" in told(answer)


def test_a_closed_schedule_is_told_on_the_board_and_the_rules_until_it_is_opened_again(
    admin: Admin, emil: Browser, vira: Browser
) -> None:
    for page in ("board", "rules"):
        assert "Open again" not in emil.get(f"/p/acme/{page}").text
    for name in ("office hours", "spare"):
        assert f'href="{url(admin, name, "/close")}">{name}</a>' in emil.get("/p/acme/board").text
        assert "/close" not in vira.get("/p/acme/board").text
    assert close(emil, admin, "").location == "/p/acme/board"
    for page in ("board", "rules"):
        shown = emil.get(f"/p/acme/{page}").text
        assert "office hours closed until somebody opens it again by emil@example.org Open again" in told(shown)
        assert f'name="next" value="/p/acme/{page}"' in shown
        assert "by emil@example.org" in vira.get(f"/p/acme/{page}").text
        assert "Open again" not in vira.get(f"/p/acme/{page}").text
    card = emil.get("/p/acme/rules").text.partition('data-item="night"')[2].partition("</li>")[0]
    assert "Applies now" in card
    emil.post(url(admin, what="/override"), override="open", override_until="")
    card = emil.get("/p/acme/rules").text.partition('data-item="night"')[2].partition("</li>")[0]
    assert "Does not apply now" in card
    answer = emil.post(url(admin, what="/override"), end="1", next="/p/acme/rules")
    assert answer.location == "/p/acme/rules"
    assert "Applies now" not in emil.get("/p/acme/rules").text
    assert emil.post(url(admin, what="/override"), end="1", next="https://example.org").location == url(admin)


def test_who_closed_it_is_told_whatever_others_change_of_the_schedule_later(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    emil, olena = admin.browser("emil"), admin.browser("olena")
    close(emil, admin, "")
    assert olena.post(url(admin), **fields(admin, sun="10-12")).status_code == 303
    olena.post(url(admin, "spare", "/override"), override="open", override_until="")
    shown = told(olena.get("/p/acme/board").text)
    assert "office hours closed until somebody opens it again by emil@example.org" in shown
    assert "spare open until somebody ends that by olena@example.org" in shown
    tomorrow = (datetime.now(ZoneInfo(KYIV)) + timedelta(days=1)).date()
    olena.post(url(admin, what="/override"), override="closed", override_until=f"{tomorrow}T00:00")
    emil.post(url(admin), **fields(admin, sat="10-12"))
    assert "closed until the end of the day by olena@example.org" in told(emil.get("/p/acme/board").text)


def test_the_audit_trail_is_asked_once_for_all_closed_schedules(admin: Admin, emil: Browser) -> None:
    seen: list[str] = []
    engine = admin.app.extensions["admin"].database.engine
    event.listen(engine, "before_cursor_execute", lambda _connection, _cursor, statement, *_: seen.append(statement))
    for name in ("office hours", "spare"):
        emil.post(url(admin, name, "/close"), override="closed", override_until="")
        seen.clear()
        assert name in told(emil.get("/p/acme/rules").text)
        assert sum("audit_entries" in statement for statement in seen) == 1


def test_a_moment_that_is_refused_stays_in_the_form(admin: Admin, emil: Browser, vira: Browser) -> None:
    answer = close(emil, admin, "2020-01-01T10:00")
    assert answer.status_code == 422
    assert 'value="2020-01-01T10:00"' in answer.text
    assert "That moment is past" in answer.text
    assert row(admin).override == ""
    assert vira.get(url(admin, what="/close")).status_code == 403


# ---- holidays


def test_holidays_are_proposed_and_only_those_ticked_are_taken(admin: Admin, emil: Browser, vira: Browser) -> None:
    page = unescape(emil.get(url(admin)).text)
    offered = re.findall(r'name="day" value="([\d-]+)"', page)
    today = datetime.now(UTC).date()
    assert f"{today.year + (today > date(today.year, 12, 25))}-12-25" in offered
    assert all(today <= date.fromisoformat(day) for day in offered)
    assert row(admin).exceptions == {"2026-12-24": "closed", "2026-12-31": ["10:00-14:00"]}  # nothing happens by itself
    answer = emil.client.post(
        url(admin, what="/holidays"),
        data={"csrf_token": emil.token, "day": [offered[0], "2026-12-31", "2099-01-01"]},
        follow_redirects=True,
    ).text
    assert "Closed on 1 more date." in answer
    assert row(admin).exceptions == {"2026-12-24": "closed", "2026-12-31": ["10:00-14:00"], offered[0]: "closed"}
    assert f'name="day" value="{offered[0]}"' not in answer
    version = re.search(r'name="version" value="(\d+)"', answer)
    assert version is not None
    emil.post("/p/acme/undo", version=version[1])
    assert offered[0] not in row(admin).exceptions
    assert 'name="day"' not in vira.get(url(admin)).text


def test_the_calendar_knows_languages_and_admits_what_it_does_not_know() -> None:
    first, last = date(2027, 1, 1), date(2027, 1, 2)
    assert holidays_of("PL", first, last, "uk") == [(first, "Новий рік")]
    assert holidays_of("PL", first, last, "xx")[0][0] == first
    assert holidays_of("UA", first, date(2027, 12, 31), "uk") == []  # while martial law lasts
    assert holidays_of("AC", first, last, "en") == []


def test_without_holidays_the_page_says_so(admin: Admin, emil: Browser) -> None:
    apply(admin.database, load(CONFIG.replace("country: PL", "country: UA"), {}), actor="test")
    assert "while martial law lasts" in emil.get(url(admin)).text


# ---- deleting


def test_a_schedule_in_use_is_not_deleted_and_its_users_are_listed(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin, what="/delete"), follow=True).text
    told = answer.partition("Not deleted")[2].partition("</div>")[0]
    assert re.findall(r">([^<]+)</a>", told) == ["night", "sales", "Alice"]
    assert row(admin).name == "office hours"


# ---- dates, ranges, every year, the nth weekday


EVERY_KIND = {
    "2026-12-25": "closed",
    "2027-01-01..2027-01-08": ["10:00-12:00", "22:00-03:00"],
    "last mon of may": "closed",
    "08-24": ["10:00-14:00"],
    "12-31..01-02": "closed",
    "02-29": "closed",
}


def configure(admin: Admin, exceptions: dict[str, Any]) -> None:
    words = CONFIG.replace('{2026-12-24: closed, 2026-12-31: ["10:00-14:00"]}', json.dumps(exceptions))
    apply(admin.database, load(words, {}), actor="test")


def inputs(page: str) -> dict[str, str]:
    """What a browser would post of the form of hours."""
    return {name: values[0] for name, values in shown_fields(page).items()}


def exception_words(admin: Admin) -> dict[str, Any]:
    return dict(row(admin).exceptions)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedules(KYIV))
def test_a_form_saved_as_it_is_shown_keeps_any_schedule(admin: Admin, emil: Browser, schedule: Schedule) -> None:
    with admin.database.writing() as session:
        stored = session.get_one(models.Schedule, row(admin).id)
        stored.open, stored.exceptions = render_open(schedule), render_exceptions(schedule)
        stored.time_zone = schedule.time_zone
    shown = inputs(emil.get(url(admin)).text)
    name = f"copy {len(admin.all(models.Schedule))}"
    assert emil.post("/p/acme/schedules/new", **{**shown, "name": name}).status_code == 303
    copy = row(admin, name)
    assert (copy.open, copy.exceptions) == (render_open(schedule), render_exceptions(schedule))


def test_what_the_file_says_is_shown_and_saved_as_it_was(admin: Admin, emil: Browser) -> None:
    configure(admin, EVERY_KIND)
    before = admin.one(models.Project, name="acme").version
    assert emil.post(url(admin), **inputs(emil.get(url(admin)).text)).status_code == 303
    assert admin.one(models.Project, name="acme").version == before
    assert exception_words(admin) == EVERY_KIND


@pytest.mark.parametrize(
    ("kind", "typed", "words"),
    [
        ("range", {"date": "2027-01-01", "last": "2027-01-08"}, "2027-01-01..2027-01-08"),
        ("range", {"date": "2027-01-01", "last": "2027-01-01"}, "2027-01-01"),
        ("yearly", {"day": "24", "month": "8"}, "08-24"),
        ("yearly", {"day": "05", "month": "1"}, "01-05"),
        ("season", {"day": "31", "month": "12", "last_day": "2", "last_month": "1"}, "12-31..01-02"),
        ("weekday", {"nth": "last", "weekday": "mon", "month": "5"}, "last mon of may"),
        ("date", {"date": "2nd tue of nov"}, "second tue of nov"),
        ("", {"date": "2027-02-01..2027-02-03"}, "2027-02-01..2027-02-03"),
    ],
)
def test_every_kind_is_added_without_a_script(
    admin: Admin, emil: Browser, kind: str, typed: dict[str, str], words: str
) -> None:
    shown = inputs(emil.post(url(admin), **fields(admin), add_exceptions=kind or "date").text)
    row_ = {f"exceptions-2-{part}": value for part, value in typed.items()}
    assert row_.keys() <= shown.keys()
    posted = shown | row_ | {"exceptions-2-hours": "10:00-12:00", "exceptions-2-kind": kind}
    assert emil.post(url(admin), **posted).status_code == 303
    assert exception_words(admin)[words] == ["10:00-12:00"]
    found = inputs(emil.get(url(admin)).text)
    gone = next(key.split("-")[1] for key, value in found.items() if value == "10:00-12:00")
    left = inputs(emil.post(url(admin), **found, remove_exceptions=gone).text)
    assert emil.post(url(admin), **left).status_code == 303
    assert exception_words(admin) == {"2026-12-24": "closed", "2026-12-31": ["10:00-14:00"]}


@pytest.mark.parametrize(
    ("kind", "typed", "said"),
    [
        ("range", {"date": "2027-01-08", "last": "2027-01-01"}, "Write two dates like 2026-12-25"),
        ("range", {"date": "2027-01-08", "last": ""}, "Write two dates like"),
        ("range", {"date": "2027-01-08", "last": "9999-01-01"}, "Check the year."),
        ("yearly", {"day": "30", "month": "2"}, "There is no such day in the year."),
        ("yearly", {"day": "x", "month": "2"}, "There is no such day in the year."),
        (
            "season",
            {"day": "31", "month": "12", "last_day": "", "last_month": "1"},
            "There is no such day in the year.",
        ),
        ("weekday", {"nth": "sixth", "weekday": "mon", "month": "5"}, "Choose which weekday of which month."),
        ("weekday", {}, "Choose which weekday of which month."),
    ],
)
def test_dates_that_make_no_sense_are_told_beside_them(
    admin: Admin, emil: Browser, kind: str, typed: dict[str, str], said: str
) -> None:
    posted = {f"exceptions-5-{part}": value for part, value in {"kind": kind, "hours": "", **typed}.items()}
    answer = emil.post(url(admin), **fields(admin), **posted)
    assert answer.status_code == 422
    beside = re.search(r'id="exceptions-2-\w+-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert said in unescape(beside[1])
    shown = inputs(answer.text)
    assert {part: shown.get(f"exceptions-2-{part}") for part in typed if part != "nth"} == {
        part: value for part, value in typed.items() if part != "nth"
    }


def test_exceptions_that_nobody_touched_are_no_conflict(admin: Admin, emil: Browser, olena: Browser) -> None:
    configure(admin, EVERY_KIND | {"first sun of oct": ["00:00-23:59"]})
    mine, hers = (inputs(browser.get(url(admin)).text) for browser in (emil, olena))
    added = {
        "exceptions-9-kind": "yearly",
        "exceptions-9-day": "1",
        "exceptions-9-month": "9",
        "exceptions-9-hours": "",
    }
    assert olena.post(url(admin), **{**hers, "sun": "10:00-12:00"}, **added).status_code == 303
    assert emil.post(url(admin), **{**mine, "sat": "11:00-12:00"}).status_code == 303
    assert (row(admin).open["sat"], row(admin).open["sun"]) == (["11:00-12:00"], ["10:00-12:00"])
    assert exception_words(admin) == EVERY_KIND | {"first sun of oct": ["00:00-23:59"], "09-01": "closed"}


def test_two_rows_that_meet_are_told_beside_the_later_one(admin: Admin, emil: Browser) -> None:
    configure(admin, {"2027-01-01..2027-01-08": "closed"})
    posted = inputs(emil.get(url(admin)).text)
    posted |= {"exceptions-1-kind": "range", "exceptions-1-date": "2027-01-08", "exceptions-1-last": "2027-01-09"}
    answer = emil.post(url(admin), **posted)
    assert answer.status_code == 422
    beside = answer.text.partition('id="exceptions-1-date-error"')[2].partition("</div>")[0]
    assert "This meets another row of its kind" in beside
    posted["exceptions-1-date"] = "2027-01-09"
    assert emil.post(url(admin), **posted).status_code == 303


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("2026-05-25T10:30", ["Closed", "25 May 2026 (last Monday of May, every year) is a date with other hours"]),
        ("2031-08-24T10:30", ["Open", "24 August 2031 (24 August, every year), a date of its own: 10:00-14:00"]),
        ("2028-01-01T10:30", ["Closed", "(31 December – 2 January, every year)"]),
        ("2027-01-02T02:30", ["Open", "1 January 2027 (1 January 2027 – 8 January 2027), a date of its own: 22:00-"]),
        ("2027-01-09T02:30", ["Open", "Friday, 8 January 2027 (1 January 2027 – 8 January 2027)", "03:00"]),
        ("2026-12-25T10:30", ["Closed", "Friday, 25 December 2026 is a date with other hours"]),
    ],
)
def test_it_tells_by_which_exception_it_is_open_or_closed(
    admin: Admin, vira: Browser, at: str, said: list[str]
) -> None:
    configure(admin, EVERY_KIND)
    page = unescape(vira.get(url(admin, what=f"?at={at}")).text)
    told = page.partition('<div role="status">')[2].partition("</form>")[0]
    for words in said:
        assert words in told


def test_the_week_is_drawn_with_its_exceptions_and_names_them(admin: Admin, vira: Browser) -> None:
    configure(admin, EVERY_KIND)
    page = unescape(vira.get(url(admin, what="?week=2026-05-25")).text)
    assert "Monday, 25 May: closed (last Monday of May, every year)" in page
    assert "Mon 25: last Monday of May, every year: closed" in page
    page = unescape(vira.get(url(admin, what="?week=2027-01-04")).text)
    assert page.count('x="0" y="0" width="180"') == 6  # the nights of the range run through it, into Saturday
    assert "Mon 4: 1 January 2027 – 8 January 2027: 00:00–03:00, 10:00–12:00, 22:00–24:00" in page


def test_exceptions_are_told_in_ukrainian(admin: Admin, vira: Browser) -> None:
    configure(admin, {**EVERY_KIND, "first sun of oct": "closed"})
    vira.client.set_cookie("language", "uk")
    page = unescape(vira.get(url(admin)).text)
    for words in (
        "25 грудня 2026",
        "1 січня 2027 – 8 січня 2027",
        "останній понеділок травня, щороку",
        "перша неділя жовтня, щороку",
        "24 серпня, щороку",
        "31 грудня – 2 січня, щороку",
    ):
        assert words in page


def test_the_audit_trail_tells_exceptions_in_words(admin: Admin, olena: Browser) -> None:
    configure(admin, EVERY_KIND)
    page = unescape(olena.get("/audit").text)
    assert "Exception last Monday of May, every year" in page


def test_a_holiday_that_an_exception_covers_is_not_proposed(admin: Admin, emil: Browser) -> None:
    assert re.search(r'value="\d{4}-12-25"', emil.get(url(admin)).text)
    configure(admin, {"12-25": ["10:00-12:00"]})
    assert not re.search(r'name="day" value="\d{4}-12-25"', emil.get(url(admin)).text)


def test_a_holiday_into_which_the_day_before_runs_is_refused_and_named(admin: Admin, emil: Browser) -> None:
    christmas = date(datetime.now(UTC).year + (datetime.now(UTC).date() > date(datetime.now(UTC).year, 12, 25)), 12, 25)
    eve = str(christmas - timedelta(days=1))
    configure(admin, {eve: ["22:00-04:00"]})
    answer = emil.post(url(admin, what="/holidays"), day=str(christmas), follow=True)
    assert "These hours run into the next date" in answer.text
    assert exception_words(admin) == {eve: ["22:00-04:00"]}


# ---- what is typed beside each other


def typed_beside(admin: Admin, emil: Browser, **fields: Any) -> dict[str, Any]:
    """The whole page as a browser posts it from one of its buttons."""
    return shown_fields(emil.get(url(admin)).text) | fields


@pytest.mark.parametrize("until", ["2020-01-01T10:00", "soon", "2026-03-29T03:30"])
def test_a_refused_override_keeps_what_was_typed_and_the_hours_beside_it(
    admin: Admin, emil: Browser, until: str
) -> None:
    before = row(admin)
    fields = typed_beside(admin, emil, sat="10:11-12:13", name="typed", override="open", override_until=until)
    answer = emil.post(url(admin, what="/override"), **fields)
    assert answer.status_code == 422
    page = unescape(answer.text)
    assert f'value="{until}"' in page
    assert re.search(r'<input[^>]*checked[^>]*name="override"[^>]*value="open"', page)
    assert 'value="10:11-12:13"' in page
    assert 'value="typed"' in page
    assert "<details open>" in page
    assert f'action="{url(admin)}"' in page
    assert (row(admin).override, row(admin).name, row(admin).open) == ("", before.name, before.open)


def test_an_override_that_is_taken_keeps_the_hours_beside_it_unsaved(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin, what="/override"), **typed_beside(admin, emil, sat="10:11-12:13", override="open"))
    assert answer.status_code == 200
    assert "Open from the next call on." in answer.text
    assert 'value="10:11-12:13"' in answer.text
    assert row(admin).override == "open"
    again = emil.post(url(admin), **shown_fields(answer.text))
    assert again.status_code == 303
    assert (row(admin).override, row(admin).open["sat"]) == ("open", ["10:11-12:13"])


def test_holidays_keep_the_hours_beside_them(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin, what="/holidays"), **typed_beside(admin, emil, sat="10:11-12:13"))
    assert "Tick the holidays first." in answer.text
    assert 'value="10:11-12:13"' in answer.text


def test_without_anything_typed_beside_it_an_override_leads_back(admin: Admin, emil: Browser) -> None:
    answer = emil.post(url(admin, what="/override"), **typed_beside(admin, emil, override="closed"))
    assert (answer.status_code, answer.location) == (303, url(admin))


def test_hours_typed_beside_an_override_hold_no_connection(admin: Admin, emil: Browser) -> None:
    pool = admin.app.extensions["admin"].database.engine.pool
    opened: list[int] = []
    event.listen(pool, "checkout", lambda *_: opened.append(1))
    event.listen(pool, "checkin", lambda *_: opened.pop())
    answer = emil.post(url(admin, what="/override"), **fields(admin, mon="10:00-11:00"), override="closed")
    assert answer.status_code == 200, "the page shows the hours as typed"
    assert opened == []
