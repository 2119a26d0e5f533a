"""A project with the usual cast in a real database: Alice is free, Bob is on a call, Carol is on a break, Dave is away.

Calls are routed as the hook routes them, so that decisions and reservations are those of the product.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import select, update

from router.core import model
from router.core.events import CallEvent, Disposition, EventKind
from router.db import models, queries
from router.db.records import Record, record_of
from router.db.session import Database
from router.db.types import use_encryption_keys
from router.presence.readings import Readings
from router.presence.source import Reading
from router.routing.route import Routing
from tests.rows import changing, publish

CAST = {
    "Alice": ("acme_alice", "acme_alice_mob"),
    "Bob": ("acme_bob",),
    "Carol": ("acme_carol",),
    "Dave": ("acme_dave",),
}
ONLINE = frozenset({"acme_alice", "acme_bob", "acme_carol"})
SPEAKING = frozenset({"acme_bob"})
ALICE, ALICE_MOBILE, BOB, CAROL, DAVE = "acme_alice", "acme_alice_mob", "acme_bob", "acme_carol", "acme_dave"
NIGHT_DESK = "380441234567"
FRESH = 30.0  # seconds, so that no reading grows stale while the machine stands still

ENCRYPTION_KEY = Fernet.generate_key().decode()


class Office:
    """One project in one database."""

    def __init__(self, database: Database, project_id: int) -> None:
        use_encryption_keys([ENCRYPTION_KEY])  # not once for all: tests of other modules set theirs in between
        self.database = database
        self.project_id = project_id
        with database.reading() as session:
            self.agents = {agent.name: agent.id for agent in session.scalars(select(models.Agent))}
        self.routing = Routing(database)

    @classmethod
    def found(cls, database: Database, *, wrap_up: float = 10, time_zone: str = "Europe/Kyiv") -> Office:
        """Made in a database that has none."""
        with database.writing() as session:
            project = models.Project(
                name="acme",
                created_at=datetime.now(UTC),
                overflow=NIGHT_DESK,
                time_zone=time_zone,
                presence_fresh_seconds=FRESH,
            )
            session.add(project)
            session.flush()
            agents = {}
            for name, logins in CAST.items():
                agent = models.Agent(project_id=project.id, name=name, wrap_up_seconds=wrap_up)
                agent.sip_logins = [
                    models.SipLogin(project_id=project.id, login=login, position=n) for n, login in enumerate(logins)
                ]
                session.add(agent)
                session.flush()
                agents[name] = agent.id
            group = models.Group(project_id=project.id, name="sales", strategy="round_robin", ring_seconds=25)
            group.members = [models.Member(agent_id=agent, position=n) for n, agent in enumerate(agents.values())]
            session.add(group)
            session.flush()
            rule = models.Rule(project_id=project.id, name="everyone")
            rule.groups = [models.RuleGroup(group_id=group.id)]
            session.add(rule)
            session.add(models.Presence(project_id=project.id))
            publish(session, project.id, "test")
            carol = update(models.AgentState).where(models.AgentState.agent_id == agents["Carol"])
            session.execute(carol.values(status="on_break"))
            project_id = project.id
        return cls(database, project_id)

    @property
    def project(self) -> model.Project:
        with self.database.reading() as session:
            return queries.load_published(session, self.project_id).project

    def now(self) -> datetime:
        with self.database.reading() as session:
            return self.database.now(session)

    def configure(self, **settings: Any) -> None:
        """Change settings of the project as its page does."""
        with changing(self.database, self.project_id, "test") as session:
            project = session.get_one(models.Project, self.project_id)
            for name, value in settings.items():
                setattr(project, name, value)

    def see(
        self, *, online: frozenset[str] = ONLINE, speaking: frozenset[str] = SPEAKING, at: datetime | None = None
    ) -> bool:
        """A reading that began at this instant."""
        began_at = at or self.now()
        return Readings(self.database).keep(
            self.project_id,
            Reading(online, speaking),
            began_at=began_at,
            now=began_at,
            took=timedelta(milliseconds=80),
            next_poll_at=began_at + timedelta(seconds=2),
        )

    def ask(self, call_id: str, step: str = "", caller: str = "380501112233") -> str:
        """A call comes in: where is it sent?"""
        call = model.Call(call_id=call_id, step=step, caller=caller, dialed="380441112233")
        return self.routing.route_call(self.project_id, call, deadline=time.monotonic() + 60).destination

    def decisions(self, call_id: str) -> list[models.Decision]:
        with self.database.reading() as session:
            found = select(models.Decision).where(models.Decision.call_id == call_id).order_by(models.Decision.id)
            return list(session.scalars(found))

    def decision(self, call_id: str) -> models.Decision:
        return self.decisions(call_id)[-1]

    def record(self, row: models.Decision) -> Record:
        """What was stored with a decision, as it is read."""
        with self.database.reading() as session:
            return record_of(session, row)

    def agent(self, name: str) -> models.AgentState:
        with self.database.reading() as session:
            return session.get_one(models.AgentState, self.agents[name])

    def login(self, login: str) -> models.LoginState | None:
        with self.database.reading() as session:
            return session.get(models.LoginState, (self.project_id, login))

    def presence(self) -> models.Presence:
        with self.database.reading() as session:
            return session.get_one(models.Presence, self.project_id)

    def reserved(self) -> list[str]:
        """The logins that are reserved, in order."""
        with self.database.reading() as session:
            return sorted(session.scalars(select(models.Reservation.sip_login)))

    def speaking_by_events(self) -> set[str]:
        with self.database.reading() as session:
            said = select(models.LoginState.login).where(models.LoginState.event_speaking.is_(True))
            return set(session.scalars(said))

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows that events and settlement may write, to see that nothing changed."""
        tables = (models.LoginState, models.AgentState, models.Decision, models.Reservation, models.HeardCall)
        with self.database.reading() as session:
            return {
                table.__tablename__: sorted(
                    (tuple(row) for row in session.execute(select(*table.__table__.columns))), key=repr
                )
                for table in tables
            }


@contextmanager
def opened_office(url: str, **settings: Any) -> Iterator[Office]:
    """The office with a reading of just now, in a migrated database."""
    database = Database(url)
    try:
        office = Office.found(database, **settings)
        office.see()
        yield office
    finally:
        database.dispose()


def pickup(call_id: str, login: str = ALICE, **fields: Any) -> CallEvent:
    return replace(CallEvent(EventKind.PICKUP, call_id, sip_login=login, direction="in"), **fields)


def after_call(call_id: str, login: str = ALICE, **fields: Any) -> CallEvent:
    event = CallEvent(EventKind.AFTER_CALL, call_id, sip_login=login, direction="in")
    said: dict[str, Any] = {"disposition": Disposition.ANSWERED, "billsec": 30, "duration": 35, "waittime": 5}
    return replace(event, **(said | fields))


def missed(call_id: str, login: str = "", **fields: Any) -> CallEvent:
    said: dict[str, Any] = {"disposition": Disposition.NO_ANSWER, "billsec": 0, "duration": 20, "waittime": 20}
    return after_call(call_id, login, **(said | fields))
