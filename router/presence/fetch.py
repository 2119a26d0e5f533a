"""Send requests to other HTTP servers: in parallel, in bounded time and memory, never to a non-public address.

Knows nothing of presence or databases. Every failure becomes a SourceError without a secret in it.
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

# How long to wait past the deadline for the threads' own timeout errors, which say more.
_GRACE_SECONDS = 0.025
_CHUNK_BYTES = 64 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "router"}
_HOSTS_KEPT = 64  # hosts whose idle connections are kept

# urllib3 logs every URL, and one of them holds the Smart Phone token. Errors are raised as SourceError.
logging.getLogger("urllib3").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Request:
    """One request: a GET, or a POST of `json` when that is given.

    `what`: what is asked for ("the online logins"), for error messages. `secrets`: removed from the server's text in
    error messages.
    """

    what: str
    url: str
    params: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: Mapping[str, object] | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def error(self, code: ErrorCode, says: str, retry_after: timedelta | None = None) -> SourceError:
        """Return a SourceError that reads: Asked for <what>, the API <says>."""
        return SourceError(code, f"Asked for {self.what}, the API {says}.", retry_after=retry_after)

    def quote(self, foreign: str) -> str:
        """Return the server's text for a message: one line, at most 200 characters, without our secrets."""
        line = " ".join("".join(char if char.isprintable() else " " for char in foreign[:1000]).split())
        for secret in filter(None, self.secrets):
            line = re.sub(re.escape(secret), "…", line, flags=re.IGNORECASE)
        return line[:200]


class Arrival(NamedTuple):
    """The result of the request at `place` in the list: the body of a 200 answer, or an error.

    `milliseconds`: wall-clock time since the requests were sent.
    """

    place: int
    outcome: bytes | SourceError
    milliseconds: int


