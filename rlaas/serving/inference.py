"""Open Inference Protocol V2: metadata and inference with JSON tensors.

The protocol is KServe's "Open Inference Protocol, version 2" (predict, REST).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rlaas.bundles import BoxAction, ChoicesAction, Float32
from rlaas.errors import InvalidInputError, NotFoundError, check_choice
from rlaas.serving.loading import LivePolicy, LoadedVariant
from rlaas.serving.requests import InferRequest, InferTensor, numbers

__all__ = ["infer", "model_metadata", "versioned"]

_FLOATS = ("FP32", "FP64")


def versioned(live: LivePolicy, version: str | None) -> LoadedVariant:
    """The variant that serves ``version``; without one, that with the largest share.

    Raises:
        NotFoundError: the version is not live; says which are.
    """
    if version is None:
        return live.primary
    for variant in live.variants.values():
        if str(variant.version) == version:
            return variant
    allowed = ", ".join(sorted({str(v.version) for v in live.variants.values()}))
    raise NotFoundError(
        f"version {version[:80]!r} of {live.record.policy!r} is not live; allowed: {allowed}", field="version"
    )


def model_metadata(live: LivePolicy, version: str | None) -> dict[str, Any]:
    """Answer ``GET /v2/models/{m}[/versions/{v}]``."""
    policy = versioned(live, version).policy
    inputs = [{"name": "observation", "datatype": "FP32", "shape": [-1, policy.n_features]}]
    if policy.manifest.preference_conditioned:
        inputs.append({"name": "preference", "datatype": "FP32", "shape": [-1, len(policy.objectives)]})
    outputs: list[dict[str, Any]] = [
        {"name": name, "datatype": "FP32", "shape": [-1, len(rows[0])]}
        for name, rows in policy.manifest.golden.outputs.items()
    ]
    if isinstance(policy.manifest.action, BoxAction):
        outputs.append({"name": "action", "datatype": "FP64", "shape": [-1, len(policy.manifest.action.low)]})
    elif isinstance(policy.manifest.action, ChoicesAction):
        outputs.append({"name": "action", "datatype": "INT64", "shape": [-1, len(policy.manifest.action.sizes)]})
    else:
        outputs.append({"name": "action", "datatype": "INT64", "shape": [-1]})
    return {
        "name": live.record.policy,
        "versions": sorted({str(v.version) for v in live.variants.values()}),
        "platform": "onnx_onnxv1",
        "inputs": inputs,
        "outputs": outputs,
    }


def infer(live: LivePolicy, version: str | None, request: InferRequest, max_rows: int) -> dict[str, Any]:
    """Run the network: its raw outputs, and ``action``, the mode of the distribution.

    Raises:
        InvalidInputError: a tensor of the wrong name, shape, datatype or value, or an unknown output.
        NotFoundError: the version is not live.
    """
    variant = versioned(live, version)
    policy = variant.policy
    expected = {"observation": policy.n_features}
    if policy.manifest.preference_conditioned:
        expected["preference"] = len(policy.objectives)
    tensors: dict[str, Float32] = {}
    for index, tensor in enumerate(request.inputs):
        check_choice(tensor.name, expected, field=f"inputs[{index}].name", error=InvalidInputError)
        if tensor.name in tensors:
            raise InvalidInputError(f"inputs[{index}].name {tensor.name!r} is repeated", field=f"inputs[{index}].name")
        tensors[tensor.name] = _tensor(tensor, f"inputs[{index}]", expected[tensor.name], max_rows)
    if "observation" not in tensors:
        raise InvalidInputError("inputs needs a tensor named 'observation'", field="inputs")
    observations = policy.check_observations(tensors["observation"], field="observation")
    preferences = _preferences(variant, tensors.get("preference"), len(observations))
    outputs: dict[str, Any] = dict(policy.forward(observations, preferences))
    outputs["action"], _ = policy.act(observations, preferences)
    wanted = list(outputs) if not request.outputs else [output.name for output in request.outputs]
    for index, name in enumerate(wanted):
        check_choice(name, outputs, field=f"outputs[{index}].name", error=InvalidInputError)
    answer = {
        "model_name": live.record.policy,
        "model_version": str(variant.version),
        "outputs": [_output(name, outputs[name]) for name in wanted],
    }
    return answer if request.id is None else {**answer, "id": request.id}


def _preferences(variant: LoadedVariant, given: Float32 | None, rows: int) -> Float32 | None:
    if given is None:
        return variant.preference(None, None)[0]
    if len(given) not in (1, rows):
        raise InvalidInputError(
            f"preference has {len(given)} rows; expected 1 or {rows}, as observation has", field="preference"
        )
    names = [objective.name for objective in variant.policy.objectives]
    checked = [
        variant.policy.preference(dict(zip(names, row, strict=True)), field=f"preference[{index}]")
        for index, row in enumerate(given.astype(np.float64).tolist())
    ]
    return np.array(checked, dtype=np.float32)


def _tensor(tensor: InferTensor, field: str, columns: int, max_rows: int) -> Float32:
    """The tensor as float32 [n, columns]."""
    check_choice(tensor.datatype, _FLOATS, field=f"{field}.datatype", error=InvalidInputError)
    if len(tensor.shape) != 2 or tensor.shape[1] != columns or not 1 <= tensor.shape[0] <= max_rows:
        raise InvalidInputError(
            f"{field}.shape is {tensor.shape}; expected [n, {columns}] with 1 <= n <= {max_rows}",
            field=f"{field}.shape",
        )
    data = numbers(tensor.data, field=f"{field}.data")
    if data and isinstance(data[0], list):
        if len(data) != tensor.shape[0] or any(len(row) != columns for row in data):
            raise InvalidInputError(f"{field}.data does not have the shape {tensor.shape}", field=f"{field}.data")
    elif len(data) != math.prod(tensor.shape):
        raise InvalidInputError(
            f"{field}.data has {len(data)} numbers; the shape {tensor.shape} needs {math.prod(tensor.shape)}",
            field=f"{field}.data",
        )
    with np.errstate(over="ignore"):  # what overflows float32 is refused by name afterwards
        rows = np.array(data, dtype=np.float64).reshape(tensor.shape).astype(np.float32)
    if not np.isfinite(rows).all():
        raise InvalidInputError(f"{field}.data must hold finite float32 numbers only", field=f"{field}.data")
    return rows


def _output(name: str, values: Any) -> dict[str, Any]:
    datatype = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}[values.dtype.name]
    return {"name": name, "datatype": datatype, "shape": list(values.shape), "data": values.ravel().tolist()}
