"""The `router` command. Exit code 0: done; 1: failed, with one clear line on stderr; 2: bad usage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn
from zoneinfo import ZoneInfo

import click
from sqlalchemy import select

from router.config import ConfigError, Settings
from router.configuration.rule_tests import FailingTestsError
from router.db.documents import BuildError, UnknownProjectError
from router.db.failures import describe_failure
from router.db.session import Database
from router.db.types import SecretError, use_encryption_keys

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from router.configuration import ConfigFile
    from router.configuration.drafts import KeptDraft
    from router.configuration.schema import ProjectConfig
    from router.db import models
    from router.explanation.variations import Hours

# Heavier parts are imported by the commands that need them: `router --help` should not take a second.


class Failure(click.ClickException):
    """Exit 1 with one line on stderr."""

    def show(self, file: Any = None) -> None:
        click.echo(f"router: {self.message}", err=True)


def _settings() -> Settings:
    try:
        return Settings.load(is_command=True)
    except ConfigError as error:
        raise Failure(str(error)) from None


def _database() -> Database:
    settings = _settings()
    use_encryption_keys(settings.fernet_keys)
    database = Database(settings.database_url)
    click.get_current_context().call_on_close(database.dispose)
    return database


def _refuse_to_start(settings: Settings, *checks: str) -> None:
    """Print what is wrong; fail if a start is refused. `checks`: only the findings of these."""
    from router import check

    findings = check.look_at_start(settings, without=["presence"])
    wrong = [found for found in findings if found.is_error and (not checks or found.check in checks)]
    for finding in wrong:
        click.echo(f"error: {finding.line}", err=True)
    if why := check.refusal(settings, wrong):
        raise Failure(why)


class _Commands(click.Group):
    """Reports expected errors in one line instead of a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (SecretError, UnknownProjectError) as error:
            raise Failure(str(error)) from None
        except BuildError as error:
            raise Failure(f"calls could not be routed by this configuration, nothing was changed: {error}") from None
        except FailingTestsError as error:
            raise Failure(f"nothing was changed: {error}; to do it all the same, add --accept-failing") from None
        except PermissionError as error:
            raise Failure(f"{error.filename}: no permission: check its owner and its mode") from None
        except Exception as error:
            if (description := describe_failure(error)) is None:
                raise
            raise Failure(description) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="router")
def main() -> None:
    """Routes inbound calls to the agent who should take them, and explains why."""


# ---- database


@main.group()
def db() -> None:
    """The database's schema."""


@db.command("upgrade")
def db_upgrade() -> None:
    """Bring the schema up to date. The release step of a deployment."""
    from router import check
    from router.db import migrate

    if platform := _settings().passing_machine():
        raise Failure(
            f"the database is a SQLite file, and {platform} throws this machine away when this command ends: no web "
            "process would ever see it. Set DATABASE_URL to a PostgreSQL database."
        )
    database = _database()
    findings = check.look(_settings(), database, seconds=check.START_SECONDS, without=["schema", "outbox", "disk"])
    for finding in findings:
        if finding.lasts and finding.check in {"database", "encoding", "rights"}:
            raise Failure(f"nothing is changed: {finding.line}")
    migrate.upgrade(database)


@db.command("downgrade")
@click.argument("revision", default="-1")
@click.option("--yes", is_flag=True, help="Do not ask.")
def db_downgrade(revision: str, *, yes: bool) -> None:
    """Undo the last migration, or all down to REVISION ("base": everything). What they added is lost."""
    from alembic.script.revision import RevisionError

    from router.db import migrate

    database = _database()
    try:
        lost = migrate.losses(database, revision)
    except RevisionError as error:
        raise Failure(f"{error}; the revisions are the files of migrations/versions") from None
    if lost is None:
        raise Failure("the schema is there already: nothing is changed")
    if lost.is_all and revision != "base":
        raise Failure(
            "no migration would be left, and the whole database be emptied; if that is meant: router db downgrade base"
        )
    what = "the whole database: every project, user, call and setting" if lost.is_all else "what the newer release kept"
    click.echo(f"This deletes {what}.")
    for line in lost.lines:
        click.echo(f"  {line}")
    try:
        if not yes:
            click.confirm("Go on? This cannot be undone but from a backup.", abort=True)
    except click.Abort:
        raise Failure("nothing is changed; to do it without being asked, add --yes") from None
    migrate.downgrade(database, revision)


@db.command("check")
def db_check() -> None:
    """Check that the schema is the one that this release expects."""
    from router.db import migrate

    database = _database()
    if not migrate.is_at_head(database):
        raise Failure("the database's schema is not up to date: run `router db upgrade`")
    if different := migrate.differences(database):
        raise Failure("the schema differs from what this release expects: " + "; ".join(different))
    click.echo("The schema is up to date.")


