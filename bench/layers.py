"""`python -m bench --profile`: where the hook's CPU goes, layer by layer, in this process.

By samples of the stack at each tick of this process's CPU clock. cProfile was tried: it makes calls of small functions
four times dearer than they are, and so shows the layers in a wrong light.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from bench import projects, servers
from bench.plan import TITLES
from bench.projects import DIALED, TEAMS
from simulator.processes import SECRET

# The function through which a layer is entered: end of the file's path, name → layer. The innermost one counts.
ENTRIES: Mapping[tuple[str, str], str] = {
    ("formats/ringostat.py", "parse_call"): "parse",
    ("hook/wire.py", "from_environ"): "parse",
    ("hook/views.py", "_received"): "record",
    ("db/reservations.py", "read"): "load",
    ("router/routing.py", "snapshot_of"): "load",
    ("core/decision.py", "decide"): "decide",
    ("core/rules.py", "possible_matches"): "decide",
    ("db/reservations.py", "record"): "claim and record",
    ("router/routing.py", "_row"): "record",
    ("formats/ringostat.py", "render_decision"): "render",
    ("structlog/_config.py", "__getattr__"): "log",
    ("structlog/_native.py", "meth"): "log",
    ("prometheus_client/metrics.py", "labels"): "metrics",
    ("prometheus_client/metrics.py", "inc"): "metrics",
    ("prometheus_client/metrics.py", "observe"): "metrics",
    ("router/routing.py", "route_call"): "route, the rest",
    ("hook/views.py", "ask"): "view, the rest",
    ("bench/layers.py", "ask"): "flask",
}
TICK_SECONDS = 0.001  # the kernel may have longer ones


class Profile(NamedTuple):
    """CPU in µs per call, unwatched, and how many samples fell into each layer and each function."""

    cpu: float
    layers: Counter[str]
    functions: Counter[str]


def main(seconds: float = 10) -> None:
    """Print the layers on each database, after so much CPU time on each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="router-bench-")))
        server = stack.enter_context(servers.postgres(folder))
        (folder / "metrics").mkdir()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")  # as under gunicorn
        log = stack.enter_context((folder / "log").open("w"))
        urls = {"sqlite": f"sqlite:///{folder}/hook.db", "postgres": server.new_database("hook")}
        for kind, url in urls.items():
            with redirect_stdout(log):
                found = profile_hook(url, seconds)
            samples = found.layers.total()
            print(f"\n{TITLES[kind]}: {found.cpu:.0f} µs of CPU per call in this process, {samples} samples\n")
            for title, counted in (("layer", found.layers), ("function, its own time", found.functions)):
                print(f"  {title:<60}{'µs':>8}{'share':>8}")
                for name, count in counted.most_common(30):
                    share = count / samples
                    print(f"  {name:<60}{share * found.cpu:>8.1f}{share:>8.1%}")
                print()


def profile_hook(url: str, seconds: float) -> Profile:
    """Route calls for so much CPU time, one after the other, unwatched and then watched."""
    path = projects.seed(url, {TEAMS.name})[TEAMS.name]
    with _asker(url, path) as ask:
        calls = 0

        def go_on(seconds: float) -> float:
            nonlocal calls
            first, began = calls, time.process_time()
            while time.process_time() - began < seconds:
                for _ in range(100):
                    ask(calls)
                    calls += 1
            return (time.process_time() - began) / (calls - first) * 1e6

        go_on(0.3)  # the configuration is loaded, the statements are prepared
        cpu = go_on(seconds / 4)
        layers: Counter[str] = Counter()
        functions: Counter[str] = Counter()
        with _sampled(layers, functions):
            go_on(seconds)
        return Profile(cpu, layers, functions)


@contextmanager
def _sampled(layers: Counter[str], functions: Counter[str]) -> Iterator[None]:
    """Count where this process is whenever it has used up another tick of CPU."""

    def sample(_number: int, frame: FrameType | None) -> None:
        inner = frame
        while frame is not None:
            code = frame.f_code
            place = Path(code.co_filename)
            layer = ENTRIES.get((f"{place.parent.name}/{place.name}", code.co_name))
            if layer is not None and inner is not None:
                layers[layer] += 1
                own = inner.f_code
                functions[f"{'/'.join(Path(own.co_filename).parts[-2:])} {own.co_qualname}"] += 1
                return
            frame = frame.f_back

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _asker(url: str, path: str) -> Iterator[Callable[[int], None]]:
    """Asks the hook in this process, as gunicorn's worker would."""
    from router.app import create_app
    from router.config import Settings

    settings = {"DATABASE_URL": url, "SECRET_KEY": SECRET, "PRESENCE_KEEPER": "off", "LOG_FORMAT": "json"}
    app = create_app(Settings.load(settings))
    app.config["PROPAGATE_EXCEPTIONS"] = True

    def ask(number: int) -> None:
        body = (
            b'{"uniqueid":"%d","userfield":"38067111%04d","dst":"%s%02d","call_type":"in",'
            b'"step_forward":"webhookNumber%%3A120","utm_source":"google"}'
            % (number, number % 10_000, DIALED.encode(), number % TEAMS.numbers)
        )
        environ = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1:8000",
            "HTTP_USER_AGENT": "ringostat HTTP Client v1.1",
            "HTTP_CONNECTION": "close",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }
        started: list[str | bytes] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: Any = None
        ) -> Callable[[bytes], object]:
            started.append(status)
            return started.append

        text = b"".join(app(environ, start_response))
        if started != ["200 OK"] or b'"bench_agent' not in text:
            raise RuntimeError(f"{started}: {text!r}")

    try:
        app.extensions["hook"].routing.keep_up()  # as a web process does before its first call
        yield ask
    finally:
        app.extensions["router"].stop()
        app.extensions["hook"].routing.close()
        app.extensions["admin"].database.dispose()
