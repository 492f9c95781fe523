"""What a pipeline refuses before anything starts, and a configuration by its key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pipeline_toys import pipeline_config
from pipeline_tuner import tuner_of

from rlaas.errors import ConfigurationError
from rlaas.pipeline import load_pipeline_config, plan_pipeline, run_pipeline
from rlaas.settings import Settings

SEARCH = {
    "scenario": "pipeline_toys:Named",
    "tunable": "static",
    "generations": 2,
    "population": 8,
    "steps": 10,
    "warmup": 0,
    "seeds": [101],
}


def test_what_cannot_work_is_refused_before_anything_starts(settings: Settings, tmp_path: Path) -> None:
    home = settings.model_copy(update={"home": tmp_path / "untouched"})
    for fields, said in (
        ({"protocol": "tiny"}, "unknown protocol 'tiny'; allowed: full, short"),
        ({"searches": [{**SEARCH, "tunable": "magic"}]}, "unknown searches.0.tunable 'magic'; allowed: static"),
        ({"evaluation": {"mode": "party"}}, "unknown evaluation.mode 'party'; allowed: balanced, cheap"),
        ({"evaluation": {"guardrails": {"joy": 0.1}}}, "unknown evaluation.guardrails 'joy'; allowed: cost, quality"),
        ({"tune": {"trials": 0}}, "tune: trials must be at least 1, got 0"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            run_pipeline(pipeline_config("refused", **fields), home, tuner=tuner_of({}))
        assert str(caught.value) == said
    with pytest.raises(ConfigurationError, match="unknown stage to force 'fly'; allowed: data, evaluate, register"):
        run_pipeline(pipeline_config("refused"), home, force=["fly"])
    with pytest.raises(ConfigurationError, match="unknown stage to start from 'fly'"):
        plan_pipeline(pipeline_config("refused"), home, first="fly")
    assert not home.home.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training: {environment: CartPole-v1}", "training.scenario is missing"),
        (
            "training: {scenario: network5g}\nsearches: [{scenario: recsys}]",
            "searches.0 is about 'recsys'; expected the training's 'network5g'",
        ),
        ("training: {scenario: network5g}\nretries: {fly: 1}", "retries.fly"),
        ("training: {scenario: network5g}\nretries: {train: 101}", "retries: train must be between 0 and 100, got 101"),
        ("training: {scenario: network5g}\nalias: v1", "alias 'v1' is not usable"),
        (
            "training: {scenario: network5g}\ndata: {tables: [silver.gold]}",
            "data.tables: unknown table 'silver.gold'; allowed: bronze.decisions",
        ),
        (
            "training: {scenario: network5g}\ndata: {tables: [], versions: {silver.transitions: 1}}",
            "data: unknown table in versions 'silver.transitions'; allowed: (none)",
        ),
        (
            "training: {scenario: network5g}\nevaluation: {guardrails: {latency: -1}}",
            "evaluation.guardrails: latency must be between 0 and 1, got -1.0",
        ),
        (
            "training: {scenario: network5g}\nwarm_start: logs",
            "warm_start: logs needs silver.transitions in data.tables",
        ),
        (
            "training: {scenario: network5g, warm_start: there}\nwarm_start: champion",
            "training.warm_start names a folder and warm_start says where to begin; give one of them",
        ),
        (
            "training: {scenario: network5g}\nevaluation: {race: {budget: -1}}",
            "evaluation.race.budget: must be >= 0",
        ),
        ("training: {scenario: network5g}\nevaluation: {race: {tolerance: .nan}}", "evaluation.race.tolerance"),
        ("training: {scenario: network5g}\nforce: sometimes", "force: must be 'never' or 'always'"),
    ],
)
def test_a_wrong_file_is_refused_by_key(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_pipeline_config(path)
    assert said in str(caught.value)
    assert "pipeline.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
