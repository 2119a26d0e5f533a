"""The comparison of routers: the theory beside it, what it takes for lost, what is published, and when it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import comparison
from bench.comparison import AGENTS, DAYS, DOCUMENT, ERLANGS, PLAIN, ROUTERS, erlang_b, main
from bench.published import publish, published
from simulator.ledger import Report
from simulator.settings import PbxSettings

FEW = 40
LATENCY = {"p99": 8.0, "max": 9.0}


@pytest.mark.parametrize(
    ("servers", "erlangs", "blocked"),
    [(1, 1, 0.5), (2, 1, 0.2), (5, 3, 0.1101), (10, 5, 0.0184), (20, 17, 0.0859)],
)
def test_erlang_b_is_that_of_the_tables(servers: int, erlangs: float, blocked: float) -> None:
    assert erlang_b(servers, erlangs) == pytest.approx(blocked, abs=0.0001)


def test_the_load_is_as_many_erlangs_as_are_said() -> None:
    occupied = PLAIN.talk_seconds + sum(PLAIN.answer_after_seconds) / 2
    assert PLAIN.calls_per_minute / 60 * occupied == pytest.approx(ERLANGS)
    assert len(PLAIN.staff) == AGENTS


@pytest.fixture(scope="module")
def day() -> Report:
    """A few calls that an ideal router sent where they went."""
    return ROUTERS[next(iter(ROUTERS))](PLAIN, FEW, 400.0)


def test_the_ideal_router_names_no_busy_phone_and_sends_nobody_away_for_nothing(day: Report) -> None:
    assert (day.calls, day.in_progress, day.wrong, day.outside_while_idle) == (FEW, 0, 0, 0)
    assert day.answered > 0


Losing = Callable[[int], Callable[[PbxSettings, int, float], Report]]


@pytest.fixture
def losing(day: Report) -> Losing:
    """A router that loses so many calls."""

    def lose(lost: int) -> Callable[[PbxSettings, int, float], Report]:
        return lambda _day, calls, _speed: replace(day, calls=calls, answered=calls - lost, hook_latency_ms=LATENCY)

    return lose


def compared(losing: Losing, monkeypatch: pytest.MonkeyPatch, lost: Sequence[int], *arguments: str) -> int:
    monkeypatch.setattr(comparison, "ROUTERS", {name: losing(n) for name, n in zip(ROUTERS, lost, strict=True)})
    return main(["--calls", "100", *arguments])


def test_fails_when_the_service_with_events_loses_too_many(
    losing: Losing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(losing, monkeypatch, (6, 8, 30, 40)) == 0, "two points are allowed, and only this one counts"
    assert "| this service, with events | 8.0% | +2.0 points |" in capsys.readouterr().out
    assert compared(losing, monkeypatch, (6, 9, 6, 6)) == 1


def test_publishes_a_table_for_each_day_between_the_marks(
    losing: Losing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = tmp_path / "quality.md"
    begin, end = "<!-- comparison: by a test -->", "<!-- end of comparison -->"
    document.write_text(f"Before.\n{begin}\nold\n{end}\nAfter.\n", encoding="utf-8")
    monkeypatch.setattr(comparison, "DOCUMENT", document)
    assert compared(losing, monkeypatch, (6, 7, 8, 9), "--write") == 0
    text = document.read_text(encoding="utf-8")
    assert text.startswith(f"Before.\n{begin}\n")
    assert text.endswith(f"{end}\nAfter.\n")
    assert "old" not in text
    assert text.count("100 calls.") == len(DAYS)


def test_a_document_without_a_place_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "quality.md"
    document.write_text("<!-- comparison: but no end -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for comparison"):
        publish(document, "comparison", "new")
    assert document.read_text(encoding="utf-8") == "<!-- comparison: but no end -->\n"


def test_what_is_published_is_of_all_routers_on_all_days_and_within_the_tolerance() -> None:
    tables = published(DOCUMENT, "comparison")
    for router in ROUTERS:
        assert tables.count(f"| {router} |") == len(DAYS)
    within = re.findall(r"\| this service, with events \| [\d.]+% \| ([+-][\d.]+) points", tables)
    assert len(within) == len(DAYS)
    assert all(float(points) <= 100 * comparison.TOLERANCE for points in within)
