"""Who may ask is decided by the configuration as it is with this very call, in every process; guesses are bounded."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event, select

from router.app import create_app
from router.db import models
from router.hook.auth import new_token
from router.hook.throttle import ADDRESSES, EVERY_SECONDS, FREE, PasswordThrottle, TokenThrottle
from router.routing.known import token_hash
from tests.desk import Desk
from tests.hook.conftest import Clock
from tests.rows import changing

CONFIG = """
projects:
  - name: acme
    overflow: "380440000000"
    hook: {basic_auth: "pbx:first", allow_addresses: [192.0.2.0/24]}
"""
PBX, ELSEWHERE = "192.0.2.10", "198.51.100.7"


@pytest.fixture
def desk(migrated_url: str) -> Iterator[Desk]:
    """A process that knows the project, and owners who change it in another one."""
    with closing(Desk(migrated_url, CONFIG)) as made:
        assert status(made.client, made.token()) == 200
        yield made


def header(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"pbx:{password}".encode()).decode()}


def status(
    client: FlaskClient, token: str, said: str = "first", path: str = "", remote: str = PBX, **query: str
) -> int:
    answer = client.get(
        f"/hook/{token}{path}",
        headers=header(said),
        query_string={"caller": "0501112233"} | query,
        environ_overrides={"REMOTE_ADDR": remote},
    )
    return answer.status_code


def change(desk: Desk, **columns: Any) -> None:
    """In another process."""
    (row,) = desk.all(models.Project)
    with changing(desk.database, row.id, "test") as session:
        project = session.get_one(models.Project, row.id)
        for name, value in columns.items():
            setattr(project, name, value)
        project.secrets_revision += 1


def rotate(desk: Desk, grace: timedelta) -> str:
    token, now = new_token(), datetime.now(UTC)
    with changing(desk.database, desk.project_id(), "test") as session:
        project = session.get_one(models.Project, desk.project_id())
        for old in session.scalars(select(models.HookToken)):
            old.expires_at = now + grace
        session.add(models.HookToken(project_id=project.id, token_hash=token_hash(token), token=token, created_at=now))
        project.secrets_revision += 1
    return token


@pytest.mark.parametrize("path", ["", "/event"])
def test_a_new_password_holds_with_the_very_next_request(desk: Desk, path: str) -> None:
    change(desk, hook_basic_auth="pbx:second")
    assert status(desk.client, desk.token(), "second", path) == 200


@pytest.mark.parametrize("path", ["", "/event"])
def test_an_old_password_is_refused_with_the_very_next_request(desk: Desk, path: str) -> None:
    change(desk, hook_basic_auth="pbx:second")
    assert status(desk.client, desk.token(), "first", path) == 401
    assert len(desk.all(models.Decision)) == 1, "nothing was decided for it"


@pytest.mark.parametrize("path", ["", "/event"])
def test_the_address_list_holds_with_the_very_next_request(desk: Desk, path: str) -> None:
    change(desk, hook_allow_addresses=[ELSEWHERE])
    assert status(desk.client, desk.token(), path=path, remote=ELSEWHERE) == 200
    change(desk, hook_allow_addresses=["192.0.2.0/24"])
    assert status(desk.client, desk.token(), path=path, remote=ELSEWHERE) == 404
    change(desk, hook_allow_addresses=[])
    assert status(desk.client, desk.token(), path=path, remote=ELSEWHERE) == 200


@pytest.mark.parametrize("path", ["", "/event"])
def test_a_token_ended_without_grace_is_refused_with_the_very_next_request(desk: Desk, path: str) -> None:
    old = desk.token()
    new = rotate(desk, timedelta(0))
    assert status(desk.client, old, path=path) == 404
    assert status(desk.client, new, path=path) == 200


def test_within_its_grace_the_old_token_works_beside_the_new_one(desk: Desk) -> None:
    old = desk.token()
    new = rotate(desk, timedelta(hours=1))
    assert [status(desk.client, token) for token in (old, new)] == [200, 200]


@pytest.mark.parametrize("path", ["", "/event"])
def test_a_deleted_project_is_refused_with_the_very_next_request(desk: Desk, path: str) -> None:
    token = desk.token()
    change(desk, deleted_at=datetime.now(UTC))
    assert status(desk.client, token, path=path) == 404
    change(desk, deleted_at=None)
    assert status(desk.client, token, path=path) == 200


def test_a_change_that_another_part_of_the_process_has_seen_is_checked_too(desk: Desk) -> None:
    """The upkeep may learn of the new version between the check of the credentials and the answer."""
    routing = desk.app.extensions["hook"].routing
    route_call = routing.route_call

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        change(desk, hook_basic_auth="pbx:second")
        routing.keep_up()
        return route_call(*args, **kwargs)

    routing.route_call = meanwhile
    assert status(desk.client, desk.token(), "first") == 401


def test_each_process_takes_the_new_credentials_at_once(desk: Desk) -> None:
    other = create_app(desk.settings)
    try:
        assert status(other.test_client(), desk.token()) == 200
        change(desk, hook_basic_auth="pbx:second")
        assert [status(client, desk.token(), "second") for client in (desk.client, other.test_client())] == [200, 200]
    finally:
        other.extensions["router"].stop()
        other.extensions["admin"].database.dispose()


# ---- what strangers cost


@pytest.fixture
def reads(desk: Desk) -> list[str]:
    """The hook's reads of projects, from here on."""
    asked: list[str] = []

    @event.listens_for(desk.app.extensions["hook"].routing._database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM projects" in statement or "FROM hook_tokens" in statement:
            asked.append(statement)

    return asked


def test_past_the_limit_wrong_tries_do_not_cost_a_read_each(clock: Clock, desk: Desk, reads: list[str]) -> None:
    for number in range(FREE):
        status(desk.client, desk.token(), f"wrong{number}", remote=PBX)
    reads.clear()
    for _ in range(5 * FREE):
        status(desk.client, desk.token(), "wrong", remote=PBX)
    assert len(reads) <= 4, "once for all"


def test_an_ended_token_does_not_cost_reads_without_end(clock: Clock, desk: Desk, reads: list[str]) -> None:
    old = desk.token()
    rotate(desk, timedelta(0))
    for _ in range(FREE):
        assert status(desk.client, old, remote=ELSEWHERE) == 404
    reads.clear()
    for _ in range(5 * FREE):
        assert status(desk.client, old, remote=ELSEWHERE) == 404
    assert len(reads) <= 4, "once for all"


# ---- guesses at the password


@pytest.fixture
def open_desk(clock: Clock, migrated_sqlite_url: str) -> Iterator[Desk]:
    """Any address may ask."""
    with closing(Desk(migrated_sqlite_url, CONFIG.replace(", allow_addresses: [192.0.2.0/24]", ""))) as made:
        yield made


@pytest.mark.parametrize("path", ["", "/event"])
def test_guesses_at_a_password_come_to_an_end(open_desk: Desk, clock: Clock, path: str) -> None:
    token = open_desk.token()
    tries = [status(open_desk.client, token, f"guess{n}", path, ELSEWHERE) for n in range(FREE + 3)]
    assert tries == [401] * FREE + [429] * 3
    assert status(open_desk.client, token, "first", path, ELSEWHERE) == 429, "a right guess tells nothing"
    clock.now += EVERY_SECONDS
    assert status(open_desk.client, token, "next", path, ELSEWHERE) == 401
    assert status(open_desk.client, token, "another", path, ELSEWHERE) == 429


def test_guesses_keep_out_no_pbx_of_another_address(open_desk: Desk) -> None:
    for number in range(3 * FREE):
        status(open_desk.client, open_desk.token(), f"guess{number}", remote=ELSEWHERE)
    assert status(open_desk.client, open_desk.token(), remote=PBX) == 200


def test_guesses_keep_out_no_pbx_that_was_let_in_from_the_same_address(open_desk: Desk) -> None:
    assert status(open_desk.client, open_desk.token(), remote=ELSEWHERE) == 200
    for number in range(3 * FREE):
        status(open_desk.client, open_desk.token(), f"guess{number}", remote=ELSEWHERE)
    assert status(open_desk.client, open_desk.token(), remote=ELSEWHERE) == 200


def test_a_pbx_with_an_old_password_is_let_in_as_soon_as_it_has_the_new_one(open_desk: Desk) -> None:
    for _ in range(3 * FREE):
        assert status(open_desk.client, open_desk.token(), "old", remote=ELSEWHERE) == 401, "the same again is no guess"
    change(open_desk, hook_basic_auth="pbx:old")
    open_desk.app.extensions["hook"].routing.keep_up()
    assert status(open_desk.client, open_desk.token(), "old", remote=ELSEWHERE) == 200


def test_what_is_remembered_of_guesses_is_bounded(clock: Clock) -> None:
    throttle = PasswordThrottle()
    for number in range(2 * ADDRESSES):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        throttle.count_failure(1, address, b"x")
        throttle.count_success(1, address)
    for number in range(1000):
        throttle.count_failure(1, "10.0.0.1", str(number).encode())
    assert len(throttle) < 3 * ADDRESSES + 100


# ---- many addresses of one owner


def test_a_whole_network_counts_together(clock: Clock) -> None:
    throttle = TokenThrottle()
    counted = [throttle.count(f"2001:db8:7:{number:x}::1") for number in range(100)]
    assert not all(counted), "65,536 networks of a /48 belong to one"
    assert throttle.is_exceeded("2001:db8:7:ffff::1")
