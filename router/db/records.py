"""Make and pack the record of a decision: the question, everybody considered with their state, the reason for each.

A packed record takes less than a tenth of its JSON. It is stored by column instead of by row. Left out are inputs that
did not affect the decision, and values that the configuration of that version holds (logins, weights, tiers, positions)
or that follow from another column. Nothing is decided here: unpacking returns what was stored, also where today's rules
would decide otherwise.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import compress, starmap
from operator import add, lt, ne
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Row
from sqlalchemy.orm import Session

from router.core.conditions import PreviousCall
from router.core.decision import LIMITS, counted_for
from router.core.model import (
    LAWS,
    AgentState,
    Call,
    Decision,
    LastTalk,
    Member,
    MemberClock,
    Offer,
    Presence,
    Project,
    Snapshot,
)
from router.core.strategies import STRATEGIES
from router.db import models
from router.db.claim import AgentRow, MemberRow, State
from router.db.documents import configured
from router.db.types import EPOCH, MICROSECOND, from_micros, to_micros
from router.log import log

Record = dict[str, Any]
"""See `row_of`: "call", "received", "inputs", "trials", "answer"; "erased_at" once the caller was erased."""

_WHOLE, _BY_COLUMN, _WITH_TALKS = b"\0", b"\2", b"\3"  # the first byte of a packed record
_FEW = 32  # rows of members and candidates; a record with fewer is packed as it is, in a third of the time

TOLD = frozenset({"idle_since", "answered_today", "talked_today"})
"""What of a state is stored only where something reads it."""

STUB: Record = {"trials": []}
"""Stands in the column of plain records beside a packed one, for the board of the release before."""
_STUB = orjson.dumps(STUB).decode()

# Text that most records contain, as zlib's dictionary. It must never change, because packed records need it to be read.
_COMMON = (
    b'"empty_id":"","headers":{"Content-Type":"application/json","User-Agent":"[],null,null,false,true,"nobody_free"'
    b'"no_rule""project","group","rule","reserved","speaking","wrap_up","cooling_down","already_tried","off_duty"'
    b'"off_hours","paused","on_break","presence_unknown","at_cap","offline","priority","weighted","fewest_calls"'
    b'"random","longest_idle","round_robin","available",["2026-"answer":null,"received":{"method":"GET","POST","query":'
    b'"","content_type":"application/x-www-form-urlencoded","body":"call_id=ua9_-1790775458.&step_forward=webhookNumber'
    b'%3A1&userfield=380&dst=380","remote":"127.0.0.1","user_agent":"ringostat HTTP Client v1.1","form":"ringostat form'
    b'","understood":{"call_id":"body call_id","step":"body step_forward","caller":"body userfield","dialed":"body dst"'
    b',"query caller","query dialed"},"problems":[]}{"call":{"step":"webhookNumber:1","caller":"380","dialed":"380",'
    b'"direction":"in","params":{"call_id":"ua","step_forward":"webhookNumber:1","userfield":"380","dst":"380"}},'
    b'"inputs":{"laws":2,"now":17,"seed":"ua","began_at":17,"events":[],"tried":[],"last_talk":null},"trials":[[1,'
)


class Stored(Protocol):
    """A decision's row, or these columns of it."""

    @property
    def project_id(self) -> int: ...
    @property
    def config_version(self) -> int: ...
    @property
    def record(self) -> Record: ...
    @property
    def packed(self) -> bytes | None: ...


def record_of(session: Session, row: Stored | Row[*tuple[Any, ...]]) -> Record:
    """Return the decision's record, packed or plain."""
    if row.packed is None:
        plain: Record = row.record
        return plain
    found = configured(session, row.project_id, row.config_version)
    return unpack(row.packed, found and found.project)


def store_record(session: Session, row: models.Decision, record: Record) -> None:
    """Replace the decision's record; pack it if the one before was packed."""
    if row.packed is None:
        row.record = record
        return
    found = configured(session, row.project_id, row.config_version)
    row.packed = pack(record, found and found.project)


