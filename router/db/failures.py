"""Describe errors of the database in a sentence with the remedy, for people at a command line."""

from __future__ import annotations

import sqlite3

import psycopg
from psycopg import errors as postgres
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from router.db.session import DatabaseBusyError


class OperatorError(Exception):
    """A command cannot be done. The message says why, and what to do."""


_NO_SCHEMA = "the database has no schema yet, or an older one: run `router db upgrade`"
_BUSY = "the database is busy: something else holds it for too long. Try again in a moment"
_DISK_FULL = "the disk of the database is full: make room, and try again"
_UNREACHABLE = "the database cannot be reached ({}): check DATABASE_URL, and that the server runs"
_NOT_OPEN = "the database file cannot be opened: check the path in DATABASE_URL, its folder and who may write there"
_READ_ONLY = "the database cannot be written to: check who may write to its file and folder, or the user's rights"
_DAMAGED = "the file is no SQLite database, or it is damaged: restore a backup, see docs/operations.md"

# By SQLite's messages: its codes do not tell all of these apart.
_SQLITE = (
    ("no such table", _NO_SCHEMA),
    ("no such column", _NO_SCHEMA),
    ("has no column", _NO_SCHEMA),
    ("unable to open", _NOT_OPEN),
    ("locked", _BUSY),
    ("full", _DISK_FULL),
    ("readonly", _READ_ONLY),
    ("not a database", _DAMAGED),
    ("malformed", _DAMAGED),
)
_POSTGRES: tuple[tuple[tuple[type[psycopg.Error], ...], str], ...] = (
    ((postgres.UndefinedTable, postgres.UndefinedColumn, postgres.InvalidSchemaName), _NO_SCHEMA),
    (
        (postgres.LockNotAvailable, postgres.QueryCanceled, postgres.DeadlockDetected, postgres.TooManyConnections),
        _BUSY,
    ),
    ((postgres.DiskFull,), _DISK_FULL),
    ((postgres.InsufficientPrivilege, postgres.ReadOnlySqlTransaction), _READ_ONLY),
)


def describe_failure(error: BaseException) -> str | None:
    """Return a sentence without a full stop, and without a password; None for an error that is not known here."""
    if isinstance(error, OperatorError):
        return str(error)
    if isinstance(error, DBAPIError) and error.orig is not None:
        return describe_failure(error.orig)
    if isinstance(error, DatabaseBusyError | PoolTimeoutError):
        return _BUSY
    if isinstance(error, sqlite3.Error):
        words = str(error)
        return next((said for mark, said in _SQLITE if mark in words), f"the database failed: {_first_line(error)}")
    if isinstance(error, psycopg.Error):
        for kinds, said in _POSTGRES:
            if isinstance(error, kinds):
                return said
        if error.sqlstate is None or error.sqlstate[:2] in {"08", "28", "3D", "57"}:
            return _UNREACHABLE.format(_first_line(error))
        return f"the database failed: {_first_line(error)}"
    if isinstance(error, TimeoutError):
        return _UNREACHABLE.format("it did not answer in time")
    if isinstance(error, SQLAlchemyError):
        return f"the database failed: {_first_line(error)}"
    return None


def _first_line(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0].strip().rstrip(".")
    return line or type(error).__name__
