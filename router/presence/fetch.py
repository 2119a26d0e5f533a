"""Asks other people's HTTP servers: side by side, in bounded time and memory, never at an address that is not public.

Knows nothing of presence or databases. Whatever goes wrong comes out as a SourceError without a secret in it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import certifi
import orjson
import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import DecodeError, LocationParseError, ProtocolError, ReadTimeoutError, SSLError
from urllib3.util import Timeout

from router.presence.source import ErrorCode, SourceError

MAX_BODY_BYTES = 8 * 1024 * 1024  # after decompression
LONGEST_RETRY_AFTER = timedelta(minutes=10)

# How long the caller waits past the deadline for helpers that are just reporting their own, better worded, time-out.
_GRACE_SECONDS = 0.025
_CHUNK_BYTES = 64 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "router"}
_HOSTS_KEPT = 64  # hosts whose idle connections are kept

# urllib3 logs every URL, and the Smart Phone token stands in one of them. What matters comes back as SourceError.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a GET, or a POST of `json` when that is given.

    `what` is what people call the thing asked for ("the online logins"): it stands in every error message.
    `secrets` are blotted out of whatever text of the server gets into a message.
    """

    what: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, object] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def error(self, code: ErrorCode, says: str, retry_after: timedelta | None = None) -> SourceError:
        """A SourceError that reads: Asked for <what>, the API <says>."""
        return SourceError(code, f"Asked for {self.what}, the API {says}.", retry_after=retry_after)

    def quote(self, foreign: str) -> str:
        """Text that the server chose, fit for a message: one line, at most 200 characters, our secrets blotted out."""
        line = " ".join("".join(char if char.isprintable() else " " for char in foreign[:1000]).split())
        for secret in filter(None, self.secrets):
            line = re.sub(re.escape(secret), "…", line, flags=re.IGNORECASE)
        return line[:200]


class Arrival(NamedTuple):
    """What became of the request at `place` in the list: the body of a 200 answer, or why there is none.

    `milliseconds` is wall-clock time since the requests were asked.
    """

    place: int
    outcome: bytes | SourceError
    milliseconds: int


