"""What a training run is told: one frozen document, from Python or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError

__all__ = ["Algorithm", "Constraint", "PPOSettings", "SACSettings", "TrainingConfig", "load_config"]

Algorithm = Literal["sac", "ppo"]

_DEFAULT_LEARNING_RATE: Mapping[str, float] = {"sac": 1e-3, "ppo": 1e-3}
# Control of queues and sessions answers within some ten steps: a short horizon learns in a fraction of the updates.
_DEFAULT_GAMMA: Mapping[str, float] = {"sac": 0.9, "ppo": 0.98}
# One step of a full outage can cost a hundred ranges: left in, it would be all that a critic learns about.
_SCENARIO_REWARD_CLIP = 20.0


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SACSettings(_Document):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905)."""

    updates_per_step: float = Field(default=0.125, gt=0, le=20, description="gradient updates per decision")
    tau: float = Field(default=0.01, gt=0, le=1, description="Polyak step of the target critics")
    learning_starts: int | None = Field(
        default=None,
        ge=1,
        description="decisions of the half-random warm-up; None: a 20th, at most 10,000",
    )
    buffer_size: int = Field(default=200_000, ge=1, description="decisions kept for replay")
    actor_learning_rate: float | None = Field(default=None, gt=0, description="None for a third of the critics'")
    head_start: int | None = Field(
        default=None, ge=0, description="updates of the critics before the actor moves; None: a tenth, at most 1,000"
    )
    relabel: float = Field(default=0.5, ge=0, le=1, description="share of a batch given a fresh preference")
    target_entropy: float | None = Field(
        default=None, description="nats; None for minus the action dimensions, or half of what equal chances have"
    )


