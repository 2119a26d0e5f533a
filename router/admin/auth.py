"""Who somebody is: passwords, the throttle of guesses, one-time links, sessions. No page, no form.

A secret is stored as a hash: passwords by argon2, links (random) by SHA-256. Used by the command line too, so nothing
here needs a request but the functions that say so.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
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
from router.admin.page import SignedIn
from router.db import models
from router.db.session import Database
from router.db.types import from_micros, to_micros

LINK_LIFETIME = timedelta(hours=24)
IDLE_LIFETIME = timedelta(hours=12)  # without a request; a board that is open keeps asking
SESSION_LIFETIME = timedelta(days=14)  # then the password is asked for, whatever happened in between
LEAST_PASSWORD_CHARS = 12
MOST_PASSWORD_CHARS = 256

# 32 MiB and three passes, one lane: above OWASP's least (19 MiB, two passes), about 60 ms, and it leaves the other
# cores to the calls.
_HASHER = PasswordHasher(time_cost=3, memory_cost=32 * 1024, parallelism=1)

_SEEN_EVERY = 60  # seconds between two notes of activity in the cookie
_NOTED_EVERY = timedelta(minutes=10)  # between two in the database


# ---- passwords


def hash_password(password: str) -> str:
    """What is stored of a password."""
    return _HASHER.hash(password)


@cache
def _nobodys_hash() -> str:
    return hash_password(secrets.token_urlsafe())


def password_matches(password: str, stored: str) -> bool:
    """Is this the password? Takes as long for accounts that do not exist or have none (`stored` empty)."""
    try:
        _HASHER.verify(stored or _nobodys_hash(), password)
    except (Argon2Error, InvalidHashError):
        return False
    return bool(stored)


def normal_email(text: str) -> str:
    """An address in its one spelling."""
    return text.strip().casefold()


# ---- the throttle: guesses count before they are checked, so that many at once gain nothing

_FREE = {
    "device": 5,  # a browser in which somebody has signed in to the account before
    "pair": 5,  # an account, from one address
    "address": 20,  # an office shares one
    "account": 100,  # from all addresses together
}
_LONGEST_WAIT = timedelta(minutes=15)
_FORGOTTEN = timedelta(hours=24)  # after this much quiet an entry starts anew

# Makes the row where there is none, and holds it either way: SELECT … FOR UPDATE holds nothing that is not there.
_HOLD = text(
    "INSERT INTO sign_in_failures (key, failures, last_at) VALUES (:key, 0, :now)"
    " ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING failures, last_at"
)


def _keyed(kind: str, value: str) -> str:
    # Keyed: what people type in place of an address, even a password, cannot be guessed from the table.
    secret = str(current_app.secret_key).encode()
    return f"{kind}:{hmac.new(secret, f'{kind}:{value}'.encode(), hashlib.sha256).hexdigest()}"


class _Counter(NamedTuple):
    """A row of guesses: its key, and how many of them are free."""

    key: str
    free: int

    def wait_after(self, failures: int) -> timedelta:
        beyond = failures - self.free
        return timedelta(0) if beyond < 0 else min(_LONGEST_WAIT, timedelta(seconds=2 ** min(beyond + 1, 16)))


def _counters(email: str, address: str, device: str) -> list[_Counter]:
    """What this guess counts by. A stranger's guesses must not lock out who owns the account: they are counted with
    their address, and a browser that the account knows is counted by itself. Always in this order, so that two guesses
    never wait for each other.
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
    """A guess at a password: counted when it begins, forgiven when it was right. `device`: see `known_device`."""

    def __init__(self, database: Database, email: str, address: str, device: str = "") -> None:
        self._database = database
        self._counters = _counters(email, address, device)

    def begin(self) -> timedelta:
        """Count this guess, unless it comes too early: then how long to wait."""
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
        row = db.execute(_HOLD, {"key": key, "now": to_micros(now)}).one()
        last_at = from_micros(row.last_at)
        return (0 if last_at < now - _FORGOTTEN else row.failures), last_at

    def forgive(self, db: Session) -> None:
        """It was right: who guessed from here starts anew, and what others share is rid of this one."""
        failure = models.SignInFailure
        for counter in self._counters:
            this = failure.key == counter.key
            if counter.key.startswith("address:"):
                db.execute(update(failure).where(this, failure.failures > 0).values(failures=failure.failures - 1))
                db.execute(delete(failure).where(this, failure.failures == 0))
            else:
                # An account under attack stays guarded: its owner's browser is counted by itself from now on.
                db.execute(delete(failure).where(this, failure.failures <= counter.free))
        forgotten = (
            select(models.SignInFailure.key)
            .where(models.SignInFailure.last_at < datetime.now(UTC) - _FORGOTTEN)
            .with_for_update(skip_locked=True)
        )
        db.execute(delete(models.SignInFailure).where(models.SignInFailure.key.in_(forgotten)))


