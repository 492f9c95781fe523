"""What ``rlaas experiments power`` answers, as one document."""

from __future__ import annotations

from typing import Any

__all__ = ["plan"]


def plan(
    *,
    effect: float | None,
    deviation: float | None,
    base: float | None,
    units: int | None,
    variants: int,
    power: float,
    alpha: float,
    per_day: float | None,
    share: float,
) -> dict[str, Any]:
    """Units per variant for an effect, or the effect that units find; and days where the traffic is known.

    With several treatments each comparison is planned at alpha / treatments (Bonferroni, which Holm never exceeds).

    Args:
        effect: difference to find; None: how small a one is found.
        deviation: of a unit's value, of a mean; or
        base: the control's proportion.
        units: per variant, where ``effect`` is None.
        variants: the control included.
        power: probability of finding it.
        alpha: of all comparisons together.
        per_day: new units a day; None: unknown.
        share: of the traffic that is in the experiment.

    Raises:
        InvalidInputError: an impossible option; names it.
    """
    from rlaas.experiments.inference import (
        duration_days,
        mde_mean,
        mde_proportion,
        sample_size_mean,
        sample_size_proportion,
        sequential_inflation,
    )

    level = alpha / (variants - 1)
    inflation = sequential_inflation(power=power, alpha=level)
    options: dict[str, Any] = {"power": power, "alpha": level}
    found: dict[str, Any] = {
        "metric": "mean" if deviation is not None else "proportion",
        "variants": variants,
        "power": power,
        "alpha": alpha,
        "alpha_per_comparison": level,
        "inflation": inflation,
    }
    if effect is not None:
        if deviation is not None:
            fixed = sample_size_mean(effect, deviation, **options)
        else:
            fixed = sample_size_proportion(float(base or 0.0), effect, **options)
        sizes = {"fixed": fixed, "sequential": round(fixed * inflation)}
        effects: dict[str, float] = dict.fromkeys(sizes, effect)
    else:
        size = int(units or 0)
        sizes = {"fixed": size, "sequential": size}
        effects = {}
        # Looking at any time finds with n units what one look finds with n / inflation.
        for kind, n in (("fixed", float(size)), ("sequential", size / inflation)):
            effects[kind] = (
                mde_mean(n, deviation, **options)
                if deviation is not None
                else mde_proportion(float(base or 0.0), n, **options)
            )
    for kind, size in sizes.items():
        total = size * variants
        days = None if per_day is None else duration_days(total, per_day, share=share)
        found[kind] = {"units_per_variant": size, "units": total, "effect": effects[kind], "days": days}
    return found
