"""FORMATS: platform → how its requests are read and its answers written. One module per platform, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from router.core.events import CallEvent
from router.hook.fields import HookSettings, Question
from router.hook.formats import ringostat
from router.hook.wire import RawRequest


class Format(NamedTuple):
    """What a platform's module gives. None of the three ever raises on what was sent."""

    parse_call: Callable[[RawRequest, HookSettings], Question]
    parse_event: Callable[[RawRequest, HookSettings], CallEvent]
    render_decision: Callable[[str, Question, HookSettings], tuple[bytes, str]]


FORMATS: dict[str, Format] = {
    "ringostat": Format(ringostat.parse_call, ringostat.parse_event, ringostat.render_decision),
}