# ---- what the service needs


@main.command("check")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check_all(*, as_json: bool) -> None:
    """Check what the service needs: database, rights, secrets, presence. Fails if something is wrong, and prints the
    remedy. Changes nothing."""
    from router import check

    try:
        settings = Settings.load(is_command=True)
    except ConfigError as error:
        findings = check.unreadable(str(error))
    else:
        findings = check.look_at_start(settings)
    if as_json:
        click.echo(json.dumps(check.as_json(findings), indent=2, ensure_ascii=False))
    else:
        click.echo(check.as_text(findings))
    wrong = sum(finding.is_error for finding in findings)
    if wrong:
        raise Failure(f"{wrong} of {len(findings)} checks found an error" if wrong > 1 else "a check found an error")


# ---- configuration as code


_CONFIG_FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@main.group()
def config() -> None:
    """Projects, agents, groups and rules as a YAML file, see docs/configuration-file.md."""


@config.command("check")
@click.argument("file", type=_CONFIG_FILE)
def config_check(file: str) -> None:
    """Check FILE ("-": standard input) without a database. Does not fail for warnings."""
    read = _read_config(file)
    click.echo(f"{read.filename} can be applied: {', '.join(row.name for row in read.projects) or 'no project'}.")


@config.command("apply")
@click.argument("file", type=_CONFIG_FILE)
@click.option("--dry-run", is_flag=True, help="Only tell what would change.")
@click.option("--comment", default="", help="Why, in a few words: stored with the version.")
@click.option("--accept-failing", is_flag=True, help="Apply it although tests of the rules fail.")
@click.option("--draft", is_flag=True, help="Keep it as the draft, for calls to go on as before: see config publish.")
def config_apply(file: str, *, dry_run: bool, comment: str, accept_failing: bool, draft: bool) -> None:
    """Make the projects in FILE as it describes them: all or none. Other projects are left alone."""
    from router.configuration import apply

    if draft and (comment or accept_failing):
        raise click.UsageError("--comment and --accept-failing are for router config publish, not for --draft")
    read = _read_config(file)
    how: dict[str, Any] = {"comment": _comment(comment), "accept_failing": accept_failing, "dry_run": dry_run}
    with _reported_problems(read.filename):
        changes = apply(_database(), read, **how, as_draft=draft)
    for change in changes:
        click.echo(change)
    click.echo(f"{len(changes)} changes{', none applied' if dry_run else ''}." if changes else "Nothing to change.")


@config.command("export")
@click.option("--project", metavar="NAME", help="Only this one.")
def config_export(project: str | None) -> None:
    """Print the configuration as YAML, without secrets. Applying it changes nothing."""
    from router.configuration import export

    with _database().reading() as session:
        click.echo(export(session, project), nl=False)


@config.command("history")
@click.argument("project")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
def config_history(project: str, limit: int) -> None:
    """List the published versions of PROJECT, newest first."""
    from router.configuration.versions import list_versions
    from router.db.queries import project_named

    with _database().reading() as session:
        row = project_named(session, project)
        zone = ZoneInfo(row.time_zone)
        for version in list_versions(session, row.id, limit=limit):
            at = version.published_at.astimezone(zone)
            click.echo(f"{version.number:>6}  {at:%Y-%m-%d %H:%M:%S %z}  {version.actor}  {version.comment}".rstrip())


@config.command("diff")
@click.argument("project")
@click.argument("older", metavar="[A]", type=int, required=False)
@click.argument("newer", metavar="[B]", type=int, required=False)
@click.option("--draft", is_flag=True, help="Tell what the draft changes.")
def config_diff(project: str, older: int | None, newer: int | None, *, draft: bool) -> None:
    """Tell what changed in PROJECT from version A to version B, in the words of the file.

    Without B: to the present version. Without A: what the present version changed.
    """
    from router.configuration.applying import differences_in_words
    from router.configuration.document import config_from
    from router.db.queries import project_named

    if draft and older is not None:
        raise click.UsageError("give versions, or --draft: it is compared with the present version")
    with _database().reading() as session:
        row = project_named(session, project)
        if draft:
            kept = _draft_of(session, row)
            before, after, unsettled = kept.live, kept.document, len(kept.conflicts)
        else:
            to = row.version if newer is None else newer
            before, after = (_version(session, row, n) for n in (to - 1 if older is None else older, to))
            unsettled = 0
    found = list(differences_in_words(before, config_from(after)))
    if unsettled:
        found.append(f"{unsettled} of it changed outside of the draft too: decide in the browser, under Draft.")
    click.echo("\n".join(found) or "Nothing differs.")


