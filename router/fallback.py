"""What a process knows by itself, and what it answers from while the database is away.

It remembers each project's configuration, the newest presence and clocks that it read, whom it promised, and what it
answered. Such answers are marked as degraded, kept in a bounded spool and written down when the database is back. What
the processes of one host must tell each other meanwhile is in host_memory.py.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson

from router.core.model import Offer, Project
from router.db.configuration import build_project
from router.db.queries import Published
from router.db.reservations import Earlier, Lease, State, phone_key, promised_keys
from router.db.types import MICROSECOND, from_micros, to_micros
from router.host_memory import Shared
from router.host_store import HostStore, Spooled
from router.log import log
from router.metrics import SPOOL_DROPPED, SPOOLED

SPOOL_LIMIT = 10_000  # decisions; at ten a second, a quarter of an hour without a database
CALLS_REMEMBERED = 2_000  # per project: their copies and next steps are told from new calls
_SAVED_AT_ONCE = 100
_PAUSE_SECONDS = 1.0  # after a failure the database is left alone for this long, so that callers do not wait for it


class Seen(NamedTuple):
    """One reading of a project's source. Replaced as a whole: another thread may learn of the next one meanwhile."""

    snapshot_id: int = 0
    online: frozenset[str] = frozenset()
    speaking: frozenset[str] = frozenset()


