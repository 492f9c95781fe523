"""What candidates of every kind reach on given seeds, and the race between them: the evidence behind one front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import WEIGHTS, BundlePolicy, load_bundle
from rlaas.errors import BundleError, InvalidInputError, check_choice, shown
from rlaas.files import sha256_of
from rlaas.fronts import CandidateKind
from rlaas.objectives import Preference
from rlaas.optimization import Contender, EvidenceArchive, RaceResult, complete, race
from rlaas.pipeline.seeds import seeds_for
from rlaas.scenarios import ConfigurationProblem, Evaluation, EvaluationProtocol, Scenario, evaluate
from rlaas.training import PolicyController

__all__ = ["ContenderEvaluator", "RacePlan", "judged", "policy_contenders"]

FloatArray = NDArray[np.float64]

NETWORK = "weights_sha256"
"""Parameter of a policy: the sha256 of its bundle's weights. It names the network wherever the bundle lies."""

FRESH_WORLDS = 2
"""For each common one, at most: survivors are evaluated in all, and what two make no difference to is a close call."""

AT_ONCE = 8
"""Configurations stepped side by side between two calls of ``advance``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RacePlan:
    """How candidates are told apart.

    Attributes:
        seeds: fresh worlds in the order of their use, on which undecided candidates are evaluated further. Survivors
            are evaluated on all that were used, so that their figures compare; that comes on top of the budget.
        budget: evaluations of one candidate in one world that the race may carry out; None for as many as the common
            seeds took; 0 judges by the common seeds alone.
        confidence: that no candidate is wrongly called dominated, and likewise that none is wrongly called a member.
        tolerance: how much better or worse does not count, in the objectives' ranges.
    """

    seeds: tuple[int, ...] = ()
    budget: int | None = None
    confidence: float = 0.95
    tolerance: float = 0.01

    @classmethod
    def of(cls, protocol: EvaluationProtocol, seed: int, **settings: Any) -> RacePlan:
        """A race in worlds of its own, at most twice as many as the protocol has.

        Args:
            protocol: of the evaluations on the common seeds.
            seed: of the run: the same run races in the same worlds.
            settings: budget, confidence and tolerance, where they are not the default.
        """
        return cls(seeds=seeds_for("race", seed, FRESH_WORLDS * protocol.seeds), **settings)

    def evaluations(self, common: int) -> int:
        """What the race may spend, where the common seeds took ``common`` evaluations."""
        if not self.seeds:
            return 0
        return common if self.budget is None else self.budget


def policy_contenders(
    name: str,
    bundle: Path,
    preferences: Mapping[str, Preference],
    *,
    kind: CandidateKind = "policy",
    parameters: Mapping[str, Any] | None = None,
) -> list[Contender]:
    """A policy at each preference, named ``<name>@<label>``.

    Args:
        name: of the policy.
        bundle: its folder.
        preferences: by label.
        kind: ``policy``, or ``hyperparameters`` for what a configuration of training led to.
        parameters: what else reproduces it, such as the hyper-parameters.

    Raises:
        BundleError: the folder holds no policy.
    """
    network = _network(bundle)
    return [
        Contender(
            name=f"{name}@{label}",
            kind=kind,
            parameters={**(parameters or {}), "preference": preference.to_dict(), NETWORK: network},
        )
        for label, preference in preferences.items()
    ]


class ContenderEvaluator:
    """Evaluates contenders of any kind by one protocol: the ``evaluate`` of a race.

    A ``configuration`` has ``tunable`` and ``values`` (by name) among its parameters; those of one tunable are stepped
    side by side. A ``policy`` and ``hyperparameters`` have ``weights_sha256`` of one of ``bundles``, and a
    ``preference`` (weights by objective) unless the policy takes none. The same contender reaches the same bits on the
    same seed, whatever it is evaluated together with.

    Args:
        scenario: what is controlled.
        protocol: counted steps, warm-up and replicas of each evaluation; its number of seeds does not matter.
        bundles: folders of the policies that contenders may name.
        advance: called with the number of evaluations (of one contender on one seed) whenever some are done.

    Raises:
        BundleError: a folder that holds no policy, or a damaged one.
        InvalidInputError: a policy of another form of the scenario.
    """

    def __init__(
        self,
        scenario: Scenario,
        protocol: EvaluationProtocol,
        bundles: Iterable[Path] = (),
        *,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self._scenario = scenario
        self._protocol = protocol
        self._policies = {_network(folder): _fitting(scenario, folder) for folder in bundles}
        self._advance = advance or (lambda _: None)

    def __call__(self, contenders: Sequence[Contender], seeds: Sequence[int]) -> FloatArray:
        """Objectives in their units [n, n_seeds, n_objectives]; NaN where one is undefined.

        Raises:
            InvalidInputError: as of :meth:`evaluations`.
        """
        values = np.empty((len(contenders), len(seeds), len(self._scenario.objectives)))
        for i, evaluation in enumerate(self.evaluations(contenders, seeds)):
            values[i] = evaluation.values
        return values

    def evaluations(self, contenders: Sequence[Contender], seeds: Sequence[int]) -> list[Evaluation]:
        """What each contender reached on each seed, in their order.

        Raises:
            InvalidInputError: parameters that name no configuration or policy at hand, or seeds that are none; raised
                before anything is simulated.
        """
        protocol = self._protocol
        families: dict[str, dict[int, list[float]]] = {}
        controllers: dict[int, PolicyController] = {}
        for i, contender in enumerate(contenders):
            if contender.kind == "configuration":
                tunable, values = self._configuration(contender)
                families.setdefault(tunable, {})[i] = values
            else:
                controllers[i] = self._controller(contender)
        found: dict[int, Evaluation] = {}
        for tunable, rows in families.items():
            problem = ConfigurationProblem(
                self._scenario,
                tunable,
                seeds,
                protocol.steps,
                warmup=protocol.warmup,
                replicas=protocol.replicas,
            )
            for start in range(0, len(rows), AT_ONCE):
                part = list(rows)[start : start + AT_ONCE]
                found |= zip(part, problem.evaluations([rows[i] for i in part]), strict=True)
                self._advance(len(part) * len(seeds))
        for i, controller in controllers.items():
            found[i] = evaluate(
                self._scenario,
                controller,
                seeds,
                steps=protocol.steps,
                warmup=protocol.warmup,
                replicas=protocol.replicas,
            )
            self._advance(len(seeds))
        return [found[i] for i in range(len(contenders))]

    def _configuration(self, contender: Contender) -> tuple[str, list[float]]:
        """Tunable and values in the order of its parameters, checked."""
        what = f"contender {contender.name!r}"
        tunable: Any = contender.parameters.get("tunable")
        check_choice(tunable, self._scenario.tunables, field=f"tunable of {what}", error=InvalidInputError)
        family = self._scenario.tunables[tunable]
        values = contender.parameters.get("values")
        if not isinstance(values, Mapping) or set(values) != set(family.parameters):
            raise InvalidInputError(
                f"values of {what} must be numbers for {', '.join(family.parameters)}, got {shown(values)}",
                field="values",
            )
        row = [values[name] for name in family.parameters]
        family.controller(row)  # refuses what is out of bounds
        return tunable, row

    def _controller(self, contender: Contender) -> PolicyController:
        what = f"contender {contender.name!r}"
        network: Any = contender.parameters.get(NETWORK)
        check_choice(network, self._policies, field=f"{NETWORK} of {what}", error=InvalidInputError)
        weights = contender.parameters.get("preference")
        preference = None
        if weights is not None:
            preference = Preference.of(self._scenario.objectives, weights, field=f"preference of {what}")
        return PolicyController(self._policies[network], preference)


def judged(
    archive: EvidenceArchive, evaluator: ContenderEvaluator, seeds: Sequence[int], plan: RacePlan | None = None
) -> RaceResult:
    """Where the candidates of an archive stand, with further evaluations where that is undecided.

    The first look takes what the archive holds on the common seeds, and costs nothing; each later one follows as many
    fresh seeds again, of those candidates alone that could still be decided. Survivors are then evaluated on all seeds
    that were used. Without a race there is one look, at the full confidence.

    Args:
        archive: every candidate, evaluated on ``seeds``; gets what the race adds.
        evaluator: carries the race out.
        seeds: the common ones, which did not choose the candidates.
        plan: budget, fresh seeds and confidence; default a single look.

    Raises:
        InvalidInputError: an impossible plan.
    """
    plan = plan or RacePlan()
    budget = plan.evaluations(len(archive) * len(seeds))
    if budget:
        result = race(
            archive,
            evaluator,
            seeds=tuple(dict.fromkeys((*seeds, *plan.seeds))),
            budget=budget,
            seeds_per_round=max(2, len(seeds)),
            confidence=plan.confidence,
            tolerance=plan.tolerance,
        )
        return complete(result, evaluator)
    return RaceResult(
        archive=archive,
        standings=archive.standings(confidence=plan.confidence, tolerance=plan.tolerance),
        seeds=tuple(seeds),
        rounds=0,
        evaluations=0,
        confidence=plan.confidence,
        tolerance=plan.tolerance,
    )


def _network(folder: Path) -> str:
    try:
        return sha256_of(folder / WEIGHTS)
    except OSError as problem:
        raise BundleError(f"{folder.name}: {WEIGHTS} cannot be read: {problem.strerror}", field=WEIGHTS) from problem


def _fitting(scenario: Scenario, folder: Path) -> BundlePolicy:
    """The policy of a bundle.

    Raises:
        InvalidInputError: it observes other features or pursues other objectives than the scenario has.
    """
    policy = load_bundle(folder)
    theirs = (policy.manifest.observation.names, tuple(o.name for o in policy.objectives))
    ours = (scenario.observation_names, tuple(o.name for o in scenario.objectives))
    for what, found, expected in zip(("observes", "pursues"), theirs, ours, strict=True):
        if tuple(found) != tuple(expected):
            raise InvalidInputError(
                f"the policy in {folder.name} {what} {shown(', '.join(found), str)}; {scenario.name} under these "
                f"options has {shown(', '.join(expected), str)}",
                field="bundle",
            )
    return policy
