"""The form of an agent."""

from __future__ import annotations

from router.admin.forms.parts import ItemForm, name_field
from router.admin.i18n import lazy


class AgentForm(ItemForm):
    kind = "agents"

    name = name_field(lazy("Give the agent a name."))
