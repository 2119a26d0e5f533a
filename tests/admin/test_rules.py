"""Rules: sentences, order, conditions, counts, warnings."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from router.admin.conditions import KINDS, join_values, split_values
from router.admin.views.rules import MOST_COUNTED, count_matches
from router.configuration import apply, load
from router.configuration.schema import WhenConfig
from router.core import conditions
from router.db import models
from tests.admin.conftest import Admin, Browser, shown_fields

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    schedules:
      - {name: office hours, open: {mon-fri: ["09:00-18:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice]}
    groups:
      - {name: vip, members: [{agent: Alice}]}
      - {name: sales, members: [{agent: Alice}]}
      - {name: nobody}
    rules:
      - name: VIP
        when: {caller: ["+38050*", anonymous], dialed: ["380441112233"], params: {utm_source: [google, "bing*"]}}
        prefer: last_agent
        groups: [vip, sales]
        overflow: "380671234567"
      - {name: night, when: {outside: office hours}, groups: [nobody], overflow: ""}
      - {name: day, when: {schedule: office hours}, groups: [sales]}
"""


@pytest.fixture(autouse=True)
def configured(admin: Admin) -> None:
    admin.configure(CONFIG)


def rule(admin: Admin, name: str) -> models.Rule:
    row: models.Rule = admin.one(models.Rule, name=name)
    return row


def url(admin: Admin, name: str, what: str = "") -> str:
    return f"/p/acme/rules/{rule(admin, name).id}{what}"


def order(admin: Admin) -> list[str]:
    project_id = admin.one(models.Project, name="acme").id
    rows = admin.all(models.Rule, project_id=project_id)
    return [row.name for row in sorted(rows, key=lambda row: row.position)]


def post(browser: Browser, address: str, **fields: Any) -> Any:
    return browser.client.post(address, data={"csrf_token": browser.token, **fields})


def sentences(page: str) -> list[str]:
    told = re.findall(r'<p class="sentence mb-0">(.*?)</p>', page, re.DOTALL)
    return [" ".join(unescape(re.sub(r"<[^>]+>|&#8288;", "", one)).replace("\u2060", "").split()) for one in told]


def test_rules_read_as_sentences_in_their_order(vira: Browser) -> None:
    assert sentences(vira.get("/p/acme/rules").text) == [
        (
            "Calls from +38050… or anonymous, to +380441112233, with utm_source = google or bing… go to"
            " whoever last spoke with the caller (30 days), then vip, then sales, else 380671234567."
        ),
        "Calls outside office hours go to nobody, else an empty answer, without destination.",
        "Calls within office hours go to sales, else the project’s overflow.",
    ]


def test_one_post_carries_the_whole_order(admin: Admin, emil: Browser) -> None:
    wanted = [str(rule(admin, name).id) for name in ("day", "VIP", "night")]
    answer = emil.client.post(
        "/p/acme/rules/order", data={"csrf_token": emil.token, "order": wanted}, headers={"HX-Request": "true"}
    )
    assert "Applies from the next call" in answer.headers["HX-Trigger"]
    assert re.findall(r'<li [^>]*data-item="(\w+)"', answer.text) == ["day", "VIP", "night"]
    assert order(admin) == ["day", "VIP", "night"]
    entry = admin.all(models.AuditEntry, action="reordered")[-1]
    assert entry.after == {"order": ["day", "VIP", "night"]}


def test_without_a_script_a_button_moves_one_rule(admin: Admin, emil: Browser) -> None:
    everything = [str(row.id) for row in admin.all(models.Rule)]
    night = rule(admin, "night").id
    assert post(emil, "/p/acme/rules/order", order=everything, move=f"up:{night}").status_code == 303
    assert order(admin) == ["night", "VIP", "day"]
    post(emil, "/p/acme/rules/order", order=[], move=f"down:{night}")
    assert order(admin) == ["VIP", "night", "day"]
    post(emil, "/p/acme/rules/order", order=[], move=f"top:{rule(admin, 'day').id}")
    assert order(admin) == ["day", "VIP", "night"]
    post(emil, "/p/acme/rules/order", order=[], move=f"bottom:{rule(admin, 'day').id}")
    assert order(admin) == ["VIP", "night", "day"]


