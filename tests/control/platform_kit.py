"""Helpers of the tests of the whole platform."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import helper
from support.bundles import policy_bundle

from rlaas.bundles import MANIFEST, MODEL, BundleManifest, write_manifest
from rlaas.client import Client
from rlaas.files import sha256_of
from rlaas.lake import Lake
from rlaas.settings import Settings

__all__ = [
    "Platform",
    "Traffic",
    "await_live",
    "bundle_without_answer_at_zero",
    "exploring",
    "free_port",
    "gateway_pids",
    "problem",
    "processes_of",
    "replica_urls",
    "until",
]


@dataclass
class Platform:
    url: str
    settings: Settings
    client: Client
    lake: Lake


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the condition did not come true")


def await_live(client: Client, deployment: str) -> dict[str, Any]:
    return until(lambda: (status := client.deployment_status(deployment)) and status["ready"] and status)


def exploring(decide: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The first answer in which something was explored.

    A Gateway whose event loop lags, as on a busy machine that has just loaded a policy, serves without exploring.
    """

    def ask() -> dict[str, Any] | None:
        answer = decide()
        made = answer.get("decisions", [answer])
        return answer if any(decision["action_propensity"] is not None for decision in made) else None

    found: dict[str, Any] = until(ask)
    return found


def gateway_pids(root: Path) -> list[int]:
    """Processes of the Gateway replicas of the cluster under ``root``, and of no other on this machine."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_text()
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            raylet = Path("/proc", parent, "cmdline").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if "ServeReplica:rlaas:Gateway" in title and str(root) in raylet:
            found.append(int(process.name))
    return found


def processes_of(home: Path, deployment: str) -> list[int]:
    """Processes of a deployment of the platform with that home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_text()
            variables = (process / "environ").read_text(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if f"ServeReplica:rlaas:{deployment}" in title and f"RLAAS_HOME={home}\0" in variables:
            found.append(int(process.name))
    return found


def replica_urls(folder: Path, count: int) -> list[str]:
    """Where the Gateways listen themselves, by the configuration of the HAProxy whose files lie below ``folder``."""

    def read() -> list[str]:
        text = "".join(path.read_text() for path in folder.rglob("haproxy.cfg"))
        found = set(re.findall(r"server SERVE_REPLICA_\S*Gateway\S* (\S+:\d+)", text))
        return sorted(f"http://{where}" for where in found) if len(found) == count else []

    found: list[str] = until(read, 180)
    return found


class Traffic:
    """Requests without a pause, one observation and a batch of them in turn, until the block ends.

    Args:
        url: base URL.
        policy: that decides.
        observation: in every row.
        rows: of a batch.

    Attributes:
        answers: decisions of each request that was answered.
        failures: what became of the others.
    """

    def __init__(self, url: str, policy: str, observation: list[float], *, rows: int = 20) -> None:
        self._url, self._rows, self._observation = f"{url}/api/v1/policies/{policy}/decide", rows, observation
        self.answers: list[list[dict[str, Any]]] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        bodies = ({"observation": self._observation}, {"observations": [self._observation] * self._rows})
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                for body in bodies:
                    try:
                        answer = client.post(self._url, json=body)
                    except httpx.TransportError as failure:
                        self.failures.append(repr(failure))
                        continue
                    if answer.status_code == 200:
                        document = answer.json()
                        self.answers.append(document.get("decisions", [document]))
                    else:
                        self.failures.append(answer.text)


def bundle_without_answer_at_zero(folder: Path) -> Path:
    """A bundle with two continuous actions that are not numbers where the first feature is 0."""
    policy_bundle(folder, kind="box", actions=2, seed=3)
    model = onnx.load(str(folder / MODEL))
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["sound" if name == "mean" else name for name in names]
    first = np.zeros((3, 2), dtype=np.float32)
    first[0] = 1.0
    model.graph.initializer.append(onnx.numpy_helper.from_array(first, "first"))
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["observation", "first"], ["x0"]),
            helper.make_node("Mul", ["sound", "x0"], ["product"]),
            helper.make_node("Div", ["product", "x0"], ["mean"]),
        ]
    )
    onnx.save(model, str(folder / MODEL))
    manifest = BundleManifest.model_validate_json((folder / MANIFEST).read_text())
    write_manifest(folder, manifest.model_copy(update={"files": {**manifest.files, MODEL: sha256_of(folder / MODEL)}}))
    return folder


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert {"type", "title", "status", "detail", "field"} <= document.keys()
    assert document["status"] == status
    assert "\n" not in document["detail"]
    return document
