"""What Prometheus and Grafana are told to look at is what Skep shows."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import ProcessCollector
from prometheus_client.core import CollectorRegistry

from skep.cli.local.core import Ports

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
SHOWN_BY = (
    "manager/adapters/metrics.py",
    "worker/adapters/metrics.py",
    "netproxy/adapters/metrics.py",
    "skep/telemetry.py",
)
# What is made of a metric's name, by what makes the metric.
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
NAMES = re.compile(r"\b(?:skep|process)_[a-z0-9_]+\b")


def made_in(path: str) -> Iterator[str]:
    """The names of all series that this file makes."""
    for call in ast.walk(ast.parse((ROOT / path).read_text())):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not call.args:
            continue
        maker = call.func.id.removesuffix("MetricFamily").strip("_").lower()
        name = call.args[0]
        if maker in SUFFIXES and isinstance(name, ast.Constant) and isinstance(name.value, str):
            # Netproxy has short ways to make its own.
            is_short = not name.value.startswith("skep_")
            stem = f"skep_netproxy_{name.value}" if is_short else name.value
            yield from (stem + suffix for suffix in SUFFIXES[maker])


@pytest.fixture(scope="module")
def shown() -> set[str]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    of_any_process = {sample.name for metric in registry.collect() for sample in metric.samples}
    return of_any_process.union(*map(made_in, SHOWN_BY))


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana/skep.json").read_text())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus/skep.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_names_are_found(shown: set[str]) -> None:
    assert {
        "skep_raft_is_leader",
        "skep_raft_commit_seconds_bucket",
        "skep_worker_moves_total",
        "skep_netproxy_applied_version",
        "skep_netproxy_strays_total",
        "skep_netproxy_vip_round_trip_seconds_sum",
        "skep_loop_stall_seconds_total",
    } <= shown
    assert "skep_loop_stall_seconds" not in shown


def test_every_panel_asks_for_what_is_there(shown: set[str]) -> None:
    asked = NAMES.findall(json.dumps(dashboard()))
    assert len(set(asked)) > 30
    assert set(asked) <= shown


def test_every_alert_asks_for_what_is_there(shown: set[str]) -> None:
    for rule in rules():
        assert set(NAMES.findall(json.dumps(rule))) <= shown, rule["alert"]
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        places = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not places & taken, panel["title"]
        assert max(x for x, _ in places) < 24, panel["title"]
        taken |= places


def test_ports_are_those_of_a_local_cluster() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    ports = {
        job["job_name"]: {
            int(target.rpartition(":")[2])
            for config in job["static_configs"]
            for target in config["targets"]
        }
        for job in jobs
    }
    assert ports == {
        "skep-manager": {Ports().manager_metrics},
        "skep-agent": {Ports().agent_metrics},
        "skep-netproxy": {Ports().netproxy_metrics},
    }
