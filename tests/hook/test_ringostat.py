"""Ringostat's requests and events: what is understood and answered, sample by sample and rule by rule."""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from router.core.events import Disposition, EventKind
from router.hook.fields import CALL_ALIASES, EVENT_ALIASES, HookSettings, HookSettingsError, Question
from router.hook.formats import FORMATS
from router.hook.formats.ringostat import EVENT_KINDS, parse_call, parse_event, render_decision
from router.hook.wire import RawRequest
from tests.hook.sample_files import Sample, load_samples, told

SAMPLES = load_samples("ringostat")
CALLS = [sample for sample in SAMPLES if "call" in sample.sections]
EVENTS = [sample for sample in SAMPLES if "event" in sample.sections]
DEFAULTS = HookSettings()


def by_name(sample: Sample) -> str:
    return sample.name


def get(query: str, settings: HookSettings = DEFAULTS) -> Question:
    return parse_call(RawRequest("GET", query.encode()), settings)


def post(body: object, settings: HookSettings = DEFAULTS) -> Question:
    return parse_call(RawRequest("POST", content_type="application/json", body=orjson.dumps(body)), settings)


# ---- the samples


def test_there_are_samples_of_calls_and_of_events() -> None:
    assert len(CALLS) > 40
    assert len(EVENTS) > 7


@pytest.mark.parametrize("sample", CALLS, ids=by_name)
def test_a_call_is_understood_as_its_sample_says(sample: Sample) -> None:
    question = FORMATS["ringostat"].parse_call(sample.request, sample.settings)
    expected = dict(sample.expected)
    params: dict[str, str] = expected.pop("params", {})
    understood: dict[str, str] = expected.pop("understood", {})
    check_problems(told(question.problems), expected.pop("problems"))
    if expected.pop("all_params", False):
        assert question.call.params == params
    assert {name: question.call.params.get(name) for name in params} == params
    assert {name: question.understood.get(name) for name in understood} == understood
    fields = asdict(question.call)
    del fields["params"]
    assert fields == dict.fromkeys(CALL_ALIASES, "") | expected


@pytest.mark.parametrize("sample", CALLS, ids=by_name)
def test_a_call_is_answered_to_the_byte_as_its_sample_says(sample: Sample) -> None:
    question = FORMATS["ringostat"].parse_call(sample.request, sample.settings)
    assert FORMATS["ringostat"].render_decision(sample.destination, question, sample.settings) == sample.answer


@pytest.mark.parametrize("sample", EVENTS, ids=by_name)
def test_an_event_is_understood_as_its_sample_says(sample: Sample) -> None:
    event = FORMATS["ringostat"].parse_event(sample.request, sample.settings)
    expected = dict(sample.expected)
    check_problems(told(event.problems), expected.pop("problems"))
    nothing: dict[str, Any] = {
        **dict.fromkeys(("call_id", "step", "sip_login", "caller", "dialed", "direction", "disposition"), ""),
        **dict.fromkeys(("answered", "billsec", "duration", "waittime", "at"), None),
    }
    fields = asdict(event)
    del fields["params"], fields["problems"]
    assert fields == nothing | expected


def check_problems(problems: list[str], expected: list[str]) -> None:
    assert len(problems) == len(expected), problems
    for problem, part in zip(problems, expected, strict=True):
        assert part in problem


# ---- fields of a call


@pytest.mark.parametrize(("field", "alias"), [(f, a) for f, aliases in CALL_ALIASES.items() for a in aliases])
def test_each_alias_is_read_in_the_query_and_in_json(field: str, alias: str) -> None:
    value = "in" if field == "direction" else "380441112233"
    for question in (get(f"{alias}={value}"), post({alias: value})):
        assert getattr(question.call, field) == value
        assert question.understood[field].endswith(f" {alias}")


@pytest.mark.parametrize("spelling", ["call_id", "callId", "CALL_ID", "Call-Id", "callid", "call%20id"])
def test_case_and_separators_in_a_name_do_not_matter(spelling: str) -> None:
    assert get(f"{spelling}=1.1").call.call_id == "1.1"


