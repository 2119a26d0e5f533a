"""The admin: web pages to see and change what the router does.

    page       the base of all pages: blueprint, roles, transactions
    auth       passwords, sessions  security   headers, cookies, forged requests
    views/     the pages, a file for each subject; forms/ their forms, templates/ their HTML
    i18n       languages            assets     static files

Nothing of it runs for the hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from router.admin.page import BackgroundLike
    from router.check import Watch
    from router.config import Settings
    from router.db.session import Database
    from router.routing.route import Routing


def register(
    app: Flask,
    settings: Settings,
    database: Database,
    routing: Routing,
    background: BackgroundLike,
    watch: Watch,
) -> None:
    """Add the pages to the app.

    `routing` tries calls, `background` refreshes presence, `watch` runs the checks of the installation.
    """
    # Imported here: the command line imports parts of this package and need not load Flask's extensions.
    from router.admin import entry

    entry.register(app, settings, database, routing, background, watch)
