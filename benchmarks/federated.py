"""One federated policy against each site's own, on all sites; and what secure aggregation costs over plain averaging.

    python -m benchmarks.federated [--quick] [--json]

Three networks of network5g differ in their load. The federated policy and each site's own see the same number of
decisions per site. Every policy is then evaluated on the networks of all three sites, on seeds that none has seen, at
the same preferences; the figure is the utility at the preference that was asked for, averaged over preferences and
sites. It is repeated with several training seeds; the interval is that of the paired difference to the best lone policy
of the same seed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import CONFIGS, Row, interleaved_rates, parse_arguments, report
from benchmarks.quality_kit import one_ray
from rlaas.bundles import load_bundle
from rlaas.objectives import Preference, normalise
from rlaas.scenarios import Scenario, evaluate, load
from rlaas.training import PolicyController, TrainingConfig, load_config, spread_preferences, train
from rlaas.training.federated import FederationConfig, federate
from rlaas.training.federated.fixed_point import bits_for, to_grid
from rlaas.training.federated.masking import MaskingSite, unmask

LOADS = {"north": "low", "centre": "mid", "south": "high"}
EVALUATION_SEEDS = (601, 602, 603)
"""No training uses them."""


def utility(bundle: Path, scenario: Scenario, preferences: list[Preference], steps: int) -> float:
    """Mean over preferences of the normalised objectives weighted by the preference that was asked for."""
    policy = load_bundle(bundle)
    found = []
    for preference in preferences:
        controller = PolicyController(policy, preference)
        mean = evaluate(scenario, controller, EVALUATION_SEEDS, steps=steps, warmup=20).mean()
        found.append(float(normalise(scenario.objectives, mean) @ preference.array()))
    return float(np.mean(found))


def train_all(seed: int, rounds: int, decisions: int, folder: Path) -> dict[str, Path]:
    """Bundles of the federated policy (``federated``) and of each site's own (by its name)."""
    common: dict[str, Any] = {
        **load_config(CONFIGS / "network5g-sac.yaml").model_dump(exclude_unset=True),
        "evaluation_seeds": (),
        "algorithm": "sac",
        "seed": seed,
        "num_envs": 16,
        "batch_size": 512,
    }
    common["steps"] = rounds * decisions
    config = FederationConfig(
        name="loads",
        training=TrainingConfig(**common),
        sites=tuple({"name": name, "options": {"load": load_}, "cpus": 0.5} for name, load_ in LOADS.items()),  # type: ignore[misc]
        rounds=rounds,
        decisions=decisions,
        keep_site_state=False,
        start_s=600.0,
    )
    bundles = {"federated": federate(config, output=folder / "federated").bundle}
    for name in LOADS:
        bundles[name] = train(config.training_of(name), output=folder / name).bundle
    return bundles


