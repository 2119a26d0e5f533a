"""The words of a schedule: what is read, what is refused and with which remedy, and that writing undoes reading."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router.core.dates import DAYS, LAST, DateRange, MonthDay, NthWeekday, Yearly
from router.core.schedule import Override, Schedule, Span, lost_minutes
from router.core.schedule_words import (
    ScheduleError,
    doubts_of,
    parse_schedule,
    render_exceptions,
    render_names,
    render_open,
    time_zones,
)
from tests.core.test_schedule import LAW, moments, render_schedule

KYIV = "Europe/Kyiv"
NINE_TO_SIX = (Span(540, 1080),)


def weekly(words: dict[Any, Any]) -> dict[str, list[tuple[int, int]]]:
    """What the words of `open` mean, by day."""
    schedule = parse_schedule("any", KYIV, words)
    return {DAYS[n]: [(start, end) for start, end in spans] for n, spans in enumerate(schedule.weekly) if spans}


# ---- laws


@LAW
@given(moments() | moments(overridden=True))
def test_reading_undoes_writing(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, _, _ = moment
    words = render_schedule(schedule)
    assert parse_schedule(**words, id=schedule.id) == schedule
    assert parse_schedule(**json.loads(json.dumps(words)), id=schedule.id) == schedule
    assert parse_schedule(**yaml.safe_load(yaml.safe_dump(words)), id=schedule.id) == schedule


@LAW
@given(moments())
def test_writes_equal_days_once_and_empty_days_never(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, _, _ = moment
    hours = list(render_open(schedule).values())
    assert len({tuple(spans) for spans in hours}) == len(hours) == len({spans for spans in schedule.weekly if spans})
    assert all(hours)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates() | st.datetimes()
    | st.sampled_from(["daily", "mon-fri", "sun", "closed", "open", "22:00-06:00", "00:00-24:00", "2026-12-25"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.dates() | st.sampled_from([*DAYS, "daily"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.just(KYIV) | ANY, ANY, ANY, ANY, ANY)
def test_reads_or_refuses_whatever_comes(zone: Any, hours: Any, exceptions: Any, override: Any, until: Any) -> None:
    outcome: Schedule | ScheduleError
    try:
        outcome = parse_schedule("any", zone, hours, exceptions, override, until)
    except ScheduleError as error:
        outcome = error
    if isinstance(outcome, Schedule):
        assert parse_schedule(**render_schedule(outcome)) == outcome
    else:
        assert outcome.place.partition(".")[0] in ("time_zone", "open", "exceptions", "override", "override_until")
        assert outcome.message
        assert outcome.remedy


# ---- what is read


def test_reads_the_example_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(encoding="utf-8")
    (words,) = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])["schedules"]
    assert parse_schedule(**words) == Schedule(
        id=0,
        name="office hours",
        time_zone=KYIV,
        weekly=((Span(540, 780), Span(840, 1080)),) * 5 + ((Span(600, 900),), ()),
        exceptions=(
            (date(2026, 12, 25), ()),
            (date(2026, 12, 31), (Span(600, 840),)),
            (DateRange(date(2027, 1, 1), date(2027, 1, 8)), ()),
            (Yearly(MonthDay(8, 24), MonthDay(8, 24)), ()),
            (Yearly(MonthDay(12, 31), MonthDay(1, 2)), ()),
            (NthWeekday(LAST, 0, 5), ()),
        ),
        override=Override(open=False, until=datetime(2026, 11, 24, 12, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    ("key", "days"),
    [
        ("mon", "mon"),
        ("mon-fri", "mon tue wed thu fri"),
        ("sat,sun", "sat sun"),
        ("mon-wed,fri", "mon tue wed fri"),
        ("sat-mon", "sat sun mon"),
        ("wed-wed", "wed"),
        ("daily", "mon tue wed thu fri sat sun"),
        (" Mon - Tue , SUN ", "mon tue sun"),
        (" Daily ", "mon tue wed thu fri sat sun"),
    ],
)
def test_reads_days_ranges_and_lists(key: str, days: str) -> None:
    assert weekly({key: ["09:00-18:00"]}).keys() == set(days.split())


@pytest.mark.parametrize(
    ("word", "span"),
    [
        ("09:00-18:00", (540, 1080)),
        ("9:00-18:00", (540, 1080)),
        (" 09:00 – 18:00 ", (540, 1080)),
        ("00:00-24:00", (0, 1440)),
        ("22:00-24:00", (1320, 1440)),
        ("22:00-00:00", (1320, 1440)),
        ("22:00-06:00", (1320, 1800)),
        ("23:59-23:58", (1439, 2878)),
    ],
)
def test_reads_hours(word: str, span: tuple[int, int]) -> None:
    assert weekly({"mon": [word]}) == {"mon": [span]}


def test_a_closed_day_has_no_hours_and_hours_are_sorted() -> None:
    hours = ["14:00-18:00", "09:00-13:00"]
    assert weekly({"mon": hours, "tue": "closed", "wed": []}) == {"mon": [(540, 780), (840, 1080)]}
    schedule = parse_schedule("any", KYIV, {}, {"2026-12-25": hours})
    assert schedule.exceptions == ((date(2026, 12, 25), (Span(540, 780), Span(840, 1080))),)


def test_hours_that_touch_are_kept_as_written() -> None:
    words = {"mon": ["09:00-13:00", "13:00-18:00"], "tue": ["22:00-06:00"], "wed": ["06:00-09:00"]}
    assert render_open(parse_schedule("any", KYIV, words)) == words


def test_dates_may_come_as_dates_or_as_text() -> None:
    as_dates = parse_schedule("any", KYIV, {}, {date(2026, 12, 31): ["10:00-14:00"], date(2026, 12, 25): "closed"})
    as_text = parse_schedule("any", KYIV, {}, {"2026-12-25": [], "2026-12-31": ["10:00-14:00"]})
    assert as_dates == as_text
    assert render_exceptions(as_text) == {"2026-12-25": "closed", "2026-12-31": ["10:00-14:00"]}


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("2027-01-01..2027-01-08", "2027-01-01..2027-01-08"),
        (" 2027-01-01 .. 2027-01-08 ", "2027-01-01..2027-01-08"),
        ("2027-01-01 – 2027-01-08", "2027-01-01..2027-01-08"),
        ("2027-01-01 - 2027-01-08", "2027-01-01..2027-01-08"),
        ("2027-01-01…2027-01-08", "2027-01-01..2027-01-08"),
        ("2027-01-01..2027-01-01", "2027-01-01"),
        ("08-24", "08-24"),
        ("08-24..08-24", "08-24"),
        ("12-31..01-02", "12-31..01-02"),
        ("12-31 – 01-02", "12-31..01-02"),
        ("02-29", "02-29"),
        ("last mon of may", "last mon of may"),
        ("LAST  Monday in May", "last mon of may"),
        ("1st Sun. of Oct.", "first sun of oct"),
        ("first sunday of october", "first sun of oct"),
        ("2nd tue of nov", "second tue of nov"),
        ("Third Wed of Sept", "third wed of sep"),
        ("4th Thurs of nov", "fourth thu of nov"),
        ("5th sat of feb", "fifth sat of feb"),
    ],
)
def test_reads_dates_ranges_every_year_and_the_nth_weekday(words: str, written: str) -> None:
    schedule = parse_schedule("any", KYIV, {}, {words: "closed"})
    assert render_exceptions(schedule) == {written: "closed"}


@pytest.mark.parametrize(
    "exceptions",
    [
        {"2026-12-31": ["22:00-02:00"], "2027-01-02": []},
        {"12-31": ["22:00-02:00"], "2027-01-01": []},  # the one date is the more specific: it cuts the night short
        {"12-30..12-31": ["22:00-02:00"], "01-01": [], "12-31": []},
        {"last sun of oct": ["22:00-02:00"], "10-26": [], "11-01": []},
        {"4th mon of may": [], "last tue of may": [], "last mon of jun": [], "third mon of may": []},
        {"2027-01-01..2027-01-08": ["22:00-06:00", "06:00-07:00"], "2027-01-09": []},
        {"12-20..01-04": [], "01-05..12-19": []},
    ],
)
def test_exceptions_that_only_touch_are_read(exceptions: Any) -> None:
    assert len(parse_schedule("any", KYIV, {}, exceptions).exceptions) == len(exceptions)


@pytest.mark.parametrize(
    "until",
    ["2026-10-25T03:30+03:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 3, 30)],  # noqa: DTZ001
)
def test_the_end_of_an_override_is_local_unless_it_says_otherwise(until: str | datetime) -> None:
    schedule = parse_schedule("any", KYIV, override="closed", override_until=until)
    assert schedule.override == Override(open=False, until=datetime(2026, 10, 25, 0, 30, tzinfo=UTC))


def test_an_empty_field_is_no_override_and_no_end() -> None:
    assert parse_schedule("any", KYIV, None, None, "", "").override is None
    assert parse_schedule("any", KYIV, override="open", override_until="").override == Override(open=True)


def test_the_end_of_an_override_in_a_repeated_hour_is_written_with_its_offset() -> None:
    for fold, text in enumerate(("2026-10-25T03:30:00+03:00", "2026-10-25T03:30:00+02:00")):
        until = datetime(2026, 10, 25, 3, 30, tzinfo=ZoneInfo(KYIV), fold=fold)
        schedule = parse_schedule("any", KYIV, override="open", override_until=until)
        assert render_schedule(schedule) == {
            "name": "any", "time_zone": KYIV, "open": {}, "override": "open", "override_until": text,
        }  # fmt: skip


# ---- what is written


@pytest.mark.parametrize(
    ("open_days", "key"),
    [
        ("mon", "mon"),
        ("mon tue", "mon,tue"),
        ("mon tue wed thu fri", "mon-fri"),
        ("sat sun", "sat,sun"),
        ("mon tue wed fri sun", "mon-wed,fri,sun"),
        ("mon tue wed thu fri sat sun", "daily"),
    ],
)
def test_writes_the_shortest_name_of_equal_days(open_days: str, key: str) -> None:
    days = tuple(NINE_TO_SIX if day in open_days.split() else () for day in DAYS)
    assert render_open(Schedule(1, "any", KYIV, days)) == {key: ["09:00-18:00"]}


def test_writes_days_in_the_order_of_the_week() -> None:
    words = {"sat": ["10:00-15:00"], "tue-fri": ["09:00-18:00"], "mon": ["08:00-12:00", "22:00-24:00"]}
    assert list(render_open(parse_schedule("any", KYIV, words))) == ["mon", "tue-fri", "sat"]


# ---- what is doubtful


@pytest.mark.parametrize(
    ("hours", "meant"),
    [
        (["00:00-23:59"], "00:00-24:00"),
        (["09:00-23:59"], "09:00-24:00"),
        (["09:00-17:59"], "09:00-18:00"),
        (["22:00-05:59"], "22:00-06:00"),
        (["00:01-09:00"], "00:00-09:00"),
        (["00:01-23:59"], "00:00-24:00"),
        (["10:00-09:59"], "00:00-24:00"),
        (["09:00-12:29", "12:30-18:00"], "09:00-12:30"),
        (["00:00-24:00"], ""),
        (["09:00-00:00"], ""),
        (["09:00-12:59", "12:59-18:00"], ""),
        (["09:00-13:00", "14:00-18:30"], ""),
    ],
)
def test_hours_that_leave_one_minute_closed_are_doubted_with_what_was_likely_meant(
    hours: list[str], meant: str
) -> None:
    doubts = doubts_of({"mon": [], "sat,sun": hours}, {"last mon of may": hours})
    assert [(doubt.part, doubt.key, doubt.position) for doubt in doubts] == (
        [("open", "sat,sun", 0), ("exceptions", "last mon of may", 0)] if meant else []
    )
    assert all(f'write "{meant}"' in doubt.remedy for doubt in doubts)
    if meant:
        assert doubts_of({"sat": [meant, *hours[1:]]}, {}) == []


def test_a_minute_between_one_day_and_the_next_is_missed_too() -> None:
    doubts = doubts_of({"sun": ["22:00-06:29"], "mon": ["06:30-22:00"]}, {})
    assert [(doubt.key, doubt.remedy[:19]) for doubt in doubts] == [("sun", 'write "22:00-06:30"')]


@pytest.mark.parametrize(
    ("dates", "doubted"),
    [
        ("08-24..08-20", True),
        ("01-08..01-01", True),
        ("2027-01-01..2072-01-08", True),
        ("09-01..06-30", False),
        ("01-01..12-31", False),
        ("2027-01-01..2027-12-31", False),
    ],
)
def test_dates_that_are_nearly_a_whole_year_are_doubted(dates: str, *, doubted: bool) -> None:
    doubts = [(doubt.key, doubt.position) for doubt in doubts_of({}, {dates: []})]
    assert doubts == ([(dates, None)] if doubted else [])


@LAW
@given(moments())
def test_only_hours_with_such_a_gap_are_doubted(moment: tuple[Schedule, date, datetime]) -> None:
    schedule, _, _ = moment
    doubts = doubts_of(render_open(schedule), render_exceptions(schedule))
    assert any(doubt.position is not None for doubt in doubts) == bool(lost_minutes(schedule))
    for minute in lost_minutes(schedule):
        assert (minute.meant.end - minute.meant.start) - (minute.span.end - minute.span.start) in (1, 2)


# ---- what is refused


@pytest.mark.parametrize(
    ("hours", "place", "message", "remedy"),
    [
        (["mon"], "open", "is not a mapping", "docs/schedules.md"),
        ({"mon-fry": []}, "open.mon-fry", "'mon-fry' is not a day", "mon-fri"),
        ({"mon-": []}, "open.mon-", "is not a day", "daily"),
        ({"mon,,tue": []}, "open.mon,,tue", "'' is not a day", "sat,sun"),
        ({"monday": []}, "open.monday", "is not a day", "mon tue"),
        ({1: []}, "open.1", "is not a day", "mon tue"),
        ({"mon-fri": [], "wed": []}, "open.wed", "wed is named in open.mon-fri already", "once"),
        ({"mon,mon": []}, "open.mon,mon", "mon is named", "once"),
        ({"mon": "09:00-18:00"}, "open.mon", "is not a list", '["09:00-13:00"'),
        ({"mon": None}, "open.mon", "is not a list", "closed"),
        ({"mon": ["09:00-10:00", "9 to 18"]}, "open.mon[1]", "'9 to 18' is not a span", '"09:00-18:00"'),
        ({"mon": [540]}, "open.mon[0]", "is not a span", '"09:00-18:00"'),
        ({"mon": ["00:00-23:59:59"]}, "open.mon[0]", "has seconds", '"00:00-24:00"'),
        ({"mon": ["09:00:00-17:59:59"]}, "open.mon[0]", "has seconds", '"09:00-18:00"'),
        ({"mon": ["09:00:00-18:00:00"]}, "open.mon[0]", "has seconds", '"09:00-18:00"'),
        ({"mon": ["09:60-18:00"]}, "open.mon[0]", "no time of day", "23:59"),
        ({"mon": ["09:00-18:60"]}, "open.mon[0]", "no time of day", "23:59"),
        ({"mon": ["09:00-24:01"]}, "open.mon[0]", "no time of day", "24:00"),
        ({"mon": ["24:00-06:00"]}, "open.mon[0]", "no time of day", "start at 00:00"),
        ({"mon": ["09:00-09:00"]}, "open.mon[0]", "starts when it ends", '"00:00-24:00"'),
        ({"mon": ["00:00-00:00"]}, "open.mon[0]", "starts when it ends", "closed"),
        (
            {"mon": ["12:00-18:00", "09:00-13:00"]},
            "open.mon[0]",
            "12:00-18:00 overlaps 09:00-13:00 of open.mon[1]",
            "join",
        ),
        ({"daily": ["22:00-06:00", "05:00-09:00"]}, "open.daily[1]", "overlaps 22:00-06:00 of open.daily[0]", "join"),
        (
            {"mon": ["22:00-06:00"], "tue": ["05:00-09:00"]},
            "open.tue[0]",
            "overlaps 22:00-06:00 of open.mon[0]",
            "time",
        ),
        (
            {"mon": ["05:00-09:00"], "sun": ["22:00-06:00"]},
            "open.mon[0]",
            "overlaps 22:00-06:00 of open.sun[0]",
            "time",
        ),
    ],
)
def test_refuses_hours_with_their_place_and_a_remedy(hours: Any, place: str, message: str, remedy: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule("any", KYIV, hours)
    assert refused.value.place == place
    assert message in refused.value.message
    assert remedy in refused.value.remedy
    assert str(refused.value) == f"{place}: {refused.value.message}; {refused.value.remedy}"


@pytest.mark.parametrize(
    ("exceptions", "place", "message", "remedy"),
    [
        (["2026-12-25"], "exceptions", "is not a mapping", "docs/schedules.md"),
        ({"25.12.2026": "closed"}, "exceptions.25.12.2026", "is not a date", "2026-12-25"),
        ({"2026-02-30": "closed"}, "exceptions.2026-02-30", "is not a date", "2026-12-25"),
        ({datetime(2026, 12, 25, tzinfo=UTC): []}, "exceptions.2026-12-25 00:00:00+00:00", "is not a date", "write"),
        ({"0206-12-25": "closed"}, "exceptions.0206-12-25", "out of range", "year"),
        ({"2026-12-25": "shut"}, "exceptions.2026-12-25", "'shut' is not a list", "closed"),
        ({"2026-12-25": ["10:00-10:00"]}, "exceptions.2026-12-25[0]", "starts when it ends", "closed"),
        ({"2026-12-25": [], date(2026, 12, 25): []}, "exceptions.2026-12-25", "stands here twice", "one of the two"),
        ({"2026-12-25": ["09:00-12:00", "11:00-13:00"]}, "exceptions.2026-12-25[1]", "overlaps", "join"),
        ({"24-08": "closed"}, "exceptions.24-08", "the year has no 24-08", "month first: 08-24"),
        ({"02-30": "closed"}, "exceptions.02-30", "the year has no 02-30", "08-24"),
        ({"8-24": "closed"}, "exceptions.8-24", "is not a date", "08-24"),
        ({"9-13": "closed"}, "exceptions.9-13", "is not a date", "08-24"),
        ({"0824": "closed"}, "exceptions.0824", "is not a date", "08-24"),
        ({"2027-01-08..2027-01-01": []}, "exceptions.2027-01-08..2027-01-01", "ends before", "2027-01-01..2027-01-08"),
        ({"2027-01-01..01-08": []}, "exceptions.2027-01-01..01-08", "a year at one end only", "both"),
        ({"2027-01-01..": []}, "exceptions.2027-01-01..", "is not a date", "2027-01-01..2027-01-08"),
        ({"2027-01-01..9999-01-01": []}, "exceptions.2027-01-01..9999-01-01", "out of range", "year"),
        ({"1..2..3": []}, "exceptions.1..2..3", "is not a date", "write"),
        ({"6th mon of may": []}, "exceptions.6th mon of may", "6th is none of first to fifth", "last mon of may"),
        ({"last day of may": []}, "exceptions.last day of may", "day is not a day of the week", "mon tue"),
        ({"last mo of may": []}, "exceptions.last mo of may", "mo is not a day of the week", "mon tue"),
        ({"last mon of mai": []}, "exceptions.last mon of mai", "mai is not a month", "jan feb"),
        ({"last mon": []}, "exceptions.last mon", "is not a date", "last mon of may"),
        ({"mon": []}, "exceptions.mon", "is not a date", "last mon of may"),
        ({"08-24": [], " 08-24": []}, "exceptions. 08-24", "08-24 stands here twice", "one of the two"),
        (
            {"2nd tue of nov": [], "Second Tuesday in November": []},
            "exceptions.Second Tuesday in November",
            "twice",
            "one",
        ),
        (
            {"last mon of may": [], "4th mon of may": []},
            "exceptions.4th mon of may",
            "shares dates with last",
            "one of",
        ),
        (
            {"5th fri of may": [], "last fri of may": []},
            "exceptions.last fri of may",
            "shares dates with fifth",
            "one of",
        ),
        (
            {"2027-01-05..2027-01-12": [], "2027-01-01..2027-01-05": []},
            "exceptions.2027-01-01..2027-01-05",
            "2027-01-01..2027-01-05 shares dates with 2027-01-05..2027-01-12",
            "join the two, or end one before the other begins",
        ),
        ({"12-20..01-05": [], "01-05..01-08": []}, "exceptions.01-05..01-08", "shares dates with 12-20..01-05", "join"),
        (
            {"2027-01-01..2027-01-08": ["22:00-06:00", "05:00-07:00"]},
            "exceptions.2027-01-01..2027-01-08[1]",
            "05:00-07:00 overlaps 22:00-06:00",
            "join",
        ),
        ({"12-31": ["22:00-02:00"], "01-01": []}, "exceptions.12-31[0]", "runs into 01-01", "end it at 24:00"),
        ({"02-28": ["22:00-02:00"], "02-29": []}, "exceptions.02-28[0]", "runs into 02-29", "end it at 24:00"),
        ({"2026-12-31": ["22:00-02:00"], "01-01": []}, "exceptions.2026-12-31[0]", "runs into 01-01", "the day after"),
        (
            {"2026-12-30..2026-12-31": ["22:00-02:00"], "01-01..01-03": []},
            "exceptions.2026-12-30..2026-12-31[0]",
            "runs into 01-01..01-03",
            "the day after",
        ),
        (
            {"last sun of oct": ["22:00-02:00"], "first mon of nov": []},
            "exceptions.last sun of oct[0]",
            "runs into",
            "24",
        ),
        (
            {"2026-12-31": ["22:00-02:00"], "2027-01-01": "closed"},
            "exceptions.2026-12-31[0]",
            "22:00-02:00 runs into 2027-01-01, which is an exception of its own",
            "end it at 24:00",
        ),
    ],
)
def test_refuses_exceptions_with_their_place_and_a_remedy(
    exceptions: Any, place: str, message: str, remedy: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule("any", KYIV, {}, exceptions)
    assert refused.value.place == place
    assert message in refused.value.message
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("override", "until", "place", "remedy"),
    [
        ("shut", None, "override", "open or closed"),
        (True, None, "override", "open or closed"),
        ("closed", "14:00", "override_until", "2026-12-24T14:00"),
        ("closed", "9999-12-31T23:59", "override_until", "no end"),
        ("", "2026-12-24T14:00", "override_until", "override: open or closed"),
    ],
)
def test_refuses_overrides_with_their_place_and_a_remedy(override: Any, until: Any, place: str, remedy: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule("any", KYIV, override=override, override_until=until)
    assert refused.value.place == place
    assert remedy in refused.value.remedy


@pytest.mark.parametrize(
    ("zone", "remedy"),
    [
        ("Kyiv", "did you mean Europe/Kyiv?"),
        ("europe/kyiv", "did you mean Europe/Kyiv?"),
        ("Europe/Kiyv", "did you mean Europe/Kyiv?"),
        ("New York", "did you mean America/New_York?"),
        ("UTC+2", "use an IANA name, as Europe/Kyiv"),  # Etc/GMT+2, the nearest by letters, is two hours behind UTC
        ("GMT+2", "use an IANA name, as Europe/Kyiv"),
        ("", "use an IANA name, as Europe/Kyiv"),
        (None, "use an IANA name, as Europe/Kyiv"),
        (["Europe/Kyiv"], "did you mean Europe/Kyiv?"),
        ("../../etc/passwd", "use an IANA name, as Europe/Kyiv"),
        ("Europe", "use an IANA name, as Europe/Kyiv"),
        ("Factory", "use an IANA name, as Europe/Kyiv"),
        ("localtime", "use an IANA name, as Europe/Kyiv"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_known_one(zone: Any, remedy: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse_schedule("any", zone)
    assert (refused.value.place, refused.value.remedy) == ("time_zone", remedy)


def test_every_zone_that_is_offered_can_be_used() -> None:
    assert len(time_zones()) > 400
    for zone in time_zones():
        assert parse_schedule("any", zone).time_zone == zone


@pytest.mark.parametrize("typed", ["9-13", "9–13", "9 — 13", "09.00–13.00", "9:00 - 13.00", " 9:00-13 "])
def test_a_span_is_read_as_people_type_it(typed: str) -> None:
    assert render_open(parse_schedule("", "UTC", {"mon": [typed]})) == {"mon": ["09:00-13:00"]}


def test_exceptions_have_names_that_go_by_their_dates() -> None:
    words = {"2026-12-25": "closed", "12-31..01-02": "closed"}
    named = parse_schedule("", "UTC", None, words, exception_names={"12-31 – 01-02": "New Year"})
    assert render_names(named) == {"12-31..01-02": "New Year"}
    with pytest.raises(ScheduleError, match=r"exception_names\.2026-12-26: 2026-12-26 is no exception"):
        parse_schedule("", "UTC", None, words, exception_names={"2026-12-26": "Boxing Day"})
