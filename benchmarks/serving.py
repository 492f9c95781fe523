"""Decisions per second over HTTP: the platform, with every decision logged, against servers that log nothing.

Three servers answer the same request (32 features, a 64x64 tanh policy in onnxruntime) on the same machine in the
same run, in turns: ours through Ray Serve; a stock Ray Serve deployment; a plain FastAPI application on uvicorn, which
is what a team would write without a platform. The load comes from a process of its own over keep-alive connections.

    python benchmarks/serving.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.harness import Row, parse_arguments, report

FEATURES, HIDDEN, CHOICES = 32, 64, 10
BODY = json.dumps({"observation": [round(0.01 * i, 4) for i in range(FEATURES)]}).encode()


ROOT = Path(__file__).parent.parent


def main() -> None:
    arguments = parse_arguments("serving", _own_arguments)
    if arguments.load:
        url, seconds, connections = arguments.load
        print(asyncio.run(_load(httpx.URL(url), float(seconds), int(connections))))
        return
    if arguments.plain:
        _serve_plain(*arguments.plain)
        return
    root = Path(tempfile.mkdtemp(prefix="rb", dir=tempfile.gettempdir()))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints there, and the result must stand alone
            rows = _measure(root, seconds=1.0 if arguments.quick else 8.0, rounds=1 if arguments.quick else 5)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report("serving", rows, arguments.json)


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--plain", nargs=2, help=argparse.SUPPRESS)


def _measure(root: Path, *, seconds: float, rounds: int) -> list[Row]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from rlaas.control import start_platform, stop_platform
    from rlaas.registry import Registry
    from rlaas.serving import ServingConfig
    from rlaas.settings import load_settings

    bundle = _make_bundle(root / "bundle")
    settings = load_settings(home=root / "home")
    Registry(settings).register("bench", bundle, alias="champion")
    port, plain_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "benchmarks.serving", "--plain", str(bundle / "policy.onnx"), str(plain_port)]
    plain = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(root / "ray"))
    try:
        config = ServingConfig.model_validate({"gateway": {"num_cpus": 0.5}})
        base = start_platform(config, settings, port=port)
        serve.run(_stock_application(str(bundle / "policy.onnx")), name="stock", route_prefix="/stock")
        urls = {
            "ours": f"{base}/api/v1/policies/bench/decide",
            "stock": f"{base}/stock/decide",
            "plain": f"http://127.0.0.1:{plain_port}/decide",
        }
        for url in urls.values():
            _await(url)
        measured: dict[tuple[str, int], list[float]] = {}
        for _ in range(rounds):
            for connections in (1, 32):
                for name, url in urls.items():
                    measured.setdefault((name, connections), []).append(_rate(url, seconds, connections))
        stop_platform()
    finally:
        plain.terminate()
        plain.wait()
        ray.shutdown()
    middle = {key: statistics.median(values) for key, values in measured.items()}
    rivals = {
        "stock": f"stock Ray Serve {version('ray')}, nothing logged",
        "plain": f"FastAPI {version('fastapi')} on uvicorn {version('uvicorn')}, nothing logged",
    }
    return [
        Row(
            f"decisions, logged, {connections} connection{'s' if connections > 1 else ''}",
            "1/s",
            ours=middle["ours", connections],
            rival=rival,
            rival_value=middle[name, connections],
        )
        for connections in (1, 32)
        for name, rival in rivals.items()
    ]


def _policy(path: str) -> Callable[[list[float]], int]:
    """The same policy, run in the same way, for the rivals."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def act(observation: list[float]) -> int:
        (logits,) = session.run(None, {"observation": np.array([observation], dtype=np.float32)})
        return int(logits[0].argmax())

    return act


def _rival_app(act: Callable[[list[float]], int]) -> Any:
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    request: type[BaseModel] = create_model("Request", observation=(list[float], ...))
    app = FastAPI()

    async def decide(body: Any) -> dict[str, int]:
        return {"action": act(body.observation)}

    decide.__annotations__["body"] = request
    app.post("/decide")(decide)
    return app


def _serve_plain(path: str, port: str) -> None:
    import uvicorn

    uvicorn.run(_rival_app(_policy(path)), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


def _stock_application(path: str) -> Any:
    from ray import serve

    @serve.deployment(
        ray_actor_options={"num_cpus": 0.5},
        max_ongoing_requests=64,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    class Stock:
        def __init__(self) -> None:
            self._act = _policy(path)

        async def __call__(self, request: Any) -> dict[str, int]:
            body = await request.json()
            return {"action": self._act(body["observation"])}

    return Stock.bind()


async def _load(url: httpx.URL, seconds: float, connections: int) -> float:
    """Requests per second over keep-alive connections, each sending the next when it has the answer."""
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    )
    message = head.encode() + BODY
    done = 0
    started = time.perf_counter()

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(url.host, url.port)
        while time.perf_counter() - started < seconds:
            writer.write(message)
            header = await reader.readuntil(b"\r\n\r\n")
            lower = header.lower()
            if not lower.startswith(b"http/1.1 200"):
                raise RuntimeError(f"{url}: {header.splitlines()[0].decode()}")
            if b"content-length:" in lower:
                length = int(lower.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
            else:
                while (size := int(await reader.readline(), 16)) > 0:
                    await reader.readexactly(size + 2)
                await reader.readline()
            done += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return done / (time.perf_counter() - started)


def _rate(url: str, seconds: float, connections: int) -> float:
    command = [sys.executable, "-m", "benchmarks.serving", "--load", url, str(seconds), str(connections)]
    return float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def _await(url: str) -> None:
    deadline = time.monotonic() + 60
    headers = {"Content-Type": "application/json"}
    while time.monotonic() < deadline:
        try:
            if httpx.post(url, content=BODY, headers=headers, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _make_bundle(folder: Path) -> Path:
    """A 64x64 tanh policy over 32 features with 10 choices."""
    from safetensors.numpy import save_file

    from rlaas.bundles import BundleManifest, DiscreteAction, GoldenBatch, ObservationSpec, sha256_of, write_manifest

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    sizes = [FEATURES, HIDDEN, HIDDEN, CHOICES]
    weights = {
        f"w{i}": (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
        for i, shape in enumerate(itertools.pairwise(sizes))
    }
    nodes = [
        helper.make_node("MatMul", ["observation", "w0"], ["a0"]),
        helper.make_node("Tanh", ["a0"], ["h0"]),
        helper.make_node("MatMul", ["h0", "w1"], ["a1"]),
        helper.make_node("Tanh", ["a1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CHOICES])],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / "policy.onnx"))
    save_file(weights, folder / "policy.safetensors")
    rows = rng.normal(size=(4, FEATURES)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"observation": rows})
    names = tuple(f"x{i}" for i in range(FEATURES))
    write_manifest(
        folder,
        BundleManifest(
            scenario="bench",
            algorithm="ppo",
            created="2026-01-01T00:00:00Z",
            observation=ObservationSpec(names=names, low=(None,) * FEATURES, high=(None,) * FEATURES),
            action=DiscreteAction(n=CHOICES),
            objectives=({"name": "reward", "unit": "", "direction": "maximize", "low": 0.0, "high": 1.0},),
            preference_conditioned=False,
            golden=GoldenBatch(
                observations=tuple(map(tuple, rows.tolist())),
                preferences=None,
                outputs={"logits": tuple(map(tuple, logits.tolist()))},
            ),
            files={name: sha256_of(folder / name) for name in ("policy.onnx", "policy.safetensors")},
        ),
    )
    return folder


if __name__ == "__main__":
    main()
