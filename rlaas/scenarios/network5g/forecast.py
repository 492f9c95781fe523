"""Fits and judges the forecast of handovers and load: ``python -m rlaas.scenarios.network5g.forecast``.

The kernel forecasts, for every user and step, the cell it is most likely to leave for (that of the largest A3 margin)
and the probability of being served by another cell ``horizon_s`` later: a logistic function of the time to the border
at the pace of the margin's rise, of its direction, and of whether the border is crossed already; the coefficients stand
in the frozen reference. Every base station has both from the measurement
reports that trigger handovers; no position is needed. A cell's use is forecast by its slow average, moved by who leaves
and arrives.

Rivals that the report measures alongside, on the same steps of seeds that the fit has not seen:

* *persistence*: nobody moves, the use stays as it is;
* *constant velocity*: everybody goes on as in the last step for ``horizon_s``, and the cell strongest there according
  to a planning tool (:attr:`~rlaas.scenarios.network5g.geography.Maps.mean_db`, which knows distances and antennas but
  no shadowing) serves, if it is better than the present one by the default's handover offset.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.network5g.control import ACTION_NAMES, default_action
from rlaas.scenarios.network5g.engine.arrays import MARGIN
from rlaas.scenarios.network5g.measured import trace_positions
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES
from rlaas.scenarios.network5g.propagation import tilt_gain_db
from rlaas.scenarios.network5g.reference import STEP_S, Forecast, reference
from rlaas.scenarios.network5g.scenario import Network5G

__all__ = ["ForecastAccuracy", "LoadError", "MoveError", "Tracks", "accuracy", "collect", "fit"]

Floats = NDArray[np.floating[Any]]

FIT_SEED, JUDGE_SEED = 910_000, 920_000
"""First seeds of the fit and of the report, away from those of training, evaluation and calibration."""
FLOOR_DB = 0.3
"""Added to the rise per step in a pace: below it margins of people who stand still wander by themselves."""
SETTLED_S = 0.15
"""Time after a handover from which a margin has a predecessor to rise from, as in the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """What was seen of networks at the default's settings: T steps, E networks, U users, C cells.

    Attributes:
        serving: serving cell [T, E, U].
        best: cell of the largest margin [T, E, U].
        margin: by how much it met the entering condition of A3, in dB [T, E, U].
        rise: change of that margin since the last step, in dB [T, E, U].
        planned: cell that constant velocity and a planning tool's map say serves after the horizon [T, E, U].
        use: resource-block use of each cell [T, E, C].
        average: slow average of it [T, E, C].
        forecast_use: the kernel's forecast of it, as observed [T, E, C].
        horizon: of the forecasts, in steps.
    """

    serving: NDArray[np.int32]
    best: NDArray[np.int32]
    margin: NDArray[np.float32]
    rise: NDArray[np.float32]
    planned: NDArray[np.int32]
    use: NDArray[np.float64]
    average: NDArray[np.float64]
    forecast_use: NDArray[np.float32]
    horizon: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveError:
    """How well a predictor says which cell serves after the horizon.

    Attributes:
        predictor: its name.
        correct: share of users whose cell it names.
        correct_of_moved: the same of those that are then served by another cell.
        precision: share of the moves it names that come true, the cell included; NaN where it names none.
        brier: mean squared error of its probability of being served by another cell.
    """

    predictor: str
    correct: float
    correct_of_moved: float
    precision: float
    brier: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadError:
    """Errors of a predictor of the use, the mean over the second around the horizon; shares of all blocks."""

    predictor: str
    rmse: float
    mae: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastAccuracy:
    """Accuracy of the forecast and its rivals.

    Attributes:
        moved: share of users served by another cell after the horizon.
        moves: by predictor: ``forecast``, ``persistence``, ``constant velocity``.
        loads: by predictor: ``forecast``, ``persistence``, mean of the ``last second``, ``slow average``, and that
            average times the growth of users by ``constant velocity``.
        bands: reliability: mean forecast and observed frequency of moves in ten bands of equal size [2, 10].
    """

    moved: float
    moves: tuple[MoveError, ...]
    loads: tuple[LoadError, ...]
    bands: NDArray[np.float64]


