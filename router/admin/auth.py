"""Authentication: passwords, the throttle of sign-ins, one-time links, sessions. No pages and no forms.

Secrets are stored as hashes: passwords by argon2, links (random) by SHA-256. The command line uses this too: only the
functions that say so need a request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from flask import current_app, request, session
from itsdangerous import BadSignature, URLSafeTimedSerializer
from sqlalchemy import delete, exists, select, text, update
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from router.addresses import networks_of
from router.admin.i18n import _
from router.admin.page import SignedIn
from router.db import models
from router.db.session import Database
from router.db.types import from_micros, to_micros

LINK_LIFETIME = timedelta(hours=24)
IDLE_LIFETIME = timedelta(hours=12)  # of a session without requests; an open board sends some
SESSION_LIFETIME = timedelta(days=14)  # of a session in use
LEAST_PASSWORD_CHARS = 12
MOST_PASSWORD_CHARS = 256

# 32 MiB and three passes: above OWASP's minimum (19 MiB, two passes), about 60 ms. One lane, so that the other cores
# stay free for calls.
_HASHER = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)

_SEEN_EVERY = 60  # seconds between two updates of the last activity in the cookie
_STORED_EVERY = timedelta(minutes=10)  # between two in the database


# ---- passwords


def hash_password(password: str) -> str:
    """Return the hash to store of a password."""
    return _HASHER.hash(password)


@cache
def _random_hash() -> str:
    return hash_password(secrets.token_urlsafe())


def password_matches(password: str, stored: str) -> bool:
    """Return whether the password is right. Takes the same time if there is no account or password (`stored` empty)."""
    try:
        _HASHER.verify(stored or _random_hash(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return bool(stored)


def weakness(password: str, email: str) -> str:
    """Return what is wrong with a new password, in words; "" when it is accepted."""
    if len(password) < LEAST_PASSWORD_CHARS:
        return _("Too short: at least %(n)s characters.", n=LEAST_PASSWORD_CHARS)
    if len(password) > MOST_PASSWORD_CHARS:
        return _("Too long: at most %(n)s characters.", n=MOST_PASSWORD_CHARS)
    if len(set(password)) < 5:
        return _("Too easy to guess: use more different characters.")
    if email and password.casefold() in {email.casefold(), email.casefold().partition("@")[0]}:
        return _("Too easy to guess: it is your address.")
    return ""


def normal_email(text: str) -> str:
    """Normalise an email address."""
    return text.strip().casefold()


_EMAIL = re.compile(r"[^@\s<>\"',;:]{1,64}@[^@\s<>\"',;:]{1,190}")


def is_email(text: str) -> bool:
    """Return whether it looks like an address. Nothing is sent to it: it is only a name to sign in with."""
    return _EMAIL.fullmatch(text) is not None


# ---- the throttle: attempts are counted before the password is checked, also for many at the same time

_FREE = {
    "device": 5,  # a browser in which somebody has signed in to the account before
    "pair": 5,  # an account, from one address
    "address": 20,  # an office may share one
    "account": 100,  # from all addresses together
}
_LONGEST_WAIT = timedelta(minutes=15)
_FORGOTTEN = timedelta(hours=24)  # a counter without attempts for this long starts at 0 again

# Inserts the row if missing and locks it either way: SELECT … FOR UPDATE does not lock a missing row.
_LOCK = text(
    "INSERT INTO sign_in_failures (key, failures, last_at) VALUES (:key, 0, :now)"
    " ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING failures, last_at"
)


def _keyed(kind: str, value: str) -> str:
    # An HMAC, because people may type anything instead of an address, even a password: the table must not reveal it.
    secret = str(current_app.secret_key).encode()
    return f"{kind}:{hmac.new(secret, f'{kind}:{value}'.encode(), hashlib.sha256).hexdigest()}"


class _Counter(NamedTuple):
    """A counter of failed attempts: its key, and how many are free."""

    key: str
    free: int

    def wait_after(self, failures: int) -> timedelta:
        beyond = failures - self.free
        return timedelta(0) if beyond < 0 else min(_LONGEST_WAIT, timedelta(seconds=2 ** min(beyond + 1, 16)))


def _counters(email: str, address: str, device: str) -> list[_Counter]:
    """Return the counters of an attempt, always in the same order, so that two attempts never deadlock.

    A stranger's attempts must not lock out the owner of the account: they are counted by address, and a browser that
    has signed in to the account before has its own counter.
    """
    if device:
        return [_Counter(_keyed("device", device), _FREE["device"])]
    networks = networks_of(address)
    return [
        _Counter(_keyed("pair", f"{networks[0].name} {email}"), _FREE["pair"]),
        *(_Counter(_keyed("address", network.name), _FREE["address"] * network.share) for network in networks),
        _Counter(_keyed("account", email), _FREE["account"]),
    ]


class Attempt:
    """An attempt to sign in, counted when it begins, and uncounted if it succeeds. `device`: see `known_device`."""

    def __init__(self, database: Database, email: str, address: str, device: str = "") -> None:
        self._database = database
        self._counters = _counters(email, address, device)

    def begin(self) -> timedelta:
        """Count the attempt and return 0; if it comes too early, return how long to wait."""
        now = datetime.now(UTC)
        with self._database.writing() as db:
            counted = [(counter, *self._count(db, counter.key, now)) for counter in self._counters]
            waits = (last_at + counter.wait_after(failures) - now for counter, failures, last_at in counted if failures)
            wait = max(waits, default=timedelta(0))
            if wait > timedelta(0):
                return wait
            for counter, failures, _ in counted:
                db.execute(
                    update(models.SignInFailure)
                    .where(models.SignInFailure.key == counter.key)
                    .values(failures=failures + 1, last_at=now)
                )
        return timedelta(0)

    @staticmethod
    def _count(db: Session, key: str, now: datetime) -> tuple[int, datetime]:
        row = db.execute(_LOCK, {"key": key, "now": to_micros(now)}).one()
        last_at = from_micros(row.last_at)
        return (0 if last_at < now - _FORGOTTEN else row.failures), last_at

    def forgive(self, db: Session) -> None:
        """Reset the counters of this client after a success, and uncount the attempt in those shared with others."""
        failure = models.SignInFailure
        for counter in self._counters:
            this = failure.key == counter.key
            if counter.key.startswith("address:"):
                db.execute(update(failure).where(this, failure.failures > 0).values(failures=failure.failures - 1))
                db.execute(delete(failure).where(this, failure.failures == 0))
            else:
                # The account's counter stays, because the account may be under attack: the owner's browser has its own
                # from now on.
                db.execute(delete(failure).where(this, failure.failures <= counter.free))
        forgotten = (
            select(models.SignInFailure.key)
            .where(models.SignInFailure.last_at < datetime.now(UTC) - _FORGOTTEN)
            .with_for_update(skip_locked=True)
        )
        db.execute(delete(models.SignInFailure).where(models.SignInFailure.key.in_(forgotten)))


# ---- browsers that have signed in before: a signed cookie, which does not authenticate

DEVICE_LIFETIME = timedelta(days=365)
_ACCOUNTS_OF_A_DEVICE = 5


def _devices() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(current_app.secret_key), salt="device")


def _device_cookie() -> str:
    return str(current_app.config["SESSION_COOKIE_NAME"]).replace("session", "device")


def _known_accounts() -> dict[str, str]:
    try:
        known = _devices().loads(
            request.cookies.get(_device_cookie(), ""), max_age=int(DEVICE_LIFETIME.total_seconds())
        )
    except BadSignature:
        return {}
    return known if isinstance(known, dict) else {}


def known_device(email: str) -> str:
    """Return the id of the request's browser if it has signed in to this account before; else "". Needs a request."""
    return _known_accounts().get(_keyed("account", normal_email(email)), "")


