"""What the hook notes of a request is told in the reader's language."""

from __future__ import annotations

from router.admin.received import notes_of
from router.core.notes import NOTES, PLACES
from router.core.words import Message
from tests.admin.conftest import Admin


def told(admin: Admin, language: str, *problems: object) -> list[str]:
    with admin.app.test_request_context("/", headers={"Accept-Language": language}):
        return list(notes_of({"problems": problems}))


def test_a_note_is_told_in_the_readers_language_with_its_values(admin: Admin) -> None:
    for place in PLACES:
        note = Message(NOTES["many_parameters"], {"place": place, "n": 1000}).as_json()
        assert told(admin, "en", note) == [f"The {place} holds more than 1000 parameters; the rest was left out."]
        (ukrainian,) = told(admin, "uk", note)
        assert "1000" in ukrainian
        assert place not in ukrainian


def test_a_note_of_another_release_is_told_as_it_was_stored(admin: Admin) -> None:
    assert told(admin, "uk", "The body is on fire.") == ["The body is on fire."]
    (later,) = told(admin, "uk", {"code": "on_fire", "n": 7})
    assert "on_fire" in later
