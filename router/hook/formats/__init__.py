"""Map each platform to its format: how its requests are read and its answers rendered. One module per platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from router.core.events import CallEvent
from router.hook.fields import HookSettings, Question
from router.hook.formats import ringostat
from router.hook.wire import RawRequest


class Format(NamedTuple):
    """The three functions of a platform's module. No request makes them raise."""

    parse_call: Callable[[RawRequest, HookSettings], Question]
    parse_event: Callable[[RawRequest, HookSettings], CallEvent]
    render_decision: Callable[[str, Question, HookSettings], tuple[bytes, str]]


FORMATS: dict[str, Format] = {
    "ringostat": Format(ringostat.parse_call, ringostat.parse_event, ringostat.render_decision),
}
