"""Dashboard and alerts speak of metrics that exist, and each alert has a runbook."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")

# As documented; that the documentation is complete and true is tested in test_health.py.
LABELS = {
    name: set(re.findall(r"`(\w+)`", labels))
    for name, labels in re.findall(r"^\| `(router_\w+)` \| \w+ \| ([^|]*)\|", OPERATIONS, re.MULTILINE)
}
LABELS |= {f"{name}_{part}": {"le"} for name in ("router_hook_seconds",) for part in ("bucket", "count", "sum")}
LABELS["up"] = {"job", "instance"}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((ROOT / "ops/alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "ops/grafana-dashboard.json").read_text(encoding="utf-8"))
    return loaded


def expressions() -> Iterator[tuple[str, str, str]]:
    """Where, the expression, and the text that shows its labels."""
    for alert in alerts():
        yield alert["alert"], alert["expr"], " ".join(alert["annotations"].values()).replace("$labels.", "")
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]


FUNCTIONS = {
    *("sum", "max", "min", "count", "by", "and", "rate", "increase", "histogram_quantile", "offset"),
    *("humanize", "humanizeDuration"),
}


@pytest.mark.parametrize(("where", "expression", "shown"), list(expressions()), ids=lambda value: str(value)[:40])
def test_an_expression_names_known_metrics_and_labels(where: str, expression: str, shown: str) -> None:
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\boffset \w+', "", expression)
    words = set(re.findall(r"[a-zA-Z_]\w+", bare)) - FUNCTIONS
    metrics = {word for word in words if word in LABELS}
    assert metrics, where
    labels = words - metrics
    assert labels <= set().union(*(LABELS[metric] for metric in metrics)), where
    assert bare.count("(") == bare.count(")")
    assert bare.count("{") == bare.count("}")
    if grouped := re.findall(r"by \(([^)]*)\)", expression):
        kept = {label.strip() for group in grouped for label in group.split(",")} - {"le"}
        assert {name for name in re.findall(r"{{ ?(\w+) ?}}", shown) if name != "value"} <= kept, where


def test_what_an_alert_counts_is_there_before_it_first_happens(tmp_path: Path) -> None:
    """As a web process tells it that was never asked: of a count that begins with 1 Prometheus sees no increase."""
    told = subprocess.run(
        [sys.executable, "-c", "from router.metrics import exposition; print(exposition().decode())"],
        cwd=ROOT,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    series = [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)))
        for name, labels in re.findall(r"^(router_\w+)(?:{([^}]*)})? 0\.0$", told, re.MULTILINE)
    ]
    for alert in alerts():
        for metric, wanted in re.findall(r"(router_\w+_total)(?:{([^}]*)})?\[", alert["expr"]):
            tests = re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', wanted)
            assert any(
                name == metric
                and all(
                    (re.fullmatch(value, labels[label]) is not None) == (sign != "!=") for label, sign, value in tests
                )
                for name, labels in series
            ), (alert["alert"], metric, wanted)


def test_every_metric_of_the_database_and_every_fault_is_watched() -> None:
    """What nobody looks at need not be measured."""
    watched = " ".join(expression for _, expression, _ in expressions())
    assert {name for name in LABELS if name not in watched} <= {"router_hook_seconds_count", "router_hook_seconds_sum"}


def test_each_alert_has_a_runbook_a_severity_and_a_sentence() -> None:
    headings = {
        re.sub(r"[^\w-]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE)
    }
    names = [alert["alert"] for alert in alerts()]
    assert len(set(names)) == len(names) > 10
    for alert in alerts():
        assert alert["labels"]["severity"] in {"page", "ticket"}
        assert alert["annotations"]["summary"]
        document, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (ROOT / document).is_file()
        assert anchor == alert["alert"].lower()
        assert anchor in headings


def test_runbooks_are_of_alerts_that_exist() -> None:
    runbooks = OPERATIONS.partition("## Runbooks")[2].partition("\n## ")[0]
    described = set(re.findall(r"^### (\w+)$", runbooks, re.MULTILINE))
    assert described == {alert["alert"] for alert in alerts()}


def test_panels_have_a_place_of_their_own_and_say_what_they_show() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith((".", "?"))
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y
