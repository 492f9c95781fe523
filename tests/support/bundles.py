"""Real bundles of any shape for serving tests: a random two-layer network with digests and a golden batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from rlaas.bundles import (
    MODEL,
    WEIGHTS,
    BoxAction,
    BundleManifest,
    DiscreteAction,
    GoldenBatch,
    ObservationSpec,
    write_manifest,
)
from rlaas.files import sha256_of

OBJECTIVES = (
    {"name": "latency", "unit": "ms", "direction": "minimize", "low": 0.0, "high": 10.0},
    {"name": "throughput", "unit": "Mbit/s", "direction": "maximize", "low": 0.0, "high": 100.0},
)
MODES = {"emergency": {"latency": 1.0}, "normal": {"latency": 0.5, "throughput": 0.5}}


def policy_bundle(
    folder: Path,
    *,
    kind: Literal["discrete", "box"] = "discrete",
    features: int = 3,
    actions: int = 4,
    hidden: int = 8,
    conditioned: bool = True,
    seed: int = 0,
    scenario: str = "toy",
    objectives: Sequence[Mapping[str, object]] = OBJECTIVES,
    modes: Mapping[str, Mapping[str, float]] = MODES,
    measures: Sequence[str] = ("orders",),
) -> Path:
    """A bundle whose network differs with ``seed``; box actions lie in [0, 1]."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    columns = features + (len(objectives) if conditioned else 0)
    weights = {
        "w0": rng.normal(size=(columns, hidden)).astype(np.float32),
        "w1": rng.normal(size=(hidden, actions)).astype(np.float32),
    }
    inputs = [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", features])]
    nodes = []
    first = "observation"
    if conditioned:
        inputs.append(helper.make_tensor_value_info("preference", TensorProto.FLOAT, ["n", len(objectives)]))
        nodes.append(helper.make_node("Concat", ["observation", "preference"], ["joined"], axis=1))
        first = "joined"
    head = "logits" if kind == "discrete" else "mean"
    nodes += [
        helper.make_node("MatMul", [first, "w0"], ["h0"]),
        helper.make_node("Tanh", ["h0"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w1"], [head]),
    ]
    names = [head]
    if kind == "box":
        weights["minus_one"] = np.float32(-1.0).reshape(1)
        weights["zero"] = np.float32(0.0).reshape(1)
        nodes += [helper.make_node("Mul", ["mean", "zero"], ["zeros"])]
        nodes += [helper.make_node("Add", ["zeros", "minus_one"], ["log_std"])]
        names.append("log_std")
    graph = helper.make_graph(
        nodes,
        "policy",
        inputs,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", actions]) for name in names],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / MODEL))
    save_file(weights, folder / WEIGHTS)
    feed = {"observation": rng.normal(size=(4, features)).astype(np.float32)}
    if conditioned:
        feed["preference"] = np.full((4, len(objectives)), 1 / len(objectives), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    action = DiscreteAction(n=actions) if kind == "discrete" else BoxAction(low=(0.0,) * actions, high=(1.0,) * actions)
    write_manifest(
        folder,
        BundleManifest(
            scenario=scenario,
            algorithm="ppo" if kind == "discrete" else "sac",
            created="2026-01-01T00:00:00Z",
            observation=ObservationSpec(
                names=tuple(f"x{i}" for i in range(features)), low=(None,) * features, high=(None,) * features
            ),
            action=action,
            objectives=tuple(dict(o) for o in objectives),
            measures=tuple(measures),
            modes={name: dict(weight) for name, weight in modes.items()},
            preference_conditioned=conditioned,
            golden=GoldenBatch(
                observations=_rows(feed["observation"]),
                preferences=_rows(feed["preference"]) if conditioned else None,
                outputs={name: _rows(value) for name, value in outputs.items()},
            ),
            files={name: sha256_of(folder / name) for name in (MODEL, WEIGHTS)},
        ),
    )
    return folder


def _rows(array: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in array.astype(float).tolist())
