from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, special, stats
from support.bundles import policy_bundle
from support.toy import ToyScenario

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.errors import InvalidInputError
from rlaas.exploration import BoxHead, ChoiceHead
from rlaas.training import export_constant

ROWS = 400
WEIGHTS = np.array([0.3, 0.7], dtype=np.float32)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> BundlePolicy:
    return load_bundle(policy_bundle(tmp_path_factory.mktemp("b") / "box", kind="box", actions=3))


@pytest.fixture(scope="module")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> BundlePolicy:
    return load_bundle(policy_bundle(tmp_path_factory.mktemp("d") / "discrete", kind="discrete"))


def _rows(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(ROWS, 3)).astype(np.float32)


def _oracle(policy: BundlePolicy, actions: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    """Log-density by scipy's normal and the change of variables, mixed in plain probabilities."""
    out = policy.forward(_rows(), WEIGHTS)
    unit = 2 * actions - 1  # the box of the bundle is [0, 1]
    normal = stats.norm(out["mean"].astype(float), np.exp(out["log_std"].astype(float)))
    own = (normal.pdf(np.arctanh(unit)) / (1 - unit**2)).prod(axis=1)
    return np.log((1 - epsilon) * own + epsilon * 0.5**3)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5, 1.0])
def test_log_density_of_the_mixture_agrees_with_scipy(box: BundlePolicy, epsilon: float) -> None:
    for seed in range(5):
        actions, log_density = box.act(_rows(), WEIGHTS, rng=np.random.default_rng(seed), epsilon=epsilon)
        assert log_density is not None
        assert ((actions >= 0) & (actions <= 1)).all()
        np.testing.assert_allclose(log_density, _oracle(box, actions, epsilon), rtol=1e-6, atol=1e-6)
        # What a candidate makes of the logged actions is what it would have logged itself.
        asked = box.propensities(_rows(), actions, WEIGHTS, epsilon)
        np.testing.assert_allclose(asked, log_density, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
def test_probability_of_the_mixture_agrees_with_scipy(discrete: BundlePolicy, epsilon: float) -> None:
    table = (1 - epsilon) * special.softmax(discrete.forward(_rows(), WEIGHTS)["logits"].astype(float), axis=1)
    table += epsilon / 4
    np.testing.assert_allclose(discrete.probabilities(_rows(), WEIGHTS, epsilon), table, rtol=1e-12)
    for seed in range(5):
        choices, probability = discrete.act(_rows(), WEIGHTS, rng=np.random.default_rng(seed), epsilon=epsilon)
        assert choices.dtype == np.int64
        np.testing.assert_allclose(probability, table[np.arange(ROWS), choices], rtol=1e-12)
        for given in (choices, choices[:, None], choices.astype(float)[:, None].tolist()):
            np.testing.assert_allclose(discrete.propensities(_rows(), given, WEIGHTS, epsilon), probability)


def test_without_exploration_every_bit_is_as_it_was(box: BundlePolicy, discrete: BundlePolicy) -> None:
    out = box.forward(_rows(), WEIGHTS)
    mean, log_std = out["mean"].astype(np.float64), out["log_std"].astype(np.float64)
    noise = np.random.default_rng(7).standard_normal(mean.shape)
    before = mean + np.exp(log_std) * noise
    jacobian = 2.0 * (math.log(2.0) - before - np.logaddexp(0.0, -2.0 * before))
    wanted = (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - jacobian).sum(axis=1)
    for given in ({}, {"epsilon": 0.0}):
        actions, log_density = box.act(_rows(), WEIGHTS, rng=np.random.default_rng(7), **given)
        np.testing.assert_array_equal(actions, (np.tanh(before) + 1.0) * 0.5)
        np.testing.assert_array_equal(log_density, wanted)
    logits = discrete.forward(_rows(), WEIGHTS)["logits"].astype(np.float64)
    table = np.exp(logits - logits.max(axis=1, keepdims=True))
    table /= table.sum(axis=1, keepdims=True)
    drawn = (table.cumsum(axis=1) < np.random.default_rng(7).random(ROWS)[:, None]).sum(axis=1)
    choices, probability = discrete.act(_rows(), WEIGHTS, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(choices, drawn)
    np.testing.assert_array_equal(probability, table[np.arange(ROWS), drawn])
    assert box.act(_rows(), WEIGHTS)[1] is None
    assert discrete.act(_rows(), WEIGHTS)[1] is None


def _one(outputs: dict[str, list[float]], n: int) -> dict[str, NDArray[np.float32]]:
    return {name: np.tile(np.array(row, dtype=np.float32), (n, 1)) for name, row in outputs.items()}


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_actions_are_drawn_from_the_density_that_is_logged(epsilon: float) -> None:
    head = BoxHead([-2.0], [4.0], deterministic=False)
    one = {"mean": [0.4], "log_std": [-0.7]}

    def density(unit: float) -> float:
        action = np.array([[-2.0 + (unit + 1) * 3.0]])
        return float(np.exp(head.propensities(_one(one, 1), action, epsilon, greedy=False)[0]))

    assert integrate.quad(density, -1, 1, limit=200)[0] == pytest.approx(1, abs=1e-6)

    def below(action: NDArray[np.float64]) -> NDArray[np.float64]:
        unit = (action + 2) / 3 - 1
        own = stats.norm(0.4, math.exp(-0.7)).cdf(np.arctanh(np.clip(unit, -1 + 1e-15, 1 - 1e-15)))
        return (1 - epsilon) * own + epsilon * (unit + 1) / 2

    p_values = []
    for seed in range(5):
        actions, _ = head.act(_one(one, 4_000), np.random.default_rng(seed), epsilon)
        p_values.append(stats.kstest(actions[:, 0], below).pvalue)
    assert min(p_values) > 1e-3


@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_an_action_of_several_choices_explores_as_a_whole(epsilon: float) -> None:
    head = ChoiceHead((2, 3), single=False, deterministic=False)
    one = {"logits": [0.0, 1.5, 0.2, -1.0, 1.0]}
    first, second = special.softmax(one["logits"][:2]), special.softmax(one["logits"][2:])
    table = (1 - epsilon) * np.outer(first, second) + epsilon / 6
    for seed in range(5):
        choices, probability = head.act(_one(one, 6_000), np.random.default_rng(seed), epsilon)
        assert choices.shape == (6_000, 2)
        np.testing.assert_allclose(probability, table[choices[:, 0], choices[:, 1]], rtol=1e-6)
        seen = np.bincount(choices[:, 0] * 3 + choices[:, 1], minlength=6)
        assert stats.chisquare(seen, table.ravel() * 6_000).pvalue > 1e-3
    if epsilon:  # no product of the components' own mixtures
        apart = np.outer((1 - epsilon) * first + epsilon / 2, (1 - epsilon) * second + epsilon / 3)
        assert abs(apart - table).max() > 0.01


def test_what_a_mask_forbids_is_never_explored() -> None:
    head = ChoiceHead((5,), single=True, deterministic=False)
    one = {"logits": [0.3, -1e9, 2.0, -1e9, -1.0]}
    choices, probability = head.act(_one(one, 3_000), np.random.default_rng(0), 0.9)
    assert set(choices.tolist()) == {0, 2, 4}
    assert probability is not None
    table = head.probabilities(_one(one, 1), 0.9, greedy=False)[0]
    assert table.sum() == pytest.approx(1)
    assert table[[1, 3]].tolist() == [0, 0]
    np.testing.assert_allclose(probability, table[choices])
    nothing = head.probabilities(_one({"logits": [-1e9] * 5}, 1), 1.0, greedy=False)  # nothing allowed: all are equal
    np.testing.assert_allclose(nothing, 0.2)


def test_logged_exploration_covers_every_other_policy(box: BundlePolicy) -> None:
    """With a uniform share the weights of any candidate average 1, and none is above its density over the floor."""
    for seed in range(5):
        actions, logged = box.act(
            np.zeros((20_000, 3), np.float32), WEIGHTS, rng=np.random.default_rng(seed), epsilon=0.3
        )
        assert logged is not None
        assert logged.min() >= math.log(0.3) - 3 * math.log(2) - 1e-9
        candidate = BoxHead([0.0] * 3, [1.0] * 3, deterministic=False)
        elsewhere = _one({"mean": [0.5, -0.5, 0.0], "log_std": [-0.5, 0.0, -0.3]}, len(actions))
        weight = np.exp(candidate.propensities(elsewhere, actions, 0.0, greedy=False) - logged)
        assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(weight))


def test_a_deterministic_choice_has_a_probability_and_a_deterministic_box_action_no_density(tmp_path: Path) -> None:
    head = ChoiceHead((4,), single=True, deterministic=True)
    one = {"logits": [0.0, 0.0, 9.0, 0.0]}
    choices, probability = head.act(_one(one, 2_000), np.random.default_rng(0), 0.4)
    np.testing.assert_allclose(probability, np.where(choices == 2, 0.7, 0.1))
    assert stats.binomtest(int((choices == 2).sum()), 2_000, 0.7).pvalue > 1e-3
    assert head.act(_one(one, 3), np.random.default_rng(0), 0.0)[1] is None
    np.testing.assert_allclose(head.probabilities(_one(one, 1), 0.0, greedy=False)[0], [0, 0, 1, 0])
    fixed = load_bundle(export_constant(ToyScenario(), [0.25], tmp_path / "c"))
    x = np.zeros((2, fixed.n_features), np.float32)
    assert fixed.check_epsilon(0) == 0
    with pytest.raises(InvalidInputError, match="no density") as caught:
        fixed.act(x, rng=np.random.default_rng(0), epsilon=0.1)
    assert caught.value.field == "epsilon"
    with pytest.raises(InvalidInputError, match="always takes one action"):
        fixed.propensities(x, np.full((2, 1), 0.25))


def test_a_greedy_candidate_takes_its_best_choice_for_sure(discrete: BundlePolicy, box: BundlePolicy) -> None:
    best, _ = discrete.act(_rows(), WEIGHTS)
    table = discrete.probabilities(_rows(), WEIGHTS, greedy=True)
    assert (table.argmax(axis=1) == best).all()
    assert set(np.unique(table)) == {0.0, 1.0}
    np.testing.assert_array_equal(discrete.propensities(_rows(), best, WEIGHTS, greedy=True), 1.0)
    np.testing.assert_allclose(discrete.propensities(_rows(), best, WEIGHTS, 0.2, greedy=True), 0.85)
    with pytest.raises(InvalidInputError, match="no density"):
        box.propensities(_rows(), np.full((ROWS, 3), 0.5), WEIGHTS, greedy=True)


def test_actions_at_the_edge_of_the_box_have_finite_densities(box: BundlePolicy) -> None:
    for edge in (0.0, 1.0, 1.0 + 1e-10, 1e-300):
        found = box.propensities(_rows(), np.full((ROWS, 3), edge), WEIGHTS)
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("kind", "actions", "says"),
    [
        ("box", np.full((ROWS, 3), 1.1), r"actions\[0\] is \[1.1, 1.1, 1.1\]; expected 3 numbers within the box"),
        ("box", np.full((ROWS, 3), np.nan), "within the box"),
        ("box", np.zeros((ROWS, 2)), f"3 numbers in each of {ROWS} rows"),
        ("box", [[0.5], [0.5, 0.5]], "3 numbers in each"),
        ("box", "all", "3 numbers in each"),
        ("discrete", np.full(ROWS, 4), "whole numbers from 0, below 4"),
        ("discrete", np.full(ROWS, -1), "whole numbers from 0"),
        ("discrete", np.full(ROWS, 0.5), r"actions\[0\] is \[0.5\]"),
        ("discrete", np.zeros(3, int), "1 numbers in each"),
    ],
)
def test_impossible_actions_are_refused(
    kind: str, actions: Any, says: str, box: BundlePolicy, discrete: BundlePolicy
) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        (box if kind == "box" else discrete).propensities(_rows(), actions, WEIGHTS)
    assert caught.value.field == "actions"


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, math.nan, "much", True, None])
def test_an_impossible_share_is_refused(epsilon: Any, box: BundlePolicy, discrete: BundlePolicy) -> None:
    for policy in (box, discrete):
        with pytest.raises(InvalidInputError, match=r"expected a share of exploration in \[0, 1\]") as caught:
            policy.act(_rows(), WEIGHTS, rng=np.random.default_rng(0), epsilon=epsilon)
        assert caught.value.field == "epsilon"
    with pytest.raises(InvalidInputError, match="no table of probabilities"):
        box.probabilities(_rows(), WEIGHTS)


def test_exploration_needs_randomness(box: BundlePolicy, discrete: BundlePolicy) -> None:
    for policy in (box, discrete):
        with pytest.raises(InvalidInputError, match="needs an rng"):
            policy.act(_rows(), WEIGHTS, epsilon=0.1)
    with pytest.raises(InvalidInputError, match="several components"):
        ChoiceHead((2, 2), single=False, deterministic=False).probabilities(
            _one({"logits": [0.0] * 4}, 2), 0, greedy=False
        )


def test_a_memory_needs_its_states(box: BundlePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "manifest", box.manifest.model_copy(update={"n_state": 4}))
    with pytest.raises(InvalidInputError, match="need the states before") as caught:
        box.propensities(_rows(), np.full((ROWS, 3), 0.5), WEIGHTS)
    assert caught.value.field == "states"
