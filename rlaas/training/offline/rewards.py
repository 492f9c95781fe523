"""What logged outcomes are worth, decided when they are read: the log keeps outcome vectors, not rewards."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, check_choice, shown
from rlaas.objectives import Preference, normalise
from rlaas.scenarios import Scenario
from rlaas.training.offline.columns import Columns
from rlaas.training.offline.config import RewardSettings

__all__ = ["RewardReader"]

Float = NDArray[np.float64]
RewardFunction = Callable[[Scenario, Mapping[str, Float]], Any]


class RewardReader:
    """Turns outcomes into rewards: one column per objective, or a single one.

    Args:
        scenario: whose outcomes they are.
        settings: weights, clipping, a function of the user's.
        preference: the trade-off whose weighted sum is the reward; None keeps one column per objective.

    Raises:
        ConfigurationError: a weight of an unknown objective, or a function that cannot be loaded.
    """

    def __init__(self, scenario: Scenario, settings: RewardSettings, preference: Preference | None) -> None:
        self._scenario, self._clip = scenario, settings.clip
        names = [o.name for o in scenario.objectives]
        for name, weight in settings.weights.items():
            check_choice(name, names, field="objective in reward.weights")
            if not np.isfinite(weight) or weight < 0:
                raise ConfigurationError(f"reward.weights.{name} must be finite and >= 0, got {weight}", field=name)
        self._factors = np.array([settings.weights.get(name, 1.0) for name in names])
        self._function = None if settings.function is None else _load(settings.function)
        self._name = settings.function
        self._preference = None
        if preference is not None:
            self._preference = Preference.of(scenario.objectives, preference.to_dict()).array()
        self._from_parts: bool | None = None

    @property
    def width(self) -> int:
        """Columns of a reward."""
        return 1 if self._preference is not None else len(self._factors)

    def read(self, rows: Columns) -> Float:
        """Rewards [n, width]; larger is better.

        Raises:
            InvalidInputError: an outcome lacks a field or it is not finite; names the row and the field.
            ConfigurationError: the user's function failed, or gave something of the wrong shape.
        """
        reward = self._computed(rows) if self._function is not None else self._goodness(rows)
        if reward.ndim == 2:
            reward = reward * self._factors
        if self._clip is not None:
            reward = np.clip(reward, -self._clip, self._clip)
        if reward.ndim == 1:
            return reward[:, None]
        return reward if self._preference is None else (reward @ self._preference)[:, None]

    def _goodness(self, rows: Columns) -> Float:
        """Normalised rewards [n, n_objectives]: from the logged parts where outcomes carry them, else from objectives.

        Parts come first because a ratio may be undefined in a single step (orders per click, where nothing was
        clicked). The first row of all decides for all.
        """
        scenario = self._scenario
        parts = rows.entries("outcome", scenario.measures)
        if self._from_parts is None:
            self._from_parts = bool(len(parts)) and bool(np.isfinite(parts[0]).any())
        if self._from_parts:
            self._complete(rows, parts, scenario.measures)
            return np.asarray(scenario.step_rewards(parts[:, 0::2], parts[:, 1::2]), dtype=np.float64)
        names = tuple(o.name for o in scenario.objectives)
        values = rows.entries("outcome", names)
        self._complete(rows, values, names)
        return normalise(scenario.objectives, values)

    def _complete(self, rows: Columns, values: Float, names: tuple[str, ...]) -> None:
        missing = ~np.isfinite(values)
        bad = np.asarray(missing.any(axis=1))
        name = names[int(missing[bad.argmax()].argmax())]
        rows.refuse(bad, f"{{row}}: the outcome lacks a finite {name!r}", field=f"outcome.{name}")

    def _computed(self, rows: Columns) -> Float:
        """The user's function's rewards [n, n_objectives] or [n]."""
        scenario = self._scenario
        names = tuple(dict.fromkeys((*(o.name for o in scenario.objectives), *scenario.measures)))
        values = rows.entries("outcome", names)
        assert self._function is not None
        given = self._function(scenario, dict(zip(names, values.T.copy(), strict=True)))
        try:
            reward = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as problem:
            raise self._wrong(f"gave {shown(given)}, not numbers") from problem
        n, m = len(rows), len(scenario.objectives)
        if reward.shape != (n, m) and (reward.shape != (n,) or (self._preference is None and m > 1)):
            allowed = f"[{n}, {m}]" if self._preference is None and m > 1 else f"[{n}, {m}] or [{n}]"
            raise self._wrong(f"gave rewards of shape {list(reward.shape)}; expected {allowed}")
        bad = np.asarray(~np.isfinite(reward.reshape(n, -1)).all(axis=1))
        rows.refuse(bad, f"{{row}}: reward.function {self._name} gave no finite reward", field="reward.function")
        return reward

    def _wrong(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"reward.function {self._name} {what}", field="reward.function")


def _load(path: str) -> RewardFunction:
    module, _, attribute = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise ConfigurationError(
            f"reward.function {path!r} cannot be loaded: {problem}", field="reward.function"
        ) from problem
    if not callable(function):
        raise ConfigurationError(f"reward.function {path!r} is no function", field="reward.function")
    loaded: RewardFunction = function
    return loaded
