"""What a federation is told: one frozen document, from Python or YAML."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.training.config import TrainingConfig
from rlaas.training.federated.fixed_point import bits_for
from rlaas.training.federated.privacy import epsilon_of

__all__ = [
    "FederationConfig",
    "PrivacySettings",
    "SecureSettings",
    "SiteConfig",
    "load_federation_config",
]

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
MOST_SITES = 1_000
FEWEST_BITS = 16


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SiteConfig(_Document):
    """One site: where its actor runs and what it trains on.

    Attributes:
        name: lower-case letters, digits and dashes.
        options: of the scenario, over those of ``training.options``.
        seed: of its environment and exploration; None for ``training.seed`` plus its place in the list.
        decisions: taken each round; None for the federation's.
        cpus: CPUs set aside for its actor.
        resources: custom Ray resources that its node must have; they pin a site to a node.
        folder: on its node, for its own checkpoints; None for ``sites/<name>`` in the federation's folder. They hold
            what must not leave the site: name a folder there if the federation's is shared with others.
    """

    name: Name
    options: dict[str, Any] = Field(default_factory=dict)
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    decisions: int | None = Field(default=None, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    resources: dict[str, float] = Field(default_factory=dict)
    folder: Path | None = None


class SecureSettings(_Document):
    """Secure aggregation.

    Attributes:
        threshold: sites that must last until the end of a round, and whose shares together open a mask; None for the
            smallest majority.
        limit: largest weighted change of one parameter in a round; a site beyond it is left out of the round.
    """

    threshold: int | None = Field(default=None, ge=2)
    limit: float = Field(default=1024.0, gt=0)


class PrivacySettings(_Document):
    """Differential privacy of whole sites.

    Attributes:
        clip: largest L2 norm of a site's update; longer ones are shortened to it.
        noise_multiplier: standard deviation of the noise in a sum, in units of ``clip``.
        delta: probability with which the guarantee may fail.
        epsilon: budget; the federation stops before a round that would exceed it.
        colluding: sites that may put their knowledge of their own noise together with what the coordinator sees.
    """

    clip: float = Field(gt=0)
    noise_multiplier: float = Field(gt=0)
    delta: float = Field(gt=0, lt=1)
    epsilon: float = Field(gt=0)
    colluding: int = Field(default=1, ge=0)


class FederationConfig(_Document):
    """One federation: the same policy trained at several sites.

    Attributes:
        name: of the federation; names its folder and its MLflow run.
        training: what every site trains. ``steps`` is set to ``rounds`` times ``decisions``; the evaluation settings
            are for the finished policy, on the scenario as ``training.options`` have it.
        sites: at least one; secure aggregation needs two.
        rounds: how often the sites' policies are averaged.
        decisions: decisions of a site in a round (whole iterations: a few more).
        share: ``all`` averages policy, critics and temperature; ``policy`` the policy alone. Target critics,
            optimizer states and replay stay where they are in either case.
        method: ``fedavg`` (McMahan et al. 2017), or ``fedprox`` (Li et al. 2020), which adds
            ``mu / 2 ||w - w_global||^2`` to each site's loss.
        mu: of ``fedprox``.
        normaliser: ``shared`` sums the moments of all observations of all sites; ``fixed`` takes middle and spread of
            each feature's range and shares nothing.
        observation_ranges: lowest and highest value of features by name, for ``fixed``, over the scenario's bounds.
        min_sites: sites that a round needs; None for the threshold, or the smallest majority.
        attempts: how often a round is tried before the federation gives up.
        deadline_s: seconds that the training of a round may take; a site that is late is left out of the round.
        answer_s: seconds that a site has to answer in each step of the averaging.
        start_s: seconds to wait for the sites' nodes and processes, and again for their environments.
        secure: secure aggregation; null averages in the clear.
        privacy: differential privacy; null for none.
        evaluate_every: rounds between two evaluations; 0 evaluates the finished policy only.
        keep_site_state: whether sites checkpoint themselves after every round, so that a resumed federation goes on
            with their replay and optimizers.
        alias: that the policy gets in the registry.
    """

    name: Name
    training: TrainingConfig
    sites: tuple[SiteConfig, ...] = Field(min_length=1, max_length=MOST_SITES)
    rounds: int = Field(ge=1)
    decisions: int = Field(ge=1)
    share: Literal["all", "policy"] = "all"
    method: Literal["fedavg", "fedprox"] = "fedavg"
    mu: float = Field(default=0.01, ge=0)
    normaliser: Literal["shared", "fixed"] = "shared"
    observation_ranges: dict[str, tuple[float, float]] = Field(default_factory=dict)
    min_sites: int | None = Field(default=None, ge=1)
    attempts: int = Field(default=3, ge=1)
    deadline_s: float = Field(default=600.0, gt=0)
    answer_s: float = Field(default=60.0, gt=0)
    start_s: float = Field(default=120.0, gt=0)
    secure: SecureSettings | None = SecureSettings()
    privacy: PrivacySettings | None = None
    evaluate_every: int = Field(default=0, ge=0)
    keep_site_state: bool = True
    alias: str = "candidate"

    @model_validator(mode="after")
    def _fits(self) -> FederationConfig:
        n = len(self.sites)
        _check_sites(self)
        if self.training.device is not None:
            raise _wrong("training.device", "a federation's sites train on CPUs; leave it out")
        if self.secure is not None:
            if n < 2:
                raise _wrong("secure", "needs two sites at least; set secure: null to average in the clear")
            if not 2 <= self.threshold <= n:
                raise _wrong("secure.threshold", f"must be 2 to {n} (the sites), not {self.threshold}")
            if bits_for(self.secure.limit, n) < FEWEST_BITS:
                raise _wrong("secure.limit", f"{self.secure.limit:g} for {n} sites leaves no precision; lower it")
        if self.fewest_sites > n:
            raise _wrong("min_sites", f"{self.fewest_sites} exceeds the {n} sites")
        if self.secure is not None and self.fewest_sites < self.threshold:
            raise _wrong("min_sites", f"{self.fewest_sites} is below secure.threshold {self.threshold}")
        if self.privacy is not None:
            _check_privacy(self, self.privacy)
        for name, (low, high) in self.observation_ranges.items():
            if not low < high:
                raise _wrong(f"observation_ranges.{name}", "the first number must be below the second")
        return self

    @property
    def threshold(self) -> int:
        """Sites whose shares open a mask."""
        wanted = None if self.secure is None else self.secure.threshold
        return max(2, _majority(len(self.sites))) if wanted is None else wanted

    @property
    def fewest_sites(self) -> int:
        """Sites that a round needs."""
        if self.min_sites is not None:
            return self.min_sites
        return self.threshold if self.secure is not None else _majority(len(self.sites))

    def digest(self) -> str:
        """Says whether two configurations train the same: SHA-256 of everything, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def site(self, name: str) -> SiteConfig:
        """The site of that name."""
        return next(site for site in self.sites if site.name == name)

    def number_of(self, name: str) -> int:
        """A site's number in the protocol, from 1."""
        return 1 + [site.name for site in self.sites].index(name)

    def decisions_of(self, name: str) -> int:
        """Decisions that a site takes in a round."""
        return self.site(name).decisions or self.decisions

    def training_of(self, name: str) -> TrainingConfig:
        """What a site trains."""
        site = self.site(name)
        seed = self.training.seed + self.number_of(name) - 1 if site.seed is None else site.seed
        return self.training.model_copy(
            update={
                "options": {**self.training.options, **site.options},
                "seed": seed,
                "steps": self.rounds * self.decisions_of(name),
            }
        )


