"""The clock of the limits on guesses."""

from __future__ import annotations

import pytest


class Clock:
    """The clock of the limits."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """It stands still, and nothing is read again that was read a moment before."""
    made = Clock()
    monkeypatch.setattr("router.routing.known.REFUSED_SECONDS", 3600.0)
    monkeypatch.setattr("router.hook.throttle.monotonic", lambda: made.now)
    return made
