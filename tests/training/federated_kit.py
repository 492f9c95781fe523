"""Small federations of toys."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from training_toys import DiscreteToy, ToyEnv

from rlaas.scenarios import VectorScenarioEnv
from rlaas.training.federated import FederationConfig
from rlaas.training.federated.coordinator import Coordinator
from rlaas.training.federated.roster import Answers, Deadline, Roster
from rlaas.training.federated.site import Site
from rlaas.training.federated.template import Template

PPO: dict[str, Any] = {
    "scenario": "training_toys:DiscreteToy",
    "seed": 4,
    "num_envs": 8,
    "hidden": (16, 16),
    "gamma": 0.5,
    "ppo": {"rollout_length": 16, "minibatch": 64},
}
SAC: dict[str, Any] = {
    "scenario": "training_toys:Toy",
    "seed": 4,
    "num_envs": 8,
    "hidden": (16, 16),
    "gamma": 0.5,
    "batch_size": 64,
    "sac": {"learning_starts": 256, "updates_per_step": 0.1, "head_start": 10},
}


def federation(training: dict[str, Any] | None = None, count: int = 3, **changes: Any) -> FederationConfig:
    """A federation of ``count`` toys with episodes of different lengths."""
    names = ("north", "centre", "south", "west", "east")[:count]
    values: dict[str, Any] = {
        "name": "toys",
        "training": training or PPO,
        "sites": [{"name": n, "cpus": 0.1, "options": {"length": 10 + 5 * i}} for i, n in enumerate(names)],
        "rounds": 2,
        "decisions": 256,
        "start_s": 200.0,
        "keep_site_state": False,
    }
    return FederationConfig(**{**values, **changes})


class MoodyToy(DiscreteToy):
    """Does what the file ``mood`` says, if there is one: ``slow`` waits until it is gone, ``fail`` raises."""

    name = "toy-moody"

    def __init__(self, mood: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.mood = Path(mood)

    def vector_env(self, num_envs: int, seed: int | Sequence[int] = 0) -> VectorScenarioEnv:
        return _MoodyEnv(self, num_envs, seed)


class _MoodyEnv(ToyEnv):
    def step(self, actions: Any) -> Any:
        mood = self.scenario.mood
        while mood.is_file() and mood.read_text() == "slow":
            time.sleep(0.05)
        if mood.is_file() and mood.read_text() == "fail":
            raise RuntimeError("in a mood")
        return super().step(actions)


class LocalRoster(Roster):
    """The sites in this process: the same questions and answers, without the seconds that a process takes to start."""

    def open(self, finished: int) -> Answers:
        """Start all sites that are not there."""
        for site in self._config.sites:
            if site.name not in self._actors:
                self._actors[site.name] = Site(self._document, site.name, self._own_folder(site))
                self._actors[site.name].start(finished)
                self._started.add(site.name)
        return Answers()

    def ask_each(self, arguments: Mapping[str, tuple[Any, ...]], method: str, deadline: Deadline) -> Answers:
        """Ask one after the other."""
        answers = Answers()
        for name, given in arguments.items():
            local = [ray.get(value) if isinstance(value, ray.ObjectRef) else value for value in given]
            answers.values[name] = getattr(self._actors[name], method)(*local)
        return answers

    def close(self) -> None:
        """Stop all sites."""
        for site in self._actors.values():
            site.stop()


def run_locally(config: FederationConfig, folder: Path) -> Coordinator:
    """Run a federation with all sites in this process; returns its coordinator after the last round."""
    template = Template(config)
    coordinator = Coordinator(config, folder, template)
    coordinator.roster = LocalRoster(config, folder, template.layout)
    try:
        coordinator.run()
    finally:
        template.stop()
    return coordinator
