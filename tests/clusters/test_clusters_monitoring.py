"""What Prometheus scrapes is what pods offer, and what the dashboards ask for is what is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.manifests import OVERLAYS, Document, of_kind, pod_templates, render

from rlaas.control.drift import DRIFT_GAUGES, DRIFT_LABELS
from rlaas.control.effect_gauges import EFFECT_GAUGE, EFFECT_LABELS
from rlaas.control.resolution_gauges import RESOLUTION_GAUGES, RESOLUTION_LABELS
from rlaas.serving.exposition import series_of
from rlaas.serving.tally import LATENCY_EDGES_US, VersionTally
from rlaas.training.telemetry import GAUGES, RUN_LABELS

SELECTOR = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")


@pytest.fixture(scope="module")
def documents(repository: Path) -> list[Document]:
    return render(repository / "clusters" / "monitoring")


@pytest.fixture(scope="module")
def dashboards(documents: list[Document]) -> dict[str, dict[str, Any]]:
    (config_map,) = of_kind(documents, "ConfigMap")
    kubernetes_validate.validate(config_map, "1.31", strict=True)
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    return {name.removesuffix(".json"): json.loads(content) for name, content in config_map["data"].items()}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_node_is_scraped_and_lets_prometheus_in(
    overlay: str, documents: list[Document], repository: Path
) -> None:
    (monitor,) = of_kind(documents, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    platform = render(repository / "clusters" / "overlays" / overlay)
    (namespace,) = of_kind(platform, "Namespace")
    assert namespace["metadata"]["name"] in monitor["spec"]["namespaceSelector"]["matchNames"]
    open_ports = [
        port["port"]
        for policy in of_kind(platform, "NetworkPolicy")
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if peer.get("namespaceSelector", {}).get("matchLabels") == {"rlaas.io/monitoring": "true"}
        for port in rule["ports"]
    ]
    for name, template in pod_templates(platform):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name
        (container,) = template["spec"]["containers"]
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == endpoint["port"])
        assert port in open_ports, name


def test_the_training_dashboard_asks_for_gauges_that_exist_by_labels_they_have(
    dashboards: dict[str, dict[str, Any]],
) -> None:
    asked = set()
    for panel in dashboards["rlaas-training"]["panels"]:
        for target in panel["targets"]:
            found = SELECTOR.findall(target["expr"])
            assert found, target["expr"]
            own = set()
            for metric, labels in found:
                gauge = GAUGES[metric.removeprefix("ray_")]
                asked.add(gauge.name)
                own |= {gauge.label} - {None}
                assert set(re.findall(r"(\w+)=~", labels)) == {"scenario", "run"} <= set(RUN_LABELS)
            # A gauge with a label of its own is several lines, which the legend has to tell apart.
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"run"} == own, target
    assert asked == set(GAUGES), "every gauge is on a panel"


def test_the_decision_dashboard_asks_for_gauges_that_exist_by_labels_they_have(
    dashboards: dict[str, dict[str, Any]],
) -> None:
    dashboard = dashboards["rlaas-decisions"]
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            found = SELECTOR.findall(target["expr"])
            assert found, target["expr"]
            for metric, labels in found:
                gauge = RESOLUTION_GAUGES[metric.removeprefix("ray_")]
                asked.add(gauge.name)
                own = {gauge.label} - {None}
                assert set(re.findall(r"(\w+)=~", labels)) == set(RESOLUTION_LABELS)
                assert set(re.findall(r"(\w+)=\"", labels)) <= own
                # Every Control exports the same figures: the maximum is one of them, a sum would count them twice.
                (kept,) = set(re.findall(rf"max by \(([^)]*)\) \({metric}{{", target["expr"]))
                assert set(kept.split(", ")) == {"scenario"} | own
                if not target["expr"].startswith("sum("):
                    assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == {"scenario"} | own
    assert asked == set(RESOLUTION_GAUGES), "every gauge is on a panel"
    variables = [entry["query"] for entry in dashboard["templating"]["list"] if entry["type"] == "query"]
    assert {metric.removeprefix("ray_") for query in variables for metric, _ in SELECTOR.findall(query)} <= asked


def test_the_serving_dashboard_asks_for_counters_that_the_gateways_export(
    dashboards: dict[str, dict[str, Any]],
) -> None:
    tally = VersionTally("toy", 1, 1, 0, (1,) * (len(LATENCY_EDGES_US) + 1), 0, 0.0, 0.0, compared=1)
    # Ray ends the names of counters in _total where they do not end so already.
    exported = {f"ray_{name.removesuffix('_total')}_total": dict(labels) for name, labels, _ in series_of([tally])}
    asked = set()
    for panel in dashboards["rlaas-serving"]["panels"]:
        for target in panel["targets"]:
            found = SELECTOR.findall(target["expr"])
            assert found, target["expr"]
            for metric, labels in found:
                asked.add(metric)
                assert set(re.findall(r"(\w+)=~", labels)) == {"policy"} <= set(exported[metric])
                # Every replica exports its own counter, which begins anew with it: rates first, then their sum.
                (kept,) = set(re.findall(rf"sum by \(([^)]*)\) \(rate\({metric}{{", target["expr"]))
                assert set(kept.split(", ")) <= set(exported[metric])
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == set(kept.split(", ")) - {"le"}
            assert ("histogram_quantile" in target["expr"]) == ("_bucket_total" in target["expr"])
    assert asked == set(exported), "every counter is on a panel"


def test_dashboards_have_names_of_their_own(dashboards: dict[str, dict[str, Any]]) -> None:
    assert {name: dashboard["uid"] for name, dashboard in dashboards.items()} == {
        "rlaas-decisions": "rlaas-decisions",
        "rlaas-serving": "rlaas-serving",
        "rlaas-training": "rlaas-training",
    }
    assert len({dashboard["title"] for dashboard in dashboards.values()}) == len(dashboards)


@pytest.mark.parametrize("name", ["rlaas-decisions", "rlaas-serving", "rlaas-training"])
def test_panels_neither_overlap_nor_stick_out(name: str, dashboards: dict[str, dict[str, Any]]) -> None:
    dashboard = dashboards[name]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def _rules(repository: Path) -> Document:
    (rule,) = yaml.safe_load_all((repository / "clusters" / "monitoring" / "alerts.yaml").read_text())
    spec: Document = rule["spec"]
    return spec


def _exported() -> dict[str, set[str]]:
    """Labels of everything that is exported, by name."""
    tally = VersionTally("toy", 1, 1, 0, (1,) * (len(LATENCY_EDGES_US) + 1), 0, 0.0, 0.0, compared=1)
    found = {f"ray_{name.removesuffix('_total')}_total": set(dict(labels)) for name, labels, _ in series_of([tally])}
    found |= {f"ray_{gauge.name}": {*RUN_LABELS, gauge.label} - {None} for gauge in GAUGES.values()}
    found |= {f"ray_{name}": set(DRIFT_LABELS) for name in DRIFT_GAUGES}
    found[f"ray_{EFFECT_GAUGE}"] = set(EFFECT_LABELS)
    found |= {"ray_rlaas_committer_failing": set(), "ray_rlaas_committer_success_age_seconds": set()}
    return {**found, "ray_rlaas_wal_oldest_seconds": {"stream"}}


def test_alerts_ask_for_what_is_exported_by_labels_it_has(repository: Path) -> None:
    exported = _exported()
    names = []
    for group in _rules(repository)["groups"]:
        for rule in group["rules"]:
            names.append(rule["alert"])
            metrics = set(re.findall(r"\bray_\w+", rule["expr"]))
            assert metrics, rule["alert"]
            assert metrics <= exported.keys(), rule["alert"]
            kept = {label for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in by.split(", ")}
            assert kept <= set().union(*(exported[metric] for metric in metrics)), rule["alert"]
            said = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
            assert said <= kept, rule["alert"]
            assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert len(set(names)) == len(names)
    assert {"RlaasSlowDecisions", "RlaasFailingDecisions", "RlaasPipelineDelayed", "RlaasTrainingFailed"} <= set(names)
    assert {"RlaasExperimentSignificant", "RlaasDrift", "RlaasCommitterBehind"} <= set(names)


_LATENCY = "ray_rlaas_decision_latency_microseconds_bucket_total"


def _latency(under_50_ms: int) -> dict[str, str]:
    """Of a hundred decisions so many take under 50 ms, the others under 200 ms."""
    counts = (("50000", under_50_ms), ("200000", 100), ("+Inf", 100))
    return {f'{_LATENCY}{{policy="toy",version="1",le="{le}"}}': f"0+{count}x40" for le, count in counts}


def _training(steps: int) -> dict[str, str]:
    """A training of 9 steps that has ended after so many."""
    values = (("running", 0), ("steps", steps), ("steps_wanted", 9))
    return {f'ray_rlaas_training_{name}{{scenario="toy",run="r1"}}': f"{value}x40" for name, value in values}


@pytest.mark.parametrize(
    ("alert", "labels", "firing", "quiet"),
    [
        (
            "RlaasSlowDecisions",
            {"policy": "toy", "version": "1", "severity": "warning"},
            _latency(90),
            _latency(99),
        ),
        (
            "RlaasFailingDecisions",
            {"policy": "toy", "version": "1", "severity": "critical"},
            {
                'ray_rlaas_decisions_total{policy="toy",version="1"}': "0+90x40",
                'ray_rlaas_decision_errors_total{policy="toy",version="1"}': "0+10x40",
            },
            {
                'ray_rlaas_decisions_total{policy="toy",version="1"}': "0+98x40",
                'ray_rlaas_decision_errors_total{policy="toy",version="1"}': "0+2x40",
            },
        ),
        (
            "RlaasPipelineDelayed",
            {"stream": "decisions", "severity": "warning"},
            {'ray_rlaas_wal_oldest_seconds{stream="decisions"}': "90x40"},
            {'ray_rlaas_wal_oldest_seconds{stream="decisions"}': "9x40"},
        ),
        (
            "RlaasCommitterBehind",
            {"severity": "critical"},
            {"ray_rlaas_committer_failing": "1x40", "ray_rlaas_committer_success_age_seconds": "1x40"},
            {"ray_rlaas_committer_failing": "0x40", "ray_rlaas_committer_success_age_seconds": "1x40"},
        ),
        (
            "RlaasTrainingFailed",
            {"scenario": "toy", "run": "r1", "severity": "warning"},
            _training(5),
            _training(9),
        ),
        (
            "RlaasExperimentSignificant",
            {"tenant": "default", "policy": "toy", "experiment": "autumn", "severity": "info"},
            {f'ray_{EFFECT_GAUGE}{{tenant="default",policy="toy",experiment="autumn"}}': "1x40"},
            {f'ray_{EFFECT_GAUGE}{{tenant="default",policy="toy",experiment="autumn"}}': "0x40"},
        ),
        (
            "RlaasDrift",
            {"tenant": "default", "policy": "toy", "severity": "warning"},
            {'ray_rlaas_drift_active{tenant="default",policy="toy"}': "1x40"},
            {'ray_rlaas_drift_active{tenant="default",policy="toy"}': "0x40"},
        ),
    ],
)
def test_an_alert_fires_where_it_must_and_only_there(
    alert: str, labels: dict[str, str], firing: dict[str, str], quiet: dict[str, str], repository: Path, tmp_path: Path
) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): nothing evaluates the rules")
    rules = _rules(repository)
    for group in rules["groups"]:
        for one in group["rules"]:
            # What it says of the value is for people; which labels it has is for machines.
            one["annotations"] = dict.fromkeys(one["annotations"], "x")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    said = {"summary": "x", "description": "x"}
    tests = [
        {
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"alertname": alert, "eval_time": "9m", "exp_alerts": expected}],
        }
        for series, expected in ((firing, [{"exp_labels": labels, "exp_annotations": said}]), (quiet, []))
    ]
    (tmp_path / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests})
    )
    found = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "tests.yaml")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_rules_are_sound(repository: Path, tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: prometheus): nothing parses the rules")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(_rules(repository)))
    found = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "9 rules found" in found.stdout
