"""The schema of the configuration: every key with its default, its help, its limits and what it refers to.

Each key is checked by itself; check.py checks across keys. `python -m router.configuration.schema` prints the tables
of docs/configuration-file.md; a test keeps them equal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from ipaddress import ip_network
from typing import Annotated, Any, NamedTuple, cast, get_args, get_origin
from urllib.parse import urlsplit

import phonenumbers
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

from router.core.instants import parse_instant
from router.core.model import WhenUnknown
from router.core.patterns import ANONYMOUS, PatternError, WrongPattern, number_test, param_tests
from router.core.schedule_words import parse_schedule
from router.core.strategies import STRATEGIES
from router.core.words import N_
from router.hook.fields import ANSWERS, FIELD_NAMES, MAX_KEY_CHARS, RPC_RESULTS, is_key
from router.numbers import MAX_NUMBER_CHARS, normalise_number, normalise_prefix
from router.presence.source import OnlineFrom
from router.presence.sources import SOURCES

MAX_NAME_CHARS = 200
MAX_ID_CHARS = 100  # the project's id on the platform
MAX_SECRET_CHARS = 1000
MAX_VALUE_CHARS = 1000  # of a parameter in a rule

UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Line breaks and invisible characters, which no text of a file or form may hold."""

Path = tuple[str | int, ...]
"""Where a value stands: keys and positions from the top, as ("groups", 0, "members", 1, "agent")."""


class SchemaError(ValueError):
    """A value that cannot be used: what is wrong with it, and what to write instead.

    `kind` and `values`: the same, to be put in other words.
    """

    def __init__(self, message: str, remedy: str, kind: str = "", **values: Any) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy, self.kind, self.values = message, remedy, kind, values


class Fault(NamedTuple):
    """What is wrong at a place, and what to write instead. `kind` and `values`: the same, to be put in other words."""

    path: Path
    message: str
    remedy: str
    kind: str = ""
    values: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def nearest(word: str, known: Collection[str]) -> str:
    """Return the known word that was likely meant; "" when none is similar."""
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[near[0]] if near else ""


def advise(word: str, known: Collection[str], otherwise: str) -> str:
    """Return the remedy for a word that is not among the known ones."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else otherwise


# ---- checks of single values


def _one_of(known: Collection[str], what: str) -> AfterValidator:
    def check(word: str) -> str:
        if word not in known:
            remedy = advise(word, known, f"use one of {', '.join(known)}")
            raise SchemaError(f"there is no {what} {word!r}", remedy, "choice", known=", ".join(known))
        return word

    return AfterValidator(check)


def _listed(value: object) -> object:
    """Return a single value as a list."""
    return [value] if isinstance(value, str) else value


def check_name(text: str) -> str:
    """Return a valid name. Raises SchemaError."""
    if not text or len(text) > MAX_NAME_CHARS:
        raise SchemaError(f"{text[:40]!r} is not a valid name", f"write 1 to {MAX_NAME_CHARS} characters", "name")
    if not text.isprintable():
        raise SchemaError(f"{text[:40]!r} holds an invisible character", "type the name again", "invisible")
    return text


def is_token(text: str) -> bool:
    """Return whether this can be sent as a destination: one word without spaces, of bounded length."""
    return 0 < len(text) <= MAX_NUMBER_CHARS and text.isprintable() and not any(c.isspace() for c in text)


def is_login(text: str) -> bool:
    """Return whether this can be a SIP login. In forms several are separated by commas and semicolons."""
    return is_token(text) and not set(text) & {",", ";"}


def _check(kind: str, is_valid: Callable[[str], object], remedy: str) -> Callable[[str], str]:
    """Return a function that returns a valid text of this kind, and raises SchemaError for others."""

    def check(text: str) -> str:
        if not is_valid(text):
            raise SchemaError(f"{text[:40]!r} is not a valid {kind}", remedy, kind, text=text[:80])
        return text

    return check


check_login = _check(
    "SIP login",
    is_login,
    f"write it without spaces, commas and semicolons, at most {MAX_NUMBER_CHARS} characters",
)
check_param_name = _check(
    "name of a parameter",
    lambda text: 0 < len(text) <= MAX_NAME_CHARS and text.isprintable(),
    f"write 1 to {MAX_NAME_CHARS} visible characters",
)
_check_alias = _check(
    "name of a field",
    lambda text: is_key(text) and "," not in text,
    f"write 1 to {MAX_KEY_CHARS} visible characters, without commas",
)
_check_key = _check("key", is_key, f"write 1 to {MAX_KEY_CHARS} visible characters")


def check_direction(text: str, _country: str = "") -> str:
    """Return a call's direction in lower case. Raises SchemaError."""
    if not text or len(text) > 100 or not text.isprintable() or any(c.isspace() for c in text):
        raise SchemaError(
            f"{text[:40]!r} is not a valid direction", "write one word, as in, out or callback", "direction"
        )
    return text.casefold()


