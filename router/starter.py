"""Prepare what `make run` adds to the service: the demo project, the simulated PBX's arguments, the welcome message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import func, select

from router.config import Settings
from router.configuration import apply, load
from router.configuration.change import change
from router.db import models, queries
from router.db.documents import UnknownProjectError
from router.db.session import Database
from router.db.types import SecretError

DEMO_PROJECT = "demo"


def prepare_demo(database: Database, settings: Settings, document: Path) -> list[str] | None:
    """Seed the project of `document` into an empty database. Return the simulated PBX's arguments, or None when there
    is no demo project.
    """
    pbx_port = settings.port + 1
    api_url = f"http://127.0.0.1:{pbx_port}"
    with database.reading() as session:
        is_empty = session.scalar(select(func.count()).select_from(models.Project)) == 0
    if is_empty:
        text = document.read_text(encoding="utf-8")
        apply(database, load(text, {"DEMO_API_URL": api_url}, filename=document.name), actor="demo")
    try:
        with database.reading() as session:
            project = queries.project_named(session, DEMO_PROJECT)
            token = queries.current_token(session, project.id)
    except (UnknownProjectError, SecretError):  # without a readable token there is no hook URL
        return None
    if project.presence_api_url != api_url:  # an earlier start used another port
        with change(database, project.id, "demo") as draft:
            draft.put_project({"presence": {"api_url": api_url}})
    hook_url = f"http://127.0.0.1:{settings.port}/hook/{token}"
    return [
        *("--port", str(pbx_port), "--hook-url", hook_url, "--event-url", f"{hook_url}/event", "--form", "mixed"),
        *("--calls-per-minute", "12", "--seed", "1"),
    ]


def welcome(database: Database, settings: Settings) -> Iterator[str]:
    """Yield lines that show the URLs of the pages and of the projects' hooks."""
    yield ""
    yield f"  router is at        {settings.base_url}/"
    with database.reading() as session:
        projects = session.scalars(select(models.Project).where(models.Project.deleted_at.is_(None)).limit(5)).all()
        for project in projects:
            try:
                url = f"{settings.base_url}/hook/{queries.current_token(session, project.id)}"
            except SecretError as error:
                url = f"works, and cannot be shown: {error}"
            yield f"  hook of {project.name:<12}{url}"
    yield ""
