"""A file is read as it was meant, or refused with every fault, its line and its remedy."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.configuration import ConfigFile, ConfigFileError, Problem, check, load
from router.configuration.reading import MAX_CHARS, MAX_DEPTH, MAX_VALUES
from router.configuration.schema import FreeConfig, MemberConfig, ProjectConfig
from tests.configuration.conftest import load_sample, sample


def read_one(body: str, environ: Mapping[str, str] | None = None) -> ProjectConfig:
    """The project with these further lines."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    (project,) = load(f"projects:\n  - name: acme\n{lines}", environ or {}).projects
    return project


def problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigFileError) as caught:
        load(text, environ or {}, filename="f")
    return str(caught.value).splitlines()


def test_reads_every_kind_of_thing() -> None:
    (acme,) = load_sample().projects
    assert (acme.overflow, acme.mask_numbers, acme.keep_days) == ("380441112233", True, 30)
    assert (acme.hook.answer, acme.hook.fields) == ("json", {"caller": ("cli",)})
    assert acme.hook.allow_addresses == ("203.0.113.7", "10.0.0.0/8")
    assert acme.hook.basic_auth is not None
    assert acme.hook.basic_auth.get_secret_value() == "ringostat:pa55word"
    assert (acme.presence.project_id, acme.presence.poll_seconds) == ("12345", 1.5)
    office, early = acme.schedules
    assert office.time_zone == "Europe/Kyiv"
    assert office.exceptions == {
        "2026-12-25": "closed",
        "2026-12-31": ["10:00-14:00"],
        "2027-01-01..2027-01-08": "closed",
        "last mon of may": "closed",
        "08-24": "closed",
    }
    assert early.open == {"daily": ["06:00-14:00"]}
    assert (early.override, early.override_until) == ("closed", "2026-11-24T13:00:00+00:00")
    ann, bob, cid = acme.agents
    assert (ann.sip_logins, ann.daily_cap, ann.hours) == (("acme_ann", "acme_ann_mob"), 80, "early shift")
    assert (bob.sip_logins, bob.paused, bob.staff_id) == (("acme_bob",), True, "77")
    assert (cid.deputy, cid.away_until) == ("Bob", "2026-12-24T22:00:00+00:00")
    assert acme.groups[1].members == (
        MemberConfig(agent="Ann", weight=2, hours="office hours"),
        MemberConfig(agent="Cid"),
        MemberConfig(agent="Bob", tier=2),
    )
    blocked, vip, crm, night, everyone = acme.rules
    assert (blocked.when.caller, blocked.when.not_dialed) == (("anonymous",), ("380800123456",))
    assert (blocked.overflow, everyone.overflow, night.overflow) == ("", None, "120")
    assert vip.when.caller == ("38050*", "380671234567", "380441112200-380441112299")
    assert vip.when.params == {"utm_source": ("google", "bing*"), "on": ("no",)}
    assert (vip.when.not_params, vip.when.direction) == ({"bot": ("*",)}, ("in",))
    assert (vip.when.schedule, vip.when.free) == ("office hours", FreeConfig(group="vip", fewer_than=2))
    assert (vip.prefer, vip.prefer_days, vip.groups) == ("last_agent", 14, ("vip", "sales"))
    assert (crm.enabled, crm.prefer, crm.groups) == (False, {"param": "responsible"}, ("sales",))


def test_every_fault_of_a_file_is_told_with_its_line_and_its_remedy() -> None:
    """Renew the expected text by hand, fault by fault: it is what people read."""
    with pytest.raises(ConfigFileError) as caught:
        load(sample("faulty.yaml"), {"HOOK_BASIC": "nocolonsecret", "API_PASSWORD": "hunter2"}, filename="faulty.yaml")
    assert f"{caught.value}\n" == sample("faulty.txt")
    assert not any(secret in str(caught.value) for secret in ("nocolonsecret", "hunter2"))


@pytest.mark.parametrize(
    ("body", "key", "value"),
    [
        ("overflow: 0441112233", "overflow", "380441112233"),  # no octal number
        ("overflow: 1_000", "overflow", "1_000"),
        ("overflow: 12:30:45", "overflow", "12:30:45"),
        ("overflow: +380441112233", "overflow", "380441112233"),
        ("overflow: 0x1F", "overflow", "0x1F"),
        ("country: NO", "country", "NO"),  # Norway
        ("country: pl", "country", "PL"),
        ("mask_numbers: on", "mask_numbers", True),
        ("overflow: null", "overflow", ""),
        ("overflow:", "overflow", ""),
        ("overflow: 'null'", "overflow", "null"),
        ("keep_days:", "keep_days", 90),
        ("overflow: '  acme_desk '", "overflow", "acme_desk"),
    ],
)
def test_yaml_does_not_guess(body: str, key: str, value: object) -> None:
    assert getattr(read_one(body), key) == value