def test_an_order_of_rules_that_are_no_longer_is_refused(admin: Admin, emil: Browser) -> None:
    stale = [str(row.id) for row in admin.all(models.Rule)]
    emil.post(url(admin, "day", "/delete"))
    assert post(emil, "/p/acme/rules/order", order=stale[::-1]).status_code == 404
    assert order(admin) == ["VIP", "night"]


def test_a_rule_added_meanwhile_keeps_its_place_at_the_end(admin: Admin, emil: Browser) -> None:
    known = [str(rule(admin, name).id) for name in ("day", "night", "VIP")]
    post(emil, "/p/acme/rules/new", name="late", enabled="y", prefer="", prefer_days="30", overflow_kind="unset")
    post(emil, "/p/acme/rules/order", order=known)
    assert order(admin) == ["day", "night", "VIP", "late"]


NEW = {"name": "new", "enabled": "y", "prefer": "", "prefer_days": "30", "overflow_kind": "unset"}


def with_catch_all(admin: Admin) -> None:
    config = CONFIG.replace("{name: night, when", "{name: night, enabled: false, when")
    apply(admin.database, load(config + "      - {name: Everyone, groups: [sales]}\n", {}), actor="test")


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("top", ["new", "VIP", "night", "day", "Everyone"]),
        ("above", ["VIP", "night", "day", "new", "Everyone"]),
        (None, ["VIP", "night", "day", "new", "Everyone"]),  # as it is proposed
        ("bottom", ["VIP", "night", "day", "Everyone", "new"]),
    ],
)
def test_a_new_rule_stands_where_it_is_asked_to(
    admin: Admin, emil: Browser, place: str | None, wanted: list[str]
) -> None:
    with_catch_all(admin)
    page = unescape(emil.get("/p/acme/rules/new").text)
    assert "Above “Everyone”" in page
    assert re.search(r'checked[^>]*value="above"', page)
    answer = emil.post("/p/acme/rules/new", **NEW, **({"place": place} if place else {}), follow=True)
    assert order(admin) == wanted
    assert ("can never match: “Everyone” above it" in unescape(answer.text)) is (place == "bottom")


def test_without_a_rule_for_all_calls_a_new_one_stands_at_the_bottom(admin: Admin, emil: Browser) -> None:
    page = emil.get("/p/acme/rules/new").text
    assert 'value="above"' not in page
    assert re.search(r'checked[^>]*value="bottom"', page)
    assert emil.post("/p/acme/rules/new", **NEW, place="middle").status_code == 422
    assert 'name="place"' not in emil.get(url(admin, "day")).text


def test_a_rule_that_can_never_match_is_told_while_it_is_typed(admin: Admin, emil: Browser) -> None:
    with_catch_all(admin)
    narrow = {"conditions-0-kind": "caller", "conditions-0-op": "is", "conditions-0-value": "+380501112233"}
    more = narrow | {"conditions-1-kind": "dialed", "conditions-1-op": "is", "conditions-1-value": "380441112233"}
    before = admin.one(models.Project, name="acme").version

    def told(address: str, **typed: str) -> str:
        return unescape(emil.post(address, preview="1", htmx=True, **typed).text)

    new = "/p/acme/rules/new"
    assert "“Everyone” above it takes every call" in told(new, **NEW, **more, place="bottom")
    assert "can never match" not in told(new, **NEW, **more, place="above")
    assert "“Everyone” above it" in told(new, **(NEW | {"name": ""}), **more, place="bottom"), "whatever else is wrong"
    wrong = told(new, **NEW, **(more | {"conditions-0-value": "*"}), place="bottom")
    assert "can never match" not in wrong
    assert "can never match" not in told(new, **{key: text for key, text in NEW.items() if key != "enabled"})
    hours = {"conditions-0-kind": "schedule", "conditions-0-op": "inside", "conditions-0-value": "office hours"}
    assert "“day” above it takes every call" in told(new, **NEW, **hours, place="above")
    assert "can never match" not in told(url(admin, "day"), **NEW, **hours)
    assert admin.one(models.Project, name="acme").version == before


