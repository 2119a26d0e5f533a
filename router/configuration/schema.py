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

from router.core.instants import InstantError, parse_instant
from router.core.model import WhenUnknown
from router.core.patterns import ANONYMOUS, PatternError, number_test, param_tests
from router.core.schedule_words import ScheduleError, parse_schedule
from router.core.strategies import STRATEGIES
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
    """A value that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}; {remedy}")
        self.message, self.remedy = message, remedy


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
            raise SchemaError(f"there is no {what} {word!r}", advise(word, known, f"use one of {', '.join(known)}"))
        return word

    return AfterValidator(check)


def _listed(value: object) -> object:
    """Return a single value as a list."""
    return [value] if isinstance(value, str) else value


def check_name(text: str) -> str:
    """Return a valid name. Raises SchemaError."""
    if not text or len(text) > MAX_NAME_CHARS:
        raise SchemaError(f"{text[:40]!r} is not a valid name", f"write 1 to {MAX_NAME_CHARS} characters")
    if not text.isprintable():
        raise SchemaError(f"{text[:40]!r} holds an invisible character", "type the name again")
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
            raise SchemaError(f"{text[:40]!r} is not a valid {kind}", remedy)
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
        raise SchemaError(f"{text[:40]!r} is not a valid direction", "write one word, as in, out or callback")
    return text.casefold()


def _at_most(chars: int) -> AfterValidator:
    def check(text: str | SecretStr) -> str | SecretStr:
        if len(text) > chars:
            raise SchemaError("this is too long", f"write at most {chars} characters")  # not quoted: it may be a secret
        return text

    return AfterValidator(check)


def _time_zone(name: str) -> str:
    try:
        parse_schedule("", name)
    except ScheduleError as error:
        raise SchemaError(error.message, error.remedy) from None
    return name


def _country(code: str) -> str:
    if code.upper() not in phonenumbers.SUPPORTED_REGIONS:
        example = "GB" if code.upper() == "UK" else "UA"
        raise SchemaError(f"{code[:40]!r} is not a valid country", f"write its two letters (ISO 3166), as {example}")
    return code.upper()


def _address_range(text: str) -> str:
    try:
        network = ip_network(text, strict=False)  # 10.0.0.5/8 is what people write for 10.0.0.0/8
    except ValueError:
        raise SchemaError(
            f"{text[:80]!r} is not a valid address", "write one as 203.0.113.7, or a range as 203.0.113.0/24"
        ) from None
    return str(network.network_address if network.num_addresses == 1 else network)


def _basic_auth(secret: SecretStr) -> SecretStr:
    user, colon, _ = secret.get_secret_value().partition(":")
    if secret.get_secret_value() and not (user and colon):
        raise SchemaError("the credentials have no colon between user and password", "write user:password")
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
        "this is not a valid preference", "write last_agent, or {param: NAME}, the parameter that names an agent"
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
        raise PatternError(value, "is not a valid number", f"write at most {MAX_NUMBER_CHARS} visible characters")
    if text.endswith("*"):
        head = text[:-1].strip()
        pattern = (head if _SIP_NAME.fullmatch(head) else normalise_prefix(head, country)) + "*"
    elif ends := _range_ends(text, country):
        pattern = "-".join(ends)
    else:
        pattern = normalise_number(text, country)
        if text and not pattern:
            raise PatternError(value, "stands for a hidden number", f"write {ANONYMOUS}")
    try:
        number_test([pattern])
    except PatternError as error:
        raise PatternError(value, error.message, error.remedy) from None
    if _SIP_NAME.fullmatch(pattern.removesuffix("*")):
        return pattern
    if not all(part.isdigit() and len(part) <= _MAX_DIGITS for part in pattern.removesuffix("*").split("-")):
        raise PatternError(
            value,
            "is not a valid number",
            f"write it as +380441112233, as +38050* for all that begin so, or {ANONYMOUS}",
        )
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
        raise PatternError(text, "is empty", "write a value, or * for any")
    if len(text) > MAX_VALUE_CHARS or UNFIT.search(text):
        raise PatternError(text[:40], "is not a valid value", f"write at most {MAX_VALUE_CHARS} visible characters")
    (test,) = param_tests([text])
    if test.value.startswith("*") or test.value.endswith("*"):
        raise PatternError(text, "has a star too many", "write *text* for contains, text* for begins with")
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

    A date alone is its first moment. Raises SchemaError.
    """
    try:
        at = parse_instant(text, time_zone)
    except InstantError as error:
        raise SchemaError(error.message, error.remedy) from None
    return at.isoformat()


# ---- the keys


MAX_TEXT_CHARS = 1000  # of one value of a condition


