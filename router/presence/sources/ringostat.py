"""Read from Ringostat's HTTP API: who is online, who speaks, the staff, the call log. Stores and decides nothing.

Sources: help.ringostat.com articles 6313081 (status), 9188142 (staff), 6312678 (call log). Answers that they do not
document are accepted where that is harmless; they are errors where a wrong reading would mean "nobody is online".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from router.core.words import N_
from router.presence.fetch import Arrival, Fetcher, Request, parse_json
from router.presence.source import (
    CheckResult,
    ErrorCode,
    LoggedCall,
    OnlineFrom,
    Reading,
    SourceError,
    SourceSettings,
    StaffMember,
)

MAX_LOGINS = 100_000
LONGEST_LOGIN = 255  # characters
CALL_LOG_ROWS = 6_500  # the most that one answer of the call log holds

_MAX_VALUES = 1_000_000  # in a staff list or call log
_CALL_LOG_FIELDS = "calldate,caller,dst,disposition,billsec,duration,call_type,uniqueid,connected_with"


def read(settings: SourceSettings, *, deadline: float, session: Fetcher) -> Reading:
    """Return who is online and who speaks now. All requests are sent at the same time.

    The first request that fails raises its SourceError at once, without waiting for the others.
    `deadline` is an instant of time.monotonic(); the answer or the error comes within about 25 ms of it.
    """
    asked = _status_requests(settings)
    online: set[str] = set()
    speaking: frozenset[str] = frozenset()
    for arrival in session.ask(asked, deadline=deadline):
        logins = _parse_logins(asked[arrival.place], _body(arrival))
        if arrival.place == len(asked) - 1:
            speaking = logins
        else:
            online |= logins
    return Reading(frozenset(online), speaking)


def check(settings: SourceSettings, *, deadline: float, session: Fetcher) -> list[CheckResult]:
    """Send the requests of `read`, and report on each one, in a fixed order. Raises nothing.

    Invalid settings give one result, with `asked` empty.
    """
    try:
        asked = _status_requests(settings)
    except SourceError as error:
        return [CheckResult("", error, (), 0)]
    results: dict[int, CheckResult] = {}
    for arrival in session.ask(asked, deadline=deadline):
        request = asked[arrival.place]
        shown = _shown(request)
        try:
            logins = sorted(_parse_logins(request, _body(arrival)))
        except SourceError as error:
            results[arrival.place] = CheckResult(shown, error, (), arrival.milliseconds)
        else:
            results[arrival.place] = CheckResult(shown, None, tuple(logins), arrival.milliseconds)
    return [results[place] for place in range(len(asked))]


def fetch_staff(settings: SourceSettings, *, deadline: float, session: Fetcher) -> list[StaffMember]:
    """Return the people in the project's cabinet with their SIP logins, in the platform's order. Needs `project_id`.

    Departments are given by name; by number where the platform refuses that, or answers in a form that is not known.
    People without a SIP login are included; rows that are not people are skipped. Raises SourceError.
    """
    try:
        return _fetch_staff(settings, deadline, session, with_names=True)
    except SourceError as error:
        if error.code not in _ANSWERS_TO_NAMES:
            raise
    return _fetch_staff(settings, deadline, session, with_names=False)


# What may be due to asking for names, which is not documented. A wrong key or an unreachable API fails either way.
_ANSWERS_TO_NAMES = {
    ErrorCode.REFUSED,
    ErrorCode.BAD_STATUS,
    ErrorCode.SERVER_ERROR,
    ErrorCode.NOT_JSON,
    ErrorCode.NOT_AN_OBJECT,
    ErrorCode.TOO_LARGE,
}


def _fetch_staff(settings: SourceSettings, deadline: float, session: Fetcher, *, with_names: bool) -> list[StaffMember]:
    base, headers = _base(settings)
    project_id = _text_setting(settings.project_id, _PROJECT_ID)
    request = Request(
        what="the staff list",
        url=f"{base}/api/json-rpc",
        headers=headers,
        json={
            "jsonrpc": "2.0",
            "id": 1,
            "method": "getProjectStaffListAndDirections",
            "params": {"projectId": project_id, "departmentsFullFormat": with_names},
        },
        secrets=_secrets(settings),
    )
    answer = _ask_one(request, deadline=deadline, session=session)
    if not isinstance(answer, dict):
        raise request.error(ErrorCode.NOT_AN_OBJECT, f"sent {_kind(answer)} instead of an object")
    if (refusal := answer.get("error")) is not None:
        words = refusal.get("message", "") if isinstance(refusal, dict) else refusal
        raise request.error(ErrorCode.REFUSED, f"refused and said: {request.quote(_text(words)) or 'nothing'}")
    match answer.get("result"):
        case dict() as by_id:
            rows = list(by_id.items())
        case list() as listed:  # PHP writes an empty object so
            rows = [("", row) for row in listed]
        case other:
            raise request.error(ErrorCode.NOT_AN_OBJECT, f"sent {_kind(other)} as its result instead of an object")
    return [member for key, row in rows if (member := _staff_member(key, row)) is not None]


def fetch_call_log(
    settings: SourceSettings, since: datetime, until: datetime, *, deadline: float, session: Fetcher
) -> list[LoggedCall]:
    """Return the project's calls between two instants, both included, in the platform's order. Raises SourceError.

    `since` and `until` are aware, in the zone of the Ringostat project: the API takes local times without a zone, and
    times without a zone in its answer are read in the zone of `since`. A span with more calls than one answer can hold
    (6,500) is divided in halves. Rows without a readable time are skipped.
    """
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("since and until must be aware: the API takes them as local times of the project's zone")
    base, headers = _base(settings)
    since, until = since.replace(microsecond=0), until.astimezone(since.tzinfo).replace(microsecond=0)
    if since > until:
        return []
    request = Request(
        what="the call log",
        url=f"{base}/calls/list",
        params={
            "export_type": "json",
            "from": f"{since:%Y-%m-%d %H:%M:%S}",
            "to": f"{until:%Y-%m-%d %H:%M:%S}",
            "fields": _CALL_LOG_FIELDS,
        },
        headers=headers,
        secrets=_secrets(settings),
    )
    rows = _ask_one(request, deadline=deadline, session=session)
    if not isinstance(rows, list):
        raise request.error(ErrorCode.NOT_AN_ARRAY, f"sent {_kind(rows)} instead of an array")
    if len(rows) >= CALL_LOG_ROWS and until - since > timedelta(seconds=1):
        middle = since + (until - since) // 2
        return [
            *fetch_call_log(settings, since, middle, deadline=deadline, session=session),
            *fetch_call_log(settings, middle + timedelta(seconds=1), until, deadline=deadline, session=session),
        ]
    return [call for row in rows if (call := _logged_call(row, since.tzinfo)) is not None]


# ---- requests


def _status_requests(settings: SourceSettings) -> list[Request]:
    """Return the requests of one reading: those for online logins, then the one for speaking logins."""
    base, headers = _base(settings)
    try:
        online_from = OnlineFrom(settings.online_from)
    except ValueError:
        raise _bad_settings(
            f"{settings.online_from!r} is not a known way to see who is online.",
            f"Choose one of: {', '.join(OnlineFrom)}.",
        ) from None
    secrets = _secrets(settings)
    asked = []
    if online_from is not OnlineFrom.SMART_PHONE:
        asked.append(Request("the online logins", f"{base}/sipstatus/online", headers=headers, secrets=secrets))
    if online_from is not OnlineFrom.SIP:
        params = {
            "project_id": _text_setting(settings.project_id, _PROJECT_ID),
            "token": _text_setting(settings.token, _TOKEN),
            "withRspDoNotDisturbSips": "true" if settings.with_do_not_disturb else "false",
        }
        what = "the online logins of the Smart Phone extension"
        asked.append(Request(what, f"{base}/sipstatus/online", params=params, headers=headers, secrets=secrets))
    asked.append(Request("the speaking logins", f"{base}/sipstatus/speaking", headers=headers, secrets=secrets))
    return asked


def _base(settings: SourceSettings) -> tuple[str, Mapping[str, str]]:
    """Return the API's URL without a slash at its end, and the headers of requests. Raises SourceError."""
    url = settings.api_url.strip()
    if not _is_web_address(url):
        raise _bad_settings(
            N_("The API address is not a web address."),
            N_("Enter it like https://api.ringostat.net: http or https, a host name, perhaps a port and a path."),
        )
    if "@" in url:
        raise _bad_settings(
            N_("The API address holds a user name or password."),
            N_("Leave out what stands before the @; the Auth-key has a field of its own."),
        )
    return url.rstrip("/"), {"Auth-key": _text_setting(settings.auth_key, _AUTH_KEY, ErrorCode.NO_KEY)}


