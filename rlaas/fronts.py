"""Candidates and fronts: what searches and trainers produce and resolvers choose from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, check_choice, shown
from rlaas.objectives import Objective, to_minimisation

__all__ = ["CANDIDATE_KINDS", "Candidate", "CandidateKind", "Front", "non_dominated"]

CandidateKind = Literal["policy", "configuration", "hyperparameters"]
CANDIDATE_KINDS: tuple[str, ...] = get_args(CandidateKind)
FloatArray = NDArray[np.float64]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One member of a front: a policy at one preference, a configuration, or hyper-parameters of a training.

    Attributes:
        name: unique within its front.
        kind: ``policy``, ``configuration`` or ``hyperparameters``.
        mean: objective values in their units [n_objectives], averaged over seeds.
        half_width: half width of the 95 % confidence interval of ``mean`` [n_objectives]; infinite where one seed
            leaves it unknown.
        seeds: evaluation seeds behind ``mean``.
        parameters: what reproduces it: a preference by objective, or a configuration or hyper-parameters by
            name and values.
    """

    name: str
    kind: CandidateKind
    mean: tuple[float, ...]
    half_width: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(self.kind, CANDIDATE_KINDS, field="candidate kind")
        if len(self.mean) != len(self.half_width):
            raise InvalidInputError(
                f"candidate {self.name!r}: {len(self.mean)} means but {len(self.half_width)} half widths",
                field="half_width",
            )
        for position, value in enumerate(self.mean):
            if not _finite(value):
                raise InvalidInputError(
                    f"candidate {self.name!r} has a non-finite objective: mean[{position}] must be a finite number, "
                    f"got {shown(value)}",
                    field="mean",
                )

    def objectives(self, names: Sequence[str]) -> dict[str, float]:
        """Mean values by objective name."""
        return dict(zip(names, self.mean, strict=True))


