"""Simulate faults of a status API: each fault is a function from the correct answer to the one that is sent.

A fault is set per endpoint (ENDPOINTS, or `*` for all). It may end after some time, occur at random, or come and go.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import asdict, dataclass, field, fields, replace
from random import Random
from typing import Literal

ENDPOINTS = ("online", "smart_phone", "speaking", "staff", "calls")
ALL = "*"


class FaultError(ValueError):
    """An invalid fault. The text names the invalid part and the possible values."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of the status API, and how it is sent."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0  # seconds before the first byte
    bytes_per_second: float = 0.0  # 0: at once
    ending: Literal["keep", "reset", "hang"] = "keep"  # reset and hang send nothing at all
    honest: bool = True  # its content is true


@dataclass(frozen=True, slots=True)
class Scene:
    """The inputs of a fault: the true list of logins (None: not a list), all logins, dice, now."""

    logins: list[str] | None
    everybody: list[str]
    dice: Random
    now: float


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. `kind` is a key of KINDS; each kind reads some of the other fields.

    As text (`parse`): `kind` or `kind:field=value,…`, e.g. `slow:ms=300`, `429:retry_after=3,for_seconds=10`.
    """

    kind: str
    ms: float = 1000.0  # slow
    retry_after: int | None = None  # 429, 503: seconds
    keep: float = 0.5  # lying: the probability that a login is listed
    bytes_per_second: float = 1.0  # trickle
    then: str = "503"  # flapping: the kind of its bad half
    period_seconds: float = 2.0  # flapping: bad for half of it, then good
    probability: float = 1.0
    for_seconds: float | None = None  # the fault ends after this
    since: float = field(default_factory=time.monotonic, compare=False)

    def __post_init__(self) -> None:
        for name in ("kind", "then"):
            if getattr(self, name) not in KINDS:
                raise FaultError(f"fault {name}: no {getattr(self, name)!r}; there are {', '.join(KINDS)}")
        if self.then == "flapping":
            raise FaultError("fault then: flapping cannot flap into flapping; name what it falls into, such as 503")
        for name in ("keep", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise FaultError(f"fault {name}: must be from 0 to 1, not {getattr(self, name)}")
        for name in ("bytes_per_second", "period_seconds"):
            if getattr(self, name) <= 0:
                raise FaultError(f"fault {name}: must be greater than 0, not {getattr(self, name)}")

    @classmethod
    def parse(cls, text: str) -> Fault:
        kind, _, rest = text.strip().partition(":")
        return cls.build(kind, dict(_pair(part) for part in rest.split(",") if part))

    @classmethod
    def build(cls, kind: str, options: dict[str, object]) -> Fault:
        """Return the fault of this kind with these options. Raises FaultError."""
        known = {item.name for item in fields(cls)} - {"kind", "since"}
        values: dict[str, object] = {}
        for name, value in options.items():
            if name not in known:
                raise FaultError(f"fault: no field {name!r}; there are {', '.join(sorted(known))}")
            try:
                number = value if name == "then" else float(str(value))
            except ValueError as error:
                raise FaultError(f"fault {name}: must be a number, not {value!r}") from error
            values[name] = int(number) if name == "retry_after" and isinstance(number, float) else number
        return cls(kind, **values)  # type: ignore[arg-type]  # checked by name above, by value in __post_init__

    def applied(self, response: Response, scene: Scene) -> Response:
        if self.probability < 1 and scene.dice.random() >= self.probability:
            return response
        return KINDS[self.kind](self, response, scene)

    def is_bad_now(self, now: float) -> bool:
        """Return whether the fault is active; False in the good half of flapping."""
        return self.kind != "flapping" or (now - self.since) % self.period_seconds < self.period_seconds / 2

    def is_dead(self, now: float) -> bool:
        """Return whether the server does not listen at this instant."""
        return (self.kind == "dead" or (self.kind == "flapping" and self.then == "dead")) and self.is_bad_now(now)

    def to_dict(self) -> dict[str, object]:
        shown = asdict(self)
        del shown["since"]
        return shown


def _pair(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


# ---- the kinds


def _error(status: int) -> Callable[[Fault, Response, Scene], Response]:
    def kind(fault: Fault, _response: Response, _scene: Scene) -> Response:
        headers = () if fault.retry_after is None else (("Retry-After", str(fault.retry_after)),)
        return Response(status, b'{"error":"status %d"}' % status, headers=headers, honest=False)

    return kind


def _dead(_fault: Fault, response: Response, _scene: Scene) -> Response:
    """Reset the connection, if set for one endpoint. If set for all (`*`), the server does not listen at all."""
    return replace(response, ending="reset", honest=False)


def _hang(_fault: Fault, response: Response, _scene: Scene) -> Response:
    return replace(response, ending="hang", honest=False)


def _trickle(fault: Fault, response: Response, _scene: Scene) -> Response:
    return replace(response, bytes_per_second=fault.bytes_per_second, honest=False)


def _slow(fault: Fault, response: Response, _scene: Scene) -> Response:
    return replace(response, delay=response.delay + fault.ms / 1000)


def _html(_fault: Fault, _response: Response, _scene: Scene) -> Response:
    return Response(200, b"<!doctype html><title>Sign in</title><h1>Sign in</h1>", "text/html", honest=False)


def _body(make: Callable[[Fault, list[str], Scene], object]) -> Callable[[Fault, Response, Scene], Response]:
    """Return a fault that changes the list. An answer that is not a list (a refusal, staff, calls) stays as it is."""

    def kind(fault: Fault, response: Response, scene: Scene) -> Response:
        if scene.logins is None:
            return response
        return replace(response, body=json.dumps(make(fault, scene.logins, scene)).encode(), honest=False)

    return kind


def _flapping(fault: Fault, response: Response, scene: Scene) -> Response:
    return KINDS[fault.then](fault, response, scene) if fault.is_bad_now(scene.now) else response


KINDS: dict[str, Callable[[Fault, Response, Scene], Response]] = {
    "dead": _dead,
    "hang": _hang,
    "trickle": _trickle,
    "slow": _slow,
    "401": _error(401),
    "403": _error(403),
    "429": _error(429),
    "500": _error(500),
    "503": _error(503),
    "html": _html,
    "empty": _body(lambda _fault, _logins, _scene: []),
    "lying": _body(lambda fault, _logins, scene: [one for one in scene.everybody if scene.dice.random() < fault.keep]),
    "flapping": _flapping,
}


class Faults(MutableMapping[str, Fault]):
    """The faults that are set now, by endpoint: `faults["online"] = "hang"`, `del faults["online"]`, `clear()`.

    Assign a Fault or its text. `changed` is called after every change. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._set: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def active(self, endpoint: str) -> Fault | None:
        """Return the fault of this endpoint, else that of all."""
        with self._lock:
            self._expire()
            return self._set.get(endpoint) or self._set.get(ALL)

    def is_dead(self) -> bool:
        """Return whether the server should not listen now."""
        with self._lock:
            self._expire()
            fault = self._set.get(ALL)
        return fault is not None and fault.is_dead(time.monotonic())

    def _expire(self) -> None:
        now = time.monotonic()
        for endpoint, fault in list(self._set.items()):
            if fault.for_seconds is not None and now - fault.since >= fault.for_seconds:
                del self._set[endpoint]

    def __setitem__(self, endpoint: str, fault: Fault | str) -> None:
        if endpoint not in {*ENDPOINTS, ALL}:
            raise FaultError(f"fault endpoint: no {endpoint!r}; there are {', '.join(ENDPOINTS)}, {ALL}")
        made = Fault.parse(fault) if isinstance(fault, str) else fault
        with self._lock:
            self._set[endpoint] = replace(made, since=time.monotonic())
        self.changed()

    def __delitem__(self, endpoint: str) -> None:
        with self._lock:
            del self._set[endpoint]
        self.changed()

    def clear(self) -> None:
        with self._lock:
            self._set.clear()
        self.changed()

    def __getitem__(self, endpoint: str) -> Fault:
        with self._lock:
            self._expire()
            return self._set[endpoint]

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            self._expire()
            return iter(list(self._set))

    def __len__(self) -> int:
        return len(list(iter(self)))
