"""Experiments whose shares depend on what a request brings: its features, or how it weighs the objectives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.adaptive_site import Site
from support.control_kit import home_with
from support.experiment_kit import document

from rlaas.control.experiments import ExperimentDocument, parse_document
from rlaas.control.experiments.adaptive import by_mode, estimated, next_batch, propensities
from rlaas.control.experiments.batches import Batch
from rlaas.errors import InvalidInputError
from rlaas.experiments.conditional import ConditionalAssigner, ConditionalSpec
from rlaas.experiments.records import Entry
from rlaas.lake.records import DecisionRecord
from rlaas.settings import Settings

METRIC = {"kind": "mean", "name": "orders", "value": "orders", "window_s": 60.0}
AGE = {"source": "context", "name": "age", "center": 40.0, "scale": 10.0}
FEATURES = [{"source": "observation", "name": "x2"}, AGE]
CONTEXTUAL = {
    "kind": "linear_thompson",
    "features": FEATURES,
    "batch_s": 900.0,
    "minimum_share": 0.1,
    "mean": 1.0,
    "variance": 1.0,
}
PLACED = {**CONTEXTUAL, "features": [{**FEATURES[0], "index": 2}, AGE]}
BY_MODE = {"kind": "objective_thompson", "batch_s": 900.0, "minimum_share": 0.1}


def given(allocation: dict[str, Any] = CONTEXTUAL, **changes: Any) -> dict[str, Any]:
    # Not in the order of the alphabet, in which the split is watched.
    variants = [{"name": "Z", "version": 1}, {"name": "B", "version": 2}]
    rule = {"kind": "fixed", "horizon": 300}
    return document(variants=variants, primary=METRIC, stopping=rule, allocation=allocation, **changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    versions = [{"seed": 1, "conditioned": False}, {"seed": 2, "conditioned": False}]
    return home_with(tmp_path_factory.mktemp("contextual"), {"toy": versions})


def test_the_variant_follows_the_features_and_the_page_knows_it(home: Settings, tmp_path: Path) -> None:
    site, rng = Site(home, tmp_path), np.random.default_rng(1)
    made = site.service.create(parse_document(given()))
    assert [one["index"] for one in made["document"]["allocation"]["features"]] == [2, None]

    def value(one: DecisionRecord) -> dict[str, float]:
        # B is better where x2 is above 0, and on average both are alike.
        return {"orders": 1 + (1.0 if one.variant == "B" else -1.0) * one.observation[2] + float(rng.normal(0, 0.5))}

    for _ in range(3):
        rows = [[0.0, 0.0, float(x)] for x in rng.choice([-1.0, 1.0], size=200)]
        last = site.serve([f"u{i}" for i in range(200)], value, rows=rows, context={"age": 35})
        site.service.analyse("exp", now_us=site.clock.now_us)
        assert site.service.reallocate("exp")
    fits = [(one.variant == "B") == (one.observation[2] > 0) for one in last]
    assert np.mean(fits) > 0.8
    # What was logged is the share at the context, under the batch that served it.
    spec = site.service._batches.of("exp")[1].conditional
    assigner = ConditionalAssigner(ConditionalSpec.model_validate(spec), "exp/batch 2", {})
    for one in last[:50]:
        x = np.array([one.observation[2], 35], dtype=np.float32)
        found = assigner.assign(one.unit or "", x)
        assert (one.variant, one.variant_propensity) == (found.variant, found.propensity)
    # Without a feature a request is outside, and counts nowhere.
    site.serve(["x1", "x2"], value)
    page = site.service.analyse("exp", now_us=site.clock.now_us)
    assert sum(page["exposure"]["units"].values()) == 600
    assert (page["split"]["alarm"], page["split"]["crossed_units"]) == (False, 0)
    assert page["allocation"]["batch"] == 3
    slopes = page["allocation"]["coefficients"]
    assert slopes["B"]["x2"] == pytest.approx(1.0, abs=0.15)
    assert slopes["Z"]["x2"] == pytest.approx(-1.0, abs=0.15)
    lift = page["metrics"]["orders"]["treatments"]["B"]["fixed"]["adaptive"]
    assert abs(lift["value"]) < 4 * lift["standard_error"]
    assert page["recommendation"]["action"] == "keep"
    assert site.restarted().analyse("exp", now_us=site.clock.now_us)["metrics"] == page["metrics"]
    # Somebody who changes the posterior by hand disturbs it.
    live = site.live.model_dump(mode="json")
    live["experiment"]["conditional"]["seed"] += 1
    site.control.create_deployment("toy", live["variants"], live["experiment"])
    assert site.service.analyse("exp")["recommendation"]["words"] == "stop: disturbed"


def _run(parsed: ExperimentDocument, rng: np.random.Generator, batches: int = 4, units: int = 120) -> Any:
    """A contextual experiment in memory; the effect of B is 0.3 on average, and 1 more or less by the context."""
    entries: list[Entry] = []
    made: list[Batch] = []
    spec, shares = parsed.conditional_spec(), parsed.shares()
    for batch in range(batches):
        assigner = ConditionalAssigner(ConditionalSpec.model_validate(spec), f"{rng.integers(2**40)}", shares)
        for i in range(units):
            x = np.array([rng.normal(), rng.normal(40, 10)], dtype=np.float32)
            drawn = assigner.assign(f"u{i}", x)
            value = 1 + (0.3 + float(x[0]) if drawn.variant == "B" else 0.0) + float(rng.normal())
            attributes = {"batch": batch, "x": x.tolist()}
            entries.append(
                Entry(
                    unit=f"{batch}/{i}",
                    arm=drawn.variant,
                    exposed_us=len(entries),
                    numerator=value,
                    attributes=attributes,
                    propensity=drawn.propensity,
                )
            )
        shares, spec = next_batch(parsed, entries, batch + 1)  # type: ignore[assignment]
        made.append(Batch(batch + 1, batch + 2, 0, len(entries), shares, spec))
    return entries, made


def test_intervals_hold_as_often_as_stated_after_contextual_thompson_sampling() -> None:
    parsed, rng, held, runs = parse_document(given(PLACED)), np.random.default_rng(5), 0, 100
    naive = []
    for _ in range(runs):
        entries, batches = _run(parsed, rng)
        found = estimated(parsed, entries, batches, modelled=True)
        assert not isinstance(found, str)
        held += found.differences["B"].low <= 0.3 <= found.differences["B"].high
        means = {arm: np.mean([one.numerator for one in entries if one.arm == arm]) for arm in "ZB"}
        naive.append(means["B"] - means["Z"])
    assert held / runs >= 0.95 - 2 * (0.95 * 0.05 / runs) ** 0.5
    # Sample means compare different contexts.
    assert np.mean(naive) > 0.6


@pytest.mark.parametrize("seed", range(5))
def test_propensities_are_worked_out_again_from_the_frozen_posterior(seed: int) -> None:
    parsed = parse_document(given(PLACED))
    entries, batches = _run(parsed, np.random.default_rng(seed), batches=2)
    found = propensities(parsed, entries, batches)
    names = list(parsed.shares())
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)))
    assert [row[names.index(one.arm)] for row, one in zip(found, entries, strict=True)] == [
        one.propensity for one in entries
    ]
    blind = [Entry(**{**{n: getattr(one, n) for n in one.__slots__}, "propensity": None}) for one in entries]
    assert propensities(parsed, blind, batches) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_one_experiment_answers_for_every_mode(home: Settings, tmp_path: Path, seed: int) -> None:
    site, rng = Site(home, tmp_path), np.random.default_rng(seed)
    made = site.service.create(parse_document(given(BY_MODE)))
    assert set(made["document"]["allocation"]["modes"]) == {"emergency", "normal"}

    def value(one: DecisionRecord) -> dict[str, float]:
        # B is fast; Z has the better throughput, by more.
        good = {"latency": 0.7, "throughput": 0.2} if one.variant == "B" else {"latency": 0.4, "throughput": 0.8}
        found = {"orders": 1.0}
        for row in made["document"]["allocation"]["objectives"]:
            share = good[row["name"]] + float(rng.normal(0, 0.1))
            up = share if row["direction"] == "maximize" else 1 - share
            found[row["name"]] = row["low"] + up * (row["high"] - row["low"])
        return found

    for _ in range(2):
        last = {}
        for mode in ("emergency", "normal"):
            last[mode] = site.serve([f"u{i}" for i in range(150)], value, mode=mode)
        site.service.analyse("exp", now_us=site.clock.now_us)
        assert site.service.reallocate("exp")
    shares = {mode: np.mean([one.variant == "B" for one in rows]) for mode, rows in last.items()}
    assert shares["emergency"] > 0.8
    assert shares["normal"] < 0.2
    assert {one.variant_propensity for one in last["emergency"]} != {one.variant_propensity for one in last["normal"]}
    page = site.service.analyse("exp", now_us=site.clock.now_us)
    assert (page["split"]["alarm"], sum(page["exposure"]["units"].values())) == (False, 600)
    modes = page["modes"]
    assert {mode: one["serve"] for mode, one in modes.items()} == {"emergency": "B", "normal": "Z"}
    assert {mode: one["best"] for mode, one in modes.items()} == {"emergency": "B", "normal": "Z"}
    for mode, truth in (("emergency", 0.3), ("normal", -0.15)):
        difference = modes[mode]["differences"]["B"]
        assert abs(difference["value"] - truth) < 4 * difference["standard_error"]
        assert difference["adjusted_p"] < 0.01
    assert page["recommendation"]["words"] == "keep Z, or serve by mode: B in emergency, Z in normal"


def test_modes_say_nothing_until_every_variant_has_a_unit() -> None:
    objectives = [{"name": "latency", "unit": "", "direction": "minimize", "low": 0.0, "high": 1.0}]
    rule = {**BY_MODE, "objectives": objectives, "modes": {"only": {"latency": 1.0}}}
    assert by_mode(parse_document(given(rule)), [], []) is None
    assert by_mode(parse_document(given()), [], []) is None


def test_a_policy_that_acts_on_the_preference_is_refused(tmp_path: Path) -> None:
    site = Site(home_with(tmp_path, {"toy": [{"seed": 1}, {"seed": 2}]}), tmp_path)
    with pytest.raises(InvalidInputError, match="acts on the preference") as refused:
        site.service.create(parse_document(given(BY_MODE)))
    assert refused.value.field == "allocation"


@pytest.mark.parametrize(
    ("allocation", "words"),
    [
        ({**CONTEXTUAL, "features": [{"source": "observation", "name": "x9"}]}, "x0, x1, x2"),
        ({**BY_MODE, "modes": {"odd": {"cost": 1.0}}}, "cost"),
    ],
)
def test_what_the_policy_does_not_have_is_refused_at_the_start(
    home: Settings, tmp_path: Path, allocation: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Site(home, tmp_path).service.create(parse_document(given(allocation)))


@pytest.mark.parametrize(
    ("allocation", "words"),
    [
        ({**CONTEXTUAL, "mean": None}, "mean and variance are needed"),
        ({**CONTEXTUAL, "features": []}, "at least 1"),
        ({**CONTEXTUAL, "features": FEATURES[:1] * 2}, "repeat a name"),
        ({**CONTEXTUAL, "minimum_share": 0.0}, "> 0"),
        ({**CONTEXTUAL, "draws": 5}, ">= 100"),
        ({**BY_MODE, "modes": {}}, "one or more"),
    ],
)
def test_what_cannot_be_declared_names_what_is_allowed(allocation: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        parse_document(given(allocation))
