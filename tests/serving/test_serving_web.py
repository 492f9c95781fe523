"""The routes over ASGI, without Ray: what a Gateway answers to anything that may arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from support.bundles import policy_bundle
from support.lanes import StandIn
from support.serving_kit import Bench, deployment, make_bench

from rlaas.bundles import load_bundle
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.pressure import Pressure
from rlaas.serving.transport import Limits
from rlaas.serving.web import ControlReply, ControlRequest, create_app

ROW = [0.1, -0.5, 2.0]


class Forwarding(StandIn):
    """Notes what is for Control, and answers it."""

    def __init__(self, engine: DecisionEngine | None) -> None:
        super().__init__(engine, limits=Limits(4096, 5.0))
        self.forwarded: list[ControlRequest] = []

    async def forward(self, request: ControlRequest) -> ControlReply:
        self.forwarded.append(request)
        if request.path.endswith("crash"):
            raise ZeroDivisionError("a secret of the house")
        return ControlReply(201, b'{"ok":true}', {"ETag": '"1"'})


class Site:
    """The routes, behind the fast lane or not: whatever is asserted of one has to hold of the other."""

    def __init__(self, lane: Forwarding, *, fast: bool = False) -> None:
        self.lane = lane
        self._fast = fast
        self._app = FastLane(create_app(lane))

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        with self._gateway():
            return self._send(method, path, **options)

    @contextmanager
    def _gateway(self) -> Iterator[None]:
        if self._fast:
            FastLane.gateway = HotPath(self.lane.tenant, self.lane.limits, 8, Pressure())
            FastLane.gateway.refresh(self.lane.engine())
        try:
            yield
        finally:
            FastLane.gateway = None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        ("toy", 1): policy_bundle(root / "toy1", seed=1),
        ("toy", 2): policy_bundle(root / "toy2", seed=2),
        ("box", 1): policy_bundle(root / "box1", kind="box", actions=2),
    }


@pytest.fixture
def bench(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> Bench:
    two = [{"name": "a", "version": 1, "weight": 1}, {"name": "b", "version": 2, "weight": 3}]
    one = [{"name": "a", "version": 1, "weight": 1}]
    return make_bench(tmp_path, paths, deployment("toy", two), deployment("box", one))


@pytest.fixture(params=["routes", "fast lane"])
def site(request: pytest.FixtureRequest, bench: Bench) -> Site:
    return Site(Forwarding(bench.engine), fast=request.param == "fast lane")


def _tensor(**change: Any) -> dict[str, Any]:
    return {"name": "observation", "shape": [2, 3], "datatype": "FP32", "data": ROW + ROW, **change}


def test_not_ready_until_a_policy_is_loaded(bench: Bench, site: Site) -> None:
    waiting = Site(Forwarding(None))
    assert waiting("GET", "/health").status_code == 200
    for path in ("/ready", "/v2/health/ready", "/v2/models/toy"):
        answer = waiting("GET", path)
        assert (answer.status_code, answer.json()["code"]) == (503, "NotReadyError")
    assert waiting("POST", "/api/v1/policies/toy/decide", json={}).status_code == 503
    assert site("GET", "/ready").json() == {"status": "ready", "policies": {"box": 1, "toy": 1}}
    bench.switch()
    assert site("GET", "/ready").status_code == 503
    assert site("GET", "/v2/health/live").json() == {"live": True}


def test_decisions_and_outcomes_travel(site: Site, bench: Bench) -> None:
    answer = site("POST", "/api/v1/policies/toy/decide", json={"observation": ROW})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    outcome = {"outcome_id": "o", "decision_id": answer.json()["decision_id"], "outcome": {"latency": 1}}
    accepted = site("POST", "/api/v1/outcomes", json=outcome)
    assert accepted.status_code == 202
    assert accepted.json()["accepted"][0]["receipt_id"] == bench.logged_outcomes()[0].receipt_id


def test_metrics_are_what_prometheus_reads(site: Site) -> None:
    assert site("POST", "/api/v1/policies/box/decide", json={"observations": [ROW] * 3}).status_code == 200
    answer = site("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.labels.get("policy") == "box"
    }
    assert samples["rlaas_decisions_total", None] == 3
    assert samples["rlaas_decision_latency_microseconds_count", None] == 3
    assert samples["rlaas_decision_latency_microseconds_bucket", "+Inf"] == 3
    assert samples["rlaas_decision_latency_microseconds_sum", None] > 0
    rising = [value for (name, _), value in samples.items() if name.endswith("_bucket")]
    assert rising == sorted(rising)


def test_a_large_batch_gives_the_same_answer_from_its_thread(site: Site) -> None:
    rows = [ROW] * 90
    small = site("POST", "/api/v1/policies/box/decide", json={"observations": rows}).json()["decisions"]
    site.lane.limits = Limits(10**6, 5.0)
    padded = json.dumps({"observations": rows}).encode() + b" " * 70_000
    large = site("POST", "/api/v1/policies/box/decide", content=padded).json()["decisions"]
    assert [d["action"] for d in large] == [d["action"] for d in small]


def test_v2_metadata_and_inference(site: Site, paths: dict[tuple[str, int], Path]) -> None:
    metadata = site("GET", "/v2/models/toy/versions/1").json()
    assert metadata["versions"] == ["1", "2"]
    assert metadata["outputs"][-1] == {"name": "action", "datatype": "INT64", "shape": [-1]}
    assert site("GET", "/v2/models/box").json()["outputs"][-1]["shape"] == [-1, 2]
    assert site("GET", "/v2/models/toy/versions/2/ready").json() == {"name": "toy", "ready": True}
    # Without a version the one with the largest share answers; data may be flat or nested.
    flat = site("POST", "/v2/models/toy/infer", json={"id": "x", "inputs": [_tensor()]}).json()
    nested = site("POST", "/v2/models/toy/versions/2/infer", json={"inputs": [_tensor(data=[ROW, ROW])]}).json()
    assert (flat["id"], flat["model_version"]) == ("x", "2")
    assert flat["outputs"] == nested["outputs"]
    bundle = load_bundle(paths["toy", 2])
    expected = bundle.forward(bundle.check_observations([ROW, ROW]), bundle.preference({"latency": 1}))
    weights = {"name": "preference", "shape": [1, 2], "datatype": "FP64", "data": [5, 0]}
    body = {"inputs": [_tensor(), weights], "outputs": [{"name": "logits"}]}
    (logits,) = site("POST", "/v2/models/toy/infer", json=body).json()["outputs"]
    assert (logits["shape"], logits["datatype"]) == ([2, 4], "FP32")
    assert logits["data"] == pytest.approx(expected["logits"].ravel().tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("inputs", "more", "field"),
    [
        ([], {}, "inputs"),
        ([_tensor(name="colour")], {}, "inputs[0].name"),
        ([_tensor(), _tensor()], {}, "inputs[1].name"),
        ([_tensor(datatype="INT8")], {}, "inputs[0].datatype"),
        ([_tensor(shape=[6])], {}, "inputs[0].shape"),
        ([_tensor(shape=[3, 2])], {}, "inputs[0].shape"),
        ([_tensor(shape=[10**9, 3])], {}, "inputs[0].shape"),
        ([_tensor(shape=[-2, 3])], {}, "inputs[0].shape[0]"),
        ([_tensor(data=ROW)], {}, "inputs[0].data"),
        ([_tensor(data=[ROW, [1, 2]])], {}, "inputs[0].data"),
        ([_tensor(data=["a"] * 6)], {}, "inputs[0].data[0]"),
        ([_tensor(data="abc")], {}, "inputs[0].data"),
        ([_tensor(data=[1e39] * 6)], {}, "inputs[0].data"),
        ([_tensor(colour=1)], {}, "inputs[0].colour"),
        ([_tensor(), {"name": "preference", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]}], {}, "preference[0]"),
        (
            [_tensor(), {"name": "preference", "shape": [3, 2], "datatype": "FP32", "data": [1] * 6}],
            {},
            "preference",
        ),
        ([_tensor()], {"outputs": [{"name": "colour"}]}, "outputs[0].name"),
    ],
)
def test_a_bad_tensor_names_the_field(site: Site, inputs: list[Any], more: dict[str, Any], field: str) -> None:
    answer = site("POST", "/v2/models/toy/infer", json={"inputs": inputs, **more})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "field"),
    [
        ("GET", "/", 404, "path"),
        ("GET", "/v2/models/toy/versions/7", 404, "version"),
        ("GET", "/v2/models/nobody/ready", 404, "model"),
        ("POST", "/v2/models/..%2f..%2fpasswd/infer", 422, "model"),
        ("POST", "/api/v1/policies/%2e%2e%2ftoy/decide", 422, "policy"),
        ("POST", "/api/v1/policies/a%00b/decide", 422, "policy"),
        ("DELETE", "/api/v1/outcomes", 405, "method"),
        ("PUT", "/health", 405, "method"),
    ],
)
def test_routes_refuse_with_a_problem_document(site: Site, method: str, path: str, status: int, field: str) -> None:
    body = (
        json.dumps({"observation": ROW, "inputs": [_tensor()]})
        if "passwd" in path
        else json.dumps({"observation": ROW})
    )
    answer = site(method, path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document = answer.json()
    assert (document["status"], document["field"]) == (status, field)
    assert document["title"]
    assert document["type"]
    assert ("allow" in answer.headers) == (status == 405)


def test_bodies_are_limited_whether_declared_or_streamed(site: Site) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 1000

    for content in (b" " * 4097, chunks()):
        answer = site("POST", "/api/v1/outcomes", content=content)
        assert (answer.status_code, answer.json()["field"]) == (413, "body")
    assert site("POST", "/api/v1/outcomes", content=b" " * 4096).status_code == 400


def test_control_requests_are_passed_on_as_they_are(site: Site) -> None:
    answer = site(
        "POST", "/api/v1/deployments/create?x=1", content=b"{}", headers={"Idempotency-Key": "k", "Cookie": "no"}
    )
    assert (answer.status_code, answer.json(), answer.headers["etag"]) == (201, {"ok": True}, '"1"')
    (request,) = site.lane.forwarded
    assert (request.method, request.path, request.query) == ("POST", "/api/v1/deployments/create", {"x": "1"})
    assert (request.headers, request.body, request.tenant) == ({"idempotency-key": "k"}, b"{}", "default")


def test_a_crash_is_a_500_that_tells_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    answer = site("GET", "/api/v1/models/crash")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "a secret of the house" in "".join(capsys.readouterr())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=st.one_of(
        st.text(max_size=20),
        st.builds("api/v1/policies/{}/decide".format, st.text(max_size=10)),
        st.builds("v2/models/{}/infer".format, st.text(max_size=10)),
        st.builds("v2/models/toy/versions/{}/infer".format, st.text(max_size=10)),
        st.sampled_from(["v2/models/toy/infer", "api/v1/policies/toy/decide", "api/v1/outcomes"]),
    ),
    body=st.binary(max_size=40)
    | st.recursive(
        st.none() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["inputs", "observation", "outcomes", "name", "shape", "data"]), inner)
        ),
    ).map(lambda document: json.dumps(document).encode()),
)
@example(
    "POST", "v2/models/toy/infer", b'{"inputs": [{"name": "observation", "shape": [], "datatype": "FP32", "data": []}]}'
)
@example("POST", "api/v1/policies/\udcff/decide", b"{}")
def test_nothing_that_arrives_is_a_5xx(site: Site, method: str, path: str, body: bytes) -> None:
    raw = path.encode("utf-8", "surrogatepass")
    quoted = "/" + "".join(f"%{byte:02x}" if not chr(byte).isalnum() and byte != 0x2F else chr(byte) for byte in raw)
    answer = site(method, f"http://test{quoted}", content=body)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.json()["detail"]
