"""The forms of agents."""

from __future__ import annotations

from typing import Any

from wtforms import BooleanField

from router.admin.forms.base import LinesField, TextField, accepted_by, at_most, at_most_entries
from router.admin.forms.parts import InstantField, ItemForm, ReferenceField, name_field, number_field
from router.admin.i18n import lazy
from router.configuration.schema import MAX_NAME_CHARS, AgentConfig, check_login, most_of

LOGIN_REFUSED = lazy("“%(text)s” is not a valid SIP login: write it without spaces, at most 128 characters.")


class AgentForm(ItemForm):
    kind = "agents"

    name = name_field(lazy("Give the agent a name."))
    sip_logins = LinesField(
        lazy("SIP logins"),
        [at_most_entries(most_of(AgentConfig, "sip_logins")), accepted_by(check_login, LOGIN_REFUSED)],
    )
    paused = BooleanField(lazy("Paused: gets no calls until resumed"))
    away_until = InstantField(lazy("Away until"))
    deputy = ReferenceField(lazy("Deputy"), nobody=lazy("nobody"))
    hours = ReferenceField(lazy("Working hours"), nobody=lazy("always"))
    wrap_up_seconds = number_field(lazy("Wrap-up"), AgentConfig, "wrap_up_seconds")
    daily_cap = number_field(lazy("Daily cap"), AgentConfig, "daily_cap")
    staff_id = TextField(lazy("Staff id"), [at_most(MAX_NAME_CHARS)])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deputy.offer(choice for choice in self.choices_of("agents") if choice[0] != self.row_id)
        self.hours.offer(self.choices_of("schedules"))