class PPOSettings(_Document):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347)."""

    rollout_length: int = Field(default=64, ge=2, description="steps per environment and iteration")
    minibatch: int = Field(default=512, ge=2, description="decisions per gradient update")
    epochs: int = Field(default=4, ge=1, description="passes over each rollout")
    clip: float = Field(default=0.2, gt=0, lt=1, description="bound on the probability ratio's change")
    final_rate: float = Field(default=0.1, ge=0, le=1, description="share of the learning rate left at the end")
    final_clip: float = Field(default=1.0, ge=0, le=1, description="share of the clip left at the end")
    final_noise: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the deviation of box actions left at the end: what is served, the mode, gets practised",
    )
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    entropy: float = Field(default=0.003, ge=0, description="weight of the entropy bonus")
    noise_from: float = Field(default=0.0, ge=0, lt=1, description="share of the training after which noise falls")
    value_coefficient: float = Field(default=0.5, gt=0)
    max_grad_norm: float = Field(default=0.5, gt=0)
    clip_jointly: bool = Field(
        default=False,
        description="one norm of policy and critic together, which slows the policy while the critic is far off",
    )
    memory: int = Field(default=0, ge=0, le=4096, description="width of an LSTM before the hidden layers; 0 for none")


class Constraint(_Document):
    """A bound on one of the scenario's additive parts, kept by a Lagrange multiplier while training.

    The quantity is the part's ratio: summed numerators over summed denominators (for network5g ``latency_urllc`` in
    ms, ``outage`` as a share, ...). Give exactly one of ``at_least`` and ``at_most``.
    """

    part: str
    at_least: float | None = None
    at_most: float | None = None
    learning_rate: float = Field(
        default=1.0, gt=0, description="multiplier's step per iteration and relative violation"
    )
    largest: float = Field(default=10.0, gt=0, description="bound on the multiplier; 1 is worth the whole utility")

    @model_validator(mode="after")
    def _one_bound(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the constraint on {self.part} needs exactly one of at_least and at_most")
        return self

    @property
    def bound(self) -> float:
        """The bound's value."""
        return float(self.at_least if self.at_least is not None else self.at_most)  # type: ignore[arg-type]

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is."""
        return 1.0 if self.at_least is not None else -1.0


class TrainingConfig(_Document):
    """One training run. Name either a ``scenario`` or any Gymnasium ``environment``.

    Attributes:
        scenario: entry-point name or ``module:attribute`` of a scenario.
        environment: Gymnasium id; one objective, ``return``, or one per reward (``return_0``, ...).
        options: keyword options of the scenario (or of ``gymnasium.make``).
        algorithm: ``sac`` (a box, or one choice) or ``ppo`` (those and several choices); None takes what fits.
        steps: decisions to take: rows of the vector environment times its steps.
        seed: seed of everything random in the run.
        num_envs: environments, shared out evenly among the runners; each may hold several decision makers.
        num_env_runners: processes that step environments; 0 steps them in the trainer's own.
        num_learners: processes that share the gradients' work, evenly for each minibatch; 0 for the trainer's own.
        num_gpus_per_learner: GPUs of each learner; 0 computes on the CPU.
        device: where the whole training stays: the scenario's environments as tensors, rollouts, replay and networks.
            None steps compiled environments on the CPU, which is faster there. ``cuda`` updates as captured graphs.
        hidden: widths of the hidden layers of policy and critic.
        learning_rate, gamma: None takes the algorithm's default (sac: 1e-3, 0.9; ppo: 1e-3, 0.98).
        batch_size: rows of a SAC batch (PPO: ``ppo.minibatch``).
        reward_clip: bound on each objective's step reward, for learning only (figures stay unclipped); None takes 20
            for a scenario, whose rewards are normalised, and no bound for an environment.
        scalarisation: ``linear`` (weighted sum) or ``chebyshev``, whose utility reaches the hollows of a front too.
        preference_sampling: ``uniform`` over the simplex, or half of it by the ``hypervolume`` that each preference is
            expected to add yet.
        constraints: bounds kept by Lagrange multipliers.
        centralised_critic: critics also see the mean observation of all decision makers of their environment.
        preference_hold: steps after which a running environment gets a fresh preference.
        start: constant baseline of the scenario about which an untrained policy of a box acts; None for its default,
            where that is one.
        warm_start: folder of an offline fit, a checkpoint or a bundle: the networks and the normaliser to begin with.
        evaluation_seeds: seeds the finished policy is evaluated on; empty skips the front.
        evaluation_preferences: number of preferences evaluated: modes first, then points spread over the simplex.
        evaluation_steps, evaluation_warmup, evaluation_replicas: see :func:`rlaas.training.evaluate_front`.
        evaluation_gamma: discount factor of an environment's returns in the evaluation; None for no discount.
        evaluation_reference: point that the front's hypervolume is measured from, a value for each objective. None for
            the worse end of every range; an environment has no ranges, and no hypervolume without it.
        checkpoint_interval: iterations between two checkpoints; 0 writes the last one only.
        threads: torch threads while training. Networks this small are slower on more than one.

    Raises:
        ConfigurationError: an unknown key, a wrong type, or a value out of range, naming the key.
    """

    scenario: str | None = None
    environment: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    algorithm: Algorithm | None = None
    steps: int = Field(default=60_000, ge=1)
    seed: int = Field(default=1, ge=0, lt=2**31)
    num_envs: int = Field(default=16, ge=1)
    num_env_runners: int = Field(default=0, ge=0)
    num_learners: int = Field(default=0, ge=0)
    num_gpus_per_learner: float = Field(default=0, ge=0)
    device: Literal["cpu", "cuda"] | None = None
    hidden: tuple[int, ...] = Field(default=(64, 64), min_length=1)
    learning_rate: float | None = Field(default=None, gt=0)
    gamma: float | None = Field(default=None, ge=0, lt=1)
    batch_size: int = Field(default=256, ge=2)
    reward_clip: float | None = Field(default=None, gt=0)
    scalarisation: Literal["linear", "chebyshev"] = "linear"
    preference_sampling: Literal["uniform", "hypervolume"] = "uniform"
    constraints: tuple[Constraint, ...] = ()
    centralised_critic: bool = False
    preference_hold: int = Field(default=100, ge=1)
    sac: SACSettings = Field(default_factory=SACSettings)
    ppo: PPOSettings = Field(default_factory=PPOSettings)
    start: str | None = None
    warm_start: str | None = None
    evaluation_seeds: tuple[int, ...] = ()
    evaluation_preferences: int = Field(default=8, ge=1)
    evaluation_steps: int = Field(default=200, ge=1)
    evaluation_warmup: int = Field(default=20, ge=0)
    evaluation_replicas: int = Field(default=1, ge=1)
    evaluation_gamma: float | None = Field(default=None, gt=0, le=1)
    evaluation_reference: dict[str, float] | None = None
    checkpoint_interval: int = Field(default=20, ge=0)
    threads: int = Field(default=1, ge=1)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as problem:
            raise _translate(problem, type(self)) from problem

    @model_validator(mode="after")
    def _one_problem(self) -> TrainingConfig:
        if (self.scenario is None) == (self.environment is None):
            raise ValueError("give exactly one of scenario and environment")
        if any(width < 1 for width in self.hidden):
            raise ValueError("hidden: each width must be at least 1")
        if self.sac.buffer_size < self.batch_size:
            raise ValueError(
                f"sac.buffer_size {self.sac.buffer_size} is below batch_size {self.batch_size}; raise the former"
            )
        if self.num_env_runners and self.num_envs % self.num_env_runners:
            raise ValueError(
                f"num_envs {self.num_envs} cannot be shared out evenly among num_env_runners {self.num_env_runners}"
            )
        if self.device is not None:
            for name in ("num_env_runners", "num_learners", "num_gpus_per_learner"):
                if getattr(self, name):
                    raise ValueError(f"a training that stays on one device has no {name}; leave it or device out")
        for name, rows in (("batch_size", self.batch_size), ("ppo.minibatch", self.ppo.minibatch)):
            if self.num_learners and rows % self.num_learners:
                raise ValueError(f"{name} {rows} cannot be shared out evenly among num_learners {self.num_learners}")
        parts = [constraint.part for constraint in self.constraints]
        if len(set(parts)) < len(parts):
            raise ValueError(f"constraints: a part stands twice in {', '.join(parts)}")
        return self

    @property
    def problem_name(self) -> str:
        """Name of the scenario or id of the environment."""
        return self.scenario or self.environment or ""

    def resolved_learning_rate(self, algorithm: Algorithm) -> float:
        """The learning rate, or the algorithm's default."""
        return self.learning_rate if self.learning_rate is not None else _DEFAULT_LEARNING_RATE[algorithm]

    def resolved_gamma(self, algorithm: Algorithm) -> float:
        """The discount factor, or the algorithm's default."""
        return self.gamma if self.gamma is not None else _DEFAULT_GAMMA[algorithm]

    def resolved_learning_starts(self) -> int:
        """Decisions of SAC's warm-up."""
        if self.sac.learning_starts is not None:
            return self.sac.learning_starts
        return max(1, min(self.steps // 20, 10_000))

    def resolved_head_start(self) -> int:
        """Gradient updates of SAC's critics before its actor moves."""
        if self.sac.head_start is not None:
            return self.sac.head_start
        return int(min((self.steps - self.resolved_learning_starts()) * self.sac.updates_per_step / 10, 1_000))

    def resolved_reward_clip(self) -> float | None:
        """The bound on step rewards, or None for no bound."""
        if self.reward_clip is None and self.scenario is not None:
            return _SCENARIO_REWARD_CLIP
        return self.reward_clip


def load_config(path: Path | str) -> TrainingConfig:
    """Read a training configuration from YAML.

    Raises:
        ConfigurationError: the file is missing, not YAML, or wrong; names the file, the key and what is allowed.
    """
    return read_config(path, TrainingConfig)


def _translate(problem: ValidationError, model: type[BaseModel]) -> ConfigurationError:
    """The first complaint of pydantic as one line with the key and the allowed values."""
    first = problem.errors()[0]
    location = [str(part) for part in first["loc"]]
    field = ".".join(location) or "training config"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
        return ConfigurationError(
            f"unknown key {field!r}; allowed: {', '.join(sorted(model.model_fields))}", field=field
        )
    given = "" if not location else f" (got {str(first['input'])[:60]!r})"
    return ConfigurationError(f"{field}: {message}{given}", field=field)
