"""Whole searches by NSGA-III under a real Tune."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuning_kit import searched

from rlaas.tuning import tune

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("tuning_ray")]


def test_a_finite_space_ends_the_search_and_a_configuration_that_fails_does_not(tmp_path: Path) -> None:
    config = searched(
        training={"steps": 512},
        space={
            "learning_rate": {"kind": "choice", "values": [1e-3, 1e30]},
            "gamma": {"kind": "choice", "values": [0.1, 0.5]},
        },
        objectives=["training_reward_near", "seconds"],
        search="nsga3",
        trials=9,
        concurrency=2,
        report_every=512,
    )
    result = tune(config, output=tmp_path / "search")
    tried = {(trial.values["learning_rate"], trial.values["gamma"]) for trial in result.trials}
    assert tried == {(1e-3, 0.1), (1e-3, 0.5), (1e30, 0.1), (1e30, 0.5)}
    assert result.counts() == {"finished": 2, "failed": 2}
    assert {found.values["learning_rate"] for found in result.found} == {1e-3}
    again = tune(config, output=tmp_path / "search", resume=True)
    assert again.to_dict() == result.to_dict(), "nothing is left to try"
