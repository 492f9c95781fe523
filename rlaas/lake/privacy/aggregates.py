"""Counts, sums and means that say little about any one subject: noise by OpenDP, paid for from a budget.

What is protected is a subject, not a row: of each at most ``per_subject`` rows count, chosen by a hash, so that all
that somebody did moves no answer by more than so many rows. Values are clamped to declared bounds and put on a grid of
whole numbers before they are added, as sums of floats are not as insensitive as they look (Casacuberta et al. 2022);
the noise is discrete as well. Groups are declared by whoever asks: which groups there are would itself be an answer.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import InvalidInputError, check_choice
from rlaas.lake.privacy.budget import Budget, check_loss
from rlaas.lake.schemas import table_spec
from rlaas.lake.tables import Lake

__all__ = ["Query", "aggregate", "noise_of"]

STATISTICS = ("count", "mean", "sum")
MECHANISMS = ("gaussian", "laplace")
_STEPS = 2**20
"""Steps of the grid between the bounds."""
_MOST_GROUPS, _MOST_ROWS = 10_000, 2**40

Noise = Callable[[Sequence[int]], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question.

    Attributes:
        table: of the lake.
        statistic: ``count``, ``sum`` or ``mean``.
        column: of numbers, or ``column.key`` of a column of numbers by name (``outcome.latency``); not for counts.
        bounds: values are clamped to; not for counts.
        by: column of text to group by.
        groups: the groups that are asked for.
        epsilon, delta: what the answer costs; a delta above 0 for the Gaussian mechanism alone.
        mechanism: ``laplace`` or ``gaussian``.
        subject: column that says whose a row is; a row without is a subject of its own.
        per_subject: rows of a subject that count, at most.
    """

    table: str
    statistic: Literal["count", "sum", "mean"]
    column: str | None = None
    bounds: tuple[float, float] | None = None
    by: str | None = None
    groups: tuple[str, ...] = ()
    epsilon: float
    delta: float = 0.0
    mechanism: Literal["laplace", "gaussian"] = "laplace"
    subject: str = "unit"
    per_subject: int = 1

    def check(self) -> Query:
        """Raise where the question cannot be answered.

        Raises:
            RequestError: names the field and what is allowed.
        """
        names = table_spec(self.table).schema.names
        check_loss(self.epsilon, self.delta)
        check_choice(self.statistic, STATISTICS, field="statistic")
        check_choice(self.mechanism, MECHANISMS, field="mechanism")
        check_choice(self.subject, names, field=f"subject of {self.table}")
        if self.by is not None:
            check_choice(self.by, names, field=f"by of {self.table}")
        if (self.by is None) != (not self.groups):
            raise InvalidInputError(
                "give by and groups together: groups that are not declared are not answered", field="groups"
            )
        if len(set(self.groups)) != len(self.groups) or len(self.groups) > _MOST_GROUPS:
            raise InvalidInputError(f"groups must differ, and be at most {_MOST_GROUPS}", field="groups")
        if (self.mechanism == "gaussian") != (self.delta > 0):
            raise InvalidInputError("delta is above 0 for the Gaussian mechanism, and 0 for Laplace's", field="delta")
        if not 1 <= self.per_subject <= 1_000_000:
            raise InvalidInputError(f"per_subject is {self.per_subject}; allowed: 1 to 1,000,000", field="per_subject")
        if self.statistic == "count":
            if self.column is not None or self.bounds is not None:
                raise InvalidInputError("a count takes no column and no bounds", field="column")
            return self
        if self.column is None or self.bounds is None:
            raise InvalidInputError(f"a {self.statistic} needs a column and bounds", field="bounds")
        check_choice(self.column.partition(".")[0], names, field=f"column of {self.table}")
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InvalidInputError(
                f"bounds are {low:g} and {high:g}; allowed: finite, the lower one first", field="bounds"
            )
        return self


def aggregate(lake: Lake, budget: Budget, analyst: str, query: Query) -> dict[str, Any]:
    """Answer a question under differential privacy.

    The budget is charged before any noise is drawn, and never given back.

    Returns:
        ``answer`` (a number, or numbers by group), ``scale`` of the noise in the unit of the answer's sums,
        ``epsilon_left`` and ``delta_left``, and the ``entry`` in the ledger.

    Raises:
        RequestError: the question cannot be answered.
        BudgetError: the budget does not cover it.
    """
    query.check()
    sums, counts, low, step = _totals(lake, query)
    # A mean is a sum and a count, at half the price each.
    parts = 2 if query.statistic == "mean" else 1
    width = 1 if query.bounds is None else _steps_from_zero(query, low, step)
    share, share_delta = query.epsilon / parts, query.delta / parts
    noise_sum, scale_sum = noise_of(query.mechanism, width * query.per_subject, share, share_delta)
    noise_count, scale_count = noise_of(query.mechanism, query.per_subject, share, share_delta)
    entry = budget.reserve(analyst, _described(query), epsilon=query.epsilon, delta=query.delta)
    if query.statistic == "count":
        values: list[float] = [float(n) for n in noise_count(counts)]
        scale = scale_count
    elif query.statistic == "sum":
        values = [n * step for n in noise_sum(sums)]
        scale = scale_sum * step
    else:
        assert query.bounds is not None
        low_bound, high_bound = query.bounds
        middle = (low_bound + high_bound) / 2
        around = zip(noise_sum(sums), noise_count(counts), strict=True)
        # Clamping to the bounds, and a count of at least 1, look at nothing but the noisy figures.
        values = [min(high_bound, max(low_bound, middle + s * step / max(1, n))) for s, n in around]
        scale = scale_sum * step
    answer: Any = dict(zip(query.groups, values, strict=True)) if query.by else values[0]
    budget.release(entry, answer)
    left = budget.account(analyst)
    return {
        "answer": answer,
        "scale": scale,
        "mechanism": query.mechanism,
        "epsilon_left": left.epsilon_left,
        "delta_left": left.delta_left,
        "entry": entry,
    }


