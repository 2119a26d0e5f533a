"""docs/openapi.yaml is true: it has the application's paths and methods, and whatever is sent, an answer is one of its.

Two ways of sending: what the document describes, well and badly formed; and bytes that no client library would let out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from werkzeug.test import EnvironBuilder, run_wsgi_app

from tests.desk import Desk
from tests.hook.test_laws import bodies, content_types, names, values

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "docs" / "openapi.yaml").read_text("utf-8"))
METHODS = ("GET", "POST", "PUT", "DELETE")
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

# The same examples in every run; one desk for all of them; no deadline, for the machine may be busy.
BOUNDED = settings(
    max_examples=10,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture
def desk(migrated_sqlite_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_sqlite_url, LOG_LEVEL="ERROR")) as made:
        made.see("acme_alice", "acme_bob")
        yield made


@pytest.fixture
def desk_everywhere(migrated_url: str) -> Iterator[Desk]:
    with closing(Desk(migrated_url, LOG_LEVEL="ERROR")) as made:
        made.see("acme_alice", "acme_bob")
        yield made


def documented() -> set[tuple[str, str]]:
    return {
        (path, method.upper())
        for path, item in DOCUMENT["paths"].items()
        for method in item
        if method.upper() in METHODS
    }


def test_paths_and_methods_are_those_of_the_application(desk: Desk) -> None:
    rules = [rule for rule in desk.app.url_map.iter_rules() if not rule.endpoint.startswith("admin.")]
    real = {
        (str(rule).replace("<token>", "{token}"), method)
        for rule in rules
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    hook = {("/hook/{token}", method) for method in METHODS} | {("/hook/{token}/event", method) for method in METHODS}
    assert documented() == real | hook


def schema_of(*, generation: GenerationMode) -> Any:
    config = schemathesis.Config.from_dict({"generation": {"mode": generation.value}})
    return schemathesis.openapi.from_dict(DOCUMENT, config=config)


WELL_FORMED = schema_of(generation=GenerationMode.POSITIVE)
BADLY_FORMED = schema_of(generation=GenerationMode.NEGATIVE)


@WELL_FORMED.parametrize()  # type: ignore[untyped-decorator]
@BOUNDED
def test_what_the_document_describes_is_answered_as_it_says(case: Any, desk: Desk) -> None:
    if "token" in case.path_parameters and len(case.path_parameters["token"]) % 4:
        case.path_parameters["token"] = desk.token()  # of the rest, a stranger's
    case.validate_response(case.call(app=desk.app), checks=CHECKS)


@BADLY_FORMED.include(path_regex="^/hook/").parametrize()  # type: ignore[untyped-decorator]
@BOUNDED
def test_so_is_what_it_does_not_describe(case: Any, desk: Desk) -> None:
    case.path_parameters = {"token": desk.token()}
    response = case.call(app=desk.app)
    if case.method.upper() not in METHODS:
        assert response.status_code in {200, 405}
        return
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)


# ---- bytes of any kind


class Sent(NamedTuple):
    """A request as a WSGI server hands it over."""

    method: str
    query: bytes
    content_type: str
    headers: dict[str, str]
    body: bytes


def latin(data: bytes) -> str:
    return data.decode("latin-1")


def as_cp1251(pairs: list[tuple[str, str]]) -> bytes:
    """Raw, as an old PBX writes a query."""
    return "&".join(f"{name}={value}" for name, value in pairs).encode("cp1251", "ignore")


queries = st.binary(max_size=100) | st.lists(st.tuples(names, values | st.just("Іван Їжак")), max_size=6).map(as_cp1251)
sendings = st.builds(
    Sent,
    method=st.sampled_from(METHODS),
    query=queries,
    content_type=content_types.map(lambda text: latin(text.encode("utf-8", "replace"))),
    headers=st.dictionaries(
        st.sampled_from(["HTTP_USER_AGENT", "HTTP_X_CALLER", "HTTP_UNIQUEID", "HTTP_AUTHORIZATION", "HTTP_HOST"]),
        st.binary(max_size=40).map(latin),
        max_size=3,
    ),
    body=bodies,
)
DEEP = b'{"a":' * 13_000
HUGE = b'{"uniqueid":' + b"9" * 60_000 + b"}"
SURROGATE = b'{"uniqueid":"\\ud800","userfield":"\\udfff\\u0000"}'


def send(desk: Desk, path: str, sent: Sent) -> tuple[bytes, int]:
    builder = EnvironBuilder(path=path, method=sent.method)
    environ = builder.get_environ() | sent.headers
    environ |= {
        "QUERY_STRING": latin(sent.query),
        "CONTENT_TYPE": sent.content_type,
        "CONTENT_LENGTH": str(len(sent.body)),
        "wsgi.input": io.BytesIO(sent.body),
        "REMOTE_ADDR": "203.0.113.5",
    }
    chunks, status, _headers = run_wsgi_app(desk.app, environ)
    return b"".join(chunks), int(status[:3])


def examples(test: Callable[..., None]) -> Callable[..., None]:
    """The bombs that are known by name."""
    for body in (DEEP, b"[" * 65_000, HUGE, SURROGATE, b"\x00" * 100, b'"' * 1000):
        test = example(sent=Sent("POST", b"", "application/json", {}, body))(test)
    for query in (
        "userfield=0501112233&name=Їжак\x00".encode("cp1251"),
        b"uniqueid=%00%ff%0a%1b[31m",
        b"\x00\r\n=\xff",
    ):
        test = example(sent=Sent("GET", query, "\x00", {"HTTP_USER_AGENT": "\x00\xff"}, b""))(test)
    return test


@examples
@given(sent=sendings)
@settings(BOUNDED, max_examples=40)
def test_a_call_of_any_bytes_is_answered_by_a_decision(desk_everywhere: Desk, sent: Sent) -> None:
    answer, status = send(desk_everywhere, f"/hook/{desk_everywhere.token()}", sent)
    assert status == 200
    assert answer
    if answer[:1] in b"{[":
        json.loads(answer)


@examples
@given(sent=sendings)
@settings(BOUNDED, max_examples=40)
def test_an_event_of_any_bytes_is_heard(desk_everywhere: Desk, sent: Sent) -> None:
    assert send(desk_everywhere, f"/hook/{desk_everywhere.token()}/event", sent) == (b"OK\n", 200)


@examples
@given(sent=sendings)
@settings(BOUNDED, max_examples=30)
def test_of_any_bytes_a_stranger_learns_nothing(desk: Desk, sent: Sent) -> None:
    assert send(desk, "/hook/no-token-of-anybody", sent) == (b"Not found\n", 404)