def _is_web_address(url: str) -> bool:
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        return False
    clean = url.isprintable() and not any(char in url for char in " \\?#")
    return clean and split.scheme in ("http", "https") and bool(split.hostname) and port != 0


class _Setting(NamedTuple):
    """What is said of a credential that is missing, or that cannot be sent."""

    missing: str
    unfit: str


_AUTH_KEY = _Setting(ErrorCode.NO_KEY.words, N_("The Auth-key holds characters that cannot be sent."))
_PROJECT_ID = _Setting(
    N_("The project id in Ringostat is missing."), N_("The project id holds characters that cannot be sent.")
)
_TOKEN = _Setting(
    N_("The token of the Smart Phone extension is missing."), N_("The token holds characters that cannot be sent.")
)


def _text_setting(value: str, setting: _Setting, code: ErrorCode = ErrorCode.BAD_SETTINGS) -> str:
    value = value.strip()
    if not value:
        raise SourceError(code, setting.missing, remedy=N_("Copy it from Ringostat’s cabinet into the settings."))
    if not (value.isascii() and value.isprintable()):
        remedy = N_("Copy it again from Ringostat’s cabinet, without line breaks: Latin letters and digits only.")
        raise _bad_settings(setting.unfit, remedy)
    return value


def _bad_settings(what: str, remedy: str) -> SourceError:
    return SourceError(ErrorCode.BAD_SETTINGS, what, remedy=remedy)


