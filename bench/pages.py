"""`python -m bench.pages`: how long the admin pages take with 1,000 agents and a million decisions, in server time.

The database is filled once and stays in `--folder`. Each page is requested in this process, from the whole WSGI
application, and read to its last byte.
"""

from __future__ import annotations

import argparse
import gc
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psycopg
import yaml
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import insert, select
from sqlalchemy.engine import make_url

from bench import servers
from bench.log import OFTEN, multiply
from bench.plan import TITLES
from bench.report import table
from router.admin.page import ACCESS, Role
from router.app import create_app
from router.config import Settings
from router.configuration import apply, load
from router.core.model import Call
from router.db import migrate, models, queries
from router.db.documents import load_document
from router.db.session import Database
from router.db.types import to_micros, use_encryption_keys
from router.explanation.replay import replay_study
from router.explanation.variations import Variation, what_if_study
from router.presence.readings import Readings
from router.presence.source import Reading
from router.routing.route import Routing
from simulator.processes import SECRET

WANTED = 100.0  # ms
AGENTS, MEMBERS, RULES, DAYS = 1000, 10, 50, 90
TEMPLATES = 1000  # decisions made by the routing itself; all others are copies of them
REPLAYED = 1000  # calls, of a replay
LATE = timedelta(hours=12)  # how long presence stays fresh after the filling


class Look(NamedTuple):
    """The times of a page. `first`: ms in a process that has served other projects but not this one."""

    name: str
    path: str
    first: float
    median: float
    worst: float
    kilobytes: float


# ---- the database


def fill(url: str, decisions: int, agents: int = AGENTS) -> None:
    """Create two projects: `small`, to request each page beforehand, and `large`, with all data."""
    database = Database(url, statement_seconds=3600)
    migrate.upgrade(database)
    apply(
        database,
        load(yaml.safe_dump({"projects": [_project("small", 10), _project("large", agents)]}), {}),
        actor="bench",
    )
    for name, wanted in (("small", 100), ("large", decisions)):
        with database.reading() as session:
            project_id = queries.project_named(session, name).id
        _be_present(database, project_id)
        _decide(database, project_id, min(TEMPLATES, wanted))
        multiply(database, project_id, wanted, DAYS)
        _replay(database, project_id)
    _add_people(database)
    database.dispose()


