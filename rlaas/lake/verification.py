"""Shows that what was acknowledged is in ``bronze`` exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from rlaas.lake.tables import Lake

__all__ = ["Verification", "Verifications", "verify"]


@dataclass(frozen=True, slots=True)
class Verification:
    """One stream, checked.

    Attributes:
        acknowledged: distinct receipts that callers hold.
        in_bronze: how many of them are in the table.
        duplicates: rows too many among them.
        missing: receipts that are not in the table.
    """

    acknowledged: int
    in_bronze: int
    duplicates: int
    missing: tuple[str, ...]

    @property
    def exactly_once(self) -> bool:
        """Every acknowledged receipt is in the table once."""
        return not self.missing and not self.duplicates


class Verifications(NamedTuple):
    """Both streams, checked."""

    decisions: Verification
    outcomes: Verification

    @property
    def exactly_once(self) -> bool:
        """Every acknowledged receipt of both streams is in its table once."""
        return self.decisions.exactly_once and self.outcomes.exactly_once


def verify(lake: Lake, *, decisions: Iterable[str] = (), outcomes: Iterable[str] = ()) -> Verifications:
    """Look up acknowledged receipts in ``bronze``.

    Args:
        lake: the tables.
        decisions: receipt ids (decision ids) of acknowledged decisions.
        outcomes: receipt ids of acknowledged outcomes.
    """
    return Verifications(_check(lake, "bronze.decisions", decisions), _check(lake, "bronze.outcomes", outcomes))


def _check(lake: Lake, table: str, receipts: Iterable[str]) -> Verification:
    wanted = pa.array(sorted(set(receipts)), type=pa.string())
    stored = lake.read(table, columns=["receipt_id"]).column("receipt_id")
    found = stored.filter(pc.is_in(stored, value_set=wanted))
    distinct = len(found.unique())
    missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=found.unique())))
    return Verification(
        acknowledged=len(wanted),
        in_bronze=distinct,
        duplicates=len(found) - distinct,
        missing=tuple(missing.to_pylist()),
    )
