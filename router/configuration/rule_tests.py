"""Run a project's own tests: calls whose answer must stay what it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from router.core.decision import decide
from router.core.model import Call, Decision, Offer, Presence, Project, Snapshot
from router.core.words import N_, Message, Text
from router.db.documents import BuildError, Document, build_project

_RULE = Text("other_rule", N_("The rule that takes the call is %(found)s, not %(expected)s."))
_NO_RULE = Text("no_rule", N_("No rule takes the call: %(expected)s was expected."))
_GROUPS = Text("other_groups", N_("The groups that are asked are %(found)s, not %(expected)s."))
_AGENT = Text("other_agent", N_("The call goes to %(found)s, not to %(expected)s."))


class Result(NamedTuple):
    """What a test found. `failures`: what is not as expected; [] if the test passes."""

    id: int
    name: str
    call: Call
    snapshot: Snapshot
    decision: Decision
    failures: list[Message]

    @property
    def why(self) -> str:
        """Why it fails, in English."""
        return " ".join(failure.text.words % failure.values for failure in self.failures)


class FailingTestsError(ValueError):
    """A draft that makes tests fail."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__("\n".join(f"test {result.name!r} fails: {result.why}" for result in results))
        self.results = results


def run_tests(document: Document) -> list[Result]:
    """Return the results of all tests of a document; [] when calls cannot be routed by it."""
    if not document["tests"]:
        return []
    try:
        project = build_project(document, 0, 0)
    except BuildError:
        return []
    return [_run(project, document, test) for test in document["tests"]]


def newly_failing(before: Document, after: Document) -> list[Result]:
    """Return the tests that fail after a change, but for those that failed before and were not changed."""
    failing = [result for result in run_tests(after) if result.failures]
    if not failing:
        return []
    failed = {result.id for result in run_tests(before) if result.failures}
    stored = {test["id"]: test for test in before["tests"]}
    changed = {test["id"] for test in after["tests"] if stored.get(test["id"]) != test}
    return [result for result in failing if result.id not in failed or result.id in changed]


def run_test(document: Document, test: dict[str, Any]) -> Decision:
    """Return what is decided for the call of a test. Raises BuildError."""
    return _run(build_project(document, 0, 0), document, test).decision


def _run(project: Project, document: Document, test: dict[str, Any]) -> Result:
    """Decide the call of a test. Nobody has been offered a call yet, and those who are free are online and silent."""
    given = test["call"]
    call = Call(**{key: given[key] for key in ("caller", "dialed", "direction", "params")})
    free = test["free"] or project.agents
    logins = (login for agent_id in free for login in project.agents[agent_id].sip_logins)
    presence = Presence(online=frozenset(logins), speaking=frozenset(), age=timedelta(0))
    snapshot = Snapshot(now=datetime.fromisoformat(test["call"]["at"]), presence=presence, seed=test["name"])
    decision = decide(project, call, snapshot)
    return Result(test["id"], test["name"], call, snapshot, decision, list(_failures(document, test, decision)))


def _failures(document: Document, test: dict[str, Any], decision: Decision) -> Iterator[Message]:
    expect, answer = test["expect"], decision.answer
    names = {kind: {row["id"]: row["name"] for row in document[kind]} for kind in ("rules", "groups", "agents")}
    rules = {row["id"]: row for row in document["rules"]}
    wanted = expect["rule"]
    if wanted is not None and decision.rule_id is None:
        yield Message(_NO_RULE, {"expected": names["rules"][wanted]})
    elif wanted is not None and decision.rule_id != wanted:
        yield Message(_RULE, {"found": names["rules"][decision.rule_id], "expected": names["rules"][wanted]})
    asked = rules[decision.rule_id]["groups"] if decision.rule_id is not None else []
    if expect["groups"] and asked != expect["groups"]:
        found, expected = (
            ", ".join(names["groups"][group] for group in ids) or "–" for ids in (asked, expect["groups"])
        )
        yield Message(_GROUPS, {"found": found, "expected": expected})
    goes_to = names["agents"][answer.agent_id] if isinstance(answer, Offer) else answer.destination or "–"
    agent, overflow = expect["agent"], expect["overflow"]
    if agent is not None and not (isinstance(answer, Offer) and answer.agent_id == agent):
        yield Message(_AGENT, {"found": goes_to, "expected": names["agents"][agent]})
    if overflow is not None and (isinstance(answer, Offer) or answer.destination != overflow):
        yield Message(_AGENT, {"found": goes_to, "expected": overflow or "–"})
