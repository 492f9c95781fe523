"""Driving a scenario through the HTTP endpoint, with outcomes that behave as badly as real ones."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlaas.client import Client
from rlaas.scenarios import Scenario, outcome_document

__all__ = ["OutcomeMail", "Traffic", "drive"]

LATE_BY_AT_MOST = 12
REPEATED_SHARE = 0.05
CORRECTED_SHARE = 0.02
SEND_AT_MOST = 2000


@dataclass(kw_only=True)
class Traffic:
    """What was sent and acknowledged.

    Attributes:
        decision_ids: acknowledged decisions, in order.
        receipt_ids: receipts of acknowledged outcomes, each once.
        outcomes_sent: outcome records sent, repeats included.
        repeats_recognised: repeats that the platform answered with the first receipt.
        corrections: outcomes sent again with a higher revision.
        latencies_ms: client-side time of each decide request.
        seconds: wall time.
    """

    decision_ids: list[str] = field(default_factory=list)
    receipt_ids: set[str] = field(default_factory=set)
    outcomes_sent: int = 0
    repeats_recognised: int = 0
    corrections: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0


class OutcomeMail:
    """Posts outcomes late, out of order, some twice, some corrected by a higher revision."""

    def __init__(self, client: Client, traffic: Traffic, seed: int) -> None:
        self._client = client
        self._traffic = traffic
        self._rng = np.random.default_rng(seed)
        self._waiting: list[tuple[int, int, dict[str, Any]]] = []
        self._count = 0

    def post(self, step: int, document: dict[str, Any]) -> None:
        """Hand over an outcome at ``step``; it is sent up to 12 steps later, perhaps more than once."""
        self._put(step, document)
        draw = self._rng.random()
        if draw < REPEATED_SHARE:
            self._put(step, document)
        elif draw < REPEATED_SHARE + CORRECTED_SHARE:
            self._traffic.corrections += 1
            self._put(step, {**document, "revision": int(document["revision"]) + 1})

    def _put(self, step: int, document: dict[str, Any]) -> None:
        due = step + int(self._rng.integers(LATE_BY_AT_MOST + 1))
        # The counter breaks ties, so documents are never compared.
        heapq.heappush(self._waiting, (due, self._count, document))
        self._count += 1

    def send_due(self, step: int | None = None) -> None:
        """Send what is due at ``step``, or everything that is left, in shuffled order."""
        due: list[dict[str, Any]] = []
        while self._waiting and (step is None or self._waiting[0][0] <= step):
            due.append(heapq.heappop(self._waiting)[2])
        self._rng.shuffle(due)
        # A repeat inside one body is refused by contract, so it travels in a body of its own.
        batches: list[list[dict[str, Any]]] = [[]]
        seen: list[set[tuple[str, int]]] = [set()]
        for document in due:
            key = (document["outcome_id"], document["revision"])
            slot = next((i for i, s in enumerate(seen) if key not in s and len(s) < SEND_AT_MOST), None)
            if slot is None:
                batches.append([])
                seen.append(set())
                slot = len(batches) - 1
            batches[slot].append(document)
            seen[slot].add(key)
        for batch in batches:
            if not batch:
                continue
            accepted = self._client.outcomes(batch)["accepted"]
            self._traffic.outcomes_sent += len(batch)
            for receipt in accepted:
                self._traffic.receipt_ids.add(receipt["receipt_id"])
                self._traffic.repeats_recognised += bool(receipt["duplicate"])


def drive(
    client: Client,
    scenario: Scenario,
    policy: str,
    *,
    mode: str,
    steps: int,
    num_envs: int,
    seed: int,
    run: str,
    progress: Callable[[int, int], None] | None = None,
) -> Traffic:
    """Run the scenario's own environment with the actions that the platform serves.

    Each row of the environment is one session: of a user (the next one after every episode) or of a network element.
    Environments whose users return name them in ``infos["user"]``; else a session is its own experimental unit. A row
    that has just ended takes no decision until its environment has started anew.

    Args:
        client: of the running platform.
        scenario: what is controlled.
        policy: name of the deployed policy.
        mode: mode sent with each request.
        steps: environment steps.
        num_envs: environments side by side; 1 where units interfere and the whole network is the unit.
        seed: of the environments and of the outcome mail.
        run: prefix of session and outcome ids, so that a repeated run is told apart.
        progress: called with (steps done, steps).
    """
    traffic = Traffic()
    mail = OutcomeMail(client, traffic, seed)
    env = scenario.vector_env(num_envs, seed=seed)
    started = time.perf_counter()
    try:
        observation, infos = env.reset(seed=seed)
        rows = env.num_envs
        actions = _idle_actions(scenario, rows)
        episode = np.zeros(rows, dtype=np.int64)
        ended = np.zeros(rows, dtype=bool)
        for step in range(steps):
            episode += ended
            active = np.flatnonzero(~ended)
            sessions = [f"{run}-{row}-{episode[row]}" for row in active]
            # A user may come back for another session and has to meet the same variant then.
            users = infos.get("user")
            units = sessions if users is None else [f"{run}-{row}-user-{users[row]}" for row in active]
            served: list[dict[str, Any]] = []
            if len(active):
                asked = time.perf_counter()
                answer = client.decide(
                    policy,
                    observations=observation[active].tolist(),
                    unit=units,
                    session=sessions,
                    step=step,
                    mode=mode,
                )
                traffic.latencies_ms.append((time.perf_counter() - asked) * 1e3)
                served = answer["decisions"]
                traffic.decision_ids += [d["decision_id"] for d in served]
                actions[active] = np.array([d["action"] for d in served], dtype=actions.dtype)
            observation, _, terminated, truncated, infos = env.step(actions)
            ended = terminated | truncated
            for row, decision in zip(active, served, strict=True):
                mail.post(
                    step,
                    {
                        "outcome_id": f"{run}-{row}-{step}",
                        "decision_id": decision["decision_id"],
                        "revision": 0,
                        "outcome": outcome_document(scenario, infos["numerators"][row], infos["denominators"][row]),
                        "terminated": bool(terminated[row]),
                        "truncated": bool(truncated[row]),
                    },
                )
            mail.send_due(step)
            if progress:
                progress(step + 1, steps)
        mail.send_due()
    finally:
        env.close()
    traffic.seconds = time.perf_counter() - started
    return traffic


def _idle_actions(scenario: Scenario, rows: int) -> NDArray[Any]:
    """Valid actions for rows that only restart: their value is ignored."""
    space = scenario.single_action_space
    if isinstance(space, spaces.Box):
        return np.repeat(((space.low + space.high) / 2)[None].astype(np.float64), rows, axis=0)
    return np.zeros(rows, dtype=np.int64)
