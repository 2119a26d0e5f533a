"""Every list of the file has a stated limit, which is told with its place and a remedy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from router.configuration.reading import ConfigFileError, load
from router.configuration.schema import (
    SECTIONS,
    AgentConfig,
    ExpectConfig,
    GroupConfig,
    HookConfig,
    ProjectConfig,
    RuleConfig,
    RuleTestCallConfig,
    RuleTestConfig,
    ScheduleConfig,
    WhenConfig,
    most_of,
    render_reference,
)

PLACES: dict[Any, str] = {
    AgentConfig: "projects[0].agents[0]",
    GroupConfig: "projects[0].groups[0]",
    HookConfig: "projects[0].hook",
    ProjectConfig: "projects[0]",
    RuleConfig: "projects[0].rules[0]",
    ScheduleConfig: "projects[0].schedules[0]",
    WhenConfig: "projects[0].rules[0].when",
    RuleTestConfig: "projects[0].tests[0]",
    RuleTestCallConfig: "projects[0].tests[0].call",
    ExpectConfig: "projects[0].tests[0].expect",
}
LISTS = [(model, key) for model in SECTIONS for key in model.model_fields if most_of(model, key)]


def refusals(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigFileError) as refused:
        load(yaml.safe_dump(document), {})
    return str(refused.value).splitlines()


def around(model: Any, key: str, value: object) -> dict[str, Any]:
    """A file with this value of the key in it."""
    part: dict[str, Any] = {"name": "it", key: value} if "name" in model.model_fields else {key: value}
    projects: dict[Any, dict[str, Any]] = {
        AgentConfig: {"agents": [part]},
        GroupConfig: {"groups": [part]},
        HookConfig: {"hook": part},
        ProjectConfig: part,
        RuleConfig: {"rules": [part]},
        ScheduleConfig: {"schedules": [part]},
        WhenConfig: {"rules": [{"name": "it", "when": part}]},
        RuleTestConfig: {"tests": [part]},
        RuleTestCallConfig: {"tests": [{"name": "it", "call": part}]},
        ExpectConfig: {"tests": [{"name": "it", "expect": part}]},
    }
    return {"projects": [{"name": "acme"} | projects[model]]}


@pytest.mark.parametrize(("model", "key"), LISTS, ids=[f"{model.__name__}.{key}" for model, key in LISTS])
def test_a_list_that_is_too_long_is_refused_with_its_place_and_a_remedy(model: Any, key: str) -> None:
    count = most_of(model, key) + 1
    is_mapping = model.model_fields[key].annotation and "dict" in str(model.model_fields[key].annotation)
    entries = [f"380{671_000_000 + n}" for n in range(count)]
    value = dict.fromkeys(entries, "closed") if is_mapping else entries
    said = refusals(around(model, key, value))
    place = f"{PLACES[model]}.{key}: found {count:,} entries; take some out, or divide it: {count - 1:,} fit"
    assert any(place in line for line in said), said
    assert f"at most {count - 1:,}" in render_reference()


@pytest.mark.parametrize("key", ["params", "not_params"])
def test_so_is_a_list_of_values_of_one_parameter(key: str) -> None:
    said = refusals(around(WhenConfig, key, {"q": [f"v{n}" for n in range(most_of(WhenConfig, key) + 1)]}))
    assert any(f".when.{key}.q: found 1,001 entries" in line for line in said), said


def test_a_blocklist_of_any_length_is_refused() -> None:
    assert refusals(around(WhenConfig, "caller", [f"0{671_000_000 + n}" for n in range(100_000)]))
