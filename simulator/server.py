"""Serve the status API, the staff list and the call log of the platform, and the control endpoint of the simulator.

There are two listeners: the public one, which faults may shut, and one for control only, which stays open. Both answer
`/control/…`, only to this machine and not to pages in a browser (a request with an Origin is refused).
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from simulator.cast import DEPARTMENTS, StaffMember
from simulator.exchange import Exchange
from simulator.faults import Fault, Faults, Response, Scene
from simulator.ledger import CallRecord, OwnCall, whole_seconds
from simulator.settings import PbxSettings

if TYPE_CHECKING:
    from simulator.pbx import DemoPbx

log = logging.getLogger("simulator")

_BODY_LIMIT = 1 << 20
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time
_CALL_LOG_ROWS = 6500  # the platform's own limit
_CALL_LOG_FIELDS = (
    "calldate",
    "caller",
    "dst",
    "disposition",
    "billsec",
    "duration",
    "call_type",
    "uniqueid",
    "connected_with",
)
_CALL_WORDS: dict[str, type | tuple[type, ...]] = {
    "caller": str,
    "dialed": str,
    "params": dict,
    "form": str,
    "answers": bool,
    "talk_seconds": (int, float),
    "patience_seconds": (int, float),
    "until": str,
    "timeout": (int, float),
}


class Listener:
    """A port with an HTTP server that can be shut (connections are refused) and opened again."""

    def __init__(self, host: str, port: int, handler: Callable[[], type[Handler]]) -> None:
        self._handler = handler
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._bound = _bind(host, port)
        self.host, self.port = host, int(self._bound.getsockname()[1])
        self._lock = threading.Lock()

    def open(self) -> None:
        with self._lock:
            if self._server is not None:
                return
            self._bound.listen(256)
            self._server = _Server(self._bound, self._handler())
            self._thread = threading.Thread(target=self._server.serve, name=f"demo-pbx-{self.port}", daemon=True)
            self._thread.start()

    def shut(self, *, for_good: bool = False) -> None:
        """Refuse connections and reset open ones. The port stays bound, so that no other program takes it."""
        with self._lock:
            if self._server is not None:
                self._server.stop()
                if self._thread is not None:
                    self._thread.join()
                self._server.server_close()
                self._server.reset_connections()
                self._server = None
                if not for_good:
                    self._bound = _bind(self.host, self.port)
            elif for_good:
                self._bound.close()

    @property
    def is_open(self) -> bool:
        return self._server is not None


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, bound: socket.socket, handler: type[Handler]) -> None:
        super().__init__(bound.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self._stop, self._stopped = socket.socketpair()
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()

    def serve(self) -> None:
        """Serve until told to stop. The library's own loop checks that only twice a second."""
        with self._stopped:
            while self._stopped not in select.select([self.socket, self._stopped], [], [])[0]:
                with contextlib.suppress(OSError):  # the client has left
                    self.process_request(*self.get_request())

    def stop(self) -> None:
        self._stop.close()

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        assert isinstance(request, socket.socket)  # noqa: S101 - a TCP server
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)  # noqa: S101 - a TCP server
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def spare(self, connection: socket.socket) -> None:
        with self._connections_lock:
            self._connections.discard(connection)

    def reset_connections(self) -> None:
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # makes its thread close it

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("a connection of %s ended badly", client_address, exc_info=sys.exception())


