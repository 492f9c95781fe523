"""Rounds: invite the sites, let them train, average what they send, keep it, and go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from rlaas.errors import TrainingError
from rlaas.training.federated.averaging import Average, average_masked, average_noised, average_plain
from rlaas.training.federated.checkpoints import FederationState, load_newest, write_state
from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.exchange import Exchange, TooFewSitesError
from rlaas.training.federated.fixed_point import from_wide, to_wide
from rlaas.training.federated.privacy import NoisePlan, epsilon_of, plan_noise
from rlaas.training.federated.results import RoundResult
from rlaas.training.federated.roster import Deadline, Roster
from rlaas.training.federated.state import GlobalModel, moments_of, sums_of
from rlaas.training.federated.template import Template
from rlaas.training.federated.tracking import Tracker

__all__ = ["Coordinator"]

OnRound = Callable[[RoundResult], None]
OnPhase = Callable[[int, str], None]


class Coordinator:
    """Runs a federation's rounds. Of a site it sees one vector per round, masked if so configured.

    Args:
        config: the federation.
        folder: for its checkpoints; one that holds some is continued.
        template: the untrained algorithm.
        open_tracker: makes the tracker, given the id of an earlier run; None logs nothing.
        on_phase: told the round and its step: ``invited``, ``trained``, those of :class:`Exchange`, ``averaged``.

    Raises:
        ConflictError: the folder holds another federation.
    """

    def __init__(
        self,
        config: FederationConfig,
        folder: Path,
        template: Template,
        *,
        open_tracker: Callable[[str | None], Tracker] | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        self.config, self.folder, self._template = config, folder, template
        self._on_phase: OnPhase = on_phase or (lambda _round, _phase: None)
        self._digest = config.digest()
        self.noise = _noise_of(config, template.layout.size)
        loaded = load_newest(folder, self._digest)
        self.state = _first_state(template) if loaded is None else loaded
        self.stopped: str | None = None
        self.tracker: Tracker | None = None
        if open_tracker is not None:
            self.tracker = open_tracker(self.state.run_id)
            self.state = replace(self.state, run_id=self.tracker.run_id)
            self.tracker.catch_up(self.state.rounds)
        # Round 0, so that a federation killed in its first round goes on in the same MLflow run.
        if loaded is None:
            write_state(folder, self.state, self._digest)
        self.roster = Roster(config, folder, template.layout)

    @property
    def model(self) -> GlobalModel:
        """The global model as it is now."""
        if self._template.fixed is not None:
            moments = self._template.fixed.get_state()
        else:
            moments = moments_of([from_wide(value) for value in self.state.moments])
        return GlobalModel(self.state.parameters, self.state.scales, moments)

    @property
    def epsilon(self) -> float | None:
        """Privacy spent so far, or None without privacy."""
        return None if self.config.privacy is None else epsilon_of(self.state.rho, self.config.privacy.delta)

    def run(self, on_round: OnRound | None = None) -> None:
        """Do the rounds that are left.

        Args:
            on_round: called after each round, once it is on disk.

        Raises:
            ConfigurationError: a site cannot work, or does not fit the others.
            TrainingError: a round failed as often as ``attempts`` allows; the model of the round before is on disk.
        """
        try:
            while self.state.finished < self.config.rounds and self.stopped is None:
                result = self._round(self.state.finished + 1)
                if result is not None and on_round is not None:
                    on_round(result)
        finally:
            self.roster.close()

    def _round(self, number: int) -> RoundResult | None:
        began, started = time.time(), time.perf_counter()
        failures: list[str] = []
        for attempt in range(1, self.config.attempts + 1):
            if self._would_exceed_budget():
                return None
            missing: dict[str, str] = {}
            try:
                average, sites = self._attempt(number, missing)
            except TooFewSitesError as problem:
                failures.append(f"{problem.message} ({_reasons(missing)})")
                continue
            return self._finish(number, attempt, average, sites, missing, failures, began, started)
        raise TrainingError(
            f"round {number} failed {self.config.attempts} times, the last time because {failures[-1]}; "
            f"the model of round {self.state.finished} is unchanged in {self.folder}",
            field="min_sites",
        )

    def _attempt(self, number: int, missing: dict[str, str]) -> tuple[Average, list[str]]:
        """Train at every site that can be reached, and average.

        Raises:
            TooFewSitesError: fewer than ``min_sites`` are left.
        """
        config, before = self.config, self.state
        missing.update({n: f"start: {r}" for n, r in self.roster.open(before.finished).missing.items()})
        self._on_phase(number, "invited")
        model = ray.put(self.model)
        trained = self.roster.ask(self.roster.present, "train", Deadline(config.deadline_s), model)
        missing.update({name: f"training: {reason}" for name, reason in trained.missing.items()})
        self._on_phase(number, "trained")
        if len(trained.values) < config.fewest_sites:
            raise TooFewSitesError(f"{len(trained.values)} sites trained, {config.fewest_sites} are needed")
        if config.secure is None:
            sent = self.roster.ask(trained.values, "plain_update", Deadline(config.answer_s))
            missing.update({name: f"update: {reason}" for name, reason in sent.missing.items()})
            if len(sent.values) < config.fewest_sites:
                raise TooFewSitesError(f"{len(sent.values)} sites sent an update, {config.fewest_sites} are needed")
            # Sums of doubles depend on their order.
            updates = {name: sent.values[name] for name in self.roster.present if name in sent.values}
            return average_plain(updates, self._template.layout), list(updates)

        exchange = Exchange(config, self.roster, missing, lambda phase: self._on_phase(number, phase))
        total = exchange.total(trained.values, self.noise, self._charge)
        if self.noise is not None:
            average = average_noised(total.vector, len(total.sites), before.parameters, self.noise)
        else:
            average = average_masked(total.vector, len(total.sites), before.parameters, self._template.layout, config)
        return average, [site.name for site in config.sites if site.name in total.sites]

    def _charge(self) -> None:
        """Enter a round's privacy loss on disk before the sum can become known, whatever happens then."""
        if self.noise is not None:
            self.state = replace(self.state, rho=self.state.rho + self.noise.rho)
            write_state(self.folder, self.state, self._digest)

    def _finish(
        self,
        number: int,
        attempt: int,
        average: Average,
        sites: list[str],
        missing: dict[str, str],
        failures: list[str],
        began: float,
        started: float,
    ) -> RoundResult:
        """Take over the average, let the sites keep their own state, and write everything down."""
        moved = _distance(average.parameters, self.state.parameters)
        if not np.isfinite(moved):
            raise TrainingError(f"round {number} gave parameters that are not finite", field="parameters")
        self.state = replace(self.state, parameters=average.parameters, **self._taken_over(average))
        self._on_phase(number, "averaged")
        evaluate = self.config.evaluate_every and number % self.config.evaluate_every == 0
        result = RoundResult(
            number=number,
            attempt=attempt,
            sites=tuple(sites),
            # A site that answered in an early step and not in a late one may still be in the sum.
            left_out={name: reason for name, reason in missing.items() if name not in sites},
            failures=tuple(failures),
            weights=average.weights,
            decisions=0.0 if average.sums is None else float(average.sums.decisions),
            losses={} if average.sums is None else _losses(self._template.layout.losses, average.sums.losses),
            moved=moved,
            rounding=average.rounding,
            epsilon=self.epsilon,
            delta=None if self.config.privacy is None else self.config.privacy.delta,
            noise=0.0 if self.noise is None else self.noise.total / len(sites),
            evaluation=self._template.evaluate(self.model) if evaluate else {},
            seconds=time.perf_counter() - started,
            began=began,
        )
        self.state = replace(self.state, rounds=(*self.state.rounds, result))
        if self.config.keep_site_state:
            # Before the federation's own checkpoint: the sites keep the one before this as well.
            self.roster.ask(sites, "save", Deadline(self.config.answer_s), number)
        write_state(self.folder, self.state, self._digest)
        if self.tracker is not None:
            self.tracker.log(result)
        return result

    def _taken_over(self, average: Average) -> Mapping[str, Any]:
        """Moments with the round's observations, and the scales once there are some."""
        sums = average.sums
        if sums is None:
            return {}
        scales = self.state.scales
        if scales is None and self._template.layout.scales and sums.scales[0] > 0:
            scales = np.array([float(value / sums.scales[0]) for value in sums.scales[1:]], dtype=np.float32)
        moments = self.state.moments
        if self._template.fixed is None:
            moments = tuple(a + to_wide(b) for a, b in zip(moments, sums.moments, strict=True))
        return {"scales": scales, "moments": moments}

    def _would_exceed_budget(self) -> bool:
        privacy = self.config.privacy
        if privacy is None or self.noise is None:
            return False
        after = epsilon_of(self.state.rho + self.noise.rho, privacy.delta)
        if after <= privacy.epsilon:
            return False
        self.stopped = (
            f"privacy budget: epsilon {self.epsilon:.4g} of {privacy.epsilon:g} is spent at delta {privacy.delta:g}, "
            f"and another round would make it {after:.4g}"
        )
        return True


def _first_state(template: Template) -> FederationState:
    nothing = tuple(to_wide(value) for value in sums_of(moments_of([0] * (1 + 2 * len(template.layout.features)))))  # type: ignore[list-item]
    return FederationState(
        parameters=template.parameters(), scales=None, moments=nothing, rho=0.0, rounds=(), run_id=None
    )


def _noise_of(config: FederationConfig, size: int) -> NoisePlan | None:
    if config.privacy is None:
        return None
    return plan_noise(
        clip=config.privacy.clip,
        multiplier=config.privacy.noise_multiplier,
        size=size,
        honest=config.fewest_sites - config.privacy.colluding,
    )


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64)))


def _losses(names: tuple[str, ...], sums: tuple[Any, ...]) -> dict[str, float]:
    pairs = zip(names, sums[::2], sums[1::2], strict=True)
    return {name: float(total / count) for name, count, total in pairs if count > 0}


def _reasons(missing: Mapping[str, str]) -> str:
    # Sorted: they come in as the answers do, which differs from run to run.
    return "; ".join(f"{name}: {reason}" for name, reason in sorted(missing.items())) or "no site was left out"