@pytest.mark.parametrize("aliases", CALL_ALIASES.values(), ids=CALL_ALIASES.keys())
def test_an_earlier_alias_counts_in_whatever_order_they_are_sent(aliases: tuple[str, ...]) -> None:
    field = next(name for name, known in CALL_ALIASES.items() if known == aliases)
    sent = [(alias, f"38044111{place:04}") for place, alias in enumerate(aliases) if "." not in alias]
    for order in (sent, sent[::-1], sent[1:] + sent[:1]):
        question = get("&".join(f"{alias}={value}" for alias, value in order))
        assert getattr(question.call, field) == sent[0][1]


def test_two_spellings_of_one_alias_are_settled_the_same_way_in_any_order() -> None:
    pairs = ["call_id=a", "callId=b", "CALLID=c"]
    assert len({get("&".join(order)).call.call_id for order in itertools.permutations(pairs)}) == 1


def test_the_body_goes_before_the_query_and_the_query_before_the_headers() -> None:
    raw = RawRequest("POST", b"caller=380500000002", {"X-Caller": "380500000003"}, "", b"caller=380500000001")
    assert parse_call(raw, DEFAULTS).call.caller == "380500000001"
    assert parse_call(raw._replace(body=b""), DEFAULTS).call.caller == "380500000002"
    assert parse_call(raw._replace(body=b"", query=b""), DEFAULTS).call.caller == "380500000003"


def test_the_place_goes_before_the_alias() -> None:
    raw = RawRequest("POST", b"userfield=380500000002", body=b"client_number=380500000001")
    assert parse_call(raw, DEFAULTS).call.caller == "380500000001"


def test_an_unset_value_of_the_body_gives_way_to_the_query() -> None:
    raw = RawRequest("POST", b"caller=380500000002&utm_source=google", body=b"caller=&utm_source=-1")
    call = parse_call(raw, DEFAULTS).call
    assert call.caller == "380500000002"
    assert call.params == {"caller": "380500000002", "utm_source": "google"}


@pytest.mark.parametrize(
    "value",
    [
        *("", "-1", "(none)", "(direct)", "(not set)", "(Not Set)", "null", "None", "undefined", " ", "%00"),
        *("-1%0A", "%E2%80%AE-1"),
    ],
)
@pytest.mark.parametrize("field", CALL_ALIASES)
def test_what_says_nothing_is_never_a_value(field: str, value: str) -> None:
    alias = CALL_ALIASES[field][0]
    question = get(f"{alias}={value}")
    assert getattr(question.call, field) == ""
    assert alias in question.call.params


def test_a_minus_one_as_json_number_says_nothing() -> None:
    assert post({"uniqueid": -1, "call_id": "1.1"}).call.call_id == "1.1"


@pytest.mark.parametrize("value", ["{call_id}", "{{call_id}}", "${call_id}", "{{ call_id }}"])
def test_an_unfilled_placeholder_is_no_value_and_the_admin_is_told(value: str) -> None:
    question = post({"uniqueid": value})
    assert question.call.call_id == ""
    assert any("placeholder" in problem for problem in told(question.problems))


@pytest.mark.parametrize("name", ["id", "uuid", "from", "to"])
def test_a_plain_word_means_the_call_at_the_root_only(name: str) -> None:
    at_root, nested = post({name: "380441112233"}), post({"client": {name: "380441112233"}})
    assert at_root.understood
    assert not nested.understood
    assert nested.call.params == {f"client.{name}": "380441112233"}


def test_the_root_goes_before_nested_data_and_shallow_before_deep() -> None:
    nested = {"a": {"b": {"userfield": "380500000003"}, "client_number": "380500000002"}}
    assert post({**nested, "client_number": "380500000001"}).call.caller == "380500000001"
    assert post(nested).call.caller == "380500000002"


def test_an_id_keeps_no_control_characters() -> None:
    question = post({"uniqueid": "\x00a\r\nb\x1b[31m\u202ec", "step_forward": "1\x07"})
    assert question.call.call_id == "ab[31mc"
    assert question.call.step == "1"


