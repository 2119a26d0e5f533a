"""Ringostat's API, asked over real HTTP: the requests to the letter, and every way in which an answer can be wrong."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.presence.fetch import Fetcher, Request
from router.presence.source import CheckResult, ErrorCode, LoggedCall, Reading, SourceError, SourceSettings, StaffMember
from router.presence.sources import CHECKS, SOURCES, ringostat
from tests.presence.scripted_server import (
    Asked,
    Script,
    ScriptedServer,
    always,
    always_and_close,
    reply,
    with_time_enough,
)

KEY = "k3y-secret"
TOKEN = "t0ken-secret"
KYIV = ZoneInfo("Europe/Kyiv")

ONLINE = "the online logins"
SMART_PHONE = "the online logins of the Smart Phone extension"
SPEAKING = "the speaking logins"

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]"


@pytest.fixture(scope="module")
def session() -> Iterator[Fetcher]:
    with Fetcher(allow_private=True) as fetcher:
        yield fetcher


def settings(server: ScriptedServer, **changed: str) -> SourceSettings:
    values = {"api_url": server.url, "auth_key": KEY, "online_from": "either", "project_id": "12345", "token": TOKEN}
    return SourceSettings(**{**values, **changed})  # type: ignore[arg-type]  # text fields alone are changed here


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def which(asked: Asked) -> str:
    """What a status request asks for, in the words of the error messages."""
    if asked.path.endswith("/speaking"):
        return SPEAKING
    return SMART_PHONE if asked.query else ONLINE


def status_api(answers: Mapping[str, bytes]) -> Script:
    """Alice is free at her desk, Bob is on a call, Carol is online on her phone; each answer can be replaced."""
    usual = {ONLINE: '["acme_alice", "acme_bob"]', SMART_PHONE: '["acme_carol_mob"]', SPEAKING: '["acme_bob"]'}
    replies = {**{what: reply(body) for what, body in usual.items()}, **answers}

    def script(asked: Asked, sock: socket.socket) -> bytes | None:
        answer = replies[which(asked)]
        if answer != HALF:
            return answer
        sock.sendall(HALF)
        return None

    return script


# ---- one reading


@pytest.mark.parametrize(
    ("online_from", "online", "requests"),
    [
        ("sip", {"acme_alice", "acme_bob"}, {ONLINE, SPEAKING}),
        ("smart_phone", {"acme_carol_mob"}, {SMART_PHONE, SPEAKING}),
        ("either", {"acme_alice", "acme_bob", "acme_carol_mob"}, {ONLINE, SMART_PHONE, SPEAKING}),
    ],
)
def test_asks_what_the_project_wants_to_know(
    session: Fetcher, online_from: str, online: set[str], requests: set[str]
) -> None:
    with ScriptedServer(status_api({})) as server:
        reading = SOURCES["ringostat"](settings(server, online_from=online_from), deadline=soon(), session=session)
    assert reading == Reading(frozenset(online), frozenset({"acme_bob"}))
    assert sorted(map(which, server.asked)) == sorted(requests)


@pytest.mark.parametrize(("with_do_not_disturb", "flag"), [(False, "false"), (True, "true")])
def test_sends_the_requests_of_ringostats_articles_to_the_letter(
    session: Fetcher, with_do_not_disturb: bool, flag: str
) -> None:
    with ScriptedServer(status_api({})) as server:
        wanted = SourceSettings(
            # As people paste it, blanks and slash included.
            f" {server.url}/pbx/ ",
            f"{KEY}\n",
            "either",
            " 12345 ",
            TOKEN,
            with_do_not_disturb=with_do_not_disturb,
        )
        ringostat.read(wanted, deadline=soon(), session=session)
    assert {which(asked): (asked.method, asked.path, asked.query) for asked in server.asked} == {
        ONLINE: ("GET", "/pbx/sipstatus/online", {}),
        SMART_PHONE: (
            "GET",
            "/pbx/sipstatus/online",
            {"project_id": "12345", "token": TOKEN, "withRspDoNotDisturbSips": flag},
        ),
        SPEAKING: ("GET", "/pbx/sipstatus/speaking", {}),
    }
    assert all(asked.headers["auth-key"] == KEY for asked in server.asked)


def test_asks_side_by_side(session: Fetcher) -> None:
    all_are_here = threading.Barrier(3)  # one after the other, the first would wait here until the deadline

    def script(asked: Asked, sock: socket.socket) -> bytes:
        all_are_here.wait(timeout=60)
        return reply("[]")

    with ScriptedServer(script) as server:
        assert ringostat.read(settings(server), deadline=soon(), session=session) == Reading(frozenset(), frozenset())


def test_polls_over_the_same_connections_again_and_again(session: Fetcher) -> None:
    with ScriptedServer(status_api({})) as server:
        for _ in range(10):
            ringostat.read(settings(server), deadline=soon(), session=session)
    assert len(server.asked) == 30
    assert server.connections <= 3


@pytest.mark.parametrize(
    ("body", "speaking"),
    [
        ("[]", set()),
        (" [ ] \n", set()),
        ('[""]', set()),
        ('["acme_bob", "acme_bob", " acme_bob\\r\\n"]', {"acme_bob"}),
        ('["", "acme_bob", "  "]', {"acme_bob"}),
        ('["brandcom_julian_mob", "101", "Іван"]', {"brandcom_julian_mob", "101", "Іван"}),
        ("\ufeff[]", set()),
    ],
)
def test_reads_an_array_of_logins_and_an_empty_one_is_nobody(session: Fetcher, body: str, speaking: set[str]) -> None:
    with ScriptedServer(status_api({SPEAKING: reply(body)})) as server:
        assert ringostat.read(settings(server), deadline=soon(), session=session).speaking == speaking


def test_reads_a_hundred_thousand_logins_and_refuses_one_more(session: Fetcher) -> None:
    logins = [f"acme_{n}" for n in range(ringostat.MAX_LOGINS + 1)]
    with ScriptedServer(status_api({ONLINE: reply(json.dumps(logins[1:]))})) as server:
        assert len(ringostat.read(settings(server), deadline=soon(), session=session).online) == 100_001  # and Carol
    too_many = status_api({ONLINE: reply(json.dumps(logins))})
    with ScriptedServer(too_many) as server, pytest.raises(SourceError, match="more than 100,000 entries") as caught:
        ringostat.read(settings(server), deadline=soon(), session=session)
    assert caught.value.code is ErrorCode.TOO_LARGE


# ---- all or nothing


BROKEN = {
    "401": (reply("", "401 Unauthorized"), ErrorCode.UNAUTHORIZED, "did not accept the Auth-key"),
    "403": (reply("", "403 Forbidden"), ErrorCode.FORBIDDEN, "denied access"),
    "429": (reply("", "429 Too Many Requests"), ErrorCode.RATE_LIMITED, "slow down"),
    "500": (reply("[]", "500 Oops"), ErrorCode.SERVER_ERROR, "(HTTP 500)"),
    "half": (HALF, ErrorCode.TRUNCATED, "broke off"),
    "html": (reply("<html>Maintenance</html>"), ErrorCode.NOT_JSON, "web page"),
    "empty": (reply(""), ErrorCode.NOT_JSON, "empty answer"),
    "object": (reply("{}"), ErrorCode.NOT_AN_ARRAY, "an object instead of an array"),
    "data": (reply('{"data": ["acme_bob"]}'), ErrorCode.NOT_AN_ARRAY, "an object instead of an array"),
    "null": (reply("null"), ErrorCode.NOT_AN_ARRAY, "null instead of an array"),
    "false": (reply("false"), ErrorCode.NOT_AN_ARRAY, "true or false instead of an array"),
    "text": (reply('"acme_bob"'), ErrorCode.NOT_AN_ARRAY, "text instead of an array"),
    "numbers": (reply('["acme_bob", 101]'), ErrorCode.NOT_STRINGS, "an array that holds a number"),
    "nested": (reply('[["acme_bob"]]'), ErrorCode.NOT_STRINGS, "an array that holds an array"),
    "objects": (reply('[{"sip": "acme_bob"}]'), ErrorCode.NOT_STRINGS, "an array that holds an object"),
    "nulls": (reply("[null]"), ErrorCode.NOT_STRINGS, "an array that holds null"),
    "control": (reply('["acme_bob\\u0000x"]'), ErrorCode.NOT_STRINGS, "control characters"),
    "long": (reply(json.dumps(["x" * 256])), ErrorCode.TOO_LARGE, "a login of more than 255 characters"),
    "million": (reply(json.dumps(["x"] * 1_000_000)), ErrorCode.TOO_LARGE, "more than 100,000 entries"),
}


@pytest.mark.parametrize("what", [ONLINE, SMART_PHONE, SPEAKING])
@pytest.mark.parametrize("fault", BROKEN)
def test_one_broken_answer_makes_all_unknown_and_is_named(session: Fetcher, fault: str, what: str) -> None:
    answer, code, says = BROKEN[fault]
    with ScriptedServer(status_api({what: answer})) as server, pytest.raises(SourceError) as caught:
        ringostat.read(settings(server), deadline=soon(), session=session)
    assert caught.value.code is code
    assert caught.value.message.startswith(f"Asked for {what}, the API ")
    assert says in caught.value.message
    assert "secret" not in f"{caught.value!r} {caught.value.remedy}"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_only_an_array_of_nothing_but_strings_is_ever_a_reading(value: object) -> None:
    request = Request(ONLINE, "https://api.example")
    is_array_of_strings = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    try:
        logins = ringostat._parse_logins(
            request, json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
        )
    except SourceError:
        assert not (is_array_of_strings and all(entry.isprintable() for entry in value))  # type: ignore[attr-defined]
    else:
        assert is_array_of_strings
        assert logins == {entry.strip() for entry in value} - {""}  # type: ignore[attr-defined]


def test_a_failure_is_told_at_once_without_waiting_for_the_other_answers(session: Fetcher) -> None:
    may_answer = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> bytes:
        if which(asked) == SPEAKING:
            return reply("", "429 Too Many Requests", "Retry-After: 9")
        may_answer.wait(timeout=60)
        return reply("[]")

    with ScriptedServer(script) as server:
        with pytest.raises(SourceError) as caught:
            ringostat.read(settings(server), deadline=soon(), session=session)
        may_answer.set()
    assert caught.value.retry_after == timedelta(seconds=9)


def test_a_hanging_api_is_a_timeout_at_the_deadline(session: Fetcher) -> None:
    may_answer = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> bytes:
        may_answer.wait(timeout=60)
        return reply("[]")

    with ScriptedServer(script) as server:
        with pytest.raises(SourceError) as caught:
            ringostat.read(settings(server), deadline=soon(0.2), session=session)
        may_answer.set()
    assert caught.value.code is ErrorCode.TIMEOUT


# ---- settings that cannot work


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"api_url": ""}, "The API address is not a web address."),
        ({"api_url": "api.ringostat.net"}, "The API address is not a web address."),
        ({"api_url": "ftp://api.ringostat.net"}, "The API address is not a web address."),
        ({"api_url": "file:///etc/passwd"}, "The API address is not a web address."),
        ({"api_url": "http://"}, "The API address is not a web address."),
        ({"api_url": "http://[::1"}, "The API address is not a web address."),
        ({"api_url": "http://api.example:99999"}, "The API address is not a web address."),
        ({"api_url": "http://api.example:0"}, "The API address is not a web address."),
        ({"api_url": "http://api.example/?x=1"}, "The API address is not a web address."),
        ({"api_url": "http://api.example/#x"}, "The API address is not a web address."),
        ({"api_url": "http://api.example/a b"}, "The API address is not a web address."),
        ({"api_url": "http://api.example\\@evil.example"}, "The API address is not a web address."),
        ({"api_url": "http://me:hidden@api.example"}, "holds a user name or password"),
        ({"api_url": "http://@api.example"}, "holds a user name or password"),
        ({"auth_key": " "}, "The Auth-key is not entered yet."),
        ({"auth_key": "k3y\nsecret"}, "The Auth-key holds characters that cannot be sent."),
        ({"auth_key": "ключ"}, "The Auth-key holds characters that cannot be sent."),
        ({"project_id": ""}, "The project id in Ringostat is missing."),
        ({"token": ""}, "The token of the Smart Phone extension is missing."),
        ({"online_from": "phone"}, "'phone' is not a known way to see who is online."),
    ],
)
def test_unfit_settings_ask_nothing_and_name_the_field(session: Fetcher, changed: dict[str, str], says: str) -> None:
    with ScriptedServer(status_api({})) as server:
        with pytest.raises(SourceError) as caught:
            ringostat.read(settings(server, **changed), deadline=soon(), session=session)
        assert server.connections == 0
    assert caught.value.code in (ErrorCode.BAD_SETTINGS, ErrorCode.NO_KEY)
    assert says in caught.value.message
    assert not {"hidden", "secret", "ключ"} & set(caught.value.message.replace("@", " ").split())


def test_the_smart_phone_fields_may_be_empty_when_they_are_not_needed(session: Fetcher) -> None:
    with ScriptedServer(status_api({})) as server:
        wanted = SourceSettings(server.url, KEY)
        assert ringostat.read(wanted, deadline=soon(), session=session).online == {"acme_alice", "acme_bob"}


def test_a_private_address_is_refused_unless_it_is_allowed() -> None:
    with ScriptedServer(status_api({})) as server, Fetcher() as guarded:
        with pytest.raises(SourceError) as caught:
            ringostat.read(settings(server), deadline=soon(), session=guarded)
        assert server.connections == 0
    assert caught.value.code is ErrorCode.ADDRESS_REFUSED


# ---- the connection check


def test_check_reports_on_each_request_without_secrets(session: Fetcher) -> None:
    with ScriptedServer(status_api({SMART_PHONE: reply("", "403 Forbidden")})) as server:
        online, smart_phone, speaking = CHECKS["ringostat"](settings(server), deadline=soon(), session=session)
    assert online == CheckResult(
        f"GET {server.url}/sipstatus/online", None, ("acme_alice", "acme_bob"), online.milliseconds
    )
    assert smart_phone.asked == (
        f"GET {server.url}/sipstatus/online?project_id=12345&token=…&withRspDoNotDisturbSips=false"
    )
    assert smart_phone.error is not None
    assert smart_phone.error.code is ErrorCode.FORBIDDEN
    assert (smart_phone.logins, speaking.error, speaking.logins) == ((), None, ("acme_bob",))
    assert all(result.milliseconds >= 0 for result in (online, smart_phone, speaking))


def test_check_reports_unreadable_answers_and_late_ones(session: Fetcher) -> None:
    may_answer = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> bytes:
        if which(asked) == ONLINE:
            may_answer.wait(timeout=60)
        return reply('{"data": []}')

    with ScriptedServer(script) as server:
        wanted = settings(server, online_from="sip")

        def codes(seconds: float) -> list[ErrorCode]:
            results = ringostat.check(wanted, deadline=soon(seconds), session=session)
            return [result.error.code for result in results if result.error]

        told, _ = with_time_enough(codes, lambda codes: ErrorCode.NOT_AN_ARRAY in codes)
        may_answer.set()
    assert told == [ErrorCode.TIMEOUT, ErrorCode.NOT_AN_ARRAY]


def test_check_reports_unfit_settings_as_one_result(session: Fetcher) -> None:
    (result,) = ringostat.check(SourceSettings("https://api.example", ""), deadline=soon(), session=session)
    assert result.error is not None
    assert result.error.code is ErrorCode.NO_KEY
    assert result.asked == ""


# ---- staff


STAFF = {
    "77": {
        "id": 5,
        "staffId": "77",
        "fio": " Alice  Example ",
        "email": "alice@acme.example",
        "phone": "380501112233",
        "extensionNumber": 101,
        "departments": [3, "4", {"id": 5, "name": "Sales "}, {"id": 6}, None],
        "status": 1,
        "directions": {
            "main": [{"direction": "acme_alice", "type": "sip"}, {"direction": "380501112233", "type": "number"}],
            "additional": [
                {"direction": " acme_alice_mob ", "type": "SIP"},
                {"direction": "acme_alice", "type": "sip"},
                {"direction": None, "type": "sip"},
                "nonsense",
            ],
        },
    },
    "78": {"fio": "Bob", "directions": []},
    "79": None,
    "80": {"staffId": 80, "directions": {"main": {"2": {"direction": "acme_dave", "type": "sip"}}}},
}


def staff_of(session: Fetcher, answer: object) -> list[StaffMember]:
    with ScriptedServer(always(reply(json.dumps(answer)))) as server:
        staff = ringostat.fetch_staff(settings(server), deadline=soon(), session=session)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["auth-key"]) == ("POST", "/api/json-rpc", KEY)
    assert json.loads(asked.body) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "getProjectStaffListAndDirections",
        "params": {"projectId": "12345", "departmentsFullFormat": True},
    }
    return staff


@pytest.mark.parametrize(
    "refused",
    [
        reply('{"error": "Unknown"}'),
        reply("no", "400 Bad Request"),
        reply("no", "500 Internal Server Error"),
        reply("<html>"),
        reply("[]"),
        reply('{"result": "?"}'),
    ],
)
def test_asks_for_numbers_of_departments_where_their_names_are_refused(session: Fetcher, refused: bytes) -> None:
    def script(asked: Asked, _sock: object) -> bytes:
        is_full = json.loads(asked.body)["params"]["departmentsFullFormat"]
        return refused if is_full else reply('{"result": {"78": {"fio": "Bob", "departments": [3]}}}')

    with ScriptedServer(script) as server:
        (bob,) = ringostat.fetch_staff(settings(server), deadline=soon(), session=session)
    assert bob.departments == ("3",)


@pytest.mark.parametrize("answer", ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", ""])
def test_asks_for_the_staff_only_once_where_the_key_or_the_network_is_the_fault(session: Fetcher, answer: str) -> None:
    script = (
        always(reply("no", answer)) if answer else always_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
    )
    with ScriptedServer(script) as server, pytest.raises(SourceError):
        ringostat.fetch_staff(settings(server), deadline=soon(), session=session)
    assert len(server.asked) == 1


def test_reads_the_staff_with_their_logins_in_order(session: Fetcher) -> None:
    alice, bob, dave = staff_of(session, {"jsonrpc": "2.0", "id": 1, "result": STAFF, "error": None})
    assert alice == StaffMember(
        staff_id="77",
        name="Alice Example",
        email="alice@acme.example",
        phone="380501112233",
        extension="101",
        departments=("3", "4", "Sales", "6"),
        sip_logins=("acme_alice", "acme_alice_mob"),
    )
    assert bob == ("78", "Bob", "", "", "", (), ())
    assert (dave.staff_id, dave.sip_logins) == ("80", ("acme_dave",))


def test_reads_the_staff_as_a_list_too_and_an_empty_one(session: Fetcher) -> None:
    assert staff_of(session, {"result": []}) == []
    assert [member.name for member in staff_of(session, {"result": [STAFF["77"], STAFF["78"]]})] == ["Alice Example"]


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (
            {"error": {"code": -32000, "message": "Access\ndenied"}},
            ErrorCode.REFUSED,
            "refused and said: Access denied.",
        ),
        ({"error": "No such project"}, ErrorCode.REFUSED, "refused and said: No such project."),
        ({"error": f"Bad key {KEY}"}, ErrorCode.REFUSED, "refused and said: Bad key …."),
        ({"error": {}}, ErrorCode.REFUSED, "refused and said: nothing."),
        ({"error": "x" * 5000}, ErrorCode.REFUSED, f"said: {'x' * 200}."),
        ([], ErrorCode.NOT_AN_OBJECT, "sent an array instead of an object"),
        ({"result": "?"}, ErrorCode.NOT_AN_OBJECT, "sent text as its result"),
        ({}, ErrorCode.NOT_AN_OBJECT, "sent null as its result"),
    ],
)
def test_a_refused_or_unknown_staff_list_is_an_error(
    session: Fetcher, answer: object, code: ErrorCode, says: str
) -> None:
    with pytest.raises(SourceError) as caught:
        staff_of(session, answer)
    assert caught.value.code is code
    assert caught.value.message.startswith("Asked for the staff list, the API ")
    assert says in caught.value.message


def test_the_staff_list_needs_the_project_id(session: Fetcher) -> None:
    with pytest.raises(SourceError, match="The project id in Ringostat is missing"):
        ringostat.fetch_staff(SourceSettings("https://api.example", KEY), deadline=soon(), session=session)


# ---- call log


def test_reads_the_call_log_in_the_projects_own_time(session: Fetcher) -> None:
    rows = [
        {
            "calldate": "2026-11-23 09:30:47",
            "caller": "380501112233",
            "dst": "380441112233",
            "disposition": "ANSWERED",
            "billsec": "63",
            "duration": 75,
            "call_type": "in",
            "uniqueid": "ua9_-1790775458.2139025",
            "connected_with": "acme_alice",
        },
        {"calldate": "2026-11-23T09:30:47+0300", "billsec": "-1", "duration": "9" * 30, "caller": None},
        {"calldate": "soon"},
        {},
        "nonsense",
    ]
    since = datetime(2026, 11, 23, 0, 0, tzinfo=KYIV)
    until = datetime(2026, 11, 23, 10, 0, 0, 999_999, tzinfo=UTC)
    with ScriptedServer(always(reply(json.dumps(rows)))) as server:
        full, sparse = ringostat.fetch_call_log(settings(server), since, until, deadline=soon(), session=session)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.headers["auth-key"]) == ("GET", "/calls/list", KEY)
    assert asked.query == {
        "export_type": "json",
        "from": "2026-11-23 00:00:00",
        "to": "2026-11-23 12:00:00",
        "fields": "calldate,caller,dst,disposition,billsec,duration,call_type,uniqueid,connected_with",
    }
    assert full == LoggedCall(
        calldate=datetime(2026, 11, 23, 9, 30, 47, tzinfo=KYIV),
        caller="380501112233",
        dst="380441112233",
        disposition="ANSWERED",
        billsec=timedelta(seconds=63),
        duration=timedelta(seconds=75),
        call_type="in",
        uniqueid="ua9_-1790775458.2139025",
        connected_with="acme_alice",
    )
    assert sparse.calldate.utcoffset() == timedelta(hours=3)
    assert (sparse.billsec, sparse.duration, sparse.caller) == (timedelta(0), timedelta(0), "")


def test_a_call_log_longer_than_one_answer_is_asked_for_in_halves(session: Fetcher) -> None:
    began = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)
    every = [began + timedelta(seconds=n // 2) for n in range(20_000)]  # two calls a second, 10,000 seconds long

    def script(asked: Asked, sock: socket.socket) -> bytes:
        first, last = (datetime.fromisoformat(asked.query[name]).replace(tzinfo=UTC) for name in ("from", "to"))
        found = [at for at in every if first <= at <= last][: ringostat.CALL_LOG_ROWS]
        return reply(json.dumps([{"calldate": f"{at:%Y-%m-%d %H:%M:%S}", "uniqueid": "x"} for at in found]))

    with ScriptedServer(script) as server:
        until = began + timedelta(seconds=9_999)
        calls = ringostat.fetch_call_log(settings(server), began, until, deadline=soon(60), session=session)
    assert [call.calldate for call in calls] == every
    assert len(server.asked) == 7


def test_a_call_log_that_is_no_array_is_an_error(session: Fetcher) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    with ScriptedServer(always(reply('{"error": "x"}'))) as server:
        with pytest.raises(SourceError, match="Asked for the call log, the API sent an object") as caught:
            ringostat.fetch_call_log(settings(server), now, now, deadline=soon(), session=session)
        assert caught.value.code is ErrorCode.NOT_AN_ARRAY
        assert (
            ringostat.fetch_call_log(settings(server), now, now - timedelta(1), deadline=soon(), session=session) == []
        )
    with pytest.raises(ValueError, match="aware"):
        ringostat.fetch_call_log(settings(server), now.replace(tzinfo=None), now, deadline=soon(), session=session)
