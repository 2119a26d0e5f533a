"""Configurations as they were published, built once per process: for pages that tell of decisions made by them."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from router.core.model import Project
from router.db.configuration import Document, build_project, load_document

_KEPT = 16  # versions per process: a page of the log seldom spans more


class Configured(NamedTuple):
    """One version of a project's configuration: its words, and the rules' view of them. Shared: not to be changed."""

    document: Document
    project: Project


# By database, because tests have many in one process.
_built: WeakKeyDictionary[Engine, OrderedDict[tuple[int, int], Configured]] = WeakKeyDictionary()


def configured(session: Session, project_id: int, version: int) -> Configured | None:
    """The configuration of this version, None when it was pruned or never published."""
    bind = session.get_bind()
    kept = _built.setdefault(bind if isinstance(bind, Engine) else bind.engine, OrderedDict())
    key = (project_id, version)
    found = kept.get(key)
    if found is None:
        document = load_document(session, project_id, version)
        if document is None:
            return None
        found = kept[key] = Configured(document, build_project(document, project_id, version))
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    else:
        kept.move_to_end(key)
    return found
