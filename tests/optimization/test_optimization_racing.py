"""A race spends evaluations where membership is undecided, and keeps its promise about errors."""

from __future__ import annotations

import json
from collections.abc import Sequence

import moocore
import numpy as np
import pytest
from scipy import stats

from rlaas.errors import InvalidInputError, OperatorError
from rlaas.fronts import non_dominated
from rlaas.objectives import Objective
from rlaas.optimization.archive import Contender, EvidenceArchive, RaceResult, complete, race
from rlaas.optimization.archive.judging import Judge

SEEDS = range(200)


class Worlds:
    """Contenders with known means [n, m], seen through worlds common to all and noise of their own."""

    def __init__(self, means: np.ndarray, *, seed: int = 0, noise: float = 0.05, common: float = 0.3) -> None:
        rng = np.random.default_rng(seed)
        n, m = means.shape
        self.means = means
        self.values = means[:, None] + rng.normal(0, common, (len(SEEDS), m)) + rng.normal(0, noise, (n, len(SEEDS), m))
        self.calls: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def archive(self) -> EvidenceArchive:
        objectives = [
            Objective(name=f"f{j}", unit="", direction="minimize", low=0, high=1) for j in range(self.means.shape[1])
        ]
        archive = EvidenceArchive("toy", objectives)
        for i in range(len(self.means)):
            archive.add(Contender(name=f"c{i}", kind="configuration", parameters={"row": i}))
        return archive

    def evaluate(self, contenders: Sequence[Contender], seeds: Sequence[int]) -> np.ndarray:
        self.calls.append((tuple(c.name for c in contenders), tuple(seeds)))
        return self.values[np.ix_([c.parameters["row"] for c in contenders], list(seeds))]

    @property
    def evaluations(self) -> int:
        return sum(len(names) * len(seeds) for names, seeds in self.calls)


def _means(seed: int, *, members: int = 4, others: int = 12, gap: float = 0.05) -> np.ndarray:
    """Members on a sphere, and others that one of them dominates by ``gap`` to 0.4 in each of three objectives."""
    rng = np.random.default_rng(seed)
    front = np.abs(rng.normal(size=(members, 3)))
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    return np.concatenate([front, front[rng.integers(0, members, others)] + rng.uniform(gap, 0.4, (others, 3))])


CLEAR = np.array([[0.1, 0.9], [0.9, 0.1], [0.95, 0.95], [0.13, 0.93], [0.5, 0.5]])


def test_the_front_is_found_and_everyone_is_judged() -> None:
    worlds = Worlds(CLEAR, noise=0.02)
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1000)
    assert result.decided
    assert [one.status for one in result.standings] == ["member", "member", "dominated", "dominated", "member"]
    assert result.standings[3].dominated_by == "c0"
    assert all(one.confidence is not None and one.confidence >= 0.95 for one in result.standings)
    assert result.survivors == ("c0", "c1", "c4")
    assert result.front().names == ("f0", "f1")
    assert [c.name for c in result.front().candidates] == ["c0", "c1", "c4"]
    assert result.evaluations == worlds.evaluations == sum(one.samples for one in result.standings)
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_seeds_are_common_and_only_open_questions_are_evaluated() -> None:
    worlds = Worlds(CLEAR, noise=0.02)
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1000, seeds_per_round=3)
    # One call a round, for all that take part in it; who left does not come back.
    assert len(worlds.calls) == result.rounds
    assert sum((seeds for _, seeds in worlds.calls), ()) == result.seeds == tuple(SEEDS[: len(result.seeds)])
    for (before, _), (after, _) in zip(worlds.calls, worlds.calls[1:], strict=False):
        assert set(after) <= set(before)
    assert worlds.calls[0][0] == ("c0", "c1", "c2", "c3", "c4")
    assert worlds.calls[-1][0] == ("c0", "c3")  # the close pair


def test_races_repeat_bit_for_bit() -> None:
    one, other = Worlds(_means(1), seed=1), Worlds(_means(1), seed=1)
    first = race(one.archive(), one.evaluate, seeds=SEEDS, budget=800)
    second = race(other.archive(), other.evaluate, seeds=SEEDS, budget=800)
    assert first.to_dict() == second.to_dict()
    assert one.calls == other.calls
    assert first.front() == second.front()


def test_an_interrupted_race_goes_on_where_it_stopped() -> None:
    worlds = Worlds(_means(2), seed=2)
    whole = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=3000)
    broken = Worlds(_means(2), seed=2)
    archive = broken.archive()

    def breaking(contenders: Sequence[Contender], seeds: Sequence[int]) -> np.ndarray:
        if len(broken.calls) == 3:
            raise OperatorError("the cluster is gone")
        return broken.evaluate(contenders, seeds)

    with pytest.raises(OperatorError, match="the cluster is gone"):
        race(archive, breaking, seeds=SEEDS, budget=3000)
    rest = race(archive, broken.evaluate, seeds=SEEDS, budget=3000)
    assert rest.standings == whole.standings
    assert broken.calls == worlds.calls
    assert rest.evaluations < whole.evaluations
    again = race(archive, broken.evaluate, seeds=SEEDS, budget=0)
    assert (again.standings, again.evaluations) == (whole.standings, 0)


