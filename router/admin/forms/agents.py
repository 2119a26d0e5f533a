"""The forms of agents."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session
from wtforms import BooleanField

from router.admin.forms.base import LinesField, TextField, accepted_by, at_most, at_most_entries
from router.admin.forms.parts import InstantField, NamedForm, ReferenceField, choices_of, name_field, number_field
from router.admin.i18n import _, lazy
from router.admin.page import current_project
from router.config_file.rows import set_logins
from router.config_file.schema import MAX_NAME_CHARS, AgentConfig, check_login, most_of
from router.db import models

LOGIN_REFUSED = lazy("“%(text)s” is not a valid SIP login: write it without spaces, at most 128 characters.")


class LoginsField(LinesField):
    """SIP logins in the order of preference, one a line."""

    def populate_obj(self, obj: Any, name: str) -> None:
        set_logins(obj, self.data)


class AgentForm(NamedForm):
    model = models.Agent

    name = name_field(lazy("Give the agent a name."))
    sip_logins = LoginsField(
        lazy("SIP logins"),
        [at_most_entries(most_of(AgentConfig, "sip_logins")), accepted_by(check_login, LOGIN_REFUSED)],
    )
    paused = BooleanField(lazy("Paused: gets no calls until resumed"))
    away_until = InstantField(lazy("Away until"))
    deputy_id = ReferenceField(lazy("Deputy"), nobody=lazy("nobody"))
    hours_id = ReferenceField(lazy("Working hours"), nobody=lazy("always"))
    wrap_up_seconds = number_field(lazy("Wrap-up"), AgentConfig, "wrap_up_seconds")
    daily_cap = number_field(lazy("Daily cap"), AgentConfig, "daily_cap")
    external_id = TextField(lazy("Staff id"), [at_most(MAX_NAME_CHARS)])

    def __init__(self, *args: Any, session: Session, obj: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, session=session, obj=obj, **kwargs)
        own = None if obj is None else obj.id
        self.deputy_id.offer(choice for choice in choices_of(session, models.Agent) if choice[0] != own)
        self.hours_id.offer(choices_of(session, models.Schedule))

    def fill(self, row: Any) -> None:
        self.sip_logins.data = [login.login for login in row.sip_logins]
        self.deputy_id.data = "" if row.deputy_id is None else str(row.deputy_id)
        self.hours_id.data = "" if row.hours_id is None else str(row.hours_id)

    def saves(self, row: Any = None) -> bool:
        return super().saves(row) and self._are_logins_free(None if row is None else row.id)

    def _are_logins_free(self, agent_id: int | None) -> bool:
        logins = self.sip_logins.data
        if len(set(logins)) < len(logins):
            twice = Counter(logins).most_common(1)[0][0]
            self.refuse("sip_logins", _("“%(login)s” is listed twice.", login=twice))
            return False
        owner = owner_of_any(self._session, logins, agent_id)
        if owner is not None:
            text = _("“%(login)s” belongs to %(name)s already: a login has one owner.", login=owner[0], name=owner[1])
            self.refuse("sip_logins", text)
        return owner is None


def owner_of_any(session: Session, logins: list[str], but: int | None) -> tuple[str, str] | None:
    """Return (login, agent's name) of the first of these logins that an agent of the project other than `but` owns."""
    login, agent = models.SipLogin, models.Agent
    query = (
        select(login.login, agent.name)
        .join(agent, agent.id == login.agent_id)
        .where(login.project_id == current_project().id, login.login.in_(logins))
        .order_by(login.login)
        .limit(1)
    )
    row = session.execute(query if but is None else query.where(agent.id != but)).first()
    return None if row is None else (row[0], row[1])
