"""The values that the rules work on. Frozen, plain, standard library only; docs/glossary.md explains each word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

from router.core.conditions import PreviousCall
from router.core.phones import phone_of, read_phone
from router.core.rules import Rule, RuleIndex
from router.core.schedule import Schedule
from router.core.words import N_, Worded


class Status(Worded):
    """The state that the agent or an admin declared."""

    AVAILABLE = "available", N_("Available")
    ON_BREAK = "on_break", N_("On break")
    OFF_DUTY = "off_duty", N_("Off duty")


class DeviceState(Worded):
    """The observed state of the agent's SIP logins."""

    IDLE = "idle", N_("Idle")
    RESERVED = "reserved", N_("Reserved")
    SPEAKING = "speaking", N_("Speaking")
    OFFLINE = "offline", N_("Offline")
    UNKNOWN = "unknown", N_("Unknown")


class SkipReason(Worded):
    """Why an agent may not be offered a call now, in the order of the checks: the first that fails counts."""

    EXCLUDED = "excluded", N_("Not for such calls")
    PAUSED = "paused", N_("Paused")
    ON_BREAK = "on_break", Status.ON_BREAK.words
    OFF_DUTY = "off_duty", Status.OFF_DUTY.words
    OFF_HOURS = "off_hours", N_("Outside hours")
    PRESENCE_UNKNOWN = "presence_unknown", N_("Presence unknown")
    OFFLINE = "offline", DeviceState.OFFLINE.words
    SPEAKING = "speaking", DeviceState.SPEAKING.words
    RESERVED = "reserved", DeviceState.RESERVED.words
    WRAP_UP = "wrap_up", N_("Wrap-up")
    COOLING_DOWN = "cooling_down", N_("Cooling down")
    AT_CAP = "at_cap", N_("At daily cap")
    TALKED_ENOUGH = "talked_enough", N_("Talked enough today")
    ALREADY_TRIED = "already_tried", N_("Already tried")


class WhenUnknown(Worded):
    """What to do when presence is older than `fresh` and could not be refreshed."""

    LAST_KNOWN = (
        "last_known",
        N_("Go by what was last known"),
        N_("For the time below; then calls go to the overflow."),
    )
    ASSUME_ONLINE = (
        "assume_online",
        N_("Count everybody as online"),
        N_("Calls may ring at somebody who is not there, and come back unanswered."),
    )
    OVERFLOW = (
        "overflow",
        N_("Send calls to the overflow"),
        N_("Nobody is offered a call before presence is known again."),
    )


# ---- the question


@dataclass(frozen=True)
class Call:
    """One inbound call offered to us, as it was read from the request.

    Numbers are E.164 digits without plus where they could be read as numbers, else the text as sent (an extension,
    a SIP name). `caller == ""` is an anonymous caller. `call_id == ""`: the platform sent none.
    """

    call_id: str = ""
    step: str = ""
    caller: str = ""
    dialed: str = ""
    direction: str = ""
    params: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def folded(self) -> Mapping[str, str]:
        """The parameters by case-folded name; of names alike but for case, the first."""
        return {name.casefold(): value for name, value in reversed([*self.params.items()])}

    def may_be_of(self, caller: str) -> bool:
        """Return whether a call with the same id and this caller can be this call.

        An unknown caller can be anybody; another caller with the same id proves that the id identifies nothing.
        """
        return not caller or not self.caller or caller == self.caller

    def with_own_id(self) -> Call:
        """Return the call with an id that no other caller's call has, always the same one."""
        return replace(self, call_id=own_call_id(self.call_id, self.caller))


_OWN_ID = "~"
_OWN_ID_KEEPS = 172  # characters of the id that was sent


def own_call_id(call_id: str, caller: str) -> str:
    """Return the id of this caller's call where other callers' calls came with the same id. It begins like that id."""
    digest = blake2b(f"{caller}\n{call_id}".encode(errors="surrogatepass"), digest_size=8).hexdigest()
    return f"{call_id[:_OWN_ID_KEEPS]}{_OWN_ID}{digest}"


def is_own_call_id(call_id: str, sent: str) -> bool:
    """Return whether `own_call_id` made this id from the id that was sent, for any caller."""
    begin, own, _ = call_id.rpartition(_OWN_ID)
    return bool(own) and begin == sent[:_OWN_ID_KEEPS]


# ---- the configuration


@dataclass(frozen=True, slots=True)
class Agent:
    """A person who takes calls, with SIP logins in the order of preference."""

    id: int
    name: str
    sip_logins: tuple[str, ...] = ()
    paused: bool = False
    wrap_up: timedelta = timedelta(0)
    daily_cap: int | None = None
    max_talk_per_day: int | None = None  # minutes
    hours: Schedule | None = None
    staff_id: str = ""  # the platform's own id of this person (Ringostat: the staff id)
    deputy_id: int | None = None
    away_from: datetime | None = None  # None: at once, if there is an `away_until`
    away_until: datetime | None = None
    phones: tuple[str, ...] = field(init=False, compare=False, repr=False)  # all reserved when one is offered a call

    def __post_init__(self) -> None:
        # In one order, for whoever takes several of them.
        object.__setattr__(self, "phones", tuple(sorted({phone_of(login) for login in self.sip_logins})))

    def is_away(self, now: datetime) -> bool:
        """Return whether the agent is on leave."""
        until, begin = self.away_until, self.away_from
        return until is not None and now < until and (begin is None or begin <= now)