def remember_device(response: Response, email: str) -> None:
    """Give this browser its own counter for this account from now on. Needs a request."""
    account = _keyed("account", normal_email(email))
    known = _known_accounts()
    name = known.pop(account, "") or secrets.token_hex(16)
    accounts = dict([*known.items(), (account, name)][-_ACCOUNTS_OF_A_DEVICE:])
    response.set_cookie(
        _device_cookie(),
        _devices().dumps(accounts),
        max_age=DEVICE_LIFETIME,
        path=current_app.config["APPLICATION_ROOT"],
        secure=current_app.config["SESSION_COOKIE_SECURE"],
        httponly=True,
        samesite="Lax",
    )


class SignIn(NamedTuple):
    """The result of signing in: the user, or how long to wait, or neither if email or password are wrong."""

    user: models.User | None = None
    wait: timedelta = timedelta(0)


def sign_in(database: Database, email: str, password: str, address: str, device: str = "") -> SignIn:
    """Check email and password, throttled by account and by address. Needs a request; starts no session."""
    email = normal_email(email)
    attempt = Attempt(database, email, address, device)
    if wait := attempt.begin():
        return SignIn(wait=wait)
    with database.reading() as db:
        user = db.scalar(select(models.User).where(models.User.email == email))
    usable = user is not None and user.disabled_at is None
    is_right = password_matches(password, user.password_hash if user is not None and usable else "")
    with database.writing() as db:
        if user is None or not is_right:
            # Unknown addresses are not stored, because they may be passwords typed into the wrong field.
            record(db, user.email if user else "", "sign_in_failed", user, {"address": address})
            return SignIn()
        attempt.forgive(db)
        now = datetime.now(UTC)
        changes: dict[str, Any] = {"seen_at": now}
        if _HASHER.check_needs_rehash(user.password_hash):
            changes["password_hash"] = hash_password(password)
        db.execute(update(models.User).where(models.User.id == user.id).values(**changes))
        record(db, user.email, "signed_in", user, {"address": address})
    return SignIn(user)


