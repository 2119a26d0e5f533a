"""Define the configurations that the hook is measured on. All are projects of one database.

Nobody is ever busy: by presence all agents are online, it stays fresh, and reservations end at once. So each call is
offered to an agent at any rate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import yaml
from sqlalchemy import select

from bench.load import CALLER, CALLERS
from bench.log import multiply
from router.config import Settings
from router.configuration import apply, load
from router.db import migrate, models, queries
from router.db.session import Database
from router.db.types import use_encryption_keys
from simulator.processes import SECRET

DIALED, HOT = "3804433300", "3804433301"  # followed by two digits; the second leads to the hot group


class Shape(NamedTuple):
    """A project: the numbers of its agents, groups, members of each group, rules, and dialed numbers."""

    name: str
    agents: int
    groups: int
    members: int
    numbers: int
    rules_by: str = ""  # "dialed" or "caller": the condition of all rules but the last
    rules: int = 0
    last_agent: bool = False  # the rules prefer the agent of the caller's last talk, and everybody has talked before
    section: str = "agents"  # of the report


# For measuring throughput. One more number leads to its first group, the hot one.
TEAMS = Shape("teams", agents=200, groups=20, members=10, numbers=20)
AGENTS = (10, 100, 1000)
ANYBODY, LAST_AGENT = "2 rules for anybody", "2 rules for the last agent"
RULES = (10, 1000)


def shapes() -> Iterator[Shape]:
    """Yield every configuration that is measured."""
    yield TEAMS
    for agents in AGENTS:
        # With ten agents, each is a member of two of the twenty groups.
        yield Shape(f"{agents} agents in 20 groups", agents, 20, max(1, agents // 20), 20)
        yield Shape(f"{agents} agents in groups of 10", agents, agents // 10, 10, min(20, agents // 10))
        yield Shape(f"{agents} agents in one group", agents, 1, agents, 1)
    yield Shape(ANYBODY, 20, 2, 10, 2, section="rules")
    yield Shape(LAST_AGENT, 20, 2, 10, 2, last_agent=True, section="rules")
    for rules in RULES:
        for by in ("dialed", "caller"):
            yield Shape(f"{rules} rules by {by}", 10, 1, 10, 1, by, rules, section="rules")


def seed(url: str, names: Collection[str]) -> dict[str, str]:
    """Create the schema and these projects in an empty database. Return the path of each project's hook, by name."""
    settings = Settings.load({"SECRET_KEY": SECRET, "DATABASE_URL": url})
    use_encryption_keys(settings.fernet_keys)
    database = Database(settings.database_url)
    migrate.upgrade(database)
    wanted = [shape for shape in shapes() if shape.name in names]
    apply(database, load(yaml.safe_dump({"projects": [words(shape) for shape in wanted]}), {}), actor="bench")
    paths = {}
    with database.writing() as session:
        ahead = datetime.now(UTC)  # so that presence is fresh for an hour
        for shape in wanted:
            project = queries.project_named(session, shape.name)
            online = [login(agent) for agent in range(shape.agents)]
            snapshot = models.PresenceSnapshot(project_id=project.id, began_at=ahead, online=online, speaking=[])
            session.add(snapshot)
            session.flush()
            session.merge(models.Presence(project_id=project.id, snapshot_id=snapshot.id, began_at=ahead))
            if shape.last_agent:
                agents = session.scalars(select(models.Agent.id).where(models.Agent.project_id == project.id)).all()
                for number in range(CALLERS):
                    talk = {"caller": f"{CALLER}{number:04}", "agent_id": agents[number % len(agents)]}
                    session.add(models.LastTalk(project_id=project.id, talked_at=ahead - timedelta(days=1), **talk))
            paths[shape.name] = f"/hook/{queries.current_token(session, project.id)}"
    database.dispose()
    return paths


def fill_log(url: str, name: str, rows: int) -> None:
    """Fill the log of a project with `rows` decisions, about one in five seconds."""
    settings = Settings.load({"SECRET_KEY": SECRET, "DATABASE_URL": url})
    database = Database(settings.database_url, statement_seconds=3600)
    with database.reading() as session:
        project_id = queries.project_named(session, name).id
    multiply(database, project_id, rows, days=60)
    database.dispose()


def words(shape: Shape) -> dict[str, Any]:
    """Return the project as in the configuration file."""
    groups = [
        {
            "name": f"group {group}",
            "strategy": "round_robin",
            "ring_seconds": 0,
            "members": [
                {"agent": f"agent {(group * shape.members + place) % shape.agents}"} for place in range(shape.members)
            ],
        }
        for group in range(shape.groups)
    ]
    return {
        "name": shape.name,
        "overflow": "380441234567",
        "presence": {"auth_key": "key", "api_url": "https://status.example.com", "fresh_seconds": 3600},
        "agents": [{"name": f"agent {agent}", "sip_logins": [login(agent)]} for agent in range(shape.agents)],
        "groups": groups,
        "rules": list(_rules(shape)),
    }


def login(agent: int) -> str:
    return f"bench_agent{agent}"


def _rules(shape: Shape) -> Iterator[dict[str, Any]]:
    """Yield a rule for each number; or rules that do not match, and a last one that does."""
    if not shape.rules:
        for number in range(shape.numbers):
            when = {"dialed": [f"{DIALED}{number:02}"]}
            prefer = {"prefer": "last_agent"} if shape.last_agent else {}
            yield {"name": f"number {number}", "when": when, **prefer, "groups": [f"group {number % shape.groups}"]}
        if shape is TEAMS:
            yield {"name": "hot", "when": {"dialed": [f"{HOT}00"]}, "groups": ["group 0"]}
        return
    for number in range(1, shape.rules):
        value = f"38063{number:07}" if shape.rules_by == "dialed" else f"+38063{number:05}*"
        yield {"name": f"rule {number}", "when": {shape.rules_by: [value]}, "groups": ["group 0"]}
    last = f"{DIALED}00" if shape.rules_by == "dialed" else "+38067111*"
    yield {"name": "the last", "when": {shape.rules_by: [last]}, "groups": ["group 0"]}
