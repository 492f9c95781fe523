"""Open Inference Protocol V2: metadata and inference.

The protocol is KServe's "Open Inference Protocol, version 2" (predict, REST).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaas.bundles import BoxAction, ChoicesAction, Float32
from rlaas.errors import BundleError, InvalidInputError, NotFoundError, RetryableError, check_choice
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.requests import DecideRequest, InferRequest, convert_decide
from rlaas.serving.rows import storable
from rlaas.serving.tally import Tally
from rlaas.serving.tensors import Inference, RawTensors, encode_answer, float_rows

__all__ = ["InferInput", "infer", "logging_of", "model_metadata", "read_input", "versioned"]

_LOGGED = ("unit", "session", "step", "mode", "preference", "constraints", "context")
"""Parameters that say what a decision is logged under, as the fields of decide do."""


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


@dataclass(frozen=True, slots=True)
class InferInput:
    """What a request puts into the network.

    Attributes:
        variant: that runs it.
        observations: float32 [n, n_features].
        preferences: float32 [n, n_objectives] or [n_objectives]; None for an unconditioned policy.
    """

    variant: LoadedVariant
    observations: Float32
    preferences: Float32 | None


def read_input(
    live: LivePolicy, version: str | None, request: InferRequest, raw: memoryview, max_rows: int
) -> InferInput:
    """The checked tensors of a request.

    Args:
        live, version: what to run; see :func:`versioned`.
        request: the JSON.
        raw: bytes behind it.
        max_rows: observations allowed.

    Raises:
        InvalidInputError: a tensor of the wrong name, shape, datatype or value.
        NotFoundError: the version is not live.
    """
    variant = versioned(live, version)
    policy = variant.policy
    expected = {"observation": policy.n_features}
    if policy.manifest.preference_conditioned:
        expected["preference"] = len(policy.objectives)
    tensors: dict[str, Float32] = {}
    source = RawTensors(raw)
    for index, tensor in enumerate(request.inputs):
        check_choice(tensor.name, expected, field=f"inputs[{index}].name", error=InvalidInputError)
        if tensor.name in tensors:
            raise InvalidInputError(f"inputs[{index}].name {tensor.name!r} is repeated", field=f"inputs[{index}].name")
        tensors[tensor.name] = float_rows(tensor, source, f"inputs[{index}]", expected[tensor.name], max_rows)
    source.check_empty()
    if "observation" not in tensors:
        raise InvalidInputError("inputs needs a tensor named 'observation'", field="inputs")
    observations = tensors["observation"]
    parameters = request.parameters or {}
    said = convert_decide({name: parameters[name] for name in ("mode", "preference") if name in parameters})
    preferences = _preferences(variant, tensors.get("preference"), len(observations), said)
    return InferInput(variant, observations, preferences)


def infer(live: LivePolicy, request: InferRequest, given: InferInput, tally: Tally) -> Inference:
    """Run the network: its raw outputs, and ``action``, the mode of the distribution.

    Raises:
        InvalidInputError: an unknown output.
        RetryableError: the version gave no number; the tally counts it.
    """
    policy, version = given.variant.policy, given.variant.version
    try:
        outputs: dict[str, Any] = dict(policy.forward(given.observations, given.preferences))
    except BundleError as problem:
        tally.failed(live.record.policy, version)
        raise RetryableError(f"version {version} of {live.record.policy!r} cannot answer this") from problem
    outputs["action"] = policy.modes(outputs)
    return encode_answer(
        request, {"model_name": live.record.policy, "model_version": str(given.variant.version)}, outputs
    )


def logging_of(request: InferRequest, version: str | None) -> DecideRequest | None:
    """What to log the rows of a request under, from its parameters; None where nothing is to be logged.

    Raises:
        InvalidInputError: a parameter of the wrong type, or a version or preference tensor beside ``log``.
    """
    parameters = request.parameters or {}
    wanted = parameters.get("log", False)
    if not isinstance(wanted, bool):
        raise InvalidInputError("parameters.log must be true or false", field="parameters.log")
    if not wanted:
        return None
    if version is not None:
        raise InvalidInputError("the deployment chooses the version of a decision: leave it out", field="version")
    if any(tensor.name == "preference" for tensor in request.inputs):
        raise InvalidInputError(
            "a decision that is logged takes parameters.preference or parameters.mode, not a tensor", field="inputs"
        )
    said = convert_decide({name: value for name, value in parameters.items() if name in _LOGGED})
    storable(said.context, max(tensor.shape[0] for tensor in request.inputs))
    return said


def _preferences(variant: LoadedVariant, given: Float32 | None, rows: int, said: DecideRequest) -> Float32 | None:
    if given is None:
        return variant.preference(said.mode, said.preference)[0]
    if said.mode is not None or said.preference is not None:
        raise InvalidInputError("send a preference as a tensor or in the parameters, not both", field="parameters")
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