def noise_of(mechanism: str, sensitivity: int, epsilon: float, delta: float) -> tuple[Noise, float]:
    """A function that adds noise to whole numbers, and the scale of the noise.

    The scale is the smallest at which OpenDP's privacy map of the measurement stays within (epsilon, delta): for
    Laplace sensitivity / epsilon; for the Gaussian mechanism by zero-concentrated differential privacy (Bun and Steinke
    2016), converted.

    Args:
        mechanism: ``laplace`` or ``gaussian``.
        sensitivity: by how much one subject moves all the numbers together, at most (L1, and so L2 too).
        epsilon, delta: for all the numbers together.
    """
    import opendp.prelude as dp

    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    if mechanism == "laplace":
        space = domain, dp.l1_distance(T="i64")
        scale = float(
            dp.binary_search_param(
                lambda s: space >> dp.m.then_laplace(scale=s), d_in=sensitivity, d_out=epsilon, T=float
            )
        )
        return (space >> dp.m.then_laplace(scale=scale)), scale
    normed = domain, dp.l2_distance(T=float)

    def converted(scale: float) -> Any:
        return dp.c.make_fix_delta(dp.c.make_zCDP_to_approxDP(normed >> dp.m.then_gaussian(scale=scale)), delta=delta)

    scale = float(dp.binary_search_param(converted, d_in=float(sensitivity), d_out=(epsilon, delta), T=float))
    return (normed >> dp.m.then_gaussian(scale=scale)), scale


def _totals(lake: Lake, query: Query) -> tuple[list[int], list[int], float, float]:
    """Sums of grid steps and counts by group, the zero of the grid, and its step."""
    column = None if query.column is None else query.column.partition(".")[0]
    wanted = dict.fromkeys(name for name in (query.subject, query.by, column) if name is not None)
    rows = lake.read(query.table, list(wanted))
    values, valid = _numbers(rows, query)
    groups = query.groups or ("",)
    place = np.zeros(rows.num_rows, dtype=np.int64)
    if query.by is not None:
        found = pc.index_in(rows.column(query.by).cast(pa.string()), value_set=pa.array(groups, type=pa.string()))
        place = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    chosen = np.flatnonzero(valid & (place >= 0))
    chosen = chosen[_bounded(rows.column(query.subject).take(pa.array(chosen)), query.per_subject)]
    counts = np.bincount(place[chosen], minlength=len(groups)).astype(np.int64)
    if query.bounds is None:
        return [0] * len(groups), [int(n) for n in counts], 0.0, 1.0
    low, high = query.bounds
    step = (high - low) / _STEPS
    zero = (low + high) / 2 if query.statistic == "mean" else 0.0
    steps = np.rint((np.clip(values[chosen], low, high) - zero) / step).astype(np.int64)
    sums = np.zeros(len(groups), dtype=np.int64)
    np.add.at(sums, place[chosen], steps)
    return [int(n) for n in sums], [int(n) for n in counts], zero, step


def _steps_from_zero(query: Query, zero: float, step: float) -> int:
    """By how many steps one row moves a sum, at most."""
    assert query.bounds is not None
    return math.ceil(max(abs(bound - zero) for bound in query.bounds) / step)


def _numbers(rows: pa.Table, query: Query) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Values [n] and which of them are numbers."""
    if query.column is None:
        return np.zeros(rows.num_rows), np.ones(rows.num_rows, dtype=np.bool_)
    name, _, key = query.column.partition(".")
    column = rows.column(name)
    if pa.types.is_map(column.type):
        column = pc.map_lookup(column.combine_chunks(), pa.scalar(key), "first")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise InvalidInputError(
            f"column {query.column} of {query.table} is {column.type}; allowed: numbers, or name.key of a map",
            field="column",
        )
    values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return values, np.isfinite(values)


def _bounded(subjects: pa.ChunkedArray, most: int) -> npt.NDArray[np.int64]:
    """Positions of at most ``most`` rows of each subject, at random."""
    codes = pc.fill_null(subjects.combine_chunks().dictionary_encode().indices, -1).to_numpy().astype(np.int64)
    alone = codes < 0
    codes[alone] = -1 - np.arange(len(codes))[alone]
    # Which rows stand for somebody must not follow from the order in which they came.
    order = np.random.default_rng(secrets.randbits(128)).permutation(len(codes))
    shuffled = codes[order]
    by_code = np.argsort(shuffled, kind="stable")
    ordered = shuffled[by_code]
    first = np.searchsorted(ordered, ordered, side="left")
    kept = np.arange(len(ordered)) - first < most
    return np.sort(order[by_code[kept]])


def _described(query: Query) -> dict[str, Any]:
    return {name: value for name, value in asdict(query).items() if value not in (None, ())}