def test_a_long_id_is_cut_and_keeps_its_difference() -> None:
    one, two = post({"uniqueid": "x" * 5_000 + "1"}), post({"uniqueid": "x" * 5_000 + "2"})
    assert len(one.call.call_id) == len(two.call.call_id) == 190
    assert one.call.call_id != two.call.call_id
    assert one.call.call_id == post({"uniqueid": "x" * 5_000 + "1"}).call.call_id


@pytest.mark.parametrize(
    ("sent", "direction"),
    [("in", "in"), ("IN", "in"), ("incoming", "in"), ("Outbound", "out"), ("transitin", "transitin")],
)
def test_the_direction_is_folded(sent: str, direction: str) -> None:
    assert get(f"call_type={sent}").call.direction == direction


def test_a_withheld_number_gives_way_to_a_number_that_was_sent() -> None:
    assert get("userfield=anonymous&client_number=380501112233").call.caller == "380501112233"


def test_a_sip_login_is_the_caller_when_no_number_was_sent() -> None:
    question = get("caller=acme_ann&uniqueid=1")
    assert question.call.caller == "acme_ann"


# ---- the project's own aliases


def test_an_added_alias_goes_before_the_built_in_ones_wherever_it_stands() -> None:
    settings = HookSettings(fields={"caller": ("cli", "hdr.from")})
    raw = RawRequest("POST", b"cli=380500000001", content_type="", body=b'{"userfield":"380500000002"}')
    assert parse_call(raw, settings).call.caller == "380500000001"
    assert post({"userfield": "380500000002", "hdr": {"from": "380500000003"}}, settings).call.caller == "380500000003"


def test_an_added_alias_loses_its_built_in_meaning() -> None:
    question = get("id=380501112233", HookSettings(fields={"caller": ("id",)}))
    assert question.call.caller == "380501112233"
    assert question.call.call_id == ""


