"""What the call log is searched by: numbers in any notation, agents, rules, outcomes, a time on the project's clock."""

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
from router.admin.page import CurrentProject, current_project
from router.core.model import Outcome, Project
from router.core.unset import is_withheld
from router.db.log import EMPTY, NO_RULE, OPEN, OVERFLOW, Number, Search
from router.numbers import normalise_number, normalise_prefix

SHORTEST_PART = 4  # characters; fewer are a whole extension
_RULE_UNKNOWN = "none"


class UntilField(InstantField):
    """The end of what was written: "14:05" is over with that minute, "2026-12-24" with that day."""

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
    """The filters of the call log, as they come in its address."""

    caller = TextField(lazy("Caller"), [at_most(100)])
    dialed = TextField(lazy("Dialed"), [at_most(100)])
    agent = SelectField(lazy("Offered to"), validate_choice=False)
    rule = SelectField(lazy("Rule"), validate_choice=False)
    outcome = SelectField(lazy("Outcome"), validate_choice=False)
    since = InstantField(lazy("From"))
    until = UntilField(lazy("Until"))
    degraded = BooleanField(lazy("Answered under difficulties only"))

    def validate_until(self, field: Any) -> None:
        if field.data is not None and self.since.data is not None and field.data <= self.since.data:
            raise ValidationError(_("This is before “From”: nothing lies between the two."))

    def offer(self, project: Project) -> None:
        """Let these agents and rules be chosen. One that is gone can stay chosen: its calls are still in the log."""
        agents = sorted((agent.name.casefold(), str(agent.id), agent.name) for agent in project.agents.values())
        self.agent.choices = _or_any((key, name) for _order, key, name in agents)
        rules = [(str(rule.id), rule.name) for rule in project.rules]
        self.rule.choices = _or_any([*rules, (_RULE_UNKNOWN, _("no rule matched"))])
        for field in (self.agent, self.rule):
            if _is_id(field.data) and field.data not in {choice.value for choice in field.choices}:
                field.choices.append(choices([(field.data, f"#{field.data}")])[0])
        self.outcome.choices = _or_any(OUTCOME_WORDS.items())

    def search(self, project: CurrentProject) -> Search:
        """What is looked for. What makes no sense asks for nothing."""
        rule = NO_RULE if self.rule.data == _RULE_UNKNOWN else int(self.rule.data) if _is_id(self.rule.data) else None
        return Search(
            caller=number_of(self.caller.data or "", project.country),
            dialed=number_of(self.dialed.data or "", project.country),
            agent_id=int(self.agent.data) if _is_id(self.agent.data) else None,
            rule_id=rule,
            outcome=self.outcome.data if self.outcome.data in OUTCOME_WORDS else "",
            degraded=bool(self.degraded.data),
            since=self.since.data,
            until=self.until.data,
        )


OUTCOME_WORDS = {
    OPEN: lazy("In progress"),
    Outcome.ANSWERED.value: lazy("Answered"),
    Outcome.NO_ANSWER.value: lazy("No answer"),
    Outcome.BUSY.value: lazy("Declined or busy"),
    Outcome.ABANDONED.value: lazy("Caller hung up"),
    Outcome.VOICEMAIL.value: lazy("Voice mail"),
    Outcome.FAILED.value: lazy("Failed"),
    Outcome.UNKNOWN.value: lazy("Nothing heard"),
    OVERFLOW: lazy("Overflow"),
    EMPTY: lazy("Empty answer"),
}
"""What a call can be looked for by: the words of the signs that it bears in the log."""


def _or_any(pairs: Iterable[tuple[str, Any]]) -> list[SelectChoice]:
    return choices([("", _("any")), *((key, str(label)) for key, label in pairs)])


def _is_id(text: str | None) -> bool:
    return bool(text) and text is not None and text.isascii() and text.isdigit() and len(text) < 10


def number_of(text: str, country: str) -> Number | None:
    """What is known of a number when this was typed: all of it, that it is hidden, or a part; None: nothing."""
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
    # "050 123" may be the beginning of a national number, or stand anywhere in one.
    parts = dict.fromkeys((digits, normalise_prefix(text, country) or digits))
    return Number(parts=tuple(part for part in parts if not any(other != part and other in part for other in parts)))


def _is_complete(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(f"+{number}", None))
    except phonenumbers.NumberParseException:
        return False
