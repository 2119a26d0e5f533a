"""The hook's page: its address and who sees it, the cabinet's values, the test, what came in, new addresses."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
import time_machine
from werkzeug.serving import make_server

from router.configuration import apply, load
from router.db import models
from router.db.types import readable
from router.hook.auth import is_test, new_test_id
from tests.admin.conftest import Admin, Browser
from tests.rows import changing

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    presence: {fresh_seconds: 3600}
    agents:
      - {name: Alice, sip_logins: [acme_alice]}
    groups:
      - {name: sales, members: [{agent: Alice}]}
    rules:
      - {name: advertising, when: {params: {utm_source: [google]}}, prefer: {param: responsible}, groups: [sales]}
      - {name: everyone, groups: [sales]}
"""


@pytest.fixture(autouse=True)
def configured(admin: Admin) -> None:
    admin.configure(CONFIG)
    see_alice(admin)


def see_alice(admin: Admin) -> None:
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        snapshot = models.PresenceSnapshot(project_id=project(admin), began_at=now, online=["acme_alice"], speaking=[])
        session.add(snapshot)
        session.flush()
        session.merge(models.Presence(project_id=project(admin), snapshot_id=snapshot.id, began_at=now, failures=0))


def project(admin: Admin) -> int:
    return int(admin.one(models.Project, name="acme").id)


def tokens(admin: Admin) -> list[models.HookToken]:
    return admin.all(models.HookToken, project_id=project(admin))


def ask(admin: Admin, **fields: Any) -> Any:
    """The PBX asks."""
    client = admin.app.test_client()
    return client.post(
        f"/hook/{readable(tokens(admin)[-1].token)}", json={"uniqueid": "1", "userfield": "380501234567", **fields}
    )


def know(admin: Admin, **settings: Any) -> None:
    """Let the pages go by these settings."""
    context = admin.app.extensions["admin"]
    admin.app.extensions["admin"] = context._replace(settings=context.settings.model_copy(update=settings))


def catch_up(admin: Admin) -> None:
    """What each process does every few seconds: without a call, a changed token or password is learned so."""
    admin.app.extensions["hook"].routing.keep_up()


def set_hook(admin: Admin, **values: Any) -> None:
    with changing(admin.database, project(admin), "test") as session:
        row = session.get_one(models.Project, project(admin))
        for name, value in values.items():
            setattr(row, f"hook_{name}", value)
        row.secrets_revision += 1
    catch_up(admin)


# ---- the address


def test_the_secret_is_for_those_who_may_edit(admin: Admin, emil: Browser, vira: Browser) -> None:
    token = readable(tokens(admin)[0].token)
    assert f"/hook/{token}" in emil.get("/p/acme/hook").text
    assert f"/hook/{token}/event?event=pickup" in emil.get("/p/acme/hook").text
    for address in ("/p/acme/hook", "/p/acme/hook/live", "/p/acme/hook/requests"):
        assert token not in vira.get(address).text
    assert token[-4:] in vira.get("/p/acme/hook").text


def test_an_address_of_this_machine_is_told(admin: Admin, emil: Browser) -> None:
    assert "Ringostat cannot reach this address yet." in emil.get("/p/acme/hook").text
    know(admin, public_url="https://router.example.org")
    page = emil.get("/p/acme/hook").text
    assert "Ringostat cannot reach" not in page
    assert f"https://router.example.org/hook/{readable(tokens(admin)[0].token)}" in page


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("auto", {"Method": "POST", "Data submission type": "json", "Data import type": "json",
                  "Name in response for destination": "where"}),
        ("json", {"Data import type": "json", "Name in response for destination": "where"}),
        ("http", {"Data import type": "http"}),
        ("json-rpc", {"Data submission type": "json-rpc", "Data import type": "json-rpc", "JSON-RPC method": "route"}),
    ],
)  # fmt: skip
def test_the_cabinets_values_are_those_of_the_projects_answer(
    admin: Admin, emil: Browser, answer: str, said: dict[str, str]
) -> None:
    set_hook(admin, answer=answer, key="where")
    page = emil.get("/p/acme/hook").text
    shown = dict(re.findall(r'<dt>([^<]+)</dt><dd class="row-flex"><span class="\w+" id="cabinet-\d+">([^<]+)<', page))
    assert {name: shown.get(name) for name in said} == said
    assert ("Name in response for destination" in shown) is (answer != "http")
    # What the page says to enter is what the hook then does.
    rpc = {"jsonrpc": "2.0", "id": 7, "method": "route", "params": {"uniqueid": "1"}}
    asked = rpc if answer == "json-rpc" else {"uniqueid": "1"}
    reply = admin.app.test_client().post(f"/hook/{readable(tokens(admin)[-1].token)}", json=asked)
    assert reply.status_code == 200
    assert {"http": b"acme_alice", "json-rpc": b'{"jsonrpc":"2.0","id":7,"result":{"where":"acme_alice"}}'}.get(
        answer, b'{"where":"acme_alice"}'
    ) == reply.data


