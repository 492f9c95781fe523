"""Experiments over the routes of the control plane, with a real registry, state database and lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.control_kit import Routes, control_over, home_with
from support.experiment_kit import Traffic, document

from rlaas.control.experiments import AnalysisLoop, ExperimentService, parse_document
from rlaas.errors import InvalidInputError
from rlaas.lake import Lake
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.settings import Settings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    policies = {"toy": [{"seed": 1}, {"seed": 2}], "other": [{"seed": 3}, {"seed": 4}]}
    return home_with(tmp_path_factory.mktemp("experiments"), policies)


class Api(Routes):
    """Asks the routes of a Control; another one is what a restart gives."""

    def __init__(self, home: Settings, folder: Path) -> None:
        self.control = control_over(home, folder)
        self.lake = Lake(folder / "lake")
        self.service = ExperimentService(self.control, "default", self.lake)
        super().__init__(self.control, self.service)

    @property
    def shares(self) -> dict[str, tuple[int, float]]:
        """Version and share by variant of what is live."""
        record, _ = self.control.status("toy")
        return {one.name: (one.version, one.weight) for one in record.variants}


@pytest.fixture
def api(home: Settings, tmp_path: Path) -> Api:
    return Api(home, tmp_path)


def test_from_creation_to_the_winner_being_served(api: Api, home: Settings, tmp_path: Path) -> None:
    assert api.shares == {"champion": (1, 1.0)}
    given = document(holdout=0.2)
    status, made = api("POST", "experiments", given, idempotency_key="k")
    assert status == 201
    assert made["state"] == "running"
    assert [event["kind"] for event in made["history"]] == ["created", "started"]
    assert api.shares == {"A": (1, 0.4), "B": (2, 0.4), "holdout": (1, 0.2)}
    record, _ = api.control.status("toy")
    assert record.experiment is not None
    assert (record.experiment.name, record.experiment.salt) == ("exp", "exp")
    assert api("POST", "experiments", given, idempotency_key="k") == (201, made)
    traffic = Traffic(parse_document(given), 1, lift=2.0)
    traffic.make(1200)
    api.lake.append_once("bronze.decisions", {"kit": [(1, lambda: decision_rows(traffic.decisions))]})
    api.lake.append_once("bronze.outcomes", {"kit": [(1, lambda: outcome_rows(traffic.outcomes))]})
    AnalysisLoop(api.service).round()
    status, page = api("GET", "experiments/exp/result")
    assert status == 200
    assert page["recommendation"]["words"] == "ship B"
    # Another Control has the same.
    restarted = Api(home, tmp_path)
    assert restarted("GET", "experiments/exp/result") == (200, page)
    assert restarted("POST", "experiments/exp/analyse")[1]["metrics"] == page["metrics"]
    status, listed = restarted("GET", "experiments?page_size=1")
    assert [one["id"] for one in listed["items"]] == ["exp"]
    status, ended = restarted("POST", "experiments/exp/stop", {"decision": "ship", "reason": "it earns more"})
    assert status == 200
    assert ended["state"] == "stopped"
    assert ended["verdict"] == {"decision": "ship", "variant": "B", "reason": "it earns more", "actor": "operator"}
    assert [event["kind"] for event in ended["history"]] == ["created", "started", "stopping", "stopped"]
    assert restarted.shares == {"champion": (2, 1.0)}
    assert "champion" in api.control.registry.get("toy", 2).aliases
    status, refused = restarted("POST", "experiments/exp/stop", {"decision": "keep", "reason": "again"})
    assert (status, refused["field"]) == (409, "state")
    status, audit = restarted("GET", "experiments/exp/audit?page_size=5")
    assert len(audit["items"]) == 5
    assert audit["next_page_token"]
    restarted.control.promote("toy", 1)


@pytest.mark.parametrize(
    ("decision", "live"), [("keep", {"champion": (1, 1.0)}), ("none", {"x": (2, 3.0), "y": (1, 1.0)})]
)
def test_other_decisions_write_the_deployment_too(api: Api, decision: str, live: dict[str, Any]) -> None:
    variants = [{"name": "x", "version": 2, "weight": 3}, {"name": "y", "version": 1, "weight": 1}]
    api.control.create_deployment("toy", variants)
    assert api("POST", "experiments", document())[0] == 201
    assert api("POST", "experiments/exp/stop", {"decision": decision, "reason": "enough"})[0] == 200
    assert api.shares == live
    # What it held is free again; its id is not.
    status, refused = api("POST", "experiments", document())
    assert (status, refused["field"]) == (409, "id")
    assert api("POST", "experiments", document(id="next"))[0] == 201


def test_a_policy_and_a_layer_hold_one_experiment(api: Api) -> None:
    assert api("POST", "experiments", document(layer="ranking"))[0] == 201
    status, refused = api("POST", "experiments", document(id="second"))
    assert (status, refused["field"]) == (409, "policy")
    assert "'exp' is running in policy 'toy'" in refused["detail"]
    status, refused = api("POST", "experiments", document(id="second", policy="other", layer="ranking"))
    assert (status, refused["field"]) == (409, "layer")
    assert api("POST", "experiments", document(id="second", policy="other", layer="search"))[0] == 201
    assert len(api("GET", "experiments")[1]["items"]) == 2


def test_a_deployment_that_cannot_be_written_leaves_nothing(api: Api) -> None:
    before = api.shares
    status, refused = api("POST", "experiments", document(), if_match='"other.7"')
    assert (status, refused["field"]) == (409, "If-Match")
    assert api.shares == before
    assert api("GET", "experiments/exp")[0] == 404
    assert api("POST", "experiments", document())[0] == 201


def test_an_experiment_that_was_made_by_hand_is_not_replaced(api: Api) -> None:
    spec = {"name": "by-hand", "design": "user", "salt": "s"}
    variants = [{"name": "x", "version": 2, "weight": 1}, {"name": "y", "version": 1, "weight": 1}]
    api.control.create_deployment("toy", variants, spec)
    status, refused = api("POST", "experiments", document())
    assert (status, refused["field"]) == (409, "policy")


def test_a_deployment_that_somebody_else_changes_disturbs_it(api: Api) -> None:
    api("POST", "experiments", document())
    api.control.create_deployment("toy", [{"name": "champion", "version": 1, "weight": 1}])
    page = api("POST", "experiments/exp/analyse")[1]
    assert page["recommendation"]["words"] == "stop: disturbed"
    assert api("POST", "experiments/exp/stop", {"decision": "none", "reason": "disturbed"})[0] == 200
    assert api.shares == {"champion": (1, 1.0)}


@pytest.mark.parametrize("live", [True, False])
def test_what_a_killed_control_left_half_begun_is_taken_up_or_given_up(
    api: Api, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    class Killed(BaseException):
        pass

    real = api.control.create_deployment

    def dies(*arguments: Any, **options: Any) -> None:
        if live:
            real(*arguments, **options)
        raise Killed

    monkeypatch.setattr(api.control, "create_deployment", dies)
    with pytest.raises(Killed):
        api.service.create(parse_document(document()))
    restarted = Api(home, tmp_path)
    assert restarted.service.recover() == ["exp"]
    assert restarted("GET", "experiments/exp")[1]["state"] == ("running" if live else "failed")
    assert restarted("POST", "experiments", document(id="next"))[0] == (409 if live else 201)


def test_what_a_killed_control_left_half_stopped_is_finished(
    api: Api, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    api("POST", "experiments", document())
    monkeypatch.setattr(api.control, "promote", dies)
    with pytest.raises(Killed):
        api.service.stop("exp", "ship", reason="better")
    restarted = Api(home, tmp_path)
    restarted.service.recover()
    assert restarted("GET", "experiments/exp")[1]["state"] == "stopped"
    assert restarted.shares == {"champion": (2, 1.0)}
    restarted.control.promote("toy", 1)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"id": "a/b"}, "id", "plain name"),
        ({"variants": [{"name": "A", "version": 1}]}, "variants", "at least 2"),
        ({"variants": [{"name": "A", "version": 0}, {"name": "B", "version": 2}]}, "variants.0.version", ">= 1"),
        (
            {"variants": [{"name": "A", "version": 1}, {"name": "outside", "version": 2}]},
            "variants.1.name",
            "reserved: fallback, holdout, layer-holdout, outside, safe-default",
        ),
        ({"primary": {"kind": "mean", "name": "m", "window_s": 60}}, "primary.value", "missing"),
        ({"primary": {"kind": "mode", "name": "m"}}, "primary", "mean"),
        ({"stopping": {"kind": "sequential", "planned": 100}}, "stopping", "planned must be >= start (500)"),
        ({"stopping": {"kind": "fixed", "horizon": 10, "start": 3}}, "stopping.start", "unknown key"),
        ({"colour": 1}, "colour", "allowed: schema_version"),
        ({"design": "switchback"}, "experiment", "block_steps is needed"),
        ({"holdout": 1.5}, "holdout", "<= 0.9"),
        ({"targeting": {"attribute": "a", "operator": "like", "value": 1}}, "targeting.operator", "equals"),
    ],
)
def test_a_wrong_document_names_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_document(document(**changes))
    assert refused.value.field == field
    assert words in refused.value.message


def test_values_and_versions_that_are_not_there_are_named(api: Api) -> None:
    assert api("POST", "experiments", document(colour=1))[1]["field"] == "colour"
    metric = {"kind": "mean", "name": "m", "value": "clicks", "window_s": 60}
    status, refused = api("POST", "experiments", document(primary=metric))
    assert (status, refused["field"]) == (422, "metric.m")
    assert "allowed: latency, orders, throughput" in refused["detail"]
    variants = [{"name": "A", "version": 1}, {"name": "B", "version": 9}]
    assert api("POST", "experiments", document(variants=variants))[0] == 404
    for method, path in (("GET", "x"), ("GET", "x/result"), ("GET", "x/audit"), ("POST", "x/analyse")):
        assert api(method, f"experiments/{path}")[0] == 404
    assert api("GET", "experiments/a%20b")[1]["field"] == "experiment"
    api("POST", "experiments", document())
    for body, field in (
        ({"decision": "win", "reason": "r"}, "decision"),
        ({"decision": "ship", "variant": "A", "reason": "r"}, "variant"),
        ({"decision": "keep", "variant": "B", "reason": "r"}, "variant"),
        ({"decision": "keep"}, "reason"),
    ):
        status, refused = api("POST", "experiments/exp/stop", body)
        assert (status, refused["field"]) == (422, field)


def test_a_switchback_is_served_and_declared(api: Api) -> None:
    given = document(
        design="switchback", block_steps=10, washout_steps=2, stopping={"kind": "fixed", "horizon": 5}, id="blocks"
    )
    assert api("POST", "experiments", given)[0] == 201
    record, _ = api.control.status("toy")
    assert record.experiment is not None
    assert (record.experiment.design, record.experiment.block_steps) == ("switchback", 10)
    with pytest.raises(InvalidInputError, match="judged once"):
        parse_document({**given, "stopping": {"kind": "sequential", "planned": 1000}})
