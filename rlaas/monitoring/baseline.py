"""What the next second of every stream should be: a cycle of the day and an autoregression, fitted together.

A one-second mean is ``x_t = B(t) b + sum_k phi_k x_{t-k} + e_t`` with B the first harmonics of the day (or the week):
an ARX model, whose least squares need nothing but sums. They are of the same size however long the history is, so that
a watcher that is killed goes on from what it kept. What is watched is the standardised innovation
``z_t = (x_t - prediction) / scale``, which is nearly independent from second to second and has no cycle. A lasting
shift of ``d`` standard deviations of x shifts it by ``gain * d``, with ``gain = (1 - sum phi) * sd(x) / sd(e)``.

Source: Box, Jenkins, Reinsel & Ljung, "Time Series Analysis", chapters 3 (gain of an AR filter) and 12 (ARX).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from rlaas.monitoring.config import Reference

__all__ = ["BASELINE_ARRAYS", "BLOCK_S", "Baseline", "Calibration", "Learner", "Scaled", "cycle_rows"]

FloatArray = NDArray[np.float64]
Seconds = NDArray[np.int64]

BLOCK_S = 30
"""Seconds whose mean innovation tells whether dependence is left that the autoregression does not know."""
BASELINE_ARRAYS = ("centre", "unit", "weights", "error", "inverse", "spread", "gain")
"""Of :class:`Baseline`, in the order of its arguments."""
_DAY_S, _WEEK_S, _WEEKLY = 86_400, 604_800, 3
_FIRST_S = 60
_MOST_MEMORY = 0.98
_BIN, _HALF_BINS = 0.1, 100
_RESPONSE_S = 4096


def cycle_rows(reference: Reference, seconds: Seconds) -> FloatArray:
    """Values [n, k] of the cycle's basis at UTC seconds [n]: 1, then a cosine and a sine for each frequency."""
    cycles = {"none": [], "day": [_DAY_S / h for h in range(1, reference.harmonics + 1)]}
    cycles["week"] = [*cycles["day"], *(_WEEK_S / h for h in range(1, _WEEKLY + 1))]
    columns = [np.ones(len(seconds))]
    for period in cycles[reference.cycle]:
        angle = 2 * math.pi * np.mod(seconds, _WEEK_S) / period
        columns += [np.cos(angle), np.sin(angle)]
    return np.stack(columns, axis=1)


class _Lags:
    """The values of the seconds before, which are only there where no second is missing."""

    def __init__(self, streams: int, lags: int) -> None:
        self.values = np.full((lags, streams), np.nan)
        self.last = -1

    def take(self, seconds: Seconds, values: FloatArray) -> FloatArray:
        """For each second [n] the ``lags`` values before it [n, lags, streams], newest first; NaN where unknown."""
        lags, streams = self.values.shape
        first = int(seconds[0]) - lags
        line = np.full((int(seconds[-1]) - first + 1, streams), np.nan)
        if self.last >= 0:
            for back in range(lags):
                at = self.last - back - first
                if 0 <= at < lags:
                    line[at] = self.values[back]
        line[seconds - first] = values
        places = (seconds - first)[:, None] - np.arange(1, lags + 1)
        found: FloatArray = line[places]
        if lags:
            self.values = line[len(line) - 1 - np.arange(lags)]
        self.last = int(seconds[-1])
        return found


@dataclass(frozen=True, slots=True)
class Scaled:
    """Innovations of some seconds.

    Attributes:
        z: standardised [n, streams]; NaN where the stream had no value.
        slack: [n, streams] what the baseline may be wrong by, in the unit of z (two standard errors).
    """

    z: FloatArray
    slack: FloatArray


