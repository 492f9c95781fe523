"""The size of the pool: the rule by itself, and as Serve asks it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingContext

from rlaas.control.application import _sized
from rlaas.control.scaling import Bounds, Load, Memory, PoolPolicy, Rules, autoscaling_of, decide, wanted
from rlaas.serving.config import GatewayConfig, ScalingConfig, ServingConfig
from rlaas.serving.load import LoadMeter
from rlaas.serving.pressure import Pressure

RULES = Rules(target_busy=0.5, tolerance=0.2, up_s=5, down_s=60, pressed_s=0.05)
WIDE = Bounds(1, 8)


@pytest.mark.parametrize(
    ("busy", "running", "expected"),
    [
        (0.5, 2, 2),  # as wished
        (0.59, 2, 2),  # within the tolerance
        (0.61, 2, 3),
        (0.9, 2, 4),
        (0.9, 4, 8),  # 7.2 cores of work; at most twice as many
        (0.41, 2, 2),
        (0.1, 4, 1),
        (0.2, 4, 2),  # .8 of a core of work: one would be beyond the target, two are below
        (0.0, 3, 1),
    ],
)
def test_the_load_is_spread_so_that_each_is_as_busy_as_wished(busy: float, running: int, expected: int) -> None:
    assert wanted([Load(busy)] * running, running, running, RULES) == expected


def test_a_replica_that_lets_requests_wait_or_refuses_them_is_full() -> None:
    for starved in (Load(0.3, delay_s=0.06), Load(0.1, refused=2.0)):
        assert wanted([starved], 1, 1, RULES) == 2
    assert wanted([Load(0.3, delay_s=0.04)], 1, 1, RULES) == 1
    # Late without work of its own: the machine is crowded by others, and more Gateways would crowd it more.
    assert wanted([Load(0.1, delay_s=0.06)], 1, 1, RULES) == 1


@given(
    st.lists(st.builds(Load, st.floats(0, 4), st.floats(0, 1), st.floats(0, 9)), min_size=1, max_size=9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_what_is_decided_lies_within_the_bounds(loads: list[Load], target: int, least: int, more: int) -> None:
    bounds, memory, at = Bounds(least, least + more), Memory(), 0.0
    for _ in range(20):
        at += 61
        after, memory = decide(loads, target, target, bounds, RULES, memory, at)
        assert bounds.least <= after <= bounds.most
        target = after


@given(st.floats(0.01, 20), st.integers(1, 40))
def test_a_step_never_calls_for_its_own_reversal(work: float, target: int) -> None:
    first = wanted([Load(work / target)] * target, target, target, RULES)
    again = wanted([Load(work / first)] * first, first, first, RULES)
    assert again >= first if first > target else again <= first


def _run(seconds: list[float], loads: list[float], target: int = 2, bounds: Bounds = WIDE) -> list[int]:
    memory, found = Memory(), []
    for at, load in zip(seconds, loads, strict=True):
        target, memory = decide([Load(load)] * target, target, target, bounds, RULES, memory, at)
        found.append(target)
    return found


def test_more_come_after_a_while_of_more_load_and_not_for_a_peak() -> None:
    assert _run([0, 4, 5], [0.9, 0.9, 0.9]) == [2, 2, 4]
    assert _run([0, 4, 4.5, 6, 9, 11], [0.9, 0.9, 0.5, 0.9, 0.9, 0.9]) == [2, 2, 2, 2, 2, 4]


def test_fewer_after_a_long_one_and_as_many_as_were_ever_needed_in_it() -> None:
    assert _run([0, 59, 60], [0.05, 0.05, 0.05], target=8) == [8, 8, 1]
    assert _run([0, 30, 60], [0.05, 0.2, 0.05], target=8) == [8, 8, 4]
    assert _run([0, 30, 60], [0.05, 0.5, 0.05], target=8) == [8, 8, 8]


def test_bounds_hold_at_once_and_equal_ones_fix_the_number() -> None:
    assert decide([Load(0.9)], 2, 2, Bounds(5, 5), RULES, Memory(), 0)[0] == 5
    assert decide([Load(0.9)], 9, 9, Bounds(1, 3), RULES, Memory(), 0)[0] == 3
    assert _run([0, 10, 20], [5.0, 5.0, 5.0], bounds=Bounds(2, 2)) == [2, 2, 2]


def test_nothing_is_decided_by_load_while_replicas_are_on_their_way_or_none_has_reported() -> None:
    assert decide([Load(4.0)], 1, 2, Bounds(1, 8), RULES, Memory(above_s=-100), 0) == (2, Memory())
    assert decide([], 2, 2, Bounds(1, 8), RULES, Memory(below_s=-100, peak=1), 0) == (2, Memory())


class Serve:
    """What Serve's controller does with the policy."""

    def __init__(self, config: Any) -> None:
        # As it travels: by value, so that the controller needs nothing of ours.
        self.policy = _resolve_policy_callable(config.policy)
        self.state: dict[str, Any] = {}
        self.target = config.initial_replicas

    def ask(self, at: float, reports: dict[str, dict[str, float]], running: int | None = None) -> int:
        names = {name: ReplicaID(name, DeploymentID("Gateway", "rlaas")) for name in reports}
        figures = {figure for report in reports.values() for figure in report}
        values = {f: {names[n]: reports[n][f] for n in reports if f in reports[n]} for f in figures}
        context = AutoscalingContext(
            deployment_id=DeploymentID("Gateway", "rlaas"),
            deployment_name="Gateway",
            app_name="rlaas",
            current_num_replicas=self.target if running is None else running,
            target_num_replicas=self.target,
            running_replicas=list(names.values()),
            total_num_requests=0.0,
            total_queued_requests=0.0,
            aggregated_metrics=values,
            raw_metrics={
                f: {name: [TimeStampedValue(at, value)] for name, value in by.items()} for f, by in values.items()
            },
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=1000,
            policy_state=self.state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=at,
            config=None,
        )
        self.target, self.state = self.policy(context)
        return self.target


