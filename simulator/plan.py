"""Plan what callers and agents do, by the seed and the number of the call. The same seed gives the same calls with any
router at any speed, so that routers can be compared on them. No clock, no network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from simulator.forms import FORMS
from simulator.settings import PbxSettings

_MOBILE_CODES = ("50", "63", "66", "67", "68", "73", "93", "95", "96", "97", "98", "99")
_UTM = (
    {"utm_source": "google", "utm_medium": "cpc", "utm_campaign": "brand"},
    {"utm_source": "google", "utm_medium": "organic", "utm_campaign": "(not set)"},
    {"utm_source": "facebook", "utm_medium": "social", "utm_campaign": "весна 2026"},
    {"utm_source": "bing", "utm_medium": "cpc", "utm_campaign": "generic"},
    {"utm_source": "(direct)", "utm_medium": "(none)", "utm_campaign": "-1"},
)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What one caller will do. `gap`: the time since the caller before, in mean gaps. Times in simulated seconds.

    `caller`: digits without plus, "" for an anonymous caller. `transfer_at`: the share of the talk after which it is
    transferred to a colleague.
    """

    number: int
    caller: str
    dialed: str
    params: Mapping[str, str] = field(default_factory=dict)
    gap: float = 1.0
    talk_seconds: float = 60.0
    patience_seconds: float = math.inf
    form: str = "json"
    event_form: str = "json"
    duplicate_after_ms: float | None = None
    transfer_at: float | None = None


def plan_call(settings: PbxSettings, number: int) -> CallPlan:
    """Return the plan of the call of this number. The same random numbers are drawn for all settings, so that a change
    of one setting affects nothing else.
    """
    dice = Random(f"{settings.seed}/call/{number}")
    gap = dice.expovariate(1.0)
    person = dice.randrange(settings.callers)
    anonymous = dice.random() < settings.anonymous_probability
    dialed = list(settings.numbers)[int(dice.random() * len(settings.numbers))]
    utm = dice.choice(_UTM)
    talk = dice.expovariate(1.0) * settings.talk_seconds
    patience = dice.expovariate(1.0) * settings.patience_seconds
    form, event_form = dice.choice(list(FORMS)), dice.choice(list(FORMS))
    duplicated, duplicate_after_ms = dice.random() < settings.duplicate_probability, dice.random() * 20.0
    transferred, transfer_at = dice.random() < settings.transfer_probability, dice.uniform(0.2, 0.8)
    return CallPlan(
        number=number,
        caller="" if anonymous else caller_number(settings.seed, person),
        dialed=dialed,
        params={**utm, "department": settings.numbers[dialed], "landing": "https://demo.example/"},
        gap=gap,
        talk_seconds=talk,
        patience_seconds=patience if settings.patience_seconds else math.inf,
        form=form if settings.form == "mixed" else settings.form,
        event_form=event_form if settings.event_form == "mixed" else settings.event_form,
        duplicate_after_ms=duplicate_after_ms if duplicated else None,
        transfer_at=transfer_at if transferred else None,
    )


def caller_number(seed: int, person: int) -> str:
    """Return a Ukrainian mobile number, digits without plus, different for each of ten million people."""
    code = _MOBILE_CODES[(seed + person) % len(_MOBILE_CODES)]
    return f"380{code}{(person * 7_368_787 + seed * 104_729) % 10_000_000:07d}"


def answers_after(settings: PbxSettings, number: int, person: str, login: str) -> float | None:
    """Return how long this login rings for this call before the person picks up, in simulated seconds; None: never."""
    dice = Random(f"{settings.seed}/ring/{number}/{login}")
    willing = dice.random() < settings.answer_probabilities.get(person, settings.answer_probability)
    after = dice.uniform(*settings.answer_after_seconds)
    return after if willing else None
