"""`router demo-pbx` as people and scripts use it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulator.pbx import main
from tests.simulator.fake_hook import FakeHook, destination


def test_runs_so_many_calls_and_sums_them_up(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with FakeHook(lambda _: destination("demo_bob")) as hook:
        arguments = ["--hook-url", hook.url, "--event-url", hook.event_url, "--calm", "--speed", "500", "--calls", "20"]
        assert main([*arguments, "--talk-seconds", "5", "--erlangs", "1", "--report", str(report)]) == 0
    printed = capsys.readouterr()
    assert printed.out.lstrip().startswith("calls  20")
    assert "demo_bob" in printed.out
    assert printed.err.startswith("demo-pbx: status API at http://127.0.0.1:")
    written = json.loads(report.read_text(encoding="utf-8"))
    assert (written["calls"], written["in_progress"]) == (20, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--speed", "0"], "speed must be greater than 0"),
        (["--speed", "fast"], "invalid float value"),
        (["--form", "xml"], "form must be one of"),
        (["--fault", "online"], "--fault: must be ENDPOINT=KIND"),
        (["--fault", "online=explode"], "no 'explode'"),
        (["--fault", "on=hang"], "no 'on'; there are online"),
        (["--name", "caller"], "--name: must be ROLE=NAME"),
        (["--hook-url", "localhost/hook"], "not an http or https URL"),
        (["--erlangs", "3", "--calls-per-minute", "3"], "either --erlangs or --calls-per-minute"),
    ],
)
def test_bad_usage_names_the_flag(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--calls", "0"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"cannot listen on 127.0.0.1, ports {port} and 0" in told


def test_waits_for_the_hook_and_ends_politely_on_term() -> None:
    with FakeHook(lambda _: destination("demo_bob")) as hook:
        url = hook.url
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    command = [
        sys.executable,
        "-m",
        "simulator",
        "--hook-url",
        url,
        "--calls-per-minute",
        "6000",
        "--progress",
        "0.2",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "status API at http://127.0.0.1:" in process.stderr.readline()
        assert f"waiting for the hook at 127.0.0.1:{port} to listen" in process.stderr.readline()
        with socket.create_server(
            ("127.0.0.1", port), backlog=64
        ):  # listens, and answers nothing: calls go on all the same
            until = time.monotonic() + 60
            while "0 calls" in process.stderr.readline() and time.monotonic() < until:
                pass
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.lstrip().startswith("calls  ")
    assert "Traceback" not in err
