"""Change the rows of a configuration by hand, as the writer does with its lock, and publish them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from router.configuration import change
from router.configuration.rows import read_rows
from router.db import models
from router.db.session import Database


def publish(session: Session, project_id: int, actor: str) -> int:
    """Publish the rows as they stand."""
    project = session.get_one(models.Project, project_id)
    return change.publish(session, project, read_rows(session, project), actor)


@contextmanager
def changing(database: Database, project_id: int, actor: str) -> Iterator[Session]:
    """Change rows; published at the end."""
    with database.writing() as session:
        change.lock_project(session, project_id)
        yield session
        publish(session, project_id, actor)
