"""Trials as candidates of a front: the hyper-parameters of a trial, and the policy that they led to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.bundles import MANIFEST
from rlaas.errors import InvalidInputError, shown

__all__ = ["TrialPolicy", "policy_folder", "trial_folder"]


def trial_folder(identifier: str) -> str:
    """Name of a trial's folder in its experiment, from Tune's name for the trial."""
    return f"trial-{identifier}"


def policy_folder(trial: Path) -> Path:
    """Where the policy of a finished trial is kept, below the trial's folder."""
    return trial / "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPolicy:
    """The policy that a finished trial ended with.

    Attributes:
        trial: number of the trial.
        values: searched fields by dotted name; with population based training those that it ended with.
        bundle: folder of the policy.
    """

    trial: int
    values: Mapping[str, Any]
    bundle: Path

    @property
    def kept(self) -> bool:
        """Whether the policy is there: a trial on another machine writes to that machine's disk."""
        return (self.bundle / MANIFEST).is_file()

    def parameters(self) -> dict[str, Any]:
        """What the policy goes back to, as plain JSON types: ``trial`` and ``values``."""
        return {"trial": self.trial, "values": dict(self.values)}

    def to_dict(self, root: Path) -> dict[str, Any]:
        """The policy as plain JSON types, its folder relative to ``root``.

        Raises:
            ValueError: the folder does not lie below ``root``.
        """
        return {**self.parameters(), "bundle": self.bundle.relative_to(root).as_posix()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], root: Path) -> TrialPolicy:
        """The inverse of :meth:`to_dict`; ``root`` may have moved.

        Raises:
            InvalidInputError: a missing part, named.
        """
        try:
            return cls(trial=int(document["trial"]), values=dict(document["values"]), bundle=root / document["bundle"])
        except KeyError as missing:
            raise InvalidInputError(f"a trial's document lacks {missing}", field=str(missing)) from missing
        except (TypeError, ValueError) as problem:
            raise InvalidInputError(
                f"a trial's document is malformed: {shown(problem, str)}", field="trial"
            ) from problem