def test_the_parameters_are_the_usual_ones_and_those_that_rules_look_at(admin: Admin, emil: Browser) -> None:
    set_hook(admin, fields={"caller": ["client_phone_number"]})
    page = emil.get("/p/acme/hook").text
    named = re.findall(r'rowheader" scope="row" class="head-cell mono[^"]*">([^<]+)<', page)
    assert named == ["uniqueid", "client_phone_number", "dst", "call_type", "step_forward", "utm_source", "responsible"]
    sent = dict(zip(named, ["77", "0501234567", "0441112233", "in", "s1", "google", "x"], strict=True))
    admin.app.test_client().post(f"/hook/{readable(tokens(admin)[-1].token)}", json=sent)
    made = admin.one(models.Decision, call_id="77")
    assert (made.caller, made.dialed, made.step) == ("380501234567", "380441112233", "s1")
    assert made.rule_id == admin.one(models.Rule, name="advertising").id


# ---- waiting for the first call


def test_it_waits_until_the_first_real_call(admin: Admin, emil: Browser) -> None:
    assert "Waiting for the first call" in emil.get("/p/acme/hook/live").text
    assert "hx-trigger" in emil.get("/p/acme/hook/live").text
    emil.post("/p/acme/hook/test")
    assert "Waiting for the first call" in emil.get("/p/acme/hook/live").text  # a test is no call
    ask(admin)
    live = emil.get("/p/acme/hook/live").text
    assert "Calls are arriving" in live
    assert "hx-trigger" not in live


# ---- what came in


def test_the_last_requests_show_what_came_and_what_was_understood(admin: Admin, vira: Browser) -> None:
    ask(admin, dst="044 111 22 33", note="<script>alert(1)</script>")
    page = vira.get("/p/acme/hook/requests").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "380441112233 ← body dst" in unescape(page)
    decision = admin.one(models.Decision, call_id="1")
    assert f"/p/acme/calls/{decision.id}" in page
    assert readable(tokens(admin)[0].token) not in page


def test_remarks_of_the_reader_are_shown(admin: Admin, vira: Browser) -> None:
    admin.app.test_client().get(f"/hook/{readable(tokens(admin)[-1].token)}?userfield=0501234567")
    assert "No call id was found" in vira.get("/p/acme/hook/requests").text


def test_refused_requests_are_shown_with_their_reason(admin: Admin, vira: Browser) -> None:
    set_hook(admin, basic_auth="pbx:secret")
    assert ask(admin).status_code == 401
    set_hook(admin, basic_auth=None, allow_addresses=["203.0.113.0/24"])
    assert ask(admin).status_code == 404
    page = vira.get("/p/acme/hook/requests").text
    assert page.index("address not allowed") < page.index("wrong user or password")  # newest first


def test_no_more_than_twenty_are_shown(admin: Admin, vira: Browser) -> None:
    for n in range(25):
        ask(admin, uniqueid=str(n))
    assert vira.get("/p/acme/hook/requests").text.count('<li id="request-') == 20


def test_callers_are_masked_where_the_project_says_so(admin: Admin, vira: Browser) -> None:
    ask(admin)
    assert "380501234567" in vira.get("/p/acme/hook/requests").text
    with admin.database.writing() as session:
        session.get_one(models.Project, project(admin)).mask_numbers = True
    assert "380501234567" not in vira.get("/p/acme/hook/requests").text


# ---- the test


def test_one_web_process_tests_itself_from_within(admin: Admin, emil: Browser) -> None:
    know(admin, web_concurrency=1)
    assert "It does not go over the network" in emil.get("/p/acme/hook").text
    answer = unescape(emil.post("/p/acme/hook/test", caller="0501234567", dialed="044 111 22 33", follow=True).text)
    assert re.search(r'The hook answered in \d+ ms: <code>{"destination":"acme_alice"}</code>', answer)
    assert ">Test</span>" in answer
    assert "380501234567" in answer
    assert "nothing was counted" in answer
    why = re.search(r'href="(/p/acme/calls/\d+)">Why', answer)
    assert why is not None
    assert "acme_alice" in emil.get(why[1]).text


