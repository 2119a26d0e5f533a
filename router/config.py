"""Read the settings from the environment, once: each with its default, help and limits. A bad value refuses to start.

No other module reads a setting from the environment. Imports nothing of the package. `python -m router.config` prints
.env.example, `python -m router.config --markdown` the table in docs/configuration.md; tests keep both up to date.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import socket
import stat
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, cast
from urllib.parse import quote, unquote, urlsplit

import psycopg
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from dotenv import dotenv_values
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

INSTANCE = Path("instance")
"""The folder for the SQLite database and its secret key, relative to the working directory."""

_RANDOM_TEXT = 'python3 -c "import secrets; print(secrets.token_urlsafe(48))"'
_RANDOM_KEY = 'python3 -c "import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'

# Platforms that give a new disk to every release, by an environment variable that each of them sets.
_THROW_AWAY_DISKS = {
    "DYNO": "Heroku",
    "RENDER": "Render",
    "FLY_APP_NAME": "Fly.io",
    "RAILWAY_ENVIRONMENT_NAME": "Railway",
    "K_SERVICE": "Cloud Run",
}

# The environment variables in which platforms pass an app its public address.
_PLATFORM_ADDRESSES = {
    "RENDER_EXTERNAL_URL": "{}",
    "FLY_APP_NAME": "https://{}.fly.dev",
    "RAILWAY_PUBLIC_DOMAIN": "https://{}",
    "HEROKU_APP_DEFAULT_DOMAIN_NAME": "https://{}",
}

# Platforms that run a command on a temporary machine, whose disk is lost afterwards.
_PASSING_MACHINES = {"RELEASE_COMMAND": "Fly.io", "DYNO": "Heroku"}


class ConfigError(Exception):
    """The environment is not valid. One line for each bad variable: its name, what is wrong, what to do."""


class _Notes(TypedDict):
    """More texts about a field, for the documentation and the error messages."""

    wants: str  # completes "NAME must be …"
    unset: str  # the meaning of an empty default
    recipe: str  # a command that prints a good value


def _setting(
    default: Any, description: str, wants: str, *, unset: str = "", recipe: str = "", **constraints: Any
) -> Any:
    """Return a field of Settings. A callable default is called with the values of the fields above it."""
    constraints["default_factory" if callable(default) else "default"] = default
    return Field(
        description=description, json_schema_extra={"wants": wants, "unset": unset, "recipe": recipe}, **constraints
    )


_POSTGRES_URL = re.compile(r"(?:postgres|postgresql|postgresql\+psycopg)://", re.IGNORECASE)
_USER = re.compile(r"(?P<user>[^:/@?]*)(?::(?P<password>.*))?@(?P<rest>[^@]*)", re.DOTALL)


def read_conninfo(url: str) -> dict[str, Any]:
    """Return the parameters of a PostgreSQL address as libpq reads them, with all hosts and options.

    User and password may hold special characters that are not percent-encoded. Raises ValueError, whose text shows no
    part of the address.
    """
    rest = _POSTGRES_URL.sub("", url, count=1)
    parts = _USER.fullmatch(rest)
    readings = [rest]
    if parts is not None:
        user, password = (quote(unquote(part or ""), safe="") for part in parts.group("user", "password"))
        readings.insert(0, f"{user}:{password}@{parts['rest']}")
    for reading in readings:
        with contextlib.suppress(psycopg.ProgrammingError):
            found = conninfo_to_dict(f"postgresql://{reading}")
            if all(port.isdecimal() for port in str(found.get("port", "0")).split(",")):
                return {name: value for name, value in found.items() if value}
    raise ValueError("cannot be read as a database address (not shown: it may hold a password)")


def processes_for(database_url: str) -> int:
    """Return how many web processes there are, unless somebody says so: more than there are cores wake each other."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
    return 2 if database_url.startswith("sqlite") else min(max(cores, 2), 4)


