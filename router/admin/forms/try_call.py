"""The form to try a call: numbers, parameters, a moment, and who would be online and speaking then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from werkzeug.datastructures import MultiDict
from wtforms import BooleanField, RadioField, SelectField

from router.admin.forms.base import Form, TextField, at_most, choices
from router.admin.forms.parts import InstantField
from router.admin.i18n import _, lazy
from router.core.model import Call
from router.numbers import MAX_NUMBER_CHARS, normalise_number

MOST_PARAMS = 20
MAX_PARAMS_CHARS = 3000  # names and values: they are part of a URL that can be shared
DIRECTIONS = ("in", "out", "callback", "transitin", "transitout")


class TryForm(Form):
    """The call, the moment and the presence to try it with.

    `rows`: parameters as (name, value). `online`, `speaking`: ids of agents, for chosen presence; None before any
    choice.
    """

    caller = TextField(lazy("Caller"), [at_most(MAX_NUMBER_CHARS)])
    dialed = TextField(lazy("Dialed"), [at_most(MAX_NUMBER_CHARS)])
    direction = SelectField(lazy("Direction"), validate_choice=False)
    at = InstantField(lazy("Moment"))
    presence = RadioField(lazy("Presence"), default="live", validate_choice=False)
    ready = BooleanField(lazy("Take everybody for available: nobody on a break, paused, reserved or in wrap-up"))

    def __init__(self, sent: MultiDict[str, str]) -> None:
        super().__init__(formdata=sent)
        self.rows = list(_rows(sent))
        is_listed = "listed" in sent or "online" in sent or "speaking" in sent
        self.online = _ids(sent.getlist("online")) if is_listed else None
        self.speaking = _ids(sent.getlist("speaking")) if is_listed else None
        self.direction.choices = choices([("", _("not given")), *((name, name) for name in DIRECTIONS)])
        if self.direction.data and self.direction.data not in DIRECTIONS:
            self.direction.choices += choices([(self.direction.data, self.direction.data)])
        self.presence.choices = choices([("live", _("As it is now")), ("chosen", _("As I choose"))])
        if self.presence.data not in ("live", "chosen"):
            self.presence.data = "live"

    def validate(self, extra_validators: Any = None) -> bool:
        """Check also that the parameters fit into a URL."""
        is_valid = bool(super().validate(extra_validators))
        if len(self.rows) > MOST_PARAMS or sum(map(len, sum(self.rows, ()))) > MAX_PARAMS_CHARS:
            self.form_errors.append(
                _("At most %(n)s parameters, and %(chars)s characters in all.", n=MOST_PARAMS, chars=MAX_PARAMS_CHARS)
            )
            return False
        return is_valid

    @property
    def is_chosen(self) -> bool:
        """Whether it is tried with chosen presence."""
        return bool(self.presence.data == "chosen")

    def call(self, country: str) -> Call:
        """Return the call as the hook would read it."""
        return Call(
            caller=normalise_number(self.caller.data or "", country),
            dialed=normalise_number(self.dialed.data or "", country),
            direction=self.direction.data or "",
            params=dict(self.rows),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the URL of this trial."""
        found: dict[str, Any] = {"caller": self.caller.data or "", "dialed": self.dialed.data or ""}
        if self.direction.data:
            found["direction"] = self.direction.data
        if self.at.data is not None:
            found["at"] = self.at.raw_data[0].strip()
        if self.rows:
            found["name"], found["value"] = [name for name, _v in self.rows], [value for _n, value in self.rows]
        if self.is_chosen:
            found["presence"] = "chosen"
            if self.online is not None and self.speaking is not None:
                found |= {"online": ranges(self.online), "speaking": ranges(self.speaking)}
            if self.ready.data:
                found["ready"] = "y"
        return found


MOST_IDS = 100_000  # of all spans together: a URL could ask for any number


def _rows(sent: MultiDict[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in zip(sent.getlist("name"), sent.getlist("value"), strict=False):
        if name.strip():
            yield name.strip(), value


def ranges(numbers: Iterable[int]) -> str:
    """Render numbers for a URL: "1-40.52"."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ".".join(f"{first}-{last}" if last > first else f"{first}" for first, last in spans)


def _ids(texts: Iterable[str]) -> frozenset[int]:
    """Parse what `ranges` renders, or single ids; anything else is left out."""
    found: set[int] = set()
    for text in texts:
        for span in text.split("."):
            first, _dash, last = span.partition("-")
            if first.isascii() and first.isdigit() and len(span) < 20 and (not last or (last + "0").isdigit()):
                start, end = int(first), int(last or first)
                found.update(range(start, min(end, start + MOST_IDS - len(found)) + 1))
            if len(found) > MOST_IDS:
                return frozenset(found)
    return frozenset(found)
