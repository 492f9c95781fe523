"""What the gate finds in a real lake: against sums by hand, known truths, and for every kind of action."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.gate_kit import HOUR_US, favours, log, preference_of, reads_of

from rlaas.bundles import MANIFEST, BundleManifest, BundlePolicy, ChoicesAction, load_bundle, write_manifest
from rlaas.control.gating.declaration import GateDeclaration, estimators_of
from rlaas.control.gating.evidence import judge_version
from rlaas.control.gating.logged import LoggedRows, read_logged
from rlaas.experiments.gate import Verdict
from rlaas.experiments.off_policy import ESTIMATORS
from rlaas.lake import Lake

SEEDS = (1, 2, 3, 4, 5)
THROUGHPUT: dict[str, Any] = {"value": "throughput", "estimator": "snipw"}
LONG = {"window_s": 3.0e8, "max_age_s": 3.0e8}


def rows_of(lake: Lake, bundle: BundlePolicy, **declared: Any) -> LoggedRows:
    return read_logged(lake, "toy", GateDeclaration(**{**THROUGHPUT, **LONG, **declared}), bundle, now_us=_now(lake))


def _now(lake: Lake) -> int:
    return int(max(lake.read("silver.transitions", ["time_us"]).column("time_us").to_pylist())) + 1_000_000


def verdict_of(
    lake: Lake, bundle: BundlePolicy, *, explore: bool = False, epsilon: float = 0.0, **declared: Any
) -> Verdict:
    policy = GateDeclaration(**{**THROUGHPUT, **LONG, **declared}).policy(1)
    return judge_version(
        policy,
        bundle,
        rows_of(lake, bundle, **declared),
        subject="toy:2",
        explore=explore,
        epsilon=epsilon,
        now_us=_now(lake),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[BundlePolicy]:
    root = tmp_path_factory.mktemp("bundles")
    return [load_bundle(policy_bundle(root / str(seed), seed=seed)) for seed in (1, 2, 3)]


def test_the_estimate_is_the_sum_by_hand(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=800)
    verdict = verdict_of(lake, bundles[1], estimator="ipw")
    table = lake.read("silver.transitions").to_pylist()
    observations = np.array([row["observation"] for row in table], dtype=np.float32)
    greedy = bundles[1].act(observations, preference_of(bundles[1]))[0]
    weight = np.array([row["action"][0] for row in table]) == greedy
    weight = weight / np.array([row["action_propensity"] for row in table])
    reward = np.array([dict(row["outcome"])["throughput"] for row in table])
    lines = {line.estimator: line for line in verdict.lines}
    assert lines["ipw"].value == pytest.approx((weight * reward).mean())
    assert lines["snipw"].value == pytest.approx((weight @ reward) / weight.sum())
    assert lines["ipw"].effective_sample_size == pytest.approx(weight.sum() ** 2 / (weight @ weight))
    assert verdict.reference_value == pytest.approx(reward.mean())
    assert set(lines) == set(ESTIMATORS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("estimator", ["snipw", "dr", "switch_dr"])
def test_the_better_version_passes_with_the_truth_in_its_interval(
    lake: Lake, bundles: list[BundlePolicy], seed: int, estimator: str
) -> None:
    old, better, worse = bundles
    log(lake, old, favours(better, worse), n=1200, seed=seed)
    passed, failed = (verdict_of(lake, version, estimator=estimator) for version in (better, worse))
    assert (passed.outcome, failed.outcome) == ("passed", "failed")
    low, high = passed.lines[0].low, passed.lines[0].high
    assert low is not None
    assert high is not None
    assert low - 1 < 70 < high + 1  # what its own choices bring, give or take what the sample adds
    assert high - low < 10


def test_how_it_would_be_served_is_how_it_is_judged(lake: Lake, bundles: list[BundlePolicy]) -> None:
    old, better, _ = bundles
    log(lake, old, favours(better), n=1200)
    greedy = verdict_of(lake, better)
    sampled = verdict_of(lake, better, explore=True)
    random = verdict_of(lake, better, explore=True, epsilon=1.0)
    values = [found.lines[0].value for found in (greedy, sampled, random)]
    assert None not in values
    assert values[0] > values[1] > values[2]  # type: ignore[operator]
    assert values[2] == pytest.approx(40 + 30 / 4, abs=3)  # one choice in four is the good one


@pytest.mark.parametrize(
    ("declared", "metric"),
    [
        ({"value": None, "weights": {"throughput": 1.0}}, "utility of throughput 1"),
        ({"value": None, "mode": "normal"}, "utility in mode normal"),
    ],
)
def test_a_utility_is_of_normalised_objectives(
    lake: Lake, bundles: list[BundlePolicy], declared: dict[str, Any], metric: str
) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=900)
    rows = rows_of(lake, bundles[1], **declared)
    table = sorted(lake.read("silver.transitions").to_pylist(), key=lambda row: -row["time_us"])
    values = [dict(row["outcome"]) for row in table]
    throughput = np.array([one["throughput"] for one in values]) / 100
    latency = 1 - np.array([one["latency"] for one in values]) / 10
    expected = throughput if "weights" in declared else (throughput + latency) / 2
    np.testing.assert_allclose(rows.reward, np.clip(expected, 0, 1))
    verdict = verdict_of(lake, bundles[1], **declared)
    assert verdict.policy.metric == metric
    assert f"snipw gives {metric}" in verdict.reason


def test_a_smaller_value_can_be_the_better_one(lake: Lake, bundles: list[BundlePolicy]) -> None:
    old, better, worse = bundles
    log(lake, old, favours(better, worse), n=1200)
    assert verdict_of(lake, worse, better="lower").outcome == "passed"
    assert verdict_of(lake, better, better="lower").outcome == "failed"
    assert verdict_of(lake, better, reference=95.0).outcome == "failed"
    assert verdict_of(lake, better, reference=95.0, margin=50.0).outcome == "passed"


def test_units_count_once_and_modes_are_the_versions_own(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=300, unit="only one", mode="emergency", preference=None)
    rows = rows_of(lake, bundles[1])
    assert set(rows.unit) == {0}
    assert rows.preference is not None
    np.testing.assert_array_equal(rows.preference, np.tile([1.0, 0.0], (300, 1)))  # latency alone
    verdict = verdict_of(lake, bundles[1])
    assert verdict.outcome == "no_verdict"
    assert "at least 2 units" in verdict.reason
    log(lake, bundles[0], favours(bundles[1]), n=900, seed=9, session="another")
    two = {line.estimator: line for line in verdict_of(lake, bundles[1]).lines}
    assert two["snipw"].value is not None
    assert two["dr"].refused == "2 distinct rows cannot be split into 3 folds"


def test_what_was_chosen_counts_not_what_the_shield_made_of_it(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=200, proposed_action=[3.0])
    assert set(rows_of(lake, bundles[1]).action[:, 0]) == {3.0}


def test_rows_that_do_not_fit_are_left_out_and_counted(lake: Lake, bundles: list[BundlePolicy], tmp_path: Path) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=100, seed=1)
    log(lake, bundles[0], favours(bundles[1]), n=50, seed=2, observation=[1.0, 2.0])
    log(lake, bundles[0], favours(bundles[1]), n=25, seed=3, candidate="point")
    rows = rows_of(lake, bundles[1])
    assert (rows.read, len(rows.reward)) == (175, 100)
    assert dict(rows.left_out) == {"chosen from a front": 25, "of another shape": 50}
    assert rows.sentence() == (
        "100 of 175 decisions with an outcome count (25 chosen from a front, 50 of another shape)"
    )
    missing = rows_of(lake, bundles[1], value="orders")
    assert (len(missing.reward), missing.until_us) == (0, 0)
    assert verdict_of(lake, bundles[1], value="orders").reason.count("without orders") == 1


def test_the_same_log_gives_the_same_verdict(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=400)
    assert verdict_of(lake, bundles[1], estimator="dr") == verdict_of(lake, bundles[1], estimator="dr")


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> list[BundlePolicy]:
    root = tmp_path_factory.mktemp("boxes")
    return [
        load_bundle(policy_bundle(root / str(seed), kind="box", actions=1, seed=seed, conditioned=False))
        for seed in (1, 2)
    ]


def first_action(_: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.asarray(20 + 60 * actions[:, 0])


@pytest.mark.parametrize("estimator", ["snipw", "sndr"])
def test_actions_in_a_box_are_judged_by_densities(lake: Lake, boxes: list[BundlePolicy], estimator: str) -> None:
    observations = log(lake, boxes[0], first_action, n=1500, preference=None)
    verdict = verdict_of(lake, boxes[1], explore=True, epsilon=0.2, estimator=estimator)
    rng = np.random.default_rng(7)
    drawn = [boxes[1].act(observations.astype(np.float32), rng=rng, epsilon=0.2)[0] for _ in range(50)]
    truth = float(np.mean([first_action(observations, one) for one in drawn]))
    line = verdict.lines[0]
    assert line.low is not None
    assert line.high is not None
    assert line.low < truth < line.high
    assert {one.estimator for one in verdict.lines} == set(estimators_of(boxes[1])) == {"ipw", "snipw", "dr", "sndr"}


def test_a_box_policy_that_takes_its_mean_has_no_verdict(lake: Lake, boxes: list[BundlePolicy]) -> None:
    log(lake, boxes[0], first_action, n=300, preference=None)
    verdict = verdict_of(lake, boxes[1])
    assert verdict.outcome == "no_verdict"
    assert "has no density" in verdict.reason


def test_several_choices_at_once_are_judged_without_a_model(lake: Lake, tmp_path: Path) -> None:
    folder = policy_bundle(tmp_path / "choices", actions=5, seed=3)
    manifest = BundleManifest.model_validate_json((folder / MANIFEST).read_text())
    write_manifest(folder, manifest.model_copy(update={"action": ChoicesAction(sizes=(2, 3))}))
    bundle = load_bundle(folder)
    assert estimators_of(bundle) == ("ipw", "snipw")
    log(lake, bundle, lambda _, actions: 40 + 30.0 * (actions[:, 0] == 1), n=800, epsilon=0.5)
    verdict = verdict_of(lake, bundle, explore=True, epsilon=0.5, margin=0.1)
    # The version that logged: every weight is 1.
    assert verdict.lines[0].value == pytest.approx(verdict.reference_value)
    assert verdict.lines[0].effective_sample_size == pytest.approx(800)
    assert verdict.outcome == "passed"


def test_a_logged_preference_of_other_objectives_is_no_evidence(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=100, preference={"colour": 1.0})
    with pytest.raises(ValueError, match=r"a logged preference: .*colour"):
        rows_of(lake, bundles[1])


def test_only_the_newest_rows_are_taken(
    lake: Lake, bundles: list[BundlePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=200)
    everything = rows_of(lake, bundles[1])
    monkeypatch.setattr("rlaas.control.gating.logged.MOST_ROWS", 150)
    rows = rows_of(lake, bundles[1])
    assert dict(rows.left_out) == {"older": 50}
    np.testing.assert_array_equal(rows.reward, everything.reward[:150])
    assert rows.until_us == everything.until_us


def test_days_are_read_from_the_newest_on_until_there_are_enough_rows(
    lake: Lake, bundles: list[BundlePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in range(4):
        log(lake, bundles[0], favours(bundles[1]), n=20, seed=days, age_us=(24 * days + 1) * HOUR_US)
    everything = rows_of(lake, bundles[1])
    assert (everything.read, len(everything.reward)) == (80, 80)
    held = reads_of(lake, monkeypatch)
    monkeypatch.setattr("rlaas.control.gating.logged.MOST_ROWS", 30)
    rows = rows_of(lake, bundles[1])
    assert held == [80, 20, 20]  # the first for the time of the judgement
    assert (rows.read, dict(rows.left_out)) == (40, {"older": 10})
    np.testing.assert_array_equal(rows.reward, everything.reward[:30])


def test_a_log_with_impossible_propensities_is_no_evidence(lake: Lake, bundles: list[BundlePolicy]) -> None:
    log(lake, bundles[0], favours(bundles[1]), n=400, action_propensity=0.001)
    verdict = verdict_of(lake, bundles[1])
    assert verdict.outcome == "no_verdict"
    assert "instead of 1" in verdict.reason
