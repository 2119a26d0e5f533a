"""A configured project in a real database, for tests of what happens to calls: agents, groups, rules, what is seen."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, delete, select, type_coerce, update
from sqlalchemy.orm import Session

from router.core.model import Call
from router.db import models
from router.db.records import Record, record_of
from router.db.session import Database
from router.routing.known import Routed
from router.routing.outbox import Outbox
from router.routing.route import Refresh, Routing
from tests.rows import changing

OVERFLOW = "380440000000"
FREE = ["ann", "ben", "cat"]
PATIENCE = 60.0  # seconds; a slow machine fails no test
FRESH = 30.0  # seconds, so that no reading grows stale while the machine stands still


class World:
    """One project, "acme". Agents are named by their SIP login."""

    def __init__(self, url: str, folder: Path) -> None:
        self.database = Database(url, lock_seconds=PATIENCE, statement_seconds=PATIENCE)
        self._folder = folder
        self.project_id = 0

    def configure(
        self,
        *,
        agents: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
        groups: Mapping[str, Mapping[str, Any] | Sequence[str]] = {},
        rules: Sequence[Mapping[str, Any]] | None = None,
        **project: Any,
    ) -> None:
        """Make the project. Agents: names, or name → columns; groups: name → members, or columns and `members`; rules:
        columns, `groups` and `free_group` (names), by default one that asks all groups."""
        with self.database.writing() as session:
            given = {"overflow": OVERFLOW, "time_zone": "UTC", "presence_fresh_seconds": FRESH} | project
            row = models.Project(name="acme", created_at=datetime.now(UTC), **given)
            session.add(row)
            session.flush()
            self.project_id = row.id
        with self.change() as session:
            for name in agents:
                columns = dict(agents[name]) if isinstance(agents, Mapping) else {}
                logins = columns.pop("logins", [name])
                deputy = columns.pop("deputy", None)
                agent = models.Agent(project_id=row.id, name=name, **columns)
                agent.sip_logins = [
                    models.SipLogin(project_id=row.id, login=login, position=n) for n, login in enumerate(logins)
                ]
                if deputy is not None:
                    agent.deputy_id = self.agent_id(session, deputy)
                session.add(agent)
                session.flush()
            for position, (name, settings) in enumerate(groups.items()):
                columns = dict(settings) if isinstance(settings, Mapping) else {"members": settings}
                self.add_group(session, name, columns.pop("members", ()), position=position, **columns)
            if rules is None:
                rules = [{"name": "everyone", "groups": list(groups)}]
            for position, rule in enumerate(rules):
                self.add_rule(session, position=position, **rule)

    def add_group(
        self, session: Session, name: str, members: Sequence[str | Mapping[str, Any]], **columns: Any
    ) -> models.Group:
        group = models.Group(project_id=self.project_id, name=name, **columns)
        for position, member in enumerate(members):
            settings: dict[str, Any] = {"agent": member} if isinstance(member, str) else dict(member)
            agent_id = self.agent_id(session, settings.pop("agent"))
            group.members.append(models.Member(agent_id=agent_id, position=position, **settings))
        session.add(group)
        session.flush()
        return group

    def add_rule(
        self, session: Session, *, groups: Sequence[str] = (), free_group: str = "", **columns: Any
    ) -> models.Rule:
        links = [
            models.RuleGroup(group_id=self.group_id(session, name), position=position)
            for position, name in enumerate(groups)
        ]
        free_group_id = self.group_id(session, free_group) if free_group else None
        rule = models.Rule(project_id=self.project_id, groups=links, free_group_id=free_group_id, **columns)
        session.add(rule)
        session.flush()
        return rule

    @contextmanager
    def change(self) -> Iterator[Session]:
        """Change the configuration: published at the end."""
        with changing(self.database, self.project_id, "test") as session:
            yield session

    def agent_id(self, session: Session, name: str) -> int:
        return session.scalars(select(models.Agent.id).where(models.Agent.name == name)).one()

    def group_id(self, session: Session, name: str) -> int:
        return session.scalars(select(models.Group.id).where(models.Group.name == name)).one()

    def see(self, online: Sequence[str], speaking: Sequence[str] = (), *, age: float = 0) -> None:
        """What the source said `age` seconds ago."""
        with self.database.writing() as session:
            began_at = self.database.now(session) - timedelta(seconds=age)
            reading = models.PresenceSnapshot(
                project_id=self.project_id, began_at=began_at, online=list(online), speaking=list(speaking)
            )
            session.add(reading)
            session.flush()
            presence = session.get(models.Presence, self.project_id) or models.Presence(project_id=self.project_id)
            presence.snapshot_id, presence.began_at = reading.id, began_at
            session.add(presence)

    def hear(self, login: str, *, speaking: bool) -> None:
        """What a call event said just now."""
        with self.database.writing() as session:
            now = self.database.now(session)
            session.merge(
                models.LoginState(
                    project_id=self.project_id, login=login, since_at=now, event_speaking=speaking, event_at=now
                )
            )

    def declare(self, agent: str, **columns: Any) -> None:
        """Set columns of an agent's state."""
        with self.database.writing() as session:
            state = session.get_one(models.AgentState, self.agent_id(session, agent))
            for name, value in columns.items():
                setattr(state, name, value)

    def later(self, seconds: float) -> None:
        """As if what was answered and promised so far had been so many seconds earlier."""
        with self.database.writing() as session:
            for column in (
                models.Decision.asked_at,
                models.Reservation.claimed_at,
                models.Reservation.expires_at,
                models.ReservedPhone.expires_at,
                models.AgentState.cooling_until,
            ):
                earlier = type_coerce(column, BigInteger) - int(seconds * 1_000_000)
                session.execute(update(column.class_).values({column.key: type_coerce(earlier, column.type)}))

    def routing(self, refresh: Refresh | None = None) -> Routing:
        """A process of its own, as far as its memory goes."""
        return Routing(self.database, refresh, Outbox(self._folder, "acme"))

    def ask(self, call_id: str = "", step: str = "", *, routing: Routing | None = None, **call: Any) -> Routed:
        asked = Call(call_id=call_id, step=step, **{"caller": "380501112233", "dialed": "380441112233"} | call)
        return (routing or self.routing()).route_call(self.project_id, asked, deadline=time.monotonic() + PATIENCE)

    def decisions(self) -> list[models.Decision]:
        with self.database.reading() as session:
            return list(session.scalars(select(models.Decision).order_by(models.Decision.id)))

    def record(self, row: models.Decision) -> Record:
        """What was stored with a decision, as it is read."""
        with self.database.reading() as session:
            return record_of(session, row)

    def decision(self, decision_id: int) -> models.Decision:
        with self.database.reading() as session:
            return session.get_one(models.Decision, decision_id)

    def reservations(self) -> dict[str, models.Reservation]:
        with self.database.reading() as session:
            return {row.sip_login: row for row in session.scalars(select(models.Reservation))}

    def state(self, agent: str) -> models.AgentState:
        with self.database.reading() as session:
            return session.get_one(models.AgentState, self.agent_id(session, agent))

    def free_everybody(self) -> None:
        with self.database.writing() as session:
            session.execute(delete(models.Reservation))

    def skips(self, routed: Routed, trial: int = 0) -> dict[str, str]:
        """login or agent's name → skip reason, "" for the eligible, as stored with the decision."""
        with self.database.reading() as session:
            names = {row.id: row.name for row in session.scalars(select(models.Agent))}
            record = record_of(session, session.get_one(models.Decision, routed.decision_id))
        return {names[agent_id]: skip or "" for agent_id, _, skip, *_ in record["trials"][trial][1]}


@contextmanager
def world_at(url: str, folder: Path) -> Iterator[World]:
    world = World(url, folder)
    try:
        yield world
    finally:
        world.database.dispose()


def destinations(answers: list[Routed]) -> list[str]:
    return [answer.destination for answer in answers]


def the_agent_is_deleted(world: World) -> None:
    with world.change() as session:
        for group in session.scalars(select(models.Group)):
            del group.members[0]
        session.delete(session.scalars(select(models.Agent).where(models.Agent.name == "ann")).one())


def without_database(world: World) -> Routing:
    """Another process of the host, which knows the project and finds the database away."""
    routing = world.routing()
    routing.keep_up()
    routing.outbox.open_breaker()
    return routing