def load_federation_config(path: Path | str) -> FederationConfig:
    """Read a federation from YAML.

    Raises:
        ConfigurationError: the file is missing, not YAML, or wrong; names the file, the key and what is allowed.
    """
    return read_config(path, FederationConfig)


def _majority(n: int) -> int:
    return n // 2 + 1


def _wrong(field: str, message: str) -> ConfigurationError:
    return ConfigurationError(f"{field}: {message}", field=field)


def _check_sites(config: FederationConfig) -> None:
    names = [site.name for site in config.sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _wrong("sites", f"two sites are named {twice[0]!r}")


def _check_privacy(config: FederationConfig, privacy: PrivacySettings) -> None:
    """Refuse whatever would let something out that the accountant does not see."""
    if config.secure is None:
        raise _wrong("privacy", "needs secure aggregation: a single site's share of the noise hides nothing")
    if config.share != "policy":
        raise _wrong("share", "must be policy with privacy: reward scales of the critics would be shared without noise")
    if config.normaliser != "fixed":
        raise _wrong("normaliser", "must be fixed with privacy: sums of observations would be shared without noise")
    honest = config.fewest_sites - privacy.colluding
    if honest < 1:
        raise _wrong(
            "privacy.colluding",
            f"{privacy.colluding} of {config.fewest_sites} sites (min_sites) leaves nobody whose noise is unknown",
        )
    # The grid's rounding only adds to it: what fails here cannot work.
    if epsilon_of(0.5 / privacy.noise_multiplier**2, privacy.delta) > privacy.epsilon:
        raise _wrong(
            "privacy.epsilon",
            f"{privacy.epsilon:g} does not pay for one round at noise_multiplier {privacy.noise_multiplier:g} "
            f"({epsilon_of(0.5 / privacy.noise_multiplier**2, privacy.delta):.3g}); raise one of them",
        )
