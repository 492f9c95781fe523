"""A platform to do harm to: a Ray of its own, the fast lane, one policy, and its processes by name."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.serving_rivals import make_bundle
from rlaas.serving.environment import enter_fast_lane

__all__ = ["Platform", "started", "until"]

_SILENT_S = 4.0
"""A Gateway reports every second; one that has been silent for so long has probably ended."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform under test.

    Attributes:
        root: folder of its Ray, its proxy and its home; names its processes.
        url: of HAProxy.
        http: client of the control plane.
        redeploy: deploy the application anew, the log being handed over every so many seconds.
    """

    root: Path
    url: str
    http: httpx.Client
    redeploy: Callable[[float], object]

    def processes(self, what: str) -> list[int]:
        """Ids of its processes whose command line begins with ``what``, oldest first; of none other on this machine."""
        found: list[tuple[float, int]] = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_text()
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                near = command + Path("/proc", parent, "cmdline").read_text()
                begun = process.stat().st_ctime
            except OSError:
                continue  # it has ended meanwhile
            if command.startswith(what) and str(self.root) in near:
                found.append((begun, int(process.name)))
        return [pid for _, pid in sorted(found)]

    def gateways(self) -> list[int]:
        """Ids of the Gateway processes."""
        return self.processes("ray::ServeReplica:rlaas:Gateway")

    def proxies(self) -> list[int]:
        """Ids of the HAProxy processes, those included that only finish what they began."""
        return [
            int(process.name)
            for process in Path("/proc").glob("[0-9]*")
            if (parts := _arguments(process)) and "haproxy" in parts[0] and any(str(self.root) in p for p in parts[1:])
        ]

    def post(self, path: str, document: dict[str, Any], method: str = "POST") -> bool:
        """Ask the control plane; whether it did as it was told."""
        try:
            return self.http.request(method, path, json=document).is_success
        except httpx.TransportError:
            return False

    def scale(self, replicas: int) -> bool:
        """Resize the pool; whether that was accepted."""
        return self.post("/api/v1/deployments/bench/scale", {"replicas": replicas}, "PUT")

    def promote(self, version: int) -> bool:
        """Promote a version; whether that worked."""
        return self.post("/api/v1/models/bench/promote", {"version": version})

    def decides(self) -> bool:
        """Whether a decision is answered on a connection of its own."""
        document = {"observation": [0.0] * 32}
        try:
            return httpx.post(f"{self.url}/api/v1/policies/bench/decide", json=document, timeout=5).is_success
        except httpx.TransportError:
            return False

    def ready(self, replicas: int) -> bool:
        """Whether just so many Gateways run, and each of them said lately that it serves what is live."""
        try:
            answer = self.http.get("/api/v1/deployments/bench/status")
        except httpx.TransportError:
            return False
        if not answer.is_success or len(self.gateways()) != replicas:
            return False
        status = answer.json()
        reports = [one for one in status["replicas"] if one["silent_s"] < _SILENT_S]
        return len(reports) == replicas and all(one["generation"] == status["generation"] for one in reports)


def _arguments(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_text().split("\0")
    except OSError:
        return []


@contextlib.contextmanager
def started(root: Path, *, replicas: int = 3) -> Iterator[Platform]:
    """A platform with the fast lane on a Ray of its own, serving policy ``bench``, which has two versions."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    enter_fast_lane(root)
    import ray

    from rlaas.control import start_platform
    from rlaas.registry import Registry
    from rlaas.serving import ServingConfig
    from rlaas.settings import load_settings

    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    bundle = make_bundle(root / "bundle")
    registry.register("bench", bundle, alias="champion")
    registry.register("bench", bundle)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def deploy(seal_s: float) -> str:
        gateway = {"num_replicas": replicas, "num_cpus": 0.1, "seal_s": seal_s}
        url: str = start_platform(ServingConfig.model_validate({"gateway": gateway}), settings, port=port)
        return url

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=str(root / "ray"))
    try:
        url = deploy(0.5)
        with httpx.Client(base_url=url, timeout=30) as http:
            platform = Platform(root, url, http, deploy)
            until(lambda: platform.ready(replicas), 120)
            yield platform
    finally:  # nothing worth a drain of half a minute: whatever was to be counted has been
        ray.shutdown()


def until(condition: Callable[[], object], seconds: float, pause_s: float = 0.1) -> float:
    """Wait for a condition; how long that took, in seconds.

    Args:
        condition: what has to come true.
        seconds: patience.
        pause_s: between two looks.

    Raises:
        RuntimeError: it did not come true in time.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise RuntimeError(f"{condition} did not come true in {seconds:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - begun
