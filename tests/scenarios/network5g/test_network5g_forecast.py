"""The forecast of handovers and load: the kernel's arithmetic, the fit, and its accuracy against rivals."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from rlaas.errors import InvalidInputError
from rlaas.scenarios.network5g import Network5G
from rlaas.scenarios.network5g.engine.arrays import MARGIN
from rlaas.scenarios.network5g.forecast import accuracy, collect, fit, main
from rlaas.scenarios.network5g.measured import trace_positions
from rlaas.scenarios.network5g.reference import Forecast, reference

DATA = Path(os.environ.get("RLAAS_DATA_DIR", Path(__file__).parents[3] / ".." / "shared" / "data"))
RIVALS = ("persistence", "constant velocity")


def watch(first, networks=32, steps=160, **options):
    scenario = Network5G(**{"size": "medium", "episode_steps": 400, **options})
    return collect(scenario, range(first, first + networks), steps=steps)


def logit(forecast, margin, rise):
    """What the docstring of Forecast says, written once more."""
    pace = abs(rise) + forecast.floor_db
    steps, way = np.minimum(margin, 0.0) / pace, rise / pace
    return forecast.bias + forecast.reach * steps + forecast.direction * way + forecast.entered * (margin > 0)


@pytest.fixture(scope="module")
def tracks():
    return {kind: watch(70, mobility=kind) for kind in ("waypoint", "gauss_markov")}


@pytest.fixture(scope="module")
def found(tracks):
    return fit(list(tracks.values()), 2.0)


def test_tracks_hold_what_the_kernel_forecasts_with():
    scenario = Network5G(size="medium", episode_steps=400)
    seen = collect(scenario, [5], steps=60, warmup=10)
    env = scenario.vector_env(1, threads=1)
    env.reset(seed=[5])
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    forecast = scenario.reference.forecast
    work, state = env.engine.scratch, env.engine.state
    for step in range(-10, 60):
        observation = env.step(actions)[0]
        if step < 0:
            continue
        users = state.users[0]
        np.testing.assert_array_equal(seen.serving[step, 0], users["serving"])
        np.testing.assert_array_equal(seen.use[step, 0], state.cells["use"][0])
        still = users["since"] > 0.15
        np.testing.assert_array_equal(seen.best[step, 0][still], work.users["next_cell"][0][still])
        score = logit(forecast, seen.margin[step, 0], seen.rise[step, 0])
        assert work.leaving[0, : len(still)][still] == pytest.approx(expit(score[still]), abs=1e-4)
        leaving, arriving = (scenario.observation_names.index(f"forecast_{name}") for name in ("leaving", "arriving"))
        usual = sum(scenario.users) / scenario.cells
        chance, own, then = work.leaving[0, : len(users)], users["serving"], work.users["next_cell"][0]
        out = np.bincount(own, weights=chance * (own != then), minlength=7) / usual
        into = np.bincount(then, weights=chance * (own != then), minlength=7) / usual
        assert observation[:, leaving] == pytest.approx(np.minimum(out, 1.0), abs=1e-5)
        assert observation[:, arriving] == pytest.approx(np.minimum(into, 1.0), abs=1e-5)
        assert state.links[0, np.arange(len(own)), MARGIN, own].max() < -100


def test_the_fit_finds_known_coefficients():
    rng, shape = np.random.default_rng(0), (61, 40, 30)
    tracks = watch(1, networks=1, steps=30)
    margin = rng.normal(-8, 6, shape).astype(np.float32)
    rise = rng.normal(0, 1, shape).astype(np.float32)
    h, truth = tracks.horizon, Forecast(horizon_s=2.0, bias=-0.4, reach=0.1, direction=0.7, entered=1.3, floor_db=0.3)
    serving = np.zeros(shape, dtype=np.int32)
    chance = expit(logit(truth, margin, rise))
    # Each step's label stands one horizon later: block by block, so that none disturbs another.
    serving[h : 2 * h] = rng.random((h, *shape[1:])) < chance[:h]
    short = {name: np.zeros((2 * h, *shape[1:]), dtype=np.int32) for name in ("best", "planned")}
    made = replace(
        tracks,
        serving=serving[: 2 * h],
        margin=margin[: 2 * h],
        rise=rise[: 2 * h],
        best=short["best"] + 1,
        planned=short["planned"],
    )
    got = fit([made], 2.0)
    for name in ("bias", "direction", "entered"):
        assert getattr(got, name) == pytest.approx(getattr(truth, name), abs=0.06)
    assert got.reach == pytest.approx(truth.reach, abs=0.006)
    assert got.floor_db == truth.floor_db


@pytest.mark.parametrize("kind", ["waypoint", "gauss_markov"])
def test_the_forecast_beats_its_rivals_on_seeds_it_has_not_seen(kind, found):
    judged = accuracy(watch(900, mobility=kind), found)
    moves = {row.predictor: row for row in judged.moves}
    assert tuple(moves) == ("forecast", *RIVALS)
    assert 0.02 < judged.moved < 0.3
    assert moves["persistence"].correct == pytest.approx(1 - judged.moved)
    assert moves["persistence"].brier == pytest.approx(judged.moved)
    for rival in RIVALS:
        assert moves["forecast"].correct > moves[rival].correct
        assert moves["forecast"].brier < 0.8 * moves[rival].brier
    assert moves["forecast"].precision > moves["constant velocity"].precision
    # Calibrated: where it says more, more happens, and the sum is about right.
    said, happened = judged.bands
    assert said.mean() == pytest.approx(judged.moved, rel=0.2)
    assert np.corrcoef(said, happened)[0, 1] > 0.95
    loads = {row.predictor: row for row in judged.loads}
    for rival in ("persistence", "last second", "constant velocity"):
        assert loads["forecast"].rmse < loads[rival].rmse


def test_the_shipped_forecast_is_better_than_knowing_nothing(tracks):
    shipped = reference().forecast
    judged = accuracy(tracks["waypoint"], shipped)
    moves = {row.predictor: row for row in judged.moves}
    assert moves["forecast"].brier < moves["persistence"].brier
    assert shipped.horizon_s == 2.0


def test_the_forecast_holds_on_measured_walks(found):
    if not (DATA / "drive_traces").is_dir():
        pytest.skip(f"no drive traces under {DATA}; set RLAAS_DATA_DIR")
    traces = trace_positions(DATA)
    judged = accuracy(watch(900, mobility="trace", traces=traces), found)
    moves = {row.predictor: row for row in judged.moves}
    for rival in RIVALS:
        assert moves["forecast"].brier < moves[rival].brier


def test_what_cannot_be_collected_is_refused():
    with pytest.raises(InvalidInputError, match="control 'cell'"):
        collect(Network5G(control="central"), [1])
    with pytest.raises(InvalidInputError, match="steps must exceed 25"):
        collect(Network5G(), [1], steps=20)
    with pytest.raises(InvalidInputError, match="shorter than warmup"):
        collect(Network5G(episode_steps=100), [1], steps=100)


def test_the_report_is_a_document(capsys):
    assert main(["--networks", "2", "--steps", "60"]) == 0

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert set(document["forecast"]) == {"horizon_s", "bias", "reach", "direction", "entered", "floor_db"}
    assert "waypoint small" in document["accuracy"]
