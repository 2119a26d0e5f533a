"""The laws of merging: nothing that one side changed is lost, and what both changed otherwise is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.configuration import load
from router.configuration.change import users_of
from router.configuration.document import document_of
from router.configuration.merging import Conflict, merge
from router.db.documents import KINDS, Document, build_project

FILE = """
projects:
  - name: acme
    overflow: "100"
    schedules: [{name: hours, open: {daily: ["08:00-18:00"]}}, {name: nights, open: {daily: ["20:00-06:00"]}}]
    agents: [{name: Ann, hours: hours, deputy: Bob}, {name: Bob, hours: nights}, {name: Cid}]
    groups: [{name: sales, members: [{agent: Ann}, {agent: Bob}]}, {name: support, members: [{agent: Cid}]}]
    rules: [{name: vip, when: {schedule: hours}, groups: [sales]}, {name: night, groups: [support]}, {name: all, groups: [sales]}]
"""  # noqa: E501
BASE = document_of(load(FILE, {}).projects[0])
ANN, BOB, CID = 1, 2, 3
SALES, SUPPORT = 1, 2
VIP, NIGHT, ALL = 1, 2, 3


def changed(document: Document, kind: str, row_id: int, **values: Any) -> Document:
    return {**document, kind: [{**row, **values} if row["id"] == row_id else row for row in document[kind]]}


def removed(document: Document, kind: str, row_id: int) -> Document:
    return {**document, kind: [row for row in document[kind] if row["id"] != row_id]}


def added(document: Document, kind: str, row_id: int, **values: Any) -> Document:
    return {**document, kind: [*document[kind], {**BASE[kind][0], "id": row_id, **values}]}


def ordered(document: Document, *row_ids: int) -> Document:
    rows = {row["id"]: row for row in document["rules"]}
    return {**document, "rules": [rows[row_id] for row_id in row_ids]}


def ids(document: Document, kind: str) -> list[int]:
    return [row["id"] for row in document[kind]]


def row_of(document: Document, kind: str, row_id: int) -> dict[str, Any]:
    return next(dict(row) for row in document[kind] if row["id"] == row_id)


def is_whole(document: Document) -> bool:
    there = {(kind, row["id"]) for kind in KINDS for row in document[kind]}
    return users_of(document).keys() <= there


EDITS = st.one_of(
    st.tuples(
        st.just("name"), st.sampled_from(["agents", "groups", "rules"]), st.integers(1, 2), st.sampled_from("xy")
    ),
    st.tuples(st.just("members"), st.permutations([ANN, BOB, CID]), st.integers(0, 3), st.none()),
    st.tuples(st.just("deputy"), st.sampled_from([ANN, BOB, CID]), st.sampled_from([ANN, BOB, CID, None]), st.none()),
    st.tuples(st.just("groups"), st.sampled_from([VIP, NIGHT, ALL]), st.sampled_from([SALES, SUPPORT]), st.none()),
    st.tuples(st.just("remove"), st.sampled_from(["agents", "groups", "rules"]), st.integers(1, 3), st.none()),
    st.tuples(st.just("add"), st.sampled_from(["agents", "groups", "rules"]), st.integers(7, 9), st.none()),
    st.tuples(st.just("order"), st.permutations([VIP, NIGHT, ALL]), st.none(), st.none()),
    st.tuples(st.just("setting"), st.sampled_from(["cool_down_seconds", "hook"]), st.integers(1, 3), st.none()),
)


def edited(document: Document, edits: list[Any]) -> Document:
    """Apply those edits after which nothing refers to a row that is not there."""
    for what, *arguments in edits:
        wanted = _edited(document, what, *arguments)
        document = wanted if is_whole(wanted) else document
    return document


def _edited(document: Document, what: str, first: Any, second: Any, third: Any) -> Document:
    match what:
        case "name":
            return changed(document, first, second, name=third)
        case "members":
            members = [{"agent": one, "tier": 1, "weight": 1, "hours": None} for one in first[:second]]
            return changed(document, "groups", SALES, members=members)
        case "deputy":
            return changed(document, "agents", first, deputy=second)
        case "groups":
            return changed(document, "rules", first, groups=[second])
        case "remove":
            return removed(document, first, second)
        case "add":
            is_there = second in ids(document, first)
            return document if is_there else added(document, first, second, name=f"new {second}", **_alone(first))
        case "order":
            there = ids(document, "rules")
            return ordered(document, *(one for one in first if one in there), *(one for one in there if one > ALL))
    project = document["project"]
    if first == "hook":
        return {**document, "project": {**project, "hook": {**project["hook"], "retry_seconds": second}}}
    return {**document, "project": {**project, first: second}}


def _alone(kind: str) -> Any:
    return {"agents": {"deputy": None}, "groups": {"members": []}, "rules": {"groups": []}}[kind]


SIDE = st.lists(EDITS, max_size=5).map(lambda edits: edited(BASE, edits))


@given(SIDE)
def test_what_one_side_alone_changed_is_taken_whole(side: Document) -> None:
    assert merge(BASE, side, BASE) == (side, [])
    assert merge(BASE, BASE, side) == (side, [])
    assert merge(BASE, side, side) == (side, [])


@given(SIDE, SIDE)
def test_a_merged_configuration_refers_to_no_row_that_is_not_there(ours: Document, theirs: Document) -> None:
    merged, _conflicts = merge(BASE, ours, theirs)
    assert is_whole(merged)
    build_project(merged, 1, 1)
    for kind in KINDS:
        assert len(ids(merged, kind)) == len({*ids(merged, kind)})


@given(SIDE, SIDE)
def test_every_value_is_that_of_a_side_which_changed_it_or_a_conflict(ours: Document, theirs: Document) -> None:
    merged, conflicts = merge(BASE, ours, theirs)
    for kind in KINDS:
        sides = [{row["id"]: row for row in document[kind]} for document in (BASE, ours, theirs)]
        for row in merged[kind]:
            was, our, their = (side.get(row["id"]) for side in sides)
            if not (was and our and their) or Conflict(kind, row["id"], "") in conflicts:
                continue
            for key in row:
                if our[key] in (was[key], their[key]):
                    assert row[key] == their[key]
                elif their[key] == was[key] or Conflict(kind, row["id"], key) in conflicts:
                    assert row[key] == our[key]
                else:
                    assert key == "members"
                    agents, before, ours_, theirs_ = (
                        {member["agent"] for member in side[key]} for side in (row, was, our, their)
                    )
                    assert agents == (before & ours_ & theirs_) | (ours_ - before) | (theirs_ - before)


@given(SIDE, SIDE)
def test_without_a_conflict_it_does_not_matter_who_was_first(ours: Document, theirs: Document) -> None:
    one, conflicts = merge(BASE, ours, theirs)
    other, others = merge(BASE, theirs, ours)
    assert bool(conflicts) == bool(others)
    if not conflicts:
        for kind in KINDS:
            assert rows_of(one, kind) == rows_of(other, kind)
        assert one["project"] == other["project"]


def test_different_fields_of_one_row_are_joined() -> None:
    ours, theirs = changed(BASE, "agents", ANN, wrap_up_seconds=7), changed(BASE, "agents", ANN, daily_cap=9)
    merged, conflicts = merge(BASE, ours, theirs)
    assert conflicts == []
    assert (row_of(merged, "agents", ANN)["wrap_up_seconds"], row_of(merged, "agents", ANN)["daily_cap"]) == (7, 9)


def test_a_field_that_both_changed_stays_ours_and_is_told() -> None:
    ours, theirs = changed(BASE, "rules", ALL, groups=[]), changed(BASE, "rules", ALL, groups=[SUPPORT])
    merged, conflicts = merge(BASE, ours, theirs)
    assert row_of(merged, "rules", ALL)["groups"] == []
    assert conflicts == [Conflict("rules", ALL, "groups")]


def test_a_row_that_one_side_removed_and_the_other_changed_is_told() -> None:
    gone, other = removed(BASE, "rules", VIP), changed(BASE, "rules", VIP, name="gold")
    merged, conflicts = merge(BASE, gone, other)
    assert (VIP in ids(merged, "rules"), conflicts) == (False, [Conflict("rules", VIP, "")])
    merged, conflicts = merge(BASE, other, gone)
    assert (VIP in ids(merged, "rules"), conflicts) == (True, [Conflict("rules", VIP, "")])


def test_a_row_that_one_side_removed_and_the_other_uses_comes_back_and_is_told() -> None:
    """The other way it would be a member that no agent is."""
    cid = {"agent": CID, "tier": 1, "weight": 1, "hours": None}
    free = changed(BASE, "groups", SUPPORT, members=[])
    ours, theirs = removed(free, "agents", CID), changed(BASE, "groups", SALES, members=[cid])
    merged, conflicts = merge(BASE, ours, theirs)
    assert CID in ids(merged, "agents")
    assert Conflict("agents", CID, "") in conflicts


def test_an_order_keeps_what_the_other_side_added_below_its_neighbour() -> None:
    ours = ordered(BASE, ALL, VIP, NIGHT)
    theirs = {**added(BASE, "rules", 9, name="new", groups=[])}
    theirs = ordered(theirs, VIP, 9, NIGHT, ALL)
    merged, conflicts = merge(BASE, ours, theirs)
    assert (ids(merged, "rules"), conflicts) == ([ALL, VIP, 9, NIGHT], [])
    merged, conflicts = merge(BASE, ours, ordered(BASE, NIGHT, VIP, ALL))
    assert (ids(merged, "rules"), conflicts) == ([ALL, VIP, NIGHT], [Conflict("rules", 0, "order")])


def test_credentials_are_never_taken_from_a_draft() -> None:
    project = BASE["project"]
    ours = {**BASE, "project": {**project, "secrets": 3, "hook": {**project["hook"], "basic_auth": True}}}
    theirs = {**BASE, "project": {**project, "secrets": 5}}
    merged, conflicts = merge(BASE, ours, theirs)
    assert (merged["project"]["secrets"], merged["project"]["hook"]["basic_auth"], conflicts) == (5, False, [])


def rows_of(document: Document, kind: str) -> dict[int, Any]:
    """The rows by id; who was added to a group by either side has no order among those added by the other."""
    rows = {row["id"]: dict(row) for row in document[kind]}
    for row in rows.values():
        row["members"] = sorted(row.get("members", ()), key=lambda member: member["agent"])
    return rows


def members(*agents: int, tier: int = 1) -> list[dict[str, Any]]:
    return [{"agent": agent, "tier": tier, "weight": 1, "hours": None} for agent in agents]


def test_members_logins_and_conditions_are_joined_one_by_one() -> None:
    ours, theirs = changed(BASE, "groups", SALES, members=members(ANN, BOB, CID)), BASE
    theirs = changed(theirs, "groups", SALES, members=members(BOB))
    merged, conflicts = merge(BASE, ours, theirs)
    assert ([one["agent"] for one in row_of(merged, "groups", SALES)["members"]], conflicts) == ([BOB, CID], [])

    owned = changed(BASE, "agents", ANN, sip_logins=["a", "b"])
    ours, theirs = (changed(owned, "agents", ANN, sip_logins=logins) for logins in (["a", "b", "c"], ["d", "b"]))
    merged, conflicts = merge(owned, ours, theirs)
    assert (sorted(row_of(merged, "agents", ANN)["sip_logins"]), conflicts) == (["b", "c", "d"], [])

    ours = changed(BASE, "rules", VIP, when={"schedule": 1, "caller": ["1"]})
    theirs = changed(BASE, "rules", VIP, when={"schedule": 1, "dialed": ["2"]})
    merged, conflicts = merge(BASE, ours, theirs)
    assert (row_of(merged, "rules", VIP)["when"], conflicts) == ({"schedule": 1, "caller": ["1"], "dialed": ["2"]}, [])


def test_a_member_that_both_changed_is_a_conflict_about_the_members() -> None:
    ours, theirs = (changed(BASE, "groups", SALES, members=members(ANN, BOB, tier=tier)) for tier in (2, 3))
    merged, conflicts = merge(BASE, ours, theirs)
    assert row_of(merged, "groups", SALES)["members"] == members(ANN, BOB, tier=2)
    assert conflicts == [Conflict("groups", SALES, "members")]


def test_a_rule_that_comes_back_has_its_place_again() -> None:
    test = {"call": {}, "expect": {"rule": VIP, "groups": [], "agent": None}, "free": []}
    tested = {**BASE, "tests": [{"id": 1, "name": "vip", **test}]}
    ours = changed(tested, "tests", 1, name="VIP first")
    theirs = {**tested, "tests": [], "rules": [row for row in BASE["rules"] if row["id"] != VIP]}
    merged, conflicts = merge(tested, ours, theirs)
    assert ids(merged, "rules") == [VIP, NIGHT, ALL]
    assert {*conflicts} == {Conflict("rules", VIP, ""), Conflict("tests", 1, "")}


def test_an_order_of_members_that_both_changed_is_a_conflict() -> None:
    three = changed(BASE, "groups", SALES, members=members(ANN, BOB, CID))
    ours = changed(three, "groups", SALES, members=members(CID, ANN, BOB))
    theirs = changed(three, "groups", SALES, members=members(BOB, ANN, CID))
    merged, conflicts = merge(three, ours, theirs)
    assert (row_of(merged, "groups", SALES)["members"], conflicts) == (
        members(CID, ANN, BOB),
        [Conflict("groups", SALES, "members")],
    )
    merged, conflicts = merge(three, ours, changed(three, "groups", SALES, members=members(ANN, BOB)))
    assert (row_of(merged, "groups", SALES)["members"], conflicts) == (members(ANN, BOB), [])