def test_conditions_of_every_kind_are_kept_in_their_one_spelling(admin: Admin, emil: Browser) -> None:
    sales = admin.one(models.Group, name="sales").id
    rows = [
        ("caller", "is", "", "050*, 067 123-45-67"),
        ("caller", "is_not", "", "+380501112233 – +380501112299"),
        ("dialed", "is", "", "044 111 22 33; 101".replace(";", ",")),
        ("param", "equals", "UTM_Source", 'google, "a, b"'),
        ("param", "not_contains", "landing", "spam"),
        ("param", "present", "client_id", ""),
        ("direction", "is", "", "IN, callback"),
        ("schedule", "inside", "", "office hours"),
        ("free", "fewer", "sales", "2"),
        ("called_before", "unanswered", "hours", "3"),
    ]
    posted: dict[str, Any] = {}
    for n, row in enumerate(rows):
        posted |= {
            f"conditions-{n}-{part}": text for part, text in zip(("kind", "op", "name", "value"), row, strict=True)
        }
    answer = post(emil, "/p/acme/rules/new", name="all", enabled="y", prefer="param", prefer_param="responsible",
                  prefer_days="7", overflow_kind="to", overflow_to="acme_reception",
                  **{"groups-0-group": str(sales)}, **posted)  # fmt: skip
    assert answer.status_code == 303
    made = rule(admin, "all")
    assert made.conditions == {
        "caller": ["38050*", "380671234567"],
        "not_caller": ["380501112233-380501112299"],
        "dialed": ["380441112233", "101"],
        "params": {"UTM_Source": ["google", "a, b"], "client_id": ["*"]},
        "not_params": {"landing": ["*spam*"]},
        "direction": ["in", "callback"],
        "called_before": {"within": 3, "unit": "hours", "unanswered": True},
    }
    assert made.inside_id == admin.one(models.Schedule, name="office hours").id
    assert (made.free_group_id, made.free_fewer_than) == (sales, 2)
    assert (made.prefer, made.prefer_param, made.prefer_days, made.overflow) == (
        "param",
        "responsible",
        7,
        "acme_reception",
    )
    page = emil.get(url(admin, "all")).text
    assert post(emil, url(admin, "all"), **shown_fields(page)).status_code == 303
    assert rule(admin, "all").conditions == made.conditions
    assert "when fewer than 2 are free in sales" in sentences(page)[0]
    assert "of callers who were not answered in the last 3 hours" in sentences(page)[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("caller", "is", "", "acme_bob"), None),  # a SIP name is no fault
        (("caller", "is", "", ""), "Write a number, or remove the condition."),
        (("caller", "is", "", "*"), "“*” matches every number"),
        (("dialed", "is", "", "+380*50"), "is not a valid number"),
        (("dialed", "is", "", "+380*50*"), "is not a valid number"),
        (("caller", "is", "", "unknown"), "write anonymous"),
        (("dialed", "is", "", "380441112299-380441112200"), "is not a valid range"),
        (("param", "equals", "", "google"), "Write the parameter’s name"),
        (("param", "equals", "utm_source", ""), "Write a value, or choose “is sent”."),
        (("param", "equals", "utm_source", "goo*"), "leave the star out"),
        (("direction", "is", "", ""), "Write one or more of in, out"),
        (("schedule", "inside", "", "gone"), "This schedule no longer exists"),
        (("free", "fewer", "gone", "2"), "This group no longer exists"),
        (("free", "fewer", "sales", "few"), "Write a whole number from 1 to 10000."),
        (("called_before", "any", "hours", "0"), "Write a whole number from 1 to 10000."),
        (("called_before", "any", "", "2"), None),  # the first unit, as it is shown
    ],
)
def test_a_condition_that_means_nothing_is_told_beside_it(
    admin: Admin, emil: Browser, row: tuple[str, ...], said: str | None
) -> None:
    parts = zip(("kind", "op", "name", "value"), row, strict=True)
    posted = {f"conditions-7-{part}": text for part, text in parts}
    answer = post(emil, "/p/acme/rules/new", name="new", enabled="y", prefer="", prefer_days="30",
                  overflow_kind="unset", **posted)  # fmt: skip
    if said is None:
        assert answer.status_code == 303
        return
    assert answer.status_code == 422
    beside = re.search(r'id="conditions-0-\w+-error">.*?<span>([^<]*)</span>', answer.text, re.DOTALL)
    assert beside is not None
    assert said in unescape(beside[1])
    assert admin.all(models.Rule, name="new") == []


