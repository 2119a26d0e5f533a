# The web processes. Read by gunicorn as the Procfile starts it; the environment is read by router/config.py alone.
from __future__ import annotations

import gc
import logging
import os
import resource
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from gevent import monkey
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base import Worker

# ---- who works

# Each request is a greenlet: a slow client, a status API or a database that is waited for holds up nobody. What the
# other workers of gunicorn lose is in docs/reliability.md.
_told = [*shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), *sys.argv[1:]]
worker_class = Config().parser().parse_known_args(_told)[0].worker_class or "gevent"
if worker_class == "gevent":
    # Before the app is loaded, and not after it as gunicorn does: psycopg looks once how it may wait.
    monkey.patch_all()

from router.config import ConfigError, Settings  # noqa: E402
from router.log import without_tokens  # noqa: E402
from router.server import ARRIVAL_SECONDS, HookRequest  # noqa: E402

RequestParser.mesg_class = HookRequest

try:
    _settings = Settings.load()
except ConfigError as error:
    raise SystemExit(f"Refusing to start.\n{error}") from None

# WEB_CONCURRENCY is 2 on SQLite, which has one writer at a time: more would only queue.
workers = _settings.web_concurrency
bind = _settings.bind
max_requests = 0  # nothing leaks that a restart would hide, and a restart makes callers wait

# The app is made once, before the processes part: a worker that died is replaced in the time of a fork, not in the
# seconds that the imports take. It connects to nothing and starts no thread until post_worker_init.
preload_app = True

# A hosting platform kills 30 s after TERM: what is in flight gets 25 of them.
graceful_timeout = 25
timeout = 30
control_socket_disable = True  # else a socket appears in the home folder

# ---- what may come in

# The request line and the time have limits of their own (router/server.py).
limit_request_line = 0
keepalive = int(ARRIVAL_SECONDS)
# Hook parameters may come as headers, and PBX people name them call_id. Such a header reads like Call-Id, which matters
# only where a proxy's X-Forwarded-For is believed: there they stay out, as nginx leaves them out too.
header_map = "dangerous" if _settings.proxy_hops == 0 else "drop"

# Who trickles a request holds a descriptor. Many systems allow 1,024 of them, and more to whoever asks.
_allowed, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = 4096 if _most == resource.RLIM_INFINITY else min(_most, 4096)
if _allowed != resource.RLIM_INFINITY and _allowed < _wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_wanted, _most))

# ---- where things go

# Heartbeats and metrics are files that are written all the time: in memory where there is such a folder, because a slow
# disk would hold up the calls.
_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - the folder's own mode keeps others out
worker_tmp_dir = _memory

# No access log: the hook's URL holds its token. Decisions are recorded and metrics counted instead.
accesslog = None
errorlog = "-"
loglevel = _settings.log_level.lower()


class _WithoutTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # An IPv4 client of a socket that serves both kinds is that client.
        record.msg, record.args = without_tokens(record.getMessage()).replace(" ip=::ffff:", " ip="), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = without_tokens(logging.Formatter().formatException(record.exc_info))
        return True


class logger_class(Logger):  # noqa: N801 - gunicorn's name for the setting
    """gunicorn's logger, which names the URL of a request that failed, without the token in it.

    Nor is one in the access log, which a platform may ask for above our heads (GUNICORN_CMD_ARGS on Render).
    """

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.addFilter(_WithoutTokens())


# ---- at start and end


# The metrics of all workers meet in a folder of their own, empty: those of the last run must not be added again. Made
# here and not in a hook of gunicorn's: the app is loaded before the first of them, and the library looks once.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="router-metrics-", dir=_memory)


def on_starting(server: Arbiter) -> None:
    """Tell of what is wrong, of what is likely to be regretted, and of the first owner's link while there is no owner.

    What would make every call go without the database until somebody fixes it refuses the start.
    """
    from router import check  # late, as in child_exit

    log = logging.getLogger("gunicorn.error")
    findings = check.look_at_start(_settings, without=["presence"])
    for finding in findings:
        if finding.state != "ok":
            log.log(logging.ERROR if finding.is_error else logging.WARNING, "%s", finding.line)
    if why := check.refusal(_settings, findings):
        on_exit(server)
        raise SystemExit(why)
    if _settings.environment != "production":
        return  # there `router run` shows it
    if any(finding.is_error and finding.check == "database" for finding in findings):
        log.warning("Whether there is an owner cannot be told now.")
    else:
        _show_first_owner_link(log.getChild("link"))  # to the same place, but past the filter of what may not be told


def when_ready(_server: Arbiter) -> None:
    """The last moment before the processes part."""
    # What was loaded is never garbage; to look through it all the same takes 0.1 s in the midst of somebody's call.
    gc.collect()
    gc.freeze()


def _show_first_owner_link(log: logging.Logger) -> None:
    from router.admin.auth import first_owner_link
    from router.db.session import Database

    try:
        database = Database(_settings.database_url)
        try:
            link = first_owner_link(database, _settings.base_url)
        finally:
            database.dispose()  # before any fork
    except Exception as error:  # noqa: BLE001 - calls are answered all the same
        log.warning("Whether there is an owner cannot be told now: %s", type(error).__name__)
        return
    if link:
        # As an error, so that no LOG_LEVEL hides it.
        log.error("Nobody can sign in yet. The first owner's account is made here, once, within 24 hours: %s", link)


def on_exit(_server: Arbiter) -> None:
    """Leave nothing behind."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Worker) -> None:
    """Start what runs beside the requests, such as the presence keeper: here, because threads do not survive a fork."""
    if background := _background(worker):
        background.start()


def worker_exit(_server: Arbiter, worker: Worker) -> None:
    """Stop it, so that another process takes over at once and not when its lease runs out."""
    if background := _background(worker):
        background.stop()


def _background(worker: Worker) -> Any:
    # None where there is nothing to run: a worker that could not start, the bare apps of the benchmarks.
    return getattr(worker.wsgi, "extensions", {}).get("router")


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Forget the gauges of a worker that ended. Its counters still count."""
    # Late: prometheus_client looks for the folder once, when it is imported.
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
