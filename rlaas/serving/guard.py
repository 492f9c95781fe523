"""A shield at work: it knows what a session did last, and keeps what the policy proposed beside what is answered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.serving.requests import DecideRequest
from rlaas.serving.shield import ActiveShield
from rlaas.serving.shield_spec import PREVIOUS

if TYPE_CHECKING:
    from rlaas.serving.loaded import LivePolicy

__all__ = ["REMEMBERED", "Guard", "Guarded"]

FloatArray = NDArray[np.float64]
Key = tuple[str, str, int]

REMEMBERED = 100_000
"""Sessions whose last action a process keeps; the one heard of longest ago goes first."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a shield made of actions.

    Attributes:
        actions: that are answered [n, ...].
        proposed: what the policy chose where that is something else, as the log keeps it; None elsewhere [n].
    """

    actions: NDArray[Any]
    proposed: Sequence[list[float] | None]


@dataclass(frozen=True, slots=True)
class _Last:
    """The last action of a session.

    Attributes:
        step: of it, if the caller counts.
        action: as answered.
        before: the one before it, which a repetition of the step is held to.
    """

    step: int | None
    action: list[float]
    before: list[float] | None


class Guard:
    """Applies shields; thread-safe.

    The step before is that of the same policy and session in this process, or what the caller says under
    ``previous_action`` in the context. Where a caller counts its steps and the one before is not known here, the
    decision is refused: its change could not be limited. Rows of one request that share a session are decision makers
    that step together: each is held to the row at its place in the request before.

    Args:
        remembered: sessions that are kept.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._last: OrderedDict[Key, _Last] = OrderedDict()
        self._lock = threading.Lock()

    def previous(
        self, live: LivePolicy, shield: ActiveShield, request: DecideRequest, sessions: Sequence[str | None]
    ) -> FloatArray | None:
        """Actions of the step before [n, n_actions], NaN where there is none; None where no change is limited.

        Raises:
            InvalidInputError: ``previous_action`` is no action, or it is needed and missing.
        """
        if shield.max_change is None:
            return None
        width = len(shield.max_change)
        told = (request.context or {}).get(PREVIOUS)
        if told is not None:
            return _told(told, len(sessions), width)
        result = np.full((len(sessions), width), np.nan)
        with self._lock:
            for row, key in enumerate(_keys(live.record.policy, sessions)):
                action = None if key is None else self._before(key, request.step, width)
                if action is not None:
                    result[row] = action
        return result

    def apply(
        self,
        shield: ActiveShield,
        request: DecideRequest,
        rows: NDArray[Any],
        actions: NDArray[Any],
        previous: FloatArray | None,
    ) -> Guarded:
        """What is answered instead of ``actions`` [n, ...] for ``rows`` [n, n_features].

        Raises:
            InvalidInputError: the context does not say what a rule hangs on.
        """
        after = shield.apply(rows, actions, request.context, previous)
        if after is actions:
            return Guarded(actions, [None] * len(actions))
        changed = (after != actions).reshape(len(actions), -1).any(axis=1).tolist()
        columns = actions.reshape(len(actions), -1).astype(np.float64).tolist()
        return Guarded(
            after, [proposed if differs else None for proposed, differs in zip(columns, changed, strict=True)]
        )

    def remember(
        self,
        live: LivePolicy,
        shield: ActiveShield,
        request: DecideRequest,
        sessions: Sequence[str | None],
        actions: Sequence[Any],
    ) -> None:
        """Keep the answered actions [n, n_actions], once they are in the log."""
        if shield.max_change is None:
            return
        with self._lock:
            for key, action in zip(_keys(live.record.policy, sessions), actions, strict=True):
                if key is None:
                    continue
                known = self._last.pop(key, None)
                again = known is not None and known.step is not None and known.step == request.step
                before = None if known is None else known.before if again else known.action
                self._last[key] = _Last(request.step, action, before)
            while len(self._last) > self._remembered:
                self._last.popitem(last=False)

    def _before(self, key: Key, step: int | None, width: int) -> list[float] | None:
        known = self._last.get(key)
        if known is not None and len(known.action) != width:  # of a deployment with other actions
            known = None
        if step is None:
            return None if known is None else known.action
        if known is not None and known.step is not None and known.step == step:
            return known.before if known.before is not None and len(known.before) == width else None
        if step == 0:
            return None
        if known is None or (known.step is not None and known.step != step - 1):
            raise InvalidInputError(
                f"context.{PREVIOUS} is needed: the shield limits changes from step to step, and step {step - 1} of "
                f"session {key[1]!r} was not decided here",
                field=f"context.{PREVIOUS}",
            )
        return known.action


def _keys(policy: str, sessions: Sequence[str | None]) -> list[Key | None]:
    """Under what the last action of each row is kept; None for a row without a session."""
    counts: dict[str, int] = {}
    keys: list[Key | None] = []
    for session in sessions:
        if session is None:
            keys.append(None)
            continue
        place = counts.get(session, 0)
        counts[session] = place + 1
        keys.append((policy, session, place))
    return keys


def _told(value: Any, count: int, width: int) -> FloatArray:
    """The caller's own word: one action, or one for each row."""
    field = f"context.{PREVIOUS}"
    try:
        nested = isinstance(value, list) and bool(value) and isinstance(value[0], list)
        rows = msgspec.convert(value if nested else [value], list[list[float]])
    except msgspec.ValidationError as problem:
        raise InvalidInputError(f"{field} must hold numbers: {problem}", field=field) from None
    if len(rows) not in (1, count) or any(len(row) != width for row in rows):
        raise InvalidInputError(
            f"{field} must be an action of {width} numbers, or one for each of {count} rows", field=field
        )
    return np.broadcast_to(np.array(rows, dtype=np.float64), (count, width))
