"""Log lines: one line each whatever strangers send, the call's id on each, and none that fails."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from router.config import Settings
from router.hook.views import Hook
from router.log import about_call, configure, log
from tests.desk import Desk

HOSTILE = "1\n2026-01-01T00:00:00Z [info] call routed\r\x1b[2J\x07\x9b31m\u2028\u202e\ud800"


def use(log_format: str) -> None:
    """Set logging up anew in this format."""
    configure(Settings.load({"SECRET_KEY": "s" * 40, "LOG_FORMAT": log_format}))


@pytest.fixture(autouse=True)
def _leave_no_trace() -> Iterator[None]:
    yield
    vars(log).pop("bind", None)


def test_the_level_set_last_counts_whatever_was_logged_before(capsys: pytest.CaptureFixture[str]) -> None:
    for level, expected in (("ERROR", 0), ("INFO", 1), ("ERROR", 0)):
        configure(Settings.load({"SECRET_KEY": "s" * 40, "LOG_LEVEL": level}))
        log.info("said")
        assert len(lines(capsys)) == expected, level


@pytest.fixture(params=["json", "console"])
def log_format(request: pytest.FixtureRequest) -> str:
    """Logging is set up in this format."""
    use(request.param)
    return str(request.param)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.split("\n")[:-1]


@pytest.mark.usefixtures("log_format")
def test_every_line_about_a_call_has_its_id_whoever_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with about_call("ua9_-179"):
        log.info("ours")
        logging.getLogger("library").warning("theirs")
        try:
            raise ValueError("oops")
        except ValueError:
            log.exception("failed")
        with about_call("other"):
            log.info("inner", call_id="named")
    log.info("after")
    told = "\n".join(lines(capsys))
    assert told.count("ua9_-179") == 3
    assert "named" in told
    assert "other" not in told


@pytest.mark.usefixtures("log_format")
def test_a_line_of_another_thread_is_about_no_call(capsys: pytest.CaptureFixture[str]) -> None:
    with about_call("ua9_-179"):
        thread = threading.Thread(target=lambda: log.info("beside"))
        thread.start()
        thread.join()
    (line,) = lines(capsys)
    assert "beside" in line
    assert "ua9_-179" not in line


@pytest.mark.usefixtures("log_format")
def test_what_a_stranger_sends_begins_no_line_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with about_call(HOSTILE[:-1]):
        log.info("call routed", caller=HOSTILE, understood={"x": HOSTILE}, list=[HOSTILE], number=10**30)
        logging.getLogger("library").warning("heard %s", HOSTILE[:-1])  # pytest could not pass on half a character
    told = lines(capsys)
    assert len(told) == 2
    assert all(char >= " " for line in told for char in line)


def test_on_a_terminal_nothing_but_text_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    use("console")
    log.info(HOSTILE, caller=HOSTILE)
    (line,) = lines(capsys)
    assert line.isprintable()


def test_no_message_of_an_error_passes_for_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    use("console")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed")
    first, *others = lines(capsys)
    assert "failed" in first
    assert others
    assert all(line.startswith("    ") and line.isprintable() for line in others if line)


def test_a_line_of_json_holds_all_that_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    use("json")
    log.info("call routed", caller=HOSTILE, number=10**30, thing=object, known={1: "int key"})
    (line,) = lines(capsys)
    said = json.loads(line)
    assert said["caller"] == HOSTILE
    assert said["number"] == 10**30
    assert said["known"] == {"1": "int key"}


@pytest.mark.parametrize("path", ["/hook/{}", "/hook/{}/event", "/welcome/{}"])
def test_a_request_that_fails_leaves_no_token_in_the_log(
    migrated_sqlite_url: str, path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ValueError("the inside")

    with closing(Desk(migrated_sqlite_url)) as desk:
        for name in ("ask", "hear"):
            monkeypatch.setattr(Hook, name, broken)
        monkeypatch.setitem(desk.app.view_functions, "admin.welcome", broken)
        token = desk.token()
        assert desk.client.get(path.format(token)).status_code == 500
    told = capsys.readouterr()
    assert "the inside" in told.out
    assert path.format("[token]") in told.out
    assert token not in told.out + told.err
