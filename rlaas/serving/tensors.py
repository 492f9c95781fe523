"""Tensors of the Open Inference Protocol V2 on the wire: JSON, or raw bytes behind a JSON header.

The binary form is the protocol's "binary tensor data extension": the header ``Inference-Header-Content-Length`` says
how long the JSON is, and behind it are the tensors' bytes, little-endian and row by row, in the order of the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import Float32
from rlaas.errors import InvalidInputError, check_choice
from rlaas.serving.requests import InferRequest, InferTensor, numbers

__all__ = ["Inference", "RawTensors", "encode_answer", "float_rows", "inference_headers"]

_FLOATS: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_DATATYPES: dict[np.dtype[Any], tuple[str, np.dtype[Any]]] = {
    np.dtype(np.float32): ("FP32", np.dtype("<f4")),
    np.dtype(np.float64): ("FP64", np.dtype("<f8")),
    np.dtype(np.int64): ("INT64", np.dtype("<i8")),
}
"""What an array is called on the wire, and how its bytes lie there."""


class Inference(msgspec.Struct, frozen=True):
    """An answer.

    Attributes:
        body: JSON, and behind it the bytes of binary tensors.
        header_length: length of the JSON where binary tensors follow; None where it is everything.
    """

    body: bytes
    header_length: int | None = None


def inference_headers(answer: Inference) -> dict[str, str]:
    """The headers that tell a client how to read an answer."""
    if answer.header_length is None:
        return {"Content-Type": "application/json"}
    return {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(answer.header_length),
    }


class RawTensors:
    """The bytes behind the JSON of a request, taken tensor by tensor.

    Args:
        data: those bytes; empty for a request in JSON.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, size: int, field: str) -> memoryview:
        """The next ``size`` bytes.

        Raises:
            InvalidInputError: there are fewer.
        """
        left = len(self._data) - self._taken
        if size > left:
            raise InvalidInputError(f"{field} is {size}, but {left} bytes are left behind the JSON", field=field)
        found = self._data[self._taken : self._taken + size]
        self._taken += size
        return found

    def check_empty(self) -> None:
        """Raise :class:`InvalidInputError` if bytes are left that no tensor claims."""
        left = len(self._data) - self._taken
        if left:
            raise InvalidInputError(f"body has {left} bytes more than its tensors declare", field="body")


def float_rows(tensor: InferTensor, raw: RawTensors, field: str, columns: int, max_rows: int) -> Float32:
    """A tensor of numbers as float32 [n, columns].

    Raises:
        InvalidInputError: another shape or datatype, or numbers that float32 does not have; names the field.
    """
    check_choice(tensor.datatype, _FLOATS, field=f"{field}.datatype", error=InvalidInputError)
    dtype = _FLOATS[tensor.datatype]
    shape = tensor.shape
    if len(shape) != 2 or shape[1] != columns or not 1 <= shape[0] <= max_rows:
        raise InvalidInputError(
            f"{field}.shape is {shape}; expected [n, {columns}] with 1 <= n <= {max_rows}", field=f"{field}.shape"
        )
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is None:
        rows = _from_json(tensor, field, columns)
    else:
        where = f"{field}.parameters.binary_data_size"
        expected = math.prod(shape) * dtype.itemsize
        if tensor.data is not None:
            raise InvalidInputError(
                f"{field} has data, and with binary_data_size bytes behind the JSON too; send one of them", field=where
            )
        if isinstance(size, bool) or size != expected:
            raise InvalidInputError(
                f"{where} is {str(size)[:40]}; the shape {shape} of {tensor.datatype} needs {expected}", field=where
            )
        rows = np.frombuffer(raw.take(expected, where), dtype=dtype).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        found = rows.astype(np.float32)
        flat = found.ravel()
        # A sum of squares is finite where all numbers are, but for large ones: a tenth of what asking each costs.
        if not math.isfinite(np.dot(flat, flat)) and not np.isfinite(flat).all():
            raise InvalidInputError(f"{field}.data must hold finite float32 numbers only", field=f"{field}.data")
    return found


def _from_json(tensor: InferTensor, field: str, columns: int) -> NDArray[np.float64]:
    if tensor.data is None:
        raise InvalidInputError(
            f"{field}.data is missing; send numbers, or bytes behind the JSON and parameters.binary_data_size",
            field=f"{field}.data",
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
    return np.array(data, dtype=np.float64).reshape(tensor.shape)


def encode_answer(
    request: InferRequest, head: Mapping[str, Any], outputs: Mapping[str, NDArray[Any] | Sequence[str]]
) -> Inference:
    """The answer with the outputs in the form that the request asks for.

    Args:
        request: its ``outputs`` name what is wanted, by default everything; ``binary_data_output`` among its parameters
            or ``binary_data`` among an output's ask for bytes.
        head: fields of the answer before ``outputs``.
        outputs: arrays by name, or texts (datatype BYTES).

    Raises:
        InvalidInputError: an output that there is not.
    """
    everywhere = bool((request.parameters or {}).get("binary_data_output", False))
    wanted = [(output.name, output.parameters or {}) for output in request.outputs or ()]
    wanted = wanted or [(name, {}) for name in outputs]
    documents: list[dict[str, Any]] = []
    chunks: list[bytes] = []
    for index, (name, parameters) in enumerate(wanted):
        check_choice(name, outputs, field=f"outputs[{index}].name", error=InvalidInputError)
        values = outputs[name]
        binary = bool(parameters.get("binary_data", everywhere))
        if isinstance(values, np.ndarray):
            datatype, wire = _DATATYPES[values.dtype]
            document = {"name": name, "datatype": datatype, "shape": list(values.shape)}
            data = values.ravel().tolist() if not binary else values.astype(wire, copy=False).tobytes()
        else:
            document = {"name": name, "datatype": "BYTES", "shape": [len(values)]}
            # Each text behind its length, as the extension has it.
            texts = [text.encode() for text in values] if binary else []
            data = b"".join(len(t).to_bytes(4, "little") + t for t in texts) if binary else list(values)
        if isinstance(data, bytes):
            chunks.append(data)
            documents.append({**document, "parameters": {"binary_data_size": len(data)}})
        else:
            documents.append({**document, "data": data})
    answer = {**head, "outputs": documents}
    body = msgspec.json.encode(answer if request.id is None else {**answer, "id": request.id})
    return Inference(body + b"".join(chunks), len(body)) if chunks else Inference(body)
