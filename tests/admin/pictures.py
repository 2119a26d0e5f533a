"""The pictures of the README: `.venv/bin/python -m tests.admin.pictures [FOLDER]` takes them anew, in about a minute.

The service as it is deployed, the demo PBX that calls it, and a real Chromium that looks at a few of its pages.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import Page, sync_playwright
from sqlalchemy import func, select

from router.admin.auth import first_owner_link
from router.db import migrate, models
from router.db.session import Database
from simulator.pbx import PROJECT
from simulator.service import Service, serving
from simulator.settings import PbxSettings
from tests.admin.conftest import CHROMIUM, CHROMIUM_ARGUMENTS

FOLDER = Path(__file__).parents[2] / "docs" / "images"
CALLS = 60
SIZE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 860}
MORE: dict[str, Any] = {
    "name": "acme",
    "schedules": [{"name": "office hours", "open": {"mon-sun": ["07:00-21:00"]}}],
}
RULES: list[dict[str, Any]] = [
    {"name": "regulars", "when": {"caller": ["+38067*", "+38096*"]}, "prefer": "last_agent", "groups": ["sales"]},
    {
        "name": "adverts",
        "when": {"dialed": ["380443330003"], "params": {"utm_source": ["google"]}},
        "groups": ["sales"],
    },
    {"name": "night", "when": {"outside": "office hours"}, "groups": [], "overflow": "380671234567"},
]


def configuration() -> str:
    """The demo's project, with more rules before its own."""
    text = PROJECT.read_text(encoding="utf-8")
    project: dict[str, Any] = yaml.safe_load(text.replace("${DEMO_API_URL}", "${API_URL}"))["projects"][0]
    project |= MORE
    project["rules"] = RULES + project["rules"]
    return yaml.safe_dump({"projects": [project]})


def decided(service: Service) -> int:
    """How many calls were routed so far."""
    with service.database.reading() as session:
        return session.scalar(select(func.count()).select_from(models.Decision)) or 0


def take(page: Page, service: Service, folder: Path) -> None:
    """Sign up by the one-time link, and take the pictures."""
    link = first_owner_link(service.database, service.url)
    page.goto(link or "")
    page.get_by_label("Email").fill("olena@example.org")
    for box in page.locator("input[type=password]").all():
        box.fill("a long sentence")
    page.get_by_role("button", name="Create account").click()
    page.get_by_role("heading", name="Board").wait_for()
    page.get_by_role("button", name="Set on break: Frank").click()
    while decided(service) < CALLS:
        page.wait_for_timeout(500)
    page.goto("/p/acme/calls")
    answered = page.get_by_role("row").filter(has_text="everyone else").filter(has_text="Answered")
    answered.filter(has_not_text="Overflow").first.get_by_role("link").first.click()
    page.get_by_role("heading", name="The answer").wait_for()
    page.screenshot(
        path=folder / "call.png", clip={"x": 216, "y": 52, "width": SIZE["width"] - 216, "height": 1240}, full_page=True
    )
    for name in ("rules", "hook", "board"):
        page.goto(f"/p/acme/{name}")
        page.wait_for_timeout(300)
        page.screenshot(path=folder / f"{name}.png")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    page.wait_for_timeout(300)
    page.screenshot(path=folder / "phone.png")


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pbx_settings = PbxSettings(calls_per_minute=12, speed=4, talk_seconds=60, own_calls_per_hour=6, form="mixed")
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as playwright:
        url = f"sqlite:///{kept}/router.db"
        database = Database(url)
        migrate.upgrade(database)
        database.dispose()
        with serving(
            Path(kept), url, configuration(), pbx_settings, processes=2, PUBLIC_URL="http://router.example.com"
        ) as (service, pbx):
            for login in ("demo_carol", "demo_carol_mob"):
                pbx.set_state(login, "offline")
            pbx.start_calls()
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
            context = browser.new_context(
                base_url=service.url, viewport=SIZE, locale="en", reduced_motion="reduce",  # type: ignore[arg-type]
            )  # fmt: skip
            take(context.new_page(), service, folder)
            browser.close()
            pbx.stop_calls()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
