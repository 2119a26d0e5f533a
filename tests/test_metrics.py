"""Counts on a full disk: they are lost for whoever reads them, and hold up nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A limit on the size of files is a full disk to whoever writes. A thousand counts are more than fit into a new file.
COUNT = """
import resource, signal, sys

def fill_the_disk():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))

if sys.argv[2] == "at start":
    fill_the_disk()
from router.metrics import REFUSED, exposition

REFUSED.labels("first").inc()
fill_the_disk()
for number in range(1000):
    REFUSED.labels(f"reason {number}").inc()
assert all(REFUSED.labels(f"reason {number}")._value.get() == 1 for number in range(1000))
told = exposition().decode()
print('reason="first"' in told, 'reason="reason 999"' in told)
"""


@pytest.mark.parametrize(
    ("room", "full", "told"),
    [
        (1 << 30, "never", "True True"),
        (0, "while it works", "True False"),
        (100_000, "while it works", "True False"),
        (0, "at start", "False False"),
    ],
)
def test_a_disk_that_is_full_ends_no_process_that_counts(tmp_path: Path, room: int, full: str, told: str) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COUNT, str(room), full]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, told), done.stderr
    assert all(file.stat().st_size for file in tmp_path.iterdir()), "one of no size ends every reading"
