"""What an allocator remembers of each arm: number, mean and scatter of its rewards, which merge without their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaas.errors import InvalidInputError, RequestError, shown
from rlaas.experiments.comparison import numeric

__all__ = ["Count", "Finite", "Frozen", "Moments", "Positive", "by_arm", "checked_arms", "load"]

FloatArray = NDArray[np.float64]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Frozen(BaseModel):
    """Base of what is stored: immutable, without unknown keys; JSON numbers come back bit for bit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as problem:
            raise _translated(problem) from problem

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON types."""
        return self.model_dump(mode="json")


class Moments(Frozen):
    """Of vectors with d entries; a reward is a vector of one.

    Attributes:
        n: vectors seen.
        mean: [d]; zeros without any.
        scatter: sum of outer products of the deviations from the mean [d, d].
    """

    n: Count = 0
    mean: tuple[Finite, ...] = (0.0,)
    scatter: tuple[tuple[Finite, ...], ...] = ((0.0,),)

    @classmethod
    def empty(cls, d: int = 1) -> Moments:
        """Of nothing."""
        return cls(mean=(0.0,) * d, scatter=((0.0,) * d,) * d)

    @classmethod
    def of(cls, values: FloatArray) -> Moments:
        """Of the rows of ``values`` [n, d], finite."""
        n, d = values.shape
        if n == 0:
            return cls.empty(d)
        mean = values.mean(axis=0)
        apart = values - mean
        return cls(n=n, mean=tuple(mean.tolist()), scatter=_rows(apart.T @ apart))

    @classmethod
    def from_sums(cls, n: int, total: float, squares: float, field: str = "sums") -> Moments:
        """Of single rewards, by their number, sum and sum of squares.

        Raises:
            InvalidInputError: sums that no ``n`` numbers have.
        """
        numbers = [n, total, squares]
        if any(isinstance(v, bool) or not isinstance(v, int | float) or not np.isfinite(v) for v in numbers):
            raise InvalidInputError(f"{field} is {shown(tuple(numbers))}; expected three finite numbers", field=field)
        if n != int(n) or n < 0 or squares < 0 or (n == 0 and (total != 0 or squares != 0)):
            raise InvalidInputError(
                f"{field} is {shown(tuple(numbers))}; expected a count >= 0, a sum and a sum of squares", field=field
            )
        if n == 0:
            return cls.empty()
        scatter = squares - total * total / n
        if scatter < -1e-9 * squares:  # rounding leaves a little less than nothing where all rewards are equal
            raise InvalidInputError(
                f"{field}: squares of {squares:g} are less than {n} rewards that sum to {total:g} can have", field=field
            )
        return cls(n=int(n), mean=(total / n,), scatter=((max(scatter, 0.0),),))

    def merged(self, other: Moments) -> Moments:
        """Of both together (Chan, Golub & LeVeque 1983)."""
        if other.n == 0:
            return self
        if self.n == 0:
            return other
        n = self.n + other.n
        mine, theirs = np.array(self.mean), np.array(other.mean)
        gap = theirs - mine
        scatter = np.array(self.scatter) + np.array(other.scatter) + np.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n=n, mean=tuple((mine + gap * (other.n / n)).tolist()), scatter=_rows(scatter))


def by_arm(arms: Sequence[str], arm: ArrayLike, values: ArrayLike, name: str = "reward") -> dict[str, FloatArray]:
    """Rows of ``values`` ([n] or [n, d]) of each arm [n_rows, d].

    Raises:
        InvalidInputError: rows that do not fit, an unknown arm, or a value that is not finite.
    """
    array = numeric(values, name)
    table = array[:, None] if array.ndim == 1 else array
    names = np.asarray(arm)
    if table.ndim != 2 or names.shape != (len(table),):
        raise InvalidInputError(
            f"arm has shape {names.shape} and {name} {array.shape}; expected one arm and one row of values each",
            field="arm",
        )
    if not np.isfinite(table).all():
        row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
        raise InvalidInputError(f"{name}[{row}] is {shown(array[row].tolist())}; expected finite numbers", field=name)
    names = names.astype(str)
    unknown = ~np.isin(names, list(arms))
    if unknown.any():
        raise InvalidInputError(
            f"arm[{int(unknown.argmax())}] is {shown(str(names[unknown.argmax()]))}; arms are {', '.join(arms)}",
            field="arm",
        )
    return {one: table[names == one] for one in arms}


def checked_arms(arms: Sequence[str]) -> None:
    """Raise InvalidInputError unless there are two different names of text or more."""
    if len(arms) < 2 or len(set(arms)) < len(arms) or any(not isinstance(a, str) or not a for a in arms):
        raise InvalidInputError(f"arms are {shown(list(arms))}; expected two or more different names", field="arms")


def load(model: type[Frozen], document: Mapping[str, Any]) -> Any:
    """The state that ``to_dict`` of a ``model`` wrote.

    Raises:
        InvalidInputError: another kind of state, or one that does not fit.
    """
    if not isinstance(document, Mapping):
        raise InvalidInputError(f"state is {shown(document)}; expected a mapping", field="state")
    try:
        # Lists become the tuples they were; nothing else is converted.
        return model.model_validate(_tuples(document))
    except ValidationError as problem:
        raise _translated(problem) from problem


def _rows(matrix: FloatArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(one) for key, one in value.items()}
    return tuple(_tuples(one) for one in value) if isinstance(value, list | tuple) else value


def _translated(problem: ValidationError) -> RequestError:
    first = problem.errors(include_url=False)[0]
    # An error that a check of ours raised keeps its field.
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause
    where = ".".join(str(part) for part in first["loc"]) or "state"
    return InvalidInputError(f"{where}: {first['msg']}, got {shown(first['input'])}", field=where)
