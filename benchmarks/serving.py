"""Decisions per second over HTTP: the platform, with every decision logged, against servers that log nothing.

    python -m benchmarks.serving [--quick] [--json] [--only single batches switching]

Each request carries 32 features to a 64x64 tanh policy; the platform checks them, splits, decides, signs an id and
writes the decision to its write-ahead log before it answers. Rivals (:mod:`benchmarks.serving_rivals`): a constant
answer from uvicorn as the ceiling, FastAPI on uvicorn, Ray Serve as it comes. All run on the same machine in the same
run and take turns; the load comes from a process of its own over 64 kept-alive connections
(:mod:`benchmarks.serving_load`), or from ``wrk`` where it is installed and only the rate counts.

* ``single``: one observation a request, straight to the replica's port and through HAProxy; then the latencies at 70 %
  of each server's peak, requests leaving by the clock.
* ``batches``: 256 observations a request, as JSON and as binary V2 tensors, these with the log and without. Each turn
  begins when the lake has the decisions of the one before.
* ``switching``: promotions back and forth under full load: errors, and the latency meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.serving_load import run_load
from benchmarks.serving_rivals import FEATURES, make_bundle
from rlaas.serving.environment import enter_fast_lane

ROOT = Path(__file__).parent.parent
OBSERVATION = [round(0.01 * i, 4) for i in range(FEATURES)]
ONE = json.dumps({"observation": OBSERVATION}).encode()
BATCH = 256
MANY = json.dumps({"observations": [OBSERVATION] * BATCH}).encode()
_TENSOR = np.array([OBSERVATION] * BATCH, dtype="<f4").tobytes()
SECTIONS = ("single", "batches", "switching")
CONNECTIONS = 64
PEAK_SHARE = 0.7


def main() -> None:
    arguments = parse_arguments("serving", _own_arguments)
    root = Path(tempfile.mkdtemp(prefix="rb", dir=tempfile.gettempdir()))
    seconds, rounds = (1.0, 1) if arguments.quick else (6.0, 5)
    try:
        with contextlib.redirect_stdout(sys.stderr), _servers(root) as urls:  # Ray prints, and the result stands alone
            parts: Mapping[str, Callable[[], list[Row]]] = {
                "single": lambda: _single(urls, seconds, rounds),
                "batches": lambda: _batches(urls, seconds, rounds, root / "home" / "wal"),
                "switching": lambda: _switching(urls, 2 * seconds),
            }
            rows = [row for name in SECTIONS if name in arguments.only for row in parts[name]()]
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report("serving", rows, arguments.json)


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="parts to run")


@contextlib.contextmanager
def _servers(root: Path) -> Iterator[dict[str, str]]:
    """Base URL of every server: ``direct`` and ``proxied`` are ours, then ``constant``, ``plain`` and ``stock``."""
    model = str(make_bundle(root / "bundle") / "policy.onnx")
    ports = {kind: _free_port() for kind in ("constant", "plain", "stock")}
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    rivals = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serving_rivals", kind, str(port), model],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for kind, port in ports.items()
    ]
    try:
        with _platform(root) as ours:
            urls = {**ours, **{kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}}
            for name in urls:
                _await(_decide_url(urls, name))
            yield urls
    finally:
        for rival in rivals:
            rival.send_signal(signal.SIGTERM)
        for rival in rivals:
            rival.wait()


@contextlib.contextmanager
def _platform(root: Path) -> Iterator[dict[str, str]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    enter_fast_lane(root)
    import ray

    from rlaas.control import start_platform, stop_platform
    from rlaas.registry import Registry
    from rlaas.serving import ServingConfig
    from rlaas.settings import load_settings

    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    registry.register("bench", root / "bundle", alias="champion")
    registry.register("bench", root / "bundle")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(root / "ray"))
    try:
        base = start_platform(ServingConfig(), settings, port=_free_port())
        yield {"direct": _replica_url(root), "proxied": base}
        stop_platform()
    finally:
        ray.shutdown()


def _replica_url(root: Path) -> str:
    """Where the one Gateway replica listens itself, by HAProxy's own configuration."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for path in root.rglob("haproxy.cfg"):
            found = re.search(r"server SERVE_REPLICA_\S*Gateway\S* (\S+:\d+)", path.read_text())
            if found:
                return f"http://{found.group(1)}"
        time.sleep(0.2)
    raise RuntimeError("HAProxy was not told of a replica")


def _decide_url(urls: Mapping[str, str], name: str, *, many: bool = False) -> str:
    if name in ("direct", "proxied"):
        return f"{urls[name]}/api/v1/policies/bench/decide"
    return f"{urls[name]}/decide-many" if many and name == "plain" else f"{urls[name]}/decide"


_NAMES = {
    "constant": f"uvicorn {version('uvicorn')}, a constant answer",
    "plain": f"FastAPI {version('fastapi')} on uvicorn {version('uvicorn')}, nothing logged",
    "stock": f"stock Ray Serve {version('ray')}, nothing logged",
}
_WAYS = {"direct": "to the replica's port", "proxied": "through HAProxy"}


def _single(urls: Mapping[str, str], seconds: float, rounds: int) -> list[Row]:
    peaks = _peaks({name: _decide_url(urls, name) for name in urls}, ONE, seconds, rounds)
    rows = [
        Row(f"decisions, logged, {way}", "1/s", peaks[ours], _NAMES[rival], peaks[rival])
        for ours, way in _WAYS.items()
        for rival in _NAMES
    ]
    waits = {
        name: _median(
            [
                run_load(_decide_url(urls, name), ONE, seconds=seconds, rate=PEAK_SHARE * peaks[name])
                for _ in range(rounds)
            ]
        )
        for name in ("direct", "proxied", "plain")
    }
    return rows + [
        Row(
            f"latency at 70 % of the own peak ({PEAK_SHARE * peaks[ours]:,.0f}/s), {way}, p{name}",
            "ms",
            waits[ours][f"p{quantile}"] / 1000,
            f"{_NAMES['plain']} ({PEAK_SHARE * peaks['plain']:,.0f}/s)",
            waits["plain"][f"p{quantile}"] / 1000,
            better="lower",
        )
        for ours, way in _WAYS.items()
        for quantile, name in (("50", "50"), ("99", "99"), ("999", "99.9"))
    ]


