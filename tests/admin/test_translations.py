"""Every text of the pages has its Ukrainian, and the compiled catalog is that of the text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from router.admin import i18n
from router.admin.i18n import LANGUAGES
from router.admin.translate import catalog_path, collect, compiled, missing, read_catalog, renewed

OTHERS = [language for language in LANGUAGES if language != "en"]
RENEW = "run: make translations, and fill in what is empty"
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+\}")


def key(message: object) -> object:
    return getattr(message, "context", None), getattr(message, "id", None)


@pytest.mark.parametrize("language", OTHERS)
def test_nothing_is_left_untranslated(language: str) -> None:
    assert missing(renewed(language)) == [], RENEW


@pytest.mark.parametrize("language", OTHERS)
def test_the_catalog_holds_the_texts_that_there_are(language: str) -> None:
    assert {key(m) for m in read_catalog(language)} - {(None, "")} == {key(m) for m in collect()} - {(None, "")}, RENEW


def test_no_text_stands_inside_an_f_string() -> None:
    """The extraction does not look there."""
    lost = []
    for path in Path(i18n.__file__).parent.rglob("*.py"):
        inside = (one for one in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(one, ast.JoinedStr))
        for call in (node for one in inside for node in ast.walk(one) if isinstance(node, ast.Call)):
            is_marked = isinstance(call.func, ast.Name) and call.func.id in {"_", "ngettext", "lazy"}
            if is_marked and isinstance(call.args[0], ast.Constant):
                lost.append(f"{path.name}:{call.lineno}")
    assert lost == []


@pytest.mark.parametrize("language", OTHERS)
def test_the_compiled_catalog_is_current(language: str) -> None:
    assert catalog_path(language).with_suffix(".mo").read_bytes() == compiled(read_catalog(language)), RENEW


@pytest.mark.parametrize("language", OTHERS)
def test_translations_keep_the_placeholders(language: str) -> None:
    wrong = []
    for message in read_catalog(language):
        if not message.id:
            continue
        texts = message.string if isinstance(message.string, tuple | list) else (message.string or "",)
        ids = message.id if isinstance(message.id, tuple | list) else (message.id,)
        expected = {name for text in ids for name in PLACEHOLDER.findall(text)}
        for text in texts:
            found = set(PLACEHOLDER.findall(text))
            if found != expected and not (expected - found <= {"%(num)s"} and found <= expected):
                wrong.append((ids[0], text))
    assert wrong == []


@pytest.mark.parametrize("language", OTHERS)
def test_plurals_have_all_forms(language: str) -> None:
    catalog = read_catalog(language)
    plural = [m for m in catalog if isinstance(m.id, tuple | list)]
    assert plural
    assert {len(m.string or ()) for m in plural} == {catalog.num_plurals}


def test_texts_are_found_in_code_and_templates() -> None:
    texts = {m.id for m in collect()}
    assert "Sign in" in texts, "a template's"
    assert "Wrong email or password." in texts, "code's"
    assert "Declined or busy" in texts, "one that stands beside its value"