def test_an_added_alias_is_read_in_headers_even_if_it_is_a_plain_word() -> None:
    raw = RawRequest("GET", headers={"X-Id": "1.1"})
    assert parse_call(raw, DEFAULTS).call.call_id == ""
    assert parse_call(raw, HookSettings(fields={"call_id": ("id",)})).call.call_id == "1.1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answer": "xml"}, "hook.answer: 'xml' is unknown; use one of auto, http, json, json-rpc"),
        ({"rpc_result": "list"}, "hook.rpc_result: 'list' is unknown; use one of object, string"),
        ({"key": ""}, "hook.key: '' is not a valid name; use 1 to 100 visible characters"),
        ({"fields": {"callr": ("cli",)}}, "hook.fields: 'callr' is not a field of a call; use one of call_id, caller,"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name_with_a_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(HookSettingsError) as refused:
        HookSettings(**settings)
    assert str(refused.value).startswith(message)
    assert message.startswith(f"hook.{refused.value.name}:")


def test_settings_do_not_show_their_password() -> None:
    assert "s3cret" not in repr(HookSettings(basic_auth="pbx:s3cret"))


# ---- parameters


def test_parameters_keep_everything_under_the_names_that_were_sent() -> None:
    question = get("uniqueid=1&Utm_Source=Google%20Ads&empty=&(weird)=x&answer=json")
    assert question.call.params == {"uniqueid": "1", "Utm_Source": "Google Ads", "empty": "", "(weird)": "x"}


def test_too_many_parameters_are_left_out_with_a_note_but_not_those_the_call_is_read_from() -> None:
    body = {f"p{place}": "x" for place in range(300)} | {"uniqueid": "1", "caller": "380501112233"}
    question = post(body)
    assert len(question.call.params) == 200
    assert question.call.params.keys() >= {"uniqueid", "caller", "p0"}
    assert any("left out" in problem for problem in told(question.problems))


def test_the_size_of_all_parameters_is_bounded() -> None:
    question = post({f"p{place}": "x" * 3_000 for place in range(20)} | {"uniqueid": "1"})
    assert sum(len(name) + len(value) for name, value in question.call.params.items()) <= 16_384
    assert question.call.params["uniqueid"] == "1"
    assert len(question.call.params["p0"]) == 2_000


# ---- answers


@pytest.mark.parametrize("answer", ["http", "json", "json-rpc"])
@pytest.mark.parametrize("request_form", ["http", "json", "json-rpc"])
def test_the_project_chooses_the_answer_whatever_the_request(answer: str, request_form: str) -> None:
    question = {
        "http": get("uniqueid=1"),
        "json": post({"uniqueid": "1"}),
        "json-rpc": post({"jsonrpc": "2.0", "id": 5, "params": {}}),
    }[request_form]
    body, content_type = render_decision("101", question, HookSettings(answer=answer, key="to"))
    request_id = 5 if request_form == "json-rpc" else None
    if answer == "http":
        assert (body, content_type) == (b"101", "text/plain; charset=utf-8")
    else:
        expected = {"to": "101"}
        assert content_type == "application/json"
        assert orjson.loads(body) == (
            expected if answer == "json" else {"jsonrpc": "2.0", "id": request_id, "result": expected}
        )


@pytest.mark.parametrize(
    ("query", "settings", "body"),
    [
        ("answer=json", {"answer": "http"}, b'{"destination":"101"}'),
        ("answer=http", {"answer": "json"}, b"101"),
        ("answer=auto", {"answer": "json"}, b"101"),
        ("answer=JSON&key=to", {}, b'{"to":"101"}'),
        ("key=to", {"answer": "json"}, b'{"to":"101"}'),
        ("answer=json-rpc&key=to", {}, b'{"jsonrpc":"2.0","id":null,"result":{"to":"101"}}'),
        ("answer=json-rpc", {"rpc_result": "string"}, b'{"jsonrpc":"2.0","id":null,"result":"101"}'),
        ("answer=json&key=%22%5C%C3%A9", {}, '{"\\"\\\\é":"101"}'.encode()),
    ],
)
def test_the_url_goes_before_the_project(query: str, settings: dict[str, str], body: bytes) -> None:
    chosen = HookSettings(**settings)  # type: ignore[arg-type]
    assert render_decision("101", get(query, chosen), chosen)[0] == body


@pytest.mark.parametrize("query", ["answer=xml", "answer=jsonrpc", "key=%20", "key=" + "k" * 101])
def test_wishes_in_the_url_that_mean_nothing_are_ignored_and_told(query: str) -> None:
    settings = HookSettings(answer="json")
    question = get(query, settings)
    assert render_decision("101", question, settings)[0] == b'{"destination":"101"}'
    assert any(problem.startswith("The URL's ") for problem in told(question.problems))
    assert query.partition("=")[0] in question.call.params


@pytest.mark.parametrize("request_id", ["7", "a", "", 0, -1, 2**63, 1.5, None, True, [1, "a"], {"a": 1}, '\u2028é"\\'])
def test_a_json_rpc_answer_has_the_request_s_id(request_id: object) -> None:
    question = post({"jsonrpc": "2.0", "id": request_id, "method": "m", "params": {"uniqueid": "1"}})
    body, _ = render_decision("101", question, DEFAULTS)
    assert orjson.loads(body) == {"jsonrpc": "2.0", "id": request_id, "result": {"destination": "101"}}


def test_a_json_rpc_request_without_id_is_answered_with_null() -> None:
    question = post({"jsonrpc": "2.0", "method": "m", "params": {"uniqueid": "1"}})
    assert render_decision("101", question, DEFAULTS)[0].startswith(b'{"jsonrpc":"2.0","id":null,')


@pytest.mark.parametrize(
    "body",
    [
        {"jsonrpc": "2.0", "id": 4, "uniqueid": "1.1"},
        {"id": 4, "method": "route", "params": {"uniqueid": "1.1"}},
        {"jsonrpc": "2.0", "id": 4, "method": "route", "params": None, "uniqueid": "1.1"},
    ],
    ids=["without params", "JSON-RPC 1.0", "params null"],
)
def test_a_json_rpc_request_is_known_by_its_mark_or_by_method_and_params(body: dict[str, object]) -> None:
    question = post(body)
    assert question.call.call_id == "1.1"
    answer, _ = render_decision("101", question, DEFAULTS)
    assert orjson.loads(answer) == {"jsonrpc": "2.0", "id": 4, "result": {"destination": "101"}}


def test_params_that_are_a_plain_value_are_left_out_with_a_note() -> None:
    question = post({"jsonrpc": "2.0", "id": 4, "method": "route", "params": "1.1"})
    assert question.form == "json-rpc"
    assert any("neither an object nor an array" in problem for problem in told(question.problems))


def test_a_json_rpc_id_is_never_taken_for_a_call_id() -> None:
    question = post({"jsonrpc": "2.0", "id": 17, "method": "m", "params": {"caller": "380501112233"}})
    assert question.call.call_id == ""
    assert "id" not in question.call.params


def test_parameters_beside_params_of_a_json_rpc_request_are_read_too() -> None:
    question = post({"jsonrpc": "2.0", "id": 1, "method": "m", "params": [], "uniqueid": "1.1"})
    assert question.call.call_id == "1.1"


def test_a_destination_with_half_a_surrogate_is_answered_all_the_same() -> None:
    for answer in ("http", "json", "json-rpc"):
        body, _ = render_decision("a\ud800", get("uniqueid=1"), HookSettings(answer=answer))
        assert b"a?" in body


# ---- events


@pytest.mark.parametrize("field", [name for name in EVENT_ALIASES if name != "event"])
def test_each_alias_of_an_event_is_read(field: str) -> None:
    values = {"disposition": "BUSY", "sip_login": "acme_ann", "at": "2026-11-23T12:00:00Z"}
    wanted = {"disposition": Disposition.BUSY, "sip_login": "acme_ann", "at": datetime(2026, 11, 23, 12, tzinfo=UTC)}
    for alias in EVENT_ALIASES[field]:
        raw = RawRequest("POST", body=orjson.dumps({alias: values.get(field, "7")}))
        assert getattr(parse_event(raw, DEFAULTS), field) == wanted.get(field, 7)


@pytest.mark.parametrize("name", EVENT_ALIASES["event"])
@pytest.mark.parametrize("word", EVENT_KINDS)
def test_each_word_for_an_event_is_known(name: str, word: str) -> None:
    for spelling in (word, word.upper(), word.replace("_", "-"), word.replace("_", "+")):
        event = parse_event(RawRequest("GET", f"{name}={spelling}&uniqueid=1".encode()), DEFAULTS)
        assert event.kind is EVENT_KINDS[word]
        assert event.problems == ()


def test_the_promised_words_for_events_are_known() -> None:
    promised = {
        EventKind.BEFORE_CALL: {"before_call"},
        EventKind.FORWARDING: {"forwarding", "ringing"},
        EventKind.PICKUP: {"pickup", "answered", "answer"},
        EventKind.AFTER_CALL: {"after_call", "ended", "end", "hangup"},
        EventKind.UNAVAILABLE: {"unavailable", "busy", "declined", "no_answer"},
    }
    for kind, words in promised.items():
        assert {EVENT_KINDS[word] for word in words} == {kind}


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *((word, EventKind.AFTER_CALL) for word in ("afterCall", "After-Call", "hang_up", "hangUp", "HANGUP")),
        *((word, EventKind.AFTER_CALL) for word in ("call.ended", "CallEnd", "onCallHangup")),
        *((word, EventKind.AFTER_CALL) for word in ("CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE")),
        *((word, EventKind.AFTER_CALL) for word in ("Cancelled", "canceled", "ABANDONED", "callFinished")),
        *((word, EventKind.PICKUP) for word in ("call-answered", "CHANNEL_ANSWER", "onCallConnected")),
        *((word, EventKind.BEFORE_CALL) for word in ("beforeCall", "before-call", "BEFORE CALL")),
        *((word, EventKind.PICKUP) for word in ("pick_up", "pickUp", "Pick-Up", "ANSWER")),
        *((word, EventKind.UNAVAILABLE) for word in ("noAnswer", "NOANSWER", "CHANUNAVAIL", "USER_BUSY", "DONTCALL")),
        ("CALL_REJECTED", EventKind.UNAVAILABLE),
    ],
)
def test_the_word_for_a_moment_is_read_however_it_is_joined(word: str, kind: EventKind) -> None:
    event = parse_event(RawRequest("POST", body=orjson.dumps({"event": word, "uniqueid": "1"})), DEFAULTS)
    assert (event.kind, event.problems) == (kind, ())