class Notes(NamedTuple):
    """Notes about a key besides its type. `takes` and `shown`: its values and its default, in words."""

    takes: str
    shown: str = ""
    most: int = 0  # entries of its list, so that no change delays calls
    reads: Callable[[str, str], str] | None = None  # normalises its texts, given the country
    refers: str = ""  # "schedule", "agent" or "group": its texts name one
    is_instant: bool = False


def _key(default: Any, description: str, takes: str, limits: Mapping[str, Any] = {}, **notes: Any) -> Any:
    """Describe a key: its default (... for none), its help, what it takes, its limits, its notes."""
    extra: dict[str, Any] = {"notes": Notes(takes, **notes)}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def _seconds(default: float, description: str, least: float, most: float) -> Any:
    takes = f"a number of seconds from {least:g} to {most:g}"
    return _key(default, description, takes, {"ge": least, "le": most, "allow_inf_nan": False})


def _whole(default: Any, description: str, least: int, most: int, *, shown: str = "") -> Any:
    return _key(default, description, f"a whole number from {least} to {most}", {"ge": least, "le": most}, shown=shown)


def _switch(default: bool, description: str) -> Any:
    return _key(default, description, "true or false")


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
    "takes": 'a number, a SIP login or the id of a scheme; `""` answers empty on purpose',
    "reads": destination,
}
_AGENT: dict[str, Any] = {"takes": "the name of an agent", "refers": "agent"}
_GROUP: dict[str, Any] = {"takes": "the name of a group", "refers": "group"}
_SCHEDULE: dict[str, Any] = {"takes": "the name of a schedule", "refers": "schedule", "shown": "always"}


