"""Experiments whose weights follow what the variants earn: batches, logged propensities, estimates that know them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats
from support.adaptive_site import BATCH_US, Site
from support.control_kit import home_with
from support.experiment_kit import SECOND, document

from rlaas.control.experiments import AnalysisLoop, parse_document
from rlaas.control.experiments.adaptive import estimated, next_batch, probably_earning
from rlaas.control.experiments.batches import Batch, batch_at
from rlaas.control.experiments.lake_rows import in_batch
from rlaas.errors import ConflictError, InvalidInputError
from rlaas.experiments.allocation import adaptive_estimates
from rlaas.experiments.records import Entry
from rlaas.lake.rows import decision_rows
from rlaas.settings import Settings

ORDERS = {"kind": "proportion", "name": "ordered", "value": "orders", "window_s": 60.0}


def given(**changes: Any) -> dict[str, Any]:
    base = {
        "primary": ORDERS,
        "stopping": {"kind": "fixed", "horizon": 400},
        "allocation": {"kind": "thompson", "batch_s": 900.0, "minimum_share": 0.1},
    }
    return document(**{**base, **changes})


class OrderSite(Site):
    """A site where each decision leads to an order or to none."""

    def __init__(self, home: Settings, folder: Path, seed: int) -> None:
        super().__init__(home, folder)
        self.rng = np.random.default_rng(seed)

    def sell(self, units: list[str], rates: dict[str, float]) -> None:
        self.serve(units, lambda one: {"orders": float(self.rng.random() < rates[one.variant])})
        self.service.analyse("exp", now_us=self.clock.now_us)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return home_with(tmp_path_factory.mktemp("adaptive"), {"toy": [{"seed": 1}, {"seed": 2}]})


@pytest.mark.parametrize("seed", range(5))
def test_the_weights_follow_what_is_earned_and_the_page_knows_it(home: Settings, tmp_path: Path, seed: int) -> None:
    site = OrderSite(home, tmp_path, seed)
    variants = [{"name": "A", "version": 1}, {"name": "B", "version": 2}, {"name": "C", "version": 1}]
    site.service.create(parse_document(given(variants=variants)))
    rates = {"A": 0.3, "B": 0.6, "C": 0.3}
    seen = [site.shares]
    for _ in range(4):
        # The same people come back in every batch.
        site.sell([f"u{i}" for i in range(300)], rates)
        assert site.service.reallocate("exp")
        seen.append(site.shares)
    assert seen[0] == pytest.approx({"A": 1 / 3, "B": 1 / 3, "C": 1 / 3})
    assert seen[-1]["B"] > 0.7
    assert all(min(shares.values()) >= 0.1 and sum(shares.values()) == pytest.approx(1) for shares in seen[1:])
    assert site.live.generation == 6
    assert site.bench is not None
    for one in site.bench.logged_decisions():
        assert one.variant_propensity == pytest.approx(seen[one.generation - 2][one.variant])
    page = site.service.analyse("exp", now_us=site.clock.now_us)
    assert sum(page["exposure"]["units"].values()) == 1_200
    assert page["split"]["crossed_units"] == 0
    assert not page["split"]["alarm"]
    assert page["allocation"]["batch"] == 4
    assert page["allocation"]["shares"] == site.shares
    assert [one["units"] for one in page["allocation"]["batches"]] == [300, 600, 900, 1_200]
    assert page["planned"]["reached"]
    lift = page["metrics"]["ordered"]["treatments"]["B"]
    estimate = lift["fixed"]["adaptive"]
    assert abs(estimate["value"] - 0.3) < 4 * estimate["standard_error"]
    assert lift["adjusted_p"] < 0.01
    assert page["metrics"]["ordered"]["best"]["B"]["probability"] > 0.95
    assert page["metrics"]["ordered"]["looks"] == []
    assert page["recommendation"]["words"] == "ship B"
    site.service.stop("exp", "ship", variant="B", reason="it earns more")
    assert not site.service.reallocate("exp")
    site.control.promote("toy", 1)


def test_a_split_that_is_not_the_logged_one_is_an_alarm(home: Settings, tmp_path: Path) -> None:
    site = OrderSite(home, tmp_path, 1)
    site.service.create(parse_document(given()))
    site.sell([f"u{i}" for i in range(300)], {"A": 0.2, "B": 0.7})
    assert site.service.reallocate("exp")
    planned = site.shares
    assert site.bench is not None
    site.bench.switch(site.live)
    # Served as in the first batch, under the name of the second.
    logged = [
        replace(one, time_us=site.clock.now_us + i * SECOND, generation=3, decision_id=f"x{i}", receipt_id=f"x{i}")
        for i, one in enumerate(site.bench.logged_decisions()[:300])
    ]
    logged = [replace(one, variant_propensity=planned[one.variant]) for one in logged]
    site.lake.append_once("bronze.decisions", {"kit": [(9, lambda: decision_rows(logged))]})
    page = site.service.analyse("exp", now_us=site.clock.now_us + BATCH_US)
    assert page["split"]["alarm"]
    assert page["recommendation"]["words"] == "stop: broken split"


def test_a_batch_waits_for_its_time_and_for_something_new(home: Settings, tmp_path: Path) -> None:
    site = OrderSite(home, tmp_path, 2)
    site.service.create(parse_document(given()))
    site.clock.now_us += 100 * BATCH_US
    assert not site.service.reallocate("exp")
    site.sell([f"u{i}" for i in range(100)], {"A": 0.5, "B": 0.5})
    AnalysisLoop(site.service).round()
    assert site.live.generation == 3
    assert site.live.experiment.salt == "exp/batch 1"
    site.sell([f"v{i}" for i in range(100)], {"A": 0.5, "B": 0.5})
    site.clock.now_us -= 200 * SECOND
    assert not site.service.reallocate("exp")
    site.clock.now_us += 200 * SECOND
    assert site.service.reallocate("exp")
    assert site.service.analyse("exp")["recommendation"]["action"] == "keep running"
    assert not site.restarted().reallocate("exp")


@pytest.mark.parametrize("served", [False, True])
def test_a_control_that_was_killed_between_batch_and_deployment_goes_on(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: bool
) -> None:
    class Killed(BaseException):
        pass

    site = OrderSite(home, tmp_path, 3)
    site.service.create(parse_document(given()))
    site.sell([f"u{i}" for i in range(200)], {"A": 0.3, "B": 0.6})
    real = site.control.create_deployment

    def dies(*arguments: Any, **options: Any) -> None:
        if served:
            real(*arguments, **options)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(site.control, "create_deployment", dies)
        with pytest.raises(Killed):
            site.service.reallocate("exp")
    restarted = site.restarted()
    assert restarted.analyse("exp")["recommendation"]["words"] != "stop: disturbed"
    assert restarted.reallocate("exp") is not served
    assert site.live.generation == 3
    (batch,) = restarted._batches.of("exp")
    assert site.shares == batch.shares
    assert not restarted.reallocate("exp")


def test_who_changes_the_deployment_ends_the_batches(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = OrderSite(home, tmp_path, 4)
    site.service.create(parse_document(given()))
    site.sell([f"u{i}" for i in range(200)], {"A": 0.3, "B": 0.6})
    real = site.control.create_deployment

    def overtaken(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        real("toy", [{"name": "champion", "version": 1, "weight": 1}])
        return real(*arguments, **options)

    monkeypatch.setattr(site.control, "create_deployment", overtaken)
    with pytest.raises(ConflictError):
        site.service.reallocate("exp")
    assert site.service._batches.of("exp") == []
    assert not site.service.reallocate("exp")
    assert site.service.analyse("exp")["recommendation"]["words"] == "stop: disturbed"


def test_a_batch_that_another_control_serves_first_stays(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = OrderSite(home, tmp_path, 3)
    site.service.create(parse_document(given()))
    site.sell([f"u{i}" for i in range(200)], {"A": 0.3, "B": 0.6})
    real, other = site.control.create_deployment, site.restarted()

    def overtaken(*arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        assert other.reallocate("exp")
        return real(*arguments, **options)

    monkeypatch.setattr(site.control, "create_deployment", overtaken)
    with pytest.raises(ConflictError):
        site.service.reallocate("exp")
    (batch,) = other._batches.of("exp")
    assert (batch.generation, batch.shares) == (site.live.generation, site.shares)
    assert other.analyse("exp")["recommendation"]["words"] != "stop: disturbed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stopping": {"kind": "sequential", "planned": 1000}}, "judged once"),
        ({"holdout": 0.1}, "fixed weights"),
        ({"salt": "s" * 101}, "at most 100 characters"),
        ({"primary": {**ORDERS, "segments": ["country"]}}, "no cuped, winsorise and segments"),
        ({"secondary": [{"kind": "quantile", "name": "q", "value": "orders", "quantile": 0.5, "window_s": 9}]}, "mean"),
        ({"allocation": {"kind": "thompson", "minimum_share": 0.0}}, "> 0"),
        ({"allocation": {"kind": "thompson", "prior": {"kind": "beta", "successes": 0}}}, "0.1"),
        ({"primary": {"kind": "mean", "name": "m", "value": "orders", "window_s": 9}}, "'gaussian' is needed"),
        ({"allocation": {"kind": "ucb"}}, "thompson"),
    ],
)
def test_what_does_not_go_with_an_adaptive_allocation_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_document(given(**changes))
    assert words in refused.value.message


def _entries(rng: np.random.Generator, count: int, rates: dict[str, float], batch: int = 0) -> list[Entry]:
    names = list(rates)
    found = []
    for i in range(count):
        arm = names[int(rng.integers(len(names)))]
        won = float(rng.random() < rates[arm])
        found.append(
            Entry(
                unit=f"u{i}",
                arm=arm,
                exposed_us=i,
                numerator=won,
                attributes={"batch": batch},
                propensity=1 / len(names),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_next_shares_are_the_chances_of_being_best(seed: int, better: str) -> None:
    rng = np.random.default_rng(seed)
    parsed = parse_document(given(primary={**ORDERS, "better": better}))
    entries = _entries(rng, 120, {"A": 0.4, "B": 0.5})
    drawn = {}
    for name in ("A", "B"):
        won = [entry.numerator for entry in entries if entry.arm == name]
        drawn[name] = stats.beta(1 + sum(won), 1 + len(won) - sum(won)).rvs(200_000, random_state=seed + len(won))
    wins = float((drawn["B"] > drawn["A"]).mean())
    best = wins if better == "higher" else 1 - wins
    assert next_batch(parsed, entries, 1)[0]["B"] == pytest.approx(0.1 + 0.8 * best, abs=0.005)
    found = probably_earning(parsed, entries)
    assert found is not None
    assert found["B"]["probability"] == pytest.approx(best, abs=0.006)


@pytest.mark.parametrize("seed", range(5))
def test_a_mean_that_should_be_low_turns_its_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = {"kind": "mean", "name": "cost", "value": "orders", "window_s": 9.0}
    prior = {"kind": "gaussian", "mean": 10.0, "variance": 4.0}
    rule = {"kind": "thompson", "prior": prior, "minimum_share": 0.1}
    up = parse_document(given(primary=metric, allocation=rule))
    down = parse_document(given(primary={**metric, "better": "lower"}, allocation=rule))
    entries = [
        Entry(unit=f"{i}", arm="AB"[i % 2], exposed_us=i, numerator=float(rng.normal(10 + (i % 2) * 0.3, 2)))
        for i in range(200)
    ]
    higher, lower = next_batch(up, entries, 1)[0], next_batch(down, entries, 1)[0]
    assert higher["A"] == pytest.approx(lower["B"], abs=1e-6)


def test_the_p_value_is_where_the_interval_reaches_nothing() -> None:
    rng = np.random.default_rng(8)
    for effect in (0.0, 0.1, 0.3):
        arm = rng.integers(0, 2, size=500)
        reward = rng.normal(size=500) + effect * arm
        names, logged = np.array(["A", "B"])[arm], np.full((500, 2), 0.5)
        one = adaptive_estimates(["A", "B"], names, reward, logged, control="A").differences["B"]
        at = adaptive_estimates(["A", "B"], names, reward, logged, control="A", confidence=1 - one.p_value)
        nearest = min(abs(at.differences["B"].low), abs(at.differences["B"].high))
        assert nearest < 1e-3 * one.standard_error
        assert one.p_value == pytest.approx(2 * stats.norm.sf(abs(one.value) / one.standard_error), rel=0.25)


def test_no_more_false_alarms_than_stated_after_thompson_sampling() -> None:
    """120 experiments of 6 batches in which nothing differs."""
    rng = np.random.default_rng(11)
    parsed = parse_document(given())
    alarms, runs = 0, 120
    for _ in range(runs):
        entries: list[Entry] = []
        batches: list[Batch] = []
        shares = {"A": 0.5, "B": 0.5}
        for batch in range(6):
            for i in range(100):
                arm = "A" if rng.random() < shares["A"] else "B"
                entries.append(
                    Entry(
                        unit=f"{batch}/{i}",
                        arm=arm,
                        exposed_us=len(entries),
                        numerator=float(rng.random() < 0.3),
                        attributes={"batch": batch},
                        propensity=shares[arm],
                    )
                )
            shares = next_batch(parsed, entries, 1)[0]
            batches.append(Batch(batch + 1, batch + 2, 0, len(entries), shares))
        found = estimated(parsed, entries, batches)
        assert not isinstance(found, str)
        alarms += found.differences["B"].p_value <= 0.05
    assert alarms / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5


def test_a_generation_belongs_to_the_last_batch_that_was_begun_before_it() -> None:
    batches = [Batch(1, 5, 0, 1, {}), Batch(2, 8, 0, 2, {})]
    assert [batch_at(batches, generation) for generation in (1, 4, 5, 7, 8, 90)] == [0, 0, 1, 1, 2, 2]
    assert batch_at([], 7) == 0
    assert in_batch("u", 3) == "3/u"
    long = in_batch("x" * 256, 12)
    assert len(long) <= 256
    assert long != in_batch("x" * 255 + "y", 12)