def test_a_caller_who_cancels_ends_the_call() -> None:
    event = parse_event(RawRequest("GET", b"event=CANCEL&uniqueid=1"), DEFAULTS)
    assert (event.kind, event.disposition) == (EventKind.AFTER_CALL, Disposition.CLIENT_NO_ANSWER)


def test_a_phone_is_told_as_it_was_sent() -> None:
    """A login may look like an address or a channel itself: the configuration says which it is."""
    for sent in ("ann@pbx.example", "PJSIP/ann-00000012", '"Ann" <sip:ann@pbx>;tag=1'):
        body = orjson.dumps({"event": "pickup", "connected_with": sent, "uniqueid": "1"})
        assert parse_event(RawRequest("POST", body=body), DEFAULTS).sip_login == sent


@pytest.mark.parametrize(
    ("query", "disposition"),
    [
        ("event=unavailable", Disposition.UNKNOWN),
        ("event=unavailable&disposition=DECLINE", Disposition.DECLINE),
        ("event=busy", Disposition.BUSY),
        ("event=Declined", Disposition.DECLINE),
        ("event=no-answer", Disposition.NO_ANSWER),
        ("event=FAILED", Disposition.FAILED),
    ],
)
def test_the_word_for_an_agent_who_did_not_take_the_call_says_why(query: str, disposition: Disposition) -> None:
    event = parse_event(RawRequest("GET", f"{query}&uniqueid=1&login=acme_ann".encode()), DEFAULTS)
    assert (event.kind, event.disposition, event.answered) == (EventKind.UNAVAILABLE, disposition, None)
    assert event.problems == ()


