"""The languages of the pages: choose one for a request, and translate texts.

`_` and `ngettext` translate at once, `lazy` later, where there is no request yet (labels of forms). `make translations`
collects the texts of all Python files and templates, and those that `N_` marks, into router/translations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, current_app, g, has_app_context, has_request_context, request
from flask_babel import Babel, get_locale, get_translations
from flask_babel.speaklater import LazyString

from router.explanation.words import Language

if TYPE_CHECKING:
    from babel import Locale
    from babel.support import NullTranslations

LANGUAGES = {"en": "English", "uk": "Українська"}
COOKIE = "language"
TRANSLATIONS = Path(__file__).parents[1] / "translations"

_YEAR = 365 * 24 * 3600


def _(text: str, **values: Any) -> str:
    """Return the text in the reader's language, with %(name)s filled in."""
    translated: str = _catalog().ugettext(text)
    return translated % values if values else translated


def ngettext(one: str, many: str, num: int, **values: Any) -> str:
    """Return the text in the form for this number, with %(num)s filled in."""
    translated: str = _catalog().ungettext(one, many, num)
    return translated % {"num": num, **values}


def pgettext(context: str, text: str) -> str:
    """Return the text as translated in this context: "first" of a Monday, of a Sunday."""
    translated: str = _catalog().upgettext(context, text)
    return translated


def lazy(text: str, **values: Any) -> Any:
    """Return a text that is translated when it is shown. Typed as Any: forms and tables use it as a str."""
    return LazyString(_, text, **values)


def _catalog() -> NullTranslations:
    """Return the catalog of the reader's language. Looked up once per request: pages have thousands of texts."""
    catalog: NullTranslations | None = g.get("catalog") if has_app_context() else None
    if catalog is None:
        catalog = get_translations()
        if has_app_context():
            g.catalog = catalog
    return catalog


READER = Language(lambda text: _catalog().ugettext(text), lambda *forms: str(_catalog().ungettext(*forms)))
"""Says messages in the reader's language."""


def use_languages(app: Flask) -> None:
    """Set up translations."""
    app.config["BABEL_TRANSLATION_DIRECTORIES"] = str(TRANSLATIONS)
    Babel(app, default_locale="en", locale_selector=_choose)
    app.jinja_env.install_gettext_callables(  # type: ignore[attr-defined]  # comes with the extension that Babel adds
        lambda text: _catalog().ugettext(text),
        lambda one, many, num: _catalog().ungettext(one, many, num),
        newstyle=True,
    )


def _choose() -> str:
    """Return the language by the user's setting, the cookie, or the browser."""
    if not has_request_context():
        return "en"
    user = g.get("user")
    for wanted in (user.language if user else "", request.cookies.get(COOKIE, "")):
        if wanted in LANGUAGES:
            return wanted
    return request.accept_languages.best_match(LANGUAGES, "en") or "en"


def language() -> str:
    """Return the language of this request: a key of LANGUAGES."""
    locale: Locale | None = get_locale()
    return locale.language if locale is not None else "en"


def remember(response: Response, chosen: str, *, secure: bool) -> None:
    """Remember the choice in this browser."""
    path = current_app.config["APPLICATION_ROOT"]
    response.set_cookie(COOKIE, chosen, max_age=_YEAR, path=path, secure=secure, httponly=True, samesite="Lax")
