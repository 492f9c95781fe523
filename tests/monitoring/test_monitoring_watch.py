"""Watching streams: what is learned, what a shift looks like, and how seldom nothing is taken for one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.monitoring import DriftConfig, Reference, Watch, load_drift_config
from rlaas.monitoring.baseline import BLOCK_S, Calibration, Learner
from rlaas.monitoring.config import DAY_S
from rlaas.monitoring.detector import CLIP, SIZES, WEIGHTS, EDetector

START = 1_700_006_400
SHORT = DriftConfig(reference=Reference(learn_s=1200, calibrate_s=600, cycle="none", lags=1))


def stretch(rng: np.random.Generator, count: int, memory: Any, *, start: int = START) -> tuple[Any, Any, Any]:
    """Stationary autoregressive means of variance 1 around 5: seconds, means, counts."""
    memory = np.asarray(memory)
    noise = rng.normal(size=(count + 200, len(memory))) * np.sqrt(1 - memory**2)
    for column, one in enumerate(memory):
        noise[:, column] = lfilter([1.0], [1.0, -one], noise[:, column])
    return np.arange(start, start + count), 5 + noise[200:], np.full((count, len(memory)), 1000.0)


def watching(rng: np.random.Generator, memory: Any, config: DriftConfig = SHORT) -> Watch:
    watch = Watch(config, [f"s{i}" for i in range(len(memory))])
    length = config.reference.learn_s + config.reference.calibrate_s
    assert watch.update(*stretch(rng, length, memory)) == []
    assert watch.phase == "watching"
    return watch


def test_the_cycle_and_the_memory_are_found() -> None:
    rng = np.random.default_rng(1)
    reference = Reference(harmonics=2, lags=2)
    seconds, means, _ = stretch(rng, 2 * DAY_S, [0.0, 0.5])
    means = means + 7 * np.sin(2 * np.pi * (seconds % DAY_S) / DAY_S)[:, None] * [1.0, -1.0]
    learner = Learner(reference, 2)
    for part in np.array_split(np.arange(len(seconds)), 7):
        learner.update(seconds[part], means[part])
    baseline = learner.fit()
    assert baseline.sigma == pytest.approx([1.0, 1.0], abs=0.03)
    # (1 - phi) / sqrt(1 - phi^2) of a first-order autoregression.
    assert baseline.gain == pytest.approx([1.0, np.sqrt(0.5 / 1.5)], abs=0.02)
    z = baseline.standardise(*(x[:40_000] for x in (seconds, means))).z
    assert z.std(axis=0) == pytest.approx([1.0, 1.0], abs=0.02)
    assert abs(np.corrcoef(z[1:, 1], z[:-1, 1])[0, 1]) < 0.02
    hours = z[: 11 * 3600].reshape(11, 3600, 2).mean(axis=1)
    assert np.abs(hours).max() < 0.1, "no hour is off: the cycle is gone"


def test_sums_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(2)
    reference = Reference(learn_s=400, cycle="none", lags=2)
    seconds, means, _ = stretch(rng, 400, [0.6])
    learner = Learner(reference, 1)
    learner.update(seconds, means)
    rows = np.column_stack([np.ones(398), means[1:-1, 0], means[:-2, 0]])
    theirs, *_ = np.linalg.lstsq(rows, means[2:, 0], rcond=None)
    assert learner.fit().weights[0, 1:] == pytest.approx(theirs[1:], abs=1e-6)


def test_dependence_that_is_left_and_few_records_widen_the_scale() -> None:
    rng = np.random.default_rng(3)
    calibration = Calibration(2)
    n = 60_000
    counts = rng.integers(20, 200, n).astype(float)[:, None] * [1.0, 1.0]
    slow = lfilter([1.0], [1.0, -0.9], rng.normal(size=n)) * np.sqrt(1 - 0.81)
    calibration.update(np.column_stack([rng.normal(size=n) * np.sqrt(0.5 + 30 / counts[:, 0]), slow]), counts)
    a, b, share = calibration.scale()
    assert (a[0], b[0]) == (pytest.approx(0.5, abs=0.1), pytest.approx(30, rel=0.15))
    assert share[0] == pytest.approx((1 / counts).mean(), rel=1e-6)
    # Means of BLOCK_S seconds of an autoregression of 0.9 vary about (1 + 0.9) / (1 - 0.9) as much, less the edges.
    expected = 19 - 2 * 0.9 * (1 - 0.9**BLOCK_S) / (BLOCK_S * 0.01)
    assert a[1] + b[1] * share[1] == pytest.approx(expected, rel=0.2)


def _naive(z: np.ndarray, rates: np.ndarray, bar: float) -> int:
    """The recursion as it is written, one number at a time."""
    streams = z.shape[1]
    levels = np.zeros((streams, 2, len(SIZES)))
    for t, row in enumerate(z):
        total = 0.0
        for f in range(streams):
            for way, sign in enumerate((1, -1)):
                for s, weight in enumerate(WEIGHTS):
                    rate = rates[f, s]
                    grown = np.exp(rate * min(sign * row[f], CLIP) - rate**2 / 2)
                    levels[f, way, s] = (1 + levels[f, way, s]) * grown
                    total += weight / (2 * streams) * levels[f, way, s]
        if total >= bar:
            return t
    return -1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), streams=st.integers(1, 4), shift=st.floats(-2, 2))
def test_the_compiled_recursion_is_the_written_one(seed: int, streams: int, shift: float) -> None:
    z = np.random.default_rng(seed).normal(size=(120, streams)) + shift
    detector = EDetector(np.full(streams, 0.8), shift=1.0, arl_s=3000.0)
    alarm = detector.update(z, np.zeros_like(z))
    assert (-1 if alarm is None else alarm.index) == _naive(z, detector.rates, 3000.0)


@pytest.mark.parametrize("law", ["normal", "heavy tails", "skewed"])
def test_false_alarms_are_as_rare_as_the_bound_says(law: str) -> None:
    """At a bar of 1,000 s over 4 streams, in 150,000 s: at most 150 by the bound."""
    rng, streams, seconds, bar = np.random.default_rng(4), 4, 150_000, 1_000.0

    def draw(n: int) -> np.ndarray:
        size = (n, streams)
        if law == "normal":
            return rng.normal(size=size)
        if law == "heavy tails":
            return rng.standard_t(4, size) / np.sqrt(2)
        return (rng.gamma(4, size=size) - 4) / 2

    calibration, width = Calibration(streams), np.ones(streams)
    calibration.update(draw(50_000), np.full((50_000, streams), 1000.0))
    detector, alarms, at = EDetector(width, shift=1.0, arl_s=bar), 0, 0
    detector.psi = calibration.cumulants(detector.rates, width, CLIP)
    assert (detector.psi[0, 0, -1] > 1.1 * detector.rates[0, -1] ** 2 / 2) == (law != "normal")
    z = draw(seconds)
    while (alarm := detector.update(z[at:], np.zeros_like(z[at:]))) is not None:
        alarms, at = alarms + 1, at + alarm.index + 1
        detector.restart()
    assert 3 < alarms < seconds / bar


def test_days_without_a_change_are_days_without_an_alarm_where_river_cries_wolf() -> None:
    """The short form of benchmarks/drift.py: days of cycles and autocorrelation, watched by the default bar."""
    from river import drift

    rng = np.random.default_rng(5)
    memory = np.array([0.0, 0.5])
    config = DriftConfig(reference=Reference(learn_s=DAY_S, calibrate_s=DAY_S // 2, harmonics=2, lags=1))
    watch, alarms, means = Watch(config, ["a", "b"]), 0, np.zeros((0, 2))
    for day in range(4):
        seconds, means, counts = stretch(rng, DAY_S, memory, start=START + day * DAY_S)
        means = means + 4 * np.cos(2 * np.pi * (seconds % DAY_S) / DAY_S)[:, None]
        alarms += len(watch.update(seconds, means, counts))
    assert watch.phase == "watching"
    assert alarms == 0
    theirs = drift.PageHinkley()
    wolf = 0
    for value in means[18_000:28_800, 0].tolist():  # the morning
        theirs.update(value)
        wolf += theirs.drift_detected
    assert wolf >= 10


def test_a_shift_of_one_sigma_is_seen_within_a_minute_as_a_rule_and_a_larger_one_sooner() -> None:
    rng = np.random.default_rng(6)
    config = DriftConfig(reference=Reference(learn_s=20_000, calibrate_s=20_000, cycle="none", lags=1))
    state = watching(rng, [0.0] * 6, config).dump()
    middle = {}
    for size in (1.0, 2.0):
        delays = []
        for run in range(60):
            watch = Watch.load(config, state)
            seconds, means, counts = stretch(rng, 400, [0.0] * 6, start=watch.last_second + 1)
            means[:, run % 6] += size * (1 if run % 2 else -1)
            (first, *_) = watch.update(seconds, means, counts)
            delays.append(first.second - int(seconds[0]) + 1)
            assert first.streams[0].stream == f"s{run % 6}"
            assert np.sign(first.streams[0].sigma) == (1 if run % 2 else -1)
        middle[size] = float(np.median(delays))
    assert middle[1.0] < 60
    assert middle[2.0] < middle[1.0] / 2


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 2399), min_size=0, max_size=5, unique=True), seed=st.integers(0, 99))
def test_however_it_is_cut_and_resumed_it_sees_the_same(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds, means, counts = stretch(rng, 2400, [0.0, 0.4])
    means[2300:, 1] += 3
    means[rng.integers(0, 2400, 30), 0] = np.nan
    kept = rng.random(2400) > 0.02  # seconds in which nothing happened at all
    seconds, means, counts = seconds[kept], means[kept], counts[kept]
    whole = Watch(SHORT, ["a", "b"])
    expected = whole.update(seconds, means, counts)
    parts = np.split(np.arange(len(seconds)), sorted(cut for cut in cuts if cut < len(seconds)))
    watch, found = Watch(SHORT, ["a", "b"]), []
    for part in parts:
        watch = Watch.load(SHORT, watch.dump())
        found += watch.update(seconds[part], means[part], counts[part])
    assert [one.second for one in found] == [one.second for one in expected]
    assert expected
    assert watch.evidence()[0].evidence == pytest.approx(whole.evidence()[0].evidence, rel=1e-6)


def test_a_stream_that_never_moves_is_watched_all_the_same() -> None:
    rng = np.random.default_rng(7)
    watch = Watch(SHORT, ["a", "still"])
    seconds, means, counts = stretch(rng, 2000, [0.0, 0.0])
    means[:, 1] = 3.0
    assert watch.update(seconds, means, counts) == []
    seconds, means, counts = stretch(rng, 60, [0.0, 0.0], start=int(seconds[-1]) + 1)
    means[:, 1] = 3.5
    first = watch.update(seconds, means, counts)[0]
    assert first.streams[0].stream == "still"
    assert first.second - int(seconds[0]) < 15


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no stream"):
        Watch(SHORT, [])
    watch = Watch(SHORT, ["a"])
    watch.update(np.array([5, 6]), np.zeros((2, 1)), np.ones((2, 1)))
    with pytest.raises(InvalidInputError, match="in their order"):
        watch.update(np.array([6]), np.zeros((1, 1)), np.ones((1, 1)))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("reference: {learn_s: 600}", "learn_s must be >= 86400 for cycle day, got 600"),
        ("action: retrain", "pipeline is needed"),
        ("monitor: [input, input]", "names a kind twice"),
        ("monitor: [weather]", "monitor.0"),
        ("webhook: ftp://x", "webhook: must be a text of the form"),
        ("colour: 1", "unknown key 'colour'; allowed: action"),
    ],
)
def test_a_wrong_configuration_is_named(text: str, what: str, tmp_path: Any) -> None:
    file = tmp_path / "drift.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=what.replace("[", r"\[")):
        load_drift_config(file)
