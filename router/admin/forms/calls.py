"""The search form of the call log: numbers in any notation, agents, rules, outcomes, a time span."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import phonenumbers
from wtforms import BooleanField, SelectChoice, SelectField
from wtforms.validators import ValidationError

from router.admin.forms.base import Form, TextField, at_most, choices
from router.admin.forms.parts import InstantField
from router.admin.i18n import _, lazy
from router.admin.page import CurrentProject, as_id, current_project
from router.admin.words import STATES
from router.core.model import Outcome, Project
from router.db.log import EMPTY, NO_RULE, OPEN, OVERFLOW, Number, Search
from router.numbers import is_withheld, normalise_number, normalise_prefix

SHORTEST_PART = 4  # characters; fewer are searched for as an extension
_RULE_UNKNOWN = "none"


class UntilField(InstantField):
    """A time that means its end: of the minute for "14:05", of the day for "2026-12-24"."""

    def process_formdata(self, valuelist: list[str]) -> None:
        super().process_formdata(valuelist)
        if self.data is not None:
            self.data += self._span(valuelist[0].strip(), self.data)

    def _span(self, text: str, first: datetime) -> timedelta:
        digits = len(re.sub(r"\D", "", re.split(r"[Z+-]", text[10:])[0]))  # of the time of day, without its zone
        if digits:
            return {2: timedelta(hours=1), 4: timedelta(minutes=1), 6: timedelta(seconds=1)}.get(digits, _INSTANT)
        zone = ZoneInfo(self.time_zone or current_project().time_zone)
        next_day = first.astimezone(zone).date() + timedelta(days=1)
        return datetime.combine(next_day, time(), zone).astimezone(UTC) - first


_INSTANT = timedelta(microseconds=1)


class CallsForm(Form):
    """The filters of the call log, which are in its URL."""

    caller = TextField(lazy("Caller"), [at_most(100)])
    dialed = TextField(lazy("Dialed"), [at_most(100)])
    agent = SelectField(lazy("Offered to"), validate_choice=False)
    rule = SelectField(lazy("Rule"), validate_choice=False)
    outcome = SelectField(lazy("Outcome"), validate_choice=False)
    since = InstantField(lazy("From"))
    until = UntilField(lazy("Until"))
    degraded = BooleanField(lazy("Degraded answers only"))

    def validate_until(self, field: Any) -> None:
        if field.data is not None and self.since.data is not None and field.data <= self.since.data:
            raise ValidationError(_("Not after “From”: choose a later time."))

    def offer(self, project: Project) -> None:
        """Set the choices. A chosen agent or rule that was deleted stays chosen: its calls are still in the log."""
        agents = sorted((agent.name.casefold(), str(agent.id), agent.name) for agent in project.agents.values())
        self.agent.choices = _or_any((key, name) for _order, key, name in agents)
        rules = [(str(rule.id), rule.name) for rule in project.rules]
        self.rule.choices = _or_any([*rules, (_RULE_UNKNOWN, _("no rule matched"))])
        for field in (self.agent, self.rule):
            if as_id(field.data) and field.data not in {choice.value for choice in field.choices}:
                field.choices.append(choices([(field.data, f"#{field.data}")])[0])
        self.outcome.choices = _or_any(OUTCOME_WORDS.items())

    def search(self, project: CurrentProject) -> Search:
        """Return the search. Invalid values are ignored."""
        return Search(
            caller=number_of(self.caller.data or "", project.country),
            dialed=number_of(self.dialed.data or "", project.country),
            agent_id=as_id(self.agent.data),
            rule_id=NO_RULE if self.rule.data == _RULE_UNKNOWN else as_id(self.rule.data),
            outcome=self.outcome.data if self.outcome.data in OUTCOME_WORDS else "",
            degraded=bool(self.degraded.data),
            since=self.since.data,
            until=self.until.data,
        )


OUTCOME_WORDS: dict[str, Any] = {OPEN: STATES[OPEN].label}
OUTCOME_WORDS |= {name: STATES["unheard" if name == Outcome.UNKNOWN else name].label for name in Outcome}
OUTCOME_WORDS |= {name: STATES[name].label for name in (OVERFLOW, EMPTY)}
"""The outcomes to search for, in the words of the log."""


def _or_any(pairs: Iterable[tuple[str, Any]]) -> list[SelectChoice]:
    return choices([("", _("any")), *((key, str(label)) for key, label in pairs)])


def number_of(text: str, country: str) -> Number | None:
    """Return how to search for what was typed: as a whole number, as withheld, or as a part; None when empty."""
    text = text.strip()
    if not text:
        return None
    if is_withheld(text) or text.casefold() == _("anonymous").casefold():
        return Number(exact=("",))
    whole = normalise_number(text, country)
    digits = re.sub(r"[^\d]", "", text)
    if not digits or re.search(r"[^\W\d_]", text):  # a SIP login
        return Number(exact=(whole,)) if len(text) < SHORTEST_PART else Number(parts=(text,))
    if len(digits) < SHORTEST_PART or _is_complete(whole):
        return Number(exact=(whole,))
    # "050 123" may be the beginning of a national number, or anywhere in one.
    parts = dict.fromkeys((digits, normalise_prefix(text, country) or digits))
    return Number(parts=tuple(part for part in parts if not any(other != part and other in part for other in parts)))


def _is_complete(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(f"+{number}", None))
    except phonenumbers.NumberParseException:
        return False
