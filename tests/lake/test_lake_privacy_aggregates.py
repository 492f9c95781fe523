from __future__ import annotations

import math
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import numpy as np
import opendp.prelude as dp
import privacy_children
import pyarrow as pa
import pytest
from scipy import stats
from support.lake_records import decision, outcome

from rlaas.errors import ConflictError, InvalidInputError, NotFoundError, RequestError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions
from rlaas.lake.privacy import Budget, Query, aggregate
from rlaas.lake.privacy import aggregates as module
from rlaas.lake.privacy.aggregates import noise_of
from rlaas.lake.privacy.budget import BudgetError

TABLE = "silver.transitions"
DRAWS = 20_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """40 subjects; subject n has n % 4 + 1 rows of latency n, in one of two modes."""
    root = tmp_path_factory.mktemp("lake")
    records: list[Any] = []
    results = []
    for number in range(40):
        for row in range(number % 4 + 1):
            name = f"d{number}-{row}"
            records.append(decision(name, unit=f"user-{number}", mode=("day", "night")[number % 2]))
            results.append(outcome(f"r{name}", name, outcome={"latency": float(number)}))
    for stream, some in (("decisions", records), ("outcomes", results)):
        with WriteAheadLog(root / "wal", stream, "g") as wal:  # type: ignore[arg-type]
            wal.append([encode(record) for record in some])
    made = Lake(root / "lake")
    Committer(made, root / "wal").run_once()
    update_transitions(made)
    return made


def budget(tmp_path: Path, epsilon: float = 1e3, **more: float) -> Budget:
    ledger = Budget(f"sqlite:///{tmp_path / 'state.db'}", "default")
    ledger.grant("ana", epsilon=epsilon, **more)
    return ledger


@pytest.mark.parametrize("sensitivity", [1, 7])
def test_the_noise_has_the_scale_that_opendp_proves(sensitivity: int) -> None:
    noise, scale = noise_of("laplace", sensitivity, 0.5, 0.0)
    assert scale == pytest.approx(sensitivity / 0.5)
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    assert (space >> dp.m.then_laplace(scale=scale)).map(sensitivity) <= 0.5 * (1 + 1e-9)
    drawn = np.array(noise([0] * DRAWS))
    # Discrete Laplace (Ghosh et al. 2009): P(k) proportional to exp(-|k| / scale).
    alpha = math.exp(-1 / scale)
    expected = np.array([(1 - alpha) / (1 + alpha) * alpha ** abs(k) for k in range(-10, 11)])
    seen = np.array([(drawn == k).sum() for k in range(-10, 11)])
    within = expected.sum()
    rest = [DRAWS - seen.sum()], [DRAWS * (1 - within)]
    test = stats.chisquare(np.append(seen, rest[0]), np.append(expected * DRAWS, rest[1]))
    assert test.pvalue > 1e-5


def test_gaussian_noise_costs_what_it_says() -> None:
    noise, scale = noise_of("gaussian", 3, 0.5, 1e-6)
    drawn = np.array(noise([0] * DRAWS))
    assert stats.kstest(drawn + np.random.default_rng(1).uniform(-0.5, 0.5, DRAWS), "norm", (0, scale)).pvalue > 1e-5
    # The exact condition of the Gaussian mechanism (Balle and Wang 2018, theorem 8): at most delta.
    ratio = 3 / (2 * scale)
    exact = stats.norm.cdf(ratio - 0.5 * scale / 3) - math.exp(0.5) * stats.norm.cdf(-ratio - 0.5 * scale / 3)
    assert exact <= 1e-6


@pytest.mark.parametrize(
    ("query", "truth"),
    [
        ({"statistic": "count"}, 40.0),
        ({"statistic": "count", "per_subject": 2}, 10 + 30 * 2.0),
        ({"statistic": "sum", "column": "outcome.latency", "bounds": (0.0, 20.0)}, sum(min(n, 20) for n in range(40))),
        ({"statistic": "mean", "column": "outcome.latency", "bounds": (0.0, 40.0)}, 19.5),
    ],
)
def test_answers_lie_around_the_truth(lake: Lake, tmp_path: Path, query: dict[str, Any], truth: float) -> None:
    ledger = budget(tmp_path)
    found = aggregate(lake, ledger, "ana", Query(table=TABLE, epsilon=100.0, **query))
    # At such an epsilon the noise is next to nothing, and what is left is clamping and the bound on rows.
    assert found["answer"] == pytest.approx(truth, abs=1.5)
    assert found["epsilon_left"] == pytest.approx(900.0)


def test_groups_are_those_that_were_asked_for(lake: Lake, tmp_path: Path) -> None:
    query = Query(table=TABLE, statistic="count", by="mode", groups=("night", "noon"), epsilon=100.0)
    found = aggregate(lake, budget(tmp_path), "ana", query)["answer"]
    assert list(found) == ["night", "noon"]
    assert found["night"] == pytest.approx(20, abs=1.5)
    assert found["noon"] == pytest.approx(0, abs=1.5)


