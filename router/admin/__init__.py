"""The admin: web pages where people see and change what the router does.

    page       the blueprint, roles, transactions: what every page stands on
    auth       who somebody is      security   headers, cookies, forged requests
    views/     the pages, a file for each subject; forms/ their forms, templates/ their looks
    slots      calls go first       i18n       languages       assets     static files

Nothing of it runs for the hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from router.admin.page import BackgroundLike
    from router.config import Settings
    from router.db.session import Database
    from router.routing import Routing


def register(app: Flask, settings: Settings, database: Database, routing: Routing, background: BackgroundLike) -> None:
    """Put the pages into the app. `routing` is used to try calls, `background` to ask for fresh presence."""
    # Late: the command line imports parts of this package and should not wait for Flask's extensions.
    from router.admin import entry

    entry.register(app, settings, database, routing, background)
