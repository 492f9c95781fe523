"""A sequential detector of shifts in any of many streams, with a bound on the time between false alarms.

For every stream, both directions and a few sizes of shift it keeps a Shiryaev-Roberts e-detector

    R_t = (1 + R_{t-1}) * L_t,   L_t = exp(lambda * (min(z_t, c) - slack_t) - psi),

where z_t is the standardised innovation of the stream (:mod:`rlaas.monitoring.baseline`) and psi its log-moment
``log E exp(lambda min(z_t, c))`` as the calibration measured it, at least ``lambda^2 / 2``. While nothing has changed
the mean of z_t is within the slack, so that E[L_t | past] <= 1, and R_t - t is a supermartingale; so is the weighted
mean M_t of all of them minus t, however the streams depend on each other. Stopping at M_t >= A therefore takes A
seconds on average at least: that is the mean time to a false alarm over all streams together
(Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2024, theorem 2.4).
Cutting z at c from above bounds what one wild second can do.

Source of the recursion: Roberts (1966), Shiryaev (1963); Pollak (1985) shows that it is nearly minimax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["CLIP", "SIZES", "WEIGHTS", "Alarm", "EDetector"]

FloatArray = NDArray[np.float64]

SIZES = (0.5, 1.0, 2.0)
"""Shifts that are looked for, in multiples of the one that is to be found soonest."""
WEIGHTS = (0.15, 0.7, 0.15)
CLIP = 4.0
"""What a standardised second counts at most."""
_HIGHEST = 1e250
_FORGET = 1 - 1 / 30


@dataclass(frozen=True, slots=True)
class Alarm:
    """Evidence has reached the bar.

    Attributes:
        index: of the second, in what was passed.
        evidence: M over A, at least 1.
        streams: whose evidence is at least a tenth of the strongest's, strongest first.
    """

    index: int
    evidence: float
    streams: tuple[int, ...]


class EDetector:
    """Watches standardised innovations of many streams.

    Args:
        gain: [streams] by how much a shift of one sigma of the means shifts z.
        shift: that is to be found soonest, in sigma of the means.
        arl_s: bar A, in seconds.
        tolerance: shift that is normal, in sigma of the means.

    Attributes:
        rates: [streams, sizes] lambda of each.
        psi: [streams, 2, sizes] log-moments of z; set them where they are not those of a normal z.
    """

    def __init__(self, gain: FloatArray, *, shift: float, arl_s: float, tolerance: float = 0.0) -> None:
        self.gain, self.arl_s = np.asarray(gain, dtype=np.float64), float(arl_s)
        self._tolerance = tolerance * self.gain
        sizes = np.asarray(SIZES) * shift
        # The slack is taken off z, so that the drift which is left for a shift is that much smaller, too.
        self.rates = np.maximum(self.gain[:, None] * np.maximum(sizes - tolerance, 0.25 * sizes), 1e-3)
        self.psi = np.repeat(self.rates[:, None, :] ** 2 / 2, 2, axis=1)
        self._log_weights = np.log(np.asarray(WEIGHTS) / (2 * max(len(self.gain), 1)))
        self.levels = np.zeros((len(self.gain), 2, len(SIZES)))
        self.recent = np.zeros(len(self.gain))

    def update(self, z: FloatArray, slack: FloatArray) -> Alarm | None:
        """Take in seconds [n, streams]; the first at which evidence reaches the bar, behind which nothing is taken in.

        Args:
            z: standardised innovations; NaN: the stream had no value in that second.
            slack: what the baseline may be wrong by.
        """
        slack = slack + self._tolerance
        weights = np.exp(self._log_weights)
        fixed = (CLIP, self.arl_s, _HIGHEST, _FORGET)
        index, total = _watch(self.levels, z, slack, self.rates, self.psi, weights, self.recent, *fixed)
        if index < 0:
            return None
        evidence = self.evidence()
        order = np.argsort(-evidence)
        strong = [int(i) for i in order if evidence[i] >= 0.1 * evidence[order[0]]]
        return Alarm(int(index), float(total / self.arl_s), tuple(strong))

    def evidence(self) -> FloatArray:
        """Evidence of each stream [streams]; their sum reaches 1 at the bar."""
        weighted = self.levels * np.exp(self._log_weights)
        return np.asarray(weighted.sum(axis=(1, 2)) / self.arl_s)

    def shifts(self) -> FloatArray:
        """Shift of the last half minute [streams], in sigma of the means."""
        return np.asarray(self.recent / self.gain)

    def restart(self) -> None:
        """Forget all evidence."""
        self.levels[:] = 0.0

    def arrays(self) -> dict[str, Any]:
        """What has to be kept of it."""
        return {"levels": self.levels, "recent": self.recent, "psi": self.psi}

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Go on from what was kept."""
        self.levels[:], self.recent = arrays["levels"], np.array(arrays["recent"])
        self.psi = np.array(arrays["psi"])


@numba.njit(cache=True, fastmath=False, error_model="numpy")  # type: ignore[untyped-decorator]
def _watch(
    levels: FloatArray,
    z: FloatArray,
    slack: FloatArray,
    rates: FloatArray,
    psi: FloatArray,
    weights: FloatArray,
    recent: FloatArray,
    clip: float,
    bar: float,
    highest: float,
    forget: float,
) -> tuple[int, float]:
    """Advance the levels [streams, 2, sizes] until their weighted sum reaches the bar; index -1 if it does not."""
    seconds, streams = z.shape
    sizes = rates.shape[1]
    total = 0.0
    for t in range(seconds):
        total = 0.0
        for f in range(streams):
            value = z[t, f]
            if not math.isnan(value):
                recent[f] = forget * recent[f] + (1 - forget) * value
                up, down = min(value, clip) - slack[t, f], min(-value, clip) - slack[t, f]
                for s in range(sizes):
                    rate = rates[f, s]
                    levels[f, 0, s] = min((1.0 + levels[f, 0, s]) * math.exp(rate * up - psi[f, 0, s]), highest)
                    levels[f, 1, s] = min((1.0 + levels[f, 1, s]) * math.exp(rate * down - psi[f, 1, s]), highest)
            for s in range(sizes):
                total += weights[s] * (levels[f, 0, s] + levels[f, 1, s])
        if total >= bar:
            return t, total
    return -1, total
