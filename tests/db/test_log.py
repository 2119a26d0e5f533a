"""The call log is searched in pages: each call once, in both directions, by whatever is known of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from router.db import log, models
from router.db.log import (
    EMPTY,
    MISSED,
    NO_RULE,
    OPEN,
    OVERFLOW,
    Number,
    Place,
    Search,
    callers_holding,
    count_calls,
    count_newer,
    find,
)
from router.db.session import Database

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CALLERS = ["", "380501112233", "380671112233", "380441234567", "acme_bob", "101", "100%_x"]


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    opened = Database(migrated_url)
    yield opened
    opened.dispose()


Row = dict[str, Any]


@pytest.fixture
def rows(database: Database) -> list[Row]:
    """A hundred decisions of one project, many at the same instant, ids not quite in the order of time."""
    dice = random.Random(4)
    made: list[Row] = []
    numbers, steps = itertools.count(), itertools.count()
    with database.writing() as session:
        for name in ("acme", "globex"):
            session.add(models.Project(name=name, created_at=NOON))
        session.flush()
        for project_id, count in ((1, 100), (2, 20)):
            for _ in range(count):
                agent = dice.choice([None, 1, 2])
                row: Row = {
                    "project_id": project_id, "call_id": f"c{next(numbers) // 3}", "step": str(next(steps)),
                    "asked_at": NOON - timedelta(minutes=dice.randrange(60)), "caller": dice.choice(CALLERS),
                    "dialed": dice.choice(["380441112233", "380443330000"]), "rule_id": dice.choice([None, 1, 2]),
                    "group_id": None, "agent_id": agent,
                    "destination": "x" if agent else dice.choice(["x", ""]), "result": "offer" if agent else "overflow",
                    "degraded": dice.choice(["", "", "TimeoutError"]), "config_version": 1, "latency_us": 1,
                    "outcome": dice.choice(["", "answered", "busy"]), "answered_agent_id": dice.choice([None, 1, 3]),
                    "waited_seconds": dice.choice([None, 4.5]), "talked_seconds": dice.choice([None, 60.0]),
                    "is_test": dice.random() < 0.1,
                }  # fmt: skip
                decision = models.Decision(**row, record={})
                session.add(decision)
                session.flush()
                made.append(row | {"id": decision.id})
    return [row for row in made if row["project_id"] == 1]


SEARCHES: list[tuple[Search, Callable[[Row], bool]]] = [
    (Search(), bool),
    (Search(caller=Number(("380501112233",))), lambda r: r["caller"] == "380501112233"),
    (Search(caller=Number(("",))), lambda r: r["caller"] == ""),
    (Search(caller=Number(("", "101"))), lambda r: r["caller"] in {"", "101"}),
    (Search(caller=Number(())), lambda r: not r),
    (Search(caller=Number(parts=("1112233",))), lambda r: "1112233" in r["caller"]),
    (Search(caller=Number(parts=("ACME", "4455"))), lambda r: "acme" in r["caller"]),
    (Search(caller=Number(parts=("0%_",))), lambda r: "0%_" in r["caller"]),
    (Search(dialed=Number(("380443330000",))), lambda r: r["dialed"] == "380443330000"),
    (Search(dialed=Number(parts=("3330",))), lambda r: "3330" in r["dialed"]),
    (Search(agent_id=2), lambda r: r["agent_id"] == 2),
    (Search(rule_id=1), lambda r: r["rule_id"] == 1),
    (Search(rule_id=NO_RULE), lambda r: r["rule_id"] is None),
    (Search(outcome="busy"), lambda r: r["outcome"] == "busy"),
    (Search(outcome=MISSED), lambda r: r["outcome"] == "busy"),
    (Search(outcome=OPEN), lambda r: r["agent_id"] is not None and r["outcome"] == ""),
    (Search(is_test=True), lambda r: r["is_test"]),
    (Search(is_test=None), bool),
    (Search(is_test=True, caller=Number(("",))), lambda r: r["caller"] == ""),
    (Search(outcome=OVERFLOW), lambda r: r["agent_id"] is None and r["destination"] != ""),
    (Search(outcome=EMPTY), lambda r: r["agent_id"] is None and r["destination"] == ""),
    (Search(degraded=True), lambda r: r["degraded"] != ""),
    (
        Search(since=NOON - timedelta(minutes=40), until=NOON - timedelta(minutes=10)),
        lambda r: NOON - timedelta(minutes=40) <= r["asked_at"] < NOON - timedelta(minutes=10),
    ),
    (
        Search(caller=Number(("",)), since=NOON - timedelta(minutes=40), until=NOON, agent_id=1, outcome="answered"),
        lambda r: (
            r["caller"] == ""
            and NOON - timedelta(minutes=40) <= r["asked_at"] < NOON
            and (r["agent_id"], r["outcome"]) == (1, "answered")
        ),
    ),
]


def order_of(search: Search, row: Row) -> tuple[Any, ...]:
    """By id where the caller is known in full, else by time."""
    return (row["id"],) if search.caller and search.caller.exact is not None else (row["asked_at"], row["id"])


def has(column: str, value: object) -> Callable[[Row], bool]:
    return lambda row: bool(row[column] == value)


def wanted(rows: list[Row], search: Search, test: Callable[[Row], bool]) -> list[int]:
    asked_for = (row for row in rows if search.is_test in (None, row["is_test"]))
    found = sorted(filter(test, asked_for), key=lambda row: order_of(search, row), reverse=True)
    return [row["id"] for row in found]


def pages(database: Database, search: Search, limit: int, **where: Any) -> Iterator[list[log.Entry]]:
    """Page after page, downwards or upwards, as somebody would click."""
    upwards = "newer_than" in where
    while True:
        with database.reading() as session:
            found = find(session, 1, search, limit=limit, **where)
        yield found.entries
        if not found.has_more:
            return
        edge = found.reached or Place.of(found.entries[0 if upwards else -1])
        where = where | {"newer_than" if upwards else "older_than": edge}


@pytest.mark.parametrize(("pieces", "limits"), [(3, (7, 500)), (1000, (1, 500))])
def test_every_call_that_is_looked_for_is_found_once_page_by_page(
    database: Database, rows: list[Row], monkeypatch: pytest.MonkeyPatch, pieces: int, limits: tuple[int, ...]
) -> None:
    monkeypatch.setattr(log, "_LARGEST_PIECE", pieces)
    for search, test in SEARCHES:
        expected = wanted(rows, search, test)
        for limit in limits:
            down = [entry.id for page in pages(database, search, limit) for entry in page]
            assert down == expected, search
        bottom = Place(0, 0)
        up = [entry.id for page in pages(database, search, 7, newer_than=bottom) for entry in reversed(page)]
        assert up == expected[::-1], search
        with database.reading() as session:
            assert count_newer(session, 1, search, None, limit=1000) == len(expected)
            assert count_newer(session, 1, search, None, limit=3) == min(3, len(expected))


def test_a_search_whose_time_is_up_says_how_far_it_came_and_goes_on_there(
    database: Database, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_FIRST_PIECE", 10)
    for search, test in SEARCHES:
        found: list[int] = []
        stops = 0
        for page in pages(database, search, 50, seconds=0):
            found += [entry.id for entry in page]
            stops += 1
        assert found == wanted(rows, search, test)
        if search.outcome == "busy":
            assert stops > 5, "it looked through ten at a time"


def figures_of(rows: list[Row], by: Callable[[Row], bool]) -> list[float]:
    """How many there are, were answered, missed, sent to an overflow, answered empty; the waits and talks in sum."""
    own = [row for row in rows if by(row)]
    answered = [row for row in own if row["outcome"] == "answered"]
    return [
        len(own),
        len(answered),
        sum(row["outcome"] == "busy" for row in own),
        sum(row["agent_id"] is None and row["destination"] != "" for row in own),
        sum(row["agent_id"] is None and row["destination"] == "" for row in own),
        sum(row["waited_seconds"] or 0 for row in answered),
        sum(row["talked_seconds"] or 0 for row in answered),
    ]


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_counts_calls_once_by_their_last_step_and_offers_by_agent(
    database: Database, rows: list[Row], monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """The same at once and piece by piece, as long as the pieces are."""
    monkeypatch.setattr(log, "_FIRST_PIECE", 10)
    last = {row["call_id"]: row["id"] for row in rows}
    for search, test in SEARCHES:
        if search.caller and search.caller.exact == ():
            continue
        with database.reading() as session:
            counted = count_calls(session, 1, search, seconds=seconds)
            while counted.reached is not None:
                counted = count_calls(session, 1, search, before=counted, seconds=seconds)
        found = [row for row in rows if row["id"] in wanted(rows, search, test)]
        total = counted.total
        assert [
            total.calls, total.answered, total.missed, total.overflow, total.empty, total.waited, total.talked
        ] == figures_of(found, lambda row: last[row["call_id"]] == row["id"])  # fmt: skip
        for agent in (1, 2, 3):
            one = counted.agents.get(agent, log.Figures())
            offered = figures_of(found, has("agent_id", agent))
            took = figures_of(found, has("answered_agent_id", agent))
            assert [one.calls, one.missed] == [offered[0], offered[2]]
            assert [one.answered, one.waited, one.talked] == [took[1], took[5], took[6]]


def test_counts_what_came_in_above_a_place(database: Database, rows: list[Row]) -> None:
    with database.reading() as session:
        top = find(session, 1, Search(), limit=1).entries[0]
        tenth = find(session, 1, Search(), limit=10).entries[-1]
        assert count_newer(session, 1, Search(), Place.of(top), limit=50) == 0
        assert count_newer(session, 1, Search(), Place.of(tenth), limit=50) == 9


def test_finds_the_callers_that_hold_a_part_unless_they_are_too_many(database: Database, rows: list[Row]) -> None:
    part = Number(parts=("1112233",))
    with database.reading() as session:
        found = callers_holding(session, 1, part, most=2)
        assert found is not None
        assert set(found.exact or ()) == {"380501112233", "380671112233"}
        assert callers_holding(session, 1, part, most=1) is None
        assert callers_holding(session, 1, Number(parts=("nobody",)), most=1) == Number(exact=())


def test_a_call_written_down_late_is_found_in_its_time(database: Database, rows: list[Row]) -> None:
    """While the database was away calls were answered; their ids are those of later ones."""
    at = NOON - timedelta(minutes=30)
    search = Search(caller=Number(("380999999999",)), since=at - timedelta(minutes=1), until=at + timedelta(minutes=1))
    with database.writing() as session:
        late = models.Decision(
            project_id=1, call_id="late", step="", asked_at=at, caller="380999999999", dialed="", destination="",
            result="overflow", config_version=1, latency_us=1, record={},
        )  # fmt: skip
        session.add(late)
    with database.reading() as session:
        assert [entry.id for entry in find(session, 1, search, limit=5).entries] == [late.id]


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-b", "1-2-3", "²-1", f"{2**63}-1", f"1-{2**63}", "1.5-2"])
def test_a_place_is_only_what_was_written_as_one(text: str) -> None:
    assert Place.parse(text) is None


def test_a_place_survives_its_text() -> None:
    place = Place(1795438902536032, 42)
    assert Place.parse(str(place)) == place
