"""The warnings of core.review about a configuration, in the reader's language."""

from __future__ import annotations

from typing import NamedTuple

from router.admin.i18n import _, lazy
from router.core.model import Project
from router.core.review import WORDINGS, ConfigWarning, warnings_of, warnings_of_agents
from router.db.documents import Document, build_schedule


class Advice(NamedTuple):
    """A warning. `subject`: project, schedule, agent, group or rule."""

    subject: str
    subject_id: int
    kind: str
    text: str


_SUBJECTS = {
    "project": lazy("The project"),
    "rule": lazy("This rule"),
    "group": lazy("This group"),
    "agent": lazy("This agent"),
    "schedule": lazy("This schedule"),
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
    wording = WORDINGS[found.kind]
    by = ", ".join(_("“%(name)s”", name=name) for name in found.by)
    message, remedy = _(wording.message, by=by), _(wording.remedy)
    text = f"{_SUBJECTS[found.subject]} {message}. {remedy[0].upper()}{remedy[1:]}."
    return Advice(found.subject, found.subject_id, found.kind, text)