def _busy(busy: float, least: float = 0, most: float = 0) -> dict[str, float]:
    return {"busy": busy, "loop_delay_s": 0.0, "refused_per_s": 0.0, "min_replicas": least, "max_replicas": most}


def test_the_words_of_the_api_go_before_the_configuration() -> None:
    config = autoscaling_of(GatewayConfig(num_replicas=2), ScalingConfig(max_replicas=4, up_s=0, down_s=0))
    assert (config.initial_replicas, config.min_replicas, config.max_replicas) == (2, 1, 1000)
    serve = Serve(config)
    assert serve.ask(0, {}) == 2  # nobody has spoken
    assert serve.ask(1, {"a": _busy(1.0), "b": _busy(1.0)}) == 4
    assert serve.ask(2, {"a": _busy(1.0), "b": _busy(1.0)}) == 4  # the configuration's most
    assert serve.ask(3, {"a": _busy(1.0, 1, 6)}) == 6
    assert serve.ask(4, {"a": _busy(1.0, 3, 3)}) == 3
    assert serve.ask(5, {"a": {"busy": 1.0}}) == 3  # Control is away: what was said holds
    assert serve.ask(6, {"a": _busy(0.0)}) == 2  # taken back


def test_a_new_controller_of_serve_does_not_fall_back_before_it_has_heard() -> None:
    serve = Serve(autoscaling_of(GatewayConfig(num_replicas=1), ScalingConfig()))
    serve.target = 5  # Serve's checkpoint
    assert serve.ask(0, {}) == 5
    assert serve.ask(1, {"a": _busy(0.1, 5, 5)}) == 5


def test_the_policy_remembers_since_when() -> None:
    serve = Serve(autoscaling_of(GatewayConfig(), ScalingConfig(max_replicas=4, up_s=5)))
    assert [serve.ask(at, {"a": _busy(1.0)}) for at in (0, 1, 4.9, 5)] == [1, 1, 1, 2]


def test_without_bounds_the_pool_stays_as_it_is() -> None:
    policy = autoscaling_of(GatewayConfig(num_replicas=3), ScalingConfig()).policy
    assert (policy.policy_kwargs["least"], policy.policy_kwargs["most"]) == (3, 3)
    assert policy.policy_function.endswith(PoolPolicy.__name__)
    with pytest.raises(ValidationError, match="max_replicas must be >= min_replicas"):
        ScalingConfig(min_replicas=3, max_replicas=2)


def test_the_number_given_on_start_widens_the_bounds() -> None:
    config = ServingConfig(scaling=ScalingConfig(min_replicas=2, max_replicas=3))
    assert _sized(config, 5).scaling == ScalingConfig(min_replicas=2, max_replicas=5)
    assert _sized(config, 1).scaling == ScalingConfig(min_replicas=1, max_replicas=3)
    assert _sized(ServingConfig(), None).scaling == ScalingConfig()
    assert _sized(ServingConfig(), 4).gateway.num_replicas == 4


def test_the_meter_takes_differences() -> None:
    now, cpu, pressure = [0.0], [1.0], Pressure()
    meter = LoadMeter(pressure, clock=lambda: now[0], cpu=lambda: cpu[0])
    now[0], cpu[0], pressure.refused, pressure.delay_s = 2.0, 1.5, 4, 0.3
    assert meter.read(100) == {"busy": 0.25, "loop_delay_s": 0.3, "refused_per_s": 2.0, "decisions_per_s": 50.0}
    now[0] = 4.0
    assert meter.read(100) == {"busy": 0.0, "loop_delay_s": 0.3, "refused_per_s": 0.0, "decisions_per_s": 0.0}
    spinning = LoadMeter(Pressure())
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert spinning.read(0)["busy"] > 0