class Fetcher:
    """Keeps connections alive between requests and asks several requests at once, each in a thread of its own.

    One per process, made after any fork; safe to share between threads. `allow_private` lets it connect to loopback and
    private addresses. At most `max_in_flight` requests run at a time: what waits longer than its deadline for its turn
    is a time-out.
    """

    # Threads are made per request: at tens of microseconds each they cost nothing beside the request, nothing has to be
    # shut down, and as daemons a resolver that hangs cannot hold up the end of the process.

    def __init__(self, *, allow_private: bool = False, max_in_flight: int = 64) -> None:
        self._adapter = _Adapter(allow_private=allow_private, connections_per_host=max_in_flight)
        self._slots = threading.BoundedSemaphore(max_in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the idle connections. Requests still running end by themselves, at their deadline at the latest."""
        self._adapter.close()

    def ask(self, asked: Sequence[Request], *, deadline: float) -> Iterator[Arrival]:
        """Asks all of `asked` at once and yields each outcome as it arrives; every request gets exactly one.

        `deadline` is an instant of time.monotonic(): whatever the servers do, the last outcome is yielded within about
        25 ms of it. The helper threads end at the deadline too, closing their sockets; only one that waits for the
        system's DNS resolver stays until that gives up (and counts as in flight until then). A caller that stops
        iterating early leaves the others to end on their own.
        """
        began = time.monotonic()
        arrivals: queue.SimpleQueue[tuple[int, bytes | SourceError]] = queue.SimpleQueue()
        for place, request in enumerate(asked):
            self._start(arrivals, place, request, deadline)
        waiting = set(range(len(asked)))
        while waiting:
            try:
                place, outcome = arrivals.get(timeout=max(0.0, deadline + _GRACE_SECONDS - time.monotonic()))
            except queue.Empty:
                break
            waiting.discard(place)
            yield Arrival(place, outcome, round((time.monotonic() - began) * 1000))
        for place in sorted(waiting):
            milliseconds = round((time.monotonic() - began) * 1000)
            yield Arrival(place, _late(asked[place]), milliseconds)

    def _start(
        self,
        arrivals: queue.SimpleQueue[tuple[int, bytes | SourceError]],
        place: int,
        request: Request,
        deadline: float,
    ) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0 or not self._slots.acquire(timeout=remaining):
            arrivals.put((place, _late(request)))
            return

        def run() -> None:
            try:
                arrivals.put((place, self._outcome(request, deadline)))
            finally:
                self._slots.release()

        try:
            threading.Thread(target=run, name=f"presence-fetch-{place}", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            self._slots.release()
            arrivals.put((place, request.error(ErrorCode.UNREACHABLE, "was not asked: this server is out of threads")))

    def _outcome(self, request: Request, deadline: float) -> bytes | SourceError:
        # Returned, not raised: what requests raises holds the URL and with it the token, and would travel along as the
        # error's context into logs and error trackers.
        try:
            return self._exchange(request, deadline)
        except Exception as exc:  # noqa: BLE001 - the waiting caller must hear of any failure at all
            return _explain(request, exc)

    def _exchange(self, request: Request, deadline: float) -> bytes:
        prepared = requests.Request(
            method="GET" if request.json is None else "POST",
            url=request.url,
            params=dict(request.params),
            headers={**_HEADERS, **request.headers},
            json=request.json,
        ).prepare()
        try:
            response = self._send(prepared, deadline)
        except requests.ConnectionError as exc:
            if not _was_hung_up(exc):
                raise
            # A kept-alive connection that the server closed just as we wrote to it. All our requests only read,
            # so one more try is harmless.
            response = self._send(prepared, deadline)
        with contextlib.closing(response):
            _check_status(request, response)
            return _read_body(response)

    def _send(self, prepared: requests.PreparedRequest, deadline: float) -> requests.Response:
        # The adapter alone: a Session would add proxies and passwords from the environment, keep one project's cookies
        # for the next, and read the whole body of a redirect even when told not to follow it.
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _FailedError(ErrorCode.TIMEOUT, "did not answer in time")
        # The budget of each socket below makes `total` bound the exchange as a whole, not each single read. requests
        # documents urllib3's Timeout for its adapters; the type stubs lag.
        return self._adapter.send(prepared, stream=True, timeout=Timeout(total=remaining))  # type: ignore[arg-type]


# ---- where we may connect

# Beyond what the ipaddress module calls private or reserved in every release of Python that we run on.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's platform address, in public space but answered by the host
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata is among them
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 with a local prefix: leads anywhere
        "2002::/16",  # 6to4: carries an IPv4 address, and nobody needs it
        "fec0::/10",  # site-local
    )
)
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("168.63.129.16/32", "192.0.0.192/32", "100.100.100.200/32", "fd00:ec2::254/128", "fd20:ce::254/128")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def may_connect(address: str, *, allow_private: bool) -> bool:
    """May we connect to this IP address (as text)? IPv4 inside IPv6 counts as the IPv4 address.

    With `allow_private`: loopback and private networks too, but still not link-local (cloud metadata services, which
    hand out credentials), multicast or "this host" addresses.
    """
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:  # how hosts with IPv6 alone reach IPv4
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.is_multicast or ip.is_link_local or ip.is_unspecified or _is_in(ip, _METADATA):
        return False
    if allow_private:
        return True
    return ip.is_global and not ip.is_reserved and not _is_in(ip, _NEVER_PUBLIC)


def _is_in(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
    networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> bool:
    return any(ip.version == network.version and ip in network for network in networks)


def _connect(host: str, port: int, seconds: float, *, allow_private: bool) -> socket.socket:
    """A connection to one of the host's addresses, found once and checked here, so that no second look-up can differ.

    Several addresses share the time: one that swallows packets leaves some for the next.
    """
    ends = time.monotonic() + seconds
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _FailedError(ErrorCode.UNREACHABLE, "could not be found: DNS does not know its host name") from None
    allowed = [entry for entry in found if may_connect(str(entry[4][0]), allow_private=allow_private)]
    if not allowed:
        # Which address it was stays unsaid: the names of an inner network are none of a tenant's business.
        raise _FailedError(
            ErrorCode.ADDRESS_REFUSED, "was not asked: its host name leads to a private or reserved network address"
        )
    failure = "could not be reached"
    code = ErrorCode.UNREACHABLE
    for tried, (family, kind, protocol, _, address) in enumerate(allowed):
        share = (ends - time.monotonic()) / (len(allowed) - tried)
        if share <= 0:
            break
        sock = _BudgetSocket(family, kind, protocol)
        try:
            sock.settimeout(share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except TimeoutError:
            code, failure = ErrorCode.TIMEOUT, "did not take the connection in time"
            sock.close()
        except ConnectionRefusedError:
            code, failure = ErrorCode.UNREACHABLE, "could not be reached: the connection was refused"
            sock.close()
        except OSError as exc:
            code, failure = ErrorCode.UNREACHABLE, f"could not be reached: {exc.strerror or 'no connection'}"
            sock.close()
        else:
            sock.settimeout(max(0.001, ends - time.monotonic()))
            return sock
    raise _FailedError(code, failure)


class _BudgetSocket(socket.socket):
    """A socket whose time-out bounds all reads together until it is set again, so that trickling bytes buy no time."""

    _ends: float = float("inf")

    def settimeout(self, value: float | None, /) -> None:
        self._ends = float("inf") if value is None else time.monotonic() + value
        super().settimeout(value)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if self._ends != float("inf"):
            remaining = self._ends - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("the time for this exchange is over")
            super().settimeout(remaining)
        return super().recv_into(*args, **kwargs)


class _BudgetTLSSocket(_BudgetSocket, ssl.SSLSocket):
    """The same over TLS; the handshake's time-out already bounds it as a whole."""


class _Adapter(HTTPAdapter):
    """requests' transport with checked addresses, budgeted sockets and one TLS context for all connections."""

    def __init__(self, *, allow_private: bool, connections_per_host: int) -> None:
        self._allow_private = allow_private
        super().__init__(pool_connections=_HOSTS_KEPT, pool_maxsize=connections_per_host)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        context = ssl.create_default_context()  # the system's authorities, or those of SSL_CERT_FILE
        context.load_verify_locations(certifi.where())  # slim images have none of their own
        context.sslsocket_class = _BudgetTLSSocket
        manager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, ssl_context=context, **pool_kwargs)
        manager.pool_classes_by_scheme = _pool_classes(allow_private=self._allow_private)
        self.poolmanager = manager

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: object) -> None:
        """Leaves the context as it was made; requests would load the authorities again for each request."""