def quality(seeds: int, rounds: int, decisions: int, steps: int, points: int) -> list[Row]:
    """The federated policy beside each lone one."""
    scenarios = {name: load("network5g", load=load_) for name, load_ in LOADS.items()}
    preferences = spread_preferences([o.name for o in scenarios["centre"].objectives], points)
    scores: dict[str, list[dict[str, float]]] = {}
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            for name, bundle in train_all(seed, rounds, decisions, Path(folder)).items():
                row = {site: utility(bundle, world, preferences, steps) for site, world in scenarios.items()}
                scores.setdefault(name, []).append(row)
    everywhere = {name: np.array([np.mean(list(row.values())) for row in rows]) for name, rows in scores.items()}
    what = f"network5g small at 3 loads, {rounds} rounds of {decisions:,} decisions, {seeds} seeds"
    rows = [
        Row(
            f"{what}: mean utility on all sites",
            "share of the ranges",
            float(everywhere["federated"].mean()),
            f"policy of {name} alone ({LOADS[name]} load)",
            float(everywhere[name].mean()),
        )
        for name in LOADS
    ]
    rows += [
        Row(
            f"{what}: mean utility on {site} ({LOADS[site]} load)",
            "share of the ranges",
            float(np.mean([row[site] for row in scores["federated"]])),
            "that site's own policy",
            float(np.mean([row[site] for row in scores[site]])),
        )
        for site in LOADS
    ]
    best = np.max([everywhere[name] for name in LOADS], axis=0)
    difference = everywhere["federated"] - best
    half = float(stats.t.ppf(0.975, seeds - 1) * difference.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else float("nan")
    label = f"{what}: federated less the best lone policy of the same seed, mean of all sites"
    rows.append(Row(label, "share of the ranges", float(difference.mean())))
    if seeds > 1:
        rows.append(Row(f"{label}: half width of the 95 % interval", "share of the ranges", half, better="lower"))
    return rows


def overhead(size: int, sites: int, seconds: float) -> Row:
    """Updates averaged a second, all parties' work together: masked against in the clear."""
    rng = np.random.default_rng(1)
    before = rng.normal(size=size).astype(np.float32)
    after = {u: (before + 0.01 * rng.normal(size=size)).astype(np.float32) for u in range(1, sites + 1)}
    bits = bits_for(1024.0, sites)

    def plain() -> float:
        total = np.zeros(size)
        for values in after.values():
            total += values
        total /= sites
        return float(sites)

    def secure() -> float:
        parties = {u: MaskingSite(u, bytes(32), sites // 2 + 1) for u in after}
        keys = {u: party.advertise() for u, party in parties.items()}
        sealed = {u: party.share(keys) for u, party in parties.items()}
        masked = {
            u: party.mask(
                to_grid(after[u].astype(np.float64) - before, bits, 1024.0), {v: sealed[v][u] for v in sealed if v != u}
            )
            for u, party in parties.items()
        }
        revealed = {u: party.reveal(set(after)) for u, party in parties.items()}
        unmask(masked, keys, sealed, revealed, session=bytes(32), threshold=sites // 2 + 1)
        return float(sites)

    ours, theirs = interleaved_rates([secure, plain], seconds=seconds, rounds=5)
    what = f"secure aggregation of {size:,} parameters from {sites} sites, all parties' arithmetic"
    return Row(what, "updates/s", ours, "plain mean of the same vectors", theirs)


def round_times(quick: bool) -> Row:
    """Wall time of a whole round with actors, training included, secure against plain."""
    seconds: Mapping[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for secure in (True, False):
            config = FederationConfig(
                name="times",
                training=TrainingConfig(scenario="network5g", algorithm="sac", num_envs=16, batch_size=512),
                sites=tuple({"name": name, "cpus": 0.5} for name in LOADS),  # type: ignore[misc]
                rounds=3 if quick else 8,
                decisions=2_048 if quick else 8_192,
                secure={} if secure else None,  # type: ignore[arg-type]
                keep_site_state=False,
                start_s=600.0,
            )
            run = federate(config, output=Path(folder) / str(secure))
            # The first round starts the actors.
            seconds[secure] += [result.seconds for result in run.rounds[1:]]
    decisions = float(config.decisions * len(LOADS))
    rates = {secure: decisions / float(np.median(values)) for secure, values in seconds.items()}
    what = f"federated rounds of {config.decisions:,} decisions at 3 sites, secure, training included"
    return Row(what, "decisions/s", rates[True], "plain averaging", rates[False])


def main() -> None:
    arguments = parse_arguments("federated")
    started = time.perf_counter()
    with one_ray(cpus=4):
        rows = [overhead(10_000, n, 0.5 if arguments.quick else 4.0) for n in (3, 10, 30)]
        rows.append(round_times(arguments.quick))
        rows += quality(2, 2, 2_048, 20, 5) if arguments.quick else quality(5, 10, 10_000, 200, 10)
    report("federated", rows, arguments.json)
    print(f"took {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