# ---- one-time links


def first_owner_link(database: Database, base_url: str) -> str | None:
    """Return a new link for making the first owner's account; None if there is an owner who can sign in.

    Earlier links work too until they expire or one was used. The start of the service prints it.
    """
    with database.writing() as db:
        if has_owner(db):
            return None
        return _link(base_url, make_link(db, None))


def has_owner(db: Session) -> bool:
    """Return whether there is an owner who can sign in."""
    owner = select(models.User.id).where(
        models.User.role == "owner", models.User.password_hash != "", models.User.disabled_at.is_(None)
    )
    return db.scalar(owner.limit(1)) is not None


def user_link(db: Session, base_url: str, user: models.User) -> str:
    """Return a new link with which this user chooses a password; earlier ones stop working."""
    revoke_links(db, user)
    return _link(base_url, make_link(db, user.id))


def revoke_links(db: Session, user: models.User) -> None:
    """Make the user's links stop working."""
    link = models.OneTimeLink
    db.execute(delete(link).where(link.user_id == user.id, link.used_at.is_(None)))


def make_link(db: Session, user_id: int | None) -> str:
    """Return the token of a new link. Only its hash is stored."""
    now = datetime.now(UTC)
    db.execute(delete(models.OneTimeLink).where(models.OneTimeLink.expires_at < now - timedelta(days=30)))
    token = secrets.token_urlsafe(32)
    db.add(
        models.OneTimeLink(
            token_hash=_token_hash(token), user_id=user_id, created_at=now, expires_at=now + LINK_LIFETIME
        )
    )
    db.flush()
    return token


def _link(base_url: str, token: str) -> str:
    return f"{base_url}/welcome/{token}"


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def find_link(db: Session, token: str) -> models.OneTimeLink | None:
    """Return the link of this token if it still works. A transaction that writes locks it until the end."""
    link = db.get(models.OneTimeLink, _token_hash(token))
    if link is None:
        return None
    # All links for the first owner are locked: if two are used at the same time, the second must find the account.
    links = select(models.OneTimeLink).where(models.OneTimeLink.user_id.is_not_distinct_from(link.user_id))
    links = links.order_by(models.OneTimeLink.token_hash).with_for_update()
    db.scalars(links.execution_options(populate_existing=True)).all()
    if link.used_at is not None or link.expires_at <= datetime.now(UTC):
        return None
    if link.user_id is None:
        return None if has_owner(db) else link
    user = db.get(models.User, link.user_id)
    return None if user is None or user.disabled_at is not None else link


# ---- sessions: a signed cookie. The database ends single ones by id, and all of a user's by session_epoch


def start_session(user: models.User) -> None:
    """Start a new session with a new CSRF token, so that one planted before does not work. Messages stay."""
    messages = session.get("_flashes")
    session.clear()
    if messages:
        session["_flashes"] = messages
    now = int(time.time())
    session.update(user=user.id, epoch=user.session_epoch, since=now, seen=now, id=secrets.token_urlsafe(16))
    session.permanent = True


def end_session(db: Session, user: models.User) -> None:
    """Sign out in this browser. A copy of its cookie stops working too."""
    if session_id := session.get("id"):
        ended = models.EndedSession(id_hash=_token_hash(str(session_id)), ended_at=datetime.now(UTC))
        db.merge(ended)
    else:
        end_sessions(db, user)  # a session of an earlier release, which has no id
    session.clear()


def end_sessions(db: Session, user: models.User) -> None:
    """Sign this user out everywhere, and make their links stop working.

    Not through the ORM, which would count `revision` up: that is for edits of the user.
    """
    revoke_links(db, user)
    epoch = models.User.session_epoch + 1
    db.execute(update(models.User).where(models.User.id == user.id).values(session_epoch=epoch))
    db.refresh(user, ["session_epoch"])