def _pool_classes(*, allow_private: bool) -> dict[str, type[HTTPConnectionPool]]:
    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self._dns_host, self.port, _seconds(self.timeout), allow_private=allow_private)

    class TLSConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self._dns_host, self.port, _seconds(self.timeout), allow_private=allow_private)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class TLSPool(HTTPSConnectionPool):
        ConnectionCls = TLSConnection

    return {"http": PlainPool, "https": TLSPool}


def _seconds(timeout: object) -> float:
    return float(timeout) if isinstance(timeout, int | float) else 1.0


# ---- what came back


class _FailedError(Exception):
    """A failure that we understood ourselves. No OSError on purpose: urllib3 lets it through as it is."""

    def __init__(self, code: ErrorCode, says: str, retry_after: timedelta | None = None) -> None:
        super().__init__(says)
        self.code = code
        self.says = says
        self.retry_after = retry_after


def _check_status(request: Request, response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    now = datetime.now(UTC)
    retry_after = parse_retry_after(response.headers.get("Retry-After", ""), now=now)
    if status == 401:
        failed = _FailedError(ErrorCode.UNAUTHORIZED, "did not accept the Auth-key (HTTP 401)", retry_after)
    elif status == 403:
        failed = _FailedError(ErrorCode.FORBIDDEN, "denied access (HTTP 403)", retry_after)
    elif status == 429:
        failed = _FailedError(ErrorCode.RATE_LIMITED, "asked us to slow down (HTTP 429)", retry_after)
    elif status >= 500:
        failed = _FailedError(ErrorCode.SERVER_ERROR, f"failed on its own side (HTTP {status})", retry_after)
    elif 300 <= status < 400:
        target = request.quote(_origin(response.headers.get("Location", "")))
        says = f"sent us to another address, {target or 'unnamed'} (HTTP {status}), and redirects are not followed"
        failed = _FailedError(ErrorCode.REDIRECTED, says)
    else:
        failed = _FailedError(ErrorCode.BAD_STATUS, f"gave an answer that is none (HTTP {status})", retry_after)
    raise failed


def _origin(location: str) -> str:
    """The part of a redirect's target that is worth showing."""
    with contextlib.suppress(ValueError):
        split = urlsplit(location)
        if split.hostname:
            return f"{split.scheme or 'https'}://{split.hostname}"
        return split.path
    return ""


def parse_retry_after(value: str, *, now: datetime) -> timedelta | None:
    """The wait that a Retry-After header asks for, seconds or an HTTP date, between 0 and 10 minutes; None: unreadable.

    RFC 9110, section 10.2.3.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(LONGEST_RETRY_AFTER, timedelta(seconds=int(value))) if len(value) <= 9 else LONGEST_RETRY_AFTER
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:  # "-0000", which RFC 5322 gives for UTC of unknown place
        at = at.replace(tzinfo=UTC)
    return max(timedelta(0), min(LONGEST_RETRY_AFTER, at - now))


def _read_body(response: requests.Response) -> bytes:
    too_large = _FailedError(ErrorCode.TOO_LARGE, f"sent more than {MAX_BODY_BYTES // 1024 // 1024} MiB")
    announced = response.headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and (len(announced) > 12 or int(announced) > MAX_BODY_BYTES):
        raise too_large
    body = bytearray()
    # Decompressed in steps: a small answer that unpacks to gigabytes is noticed after the first megabytes.
    while chunk := response.raw.read(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise too_large
    return bytes(body)


def parse_json(request: Request, body: bytes, *, max_items: int) -> object:
    """The JSON value in `body`. Refused before parsing when it could hold more than `max_items` values.

    Raises SourceError: not_json, too_large.
    """
    # Each value but the first stands behind a comma, and nesting is bounded by the parser: counting commas bounds the
    # memory that parsing can take. A string with very many commas is refused too; no login or name has them.
    if body.count(b",") >= max_items:
        raise request.error(ErrorCode.TOO_LARGE, f"sent more than {max_items:,} entries")
    with contextlib.suppress(orjson.JSONDecodeError):  # whose text holds the whole body
        value: object = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
        return value
    start = body[:200].strip().lower()
    if not start:
        says = "sent an empty answer"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        says = "sent a web page (HTML) instead of data"
    else:
        says = "sent something that is not JSON"
    raise request.error(ErrorCode.NOT_JSON, says)


def _late(request: Request) -> SourceError:
    return request.error(ErrorCode.TIMEOUT, "did not answer in time")


def _was_hung_up(exc: requests.ConnectionError) -> bool:
    cause = exc.args[0] if exc.args else None
    return isinstance(cause, ProtocolError) and any(isinstance(arg, ConnectionError) for arg in cause.args)


def _explain(request: Request, exc: Exception) -> SourceError:
    """Our own words for whatever was raised. The libraries' texts are left out: URLs with secrets stand in them."""
    match exc:
        case _FailedError():
            return request.error(exc.code, exc.says, exc.retry_after)
        case requests.exceptions.SSLError() | SSLError():
            return request.error(ErrorCode.TLS, f"could not prove who it is: {_tls_reason(exc)}")
        case requests.Timeout() | ReadTimeoutError():
            return _late(request)
        case ProtocolError():  # while reading the body
            return request.error(ErrorCode.TRUNCATED, "broke off in the middle of its answer")
        case DecodeError():
            return request.error(ErrorCode.NOT_JSON, "sent an answer that could not be unpacked")
        case requests.ConnectionError():
            return request.error(ErrorCode.UNREACHABLE, "closed the connection without a proper HTTP answer")
        case requests.exceptions.InvalidURL() | LocationParseError() | ValueError():
            return request.error(ErrorCode.BAD_SETTINGS, "could not be asked: its address is not a valid URL")
        case _:
            return request.error(ErrorCode.UNREACHABLE, f"could not be asked ({type(exc).__name__})")


def _tls_reason(exc: BaseException) -> str:
    seen: BaseException | None = exc
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not valid ({seen.verify_message.rstrip('.')})"
        seen = seen.__cause__ or seen.__context__
    return "no secure connection (TLS) came about"
