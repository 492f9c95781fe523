"""Every method against the toys, where the logged behaviour is poor and the best action is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from offline_logs import edited, logged
from training_toys import DiscreteToy, Toy

from rlaas.bundles import load_bundle
from rlaas.errors import ConfigurationError, InvalidInputError, TrainingError
from rlaas.objectives import Preference
from rlaas.scenarios import ConstantController, evaluate
from rlaas.training import FitSettings, PolicyController, RewardSettings, fit_offline
from rlaas.training.offline.rewards import RewardReader
from rlaas.training.offline.rows import read_rows

EPOCHS = {"advantage_weighted": 20, "iql": 40, "cql": 30}
METHODS = tuple(EPOCHS)


def _reached(scenario: Toy, controller: Any, preference: Preference) -> float:
    evaluation = evaluate(scenario, controller, (11, 12, 13, 14), steps=60)
    return float(evaluation.mean() @ preference.array())


def _settings(method: str, **more: Any) -> FitSettings:
    return FitSettings(**{"method": method, "epochs": EPOCHS.get(method, 12), "seed": 3, **more})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Toy, DiscreteToy])
def test_a_method_beats_the_logged_behaviour(kind: type[Toy], method: str, tmp_path: Path) -> None:
    scenario = kind()
    near = Preference.of(scenario.objectives, [1.0, 0.0])
    table = logged(scenario, 150)
    run = fit_offline(table, scenario, preference=near, output=tmp_path, settings=_settings(method))
    policy = load_bundle(run.bundle)
    assert not policy.manifest.preference_conditioned
    assert policy.manifest.algorithm == method
    assert policy.manifest.lineage["rows"] == table.num_rows == run.metrics["transitions"]
    assert policy.manifest.lineage["left_out"] == 8 == run.metrics["left_out"]
    still = _reached(scenario, ConstantController(2 if scenario.discrete else np.zeros(1)), near)
    behaviour = float(np.mean([dict(o)["near"] for o in table.column("outcome").to_pylist()]))
    # Perfect is 1 (or about 0.97 with five levels), standing still 2/3, the logged behaviour 1/3.
    assert _reached(scenario, PolicyController(policy), near) > 0.85 > still > behaviour


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Toy, DiscreteToy])
def test_one_policy_for_all_preferences(kind: type[Toy], method: str, tmp_path: Path) -> None:
    scenario = kind()
    table = logged(scenario, 150)
    settings = _settings(method, epochs=2 * EPOCHS[method])
    run = fit_offline(table, scenario, preference=None, output=tmp_path, settings=settings)
    policy = load_bundle(run.bundle)
    assert policy.manifest.preference_conditioned
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        wanted = Preference.of(scenario.objectives, weights)
        assert _reached(scenario, PolicyController(policy, wanted), wanted) > 0.85
    # Between the two the best answer is to stand still: 2/3 of either, which no mixture of the ends reaches.
    even = Preference.uniform(scenario.objectives)
    assert _reached(scenario, PolicyController(policy, even), even) > 0.6


def test_cloning_repeats_the_behaviour(tmp_path: Path) -> None:
    scenario = DiscreteToy()
    near = Preference.of(scenario.objectives, [1.0, 0.0])
    table = logged(scenario, 150)
    seen: list[tuple[int, int]] = []
    run = fit_offline(
        table,
        scenario,
        preference=near,
        output=tmp_path,
        settings=_settings("cloning"),
        progress=lambda done, of, _: seen.append((done, of)),
    )
    assert seen == [(i, 12) for i in range(1, 13)]
    assert len(run.curve) == 12
    assert run.metrics["left_out"] == 0
    assert run.metrics["effective_rows"] == pytest.approx(table.num_rows)
    sampled = _reached(scenario, PolicyController(load_bundle(run.bundle), sample=True), near)
    behaviour = float(np.mean([dict(o)["near"] for o in table.column("outcome").to_pylist()]))
    assert sampled == pytest.approx(behaviour, abs=0.1)


def test_cloning_for_all_preferences_goes_by_the_logged_ones(tmp_path: Path) -> None:
    """Two policies served: one followed for ``near``, one mirrored for ``mirror``."""
    scenario = Toy()
    tables = []
    for weights, sign in (({"near": 1.0}, 1.0), ({"mirror": 1.0}, -1.0)):
        rows = logged(scenario, 100).to_pylist()
        for row in rows:
            row |= {"preference": list(weights.items()), "action": [2.0 * sign * row["observation"][0]]}
        tables.append(pa.Table.from_pylist(rows, schema=logged(scenario, 1).schema))
    run = fit_offline(tables, scenario, preference=None, output=tmp_path, settings=_settings("cloning", epochs=40))
    policy = load_bundle(run.bundle)
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        wanted = Preference.of(scenario.objectives, weights)
        assert _reached(scenario, PolicyController(policy, wanted), wanted) > 0.9
    with pytest.raises(InvalidInputError, match="row 0: preference must weigh an objective"):
        fit_offline(logged(scenario, 5), scenario, preference=None, output=tmp_path, settings=_settings("cloning"))


@pytest.mark.parametrize("method", ["cloning", *METHODS])
@pytest.mark.parametrize("kind", [Toy, DiscreteToy])
def test_same_seed_same_bundle(kind: type[Toy], method: str, tmp_path: Path) -> None:
    scenario = kind()
    table = logged(scenario, 20)
    preference = None if method != "cloning" else Preference.uniform(scenario.objectives)
    digests = [
        load_bundle(
            fit_offline(
                table,
                scenario,
                preference=preference,
                output=tmp_path / str(i),
                settings=FitSettings(method=method, epochs=2, seed=seed, memory_rows=rows),  # type: ignore[arg-type]
            ).bundle
        ).manifest.files
        # Rows spooled to a file are the same rows.
        for i, (seed, rows) in enumerate(((5, 10**6), (5, 10), (6, 10)))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_inverse_propensities_count_rare_actions_as_much(tmp_path: Path) -> None:
    """One choice in fifty is good; its inverse propensity lifts it over habits that weigh more by their number."""
    scenario = DiscreteToy(length=1, terminates=True)
    rng = np.random.default_rng(0)
    rows = []
    for row in logged(scenario, 800).to_pylist():
        rare = rng.random() < 0.02
        # A little better than the habit: an advantage of some deviations would win on its own.
        row |= {
            "action": [4.0 if rare else 0.0],
            "action_propensity": 0.02 if rare else 0.98,
            "outcome": [("near", 0.5 + 0.2 * rare + 0.3 * rng.standard_normal()), ("mirror", 0.0)],
            "next_observation": None,
            "terminated": True,
        }
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=logged(scenario, 1).schema)
    near = Preference.of(scenario.objectives, [1.0, 0.0])
    chosen = {}
    for inverse in (False, True):
        settings = _settings("advantage_weighted", inverse_propensity=inverse, largest_inverse=100.0)
        run = fit_offline(table, scenario, preference=near, output=tmp_path / str(inverse), settings=settings)
        policy = load_bundle(run.bundle)
        chosen[inverse] = int(policy.act(np.zeros((1, 2), dtype=np.float32))[0][0])
        assert policy.manifest.lineage["actions"] == {"never_taken": [1, 2, 3]}
    assert chosen == {False: 0, True: 4}
    # Behind a shield that lets nothing but the habit through, the propensity is that of what was proposed.
    proposed = table.column("action")
    habit = pa.array([[0.0]] * len(table), type=proposed.type)
    names = table.column_names
    shielded = table.set_column(names.index("action"), table.field("action"), habit)
    shielded = shielded.set_column(names.index("proposed_action"), table.field("proposed_action"), proposed)
    settings = _settings("advantage_weighted", inverse_propensity=True, largest_inverse=100.0)
    run = fit_offline(shielded, scenario, preference=near, output=tmp_path / "shielded", settings=settings)
    assert int(load_bundle(run.bundle).act(np.zeros((1, 2), dtype=np.float32))[0][0]) == 4
    blank = edited(table, 7, action_propensity=None)
    with pytest.raises(InvalidInputError, match="row 7: action_propensity must be a probability above 0, and is null"):
        fit_offline(
            blank,
            scenario,
            preference=near,
            output=tmp_path,
            settings=_settings("iql", inverse_propensity=True),
        )
    with pytest.raises(ConfigurationError, match="no meaning for method cloning"):
        _settings("cloning", inverse_propensity=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"outcome": [("near", 0.5)]}, "row 3: the outcome lacks a finite 'mirror'"),
        ({"outcome": []}, "row 3: the outcome lacks a finite 'near'"),
        ({"outcome": [("near", float("nan")), ("mirror", 1.0)]}, "row 3: the outcome lacks a finite 'near'"),
        ({"observation": [1.0]}, r"row 3: observation must be 2 finite numbers \(decision d0-00000-3\)"),
        ({"observation": [1.0, float("inf")]}, "row 3: observation must be 2 finite numbers"),
        ({"action": [7.0]}, "row 3: action 7 is not a choice from 0 to 4"),
        ({"action": []}, "row 3: action must be 1 finite numbers"),
        ({"next_observation": [1.0, 2.0, 3.0]}, "row 3: next_observation has 3 numbers; expected 2"),
        ({"next_observation": [1.0, float("nan")]}, "row 3: next_observation must be 2 finite numbers"),
    ],
)
def test_bad_rows_are_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    scenario = DiscreteToy()
    table = edited(logged(scenario, 5), 3, **values)
    with pytest.raises(InvalidInputError, match=message):
        fit_offline(table, scenario, preference=Preference.uniform(scenario.objectives), output=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_rows_are_counted_through_all_tables(tmp_path: Path) -> None:
    scenario = DiscreteToy()
    whole = edited(logged(scenario, 5), 21, action=[0.5])
    parts = [whole.slice(0, 16), whole.slice(16, 0), whole.slice(16)]
    with pytest.raises(InvalidInputError, match=r"row 21: action 0.5 is not a choice"):
        fit_offline(parts, scenario, preference=Preference.uniform(scenario.objectives), output=tmp_path)


def test_unusable_tables_are_refused(tmp_path: Path) -> None:
    scenario = DiscreteToy()
    table, uniform = logged(scenario, 5), Preference.uniform(scenario.objectives)

    def fit(rows: pa.Table, **settings: Any) -> None:
        fit_offline(rows, scenario, preference=uniform, output=tmp_path, settings=FitSettings(**settings))

    with pytest.raises(InvalidInputError, match="lack the column 'outcome'"):
        fit(table.drop_columns(["outcome"]))
    with pytest.raises(InvalidInputError, match="no rows"):
        fit(table.slice(0, 0))
    with pytest.raises(InvalidInputError, match="use method cloning"):
        fit(table.slice(table.num_rows - 8))
    with pytest.raises(ConfigurationError, match="method: Input should be 'cloning', 'advantage_weighted', 'iql'"):
        fit(table, method="ppo")
    with pytest.raises(TrainingError, match=r"became (nan|inf)"):
        fit(table, learning_rate=1e30)


def _mirrored(scenario: Toy, outcomes: Any) -> Any:
    return np.stack([outcomes["mirror"], outcomes["near"]], axis=1)


def _only_near(scenario: Toy, outcomes: Any) -> Any:
    return 10.0 * outcomes["near"]


def test_rewards_are_redefined_when_read() -> None:
    scenario = Toy()
    table = logged(scenario, 3)
    outcomes = np.array([[dict(o)["near"], dict(o)["mirror"]] for o in table.column("outcome").to_pylist()])
    third = Preference.of(scenario.objectives, [1.0, 2.0])

    def rewards(preference: Preference | None, **settings: Any) -> np.ndarray:
        reader = RewardReader(scenario, RewardSettings(**settings), preference)
        rows = read_rows([table], scenario, reader)
        return rows.take(np.arange(len(rows))).reward.numpy()

    here = Path(__file__).stem
    np.testing.assert_allclose(rewards(None), outcomes, rtol=1e-6)
    np.testing.assert_allclose(rewards(third)[:, 0], outcomes @ [1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(rewards(None, weights={"mirror": 0.0}), outcomes * [1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(rewards(None, clip=0.1), outcomes.clip(-0.1, 0.1), rtol=1e-6)
    np.testing.assert_allclose(rewards(None, function=f"{here}:_mirrored"), outcomes[:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(rewards(third, function=f"{here}:_only_near")[:, 0], outcomes[:, 0] * 10, rtol=1e-6)
    for settings, message in (
        ({"weights": {"far": 1.0}}, "unknown objective in reward.weights 'far'; allowed: mirror, near"),
        ({"weights": {"near": -1.0}}, "reward.weights.near must be finite and >= 0"),
        ({"function": f"{here}:nothing"}, "cannot be loaded"),
        ({"function": f"{here}:_only_near"}, r"gave rewards of shape \[24\]; expected \[24, 2\]"),
        ({"function": "no-module"}, "function: String should match pattern"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            rewards(None, **settings)


def test_parts_come_before_objectives() -> None:
    """Where an outcome carries the additive parts, the step reward is made of them."""
    scenario = Toy()
    table = logged(scenario, 3)
    rows = table.to_pylist()
    for row in rows:
        row["outcome"] = [("near_num", 3.0), ("near_den", 4.0), ("mirror_num", 1.0), ("mirror_den", 2.0)]
    reader = RewardReader(scenario, RewardSettings(), None)
    read = read_rows([pa.Table.from_pylist(rows, schema=table.schema)], scenario, reader)
    np.testing.assert_allclose(read.take(np.arange(3)).reward, [[0.75, 0.5]] * 3)
    rows[1]["outcome"] = [("near_num", 3.0)]
    partial = pa.Table.from_pylist(rows, schema=table.schema)
    with pytest.raises(InvalidInputError, match="row 1: the outcome lacks a finite 'near_den'"):
        read_rows([partial], scenario, RewardReader(scenario, RewardSettings(), None))
