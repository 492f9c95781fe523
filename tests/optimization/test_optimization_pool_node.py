"""A node that is lost in the middle of a search, on a real cluster of two."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from rlaas.optimization import ActorPool, FunctionProblem

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # A short path: Ray's sockets live under it, and their names are limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rn", dir="/tmp") as folder:
        # The cluster leaves its address where any other Ray of this machine would take it up.
        monkeypatch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()
        # Workers yield to everything else, which on a busy machine means that a test hardly moves.
        monkeypatch.setenv("RAY_worker_niceness", "0")
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield nodes
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        ray.shutdown()
        nodes.shutdown()


def _slow() -> FunctionProblem:
    def evaluate(X: np.ndarray) -> np.ndarray:
        time.sleep(0.05 * len(X))
        return np.stack([X[:, 0], 1 - X[:, 0]], axis=1)

    return FunctionProblem(evaluate, [0.0], [1.0], n_obj=2)


def _node(problem: Any, payload: None) -> str:
    time.sleep(0.2)
    return str(ray.get_runtime_context().get_node_id())


def test_a_lost_node_costs_no_candidate_and_does_not_stop_the_rest(cluster: Any) -> None:
    other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    X = np.random.default_rng(0).uniform(size=(80, 1))
    with ActorPool(_slow, workers=2, cpus_per_worker=1.0) as pool:
        nodes = set()
        for _ in range(4):
            pool.submit(_node, None)
        while len(nodes) < 2:
            nodes |= {answer.value for answer in pool.completed()}
        assert other.node_id in nodes
        pool.drop()
        tickets = [pool.submit(_first_column, X[i : i + 1]) for i in range(len(X))]
        answers: dict[int, Any] = {}
        while len(answers) < 10:
            answers.update({answer.ticket: answer for answer in pool.completed()})
        cluster.remove_node(other, allow_graceful=False)
        while len(answers) < len(X):
            answers.update({answer.ticket: answer for answer in pool.completed()})
        assert all(answer.lost is None and answer.error is None for answer in answers.values())
        np.testing.assert_array_equal([answers[ticket].value for ticket in tickets], X[:, 0])
        assert pool.usage.replaced >= 1
        # Its place is taken again once there is a node for it.
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        seen: set[str] = set()
        while len(seen) < 2:
            pool.submit(_node, None)
            pool.submit(_node, None)
            seen |= {answer.value for answer in pool.completed()}


def _first_column(problem: Any, X: np.ndarray) -> float:
    return float(problem.evaluate(X)[0, 0])
