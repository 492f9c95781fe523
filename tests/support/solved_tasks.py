"""Random tasks of three states, small enough to solve: what off-policy estimates are held against."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rlaas.experiments.sequential_off_policy import SessionLog

__all__ = ["ACTIONS", "STATES", "SolvedTask"]

FloatArray = NDArray[np.float64]

STATES, ACTIONS = 3, 2


class SolvedTask(NamedTuple):
    """Every probability is known.

    Attributes:
        start: of a state to begin in [STATES].
        move: of the state that follows [STATES, ACTIONS, STATES].
        end: of the session's end [STATES, ACTIONS].
        reward: of a reward of 1 [STATES, ACTIONS].
        logging: of an action of the policy that logged [STATES, ACTIONS].
        evaluation: of an action of the policy that is judged [STATES, ACTIONS].
    """

    start: FloatArray
    move: FloatArray
    end: FloatArray
    reward: FloatArray
    logging: FloatArray
    evaluation: FloatArray

    @classmethod
    def draw(cls, seed: int, most_ends: float) -> Self:
        """A task of which no step ends a session with a probability above ``most_ends``."""
        rng = np.random.default_rng([seed, 99])
        return cls(
            start=rng.dirichlet(np.ones(STATES)),
            move=rng.dirichlet(np.full(STATES, 0.7), (STATES, ACTIONS)),
            end=rng.uniform(0, most_ends, (STATES, ACTIONS)),
            reward=rng.uniform(0, 1, (STATES, ACTIONS)),
            logging=rng.dirichlet(np.full(ACTIONS, 5.0), STATES),
            evaluation=rng.dirichlet(np.full(ACTIONS, 3.0), STATES),
        )

    def value(self, horizon: int, discount: float) -> float:
        """Of the evaluation policy, by dynamic programming."""
        ahead = np.zeros(STATES)
        for _ in range(horizon):
            q = self.reward + discount * (1 - self.end) * (self.move @ ahead)
            ahead = (self.evaluation * q).sum(axis=1)
        return float(self.start @ ahead)

    def log(self, sessions: int, horizon: int, seed: int) -> SessionLog:
        """Sessions of the logging policy, of ``horizon`` steps at most."""
        rng = np.random.default_rng(seed)
        session, state, parts = np.arange(sessions), _pick(rng, np.tile(self.start, (sessions, 1))), []
        for step in range(horizon):
            action = _pick(rng, self.logging[state])
            reward = (rng.random(len(state)) < self.reward[state, action]).astype(float)
            following, ends = _pick(rng, self.move[state, action]), rng.random(len(state)) < self.end[state, action]
            parts.append((session, np.full(len(state), step), state, action, reward, following, ends))
            session, state = session[~ends], following[~ends]
        session, steps, state, action, reward, following, ends = (np.concatenate(c) for c in zip(*parts, strict=True))
        return SessionLog(
            session=session,
            step=steps,
            reward=reward,
            terminated=ends,
            propensity=self.logging[state, action],
            evaluation_probability=self.evaluation[state],
            action=action,
            features=np.eye(STATES)[state],
            next_features=np.eye(STATES)[following],
            next_probability=self.evaluation[following],
        )


def _pick(rng: np.random.Generator, probability: FloatArray) -> NDArray[np.int64]:
    """One index per row of probabilities."""
    edges = probability.cumsum(axis=1)
    return np.asarray(np.minimum((rng.random(len(edges))[:, None] > edges).sum(axis=1), edges.shape[1] - 1))
