"""Read and write the course and outcome of calls, as core/lifecycle.py needs them.

Events, settling and a call's next step share these statements: plain SQL with `:name` parameters, instants in
microseconds since the epoch, lists as JSON. presence/readings.py gives the order of locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import orjson

from router.core.lifecycle import Changes, Clocks, Effect, Heard, History, Line, Step, Talk
from router.db.session import CLOCK_STEP
from router.db.types import from_micros, to_micros

STEP_LIMIT = 50  # steps of one call that are read, newest first

_STEP = {
    "id": "d.id",
    "agent_id": "d.agent_id",
    "group_id": "d.group_id",
    "login": "d.sip_login",
    "destination": "d.destination",
    "asked_at": "d.asked_at",
    "rings_until": "r.expires_at",
    "outcome": "d.outcome",
    "inferred": "d.inferred",
    "disposition": "d.disposition",
    "answered_agent_id": "d.answered_agent_id",
    "answered_login": "d.answered_login",
    "answered_at": "d.answered_at",
    "ended_at": "d.ended_at",
    "waited_seconds": "d.waited_seconds",
    "talked_seconds": "d.talked_seconds",
}
_OUTCOME = list(_STEP)[7:]  # the columns that are written
_DECISION_COLUMNS = ", ".join(column[2:] for column in _STEP.values() if column.startswith("d."))

# %(steps)s: the condition on decisions; %(calls)s: on heard calls.
_HISTORY = f"""
SELECT
  (SELECT %(rows)sd.call_id, {", ".join(_STEP.values())}%(end)s
    FROM (SELECT call_id, {_DECISION_COLUMNS} FROM decisions WHERE %(steps)s) d
    LEFT JOIN reservations r ON r.agent_id = d.agent_id AND r.decision_id = d.id),
  (SELECT %(rows)sh.call_id, h.heard_at, %(talked)s, h.ended_at, %(effects)s, %(talks)s%(end)s
    FROM heard_calls h WHERE h.project_id = :project AND %(calls)s)
"""
_OF_CALL = {
    "steps": f"project_id = :project AND call_id = :call_id AND call_id <> '' ORDER BY id DESC LIMIT {STEP_LIMIT}",
    "calls": "h.call_id = :call_id",
}
_OF_STEPS = {
    "steps": "id %(in_ids)s",
    "calls": "h.call_id IN (SELECT call_id FROM decisions WHERE id %(in_ids)s)",
}
_AGENTS = f"""
  (SELECT %(rows)sa.agent_id, {", ".join(f"a.{name}" for name in Clocks._fields)}%(end)s
    FROM (SELECT * FROM agent_states WHERE agent_id %(in_agents)s ORDER BY agent_id%(held)s) a)
"""
_AGENTS_OF_CALL = " UNION ".join(
    f"SELECT {agent} FROM decisions WHERE project_id = :project AND call_id = :call_id AND call_id <> ''"
    for agent in ("agent_id", "answered_agent_id")
)
_PEOPLE = f"""
SELECT {_AGENTS},
  (SELECT %(rows)sl.login, l.event_speaking, l.event_at, l.event_call_id,
      (SELECT min(+d.asked_at) FROM decisions d
        WHERE d.project_id = :project AND d.call_id = l.event_call_id AND d.call_id <> ''),
      l.online, l.speaking, l.since_at%(end)s
    FROM (SELECT * FROM login_states WHERE project_id = :project AND login %(in_logins)s ORDER BY login%(held)s) l),
  (SELECT %(rows)sd.id, d.call_id, d.agent_id, d.answered_agent_id, d.asked_at%(end)s FROM decisions d
    WHERE d.project_id = :project AND d.ended_at IS NULL AND d.asked_at > :since
      AND (d.agent_id %(in_agents)s OR d.answered_agent_id %(in_agents)s)),
  (SELECT began_at FROM presence WHERE project_id = :project)
