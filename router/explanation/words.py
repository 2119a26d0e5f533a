"""Says messages in a language: that of a page's reader, or English on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from router.core.strategies import STRATEGIES
from router.core.words import N_, NN_, Message


class Language(NamedTuple):
    """How texts are translated. `choose`: takes the text for one, that for others, and the number."""

    translate: Callable[[str], str]
    choose: Callable[[str, str, int], str]

    def say(self, message: Message) -> str:
        """Return the text with its values filled in."""
        text, values = message
        told = self.choose(text.words, text.many, values["num"]) if text.many else self.translate(text.words)
        return told % {
            name: _FORMATS[name](self, value) if name in _FORMATS else value for name, value in values.items()
        }

    def join(self, messages: Iterable[Message], separator: str = ", ") -> str:
        """Return the texts one after the other."""
        return separator.join(map(self.say, messages))

    def duration(self, seconds: float, *, exact: bool = False) -> str:
        """Return seconds as "12 s", "3 min 20 s", "5 h 2 min" or "3 days"; if `exact`, few as "1.2 s" or "120 ms"."""
        if exact and seconds < 1:
            return self.translate(_MILLISECONDS) % {"n": round(seconds * 1000)}
        if exact and seconds < 10 and seconds % 1:
            return self.translate(_SECONDS) % {"n": f"{seconds:.1f}".replace(".", self.translate(_POINT))}
        minutes, second = divmod(max(0, round(seconds)), 60)
        hours, minute = divmod(minutes, 60)
        if hours >= 24:
            return self.choose(*_DAYS, hours // 24) % {"num": hours // 24}
        if hours:
            return self.translate(_HOURS) % {"h": hours, "m": minute}
        return self.translate(_MINUTES if minute else _SECONDS) % {"m": minute, "s": second, "n": second}

    def pattern(self, pattern: str) -> str:
        """Return a condition's number as people read it: "+38050…", "+380441112200–+380441112299", "anonymous"."""
        if pattern == "anonymous":
            return self.translate(_ANONYMOUS)
        first, dash, last = pattern.partition("-")
        if dash and first.isdigit() and last.isdigit():
            return f"{_plus(first)}–{_plus(last)}"
        return f"{_plus(pattern[:-1])}…" if pattern.endswith("*") else _plus(pattern)

    def numbers(self, patterns: Iterable[str]) -> str:
        """Return a condition's numbers as people read them."""
        return ", ".join(map(self.pattern, patterns))

    def strategy(self, name: str) -> str:
        """Return the label of a strategy."""
        return self.translate(STRATEGIES[name].label)


def _plus(digits: str) -> str:
    return f"+{digits}" if digits.isdigit() and len(digits) > 4 else digits


ENGLISH = Language(str, lambda one, many, number: one if number == 1 else many)

_ANONYMOUS = N_("anonymous")
_POINT = N_(".")  # of decimals
_DAYS = NN_("%(num)s day", "%(num)s days")
_HOURS, _MINUTES = N_("%(h)s h %(m)s min"), N_("%(m)s min %(s)s s")
_SECONDS, _MILLISECONDS = N_("%(n)s s"), N_("%(n)s ms")

_FORMATS: Mapping[str, Callable[[Language, Any], str]] = {
    "seconds": Language.duration,
    "number": Language.pattern,
    "numbers": Language.numbers,
    "strategy": Language.strategy,
    "place": lambda language, place: language.translate(place),
    "values": lambda _language, values: ", ".join(values),
}
"""How values are shown, by name; others as they are."""
