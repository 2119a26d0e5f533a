"""Bounded, safe HTTP: real sockets on loopback, servers that misbehave down to the byte."""

from __future__ import annotations

import gzip
import ipaddress
import logging
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from router.presence.fetch import MAX_BODY_BYTES, Arrival, Fetcher, Request, may_connect, parse_json, parse_retry_after
from router.presence.source import ErrorCode, SourceError
from tests.presence.scripted_server import (
    Asked,
    Script,
    ScriptedServer,
    always,
    always_and_close,
    reply,
    with_time_enough,
)

ANY = "0.0.0.0"  # noqa: S104 - nobody listens there: it is what "this host" is called
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PATIENCE = 60.0  # seconds that a busy machine may need for what takes a moment

Lookup = Callable[..., list[tuple[object, ...]]]


@pytest.fixture(scope="module")
def one_fetcher() -> Iterator[Fetcher]:
    with Fetcher(allow_private=True) as fetcher:
        yield fetcher


@pytest.fixture
def fetcher(one_fetcher: Fetcher) -> Iterator[Fetcher]:
    """What a process has: one for everything. After each test its helper threads are gone."""
    yield one_fetcher
    wait_until(lambda: not helper_threads())


def helper_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("presence-fetch")]


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come about in time"
        time.sleep(0.005)


def ask_one(fetcher: Fetcher, url: str, *, seconds: float = PATIENCE, token: str = "") -> bytes | SourceError:
    request = Request("the online logins", url, params={"token": token} if token else {}, secrets=(token,))
    (arrival,) = fetcher.ask([request], deadline=time.monotonic() + seconds)
    return arrival.outcome


def error_of(outcome: bytes | SourceError) -> SourceError:
    assert isinstance(outcome, SourceError)
    assert outcome.message.startswith("Asked for the online logins, the API ")
    assert outcome.remedy
    return outcome


# ---- side by side, over kept-alive connections


def test_asks_side_by_side_and_yields_answers_as_they_arrive(fetcher: Fetcher) -> None:
    all_are_here = threading.Barrier(3)  # nobody is answered before all three have asked
    second_was_read = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> bytes:
        all_are_here.wait(timeout=PATIENCE)
        if asked.path != "/1":
            assert second_was_read.wait(timeout=PATIENCE)
        return reply(asked.path)

    with ScriptedServer(script) as server:
        asked = [Request(f"thing {n}", f"{server.url}/{n}") for n in range(3)]
        arrivals = fetcher.ask(asked, deadline=time.monotonic() + PATIENCE)
        first = next(arrivals)
        second_was_read.set()
        assert (first.place, first.outcome) == (1, b"/1")
        assert sorted((arrival.place, arrival.outcome) for arrival in arrivals) == [(0, b"/0"), (2, b"/2")]


def test_keeps_connections_alive_between_polls(fetcher: Fetcher) -> None:
    together = threading.Barrier(2)

    def script(asked: Asked, sock: socket.socket) -> bytes:
        together.wait(timeout=PATIENCE)
        return reply("[]")

    with ScriptedServer(script) as server:
        for _ in range(5):
            asked = [Request("a", f"{server.url}/a"), Request("b", f"{server.url}/b")]
            arrivals = fetcher.ask(asked, deadline=time.monotonic() + PATIENCE)
            assert [arrival.outcome for arrival in arrivals] == [b"[]", b"[]"]
        assert (len(server.asked), server.connections) == (10, 2)


