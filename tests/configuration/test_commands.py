"""router config check, apply and export, as they are typed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from router.cli import main
from router.configuration import load
from tests.configuration.conftest import ENVIRON, SAMPLES, sample

ACME = str(SAMPLES / "acme.yaml")
FAULTY = str(SAMPLES / "faulty.yaml")

Run = Callable[..., Result]


@pytest.fixture
def run(migrated_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    base = {"DATABASE_URL": migrated_sqlite_url, "SECRET_KEY": "s" * 40, "API_PASSWORD": "p", **ENVIRON}

    def run(*arguments: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        return CliRunner().invoke(main, ["config", *arguments], input=stdin, env={**base, **environ})

    return run


def test_check_needs_no_database(run: Run) -> None:
    result = run("check", ACME)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{ACME} can be applied: acme.\n"


def test_check_tells_each_problem_in_a_line_and_fails(run: Run) -> None:
    result = run("check", FAULTY, HOOK_BASIC="no colon")
    *lines, last = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert [line.removeprefix(f"{FAULTY}:") for line in lines] == [
        line.removeprefix("faulty.yaml:") for line in sample("faulty.txt").splitlines()
    ]
    assert last == f"router: {FAULTY} cannot be applied: {len(lines)} problems"


def test_warnings_do_not_fail(run: Run) -> None:
    result = run("check", "-", stdin="projects:\n- {name: acme, overflow: '1'}\n")
    assert result.exit_code == 0
    assert result.stderr.startswith(
        "standard input:2: warning: projects[0]: project 'acme' has no rule that is enabled"
    )


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("check",), "", 2, "Missing argument 'FILE'"),
        (("check", "nowhere.yaml"), "", 2, "nowhere.yaml"),
        (("apply", "-"), b"projects: [{name: \xff}]", 1, "standard input:1: the file is not UTF-8 text"),
        (("export", "--project", "nobody"), "", 1, "router: there is no project 'nobody'; there is none yet"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(
    run: Run, arguments: tuple[str, ...], stdin: str | bytes, code: int, said: str
) -> None:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == code
    assert said in result.stderr


def test_apply_tells_what_changes_and_export_gives_it_back(run: Run) -> None:
    tried = run("apply", ACME, "--dry-run")
    assert tried.stdout.splitlines()[-1] == "27 changes, none applied."
    assert load(run("export").stdout, {}).projects == ()
    done = run("apply", ACME)
    assert done.stdout.splitlines()[:-1] == tried.stdout.splitlines()[:-1]
    assert done.stdout.splitlines()[-1] == "27 changes."
    exported = run("export", "--project", "acme")
    assert exported.stdout == sample("exported.yaml")
    again = run("apply", "-", stdin=exported.stdout)
    assert (again.exit_code, again.stdout, again.stderr) == (0, "Nothing to change.\n", "")


def test_a_file_with_a_byte_order_mark_is_read(run: Run) -> None:
    assert run("check", "-", stdin=b"\xef\xbb\xbfprojects: []").stdout == "standard input can be applied: no project.\n"


# ---- versions


OLD = "projects: [{name: acme, overflow: '1', agents: [{name: Ann}], rules: [{name: everyone}]}]"
NEW = "projects: [{name: acme, overflow: '2', agents: [{name: Bob}], rules: [{name: everyone}]}]"


def test_versions_are_listed_compared_and_restored(run: Run) -> None:
    run("apply", "-", stdin=OLD)
    run("apply", "-", "--comment", "Ann has left", stdin=NEW)
    newest, first = run("history", "acme").stdout.splitlines()
    assert newest.split()[0] == "2"
    assert newest.endswith("cli  Ann has left")
    assert first.endswith("cli")
    changes = ['overflow: "1" → "2"', "agent Ann removed", "agent Bob added"]
    assert run("diff", "acme").stdout.splitlines() == changes
    assert run("diff", "acme", "1", "2").stdout.splitlines() == changes
    assert run("diff", "acme", "2", "2").stdout == "Nothing differs.\n"
    back = ['overflow: "2" → "1"', "agent Bob removed", "agent Ann added"]
    assert run("rollback", "acme", "1").stdout.splitlines() == [*back, "acme has version 3 now."]
    assert run("history", "acme", "--limit", "1").stdout.rstrip().endswith("Version 1 restored")
    assert run("diff", "acme", "1").stdout == "Nothing differs.\n"
    assert run("rollback", "acme", "1").stdout == "Nothing to change.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("history", "nobody"), 1, "there is no project 'nobody'"),
        (("diff", "acme", "7"), 1, "acme has no version 7: router config history acme lists those that are kept"),
        (("rollback", "acme", "7"), 1, "nothing was changed: there is no version 7"),
        (("rollback", "acme", "1", "--comment", "x" * 201), 2, "at most 200 characters"),
        (("rollback", "acme", "x"), 2, "'x' is not a valid integer"),
    ],
)
def test_what_is_wrong_with_a_version_is_said(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    run("apply", "-", stdin=OLD)
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert run("history", "acme").stdout.count("\n") == 1


# ---- the draft


TESTED = """\
projects:
- name: acme
  overflow: '1'
  agents: [{name: Ann}]
  groups: [{name: sales, members: [{agent: Ann}]}]
  rules: [{name: vip, when: {caller: ["+380501112233"]}}, {name: everyone, groups: [sales]}]
  tests: [{name: vip first, call: {caller: "+380501112233", at: "2026-12-01T12:00"}, expect: {rule: vip}}]
