"""Define the types of a presence source (settings, readings, errors) and the wait after a failure. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

LONGEST_BACKOFF = timedelta(seconds=60)


class OnlineFrom(StrEnum):
    """Which logins count as online: registered SIP devices, the Smart Phone extension, or the union of both."""

    SIP = "sip"
    SMART_PHONE = "smart_phone"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The settings of a project's status API. Secrets are not in `repr`, so that no log or traceback shows them.

    `project_id` and `token` are needed for the Smart Phone extension; `project_id` for the staff list too.
    """

    api_url: str
    auth_key: str = field(repr=False)
    online_from: str = OnlineFrom.SIP
    project_id: str = ""
    token: str = field(default="", repr=False)
    with_do_not_disturb: bool = False


class Reading(NamedTuple):
    """The answer of a source: the SIP logins that are online, and those that talk right now."""

    online: frozenset[str]
    speaking: frozenset[str]


class ErrorCode(StrEnum):
    """Why presence is unknown. The values never change: they are stored with the project, shown and translated."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    BAD_STATUS = "bad_status"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    NOT_JSON = "not_json"
    NOT_AN_ARRAY = "not_an_array"
    NOT_AN_OBJECT = "not_an_object"
    NOT_STRINGS = "not_strings"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    REDIRECTED = "redirected"
    ADDRESS_REFUSED = "address_refused"
    BAD_SETTINGS = "bad_settings"


_CHECK_URL = "Check the API address (api_url) in the project's presence settings."
_PASSES = "Nothing to do if it passes. If it lasts, tell the telephony platform's support."

REMEDIES: Mapping[ErrorCode, str] = {
    ErrorCode.UNAUTHORIZED: "Copy the Auth-key again from the platform's cabinet into the project's presence settings "
    "(auth_key).",
    ErrorCode.FORBIDDEN: "Check in the platform's cabinet that this Auth-key belongs to the project and may use the "
    "API; for the Smart Phone extension check project_id and token too.",
    ErrorCode.RATE_LIMITED: "Nothing to do if it passes. If it lasts, ask less often (poll_seconds), or find out which "
    "other program uses the same Auth-key.",
    ErrorCode.SERVER_ERROR: _PASSES,
    ErrorCode.BAD_STATUS: _CHECK_URL,
    ErrorCode.REFUSED: "Read the platform's own words above; check auth_key and project_id in the project's presence "
    "settings.",
    ErrorCode.TIMEOUT: "Nothing to do if it passes. If it lasts, check that this server may reach the API (firewall), "
    "and ask the telephony platform's support.",
    ErrorCode.UNREACHABLE: "Check the API address (api_url) for typing errors, and that this server may reach it "
    "(DNS, firewall).",
    ErrorCode.TLS: "Check the API address (api_url). If it lives behind your own certificate authority, the operator "
    "of this service can make that authority known with SSL_CERT_FILE.",
    ErrorCode.NOT_JSON: _CHECK_URL,
    ErrorCode.NOT_AN_ARRAY: _CHECK_URL,
    ErrorCode.NOT_AN_OBJECT: _CHECK_URL,
    ErrorCode.NOT_STRINGS: _PASSES,
    ErrorCode.TOO_LARGE: _CHECK_URL,
    ErrorCode.TRUNCATED: _PASSES,
    ErrorCode.REDIRECTED: "Enter the address that the API has today (api_url); redirects are never followed, because "
    "the Auth-key would go with them.",
    ErrorCode.ADDRESS_REFUSED: "Enter the API's public address (api_url). If it does live in your own network, the "
    "operator of this service can allow that with PRESENCE_ALLOW_PRIVATE=1.",
    ErrorCode.BAD_SETTINGS: "Correct the project's presence settings.",
}


class SourceError(Exception):
    """The source gave no reading: presence is unknown, never "nobody".

    `message`: one sentence for an admin that names the request. `remedy`: what to do. Neither holds the key or the
    token; `message` may quote a line of the server, so escape it. `retry_after`: the wait that the API asked for, 0 to
    10 minutes; None when it asked for none.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, remedy: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy or REMEDIES[code]
        self.retry_after = retry_after


class CheckResult(NamedTuple):
    """One request of a connection check. `asked`: method and URL without the token. `error` None: success.

    `logins` are sorted. `milliseconds`: wall-clock time from the start of the check.
    """

    asked: str
    error: SourceError | None
    logins: tuple[str, ...]
    milliseconds: int


class StaffMember(NamedTuple):
    """A person of the platform's staff list. Text as the platform has it, "" when unset; logins in order of use."""

    staff_id: str
    name: str
    email: str
    phone: str
    extension: str
    departments: tuple[str, ...]
    sip_logins: tuple[str, ...]


class LoggedCall(NamedTuple):
    """One row of the platform's call log. Text as sent, "" when unset; durations are zero when unset or unreadable.

    A call that is still going on shows zero durations and NO ANSWER.
    """

    calldate: datetime
    caller: str
    dst: str
    disposition: str
    billsec: timedelta
    duration: timedelta
    call_type: str
    uniqueid: str
    connected_with: str


def backoff(failures: int, *, error: SourceError, base: timedelta, jitter: float) -> timedelta:
    """Return how long to wait before the next poll, after `failures` (1, 2, …) in a row of which `error` is the last.

    Evenly spread, by `jitter` in [0, 1), between `base` (the normal poll interval: a failing API is never asked more
    often than a working one) and a ceiling that doubles with each failure up to LONGEST_BACKOFF. All errors have the
    same ceiling, also a refused key: a corrected key should work within a minute. If the API asks for a longer wait,
    that is kept, plus up to one `base` so that many projects do not come back at the same instant.
    """
    doublings = min(failures, 32)  # without a limit, timedelta overflows after hours of failures
    ceiling = max(base, min(LONGEST_BACKOFF, base * (1 << doublings)))
    wait = base + (ceiling - base) * jitter
    if error.retry_after is not None and error.retry_after > wait:
        return error.retry_after + base * jitter
    return wait
