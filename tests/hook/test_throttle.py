"""Wrong tokens: the same answer at any rate, for less and less work; a right one is never refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event

from router.db import models
from router.hook.auth import new_token
from router.hook.throttle import ADDRESSES, EVERY_SECONDS, FREE, FREE_OF_ALL, TokenThrottle
from router.routing.known import token_hash
from tests.desk import Desk
from tests.hook.conftest import Clock

STRANGER = "203.0.113.9"


@pytest.fixture
def desk(clock: Clock, migrated_sqlite_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_sqlite_url)) as made:
        yield made


def guess(desk: Desk, times: int, address: str = STRANGER, path: str = "") -> list[tuple[int, bytes]]:
    answers = [
        desk.client.get(f"/hook/{new_token()}{path}", environ_overrides={"REMOTE_ADDR": address}) for _ in range(times)
    ]
    return [(answer.status_code, answer.data) for answer in answers]


@pytest.fixture
def lookups(desk: Desk) -> list[str]:
    """The hook's questions for tokens, from here on."""
    asked: list[str] = []
    engine = desk.app.extensions["hook"].routing._database.engine

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM hook_tokens" in statement:
            asked.append(statement)

    return asked


@pytest.mark.parametrize("path", ["", "/event"])
def test_every_guess_gets_the_same_answer(desk: Desk, path: str) -> None:
    assert set(guess(desk, 3 * FREE, path=path)) == {(404, b"Not found\n")}


def test_past_the_limit_a_guess_costs_no_look_up_of_its_own_and_no_line(
    desk: Desk, lookups: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    guess(desk, FREE)
    assert len(lookups) == FREE
    assert len(capsys.readouterr().out.splitlines()) == FREE
    lookups.clear()
    guess(desk, 10 * FREE)
    assert len(lookups) <= 1  # all tokens at once
    assert capsys.readouterr().out == ""


def test_many_addresses_together_have_a_limit_too(desk: Desk, lookups: list[str]) -> None:
    for number in range(2 * FREE_OF_ALL):
        guess(desk, 1, address=f"198.51.{number // 250}.{number % 250}")
    assert FREE_OF_ALL <= len(lookups) <= FREE_OF_ALL + 1  # the others all at once


def test_a_right_token_is_never_limited(desk: Desk) -> None:
    guess(desk, 5 * FREE)
    asked = desk.client.get(f"/hook/{desk.token()}?caller=0501112233", environ_overrides={"REMOTE_ADDR": STRANGER})
    assert (asked.status_code, asked.text) == (200, "380440000000")


def test_a_right_token_made_meanwhile_by_another_process_is_not_limited_either(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    guess(desk, 5 * FREE)
    with desk.database.writing() as session:
        session.add(
            models.HookToken(
                project_id=desk.project_id(), token=token, token_hash=token_hash(token), created_at=datetime.now(UTC)
            )
        )
    monkeypatch.setattr("router.routing.known.REFUSED_SECONDS", 0.0)  # a moment later
    asked = desk.client.get(f"/hook/{token}?caller=0501112233", environ_overrides={"REMOTE_ADDR": STRANGER})
    assert (asked.status_code, asked.text) == (200, "380440000000")


def test_a_wrong_address_with_the_right_token_cannot_fill_the_database(clock: Clock, migrated_sqlite_url: str) -> None:
    config = """
projects:
  - {name: acme, overflow: "380440000000", hook: {allow_addresses: [192.0.2.0/24]}}
"""
    with closing(Desk(migrated_sqlite_url, config)) as desk:
        for _ in range(3 * FREE):
            asked = desk.client.get(f"/hook/{desk.token()}", environ_overrides={"REMOTE_ADDR": STRANGER})
            assert asked.status_code == 404
        assert len(desk.all(models.RefusedRequest)) == FREE


def test_memory_is_bounded_whatever_comes() -> None:
    throttle = TokenThrottle()
    for number in range(3 * ADDRESSES):
        throttle.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    throttle.count("no address " * 1000)
    assert len(throttle) == ADDRESSES


def test_who_stops_guessing_is_forgiven(clock: Clock) -> None:
    throttle = TokenThrottle()
    assert [throttle.count(STRANGER) for _ in range(FREE + 2)] == [True] * FREE + [False] * 2
    assert throttle.is_exceeded(STRANGER)
    assert not throttle.is_exceeded("198.51.100.1")
    clock.now += EVERY_SECONDS
    assert not throttle.is_exceeded(STRANGER)
    assert [throttle.count(STRANGER) for _ in range(2)] == [True, False]
    clock.now += FREE * EVERY_SECONDS
    assert all(throttle.count(STRANGER) for _ in range(FREE))
