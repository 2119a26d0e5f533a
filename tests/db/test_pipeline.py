"""The connection that calls pass on: several statements in a round trip, and never a wait beyond the deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.engine import make_url

from router.core.model import OverflowOf
from router.db import pipeline as pipelines
from router.db.pipeline import Pipeline, StatementError, prepare_statements
from router.db.session import Database
from tests.db.slow_wire import Wire, wire_to

STATEMENTS = prepare_statements(
    {
        "BEGIN": "BEGIN",
        "COMMIT": "COMMIT",
        "ROLLBACK": "ROLLBACK",
        "KEEP": "SELECT set_config('test.kept', :text::text, false)",  # undone with the transaction
        "KEPT": "SELECT current_setting('test.kept', true)",
        "ECHO": "SELECT :text::text",
        "TWICE": "SELECT :text::text || :text::text, :other::text",
        "TYPES": "SELECT :flag::bool, :ids::int[], :number::bigint, :nothing::text IS NULL",
        "HEX": "SELECT encode(convert_to(:text::text, 'UTF8'), 'hex')",
        "REPEAT": "SELECT repeat('x', :length::int) FROM generate_series(1, :rows::int)",
        "DIVIDE": "SELECT 1 / :by::int",
        "NUMBER": "SELECT :text::text::int",
        "NOTHING": "SET LOCAL work_mem TO '4MB'",
        "SLEEP": "SELECT pg_sleep(:seconds::float)",
        "WHO": "SELECT pg_backend_pid()",
        "END": "SELECT pg_terminate_backend(pg_backend_pid())",
    }
)
PATIENT = 20


def soon(seconds: float = PATIENT) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def conninfo(postgres_server: str) -> str:
    database = Database(
        make_url(postgres_server).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    )
    database.dispose()
    return database.conninfo


@pytest.fixture
def pipeline(conninfo: str) -> Iterator[Pipeline]:
    pipeline = Pipeline(conninfo, STATEMENTS, soon())
    yield pipeline
    pipeline.close()


@pytest.fixture
def wire(conninfo: str) -> Iterator[Wire]:
    with wire_to(conninfo) as wire:
        yield wire


def is_usable(pipeline: Pipeline) -> bool:
    return pipeline.run([("ECHO", {"text": "still here"})], soon()) == [[(b"still here",)]]


# ---- what comes back


def test_gives_the_rows_of_each_statement_in_order(pipeline: Pipeline) -> None:
    steps = [("BEGIN", {}), ("KEEP", {"text": "a"}), ("NOTHING", {}), ("KEPT", {}), ("COMMIT", {})]
    assert pipeline.run(steps, soon()) == [[], [(b"a",)], [], [(b"a",)], []]


def test_a_parameter_may_stand_in_a_statement_more_than_once(pipeline: Pipeline) -> None:
    assert STATEMENTS["TWICE"].parameters == ("text", "other")
    assert pipeline.run([("TWICE", {"other": "b", "text": "a"})], soon()) == [[(b"aa", b"b")]]


def test_values_of_each_type_arrive(pipeline: Pipeline) -> None:
    values = {"flag": True, "ids": [1, -2, 2**31 - 1], "number": -(2**62), "nothing": None}
    assert pipeline.run([("TYPES", values)], soon()) == [[(b"t", b"{1,-2,2147483647}", b"-4611686018427387904", b"t")]]
    assert pipeline.run([("TYPES", values | {"flag": False, "ids": []})], soon())[0][0][:2] == (b"f", b"{}")
    assert pipeline.run([("ECHO", {"text": OverflowOf.RULE})], soon()) == [[(b"rule",)]]


@pytest.mark.parametrize(
    ("text", "kept"),
    [("Київ ☎", "Київ ☎"), ("a\0b\0", "ab"), ("\ud800x", "?x"), ("", ""), ("'; DROP TABLE kept; --", None)],
)
def test_any_text_arrives_but_what_postgresql_cannot_keep(pipeline: Pipeline, text: str, kept: str | None) -> None:
    expected = (text if kept is None else kept).encode()
    assert pipeline.run([("HEX", {"text": text})], soon()) == [[(expected.hex().encode(),)]]


def test_much_goes_both_ways_at_once(pipeline: Pipeline) -> None:
    """More than the buffers of both sides hold: neither may wait for the other to read."""
    block = "ä" * 200_000
    rows = pipeline.run([("ECHO", {"text": f"{n}{block}"}) for n in range(30)], soon())
    assert [len(row[0][0] or b"") for row in rows] == [len(str(n)) + 400_000 for n in range(30)]
    ((*all_rows,),) = pipeline.run([("REPEAT", {"length": 1000, "rows": 2000})], soon())
    assert len(all_rows) == 2000
    assert {row[0] for row in all_rows} == {b"x" * 1000}


def test_where_calls_pass_nothing_is_planned_anew(conninfo: str) -> None:
    plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'ECHO'"
    pipeline = Pipeline(conninfo, {**STATEMENTS, **prepare_statements({"PLANS": plans})}, soon())
    for _ in range(3):
        pipeline.run([("ECHO", {"text": "a"})], soon())
    assert pipeline.run([("PLANS", {})], soon()) == [[(b"3", b"0")]]
    pipeline.close()


# ---- errors of a statement


def test_a_statement_that_fails_is_told_with_its_code_and_the_next_work(pipeline: Pipeline) -> None:
    with pytest.raises(StatementError, match="division by zero") as caught:
        pipeline.run([("DIVIDE", {"by": 0})], soon())
    assert caught.value.sqlstate == "22012"
    assert is_usable(pipeline)


def test_after_an_error_the_rest_of_the_round_trip_is_not_done(pipeline: Pipeline) -> None:
    pipeline.run([("KEEP", {"text": "before"})], soon())
    with pytest.raises(StatementError, match="22012"):
        pipeline.run([("BEGIN", {}), ("KEEP", {"text": "after"}), ("DIVIDE", {"by": 0}), ("COMMIT", {})], soon())
    with pytest.raises(StatementError, match="25P02"):  # the transaction waits for its end
        pipeline.run([("KEPT", {})], soon())
    pipeline.run([("ROLLBACK", {})], soon())
    assert pipeline.run([("KEPT", {})], soon()) == [[(b"before",)]]


def test_the_first_of_several_errors_is_told(pipeline: Pipeline) -> None:
    with pytest.raises(StatementError) as caught:
        pipeline.run([("NUMBER", {"text": "one"}), ("DIVIDE", {"by": 0})], soon())
    assert caught.value.sqlstate == "22P02"


def test_a_statement_that_cannot_be_prepared_says_so_at_once(conninfo: str) -> None:
    with pytest.raises(StatementError, match="no_such_table"):
        Pipeline(conninfo, prepare_statements({"BAD": "SELECT * FROM no_such_table"}), soon())


# ---- the deadline


def test_does_not_wait_beyond_the_deadline_for_a_slow_statement(pipeline: Pipeline) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pipeline.run([("SLEEP", {"seconds": 30})], began + 0.2)
    assert 0.2 <= time.monotonic() - began < 10


def test_does_not_wait_beyond_the_deadline_for_a_server_that_stopped(wire: Wire) -> None:
    pipeline = Pipeline(wire.conninfo, STATEMENTS, soon())
    assert is_usable(pipeline)
    wire.fall_silent()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pipeline.run([("ECHO", {"text": "hello?"})], began + 0.2)
    assert 0.2 <= time.monotonic() - began < 10
    pipeline.close()


def test_does_not_wait_beyond_the_deadline_for_a_server_that_does_not_read(wire: Wire) -> None:
    pipeline = Pipeline(wire.conninfo, STATEMENTS, soon())
    wire.fall_silent()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        pipeline.run([("ECHO", {"text": "x" * 30_000_000})], began + 0.3)
    assert 0.3 <= time.monotonic() - began < 10
    pipeline.close()


def test_does_not_wait_beyond_the_deadline_to_connect(wire: Wire) -> None:
    """libpq's own connect_timeout is two seconds at least."""
    wire.fall_silent()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Pipeline(wire.conninfo, STATEMENTS, began + 0.2)
    assert 0.2 <= time.monotonic() - began < 1.9