class Config(BaseModel):
    """A mapping of the file. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class HookConfig(Config):
    """`hook`: how requests are read and answered."""

    answer: Annotated[str, _one_of(ANSWERS, "form of answer")] = _key(
        "auto",
        "The form of the answer. `auto`: JSON-RPC for JSON-RPC, a JSON object for JSON, else plain text.",
        "auto, http, json or json-rpc",
    )
    key: Annotated[str, AfterValidator(_check_key)] = _key(
        "destination", "The key of the destination in a JSON answer.", "a name"
    )
    rpc_result: Annotated[str, _one_of(RPC_RESULTS, "shape of result")] = _key(
        "object", "The shape of `result` in a JSON-RPC answer.", "object or string"
    )
    retry_seconds: float = _seconds(5, "The same question within this time gets the same answer.", 0, 3600)
    allow_addresses: Addresses = _key(
        (), "Addresses and ranges that may ask.", "a list of addresses and CIDR ranges", shown="`[]`: any", most=1000
    )
    basic_auth: Annotated[Secret, AfterValidator(_basic_auth)] | None = _key(
        None,
        "Credentials that the platform must send by HTTP Basic.",
        'user:password; `""` takes them away',
        shown="as it is stored",
    )
    fields: dict[Annotated[str, _one_of(FIELD_NAMES, "field of a call")], Aliases] = _key(
        {},
        "More names for what is sent, tried before the built-in ones.",
        f"lists of names for any of {', '.join(FIELD_NAMES)}",
        most=100,
    )


class PresenceConfig(Config):
    """`presence`: who is online and who speaks, and where that is asked."""

    source: Annotated[str, _one_of(SOURCES, "presence source")] = _key(
        "ringostat", "The platform that is asked.", " or ".join(SOURCES)
    )
    api_url: Annotated[str, AfterValidator(_api_url)] = _key(
        "https://api.ringostat.net", "Where its API lives.", "an address as https://api.ringostat.net"
    )
    auth_key: Secret | None = _key(
        None, "The Auth-key of the platform's cabinet.", 'a text; `""` takes it away', shown="as it is stored"
    )
    online_from: Annotated[str, _one_of([*OnlineFrom], "way to be online")] | None = _key(
        None,
        "Which logins count as online: SIP devices, the Smart Phone extension, or both.",
        "sip, smart_phone or either",
        shown="`sip`; `either` when project_id and token are given",
    )
    project_id: Annotated[str, _at_most(MAX_ID_CHARS)] = _key(
        "", "The project's id on the platform, needed for the Smart Phone extension.", "a text"
    )
    token: Secret | None = _key(
        None, "The token for the Smart Phone extension.", 'a text; `""` takes it away', shown="as it is stored"
    )
    with_do_not_disturb: bool = _switch(False, "Smart Phone logins in do-not-disturb count as online too.")
    poll_seconds: float = _seconds(2, "How often the platform is asked.", 0.1, 3600)
    fresh_seconds: float = _seconds(5, "For how long an answer counts as fresh.", 0, 3600)
    when_unknown: Annotated[str, _one_of([*WhenUnknown], "policy")] = _key(
        "last_known",
        "What to do when presence is older than that and the platform does not answer: use the last known, take "
        "everybody to be online, or send calls to the overflow.",
        "last_known, assume_online or overflow",
    )
    last_known_seconds: float = _seconds(60, "For how long the last known presence is relied on.", 0, 86_400)
    away_seconds: float = _seconds(
        30, "A gap in presence shorter than this does not count: the agent keeps the place in every order.", 0, 3600
    )
    call_log_days: int = _whole(
        0,
        "How many days of the platform's call log are read, for rules that prefer whoever last talked with the caller; "
        "0: it is not read.",
        0,
        365,
    )


class AgentConfig(Config):
    """`agents`: the people who take calls."""

    name: Name = _key(..., "Unique in the project. An agent of another name is another agent.", "a name")
    sip_logins: Logins = _key(
        (), "The agent's logins; a call is offered at the first that is online.", "a list of SIP logins", most=100
    )
    paused: bool = _switch(False, "Gets no calls until this is taken back.")
    wrap_up_seconds: float = _seconds(0, "The pause after a talk.", 0, 86_400)
    daily_cap: int | None = _whole(
        None, "No more answered calls than this in a day of the project's time zone.", 1, 100_000, shown="no limit"
    )
    hours: Name | None = _key(None, "Working hours.", **_SCHEDULE)
    staff_id: Annotated[str, _at_most(MAX_NAME_CHARS)] = _key(
        "", "The agent's id on the platform, which a rule's `prefer` may name.", "a text"
    )
    deputy: Name | None = _key(None, "Who stands in while the agent is away.", **_AGENT, shown="nobody")
    away_until: str | None = _key(
        None,
        "On leave until the first moment of this date, or until this time.",
        "a date or a time, as 2026-12-25 or 2026-12-24T14:00",
        shown="not away",
        is_instant=True,
    )


class MemberConfig(Config):
    """`members` of a group: agents, in order. Within a tier the order counts where the strategy leaves a tie."""

    agent: Name = _key(..., "Who it is.", **_AGENT)
    tier: int = _whole(1, "Lower tiers are tried first, whatever the strategy.", 0, 1000)
    weight: int = _whole(1, "The member's share under `weighted`.", 1, 10_000)
    hours: Name | None = _key(None, "When the agent answers in this group.", **_SCHEDULE)


class GroupConfig(Config):
    """`groups`: agents who answer one kind of call."""

    name: Name = _key(..., "Unique in the project.", "a name")
    strategy: Annotated[str, _one_of(STRATEGIES, "strategy")] = _key(
        "round_robin", "The order in which eligible members are tried.", ", ".join(STRATEGIES)
    )
    ring_seconds: float = _seconds(25, "How long an agent is reserved for a call that was offered.", 0, 3600)
    overflow: str | None = _key(
        None,
        "Where calls go when this group is the last of a rule and nobody is free.",
        **_DESTINATION,
        shown="the project's",
    )
    members: tuple[MemberConfig, ...] = _key((), "The agents of the group.", "a list", most=2000)


class ScheduleConfig(Config):
    """`schedules`: when something is open. See [schedules](schedules.md)."""

    name: Name = _key(..., "Unique in the project.", "a name")
    time_zone: TimeZone | None = _key(
        None, "The time zone of the hours.", "an IANA name as Europe/Kyiv", shown="the project's"
    )
    open: dict[str, Any] = _key({}, "Weekly hours.", 'days and their hours, as `mon-fri: ["09:00-18:00"]`', most=100)
    exceptions: dict[str, Any] = _key(
        {},
        "Dates with other hours.",
        "dates (`2026-12-25`, `2027-01-01..2027-01-08`, `08-24`, `12-31..01-02`, `last mon of may`) and their hours, "
        "or `closed`",
        most=1000,
    )
    override: Annotated[str, _one_of(("open", "closed"), "override")] | None = _key(
        None, "Open or closed, whatever the hours say.", "open or closed", shown="none"
    )
    override_until: str | None = _key(
        None, "When the override ends.", "a time, as 2026-12-24T14:00", shown="until it is taken back"
    )


class FreeConfig(Config):
    """`free`, a condition: how many members of a group could be offered the call now."""

    group: Name = _key(..., "The group that is looked at.", **_GROUP)
    fewer_than: int = _whole(..., "Matches while fewer members than this are free.", 1, 10_000)


class WhenConfig(Config):
    """`when`, the conditions of a rule. Keys are ANDed, the values of one key ORed."""

    caller: SomeTexts = _key((), "Who calls.", **_NUMBERS, shown="anybody")
    not_caller: SomeTexts = _key((), "Who must not be calling.", **_NUMBERS, shown="nobody")
    dialed: SomeTexts = _key((), "The number that was called.", **_NUMBERS, shown="any")
    not_dialed: SomeTexts = _key((), "The number that must not have been called.", **_NUMBERS, shown="none")
    params: Params = _key({}, "Hook parameters; case does not matter.", **_TESTS)
    not_params: Params = _key({}, "Hook parameters that must not be so.", **_TESTS)
    direction: SomeTexts = _key(
        (),
        "The call's direction, in the platform's words.",
        "one or more of in, out, callback, …",
        shown="any",
        most=100,
        reads=check_direction,
    )
    schedule: Name | None = _key(None, "Matches while it is open.", **_SCHEDULE)
    outside: Name | None = _key(None, "Matches while it is closed.", **_SCHEDULE)
    free: FreeConfig | None = _key(None, "Matches while few are free.", "group and fewer_than", shown="always")


class RuleConfig(Config):
    """`rules`, in order: the first that matches wins."""

    name: Name = _key(..., "Unique in the project.", "a name")
    enabled: bool = _switch(True, "A rule that is not enabled is passed over.")
    when: WhenConfig = _key(WhenConfig.model_construct(), "The conditions.", "see `when`", shown="every call")
    prefer: Annotated[str | dict[str, str], BeforeValidator(_preference)] | None = _key(
        None,
        "Who is asked before the groups: who last talked with the caller, or whom a hook parameter names by SIP login, "
        "staff id or name.",
        "last_agent or {param: NAME}",
        shown="nobody",
    )
    prefer_days: int = _whole(30, "How far back `last_agent` looks.", 1, 3650)
    groups: Names = _key(
        (), "The groups that are tried, in order.", "a list of names of groups", most=100, refers="group"
    )
    overflow: str | None = _key(
        None, "Where calls go when nobody is free.", **_DESTINATION, shown="that of the last group, else the project's"
    )


class ProjectConfig(Config):
    """`projects`: one tenant each."""

    name: Name = _key(..., "Unique. A project of another name is another project.", "a name")
    time_zone: TimeZone = _key("Europe/Kyiv", "Whose days and clocks count.", "an IANA name as Europe/Kyiv")
    country: Annotated[str, AfterValidator(_country)] = _key(
        "UA", "How national numbers are read, here and in calls.", "two letters of ISO 3166"
    )
    overflow: str = _key(
        "", "Where calls go that nobody can take.", **_DESTINATION, shown="none, which is warned about"
    )
    cool_down_seconds: float = _seconds(30, "The pause after a call that the agent did not answer.", 0, 86_400)
    break_after_no_answers: int = _whole(
        3, "After this many calls in a row without answer the agent is set on break; 0: never.", 0, 1000
    )
    keep_days: int = _whole(90, "How long the call log is kept.", 1, 3650)
    mask_numbers: bool = _switch(False, "Show callers as `38050***1122`.")
    hook: HookConfig = _key(HookConfig(), "The incoming-call hook.", "see `hook`", shown="all its defaults")
    presence: PresenceConfig = _key(
        PresenceConfig(), "Where presence comes from.", "see `presence`", shown="all its defaults"
    )
    schedules: tuple[ScheduleConfig, ...] = _key((), "Hours that the rest refers to by name.", "a list", most=1000)
    agents: tuple[AgentConfig, ...] = _key((), "The people who take calls.", "a list", most=5000)
    groups: tuple[GroupConfig, ...] = _key((), "What they answer together.", "a list", most=1000)
    rules: tuple[RuleConfig, ...] = _key((), "Which call goes where.", "a list", most=2000)


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


def name_of(item: Config) -> str:
    """Return the name that identifies an item in its list."""
    return str(getattr(item, "agent" if isinstance(item, MemberConfig) else "name"))


# ---- the reference, rendered from the models


def notes_of(field: FieldInfo) -> Notes:
    """Return the notes of a key."""
    return cast("Notes", cast("Mapping[str, Any]", field.json_schema_extra)["notes"])


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
        return Fault((), f"found {len(given):,} entries", remedy)
    entries = given.items() if isinstance(given, dict) else enumerate(given)
    for place, entry in entries:
        if isinstance(entry, list) and len(entry) > most:
            return Fault((place,), f"found {len(entry):,} entries", remedy)
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
    *(RuleConfig, WhenConfig, FreeConfig, ScheduleConfig),
)


def render_reference() -> str:
    """Render the tables of docs/configuration-file.md: every key with its default."""
    text = ""
    for section in SECTIONS:
        text += f"\n### {section.__doc__}\n\n| key | default | takes | what it does |\n|---|---|---|---|\n"
        for key, field in section.model_fields.items():
            text += f"| `{key}` | {_default(field)} | {_takes_at_most(field)} | {field.description} |\n"
    return text


if __name__ == "__main__":
    sys.stdout.write(render_reference())