class Settings(BaseModel):
    """All settings. Field `x_y` is the variable `X_Y`. An empty variable counts as unset."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    environment: Literal["production", "development"] = _setting(
        "production",
        "Where this runs. In development a missing SECRET_KEY is made once and kept in instance/secret.key; "
        "`make run` sets it.",
        "production or development",
    )
    database_url: str = _setting(
        "sqlite:///instance/router.db",
        "Where everything is kept: SQLite on a disk that stays (one host), or PostgreSQL (any number of hosts).",
        "sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME",
        repr=False,  # holds a password
    )
    secret_key: SecretStr = _setting(
        "",
        "Signs sessions and, unless ENCRYPTION_KEYS is set, derives the key that encrypts stored credentials. Required "
        "outside development.",
        "a long random text",
        unset="none; in development made and kept",
        recipe=_RANDOM_TEXT,
    )
    encryption_keys: SecretStr = _setting(
        "",
        "Fernet keys: the first encrypts, all decrypt, so a new key goes in front. What the key derived from "
        "SECRET_KEY has encrypted stays readable.",
        "a comma list of Fernet keys",
        unset="derived from SECRET_KEY",
        recipe=_RANDOM_KEY,
    )
    public_url: str = _setting(
        "",
        "How the telephony platform and people reach this service, which may be under a path. Hook URLs are printed "
        "under it.",
        "an address such as https://router.example.com",
        unset="the address that Render, Fly.io, Railway or Heroku names; else http://127.0.0.1:PORT",
    )
    port: int = _setting(
        8000,
        "Where to listen, by IPv4 and, where the host has it, IPv6. When it is set in production, as hosting platforms "
        "do, on all interfaces; else on loopback.",
        "a whole number from 1 to 65535",
        ge=1,
        le=65535,
    )
    web_concurrency: int = _setting(
        lambda known: processes_for(str(known.get("database_url", ""))),
        "Web processes. Each answers many calls at a time and uses one core at most. SQLite has one writer at a time, "
        "so that more than 2 only wait for each other.",
        "a whole number from 1 to 64",
        unset="2 with SQLite; with PostgreSQL one per core, from 2 to 4",
        ge=1,
        le=64,
    )
    hook_budget_ms: int = _setting(
        1500,
        "Milliseconds within which the hook answers, whatever fails. Keep it below the timeout set in the platform.",
        "a whole number from 100 to 30000",
        ge=100,
        le=30000,
    )
    overflow_destination: str = _setting(
        "",
        "Last resort: the number or SIP login to answer with when not even the project is known, such as when the "
        "database is down and no process of this host knew it.",
        "one phone number, SIP login or scheme id of at most 128 characters, without spaces",
        unset="none; such a call is answered empty",
        pattern=r"^[^\s\x00-\x1f\x7f]{0,128}$",
    )
    presence_keeper: Literal["inline", "worker", "off"] = _setting(
        "inline",
        "Who polls presence: inline (a thread in each web process; a lease in the database lets one of them poll), "
        "worker (a process of its own: router poll), or off (only the hook asks, when it needs to).",
        "inline, worker or off",
    )
    outbox_dir: str = _setting(
        "",
        "The folder in which the processes of a host keep what waits for the database while that is away. A full disk "
        "there loses no call.",
        "a folder that this account may write to",
        unset="beside the SQLite file; else in the system's temporary folder",
    )
    presence_allow_private: bool = _setting(
        False,
        "1 lets a project's status API live on a private or loopback address. The demo sets it. Leave it off where "
        "those who edit projects may not reach into your network.",
        "0 or 1",
    )
    proxy_hops: int = _setting(
        0,
        "How many addresses the reverse proxies in front add to X-Forwarded-For: as many as there are proxies, mostly. "
        "Too low a number shows a proxy's address in place of the caller's, too high a one lets callers forge theirs.",
        "a whole number from 0 to 10",
        ge=0,
        le=10,
    )
    metrics_token: SecretStr = _setting(
        "",
        "Who sends it as a bearer token may read /metrics. Without it only programs on this very host may, and nobody "
        "where PUBLIC_URL or PROXY_HOPS says that a proxy stands in front.",
        "16 characters or more",
        unset="none; /metrics answers this host only, and not behind a proxy",
        recipe=_RANDOM_TEXT,
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _setting(
        "INFO", "The least that is logged.", "DEBUG, INFO, WARNING or ERROR"
    )
    log_format: Literal["console", "json"] = _setting(
        lambda known: "console" if known.get("environment") == "development" else "json",
        "How log lines look on standard output: console (for eyes) or json (one object per line, for machines).",
        "console or json",
        unset="json; console in development",
    )
    demo: bool = _setting(
        True,
        "`make run` seeds a demo project into an empty database and starts the simulated PBX. 0 leaves both out.",
        "0 or 1",
    )

    @field_validator("database_url")
    @classmethod
    def _use_our_drivers(cls, value: str) -> str:
        if _POSTGRES_URL.match(value):
            if not read_conninfo(value).get("dbname"):
                raise ValueError("names no database (not shown: it may hold a password). Add /NAME")
            return value
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):
            raise ValueError("cannot be read as a database address (not shown: it may hold a password)") from None
        if url.drivername in {"sqlite", "sqlite+pysqlite"}:
            if url.host or not url.database or url.database == ":memory:" or url.database.startswith("file:"):
                raise ValueError("must name a file, for all processes to share: sqlite:///PATH")
            return url.set(drivername="sqlite+pysqlite").render_as_string(hide_password=False)
        raise ValueError(
            f"begins with {url.drivername}: write sqlite:///PATH, or postgresql://USER:PASSWORD@HOST:PORT/NAME (more "
            "of it is not shown: it may hold a password)"
        )

    @field_validator("encryption_keys")
    @classmethod
    def _are_fernet_keys(cls, value: SecretStr) -> SecretStr:
        for place, key in enumerate(_comma_list(value), start=1):
            try:
                Fernet(key)
            except ValueError:
                raise ValueError(
                    f"key {place} in the list is not 32 bytes in URL-safe base64. Make one: {_RANDOM_KEY}"
                ) from None
        return value

    @field_validator("metrics_token")
    @classmethod
    def _cannot_be_guessed(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 16:
            raise ValueError(f"is shorter than 16 characters. Make one: {_RANDOM_TEXT}")
        return value

    @field_validator("public_url")
    @classmethod
    def _is_a_base_address(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            good = (
                parts.scheme in {"http", "https"}
                and parts.hostname
                and parts.port != 0
                and not set(value) & set("?#@ ")
            )
        except ValueError:  # as for brackets without an IPv6 address, or a port that is not a number
            good = False
        if not good:
            raise ValueError(f"{value!r} is not an address such as https://router.example.com (without user, ? and #)")
        value = value.rstrip("/")
        names = [unquote(name) for name in urlsplit(value).path.split("/")[1:]]
        if any(name in {"", ".", ".."} or "/" in name or not name.isprintable() for name in names):
            raise ValueError(
                f"{value!r} has a path that cannot be served: write plain names between single slashes, as in "
                "https://example.com/router"
            )
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, *, is_command: bool = False, instance: Path = INSTANCE
    ) -> Self:
        """Read `environ` (default: this process's environment over the file .env of the working directory).

        Without SECRET_KEY, development uses the key in `instance`/secret.key (created if missing, mode 0600), and
        production refuses. `is_command`: the `router` command runs. On a person's own machine it counts as development,
        so that it works beside `make run`: if ENVIRONMENT is not set, and secret.key exists or DATABASE_URL is not set.

        Raises ConfigError with one line per bad variable. It never holds the value of a secret.
        """
        if environ is None:
            environ = {**_read_env_file(Path(".env")), **os.environ}
        sent = {name: environ.get(name.upper(), "").strip() for name in cls.model_fields}
        given = {name: value for name, value in sent.items() if value}
        named = [form.format(environ[name]) for name, form in _PLATFORM_ADDRESSES.items() if environ.get(name)]
        if named:
            given.setdefault("public_url", named[0])
        secret_file = instance / "secret.key"
        is_hosted = any(environ.get(mark) for mark in _THROW_AWAY_DISKS)
        at_a_desk = is_command and not is_hosted and (secret_file.exists() or "database_url" not in given)
        if at_a_desk and "secret_key" not in given:
            given.setdefault("environment", "development")
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(error, given))) from None
        if settings.secret_key.get_secret_value():
            return settings
        if settings.environment == "production":
            raise ConfigError(
                "SECRET_KEY is not set. Set it to a long random text and keep it; for a trial on this machine set "
                f"ENVIRONMENT=development instead. Make one: {_RANDOM_TEXT}"
            )
        return settings.model_copy(update={"secret_key": SecretStr(_kept_secret(secret_file))})

    @property
    def fernet_keys(self) -> tuple[bytes, ...]:
        """The keys for MultiFernet: the first encrypts, all decrypt. The last one is derived from SECRET_KEY."""
        derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"router: credentials at rest")
        derived = base64.urlsafe_b64encode(derive.derive(self.secret_key.get_secret_value().encode()))
        return (*_comma_list(self.encryption_keys), derived)

    @property
    def base_url(self) -> str:
        """The URL of this service, without a slash at the end."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def bind(self) -> list[str]:
        """The HOST:PORT to listen on: all interfaces if PORT is set in production, else loopback (behind a proxy)."""
        everywhere = self.environment == "production" and "port" in self.model_fields_set
        hosts = _hosts("0.0.0.0", "::") if everywhere else _hosts("127.0.0.1", "::1")  # noqa: S104 - for the platform's proxy
        return [f"{host}:{self.port}" for host in hosts]

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is a SQLite file on this host."""
        return self.database_url.startswith("sqlite")

    @property
    def outbox_folder(self) -> Path:
        """The folder of the outbox. It may not exist yet."""
        if self.outbox_dir:
            return Path(self.outbox_dir).resolve()
        if self.is_sqlite:
            return Path(make_url(self.database_url).database or "").resolve().parent
        return Path(tempfile.gettempdir()) / f"router-outbox-{os.getuid()}"

    def passing_machine(self, environ: Mapping[str, str] | None = None) -> str:
        """Return the platform if it runs commands on a temporary machine, whose SQLite file is lost; else ""."""
        environ = os.environ if environ is None else environ
        return next((name for mark, name in _PASSING_MACHINES.items() if self.is_sqlite and environ.get(mark)), "")

    def warnings(self, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return a sentence for each setting that is allowed but likely a mistake, to be logged at start."""
        environ = os.environ if environ is None else environ
        found = []
        platform = next((name for mark, name in _THROW_AWAY_DISKS.items() if environ.get(mark)), None)
        if self.is_sqlite and platform:
            found.append(
                f"The database is a SQLite file, but {platform} gives a new disk to every release: unless it lies on a "
                "volume that stays, all will be lost. Set DATABASE_URL to a PostgreSQL database."
            )
        if self.environment == "production" and self.web_concurrency == 1:
            found.append(
                "WEB_CONCURRENCY is 1: calls wait while the only process makes a page or checks a connection. Set it "
                "to 2 or more."
            )
        if self.environment == "production" and len(self.secret_key.get_secret_value()) < 32:
            found.append(f"SECRET_KEY is shorter than 32 characters and could be guessed. Make one: {_RANDOM_TEXT}")
        return found


def _hosts(ipv4: str, ipv6: str) -> list[str]:
    """Return the addresses to bind, as gunicorn takes them: IPv6 only if this host has it, and that one alone if its
    socket also accepts IPv4.
    """
    try:
        with socket.socket(socket.AF_INET6) as trial:
            trial.bind((ipv6, 0))
            takes_ipv4 = ipv6 == "::" and not trial.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return [ipv4]
    return [f"[{ipv6}]"] if takes_ipv4 else [ipv4, f"[{ipv6}]"]


def _comma_list(value: SecretStr) -> Iterator[bytes]:
    return (part.strip().encode() for part in value.get_secret_value().split(",") if part.strip())


def _read_env_file(path: Path) -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Make it a readable UTF-8 text, or remove it.") from None


def keep_to_owner(path: Path) -> bool:
    """Remove the rights of all other accounts on this file or folder. Return whether they have none now; True if it
    does not exist.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            path.chmod(mode & 0o700)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kept_secret(path: Path) -> str:
    """Return the secret in `path`, created if missing. Processes that start at the same time get the same one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for place in (path.parent, path):
            keep_to_owner(place)
        if not path.exists():
            # Written to another file and then linked: no process can read half a key, and the first link wins.
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as fresh:  # mode 0600
                fresh.write(secrets.token_urlsafe(48))
                fresh.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(fresh.name, path)
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"SECRET_KEY is not set, and {path} cannot be kept: {error}. Set SECRET_KEY.") from None
    if not secret:
        raise ConfigError(f"SECRET_KEY is not set, and {path} is empty. Remove the file, or set SECRET_KEY.")
    return secret


