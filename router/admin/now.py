"""What is true of a project at this moment: agents' states, who is next in a group. Asks, and changes nothing.

All of it comes from the functions that route calls, so that a page never says something else than the rules do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.admin.page import context, current_project
from router.core.decision import decide
from router.core.eligibility import Observed, device_state, observe, skip_reason
from router.core.model import AgentState, Call, Candidate, DeviceState, Project, Snapshot
from router.core.rules import Conditions, ParamTest, Rule
from router.db.configuration import Document, UnknownProjectError
from router.db.reservations import peek
from router.db.versions import configured
from router.routing import snapshot_of

_PATIENCE_SECONDS = 2.0


class Now(NamedTuple):
    """A project's configuration and everything that changes from call to call, read a moment ago."""

    project: Project
    document: Document
    snapshot: Snapshot
    observed: Observed

    def state(self, agent_id: int) -> str:
        """A name for `ui.state`: "idle" when a call could be offered now, else why not."""
        agent = self.project.agents[agent_id]
        state = self.snapshot.agents.get(agent_id, AgentState())
        device = device_state(agent, state, self.observed, self.snapshot.now)
        if device in (DeviceState.SPEAKING, DeviceState.RESERVED):
            return str(device)  # before anything else that may hold: it is what people ask first
        reason = skip_reason(agent, None, state, self.observed, self.snapshot.now)
        return str(reason or DeviceState.IDLE)

    def login_state(self, login: str) -> str:
        """The same for one SIP login: "speaking", "idle", "offline" or "unknown"."""
        if not self.observed.known:
            return "unknown"
        if login in self.observed.speaking:
            return "speaking"
        return "idle" if self.observed.online is None or login in self.observed.online else "offline"

    def queues(self, group_ids: Iterable[int]) -> dict[int, Sequence[Candidate]]:
        """For each group everybody considered for a call that came now: the eligible first, in their order."""

        def rule(group_id: int) -> Rule:
            return Rule(group_id, "", (group_id,), Conditions(params={"group": (ParamTest("equals", f"{group_id}"),)}))

        rules = {group_id: rule(group_id) for group_id in group_ids}
        project = replace(self.project, rules=tuple(rules.values()))
        return {
            group_id: decide(project, Call(params={"group": f"{group_id}"}), self.snapshot).trials[0].candidates
            for group_id in rules
        }


def load_now() -> Now:
    """The current project as it is now, by the configuration that this request found. Two reads, whatever its size."""
    database = context().database
    with database.reading() as session:
        published = configured(session, current_project().id, current_project().version)
    if published is None:
        raise UnknownProjectError(f"there is no project with id {current_project().id}")
    project = published.project
    state = peek(
        database,
        project=project.id,
        group_ids=list(project.groups),
        agent_ids=list(project.agents),
        known_snapshot=0,
        deadline=time.monotonic() + _PATIENCE_SECONDS,
    )
    online, speaking = state.presence or ([], [])
    inputs = {
        "now": state.now,
        "seed": "",
        "began_at": state.began_at,
        "events": state.events,
        "members": state.members,
        "agents": state.agents,
        "tried": [],
        "last_talk": None,
    }
    snapshot = snapshot_of(inputs, frozenset(online), frozenset(speaking), ZoneInfo(project.time_zone))
    observed = observe(
        snapshot.presence, fresh=project.fresh, when_unknown=project.when_unknown, last_known=project.last_known
    )
    return Now(project, published.document, snapshot, observed)
