"""The record of a decision: what was asked, what was known of everybody considered, and what followed for each.

Packed it takes less than a tenth of its JSON: by column instead of by row; without what decided nothing; and without
what the version of the configuration that the decision names says anyhow (logins, weights, tiers, positions). Nothing
is decided here: what was stored is given back, also where the rules of today would lead to something else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from itertools import chain, compress, islice, repeat
from operator import itemgetter, ne
from typing import Any, NamedTuple, Protocol

import orjson
from sqlalchemy import Row
from sqlalchemy.orm import Session

from router.core.model import Agent, Group, Member, Project
from router.db import models
from router.db.versions import configured

Record = dict[str, Any]
"""See routing._row: "call", "received", "inputs", "trials", "answer"; "erased_at" once the caller was erased."""

_WHOLE, _BY_COLUMN = b"\0", b"\1"  # how it is packed
_FEW = 32  # rows of members and candidates; with fewer the text is packed as it is, in a third of the time

STUB: Record = {"trials": []}
"""Stands in the column of plain records beside a packed one: the board of the release before looks there."""

# What most records have in common, for zlib to refer to. What is packed is read by it: it must never change.
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
    """The decision's record, however it is stored."""
    if row.packed is None:
        plain: Record = row.record
        return plain
    found = configured(session, row.project_id, row.config_version)
    return unpack(row.packed, found and found.project)


def store_record(session: Session, row: models.Decision, record: Record) -> None:
    """Store another record of the decision, packed if the one before was."""
    if row.packed is None:
        row.record = record
        return
    found = configured(session, row.project_id, row.config_version)
    row.packed = pack(record, found and found.project)


def pack(record: Record, project: Project | None) -> bytes:
    """The record as `unpack` gives it back by the same configuration.

    Of its inputs is left out what decided nothing: instants that are over; of those since when an agent is idle all but
    the last; that one and the calls of the day too, where no strategy and no limit looks at them. Raises TypeError for
    what is no JSON.
    """
    columns, known = _Writer(), _configuration(project)
    try:
        rows = sum(len(candidates) for _group, candidates in record["trials"]) + len(record["inputs"]["members"])
        if rows >= _FEW:
            parts = _Parts.of(record, known)
            _exchange(columns, parts, known)
            return _BY_COLUMN + columns.packed(parts.head)
    except (LookupError, TypeError, ValueError, AttributeError, struct.error):  # not of the shape that _row gives it
        pass
    return _WHOLE + _squeeze(orjson.dumps(record))


def unpack(packed: bytes, project: Project | None) -> Record:
    """The record. Where its configuration cannot be had any more, what that says is 0 or ""."""
    text, more = _stretch(packed[1:])
    if packed[:1] == _WHOLE:
        record: Record = orjson.loads(text)
        return record
    head, shapes = orjson.loads(text)
    parts = _Parts(head)
    _exchange(_Reader(shapes, *_stretch(more)), parts, _configuration(project))
    return parts.record()


def _squeeze(text: bytes) -> bytes:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=_COMMON)
    return squeeze.compress(text) + squeeze.flush()


def _stretch(squeezed: bytes) -> tuple[bytes, bytes]:
    """The text, and what follows it."""
    stretch = zlib.decompressobj(-15, zdict=_COMMON)
    return stretch.decompress(squeezed), stretch.unused_data


# ---- columns of values

_AS_EXPECTED, _BUT_FOR, _ALL, _WITH_NONE, _NUMBERS, _WORDS, _AS_IT_IS = range(7)
_BASES = {1: (2, 1), 2: (8, 3), 3: (8, 3), 4: (16, 4)}  # by bits: the base of its figures, and bits of each
_LETTERS = {2: "b", 8: "o", 16: "x"}
_LOW = {5: 4, 6: 3, 7: 4}  # of more bits than four: so many are stored apart
_LOWER = {bits: bytes(value & ((1 << bits) - 1) for value in range(256)) for bits in (3, 4)}
_UPPER = {bits: bytes(value >> bits for value in range(256)) for bits in (3, 4)}
_FIGURES = bytes.maketrans(bytes(range(16)), b"0123456789abcdef")
_VALUES = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))


