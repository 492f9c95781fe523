from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.bundles import policy_bundle
from support.lake_records import decision, outcome

from rlaas.cli.main import app, run
from rlaas.lake import Lake, WriteAheadLog, encode
from rlaas.registry import Registry
from rlaas.settings import Settings

SUBJECT = "user-17"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two decisions of toy@1 that were committed, and toy@2 that was made from them."""
    root = tmp_path_factory.mktemp("filled")
    settings = Settings(home=root / "home")
    records = [decision(name, policy="toy", version=1, unit=unit) for name, unit in (("a1", SUBJECT), ("a2", "user-2"))]
    results = [outcome(f"r-{name}", name) for name in ("a1", "a2")]
    for stream, some in (("decisions", records), ("outcomes", results)):
        with WriteAheadLog(settings.wal_root, stream, "g") as wal:  # type: ignore[arg-type]
            wal.append([encode(one) for one in some])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLAAS_HOME", str(settings.home))
        assert run(app, ["lake", "commit"]) == 0
    registry = Registry(settings)
    registry.register("toy", policy_bundle(root / "v1", seed=1), alias="champion")
    versions = Lake(settings.lake_root).versions()
    tags = {"lake_versions": {"silver.transitions": versions["silver.transitions"]}, "stage_keys": {"data": "k"}}
    registry.register("toy", policy_bundle(root / "v2", seed=2), tags=tags)
    return settings.home


@pytest.fixture
def home(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(filled, tmp_path / "home")
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert run(app, list(arguments)) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(told(capsys, *arguments, "--json"))


def test_lineage_is_shown_both_ways(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = told(capsys, "lineage", "show", "a1").splitlines()
    assert lines[0] == "comes from"
    assert any(line.strip().startswith("policy:toy@1 (decided by)") for line in lines)
    below = lines[lines.index("went into") :]
    assert any("policy:toy@2 (pinned by the pipeline)" in line for line in below)
    found = document(capsys, "lineage", "show", "policy:toy@2", "--dot", str(tmp_path / "graph.dot"))
    assert found["start"] == "policy:toy@2"
    assert "decisions:toy@1" in found["came_from"]
    assert {edge["relation"] for edge in found["edges"]} >= {"pinned by the pipeline", "joined into"}
    assert '"policy:toy@1" -> "decisions:toy@1"' in (tmp_path / "graph.dot").read_text()
    assert "no decision 'nobody'" in told(capsys, "lineage", "show", "nobody", status=2)


def test_a_subject_is_erased_and_the_report_verified(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looked = document(capsys, "lake", "erase", "--subject", SUBJECT, "--dry-run")
    assert looked["rows"] == {"bronze.decisions": 1, "bronze.outcomes": 1, "silver.transitions": 1}
    assert looked["models"] == ["toy@2"]
    report = document(capsys, "lake", "erase", "--subject", SUBJECT)
    assert report["clean"]
    assert report["rows"] == looked["rows"]
    assert report["models"] == ["toy@2"]
    assert report["not_scanned"] == []
    (file,) = (home / "erasures").rglob("*.json")
    assert "unchanged" in told(capsys, "lake", "erase", "--verify", str(file))
    file.write_text(file.read_text().replace('"clean": true', '"clean": false'))
    assert "was changed after" in told(capsys, "lake", "erase", "--verify", str(file), status=2)
    assert "either --subject or --verify" in told(capsys, "lake", "erase", status=2)
    assert document(capsys, "lake", "tables")[0]["rows"] == 1
    # What is left can still be walked, and the erased decision is none.
    assert "decisions:toy@1" in document(capsys, "lineage", "show", "policy:toy@1")["went_into"]
    assert document(capsys, "lineage", "show", "a2")["came_from"] == ["policy:toy@1"]
    assert "no decision 'a1'" in told(capsys, "lineage", "show", "a1", status=2)


def test_an_analyst_spends_a_budget(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["lake", "aggregate", "--analyst", "ana", "--epsilon", "0.6"]
    assert "has no budget" in told(capsys, *asked, status=2)
    told(capsys, "lake", "budget", "--analyst", "ana", "--grant", "1.0")
    answer = document(capsys, *asked)
    assert isinstance(answer["answer"], float)
    assert answer["scale"] == pytest.approx(1 / 0.6)
    assert answer["epsilon_left"] == pytest.approx(0.4)
    assert "has epsilon 0.4" in told(capsys, *asked, status=2)
    ledger = document(capsys, "lake", "budget", "--analyst", "ana")
    assert ledger["accounts"][0]["epsilon_left"] == pytest.approx(0.4)
    assert [entry["state"] for entry in ledger["entries"]] == ["released"]