@pytest.mark.parametrize("budget", [32, 40, 100, 333])
def test_the_budget_is_kept(budget: int) -> None:
    worlds = Worlds(_means(3), seed=3, noise=0.3)
    spent: list[tuple[int, int]] = []
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=budget, progress=lambda *at: spent.append(at))
    assert not result.decided
    assert result.evaluations == worlds.evaluations <= budget
    # What is left does not pay for one more seed of those that are still open.
    assert budget - result.evaluations < len(worlds.calls[-1][0])
    assert spent[-1] == (result.evaluations, budget)
    assert len(spent) == result.rounds


def test_a_race_ends_with_its_seeds() -> None:
    worlds = Worlds(_means(3), seed=3, noise=0.3)
    result = race(worlds.archive(), worlds.evaluate, seeds=[7, 3, 9], budget=10_000, seeds_per_round=2)
    assert (result.seeds, result.rounds) == ((7, 3, 9), 2)
    undecided = [one for one in result.standings if one.status == "undecided"]
    assert undecided
    assert all((one.confidence, one.dominated_by, one.samples) == (None, None, 3) for one in undecided)


def test_completed_survivors_stand_on_all_seeds() -> None:
    worlds = Worlds(CLEAR, noise=0.02)
    raced = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1000, seeds_per_round=3)
    shared = {c.seeds for c in raced.front().candidates}
    assert shared == {raced.seeds[: min(one.samples for one in raced.standings if one.status == "member")]}
    full = complete(raced, worlds.evaluate)
    assert {c.seeds for c in full.front().candidates} == {raced.seeds}
    assert [one.status for one in full.standings] == [one.status for one in raced.standings]
    assert full.evaluations == worlds.evaluations > raced.evaluations
    assert complete(full, worlds.evaluate) == full


def test_fronts_hold_no_dominated_means() -> None:
    for seed in range(10):
        worlds = Worlds(_means(seed), seed=seed, noise=0.2)
        result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=300)
        assert non_dominated(result.front().values()).all()


def test_noiseless_worlds_need_one_round() -> None:
    means = _means(4)
    worlds = Worlds(means, noise=0.0)
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1000, seeds_per_round=2)
    assert (result.decided, result.rounds) == (True, 1)
    kept = [one.status == "member" for one in result.standings]
    np.testing.assert_array_equal(kept, moocore.is_nondominated(means))


def test_a_tolerance_settles_twins() -> None:
    means = np.array([[0.2, 0.8], [0.2, 0.8], [0.5, 0.5]])
    exact = Worlds(means, noise=0.02)
    assert not race(exact.archive(), exact.evaluate, seeds=SEEDS, budget=600).decided
    tolerant = Worlds(means, noise=0.02)
    result = race(tolerant.archive(), tolerant.evaluate, seeds=SEEDS, budget=600, tolerance=0.05)
    assert [one.status for one in result.standings] == ["member"] * 3
    assert result.evaluations < exact.evaluations


def test_failed_evaluations_are_left_out_and_a_broken_contender_holds_up_nobody() -> None:
    worlds = Worlds(CLEAR, noise=0.02)
    worlds.values[1, 2] = np.nan  # one seed of one contender
    worlds.values[3, :, 0] = np.nan  # everything of another
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1000)
    statuses = [one.status for one in result.standings]
    assert statuses == ["member", "member", "dominated", "undecided", "member"]
    assert result.standings[3].samples == 0
    assert not result.decided
    assert all("c3" not in names for names, _ in worlds.calls[1:])
    assert result.survivors == ("c0", "c1", "c4")
    assert all(2 not in c.seeds for c in result.front().candidates)