def _explain(error: ValidationError, given: Mapping[str, str]) -> Iterator[str]:
    for problem in error.errors(include_url=False, include_context=True, include_input=False):
        field = str(problem["loc"][0])
        if field not in given:  # its default depends on another field, which was refused
            continue
        if problem["type"] == "value_error":
            yield f"{field.upper()} {problem['ctx']['error']}."
        else:
            wants = _notes(Settings.model_fields[field])["wants"]
            yield f"{field.upper()} must be {wants}, not {given[field]!r}."


def _notes(field: FieldInfo) -> _Notes:
    return cast("_Notes", field.json_schema_extra)


# ---- the documentation, rendered from the model


def _default(field: FieldInfo) -> str:
    default = "" if field.default_factory else field.default
    return str(int(default)) if isinstance(default, bool) else str(default)


def render_env_example() -> str:
    """Return the text of .env.example: each setting commented out, with its help and its default."""
    text = (
        "# Copy to .env, beside the Procfile, and set what you need. The environment itself wins over this file.\n"
        "# Written by: python -m router.config > .env.example\n"
    )
    for name, field in Settings.model_fields.items():
        notes = _notes(field)
        words = f"{field.description} Takes {notes['wants']}."
        if notes["unset"]:
            words += f" Unset: {notes['unset']}."
        lines = textwrap.wrap(words, width=110)
        if notes["recipe"]:
            lines.append(f"Make one:  {notes['recipe']}")
        text += "\n" + "".join(f"# {line}\n" for line in lines) + f"#{name.upper()}={_default(field)}\n"
    return text


def render_table() -> str:
    """Return the table of settings in docs/configuration.md."""
    rows = ["| variable | default | takes | what it does |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        notes = _notes(field)
        default = f"`{_default(field)}`" if _default(field) else notes["unset"]
        recipe = f" Make one: `{notes['recipe']}`" if notes["recipe"] else ""
        rows.append(f"| `{name.upper()}` | {default} | {notes['wants']} | {field.description}{recipe} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_table() if "--markdown" in sys.argv[1:] else render_env_example())
