"""The vector environment: all networks advance in lockstep, every cell or every network is a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown
from rlaas.scenarios.base import VectorScenarioEnv, seed_list
from rlaas.scenarios.network5g.control import ACTION_NAMES, check_actions
from rlaas.scenarios.network5g.engine import DELAY_EDGES_MS, Engine, Network, Out, delay_statistics
from rlaas.scenarios.network5g.identity import check_identity, identity
from rlaas.scenarios.network5g.objectives import PART_NAMES

if TYPE_CHECKING:
    from rlaas.scenarios.network5g.scenario import Network5G

__all__ = ["VectorNetwork5G"]

Float64Array = NDArray[np.float64]


class VectorNetwork5G(VectorScenarioEnv):
    """Networks of equal layout. With ``control="cell"`` row ``env * cells + cell`` is one cell.

    With ``control="central"`` a row is a whole network: observations and actions of its cells stand behind one
    another, the reward is their mean, the parts are their sums. All networks have episodes of equal length and are
    reset together.

    Args:
        scenario: what is controlled.
        network: what the networks are like.
        environments: how many.
        seed: spread over the networks, or one each.
        copy: return fresh arrays; False returns the same arrays every time, overwritten by the next step.
        threads: to use; None for one per core. The results do not depend on it.
    """

    def __init__(
        self,
        scenario: Network5G,
        network: Network,
        environments: int,
        seed: int | Sequence[int] | None,
        *,
        copy: bool = True,
        threads: int | None = None,
    ) -> None:
        cells = network.layout.cells
        central = scenario.options["control"] == "central"
        super().__init__(scenario, environments, 1 if central else cells)
        self.environments = environments
        self.layout = network.layout
        self.copy = copy
        self._cells, self._central = cells, central
        self._engine = Engine(network, environments, threads)
        self._engine.seed(seed_list(seed, environments))
        self._actions = np.zeros((environments * cells, len(ACTION_NAMES)))
        rows, parts = self.num_envs, len(PART_NAMES)
        self._zeros = np.zeros(rows, dtype=bool)
        self._truncated = np.zeros(rows, dtype=bool)
        self._reward = np.zeros((rows, len(network.objectives)))
        self._parts = (np.zeros((rows, parts)), np.zeros((rows, parts)))
        self._infos: dict[str, Any] = {}
        self._started = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start every network anew.

        Args:
            seed: spread over the networks, or one each; None continues the random streams.
            options: not used.

        Raises:
            InvalidInputError: a sequence of the wrong length, or anything but whole numbers >= 0.
        """
        if seed is not None:
            self._engine.seed(seed_list(seed, self.environments))
        self._started = True
        return self._own(self._view(self._engine.begin().observation)), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], Float64Array, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every network by 100 ms.

        Args:
            actions: physical settings [rows, n_components], see :data:`~.control.ACTION_NAMES`.

        Returns:
            observation [rows, n_features] float32, reward [rows, 4], terminated [rows] (never), truncated [rows]
            and infos with ``numerators`` and ``denominators`` [rows, n_parts]. The step after a truncation resets.

        Raises:
            InvalidInputError: before the first reset, a wrong shape, or a value that is not finite or out of bounds;
                nothing changed.
        """
        if not self._started:
            raise InvalidInputError("step before reset; call reset first", field="action")
        check_actions(actions, self._actions, self.num_envs, self._cells, self._engine.first_bad)
        out = self._engine.step(self._actions.reshape(self.environments, self._cells, -1))
        self._truncated[:] = self._engine.state.environments["over"][0] != 0
        reward, up, down = self._combined(out)
        if not self.copy:
            self._infos["numerators"], self._infos["denominators"] = up, down
            return self._view(out.observation), reward, self._zeros, self._truncated, self._infos
        infos = {"numerators": self._own(up), "denominators": self._own(down)}
        observation = self._own(self._view(out.observation))
        return observation, self._own(reward), self._zeros.copy(), self._truncated.copy(), infos

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, as copies."""
        return {"engine": self._engine.get_state(), "started": self._started, "options": self._options()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`.

        Raises:
            InvalidInputError: the state of another number of environments, of other options, which are named, or none
                at all; nothing changed then.
        """
        if not isinstance(state, Mapping):
            raise InvalidInputError(f"state must be what get_state returned, got {shown(state)}", field="state")
        missing = sorted({"engine", "started", "options"} - set(state))
        if missing:
            raise InvalidInputError(f"state lacks {', '.join(missing)}", field="state")
        if not isinstance(state["engine"], Mapping) or not isinstance(state["started"], bool | np.bool_):
            raise InvalidInputError(
                "state must hold engine, the arrays by name, and started, True or False", field="state"
            )
        check_identity(state["options"], self._options())
        self._engine.set_state(state["engine"])
        self._started = bool(state["started"])

    def measurements(self) -> dict[str, Any]:
        """Everything about users, queues and cells, for plots and tests: copies of the arrays of the engine's state.

        ``measurements()["users"]["serving"]`` [networks, users] and so on; see
        :class:`~rlaas.scenarios.network5g.engine.State`.
        """
        return self._engine.get_state()

    def delays(self) -> dict[str, dict[str, float]]:
        """Delay of packets in ms by slice since the reset: mean, p95, p99, p99.999 and the share beyond the budget.

        Of what waits beyond the step it came in only the number of steps is known, also slot by slot: such an eMBB or
        mMTC packet counts as having come in the middle of its step. The objectives' means are exact.

        Raises:
            InvalidInputError: the scenario does not record delays (option ``delays=True``).
        """
        if not self._engine.network.histogram:
            raise InvalidInputError("delays are not recorded; load the scenario with delays=True", field="delays")
        budgets = [1e3 * b for b in self._engine.network.reference.traffic.budgets_s]
        return delay_statistics(self._engine.state.histogram.sum(axis=0), budgets, DELAY_EDGES_MS)

    @property
    def bytes_per_environment(self) -> int:
        """Memory of one network's state and outputs."""
        return self._engine.bytes_per_environment

    @property
    def engine(self) -> Engine:
        """What steps the networks, for tools that look inside."""
        return self._engine

    def _options(self) -> dict[str, str]:
        return identity(self.scenario, self._engine.network)

    def _view(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.reshape(self.num_envs, -1)

    def _own(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.copy() if self.copy else values

    def _combined(self, out: Out) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Reward and parts by row."""
        if not self._central:
            return self._view(out.reward), self._view(out.numerators), self._view(out.denominators)
        np.mean(out.reward, axis=1, out=self._reward)
        np.sum(out.numerators, axis=1, out=self._parts[0])
        np.sum(out.denominators, axis=1, out=self._parts[1])
        return self._reward, *self._parts