def _project(name: str, agents: int) -> dict[str, Any]:
    """Return a project of the configuration file: groups of ten, one of everybody, and rules by dialed number."""
    groups: list[dict[str, Any]] = [
        {
            "name": f"group {number}",
            "ring_seconds": 0,  # so that everybody is free for each of the calls made beforehand
            "members": [{"agent": f"Agent {number * MEMBERS + place}"} for place in range(MEMBERS)],
        }
        for number in range(agents // MEMBERS)
    ]
    everybody = [{"agent": f"Agent {number}"} for number in range(agents)]
    rules: list[dict[str, Any]] = [
        {"name": f"rule {number}", "when": {"dialed": [_dialed(number)]}, "groups": [f"group {number % len(groups)}"]}
        for number in range(min(RULES, agents))
    ]
    tests = [
        {
            "name": f"test {number}",
            "call": {"caller": "380501112233", "dialed": _dialed(number), "at": "2026-12-01T12:00"},
            "expect": {"rule": f"rule {number}"},
        }
        for number in range(min(RULES, agents))
    ]
    return {
        "name": name,
        "overflow": "380441234567",
        "presence": {"auth_key": "key", "api_url": "https://status.example.com"},
        "agents": [
            {"name": f"Agent {number}", "sip_logins": [f"{name}_{number}", f"{name}_{number}_mob"]}
            for number in range(agents)
        ],
        "schedules": [{"name": "office hours", "open": {"mon-fri": ["09:00-18:00"]}}],
        "groups": [*groups, {"name": "everybody", "strategy": "longest_idle", "members": everybody}],
        "rules": [*rules, {"name": "the others", "groups": ["group 0"]}],
        "tests": tests,
    }


def _dialed(number: int) -> str:
    return f"3804433300{number:02}"


def _be_present(database: Database, project_id: int) -> None:
    """Store a presence reading: nine in ten are online, one in eight of them speaks."""
    with database.reading() as session:
        rows = session.scalars(select(models.SipLogin.login).filter_by(project_id=project_id, position=0)).all()
    online = frozenset(login for number, login in enumerate(rows) if number % 10)
    now = datetime.now(UTC)
    with database.writing() as session:
        if session.get(models.Presence, project_id) is None:
            session.add(models.Presence(project_id=project_id))
    Readings(database).keep(
        project_id,
        Reading(online, frozenset(login for number, login in enumerate(sorted(online)) if number % 8 == 0)),
        began_at=now + LATE,
        now=now,
        took=timedelta(milliseconds=80),
        next_poll_at=now + LATE,
    )


def _decide(database: Database, project_id: int, count: int) -> None:
    """Make decisions by the routing itself."""
    routing = Routing(database)
    for number in range(count):
        step, dialed = "webhookNumber:1", _dialed(number % (RULES + 5))
        call = Call(f"made-{number}", OFTEN if number == 0 else f"38050{number:07}", dialed, step)
        sent = {"method": "POST", "query": "", "content_type": "application/json", "body": f'{{"dst": "{dialed}"}}'}
        received = sent | {"remote": "203.0.113.7", "user_agent": "", "form": "json", "understood": {}, "problems": []}
        routing.route_call(project_id, call, deadline=time.monotonic() + 10, received=received)


def _replay(database: Database, project_id: int) -> None:
    """Store a replay of calls through the configuration without rules, and a what-if of them with an agent fewer."""
    now = datetime.now(UTC)
    told = {"through": "version", "version": 1, "period": "all", "most": REPLAYED, "digest": ""}
    told |= {"since": (now - timedelta(days=DAYS)).isoformat(), "until": now.isoformat()}
    with database.reading() as session:
        project = session.get_one(models.Project, project_id)
        document = {**(load_document(session, project_id, project.version) or {}), "rules": []}
    result = replay_study(database, project_id, document, told, lambda *_: None)
    times = {"started_at": now, "started_by": "user1@example.org", "heartbeat_at": now}
    done: dict[str, Any] = {"project_id": project_id, "document": document, "state": "done", **times}
    variation = Variation(without=[1]).as_json()
    of_project = models.Decision.project_id == project_id
    with database.reading() as session:
        newest = select(models.Decision.asked_at).where(of_project).order_by(models.Decision.asked_at.desc())
        since = session.scalars(newest.limit(REPLAYED)).all()[-1]
    changed = {**told, "since": since.isoformat(), "variation": variation}
    simulated = what_if_study(database, project_id, document, changed, lambda *_: None)
    with database.writing() as session:
        session.add(models.Study(kind="replay", parameters=told, result=result, **done))
        session.add(models.Study(kind="what_if", parameters=changed, result=simulated, **done))


def _add_people(database: Database) -> None:
    """Add an owner, forty users, a long audit trail and refused requests."""
    now = datetime.now(UTC)
    with database.writing() as session:
        for number in range(40):
            email = f"user{number}@example.org"
            session.add(models.User(email=email, role="owner", password_hash="-", created_at=now))  # noqa: S106 - not a hash: nobody can sign in with it
        project_id = queries.project_named(session, "large").id
        entry = {"actor": "user1@example.org", "project_id": project_id, "action": "changed", "subject": "agent"}
        session.execute(
            insert(models.AuditEntry),
            [
                entry | {"at": now, "subject_id": 1, "subject_name": "Agent 1", "before": {"daily_cap": n}, "after": {}}
                for n in range(50_000)
            ],
        )
        request = {"method": "POST", "query": "", "content_type": "", "body": "", "user_agent": ""}
        for _ in range(100):
            session.add(
                models.RefusedRequest(
                    project_id=project_id, at=now, reason="address", remote="203.0.113.9", request=request
                )
            )


# ---- the pages


def addresses(app: Flask, client: FlaskClient, database: Database, project: str) -> Iterator[tuple[str, str]]:
    """Yield the address of each page by its endpoint, then pages of a search or deep in a long list."""
    with database.reading() as session:
        project_id = queries.project_named(session, project).id

        def id_of(model: Any, **where: Any) -> int:
            return int(session.scalars(select(model.id).filter_by(project_id=project_id, **where).limit(1)).one())

        ids = {
            "agent": id_of(models.Agent),
            "agent_delete": id_of(models.Agent),
            "group_delete": id_of(models.Group),
            "board_agent": id_of(models.Agent),
            "group": id_of(models.Group, name="group 0"),
            "group_queue": id_of(models.Group, name="group 0"),
            "rule": id_of(models.Rule),
            "schedule": id_of(models.Schedule),
            "schedule_close": id_of(models.Schedule),
            "test": id_of(models.RuleTest),
            "user": session.scalars(select(models.User.id).limit(1)).one(),
            "call": id_of(models.Decision),
            "replay_call": id_of(models.Decision),
        }
        kinds = {"replay_result": "replay", "replay_call": "replay", "what_if_result": "what_if"}
        numbers = {name: id_of(models.Study, kind=kind) for name, kind in kinds.items()}
        everybody, rule = id_of(models.Group, name="everybody"), id_of(models.Rule, name="rule 7")
    urls = app.url_map.bind("localhost")
    for rule_of_url in app.url_map.iter_rules():
        endpoint = rule_of_url.endpoint.removeprefix("admin.")
        if endpoint == rule_of_url.endpoint or ACCESS[rule_of_url.endpoint].see in (None, Role.ANYBODY):
            continue
        if endpoint not in {"home", "calls_csv", "agents_csv", "agents_import"}:  # redirects; endless; asks Ringostat
            given = {"project": project, "id": ids.get(endpoint, 0), "number": numbers.get(endpoint, 1)}
            values = {name: value for name, value in given.items() if name in rule_of_url.arguments}
            yield endpoint, urls.build(rule_of_url.endpoint, values)
    base = f"/p/{project}"
    yield "board, all agents", f"{base}/board?all=1"
    yield "board, one group", f"{base}/board?group={ids['group']}"
    yield "agents, found by name", f"{base}/agents?q=agent+77"
    yield "group of everybody", f"{base}/groups/{everybody}"
    yield "group_queue of everybody", f"{base}/groups/{everybody}/queue"
    yield "try_call, a call", f"{base}/try?caller=0501234567&dialed={_dialed(3)}&presence=live"
    for name, query in {
        "a number in any notation": "caller=%2B38+(050)+000-00-00",
        "a part of a number": "caller=5000077",
        "an unknown number": "caller=0991234567",
        "an agent": f"agent={ids['agent']}",
        "a rule": f"rule={rule}",
        "not answered": "outcome=no_answer",
        "to the overflow": "outcome=overflow",
        "degraded": "degraded=1",
        "figures of a week": "period=week",
        "not answered, of a week": f"outcome=no_answer&since={_days_ago(60)}&until={_days_ago(53)}",
    }.items():
        yield f"calls: {name}", f"{base}/calls?{query}"
    yield "calls: second page", _link(client.get(f"{base}/calls", buffered=True).text, "older")
    at = to_micros(datetime.now(UTC) - timedelta(days=DAYS / 2))
    yield "calls: in the middle", f"{base}/calls?older={at}-{2**40}"
    yield "audit: one project, one kind", f"/audit?project={project}&subject=group"
    yield "audit: second page", _link(client.get("/audit", buffered=True).text, "before")


def _days_ago(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M")


def _link(html: str, name: str) -> str:
    found = re.search(rf'href="([^"]*[?&;]{name}=[^"]*)"', html)
    return unescape(found[1]) if found else "/nowhere"


def measure(url: str, rounds: int) -> list[Look]:
    """Request each page `rounds` times."""
    app = create_app(Settings.load(environ(url)))
    database = app.extensions["admin"].database
    client = app.test_client()
    with database.reading() as session:
        user = session.scalars(select(models.User).limit(1)).one()
    with app.test_request_context("/"), client.session_transaction() as cookie:
        now = int(time.time())
        cookie.update(user=user.id, epoch=user.session_epoch, since=now, seen=now, csrf_token=secrets.token_hex(20))
    gc.collect()
    gc.freeze()  # as gunicorn.conf.py does
    for _name, path in addresses(app, client, database, "small"):  # compiles templates, prepares statements
        client.get(path, buffered=True)
    looks = []
    for name, path in addresses(app, client, database, "large"):
        times = []
        size = 0
        for _ in range(rounds + 1):
            began = time.perf_counter()
            answer = client.get(path, buffered=True)
            times.append((time.perf_counter() - began) * 1000)
            size = len(answer.data)
            if answer.status_code not in {200, 204}:
                raise RuntimeError(f"{path}: {answer.status}")
        looks.append(Look(name, path, times[0], median(times[1:]), max(times[1:]), size / 1024))
    database.dispose()
    return looks


def environ(url: str) -> dict[str, str]:
    return {"DATABASE_URL": url, "SECRET_KEY": SECRET, "PRESENCE_KEEPER": "off", "LOG_LEVEL": "ERROR"}


def as_markdown(looks: dict[str, list[Look]]) -> str:
    """Return a table of pages, the slowest first."""
    head = ["page", *(f"{title} {figure}" for title in looks for figure in ("ms", "first", "worst")), "KB"]
    rows = []
    for lines in zip(*looks.values(), strict=True):
        figures = [f"{value:.0f}" for look in lines for value in (look.median, look.first, look.worst)]
        rows.append((max(look.median for look in lines), [lines[0].name, *figures, f"{lines[0].kilobytes:.0f}"]))
    return table(head, [cells for _slowest, cells in sorted(rows, key=lambda row: -row[0])])


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 every page is fast enough, 1 some are not, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description="See bench/README.md.")
    parser.add_argument("--decisions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=9, help="how often each page is asked for")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "router-bench-pages")
    parser.add_argument("--only", choices=TITLES, help="one of the databases")
    given = parser.parse_args(arguments)
    use_encryption_keys(Settings.load(environ("sqlite:////unused.db")).fernet_keys)
    looks = {}
    given.folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        for kind, title in TITLES.items():
            if given.only in (None, kind):
                looks[title] = measure(_filled(kind, given.folder, given.decisions, stack), given.rounds)
    print(as_markdown(looks))
    slow = {look.name for found in looks.values() for look in found if look.median > WANTED}
    print(f"Over {WANTED:.0f} ms: {', '.join(sorted(slow)) or 'none'}")
    return 1 if slow else 0


def _filled(kind: str, folder: Path, decisions: int, stack: ExitStack) -> str:
    """Return the URL of the filled database. It is filled the first time, and again after half a day."""
    done = folder / f"{kind}-{decisions}.done"
    is_fresh = done.exists() and time.time() - done.stat().st_mtime < LATE.total_seconds() / 2
    name = f"pages_{decisions}"
    if kind == "sqlite":
        path = folder / f"{name}.db"
        url = f"sqlite:///{path}"
        if not is_fresh:
            for old in folder.glob(f"{path.name}*"):
                old.unlink()
    else:
        server = stack.enter_context(servers.postgres(folder))
        url = make_url(server.url).set(database=name).render_as_string(hide_password=False)
        if not is_fresh:
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
            server.new_database(name)
    if not is_fresh:
        fill(url, decisions)
        if kind == "postgres":
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
        done.touch()
    return url


if __name__ == "__main__":
    sys.exit(main())
