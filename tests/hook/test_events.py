"""Call events that cannot be applied: answered all the same, known to the calls meanwhile, and applied as of then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from router.db import models
from router.db.session import DatabaseBusyError
from router.presence.events import apply_event
from tests.desk import Desk

PATIENCE = 60.0


@pytest.fixture
def desk(migrated_url: str) -> Iterator[Desk]:
    desk = Desk(migrated_url)
    desk.see("acme_alice", "acme_bob")
    yield desk
    desk.close()


def hear(desk: Desk, **event: str) -> None:
    answer = desk.client.get(f"/hook/{desk.token()}/event", query_string=event)
    assert (answer.status_code, answer.text) == (200, "OK\n")


def test_an_event_that_waits_for_the_database_is_known_to_calls_and_counts_as_of_when_it_came(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = desk.app.extensions["hook"].routing.outbox
    assert desk.ask(uniqueid="c1").text == "acme_alice"

    def is_away(*_: Any, **__: Any) -> Any:
        raise DatabaseBusyError("the database is away")

    monkeypatch.setattr("router.app.apply_event", is_away)
    hear(desk, event="pickup", uniqueid="c1", connected_with="acme_alice")
    heard_by = time.time()
    assert outbox.talks(desk.project_id(), 0) == {"acme_alice": (True, 0)}
    with desk.database.reading() as session:
        assert session.scalar(select(models.LoginState.event_at)) is None, "it is not applied"
    monkeypatch.setattr("router.app.apply_event", apply_event)
    desk.app.extensions["router"].upkeep()
    with desk.database.reading() as session:
        applied = session.execute(
            select(models.LoginState).where(models.LoginState.event_speaking.is_(True))
        ).scalar_one()
    assert applied.login == "acme_alice"
    assert applied.event_at is not None
    assert applied.event_at.timestamp() <= heard_by
    assert desk.all(models.Decision)[0].outcome == "answered"


@pytest.mark.parametrize(
    "told",
    [
        {"event": "unavailable", "sip_login": "acme_alice"},
        {"event": "busy", "sip": "acme_alice"},
        {"event": "forwarding", "login": "acme_alice", "disposition": "DECLINE"},
        {"connected_with": "acme_alice", "status": "BUSY"},
        {"event": "busy"},
    ],
    ids=lambda told: ",".join(told.values()),
)
def test_the_same_question_at_once_gets_the_next_agent_when_the_first_did_not_take_it(
    desk: Desk, told: dict[str, str]
) -> None:
    asked = {"uniqueid": "c1", "step_forward": "1", "userfield": "380501112233"}
    assert [desk.ask(**asked).text, desk.ask(**asked).text] == ["acme_alice"] * 2
    hear(desk, uniqueid="c1", **told)
    desk.app.extensions["router"].upkeep()  # should the machine have been too slow
    assert [desk.ask(**asked).text, desk.ask(**asked).text] == ["acme_bob"] * 2
    assert desk.ask(uniqueid="c2").text == "380440000000", "neither is free for the next call"
