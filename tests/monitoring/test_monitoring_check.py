"""A window from every side: each kind of drift is found by the test that is meant for it, and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from rlaas.errors import InvalidInputError
from rlaas.monitoring import CheckOptions, OutlierModel, Traffic, check_window
from rlaas.monitoring.concept import OutcomeModel
from rlaas.monitoring.multivariate import area_under_curve, classifier_test


def traffic(
    rng: np.random.Generator,
    n: int,
    *,
    shift: float = 0,
    together: float = 0,
    concept: float = 0,
    bias: float = 0,
    tired: float = 0,
    discrete: bool = True,
) -> Traffic:
    x = rng.normal(size=(n, 4))
    x[:, 1] = together * x[:, 0] + np.sqrt(1 - together**2) * x[:, 1]
    x[:, 0] += shift
    a = (rng.random(n) < 0.5 + tired).astype(float)[:, None] if discrete else rng.normal(size=(n, 2)) + tired
    latency = x[:, 2] * (1 - 2 * concept) + a[:, 0] + bias + 0.5 * rng.normal(size=n)
    latency[::7] = np.nan  # outcomes that have not come
    return Traffic(observations=x, actions=a, discrete=discrete, outcomes={"latency": latency})


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, set()),
        ({"shift": 1.0}, {"input", "multivariate"}),
        ({"together": 0.8}, {"multivariate"}),
        ({"tired": 0.45}, {"action"}),
        ({"concept": 1.0}, {"concept", "calibration"}),
        ({"bias": 1.0}, {"outcome", "concept", "calibration"}),
    ],
)
@pytest.mark.parametrize("discrete", [True, False])
def test_each_kind_of_drift_is_found_by_its_test(change: dict[str, Any], kinds: set[str], discrete: bool) -> None:
    rng = np.random.default_rng(3)
    report = check_window(traffic(rng, 6000, discrete=discrete), traffic(rng, 3000, discrete=discrete, **change), rng)
    found = {one.kind for one in report.findings if one.drifted}
    assert kinds <= found
    assert report.drifted == bool(kinds)
    assert found <= kinds | {"multivariate", "outcome"}
    assert report.rows == (6000, 3000)
    assert report.outliers is not None


def test_everything_is_corrected_for_everything() -> None:
    rng = np.random.default_rng(4)
    before, now = traffic(rng, 3000), traffic(rng, 2000, shift=0.8)
    by = {
        control: check_window(before, now, np.random.default_rng(1), CheckOptions(control=control))
        for control in ("benjamini-hochberg", "holm")
    }
    p = [one.p_value for one in by["holm"].findings]
    assert [one.adjusted for one in by["benjamini-hochberg"].findings] == pytest.approx(
        stats.false_discovery_control(p)
    )
    order = np.argsort(p)
    stepped = np.minimum(np.maximum.accumulate(np.array(p)[order] * np.arange(len(p), 0, -1)), 1)
    assert np.array([one.adjusted for one in by["holm"].findings])[order] == pytest.approx(stepped)
    with pytest.raises(InvalidInputError, match="unknown control"):
        check_window(before, now, rng, CheckOptions(control="bonferroni"))  # type: ignore[arg-type]


def test_what_cannot_be_tested_is_said() -> None:
    rng = np.random.default_rng(5)
    few = traffic(rng, 200)
    other = Traffic(
        observations=few.observations, actions=few.actions, discrete=True, outcomes={"cost": few.actions[:, 0]}
    )
    report = check_window(few, other, rng)
    assert report.outliers is None
    assert [reason.split(":")[0] for reason in report.skipped] == [
        "outcome cost",
        "outcome latency",
        "out-of-distribution inputs",
    ]


def test_the_area_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(6)
    scores, labels = np.round(rng.normal(size=(60, 3)), 1), rng.random((60, 3)) < 0.4
    for column, area in enumerate(area_under_curve(scores, labels)):
        ones, zeros = scores[labels[:, column], column], scores[~labels[:, column], column]
        assert area == pytest.approx(stats.mannwhitneyu(ones, zeros).statistic / (len(ones) * len(zeros)))


def test_p_values_of_the_classifier_are_uniform_without_drift() -> None:
    rng = np.random.default_rng(7)
    found = [
        classifier_test(rng.normal(size=(80, 3)), rng.normal(size=(60, 3)), rng, permutations=39) for _ in range(120)
    ]
    assert stats.kstest([one.p_value + rng.uniform(-1 / 40, 0) for one in found], "uniform").pvalue > 0.01
    # Cross-validation makes areas under the null vary more than one Mann-Whitney statistic of all rows would.
    assert np.mean([one.null_sd for one in found]) > np.sqrt((80 + 60 + 1) / (12 * 80 * 60))
    with pytest.raises(InvalidInputError, match="needs 10 rows"):
        classifier_test(np.zeros((5, 2)), np.zeros((50, 2)), rng)


def test_calibration_p_values_are_uniform_without_drift() -> None:
    rng = np.random.default_rng(8)
    p = []
    for _ in range(60):
        x = rng.normal(size=(900, 2))
        y = x[:, 0] + rng.normal(size=900)
        model = OutcomeModel(x[:600], y[:600], rng)
        p.append(model.calibration(x[600:], y[600:]).p_value)
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert model.explained == pytest.approx(0.5, abs=0.1)
    with pytest.raises(InvalidInputError, match="needs 40 decisions"):
        OutcomeModel(x[:10], y[:10], rng)


def test_normal_inputs_are_flagged_as_seldom_as_asked_and_strange_ones_always() -> None:
    rng = np.random.default_rng(9)
    mix = rng.normal(size=(6, 6))

    def draw(n: int) -> np.ndarray:
        return rng.normal(size=(n, 6)) @ mix

    rate = 0.01
    model = OutlierModel(draw(20_000), rng, rate=rate)
    share = float(model.flag(draw(50_000)).flagged.mean())
    assert share <= rate + 4 * np.sqrt(rate / 10_000)
    assert share > rate / 4
    usual = draw(20)
    # Each value is an ordinary one; only their combination does not occur.
    values, vectors = np.linalg.eigh(mix.T @ mix)
    adversarial = usual + 0.9 * np.sqrt(np.diag(mix.T @ mix)).min() * vectors[:, 0]
    assert values[0] < values[-1] / 20
    assert model.flag(adversarial).flagged.mean() > 0.8
    broken = usual.copy()
    broken[:10, 2], broken[10:, 4] = np.nan, 1e9
    flags = model.flag(broken)
    assert flags.flagged.all()
    assert flags.feature.tolist() == [2] * 10 + [4] * 10
    assert np.isinf(flags.distance[:10]).all()


def test_an_outlier_model_refuses_what_it_cannot_learn_from() -> None:
    rng = np.random.default_rng(10)
    with pytest.raises(InvalidInputError, match="needs 4000 reference rows"):
        OutlierModel(rng.normal(size=(100, 2)), rng)
    with pytest.raises(InvalidInputError, match="rate must be"):
        OutlierModel(rng.normal(size=(100, 2)), rng, rate=0)
    with pytest.raises(InvalidInputError, match="no finite number"):
        OutlierModel(np.full((5000, 1), np.nan), rng)
    with pytest.raises(InvalidInputError, match=r"rows must be \[n, 2\]"):
        OutlierModel(rng.normal(size=(5000, 2)), rng).flag(np.zeros((3, 3)))
