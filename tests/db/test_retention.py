"""What is kept how long: each kind of row goes at its end and not before, and calls do not notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from router.background import Background
from router.db import models
from router.db.retention import HOLD_SECONDS, REFUSED_KEPT, Pruner, is_first_keeper
from tests.desk import Desk

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def desk(migrated_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_url)) as made:
        yield made


def decision(project_id: int, at: datetime, **values: Any) -> dict[str, Any]:
    return {
        "project_id": project_id,
        "call_id": f"{project_id}-{at.timestamp()}",
        "step": "",
        "attempt": 0,
        "asked_at": at,
        "caller": "380501112233",
        "dialed": "380440000000",
        "sip_login": "",
        "destination": "380440000000",
        "result": "overflow",
        "degraded": "",
        "config_version": 1,
        "latency_us": 900,
        "outcome": "",
        "inferred": False,
        "answered_login": "",
        "disposition": "",
        "record": {"call": {}},
        **values,
    }


def add(desk: Desk, model: Any, *rows: dict[str, Any]) -> None:
    with desk.database.writing() as session:
        session.execute(insert(model), list(rows))


def left(desk: Desk, column: Any) -> list[Any]:
    with desk.database.reading() as session:
        return list(session.scalars(select(column).order_by(column)))


def prune(desk: Desk, now: datetime = NOW) -> dict[str, int]:
    return Pruner(desk.database).run(now)


def test_calls_are_kept_as_long_as_their_project_says(desk: Desk) -> None:
    desk.configure('projects: [{name: short, overflow: "1", keep_days: 1}, {name: long, overflow: "1", keep_days: 30}]')
    short, long = desk.project_id("short"), desk.project_id("long")
    times = [NOW - timedelta(days=days, seconds=seconds) for days in (0, 1, 2, 30, 31) for seconds in (-1, 1)]
    add(desk, models.Decision, *(decision(project, at) for project in (short, long) for at in times))
    assert prune(desk)["decisions"] == 7 + 3
    for project, kept in ((short, times[:3]), (long, times[:7])):
        of_project = [row.asked_at for row in desk.all(models.Decision, project_id=project)]
        assert sorted(of_project, reverse=True) == sorted(kept, reverse=True)
    assert prune(desk) == {}


def test_calls_of_a_deleted_project_are_not_kept_longer(desk: Desk) -> None:
    add(desk, models.Decision, decision(desk.project_id(), NOW - 91 * DAY))
    with desk.database.writing() as session:
        session.execute(update(models.Project).values(deleted_at=NOW))
    assert prune(desk) == {"decisions": 1}


def test_logged_talks_are_kept_as_long_as_the_call_log_is_read(desk: Desk) -> None:
    project = desk.project_id()
    talk = {"project_id": project, "caller": "380501112233"}
    add(desk, models.LoggedTalk, *({**talk, "login": f"l{n}", "talked_at": NOW - n * DAY} for n in (1, 6, 8)))
    add(desk, models.CallLog, {"project_id": project, "next_at": NOW, "known_since": NOW - 8 * DAY, "known_until": NOW})
    with desk.database.writing() as session:
        session.execute(update(models.Project).values(presence_call_log_days=7))
    assert prune(desk) == {"logged_talks": 1}
    assert left(desk, models.LoggedTalk.login) == ["l1", "l6"]
    with desk.database.writing() as session:
        session.execute(update(models.Project).values(presence_call_log_days=0))
    assert prune(desk) == {"logged_talks": 2, "call_logs": 1}, "to be read from its beginning, if ever"


def test_logged_talks_are_kept_as_long_as_a_rule_looks_back(desk: Desk) -> None:
    desk.configure(
        'projects: [{name: far, overflow: "1", presence: {call_log_days: 7},'
        " rules: [{name: all, prefer: last_agent, prefer_days: 100}]}]"
    )
    talk = {"project_id": desk.project_id("far"), "caller": "380501112233"}
    add(desk, models.LoggedTalk, *({**talk, "login": f"l{n}", "talked_at": NOW - n * DAY} for n in (6, 99, 101)))
    assert prune(desk) == {"logged_talks": 1}


# ---- presence snapshots


def add_snapshots(desk: Desk, *times: datetime) -> list[int]:
    project = desk.project_id()
    add(
        desk,
        models.PresenceSnapshot,
        *({"project_id": project, "began_at": at, "online": [], "speaking": []} for at in times),
    )
    return left(desk, models.PresenceSnapshot.id)


def test_a_snapshot_is_kept_as_long_as_a_decision_names_it(desk: Desk) -> None:
    times = [NOW - 5 * DAY + timedelta(seconds=2 * n) for n in range(1200)]
    ids = add_snapshots(desk, *times)
    named = {ids[n] for n in (0, 1, 499, 500, 501, 777, 1199)}
    add(
        desk,
        models.Decision,
        *(decision(desk.project_id(), times[ids.index(one)] + timedelta(seconds=1), snapshot_id=one) for one in named),
    )
    assert prune(desk)["presence_snapshots"] == 1200 - len(named)
    assert set(left(desk, models.PresenceSnapshot.id)) == named


def test_a_snapshot_that_held_for_days_is_named_by_late_decisions(desk: Desk) -> None:
    ids = add_snapshots(desk, NOW - 10 * DAY, NOW - 9 * DAY, NOW - 2 * DAY)
    add(desk, models.Decision, decision(desk.project_id(), NOW - 3 * DAY, snapshot_id=ids[1]))
    prune(desk)
    assert left(desk, models.PresenceSnapshot.id) == ids[1:]


def test_recent_snapshots_are_left_alone_named_or_not(desk: Desk) -> None:
    ids = add_snapshots(desk, NOW - timedelta(hours=23), NOW - timedelta(hours=1), NOW)
    assert prune(desk) == {}
    assert left(desk, models.PresenceSnapshot.id) == ids


def test_the_newest_snapshot_stays_however_old(desk: Desk) -> None:
    ids = add_snapshots(desk, NOW - 400 * DAY, NOW - 300 * DAY)
    add(desk, models.Presence, {"project_id": desk.project_id(), "snapshot_id": ids[0]})
    prune(desk)
    assert left(desk, models.PresenceSnapshot.id) == ids


def test_snapshots_go_with_the_last_decision_that_names_them(desk: Desk) -> None:
    ids = add_snapshots(desk, NOW - 80 * DAY, NOW - 79 * DAY, NOW - 2 * DAY)
    project = desk.project_id()
    add(
        desk,
        models.Decision,
        *(decision(project, NOW - days * DAY, snapshot_id=ids[n]) for n, days in ((0, 79.5), (1, 5))),
    )
    pruner = Pruner(desk.database)
    assert pruner.run(NOW) == {}
    assert pruner.run(NOW + 11 * DAY) == {"decisions": 1, "presence_snapshots": 1}
    assert left(desk, models.PresenceSnapshot.id) == ids[1:]


def test_goes_on_where_it_ended(desk: Desk) -> None:
    add_snapshots(desk, *(NOW - 3 * DAY + timedelta(minutes=n) for n in range(10)))
    pruner = Pruner(desk.database)
    pruner.run(NOW)
    ended = pruner._thinned[desk.project_id()]
    add_snapshots(desk, *(NOW - 2 * DAY + timedelta(minutes=n) for n in range(10)))
    assert pruner.run(NOW + DAY)["presence_snapshots"] == 10
    assert pruner._thinned[desk.project_id()].began_at > ended.began_at


# ---- configuration


def test_a_version_of_the_configuration_is_kept_as_long_as_a_decision_needs_it(desk: Desk) -> None:
    project = desk.project_id()
    published = {2: 300, 3: 200, 4: 150, 5: 100, 6: 50, 7: 20, 8: 10}  # days ago
    with desk.database.writing() as session:
        session.execute(update(models.ConfigVersion).values(published_at=NOW - 400 * DAY))
        session.execute(update(models.Project).values(version=8, keep_days=365))
    rows = ({"version": version, "published_at": NOW - days * DAY} for version, days in published.items())
    add(desk, models.ConfigVersion, *({"project_id": project, "actor": "test", "document": {}, **row} for row in rows))
    add(desk, models.Decision, decision(project, NOW - 170 * DAY, config_version=3))
    assert prune(desk) == {"config_versions": 4}  # 1, 2, 4, 5; 6 held until less than thirty days ago
    assert left(desk, models.ConfigVersion.version) == [3, 6, 7, 8]


# ---- the rest


def test_the_newest_refused_requests_of_each_project_are_kept(desk: Desk) -> None:
    desk.configure('projects: [{name: other, overflow: "1"}]')
    one, other = desk.project_id(), desk.project_id("other")
    row = {"at": NOW, "reason": "wrong", "remote": "", "request": {}}
    add(desk, models.RefusedRequest, *({"project_id": one, **row} for _ in range(REFUSED_KEPT + 30)))
    add(desk, models.RefusedRequest, *({"project_id": other, **row} for _ in range(3)))
    ids = left(desk, models.RefusedRequest.id)
    assert prune(desk) == {"refused_requests": 30}
    assert left(desk, models.RefusedRequest.id) == ids[30:]


def test_each_kind_has_its_time(desk: Desk) -> None:
    project = desk.project_id()
    second = timedelta(seconds=1)
    with desk.database.writing() as session:
        session.execute(update(models.AuditEntry).values(at=NOW))
    audit = {"actor": "olena", "action": "changed", "subject": "agent", "subject_name": ""}
    add(desk, models.AuditEntry, *({"at": NOW - 730 * DAY + n * second, **audit} for n in (-1, 1)))
    link = {"created_at": NOW - 40 * DAY}
    add(
        desk,
        models.OneTimeLink,
        *({"token_hash": str(n), "expires_at": NOW - 30 * DAY + n * second, **link} for n in (-1, 1)),
    )
    add(
        desk,
        models.SignInFailure,
        *({"key": str(n), "failures": 9, "last_at": NOW - DAY + n * second} for n in (-1, 1)),
    )
    add(
        desk,
        models.HeardCall,
        *(
            {"project_id": project, "call_id": str(n), "heard_at": NOW - 2 * DAY + n * second, "talked": []}
            for n in (-1, 1)
        ),
    )
    add(desk, models.EndedSession, *({"id_hash": str(n), "ended_at": NOW - 15 * DAY + n * second} for n in (-1, 1)))
    study = {"project_id": project, "kind": "replay", "document": {}, "parameters": {}, "started_by": "", "total": 0}
    study |= {"heartbeat_at": NOW, "done": 0, "error": ""}
    times = (NOW - 30 * DAY + n * second for n in (-1, 1))
    add(desk, models.Study, *(study | {"started_at": at, "state": "done"} for at in times))
    token = {"project_id": project, "created_at": NOW}
    add(
        desk,
        models.HookToken,
        *({"token_hash": str(n), "token": "t", "expires_at": NOW - 30 * DAY + n * second, **token} for n in (-1, 1)),
    )
    assert prune(desk) == {
        "audit_entries": 1, "one_time_links": 1, "sign_in_failures": 1, "heard_calls": 1, "hook_tokens": 1,
        "ended_sessions": 1, "studies": 1,
    }  # fmt: skip
    assert left(desk, models.OneTimeLink.token_hash) == left(desk, models.SignInFailure.key) == ["1"]
    assert left(desk, models.HeardCall.call_id) == ["1"]


@pytest.mark.parametrize(
    ("values", "goes"),
    [
        ({"login": "gone"}, True),
        ({"login": "acme_alice"}, False),  # owned
        ({"login": "online", "online": True}, False),
        ({"login": "speaking", "speaking": True}, False),
        ({"login": "since", "since_at": NOW - 29 * DAY}, False),
        ({"login": "heard", "event_at": NOW - 29 * DAY}, False),
        ({"login": "heard", "event_at": NOW - 31 * DAY}, True),
    ],
)
def test_a_login_that_nobody_owns_or_sees_is_forgotten(desk: Desk, values: dict[str, Any], goes: bool) -> None:
    row = {"online": False, "speaking": False, "since_at": NOW - 31 * DAY, "event_call_id": "", "event_at": None}
    add(desk, models.LoginState, {"project_id": desk.project_id(), **row, **values})
    assert prune(desk) == ({"login_states": 1} if goes else {})


# ---- beside calls


def test_calls_do_not_notice(desk: Desk) -> None:
    project = desk.project_id()
    old = datetime.now(UTC) - 100 * DAY
    rows = [decision(project, old + timedelta(seconds=n), record={"x": "y" * 3000}) for n in range(400)]
    add(desk, models.Decision, *rows)
    desk.see("acme_alice")
    pruner = Pruner(desk.database)
    thread = threading.Thread(target=pruner.run)
    thread.start()
    asked, results = 0, set()
    while thread.is_alive() or asked < 20:
        desk.ask(call_id=f"live-{asked}", caller="0501112233")
        asked += 1
    thread.join()
    results = {(row.degraded, row.call_id.partition("-")[0]) for row in desk.all(models.Decision)}
    assert pruner.deleted["decisions"] == 400
    assert results == {("", "live")}
    assert len(desk.all(models.Decision)) == asked


def test_a_call_that_somebody_holds_is_left_for_the_next_run(desk: Desk) -> None:
    """As the keeper does, which concludes old calls one by one: whoever waited for it would wait for each other."""
    desk.configure('projects: [{name: acme, overflow: "1", keep_days: 1}]')
    project = desk.project_id("acme")
    add(desk, models.Decision, *(decision(project, NOW - n * DAY) for n in range(2, 7)))
    if desk.database.is_sqlite:  # it has one writer at a time
        assert prune(desk) == {"decisions": 5}
        return
    first, *_, last = left(desk, models.Decision.id)
    touch = update(models.Decision).values(inferred=True)
    with desk.database.writing() as session:
        session.execute(touch.where(models.Decision.id == last))
        assert prune(desk) == {"decisions": 4}
        session.execute(touch.where(models.Decision.id == first))
    assert prune(desk) == {"decisions": 1}


def test_a_transaction_is_made_as_short_as_calls_need_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = datetime.now(UTC) - 100 * DAY
    add(desk, models.Decision, *(decision(desk.project_id(), old + timedelta(seconds=n)) for n in range(600)))
    pauses: list[float] = []
    pruner = Pruner(desk.database)
    monkeypatch.setattr(pruner._stop, "wait", pauses.append)

    class SlowClock:
        """Of which each transaction takes ten times as long as it should."""

        at = 0.0

        def monotonic(self) -> float:
            self.at += 5 * HOLD_SECONDS * pruner._batch / 100
            return self.at

    monkeypatch.setattr("router.db.retention.time", SlowClock())
    pruner.run()
    assert pruner.deleted["decisions"] == 600
    assert pruner._batch <= 25
    assert pauses[-1] == pytest.approx(9 * 5 * HOLD_SECONDS * 20 / 100, rel=0.3)


def test_ends_soon_when_told_to(desk: Desk) -> None:
    old = datetime.now(UTC) - 100 * DAY
    add(desk, models.Decision, *(decision(desk.project_id(), old + timedelta(seconds=n)) for n in range(300)))
    stop = threading.Event()
    stop.set()
    assert Pruner(desk.database, stop).run() == {}
    with desk.database.reading() as session:
        assert session.scalar(select(func.count()).select_from(models.Decision)) == 300


# ---- by the keeper


SOON = datetime.now(UTC) + DAY  # when a lease ends that somebody holds


def first_of(desk: Desk, *names: str) -> list[str]:
    return [name for name in names if is_first_keeper(desk.database, name)]


def lease(desk: Desk, project_id: int, holder: str, until: datetime | None = SOON) -> None:
    of_project = update(models.Presence).where(models.Presence.project_id == project_id)
    with desk.database.writing() as session:
        session.execute(of_project.values(lease_holder=holder, lease_until=until))


def delete_project(desk: Desk, project_id: int) -> None:
    with desk.database.writing() as session:
        session.execute(update(models.Project).where(models.Project.id == project_id).values(deleted_at=NOW))


@pytest.fixture
def two_projects(desk: Desk) -> tuple[int, int]:
    """The first is polled by a, the second by b."""
    desk.configure('projects: [{name: other, overflow: "1"}]')
    first, second = desk.project_id(), desk.project_id("other")
    add(desk, models.Presence, {"project_id": first}, {"project_id": second})
    lease(desk, first, "a")
    lease(desk, second, "b")
    return first, second


def test_one_of_all_keepers_prunes(desk: Desk, two_projects: tuple[int, int]) -> None:
    assert first_of(desk, "a", "b", "") == ["a"]
    lease(desk, two_projects[0], "", None)
    assert first_of(desk, "a", "b", "") == ["b"]
    lease(desk, two_projects[1], "", None)
    assert first_of(desk, "a", "b", "") == []


def test_a_keeper_that_died_prunes_no_more(desk: Desk, two_projects: tuple[int, int]) -> None:
    lease(desk, two_projects[0], "a", datetime.now(UTC) - timedelta(seconds=1))
    assert first_of(desk, "a", "b") == ["b"]


def test_who_last_polled_a_deleted_project_does_not_keep_others_from_pruning(
    desk: Desk, two_projects: tuple[int, int]
) -> None:
    """Nobody polls it any more, so its lease stays as it was."""
    delete_project(desk, two_projects[0])
    assert first_of(desk, "a", "b") == ["b"]


def test_what_is_kept_of_deleted_projects_goes_though_no_project_is_left(
    desk: Desk, two_projects: tuple[int, int]
) -> None:
    for project in two_projects:
        delete_project(desk, project)
    assert first_of(desk, "a", "b") == ["a", "b"]


def test_the_process_that_polls_prunes_by_itself(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    add(desk, models.Decision, decision(desk.project_id(), datetime.now(UTC) - 100 * DAY))
    monkeypatch.setattr("router.background.FIRST_PRUNE_SECONDS", 0.2)
    monkeypatch.setattr("router.background.PRUNE_SECONDS", 0.2)
    background = Background(desk.database, desk.settings.model_copy(update={"presence_keeper": "inline"}))
    background.start()
    try:
        deadline = time.monotonic() + 60
        while desk.all(models.Decision):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        background.stop()
