"""Build published configurations once per process, for pages about decisions made by them."""

from __future__ import annotations

from collections import OrderedDict
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from router.db.configuration import BuildError, Configured, build_project, load_configured, load_document

_KEPT = 16  # versions per process; a page of the log rarely needs more

# By database, because tests have many in one process.
_built: WeakKeyDictionary[Engine, OrderedDict[tuple[int, int], Configured]] = WeakKeyDictionary()


def configured(session: Session, project_id: int, version: int) -> Configured | None:
    """Return the configuration of this version, None when it was pruned, never published, or cannot be built."""
    bind = session.get_bind()
    kept = _built.setdefault(bind if isinstance(bind, Engine) else bind.engine, OrderedDict())
    key = (project_id, version)
    found = kept.get(key)
    if found is None:
        document = load_document(session, project_id, version)
        if document is None:
            return None
        try:
            found = kept[key] = Configured(document, build_project(document, project_id, version))
        except BuildError:
            return None
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    else:
        kept.move_to_end(key)
    return found


def in_use(session: Session, project_id: int, version: int) -> Configured:
    """Return the configuration that calls use while this version is published. Raises the errors of load_configured."""
    return configured(session, project_id, version) or load_configured(session, project_id, version)
