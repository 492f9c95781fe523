"""The gate before devices: exports, and what a device is handed when its link returns."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.gate_kit import gated_control
from support.serving_kit import PRINCIPAL, deployment

from rlaas.control.deployment import Control
from rlaas.control.gating import GateDeclaration, Override
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError, NotFoundError, RetryableError
from rlaas.lake import Lake, WriteAheadLog
from rlaas.serving.config import ServingConfig
from rlaas.serving.edge import EdgeSync, Receipts, device_key
from rlaas.serving.loaded import LiveState
from rlaas.serving.loading import load_state
from rlaas.settings import Settings

DECLARED = GateDeclaration(value="throughput", estimator="snipw")
DEVICE = "till7"
ADA = Override(actor="ada")


@pytest.fixture
def control(gated: Settings, tmp_path: Path) -> ControlService:
    return gated_control(gated, tmp_path, DECLARED)


def kinds(control: ControlService) -> list[tuple[str, int | None, bool, str]]:
    return [(e["kind"], e["version"], e["edge"], e["actor"]) for e in reversed(control.gates.history("toy"))][1:]


def test_a_version_that_is_new_has_to_pass_before_it_goes_to_devices(control: ControlService) -> None:
    with pytest.raises(ConflictError, match="toy:3 may not get live traffic: failed") as refused:
        control.devices.ask("toy", 3, ADA)
    assert refused.value.field == "override"
    control.devices.ask("toy", 2, ADA)
    control.devices.ask("toy", 2, ADA)  # the next device: it was let go before
    control.devices.ask("toy", 3, Override("a trial in the lab", "grace"))
    control.devices.ask("toy", 3, ADA)
    assert kinds(control) == [
        ("refused", 3, True, "ada"),
        ("passed", 2, True, "ada"),
        ("overridden", 3, True, "grace"),
    ]
    event = control.gates.history("toy")[0]
    assert (event["reason"], event["report"]["override"]["by"]) == ("a trial in the lab", "grace")
    # Being on devices is not having served here.
    with pytest.raises(ConflictError, match="failed"):
        control.promote("toy", 3)
    # Another declaration asks again.
    control.gates.declare("toy", DECLARED.model_copy(update={"margin": 1.0}))
    with pytest.raises(ConflictError, match="failed"):
        control.devices.ask("toy", 3, ADA)


def test_who_has_served_goes_to_devices_without_being_asked(control: ControlService) -> None:
    control.devices.ask("toy", 1, ADA)
    control.promote("toy", 2)
    control.gates.declare("toy", DECLARED.model_copy(update={"reference": 99.0}))
    for version in (1, 2):
        control.devices.ask("toy", version, ADA)
    assert [kind for kind, *_ in kinds(control)] == ["passed", "declared"]
    control.gates.remove("toy")
    control.devices.ask("toy", 3, ADA)
    with pytest.raises(NotFoundError):
        control.devices.ask("toy", 9, ADA)


def test_a_canary_has_not_served_on_its_own(control: ControlService) -> None:
    control.create_deployment(
        "toy", [{"name": "next", "version": 3, "weight": 1}], strategy={"kind": "canary"}, override=Override("a trial")
    )
    with pytest.raises(ConflictError, match="failed"):
        control.devices.ask("toy", 3, ADA)
    control.devices.ask("toy", 1, ADA)
    control.rollouts.act("toy", 1, "promote", actor="ada", reason="good")
    control.devices.ask("toy", 3, ADA)
    assert kinds(control)[1:] == [("refused", 3, True, "ada")]


def test_who_asks_again_and_again_is_judged_once(control: ControlService) -> None:
    for _ in range(3):
        with pytest.raises(ConflictError, match="toy:3 may not"):
            control.devices.ask("toy", 3, Override(actor="edge-sync"), again=False)
    assert kinds(control) == [("refused", 3, True, "edge-sync")]
    control.gates.promise("toy", 3, Override("the board", "ada"))
    control.devices.ask("toy", 3, Override(actor="edge-sync"), again=False)
    control.devices.ask("toy", 3, Override(actor="edge-sync"), again=False)
    assert kinds(control)[1:] == [("promised", 3, False, "ada"), ("overridden", 3, True, "ada")]


# --- the link ----------------------------------------------------------------------------------------------------


class Link:
    """A device and the platform's end of its link."""

    def __init__(self, control: ControlService, root: Path, refusal: Callable[[str, int], str | None]) -> None:
        self.control, self.root = control, root
        self.secret = control.database.secret()
        self.logs = [WriteAheadLog(root / "wal", stream, "gateway") for stream in ("decisions", "outcomes")]
        self.sync = EdgeSync(
            secret=self.secret,
            decisions=self.logs[0],
            outcomes=self.logs[1],
            receipts=Receipts(root / "wal", lambda: Lake(root / "lake"), "default"),
            locks=root / "locks",
            bundle=control.registry.path,
            refusal=refusal,
        )

    def __call__(self, live: int) -> dict[str, Any]:
        """What a device with version 1 is answered while another one is live."""
        record = deployment("toy", [{"name": "champion", "version": live, "weight": 1}])
        state, failures = load_state(LiveState(), [record], {("toy", live): self.control.registry.path("toy", live)})
        assert failures == {}
        body = json.dumps({"device": DEVICE, "nonce": "n", "version": 1, "int8": False, "records": []}).encode()
        key = bytes.fromhex(device_key(self.secret, DEVICE, tenant="default"))
        proof = hmac.digest(key, b"toy\0" + body, "sha256").hex()
        answer: dict[str, Any] = json.loads(self.sync.sync(PRINCIPAL, "toy", proof, body, state).body)
        return answer

    def close(self) -> None:
        for log_ in self.logs:
            log_.close()


