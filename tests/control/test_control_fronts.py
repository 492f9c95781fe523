"""Fronts over HTTP without Ray: a real registry, real files, real scenarios."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.front_kit import MODES, front_of, network_front

from rlaas.control.front_routes import FrontRoutes
from rlaas.control.fronts import FrontService, timed_fronts
from rlaas.control.mode_choice import requested_mode
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.decisions import resolve
from rlaas.decisions.elicitation import Elicitation
from rlaas.decisions.fallback import Answer
from rlaas.errors import InvalidInputError, OperatorError
from rlaas.fronts import Front
from rlaas.objectives import Mode
from rlaas.registry import Registry
from rlaas.registry.fronts import FrontStore
from rlaas.scenarios import load
from rlaas.serving.web import ControlReply, ControlRequest
from rlaas.settings import Settings, load_settings


class Operations:
    """The processes around Control, which fronts have nothing to do with."""

    def scale(self, replicas: int) -> None:
        raise AssertionError(replicas)

    def lake_status(self) -> dict[str, Any]:
        raise AssertionError

    def flush_lake(self) -> dict[str, Any]:
        raise AssertionError


def scenario_front(count: int = 30, *, seed: int = 0, lacking: bool = False) -> Front:
    """A front of the 5G scenario; ``lacking``: nobody serves the users well enough for the modes' rules."""
    scenario = load("network5g")
    rng = np.random.default_rng(seed)
    goodness = np.abs(rng.normal(size=(count, 4)))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    if lacking:
        goodness[:, 3] = -0.5
    return front_of(scenario.objectives, goodness, rng, [f"member-{seed}-{i}" for i in range(count)], scenario.name)


def write(settings: Settings, front: Front, label: str) -> Path:
    folder = settings.home / "fronts"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{front.scenario}-{label}.json"
    file.write_text(json.dumps(front.to_dict()))
    return file


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A registry in which the champion and the candidate of a scenario have fronts, and one version has none."""
    root = tmp_path_factory.mktemp("fronts")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for alias, seed in (("champion", 1), ("candidate", 2)):
        documents = {"front.json": network_front(8, seed=seed).to_dict()}
        registry.register("network", policy_bundle(root / alias, seed=seed), documents=documents, alias=alias)
    registry.register("plain", policy_bundle(root / "plain"))
    write(settings, network_front(5, seed=3), "static")
    write(settings, network_front(4, seed=4, scenario="network-b"), "static")
    return settings


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in which nothing is registered; making one takes seconds."""
    settings = load_settings(home=tmp_path_factory.mktemp("blank") / "home")
    assert Registry(settings).names() == []
    return settings.home


@pytest.fixture
def empty(blank: Path, tmp_path: Path) -> Settings:
    shutil.copytree(blank, tmp_path / "home")
    return load_settings(home=tmp_path / "home")


def routes_of(settings: Settings, tmp_path: Path, **more: Any) -> ControlRoutes:
    control = ControlService(settings.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))
    registry = Registry(settings)
    registry.names()  # as Control's is by then: waking it takes longer than an answer may
    fronts = FrontService(FrontStore(registry), settings.home, **more)
    return ControlRoutes(control, Operations(), fronts)


def ask(routes: ControlRoutes, method: str, path: str, body: Any = None, **headers: str) -> ControlReply:
    path, _, query = path.partition("?")
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    pairs = dict(part.split("=", 1) for part in query.split("&") if part)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return routes.dispatch(ControlRequest("default", method, path, pairs, names, content))


def told(reply: ControlReply, status: int = 200) -> dict[str, Any]:
    assert reply.status == status, reply.body
    document: dict[str, Any] = json.loads(reply.body)
    return document


# --- finding -----------------------------------------------------------------------------------------------------


def test_fronts_are_listed_in_pages(registered: Settings, tmp_path: Path) -> None:
    routes = routes_of(registered, tmp_path)
    items: list[dict[str, Any]] = []
    token = ""
    while True:
        page = told(ask(routes, "GET", f"/api/v1/fronts?page_size=3{token}"))
        items += page["items"]
        if page["next_page_token"] is None:
            break
        token = f"&page_token={page['next_page_token']}"
        assert len(items) < 10
    assert [(i["scenario"], i["label"], i["source"], i["candidates"]) for i in items] == [
        ("network", "candidate", "registry", 8),
        ("network", "champion", "registry", 8),
        ("network", "static", "file", 5),
        ("network-b", "static", "file", 4),
    ]
    assert told(ask(routes, "GET", "/api/v1/fronts?page_token=x"), 422)["field"] == "page_token"


def test_a_front_is_the_champions_unless_a_label_says_otherwise(registered: Settings, tmp_path: Path) -> None:
    routes = routes_of(registered, tmp_path)
    for query, seed, count in (
        ("", 1, 8),
        ("?label=champion", 1, 8),
        ("?label=candidate", 2, 8),
        ("?label=static", 3, 5),
    ):
        reply = ask(routes, "GET", f"/api/v1/fronts/network{query}")
        document = told(reply)
        expected = network_front(count, seed=seed)
        assert Front.from_dict(document) == expected
        assert reply.headers["ETag"] == f'"{expected.version}"'
        assert document["version"] == expected.version
    assert told(ask(routes, "GET", "/api/v1/fronts/network-b"))["label"] == "static"
    assert ask(routes, "HEAD", "/api/v1/fronts/network").status == 200


