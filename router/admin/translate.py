"""Collect the texts of the pages and update the catalogs: `make translations`. Not part of the running service.

Each text of a Python file or template gets an entry in router/translations/LANGUAGE/LC_MESSAGES/messages.po. Existing
translations stay, unused texts are removed. The compiled .mo is written beside it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from router.admin.i18n import LANGUAGES, TRANSLATIONS

_ROUTER = Path(__file__).parents[1]
_METHODS = [
    *((f"{layer}/**.py", "python") for layer in ("admin", "core", "configuration", "explanation", "presence")),
    ("admin/templates/**.html", "jinja2"),
]
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)  # no date in the files: it would change each time


def collect() -> Catalog:
    """Return all texts of the code, without translations."""
    catalog = Catalog(project="router", version="", copyright_holder="the router authors", creation_date=_EPOCH)
    keywords = {**DEFAULT_KEYWORDS, "lazy": None, "NN_": (1, 2)}
    for name, _line, message, _comments, context in sorted(
        extract_from_dir(_ROUTER, _METHODS, keywords=keywords), key=lambda found: found[:2]
    ):
        catalog.add(message, None, [(f"router/{name}", 1)], context=context)
    return catalog


def catalog_path(language: str) -> Path:
    """Return the .po file of a language."""
    return TRANSLATIONS / language / "LC_MESSAGES" / "messages.po"


def read_catalog(language: str) -> Catalog:
    """Return the translations as they are; an empty catalog for a new language."""
    path = catalog_path(language)
    if not path.exists():
        return Catalog(locale=language, project="router", creation_date=_EPOCH)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def compiled(catalog: Catalog) -> bytes:
    """Return the .mo file of a catalog."""
    buffer = BytesIO()
    write_mo(buffer, catalog)
    return buffer.getvalue()


def renewed(language: str) -> Catalog:
    """Return the language's catalog with the present texts."""
    catalog = read_catalog(language)
    catalog.update(collect(), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    catalog.revision_date = catalog.creation_date = _EPOCH
    catalog.header_comment = "# The texts of the admin pages. Renewed by `make translations`."
    catalog.last_translator = catalog.language_team = "the router authors"
    catalog.msgid_bugs_address, catalog.fuzzy = "", False
    return catalog


def missing(catalog: Catalog) -> list[str]:
    """Return the texts without translation, or with a fuzzy one."""
    found = []
    for message in catalog:
        texts = message.string if isinstance(message.string, tuple | list) else (message.string,)
        if message.id and (message.fuzzy or not all(texts)):
            found.append(message.id[0] if isinstance(message.id, tuple | list) else message.id)
    return found


def main() -> None:
    """Update the catalogs of all languages except English, the language of the texts."""
    for language in LANGUAGES:
        if language == "en":
            continue
        catalog = renewed(language)
        path = catalog_path(language)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_po(file, catalog, width=120, include_lineno=False, ignore_obsolete=True)
        path.with_suffix(".mo").write_bytes(compiled(read_catalog(language)))
        lacking = missing(catalog)
        sys.stdout.write(f"{path}: {len(catalog)} texts, {len(lacking)} without translation\n")


if __name__ == "__main__":
    main()
