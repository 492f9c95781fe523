"""The published weights of the scenarios' modes."""

from __future__ import annotations

import pytest

from rlaas import scenarios


@pytest.mark.parametrize(
    ("scenario", "mode", "weights"),
    [
        ("network5g", "emergency", {"latency": 0.6, "throughput": 0.2, "energy": 0.1, "satisfaction": 0.1}),
        ("network5g", "normal", {"latency": 0.25, "throughput": 0.25, "energy": 0.25, "satisfaction": 0.25}),
        ("recsys", "revenue", {"ctr": 0.1, "cvr": 0.6, "diversity": 0.1, "cost": 0.2}),
        ("recsys", "user_experience", {"ctr": 0.5, "cvr": 0.2, "diversity": 0.2, "cost": 0.1}),
    ],
)
def test_modes_have_the_published_weights(scenario: str, mode: str, weights: dict[str, float]) -> None:
    assert scenarios.load(scenario).modes[mode].preference.to_dict() == pytest.approx(weights)
