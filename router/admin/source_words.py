"""Explain why presence is not known, in the reader's language: in English by the source's text, else by the code."""

from __future__ import annotations

from typing import Any, NamedTuple

from router.admin.i18n import language, lazy
from router.presence.source import ErrorCode


class Explained(NamedTuple):
    """The error, the remedy, and as `detail` the source's own text where `message` is another."""

    message: str
    remedy: str
    detail: str


_ADDRESS = lazy("Check the API address in the project’s settings.")
_PASSES = lazy("Nothing to do if it passes. If it lasts, tell the telephony platform’s support.")

_WORDS: dict[ErrorCode, tuple[Any, Any]] = {
    ErrorCode.UNAUTHORIZED: (
        lazy("The API does not accept the Auth-key."),
        lazy("Copy the Auth-key again from the platform’s cabinet into the project’s settings."),
    ),
    ErrorCode.FORBIDDEN: (
        lazy("The API denies access."),
        lazy(
            "Check in the platform’s cabinet that this Auth-key belongs to the project and may use the API; for the "
            "Smart Phone extension check the project id and the token too."
        ),
    ),
    ErrorCode.RATE_LIMITED: (
        lazy("The API is asked too often."),
        lazy(
            "Nothing to do if it passes. If it lasts, ask less often, or find out which other program uses the same "
            "Auth-key."
        ),
    ),
    ErrorCode.SERVER_ERROR: (lazy("The API reports a fault of its own."), _PASSES),
    ErrorCode.BAD_STATUS: (lazy("The API answers with a status that was not expected."), _ADDRESS),
    ErrorCode.REFUSED: (
        lazy("The API refused."),
        lazy("Read the platform’s own words below; check the Auth-key and the project id in the settings."),
    ),
    ErrorCode.TIMEOUT: (
        lazy("The API did not answer in time."),
        lazy(
            "Nothing to do if it passes. If it lasts, check that this server may reach the API (firewall), and ask "
            "the telephony platform’s support."
        ),
    ),
    ErrorCode.UNREACHABLE: (
        lazy("The API cannot be reached."),
        lazy("Check the API address for typing errors, and that this server may reach it (DNS, firewall)."),
    ),
    ErrorCode.TLS: (
        lazy("The API’s certificate is not trusted."),
        lazy(
            "Check the API address. If it lives behind your own certificate authority, the operator of this service "
            "can make that authority known with SSL_CERT_FILE."
        ),
    ),
    ErrorCode.NOT_JSON: (lazy("The API’s answer is not JSON."), _ADDRESS),
    ErrorCode.NOT_AN_ARRAY: (lazy("The API’s answer is not a list of logins."), _ADDRESS),
    ErrorCode.NOT_AN_OBJECT: (lazy("The API’s answer is not an object."), _ADDRESS),
    ErrorCode.NOT_STRINGS: (lazy("The API’s list holds something other than logins."), _PASSES),
    ErrorCode.TOO_LARGE: (lazy("The API’s answer is too large."), _ADDRESS),
    ErrorCode.TRUNCATED: (lazy("The API’s answer broke off."), _PASSES),
    ErrorCode.REDIRECTED: (
        lazy("The API sends us to another address."),
        lazy(
            "Enter the address that the API has today; redirects are never followed, because the Auth-key would go "
            "with them."
        ),
    ),
    ErrorCode.ADDRESS_REFUSED: (
        lazy("The API’s address is not a public one."),
        lazy(
            "Enter the API’s public address. If it does live in your own network, the operator of this service can "
            "allow that with PRESENCE_ALLOW_PRIVATE=1."
        ),
    ),
    ErrorCode.BAD_SETTINGS: (
        lazy("Nothing was asked: the settings are not complete."),
        lazy("Correct the project’s presence settings."),
    ),
}


def explain_source(code: str, message: str, remedy: str) -> Explained:
    """Explain the error of a SourceError or of a row of `presence`."""
    if language() == "en" or code not in set(ErrorCode):
        return Explained(message, remedy, "")
    headline, advice = _WORDS[ErrorCode(code)]
    return Explained(str(headline), str(advice), message)
