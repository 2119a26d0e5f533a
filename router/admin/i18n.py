"""The pages' languages: which one a request gets, and the words to mark texts with.

`_` and `ngettext` translate at once, `lazy` where there is no request yet (labels of forms). `make translations`
collects the texts of all Python files and templates of the admin into router/translations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, g, has_request_context, request
from flask_babel import Babel, get_locale
from flask_babel import gettext as _gettext
from flask_babel import lazy_gettext as _lazy_gettext
from flask_babel import ngettext as _ngettext

if TYPE_CHECKING:
    from babel import Locale

LANGUAGES = {"en": "English", "uk": "Українська"}
COOKIE = "language"
TRANSLATIONS = Path(__file__).parents[1] / "translations"

_YEAR = 365 * 24 * 3600


def _(text: str, **values: Any) -> str:
    """The text in the reader's language, its %(name)s filled in."""
    translated: str = _gettext(text, **values)
    return translated


def ngettext(one: str, many: str, num: int, **values: Any) -> str:
    """The form of the text that goes with the number, %(num)s filled in."""
    translated: str = _ngettext(one, many, num, **values)
    return translated


def lazy(text: str, **values: Any) -> Any:
    """Text that is translated when it is shown. Typed as anything: forms and tables take it for a str."""
    return _lazy_gettext(text, **values)


def use_languages(app: Flask) -> None:
    """Set up translations. Nothing runs per request but where a text is looked up."""
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(TRANSLATIONS)
    Babel(app, default_locale="en", locale_selector=_choose)


def _choose() -> str:
    """By the user's setting, the switch, or what the browser asks for."""
    if not has_request_context():
        return "en"
    user = g.get("user")
    for wanted in (user.language if user else "", request.cookies.get(COOKIE, "")):
        if wanted in LANGUAGES:
            return wanted
    return request.accept_languages.best_match(LANGUAGES, "en") or "en"


def language() -> str:
    """The language of this request: a key of LANGUAGES."""
    locale: Locale | None = get_locale()
    return locale.language if locale is not None else "en"


def remember(response: Response, chosen: str, *, secure: bool) -> None:
    """Keep the choice in this browser."""
    response.set_cookie(COOKIE, chosen, max_age=_YEAR, secure=secure, httponly=True, samesite="Lax")
