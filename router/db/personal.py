"""Export or erase what is stored about one caller. Both add an entry to the audit trail.

Erasing removes the caller's number, the parameters and the requests as sent. The call itself remains (when it came,
where it went and why), for counts and to show who answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from router.db import models
from router.db.documents import Document, load_document
from router.db.failures import OperatorError
from router.db.records import Record, record_of, store_record
from router.db.session import Database
from router.numbers import mask_number, normalise_number

_BATCH = 50  # calls in one transaction, for which others wait
_SHORTEST = 7  # digits; shorter numbers are contained in too many others to be searched for in a text
_DISTINCT = 9  # the last digits of a number, equal in national and international notation


class CallerError(OperatorError):
    """The text is not a caller's number."""


class Erased(NamedTuple):
    """What was erased. `calls`: with test requests. `rules`, `tests`: the names of those that still hold the number,
    in the draft too.
    """

    number: str
    calls: int
    refused_requests: int
    logged_talks: int
    rules: list[str]
    tests: list[str]


def caller_number(session: Session, project_id: int, text: str) -> str:
    """Return the number as calls have it, from any notation. Raises CallerError."""
    number = normalise_number(text, session.get_one(models.Project, project_id).country)
    if not number:
        raise CallerError(f"{text!r} is nobody's number: write one such as +380501112233, or a SIP login")
    return number


def export_caller(database: Database, project_id: int, text: str, actor: str) -> Iterator[dict[str, Any]]:
    """Return everything stored about the caller as plain JSON values: calls and test requests, oldest first, then
    refused requests.

    Read in pieces, so that no transaction stays open during a download. Raises CallerError at once.
    """
    with database.writing() as session:
        number = caller_number(session, project_id, text)
        _note(session, project_id, number, actor, "exported", None)
    return _export(database, project_id, number)


def _export(database: Database, project_id: int, number: str) -> Iterator[dict[str, Any]]:
    last = 0
    while True:
        with database.reading() as session:
            rows = session.scalars(_calls_of(project_id, number).where(models.Decision.id > last)).all()
            if not rows:
                break
            calls = [_call_as_json(row, record_of(session, row)) for row in rows]
        yield from calls
        last = rows[-1].id
    with database.reading() as session:
        for row in _refused_of(session, project_id, number):
            yield {
                "refused_at": row.at.isoformat(),
                "reason": row.reason,
                "remote": row.remote,
                "received": row.request,
            }
        for talk in _talks_of(session, project_id, number):
            yield {
                "last_talked_at": talk.talked_at.isoformat(),
                "sip_login": talk.login,
                "by": "the platform's call log",
            }
        kept, agent = models.LastTalk, models.Agent
        for talked_at, name in session.execute(
            select(kept.talked_at, agent.name)
            .outerjoin(agent, agent.id == kept.agent_id)
            .where(kept.project_id == project_id, kept.caller == number)
            .order_by(kept.talked_at)
        ):
            yield {"last_talked_at": talked_at.isoformat(), "agent": name, "by": "a call that is no longer kept"}


def erase_caller(database: Database, project_id: int, text: str, actor: str) -> Erased:
    """Erase everything stored about the caller, with replays and what-ifs whose rules or tests hold the number. Another
    run finds what was stored since. Raises CallerError.
    """
    with database.reading() as session:
        number = caller_number(session, project_id, text)
        project = session.get_one(models.Project, project_id)
        drafted = select(models.Draft.document).where(models.Draft.project_id == project_id)
        documents = [load_document(session, project_id, project.version) or {}, *session.scalars(drafted)]
        studied = select(models.Study.id, models.Study.document).where(models.Study.project_id == project_id)
        studies = [
            study_id
            for study_id, document in session.execute(studied)
            if rules_naming(document, number) or tests_naming(document, number)
        ]
    calls = 0
    while erased := _erase_some(database, project_id, number):
        calls += erased
    with database.writing() as session:
        refused = _refused_of(session, project_id, number)
        for row in refused:
            session.delete(row)
        talks = _talks_of(session, project_id, number)
        for talk in talks:
            session.delete(talk)
        kept = models.LastTalk
        session.execute(delete(kept).where(kept.project_id == project_id, kept.caller == number))
        session.execute(delete(models.Study).where(models.Study.id.in_(studies)))
        counts = {"calls": calls, "refused_requests": len(refused), "logged_talks": len(talks)}
        _note(session, project_id, number, actor, "erased", counts)
    rules, tests = (
        [*dict.fromkeys(name for document in documents for name in naming(document, number))]
        for naming in (rules_naming, tests_naming)
    )
    return Erased(number, calls, len(refused), len(talks), rules, tests)


