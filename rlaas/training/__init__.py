"""Training: preference-conditioned SAC and PPO as RLlib algorithms, offline fitting, evaluation and bundle export.

Names are loaded on first use: a process that only reads a configuration loads neither RLlib nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names
from rlaas.training.config import PPOSettings, SACSettings, TrainingConfig, load_config
from rlaas.training.offline.config import FitSettings, OfflineConfig, RewardSettings, load_offline_config

if TYPE_CHECKING:
    from rlaas.training.conditioning import spread_preferences
    from rlaas.training.episodes import EpisodeReturns, episode_returns
    from rlaas.training.evaluation import PolicyController, evaluate_policy
    from rlaas.training.export import export_bundle, export_constant
    from rlaas.training.front_evaluation import FrontEvaluation, Interval, evaluate_front, front_quality
    from rlaas.training.gymnasium_scenario import GymnasiumScenario
    from rlaas.training.offline.fitting import fit_offline
    from rlaas.training.offline.source import open_source
    from rlaas.training.problems import recommended_config
    from rlaas.training.results import TrainingRun
    from rlaas.training.runs import build_algorithm, load_run_config, train
    from rlaas.training.telemetry import Reporter, RunTelemetry, Telemetry, TelemetryConfig, TelemetryReport

__all__ = [
    "EpisodeReturns",
    "FitSettings",
    "FrontEvaluation",
    "GymnasiumScenario",
    "Interval",
    "OfflineConfig",
    "PPOSettings",
    "PolicyController",
    "Reporter",
    "RewardSettings",
    "RunTelemetry",
    "SACSettings",
    "Telemetry",
    "TelemetryConfig",
    "TelemetryReport",
    "TrainingConfig",
    "TrainingRun",
    "build_algorithm",
    "episode_returns",
    "evaluate_front",
    "evaluate_policy",
    "export_bundle",
    "export_constant",
    "fit_offline",
    "front_quality",
    "load_config",
    "load_offline_config",
    "load_run_config",
    "open_source",
    "recommended_config",
    "spread_preferences",
    "train",
]

_HOMES = {
    "EpisodeReturns": "episodes",
    "FrontEvaluation": "front_evaluation",
    "GymnasiumScenario": "gymnasium_scenario",
    "Interval": "front_evaluation",
    "PolicyController": "evaluation",
    "Reporter": "telemetry",
    "RunTelemetry": "telemetry",
    "Telemetry": "telemetry",
    "TelemetryConfig": "telemetry",
    "TelemetryReport": "telemetry",
    "TrainingRun": "results",
    "build_algorithm": "runs",
    "episode_returns": "episodes",
    "evaluate_front": "front_evaluation",
    "evaluate_policy": "evaluation",
    "export_bundle": "export",
    "export_constant": "export",
    "fit_offline": "offline.fitting",
    "open_source": "offline.source",
    "front_quality": "front_evaluation",
    "spread_preferences": "conditioning",
    "load_run_config": "runs",
    "recommended_config": "problems",
    "train": "runs",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