def pack(record: Record, project: Project | None) -> bytes:
    """Return the packed record. `unpack` needs the same configuration.

    Left out are inputs that did not affect the decision: instants that are past; all idle instants except the latest;
    that one and the day's calls and talks if no strategy and no limit reads them. Raises TypeError for values that
    JSON does not know.
    """
    kind, bits = _WHOLE, b""
    value: Any = record
    try:
        rows = sum(len(candidates) for _group, candidates in record["trials"]) + len(record["inputs"]["members"])
        if rows >= _FEW:
            columns, writer = _Columns.of(record, project), _Writer()
            columns.exchange(writer, project)
            kind, value = _WITH_TALKS if columns.has_talks else _BY_COLUMN, [columns.head, writer.shapes]
            bits = b"".join(writer.bits)
    except (LookupError, TypeError, ValueError, AttributeError):  # not of the shape that `row_of` makes
        pass
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=_COMMON)
    return kind + deflate.compress(orjson.dumps(value)) + deflate.flush() + bits


def unpack(packed: bytes, project: Project | None) -> Record:
    """Return the record. Values from a configuration that is missing are 0 or ""."""
    inflate = zlib.decompressobj(-15, zdict=_COMMON)
    found = orjson.loads(inflate.decompress(packed[1:]))
    if packed[:1] == _WHOLE:
        whole: Record = found
        return whole
    head, shapes = found
    columns = _Columns(head, has_talks=packed[:1] == _WITH_TALKS)
    columns.exchange(_Reader(shapes, inflate.unused_data), project)
    return columns.record(project)


# ---- what a decision was made by, and its row


class Inputs(NamedTuple):
    """What decides and changes from call to call: stored with the decision, read by the replay. Instants in µs."""

    now: int
    began_at: int | None  # the reading
    events: Mapping[str, bool]  # as in State, like the rows
    agents: Sequence[AgentRow]
    members: Sequence[MemberRow] = ()
    seed: str = ""
    tried: Sequence[str] = ()  # logins
    last_talk: LastTalk | None = None
    laws: int = LAWS
    previous_call: Sequence[Any] | None = None  # as in State

    def as_json(self) -> dict[str, Any]:
        """Return what `of_json` reads, rows as arrays."""
        talk = self.last_talk
        stored = self._asdict()
        if self.previous_call is None:
            del stored["previous_call"]
        return stored | {
            "events": list(self.events.items()),
            "agents": list(map(tuple, self.agents)),
            "members": list(map(tuple, self.members)),
            "last_talk": None if talk is None else [talk.agent_id, to_micros(talk.at), talk.logged],
        }

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Inputs:
        """Return what a release stored: one of before `laws` has none."""
        talk = stored["last_talk"]
        rows = {
            "events": {login: bool(talks) for login, talks in stored["events"]},
            "members": list(starmap(MemberRow, stored["members"])),
            "agents": list(starmap(AgentRow, stored["agents"])),
            "last_talk": None if talk is None else LastTalk(talk[0], from_micros(talk[1]), any(talk[2:])),
        }
        return cls(**{"laws": 1} | {name: stored[name] for name in cls._fields if name in stored} | rows)


def snapshot_of(inputs: Inputs, online: frozenset[str], speaking: frozenset[str], zone: ZoneInfo) -> Snapshot:
    """The rules' view of what was read: live, or stored with a decision."""
    now = EPOCH + inputs.now * MICROSECOND
    today = now.astimezone(zone).date().isoformat()
    agents = {agent.agent_id: _agent_state(agent, inputs.now, today, inputs.laws) for agent in inputs.agents}
    clocks: dict[int, dict[int, MemberClock]] = {}
    for row in inputs.members:
        if row.agent_id not in agents:
            agents[row.agent_id] = _agent_state(row, inputs.now, today, inputs.laws)
        # A number alone: stored by a release that kept nothing with it.
        virtual_time, *written = [row.stood_at] if isinstance(row.stood_at, int) else row.stood_at
        head_start = row.head_start if row.head_start_day == today else None
        clock = MemberClock(row.last_offered, virtual_time, head_start, *written)
        clocks.setdefault(row.group_id, {})[row.agent_id] = clock
    presence = Presence(
        online=online,
        speaking=speaking,
        age=None if inputs.began_at is None else max(timedelta(0), (inputs.now - inputs.began_at) * MICROSECOND),
        events=inputs.events,
    )
    tried = frozenset(inputs.tried)
    previous = None if inputs.previous_call is None else _previous_call(inputs.now, *inputs.previous_call)
    return Snapshot(now, presence, agents, clocks, tried, inputs.last_talk, previous, inputs.seed, inputs.laws)


