"""The servers that the platform is measured against, each a process of its own.

    python -m benchmarks.serving_rivals {constant,plain,stock} PORT [MODEL]

* ``constant``: uvicorn (uvloop, httptools) that reads the body and answers with a constant of a decision's length: the
  ceiling of any Python server behind uvicorn.
* ``plain``: FastAPI on uvicorn with the same policy in onnxruntime, nothing logged: what a team would write.
* ``stock``: the same policy in a deployment of Ray Serve as it comes, nothing logged.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before numpy is loaded: one thread per server, as the platform has it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

__all__ = ["CHOICES", "FEATURES", "make_bundle"]

FEATURES, HIDDEN, CHOICES = 32, 64, 10
CONSTANT = b'{"decision_id":"' + b"0" * 100 + b'","action":3,"policy":"bench","version":1,"variant":"champion"}'
CONSTANT += b" " * (240 - len(CONSTANT))


def _policy(path: str) -> Callable[[list[list[float]]], list[int]]:
    """The same policy, run in the same way, for the rivals."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def act(observations: list[list[float]]) -> list[int]:
        (logits,) = session.run(None, {"observation": np.array(observations, dtype=np.float32)})
        chosen: list[int] = logits.argmax(axis=1).tolist()
        return chosen

    return act


def _rival_app(act: Callable[[list[list[float]]], list[int]]) -> Any:
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    request: type[BaseModel] = create_model("Request", observation=(list[float], ...))
    app = FastAPI()

    async def decide(body: Any) -> dict[str, int]:
        return {"action": act(body.observation)}

    decide.__annotations__["body"] = request
    app.post("/decide")(decide)
    return app


async def _constant(_: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(CONSTANT)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CONSTANT})


def _plain(path: str) -> Any:
    from fastapi import FastAPI
    from pydantic import BaseModel, create_model

    act = _policy(path)
    one: type[BaseModel] = create_model("One", observation=(list[float], ...))
    many: type[BaseModel] = create_model("Many", observations=(list[list[float]], ...))
    app = FastAPI()

    async def decide(body: Any) -> dict[str, int]:
        return {"action": act([body.observation])[0]}

    async def decide_many(body: Any) -> dict[str, list[int]]:
        return {"actions": act(body.observations)}

    decide.__annotations__["body"] = one
    decide_many.__annotations__["body"] = many
    app.post("/decide")(decide)
    app.post("/decide-many")(decide_many)
    return app


def _serve_stock(path: str, port: int) -> None:
    import ray
    from ray import serve
    from ray.serve.config import HTTPOptions

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
            return {"action": self._act([body["observation"]])[0]}

    with tempfile.TemporaryDirectory(prefix="rs") as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        serve.run(Stock.bind(), route_prefix="/decide")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        ray.shutdown()


def make_bundle(folder: Path) -> Path:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=["constant", "plain", "stock"])
    parser.add_argument("port", type=int)
    parser.add_argument("model", nargs="?")
    arguments = parser.parse_args()
    if arguments.kind == "stock":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        _serve_stock(arguments.model, arguments.port)
        return
    import uvicorn

    app = _constant if arguments.kind == "constant" else _plain(arguments.model)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
