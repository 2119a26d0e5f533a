"""A decision in words, for the command line."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from router.core.decision import decide
from router.core.model import Agent, Call, LastTalk, Presence, Project, Snapshot
from router.core.rules import Preference, Rule
from router.explain import as_text, explain

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ANN, BOB = Agent(1, "Ann", ("ann",), deputy_id=2), Agent(2, "Bob", ("bob",))
AWAY = replace(ANN, away_until=NOW + timedelta(days=1))
CALL = Call("c1", caller="380501112233", params={"manager": "ann", "typo": "anne"})
TALKED = LastTalk(1, NOW - timedelta(days=2))


@pytest.mark.parametrize(
    ("ann", "prefer", "talk", "told"),
    [
        (
            ANN,
            Preference(last_agent=True),
            TALKED,
            "Ann, talked with this caller on 2026-11-26 12:00 UTC\n    1. Ann (ann)",
        ),
        (ANN, Preference(last_agent=True), None, "no agent talked with this caller within 30 days\n    –  nobody"),
        (AWAY, Preference(last_agent=True), TALKED, "2026-11-26 12:00 UTC; away, so the deputy\n    1. Bob (bob)"),
        (ANN, Preference(param="Manager"), None, "Ann, Manager is 'ann'\n    1. Ann (ann)"),
        (ANN, Preference(param="typo"), None, "typo is 'anne', which names no agent\n    –  nobody"),
        (ANN, Preference(param="crm"), None, "crm is '', which names no agent\n    –  nobody"),
    ],
)
def test_says_whom_a_rule_prefers_and_why(ann: Agent, prefer: Preference, talk: LastTalk | None, told: str) -> None:
    rule = Rule(7, "regulars", prefer=prefer, overflow="380441234567")
    project = Project(1, "acme", 1, agents={1: ann, 2: BOB}, rules=(rule,))
    presence = Presence(frozenset({"ann", "bob"}), age=timedelta(0))
    snapshot = Snapshot(NOW, presence, last_talk=talk, seed="c1")
    text = as_text(explain(project, CALL, snapshot, decide(project, CALL, snapshot)))
    assert told in text.partition("preferred agent: ")[2]