def test_names_and_keys_stay_as_they_are_written() -> None:
    project = read_one("agents: [{name: no}, {name: 2026-12-25}, {name: 1e3}, {name: 0777}, {name: ~x}]")
    assert [agent.name for agent in project.agents] == ["no", "2026-12-25", "1e3", "0777", "~x"]
    project = read_one("rules: [{name: 1, when: {params: {on: off, 12: 0x1F, '~': 1}}}]")
    assert project.rules[0].when.params == {"on": ("off",), "12": ("0x1F",), "~": ("1",)}


# ---- references


def test_a_reference_takes_the_value_of_the_environment() -> None:
    project = read_one('overflow: "${PREFIX}-${LINE:-7}"\nkeep_days: ${DAYS}', {"PREFIX": "desk", "DAYS": "12"})
    assert (project.overflow, project.keep_days) == ("desk-7", 12)


def test_what_comes_from_the_environment_is_text_and_nothing_else() -> None:
    environ = {"A": "[x,y]", "B": "${A}", "C": " spaced\n"}
    project = read_one("groups: [{name: '${A}'}, {name: '${B}'}, {name: '${C}'}]", environ)
    assert [group.name for group in project.groups] == ["[x,y]", "${A}", "spaced"]


def test_a_plain_dollar_brace_can_be_written() -> None:
    assert read_one("agents: [{name: '$${A}'}, {name: '$$${A}'}, {name: $5}]", {}).agents[0].name == "${A}"
    names = [agent.name for agent in read_one("agents: [{name: '$${A}'}, {name: '$$${A}'}, {name: $5}]").agents]
    assert names == ["${A}", "$${A}", "$5"]


def test_a_missing_or_empty_variable_is_named() -> None:
    for environ in ({}, {"KEY": ""}):
        (found,) = problems("projects:\n- {name: a, presence: {auth_key: '${KEY}'}}", environ)
        assert found.startswith(
            "f:2: projects[0].presence.auth_key: the environment variable KEY is not set; set it, or"
        )
    empty = read_one("presence: {auth_key: '${KEY:-}'}").presence.auth_key
    assert empty is not None
    assert empty.get_secret_value() == ""


def test_no_fault_shows_what_came_from_the_environment() -> None:
    text = (
        "projects:\n- name: a\n  keep_days: ${S}\n  overflow: x ${S}\n  hook: {answer: '${S}', allow_addresses: '${S}'}"
    )
    found = problems(text, {"S": "s3cret"})
    assert len(found) == 4
    assert "f:3: projects[0].keep_days: found '${S}'; write a whole number from 1 to 3650" in found
    assert "s3cret" not in "".join(found)


@pytest.mark.parametrize(
    "words",
    ["hook: {basic_auth: s3cret}", 'presence: {auth_key: "s3c\\nret"}', "presence: {api_url: https://u:s3cret@x}"],
)
def test_no_fault_shows_a_secret_of_the_file(words: str) -> None:
    (found,) = problems(f"projects:\n- name: a\n  {words}")
    assert "s3c" not in found


def test_secrets_do_not_show() -> None:
    assert "pa55word" not in repr(load_sample())
    assert "k3y-of-acme" not in repr(load_sample())