def test_an_event_word_that_nobody_knows_gives_way_to_one_in_the_url() -> None:
    raw = RawRequest("POST", b"event=pickup", body=b'{"event":"telegram","uniqueid":"1"}')
    assert parse_event(raw, DEFAULTS).kind is EventKind.PICKUP
    event = parse_event(raw._replace(query=b""), DEFAULTS)
    assert event.kind is EventKind.UNKNOWN
    assert any("'telegram'" in problem for problem in told(event.problems))


@pytest.mark.parametrize(
    ("sent", "disposition", "answered"),
    [
        ("ANSWERED", Disposition.ANSWERED, True),
        ("PROPER", Disposition.PROPER, True),
        ("REPEATED", Disposition.REPEATED, True),
        ("VOICEMAIL", Disposition.VOICEMAIL, False),
        ("NO ANSWER", Disposition.NO_ANSWER, False),
        ("NO+ANSWER", Disposition.NO_ANSWER, False),
        ("no_answer", Disposition.NO_ANSWER, False),
        ("NO-FORWARD", Disposition.NO_FORWARD, False),
        ("NO FORWARD", Disposition.NO_FORWARD, False),
        ("FAILED", Disposition.FAILED, False),
        ("BUSY", Disposition.BUSY, False),
        ("WRONG EXTENSION", Disposition.WRONG_EXTENSION, False),
        ("NO EXTENSION", Disposition.NO_EXTENSION, False),
        ("CLIENT NO ANSWER", Disposition.CLIENT_NO_ANSWER, False),
        ("FAILED FORBIDDEN DESTINATION", Disposition.FAILED_FORBIDDEN_DESTINATION, False),
        ("DECLINE", Disposition.DECLINE, False),
        ("IN PROGRESS", Disposition.IN_PROGRESS, None),
        ("CALLING", Disposition.CALLING, None),
        *((word, Disposition.ANSWERED, True) for word in ("ANSWER", "Answer", "completed")),
        *((word, Disposition.NO_ANSWER, False) for word in ("NOANSWER", "noAnswer", "NO_USER_RESPONSE", "19", "408")),
        *((word, Disposition.CLIENT_NO_ANSWER, False) for word in ("CANCEL", "ORIGINATOR_CANCEL", "487")),
        *((word, Disposition.BUSY, False) for word in ("USER_BUSY", "17", "486", "user busy")),
        *((word, Disposition.DECLINE, False) for word in ("DONTCALL", "TORTURE", "CALL_REJECTED", "declined", "603")),
        *((word, Disposition.FAILED, False) for word in ("CHANUNAVAIL", "CONGESTION", "INVALIDARGS", "480", "20")),
        *((word, Disposition.UNKNOWN, None) for word in ("NORMAL_CLEARING", "16")),
        ("MOON", Disposition.UNKNOWN, None),
        ("", Disposition.UNKNOWN, None),
    ],
)
def test_the_disposition_says_whether_somebody_talked(
    sent: str, disposition: Disposition, answered: bool | None
) -> None:
    body = orjson.dumps({"event": "after_call", "uniqueid": "1", "disposition": sent})
    event = parse_event(RawRequest("POST", body=body), DEFAULTS)
    assert (event.disposition, event.answered) == (disposition, answered)
    assert bool(event.problems) == (sent == "MOON")


