"""The coordinator's own copy of the algorithm: untrained, and never given an observation of any site."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError
from rlaas.fronts import Front
from rlaas.objectives import normalise
from rlaas.optimization import front_hypervolume
from rlaas.scenarios import Scenario
from rlaas.training.conditioning import spread_preferences
from rlaas.training.export import export_bundle
from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.state import FixedMoments, GlobalModel, Layout
from rlaas.training.front_evaluation import evaluate_front
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.runs import build_algorithm

__all__ = ["Template", "front_figures"]


class Template:
    """Gives the first parameters and the layout, and turns a global model into a policy; Ray has to be running.

    Raises:
        ConfigurationError: the training cannot work, or a fixed normaliser lacks a range.
    """

    def __init__(self, config: FederationConfig) -> None:
        self._config = config
        self.scenario: Scenario = problem_of(config.training)
        whole = config.training.model_copy(update={"steps": config.rounds * config.decisions})
        self.algorithm = algorithm_of(whole, self.scenario)
        self.fixed = None if config.normaliser == "shared" else _fixed_moments(config, self.scenario)
        # It never trains, so it needs no replay to speak of.
        small = whole.sac.model_copy(update={"buffer_size": whole.batch_size})
        self._algo: Any = build_algorithm(whole.model_copy(update={"sac": small}), self.algorithm)
        self.layout = Layout.of(self._algo, self.algorithm, config.share)

    def parameters(self) -> NDArray[np.float32]:
        """Of an untrained module [Layout.size]; the seed alone decides them."""
        return self.layout.read(self._algo.learner.net)

    def export(self, model: GlobalModel, folder: Path, lineage: Mapping[str, Any]) -> Path:
        """Write the policy of ``model`` as a bundle."""
        self.layout.write(self._algo.learner.net, model.parameters)
        moments = self._algo.moments
        moments.set_state(dict(model.moments))
        policy = self._algo.policy
        policy.normaliser.freeze(moments.mean, moments.deviation())
        if self.algorithm == "ppo" and not policy.discrete:
            # Sites keep their share of noise to themselves; what is exported is what their trainings end with.
            policy.leave_noise(self._config.training.ppo.final_noise)
        return export_bundle(policy, self.scenario, folder, algorithm=self.algorithm, lineage=lineage)

    def evaluate(self, model: GlobalModel) -> dict[str, float]:
        """Hypervolume and mean utility of the policy of ``model`` on the evaluation seeds."""
        with tempfile.TemporaryDirectory(prefix="rlaas-") as folder:
            bundle = self.export(model, Path(folder), {})
            front = evaluate_front(self.scenario, bundle, self._config.training).front
        return front_figures(front, self._config.training.evaluation_preferences)

    def stop(self) -> None:
        """Let go of the algorithm."""
        self._algo.stop()


def front_figures(front: Front, preferences: int) -> dict[str, float]:
    """Hypervolume of a front, and its expected utility: the best of it at each of so many preferences, averaged."""
    wanted = np.array([p.array() for p in spread_preferences(front.names, preferences)])
    goodness = normalise(front.objectives, np.array([c.mean for c in front.candidates]))
    return {
        "hypervolume": float(front_hypervolume(front)),
        "utility": float((wanted @ goodness.T).max(axis=1).mean()),
    }


def _fixed_moments(config: FederationConfig, scenario: Scenario) -> FixedMoments:
    """Middle and spread of each feature's range: those of a uniform distribution over it."""
    space: Any = scenario.single_observation_space
    ranges = {
        name: (float(low), float(high))
        for name, low, high in zip(scenario.observation_names, space.low, space.high, strict=True)
    }
    unknown = sorted(set(config.observation_ranges) - set(ranges))
    if unknown:
        raise ConfigurationError(
            f"observation_ranges: {scenario.name!r} has no feature {unknown[0]!r}", field="observation_ranges"
        )
    ranges |= config.observation_ranges
    open_ended = [name for name, (low, high) in ranges.items() if not np.isfinite([low, high]).all()]
    if open_ended:
        raise ConfigurationError(
            f"normaliser fixed needs a range for {', '.join(open_ended[:5])}; give it in observation_ranges",
            field="observation_ranges",
        )
    bounds = np.array(list(ranges.values()))
    return FixedMoments(bounds.mean(axis=1), np.maximum(np.ptp(bounds, axis=1) / np.sqrt(12.0), 1e-3))
