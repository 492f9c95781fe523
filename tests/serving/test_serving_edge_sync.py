"""The platform's end: what a device sent is logged exactly once, whatever is repeated, restarted or forged."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from edge_kit import DEVICE, Platform, commit
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, SECRET

from rlaas.errors import (
    BundleError,
    InvalidInputError,
    LakeError,
    MalformedBodyError,
    NotFoundError,
    RetryableError,
)
from rlaas.lake import Lake, update_transitions
from rlaas.serving.decision_ids import DecisionIds, uuid7_hex
from rlaas.serving.edge import device_key
from rlaas.serving.edge.sync import DeviceKeyError


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    policy_bundle(tmp_path / "v1")
    made = Platform(tmp_path)
    yield made
    made.close()


def _decision(version: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "decision",
        "id": f"{uuid7_hex()}-{version}",
        "time_us": 1_700_000_000_000_000,
        "version": version,
        "observation": [0.1, 0.2, 0.3],
        "action": 2,
        "mode": "normal",
        "preference": {"latency": 0.5, "throughput": 0.5},
        **fields,
    }


def _outcome(decision: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "kind": "outcome",
        "id": f"{uuid7_hex()}-0",
        "time_us": 1_700_000_001_000_000,
        "decision_id": decision["id"],
        "outcome": {"latency": 3.0, "throughput": 50.0},
        **fields,
    }


def _message(records: list[Any], **fields: Any) -> bytes:
    return json.dumps(
        {"device": DEVICE, "nonce": "n", "version": 1, "int8": False, "records": records, **fields}
    ).encode()


def _signature(body: bytes, policy: str = "toy", device: str = DEVICE) -> str:
    key = bytes.fromhex(device_key(SECRET, device, tenant="default"))
    return hmac.new(key, policy.encode() + b"\0" + body, "sha256").hexdigest()


def _send(platform: Platform, records: list[Any], **fields: Any) -> dict[str, Any]:
    body = _message(records, **fields)
    return json.loads(platform.sync.sync(PRINCIPAL, "toy", _signature(body), body, platform.state).body)


def _bronze(root: Path, stream: str) -> list[dict[str, Any]]:
    commit(root)
    return Lake(root / "lake").read(f"bronze.{stream}").to_pylist()


def test_a_decision_arrives_as_the_device_made_it(platform: Platform, tmp_path: Path) -> None:
    sent = _decision(session="s", step=4, unit="u")
    answer = _send(platform, [sent, _outcome(sent, terminated=True)])
    assert [item["duplicate"] for item in answer["accepted"]] == [False, False]
    assert answer["refused"] == []
    platform.seal()
    (row,) = _bronze(tmp_path, "decisions")
    assert (row["policy"], row["version"], row["variant"], row["variant_propensity"]) == ("toy", 1, "edge", 1.0)
    assert (row["producer"], row["generation"], row["scenario"]) == (f"edge-{DEVICE}", 0, "toy")
    assert (row["observation"], row["action"], row["time_us"]) == ([0.1, 0.2, 0.3], [2.0], sent["time_us"])
    assert (row["session"], row["step"], row["unit"], row["mode"]) == ("s", 4, "u", "normal")
    assert dict(row["preference"]) == sent["preference"]
    # Any replica can verify the id, and credit the version with the outcome.
    verified = DecisionIds(SECRET, "another", tenant="default").verify(row["decision_id"])
    assert (verified.uuid, verified.producer, verified.version) == (sent["id"][:32], f"edge{DEVICE}", 1)
    (outcome,) = _bronze(tmp_path, "outcomes")
    assert (outcome["decision_id"], outcome["terminated"]) == (row["decision_id"], True)
    update_transitions(Lake(tmp_path / "lake"))
    (joined,) = Lake(tmp_path / "lake").read("silver.transitions").to_pylist()
    assert dict(joined["outcome"]) == {"latency": 3.0, "throughput": 50.0}


@pytest.mark.parametrize("where", ["open", "sealed", "bronze", "dead"])
def test_a_batch_that_comes_again_is_recognised_wherever_it_is_by_now(tmp_path: Path, where: str) -> None:
    policy_bundle(tmp_path / "v1")
    first = Platform(tmp_path)
    sent = [_decision(), _decision()]
    records = [*sent, *(_outcome(item) for item in sent)]
    before = _send(first, records)
    if where != "open":
        first.close() if where == "dead" else first.seal()
    if where == "bronze":
        commit(tmp_path)
    second = Platform(tmp_path)  # another replica, or the same after a restart
    fresh = _decision()
    again = _send(second, [*records, fresh])
    assert [item["duplicate"] for item in again["accepted"]] == [True] * 4 + [False]
    assert [item["receipt_id"] for item in again["accepted"][:4]] == [i["receipt_id"] for i in before["accepted"]]
    first.close()
    second.close()
    ids = [row["receipt_id"] for row in _bronze(tmp_path, "decisions")]
    assert len(ids) == len(set(ids)) == 3
    assert len(_bronze(tmp_path, "outcomes")) == 2


def test_the_same_batch_at_two_replicas_at_once_is_taken_once(tmp_path: Path) -> None:
    policy_bundle(tmp_path / "v1")
    replicas = [Platform(tmp_path) for _ in range(4)]
    records = [_decision() for _ in range(50)]
    threads = [threading.Thread(target=_send, args=(replica, records)) for replica in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for replica in replicas:
        replica.close()
    assert sorted(row["decision_id"][:32] for row in _bronze(tmp_path, "decisions")) == sorted(
        record["id"][:32] for record in records
    )


def test_a_record_sent_twice_in_one_batch_is_taken_once(platform: Platform) -> None:
    sent = _decision()
    assert [item["duplicate"] for item in _send(platform, [sent, sent])["accepted"]] == [False, True]


def test_what_can_never_be_taken_is_refused_alone(platform: Platform, tmp_path: Path) -> None:
    good = _decision()
    bad = [
        _decision(action=4),
        _decision(action=[1.0]),
        _decision(action=0.5),
        _decision(observation=[1.0]),
        _decision(id="not an id"),
        _decision(id=f"{uuid7_hex()}-2"),
        _decision(version=0, id=f"{uuid7_hex()}-0"),
        _decision(time_us=-1),
        _decision(surprise=1),
        {"kind": "rumour"},
        17,
        _outcome(good, outcome={}),
        _outcome(good, outcome={"no name!": 1.0}),
        _outcome(good, decision_id="forged"),
    ]
    answer = _send(platform, [*bad, good])
    assert [item["index"] for item in answer["refused"]] == list(range(len(bad)))
    assert all(item["reason"] for item in answer["refused"])
    assert "none of version 1" in answer["refused"][0]["reason"]
    assert [item["id"] for item in answer["accepted"]] == [good["id"]]
    platform.seal()
    assert len(_bronze(tmp_path, "decisions")) == 1


@pytest.mark.parametrize(("kind", "wrong"), [("box", [1.1] * 4), ("box", [0.5] * 3), ("box", 0.5)])
def test_an_action_outside_its_box_is_refused(tmp_path: Path, kind: Any, wrong: Any) -> None:
    policy_bundle(tmp_path / "v1", kind=kind)
    platform = Platform(tmp_path)
    answer = _send(platform, [_decision(action=wrong), _decision(action=[0.0, 1.0, 0.5, 1.0000001])])
    assert [item["index"] for item in answer["refused"]] == [0]
    assert len(answer["accepted"]) == 1
    platform.close()


def test_a_version_that_is_not_loaded_any_more_is_still_taken(platform: Platform, tmp_path: Path) -> None:
    assert _send(platform, [_decision(3, observation=[1.0], action=[7.0])])["refused"] == []
    platform.seal()
    assert [row["version"] for row in _bronze(tmp_path, "decisions")] == [3]


def test_only_the_device_itself_is_heard(platform: Platform) -> None:
    body = _message([_decision()])
    for signature in ("", "é", "0" * 64, _signature(body, policy="other"), _signature(body, device="till8")):
        with pytest.raises(DeviceKeyError, match="not that of the device") as caught:
            platform.sync.sync(PRINCIPAL, "toy", signature, body, platform.state)
        assert caught.value.http_status == 401
    changed = body.replace(b'"action": 2', b'"action": 3')
    with pytest.raises(DeviceKeyError):
        platform.sync.sync(PRINCIPAL, "toy", _signature(body), changed, platform.state)
    assert platform.decisions.seal() is False
    assert device_key(SECRET, DEVICE, tenant="default") != device_key(SECRET, DEVICE, tenant="other")
    with pytest.raises(InvalidInputError, match="lower-case letters and digits"):
        device_key(SECRET, "../till", tenant="default")


def test_the_answer_is_signed_together_with_the_question(platform: Platform) -> None:
    body = _message([])
    answer = platform.sync.sync(PRINCIPAL, "toy", _signature(body), body, platform.state)
    key = bytes.fromhex(device_key(SECRET, DEVICE, tenant="default"))
    assert answer.signature == hmac.new(key, _signature(body).encode() + answer.body, "sha256").hexdigest()


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (b"{", MalformedBodyError, "not valid JSON"),
        (b"[]", InvalidInputError, "body: "),
        (b'{"device": "a"}', InvalidInputError, "nonce"),
        (_message([17] * 20_001), InvalidInputError, "at most 20000"),
    ],
)
def test_a_body_of_another_shape_is_refused(platform: Platform, body: bytes, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        platform.sync.sync(PRINCIPAL, "toy", _signature(body), body, platform.state)


def test_a_policy_that_is_not_live_keeps_its_records_at_the_device(platform: Platform) -> None:
    body = _message([_decision()])
    with pytest.raises(NotFoundError, match="no live policy 'gone'"):
        platform.sync.sync(PRINCIPAL, "gone", _signature(body, policy="gone"), body, platform.state)


def test_the_live_version_is_handed_out_to_whoever_has_another(platform: Platform, tmp_path: Path) -> None:
    assert _send(platform, [])["export"] is None
    policy_bundle(tmp_path / "v2", seed=2)
    platform.state = platform.live(2)
    answer = _send(platform, [_decision()])
    about = json.loads(base64.b64decode(answer["export"]["edge.json"]))
    assert (answer["version"], about["version"], about["int8"]) == (2, 2, False)
    assert set(answer["export"]) == {"policy.onnx", "edge.json", "golden.json", "SHA256SUMS"}
    small = _send(platform, [], int8=True)
    assert json.loads(base64.b64decode(small["export"]["edge.json"]))["int8"] is True
    assert _send(platform, [], version=2)["export"] is None


def test_a_version_that_cannot_be_exported_costs_no_record(platform: Platform) -> None:
    def broken(policy: str, version: int) -> Path:
        raise BundleError(f"{policy} {version} is gone")

    platform.sync.bundle = broken
    answer = _send(platform, [_decision()], version=9)
    assert (answer["export"], answer["export_error"], len(answer["accepted"])) == (None, "toy 1 is gone", 1)


def test_a_log_that_takes_nothing_now_is_worth_another_try(platform: Platform, tmp_path: Path) -> None:
    sent = _decision()
    platform.outcomes.close()
    with pytest.raises(RetryableError, match="send them again") as caught:
        _send(platform, [sent, _outcome(sent)])
    assert isinstance(caught.value.__cause__, LakeError)
    platform.close()
    second = Platform(tmp_path)
    assert [item["duplicate"] for item in _send(second, [sent, _outcome(sent)])["accepted"]] == [True, False]
    second.close()


def test_a_batch_waits_for_the_one_before_and_not_for_ever(platform: Platform) -> None:
    platform.sync.lock_timeout_s = 0.1
    with platform.sync._alone(DEVICE), pytest.raises(RetryableError, match="is being taken"):
        _send(platform, [])
    assert _send(platform, [])["accepted"] == []