@pytest.mark.parametrize(
    ("event", "disposition", "answered"),
    [
        ("pickup", "", True),
        ("pickup", "NO ANSWER", True),
        ("pickup", "VOICEMAIL", False),
        ("forwarding", "NO ANSWER", None),
        ("before_call", "", None),
        ("after_call", "", None),
    ],
)
def test_whether_somebody_talked_depends_on_the_moment_too(event: str, disposition: str, answered: bool | None) -> None:
    body = orjson.dumps({"event": event, "uniqueid": "1", "disposition": disposition})
    assert parse_event(RawRequest("POST", body=body), DEFAULTS).answered is answered


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"connected_with": "acme_ann"}, EventKind.PICKUP),
        ({"connected_with": "acme_ann", "disposition": "IN PROGRESS"}, EventKind.PICKUP),
        ({"disposition": "ANSWERED", "billsec": "3"}, EventKind.AFTER_CALL),
        ({"disposition": "BUSY", "duration": "1"}, EventKind.AFTER_CALL),
        ({"disposition": "BUSY"}, EventKind.UNKNOWN),
        ({"disposition": "BUSY", "connected_with": "acme_ann"}, EventKind.UNAVAILABLE),
        ({"disposition": "DECLINE", "login": "acme_ann"}, EventKind.UNAVAILABLE),
        ({"disposition": "NO ANSWER", "login": "acme_ann"}, EventKind.UNKNOWN),
        ({"connected_with": "acme_ann", "disposition": "ANSWERED"}, EventKind.UNKNOWN),
        ({"login": "acme_ann"}, EventKind.UNKNOWN),
        ({"connected_with": "-1"}, EventKind.UNKNOWN),
        ({"billsec": "3"}, EventKind.UNKNOWN),
        ({}, EventKind.UNKNOWN),
    ],
)
def test_what_happened_is_concluded_only_where_it_is_safe(fields: dict[str, str], kind: EventKind) -> None:
    body = orjson.dumps({"uniqueid": "1", "dst": "380441112233", **fields})
    assert parse_event(RawRequest("POST", body=body), DEFAULTS).kind is kind


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        *(("3", 3), ("3.9", 3), ("0", 0), ("01:05", 65), ("1:00:00", 3600), ("-1", None), ("-5", None), ("1e9", None)),
        *(("", None), ("NaN", None), ("inf", None), ("1:2:3:4", None), ("9" * 400, None), ("soon", None)),
    ],
)
def test_durations_are_whole_seconds_or_unknown(sent: str, seconds: int | None) -> None:
    body = orjson.dumps({"billsec": sent, "duration": sent, "waittime": sent})
    event = parse_event(RawRequest("POST", body=body), DEFAULTS)
    assert (event.billsec, event.duration, event.waittime) == (seconds,) * 3