def _at_most(chars: int) -> AfterValidator:
    def check(text: str | SecretStr) -> str | SecretStr:
        if len(text) > chars:
            # not quoted: it may be a secret
            raise SchemaError("this is too long", f"write at most {chars} characters", "too long", n=chars)
        if isinstance(text, str) and UNFIT.search(text):
            raise SchemaError(f"{text[:40]!r} holds an invisible character", "type it again", "invisible")
        return text

    return AfterValidator(check)


def _time_zone(name: str) -> str:
    parse_schedule("", name)
    return name


def _country(code: str) -> str:
    if code.upper() not in phonenumbers.SUPPORTED_REGIONS:
        example = "GB" if code.upper() == "UK" else "UA"
        raise SchemaError(
            f"{code[:40]!r} is not a valid country", f"write its two letters (ISO 3166), as {example}", "country"
        )
    return code.upper()


def _address_range(text: str) -> str:
    try:
        network = ip_network(text, strict=False)  # 10.0.0.5/8 is what people write for 10.0.0.0/8
    except ValueError:
        raise SchemaError(
            f"{text[:80]!r} is not a valid address",
            "write one as 203.0.113.7, or a range as 203.0.113.0/24",
            "address",
            text=text[:80],
        ) from None
    return str(network.network_address if network.num_addresses == 1 else network)


def _basic_auth(secret: SecretStr) -> SecretStr:
    user, colon, _ = secret.get_secret_value().partition(":")
    if secret.get_secret_value() and not (user and colon):
        raise SchemaError(
            "the credentials have no colon between user and password", "write user:password", "credentials"
        )
    return secret


def _api_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and not set(text) & set(" ?#")
    except ValueError:  # an invalid IPv6 address in brackets, or an invalid port
        good = False
    if not good or "@" in text:
        raise SchemaError(
            "this is not a valid address of an API",  # not quoted: it may hold a password
            "write it as https://api.ringostat.net, without user, ? and #",
            "address of an API",
        )
    return text


def _preference(value: object) -> object:
    match value:
        case "last_agent":
            return value
        case {"param": str(name)} if len(value) == 1:  # type: ignore[arg-type]
            check_param_name(name)
            return value
    raise SchemaError(
        "this is not a valid preference",
        "write last_agent, or {param: NAME}, the parameter that names an agent",
        "preference",
    )


