"""What a call reads and writes, as SQL for both databases. Instants are microseconds since the epoch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from router.core import lifecycle
from router.db import outcomes
from router.db.session import CLOCK_STEP, call_settings
from router.db.types import MICROSECOND

EARLIER_LIMIT = 100  # decisions of one call that are looked at, newest first
LONGEST_TALK = lifecycle.LONGEST_TALK // MICROSECOND


class Statement(NamedTuple):
    """SQL with `$n` for parameters, and their names in that order."""

    sql: bytes
    parameters: tuple[str, ...]
    is_prepared: bool  # statements on tables; not COMMIT, after which psycopg would forget the others


def read_statements(named_sql: Mapping[str, str]) -> dict[str, Statement]:
    """Return the statements for SQL with `:name` for parameters (`::type` is a cast)."""
    return {name: _statement(sql) for name, sql in named_sql.items()}


def _statement(sql: str) -> Statement:
    found: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${found.setdefault(match[1], len(found) + 1)}"

    text = re.sub(r"(?<!:):([a-z_]+)", number, sql).encode()
    return Statement(text, tuple(found), is_prepared=" " in sql and not sql.startswith("BEGIN"))


# ---- what is read

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
    WHERE f.project_id = :project AND f.expires_at > %(now)s AND (f.call_id <> :call_id OR f.call_id = '')),
  (SELECT coalesce((SELECT %(previous)s
      FROM (SELECT id, call_id, asked_at, outcome FROM decisions
            WHERE project_id = :project AND caller = :caller AND NOT is_test ORDER BY id DESC LIMIT {EARLIER_LIMIT}) d
      WHERE d.call_id <> :call_id OR d.call_id = '' ORDER BY d.id DESC LIMIT 1), '[]') WHERE :caller <> '')
FROM projects p LEFT JOIN presence pr ON pr.project_id = p.id WHERE p.id = :project
"""

# Counted, as PostgreSQL would hash all answered calls for an EXISTS here.
_PREVIOUS = """d.asked_at, d.outcome = 'answered' OR 0 < (SELECT count(*) FROM decisions o
        WHERE o.project_id = :project AND o.call_id = d.call_id AND o.call_id <> '' AND o.outcome = 'answered')"""
READ_SQLITE = _READ % {
    "now": ":now",
    "rows": "json_group_array(json_array(",
    "end": "))",
    "array": "json_array",
    "pair": "json_array(json(s.online), json(s.speaking))",
    "previous": f"json_array({_PREVIOUS})",
    "in_groups": "IN (SELECT value FROM json_each(:group_ids))",
    "in_agents": "IN (SELECT value FROM json_each(:agent_ids))",
}
READ_POSTGRES = _READ % {
    "now": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",  # now() would be the time before the locks
    "rows": "json_agg(json_build_array(",
    "end": "))::text",
    "array": "json_build_array",
    "pair": "json_build_array(s.online, s.speaking)::text",
    "previous": f"json_build_array({_PREVIOUS})::text",
    "in_groups": "= ANY(:group_ids::int[])",
    "in_agents": "= ANY(:agent_ids::int[])",
}


# ---- what is written

