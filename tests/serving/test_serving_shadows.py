from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.serving_kit import Bench, deployment, make_bench

from rlaas.serving.shadows import Shadows

ROWS = np.random.default_rng(0).normal(size=(50, 3)).round(3).tolist()


@pytest.fixture(params=["discrete", "box"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    paths = {("toy", v): policy_bundle(tmp_path / f"toy{v}", kind=request.param, seed=v) for v in (1, 2)}
    variants = [
        {"name": "champion", "version": 1, "weight": 1},
        {"name": "next", "version": 2, "weight": 0, "shadow": True},
    ]
    return make_bench(tmp_path, paths, deployment("toy", variants))


def test_a_shadow_decides_what_was_served_and_never_answers(bench: Bench) -> None:
    served = [bench.decide("toy", observation=row, mode="emergency") for row in ROWS[:20]]
    served += bench.decide("toy", observations=ROWS[20:], mode="emergency")["decisions"]
    assert {d["version"] for d in served} == {1}
    assert {r.version for r in bench.logged_decisions()} == {1}
    assert bench.engine.shadows.work() == 21
    champion, shadow = bench.engine.tally.snapshot()
    assert (champion.decisions, champion.compared) == (50, 0)
    assert (shadow.version, shadow.decisions, shadow.errors, shadow.compared) == (2, 50, 0, 50)
    live = bench.engine.state.policies["toy"]
    rows = np.array(ROWS, dtype=np.float32)
    (mine, theirs) = (
        live.variants[name].policy.act(rows, live.variants[name].preference("emergency", None)[0])[0]
        for name in ("champion", "next")
    )
    distance = np.abs(mine - theirs).mean(axis=1) if mine.ndim == 2 else mine != theirs
    assert shadow.difference == pytest.approx(float(distance.sum()), abs=1e-6)
    assert 0 < shadow.difference < 50


def test_a_shadow_that_fails_is_counted_and_harms_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow = bench.engine.state.policies["toy"].variants["next"]

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a damaged network")

    monkeypatch.setattr(shadow.policy, "act", fail)
    for row in ROWS[:5]:
        assert bench.decide("toy", observation=row)["version"] == 1
    bench.engine.shadows.work()
    assert [(t.version, t.decisions, t.errors) for t in bench.engine.tally.snapshot()] == [(1, 5, 0), (2, 0, 5)]


def test_copies_that_nobody_has_time_for_are_dropped(bench: Bench) -> None:
    bench.engine.shadows = Shadows(bench.engine.tally, most=3)
    for row in ROWS[:10]:
        bench.decide("toy", observation=row)
    assert bench.engine.shadows.dropped == 7
    assert bench.engine.shadows.work() == 3
    assert bench.engine.shadows.work() == 0
