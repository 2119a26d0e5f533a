"""Word the faults of a configuration for people who use forms. The file words them by `Fault.message` and `remedy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.admin.i18n import lazy
from router.configuration.schema import Fault

WORDS: Mapping[str, Any] = {
    "name": lazy("Write 1 to 200 characters."),
    "invisible": lazy("This holds an invisible character: type it again."),
    "SIP login": lazy("“%(text)s” is not a valid SIP login: write it without spaces, at most 128 characters."),
    "key": lazy("Write 1 to 100 visible characters."),
    "choice": lazy("Not a valid choice. There are: %(known)s."),
    "too long": lazy("At most %(n)s characters."),
    "time zone": lazy("There is no such time zone: write it like Europe/Kyiv."),
    "address": lazy("“%(text)s” is not a valid address: write 203.0.113.7 or 203.0.113.0/24."),
    "credentials": lazy("Write user:password, with a colon between the two."),
    "address of an API": lazy("Write it like https://api.ringostat.net, without user, ? and #."),
    "destination": lazy("Not a valid destination: write a number, a SIP login or the id of a scheme, in one word."),
    "name_taken": lazy("Another one has this name already: choose another."),
    "taken": lazy("“%(login)s” belongs to %(name)s already: a login has one owner."),
    "twice": lazy("“%(name)s” is listed twice."),
    "too_many": lazy("The project has %(most)s of these already, and more do not fit."),
    "no_such_row": lazy("This no longer exists: choose another."),
    "own_deputy": lazy("Nobody stands in for themselves: choose another."),
    "no_token": lazy("The Smart Phone extension needs its token."),
    "no_project_id": lazy("The Smart Phone extension needs it: it stands in the cabinet’s URL."),
}
"""By the kind of a fault; other faults are shown in the words of the file."""


def words_of_fault(fault: Fault) -> str:
    """Return the message for a field."""
    return str(WORDS[fault.kind]) % fault.values if fault.kind in WORDS else str(fault)