_DECISION = (
    "project_id, call_id, step, attempt, asked_at, caller, dialed, rule_id, group_id, agent_id, sip_login, destination,"
    " result, degraded, config_version, snapshot_id, latency_us, record, packed, outcome, inferred, answered_login,"
    " disposition"
)
_DECISION_VALUES = (
    ":project, :call_id, :step, :attempt, :asked_at, :caller, :dialed, :rule_id, :group_id, :agent_id, :sip_login,"
    " :destination, :result, :degraded, :config_version, :snapshot_id, :latency_us, :record, :packed, '', false, '', ''"
)
DECISION_KEYS = frozenset(re.findall(r":(\w+)", _DECISION_VALUES))  # of a row as it is recorded
_INSERT_DECISION = f"INSERT INTO decisions ({_DECISION}) VALUES ({_DECISION_VALUES})"
_LEASE_COLUMNS = "agent_id, project_id, group_id, decision_id, call_id, sip_login, claimed_at, expires_at"
# One statement takes the lease, and only if none is live.
_ON_LEASED = (
    " ON CONFLICT (agent_id) DO UPDATE SET project_id = excluded.project_id, group_id = excluded.group_id,"
    " decision_id = excluded.decision_id, call_id = excluded.call_id, sip_login = excluded.sip_login,"
    " claimed_at = excluded.claimed_at, expires_at = excluded.expires_at"
    " WHERE reservations.expires_at <= excluded.claimed_at"
)
_PHONE_COLUMNS = "project_id, phone, agent_id, call_id, expires_at"
_ON_PHONE_RESERVED = (
    " ON CONFLICT (project_id, phone) DO UPDATE SET agent_id = excluded.agent_id, call_id = excluded.call_id,"
    " expires_at = excluded.expires_at WHERE reserved_phones.expires_at <="
)
_MOVE_CLOCK = (
    "INSERT INTO member_clocks (group_id, agent_id, last_offered, virtual_time, head_start, head_start_seconds, weight,"
    " tier, day) VALUES (:group_id, :agent_id, :last_offered, :virtual_time, :head_start, :head_start_seconds, :weight,"
    " :tier, :day) ON CONFLICT (group_id, agent_id) DO UPDATE SET last_offered = excluded.last_offered,"
    " virtual_time = excluded.virtual_time, head_start = excluded.head_start,"
    " head_start_seconds = excluded.head_start_seconds, weight = excluded.weight, tier = excluded.tier, left_at = 0,"
    " day = excluded.day"
)
_TURNS = (
    "UPDATE member_clocks SET virtual_time = t.virtual_time, head_start = t.head_start, weight = t.weight,"
    " tier = t.tier, left_at = t.left_at FROM (%s) t"
    " WHERE group_id = :group_id AND member_clocks.agent_id = t.agent_id"
)


# ---- what was decided without the database

# The project may be deleted since. The same promise again counts where it names its decision.
_RESTORE_LEASE = (
    f"INSERT INTO reservations ({_LEASE_COLUMNS}) SELECT :agent_id, :project, :group_id, :decision_id, :call_id,"
    " :sip_login, :asked_at, :expires_at FROM projects WHERE id = :project%s"
    " ON CONFLICT (agent_id) DO UPDATE SET project_id = excluded.project_id,"
    " group_id = excluded.group_id, decision_id = excluded.decision_id, call_id = excluded.call_id,"
    " sip_login = excluded.sip_login, claimed_at = excluded.claimed_at, expires_at = excluded.expires_at"
    " WHERE (reservations.expires_at, 0) < (excluded.expires_at, excluded.decision_id)"
)
_RESTORE_PHONES = (
    f"INSERT INTO reserved_phones ({_PHONE_COLUMNS}) SELECT r.project_id, value, r.agent_id, :call_id, :expires_at"
    f" FROM reservations r, %s WHERE r.agent_id = :agent_id{_ON_PHONE_RESERVED} excluded.expires_at"
)
_RESTORE_CLOCK = (
    "UPDATE member_clocks SET last_offered = 1 +"
    " (SELECT max(last_offered) FROM member_clocks WHERE group_id = :group_id)"
    " WHERE group_id = :group_id AND agent_id = :agent_id"
)
# It may be recorded though nobody heard so. The question of a call without an id has no key, but its lease shows it.
_RESTORE = (
    f"INSERT INTO decisions ({_DECISION}) SELECT {_DECISION_VALUES} WHERE NOT EXISTS (SELECT * FROM reservations"
    " WHERE agent_id = :agent_id AND claimed_at = :asked_at AND decision_id > 0)"
    " ON CONFLICT DO NOTHING RETURNING id"
)


def _outcome_statements(kind: str) -> dict[str, str]:
    """Those of db/outcomes.py that a next step needs."""
    wanted = ("CALL", "AGENTS", "CLOCKS", "HUSH", "RELEASE_CALL", "OUTCOME", "HEARD")
    return {name: sql for name, sql in outcomes.statements(kind).items() if name in wanted}


