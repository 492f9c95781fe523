"""The binary tensor extension of the V2 protocol, against the same tensors as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import InvalidInputError, RequestError

ROWS = np.array([[0.1, -0.5, 2.0], [1.0, 0.0, -3.0]], dtype=np.float32)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("binary")
    paths = {("toy", 1): policy_bundle(root / "toy", seed=1)}
    return make_bench(root, paths, deployment("toy", [{"name": "a", "version": 1, "weight": 1}]))


def _infer(bench: Bench, document: Any, *tensors: bytes) -> tuple[dict[str, Any], bytes]:
    header = json.dumps(document).encode()
    answer = bench.engine.infer(PRINCIPAL, "toy", None, header + b"".join(tensors), len(header) if tensors else None)
    length = len(answer.body) if answer.header_length is None else answer.header_length
    return json.loads(answer.body[:length]), answer.body[length:]


def _binary(name: str, array: np.ndarray, datatype: str, **parameters: Any) -> dict[str, Any]:
    size = {"binary_data_size": array.nbytes, **parameters}
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": size}


@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", "<f4"), ("FP64", "<f8")])
def test_bytes_and_json_give_the_same(bench: Bench, datatype: str, dtype: str) -> None:
    weights = np.array([[0.25, 0.75]])
    plain = {
        "inputs": [
            {"name": "observation", "shape": [2, 3], "datatype": "FP32", "data": ROWS.ravel().tolist()},
            {"name": "preference", "shape": [1, 2], "datatype": "FP64", "data": weights.ravel().tolist()},
        ]
    }
    expected, nothing = _infer(bench, plain)
    assert nothing == b""
    raw = ROWS.astype(dtype)
    request = {
        "id": "7",
        "inputs": [_binary("observation", raw, datatype), _binary("preference", weights, "FP64")],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}, {"name": "action"}],
    }
    answer, data = _infer(bench, request, raw.tobytes(), weights.tobytes())
    logits, action = answer["outputs"]
    by_name = {output["name"]: output for output in expected["outputs"]}
    assert answer["id"] == "7"
    assert action == by_name["action"]
    assert (logits["shape"], logits["parameters"]["binary_data_size"]) == ([2, 4], len(data))
    assert np.frombuffer(data, "<f4").tolist() == by_name["logits"]["data"]

    everything = {**request, "outputs": None, "parameters": {"binary_data_output": True}}
    answer, data = _infer(bench, everything, raw.tobytes(), weights.tobytes())
    sizes = [output["parameters"]["binary_data_size"] for output in answer["outputs"]]
    assert sum(sizes) == len(data)
    assert np.frombuffer(data[-sizes[-1] :], "<i8").tolist() == by_name["action"]["data"]


@pytest.mark.parametrize(("value", "taken"), [(1e30, True), (-3e38, True), (np.inf, False), (np.nan, False)])
@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", "<f4"), ("FP64", "<f8")])
@pytest.mark.filterwarnings("error")
def test_numbers_are_taken_as_far_as_float32_goes(
    bench: Bench, value: float, taken: bool, datatype: str, dtype: str
) -> None:
    rows = np.array([[0.0, value, 1.0]], dtype=dtype)
    request = {"inputs": [_binary("observation", rows, datatype)], "outputs": [{"name": "action"}]}
    if taken:
        _infer(bench, request, rows.tobytes())
    else:
        with pytest.raises(InvalidInputError, match=r"inputs\[0\]\.data must hold finite float32 numbers"):
            _infer(bench, request, rows.tobytes())


def test_what_is_to_be_logged_is_decided_as_decide_does(bench: Bench) -> None:
    before = len(bench.logged_decisions())
    parameters = {"log": True, "unit": ["u", "v"], "session": "s", "step": 4, "mode": "normal"}
    document = {"inputs": [_binary("observation", ROWS, "FP32")], "parameters": parameters}
    answer, _ = _infer(bench, document, ROWS.tobytes())
    decided = bench.decide("toy", observations=ROWS.astype(float).tolist(), mode="normal")["decisions"]
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["action"]["data"] == [d["action"] for d in decided]
    assert outputs["version"] == {"name": "version", "datatype": "INT64", "shape": [2], "data": [1, 1]}
    logged = bench.logged_decisions()[before : before + 2]
    assert outputs["decision_id"]["datatype"] == "BYTES"
    assert outputs["decision_id"]["data"] == [record.decision_id for record in logged]
    assert [(r.unit, r.session, r.step, r.mode) for r in logged] == [("u", "s", 4, "normal"), ("v", "s", 4, "normal")]
    assert [r.observation for r in logged] == ROWS.astype(float).tolist()


@pytest.mark.parametrize(
    ("parameters", "version", "field"),
    [
        ({"log": "yes"}, None, "parameters.log"),
        ({"log": True, "step": -1}, None, "parameters.step"),
        ({"log": True, "unit": ["u"]}, None, "unit"),
        ({"log": True}, "1", "version"),
    ],
)
def test_a_log_that_cannot_be_kept_is_refused(
    bench: Bench, parameters: dict[str, Any], version: str | None, field: str
) -> None:
    tensor = {"name": "observation", "shape": [2, 3], "datatype": "FP32", "data": ROWS.ravel().tolist()}
    before = len(bench.logged_decisions())
    with pytest.raises(InvalidInputError) as caught:
        bench.engine.infer(
            PRINCIPAL, "toy", version, json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        )
    assert caught.value.field == field
    assert len(bench.logged_decisions()) == before


@pytest.mark.parametrize(
    ("change", "tail", "field"),
    [
        ({"binary_data_size": 23}, b"", "inputs[0].parameters.binary_data_size"),
        ({"binary_data_size": "24"}, b"", "inputs[0].parameters.binary_data_size"),
        ({"binary_data_size": True}, b"", "inputs[0].parameters.binary_data_size"),
        ({}, b"more", "body"),
    ],
)
def test_sizes_that_do_not_add_up_name_the_field(bench: Bench, change: Any, tail: bytes, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _infer(bench, {"inputs": [_binary("observation", ROWS, "FP32", **change)]}, ROWS.tobytes() + tail)
    assert caught.value.field == field


def test_missing_bytes_a_long_header_and_no_numbers_are_refused(bench: Bench) -> None:
    document = {"inputs": [_binary("observation", ROWS, "FP32")]}
    with pytest.raises(InvalidInputError, match=r"is 24, but 8 bytes are left"):
        _infer(bench, document, ROWS.tobytes()[:8])
    with pytest.raises(InvalidInputError, match="inference-header-content-length is 99"):
        bench.engine.infer(PRINCIPAL, "toy", None, b"{}", 99)
    for bad in (np.nan, np.inf):
        rows = ROWS.copy()
        rows[1, 2] = bad
        with pytest.raises(InvalidInputError, match="finite float32"):
            _infer(bench, document, rows.tobytes())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 100))
def test_no_bytes_do_more_than_be_refused(bench: Bench, body: bytes, header_length: int) -> None:
    with pytest.raises(RequestError):
        bench.engine.infer(PRINCIPAL, "toy", None, body, header_length)
