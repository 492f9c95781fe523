"""Fronts over HTTP without Ray: a real registry, real files, real scenarios."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.front_kit import MODES, NoOperations, network_front, write_front_file
from support.front_routes_kit import ask, routes_of, told

from rlaas.control.front_routes import FrontRoutes
from rlaas.control.fronts import FrontService
from rlaas.control.mode_choice import requested_mode
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.decisions.elicitation import Elicitation
from rlaas.errors import InvalidInputError, OperatorError
from rlaas.fronts import Front
from rlaas.registry import Registry
from rlaas.registry.fronts import FrontStore
from rlaas.settings import Settings

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
        assert reply.headers["ETag"].startswith('"')
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
        ("/api/v1/fronts/plain", 404, "scenario", "scenario 'plain' has no front; rlaas optimize searches one"),
        ("/api/v1/fronts/ghost", 404, "scenario", "has no front; rlaas optimize searches one"),
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
    write_front_file(empty.home, network_front(3), "good")
    write_front_file(empty.home, network_front(3), "bad").write_text("{")
    routes = routes_of(empty, tmp_path)
    document = told(ask(routes, "GET", "/api/v1/fronts/network?label=bad"), 500)
    assert "fronts/network-bad.json is not JSON" in document["detail"]
    assert str(tmp_path) not in document["detail"]
    assert [i["label"] for i in told(ask(routes, "GET", "/api/v1/fronts"))["items"]] == ["good"]
    assert told(ask(routes, "GET", "/api/v1/fronts/network?label=good"))["label"] == "good"


def test_a_file_under_another_scenarios_name_is_refused(empty: Settings) -> None:
    write_front_file(empty.home, network_front(3), "x").rename(empty.home / "fronts" / "other-x.json")
    with pytest.raises(OperatorError, match=r"fronts/other-x.json holds a front of 'network'"):
        FrontStore(Registry(empty)).find("other", "x")


def test_what_is_listed_can_be_fetched(empty: Settings, tmp_path: Path) -> None:
    write_front_file(empty.home, network_front(4), "x").rename(empty.home / "fronts" / "foo.json")
    write_front_file(empty.home, network_front(3), "static")
    write_front_file(empty.home, network_front(5), "champion")
    items = told(ask(routes_of(empty, tmp_path), "GET", "/api/v1/fronts"))["items"]
    assert [(item["label"], item["candidates"]) for item in items] == [("static", 3)]
    store = FrontStore(Registry(empty))
    assert store.labels("network") == ["static"]
    assert store.find("network").label == "static"
    assert [problem.where for problem in store.all()[1]] == ["fronts/foo.json", "fronts/network-champion.json"]
    assert all("network-<label>.json" in problem.error.message for problem in store.all()[1])


def test_a_file_of_a_scenario_whose_name_goes_on_is_not_there_for_the_shorter(empty: Settings, tmp_path: Path) -> None:
    write_front_file(empty.home, network_front(3), "static")
    write_front_file(empty.home, network_front(3, scenario="network-b"), "static")
    routes = routes_of(empty, tmp_path)
    document = told(ask(routes, "GET", "/api/v1/fronts/network?label=b-static"), 404)
    assert "no front 'b-static'; allowed: static" in document["detail"]
    assert told(ask(routes, "GET", "/api/v1/fronts/network-b?label=static"))["scenario"] == "network-b"


def test_the_tag_changes_with_anything_in_the_body(empty: Settings, tmp_path: Path) -> None:
    first = write_front_file(empty.home, network_front(3), "one")
    write_front_file(empty.home, network_front(3), "two")
    routes = routes_of(empty, tmp_path)

    def tag(label: str) -> str:
        return ask(routes, "GET", f"/api/v1/fronts/network?label={label}").headers["ETag"]

    one = tag("one")
    assert tag("one") == one != tag("two")
    os.utime(first, (1_000_000_000, 1_000_000_000))
    reply = ask(routes, "GET", "/api/v1/fronts/network?label=one", if_none_match=one)
    assert told(reply)["updated_us"] == 1_000_000_000_000_000
    assert told(reply)["version"] == network_front(3).version


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
    assert ask(ControlRoutes(control, NoOperations()), "GET", "/api/v1/fronts").status == 404
    paths = {pattern for _, pattern, _ in FrontRoutes(FrontService(FrontStore(Registry(empty)), empty.home)).table()}
    assert all(path.startswith(("/api/v1/fronts", "/api/v1/resolve")) for path in paths)
