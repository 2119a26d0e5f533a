"""What somebody had typed when the session ended. It travels in the sign-in page, sealed, and is shown again after it.

Nothing of it is kept on the server, stands in an address or can be read in the page.
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
    """Does the request carry more than its token?"""
    return any(name != "csrf_token" for name in request.form)


def seal_form(user_id: int | None) -> str:
    """The form of this request, for the same address and user alone; for whoever signs in where the user is None."""
    typed = [[name, text] for name, text in request.form.items(multi=True) if name != "csrf_token"]
    content = {"to": security.here(), "user": user_id, "at": int(time.time()), "form": typed}
    return seal(zlib.compress(orjson.dumps(content))).decode()


def restore_form(user_id: int) -> bool:
    """Put what was sealed in the place of what this request carries. Was there anything for this address and user?"""
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
    """Let the forms of this request show what was typed, and store nothing."""
    g.is_only_shown = True


def is_only_shown() -> bool:
    """Is what was typed only to be shown?"""
    return bool(g.get("is_only_shown"))
