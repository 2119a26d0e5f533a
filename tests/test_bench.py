"""The benchmarks still run: a second of each kind of server and load. What they measure is no matter here."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bench import against, pages, plan, projects, report
from bench.__main__ import main, measure
from bench.load import Latencies
from bench.plan import Case, Run
from router.config import Settings
from router.db.types import use_encryption_keys

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="they need wrk, and read CPU time from /proc")
ROOT = Path(__file__).parents[1]
TINY: plan.Pace = {**dict.fromkeys(plan.FULL, (1, 1)), "load": (1, 2)}


def cases(*names: str) -> list[Case]:
    every = {f"{case.section}: {case.name}": case for case in plan.cases()}
    return [every[name] for name in names]


@pytest.fixture(scope="module")
def measured() -> dict[Case, list[Run]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LOG_ROWS", 2000)
        return measure(_one_of_each_kind(), TINY)


def _one_of_each_kind() -> list[Case]:
    return cases(
        "throughput: UPDATE + INSERT, PostgreSQL",
        "throughput: hook, PostgreSQL",
        "steady: hook, SQLite",
        "steady: naive script",
        f"events: {plan.WHOLE_CALLS}, SQLite",
        "load: hook, SQLite",
        "log: hook, SQLite, 2,000 decisions in the log",
        "rules: 2 rules for the last agent, SQLite",
    )


def test_measures_every_kind_of_server_under_every_kind_of_load(measured: dict[Case, list[Run]]) -> None:
    for case, runs in measured.items():
        run = runs[-1]
        assert run.megabytes > 20, case
        assert run.latencies.requests > 0, case
        assert 0 < run.latencies.p50 <= run.latencies.p95 <= run.latencies.p99, case
        if (
            case.section not in {"steady", "events", "load"} and run.latencies.requests > 500
        ):  # else the ticks are too few
            assert 0 < run.python_cpu <= run.cpu, case
            assert ("PostgreSQL" in case.name) == (run.cpu > run.python_cpu), case
    (naive,) = (runs[0] for case, runs in measured.items() if case.name == "naive script")
    assert naive.latencies.p50 > 160, "two requests of 80 ms each"


def test_keeps_results_and_shows_them(measured: dict[Case, list[Run]], tmp_path: Path) -> None:
    shutil.copy(ROOT / "bench/README.md", tmp_path)
    reliability = Path(shutil.copy(ROOT / "docs/reliability.md", tmp_path))
    path = report.save(measured, TINY, 0.5, tmp_path, reliability)
    kept = json.loads(path.read_text())
    assert {section: len(named) for section, named in kept["sections"].items()} == {
        "throughput": 2, "steady": 2, "events": 1, "load": 1, "log": 1, "rules": 1,
    }  # fmt: skip
    assert [ratio["what"] for ratio in kept["ratios"]] == [
        "p99 ms: hook, SQLite ÷ the hook's budget",
        "p50 ms: naive script ÷ hook, SQLite",
        "p99 ms: hook, SQLite ÷ the hook's budget",
        "MB: hook, SQLite ÷ the same in its first round",
        "CPU µs: hook, PostgreSQL ÷ UPDATE + INSERT, PostgreSQL",
        "p99 ms: hook, PostgreSQL ÷ the hook's budget",
    ]
    shown = (tmp_path / "README.md").read_text()
    assert "| hook, PostgreSQL " in shown
    busy = reliability.read_text().partition("<!-- load")[2]
    assert "p99 ms: hook, SQLite ÷ the hook's budget" in busy
    assert "naive script" not in busy
    report.save(measured, TINY, 0.5, tmp_path, reliability)
    assert (tmp_path / "README.md").read_text() == shown, "the old results are replaced"


def test_a_ratio_is_the_median_over_rounds_of_neighbours() -> None:
    def runs(*micros: int) -> list[Run]:
        return [Run(Latencies(1, 1.0, 1, 1, 1), cpu, cpu) for cpu in micros]

    hook, floor = cases("log: hook, SQLite, 1,000,000 decisions in the log", "log: hook, SQLite, log nearly empty")
    # The second round met a busy machine: both were slow, and the ratio stays what it was.
    ((want, value),) = report.ratios({hook: runs(110, 1100, 120), floor: runs(100, 1000, 100)})
    assert value == pytest.approx(1.1)
    assert want.is_met(value)
    assert not want.is_met(1.21)


def test_every_ratio_compares_cases_that_are_measured() -> None:
    planned = {(case.section, case.name) for case in plan.cases()}
    wanted = list(report.wanted())
    compared = {(want.section, name) for want in wanted for name in (want.over, want.under)}
    compared = {pair for pair in compared if pair[1] not in {report.FIRST_ROUND, report.BUDGET}}
    assert {section for section, _ in compared} == set(plan.FULL)
    assert compared <= planned
    assert compared <= {(case.section, case.name) for case in plan.cases(projects.AGENTS[:1] + projects.AGENTS[-1:])}


@pytest.fixture
def no_results_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "save", lambda *_: pytest.fail("a part of the benchmark must not pass for all of it"))


def test_refuses_a_name_that_no_case_has(capsys: pytest.CaptureFixture[str], no_results_here: None) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "hook, Oracle"])
    assert ended.value.code == 2
    assert "no case has 'hook, Oracle' in its name" in capsys.readouterr().err


def test_lists_its_cases(capsys: pytest.CaptureFixture[str], no_results_here: None) -> None:
    assert main(["--list", "--only", "one hot group"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "throughput: hook, SQLite, one hot group",
        "throughput: hook, PostgreSQL, one hot group",
    ]


@pytest.fixture(scope="module")
def another_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the product of this clone, elsewhere."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("router", "migrations"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "gunicorn.conf.py", tree)
    return tree


def test_two_trees_are_called_in_turn_and_compared(another_tree: Path) -> None:
    found = against.compare({"here": ROOT, "there": another_tree}, {20: 1}, 1, ["sqlite"])
    ((pair, sides),) = found.items()
    assert pair == ("sqlite", 20)
    assert {name: len(runs) for name, runs in sides.items()} == {"here": 1, "there": 1}
    told, _ = against.as_markdown(found)
    assert len(told.splitlines()) == 2 + len(against.LIMITS)


@pytest.mark.parametrize(("slower", "good"), [(1.0, True), (1.14, True), (1.16, False)])
def test_a_limit_on_what_a_call_costs_can_fail(slower: float, good: bool) -> None:
    before = [against.Run(10.0, 100.0, 3000.0), against.Run(30.0, 300.0, 9000.0)]  # the second round was a slow one
    now = [run._replace(p50=run.p50 * slower) for run in before]
    told, is_met = against.as_markdown({("sqlite", 20): {"here": now, "there": before}})
    assert is_met is good
    assert ("**no**" in told) is not good


def test_every_page_is_measured(migrated_postgres_url: str) -> None:
    """On SQLite `tests/admin/test_growth.py` looks at them."""
    use_encryption_keys(Settings.load(pages.environ(migrated_postgres_url)).fernet_keys)
    pages.fill(migrated_postgres_url, 70, agents=10)
    looks = pages.measure(migrated_postgres_url, 1)
    names = {look.name for look in looks}
    assert {"board", "calls", "call", "group", "rules", "hook", "audit", "calls: a part of a number"} <= names
    assert "/nowhere" not in {look.path for look in looks}, "the log and the trail have a second page"
    lines = pages.as_markdown({"SQLite": looks}).splitlines()
    assert len(lines) == len(looks) + 2
