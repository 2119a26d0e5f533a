"""Write rows of the configuration from a document: the inverse of router.db.configuration.document_of.

Only values that differ are set: otherwise the revision would count up, and report a false conflict to an admin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm.attributes import flag_modified

from router.db import models

MODELS: Mapping[str, Any] = {
    "schedules": models.Schedule,
    "agents": models.Agent,
    "groups": models.Group,
    "rules": models.Rule,
}
"""By their key in a document, in the order in which they may refer to each other."""

ORDERED = ("groups", "rules")
"""Those that have a position."""

_COLUMNS = {
    "when": "conditions",
    "hours": "hours_id",
    "inside": "inside_id",
    "outside": "outside_id",
    "free_group": "free_group_id",
}
"""The column of a key that is not named like it."""


def set_values(row: Any, **values: Any) -> bool:
    """Set the values that differ. Return whether any did."""
    changed = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in changed.items():
        setattr(row, name, value)
    return bool(changed)


def write_project(row: models.Project, values: Mapping[str, Any]) -> None:
    """Write the project's part of a document. It holds no credentials, so those stay."""
    for part in ("hook", "presence"):
        set_values(row, **{f"{part}_{key}": value for key, value in values[part].items() if key != "basic_auth"})
    set_values(row, **{key: values[key] for key in values.keys() - {"hook", "presence", "secrets"}})


def write_row(row: Any, values: Mapping[str, Any]) -> None:
    """Write one schedule, agent, group or rule of a document.

    The caller sets `deputy`: agents refer to each other, and the other one may not be stored yet.
    """
    for key, value in values.items():
        if key in _LISTS:
            _LISTS[key](row, value)
        elif key.endswith("_until"):
            set_values(row, **{key: None if value is None else datetime.fromisoformat(value)})
        elif key not in ("id", "deputy"):
            set_values(row, **{_COLUMNS.get(key, key): value})


def set_logins(agent: models.Agent, logins: Sequence[str]) -> None:
    """Give the agent these SIP logins, in this order."""
    wanted = [{"login": login, "project_id": agent.project_id, "position": n} for n, login in enumerate(logins)]
    _set_children(agent, "sip_logins", models.SipLogin, "login", wanted)


def set_members(group: models.Group, members: Iterable[Mapping[str, Any]]) -> None:
    """Give the group these members, as a document holds them."""
    wanted = [
        {
            "agent_id": member["agent"],
            "tier": member["tier"],
            "position": member["position"],
            "weight": member["weight"],
            "hours_id": member["hours"],
        }
        for member in members
    ]
    _set_children(group, "members", models.Member, "agent_id", wanted)


def set_chain(rule: models.Rule, group_ids: Sequence[int]) -> None:
    """Give the rule this chain of groups."""
    wanted = [{"group_id": group_id, "position": n} for n, group_id in enumerate(group_ids)]
    _set_children(rule, "groups", models.RuleGroup, "group_id", wanted)


_LISTS: Mapping[str, Callable[[Any, Any], None]] = {
    "sip_logins": set_logins,
    "members": set_members,
    "groups": set_chain,
}


def _set_children(row: Any, attribute: str, model: Any, key: str, wanted: Sequence[dict[str, Any]]) -> None:
    """Set a list of child rows. `key`: the name of the value that identifies each.

    A change also counts up the revision of the parent, because people edit both in one form.
    """
    stored, children, is_changed = getattr(row, attribute), [], False
    by_key = {getattr(child, key): child for child in stored}
    for values in wanted:
        child = by_key.get(values[key]) or model()
        is_changed |= set_values(child, **values)
        children.append(child)
    if is_changed or stored != children:
        setattr(row, attribute, children)
        flag_modified(row, "name")
