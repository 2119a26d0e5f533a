"""Calls go first: admin requests share the web processes of a host but one, so that a hook always finds a free process.

A slot is a locked file. The kernel frees it when its holder dies, however it dies; nothing is ever cleaned up.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

_PAUSE = 0.01  # between two tries; what waits here keeps a process from the hooks, so it does not wait long either


class Slots:
    """`count` slots in `folder`, shared by all processes of this host that use the same folder; None: without limit.

    A folder that is not ours alone, or cannot be written, gives no limit: pages matter less than calls, but more than
    none at all.
    """

    def __init__(self, folder: Path | None, count: int = 1) -> None:
        self._paths: list[Path] = []
        if folder is None:
            return
        with suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            seen = folder.lstat()
            if stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o022:
                self._paths = [folder / str(number) for number in range(count)]

    @property
    def is_limited(self) -> bool:
        return bool(self._paths)

    def take(self, seconds: float) -> Slot | None:
        """A free slot, waiting for one up to `seconds`; None when there is none."""
        if not self._paths:
            return Slot(None)
        deadline = time.monotonic() + seconds
        while True:
            for path in self._paths:
                slot = _try(path)
                if slot is not None:
                    return slot
            if time.monotonic() >= deadline:
                return None
            time.sleep(_PAUSE)


class Slot:
    """Taken until `release`, which may be called more than once."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)  # the lock goes with the open file


def _try(path: Path) -> Slot | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # the folder vanished (a cleaner of /tmp), or no file can be opened: no reason to refuse a page
        return Slot(None)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return Slot(fd)
