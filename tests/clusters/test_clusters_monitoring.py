"""What Prometheus scrapes is what pods offer, and what the dashboards ask for is what is exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from support.manifests import OVERLAYS, Document, of_kind, pod_templates, render

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
