from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import DiscreteToy, MaskedToy, SeveralToy, Toy

from rlaas.bundles import load_bundle
from rlaas.errors import BundleError, InvalidInputError
from rlaas.objectives import Preference
from rlaas.scenarios import evaluate
from rlaas.training import PolicyController, evaluate_policy, export_bundle, export_constant
from rlaas.training.networks import PolicyNetwork


def _network(*, discrete: bool, n_objectives: int = 2, hidden: tuple[int, ...] = (16, 8)) -> PolicyNetwork:
    torch.manual_seed(3)
    activation = "tanh" if discrete else "relu"
    network = PolicyNetwork(2, n_objectives, 5 if discrete else 1, hidden, discrete=discrete, activation=activation)
    network.normaliser.freeze(np.array([0.3, 5.0]), np.array([0.5, 20.0]))
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return network


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("n_objectives", [0, 2])
def test_onnx_equals_torch(discrete: bool, n_objectives: int, tmp_path: Path) -> None:
    network = _network(discrete=discrete, n_objectives=n_objectives)
    scenario = DiscreteToy() if discrete else Toy()
    folder = export_bundle(network, scenario, tmp_path / "b", algorithm="sac", lineage={"seed": 7})
    policy = load_bundle(folder)
    rng = np.random.default_rng(1)
    # Far outside the normaliser's range too, where it clips.
    observations = rng.normal(0, 50, size=(200, 2)).astype(np.float32)
    preferences = rng.dirichlet(np.ones(2), size=200).astype(np.float32)
    got = policy.forward(observations, preferences)
    with torch.no_grad():
        want = network(torch.from_numpy(observations), torch.from_numpy(preferences))
    assert set(got) == set(want) == ({"logits"} if discrete else {"mean", "log_std"})
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value.numpy(), rtol=1e-5, atol=1e-5)
    manifest = policy.manifest
    assert manifest.preference_conditioned is bool(n_objectives)
    assert manifest.measures == ("near_num", "near_den", "mirror_num", "mirror_den")
    assert manifest.modes["follow"] == pytest.approx({"near": 0.9, "mirror": 0.1})
    assert manifest.observation.high == (1.0, None)
    assert manifest.lineage["seed"] == 7
    assert manifest.lineage["reference_hash"] == "0123456789abcdef"
    assert len(manifest.golden.observations) >= 8


def test_the_share_of_noise_leaves_the_trainer_and_older_weights_have_all_of_it(tmp_path: Path) -> None:
    network = _network(discrete=False)
    rows = torch.randn(5, 2), torch.full((5, 2), 0.5)
    with torch.no_grad():
        before = network(*rows)
        network.leave_noise(0.1)
        after = network(*rows)
    torch.testing.assert_close(after["log_std"], before["log_std"] + np.log(0.1))
    torch.testing.assert_close(after["mean"], before["mean"])
    policy = load_bundle(export_bundle(network, Toy(), tmp_path / "b", algorithm="ppo"))
    got = policy.forward(*(row.numpy() for row in rows))
    np.testing.assert_allclose(got["log_std"], after["log_std"].numpy(), rtol=1e-5, atol=1e-5)
    older = {name: value for name, value in network.state_dict().items() if name != "noise"}
    network.load_state_dict(older)
    assert network.noise.tolist() == [0.0, 0.0]
    # The next training begins where this one has ended.
    network.leave_noise(0.1)
    network.keep_noise()
    network.leave_noise(0.5)
    assert float(network.noise[1]) == pytest.approx(np.log(0.05))


@pytest.mark.parametrize("n_objectives", [0, 2])
@pytest.mark.parametrize(
    ("sizes", "masked", "memory"), [((2, 3), False, 0), ((5,), True, 0), ((5,), True, 7), (None, False, 7)]
)
def test_masks_components_and_memories_leave_the_trainer(
    sizes: tuple[int, ...] | None, masked: bool, memory: int, n_objectives: int, tmp_path: Path
) -> None:
    scenario = Toy() if sizes is None else SeveralToy() if len(sizes) == 2 else MaskedToy()
    policy = PolicyNetwork(
        len(scenario.observation_names),
        n_objectives,
        1 if sizes is None else 5,
        (16, 8),
        discrete=sizes is not None,
        activation="tanh",
        sizes=sizes,
        masked=masked,
        memory=memory,
    )
    bundle = load_bundle(export_bundle(policy, scenario, tmp_path / "bundle", algorithm="ppo"))
    rng = np.random.default_rng(3)
    observation = rng.standard_normal((6, policy.n_features)).astype(np.float32)
    if masked:
        observation[:, -5:] = [1.0, 0.0, 1.0, 0.0, 0.0]
    asked = rng.dirichlet(np.ones(n_objectives), 6).astype(np.float32) if n_objectives else None
    torch_state, onnx_state = None, None
    for _ in range(3):
        with torch.no_grad():
            wanted = policy(
                torch.from_numpy(observation), None if asked is None else torch.from_numpy(asked), torch_state
            )
        found = bundle.forward(observation, asked, onnx_state)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-5)
        torch_state, onnx_state = wanted.get("next_state"), found.get("next_state")
    actions, propensities, states = bundle.step(observation, asked, None, rng=np.random.default_rng(1))
    assert actions.shape == ((6, 1) if sizes is None else (6, 2) if len(sizes) == 2 else (6,))
    assert propensities is not None
    assert (states is None) == (memory == 0)
    if masked:
        assert set(actions.tolist()) <= {0, 2}
    if sizes == (2, 3):
        logits = found["logits"].astype(np.float64)
        parts = [np.exp(p) / np.exp(p).sum(axis=1, keepdims=True) for p in np.split(logits, [2], axis=1)]
        chosen = [part[np.arange(6), actions[:, i]] for i, part in enumerate(parts)]
        np.testing.assert_allclose(propensities, chosen[0] * chosen[1], rtol=1e-6)


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    folder = export_bundle(_network(discrete=True), DiscreteToy(), tmp_path / "b", algorithm="ppo")
    weights = folder / "policy.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(BundleError, match="sha256"):
        load_bundle(folder)


