"""Define the types of a presence source (settings, readings, errors) and the wait after a failure. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from router.core.words import N_, Worded

LONGEST_BACKOFF = timedelta(seconds=60)


class OnlineFrom(Worded):
    """Which logins count as online: registered SIP devices, the Smart Phone extension, or the union of both."""

    SIP = "sip", N_("SIP devices")
    SMART_PHONE = "smart_phone", N_("Smart Phone extension")
    EITHER = "either", N_("Either of them")


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


_ADDRESS = N_("Check the API address in the project’s settings.")
_PASSES = N_("Nothing to do if it passes. If it lasts, tell Ringostat’s support.")


class ErrorCode(Worded):
    """Why presence is unknown, and what to do. The values never change: they are stored with the project."""

    NO_KEY = (
        "no_key",
        N_("The Auth-key is not entered yet."),
        N_("Copy it from Ringostat’s cabinet into the settings."),
    )
    UNAUTHORIZED = (
        "unauthorized",
        N_("Ringostat does not accept the Auth-key."),
        N_("Copy the Auth-key again from Ringostat’s cabinet into the settings."),
    )
    FORBIDDEN = (
        "forbidden",
        N_("Ringostat denies access."),
        N_(
            "Check in Ringostat’s cabinet that this Auth-key belongs to the project and may use the API. For the Smart "
            "Phone extension check the project id and the token too."
        ),
    )
    RATE_LIMITED = (
        "rate_limited",
        N_("Ringostat is asked too often."),
        N_(
            "Nothing to do if it passes. If it lasts, ask less often, or find out which other program uses the same "
            "Auth-key."
        ),
    )
    SERVER_ERROR = "server_error", N_("Ringostat reports a fault of its own."), _PASSES
    BAD_STATUS = "bad_status", N_("Nothing at this address answers like Ringostat."), _ADDRESS
    REFUSED = (
        "refused",
        N_("Ringostat refused."),
        N_("Read what it said under Details; check the Auth-key and the project id in the settings."),
    )
    TIMEOUT = (
        "timeout",
        N_("Ringostat did not answer in time."),
        N_(
            "Nothing to do if it passes. If it lasts, check that this server may reach the API (firewall), and ask "
            "Ringostat’s support."
        ),
    )
    UNREACHABLE = (
        "unreachable",
        N_("Ringostat cannot be reached."),
        N_("Check the API address for typing errors, and that this server may reach it (DNS, firewall)."),
    )
    TLS = (
        "tls",
        N_("The certificate at this address is not trusted."),
        N_(
            "Check the API address. If it has a certificate of your own authority, the operator of this service can "
            "make that authority known with SSL_CERT_FILE."
        ),
    )
    NOT_JSON = "not_json", N_("Nothing at this address answers like Ringostat."), _ADDRESS
    NOT_AN_ARRAY = "not_an_array", N_("Nothing at this address answers like Ringostat."), _ADDRESS
    NOT_AN_OBJECT = "not_an_object", N_("Nothing at this address answers like Ringostat."), _ADDRESS
    NOT_STRINGS = "not_strings", N_("Ringostat’s list holds something other than logins."), _PASSES
    TOO_LARGE = "too_large", N_("Ringostat’s answer is too large."), _ADDRESS
    TRUNCATED = "truncated", N_("Ringostat’s answer broke off."), _PASSES
    REDIRECTED = (
        "redirected",
        N_("This address sends us to another one."),
        N_(
            "Enter the address that the API has today. Redirects are never followed, because the Auth-key would go "
            "with them."
        ),
    )
    ADDRESS_REFUSED = (
        "address_refused",
        N_("The API address is not a public one."),
        N_(
            "Enter the API’s public address. If it is in your own network, the operator of this service can allow that "
            "with PRESENCE_ALLOW_PRIVATE=1."
        ),
    )
    BAD_SETTINGS = (
        "bad_settings",
        N_("The settings of presence are not complete."),
        N_("Correct them in the settings."),
    )


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
        self.remedy = remedy or code.help
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
