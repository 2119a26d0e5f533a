"""The service under a path of its host, behind a proxy that takes that path away and behind one that leaves it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from html import unescape
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from playwright.sync_api import Browser as ChromiumBrowser
from playwright.sync_api import BrowserContext, Page, expect

from router.admin.auth import first_owner_link
from router.db import models
from router.db.migrate import upgrade
from simulator.service import Service
from tests.admin.conftest import listen
from tests.front import PATH, Front, fronting, self_signed

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    hook: {answer: http}
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, when_unknown: assume_online}
    schedules: [{name: office hours, open: {mon-fri: ["09:00-18:00"]}}]
    agents: [{name: Ann, sip_logins: [acme_ann]}, {name: Ben, sip_logins: [acme_ben]}]
    groups: [{name: sales, members: [{agent: Ann}, {agent: Ben}]}]
    rules: [{name: everyone, groups: [sales]}, {name: late, when: {schedule: office hours}, groups: [sales]}]
"""
OWNER, PASSWORD = "olena@example.org", "a long sentence"
TOKEN = "m" * 20
Placed = tuple[Service, Front]


@pytest.fixture(scope="module", params=["taken away, http", "left in place, https"])
def placed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    """The service and what stands in front of it."""
    folder = tmp_path_factory.mktemp("placed")
    kind, scheme = request.param.split(", ")
    certificate = self_signed(folder) if scheme == "https" else None
    with fronting(strips=kind == "taken away", certificate=certificate) as front:
        url = f"sqlite+pysqlite:///{folder / 'router.db'}"
        environ = {"PUBLIC_URL": front.url, "PROXY_HOPS": "1", "METRICS_TOKEN": TOKEN, "PRESENCE_KEEPER": "off"}
        service = Service(folder, url, processes=1, **environ)
        upgrade(service.database)
        service.configure(CONFIG)
        service.start()
        front.backend = service.port
        yield service, front
        service.stop()
        assert front.strays == []


@pytest.fixture
def asking() -> Iterator[requests.Session]:
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the certificate, which is nobody's
        session.verify = session.trust_env = False
        yield session