def collect(scenario: Network5G, seeds: Sequence[int], *, steps: int = 300, warmup: int = 30) -> Tracks:
    """Watch networks under the frozen default.

    Args:
        scenario: with control by cell.
        seeds: one network each.
        steps: steps to record.
        warmup: steps before them.

    Raises:
        InvalidInputError: central control, an episode that is too short, or no step after the horizon.
    """
    horizon = round(scenario.reference.forecast.horizon_s / STEP_S)
    if scenario.options["control"] != "cell":
        raise InvalidInputError("collect needs a scenario with control 'cell'", field="scenario")
    if steps <= horizon + 5 or warmup < 1:
        raise InvalidInputError(
            f"steps must exceed {horizon + 5} and warmup be >= 1, got {steps}, {warmup}", field="steps"
        )
    if scenario.network.episode_steps < warmup + steps:
        raise InvalidInputError(
            f"an episode of {scenario.network.episode_steps} steps is shorter than warmup + steps = {warmup + steps}",
            field="episode_steps",
        )
    env, cells = scenario.vector_env(len(seeds), seed=list(seeds), copy=False), scenario.cells
    env.reset()
    state, planner = env.engine.state, _Planner(scenario)
    action = np.repeat(default_action(scenario.reference)[None], env.num_envs, axis=0)
    users, forecast_use = state.users, OBSERVATION_NAMES.index("forecast_use")
    shape = (steps, *users.shape)
    tracks = Tracks(
        serving=np.zeros(shape, dtype=np.int32),
        best=np.zeros(shape, dtype=np.int32),
        margin=np.zeros(shape, dtype=np.float32),
        rise=np.zeros(shape, dtype=np.float32),
        planned=np.zeros(shape, dtype=np.int32),
        use=np.zeros((steps, len(seeds), cells)),
        average=np.zeros((steps, len(seeds), cells)),
        forecast_use=np.zeros((steps, len(seeds), cells), dtype=np.float32),
        horizon=horizon,
    )
    margins = np.zeros((*users.shape, cells), dtype=np.float32)
    place = np.zeros((*users.shape, 2))
    for step in range(-warmup, steps):
        before, was = margins, place
        observation = env.step(action)[0]
        margins = state.links[:, :, MARGIN, :cells].copy()
        place = np.stack([users["x"], users["y"]], axis=-1).astype(np.float64)
        if step < 0:
            continue
        best = margins.argmax(axis=-1)[..., None]
        settled = users["since"] > SETTLED_S
        tracks.serving[step], tracks.best[step] = users["serving"], best[..., 0]
        tracks.margin[step] = np.take_along_axis(margins, best, axis=-1)[..., 0]
        rise = np.take_along_axis(margins - before, best, axis=-1)[..., 0]
        tracks.rise[step] = np.where(settled, rise, 0.0)
        tracks.planned[step] = planner(users["serving"], was, place, horizon)
        tracks.use[step], tracks.average[step] = state.cells["use"], state.cells["trend"]
        tracks.forecast_use[step] = observation.reshape(len(seeds), cells, -1)[..., forecast_use]
    return tracks