def test_no_subject_moves_a_sum_by_more_than_the_noise_is_made_for(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbouring lakes, one without a subject: the exact sums differ by no more than the sensitivity in use."""
    rows = lake.read(TABLE)
    used: list[int] = []
    sums: list[list[int]] = []

    def exact(_: str, sensitivity: int, *__: float) -> tuple[Any, float]:
        used.append(sensitivity)
        return _keeping(sums), 1.0

    monkeypatch.setattr(module, "noise_of", exact)
    ledger = budget(tmp_path)
    for bounds in ((0.0, 30.0), (-50.0, 10.0)):
        for per_subject in (1, 3):
            query = Query(
                table=TABLE,
                statistic="sum",
                column="outcome.latency",
                bounds=bounds,
                epsilon=1.0,
                per_subject=per_subject,
                by="mode",
                groups=("day", "night"),
            )
            results = []
            for left_out in (None, "user-39", "user-3", "user-38"):
                kept = rows.filter(pa.array([unit != left_out for unit in rows.column("unit").to_pylist()]))
                monkeypatch.setattr(lake, "read", lambda _, columns, kept=kept: kept.select(columns))
                used.clear()
                sums.clear()
                aggregate(lake, ledger, "ana", query)
                results.append(np.array(sums[0]))
                sensitivity = used[0]
            for other in results[1:]:
                assert 0 < np.abs(results[0] - other).sum() <= sensitivity


def _keeping(sums: list[list[int]]) -> Any:
    def noise(values: list[int]) -> list[int]:
        sums.append(values)
        return values

    return noise


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistic": "median"}, "unknown statistic"),
        ({"statistic": "sum"}, "needs a column and bounds"),
        ({"column": "step"}, "takes no column"),
        ({"statistic": "sum", "column": "step", "bounds": (2.0, 1.0)}, "lower one first"),
        ({"statistic": "sum", "column": "policy", "bounds": (0.0, 1.0)}, "is string; allowed: numbers"),
        ({"by": "mode"}, "together"),
        ({"mechanism": "gaussian"}, "delta is above 0"),
        ({"per_subject": 0}, "per_subject is 0"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"table": "silver.nothing"}, "unknown table"),
    ],
)
def test_a_question_that_cannot_be_answered_costs_nothing(
    lake: Lake, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    ledger = budget(tmp_path, epsilon=1.0)
    asked = {"table": TABLE, "statistic": "count", "epsilon": 0.5, **changes}
    with pytest.raises(RequestError, match=message):
        aggregate(lake, ledger, "ana", Query(**asked))
    assert ledger.account("ana").epsilon_left == 1.0
    assert ledger.entries("ana") == []


def test_a_refusal_names_what_is_left(lake: Lake, tmp_path: Path) -> None:
    ledger = budget(tmp_path, epsilon=0.3)
    aggregate(lake, ledger, "ana", Query(table=TABLE, statistic="count", epsilon=0.2))
    with pytest.raises(BudgetError, match=r"has epsilon 0\.1 and delta 0 left; the question costs epsilon 0\.2"):
        aggregate(lake, ledger, "ana", Query(table=TABLE, statistic="count", epsilon=0.2))
    with pytest.raises(NotFoundError, match="'bob' has no budget"):
        aggregate(lake, ledger, "bob", Query(table=TABLE, statistic="count", epsilon=0.2))
    with pytest.raises(ConflictError, match="spent more"):
        ledger.grant("ana", epsilon=0.1)
    assert ledger.grant("ana", epsilon=0.5).epsilon_left == pytest.approx(0.3)


def test_a_failure_behind_the_payment_gives_nothing_back(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = budget(tmp_path, epsilon=1.0)

    def break_down(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(ledger, "release", break_down)
    with pytest.raises(OSError, match="full"):
        aggregate(lake, ledger, "ana", Query(table=TABLE, statistic="count", epsilon=0.4))
    assert ledger.account("ana").epsilon_left == pytest.approx(0.6)
    (entry,) = ledger.entries("ana")
    assert (entry.state, entry.answer, entry.epsilon) == ("reserved", None, 0.4)


def test_ten_tenths_are_one_and_no_more(tmp_path: Path) -> None:
    ledger = budget(tmp_path, epsilon=1.0, delta=1e-6)
    for _ in range(10):
        ledger.reserve("ana", {}, epsilon=0.1, delta=1e-7)
    with pytest.raises(BudgetError):
        ledger.reserve("ana", {}, epsilon=1e-9)
    with pytest.raises(InvalidInputError, match="delta is -1"):
        ledger.reserve("ana", {}, epsilon=0.1, delta=-1.0)


def test_many_threads_and_processes_cannot_overspend(tmp_path: Path) -> None:
    ledger = budget(tmp_path, epsilon=3.0)
    url = f"sqlite:///{tmp_path / 'state.db'}"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["privacy_children"])
    files = [tmp_path / f"paid-{number}" for number in range(8)]
    workers: list[Any] = [
        context.Process(target=privacy_children.spend, args=(url, "ana", 8, file)) for file in files[:4]
    ]
    workers += [threading.Thread(target=privacy_children.spend, args=(url, "ana", 8, file)) for file in files[4:]]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(int(file.read_text()) for file in files) == 30  # 64 asked, and a budget of 30
    assert len(ledger.entries("ana")) == 30
    assert ledger.account("ana").epsilon_left == 0.0
