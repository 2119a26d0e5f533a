"""All that decides and changes from call to call, as one statement reads it. Instants: microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson

from router.core import lifecycle
from router.core.model import Project
from router.db.session import CLOCK_STEP
from router.db.types import MICROSECOND

EARLIER_LIMIT = 100  # decisions of one call that are looked at, newest first
LONGEST_TALK = lifecycle.LONGEST_TALK // MICROSECOND

Row = TypeVar("Row", "AgentRow", "MemberRow")


class Earlier(NamedTuple):
    """A decision made before for the same call."""

    id: int
    step: str
    attempt: int
    asked_at: int
    destination: str
    agent_id: int | None
    sip_login: str
    outcome: str
    is_refused: bool = False  # we were told that the agent did not take it, while the call goes on
    caller: str = ""


class AgentRow(NamedTuple):
    """What an agent declared, and the clocks that calls change. Columns in the order in which they are stored with a
    decision; instants in µs."""

    agent_id: int
    status: str = "available"
    paused_until: int | None = None
    reserved_until: int | None = None  # by another call
    wrap_up_until: int | None = None
    cooling_until: int | None = None
    answered_today: int = 0
    day: str | None = None  # the local date that `answered_today` is of
    last_talk_end_at: int | None = None
    available_since_at: int | None = None
    talked_today: int = 0  # seconds, of the same `day`; a release that did not count them stored rows without


class MemberRow(NamedTuple):
    """A member's turn in a group, and then what an AgentRow holds."""

    group_id: int
    last_offered: int
    stood_at: Sequence[int] | int  # virtual time, weight, tier, left at, head start in seconds; releases stored fewer
    head_start: int | None
    head_start_day: str | None
    agent_id: int
    status: str
    paused_until: int | None
    reserved_until: int | None
    wrap_up_until: int | None
    cooling_until: int | None
    answered_today: int
    day: str | None
    last_talk_end_at: int | None
    available_since_at: int | None
    talked_today: int = 0

    @property
    def agent(self) -> AgentRow:
        """Return the agent's state alone."""
        return AgentRow._make(self[5:])

    def with_agent(self, agent: AgentRow) -> MemberRow:
        """Return the same turn, of an agent in this state."""
        return MemberRow._make((*self[:5], *agent))


class State(NamedTuple):
    """All that decides and changes from call to call, as read under the locks."""

    now: int
    version: int
    snapshot_id: int | None
    began_at: int | None
    presence: tuple[list[str], list[str]] | None  # online, speaking; None: as in the snapshot already known
    earlier: list[Earlier]  # oldest first
    events: dict[str, bool]  # who talks, or not any more, by what was heard since the snapshot
    members: list[MemberRow]
    agents: list[AgentRow]  # of agents asked for by id

    def reserved(self) -> set[int]:
        """Return the ids of the agents who are promised to other calls."""
        rows: list[AgentRow | MemberRow] = [*self.members, *self.agents]
        return {row.agent_id for row in rows if (row.reserved_until or 0) > self.now}


def promised(state: State, until: Mapping[int, int]) -> State:
    """Return the state with these agents reserved for so long at least."""

    def rows(found: list[Row]) -> list[Row]:
        return [
            row._replace(reserved_until=until[row.agent_id])
            if until.get(row.agent_id, 0) > (row.reserved_until or 0)
            else row
            for row in found
        ]

    return state._replace(members=rows(state.members), agents=rows(state.agents)) if until else state


def state_of(project: Project, row: Sequence[Any] | None) -> State:
    """Return the state of a row of READ. Raises LookupError when the project is gone."""
    if row is None:
        raise LookupError("the project is gone")
    now, version, snapshot_id, began_at, presence, earlier, events, members, agents, phones = row
    # Whoever owns a promised phone is promised until then: perhaps it was somebody else's before.
    until: dict[int, int] = {}
    for phone, expires_at in orjson.loads(phones) if phones else ():
        for agent_id in project.phone_owners.get(phone, ()):
            until[agent_id] = max(expires_at, until.get(agent_id, 0))
    state = State(
        now,
        version,
        snapshot_id,
        began_at,
        None if presence is None else tuple(orjson.loads(presence)),
        [Earlier(*values) for values in reversed(orjson.loads(earlier))] if earlier else [],
        {login: bool(talks) for login, talks in orjson.loads(events)} if events else {},
        list(map(MemberRow._make, orjson.loads(members))) if members else [],
        list(map(AgentRow._make, orjson.loads(agents))) if agents else [],
    )
    return promised(state, until)


