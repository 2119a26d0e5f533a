"""Protect all admin pages: headers, the session's cookie, CSRF tokens, redirects within the site."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote, urlsplit

from flask import Flask, Response, abort, current_app, g, request
from flask_wtf.csrf import generate_csrf, validate_csrf
from itsdangerous import URLSafeTimedSerializer
from wtforms import ValidationError

from router.config import Settings

MAX_BODY_BYTES = 2 * 1024 * 1024  # a posted form or an imported file; the hook has a limit of its own

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TWO_YEARS = 2 * 365 * 24 * 3600


def is_https(settings: Settings) -> bool:
    """Return whether people use the pages by https."""
    return settings.public_url.startswith("https:")


def configure(app: Flask, settings: Settings) -> None:
    """Set up the session's cookie: for this host, over https if possible, not for scripts and other sites."""
    secure = is_https(settings)
    # With __Host-, browsers refuse a cookie that another host of the domain has set, and also one for a path.
    prefix = "" if not secure else "__Host-" if app.config["APPLICATION_ROOT"] == "/" else "__Secure-"
    app.config.update(
        SESSION_COOKIE_NAME=f"{prefix}session",
        SESSION_COOKIE_SECURE=secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(days=30),  # of the cookie; see auth for the session's own limits
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session, for forms that stay open for hours
    )
    app.jinja_env.globals.update(csrf_token=generate_csrf, here=here)


def refuse_unstorable_text() -> None:
    """Answer 400 for text with a NUL in it, which PostgreSQL cannot store."""
    sent = [request.path, *(value for given in (request.args, request.form) for _, value in given.items(multi=True))]
    if any("\x00" in value for value in sent):
        abort(400)


class ForgedRequestError(Exception):
    """The request does not carry this session's CSRF token.

    `reason`: "old", an earlier session's token; "http", a page over http, to which browsers send no secure cookie; or
    "no_cookie".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def is_genuine() -> bool:
    """Return whether the request has this session's CSRF token and, if the browser says so, comes from our pages."""
    if not _is_from_here():
        return False
    try:
        validate_csrf(_token())
    except ValidationError:
        return False
    return True


def is_of_our_page() -> bool:
    """Return whether the request is from one of our pages, of any session: enough to show a form, not to store it."""
    serializer = URLSafeTimedSerializer(str(current_app.secret_key), salt="wtf-csrf-token")  # as flask_wtf's
    return _is_from_here() and serializer.loads_unsafe(_token())[0]


def _is_from_here() -> bool:
    return request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _token() -> str:
    return request.headers.get("X-CSRFToken") or request.form.get("csrf_token") or ""


def why_refused(settings: Settings) -> ForgedRequestError:
    """Return why a request is not genuine."""
    if current_app.config["SESSION_COOKIE_NAME"] in request.cookies or not _is_from_here():
        return ForgedRequestError("old")
    is_http = "https" not in (request.scheme, request.headers.get("X-Forwarded-Proto"))
    return ForgedRequestError("http" if is_https(settings) and is_http else "no_cookie")


def add_headers(response: Response, settings: Settings) -> Response:
    """Add headers so that others cannot frame, sniff, cache or script a page."""
    response.headers.update(_HEADERS)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    if is_https(settings):
        response.headers["Strict-Transport-Security"] = f"max-age={_TWO_YEARS}"
    return response


def here() -> str:
    """Return the path and query with which to come back to this page.

    `g.here`: set by a view that shows the page of another URL.
    """
    return str(g.here) if "here" in g else requested()


def requested() -> str:
    """Return the request's path and query as a browser writes them: `request.path` is decoded."""
    query = request.query_string.decode("latin-1")
    path = quote(request.root_path.rstrip("/") + request.path, safe=_PLAIN)
    return f"{path}?{query}" if query else path


def here_under(base_url: str) -> str:
    """Return the full URL of this request, on the host of `base_url`."""
    return f"{urlsplit(base_url)._replace(path='', query='').geturl()}{here()}"


_PLAIN = "/!$&'()*+,:;=@"  # in a path, besides letters and digits


def safe_next(target: str | None, otherwise: str) -> str:
    """Return the target, quoted, if it is a path of this site; else `otherwise`.

    Browsers read a backslash as a slash and drop tabs and line ends, so such paths may lead to another site.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return otherwise
    if "\\" in target or any(char < " " or char == "\x7f" for char in target):
        return otherwise
    parts = urlsplit(target)
    return otherwise if parts.scheme or parts.netloc else quote(target, safe=f"{_PLAIN}?#%[]~")
