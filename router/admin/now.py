"""Compute the present state of a project: agents' states and the queues of groups. Reads only.

The functions that route calls compute it, so that pages always agree with them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.admin.page import context, current_configuration
from router.core.decision import candidates
from router.core.eligibility import Observed, login_state, observe, standing
from router.core.model import AgentState, Candidate, Project, Snapshot
from router.db.claim import question
from router.db.configuration import Document
from router.routing.record import Inputs, snapshot_of

_TIMEOUT_SECONDS = 2.0


class Now(NamedTuple):
    """A project's configuration and its present state."""

    project: Project
    document: Document
    snapshot: Snapshot
    observed: Observed

    def state(self, agent_id: int) -> str:
        """Return the agent's state for `ui.state`: "idle" when a call could be offered now, else why not."""
        agent = self.project.agents.get(agent_id)
        if agent is None:
            return "unknown"  # calls are routed by an earlier version of the configuration
        state = self.snapshot.agents.get(agent_id, AgentState())
        return standing(agent, state, self.observed, self.snapshot.now).shown

    def login_state(self, login: str) -> str:
        """Return the state of a SIP login: "speaking", "idle", "offline" or "unknown"."""
        return login_state(login, self.observed).value

    def queue(self, group_id: int) -> Sequence[Candidate]:
        """Return the candidates for a call that came to this group now, the eligible first, in their order."""
        group = self.project.groups.get(group_id)
        return [] if group is None else candidates(self.project, group, self.snapshot, self.observed)


def load_now(group_ids: Collection[int] | None = None) -> Now:
    """Return the current project's present state, in two reads of the database.

    `group_ids`: the groups whose queues are needed; None: all.
    """
    database = context().database
    with database.reading() as session:
        document, project, _fault = current_configuration(session)
    with question(database, deadline=time.monotonic() + _TIMEOUT_SECONDS, is_locked=False) as transaction:
        state = transaction.read(
            project=project,
            call_id="",
            group_ids=list(project.groups if group_ids is None else group_ids),
            agent_ids=list(project.agents),
            known_snapshot=0,
        )
    online, speaking = state.presence or ([], [])
    inputs = Inputs(state.now, state.began_at, state.events, state.agents, state.members)
    snapshot = snapshot_of(inputs, frozenset(online), frozenset(speaking), ZoneInfo(project.time_zone))
    return Now(project, document, snapshot, observe(project, snapshot.presence))