def _erase_some(database: Database, project_id: int, number: str) -> int:
    with database.writing() as session:
        rows = session.scalars(_calls_of(project_id, number).with_for_update()).all()
        now = datetime.now(UTC).isoformat()
        for row in rows:
            row.caller = ""
            record = record_of(session, row)
            asked = {**record["call"], "caller": "", "params": {}}
            store_record(session, row, {**record, "call": asked, "received": None, "erased_at": now})
    return len(rows)


def _calls_of(project_id: int, number: str) -> Any:
    decision = models.Decision
    query = select(decision).where(decision.project_id == project_id, decision.caller == number)
    return query.order_by(decision.id).limit(_BATCH)


def _refused_of(session: Session, project_id: int, number: str) -> list[models.RefusedRequest]:
    """Return the refused requests with the number, in whatever notation."""
    rows = session.scalars(select(models.RefusedRequest).where(models.RefusedRequest.project_id == project_id))
    return [row for row in rows if _holds(unquote_plus(str(row.request)), number)]


def _holds(text: str, number: str) -> bool:
    """Return whether the text holds the number in whatever notation; False for one too short to tell."""
    digits = re.sub(r"\D", "", number)
    return len(digits) >= _SHORTEST and digits[-_DISTINCT:] in re.sub(r"\D", "", text)


def _talks_of(session: Session, project_id: int, number: str) -> list[models.LoggedTalk]:
    talk = models.LoggedTalk
    return list(session.scalars(select(talk).where(talk.project_id == project_id, talk.caller == number)))


def rules_naming(document: Mapping[str, Any], number: str) -> list[str]:
    """Return the names of the rules with a condition on exactly this number."""
    return [
        rule["name"]
        for rule in document.get("rules", ())
        if number
        in {str(value).lstrip("+") for kind in ("caller", "not_caller") for value in rule["when"].get(kind, ())}
    ]


def tests_naming(document: Mapping[str, Any], number: str) -> list[str]:
    """Return the names of the tests whose call, parameters or name hold this number."""
    return [
        test["name"]
        for test in document.get("tests", ())
        if test["call"]["caller"] == number
        or any(number == text or _holds(text, number) for text in (test["name"], *test["call"]["params"].values()))
    ]


def _call_as_json(row: models.Decision, record: Record) -> dict[str, Any]:
    asked = record["call"]
    return {
        "asked_at": row.asked_at.isoformat(),
        "call_id": row.call_id,
        "step": row.step,
        "is_test": row.is_test,
        "caller": row.caller,
        "dialed": row.dialed,
        "direction": asked["direction"],
        "params": asked["params"],
        "received": record.get("received"),
        "destination": row.destination,
        "result": row.result,
        "outcome": row.outcome,
        "answered_login": row.answered_login,
        "answered_at": row.answered_at and row.answered_at.isoformat(),
        "ended_at": row.ended_at and row.ended_at.isoformat(),
        "waited_seconds": row.waited_seconds,
        "talked_seconds": row.talked_seconds,
        "disposition": row.disposition,
    }


def _note(session: Session, project_id: int, number: str, actor: str, action: str, after: Document | None) -> None:
    session.add(
        models.AuditEntry(
            at=datetime.now(UTC),
            actor=actor,
            project_id=project_id,
            action=action,
            subject="caller",
            subject_name=mask_number(number),
            after=after,
        )
    )
