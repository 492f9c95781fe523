"""NSGA-III behind Tune's interface: what it proposes, what it learns from, and that a file continues it bit for bit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter
from ray.tune.search import ConcurrencyLimiter, Searcher

from rlaas.errors import ConfigurationError, OperatorError
from rlaas.optimization import hypervolume
from rlaas.tuning import space as spaces
from rlaas.tuning.figures import FAILURE, FINISHED
from rlaas.tuning.front_search import FIRST, POPULATION, FrontSearch
from rlaas.tuning.searchers import SEARCHERS, Question
from rlaas.tuning.space import values_of

PARAMETER: TypeAdapter[Any] = TypeAdapter(spaces.Parameter)


def parameters(**documents: dict[str, Any]) -> dict[str, Any]:
    return {name: PARAMETER.validate_python(document) for name, document in documents.items()}


MIXED = parameters(
    learning_rate={"kind": "loguniform", "low": 1e-4, "high": 1e-2},
    gamma={"kind": "uniform", "low": 0.5, "high": 0.99},
    epochs={"kind": "int", "low": 1, "high": 8},
    hidden={"kind": "choice", "values": [[8], [16], [16, 16]]},
    entropy={"kind": "choice", "values": [None, "größer"]},
)
FINITE = parameters(
    epochs={"kind": "int", "low": 1, "high": 4},
    hidden={"kind": "choice", "values": [[8], [16], [16, 16]]},
)
UNIT = parameters(**{f"x{i}": {"kind": "uniform", "low": 0.0, "high": 1.0} for i in range(4)})
AIMS = {"reward": "max", "seconds": "min"}


def build(space: dict[str, Any] = MIXED, aims: dict[str, str] = AIMS, seed: int = 3) -> FrontSearch:
    question = Question(space=space, metrics=tuple(aims), modes=tuple(aims.values()), seed=seed)
    searcher = SEARCHERS["nsga3"].build(question)
    assert isinstance(searcher, FrontSearch)
    return searcher


def ended(**figures: float) -> dict[str, Any]:
    return {**figures, FINISHED: True, "training_iteration": 3}


def reward_and_seconds(point: dict[str, Any]) -> dict[str, float]:
    """Small rates and many epochs learn more and take longer."""
    values = values_of(point)
    width = sum(values["hidden"])
    learned = values["epochs"] / 8 - abs(np.log10(values["learning_rate"]) + 3) + 0.02 * width
    return {"reward": learned - (values["gamma"] - 0.9) ** 2, "seconds": values["epochs"] * width}


def zdt1(point: dict[str, float]) -> dict[str, float]:
    first, *others = point.values()
    g = 1 + 9 * float(np.mean(others))
    return {"f": first, "g": g * (1 - np.sqrt(first / g))}


def run(searcher: FrontSearch, trials: int, start: int = 0) -> list[dict[str, Any]]:
    """Three at a time; the middle one ends first, and every seventh fails."""
    points, waiting = [], []
    for number in range(start, start + trials):
        point = searcher.suggest(f"t{number}")["point"]
        points.append(point)
        waiting.append((number, point))
        if len(waiting) == 3:
            ending, what = waiting.pop(1)
            failed = ending % 7 == 6
            searcher.on_trial_complete(f"t{ending}", None if failed else ended(**reward_and_seconds(what)), failed)
    for ending, what in waiting:
        searcher.on_trial_complete(f"t{ending}", ended(**reward_and_seconds(what)))
    return points


def test_a_seed_repeats_every_proposal_and_all_are_different_points_of_the_space() -> None:
    points = run(build(), 40)
    assert points == run(build(), 40)
    assert points != run(build(seed=4), 40)
    for point in points:
        assert point == spaces.within(MIXED, point)
        assert all(point[name] in MIXED[name].labels() for name in ("hidden", "entropy"))
    assert len({json.dumps(point) for point in points}) == 40


def test_the_order_of_parameters_changes_nothing() -> None:
    assert run(build(space=dict(reversed(MIXED.items()))), 20) == run(build(), 20)


@pytest.mark.parametrize("trials", [0, 5, 13, 31])
def test_a_file_continues_it_bit_for_bit_with_trials_under_way(trials: int, tmp_path: Path) -> None:
    unbroken = build()
    run(unbroken, trials)
    under_way = {f"u{i}": unbroken.suggest(f"u{i}")["point"] for i in range(2)}
    unbroken.save(str(tmp_path / "searcher-state-x.pkl"))
    resumed = build(seed=99)
    resumed.restore(str(tmp_path / "searcher-state-x.pkl"))
    for searcher in (unbroken, resumed):
        for name, point in under_way.items():
            searcher.on_trial_complete(name, ended(**reward_and_seconds(point)))
    assert run(resumed, 25, start=trials) == run(unbroken, 25, start=trials)
    unbroken.save(str(tmp_path / "one"))
    resumed.save(str(tmp_path / "two"))
    with zipfile.ZipFile(tmp_path / "one") as one, zipfile.ZipFile(tmp_path / "two") as two:
        assert {name: one.read(name) for name in one.namelist()} == {name: two.read(name) for name in two.namelist()}


def test_tune_saves_and_restores_it_through_its_wrappers(tmp_path: Path) -> None:
    searcher, other = build(), build(seed=8)
    run(searcher, 15)
    ConcurrencyLimiter(searcher, max_concurrent=2).searcher.save_to_dir(str(tmp_path), "2026")
    assert [path.name for path in tmp_path.iterdir()] == ["searcher-state-2026.pkl"], "the name that snapshots look for"
    other.restore_from_dir(str(tmp_path))
    assert run(other, 10, start=15) == run(searcher, 10, start=15)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    for name, content in (("pickle", Trap()), ("array", np.array([Trap()], dtype=object))):
        path = tmp_path / name
        if name == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            with path.open("wb") as file:
                np.savez(file, tree=content)
        with pytest.raises(OperatorError, match="no usable search state"):
            build().restore(str(path))
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_another_search_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "state")
    build(aims={"reward": "min", "seconds": "min"}).save(path)
    searcher = build()
    with pytest.raises(ConfigurationError, match="another space or for other metrics"):
        searcher.restore(path)
    build(space=FINITE).save(path)
    with pytest.raises(ConfigurationError, match="another space or for other metrics"):
        searcher.restore(path)
    with pytest.raises(OperatorError, match="no usable search state"):
        searcher.restore(str(tmp_path / "missing"))
    from rlaas.optimization.checkpoint import save_state

    save_state(path, {"something": "else"})
    with pytest.raises(OperatorError, match="schema_version is not 1"):
        searcher.restore(path)
    assert run(searcher, 5) == run(build(), 5)


def test_one_objective_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="at least 2 objectives, but 1 is given; use tpe or random") as caught:
        build(aims={"reward": "max"})
    assert caught.value.field == "search"


def test_the_first_trials_look_at_every_parameter_over_its_whole_range() -> None:
    searcher = build(space=UNIT, aims={"f": "min", "g": "min"})
    points = [searcher.suggest(f"t{number}")["point"] for number in range(FIRST)]
    for name in UNIT:
        assert sorted(int(point[name] * FIRST) for point in points) == list(range(FIRST)), "one in each twelfth"


def test_a_finite_space_is_searched_without_repetition_and_then_ends() -> None:
    searcher, seen = build(space=FINITE), []
    for number in range(12):
        values = values_of(searcher.suggest(f"t{number}")["point"])
        seen.append((values["epochs"], tuple(values["hidden"])))
        searcher.on_trial_complete(f"t{number}", ended(reward=values["epochs"], seconds=sum(values["hidden"])))
    assert len(set(seen)) == 12
    assert searcher.suggest("t12") == Searcher.FINISHED
    assert searcher.suggest("t13") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (None, True),
        (None, False),
        ({"reward": 0.9, "seconds": 1.0, FINISHED: False, "training_iteration": 1}, False),
        ({"reward": 0.9, "seconds": 1.0, FAILURE: "a loss became nan", FINISHED: False}, False),
        ({"reward": float("nan"), "seconds": 1.0, FINISHED: True}, False),
        ({"reward": float("inf"), "seconds": 1.0, FINISHED: True}, False),
        ({"seconds": 1.0, FINISHED: True}, False),
    ],
    ids=["crashed", "silent", "stopped", "failed", "nan", "infinite", "missing"],
)
def test_trials_without_figures_are_unknown_and_not_proposed_again(result: Any, error: bool) -> None:
    searcher = build(space=FINITE)
    points = []
    for number in range(12):
        points.append(searcher.suggest(f"t{number}")["point"])
        searcher.on_trial_complete(f"t{number}", result, error)
    assert len({json.dumps(point) for point in points}) == 12
    assert len(searcher._engine.population) == 0
    assert searcher.suggest("next") == Searcher.FINISHED


def test_directions_count_and_trials_of_others_do_not() -> None:
    searcher = build()
    searcher.on_trial_complete("somebody else's", ended(reward=1.0, seconds=1.0))
    assert len(searcher._engine.population) == 0
    searcher.suggest("t0")
    searcher.on_trial_complete("t0", ended(reward=0.7, seconds=9.0))
    np.testing.assert_array_equal(searcher._engine.population.F, [[-0.7, 9.0]])
    searcher.on_trial_complete("t0", ended(reward=0.1, seconds=1.0))  # said twice: the first counts
    assert len(searcher._engine.population) == 1


def test_the_population_keeps_its_size_however_long_the_search() -> None:
    searcher = build()
    run(searcher, 60)
    assert len(searcher._engine.population) == POPULATION
    assert not searcher._running


def test_it_finds_a_better_front_than_random_trials() -> None:
    def reached(name: str, seed: int) -> float:
        metrics = ("f", "g")
        searcher = SEARCHERS[name].build(Question(space=UNIT, metrics=metrics, modes=("min", "min"), seed=seed))
        found = []
        for number in range(40):
            figures = zdt1(searcher.suggest(f"t{number}")["point"])
            found.append(list(figures.values()))
            searcher.on_trial_complete(f"t{number}", ended(**figures))
        return hypervolume(found, [1.1, 6.0])

    ours, random = ([reached(name, seed) for seed in range(3)] for name in ("nsga3", "random"))
    assert min(ours) > max(random)
    assert np.mean(ours) > 5.9, "of 6.27 that the true front has"


def test_many_objectives_and_a_diverged_figure_are_no_hindrance() -> None:
    aims = {f"f{i}": "max" for i in range(6)}
    searcher = build(space=UNIT, aims=aims)
    rng = np.random.default_rng(0)
    for number in range(FIRST + 6):
        searcher.suggest(f"t{number}")
        figures = dict(zip(aims, rng.normal(size=6).tolist(), strict=True))
        searcher.on_trial_complete(f"t{number}", ended(**{**figures, "f3": -1e300 if number == 4 else figures["f3"]}))
    assert isinstance(searcher.suggest("last"), dict)
