from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.recsys import Recommender
from rlaas.scenarios.recsys.logged import (
    LoggedFeedback,
    clustered_interval,
    detectable_ratio,
    item_distribution,
    position_curve,
    propensity_balance,
    read_log,
    wilson_interval,
)
from rlaas.scenarios.recsys.logged.report import _few_clicks_say, calibration_report, logged_pairs, simulated_curve

ROWS = 60


@pytest.fixture(scope="session")
def open_bandit(repository: Path) -> Path:
    root = Path(os.environ.get("RLAAS_DATA_DIR", repository.parent / "shared" / "data")) / "open_bandit"
    if not root.is_dir():
        pytest.skip(f"{root} is missing; set RLAAS_DATA_DIR to the folder with open_bandit/")
    return root


def _columns() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    times = np.datetime64("2019-11-24T00:00:00", "us") + rng.permutation(ROWS).astype("timedelta64[m]")
    return {
        "timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
        "item_id": pa.array(rng.integers(0, 34, ROWS)),
        "position": pa.array(np.arange(ROWS) % 3 + 1),
        "click": pa.array((rng.random(ROWS) < 0.3).astype(int)),
        "propensity_score": pa.array(rng.uniform(0.01, 1.0, ROWS)),
        **{f"user_feature_{i}": pa.array(rng.choice(["b", "a", "c"], ROWS)) for i in range(4)},
    }


def _write(folder: Path, **changed: Any) -> Path:
    columns = {name: values for name, values in (_columns() | changed).items() if values is not None}
    file = folder / "random_men.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def _log(**changed: Any) -> LoggedFeedback:
    n = 30
    arguments: dict[str, Any] = {
        "policy": "random",
        "campaign": "toy",
        "item": np.arange(n) % 4,
        "position": np.arange(n) % 3,
        "click": (np.arange(n) % 5 == 0).astype(np.int64),
        "propensity": np.full(n, 0.25),
        "features": np.zeros((n, 1)),
        "feature_names": ("constant",),
        "time": np.arange(n).astype("datetime64[us]"),
        "n_items": 4,
    }
    return LoggedFeedback(**(arguments | changed))


def test_rows_come_in_order_of_time_with_positions_from_0(tmp_path: Path) -> None:
    log = read_log(_write(tmp_path), "random", "men")
    frame = pd.DataFrame({k: v.to_pandas() for k, v in _columns().items()}).sort_values("timestamp")
    assert (log.item == frame.item_id).all()
    assert (log.position == frame.position - 1).all()
    assert (log.click == frame.click).all()
    assert (log.propensity == frame.propensity_score).all()
    assert (np.diff(log.time) > np.timedelta64(0)).all()
    assert log.n_items == 34
    expected = pd.get_dummies(frame[[f"user_feature_{i}" for i in range(4)]], prefix_sep="=", dtype=float)
    assert log.feature_names == tuple(expected.columns)
    assert (log.features == expected.to_numpy()).all()


def test_a_folder_and_the_packing_of_the_full_dataset_are_found(tmp_path: Path) -> None:
    file = _write(tmp_path)
    packed = tmp_path / "full" / "random" / "men"
    packed.mkdir(parents=True)
    pyarrow.csv.write_csv(pq.read_table(file), packed / "men.csv")
    expected = read_log(file, "random", "men")
    for path in (tmp_path, tmp_path / "full"):
        log = read_log(path, "random", "men")
        for name in ("item", "position", "click", "propensity", "features", "time"):
            assert (getattr(log, name) == getattr(expected, name)).all(), name


def test_unknown_names_and_missing_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="unknown policy 'greedy'; allowed: bts, random"):
        read_log(tmp_path, "greedy")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="unknown campaign 'kids'; allowed: all, men, women"):
        read_log(tmp_path, "bts", "kids")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"no log at .*bts_all\.parquet nor .*all\.csv is a file"):
        read_log(tmp_path, "bts")
    (tmp_path / "bts_all.parquet").write_text("not a table")
    with pytest.raises(ConfigurationError, match="neither Parquet nor CSV"):
        read_log(tmp_path, "bts")


def _head_only(file: Path) -> None:
    file.write_bytes(b"PAR1" + bytes(4) + b"PAR1")


