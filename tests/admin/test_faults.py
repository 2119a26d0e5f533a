"""Every error of the rules has a code, and forms have words for each."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

import pytest

from router import configuration
from router.admin.faults import WORDS, words_of_fault
from router.configuration import schema
from router.configuration.check import read
from router.configuration.schema import Config, Fault, ProjectConfig, part_of
from router.core.dates import DatesError
from router.core.instants import InstantError
from router.core.patterns import PatternError
from router.core.schedule_words import ScheduleError
from router.core.words import WordedError, Wrong

CODES = [*chain.from_iterable(Wrong.__subclasses__())]


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_words_in_a_form(code: Wrong) -> None:
    assert "%" not in str(WORDS[code]) % {"text": "typed"}
    assert code.words
    assert code.help


def test_a_code_means_one_thing() -> None:
    assert len({*CODES}) == len(CODES) > 30


def test_every_kind_of_fault_has_words_in_a_form() -> None:
    # Where the kind stands among the arguments of what reports a fault.
    places = {"SchemaError": 2, "_check": 0, "refuse": 3, "check_once": 3}
    kinds = set()
    for path in Path(configuration.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and len(node.args) > (
                place := places.get(getattr(node.func, "attr", getattr(node.func, "id", "")), 99)
            ):
                kinds.add(getattr(node.args[place], "value", None))
    kinds = {kind for kind in kinds if isinstance(kind, str)}
    assert kinds > {"direction", "name of a field", "name of a parameter", "own_deputy"}
    assert kinds <= WORDS.keys()


@pytest.mark.parametrize(
    ("error", "arguments"),
    [(PatternError, ()), (DatesError, ()), (InstantError, ()), (ScheduleError, ("open",))],
)
def test_an_error_without_a_code_cannot_be_raised(
    error: Callable[..., WordedError], arguments: tuple[str, ...]
) -> None:
    with pytest.raises((AttributeError, TypeError)):
        error(*arguments, "is not valid", "write another")


def test_a_long_text_is_shown_by_its_beginning() -> None:
    assert len(words_of_fault(PatternError(next(code for code in CODES if code == "range"), text="1" * 999))) < 200


WRONG: list[Any] = [
    "",
    "x\x00",
    "no such",
    "9" * 400,
    -(10**12),
    10**12,
    [],
    ["\x00"] * 2000,
    [[]],
    {"no such": 1},
    {},
    None,
    True,
]


def models_of(model: type[Config]) -> Iterator[type[Config]]:
    """The model and those of its parts."""
    yield model
    for key in model.model_fields:
        if (part := part_of(model, key)[0]) is not None:
            yield from models_of(part)


@pytest.mark.parametrize("model", [*dict.fromkeys(models_of(ProjectConfig))], ids=lambda model: model.__name__)
def test_whatever_a_key_is_given_a_form_has_words_for_what_is_wrong(model: type[Config]) -> None:
    faults: list[Fault] = []

    def refuse(path: schema.Path, message: str, remedy: str, kind: str = "", **values: Any) -> None:
        faults.append(Fault(path, message, remedy, kind, values))

    for key, wrong in product([*model.model_fields, "no such"], WRONG):
        read(model, {key: wrong}, (), refuse)
    read(model, [], (), refuse)
    assert {fault.kind for fault in faults} >= {"of_wrong_kind", "unknown_key"}
    for fault in faults:
        assert fault.kind in WORDS, str(fault)
        assert words_of_fault(fault)
