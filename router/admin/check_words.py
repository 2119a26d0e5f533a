"""Describe what is wrong with the installation in the reader's language, for the board; remedies only for owners."""

from __future__ import annotations

from typing import Any, NamedTuple

from router.admin.i18n import _, lazy
from router.admin.page import Role, context, may


class Trouble(NamedTuple):
    """An error of the installation, and its remedy. `command` applies it; `kind`: the error's name, as in the log."""

    message: str
    remedy: str
    command: str
    kind: str


_WORDS: dict[str, tuple[Any, Any]] = {
    "database": (
        lazy("The database does not answer as it should: calls are answered from what was last known."),
        lazy("Check that the server runs, and that DATABASE_URL names it."),
    ),
    "disk": (
        lazy("The disk of the database is full: calls are answered, but cannot be recorded."),
        lazy("Free some space on it."),
    ),
    "connections": (
        lazy("The database allows fewer connections than there are processes: some of them answer calls without it."),
        lazy("Raise the limit of the server, lower WEB_CONCURRENCY, or put a pooler before the server."),
    ),
    "encoding": (
        lazy("The database cannot store every character: calls with names in other scripts are answered without it."),
        lazy("Make a database with the encoding UTF8, and move to it."),
    ),
    "rights": (
        lazy("The service lacks rights on some of its tables: calls are answered without the database."),
        lazy("Grant the rights, as the owner of the tables:"),
    ),
    "schema": (
        lazy("The tables of the database are not those of this release: calls are answered without it."),
        lazy("Run the release step:"),
    ),
    "secrets": (
        lazy("Stored credentials cannot be read, so presence is not asked for: SECRET_KEY or ENCRYPTION_KEYS changed."),
        lazy("Set the keys as they were. If they are lost, enter the credentials again in Settings."),
    ),
    "outbox": (
        lazy("Calls that wait to be recorded cannot be kept on disk: they are lost if the service restarts."),
        lazy("Make room in the folder that OUTBOX_DIR names, and let the service write there."),
    ),
}
_OTHER = (
    lazy("Calls are answered without the database, though it can be reached: from what was last known."),
    lazy("Nothing to do if it passes. If it lasts, `router check` and the log tell what is wrong."),
)


def troubles() -> list[Trouble]:
    """Return the errors that the last run of the checks has found. Waits for nothing."""
    found = []
    for finding in context().watch.errors() or []:
        message, remedy = _WORDS.get(finding.check, _OTHER)
        if may(Role.OWNER):
            found.append(Trouble(str(message), str(remedy), finding.command, finding.error))
        else:
            found.append(Trouble(str(message), _("Tell the operator of this service."), "", finding.error))
    return found