def test_two_schedules_of_one_kind_are_refused(emil: Browser) -> None:
    posted: dict[str, str] = {}
    for n in (0, 1):
        posted |= {
            f"conditions-{n}-kind": "schedule",
            f"conditions-{n}-op": "inside",
            f"conditions-{n}-value": "office hours",
        }
    answer = post(emil, "/p/acme/rules/new", name="new", prefer="", prefer_days="30", overflow_kind="unset", **posted)
    assert answer.status_code == 422
    assert "Only one condition of this kind" in answer.text


def test_the_buttons_beside_the_rows_work_without_a_script(admin: Admin, emil: Browser) -> None:
    page = emil.get(url(admin, "VIP")).text
    fields = shown_fields(page)
    more = post(emil, url(admin, "VIP"), **fields, add_conditions="direction").text
    assert 'name="conditions-4-kind" value="direction"' in re.sub(r"<template.*?</template>", "", more, flags=re.DOTALL)
    less = post(emil, url(admin, "VIP"), **fields, remove_conditions="0").text
    assert "+38050*" not in less.split('id="conditions"')[1].split("</template>")[-1]
    sales = str(admin.one(models.Group, name="sales").id)
    swapped = post(emil, url(admin, "VIP"), **fields, move_groups="up:1").text
    assert re.findall(r'<option value="(\d+)" selected', swapped.split('id="groups"')[1])[0] == sales
    assert rule(admin, "VIP").conditions["caller"] == ["38050*", "anonymous"]


def test_each_condition_that_is_tested_has_its_key_of_the_file_and_its_words_on_the_pages() -> None:
    tested = {key for kind in conditions.KINDS for key in kind.keys}
    assert tested == WhenConfig.model_fields.keys() == {op.key for kind in KINDS.values() for op in kind.ops}


def test_values_with_commas_stand_in_quotes() -> None:
    for values in (["a", "b"], ["a, b", "c"], ['say "hi"'], ['"quoted"'], ["x,y"]):
        assert split_values(join_values(values)) == values
    assert split_values("a,,  b ,") == ["a", "b"]


def test_two_who_edit_the_conditions_of_a_rule_are_told_of_each_other(
    admin: Admin, emil: Browser, olena: Browser
) -> None:
    fields = shown_fields(emil.get(url(admin, "VIP")).text)
    assert post(olena, url(admin, "VIP"), **(fields | {"conditions-0-value": "+38067*"})).status_code == 303
    answer = post(emil, url(admin, "VIP"), **(fields | {"conditions-0-value": "+38063*"}))
    assert answer.status_code == 409
    told = answer.text.split("Fields that you both changed")[1].split("</table>")[0]
    assert "Conditions" in told
    assert "38067*" in told
    assert rule(admin, "VIP").conditions["caller"] == ["38067*"]


def test_who_did_not_touch_the_conditions_keeps_what_another_made_of_them(
    admin: Admin, emil: Browser, olena: Browser
) -> None:
    fields = shown_fields(emil.get(url(admin, "VIP")).text)
    assert post(olena, url(admin, "VIP"), **(fields | {"conditions-0-value": "+38067*"})).status_code == 303
    assert post(emil, url(admin, "VIP"), **(fields | {"name": "Very important"})).status_code == 303
    assert rule(admin, "Very important").conditions["caller"] == ["38067*"]


# ---- on and off, deleting


def test_a_rule_is_turned_off_and_on(admin: Admin, emil: Browser) -> None:
    assert "is turned off" in emil.post(url(admin, "day", "/switch"), on="", follow=True).text
    assert rule(admin, "day").enabled is False
    emil.post(url(admin, "day", "/switch"), on="1")
    assert rule(admin, "day").enabled is True


