"""Liveness, readiness and metrics: what they say of each state, and that asking never costs more than a second."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select, text, update

from router.db import migrate, models
from router.db.session import Database
from router.db.vitals import Probe, StillReadingError, Vitals, read_vitals
from tests.desk import Desk

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.health._LOOK_SECONDS", 30)  # a noisy machine is no database that hangs


@pytest.fixture
def desk(migrated_sqlite_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_sqlite_url, PRESENCE_KEEPER="inline")) as made:
        yield made


@pytest.fixture
def desk_everywhere(migrated_url: str) -> Iterator[Desk]:
    """On SQLite and on PostgreSQL in turn: for what asks the database."""
    with closing(Desk(migrated_url, PRESENCE_KEEPER="inline")) as made:
        yield made


def ready(desk: Desk) -> tuple[int, dict[str, Any]]:
    """The status and body of /readyz, as of now and not of a second ago."""
    desk.app.extensions["health"].probe._read_at = -1e9
    answer = desk.client.get("/readyz")
    assert answer.json is not None
    return answer.status_code, answer.json


def hold_lease(desk: Desk, *, seconds: float = 5) -> None:
    with desk.database.writing() as session:
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        session.execute(update(models.Presence).values(lease_holder="somebody", lease_until=until))


def metrics(desk: Desk, **labels: str) -> dict[str, float]:
    """The samples of /metrics by name, of those with these labels."""
    desk.app.extensions["health"].probe._read_at = -1e9
    answer = desk.client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    }


# ---- alive


def test_being_alive_needs_no_database(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr("sqlalchemy.engine.Engine.connect", none)
    assert desk.client.get("/healthz").text == "ok\n"


# ---- ready


def test_is_ok_when_presence_is_fresh_and_somebody_polls(desk_everywhere: Desk) -> None:
    desk_everywhere.see("acme_alice")
    hold_lease(desk_everywhere)
    status, said = ready(desk_everywhere)
    assert (status, said["status"]) == (200, "ok")
    assert said["checks"]["database"] == said["checks"]["migrations"] == said["checks"]["keeper"] == {"state": "ok"}
    assert said["checks"]["spool"] == {"state": "ok", "decisions": 0, "events": 0, "dropped": 0}
    (project,) = said["checks"]["presence"]["projects"]
    assert (project["project"], project["state"]) == (desk_everywhere.project_id(), "fresh")
    assert 0 <= project["age_seconds"] < 60


def test_names_no_project(desk: Desk) -> None:
    desk.see("acme_alice")
    assert "acme" not in desk.client.get("/readyz").text


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"began_at": None}, "never"),
        ({"began_at": datetime(2026, 1, 1, tzinfo=UTC)}, "stale"),
        ({"failures": 3, "error_code": "unauthorized"}, "error"),
    ],
)
def test_a_source_in_trouble_degrades_but_takes_no_process_out_of_service(
    desk: Desk, values: dict[str, Any], state: str
) -> None:
    desk.see("acme_alice")
    hold_lease(desk)
    with desk.database.writing() as session:
        session.execute(update(models.Presence).values(**values))
    status, said = ready(desk)
    assert (status, said["status"]) == (200, "degraded")
    (project,) = said["checks"]["presence"]["projects"]
    assert project["state"] == state
    assert project.get("error") == values.get("error_code")


def test_says_when_nobody_polls(desk: Desk) -> None:
    desk.see("acme_alice")
    status, said = ready(desk)
    assert (status, said["status"]) == (200, "degraded")
    assert said["checks"]["keeper"] == {"state": "nobody polls", "projects": [desk.project_id()]}


def test_nobody_has_to_poll_when_the_keeper_is_off(migrated_sqlite_url: str) -> None:
    with closing(Desk(migrated_sqlite_url, PRESENCE_KEEPER="off")) as desk:
        desk.see("acme_alice")
        assert ready(desk)[1]["checks"]["keeper"] == {"state": "off"}
        assert ready(desk)[1]["status"] == "ok"


def test_tells_what_waits_to_be_written_down(desk: Desk) -> None:
    outbox = desk.app.extensions["hook"].routing.outbox
    desk.ask(uniqueid="before")
    outbox.open_breaker()
    desk.ask(uniqueid="c1")
    assert ready(desk)[1]["checks"]["spool"] == {"state": "waiting", "decisions": 1, "events": 0, "dropped": 0}
    assert metrics(desk)["router_spooled_decisions"] == 1
    outbox.close_breaker()
    outbox.done("answers", [row.id for row in outbox.take(9)])
    assert metrics(desk)["router_spooled_decisions"] == 0


@pytest.mark.parametrize(("revision", "state"), [("base", "none"), ("-1", None)])
def test_is_not_ready_for_an_older_schema_and_says_what_to_do(
    desk_everywhere: Desk, revision: str, state: str | None
) -> None:
    migrate.downgrade(desk_everywhere.database, revision)
    status, said = ready(desk_everywhere)
    assert (status, said["status"]) == (503, "not ready")
    assert said["checks"]["migrations"]["state"] in {state or "behind", "none"}
    assert said["checks"]["migrations"]["remedy"] == "run: router db upgrade"
    assert metrics(desk_everywhere)["router_schema_current"] == 0


def test_a_schema_of_the_next_release_is_fine(desk_everywhere: Desk) -> None:
    with desk_everywhere.database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'of_tomorrow'"))
    status, said = ready(desk_everywhere)
    assert status == 200
    assert said["checks"]["migrations"] == {"state": "ok", "schema": "ahead"}


def test_is_not_ready_without_the_database(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_database: Database) -> Vitals:
        raise ConnectionRefusedError("to 10.1.2.3 with password hunter2")

    monkeypatch.setattr("router.health.read_vitals", away)
    status, said = ready(desk)
    assert (status, said["status"]) == (503, "not ready")
    assert said["checks"]["database"] == {"state": "unreachable", "error": "ConnectionRefusedError"}
    assert metrics(desk)["router_database_up"] == 0
    assert "router_presence_age_seconds" not in metrics(desk)


def test_a_database_that_hangs_holds_up_a_probe_for_a_second_and_one_thread_in_all(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = threading.Event()

    def hang(database: Database) -> Vitals:
        resumed.wait(60)
        return read_vitals(database)

    monkeypatch.setattr("router.health.read_vitals", hang)
    monkeypatch.setattr("router.health._LOOK_SECONDS", 0.5)
    assert [ready(desk)[1]["checks"]["database"]["error"] for _ in range(2)] == ["StillReadingError"] * 2
    assert [thread.name for thread in threading.enumerate()].count("vitals") == 1
    resumed.set()
    desk.see("acme_alice")
    monkeypatch.setattr("router.health._LOOK_SECONDS", 60)
    assert ready(desk)[0] == 200


def test_many_probes_cost_one_reading() -> None:
    readings = 0

    def read() -> Vitals:
        nonlocal readings
        readings += 1
        return Vitals("ok", ())

    probe = Probe(read, every=3600)
    for _ in range(100):
        assert probe.look(60) == Vitals("ok", ())
    assert readings == 1


def test_a_probe_that_fails_is_tried_again() -> None:
    answers: list[Vitals | Exception] = [OSError("away"), Vitals("ok", ())]

    def read() -> Vitals:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    probe = Probe(read, every=0)
    with pytest.raises(OSError, match="away"):
        probe.look(60)
    assert probe.look(60).schema == "ok"


def test_who_asks_meanwhile_waits_for_the_same_reading() -> None:
    go, readings = threading.Event(), []

    def read() -> Vitals:
        readings.append(1)
        go.wait(60)
        return Vitals("ok", ())

    probe = Probe(read)
    with pytest.raises(StillReadingError):
        probe.look(0.01)
    with pytest.raises(StillReadingError):
        probe.look(0.01)
    go.set()
    assert probe.look(60).schema == "ok"
    assert len(readings) == 1


# ---- metrics


def test_counts_hooks_by_result_and_form(desk: Desk) -> None:
    desk.see("acme_alice")

    def offers() -> float:
        return metrics(desk, result="offer", form="json").get("router_hooks_total", 0)

    before = offers()
    desk.ask(call_id="1", caller="0501112233")
    assert offers() == before + 1


def test_counts_what_is_refused_by_reason(desk: Desk) -> None:
    def refused(reason: str) -> float:
        return metrics(desk, reason=reason).get("router_refused_total", 0)

    before = refused("token")
    assert desk.client.get("/hook/" + "x" * 32).status_code == 404
    assert refused("token") == before + 1


def test_tells_of_each_project_by_its_id(desk_everywhere: Desk) -> None:
    desk_everywhere.see("acme_alice")
    hold_lease(desk_everywhere)
    desk_everywhere.ask(call_id="1", caller="0501112233")
    of_project = metrics(desk_everywhere, project=str(desk_everywhere.project_id()))
    assert of_project["router_reservations_live"] == 1
    assert of_project["router_decisions_overdue_seconds"] == 0
    assert of_project["router_presence_polled"] == 1
    assert of_project["router_presence_fresh_seconds"] == 3600
    assert of_project["router_presence_poll_seconds"] == 0.04
    assert 0 <= of_project["router_presence_age_seconds"] < 60
    assert "router_presence_failures" not in of_project
    with desk_everywhere.database.writing() as session:
        session.execute(update(models.Presence).values(failures=4, error_code="timeout"))
    assert (
        metrics(desk_everywhere, project=str(desk_everywhere.project_id()), error="timeout")["router_presence_failures"]
        == 4
    )
    assert metrics(desk_everywhere)["router_database_up"] == metrics(desk_everywhere)["router_schema_current"] == 1


def test_tells_how_long_calls_outlive_their_retention(desk_everywhere: Desk) -> None:
    project = str(desk_everywhere.project_id())
    assert metrics(desk_everywhere, project=project)["router_decisions_overdue_seconds"] == 0, "nobody has called yet"
    for call_id in ("old", "new"):
        desk_everywhere.ask(call_id=call_id, caller="0501112233")
    with desk_everywhere.database.writing() as session:
        keep = session.scalars(select(models.Project.keep_days)).one()
        old = models.Decision.call_id == "old"
        asked_at = datetime.now(UTC) - timedelta(days=keep + 2)
        session.execute(update(models.Decision).where(old).values(asked_at=asked_at))
    overdue = metrics(desk_everywhere, project=project)["router_decisions_overdue_seconds"]
    assert overdue == pytest.approx(2 * 86400, abs=600)


@pytest.mark.parametrize("address", ["203.0.113.7", "10.0.0.7", "", "fe80::1"])
def test_without_a_token_metrics_are_for_this_host_only(desk: Desk, address: str) -> None:
    answer = desk.client.get("/metrics", environ_overrides={"REMOTE_ADDR": address})
    assert answer.status_code == 403
    assert "METRICS_TOKEN" in answer.text
    assert "router_" not in answer.text


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_programs_on_this_host_need_no_token(desk: Desk, address: str) -> None:
    assert desk.client.get("/metrics", environ_overrides={"REMOTE_ADDR": address}).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Real-Ip", "Via", "CF-Connecting-IP"],
)
def test_a_proxy_on_this_host_is_not_this_host(desk: Desk, header: str) -> None:
    assert desk.client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize("environ", [{"PUBLIC_URL": "https://router.example.org"}, {"PROXY_HOPS": "1"}])
def test_where_a_proxy_is_configured_metrics_need_a_token(migrated_sqlite_url: str, environ: dict[str, str]) -> None:
    """It may add no header, and hand on what the whole internet asks for."""
    with closing(Desk(migrated_sqlite_url, **environ)) as desk:
        assert desk.client.get("/metrics").status_code == 403
    with closing(Desk(migrated_sqlite_url, METRICS_TOKEN="scrape-me-if-you-can", **environ)) as desk:
        sent = {"Authorization": "Bearer scrape-me-if-you-can"}
        assert desk.client.get("/metrics", headers=sent).status_code == 200


@pytest.mark.parametrize("host", ["router.example.org", "router.example.org:80", "localhost:8080", "10.0.0.7", "["])
def test_a_host_that_is_not_ours_betrays_a_proxy_that_says_nothing(desk: Desk, host: str) -> None:
    assert desk.client.get("/metrics", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.1:80", "[::1]"])
def test_a_program_on_this_host_asks_for_this_host(desk: Desk, host: str) -> None:
    assert desk.client.get("/metrics", headers={"Host": host}).status_code == 200


def test_with_a_token_metrics_are_for_who_has_it(migrated_sqlite_url: str) -> None:
    with closing(Desk(migrated_sqlite_url, METRICS_TOKEN="scrape-me-if-you-can")) as desk:
        far = {"REMOTE_ADDR": "203.0.113.7"}
        right = {"Authorization": "bearer scrape-me-if-you-can"}
        assert desk.client.get("/metrics", headers=right, environ_overrides=far).status_code == 200
        for wrong in ("", "Bearer", "Bearer scrape-me", "Basic scrape-me-if-you-can", "Bearer schlüssel"):
            answer = desk.client.get("/metrics", headers={"Authorization": wrong})
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert "router_" not in answer.text


def test_every_metric_is_documented_and_every_documented_metric_is_there(desk: Desk) -> None:
    desk.see("acme_alice")
    with desk.database.writing() as session:
        session.execute(update(models.Presence).values(failures=4, error_code="timeout"))
    families = text_string_to_metric_families(desk.client.get("/metrics").text)
    ours = {family.name: family.type for family in families if family.name.startswith("router_")}
    names = {f"{name}_total" if kind == "counter" else name for name, kind in ours.items()}
    listed = re.findall(r"^\| `(router_[a-z_]+)`", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(names)