# ---- YAML that is no configuration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f:1: the file is empty; start with projects:, see docs/configuration-file.md"),
        ("# nothing\n---\n", "f:1: the file is empty; start with projects:, see docs/configuration-file.md"),
        ("- name: acme", "f:1: there is no list of projects; start with projects:"),
        ("projects: acme", "f:1: there is no list of projects; start with projects:"),
        ("projects:\n", "f:1: there is no list of projects; start with projects:"),
        ("projects:\n  - name: a\n   overflow: 1\n", "f:3: this is not YAML: "),
        ("projects: [", "f:1: this is not YAML: "),
        ("projects: []\n---\nprojects: []", "f:2: a second document starts here; write one, without ---"),
        ("projects:\n- *acme", "f:2: *acme is not known here; put &acme above it"),
        ("projects: &a [*a]", "f:1: *a is not known here; put &a above it"),
        ("projects: !!python/object:os.system []", "f:1: tags such as tag:yaml.org,2002:python/object:os.system are"),
        ("projects:\n- name: !env NAME", "f:2: tags such as !env are not read; remove the tag"),
        ("projects: []\n? [a, b]\n: c", "f:2: a key must be one word; write lists and mappings behind the colon"),
        ("projects: []\nx: \ud800", "f:2: the file is not UTF-8 text; save it as UTF-8"),
        ("projects: []\nx: \x07", "f:2: YAML does not allow this character: control characters are"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_is_refused_with_its_line(text: str, expected: str) -> None:
    (found,) = problems(text)
    assert found.startswith(expected)


def test_what_is_too_much_is_refused() -> None:
    for text in ("projects: " + "[" * 100_000, "projects: " + "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)):
        assert problems(text) == ["f:1: this is nested too deeply; see docs/configuration-file.md for the form"]
    found = problems("projects: []\n" + "#" * MAX_CHARS)
    assert found == ["f:1: the file is longer than 10,000,000 characters; split it by project"]


def test_aliases_are_followed() -> None:
    project = read_one("agents: [{name: A}]\ngroups: [{name: a, members: &all [{agent: A}]}, {name: b, members: *all}]")
    assert project.groups[0].members == project.groups[1].members != ()


def test_aliases_do_not_grow_without_bound() -> None:
    bomb = "projects:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    (found,) = problems(bomb)
    assert f"the file holds more than {MAX_VALUES:,} values; split it by project, use fewer aliases" in found


def test_a_fault_in_what_an_alias_repeats_is_told_for_each_place_at_its_line() -> None:
    text = "projects:\n- name: a\n  groups:\n  - name: g\n    members: &all [{agent: A}]\n  - {name: h, members: *all}"
    assert [line.split(":")[1] for line in problems(text)] == ["5", "5"]


_BITS = st.text(max_size=4) | st.sampled_from("-:[]{},&*!|>'\"%@`#?~${}\t\n")


@settings(max_examples=150)
@example([(2336, 12, "\u00a0\u00a0\x1b")])  # a character that YAML does not allow, behind letters of two bytes
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 12), _BITS), min_size=1, max_size=3))
def test_any_damage_to_a_file_is_told_with_a_line_or_does_no_harm(damages: list[tuple[int, int, str]]) -> None:
    text = sample("acme.yaml")
    for start, length, bit in damages:
        text = text[:start] + bit + text[start + length :]
    told: list[Problem] = []
    try:
        check(load(text, {}, filename="f"))
    except ConfigFileError as error:
        told += error.problems
    assert all(1 <= problem.line <= len(text.splitlines()) and problem.message and problem.remedy for problem in told)


# ---- warnings


def test_warnings_tell_place_line_and_remedy() -> None:
    text = """\
projects:
  - name: acme
    groups:
      - name: sales
        members: [{agent: Ann}]
      - name: vip
    agents:
      - {name: Ann, sip_logins: ann}
      - {name: Bob}
    schedules:
      - name: summer
    rules:
      - {name: all, groups: sales}
      - {name: night, groups: sales, when: {schedule: summer}}
      - {name: VIP, groups: sales, when: {dialed: "044*"}}
"""
    told = [(problem.line, problem.place, str(problem)) for problem in check(load(text, {}))]
    assert [(line, place) for line, place, _ in told] == [
        (2, "projects[0]"),
        (6, "projects[0].groups[1]"),
        (6, "projects[0].groups[1]"),
        (9, "projects[0].agents[1]"),
        (9, "projects[0].agents[1]"),
        (11, "projects[0].schedules[0]"),
        (14, "projects[0].rules[1]"),
        (15, "projects[0].rules[2]"),
    ]
    assert told[1][2] == "projects[0].groups[1]: group 'vip' has no members: nobody can take its calls; add members"
    shadowed = "rule 'VIP' can never match: 'all' above it takes every call that it would match; move it up,"
    assert told[-1][2].startswith(f"projects[0].rules[2]: {shadowed}")


@pytest.mark.parametrize(("key", "is_shared"), [("one", True), ("two", False)])
def test_a_login_of_two_projects_on_one_presence_account_is_warned_about(key: str, is_shared: bool) -> None:
    """Projects promise phones apart: its owner would be called by both at once."""
    project = "{{name: {0}, overflow: '1', presence: {{auth_key: {1}}}, agents: [{{name: Ann, sip_logins: [{2}]}}]}}"
    text = "\n".join(
        ["projects:", f"  - {project.format('a', 'one', 'ann')}", f"  - {project.format('b', key, 'Ann')}"]
    )
    told = [(problem.place, problem.line) for problem in check(load(text, {})) if "account" in problem.message]
    assert told == ([("projects[1].agents[0].sip_logins[0]", 3)] if is_shared else [])


def test_an_overflow_that_is_empty_on_purpose_is_not_warned_about() -> None:
    rules = "rules: [{name: all}]"
    assert [p.place for p in check(load(f"projects: [{{name: acme, {rules}}}]", {}))] == ["projects[0]"]
    assert check(load(f"projects: [{{name: acme, overflow: '', {rules}}}]", {})) == []


