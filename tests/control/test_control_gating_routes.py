"""The gate over the control plane's routes, and its rows in the state database."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from support.control_kit import Routes
from support.gate_kit import LOGGED

from rlaas.control.gating import GateDeclaration, GateEvent, GateStore, StoredGate
from rlaas.control.service import ControlService
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError
from rlaas.settings import Settings

DECLARED = {"value": "throughput", "estimator": "snipw", "actor": "ada"}


@pytest.fixture
def ask(gated: Settings, tmp_path: Path) -> Routes:
    control = ControlService(gated.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))
    control.promote("toy", 1)
    return Routes(control)


def one(version: int) -> list[dict[str, Any]]:
    return [{"name": "next", "version": version, "weight": 1}]


def test_a_gate_from_its_declaration_to_its_end(ask: Routes) -> None:
    assert ask("GET", "models/toy/gate") == (200, {"policy": "toy", "gate": None, "served": []})
    status, gate = ask("PUT", "models/toy/gate", DECLARED)
    assert status == 200
    assert gate["served"] == [1]
    assert gate["gate"]["declaration"]["estimator"] == "snipw"
    assert ask("GET", "models/toy/gate") == (200, gate)
    status, judged = ask("POST", "models/toy/gate/judge", {"version": 2})
    assert (status, judged["verdict"]["outcome"], judged["rows"]["counted"]) == (200, "passed", LOGGED)
    status, refused = ask("POST", "models/toy/promote", {"version": 3})
    assert (status, refused["field"], refused["code"]) == (409, "override", "ConflictError")
    line = ask("POST", "models/toy/gate/judge", {"version": 3})[1]["verdict"]["lines"][0]
    for part in (
        f"snipw: {line['value']:.4g}",
        f"{line['low']:.4g} to {line['high']:.4g}",
        f"effective sample size {line['effective_sample_size']:.0f} of {LOGGED}",
        "effective sample size 100",
    ):
        assert part in refused["detail"]
    status, done = ask("POST", "models/toy/promote", {"version": 3, "override": "a drill", "actor": "grace"})
    assert (status, done["version"]["version"]) == (200, 3)
    status, page = ask("GET", "models/toy/gate/history?page_size=1")
    (event,) = page["items"]
    assert (event["kind"], event["actor"], event["reason"], event["version"]) == ("overridden", "grace", "a drill", 3)
    status, page = ask("GET", f"models/toy/gate/history?page_token={page['next_page_token']}")
    assert [(event["number"], event["kind"]) for event in page["items"]] == [(2, "refused"), (1, "declared")]
    assert ask("DELETE", "models/toy/gate") == (200, {"deleted": {"policy": "toy"}})
    assert ask("DELETE", "models/toy/gate")[0] == 404
    assert ask("POST", "models/toy/promote", {"version": 2})[0] == 200


@pytest.mark.parametrize("strategy", [None, {"kind": "canary"}, {"kind": "blue_green"}])
def test_a_deployment_takes_an_override_too(ask: Routes, strategy: Any) -> None:
    ask("PUT", "models/toy/gate", DECLARED)
    body = {"policy": "toy", "variants": one(3), "strategy": strategy}
    status, refused = ask("POST", "deployments/create", body, idempotency_key="k")
    assert (status, refused["field"]) == (409, "override")
    assert ask("POST", "deployments/create", {**body, "override": "a drill"}, idempotency_key="k2")[0] == 200
    event = ask("GET", "models/toy/gate/history")[1]["items"][0]
    assert (event["kind"], event["actor"]) == ("overridden", "operator")


def test_a_promise_over_http(ask: Routes) -> None:
    assert ask("POST", "models/toy/gate/override", {"version": 3, "reason": "x"})[0] == 404
    ask("PUT", "models/toy/gate", DECLARED)
    status, event = ask("POST", "models/toy/gate/override", {"version": 3, "reason": "board", "actor": "ada"})
    assert (status, event["number"], event["kind"], event["reason"]) == (200, 2, "promised", "board")
    status, refused = ask("POST", "models/toy/gate/override", {"version": 2, "reason": "board"})
    assert status == 409
    assert "passes already" in refused["detail"]
    assert ask("POST", "deployments/create", {"policy": "toy", "variants": one(3)})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PUT", "models/toy/gate", {"value": "throughput"}, 422, "estimator"),
        ("PUT", "models/toy/gate", {**DECLARED, "value": "colour"}, 422, "value"),
        ("PUT", "models/toy/gate", {**DECLARED, "margin": -1}, 422, "margin"),
        ("PUT", "models/toy/gate", {**DECLARED, "mode": "normal"}, 422, "body"),
        ("PUT", "models/toy/gate", {**DECLARED, "colour": 1}, 422, "colour"),
        ("PUT", "models/toy/gate", {**DECLARED, "reference": "live"}, 422, None),
        ("PUT", "models/toy/gate", {"weights": {}, "estimator": "snipw"}, 422, "weights"),
        ("PUT", "models/toy/gate", b"{", 400, "body"),
        ("PUT", "models/nobody/gate", DECLARED, 404, "policy"),
        ("GET", "models/nobody/gate", None, 404, "policy"),
        ("GET", "models/nobody/gate/history", None, 404, "policy"),
        ("GET", "models/a/b/gate", None, 422, "model"),
        ("POST", "models/toy/gate/judge", {"version": 2}, 404, "gate"),
        ("POST", "models/toy/gate/judge", {"version": "2"}, 422, "version"),
        ("POST", "models/toy/gate/override", {"version": 2}, 422, "reason"),
        ("POST", "models/toy/promote", {"version": 2, "override": ""}, 422, "override"),
        ("POST", "models/toy/promote", {"version": 2, "override": "  "}, 422, "override"),
        ("POST", "models/toy/promote", {"version": 2, "override": "x" * 501}, 422, "override"),
        ("POST", "deployments/create", {"policy": "toy", "variants": one(2), "override": 3}, 422, "override"),
        ("PATCH", "models/toy/gate", None, 405, "method"),
    ],
)
def test_bad_requests_name_the_field(
    ask: Routes, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    answered, document = ask(method, path, body)
    assert answered == status, document
    if field is not None:
        assert document["field"] == field
    assert "\n" not in document["detail"]
    assert ask("GET", "models/toy/gate")[1]["gate"] is None


# --- the store ---------------------------------------------------------------------------------------------------


def event(kind: Any = "refused", number: int = 0) -> GateEvent:
    return GateEvent(number, kind, "ada", "because", version=2, report={"a": [1.5]})


def test_rows_survive_and_belong_to_their_tenant(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    store = GateStore(StateDatabase(url), "default")
    declared = StoredGate(GateDeclaration(weights={"latency": 1.0}, estimator="dros"), 17, "ada")
    store.declare("toy", declared, event("declared"))
    store.note_served("toy", [3, 1])
    store.note_served("toy", [3])
    again = GateStore(StateDatabase(url), "default")
    assert again.gate("toy") == declared
    assert again.served("toy") == {1, 3}
    assert again.events("toy") == [(1, event("declared"))]
    for other in (GateStore(StateDatabase(url), "another"), again):
        name = "toy" if other is not again else "else"
        assert (other.gate(name), other.served(name), other.events(name)) == (None, set(), [])
    assert not GateStore(StateDatabase(url), "another").remove("toy", event("removed"))
    assert again.remove("toy", event("removed"))
    assert not again.remove("toy", event("removed"))
    assert [one.kind for _, one in again.events("toy")] == ["removed", "declared"]


def write_events(url: str, first: int) -> None:
    """Ten events and the versions that they tell of, from ``first`` on."""
    store = GateStore(StateDatabase(url), "default")
    for number in range(first, first + 10):
        store.note_served("toy", [number // 2])
        while True:
            try:
                store.record("toy", GateEvent(number, "passed", "a", "b"))
                break
            except ConflictError as problem:
                if "meanwhile" not in problem.message:
                    raise


def test_processes_that_write_at_once_lose_no_event(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    store = GateStore(StateDatabase(url), "default")
    code = textwrap.dedent("""
        from rlaas.control.gating import GateEvent, GateStore
        from rlaas.control.state import StateDatabase
        from rlaas.errors import ConflictError
    """)
    code += inspect.getsource(write_events) + f"print('ready', flush=True)\nwrite_events({url!r}, 5)\n"
    # One more process: this one has loaded everything already, and writes from when the other has too.
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        write_events(url, 0)
        assert child.wait(timeout=240) == 0
    events = store.events("toy")
    assert [number for number, _ in events] == list(range(20, 0, -1))
    assert sorted(one.time_us for _, one in events) == sorted([*range(10), *range(5, 15)])
    assert store.served("toy") == set(range(8))
