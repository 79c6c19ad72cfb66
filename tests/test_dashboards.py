"""The dashboard and the alert rules in docs/ name metrics and labels that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.test_board import raspberry_pi
from tests.test_telemetry import engine, text_of

ALERTS = Path("docs/prometheus/alerts.yml")
DASHBOARD = Path("docs/grafana/edge-seg.json")
MONITORING = Path("docs/monitoring.md")

NAMES = re.compile(r"\b(?:edge_seg|process)_[a-z_]+\b")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Every name that a query may use, and every label."""
    sysfs = tmp_path_factory.mktemp("sysfs")
    raspberry_pi(sysfs)
    one = engine()
    one.times.record("flow", 1)
    names, labels = set(), set()
    for family in text_string_to_metric_families(text_of(one, sysfs)):
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "info": ("_info",)}
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
        for sample in family.samples:
            names.add(sample.name)
            labels |= set(sample.labels)
    return names, labels | {"instance", "job"}


def expressions_of(value: Any) -> Iterator[str]:
    """All `expr` in a dashboard, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        for inner in value.values():
            yield from expressions_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions_of(inner)


def test_the_dashboard_asks_for_metrics_that_there_are(exposed: tuple[set[str], set[str]]) -> None:
    names, labels = exposed
    text = DASHBOARD.read_text()
    expressions = list(expressions_of(json.loads(text)))
    assert len(expressions) > 20
    used = {name for expression in expressions for name in NAMES.findall(expression)}
    assert used
    assert used <= names, used - names
    assert set(re.findall(r"\{\{(\w+)\}\}", text)) <= labels


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_alerts_ask_for_metrics_that_there_are(exposed: tuple[set[str], set[str]]) -> None:
    names, labels = exposed
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        used = set(NAMES.findall(rule["expr"]))
        assert used <= names, (rule["alert"], used - names)
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))) <= labels


def test_the_page_on_monitoring_lists_every_metric(exposed: tuple[set[str], set[str]]) -> None:
    names, _ = exposed
    listed = set(re.findall(r"`(edge_seg_[a-z_]+)", MONITORING.read_text()))
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if name.startswith("edge_seg_")}
    assert {name for name in ours if not name.endswith("_created")} <= listed, ours - listed
    assert listed <= ours, listed - ours


def test_no_page_of_the_docs_names_a_metric_that_there_is_not(exposed: tuple[set[str], set[str]]) -> None:
    names, _ = exposed
    known = names | {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
    for file in (Path("README.md"), *Path("docs").glob("*.md")):
        named = set(re.findall(r"`(edge_seg_[a-z_]+)`", file.read_text()))
        assert named <= known, (file, named - known)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian's package prometheus)")
def test_prometheus_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
