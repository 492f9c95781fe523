"""One policy for every preference against ten that know one preference each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import CONFIGS, Row
from benchmarks.quality_kit import Cache, Findings, pooled_ratio, trained, trainer, training_seeds
from rlaas.objectives import Objective, Preference, normalise
from rlaas.optimization import front_hypervolume
from rlaas.scenarios import Controller, Scenario, VectorScenarioEnv, evaluate, load
from rlaas.training import PolicyController, TrainingConfig, load_config

__all__ = ["Weighted", "compare", "preferences"]

EVALUATION_SEEDS = tuple(range(80_001, 80_011))
"""Nobody trains on them."""
EACH = 7_500_000
"""Decisions of a specialist: some 105 s of one core."""
SHARE = 0.16
"""Decisions of the one policy, of those of all specialists; a decision of it takes an eighth longer."""
SETTINGS: Mapping[str, Any] = {
    name: value
    for name, value in load_config(CONFIGS / "network5g-ppo.yaml").model_dump(exclude_unset=True).items()
    if name not in ("scenario", "steps", "seed") and not name.startswith("evaluation_")
}
"""As shipped, for the one policy and for the specialists."""


class WeightedEnv(VectorScenarioEnv):
    """The environment of a :class:`Weighted` scenario: the other's, with one reward.

    Attributes:
        ends: episodes that ended in all of these of this process; a step that only resets the row follows each.
    """

    ends: ClassVar[int] = 0

    def __init__(self, scenario: Weighted, num_envs: int, seed: int | Sequence[int]) -> None:
        self._env = scenario.inner.vector_env(num_envs, seed=seed)
        self._weights = scenario.weights
        self.num_envs, self.rows_per_env = self._env.num_envs, self._env.rows_per_env
        self.single_observation_space = self._env.single_observation_space
        self.single_action_space = self._env.single_action_space
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space
        self.metadata = self._env.metadata

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """As the other."""
        return self._env.reset(seed=seed, options=options)

    def step(self, actions: NDArray[Any]) -> Any:
        """As the other, with the weighted sum of its rewards [num_envs, 1]."""
        observation, reward, terminated, truncated, infos = self._env.step(actions)
        WeightedEnv.ends += int((terminated | truncated).sum())
        return observation, (reward * self._weights).sum(axis=1, keepdims=True), terminated, truncated, infos

    def get_state(self) -> dict[str, Any]:
        """The other's."""
        return {"env": self._env.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue the other."""
        self._env.set_state(state["env"])

    def close(self, **kwargs: Any) -> None:
        """Close the other."""
        self._env.close(**kwargs)


class Weighted(Scenario):
    """Another scenario with a single objective: its goodness at one preference.

    Args:
        scenario: name of the other.
        weights: the preference, in the order of its objectives.
        options: of the other.
    """

    name = "weighted"

    def __init__(self, scenario: str, weights: Sequence[float], **options: Any) -> None:
        self.inner = load(scenario, **options)
        self.weights = Preference.of(self.inner.objectives, list(weights)).array()
        self.algorithm = self.inner.algorithm  # type: ignore[misc]
        self.experiment_design = self.inner.experiment_design  # type: ignore[misc]
        self.objectives = (Objective(name="utility", unit="", direction="maximize", low=0.0, high=1.0),)
        self.modes, self.tunables, self.targets = {}, {}, {}
        self.baselines, self.default_baseline = self.inner.baselines, self.inner.default_baseline
        self.primary_mode = ""
        self.part_names, self.observation_names = self.inner.part_names, self.inner.observation_names
        self.single_observation_space = self.inner.single_observation_space
        self.single_action_space = self.inner.single_action_space
        self.masked_actions, self.reference_hash = self.inner.masked_actions, self.inner.reference_hash
        self.options = {"scenario": scenario, "weights": list(weights), **options}

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        """The other's, with one reward."""
        return WeightedEnv(self, num_envs, seed)

    def objective_values(self, numerators: NDArray[Any], denominators: NDArray[Any]) -> NDArray[Any]:
        """Weighted goodness [..., 1]."""
        values = self.inner.objective_values(numerators, denominators)
        return np.asarray(normalise(self.inner.objectives, values) @ self.weights)[..., None]


def preferences(scenario: Scenario) -> list[Preference]:
    """Ten for four objectives: .55 for one and .15 for each other, .35 for two and .15 for the others.

    Corners are left out: whoever gives all for one objective is below the default in another, and adds no volume.
    """
    n = len(scenario.objectives)
    single = [np.full(n, 0.15) + 0.4 * np.eye(n)[i] for i in range(n)]
    pairs = [np.full(n, 0.15) + 0.2 * (np.eye(n)[i] + np.eye(n)[j]) for i in range(n) for j in range(i)]
    return [Preference.of(scenario.objectives, weights) for weights in (*single, *pairs)]


def compare(cache: Cache, *, quick: bool, only: Sequence[int] | None = None) -> Findings:
    """Hypervolume from the default's vector, share of the training time, and the specialists' plateau."""
    seeds, each = training_seeds(2 if quick else 5, only), 20_000 if quick else EACH
    protocol = {"steps": 40, "warmup": 20} if quick else {"steps": 200, "warmup": 50}
    scenario = load("network5g")
    wanted = preferences(scenario)[: 3 if quick else 10]
    # In seconds nobody gets better than the default in everything, which is what its vector asks for.
    default = evaluate(scenario, scenario.baselines["default"].make(), EVALUATION_SEEDS, **protocol).mean()
    reference, origin = (None, "the ranges' worse ends") if quick else (default, "the default's vector")
    allowed = int(SHARE * len(wanted) * each)
    shared, single, share, gains = [], [], [], []
    for seed in seeds:
        one = _one_for_all(cache, scenario, wanted, allowed, seed, protocol)
        own = [_specialist(cache, scenario, preference, each, seed, protocol) for preference in wanted]
        shared.append(front_hypervolume(np.array(one["points"]), scenario.objectives, reference))
        single.append(front_hypervolume(np.array([s["point"] for s in own]), scenario.objectives, reference))
        share.append(one["train_seconds"] / sum(s["train_seconds"] for s in own))
        gains += [s["last_quarter"] - s["third_quarter"] for s in own]
    found = Findings()
    if min(single) <= 0:
        found.notes.append(f"specialists: on some seed none of them is beyond {origin} in everything: no ratio")
        return found
    ratio = pooled_ratio(shared, single)
    what = f"network5g small, {len(wanted)} preferences, {len(seeds)} seeds"
    rival = f"{len(wanted)} specialists, {each:,} decisions each"
    found.rows += [
        Row(
            f"{what}: hypervolume from {origin}, one policy, {allowed:,} decisions",
            "share of the ranges",
            float(np.mean(shared)),
            rival,
            float(np.mean(single)),
        ),
        Row(f"{what}: training time, one policy", "share", float(np.mean(share)), rival, 1.0, better="lower"),
    ]
    rise = f"rose by {np.mean(gains):.4f} (most {np.max(gains):.4f})"
    found.notes += [
        f"specialists: hypervolume of one policy / of {rival}: {ratio}; lower bound wanted .95",
        f"specialists' plateau: mean utility per decision {rise} from the third to the last quarter of their curves",
    ]
    return found


def _vector(scenario: Scenario, controller: Controller, protocol: Mapping[str, int]) -> list[float]:
    return [float(value) for value in evaluate(scenario, controller, EVALUATION_SEEDS, **protocol).mean()]


def _one_for_all(
    cache: Cache,
    scenario: Scenario,
    wanted: Sequence[Preference],
    steps: int,
    seed: int,
    protocol: Mapping[str, int],
) -> dict[str, Any]:
    config = TrainingConfig(scenario="network5g", steps=steps, seed=seed, **SETTINGS)

    def work() -> dict[str, Any]:
        run, policy = trained(config)
        points = [_vector(scenario, PolicyController(policy, preference), protocol) for preference in wanted]
        return {"points": points, "train_seconds": run.metrics["seconds"]}

    settings = {"config": config.model_dump(mode="json"), "preferences": [p.weights for p in wanted], **protocol}
    settings |= {"seeds": EVALUATION_SEEDS, "reference": scenario.reference_hash, **trainer()}
    return cache.result(f"specialists-one-{seed}", settings, work)


def _specialist(
    cache: Cache, scenario: Scenario, preference: Preference, steps: int, seed: int, protocol: Mapping[str, int]
) -> dict[str, Any]:
    config = TrainingConfig(
        scenario="benchmarks.quality_specialists:Weighted",
        options={"scenario": "network5g", "weights": list(preference.weights)},
        steps=steps,
        seed=seed,
        **SETTINGS,
    )

    def work() -> dict[str, Any]:
        run, policy = trained(config)
        curve = np.array([row["reward"] for row in run.curve])
        quarter = max(1, len(curve) // 4)
        return {
            "point": _vector(scenario, PolicyController(policy), protocol),
            "train_seconds": run.metrics["seconds"],
            "third_quarter": float(curve[-2 * quarter : -quarter].mean()) if len(curve) > 1 else float(curve[-1]),
            "last_quarter": float(curve[-quarter:].mean()),
        }

    settings = {"config": config.model_dump(mode="json"), "seeds": EVALUATION_SEEDS, **protocol}
    settings |= {"reference": scenario.reference_hash, **trainer()}
    label = "-".join(f"{weight:.2f}".lstrip("0") for weight in preference.weights)
    return cache.result(f"specialists-{label}-{seed}", settings, work)
