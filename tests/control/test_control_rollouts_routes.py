"""Rollouts over the routes of the control plane, with a real registry and bundles."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.control_kit import Routes, control_over, home_with

from rlaas.control.deployment import Control
from rlaas.control.rollouts import RolloutController
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError
from rlaas.serving.config import ServingConfig
from rlaas.serving.tally import Tally
from rlaas.serving.web import ControlRequest
from rlaas.settings import Settings

CANARY = {"kind": "canary", "steps": [0.1], "step_s": 1, "min_decisions": 1, "analysis": {"metrics": ["errors"]}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return home_with(tmp_path_factory.mktemp("rollouts"), {"toy": [{"seed": 1}, {"seed": 2}, {"features": 5}]})


@pytest.fixture
def service(home: Settings, tmp_path: Path) -> ControlService:
    return control_over(home, tmp_path)


@pytest.fixture
def api(service: ControlService) -> Routes:
    return Routes(service)


def _create(version: int = 2, **more: Any) -> dict[str, Any]:
    return {"policy": "toy", "variants": [{"name": "champion", "version": version, "weight": 1}], **more}


def test_a_canary_from_creation_to_promotion_by_hand(api: Routes, service: ControlService) -> None:
    status, created = api("POST", "deployments/create", _create(strategy=CANARY, min_replicas=2, max_replicas=8))
    assert status == 200
    assert created["weights"] == pytest.approx({"champion": 0.9, "canary": 0.1})
    status, found = api("GET", "deployments/toy/status")
    assert (found["rollout"]["state"], found["rollout"]["to_version"]) == ("running", 2)
    assert found["autoscaling"] == {"min_replicas": 2, "max_replicas": 8}
    for method, path, body in (
        ("POST", "models/toy/promote", {"version": 2}),
        ("POST", "deployments/create", _create(1)),
        ("POST", "deployments/create", _create(strategy=CANARY)),
        ("DELETE", "deployments/toy", None),
        ("DELETE", "models/toy/versions/2", None),
    ):
        status, problem = api(method, path, body)
        assert (status, problem["field"]) == (409, "policy"), path
        assert "rollout 1 of 'toy' (canary, to version 2) is running" in problem["detail"]
    status, paused = api("POST", "deployments/toy/rollouts/1/pause", {"reason": "a look", "actor": "ada"})
    assert (status, paused["state"], paused["events"][0]["actor"]) == (200, "paused", "ada")
    status, done = api("POST", f"deployments/{created['id']}/rollouts/1/promote", {"reason": "looks good"})
    assert (status, done["state"]) == (200, "succeeded")
    _, history = api("GET", "deployments/toy/rollouts")
    assert [event["kind"] for event in history["items"][0]["events"]] == ["started", "paused", "succeeded"]
    record = service.deployments()[0]
    assert [(v.name, v.version) for v in record.variants] == [("champion", 2)]
    assert (record.fallback, record.generation) == (1, 3)
    assert ("toy", 1) in service.live("g1").paths  # the fallback has to be loaded too


def test_what_the_gateways_count_rolls_a_version_back(api: Routes, service: ControlService) -> None:
    api("POST", "deployments/create", _create(strategy=CANARY))
    controller = RolloutController(
        service.database, "default", reports=service.rollouts.reports, mirror=service.mirror_champion
    )
    tally, deployment = Tally(), service.deployments()[0].id
    for second in range(20):
        for _ in range(50):
            tally.decided("toy", 1, 1, 200_000)
        for _ in range(5 if second else 0):
            tally.failed("toy", 2)
        service.live("g1", {deployment: 2}, {}, tally.snapshot(), "p1")
        controller.tick()
    assert service.deployments()[0].weights() == {"champion": 1.0}
    assert service.deployments()[0].variants[0].version == 1
    _, history = api("GET", "deployments/toy/rollouts")
    assert history["items"][0]["state"] == "rolled_back"
    assert history["items"][0]["events"][-1]["evidence"]["errors"]["says"] == "harm"
    assert service.create_deployment("toy", _create()["variants"])[0].variants[0].version == 2


def test_blue_green_over_the_routes(api: Routes, service: ControlService) -> None:
    assert api("POST", "deployments/create", _create(strategy={"kind": "blue_green", "auto_switch": False}))[0] == 200
    status, problem = api("POST", "deployments/toy/switch", {"reason": "now"})
    assert (status, problem["field"]) == (409, "rollout")
    record = service.deployments()[0]
    service.live("g1", {record.id: record.generation}, {}, (), "p1")
    assert api("POST", "deployments/toy/switch", {"reason": "now"})[0] == 200
    assert service.deployments()[0].weights() == {"champion": 0.0, "blue_green": 1.0}
    assert api("POST", "deployments/toy/switch-back", {"reason": "no"})[0] == 200
    assert service.deployments()[0].weights() == {"champion": 1.0, "blue_green": 0.0}
    assert api("POST", "deployments/toy/rollouts/1/rollback", {"reason": "no"})[0] == 200
    assert api("POST", "deployments/toy/switch", {"reason": "now"})[0] == 404


def test_promotions_remember_what_served_before(service: ControlService) -> None:
    assert service.promote("toy", 2)[1].fallback == 1
    again = service.promote("toy", 2)[1]
    assert again is not None
    assert (again.fallback, again.generation) == (1, 2)
    wide = service.promote("toy", 3)[1]
    assert wide is not None
    assert wide.fallback is None  # another shape of observations
    service.promote("toy", 1)
    chosen, _ = service.create_deployment("toy", _create(1)["variants"], fallback=2)
    assert chosen.fallback == 2
    with pytest.raises(ConflictError):
        service.create_deployment("toy", _create()["variants"], strategy={"kind": "canary"}, if_match='"x.1"')


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "deployments/create", _create(strategy="canary"), 422, "strategy"),
        ("POST", "deployments/create", _create(strategy={"kind": "x"}), 422, "strategy.kind"),
        ("POST", "deployments/create", _create(1, strategy=CANARY), 409, "variants"),
        ("POST", "deployments/create", _create(3, strategy=CANARY), 422, "variants"),
        ("POST", "deployments/create", _create(9, strategy=CANARY), 404, "version"),
        ("POST", "deployments/create", _create(strategy=CANARY, experiment={"name": "x"}), 422, "experiment"),
        ("POST", "deployments/create", _create(strategy=CANARY, fallback=1), 422, "fallback"),
        ("POST", "deployments/create", _create(fallback=0), 422, "fallback"),
        ("POST", "deployments/create", _create(fallback=3), 422, "variants"),
        ("POST", "deployments/create", _create(min_replicas=2), 422, "max_replicas"),
        ("POST", "deployments/create", _create(min_replicas=3, max_replicas=2), 422, "max_replicas"),
        ("POST", "deployments/create", _create(max_replicas=0), 422, "max_replicas"),
        ("POST", "deployments/toy/rollouts/1/promote", {"reason": "r"}, 404, "rollout"),
        ("POST", "deployments/toy/rollouts/x/promote", {"reason": "r"}, 422, "rollout"),
        ("POST", "deployments/toy/rollouts/1/explode", {"reason": "r"}, 422, "action"),
        ("POST", "deployments/toy/rollouts/1/promote", {}, 422, "reason"),
        ("POST", "deployments/toy/rollouts/1/promote", {"reason": ""}, 422, "reason"),
        ("POST", "deployments/nobody/rollouts/1/promote", {"reason": "r"}, 404, "deployment"),
        ("GET", "deployments/nobody/rollouts", None, 404, "deployment"),
        ("GET", "deployments/toy/switch", None, 405, "method"),
    ],
)
def test_bad_requests_name_the_field_and_change_nothing(
    api: Routes, service: ControlService, method: str, path: str, body: Any, status: int, field: str
) -> None:
    before = service.deployments()
    found, problem = api(method, path, body)
    assert (found, problem["field"]) == (status, field)
    assert service.deployments() == before
    assert service.rollouts.history("toy") == []


def test_control_itself_rolls_back_what_its_gateways_report(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment's own class, without Serve around it."""
    # What it does to a process of its own would stay with the one that runs the tests.
    for name in ("configure_events", "give_way"):
        monkeypatch.setattr(f"rlaas.control.deployment.{name}", lambda: None)
    settings = home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"})
    control = Control.func_or_class(None, ServingConfig(), settings)
    body = json.dumps(_create(strategy=CANARY)).encode()
    request = ControlRequest("default", "POST", "/api/v1/deployments/create", {}, {}, body)
    reply = asyncio.run(control.answer(request))
    assert reply.status == 200
    tally, deployment = Tally(), json.loads(reply.body)["id"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for _ in range(50):
            tally.decided("toy", 1, 1, 200_000)
            tally.failed("toy", 2)
        answer = asyncio.run(control.live("g1", {deployment: 2}, {}, tally.snapshot(), "p1"))
        if answer.records[0].generation == 3:
            break
        time.sleep(0.2)
    assert answer.records[0].weights() == {"champion": 1.0}
    control.check_health()
    del control
