"""The vector environment: streams of user sessions, one slate of ten items per step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, shown
from rlaas.scenarios.base import VectorScenarioEnv, seed_list
from rlaas.scenarios.checks import check_environment
from rlaas.scenarios.compiled import Workers, environment_key
from rlaas.scenarios.recsys.engine import BEGIN, LOOK, STEP, Outputs, Scratch, State, advance, state_bytes
from rlaas.scenarios.recsys.engine.state import TASTE
from rlaas.scenarios.recsys.picture import SessionView
from rlaas.scenarios.recsys.reference import SLATE

if TYPE_CHECKING:
    from rlaas.scenarios.recsys.scenario import Recommender

__all__ = ["PART_NAMES", "RecommenderVectorEnv"]

FloatArray = NDArray[np.float64]

PART_NAMES = ("ctr", "cvr", "diversity", "cost", "orders_per_session", "impressions_per_session", "coverage")
"""Additive parts: each is the sum of its numerators over the sum of its denominators."""

_INFOS = ("numerators", "denominators", "slate", "click", "order", "user", "session", "day")


class RecommenderVectorEnv(VectorScenarioEnv):
    """Environments whose episodes are sessions; see :class:`~rlaas.scenarios.recsys.Recommender`.

    An episode terminates when the user's patience runs out and is truncated after ``episode_steps`` pages. The next
    episode of the same environment is the next session of its stream, of the same user or a new one; ``reset``
    begins a new stream. Beside the parts, ``infos`` holds the page: ``slate`` [num_envs, 10] items (-1 where none
    was shown), ``click`` [num_envs] position or -1, ``order`` [num_envs] bool, ``user`` [num_envs], the running
    number of the user in its stream, ``session`` [num_envs], which session of that user it is, from 1, and ``day``
    [num_envs] in the life of the catalogue.

    Args:
        scenario: what is simulated.
        num_envs: number of streams.
        seed: one for all or one each.
        copy: return fresh arrays. Without it every step returns the same arrays, overwritten by the next.
        threads: how many to use; None for :func:`~rlaas.scenarios.compiled.default_threads`. Results do not depend
            on it.
    """

    def __init__(
        self,
        scenario: Recommender,
        num_envs: int,
        seed: int | Sequence[int],
        *,
        copy: bool = True,
        threads: int | None = None,
    ) -> None:
        if not isinstance(copy, bool | np.bool_):  # a text such as "no" would count as yes
            raise ConfigurationError(f"copy must be True or False, got {shown(copy)}", field="copy")
        super().__init__(scenario, num_envs)
        options, tables = scenario.options, scenario.tables
        topics, items = tables.vectors_ki.shape
        self._table, self._tables = scenario.actions, tables
        self._copy = copy
        self._workers = Workers(num_envs, threads)
        self._state = State.empty(
            num_envs,
            items=items,
            topics=topics,
            episode_steps=options["episode_steps"],
            attribution_pages=options["attribution_pages"],
        )
        self._scratch = Scratch.empty(
            self._workers.count,
            items=items,
            topics=topics,
            shortlist=options["shortlist"],
            factors=len(tables.gram),
        )
        self._out = Outputs.empty(
            num_envs,
            features=len(scenario.observation_names),
            objectives=len(scenario.objectives),
            parts=len(PART_NAMES),
            episode_steps=options["episode_steps"],
        )
        self._identity = f"{scenario.name} {scenario.reference_hash} {dict(options)!r}"
        pages = options["episode_steps"]
        # What kernels use as indices.
        self._bounds = (
            ("page", 0, pages),
            ("shown_count", 0, SLATE * pages),
            ("segment", 0, len(tables.segments) - 1),
            ("recent_count", 0, np.iinfo(np.int32).max),
            ("recent", 0, items - 1),
            ("shown_items", 0, items - 1),
            ("pending", -1, max(items - 1, pages)),
        )
        self._no_actions = np.zeros(0, dtype=np.int64)
        self._started = False
        # Whether the outputs belong to the state: not after it was set from outside.
        self._shown = False
        self._seed(seed)

    @property
    def bytes_per_environment(self) -> int:
        """Bytes of state per environment, the returned arrays and what all share not included."""
        return state_bytes(self._state)

    def _seed(self, seed: int | Sequence[int] | None) -> None:
        self._state.streams["key"] = [environment_key(s) for s in seed_list(seed, self.num_envs)]
        self._state.streams["step"] = 0

    def _advance(self, what: int, actions: NDArray[np.int64]) -> None:
        self._workers.run(advance, what, self._state, self._tables, self._scratch, self._out, actions)

    def _returned(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = getattr(self._out, name)
        return array.copy() if self._copy else array

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new stream in every environment; without a seed the random streams go on.

        Raises:
            InvalidInputError: a sequence of seeds of another length, or a negative seed.
        """
        if seed is not None:
            self._seed(seed)
        self._advance(BEGIN, self._no_actions)
        self._started, self._shown = True, False
        return self._returned("observation"), {name: self._returned(name) for name in ("user", "session", "day")}

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], FloatArray, NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Show one page in each environment, or begin the next session where the last one ended.

        Args:
            actions: whole numbers [num_envs]; ignored where a session ended in the step before.

        Raises:
            InvalidInputError: wrong shape or type, or out of range.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset before step")
        chosen = self._table.check(actions, self.num_envs)
        self._advance(STEP, chosen)
        self._shown = True
        return (
            self._returned("observation"),
            self._returned("reward"),
            self._returned("terminated"),
            self._returned("truncated"),
            {name: self._returned(name) for name in _INFOS},
        )

    def observe(self) -> NDArray[np.float32]:
        """The observations as they stand [num_envs, n_features]; for looking at a state that was just set.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset: there is no user to look at yet.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset before observe")
        self._advance(LOOK, self._no_actions)
        return self._returned("observation")

    def session_view(self, environment: int = 0) -> SessionView:
        """The session of one environment as it stands, for pictures.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            InvalidInputError: there is no such environment.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset before looking at a session")
        check_environment(environment, self.num_envs)
        e, out, stream = environment, self._out, self._state.streams[environment]
        pages = int(stream["page"]) if self._shown else 0
        slate = out.slate[e, : SLATE if pages else 0].copy()
        patience = out.patience[e, : pages + 1].copy()
        patience[-1] = stream["patience"]
        first = self.scenario.observation_names.index("taste_0")
        return SessionView(
            user=int(stream["user"]),
            session=int(stream["visits"]),
            satisfaction=float(stream["satisfaction"]),
            slate=slate,
            utility=out.page[e, 0, : len(slate)].copy(),
            probability=out.page[e, 1, : len(slate)].copy(),
            click=int(out.click[e]) if pages else -1,
            order=bool(out.order[e]) and pages > 0,
            topic=self._tables.topics_ik[slate].argmax(axis=1),
            taste=self._state.by_topic[e, TASTE].copy(),
            estimate=self.observe()[e, first : first + self._tables.topics_ik.shape[1]],
            patience=patience,
        )

    def get_state(self) -> dict[str, Any]:
        """Everything the next steps depend on, random numbers included; arrays are copies."""
        arrays = {name: array.copy() for name, array in self._state.views().items()}
        return {"started": self._started, "scenario": self._identity, **arrays}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state` as if nothing had happened in between.

        Raises:
            InvalidInputError: the state is of another number of environments, of other options, damaged, or none at
                all; nothing changed then.
        """
        if not isinstance(state, Mapping):
            raise InvalidInputError(f"state must be what get_state returned, got {type(state).__name__}", field="state")
        own = self._state.views()
        missing = sorted({"started", "scenario", *own} - state.keys())
        if missing:
            raise InvalidInputError(f"state lacks {', '.join(missing)}", field="state")
        # By type first: an array would be compared entry by entry.
        if not isinstance(state["scenario"], str) or state["scenario"] != self._identity:
            raise InvalidInputError("state is of another scenario or of other options", field="state")
        if not isinstance(state["started"], bool | np.bool_):
            raise InvalidInputError(
                f"state has started of {shown(state['started'])}; expected True or False", field="state"
            )
        ended = state["ended"]
        if isinstance(ended, np.ndarray) and ended.shape[:1] != (self.num_envs,):
            raise InvalidInputError(
                f"state has {len(np.atleast_1d(ended))} environments; expected {self.num_envs}", field="state"
            )
        for name, array in own.items():
            given = state[name]
            if not isinstance(given, np.ndarray) or given.shape != array.shape or given.dtype != array.dtype:
                found = f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__
                raise InvalidInputError(
                    f"state has {name} of {found}; expected {array.dtype} {array.shape}", field="state"
                )
            if given.dtype.kind == "f" and not np.isfinite(given).all():
                raise InvalidInputError(f"state has {name} that is not finite", field="state")
        for name, low, high in self._bounds:
            if ((state[name] < low) | (state[name] > high)).any():
                raise InvalidInputError(f"state has {name} beyond {low} .. {high}", field="state")
        for name, array in own.items():
            array[...] = state[name]
        self._started, self._shown = bool(state["started"]), False