class _Writer:
    """Takes columns in."""

    def __init__(self) -> None:
        self._shapes: list[Any] = []
        self._cells: list[bytes] = []
        self._noise: list[bytes] = []

    def column(self, values: Sequence[Any], count: int, expected: Sequence[Any] | None = None) -> Sequence[Any]:
        """Take a column of so many values in. `expected`: those that the reader has anyhow."""
        if count:
            self._shapes.append(self._shape(list(values), expected))
        return values

    def _shape(self, values: list[Any], expected: Sequence[Any] | None = None) -> list[Any]:
        first, count = values[0], len(values)
        kind = first.__class__
        if (first is None or kind is str or kind is int) and values.count(first) == count:
            return [_ALL, first]
        if values == expected:
            return [_AS_EXPECTED]
        if None in values:
            self._fine(bytes([value is not None for value in values]), 1)
            return [_WITH_NONE, *self._shape([value for value in values if value is not None])]
        if expected is not None:
            places = list(compress(range(count), map(ne, values, expected)))
            if 4 * len(places) <= count:
                return [_BUT_FOR, places, [values[at] for at in places]]
        if kind is int and set(map(type, values)) == {int}:
            return self._numbers(values)
        if kind is str and 2 * len(words := list(dict.fromkeys(values))) <= count and len(words) <= 256:
            number = dict(zip(words, range(256), strict=False))
            self._fine(bytes(map(number.__getitem__, values)), (len(words) - 1).bit_length())
            return [_WORDS, words]
        return [_AS_IT_IS, values]

    def _numbers(self, values: list[int]) -> list[Any]:
        """Numbers above the least: the lowest bytes of all, the second bytes of all, and so on."""
        low = min(values)
        above = [value - low for value in values]
        bits = max(above).bit_length()
        if bits <= 8:
            self._fine(bytes(above), bits)
            return [_NUMBERS, bits, 0, low]
        cells = struct.pack(f"<{len(above)}Q", *above)
        # Of instants and the like the lower bytes are noise, which compresses to more than it is.
        is_noise = 2 * len(set(above)) > len(above)
        for at in range(bits // 8):
            (self._noise if is_noise else self._cells).append(cells[at::8])
        if bits % 8:
            self._fine(cells[bits // 8 :: 8], bits % 8)
        return [_NUMBERS, bits, int(is_noise), low]

    def _fine(self, values: bytes, bits: int) -> None:
        """Numbers of so few bits, several in a byte."""
        if bits == 8:
            self._cells.append(values)
            return
        if bits > 4:
            low = _LOW[bits]
            self._fine(values.translate(_LOWER[low]), low)
            values, bits = values.translate(_UPPER[low]), bits - low
        base, each = _BASES[bits]
        size = -(-len(values) * each // 8)
        self._cells.append(int(values.translate(_FIGURES), base).to_bytes(size, "little"))

    def packed(self, head: Any) -> bytes:
        """All of it. Text and cells apart, because each has a code of its own then."""
        text = orjson.dumps([head, self._shapes])
        return b"".join((_squeeze(text), _squeeze(b"".join(self._cells)), *self._noise))


class _Reader:
    """Gives columns out, in the order in which they were taken in."""

    def __init__(self, shapes: list[Any], cells: bytes, noise: bytes) -> None:
        self._shapes = iter(shapes)
        self._cells, self._noise = BytesIO(cells), BytesIO(noise)

    def column(self, values: Sequence[Any], count: int, expected: Sequence[Any] | None = None) -> Sequence[Any]:
        """The next column."""
        return self._values(count, expected, *next(self._shapes)) if count else []

    def _values(self, count: int, expected: Sequence[Any] | None, kind: int, *said: Any) -> list[Any]:
        if kind == _AS_EXPECTED:
            return list(expected or ())
        if kind == _BUT_FOR:
            found = list(expected or ())
            for at, value in zip(*said, strict=True):
                found[at] = value
            return found
        if kind == _ALL:
            return [*said] * count
        if kind == _WITH_NONE:
            is_there = self._fine(count, 1)
            values = iter(self._values(sum(is_there), None, *said))
            return [next(values) if each else None for each in is_there]
        if kind == _NUMBERS:
            return self._numbers(count, *said)
        if kind == _WORDS:
            return [said[0][at] for at in self._fine(count, (len(said[0]) - 1).bit_length())]
        return list(said[0])

    def _numbers(self, count: int, bits: int, is_noise: int, low: int) -> list[int]:
        cells = bytearray(8 * count)
        if bits <= 8:
            return [value + low for value in self._fine(count, bits)]
        for at in range(bits // 8):
            cells[at::8] = (self._noise if is_noise else self._cells).read(count)
        if bits % 8:
            cells[bits // 8 :: 8] = self._fine(count, bits % 8)
        return [value + low for value in struct.unpack(f"<{count}Q", cells)]

    def _fine(self, count: int, bits: int) -> bytes:
        if bits == 8:
            return self._cells.read(count)
        if bits > 4:
            low = _LOW[bits]
            lower, upper = self._fine(count, low), self._fine(count, bits - low)
            return bytes([above << low | value for value, above in zip(lower, upper, strict=True)])
        base, each = _BASES[bits]
        number = int.from_bytes(self._cells.read(-(-count * each // 8)), "little")
        return f"{number:0{count}{_LETTERS[base]}}".encode().translate(_VALUES)


# ---- a record's columns

_STATE_COLUMNS = 9  # of an agent, beside the id: see db.reservations.AGENT_COLUMNS
_IDLE = 7
_CLOCK_COLUMNS = 7  # of a member, beside group and agent
_OFFERED, _VIRTUAL, _WEIGHT, _TIER = range(4)
_NO_SEAT = Member(0, 0)
_STEP = 2**30  # of virtual time, as core.strategies has it; with another one there, more bytes are stored here


class _Seats(NamedTuple):
    """Agents as members of a group, by column. Where they are none, a stand-in or a member of before, 0."""

    agents: Sequence[int]
    positions: Sequence[int]
    tiers: Sequence[int]
    weights: Sequence[int]
    logins: Sequence[Sequence[str]]
    first_logins: Sequence[str]


class _Configuration:
    """What a version of the configuration says of agents and members."""

    def __init__(self, project: Project | None) -> None:
        self.project = project
        self._agents: Mapping[int, Agent] = project.agents if project else {}
        groups = project.groups.items() if project else ()
        self._groups: Mapping[int | None, Group] = {group_id: group for group_id, group in groups}  # noqa: C416
        self._members: dict[int | None, Mapping[int, Member]] = {}
        self._seats: dict[int | None, _Seats] = {}  # the last of each group: most often they are asked for again

    def has_cap(self, agents: Iterable[int]) -> bool:
        """Has one of them one? Of who is not known it is not known."""
        return any(agent not in self._agents or self._agents[agent].daily_cap is not None for agent in agents)

    def strategy(self, group: int | None) -> str:
        return self._groups[group].strategy if group in self._groups else ""

    def _of_group(self, group: int | None) -> Mapping[int, Member]:
        members = self._members.get(group)
        if members is None:
            of_group = self._groups[group].members if group in self._groups else ()
            members = self._members[group] = {member.agent_id: member for member in of_group}
        return members

    def positions(self, group: int | None, agents: Sequence[int]) -> list[int]:
        members = self._of_group(group)
        return [members.get(agent, _NO_SEAT).position for agent in agents]

    def seats(self, group: int | None, agents: Sequence[int]) -> _Seats:
        last = self._seats.get(group)
        if last is not None and last.agents == agents:
            return last
        members = self._of_group(group)
        seats = [members.get(agent, _NO_SEAT) for agent in agents]
        logins = [self._agents[agent].sip_logins if agent in self._agents else () for agent in agents]
        self._seats[group] = found = _Seats(
            agents,
            [seat.position for seat in seats],
            [seat.tier for seat in seats],
            [seat.weight for seat in seats],
            logins,
            [own[0] if own else "" for own in logins],
        )
        return found


_last = _Configuration(None)


def _configuration(project: Project | None) -> _Configuration:
    """Kept for the next record: most often it is of the same project."""
    global _last  # noqa: PLW0603
    found = _last
    if found.project is not project:
        _last = found = _Configuration(project)
    return found


class _Trial:
    """A trial's candidates, by column. `head`: group, strategy, how many, how many columns the strategy gave (-3: there
    is no key), and are they in the order of `places`, not in that of the record?
    """

    def __init__(self, head: Sequence[Any]) -> None:
        self.head = head
        self.group, self.strategy, self.count, self.middle, self.is_sorted = head
        self.places: Sequence[int] = []
        self.logins: Sequence[str] = []
        self.skips: Sequence[str | None] = []
        self.keys: list[Sequence[Any]] = [[]] * (self.middle + 3)
        self.positions: Sequence[int] = []

    @classmethod
    def of(
        cls, group: int | None, rows: Sequence[Sequence[Any]], place: Mapping[int, int], known: _Configuration
    ) -> _Trial:
        eligible = next((at for at, row in enumerate(rows) if row[2] is not None), len(rows))
        middle = len(rows[0]) - 6 if eligible else -3
        if -3 < middle < 0:
            raise ValueError("a key of another length")
        agents, logins, skips, *keys = _columns(rows[:eligible], 6 + middle)
        others, logins_of_others, why = _columns(rows[eligible:], 3)
        if None in why:
            raise ValueError("an eligible one among the skipped")
        in_order = list(zip(*keys, strict=True)) if keys else [()] * eligible
        positions = known.positions(group, others)
        is_sorted = all(len(set(each)) == len(each) and each == sorted(each) for each in (in_order, positions))
        trial = cls([group, known.strategy(group), len(rows), middle, int(is_sorted)])
        trial.places = [place[agent] for agent in (*agents, *others)]
        trial.logins, trial.skips, trial.keys = (*logins, *logins_of_others), (*skips, *why), keys
        if is_sorted:
            order = sorted(range(len(rows)), key=trial.places.__getitem__)
            trial.places = [trial.places[at] for at in order]
            trial.logins, trial.skips = [trial.logins[at] for at in order], [trial.skips[at] for at in order]
            of_eligible = [at for at in order if at < eligible]
            trial.keys = [[column[at] for at in of_eligible] for column in keys]
        return trial

    def rows(self, ids: Sequence[int]) -> list[list[Any]]:
        """As they stand in the record."""
        keys = zip(*self.keys, strict=True) if self.keys else repeat(())
        rows = [
            [ids[place], login, skip, *(next(keys) if skip is None else ())]
            for place, login, skip in zip(self.places, self.logins, self.skips, strict=True)
        ]
        if not self.is_sorted:
            return rows
        eligible = sorted((row for row in rows if row[2] is None), key=itemgetter(slice(3, None)))
        skipped = sorted((at for at, row in enumerate(rows) if row[2] is not None), key=self.positions.__getitem__)
        return eligible + [rows[at] for at in skipped]


class _Parts:
    """A record by column. `head`: what is no column."""

    def __init__(self, head: list[Any]) -> None:
        self.head = head
        self.rest, self.inputs, self.known, self.count, self.others, self.first, self.strangers, trials = head
        self.trials = [_Trial(trial) for trial in trials]
        self.ids: list[int] = []
        self.states: list[Sequence[Any]] = [[]] * _STATE_COLUMNS
        self.groups: Sequence[int] = []
        self.places: Sequence[int] = []  # of the members' agents among `ids`
        self.clocks: list[Sequence[Any]] = [[]] * _CLOCK_COLUMNS

    @classmethod
    def of(cls, record: Record, known: _Configuration) -> _Parts:
        """Raises LookupError, TypeError or ValueError where the record is not as routing._row makes it."""
        rest, inputs = dict(record), dict(record["inputs"])
        trials = rest.pop("trials")
        del rest["inputs"]
        members, others = inputs.pop("members"), inputs.pop("agents")
        groups, offered, stood_at, head_start, day, agents, *states = _columns(members, 6 + _STATE_COLUMNS)
        ids = list(agents)
        is_each_once = not others and len(set(ids)) == len(ids)
        if not is_each_once:
            of_agents: dict[int, Sequence[Any]] = {}
            for row in (*(member[5:] for member in members), *others):
                if of_agents.setdefault(row[0], row) != row:
                    raise ValueError("an agent in two states")
            ids = list(of_agents)
            states = _columns(of_agents.values(), 1 + _STATE_COLUMNS)[1:]
        place = dict(zip(ids, range(len(ids)), strict=True))
        strangers = sorted({row[0] for _group, rows in trials for row in rows if row[0] not in place})
        place |= zip(strangers, range(len(ids), len(ids) + len(strangers)), strict=True)
        made = [_Trial.of(group, rows, place, known) for group, rows in trials]
        heads = [trial.head for trial in made]
        places_of_others, first = [place[agent[0]] for agent in others], ids[0] if ids else 0
        parts = cls([rest, inputs, len(ids), len(members), places_of_others, first, strangers, heads])
        parts.trials, parts.ids, parts.states, parts.groups = made, ids, states, groups
        parts.places = list(range(len(ids))) if is_each_once else [place[agent] for agent in agents]
        parts.clocks = [offered, *_columns(stood_at, 4), head_start, day]
        parts.settle(known)
        return parts

    def settle(self, known: _Configuration) -> None:
        """Leave out what decided nothing, see `pack`."""
        now, is_idle_since_pause = self.inputs["now"], self.inputs["laws"] > 1
        status, paused, reserved, wrap_up, cooling, answered, day, ended, since = self.states
        nothing: Sequence[Any] = [None] * len(status)
        idle: Sequence[Any] = nothing
        strategies = {known.strategy(group) for group in set(self.groups)}
        if not strategies.isdisjoint({"longest_idle", ""}):
            instants = [[at or 0 for at in ended], [at or 0 for at in since]]
            if is_idle_since_pause and any(paused):
                instants.append([until if until and until <= now else 0 for until in paused])
            idle = [at or None for at in map(max, *instants)]
        if strategies.isdisjoint({"fewest_calls", ""}) and not known.has_cap(self.ids):
            answered, day = [0] * len(status), nothing
        untils = (
            [until if until and until > now else None for until in column] if any(column) else nothing
            for column in (paused, reserved, wrap_up, cooling)
        )
        self.states = [status, *untils, answered, day, idle, nothing]

    def record(self) -> Record:
        """Back in rows."""
        agents = [list(row) for row in zip(self.ids, *self.states, strict=False)]
        offered, virtual, weight, tier, left_at, head_start, day = self.clocks
        stood_at = map(list, zip(virtual, weight, tier, left_at, strict=True))
        clocks = zip(self.groups, offered, stood_at, head_start, day, self.places, strict=True)
        members = [[*clock, *agents[place]] for *clock, place in clocks]
        inputs = self.inputs | {"members": members, "agents": [agents[place] for place in self.others]}
        trials = [[trial.group, trial.rows(self.ids)] for trial in self.trials]
        return {**self.rest, "inputs": inputs, "trials": trials}


def _columns(rows: Collection[Sequence[Any]], count: int) -> list[Sequence[Any]]:
    columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * count
    if len(columns) != count:
        raise ValueError("a row of another length")
    return columns


def _exchange(columns: _Writer | _Reader, parts: _Parts, known: _Configuration) -> None:
    """Take all columns in; or give all out, in the same order."""
    count = parts.known
    ids = columns.column(parts.ids, count, list(range(parts.first, parts.first + count)))
    parts.ids = [*ids, *parts.strangers]
    parts.states = [columns.column(column, count) for column in parts.states]
    parts.groups = columns.column(parts.groups, parts.count)
    parts.places = columns.column(parts.places, parts.count, list(range(parts.count)))
    expected: list[Sequence[int] | None] = [None] * _CLOCK_COLUMNS
    if len(set(parts.groups)) == 1:
        seats = known.seats(parts.groups[0], [parts.ids[place] for place in parts.places])
        expected[_WEIGHT], expected[_TIER] = seats.weights, seats.tiers
    parts.clocks = [
        columns.column(column, parts.count, others) for column, others in zip(parts.clocks, expected, strict=True)
    ]
    for trial in parts.trials:
        _exchange_trial(columns, parts, trial, known)


def _exchange_trial(columns: _Writer | _Reader, parts: _Parts, trial: _Trial, known: _Configuration) -> None:
    of_group = [group == trial.group for group in parts.groups]
    clock_at = dict(zip(compress(parts.places, of_group), compress(range(parts.count), of_group), strict=True))
    places = trial.places = columns.column(trial.places, trial.count, list(clock_at)[: trial.count])
    seats = known.seats(trial.group, [parts.ids[place] for place in places])
    trial.positions = seats.positions
    trial.skips = columns.column(trial.skips, trial.count)
    trial.logins = _exchange_logins(columns, trial.logins, seats)
    if not trial.keys:
        return
    is_eligible = [skip is None for skip in trial.skips]

    def of_eligible(column: Iterable[Any]) -> list[Any]:
        return list(compress(column, is_eligible))

    eligible = _Eligible(parts, of_eligible(places), clock_at, of_eligible(seats.agents), of_eligible(seats.weights))
    by_strategy = _EXPECTED.get(trial.strategy, _nothing)(eligible)
    expected = [
        of_eligible(seats.tiers),
        *islice(chain(by_strategy, repeat(None)), trial.middle),
        of_eligible(seats.positions),
        of_eligible(trial.logins),
    ]
    count = len(eligible.places)
    trial.keys = [columns.column(column, count, others) for column, others in zip(trial.keys, expected, strict=True)]


def _exchange_logins(columns: _Writer | _Reader, logins: Sequence[str], seats: _Seats) -> Sequence[str]:
    """Logins, as numbers among the agents' own, -1 for none. One that the agent does not have stands for itself."""
    named: list[Any] = [0] * len(logins)
    for at in compress(range(len(logins)), map(ne, logins, seats.first_logins)):
        login, own = logins[at], seats.logins[at]
        named[at] = -1 if login == "" else own.index(login) if login in own else login
    found = columns.column(named, len(seats.agents))
    if found is named:
        return logins
    return [
        name if name.__class__ is str else own[name] if 0 <= name < len(own) else ""
        for name, own in zip(found, seats.logins, strict=True)
    ]


class _Eligible(NamedTuple):
    """What the keys of the eligible are made from."""

    parts: _Parts
    places: Sequence[int]
    clock_at: Mapping[int, int]
    agents: Sequence[int]
    weights: Sequence[int]

    def clock(self, column: int) -> list[Any]:
        values = self.parts.clocks[column]
        return [values[at] if at >= 0 else 0 for at in map(self.clock_at.get, self.places, repeat(-1))]

    def idle(self) -> list[Any]:
        values = [*self.parts.states[_IDLE], *repeat(0, len(self.parts.strangers))]
        return [values[place] or 0 for place in self.places]

    def stands_at(self) -> list[Any]:
        times = zip(self.clock(_VIRTUAL), self.weights, strict=True)
        return [time + _STEP // max(1, weight) // 2 for time, weight in times]

    def drawn(self) -> list[str]:
        seed = self.parts.inputs["seed"]
        return [sha256(f"{seed}:{agent}".encode()).hexdigest()[:16] for agent in self.agents]


def _nothing(_eligible: _Eligible) -> list[Any]:
    return []


_EXPECTED: Mapping[str, Callable[[_Eligible], list[Any]]] = {
    "round_robin": lambda eligible: [eligible.clock(_OFFERED)],
    "longest_idle": lambda eligible: [eligible.idle(), eligible.clock(_OFFERED)],
    "fewest_calls": lambda eligible: [None, eligible.clock(_OFFERED)],
    "weighted": lambda eligible: [eligible.stands_at(), eligible.clock(_OFFERED)],
    "random": lambda eligible: [eligible.drawn()],
}
"""By strategy: what its columns of the key most often are. What they are else is stored."""
