"""Render the audit trail in words: what was done, and each change from what to what."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from flask_babel import format_datetime
from sqlalchemy import select
from sqlalchemy.orm import Session

from router.admin.dates_words import words_of
from router.admin.forms.parts import which_of_two
from router.admin.i18n import _, lazy
from router.admin.words import WORDS
from router.configuration.change import NEW_IDS, Difference
from router.configuration.document import ITEMS, names_of
from router.configuration.rows import MODELS
from router.configuration.schema import (
    CalledBeforeConfig,
    Config,
    ExpectConfig,
    FreeConfig,
    HookConfig,
    Notes,
    PresenceConfig,
    ProjectConfig,
    RuleTestCallConfig,
    WhenConfig,
    notes_of,
)
from router.db import models
from router.db.documents import KINDS, Document, upgrade_item

ACTIONS: dict[tuple[str, str], Any] = {
    ("created", "project"): lazy("added the project"),
    ("changed", "project"): lazy("changed the settings of"),
    ("deleted", "project"): lazy("deleted the project"),
    ("restored", "project"): lazy("restored the project"),
    ("rotated", "hook_token"): lazy("made a new hook address for"),
    ("ended", "hook_token"): lazy("ended an old hook address of"),
    ("created", "agent"): lazy("added the agent"),
    ("changed", "agent"): lazy("changed the agent"),
    ("deleted", "agent"): lazy("deleted the agent"),
    ("created", "group"): lazy("added the group"),
    ("changed", "group"): lazy("changed the group"),
    ("deleted", "group"): lazy("deleted the group"),
    ("created", "rule"): lazy("added the rule"),
    ("changed", "rule"): lazy("changed the rule"),
    ("deleted", "rule"): lazy("deleted the rule"),
    ("reordered", "rules"): lazy("changed the order of the rules"),
    ("reordered", "groups"): lazy("changed the order of the groups"),
    ("created", "schedule"): lazy("added the schedule"),
    ("changed", "schedule"): lazy("changed the schedule"),
    ("deleted", "schedule"): lazy("deleted the schedule"),
    ("signed_in", "user"): lazy("signed in"),
    ("sign_in_failed", "user"): lazy("tried to sign in with a wrong password"),
    ("signed_out", "user"): lazy("signed out"),
    ("signed_out_everywhere", "user"): lazy("signed out everywhere"),
    ("made_first_owner", "user"): lazy("became the first owner"),
    ("used_link", "user"): lazy("chose a password by a one-time link"),
    ("changed_password", "user"): lazy("changed their password"),
    ("invited", "user"): lazy("invited"),
    ("made_link", "user"): lazy("made a one-time link for"),
    ("changed", "user"): lazy("changed the user"),
    ("disabled", "user"): lazy("disabled the user"),
    ("enabled", "user"): lazy("enabled the user"),
    ("created", "test"): lazy("added the test"),
    ("changed", "test"): lazy("changed the test"),
    ("deleted", "test"): lazy("deleted the test"),
    ("planned", "draft"): lazy("planned when to publish the draft"),
    ("unplanned", "draft"): lazy("called off publishing the draft"),
    ("not_published", "draft"): lazy("planned a draft, which could not be published then"),
    ("discarded", "draft"): lazy("discarded the draft"),
    ("commented", "version"): lazy("commented version"),
    ("accepted", "tests"): lazy("saved although these tests fail:"),
    ("exported", "caller"): lazy("downloaded the data of the caller"),
    ("erased", "caller"): lazy("erased the data of the caller"),
}
"""By (action, subject) the words between the actor and the name of the subject."""

SUBJECTS: dict[str, Any] = {
    "project": lazy("Projects"),
    "agent": lazy("Agents"),
    "group": lazy("Groups"),
    "rule": lazy("Rules"),
    "schedule": lazy("Schedules"),
    "test": lazy("Tests"),
    "user": lazy("Users"),
    "caller": lazy("Callers"),
}

_ABOUT_ONESELF = {
    *("signed_in", "sign_in_failed", "signed_out", "signed_out_everywhere"),
    *("made_first_owner", "used_link", "changed_password"),
}

_MODELS: Mapping[str, Sequence[type[Config]]] = {
    "": (ProjectConfig, *ITEMS.values()),
    "hook.": (HookConfig,),
    "presence.": (PresenceConfig,),
    "when.": (WhenConfig,),
    "when.free.": (FreeConfig,),
    "when.called_before.": (CalledBeforeConfig,),
    "call.": (RuleTestCallConfig,),
    "expect.": (ExpectConfig,),
}
_KEYS: Mapping[str, Notes] = {
    start + key: notes_of(field)
    for start, models_there in _MODELS.items()
    for model in models_there
    for key, field in model.model_fields.items()
}
"""What the schema says of a key, by its path."""

_LABELS: dict[str, Any] = {
    **{path: lazy(notes.label) for path, notes in _KEYS.items() if notes.label and "%" not in notes.label},
    **{f"{path}.": lazy(notes.label) for path, notes in _KEYS.items() if "%" in notes.label},
    "prefer.param": lazy("Parameter that names the agent"),
    "order": lazy("Order"),
    "status": lazy("State"),
    "paused_until": lazy("Paused until"),
    "role": lazy("Role"),
    "publish_at": lazy("Publish at"),
    "address": lazy("From the address"),
    "comment": lazy("Comment"),
    "calls": lazy("Calls"),
    "refused_requests": lazy("Refused requests"),
    "open.": lazy("Open %(name)s"),
    "exceptions.": lazy("Exception %(name)s"),
    "exception_names.": lazy("Name of %(name)s"),
}
"""By path. A path that ends with a dot stands for all that begin so, with the rest as %(name)s."""

_PREFIXES = [path for path in _LABELS if path.endswith(".")]

Change = tuple[str, str | None, str | None]
"""(label, before, after); None for nothing."""

_MOST_CHANGES = 40


class Names(NamedTuple):
    """The names of rows that documents refer to by id."""

    by_kind: Mapping[str, Mapping[int, str]]

    def joined(self, other: Names) -> Names:
        """Return these names and those of another."""
        return Names({kind: {**names, **other.by_kind.get(kind, {})} for kind, names in self.by_kind.items()})

    def of(self, kind: str, row_id: object) -> str:
        return self.by_kind.get(kind, {}).get(row_id, f"#{row_id}") if isinstance(row_id, int) else ""


def load_names(session: Session, project_ids: Iterable[int]) -> Names:
    """Return the present names of all rows that documents of these projects may refer to."""
    ids = list(project_ids)
    kinds = {word: MODELS[kind] for kind, word in KINDS.items()}
    return Names(
        {
            kind: {
                row.id: row.name
                for row in session.execute(select(model.id, model.name).where(model.project_id.in_(ids)))
            }
            for kind, model in kinds.items()
        }
    )


def names_in(*documents: Document) -> Names:
    """Return the names of the rows of some documents; of a row that was renamed the last."""
    known = [names_of(document) for document in documents if document]
    return Names({word: {k: v for names in known for k, v in names[kind].items()} for kind, word in KINDS.items()})


def names_in_drafts(session: Session, draft_ids: Collection[int]) -> Names:
    """Return the names of the rows that were added in these drafts, by the audit trail."""
    entry, found = models.AuditEntry, dict[str, dict[int, str]]((word, {}) for word in KINDS.values())
    query = select(entry.subject, entry.subject_id, entry.subject_name).where(entry.draft_id.in_(draft_ids))
    for subject, row_id, name in session.execute(query.where(entry.subject_id >= NEW_IDS)) if draft_ids else ():
        found[subject][row_id or 0] = name
    return Names(found)


def action_words(action: str, subject: str) -> str:
    """Return what was done, as the middle of a sentence."""
    words = ACTIONS.get((action, subject))
    return str(words) if words is not None else f"{action} {subject}".replace("_", " ")


def names_its_subject(action: str) -> bool:
    """Return whether the subject is somebody or something else than the actor."""
    return action not in _ABOUT_ONESELF


def changes_in_words(entry: models.AuditEntry | Difference, names: Names, zone: tzinfo = UTC) -> list[Change]:
    """Return the differences between before and after; of a new or deleted subject its values. Instants in `zone`."""
    before, after = (None if row is None else upgrade_item(entry.subject, row) for row in (entry.before, entry.after))
    is_person = entry.subject in {"agent", "user"}
    reader = _Reader(names, zone, is_person, is_change=before is not None and after is not None)
    changes = list(_changes(before or {}, after or {}, reader))
    if before is None:
        changes = [(label, None, new) for label, _old, new in changes if new and new != "0"]
    elif after is None:
        changes = [(label, old, None) for label, old, _new in changes if old and old != "0"]
    if len(changes) > _MOST_CHANGES:
        rest = len(changes) - _MOST_CHANGES
        changes = [*changes[:_MOST_CHANGES], (_("and"), None, _("%(n)s more", n=rest))]
    return changes


class _Reader(NamedTuple):
    """The context for rendering values. `is_change`: there is a before and an after, so that "not set" is shown too.
    `is_person`: the subject is one.
    """

    names: Names
    zone: tzinfo
    is_person: bool
    is_change: bool


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], reader: _Reader) -> Iterator[Change]:
    old, new = dict(_flat(before)), dict(_flat(after))
    for path in [*old, *(path for path in new if path not in old)]:
        if path == "members":
            yield from _member_changes(old.get(path) or [], new.get(path) or [], reader.names)
        elif path == "secrets":
            if new.get(path) and old.get(path) != new[path]:
                yield _("Credentials"), None, _("changed")
        elif path != "id" and old.get(path) != new.get(path):
            label = _("Full name") if path == "name" and reader.is_person else _label(path)
            yield label, _text(path, old.get(path), reader), _text(path, new.get(path), reader)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path != "hook.fields":
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def _label(path: str) -> str:
    if path in _LABELS:
        return str(_LABELS[path])
    for prefix in _PREFIXES:
        if path.startswith(prefix):
            name = path.removeprefix(prefix)
            return str(_LABELS[prefix]) % {"name": words_of(name) if prefix.startswith("exception") else name}
    return path


def _text(path: str, value: Any, reader: _Reader) -> str:
    names = reader.names
    if path == "overflow" and value is None and reader.is_change:
        return _("none of its own")
    if path == "overflow" and value == "":
        return _("an empty answer")
    if value is None:
        return ""
    notes = _KEYS.get(path, Notes(""))
    if notes.is_instant or path.endswith(("_until", "publish_at")):
        return _moment(value, reader.zone)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    kind = notes.refers
    if isinstance(value, list):
        return ", ".join(names.of(kind, item) if kind else str(item) for item in value)
    if kind:
        return names.of(kind, value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {', '.join(items)}" for key, items in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return _(notes.words[value]) if value in notes.words else str(WORDS.get(path, {}).get(value, value))


def _moment(text: str, zone: tzinfo) -> str:
    at = datetime.fromisoformat(text).astimezone(zone)
    shown = format_datetime(at, "EEE, d MMM y, HH:mm", rebase=False)
    return f"{shown}{which_of_two(at, str(zone)) or f' ({zone})'}"


def _member_changes(old: list[dict[str, Any]], new: list[dict[str, Any]], names: Names) -> Iterator[Change]:
    before, after = ({member["agent"]: member for member in members} for members in (old, new))
    label, words = (
        _("Member %(name)s"),
        _("tier %(tier)s, weight %(weight)s"),
    )  # looked up once: there may be 1,000 members
    for agent in [*before, *(agent for agent in after if agent not in before)]:
        if before.get(agent) == after.get(agent):
            continue
        was, now = (_member(members.get(agent), names, words) for members in (before, after))
        if was != now:  # more than its place has changed, which is shown below
            yield label % {"name": names.of("agent", agent)}, was, now
    stayed = before.keys() & after.keys()
    was_order, now_order = ([m["agent"] for m in members if m["agent"] in stayed] for members in (old, new))
    if was_order != now_order:
        was, now = (", ".join(names.of("agent", agent) for agent in order) for order in (was_order, now_order))
        yield _("Order of members"), was, now


def _member(member: dict[str, Any] | None, names: Names, words: str) -> str | None:
    if member is None:
        return None
    text = words % {"tier": member["tier"], "weight": member["weight"]}
    return f"{text}, {names.of('schedule', member['hours'])}" if member.get("hours") else text
