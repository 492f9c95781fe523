"""Judgements of versions, made before a lock is taken and looked up under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaas.control.gating.logged import LoggedRows
from rlaas.control.gating.logged_sessions import LoggedSessions
from rlaas.errors import ConflictError
from rlaas.experiments.gate import Verdict

__all__ = ["Judged", "Judgements", "UnjudgedError", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be judged: a version as it would be served, by the declaration of a moment.

    Attributes:
        policy: whose gate.
        declared_us: when what holds was declared, UTC microseconds.
        version, explore, epsilon: as it would serve.
    """

    policy: str
    declared_us: int
    version: int
    explore: bool
    epsilon: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the rows that it rests on; None where it could not come to rows."""

    verdict: Verdict
    rows: LoggedRows | LoggedSessions | None


Judgements = dict[Wanted, Judged]


class UnjudgedError(ConflictError):
    """A change that needs judgements which nobody has made yet; whoever holds no lock makes them and tries again.

    Attributes:
        wanted: what has to be judged.
    """

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        super().__init__(f"versions of {wanted[0].policy!r} have to be judged first", field="version")
        self.wanted = tuple(wanted)
