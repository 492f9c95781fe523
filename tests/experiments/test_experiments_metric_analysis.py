from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans

from rlaas.errors import InvalidInputError
from rlaas.experiments import compare_by_unit
from rlaas.experiments.contrasts import arm_quantile
from rlaas.experiments.metric_analysis import MetricResult, analyse_metric
from rlaas.experiments.metrics import (
    CountMetric,
    MeanMetric,
    Metric,
    ProportionMetric,
    QuantileMetric,
    RatioMetric,
    Winsorising,
)
from rlaas.experiments.records import Entry

MEAN = MeanMetric(name="revenue", value="revenue", window_s=1)
RATIO = RatioMetric(name="ctr", numerator="clicks", denominator="views", window_s=1)
P90 = QuantileMetric(name="latency", value="latency", quantile=0.9, window_s=1)
SEEDS = range(5)


def entries(
    control: Sequence[float], treatment: Sequence[float], *, below: Sequence[float] | None = None, **columns: Any
) -> list[Entry]:
    """Units of two arms, the control's first; columns are options of each entry."""
    numerators = [*control, *treatment]
    return [
        Entry(
            unit=f"u{i}",
            arm="control" if i < len(control) else "treatment",
            exposed_us=i,
            numerator=float(value),
            denominator=1.0 if below is None else float(below[i]),
            **{name: column[i] for name, column in columns.items()},
        )
        for i, value in enumerate(numerators)
    ]


def analyse(metric: Metric, units: Sequence[Entry]) -> MetricResult:
    return analyse_metric(metric, units, control="control", treatment="treatment")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_mean_is_compared_by_welch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.exponential(2, 60), rng.normal(2.2, 4, 35)
    found = analyse(MEAN, entries(a, b)).comparison
    means = CompareMeans.from_data(b, a)
    _, p_value, _ = means.ttest_ind(usevar="unequal")
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert found.interval == pytest.approx(means.tconfint_diff(usevar="unequal"), rel=1e-9)
    assert found.relative == pytest.approx(b.mean() / a.mean() - 1)
    assert (found.arms["control"].n_units, found.arms["treatment"].n_units) == (60, 35)


def clustered(rng: np.random.Generator, n: int) -> tuple[Any, Any]:
    views = rng.poisson(6, n) + 1
    return rng.binomial(views, rng.beta(2, 8, n)), views


