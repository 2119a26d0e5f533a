"""The rehearsal of a deployment: as a platform plays it, with calls going on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rehearse(url: str) -> subprocess.CompletedProcess[str]:
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [sys.executable, "ops/rehearse.py", url],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_deployment_loses_no_call(postgres_url: str) -> None:
    done = rehearse(postgres_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "calls, 0 lost" in done.stdout
    assert done.stdout.count("is replaced with calls going on") == 2
    assert done.stdout.endswith("As promised.\n")


def test_a_rehearsal_that_fails_says_why_and_fails(tmp_path: Path) -> None:
    done = rehearse("postgresql://nobody@127.0.0.1:9/nowhere")
    assert done.returncode == 1
    assert "`router db upgrade` ended with 1" in done.stderr
    assert "cannot be reached" in done.stderr


def test_a_package_that_was_copied_finds_the_migrations_of_the_checkout(tmp_path: Path) -> None:
    """As `bin/post_compile` installs it, beside nothing."""
    shutil.copytree(ROOT / "router", tmp_path / "router", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import router.db.migrate as m; print(m.__file__, m.revisions()[0])"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    file, head = done.stdout.split()
    assert file.startswith(str(tmp_path))
    assert head != "None"
