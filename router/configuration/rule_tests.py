"""Run a project's own tests: calls whose answer must stay what it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from router.configuration.document import names_of
from router.core.decision import decide
from router.core.model import Call, Decision, Offer, Presence, Snapshot
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
    """Return the results of all tests of a document. Raises BuildError when calls cannot be routed by it."""
    return _Tests(document).run() if document["tests"] else []


def newly_failing(before: Document, after: Document) -> list[Result]:
    """Return the tests that fail after a change, but for those that failed before and were not changed.

    [] when calls cannot be routed after it.
    """
    try:
        failing = [result for result in run_tests(after) if result.failures]
    except BuildError:
        return []
    if not failing:
        return []
    stored = {test["id"]: test for test in before["tests"]}
    changed = {test["id"] for test in after["tests"] if stored.get(test["id"]) != test}
    try:
        failed = {result.id for result in run_tests(before) if result.failures}
    except BuildError:
        failed = set()
    return [result for result in failing if result.id not in failed or result.id in changed]


def decide_call(document: Document, asked: Mapping[str, Any]) -> Decision:
    """Return what is decided for the `call` of a test, with everybody free. Raises BuildError."""
    return _Tests(document).decide("", asked, ())


class _Tests:
    """The tests of a document, decided on an empty slate.

    Nobody has been offered a call yet, and those who are free are online and silent. What holds for a while only says
    nothing about the rules: overrides of schedules, pauses and leaves are left out.
    """

    def __init__(self, document: Document) -> None:
        lasting = {
            **document,
            "schedules": [{**row, "override": None, "override_until": None} for row in document["schedules"]],
            "agents": [{**row, "paused": False, "away_from": None, "away_until": None} for row in document["agents"]],
        }
        self._tests = document["tests"]
        self._project = build_project(lasting, 0, 0)
        self._everybody = self._presence(self._project.agents)
        self._names = names_of(document)
        self._chains = {row["id"]: row["groups"] for row in document["rules"]}

    def _presence(self, agent_ids: Iterable[int]) -> Presence:
        agents = self._project.agents
        logins = (login for agent_id in agent_ids if agent_id in agents for login in agents[agent_id].sip_logins)
        return Presence(online=frozenset(logins), speaking=frozenset(), age=timedelta(0))

    def run(self) -> list[Result]:
        return [
            Result(test["id"], test["name"], list(self._failures(test["expect"], self._decide(test))))
            for test in self._tests
        ]

    def _decide(self, test: Mapping[str, Any]) -> Decision:
        return self.decide(test["name"], test["call"], test["free"])

    def decide(self, seed: str, asked: Mapping[str, Any], free: Sequence[int]) -> Decision:
        call = Call(**{key: asked[key] for key in ("caller", "dialed", "direction", "params")})
        presence = self._presence(free) if free else self._everybody
        snapshot = Snapshot(now=datetime.fromisoformat(asked["at"]), presence=presence, seed=seed)
        return decide(self._project, call, snapshot)

    def _name(self, kind: str, row_id: int) -> str:
        return self._names[kind].get(row_id, f"#{row_id}")

    def _failures(self, expect: Mapping[str, Any], decision: Decision) -> Iterator[Message]:
        answer, wanted = decision.answer, expect["rule"]
        if wanted is not None and decision.rule_id is None:
            yield Message(_NO_RULE, {"expected": self._name("rules", wanted)})
        elif wanted is not None and decision.rule_id != wanted:
            names = {"found": self._name("rules", decision.rule_id or 0), "expected": self._name("rules", wanted)}
            yield Message(_RULE, names)
        asked = self._chains[decision.rule_id] if decision.rule_id is not None else []
        if expect["groups"] and asked != expect["groups"]:
            found, expected = (
                ", ".join(self._name("groups", group) for group in ids) or "–" for ids in (asked, expect["groups"])
            )
            yield Message(_GROUPS, {"found": found, "expected": expected})
        got = answer.agent_id if isinstance(answer, Offer) else None
        goes_to = answer.destination or "–" if got is None else self._name("agents", got)
        agent, overflow = expect["agent"], expect["overflow"]
        if agent is not None and got != agent:
            yield Message(_AGENT, {"found": goes_to, "expected": self._name("agents", agent)})
        if overflow is not None and (got is not None or answer.destination != overflow):
            yield Message(_AGENT, {"found": goes_to, "expected": overflow or "–"})
