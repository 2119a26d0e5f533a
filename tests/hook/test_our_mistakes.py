"""Whatever is wrong in our own code, the PBX gets an answer that it can use."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

from router.db import models
from router.db.records import record_of
from router.hook.formats import FORMATS
from tests.desk import Desk


def fail(*_: Any) -> Any:
    raise ZeroDivisionError


@pytest.fixture
def desk(migrated_sqlite_url: str) -> Any:
    desk = Desk(migrated_sqlite_url)
    desk.see("acme_alice", "acme_bob")
    yield desk
    desk.close()


def break_the(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setitem(FORMATS, "ringostat", FORMATS["ringostat"]._replace(**{part: fail}))


def test_a_request_that_we_fail_to_read_is_a_call_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    break_the(monkeypatch, "parse_call")
    response = desk.ask(uniqueid="c1")
    assert (response.status_code, response.text) == (200, "acme_alice")


def test_a_destination_that_we_fail_to_write_in_its_form_is_written_as_text(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_the(monkeypatch, "render_decision")
    response = desk.client.post(f"/hook/{desk.token()}?answer=json", json={"uniqueid": "c1"})
    assert (response.status_code, response.text) == (200, "acme_alice")


def test_a_failure_to_decide_leads_to_the_overflow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.routing.known.decide", fail)
    response = desk.ask(uniqueid="c1")
    assert (response.status_code, response.text) == (200, "380440000000")


def test_an_event_that_we_fail_to_read_or_apply_is_answered(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.app.apply_event", fail)
    event = f"/hook/{desk.token()}/event?event=pickup&uniqueid=c1"
    assert desk.client.get(event).status_code == 200
    break_the(monkeypatch, "parse_event")
    assert desk.client.get(event).status_code == 200


class Unending(BytesIO):
    """What a server gives whose input does not end with the request: to read on is to wait for the client."""

    def read(self, size: int | None = -1, /) -> bytes:
        asked = self.tell() + (size if size is not None and size >= 0 else len(self.getvalue()) + 1)
        assert asked <= len(self.getvalue()), "read on"
        return super().read(size)


@pytest.mark.parametrize("ends", [True, False], ids=["as gunicorn gives it", "as others do"])
def test_a_body_that_breaks_off_asserts_nothing_that_was_cut(desk: Desk, ends: bool) -> None:
    body = b"uniqueid=c1&userfield=38067111"
    overrides = {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body) + 4), "wsgi.input_terminated": ends}
    answer = desk.client.post(f"/hook/{desk.token()}", environ_overrides=overrides)
    assert (answer.status_code, answer.text) == (200, "acme_alice")
    (decision,) = desk.all(models.Decision)
    assert (decision.call_id, decision.caller) == ("c1", "")
    with desk.database.reading() as session:
        received = record_of(session, decision)["received"]
    assert {"code": "cut_off", "name": "'userfield'"} in received["problems"]


def test_a_body_is_read_to_its_end_and_not_beyond(desk: Desk) -> None:
    body = b'{"uniqueid": "c1"}'
    overrides = {"wsgi.input": Unending(body), "CONTENT_LENGTH": str(len(body))}
    desk.client.post(f"/hook/{desk.token()}", content_type="application/json", environ_overrides=overrides)
    (decision,) = desk.all(models.Decision)
    assert decision.call_id == "c1"
