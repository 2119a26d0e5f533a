"""The steps from a new project to its first routed call: on the board, and the next one after each saved change."""

from __future__ import annotations

from typing import NamedTuple

from flask import g, request, url_for
from sqlalchemy import select

from router.admin.i18n import _, ngettext
from router.admin.page import Role, current_project, current_rules, may, reading
from router.core.model import Project
from router.db import models
from router.presence.source import ErrorCode


class Step(NamedTuple):
    """A step of ui.checklist. `action`: the label of the link to `url`."""

    title: str
    text: str
    done: bool
    url: str
    action: str


def first_steps(configuration: Project, *, is_connected: bool, has_calls: bool, unowned_logins: int = 0) -> list[Step]:
    """Return all steps; [] once all are done."""
    has_logins = any(agent.sip_logins for agent in configuration.agents.values())
    agents = _("The people who take calls, with their SIP logins.")
    if unowned_logins:
        agents = ngettext(
            "%(num)s login is online and not assigned to an agent yet.",
            "%(num)s logins are online and not assigned to an agent yet.",
            unowned_logins,
        )
    steps = [
        Step(_("Create a project"), "", True, "", ""),
        Step(
            _("Connect to Ringostat"),
            _("Enter the Auth-key and check the connection: then we know who is online."),
            is_connected,
            url_for("admin.settings", part="presence"),
            _("Enter the Auth-key"),
        ),
        Step(_("Add the agents"), agents, has_logins, url_for("admin.agents"), _("Add agents")),
        Step(
            _("Create a group"),
            _("The agents who answer one kind of call, and the order in which they are tried."),
            any(group.members for group in configuration.groups.values()),
            url_for("admin.groups"),
            _("Create a group"),
        ),
        Step(
            _("Create a rule"),
            _("Which calls go to which group."),
            any(rule.enabled for rule in configuration.rules),
            url_for("admin.rules"),
            _("Create a rule"),
        ),
        Step(
            _("Enter the hook in Ringostat’s cabinet"),
            _("Then call your own number: the call shows up here by itself."),
            has_calls,
            url_for("admin.hook"),
            _("Show the hook"),
        ),
    ]
    return [] if all(step.done for step in steps) else steps


def next_step() -> Step | None:
    """Return the first step that the current project lacks; None on the board, which shows all."""
    if g.get("project") is None or not may(Role.EDITOR) or request.endpoint == "admin.board":
        return None
    with reading() as session:
        project_id = current_project().id
        row, presence = session.get_one(models.Project, project_id), session.get(models.Presence, project_id)
        is_failing = presence is not None and presence.failures and presence.error_code != ErrorCode.NO_KEY
        decision = models.Decision
        call = session.scalar(select(decision.id).where(decision.project_id == project_id, ~decision.is_test).limit(1))
        steps = first_steps(
            current_rules(session),
            is_connected=row.presence_auth_key is not None and not is_failing,
            has_calls=call is not None,
        )
    return next((step for step in steps if not step.done), None)
