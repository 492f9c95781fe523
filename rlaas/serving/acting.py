"""Who answers: the variant that was drawn, a reserve while its circuit is open, or else the safe default."""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaas.bundles import Float32
from rlaas.errors import BundleError, InvalidInputError, RetryableError
from rlaas.serving.choosing import Chosen
from rlaas.serving.circuit import Circuits
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.pressure import Pressure
from rlaas.serving.requests import DecideRequest
from rlaas.serving.tally import Tally

__all__ = ["Acted", "Acting", "SplitError"]


class SplitError(Exception):
    """Something is wrong with one of several requests that were put together; nothing was counted or logged."""


class Acted(NamedTuple):
    """Who answered, under which preference, with which actions [n, ...] and propensities [n].

    ``candidate`` is that of the front which the constraints led to.
    """

    variant: LoadedVariant
    preference: dict[str, float] | None
    actions: NDArray[Any]
    densities: NDArray[np.float64] | None
    candidate: str | None = None


class Acting:
    """Runs the networks of versions, and survives them.

    Args:
        tally: counts what a version could not answer.
        pressure: while it is pressed nothing is explored.
        seed: of exploration; default the operating system's entropy.

    Attributes:
        circuits: which versions keep failing.
    """

    def __init__(self, tally: Tally, pressure: Pressure, seed: int | None = None) -> None:
        self.circuits = Circuits()
        self._tally = tally
        self._pressure = pressure
        self._seeds = np.random.SeedSequence(seed)
        self._local = threading.local()

    def act(
        self,
        live: LivePolicy,
        variant: LoadedVariant,
        rows: Float32,
        request: DecideRequest,
        *,
        together: bool = False,
    ) -> Acted:
        """What is decided for observations [n, n_features] under the preference and constraints of a request.

        Args:
            live: the deployment.
            variant: that was drawn.
            rows: observations float32 [n, n_features].
            request: its preference and constraints hold for all rows.
            together: the rows are of several requests, of which one must not spoil the others.

        Raises:
            SplitError: a version fails for some of several requests; nothing was counted.
            InvalidInputError: a preference or a constraint that cannot be kept.
            RetryableError: nobody can answer.
        """
        failure: Exception | None = None
        for candidate in (variant, *live.reserves):
            chosen: Chosen | None = None
            if request.constraints is not None:
                try:
                    chosen = candidate.choose(request.constraints, request.mode, request.preference)
                except InvalidInputError:
                    if candidate is variant:
                        raise
                    continue  # a reserve's front is not what the caller asked for: its lack is no fault of theirs
                if chosen.action is not None:
                    return Acted(candidate, None, chosen.action.repeat(len(rows), axis=0), None, chosen.name)
            circuit = self.circuits.of(candidate.policy_name, candidate.version)
            if not circuit.admits():
                continue
            if chosen is None:
                weights, preference = candidate.preference(request.mode, request.preference)
            else:
                weights, preference = chosen.weights, chosen.preference
            try:
                explores = candidate.explore and not self._pressure.pressed
                actions, densities = candidate.policy.act(
                    rows,
                    weights,
                    rng=self.draws() if explores else None,
                    epsilon=candidate.epsilon if explores else 0.0,
                )
                if not math.isfinite(actions.sum()):
                    raise BundleError(f"version {candidate.version} gave an action that is not finite")
            except InvalidInputError:  # the caller's fault, such as a missing preference
                raise
            except Exception as problem:  # whatever a version raises is its own fault, and has to be survived
                # A failed trial of an open circuit says enough by itself: apart, the others would not be admitted.
                if together and len(rows) > 1 and not circuit.is_open:
                    raise SplitError from problem
                failure = problem
                self._tally.failed(candidate.policy_name, candidate.version)
                circuit.failed()
            else:
                circuit.succeeded()
                return Acted(candidate, preference, actions, densities, None if chosen is None else chosen.name)
        if live.safe_default is not None:
            return Acted(live.safe_default.variant, None, live.safe_default.action.repeat(len(rows), axis=0), None)
        raise RetryableError(
            f"no version of {live.record.policy!r} can answer now: version {variant.version} keeps failing"
        ) from failure

    def draws(self) -> np.random.Generator:
        """The source of exploration of this thread: generators are not thread-safe."""
        rng: np.random.Generator | None = getattr(self._local, "rng", None)
        if rng is None:
            rng = self._local.rng = np.random.default_rng(self._seeds.spawn(1)[0])
        return rng
