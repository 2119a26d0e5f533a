"""What callers and agents will do is the seed's alone."""

from __future__ import annotations

import dataclasses

import pytest

from simulator.cast import DEMO_STAFF
from simulator.plan import answers_after, plan_call
from simulator.settings import PbxSettings, SettingsError

SETTINGS = PbxSettings(form="mixed", duplicate_probability=0.3, patience_seconds=60, transfer_probability=0.2)


def test_the_same_seed_gives_the_same_calls() -> None:
    again = PbxSettings(**{field.name: getattr(SETTINGS, field.name) for field in dataclasses.fields(SETTINGS)})
    plans = [plan_call(SETTINGS, n) for n in range(200)]
    assert plans == [plan_call(again, n) for n in range(200)]
    assert plans != [plan_call(dataclasses.replace(SETTINGS, seed=2), n) for n in range(200)]


def test_turning_one_knob_moves_only_what_it_names() -> None:
    other = dataclasses.replace(SETTINGS, duplicate_probability=0.0, transfer_probability=0.0)
    for n in range(100):
        quiet = dataclasses.replace(plan_call(SETTINGS, n), duplicate_after_ms=None, transfer_at=None)
        assert quiet == plan_call(other, n)


def test_an_agent_answers_as_often_as_told() -> None:
    settings = PbxSettings(answer_probability=0.9, answer_probabilities={"Dave": 0.0, "Bob": 1.0})
    assert all(answers_after(settings, n, "Dave", "demo_dave") is None for n in range(100))
    assert all(answers_after(settings, n, "Bob", "demo_bob") is not None for n in range(100))
    share = sum(answers_after(settings, n, "Alice", "demo_alice") is not None for n in range(2000)) / 2000
    assert share == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"speed": 0}, "speed must be greater than 0, not 0"),
        ({"event_loss": 1.5}, "event_loss must be a probability from 0 to 1, not 1.5"),
        ({"form": "xml"}, "form must be one of get, .*mixed, not 'xml'"),
        ({"names": {"calller": "x"}}, "not calller"),
        ({"staff": (DEMO_STAFF[0], DEMO_STAFF[0])}, "owned twice: demo_alice, demo_alice_mob"),
        ({"time_zone": "Kyiv"}, "time_zone must be an IANA zone"),
        ({"answer_probabilities": {"Dave": 2}}, "Dave.* must be a probability"),
        ({"on_failure": "panic"}, "on_failure must be one of next_step, lost"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_remedy(change: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        PbxSettings(**change)  # type: ignore[arg-type]