@config.command("rollback")
@click.argument("project")
@click.argument("version", type=int)
@click.option("--comment", default="", help="Why, in a few words.")
@click.option("--accept-failing", is_flag=True, help="Restore it although tests of the rules fail.")
def config_rollback(project: str, version: int, comment: str, *, accept_failing: bool) -> None:
    """Make the configuration of PROJECT what it was in VERSION, as a new version.

    Credentials, the addresses they are sent to, the project's name and its tests stay as they are.
    """
    from router.configuration.applying import differences_in_words
    from router.configuration.change import ConfigurationError, change
    from router.configuration.document import config_from
    from router.configuration.versions import NoSuchVersionError, restore_version
    from router.db.queries import project_named

    database = _database()
    with database.reading() as session:
        project_id = project_named(session, project).id
    try:
        with change(database, project_id, "cli") as draft:
            before = draft.document
            restore_version(draft, version)
            found = list(differences_in_words(before, config_from(draft.document)))
            draft.comment, draft.accepts_failing = _comment(comment) or f"Version {version} restored", accept_failing
            was = draft.project.version
            draft.save()
            now = draft.project.version
    except (NoSuchVersionError, ConfigurationError) as error:
        raise Failure(f"nothing was changed: {error}") from None
    click.echo("\n".join([*found, f"{project} has version {now} now."]) if now != was else "Nothing to change.")


@config.command("publish")
@click.argument("project")
@click.option("--comment", default="", help="Why, in a few words: stored with the version.")
@click.option("--accept-failing", is_flag=True, help="Publish it although tests of the rules fail.")
@click.option("--at", "moment", metavar="ISO8601", help="When, by the project's clock; by default now.")
@click.option("--call-off", is_flag=True, help="Do not publish it at the moment that was planned.")
def config_publish(project: str, comment: str, *, accept_failing: bool, moment: str | None, call_off: bool) -> None:
    """Publish the draft of PROJECT as one version, now or at a moment."""
    from router.configuration.change import change, change_as
    from router.configuration.drafts import CannotPublishError, KeptDraft, check_publishable, publish_into
    from router.core.instants import InstantError, parse_instant
    from router.db.queries import project_named

    database, why = _database(), _comment(comment)
    with database.reading() as session:
        row = project_named(session, project)
        project_id, zone = row.id, row.time_zone
    try:
        at = parse_instant(moment, zone) if moment else None
    except InstantError as error:
        raise click.BadParameter(str(error), param_hint="--at") from None
    if at is not None and at <= datetime.now(UTC):
        raise click.BadParameter("this moment is over", param_hint="--at")
    try:
        if call_off:
            with change_as(KeptDraft, database, project_id, "cli") as kept:
                kept.plan(None)
            click.echo(f"Called off. The draft of {project} stays.")
            return
        if at is not None:
            check_publishable(database, project_id, "cli", is_owner=True, accepts_failing=accept_failing)
            with change_as(KeptDraft, database, project_id, "cli") as kept:
                kept.plan(at, why, accepts_failing=accept_failing)
            click.echo(f"The draft of {project} will be published at {at.astimezone(ZoneInfo(zone)).isoformat()}.")
            return
        with change(database, project_id, "cli") as draft:
            draft.comment, draft.accepts_failing = why, accept_failing
            publish_into(draft, "cli", is_owner=True)
            name, version = draft.project.name, draft.project.version
    except CannotPublishError as error:
        raise Failure(f"nothing was changed: {error.words}") from None
    click.echo(f"{name} has version {version} now.")


@config.command("discard")
@click.argument("project")
def config_discard(project: str) -> None:
    """Drop the draft of PROJECT."""
    from router.configuration.change import change_as
    from router.configuration.drafts import KeptDraft
    from router.db.queries import project_named

    database = _database()
    with database.reading() as session:
        project_id = _draft_of(session, project_named(session, project)).project.id
    with change_as(KeptDraft, database, project_id, "cli") as kept:
        kept.discard()
    click.echo(f"The draft of {project} is gone.")


