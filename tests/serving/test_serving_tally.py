from __future__ import annotations

import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.serving.tally import LATENCY_EDGES_US, Tally, latency_quantile


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_quantile_is_bracketed_by_its_bucket(microseconds: list[int], q: float) -> None:
    tally = Tally()
    for value in microseconds:
        tally.decided("p", 1, 1, value * 1000)
    (counts,) = tally.snapshot()
    assert sum(counts.latency_us) == counts.decisions == len(microseconds)
    exact = float(np.quantile(microseconds, q, method="inverted_cdf"))
    found = latency_quantile(counts.latency_us, q)
    lower = [0, *LATENCY_EDGES_US]
    below = lower[-1] if math.isinf(found) else lower[lower.index(int(found)) - 1]
    assert below <= exact <= found
    assert counts.latency_sum_us == pytest.approx(sum(microseconds))


@given(st.lists(st.integers(0, 20_000_000), min_size=1, max_size=100))
def test_requests_that_were_decided_together_count_as_each_by_itself(microseconds: list[int]) -> None:
    apart, together = Tally(), Tally()
    for value in microseconds:
        apart.decided("p", 1, 1, value * 1000)
    together.decided_each("p", 1, [value * 1000 for value in microseconds])
    assert together.snapshot() == apart.snapshot()


def test_versions_are_counted_apart() -> None:
    tally = Tally()
    tally.decided("p", 2, 3, 1_000)
    tally.failed("p", 1)
    tally.rewarded("p", 2, 0.5)
    tally.rewarded("p", 2, 1.0)
    one, two = tally.snapshot()
    assert (one.version, one.decisions, one.errors) == (1, 0, 1)
    assert (two.version, two.decisions, two.rewards, two.reward_sum, two.reward_squares) == (2, 3, 2, 1.5, 1.25)
    assert math.isnan(latency_quantile(one.latency_us, 0.5))


def test_nothing_is_lost_where_threads_count_at_once() -> None:
    tally, threads, versions = Tally(), 4, 1000
    together = threading.Barrier(threads)

    def count() -> None:
        for version in range(versions):
            if version % 50 == 0:
                together.wait()
            tally.decided("p", version, 1, 1_000)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=count) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    assert [one.decisions for one in tally.snapshot()] == [threads] * versions