def _batches(urls: Mapping[str, str], seconds: float, rounds: int, logs: Path) -> list[Row]:
    chosen = {name: _decide_url(urls, name, many=True) for name in ("direct", "proxied", "plain")}
    bodies: dict[str, tuple[str, bytes, int | None]] = {name: (url, MANY, None) for name, url in chosen.items()}
    for log, name in ((False, "binary"), (True, "logged")):
        header, tensor = _binary_request(log)
        bodies[name] = (f"{urls['direct']}/v2/models/bench/infer", header + tensor, len(header))
    found: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(rounds):
        for name, (url, body, header_length) in bodies.items():
            _await_commits(logs)
            found[name].append(_peak(url, body, seconds, 8, header_length))
    peaks = {name: BATCH * statistics.median(rates) for name, rates in found.items()}
    whats = {
        **{ours: f"decisions in batches of {BATCH}, JSON, logged, {way}" for ours, way in _WAYS.items()},
        "binary": f"decisions in batches of {BATCH}, binary V2, not logged, {_WAYS['direct']}",
        "logged": f"decisions in batches of {BATCH}, binary V2, logged, {_WAYS['direct']}",
    }
    return [Row(what, "1/s", peaks[name], f"{_NAMES['plain']}, JSON", peaks["plain"]) for name, what in whats.items()]


def _await_commits(logs: Path, within_s: float = 300.0) -> None:
    """Wait until the lake has what was logged: to commit it is part of the load before, not of the next one."""
    deadline = time.monotonic() + within_s
    while any(path.suffix in (".open", ".seg") for path in logs.rglob("*")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"decisions are not in the lake {within_s:g} s after the load has ended")
        time.sleep(0.2)


def _binary_request(log: bool) -> tuple[bytes, bytes]:
    """Header and tensor of a V2 request for ``BATCH`` rows; the answer's tensors are binary where V2 allows it."""
    observation = {
        "name": "observation",
        "shape": [BATCH, FEATURES],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(_TENSOR)},
    }
    document: dict[str, Any] = {"inputs": [observation], "parameters": {"binary_data_output": True}}
    if log:
        document["parameters"]["log"] = True
    else:
        document["outputs"] = [{"name": "action"}]
    return json.dumps(document).encode(), _TENSOR


def _switching(urls: Mapping[str, str], seconds: float) -> list[Row]:
    """Versions 1 and 2 promoted in turn, once a second, under full load."""
    url = _decide_url(urls, "proxied")
    calm = run_load(url, ONE, seconds=seconds)
    stop = threading.Event()
    promotions = [0]

    def promote() -> None:
        with httpx.Client(base_url=urls["proxied"], timeout=30) as client:
            while not stop.wait(1.0):
                wanted = 2 - promotions[0] % 2
                answer = client.post("/api/v1/models/bench/promote", json={"version": wanted})
                answer.raise_for_status()
                promotions[0] += 1

    promoter = threading.Thread(target=promote)
    promoter.start()
    try:
        moved = run_load(url, ONE, seconds=seconds)
    finally:
        stop.set()
        promoter.join()
    if not promotions[0]:
        raise RuntimeError("nothing was promoted meanwhile")
    return [
        Row(
            f"p99 under full load with {promotions[0]} promotions, {moved['failed']} of {moved['answered']:,} failed",
            "ms",
            moved["p99"] / 1000,
            "ours without promotions",
            calm["p99"] / 1000,
            better="lower",
        )
    ]


def _peaks(
    urls: Mapping[str, str], body: bytes, seconds: float, rounds: int, connections: int = CONNECTIONS
) -> dict[str, float]:
    """Median answers per second of each server, in turns."""
    found: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, url in urls.items():
            found[name].append(_peak(url, body, seconds, connections))
    return {name: statistics.median(rates) for name, rates in found.items()}


def _peak(url: str, body: bytes, seconds: float, connections: int, header_length: int | None = None) -> float:
    wrk = shutil.which("wrk")
    more = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
    if wrk is None:
        headers = [f"{name}: {value}" for name, value in more.items()]
        result = run_load(url, body, seconds=seconds, connections=connections, headers=headers)
        if result["failed"]:
            raise RuntimeError(f"{url}: {result['failed']} requests failed: {result['first_failure']}")
        return float(result["rate"])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        script = Path(folder) / "post.lua"
        script.write_text(
            'wrk.method = "POST"\n'
            + "".join(
                f'wrk.headers["{name}"] = "{value}"\n'
                for name, value in {"Content-Type": "application/json", **more}.items()
            )
            + f'local file = io.open("{folder}/body", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
        )
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text:
        raise RuntimeError(f"{url}: {text}")
    return float(re.search(r"Requests/sec:\s*([\d.]+)", text).group(1))  # type: ignore[union-attr]


def _median(results: list[dict[str, Any]]) -> dict[str, float]:
    for result in results:
        if result["failed"]:
            raise RuntimeError(f"{result['failed']} requests failed: {result['first_failure']}")
    return {key: statistics.median(result[key] for result in results) for key in ("p50", "p99", "p999")}


def _await(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if httpx.post(url, content=ONE, headers={"Content-Type": "application/json"}, timeout=5).is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise RuntimeError(f"{url} does not answer")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