def _torn(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def _scrambled(file: Path) -> None:
    """Pages overwritten, the footer as it was."""
    whole = bytearray(file.read_bytes())
    whole[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    file.write_bytes(bytes(whole))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [_head_only, _torn, _scrambled, _empty])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, suffix: str) -> None:
    file = _write(tmp_path)
    damage(file)
    file = file.rename(file.with_suffix(suffix))
    with pytest.raises(
        ConfigurationError, match=rf"random_men\{suffix}.*(neither Parquet nor CSV|is missing)"
    ) as caught:
        read_log(file, "random", "men")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("column", ["timestamp", "item_id", "position", "click", "propensity_score", "user_feature_2"])
@pytest.mark.parametrize("value", [[1], {"a": 1}, b"\xff\xfe"])
def test_a_column_of_another_kind_is_named_with_its_file(tmp_path: Path, column: str, value: Any) -> None:
    _write(tmp_path, **{column: pa.array([value] * ROWS)})
    with pytest.raises(ConfigurationError, match=rf"random_men\.parquet: column '{column}'") as caught:
        read_log(tmp_path, "random", "men")
    assert caught.value.field == column


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    file = _write(tmp_path)
    table = pq.read_table(file)
    pq.write_table(table.append_column("click", table["click"]), file)
    with pytest.raises(ConfigurationError, match=r"random_men\.parquet.*click"):
        read_log(tmp_path, "random", "men")


def test_no_log_is_no_log(tmp_path: Path) -> None:
    for path in (None, 3, ["a"]):
        with pytest.raises(ConfigurationError, match="path is") as caught:
            read_log(path)  # type: ignore[arg-type]
        assert caught.value.field == "path"
    for use in (logged_pairs, calibration_report):
        with pytest.raises(ConfigurationError, match="data_dir is 3; expected a folder"):
            use(3)  # type: ignore[operator]
    with pytest.raises(InvalidInputError, match="scenario is None; expected a Recommender"):
        simulated_curve(None, "random", streams=2, pages=1)  # type: ignore[arg-type]
    for use in (position_curve, propensity_balance, item_distribution):
        with pytest.raises(InvalidInputError, match="log is None; expected what read_log returns"):
            use(None)  # type: ignore[arg-type]


