from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from training_toys import DiscreteToy, Toy

from rlaas.bundles import load_bundle
from rlaas.errors import InvalidInputError
from rlaas.objectives import Preference
from rlaas.scenarios import ConstantController, evaluate
from rlaas.training import PolicyController, fit_offline


def _log(scenario: Toy, steps: int, seed: int = 0) -> pa.Table:
    """What silver.transitions would hold after serving uniformly random actions."""
    rng = np.random.default_rng(seed)
    env = scenario.vector_env(8, seed=seed)
    observation, _ = env.reset()
    rows: list[dict[str, Any]] = []
    ended = np.zeros(env.num_envs, dtype=bool)
    for step in range(steps):
        action = rng.integers(5, size=env.num_envs) if scenario.discrete else rng.uniform(-2, 2, (env.num_envs, 1))
        following, reward, terminated, truncated, _ = env.step(action)
        for i in np.flatnonzero(~ended):
            row = {
                "observation": observation[i].tolist(),
                "action": np.atleast_1d(action[i]).astype(float).tolist(),
                "preference": None,
                "outcome": [("near", float(reward[i, 0])), ("mirror", float(reward[i, 1]))],
                # The last decision of a session has no successor.
                "next_observation": None if step == steps - 1 else following[i].tolist(),
                "terminated": bool(terminated[i]),
                "truncated": bool(truncated[i]),
                "session": f"s{i}",
                "step": step,
            }
            rows.append(row)
        ended = terminated | truncated
        observation = following
    doubles, numbers = pa.list_(pa.float64()), pa.map_(pa.string(), pa.float64())
    schema = pa.schema(
        [
            ("observation", doubles),
            ("action", doubles),
            ("preference", numbers),
            ("outcome", numbers),
            ("next_observation", doubles),
            ("terminated", pa.bool_()),
            ("truncated", pa.bool_()),
            ("session", pa.string()),
            ("step", pa.int64()),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def _reached(scenario: Toy, controller: Any, preference: Preference) -> float:
    evaluation = evaluate(scenario, controller, (11, 12, 13, 14), steps=60)
    return float(evaluation.mean() @ preference.array())


@pytest.mark.parametrize("kind", [Toy, DiscreteToy])
def test_advantage_weights_beat_the_logged_behaviour(kind: type[Toy], tmp_path: Path) -> None:
    scenario = kind()
    near = Preference.of(scenario.objectives, [1.0, 0.0])
    table = _log(scenario, 150)
    seen: list[tuple[int, int]] = []
    options: dict[str, Any] = {"preference": near, "epochs": 12, "seed": 3}
    fitted = fit_offline(
        table, scenario, output=tmp_path / "fit", progress=lambda done, of, _: seen.append((done, of)), **options
    )
    cloned = fit_offline(table, scenario, output=tmp_path / "clone", method="cloning", **options)
    assert seen == [(i, 24) for i in range(1, 25)]
    assert len(cloned.curve) == 12
    policy = load_bundle(fitted.bundle)
    assert not policy.manifest.preference_conditioned
    assert policy.manifest.algorithm == "advantage_weighted"
    assert policy.manifest.lineage["rows"] == table.num_rows == fitted.metrics["transitions"]
    still = _reached(scenario, ConstantController(2 if scenario.discrete else np.zeros(1)), near)
    ours = _reached(scenario, PolicyController(policy), near)
    logged = float(np.mean([dict(o)["near"] for o in table.column("outcome").to_pylist()]))
    # Perfect is 1 (or about 0.97 with five levels), standing still 2/3, the logged behaviour 1/3.
    assert ours > 0.8 > still > logged
    sampled = _reached(scenario, PolicyController(load_bundle(cloned.bundle), sample=True), near)
    assert sampled < still


def test_the_preference_decides_what_is_fitted(tmp_path: Path) -> None:
    scenario = Toy()
    table = _log(scenario, 100)
    reached = {}
    for name, weights in {"near": [1.0, 0.0], "mirror": [0.0, 1.0]}.items():
        wanted = Preference.of(scenario.objectives, weights)
        run = fit_offline(table, scenario, preference=wanted, output=tmp_path / name, epochs=8)
        reached[name] = evaluate(scenario, PolicyController(load_bundle(run.bundle)), (1, 2), steps=50).mean()
    assert reached["near"][0] > reached["mirror"][0] + 0.3
    assert reached["mirror"][1] > reached["near"][1] + 0.3


def test_same_seed_same_bundle(tmp_path: Path) -> None:
    scenario = DiscreteToy()
    table = _log(scenario, 20)
    uniform = Preference.uniform(scenario.objectives)
    digests = [
        load_bundle(
            fit_offline(table, scenario, preference=uniform, output=tmp_path / str(i), epochs=2, seed=s).bundle
        ).manifest.files
        for i, s in enumerate((5, 5, 6))
    ]
    assert digests[0] == digests[1] != digests[2]


def _edit(table: pa.Table, row: int, **values: Any) -> pa.Table:
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"outcome": [("near", 0.5)]}, "row 3: the outcome lacks a finite 'mirror'"),
        ({"outcome": None}, "row 3: the outcome lacks a finite 'near'"),
        ({"outcome": [("near", float("nan")), ("mirror", 1.0)]}, "row 3: the outcome lacks a finite 'near'"),
        ({"observation": [1.0]}, "row 3: observation must be 2 finite numbers"),
        ({"action": [7.0]}, "row 3: action 7 is not a choice from 0 to 4"),
        ({"next_observation": [1.0, 2.0, 3.0]}, "row 3: next_observation has 3 numbers; expected 2"),
    ],
)
def test_bad_rows_are_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    scenario = DiscreteToy()
    table = _edit(_log(scenario, 5), 3, **values)
    with pytest.raises(InvalidInputError, match=message):
        fit_offline(table, scenario, preference=Preference.uniform(scenario.objectives), output=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_unusable_tables_are_refused(tmp_path: Path) -> None:
    scenario = DiscreteToy()
    table, uniform = _log(scenario, 5), Preference.uniform(scenario.objectives)
    with pytest.raises(InvalidInputError, match="lack the column 'outcome'"):
        fit_offline(table.drop_columns(["outcome"]), scenario, preference=uniform, output=tmp_path)
    with pytest.raises(InvalidInputError, match="no rows"):
        fit_offline(table.slice(0, 0), scenario, preference=uniform, output=tmp_path)
    with pytest.raises(InvalidInputError, match="unknown method 'ppo'; allowed: advantage_weighted, cloning"):
        fit_offline(table, scenario, preference=uniform, output=tmp_path, method="ppo")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="epochs must be at least 1"):
        fit_offline(table, scenario, preference=uniform, output=tmp_path, epochs=0)
    last = table.slice(table.num_rows - 8)
    with pytest.raises(InvalidInputError, match="use method cloning"):
        fit_offline(last, scenario, preference=uniform, output=tmp_path)
