"""What docs/asterisk.md and docs/kamailio.md set up is what the hook understands: their snippets are filled in as the
PBX would, and read."""

from __future__ import annotations

import re
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest

from router.configuration import check, load
from router.core.events import CallEvent, Disposition, EventKind
from router.hook.fields import HookSettings, Question
from router.hook.formats.ringostat import parse_call, parse_event
from router.hook.wire import RawRequest
from router.presence.fetch import Fetcher
from router.presence.source import Reading, SourceError, SourceSettings
from router.presence.sources import ringostat
from tests.presence.scripted_server import ScriptedServer, reply

ASTERISK = (Path(__file__).parents[1] / "docs" / "asterisk.md").read_text(encoding="utf-8")
UKRAINE = HookSettings(country="UA")


# ---- Asterisk


def blocks_in(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)


def filled_in(text: str, variables: dict[str, str]) -> str:
    """The text as Asterisk makes it of its variables and functions, the innermost first."""
    while found := re.search(r"\$\{(?:(URIENCODE|FILTER)\((?:\+0-9,)?([^${}]*)\)|([^${}]*))\}", text):
        function, argument, name = found.groups()
        value = variables[name] if name else quote(argument, safe="") if function == "URIENCODE" else argument
        text = text.replace(found[0], value)
    return text


def requests_in(snippet: str, variables: dict[str, str]) -> list[RawRequest]:
    """Each CURL of the snippet, as it would be sent."""
    urls = re.findall(r"=\$\{CURL\(\$\{ROUTER\}(.*)\)\}\)$", snippet, re.MULTILINE)
    found = [filled_in(url, variables).partition(",") for url in urls]
    kind = "application/json" if "application/json" in snippet else "application/x-www-form-urlencoded"
    return [
        RawRequest("POST", url.partition("?")[2].encode(), content_type=kind, body=body.encode())
        if body
        else RawRequest("GET", url.partition("?")[2].encode())
        for url, _, body in found
    ]


CALL = {"CALL_ID": "1795976602.0", "CALLERID(num)": "+380671112233", "EXTEN": "0441234567", "STEP": "2"}
DIALPLAN = next(block for block in blocks_in(ASTERISK, "ini") if block.startswith("[globals]"))
QUESTIONS = [DIALPLAN, *(block for block in blocks_in(ASTERISK, "ini") if block.startswith(" same =>"))]


def question(snippet: str) -> Question:
    return parse_call(requests_in(snippet, {**CALL, **dict.fromkeys(EVENT, "")})[0], UKRAINE)


EVENT = {"ARG1": "", "ARG2": "", "ARG3": "", "ARG4": "", "CALL_TYPE": "in"}


def event(*arguments: str) -> CallEvent:
    args = {f"ARG{n}": value for n, value in enumerate(arguments, 1)}
    return parse_event(requests_in(DIALPLAN, {**CALL, **EVENT, **args})[1], UKRAINE)


@pytest.mark.parametrize("snippet", QUESTIONS, ids=["GET", "form", "JSON"])
def test_each_of_asterisk_s_questions_is_read_without_a_problem(snippet: str) -> None:
    asked = question(snippet)
    assert asked.problems == ()
    call = asked.call
    assert (call.call_id, call.step, call.direction) == ("1795976602.0", "2", "in")
    assert (call.caller, call.dialed) == ("380671112233", "380441234567")
    assert (asked.answer or asked.form) == "http", "the dialplan reads plain text"


def test_asterisk_s_events_are_read_without_a_problem() -> None:
    told = {
        EventKind.BEFORE_CALL: event("before_call", "ann"),
        EventKind.PICKUP: event("pickup", "ann"),
        EventKind.UNAVAILABLE: event("unavailable", "ann", "BUSY"),
        EventKind.AFTER_CALL: event("after_call", "ann", "ANSWER", "42"),
    }
    for kind, read in told.items():
        assert (read.kind, read.call_id, read.sip_login, read.problems) == (kind, "1795976602.0", "ann", ())
    assert told[EventKind.UNAVAILABLE].disposition is Disposition.BUSY
    assert (told[EventKind.AFTER_CALL].answered, told[EventKind.AFTER_CALL].billsec) == (True, 42)


@pytest.mark.parametrize("dialstatus", ["BUSY", "NOANSWER", "CONGESTION", "CHANUNAVAIL"])
def test_whatever_dial_ends_with_ends_the_offer(dialstatus: str) -> None:
    told = event("unavailable", "ann", dialstatus)
    assert told.kind is EventKind.UNAVAILABLE
    assert told.disposition.is_refusal


def test_asterisk_s_configuration_can_be_applied_and_rings_as_long_as_the_dialplan() -> None:
    (text,) = blocks_in(ASTERISK, "yaml")
    read = load(text, {"PRESENCE_KEY": "secret"}, filename="acme.yaml")
    assert check(read) == []
    assert re.findall(r"^RING=(\d+)", DIALPLAN, re.MULTILINE) == re.findall(r"ring_seconds: (\d+),", text)


