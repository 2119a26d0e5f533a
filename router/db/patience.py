"""Work that may hang for ever, waited for no longer than there is time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_time(work: Callable[[], T], seconds: float) -> T:
    """What `work` gives or raises; TimeoutError after so many seconds, and nobody hears of it any more."""
    future: Future[T] = Future()
    threading.Thread(target=_run, args=(work, future), name="in time", daemon=True).start()
    return future.result(max(0.0, seconds))


def _run(work: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - raised where it is waited for
        future.set_exception(error)
