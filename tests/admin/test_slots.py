"""Calls go first: pages share the processes of a host but one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from router.admin import entry
from router.admin.slots import Slots
from router.db import models, queries
from tests.admin.conftest import Admin, Browser

HOLD = """
import sys, time, pathlib
from router.admin.slots import Slots
slot = Slots(pathlib.Path(sys.argv[1]), 1).take(5)
print("taken" if slot else "none", flush=True)
time.sleep(60)
"""


def test_there_are_so_many_and_no_more(tmp_path: Path) -> None:
    slots, twin = (Slots(tmp_path / "slots", 2) for _ in range(2))
    first, second = slots.take(0), twin.take(0)
    assert first
    assert second
    assert slots.take(0) is None
    second.release()
    second.release()  # twice does no harm
    third = slots.take(0)
    assert third
    assert twin.take(0) is None
    first.release()
    third.release()


def test_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "slots", 1)
    held = slots.take(0)
    assert held
    began = time.monotonic()
    assert slots.take(0.2) is None
    assert 0.2 <= time.monotonic() - began < 10
    held.release()


def test_the_kernel_frees_the_slot_of_a_process_that_dies(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "taken\n"
        assert Slots(folder, 1).take(0) is None
        holder.send_signal(signal.SIGKILL)
        holder.wait(5)
        slot = Slots(folder, 1).take(5)
        assert slot
        slot.release()
    finally:
        holder.kill()
        holder.wait(5)
        holder.stdout.close()


def test_a_folder_that_others_may_write_to_is_not_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "slots"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert not Slots(folder, 1).is_limited
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert not Slots(tmp_path / "link", 1).is_limited


def test_a_disk_that_is_full_of_nothing_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    slots = Slots(tmp_path / "file" / "slots", 1)
    assert not slots.is_limited
    assert slots.take(0)


@pytest.fixture
def busy(admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slots:
    """The app with one slot, which is not free."""
    slots = Slots(tmp_path / "slots", 1)
    admin.app.extensions["admin"] = admin.app.extensions["admin"]._replace(slots=slots)
    monkeypatch.setattr(entry, "WAIT_FOR_SLOT_SECONDS", 0.02)
    return slots


def test_pages_give_way_and_say_why(admin: Admin, busy: Slots, olena: Browser) -> None:
    held = busy.take(0)
    assert held
    answer = olena.get("/projects")
    assert answer.status_code == 503
    assert "Calls go first" in answer.text
    assert int(answer.headers["Retry-After"]) > 0
    held.release()
    again = olena.get("/projects")
    assert again.status_code == 200
    again.close()


def test_the_hook_and_static_files_need_no_slot(admin: Admin, busy: Slots, nobody: Browser) -> None:
    held = busy.take(0)
    assert held
    with admin.database.reading() as session:
        token = queries.current_token(session, admin.one(models.Project, name="acme").id)
    assert nobody.client.post(f"/hook/{token}").status_code == 200
    assert nobody.get("/healthz").status_code == 200
    assert nobody.get("/static/theme.css").status_code == 200
    held.release()


def test_a_slot_is_given_back_when_the_last_byte_is_out(admin: Admin, busy: Slots, olena: Browser) -> None:
    answer = olena.get("/projects")
    assert answer.status_code == 200
    assert busy.take(0) is None, "the reader may be slow"
    answer.close()
    free = busy.take(0)
    assert free
    free.release()


def test_a_page_that_fails_gives_its_slot_back(
    admin: Admin, busy: Slots, olena: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise ValueError("broken")

    monkeypatch.setitem(admin.app.view_functions, "admin.projects", broken)
    with pytest.raises(ValueError, match="broken"):
        olena.get("/projects")
    free = busy.take(0)
    assert free
    free.release()


def test_there_is_always_a_process_for_calls(migrated_sqlite_url: str) -> None:
    for workers, slots in ((1, 1), (2, 1), (4, 3)):
        made = Admin(migrated_sqlite_url, WEB_CONCURRENCY=str(workers), PORT=str(20_000 + os.getpid() % 10_000))
        assert len(entry._slots(made.settings)._paths) == slots
        made.close()