def test_a_known_version_is_not_sent_again(registered: Settings, tmp_path: Path) -> None:
    routes = routes_of(registered, tmp_path)
    tag = ask(routes, "GET", "/api/v1/fronts/network").headers["ETag"]
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        reply = ask(routes, "GET", "/api/v1/fronts/network", if_none_match=header)
        assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", tag)
    for header in ('"other"', tag.strip('"'), ""):
        assert ask(routes, "GET", "/api/v1/fronts/network", if_none_match=header).status == 200


@pytest.mark.parametrize(
    ("path", "status", "field", "expected"),
    [
        ("/api/v1/fronts/network?label=ghost", 404, "label", "no front 'ghost'; allowed: candidate, champion, static"),
        ("/api/v1/fronts/plain", 404, "scenario", "scenario 'plain' has no front; allowed: (none)"),
        ("/api/v1/fronts/ghost", 404, "scenario", "allowed: (none)"),
        ("/api/v1/fronts/..%2F..", 422, "scenario", "is not a plain name"),
        ("/api/v1/fronts/../secrets", 422, "scenario", "is not a plain name"),
        ("/api/v1/fronts/network?label=../x", 422, "label", "is not a plain name"),
        ("/api/v1/fronts/network?version=1", 422, "version", "unknown parameter 'version'; allowed: label"),
    ],
)
def test_what_is_not_there_is_named(
    registered: Settings, tmp_path: Path, path: str, status: int, field: str, expected: str
) -> None:
    document = told(ask(routes_of(registered, tmp_path), "GET", path), status)
    assert document["field"] == field
    assert expected in document["detail"]


def test_a_damaged_file_is_the_operators_and_hides_no_other(empty: Settings, tmp_path: Path) -> None:
    write(empty, network_front(3), "good")
    write(empty, network_front(3), "bad").write_text("{")
    routes = routes_of(empty, tmp_path)
    document = told(ask(routes, "GET", "/api/v1/fronts/network?label=bad"), 500)
    assert "fronts/network-bad.json is not JSON" in document["detail"]
    assert str(tmp_path) not in document["detail"]
    assert [i["label"] for i in told(ask(routes, "GET", "/api/v1/fronts"))["items"]] == ["good"]
    assert told(ask(routes, "GET", "/api/v1/fronts/network?label=good"))["label"] == "good"


def test_a_file_under_another_scenarios_name_is_refused(empty: Settings) -> None:
    write(empty, network_front(3), "x").rename(empty.home / "fronts" / "other-x.json")
    with pytest.raises(OperatorError, match=r"fronts/other-x.json holds a front of 'network'"):
        FrontStore(Registry(empty)).find("other", "x")


# --- choosing ----------------------------------------------------------------------------------------------------


def test_a_mode_is_resolved_as_by_the_library_and_says_its_step(empty: Settings, tmp_path: Path) -> None:
    front, scenario = scenario_front(), load("network5g")
    write(empty, front, "static")
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
    write(empty, front, "static")
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
    write(empty, front, "static")
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
    file = write(empty, good, "static")
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
    write(empty, front, "static")
    write(empty, scenario_front(seed=9, lacking=True), "unfit")
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


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, "body"),
        ({"mode": "party"}, 422, "mode"),
        ({"mode": "normal", "preference": {"latency": 1}}, 422, "mode"),
        ({"preference": {"speed": 1}}, 422, "preference objective"),
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
    write(empty, scenario_front(4), "static")
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


# --- asking ------------------------------------------------------------------------------------------------------


def test_questions_go_on_from_the_answers_that_are_sent(registered: Settings, tmp_path: Path) -> None:
    routes = routes_of(registered, tmp_path)
    state, answers = Elicitation(network_front(8, seed=1)), []
    version = None
    while True:
        body = {"answers": answers, **({"front_version": version} if version else {})}
        document = told(ask(routes, "POST", "/api/v1/fronts/network/elicit", body))
        version = document["front_version"]
        assert {key: document[key] for key in state.summary()} == json.loads(json.dumps(state.summary()))
        if document["done"]:
            break
        answers.append("a")
        state = state.answer("a")
    assert answers
    assert document["question"] is None
    assert sum(document["preference"].values()) == pytest.approx(1.0)
    assert told(ask(routes, "POST", "/api/v1/fronts/network/elicit", {"answers": [*answers, "a"]}), 409)
    wrong = {"answers": answers, "front_version": "older"}
    assert told(ask(routes, "POST", "/api/v1/fronts/network/elicit", wrong), 409)["field"] == "front_version"
    assert told(ask(routes, "POST", "/api/v1/fronts/network/elicit", {"answers": ["c"]}), 422)["field"] == "answers.0"


# --- modes -------------------------------------------------------------------------------------------------------


def test_weights_go_before_rules_and_rules_before_a_name() -> None:
    objectives = network_front(3).objectives

    def name(**given: Any) -> str:
        return requested_mode(objectives, MODES, **given).name

    assert name(preference={"latency": 1}, by_rules="emergency", primary="normal") == "preference"
    assert name(mode="normal", by_rules="emergency") == "emergency"
    assert name(mode="energy_saving", primary="normal") == "energy_saving"
    assert name(primary="normal") == "normal"
    with pytest.raises(InvalidInputError, match="unknown mode 'party'"):
        name(mode="party", by_rules="emergency")


def test_without_fronts_the_routes_are_not_there(empty: Settings, tmp_path: Path) -> None:
    control = ControlService(empty.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))
    assert ask(ControlRoutes(control, Operations()), "GET", "/api/v1/fronts").status == 404
    paths = {pattern for _, pattern, _ in FrontRoutes(FrontService(FrontStore(Registry(empty)), empty.home)).table()}
    assert all(path.startswith(("/api/v1/fronts", "/api/v1/resolve")) for path in paths)
