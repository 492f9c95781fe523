"""Questions in SQL see the tenant's rows and change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.lake_records import START_US, decision

from rlaas.errors import InvalidInputError
from rlaas.lake import Lake
from rlaas.lake.query import query
from rlaas.lake.rows import decision_rows


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(tmp_path / "lake")
    for tenant, count in (("default", 30), ("other", 3)):
        records = [
            decision(f"{tenant}{n}", tenant=tenant, step=n, time_us=START_US + n, preference={"a": 1.0})
            for n in range(count)
        ]
        Lake(found.root, tenant).append_once("bronze.decisions", {tenant: [(1, lambda r=records: decision_rows(r))]})
    return found


def test_a_question_is_answered_in_order(lake: Lake) -> None:
    rows, more = query(lake, "SELECT step, preference['a'] AS a FROM bronze.decisions ORDER BY step DESC", limit=3)
    assert (rows.to_pylist(), more) == ([{"step": 29, "a": 1.0}, {"step": 28, "a": 1.0}, {"step": 27, "a": 1.0}], True)
    rows, more = query(lake, "WITH few AS (SELECT * FROM bronze.decisions WHERE step < 3) SELECT step FROM few -- all")
    assert (sorted(rows.column("step").to_pylist()), more) == ([0, 1, 2], False)


def test_only_the_tenants_rows_are_there(lake: Lake) -> None:
    for tenant, count in (("default", 30), ("other", 3), ("nobody", 0)):
        rows, _ = query(Lake(lake.root, tenant), "SELECT count(*) AS n FROM bronze.decisions WHERE true OR tenant = ''")
        assert rows.to_pylist() == [{"n": count}]


@pytest.mark.parametrize(
    "sql",
    [
        "DROP VIEW bronze.decisions",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT * FROM bronze.decisions",
        "INSERT INTO bronze.decisions SELECT * FROM bronze.decisions",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{folder}/in.csv'",
        "SELECT * FROM '{folder}/in.csv'",
        "SET datafusion.catalog.information_schema = true",
        "SHOW TABLES",
        "SELECT table_name FROM information_schema.tables",
        "SELECT 1; SELECT 2",
        "SELECT 1) UNION ALL (SELECT 2",
        "SELECT 1 /*",
        "bronze.decisions",
        "SELECT nothing FROM bronze.decisions",
        "SELECT * FROM bronze.outcomes",
        "SELEC",
        "",
    ],
)
def test_anything_else_is_refused_in_one_line(lake: Lake, tmp_path: Path, sql: str) -> None:
    (tmp_path / "in.csv").write_text("a\n1\n")
    with pytest.raises(InvalidInputError, match=r"has no answer: .*; tables: bronze\.decisions$") as caught:
        query(lake, sql.format(folder=tmp_path))
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out.csv").exists()
    assert query(lake, "SELECT count(*) AS n FROM bronze.decisions")[0].to_pylist() == [{"n": 30}]


def test_the_limit_is_bounded_and_an_empty_lake_has_no_tables(tmp_path: Path) -> None:
    for limit in (0, 100_001):
        with pytest.raises(InvalidInputError, match="allowed: 1 to 100000"):
            query(Lake(tmp_path), "SELECT 1", limit=limit)
    assert query(Lake(tmp_path), "SELECT 1 AS one")[0].to_pylist() == [{"one": 1}]
    with pytest.raises(InvalidInputError, match=r"tables: \(none\)"):
        query(Lake(tmp_path), "SELECT * FROM bronze.decisions")
