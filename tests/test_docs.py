"""The documents keep up with the code: settings, make targets, links, the changelog."""

from __future__ import annotations

import re
import subprocess
from enum import StrEnum
from pathlib import Path

import click
import pytest

from router.cli import main
from router.config import Settings, render_env_example, render_table
from router.configuration import check, load
from router.core.model import Cause, DeviceState, Outcome, SkipReason, Status, WhenUnknown
from router.core.strategies import STRATEGIES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/**/*.md")])


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_in(document: Path) -> str:
    return "\n".join(re.findall(r"```.*?```|`[^`]+`", document.read_text(encoding="utf-8"), re.DOTALL))


def test_env_example_is_what_the_settings_say() -> None:
    assert text_of(".env.example") == render_env_example(), "Renew it: python -m router.config > .env.example"


def test_env_example_changes_nothing_when_its_defaults_are_set() -> None:
    lines = [line[1:] for line in render_env_example().splitlines() if re.match(r"#[A-Z_]+=", line)]
    assert len(lines) == len(Settings.model_fields)
    as_set = dict(line.split("=", 1) for line in lines)
    secret = {"SECRET_KEY": "s" * 40}
    assert Settings.load({**as_set, **secret}) == Settings.load(secret)


def test_the_table_of_settings_is_what_the_settings_say() -> None:
    found = re.search(
        r"<!-- settings:[^\n]*-->\n(.*?)<!-- end of settings -->", text_of("docs/configuration.md"), re.DOTALL
    )
    assert found
    assert found[1] == render_table(), "Renew it: python -m router.config --markdown"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_says_what_it_does_and_what_it_takes(name: str) -> None:
    field = Settings.model_fields[name]
    notes = field.json_schema_extra
    assert isinstance(notes, dict)
    assert notes["wants"]
    assert field.description
    assert field.description.endswith(".")
    assert field.default_factory is None or notes["unset"], "a default that depends on others is put in words"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    paths = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:", link)]
    assert [path for path in paths if path and not (document.parent / path).exists()] == []


def test_make_targets_named_in_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", text_of("Makefile"), re.MULTILINE))
    named = {
        (document.name, target)
        for document in DOCUMENTS
        for target in re.findall(r"\bmake ([a-z]+)", code_in(document))
    }
    assert {(document, target) for document, target in named if target not in targets} == set()
    assert {"run", "test"} <= {target for document, target in named if document == "README.md"}


def test_commands_named_in_documents_exist() -> None:
    def exists(words: list[str]) -> bool:
        command: click.Command | None = main
        for word in words:
            if not isinstance(command, click.Group):
                return True  # an argument
            command = command.commands.get(word)
        return command is not None

    named = {
        (document.name, *words.split())
        for document in DOCUMENTS
        for words in re.findall(r"(?<![\w.-])router ([a-z][a-z-]+(?: [a-z][a-z-]+)?)", code_in(document))
    }
    assert {command for command in named if not exists(list(command[1:]))} == set()
    assert ("README.md", "config", "apply") in named


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md", "docs/decisions.md"])
def test_files_named_in_documents_exist(name: str) -> None:
    named = re.findall(r"`([a-z_.]+(?:/[a-z_.]+)*(?:\.py|/))`", text_of(name))
    assert [path for path in named if not (ROOT / path).exists() and not (ROOT / "router" / path).exists()] == []


def test_each_control_of_the_threat_model_has_a_test_that_exists() -> None:
    rows = [line for line in text_of("docs/security.md").splitlines() if re.match(r"\| (?!threat|\|)\S.* \|", line)]
    named = {row: re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2]) for row in rows}
    assert len(rows) > 50
    assert [row for row, tests in named.items() if not tests] == [], "a control without a test"
    wanted = {test for tests in named.values() for test in tests}
    there = {(path, name) for path in {path for path, _ in wanted} for name in _functions_of(path)}
    assert sorted(wanted - there) == []


def _functions_of(path: str) -> list[str]:
    return re.findall(r"^ *def (test_\w+)\(", text_of(path), re.MULTILINE) if (ROOT / path).exists() else []


def test_each_exception_from_the_security_rules_gives_its_reason() -> None:
    folders = ("router", "migrations", "ops", "bench", "chaos")
    code = [path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")]
    exceptions = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in code
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"# noqa: (?:[A-Z]+\d+, ?)*S\d", line)
    ]
    assert len(exceptions) > 5
    assert [line for line in exceptions if not re.search(r"# noqa: [A-Z0-9, ]+ - \w", line)] == []
    ignored = [line for line in text_of("pyproject.toml").splitlines() if re.match(r' +"S\d+"', line)]
    assert [line for line in ignored if "  # " not in line] == []


@pytest.mark.parametrize(
    "words", [Status, DeviceState, SkipReason, Outcome, Cause, WhenUnknown], ids=lambda enum: enum.__name__
)
def test_the_glossary_tells_what_each_word_means(words: type[StrEnum]) -> None:
    explained = set(re.findall(r"^\| `([a-z_]+)` \| \w", text_of("docs/glossary.md"), re.MULTILINE))
    assert {word.value for word in words} <= explained


def test_the_documents_explain_every_strategy() -> None:
    assert set(STRATEGIES) <= set(re.findall(r"^\| `([a-z_]+)` \|", text_of("docs/strategies.md"), re.MULTILINE))


def test_the_readme_s_configuration_can_be_applied_without_a_warning() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", text_of("README.md"), re.DOTALL)
    read = load(text, {"RINGOSTAT_AUTH_KEY": "key"}, filename="acme.yaml")
    assert [project.name for project in read.projects] == ["acme"]
    assert check(read) == []


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = set(re.findall(r"^  make ([a-z]+) ", listed, re.MULTILINE))
    assert targets >= {"help", "run", "install", "test", "lint", "bench", "lock"}


def test_the_changelog_opens_with_what_is_not_released_yet() -> None:
    first = re.search(r"^## (.*)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert first
    assert first[1] == "Unreleased"


def test_the_recipes_name_files_that_exist() -> None:
    recipes = text_of("docs/architecture.md").partition("## Where to add things")[2]
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)`", recipes)) - {"tests/core/", "tests/hook/samples/"}
    assert len(named) > 8
    assert [path for path in sorted(named) if not (ROOT / "router" / path.removeprefix("router/")).exists()] == []
