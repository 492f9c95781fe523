"""One site: an algorithm and everything it has seen, in a process of its own, and the little that leaves it.

What leaves: that a step is done, the layout of the parameters, and one vector per round. Under secure aggregation the
vector is masked. Observations, rewards, replay, optimizer states and generators have no way out.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlaas.errors import OperatorError
from rlaas.training.federated.config import FederationConfig
from rlaas.training.federated.fixed_point import bits_for, to_grid, to_limbs
from rlaas.training.federated.masking import MaskingSite, PublicKeys, Revealed
from rlaas.training.federated.noise import discrete_gaussian
from rlaas.training.federated.privacy import NoisePlan
from rlaas.training.federated.state import FixedMoments, GlobalModel, Layout, Sums, sums_of
from rlaas.training.problems import algorithm_of, problem_of
from rlaas.training.runs import build_algorithm

__all__ = ["Site"]

KEPT = 2
"""Own checkpoints that are kept: a driver killed between two files needs the one before the last."""


class Site:
    """One site of a federation; runs as a Ray actor, one call at a time.

    Args:
        config: the federation, as its JSON.
        name: which of its sites this is.
        folder: for this site's own checkpoints, on this node; None keeps none.
    """

    def __init__(self, config: Mapping[str, Any], name: str, folder: str | None) -> None:
        self._config = FederationConfig(**config)
        self._name = name
        self._folder = None if folder is None else Path(folder) / self._config.digest()[:12]
        self._training = self._config.training_of(name)
        self._algo: Any = None
        self._fresh = True
        self._pending: tuple[NDArray[np.float32], GlobalModel, Sums] | None = None
        self._masking: MaskingSite | None = None

    def ready(self) -> None:
        """Answers once the actor has its place and its process."""

    def start(self, finished: int) -> Layout:
        """Build the algorithm, and continue from the newest own checkpoint of a round up to ``finished``.

        Raises:
            ConfigurationError: the site's options cannot work.
        """
        if self._algo is None:
            torch.set_num_threads(self._training.threads)
            algo = self._build()
            if finished == 0:
                # What lies there is of another federation with the same configuration.
                for old in self._saved():
                    shutil.rmtree(old)
            saved = [path for path in self._saved() if path.name <= _folder_name(finished)]
            if saved:
                algo.restore_from_path(str(saved[-1]))
                self._fresh = False
        return self._layout

    def train(self, model: GlobalModel) -> None:
        """Take over ``model`` and train for a round; the update stays here until it is asked for.

        Raises:
            TrainingError: a loss became infinite or NaN; the next round starts this site afresh.
        """
        self._pending = None
        if self._algo is None:
            self._build()
        self._adopt(model)
        algo, config = self._algo, self._config
        mu = config.mu if config.method == "fedprox" else 0.0
        algo.learner.tie(mu, [name for name, _ in self._layout.parameters])
        start = algo.steps_done
        goal = start + config.decisions_of(self._name)
        try:
            while algo.steps_done < goal:
                algo.train()
        except Exception:
            # Optimizer states that hold a NaN would spoil every round to come.
            self.stop()
            raise
        # What was seen since, the first observation of a new environment included.
        before, after = sums_of(model.moments), sums_of(algo.observed())
        decisions = Fraction(algo.steps_done - start)
        self._pending = (self._layout.read(algo.learner.net), model, self._sums(decisions, before, after))

    def plain_update(self) -> tuple[NDArray[np.float32], list[int]]:
        """The trained parameters [Layout.size] and the sums, in the clear."""
        parameters, _, sums = self._taken()
        return parameters, sums.wide()

    def open_session(self, session: bytes) -> PublicKeys:
        """Begin secure aggregation of the pending update."""
        self._taken()
        self._masking = MaskingSite(self._config.number_of(self._name), session, self._config.threshold)
        return self._masking.advertise()

    def share_keys(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """See :meth:`MaskingSite.share`."""
        return self._session().share(keys)

    def masked_update(self, sealed: Mapping[int, bytes], noise: NoisePlan | None) -> NDArray[np.uint64]:
        """The update under its masks [Layout.size, and the sums' limbs unless there is noise].

        Raises:
            TrainingError: the update is too large for the ring.
        """
        parameters, model, sums = self._taken()
        change = parameters.astype(np.float64) - model.parameters
        if noise is None:
            vector = np.concatenate((self._weighted(change, sums), to_limbs(sums.wide())))
        else:
            vector = self._noised(change, noise)
        masked = self._session().mask(vector, sealed)
        self._pending = None
        return masked

    def reveal(self, survivors: Collection[int]) -> Revealed:
        """See :meth:`MaskingSite.reveal`."""
        revealed = self._session().reveal(survivors)
        self._masking = None
        return revealed

    def save(self, finished: int) -> None:
        """Write the own checkpoint of round ``finished``, in one piece, and remove those before the last."""
        if self._folder is None or self._algo is None:
            return
        target = self._folder / _folder_name(finished)
        partial = target.with_name(f"{target.name}.partial")
        for old in (partial, target):
            shutil.rmtree(old, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        self._algo.save_to_path(str(partial))
        partial.rename(target)
        for old in self._saved()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def stop(self) -> None:
        """Let go of the algorithm."""
        if self._algo is not None:
            self._algo.stop()
        self._algo, self._fresh = None, True

    def _build(self) -> Any:
        scenario = problem_of(self._training)
        algorithm = algorithm_of(self._training, scenario)
        self._algo = build_algorithm(self._training, algorithm)
        self._layout = Layout.of(self._algo, algorithm, self._config.share)
        self._fresh = True
        return self._algo

    def _adopt(self, model: GlobalModel) -> None:
        """Start from the global model; what is local stays, but for a site that has nothing of its own yet."""
        algo = self._algo
        net = algo.learner.net
        self._layout.write(net, model.parameters)
        if self._fresh and hasattr(net, "target"):
            # Targets follow the critics; those of a new site have nothing to do with the critics it was given.
            net.target.load_state_dict(net.critic.state_dict())
        if model.scales is not None:
            self._layout.write_scales(net, model.scales)
            self._algo.keep_scales()
        if self._config.normaliser == "fixed":
            state = model.moments
            deviation = np.sqrt(np.asarray(state["squares"]) / state["count"])
            algo.moments = FixedMoments(np.asarray(state["mean"]), deviation)
        else:
            algo.moments.set_state(dict(model.moments))
        self._fresh = False

    def _sums(self, decisions: Fraction, before: tuple[Fraction, ...], after: tuple[Fraction, ...]) -> Sums:
        layout, algo = self._layout, self._algo
        scales = [Fraction(float(scale)) for scale in layout.read_scales(algo.learner.net)]
        weight = decisions if algo.calibrated else Fraction(0)
        losses: list[Fraction] = []
        for name in layout.losses:
            known = name in algo.last_losses
            losses += [decisions * known, decisions * Fraction(float(algo.last_losses[name])) if known else Fraction(0)]
        return Sums(
            decisions=decisions,
            moments=tuple(b - a for a, b in zip(before, after, strict=True)),
            scales=(weight, *(weight * scale for scale in scales)),
            losses=tuple(losses),
        )

    def _weighted(self, change: NDArray[np.float64], sums: Sums) -> NDArray[np.uint64]:
        """The change times this site's weight: its decisions in units of the federation's."""
        assert self._config.secure is not None
        limit = self._config.secure.limit
        weight = float(sums.decisions / self._config.decisions)
        return to_grid(weight * change, bits_for(limit, len(self._config.sites)), limit)

    def _noised(self, change: NDArray[np.float64], noise: NoisePlan) -> NDArray[np.uint64]:
        """The change shortened to the clip, with this site's share of the noise. Every site weighs the same."""
        assert self._config.privacy is not None
        norm = float(np.linalg.norm(change))
        if norm > self._config.privacy.clip:
            change = change * (self._config.privacy.clip / norm)
        limit = 2.0 ** (62 - noise.bits) / len(self._config.sites)
        return to_grid(change, noise.bits, limit, discrete_gaussian(noise.deviation, len(change)))

    def _taken(self) -> tuple[NDArray[np.float32], GlobalModel, Sums]:
        if self._pending is None:
            raise OperatorError(f"site {self._name!r} has no update: it has not trained since its last one")
        return self._pending

    def _session(self) -> MaskingSite:
        if self._masking is None:
            raise OperatorError(f"site {self._name!r} has no open session")
        return self._masking

    def _saved(self) -> list[Path]:
        """The own checkpoints, the newest last."""
        return [] if self._folder is None else sorted(self._folder.glob("round-*[0-9]"))


def _folder_name(finished: int) -> str:
    return f"round-{finished:06d}"
