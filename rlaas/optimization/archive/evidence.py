"""One archive for everything: candidates of any kind with their evaluations on common seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, UnknownNameError, shown
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective, to_minimisation
from rlaas.optimization.archive.contenders import Contender, check_confidence, check_seeds, check_tolerance
from rlaas.optimization.archive.dominance import Comparison, compare
from rlaas.optimization.archive.judging import Judge, Standing

__all__ = ["EvidenceArchive"]

FloatArray = NDArray[np.float64]

INTERVAL = 0.95
"""Level of a candidate's half width."""

LARGEST = 1e100
"""Ranges that an evaluation may lie away from 0: squares of differences beyond 1e154 would overflow."""

REPEATABLE = 1e-9
"""Ranges by which two evaluations of one candidate on one seed may differ: what batching does to a sum."""


@dataclass(slots=True, kw_only=True)
class _Evidence:
    contender: Contender
    values: dict[int, FloatArray] = field(default_factory=dict)


class EvidenceArchive:
    """Candidates of one scenario with the objectives that they reached on each seed.

    Policies at preferences, configurations and hyper-parameters stand side by side, and what is known of each grows:
    samples are added as they come, on any seeds, best on the same for all. From them come means with Student intervals,
    comparisons of pairs, the standing of all, and the front.

    Args:
        scenario: name of the scenario.
        objectives: its objectives, in the order of the columns; at least one, with different names.
        reference_hash: of the scenario's frozen reference, passed on to the front.

    Raises:
        ConfigurationError: no objective, or a name that occurs twice.
    """

    def __init__(self, scenario: str, objectives: Sequence[Objective], *, reference_hash: str = "") -> None:
        self.scenario = scenario
        self.objectives = tuple(objectives)
        self.reference_hash = reference_hash
        if not self.objectives or len({o.name for o in self.objectives}) < len(self.objectives):
            raise ConfigurationError(
                "an archive needs at least one objective, each with a name of its own, "
                f"got {', '.join(o.name for o in self.objectives) or '(none)'}",
                field="objectives",
            )
        self._spans = np.array([o.high - o.low for o in self.objectives])
        self._evidence: dict[str, _Evidence] = {}

    def __len__(self) -> int:
        return len(self._evidence)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the contenders, in the order in which they came."""
        return tuple(self._evidence)

    def contender(self, name: str) -> Contender:
        """The contender of that name.

        Raises:
            UnknownNameError: there is none.
        """
        return self._of(name).contender

    def add(self, contender: Contender, seeds: Sequence[int] = (), values: ArrayLike | None = None) -> None:
        """Take in a contender, or more evaluations of one.

        Args:
            contender: new, or equal to the one of its name.
            seeds: of the evaluations, whole numbers >= 0, each once; none to only enter the contender.
            values: objectives in their units [n_seeds, n_objectives]. A row with a NaN is an evaluation that failed: it
                is left out.

        Raises:
            ConflictError: another contender of that name, or another result on a seed that was evaluated before.
            InvalidInputError: seeds or values that do not fit; nothing was changed.
        """
        known = self._evidence.get(contender.name)
        if known is not None and known.contender != contender:
            raise ConflictError(
                f"contender {contender.name!r} is in the archive with another kind or other parameters", field="name"
            )
        rows = self._checked(contender.name, seeds, values)
        if known is not None:
            for seed, row in rows.items():
                if seed in known.values and (np.abs(row - known.values[seed]) > REPEATABLE * self._spans).any():
                    raise ConflictError(
                        f"{contender.name!r} has {known.values[seed].tolist()} on seed {seed}, now {row.tolist()}; "
                        "a candidate must reach the same on the same seed",
                        field="values",
                    )
        evidence = self._evidence.setdefault(contender.name, _Evidence(contender=contender))
        for seed, row in rows.items():
            evidence.values.setdefault(seed, row)

    def samples(self, name: str) -> tuple[tuple[int, ...], FloatArray]:
        """Seeds and objectives in their units [n_seeds, n_objectives] of the contender's evaluations.

        Raises:
            UnknownNameError: no contender of that name.
        """
        values = self._of(name).values
        return tuple(values), np.array(list(values.values())).reshape(len(values), len(self.objectives))

    def table(self, names: Sequence[str], seeds: Sequence[int]) -> FloatArray:
        """Objectives in ranges, smaller is better [n_names, n_seeds, n_objectives]; NaN where there is no evaluation.

        Raises:
            UnknownNameError: no contender of one of the names.
        """
        table = np.full((len(names), len(seeds), len(self.objectives)), np.nan)
        for i, name in enumerate(names):
            values = self._of(name).values
            columns = [j for j, seed in enumerate(seeds) if seed in values]
            if columns:
                table[i, columns] = [values[seeds[j]] for j in columns]
        return np.asarray(to_minimisation(self.objectives, table) / self._spans)

    def missing(self, names: Sequence[str], seeds: Sequence[int]) -> int:
        """How many evaluations of the named contenders on the seeds there are not.

        Raises:
            UnknownNameError: no contender of one of the names.
        """
        return sum(seed not in self._of(name).values for name in names for seed in seeds)

    def compare(self, first: str, second: str, *, confidence: float = 0.95, tolerance: float = 0.0) -> Comparison:
        """What the evaluations say about two contenders, taken by themselves (no correction for other pairs).

        Args:
            first, second: their names.
            confidence: that a claim is right, in (0, 1).
            tolerance: how much better or worse does not count, in ranges, >= 0.

        Raises:
            UnknownNameError: no contender of one of the names.
            InvalidInputError: an impossible confidence or tolerance.
        """
        alpha = 1.0 - check_confidence(confidence)
        table = self.table((first, second), self._seeds((first, second)))
        return compare(table[0], table[1], alpha=alpha, tolerance=check_tolerance(tolerance))

    def standings(self, *, confidence: float = 0.95, tolerance: float = 0.0) -> tuple[Standing, ...]:
        """Where all contenders stand by the evaluations so far, corrected for all pairs.

        Valid for one look at evaluations whose number was fixed beforehand; :func:`rlaas.optimization.archive.race`
        is for looking while they grow.

        Args:
            confidence, tolerance: as in :meth:`compare`.

        Raises:
            InvalidInputError: an impossible confidence or tolerance.
        """
        alpha = 1.0 - check_confidence(confidence)
        judge = Judge(len(self), alpha=alpha, tolerance=check_tolerance(tolerance))
        judge.look(self.table(self.names, self._seeds(self.names)))
        return judge.standings(self.names, [len(e.values) for e in self._evidence.values()])

    def candidate(self, name: str, seeds: Sequence[int] | None = None) -> Candidate:
        """The contender as a candidate: its mean, and the half width of the mean's 95 % Student interval.

        Args:
            name: of the contender.
            seeds: the evaluations to use; default all that it has.

        Raises:
            UnknownNameError: no contender of that name.
            InvalidInputError: no evaluation, or none on one of the seeds.
        """
        from scipy.special import stdtrit

        evidence = self._of(name)
        wanted = tuple(evidence.values) if seeds is None else tuple(seeds)
        missing = [seed for seed in wanted if seed not in evidence.values]
        if missing or not wanted:
            what = f"on seeds {missing}" if missing else "yet"
            raise InvalidInputError(f"{name!r} has no evaluation {what}", field="seeds")
        values = np.array([evidence.values[seed] for seed in wanted])
        n = len(values)
        half_width = np.full(values.shape[1], np.inf)
        if n > 1:
            half_width = stdtrit(n - 1, 0.5 + INTERVAL / 2) * values.std(axis=0, ddof=1) / np.sqrt(n)
        return Candidate(
            name=name,
            kind=evidence.contender.kind,
            mean=tuple(values.mean(axis=0).tolist()),
            half_width=tuple(half_width.tolist()),
            seeds=wanted,
            parameters=evidence.contender.parameters,
        )

    def front(self, names: Sequence[str] | None = None) -> Front:
        """The front, by means over the seeds that all its contenders share: means over other seeds do not compare.

        Args:
            names: contenders to take; default all.

        Raises:
            UnknownNameError: no contender of one of the names.
            InvalidInputError: no contender, or no seed on which all of them were evaluated.
        """
        chosen = self.names if names is None else tuple(names)
        if not chosen:
            raise InvalidInputError("a front needs at least one candidate", field="names")
        every = [self._of(name).values for name in chosen]
        common = [seed for seed in every[0] if all(seed in values for values in every)]
        if not common:
            raise InvalidInputError(
                f"there is no seed on which all of {len(chosen)} candidates were evaluated, so their means do not "
                "compare; evaluate them on common seeds",
                field="seeds",
            )
        members = [self.candidate(name, common) for name in chosen]
        return Front.of(self.scenario, self.objectives, members, reference_hash=self.reference_hash)

    def _of(self, name: str) -> _Evidence:
        if name not in self._evidence:
            raise UnknownNameError(
                f"no contender {shown(name)} in the archive of {self.scenario}; it has {len(self)}, "
                f"{shown(', '.join(self._evidence) or 'none', str)}",
                field="name",
            )
        return self._evidence[name]

    def _seeds(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for name in names for seed in self._of(name).values))

    def _checked(self, name: str, seeds: Sequence[int], values: ArrayLike | None) -> dict[int, FloatArray]:
        """Rows by seed, failed evaluations left out."""
        numbers = check_seeds(seeds)
        try:
            rows = np.empty((0, len(self.objectives))) if values is None else np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as problem:
            raise InvalidInputError(f"values of {name!r} must be numbers: {problem}", field="values") from problem
        expected = (len(numbers), len(self.objectives))
        if rows.shape != expected:
            raise InvalidInputError(
                f"values of {name!r} have shape {rows.shape}; expected {expected}, a row for each seed and a column "
                f"for each of {', '.join(o.name for o in self.objectives)}",
                field="values",
            )
        with np.errstate(over="ignore"):
            too_far = (np.abs(rows / self._spans) > LARGEST).any()
        if too_far:
            raise InvalidInputError(
                f"values of {name!r} must lie within {LARGEST:g} ranges of 0, or be NaN where an evaluation failed",
                field="values",
            )
        return {seed: row for seed, row in zip(numbers, rows, strict=True) if not np.isnan(row).any()}