"""
_WORDS = {
    "sqlite": {
        "rows": "json_group_array(json_array(",
        "end": "))",
        "talked": "json(h.talked)",
        "effects": "json(h.effects)",
        "talks": "json(h.talks)",
        "in_ids": "IN (SELECT value FROM json_each(:ids))",
        "in_agents": "IN (SELECT value FROM json_each(:agents))",
        "in_logins": "IN (SELECT value FROM json_each(:logins))",
        "held": "",
        "json": "%s",
    },
    "postgres": {
        "rows": "json_agg(json_build_array(",
        "end": "))",
        "talked": "h.talked",
        "effects": "h.effects",
        "talks": "h.talks",
        "in_ids": "= ANY(ARRAY(SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:ids AS json))))",
        "in_agents": "= ANY(ARRAY(SELECT CAST(value AS int) FROM json_array_elements_text(CAST(:agents AS json))))",
        "in_logins": "= ANY(ARRAY(SELECT value FROM json_array_elements_text(CAST(:logins AS json))))",
        "held": " FOR UPDATE",
    },
}
_CHANGE = {
    "CLOCKS": f"UPDATE agent_states SET {', '.join(f'{name} = :{name}' for name in Clocks._fields)}"
    " WHERE agent_id = :agent_id",
    "SAY": "INSERT INTO login_states"
    " (project_id, login, online, speaking, since_at, event_speaking, event_at, event_call_id)"
    " VALUES (:project, :login, false, false, :now, :speaking, :now, :call_id) ON CONFLICT (project_id, login)"
    " DO UPDATE SET event_speaking = excluded.event_speaking, event_at = excluded.event_at,"
    " event_call_id = excluded.event_call_id WHERE login_states.event_call_id = excluded.event_call_id"
    " OR login_states.event_at IS NULL OR login_states.event_at <= :displaces OR login_states.event_at > :ahead",
    "UNSAY": "UPDATE login_states SET event_speaking = NULL, event_at = NULL"
    " WHERE project_id = :project AND login = :login AND event_call_id = :call_id",
    "HUSH": "UPDATE login_states SET event_speaking = false"
    " WHERE project_id = :project AND login = :login AND event_call_id = :call_id AND event_speaking",
    "RELEASE_CALL": "DELETE FROM reservations WHERE project_id = :project AND call_id = :call_id",
    "RELEASE": "DELETE FROM reservations WHERE agent_id = :agent_id AND decision_id = :id",
    "OUTCOME": f"UPDATE decisions SET {', '.join(f'{name} = :{name}' for name in _OUTCOME)} WHERE id = :id",
    "HEARD": "INSERT INTO heard_calls (project_id, call_id, heard_at, talked, ended_at, effects, talks)"
    " VALUES (:project, :call_id, :heard_at, :talked, :ended_at, :effects, :talks) ON CONFLICT (project_id, call_id)"
    " DO UPDATE SET talked = excluded.talked, ended_at = excluded.ended_at, effects = excluded.effects,"
    " talks = excluded.talks",
}


def statements(kind: str) -> dict[str, str]:
    """Return the statements for "sqlite" or "postgres" by name.

    CALL and STEPS read calls. PEOPLE reads agents and logins, and locks them until the transaction ends; LOOK does so
    without locks; AGENTS reads only the agents of a call. The others write what `written` yields.
    """
    words = _WORDS[kind]
    where = {name: {part: text % words for part, text in of.items()} for name, of in _WHERE.items()}
    reading = {name: _HISTORY % (words | parts) for name, parts in where.items()}
    people = {"PEOPLE": _PEOPLE % words, "LOOK": _PEOPLE % (words | {"held": ""})}
    agents = _AGENTS % (words | {"in_agents": f"IN ({_AGENTS_OF_CALL})"})
    return {**reading, **people, "AGENTS": f"SELECT {agents}", **_CHANGE}


_WHERE = {"CALL": _OF_CALL, "STEPS": _OF_STEPS}


# ---- reading


def histories(row: Sequence[Any]) -> list[History]:
    """Return the calls in a row of CALL or STEPS. Decisions without a call id are different calls."""
    steps: dict[tuple[str, int], list[Step]] = {}
    for call_id, *values in _rows(row[0]):
        step = _step(values)
        steps.setdefault((call_id, 0 if call_id else step.id), []).append(step)
    heard = {call_id: _heard(*values) for call_id, *values in _rows(row[1])}
    for call_id in heard:
        steps.setdefault((call_id, 0), [])
    return [
        History(call_id, tuple(sorted(found, key=lambda step: -step.id)), heard.get(call_id, Heard()))
        for (call_id, _), found in steps.items()
    ]


def with_people(history: History, people: People, agents: Iterable[int], logins: Iterable[str]) -> History:
    """Return the history with these agents and logins of it, as far as they are known."""
    own = {step.id for step in history.steps}
    others: dict[int, datetime] = {}
    for agent in agents:
        for asked_at, step_id, call_id in people.unfinished.get(agent, ()):  # the newest first
            if step_id not in own and (call_id != history.call_id or not call_id):
                others[agent] = asked_at
                break
    clocks = {agent: people.clocks[agent] for agent in agents if agent in people.clocks}
    lines = {login: people.lines[login] for login in logins if login in people.lines}
    return History(history.call_id, history.steps, history.heard, clocks, lines, others, people.seen_at)


class People:
    """A row of PEOPLE, LOOK or AGENTS. A reading later than `now` counts as one of no instant: it was stored before the
    clock was set back.
    """

    def __init__(self, row: Sequence[Any], now: datetime) -> None:
        agents, lines, unfinished, began_at = row if len(row) > 1 else (row[0], None, None, None)
        self.clocks = {agent: _clocks(values) for agent, *values in _rows(agents)}
        self.lines = {login: _line(*values) for login, *values in _rows(lines)}
        self.unfinished: dict[int, list[tuple[datetime, int, str]]] = {}
        for step_id, call_id, *agent_ids, asked_at in sorted(_rows(unfinished), key=lambda step: -step[-1]):
            for agent in {*agent_ids} - {None}:
                self.unfinished.setdefault(agent, []).append((from_micros(asked_at), step_id, call_id))
        seen_at = None if began_at is None else from_micros(int(began_at))
        self.seen_at = None if seen_at is None or seen_at > now + CLOCK_STEP else seen_at


def people_wanted(
    project: int, found: Sequence[History], agents: Iterable[int], logins: Iterable[str]
) -> dict[str, Any]:
    """Return the parameters of PEOPLE for these calls. Calls older than all of them are ignored."""
    since = min((history.steps[-1].asked_at for history in found if history.steps), default=None)
    return {
        "project": project,
        "since": 0 if since is None or not all(history.steps for history in found) else to_micros(since),
        "agents": orjson.dumps(list(agents)).decode(),
        "logins": orjson.dumps([login for login in logins if "\0" not in login]).decode(),
    }


def _rows(found: Any) -> list[list[Any]]:
    """Return rows from JSON, which the driver may have parsed already."""
    if found is None:
        return []
    rows: list[list[Any]] = orjson.loads(found) if isinstance(found, str | bytes) else found
    return rows


def _step(values: Sequence[Any]) -> Step:
    named = dict(zip(_STEP, values, strict=True))
    for name in ("asked_at", "rings_until", "answered_at", "ended_at"):
        named[name] = None if named[name] is None else from_micros(named[name])
    return Step(**named | {"inferred": bool(named["inferred"])})


def _heard(
    heard_at: int,
    talked: list[str],
    ended_at: int | None,
    effects: Mapping[str, Any] | None,
    talks: Mapping[str, Any] | None,
) -> Heard:
    return Heard(
        from_micros(heard_at),
        tuple(talked),
        None if ended_at is None else from_micros(ended_at),
        {
            key: Effect(agent, {name: (_read(name, old), _read(name, new)) for name, (old, new) in changed.items()})
            for key, (agent, changed) in (effects or {}).items()
        },
        {int(agent): Talk(from_micros(since), seconds) for agent, (since, seconds) in (talks or {}).items()},
    )


def _clocks(values: Sequence[Any]) -> Clocks:
    return Clocks(*(_read(name, value) for name, value in zip(Clocks._fields, values, strict=True)))


def _line(
    talks: Any, said_at: int | None, call_id: str, came_at: int | None, online: Any, speaking: Any, since_at: int | None
) -> Line:
    return Line(
        None if talks is None else bool(talks),
        _read("said_at", said_at),
        call_id,
        _read("came_at", came_at),
        bool(online),
        bool(speaking),
        _read("since_at", since_at),
    )


def _read(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in ("day", "missed_day"):
        return date.fromisoformat(value)
    return from_micros(value) if name.endswith(("_at", "_until")) else value


def _raw(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_micros(value)
    return value.isoformat() if isinstance(value, date) else value


# ---- writing


def written(
    project: int, call_id: str, changes: Changes, said: Mapping[str, int] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the statements that write these changes, with their values, in the order of the locks. `said`: the instants
    for SAY.
    """
    call = {"project": project, "call_id": call_id}
    for agent_id, clocks in sorted(changes.clocks.items()):
        moved = {name: _raw(value) for name, value in clocks._asdict().items()}
        yield "CLOCKS", moved | {"agent_id": agent_id}
    for login, speaking in sorted(changes.said.items()):
        yield "SAY", {**call, **(said or {}), "login": login, "speaking": speaking}
    for login in sorted(changes.unsaid):
        yield "UNSAY", {**call, "login": login}
    for login in sorted(changes.hushed) if call_id else ():
        yield "HUSH", {**call, "login": login}
    if changes.releases_call and call_id:
        yield "RELEASE_CALL", call
    for step in changes.released:
        if step.agent_id is not None:
            yield "RELEASE", {"agent_id": step.agent_id, "id": step.id}
    for step in changes.steps:
        yield "OUTCOME", {"id": step.id, **{name: _raw(getattr(step, name)) for name in _OUTCOME}}
    if (heard := changes.heard) is not None and heard.at is not None:
        effects = {
            key: (effect.agent_id, {name: (_raw(old), _raw(new)) for name, (old, new) in effect.changed.items()})
            for key, effect in heard.effects.items()
        }
        talks = {str(agent): (to_micros(talk.since_at), talk.seconds) for agent, talk in heard.talks.items()}
        yield (
            "HEARD",
            {
                **call,
                "heard_at": to_micros(heard.at),
                "talked": orjson.dumps(heard.talked).decode(),
                "ended_at": _raw(heard.ended_at),
                "effects": orjson.dumps(effects).decode() if effects else None,
                "talks": orjson.dumps(talks).decode() if talks else None,
            },
        )