@config.command("test")
@click.argument("project")
@click.option("--file", "file", type=_CONFIG_FILE, help="Test the project as this file describes it.")
@click.option("--draft", is_flag=True, help="Test the project as its draft says.")
def config_test(project: str, file: str | None, *, draft: bool) -> None:
    """Run the rules' own tests of PROJECT. Fails if one fails."""
    from router.configuration.document import document_of
    from router.configuration.rows import read_rows
    from router.configuration.rule_tests import run_tests
    from router.db.queries import project_named

    if draft and file is not None:
        raise click.UsageError("give --file or --draft")
    if file is None:
        with _database().reading() as session:
            row = project_named(session, project)
            document = _draft_of(session, row).document if draft else read_rows(session, row)
    else:
        document = document_of(_project_of(file, project))
    results = run_tests(document)
    for result in results:
        click.echo(f"{'FAILS' if result.failures else 'ok   '}  {result.name}{'  ' * bool(result.why)}{result.why}")
    failed = sum(bool(result.failures) for result in results)
    if failed:
        raise Failure(f"{failed} of {len(results)} tests {'fail' if failed > 1 else 'fails'}")
    click.echo(f"{len(results)} tests passed." if results else f"{project} has no tests.")


@config.command("replay")
@click.argument("project")
@click.option("--file", "file", type=_CONFIG_FILE, help="Replay by the project as this file describes it.")
@click.option(
    "--version", "number", type=int, help="Replay by this version; without it, --file and --draft: by the present one."
)
@click.option("--draft", is_flag=True, help="Replay by the project's draft.")
@click.option("--since", metavar="ISO8601", help="The first moment, by the project's clock. By default seven days ago.")
@click.option("--until", metavar="ISO8601", help="The moment after the last one. By default now.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="The newest calls.")
@click.option(
    "--list", "listed", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Of those that differ."
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def config_replay(
    project: str,
    file: str | None,
    number: int | None,
    since: str | None,
    until: str | None,
    limit: int,
    listed: int,
    *,
    draft: bool,
    as_json: bool,
) -> None:
    """Tell what calls of the past would have been answered by other rules. Changes nothing.

    For each call the same moment, presence and states as then. What was not stored is found out from the calls around
    it where the log leaves no doubt, else the call is counted as unknown.
    """
    from router.configuration.document import document_of, ids_of, names_of
    from router.db.documents import build_project
    from router.db.queries import project_named
    from router.explanation.replay import replay
    from router.explanation.text import replay_as_json, replay_lines

    database = _database()
    with database.reading() as session:
        row = project_named(session, project)
        number = row.version if number is None else number
        document = _draft_of(session, row).document if draft else _version(session, row, number)
        stored = names_of(_version(session, row, row.version))
        project_id, zone, masks = row.id, row.time_zone, row.mask_numbers
    if file is not None:
        described = _project_of(file, project)
        document = {**document, **document_of(described, _ids_for(described, ids_of(document)))}
    start = _instant(since, zone, "--since") if since else datetime.now(UTC) - timedelta(days=7)
    view = build_project(document, project_id, 0)
    shows = sys.stderr.isatty()
    report = replay(
        database,
        view,
        since=start,
        until=_instant(until, zone, "--until") if until else None,
        most=limit,
        listed=listed,
        progress=lambda count: click.echo(f"\r{count:,} calls", err=True, nl=False) if shows else None,
    )
    if shows:
        click.echo("\r", err=True, nl=False)
    names = {kind: {**stored[kind], **known} for kind, known in names_of(document).items()}
    if as_json:
        told = replay_as_json(report, names, ZoneInfo(zone), masks=masks)
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(replay_lines(report, names, ZoneInfo(zone), masks=masks)))


@config.command("what-if")
@click.argument("project")
@click.option("--file", "file", type=_CONFIG_FILE, help="The project as this file describes it.")
@click.option("--version", "number", type=int, help="This version; without it, --file and --draft: the present one.")
@click.option("--draft", is_flag=True, help="The project's draft.")
@click.option("--since", metavar="ISO8601", help="The first moment, by the project's clock. By default yesterday's.")
@click.option("--until", metavar="ISO8601", help="The first moment after it. By default a day later.")
@click.option("--strategy", "strategies", multiple=True, metavar="GROUP=NAME", help="Another strategy for a group.")
@click.option("--without", multiple=True, metavar="AGENT", help="An agent is left out.")
@click.option("--more", multiple=True, metavar="AGENT", help="One agent more, like this one.")
@click.option("--hours", metavar="SCHEDULE=09:00-18:00", help="Other hours of a schedule, on the days when it is open.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def config_what_if(
    project: str,
    file: str | None,
    number: int | None,
    since: str | None,
    until: str | None,
    strategies: Sequence[str],
    without: Sequence[str],
    more: Sequence[str],
    hours: str | None,
    *,
    draft: bool,
    as_json: bool,
) -> None:
    """Tell what a day of the past would have been by other rules. Changes nothing.

    The calls are simulated as one day, so that each answer changes who is free for the next call.
    """
    from router.configuration.document import document_of, ids_of, names_of
    from router.db.documents import BuildError
    from router.db.queries import project_named
    from router.explanation.logged_day import NothingLoggedError, TooManyCallsError
    from router.explanation.text import what_if_lines
    from router.explanation.variations import Variation, VariationError, names_with_copies, read_hours, study

    database = _database()
    with database.reading() as session:
        row = project_named(session, project)
        number = row.version if number is None else number
        document = _draft_of(session, row).document if draft else _version(session, row, number)
        stored = names_of(_version(session, row, row.version))
        project_id, zone = row.id, row.time_zone
    if file is not None:
        described = _project_of(file, project)
        document = {**document, **document_of(described, _ids_for(described, ids_of(document)))}
    ids = ids_of(document)

    def of(kind: str, name: str, option: str) -> int:
        if name not in ids[kind]:
            raise click.BadParameter(f"there is no {kind.removesuffix('s')} {name!r}", param_hint=option)
        return ids[kind][name]

    def pair(text: str, option: str) -> tuple[str, str]:
        name, equals, value = text.rpartition("=")
        if not equals:
            raise click.BadParameter(f"{text!r}: write NAME=VALUE", param_hint=option)
        return name, value

    def hours_of(schedule: str, span: str) -> Hours:
        first, _dash, last = span.partition("-")
        return read_hours(of("schedules", schedule, "--hours"), first, last)

    begin, end = _day(since, until, zone)
    chosen = dict(pair(text, "--strategy") for text in strategies)
    shows = sys.stderr.isatty()
    try:
        variation = Variation(
            {of("groups", name, "--strategy"): strategy for name, strategy in chosen.items()},
            [of("agents", name, "--without") for name in without],
            [of("agents", name, "--more") for name in more],
            hours_of(*pair(hours, "--hours")) if hours else None,
        )
        studied = study(
            database,
            project_id,
            document,
            variation,
            begin,
            end,
            lambda done, total: click.echo(f"\r{done:,} of {total:,}", err=True, nl=False) if shows else None,
        )
    except (NothingLoggedError, TooManyCallsError) as error:
        raise Failure(f"nothing can be simulated: {error}") from None
    except VariationError as error:
        raise click.BadParameter(str(error)) from None
    except BuildError as error:
        raise Failure(f"calls cannot be routed by this configuration: {error}") from None
    if shows:
        click.echo("\r", err=True, nl=False)
    names = {kind: {**stored[kind], **known} for kind, known in names_of(document).items()}
    agents = names_with_copies(names, document, variation)
    if as_json:
        told = {"since": begin.isoformat(), "until": end.isoformat(), "variation": variation.as_json()}
        named = {"names": {str(agent_id): name for agent_id, name in agents.items()}}
        click.echo(json.dumps({**told, **studied.as_json(), **named}, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(what_if_lines(studied, [*variation.words(names)], agents, (begin, end), ZoneInfo(zone))))


def _day(since: str | None, until: str | None, zone: str) -> tuple[datetime, datetime]:
    """Return these instants; without `since` yesterday's first one, without `until` that of a day later."""
    from router.core.instants import InstantError, parse_instant

    today = datetime.now(ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        begin = parse_instant(since, zone) if since else (today - timedelta(days=1)).astimezone(UTC)
        end = parse_instant(until, zone) if until else begin.astimezone(ZoneInfo(zone)) + timedelta(days=1)
    except InstantError as error:
        raise click.BadParameter(str(error), param_hint="--since, --until") from None
    if end <= begin:
        raise click.BadParameter("it is not later than --since", param_hint="--until")
    return begin, end.astimezone(UTC)


def _project_of(file: str, name: str) -> ProjectConfig:
    """Return a project as a file describes it."""
    found = next((project for project in _read_config(file).projects if project.name == name), None)
    if found is None:
        raise Failure(f"the file has no project {name!r}")
    return found


def _ids_for(config: ProjectConfig, stored: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return ids for the rows of a file: those of stored rows of the same names, negative ones for new rows."""
    return {
        kind: {row.name: ids.get(row.name, -n) for n, row in enumerate(getattr(config, kind), start=1)}
        for kind, ids in stored.items()
    }


def _version(session: Session, row: models.Project, number: int) -> dict[str, Any]:
    from router.configuration.rows import read_version

    if (document := read_version(session, row.id, number)) is None:
        raise Failure(f"{row.name} has no version {number}: router config history {row.name} lists those that are kept")
    return document


def _draft_of(session: Session, row: models.Project) -> KeptDraft:
    from router.configuration.drafts import KeptDraft

    kept = KeptDraft(session, row, "cli")
    if kept.row is None:
        raise Failure(f"{row.name} has no draft: router config apply FILE --draft makes one")
    return kept


def _comment(text: str) -> str:
    from router.configuration.versions import MAX_COMMENT_CHARS

    if len(text) > MAX_COMMENT_CHARS or not text.isprintable():
        raise click.BadParameter(f"write at most {MAX_COMMENT_CHARS} characters in one line", param_hint="--comment")
    return text.strip()


@contextmanager
def _reported_problems(name: str) -> Iterator[None]:
    """Report each problem of a file on a line of its own."""
    from router.configuration import ConfigFileError

    try:
        yield
    except ConfigFileError as error:
        click.echo(str(error), err=True)
        count = len(error.problems)
        raise Failure(f"{name} cannot be applied: {count} problem{'s' if count > 1 else ''}") from None


def _read_config(file: str) -> ConfigFile:
    from router.configuration import check, load

    name = "standard input" if file == "-" else file
    with click.open_file(file, "rb") as opened:
        text = opened.read().decode("utf-8-sig", "surrogateescape")
    with _reported_problems(name):
        read = load(text, os.environ, filename=name)
    for problem in check(read):
        click.echo(f"{name}:{problem.line}: warning: {problem}", err=True)
    return read


# ---- people


@main.group()
def user() -> None:
    """The people who may sign in to the admin pages."""


@user.command("add")
@click.argument("email")
@click.option("--role", type=click.Choice(["owner", "editor", "viewer"]), required=True)
@click.option("--name", default="", help="What to call them.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input: one line.")
def user_add(email: str, role: str, name: str, *, password_stdin: bool) -> None:
    """Let EMAIL sign in. Without a password, prints a one-time link to choose one."""
    from router.admin import auth
    from router.db import models

    email = auth.normal_email(email)
    if not auth.is_email(email):
        raise click.BadParameter(f"{email!r} is not a valid email address", param_hint="EMAIL")
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else ""
    if password_stdin and (problem := auth.weakness(password, email)):
        raise Failure(f"the password is refused. {problem}")
    settings = _settings()
    with _database().writing() as session:
        if session.scalar(select(models.User.id).where(models.User.email == email)) is not None:
            raise Failure(f"there is a user {email} already; for a new password: router user link {email}")
        row = models.User(email=email, name=name, role=role, created_at=datetime.now(UTC))
        session.add(row)
        if password:
            row.password_hash = auth.hash_password(password)
        session.flush()
        auth.record(session, "cli", "invited", row, {"role": role})
        link = "" if password else auth.user_link(session, settings.base_url, row)
    click.echo(link or f"{email} can sign in at {settings.base_url}/")


@user.command("list")
def user_list() -> None:
    """List all users, with role and state."""
    from router.db import models

    with _database().reading() as session:
        rows = session.scalars(select(models.User).order_by(models.User.email)).all()
    for row in rows:
        state = "disabled" if row.disabled_at else "active" if row.password_hash else "invited"
        click.echo(f"{row.email:<40} {row.role:<8} {state}")


@user.command("disable")
@click.argument("email")
def user_disable(email: str) -> None:
    """Sign EMAIL out everywhere, and keep them out until enabled again on the page of users."""
    from router.admin import auth

    with _database().writing() as session:
        row = _user(session, email)
        if auth.is_last_owner(session, row):
            raise Failure(f"{row.email} is the last owner who can sign in; add another one first")
        auth.disable(session, row, "cli")
    click.echo(f"{row.email} can no longer sign in.")


@user.command("link")
@click.argument("email")
def user_link(email: str) -> None:
    """Print a one-time link with which EMAIL chooses a new password. Earlier links stop working."""
    from router.admin import auth

    with _database().writing() as session:
        row = _user(session, email)
        if row.disabled_at is not None:
            raise Failure(f"{row.email} is disabled; an owner can enable them on the page of users")
        link = auth.user_link(session, _settings().base_url, row)
        auth.record(session, "cli", "made_link", row)
    click.echo(link)


def _user(session: Session, email: str) -> models.User:
    from router.admin import auth
    from router.db import models

    row = session.scalar(select(models.User).where(models.User.email == auth.normal_email(email)))
    if row is None:
        raise Failure(f"there is no user {email}; list them: router user list")
    return row


# ---- hook and decisions


@main.command("hook-url")
@click.argument("project")
@click.option("--event", is_flag=True, help="The URL for call events.")
def hook_url(project: str, *, event: bool) -> None:
    """Print the URL that the telephony platform calls for PROJECT. It holds a secret."""
    from router.db import queries

    with _database().reading() as session:
        token = queries.current_token(session, queries.project_named(session, project).id)
    click.echo(f"{_settings().base_url}/hook/{token}{'/event' if event else ''}")


@main.command()
@click.argument("project")
@click.option("--caller", default="", help="The caller's number; left out: anonymous.")
@click.option("--dialed", default="", help="The number that was called.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A hook parameter; may be repeated.")
@click.option("--at", metavar="ISO8601", help="At this time instead of now: the project's, unless it has an offset.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def explain(project: str, caller: str, dialed: str, params: Sequence[str], at: str | None, *, as_json: bool) -> None:
    """Explain who would get a call now, and why nobody else. Changes nothing."""
    from router.core.model import Call
    from router.db import queries
    from router.explanation.decision import explain_call
    from router.explanation.text import as_text
    from router.numbers import normalise_number
    from router.routing.route import Routing

    for param in params:
        if "=" not in param:
            raise click.BadParameter(f"{param!r}: write NAME=VALUE", param_hint="--param")
    database = _database()
    with database.reading() as session:
        row = queries.project_named(session, project)
    instant = None if at is None else _instant(at, row.time_zone)
    call = Call(
        caller=normalise_number(caller, row.country),
        dialed=normalise_number(dialed, row.country),
        params=dict(param.split("=", 1) for param in params),
    )
    configuration, snapshot, decision = Routing(database).explain(row.id, call, at=instant)
    with database.reading() as session:
        explained = explain_call(session, configuration, call, snapshot, decision)
    click.echo(json.dumps(explained.as_json(), indent=2, ensure_ascii=False) if as_json else as_text(explained))


def _instant(text: str, time_zone: str, option: str = "--at") -> datetime:
    from router.core.instants import InstantError, parse_instant

    try:
        return parse_instant(text, time_zone)
    except InstantError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


# ---- stored data


@main.command()
def prune() -> None:
    """Delete data that is past its retention, while calls go on. The presence keeper does so every hour."""
    from router.db.retention import Pruner

    pruner = Pruner(_database())
    try:
        pruner.run()
    finally:
        for table, count in sorted(pruner.deleted.items()):
            click.echo(f"{table.replace('_', ' ')}: {count} deleted")
    if not pruner.deleted:
        click.echo("Nothing is kept too long.")


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the SQLite database to FILE while calls go on. FILE must not exist yet."""
    from router.db.backup import back_up

    size = back_up(_database(), file)
    click.echo(f"{file}: {size / 1e6:.1f} MB. Without SECRET_KEY and ENCRYPTION_KEYS its credentials cannot be read.")


@main.command("restore-check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--was-stopped", is_flag=True, help="FILE was copied while no process of the service ran.")
def restore_check(file: Path, *, was_stopped: bool) -> None:
    """Check that this backup can be restored here: read all of FILE, with the present keys. Changes nothing."""
    from router.db.backup import check_backup

    use_encryption_keys(_settings().fernet_keys)
    found = check_backup(file, was_stopped=was_stopped)
    if found.schema != "ok":
        words = {
            "none": "holds no schema: it is not of this service",
            "behind": "is of an older release: run `router db upgrade` after restoring it",
            "ahead": "is of a newer release: restore it with that one",
        }[found.schema]
        raise Failure(f"{file} {words}")
    if found.unreadable:
        raise Failure(
            f"{file} holds {len(found.unreadable)} of {found.secrets} credentials that the keys at hand do not read "
            f"({', '.join(found.unreadable[:3])}): set SECRET_KEY and ENCRYPTION_KEYS as they were when it was made"
        )
    click.echo(f"{file} is good: {found.projects} projects, {found.calls} calls, {found.secrets} credentials.")


@main.group()
def keys() -> None:
    """The keys that encrypt stored credentials."""


@keys.command("rotate")
def keys_rotate() -> None:
    """Encrypt all stored credentials again, with the first key; see docs/operations.md."""
    from router.db.keys import rotate_secrets

    count = rotate_secrets(_database())
    click.echo(f"{count} credentials are encrypted with the first key. The others are no longer needed for them.")


@main.group()
def caller() -> None:
    """The stored data of one caller."""


@caller.command("export")
@click.argument("number")
@click.option("--project", required=True, metavar="NAME")
def caller_export(number: str, project: str) -> None:
    """Print all stored data of NUMBER as JSON: calls, oldest first, and refused requests."""
    from router.db import queries
    from router.db.personal import export_caller

    database = _database()
    with database.reading() as session:
        project_id = queries.project_named(session, project).id
    rows = export_caller(database, project_id, number, "cli")
    click.echo("[" + ",".join(f"\n  {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n]")


@caller.command("erase")
@click.argument("number")
@click.option("--project", required=True, metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
def caller_erase(number: str, project: str, *, yes: bool) -> None:
    """Erase NUMBER from all calls for good: number, parameters, and the requests as they were sent."""
    from router.db import queries
    from router.db.personal import caller_number, erase_caller

    database = _database()
    with database.reading() as session:
        project_id = queries.project_named(session, project).id
        found = caller_number(session, project_id, number)
    if not yes:
        click.confirm(f"Erase {found} from all calls of {project}? This cannot be undone.", abort=True, err=True)
    erased = erase_caller(database, project_id, number, "cli")
    click.echo(
        f"{erased.number}: erased from {erased.calls} calls and {erased.refused_requests} refused requests;"
        f" {erased.logged_talks} talks of the platform's call log forgotten."
    )
    for rule in erased.rules:
        click.echo(f"The rule {rule!r} still names the number: change it on the page of rules.", err=True)
    for test in erased.tests:
        click.echo(f"The test {test!r} still names the number: change or delete it.", err=True)


# ---- processes


@main.command()
def poll() -> None:
    """Poll presence in a process of its own (PRESENCE_KEEPER=worker)."""
    from router import log
    from router.background import Background

    settings = _settings()
    log.configure(settings)
    _refuse_to_start(settings)
    background = Background(_database(), settings.model_copy(update={"presence_keeper": "inline"}))
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    background.start()
    stopped.wait()
    background.stop()


@main.group(hidden=True)
def study() -> None:
    """What the admin pages run in the background."""


@study.command("run")
@click.argument("number", type=int)
def study_run(number: int) -> None:
    """Run study NUMBER. The page that starts it reads what this prints."""
    from router import log
    from router.explanation.studies import run as run_study

    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # of the log's lines, which would go between ours
    log.configure(_settings())
    try:
        run_study(_database(), number, out)
    except LookupError as error:
        raise Failure(str(error)) from None


@main.command("demo-pbx", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo_pbx(arguments: Sequence[str]) -> NoReturn:
    """The simulated PBX of a clone of the repository. `router demo-pbx --help` lists its many options."""
    if (simulator := _simulator()) is None:
        raise Failure(NO_SIMULATOR)
    sys.exit(simulator.main(list(arguments)))


NO_SIMULATOR = (
    "there is no simulated PBX here: it is no part of the installed package. It comes with a clone of the repository: "
    "`make run` there starts one, and after `make install` .venv/bin/router demo-pbx does"
)


def _simulator() -> ModuleType | None:
    """Return the simulated PBX; None where only the package is installed."""
    try:
        from simulator import pbx
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "simulator":
            raise
        return None
    return pbx


@main.command()
def run() -> None:
    """Start everything for a trial on this machine, as `make run` does."""
    from router.admin.auth import first_owner_link
    from router.db import migrate
    from router.starter import prepare_demo, welcome

    os.environ.setdefault("ENVIRONMENT", "development")
    if not Path("gunicorn.conf.py").exists():
        raise Failure("there is no gunicorn.conf.py here: run this in the folder of a clone of the repository")
    settings = _settings()
    simulator = _simulator() if settings.demo else None
    if simulator is not None:
        os.environ["PRESENCE_ALLOW_PRIVATE"] = "1"  # the demo PBX listens on loopback
    _refuse_to_start(settings, "database", "encoding", "rights")  # the web processes run all checks
    database = _database()
    migrate.upgrade(database)
    commands = [[sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "router.app:create_app()"]]
    if simulator is not None and (demo_arguments := prepare_demo(database, settings, simulator.PROJECT)):
        commands.append([sys.executable, "-m", "router", "demo-pbx", *demo_arguments])
    for line in welcome(database, settings):
        click.echo(line)
    if settings.demo and simulator is None:
        click.echo(f"  without a demo: {NO_SIMULATOR}\n")
    if link := first_owner_link(database, settings.base_url):
        click.echo(f"  the first owner's account is made here, once, within 24 hours:\n\n  {link}\n")
    database.dispose()
    children = [subprocess.Popen(command) for command in commands]  # noqa: S603 - our own programs

    def stop(_number: int, _frame: FrameType | None) -> None:
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    web = children[0]
    while web.poll() is None:
        time.sleep(0.2)
    stop(0, None)
    for child in children:
        child.wait()
    sys.exit(1 if web.returncode > 0 else 0)


if __name__ == "__main__":
    main()
