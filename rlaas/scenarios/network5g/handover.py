"""Which cell serves whom: the A3 event with its filter and timer, radio-link failure, eviction from sleeping cells."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.reference import STEP_S, HandoverRule

__all__ = ["Attachment", "Events"]

Float32Array = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

NEVER_S = 1e6
NO_MARGIN_DB = -1e3


@dataclass(frozen=True, slots=True)
class Events:
    """What happened in one interval, each [envs, users] bool."""

    handover: BoolArray
    ping_pong: BoolArray
    failure: BoolArray

    @property
    def interrupted(self) -> BoolArray:
        """Users whose data paused for the interruption time of a handover."""
        return self.handover


@dataclass(slots=True)
class Attachment:
    """Serving cells and the state of their measurement events.

    Attributes:
        serving, previous: cell that serves each user now and before its last handover [envs, users].
        since: seconds since the last handover [envs, users].
        filtered: L3-filtered received power in dBm [envs, users, cells].
        margin: by how much each cell met the entering condition in dB, last time [envs, users, cells].
        held: for how long it has met it without leaving, in s [envs, users, cells].
        weak: for how long the serving link has been below the failure threshold, in s [envs, users].
    """

    serving: NDArray[np.int64]
    previous: NDArray[np.int64]
    since: NDArray[np.float64]
    filtered: Float32Array
    margin: Float32Array
    held: Float32Array
    weak: NDArray[np.float64]

    @classmethod
    def start(cls, received_dbm: Float32Array) -> Attachment:
        """Every user at its strongest cell, for received power [envs, users, cells]."""
        envs, users, _ = received_dbm.shape
        serving = np.argmax(received_dbm, axis=-1)
        return cls(
            serving=serving,
            previous=serving.copy(),
            since=np.full((envs, users), NEVER_S),
            filtered=received_dbm.copy(),
            margin=np.full(received_dbm.shape, NO_MARGIN_DB, dtype=np.float32),
            held=np.zeros(received_dbm.shape, dtype=np.float32),
            weak=np.zeros((envs, users)),
        )

    def copy(self) -> Attachment:
        """A deep copy."""
        return Attachment(**{f.name: getattr(self, f.name).copy() for f in fields(self)})

    def update(
        self,
        received_dbm: Float32Array,
        cell_offset_db: Float32Array,
        handover_offset_db: Float32Array,
        off: BoolArray,
        rule: HandoverRule,
    ) -> Events:
        """Filter, evaluate A3 and move users, TS 38.331 section 5.5.4.4.

        Entering: ``M_n + O_n - Hys > M_p + O_p + Off``; leaving the same with ``+ Hys``; a handover follows when the
        condition has held for the time to trigger. The grid is 100 ms, so the instant at which a margin crossed zero
        is interpolated between samples, and a handover takes effect at the first sample after the timer ran out.

        Args:
            received_dbm: received power [envs, users, cells].
            cell_offset_db: individual offset O of each cell [envs, cells].
            handover_offset_db: offset Off used by the users of each cell [envs, cells].
            off: cells asleep, which serve nobody [envs, cells]; their users move at once to the best one awake.
            rule: constants.
        """
        self.since += STEP_S
        # A user whose link failed, or whose cell fell asleep, re-establishes on the cell it hears best.
        failure = self.weak >= rule.failure_s - 1e-9
        some_awake = ~np.asarray(off.all(axis=1))
        evicted = np.take_along_axis(off, self.serving, axis=1) & some_awake[:, None]
        self.filtered += np.float32(rule.filter_share) * (received_dbm - self.filtered)
        biased = self.filtered + cell_offset_db[:, None, :]
        biased = np.where(off[:, None, :], np.float32(-1e6), biased)
        own = np.take_along_axis(biased, self.serving[..., None], axis=-1)
        threshold = own + np.take_along_axis(handover_offset_db, self.serving, axis=1)[..., None]
        hysteresis = np.float32(rule.hysteresis_db)
        margin = biased - threshold - hysteresis
        np.put_along_axis(margin, self.serving[..., None], np.float32(NO_MARGIN_DB), axis=-1)

        entered = (margin > 0) & (self.held == 0)
        crossing = np.float32(STEP_S) * np.clip(margin / np.maximum(margin - self.margin, np.float32(1e-6)), 1e-3, 1)
        staying = (self.held > 0) & (margin > -2 * hysteresis)
        held = np.where(entered, crossing, np.where(staying, self.held + np.float32(STEP_S), np.float32(0.0)))
        ripe = held >= np.float32(rule.time_to_trigger_s)

        candidate = np.where(ripe, biased, np.float32(-2e6))
        target = np.argmax(np.where((failure | evicted)[..., None], biased, candidate), axis=-1)
        moves = (ripe.any(axis=-1) | failure | evicted) & (target != self.serving)
        ping_pong = moves & (target == self.previous) & (self.since <= rule.ping_pong_s + 1e-9)
        self.previous = np.where(moves, self.serving, self.previous)
        self.serving = np.where(moves, target, self.serving)
        self.since = np.where(moves, 0.0, self.since)
        self.held = np.where(moves[..., None], np.float32(0.0), held)
        self.margin = np.where(moves[..., None], np.float32(NO_MARGIN_DB), margin)
        self.weak = np.where(failure | moves, 0.0, self.weak)
        return Events(handover=moves, ping_pong=ping_pong, failure=failure)

    def watch(self, sinr_db: NDArray[np.floating[Any]], rule: HandoverRule) -> None:
        """Run the radio-link-failure timer T310 on the serving SINR [envs, users]."""
        self.weak = np.where(sinr_db < rule.failure_db, self.weak + STEP_S, 0.0)
