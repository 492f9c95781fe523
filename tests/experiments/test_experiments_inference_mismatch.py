from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from rlaas.errors import InvalidInputError
from rlaas.experiments.inference import SplitMonitor
from rlaas.experiments.inference.mismatch import split_log_e

HALF = {"a": 1.0, "b": 1.0}


def test_e_value_is_the_dirichlet_multinomial_likelihood_ratio() -> None:
    counts, weights = np.array([30, 45, 10]), np.array([0.4, 0.5, 0.1])
    for concentration in (1.0, 50.0):
        monitor = SplitMonitor({"a": 4, "b": 5, "c": 1}, concentrations=[concentration])
        monitor.update({"a": 30, "b": 45, "c": 10})
        mixture = stats.dirichlet_multinomial(concentration * weights, counts.sum()).logpmf(counts)
        assert monitor.log_e == pytest.approx(mixture - stats.multinomial(counts.sum(), weights).logpmf(counts))
    mean = SplitMonitor({"a": 4, "b": 5, "c": 1}, concentrations=[1.0, 50.0])
    mean.update({"a": 30, "b": 45, "c": 10})
    each = [float(split_log_e(counts, c * weights, weights)) for c in (1.0, 50.0)]
    assert mean.log_e == pytest.approx(special.logsumexp(each) - math.log(2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8))
def test_how_counts_are_cut_into_batches_does_not_matter(batches: list[tuple[int, int]]) -> None:
    parts, whole, units = SplitMonitor(HALF), SplitMonitor(HALF), SplitMonitor(HALF)
    for a, b in batches:
        parts.update({"a": a, "b": b})
    a, b = np.sum(batches, axis=0).tolist()
    whole.update({"a": a, "b": b})
    units.update_units([0] * a + [1] * b, np.full((a + b, 2), 0.5))
    assert parts.log_e == pytest.approx(whole.log_e, abs=1e-8)
    assert units.log_e == pytest.approx(whole.log_e, abs=1e-8)


def test_e_value_averages_one_whatever_steers_the_propensities() -> None:
    """Exact, over all assignments of five units; propensities follow the assignments, and units come in two ways."""
    weights, totals = {"a": 2.0, "b": 1.0, "c": 1.0}, [0.0, 0.0]
    for path in product(range(3), repeat=5):
        chance, p = 1.0, np.array([0.5, 0.25, 0.25])
        by_count, by_unit = (SplitMonitor(weights, concentrations=[3.0, 20.0]) for _ in range(2))
        for variant in path:
            chance *= p[variant]
            by_count.update({"abc"[variant]: 1}, dict(zip("abc", p.tolist(), strict=True)))
            by_unit.update_units([variant], [p])
            p = np.roll(p, variant) * 0.7 + 0.1
        assert by_count.log_e == pytest.approx(by_unit.log_e, abs=1e-9)
        totals[0] += chance * math.exp(by_count.log_e)
        totals[1] += chance * math.exp(by_unit.log_e)
    assert totals == pytest.approx([1, 1], abs=1e-9)


def test_small_mismatch_is_caught_by_two_million_units() -> None:
    for seed in range(10):
        rng, monitor = np.random.default_rng(seed), SplitMonitor(HALF)
        for a in rng.binomial(10_000, 0.4975, 200).tolist():
            monitor.update({"a": a, "b": 10_000 - a})
        assert monitor.alarm
        assert monitor.p_value <= 0.01


def test_false_alarms_stay_below_alpha_after_every_unit() -> None:
    runs, units, alpha, alarms = 400, 2_000, 0.05, 0
    fair = np.full((units, 2), 0.5)
    for seed in range(runs):
        monitor = SplitMonitor(HALF, alpha=alpha)
        monitor.update_units(np.random.default_rng([1, seed]).integers(0, 2, units), fair)
        alarms += monitor.alarm
    assert alarms / runs <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / runs)


def test_changing_propensities_are_no_mismatch_but_a_loss_under_them_is() -> None:
    """A bandit moves the shares; the design alone would raise the alarm, the logged propensities do not."""
    alarms = {"design": 0, "logged": 0, "lost": 0}
    for seed in range(20):
        rng = np.random.default_rng([2, seed])
        share = np.linspace(0.5, 0.9, 20_000)
        p = np.stack([1 - share, share], axis=1)
        variant = (rng.random(20_000) < share).astype(int)
        kept = ~((variant == 1) & (rng.random(20_000) < 0.1))  # a tenth of the treatment never reports
        monitors = {name: SplitMonitor(HALF) for name in alarms}
        monitors["design"].update({"a": int((variant == 0).sum()), "b": int(variant.sum())})
        monitors["logged"].update_units(variant, p)
        monitors["lost"].update_units(variant[kept], p[kept])
        for name, monitor in monitors.items():
            alarms[name] += monitor.alarm
    assert alarms == {"design": 20, "logged": 0, "lost": 20}


def test_a_restarted_monitor_goes_on_bit_for_bit() -> None:
    rng, monitor = np.random.default_rng(3), SplitMonitor({"x": 1, "y": 2, "z": 3}, alpha=0.001)
    for _ in range(10):
        counts = dict(zip("xyz", rng.multinomial(100, [0.2, 0.3, 0.5]).tolist(), strict=True))
        again = SplitMonitor.from_dict(json.loads(json.dumps(monitor.to_dict(), allow_nan=False)))
        assert again.update(counts) == monitor.update(counts)
        units, p = rng.integers(0, 3, 20), rng.dirichlet([5, 5, 5], 20)
        assert again.update_units(units, p) == monitor.update_units(units, p)
        assert again.to_dict() == monitor.to_dict()


def test_nothing_new_changes_nothing() -> None:
    monitor = SplitMonitor(HALF)
    assert monitor.update({}) == 1.0
    assert monitor.update_units([], np.empty((0, 2))) == 1.0
    assert monitor.log_e == pytest.approx(0)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda m: SplitMonitor({"a": 1}), "weights"),
        (lambda m: SplitMonitor({"a": 1, "b": 0}), "weights"),
        (lambda m: SplitMonitor(HALF, alpha=0), "alpha"),
        (lambda m: SplitMonitor(HALF, concentrations=[]), "concentrations"),
        (lambda m: SplitMonitor(HALF, concentrations=[0]), "concentrations"),
        (lambda m: m.update({"c": 1}), "counts"),
        (lambda m: m.update({"a": -1}), "counts"),
        (lambda m: m.update({"a": 1}, {"a": 0.6, "b": 0.6}), "propensities"),
        (lambda m: m.update({"a": 1}, {"a": 0, "b": 1}), "propensities"),
        (lambda m: m.update({"a": 1}, {"c": 1}), "propensities"),
        (lambda m: m.update_units([0.5], [[0.5, 0.5]]), "variants"),
        (lambda m: m.update_units([2], [[0.5, 0.5]]), "variants"),
        (lambda m: m.update_units([0], [[0.5]]), "propensities"),
        (lambda m: m.update_units([0, 0], [[0.5, 0.5], [0, 1]]), "propensities"),
        (lambda m: SplitMonitor.from_dict({**m.to_dict(), "kind": "other"}), "kind"),
    ],
)
def test_what_is_impossible_is_refused_by_name_and_leaves_no_trace(call: Any, field: str) -> None:
    monitor = SplitMonitor(HALF)
    monitor.update({"a": 3, "b": 4})
    before = monitor.to_dict()
    with pytest.raises(InvalidInputError) as caught:
        call(monitor)
    assert caught.value.field == field
    assert monitor.to_dict() == before
