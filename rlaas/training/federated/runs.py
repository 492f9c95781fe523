"""A federation from start to finish: rounds, export, evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaas.registry import Store, git_commit
from rlaas.settings import Settings
from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.coordinator import Coordinator, OnPhase
from rlaas.training.federated.results import FederationRun, RoundResult
from rlaas.training.federated.template import Template, front_figures
from rlaas.training.federated.tracking import Tracker
from rlaas.training.front_evaluation import evaluate_front, with_default

__all__ = ["federate", "final_figures"]

Progress = Callable[[int, int, dict[str, float]], None]


def federate(
    config: FederationConfig,
    *,
    output: Path,
    settings: Settings | None = None,
    progress: Progress | None = None,
    on_phase: OnPhase | None = None,
) -> FederationRun:
    """Train one policy at several sites; Ray has to be running.

    Args:
        config: the federation.
        output: folder for ``bundle/`` and a checkpoint per round. One that holds checkpoints of the same configuration
            is continued after the last finished round.
        settings: names the MLflow store that the rounds are logged to; None logs nothing. The run is left open for
            whoever registers the bundle; :class:`Tracker` closes it.
        progress: called after every round with the rounds done, those wanted, and the round's figures.
        on_phase: see :class:`Coordinator`.

    Raises:
        ConfigurationError: the configuration cannot work; raised before any site trains.
        ConflictError: ``output`` holds another federation.
        TrainingError: a round failed too often. The same call goes on from the round before.
    """
    output = Path(output).absolute()
    template = Template(config)

    def open_tracker(run_id: str | None) -> Tracker:
        assert settings is not None
        return Tracker(Store(settings), config.name, run_id, _params(config))

    def advance(result: RoundResult) -> None:
        if progress is not None:
            progress(result.number, config.rounds, {"sites": float(len(result.sites)), **result.losses})

    coordinator: Coordinator | None = None
    try:
        coordinator = Coordinator(
            config, output, template, open_tracker=open_tracker if settings is not None else None, on_phase=on_phase
        )
        coordinator.run(advance)
        bundle = template.export(coordinator.model, output / "bundle", _lineage(config, coordinator))
    except BaseException:
        if coordinator is not None and coordinator.tracker is not None:
            coordinator.tracker.close(failed=True)
        raise
    finally:
        template.stop()
    evaluated = None
    if config.training.evaluation_seeds:
        evaluated = evaluate_front(template.scenario, bundle, config.training)
        evaluated = with_default(template.scenario, evaluated, config.training)
    return FederationRun(
        scenario=template.scenario.name,
        bundle=bundle,
        rounds=coordinator.state.rounds,
        stopped=coordinator.stopped,
        front=None if evaluated is None else evaluated.front,
        mlflow_run_id=coordinator.state.run_id,
    )


def final_figures(run: FederationRun, config: FederationConfig) -> dict[str, float]:
    """Figures of a whole federation, for its run and its policy version."""
    figures = {
        "rounds": float(len(run.rounds)),
        "decisions": sum(result.decisions for result in run.rounds),
        "seconds": sum(result.seconds for result in run.rounds),
    }
    last = run.rounds[-1] if run.rounds else None
    if last is not None and last.epsilon is not None and last.delta is not None:
        figures |= {"epsilon": last.epsilon, "delta": last.delta}
    if run.front is not None:
        figures |= front_figures(run.front, config.training.evaluation_preferences)
    return figures


def _params(config: FederationConfig) -> dict[str, Any]:
    return {
        "kind": "federation",
        "scenario": config.training.problem_name,
        "method": config.method,
        "mu": config.mu if config.method == "fedprox" else 0.0,
        "share": config.share,
        "sites": ", ".join(site.name for site in config.sites),
        "rounds": config.rounds,
        "decisions": config.decisions,
        "secure": config.secure is not None,
        "threshold": config.threshold if config.secure is not None else 0,
        "private": config.privacy is not None,
    }


def _lineage(config: FederationConfig, coordinator: Coordinator) -> dict[str, Any]:
    from rlaas import __version__

    privacy = config.privacy
    return {
        "seed": config.training.seed,
        "git_commit": git_commit(Path(__file__).parent),
        "rlaas": __version__,
        "config": config.training.model_dump(mode="json"),
        "federation": {
            "name": config.name,
            "method": config.method,
            "share": config.share,
            "sites": [site.name for site in config.sites],
            "rounds": coordinator.state.finished,
            "secure_threshold": config.threshold if config.secure is not None else None,
            "privacy_unit": None if privacy is None else "site",
            "epsilon": coordinator.epsilon,
            "delta": None if privacy is None else privacy.delta,
            "stopped": coordinator.stopped,
        },
    }