def _previous_call(now: int, asked_at: int | None = None, is_answered: object = False) -> PreviousCall:
    return PreviousCall(None if asked_at is None else max(0, now - asked_at) * MICROSECOND, bool(is_answered))


def _agent_state(row: AgentRow | MemberRow, now: int, today: str, laws: int) -> AgentState:
    paused, reserved = row.paused_until, row.reserved_until
    wrap_up, cooling = row.wrap_up_until, row.cooling_until
    return AgentState(
        row.status,
        EPOCH + paused * MICROSECOND if paused and paused > now else None,  # what is over says nothing
        EPOCH + reserved * MICROSECOND if reserved and reserved > now else None,
        EPOCH + wrap_up * MICROSECOND if wrap_up and wrap_up > now else None,
        EPOCH + cooling * MICROSECOND if cooling and cooling > now else None,
        row.answered_today if row.day == today else 0,
        max(
            row.last_talk_end_at or 0,
            row.available_since_at or 0,
            paused if laws > 1 and paused and paused <= now else 0,
        ),
        row.talked_today if row.day == today else 0,
    )


def row_of(
    project: Project,
    call: Call,
    state: State,
    inputs: Inputs,
    decision: Decision,
    received: Mapping[str, Any] | None,
    attempt: int,
) -> dict[str, Any]:
    answer = decision.answer
    offer = answer if isinstance(answer, Offer) else None
    record: Record = {
        "call": {
            "step": call.step,
            "caller": call.caller,
            "dialed": call.dialed,
            "direction": call.direction,
            "params": call.params,
        },
        "received": received,
        "inputs": inputs.as_json(),
        "trials": trials_as_json(decision),
        "answer": answer_as_json(decision),
    }
    stored: dict[str, Any]
    try:
        stored = {"record": _STUB, "packed": pack(record, project)}
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits, so it is stored plain
        log.error("a decision's record cannot be packed", error=repr(error))
        stored = {"record": orjson.dumps(record).decode(), "packed": None}
    return {
        "project": project.id,
        "call_id": call.call_id,
        "step": call.step,
        "attempt": attempt,
        "asked_at": state.now,
        "caller": call.caller,
        "dialed": call.dialed,
        "rule_id": decision.rule_id,
        "group_id": offer and offer.group_id,
        "agent_id": offer and offer.agent_id,
        "sip_login": offer.sip_login if offer else "",
        "destination": answer.sip_login if isinstance(answer, Offer) else answer.destination,
        "result": "offer" if offer else "overflow",
        "degraded": "",
        "config_version": project.version,
        **stored,
    }


def answer_as_json(decision: Decision) -> list[str] | None:
    """[whose overflow, cause], None for an offer."""
    answer = decision.answer
    return None if isinstance(answer, Offer) else [answer.of, answer.cause]


def trials_as_json(decision: Decision) -> list[Any]:
    """[[group id, [[agent id, login, skip reason or None, *sort key], …]], …]"""
    return [
        [trial.group_id, [[c.agent_id, c.sip_login, c.skip, *c.key] for c in trial.candidates]]
        for trial in decision.trials
    ]


# ---- columns of values

_CONSTANT, _LIKE, _BUT_FOR, _NUMBERS, _WORDS, _JSON = range(6)  # how a column is stored

Source = Callable[[], Sequence[Any]]
"""Returns values that writer and reader both know, and that a column may equal."""


