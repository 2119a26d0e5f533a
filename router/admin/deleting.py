"""Delete an agent or a group, after a page that shows what uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flask import render_template, request, url_for
from flask.typing import ResponseReturnValue

from router.admin.i18n import _, lazy
from router.admin.page import done, editing
from router.configuration.change import users_of

_LISTS = {
    "agents": (lazy("Agents"), lazy("The agent is in no group and is nobody’s deputy.")),
    "groups": (lazy("Groups"), lazy("No rule uses this group.")),
}
_PLACES = {
    "groups": lazy("member of the group"),
    "agents": lazy("deputy of"),
    "rules": lazy("in the rule"),
    "tests": lazy("in the test"),
}


class User(NamedTuple):
    """A row that uses the one to be deleted. `remark`: what that means. `is_needed`: it must be changed first."""

    words: str
    url: str
    name: str
    remark: str = ""
    is_needed: bool = False


def delete(kind: str, row_id: int) -> ResponseReturnValue:
    """Show what uses the row; on a POST take it out of there and delete it, unless it is needed."""
    with editing() as draft:
        row, document = draft.item(kind, row_id), draft.document
        places = users_of(document).get((kind, row_id), ())
        users = [_user(user_kind, document[user_kind][place], row_id) for user_kind, place in places]
        may_delete = not any(user.is_needed for user in users)
        if may_delete and request.method == "POST":
            draft.forget(kind, row_id)
    title, empty = _LISTS[kind]
    if may_delete and request.method == "POST":
        return done(_("%(name)s is deleted.", name=row["name"]), url_for(f"admin.{kind}"))
    page = {"kind": kind, "row": row, "title": title, "users": users, "empty": empty, "may_delete": may_delete}
    return render_template("forms/delete.html", **page), 409 if request.method == "POST" else 200


def _user(kind: str, row: Mapping[str, Any], gone: int) -> User:
    user = User(str(_PLACES[kind]), url_for(f"admin.{kind.removesuffix('s')}", id=row["id"]), row["name"])
    if kind == "tests":
        return user._replace(remark=_("it would test something else. Change or delete the test first."), is_needed=True)
    if kind != "rules":
        return user
    if row["when"].get("free", {}).get("group") == gone:  # without this condition the rule would take more calls
        return user._replace(
            remark=_("its condition counts the free agents of this group. Change the condition first."), is_needed=True
        )
    if row["groups"] == [gone]:
        return user._replace(remark=_("it has no other group, so its calls will go to its overflow."))
    return user
