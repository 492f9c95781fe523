"""Bad usage of ``serve`` and ``decide``: one line that names the option, before anything has been started."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaas.cli.main import app, run

ROW = ["--observation", "[0]"]
TABLE = ["--table", "nowhere.parquet", "--output", "scored"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["serve", "--host", ""], "--host is empty; allowed:"),
        (["serve", "--replicas", "1001"], "--replicas"),
        (["decide", "p", "--observation", "[NaN]"], "--observation holds NaN or Infinity; allowed: finite numbers"),
        (["decide", "p", "--observation", "[1e999]"], "--observation holds NaN or Infinity"),
        (["decide", "p", "--observation", "[" * 100_000], "--observation is not JSON"),
        (["decide", "p", *ROW, "--preference", '{"latency": NaN}'], "--preference holds NaN or Infinity"),
        (["decide", "p", *ROW, "--unit", ""], "--unit is empty; give it a value, or leave it out"),
        (["decide", "p", "--table", "", "--output", "scored"], "--table is empty"),
        (["decide", "p", *TABLE, "--columns", ""], "--columns is empty"),
        (["decide", "p", *TABLE, "--mode", "m", "--mode-column", "c"], "--mode and --mode-column exclude each other"),
        (
            ["decide", "p", *TABLE, "--preference", '{"a": 1}', "--preference-column", "c"],
            "--preference-column exclude",
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_usage_names_the_option(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    assert expected in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_the_callers_to_mend(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, empty = tmp_path / "rows.parquet", tmp_path / "empty"
    pq.write_table(pa.table({"observation": [[0.0]]}), table)
    empty.mkdir()
    scored = ["--table", str(table), "--output", str(tmp_path / "scored"), "--bundle", str(empty)]
    assert run(app, ["decide", "p", *scored]) == 2
    assert f"--bundle {empty} holds no sound bundle: " in capsys.readouterr().err
