"""Count, mean and sum of squared deviations: all that a test of means remembers of an arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlaas.errors import InvalidInputError, shown
from rlaas.experiments.inference.checks import checked_number, checked_values

__all__ = ["Moments"]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of ``n`` observations.

    Attributes:
        n: observations.
        mean: of them.
        squares: sum of their squared deviations from the mean.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike, field: str = "values") -> Moments:
        """Of values [n].

        Raises:
            InvalidInputError: a value that is no finite number.
        """
        array = checked_values(values, field)
        if not len(array):
            return cls()
        mean = float(array.mean())
        return cls(len(array), mean, float(((array - mean) ** 2).sum()))

    @classmethod
    def of_sums(cls, n: int, total: float, total_of_squares: float) -> Moments:
        """From running sums, as counters keep them; the values should not be far from 0 beside their spread.

        Raises:
            InvalidInputError: sums that no values have.
        """
        count = checked_number(n, "n", least=0)
        if count != int(count):
            raise InvalidInputError(f"n is {shown(n)}; expected a whole number", field="n")
        total, squares = checked_number(total, "total"), checked_number(total_of_squares, "total_of_squares", least=0)
        if not count:
            if total or squares:
                raise InvalidInputError("sums of no observation must be 0", field="total")
            return cls()
        spread = squares - total * total / count
        if spread < -1e-9 * squares:
            raise InvalidInputError(
                f"total_of_squares is {squares:g}, below total^2 / n = {total * total / count:g}",
                field="total_of_squares",
            )
        return cls(int(count), total / count, max(spread, 0.0))

    @classmethod
    def from_list(cls, stored: object, field: str = "state") -> Moments:
        """From what :meth:`to_list` gave.

        Raises:
            InvalidInputError: it did not give that.
        """
        if not isinstance(stored, Sequence) or isinstance(stored, str) or len(stored) != 3:
            raise InvalidInputError(f"{field} must hold [n, mean, squares], got {shown(stored)}", field=field)
        n, mean, squares = stored
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InvalidInputError(f"n in {field} is {shown(n)}; expected a whole number >= 0", field=field)
        return cls(n, checked_number(mean, field), checked_number(squares, field, least=0))

    def to_list(self) -> list[float]:
        """``[n, mean, squares]``."""
        return [self.n, self.mean, self.squares]

    def merged(self, other: Moments) -> Moments:
        """Of both sets of observations together (Chan, Golub & LeVeque 1979)."""
        if not other.n:
            return self
        if not self.n:
            return other
        n, gap = self.n + other.n, other.mean - self.mean
        return Moments(
            n,
            self.mean + gap * other.n / n,
            self.squares + other.squares + gap * gap * self.n * other.n / n,
        )

    @property
    def variance(self) -> float:
        """Of the sample, with n - 1 in the denominator; NaN below two observations."""
        return self.squares / (self.n - 1) if self.n > 1 else float(np.nan)
