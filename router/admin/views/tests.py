"""The rules' own tests: calls whose answer must stay what it is, kept from the log or from a trial, or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

from flask import abort, g, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import format_datetime

from router.admin.forms.overflow import fill_overflow, overflow_fields, read_overflow
from router.admin.forms.parts import (
    ItemForm,
    ReferenceField,
    ReferencesField,
    RowsField,
    Stored,
    TypedRow,
    add_fields,
    name_field,
)
from router.admin.forms.try_call import TryForm
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    as_id,
    changing,
    current_configuration,
    current_project,
    done,
    edited,
    editing,
    or_drafted,
    owned,
    page,
    reading,
    render_form,
)
from router.admin.views.agents import free_name
from router.admin.views.rules import ChainField, ChainRow
from router.configuration.change import Draft
from router.configuration.document import names_of
from router.configuration.rule_tests import Result, decide_call, run_tests
from router.configuration.schema import (
    MAX_NAME_CHARS,
    Config,
    ExpectConfig,
    RuleTestCallConfig,
    check_param_name,
    most_of,
    notation,
    notes_of,
)
from router.core.model import Call
from router.db import models
from router.db.documents import BuildError, Document
from router.db.records import record_of
from router.explanation.log import params_of
from router.numbers import normalise_number

PARTS: Mapping[str, type[Config]] = {"call": RuleTestCallConfig, "expect": ExpectConfig}


@page("/p/<project>/tests", see=Role.VIEWER, drafts=True)
def tests() -> ResponseReturnValue:
    """Run all tests, and list those that fail first."""
    with reading() as session:
        document = edited(session).document
        current_configuration(session)  # if calls cannot be routed by what is edited, the page says so
    results, names = _results(document), names_of(document)
    rows = [_shown(names, test, results.get(test["id"])) for test in document["tests"]]
    return render_template(
        "tests/tests.html",
        tests=sorted(rows, key=lambda row: not row["failures"]),
        failing=sum(bool(row["failures"]) for row in rows),
    )


def _results(document: Document) -> dict[int, Result]:
    """Return the results by id; {} when calls cannot be routed by the document."""
    try:
        return {result.id: result for result in run_tests(document)}
    except BuildError:
        return {}


def _shown(names: Mapping[str, Mapping[int, str]], test: Mapping[str, Any], result: Result | None) -> dict[str, Any]:
    """Return what the list shows of a test."""
    expect, mask = test["expect"], current_project().mask
    return {
        "id": test["id"],
        "name": test["name"],
        "caller": mask(test["call"]["caller"]),
        "dialed": test["call"]["dialed"],
        "at": datetime.fromisoformat(test["call"]["at"]),
        "rule": names["rules"].get(expect["rule"], ""),
        "groups": [names["groups"].get(group, f"#{group}") for group in expect["groups"]],
        "agent": names["agents"].get(expect["agent"], ""),
        "overflow": expect["overflow"],
        "failures": result.failures if result else [],
        "is_run": result is not None,
    }


# ---- the form


@dataclass
class ParamRow(TypedRow):
    """A parameter of the hook as typed."""

    name: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.name} = {self.value}"


class ParamsField(RowsField):
    """Parameters of the hook. Value: the values by name."""

    row, most = ParamRow, most_of(RuleTestCallConfig, "params")
    rows: list[ParamRow]

    def check(self) -> None:
        for row in self.rows:
            try:
                check_param_name(row.name)
            except ValueError:
                row.errors["name"] = _("Write the parameter’s name as Ringostat sends it: utm_source.")

    @property
    def value(self) -> dict[str, str]:
        """The values by name."""
        return {row.name: row.value for row in self.rows}


class RuleTestForm(ItemForm):
    kind = "tests"
    FIELDS: ClassVar = {"call": "call_at", "expect": "expect_rule", "overflow": "overflow_to"}

    name = name_field(lazy("Give the test a name."))
    call_params = ParamsField(lazy("Parameters of the hook"))
    expect_groups = ChainField(lazy("Groups that are asked"))
    overflow_kind, overflow_to = overflow_fields(lazy("An agent, or any overflow"))

    def offer(self) -> None:
        super().offer()
        self.expect_groups.offer(self.choices_of("groups"))
        for key, model in PARTS.items():
            for name, field in model.model_fields.items():
                shown = self._fields.get(f"{key}_{name}")
                if isinstance(shown, ReferenceField | ReferencesField):
                    shown.offer(self.choices_of(f"{notes_of(field).refers}s"))

    def fill(self, row: Stored) -> None:
        country = current_project().country
        for key in ("caller", "dialed"):
            self._fields[f"call_{key}"].data = notation(row.call[key], country, normalise_number)
        self.call_direction.data = row.call["direction"]
        self.call_at.process_data(row.call["at"])
        self.call_params.rows = [ParamRow(*pair) for pair in row.call["params"].items()]
        for key in ("rule", "agent"):
            self._fields[f"expect_{key}"].data = str(row.expect[key] or "")
        self.expect_groups.rows = [ChainRow(str(group_id)) for group_id in row.expect["groups"]]
        fill_overflow(self, row.expect["overflow"])

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, model in PARTS.items():
            fields = {name: self._fields[f"{key}_{name}"] for name in model.model_fields if name != "overflow"}
            found[key] = {
                name: field.value if hasattr(field, "value") else field.data for name, field in fields.items()
            }
        found["expect"]["overflow"] = read_overflow(self)
        return super().values() | found


for _part, _model in PARTS.items():
    add_fields(RuleTestForm, _model, f"{_part}_")


# ---- one test


@page("/p/<project>/tests/new", see=Role.EDITOR, do=Role.EDITOR, is_form=True, drafts=True)
def test_new() -> ResponseReturnValue:
    """Write a test."""
    with editing() as draft:
        form = RuleTestForm(draft)
        if form.saves():
            return done(_("The test “%(name)s” is added.", name=form.name.data), url_for("admin.tests"))
    return render_form("tests/test.html", form, test=None, result=None)


@page("/p/<project>/tests/<int:id>", see=Role.VIEWER, do=Role.EDITOR, is_form=True, drafts=True)
def test(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Show and change a test, with its result."""
    with editing() as draft:
        form = RuleTestForm(draft, id)
        if form.saves():
            return done(or_drafted(_("Saved. Applies from the next change of the rules.")), url_for("admin.tests"))
        shown = draft.item("tests", id)
        result = _results(draft.document).get(id)
    return render_form("tests/test.html", form, test=shown, result=result)


