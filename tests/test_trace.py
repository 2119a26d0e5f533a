"""One call traced through our own code: how much of it a newcomer has to read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import router
from tests.desk import Desk

OURS = str(Path(router.__file__).parent)
FILES, FUNCTIONS = 14, 100  # fewer is better; what makes them more needs a reason


def test_a_call_passes_few_files_and_functions(migrated_sqlite_url: str) -> None:
    desk = Desk(migrated_sqlite_url)
    desk.see("acme_alice", "acme_bob")
    assert desk.ask(uniqueid="first").text == "acme_alice", "what is loaded once is loaded"
    url, question = f"/hook/{desk.token()}?answer=http", {"uniqueid": "second", "userfield": "380501112233"}
    passed: set[tuple[str, str]] = set()

    def pass_by(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS) and not code.co_qualname.endswith(">"):
            passed.add((code.co_filename, code.co_qualname))

    sys.setprofile(pass_by)
    try:
        answer = desk.client.post(url, json=question)
    finally:
        sys.setprofile(None)
    desk.close()
    assert answer.text == "acme_bob"
    files = {file.removeprefix(OURS) for file, _ in passed}
    assert len(files) <= FILES, sorted(files)
    assert len(passed) <= FUNCTIONS, sorted(passed)
    assert not [name for file, name in passed if "outage" in file], "on a good day"
