"""What a Gateway keeps does not grow with what it has answered; the long form is ``benchmarks.serving_soak``."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from support.bundles import policy_bundle
from support.serving_kit import Bench, deployment, make_bench

from rlaas.serving.fast_lane import FastLane
from rlaas.serving.hot_path import HotPath
from rlaas.serving.pressure import Pressure
from rlaas.serving.transport import Limits

DECIDE, INFER, OUTCOMES = "/api/v1/policies/toy/decide", "/v2/models/toy/infer", "/api/v1/outcomes"
ROW = [0.1, -0.5, 2.0]
TENSOR = {"name": "observation", "shape": [1, 3], "datatype": "FP32", "data": ROW}
ROUNDS, LEAST = 6, 0.1
"""What a request that is kept would leave behind is far more than a tenth of a block."""


def _generation(number: int) -> Any:
    variants = [{"name": "a", "version": 1 + number % 2, "weight": 3}, {"name": "b", "version": 2 - number % 2}]
    return deployment("toy", [variants[0], {**variants[1], "weight": 1}], generation=number)


async def _round(bench: Bench, client: httpx.AsyncClient, hot: HotPath, number: int) -> int:
    """A promotion, and after it requests of all kinds, good and bad, none of them like one before; how many."""
    assert bench.switch(_generation(2 + number)) == {}
    hot.refresh(bench.engine)
    sent = 0
    for index in range(60):
        key = f"{number}-{index}"
        bodies: list[tuple[str, Any, int]] = [
            (DECIDE, {"observation": ROW, "unit": f"u{key}", "session": f"s{key}", "step": index}, 200),
            (DECIDE, {"observations": [ROW] * 3, "preference": {"latency": 1 + index, "throughput": number}}, 200),
            (DECIDE, {"observation": ROW, "mode": f"m{key}"}, 422),
            (INFER, {"inputs": [TENSOR], "id": key, "parameters": {"log": bool(index % 2)}}, 200),
            (OUTCOMES, {"outcome_id": f"o{key}", "decision_id": key, "outcome": {"latency": 1.0}}, 422),
        ]
        for path, body, status in bodies:
            answer = await client.post(path, content=json.dumps(body), headers={"x-request-id": key})
            assert answer.status_code == status, answer.text
        sent += len(bodies)
    for log in (bench.decisions, bench.outcomes):
        log.seal()
    return sent


def test_requests_and_promotions_leave_nothing_behind(tmp_path: Path) -> None:
    paths = {("toy", seed): policy_bundle(tmp_path / f"toy-{seed}", seed=seed) for seed in (1, 2)}
    bench = make_bench(tmp_path, paths, _generation(1))
    hot = HotPath("default", Limits(1 << 20, 5.0), 64, Pressure())

    async def nothing(*_: object) -> None:
        raise AssertionError("not for the fast lane")

    async def blocks() -> list[tuple[int, int]]:
        found = []
        transport = httpx.ASGITransport(app=FastLane(nothing))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for number in range(ROUNDS):
                sent = await _round(bench, client, hot, number)
                gc.collect()
                found.append((sent, sys.getallocatedblocks()))
        return found

    FastLane.gateway = hot
    try:
        found = asyncio.run(blocks())
    finally:
        FastLane.gateway = None
    half = ROUNDS // 2  # the first rounds fill caches, which are bounded
    sent = sum(count for count, _ in found[half:])
    assert (found[-1][1] - found[half - 1][1]) / sent < LEAST, found