@dataclass(frozen=True, slots=True)
class Member:
    """An agent's place in a group. Lower tiers go first; `weight` is a share, used by `weighted` alone."""

    agent_id: int
    tier: int = 1
    position: int = 0
    weight: int = 1
    hours: Schedule | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Agents who answer one kind of call. `ring` is how long a reservation lasts. `overflow` None: not set here."""

    id: int
    name: str
    strategy: str
    members: tuple[Member, ...] = ()
    ring: timedelta = timedelta(seconds=25)
    overflow: str | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """All that the rules need of one tenant, at one version of its configuration."""

    id: int
    name: str
    version: int
    time_zone: str = "UTC"
    overflow: str = ""
    agents: Mapping[int, Agent] = field(default_factory=dict)
    groups: Mapping[int, Group] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    retry_window: timedelta = timedelta(seconds=5)
    fresh: timedelta = timedelta(seconds=5)
    when_unknown: WhenUnknown = WhenUnknown.LAST_KNOWN
    last_known: timedelta = timedelta(seconds=60)
    away: timedelta = timedelta(seconds=30)  # the shortest gap in presence that counts
    cool_down: timedelta = timedelta(seconds=30)
    break_after_no_answers: int = 3
    index: RuleIndex = field(init=False, compare=False, repr=False)
    _by_name: Mapping[str, Agent] = field(init=False, compare=False, repr=False)
    phone_owners: Mapping[str, tuple[int, ...]] = field(init=False, compare=False, repr=False)  # ids, by `phone_of`
    _logins: _Logins = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        names: dict[str, Agent] = {}
        for of_agent in (lambda a: a.sip_logins, lambda a: (a.staff_id,), lambda a: (a.name,)):
            for agent in self.agents.values():
                for name in of_agent(agent):
                    names.setdefault(name.casefold(), agent)
        names.pop("", None)
        owners: dict[str, tuple[int, ...]] = {}
        for agent in self.agents.values():
            for phone in agent.phones:
                owners[phone] = (*owners.get(phone, ()), agent.id)
        object.__setattr__(self, "phone_owners", owners)
        object.__setattr__(self, "_logins", _Logins(self.agents.values()))
        object.__setattr__(self, "index", RuleIndex(self.rules))
        object.__setattr__(self, "_by_name", names)

    def agent_named(self, text: str) -> Agent | None:
        """Return the agent with this SIP login, else this id on the platform, else this name."""
        return self._by_name.get(text.casefold())

    def login_named(self, name: str, offered: Iterable[str] = ()) -> tuple[str, Agent | None]:
        """Return the login with this name, as its agent's configuration writes it, and the agent; a number has none.

        The name may be a channel's or an address (core/phones.py). An agent named by the platform's id or by name is at
        the first phone that was `offered`, else at the first.
        """
        if login := self._logins.named(name):
            return login, self._logins.owners[login]
        readings = read_phone(name).readings
        for reading in readings:
            if reading and (agent := self.agent_named(reading)) is not None:
                logins = (*offered, *agent.sip_logins)
                return next((login for login in logins if login in agent.sip_logins), name), agent
        number = readings[-1].removeprefix("+")
        return readings[-1] if number.isascii() and number.isdigit() else name, None

    def holder(self, agent_id: int | None, login: str) -> Agent | None:
        """Return the agent with this id or, if it is gone (renamed in the file), the present owner of the login."""
        return self.agents.get(agent_id or 0) or self.login_named(login)[1]

    def phone_named(self, name: str) -> str:
        """Return the login with this name as its agent's configuration writes it; the name itself if nobody has it."""
        return self._logins.named(name) or name


class _Logins:
    """The SIP logins of a project, by all their names."""

    def __init__(self, agents: Iterable[Agent]) -> None:
        self.owners = {login: agent for agent in agents for login in agent.sip_logins}
        self._folded: dict[str, str] = {}
        self._plain: dict[str, list[str]] = {}
        for login in self.owners:
            self._folded.setdefault(login.casefold(), login)
            self._plain.setdefault(read_phone(login).readings[-1].casefold(), []).append(login)

    def named(self, name: str) -> str:
        """Return the configured login by the most literal reading that is one; "" when none is.

        A login that is itself a channel or an address may be named plainly, while only one has that plain name. Logins
        of two hosts are different.
        """
        if name in self.owners:
            return name
        readings, host = read_phone(name)
        for reading in readings:
            if login := self._folded.get(reading.casefold()):
                return login
        called = self._plain.get(readings[-1].casefold(), [])
        return called[0] if len(called) == 1 and "" in (host, read_phone(called[0]).host) else ""


