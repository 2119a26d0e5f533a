"""What is true of a project at this moment: agents' states, who is next in a group. Asks, and changes nothing.

All of it comes from the functions that route calls, so that a page never says something else than the rules do.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from router.admin.page import context, current_configuration
from router.admin.standing import observed_by
from router.core.decision import candidates
from router.core.eligibility import Observed, login_state, standing
from router.core.model import LAWS, AgentState, Candidate, Project, Snapshot
from router.db.configuration import Document
from router.db.reservations import peek
from router.routing import snapshot_of

_PATIENCE_SECONDS = 2.0


class Now(NamedTuple):
    """A project's configuration and everything that changes from call to call, read a moment ago."""

    project: Project
    document: Document
    snapshot: Snapshot
    observed: Observed

    def state(self, agent_id: int) -> str:
        """A name for `ui.state`, as the board shows it: "idle" when a call could be offered now, else why not."""
        agent = self.project.agents.get(agent_id)
        if agent is None:
            return "unknown"  # calls go by an earlier version of the configuration
        state = self.snapshot.agents.get(agent_id, AgentState())
        return standing(agent, state, self.observed, self.snapshot.now).shown

    def login_state(self, login: str) -> str:
        """The same for one SIP login: "speaking", "idle", "offline" or "unknown"."""
        return login_state(login, self.observed).value

    def queue(self, group_id: int) -> Sequence[Candidate]:
        """Everybody considered for a call that came to this group now: the eligible first, in their order."""
        group = self.project.groups.get(group_id)
        return [] if group is None else candidates(self.project, group, self.snapshot, self.observed)


def load_now(group_ids: Collection[int] | None = None) -> Now:
    """The current project as it is now, by the configuration that this request found. Two reads, whatever its size.

    `group_ids`: whose queues will be asked for; None: of all.
    """
    database = context().database
    with database.reading() as session:
        document, project, _fault = current_configuration(session)
    state = peek(
        database,
        project=project.id,
        group_ids=list(project.groups if group_ids is None else group_ids),
        agent_ids=list(project.agents),
        known_snapshot=0,
        deadline=time.monotonic() + _PATIENCE_SECONDS,
    ).as_promised_to(project)
    online, speaking = state.presence or ([], [])
    inputs = {
        "laws": LAWS,
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
    return Now(project, document, snapshot, observed_by(project, snapshot))