def test_one_contender_is_a_member() -> None:
    worlds = Worlds(CLEAR[:1])
    result = race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=10)
    assert [(one.status, one.confidence, one.samples) for one in result.standings] == [("member", 1.0, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [1]}, "a race needs at least 2 seeds, got 1"),
        ({"seeds": [1, 1]}, "seed 1 occurs twice"),
        ({"seeds": ["a", "b"]}, "seeds must be whole numbers"),
        ({"seeds_per_round": 1}, "seeds_per_round must be a whole number >= 2, got 1"),
        ({"seeds_per_round": 2.5}, "seeds_per_round must be a whole number"),
        ({"budget": 9}, "budget 9 does not pay for 2 seeds of each of 5 contenders; expected at least 10"),
        ({"budget": True}, "budget must be a whole number >= 0, got True"),
        ({"budget": float("inf")}, "budget must be a whole number >= 0, got inf"),
        ({"confidence": 95}, "confidence must be a number in"),
        ({"tolerance": -1}, "tolerance must be a finite number >= 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_evaluated(arguments: dict[str, object], message: str) -> None:
    worlds = Worlds(CLEAR)
    with pytest.raises(InvalidInputError, match=message):
        race(worlds.archive(), worlds.evaluate, **({"seeds": SEEDS, "budget": 100} | arguments))  # type: ignore[arg-type]
    assert not worlds.calls


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (np.zeros((5, 2)), r"shape \(5, 2\); expected \(5, 5, 2\) \(contenders, seeds, objectives\)"),
        ([["fast"]], "evaluate must return numbers"),
        (np.full((5, 5, 2), np.inf), "values of 'c0' must lie within"),
    ],
)
def test_bad_evaluations_are_refused(returned: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        race(Worlds(CLEAR).archive(), lambda *_: returned, seeds=SEEDS, budget=100)  # type: ignore[arg-type,return-value]


def test_an_empty_archive_is_refused() -> None:
    worlds = Worlds(np.empty((0, 2)))
    with pytest.raises(InvalidInputError, match="a race needs at least one contender"):
        race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=100)


ALPHA = 0.1


def _equals_ruled_out(looks: int, share: list[float], replications: int) -> int:
    """Replications in which one of two equal candidates is called dominated, after looks at 4, 8, 12, ... seeds."""
    rng = np.random.default_rng(12)
    wrong = 0
    for _ in range(replications):
        judge = Judge(2, alpha=ALPHA, tolerance=0.0)
        table = rng.normal(size=(2, 4 * looks, 1))
        for k in range(looks):
            judge.look(table[:, : 4 * (k + 1)], share=share[k])
        wrong += sum(one.status == "dominated" for one in judge.standings(["a", "b"], [0, 0]))
    return wrong


def test_one_look_errs_exactly_as_often_as_allowed() -> None:
    # One objective and two equal candidates: the correction for pairs is then exact.
    low, high = stats.binom.ppf([0.001, 0.999], 2000, ALPHA)
    assert low <= _equals_ruled_out(1, [1.0], 2000) <= high


def test_many_looks_err_no_more_often_because_they_share_the_allowance() -> None:
    high = stats.binom.ppf(0.999, 600, ALPHA)
    shares = [1 / (k * (k + 1)) for k in range(1, 9)]
    assert sum(shares) < 1
    assert 0 < _equals_ruled_out(8, shares, 600) <= high
    assert _equals_ruled_out(8, [1.0] * 8, 600) > high  # what the shares are for


@pytest.fixture(scope="module")
def replications() -> list[tuple[np.ndarray, Worlds, RaceResult]]:
    found = []
    for seed in range(100):
        means = _means(seed, gap=0.01)
        worlds = Worlds(means, seed=seed, noise=0.05)
        found.append((means, worlds, race(worlds.archive(), worlds.evaluate, seeds=SEEDS, budget=1500, confidence=0.9)))
    return found


def test_true_members_are_ruled_out_no_more_often_than_allowed(
    replications: list[tuple[np.ndarray, Worlds, RaceResult]],
) -> None:
    excluded = wrongly_in = decisions = 0
    for means, _, result in replications:
        true = moocore.is_nondominated(means)
        excluded += any(one.status == "dominated" and true[i] for i, one in enumerate(result.standings))
        wrongly_in += any(one.status == "member" and not true[i] for i, one in enumerate(result.standings))
        decisions += sum(one.status != "undecided" for one in result.standings)
    assert excluded <= stats.binom.ppf(0.999, len(replications), ALPHA)
    # Wrong where a claim of membership is, or where the one that dominates it was wrongly ruled out.
    assert wrongly_in <= stats.binom.ppf(0.999, len(replications), 2 * ALPHA)
    assert decisions > 0.8 * 16 * len(replications)  # it does not keep its promise by silence


def test_a_race_decides_more_than_equal_allocation(replications: list[tuple[np.ndarray, Worlds, RaceResult]]) -> None:
    spent = equal = race_open = equal_open = 0
    for _, worlds, result in replications:
        n = len(result.standings)
        spent += result.evaluations
        equal += n * len(result.seeds)  # the same decisions by the same tests, with everyone in every round
        race_open += sum(one.status == "undecided" for one in result.standings)
        # As many evaluations, spread evenly and looked at only once, which needs no correction for looks.
        even, each = worlds.archive(), result.evaluations // n
        for i, name in enumerate(even.names):
            even.add(even.contender(name), SEEDS[:each], worlds.values[i, :each])
        equal_open += sum(one.status == "undecided" for one in even.standings(confidence=0.9))
    assert spent < 0.5 * equal
    assert race_open < 0.8 * equal_open
