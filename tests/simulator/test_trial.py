"""`router run` and `router demo-pbx`: in a clone with a simulated PBX, and without one where only the package is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from router.cli import main
from simulator.processes import ROOT, Server

WORD = "there is no simulated PBX here"


def trial(folder: Path, works_in: Path, **environ: str) -> Server:
    """What `make run` starts, on a database of its own."""
    command = [sys.executable, "-m", "router", "run"]
    server = Server(folder, command, DATABASE_URL=f"sqlite:///{folder}/router.db", WEB_CONCURRENCY="1", **environ)
    server.works_in = works_in
    return server


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Return a folder from which no simulator can be imported: another module has the name."""
    (tmp_path / "gunicorn.conf.py").symlink_to(ROOT / "gunicorn.conf.py")
    (tmp_path / "simulator.py").write_text("")
    return tmp_path


def test_a_trial_in_a_clone_routes_the_calls_of_the_simulated_pbx(tmp_path: Path) -> None:
    with trial(tmp_path, ROOT) as server:
        assert "hook of demo" in server.log_text()
        server.wait_until(lambda: '"call routed"' in server.log_text())


@pytest.mark.parametrize("demo", ["1", "0"])
def test_a_trial_without_a_simulator_starts_and_says_how_to_get_one_if_it_is_wanted(bare: Path, demo: str) -> None:
    with trial(bare, bare, DEMO=demo) as server:
        assert requests.get(f"{server.url}/readyz", timeout=10).status_code == 200
        assert (WORD in server.log_text()) == (demo == "1")
        assert "hook of demo" not in server.log_text()


def test_the_command_says_where_the_simulated_pbx_is_when_it_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simulator", None)  # as where only the package is installed
    failed = CliRunner().invoke(main, ["demo-pbx", "--help"])
    assert failed.exit_code == 1
    assert failed.output.startswith(f"router: {WORD}")
    assert "clone of the repository" in failed.output


def test_a_trial_outside_a_clone_says_where_to_start_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(main, ["run"])
    assert failed.exit_code == 1
    assert "run this in the folder of a clone of the repository" in failed.output
    assert not list(tmp_path.iterdir()), "nothing is made"