def test_a_report_needs_clicks(open_bandit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "open_bandit"
    folder.mkdir()
    for name in ("random_all", "bts_all", "random_men", "bts_men"):
        table = pq.read_table(open_bandit / f"{name}.parquet")
        if name == "bts_men":
            at = table.column_names.index("click")
            table = table.set_column(at, "click", pa.array(np.zeros(len(table), dtype=np.int64)))
        pq.write_table(table, folder / f"{name}.parquet")
    with pytest.raises(ConfigurationError, match="bts / men holds no click in 10000 rows of column 'click'") as caught:
        calibration_report(tmp_path, quick=True)
    assert caught.value.field == "click"


@pytest.mark.parametrize("column", ["timestamp", "item_id", "position", "click", "propensity_score", "user_feature_2"])
def test_a_missing_or_null_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    _write(tmp_path, **{column: None})
    with pytest.raises(ConfigurationError, match=rf"random_men\.parquet: column '{column}' is missing"):
        read_log(tmp_path, "random", "men")
    whole = _columns()[column]
    nulled = pa.array([None, *whole.to_pylist()[1:]], whole.type)
    _write(tmp_path, **{column: nulled})
    with pytest.raises(
        ConfigurationError, match=rf"random_men\.parquet: column '{column}' is null in 1 rows"
    ) as caught:
        read_log(tmp_path, "random", "men")
    assert caught.value.field == column


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("propensity_score", 0.0, r"propensity\[\d+\] is 0.0; expected a number in \(0, 1\]"),
        ("propensity_score", 1.5, "is 1.5"),
        ("propensity_score", float("nan"), "is nan"),
        ("item_id", 34, r"item\[\d+\] is 34; expected a whole number in 0 .. 33"),
        ("item_id", 1.5, "whole numbers"),
        ("position", 0, "is -1"),
        ("position", 4, "is 3; expected a whole number in 0 .. 2"),
        ("click", 2, "is 2; expected a whole number in 0 .. 1"),
        ("click", "yes", "expected numbers"),
        ("timestamp", "yesterday", "must hold times"),
    ],
)
def test_values_out_of_range_name_file_and_column(tmp_path: Path, column: str, value: Any, says: str) -> None:
    values = _columns()[column].to_pylist()
    kept = [value] * ROWS if isinstance(value, str) else [value, *values[1:]]
    _write(tmp_path, **{column: pa.array(kept)})
    with pytest.raises(ConfigurationError, match=rf"random_men\.parquet: column '{column}'.*{says}") as caught:
        read_log(tmp_path, "random", "men")
    assert caught.value.field == column


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"item": np.zeros(0, dtype=np.int64)}, "item"),
        ({"item": np.zeros(30)}, "item"),
        ({"item": None}, "item"),
        ({"item": np.array(3)}, "item"),
        ({"click": [0] * 30}, "click"),
        ({"propensity": np.full(30, "much")}, "propensity"),
        ({"features": np.full((30, 1), "a")}, "features"),
        ({"position": np.zeros(3, dtype=np.int64)}, "position"),
        ({"propensity": np.ones(3)}, "propensity"),
        ({"time": np.zeros(3, dtype="datetime64[us]")}, "time"),
        ({"features": np.full((30, 1), np.nan)}, "features"),
        ({"feature_names": ()}, "features"),
    ],
)
def test_a_log_built_by_hand_is_checked_too(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        _log(**changed)
    assert caught.value.field == field


def test_rows_can_be_taken() -> None:
    log = _log()
    part = log.take(np.array([4, 4, 0]))
    assert len(part) == 3
    assert part.item.tolist() == [0, 0, 0]
    assert part.position.tolist() == [1, 1, 0]
    assert log.take(log.click == 1).click.all()
    for rows in ("x", 2.5, np.array([99]), np.ones(3, dtype=bool), [1, [2]]):
        with pytest.raises(InvalidInputError) as caught:
            log.take(rows)  # type: ignore[arg-type]
        assert caught.value.field in ("rows", "item")


def test_distribution_counts_items_by_position() -> None:
    found = item_distribution(_log())
    expected = pd.crosstab(np.arange(30) % 3, np.arange(30) % 4, normalize="index").to_numpy()
    assert found == pytest.approx(expected)
    with pytest.raises(InvalidInputError, match="position 1 has no row"):
        item_distribution(_log(position=np.zeros(30, dtype=np.int64)))


def test_distribution_of_a_policy_that_moves_is_its_mean_where_mean_propensities_are_not() -> None:
    rng = np.random.default_rng(1)
    n = 200_000
    strong = rng.random(n) < 0.5  # half of the time the policy prefers item 0, otherwise it is indifferent
    probability = np.where(strong[:, None], [0.9, 0.05, 0.03, 0.02], 0.25)
    item = np.minimum((rng.random(n)[:, None] > probability.cumsum(axis=1)).sum(axis=1), 3)
    log = _log(
        item=item,
        position=np.zeros(n, dtype=np.int64),
        click=np.zeros(n, dtype=np.int64),
        propensity=probability[np.arange(n), item],
        features=np.zeros((n, 1)),
        time=np.arange(n).astype("datetime64[us]"),
        n_positions=1,
    )
    truth = probability.mean(axis=0)
    assert item_distribution(log)[0] == pytest.approx(truth, abs=0.005)
    naive = np.array([log.propensity[item == i].mean() for i in range(4)])
    assert naive.sum() > 1.2
    balance = propensity_balance(log)
    assert balance.low[0] < 1 < balance.high[0]
    wrong = propensity_balance(_log(propensity=np.full(30, 0.5)))
    assert wrong.ratio == pytest.approx(0.5)
    with pytest.raises(InvalidInputError, match="position 1 has 0 rows"):
        propensity_balance(_log(position=np.zeros(30, dtype=np.int64)))


@given(trials=st.integers(1, 10_000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_agrees_with_statsmodels(trials: int, share: float, confidence: float) -> None:
    successes = round(trials * share)
    low, high = wilson_interval(successes, trials, confidence=confidence)
    expected = proportion_confint(successes, trials, alpha=1 - confidence, method="wilson")
    assert (float(low), float(high)) == pytest.approx(expected, abs=1e-9)
    assert 0 <= low <= successes / trials <= high <= 1


def test_wilson_of_nothing_is_unknown_and_bad_counts_are_refused() -> None:
    low, high = wilson_interval([0, 1], [0, 4])
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()
    with pytest.raises(InvalidInputError, match=r"0 \.\. trials"):
        wilson_interval(3, 2)
    with pytest.raises(ConfigurationError, match="confidence"):
        wilson_interval(1, 2, confidence=0.0)


def test_clustered_interval_is_the_robust_variance_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    impressions = rng.integers(50, 150, 40)
    clicks = rng.binomial(impressions, rng.beta(2, 30, 40))
    low, high, effect = clustered_interval(clicks, impressions)
    cluster = np.repeat(np.arange(40), impressions)
    click = np.concatenate([np.arange(n) < k for n, k in zip(impressions, clicks, strict=True)]).astype(float)
    fit = sm.OLS(click, np.ones(len(click))).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
    )
    rate, total = click.mean(), len(click)
    expected = fit.bse[0] ** 2 * 40 / 39 / (rate * (1 - rate) / total)
    assert effect == pytest.approx(expected, rel=1e-9)
    assert effect > 1.5
    plain = proportion_confint(click.sum() / effect, total / effect, method="wilson")
    assert (low, high) == pytest.approx(plain, abs=1e-12)


def test_clustered_interval_covers_where_wilson_alone_does_not() -> None:
    """Clusters differ in their rate, as users do."""
    rng, runs, n = np.random.default_rng(4), 400, 200
    held = np.zeros(2)
    for _ in range(runs):
        impressions = np.full(60, n)
        clicks = rng.binomial(impressions, rng.beta(4, 96, 60))
        low, high, _ = clustered_interval(clicks, impressions)
        alone = wilson_interval(clicks.sum(), impressions.sum())
        held += [low <= 0.04 <= high, alone[0] <= 0.04 <= alone[1]]
    assert stats.binomtest(int(held[0]), runs, 0.95).pvalue > 1e-3
    assert held[1] / runs < 0.85


def test_clustered_interval_of_independent_impressions_is_wilson_and_bad_counts_are_refused() -> None:
    assert clustered_interval([1, 1], [4, 4])[:2] == pytest.approx([float(end) for end in wilson_interval(2, 8)])
    assert clustered_interval([0, 0], [4, 4])[2] == 1.0
    for clicks, impressions in (([1], [2]), ([1, 1], [2, 2, 2]), ([0, 0], [0, 0]), ([3, 0], [1, 1]), ([-1, 2], [3, 3])):
        with pytest.raises(InvalidInputError):
            clustered_interval(clicks, impressions)
    with pytest.raises(InvalidInputError, match="clicks is not an array of numbers"):
        clustered_interval(None, [1, 2])  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"successes \(2,\) and trials \(3,\) do not fit"):
        wilson_interval([1, 2], [3, 4, 5])
    with pytest.raises(ConfigurationError, match="confidence is 'high'"):
        wilson_interval(1, 2, confidence="high")  # type: ignore[arg-type]


@pytest.mark.parametrize(("clicks", "power"), [(38, 0.8), (69, 0.8), (200, 0.5)])
def test_detectable_ratio_is_what_the_test_finds_that_often(clicks: int, power: float) -> None:
    ratio = detectable_ratio(clicks, 3, power=power)
    shares = np.array([ratio, 1.0, 1.0]) / (ratio + 2)
    drawn = np.random.default_rng(5).multinomial(clicks, shares, 4_000)
    found = (stats.chisquare(drawn, axis=1).pvalue < 0.05).mean()
    # The noncentral chi-square is an approximation at these counts.
    assert found == pytest.approx(power, abs=0.06)


def test_few_clicks_detect_little() -> None:
    assert detectable_ratio(38, 3) > detectable_ratio(69, 3) > detectable_ratio(10_000, 3) > 1
    assert detectable_ratio(1, 3) == float("inf")
    for clicks, positions in ((0, 3), (3, 1), ("a", 3), (3.5, 3), (3, None), (10**30, 3)):
        with pytest.raises(InvalidInputError, match="must be a whole number from"):
            detectable_ratio(clicks, positions)  # type: ignore[arg-type]


def test_simulated_clicks_are_counted_by_stream() -> None:
    scenario = Recommender(items=300, episode_steps=10)
    curve = simulated_curve(scenario, "content", streams=40, pages=60)
    assert curve.by_stream.shape == (40, 10)
    assert curve.shown.shape == (40,)
    assert (curve.shown < 60).all()  # every session opens without a page
    assert curve.clicks.sum() == curve.by_stream.sum()
    low, high, effect = curve.level_interval()
    assert low < curve.level < high
    alone = wilson_interval(curve.clicks.sum(), 10 * curve.pages)
    assert effect > 1.2
    assert high - low > float(alone[1] - alone[0])
    rate, least, most = curve.relative(3)
    assert rate.sum() == pytest.approx(3)
    assert (least < rate).all()
    assert (rate < most).all()
    again = Recommender(items=300, episode_steps=10).vector_env(40)
    again.reset(seed=0)
    action = scenario.baselines["content"].make().action
    clicks = np.zeros(10)
    for _ in range(60):
        click = again.step(np.full(40, action))[4]["click"]
        clicks += np.bincount(click[click >= 0], minlength=10)
    assert curve.clicks.tolist() == clicks.tolist()
    for options, field in (({"streams": 1}, "streams"), ({"pages": 0}, "pages"), ({"streams": "x"}, "streams")):
        with pytest.raises(InvalidInputError) as caught:
            simulated_curve(scenario, "content", **({"streams": 2, "pages": 2} | options))
        assert caught.value.field == field


def test_the_page_says_what_few_clicks_can_show(open_bandit: Path) -> None:
    curves = [position_curve(read_log(open_bandit, policy, "all")) for policy in ("random", "bts")]
    said = _few_clicks_say(curves)
    assert said.startswith("In 2 of 2 logs p is at least .05, which is no evidence of equal positions: with 38 to 42")
    assert f"clicked {detectable_ratio(42, 3):.1f} to {detectable_ratio(38, 3):.1f} times as often" in said
    assert "no difference" not in said


def test_curve_counts_by_position_and_knows_an_empty_one() -> None:
    log = _log(position=np.arange(30) % 2)
    curve = position_curve(log)
    assert curve.impressions.tolist() == [15, 15, 0]
    assert curve.clicks.tolist() == [3, 3, 0]
    assert np.isnan(curve.rate[2])
    assert curve.level == pytest.approx(0.2)
    assert curve.p_value == pytest.approx(1.0)
    assert position_curve(_log(click=np.zeros(30, dtype=np.int64))).p_value == 1.0
    # A position that takes all clicks is seen.
    assert position_curve(_log(click=(np.arange(30) % 3 == 0).astype(np.int64))).p_value < 1e-5


@pytest.mark.parametrize(
    ("policy", "campaign", "clicks", "impressions"),
    [
        ("random", "all", [13, 14, 11], [3322, 3412, 3266]),
        ("bts", "all", [11, 15, 16], [3362, 3317, 3321]),
        ("random", "men", [10, 22, 14], [3284, 3388, 3328]),
        ("bts", "men", [30, 21, 18], [3339, 3262, 3399]),
    ],
)
def test_real_logs(open_bandit: Path, policy: Any, campaign: Any, clicks: list[int], impressions: list[int]) -> None:
    log = read_log(open_bandit, policy, campaign)
    curve = position_curve(log)
    assert curve.clicks.tolist() == clicks
    assert curve.impressions.tolist() == impressions
    # 10,000 impressions cannot tell the positions apart.
    assert curve.p_value > 0.05
    balance = propensity_balance(log)
    if policy == "random":
        assert balance.ratio == pytest.approx(1.0, abs=1e-4)
    else:
        # Three intervals at 95 % of heavy-tailed values, widened by half.
        half = 0.75 * (balance.high - balance.low)
        assert (abs(balance.ratio - 1) < half).all()
    assert item_distribution(log).sum(axis=1) == pytest.approx(1.0)