@pytest.fixture
def context(chromium_process: ChromiumBrowser, placed: Placed) -> Iterator[BrowserContext]:
    context = chromium_process.new_context(ignore_https_errors=True, locale="en", reduced_motion="reduce")
    context.set_default_timeout(60_000)
    complaints: list[str] = []
    context.on("page", lambda page: listen(page, complaints))
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def page(context: BrowserContext, placed: Placed) -> Page:
    """A browser in which the owner signed in."""
    service, front = placed
    with service.database.reading() as session:
        is_new = session.query(models.User).count() == 0
    page = context.new_page()
    if is_new:
        page.goto(first_owner_link(service.database, front.url) or "")
        page.get_by_label("Email").fill(OWNER)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.get_by_role("button", name="Create account").click()
        page.wait_for_url(f"{front.url}/**")
        context.clear_cookies()
    page.goto(f"{front.url}/p/acme/groups?q=sales")  # and comes back there
    page.get_by_label("Email").fill(OWNER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{front.url}/p/acme/groups?q=sales")
    return page


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/sign-in", "/static/theme.css"])
def test_probes_and_pages_are_there_under_the_path_and_without_it(
    placed: Placed, asking: requests.Session, path: str
) -> None:
    service, front = placed
    for url in (front.url, service.url, service.url + PATH):
        assert asking.get(url + path, timeout=60, allow_redirects=False).status_code == 200


def test_metrics_are_there_for_who_has_the_token(placed: Placed, asking: requests.Session) -> None:
    url, headers = f"{placed[1].url}/metrics", {"Authorization": f"Bearer {TOKEN}"}
    assert "router_build_info" in asking.get(url, headers=headers, timeout=60).text
    assert asking.get(url, timeout=60).status_code == 401


def test_a_call_is_routed_and_its_event_told(placed: Placed, asking: requests.Session) -> None:
    service, front = placed
    hook = service.run("hook-url", "acme").strip()
    token = hook.removeprefix(f"{front.url}/hook/")
    assert "/" not in token, "the command shows it under PUBLIC_URL"
    for url in (hook, f"{service.url}/hook/{token}", f"{service.url}{PATH}/hook/{token}"):
        for slash in ("", "/"):
            answer = asking.post(f"{url}{slash}", json={"uniqueid": f"call {url}{slash}"}, timeout=60)
            assert (answer.status_code, answer.text in {"acme_ann", "acme_ben", "380441234567"}) == (200, True)
            event = {"event": "hangup", "uniqueid": f"call {url}{slash}"}
            assert asking.post(f"{url}/event{slash}", json=event, timeout=60).text == "OK\n"


def test_somebody_signs_in_and_sets_something_up(page: Page, context: BrowserContext, placed: Placed) -> None:
    front = placed[1]
    cookies = {cookie["name"]: cookie for cookie in context.cookies()}
    guard = "__Secure-" if front.scheme == "https" else ""
    assert cookies.keys() == {f"{guard}session", f"{guard}device"}
    assert {cookie["path"] for cookie in cookies.values()} == {PATH}, "nobody else's on this host"
    assert {cookie["secure"] for cookie in cookies.values()} == {front.scheme == "https"}

    page.goto(front.url)
    page.wait_for_url(f"{front.url}/p/acme/board")
    page.get_by_role("link", name="Agents", exact=True).click()
    page.get_by_role("link", name="Add agent").first.click()
    page.get_by_label("Agent’s name", exact=True).fill("Cleo")
    page.get_by_label("SIP login").first.fill("acme_cleo")
    page.get_by_role("button", name="Add agent").click()
    page.wait_for_url(f"{front.url}/p/acme/agents*")
    expect(page.get_by_role("link", name="Cleo", exact=True)).to_be_visible()

    # By htmx: a check that answers on the page, a board that renews itself.
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Presence").click()
    with page.expect_response(lambda response: response.url == f"{front.url}/p/acme/settings/check") as checked:
        page.get_by_role("button", name="Check connection").click()
    assert checked.value.ok
    with page.expect_response(lambda response: f"{front.url}/p/acme/board/live" in response.url) as renewed:
        page.get_by_role("link", name="Board").click()
    assert renewed.value.ok

    page.get_by_role("link", name="Hook", exact=True).click()
    assert page.locator("#hook-url").input_value().startswith(f"{front.url}/hook/")
    page.get_by_role("button", name="Send a test request").click()
    expect(page.locator("[role=status]").first).to_contain_text("The hook answered in")


def test_who_is_signed_out_beside_an_open_page_signs_in_over_it(
    page: Page, context: BrowserContext, placed: Placed
) -> None:
    front = placed[1]
    page.goto(f"{front.url}/p/acme/board")
    context.clear_cookies()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Email")).to_have_value(OWNER)
    dialog.get_by_label("Password").fill(PASSWORD)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_have_count(0)
    assert page.url == f"{front.url}/p/acme/board"


def test_no_link_leads_out_of_the_path(
    page: Page, context: BrowserContext, placed: Placed, asking: requests.Session
) -> None:
    service, front = placed
    asking.post(service.hook_url("acme"), json={"uniqueid": "seen"}, timeout=60)
    asking.headers["Cookie"] = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in context.cookies())
    seen, waiting = set[str](), [f"{front.url}/"]
    while waiting:
        address = waiting.pop()
        answer = asking.get(address, timeout=60, allow_redirects=False)
        assert answer.status_code in {200, 302}, address
        links = [("href", answer.headers["Location"])] if answer.status_code == 302 else []
        if answer.headers["Content-Type"].startswith("text/html"):
            links += re.findall(r'\s(href|src|action|formaction|hx-get|hx-post)="([^"]*)"', answer.text)
        for kind, link in links:
            url = urlsplit(urljoin(address, unescape(link)))
            if url.scheme in {"http", "https"} and url.netloc == urlsplit(front.url).netloc:
                assert f"{url.path}/".startswith(f"{PATH}/"), f"{link} on {address}"
                alike = re.sub(r"\d+|(?<==)[^&]*", "", f"{url.path}?{url.query}")
                if kind in {"href", "src"} and alike not in seen:
                    seen.add(alike)
                    waiting.append(url._replace(fragment="").geturl())
    assert len(seen) > 30
