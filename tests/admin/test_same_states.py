"""The board, the agents page, the queue of a group and a trial never contradict each other about an agent."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from router.core.model import Call, WhenUnknown
from router.db import models
from router.routing.route import Routing
from tests.admin.conftest import Admin, Browser
from tests.admin.day import Day

NAMES = ("Ann", "Ben", "Carol", "Dan", "Eve", "Fay")
CONFIG = """
projects:
  - name: acme
    overflow: "1"
    presence: {{auth_key: key, fresh_seconds: 60, last_known_seconds: 600, when_unknown: {policy}}}
    schedules:
      - {{name: never, open: {{mon: ["00:00-00:01"]}}, override: closed}}
    agents:
      - {{name: Ann, sip_logins: [ann, ann_mob]}}
      - {{name: Ben, sip_logins: [ben], daily_cap: 2}}
      - {{name: Carol, sip_logins: [carol], deputy: Ann, away_until: "2099-01-01T00:00:00Z"}}
      - {{name: Dan, sip_logins: [dan], paused: true}}
      - {{name: Eve, sip_logins: []}}
      - {{name: Fay, sip_logins: [fay], hours: never}}
    groups:
      - name: all
        members: [{{agent: Ann}}, {{agent: Ben}}, {{agent: Carol}}, {{agent: Dan}}, {{agent: Eve}}, {{agent: Fay}}]
    rules:
      - {{name: everyone, groups: [all]}}
"""
LOGINS = ("ann", "ann_mob", "ben", "carol", "dan", "fay")
AGES = {"fresh": timedelta(0), "stale": timedelta(minutes=5), "old": timedelta(hours=2), "never": None}

some_logins = st.frozensets(st.sampled_from(LOGINS))
clock = st.sampled_from([None, timedelta(hours=-1), timedelta(hours=1)])
agent_states = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["available", "available", "on_break", "off_duty"]),
        "paused_until": clock,
        "wrap_up_until": clock,
        "cooling_until": clock,
        "answered_today": st.sampled_from([0, 5]),
        "reserved_until": clock,
    }
)


def put(day: Day, age: timedelta | None, online: Any, speaking: Any, events: dict[str, bool], states: Any) -> None:
    """Make the project stand so."""
    now = datetime.now(UTC)
    with day.database.writing() as session:
        session.execute(delete(models.LoginState))
        session.execute(delete(models.Reservation))
        session.execute(update(models.Presence).values(began_at=None, snapshot_id=None))
    if age is not None:
        day.see(online | speaking, speaking, ago=age)
    with day.database.writing() as session:
        for login, talks in events.items():
            row = session.get(models.LoginState, (day.project_id, login))
            if row is None:
                row = models.LoginState(project_id=day.project_id, login=login, since_at=now)
                session.add(row)
            row.event_speaking, row.event_at = talks, now
        for name, values in states.items():
            clocks = {key: now + value if isinstance(value, timedelta) else value for key, value in values.items()}
            reserved_until = clocks.pop("reserved_until")
            state = session.get_one(models.AgentState, day.agents[name])
            for key, value in clocks.items():
                setattr(state, key, value)
            state.day = now.date()
            if reserved_until is not None:
                session.add(
                    models.Reservation(
                        agent_id=day.agents[name], project_id=day.project_id, decision_id=0, call_id=name,
                        sip_login=name.lower(), claimed_at=now - timedelta(hours=2), expires_at=reserved_until,
                    )
                )  # fmt: skip


def signs(page: str, day: Day) -> dict[str, str]:
    """By agent's name the sign in their row."""
    found = {}
    for row in re.findall(r'<tr role="row".*?</tr>|<li class="row-flex" id="queued.*?</li>', page, re.DOTALL):
        sign = re.search(r'<span class="state [^"]*">.*?</span>', row, re.DOTALL)
        name = next((name for name in NAMES if re.search(rf">\s*{name}\s*<", row)), None)
        if sign and name:
            found[name] = unescape(re.sub(r"<[^>]*>", "", sign[0])).strip()
    return found


@pytest.fixture(params=list(WhenUnknown))
def day(admin: Admin, request: pytest.FixtureRequest) -> Day:
    return Day(admin, CONFIG.format(policy=request.param.value))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    age=st.sampled_from(list(AGES)),
    online=some_logins,
    speaking=some_logins,
    events=st.dictionaries(st.sampled_from(LOGINS), st.booleans()),
    states=st.fixed_dictionaries(dict.fromkeys(NAMES, agent_states)),
)
def test_all_pages_say_the_same_of_an_agent(
    day: Day, vira: Browser, age: str, online: Any, speaking: Any, events: dict[str, bool], states: Any
) -> None:
    put(day, AGES[age], online, speaking, events, states)
    board = signs(vira.get("/p/acme/board").text, day)
    assert set(board) == set(NAMES)
    assert signs(vira.get("/p/acme/agents").text, day) == board
    group = day.admin.one(models.Group, name="all").id
    queue = signs(vira.get(f"/p/acme/groups/{group}/queue").text, day)
    members = signs(vira.get(f"/p/acme/groups/{group}").text.partition('id="queue"')[0], day)
    free = {name for name, sign in board.items() if sign == "Idle"}
    assert {name: "Idle" if sign == "Eligible" else sign for name, sign in queue.items()} == {
        name: board[name] for name in queue
    }
    assert members == {} or members == board
    _project, _snapshot, decision = Routing(day.database).explain(day.project_id, Call())
    considered = {candidate.agent_id: candidate.skip for candidate in decision.trials[0].candidates}
    assert {name for name in NAMES if considered[day.agents[name]] is None} == free


@pytest.mark.parametrize("day", [WhenUnknown.ASSUME_ONLINE], indirect=True)
def test_where_everybody_is_taken_to_be_online_so_are_the_phones(day: Day, vira: Browser) -> None:
    put(day, None, frozenset(), frozenset(), {"ben": True}, {})
    board = vira.get("/p/acme/board").text
    assert signs(board, day)["Ann"] == "Idle"
    assert signs(board, day)["Ben"] == "Speaking"
    assert 'aria-label="Online"' in board
    assert 'aria-label="Unknown"' not in board


@pytest.mark.parametrize("day", [WhenUnknown.OVERFLOW], indirect=True)
def test_a_talk_that_events_tell_of_is_shown_though_presence_is_not_known(day: Day, vira: Browser) -> None:
    put(day, AGES["old"], frozenset({"ann"}), frozenset({"ann"}), {"ben": True}, {})
    for page in ("board", "agents"):
        shown = signs(vira.get(f"/p/acme/{page}").text, day)
        assert shown["Ben"] == "Speaking", page
        assert shown["Ann"] == "Presence unknown", "who was last seen talking may long have hung up"