def test_asterisk_s_script_gives_the_lists_that_presence_is_read_from() -> None:
    ari = {
        "/ari/endpoints/PJSIP": [
            {"resource": "ann", "state": "online"},
            {"resource": "bob", "state": "offline"},
        ],
        "/ari/channels": [
            {"name": "PJSIP/ann-0000001f", "state": "Up"},
            {"name": "PJSIP/carol-00000020", "state": "Ringing"},
        ],
    }
    with ScriptedServer(lambda asked, _: reply(orjson.dumps(ari[asked.path]).decode())) as server:
        script: dict[str, Any] = {}
        (code,) = blocks_in(ASTERISK, "python")
        exec(code.rpartition("\n\n\n")[0], script)  # noqa: S102 - our own document
        script["ARI"] = server.url + "/ari"
        serving = ThreadingHTTPServer(("127.0.0.1", 0), script["Handler"])
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        try:
            with Fetcher(allow_private=True) as session:
                url = f"http://127.0.0.1:{serving.server_port}"
                read = ringostat.read(
                    SourceSettings(api_url=url, auth_key="secret"), deadline=time.monotonic() + 60, session=session
                )
                with pytest.raises(SourceError):
                    ringostat.read(
                        SourceSettings(api_url=url, auth_key="wrong"), deadline=time.monotonic() + 60, session=session
                    )
        finally:
            serving.shutdown()
            serving.server_close()
    assert read == Reading(online=frozenset({"ann"}), speaking=frozenset({"ann"}))


# ---- Kamailio

KAMAILIO = (Path(__file__).parents[1] / "docs" / "kamailio.md").read_text(encoding="utf-8")
CONFIGURATION = next(block for block in blocks_in(KAMAILIO, "kamailio") if block.startswith("#!KAMAILIO"))
KAMAILIO_QUESTIONS = [CONFIGURATION, *(block for block in blocks_in(KAMAILIO, "kamailio") if block.startswith(" "))]
DIALOG = {
    "ci": "1-9869@127.0.0.2",
    "fU": "+380671112233",
    "oU": "0441234567",
    "avp(step)": "2",
    "dlg(callid)": "1-9869@127.0.0.2",
}


def requests_of_kamailio(snippet: str, variables: dict[str, str]) -> list[RawRequest]:
    """Each http_client_query of the snippet, as it would be sent."""

    def value_of(match: re.Match[str]) -> str:
        return quote_plus(variables[match[1]]) if match[1] else variables[match[2]]

    def filled(text: str) -> str:
        return re.sub(r"\$(?:\(([\w()]+)\{s\.urlencode\.param\}\)|([a-z_]+\(\w+\)|[a-zA-Z]+))", value_of, text)

    sent = []
    for text in re.findall(r"http_client_query\((.*)\);$", snippet, re.MULTILINE):
        quoted = re.findall(r"\"([^\"]*)\"|'([^']*)'", text)
        url, *body = [filled(double or single) for double, single in quoted[:-1]]  # the last takes the answer
        kind = body[1].partition(": ")[2] if len(body) > 1 else "application/x-www-form-urlencoded"
        query = url.partition("?")[2].encode()
        sent.append(RawRequest("POST", query, {}, kind, body[0].encode()) if body else RawRequest("GET", query))
    return sent


def event_of_kamailio(event: str, to: str, result: str = "", seconds: str = "") -> CallEvent:
    told = {"var(event)": event, "dlg_var(to)": to, "dlg_var(result)": result, "var(seconds)": seconds}
    variables = {**DIALOG, **told, "dlg_var(direction)": "in"}
    return parse_event(requests_of_kamailio(CONFIGURATION, variables)[1], UKRAINE)


@pytest.mark.parametrize("snippet", KAMAILIO_QUESTIONS, ids=["GET", "form", "JSON"])
def test_each_of_kamailio_s_questions_is_read_without_a_problem(snippet: str) -> None:
    asked = parse_call(requests_of_kamailio(snippet.partition("route[EVENT]")[0], DIALOG)[0], UKRAINE)
    assert asked.problems == ()
    call = asked.call
    assert (call.call_id, call.step, call.direction) == ("1-9869@127.0.0.2", "2", "in")
    assert (call.caller, call.dialed) == ("380671112233", "380441234567")
    assert (asked.answer or asked.form) == "http", "the configuration reads plain text"


def test_kamailio_s_events_are_read_without_a_problem() -> None:
    told = {
        EventKind.BEFORE_CALL: event_of_kamailio("before_call", "ann", "CALLING"),
        EventKind.PICKUP: event_of_kamailio("pickup", "ann", "ANSWER"),
        EventKind.UNAVAILABLE: event_of_kamailio("unavailable", "ann", "486"),
        EventKind.AFTER_CALL: event_of_kamailio("after_call", "ann", "ANSWER", "42"),
    }
    for kind, read in told.items():
        assert (read.kind, read.call_id, read.sip_login, read.problems) == (kind, "1-9869@127.0.0.2", "ann", ())
    assert told[EventKind.UNAVAILABLE].disposition is Disposition.BUSY
    assert (told[EventKind.AFTER_CALL].answered, told[EventKind.AFTER_CALL].billsec) == (True, 42)


@pytest.mark.parametrize("result", ["404", "408", "480", "486", "503", "600", "603", "CHANUNAVAIL"])
def test_whatever_a_phone_of_kamailio_answers_ends_the_offer(result: str) -> None:
    told = event_of_kamailio("unavailable", "ann", result)
    assert told.kind is EventKind.UNAVAILABLE
    assert told.disposition.is_refusal


def test_kamailio_s_configuration_can_be_applied_and_rings_as_long_as_the_phones() -> None:
    (text,) = blocks_in(KAMAILIO, "yaml")
    assert check(load(text, {"PRESENCE_KEY": "secret"}, filename="acme.yaml")) == []
    rings = re.findall(r"^#!define RING_MS (\d+)$", CONFIGURATION, re.MULTILINE)
    assert rings == [f"{seconds}000" for seconds in re.findall(r"ring_seconds: (\d+),", text)]
