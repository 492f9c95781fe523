from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from rlaas.configfiles import read_config
from rlaas.decisions import DynamicWeights, Ramp, WeightAdapter, Window
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.objectives import Mode, Preference, Rule

NAMES = ("latency", "throughput", "energy", "satisfaction")
RULE = Rule(objective="latency", at_most=2.0)
NORMAL = Mode(name="normal", preference=Preference.uniform(NAMES), rules=(RULE,), description="all alike")
LOAD = Ramp(field="load", objective="latency", gain=2.0, low=0.5, high=0.9)
NIGHT = Window(field="time", objective="energy", gain=1.0, start=22 * 3600, end=6 * 3600)
BROKEN = Ramp(field="violations", objective="satisfaction", effect="add", gain=0.25, low=0, high=10)


def _config(*terms: Ramp | Window, **options: Any) -> DynamicWeights:
    return DynamicWeights(mode="normal", terms=terms or (LOAD, NIGHT, BROKEN), **options)


def _target(context: dict[str, Any], **options: Any) -> dict[str, float]:
    return _config(**options).target(NORMAL.preference, context).to_dict()


class TestTarget:
    def test_load_raises_the_weight_of_latency(self) -> None:
        assert _target({"load": 0.9})["latency"] == pytest.approx(0.75 / 1.5)
        assert _target({"load": 0.7})["latency"] == pytest.approx(0.5 / 1.25)
        assert _target({"load": 5.0}) == _target({"load": 0.9})
        assert _target({"load": 0.2}) == NORMAL.preference.to_dict()

    def test_night_spans_midnight(self) -> None:
        for hour, active in ((23, True), (3, True), (22, True), (6, True), (7, False), (21, False), (24 + 23, True)):
            energy = _target({"time": hour * 3600})["energy"]
            assert energy == pytest.approx(0.4 if active else 0.25), hour

    def test_edges_fade(self) -> None:
        soft = Window(field="time", objective="energy", gain=1.0, start=10.0, end=20.0, period=100.0, fade=4.0)
        assert [soft.activation(t) for t in (5, 6, 8, 10, 15, 20, 21, 24, 99, 109)] == pytest.approx(
            [0, 0, 0.5, 1, 1, 1, 0.75, 0, 0, 0.75]
        )

    def test_violations_add(self) -> None:
        assert _target({"violations": 4})["satisfaction"] == pytest.approx(0.35 / 1.1)

    def test_a_falling_ramp(self) -> None:
        falling = Ramp(field="load", objective="energy", gain=1.0, low=0.4, high=0.1)
        assert [falling.activation(v) for v in (0.5, 0.4, 0.25, 0.1, 0.0)] == pytest.approx([0, 0, 0.5, 1, 1])

    @pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 10**400])
    def test_an_unknown_value_leaves_its_term_without_effect(self, value: Any) -> None:
        assert _target({"load": value, "violations": 4}) == _target({"violations": 4})
        assert _target({}) == NORMAL.preference.to_dict()

    @pytest.mark.parametrize("value", ["high", True, [0.9], {}])
    def test_what_is_no_number_is_refused(self, value: Any) -> None:
        with pytest.raises(InvalidInputError, match="load must be a number, got"):
            _target({"load": value})

    def test_more_fields_than_terms_are_fine(self) -> None:
        assert _target({"load": 0.9, "slice": "urllc"}) == _target({"load": 0.9})

    def test_terms_that_leave_nothing_leave_the_base(self) -> None:
        terms = [Ramp(field="load", objective=name, gain=-1.0, low=0, high=1) for name in NAMES]
        assert _config(*terms).target(NORMAL.preference, {"load": 1}) == NORMAL.preference

    @settings(deadline=None, max_examples=60)
    @given(
        load=st.floats(allow_nan=True, allow_infinity=True),
        gains=st.tuples(*[st.floats(-1e6, 1e6)] * 3),
        bounds=st.tuples(st.floats(0, 0.25), st.floats(0.25, 1)),
        base=st.tuples(*[st.floats(0, 1)] * 4).filter(lambda w: sum(w) > 1e-3),
    )
    def test_bounded_and_total(
        self, load: float, gains: tuple[float, ...], bounds: tuple[float, float], base: tuple[float, ...]
    ) -> None:
        terms = [
            Ramp(field="load", objective=name, effect=effect, gain=gain, low=-1, high=2)  # type: ignore[arg-type]
            for name, effect, gain in zip(NAMES, ("multiply", "add", "multiply"), gains, strict=False)
        ]
        config = _config(*terms, floor=bounds[0], cap=bounds[1])
        weights = config.target(Preference.of(NAMES, base), {"load": load}).array()
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights >= bounds[0] - 1e-9).all()
        assert (weights <= bounds[1] + 1e-9).all()

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_are_met_at_the_nearest_point(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        base = rng.dirichlet(np.full(4, 0.5))
        config = _config(floor=0.1, cap=0.4)
        ours = config.target(Preference.of(NAMES, base), {}).array()
        solved = minimize(
            lambda w: ((w - base) ** 2).sum(),
            np.full(4, 0.25),
            bounds=[(0.1, 0.4)] * 4,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        np.testing.assert_allclose(ours, solved.x, atol=1e-6)


class TestAdapter:
    def test_changes_at_most_once_per_interval(self) -> None:
        adapter = WeightAdapter(_config(interval_s=60), NORMAL)
        quiet, busy = {"load": 0.1}, {"load": 0.9}
        first = adapter.weights(quiet, 1000.0)
        assert adapter.weights(busy, 1059.9) is first
        second = adapter.weights(busy, 1060.0)
        assert second == adapter.config.target(NORMAL.preference, busy)
        assert adapter.weights(quiet, 1119.0) is second
        assert adapter.weights(quiet, 1120.0) == first

    def test_time_that_runs_backwards_changes_nothing(self) -> None:
        adapter = WeightAdapter(_config(), NORMAL)
        first = adapter.weights({"load": 0.1}, 1000.0)
        assert adapter.weights({"load": 0.9}, 10.0) is first

    def test_smoothing_approaches_the_target(self) -> None:
        adapter = WeightAdapter(_config(interval_s=10, smoothing_s=30), NORMAL)
        start = adapter.weights({}, 0.0).array()
        target = adapter.config.target(NORMAL.preference, {"load": 0.9}).array()
        for step in range(1, 6):
            expected = target + math.exp(-10 * step / 30) * (start - target)
            np.testing.assert_allclose(adapter.weights({"load": 0.9}, 10.0 * step).array(), expected, atol=1e-12)

    def test_small_changes_wait(self) -> None:
        adapter = WeightAdapter(_config(interval_s=1, min_change=0.1), NORMAL)
        first = adapter.weights({"load": 0.5}, 0.0)
        assert adapter.weights({"load": 0.55}, 1.0) is first
        assert adapter.weights({"load": 0.9}, 2.0) != first

    def test_the_mode_keeps_name_and_rules(self) -> None:
        mode = WeightAdapter(_config(), NORMAL).mode({"load": 0.9}, 0.0)
        assert (mode.name, mode.rules, mode.description) == ("normal", (RULE,), "all alike")
        assert mode.preference.to_dict()["latency"] == pytest.approx(0.5)

    @pytest.mark.parametrize("now", [math.nan, math.inf, "noon", None, True])
    def test_bad_times_are_refused(self, now: Any) -> None:
        adapter = WeightAdapter(_config(), NORMAL)
        with pytest.raises(InvalidInputError, match="now must be a"):
            adapter.weights({}, now)

    def test_a_refused_context_changes_nothing(self) -> None:
        adapter = WeightAdapter(_config(interval_s=1), NORMAL)
        first = adapter.weights({"load": 0.1}, 0.0)
        with pytest.raises(InvalidInputError, match="load must be a number"):
            adapter.weights({"load": "x"}, 1.0)
        assert adapter.weights({"load": 0.9}, 1.0) != first

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (_config().model_copy(update={"mode": "night"}), "unknown mode 'normal'; allowed: night"),
            (
                _config(Ramp(field="load", objective="jitter", gain=1, low=0, high=1)),
                "unknown terms.0.objective 'jitter'; allowed: energy, latency",
            ),
            (_config(floor=0.3), "floor must be <= 1/4 for 4 objectives"),
            (_config(cap=0.2), "cap must be >= 1/4 for 4 objectives"),
        ],
    )
    def test_a_config_that_does_not_fit_the_mode_is_refused(self, config: DynamicWeights, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            WeightAdapter(config, NORMAL)


class TestConfig:
    TEXT = """
mode: normal
interval_s: 300
floor: 0.05
terms:
  - {kind: ramp, field: load, objective: latency, gain: 2, low: 0.5, high: 0.9}
  - {kind: window, field: time, objective: energy, gain: 1, start: 79200, end: 21600}
"""

    def test_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.yaml"
        file.write_text(self.TEXT)
        config = read_config(file, DynamicWeights)
        assert config == _config(LOAD, NIGHT, interval_s=300, floor=0.05)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("floor: 0.05", "floor: 0.9\ncap: 0.5", r"floor must be <= cap \(0.5\), got 0.9"),
            ("interval_s: 300", "interval_s: 0", "interval_s: must be > 0, got 0"),
            ("interval_s: 300", "interval_s: .nan", "interval_s: must be"),
            ("high: 0.9", "high: 0.5", "low and high must differ by a finite amount, got 0.5 and 0.5"),
            ("end: 21600", "end: 90000", r"start and end must differ and lie in \[0, 86400\)"),
            ("kind: ramp", "kind: step", "unknown kind 'step'; allowed:"),
            ("mode: normal", "mode: normal\nmodes: 3", "unknown key 'modes'; allowed: cap, floor, interval_s"),
        ],
    )
    def test_bad_files_name_the_key(self, tmp_path: Path, old: str, new: str, message: str) -> None:
        file = tmp_path / "weights.yaml"
        file.write_text(self.TEXT.replace(old, new))
        with pytest.raises(ConfigurationError, match=message):
            read_config(file, DynamicWeights)

    def test_no_terms_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="terms"):
            DynamicWeights(mode="normal", terms=())
