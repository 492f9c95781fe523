"""Bundles that are real (a model that onnxruntime runs, digests, a golden batch) and take no training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from rlaas.bundles import (
    MODEL,
    WEIGHTS,
    BundleManifest,
    DiscreteAction,
    GoldenBatch,
    ObservationSpec,
    write_manifest,
)
from rlaas.files import sha256_of

MakeBundle = Callable[..., Path]


def build_bundle(folder: Path, *, seed: int = 0, lineage: dict[str, object] | None = None) -> Path:
    """A linear policy from three features to four choices."""
    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "w"], ["logits"])],
        "linear",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / MODEL))
    save_file({"w": weights}, folder / WEIGHTS)
    observations = np.random.default_rng(seed + 1).normal(size=(8, 3)).astype(np.float32)
    write_manifest(
        folder,
        BundleManifest(
            scenario="toy",
            algorithm="ppo",
            created="2026-01-01T00:00:00Z",
            observation=ObservationSpec(names=("a", "b", "c"), low=(None,) * 3, high=(None,) * 3),
            action=DiscreteAction(n=4),
            objectives=({"name": "gain", "unit": "1", "direction": "maximize", "low": 0.0, "high": 1.0},),
            preference_conditioned=False,
            golden=GoldenBatch(
                observations=tuple(map(tuple, observations.tolist())),
                preferences=None,
                outputs={"logits": tuple(map(tuple, (observations @ weights).tolist()))},
            ),
            files={name: sha256_of(folder / name) for name in (MODEL, WEIGHTS)},
            lineage={"seed": seed} if lineage is None else lineage,
        ),
    )
    return folder
