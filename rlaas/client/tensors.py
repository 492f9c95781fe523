"""Tensors of the Open Inference Protocol V2 as numpy arrays, in the protocol's binary form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.client.answers import Reply, read_answer
from rlaas.errors import InvalidInputError, OperatorError

__all__ = ["HEADER", "encode_arrays", "read_arrays"]

HEADER = "Inference-Header-Content-Length"
_SENT = {np.dtype(np.float32): "FP32", np.dtype(np.float64): "FP64"}
_RECEIVED: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "INT64": np.dtype("<i8")}
Document = dict[str, Any]


def encode_arrays(
    inputs: Mapping[str, ArrayLike], outputs: Sequence[str] | None, parameters: Mapping[str, Any] | None
) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request.

    Args:
        inputs: arrays [n, columns] by name; what is neither float32 nor float64 is sent as float32.
        outputs: names of what is wanted; None for everything.
        parameters: of the request.

    Raises:
        InvalidInputError: an input that is no array of numbers.
    """
    tensors: list[Document] = []
    chunks: list[bytes] = []
    for name, value in inputs.items():
        array = _floats(name, value)
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        chunks.append(data)
        tensors.append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _SENT[array.dtype],
                "parameters": {"binary_data_size": len(data)},
            }
        )
    document: Document = {"inputs": tensors, "parameters": {"binary_data_output": True, **(parameters or {})}}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    try:
        head = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, TypeError) as problem:
        raise InvalidInputError(f"parameters cannot be written as JSON: {problem}", field="parameters") from problem
    headers = {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
    return head + b"".join(chunks), headers


def _floats(name: str, value: ArrayLike) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(f"inputs.{name} must hold numbers, got {array.dtype}", field=f"inputs.{name}")
    return array if array.dtype in _SENT else array.astype(np.float32)


def read_arrays(reply: Reply) -> Document:
    """The document of an answer, with ``outputs`` as arrays (texts as a list) by name.

    Raises:
        RlaasError: the error that the platform answered with, or an answer that cannot be read.
    """
    length = reply.headers.get(HEADER.lower())
    if length is None or not length.isdecimal():
        document, raw = read_answer(reply), b""
    else:
        head = Reply(reply.status, reply.headers, reply.body[: int(length)], reply.url)
        document, raw = read_answer(head), reply.body[int(length) :]
    outputs: dict[str, Any] = {}
    taken = 0
    try:
        for tensor in document["outputs"]:
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            if size is None:
                outputs[tensor["name"]] = _from_json(tensor)
                continue
            chunk = raw[taken : taken + size]
            taken += size
            outputs[tensor["name"]] = _from_bytes(tensor, chunk)
    except (KeyError, TypeError, ValueError) as problem:
        raise OperatorError(f"the tensors from {reply.url} cannot be read: {problem}", field="outputs") from problem
    return {**document, "outputs": outputs}


def _from_json(tensor: Mapping[str, Any]) -> Any:
    if tensor["datatype"] == "BYTES":
        return list(tensor["data"])
    return np.array(tensor["data"], dtype=_RECEIVED[tensor["datatype"]]).reshape(tensor["shape"])


def _from_bytes(tensor: Mapping[str, Any], chunk: bytes) -> Any:
    if tensor["datatype"] != "BYTES":
        return np.frombuffer(chunk, dtype=_RECEIVED[tensor["datatype"]]).reshape(tensor["shape"])
    texts: list[str] = []
    at = 0
    for _ in range(math.prod(tensor["shape"])):
        size = int.from_bytes(chunk[at : at + 4], "little")
        texts.append(chunk[at + 4 : at + 4 + size].decode())
        at += 4 + size
    if at != len(chunk):
        raise ValueError(f"{tensor['name']} has {len(chunk)} bytes, its texts {at}")
    return texts
