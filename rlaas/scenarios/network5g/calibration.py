"""Rewrites the regimes of ``reference.json``: ``python -m rlaas.scenarios.network5g.calibration``.

For every size and load it finds the arrival-rate scale at which the default uses the wanted share of resource
blocks, then records what the default reaches there. Run it after any change of the constants or the physics; every
quoted result has to be rerun, which the file's hash makes visible.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from rlaas.scenarios.network5g.control import default_action
from rlaas.scenarios.network5g.engine import Engine, Network
from rlaas.scenarios.network5g.geography import SIZES, USERS, layout_of_size
from rlaas.scenarios.network5g.objectives import PART_NAMES, make_objectives
from rlaas.scenarios.network5g.power import power_model
from rlaas.scenarios.network5g.reference import LOADS, Reference, Regime, parse

__all__ = ["Effort", "calibrate", "measure_default"]

FIRST_SEED = 900_000
"""Calibration seeds start here, away from training and evaluation seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long a measurement runs: networks, warm-up and counted steps."""

    networks: int
    warmup: int = 100
    steps: int = 600


EFFORT = {"small": Effort(networks=512), "medium": Effort(networks=192), "large": Effort(networks=48)}


def neutral_regime(scale: float) -> Regime:
    """A regime with a scale and no default yet: features and rewards made with it mean nothing."""
    ranges = {"latency": (0.0, 1.0), "throughput": (0.0, 1.0), "energy": (0.0, 1.0), "satisfaction": (0.0, 1.0)}
    return Regime(
        scale=scale,
        rb_use=0.0,
        latency_ms=(1.0, 1.0, 1.0),
        throughput=1.0,
        energy=1.0,
        satisfaction=1.0,
        packets=(1.0, 1.0, 1.0),
        active_s=1.0,
        satisfaction_s=1.0,
        ranges=ranges,
    )


def measure_default(ref: Reference, size: str, scale: float, effort: Effort) -> Regime:
    """What the default reaches at an arrival-rate scale, hours of the day weighted by demand; ranges not set."""
    regime = neutral_regime(scale)
    cells = layout_of_size(size, ref.radio.inter_site_m)
    network = Network(
        layout=cells,
        users=ref.traffic.users(USERS[size]),
        regime=regime,
        objectives=make_objectives(regime),
        reference=ref,
        radio=ref.radio,
        episode_steps=effort.warmup + effort.steps,
        power_models=(ref.energy.model,) * cells.cells,
    )
    engine = Engine(network, effort.networks)
    engine.seed(range(FIRST_SEED, FIRST_SEED + effort.networks))
    engine.begin()
    actions = np.broadcast_to(default_action(ref), (effort.networks, cells.cells, len(default_action(ref)))).copy()
    numerators, denominators = np.zeros(len(PART_NAMES)), np.zeros(len(PART_NAMES))
    for step in range(effort.warmup + effort.steps):
        out = engine.step(actions)
        if step >= effort.warmup:
            numerators += out.numerators.sum(axis=(0, 1))
            denominators += out.denominators.sum(axis=(0, 1))
    ratio = dict(zip(PART_NAMES, numerators / denominators, strict=True))
    usual = dict(zip(PART_NAMES, denominators / (effort.networks * cells.cells * effort.steps), strict=True))
    slices = PART_NAMES[:3]
    return replace(
        regime,
        rb_use=float(ratio["rb_use"]),
        latency_ms=tuple(float(ratio[name]) for name in slices),  # type: ignore[arg-type]
        throughput=float(ratio["throughput"]),
        energy=float(ratio["energy"]),
        satisfaction=float(ratio["satisfaction"]),
        packets=tuple(float(usual[name]) for name in slices),  # type: ignore[arg-type]
        active_s=float(usual["throughput"]),
        satisfaction_s=float(usual["satisfaction"]),
    )


def calibrate(ref: Reference, size: str, load: str, effort: Effort) -> Regime:
    """The regime in which the default uses the wanted share of resource blocks.

    Common random numbers make the use a smooth, growing function of the scale, so its root is bracketed: first with
    a quarter of the networks, then around that root with all of them, to one part in a thousand.
    """
    wanted = ref.rb_use[load]

    def excess(log_scale: float, networks: int) -> float:
        return measure_default(ref, size, math.exp(log_scale), replace(effort, networks=networks)).rb_use - wanted

    rough = brentq(excess, math.log(0.02), math.log(12.0), args=(max(effort.networks // 4, 4),), xtol=0.02)
    exact = brentq(excess, rough - 0.25, rough + 0.25, args=(effort.networks,), xtol=0.001)
    return with_ranges(measure_default(ref, size, float(f"{math.exp(exact):.4g}"), effort), ref)


def with_ranges(regime: Regime, ref: Reference) -> Regime:
    """The frozen normalisation ranges, by one rule for all regimes.

    Latency half to one and a half times the default's; throughput half to twice; energy from every transceiver
    asleep to a tenth above the default; satisfaction from three quarters of the default's to 1.
    """
    floor = power_model(ref.energy.model).deep_w
    return replace(
        regime,
        ranges={
            "latency": (0.5, 1.5),
            "throughput": (_rounded(0.5 * regime.throughput), _rounded(2.0 * regime.throughput)),
            "energy": (floor, _rounded(1.1 * regime.energy)),
            "satisfaction": (_rounded(0.75 * regime.satisfaction), 1.0),
        },
    )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def to_document(regime: Regime) -> dict[str, Any]:
    """The regime as JSON types, six significant digits."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else _rounded(value)

    return {name: plain(getattr(regime, name)) for name in Regime.__slots__}


def main(arguments: Sequence[str] | None = None) -> None:
    """Calibrate the chosen sizes and rewrite the reference file in place."""
    parser = argparse.ArgumentParser(description="recalibrate the frozen reference of network5g")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--output", type=Path, default=None, help="file to write; default: the shipped reference.json")
    chosen = parser.parse_args(arguments)
    source = Path(str(files(__package__).joinpath("reference.json")))
    text = source.read_text(encoding="utf-8")
    document, ref = json.loads(text), parse(text)
    for size in chosen.sizes:
        for load in LOADS:
            regime = calibrate(ref, size, load, EFFORT[size])
            document["regimes"].setdefault(size, {})[load] = to_document(regime)
            print(f"{size} {load}: scale {regime.scale:.4g}, rb use {regime.rb_use:.4f}", file=sys.stderr)
            # Written after each regime: a whole calibration takes many minutes.
            (chosen.output or source).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
