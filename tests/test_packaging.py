"""What others build from: the locks, the console script, and each platform's description of the same processes."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import tomllib
import zoneinfo
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import router
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
    for name in ("cryptography", "orjson", "psycopg-binary", "pydantic-core", "sqlalchemy"):
        assert len(locked(lock)[name][1]) > 15, name


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


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_all_that_its_packages_need_for_it_is_installed_without_looking_further(lock: str) -> None:
    pinned = locked(lock)
    for name in pinned:
        for needed in map(Requirement, requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
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


def test_the_image_leaves_out_secrets_and_this_machine_s_files() -> None:
    ignored = text_of(".dockerignore").split()
    assert {".env", "instance", ".git", ".venv"} <= set(ignored)
    assert not {"migrations", "router", "gunicorn.conf.py", "requirements.txt"} & set(ignored)
