"""Make a long log from a short one: copy real decisions to other times, callers and calls."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, select, text

from router.db import models
from router.db.session import Database
from router.db.types import to_micros

OFTEN = "380500000000"  # the one caller whose copies keep the number; other copies get different numbers
_BATCH = 50_000


def multiply(database: Database, project_id: int, count: int, days: int) -> None:
    """Replace a project's decisions by `count` copies over the last `days`. All but the last calls have ended.

    Call ids and callers' numbers are in random order, as in a real log.
    """
    decision = models.Decision
    apart = timedelta(days=days) // count // timedelta(microseconds=1)
    began = to_micros(datetime.now(UTC)) - apart * count
    new: dict[str, str] = {
        "call_id": "'call-' || (i * 7919 % 1000003) || '-' || i",
        "asked_at": ":began + i * :apart",
        # One caller per hundred calls, and the one who calls often.
        "caller": f"CASE t.caller WHEN '{OFTEN}' THEN t.caller"
        " ELSE '' || (380500000001 + i * 7919 % (:count / 100 + 1)) END",
        "outcome": "CASE WHEN i > :count - 20 THEN '' WHEN agent_id IS NULL THEN 'answered' "
        "WHEN i % 10 = 0 THEN 'no_answer' ELSE 'answered' END",
        "answered_agent_id": "CASE WHEN i % 10 = 0 THEN NULL ELSE agent_id END",
        "answered_login": "CASE WHEN i % 10 = 0 THEN '' ELSE sip_login END",
        "ended_at": "CASE WHEN i > :count - 20 THEN NULL ELSE :began + i * :apart + 60000000 END",
        "waited_seconds": "5",
        "talked_seconds": "55",
    }
    columns = [column.name for column in decision.__table__.columns if column.name != "id"]
    values = [new.get(name, f"t.{name}") for name in columns]
    of_project = decision.project_id == project_id
    with database.reading() as session:
        last, templates = session.execute(select(func.max(decision.id), func.count()).where(of_project)).one()
    copies = text(
        "WITH RECURSIVE n(i) AS (SELECT CAST(:start AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :stop),"
        " t AS (SELECT d.*, row_number() OVER (ORDER BY id) - 1 AS place FROM decisions d"
        " WHERE project_id = :project AND id <= :last)"
        f" INSERT INTO decisions ({', '.join(columns)})"
        f" SELECT {', '.join(values)} FROM n JOIN t ON t.place = i % :templates ORDER BY i"
    )
    given = {"project": project_id, "last": last, "templates": templates, "began": began, "apart": apart}
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        with database.writing() as session:
            if database.is_sqlite:
                session.execute(text("PRAGMA cache_size=-1000000"))  # random order needs all pages in memory
            session.execute(copies, given | {"count": count, "start": start, "stop": stop})
        print(f"{stop:,} decisions", file=sys.stderr)
    with database.writing() as session:
        session.execute(delete(decision).where(of_project, decision.id <= last))
