"""What a round and a federation hand back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlaas.fronts import Front

__all__ = ["FederationRun", "RoundResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """One finished round.

    Attributes:
        number: from 1.
        attempt: which try succeeded, from 1.
        sites: whose updates are in the average.
        left_out: why each of the others is not.
        failures: why earlier tries failed.
        weights: share of each site in the average; empty under secure aggregation, which does not tell.
        decisions: of all sites in the average together; 0 with privacy, which does not tell.
        losses: means over decisions of the sites in the average; empty with privacy.
        moved: L2 norm of the global parameters' change.
        rounding: largest error of a parameter that fixed-point numbers can have caused.
        epsilon, delta: privacy spent by this federation so far, the unit being a site; None without privacy.
        noise: standard deviation of the least noise in each parameter of the average; 0 without privacy.
        evaluation: figures of the global policy after the round, where it was evaluated.
        seconds: wall time, failed tries included.
        began: when it began, in seconds since 1970.
    """

    number: int
    attempt: int
    sites: tuple[str, ...]
    left_out: Mapping[str, str]
    failures: tuple[str, ...]
    weights: Mapping[str, float]
    decisions: float
    losses: Mapping[str, float]
    moved: float
    rounding: float
    epsilon: float | None
    delta: float | None
    noise: float
    evaluation: Mapping[str, float] = field(default_factory=dict)
    seconds: float
    began: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "sites": list(self.sites), "failures": list(self.failures)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RoundResult:
        """The inverse of :meth:`to_dict`."""
        values = dict(document)
        return cls(**{**values, "sites": tuple(values["sites"]), "failures": tuple(values["failures"])})

    def metrics(self) -> dict[str, float]:
        """The figures, flat, as MLflow takes them."""
        flat = {
            "round": float(self.number),
            "attempt": float(self.attempt),
            "sites": float(len(self.sites)),
            "left_out": float(len(self.left_out)),
            "decisions": self.decisions,
            "moved": self.moved,
            "noise": self.noise,
            "seconds": self.seconds,
            **{f"weight/{name}": weight for name, weight in self.weights.items()},
            **self.losses,
            **self.evaluation,
        }
        if self.epsilon is not None and self.delta is not None:
            flat |= {"epsilon": self.epsilon, "delta": self.delta}
        return flat


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationRun:
    """A finished federation.

    Attributes:
        scenario: name of what is controlled.
        bundle: folder of the exported policy.
        rounds: all of them, those before a resumption included.
        stopped: why it ended before its last round, or None.
        front: the policy at several preferences on the evaluation seeds, or None if none were configured.
        mlflow_run_id: the run that the rounds' runs are nested in, or None without tracking.
    """

    scenario: str
    bundle: Path
    rounds: tuple[RoundResult, ...]
    stopped: str | None
    front: Front | None
    mlflow_run_id: str | None
