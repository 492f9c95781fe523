"""Continuous training: stages from data to a registered policy, cached by their inputs, resumable, with lineage.

``run`` puts the stages together; ``stage``, ``runner``, ``artefacts``, ``fingerprints``, ``locks`` and ``tracking`` are
the machinery, which knows nothing of learning; ``data``, ``validation``, ``training``, ``tuning``, ``searching``,
``evaluation`` and ``registration`` are the stages; ``verdict`` and ``champion`` say what is better than what.
"""

from rlaas.pipeline.continuous.config import STAGES, PipelineConfig, load_pipeline_config
from rlaas.pipeline.continuous.report import Observer, PipelineReport, StagePlan, StageReport
from rlaas.pipeline.continuous.run import pipeline_folder, plan_pipeline, run_pipeline

__all__ = [
    "STAGES",
    "Observer",
    "PipelineConfig",
    "PipelineReport",
    "StagePlan",
    "StageReport",
    "load_pipeline_config",
    "pipeline_folder",
    "plan_pipeline",
    "run_pipeline",
]
