"""``rlaas fit``: from a Delta table to a registered candidate, and every way in which it cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

TRAINING = Path(__file__).parent.parent / "training"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty installation, with the toys on the import path."""
    monkeypatch.syspath_prepend(str(TRAINING))
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _write(folder: Path, **document: Any) -> str:
    path = folder / "fit.yaml"
    fit = {"method": "cql", "epochs": 25, "seed": 3} | document.pop("fit", {})
    path.write_text(yaml.safe_dump({"scenario": "training_toys:DiscreteToy", "mode": "follow", "fit": fit} | document))
    return str(path)


@pytest.mark.ray
def test_a_table_becomes_a_candidate(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from offline_logs import lake_of, logged
    from training_toys import DiscreteToy

    from rlaas.bundles import load_bundle
    from rlaas.cli.main import app, run
    from rlaas.registry import Registry
    from rlaas.scenarios import evaluate
    from rlaas.settings import load_settings
    from rlaas.training import PolicyController
    from rlaas.training.warm_start import read_warm_start

    scenario = DiscreteToy()
    log, later = logged(scenario, 60), logged(scenario, 5, seed=9)
    seldom = log.filter([row != [3.0] for row in log.column("action").to_pylist()])
    lake_of(home / "lake", seldom, later)
    config = _write(tmp_path, source={"version": 0, "policy": "toy"})
    assert run(app, ["fit", "--config", config, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    version = Registry(load_settings()).get("toy-discrete", "candidate")
    assert report["policy"] == {"name": "toy-discrete", "version": version.version}
    assert report["rows"] == seldom.num_rows
    assert report["left_out"] == 7
    assert report["source"] == {
        "table": "silver.transitions",
        "table_version": 0,
        "filter": {"policy": "toy"},
    }
    assert report["unknown"][0].startswith("how good the policy is: nothing was evaluated")
    assert f"what 7 of {seldom.num_rows} rows led to" in report["unknown"][1]
    assert report["unknown"][2] == "what choices 3 bring: the log never took them"
    assert json.loads(version.tags["lake_versions"]) == {"silver.transitions": 0}
    policy = load_bundle(report["bundle"])
    assert policy.manifest.lineage["table_version"] == 0
    assert policy.manifest.lineage["config"]["mode"] == "follow"
    follow = scenario.modes["follow"].preference
    reached = evaluate(scenario, PolicyController(policy), (1, 2), steps=50).mean() @ follow.array()
    # Standing still would be 2/3, the log 0.2.
    assert reached > 0.69
    assert read_warm_start(report["warm_start"]).kind == "fit"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "there is no table silver.transitions under"),
        ({"source": {"table": "gold.toy_training"}}, "there is no table gold.toy_training under"),
        ({"source": {"table": "bronze.decisions"}}, "source.table"),
        ({"mode": "party"}, "unknown mode 'party'; allowed: follow"),
        ({"preference": {"near": 1.0}}, "give exactly one of preference, mode and conditioned: true"),
        ({"mode": None, "preference": {"far": 1.0}}, "unknown preference objective 'far'; allowed: mirror, near"),
        ({"reward": {"function": "nowhere:reward"}}, "reward.function 'nowhere:reward' cannot be loaded"),
        ({"fit": {"method": "dreamer"}}, "fit.method: Input should be 'cloning', 'advantage_weighted', 'iql' or 'cql'"),
        ({"fit": {"method": "cql", "inverse_propensity": True}}, "inverse_propensity has no meaning for method cql"),
        ({"fit": {"epoch": 3}}, "fit: unknown key 'epoch'; allowed: advantage_weighted, algorithm, batch_size"),
        ({"scenario": "chess"}, "unknown scenario 'chess'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    document: dict[str, Any], message: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rlaas.cli.main import app, run

    assert run(app, ["fit", "--config", _write(tmp_path, **document)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (home / "runs").exists()


def test_tables_that_lack_what_a_fit_needs_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from offline_logs import lake_of, logged
    from training_toys import DiscreteToy

    from rlaas.cli.main import app, run

    table = logged(DiscreteToy(), 5)
    lake_of(home / "lake", table.drop_columns(["action_propensity", "preference"]))
    lake_of(home / "lake", table.drop_columns(["outcome"]), name="gold.bare")

    def error(**document: Any) -> str:
        assert run(app, ["fit", "--config", _write(tmp_path, **document)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    inverse = {"method": "iql", "inverse_propensity": True}
    assert "lacks the column 'action_propensity', which this fit needs" in error(fit=inverse)
    all_of_them = error(fit={"method": "cloning"}, mode=None, conditioned=True)
    assert "lacks the column 'preference', which this fit needs" in all_of_them
    assert "table gold.bare lacks the column 'outcome' (what is fitted to)" in error(source={"table": "gold.bare"})


def test_no_matching_row_is_said_with_what_was_looked_for(home: Path, tmp_path: Path) -> None:
    from offline_logs import lake_of, logged
    from training_toys import DiscreteToy

    from rlaas.errors import InvalidInputError
    from rlaas.pipeline import run_fit
    from rlaas.settings import load_settings
    from rlaas.training import load_offline_config

    lake_of(home / "lake", logged(DiscreteToy(), 5))
    # Every folder is ruled out by its name, so nothing is read and no Ray is needed.
    config = load_offline_config(_write(tmp_path, source={"first_date": "2026-03-01"}))
    with pytest.raises(
        InvalidInputError,
        match=r"no row of silver.transitions version 0 matches: scenario toy-discrete, first_date 2026-03-01",
    ):
        run_fit(config, load_settings())
    with pytest.raises(InvalidInputError, match="alias"):
        run_fit(config, load_settings(), alias="not an alias")


def test_what_a_box_log_never_tried_is_said(home: Path) -> None:
    from training_toys import Toy

    from rlaas.pipeline.fits import _unknown

    lineage = {"rows": 10, "left_out": 0, "actions": {"low": [-0.5], "high": [2.0]}}
    said = _unknown(Toy(), lineage)
    assert said[1] == "what action 0 brings outside -0.5 to 2: the log has no more of -2 to 2"
    assert len(_unknown(Toy(), lineage | {"actions": {"low": [-2.0], "high": [1.95]}})) == 1
