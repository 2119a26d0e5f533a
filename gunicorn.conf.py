# gunicorn's settings for the web processes, as the Procfile starts it. Only router/config.py reads the environment.
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

# ---- workers

# gevent runs each request in a greenlet: while one waits for a slow client, a status API or the database, others run.
# docs/reliability.md says what gunicorn's other workers cannot do.
_arguments = [*shlex.split(os.environ.get("GUNICORN_CMD_ARGS", "")), *sys.argv[1:]]
worker_class = Config().parser().parse_known_args(_arguments)[0].worker_class or "gevent"
if worker_class == "gevent":
    # gunicorn patches after it has loaded the app. That is too late: psycopg chooses how to wait when it is imported.
    monkey.patch_all()

from router.config import ConfigError, Settings  # noqa: E402
from router.log import without_tokens  # noqa: E402
from router.server import ARRIVAL_SECONDS, HookRequest  # noqa: E402

RequestParser.mesg_class = HookRequest

try:
    _settings = Settings.load()
except ConfigError as error:
    raise SystemExit(f"Refusing to start.\n{error}") from None

workers = _settings.web_concurrency
bind = _settings.bind
max_requests = 0  # no restarts of workers: callers would wait for them, and no memory leak makes them necessary

# The app is loaded once, before the fork: a new worker then starts at once, without seconds of imports. The app
# connects to nothing and starts no thread before post_worker_init.
preload_app = True

# Hosting platforms kill the processes 30 s after TERM: requests in flight get 25 of them.
graceful_timeout = 25
timeout = 30
control_socket_disable = True  # else gunicorn makes a socket in the home folder

# ---- limits of requests

# router/server.py limits the length of the request line and the time.
limit_request_line = 0
keepalive = int(ARRIVAL_SECONDS)
# Hook parameters may come as headers, with names like call_id. WSGI cannot tell call_id from Call-Id, so that
# x_forwarded_for could pass for a trusted proxy's header: behind a proxy such headers are dropped, as nginx drops them.
header_map = "dangerous" if _settings.proxy_hops == 0 else "drop"

# Each slow client holds a file descriptor. Many systems allow a process 1,024 of them, and more if it asks.
_allowed, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
_wanted = 4096 if _most == resource.RLIM_INFINITY else min(_most, 4096)
if _allowed != resource.RLIM_INFINITY and _allowed < _wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (_wanted, _most))

# ---- files and logs

# Heartbeats and metrics are files that are written all the time. They lie in memory if possible: a slow disk would
# delay calls.
_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - the folder's own mode keeps others out
worker_tmp_dir = _memory

# No access log: hook URLs hold a token. Decisions are recorded and metrics counted instead.
accesslog = None
errorlog = "-"
loglevel = _settings.log_level.lower()


class _WithoutTokens(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        # A dual-stack socket shows an IPv4 client as ::ffff:192.0.2.1.
        record.msg, record.args = without_tokens(record.getMessage()).replace(" ip=::ffff:", " ip="), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = without_tokens(logging.Formatter().formatException(record.exc_info))
        return True


class logger_class(Logger):  # noqa: N801 - gunicorn's name for the setting
    """gunicorn's logger without the tokens in URLs: in errors, and in the access log that a platform may turn on
    (Render sets GUNICORN_CMD_ARGS).
    """

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.addFilter(_WithoutTokens())

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        if msg == "Can't connect to %s":  # the last line of a start that gunicorn gives up
            msg = "Cannot listen on %s, see above. If another program uses it, end that, or set PORT to another one."
        super().error(msg, *args, **kwargs)


# ---- start and end


# The folder in which all workers count their metrics: a new one, because those of the last run must not be added again.
# Made here and not in a hook of gunicorn: prometheus_client reads the variable when the app is loaded, before any hook.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="router-metrics-", dir=_memory)


def on_starting(server: Arbiter) -> None:
    """Run the checks and log what is wrong; log the first owner's link while there is no owner.

    An error that would make every call go without the database until somebody fixes it refuses the start.
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
        log.warning("The database does not answer: whether there is an owner is not known.")
    else:
        _show_first_owner_link(log.getChild("link"))  # a child logger: _WithoutTokens does not hide the link's token


def when_ready(_server: Arbiter) -> None:
    """Leave out what was loaded before the fork from garbage collection, which would take 0.1 s of a call."""
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
            database.dispose()  # no connection may be open at a fork
    except Exception as error:  # noqa: BLE001 - calls can be answered without an owner
        log.warning("Whether there is an owner is not known: %s", type(error).__name__)
        return
    if link:
        # As an error, so that no LOG_LEVEL hides it.
        log.error("Nobody can sign in yet. The first owner's account is made here, once, within 24 hours: %s", link)


def on_exit(_server: Arbiter) -> None:
    """Remove the folder of the metrics."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    shutil.rmtree(folder, ignore_errors=True)


def post_worker_init(worker: Worker) -> None:
    """Start the background work, such as the presence keeper: after the fork, because threads do not survive one."""
    if background := _background(worker):
        background.start()


def worker_exit(_server: Arbiter, worker: Worker) -> None:
    """Stop the background work, so that another process takes it over at once and not when its lease runs out."""
    if background := _background(worker):
        background.stop()


def _background(worker: Worker) -> Any:
    # None for a worker that could not start, and for the apps without background work in the benchmarks.
    return getattr(worker.wsgi, "extensions", {}).get("router")


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Drop the gauges of a worker that ended. Its counters stay."""
    # Imported late: prometheus_client reads the name of the folder when it is imported.
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
