"""Writing bundles: the policy as an ONNX graph, its weights, and a golden batch that every load replays."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch import nn

from rlaas.bundles import (
    MODEL,
    WEIGHTS,
    BoxAction,
    BundleManifest,
    ChoicesAction,
    DiscreteAction,
    GoldenBatch,
    ObservationSpec,
    load_bundle,
    write_manifest,
)
from rlaas.errors import InvalidInputError
from rlaas.files import sha256_of
from rlaas.scenarios import Scenario
from rlaas.training.actions import ActionSpec
from rlaas.training.distributions import FORBIDDEN, LOG_STD_RANGE
from rlaas.training.networks import NORMALISED_LIMIT, PolicyNetwork

__all__ = ["export_bundle", "export_constant"]

GOLDEN_ROWS = 16
OPSET = 17
# Version 8 goes with opset 17 and is read by every onnxruntime since 1.13.
IR_VERSION = 8
FIXED_LOG_STD = -20.0
FIXED_LOGIT = 20.0
LARGEST_SHARE = 0.999999

Float32 = NDArray[np.float32]


def export_bundle(
    policy: PolicyNetwork,
    scenario: Scenario,
    folder: Path,
    *,
    algorithm: str,
    lineage: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``policy`` as a bundle and load it once to prove it.

    Args:
        policy: the trained network, its normaliser frozen.
        scenario: what it controls; gives names, bounds, objectives, measures and modes.
        folder: made if missing; files of an earlier bundle are replaced.
        algorithm: ``sac``, ``ppo``, ``advantage_weighted`` or ``cloning``.
        lineage: where the policy comes from: seed, steps, git commit, reference hash.

    Returns:
        ``folder``.

    Raises:
        BundleError: what was written does not reproduce the network.
    """
    if policy.normaliser.mean.device.type != "cpu":
        policy = copy.deepcopy(policy).cpu()
    weights = {name: value.detach().numpy().astype(np.float32) for name, value in policy.state_dict().items()}
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((GOLDEN_ROWS, policy.n_seen))
    observations = (weights["normaliser.mean"] + spread * weights["normaliser.deviation"]).astype(np.float32)
    if policy.masked:
        allowed = (rng.random((GOLDEN_ROWS, policy.n_actions)) < 0.5).astype(np.float32)
        observations = np.concatenate((observations, allowed), axis=1)
    states: Float32 | None = None
    if policy.memory is not None:
        states = rng.uniform(-1.0, 1.0, (GOLDEN_ROWS, policy.memory.width)).astype(np.float32)
    preferences: Float32 | None = None
    if policy.n_objectives:
        preferences = rng.dirichlet(np.ones(policy.n_objectives), size=GOLDEN_ROWS).astype(np.float32)
    with torch.no_grad():
        outputs = policy(*(None if x is None else torch.from_numpy(x) for x in (observations, preferences, states)))
    return _write(
        folder,
        scenario,
        model=_policy_graph(policy, weights),
        weights=weights,
        golden=(observations, preferences, states, {name: value.numpy() for name, value in outputs.items()}),
        algorithm=algorithm,
        deterministic=False,
        lineage=lineage,
    )


def export_constant(
    scenario: Scenario, action: ArrayLike, folder: Path, *, lineage: Mapping[str, Any] | None = None
) -> Path:
    """Write a static configuration as a bundle: every observation is answered with ``action``.

    Raises:
        InvalidInputError: ``action`` is not one of the scenario's action space.
    """
    space = scenario.single_action_space
    value = np.asarray(action, dtype=np.float64)
    if isinstance(space, spaces.MultiDiscrete):
        raise InvalidInputError(f"{space} has no constants that can be exported", field="action")
    if isinstance(space, spaces.Discrete):
        if value.ndim != 0 or value != int(value) or not 0 <= int(value) < int(space.n):
            raise InvalidInputError(f"action must be a whole number from 0 to {int(space.n) - 1}", field="action")
        outputs = {"logits": np.eye(int(space.n))[int(value)] * FIXED_LOGIT}
    else:
        if value.shape != space.shape or not ((value >= space.low - 1e-9) & (value <= space.high + 1e-9)).all():
            raise InvalidInputError(
                f"action must be {space.shape[0]} numbers between {space.low.tolist()} and {space.high.tolist()}",
                field="action",
            )
        share = 2.0 * (value - space.low) / (space.high - space.low) - 1.0
        mean = np.arctanh(np.clip(share, -LARGEST_SHARE, LARGEST_SHARE))
        outputs = {"mean": mean, "log_std": np.full_like(mean, FIXED_LOG_STD)}
    n_features = len(scenario.observation_names)
    weights = {name: np.asarray(row, dtype=np.float32) for name, row in outputs.items()}
    nodes: list[Any] = []
    initial: dict[str, Float32] = {}
    for name, row in weights.items():
        # 0 x + b: the observation only sets the number of rows.
        initial |= {f"{name}.zero": np.zeros((n_features, len(row)), dtype=np.float32), f"{name}.value": row}
        nodes.append(helper.make_node("Gemm", ["observation", f"{name}.zero", f"{name}.value"], [name]))
    observations = np.random.default_rng(0).standard_normal((GOLDEN_ROWS, n_features)).astype(np.float32)
    golden = {name: np.repeat(row[None], GOLDEN_ROWS, axis=0) for name, row in weights.items()}
    return _write(
        folder,
        scenario,
        model=_model(nodes, initial, {"observation": n_features}, {k: len(v) for k, v in weights.items()}),
        weights=weights,
        golden=(observations, None, None, golden),
        algorithm="static",
        deterministic=True,
        lineage=lineage,
    )