@pytest.mark.parametrize(
    "sent",
    [
        *("2019-06-02T09:30:47+0300", "2019-06-02 09:30:47+03:00", "2019-06-02T06:30:47Z", "20190602T063047Z"),
        *("1559457047", "1559457047.0", "1559457047000", "1559457047000000", "1559457047000000000"),
        *("2019-06-02T09:30:47 0300", "2019-06-02T09:30:47 03:00"),
    ],
)
def test_a_moment_is_read_when_its_zone_is_known(sent: str) -> None:
    event = parse_event(RawRequest("POST", body=orjson.dumps({"calldate": sent})), DEFAULTS)
    assert event.at == datetime(2019, 6, 2, 6, 30, 47, tzinfo=UTC)


@pytest.mark.parametrize(
    "sent", ["2019-06-02 09:30:47", "2019-06-02", "yesterday", "12", "9" * 30, "0001-01-01T00:00+1400"]
)
def test_a_moment_without_zone_or_sense_is_unknown_and_told(sent: str) -> None:
    event = parse_event(RawRequest("POST", body=orjson.dumps({"calldate": sent})), DEFAULTS)
    assert event.at is None
    assert any("not a date with its time zone" in problem for problem in told(event.problems))


def test_a_project_may_name_the_fields_of_events_too() -> None:
    settings = HookSettings(fields={"sip_login": ("manager",), "event": ("stage",)})
    event = parse_event(RawRequest("GET", b"stage=pickup&manager=acme_ann&uniqueid=1"), settings)
    assert (event.kind, event.sip_login) == (EventKind.PICKUP, "acme_ann")


# ---- values without a meaning, and values that are not numbers


@pytest.mark.parametrize("value", ["%CALLID%", "<unknown>", "${CHANNEL(linkedid)}", "0", "null", "-", "{{call.id}}"])
@pytest.mark.parametrize("road", ["query", "form", "json", "header"])
def test_an_id_that_says_nothing_is_none_and_is_told(value: str, road: str) -> None:
    raw = {
        "query": RawRequest("GET", f"uniqueid={value}".encode()),
        "form": RawRequest("POST", body=f"uniqueid={value}".encode()),
        "json": RawRequest("POST", body=orjson.dumps({"uniqueid": value})),
        "header": RawRequest("GET", headers={"UNIQUEID": value}),
    }[road]
    question = parse_call(raw, DEFAULTS)
    assert (question.call.call_id, question.empty_id) == ("", value)
    assert any(f"The call id is {value!r}, which identifies no call" in problem for problem in told(question.problems))


def test_an_id_that_says_nothing_gives_way_to_one_that_does() -> None:
    question = post({"uniqueid": "%CALLID%", "cdr_id": "ua9_-1"})
    assert (question.call.call_id, question.empty_id) == ("ua9_-1", "")


@pytest.mark.parametrize("value", ["<sip:67.111.22.33>", "2026-11-29", "3.80671E+11", "380671112233,380501112233"])
def test_what_is_no_number_is_no_caller_and_is_told(value: str) -> None:
    question = post({"uniqueid": "1", "userfield": value})
    assert question.call.caller == ""
    assert any(re.search("body userfield is .*: not a complete phone", problem) for problem in told(question.problems))
    assert post({"userfield": value, "caller": "380671112233"}).call.caller == "380671112233"


@pytest.mark.parametrize("value", ["0", "00", "000", "00000", "No Caller ID", "sip:anonymous@anonymous.invalid", "-1"])
def test_a_withheld_caller_is_nobody_and_no_mistake(value: str) -> None:
    question = post({"uniqueid": "1", "userfield": value, "dst": "101"})
    assert question.call.caller == ""
    assert not any("not a complete phone number" in problem for problem in told(question.problems))