class _Writer:
    """Collects columns."""

    def __init__(self) -> None:
        self.shapes: list[Any] = []
        self.bits: list[bytes] = []  # numbers in binary, shorter than JSON's decimals

    def column(self, values: Sequence[Any], count: int, *sources: Source) -> Sequence[Any]:
        """Add a column of `count` values and return it."""
        if count:
            self.shapes.append(self._shape(list(values), sources))
        return values

    def _shape(self, values: list[Any], sources: Iterable[Source] = ()) -> list[Any]:
        kind, count = type(values[0]), len(values)
        if values.count(values[0]) == count:
            return [_CONSTANT, values[0]]
        for number, source in enumerate(sources):
            like = source()
            unlike = list(compress(range(count), map(ne, values, like))) if len(like) == count else values
            if 4 * len(unlike) <= count:
                return [_LIKE, number, unlike, [values[at] for at in unlike]]
        ((most, times),) = Counter(values).most_common(1)
        if None in values or 2 * times > count:
            most = None if None in values else most
            self._add_bits([value != most for value in values], 1)
            return [_BUT_FOR, most, *self._shape([value for value in values if value != most])]
        if kind is int and set(map(type, values)) == {int}:
            low, bits = min(values), (max(values) - min(values)).bit_length()
            self._add_bits([value - low for value in values], bits)
            return [_NUMBERS, bits, low]
        if issubclass(kind, str) and 2 * len(words := list(dict.fromkeys(values))) <= count:
            numbers = dict(zip(words, range(count), strict=False))
            self._add_bits([numbers[value] for value in values], len(words).bit_length())
            return [_WORDS, words]
        return [_JSON, values]

    def _add_bits(self, numbers: Iterable[int], bits: int) -> None:
        figures = "".join(map(_figures(bits), numbers))
        self.bits.append(int(figures, 2).to_bytes(-(-len(figures) // 8), "big"))


@cache
def _figures(bits: int) -> Callable[[int], str]:
    """Return a function that formats a number with so many binary digits; a table is five times as fast."""
    if bits <= 8:
        return [f"{number:0{bits}b}" for number in range(1 << bits)].__getitem__
    return f"{{:0{bits}b}}".format


class _Reader:
    """Returns columns in the order in which they were written."""

    def __init__(self, shapes: list[Any], bits: bytes) -> None:
        self._shapes, self._bits = iter(shapes), BytesIO(bits)

    def column(self, _values: Sequence[Any], count: int, *sources: Source) -> Sequence[Any]:
        """Return the next column."""
        return self._read(count, sources, *next(self._shapes)) if count else []

    def _read(self, count: int, sources: Sequence[Source], kind: int, *shape: Any) -> list[Any]:
        if kind == _CONSTANT:
            return [*shape] * count
        if kind == _LIKE:
            number, unlike, own = shape
            found = list(sources[number]())
            for at, value in zip(unlike, own, strict=True):
                found[at] = value
            return found
        if kind == _BUT_FOR:
            most, *other = shape
            is_other = self._take_bits(count, 1)
            values = iter(self._read(sum(is_other), (), *other))
            return [next(values) if each else most for each in is_other]
        if kind == _NUMBERS:
            bits, low = shape
            return [value + low for value in self._take_bits(count, bits)]
        if kind == _WORDS:
            return [shape[0][number] for number in self._take_bits(count, len(shape[0]).bit_length())]
        return list(shape[0])

    def _take_bits(self, count: int, bits: int) -> list[int]:
        cells = self._bits.read(-(-count * bits // 8))
        figures = f"{int.from_bytes(cells, 'big'):0{count * bits}b}"
        return [int(figures[at : at + bits], 2) for at in range(0, count * bits, bits)]


# ---- a record's columns

_STATES = AgentRow._fields[1:]  # the columns of an agent, beside the id
_STOOD_AT = ("virtual_time", "weight", "tier", "left_at", "head_start_seconds")
_CLOCKS = ("last_offered", *_STOOD_AT, "head_start", "head_start_day")
_TALKS = {"talked_today", "head_start_seconds"}  # left out of a record in which all are 0: earlier releases read those
_TURN = len(MemberRow._fields) - len(AgentRow._fields)  # columns of a member before those of the agent
_NO_SEAT = Member(0, 0)
_STEP = 2**30  # of virtual time, as in core.strategies; if that changes, records only grow


class _Trial:
    """A trial's candidates by column. `width`: the length of a sort key. `is_sorted`: they are in the order of keys."""

    def __init__(self, group: int | None, count: int, width: int, is_sorted: int) -> None:
        self.group, self.count, self.is_sorted = group, count, is_sorted
        self.places: Sequence[int] = []  # of the candidates among all agents of the record
        self.logins: Sequence[str] = []
        self.skips: Sequence[str | None] = []
        self.keys: list[Sequence[Any]] = [[]] * width

    @property
    def head(self) -> list[Any]:
        return [self.group, self.count, len(self.keys), self.is_sorted]

    @classmethod
    def of(
        cls, group: int | None, rows: Sequence[Sequence[Any]], place: Mapping[int, int], members: Mapping[int, Member]
    ) -> _Trial:
        order = [_order(row, members) for row in rows]
        if is_sorted := all(map(lt, order, order[1:])):
            rows = sorted(rows, key=lambda row: place[row[0]])
        keys = [row[3:] for row in rows if row[2] is None]
        if any(len(row) != 3 for row in rows if row[2] is not None) or not all(isinstance(row[1], str) for row in rows):
            raise ValueError("a candidate of another shape")
        trial = cls(group, len(rows), len(keys[0]) if keys else 0, int(is_sorted))
        trial.places = [place[row[0]] for row in rows]
        trial.logins, trial.skips = [row[1] for row in rows], [row[2] for row in rows]
        trial.keys = _transposed(keys, len(trial.keys))
        return trial

    def rows(self, ids: Sequence[int], members: Mapping[int, Member]) -> list[Any]:
        """Return the candidates in the form of the record."""
        keys = zip(*self.keys, strict=True)
        rows = [
            [ids[place], login, skip, *(next(keys, ()) if skip is None else ())]
            for place, login, skip in zip(self.places, self.logins, self.skips, strict=True)
        ]
        return sorted(rows, key=lambda row: _order(row, members)) if self.is_sorted else rows


def _order(row: Sequence[Any], members: Mapping[int, Member]) -> tuple[int, Any]:
    """Return the sort key of candidates: first the eligible by their key, then the others by position in the group."""
    return (0, row[3:]) if row[2] is None else (1, members.get(row[0], _NO_SEAT).position)


class _Columns:
    """A record by column. `head`: the values that are not columns."""

    def __init__(self, head: list[Any], *, has_talks: bool = False) -> None:
        self.has_talks = has_talks
        self.rest, self.inputs, self.first, self.known, self.count, self.others, self.strangers, trials = head
        self.trials = [_Trial(*trial) for trial in trials]
        self.ids: Sequence[int] = []  # of the agents whose state is known
        self.states: dict[str, Sequence[Any]] = dict.fromkeys(_STATES, ())
        self.groups: Sequence[int] = []
        self.places: Sequence[int] = []  # of the members' agents among `ids`
        self.clocks: dict[str, Sequence[Any]] = dict.fromkeys(_CLOCKS, ())

    @property
    def head(self) -> list[Any]:
        trials = [trial.head for trial in self.trials]
        return [self.rest, self.inputs, self.first, self.known, self.count, self.others, self.strangers, trials]

    @classmethod
    def of(cls, record: Record, project: Project | None) -> _Columns:
        """Return the columns. Raises LookupError, TypeError or ValueError for a record of another shape."""
        rest, inputs = dict(record), dict(record["inputs"])
        trials = rest.pop("trials")
        del rest["inputs"]
        members, others = inputs.pop("members"), inputs.pop("agents")
        groups, offered, stood_at, head_start, day, agents, *_ = _transposed(members, len(MemberRow._fields))
        states: dict[int, Sequence[Any]] = {}
        for row in (*(member[_TURN:] for member in members), *others):
            if states.setdefault(row[0], row) != row:
                raise ValueError("an agent in two states")
        strangers = sorted({row[0] for _group, rows in trials for row in rows} - states.keys())
        place = {agent: at for at, agent in enumerate((*states, *strangers))}
        places_of_others, first = [place[row[0]] for row in others], next(iter(states), 0)
        columns = cls([rest, inputs, first, len(states), len(members), places_of_others, strangers, []])
        columns.trials = [_Trial.of(group, rows, place, _members(project, group)) for group, rows in trials]
        columns.ids, *known = _transposed(states.values(), len(AgentRow._fields))
        columns.states = dict(zip(_STATES, known, strict=True))
        columns.groups, columns.places = groups, [place[agent] for agent in agents]
        clocks = [offered, *_transposed(stood_at, len(_STOOD_AT)), head_start, day]
        columns.clocks = dict(zip(_CLOCKS, clocks, strict=True))
        columns.drop_what_decided_nothing(project)
        return columns

    def drop_what_decided_nothing(self, project: Project | None) -> None:
        """Remove the inputs that `pack` leaves out."""
        now, is_idle_since_pause, states = self.inputs["now"], self.inputs["laws"] > 1, self.states
        nothing: Sequence[Any] = [None] * len(self.ids)
        idle: Sequence[Any] = nothing
        read = _read_by(project, self.groups, self.ids)
        if "idle_since" in read:
            instants = [[at or 0 for at in states[name]] for name in ("last_talk_end_at", "available_since_at")]
            if is_idle_since_pause:
                instants.append([until if until and until <= now else 0 for until in states["paused_until"]])
            idle = [at or None for at in map(max, *instants)]
        states["last_talk_end_at"], states["available_since_at"] = idle, nothing
        if "answered_today" not in read:
            states["answered_today"] = [0] * len(nothing)
        if "talked_today" not in read:
            states["talked_today"], self.clocks["head_start_seconds"] = [0] * len(nothing), [0] * self.count
        if not read & {"answered_today", "talked_today"}:
            states["day"] = nothing
        self.has_talks = any(states["talked_today"]) or any(self.clocks["head_start_seconds"])
        for name in ("paused_until", "reserved_until", "wrap_up_until", "cooling_until"):
            if any(states[name]):
                states[name] = [until if until and until > now else None for until in states[name]]
            else:
                states[name] = nothing

    def record(self, project: Project | None) -> Record:
        """Return the record by row."""
        agents = [list(row) for row in zip(self.ids, *self.states.values(), strict=True)]
        offered, *stood, head_start, day = self.clocks.values()
        stood_at = map(list, zip(*stood, strict=True))
        clocks = zip(self.groups, offered, stood_at, head_start, day, self.places, strict=True)
        members = [[*clock, *agents[place]] for *clock, place in clocks]
        inputs = self.inputs | {"members": members, "agents": [agents[place] for place in self.others]}
        everybody = [*self.ids, *self.strangers]
        trials = [[trial.group, trial.rows(everybody, _members(project, trial.group))] for trial in self.trials]
        return {**self.rest, "inputs": inputs, "trials": trials}

    def exchange(self, other: _Writer | _Reader, project: Project | None) -> None:
        """Write all columns, or read them in the same order."""
        self.ids = other.column(self.ids, self.known, lambda: range(self.first, self.first + self.known))
        left_out = () if self.has_talks else _TALKS
        self.states = {
            name: [0] * self.known if name in left_out else other.column(column, self.known)
            for name, column in self.states.items()
        }
        self.groups = other.column(self.groups, self.count)
        self.places = other.column(self.places, self.count, lambda: range(self.count))
        members = {group: _members(project, group) for group in set(self.groups)}
        of_members = zip(self.groups, self.places, strict=True)
        seats = [members[group].get(self.ids[place], _NO_SEAT) for group, place in of_members]
        weights_and_tiers = (lambda: [seat.weight for seat in seats], lambda: [seat.tier for seat in seats])
        self.clocks = {
            name: [0] * self.count if name in left_out else other.column(column, self.count, *weights_and_tiers)
            for name, column in self.clocks.items()
        }
        for trial in self.trials:
            self._exchange_trial(other, trial, project)

    def _exchange_trial(self, other: _Writer | _Reader, trial: _Trial, project: Project | None) -> None:
        of_members = enumerate(zip(self.groups, self.places, strict=True))
        clock_at = {place: at for at, (group, place) in of_members if group == trial.group}
        trial.places = other.column(trial.places, trial.count, lambda: sorted(clock_at)[: trial.count])
        trial.skips = other.column(trial.skips, trial.count)
        everybody = [*self.ids, *self.strangers]
        agents = [everybody[place] for place in trial.places]
        members, known = _members(project, trial.group), project.agents if project else {}
        owned = [known[agent].sip_logins if agent in known else () for agent in agents]
        # A login is stored as its number among the agent's logins, -1 for none; any other login as text.
        numbers = [
            own.index(login) if login in own else -1 if login == "" else login
            for login, own in zip(trial.logins, owned, strict=bool(trial.logins))
        ]
        trial.logins = [
            number if isinstance(number, str) else own[number] if 0 <= number < len(own) else ""
            for number, own in zip(other.column(numbers, trial.count), owned, strict=True)
        ]
        eligible = [at for at, skip in enumerate(trial.skips) if skip is None]
        seats = [members.get(agents[at], _NO_SEAT) for at in eligible]
        places = [trial.places[at] for at in eligible]

        def state(name: str) -> list[int]:
            return [self.states[name][place] or 0 if place < self.known else 0 for place in places]

        def clock(name: str) -> list[int]:
            return [self.clocks[name][clock_at[place]] or 0 if place in clock_at else 0 for place in places]

        def half_a_step_on() -> list[int]:
            return [
                at + _STEP // max(1, seat.weight) // 2 for at, seat in zip(clock("virtual_time"), seats, strict=True)
            ]

        sources: tuple[Source, ...] = (  # values that strategies sort by
            lambda: [seat.tier for seat in seats],
            lambda: [seat.position for seat in seats],
            lambda: [trial.logins[at] for at in eligible],
            lambda: state("last_talk_end_at"),  # the latest instant of idling, see `drop_what_decided_nothing`
            lambda: clock("last_offered"),
            half_a_step_on,
            lambda: list(map(add, state("answered_today"), clock("head_start"))),
            lambda: [sha256(f"{self.inputs['seed']}:{agents[at]}".encode()).hexdigest()[:16] for at in eligible],
        )
        if self.has_talks:
            sources += (lambda: list(map(add, state("talked_today"), clock("head_start_seconds"))),)
        trial.keys = [other.column(column, len(eligible), *sources) for column in trial.keys]


def _read_by(project: Project | None, group_ids: Iterable[int], agent_ids: Iterable[int]) -> set[str]:
    """Return what strategies and limits read of the states of these agents, for calls to these groups."""
    groups, asked = project.groups if project else {}, set(group_ids)
    names = {groups[group].strategy for group in asked} if asked <= groups.keys() else STRATEGIES.keys()
    read = {STRATEGIES[name].reads for name in names}
    for agent_id in agent_ids:
        agent = project.agents.get(agent_id) if project else None
        read |= {limit.counted for limit in LIMITS} if agent is None else counted_for(agent)
    return read


def told_of(row: Stored, record: Record, project: Project) -> frozenset[str]:
    """Return what a record tells of states beside what `pack` always stores: `idle_since`, `answered_today`,
    `talked_today`. `project`: by which it was decided.
    """
    if row.packed is None or row.packed[:1] == _WHOLE:
        return TOLD
    members, agents = record["inputs"]["members"], record["inputs"]["agents"]
    read = _read_by(
        project, {member[0] for member in members}, {one[_TURN] for one in members} | {one[0] for one in agents}
    )
    return TOLD & read


def _members(project: Project | None, group_id: int | None) -> Mapping[int, Member]:
    group = project.groups.get(group_id or 0) if project else None
    return {member.agent_id: member for member in group.members} if group else {}


def _transposed(rows: Collection[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    """Return the rows' columns. Raises ValueError unless each row has `count` values."""
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * count
    if len(columns) != count:
        raise ValueError("a row of another length")
    return columns