"""
_RULES = ('{name: vip, when: {caller: ["+380501112233"]}}', "{name: everyone, groups: [sales]}")
SWAPPED = TESTED.replace(", ".join(_RULES), ", ".join(reversed(_RULES)))


def test_a_draft_is_applied_compared_tested_mended_published_and_rolled_back(run: Run) -> None:
    run("apply", "-", stdin=TESTED)
    assert run("apply", "-", "--draft", stdin=SWAPPED).stdout.splitlines()[-1] == "1 changes."
    assert run("history", "acme").stdout.count("\n") == 1
    assert run("diff", "acme", "--draft").stdout == "rules reordered: everyone, vip\n"
    assert run("test", "acme").exit_code == 0
    failed = run("test", "acme", "--draft")
    assert (failed.exit_code, failed.stdout.split()[0]) == (1, "FAILS")
    refused = run("publish", "acme")
    assert refused.exit_code == 1
    assert "nothing was changed: test 'vip first' fails: The rule that takes the call is everyone" in refused.stderr
    assert run("apply", "-", "--draft", stdin=TESTED.replace("Ann", "Eve")).exit_code == 0
    assert run("test", "acme", "--draft").exit_code == 0
    assert run("publish", "acme", "--comment", "Eve it is").stdout == "acme has version 2 now.\n"
    assert run("history", "acme").stdout.splitlines()[0].endswith("Eve it is")
    assert run("rollback", "acme", "1").stdout.splitlines()[-1] == "acme has version 3 now."


def test_a_draft_is_planned_or_discarded(run: Run) -> None:
    run("apply", "-", stdin=TESTED)
    run("apply", "-", "--draft", stdin=TESTED.replace("Ann", "Eve"))
    planned = run("publish", "acme", "--at", "2090-01-01T10:00")
    assert planned.stdout == "The draft of acme will be published at 2090-01-01T10:00:00+02:00.\n"
    assert run("discard", "acme").stdout == "The draft of acme is gone.\n"
    assert run("history", "acme").stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (("publish", "acme"), "", 1, "nothing was changed: there is no draft"),
        (("publish", "acme", "--at", "2020-01-01T10:00"), "", 2, "this moment is over"),
        (("publish", "acme", "--at", "soon"), "", 2, "--at"),
        (("discard", "acme"), "", 1, "acme has no draft: router config apply FILE --draft makes one"),
        (("diff", "acme", "--draft"), "", 1, "acme has no draft"),
        (("test", "acme", "--draft"), "", 1, "acme has no draft"),
        (("apply", "-", "--draft", "--comment", "x"), OLD, 2, "for router config publish, not for --draft"),
        (("apply", "-", "--draft"), OLD.replace("acme", "globex"), 1, "there is no project 'globex'"),
        (
            ("apply", "-", "--draft"),
            "projects: [{name: acme, presence: {auth_key: stolen}}]",
            1,
            "a credential cannot be in a draft; apply it without --draft, or leave it out",
        ),
    ],
)
def test_what_is_wrong_with_a_draft_is_said(
    run: Run, arguments: tuple[str, ...], stdin: str, code: int, said: str
) -> None:
    run("apply", "-", stdin=OLD)
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == code
    assert said in result.stderr
    assert run("history", "acme").stdout.count("\n") == 1
