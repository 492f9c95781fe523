"""Both clients against the real application on a real port: rollouts, arrays, control loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.http_platform import HttpPlatform

from rlaas.bundles import load_bundle
from rlaas.client import AsyncClient, Client, NoAnswerError
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError

ROWS = np.random.default_rng(5).normal(size=(6, 3))
NEW = [{"name": "champion", "version": 2, "weight": 1}]
QUICK = {"steps": [0.5], "step_s": 1, "min_decisions": 1, "analysis": {"metrics": ["errors"]}}


@pytest.fixture
def client(platform: HttpPlatform, platform_url: str) -> Iterator[Client]:
    platform.restore()
    with Client(platform_url) as client:
        yield client


def test_a_canary_is_created_steered_and_rolled_back(client: Client) -> None:
    created = client.create_deployment("toy", NEW, strategy={"kind": "canary", **QUICK}, min_replicas=1, max_replicas=3)
    assert created["weights"]["canary"] == pytest.approx(0.5)
    status = client.deployment_status("toy")
    assert status["autoscaling"] == {"min_replicas": 1, "max_replicas": 3}
    number = status["rollout"]["number"]
    assert client.pause_rollout("toy", number, reason="lunch", actor="ada")["state"] == "paused"
    assert client.resume_rollout("toy", number, reason="back")["state"] == "running"
    with pytest.raises(ConflictError, match="promote it or roll it back"):
        client.promote("toy", 2)
    assert client.rollback_rollout("toy", number, reason="enough")["state"] == "rolled_back"
    rollout = client.rollouts("toy")["items"][0]
    assert (rollout["number"], rollout["events"][-1]["reason"]) == (number, "enough")
    assert client.decide("toy", observation=ROWS[0])["version"] == 1


def test_a_promoted_rollout_serves_everything(client: Client) -> None:
    client.create_deployment("toy", NEW, strategy={"kind": "canary", **QUICK})
    number = client.deployment_status("toy")["rollout"]["number"]
    client.promote_rollout("toy", number, reason="good enough")
    assert {client.decide("toy", observation=row)["version"] for row in ROWS} == {2}
    with pytest.raises(ConflictError):
        client.promote_rollout("toy", number, reason="again")
    with pytest.raises(NotFoundError, match="no rollout"):
        client.pause_rollout("toy", 999, reason="none")
    with pytest.raises(NotFoundError):
        client.switch("toy", reason="no blue-green is running")


def test_blue_green_switches_and_switches_back(client: Client) -> None:
    client.create_deployment("toy", NEW, strategy={"kind": "blue_green", "auto_switch": False})
    assert client.decide("toy", observation=ROWS[0])["version"] == 1
    client.switch("toy", reason="now")
    assert client.decide("toy", observation=ROWS[0])["version"] == 2
    client.switch_back("toy", reason="no")
    assert client.decide("toy", observation=ROWS[0])["version"] == 1


def test_updates_can_be_bound_to_a_generation(client: Client) -> None:
    for change in (
        lambda: client.promote("toy", 2, if_match='"stale"'),
        lambda: client.delete_deployment("toy", if_match='"stale"'),
        lambda: client.create_deployment("toy", NEW, if_match='"stale"'),
    ):
        with pytest.raises(ConflictError) as caught:
            change()
        assert caught.value.field == "If-Match"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_arrays_travel_as_bytes_and_mean_what_json_means(client: Client, platform: HttpPlatform, dtype: Any) -> None:
    rows = (ROWS * 3).astype(dtype)
    weights = np.array([[0.25, 0.75]])
    answer = client.infer_arrays("toy", {"observation": rows, "preference": weights}, version=1)
    bundle = load_bundle(platform.control.registry.path("toy", 1))
    expected = bundle.forward(rows.astype(np.float32), np.array([0.25, 0.75], dtype=np.float32))["logits"]
    np.testing.assert_allclose(answer["outputs"]["logits"], expected, rtol=1e-5)
    assert (answer["outputs"]["logits"].dtype, answer["model_version"]) == (np.float32, "1")
    tensor = {"name": "observation", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel()}
    preference = {"name": "preference", "shape": [1, 2], "datatype": "FP64", "data": [0.25, 0.75]}
    body = {"inputs": [tensor, preference], "outputs": [{"name": "action"}]}
    (action,) = client.infer("toy", body, version=1)["outputs"]
    assert action["data"] == answer["outputs"]["action"].tolist()


def test_logged_arrays_come_back_with_ids(client: Client) -> None:
    answer = client.infer_arrays("box", {"observation": ROWS}, parameters={"log": True, "unit": "user-1"})
    outputs = answer["outputs"]
    assert outputs["action"].shape == (6, 2)
    assert len(set(outputs["decision_id"])) == 6
    assert outputs["version"].tolist() == [1] * 6
    report = [{"outcome_id": i, "decision_id": i, "outcome": {"latency": 1}} for i in outputs["decision_id"]]
    assert len(client.outcomes(report)["accepted"]) == 6
    only = client.infer_arrays("box", {"observation": ROWS}, outputs=["action"])["outputs"]
    assert list(only) == ["action"]
    with pytest.raises(InvalidInputError, match="must hold numbers"):
        client.infer_arrays("box", {"observation": [["a"]]})
    with pytest.raises(InvalidInputError) as caught:
        client.infer_arrays("box", {"observation": ROWS[:, :2]})
    assert caught.value.field == "inputs[0].shape"


def test_a_control_loop_counts_steps_reports_and_begins_again(client: Client) -> None:
    with client.session("toy") as loop:
        first = loop.session
        with pytest.raises(InvalidInputError, match="no decision yet"):
            loop.report({"latency": 1.0})
        answers = [loop.decide(row, mode="emergency") for row in ROWS[:3]]
        assert [answer["step"] for answer in answers] == [0, 1, 2]
        assert {answer["session"] for answer in answers} == {first}
        with pytest.raises(InvalidInputError) as caught:
            loop.decide(ROWS[0, :2])
        assert caught.value.field == "observation"
        (accepted,) = loop.report({"latency": 1.0}, terminated=True)["accepted"]
        assert accepted["outcome_id"] == answers[2]["decision_id"]
        assert loop.session != first
        assert loop.decide(ROWS[0])["step"] == 0
    with client.session("nobody") as loop, pytest.raises(NotFoundError, match="no live policy"):
        loop.decide(ROWS[0])


def test_a_control_loop_outlives_its_connection(client: Client) -> None:
    with client.session("toy", session="trip", step=7) as loop:
        assert loop.decide(ROWS[0])["step"] == 7
        loop._socket.close()  # type: ignore[union-attr]
        with pytest.raises(NoAnswerError):
            loop.decide(ROWS[1])
        # Over a new connection, where it stood.
        answer = loop.decide(ROWS[1])
        assert (answer["session"], answer["step"]) == ("trip", 8)
        loop._socket.close()  # type: ignore[union-attr]
        assert loop.decide(ROWS[2], repeat_if_lost=True)["step"] == 9
        loop._socket.close()  # type: ignore[union-attr]
        assert loop.report({"latency": 2.0})["accepted"]


def test_a_message_that_is_too_long_says_so(client: Client, platform: HttpPlatform) -> None:
    with client.session("toy") as loop:
        loop.decide(ROWS[0])
        with pytest.raises(InvalidInputError, match="longer than the platform allows"):
            loop.decide(ROWS[0], context={"note": "x" * platform.limits.body_bytes})
        assert loop.decide(ROWS[0])["step"] == 1


def test_the_async_client_does_the_same(platform: HttpPlatform, platform_url: str) -> None:
    async def ask() -> None:
        async with AsyncClient(platform_url) as client:
            await client.create_deployment("toy", NEW, strategy={"kind": "canary", **QUICK})
            (rollout,) = [one for one in (await client.rollouts("toy"))["items"] if one["ended_us"] is None]
            await client.rollback_rollout("toy", rollout["number"], reason="enough")
            answer = await client.infer_arrays("box", {"observation": ROWS})
            assert answer["outputs"]["action"].shape == (6, 2)
            async with client.session("toy", session="trip", step=7) as loop:
                assert (await loop.decide(ROWS[0]))["step"] == 7
                await loop._socket.close()  # type: ignore[union-attr]
                with pytest.raises(NoAnswerError):
                    await loop.decide(ROWS[1])
                assert (await loop.decide(ROWS[1]))["step"] == 8
                assert (await loop.report({"latency": 1.0}, truncated=True))["accepted"]
                assert loop.step == 0

    platform.restore()
    asyncio.run(ask())


def test_nobody_there_is_an_error_that_says_so() -> None:
    with (
        Client("http://127.0.0.1:9", attempts=2) as client,
        client.session("toy") as loop,
        pytest.raises(NoAnswerError, match="no answer to WEBSOCKET") as caught,
    ):
        loop.decide(ROWS[0])
    assert not caught.value.maybe_done


def test_a_gate_is_declared_asked_and_overridden(client: Client) -> None:
    assert client.gate("toy")["gate"] is None
    declared = client.declare_gate("toy", {"estimator": "snipw", "mode": "normal"}, actor="ada")
    assert declared["gate"]["declaration"]["estimator"] == "snipw"
    assert client.judge_version("toy", 2)["verdict"]["outcome"] == "no_verdict"  # nothing was logged yet
    with pytest.raises(ConflictError, match="override"):
        client.promote("toy", 2)
    client.override_gate("toy", 2, reason="tried on paper", actor="ada")
    client.promote("toy", 2)
    client.create_deployment("toy", [{"name": "a", "version": 1, "weight": 1}], override="back", actor="bob")
    happened = [(event["kind"], event["version"], event["actor"]) for event in client.gate_history("toy")["items"]]
    assert happened == [
        ("overridden", 2, "ada"),
        ("promised", 2, "ada"),
        ("refused", 2, "operator"),
        ("declared", None, "ada"),
    ]
    client.remove_gate("toy")
    assert client.gate("toy")["gate"] is None