def user_of_session(database: Database) -> SignedIn | None:
    """Return who is signed in by the request's cookie. Clears a session that has ended."""
    user_id = session.get("user")
    if user_id is None:
        return None
    now = int(time.time())
    since, seen = int(session.get("since", 0)), int(session.get("seen", 0))
    if now - since > SESSION_LIFETIME.total_seconds() or now - seen > IDLE_LIFETIME.total_seconds():
        session.clear()
        return None
    is_ended = exists().where(models.EndedSession.id_hash == _token_hash(str(session.get("id"))))
    with database.reading() as db:
        found = db.execute(select(models.User, is_ended).where(models.User.id == user_id)).one_or_none()
    user = None if found is None or found[1] else found[0]
    if user is None or user.disabled_at is not None or user.session_epoch != session.get("epoch"):
        session.clear()
        return None
    if now - seen >= _SEEN_EVERY:
        session["seen"] = now
    at = datetime.now(UTC)
    if user.seen_at is None or at - user.seen_at > _STORED_EVERY:
        with database.writing() as db:
            db.execute(update(models.User).where(models.User.id == user.id).values(seen_at=at))
    return SignedIn(user.id, user.email, user.name, user.role, user.language)


# ---- the audit trail of users


def record(
    db: Session,
    actor: str,
    action: str,
    user: models.User | None,
    after: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
) -> models.AuditEntry:
    """Add an entry about a user's account to the audit trail, and return it."""
    entry = models.AuditEntry(
        at=datetime.now(UTC),
        actor=actor,
        action=action,
        subject="user",
        subject_id=user.id if user else None,
        subject_name=user.email if user else "",
        before=before,
        after=after,
    )
    db.add(entry)
    db.flush()
    return entry


def is_last_owner(db: Session, user: models.User) -> bool:
    """Return whether this is the only owner who can sign in."""
    # Locked until the end: otherwise two owners who disable each other at the same time would both succeed.
    owners = db.scalars(
        select(models.User)
        .where(models.User.role == "owner", models.User.disabled_at.is_(None), models.User.password_hash != "")
        .order_by(models.User.id)
        .with_for_update()
    ).all()
    return [owner.id for owner in owners] == [user.id]


def disable(db: Session, user: models.User, actor: str) -> models.AuditEntry | None:
    """Sign the user out everywhere, until enabled again; None if nothing changed. The caller checks `is_last_owner`."""
    if user.disabled_at is not None:
        return None
    user.disabled_at = datetime.now(UTC)
    db.flush()
    end_sessions(db, user)
    return record(db, actor, "disabled", user)


def enable(db: Session, user: models.User, actor: str) -> models.AuditEntry | None:
    """Let the user sign in again, with the same password and role; None if nothing changed."""
    if user.disabled_at is None:
        return None
    user.disabled_at = None
    revoke_links(db, user)
    return record(db, actor, "enabled", user)


def change_user(db: Session, user: models.User, actor: str, values: dict[str, Any]) -> models.AuditEntry | None:
    """Change name and role; None if nothing changed. The caller checks `is_last_owner`."""
    before = {name: getattr(user, name) for name in values}
    if before == values:
        return None
    for name, value in values.items():
        setattr(user, name, value)
    return record(db, actor, "changed", user, values, before)


_IS_AS_LEFT: Mapping[str, Callable[[models.User, models.AuditEntry], bool]] = {
    "changed": lambda user, entry: all(getattr(user, name) == value for name, value in (entry.after or {}).items()),
    "disabled": lambda user, _entry: user.disabled_at is not None,
    "enabled": lambda user, _entry: user.disabled_at is None,
    "invited": lambda user, _entry: user.disabled_at is None and not user.password_hash,
}
"""By action of the audit trail: whether the user is still as the change left them."""


def can_undo(user: models.User | None, entry: models.AuditEntry) -> bool:
    """Return whether this change of a user can be undone: nothing has changed since."""
    return user is not None and entry.action in _IS_AS_LEFT and _IS_AS_LEFT[entry.action](user, entry)


def undo_change(db: Session, user: models.User, actor: str, entry: models.AuditEntry) -> models.AuditEntry | None:
    """Undo a change of a user that `can_undo` found. An invitation ends. The caller checks `is_last_owner`."""
    if entry.action == "changed":
        return change_user(db, user, actor, entry.before or {})
    return enable(db, user, actor) if entry.action == "disabled" else disable(db, user, actor)
