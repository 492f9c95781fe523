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
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios.recsys.logged import (
    LoggedFeedback,
    item_distribution,
    position_curve,
    propensity_balance,
    read_log,
    wilson_interval,
)

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