@dataclass(slots=True)
class Known:
    """What this process knows of a project."""

    published: Published
    zone: ZoneInfo
    seen: Seen = field(default_factory=Seen)
    began_at: int | None = None
    events: Sequence[Sequence[Any]] = ()  # [login, speaking] heard since the reading
    clocks: dict[tuple[int, int], Sequence[Any]] = field(default_factory=dict)  # by (group, agent): see State
    agents: dict[int, Sequence[Any]] = field(default_factory=dict)  # by agent: AGENT_COLUMNS
    promised: dict[int, tuple[str, int]] = field(default_factory=dict)  # by `promised_keys`: call id, expires_at
    phone_owners: tuple[Project, Mapping[int, tuple[int, ...]]] | None = None  # agents' ids by `phone_key`
    calls: OrderedDict[str, list[Earlier]] = field(default_factory=OrderedDict)
    refresh_at: float = 0.0  # time.monotonic(); see `refreshed`

    def dump(self) -> bytes:
        """As `load` reads it; without what the host knows anyhow: who was promised, and what was answered."""
        published, seen = self.published, self.seen
        return orjson.dumps(
            {
                "version": published.project.version,
                "published": published.version,
                "fault": published.fault,
                "document": published.document,
                "tokens": {token: until and to_micros(until) for token, until in published.tokens.items()},
                "basic_auth": published.basic_auth if isinstance(published.basic_auth, str) else None,
                "seen": [seen.snapshot_id, sorted(seen.online), sorted(seen.speaking)],
                "began_at": self.began_at,
                "events": self.events,
                "clocks": [[*place, clock] for place, clock in list(self.clocks.items())],
                "agents": list(self.agents.values()),
            }
        )

    @classmethod
    def load(cls, project_id: int, text: bytes) -> Known:
        """What another process of the host knew. Raises on what this release cannot read."""
        found = orjson.loads(text)
        published = Published(
            project=build_project(found["document"], project_id, found["version"]),
            document=found["document"],
            version=found.get("published", found["version"]),
            tokens={token: until and from_micros(until) for token, until in found["tokens"].items()},
            basic_auth=found["basic_auth"],
            fault=found.get("fault", ""),
        )
        snapshot_id, online, speaking = found["seen"]
        return cls(
            published,
            ZoneInfo(published.project.time_zone),
            Seen(snapshot_id, frozenset(online), frozenset(speaking)),
            found["began_at"],
            found["events"],
            {(group_id, agent_id): clock for group_id, agent_id, clock in found["clocks"]},
            {agent[0]: agent for agent in found["agents"]},
        )

    def may_refresh(self) -> bool:
        """May a call wait for its source now? While the source has no news, few calls should wait for it in vain."""
        return time.monotonic() >= self.refresh_at

    def refreshed(self, waited: float, *, news: bool) -> None:
        """A call waited for the source so many seconds. In vain: the next one does so after four times as long, so that
        most calls wait for nothing, and the first one after an outage that it is over is soon."""
        self.refresh_at = time.monotonic() + (0.0 if news else 4 * waited)

    def learn(self, state: State, seen: Seen) -> Seen:
        """Keep what was read; the reading that it refers to. `seen`: the one that it was asked with."""
        self.began_at = state.began_at
        if state.presence is not None and state.snapshot_id is not None:
            online, speaking = state.presence
            self.seen = seen = Seen(state.snapshot_id, frozenset(online), frozenset(speaking))
        self.events = state.events
        for group_id, last_offered, stood_at, head_start, day, *agent in state.members:
            self.clocks[group_id, agent[0]] = [group_id, last_offered, stood_at, head_start, day]
            self.agents[agent[0]] = agent
        for agent in state.agents:
            self.agents[agent[0]] = agent
        return seen

    def remember(self, decision: dict[str, Any], lease: Lease | None, decision_id: int) -> None:
        """Keep what was answered, whether or not it could be written down."""
        if lease is not None:
            promise = (decision["call_id"], lease.expires_at)
            self.promised |= dict.fromkeys(promised_keys(self.published.project.id, lease), promise)
        if call_id := decision["call_id"]:
            self.calls.setdefault(call_id, []).append(Earlier.of(decision, decision_id))
            if len(self.calls) > CALLS_REMEMBERED:
                self.calls.popitem(last=False)

    def state(self, call_id: str, group_ids: Iterable[int], agent_ids: Iterable[int], shared: Shared) -> State:
        """What would have been read, as far as this process and its host know it."""
        now = time.time_ns() // 1000
        project = self.published.project
        promised = self._promised_to_others(call_id, shared, now)
        wanted = set(group_ids)
        members = [(agent_id, clock) for (group_id, agent_id), clock in list(self.clocks.items()) if group_id in wanted]
        # Whoever is promised has a row, though nothing else be known of them: who has none is taken to be free.
        others = (promised.keys() | agent_ids) & project.agents.keys() - {agent_id for agent_id, _ in members}
        earlier = [*self.calls.get(call_id, ()), *shared.answers] if call_id else []
        # Who talks by either talks: neither tells which is newer.
        said = {login: talks for login, (talks, _) in shared.heard.items()}
        said |= {
            login: bool(talks) for login, talks in self.events if talks or login not in said
        }  # either may be newer
        return State(
            now=now,
            version=project.version,
            snapshot_id=self.seen.snapshot_id or None,
            began_at=self.began_at,
            presence=None,
            earlier=sorted(earlier, key=lambda one: one.asked_at),
            events=[[login, talks] for login, talks in said.items()],
            members=[[*clock, *self._agent(agent_id, promised, shared)] for agent_id, clock in members],
            agents=[self._agent(agent_id, promised, shared) for agent_id in sorted(others)],
            phones=[],  # whoever owns those is promised already
        )

    def _promised_to_others(self, call_id: str, shared: Shared, now: int) -> dict[int, int]:
        """Agent → until when, of the promises that hold and were made here or in other processes of this host: to the
        agent, or to anybody at a phone that is the agent's now."""
        found: dict[int, int] = {}
        project = self.published.project
        if self.phone_owners is None or self.phone_owners[0] is not project:
            keys = {phone_key(project.id, phone): agents for phone, agents in project.phone_owners.items()}
            self.phone_owners = (project, keys)
        owners = self.phone_owners[1]
        for key, (call, until) in [*list(self.promised.items()), *shared.promised.items()]:
            if until > now and (not call_id or call != call_id):
                for agent_id in owners.get(key, (key,)):
                    found[agent_id] = max(until, found.get(agent_id, 0))
        return found

    def _agent(self, agent_id: int, promised: Mapping[int, int], shared: Shared) -> list[Any]:
        """The agent's row with the promises made, and the talks ended, since it was read."""
        row = self.agents.get(agent_id) or [agent_id, "available", None, None, None, None, 0, None, None, None]
        reserved = max(row[3] or 0, promised.get(agent_id, 0))
        agent = self.published.project.agents.get(agent_id)
        wrap_up = row[4] or 0
        if agent is not None and agent.wrap_up:
            since = max((shared.heard.get(login, (True, 0))[1] for login in agent.sip_logins), default=0)
            wrap_up = max(wrap_up, since and since + agent.wrap_up // MICROSECOND)
        return [*row[:3], reserved or None, wrap_up or None, *row[5:]]

    def advance(self, offer: Offer, day: str) -> None:
        """Move the clocks of the group's members on, so that turns go on while nothing can be written."""
        if offer.group_id is None or offer.clock is None:
            return
        for agent_id, clock in [*offer.turns, (offer.agent_id, offer.clock)]:
            stands_at = [clock.virtual_time, clock.weight, clock.tier, clock.left_at]
            self.clocks[offer.group_id, agent_id] = [
                offer.group_id,
                clock.last_offered,
                stands_at,
                clock.head_start,
                day,
            ]


class Breaker:
    """After a failure the database is left alone for a moment; then one call tries it with little patience."""

    def __init__(self) -> None:
        self._closed_at = 0.0
        self._failed = False

    def share(self, budget_left: float) -> float:
        """How many seconds a call may spend on the database: 0 right after a failure, else a part of what is left."""
        if not self._failed:
            return budget_left / 2
        return 0.0 if time.monotonic() < self._closed_at else min(0.25, budget_left / 4)

    def failed(self) -> None:
        self._failed = True
        self._closed_at = time.monotonic() + _PAUSE_SECONDS

    def worked(self) -> None:
        self._failed = False


class Spool:
    """Degraded decisions that wait to be written. Where the host has room for them they outlive the process; else the
    oldest is dropped when there are too many.
    """

    def __init__(self, store: HostStore) -> None:
        self._store = store
        self._rows: deque[Spooled] = deque()  # of this process, oldest first; the store has what is filed
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        """Those of the whole host, as far as it is known here."""
        return sum(not row.is_filed for row in list(self._rows)) + self._store.count()

    def add(self, row: Spooled) -> None:
        with self._lock:
            while self._rows and self._rows[0].is_filed:
                self._rows.popleft()
            self._drop(len(self._rows) + 1 - SPOOL_LIMIT)
            self._rows.append(row)

    def save(self) -> None:
        """Leave to the other processes what this one alone has, should it be killed. It takes its time."""
        rows = self._first(_SAVED_AT_ONCE)
        if unfiled := [row for row in rows if not row.is_filed]:
            self._store.add(unfiled)
        self._put_first([row for row in unfiled if not row.is_filed])
        self._tell()

    def take(self, limit: int) -> list[Spooled]:
        """The oldest, out of the spool, until they are `written`, put back, or given up."""
        taken = [row for row in self._first(limit) if not row.is_filed]
        if not taken:
            taken, unreadable = self._store.take(limit)
            if unreadable:
                self._count_dropped(unreadable)
                log.error("spool: decisions cannot be read: the key was changed, or the release", count=unreadable)
        return taken

    def written(self, rows: Sequence[Spooled]) -> None:
        for row in rows:
            row.is_filed = True  # whoever still has it need not file it
        self._store.written(row.id for row in rows)
        self._tell()

    def put_back(self, rows: Sequence[Spooled]) -> None:
        self._store.put_back(row.id for row in rows)
        self._put_first([row for row in rows if not row.id])

    def give_up(self, row: Spooled) -> None:
        """It will never be written."""
        self._count_dropped(1)
        self.written([row])

    def _first(self, limit: int) -> list[Spooled]:
        with self._lock:
            return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    def _put_first(self, rows: Sequence[Spooled]) -> None:
        with self._lock:
            self._rows.extendleft(reversed(rows))
            self._drop(len(self._rows) - SPOOL_LIMIT)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._rows.popleft()
            self._count_dropped(1)

    def _count_dropped(self, count: int) -> None:
        self.dropped += count
        SPOOL_DROPPED.inc(count)

    def _tell(self) -> None:
        SPOOLED.set(len(self))
