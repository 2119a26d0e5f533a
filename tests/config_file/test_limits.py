"""Every list of the file has a stated limit, which is told with its place and a remedy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from router.config_file.reading import ConfigFileError, load
from router.config_file.words import (
    SECTIONS,
    AgentWords,
    GroupWords,
    HookWords,
    ProjectWords,
    RuleWords,
    ScheduleWords,
    WhenWords,
    most_of,
    render_reference,
)

PLACES: dict[Any, str] = {
    AgentWords: "projects[0].agents[0]",
    GroupWords: "projects[0].groups[0]",
    HookWords: "projects[0].hook",
    ProjectWords: "projects[0]",
    RuleWords: "projects[0].rules[0]",
    ScheduleWords: "projects[0].schedules[0]",
    WhenWords: "projects[0].rules[0].when",
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
        AgentWords: {"agents": [part]},
        GroupWords: {"groups": [part]},
        HookWords: {"hook": part},
        ProjectWords: part,
        RuleWords: {"rules": [part]},
        ScheduleWords: {"schedules": [part]},
        WhenWords: {"rules": [{"name": "it", "when": part}]},
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
    said = refusals(around(WhenWords, key, {"q": [f"v{n}" for n in range(most_of(WhenWords, key) + 1)]}))
    assert any(f".when.{key}.q: found 1,001 entries" in line for line in said), said


def test_a_blocklist_of_any_length_is_refused() -> None:
    assert refusals(around(WhenWords, "caller", [f"0{671_000_000 + n}" for n in range(100_000)]))
