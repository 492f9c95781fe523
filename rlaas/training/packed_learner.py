"""The learner that SAC and PPO share: one vector of parameters, gradients shared with other learners, bookkeeping."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from rlaas.errors import TrainingError
from rlaas.training import config as training_config
from rlaas.training.backprop import FlatAdam, FlatParameters
from rlaas.training.capture import Captured
from rlaas.training.conditioning import Focus, reward_scale
from rlaas.training.packed_module import PackedModule

__all__ = ["PackedLearner"]

RETURNS_BATCH = 256


class PackedLearner(TorchLearner):
    """A learner with its own update loop and generator, both part of its checkpoint.

    Several learners all receive the whole batch, draw the same numbers, work on every n-th row each and average their
    gradients: the update is that of one learner, whatever their number.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.training = training_config.TrainingConfig(**self.config.env_config["training"])
        self.generator = torch.Generator(self.training.device or "cpu").manual_seed(self.training.seed + 1)
        self._captured: dict[Hashable, Captured] = {}
        self.updates = 0
        self.rank, self.world = 0, 1

    @property
    def net(self) -> Any:
        """The one module that is trained."""
        return self.module[DEFAULT_MODULE_ID]

    @property
    def device(self) -> torch.device:
        """Where the module lives."""
        return cast(torch.device, self.net.reward_scale.device)

    @property
    def optimizer(self) -> FlatAdam:
        """The one optimizer of all trained parameters."""
        return cast(FlatAdam, self.get_optimizer(DEFAULT_MODULE_ID))

    def build(self) -> None:
        """Build RLlib's parts; learners that work together begin with the first one's parameters."""
        super().build()
        wanted = self.training.device
        if wanted is not None and self.device.type != wanted:
            raise TrainingError(
                f"device {wanted}: Ray has given this process no GPU; its actor has to reserve one", field="device"
            )
        if self.config.num_learners > 1:
            self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
            for value in (*self.net.parameters(), *self.net.buffers()):
                torch.distributed.broadcast(value.data, 0)
        self._returns_optimizer = None if self.net.returns is None else self.net.returns.optimizer()

    def _make_modules_ddp_if_necessary(self) -> None:
        # Gradients are written out, so that autograd's hooks would never run: share() averages them.
        return

    @abstractmethod
    def trained_parameters(self, module: PackedModule) -> list[torch.nn.Parameter]:
        """What the optimizer moves, in one order for all time."""

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """One fused Adam over one vector of everything that is trained: one call an update, whatever the layers."""
        self.flat = FlatParameters(self.trained_parameters(self.module[module_id]))
        optimizer = FlatAdam([self.flat.value], lr=float(config.lr), eps=1e-7, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=[self.flat.value])

    @property
    def flats(self) -> tuple[FlatParameters, ...]:
        """The vectors of everything that is trained."""
        return (self.flat,)

    def tie(self, mu: float, names: Collection[str]) -> None:
        """Draw the named parameters of the module back to where they are now, in every update to come.

        The proximal term of FedProx (Li et al. 2020, arXiv 1812.06127): ``mu / 2 ||w - w_now||^2`` joins the loss.

        Args:
            mu: strength; 0 lets go.
            names: as in ``net.named_parameters()``.
        """
        self._captured.clear()
        chosen = [parameter for name, parameter in self.net.named_parameters() if name in names]
        for flat in self.flats:
            flat.tie(mu, chosen)

    def count_updates(self) -> int:
        """Gradient updates so far."""
        return self.updates

    def module_arrays(self) -> dict[str, NDArray[Any]]:
        """The module's parameters and buffers by name."""
        return {name: value.detach().cpu().numpy() for name, value in self.net.state_dict().items()}

    def take_over(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Go on from another module's parameters and buffers, see :meth:`module_arrays`."""
        self.net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})

    def own(self, rows: Tensor) -> Tensor:
        """This learner's share of a minibatch [n, ...]."""
        return rows if self.world == 1 else rows[self.rank :: self.world]

    def share(self) -> None:
        """Average gradients with the other learners, and add what ties draw back."""
        for flat in self.flats:
            flat.pull()
        self._average([flat.value.grad for flat in self.flats])

    def captured(self, work: Callable[..., Tensor], *, under: Hashable = None) -> Callable[..., Tensor]:
        """``work`` as :class:`Captured` calls it, where the whole training stays on one device; else as it is.

        Args:
            work: an update that meets what ``Captured`` demands.
            under: what it depends on beside its arguments; another value is captured anew.
        """
        # The model of returns draws numbers of its own in every update.
        if self.training.device is None or self.net.returns is not None:
            return work
        if under not in self._captured:
            self._captured[under] = Captured(work, self.device)
        return self._captured[under]

    def _average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its mean over the learners."""
        for tensor in tensors if self.world > 1 else ():
            assert tensor is not None
            torch.distributed.all_reduce(tensor)
            tensor.div_(self.world)

    def normalise_by(self, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        """Let the policy normalise observations by these statistics [n_features] from now on."""
        seen = self.net.policy.n_seen
        self.net.policy.normaliser.freeze(mean[:seen], deviation[:seen])

    def set_multipliers(self, values: NDArray[np.float64]) -> None:
        """Lagrange multipliers of the constraints [n_constraints]."""
        self.net.multipliers.copy_(torch.from_numpy(values))

    def set_scales(self, reward: Tensor, preference: Tensor) -> None:
        """Fix the scales by samples of rewards (or returns) [n, n_rewards] and the preferences they came under.

        Once: a scale that moved would move the values' meaning with it.
        """
        mean, deviation = reward.mean(dim=0), reward.std(dim=0)
        scales = [reward_scale(s, m) for s, m in zip(deviation.tolist(), mean.tolist(), strict=True)]
        self.net.reward_scale.copy_(torch.tensor(scales))
        scalar = (reward[:, : self.net.n_objectives] * preference).sum(dim=1)
        self.net.utility_scale.fill_(reward_scale(float(scalar.std()), float(scalar.mean())))

    def observe_returns(self, preference: Tensor, values: Tensor) -> None:
        """Bring the model of returns closer to what critics say [n, n_rewards], in scaled units, under preferences."""
        if self.net.returns is None or self._returns_optimizer is None:
            return
        m = self.net.n_objectives
        mean_reward = values[:, :m] * (1.0 - self.config.gamma) / self.net.reward_scale[:m]
        order = torch.randperm(len(values), generator=self.generator, device=self.generator.device)
        for rows in torch.split(order, RETURNS_BATCH):
            # Each learner sees rows of its own, and all of them weigh objectives by one model.
            self.net.returns.fit(self._returns_optimizer, preference[rows], mean_reward[rows], self._average)

    def focus(self) -> Focus | None:
        """Preferences that are expected to add to the front, with their chances; None where all are drawn alike."""
        if self.net.returns is None or self.training.preference_sampling == "uniform":
            return None
        if not bool(self.net.returns.known):
            return None
        with torch.no_grad():
            return self.net.returns.points.double().cpu().numpy(), self.net.returns.gains()

    def check_losses(self, losses: dict[str, float]) -> dict[str, float]:
        """Return ``losses`` if they are finite.

        Raises:
            TrainingError: naming the loss that is not.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} became {value} after {self.updates} updates; lower learning_rate or check the rewards",
                    field=name,
                )
        return losses

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state with the generator and the update counter."""
        state = dict(super().get_state(*args, **kwargs))
        state["packed"] = {"generator": self.generator.get_state().numpy().copy(), "updates": self.updates}
        if self._returns_optimizer is not None:
            state["packed"]["returns_optimizer"] = self._returns_optimizer.state_dict()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        super().set_state(state)
        # The optimizer's moments are other tensors now.
        self._captured.clear()
        # What came through Ray's object store is memory that learners on one machine share: stepping there would move
        # the others' averages too.
        for moments in self.optimizer.state.values():
            for name, value in moments.items():
                moments[name] = value.clone()
        if "packed" in state:
            packed = state["packed"]
            self.generator.set_state(torch.from_numpy(packed["generator"]))
            self.updates = int(packed["updates"])
            if self._returns_optimizer is not None:
                self._returns_optimizer.load_state_dict(packed["returns_optimizer"])
