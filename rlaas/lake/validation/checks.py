"""One clause of a contract over a table, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Check", "share_check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One clause of the contract.

    Attributes:
        name: of the clause.
        passed: it holds.
        measured: what there is; null where it cannot be said.
        required: what there must be, as text.
        detail: a row that breaks it.
        scenario: whose rows it is about; null: everybody's, or those the contract is of.
    """

    name: str
    passed: bool
    measured: float | None
    required: str
    detail: str = ""
    scenario: str | None = None

    def sentence(self) -> str:
        """For a reason: what was found and what is required."""
        found = "" if self.measured is None else f"{self.measured:.4g}, "
        return f"{self.name}: {found}required {self.required}" + (f" ({self.detail})" if self.detail else "")


def share_check(
    name: str,
    excess: float,
    allowed: float,
    required: str,
    *,
    flipped: bool = False,
    detail: str = "",
    scenario: str | None = None,
) -> Check:
    """A share that may be ``allowed`` at most; ``flipped`` reports its complement, which the clause is about."""
    # Shares of counts: what is equal must not fail by the last bit.
    return Check(
        name=name,
        passed=excess <= allowed + 1e-12,
        measured=1.0 - excess if flipped else excess,
        required=required,
        detail=detail,
        scenario=scenario,
    )
