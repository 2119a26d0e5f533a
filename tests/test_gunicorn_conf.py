"""The web server as the Procfile starts it, around a small app that tells what reached it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from router.config import processes_for
from simulator import processes

ROOT = Path(__file__).parents[1]
APP = """
import gc, os, pathlib, signal, time
from flask import Flask, request
from prometheus_client import Counter

SEEN = Counter("seen", "Requests")

class Background:
    def start(self): pathlib.Path(f"started-{os.getpid()}").touch()
    def stop(self): pathlib.Path(f"stopped-{os.getpid()}").touch()

def create_app():
    app = Flask(__name__)
    app.extensions["router"] = Background()

    @app.route("/hook/<token>", methods=["GET", "POST"])
    def hook(token):
        SEEN.inc()
        if request.query_string == b"slow":
            pathlib.Path("slow").write_text(str(os.getpid()))
            time.sleep(0.5)
        return {
            "pid": os.getpid(),
            "query": request.query_string.hex(),
            "call_id": request.headers.get("call-id"),
            "body": len(request.data),
            "frozen": gc.get_freeze_count() > 10_000,
            "metrics": os.environ["PROMETHEUS_MULTIPROC_DIR"],
            "script_name": request.environ["SCRIPT_NAME"],
            "content_type": request.content_type,
        }

    def crash(environ, start_response):
        if environ["PATH_INFO"].endswith("/crash"):
            raise RuntimeError("not caught by Flask")
        if environ["QUERY_STRING"] == "slow" and not environ["PATH_INFO"].startswith("/hook/"):
            time.sleep(0.3)
        if environ["PATH_INFO"] == "/long":
            start_response("200 OK", [])
            return [b"x" * 1_000_000] * int(environ["QUERY_STRING"])
        return flask(environ, start_response)

    flask, app.wsgi_app = app.wsgi_app, crash
    return app
"""


class Server(processes.Server):
    """gunicorn around the small app, in a folder of its own."""

    def __init__(self, folder: Path, **environ: str) -> None:
        (folder / "small_app.py").write_text(APP)
        super().__init__(folder, processes.gunicorn("small_app:create_app()"), **environ)

    def start(self) -> None:
        """Until each of the processes is there."""
        self.launch()
        self.wait_until(lambda: len(self.files("started-")) == int(self.environ["WEB_CONCURRENCY"]))

    def send(self, request: bytes) -> bytes:
        """The whole answer to one raw request."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=30)) as sock:
            sock.sendall(request)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def get(self, path: bytes, *headers: bytes) -> bytes:
        return self.send(
            b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: x", b"Connection: close", *headers, b"", b""])
        )

    def files(self, prefix: str) -> set[str]:
        return {path.name.removeprefix(prefix) for path in self.folder.glob(f"{prefix}*")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One as it is deployed, which no test stops."""
    with Server(tmp_path_factory.mktemp("server")) as started:
        yield started


def test_takes_what_a_pbx_may_send(server: Server) -> None:
    # Raw UTF-8, and raw bytes that are no UTF-8 at all, in the request line.
    for raw in ("name=Іван".encode(), "name=Иван".encode("cp1251")):
        assert raw.hex().encode() in server.get(b"/hook/secret?" + raw)
    assert b"200 OK" in server.get(b"/hook/secret?landing=" + b"x" * 7900)
    assert b'"call_id":"ua9_-1790775458.2139025"' in server.get(b"/hook/secret", b"call_id: ua9_-1790775458.2139025")
    body = b"x" * 65536
    head = b"POST /hook/secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert b'"body":65536' in server.send(head + body)


def test_behind_a_proxy_believes_no_look_alike_headers_and_never_logs_the_hook_token(tmp_path: Path) -> None:
    with Server(tmp_path, PROXY_HOPS="1", LOG_LEVEL="DEBUG", GUNICORN_CMD_ARGS="--access-logfile -") as server:
        assert b'"call_id":null' in server.get(b"/hook/secret", b"call_id: 1")
        assert b'"call_id":"1"' in server.get(b"/hook/secret", b"call-id: 1")
        assert b"200 OK" in server.get(b"/hook/t0ken")
        assert b"404" in server.get(b"/welcome/t0ken")
        assert b"500 Internal" in server.get(b"/hook/t0ken/crash")
        assert b"400 Bad" in server.send(b"GET /hook/t0ken HTTP/1.1 more\r\n\r\n")
    told = server.log_text()
    assert "not caught by Flask" in told
    assert "/hook/[token]" in told
    assert "GET /welcome/[token]" in told
    assert "t0ken" not in told


def test_told_to_stop_finishes_the_call_in_flight_and_leaves_nothing_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Server(tmp_path, WEB_CONCURRENCY="3", HOME=str(home)) as server:
        started = server.files("started-")
        assert len(started) == 3
        answer = server.get(b"/hook/secret").rpartition(b'"metrics":"')[2]
        folder = Path(answer.partition(b'"')[0].decode())
        assert any(folder.glob("counter_*.db")), "metrics have a new folder"
        request = b"GET /hook/secret?slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as sock:
            sock.sendall(request)
            server.wait_until((tmp_path / "slow").exists)
            os.kill(server.pid, signal.SIGTERM)
            assert b"200 OK" in b"".join(iter(lambda: sock.recv(65536), b""))
    assert server.files("stopped-") == started, "what runs beside the requests of each worker is stopped"
    assert not folder.exists()
    assert list(home.rglob("*")) == [], "no control socket"


def test_never_looks_for_garbage_in_what_was_loaded(server: Server) -> None:
    assert b'"frozen":true' in server.get(b"/hook/secret")


def test_refuses_to_start_with_a_bad_setting_and_says_which(tmp_path: Path) -> None:
    server = Server(tmp_path, HOOK_BUDGET_MS="soon")
    with pytest.raises(RuntimeError), server:
        pytest.fail("it started")
    told = server.log_text()
    assert "HOOK_BUDGET_MS must be a whole number from 100 to 30000, not 'soon'." in told
    assert "Traceback" not in told


def test_an_address_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with closing(socket.create_server(("127.0.0.1", server.port))), pytest.raises(RuntimeError), server:
        pytest.fail("it started")
    assert f"Cannot listen on ('127.0.0.1', {server.port})" in server.log_text()
    assert "set PORT to another one" in server.log_text()


def test_loads_as_a_production_process(tmp_path: Path) -> None:
    shown = ("worker_class", "workers", "bind", "graceful_timeout", "accesslog")
    expected = {
        "sqlite:///x.db": ({}, 2),
        "postgres://u@h/d": ({}, processes_for("postgres")),
        "sqlite:///y.db": ({"WEB_CONCURRENCY": "6"}, 6),
    }
    environs = [{"DATABASE_URL": url, **more} for url, (more, _) in expected.items()]
    script = f"""
import json, os, runpy, sys
for environ in json.loads(sys.argv[2]):
    os.environ.update(environ)
    loaded = runpy.run_path(sys.argv[1])
    print(json.dumps([loaded[name] for name in {shown}]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "gunicorn.conf.py"), json.dumps(environs)],
        env={"PATH": os.environ["PATH"], "SECRET_KEY": "s" * 40, "PORT": "5000", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    for line, (_, workers) in zip(ran.stdout.splitlines(), expected.values(), strict=True):
        worker_class, count, bind, graceful_timeout, accesslog = json.loads(line)
        assert (worker_class, count, bind[0].rpartition(":")[2]) == ("gevent", workers, "5000")
        assert graceful_timeout < 30, "platforms kill 30 s after TERM"
        assert accesslog is None
