"""Helpers of the tests of the whole platform."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from rlaas.client import Client
from rlaas.lake import Lake
from rlaas.settings import Settings

__all__ = ["Platform", "await_live", "free_port", "gateway_pids", "problem", "until"]


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


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("the condition did not come true")


def await_live(client: Client, deployment: str) -> dict[str, Any]:
    return until(lambda: (status := client.deployment_status(deployment)) and status["ready"] and status)


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


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert {"type", "title", "status", "detail", "field"} <= document.keys()
    assert document["status"] == status
    assert "\n" not in document["detail"]
    return document
