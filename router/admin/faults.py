"""Word the faults of a configuration for people who use forms. The file words them by their `message` and `remedy`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.admin.i18n import lazy
from router.configuration.schema import Fault
from router.core.dates import WrongDates
from router.core.instants import WrongInstant
from router.core.patterns import WrongPattern
from router.core.schedule_words import WrongSchedule
from router.core.words import WordedError

_NUMBER = lazy(
    "“%(text)s” is not a valid number: write it like +380441112233, like +38050* for all that begin so, or anonymous."
)
_DATE = lazy("Write the date like 2026-12-25.")
_HOURS = lazy("Write hours like 09:00-13:00, 14:00-18:00. Leave empty for closed.")

WORDS: Mapping[str, Any] = {
    "name": lazy("Write 1 to 200 characters."),
    "invisible": lazy("This holds an invisible character: type it again."),
    "SIP login": lazy("“%(text)s” is not a valid SIP login: write it without spaces, at most 128 characters."),
    "name of a parameter": lazy("“%(text)s” is not a valid name of a parameter: write 1 to 200 visible characters."),
    "name of a field": lazy(
        "“%(text)s” is not a valid name of a field: write 1 to 100 visible characters, without commas."
    ),
    "direction": lazy("Write the direction in one word, like in, out or callback."),
    "key": lazy("Write 1 to 100 visible characters."),
    "choice": lazy("Not a valid choice. There are: %(known)s."),
    "too long": lazy("At most %(n)s characters."),
    WrongSchedule.ZONE: lazy("There is no such time zone: write it like Europe/Kyiv."),
    "address": lazy("“%(text)s” is not a valid address: write 203.0.113.7 or 203.0.113.0/24."),
    "credentials": lazy("Write user:password, with a colon between the two."),
    "address of an API": lazy("Write it like https://api.ringostat.net, without user, ? and #."),
    "destination": lazy("Not a valid destination: write a number, a SIP login or the id of a scheme, in one word."),
    "name_taken": lazy("Another one has this name already: choose another."),
    "taken": lazy("“%(login)s” belongs to %(name)s already: a login has one owner."),
    "twice": lazy("“%(name)s” is listed twice."),
    "too_many": lazy("The project has %(most)s of these already, and more do not fit."),
    "entries": lazy("%(count)s entries are too many: at most %(most)s fit. Take some out, or divide them."),
    "missing": lazy("Fill this in."),
    "country": lazy("Not a valid country: write its two letters, like UA."),
    "preference": lazy("Choose one of the preferences, and name its parameter."),
    "of_wrong_kind": lazy("Not a valid value."),
    "limits": lazy("Write a number from %(least)s to %(most)s."),
    "unknown_key": lazy("There is no setting “%(name)s”."),
    "param_twice": lazy("This parameter is listed twice: join the two."),
    "still_used": lazy("“%(name)s” is still used by “%(user)s”: take it out there first."),
    "no_such_row": lazy("This no longer exists: choose another."),
    "no_moment": lazy("Write when the call comes."),
    "no_expectation": lazy("Say what must be decided: a rule, groups, an agent or an overflow."),
    "own_deputy": lazy("Nobody stands in for themselves: choose another."),
    "leave_order": lazy("Say until when, and choose a later moment than this; or leave both empty."),
    "no_token": lazy("The Smart Phone extension needs its token."),
    "no_project_id": lazy("The Smart Phone extension needs it: it stands in the cabinet’s URL."),
    WrongPattern.RANGE: lazy("“%(text)s” is not a valid range: write two numbers of one length, the lower one first."),
    WrongPattern.EVERY: lazy(
        "“%(text)s” matches every number: write the first digits before the star, or leave the condition out."
    ),
    **dict.fromkeys((WrongPattern.STAR, WrongPattern.LONG, WrongPattern.NUMBER), _NUMBER),
    WrongPattern.HIDDEN: lazy("“%(text)s” stands for a hidden number: write anonymous."),
    WrongPattern.EMPTY: lazy("Write a value, or choose “is sent”."),
    WrongPattern.VALUE: lazy("“%(text)s…” is too long, or holds an invisible character."),
    WrongPattern.STARS: lazy("“%(text)s”: leave the star out, and choose “begins with” or “contains”."),
    WrongPattern.SEARCH: lazy("“%(text)s” cannot be searched for: choose “contains” instead of stars."),
    WrongInstant.UNREADABLE: lazy("Write it like 2026-12-24 14:00."),
    WrongInstant.YEAR: lazy("Check the year."),
    WrongInstant.SKIPPED: lazy("There is no such time: the clocks go forward then."),
    **dict.fromkeys((*WrongDates, WrongSchedule.NO_EXCEPTION), _DATE),
    WrongDates.ORDER: lazy("Write two dates like 2026-12-25, the earlier one first."),
    WrongDates.NO_DAY: lazy("There is no such day in the year."),
    **dict.fromkeys((WrongSchedule.HOURS, WrongSchedule.SPAN, WrongSchedule.MAPPING), _HOURS),
    WrongSchedule.DAY: lazy("Not a day of the week."),
    WrongSchedule.DAY_TWICE: lazy("This day occurs twice: keep one of the two."),
    WrongSchedule.SECONDS: lazy("Write hours and minutes only; until midnight: 24:00."),
    WrongSchedule.NO_TIME: lazy("There is no such time of day: start at 00:00 to 23:59 and end by 24:00."),
    WrongSchedule.NO_LENGTH: lazy("Hours start and end at the same time: for the whole day write 00:00-24:00."),
    WrongSchedule.OVERLAP: lazy("These hours overlap others: join the two, or change a time."),
    WrongSchedule.DATE_TWICE: lazy("This date occurs twice: keep one of the two."),
    WrongSchedule.SHARED: lazy("This meets another row of its kind: keep one, or end one before the other begins."),
    WrongSchedule.RUNS_INTO: lazy("These hours run into the next date, which has hours of its own: end them at 24:00."),
    **dict.fromkeys((WrongSchedule.OVERRIDE, WrongSchedule.NO_OVERRIDE), lazy("Choose open or closed.")),
}
"""By the kind of a fault. Faults of the file's own grammar, which no form can make, have none."""


def words_of_fault(fault: Fault | WordedError) -> str:
    """Return the message for a field."""
    short = {name: str(value)[:80] if name == "text" else value for name, value in fault.values.items()}
    return str(WORDS[fault.kind]) % short if fault.kind in WORDS else str(fault)