@settings(max_examples=20, deadline=None)
@given(level=st.floats(-2, 2))
def test_constant_box_bundle_gives_its_action(level: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = export_constant(Toy(), [level], tmp_path_factory.mktemp("c"))
    policy = load_bundle(folder)
    observations = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    actions, propensity = policy.act(observations, rng=np.random.default_rng(0))
    assert propensity is None
    np.testing.assert_allclose(actions, level, atol=2e-5)


@pytest.mark.parametrize("choice", range(5))
def test_constant_choice_bundle(choice: int, tmp_path: Path) -> None:
    policy = load_bundle(export_constant(DiscreteToy(), choice, tmp_path / "c", lineage={"source": "test"}))
    actions, propensity = policy.act(np.zeros((3, 2), dtype=np.float32))
    assert actions.tolist() == [choice] * 3
    assert propensity is None
    assert policy.manifest.deterministic
    assert not policy.manifest.preference_conditioned


@pytest.mark.parametrize(
    ("scenario", "action"), [(Toy(), [3.0]), (Toy(), 0.5), (Toy(), [np.nan]), (DiscreteToy(), 5), (DiscreteToy(), 1.5)]
)
def test_impossible_constants_are_refused(scenario: Toy, action: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="action must be"):
        export_constant(scenario, action, tmp_path / "c")  # type: ignore[arg-type]
    assert not (tmp_path / "c").exists()


def test_candidates_carry_names_and_agree_with_the_controller(tmp_path: Path) -> None:
    scenario = Toy()
    folder = export_bundle(_network(discrete=False), scenario, tmp_path / "b", algorithm="sac")
    near = Preference.of(scenario.objectives, [1.0, 0.0])
    mixed = Preference.of(scenario.objectives, [0.25, 0.75])
    first, second = evaluate_policy(scenario, folder, [near, mixed], (1, 2, 3), steps=30, warmup=2)
    (named,) = evaluate_policy(scenario, load_bundle(folder), {"close": near}, (1, 2, 3), steps=30, warmup=2)
    assert [first.name, second.name, named.name] == [
        "policy@near=1.00",
        "policy@near=0.25,mirror=0.75",
        "policy@close",
    ]
    assert first.mean == named.mean != second.mean
    assert first.kind == "policy"
    assert first.parameters == {"preference": {"near": 1.0, "mirror": 0.0}}
    direct = evaluate(scenario, PolicyController(load_bundle(folder), near), (1, 2, 3), steps=30, warmup=2)
    assert tuple(direct.mean()) == first.mean
    with pytest.raises(InvalidInputError, match="needs a preference over near, mirror"):
        PolicyController(load_bundle(folder))


def test_sampling_controller_repeats_itself(tmp_path: Path) -> None:
    scenario = Toy()
    policy = load_bundle(export_bundle(_network(discrete=False), scenario, tmp_path / "b", algorithm="sac"))
    controller = PolicyController(policy, Preference.uniform(scenario.objectives), sample=True)
    observation = np.zeros((4, 2))
    runs = []
    for _ in range(2):
        controller.reset(4, 9)
        runs.append([controller.act(observation) for _ in range(2)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


def test_bundles_need_neither_torch_nor_rllib(tmp_path: Path) -> None:
    folder = export_bundle(_network(discrete=True), DiscreteToy(), tmp_path / "b", algorithm="ppo")
    code = (
        "import sys, json; from rlaas.bundles import load_bundle;"
        f"load_bundle({str(folder)!r}); import rlaas.training;"
        "print(json.dumps([m for m in ('torch', 'ray', 'mlflow') if m in sys.modules]))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []
    assert onnxruntime.InferenceSession(folder / "policy.onnx").get_inputs()[0].name == "observation"