# ---- the statement

_AGENT = (
    "a.agent_id, a.status, a.paused_until, r.expires_at, a.wrap_up_until, a.cooling_until, a.answered_today, a.day,"
    " a.last_talk_end_at, a.available_since_at, a.talked_today"
)
_MEMBER = (
    "c.group_id, c.last_offered, %(array)s(c.virtual_time, c.weight, c.tier, c.left_at, c.head_start_seconds),"
    f" c.head_start, c.day, {_AGENT}"
)

# A lease of the same call does not stand in its own way. Calls without an id are all different.
_LEASED = "LEFT JOIN reservations r ON r.agent_id = a.agent_id AND (r.call_id <> :call_id OR r.call_id = '')"

_READ = f"""
SELECT %(now)s, p.version, pr.snapshot_id, pr.began_at,
  CASE WHEN pr.snapshot_id = :known_snapshot THEN NULL ELSE
    (SELECT %(pair)s FROM presence_snapshots s WHERE s.id = pr.snapshot_id) END,
  (SELECT %(rows)sd.id, d.step, d.attempt, d.asked_at, d.destination, d.agent_id, d.sip_login, d.outcome,
      d.agent_id IS NOT NULL AND d.outcome IN ('busy', 'no_answer', 'failed') AND NOT d.inferred AND NOT EXISTS
        (SELECT 1 FROM heard_calls h WHERE h.project_id = d.project_id AND h.call_id = d.call_id
          AND h.ended_at IS NOT NULL) AND NOT EXISTS
        (SELECT 1 FROM decisions o WHERE o.project_id = d.project_id AND o.call_id = d.call_id AND o.call_id <> ''
          AND o.outcome = 'answered' AND o.ended_at IS NULL AND o.answered_at >= d.asked_at), d.caller%(end)s
    FROM (SELECT * FROM decisions WHERE project_id = :project AND call_id = :call_id AND call_id <> ''
          ORDER BY id DESC LIMIT {EARLIER_LIMIT}) d),
  (SELECT %(rows)sl.login, l.event_speaking%(end)s FROM login_states l
    WHERE l.project_id = :project AND l.event_at > %(now)s - {LONGEST_TALK}
      AND (pr.began_at IS NULL OR l.event_at > pr.began_at OR pr.began_at > %(now)s + {CLOCK_STEP // MICROSECOND})),
  (SELECT %(rows)s{_MEMBER}%(end)s FROM member_clocks c JOIN agent_states a ON a.agent_id = c.agent_id {_LEASED}
    WHERE c.group_id %(in_groups)s),
  (SELECT %(rows)s{_AGENT}%(end)s FROM agent_states a {_LEASED} WHERE a.agent_id %(in_agents)s),
  (SELECT %(rows)sf.phone, f.expires_at%(end)s FROM reserved_phones f
    WHERE f.project_id = :project AND f.expires_at > %(now)s AND (f.call_id <> :call_id OR f.call_id = ''))
FROM projects p LEFT JOIN presence pr ON pr.project_id = p.id WHERE p.id = :project
"""

READ_SQLITE = _READ % {
    "now": ":now",
    "rows": "json_group_array(json_array(",
    "end": "))",
    "array": "json_array",
    "pair": "json_array(json(s.online), json(s.speaking))",
    "in_groups": "IN (SELECT value FROM json_each(:group_ids))",
    "in_agents": "IN (SELECT value FROM json_each(:agent_ids))",
}
READ_POSTGRES = _READ % {
    "now": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",  # now() would be the time before the locks
    "rows": "json_agg(json_build_array(",
    "end": "))::text",
    "array": "json_build_array",
    "pair": "json_build_array(s.online, s.speaking)::text",
    "in_groups": "= ANY(:group_ids::int[])",
    "in_agents": "= ANY(:agent_ids::int[])",
}