class Learner:
    """Sums of the least squares of every stream.

    Args:
        reference: cycle and lags.
        streams: number of streams.
    """

    def __init__(self, reference: Reference, streams: int) -> None:
        self._reference, self.seconds = reference, 0
        self._lags = _Lags(streams, reference.lags)
        size = cycle_rows(reference, np.zeros(1, np.int64)).shape[1] + reference.lags
        self.gram = np.zeros((streams, size, size))
        self.cross, self.square = np.zeros((streams, size)), np.zeros(streams)
        self.rows = np.zeros(streams)
        self.centre, self.unit = np.zeros(streams), np.zeros(streams)
        self._first: list[tuple[Seconds, FloatArray]] = []

    def update(self, seconds: Seconds, values: FloatArray) -> None:
        """Take in seconds [n] in their order with the means [n, streams] of what happened in them; NaN: nothing did."""
        self.seconds += len(seconds)
        if not self.unit.any():
            self._first.append((seconds, values))
            if self.seconds < _FIRST_S:
                return
            every = np.concatenate([one for _, one in self._first])
            # Only against rounding: sums of squares of values around 10,000 lose what differs between them.
            self.centre = np.nan_to_num(np.nanmedian(every, axis=0))
            spread = np.nan_to_num(np.nanstd(every, axis=0))
            self.unit = np.where(spread > 1e-9 * (1 + np.abs(self.centre)), spread, 1e-6 * (1 + np.abs(self.centre)))
            seconds, values = np.concatenate([one for one, _ in self._first]), every
            self._first = []
        self._add(seconds, (values - self.centre) / self.unit)

    def fit(self) -> Baseline:
        """The baseline that fits best."""
        size, lags = self.cross.shape[1], self._reference.lags
        gram = self.gram + 1e-9 * np.maximum(self.rows, 1)[:, None, None] * np.eye(size)
        inverse = np.asarray(np.linalg.inv(gram), dtype=np.float64)
        weights = np.einsum("fij,fj->fi", inverse, self.cross)
        rest = np.maximum(self.square - np.einsum("fi,fi->f", weights, self.cross), 0.0)
        error: FloatArray = np.sqrt(rest / np.maximum(self.rows - size, 1.0))
        np.clip(error, 1e-6, None, out=error)
        memory = weights[:, size - lags :].sum(axis=1) if lags else np.zeros(len(weights))
        too_long = memory > _MOST_MEMORY
        if too_long.any():  # next to a random walk: what is left of it the calibration sees
            weights[too_long, size - lags :] *= (_MOST_MEMORY / memory[too_long])[:, None]
        spread = _response(weights[:, size - lags :])
        gain = np.clip((1 - np.minimum(memory, _MOST_MEMORY)) * spread, 0.02, 1.0)
        k = size - lags
        # Of the cycle alone: how well it is known does not depend on where the lags are counted from.
        known = np.asarray(np.linalg.inv(gram[:, :k, :k]), dtype=np.float64)
        return Baseline(self._reference, self.centre, self.unit, weights, error, known, spread * error, gain)

    def _add(self, seconds: Seconds, values: FloatArray) -> None:
        before = self._lags.take(seconds, values)
        basis = cycle_rows(self._reference, seconds)
        streams = values.shape[1]
        for start in range(0, len(seconds), 4096):  # bounds the memory of a long history
            part = slice(start, start + 4096)
            shared = np.broadcast_to(basis[part, :, None], (*basis[part].shape, streams))
            rows = np.concatenate([shared, before[part]], axis=1).transpose(2, 0, 1)
            x = values[part].T
            good = np.isfinite(x) & np.isfinite(rows).all(axis=2)
            rows, x = np.where(good[:, :, None], rows, 0.0), np.where(good, x, 0.0)
            turned = rows.transpose(0, 2, 1)
            self.gram += turned @ rows
            self.cross += (turned @ x[:, :, None])[:, :, 0]
            self.square += np.sum(x * x, axis=1)
            self.rows += good.sum(axis=1)


