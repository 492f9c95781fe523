"""The coordinator's side of secure aggregation: four questions to all sites, and the sum of those that last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import RetryableError
from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.masking import PublicKeys, Revealed, unmask
from rlaas.training.federated.privacy import NoisePlan
from rlaas.training.federated.roster import Deadline, Roster

__all__ = ["Exchange", "TooFewSitesError"]

OnPhase = Callable[[str], None]


class TooFewSitesError(RetryableError):
    """A round lost too many sites; the global model is what it was."""


@dataclass
class Exchange:
    """One session of secure aggregation.

    Args:
        config: the federation.
        roster: carries the questions.
        missing: entered into, by site: at which step it was left out, and why.
        on_phase: told ``keys``, ``shares``, ``masked`` and ``revealed`` once that step is done.
    """

    config: FederationConfig
    roster: Roster
    missing: dict[str, str]
    on_phase: OnPhase

    def total(self, names: Iterable[str], noise: NoisePlan | None, on_unmask: Callable[[], None]) -> _Total:
        """The exact sum of the pending updates of the sites that last until their masked update is in.

        Args:
            names: sites that have trained.
            noise: what they add, or None.
            on_unmask: called before the first mask is asked for: from then on the sum may become known.

        Raises:
            TooFewSitesError: fewer than the threshold are left, or fewer than ``min_sites`` delivered.
        """
        session, threshold = os.urandom(32), self.config.threshold
        fewest = self.config.fewest_sites
        keys: dict[str, PublicKeys] = self._phase("keys", list(names), fewest, "open_session", session)
        by_number = {self._number(name): key for name, key in keys.items()}
        sealed: dict[str, dict[int, bytes]] = self._phase("shares", keys, fewest, "share_keys", by_number)
        inbox = {
            name: {
                self._number(sender): given[self._number(name)] for sender, given in sealed.items() if sender != name
            }
            for name in sealed
        }
        masked: dict[str, NDArray[np.uint64]] = self._phase(
            "masked", sealed, fewest, "masked_update", each={name: (inbox[name], noise) for name in sealed}
        )
        on_unmask()
        survivors = [self._number(name) for name in masked]
        revealed: dict[str, Revealed] = self._phase("revealed", masked, threshold, "reveal", survivors)
        total = unmask(
            {self._number(name): vector for name, vector in masked.items()},
            by_number,
            [self._number(name) for name in sealed],
            {self._number(name): shares for name, shares in revealed.items()},
            session=session,
            threshold=threshold,
        )
        return _Total(total, list(masked))

    def _number(self, name: str) -> int:
        return self.config.number_of(name)

    def _phase(
        self,
        phase: str,
        names: Iterable[str],
        fewest: int,
        method: str,
        *arguments: Any,
        each: dict[str, tuple[Any, ...]] | None = None,
    ) -> Any:
        asked = dict.fromkeys(names, arguments) if each is None else each
        answers = self.roster.ask_each(asked, method, Deadline(self.config.answer_s))
        self.missing.update({name: f"{phase}: {reason}" for name, reason in answers.missing.items()})
        self.on_phase(phase)
        if len(answers.values) < fewest:
            raise TooFewSitesError(f"{len(answers.values)} sites answered in step {phase!r}, {fewest} are needed")
        return answers.values


@dataclass(frozen=True, slots=True)
class _Total:
    """A sum [n], and the sites that are in it."""

    vector: NDArray[np.uint64]
    sites: list[str]
