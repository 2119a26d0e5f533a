"""A phone that rings is promised, whoever owns it: to rename an agent or give a login away frees nobody's phone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import delete, select

from router.configuration import apply, load
from router.configuration.change import change
from router.configuration.undo import undo_version
from router.core.events import CallEvent, EventKind
from router.db import models, queries
from router.db.board import Tally, read_now
from router.db.claim import Lease, LostRaceError, question
from router.db.types import to_micros
from router.explanation.agents import board_agents, present_of
from router.presence.events import apply_event
from router.presence.settle import settle, tidy
from router.routing.route import recompute
from tests.world import OVERFLOW, World, without_database


@pytest.fixture
def office(world: World) -> World:
    """Ann, with a mobile, before Bob."""
    world.configure(agents={"ann": {"logins": ["ann", "ann_mob"]}, "bob": {}}, groups={"sales": ["ann", "bob"]})
    world.see(["ann", "ann_mob"])
    return world


def write_file(world: World, *agents: str) -> None:
    """Apply a file with these agents, all of them members."""
    names = [agent.split(",")[0].removeprefix("{name: ") for agent in agents]
    text = "\n".join(
        [
            f"projects:\n  - name: acme\n    time_zone: UTC\n    overflow: '{OVERFLOW}'\n    agents:",
            *(f"      - {agent}" for agent in agents),
            f"    groups:\n      - {{name: sales, members: [{', '.join(f'{{agent: {name}}}' for name in names)}]}}",
            "    rules:\n      - {name: everyone, groups: [sales]}",
        ]
    )
    apply(world.database, load(text, {}))


def rename(world: World) -> None:
    write_file(world, "{name: Anna, sip_logins: [ann, ann_mob]}", "{name: bob, sip_logins: [bob]}")


def give_to_bob(world: World) -> None:
    write_file(world, "{name: ann, sip_logins: [ann_mob]}", "{name: bob, sip_logins: [bob, ann]}")


def give_the_mobile_to_bob(world: World) -> None:
    write_file(world, "{name: ann, sip_logins: [ann]}", "{name: bob, sip_logins: [bob, ann_mob]}")


def spell_otherwise(world: World) -> None:
    write_file(world, "{name: Anna, sip_logins: [Ann, ann_mob]}", "{name: bob, sip_logins: [bob]}")
    world.see(["Ann", "ann_mob"])


def delete_and_make_anew(world: World) -> None:
    write_file(world, "{name: bob, sip_logins: [bob]}")
    write_file(world, "{name: ann, sip_logins: [ann, ann_mob]}", "{name: bob, sip_logins: [bob]}")


def delete_and_undo(world: World) -> None:
    with world.change() as session:
        session.execute(delete(models.Member))
        session.delete(session.scalars(select(models.Agent).where(models.Agent.name == "ann")).one())
    with change(world.database, world.project_id, "test") as draft:
        undo_version(draft, draft.project.version)


def swap(world: World) -> None:
    write_file(world, "{name: ann, sip_logins: [bob]}", "{name: bob, sip_logins: [ann, ann_mob]}")


@pytest.mark.parametrize(
    "change",
    [rename, give_to_bob, give_the_mobile_to_bob, spell_otherwise, delete_and_make_anew, delete_and_undo, swap],
)
def test_a_phone_that_rings_is_promised_whatever_is_changed(office: World, change: Callable[[World], None]) -> None:
    routing = office.routing()
    assert office.ask("one", routing=routing).destination == "ann"
    change(office)
    assert office.ask("two", routing=routing).destination == OVERFLOW
    answer = office.ask("three")
    assert answer.destination == OVERFLOW, "nor does a process that knew nothing before offer it"
    assert "reserved" in office.skips(answer).values()
    with office.database.reading() as session:
        assert recompute(session, answer.decision_id).is_same

    office.later(26)
    assert office.ask("four").destination in {"ann", "Ann", "ann_mob"}, "it does not ring any more"


def test_a_renamed_agents_call_goes_on_to_others(office: World) -> None:
    office.see(["ann", "ann_mob", "bob"])
    assert office.ask("one", "1").destination == "ann"
    rename(office)
    assert office.ask("one", "2").destination == "bob", "a call is not offered to the same phone again"
    assert office.ask("two").destination == "ann", "and it does not ring there any more"


def test_a_new_login_of_an_agent_whose_phone_rings_is_not_free(office: World) -> None:
    assert office.ask("one").destination == "ann"
    write_file(office, "{name: ann, sip_logins: [ann2]}", "{name: bob, sip_logins: [bob]}")
    office.see(["ann2"])
    assert office.ask("two").destination == OVERFLOW


def test_a_preferred_agent_whose_phone_rings_for_another_call_is_not_preferred(world: World) -> None:
    rules = [{"name": "own", "prefer": "param", "prefer_param": "manager", "groups": []}]
    world.configure(agents=["ann", "bob"], rules=rules)
    world.see(["ann", "bob"])
    assert world.ask("one", params={"manager": "ann"}).destination == "ann"
    with world.change() as session:
        ann, bob = session.scalars(select(models.Agent).order_by(models.Agent.name))
        ann.sip_logins = []
        session.flush()
        bob.sip_logins = [models.SipLogin(project_id=world.project_id, login="ann")]
    assert world.ask("two", params={"manager": "bob"}).destination == OVERFLOW


@pytest.mark.parametrize("kind", [EventKind.PICKUP, EventKind.AFTER_CALL])
def test_an_event_of_the_call_ends_the_promise_of_the_phone(office: World, kind: EventKind) -> None:
    assert office.ask("one").destination == "ann"
    rename(office)
    with office.database.reading() as session:
        project = queries.load_published(session, office.project_id).project
    apply_event(office.database, project, CallEvent(kind, "one", sip_login="bob", answered=kind is EventKind.PICKUP))
    assert office.reservations() == {}
    assert office.ask("two").destination == "ann"


def test_the_database_itself_promises_a_phone_once(office: World) -> None:
    """Whatever another process believes of who owns it."""
    assert office.ask("one").destination == "ann"
    with office.database.reading() as session:
        bob = office.agent_id(session, "bob")
        now = to_micros(office.database.now(session))
    for phones, is_lost in ((["bob", "ann_mob"], True), (["bob", "other"], False)):
        claim = _claim(office, bob, "bob", phones, now)
        if is_lost:
            with pytest.raises(LostRaceError):
                claim()
        else:
            claim()
    assert {name: row.call_id for name, row in office.reservations().items()} == {"ann": "one", "bob": "two"}


def _claim(world: World, agent_id: int, login: str, phones: Sequence[str], now: int) -> Callable[[], object]:
    decision: dict[str, Any] = {
        "project": world.project_id, "call_id": "two", "step": "", "attempt": 0, "asked_at": now, "caller": "",
        "dialed": "", "rule_id": None, "group_id": None, "agent_id": agent_id, "sip_login": login,
        "destination": login, "result": "offer", "degraded": "", "config_version": 1, "snapshot_id": None,
        "latency_us": 0, "record": "{}", "packed": None,
    }  # fmt: skip

    def claim() -> object:
        with question(world.database, deadline=time.monotonic() + 60) as transaction:
            return transaction.record(decision, Lease(agent_id, login, now + 25_000_000, None, phones=phones))

    return claim


def test_the_board_shows_whoever_owns_a_promised_phone_as_reserved(office: World) -> None:
    office.ask("one")
    rename(office)
    with office.database.reading() as session:
        now = read_now(session, office.project_id)
        project = queries.load_published(session, office.project_id).project
    told = {one.name: one for one in board_agents(present_of(project, now), now, Tally())}
    assert (told["Anna"].state, told["Anna"].caller) == ("reserved", "380501112233")
    assert told["bob"].state == "offline"


def test_a_lease_of_a_deleted_agent_is_tidied_away(office: World) -> None:
    office.ask("one")
    rename(office)
    office.later(600)
    with office.database.reading() as session:
        project = queries.load_published(session, office.project_id).project
    tidy(office.database, project)
    with office.database.reading() as session:
        assert session.scalars(select(models.Reservation)).all() == []
        assert session.scalars(select(models.ReservedPhone)).all() == []


def test_a_phone_that_rings_is_not_concluded_to_have_rung_out_when_its_agent_is_renamed(office: World) -> None:
    office.ask("one")
    rename(office)
    office.later(15)
    office.see(["ann", "ann_mob"])
    with office.database.reading() as session:
        project = queries.load_published(session, office.project_id).project
    settle(office.database, project)
    assert office.decisions()[0].outcome == ""
    assert office.ask("two").destination == OVERFLOW


# ---- while the database is away


def test_a_promised_phone_is_known_to_the_host_whoever_owns_it(office: World) -> None:
    assert office.ask("one").destination == "ann"
    rename(office)
    answer = office.ask("two", routing=without_database(office))
    assert (answer.degraded != "", answer.destination) == (True, OVERFLOW)


def test_a_phone_promised_without_the_database_is_promised_when_it_is_back(office: World) -> None:
    away = without_database(office)
    assert office.ask("one", routing=away).destination == "ann"
    rename(office)
    assert office.ask("two", routing=without_database(office)).destination == OVERFLOW, "another process of the host"
    away.outbox.close_breaker()
    assert office.ask("three").destination == OVERFLOW, "and when it is back"
    away.keep_up()
    with office.database.reading() as session:
        assert "ann" in {row.phone for row in session.scalars(select(models.ReservedPhone))}


def test_a_decision_written_down_later_promises_all_phones_of_its_agent(office: World) -> None:
    away = without_database(office)
    assert office.ask("one", routing=away).destination == "ann"
    give_the_mobile_to_bob(office)
    away.keep_up()
    with office.database.reading() as session:
        assert {row.phone for row in session.scalars(select(models.ReservedPhone))} == {"ann", "ann_mob"}
    assert office.ask("two").destination == OVERFLOW
