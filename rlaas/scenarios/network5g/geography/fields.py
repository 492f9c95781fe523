"""Gaussian random fields with exponential correlation on a periodic grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["FieldSampler", "interpolated_variance"]

PADDING = 6.0
"""Decorrelation distances between the two ends of a plane that does not wrap: correlation e^-6 = 0.25 % at most."""


class FieldSampler:
    """Draws fields of zero mean and unit variance whose correlation is exp(-distance / decorrelation).

    A stationary covariance on a torus is diagonal in Fourier space, so a field is one transform of white noise scaled
    by the square root of the covariance's spectrum (circulant embedding; Dietrich and Newsam, 1997). A complex
    transform gives two independent fields. A plane that does not wrap is cut out of a larger torus.

    Args:
        basis: grid vectors as columns [2, 2] in m.
        shape: nodes along both grid vectors.
        decorrelation_m: distance at which the correlation has fallen to 1/e.
        wraps: whether the grid itself is a torus.
    """

    def __init__(
        self, basis: NDArray[np.float64], shape: tuple[int, int], *, decorrelation_m: float, wraps: bool
    ) -> None:
        self._shape = shape
        if wraps:
            self._torus = shape
        else:
            spacing = np.linalg.norm(basis, axis=0)
            margin = [math.ceil(PADDING * decorrelation_m / float(step)) for step in spacing]
            self._torus = (fft.next_fast_len(shape[0] + margin[0]), fft.next_fast_len(shape[1] + margin[1]))
        covariance = np.exp(-_torus_distance(basis, self._torus) / decorrelation_m)
        # On a torus a few correlation lengths wide some eigenvalues fall below 0 by rounding or wrap-around.
        spectrum = np.maximum(fft.fft2(covariance).real, 0.0)
        self._amplitude = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float32]:
        """Independent fields [count, nodes along the first vector, nodes along the second]."""
        pairs = (count + 1) // 2
        white = generator.standard_normal((pairs, *self._torus, 2), dtype=np.float32).view(np.complex64)[..., 0]
        white *= self._amplitude
        both = fft.fft2(white, overwrite_x=True)[:, : self._shape[0], : self._shape[1]]
        fields = np.empty((2 * pairs, *self._shape), dtype=np.float32)
        fields[0::2], fields[1::2] = both.real, both.imag
        return fields[:count]


def interpolated_variance(basis: NDArray[np.float64], decorrelation_m: float) -> float:
    """Mean variance, over all positions, of a unit field on a grid that is read by bilinear interpolation.

    An average of four neighbours varies less than each of them. With rho the correlation of two nodes the mean over
    uniform positions is 4/9 + 2/9 (rho(a) + rho(b)) + 1/18 (rho(a + b) + rho(a - b)), a and b the grid vectors: the
    integrals of products of the weights (1 - u)(1 - v), u (1 - v), ...

    Args:
        basis: grid vectors as columns [2, 2] in m.
        decorrelation_m: of the field.
    """
    a, b = basis.T
    rho = [math.exp(-float(np.hypot(*vector)) / decorrelation_m) for vector in (a, b, a + b, a - b)]
    return 4 / 9 + 2 / 9 * (rho[0] + rho[1]) + 1 / 18 * (rho[2] + rho[3])


def _torus_distance(basis: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Distance of every node from node (0, 0) on the torus [shape], in m."""
    f = np.arange(shape[0])[:, None]
    g = np.arange(shape[1])[None, :]
    shortest = np.full(shape, np.inf)
    for turn_f in (0, -1):
        for turn_g in (0, -1):
            u, v = f + turn_f * shape[0], g + turn_g * shape[1]
            shortest = np.minimum(
                shortest, np.hypot(basis[0, 0] * u + basis[0, 1] * v, basis[1, 0] * u + basis[1, 1] * v)
            )
    return shortest