def _finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def non_dominated(points: FloatArray) -> NDArray[np.bool_]:
    """Mask [n] of the points [n, m] (smaller is better) that no other point dominates.

    Of exact duplicates the first is kept. Costs O(n log n) up to 3 objectives and O(n log^(m-2) n) beyond (Kung,
    Luccio & Preparata 1975, by moocore).
    """
    import moocore

    return np.asarray(moocore.is_nondominated(np.asarray(points, dtype=np.float64), keep_weakly=False), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """The non-dominated candidates of a scenario.

    Build it with :meth:`of`, which drops dominated candidates.

    Attributes:
        scenario: name.
        objectives: columns of every mean.
        candidates: the members.
        reference_hash: of the scenario's frozen reference.
        default: what the scenario's default reaches in each objective, in its unit, on the seeds of the candidates
            [n_objectives]: what stays where nothing is chosen. None where nobody looked.
    """

    scenario: str
    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    reference_hash: str = ""
    default: tuple[float, ...] | None = None

    @classmethod
    def of(
        cls, scenario: str, objectives: Sequence[Objective], candidates: Iterable[Candidate], reference_hash: str = ""
    ) -> Front:
        """The front of ``candidates`` by their means.

        Raises:
            InvalidInputError: no candidate, or one with a wrong number of objectives or a repeated name.
        """
        members = tuple(candidates)
        if not members:
            raise InvalidInputError("a front needs at least one candidate", field="candidates")
        seen: set[str] = set()
        for member in members:
            if len(member.mean) != len(objectives):
                raise InvalidInputError(
                    f"candidate {member.name!r} has {len(member.mean)} means; expected {len(objectives)}",
                    field="mean",
                )
            if member.name in seen:
                raise InvalidInputError(f"candidate name {member.name!r} occurs twice", field="name")
            seen.add(member.name)
        keep = non_dominated(to_minimisation(objectives, [m.mean for m in members]))
        return cls(
            scenario=scenario,
            objectives=tuple(objectives),
            candidates=tuple(m for m, kept in zip(members, keep, strict=True) if kept),
            reference_hash=reference_hash,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Objective names in column order."""
        return tuple(o.name for o in self.objectives)

    def values(self) -> FloatArray:
        """Means [n_candidates, n_objectives] in the objectives' units."""
        return np.array([c.mean for c in self.candidates], dtype=np.float64)

    @property
    def version(self) -> str:
        """What the front holds, as 16 hex digits: equal for equal objectives and candidates, whatever their order.

        The sha256 of the canonical JSON of the objectives and of the candidates by name. It names the front in a
        certificate and serves as an HTTP entity tag.

        Raises:
            InvalidInputError: parameters that JSON cannot hold.
        """
        document = self.to_dict()
        held: dict[str, Any] = {
            "objectives": [{**o, "low": float(o["low"]), "high": float(o["high"])} for o in document["objectives"]],
            "candidates": [
                {**c, "mean": [value + 0.0 for value in c["mean"]]}  # -0.0 equals 0.0 but is written otherwise
                for c in sorted(document["candidates"], key=lambda c: str(c["name"]))
            ],
        }
        if self.default is not None:
            held["default"] = list(self.default)
        try:
            text = json.dumps(held, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as problem:
            raise InvalidInputError(
                f"a candidate of the front has parameters that JSON cannot hold: {problem}", field="parameters"
            ) from problem
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The front as plain JSON types, with its schema version; an infinite half width is null."""
        return {
            "schema_version": SCHEMA_VERSION,
            "scenario": self.scenario,
            "reference_hash": self.reference_hash,
            "objectives": [o.to_dict() for o in self.objectives],
            "default": None if self.default is None else [float(value) for value in self.default],
            "candidates": [
                {
                    "name": c.name,
                    "kind": c.kind,
                    "mean": [float(value) for value in c.mean],
                    "half_width": [float(width) if math.isfinite(width) else None for width in c.half_width],
                    "seeds": list(c.seeds),
                    "parameters": dict(c.parameters),
                }
                for c in self.candidates
            ],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Front:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: a missing or malformed part, named.
        """
        try:
            if document["schema_version"] != SCHEMA_VERSION:
                raise InvalidInputError(
                    f"front schema_version {document['schema_version']!r} is not supported; expected {SCHEMA_VERSION}",
                    field="schema_version",
                )
            scenario = document["scenario"]
            objectives = tuple(Objective(**o) for o in document["objectives"])
            if not objectives:
                raise InvalidInputError("a front needs objectives", field="objectives")
            return cls(
                scenario=scenario,
                reference_hash=document.get("reference_hash", ""),
                objectives=objectives,
                default=_default(document.get("default"), objectives),
                candidates=tuple(
                    Candidate(
                        name=c["name"],
                        kind=c["kind"],
                        mean=_means(c, objectives),
                        half_width=tuple(math.inf if width is None else width for width in c["half_width"]),
                        seeds=tuple(c["seeds"]),
                        parameters=c["parameters"],
                    )
                    for c in document["candidates"]
                ),
            )
        except KeyError as missing:
            raise InvalidInputError(f"front document lacks {missing}", field=str(missing)) from missing
        except TypeError as problem:
            raise InvalidInputError(f"front document is malformed: {problem}", field="front") from problem


def _means(entry: Mapping[str, Any], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """The means of a candidate's entry in a front document, checked here, where the objectives' names are known."""
    means = tuple(entry["mean"])
    if len(means) != len(objectives):
        raise InvalidInputError(
            f"candidate {shown(entry['name'])} has {len(means)} means; expected {len(objectives)}", field="mean"
        )
    for objective, value in zip(objectives, means, strict=True):
        if not _finite(value):
            raise InvalidInputError(
                f"candidate {shown(entry['name'])}: {objective.name} must be a finite number, got {shown(value)}",
                field=f"mean.{objective.name}",
            )
    return means


def _default(values: Any, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != len(objectives) or not all(_finite(value) for value in values):
        raise InvalidInputError(
            f"default is {shown(values)}; expected a finite number for each of {len(objectives)} objectives",
            field="default",
        )
    return tuple(float(value) for value in values)