def _policy_graph(policy: PolicyNetwork, weights: Mapping[str, Float32]) -> bytes:
    """The network node by node: exporters trace more than a perceptron needs, and change between versions."""
    inputs = {"observation": policy.n_features}
    initial: dict[str, NDArray[Any]] = {
        "normaliser.mean": weights["normaliser.mean"],
        "normaliser.deviation": weights["normaliser.deviation"],
        "low": np.array(-NORMALISED_LIMIT, dtype=np.float32),
        "high": np.array(NORMALISED_LIMIT, dtype=np.float32),
    }
    nodes, seen = [], "observation"
    if policy.masked:
        initial["seen_and_mask"] = np.array([policy.n_seen, policy.n_actions], dtype=np.int64)
        nodes.append(helper.make_node("Split", ["observation", "seen_and_mask"], ["seen", "mask"], axis=1))
        seen = "seen"
    nodes += [
        helper.make_node("Sub", [seen, "normaliser.mean"], ["centred"]),
        helper.make_node("Div", ["centred", "normaliser.deviation"], ["standardised"]),
        helper.make_node("Clip", ["standardised", "low", "high"], ["clipped"]),
    ]
    current, outputs = "clipped", {}
    if policy.n_objectives:
        inputs["preference"] = policy.n_objectives
        nodes.append(helper.make_node("Concat", [current, "preference"], ["features"], axis=1))
        current = "features"
    if policy.memory is not None:
        inputs["state"] = outputs["next_state"] = policy.memory.width
        nodes += _memory_nodes(policy, weights, initial, current)
        current = "remembered"
        if policy.n_objectives:
            nodes.append(helper.make_node("Concat", [current, "preference"], ["recalled"], axis=1))
            current = "recalled"
    for i, layer in enumerate(policy.body.layers):
        following = f"layer{i}"
        if isinstance(layer, nn.Linear):
            names = [f"body.layers.{i}.weight", f"body.layers.{i}.bias"]
            initial |= {name: weights[name] for name in names}
            nodes.append(helper.make_node("Gemm", [current, *names], [following], transB=1))
        else:
            nodes.append(helper.make_node("Relu" if isinstance(layer, nn.ReLU) else "Tanh", [current], [following]))
        current = following
        if i == 1 and policy.n_objectives:
            names = ["body.gate.weight", "body.gate.bias"]
            initial |= {name: weights[name] for name in names}
            nodes.append(helper.make_node("Gemm", ["preference", *names], ["gate"], transB=1))
            nodes.append(helper.make_node("Mul", [current, "gate"], ["gated"]))
            current = "gated"
    n = policy.n_actions
    if policy.discrete:
        if policy.masked:
            initial |= {
                "half_allowed": np.array(0.5, dtype=np.float32),
                "forbidden": np.array(FORBIDDEN, dtype=np.float32),
            }
            nodes.append(helper.make_node("Greater", ["mask", "half_allowed"], ["allowed"]))
            nodes.append(helper.make_node("Where", ["allowed", current, "forbidden"], ["logits"]))
        else:
            nodes.append(helper.make_node("Identity", [current], ["logits"]))
        return _model(nodes, initial, inputs, {"logits": n, **outputs})
    low, high = LOG_STD_RANGE
    initial |= {
        "split": np.array([n, n], dtype=np.int64),
        "half": np.array(0.5 * (high - low), dtype=np.float32),
        "middle": np.array(low + 0.5 * (high - low) + float(weights["noise"][1]), dtype=np.float32),
    }
    nodes += [
        helper.make_node("Split", [current, "split"], ["mean", "raw"], axis=1),
        helper.make_node("Tanh", ["raw"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["log_std"]),
    ]
    return _model(nodes, initial, inputs, {"mean": n, "log_std": n, **outputs})


def _memory_nodes(
    policy: PolicyNetwork, weights: Mapping[str, Float32], initial: dict[str, NDArray[Any]], features: str
) -> list[Any]:
    """One step of :class:`~rlaas.training.recurrence.Memory`: ``remembered`` and ``next_state``."""
    assert policy.memory is not None
    hidden, node = policy.memory.hidden, helper.make_node
    names = ["memory.inward.weight", "memory.inward.bias", "memory.across.weight"]
    initial |= {name: weights[name] for name in names}
    initial |= {
        "halves": np.array([hidden, hidden], dtype=np.int64),
        "gates": np.array([hidden] * 4, dtype=np.int64),
    }
    return [
        node("Split", ["state", "halves"], ["hidden", "cell"], axis=1),
        node("Gemm", [features, *names[:2]], ["inward"], transB=1),
        node("Gemm", ["hidden", names[2], "inward"], ["all_gates"], transB=1),
        node("Split", ["all_gates", "gates"], ["enter_raw", "keep_raw", "leave_raw", "new_raw"], axis=1),
        node("Sigmoid", ["enter_raw"], ["enter"]),
        node("Sigmoid", ["keep_raw"], ["keep"]),
        node("Sigmoid", ["leave_raw"], ["leave"]),
        node("Tanh", ["new_raw"], ["new"]),
        node("Mul", ["keep", "cell"], ["kept"]),
        node("Mul", ["enter", "new"], ["entered"]),
        node("Add", ["kept", "entered"], ["next_cell"]),
        node("Tanh", ["next_cell"], ["shown"]),
        node("Mul", ["leave", "shown"], ["remembered"]),
        node("Concat", ["remembered", "next_cell"], ["next_state"], axis=1),
    ]


def _model(
    nodes: list[Any], initial: Mapping[str, NDArray[Any]], inputs: Mapping[str, int], outputs: Mapping[str, int]
) -> bytes:
    def value(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])

    graph = helper.make_graph(
        nodes,
        "policy",
        [value(name, width) for name, width in inputs.items()],
        [value(name, width) for name, width in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in initial.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rlaas")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _write(
    folder: Path,
    scenario: Scenario,
    *,
    model: bytes,
    weights: Mapping[str, Float32],
    golden: tuple[Float32, Float32 | None, Float32 | None, Mapping[str, Float32]],
    algorithm: str,
    deterministic: bool,
    lineage: Mapping[str, Any] | None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model)
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / WEIGHTS)
    observations, preferences, states, outputs = golden
    space, action = scenario.single_observation_space, scenario.single_action_space
    manifest = BundleManifest(
        scenario=scenario.name,
        algorithm=algorithm,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        observation=ObservationSpec(names=scenario.observation_names, low=_bounds(space.low), high=_bounds(space.high)),
        action=_action(action),
        objectives=tuple(o.to_dict() for o in scenario.objectives),
        measures=scenario.measures,
        modes={name: mode.preference.to_dict() for name, mode in scenario.modes.items()},
        preference_conditioned=preferences is not None,
        n_state=0 if states is None else states.shape[1],
        deterministic=deterministic,
        golden=GoldenBatch(
            observations=_rows(observations),
            preferences=None if preferences is None else _rows(preferences),
            states=None if states is None else _rows(states),
            outputs={name: _rows(value) for name, value in outputs.items()},
        ),
        files={name: sha256_of(folder / name) for name in (MODEL, WEIGHTS)},
        lineage={
            "reference_hash": scenario.reference_hash,
            "scenario_options": dict(scenario.options),
            "onnxruntime": onnxruntime.__version__,
            **(lineage or {}),
        },
    )
    write_manifest(folder, manifest)
    load_bundle(folder)
    return folder


def _action(space: spaces.Space[Any]) -> BoxAction | DiscreteAction | ChoicesAction:
    if isinstance(space, spaces.Discrete):
        return DiscreteAction(n=int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return ChoicesAction(sizes=ActionSpec.of(space).sizes)
    assert isinstance(space, spaces.Box)
    return BoxAction(low=tuple(map(float, space.low)), high=tuple(map(float, space.high)))


def _bounds(values: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(float(v) if math.isfinite(v) else None for v in values)


def _rows(values: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(values, dtype=np.float64).tolist())