def test_waits_not_at_all_for_a_deadline_that_has_passed(pipeline: Pipeline) -> None:
    with pytest.raises(TimeoutError):
        pipeline.run([("SLEEP", {"seconds": 1})], time.monotonic() - 1)


# ---- a lost connection


def test_a_connection_that_the_server_ends_is_lost(pipeline: Pipeline) -> None:
    with pytest.raises(psycopg.OperationalError):
        pipeline.run([("END", {}), ("ECHO", {"text": "too late"})], soon())


def test_a_connection_that_was_ended_while_idle_is_lost(conninfo: str, pipeline: Pipeline) -> None:
    ((pid,),) = pipeline.run([("WHO", {})], soon())[0]
    with psycopg.connect(conninfo, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [int(pid or 0)])
    with pytest.raises(psycopg.OperationalError):
        pipeline.run([("ECHO", {"text": "hello?"})], soon())


def test_a_wire_that_breaks_in_mid_answer_is_a_lost_connection(wire: Wire) -> None:
    pipeline = Pipeline(wire.conninfo, STATEMENTS, soon())
    threading.Timer(0.1, wire.cut).start()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        pipeline.run([("SLEEP", {"seconds": 15})], soon())
    assert time.monotonic() - began < 5
    with pytest.raises(psycopg.OperationalError):
        pipeline.run([("ECHO", {"text": "hello?"})], soon())
    pipeline.close()


