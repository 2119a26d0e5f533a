"""Keep the form that was posted after the session had ended: encrypted in the sign-in page, shown after signing in.

It is not stored on the server, and cannot be read in the page.
"""

from __future__ import annotations

import time
import zlib

import orjson
from flask import g, request
from werkzeug.datastructures import ImmutableMultiDict

from router.admin import security
from router.db.types import SecretError, seal, unseal

FIELD = "kept"
LIFETIME_SECONDS = 24 * 3600


def is_anything_typed() -> bool:
    """Return whether the request posts more than its CSRF token."""
    return any(name != "csrf_token" for name in request.form)


def seal_form(user_id: int | None) -> str:
    """Return the posted form, encrypted, for this URL and user; for any user where `user_id` is None."""
    typed = [[name, text] for name, text in request.form.items(multi=True) if name != "csrf_token"]
    content = {"to": security.here(), "user": user_id, "at": int(time.time()), "form": typed}
    return seal(zlib.compress(orjson.dumps(content))).decode()


def restore_form(user_id: int) -> bool:
    """Replace the posted form by the encrypted one. Return False if there is none for this URL and user."""
    try:
        content = orjson.loads(zlib.decompress(unseal(request.form.get(FIELD, "").encode())))
    except SecretError:
        return False
    is_meant = content["to"] == security.here() and content["user"] in (None, user_id)
    if is_meant and time.time() - content["at"] < LIFETIME_SECONDS:
        request.form = ImmutableMultiDict(map(tuple, content["form"]))
        return True
    return False


def only_show() -> None:
    """Let the forms of this request show what was typed without storing it."""
    g.is_only_shown = True


def is_only_shown() -> bool:
    """Return whether forms only show what was typed."""
    return bool(g.get("is_only_shown"))
