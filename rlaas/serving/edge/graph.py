"""The policy's ONNX graph as a device runs it: with the action at its end, and on request with weights of 8 bits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import BoxAction, ChoicesAction, DiscreteAction
from rlaas.errors import BundleError

__all__ = ["HEADS", "quantised", "with_action"]

HEADS = {"box": "mean", "discrete": "logits", "choices": "logits"}
"""The output that the action is worked out from, by kind of action."""


def with_action(model: bytes, action: BoxAction | DiscreteAction | ChoicesAction) -> bytes:
    """Append the mode of the distribution as output ``action``, so that a runtime knows no kinds of action.

    A box action is float32 [n, n_actions], ``low + (tanh(mean) + 1) / 2 * (high - low)``, cut to the bounds; a choice
    int64 [n]; several choices int64 [n, n_components].
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = onnx.load_from_string(model)
    head = HEADS[action.kind]
    initial: dict[str, NDArray[Any]] = {}
    if isinstance(action, BoxAction):
        low, high = np.array(action.low), np.array(action.high)
        initial = {
            "edge.one": np.ones(1, dtype=np.float32),
            "edge.half": (0.5 * (high - low)).astype(np.float32),
            "edge.offset": low.astype(np.float32),
            # The nearest float32 numbers that are not outside the bounds.
            "edge.low": _toward(low, high),
            "edge.high": _toward(high, low),
        }
        nodes = [
            helper.make_node("Tanh", [head], ["edge.tanh"]),
            helper.make_node("Add", ["edge.tanh", "edge.one"], ["edge.from_zero"]),
            helper.make_node("Mul", ["edge.from_zero", "edge.half"], ["edge.scaled"]),
            helper.make_node("Add", ["edge.scaled", "edge.offset"], ["edge.free"]),
            helper.make_node("Min", ["edge.free", "edge.high"], ["edge.capped"]),
            helper.make_node("Max", ["edge.capped", "edge.low"], ["action"]),
        ]
        value = helper.make_tensor_value_info("action", TensorProto.FLOAT, ["n", len(low)])
    elif isinstance(action, DiscreteAction):
        nodes = [helper.make_node("ArgMax", [head], ["action"], axis=1, keepdims=0)]
        value = helper.make_tensor_value_info("action", TensorProto.INT64, ["n"])
    else:
        count = len(action.sizes)
        initial = {"edge.sizes": np.array(action.sizes, dtype=np.int64)}
        parts = [f"edge.part{i}" for i in range(count)]
        nodes = [helper.make_node("Split", [head, "edge.sizes"], parts, axis=1)]
        nodes += [
            helper.make_node("ArgMax", [part], [f"edge.choice{i}"], axis=1, keepdims=1) for i, part in enumerate(parts)
        ]
        nodes.append(helper.make_node("Concat", [f"edge.choice{i}" for i in range(count)], ["action"], axis=1))
        value = helper.make_tensor_value_info("action", TensorProto.INT64, ["n", count])
    graph.graph.node.extend(nodes)
    graph.graph.output.append(value)
    graph.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in initial.items())
    return bytes(graph.SerializeToString())


def quantised(model: bytes) -> bytes:
    """The model with its matrices in 8 bits, the activations quantised as they come (dynamic quantisation).

    Weights use 7 of the 8 bits: on processors without VNNI the products of full ones saturate.

    Raises:
        BundleError: onnxruntime cannot quantise this graph.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="rlaas-") as scratch:
        given, prepared, done = (str(Path(scratch) / f"{name}.onnx") for name in ("given", "prepared", "done"))
        Path(given).write_bytes(model)
        try:
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_dynamic(prepared, done, weight_type=QuantType.QInt8, reduce_range=True)
        except Exception as problem:  # a family of errors of onnx and onnxruntime without a common base
            first = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise BundleError(
                f"the model cannot be quantised: {first}; export it without int8", field="int8"
            ) from problem
        return Path(done).read_bytes()


def _toward(bound: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float32]:
    single = bound.astype(np.float32)
    beyond = np.sign(single.astype(np.float64) - bound) == np.sign(bound - inside)
    return np.where(beyond & (bound != inside), np.nextafter(single, inside.astype(np.float32)), single)
