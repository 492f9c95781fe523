"""Islands on workers in virtual time: whoever finishes first, the result is the seed's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from spread_kit import VirtualWorkers, same, sphere_problem

from rlaas.errors import InvalidInputError, OperatorError
from rlaas.optimization import FunctionProblem, Generations, Problem, hypervolume, reference_directions
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.optimization.ledger import Ledger
from rlaas.optimization.spread.islands import Archipelago, Epoch, island_count, run_epoch
from rlaas.optimization.spread.recipe import Recipe


def _archipelago(
    problem: Problem,
    *,
    generations: int = 9,
    count: int = 3,
    epoch: int = 3,
    recipe: Recipe | None = None,
) -> Archipelago:
    recipe = recipe or Recipe(seed=2)
    size = recipe.build(problem).size
    return Archipelago(
        problem,
        recipe,
        size,
        count,
        Ledger(problem, size, [Generations(generations)]),
        deadline_seconds=10,
        epoch_generations=epoch,
    )


def _run(islands: Archipelago, workers: VirtualWorkers) -> str:
    return islands.run(workers, lambda: None)


@pytest.mark.parametrize("algorithm", ["nsga3", "moead-pbi"])
def test_the_result_is_the_seeds_whoever_finishes_first(algorithm: str) -> None:
    problem = sphere_problem()
    recipe = Recipe(seed=2, algorithm=algorithm)
    found = []
    for size, arrival in [(1, 0), (3, 1), (3, 2), (7, 3)]:
        islands = _archipelago(problem, recipe=recipe)
        assert _run(islands, VirtualWorkers(problem, size, arrival)) == "9 generations"
        found.append(islands.population)
    assert all(same(found[0], other) for other in found[1:])
    other = _archipelago(problem, recipe=Recipe(seed=3, algorithm=algorithm))
    _run(other, VirtualWorkers(problem, 3))
    assert not same(found[0], other.population)


def test_islands_share_out_the_directions_and_join_to_the_whole() -> None:
    problem = sphere_problem()
    recipe = Recipe(seed=2, initial=np.random.default_rng(0).uniform(size=(7, 6)))
    whole = reference_directions(3)
    parts = recipe.divided(problem, len(whole), 4)
    assert sorted(map(tuple, np.concatenate([part.directions for part in parts]))) == sorted(map(tuple, whole))
    assert sum(part.population for part in parts) == len(whole)
    assert sum(len(part.initial) for part in parts) == 7
    assert len({part.seed for part in parts}) == 4


def test_four_islands_find_as_good_a_front_as_one() -> None:
    problem = sphere_problem()
    volumes = []
    for count in (1, 4):
        islands = _archipelago(problem, generations=60, count=count, epoch=10)
        _run(islands, VirtualWorkers(problem, 2))
        volumes.append(hypervolume(islands.population.front().F, [1.2, 1.2, 1.2]))
    assert volumes[1] == pytest.approx(volumes[0], rel=0.02)


def test_the_last_epoch_ends_where_the_generations_do() -> None:
    problem = sphere_problem()
    islands = _archipelago(problem, generations=7, epoch=3)
    assert _run(islands, VirtualWorkers(problem, 3)) == "7 generations"
    assert islands.generations == 7


def test_members_migrate_along_the_ring() -> None:
    problem = sphere_problem()
    islands = _archipelago(problem)
    _run(islands, VirtualWorkers(problem, 3))
    epochs = islands._epochs(3)
    for i, epoch in enumerate(epochs):
        before = islands._islands[i - 1].population
        assert epoch.arrivals is not None
        assert len(epoch.arrivals) == 3  # a tenth of 30
        assert all((row == before.X).all(axis=1).any() for row in epoch.arrivals.X)
        assert len(epoch.shared) == 2


def test_what_the_others_normalise_with_is_taken_over() -> None:
    problem = sphere_problem()
    recipe = Recipe(seed=1, population=20)
    lonely = run_epoch(problem, Epoch(recipe=recipe, state=None, arrivals=None, shared=(), generations=2))
    known = {"ideal": np.full(3, -5.0), "worst": np.full(3, 5.0), "extremes": np.full((3, 3), np.inf)}
    told = run_epoch(problem, Epoch(recipe=recipe, state=None, arrivals=None, shared=(known,), generations=2))
    assert (lonely.shared["ideal"] > -1).all()
    np.testing.assert_array_equal(told.shared["ideal"], known["ideal"])


def test_an_island_that_was_lost_goes_on_from_its_last_epoch() -> None:
    problem = sphere_problem()
    islands = _archipelago(problem, generations=12)
    workers = VirtualWorkers(problem, 3, lose=(5,))  # the second island's second epoch
    states = []

    def keep() -> None:
        states.append(islands.state()["islands"][1])

    assert islands.run(workers, keep) == "12 generations"
    assert islands.lost_epochs == 1
    np.testing.assert_array_equal(states[0]["engine"]["X"], states[1]["engine"]["X"])
    assert not np.array_equal(states[1]["engine"]["X"], states[2]["engine"]["X"])


def test_an_island_lost_before_its_first_epoch_ends_begins_again() -> None:
    problem = sphere_problem()
    islands = _archipelago(problem)
    _run(islands, VirtualWorkers(problem, 3, lose=(2,)))
    assert islands.lost_epochs == 1
    assert len(islands.population) == len(reference_directions(3))


def test_all_islands_lost_is_an_end() -> None:
    problem = sphere_problem()
    with pytest.raises(OperatorError, match="none of the 3 islands came back from an epoch of 3 generations"):
        _run(_archipelago(problem), VirtualWorkers(problem, 3, lose=(1, 2, 3)))


@pytest.mark.parametrize("cut", [3, 6])
def test_a_resumed_run_is_the_unbroken_one_to_the_last_bit(tmp_path: Path, cut: int) -> None:
    problem = sphere_problem()
    unbroken = _archipelago(problem)
    _run(unbroken, VirtualWorkers(problem, 3))
    first = _archipelago(problem, generations=cut)
    _run(first, VirtualWorkers(problem, 3, seed=1))
    save_state(tmp_path / "state.npz", {"search": first.state(), "ledger": first._ledger.state()})
    stored = load_state(tmp_path / "state.npz")
    second = _archipelago(problem)
    second.restore(stored["search"])
    second._ledger.restore(stored["ledger"], second.population)
    assert _run(second, VirtualWorkers(problem, 2, seed=2)) == "9 generations"
    assert same(second.population, unbroken.population)
    assert second._ledger.history == unbroken._ledger.history


def test_a_wrong_shape_leaves_the_islands_as_after_the_last_epoch() -> None:
    inner, calls = sphere_problem(), [0]

    def fails(X: np.ndarray) -> np.ndarray:
        calls[0] += 1
        return inner.evaluate(X)[:, : 3 if calls[0] < 20 else 2]

    problem = FunctionProblem(fails, inner.xl, inner.xu, n_obj=3)
    # FunctionProblem would refuse the shape itself: let the islands do it.
    problem.evaluate = fails  # type: ignore[method-assign]
    islands = _archipelago(problem)
    with pytest.raises(InvalidInputError, match=r"evaluate returned shape \(\d+, 2\); expected \(\d+, 3\)"):
        _run(islands, VirtualWorkers(problem, 3))
    assert islands.generations == 6
    intact = _archipelago(inner, generations=6)
    _run(intact, VirtualWorkers(inner, 3))
    assert same(islands.population, intact.population)


def test_nothing_known_at_all_is_an_end() -> None:
    problem = FunctionProblem(lambda X: np.full((len(X), 2), np.nan), [0.0], [1.0], n_obj=2)
    with pytest.raises(OperatorError, match="could be evaluated"):
        _run(_archipelago(problem, recipe=Recipe(population=60)), VirtualWorkers(problem, 3))


def test_a_finite_space_is_exhausted() -> None:
    problem = FunctionProblem(
        lambda X: np.stack([X.sum(axis=1), (6 - X).sum(axis=1)], axis=1),
        [0, 0],
        [3, 3],
        n_obj=2,
        integer=[True, True],
    )
    islands = _archipelago(problem, generations=500, count=2, recipe=Recipe(population=8))
    assert _run(islands, VirtualWorkers(problem, 2)) == "every candidate of the finite space was tried"


@pytest.mark.parametrize(("size", "workers", "islands"), [(92, 16, 4), (1000, 8, 8), (10, 4, 1), (40, 2, 2)])
def test_no_island_is_too_small(size: int, workers: int, islands: int) -> None:
    assert island_count(size, workers) == islands
