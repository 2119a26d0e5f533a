"""What may hang is waited for no longer than there is time."""

from __future__ import annotations

import threading

import pytest

from router.db.patience import in_time


def test_gives_what_it_can_and_raises_when_it_takes_too_long() -> None:
    assert in_time(lambda: "read", 30) == "read"
    with pytest.raises(LookupError):
        in_time(lambda: dict[str, int]()["nobody"], 30)
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        in_time(gate.wait, 0.01)
    gate.set()  # so that no thread is left behind
