"""A control loop over one WebSocket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.bundles import policy_bundle
from support.http_server import serving
from support.lanes import StandIn
from support.serving_kit import Bench, deployment, make_bench
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from rlaas.serving.transport import Limits
from rlaas.serving.web import create_app

ROW = [0.1, -0.5, 2.0]
LIMITS = Limits(2048, 5.0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    paths = {("toy", 1): policy_bundle(tmp_path / "toy", seed=1)}
    return make_bench(tmp_path, paths, deployment("toy", [{"name": "a", "version": 1, "weight": 1}]))


class Socket:
    """A client's end."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def ask(self, message: dict[str, Any] | str) -> dict[str, Any]:
        self._connection.send(message if isinstance(message, str) else json.dumps(message))
        return json.loads(self._connection.recv(timeout=20))


@pytest.fixture
def url(bench: Bench) -> Iterator[str]:
    with serving(create_app(StandIn(bench.engine, limits=LIMITS)), ws="websockets-sansio") as address:
        yield f"ws://{address}/api/v1/policies"


@contextmanager
def opened(url: str, policy: str = "toy") -> Iterator[Socket]:
    with connect(f"{url}/{policy}/session") as connection:
        yield Socket(connection)


def test_a_loop_counts_its_steps_and_begins_anew_behind_an_end(url: str, bench: Bench) -> None:
    with opened(url) as socket:
        answers = []
        for step in range(3):
            answers.append(socket.ask({"observation": ROW}))
            (accepted,) = socket.ask({"outcome": {"latency": float(step)}, "terminated": step == 2})["accepted"]
            assert accepted["outcome_id"] == answers[-1]["decision_id"]
        answers.append(socket.ask({"observation": ROW, "mode": "emergency"}))
    assert [a["step"] for a in answers] == [0, 1, 2, 0]
    assert len({a["session"] for a in answers[:3]}) == 1
    assert answers[3]["session"] != answers[0]["session"]
    logged = bench.logged_decisions()
    assert [(r.session, r.step) for r in logged] == [(a["session"], a["step"]) for a in answers]
    assert [r.decision_id for r in logged] == [a["decision_id"] for a in answers]
    assert [o.outcome["latency"] for o in bench.logged_outcomes()] == [0.0, 1.0, 2.0]
    assert answers[0]["action"] == bench.decide("toy", observation=ROW)["action"]


def test_a_caller_may_say_where_it_stands(url: str) -> None:
    with opened(url) as socket:
        assert socket.ask({"observation": ROW, "session": "mine", "step": 7})["step"] == 7
        answer = socket.ask({"observation": ROW})
        assert (answer["session"], answer["step"]) == ("mine", 8)


def test_a_refused_message_leaves_the_loop_where_it_stood(url: str, bench: Bench) -> None:
    refusals = {
        "{": "message",
        "[1]": "message",
        "[" * 1500: "message",
        '{"outcome": {"latency": 1}}': "decision_id",
        '{"observation": [1, 2]}': "observation",
        '{"observations": [[1, 2, 3]]}': "observations",
        '{"observation": [1, 2, 3], "step": -1}': "step",
        '{"observation": [1, 2, 3], "colour": 1}': "colour",
        '{"outcome": {"latency": 1}, "decision_id": "forged"}': "decision_id",
    }
    with opened(url) as socket:
        for message, field in refusals.items():
            refused = socket.ask(message)
            assert (refused["field"], refused["status"] // 100) == (field, 4), message
        assert socket.ask({"observation": ROW})["step"] == 0
    assert len(bench.logged_decisions()) == 1


def test_unknown_policies_and_long_messages(url: str) -> None:
    with opened(url, "nobody") as socket:
        assert socket.ask({"observation": ROW})["code"] == "NotFoundError"
        with pytest.raises(ConnectionClosedError) as caught:
            socket.ask(" " * 2049)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


def test_null_is_left_out_and_bytes_are_refused(url: str) -> None:
    with opened(url) as socket:
        answer = socket.ask({"observation": ROW, "step": None, "session": None, "mode": None})
        assert answer["step"] == 0
        assert socket.ask({"observation": ROW})["session"] == answer["session"]
        socket._connection.send(b"{}")
        with pytest.raises(ConnectionClosedError) as caught:
            socket.ask({"observation": ROW})
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1003