# ---- browsers in which somebody has signed in before: a signed cookie, which lets nobody in

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
    """What names the request's browser, if somebody has signed in to this account in it; else "". Needs a request."""
    return _known_accounts().get(_keyed("account", normal_email(email)), "")


def remember_device(response: Response, email: str) -> None:
    """Guesses from this browser at this account are counted by themselves from now on. Needs a request."""
    account = _keyed("account", normal_email(email))
    known = _known_accounts()
    name = known.pop(account, "") or secrets.token_hex(16)
    kept = dict([*known.items(), (account, name)][-_ACCOUNTS_OF_A_DEVICE:])
    response.set_cookie(
        _device_cookie(),
        _devices().dumps(kept),
        max_age=DEVICE_LIFETIME,
        path=current_app.config["APPLICATION_ROOT"],
        secure=current_app.config["SESSION_COOKIE_SECURE"],
        httponly=True,
        samesite="Lax",
    )


class SignIn(NamedTuple):
    """What became of a try to sign in: the user, or how long to wait, or neither: wrong."""

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
            # Only known addresses are written down: unknown ones may be passwords, typed into the wrong box.
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
    """A link that makes the first owner's account; None once there is an owner who can sign in.

    Each call makes another: earlier ones work too until they expire or somebody has used one. For whoever starts the
    service to print.
    """
    with database.writing() as db:
        if has_owner(db):
            return None
        return _link(base_url, make_link(db, None))


def has_owner(db: Session) -> bool:
    """Is there an owner who can sign in?"""
    owner = select(models.User.id).where(
        models.User.role == "owner", models.User.password_hash != "", models.User.disabled_at.is_(None)
    )
    return db.scalar(owner.limit(1)) is not None


def user_link(db: Session, base_url: str, user: models.User) -> str:
    """A link with which this user chooses a password; earlier ones of theirs stop working."""
    revoke_links(db, user)
    return _link(base_url, make_link(db, user.id))


def revoke_links(db: Session, user: models.User) -> None:
    """No link that this user was given works any more."""
    link = models.OneTimeLink
    db.execute(delete(link).where(link.user_id == user.id, link.used_at.is_(None)))


def make_link(db: Session, user_id: int | None) -> str:
    """The token of a new link; what is stored is its hash."""
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
    """The link of this token if it still works. In a transaction that writes, it is held until the end."""
    link = db.get(models.OneTimeLink, _token_hash(token))
    if link is None:
        return None
    # Of the links for the first owner all are held: whoever uses another one at once must find our account.
    held = select(models.OneTimeLink).where(models.OneTimeLink.user_id.is_not_distinct_from(link.user_id))
    held = held.order_by(models.OneTimeLink.token_hash).with_for_update()
    db.scalars(held.execution_options(populate_existing=True)).all()
    if link.used_at is not None or link.expires_at <= datetime.now(UTC):
        return None
    if link.user_id is None:
        return None if has_owner(db) else link
    user = db.get(models.User, link.user_id)
    return None if user is None or user.disabled_at is not None else link


