"""Answer the hook's requests: where to send a call, and call events. The platform's format reads and renders them.

Whatever fails, the answer is 200 with a destination. Only requests without the right token, address or password are
refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask, request
from werkzeug import Response
from werkzeug.wsgi import get_content_length, get_input_stream

from router.addresses import client_address
from router.core.model import Call
from router.db.documents import UnknownProjectError
from router.db.queries import Published
from router.db.types import Unreadable
from router.hook import auth
from router.hook.fields import HookSettings, Question
from router.hook.formats import FORMATS
from router.hook.throttle import EVERY_SECONDS, PasswordThrottle, TokenThrottle
from router.hook.wire import MAX_BODY_BYTES, RawRequest, unpacked
from router.log import about_call, log
from router.metrics import EVENTS, HOOK_SECONDS, HOOKS, REFUSED, count_degraded
from router.numbers import mask_number
from router.routing.known import accepts, token_hash
from router.routing.outage import Apply
from router.routing.route import Routing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

METHODS = ["GET", "POST", "PUT", "DELETE"]
_ALLOW = sorted([*METHODS, "HEAD", "OPTIONS"])

_DRAINED_PIECES = 64  # read and dropped of a longer body: otherwise the client gets a reset instead of the answer
KEPT_BODY_CHARS = 4096  # of a body stored with the decision, for people to look at
EVENT_SECONDS = 0.25  # how long an event may wait to learn whether the credentials were changed
_UNKNOWN_PROJECT = HookSettings()
_routed = cache(HOOKS.labels)  # there are few pairs, and looking one up costs more than counting
_REFUSALS = {404: "Not found\n", 401: "Unauthorized\n", 429: "Too many wrong passwords\n"}
RESERVE_SECONDS = 0.2  # of the budget, for an answer without the database and for rendering


class _RefusedError(Exception):
    """The request is refused with `status` 404, 401 or 429. `kind`: the label that counts it. `published`: the project,
    if the token was right.
    """

    def __init__(self, status: int, kind: str, reason: str, published: Published | None = None) -> None:
        super().__init__(reason)
        self.status, self.kind, self.reason, self.published = status, kind, reason, published


def _call(view: Callable[[WSGIEnvironment, str, str], Response], token: str) -> Response:
    return view(request.environ, token, request.remote_addr or "")


class Hook:
    """The views of the hook, and as a WSGI application what every request passes before Flask's routes.

    There the client's address is put into its normal form: without a port, and IPv4 as IPv4 on a dual-stack socket. A
    URL of the hook with a slash too many reaches it without a redirect, which a PBX would not follow. Other paths and
    methods under /hook are refused, where that costs little.
    """

    def __init__(
        self,
        app: Flask,
        routing: Routing,
        *,
        budget_seconds: float,
        last_resort: str,
        secret: str,
        apply: Apply,
        refuse: Callable[[int, str, str, dict[str, Any]], None],
    ) -> None:
        """`last_resort`: the destination when not even the project is known. `refuse`: stores a refused request."""
        self.routing = routing
        self._app, self._budget_seconds, self._last_resort, self._secret = (
            app.wsgi_app,
            budget_seconds,
            last_resort,
            secret,
        )
        self._apply, self._store_refused = apply, refuse
        self._settings: dict[int, tuple[int, HookSettings]] = {}  # by project, with the version of the configuration
        self._token_throttle, self._password_throttle = TokenThrottle(), PasswordThrottle()
        for path, endpoint, view in (("", "hook.ask", self.ask), ("/event", "hook.hear", self.hear)):
            app.add_url_rule(f"/hook/<token>{path}", endpoint, partial(_call, view), methods=METHODS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Bounded: the text is cached.
        environ["REMOTE_ADDR"] = remote = client_address(environ.get("REMOTE_ADDR", "")[:128])
        parts = [part for part in environ.get("PATH_INFO", "").split("/") if part]
        if not parts or parts[0].casefold() != "hook":
            return self._app(environ, start_response)
        if len(parts) != 2 and parts[2:] != ["event"]:
            self._count_refusal("path", "no such path", remote)
            response = Response("Not found\n", 404)
        elif environ.get("REQUEST_METHOD") not in _ALLOW:
            response = Response("Method not allowed\n", 405, {"Allow": ", ".join(_ALLOW)})
        else:
            environ["PATH_INFO"] = "/".join(["", "hook", *parts[1:]])
            return self._app(environ, start_response)
        return response(environ, start_response)

    # ---- questions

    def ask(self, environ: WSGIEnvironment, token: str, remote: str) -> Response:
        """Answer where to send a call."""
        began = time.monotonic()
        published, settings, refusal = None, _UNKNOWN_PROJECT, None
        errors: list[tuple[str, Exception]] = []  # logged once the call's id is known
        try:
            published = self._project(token, remote)
            published, settings = self._admitted(published, environ, token, remote)
        except _RefusedError as error:
            refusal = error
        except Exception as error:
            errors.append(("hook: the project could not be looked up", error))
        raw = _raw_request(environ, errors)
        if refusal is not None:
            return self._refuse(refusal, raw, remote)
        if raw.method == "HEAD":
            return Response()
        try:
            question = FORMATS["ringostat"].parse_call(raw, settings)
        except Exception as error:  # our own bug: the call still gets a destination
            errors.append(("hook: the request could not be understood", error))
            question = Question(Call())

        def admit(newer: Published) -> None:
            """Check the request again by a newer configuration than the one that this process knew."""
            self._authorise(newer, environ, token, remote)

        with about_call(question.call.call_id):
            for what, failure in errors:
                log.error(what, exc_info=failure)
            try:
                destination, result = self._route(published, question, raw, remote, began, admit)
            except _RefusedError as error:
                return self._refuse(error, raw, remote)
            try:
                body, content_type = FORMATS["ringostat"].render_decision(destination, question, settings)
            except Exception:
                log.exception("hook: answered as plain text")
                body, content_type = destination.encode("utf-8", "replace"), "text/plain; charset=utf-8"
        if result:
            _routed(result, question.form).inc()
            HOOK_SECONDS.observe(time.monotonic() - began)
        return Response(body, content_type=content_type)

    def _route(
        self,
        published: Published | None,
        question: Question,
        raw: RawRequest,
        remote: str,
        began: float,
        admit: Callable[[Published], None],
    ) -> tuple[str, str]:
        """Return the destination, and the result to be counted: none ("") for a test."""
        call = question.call
        if published is None:
            count_degraded("project unknown")
            log.error("hook: answered with the last resort", destination=self._last_resort)
            return self._last_resort, "degraded"
        project = published.project
        if call.call_id.startswith(auth.TEST_PREFIX) and auth.is_test(call.call_id, self._secret):
            return self._answer_to_test(published, call, _received(raw, question, remote)), ""
        try:
            routed = self.routing.route_call(
                project.id,
                call,
                deadline=began + self._budget_seconds - RESERVE_SECONDS,
                received=_received(raw, question, remote),
                admit=admit,
                admitted=published,
            )
        except _RefusedError:
            raise
        except UnknownProjectError:  # deleted a moment ago
            raise _RefusedError(404, "token", "wrong token") from None
        except Exception as error:
            count_degraded(type(error).__name__)
            log.exception("hook: answered with the overflow", project=project.name)
            return project.overflow or self._last_resort, "degraded"
        if routed.degraded:
            count_degraded(routed.degraded)
        result = "degraded" if routed.degraded else routed.result
        log.info(
            "call routed",
            step=call.step,
            project=project.name,
            caller=mask_number(call.caller) if published.document["project"]["mask_numbers"] else call.caller,
            dialed=call.dialed,
            destination=routed.destination,
            result=result,
            decision=routed.decision_id,
            milliseconds=round((time.monotonic() - began) * 1000, 1),
        )
        return routed.destination, result

    def _answer_to_test(self, published: Published, call: Call, received: dict[str, Any]) -> str:
        """Return where such a call would go now, without routing it: nothing is reserved or counted."""
        try:
            destination = self.routing.answer_test(published.project.id, call, received)
        except Exception:
            log.exception("hook: a test was answered with the overflow", project=published.project.name)
            return published.project.overflow or self._last_resort
        log.info("test answered", project=published.project.name, destination=destination)
        return destination

    # ---- events

    def hear(self, environ: WSGIEnvironment, token: str, remote: str) -> Response:
        """Apply a call event. The answer is 200 whatever happens: the PBX sends nothing twice."""
        try:
            published, settings = self._admitted(self._project(token, remote), environ, token, remote)
            # Checked here because applying an event does not read the configuration, as routing a call does.
            newer = self._current(published, seconds=EVENT_SECONDS)
            if newer is not published:
                published, settings = newer, self._authorise(newer, environ, token, remote)
        except _RefusedError as refusal:
            refusal.published = None  # refused events are not stored
            return self._refuse(refusal, RawRequest(), remote)
        except Exception:
            log.exception("event: the project could not be looked up")
            return Response("OK\n")
        if environ["REQUEST_METHOD"] == "HEAD":
            return Response()
        errors: list[tuple[str, Exception]] = []
        try:
            event = FORMATS["ringostat"].parse_event(_raw_request(environ, errors), settings)
        except Exception:  # our own bug
            log.exception("event: could not be understood")
            return Response("OK\n")
        with about_call(event.call_id):
            for what, failure in errors:
                log.error(what, exc_info=failure)
            try:
                result: str = self.routing.hear(published, event, time.monotonic(), self._apply) or "postponed"
            except Exception:
                log.exception("event: lost", kind=event.kind)
                result = "lost"
            EVENTS.labels(event.kind or "unknown", result).inc()
            log.info("call event", project=published.project.name, kind=event.kind, result=result)
        return Response("OK\n")

    # ---- who may ask

    def _project(self, token: str, remote: str) -> Published:
        """Return the project with this token. Raises _RefusedError."""
        projects, hashed = self.routing.projects, token_hash(token)
        published = projects.known_by(hashed)
        if published is None and auth.looks_like_token(token):
            published = projects.of_token(hashed, is_suspect=self._token_throttle.is_exceeded(remote))
        if published is None:
            raise _RefusedError(404, "token", "wrong token")
        return published

    def _admitted(
        self, published: Published, environ: WSGIEnvironment, token: str, remote: str
    ) -> tuple[Published, HookSettings]:
        """Return the project and its hook settings if they accept this request. Raises _RefusedError."""
        try:
            return published, self._authorise(published, environ, token, remote)
        except _RefusedError as refusal:
            # A change that this process has not read yet may accept the request.
            newer = self._current(published, is_suspect=self._token_throttle.is_exceeded(remote))
            if newer is published:
                raise refusal
            return newer, self._authorise(newer, environ, token, remote)

    def _current(self, published: Published, *, is_suspect: bool = False, seconds: float | None = None) -> Published:
        try:
            return self.routing.projects.current(published, is_suspect=is_suspect, seconds=seconds)
        except UnknownProjectError:
            raise _RefusedError(404, "token", "wrong token") from None

    def _authorise(self, published: Published, environ: WSGIEnvironment, token: str, remote: str) -> HookSettings:
        """Return the hook settings of this configuration. Raises _RefusedError when it does not accept this request."""
        if not accepts(published, token_hash(token)):
            raise _RefusedError(404, "token", "wrong token")
        project_id, throttle = published.project.id, self._password_throttle
        version, settings = self._settings.get(project_id, (-1, _UNKNOWN_PROJECT))
        if version != published.version:
            settings = _read_settings(published)
            self._settings[project_id] = (published.version, settings)
        if settings.allow_addresses and not auth.address_allowed(remote, settings.allow_addresses):
            raise _RefusedError(404, "address", "address not allowed", published)
        if settings.basic_auth:
            header = environ.get("HTTP_AUTHORIZATION")
            digest = auth.credentials_digest(header)
            if not throttle.allows(project_id, remote, digest):
                raise _RefusedError(429, "credentials", "too many wrong passwords", published)
            if not auth.basic_auth_matches(header, settings.basic_auth):
                throttle.count_failure(project_id, remote, digest)
                raise _RefusedError(401, "credentials", "wrong user or password", published)
            throttle.count_success(project_id, remote)
        return settings

    def _count_refusal(self, kind: str, reason: str, remote: str) -> bool:
        """Count a refused request, and log it unless there are too many. Return whether it was logged."""
        HOOKS.labels("refused", "none").inc()
        REFUSED.labels(kind).inc()
        if is_free := self._token_throttle.count(remote):
            log.warning("hook: refused", reason=reason, remote=remote)
        return is_free

    def _refuse(self, refusal: _RefusedError, raw: RawRequest, remote: str) -> Response:
        is_logged = self._count_refusal(refusal.kind, refusal.reason, remote)
        if is_logged and refusal.published is not None:
            received = {
                "method": raw.method,
                "query": raw.query.decode("utf-8", "replace")[:KEPT_BODY_CHARS],
                "content_type": raw.content_type,
                "user_agent": raw.headers.get("USER_AGENT", ""),
            }
            try:
                self._store_refused(refusal.published.project.id, refusal.reason, remote, received)
            except Exception:
                log.exception("hook: a refused request could not be kept")
        response = Response(_REFUSALS[refusal.status], refusal.status)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="hook", charset="UTF-8"'
        elif refusal.status == 429:
            response.headers["Retry-After"] = str(int(EVERY_SECONDS))
        return response


def _read_settings(published: Published) -> HookSettings:
    hook_part = published.document["project"]["hook"]
    basic_auth = published.basic_auth
    if isinstance(basic_auth, Unreadable):  # no reason to lose calls: the token was right
        log.error(
            "hook: calls are let in by their token alone", project=published.project.name, error=str(basic_auth.error)
        )
        basic_auth = None
    return HookSettings(
        answer=hook_part["answer"],
        key=hook_part["key"],
        rpc_result=hook_part["rpc_result"],
        retry_seconds=hook_part["retry_seconds"],
        allow_addresses=auth.parse_networks(hook_part["allow_addresses"]),
        basic_auth=basic_auth,
        fields={name: tuple(aliases) for name, aliases in hook_part["fields"].items()},
        country=published.document["project"]["country"],
    )


def _raw_request(environ: WSGIEnvironment, errors: list[tuple[str, Exception]]) -> RawRequest:
    body, announced = b"", get_content_length(environ) or 0
    try:
        # gunicorn's own stream ends with the request. Flask's wrapper around it takes as long as parsing the JSON.
        ends = environ.get("wsgi.input_terminated")
        stream = environ["wsgi.input"] if ends else get_input_stream(environ)
        while len(body) <= MAX_BODY_BYTES and (more := stream.read(MAX_BODY_BYTES + 1 - len(body))):
            body += more
        for _ in range(_DRAINED_PIECES if len(body) > MAX_BODY_BYTES else 0):
            if not stream.read(MAX_BODY_BYTES):
                break
    except Exception as error:  # a body that breaks off or violates the protocol: its beginning may be enough
        errors.append(("hook: the body could not be read", error))
        announced = MAX_BODY_BYTES
    raw = RawRequest.from_environ(environ, body)
    return raw._replace(is_cut=len(body) < min(announced, MAX_BODY_BYTES))


def _received(raw: RawRequest, question: Question, remote: str) -> dict[str, Any]:
    """Return the request as stored with the decision, without credentials. Headers only if a field was read there."""
    received: dict[str, Any] = {
        "method": raw.method,
        "query": raw.query.decode("utf-8", "replace"),
        "content_type": raw.content_type,
        "body": unpacked(raw)[0][:KEPT_BODY_CHARS].decode("utf-8", "replace").replace("\x00", "�"),
        "remote": remote,
        "user_agent": raw.headers.get("USER_AGENT", ""),
        "form": question.form,
        "understood": dict(question.understood),
        "problems": [{"code": note.code, **values} for note, values in question.problems],
        **({"empty_id": question.empty_id} if question.empty_id else {}),
    }
    if any(place.startswith("header") for place in question.understood.values()):
        received["headers"] = dict(raw.without_secrets().headers)
    return received
