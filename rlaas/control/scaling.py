"""How many Gateways there should be: Serve asks this policy in its controller, about ten times a second.

Serve neither sees nor counts what the fast lane answers, so its own figures say nothing here. Each Gateway reports what
it measures (:class:`rlaas.serving.load.LoadMeter`), and beside it the bounds that it hears from Control: that is how
the state database's word reaches a process that does not open it.

The number that the load calls for is ``load / target_busy``, as in the target tracking of Kubernetes' horizontal
autoscaler, with its tolerance against flapping and its stabilisation against troughs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from rlaas.serving.config import GatewayConfig, ScalingConfig

__all__ = ["Bounds", "Load", "Memory", "PoolPolicy", "Rules", "autoscaling_of", "decide", "wanted"]

MOST_REPLICAS = 1000
"""What the API allows; the bounds that hold lie within."""

_LOOK_BACK_INTERVALS = 5


class Load(NamedTuple):
    """What one Gateway reports, averaged over the last intervals.

    Attributes:
        busy: processor time that it took, in cores.
        delay_s: of its event loop.
        refused: requests turned away by a second.
    """

    busy: float
    delay_s: float = 0.0
    refused: float = 0.0


class Bounds(NamedTuple):
    """Least and largest number of Gateways."""

    least: int
    most: int

    def clip(self, replicas: int) -> int:
        """The nearest number within."""
        return max(self.least, min(self.most, replicas))


class Rules(NamedTuple):
    """When the number changes; see :class:`rlaas.serving.config.ScalingConfig`."""

    target_busy: float
    tolerance: float
    up_s: float
    down_s: float
    pressed_s: float


class Memory(NamedTuple):
    """Between two looks: since when more or fewer are wanted, and the most that were since.

    Attributes:
        above_s, below_s: seconds since the epoch; None: not wanted now.
        peak: largest number wanted since ``below_s``.
    """

    above_s: float | None = None
    below_s: float | None = None
    peak: int = 0


def wanted(loads: Sequence[Load], running: int, target: int, rules: Rules) -> int:
    """How many Gateways the present load calls for, whatever the bounds.

    Args:
        loads: of those that have reported, one at least; the others are taken for like them.
        running: Gateways.
        target: that should run.
        rules: of the pool.
    """
    # One that turns requests away, or lets them wait while it works, is full, however little of a crowded machine it
    # gets. One that is late and has nothing to do is late for others, and more of them would crowd the machine more.
    full = [
        max(load.busy, 1.0)
        if load.refused > 0 or (load.delay_s >= rules.pressed_s and load.busy >= rules.target_busy / 2)
        else load.busy
        for load in loads
    ]
    total = math.fsum(full) / len(full) * running
    if total > target * rules.target_busy * (1 + rules.tolerance):
        # At most twice as many at a time: the next look knows better than a long shot.
        return min(2 * target, math.ceil(total / rules.target_busy))
    fewest = max(1, math.ceil(total / (rules.target_busy * (1 - rules.tolerance))))
    return min(target, fewest)


def decide(
    loads: Sequence[Load], running: int, target: int, bounds: Bounds, rules: Rules, memory: Memory, now_s: float
) -> tuple[int, Memory]:
    """How many Gateways there should be.

    Bounds hold at once. More come once the load has called for more for ``up_s``; fewer once it has called for fewer
    for ``down_s``, and then as many as it ever called for in that time.

    Args:
        loads: of those that have reported.
        running: Gateways.
        target: as decided last.
        bounds: of the pool.
        rules: of the pool.
        memory: of the look before.
        now_s: seconds since the epoch.

    Returns:
        The number, and the memory for the next look.
    """
    within = bounds.clip(target)
    if within != target or not loads or running != target:  # those on their way will change the load
        return within, Memory()
    want = bounds.clip(wanted(loads, running, target, rules))
    if want > target:
        since = now_s if memory.above_s is None else memory.above_s
        return (want, Memory()) if now_s - since >= rules.up_s else (target, Memory(above_s=since))
    if want < target:
        since, peak = (now_s, want) if memory.below_s is None else (memory.below_s, max(memory.peak, want))
        return (peak, Memory()) if now_s - since >= rules.down_s else (target, Memory(below_s=since, peak=peak))
    return target, Memory()


class PoolPolicy:
    """The policy as Serve calls it.

    Args:
        least, most: bounds while nobody has said others through the API.
        rules: fields of :class:`Rules`.
    """

    def __init__(self, least: int, most: int, rules: Mapping[str, float]) -> None:
        self._own = Bounds(least, most)
        self._rules = Rules(**rules)

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of Gateways, and what to remember."""
        state = context.policy_state
        bounds = self._bounds(context, state.get("bounds"))
        if bounds is None:  # a controller that has just begun knows of no word yet, though there may be one
            return context.target_num_replicas, {}
        replicas, memory = decide(
            _loads(context),
            context.current_num_replicas,
            context.target_num_replicas,
            bounds,
            self._rules,
            Memory(*state.get("memory", ())),
            float(context.current_time or 0.0),
        )
        return replicas, {"bounds": tuple(bounds), "memory": tuple(memory)}

    def _bounds(self, context: AutoscalingContext, known: tuple[int, int] | None) -> Bounds | None:
        """The newest word of any Gateway; without one what was known; None before the first."""
        found = context.raw_metrics or {}
        newest: dict[str, tuple[float, float]] = {}
        for name in ("min_replicas", "max_replicas"):
            points = [series[-1] for series in found.get(name, {}).values() if series]
            if points:
                last = max(points, key=lambda point: point.timestamp)
                newest[name] = last.timestamp, last.value
        if len(newest) < 2:
            return Bounds(*known) if known else None
        least, most = (int(newest[name][1]) for name in ("min_replicas", "max_replicas"))
        # 0: nobody has said anything. Two words on their way may cross: the larger bound counts then.
        return Bounds(least, max(least, most)) if least else self._own


def _loads(context: AutoscalingContext) -> list[Load]:
    found = context.aggregated_metrics or {}
    busy, delay, refused = (found.get(name, {}) for name in ("busy", "loop_delay_s", "refused_per_s"))
    return [Load(busy[name], delay.get(name, 0.0), refused.get(name, 0.0)) for name in busy]


def autoscaling_of(gateway: GatewayConfig, scaling: ScalingConfig) -> AutoscalingConfig:
    """What Serve is told about the pool.

    Args:
        gateway: how many there are at first.
        scaling: when that changes.
    """
    least = gateway.num_replicas if scaling.min_replicas is None else scaling.min_replicas
    most = gateway.num_replicas if scaling.max_replicas is None else scaling.max_replicas
    bounds = Bounds(least, max(least, most))
    rules = Rules(scaling.target_busy, scaling.tolerance, scaling.up_s, scaling.down_s, gateway.pressed_ms / 1000)
    with warnings.catch_warnings():
        # Serve deprecates the interval for a variable that has to be set before Ray starts, where it may be shared.
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=1,
            initial_replicas=bounds.clip(gateway.num_replicas),
            max_replicas=MOST_REPLICAS,
            metrics_interval_s=scaling.interval_s,
            look_back_period_s=_LOOK_BACK_INTERVALS * scaling.interval_s,
            upscale_delay_s=0.0,  # the policy has its own
            downscale_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function=PoolPolicy,
                policy_kwargs={"least": bounds.least, "most": bounds.most, "rules": rules._asdict()},
            ),
        )