SQLITE = {
    "COMMIT": "COMMIT",
    "READ": READ_SQLITE,
    "DECISION": _INSERT_DECISION,
    "LEASE": f"INSERT INTO reservations ({_LEASE_COLUMNS}) VALUES (:agent_id, :project, :group_id, :decision_id,"
    f" :call_id, :sip_login, :asked_at, :expires_at){_ON_LEASED}",
    "PHONES": f"INSERT INTO reserved_phones ({_PHONE_COLUMNS}) SELECT :project, value, :agent_id, :call_id, :expires_at"
    f" FROM json_each(:phones) WHERE true{_ON_PHONE_RESERVED} :asked_at",
    "CLOCK": _MOVE_CLOCK,
    "TURNS": _TURNS % "SELECT json_extract(value, '$[0]') AS agent_id, json_extract(value, '$[1]') AS virtual_time,"
    " json_extract(value, '$[2]') AS head_start, json_extract(value, '$[3]') AS weight,"
    " json_extract(value, '$[4]') AS tier, json_extract(value, '$[5]') AS left_at FROM json_each(:turns)",
    **_outcome_statements("sqlite"),
    "RESTORE": _RESTORE,
    "RESTORE_LEASE": _RESTORE_LEASE % "",
    "RESTORE_PHONES": _RESTORE_PHONES % "json_each(:phones)",
    "RESTORE_CLOCK": _RESTORE_CLOCK,
}


# The decision, the lease with its phones and the clock in one statement. Where not all of it was to be had it divides
# by zero, which fails the transaction: so the COMMIT can travel with it, and nothing half is ever kept.
_OFFER = (
    f"WITH decision AS ({_INSERT_DECISION} RETURNING id)%s, lease AS (INSERT INTO reservations"
    f" ({_LEASE_COLUMNS}) SELECT :agent_id, :project, :group_id, id, :call_id, :sip_login, :asked_at, :expires_at"
    f" FROM decision{_ON_LEASED} RETURNING decision_id), phones AS (INSERT INTO reserved_phones ({_PHONE_COLUMNS})"
    " SELECT :project, value, :agent_id, :call_id, :expires_at"
    f" FROM lease, json_array_elements_text(:phones::json) value{_ON_PHONE_RESERVED} :asked_at RETURNING phone)"
    " SELECT (SELECT decision_id FROM lease),"
    " 1 / (CASE (SELECT count(*) FROM phones) WHEN json_array_length(:phones::json) THEN 1 ELSE 0 END)"
)
POSTGRES = read_statements(
    {
        "BEGIN": "BEGIN ISOLATION LEVEL READ COMMITTED",
        "SETTINGS": call_settings(is_local=True),
        "COMMIT": "COMMIT",
        # A statement sees what was committed when it began: the locks must be held before the one that reads begins.
        "LOCK": "SELECT pg_advisory_xact_lock(key) FROM unnest(:keys::bigint[]) key",
        "READ": READ_POSTGRES,
        "DECISION": f"{_INSERT_DECISION} RETURNING id",
        "OFFER": _OFFER % f", clock AS ({_MOVE_CLOCK})",
        "PREFERRED": _OFFER % "",
        "TURNS": _TURNS
        % "SELECT (value->>0)::int AS agent_id, (value->>1)::bigint AS virtual_time, (value->>2)::int AS head_start,"
        " (value->>3)::int AS weight, (value->>4)::int AS tier, (value->>5)::bigint AS left_at"
        " FROM json_array_elements(:turns::json) AS value",
        **_outcome_statements("postgres"),
        "RESTORE": _RESTORE,
        "RESTORE_LEASE": _RESTORE_LEASE % " FOR KEY SHARE",  # waits for whoever is deleting the project
        "RESTORE_PHONES": _RESTORE_PHONES % "json_array_elements_text(:phones::json) value",
        "RESTORE_CLOCK": _RESTORE_CLOCK,
    }
)
