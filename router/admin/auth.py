"""Who somebody is: passwords, the throttle of guesses, one-time links, sessions. No page, no form.

A secret is stored as a hash: passwords by argon2, links (random) by SHA-256. Used by the command line too, so nothing
here needs a request but the functions that say so.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from flask import current_app, session
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from router.admin.page import SignedIn
from router.db import models
from router.db.session import Database
from router.db.types import to_micros

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

_FREE = {"account": 5, "address": 20}  # an office shares one address
_LONGEST_WAIT = timedelta(minutes=15)
_FORGOTTEN = timedelta(hours=24)  # after this much quiet an entry starts anew

_COUNT = text(
    "INSERT INTO sign_in_failures (key, failures, last_at) VALUES (:key, 1, :now)"
    " ON CONFLICT (key) DO UPDATE SET last_at = :now, failures ="
    " CASE WHEN sign_in_failures.last_at < :forgotten THEN 1 ELSE sign_in_failures.failures + 1 END"
)


def _wait_after(kind: str, failures: int) -> timedelta:
    beyond = failures - _FREE[kind]
    return timedelta(0) if beyond < 0 else min(_LONGEST_WAIT, timedelta(seconds=2 ** min(beyond + 1, 16)))


def _key(kind: str, value: str) -> str:
    # Keyed: what people type in place of an address, even a password, cannot be guessed from the table.
    secret = str(current_app.secret_key).encode()
    return f"{kind}:{hmac.new(secret, f'{kind}:{value}'.encode(), hashlib.sha256).hexdigest()}"


def _network(address: str) -> str:
    """What counts as one address: a home has 2^64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


class Attempt:
    """A guess at a password: counted when it begins, forgiven when it was right."""

    def __init__(self, database: Database, email: str, address: str) -> None:
        self._database = database
        self._account = _key("account", email)
        self._address = _key("address", _network(address))

    def begin(self) -> timedelta:
        """Count this guess, unless it comes too early: then how long to wait."""
        now = datetime.now(UTC)
        with self._database.writing() as db:
            wait = max(self._wait(db, "account", self._account, now), self._wait(db, "address", self._address, now))
            if wait <= timedelta(0):
                stamp = {"now": to_micros(now), "forgotten": to_micros(now - _FORGOTTEN)}
                for key in (self._account, self._address):
                    db.execute(_COUNT, {"key": key, **stamp})
                db.execute(delete(models.SignInFailure).where(models.SignInFailure.last_at < now - _FORGOTTEN))
        return max(wait, timedelta(0))

    @staticmethod
    def _wait(db: Session, kind: str, key: str, now: datetime) -> timedelta:
        row = db.get(models.SignInFailure, key, with_for_update=True)
        if row is None or row.last_at < now - _FORGOTTEN:
            return timedelta(0)
        return row.last_at + _wait_after(kind, row.failures) - now

    def forgive(self, db: Session) -> None:
        """It was right: the account starts anew, and the address is rid of this one."""
        db.execute(delete(models.SignInFailure).where(models.SignInFailure.key == self._account))
        db.execute(
            update(models.SignInFailure)
            .where(models.SignInFailure.key == self._address, models.SignInFailure.failures > 0)
            .values(failures=models.SignInFailure.failures - 1)
        )


class SignIn(NamedTuple):
    """What became of a try to sign in: the user, or how long to wait, or neither: wrong."""

    user: models.User | None = None
    wait: timedelta = timedelta(0)


def sign_in(database: Database, email: str, password: str, address: str) -> SignIn:
    """Check email and password, throttled by account and by address. Needs a request; starts no session."""
    email = normal_email(email)
    attempt = Attempt(database, email, address)
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
    db.execute(
        delete(models.OneTimeLink).where(models.OneTimeLink.user_id == user.id, models.OneTimeLink.used_at.is_(None))
    )
    return _link(base_url, make_link(db, user.id))


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
    link = db.get(models.OneTimeLink, _token_hash(token), with_for_update=True)
    now = datetime.now(UTC)
    if link is None or link.used_at is not None or link.expires_at <= now:
        return None
    if link.user_id is None:
        # Two links for the first owner may be used at once: whoever comes second must find the first's account.
        db.execute(
            select(models.OneTimeLink.token_hash)
            .where(models.OneTimeLink.user_id.is_(None))
            .order_by(models.OneTimeLink.token_hash)
            .with_for_update()
        )
        return None if has_owner(db) else link
    user = db.get(models.User, link.user_id)
    return None if user is None or user.disabled_at is not None else link


# ---- sessions: a signed cookie; the database's session_epoch ends all of a user's at once


def start_session(user: models.User) -> None:
    """Sign in: a new session with a new token against forged requests, so that one planted before is worth nothing."""
    said = session.get("_flashes")
    session.clear()
    if said:
        session["_flashes"] = said
    now = int(time.time())
    session.update(user=user.id, epoch=user.session_epoch, since=now, seen=now)
    session.permanent = True


def end_session() -> None:
    """Sign out in this browser."""
    session.clear()


def end_sessions(db: Session, user: models.User) -> None:
    """Sign this user out everywhere. Not through the ORM: `revision` counts what people edit of the user."""
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
            ).where(models.User.id == user_id)
        ).one_or_none()
    if row is None or row.disabled_at is not None or row.session_epoch != session.get("epoch"):
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
