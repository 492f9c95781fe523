"""A pipeline may read a named dataset instead of a version of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_logs import log_traffic
from pipeline_toys import Named, pipeline_config

from rlaas.errors import ConfigurationError, LakeError, NotFoundError
from rlaas.lake import Lake, create_dataset
from rlaas.pipeline.continuous.artefacts import Artefact
from rlaas.pipeline.continuous.data import DataStage, pinned_rows, pinned_versions
from rlaas.pipeline.continuous.stage import Context
from rlaas.settings import Settings, load_settings

TABLE = "silver.transitions"


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    settings = load_settings(home=tmp_path / "home")
    log_traffic(Lake(settings.lake_root), "shop", 25)
    return settings


def context_of(settings: Settings, **data: Any) -> Context:
    config = pipeline_config("shop", data={"tables": [TABLE], **data})
    return Context(config=config, settings=settings, scenario=Named("shop"))


def test_the_rows_are_those_that_were_named(home: Settings, tmp_path: Path) -> None:
    lake = Lake(home.lake_root)
    made = create_dataset(lake, "early", TABLE, condition="date < '2023-11-16'")
    context = context_of(home, datasets={TABLE: "early"})
    pin = {"name": "early", "sha256": made.sha256}
    assert DataStage().inputs(context)["datasets"] == {TABLE: pin}
    folder = tmp_path / "data"
    folder.mkdir()
    metrics = DataStage().run(context, folder)
    data = Artefact(
        stage="data", key="", folder=folder, inputs={}, digest="", metrics=metrics, seconds=0.0, finished_us=0
    )
    (entry,) = data.read("data.json")["tables"]
    assert (entry["rows"], entry["version"], entry["dataset"]) == (made.rows, made.version, pin)
    assert 0 < made.rows < 25
    assert DataStage().lineage(context, data) == {"lake_versions": {TABLE: made.version}, "datasets": {TABLE: pin}}
    assert pinned_versions(data) == {TABLE: made.version}
    log_traffic(lake, "shop", 5, first=25)
    rows = pinned_rows(lake, data, TABLE, ["date"])
    assert rows is not None
    assert rows.num_rows == made.rows
    (data_file,) = (Path(home.lake_root) / "datasets" / "default" / "early").glob("*.parquet")
    data_file.unlink()
    with pytest.raises(LakeError, match="dataset early is damaged"):
        pinned_rows(lake, data, TABLE)


def test_a_wrong_name_is_refused(home: Settings) -> None:
    create_dataset(Lake(home.lake_root), "decided", "bronze.decisions")
    with pytest.raises(NotFoundError, match="unknown dataset 'nothing'; allowed: decided"):
        DataStage().inputs(context_of(home, datasets={TABLE: "nothing"}))
    with pytest.raises(ConfigurationError, match=r"decided holds rows of bronze\.decisions, not of silver"):
        DataStage().inputs(context_of(home, datasets={TABLE: "decided"}))
    with pytest.raises(ValueError, match="pinned twice: by version 1 and by dataset decided"):
        context_of(home, datasets={TABLE: "decided"}, versions={TABLE: 1})
    with pytest.raises(ValueError, match="unknown table in datasets"):
        context_of(home, datasets={"bronze.outcomes": "decided"})
