"""What is refused before a search starts: everything that a file alone cannot tell."""

from __future__ import annotations

from rlaas.errors import ConfigurationError
from rlaas.scenarios import Scenario
from rlaas.training.runs import check_training
from rlaas.tuning.config import Asha, TuningConfig
from rlaas.tuning.figures import direction_of, is_evaluated
from rlaas.tuning.space import extremes, with_values

__all__ = ["Aim", "check_tuning"]


class Aim:
    """What a search improves on its scenario.

    Attributes:
        metrics: of the objectives.
        directions: ``maximize`` or ``minimize`` for each.
        ranked_by: the metric that schedulers compare trials by.
        ranked: ``max`` or ``min``.
        reported: everything a trial has to report for it.
    """

    def __init__(self, config: TuningConfig, scenario: Scenario) -> None:
        self.metrics = tuple(objective.metric for objective in config.objectives)
        self.directions = tuple(o.direction or direction_of(o.metric, scenario) for o in config.objectives)
        named = config.scheduler.metric if isinstance(config.scheduler, Asha) else None
        self.ranked_by = named or self.metrics[0]
        own = dict(zip(self.metrics, self.directions, strict=True))
        self.ranked = _mode(own.get(self.ranked_by) or direction_of(self.ranked_by, scenario, "scheduler.metric"))
        self.reported = tuple(dict.fromkeys((*self.metrics, self.ranked_by)))

    @property
    def modes(self) -> tuple[str, ...]:
        """``max`` or ``min`` for each objective."""
        return tuple(_mode(direction) for direction in self.directions)


def _mode(direction: str) -> str:
    return "max" if direction == "maximize" else "min"


def check_tuning(config: TuningConfig) -> tuple[Scenario, Aim]:
    """Refuse a search that cannot work.

    Raises:
        ConfigurationError: an unknown scenario or metric, a figure without evaluation seeds, or a value in the space
            that the problem rules out; names the key.
    """
    scenario, _ = check_training(config.training)
    for objective in config.objectives:
        direction_of(objective.metric, scenario)  # whatever the file says of its direction
    aim = Aim(config, scenario)
    judged = next((metric for metric in aim.reported if is_evaluated(metric)), None)
    if judged is not None and not config.training.evaluation_seeds:
        raise ConfigurationError(
            f"training.evaluation_seeds is empty, but {judged} is measured on them; give some, "
            "or search by training_reward",
            field="training.evaluation_seeds",
        )
    for name, value in extremes(config.space):
        try:
            check_training(with_values(config.training, {name: value}))
        except ConfigurationError as problem:
            raise ConfigurationError(f"space.{name} {value}: {problem.message}", field=f"space.{name}") from problem
    return scenario, aim
