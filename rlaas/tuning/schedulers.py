"""The schedulers: who decides whether a trial goes on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rlaas.tuning.config import Asha, Pbt, TuningConfig
from rlaas.tuning.space import Choice, domains, within

__all__ = ["build_scheduler"]

_AGE = "training_iteration"


def build_scheduler(config: TuningConfig, metric: str, mode: str) -> Any:
    """The Ray Tune scheduler of ``config``.

    Args:
        config: the search.
        metric: figure that trials are compared by.
        mode: ``max`` or ``min``.
    """
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, PopulationBasedTraining

    chosen = config.scheduler
    if isinstance(chosen, Asha):
        return AsyncHyperBandScheduler(
            time_attr=_AGE,
            metric=metric,
            mode=mode,
            max_t=config.reports,
            grace_period=chosen.grace,
            reduction_factor=chosen.reduction,
        )
    if isinstance(chosen, Pbt):
        return PopulationBasedTraining(
            time_attr=_AGE,
            metric=metric,
            mode=mode,
            perturbation_interval=chosen.interval,
            quantile_fraction=chosen.quantile,
            resample_probability=chosen.resample,
            hyperparam_mutations={"point": _mutations(config.space)},
            # Tune multiplies by 0.8 or 1.2 without a look at the range: a discount factor would leave [0, 1).
            custom_explore_fn=partial(_stay_within, dict(config.space)),
            log_config=False,
        )
    return FIFOScheduler()


def _mutations(space: Mapping[str, Any]) -> dict[str, Any]:
    """Choices as lists, through which Tune moves to a neighbour; numbers as domains, which it scales."""
    drawn = domains(space)
    return {name: p.labels() if isinstance(p, Choice) else drawn[name] for name, p in space.items()}


def _stay_within(space: Mapping[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "point": within(space, config["point"])}