class _Planner:
    """Constant velocity on a planning tool's map."""

    def __init__(self, scenario: Network5G) -> None:
        network, default = scenario.network, default_action(scenario.reference)
        self._layout, self._maps = network.layout, network.maps()
        self._power = network.layout.powers_dbm(network.radio.power_dbm)
        self._tilt = np.sin(np.deg2rad(default[ACTION_NAMES.index("tilt_deg")]))
        self._floor = network.radio.array_floor_db
        self._offset = default[ACTION_NAMES.index("handover_offset_db")]

    def __call__(self, serving: NDArray[np.int32], was: Floats, place: Floats, horizon: int) -> NDArray[np.int32]:
        d = place - was
        dx, dy = self._layout.nearest_image(d[..., 0], d[..., 1])
        there = place + horizon * np.stack([dx, dy], axis=-1)
        maps, cells = self._maps, self._layout.cells
        sine = maps.sample(maps.sine_below, there)[..., :cells].astype(np.float64)
        level = maps.sample(maps.mean_db, there)[..., :cells] + self._power
        level = level + tilt_gain_db(sine - self._tilt, floor_db=self._floor)
        own = serving[..., None].astype(np.int64)
        np.put_along_axis(level, own, np.take_along_axis(level, own, axis=-1) + self._offset, axis=-1)
        return np.asarray(level.argmax(axis=-1), dtype=np.int32)


def _features(margin: Floats, rise: Floats) -> NDArray[np.float64]:
    """1, reach, direction, entered; see :class:`~rlaas.scenarios.network5g.reference.Forecast` [n, 4]."""
    pace = np.abs(rise) + FLOOR_DB
    return np.stack([np.ones_like(margin), np.minimum(margin, 0.0) / pace, rise / pace, margin > 0.0], axis=1)