def everything_that_counts(admin: Admin, vira: Browser) -> list[Any]:
    """What a call would change: rows, turns, leases, metrics, and the numbers on pages."""
    rows = [admin.all(models.Decision, is_test=False), admin.all(models.Reservation), admin.all(models.HeardCall)]
    clocks = [vars(row) | {"_sa_instance_state": None} for row in admin.all(models.MemberClock)]
    states = [vars(row) | {"_sa_instance_state": None} for row in admin.all(models.AgentState)]
    metrics = [line for line in vira.get("/metrics").text.splitlines() if line.startswith("router_hook")]
    moving = r'data-now="[^"]*"|csrf[^>]*|seen" value="[^"]*"|\d\d:\d\d(:\d\d)?'
    paths = [f"/p/acme/{page}" for page in ("board", "calls", "calls?period=today", "rules", "hook/live")]
    pages = [re.sub(moving, "", vira.get(path).text) for path in (*paths, "/")]
    return [rows, clocks, states, metrics, pages]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_test_is_no_call(admin: Admin, emil: Browser, vira: Browser, over_http: list[str], processes: int) -> None:
    know(admin, web_concurrency=processes)
    before = everything_that_counts(admin, vira)
    for _ in range(3):
        assert "acme_alice" in emil.post("/p/acme/hook/test", follow=True).text
    assert everything_that_counts(admin, vira) == before
    assert vira.get("/p/acme/hook/requests").text.count(">Test</span>") == 3


def test_tests_are_marked_in_the_log_and_shown_only_where_one_asks_for_them(
    admin: Admin, emil: Browser, vira: Browser
) -> None:
    ask(admin)
    answer = emil.post("/p/acme/hook/test", caller="0671112233", follow=True).text
    test, call = admin.one(models.Decision, is_test=True), admin.one(models.Decision, is_test=False)
    assert f'href="/p/acme/calls/{test.id}"' in answer, "the message leads to the explanation"
    wanted = {"": {call.id}, "?tests=only": {test.id}, "?tests=all": {call.id, test.id}}
    for asked, ids in wanted.items():
        page = vira.get(f"/p/acme/calls{asked}").text
        assert {int(found) for found in re.findall(r"/p/acme/calls/(\d+)", page)} == ids
        assert page.count(">Test</span>") == (test.id in ids)
    explained = vira.get(f"/p/acme/calls/{test.id}").text
    assert "This was a test request" in explained
    assert "A test has no outcome." in explained
    assert "The same inputs give the same result." in explained
    assert "This was a test request" not in vira.get(f"/p/acme/calls/{call.id}").text


def test_a_test_is_no_previous_call_of_its_caller(admin: Admin, emil: Browser) -> None:
    again = "- {name: again, when: {called_before: {within: 1, unit: hours}}, groups: [], overflow: '380997654321'}"
    apply(admin.database, load(CONFIG.replace("- {name: advertising", f"{again}\n      - {{name: advertising"), {}))
    catch_up(admin)
    emil.post("/p/acme/hook/test", caller="0501234567")
    assert ask(admin).json == {"destination": "acme_alice"}
    assert ask(admin, uniqueid="2").json == {"destination": "380997654321"}


def test_only_we_can_send_a_test(admin: Admin) -> None:
    secret = str(admin.app.secret_key)
    made_up = ["test-1", "test-", "test", f"test-{int(time.time())}-abcd-{'0' * 20}", new_test_id("another secret")]
    for number, call_id in enumerate(made_up):
        assert not is_test(call_id, secret)
        ask(admin, uniqueid=call_id)
        assert len(admin.all(models.Decision)) == number + 1, "it is a call like any other"
    assert is_test(new_test_id(secret), secret)


def test_a_test_is_none_after_its_minute(admin: Admin) -> None:
    with time_machine.travel(datetime.now(UTC) - timedelta(minutes=2)):
        old = new_test_id("s")
    assert not is_test(old, "s")


def test_the_test_signs_in_and_stands_on_the_list(admin: Admin, emil: Browser) -> None:
    set_hook(admin, basic_auth="pbx:ключ", allow_addresses=["203.0.113.0/24"])
    answer = emil.post("/p/acme/hook/test", follow=True).text
    assert "The hook answered in" in answer
    assert "acme_alice" in answer


