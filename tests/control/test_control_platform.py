"""The whole platform: a real Ray, real Serve processes, real HTTP, a real lake."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
import yaml
from platform_kit import Platform, await_live, exploring, free_port, gateway_pids, problem, until
from support.bundles import policy_bundle

from rlaas.bundles import load_bundle
from rlaas.client import Client
from rlaas.control import build_application, start_platform, stop_platform
from rlaas.control.resolutions import ResolutionStore
from rlaas.control.state import StateDatabase
from rlaas.decisions import resolve
from rlaas.errors import ConfigurationError, ConflictError, ForgedDecisionError, InvalidInputError, NotFoundError
from rlaas.fronts import Candidate, Front
from rlaas.lake import Lake, update_transitions, verify
from rlaas.pipeline import write_front
from rlaas.registry import Registry
from rlaas.scenarios import load
from rlaas.serving import ServingConfig, load_serving_config
from rlaas.settings import load_settings

pytestmark = pytest.mark.ray

FAST = {
    "gateway": {"num_replicas": 2, "num_cpus": 0.1, "seal_s": 0.1},
    "committer": {"interval_s": 0.2},
    "control": {"poll_s": 0.2, "resolutions_s": 0.5},
}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    # Short: Ray's socket paths have to fit 107 characters.
    root = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for seed in (1, 2, 3):
        registry.register("toy", policy_bundle(root / f"toy{seed}", seed=seed), alias="candidate")
    registry.set_alias("toy", "champion", 1)
    registry.register("box", policy_bundle(root / "box", kind="box", actions=2), alias="candidate")
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=str(root / "ray"), log_to_driver=False)
    try:
        url = start_platform(ServingConfig.model_validate(FAST), settings, port=free_port())
        with Client(url) as client:
            platform = Platform(url, settings, client, Lake(settings.lake_root))
            until(lambda: httpx.get(f"{url}/ready").status_code == 200)
            yield platform
        stop_platform()
    finally:
        ray.shutdown()
        shutil.rmtree(root, ignore_errors=True)


def test_champions_of_the_registry_are_served_from_the_start(platform: Platform) -> None:
    assert platform.client.health() == {"status": "alive"}
    assert "toy" in platform.client.ready()["policies"]
    bundle = load_bundle(Registry(platform.settings).path("toy", 1))
    observations = [[0.1, -0.2, 0.3], [1.0, 2.0, -3.0]]
    answer = platform.client.decide("toy", observations=observations, mode="emergency")
    expected, _ = bundle.act(bundle.check_observations(observations), bundle.preference({"latency": 1.0}))
    assert [d["action"] for d in answer["decisions"]] == expected.tolist()
    assert {(d["version"], d["variant"], d["variant_propensity"]) for d in answer["decisions"]} == {
        (1, "champion", 1.0)
    }


def test_v2_gives_the_raw_outputs(platform: Platform) -> None:
    assert httpx.get(f"{platform.url}/v2/health/ready").json() == {"ready": True}
    metadata = httpx.get(f"{platform.url}/v2/models/toy").json()
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["observation", "preference"]
    tensor = {"name": "observation", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}
    answer = platform.client.infer("toy", {"id": "a", "inputs": [tensor]}, version=1)
    bundle = load_bundle(Registry(platform.settings).path("toy", 1))
    expected = bundle.forward(
        bundle.check_observations([[0.1, 0.2, 0.3]]), bundle.preference({"latency": 1, "throughput": 1})
    )
    logits = next(output for output in answer["outputs"] if output["name"] == "logits")
    assert logits["shape"] == [1, 4]
    assert logits["data"] == pytest.approx(expected["logits"].ravel().tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/api/v1/policies/nobody/decide", {"observation": [1, 2, 3]}, 404, "policy"),
        ("POST", "/api/v1/policies/..%2f..%2fetc/decide", {"observation": [1, 2, 3]}, 422, "policy"),
        ("POST", "/api/v1/policies/toy/decide", {"observation": [1, 2]}, 422, "observation"),
        ("POST", "/api/v1/policies/toy/decide", {"observation": [1, 2, 1e39]}, 422, "observation[0].x2"),
        ("POST", "/api/v1/policies/toy/decide", {"observation": [1, 2, 3], "mode": "panic"}, 422, "mode"),
        (
            "POST",
            "/api/v1/policies/toy/decide",
            {"observation": [1, 2, 3], "preference": {"latency": -1}},
            422,
            "preference.latency",
        ),
        (
            "POST",
            "/api/v1/policies/toy/decide",
            {"observation": [1, 2, 3], "preference": {"latency": 0}},
            422,
            "preference",
        ),
        ("POST", "/api/v1/policies/toy/decide", b'{"observation": [1, NaN, 3]}', 400, "observation[1]"),
        ("POST", "/api/v1/policies/toy/decide", b"not json", 400, "body"),
        (
            "POST",
            "/api/v1/outcomes",
            {"outcome_id": "o", "decision_id": "f" * 40, "outcome": {"latency": 1}},
            422,
            "decision_id",
        ),
        ("POST", "/v2/models/toy/infer", {"inputs": []}, 422, "inputs"),
        ("POST", "/v2/models/toy/versions/99/infer", {"inputs": []}, 404, "version"),
        ("GET", "/api/v1/policies/toy/decide", None, 405, "method"),
        ("GET", "/nowhere", None, 404, "path"),
        ("GET", "/api/v1/models/nobody/versions", None, 404, "model"),
        ("GET", "/api/v1/models/..%2f..%2fetc/versions", None, 422, "model"),
        ("POST", "/api/v1/models/toy/promote", {"version": 99}, 404, "version"),
        ("POST", "/api/v1/models/toy/promote", {"version": "1"}, 422, "version"),
        ("DELETE", "/api/v1/models/toy/versions/x", None, 422, "version"),
        ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": []}, 422, "variants"),
        ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": [], "colour": 1}, 422, "colour"),
        ("GET", "/api/v1/deployments/dep-none/status", None, 404, "deployment"),
        ("POST", "/api/v1/models/register", {"name": "x", "path": "../../etc"}, 422, "path"),
        ("PATCH", "/api/v1/models", None, 405, "method"),
        ("GET", "/api/v1/lake/nowhere", None, 404, "path"),
    ],
)
def test_bad_input_is_4xx_and_names_the_field(
    platform: Platform, method: str, path: str, body: Any, status: int, field: str
) -> None:
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    # A raw request: httpx would tidy the path.
    response = httpx.request(method, platform.url + path, content=content)
    assert problem(response, status)["field"] == field


def test_a_body_beyond_the_limit_is_413(platform: Platform) -> None:
    body = b'{"observation": [' + b"1," * (5 * 1024 * 1024) + b"1]}"
    assert problem(httpx.post(f"{platform.url}/api/v1/policies/toy/decide", content=body), 413)["field"] == "body"


def test_every_acknowledged_decision_is_in_bronze_once_although_a_gateway_is_killed(platform: Platform) -> None:
    gateways = gateway_pids(platform.settings.home.parent)
    assert len(gateways) == 2
    killed = False
    acknowledged: list[str] = []
    reported: list[str] = []
    receipts: list[str] = []
    for step in range(300):
        if step == 100:
            os.kill(gateways[0], signal.SIGKILL)
            killed = True
        try:
            answer = httpx.post(
                f"{platform.url}/api/v1/policies/toy/decide",
                json={"observation": [0.0, 1.0, 2.0], "session": "s", "step": step},
                timeout=30,
            )
        except httpx.TransportError:
            continue  # it may have been logged, but nobody was told: no promise was made
        if answer.status_code != 200:
            assert answer.status_code >= 500
            continue
        acknowledged.append(answer.json()["decision_id"])
        if step % 10 == 0:
            reported.append(acknowledged[-1])
            outcome = {"outcome_id": f"o{step}", "decision_id": acknowledged[-1], "outcome": {"latency": step}}
            receipts += [a["receipt_id"] for a in platform.client.outcomes(outcome)["accepted"]]
    assert killed
    assert len(acknowledged) > 150
    assert len(set(acknowledged)) == len(acknowledged)
    # The flock of the killed process is free, so its open segment is adopted.
    platform.client.flush_lake()
    found = until(
        lambda: (seen := verify(platform.lake, decisions=acknowledged, outcomes=receipts)).exactly_once and seen
    )
    assert found.decisions.acknowledged == found.decisions.in_bronze == len(acknowledged)
    assert found.outcomes.acknowledged == found.outcomes.in_bronze == len(set(receipts))
    update_transitions(platform.lake)
    silver = platform.lake.read("silver.transitions").column("decision_id").to_pylist()
    assert len(set(silver)) == len(silver)
    assert set(reported) <= set(silver)
    # The pool heals.
    until(lambda: len(platform.client.deployment_status("toy")["replicas"]) >= 2)


def test_a_promotion_reaches_every_replica_and_is_mirrored(platform: Platform) -> None:
    before = platform.client.deployment_status("toy")
    answer = platform.client.promote("toy", 2)
    assert answer["deployment"]["generation"] == before["generation"] + 1
    status = await_live(platform.client, answer["deployment"]["id"])
    assert status["generation"] == answer["deployment"]["generation"]
    versions = {platform.client.decide("toy", observation=[0, 0, 0])["version"] for _ in range(20)}
    assert versions == {2}
    assert Registry(platform.settings).get("toy", "champion").version == 2


def test_a_split_serves_both_versions_and_is_sticky(platform: Platform) -> None:
    variants = [
        {"name": "champion", "version": 2, "weight": 1},
        {"name": "challenger", "version": 3, "weight": 1, "explore": True},
    ]
    experiment = {"name": "ab", "design": "user", "salt": "one"}
    created = platform.client.create_deployment("toy", variants, experiment, idempotency_key="k1")
    again = platform.client.create_deployment("toy", variants, experiment, idempotency_key="k1")
    assert again == created
    with pytest.raises(ConflictError, match="Idempotency-Key"):
        platform.client.create_deployment("toy", variants[:1], idempotency_key="k1")
    await_live(platform.client, created["id"])
    units = [f"user-{i}" for i in range(60)]
    rows = [[0.0, 0.0, 0.0]] * len(units)
    first = exploring(lambda: platform.client.decide("toy", observations=rows, unit=units))["decisions"]
    second = platform.client.decide("toy", observations=rows, unit=units)["decisions"]
    assert [d["variant"] for d in first] == [d["variant"] for d in second]
    assert {d["variant"] for d in first} == {"champion", "challenger"}
    assert {d["variant_propensity"] for d in first} == {0.5}
    assert all((d["action_propensity"] is not None) == (d["variant"] == "challenger") for d in first)
    with pytest.raises(ConflictError, match="live in deployment"):
        platform.client.delete_version("toy", 3)


def test_if_match_guards_against_a_lost_update(platform: Platform) -> None:
    variants = [{"name": "champion", "version": 2, "weight": 1}]
    with pytest.raises(ConflictError, match="If-Match"):
        platform.client.create_deployment("toy", variants, if_match='"stale"')
    deployment = platform.client.deployment_status("toy")["id"]
    etag = httpx.get(f"{platform.url}/api/v1/deployments/{deployment}/status").headers["etag"]
    assert platform.client.create_deployment("toy", variants, if_match=etag)["id"] == deployment


def test_a_second_policy_lives_and_dies(platform: Platform) -> None:
    created = platform.client.create_deployment("box", [{"name": "only", "version": 1, "weight": 2, "explore": True}])
    await_live(platform.client, created["id"])
    answer = exploring(lambda: platform.client.decide("box", observation=[0.5, 0.5, 0.5], preference={"latency": 1}))
    assert len(answer["action"]) == 2
    assert all(0 <= value <= 1 for value in answer["action"])
    assert math.isfinite(answer["action_propensity"])
    with pytest.raises(InvalidInputError, match="unknown outcome field 'colour'; allowed: latency, orders, throughput"):
        platform.client.outcomes({"outcome_id": "c", "decision_id": answer["decision_id"], "outcome": {"colour": 1.0}})
    with pytest.raises(ForgedDecisionError):
        platform.client.outcomes(
            {"outcome_id": "c", "decision_id": answer["decision_id"][:-1] + "z", "outcome": {"latency": 1.0}}
        )
    platform.client.delete_deployment(created["id"])
    with pytest.raises(NotFoundError):
        platform.client.deployment_status("box")
    until(lambda: "box" not in platform.client.ready()["policies"])


def test_lists_are_paged(platform: Platform) -> None:
    first = platform.client.versions("toy", page_size=2)
    assert [v["version"] for v in first["items"]] == [3, 2]
    rest = platform.client.versions("toy", page_size=2, page_token=first["next_page_token"])
    assert [v["version"] for v in rest["items"]] == [1]
    assert rest["next_page_token"] is None
    with pytest.raises(InvalidInputError, match="page_token"):
        platform.client.versions("toy", page_token="bm9wZQ==")


def test_the_pool_can_be_scaled(platform: Platform) -> None:
    deployment = platform.client.deployment_status("toy")["id"]
    platform.client.scale_deployment(deployment, 1)
    until(lambda: ray.serve.status().applications["rlaas"].deployments["Gateway"].replica_states == {"RUNNING": 1})
    assert platform.client.decide("toy", observation=[0, 0, 0])["policy"] == "toy"


def test_a_local_home_on_several_nodes_is_refused(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": True}, {"Alive": False}])
    with pytest.raises(ConfigurationError, match="2 nodes"):
        build_application(ServingConfig(), platform.settings)
    shared = load_settings(home=platform.settings.home, home_is_shared=True)
    assert build_application(ServingConfig(), shared) is not None


def test_the_shipped_configuration_builds_the_application(platform: Platform, repository: Path) -> None:
    from ray_apps.platform import PlatformArgs, build_app

    path = repository / "configs" / "serving" / "local.yaml"
    assert load_serving_config(path) == ServingConfig.model_validate(yaml.safe_load(path.read_text()))
    assert build_app(PlatformArgs(config=str(path), home=str(platform.settings.home))) is not None


def test_serve_itself_refuses_unknown_arguments() -> None:
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    from ray_apps.platform import build_app

    with pytest.raises(ValueError, match="colour"):
        call_user_app_builder_with_args_if_necessary(build_app, {"colour": "red"})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        call_user_app_builder_with_args_if_necessary(build_app, {"config": "none.yaml"})


def test_fronts_are_resolved_and_what_became_of_the_choices_is_kept(platform: Platform) -> None:
    scenario = load("recsys")
    goodness = np.random.default_rng(0).dirichlet(np.ones(len(scenario.objectives)), size=40)
    values = [
        [
            o.low + (g if o.direction == "maximize" else 1 - g) * (o.high - o.low)
            for o, g in zip(scenario.objectives, row, strict=True)
        ]
        for row in goodness
    ]
    members = [
        Candidate(name=f"static-{i}", kind="configuration", mean=tuple(row), half_width=(0.0,) * len(row))
        for i, row in enumerate(values)
    ]
    weak = Front.of("recsys", scenario.objectives, members[:10])
    write_front(weak, platform.settings, "static")
    assert [found["scenario"] for found in platform.client.fronts()["items"]] == ["recsys"]
    assert platform.client.front("recsys")["version"] == weak.version
    chosen = platform.client.resolve("recsys", mode="revenue", deadline_s=20.0)
    assert chosen["step"] == "live"
    assert chosen["candidate"] == resolve(weak, mode=scenario.modes["revenue"]).candidate.name
    assert platform.client.elicit("recsys", [])["question"] is not None
    problem(httpx.post(f"{platform.url}/api/v1/resolve", json={"scenario": "recsys", "mode": "nothing"}), 422)
    problem(httpx.get(f"{platform.url}/api/v1/fronts/absent"), 404)
    # A richer front comes: Control's recorder finds out by itself what the choice was worth.
    time.sleep(1.1)  # fronts are dated by their files
    rich = Front.of("recsys", scenario.objectives, members)
    write_front(rich, platform.settings, "static")
    store = ResolutionStore(StateDatabase(platform.settings.state_database), platform.settings.tenant)
    until_us = 2 * time.time_ns() // 1000
    settled = until(lambda: (found := store.effectiveness("recsys", since_us=0, until_us=until_us)).settled and found)
    assert settled.by_step == {"live": 1}
    assert settled.by_mode == {"revenue": 1}
    revenue = scenario.modes["revenue"]
    weights = revenue.preference.to_dict()
    kept = {
        member.name: sum(
            weights[o.name] * goodness[int(member.name.removeprefix("static-"))][i]
            for i, o in enumerate(scenario.objectives)
        )
        for member in members
        if all(rule.violation(member.objectives(rich.names)[rule.objective]) <= 0 for rule in revenue.rules)
    }
    expected = max(kept.values()) - kept[chosen["candidate"]]
    assert expected > 0, "the richer front has to hold something better"
    assert settled.mean_regret == pytest.approx(expected)
