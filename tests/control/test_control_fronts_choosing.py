"""Choosing from fronts over HTTP without Ray: a real registry, real files, real scenarios."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.front_kit import front_of, network_front, write_front_file
from support.front_routes_kit import ask, routes_of, scenario_front, told

from rlaas.control.fronts import timed_fronts
from rlaas.control.mode_choice import requested_mode
from rlaas.decisions import resolve
from rlaas.decisions.fallback import Answer
from rlaas.objectives import Mode
from rlaas.registry import Registry
from rlaas.registry.fronts import FrontStore
from rlaas.scenarios import load
from rlaas.settings import Settings


def test_a_mode_is_resolved_as_by_the_library_and_says_its_step(empty: Settings, tmp_path: Path) -> None:
    front, scenario = scenario_front(), load("network5g")
    write_front_file(empty.home, front, "static")
    seen: list[tuple[str, str, str]] = []

    def observe(answer: Answer, *, scenario: str, names: Sequence[str], mode: Mode) -> None:
        assert answer.candidate.objectives(names)
        seen.append((scenario, mode.name, answer.step))

    routes = routes_of(empty, tmp_path, observe=observe)
    for name, mode in scenario.modes.items():
        for path, more in (("/api/v1/resolve", {"scenario": "network5g"}), ("/api/v1/fronts/network5g/resolve", {})):
            document = told(ask(routes, "POST", path, {"mode": name, **more}))
            expected = resolve(front, mode=mode)
            assert (document["mode"], document["candidate"], document["step"]) == (
                name,
                expected.candidate.name,
                "live",
            )
            assert document["parameters"] == dict(expected.candidate.parameters)
            assert document["objectives"] == pytest.approx(expected.candidate.objectives(front.names))
            assert document["certificate"]["front_version"]
            assert document["passed_over"] == []
    assert seen == [("network5g", name, "live") for name in scenario.modes for _ in range(2)]
    assert [f.front for f in timed_fronts(FrontStore(Registry(empty)))] == [front]
    assert told(ask(routes, "POST", "/api/v1/fronts/network5g/resolve", {}))["mode"] == scenario.primary_mode


def test_weights_instead_of_a_mode(empty: Settings, tmp_path: Path) -> None:
    front = scenario_front()
    write_front_file(empty.home, front, "static")
    routes = routes_of(empty, tmp_path)
    wanted = {"preference": {"energy": 3, "latency": 1}, "method": "weighted_sum"}
    document = told(ask(routes, "POST", "/api/v1/fronts/network5g/resolve", wanted))
    mode = requested_mode(front.objectives, {}, preference=wanted["preference"])  # type: ignore[arg-type]
    assert document["candidate"] == resolve(front, mode=mode, method="weighted_sum").candidate.name
    assert document["preference"] == {"latency": 0.25, "throughput": 0.0, "energy": 0.75, "satisfaction": 0.0}


def test_without_its_scenario_a_front_takes_weights_only(registered: Settings, tmp_path: Path) -> None:
    routes = routes_of(registered, tmp_path)
    document = told(ask(routes, "POST", "/api/v1/fronts/network/resolve", {"preference": {"latency": 1}}))
    assert document["step"] == "live"
    front = network_front(8, seed=1)
    assert document["objectives"]["latency"] == pytest.approx(front.values()[:, 0].min())
    for body, field in (({"mode": "normal"}, "mode"), ({}, "preference")):
        problem = told(ask(routes, "POST", "/api/v1/fronts/network/resolve", body), 422)
        assert problem["field"] == field
        assert "not installed here" in problem["detail"]
        assert "latency, throughput, energy, satisfaction" in problem["detail"]


RULES = {
    "version": 1,
    "context": {"load": {"type": "number", "range": [0, 1]}},
    "rules": [
        {"name": "busy", "priority": 10, "when": "load > 0.9", "then": {"mode": "emergency"}},
        {"name": "frugal", "priority": 5, "when": "load < 0.5", "require": "energy <= 300"},
    ],
}


def test_rules_set_the_mode_and_leave_candidates_out(empty: Settings, tmp_path: Path) -> None:
    front = scenario_front()
    write_front_file(empty.home, front, "static")
    routes = routes_of(empty, tmp_path)
    path = "/api/v1/fronts/network5g/resolve"
    busy = told(ask(routes, "POST", path, {"mode": "normal", "rules": RULES, "context": {"load": 0.95}}))
    assert (busy["mode"], busy["rules"]["mode_rule"], busy["rules"]["fired"]) == ("emergency", "busy", ["busy"])
    quiet = told(ask(routes, "POST", path, {"mode": "throughput", "rules": RULES, "context": {"load": 0.1}}))
    assert quiet["mode"] == "throughput"
    assert quiet["objectives"]["energy"] <= 300
    unknown = told(ask(routes, "POST", path, {"rules": RULES}))
    assert set(unknown["rules"]["unknown"]) == {"busy", "frugal"}


def test_each_step_of_the_ladder_answers_and_says_so(empty: Settings, tmp_path: Path) -> None:
    routes = routes_of(empty, tmp_path)
    path = "/api/v1/fronts/network5g/resolve"
    nothing = told(ask(routes, "POST", path, {"mode": "normal"}))
    assert (nothing["step"], nothing["objectives"]) == ("safe_default", None)
    assert nothing["parameters"] == {"baseline": load("network5g").default_baseline}
    assert [(p["step"], p["reason"]) for p in nothing["passed_over"]][:2] == [
        ("live", "missing"),
        ("last_good", "missing"),
    ]
    good = scenario_front()
    file = write_front_file(empty.home, good, "static")
    live = told(ask(routes, "POST", path, {"mode": "normal"}))
    assert live["step"] == "live"
    file.write_text("{")  # the installation's own file is damaged: what was good last answers
    last = told(ask(routes, "POST", path, {"mode": "normal"}))
    assert (last["step"], last["candidate"]) == ("last_good", live["candidate"])
    # A restarted platform finds it again.
    again = told(ask(routes_of(empty, tmp_path), "POST", path, {"mode": "normal"}))
    assert (again["step"], again["candidate"]) == ("last_good", live["candidate"])


def test_the_best_configuration_of_the_searches_stands_in(empty: Settings, tmp_path: Path) -> None:
    scenario = load("network5g")
    front = scenario_front()
    write_front_file(empty.home, front, "static")
    write_front_file(empty.home, scenario_front(seed=9, lacking=True), "unfit")
    configurations = dataclasses.replace(
        front, candidates=tuple(c for c in front.candidates if c.kind == "configuration")
    )
    mode = scenario.modes[scenario.primary_mode]
    best = resolve(configurations, mode=mode, method="weighted_sum").candidate
    if best.objectives(front.names)["satisfaction"] < 0.8:
        pytest.fail("the kit's best configuration has to keep the rules")
    answer = told(ask(routes_of(empty, tmp_path), "POST", "/api/v1/fronts/network5g/resolve", {"label": "unfit"}))
    assert (answer["step"], answer["candidate"]) == ("best_static", best.name)
    assert answer["passed_over"][0]["reason"] == "rules"


def test_without_its_scenario_an_answer_says_which_rules_took_effect(empty: Settings, tmp_path: Path) -> None:
    write_front_file(empty.home, network_front(8, seed=1), "static")
    rules = {"version": 1, "rules": [{"name": "frugal", "require": "energy <= 300"}]}
    wanted = {"preference": {"latency": 1}, "rules": rules}
    document = told(ask(routes_of(empty, tmp_path), "POST", "/api/v1/fronts/network/resolve", wanted))
    assert (document["step"], document["keeps_rules"], len(document["rules_hit"])) == ("live", True, 1)
    assert document["objectives"]["energy"] <= 300
    assert document["age_s"] is not None
    assert document["elapsed_s"] != 0


def test_configurations_of_one_name_from_two_searches_do_not_hide_each_other(empty: Settings, tmp_path: Path) -> None:
    scenario, good = load("network5g"), scenario_front()
    names = [candidate.name for candidate in good.candidates]
    weak = np.full((len(names), 4), 0.3)
    poor = front_of(scenario.objectives, weak, np.random.default_rng(0), names, scenario.name)
    write_front_file(empty.home, scenario_front(seed=9, lacking=True), "unfit")
    answers = []
    for first, second in ((good, poor), (poor, good)):
        write_front_file(empty.home, first, "one")
        write_front_file(empty.home, second, "two")
        routes = routes_of(empty, tmp_path)
        answers.append(told(ask(routes, "POST", "/api/v1/fronts/network5g/resolve", {"label": "unfit"})))
    assert [answer["step"] for answer in answers] == ["best_static"] * 2
    assert answers[0]["objectives"] == answers[1]["objectives"]
    assert answers[0]["candidate"] in names


def test_the_best_configuration_follows_the_searches(empty: Settings, tmp_path: Path) -> None:
    write_front_file(empty.home, scenario_front(seed=9, lacking=True), "unfit")
    routes, path = routes_of(empty, tmp_path), "/api/v1/fronts/network5g/resolve"
    assert told(ask(routes, "POST", path, {"label": "unfit"}))["step"] == "safe_default"
    write_front_file(empty.home, scenario_front(), "static")
    assert told(ask(routes, "POST", path, {"label": "unfit"}))["step"] == "best_static"


def test_what_was_good_last_is_kept_by_tenant_scenario_and_label(empty: Settings, tmp_path: Path) -> None:
    write_front_file(empty.home, scenario_front(), "static")
    routes, path = routes_of(empty, tmp_path, tenant="acme"), "/api/v1/fronts/network5g/resolve"
    for body in ({}, {"label": "static"}):
        assert told(ask(routes, "POST", path, body))["step"] == "live"
    told(ask(routes, "POST", path, {"label": "ghost"}), 404)
    folder, wanted = empty.home / "last-good", {"acme/network5g/_.json", "acme/network5g/static.json"}
    found: set[str] = set()
    for _ in range(1000):  # written once nobody waits any longer
        found = {str(file.relative_to(folder)) for file in folder.rglob("*.json")}
        if found == wanted:
            break
        time.sleep(0.02)
    assert found == wanted


def test_a_store_that_hangs_or_fails_is_fallen_back_from(
    empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes, path = routes_of(empty, tmp_path), "/api/v1/fronts/network5g/resolve"
    let_go = threading.Event()

    def hang(*_: object) -> None:
        let_go.wait(60)
        raise OSError("the disk is gone")

    monkeypatch.setattr(FrontStore, "find", hang)
    monkeypatch.setattr(FrontStore, "searched", hang)
    late = told(ask(routes, "POST", path, {"label": "static", "deadline_s": 0.2}))
    assert (late["step"], late["passed_over"][0]["reason"]) == ("safe_default", "late")
    let_go.set()
    failed = told(ask(routes, "POST", path, {"label": "static", "deadline_s": 30}))
    assert (failed["step"], failed["passed_over"][0]["reason"]) == ("safe_default", "failed")
    assert "the disk is gone" in failed["passed_over"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, "body"),
        ({"mode": "party"}, 422, "mode"),
        ({"mode": "normal", "preference": {"latency": 1}}, 422, "mode"),
        ({"preference": {"speed": 1}}, 422, "preference"),
        ({"preference": {"latency": "1"}}, 422, "preference.latency"),
        ({"preference": {"latency": True}}, 422, "preference.latency"),
        ({"preference": {"latency": -1}}, 422, "preference.latency"),
        ({"preference": {}}, 422, "preference"),
        ({"preference": []}, 422, "preference"),
        ({"method": "guess"}, 422, "method"),
        ({"label": "ghost"}, 404, "label"),
        ({"label": "../x"}, 422, "label"),
        ({"deadline_s": 0}, 422, "deadline_s"),
        ({"deadline_s": "1"}, 422, "deadline_s"),
        ({"context": {"load": 1}}, 422, "context"),
        ({"rules": RULES, "context": {"speed": 1}}, 422, None),
        ({"rules": {"version": 1, "rules": 3}}, 422, "rules.rules"),
        ({"rules": {**RULES, "rules": [{"name": "x", "require": "speed < 3"}]}}, 422, None),
        ({"weights": {}}, 422, "weights"),
        ({"scenario": "network5g"}, 422, "scenario"),
        ([], 422, "body"),
    ],
    ids=str,
)
def test_a_bad_request_names_its_field_and_never_falls_back(
    body: Any, status: int, field: str | None, empty: Settings, tmp_path: Path
) -> None:
    write_front_file(empty.home, scenario_front(4), "static")
    document = told(ask(routes_of(empty, tmp_path), "POST", "/api/v1/fronts/network5g/resolve", body), status)
    assert document["detail"]
    if field is not None:
        assert document["field"] == field


def test_resolve_needs_a_scenario(empty: Settings, tmp_path: Path) -> None:
    routes = routes_of(empty, tmp_path)
    assert told(ask(routes, "POST", "/api/v1/resolve", {}), 422)["field"] == "scenario"
    assert told(ask(routes, "POST", "/api/v1/resolve", {"scenario": "../x"}), 422)["field"] == "scenario"
    assert told(ask(routes, "POST", "/api/v1/resolve", {"scenario": "ghost", "preference": {"a": 1}}), 404)["field"]
    assert ask(routes, "GET", "/api/v1/resolve").status == 405