@pytest.mark.parametrize("seed", SEEDS)
def test_a_ratio_is_what_regression_with_clustered_errors_gives(seed: int) -> None:
    """Rows of a unit depend on each other: the sandwich of Liang & Zeger over units, without a correction."""
    rng = np.random.default_rng(seed)
    (clicks, views), (clicks_b, views_b) = clustered(rng, 80), clustered(rng, 120)
    found = analyse(RATIO, entries(clicks, clicks_b, below=[*views, *views_b])).comparison
    variance, effect = 0.0, 0.0
    for sign, top, bottom in ((-1, clicks, views), (1, clicks_b, views_b)):
        rows = np.concatenate([[1.0] * c + [0.0] * (v - c) for c, v in zip(top, bottom, strict=True)])
        unit = np.repeat(np.arange(len(top)), bottom)
        fit = sm.OLS(rows, np.ones(len(rows))).fit(
            cov_type="cluster", cov_kwds={"groups": unit, "use_correction": False}
        )
        effect += sign * fit.params[0]
        variance += fit.bse[0] ** 2 * len(top) / (len(top) - 1)
    assert found.effect == pytest.approx(effect, rel=1e-9)
    low, high = found.interval
    # Degrees of freedom are above 150: Student's quantile lies between the normal one and that of 150.
    assert stats.norm.ppf(0.975) <= (high - low) / 2 / math.sqrt(variance) <= stats.t.ppf(0.975, 100)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_as_from_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clicks, views = clustered(rng, 90)
    units = entries(clicks[:40], clicks[40:], below=views)
    # Each unit's clicks and views in two rows of the log.
    first, first_views = rng.binomial(clicks, 0.5), rng.binomial(views, 0.5)
    names, arms = [e.unit for e in units] * 2, [e.arm for e in units] * 2
    top, below = np.concatenate([first, clicks - first]), np.concatenate([first_views, views - first_views])
    by_rows = compare_by_unit(names, arms, top, below, control="control", treatment="treatment", metric="ctr")
    found = analyse(RATIO, units).comparison
    assert found.interval == pytest.approx(by_rows.interval, rel=1e-9)
    assert (found.effect, found.relative, found.p_value) == pytest.approx(
        (by_rows.effect, by_rows.relative, by_rows.p_value), rel=1e-9
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_cuped_is_the_analysis_of_covariance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before, arm = rng.gamma(2, 3, 400), np.repeat([0.0, 1.0], [150, 250])
    after = 0.8 * before + rng.normal(0, 2, 400) + 0.3 * arm
    units = entries(after[:150], after[150:], covariates=[{"before": x} for x in before])
    found = analyse(MEAN.model_copy(update={"cuped": "before"}), units)
    fit = sm.OLS(after, np.column_stack([np.ones(400), arm, before])).fit()
    assert found.comparison.effect == pytest.approx(fit.params[1], rel=1e-9)
    assert found.cuped is not None
    assert found.cuped.theta == pytest.approx(fit.params[2], rel=1e-9)
    without = sm.OLS(after, np.column_stack([np.ones(400), arm])).fit()
    assert found.cuped.variance_reduction == pytest.approx(1 - fit.ssr / without.ssr, rel=1e-9)
    low, high = found.comparison.interval
    assert (high - low) == pytest.approx(np.diff(fit.conf_int()[1])[0], rel=0.05)
    plain_low, plain_high = analyse(MEAN, units).comparison.interval
    # The interval shrinks by what the covariate explains.
    assert ((high - low) / (plain_high - plain_low)) ** 2 == pytest.approx(1 - found.cuped.variance_reduction, rel=0.05)


def test_a_missing_covariate_explains_nothing() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(5, 2, 300)
    after = before + rng.normal(0, 1, 300)
    gone = rng.random(300) < 0.3
    metric = MEAN.model_copy(update={"cuped": "before"})
    units = entries(
        after[:150], after[150:], covariates=[{} if g else {"before": x} for g, x in zip(gone, before, strict=True)]
    )
    filled = np.where(gone, before[~gone].mean(), before)
    imputed = entries(after[:150], after[150:], covariates=[{"before": x} for x in filled])
    found, same = analyse(metric, units), analyse(metric, imputed)
    assert found.cuped is not None
    assert found.cuped.n_imputed == gone.sum()
    assert found.comparison.interval == pytest.approx(same.comparison.interval, rel=1e-9)
    with pytest.raises(InvalidInputError, match="no unit has covariate 'before'"):
        analyse(metric, entries(after[:150], after[150:]))
    flat = analyse(metric, entries(after[:150], after[150:], covariates=[{"before": 1.0}] * 300))
    assert flat.comparison == analyse(MEAN, units).comparison
    assert flat.cuped is not None
    assert (flat.cuped.theta, flat.cuped.variance_reduction) == (0.0, 0.0)


def test_winsorising_cuts_both_arms_at_the_quantiles_of_all() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 150), rng.normal(0, 1, 251)
    a[0], b[0] = 1e6, -1e6
    rule = Winsorising(lower=0.01, upper=0.99)
    found = analyse(MEAN.model_copy(update={"winsorise": rule}), entries(a, b))
    # Of 401 values scipy's version replaces int(0.01 x 401) = 4 at each end by the next.
    cut = np.asarray(stats.mstats.winsorize(np.concatenate([a, b]), limits=(0.01, 0.01)))
    plain = analyse(MEAN, entries(cut[:150], cut[150:]))
    assert found.comparison == plain.comparison
    (ends,) = found.thresholds
    assert (ends.low, ends.high) == (cut.min(), cut.max())
    assert ends.share == pytest.approx(8 / 401)
    assert abs(found.comparison.effect) < 1 < abs(analyse(MEAN, entries(a, b)).comparison.effect)


def test_both_parts_of_a_ratio_are_winsorised() -> None:
    rng = np.random.default_rng(3)
    clicks, views = clustered(rng, 200)
    metric = RATIO.model_copy(update={"winsorise": Winsorising(upper=0.9)})
    top, bottom = (np.minimum(x, np.quantile(x, 0.9, method="lower")) for x in (clicks, views))
    found = analyse(metric, entries(clicks[:90], clicks[90:], below=views))
    assert found.comparison == analyse(RATIO, entries(top[:90], top[90:], below=bottom)).comparison
    assert len(found.thresholds) == 2


