"""Experiments that share a layer across policies, and what becomes of the units that one does not take in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from support.adaptive_site import Site
from support.control_kit import home_with
from support.experiment_kit import START_US, Traffic, World, decided, document, reported
from support.serving_kit import make_bench

from rlaas.control.experiments import ExperimentService, parse_document
from rlaas.control.experiments.layer_book import LayerBook
from rlaas.control.service import ControlService
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.experiments.layers import diverter
from rlaas.lake import Lake
from rlaas.lake.records import DecisionRecord
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.registry import Registry
from rlaas.serving.loaded import HELD_OUT
from rlaas.settings import Settings

GERMAN = {"attribute": "country", "operator": "equals", "value": "de"}
SECOND = 1_000_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    versions = [{"seed": 1}, {"seed": 2}]
    return home_with(tmp_path_factory.mktemp("layers"), {"toy": versions, "other": versions})


@pytest.fixture
def service(home: Settings, tmp_path: Path) -> ExperimentService:
    control = ControlService(home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))
    control.adopt_champions()
    return ExperimentService(control, "default", Lake(tmp_path / "lake"))


def placed(id_: str, policy: str, share: float, holdout: float | None = None, **more: Any) -> Any:
    place = {"layer": "ranking", "share": share, "holdout": holdout}
    return parse_document(document(id=id_, policy=policy, placement=place, **more))


def spec(service: ExperimentService, policy: str) -> Any:
    record, _ = service._control.status(policy)
    assert record.experiment is not None
    return record.experiment


def test_targeting_and_placement_are_served(service: ExperimentService) -> None:
    made = service.create(placed("exp", "toy", 0.3, targeting=GERMAN))
    assert made["placement"] == {"layer": "ranking", "share": 0.3, "holdout": 0.0}
    served = spec(service, "toy")
    assert served.targeting.model_dump() == GERMAN
    assert served.placement.model_dump() == {
        "layer": "ranking",
        "salt": "ranking",
        "buckets": ((0, 3000),),
        "holdout": (),
    }
    service.create(placed("second", "other", 0.7))
    assert spec(service, "other").placement.buckets == ((3000, 10_000),)
    # Without either nothing is asked of a unit.
    service.stop("second", "none", reason="enough")
    service.create(parse_document(document(id="third", policy="other")))
    assert not spec(service, "other").selective


def test_a_layer_is_given_out_once_and_comes_back(service: ExperimentService) -> None:
    service.create(placed("exp", "toy", 0.6))
    with pytest.raises(ConflictError, match=r"at most 0.4 can be had; running there: exp 0.6") as refused:
        service.create(placed("second", "other", 0.5))
    assert refused.value.field == "placement"
    with pytest.raises(NotFoundError):
        service.get("second")
    with pytest.raises(ConflictError) as refused:
        service.create(parse_document(document(id="whole", policy="other", layer="ranking")))
    assert refused.value.field == "layer"
    service.create(placed("second", "other", 0.4))
    service.stop("exp", "keep", reason="enough")
    service.create(placed("third", "toy", 0.2))
    assert spec(service, "toy").placement.buckets == ((0, 2000),)
    assert spec(service, "other").placement.buckets == ((6000, 10_000),)
    service.stop("second", "keep", reason="enough")
    service.stop("third", "keep", reason="enough")
    service.create(parse_document(document(id="whole", policy="other", layer="ranking")))
    assert spec(service, "other").placement is None
    with pytest.raises(ConflictError, match="0 are free"):
        service.create(placed("fourth", "toy", 0.0001))


def test_one_policy_has_one_experiment_whatever_the_layer_has_left(service: ExperimentService) -> None:
    service.create(placed("exp", "toy", 0.1))
    with pytest.raises(ConflictError) as refused:
        service.create(placed("second", "toy", 0.1))
    assert refused.value.field == "policy"


def test_a_control_that_was_killed_leaves_no_bucket_behind(
    service: ExperimentService, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(service._control, "create_deployment", dies)
        with pytest.raises(Killed):
            service.create(placed("exp", "toy", 1.0))
    with pytest.raises(ConflictError):
        service.create(placed("second", "other", 0.5))
    assert service.recover() == ["exp"]
    service.create(placed("second", "other", 1.0))
    assert spec(service, "other").placement.buckets == ((0, 10_000),)


def test_two_controls_never_give_out_a_bucket_twice(tmp_path: Path) -> None:
    names = [f"e{i}" for i in range(8)]
    database = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    books = [LayerBook(database, "default", lambda: set(names)) for _ in range(2)]
    first, second = books
    real, turn = second._write, iter([True])

    def overtaken(layer: Any, revision: int) -> bool:
        if next(turn, False):  # between its look and its write the other has taken something
            first.take(placed("e0", "toy", 0.25))
        return real(layer, revision)

    second._write = overtaken  # type: ignore[method-assign]
    found = [second.take(placed("e1", "toy", 0.25)), first.take(placed("e0", "toy", 0.25))]
    assert [one["buckets"] for one in found if one] == [[[2500, 5000]], [[0, 2500]]]
    assert [(one.name, one.share) for one in first.layer("ranking").experiments] == [("e0", 0.25), ("e1", 0.25)]
    assert LayerBook(database, "another", lambda: set(names)).layer("ranking").experiments == ()


@pytest.mark.parametrize("field", ["targeting", "placement"])
def test_who_changes_its_audience_by_hand_disturbs_it(service: ExperimentService, field: str) -> None:
    service.create(placed("exp", "toy", 0.5, targeting=GERMAN))
    record, _ = service._control.status("toy")
    assert service.analyse("exp")["recommendation"]["action"] == "keep running"
    changed = record.model_dump(mode="json")
    service._control.create_deployment("toy", changed["variants"], {**changed["experiment"], field: None})
    assert service.analyse("exp")["recommendation"]["words"] == "stop: disturbed"


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"layer": "a", "placement": {"layer": "b", "share": 0.5}}, "experiment", "exclude each other"),
        ({"placement": {"layer": "b", "share": 0}}, "placement.share", "> 0"),
        ({"placement": {"layer": "b", "share": 1.5}}, "placement.share", "<= 1"),
        ({"placement": {"layer": "b"}}, "placement.share", "missing"),
        ({"placement": {"layer": "a/b", "share": 0.5}}, "placement.layer", "plain name"),
    ],
)
def test_a_wrong_placement_names_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_document(document(**changes))
    assert (refused.value.field, words in refused.value.message) == (field, True)


def test_units_outside_the_experiment_change_nothing_in_its_figures(tmp_path: Path) -> None:
    alone, beside = World(tmp_path / "alone"), World(tmp_path / "beside")
    traffic = Traffic(alone.parsed, 7, lift=1.0)
    traffic.make(500)
    alone.commit(traffic.decisions, traffic.outcomes)
    others = [
        replace(
            decided(alone.parsed, f"x{i}", START_US + i * SECOND, "A", 1.0, unit=f"x{i}"),
            experiment=None,
            variant="outside",
        )
        for i in range(300)
    ]
    # One that is outside now was inside before: only what it decided as a member counts.
    unit = traffic.decisions[0].unit
    others.append(replace(others[0], decision_id="again", receipt_id="again", unit=unit))
    wild = [
        reported(one.decision_id, one.time_us + SECOND, one.time_us + SECOND, {"throughput": 1e6}) for one in others
    ]
    beside.commit([*traffic.decisions, *others], [*traffic.outcomes, *wild])
    assert beside.run(traffic.end_us) == alone.run(traffic.end_us)


def test_what_a_gateway_logs_of_a_placed_and_targeted_experiment_is_what_is_analysed(
    service: ExperimentService, home: Settings, tmp_path: Path
) -> None:
    service.create(placed("exp", "toy", 0.5, targeting=GERMAN, start_us=None))
    record, _ = service._control.status("toy")
    registry = Registry(home)
    bench = make_bench(tmp_path, {("toy", v): registry.path("toy", v) for v in (1, 2)}, record)
    countries = {f"u{i}": "de" if i % 4 else "fr" for i in range(300)}
    answers = {
        unit: bench.decide("toy", observation=[0.1, -0.5, 2.0], unit=unit, context={"country": country})
        for unit, country in countries.items()
    }
    rows = [
        {"outcome_id": f"o-{unit}", "decision_id": one["decision_id"], "outcome": {"throughput": 1.0}}
        for unit, one in answers.items()
    ]
    bench.report({"outcomes": rows})
    lake = Lake(tmp_path / "lake")
    lake.append_once("bronze.decisions", {"kit": [(1, lambda: decision_rows(bench.logged_decisions()))]})
    lake.append_once("bronze.outcomes", {"kit": [(1, lambda: outcome_rows(bench.logged_outcomes()))]})
    later = max(one.time_us for one in bench.logged_decisions()) + 3_600 * SECOND
    page = service.analyse("exp", now_us=later)
    diverted = diverter("ranking", [(0, 5000)])
    members = {unit for unit, country in countries.items() if country == "de" and diverted(unit)}
    assert members == {unit for unit, one in answers.items() if one["experiment"] == "exp"}
    assert sum(page["exposure"]["units"].values()) == len(members)
    assert sum(page["metrics"]["revenue"]["units"].values()) == len(members)
    assert not page["split"]["alarm"]
    assert page["split"]["crossed_units"] == 0


def test_a_layer_has_the_holdout_of_its_first_experiment_for_as_long_as_any_runs(service: ExperimentService) -> None:
    made = service.create(placed("exp", "toy", 0.3, holdout=0.1))
    assert made["placement"] == {"layer": "ranking", "share": 0.3, "holdout": 0.1}
    assert spec(service, "toy").placement.holdout == ((9000, 10_000),)
    with pytest.raises(ConflictError, match=r"a holdout of 0.1 for as long as exp runs there") as refused:
        service.create(placed("second", "other", 0.2, holdout=0.2))
    assert refused.value.field == "placement.holdout"
    with pytest.raises(ConflictError, match=r"at most 0.6 can be had"):
        service.create(placed("second", "other", 0.65))
    # Who asks for none has the one there is.
    assert service.create(placed("second", "other", 0.6))["placement"]["holdout"] == 0.1
    assert spec(service, "other").placement.holdout == ((9000, 10_000),)
    assert service.analyse("second")["recommendation"]["action"] == "keep running"
    for id_ in ("exp", "second"):
        service.stop(id_, "keep", reason="enough")
    # A layer held as a whole leaves its holdout alone; another one may be had once nobody is there.
    whole = service.create(parse_document(document(id="whole", policy="other", layer="ranking")))
    assert (whole["layer"], whole["placement"]["share"]) == (None, 0.9)
    service.stop("whole", "keep", reason="enough")
    assert service.create(placed("third", "toy", 1.0, holdout=0.0))["placement"]["holdout"] == 0.0
    assert spec(service, "toy").placement.holdout == ()


@pytest.mark.parametrize("seed", range(5))
def test_the_layers_effect_against_its_holdout_is_on_the_page(home: Settings, tmp_path: Path, seed: int) -> None:
    site, rng = Site(home, tmp_path), np.random.default_rng(seed)
    metric = {"kind": "mean", "name": "revenue", "value": "throughput", "window_s": 60.0}
    rule = {"kind": "sequential", "planned": 300, "start": 100}
    site.service.create(placed("exp", "toy", 0.5, holdout=0.3, primary=metric, stopping=rule))

    def value(one: DecisionRecord) -> dict[str, float]:
        return {"throughput": float(rng.normal(3.0 if one.variant == "B" else 1.0, 0.5))}

    units = [f"{seed}-{i}" for i in range(900)]
    decided = site.serve(units, value)
    # A second visit is to the same side.
    site.serve(units[:100], value)
    page = site.service.analyse("exp", now_us=site.clock.now_us)
    held = [one for one in decided if one.variant == HELD_OUT]
    assert abs(len(held) - 270) < 5 * (900 * 0.3 * 0.7) ** 0.5
    assert {(one.version, one.experiment, one.variant_propensity) for one in held} == {(1, None, 1.0)}
    assert sum(page["exposure"]["units"].values()) == sum(one.experiment == "exp" for one in decided)
    layer = page["layer"]
    assert (layer["layer"], layer["holdout"]) == ("ranking", 0.3)
    assert layer["exposure"]["units"] == {HELD_OUT: len(held), "layer": 900 - len(held)}
    assert (layer["split"]["alarm"], layer["split"]["crossed_units"]) == (False, 0)
    lift = layer["metrics"]["revenue"]["treatments"]["layer"]
    truth = 2 * sum(one.variant == "B" for one in decided) / (900 - len(held))
    assert lift["always_valid"]["low"] < truth < lift["always_valid"]["high"]
    assert lift["estimate"] == pytest.approx(truth, abs=0.25)
    # What the next run takes in is new, and another Control goes on.
    site.serve([f"{seed}-new-{i}" for i in range(100)], value)
    again = site.restarted().analyse("exp", now_us=site.clock.now_us)["layer"]
    assert sum(again["exposure"]["units"].values()) == 1_000
    site.service.stop("exp", "keep", reason="enough")


def test_an_experiment_without_a_holdout_in_its_layer_has_no_such_part(service: ExperimentService) -> None:
    service.create(placed("exp", "toy", 0.3))
    assert service.analyse("exp")["layer"] is None
