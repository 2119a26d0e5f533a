"""The warnings of core.review about a configuration, in the reader's language."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from router.admin.i18n import lazy
from router.core.model import Project
from router.core.review import ConfigWarning, warnings_of, warnings_of_agents
from router.db.configuration import Document, build_schedule


class Advice(NamedTuple):
    """A warning. `subject`: project, schedule, agent, group or rule."""

    subject: str
    subject_id: int
    kind: str
    text: str


WORDS: dict[str, Any] = {
    "no_overflow": lazy(
        "The project has no overflow: a call that nobody can take is answered empty. Name a number, SIP login or "
        "scheme id that always answers."
    ),
    "no_rules": lazy("No rule is turned on: every call goes to the overflow. Add a rule."),
    "shadowed": lazy(
        "This rule can never match: %(by)s above it takes every call that it would match. Move it up, narrow what "
        "stands above it, or remove it."
    ),
    "shadowed_by_two": lazy(
        "This rule can never match: %(by)s above it together take every call that it would match, in hours and out of "
        "hours. Move it up, narrow what stands above it, or remove it."
    ),
    "excludes_itself": lazy(
        "This rule can never match: what it excludes of %(by)s is all that it allows. Take values out of one of the "
        "two."
    ),
    "in_and_out": lazy(
        "This rule can never match: it asks %(by)s to be open and closed at once. Take one of the two out."
    ),
    "never_in_hours": lazy(
        "This rule can never match: its schedule %(by)s is never open. Give the schedule hours, or use another."
    ),
    "never_open": lazy("It is never open. Give it hours, or an exception that has some."),
    "loses_minute": lazy(
        "One minute stays closed with %(by)s: the end of hours is not open any more. Write 24:00 for the end of the "
        "day, and 18:00 rather than 17:59."
    ),
    "unused_schedule": lazy("No rule, agent or member uses it. Use it, or delete it."),
    "no_members": lazy("It has no members: nobody can take its calls. Add members."),
    "unused_group": lazy("No rule names it: it gets no calls. Name it in a rule, or delete it."),
    "no_logins": lazy("No SIP login: no call can be offered. Add the login that rings this agent’s phone."),
    "deputies_in_a_circle": lazy(
        "Deputies in a circle with %(by)s: while all of them are away, nobody stands in. Give one of them a deputy "
        "outside the circle, or none."
    ),
    "no_group": lazy("In no group: no call is offered. Add the agent to a group."),
}


def advise(document: Document, project: Project) -> list[Advice]:
    """Return all warnings about a configuration, given as document and as the rules' view of it."""
    schedules = [build_schedule(row) for row in document["schedules"]]
    return [_advice(found) for found in warnings_of(project, schedules)]


def warnings_by_id(document: Document, project: Project, subject: str) -> dict[int, list[str]]:
    """Return the texts of all warnings about subjects of one kind, by their id."""
    found: dict[int, list[str]] = {}
    for one in advise(document, project):
        if one.subject == subject:
            found.setdefault(one.subject_id, []).append(one.text)
    return found


def advise_on_deputies(project: Project) -> list[Advice]:
    """Return the warnings about agents who stand in for each other in a circle."""
    return [_advice(found) for found in warnings_of_agents(project) if found.kind == "deputies_in_a_circle"]


def _advice(found: ConfigWarning) -> Advice:
    return Advice(found.subject, found.subject_id, found.kind, str(WORDS[found.kind]) % {"by": _quoted(found.by)})


def _quoted(names: str) -> str:
    """Replace the quotes of core.review, which quotes names as Python does: 'day' and 'night'."""
    return re.sub(r"(?<!\w)(['\"])(.+?)\1(?!\w)", r"“\2”", names).replace("” and “", "”, “")
