"""Questions of one observation each, which may be decided together."""

from __future__ import annotations

from typing import Any, NamedTuple

from rlaas.serving.allocation import allocate_one
from rlaas.serving.loaded import LivePolicy, LoadedVariant
from rlaas.serving.principal import Principal
from rlaas.serving.requests import DecideRequest
from rlaas.serving.rows import sole

__all__ = ["Drawn", "Question", "draw"]


class Question(NamedTuple):
    """A decide request that was read and checked, but for what only its policy can say.

    Attributes:
        principal: who asks.
        live: the deployment as it stood when it was read.
        request: what is asked.
        arrived_ns: when, monotonic nanoseconds.
    """

    principal: Principal
    live: LivePolicy
    request: DecideRequest
    arrived_ns: int

    @property
    def plain(self) -> bool:
        """One observation, and nothing that hangs on what was decided before or elsewhere: may wait for others."""
        request = self.request
        return request.observation is not None and request.constraints is None and self.live.shield is None


class Drawn(NamedTuple):
    """A plain question whose variant was drawn; ``place`` is that among the questions."""

    place: int
    question: Question
    uuid: str
    unit: str | None
    session: str | None
    variant: LoadedVariant
    propensity: float

    def group(self) -> tuple[Any, ...]:
        """Those that share it are decided together."""
        request = self.question.request
        weights = None if request.preference is None else tuple(request.preference.items())
        return self.question.principal, id(self.question.live), id(self.variant), request.mode, weights


def draw(place: int, question: Question, uuid: str) -> Drawn:
    """Draw the variant that answers ``question``, the one at ``place``.

    Raises:
        InvalidInputError: its unit, session or step cannot be used.
    """
    live, request = question.live, question.request
    unit, session = sole(request.unit, "unit"), sole(request.session, "session")
    if live.alone:
        return Drawn(place, question, uuid, unit, session, live.primary, 1.0)
    variant, propensity = allocate_one(live, request, uuid if unit is None else unit, request.observation or ())
    return Drawn(place, question, uuid, unit, session, variant, propensity)
