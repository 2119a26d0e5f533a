"""What is exported says all that is stored, but secrets, and applying it changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from router.configuration import apply, export, load
from router.configuration.schema import ProjectConfig
from router.core.model import WhenUnknown
from router.core.strategies import STRATEGIES
from router.db import models
from router.db.documents import UnknownProjectError
from router.db.session import Database
from router.hook.fields import ANSWERS, FIELD_NAMES
from tests.configuration.conftest import ENVIRON, load_sample, sample


def exported(database: Database, name: str | None = None) -> str:
    with database.reading() as session:
        return export(session, name)


def versions(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(models.ConfigVersion)) or 0


def test_writes_down_every_kind_of_thing(database: Database) -> None:
    apply(database, load_sample())
    assert exported(database) == sample("exported.yaml")
    assert exported(database, "acme") == sample("exported.yaml")


def test_applying_what_was_exported_changes_nothing(database: Database) -> None:
    apply(database, load_sample())
    assert apply(database, load(exported(database), {})) == []
    assert versions(database) == 1


def test_what_was_exported_makes_an_equal_project(database: Database) -> None:
    apply(database, load_sample())
    text = exported(database)
    apply(database, load(text.replace("name: acme", "name: copy"), {}))
    assert exported(database, "copy").replace("name: copy", "name: acme") == "".join(
        line for line in text.splitlines(keepends=True) if "Set, and not exported" not in line
    )


def test_secrets_are_never_exported(database: Database) -> None:
    apply(database, load_sample())
    text = exported(database)
    assert not any(value in text for secret in ENVIRON.values() for value in secret.split(":"))
    assert "# Set, and not exported: hook.basic_auth, presence.auth_key. Left out, they stay as they are." in text


def test_projects_stand_in_the_order_of_their_names_and_deleted_ones_nowhere(database: Database) -> None:
    assert load(exported(database), {}).projects == ()
    apply(database, load("projects: [{name: beta}, {name: gone}, {name: acme}]", {}))
    with database.writing() as session:
        gone = session.scalars(select(models.Project).where(models.Project.name == "gone")).one()
        gone.deleted_at = gone.created_at
    assert [project.name for project in load(exported(database), {}).projects] == ["acme", "beta"]
    with pytest.raises(UnknownProjectError, match="there is no project 'gone'; there are: acme, beta"):
        exported(database, "gone")


def test_a_foreign_number_that_reads_as_a_national_one_gets_its_plus(database: Database) -> None:
    rules = "[{name: a, when: {caller: ['+1 511 234 5678', '+15*', '+15112345678-+15112345688']}}]"
    config = load(f"projects: [{{name: acme, country: DE, overflow: '+1 511 234 5678', rules: {rules}}}]", {})
    (project,) = config.projects
    assert project.overflow == "15112345678"
    assert project.rules[0].when.caller == ("15112345678", "15*", "15112345678-15112345688")
    apply(database, config)
    assert "overflow: '+15112345678'" in exported(database)
    assert load(exported(database), {}).projects == (project,)


# ---- the law: export → apply is the identity, whatever was stored before


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """One database for all examples: each is applied over the one before."""
    path: Path = tmp_path_factory.mktemp("exporting") / "router.db"
    database = Database(f"sqlite+pysqlite:///{path}")
    models.Base.metadata.create_all(database.engine)
    yield database
    database.dispose()


_PRINTABLE = st.characters(exclude_categories=("C", "Z")) | st.sampled_from(" ${}:#'\"-[],&*!|>%@`~?\\")
_TEXTS = st.text(_PRINTABLE, max_size=8).map(str.strip)
_NAMES = st.sampled_from(["Ann", "Bob", "no", "null", "~", "2026-12-25", "0x1F", "1e3", "${A}", "<<", "a: b #c"]) | (
    _TEXTS.filter(bool)
)
_ALIASES = _NAMES.filter(lambda name: "," not in name)
_SECONDS = st.integers(1, 60) | st.floats(1, 60).map(lambda value: round(value, 3))
_TOKENS = st.text(st.sampled_from("abz_-.$${}09"), min_size=1, max_size=6)
_DESTINATIONS = st.sampled_from(["", "044 111 22 33", "+4930901820", "120", "+15112345678"]) | _TOKENS
_NUMBERS = st.lists(
    st.sampled_from(
        ["050*", "+38067*", "anonymous", "0441112233", "+1 511 234 5678", "+15*", "101", "100-199", "acme_ann"]
    ),
    min_size=1,
    max_size=3,
)
_PARAMS = st.dictionaries(
    _TEXTS.filter(bool),
    st.lists(st.sampled_from(["a", "a*", "*a*", "*", "no", "${x}"]), min_size=1, max_size=2),
    max_size=2,
).filter(lambda params: len({name.casefold() for name in params}) == len(params))
_HOURS = st.sampled_from(["closed", ["09:00-18:00"], ["22:00-06:00"], ["9:00-13:00", "14:00-24:00"], []])
_EXCEPTIONS = (
    "2026-12-25",
    "2027-02-01..2027-02-08",
    "02-29",
    "08-24",
    "12-31..01-02",
    "Last Monday of May",
    "2nd tue of nov",
)
_INSTANTS = st.sampled_from(["2026-12-25", "2026-12-24T14:00", "2026-10-25T03:30+02:00", "2026-12-24T14:00:00.5Z"])


def maybe(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


def _named(schedule: dict[str, Any]) -> dict[str, Any]:
    """The schedule with names of some of its exceptions."""
    dates = [*schedule.get("exceptions", ())][::2]
    return schedule | ({"exception_names": dict.fromkeys(dates, "a day off")} if dates else {})


@st.composite
def projects(draw: st.DrawFn) -> dict[str, Any]:
    def named(most: int) -> list[str]:
        return draw(st.lists(_NAMES, max_size=most, unique=True))

    def some(names: list[str]) -> list[str]:
        return draw(st.lists(st.sampled_from(names), max_size=3, unique=True)) if names else []

    def one(names: list[str], key: str) -> dict[str, str]:
        return draw(maybe(**{key: st.sampled_from(names)})) if names else {}

    schedules, agents, groups, rules = named(2), named(4), named(3), named(4)
    logins = iter(draw(st.lists(_TOKENS, min_size=8, max_size=8, unique=True)))
    return {
        "name": "acme",
        **draw(
            maybe(
                time_zone=st.sampled_from(["Europe/Kyiv", "UTC", "America/New_York"]),
                country=st.sampled_from(["UA", "DE", "US", "KZ", "PL"]),
                overflow=_DESTINATIONS,
                cool_down_seconds=_SECONDS,
                keep_days=st.integers(1, 99),
                mask_numbers=st.booleans(),
                hook=maybe(
                    answer=st.sampled_from(ANSWERS),
                    key=st.sampled_from(["to", "${to}", "no"]),
                    retry_seconds=_SECONDS,
                    allow_addresses=st.lists(st.sampled_from(["10.0.0.5/8", "::1", "203.0.113.7/32"]), max_size=2),
                    fields=st.dictionaries(st.sampled_from(FIELD_NAMES), st.lists(_ALIASES, min_size=1), max_size=2),
                    basic_auth=st.sampled_from(["", "u:p"]),
                ),
                presence=maybe(
                    project_id=st.sampled_from(["", "7"]),
                    token=st.sampled_from(["", "t"]),
                    with_do_not_disturb=st.booleans(),
                    when_unknown=st.sampled_from([*WhenUnknown]).map(str),
                ),
            )
        ),
        "schedules": [
            {
                "name": name,
                **draw(
                    maybe(
                        time_zone=st.sampled_from(["Europe/Kyiv", "Asia/Kathmandu"]),
                        open=maybe(**{"mon-wed": _HOURS, "fri": _HOURS}),
                        exceptions=maybe(**dict.fromkeys(_EXCEPTIONS, _HOURS)),
                    ).map(_named)
                ),
                **draw(st.just({}) | maybe(override_until=_INSTANTS).map(lambda until: {"override": "open", **until})),
            }
            for name in schedules
        ],
        "agents": [
            {
                "name": name,
                "sip_logins": [next(logins) for _ in range(draw(st.integers(0, 2)))],
                **draw(
                    maybe(
                        paused=st.booleans(),
                        wrap_up_seconds=_SECONDS,
                        daily_cap=st.integers(1, 9),
                        max_talk_per_day=st.integers(1, 1440),
                        staff_id=_TEXTS,
                        away_until=_INSTANTS,
                    )
                    | maybe(away_from=_INSTANTS).map(lambda begin: {**begin, "away_until": "2027-01-01"})
                ),
                **one(schedules, "hours"),
                **one([other for other in agents if other != name], "deputy"),
            }
            for name in agents
        ],
        "groups": [
            {
                "name": name,
                "members": [
                    {
                        "agent": agent,
                        **draw(maybe(tier=st.integers(0, 2), weight=st.integers(1, 3))),
                        **one(schedules, "hours"),
                    }
                    for agent in some(agents)
                ],
                **draw(
                    maybe(strategy=st.sampled_from(sorted(STRATEGIES)), ring_seconds=_SECONDS, overflow=_DESTINATIONS)
                ),
            }
            for name in groups
        ],
        "rules": [
            {
                "name": name,
                "groups": some(groups),
                "never": some(agents),
                "when": {
                    **draw(
                        maybe(
                            caller=_NUMBERS,
                            not_caller=_NUMBERS,
                            dialed=_NUMBERS,
                            not_dialed=_NUMBERS,
                            params=_PARAMS,
                            not_params=_PARAMS,
                            direction=st.lists(st.sampled_from(["in", "Callback", "${d}"]), min_size=1, max_size=2),
                        )
                    ),
                    **one(schedules, "schedule"),
                    **one(schedules, "outside"),
                    **draw(
                        maybe(free=st.builds(dict, group=st.sampled_from(groups), fewer_than=st.just(2)))
                        if groups
                        else st.just({})
                    ),
                },
                **draw(
                    maybe(
                        enabled=st.booleans(),
                        prefer=st.just("last_agent") | _NAMES.map(lambda param: {"param": param}),
                        prefer_days=st.integers(1, 99),
                        overflow=_DESTINATIONS,
                    )
                ),
            }
            for name in rules
        ],
    }


def escaped(value: Any) -> Any:
    match value:
        case str():
            return value.replace("${", "$${")
        case list():
            return [escaped(item) for item in value]
        case dict():
            return {key: escaped(item) for key, item in value.items()}
    return value


def comparable(words: ProjectConfig) -> dict[str, Any]:
    """Without what is not exported; agents and schedules, which have no order, by name."""
    told = words.model_dump(mode="json")
    del told["hook"]["basic_auth"], told["presence"]["token"], told["presence"]["online_from"]
    return {
        **told,
        "agents": {agent["name"]: agent for agent in told["agents"]},
        "schedules": {schedule["name"]: schedule for schedule in told["schedules"]},
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(project=projects())
def test_export_is_the_inverse_of_apply(sqlite: Database, project: dict[str, Any]) -> None:
    config = load(yaml.safe_dump(escaped({"projects": [project]}), allow_unicode=True), {})
    apply(sqlite, config)
    before = versions(sqlite)
    assert apply(sqlite, config) == []
    again = load(exported(sqlite), {})
    assert comparable(again.projects[0]) == comparable(config.projects[0])
    assert apply(sqlite, again) == []
    assert versions(sqlite) == before
    assert load(exported(sqlite), {}) == again
