"""How well resolutions did over a time: regret, rules, changes, steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Effectiveness", "Recorded", "effectiveness"]


class Recorded(Protocol):
    """What figures need of a resolution; see :class:`rlaas.decisions.effectiveness.Resolution`."""

    @property
    def id(self) -> str:
        """Unique."""

    @property
    def time_us(self) -> int:
        """When, UTC microseconds."""

    @property
    def mode(self) -> str:
        """Name of the mode."""

    @property
    def step(self) -> str:
        """Step that answered."""

    @property
    def candidate(self) -> str:
        """Name of the choice."""

    @property
    def rules_hit(self) -> tuple[str, ...]:
        """Rules that some candidate broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effectiveness:
    """Figures of the resolutions in a window of time.

    Attributes:
        since_us, until_us: the window, UTC microseconds, its end not included.
        resolutions: how many.
        by_step: how many by the step that answered.
        by_mode: how many by mode.
        rule_hits: by rule, in how many some candidate broke it.
        mode_changes: how many were under another mode than the one before, which may lie before the window.
        choice_changes: how many chose another candidate than the one before.
        settled: how many have a regret.
        mean_regret, worst_regret: of those, in weighted goodness; None without any.
        mean_regret_by_mode: of those, by mode.
    """

    since_us: int
    until_us: int
    resolutions: int
    by_step: Mapping[str, int]
    by_mode: Mapping[str, int]
    rule_hits: Mapping[str, int]
    mode_changes: int
    choice_changes: int
    settled: int
    mean_regret: float | None
    worst_regret: float | None
    mean_regret_by_mode: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON types."""
        document: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("by_step", "by_mode", "rule_hits", "mean_regret_by_mode"):
            document[name] = dict(document[name])
        return document


def effectiveness(
    resolutions: Iterable[Recorded], regrets: Mapping[str, float], *, since_us: int, until_us: int
) -> Effectiveness:
    """Figures of the resolutions of one scenario at ``since_us <= time < until_us``.

    Args:
        resolutions: in any order; those before the window only say what the first one in it is compared with.
        regrets: by the resolutions' ids, where known.
        since_us, until_us: the window, UTC microseconds.
    """
    ordered = sorted(resolutions, key=lambda one: (one.time_us, one.id))
    pairs = list(zip([None, *ordered], ordered, strict=False))
    inside = [(before, one) for before, one in pairs if since_us <= one.time_us < until_us]
    known = [(one.mode, regrets[one.id]) for _, one in inside if one.id in regrets]
    by_mode: dict[str, list[float]] = {}
    for mode, regret in known:
        by_mode.setdefault(mode, []).append(regret)
    return Effectiveness(
        since_us=since_us,
        until_us=until_us,
        resolutions=len(inside),
        by_step=_counted(one.step for _, one in inside),
        by_mode=_counted(one.mode for _, one in inside),
        rule_hits=_counted(rule for _, one in inside for rule in set(one.rules_hit)),
        mode_changes=sum(before is not None and before.mode != one.mode for before, one in inside),
        choice_changes=sum(before is not None and before.candidate != one.candidate for before, one in inside),
        settled=len(known),
        mean_regret=_mean([regret for _, regret in known]) if known else None,
        worst_regret=max((regret for _, regret in known), default=None),
        mean_regret_by_mode={mode: _mean(regrets) for mode, regrets in sorted(by_mode.items())},
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
