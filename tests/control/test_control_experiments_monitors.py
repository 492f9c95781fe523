"""Monitors and figures of the result page, against the library, scipy and what is known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.experiment_kit import document

from rlaas.control.experiments.documents import ExperimentDocument, parse_document
from rlaas.control.experiments.entries import entry_from, entry_list
from rlaas.control.experiments.figures import at_size, blocks_compared, power_so_far, probably_best
from rlaas.control.experiments.metric_state import MetricState, block_size
from rlaas.control.experiments.monitors import EffectMonitor
from rlaas.control.experiments.verdict import recommend
from rlaas.experiments import Entry, MeanDifference, analyse_metric, bayes_means, compare_switchback
from rlaas.experiments.inference import Moments

SEEDS = (1, 2, 3, 4, 5)
TIMING = {"window_s": 60.0}
MEAN = {"kind": "mean", "name": "m", "value": "throughput", **TIMING}


def entries_of(seed: int, n: int, *, lift: float = 0.0, arms: str = "AB") -> list[Entry]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n):
        arm, before = arms[rng.integers(len(arms))], float(rng.normal())
        bottom = float(rng.integers(1, 6))
        top = bottom * (2 + before + (lift if arm == "B" else 0.0)) + float(rng.normal())
        values = tuple(np.exp(rng.normal(size=int(rng.integers(1, 4))) + (lift if arm == "B" else 0.0)).tolist())
        found.append(
            Entry(
                unit=f"u{number}",
                arm=arm,
                exposed_us=number,
                numerator=top,
                denominator=bottom,
                values=values,
                covariates={"before": before} if number % 10 else {},
            )
        )
    return found


def parsed(**changes: Any) -> ExperimentDocument:
    return parse_document(document(**{"primary": MEAN, **changes}))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cuts", [(100,), (7, 60, 99), tuple(range(0, 100, 9))])
def test_a_mean_is_that_of_the_library(seed: int, cuts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.normal(1.0, 2.0, 100), rng.normal(1.5, 1.0, 100)
    mine = EffectMonitor(alpha=0.05, planned=500, start=20)
    known = MeanDifference(alpha=0.05, planned=500, start=20)
    ends = [*cuts, 100]
    for first, last in zip([0, *ends], ends, strict=False):
        ones = np.ones(last - first)
        rows = [np.column_stack([arm[first:last], ones, 0 * ones]) for arm in (old, new)]
        mine.update(*rows)
        known.update(old[first:last], new[first:last])
    found, wanted = mine.standing().to_dict(), known.standing().to_dict()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-9), name
    again = EffectMonitor.from_dict(json.loads(json.dumps(mine.to_dict())))
    assert again.standing() == mine.standing()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cuped", [None, "before"])
@pytest.mark.parametrize("kind", ["mean", "ratio"])
def test_estimate_and_error_are_those_of_one_look(seed: int, cuped: str | None, kind: str) -> None:
    metric = {"kind": kind, "name": "m", "cuped": cuped, **TIMING}
    metric |= {"value": "throughput"} if kind == "mean" else {"numerator": "throughput", "denominator": "orders"}
    plan = parsed(primary=metric, stopping={"kind": "sequential", "planned": 500, "start": 100})
    entries = entries_of(seed, 600, lift=0.3)
    if kind == "mean":
        entries = [entry_from([*entry_list(e)[:4], 1.0, *entry_list(e)[5:]]) for e in entries]
    if cuped:  # missing covariates are filled in otherwise: by the mean of the first units
        entries = [e for e in entries if e.covariates]
    state = MetricState(plan, plan.primary)
    state.advance(entries)
    (standing,) = state.now(entries)["B"]
    monitor = state.monitors["B"][0]
    assert isinstance(monitor, EffectMonitor)
    known = analyse_metric(plan.primary, entries, control="A", treatment="B").comparison
    assert standing.estimate == pytest.approx(known.effect, rel=1e-9)
    # The interval of one look, at its own width: the standard error is the same.
    half = (known.interval[1] - known.interval[0]) / 2
    wide = (standing.high - standing.low) / 2
    assert 1.2 < wide / half < 2.0


def test_alarms_of_ratios_with_a_covariate_keep_their_level() -> None:
    metric = {"kind": "ratio", "name": "m", "cuped": "before", **TIMING}
    metric |= {"numerator": "throughput", "denominator": "orders"}
    plan = parsed(primary=metric, stopping={"kind": "sequential", "planned": 300, "start": 100, "alpha": 0.2})
    runs, alarms = 60, 0
    for seed in range(runs):
        state = MetricState(plan, plan.primary)
        state.advance(entries_of(1000 + seed, 600))
        alarms += any(look["treatments"]["B"]["p_value"] <= 0.2 for look in state.looks)
    assert alarms / runs <= 0.2 + 2 * math.sqrt(0.2 * 0.8 / runs)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.sampled_from(SEEDS))
def test_where_the_entries_are_cut_makes_no_difference(steps: list[int], seed: int) -> None:
    quantile = {"kind": "quantile", "name": "q", "value": "latency", "quantile": 0.5, **TIMING}
    plan = parsed(secondary=[quantile], stopping={"kind": "sequential", "planned": 300, "start": 100})
    entries = entries_of(seed, 500, lift=0.2)
    for metric in (plan.primary, plan.secondary[0]):
        whole = MetricState(plan, metric)
        whole.advance(entries)
        state: dict[str, Any] | None = None
        at = 0
        for step in [*steps, 500]:
            at = min(at + step, 500)
            part = MetricState(plan, metric, None, state)
            part.advance(entries[:at])
            state = json.loads(json.dumps(part.to_dict()))
        assert state == json.loads(json.dumps(whole.to_dict()))
        assert whole.looks
        assert all(look["units"] % block_size(plan) == 0 for look in whole.looks)


@pytest.mark.parametrize(("better", "lift", "verdict"), [("higher", 0.0, "passed"), ("higher", -1.5, "failed")])
def test_a_guardrail_is_decided_either_way(better: str, lift: float, verdict: str) -> None:
    guard = {"metric": {**MEAN, "name": "g", "better": better}, "margin": 0.3}
    plan = parsed(guardrails=[guard], stopping={"kind": "sequential", "planned": 1000, "start": 100})
    for seed in SEEDS:
        entries = entries_of(seed, 2000, lift=lift)
        state = MetricState(plan, plan.guardrails[0].metric, plan.guardrails[0])
        state.advance(entries)
        passed, failed = state.now(entries)["B"]
        assert (passed.p_value <= 0.05, failed.p_value <= 0.05) == (verdict == "passed", verdict == "failed")


@pytest.mark.parametrize("seed", SEEDS)
def test_who_is_best_agrees_with_the_conjugate_posteriors(seed: int) -> None:
    plan, entries = parsed(), entries_of(seed, 800, lift=0.1)
    best = probably_best(plan, plan.primary, entries)
    assert best is not None
    arms = [Moments.of([e.numerator for e in entries if e.arm == arm]) for arm in "AB"]
    known = bayes_means(*arms)
    assert best["B"]["probability"] == pytest.approx(known.probability, abs=2e-3)
    assert best["A"]["probability"] + best["B"]["probability"] == pytest.approx(1, abs=1e-6)
    assert best["B"]["expected_loss"] == pytest.approx(known.loss_if_treatment, rel=0.02, abs=1e-4)
    assert best["A"]["expected_loss"] == pytest.approx(known.loss_if_control, rel=0.02, abs=1e-4)


def test_of_three_alike_each_is_best_as_often() -> None:
    variants = [{"name": name, "version": 1} for name in "ABC"]
    plan = parsed(variants=variants)
    one = entries_of(1, 900, arms="A")
    entries = [entry_from([f"{arm}{e.unit}", arm, *entry_list(e)[2:]]) for e in one for arm in "ABC"]
    best = probably_best(plan, plan.primary, entries)
    assert best is not None
    for arm in "ABC":
        assert best[arm]["probability"] == pytest.approx(1 / 3, abs=1e-4)
    # E[max of three standard normals] = 3 / (2 sqrt(pi)).
    error = float(np.std([e.numerator for e in one], ddof=1)) / math.sqrt(900)
    assert best["A"]["expected_loss"] == pytest.approx(1.5 / math.sqrt(math.pi) * error, rel=1e-3)


def test_power_so_far_is_that_of_its_own_formula() -> None:
    plan = parsed(stopping={"kind": "sequential", "planned": 1000, "start": 100, "effect": 0.5})
    entries = [entry_from([*entry_list(e)[:4], 1.0, *entry_list(e)[5:]]) for e in entries_of(1, 400)]
    found = power_so_far(plan, plan.primary, entries)
    assert found is not None
    spread = [np.var([e.numerator for e in entries if e.arm == arm], ddof=1) for arm in "AB"]
    assert found["deviation"] == pytest.approx(math.sqrt(sum(spread) / 2))
    z = stats.norm.isf(0.025) + stats.norm.isf(0.2)
    assert found["detectable"] == pytest.approx(z * found["deviation"] * math.sqrt(2 / 1000), rel=2e-3)
    assert found["power"] < found["power_planned"]


def test_the_planned_size_is_where_the_slower_arm_gets_there() -> None:
    plan = parsed(stopping={"kind": "fixed", "horizon": 100})
    entries = entries_of(2, 400)
    taken = at_size(plan, entries)
    assert taken is not None
    counts = {arm: sum(e.arm == arm for e in taken) for arm in "AB"}
    assert min(counts.values()) == 100
    assert counts[taken[-1].arm] == 100
    assert at_size(plan, taken[:-1]) is None


def test_a_switchback_takes_complete_pairs_in_their_order() -> None:
    plan = parse_document(
        document(design="switchback", block_steps=5, stopping={"kind": "fixed", "horizon": 4}, primary=MEAN)
    )
    rng = np.random.default_rng(3)
    blocks = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]  # 4 is missing
    arm = {block: "AB"[(block + block // 2) % 2] for block in blocks}
    entries = [
        Entry(
            unit=f"block {block}",
            arm=arm[block],
            exposed_us=block,
            numerator=float(rng.normal() + 3 * (arm[block] == "B")),
            attributes={"block": block},
        )
        for block in blocks
    ]
    found = blocks_compared(plan, plan.primary, entries, pairs=4)
    assert found is not None
    assert not isinstance(found, str)
    used = [entry for entry in entries if entry.attributes["block"] in (0, 1, 2, 3, 6, 7, 8, 9)]
    known = compare_switchback(
        [e.attributes["block"] for e in used],
        [e.arm for e in used],
        [e.numerator for e in used],
        block_steps=1,
        washout_steps=0,
        control="A",
        treatment="B",
        metric="m",
    )
    assert found == known
    assert blocks_compared(plan, plan.primary, entries, pairs=6) is None


def _advice(plan: ExperimentDocument, **changes: Any) -> str:
    options: dict[str, Any] = {
        "primary": {"B": {"p_value": 0.001, "estimate": 1.0, "better": True}},
        "guardrails": [],
        "split_broken": "",
        "disturbed": "",
        "reached": False,
        "expected_end_us": None,
    }
    return recommend(plan, **{**options, **changes}).words


def test_the_recommendation_follows_from_the_figures() -> None:
    plan = parsed()
    worse = {"B": {"p_value": 0.001, "estimate": -1.0, "better": False}}
    nothing = {"B": {"p_value": 0.6, "estimate": 0.1, "better": True}}
    guard = {"metric": "g", "treatment": "B", "verdict": "undecided"}
    assert _advice(plan) == "ship B"
    assert _advice(plan, primary=worse) == "keep A"
    assert _advice(plan, primary=nothing) == "keep running"
    assert _advice(plan, primary=nothing, reached=True) == "keep A"
    assert _advice(plan, primary={}) == "keep running"
    assert _advice(plan, guardrails=[guard]) == "keep running"
    assert _advice(plan, guardrails=[guard], reached=True) == "keep A"
    assert _advice(plan, guardrails=[{**guard, "verdict": "passed"}]) == "ship B"
    assert _advice(plan, guardrails=[{**guard, "verdict": "failed"}]) == "keep A"
    assert _advice(plan, split_broken="uneven") == "stop: broken split"
    assert _advice(plan, disturbed="changed") == "stop: disturbed"
    fixed = parsed(stopping={"kind": "fixed", "horizon": 100})
    assert _advice(fixed) == "keep running"
    assert _advice(fixed, reached=True) == "ship B"
