"""The environment: defaults, refusals with their remedy, secrets that are never shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from cryptography.fernet import Fernet, MultiFernet
from pydantic import ValidationError

from router.config import ConfigError, Settings, read_conninfo

LONG_SECRET = "s" * 48


def load(**environ: str) -> Settings:
    return Settings.load({"SECRET_KEY": LONG_SECRET, **environ})


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(**environ)
    return str(refused.value)


# ---- defaults


def test_needs_nothing_but_a_secret_key() -> None:
    settings = load()
    assert settings.environment == "production"
    assert settings.database_url == "sqlite+pysqlite:///instance/router.db"
    assert settings.hook_budget_ms == 1500
    assert settings.presence_keeper == "inline"
    assert settings.presence_allow_private is False
    assert settings.proxy_hops == 0


def test_an_empty_variable_counts_as_unset() -> None:
    assert load(PORT="", HOOK_BUDGET_MS="  ", LOG_LEVEL="") == load()


def test_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load().port = 9  # type: ignore[misc]


@pytest.mark.parametrize(("cores", "of_postgres"), [(1, 2), (2, 2), (3, 3), (64, 4)])
@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql://u@h/d"])
def test_database_and_cores_set_the_number_of_web_processes(
    url: str, cores: int, of_postgres: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    count = 2 if url.startswith("sqlite") else of_postgres
    assert load(DATABASE_URL=url).web_concurrency == count
    assert load(DATABASE_URL=url, WEB_CONCURRENCY="7").web_concurrency == 7


def test_logs_for_eyes_in_development_and_for_machines_in_production() -> None:
    assert load().log_format == "json"
    assert load(ENVIRONMENT="development").log_format == "console"
    assert load(ENVIRONMENT="development", LOG_FORMAT="json").log_format == "json"
    assert load(LOG_LEVEL="debug").log_level == "DEBUG"


@pytest.mark.parametrize(
    ("lacks_ipv6", "ipv6_alone", "everywhere", "here"),
    [
        (False, 0, ["[::]:5000"], ["127.0.0.1:5000", "[::1]:5000"]),
        (False, 1, ["0.0.0.0:5000", "[::]:5000"], ["127.0.0.1:5000", "[::1]:5000"]),
        (True, 0, ["0.0.0.0:5000"], ["127.0.0.1:5000"]),
    ],
    ids=["an IPv6 socket takes IPv4 too", "it does not", "no IPv6"],
)
def test_listens_on_all_interfaces_only_where_a_platform_sets_the_port(
    *, lacks_ipv6: bool, ipv6_alone: int, everywhere: list[str], here: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = MagicMock()
    opened = host.return_value.__enter__.return_value
    opened.bind.side_effect = OSError("Cannot assign requested address") if lacks_ipv6 else None
    opened.getsockopt.return_value = ipv6_alone
    monkeypatch.setattr("socket.socket", host)
    assert load(PORT="5000").bind == everywhere
    assert load(PORT="5000", ENVIRONMENT="development").bind == here
    assert load().bind == [address.replace("5000", "8000") for address in here]


def test_prints_urls_under_the_public_address_or_the_local_port() -> None:
    assert load(PORT="9000").base_url == "http://127.0.0.1:9000"
    assert load(PUBLIC_URL="https://router.example.com/in/").base_url == "https://router.example.com/in"


# ---- the database's address


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///data/calls.db", "sqlite+pysqlite:///data/calls.db"),
        ("sqlite:////var/lib/router.db", "sqlite+pysqlite:////var/lib/router.db"),
    ],
)
def test_uses_our_driver_of_sqlite(given: str, used: str) -> None:
    assert load(DATABASE_URL=given).database_url == used


PARTS = {"user": "u", "password": "p@ss w", "host": "db", "dbname": "calls"}


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("postgres://u:p%40ss%20w@db/calls", PARTS),
        ("postgresql+psycopg://u:p@ss w@db/calls", PARTS),
        ("postgresql://u:p%40ss%20w@db:5433/calls?sslmode=require", PARTS | {"port": "5433", "sslmode": "require"}),
        ("postgresql://u:a/b#c?d+e%@db/calls", PARTS | {"password": "a/b#c?d+e%"}),
        ("postgresql://u@a:1,b:2/calls", {"user": "u", "host": "a,b", "port": "1,2", "dbname": "calls"}),
        ("postgresql:///calls?host=/run/pg", {"host": "/run/pg", "dbname": "calls"}),
        (
            "postgres://db/calls?application_name=mine&options=-c%20x.y%3D1",
            {"host": "db", "dbname": "calls", "application_name": "mine", "options": "-c x.y=1"},
        ),
    ],
)
def test_reads_an_address_as_postgresql_does_and_forgives_what_is_not_encoded(
    given: str, parts: dict[str, str]
) -> None:
    assert load(DATABASE_URL=given).database_url == given
    assert read_conninfo(given) == parts


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("mysql://u:hunter2@db/calls", "DATABASE_URL begins with mysql: write sqlite:///PATH, or postgresql://"),
        ("postgresql+psycopg2://u:a@hunter2/b@db/calls", "begins with postgresql+psycopg2: write"),
        ("sqlite://u:hunter2@db/calls", "must name a file"),
        ("postgresql://u:hunter2@db", "names no database"),
        ("postgresql://u:hunter2@db:port/calls", "cannot be read as a database address (not shown"),
        ("hunter2", "cannot be read as a database address (not shown"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file:hunter2?mode=memory&uri=true", "must name a file"),
    ],
)
def test_refuses_a_database_that_it_cannot_use(given: str, complaint: str) -> None:
    told = refusal(DATABASE_URL=given)
    assert told.startswith("DATABASE_URL ")
    assert complaint in told
    assert "hunter2" not in told


def test_never_shows_a_secret() -> None:
    shown = repr(
        load(DATABASE_URL="postgres://u:hunter2@db/calls", ENCRYPTION_KEYS=Fernet.generate_key().decode())
    ) + refusal(ENCRYPTION_KEYS="hunter2", DATABASE_URL="mysql://u:hunter2@db/calls")
    assert "hunter2" not in shown
    assert LONG_SECRET not in shown


# ---- refusals


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PORT", "eighty", "PORT must be a whole number from 1 to 65535, not 'eighty'."),
        ("PORT", "65536", "PORT must be a whole number from 1 to 65535, not '65536'."),
        ("WEB_CONCURRENCY", "0", "WEB_CONCURRENCY must be a whole number from 1 to 64, not '0'."),
        ("HOOK_BUDGET_MS", "1.5", "HOOK_BUDGET_MS must be a whole number from 100 to 30000, not '1.5'."),
        ("PROXY_HOPS", "-1", "PROXY_HOPS must be a whole number from 0 to 10, not '-1'."),
        ("PRESENCE_KEEPER", "thread", "PRESENCE_KEEPER must be inline, worker or off, not 'thread'."),
        ("PRESENCE_ALLOW_PRIVATE", "some", "PRESENCE_ALLOW_PRIVATE must be 0 or 1, not 'some'."),
        ("ENVIRONMENT", "prod", "ENVIRONMENT must be production or development, not 'prod'."),
        ("LOG_LEVEL", "loud", "LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not 'loud'."),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be console or json, not 'xml'."),
        ("PUBLIC_URL", "router.example.com", "PUBLIC_URL 'router.example.com' is not an address such as https://"),
        ("PUBLIC_URL", "https://x.example/?a=b", "PUBLIC_URL 'https://x.example/?a=b' is not an address such as"),
        ("PUBLIC_URL", "https://[x", "PUBLIC_URL 'https://[x' is not an address such as https://"),
        (
            "PUBLIC_URL",
            "https://x.example/%2F",
            "PUBLIC_URL 'https://x.example/%2F' has a path that cannot be served: ",
        ),
        (
            "PUBLIC_URL",
            "https://x.example//in",
            "PUBLIC_URL 'https://x.example//in' has a path that cannot be served: ",
        ),
        ("PUBLIC_URL", "https://x.example/%2e./in", "PUBLIC_URL 'https://x.example/%2e./in' has a path that cannot be"),
        (
            "PUBLIC_URL",
            "https://x.example/a%0Ab",
            "PUBLIC_URL 'https://x.example/a%0Ab' has a path that cannot be served",
        ),
        ("OVERFLOW_DESTINATION", "380 44", "OVERFLOW_DESTINATION must be one phone number, SIP login or scheme id"),
        ("DEMO", "2", "DEMO must be 0 or 1, not '2'."),
        ("ENCRYPTION_KEYS", "abc", "ENCRYPTION_KEYS key 1 in the list is not 32 bytes in URL-safe base64. Make one: "),
    ],
)
def test_refuses_a_bad_value_and_says_what_it_takes(name: str, value: str, complaint: str) -> None:
    assert refusal(**{name: value}).startswith(complaint)


def test_names_every_bad_variable_on_a_line_of_its_own() -> None:
    lines = refusal(PORT="x", LOG_FORMAT="y", DATABASE_URL="oracle://h/d").splitlines()
    assert [line.split()[0] for line in lines] == ["DATABASE_URL", "PORT", "LOG_FORMAT"]


# ---- the secret key


def test_production_refuses_to_start_without_a_secret_key_and_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.load({}, instance=tmp_path)
    assert "SECRET_KEY is not set" in str(refused.value)
    recipe = str(refused.value).rpartition("Make one: ")[2]
    made = subprocess.run(recipe, shell=True, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S602
    assert Settings.load({"SECRET_KEY": made}).warnings({}) == []
    assert not (tmp_path / "secret.key").exists()


def test_development_makes_a_secret_key_once_and_keeps_it_to_its_owner(tmp_path: Path) -> None:
    environ = {"ENVIRONMENT": "development"}
    first = Settings.load(environ, instance=tmp_path / "instance").secret_key.get_secret_value()
    assert len(first) >= 48
    assert Settings.load(environ, instance=tmp_path / "instance").secret_key.get_secret_value() == first
    assert (tmp_path / "instance" / "secret.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "instance").iterdir()] == ["secret.key"]


def test_processes_that_start_at_once_keep_the_same_secret_key(tmp_path: Path) -> None:
    code = "from router.config import Settings; print(Settings.load().secret_key.get_secret_value())"
    root = str(Path(__file__).parents[1])
    environ = {"ENVIRONMENT": "development", "PATH": os.environ["PATH"], "PYTHONPATH": root}
    started = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_says_so_when_the_kept_key_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "secret.key").touch()
    with pytest.raises(ConfigError, match=r"is empty\. Remove the file, or set SECRET_KEY"):
        Settings.load({"ENVIRONMENT": "development"}, instance=tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be kept: .* Set SECRET_KEY"):
        Settings.load({"ENVIRONMENT": "development"}, instance=tmp_path / "secret.key")


def test_a_command_uses_the_key_that_development_left_but_a_web_process_does_not(tmp_path: Path) -> None:
    kept = Settings.load({"ENVIRONMENT": "development"}, instance=tmp_path).secret_key
    beside_it = {"DATABASE_URL": "postgres://u@h/d"}
    assert Settings.load(beside_it, is_command=True, instance=tmp_path).secret_key == kept
    with pytest.raises(ConfigError, match="SECRET_KEY is not set"):
        Settings.load(beside_it, instance=tmp_path)
    with pytest.raises(ConfigError, match="SECRET_KEY is not set"):
        Settings.load({**beside_it, "ENVIRONMENT": "production"}, is_command=True, instance=tmp_path)


def test_a_command_for_another_database_needs_its_secret_key(tmp_path: Path) -> None:
    assert Settings.load({}, is_command=True, instance=tmp_path / "new").environment == "development"
    with pytest.raises(ConfigError, match="SECRET_KEY is not set"):
        Settings.load({"DATABASE_URL": "postgres://u@h/d"}, is_command=True, instance=tmp_path / "other")
    assert load().environment == "production"
    assert Settings.load({"SECRET_KEY": LONG_SECRET}, is_command=True).environment == "production"


# ---- encryption keys


def test_derives_one_encryption_key_from_the_secret_key() -> None:
    (derived,) = load().fernet_keys
    assert load().fernet_keys == (derived,)
    assert Settings.load({"SECRET_KEY": "another"}).fernet_keys != (derived,)
    sealed = Fernet(derived).encrypt(b"auth-key")
    assert LONG_SECRET.encode() not in derived
    assert Fernet(load().fernet_keys[0]).decrypt(sealed) == b"auth-key"


def test_the_first_listed_key_encrypts_and_all_decrypt_and_so_does_the_derived_one() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before = Fernet(load().fernet_keys[0]).encrypt(b"a")
    under_old = Fernet(old).encrypt(b"b")
    keys = load(ENCRYPTION_KEYS=f" {new.decode()} , {old.decode()},").fernet_keys
    assert keys[:2] == (new, old)
    box = MultiFernet([Fernet(key) for key in keys])
    assert (box.decrypt(before), box.decrypt(under_old)) == (b"a", b"b")
    assert Fernet(new).decrypt(box.encrypt(b"c")) == b"c"


# ---- warnings, and the file .env


def test_warns_loudly_of_sqlite_on_a_disk_that_is_thrown_away() -> None:
    assert load().warnings({}) == []
    assert "Heroku gives a new disk to every release" in load().warnings({"DYNO": "web.1"})[0]
    assert load(DATABASE_URL="postgres://u@h/d").warnings({"DYNO": "web.1"}) == []


def test_warns_of_a_single_process() -> None:
    assert "calls wait" in load(WEB_CONCURRENCY="1").warnings({})[0]
    assert load(WEB_CONCURRENCY="1", ENVIRONMENT="development").warnings({}) == []


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"RENDER_EXTERNAL_URL": "https://router-ab1c.onrender.com"}, "https://router-ab1c.onrender.com"),
        ({"FLY_APP_NAME": "router-acme"}, "https://router-acme.fly.dev"),
        ({"RAILWAY_PUBLIC_DOMAIN": "router.up.railway.app"}, "https://router.up.railway.app"),
        ({"HEROKU_APP_DEFAULT_DOMAIN_NAME": "router-1.herokuapp.com"}, "https://router-1.herokuapp.com"),
        ({"FLY_APP_NAME": "router-acme", "PUBLIC_URL": "https://calls.example.com/"}, "https://calls.example.com"),
    ],
)
def test_is_reached_where_the_platform_says_until_told_better(environ: dict[str, str], address: str) -> None:
    assert load(**environ).base_url == address


def test_a_command_on_a_platform_is_not_at_a_desk(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SECRET_KEY is not set"):
        Settings.load({"FLY_APP_NAME": "router-acme"}, is_command=True, instance=tmp_path)
    assert not list(tmp_path.iterdir())


def test_knows_where_what_a_command_writes_is_thrown_away() -> None:
    assert load().passing_machine({"RELEASE_COMMAND": "1"}) == "Fly.io"
    assert load().passing_machine({}) == ""
    assert load(DATABASE_URL="postgres://u@h/d").passing_machine({"DYNO": "release.1"}) == ""


def test_warns_of_a_secret_key_that_could_be_guessed() -> None:
    assert "shorter than 32 characters" in load(SECRET_KEY="swordfish").warnings({})[0]
    assert load(SECRET_KEY="swordfish", ENVIRONMENT="development").warnings({}) == []


def test_reads_a_dotenv_file_beneath_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / ".env").write_text(f"# ours\nSECRET_KEY='{LONG_SECRET}$x'\nPORT=9100\nHOOK_BUDGET_MS=900\n")
    monkeypatch.setenv("PORT", "9200")
    settings = Settings.load()
    assert (settings.port, settings.hook_budget_ms) == (9200, 900)
    assert settings.secret_key.get_secret_value() == f"{LONG_SECRET}$x"


def test_says_so_when_the_dotenv_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(b"PUBLIC_URL=\xcf\xf0\xe8\xe2\xe5\xf2")
    with pytest.raises(ConfigError, match=r"^\.env cannot be read: .* Make it a readable UTF-8 text"):
        Settings.load()