# ---- how often


def decide(admin: Admin, rule_id: int | None, at: datetime, count: int = 1) -> None:
    project_id = admin.one(models.Project, name="acme").id
    with admin.database.writing() as session:
        session.add_all(
            models.Decision(
                project_id=project_id, call_id="", step="", asked_at=at, caller="", dialed="", rule_id=rule_id,
                destination="x", result="overflow", config_version=1, latency_us=1, record={},
            )
            for _ in range(count)
        )  # fmt: skip


def test_counts_say_how_often_and_when_last(admin: Admin, vira: Browser) -> None:
    now = datetime.now(UTC)
    day, vip = rule(admin, "day").id, rule(admin, "VIP").id
    decide(admin, day, now - timedelta(days=6), 3)
    decide(admin, day, now - timedelta(minutes=5), 2)
    decide(admin, vip, now - timedelta(days=9), 4)  # long ago
    decide(admin, None, now)
    with admin.database.reading() as session:
        found = count_matches(session, admin.one(models.Project, name="acme").id, now)
    assert found.counts == {day: 5}
    assert found.last_at[day] == now - timedelta(minutes=5)
    assert (found.trend[day][1] + found.trend[day][2], found.trend[day][-1], sum(found.trend[day])) == (3, 2, 5)
    page = vira.get("/p/acme/rules").text
    assert "5 calls" in page
    assert page.count("no recent call") == 2


def test_a_long_log_is_counted_no_further_than_it_takes_no_time(
    admin: Admin, vira: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_COUNTED >= 10_000
    monkeypatch.setattr("router.admin.views.rules.MOST_COUNTED", 10)
    now = datetime.now(UTC)
    for n in range(20):
        decide(admin, rule(admin, "day").id, now - timedelta(hours=n))
    with admin.database.reading() as session:
        found = count_matches(session, admin.one(models.Project, name="acme").id, now)
    assert found.is_capped
    assert sum(found.counts.values()) == 10
    assert "Counted: the last 20,000 calls" in vira.get("/p/acme/rules").text


# ---- warnings


def test_what_is_likely_to_be_regretted_stands_at_its_rule(admin: Admin, emil: Browser, vira: Browser) -> None:
    hours = {"conditions-0-kind": "schedule", "conditions-0-op": "inside", "conditions-0-value": "office hours"}
    post(
        emil,
        "/p/acme/rules/new",
        name="never",
        enabled="y",
        prefer="",
        prefer_days="30",
        overflow_kind="unset",
        **hours,
    )
    page = unescape(vira.get("/p/acme/rules").text)
    cards = {re.search(r"<h2>([^<]+)", card)[1]: card for card in page.split('<li class="card')[1:]}  # type: ignore[index]
    assert "This rule can never match: “day” above it takes every call" in cards["never"]
    assert "No members in nobody" in cards["night"]
    assert "never match" not in cards["VIP"]


def test_hours_that_no_rule_covers_are_named(admin: Admin, emil: Browser, vira: Browser) -> None:
    assert "no rule takes every call" not in vira.get("/p/acme/rules").text
    emil.post(url(admin, "night", "/switch"), on="")
    page = unescape(vira.get("/p/acme/rules").text)
    assert "At these hours no rule takes every call:" in page
    assert "Mon 00:00–09:00" in page
    assert "Mon 18:00 – Tue 09:00" in page


def test_a_missing_overflow_is_warned_about(admin: Admin, vira: Browser) -> None:
    assert "The project has no overflow" not in vira.get("/p/acme/rules").text
    apply(admin.database, load(CONFIG.replace('overflow: "380441234567"', 'overflow: ""'), {}), actor="test")
    assert "The project has no overflow" in vira.get("/p/acme/rules").text


def test_what_strangers_named_is_shown_as_text(admin: Admin, emil: Browser) -> None:
    post(emil, "/p/acme/rules/new", name="<script>alert(1)</script>", enabled="y", prefer="", prefer_days="30",
         overflow_kind="unset")  # fmt: skip
    assert "<script>alert" not in emil.get("/p/acme/rules").text
