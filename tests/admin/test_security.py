"""What guards every page: headers, tokens, cookies, sizes; and that nothing of it reaches the hook."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography.fernet import Fernet
from flask import request
from sqlalchemy import select

from router.admin.security import CONTENT_SECURITY_POLICY, safe_next
from router.db import models, queries
from router.db.types import use_encryption_keys
from tests.admin.conftest import Admin, Browser
from tests.admin.test_projects import save
from tests.rows import publish

ROOT = Path(__file__).parents[2]
HTTPS = {"PUBLIC_URL": "https://router.example.org"}


@pytest.mark.parametrize("path", ["/sign-in", "/projects", "/nowhere", "/p/acme/settings", "/users/new"])
def test_every_page_carries_the_headers(olena: Browser, path: str) -> None:
    headers = olena.get(path).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "geolocation=()" in headers["Permissions-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_the_policy_allows_nothing_unsafe_and_no_framing() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY


def test_the_policy_is_the_one_that_pages_are_made_for() -> None:
    documented = " ".join((ROOT / "docs" / "frontend.md").read_text(encoding="utf-8").split())
    assert CONTENT_SECURITY_POLICY in documented


def test_refusals_and_redirects_carry_the_headers_too(nobody: Browser, vira: Browser) -> None:
    for answer in (nobody.get("/projects"), vira.get("/users"), vira.client.post("/sign-out")):
        assert answer.status_code in {302, 400, 403}
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


# ---- the hook knows nothing of it


def test_nothing_runs_for_the_hook(admin: Admin) -> None:
    app = admin.app
    for functions in (app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs):
        assert not functions.get(None), "only the blueprint may have them"
        assert not functions.get("hook")
    assert set(app.url_value_preprocessors) <= {"admin"}


def test_the_hook_sets_no_cookie_and_takes_no_token(admin: Admin, nobody: Browser) -> None:
    with admin.database.reading() as session:
        token = queries.current_token(session, admin.one(models.Project, name="acme").id)
    with nobody.client.session_transaction() as session:
        session["user"] = "left alone"
    answer = nobody.client.post(f"/hook/{token}", json={"caller": "0501234567"})
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert "Content-Security-Policy" not in answer.headers
    for path in ("/healthz", "/readyz", "/metrics"):
        assert "Set-Cookie" not in nobody.get(path).headers


# ---- forged requests


@pytest.mark.parametrize("token", ["", "made-up", None])
def test_a_post_without_the_sessions_token_changes_nothing(admin: Admin, olena: Browser, token: str | None) -> None:
    data = {"email": "eve@example.org", "role": "owner"} | ({} if token is None else {"csrf_token": token})
    assert olena.client.post("/users/new", data=data).status_code == 400
    assert all(user.email != "eve@example.org" for user in admin.all(models.User))


def test_a_token_of_another_session_is_refused(olena: Browser, vira: Browser) -> None:
    _ = olena.token
    assert olena.client.post("/sign-out", data={"csrf_token": vira.token}).status_code == 400


def test_htmx_may_send_the_token_as_a_header(olena: Browser) -> None:
    headers = {"X-CSRFToken": olena.token, "HX-Request": "true"}
    assert olena.client.post("/sign-out", headers=headers).status_code == 303


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_post_from_another_site_is_refused_even_with_the_token(olena: Browser, site: str) -> None:
    answer = olena.client.post("/sign-out", data={"csrf_token": olena.token}, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 400


def test_the_token_lives_as_long_as_the_session(admin: Admin) -> None:
    assert admin.app.config["WTF_CSRF_TIME_LIMIT"] is None, "boards and forms stay open all day"


# ---- cookies and https


def test_cookies_are_out_of_reach_of_scripts_and_other_sites(nobody: Browser) -> None:
    cookie = nobody.get("/sign-in").headers["Set-Cookie"]
    assert cookie.startswith("session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie, "on http no browser would send it back"


def test_behind_https_cookies_are_secure_and_browsers_stay_with_it(migrated_sqlite_url: str) -> None:
    secure = Admin(migrated_sqlite_url, **HTTPS)
    answer = secure.browser().get("/sign-in", base_url="https://router.example.org")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-session=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "max-age=" in answer.headers["Strict-Transport-Security"]
    secure.close()


@pytest.mark.parametrize(("scheme", "guard"), [("https", "__Secure-"), ("http", "")])
def test_under_a_path_cookies_go_to_that_path_alone(migrated_sqlite_url: str, scheme: str, guard: str) -> None:
    with closing(Admin(migrated_sqlite_url, PUBLIC_URL=f"{scheme}://example.org/our/router")) as placed:
        placed.add_user("olena", "owner")
        browser = placed.browser()
        page = browser.get("/our/router/sign-in")
        cookie = page.headers["Set-Cookie"]
        assert cookie.startswith(f"{guard}session=")
        assert "Path=/our/router;" in f"{cookie};"
        language = browser.post("/our/router/language", language="uk").headers.getlist("Set-Cookie")
        assert all("Path=/our/router;" in f"{cookie};" for cookie in language)


# A path in front may have the name of one of our own: what is behind it tells what is meant.
@pytest.mark.parametrize("where", ["/our/router", "/sign-in", "/p", "/our%20own/маршрут"])
def test_pages_are_found_whether_the_path_in_front_comes_along_or_not(migrated_sqlite_url: str, where: str) -> None:
    root = unquote(where)
    found = {
        "/sign-in": 200,
        "/static/theme.css": 200,
        "/healthz": 200,
        "/nothing": 404,
        "/": 302,
        "/p/acme/board": 302,
    }
    with closing(Admin(migrated_sqlite_url, PUBLIC_URL=f"https://example.org{where}")) as placed:
        placed.add_user("olena", "owner")
        for path, status in found.items():
            for way in (path, root + path):
                as_sent = {"PATH_INFO": way.encode().decode("latin-1"), "SCRIPT_NAME": ""}
                answer = placed.app.test_client().get("/", environ_overrides=as_sent)
                assert answer.status_code == status, way
                if status == 302:
                    back = "" if path == "/" else f"?next={root}{path}"
                    assert unquote(unquote(answer.headers["Location"])) == f"{root}/sign-in{back}"


def test_on_plain_http_browsers_are_not_told_to_use_https(nobody: Browser) -> None:
    assert "Strict-Transport-Security" not in nobody.get("/sign-in").headers


# ---- what comes in


def test_a_body_that_is_too_large_is_refused(olena: Browser) -> None:
    answer = olena.post("/users/new", name="x" * (3 * 1024 * 1024))
    assert answer.status_code == 413
    assert "Too large" in answer.text


@pytest.mark.parametrize(
    "target",
    ["", "x", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "https://evil.example/",
     "javascript:alert(1)", "/\t/evil.example", "/\n/evil.example", " /x", "http:evil"],
)  # fmt: skip
def test_refuses_targets_that_lead_away(target: str) -> None:
    assert safe_next(target, "/otherwise") == "/otherwise"


@pytest.mark.parametrize("target", ["/", "/projects", "/p/acme/calls?caller=%2B380&x=1", "/p/a%252Fb/board", "/x#y"])
def test_takes_targets_of_this_site(target: str) -> None:
    assert safe_next(target, "/otherwise") == target


@pytest.mark.parametrize("name", ["a/b", "100%", "%2F", "..", ".", "Ромашка & Ко", "a b", "?x=1", "#", "<i>", "a\\b"])
def test_a_project_may_have_any_name(admin: Admin, olena: Browser, name: str) -> None:
    admin.add_project(name)
    page = olena.get("/projects")
    assert page.status_code == 200
    with admin.app.test_request_context():
        from flask import url_for

        url = url_for("admin.settings", project=name)
    answer = olena.get(url)
    assert answer.status_code == 200
    assert olena.post(url).status_code == 422, "the form posts to its own address"


def test_what_strangers_and_admins_type_is_shown_as_text(admin: Admin, olena: Browser) -> None:
    name = "<script>alert(1)</script>\"'"
    admin.add_project(name)
    admin.add_user("eve", "viewer", name=name)
    for path in ("/projects", "/users", "/audit", "/sign-in?next=%22%3E%3Cscript%3E"):
        assert "<script>alert" not in olena.get(path).text


@pytest.mark.parametrize(
    "path", ["/p/a%00b/settings", "/p/acme/calls?caller=1%00", "/p/acme/calls?rule=%00", "/audit?actor=%00&subject=%00",
             "/p/acme/try?caller=%00", "/welcome/%00", "/sign-in?next=/%00"],
)  # fmt: skip
def test_a_text_that_no_database_can_hold_is_a_bad_request_and_no_failure(admin_everywhere: Admin, path: str) -> None:
    assert admin_everywhere.browser("olena").get(path).status_code == 400


@pytest.mark.parametrize("field", ["email", "password", "next"])
def test_nor_is_one_that_a_stranger_posts(admin_everywhere: Admin, field: str) -> None:
    typed = {"email": "olena@example.org", "password": "wrong", field: "a\x00b"}
    assert admin_everywhere.browser().post("/sign-in", **typed).status_code == 400


@pytest.mark.parametrize("host", ["evil.example", "evil.example:99", "router.example.org@evil.example"])
def test_nobody_is_led_to_the_host_that_a_request_names(admin: Admin, olena: Browser, host: str) -> None:
    token = olena.token
    cookie = olena.client.get_cookie("session")
    assert cookie is not None
    sent = {"Host": host, "X-Forwarded-Host": host, "Forwarded": f"host={host}", "Cookie": f"session={cookie.value}"}
    client = admin.app.test_client(use_cookies=False)
    answers = [client.get(path, headers=sent) for path in ("/projects", "/users", "/p/acme/hook", "/p/acme/settings")]
    link = client.post(f"/users/{admin.user('emil').id}/link", headers={"X-CSRFToken": token, **sent})
    assert "/welcome/" in link.text
    for answer in (*answers, link, client.get("/projects", headers={"Host": host})):
        assert answer.status_code in {200, 302}
        assert "evil.example" not in answer.text + str(answer.headers)


# ---- who asks, behind how many proxies


@pytest.mark.parametrize(
    ("hops", "remote"), [("0", "198.51.100.1"), ("1", "203.0.113.7"), ("2", "192.0.2.66")], ids=["none", "one", "two"]
)
def test_an_address_is_believed_from_as_many_proxies_as_there_are(
    migrated_sqlite_url: str, hops: str, remote: str
) -> None:
    secure = Admin(migrated_sqlite_url, PROXY_HOPS=hops)
    secure.app.add_url_rule("/who", "who", lambda: str(request.remote_addr))
    sent = {
        "X-Forwarded-For": "127.0.0.1, 192.0.2.66, 203.0.113.7",
        "X-Real-Ip": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
    }
    answer = secure.app.test_client().get("/who", headers=sent, environ_overrides={"REMOTE_ADDR": "198.51.100.1"})
    assert answer.text == remote
    secure.close()


@pytest.mark.parametrize(
    ("written", "remote"),
    [
        ("203.0.113.7:51234", "203.0.113.7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ('"[2001:db8::7]"', "2001:db8::7"),
        ("192.0.2.66:1, 203.0.113.7:2", "203.0.113.7"),
    ],
)
def test_an_address_is_read_as_proxies_write_it(migrated_sqlite_url: str, written: str, remote: str) -> None:
    with closing(Admin(migrated_sqlite_url, PROXY_HOPS="1")) as behind:
        behind.app.add_url_rule("/who", "who", lambda: str(request.remote_addr))
        assert behind.app.test_client().get("/who", headers={"X-Forwarded-For": written}).text == remote


# ---- static files


def test_static_files_are_kept_for_a_year_under_their_version(admin: Admin, nobody: Browser) -> None:
    version = admin.app.config["ASSET_VERSION"]
    answer = nobody.get(f"/static/theme.css?v={version}")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.content_type == "text/css; charset=utf-8"
    assert "Set-Cookie" not in answer.headers
    assert nobody.get("/static/theme.css?v=old").headers["Cache-Control"] == "no-cache"


def test_static_files_are_sent_compressed_or_not_at_all(nobody: Browser) -> None:
    plain = nobody.get("/static/theme.css")
    packed = nobody.get("/static/theme.css", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    again = nobody.get("/static/theme.css", headers={"If-None-Match": packed.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


@pytest.mark.parametrize("path", ["../page.py", "..%2fpage.py", "vendor/", "", "/etc/passwd", "theme.css/", "nothing"])
def test_only_static_files_are_static(nobody: Browser, path: str) -> None:
    assert nobody.get(f"/static/{path}").status_code == 404


# ---- when things fail


def test_without_the_database_pages_say_so(admin: Admin, olena: Browser, tmp_path: Path) -> None:
    admin.close()
    for file in tmp_path.glob("router.db*"):
        file.unlink()
    (tmp_path / "router.db").mkdir()
    answer = olena.get("/projects")
    assert answer.status_code == 503
    assert "The database does not answer" in answer.text
    assert answer.headers["Retry-After"]


@contextmanager
def another_key(admin: Admin) -> Iterator[None]:
    """As when SECRET_KEY was lost: what is stored was encrypted with a key that nobody has."""
    use_encryption_keys([Fernet.generate_key()])
    yield
    use_encryption_keys(admin.settings.fernet_keys)


def test_with_another_key_calls_go_on(admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    with admin.database.writing() as session:
        project = session.scalars(select(models.Project).filter_by(name="acme")).one()
        project.hook_basic_auth, project.overflow = "pbx:password", "reception"
        publish(session, project.id, "test")
    with admin.database.reading() as session:
        token = queries.current_token(session, project.id)
    with another_key(admin):
        answer = admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": "1"})
    assert (answer.status_code, answer.text) == (200, '{"destination":"reception"}')
    assert "calls are let in by their token alone" in capsys.readouterr().out


def test_with_another_key_pages_say_what_became_of_the_credentials_and_take_new_ones(
    admin: Admin, olena: Browser
) -> None:
    with another_key(admin):
        settings = olena.get("/p/acme/settings")
        assert settings.status_code == 200
        assert "Stored credentials cannot be read" in settings.text
        hook = olena.get("/p/acme/hook")
        assert hook.status_code == 200
        assert "It works as before, and cannot be shown" in hook.text
        imported = olena.get("/p/acme/agents/import")
        assert (imported.status_code, "Stored credentials cannot be read" in imported.text) == (500, True)

        assert save(olena, presence_auth_key="a new one").status_code == 303
        assert "Stored credentials cannot be read" not in olena.get("/p/acme/settings").text
        assert "The new address is ready" in olena.post("/p/acme/hook/rotate", grace="24", follow=True).text
        assert "cannot be shown" not in olena.get("/p/acme/hook").text
        with admin.database.reading() as session:
            project = session.scalars(select(models.Project).filter_by(name="acme")).one()
            assert project.presence_auth_key == "a new one"


def test_a_page_that_fails_gives_a_reference_and_no_inside(
    admin: Admin, olena: Browser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise ValueError("the inside")

    monkeypatch.setitem(admin.app.view_functions, "admin.projects", broken)
    monkeypatch.setattr(admin.app, "testing", False)
    answer = olena.get("/projects")
    assert answer.status_code == 500
    assert "the inside" not in answer.text
    reference = answer.text.partition("<code>")[2].partition("</code>")[0]
    assert len(reference) == 8
    assert reference in capsys.readouterr().out