def test_a_link_that_returns_is_handed_what_the_gate_lets_go(control: ControlService, tmp_path: Path) -> None:
    def refusal(policy: str, version: int) -> str | None:
        try:
            control.devices.ask(policy, version, Override(actor="edge-sync"), again=False)
        except ConflictError as problem:
            return problem.message
        return None

    link = Link(control, tmp_path, refusal)
    try:
        kept = link(3)  # live by a record that no gate has seen
        assert kept["export"] is None
        assert kept["export_error"].startswith("toy:3 may not get live traffic: failed")
        assert link(3)["export_error"].startswith("toy:3 may not go to devices: failed")
        assert set(link(2)["export"]) == {"policy.onnx", "edge.json", "golden.json", "SHA256SUMS"}
        control.gates.promise("toy", 3, Override("the board", "ada"))
        taken = link(3)
        assert (taken["version"], taken["export_error"]) == (3, None)
        assert json.loads(base64.b64decode(taken["export"]["edge.json"]))["version"] == 3
    finally:
        link.close()
    assert [kind for kind, *_ in kinds(control)] == ["refused", "passed", "promised", "overridden"]


def test_control_tells_gateways_why_devices_do_not_get_a_version(
    gated: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment's own class, without Serve around it."""
    # What it does to a process of its own would stay with the one that runs the tests.
    for name in ("configure_events", "give_way"):
        monkeypatch.setattr(f"rlaas.control.deployment.{name}", lambda: None)
    settings = gated.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"})
    beside = ControlService(settings)
    beside.promote("toy", 1)
    beside.gates.declare("toy", DECLARED)
    control = Control.func_or_class(None, ServingConfig(), settings)
    answers = [asyncio.run(control.refusal_for_devices("toy", version)) for version in (1, 2, 3, 3, 9)]
    del control
    assert answers[:2] == [None, None]
    assert answers[2].startswith("toy:3 may not get live traffic: failed")
    assert answers[3].startswith("toy:3 may not go to devices: failed")
    assert "version" in answers[4]
    assert kinds(beside) == [("passed", 2, True, "edge-sync"), ("refused", 3, True, "edge-sync")]


def test_while_nobody_can_say_a_device_keeps_what_it_has(control: ControlService, tmp_path: Path) -> None:
    def away(policy: str, version: int) -> str | None:
        raise RetryableError(f"nobody says whether {policy}:{version} may go")

    link = Link(control, tmp_path, away)
    try:
        answer = link(2)
    finally:
        link.close()
    assert (answer["export"], answer["export_error"]) == (None, "nobody says whether toy:2 may go")
