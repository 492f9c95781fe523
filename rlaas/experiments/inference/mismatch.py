r"""Sequential check for sample ratio mismatch: may run after every unit, from the first one on.

Against the intended propensities stands a mixture of other splits, drawn from a Dirichlet distribution around them.
Counts n of a batch whose units all had the propensities p multiply the e-value by

    [B(gamma + n) / B(gamma)] / product of p^n,

the Dirichlet-multinomial likelihood ratio (Lindon & Malek 2022, "Anytime-valid inference for multinomial count data").
gamma is chosen before the batch. With the concentration c, the design w, and counts O and expected counts E (sums of
propensities) so far of N units, it is

    gamma_j = (N + c) p_j r_j / sum of p r,      r_j = (O_j + c w_j) / (E_j + c w_j),

which for constant propensities is O_j + c w_j, their posterior; so the result does not depend on how counts are cut
into batches. Where propensities change, r carries over what was learned: by what factor each variant is over-served.
Small c finds gross mismatches within few units, large c small ones within many; the e-values of several are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.comparison import numeric
from rlaas.experiments.inference.checks import (
    checked_counts,
    checked_level,
    checked_number,
    checked_values,
    opened,
    packed,
)

__all__ = ["CONCENTRATIONS", "SplitMonitor", "split_log_e"]

FloatArray = NDArray[np.float64]

CONCENTRATIONS = (100.0, 30_000.0)
"""Prior units of the mixtures: splits off by some 5 %, and by some 0.3 %."""

_OPTIONS = ("weights", "alpha", "concentrations")


def split_log_e(counts: ArrayLike, gamma: ArrayLike, propensities: ArrayLike) -> FloatArray:
    """Logarithm of the e-value of one batch [...] from counts, prior and propensities [..., n_variants], all above 0.

    With gamma = concentration * weights it is that of a whole experiment of constant propensities.
    """
    n, prior = np.asarray(counts, dtype=np.float64), np.asarray(gamma, dtype=np.float64)
    whole = prior.sum(axis=-1)
    return np.asarray(
        (special.gammaln(prior + n) - special.gammaln(prior) - n * np.log(propensities)).sum(axis=-1)
        - special.gammaln(whole + n.sum(axis=-1))
        + special.gammaln(whole)
    )


class SplitMonitor:
    """E-value against "units are split as intended".

    Args:
        weights: intended share of each variant by name, above 0; they are scaled to sum to 1.
        alpha: probability of ever raising a false alarm.
        concentrations: of the mixtures.

    Raises:
        InvalidInputError: an impossible option.
    """

    kind = "split-monitor"

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        alpha: float = 0.01,
        concentrations: ArrayLike = CONCENTRATIONS,
    ) -> None:
        if not isinstance(weights, Mapping) or len(weights) < 2:
            raise InvalidInputError(f"weights are {shown(weights)}; expected at least 2 variants", field="weights")
        self.variants = tuple(sorted(weights))
        share = np.array([checked_number(weights[name], "weights", above=0) for name in self.variants])
        self.weights = dict(zip(self.variants, share.tolist(), strict=True))
        self.alpha = checked_level(alpha)
        self.concentrations = checked_values(concentrations, "concentrations", np.finfo(np.float64).tiny, 1e12)
        if not len(self.concentrations):
            raise InvalidInputError("concentrations are empty; expected at least one", field="concentrations")
        self._share = share / share.sum()
        self._observed = np.zeros(len(share))
        self._expected = np.zeros(len(share))
        self._log_e = np.zeros(len(self.concentrations))
        self._peak = 0.0

    def update(self, counts: Mapping[str, int], propensities: Mapping[str, float] | None = None) -> float:
        """Add counts of units that were all assigned with the same propensities, and look.

        Args:
            counts: new units by variant; a variant that is left out has none.
            propensities: of every variant, summing to 1; default: the weights.

        Returns:
            The always-valid p-value.

        Raises:
            InvalidInputError: unknown variants, no whole numbers, or units in a variant of propensity 0.
        """
        for field, names in (("counts", counts), ("propensities", propensities or {})):
            unknown = sorted(set(names) - set(self.variants))
            if unknown:
                allowed = ", ".join(self.variants)
                raise InvalidInputError(f"unknown variant {shown(unknown[0], str)!r}; allowed: {allowed}", field=field)
        n = checked_counts([counts.get(name, 0) for name in self.variants], "counts", len(self.variants))
        if propensities is None:
            p = self._share
        else:
            p = self._checked([[propensities.get(name, 0.0) for name in self.variants]], 1)[0]
        self._add(n.astype(np.float64), p)
        return self.p_value

    def update_units(self, variants: ArrayLike, propensities: ArrayLike) -> float:
        """Add units one by one, each with its own propensities, and look after each.

        Args:
            variants: index of each unit's variant in :attr:`variants` [n].
            propensities: of every variant when the unit was assigned [n, n_variants]; rows sum to 1.

        Returns:
            The always-valid p-value.

        Raises:
            InvalidInputError: rows that do not fit, or a unit in a variant of propensity 0.
        """
        which = checked_values(variants, "variants", 0, len(self.variants) - 1)
        if (which != np.floor(which)).any():
            raise InvalidInputError("variants must hold whole numbers, the indices of variants", field="variants")
        p, index = self._checked(propensities, len(which)), which.astype(np.int64)
        if not len(index):
            return self.p_value
        one, rows = np.eye(len(self.variants))[index], np.arange(len(index))
        self._refuse_impossible(one, p)
        # What each unit finds: everything before it.
        observed = self._observed + np.cumsum(one, axis=0) - one
        expected = self._expected + np.cumsum(p, axis=0) - p
        path = np.empty((len(index), len(self._log_e)))
        for i, concentration in enumerate(self.concentrations):
            served = (observed + concentration * self._share) / (expected + concentration * self._share)
            path[:, i] = np.log(served[rows, index]) - np.log((p * served).sum(axis=1))
        path = self._log_e + np.cumsum(path, axis=0)
        self._log_e = path[-1]
        self._observed, self._expected = self._observed + one.sum(axis=0), self._expected + p.sum(axis=0)
        self._peak = max(self._peak, float(special.logsumexp(path, axis=1).max()) - math.log(path.shape[1]))
        return self.p_value

    @property
    def p_value(self) -> float:
        """Always valid: 1 / the largest e-value seen, at most 1."""
        return math.exp(-self._peak)

    @property
    def log_e(self) -> float:
        """Logarithm of the e-value now, the mean over the concentrations."""
        return float(special.logsumexp(self._log_e)) - math.log(len(self._log_e))

    @property
    def alarm(self) -> bool:
        """Whether the split was ever refuted at ``alpha``; then no comparison of the arms should be believed."""
        return self.p_value <= self.alpha

    def _checked(self, propensities: Any, rows: int) -> FloatArray:
        p = numeric(propensities, "propensities")
        if p.shape != (rows, len(self.variants)):
            raise InvalidInputError(
                f"propensities have shape {p.shape}; expected ({rows}, {len(self.variants)})", field="propensities"
            )
        if not (p >= 0).all() or not (np.abs(p.sum(axis=1) - 1) <= 1e-6).all():
            raise InvalidInputError("propensities must be >= 0 and sum to 1 in every row", field="propensities")
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    def _refuse_impossible(self, n: FloatArray, p: FloatArray) -> None:
        wrong = (n > 0) & (p <= 0)
        if wrong.any():
            name = self.variants[int(np.argwhere(wrong)[0, 1])]
            raise InvalidInputError(
                f"variant {name!r} has units at propensity 0; the split was not kept", field="propensities"
            )

    def _add(self, n: FloatArray, p: FloatArray) -> None:
        self._refuse_impossible(n[None], p[None])
        used, total = p > 0, n.sum()
        prior = self.concentrations[:, None] * self._share
        served = (self._observed + prior) / (self._expected + prior)
        tilted = (served * p)[:, used]
        gamma = tilted * ((self._observed.sum() + self.concentrations) / tilted.sum(axis=1))[:, None]
        self._log_e = self._log_e + split_log_e(n[used], gamma, p[used])
        self._observed += n
        self._expected += total * p
        self._peak = max(self._peak, self.log_e)

    def to_dict(self) -> dict[str, Any]:
        """The whole monitor as JSON types."""
        options = {"weights": self.weights, "alpha": self.alpha, "concentrations": self.concentrations.tolist()}
        state = {
            "observed": self._observed.tolist(),
            "expected": self._expected.tolist(),
            "log_e": self._log_e.tolist(),
            "peak": self._peak,
        }
        return packed(self.kind, options, state)

    @classmethod
    def from_dict(cls, document: Any) -> SplitMonitor:
        """A monitor that goes on where the stored one stood.

        Raises:
            InvalidInputError: no state of this kind.
        """
        options, state = opened(document, cls.kind, _OPTIONS, ("observed", "expected", "log_e", "peak"))
        found = cls(**options)
        found._observed = checked_counts(state["observed"], "observed", len(found.variants)).astype(np.float64)
        found._expected = checked_values(state["expected"], "expected", 0.0, math.inf)
        found._log_e = checked_values(state["log_e"], "log_e")
        if found._expected.shape != found._observed.shape or found._log_e.shape != found.concentrations.shape:
            raise InvalidInputError("expected and log_e do not fit the variants and concentrations", field="state")
        found._peak = checked_number(state["peak"], "peak", least=0)
        return found
