"""A PostgreSQL server that has stopped, or a wire that swallows all: no error ever comes. The PBX is answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from router.db import models
from router.db.session import Database
from tests.db.slow_wire import Wire, wire_to
from tests.desk import Desk

PATIENCE = 60.0
LAST_RESORT = "380449999999"
CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    hook: {answer: http}
    presence: {api_url: "https://127.0.0.1:9", auth_key: key, when_unknown: assume_online}
    agents: [{name: Ann, sip_logins: [acme_ann]}, {name: Ben, sip_logins: [acme_ben]}]
    groups: [{name: sales, members: [{agent: Ann}, {agent: Ben}]}]
    rules:
      - {name: known, when: {dialed: ["380441112233"]}, prefer: last_agent, groups: [sales]}
      - {name: everyone, groups: [sales]}
"""


class Silenced(NamedTuple):
    """The service, and the wire to its database."""

    desk: Desk
    wire: Wire


@pytest.fixture
def silenced(migrated_postgres_url: str) -> Iterator[Silenced]:
    database = Database(migrated_postgres_url)
    with wire_to(database.conninfo) as wire:
        environ = {"HOOK_BUDGET_MS": "1500", "OVERFLOW_DESTINATION": LAST_RESORT}
        desk = Desk(wire.url, CONFIG, **environ)
        yield Silenced(desk, wire)
        wire.speak_again()
        desk.close()


def test_calls_events_and_strangers_are_answered_and_nothing_is_lost(silenced: Silenced) -> None:
    desk, wire = silenced
    hook, ask = f"/hook/{desk.token()}", desk.client.get
    outbox = desk.app.extensions["hook"].routing.outbox
    assert ask(f"{hook}?call_id=before&dst=380441112200").text == "acme_ann"
    wire.fall_silent()
    # Who talked last is read before anything else: from a server that does not answer.
    preferred = ask(f"{hook}?call_id=preferred&dst=380441112233&caller=380501112233")
    assert (preferred.status_code, preferred.text) == (200, "acme_ben")
    event = ask(f"{hook}/event?call_id=before&event=pickup&connected_with=acme_ann")
    assert (event.status_code, outbox.waiting()) == (200, (1, 1))
    # Nobody can tell now whether this is a project's address.
    assert ask(f"/hook/{'x' * 43}?call_id=stranger").text == LAST_RESORT
    wire.speak_again()
    desk.app.extensions["router"].upkeep()
    with desk.database.reading() as session:
        login = session.get(models.LoginState, (1, "acme_ann"))
        assert login is not None
        assert login.event_speaking
