"""How experiments look in a terminal of 80 columns."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rlaas.cli.output import print_lines, print_table

__all__ = ["day", "print_experiment", "print_plan", "print_result"]


def day(time_us: int | None) -> str:
    """A time as its UTC day."""
    return "-" if time_us is None else datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d")


def print_experiment(found: dict[str, Any]) -> None:
    """What was declared, and what has happened."""
    document = found["document"]
    stopping = document["stopping"]
    rule = (
        f"at any time, alpha {stopping['alpha']:g}, planned {stopping['planned']:,} units per variant"
        if stopping["kind"] == "sequential"
        else f"once, at {stopping['horizon']:,}, alpha {stopping['alpha']:g}"
    )
    rows = [
        ("policy", found["policy"]),
        ("state", found["state"]),
        ("design", found["design"]),
        (
            "variants",
            ", ".join(f"{v['name']} (version {v['version']}, weight {v['weight']:g})" for v in found["variants"]),
        ),
        ("primary metric", document["primary"]["name"]),
        ("secondary", ", ".join(one["name"] for one in document["secondary"]) or "-"),
        ("guardrails", ", ".join(one["metric"]["name"] for one in document["guardrails"]) or "-"),
        ("layer", _layer(document)),
        ("allocation", "as declared" if document["allocation"] is None else document["allocation"]["kind"]),
        ("judged", rule),
        ("counts from", _time(found["start_us"])),
    ]
    if document["description"]:
        rows.append(("why", document["description"]))
    print_table(found["id"], ("what", "is"), rows)
    print_table(
        "history",
        ("when", "who", "what", "why"),
        [(_time(e["time_us"]), e["actor"], e["kind"], e["reason"] or "-") for e in found["history"]],
    )


def print_result(page: dict[str, Any]) -> None:
    """What is known, and what to do."""
    recommendation, exposure, split = page["recommendation"], page["exposure"], page["split"]
    print_lines(
        [
            f"{page['experiment']} ({page['policy']}) is {page['state']}, analysed until {_time(page['time_us'])}.",
            f"Recommended: {recommendation['words']}; {recommendation['reason']}.",
        ]
    )
    total = sum(exposure["units"].values())
    print_table(
        "exposure",
        ("variant", "units", "share", "planned", "decisions"),
        [
            (
                name,
                f"{exposure['units'].get(name, 0):,}",
                f"{exposure['units'].get(name, 0) / total:.1%}" if total else "-",
                f"{planned:.1%}",
                f"{exposure['decisions'].get(name, 0):,}",
            )
            for name, planned in split["planned"].items()
        ],
    )
    primary, metric = next(iter(page["metrics"].items()))
    rows = [
        (name, treatment, *_figures(metric, one))
        for name, metric in page["metrics"].items()
        for treatment, one in metric["treatments"].items()
    ]
    print_table(f"against {page['control']}", ("metric", "variant", "lift", "interval", "p"), rows)
    if page["guardrails"]:
        print_table(
            "guardrails",
            ("metric", "variant", "verdict", "margin"),
            [
                (
                    g["metric"],
                    g["treatment"],
                    g["verdict"],
                    f"{g['margin']:.3g}{' of the control' if g['relative'] else ''}",
                )
                for g in page["guardrails"]
            ],
        )
    segments = [
        (f"{s['attribute']} {s['value']}", s["treatment"], name, f"{s['n_units']:,}", _segment(s))
        for name, metric in page["metrics"].items()
        for s in metric["segments"]
    ]
    _print_contexts(page)
    if segments:
        print_table("segments (to explore, not to decide)", ("segment", "variant", "metric", "units", "lift"), segments)
    broken = "BROKEN" if split["alarm"] else "as planned"
    late = sum(page["audit"].values())
    best = [] if metric["best"] is None else [f"Probably best by {primary}: {_best(metric)}."]
    print_lines(
        [
            *best,
            f"Split: {broken} (p = {split['p_value']:.2g}), {split['crossed_units']:,} units in two variants.",
            f"Waiting for their window: {exposure['waiting']:,} units. Too late to count: {late:,} records.",
        ]
    )


def _print_contexts(page: dict[str, Any]) -> None:
    """Where shares depend on the context: coefficients or modes; and a layer against its holdout."""
    allocation, modes, layer = page["allocation"], page.get("modes"), page.get("layer")
    coefficients = None if allocation is None else allocation.get("coefficients")
    if coefficients:
        rows = [
            (name, feature, f"{value:+.4g}") for name, row in coefficients.items() for feature, value in row.items()
        ]
        print_table("regressions, of what is good", ("variant", "feature", "coefficient"), rows)
    if modes:
        by_mode = [
            (
                mode,
                name,
                f"{one['probability_best'][name]:.1%}",
                f"{difference['value']:+.4g}",
                f"{difference['low']:.4g} to {difference['high']:.4g}",
                f"{difference['adjusted_p']:.2g}",
                "serve" if one["serve"] == name else "-",
            )
            for mode, one in modes.items()
            for name, difference in one["differences"].items()
        ]
        columns = ("mode", "variant", "best", "utility", "interval", "p", "verdict")
        print_table(f"by mode, against {page['control']}", columns, by_mode)
    if layer is not None:
        units = layer["exposure"]["units"]
        effects = [
            (name, *_figures(metric, one))
            for name, metric in layer["metrics"].items()
            for one in metric["treatments"].values()
        ]
        print_table(f"layer {layer['layer']} against its holdout", ("metric", "lift", "interval", "p"), effects)
        broken = ", BROKEN" if layer["split"]["alarm"] else ""
        shown = ", ".join(f"{name} {count:,}" for name, count in units.items())
        print_lines([f"Layer: {shown} units, {layer['holdout']:.1%} held out as planned{broken}."])


def print_plan(found: dict[str, Any]) -> None:
    """Units, effect and days, for one look and for looking at any time."""
    rows = [
        (
            {"fixed": "one look", "sequential": "any time"}[kind],
            f"{found[kind]['units_per_variant']:,}",
            f"{found[kind]['units']:,}",
            f"{found[kind]['effect']:.4g}",
            "-" if found[kind]["days"] is None else f"{found[kind]['days']:,}",
        )
        for kind in ("fixed", "sequential")
    ]
    title = f"{found['metric']}, {found['variants']} variants, power {found['power']:g}, alpha {found['alpha']:g}"
    print_table(title, ("judged", "per variant", "units", "effect", "days"), rows)


def _figures(metric: dict[str, Any], one: dict[str, Any]) -> tuple[str, str, str]:
    """Lift, interval and adjusted p-value."""
    standing, fixed = one["always_valid"], one["fixed"]
    if one["estimate"] is None:
        return "too early", "-", "-"
    relative = "" if one["relative"] is None else f" ({one['relative']:+.1%})"
    lift = f"x {one['estimate']:.4g}" if metric["scale"] == "ratio" else f"{one['estimate']:+.4g}"
    if fixed is not None and "adaptive" in fixed:
        low, high = fixed["adaptive"]["low"], fixed["adaptive"]["high"]
    elif fixed is not None and (standing is None or one["p_value"] == fixed["comparison"]["p_value"]):
        low, high = fixed["comparison"]["interval"]
    else:
        low, high = (standing["low"], standing["high"]) if standing else (None, None)
    shown = "-" if low is None or high is None else f"{low:.4g} to {high:.4g}"
    return lift + relative, shown, "-" if one["adjusted_p"] is None else f"{one['adjusted_p']:.2g}"


def _best(metric: dict[str, Any]) -> str:
    name = max(metric["best"], key=lambda one: metric["best"][one]["probability"])
    return f"{name} ({metric['best'][name]['probability']:.1%})"


def _segment(segment: dict[str, Any]) -> str:
    found = segment["comparison"]
    if found is None:
        return str(segment["reason"])
    return f"{found['effect']:+.4g} ({found['interval'][0]:.4g} to {found['interval'][1]:.4g})"


def _layer(document: dict[str, Any]) -> str:
    place = document["placement"]
    if place is None:
        return document["layer"] or "-"
    return f"{place['layer']}, share {place['share']:g}, holdout {place.get('holdout') or 0:g}"


def _time(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
