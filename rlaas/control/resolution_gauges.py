"""The effectiveness of resolutions as gauges for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlaas.control.resolutions import ResolutionStore
from rlaas.decisions.effectiveness import Effectiveness
from rlaas.errors import ConfigurationError, shown

__all__ = ["RESOLUTION_GAUGES", "RESOLUTION_LABELS", "ResolutionGauge", "ResolutionGauges"]

RESOLUTION_LABELS = ("tenant", "scenario")
"""Of every gauge."""

MOST_VALUES, OTHERS = 50, "(others)"
"""Values of a label per gauge: modes and rules are named by users, and every name is a series in Prometheus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolutionGauge:
    """A gauge over the latest window of time.

    Attributes:
        name: without the prefix ``ray_`` that Ray puts before it.
        help: one line, with the unit.
        label: its own label besides :data:`RESOLUTION_LABELS`, or None.
    """

    name: str
    help: str
    label: str | None = None


_ALL = (
    ResolutionGauge(name="rlaas_resolutions", help="resolutions in the window by the step that answered", label="step"),
    ResolutionGauge(name="rlaas_resolutions_in_mode", help="resolutions in the window by mode", label="mode"),
    ResolutionGauge(
        name="rlaas_resolution_rule_hits",
        help="resolutions in the window in which some candidate broke the rule",
        label="rule",
    ),
    ResolutionGauge(name="rlaas_resolution_mode_changes", help="changes of the mode in the window"),
    ResolutionGauge(name="rlaas_resolution_choice_changes", help="changes of the chosen candidate in the window"),
    ResolutionGauge(name="rlaas_resolutions_settled", help="resolutions in the window whose regret is known"),
    ResolutionGauge(
        name="rlaas_resolution_regret_mean", help="mean regret of those against the best known later, in goodness"
    ),
    ResolutionGauge(
        name="rlaas_resolution_regret_max", help="largest regret of those against the best known later, in goodness"
    ),
    ResolutionGauge(
        name="rlaas_resolution_regret_in_mode", help="mean regret of those by mode, in goodness", label="mode"
    ),
)
RESOLUTION_GAUGES = {gauge.name: gauge for gauge in _ALL}


class ResolutionGauges:
    """Gauges of every scenario of a tenant over the latest window, read from the state database.

    What several Controls export is therefore the same; take the maximum over them.

    Args:
        store: the resolutions.
        tenant: label ``tenant``.
        window_s: length of the window, in seconds.
        clock: UTC time in microseconds.

    Raises:
        ConfigurationError: ``window_s`` is not positive.
    """

    def __init__(
        self,
        store: ResolutionStore,
        tenant: str,
        *,
        window_s: float = 3600.0,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        if isinstance(window_s, bool) or not isinstance(window_s, int | float) or not 0 < window_s <= 1e8:
            raise ConfigurationError(
                f"window_s must be seconds > 0 and <= 1e8, got {shown(window_s)}", field="window_s"
            )
        self._store, self._tenant, self._clock = store, tenant, clock
        self._window_us = max(1, int(window_s * 1e6))
        self._on_ray: dict[str, Any] = {}
        self._set_on_ray: set[tuple[str, tuple[str, ...]]] = set()

    def publish(self) -> None:
        r"""Set every gauge in ``ray.util.metrics``, from where the node of this process exports it as ``ray_<name>``.

        A series that is gone is set to 0, because Ray goes on exporting its last value. Ray takes ASCII only: other
        letters of a label are escaped, as in ``Notfall \xfc``.
        """
        from ray.util import metrics

        values = self.values()
        for name, labels in self._set_on_ray - values.keys():
            values[name, labels] = 0.0
        for (name, labels), value in values.items():
            gauge = RESOLUTION_GAUGES[name]
            if name not in self._on_ray:
                self._on_ray[name] = metrics.Gauge(name, gauge.help, _labels(gauge))
            ascii_labels = (label.encode("ascii", "backslashreplace").decode() for label in labels)
            self._on_ray[name].set(value, dict(zip(_labels(gauge), ascii_labels, strict=True)))
        self._set_on_ray |= values.keys()

    def values(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Value by name of the gauge and values of its labels."""
        # The present microsecond belongs to the window.
        until_us = self._clock() + 1
        since_us = until_us - self._window_us
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for scenario in self._store.scenarios():
            figures = self._store.effectiveness(scenario, since_us=since_us, until_us=until_us)
            for name, by_label in _by_label(figures).items():
                for value_of_label, value in by_label.items():
                    own = () if RESOLUTION_GAUGES[name].label is None else (value_of_label,)
                    found[name, (self._tenant, scenario, *own)] = float(value)
        return found


def _by_label(figures: Effectiveness) -> dict[str, Mapping[str, float]]:
    """Values of each gauge by the value of its own label, which is empty where it has none."""
    by_mode = _largest(figures.by_mode)
    values: dict[str, Mapping[str, float]] = {
        "rlaas_resolutions": figures.by_step,
        "rlaas_resolutions_in_mode": by_mode,
        "rlaas_resolution_rule_hits": _largest(figures.rule_hits),
        "rlaas_resolution_mode_changes": {"": figures.mode_changes},
        "rlaas_resolution_choice_changes": {"": figures.choice_changes},
        "rlaas_resolutions_settled": {"": figures.settled},
        "rlaas_resolution_regret_in_mode": {
            mode: regret for mode, regret in figures.mean_regret_by_mode.items() if mode in by_mode
        },
    }
    if figures.mean_regret is not None and figures.worst_regret is not None:
        values["rlaas_resolution_regret_mean"] = {"": figures.mean_regret}
        values["rlaas_resolution_regret_max"] = {"": figures.worst_regret}
    return values


def _largest(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest counts, and the sum of the rest."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    kept = dict(ordered[:MOST_VALUES])
    if len(ordered) > MOST_VALUES:
        kept[OTHERS] = sum(count for _, count in ordered[MOST_VALUES:])
    return kept


def _labels(gauge: ResolutionGauge) -> tuple[str, ...]:
    return RESOLUTION_LABELS if gauge.label is None else (*RESOLUTION_LABELS, gauge.label)
