"""Fronts on their way from the registry to the Gateways, and what deployments say about safety."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.bundles import OBJECTIVES, policy_bundle
from support.front_kit import write_front_file
from support.serving_kit import make_bench

import rlaas
from rlaas.bundles import load_bundle
from rlaas.control.served_fronts import served_front
from rlaas.control.service import ControlService
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective
from rlaas.registry import Registry
from rlaas.serving.served_front import front_key, read_served_front
from rlaas.settings import Settings, load_settings

ROW = [0.1, -0.5, 2.0]
ONE = [{"name": "only", "version": 1, "weight": 1}]
AXES = tuple(Objective(**o) for o in OBJECTIVES)  # type: ignore[arg-type]


def _candidate(name: str, latency: float, throughput: float, *, kind: Any = "policy", **parameters: Any) -> Candidate:
    return Candidate(
        name=name, kind=kind, mean=(latency, throughput), half_width=(0.1, 1.0), seeds=(1, 2), parameters=parameters
    )


def _front(*extra: Candidate, scenario: str = "toy") -> Front:
    at = {"latency": 0.3, "throughput": 0.7}
    return Front.of(scenario, AXES, [_candidate("policy@even", 3.0, 60.0, preference=at), *extra])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("served-fronts")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    foreign = _candidate("trial-1@even", 1.0, 40.0, preference={"latency": 1}, weights_sha256="0" * 64)
    documents = {"front.json": _front(foreign).to_dict()}
    registry.register("toy", policy_bundle(root / "one", seed=1), documents=documents)
    registry.register("toy", policy_bundle(root / "two", seed=2))
    registry.register("toy", policy_bundle(root / "wide", features=5))
    registry.register("box", policy_bundle(root / "box", kind="box", actions=2))
    return settings


@pytest.fixture
def service(home: Settings, tmp_path: Path) -> ControlService:
    return ControlService(home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))


def test_a_gateway_decides_by_the_front_that_control_names(service: ControlService, tmp_path: Path) -> None:
    service.create_deployment("toy", ONE)
    answer = service.live("replica")
    assert answer.paths.keys() == {("toy", 1), front_key("toy", 1)}
    front = read_served_front(Path(answer.paths[front_key("toy", 1)]))
    assert [candidate.name for candidate in front.candidates] == ["policy@even"]  # the other is another network
    assert service.live("replica").paths == answer.paths
    paths = {key: Path(path) for key, path in answer.paths.items()}
    bench = make_bench(tmp_path / "gateway", paths, *answer.records)
    decided = bench.decide("toy", observation=ROW, constraints={"latency": {"max": 3.2}})
    assert decided["candidate"] == "policy@even"
    with pytest.raises(InvalidInputError, match=r"the nearest value that can be kept is 3\.1"):
        bench.decide("toy", observation=ROW, constraints={"latency": {"max": 1}})


def test_a_version_without_a_front_takes_what_of_the_newest_is_its_own(service: ControlService, home: Settings) -> None:
    service.create_deployment("toy", [{"name": "only", "version": 2, "weight": 1}])
    paths = service.live("replica").paths
    assert paths.keys() == {("toy", 2)}
    mine = load_bundle(paths["toy", 2]).manifest.files["policy.safetensors"]
    named = _candidate("later@even", 2.0, 50.0, preference={"latency": 1}, weights_sha256=mine)
    file = write_front_file(home.home, _front(named), "search")
    try:
        service.create_deployment("toy", [{"name": "again", "version": 2, "weight": 1}])
        found = service.live("replica").paths
        front = read_served_front(Path(found[front_key("toy", 2)]))
        assert [candidate.name for candidate in front.candidates] == ["later@even"]
        file.write_text("{")
        service.create_deployment("toy", [{"name": "third", "version": 2, "weight": 1}])
        damaged = service.live("replica").paths
        assert front_key("toy", 2) not in damaged
        assert ("toy", 2) in damaged
    finally:
        file.unlink()


def test_configurations_become_the_action_that_they_are(tmp_path: Path) -> None:
    scenario = rlaas.scenarios.load("recsys")
    family_name, family = next((name, f) for name, f in scenario.tunables.items() if name == "static")
    values = dict(zip(family.parameters, [float(low) for low in family.low], strict=True))
    action = family.controller(list(values.values())).action
    objectives = [o.to_dict() for o in scenario.objectives]
    n = int(scenario.single_action_space.n)  # type: ignore[attr-defined]
    bundle = policy_bundle(tmp_path / "b", scenario="recsys", objectives=objectives, actions=n, modes={})
    manifest = load_bundle(bundle).manifest
    mean = tuple(float(i + 1) for i in range(len(objectives)))

    def front(reference: str, **parameters: Any) -> Front:
        member = Candidate(
            name="static-0", kind="configuration", mean=mean, half_width=(0.0,) * len(mean), parameters=parameters
        )
        return Front.of("recsys", scenario.objectives, [member], reference)

    good = front(scenario.reference_hash, tunable=family_name, values=values)
    (found,) = served_front(good, manifest, own=False).candidates
    assert found.action == action.tolist()
    for wrong in (
        front("another world", tunable=family_name, values=values),
        front(scenario.reference_hash, tunable="nonsense", values=values),
        front(scenario.reference_hash, tunable=family_name, values={}),
    ):
        assert served_front(wrong, manifest, own=True).candidates == ()


def test_names_that_the_lake_could_not_keep_are_left_out(tmp_path: Path) -> None:
    manifest = load_bundle(policy_bundle(tmp_path / "b")).manifest
    at = {"latency": 1.0}
    names = ("x" * 257, "line\nbreak", "\ud800", "fine")
    front = Front.of("toy", AXES, [_candidate(n, i + 1.0, 10.0 * i, preference=at) for i, n in enumerate(names)])
    assert [candidate.name for candidate in served_front(front, manifest, own=True).candidates] == ["fine"]


def test_a_promotion_keeps_the_shield_and_a_creation_may_change_it(service: ControlService) -> None:
    shield = {"forbidden": [{"choices": [3], "substitute": 0}]}
    first, _ = service.create_deployment("toy", ONE, safety={"shield": shield, "safe_action": 1})
    assert (first.shield is not None, first.safe_action) == (True, 1)
    _, promoted = service.promote("toy", 2)
    assert promoted is not None
    assert (promoted.shield, promoted.safe_action) == (first.shield, 1)
    same, _ = service.create_deployment("toy", [v.model_dump() for v in promoted.variants], fallback=promoted.fallback)
    assert same.generation == promoted.generation
    changed, _ = service.create_deployment("toy", ONE, safety={"shield": None})
    assert (changed.shield, changed.safe_action, changed.generation) == (None, 1, promoted.generation + 1)
    stored = service.status("toy")[1]
    assert json.loads(json.dumps(stored))["safe_action"] == 1


@pytest.mark.parametrize(
    ("policy", "safety", "message"),
    [
        ("toy", {"safe_action": 9}, "safe_action must be a choice from 0 to 3"),
        ("toy", {"safe_action": "stop"}, "safe_action: expected a choice"),
        ("toy", {"shield": {"max_change": [1]}}, "shield.max_change is for actions in a box"),
        ("toy", {"shield": {"speed": 1}}, "shield.speed: unknown key"),
        ("box", {"shield": {"rules": [{"name": "a", "when": "x7 > 1", "action": [0, 0]}]}}, "unknown field 'x7'"),
    ],
)
def test_what_is_unsafe_to_begin_with_is_refused_when_it_is_created(
    service: ControlService, policy: str, safety: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        service.create_deployment(policy, ONE, safety=safety)
    assert service.deployments() == []


def test_a_strategy_takes_no_safety(service: ControlService) -> None:
    service.create_deployment("toy", ONE)
    variant = [{"name": "new", "version": 2, "weight": 1}]
    with pytest.raises(InvalidInputError, match="shield cannot be given with a strategy"):
        service.create_deployment("toy", variant, strategy={"kind": "shadow"}, safety={"shield": {"rules": []}})