def test_a_refused_connection_says_so_at_once(wire: Wire) -> None:
    wire.close()
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        Pipeline(wire.conninfo, STATEMENTS, soon())
    assert time.monotonic() - began < 5


def test_a_database_that_is_not_there_says_so_at_once(conninfo: str) -> None:
    absent = make_conninfo(conninfo, dbname="router_test_nobody_made_this")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        Pipeline(absent, STATEMENTS, soon())


def test_tries_the_next_address_when_the_first_refuses(conninfo: str, wire: Wire) -> None:
    with wire_to(conninfo) as closed:
        ports = ",".join(str(conninfo_to_dict(w.conninfo)["port"]) for w in (closed, wire))
    both = make_conninfo(wire.conninfo, host="127.0.0.1,127.0.0.1", hostaddr="127.0.0.1,127.0.0.1", port=ports)
    pipeline = Pipeline(both, STATEMENTS, soon())
    assert is_usable(pipeline)
    pipeline.close()


# ---- the server's name

Answer = Callable[[str], list[str]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Sets where names lead to from now on. Nothing is known from before."""
    monkeypatch.setattr(pipelines, "_addressed_before", {})

    def resolve(answer: Answer) -> None:
        def getaddrinfo(host: str, port: Any, *_: object, **__: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in answer(host)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


@pytest.fixture
def named(wire: Wire) -> str:
    """The wire by a name that only our resolver knows: whoever connects was given the address."""
    return make_conninfo(wire.conninfo, host="db.example", hostaddr="")


@pytest.fixture
def hang() -> Iterator[Answer]:
    end = threading.Event()
    yield lambda _: [str(end.wait(PATIENT))]
    end.set()


def fail(_host: str) -> list[str]:
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def refuse_to_look_up(host: str) -> list[str]:
    raise AssertionError(f"{host} is no name")


def is_reached(conninfo: str, deadline: float | None = None) -> bool:
    pipeline = Pipeline(conninfo, STATEMENTS, deadline or soon())
    try:
        return is_usable(pipeline)
    finally:
        pipeline.close()


def test_libpq_is_told_the_address_beside_the_name(resolver: Callable[[Answer], None], named: str) -> None:
    resolver(lambda host: {"db.example": ["127.0.0.1"]}[host])
    pipeline = Pipeline(named, STATEMENTS, soon())
    assert (pipeline._pq.host, pipeline._pq.hostaddr) == (b"db.example", b"127.0.0.1")
    pipeline.close()


def test_does_not_wait_beyond_the_deadline_for_a_name(
    resolver: Callable[[Answer], None], named: str, hang: Answer
) -> None:
    resolver(hang)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        Pipeline(named, STATEMENTS, began + 0.25)
    assert 0.25 <= time.monotonic() - began < 10


def test_an_answer_that_comes_too_late_serves_the_next(resolver: Callable[[Answer], None], named: str) -> None:
    answers = threading.Event()
    resolver(lambda _: ["127.0.0.1"] if answers.wait(PATIENT) else [])
    with pytest.raises(TimeoutError):
        Pipeline(named, STATEMENTS, soon(0.05))
    answers.set()
    while named not in pipelines._addressed_before:
        time.sleep(0.01)
    resolver(fail)
    assert is_reached(named)


def test_a_name_that_leads_nowhere_says_so(resolver: Callable[[Answer], None], named: str) -> None:
    resolver(fail)
    with pytest.raises(psycopg.OperationalError, match=r"db\.example.*name resolution"):
        Pipeline(named, STATEMENTS, soon())


@pytest.mark.parametrize("how", ["it fails", "it hangs"])
def test_a_server_goes_on_while_nobody_can_tell_its_address(
    resolver: Callable[[Answer], None], named: str, hang: Answer, how: str
) -> None:
    resolver(lambda _: ["127.0.0.1"])
    assert is_reached(named)
    resolver(fail if how == "it fails" else hang)
    assert is_reached(named, soon(8))


def test_a_name_that_leads_elsewhere_is_followed(resolver: Callable[[Answer], None], named: str) -> None:
    resolver(lambda _: ["127.0.0.1"])
    assert is_reached(named)
    resolver(lambda _: ["127.0.0.2"])
    with pytest.raises(psycopg.OperationalError, match=r"127\.0\.0\.2.*refused"):
        Pipeline(named, STATEMENTS, soon())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "two"}, {"host": "two,two", "hostaddr": "10.0.0.1,10.0.0.2", "port": ","}),
        ({"host": "two", "port": "1"}, {"host": "two,two", "hostaddr": "10.0.0.1,10.0.0.2", "port": "1,1"}),
        (
            {"host": "one,two,/tmp", "port": "1,2,3"},
            {"host": "one,two,two,/tmp", "hostaddr": "10.0.0.3,10.0.0.1,10.0.0.2,", "port": "1,2,2,3"},
        ),
        ({"host": "one,gone", "port": "1"}, {"host": "one", "hostaddr": "10.0.0.3", "port": "1"}),
        ({"host": "gone", "hostaddr": "10.0.0.9"}, {"host": "gone", "hostaddr": "10.0.0.9", "port": ""}),
        ({"host": "one", "sslmode": "verify-full"}, {"host": "one", "hostaddr": "10.0.0.3", "port": ""}),
    ],
)
def test_each_address_of_each_name_is_told_with_its_port(
    resolver: Callable[[Answer], None], given: dict[str, str], told: dict[str, str]
) -> None:
    names = {"one": ["10.0.0.3"], "two": ["10.0.0.1", "10.0.0.2", "10.0.0.1"]}
    resolver(lambda host: names.get(host) or fail(host))
    addressed = pipelines._addressed(make_conninfo(**given, dbname="router"), soon())
    assert conninfo_to_dict(addressed) == {**given, **told, "dbname": "router"}


@pytest.mark.parametrize("given", [{}, {"host": "/tmp"}, {"host": "/tmp", "port": "5433"}, {"host": "/a,/b"}])
def test_sockets_of_this_machine_are_left_as_they_are(
    resolver: Callable[[Answer], None], monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    for name in ("PGHOST", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)
    resolver(refuse_to_look_up)
    conninfo = make_conninfo(**given, dbname="router")
    assert pipelines._addressed(conninfo, soon()) == conninfo


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_number_is_looked_up_nowhere(resolver: Callable[[Answer], None], host: str) -> None:
    resolver(refuse_to_look_up)
    assert conninfo_to_dict(pipelines._addressed(make_conninfo(host=host), soon())).get("hostaddr", host) == host
