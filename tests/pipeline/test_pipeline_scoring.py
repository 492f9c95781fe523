"""Offline scoring: every row of a table is decided or rejected with its reason, in one commit, on a real Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from support.bundles import MODES, policy_bundle
from support.local_ray import started_ray

from rlaas.bundles import load_bundle
from rlaas.cli.main import app, run
from rlaas.errors import ConfigurationError, InvalidInputError, NotFoundError, RlaasError
from rlaas.lake import DecisionRecord, Lake
from rlaas.lake.rows import decision_rows
from rlaas.pipeline.scoring import DECISION_COLUMNS, Source, plan_scoring, score_table
from rlaas.serving.scoring import Scorer

TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    with started_ray(TESTS, cpus=3):
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return policy_bundle(tmp_path_factory.mktemp("bundles") / "discrete", seed=3)


def _features(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {f"x{i}": rng.normal(size=rows) for i in range(3)}


def _plan(source: str | Path, output: Path, bundle: Path, **options: Any) -> Any:
    found = Source.of(str(source), lake_root=str(output.parent / "lake"), tenant="default", policy="toy")
    return plan_scoring(found, output, bundle, policy="toy", version=7, **options)


def _result(output: Path) -> list[dict[str, Any]]:
    return DeltaTable(str(output)).to_pyarrow_table().to_pylist()


def _expected(bundle: Path, features: dict[str, np.ndarray], weights: dict[str, float]) -> list[list[float]]:
    policy = load_bundle(bundle)
    observations = policy.check_observations(np.stack(list(features.values()), axis=1))
    actions, _ = policy.act(observations, policy.preference(weights))
    return [action if isinstance(action, list) else [float(action)] for action in actions.tolist()]


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_delta_table_of_many_files_is_scored_row_by_row(tmp_path: Path, bundle: Path) -> None:
    features = _features(500)
    for part in range(5):
        rows = {name: values[part * 100 : (part + 1) * 100] for name, values in features.items()}
        write_deltalake(
            str(tmp_path / "in"),
            pa.table({"key": np.arange(part * 100, (part + 1) * 100), "site": [f"s{part}"] * 100, **rows}),
            mode="append",
            partition_by=["site"],
        )
    seen: list[tuple[int, int]] = []
    report = score_table(
        _plan(tmp_path / "in", tmp_path / "out", bundle, mode="emergency", keep=["key", "site"], batch_rows=64),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (report.rows, report.decided, report.rejected, report.table_version) == (500, 500, {}, 4)
    assert seen[-1] == (500, 500)
    assert DeltaTable(str(tmp_path / "out")).version() == 0  # one commit
    rows = sorted(_result(tmp_path / "out"), key=lambda row: row["key"])
    assert [row["key"] for row in rows] == list(range(500))
    assert [row["action"] for row in rows] == _expected(bundle, features, MODES["emergency"])
    assert {(row["policy"], row["version"], row["propensity"], row["rejected"]) for row in rows} == {
        ("toy", 7, None, None)
    }
    assert dict(rows[0]["preference"]) == {"latency": 1.0, "throughput": 0.0}
    assert {row["site"] for row in rows} == {f"s{part}" for part in range(5)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_a_worker_decides_as_the_bundle_does(tmp_path: Path, kind: Any, seed: int) -> None:
    bundle, features = policy_bundle(tmp_path / "b", kind=kind, seed=seed), _features(64, seed)
    pq.write_table(pa.table(features), tmp_path / "in.parquet")
    plan = _plan(tmp_path / "in.parquet", tmp_path / "out", bundle, preference={"latency": 2.0, "throughput": 6.0})
    scored = Scorer(**plan.scorer)(pa.table(features))
    assert scored.schema == plan.schema
    np.testing.assert_allclose(
        scored["action"].to_pylist(), _expected(bundle, features, {"latency": 1, "throughput": 3}), atol=1e-6
    )
    assert dict(scored["preference"][0].as_py()) == {"latency": 0.25, "throughput": 0.75}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_bad_rows_stay_with_their_reason(tmp_path: Path, bundle: Path) -> None:
    lists = [[1.0, 2.0, 3.0], [1.0, 2.0], None, [1.0, None, 3.0], [1.0, 2.0, float("inf")], [1e39, 0.0, 0.0], [0.0] * 3]
    modes = ["normal", "normal", "normal", "normal", "normal", None, "panic"]
    pq.write_table(pa.table({"observation": lists, "mode": modes}), tmp_path / "in.parquet")
    report = score_table(_plan(tmp_path / "in.parquet", tmp_path / "out", bundle, mode_column="mode"))
    rows = _result(tmp_path / "out")
    assert [row["rejected"] for row in rows] == [
        None,
        "not 3 numbers",
        "not 3 numbers",
        "x1 is missing or not a finite float32",
        "x2 is missing or not a finite float32",
        "x0 is missing or not a finite float32",
        "unknown mode",
    ]
    assert [row["action"] is None for row in rows] == [False] + [True] * 6
    assert (report.rows, report.decided, sum(report.rejected.values())) == (7, 1, 6)
    assert report.rejected["not 3 numbers"] == 2
    assert [row["mode"] for row in rows] == modes


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_each_row_may_have_its_own_preference(tmp_path: Path, bundle: Path) -> None:
    features = _features(4)
    weights = [{"latency": 1.0}, {"latency": 1.0, "throughput": 3.0}, None, {"latency": -1.0}]
    column = pa.array(
        [None if w is None else list(w.items()) for w in weights], type=pa.map_(pa.string(), pa.float64())
    )
    write_deltalake(str(tmp_path / "in"), pa.table({**features, "wish": column}))
    report = score_table(_plan(tmp_path / "in", tmp_path / "out", bundle, preference_column="wish"))
    rows = _result(tmp_path / "out")
    assert report.rejected == {"impossible preference": 1}
    assert dict(rows[1]["preference"]) == pytest.approx({"latency": 0.25, "throughput": 0.75})
    assert dict(rows[2]["preference"]) == {"latency": 0.5, "throughput": 0.5}
    for index, wanted in enumerate([{"latency": 1.0}, weights[1], {"latency": 1.0, "throughput": 1.0}]):
        one = {name: values[index : index + 1] for name, values in features.items()}
        assert [rows[index]["action"]] == _expected(bundle, one, wanted)


def test_box_actions_of_a_policy_without_preferences(tmp_path: Path) -> None:
    bundle = policy_bundle(tmp_path / "box", kind="box", conditioned=False, actions=2)
    features = _features(10)
    pq.write_table(pa.table({"a": features["x0"], "b": features["x1"], "c": features["x2"]}), tmp_path / "in.parquet")
    plan = _plan(tmp_path / "in.parquet", tmp_path / "out", bundle, columns=["a", "b", "c"], mode="normal")
    scored = Scorer(**plan.scorer)(pq.read_table(tmp_path / "in.parquet"))
    policy = load_bundle(bundle)
    wanted, _ = policy.act(policy.check_observations(np.stack(list(features.values()), axis=1)))
    np.testing.assert_allclose(scored["action"].to_pylist(), wanted, atol=1e-6)
    assert scored["preference"].null_count == 10


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_table_of_the_lake_gives_the_rows_of_tenant_and_policy_only(tmp_path: Path, bundle: Path) -> None:
    lake = Lake(tmp_path / "lake")
    for tenant, policy in (("default", "toy"), ("other", "toy"), ("default", "another")):
        records = [
            DecisionRecord(
                receipt_id=f"{tenant}-{policy}-{i}",
                decision_id=f"{tenant}-{policy}-{i}",
                tenant=tenant,
                time_us=1_700_000_000_000_000 + i,
                scenario="toy",
                policy=policy,
                version=1,
                variant="champion",
                variant_propensity=1.0,
                observation=[0.1 * i, 0.2, 0.3],
                action=[0.0],
                generation=1,
                producer="p",
            )
            for i in range(6)
        ]
        write_deltalake(lake.open_or_create("bronze.decisions"), decision_rows(records), mode="append")
    report = score_table(_plan("bronze.decisions", tmp_path / "out", bundle, keep=["decision_id", "date"]))
    assert report.rows == 6
    rows = _result(tmp_path / "out")
    assert sorted(row["decision_id"] for row in rows) == [f"default-toy-{i}" for i in range(6)]
    assert {row["date"] for row in rows} == {"2023-11-14"}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_worker_that_fails_leaves_nothing(tmp_path: Path, bundle: Path) -> None:
    pq.write_table(pa.table(_features(5)), tmp_path / "in.parquet")
    plan = _plan(tmp_path / "in.parquet", tmp_path / "out", bundle)
    whole = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(whole[:20] + b"\xff" * (len(whole) - 200) + whole[-180:])
    with pytest.raises(RlaasError):
        score_table(plan)
    assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_the_command_scores_by_a_bundle(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The command's own Ray is that of other tests here.
    monkeypatch.setattr("rlaas.pipeline.cluster.local_ray", nullcontext)
    features = _features(30)
    pq.write_table(pa.table({**features, "key": range(30)}), tmp_path / "in.parquet")
    command = ["decide", "toy", "--table", str(tmp_path / "in.parquet"), "--bundle", str(bundle), "--keep", "key"]
    told = ["--preference", '{"throughput": 1}', "--output", str(tmp_path / "out"), "--json"]
    assert run(app, [*command, *told]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["decided"], report["version"]) == (30, 30, None)
    rows = _result(tmp_path / "out")
    assert list(rows[0]) == ["key", *DECISION_COLUMNS.names]
    assert [row["action"] for row in rows] == _expected(bundle, features, {"throughput": 1.0})
    assert run(app, [*command, *told]) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_cannot_work_is_refused_before_ray_starts(tmp_path: Path, bundle: Path) -> None:
    pq.write_table(pa.table({**_features(2), "name": ["a", "b"], "action": [1, 2]}), tmp_path / "in.parquet")
    source = tmp_path / "in.parquet"
    for options, error, words in (
        ({"columns": ["x0", "x1", "nope"]}, InvalidInputError, "unknown column 'nope'"),
        ({"columns": ["x0", "x1"]}, InvalidInputError, "expected 3 columns of numbers"),
        ({"columns": ["x0", "x1", "name"]}, InvalidInputError, "column 'name' is string"),
        ({"mode": "panic"}, InvalidInputError, "allowed: emergency, normal"),
        ({"mode_column": "x0"}, InvalidInputError, "expected text"),
        ({"preference_column": "name"}, InvalidInputError, "expected a map or a struct"),
        ({"preference": {"latency": -1.0}}, InvalidInputError, "must be finite and >= 0"),
        ({"mode": "normal", "mode_column": "name"}, ConfigurationError, "exclude each other"),
        ({"keep": None}, InvalidInputError, "choose others with --keep"),
        ({"batch_rows": 0}, ConfigurationError, "at least 1"),
    ):
        with pytest.raises(error, match=words):
            _plan(source, tmp_path / "out", bundle, **{"keep": ["x0"], **options})
    with pytest.raises(InvalidInputError, match="there already"):
        _plan(source, tmp_path, bundle)
    with pytest.raises(NotFoundError, match=r"bronze\.decisions"):
        _plan(tmp_path / "missing", tmp_path / "out", bundle)
    with pytest.raises(NotFoundError, match="once it holds rows"):
        _plan("bronze.decisions", tmp_path / "out", bundle)
    (tmp_path / "text").write_text("no table")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        _plan(tmp_path / "text", tmp_path / "out", bundle)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--table", "t"], "--table needs --output"),
        (["--table", "t", "--output", "o", "--observation", "[1]"], "--observation does not go with --table"),
        (["--observation", "[1]", "--columns", "a"], "--columns goes with --table only"),
        ([], "give --observation, or --table"),
        (["--table", "t", "--output", "o", "--bundle", "b", "--version", "1"], "exclude each other"),
        (["--table", "t", "--output", "o", "--bundle", "nowhere"], "no such folder"),
        (["--table", "t", "--output", "o", "--preference", "3", "--bundle", "."], "must be a JSON object"),
    ],
)
def test_options_of_the_two_ways_do_not_mix(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["decide", "toy", *arguments]) == 2
    assert words in capsys.readouterr().err
    monkeypatch.undo()