class Fetcher:
    """Sends several requests at once, each in a thread of its own, over connections that are kept alive.

    One per process, made after any fork; safe to share between threads. `allow_private` lets it connect to loopback and
    private addresses. At most `max_in_flight` requests run at a time: one that waits past its deadline for its turn has
    timed out.
    """

    # A thread per request costs tens of microseconds and needs no shutdown. A daemon thread does not keep the process
    # alive while the DNS resolver hangs.

    def __init__(self, *, allow_private: bool = False, max_in_flight: int = 64) -> None:
        self._adapter = _Adapter(allow_private=allow_private, connections_per_host=max_in_flight)
        self._slots = threading.BoundedSemaphore(max_in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections. Running requests end by themselves, at their deadline at the latest."""
        self._adapter.close()

    def ask(self, asked: Sequence[Request], *, deadline: float) -> Iterator[Arrival]:
        """Send all requests at once and yield each result as it arrives; every request gets exactly one.

        `deadline` is an instant of time.monotonic(): whatever the servers do, the last result is yielded within about
        25 ms of it. The threads end at the deadline too and close their sockets; only one that waits for the system's
        DNS resolver stays until that gives up (and counts as in flight until then). A caller that stops iterating early
        leaves the others to end on their own.
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
        # Returned, not raised: the library's exceptions hold the URL with the token. As the context of our error they
        # would get into logs and error trackers.
        try:
            return self._exchange(request, deadline)
        except Exception as exc:  # noqa: BLE001 - the waiting caller needs a result of any failure
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
            # The server closed a kept-alive connection just as we used it. All our requests only read, so another try
            # does no harm.
            response = self._send(prepared, deadline)
        with contextlib.closing(response):
            _check_status(request, response)
            return _read_body(response)

    def _send(self, prepared: requests.PreparedRequest, deadline: float) -> requests.Response:
        # Without a Session, which would add proxies and passwords from the environment, keep one project's cookies for
        # the next, and read the whole body of a redirect even without following it.
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise _FailedError(ErrorCode.TIMEOUT, "did not answer in time")
        # With the budget sockets below, `total` bounds the whole exchange and not each read. By the documentation of
        # requests its adapters take urllib3's Timeout; its type stubs do not know it.
        return self._adapter.send(prepared, stream=True, timeout=Timeout(total=remaining))  # type: ignore[arg-type]


# ---- addresses that we may connect to

# Networks that the ipaddress module does not call private or reserved in every Python release that we support.
_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's platform address, in public space but answered by the host
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata is among them
        "192.88.99.0/24",  # 6to4 relays
        "64:ff9b:1::/48",  # NAT64 with a local prefix: may lead to any IPv4 address
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
    """Return whether we may connect to this IP address (as text). IPv4 inside IPv6 counts as the IPv4 address.

    With `allow_private`: loopback and private networks too, but still not link-local (cloud metadata services, which
    hand out credentials), multicast or "this host" addresses.
    """
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:  # hosts with IPv6 only reach IPv4 addresses this way
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip.is_multicast or ip.is_link_local or ip.is_unspecified or any(ip in network for network in _METADATA):
        return False
    is_public = ip.is_global and not ip.is_reserved and not any(ip in network for network in _NEVER_PUBLIC)
    return allow_private or is_public


def _connect(host: str, port: int, seconds: float, *, allow_private: bool) -> socket.socket:
    """Return a connection to one of the host's addresses. The name is resolved once, and that result is checked.

    Several addresses share the time, so that one that does not respond leaves time for the next.
    """
    ends = time.monotonic() + seconds
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _FailedError(ErrorCode.UNREACHABLE, "could not be found: DNS does not know its host name") from None
    allowed = [entry for entry in found if may_connect(str(entry[4][0]), allow_private=allow_private)]
    if not allowed:
        # The message does not name the address: a tenant must not learn addresses of our network.
        raise _FailedError(
            ErrorCode.ADDRESS_REFUSED, "was not asked: its host name leads to a private or reserved network address"
        )
    failed = _FailedError(ErrorCode.UNREACHABLE, "could not be reached")
    for tried, (family, kind, protocol, _, address) in enumerate(allowed):
        share = (ends - time.monotonic()) / (len(allowed) - tried)
        if share <= 0:
            break
        sock = _BudgetSocket(family, kind, protocol)
        try:
            sock.settimeout(share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(address)
        except OSError as exc:
            sock.close()
            failed = _failed_connection(exc)
        else:
            sock.settimeout(max(0.001, ends - time.monotonic()))
            return sock
    raise failed


def _failed_connection(exc: OSError) -> _FailedError:
    if isinstance(exc, TimeoutError):
        return _FailedError(ErrorCode.TIMEOUT, "did not take the connection in time")
    reason = "the connection was refused" if isinstance(exc, ConnectionRefusedError) else exc.strerror
    return _FailedError(ErrorCode.UNREACHABLE, f"could not be reached: {reason or 'no connection'}")


class _BudgetSocket(socket.socket):
    """A socket whose timeout bounds all reads together until it is set again, so that slow bytes do not extend it."""

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
    """A _BudgetSocket over TLS. The timeout already bounds the handshake as a whole."""


class _Adapter(HTTPAdapter):
    """The transport of requests with checked addresses, budgeted sockets and one TLS context for all connections."""

    def __init__(self, *, allow_private: bool, connections_per_host: int) -> None:
        self._allow_private = allow_private
        super().__init__(pool_connections=_HOSTS_KEPT, pool_maxsize=connections_per_host)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        context = ssl.create_default_context()  # the system's authorities, or those of SSL_CERT_FILE
        context.load_verify_locations(certifi.where())  # slim images have no authorities
        context.sslsocket_class = _BudgetTLSSocket
        manager = PoolManager(num_pools=connections, maxsize=maxsize, block=block, ssl_context=context, **pool_kwargs)
        manager.pool_classes_by_scheme = _pool_classes(allow_private=self._allow_private)
        self.poolmanager = manager

    def cert_verify(self, conn: Any, url: str, verify: bool | str, cert: object) -> None:
        """Leave the context as it is; requests would load the authorities again for each request."""


def _pool_classes(*, allow_private: bool) -> dict[str, type[HTTPConnectionPool]]:
    def connect(self: HTTPConnection) -> socket.socket:
        seconds = float(self.timeout) if isinstance(self.timeout, int | float) else 1.0
        return _connect(self._dns_host, self.port, seconds, allow_private=allow_private)

    def pool(base: type[HTTPConnectionPool], connection: type[HTTPConnection]) -> type[HTTPConnectionPool]:
        return type(
            base.__name__, (base,), {"ConnectionCls": type("Connection", (connection,), {"_new_conn": connect})}
        )

    return {"http": pool(HTTPConnectionPool, HTTPConnection), "https": pool(HTTPSConnectionPool, HTTPSConnection)}


# ---- what came back


class _FailedError(Exception):
    """A known failure. Not an OSError, so that urllib3 lets it through unchanged."""

    def __init__(self, code: ErrorCode, says: str, retry_after: timedelta | None = None) -> None:
        super().__init__(says)
        self.code = code
        self.says = says
        self.retry_after = retry_after


_UNEXPECTED = (ErrorCode.BAD_STATUS, "answered with an unexpected status")
_STATUSES = {
    401: (ErrorCode.UNAUTHORIZED, "did not accept the Auth-key"),
    403: (ErrorCode.FORBIDDEN, "denied access"),
    429: (ErrorCode.RATE_LIMITED, "asked us to slow down"),
}


def _check_status(request: Request, response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if 300 <= status < 400:
        target = request.quote(_origin(response.headers.get("Location", "")))
        says = f"sent us to another address, {target or 'unnamed'} (HTTP {status}), and redirects are not followed"
        raise _FailedError(ErrorCode.REDIRECTED, says)
    other = (ErrorCode.SERVER_ERROR, "failed on its own side") if status >= 500 else _UNEXPECTED
    code, says = _STATUSES.get(status, other)
    retry_after = parse_retry_after(response.headers.get("Retry-After", ""), now=datetime.now(UTC))
    raise _FailedError(code, f"{says} (HTTP {status})", retry_after)


def _origin(location: str) -> str:
    """Return the part of a redirect's target that is worth showing."""
    with contextlib.suppress(ValueError):
        split = urlsplit(location)
        if split.hostname:
            return f"{split.scheme or 'https'}://{split.hostname}"
        return split.path
    return ""


def parse_retry_after(value: str, *, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header asks for, seconds or an HTTP date, between 0 and 10 minutes; None:
    unreadable.

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
    """Return the JSON value in `body`. Refused before parsing when it could hold more than `max_items` values.

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
    """Return our own words for an exception. The libraries' texts are left out: they hold URLs with secrets."""
    match exc:
        case _FailedError():
            return request.error(exc.code, exc.says, exc.retry_after)
        case requests.exceptions.SSLError() | SSLError():
            return request.error(ErrorCode.TLS, f"could not prove its identity: {_tls_reason(exc)}")
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
    return "no secure connection (TLS) could be made"