class Baseline:
    """A fitted model; :meth:`standardise` turns means into innovations.

    Args:
        reference: cycle and lags.
        centre, unit: [streams] of the values that were fitted.
        weights: [streams, k + lags] of the basis and the lags, in that unit.
        error: [streams] standard deviation of the innovations, in that unit.
        inverse: [streams, k, k] of the cycle's normal equations.
        spread: [streams] standard deviation of a second around the cycle, in that unit.
        gain: [streams] of a lasting shift, see above.
    """

    def __init__(
        self,
        reference: Reference,
        centre: FloatArray,
        unit: FloatArray,
        weights: FloatArray,
        error: FloatArray,
        inverse: FloatArray,
        spread: FloatArray,
        gain: FloatArray,
    ) -> None:
        self.reference, self.centre, self.unit = reference, centre, unit
        self.weights, self.error, self.inverse, self.spread, self.gain = weights, error, inverse, spread, gain
        self._lags = _Lags(len(centre), reference.lags)

    @property
    def sigma(self) -> FloatArray:
        """Standard deviation [streams] of a one-second mean around its cycle, in the unit of the stream."""
        return np.asarray(self.spread * self.unit)

    def standardise(self, seconds: Seconds, values: FloatArray) -> Scaled:
        """Innovations of seconds [n] in their order with means [n, streams].

        Behind a gap, where the seconds before are not known, a second is held against the cycle alone.
        """
        x = (values - self.centre) / self.unit
        before, basis = self._lags.take(seconds, x), cycle_rows(self.reference, seconds)
        k = basis.shape[1]
        known: NDArray[np.bool_] = np.asarray(np.all(np.isfinite(before), axis=1))  # no lags: all of nothing
        before = np.where(known[:, None, :], before, 0.0)
        level = basis @ self.weights[:, :k].T
        after = np.einsum("nlf,fl->nf", before, self.weights[:, k:])
        alone = level / np.maximum(1 - self.weights[:, k:].sum(axis=1), 1 - _MOST_MEMORY)
        z = np.where(known, (x - level - after) / self.error, (x - alone) / self.spread)
        # The cycle moves slowly: how well it is known is worked out once a minute.
        minutes, places = np.unique(seconds // 60, return_inverse=True)
        rows = cycle_rows(self.reference, minutes * 60)
        slack = np.sqrt(np.maximum(np.sum((rows @ self.inverse) * rows, axis=2), 0.0)).T
        return Scaled(z, 2 * slack[places])

    def arrays(self) -> dict[str, Any]:
        """What has to be kept of it, as arrays."""
        return {
            **{name: getattr(self, name) for name in BASELINE_ARRAYS},
            "lag_values": self._lags.values,
            "lag_last": np.array(self._lags.last),
        }


class Calibration:
    """How large innovations really are, measured on seconds that the baseline was not fitted to.

    Their variance is ``a + b / n`` for a second with n records, and their dependence that is left makes means of
    :data:`BLOCK_S` seconds wander further than independence would; both widen the scale, neither ever narrows it.

    Args:
        streams: number of streams.
    """

    def __init__(self, streams: int) -> None:
        self.seconds = 0
        # Count, sums of 1/n, 1/n^2, z^2, z^2/n.
        self.sums = np.zeros((5, streams))
        self.histogram = np.zeros((streams, 2 * _HALF_BINS))
        self.block, self.in_block = np.zeros(streams), np.zeros(streams)
        self.blocks, self.block_squares = np.zeros(streams), np.zeros(streams)

    def update(self, z: FloatArray, counts: FloatArray) -> None:
        """Take in innovations [n, streams] with the numbers of records [n, streams] that they are means of."""
        self.seconds += len(z)
        good: NDArray[np.bool_] = np.logical_and(np.isfinite(z), counts > 0)
        square = np.where(good, z * z, 0.0)
        share = np.where(good, 1 / np.maximum(counts, 1), 0.0)
        bins = np.clip(np.floor(np.where(good, z, 0.0) / _BIN) + _HALF_BINS, 0, 2 * _HALF_BINS - 1).astype(np.int64)
        for stream in range(z.shape[1]):
            self.histogram[stream] += np.bincount(bins[good[:, stream], stream], minlength=2 * _HALF_BINS)
        self.sums += np.stack([good, share, share * share, square, square * share]).sum(axis=1)
        _blocks(z, good, self.block, self.in_block, self.blocks, self.block_squares)

    def cumulants(self, rates: FloatArray, width: FloatArray, clip: float) -> FloatArray:
        """Logarithms [streams, 2, k] of the mean of ``exp(rate * min(+-z / width, clip))``, and at least rate^2 / 2.

        For a normal z that is what the mean is without the clip; heavy tails and skewness make more of it.

        Args:
            rates: [streams, k].
            width: [streams] that z is divided by.
            clip: what counts at most.
        """
        centres = (np.arange(2 * _HALF_BINS) - _HALF_BINS + 0.5) * _BIN
        share = self.histogram / np.maximum(self.histogram.sum(axis=1, keepdims=True), 1)
        found = np.empty((len(rates), 2, rates.shape[1]))
        for way, sign in enumerate((1.0, -1.0)):
            cut = np.minimum(sign * centres / width[:, None], clip)
            mean = np.einsum("fb,fbk->fk", share, np.exp(rates[:, None, :] * cut[:, :, None]))
            found[:, way] = np.maximum(np.log(np.maximum(mean, 1e-300)), rates**2 / 2)
        return found

    def scale(self) -> FloatArray:
        """Rows [3, streams]: a and b of the variance ``a + b / n``, dependence included, and the usual ``1 / n``."""
        n, x, xx, y, xy = self.sums
        n = np.maximum(n, 1)
        spread = xx / n - (x / n) ** 2
        slope = np.where(spread > 1e-3 * (x / n) ** 2, (xy / n - x * y / n**2) / np.maximum(spread, 1e-300), 0.0)
        slope = np.clip(slope, 0.0, np.divide(y, x, out=np.zeros_like(y), where=x > 0))
        a = y / n - slope * x / n
        dependence = np.divide(self.block_squares, np.maximum(self.blocks, 1)) / np.maximum(y / n, 1e-12)
        widening = np.maximum(dependence, 1.0) * np.maximum(1.0, 1 / np.maximum(y / n, 1e-12))
        still = y / n < 1e-9  # a stream that never moves: any move is a shift, and is cut to a size
        return np.stack([np.where(still, 1.0, a * widening), np.where(still, 0.0, slope * widening), x / n])


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def _blocks(
    z: FloatArray,
    good: NDArray[np.bool_],
    block: FloatArray,
    in_block: FloatArray,
    blocks: FloatArray,
    squares: FloatArray,
) -> None:
    """Add seconds [n, streams] to the blocks; of a full one, the square of its sum over its length."""
    for t in range(z.shape[0]):
        for f in range(z.shape[1]):
            if good[t, f]:
                block[f] += z[t, f]
                in_block[f] += 1
                if in_block[f] >= BLOCK_S:
                    squares[f] += block[f] ** 2 / BLOCK_S
                    blocks[f] += 1
                    block[f] = in_block[f] = 0


def _response(phi: FloatArray) -> FloatArray:
    """Standard deviation [streams] of an autoregression [streams, lags] with innovations of variance 1."""
    streams, lags = phi.shape
    recent = np.zeros((streams, max(lags, 1)))
    recent[:, 0] = 1.0
    total = np.ones(streams)
    for _ in range(_RESPONSE_S if lags else 0):
        step = np.clip(np.sum(phi * recent, axis=1), -1e6, 1e6)
        total += step * step
        recent = np.concatenate([step[:, None], recent[:, :-1]], axis=1)
        if not np.any(np.abs(recent) > 1e-6):
            break
    return np.sqrt(np.minimum(total, 1e6))
