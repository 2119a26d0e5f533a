"""A working day at acme: Alice is free, Bob is on a call, Carol is on a break, Dave is offline; calls come in."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from router.core.events import CallEvent
from router.db import models, queries
from router.hook.fields import HookSettings
from router.hook.formats import FORMATS
from router.hook.wire import RawRequest
from router.presence.events import apply_event
from router.presence.readings import Readings
from router.presence.source import Reading
from router.routing.known import Routed
from router.routing.route import Routing
from tests.admin.conftest import Admin

CONFIG = """
projects:
  - name: acme
    time_zone: Europe/Kyiv
    overflow: "380441234567"
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, fresh_seconds: 60, last_known_seconds: 600}
    schedules:
      - {name: office hours, open: {mon-fri: ["09:00-18:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice, acme_alice_mob], wrap_up_seconds: 10}
      - {name: Bob, sip_logins: [acme_bob], daily_cap: 80}
      - {name: Carol, sip_logins: [acme_carol]}
      - {name: Dave, sip_logins: [acme_dave]}
    groups:
      - {name: sales, strategy: round_robin, members: [{agent: Alice}, {agent: Bob}, {agent: Carol}, {agent: Dave}]}
      - {name: vip, strategy: priority, members: [{agent: Bob}]}
    rules:
      - {name: VIP, when: {caller: ["+38067*"]}, groups: [vip, sales]}
      - {name: from adverts, when: {params: {utm_source: [google, bing]}}, groups: [sales], overflow: "380671112233"}
      - {name: everyone, groups: [sales]}
"""

ONLINE = {"acme_alice", "acme_bob", "acme_carol"}
SPEAKING = {"acme_bob"}
_numbers = itertools.count(1)


class Day:
    """What happens at acme, written as the service itself would write it."""

    def __init__(self, admin: Admin, config: str = CONFIG) -> None:
        self.admin, self.database = admin, admin.database
        admin.configure(config)
        self.project_id: int = admin.one(models.Project, name="acme").id
        self.agents: dict[str, int] = {row.name: row.id for row in admin.all(models.Agent, project_id=self.project_id)}
        with self.database.writing() as session:
            session.add(models.Presence(project_id=self.project_id))
        self._readings = Readings(self.database)
        self.see()
        self.declare("Carol", status="on_break", status_since_at=datetime.now(UTC) - timedelta(minutes=5))

    def see(
        self,
        online: Collection[str] = frozenset(ONLINE),
        speaking: Collection[str] = frozenset(SPEAKING),
        *,
        ago: timedelta = timedelta(0),
    ) -> None:
        """The source says who is online and speaking."""
        now = datetime.now(UTC)
        with self.database.writing() as session:
            session.execute(update(models.Presence).values(began_at=None))
        kept = self._readings.keep(
            self.project_id,
            Reading(frozenset(online), frozenset(speaking)),
            began_at=now - ago,
            now=now,
            took=timedelta(milliseconds=80),
            next_poll_at=now,
        )
        assert kept

    def declare(self, name: str, **values: Any) -> None:
        """Set columns of an agent's state."""
        with self.database.writing() as session:
            session.execute(
                update(models.AgentState).where(models.AgentState.agent_id == self.agents[name]).values(values)
            )

    def state(self, name: str) -> models.AgentState:
        row: models.AgentState = self.admin.one(models.AgentState, agent_id=self.agents[name])
        return row

    def call(
        self,
        caller: str = "380501112233",
        *,
        dialed: str = "380441112233",
        call_id: str | None = None,
        step: str = "webhookNumber:1",
        params: dict[str, str] | None = None,
    ) -> Routed:
        """A call comes in and is routed, as the hook does it."""
        call_id = f"call-{next(_numbers)}" if call_id is None else call_id
        sent = {"call_id": call_id, "step_forward": step, "userfield": caller, "dst": dialed, **(params or {})}
        body = "&".join(f"{name}={value}" for name, value in sent.items())
        raw = RawRequest(method="POST", content_type="application/x-www-form-urlencoded", body=body.encode())
        question = FORMATS["ringostat"].parse_call(raw, HookSettings())
        received = {
            "method": "POST", "query": "", "content_type": raw.content_type, "body": body, "remote": "203.0.113.7",
            "user_agent": "ringostat HTTP Client v1.1", "form": question.form, "understood": dict(question.understood),
            "problems": [problem.as_json() for problem in question.problems],
        }  # fmt: skip
        return Routing(self.database).route_call(
            self.project_id, question.call, deadline=time.monotonic() + 60, received=received
        )

    def hear(self, kind: str, call_id: str, login: str, **more: str) -> None:
        """An event of a call."""
        body = "&".join(
            f"{name}={value}"
            for name, value in {"event": kind, "cdr_id": call_id, "connected_with": login, **more}.items()
        )
        raw = RawRequest(method="POST", content_type="application/x-www-form-urlencoded", body=body.encode())
        event: CallEvent = FORMATS["ringostat"].parse_event(raw, HookSettings())
        with self.database.reading() as session:
            project = queries.load_published(session, self.project_id).project
        apply_event(self.database, project, event)

    def decision(self, decision_id: int) -> models.Decision:
        row: models.Decision = self.admin.one(models.Decision, id=decision_id)
        return row

    def log(self, **values: Any) -> int:
        """A decision put straight into the log; its id."""
        number = next(_numbers)
        row: dict[str, Any] = {
            "project_id": self.project_id, "call_id": f"logged-{number}", "step": "", "attempt": 0,
            "asked_at": datetime.now(UTC), "caller": "380501112233", "dialed": "380441112233", "rule_id": None,
            "group_id": None, "agent_id": None, "sip_login": "", "destination": "380441234567", "result": "overflow",
            "config_version": 2, "latency_us": 1500,
            "record": {
                "call": {"step": "", "caller": "", "dialed": "", "direction": "", "params": {}},
                "received": None, "inputs": None, "trials": [], "answer": ["project", "no_rule"],
            },
        }  # fmt: skip
        if values.get("agent_id"):
            row |= {"result": "offer", "sip_login": "acme_alice", "destination": "acme_alice"}
        decision = models.Decision(**(row | values))
        with self.database.writing() as session:
            session.add(decision)
        return decision.id