def _secrets(settings: SourceSettings) -> tuple[str, ...]:
    bare = (settings.auth_key.strip(), settings.token.strip())
    return (*bare, *(quote(secret, safe="") for secret in bare))


def _shown(request: Request) -> str:
    """Return method and URL for people, without the token."""
    params = "&".join(f"{name}={'…' if name == 'token' else value}" for name, value in request.params.items())
    return f"GET {request.url}{'?' if params else ''}{params}"


# ---- answers


def _body(arrival: Arrival) -> bytes:
    if isinstance(arrival.outcome, SourceError):
        raise arrival.outcome
    return arrival.outcome


def _ask_one(request: Request, *, deadline: float, session: Fetcher) -> object:
    (arrival,) = session.ask([request], deadline=deadline)
    return parse_json(request, _body(arrival), max_items=_MAX_VALUES)


def _parse_logins(request: Request, body: bytes) -> frozenset[str]:
    """Return the logins in a JSON array of strings. Raises SourceError for anything else: presence is then unknown.

    Blanks around logins are removed, and blank entries left out: PHP's `explode` makes `[""]` of an empty list. Objects
    are refused even if they hold a list, because the meaning of the rest is not known.
    """
    entries = parse_json(request, body, max_items=MAX_LOGINS)
    if not isinstance(entries, list):
        raise request.error(ErrorCode.NOT_AN_ARRAY, f"sent {_kind(entries)} instead of an array of logins")
    logins = set()
    for entry in entries:
        if not isinstance(entry, str):
            raise request.error(ErrorCode.NOT_STRINGS, f"sent an array that holds {_kind(entry)} among its logins")
        login = entry.strip()
        if not login.isprintable():
            raise request.error(ErrorCode.NOT_STRINGS, "sent a login that holds control characters")
        if len(login) > LONGEST_LOGIN:
            raise request.error(ErrorCode.TOO_LARGE, f"sent a login of more than {LONGEST_LOGIN} characters")
        logins.add(login)
    return frozenset(logins - {""})


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"


def _staff_member(key: str, row: object) -> StaffMember | None:
    if not isinstance(row, dict):
        return None
    staff_id = _text(row.get("staffId")) or key.strip() or _text(row.get("id"))
    if not staff_id:
        return None
    return StaffMember(
        staff_id=staff_id,
        name=_text(row.get("fio")),
        email=_text(row.get("email")),
        phone=_text(row.get("phone")),
        extension=_text(row.get("extensionNumber")),
        departments=tuple(filter(None, map(_department, _values(row.get("departments"))))),
        sip_logins=tuple(dict.fromkeys(_sip_directions(row.get("directions")))),
    )


def _department(value: object) -> str:
    """Return the name of a department, else its number. How the platform writes those with names is not documented."""
    if isinstance(value, dict):
        return next(filter(None, (_text(value.get(key)) for key in ("name", "title", "id"))), "")
    return _text(value)


def _sip_directions(directions: object) -> Iterator[str]:
    """Yield the SIP logins among a person's directions, the main ones first."""
    if not isinstance(directions, dict):
        return
    for part in ("main", "additional"):
        for row in _values(directions.get(part)):
            if isinstance(row, dict) and _text(row.get("type")).casefold() == "sip" and _text(row.get("direction")):
                yield _text(row.get("direction"))


def _values(value: object) -> Iterable[object]:
    """Return the items of a list. PHP writes it as an array, or as an object if its keys have gaps."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _logged_call(row: object, zone: tzinfo | None) -> LoggedCall | None:
    if not isinstance(row, dict):
        return None
    try:
        calldate = datetime.fromisoformat(_text(row.get("calldate")))
    except ValueError:
        return None
    return LoggedCall(
        calldate=calldate if calldate.tzinfo is not None else calldate.replace(tzinfo=zone),
        caller=_text(row.get("caller")),
        dst=_text(row.get("dst")),
        disposition=_text(row.get("disposition")),
        billsec=_seconds(row.get("billsec")),
        duration=_seconds(row.get("duration")),
        call_type=_text(row.get("call_type")),
        uniqueid=_text(row.get("uniqueid")),
        connected_with=_text(row.get("connected_with")),
    )


def _text(value: object) -> str:
    """Return a text or number as clean text; "" for anything else. Control characters become spaces: databases refuse
    NUL.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())


def _seconds(value: object) -> timedelta:
    text = _text(value)
    # Seven digits are four months. No call is longer, and timedelta would overflow on larger numbers.
    return timedelta(seconds=int(text)) if text.isascii() and text.isdigit() and len(text) <= 7 else timedelta(0)
