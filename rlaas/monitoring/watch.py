"""One policy version under watch: learns what is normal, measures its own errors, then looks for shifts."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError
from rlaas.monitoring.baseline import BASELINE_ARRAYS, Baseline, Calibration, Learner
from rlaas.monitoring.config import DAY_S, DriftConfig
from rlaas.monitoring.detector import CLIP, EDetector

__all__ = ["Detection", "Phase", "StreamShift", "Watch"]

FloatArray = NDArray[np.float64]
Phase = Literal["learning", "calibrating", "watching"]


@dataclass(frozen=True, slots=True)
class StreamShift:
    """A stream that has shifted.

    Attributes:
        stream: its name.
        evidence: its part of the bar.
        sigma: shift of the last half minute, in standard deviations of its one-second means.
        sigma_unit: one of these, in the stream's own unit.
    """

    stream: str
    evidence: float
    sigma: float
    sigma_unit: float


@dataclass(frozen=True, slots=True)
class Detection:
    """Evidence of a shift has reached the bar.

    Attributes:
        second: UTC second whose records tipped it.
        evidence: over the bar, at least 1.
        streams: those with the most evidence, strongest first.
    """

    second: int
    evidence: float
    streams: tuple[StreamShift, ...]


class Watch:
    """Takes one-second means in, in the order of time. Its whole state is :meth:`dump`, which :meth:`load` reads.

    Args:
        config: how the policy is watched.
        streams: names of the streams.

    Raises:
        InvalidInputError: there is no stream.
    """

    def __init__(self, config: DriftConfig, streams: Sequence[str]) -> None:
        if not streams:
            raise InvalidInputError("there is no stream to watch; look at monitor and features", field="features")
        self.config, self.streams = config, tuple(streams)
        self.last_second = -1
        self._learner: Learner | None = Learner(config.reference, len(streams))
        self._baseline: Baseline | None = None
        self._calibration: Calibration | None = None
        self._scale: FloatArray = np.zeros((3, len(streams)))
        self._detector: EDetector | None = None

    @property
    def phase(self) -> Phase:
        """What it is doing."""
        if self._learner is not None:
            return "learning"
        return "calibrating" if self._detector is None else "watching"

    @property
    def remaining_s(self) -> int:
        """Seconds of traffic until it watches."""
        reference = self.config.reference
        if self._learner is not None:
            return reference.learn_s - self._learner.seconds + reference.calibrate_s
        return 0 if self._calibration is None else reference.calibrate_s - self._calibration.seconds

    def update(self, seconds: NDArray[np.int64], means: FloatArray, counts: FloatArray) -> list[Detection]:
        """Take in seconds [n], later than those before, with means and numbers of records [n, streams].

        A stream without a record in a second has NaN and 0. Behind a detection the evidence begins anew.

        Raises:
            InvalidInputError: seconds that are not in their order.
        """
        if not len(seconds):
            return []
        if seconds[0] <= self.last_second or np.any(np.diff(seconds) <= 0):
            raise InvalidInputError("seconds must come in their order, each once", field="seconds")
        self.last_second = int(seconds[-1])
        if self._learner is not None:
            room = max(self.config.reference.learn_s - self._learner.seconds, 0)
            self._learner.update(seconds[:room], means[:room]) if room else None
            if self._learner.seconds < self.config.reference.learn_s:
                return []
            self._baseline, self._learner = self._learner.fit(), None
            self._calibration = Calibration(len(self.streams))
            seconds, means, counts = seconds[room:], means[room:], counts[room:]
        if self._detector is None and len(seconds):
            seconds, means, counts = self._calibrate(seconds, means, counts)
        return self._look(seconds, means, counts) if len(seconds) else []

    def evidence(self) -> list[StreamShift]:
        """Every stream with its evidence, strongest first; empty until it watches."""
        if self._detector is None or self._baseline is None:
            return []
        evidence, shifts, sigma = self._detector.evidence(), self._detector.shifts(), self._baseline.sigma
        return [
            StreamShift(self.streams[i], float(evidence[i]), float(shifts[i]), float(sigma[i]))
            for i in np.argsort(-evidence)
        ]

    def _calibrate(
        self, seconds: NDArray[np.int64], means: FloatArray, counts: FloatArray
    ) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Use up what the calibration still needs; what is left is watched."""
        baseline, calibration = self._baseline, self._calibration
        assert baseline is not None
        assert calibration is not None
        room = max(self.config.reference.calibrate_s - calibration.seconds, 0)
        if room:
            calibration.update(baseline.standardise(seconds[:room], means[:room]).z, counts[:room])
        if calibration.seconds >= self.config.reference.calibrate_s:
            self._scale, self._calibration = calibration.scale(), None
            self._detector = detector = self._new_detector(baseline)
            detector.psi = calibration.cumulants(detector.rates, self._usual_width(), CLIP)
        return seconds[room:], means[room:], counts[room:]

    def _new_detector(self, baseline: Baseline) -> EDetector:
        return EDetector(
            baseline.gain / np.maximum(self._usual_width(), 1.0),
            shift=self.config.shift_sigma,
            arl_s=self.config.arl_days * DAY_S,
            tolerance=self.config.reference.tolerance,
        )

    def _usual_width(self) -> FloatArray:
        a, b, share = self._scale
        return np.asarray(np.sqrt(a + b * share))

    def _look(self, seconds: NDArray[np.int64], means: FloatArray, counts: FloatArray) -> list[Detection]:
        baseline, detector = self._baseline, self._detector
        assert baseline is not None
        assert detector is not None
        scaled, (a, b, _) = baseline.standardise(seconds, means), self._scale
        width = np.sqrt(a + b / np.maximum(counts, 1.0))
        z, slack = scaled.z / width, scaled.slack / width
        found: list[Detection] = []
        start = 0
        while start < len(z):
            alarm = detector.update(z[start:], slack[start:])
            if alarm is None:
                break
            evidence, shifts, sigma = detector.evidence(), detector.shifts(), baseline.sigma
            found.append(
                Detection(
                    int(seconds[start + alarm.index]),
                    alarm.evidence,
                    tuple(
                        StreamShift(self.streams[i], float(evidence[i]), float(shifts[i]), float(sigma[i]))
                        for i in alarm.streams
                    ),
                )
            )
            detector.restart()
            start += alarm.index + 1
        return found

    def dump(self) -> bytes:
        """The state as a NumPy archive; no pickle."""
        arrays: dict[str, Any] = {}
        head = {"phase": self.phase, "streams": self.streams, "last": self.last_second}
        learner, calibration = self._learner, self._calibration
        if learner is not None:
            head["seconds"] = learner.seconds
            arrays |= {f"l_{name}": getattr(learner, name) for name in _LEARNER}
            arrays |= {"l_lags": learner._lags.values, "l_last": np.array(learner._lags.last)}
            for number, (at, values) in enumerate(learner._first):
                arrays |= {f"first_{number}_s": at, f"first_{number}_x": values}
        if self._baseline is not None:
            arrays |= {f"b_{name}": value for name, value in self._baseline.arrays().items()}
        if calibration is not None:
            head["seconds"] = calibration.seconds
            arrays |= {f"c_{name}": getattr(calibration, name) for name in _CALIBRATION}
        if self._detector is not None:
            arrays |= {"scale": self._scale, **{f"d_{k}": v for k, v in self._detector.arrays().items()}}
        file = io.BytesIO()
        np.savez(file, head=np.frombuffer(json.dumps(head).encode(), dtype=np.uint8), **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, config: DriftConfig, state: bytes) -> Watch:
        """Go on from what :meth:`dump` gave under the same configuration."""
        with np.load(io.BytesIO(state), allow_pickle=False) as archive:
            kept = {name: archive[name] for name in archive.files}
        head = json.loads(kept.pop("head").tobytes())
        watch = cls(config, head["streams"])
        watch.last_second = head["last"]
        if head["phase"] == "learning":
            learner = watch._learner
            assert learner is not None
            learner.seconds = head["seconds"]
            for name in _LEARNER:
                setattr(learner, name, kept[f"l_{name}"])
            learner._lags.values, learner._lags.last = kept["l_lags"], int(kept["l_last"])
            count = sum(name.startswith("first_") for name in kept) // 2
            learner._first = [(kept[f"first_{i}_s"], kept[f"first_{i}_x"]) for i in range(count)]
            return watch
        watch._learner = None
        baseline = Baseline(config.reference, *(kept[f"b_{name}"] for name in BASELINE_ARRAYS))
        baseline._lags.values, baseline._lags.last = kept["b_lag_values"], int(kept["b_lag_last"])
        watch._baseline = baseline
        if head["phase"] == "calibrating":
            watch._calibration = calibration = Calibration(len(watch.streams))
            calibration.seconds = head["seconds"]
            for name in _CALIBRATION:
                setattr(calibration, name, kept[f"c_{name}"])
            return watch
        watch._scale = kept["scale"]
        watch._detector = watch._new_detector(baseline)
        watch._detector.load({name: kept[f"d_{name}"] for name in ("levels", "recent", "psi")})
        return watch


_LEARNER = ("gram", "cross", "square", "rows", "centre", "unit")
_CALIBRATION = ("sums", "histogram", "block", "in_block", "blocks", "block_squares")
