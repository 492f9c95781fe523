"""A feature of one entity, fed with events as they become known; and the same over all events at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import LakeError
from rlaas.lake.features.definitions import FeatureDefinition
from rlaas.lake.features.kernels import FLOATS, INTS, KINDS, advance, feature_log, fresh_state

__all__ = ["FeatureState", "transform"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class FeatureState:
    """The incremental form: what has to be remembered of the events of an entity.

    Args:
        definition: of the feature.
        content: what :meth:`encoded` gave; None: no event yet.

    Attributes:
        value: of the feature now; NaN before the first event.
        time_us: of the newest event.
        known_us: when the last event became available.

    Raises:
        LakeError: ``content`` is damaged.
    """

    def __init__(self, definition: FeatureDefinition, content: bytes | None = None) -> None:
        self._kind = KINDS[definition.transformation.aggregate]
        self._window = definition.window_us
        self.value = float("nan")
        self._ints, self._floats = fresh_state()
        self._times, self._values = np.empty(0, np.int64), np.empty(0)
        if content is not None:
            self._decode(content)

    @property
    def time_us(self) -> int:
        """Time of the newest event, UTC microseconds."""
        return int(self._ints[0])

    @property
    def known_us(self) -> int:
        """When the last event became available, UTC microseconds."""
        return int(self._ints[2])

    def feed(self, available: Ints, times: Ints, values: Floats) -> Floats:
        """Take events, in the order in which they became available; the value behind each of them [n]."""
        out, heads = np.empty(len(values)), np.empty(len(values), np.int64)
        self._times, self._values = advance(
            self._kind,
            self._window,
            available,
            times,
            values,
            0,
            len(values),
            self._ints,
            self._floats,
            self._times,
            self._values,
            out,
            heads,
        )
        if len(out):
            self.value = float(out[-1])
        return out

    def encoded(self) -> bytes:
        """As bytes: integers, the value, the extreme and the partial sums, and the events of the window."""
        partials, length = int(self._ints[4]), int(self._ints[5])
        return b"".join(
            (
                self._ints.tobytes(),
                np.float64(self.value).tobytes(),
                self._floats[: 1 + partials].tobytes(),
                self._times[:length].tobytes(),
                self._values[:length].tobytes(),
            )
        )

    def _decode(self, content: bytes) -> None:
        words = len(content) // 8
        if len(content) % 8 or words < INTS + 2:
            raise LakeError("the state of a feature is damaged: rebuild it")
        ints = np.frombuffer(content, np.int64, INTS)
        partials, length = int(ints[4]), int(ints[5])
        if not 0 <= partials < FLOATS or length < 0 or words != INTS + 2 + partials + 2 * length:
            raise LakeError("the state of a feature is damaged: rebuild it")
        floats = np.frombuffer(content, np.float64, offset=8 * INTS)
        self._ints = ints.copy()
        self.value = float(floats[0])
        self._floats[: 1 + partials] = floats[1 : 2 + partials]
        start = 8 * (INTS + 2 + partials)
        self._times = np.frombuffer(content, np.int64, length, start).copy()
        self._values = np.frombuffer(content, np.float64, length, start + 8 * length).copy()


def transform(
    definition: FeatureDefinition, codes: Ints, available: Ints, times: Ints, values: Floats
) -> tuple[Floats, Ints]:
    """The pure form: a feature's value behind every event, and the time of the newest event in it.

    Args:
        definition: of the feature.
        codes: entities as numbers [n].
        available, times: UTC microseconds [n], sorted by (code, available, time).
        values: of the events [n]; NaN does not count.

    Returns:
        Values float64 [n] and times int64 [n]: at every row what :class:`FeatureState` says once it was fed the
        entity's rows up to there, bit for bit.
    """
    kind = KINDS[definition.transformation.aggregate]
    found, heads = feature_log(kind, definition.window_us, codes, available, times, values)
    return found, heads