def test_a_ratio_with_a_covariate_has_the_same_truth_and_less_spread() -> None:
    adjusted, plain = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            clicks, views = clustered(rng, 300)
            x = clicks / views + rng.normal(0, 0.03, 300)
            units = entries(clicks[:150], clicks[150:], below=views, covariates=[{"x": v} for v in x])
            adjusted.append(analyse(RATIO.model_copy(update={"cuped": "x"}), units).comparison)
            plain.append(analyse(RATIO, units).comparison)
    values = np.array([c.effect for c in adjusted])
    claimed = np.mean([c.interval[1] - c.interval[0] for c in adjusted]) / 2 / stats.t.ppf(0.975, 298)
    assert stats.norm.sf(abs(values.mean()) / claimed * math.sqrt(len(values))) > 1e-3
    assert values.std() < 0.6 * np.std([c.effect for c in plain])
    # Spread as claimed: the sum of squares over the variance has a chi-square distribution.
    tail = stats.chi2.cdf(float(values @ values) / claimed**2, len(values))
    assert 1e-3 < tail < 1 - 1e-3


def covered(seed: int, draw: Callable[[np.random.Generator], tuple[Metric, list[Entry], float]], rounds: int) -> int:
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(rounds):
        metric, units, truth = draw(rng)
        low, high = analyse(metric, units).comparison.interval
        hits += low <= truth <= high
    return hits


def draw_mean(rng: np.random.Generator) -> tuple[Metric, list[Entry], float]:
    x = rng.normal(0, 1, 120)
    y = 2 * x + rng.normal(0, 1, 120) + np.repeat([0.0, 0.5], 60)
    units = entries(y[:60], y[60:], covariates=[{"x": v} for v in x])
    return MEAN.model_copy(update={"cuped": "x"}), units, 0.5


def draw_ratio(rng: np.random.Generator) -> tuple[Metric, list[Entry], float]:
    (clicks, views), (clicks_b, views_b) = clustered(rng, 100), clustered(rng, 150)
    return RATIO, entries(clicks, clicks_b, below=[*views, *views_b]), 0.0