def _margins(tracks: Tracks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Margins and rises at every step that has a horizon [n] each."""
    margin, rise = (np.asarray(a[: -tracks.horizon], dtype=np.float64).ravel() for a in (tracks.margin, tracks.rise))
    return margin, rise


def _moved(tracks: Tracks) -> NDArray[np.bool_]:
    """Whether another cell serves after the horizon [n]."""
    return np.asarray(tracks.serving[tracks.horizon :] != tracks.serving[: -tracks.horizon]).ravel()


def fit(tracks: Sequence[Tracks], horizon_s: float) -> Forecast:
    """Logistic regression by maximum likelihood.

    Args:
        tracks: of several networks; each counts by its number of users and steps.
        horizon_s: that they were collected for.
    """
    both = [_margins(one) for one in tracks]
    margin, rise = (np.concatenate([b[part] for b in both]) for part in (0, 1))
    # Just after a handover there is no neighbour to speak of; -1,000 dB would only stretch the scale.
    keep = margin > -100.0
    x, y = _features(margin[keep], rise[keep]), np.concatenate([_moved(one) for one in tracks])[keep]

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = x @ weights
        return float((np.logaddexp(0.0, z) - y * z).mean()), (expit(z) - y) @ x / len(y)

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="BFGS")
    bias, reach, direction, entered = (float(f"{w:.4g}") for w in found.x)
    return Forecast(
        horizon_s=horizon_s, bias=bias, reach=reach, direction=direction, entered=entered, floor_db=FLOOR_DB
    )


def accuracy(tracks: Tracks, forecast: Forecast) -> ForecastAccuracy:
    """How well the forecast and its rivals do on tracks that the fit has not seen."""
    h = tracks.horizon
    now, then, best = tracks.serving[:-h].ravel(), tracks.serving[h:].ravel(), tracks.best[:-h].ravel()
    weights = np.array([forecast.bias, forecast.reach, forecast.direction, forecast.entered])
    chance = expit(_features(*_margins(tracks)) @ weights)
    planned, moved = tracks.planned[:-h].ravel(), then != now
    guesses = (
        ("forecast", np.where(chance > 0.5, best, now), chance),
        ("persistence", now, np.zeros(len(now))),
        ("constant velocity", planned, (planned != now).astype(np.float64)),
    )
    order = np.array_split(np.argsort(chance, kind="stable"), 10)
    return ForecastAccuracy(
        moved=float(moved.mean()),
        moves=tuple(_move_error(name, guess, probability, now, then) for name, guess, probability in guesses),
        loads=_load_errors(tracks),
        bands=np.array([[chance[part].mean() for part in order], [moved[part].mean() for part in order]]),
    )


def _move_error(
    name: str, guess: NDArray[np.int32], chance: Floats, now: NDArray[np.int32], then: NDArray[np.int32]
) -> MoveError:
    moved, said = then != now, guess != now
    right = guess == then
    return MoveError(
        predictor=name,
        correct=float(right.mean()),
        correct_of_moved=float(right[moved].mean()) if moved.any() else float("nan"),
        precision=float(right[said].mean()) if said.any() else float("nan"),
        brier=float(((chance - moved) ** 2).mean()),
    )


def _load_errors(tracks: Tracks) -> tuple[LoadError, ...]:
    """Errors of the forecast use of every cell; users of constant velocity move the same slow average."""
    h, half = tracks.horizon, round(0.5 / STEP_S)
    count = len(tracks.use) - h - half
    sums = np.cumsum(np.concatenate([np.zeros((1, *tracks.use.shape[1:])), tracks.use]), axis=0)
    # The mean over the second around the horizon: what a single step uses is mostly chance.
    wanted = (sums[h + half :][:count] - sums[h - half :][:count]) / (2 * half)
    cells = tracks.use.shape[2]
    users, planned = (_per_cell(a[:count], cells) for a in (tracks.serving, tracks.planned))
    last_second = (sums[1:] - sums[np.maximum(np.arange(1, len(sums)) - 2 * half, 0)])[:count] / (2 * half)
    average = tracks.average[:count]
    rivals = (
        ("forecast", tracks.forecast_use[:count]),
        ("persistence", tracks.use[:count]),
        ("last second", last_second),
        ("slow average", average),
        ("constant velocity", average * planned / np.maximum(users, 1.0)),
    )
    first = 2 * half
    errors = [(name, (np.asarray(guess, dtype=np.float64) - wanted)[first:]) for name, guess in rivals]
    return tuple(
        LoadError(predictor=name, rmse=float(np.sqrt((e**2).mean())), mae=float(np.abs(e).mean())) for name, e in errors
    )


def _per_cell(serving: NDArray[np.int32], cells: int) -> NDArray[np.float64]:
    """Users by cell [T, E, C]."""
    steps, envs, _ = serving.shape
    row = np.arange(steps * envs).reshape(steps, envs, 1) * cells
    return (
        np.bincount((row + serving).ravel(), minlength=steps * envs * cells).reshape(steps, envs, cells).astype(float)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit on the shipped sizes, and print coefficients and the accuracy by kind of mobility as JSON."""
    parser = argparse.ArgumentParser(description="fit the handover forecast of network5g and judge it")
    parser.add_argument("--networks", type=int, default=32, help="networks per size and kind of mobility")
    parser.add_argument("--steps", type=int, default=500)
    chosen = parser.parse_args(arguments)

    def watch(mobility: str, size: str, first: int) -> Tracks:
        traces = trace_positions() if mobility == "trace" else None
        scenario = Network5G(size=size, mobility=mobility, traces=traces, episode_steps=chosen.steps + 30)
        return collect(scenario, range(first, first + chosen.networks), steps=chosen.steps)

    kinds, sizes = ("waypoint", "gauss_markov"), ("small", "medium")
    found = fit([watch(kind, size, FIT_SEED) for kind in kinds for size in sizes], reference().forecast.horizon_s)
    document: dict[str, Any] = {"forecast": asdict(found), "accuracy": {}}
    for kind in (*kinds, "trace"):
        for size in sizes:
            try:
                tracks = watch(kind, size, JUDGE_SEED)
            except ConfigurationError as problem:
                document["accuracy"][f"{kind} {size}"] = str(problem)
                continue
            judged = asdict(accuracy(tracks, found))
            for row in judged["moves"]:
                # Who says that nobody moves has no precision, and JSON no NaN.
                row.update(
                    {name: None for name, value in row.items() if isinstance(value, float) and math.isnan(value)}
                )
            document["accuracy"][f"{kind} {size}"] = {**judged, "bands": judged["bands"].round(4).tolist()}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
