from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans

from rlaas.errors import InvalidInputError
from rlaas.experiments.guardrails import GuardrailResult, check_guardrail
from rlaas.experiments.metrics import Guardrail, MeanMetric, QuantileMetric, RatioMetric
from rlaas.experiments.records import Entry

REWARD = MeanMetric(name="reward", value="reward", window_s=1)
COST = MeanMetric(name="cost", value="cost", window_s=1, better="lower")


def entries(a: Any, b: Any, below: Any = None) -> list[Entry]:
    return [
        Entry(
            unit=f"{arm}{i}",
            arm=arm,
            exposed_us=i,
            numerator=float(value),
            denominator=1.0 if below is None else float(below[arm][i]),
        )
        for arm, values in (("control", a), ("treatment", b))
        for i, value in enumerate(values)
    ]


def check(guardrail: Guardrail, units: list[Entry]) -> GuardrailResult:
    return check_guardrail(guardrail, units, control="control", treatment="treatment")


def verdict_of(passes: float, fails: float, alpha: float) -> str:
    return "passed" if passes < alpha else "failed" if fails < alpha else "undecided"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("metric", [REWARD, COST])
def test_an_absolute_margin_is_statsmodels_test_of_non_inferiority(
    seed: int, margin: float, metric: MeanMetric
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(5, 2, 150), rng.normal(4.9, 1, 80)
    found = check(Guardrail(metric=metric, margin=margin, relative=False), entries(a, b))
    up = 1 if metric.better == "higher" else -1
    means = CompareMeans.from_data(up * b, up * a)
    passes = means.ttest_ind(alternative="larger", usevar="unequal", value=-margin)[1]
    fails = means.ttest_ind(alternative="smaller", usevar="unequal", value=-margin)[1]
    assert found.verdict == verdict_of(passes, fails, 0.05)
    low, _ = means.tconfint_diff(alternative="larger", usevar="unequal")
    assert found.low == pytest.approx(low + margin, rel=1e-9)
    assert found.loss == pytest.approx(up * (a.mean() - b.mean()))
    assert found.slack == pytest.approx(margin - found.loss)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("level", [5.0, -5.0])
@pytest.mark.parametrize("metric", [REWARD, COST])
def test_a_relative_margin_is_a_test_against_the_control_made_worse(
    seed: int, level: float, metric: MeanMetric
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(level, 1, 200), rng.normal(level, 1, 300)
    found = check(Guardrail(metric=metric, margin=0.04, alpha=0.025), entries(a, b))
    up = 1 if metric.better == "higher" else -1
    worse = a * (1 - up * 0.04 * np.sign(level))
    assert up * (a.mean() - worse.mean()) == pytest.approx(found.margin)
    tests = [
        stats.ttest_ind(up * b, up * worse, equal_var=False, alternative=way).pvalue for way in ("greater", "less")
    ]
    assert found.verdict == verdict_of(tests[0], tests[1], 0.025)
    assert found.slack == pytest.approx(up * (b.mean() - worse.mean()))


def test_what_is_shown_is_said() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(10, 1, 2_000)
    guardrail = Guardrail(metric=REWARD, margin=0.2, relative=False)
    sentences = {level: check(guardrail, entries(a, rng.normal(level, 1, 2_000))) for level in (10.0, 9.8, 9.0)}
    assert [found.verdict for found in sentences.values()] == ["passed", "undecided", "failed"]
    assert sentences[10.0].decision == "reward of treatment against control: a loss of 0.2 is ruled out"
    assert "neither shown nor ruled out" in sentences[9.8].decision
    assert "more than the 0.2 allowed" in sentences[9.0].decision
    document = json.loads(json.dumps(sentences[9.0].to_dict(), allow_nan=False))
    assert document["verdict"] == "failed"


@pytest.mark.parametrize("relative", [True, False])
def test_a_loss_of_just_the_margin_passes_as_rarely_as_stated(relative: bool) -> None:
    guardrail = Guardrail(metric=REWARD, margin=0.1 if relative else 0.2, relative=relative)
    verdicts: Counter[str] = Counter()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        for _ in range(120):
            units = entries(rng.gamma(4, 0.5, 100), rng.gamma(4, 0.45, 150))
            verdicts[check(guardrail, units).verdict] += 1
    # Both wrong verdicts have alpha each.
    assert stats.binomtest(verdicts["passed"], 600, 0.05).pvalue > 1e-3
    assert stats.binomtest(verdicts["failed"], 600, 0.05).pvalue > 1e-3


def test_latency_and_ratios_can_be_guarded() -> None:
    rng = np.random.default_rng(2)
    p95 = QuantileMetric(name="latency", value="latency", quantile=0.95, window_s=1, better="lower")
    units = [
        Entry(unit=f"{arm}{i}", arm=arm, exposed_us=i, numerator=0.0, values=tuple(rng.exponential(scale, 5).tolist()))
        for arm, scale in (("control", 1.0), ("treatment", 1.0), ("slow", 5.0))
        for i in range(400)
    ]
    guardrail = Guardrail(metric=p95, margin=0.3)
    assert check(guardrail, units).verdict == "passed"
    slow = check_guardrail(guardrail, units, control="control", treatment="slow")
    assert slow.verdict == "failed"
    assert slow.loss == pytest.approx(4 * -np.log(0.05), rel=0.2)
    views = {arm: rng.poisson(10, 1_000) + 1 for arm in ("control", "treatment")}
    clicks = {arm: rng.binomial(seen, 0.3) for arm, seen in views.items()}
    ctr = RatioMetric(name="ctr", numerator="clicks", denominator="views", window_s=1)
    found = check(Guardrail(metric=ctr, margin=0.1), entries(clicks["control"], clicks["treatment"], views))
    assert found.verdict == "passed"
    assert found.margin == pytest.approx(0.03, rel=0.05)


def test_the_arms_differ() -> None:
    with pytest.raises(InvalidInputError, match="control and treatment are both 'a'"):
        check_guardrail(Guardrail(metric=REWARD, margin=0.1), entries([1, 2], [1, 2]), control="a", treatment="a")