class Handler(BaseHTTPRequestHandler):
    """One connection, kept alive between requests. `api` is set by the class that `serve` creates."""

    api: ClassVar[Api]
    protocol_version = "HTTP/1.1"
    server_version = "demo-pbx"
    sys_version = ""
    timeout = 120
    disable_nagle_algorithm = True
    wbufsize = -1  # sends head and body in one segment

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        try:
            body = self._body()
            if body is None:
                return
            url = urlsplit(self.path)
            if url.path.startswith("/control/"):
                self.close_connection = True
                if isinstance(self.server, _Server):
                    self.server.spare(self.connection)  # so that a request that sets the fault "dead" is still answered
                origin = self.headers.get("Origin")
                self._send(self.api.control(self.command, url.path, body, self.client_address[0], origin))
                return
            query = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            self._answer(self.api.due(self.command, url.path, query, body, self.headers.get("Auth-key")))
        except OSError:
            self.close_connection = True  # the client has closed the connection

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _BODY_LIMIT:
            self.close_connection = True
            self._send(_json(413 if length.isdigit() else 400, {"error": "a body of at most 1 MiB, with its length"}))
            return None
        return self.rfile.read(int(length))

    def _answer(self, due: Due) -> None:
        """Send the due answer, changed by the fault that is set now."""
        api, endpoint, response = self.api, due.endpoint, due.response
        fault = api.faults.active(endpoint) if endpoint else None
        if fault is not None:
            response = fault.applied(response, api.scene(due.logins))
        if api.settings.latency_ms:
            response = replace(response, delay=response.delay + api.settings.latency_ms / 1000)
        if response.ending == "hang":
            while api.faults.active(endpoint) is fault and not api.closing.wait(0.05):
                pass
        result = str(response.status) if fault is None or response.honest else fault.kind
        api.note_asked(endpoint, result)
        if response.ending != "keep":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.close_connection = True
            return
        self._send(response)
        if response.honest and response.status == 200:
            api.note_poll(due)

    def _send(self, response: Response) -> None:
        if response.delay and self.api.closing.wait(response.delay):
            self.close_connection = True
            return
        self.close_connection = self.close_connection or bool(response.bytes_per_second)
        data = self._head(response) + response.body
        if response.bytes_per_second:
            self._trickle(data, response.bytes_per_second)
        else:
            self.wfile.write(data)
            self.wfile.flush()

    def _head(self, response: Response) -> bytes:
        lines = [
            f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
            f"Date: {self.date_time_string()}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            *(f"{name}: {value}" for name, value in response.headers),
            *(["Connection: close"] if self.close_connection else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _trickle(self, data: bytes, bytes_per_second: float) -> None:
        for n in range(len(data)):
            self.wfile.write(data[n : n + 1])
            self.wfile.flush()
            if self.api.closing.wait(1 / bytes_per_second):
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        log.debug(format, *args)


class Due(NamedTuple):
    """An answer before any fault: its endpoint ("": unknown), and for a list of logins: these, when they were read, and
    what they show: the endpoint's own states, and who is in do-not-disturb if those are left out.
    """

    endpoint: str
    response: Response
    logins: list[str] | None = None
    looked_at: float = 0.0
    shows: tuple[str, ...] = ()


class Api:
    """The answers of each path. Reads the exchange under its lock, and writes only the ledger's polls."""

    def __init__(self, pbx: DemoPbx, exchange: Exchange, faults: Faults, settings: PbxSettings) -> None:
        self.settings = settings
        self.faults = faults
        self.closing = threading.Event()
        self._pbx = pbx
        self._exchange = exchange
        self._dice = Random(f"{settings.seed}/faults")
        self._zone = ZoneInfo(settings.time_zone)

    def handler(self) -> type[Handler]:
        return type("Handler", (Handler,), {"api": self})

    def note_asked(self, endpoint: str, result: str) -> None:
        with self._exchange.scheduler.lock:
            self._exchange.ledger.note_asked(endpoint or "unknown path", result)

    def note_poll(self, due: Due) -> None:
        """Record that a true answer has been sent completely."""
        with self._exchange.scheduler.lock:
            for what in due.shows:
                self._exchange.ledger.note_poll(what, due.looked_at, time.monotonic())

    def scene(self, logins: list[str] | None) -> Scene:
        everybody = list(self._exchange.lines.by_login)
        return Scene(logins, everybody, self._dice, time.monotonic())

    # ---- the platform

    def due(self, method: str, path: str, query: dict[str, str], body: bytes, auth_key: str | None) -> Due:
        """Return the true answer, before any fault."""
        smart_phone = "project_id" in query or "token" in query
        flag = query.get("withRspDoNotDisturbSips", "").lower() in {"1", "true", "yes"}
        endpoint = {
            ("GET", "/sipstatus/online"): "smart_phone" if smart_phone else "online",
            ("GET", "/sipstatus/speaking"): "speaking",
            ("POST", "/api/json-rpc"): "staff",
            ("GET", "/calls/list"): "calls",
        }.get((method, path), "")
        if not endpoint:
            return Due(endpoint, _json(404, {"error": "not found"}))
        if auth_key is None or not _same(auth_key, self.settings.auth_key):
            return Due(endpoint, _json(401, {"error": "Unauthorized"}))
        if endpoint == "smart_phone" and not self._may_see_smart_phones(query):
            return Due(endpoint, _json(403, {"error": "Access denied"}))
        if endpoint == "staff":
            return Due(endpoint, self._staff(body))
        if endpoint == "calls":
            return Due(endpoint, self._call_log(query))
        with self._exchange.scheduler.lock:
            looked_at = time.monotonic()
            lines = self._exchange.lines
            if endpoint == "speaking":
                logins = lines.speaking()
            else:
                logins = lines.online(smart_phone=smart_phone, with_dnd=flag or not smart_phone)
        shows = (endpoint, "do_not_disturb") if smart_phone and not flag else (endpoint,)
        return Due(endpoint, _json(200, logins), logins, looked_at, shows)

    def _may_see_smart_phones(self, query: dict[str, str]) -> bool:
        return _same(query.get("project_id", ""), self.settings.project_id) and _same(
            query.get("token", ""), self.settings.token
        )

    def _staff(self, body: bytes) -> Response:
        """Return the staff list. Refusals have status 200 and an `error` member, as on the platform."""
        try:
            asked = json.loads(body)
        except ValueError:
            return _json(200, _rpc_error(None, -32700, "Parse error"))
        if not isinstance(asked, dict):
            return _json(200, _rpc_error(None, -32600, "Invalid Request"))
        rpc_id, params = asked.get("id"), asked.get("params")
        if asked.get("method") != "getProjectStaffListAndDirections":
            return _json(200, _rpc_error(rpc_id, -32601, "Method not found"))
        if not isinstance(params, dict) or str(params.get("projectId")) != self.settings.project_id:
            return _json(200, _rpc_error(rpc_id, -32602, "Access to the project is denied"))
        full = bool(params.get("departmentsFullFormat"))
        staff = {str(member.staff_id): _staff_row(member, full=full) for member in self.settings.staff}
        return _json(200, {"jsonrpc": "2.0", "id": rpc_id, "result": staff})

    def _call_log(self, query: dict[str, str]) -> Response:
        if query.get("export_type") != "json":
            return _json(400, {"error": "export_type: only json"})
        names = [name.strip() for name in query.get("fields", "").split(",") if name.strip()] or list(_CALL_LOG_FIELDS)
        unknown = [name for name in names if name not in _CALL_LOG_FIELDS]
        if unknown:
            return _json(400, {"error": f"fields: unknown {', '.join(unknown)}"})
        span = []
        for bound in ("from", "to"):
            try:
                span.append(datetime.fromisoformat(query.get(bound, "")).replace(tzinfo=self._zone))
            except ValueError:
                return _json(400, {"error": f"{bound}: YYYY-MM-DD HH:MM:SS"})
        with self._exchange.scheduler.lock:
            ledger = self._exchange.ledger
            rows = [
                (record.arrived_on, _call_row(record))
                for record in ledger.calls
                if span[0] <= record.arrived_on <= span[1]
            ]
            rows += [
                (call.started_on, _own_call_row(call))
                for call in ledger.own_calls
                if span[0] <= call.started_on <= span[1]
            ]
        rows.sort(key=lambda row: row[0])
        listed = [
            {**row, "calldate": at.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")}
            for at, row in rows[:_CALL_LOG_ROWS]
        ]
        return _json(200, [{name: row[name] for name in names} for row in listed])

    # ---- control

    def control(self, method: str, path: str, body: bytes, client: str, origin: str | None) -> Response:
        if not (client.startswith("127.") or client in {"::1", "::ffff:127.0.0.1"}) or origin is not None:
            return _json(403, {"error": "control is for programs on the same machine"})
        action = {
            ("GET", "/control/report"): self._get_report,
            ("GET", "/control/agents"): self._get_agents,
            ("POST", "/control/agents"): self._set_agents,
            ("GET", "/control/faults"): self._get_faults,
            ("POST", "/control/faults"): self._set_faults,
            ("POST", "/control/calls"): self._place_call,
        }.get((method, path))
        if action is None:
            return _json(
                404, {"error": "control knows GET report, GET and POST agents, GET and POST faults, POST calls"}
            )
        try:
            asked = json.loads(body) if body.strip() else {}
            if not isinstance(asked, dict):
                raise ValueError("the body must be a JSON object")
            return _json(200, action(asked))
        except KeyError as error:
            return _json(400, {"error": f"missing or unknown: {error.args[0]}"})
        except (ValueError, TypeError) as error:
            return _json(400, {"error": str(error)})

    def _get_report(self, _asked: dict[str, object]) -> object:
        return self._pbx.report().to_dict()

    def _get_agents(self, _asked: dict[str, object]) -> object:
        with self._exchange.scheduler.lock:
            now = time.monotonic()
            shown = {}
            for login, line in self._exchange.lines.by_login.items():
                truth = self._exchange.lines.truth(login)
                shown[login] = {
                    "name": line.person.member.name,
                    "state": truth.state.value,
                    "seconds": round(now - truth.since, 3),
                    "at": truth.line.login,
                    "pinned": line.pinned,
                }
        return shown

    def _set_agents(self, asked: dict[str, object]) -> object:
        """Set states: `{"login": "demo_bob", "state": "offline"}`, or `{"states": {"demo_bob": "offline", …}}`."""
        states = asked["states"] if "states" in asked else {asked["login"]: asked["state"]}
        if not isinstance(states, dict):
            raise ValueError("states: must be an object of login: state")
        for login, state in states.items():
            self._exchange.set_state(str(login), str(state))
        return self._get_agents(asked)

    def _get_faults(self, _asked: dict[str, object]) -> object:
        return {endpoint: fault.to_dict() for endpoint, fault in self.faults.items()}

    def _set_faults(self, asked: dict[str, object]) -> object:
        """Set a fault: `{"endpoint": "online", "fault": "slow", "ms": 300}`; without a fault or with null clear it;
        `{"clear": true}` clears all.
        """
        if asked.get("clear"):
            self.faults.clear()
            return {}
        options = dict(asked)
        endpoint, kind = str(options.pop("endpoint", "*")), options.pop("fault", None)
        if kind is None:
            self.faults.pop(endpoint, None)
        elif options:
            self.faults[endpoint] = Fault.build(str(kind), options)
        else:
            self.faults[endpoint] = Fault.parse(str(kind))
        return self._get_faults(asked)

    def _place_call(self, asked: dict[str, object]) -> object:
        """Place one call. `until`: destination, outcome (default) or end; `timeout`: in real seconds (default 30)."""
        for name, value in asked.items():
            if name not in _CALL_WORDS:
                raise ValueError(f"no {name!r}; there are {', '.join(_CALL_WORDS)}")
            if not isinstance(value, _CALL_WORDS[name]):
                raise ValueError(f"{name}: not {value!r}")
        if isinstance(params := asked.get("params"), dict):
            asked = {**asked, "params": {str(name): str(value) for name, value in params.items()}}
        return self._pbx.call(**asked).to_dict()  # type: ignore[arg-type]  # names and types are checked above


def _json(status: int, value: object) -> Response:
    return Response(status, json.dumps(value, ensure_ascii=False).encode())


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


def _rpc_error(rpc_id: object, code: int, message: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": message}}


def _staff_row(member: StaffMember, *, full: bool) -> dict[str, object]:
    directions = [{"direction": login, "type": "sip"} for login in member.logins]
    if member.phone:
        directions.append({"direction": member.phone, "type": "phone"})
    departments: list[object] = [
        {"id": number, "name": DEPARTMENTS.get(number, str(number))} if full else number
        for number in member.departments
    ]
    return {
        "id": member.staff_id,
        "staffId": member.staff_id,
        "fio": member.name,
        "email": member.email,
        "phone": member.phone,
        "extensionNumber": member.extension,
        "departments": departments,
        "status": "active",
        "directions": {"main": directions[:1], "additional": directions[1:]},
    }


def _call_row(record: CallRecord) -> dict[str, str]:
    """Return a row of the call log. A call that still goes on has zeros and NO ANSWER, as on the platform."""
    talked, waited = whole_seconds(record.talked_seconds), whole_seconds(record.waited_seconds)
    outside = record.destination if record.outcome in {"outside", "scheme"} else ""
    return {
        "caller": record.caller,
        "dst": record.dialed,
        "disposition": record.disposition if record.ended else "NO ANSWER",
        "billsec": str(talked if record.ended else 0),
        "duration": str(talked + waited if record.ended else 0),
        "call_type": "in",
        "uniqueid": record.call_id,
        "connected_with": (record.transferred_to or record.answered_by or outside) if record.ended else "",
    }


def _own_call_row(call: OwnCall) -> dict[str, str]:
    talked = str(whole_seconds(call.talked_seconds) if call.ended else 0)
    return {
        "caller": call.login,
        "dst": call.client,
        "disposition": "ANSWERED" if call.ended else "NO ANSWER",
        "billsec": talked,
        "duration": talked,
        "call_type": "out",
        "uniqueid": call.call_id,
        "connected_with": call.login,
    }