def draw_quantile(rng: np.random.Generator) -> tuple[Metric, list[Entry], float]:
    """Latencies exp(u + e) that share u within a unit: log-normal with variance 0.5 + 0.5."""
    n, size = 160, 5
    logs = rng.normal(0, math.sqrt(0.5), (n, 1)) + rng.normal(0, math.sqrt(0.5), (n, size))
    latency = np.exp(logs) * np.repeat([1.0, 1.2], n // 2)[:, None]
    truth = 0.2 * math.exp(stats.norm.ppf(0.9))
    zeros = [0.0] * (n // 2)
    return P90, entries(zeros, zeros, values=[tuple(row.tolist()) for row in latency]), truth


def draw_proportion(rng: np.random.Generator) -> tuple[Metric, list[Entry], float]:
    metric = ProportionMetric(name="p", value="x", window_s=1)
    return metric, entries(rng.random(150) < 0.3, rng.random(200) < 0.4), 0.1


@pytest.mark.parametrize("draw", [draw_mean, draw_ratio, draw_quantile, draw_proportion])
def test_intervals_cover_the_truth_as_often_as_they_say(
    draw: Callable[[np.random.Generator], tuple[Metric, list[Entry], float]],
) -> None:
    hits = sum(covered(seed, draw, 120) for seed in SEEDS)
    assert stats.binomtest(hits, 600, 0.95).pvalue > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interval_of_a_quantile_is_near_the_exact_one(seed: int) -> None:
    """With one value per unit: scipy's binomial interval, to within a few order statistics."""
    rng = np.random.default_rng(seed)
    x, zeros = rng.lognormal(0, 1, 2_000), [0.0] * 1_000
    units = entries(zeros, zeros, values=[(v,) for v in x])
    found = analyse(P90, units).comparison
    low, high = stats.quantile_test(x[:1_000], q=0, p=0.9).confidence_interval(0.95)
    ranks = stats.percentileofscore(x[:1_000], [low, high])
    arm = arm_quantile("control", x[:1_000], np.arange(1_000), 0.9)
    assert stats.percentileofscore(x[:1_000], arm.interval(0.025)) == pytest.approx(ranks, abs=0.3)
    assert found.arms["control"].mean == np.quantile(x[:1_000], 0.9, method="inverted_cdf")


def test_too_few_units_for_a_quantile_say_so() -> None:
    units = entries([0.0] * 10, [0.0] * 10, values=[(float(i),) for i in range(20)])
    with pytest.raises(InvalidInputError, match=r"10 units are too few for an interval of quantile 0\.9"):
        analyse(P90, units)


def test_units_without_a_value_add_nothing_to_a_quantile() -> None:
    rng = np.random.default_rng(5)
    some = [(float(v),) for v in rng.exponential(1, 400)]
    zeros = [0.0] * 200
    padded = [value for pair in zip(some, [()] * 400, strict=True) for value in pair]
    found = analyse(P90, entries([0.0] * 400, [0.0] * 400, values=padded)).comparison
    assert found == analyse(P90, entries(zeros, zeros, values=some)).comparison


def test_segments_are_compared_apart() -> None:
    rng = np.random.default_rng(6)
    n = 400
    country = rng.choice(["DE", "FR", "rare"], n, p=[0.6, 0.39, 0.01])
    y = rng.normal(0, 1, n) + np.where(country == "FR", 2.0, 0.0) * np.repeat([0, 1], n // 2)
    attributes: list[dict[str, Any]] = [{"country": c} for c in country.tolist()]
    attributes[7] = {}
    metric = MEAN.model_copy(update={"segments": ("country",)})
    units = entries(y[: n // 2], y[n // 2 :], attributes=attributes)
    found = {segment.value: segment for segment in analyse(metric, units).segments}
    assert list(found)[:2] == ["DE", "FR"]
    assert sum(segment.n_units for segment in found.values()) == n
    for value in ("DE", "FR"):
        alone = [unit for unit in units if unit.attributes.get("country") == value]
        assert found[value].comparison == analyse(MEAN, alone).comparison
    assert found["(missing)"].n_units == 1
    assert found["(missing)"].comparison is None
    assert "at least 2 are needed" in found["(missing)"].reason


def test_small_segments_are_joined_and_cuped_keeps_their_level() -> None:
    rng = np.random.default_rng(7)
    n = 1_000
    group = rng.integers(0, 30, n)
    x = rng.normal(0, 1, n) + group
    units = entries(
        (x[:500] + rng.normal(0, 0.1, 500)),
        (x[500:] + rng.normal(0, 0.1, 500)),
        covariates=[{"x": v} for v in x],
        attributes=[{"group": int(g)} for g in group],
    )
    metric = MEAN.model_copy(update={"segments": ("group",), "cuped": "x"})
    found = analyse(metric, units).segments
    assert len(found) == 21
    assert found[-1].value == "(other)"
    assert sum(segment.n_units for segment in found) == n
    for segment in found[:-1]:
        assert segment.comparison is not None
        assert segment.comparison.arms["control"].mean == pytest.approx(int(segment.value), abs=1.0)
        assert abs(segment.comparison.effect) < 0.2


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20),
    st.randoms(use_true_random=False),
)
def test_the_order_of_units_does_not_matter_and_results_are_json(a: list[float], b: list[float], rng: Any) -> None:
    metric = CountMetric(
        name="n", value="x", window_s=1, cuped="x", winsorise=Winsorising(lower=0.1, upper=0.9), segments=("g",)
    )
    units = entries(
        a,
        b,
        covariates=[{"x": float(i % 3)} for i in range(len(a + b))],
        attributes=[{"g": i % 2} for i in range(len(a + b))],
    )
    shuffled = list(units)
    rng.shuffle(shuffled)
    one, other = analyse(metric, units), analyse(metric, shuffled)
    assert one.comparison.effect == pytest.approx(other.comparison.effect, rel=1e-6, abs=1e-6)
    assert one.thresholds == other.thresholds
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["comparison"]["metric"] == "n"


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([], "no unit has entered yet"),
        (entries([1.0, 2.0], [1.0]), "arm 'treatment' has 1 units; at least 2 are needed"),
        (entries([1.0, 2.0], [1.0, 2.0]) * 2, "4 units stand twice in entries, such as 'u0'"),
    ],
)
def test_bad_entries_are_named(units: list[Entry], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        analyse(MEAN, units)
    with pytest.raises(InvalidInputError, match="control and treatment are both 'control'"):
        analyse_metric(MEAN, entries([1.0, 2.0], [1.0, 2.0]), control="control", treatment="control")
    with pytest.raises(InvalidInputError, match="denominators of arm 'control' sum to 0"):
        analyse(RATIO, entries([1.0, 2.0], [1.0, 2.0], below=[0, 0, 1, 1]))
