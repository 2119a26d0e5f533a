"""Write measured figures into documents, between marks that name the command."""

from __future__ import annotations

import re
from pathlib import Path


def publish(document: Path, name: str, text: str) -> None:
    """Replace the text between <!-- `name`: … --> and <!-- end of `name` --> in the document.

    Raises ValueError if the document has no such marks.
    """
    whole = document.read_text(encoding="utf-8")
    start, end = _place(document, name, whole)
    document.write_text(f"{whole[:start]}{text}{whole[end:]}", encoding="utf-8")


def published(document: Path, name: str) -> str:
    """Return the text between these marks."""
    whole = document.read_text(encoding="utf-8")
    start, end = _place(document, name, whole)
    return whole[start:end]


def _place(document: Path, name: str, whole: str) -> tuple[int, int]:
    found = re.search(rf"<!-- {name}: [^\n]*-->\n(.*?)<!-- end of {name} -->", whole, re.DOTALL)
    if found is None:
        raise ValueError(f"{document} has no place for {name}")
    return found.span(1)