@pytest.fixture
def over_http(admin: Admin) -> Iterator[list[str]]:
    """The admin over real HTTP, knowing its own address: the paths that it was asked for there."""
    paths: list[str] = []

    def noting(environ: Any, start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        return admin.app.wsgi_app(environ, start_response)

    server = make_server("127.0.0.1", 0, noting, threaded=True)
    know(admin, web_concurrency=2, public_url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_with_more_processes_the_test_goes_over_the_network(admin: Admin, emil: Browser, over_http: list[str]) -> None:
    assert "It goes over the network." in emil.get("/p/acme/hook").text
    answer = unescape(emil.post("/p/acme/hook/test", follow=True).text)
    assert '<code>{"destination":"acme_alice"}</code>' in answer
    assert over_http == [f"/hook/{readable(tokens(admin)[-1].token)}"]
    assert admin.all(models.Decision, is_test=False) == []


def test_an_address_that_does_not_lead_here_is_told_apart_from_a_hook_that_fails(admin: Admin, emil: Browser) -> None:
    server = make_server("127.0.0.1", 0, lambda _environ, _start: [])
    port = server.server_port
    server.server_close()  # nobody listens there now
    know(admin, web_concurrency=2, public_url=f"http://127.0.0.1:{port}")
    answer = unescape(emil.post("/p/acme/hook/test", follow=True).text)
    assert f"Our own address http://127.0.0.1:{port} did not answer (ConnectionError)" in answer
    assert "acme_alice" in answer  # the service behind it does


# ---- new addresses


def rings(admin: Admin, token: str) -> bool:
    status: int = admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": token}).status_code
    return status == 200


def test_a_new_address_works_at_once_and_the_old_one_for_its_grace(admin: Admin, olena: Browser) -> None:
    old = readable(tokens(admin)[0].token)
    assert rings(admin, old)
    answer = olena.post("/p/acme/hook/rotate", grace="24", follow=True).text
    assert "The old one still works." in answer
    new = readable(tokens(admin)[1].token)
    assert f"/hook/{new}" in answer
    assert f"/hook/{old}" not in answer
    assert rings(admin, new)
    assert rings(admin, old)
    expires = tokens(admin)[0].expires_at
    assert expires is not None
    assert abs(expires - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)
    with admin.database.writing() as session:
        session.get_one(models.HookToken, tokens(admin)[0].id).expires_at = datetime.now(UTC) - timedelta(seconds=1)
    olena.post("/p/acme/hook/rotate", grace="1")
    catch_up(admin)
    assert not rings(admin, old)
    actions = [entry.action for entry in admin.all(models.AuditEntry, subject="hook_token")]
    assert actions == ["rotated", "rotated"]
    assert old not in str([vars(entry) for entry in admin.all(models.AuditEntry)])


def test_without_grace_the_old_address_is_refused_within_seconds(admin: Admin, olena: Browser) -> None:
    old = readable(tokens(admin)[0].token)
    assert rings(admin, old)
    olena.post("/p/acme/hook/rotate", grace="0")
    catch_up(admin)
    assert not rings(admin, old)


def test_an_old_address_is_ended_and_the_one_in_use_cannot_be(admin: Admin, olena: Browser) -> None:
    old = tokens(admin)[0]
    assert olena.post(f"/p/acme/hook/tokens/{old.id}/end").status_code == 404
    olena.post("/p/acme/hook/rotate", grace="168")
    assert rings(admin, readable(old.token))
    olena.post(f"/p/acme/hook/tokens/{old.id}/end")
    catch_up(admin)
    assert not rings(admin, readable(old.token))
    assert rings(admin, readable(tokens(admin)[-1].token))
    assert "End it now" not in olena.get("/p/acme/hook").text


def test_only_owners_make_addresses_and_viewers_send_no_test(admin: Admin, emil: Browser, vira: Browser) -> None:
    old = tokens(admin)[0]
    for browser in (emil, vira):
        assert browser.post("/p/acme/hook/rotate", grace="0").status_code == 403
        assert browser.post(f"/p/acme/hook/tokens/{old.id}/end").status_code == 403
        assert "Create a new address" not in browser.get("/p/acme/hook").text
    assert vira.post("/p/acme/hook/test").status_code == 403
    assert '<form method="post"' not in vira.get("/p/acme/hook").text.split("<main")[1]


# ---- an id that says nothing


def test_an_id_that_is_not_filled_in_is_warned_of_and_shown(admin: Admin, emil: Browser) -> None:
    assert "call’s id is not filled in" not in emil.get("/p/acme/hook").text
    assert ask(admin, uniqueid="ua9_-17").status_code == 200
    assert "call’s id is not filled in" not in emil.get("/p/acme/hook").text
    assert ask(admin, uniqueid="<%= call_id %>").status_code == 200
    for page in ("/p/acme/hook", "/p/acme/hook/requests"):
        shown = unescape(emil.get(page).text)
        assert "call’s id is not filled in" in shown
        assert "<code><%= call_id %></code>" in shown


def test_an_id_that_several_callers_share_is_warned_of_and_shown(admin: Admin, emil: Browser) -> None:
    for caller in ("380501234567", "380671234567"):
        assert ask(admin, uniqueid="constant", userfield=caller).status_code == 200
    shown = unescape(emil.get("/p/acme/hook").text)
    assert "<code>constant</code>" in shown
    assert "was sent for another caller too" in shown
    (second,) = (row for row in admin.all(models.Decision) if row.caller == "380671234567")
    assert "was sent for another caller too" in unescape(emil.get(f"/p/acme/calls/{second.id}").text)