Name = Annotated[str, AfterValidator(check_name)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
Logins = Annotated[tuple[Annotated[str, AfterValidator(check_login)], ...], BeforeValidator(_listed)]
Addresses = Annotated[tuple[Annotated[str, AfterValidator(_address_range)], ...], BeforeValidator(_listed)]
Alias = Annotated[str, AfterValidator(_check_alias)]
Aliases = Annotated[tuple[Alias, ...], BeforeValidator(_listed), Field(min_length=1)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
SomeTexts = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Params = dict[Annotated[str, AfterValidator(check_param_name)], SomeTexts]
Secret = Annotated[SecretStr, _at_most(MAX_SECRET_CHARS)]


# ---- values that are read by the project's country or time zone


def destination(text: str, country: str) -> str:
    """Normalise an overflow: a number to international notation, any other single word and "" stay as they are.

    Raises SchemaError.
    """
    if not text:
        return ""
    number = "" if set(text) & {":", "@"} else normalise_number(text, country)
    if number.isdigit():
        return number
    if not is_token(text):
        raise SchemaError(
            f"{text[:40]!r} is not a valid destination",
            f"write a number, a SIP login or the id of a scheme: one word, at most {MAX_NUMBER_CHARS} characters",
            "destination",
        )
    return text


_MAX_DIGITS = 15  # E.164
_DASH = re.compile(r"\s+[-–—]\s+|[–—]")  # between the ends of a range; a dash inside a number has no spaces
_SIP_NAME = re.compile(r"[^\W\d][^\s*]*")


def number_pattern(value: str, country: str) -> str:
    """Normalise a value of `caller` or `dialed`: 380441112233, 38050*, a range, `anonymous` or a SIP name.

    National notation is that of the country: "050*" is 38050* in UA. Raises PatternError.
    """
    text = value.strip()
    if text.casefold() == ANONYMOUS:
        return ANONYMOUS
    if len(text) > MAX_NUMBER_CHARS or UNFIT.search(text):
        raise PatternError(WrongPattern.LONG, text=value, n=MAX_NUMBER_CHARS)
    if text.endswith("*"):
        head = text[:-1].strip()
        pattern = (head if _SIP_NAME.fullmatch(head) else normalise_prefix(head, country)) + "*"
    elif ends := _range_ends(text, country):
        pattern = "-".join(ends)
    else:
        pattern = normalise_number(text, country)
        if text and not pattern:
            raise PatternError(WrongPattern.HIDDEN, text=value)
    try:
        number_test([pattern])
    except PatternError as error:
        raise PatternError(error.kind, text=value) from None
    if _SIP_NAME.fullmatch(pattern.removesuffix("*")):
        return pattern
    if not all(part.isdigit() and len(part) <= _MAX_DIGITS for part in pattern.removesuffix("*").split("-")):
        raise PatternError(WrongPattern.NUMBER, text=value)
    return pattern


def notation(value: str, country: str, read: Callable[[str, str], str]) -> str:
    """Return a notation of a stored number, pattern or destination that `read` reads back in this country.

    It has a plus where it would be read as a national number without one: 15112345678 is German in Germany.
    """
    for written in (value, f"+{value}", "-".join(f"+{part}" for part in value.split("-"))):
        try:
            if read(written, country) == value:
                return written
        except (SchemaError, PatternError):
            continue
    return value


def check_param_value(text: str, _country: str = "") -> str:
    """Return a valid value of a parameter in a rule. Raises PatternError."""
    if not text:
        raise PatternError(WrongPattern.EMPTY, text=text)
    if len(text) > MAX_VALUE_CHARS or UNFIT.search(text):
        raise PatternError(WrongPattern.VALUE, text=text[:40], n=MAX_VALUE_CHARS)
    (test,) = param_tests([text])
    if test.value.startswith("*") or test.value.endswith("*"):
        raise PatternError(WrongPattern.STARS, text=text)
    return text


def _range_ends(text: str, country: str) -> list[str]:
    """Return the two numbers of a range; [] for a single number, which may have dashes too."""
    parts = _DASH.split(text)
    if len(parts) != 2:
        parts = text.split("-")
        digits = [sum(c.isdecimal() for c in part) for part in parts]
        if len(parts) != 2 or digits[0] != digits[1]:
            return []
    return [normalise_number(part.strip(), country) for part in parts]


def instant(text: str, time_zone: str) -> str:
    """Normalise a date, or a date and time, of this zone unless it has an offset, to ISO 8601 in UTC.

    A date alone is its first moment. Raises InstantError.
    """
    return parse_instant(text, time_zone).isoformat()


# ---- the keys


MAX_TEXT_CHARS = 1000  # of one value of a condition


class Notes(NamedTuple):
    """Notes about a key besides its type.

    `takes` and `shown`: its values and its default, in words. `words`: the label of each value, `helps`: what choosing
    it does. All texts are English; the pages translate them.
    """

    takes: str
    label: str = ""
    unit: str = ""
    shown: str = ""
    words: Mapping[str, str] = {}
    helps: Mapping[str, str] = {}
    most: int = 0  # entries of its list, so that no change delays calls
    reads: Callable[[str, str], str] | None = None  # normalises its texts, given the country
    refers: str = ""  # "schedule", "agent" or "group": its texts name one
    is_instant: bool = False
    is_for_owners: bool = False  # a secret, or where it is sent: whoever may change the address could get the secret
    section: str = ""  # of a page, or a page of the settings, with others of its kind: "limits", "options", "calls"


def _key(default: Any, label: str, help: str, takes: str, limits: Mapping[str, Any] = {}, **notes: Any) -> Any:  # noqa: A002
    """Describe a key: its default (... for none), its label, its help, what it takes, its limits, its notes."""
    extra: dict[str, Any] = {"notes": Notes(takes, label, **notes)}
    return Field(default, description=help, json_schema_extra=extra, **limits)


def _seconds(default: float, label: str, help: str, least: float, most: float, **notes: Any) -> Any:  # noqa: A002
    takes = f"a number of seconds from {least:g} to {most:g}"
    limits = {"ge": least, "le": most, "allow_inf_nan": False}
    return _key(default, label, help, takes, limits, unit=N_("seconds"), **notes)


def _whole(default: Any, label: str, help: str, least: int, most: int, **notes: Any) -> Any:  # noqa: A002
    takes = f"a whole number from {least} to {most}"
    return _key(default, label, help, takes, {"ge": least, "le": most}, **notes)


def _switch(default: bool, label: str, help: str, **notes: Any) -> Any:  # noqa: A002
    return _key(default, label, help, "true or false", **notes)


def _named(help: str) -> Any:  # noqa: A002
    return _key(..., N_("Name"), help, "a name")


_NUMBERS: dict[str, Any] = {
    "takes": "numbers (`380441112233`), prefixes (`+38050*`), ranges (`380441112200-380441112299`), `anonymous`",
    "reads": number_pattern,
    "most": 1000,
}
_TESTS: dict[str, Any] = {
    "takes": "for each parameter one or more of `text`, `text*` (begins with), `*text*` (contains), `*` (is there)",
    "reads": check_param_value,
    "most": 1000,
}
_DESTINATION: dict[str, Any] = {
    "label": N_("Overflow"),
    "takes": 'a number, a SIP login or the id of a scheme; `""` answers empty on purpose',
    "reads": destination,
}
_INSTANT = "a date or a time, as 2026-12-25 or 2026-12-24T14:00"
_AGENT: dict[str, Any] = {"takes": "the name of an agent", "refers": "agent"}
_GROUP: dict[str, Any] = {"takes": "the name of a group", "refers": "group"}
_SCHEDULE: dict[str, Any] = {"takes": "the name of a schedule", "refers": "schedule", "shown": N_("always")}


class Config(BaseModel):
    """A mapping of the file. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class HookConfig(Config):
    """`hook`: how requests are read and answered."""

    answer: Annotated[str, _one_of(ANSWERS, "form of answer")] = _key(
        "auto",
        N_("Form of the answer"),
        N_("JSON-RPC for JSON-RPC, a JSON object for JSON, else plain text; or always the same."),
        "auto, http, json or json-rpc",
        words={
            "auto": N_("As the question was asked"),
            "http": N_("Plain text"),
            "json": N_("JSON object"),
            "json-rpc": "JSON-RPC",
        },
    )
    key: Annotated[str, AfterValidator(_check_key)] = _key(
        "destination",
        N_("Name in response for destination"),
        N_("The key in a JSON answer, as in Ringostat’s cabinet."),
        "a name",
    )
    rpc_result: Annotated[str, _one_of(RPC_RESULTS, "shape of result")] = _key(
        "object",
        N_("“result” of a JSON-RPC answer"),
        N_("An object, or the destination alone."),
        "object or string",
        words={"object": N_("an object with the key"), "string": N_("the destination itself")},
    )
    retry_seconds: float = _seconds(
        5,
        N_("Repeat the same answer for"),
        N_("If Ringostat asks the same again within this time, it gets the same answer."),
        0,
        3600,
    )
    allow_addresses: Addresses = _key(
        (),
        N_("Allowed addresses"),
        N_("IP addresses and ranges, one per line. Empty: any address that knows the URL."),
        "a list of addresses and CIDR ranges",
        shown="`[]`: any",
        most=1000,
    )
    basic_auth: Annotated[Secret, AfterValidator(_basic_auth)] | None = _key(
        None,
        N_("User and password (HTTP Basic)"),
        N_("Optional. Write user:password; Ringostat must then send the same."),
        'user:password; `""` takes them away',
        shown="as it is stored",
        is_for_owners=True,
    )
    fields: dict[Annotated[str, _one_of(FIELD_NAMES, "field of a call")], Aliases] = _key(
        {},
        N_("More names for fields"),
        N_("For parameters with names of your own. The usual names work without this."),
        f"lists of names for any of {', '.join(FIELD_NAMES)}",
        most=100,
    )


class PresenceConfig(Config):
    """`presence`: who is online and who speaks, and where that is asked."""

    source: Annotated[str, _one_of(SOURCES, "presence source")] = _key(
        "ringostat",
        N_("Platform"),
        N_("The phone system that says who is online."),
        " or ".join(SOURCES),
        words={name: name.capitalize() for name in SOURCES},
        is_for_owners=True,
    )
    api_url: Annotated[str, AfterValidator(_api_url)] = _key(
        "https://api.ringostat.net",
        N_("API address"),
        N_("The address of Ringostat’s API."),
        "an address as https://api.ringostat.net",
        is_for_owners=True,
    )
    auth_key: Secret | None = _key(
        None,
        N_("Auth-key"),
        N_("In Ringostat’s cabinet: Integration, API."),
        'a text; `""` takes it away',
        shown="as it is stored",
        is_for_owners=True,
    )
    online_from: Annotated[str, _one_of([*OnlineFrom], "way to be online")] | None = _key(
        None,
        N_("Online means"),
        N_("A login of a phone or program that registers by SIP, or of Ringostat’s browser extension."),
        "sip, smart_phone or either",
        shown="`sip`; `either` when project_id and token are given",
        words={choice.value: choice.words for choice in OnlineFrom},
    )
    project_id: Annotated[str, _at_most(MAX_ID_CHARS)] = _key(
        "",
        N_("Project id in Ringostat"),
        N_(
            "For the extension and for the import of agents. You find it in the URL of every page of Ringostat’s "
            "cabinet."
        ),
        "a text",
    )
    token: Secret | None = _key(
        None,
        N_("Token of the Smart Phone extension"),
        N_("For the extension only."),
        'a text; `""` takes it away',
        shown="as it is stored",
        is_for_owners=True,
    )
    with_do_not_disturb: bool = _switch(
        False, N_("Count logins in do-not-disturb as online"), N_("For logins of the extension.")
    )
    poll_seconds: float = _seconds(2, N_("Ask every"), N_("How often Ringostat is asked who is online."), 0.1, 3600)
    fresh_seconds: float = _seconds(
        5,
        N_("An answer is fresh for"),
        N_("If it is older when a call comes, the hook asks once more."),
        0,
        3600,
    )
    when_unknown: Annotated[str, _one_of([*WhenUnknown], "policy")] = _key(
        "last_known",
        N_("When presence is not known"),
        N_("When the answer is older than that and Ringostat does not answer again."),
        "last_known, assume_online or overflow",
        words={choice.value: choice.words for choice in WhenUnknown},
        helps={choice.value: choice.help for choice in WhenUnknown},
    )
    last_known_seconds: float = _seconds(
        60,
        N_("Rely on the last known for"),
        N_("After that, calls go to the overflow."),
        0,
        86_400,
    )
    away_seconds: float = _seconds(
        30,
        N_("Ignore shorter gaps in presence"),
        N_("An agent who is offline for less than this does not lose the turn."),
        0,
        3600,
    )
    call_log_days: int = _whole(
        0,
        N_("Read Ringostat’s call log"),
        N_(
            "For rules that prefer whoever last talked with the caller: talks in calls that never came here count too. "
            "0: only the calls of our own log."
        ),
        0,
        365,
        unit=N_("days"),
        section="calls",
    )


class AgentConfig(Config):
    """`agents`: the people who take calls."""

    name: Name = _named(N_("Unique in the project. An agent of another name is another agent."))
    sip_logins: Logins = _key(
        (),
        N_("SIP logins"),
        N_(
            "One a line, as in the phone system. Calls ring at the first one that is online. While one of them is "
            "talking, the agent is busy."
        ),
        "a list of SIP logins",
        most=100,
    )
    paused: bool = _switch(False, N_("Paused"), N_("Gets no calls until resumed."))
    wrap_up_seconds: float = _seconds(0, N_("Wrap-up"), N_("A pause after each talk."), 0, 86_400, section="limits")
    daily_cap: int | None = _whole(
        None,
        N_("Daily cap"),
        N_("No more calls after so many answered ones in a day of the project’s time zone."),
        1,
        100_000,
        shown=N_("no limit"),
        unit=N_("calls a day"),
        section="limits",
    )
    max_talk_per_day: int | None = _whole(
        None,
        N_("Most talk a day"),
        N_("No more calls after so many minutes of talk in a day of the project’s time zone. A talk is never cut off."),
        1,
        1440,
        shown=N_("no limit"),
        unit=N_("minutes a day"),
        section="limits",
    )
    hours: Name | None = _key(None, N_("Working hours"), N_("Outside these hours no call is offered."), **_SCHEDULE)
    staff_id: Annotated[str, _at_most(MAX_NAME_CHARS)] = _key(
        "",
        N_("Staff id"),
        N_("The agent’s id in Ringostat’s staff list. A CRM that names the agent in a call parameter may use it."),
        "a text",
    )
    deputy: Name | None = _key(
        None, N_("Deputy"), N_("Takes the calls while the agent is away."), **_AGENT, shown=N_("nobody")
    )
    away_from: str | None = _key(
        None,
        N_("Away from"),
        N_("When leave begins, in the project’s time zone. Empty: at once."),
        _INSTANT,
        shown="at once",
        is_instant=True,
    )
    away_until: str | None = _key(
        None,
        N_("Away until"),
        N_("When leave ends. Empty: not away."),
        _INSTANT,
        shown="not away",
        is_instant=True,
    )


class MemberConfig(Config):
    """`members` of a group: agents, in order. Within a tier the order counts where the strategy leaves a tie."""

    agent: Name = _key(..., N_("Agent"), "Who it is.", **_AGENT)
    tier: int = _whole(1, N_("Tier"), N_("Lower tiers are tried first, whatever the strategy."), 0, 1000)
    weight: int = _whole(1, N_("Weight"), "The member's share under `weighted`.", 1, 10_000)
    hours: Name | None = _key(None, N_("Hours"), "When the agent answers in this group.", **_SCHEDULE)


class GroupConfig(Config):
    """`groups`: agents who answer one kind of call."""

    name: Name = _named("Unique in the project.")
    strategy: Annotated[str, _one_of(STRATEGIES, "strategy")] = _key(
        "round_robin",
        N_("Strategy"),
        N_("The order in which free members are tried."),
        ", ".join(STRATEGIES),
        words={name: strategy.label for name, strategy in STRATEGIES.items()},
        helps={name: strategy.help for name, strategy in STRATEGIES.items()},
    )
    ring_seconds: float = _seconds(
        25,
        N_("Ring for"),
        N_("How long an agent is reserved for a call that was offered: as long as the phone rings there."),
        0,
        3600,
    )
    overflow: str | None = _key(
        None,
        help=N_("Where a call goes when this group is the last of a rule and nobody is free."),
        **_DESTINATION,
        shown="the project's",
    )
    members: tuple[MemberConfig, ...] = _key((), N_("Members"), "The agents of the group.", "a list", most=2000)


class ScheduleConfig(Config):
    """`schedules`: when something is open. See [schedules](schedules.md)."""

    name: Name = _named("Unique in the project.")
    time_zone: TimeZone | None = _key(
        None, N_("Time zone"), "The time zone of the hours.", "an IANA name as Europe/Kyiv", shown="the project's"
    )
    open: dict[str, Any] = _key(
        {}, N_("Hours"), "Weekly hours.", 'days and their hours, as `mon-fri: ["09:00-18:00"]`', most=100
    )
    exceptions: dict[str, Any] = _key(
        {},
        N_("Dates with other hours"),
        "Dates with other hours.",
        "dates (`2026-12-25`, `2027-01-01..2027-01-08`, `08-24`, `12-31..01-02`, `last mon of may`) and their hours, "
        "or `closed`",
        most=1000,
    )
    exception_names: dict[str, Name] = _key(
        {},
        N_("Names of dates"),
        "What exceptions are called.",
        "dates of `exceptions` and their names, as `2026-12-25: Christmas`",
        most=1000,
    )
    override: Annotated[str, _one_of(("open", "closed"), "override")] | None = _key(
        None,
        N_("Override"),
        "Open or closed, whatever the hours say.",
        "open or closed",
        shown="none",
        words={"open": N_("open"), "closed": N_("closed")},
    )
    override_until: str | None = _key(
        None,
        N_("Override until"),
        "When the override ends.",
        "a time, as 2026-12-24T14:00",
        shown="until it is taken back",
    )


class FreeConfig(Config):
    """`free`, a condition: how many members of a group could be offered the call now."""

    group: Name = _key(..., N_("Free agents of the group"), "The group that is looked at.", **_GROUP)
    fewer_than: int = _whole(..., N_("Fewer free than"), "Matches while fewer members than this are free.", 1, 10_000)


class CalledBeforeConfig(Config):
    """`called_before`, a condition: how long ago the same caller called."""

    within: int = _whole(..., N_("Called before within"), "Matches if that was not longer ago.", 1, 10_000)
    unit: Annotated[str, _one_of(("minutes", "hours", "days"), "unit of time")] = _key(
        ...,
        N_("Called before within, unit"),
        "The unit of `within`.",
        "minutes, hours or days",
        words={"minutes": N_("minutes"), "hours": N_("hours"), "days": N_("days")},
    )
    unanswered: bool = _switch(False, N_("Called before, not answered"), "Only if nobody answered that call.")


class WhenConfig(Config):
    """`when`, the conditions of a rule. Keys are ANDed, the values of one key ORed."""

    caller: SomeTexts = _key((), N_("Caller is"), "Who calls.", **_NUMBERS, shown="anybody")
    not_caller: SomeTexts = _key((), N_("Caller is not"), "Who must not be calling.", **_NUMBERS, shown="nobody")
    dialed: SomeTexts = _key((), N_("Dialed number is"), "The number that was called.", **_NUMBERS, shown="any")
    not_dialed: SomeTexts = _key(
        (), N_("Dialed number is not"), "The number that must not have been called.", **_NUMBERS, shown="none"
    )
    params: Params = _key({}, N_("Parameter %(name)s is"), "Hook parameters; case does not matter.", **_TESTS)
    not_params: Params = _key({}, N_("Parameter %(name)s is not"), "Hook parameters that must not be so.", **_TESTS)
    direction: SomeTexts = _key(
        (),
        N_("Direction is"),
        "The call's direction, in the platform's words.",
        "one or more of in, out, callback, …",
        shown="any",
        most=100,
        reads=check_direction,
    )
    schedule: Name | None = _key(None, N_("Within the hours of"), "Matches while it is open.", **_SCHEDULE)
    outside: Name | None = _key(None, N_("Outside the hours of"), "Matches while it is closed.", **_SCHEDULE)
    free: FreeConfig | None = _key(None, "", "Matches while few are free.", "group and fewer_than", shown="always")
    called_before: CalledBeforeConfig | None = _key(
        None, "", "Matches callers who called not long ago.", "within, unit and unanswered", shown="always"
    )


class RuleConfig(Config):
    """`rules`, in order: the first that matches wins."""

    name: Name = _named("Unique in the project.")
    enabled: bool = _switch(True, N_("Turned on"), N_("A rule that is turned off is skipped."))
    when: WhenConfig = _key(WhenConfig.model_construct(), "", "The conditions.", "see `when`", shown="every call")
    prefer: Annotated[str | dict[str, str], BeforeValidator(_preference)] | None = _key(
        None,
        N_("Preferred agent"),
        "Who is asked before the groups: who last talked with the caller, or whom a hook parameter names by SIP login, "
        "staff id or name.",
        "last_agent or {param: NAME}",
        shown="nobody",
        words={"last_agent": N_("who last talked with the caller"), "param": N_("named by a parameter")},
    )
    prefer_days: int = _whole(30, N_("Looks back"), N_("Talks longer ago do not count."), 1, 3650, unit=N_("days"))
    groups: Names = _key(
        (),
        N_("Groups"),
        N_("In this order, until somebody is free."),
        "a list of names of groups",
        most=100,
        refers="group",
    )
    never: Names = _key(
        (),
        N_("Never to"),
        N_("These calls are never offered to those ticked, whatever the groups say."),
        "a list of names of agents",
        most=1000,
        refers="agent",
        section="options",
    )
    overflow: str | None = _key(
        None,
        help=N_("Where the call goes when nobody can be offered it."),
        **_DESTINATION,
        shown="that of the last group, else the project's",
    )


class RuleTestCallConfig(Config):
    """`call` of a test: what the phone system would send."""

    caller: Annotated[str, _at_most(MAX_NUMBER_CHARS)] = _key(
        "", N_("Caller"), N_("Empty: a hidden number."), "a number", reads=normalise_number
    )
    dialed: Annotated[str, _at_most(MAX_NUMBER_CHARS)] = _key(
        "", N_("Dialed"), N_("The number that is called."), "a number", reads=normalise_number
    )
    direction: Annotated[str, _at_most(MAX_NAME_CHARS)] = _key(
        "", N_("Direction"), N_("As the hook sends it."), "a text"
    )
    params: dict[Annotated[str, AfterValidator(check_param_name)], Annotated[str, _at_most(MAX_TEXT_CHARS)]] = _key(
        {}, N_("Parameter %(name)s"), "Parameters of the hook.", "a text for each parameter", most=100
    )
    at: str | None = _key(
        None,
        N_("Moment"),
        N_("When the call comes, by the project’s clock."),
        "a time, as 2026-12-01T12:00",
        shown="required",
        is_instant=True,
    )


class ExpectConfig(Config):
    """`expect` of a test: what must be decided. At least one of the keys."""

    rule: Name | None = _key(
        None,
        N_("Rule that takes the call"),
        N_("The first that matches."),
        "the name of a rule",
        refers="rule",
        shown=N_("any"),
    )
    groups: Names = _key(
        (),
        N_("Groups that are asked"),
        N_("The groups of the rule, in their order. None ticked: any."),
        "a list of names of groups",
        refers="group",
        most=100,
    )
    agent: Name | None = _key(
        None, N_("Agent who gets the call"), N_("Where the strategy leaves no choice."), **_AGENT, shown=N_("any")
    )
    overflow: str | None = _key(
        None,
        N_("Overflow that the call goes to"),
        N_("Nobody is asked, or nobody is free. Leave empty where an agent gets the call."),
        'a number, a SIP login or the id of a scheme; `""` for an empty answer',
        reads=destination,
        shown="an agent or any overflow",
    )


class RuleTestConfig(Config):
    """`tests`: calls whose answer must stay what it is. A change of the rules that fails one is not published."""

    name: Name = _named("Unique in the project.")
    call: RuleTestCallConfig = _key(
        RuleTestCallConfig.model_construct(), "", "The call.", "see `call`", shown="required"
    )
    free: Names = _key(
        (),
        N_("Free agents"),
        N_("Who is online and not talking then. Nobody ticked: everybody."),
        "a list of names of agents",
        refers="agent",
        most=1000,
        shown="everybody",
    )
    expect: ExpectConfig = _key(
        ExpectConfig.model_construct(), "", "What must be decided.", "see `expect`", shown="required"
    )


class ProjectConfig(Config):
    """`projects`: one tenant each."""

    name: Name = _named("Unique. A project of another name is another project.")
    time_zone: TimeZone = _key(
        "Europe/Kyiv",
        N_("Time zone"),
        N_("The time zone of the project’s days and hours."),
        "an IANA name as Europe/Kyiv",
    )
    country: Annotated[str, AfterValidator(_country)] = _key(
        "UA", N_("Country"), N_("How numbers without a country code are read."), "two letters of ISO 3166"
    )
    overflow: str = _key(
        "",
        help=N_("Where calls go that nobody can take: a number, a SIP login or the id of a forwarding scheme."),
        **_DESTINATION,
        shown="none, which is warned about",
    )
    cool_down_seconds: float = _seconds(
        30,
        N_("Pause after a missed call"),
        N_("The agent is offered no call for this long."),
        0,
        86_400,
        section="calls",
    )
    break_after_no_answers: int = _whole(
        3, N_("Put on break after missed calls in a row"), N_("0: never."), 0, 1000, unit=N_("calls"), section="calls"
    )
    keep_days: int = _whole(
        90,
        N_("Keep the call log for"),
        N_("Older calls are deleted, with the callers’ numbers."),
        1,
        3650,
        unit=N_("days"),
        section="privacy",
    )
    mask_numbers: bool = _switch(
        False,
        N_("Mask callers’ numbers"),
        N_("Callers are shown as 38050***22, on the pages and in the log of the service."),
        section="privacy",
    )
    hook: HookConfig = _key(HookConfig(), "", "The incoming-call hook.", "see `hook`", shown="all its defaults")
    presence: PresenceConfig = _key(
        PresenceConfig(), "", "Where presence comes from.", "see `presence`", shown="all its defaults"
    )
    schedules: tuple[ScheduleConfig, ...] = _key(
        (), N_("Schedules"), "Hours that the rest refers to by name.", "a list", most=1000
    )
    agents: tuple[AgentConfig, ...] = _key((), N_("Agents"), "The people who take calls.", "a list", most=5000)
    groups: tuple[GroupConfig, ...] = _key((), N_("Groups"), "What they answer together.", "a list", most=1000)
    rules: tuple[RuleConfig, ...] = _key((), N_("Rules"), "Which call goes where.", "a list", most=2000)
    tests: tuple[RuleTestConfig, ...] = _key((), N_("Tests"), "What must stay as it is.", "a list", most=200)


SECRETS = {"hook": ("basic_auth",), "presence": ("auth_key", "token")}
"""The keys that are never exported. A file that leaves them out does not change them."""

# ---- reading the models


@lru_cache(maxsize=256)
def part_of(model: type[Config], key: str) -> tuple[type[Config] | None, bool]:
    """Return the model that a key holds, and whether it holds a list of it."""
    annotation = model.model_fields[key].annotation if key in model.model_fields else None
    options = get_args(annotation) if get_origin(annotation) is not None else (annotation,)
    for option in options:
        if isinstance(option, type) and issubclass(option, Config):
            return option, get_origin(annotation) is tuple
    return None, False


# ---- the reference, rendered from the models


def notes_of(field: FieldInfo) -> Notes:
    """Return the notes of a key."""
    return cast("Notes", cast("Mapping[str, Any]", field.json_schema_extra)["notes"])


def section_of(model: type[Config], name: str) -> list[tuple[str, Notes]]:
    """Return the keys of this section of a page, with their notes."""
    found = ((key, notes_of(field)) for key, field in model.model_fields.items())
    return [(key, notes) for key, notes in found if notes.section == name]


def bounds(model: type[Config], key: str) -> dict[str, Any]:
    """Return the least and the most of a number; {} for what is not a number."""
    names = {"ge": "least", "le": "most"}
    rules = model.model_fields[key].metadata
    return {names[limit]: getattr(rule, limit) for limit in names for rule in rules if hasattr(rule, limit)}


def most_of(model: type[Config], key: str) -> int:
    """Return how many entries this list may have; 0 for what is not a list."""
    return notes_of(model.model_fields[key]).most


def too_many(model: type[Config], key: str, given: object) -> Fault | None:
    """Return the first list in this key's value that is too long; the path is from the key on."""
    most = most_of(model, key)
    if not most or not isinstance(given, list | tuple | dict):
        return None
    remedy = f"take some out, or divide it: {most:,} fit"
    if len(given) > most:
        return Fault((), f"found {len(given):,} entries", remedy, "entries", {"count": len(given), "most": most})
    entries = given.items() if isinstance(given, dict) else enumerate(given)
    for place, entry in entries:
        if isinstance(entry, list) and len(entry) > most:
            values = {"count": len(entry), "most": most}
            return Fault((place,), f"found {len(entry):,} entries", remedy, "entries", values)
    return None


def takes(field: FieldInfo) -> str:
    """Return what a key takes, in words that complete "write …"."""
    return notes_of(field).takes


def _takes_at_most(field: FieldInfo) -> str:
    notes = notes_of(field)
    return f"{notes.takes}; at most {notes.most:,}" if notes.most else notes.takes


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if shown := notes_of(field).shown:
        return shown
    match field.default:
        case bool() as switch:
            return f"`{str(switch).lower()}`"
        case float() | int() as number:
            return f"`{number:g}`"
        case str() as text:
            return f"`{text}`" if text else '`""`'
    return "none"


SECTIONS: tuple[type[Config], ...] = (
    *(ProjectConfig, HookConfig, PresenceConfig, AgentConfig, GroupConfig, MemberConfig),
    *(RuleConfig, WhenConfig, FreeConfig, CalledBeforeConfig, ScheduleConfig),
    *(RuleTestConfig, RuleTestCallConfig, ExpectConfig),
)


def render_reference() -> str:
    """Render the tables of docs/configuration-file.md: every key with its default."""
    text = ""
    for section in SECTIONS:
        text += f"\n### {section.__doc__}\n\n| key | default | takes | what it does |\n|---|---|---|---|\n"
        for key, field in section.model_fields.items():
            label = f"**{notes_of(field).label}.** " if notes_of(field).label else ""
            text += f"| `{key}` | {_default(field)} | {_takes_at_most(field)} | {label}{field.description} |\n"
    return text


if __name__ == "__main__":
    sys.stdout.write(render_reference())