def test_a_good_file_has_no_warnings_but_those_it_deserves() -> None:
    assert [problem.place for problem in check(load_sample())] == []


def test_a_file_of_no_projects_is_a_file() -> None:
    assert load("projects: []", {}) == ConfigFile(())


def test_reads_a_thousand_agents_and_rules() -> None:
    agents = [{"name": f"A{i}", "sip_logins": [f"login_{i}"]} for i in range(1000)]
    groups = [{"name": "all", "members": [{"agent": agent["name"]} for agent in agents]}]
    rules = [{"name": f"R{i}", "when": {"dialed": [f"38044{i:07}"]}, "groups": ["all"]} for i in range(1000)]
    project = {"name": "acme", "overflow": "1", "agents": agents, "groups": groups, "rules": rules}
    assert check(load(yaml.safe_dump({"projects": [project]}), {})) == []


def test_hours_that_lose_a_minute_are_warned_about_where_they_are_written() -> None:
    text = """
projects:
  - name: acme
    overflow: "1"
    schedules:
      - name: office
        open:
          mon: ["00:00-23:59"]
          tue,wed: ["09:00-12:00", "13:00-23:59"]
        exceptions: {last mon of may: ["00:00-23:59"]}
    rules: [{name: day, when: {schedule: office}, groups: []}]
"""
    office = "projects[0].schedules[0]"
    assert [(problem.line, problem.place, problem.remedy[:19]) for problem in check(load(text, {}))] == [
        (8, f"{office}.open.mon[0]", 'write "00:00-24:00"'),
        (9, f"{office}.open.tue,wed[1]", 'write "13:00-24:00"'),
        (10, f"{office}.exceptions.last mon of may[0]", 'write "00:00-24:00"'),
    ]


# ---- what its form would refuse to save is refused here

NBSP, LONG = "\u00a0", "x" * 1001


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (f"agents: [{{name: 'A{NBSP}B'}}]", "agents[0].name"),
        (f"groups: [{{name: '{LONG}'}}]", "groups[0].name"),
        ("rules: [{name: 'a\u200db'}]", "rules[0].name"),
        (f"schedules: [{{name: 'a{NBSP}b'}}]", "schedules[0].name"),
        ("agents: [{name: a, sip_logins: ['a,b']}]", "agents[0].sip_logins[0]"),
        ("agents: [{name: a, sip_logins: [a, 'b;c']}]", "agents[0].sip_logins[1]"),
        (f"agents: [{{name: a, staff_id: '{LONG}'}}]", "agents[0].staff_id"),
        ("rules: [{name: a, when: {direction: ['in coming']}}]", "rules[0].when.direction[0]"),
        ("rules: [{name: a, when: {direction: [in, '']}}]", "rules[0].when.direction[1]"),
        ("rules: [{name: a, when: {params: {x: ['']}}}]", "rules[0].when.params.x[0]"),
        ("rules: [{name: a, when: {params: {x: [a, '**']}}}]", "rules[0].when.params.x[1]"),
        ("rules: [{name: a, when: {not_params: {x: ['**a*']}}}]", "rules[0].when.not_params.x[0]"),
        (f"rules: [{{name: a, when: {{params: {{x: '{LONG}'}}}}}}]", "rules[0].when.params.x[0]"),
        ("rules: [{name: a, when: {params: {'': a}}}]", "rules[0].when.params"),
        (f"rules: [{{name: a, when: {{params: {{'x{NBSP}y': a}}}}}}]", "rules[0].when.params"),
        (f"rules: [{{name: a, when: {{caller: '{LONG}'}}}}]", "rules[0].when.caller[0]"),
        (f"rules: [{{name: a, prefer: {{param: '{LONG}'}}}}]", "rules[0].prefer"),
        ("rules: [{name: a, prefer: {param: ''}}]", "rules[0].prefer"),
        ("hook: {fields: {caller: ['a,b']}}", "hook.fields.caller[0]"),
        ("hook: {fields: {caller: [a, '']}}", "hook.fields.caller[1]"),
        (f"hook: {{basic_auth: 'u:{LONG}'}}", "hook.basic_auth"),
        (f"presence: {{auth_key: '{LONG}'}}", "presence.auth_key"),
        (f"presence: {{project_id: '{LONG}'}}", "presence.project_id"),
        (f"presence: {{token: '{LONG}'}}", "presence.token"),
        ("presence: {online_from: either, project_id: 7, token: ''}", "presence.online_from"),
    ],
)
def test_what_its_form_refuses_is_refused_with_place_and_remedy(body: str, place: str) -> None:
    (found,) = problems(f"projects:\n- name: a\n  {body}")
    told, _, remedy = found.partition("; ")
    assert told.startswith(f"f:3: projects[0].{place}")
    assert remedy