@page("/p/<project>/tests/<int:id>/delete", do=Role.EDITOR, drafts=True)
def test_delete(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Delete a test."""
    with changing() as draft:
        name = draft.item("tests", id)["name"]
        draft.remove("tests", id)
    return done(_("The test “%(name)s” is deleted.", name=name), url_for("admin.tests"))


# ---- keep what was decided


@page("/p/<project>/tests/keep", do=Role.EDITOR, drafts=True)
def test_keep() -> ResponseReturnValue:
    """Make a test of a call of the log (`call`: its id), or of a trial (its arguments): the answer must stay so."""
    decision_id = as_id(request.form.get("call"))
    back = url_for("admin.call", id=decision_id) if decision_id else url_for("admin.tests")
    with changing() as draft:
        if decision_id is not None:
            row = owned(draft.session, models.Decision, decision_id)
            record = record_of(draft.session, row)
            if "erased_at" in record:
                return done(_("The caller of this call was erased: it cannot be a test."), back, "warning")
            call = Call(**_texts(record["call"]), params=params_of(record))
            at, expected = row.asked_at, _expected(draft.document, row.rule_id, row.destination)
        else:
            form = TryForm(request.form)
            if not form.validate():
                abort(400)
            call, at = form.call(current_project().country), form.at.data or datetime.now(UTC)
            decision = decide_call(draft.document, _asked(call, at))
            expected = _expected(draft.document, decision.rule_id, decision.answer.destination)
        name, test_id = _keep(draft, _asked(call, at), at, expected)
        ids = draft.save()
    message = _("“%(name)s” is a test now: no change of the rules may change this answer.", name=name)
    return done(or_drafted(message), url_for("admin.test", id=ids["tests", test_id]))


def _texts(asked: Mapping[str, Any]) -> dict[str, str]:
    return {key: asked[key] for key in ("caller", "dialed", "direction")}


def _asked(call: Call, at: datetime) -> dict[str, Any]:
    """Return the `call` of a test."""
    return {**_texts(vars(call)), "params": dict(call.params), "at": at.astimezone(UTC).isoformat()}


def _expected(document: Mapping[str, Any], rule_id: int | None, destination: str) -> dict[str, Any]:
    """Return what a test expects: the rule with its groups; where no group is asked, the destination."""
    rule = next((row for row in document["rules"] if row["id"] == rule_id), None)
    groups = rule["groups"] if rule else []
    overflow = None if groups else destination
    return {"rule": rule and rule["id"], "groups": groups, "agent": None, "overflow": overflow}


def _keep(draft: Draft, asked: Mapping[str, Any], at: datetime, expect: Mapping[str, Any]) -> tuple[str, int]:
    """Put a test into the draft; return its name and id."""
    rules = {row["id"]: row["name"] for row in draft.document["rules"]}
    taken = {row["name"] for row in draft.document["tests"]}
    when = format_datetime(at.astimezone(g.time_zone), "d MMM y, HH:mm", rebase=False)
    taken_by = rules.get(expect["rule"]) or _("Overflow")
    first = f"{taken_by}, {when}"[:MAX_NAME_CHARS]
    name = free_name(first, current_project().mask(asked["caller"]) or _("anonymous"), taken)
    return name, draft.put("tests", {"name": name, "call": asked, "expect": expect})