# ---- what is known at the instant of a question


class AgentState(NamedTuple):
    """What an agent declared, and the clocks that calls change. Instants are None when they do not apply."""

    status: str = Status.AVAILABLE
    paused_until: datetime | None = None
    reserved_until: datetime | None = None  # by another call
    wrap_up_until: datetime | None = None
    cooling_until: datetime | None = None
    answered_today: int = 0
    idle_since: int = 0  # µs since the epoch: the later of the last talk's end and becoming available; only compared
    talked_today: int = 0  # seconds


class MemberClock(NamedTuple):
    """A member's turn in one group."""

    last_offered: int = 0  # number of the offer within the group; 0: never
    virtual_time: int = 0  # of `weighted`; 0: new, or was away
    head_start: int | None = None  # calls counted beside those answered today; None: a newcomer
    weight: int = 0  # the member's weight and tier when this was written: what they meant then; 0: not known
    tier: int = 0
    left_at: int = 0  # µs since the epoch: the first call of `weighted` during the member's absence; 0: present
    head_start_seconds: int = 0  # counted beside those talked today, unless a newcomer


@dataclass(frozen=True, slots=True)
class Presence:
    """Logins that a source saw online and speaking, the age of that (None: there was no reading), and call events
    since: login → speaking or not."""

    online: frozenset[str] = frozenset()
    speaking: frozenset[str] = frozenset()
    age: timedelta | None = None
    events: Mapping[str, bool] = field(default_factory=dict)


class LastTalk(NamedTuple):
    """The agent who last talked with a caller, and when. `logged`: only the platform's call log says so."""

    agent_id: int
    at: datetime
    logged: bool = False


LAWS = 3
"""The version of the rules, for stored decisions to be recomputed by theirs.

2: an agent becomes available at the end of a pause or leave, however it ended.
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that changes from call to call. `seed` makes `random` replayable: the call id, or one drawn for a call
    without id. `tried`: the logins already named to this call."""

    now: datetime
    presence: Presence
    agents: Mapping[int, AgentState] = field(default_factory=dict)
    clocks: Mapping[int, Mapping[int, MemberClock]] = field(default_factory=dict)  # by group, by agent
    tried: frozenset[str] = frozenset()
    last_talk: LastTalk | None = None  # with this caller
    previous_call: PreviousCall | None = None  # of this caller, where a rule asks for it
    seed: str = ""
    laws: int = LAWS


# ---- the answer


class Candidate(NamedTuple):
    """One agent considered: the reason why not, or the key by which the eligible were sorted (least first)."""

    agent_id: int
    sip_login: str
    skip: SkipReason | None
    key: tuple[int | str, ...] = ()


class Trial(NamedTuple):
    """One group of the chain (None: the preferred agent) with everybody considered, the eligible first, in order."""

    group_id: int | None
    candidates: tuple[Candidate, ...]


class Offer(NamedTuple):
    """The call goes to this login. The rest is for the claim: the ring time, and the member's clock after it."""

    agent_id: int
    sip_login: str
    group_id: int | None
    ring: timedelta
    clock: MemberClock | None  # None: a preferred agent is no member of the group that asks
    turns: tuple[tuple[int, MemberClock], ...] = ()  # the clocks of others that change with this offer

    @property
    def destination(self) -> str:
        return self.sip_login


class Cause(Worded):
    """Why a call went to the overflow."""

    NO_RULE = "no_rule", N_("No rule matched, so the call went to the overflow of the project.")
    NO_GROUPS = "no_groups", N_("The rule sends such calls straight to its overflow.")
    NOBODY_FREE = "nobody_free", N_("Nobody could be offered the call, so it went to the overflow.")


class OverflowOf(Worded):
    """Whose overflow it is."""

    RULE = "rule", N_("the overflow of the rule")
    GROUP = "group", N_("the overflow of the group")
    PROJECT = "project", N_("the overflow of the project")


class Overflow(NamedTuple):
    """The call goes to a number, login or scheme of the configuration."""

    destination: str
    of: OverflowOf
    cause: Cause


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer and its reasons: the matching rule and a reason for every candidate."""

    rule_id: int | None
    trials: tuple[Trial, ...]
    answer: Offer | Overflow

    @property
    def result(self) -> str:
        """Return "offer" or "overflow"."""
        return "offer" if isinstance(self.answer, Offer) else "overflow"


class Outcome(Worded):
    """The outcome of a call after our answer. None yet: ""."""

    ANSWERED = "answered", N_("Answered")
    NO_ANSWER = "no_answer", N_("No answer")
    BUSY = "busy", N_("Declined or busy")
    ABANDONED = "abandoned", N_("Caller hung up")
    VOICEMAIL = "voicemail", N_("Voice mail")
    FAILED = "failed", N_("Failed")
    UNKNOWN = "unknown", N_("Not known")  # neither presence nor an event shows it
