"""One arrow: core <- db <- routing, presence <- explanation <- hook, admin <- app, cli.

An import that points up, or aside, fails.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "router").rglob("*.py"))
TRY_IT = {"simulator", "bench", "chaos", "tests"}
SIMULATOR = sorted({*(ROOT / "simulator").glob("*.py")} - {ROOT / "simulator/service.py"})  # which starts the product

# What any layer but the rules may use.
_AROUND = {"addresses", "config", "log", "metrics", "numbers"}
_BELOW_THE_PAGES = {"core", "db", "routing", "presence", "explanation"} | _AROUND
MAY_IMPORT: dict[str, set[str]] = {
    # The rules: pure.
    "core": set(),
    "config": set(),
    "log": {"config"},
    "metrics": set(),
    "addresses": set(),
    "numbers": {"core"},
    # Decisions and states, as data and in words.
    "explanation": {"core", "db", "routing"} | _AROUND,
    "db": {"core"} | _AROUND,
    # These two meet only in the database.
    "routing": {"core", "db"} | _AROUND,
    "presence": {"core", "db"} | _AROUND,
    "hook": _BELOW_THE_PAGES,
    # Configuration by file and by form: they make hook tokens and try the hook.
    "configuration": _BELOW_THE_PAGES | {"hook"},
    "check": {"db"} | _AROUND,
    "admin": _BELOW_THE_PAGES | {"hook", "configuration", "check"},
    "server": set(),
    "background": {"db", "presence"} | _AROUND,
    "health": {"check", "db", "routing"} | _AROUND,
    "app": _BELOW_THE_PAGES | {"hook", "admin", "background", "check", "configuration", "health"},
    "cli": _BELOW_THE_PAGES | {"hook", "admin", "app", "check", "configuration", "starter", "background"},
    "starter": _BELOW_THE_PAGES | {"hook", "configuration"},
    "__main__": {"cli"},
}

# Of the standard library, what has no clock, dice, disk, network or log. Zones are data: zoneinfo is allowed.
PURE = {
    "__future__", "abc", "bisect", "calendar", "collections", "copy", "dataclasses", "datetime", "decimal", "difflib",
    "enum", "fractions", "functools", "hashlib", "heapq", "itertools", "math", "operator", "re", "router", "statistics",
    "string", "types", "typing", "unicodedata", "zoneinfo",
}  # fmt: skip
TEMPLATE_LINE = 160  # characters
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "exec", "eval", "uuid1", "uuid4"}


def imports(source: str) -> Iterator[str]:
    """Full names of all that the source imports, wherever: inside functions and for type checking too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(source: str) -> Iterator[str]:
    """Last names of all that the source calls."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def astray(layer: str, source: str) -> set[str]:
    """The layers that a module of `layer` imports and may not."""
    ours = [name.split(".") for name in imports(source) if name.split(".")[0] == "router"]
    return {parts[1] for parts in ours if len(parts) > 1} - MAY_IMPORT[layer] - {layer}


def impurities(source: str) -> set[str]:
    """What a module of the core imports or calls and may not."""
    return {name.split(".")[0] for name in imports(source)} - PURE | set(calls(source)) & IMPURE_CALLS


def layer_of(module: Path) -> str:
    return module.relative_to(ROOT / "router").parts[0].removesuffix(".py")


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_point_down(module: Path) -> None:
    layer = layer_of(module)
    if layer == "__init__":
        assert {name for name in imports(module.read_text()) if name.startswith("router")} == set()
        return
    assert layer in MAY_IMPORT, f"router/{layer} has no place in the arrow: give it one in MAY_IMPORT, and in the map"
    assert astray(layer, module.read_text()) == set()


@pytest.mark.parametrize("module", [path for path in MODULES if layer_of(path) == "core"], ids=name_of)
def test_the_rules_are_pure(module: Path) -> None:
    assert impurities(module.read_text()) == set()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_the_product_imports_nothing_that_tries_it(module: Path) -> None:
    outside = {name.split(".")[0] for name in imports(module.read_text())} & TRY_IT
    assert outside <= ({"simulator"} if layer_of(module) == "cli" else set()), "only the commands look for a simulator"


@pytest.mark.parametrize("module", SIMULATOR, ids=name_of)
def test_the_simulated_pbx_shares_no_code_with_what_it_tests(module: Path) -> None:
    assert {name.split(".")[0] for name in imports(module.read_text())} & {"router", *TRY_IT} <= {"simulator"}


@pytest.mark.parametrize("module", [path for path in [*MODULES, *SIMULATOR] if path.stat().st_size], ids=name_of)
def test_a_module_opens_with_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), (
        "say in one to five lines what it is and what it may not do"
    )


def test_lines_of_templates_can_be_read() -> None:
    templates = sorted((ROOT / "router/admin/templates").rglob("*.html"))
    assert templates
    lines = [(path, n, line) for path in templates for n, line in enumerate(path.read_text().splitlines(), 1)]
    assert not [f"{path}:{n} has {len(line)} characters" for path, n, line in lines if len(line) > TEMPLATE_LINE]


@pytest.mark.parametrize(
    ("layer", "source", "found"),
    [
        ("db", "from router.routing import route_call", {"routing"}),
        ("db", "from router import routing", {"routing"}),
        ("presence", "import router.routing", {"routing"}),
        ("routing", "def f():\n    from router.presence import keeper", {"presence"}),
        ("core", "if TYPE_CHECKING:\n    from router.db.models import Call", {"db"}),
        ("hook", "from router.admin.views import page", {"admin"}),
        ("explanation", "from router.admin.i18n import READER", {"admin"}),
        ("routing", "from router.explanation.decision import explain", {"explanation"}),
        ("core", "from router.log import log", {"log"}),
        ("hook", "from router.routing import route_call\nfrom router.hook.fields import ALIASES", set()),
        ("cli", "from router.app import create_app", set()),
    ],
)
def test_sees_an_import_that_goes_astray(layer: str, source: str, found: set[str]) -> None:
    assert astray(layer, source) == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import requests", {"requests"}),
        ("from os import environ", {"os"}),
        ("import random", {"random"}),
        ("x = datetime.now(UTC)", {"now"}),
        ("print('here')", {"print"}),
        ("from zoneinfo import ZoneInfo\nfrom datetime import datetime\nfrom router.core.model import Call", set()),
    ],
)
def test_sees_what_is_not_pure(source: str, found: set[str]) -> None:
    assert impurities(source) == found
