"""What a process knows by itself, and what it answers from while the database is away.

It remembers each project's configuration, the newest presence and clocks that it read, whom it promised, and what it
answered. Such answers are marked as degraded, kept in a bounded spool and written down when the database is back.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from router.core.model import Offer
from router.db.queries import Published
from router.db.reservations import Earlier, Lease, State

SPOOL_LIMIT = 10_000  # decisions; at ten a second, a quarter of an hour without a database
CALLS_REMEMBERED = 2_000  # per project: their copies and next steps are told from new calls
_PAUSE_SECONDS = 1.0  # after a failure the database is left alone for this long, so that callers do not wait for it


@dataclass(slots=True)
class Known:
    """What this process knows of a project."""

    published: Published
    zone: ZoneInfo
    snapshot_id: int = 0
    online: frozenset[str] = frozenset()
    speaking: frozenset[str] = frozenset()
    began_at: int | None = None
    members: dict[tuple[int, int], Sequence[Any]] = field(default_factory=dict)  # by (group, agent): MEMBER_COLUMNS
    promised: dict[int, tuple[str, int]] = field(default_factory=dict)  # by agent: call id, expires_at
    calls: OrderedDict[str, list[Earlier]] = field(default_factory=OrderedDict)

    def learn(self, state: State) -> None:
        """Keep what was read."""
        self.began_at = state.began_at
        if state.presence is not None and state.snapshot_id is not None:
            self.online, self.speaking = frozenset(state.presence[0]), frozenset(state.presence[1])
            self.snapshot_id = state.snapshot_id
        for row in state.members:
            self.members[row[0], row[5]] = row

    def remember(self, decision: dict[str, Any], lease: Lease | None, decision_id: int) -> None:
        """Keep what was answered, whether or not it could be written down."""
        if lease is not None:
            self.promised[lease.agent_id] = (decision["call_id"], lease.expires_at)
        if call_id := decision["call_id"]:
            answers = self.calls.setdefault(call_id, [])
            answers.append(
                Earlier(
                    decision_id,
                    decision["step"],
                    decision["attempt"],
                    decision["asked_at"],
                    decision["destination"],
                    decision["agent_id"],
                    decision["sip_login"],
                    "",
                )
            )
            if len(self.calls) > CALLS_REMEMBERED:
                self.calls.popitem(last=False)

    def state(self, call_id: str, group_ids: Iterable[int]) -> State:
        """What would have been read, as far as this process knows it."""
        now = time.time_ns() // 1000
        wanted = set(group_ids)
        return State(
            now=now,
            version=self.published.project.version,
            snapshot_id=self.snapshot_id or None,
            began_at=self.began_at,
            presence=None,
            earlier=list(self.calls.get(call_id, ())) if call_id else [],
            events=[],
            members=[
                self._as_promised(row, call_id, now)
                for (group_id, _), row in self.members.items()
                if group_id in wanted
            ],
            agents=[],
        )

    def _as_promised(self, row: Sequence[Any], call_id: str, now: int) -> list[Any]:
        """The row with this process's own promise, which may be newer than what was last read."""
        promised_to, until = self.promised.get(row[5], ("", 0))
        own = until if promised_to != call_id or not call_id else 0
        return [*row[:8], max(own, row[8] or 0) or None, *row[9:]]

    def advance(self, offer: Offer, day: str) -> None:
        """Move the member's clock on, so that turns go on while nothing can be written."""
        if offer.group_id is None or offer.clock is None:
            return
        key = (offer.group_id, offer.agent_id)
        row = self.members.get(key)
        agent = list(row[5:]) if row is not None else [offer.agent_id, "available", *[None] * 4, 0, None, None, None]
        clock = offer.clock
        self.members[key] = [offer.group_id, clock.last_offered, clock.virtual_time, clock.head_start, day, *agent]


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
    """Degraded decisions that wait to be written, oldest first. The oldest is dropped when it is full."""

    def __init__(self) -> None:
        self._rows: deque[tuple[dict[str, Any], Lease | None]] = deque(maxlen=SPOOL_LIMIT)
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decision: dict[str, Any], lease: Lease | None) -> None:
        with self._lock:
            if len(self._rows) == SPOOL_LIMIT:
                self.dropped += 1
            self._rows.append((decision, lease))

    def take(self, limit: int) -> list[tuple[dict[str, Any], Lease | None]]:
        """The oldest, out of the spool: who cannot write them puts them back."""
        with self._lock:
            return [self._rows.popleft() for _ in range(min(limit, len(self._rows)))]

    def take_live(self, now: int) -> list[tuple[dict[str, Any], Lease | None]]:
        """Those whose promise still holds: they must be known to all before the next agent is claimed."""
        with self._lock:
            live = [row for row in self._rows if row[1] is not None and row[1].expires_at > now]
            if live:
                kept = [row for row in self._rows if row[1] is None or row[1].expires_at <= now]
                self._rows.clear()
                self._rows.extend(kept)
            return live

    def put_back(self, rows: Sequence[tuple[dict[str, Any], Lease | None]]) -> None:
        with self._lock:
            self._rows.extendleft(reversed(rows))
