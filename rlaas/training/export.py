"""Writing bundles: the policy as an ONNX graph, its weights, and a golden batch that every load replays."""

from __future__ import annotations

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
    DiscreteAction,
    GoldenBatch,
    ObservationSpec,
    load_bundle,
    sha256_of,
    write_manifest,
)
from rlaas.errors import InvalidInputError
from rlaas.scenarios import Scenario
from rlaas.training.networks import LOG_STD_RANGE, NORMALISED_LIMIT, PolicyNetwork

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
    weights = {name: value.detach().numpy().astype(np.float32) for name, value in policy.state_dict().items()}
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((GOLDEN_ROWS, policy.n_features))
    observations = (weights["normaliser.mean"] + spread * weights["normaliser.deviation"]).astype(np.float32)
    preferences: Float32 | None = None
    if policy.n_objectives:
        preferences = rng.dirichlet(np.ones(policy.n_objectives), size=GOLDEN_ROWS).astype(np.float32)
    with torch.no_grad():
        outputs = policy(torch.from_numpy(observations), None if preferences is None else torch.from_numpy(preferences))
    return _write(
        folder,
        scenario,
        model=_policy_graph(policy, weights),
        weights=weights,
        golden=(observations, preferences, {name: value.numpy() for name, value in outputs.items()}),
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
        golden=(observations, None, golden),
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
    nodes = [
        helper.make_node("Sub", ["observation", "normaliser.mean"], ["centred"]),
        helper.make_node("Div", ["centred", "normaliser.deviation"], ["standardised"]),
        helper.make_node("Clip", ["standardised", "low", "high"], ["clipped"]),
    ]
    current = "clipped"
    if policy.n_objectives:
        inputs["preference"] = policy.n_objectives
        nodes.append(helper.make_node("Concat", [current, "preference"], ["features"], axis=1))
        current = "features"
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
        nodes.append(helper.make_node("Identity", [current], ["logits"]))
        return _model(nodes, initial, inputs, {"logits": n})
    low, high = LOG_STD_RANGE
    initial |= {
        "split": np.array([n, n], dtype=np.int64),
        "half": np.array(0.5 * (high - low), dtype=np.float32),
        "middle": np.array(low + 0.5 * (high - low), dtype=np.float32),
    }
    nodes += [
        helper.make_node("Split", [current, "split"], ["mean", "raw"], axis=1),
        helper.make_node("Tanh", ["raw"], ["squashed"]),
        helper.make_node("Mul", ["squashed", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "middle"], ["log_std"]),
    ]
    return _model(nodes, initial, inputs, {"mean": n, "log_std": n})


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
    golden: tuple[Float32, Float32 | None, Mapping[str, Float32]],
    algorithm: str,
    deterministic: bool,
    lineage: Mapping[str, Any] | None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(model)
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / WEIGHTS)
    observations, preferences, outputs = golden
    space, action = scenario.single_observation_space, scenario.single_action_space
    manifest = BundleManifest(
        scenario=scenario.name,
        algorithm=algorithm,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        observation=ObservationSpec(names=scenario.observation_names, low=_bounds(space.low), high=_bounds(space.high)),
        action=(
            DiscreteAction(n=int(action.n))
            if isinstance(action, spaces.Discrete)
            else BoxAction(low=tuple(map(float, action.low)), high=tuple(map(float, action.high)))
        ),
        objectives=tuple(o.to_dict() for o in scenario.objectives),
        measures=scenario.measures,
        modes={name: mode.preference.to_dict() for name, mode in scenario.modes.items()},
        preference_conditioned=preferences is not None,
        deterministic=deterministic,
        golden=GoldenBatch(
            observations=_rows(observations),
            preferences=None if preferences is None else _rows(preferences),
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


def _bounds(values: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(float(v) if math.isfinite(v) else None for v in values)


def _rows(values: NDArray[Any]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.asarray(values, dtype=np.float64).tolist())