# ---- sessions: a signed cookie. The database ends them: one by its id, all of a user's at once by session_epoch


def start_session(user: models.User) -> None:
    """Sign in: a new session with a new token against forged requests, so that one planted before is worth nothing."""
    said = session.get("_flashes")
    session.clear()
    if said:
        session["_flashes"] = said
    now = int(time.time())
    session.update(user=user.id, epoch=user.session_epoch, since=now, seen=now, id=secrets.token_urlsafe(16))
    session.permanent = True


def end_session(db: Session, user: models.User) -> None:
    """Sign out in this browser: a copy of its cookie is worth nothing from now on."""
    if session_id := session.get("id"):
        ended = models.EndedSession(id_hash=_token_hash(str(session_id)), ended_at=datetime.now(UTC))
        db.merge(ended)
    else:
        end_sessions(db, user)  # begun by an earlier release, which gave them no names
    session.clear()


def end_sessions(db: Session, user: models.User) -> None:
    """Sign this user out everywhere, and let no link to a new password outlive that.

    Not through the ORM: `revision` counts what people edit of the user.
    """
    revoke_links(db, user)
    epoch = models.User.session_epoch + 1
    db.execute(update(models.User).where(models.User.id == user.id).values(session_epoch=epoch))
    db.refresh(user, ["session_epoch"])


def user_of_session(database: Database) -> SignedIn | None:
    """Who is signed in by the request's cookie. A session that has ended, for whatever reason, is dropped."""
    user_id = session.get("user")
    if user_id is None:
        return None
    now = int(time.time())
    since, seen = int(session.get("since", 0)), int(session.get("seen", 0))
    if now - since > SESSION_LIFETIME.total_seconds() or now - seen > IDLE_LIFETIME.total_seconds():
        session.clear()
        return None
    with database.reading() as db:
        row = db.execute(
            select(
                models.User.id,
                models.User.email,
                models.User.name,
                models.User.role,
                models.User.language,
                models.User.session_epoch,
                models.User.disabled_at,
                models.User.seen_at,
                exists().where(models.EndedSession.id_hash == _token_hash(str(session.get("id")))).label("is_ended"),
            ).where(models.User.id == user_id)
        ).one_or_none()
    if row is None or row.is_ended or row.disabled_at is not None or row.session_epoch != session.get("epoch"):
        session.clear()
        return None
    if now - seen >= _SEEN_EVERY:
        session["seen"] = now
    at = datetime.now(UTC)
    if row.seen_at is None or at - row.seen_at > _NOTED_EVERY:
        with database.writing() as db:
            db.execute(update(models.User).where(models.User.id == row.id).values(seen_at=at))
    return SignedIn(row.id, row.email, row.name, row.role, row.language)


# ---- the audit trail of people; configuration writes its own


def record(
    db: Session,
    actor: str,
    action: str,
    user: models.User | None,
    after: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
) -> None:
    """Write down what somebody did to a user's account."""
    db.add(
        models.AuditEntry(
            at=datetime.now(UTC),
            actor=actor,
            action=action,
            subject="user",
            subject_id=user.id if user else None,
            subject_name=user.email if user else "",
            before=before,
            after=after,
        )
    )


def is_last_owner(db: Session, user: models.User) -> bool:
    """Would nobody be left who can sign in as owner without this one?"""
    # Held until the end: two owners who shut each other out at once would both see the other.
    owners = db.scalars(
        select(models.User)
        .where(models.User.role == "owner", models.User.disabled_at.is_(None), models.User.password_hash != "")
        .order_by(models.User.id)
        .with_for_update()
    ).all()
    return [owner.id for owner in owners] == [user.id]


def disable(db: Session, user: models.User, actor: str) -> None:
    """Out at once, everywhere, until enabled again. Whether somebody is left to do that is for the caller to ask."""
    if user.disabled_at is None:
        user.disabled_at = datetime.now(UTC)
        db.flush()
        end_sessions(db, user)
        record(db, actor, "disabled", user)
