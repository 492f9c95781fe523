"""The verdict: paired intervals as scipy has them, guards, and what refuses a promotion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats
from support.toy import ToyScenario

from rlaas.errors import InvalidInputError
from rlaas.pipeline.continuous.config import EvaluationConfig
from rlaas.pipeline.continuous.verdict import judge, paired_difference
from rlaas.scenarios import Evaluation

SCENARIO = ToyScenario()
N = 8


def evaluation(cost: Sequence[float], quality: Sequence[float], first_seed: int = 0) -> Evaluation:
    """Values per seed, each from 100 counted steps."""
    values = np.stack([cost, quality], axis=1).astype(float)
    return Evaluation(
        seeds=tuple(range(first_seed, first_seed + len(values))),
        values=values,
        numerators=100.0 * values,
        denominators=np.full_like(values, 100.0),
        seconds=0.0,
    )


def noisy(cost: float, quality: float, seed: int, spread: float = 0.05) -> Evaluation:
    rng = np.random.default_rng(seed)
    return evaluation(cost + spread * rng.standard_normal(N), quality + spread * rng.standard_normal(N))


def test_the_interval_is_the_paired_t_interval_where_the_utility_is_linear() -> None:
    ours, theirs = noisy(1.0, 8.0, 1), noisy(1.1, 7.9, 2)
    preference = SCENARIO.modes["cheap"].preference

    def utility(e: Evaluation) -> np.ndarray:
        return 0.9 * (1 - e.values[:, 0] / 4) + 0.1 * e.values[:, 1] / 10

    oracle = stats.ttest_rel(utility(ours), utility(theirs)).confidence_interval(0.9)
    found = paired_difference(SCENARIO, ours, theirs, preference, 0.9)
    assert found.low == pytest.approx(oracle.low, rel=1e-9)
    assert found.high == pytest.approx(oracle.high, rel=1e-9)


def test_common_worlds_tell_apart_what_noise_would_hide() -> None:
    rng = np.random.default_rng(3)
    world = rng.standard_normal(N)
    theirs = evaluation(2.0 + world, np.full(N, 7.0))
    ours = evaluation(1.9 + world + 0.01 * rng.standard_normal(N), np.full(N, 7.0))
    preference = SCENARIO.modes["balanced"].preference
    assert paired_difference(SCENARIO, ours, theirs, preference, 0.95).word == "better"
    shuffled = evaluation(ours.values[::-1, 0], ours.values[::-1, 1])
    assert paired_difference(SCENARIO, shuffled, theirs, preference, 0.95).word == "not shown"


def test_other_worlds_and_a_single_one_are_refused() -> None:
    preference = SCENARIO.modes["balanced"].preference
    one = evaluation([1.0, 1.0], [8.0, 8.0])
    with pytest.raises(InvalidInputError, match="different seeds"):
        paired_difference(SCENARIO, one, evaluation([1.0, 1.0], [8.0, 8.0], first_seed=5), preference, 0.95)
    single = evaluation([1.0], [8.0])
    with pytest.raises(InvalidInputError, match="at least 2 units"):
        paired_difference(SCENARIO, single, single, preference, 0.95)


@pytest.mark.parametrize(
    ("cost", "word"), [(0.5, "better"), (1.0, "not shown"), (1.5, "worse")], ids=["better", "same", "worse"]
)
def test_the_word_of_the_verdict(cost: float, word: str) -> None:
    champion = dict.fromkeys(SCENARIO.modes, noisy(1.0, 8.0, 1))
    candidate = dict.fromkeys(SCENARIO.modes, noisy(cost, 8.0, 2))
    found = judge(SCENARIO, candidate, champion, noisy(2.0, 8.0, 3), EvaluationConfig())
    assert (found.verdict, found.mode, found.promote) == (word, "balanced", word == "better")
    assert found.sentence("version 3").startswith(
        {
            "better": "the candidate is better than version 3 in mode balanced: utility +0.0",
            "not shown": "the candidate is not shown to differ from version 3 in mode balanced: utility ",
            "worse": "the candidate is worse than version 3 in mode balanced: utility -0.0",
        }[word]
    )
    document = found.to_dict()
    assert document["modes"]["cheap"]["candidate"]["cost"] == pytest.approx(cost, abs=0.1)
    assert document["verdict"] == word


def test_a_gain_in_one_mode_does_not_pay_for_a_loss_in_another() -> None:
    champion = dict.fromkeys(SCENARIO.modes, noisy(1.0, 8.0, 1))
    candidate = {"balanced": noisy(0.5, 8.0, 2), "cheap": noisy(1.5, 8.0, 2)}
    default = noisy(2.0, 8.0, 3)
    found = judge(SCENARIO, candidate, champion, default, EvaluationConfig())
    assert (found.verdict, found.promote) == ("better", False)
    assert found.broken[0].startswith("worse in mode cheap: utility -0.1")
    assert judge(SCENARIO, candidate, champion, default, EvaluationConfig(other_modes=False)).promote
    asked = judge(SCENARIO, candidate, champion, default, EvaluationConfig(mode="cheap"))
    assert (asked.verdict, asked.promote) == ("worse", False)


def test_guards_of_the_scenario_and_of_the_configuration_refuse() -> None:
    champion = dict.fromkeys(SCENARIO.modes, noisy(1.0, 8.0, 1))
    candidate = dict.fromkeys(SCENARIO.modes, noisy(0.2, 7.0, 2))
    # The toy guards quality: at least 0.99 of the default's.
    found = judge(SCENARIO, candidate, champion, noisy(2.0, 8.0, 3), EvaluationConfig(other_modes=False))
    assert found.verdict == "better"
    assert found.broken == ("guard quality does not hold: 0.8748 of the default's, required 0.99",)
    held = judge(
        SCENARIO, candidate, champion, noisy(2.0, 6.0, 3), EvaluationConfig(guardrails={"quality": 0.12, "cost": 0.0})
    )
    assert held.promote
    assert {name: holds for name, (holds, _) in held.guards.items()} == {
        "guard quality": True,
        "guardrail quality": True,
        "guardrail cost": True,
    }
    # A loss within the margin must be shown: the end of the interval counts, not its middle.
    margin = 0.102
    refused = judge(SCENARIO, candidate, champion, noisy(2.0, 6.0, 3), EvaluationConfig(guardrails={"quality": margin}))
    change = paired_difference(SCENARIO, candidate["balanced"], champion["balanced"], _quality(), 0.95)
    assert change.low < -margin < change.mean
    assert not refused.promote
    assert refused.broken[0].startswith("guardrail quality does not hold: quality -0.10")


def _quality() -> object:
    from rlaas.objectives import Preference

    return Preference.of(SCENARIO.objectives, {"quality": 1.0})