def test_a_kept_connection_that_the_server_drops_as_we_write_costs_no_reading(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> bytes | None:
        is_first_on_its_connection = [a.connection for a in server.asked].count(asked.connection) == 1
        return reply("[]") if is_first_on_its_connection else None

    with ScriptedServer(script) as server:
        assert [ask_one(fetcher, server.url) for _ in range(3)] == [b"[]"] * 3
        assert server.connections == 3


def test_posts_json_and_sends_the_headers_given(fetcher: Fetcher) -> None:
    with ScriptedServer(always(reply("{}"))) as server:
        request = Request("the staff list", f"{server.url}/rpc", headers={"Auth-key": "k"}, json={"id": 1})
        (arrival,) = fetcher.ask([request], deadline=time.monotonic() + PATIENCE)
    assert arrival.outcome == b"{}"
    (asked,) = server.asked
    assert (asked.method, asked.body, asked.headers["auth-key"]) == ("POST", b'{"id": 1}', "k")
    assert asked.headers["content-type"] == "application/json"


def test_reads_compressed_and_chunked_answers(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> bytes:
        if asked.path == "/gzip":
            return reply(gzip.compress(b'["a"]'), "200 OK", "Content-Encoding: gzip")
        return b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n["\r\n3\r\na"]\r\n0\r\n\r\n'

    with ScriptedServer(script) as server:
        assert ask_one(fetcher, f"{server.url}/gzip") == ask_one(fetcher, f"{server.url}/chunked") == b'["a"]'
        assert server.connections == 1


def test_takes_nothing_from_the_environment_and_keeps_no_cookies(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    with ScriptedServer(always(reply("[]", "200 OK", "Set-Cookie: project=acme"))) as server:
        assert ask_one(fetcher, server.url) == ask_one(fetcher, server.url) == b"[]"
    assert not {"cookie", "authorization"} & (server.asked[0].headers.keys() | server.asked[1].headers.keys())


# ---- what can be wrong with an answer


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        ("401 Unauthorized", ErrorCode.UNAUTHORIZED, "did not accept the Auth-key (HTTP 401)"),
        ("403 Forbidden", ErrorCode.FORBIDDEN, "denied access (HTTP 403)"),
        ("429 Too Many Requests", ErrorCode.RATE_LIMITED, "asked us to slow down (HTTP 429)"),
        ("500 Oops", ErrorCode.SERVER_ERROR, "failed on its own side (HTTP 500)"),
        ("503 Service Unavailable", ErrorCode.SERVER_ERROR, "failed on its own side (HTTP 503)"),
        ("404 Not Found", ErrorCode.BAD_STATUS, "(HTTP 404)"),
        ("204 No Content", ErrorCode.BAD_STATUS, "(HTTP 204)"),
    ],
)
def test_each_http_status_has_its_own_error(fetcher: Fetcher, status: str, code: ErrorCode, says: str) -> None:
    with ScriptedServer(always(reply("" if "204" in status else '["acme_ann"]', status))) as server:
        error = error_of(ask_one(fetcher, server.url))
    assert error.code is code
    assert says in error.message
    assert error.retry_after is None


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable", "403 Forbidden"])
def test_keeps_the_wait_that_the_server_asks_for(fetcher: Fetcher, status: str) -> None:
    with ScriptedServer(always(reply("", status, "Retry-After: 17"))) as server:
        assert error_of(ask_one(fetcher, server.url)).retry_after == timedelta(seconds=17)


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("0", timedelta(0)),
        (" 30 ", timedelta(seconds=30)),
        ("86400", timedelta(minutes=10)),
        ("9" * 5000, timedelta(minutes=10)),
        ("Mon, 23 Nov 2026 12:01:30 GMT", timedelta(seconds=90)),
        ("Mon, 23 Nov 2026 14:01:30 +0200", timedelta(seconds=90)),
        ("Monday, 23-Nov-26 12:01:30 GMT", timedelta(seconds=90)),
        ("Mon, 23 Nov 2026 11:59:00 GMT", timedelta(0)),
        ("Fri, 01 Jan 2100 00:00:00 GMT", timedelta(minutes=10)),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_reads_retry_after_as_seconds_or_as_a_date_within_bounds(value: str, wait: timedelta | None) -> None:
    assert parse_retry_after(value, now=NOW) == wait


@given(st.text(max_size=40) | st.text("MonNov 0123456789:,+-GT", max_size=40))
def test_any_retry_after_is_a_bounded_wait_or_none(value: str) -> None:
    wait = parse_retry_after(value, now=NOW)
    assert wait is None or timedelta(0) <= wait <= timedelta(minutes=10)


def test_follows_no_redirect_not_even_on_the_same_host(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> bytes | None:
        if asked.path != "/":
            return reply('["acme_ann"]')
        sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {server.url}/elsewhere?token=t0ken\r\n\r\n".encode())
        while True:  # a body without end, which nobody must read
            sock.sendall(b"x" * 65536)

    with ScriptedServer(script) as server:
        error = error_of(ask_one(fetcher, server.url, token="t0ken"))
        assert server.hung_up.wait(timeout=PATIENCE)
    assert error.code is ErrorCode.REDIRECTED
    assert "sent us to another address, http://127.0.0.1 (HTTP 302)" in error.message
    assert len(server.asked) == 1


@pytest.mark.parametrize("secret", ["t0ken", "T0KEN"])
def test_a_redirect_that_plays_the_token_back_does_not_get_it_into_the_message(fetcher: Fetcher, secret: str) -> None:
    with ScriptedServer(always(reply("", "301 Moved", f"Location: //{secret}.example/x"))) as server:
        error = error_of(ask_one(fetcher, server.url, token="T0ken"))
    assert error.code is ErrorCode.REDIRECTED
    assert "https://….example" in error.message


@pytest.mark.parametrize(
    "sent",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n["acme_ann"]',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\n["acme_ann"]\r\n',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n["acme_ann"]',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    ],
)
def test_half_an_answer_is_an_error_even_when_it_reads_as_json(fetcher: Fetcher, sent: bytes) -> None:
    with ScriptedServer(always_and_close(sent)) as server:
        error = error_of(ask_one(fetcher, server.url))
    assert error.code is ErrorCode.TRUNCATED
    assert "broke off in the middle" in error.message


@pytest.mark.parametrize("sent", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x01\x02\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
def test_what_is_no_http_answer_at_all_is_unreachable(fetcher: Fetcher, sent: bytes) -> None:
    with ScriptedServer(always_and_close(sent)) as server:
        assert error_of(ask_one(fetcher, server.url)).code is ErrorCode.UNREACHABLE


def test_endless_headers_are_refused(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            sock.sendall(b"X-More: yes\r\n")

    with ScriptedServer(script) as server:
        assert error_of(ask_one(fetcher, server.url)).code is ErrorCode.UNREACHABLE
        assert server.hung_up.wait(timeout=PATIENCE)


def test_a_broken_compressed_answer_is_an_error(fetcher: Fetcher) -> None:
    with ScriptedServer(always(reply(b"no gzip", "200 OK", "Content-Encoding: gzip"))) as server:
        error = error_of(ask_one(fetcher, server.url))
    assert error.code is ErrorCode.NOT_JSON
    assert "could not be unpacked" in error.message


# ---- bounded memory


def test_an_answer_announced_too_large_is_not_read(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> bytes:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode()

    with ScriptedServer(script) as server:
        error = error_of(ask_one(fetcher, server.url))  # it would be a time-out if we waited for the body
    assert error.code is ErrorCode.TOO_LARGE
    assert "more than 8 MiB" in error.message


def test_an_endless_answer_is_cut_off(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
        while True:
            sock.sendall(b'"acme_ann",' * 5000)

    with ScriptedServer(script) as server:
        assert error_of(ask_one(fetcher, server.url)).code is ErrorCode.TOO_LARGE
        assert server.hung_up.wait(timeout=PATIENCE)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_gzip_bomb_is_unpacked_only_up_to_the_limit(fetcher: Fetcher, layers: int) -> None:
    packer = zlib.compressobj(1, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(100)) + packer.flush()
    if layers == 2:
        bomb = gzip.compress(bomb, 1)
    encoding = f"Content-Encoding: {', '.join(['gzip'] * layers)}"
    with ScriptedServer(always(reply(bomb, "200 OK", encoding))) as server:
        tracemalloc.start()
        try:
            error = error_of(ask_one(fetcher, server.url))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert error.code is ErrorCode.TOO_LARGE
    assert peak < 3 * MAX_BODY_BYTES


@pytest.mark.parametrize("entries", [b'"acme_ann"', b"1", b"[]", b"{}"])
def test_a_million_entries_are_refused_before_they_are_parsed(entries: bytes) -> None:
    body = b"[" + b",".join([entries] * 1_000_000) + b"]"
    request = Request("the online logins", "https://api.example")
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="sent more than 100,000 entries") as caught:
            parse_json(request, body, max_items=100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert peak < 1_000_000


def test_parses_exactly_as_many_entries_as_allowed() -> None:
    request = Request("the online logins", "https://api.example")
    assert parse_json(request, b'["a","b","c"]', max_items=3) == ["a", "b", "c"]
    with pytest.raises(SourceError, match="more than 3 entries"):
        parse_json(request, b'["a","b","c","d"]', max_items=3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "sent an empty answer"),
        (b" \r\n", "sent an empty answer"),
        (b"<!DOCTYPE html><html>", "sent a web page (HTML) instead of data"),
        (b"\n  <html>", "sent a web page (HTML) instead of data"),
        (b"OK", "sent something that is not JSON"),
        (b'["acme_ann"', "sent something that is not JSON"),
        (b"['acme_ann']", "sent something that is not JSON"),
        (b"[NaN]", "sent something that is not JSON"),
        (b'["\\ud800"]', "sent something that is not JSON"),
        (b'["\xcf\xf0"]', "sent something that is not JSON"),
        (b"[" * 5_000_000, "sent something that is not JSON"),
    ],
)
def test_what_is_not_json_is_named_as_what_it_is(body: bytes, says: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_json(Request("the online logins", "https://api.example"), body, max_items=100_000)
    assert caught.value.code is ErrorCode.NOT_JSON
    assert says in caught.value.message
    assert caught.value.__context__ is None  # the parser's own error holds the whole body


def test_a_byte_order_mark_before_json_is_harmless() -> None:
    assert parse_json(Request("x", "https://api.example"), b"\xef\xbb\xbf[]", max_items=10) == []


# ---- bounded time


def trickling(first: bytes) -> Script:
    """Bytes without end; who believes in them never comes back."""
    never = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> None:
        sock.sendall(first)
        while not never.wait(0.01):  # until the client hangs up
            sock.sendall(b"x")

    return script


@pytest.mark.parametrize(
    "first",
    [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"],
    ids=["status line", "headers", "body"],
)
def test_trickling_bytes_buy_no_time(fetcher: Fetcher, first: bytes) -> None:
    with ScriptedServer(trickling(first)) as server:
        error = error_of(ask_one(fetcher, server.url, seconds=0.15))
        assert server.hung_up.wait(timeout=PATIENCE)  # the helper let go of the connection by itself
    assert error.code is ErrorCode.TIMEOUT
    assert "did not answer in time" in error.message


def test_a_system_without_threads_left_is_an_error_and_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Fetcher(allow_private=True, max_in_flight=1) as fetcher, ScriptedServer(always(reply("[]"))) as server:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            error = error_of(ask_one(fetcher, server.url))
        assert error.code is ErrorCode.UNREACHABLE
        assert "this server is out of threads" in error.message
        assert ask_one(fetcher, server.url) == b"[]"


def test_a_server_that_hangs_is_a_timeout_and_the_others_are_still_heard(fetcher: Fetcher) -> None:
    done = threading.Event()

    def script(asked: Asked, sock: socket.socket) -> bytes:
        if asked.path == "/hang":
            done.wait(timeout=PATIENCE)
        return reply("[]")

    with ScriptedServer(script) as server:
        asked = [Request("one", f"{server.url}/hang"), Request("two", f"{server.url}/answer")]

        def outcomes(seconds: float) -> list[Arrival]:
            arrivals = fetcher.ask(asked, deadline=time.monotonic() + seconds)
            return sorted(arrivals, key=lambda arrival: arrival.place)

        (hanging, answered), seconds = with_time_enough(outcomes, lambda arrivals: arrivals[1].outcome == b"[]")
        wait_until(lambda: not helper_threads())
        done.set()
    assert answered.outcome == b"[]"
    assert isinstance(hanging.outcome, SourceError)
    assert hanging.outcome.code is ErrorCode.TIMEOUT
    assert hanging.milliseconds >= int(seconds * 1000)


def test_a_kept_connection_has_time_again_for_the_next_request(fetcher: Fetcher) -> None:
    with ScriptedServer(always(reply("[]"))) as server:
        _, seconds = with_time_enough(
            lambda seconds: ask_one(fetcher, server.url, seconds=seconds), lambda answer: answer == b"[]"
        )
        first_ends, connections = time.monotonic() + seconds, server.connections
        wait_until(lambda: time.monotonic() > first_ends)
        assert ask_one(fetcher, server.url) == b"[]"
        assert server.connections == connections


def test_a_deadline_that_has_passed_asks_nobody(fetcher: Fetcher) -> None:
    with ScriptedServer(always(reply("[]"))) as server:
        assert error_of(ask_one(fetcher, server.url, seconds=-1)).code is ErrorCode.TIMEOUT
        assert server.connections == 0


def test_a_hanging_resolver_holds_up_neither_the_caller_nor_more_threads_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver_answers = threading.Event()

    def hang(*args: object, **kwargs: object) -> list[tuple[object, ...]]:
        resolver_answers.wait(timeout=PATIENCE)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    asked = [Request(f"thing {n}", "http://status.example") for n in range(5)]
    with Fetcher(max_in_flight=2) as fetcher:
        outcomes = [arrival.outcome for arrival in fetcher.ask(asked, deadline=time.monotonic() + 0.2)]
        assert [outcome.code for outcome in outcomes if isinstance(outcome, SourceError)] == [ErrorCode.TIMEOUT] * 5
        assert len(helper_threads()) == 2
        resolver_answers.set()
        wait_until(lambda: not helper_threads())
        error = error_of(ask_one(fetcher, "http://status.example"))  # and the places are free again
    assert error.code is ErrorCode.UNREACHABLE
    assert "DNS does not know its host name" in error.message


def test_a_caller_that_stops_listening_leaves_nothing_behind(fetcher: Fetcher) -> None:
    def script(asked: Asked, sock: socket.socket) -> bytes | None:
        return reply("[]") if asked.path == "/quick" else trickling(b"HTTP/1.1 200 OK\r\n\r\n")(asked, sock)

    with ScriptedServer(script) as server:
        asked = [Request("one", f"{server.url}/slow"), Request("two", f"{server.url}/quick")]
        with_time_enough(
            lambda seconds: next(fetcher.ask(asked, deadline=time.monotonic() + seconds)),
            lambda arrival: arrival.outcome == b"[]",
        )
        assert server.hung_up.wait(timeout=PATIENCE)


# ---- where we may connect


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", ANY, "169.254.169.254"),
        *("192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "100.100.100.200", "192.88.99.1"),
        *("::1", "::", "fe80::1", "fe80::1%2", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
        *("2001:db8::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not may_connect(address, allow_private=False)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "185.65.148.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert may_connect(address, allow_private=False)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1"])
def test_private_addresses_are_allowed_on_request(address: str) -> None:
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254", "224.0.0.1", ANY]
)
def test_metadata_and_multicast_are_refused_even_where_private_addresses_are_allowed(address: str) -> None:
    assert not may_connect(address, allow_private=True)


@given(st.ip_addresses())
def test_whatever_is_allowed_is_globally_routable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if may_connect(str(address), allow_private=False):
        assert may_connect(str(address), allow_private=True)
        assert address.is_global or address in ipaddress.ip_network("64:ff9b::/96")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", ANY, "LOCALHOST"]
)
def test_loopback_is_refused_by_the_address_really_meant_whatever_it_is_called(host: str) -> None:
    with ScriptedServer(always(reply("[]"))) as server, Fetcher() as fetcher:
        error = error_of(ask_one(fetcher, f"http://{host}:{server.port}"))
        assert server.connections == 0
    assert error.code is ErrorCode.ADDRESS_REFUSED
    assert "127.0.0.1:" not in error.message
    assert "PRESENCE_ALLOW_PRIVATE" in error.remedy


def resolving_to(*answers: list[tuple[str, int]]) -> Lookup:
    """A resolver that gives each of the answers once, in turn."""
    left = list(answers)

    def lookup(host: str, port: int, **kwargs: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in left.pop(0)]

    return lookup


def test_connects_to_the_address_that_was_checked_without_a_second_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(always(reply("[]"))) as server, Fetcher(allow_private=True) as fetcher:
        # A name that moves elsewhere after the check: only the first answer may count.
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to([("127.0.0.1", server.port)], [("10.255.255.1", 9)]))
        assert ask_one(fetcher, f"http://status.example:{server.port}/x") == b"[]"
    assert server.asked[0].headers["host"] == f"status.example:{server.port}"


def test_of_several_addresses_only_the_allowed_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(always(reply("[]"))) as server, Fetcher(allow_private=True) as fetcher:
        addresses = [("169.254.169.254", 80), ("127.0.0.1", server.port)]
        tried: list[object] = []

        def connect(sock: socket.socket, address: object) -> None:
            tried.append(address)
            real_connect(sock, address)  # type: ignore[arg-type]  # whatever came is passed on

        real_connect = socket.socket.connect
        monkeypatch.setattr("router.presence.fetch._BudgetSocket.connect", connect, raising=False)
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to(addresses))
        assert ask_one(fetcher, "http://status.example") == b"[]"
    assert tried == [("127.0.0.1", server.port)]


def test_tries_the_next_address_when_one_refuses(monkeypatch: pytest.MonkeyPatch, fetcher: Fetcher) -> None:
    with ScriptedServer(always(reply("[]"))) as server:
        addresses = [("127.0.0.1", closed_port()), ("127.0.0.1", server.port)]
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to(addresses))
        assert ask_one(fetcher, "http://status.example") == b"[]"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port: int = closed.getsockname()[1]
    return port


def test_a_refused_connection_is_unreachable(fetcher: Fetcher) -> None:
    error = error_of(ask_one(fetcher, f"http://127.0.0.1:{closed_port()}"))
    assert error.code is ErrorCode.UNREACHABLE
    assert "the connection was refused" in error.message


@pytest.mark.parametrize("url", ["http://", "http://[::1", "nonsense", "http://a..b/", f"http://{'a' * 70}.example/"])
def test_a_url_that_leads_nowhere_is_an_error_and_not_a_crash(fetcher: Fetcher, url: str) -> None:
    assert error_of(ask_one(fetcher, url)).code in {ErrorCode.BAD_SETTINGS, ErrorCode.UNREACHABLE}


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for "localhost" that is its own authority, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(days=1))
    builder = builder.not_valid_after(datetime.now(UTC) + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
        key, hashes.SHA256()
    )
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusting(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Fetcher(allow_private=True) as fetcher:
        yield fetcher


def test_speaks_tls_with_the_authorities_of_the_system_and_names_the_host(
    trusting: Fetcher, tls: ssl.SSLContext
) -> None:
    names: list[str | None] = []
    tls.sni_callback = lambda *told: names.append(told[1])  # socket, name, context
    with ScriptedServer(always(reply("[]")), tls=tls) as server:
        url = f"https://localhost:{server.port}"
        assert [ask_one(trusting, url) for _ in range(3)] == [b"[]"] * 3
        assert server.connections == 1
    assert names == ["localhost"]


def test_an_unknown_authority_is_a_tls_error(fetcher: Fetcher, tls: ssl.SSLContext) -> None:
    with ScriptedServer(always(reply("[]")), tls=tls) as server:
        error = error_of(ask_one(fetcher, f"https://localhost:{server.port}"))
    assert error.code is ErrorCode.TLS
    assert "its certificate is not valid (self-signed certificate)" in error.message
    assert server.asked == []


def test_a_certificate_for_another_name_is_a_tls_error(trusting: Fetcher, tls: ssl.SSLContext) -> None:
    with ScriptedServer(always(reply("[]")), tls=tls) as server:
        error = error_of(ask_one(trusting, f"https://127.0.0.1:{server.port}"))
    assert error.code is ErrorCode.TLS
    assert "mismatch" in error.message


def test_a_server_without_tls_is_a_tls_error(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer_in_plain() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer_in_plain)
        thread.start()
        error = error_of(ask_one(fetcher, f"https://127.0.0.1:{port}"))
        thread.join()
    assert error.code is ErrorCode.TLS


def test_trickling_bytes_buy_no_time_over_tls_either(trusting: Fetcher, tls: ssl.SSLContext) -> None:
    first = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
    with ScriptedServer(trickling(first), tls=tls) as server:
        error = error_of(ask_one(trusting, f"https://localhost:{server.port}", seconds=0.3))
        assert server.hung_up.wait(timeout=PATIENCE)
    assert error.code is ErrorCode.TIMEOUT


def test_a_handshake_that_hangs_is_a_timeout(fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = error_of(ask_one(fetcher, f"https://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2))
        wait_until(lambda: not helper_threads())
    assert error.code is ErrorCode.TIMEOUT


# ---- secrets


@pytest.mark.parametrize(
    "sent",
    [
        reply("[]"),
        reply("", "401 Unauthorized"),
        reply("", "302 Found", "Location: https://T0ken-secret.example/?token=T0ken-secret"),
        b"HTTP/1.1 200 OK\r\nbroken header\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[]",
        b"nonsense\r\n\r\n",
        b"",
    ],
)
def test_the_token_gets_into_no_log_error_or_traceback(
    fetcher: Fetcher, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer(always_and_close(sent)) as server:
        outcome = ask_one(fetcher, server.url, token="T0ken-secret")
        assert server.asked[0].query == {"token": "T0ken-secret"}
    told = caplog.text
    if isinstance(outcome, SourceError):
        told += "".join(traceback.format_exception(outcome)) + repr(outcome) + outcome.remedy
        assert outcome.__context__ is None
    assert "secret" not in told.lower()
