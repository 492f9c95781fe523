"""What the main job leaves for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from rlaas.decisions import Choice
from rlaas.demo.traffic import Traffic
from rlaas.experiments import Comparison
from rlaas.fronts import Front
from rlaas.lake import Verification
from rlaas.optimization import SearchResult
from rlaas.pipeline import EvaluatedCandidates, Hypervolumes, Verdict
from rlaas.registry import PolicyVersion
from rlaas.scenarios import Evaluation, EvaluationProtocol, Scenario
from rlaas.training import TrainingRun

__all__ = ["LoopResult", "ServedExperiment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedExperiment:
    """What the served part of the loop showed."""

    traffic: Traffic
    decisions: Verification
    outcomes: Verification
    transitions: pa.Table
    comparison: Comparison
    promoted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopResult:
    """Everything a report needs."""

    scenario: Scenario
    protocol: EvaluationProtocol
    baselines: Mapping[str, Evaluation]
    training: TrainingRun
    algorithm: str
    searches: Mapping[str, SearchResult]
    evaluated: EvaluatedCandidates
    front: Front
    volumes: Hypervolumes
    choices: Mapping[str, Choice]
    champion: PolicyVersion
    policy: PolicyVersion
    served: ServedExperiment
    offline: TrainingRun
    offline_version: PolicyVersion
    columns: Mapping[str, Evaluation]
    verdicts: Mapping[str, Verdict]
    ours: str
    seconds: Mapping[str, float]
