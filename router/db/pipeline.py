"""Prepared statements on one PostgreSQL connection, several in one round trip, never waiting beyond a deadline.

Why not psycopg's own cursors: where calls pass, their per-statement work costs several times the statement's. Why a
deadline here: the server's statement_timeout cannot end a wait for a server that has stopped, and nothing of libpq's a
wait for the address of one. libpq's pipeline mode: https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

from __future__ import annotations

import re
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_attempts, conninfo_to_dict, make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus, PGconn, PollingStatus

from router.db.patience import in_time

_LOOK_UP_SHARE = 0.25  # of the time there is, for new addresses of a server whose last ones are known

Rows = list[tuple[bytes | None, ...]]


class Statement(NamedTuple):
    """SQL with `$n` for parameters, and their names in that order."""

    name: bytes
    sql: bytes
    parameters: tuple[str, ...]


class StatementError(Exception):
    """The server refused a statement. `sqlstate`: its code, such as 23505 for a duplicate key."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


def prepare_statements(named_sql: Mapping[str, str]) -> dict[str, Statement]:
    """Statements from SQL with `:name` for parameters (`::type` is a cast)."""
    return {name: _statement(name, sql) for name, sql in named_sql.items()}


def _statement(name: str, sql: str) -> Statement:
    found: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"${found.setdefault(match[1], len(found) + 1)}"

    text = re.sub(r"(?<!:):([a-z_]+)", number, sql)
    return Statement(name.encode(), text.encode(), tuple(found))


class Pipeline:
    """One connection, in pipeline mode for good. After an error that is not a StatementError it must be closed."""

    def __init__(self, conninfo: str, statements: Mapping[str, Statement], deadline: float) -> None:
        self._statements = statements
        self._poll = select.poll()
        self._pq = PGconn.connect_start(_addressed(conninfo, deadline).encode())
        self._finish_connecting(deadline)
        self._pq.nonblocking = 1
        self._pq.enter_pipeline_mode()
        for statement in statements.values():
            self._pq.send_prepare(statement.name, statement.sql)
        self._collect(len(statements), deadline)

    def _finish_connecting(self, deadline: float) -> None:
        # libpq's own connect_timeout counts in whole seconds, two at least: longer than a caller may wait.
        while (status := self._pq.connect_poll()) != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                raise psycopg.OperationalError(self._pq.get_error_message())
            self._wait(select.POLLIN if status == PollingStatus.READING else select.POLLOUT, deadline)

    def run(self, steps: Sequence[tuple[str, Mapping[str, Any]]], deadline: float) -> list[Rows]:
        """Run these prepared statements (BEGIN, COMMIT, … among them) in order; the rows of each, as text.

        Raises StatementError for the first that fails (the others after it did not run), TimeoutError at the deadline
        (time.monotonic), psycopg.OperationalError when the connection is lost.
        """
        for name, values in steps:
            statement = self._statements[name]
            self._pq.send_query_prepared(statement.name, [_text(values[key]) for key in statement.parameters])
        return self._collect(len(steps), deadline)

    def _collect(self, count: int, deadline: float) -> list[Rows]:
        connection = self._pq
        connection.pipeline_sync()
        gathered: list[Rows] = []
        error: StatementError | None = None
        synced = False
        while not synced:
            while connection.flush():  # what did not fit into the socket yet
                self._wait(select.POLLIN | select.POLLOUT, deadline)
                connection.consume_input()
            while connection.is_busy():
                self._wait(select.POLLIN, deadline)
                connection.consume_input()
            result = connection.get_result()
            if result is None:  # ends the results of one statement
                continue
            status = result.status
            if status == ExecStatus.TUPLES_OK:
                columns = range(result.nfields)
                gathered.append(
                    [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
                )
            elif status == ExecStatus.COMMAND_OK:
                gathered.append([])
            elif status == ExecStatus.PIPELINE_SYNC:
                synced = True
            elif status == ExecStatus.FATAL_ERROR:
                state = result.error_field(DiagnosticField.SQLSTATE)
                if state is None:
                    raise psycopg.OperationalError(result.get_error_message())
                error = error or StatementError(state.decode(), result.get_error_message())
        if error is not None:
            raise error
        return gathered

    def _wait(self, events: int, deadline: float) -> None:
        self._poll.register(self._pq.socket, events)  # again and again: while connecting, the socket may change
        left = deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise TimeoutError("the database did not answer in time")

    def close(self) -> None:
        self._pq.finish()


_addressed_before: dict[str, str] = {}  # by the conninfo, where its names led when they were looked up last


def _addressed(conninfo: str, deadline: float) -> str:
    """The conninfo with the addresses that its hosts' names lead to; while they are not to be had, with the last ones.

    libpq looks names up in connect_start, and waits there for as long as the system's resolver does: many seconds,
    where the network is lost. Where it is given addresses it looks up nothing:
    https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNECTSTARTPARAMS
    """
    known = _addressed_before.get(conninfo)
    left = deadline - time.monotonic()
    try:
        return in_time(lambda: _look_up(conninfo), left if known is None else left * _LOOK_UP_SHARE)
    except (OSError, RuntimeError, psycopg.Error):  # too slow, out of threads, no such name
        if known is None:
            raise
        return known


def _look_up(conninfo: str) -> str:
    places = dict.fromkeys(
        tuple(str(attempt.get(key, "")) for key in ("host", "hostaddr", "port"))
        for attempt in conninfo_attempts(conninfo_to_dict(conninfo))
    )
    hosts, addresses, ports = zip(*places, strict=True)
    addressed = conninfo
    if any(addresses) and all(hosts):  # else they are sockets of this machine, or named in the environment
        # The names stay beside the addresses: certificates and password files go by them.
        addressed = make_conninfo(conninfo, host=",".join(hosts), hostaddr=",".join(addresses), port=",".join(ports))
    # Kept here, for it may come too late for whoever asked: the next one has it then.
    _addressed_before[conninfo] = addressed
    return addressed


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    if value.__class__ is str:
        return value.encode("utf-8", "replace").replace(b"\0", b"")
    if value.__class__ is list:
        return b"{%b}" % b",".join(b"%d" % item for item in value)
    if value.__class__ is bool:
        return b"t" if value else b"f"
    if value.__class__ is bytes:
        return b"\\x" + value.hex().encode()
    return str(value).encode()
