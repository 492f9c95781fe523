"""Experiments that do not take in everyone: shares of a layer, and targeting by the context of a request."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.bundles import policy_bundle
from support.http_platform import shared_platform
from support.http_server import serving
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import InvalidInputError
from rlaas.experiments.assignment import assign_unit
from rlaas.experiments.conditional import ConditionalAssigner, ConditionalSpec
from rlaas.experiments.diversion import PlanAssigner
from rlaas.experiments.layers import BUCKETS, AllocationPlan, Layer, diverter
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.loaded import HELD_OUT, OUTSIDE

ROW = [0.1, -0.5, 2.0]
HALVES = [{"name": "A", "version": 1, "weight": 1}, {"name": "B", "version": 2, "weight": 1}]
GERMAN = {"attribute": "country", "operator": "equals", "value": "de"}
FIRST_HALF = {"layer": "ranking", "salt": "ranking", "buckets": [[0, 5000]]}
SECOND_HALF = {"layer": "ranking", "salt": "ranking", "buckets": [[5000, 10_000]]}


def record(policy: str = "toy", variants: Any = HALVES, generation: int = 1, **spec: Any) -> DeploymentRecord:
    experiment = {"name": f"try-{policy}", "design": "user", "salt": "s", **spec}
    return deployment(policy, variants, generation=generation, experiment=experiment)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("bundles")
    names = [(name, version) for name in ("toy", "other") for version in (1, 2)]
    return {(name, v): policy_bundle(root / f"{name}{v}", seed=v) for name, v in names}


@pytest.fixture
def bench(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> Bench:
    return make_bench(tmp_path, paths, record())


def ask(bench: Bench, unit: str, policy: str = "toy", **context: Any) -> dict[str, Any]:
    return bench.decide(policy, observation=ROW, unit=unit, context=context)


def ask_many(bench: Bench, units: list[str], policy: str = "toy", **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for first in range(0, len(units), 100):
        part = units[first : first + 100]
        found += bench.decide(policy, observations=[ROW] * len(part), unit=part, **body)["decisions"]
    return found


def test_units_that_are_not_targeted_get_the_control_and_are_no_part_of_it(bench: Bench) -> None:
    bench.switch(record(generation=2, targeting=GERMAN))
    inside = [ask(bench, f"u{i}", country="de") for i in range(40)]
    outside = [ask(bench, f"u{i}", country="fr") for i in range(40)] + [bench.decide("toy", observation=ROW)]
    assert Counter(a["variant"] for a in inside) == Counter(
        assign_unit(f"u{i}", "s", {"A": 0.5, "B": 0.5}).variant for i in range(40)
    )
    assert {(a["experiment"], a["variant_propensity"]) for a in inside} == {("try-toy", 0.5)}
    wanted = (OUTSIDE, 1, None, 1.0)
    assert {(a["variant"], a["version"], a["experiment"], a["variant_propensity"]) for a in outside} == {wanted}
    logged = bench.logged_decisions()
    assert [one.decision_id for one in logged] == [a["decision_id"] for a in inside + outside]
    assert {(o.variant, o.version, o.experiment, o.variant_propensity) for o in logged[40:]} == {wanted}
    assert [one.variant for one in logged[:40]] == [a["variant"] for a in inside]
    # What they report is taken like any other outcome.
    one = {"outcome_id": "o", "decision_id": outside[0]["decision_id"], "outcome": {"throughput": 1.0}}
    assert len(bench.report({"outcomes": [one]})) == 1


def test_narrowing_an_experiment_moves_no_unit_that_stays(bench: Bench) -> None:
    before = {f"u{i}": ask(bench, f"u{i}", country="de")["variant"] for i in range(200)}
    bench.switch(record(generation=2, targeting=GERMAN, placement=FIRST_HALF))
    after = {unit: ask(bench, unit, country="de")["variant"] for unit in before}
    assert {unit for unit, variant in after.items() if variant == OUTSIDE} == {
        unit for unit in before if not diverter("ranking", [(0, 5000)])(unit)
    }
    assert all(variant in (OUTSIDE, before[unit]) for unit, variant in after.items())
    assert 60 < sum(variant == OUTSIDE for variant in after.values()) < 140


def test_experiments_of_one_layer_on_two_policies_have_no_unit_in_common(bench: Bench) -> None:
    bench.switch(record(generation=2, placement=FIRST_HALF), record("other", placement=SECOND_HALF))
    members: Counter[tuple[str | None, ...]] = Counter()
    for i in range(200):
        answers = [ask(bench, f"u{i}", policy)["experiment"] for policy in ("toy", "other")]
        members[tuple(answers)] += 1
    assert set(members) == {("try-toy", None), (None, "try-other")}
    # Another layer's draw has nothing to do with this one's.
    bench.switch(record(generation=3, placement=FIRST_HALF | {"salt": "x"}), record("other", placement=SECOND_HALF))
    pairs = {tuple(ask(bench, f"u{i}", p)["experiment"] for p in ("toy", "other")) for i in range(200)}
    assert len(pairs) == 4


def test_rows_of_one_request_go_inside_and_outside_each_by_its_unit(bench: Bench) -> None:
    bench.switch(record(generation=2, placement=FIRST_HALF))
    units = [f"u{i}" for i in range(50)]
    found = bench.decide("toy", observations=[ROW] * 50, unit=units)["decisions"]
    fields = ("variant", "version", "experiment", "variant_propensity", "action")
    alone = [ask(bench, unit) for unit in units]
    assert [[one[f] for f in fields] for one in found] == [[one[f] for f in fields] for one in alone]
    assert {one["experiment"] for one in found} == {None, "try-toy"}
    logged = {one.decision_id: one.experiment for one in bench.logged_decisions()}
    assert [logged[d["decision_id"]] for d in found] == [d["experiment"] for d in found]
    # Without units each row is one of its own.
    several = bench.decide("toy", observations=[ROW] * 100)["decisions"]
    assert 20 < sum(one["experiment"] is None for one in several) < 80


def test_questions_decided_together_keep_their_places(bench: Bench) -> None:
    bench.switch(record(generation=2, targeting=GERMAN))
    bodies = [{"observation": ROW, "unit": f"u{i}", "context": {"country": "de" if i % 3 else "fr"}} for i in range(30)]
    questions = [bench.engine.read(PRINCIPAL, "toy", json.dumps(body).encode()) for body in bodies]
    answers = bench.engine.answer_together(questions)
    found = [json.loads(answer) for answer in answers if isinstance(answer, bytes)]
    assert [one["experiment"] for one in found] == ["try-toy" if i % 3 else None for i in range(30)]
    logged = {one.decision_id: one for one in bench.logged_decisions()}
    for body, one in zip(bodies, found, strict=True):
        kept = logged[one["decision_id"]]
        assert (kept.unit, kept.experiment, kept.variant) == (body["unit"], one["experiment"], one["variant"])


def test_a_variant_that_has_the_name_of_those_outside_is_still_itself(bench: Bench) -> None:
    named = [{"name": "A", "version": 1, "weight": 1}, {"name": OUTSIDE, "version": 2, "weight": 1}]
    bench.switch(record(variants=named, generation=2, placement=FIRST_HALF))
    units = [f"u{i}" for i in range(60)]
    found = bench.decide("toy", observations=[ROW] * 60, unit=units)["decisions"]
    seen = {(one["variant"], one["version"], one["experiment"]) for one in found}
    assert seen == {("A", 1, "try-toy"), (OUTSIDE, 2, "try-toy"), (OUTSIDE, 1, None)}


def test_who_has_all_the_weight_does_not_have_the_units_outside(bench: Bench) -> None:
    alone = [{"name": "A", "version": 1, "weight": 0}, {"name": "B", "version": 2, "weight": 1}]
    bench.switch(record(variants=alone, generation=2, targeting=GERMAN))
    assert not bench.engine.state.policy("toy").alone
    assert [ask(bench, "u", country=c)["version"] for c in ("de", "fr")] == [2, 1]
    bench.switch(record(variants=alone, generation=3))
    live = bench.engine.state.policy("toy")
    assert (live.alone, live.audience) == (True, None)


@pytest.mark.parametrize(
    ("variants", "spec", "words"),
    [
        (HALVES, {"design": "switchback", "block_steps": 5, "targeting": GERMAN}, "treats all alike"),
        (HALVES, {"design": "switchback", "block_steps": 5, "placement": FIRST_HALF}, "treats all alike"),
        (HALVES, {"placement": FIRST_HALF | {"buckets": [[0, 9], [8, 12]]}}, "overlap"),
        (HALVES, {"placement": FIRST_HALF | {"buckets": [[5, 5]]}}, "0 <= first < end <= 10000"),
        (HALVES, {"placement": FIRST_HALF | {"buckets": []}}, "at least 1"),
        (HALVES, {"placement": FIRST_HALF | {"layer": "a/b"}}, "plain name"),
        (HALVES, {"targeting": {"attribute": "a", "operator": "like", "value": 1}}, "equals"),
        (
            [{"name": "A", "version": 1, "weight": 0, "shadow": True}, HALVES[1]],
            {"targeting": GERMAN},
            "cannot be a shadow",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(variants: Any, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        record(variants=variants, **spec)


def test_a_record_comes_back_from_json_as_it_was() -> None:
    rule = {"all": [GERMAN, {"any": [{"attribute": "age", "operator": "in", "value": [1, 2.5, True, "x"]}]}]}
    one = record(targeting=rule, placement=FIRST_HALF)
    assert DeploymentRecord.model_validate_json(one.model_dump_json()) == one
    assert DeploymentRecord.model_validate(one.model_dump(mode="json")) == one


@settings(max_examples=60, deadline=None)
@given(
    unit=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    salt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
    cuts=st.sets(st.integers(0, BUCKETS), min_size=2, max_size=8),
)
def test_a_unit_is_diverted_where_the_plan_puts_it(unit: str, salt: str, cuts: set[int]) -> None:
    ends = sorted(cuts)
    spans = tuple(zip(ends[::2], ends[1::2], strict=False))
    digest = blake2b(f"layer:{len(salt)}:{salt}".encode() + unit.encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % BUCKETS
    expected = any(first <= bucket < end for first, end in spans)
    assert diverter(salt, spans)(unit) is expected
    member = {"name": "e", "salt": "v", "variants": [{"name": "A", "weight": 1}], "buckets": spans}
    layer = Layer.model_validate({"name": "l", "salt": salt, "experiments": [member]})
    assert bool(PlanAssigner(AllocationPlan(layers=(layer,))).assign(unit)) is expected


@pytest.mark.parametrize("seed", range(5))
def test_the_share_of_a_layer_and_the_split_within_it_are_as_declared(bench: Bench, seed: int) -> None:
    spans = [[100, 1100], [5000, 7000]]
    place = {"layer": "l", "salt": f"layer{seed}", "buckets": spans}
    weights = [{"name": "A", "version": 1, "weight": 3}, {"name": "B", "version": 2, "weight": 1}]
    bench.switch(record(variants=weights, generation=seed + 2, salt=f"s{seed}", placement=place))
    units = [f"{seed}-{i}" for i in range(4_000)]
    found = ask_many(bench, units)
    inside = [one for one in found if one["experiment"] is not None]
    # Five standard deviations of a binomial count.
    assert abs(len(inside) - 1_200) < 5 * (4_000 * 0.3 * 0.7) ** 0.5
    assert abs(sum(one["variant"] == "A" for one in inside) - 0.75 * len(inside)) < 5 * (len(inside) * 3 / 16) ** 0.5
    assert {(one["variant"], one["variant_propensity"]) for one in inside} == {("A", 0.75), ("B", 0.25)}


FEATURES = [
    {"source": "observation", "name": "x2", "index": 2, "scale": 2.0},
    {"source": "context", "name": "age", "center": 40.0, "scale": 10.0},
]


def conditional(slope: float = 1.0, **more: Any) -> dict[str, Any]:
    """Where ``x2`` is above 0 B is probably the better one, and below A."""
    eye = [[0.5 * (row == column) for column in range(3)] for row in range(3)]
    arms = [
        {"name": name, "location": [0.0, sign * slope, 0.1], "spread": eye, "degrees": 20.0}
        for name, sign in (("A", -1.0), ("B", 1.0))
    ]
    return {"features": FEATURES, "arms": arms, "minimum_share": 0.05, "draws": 512, "seed": 1, **more}


def by_mode(**more: Any) -> dict[str, Any]:
    """A has the better throughput, B the better latency."""
    eye = [[0.05, 0.0], [0.0, 0.05]]
    arms = [
        {"name": "A", "location": [0.2, 0.8], "spread": eye, "degrees": 20.0},
        {"name": "B", "location": [0.8, 0.3], "spread": eye, "degrees": 20.0},
    ]
    names = ["latency", "throughput"]
    return {"objectives": names, "arms": arms, "minimum_share": 0.05, "draws": 1000, "seed": 1, **more}


@pytest.fixture(scope="module")
def plain_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("plain")
    return {("toy", v): policy_bundle(root / f"toy{v}", seed=v, conditioned=False) for v in (1, 2)}


def test_the_variant_follows_the_context_with_the_exact_propensity(bench: Bench) -> None:
    bench.switch(record(generation=2, conditional=conditional()))
    assigner = ConditionalAssigner(ConditionalSpec.model_validate(conditional()), "s", {})
    seen: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for i in range(200):
        x2, age = (2.0 if i % 2 else -2.0), 30 + i % 20
        body = {"observation": [0.1, -0.5, x2], "unit": f"u{i}", "context": {"age": age}}
        found = bench.decide("toy", **body)
        wanted = assigner.assign(f"u{i}", np.array([x2, age], dtype=np.float32))
        assert (found["variant"], found["variant_propensity"]) == (wanted.variant, wanted.propensity)
        seen[bool(i % 2)][found["variant"]] += 1
        if i < 20:  # sticky, whoever answers
            again = bench.decide("toy", observations=[body["observation"]], unit=[f"u{i}"], context={"age": age})
            (row,) = again["decisions"]
            assert (row["variant"], row["variant_propensity"]) == (found["variant"], found["variant_propensity"])
    assert seen[True]["B"] > 80
    assert seen[False]["A"] > 80
    logged = bench.logged_decisions()[0]
    first = assigner.assign("u0", np.array([-2.0, 30], dtype=np.float32))
    assert (logged.variant, logged.variant_propensity) == (first.variant, first.propensity)


def test_a_request_without_a_feature_is_outside(bench: Bench) -> None:
    bench.switch(record(generation=2, conditional=conditional()))
    for context in (None, {}, {"age": "40"}, {"age": True}):
        found = bench.decide("toy", observation=ROW, unit="u", context=context)
        assert (found["variant"], found["experiment"], found["variant_propensity"]) == (OUTSIDE, None, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_mode_gets_its_variant_and_the_propensity_of_the_mode(
    tmp_path: Path, plain_paths: dict[tuple[str, int], Path], seed: int
) -> None:
    spec = by_mode(seed=seed)
    bench = make_bench(tmp_path, plain_paths, record(conditional=spec))
    assigner = ConditionalAssigner(ConditionalSpec.model_validate(spec), "s", {})
    asked: list[tuple[dict[str, Any], list[float]]] = [
        ({"mode": "emergency"}, [1.0, 0.0]),
        ({"mode": "normal"}, [0.5, 0.5]),
        ({"preference": {"throughput": 1.0}}, [0.0, 1.0]),
        ({}, [0.5, 0.5]),
    ]
    units = [f"u{i}" for i in range(300)]
    for body, weights in asked:
        x = np.array(weights, dtype=np.float32)
        shares = dict(zip(assigner.arms, assigner.shares(x), strict=True))
        found = ask_many(bench, units, **body)
        assert [one["variant"] for one in found] == [assigner.assign(unit, x).variant for unit in units]
        assert {(one["variant"], one["variant_propensity"]) for one in found} <= set(shares.items())
        count = sum(one["variant"] == "B" for one in found)
        assert abs(count - 300 * shares["B"]) < 4.5 * (300 * shares["B"] * shares["A"]) ** 0.5
        # Logged, though the policies do not act on it: it had a say in who answered.
        assert bench.logged_decisions()[-1].preference == {"latency": weights[0], "throughput": weights[1]}
    alone = bench.decide("toy", observation=ROW, unit="u1", mode="emergency")
    assert alone["variant"] == assigner.assign("u1", np.array([1.0, 0.0], dtype=np.float32)).variant
    with pytest.raises(InvalidInputError, match="mode"):
        bench.decide("toy", observation=ROW, mode="unheard-of")
    bench.switch(record(generation=2))
    bench.decide("toy", observation=ROW, mode="emergency")
    assert bench.logged_decisions()[-1].preference is None


@pytest.mark.parametrize(
    "wrong", [by_mode(objectives=["latency", "cost"]), conditional(features=[{**FEATURES[0], "index": 3}, FEATURES[1]])]
)
def test_a_posterior_that_does_not_fit_the_policy_is_not_loaded(bench: Bench, wrong: dict[str, Any]) -> None:
    assert "conditional" in bench.switch(record(generation=2, conditional=wrong))["dep-toy"]


@pytest.mark.parametrize("seed", range(5))
def test_a_layers_holdout_is_marked_in_every_policy_of_the_layer_and_in_no_experiment(bench: Bench, seed: int) -> None:
    held = {"layer": "ranking", "salt": f"layer{seed}", "holdout": [[9000, 10_000]]}
    bench.switch(
        record(generation=seed + 2, placement={**held, "buckets": [[0, 4000]]}, targeting=GERMAN),
        record("other", generation=seed + 2, placement={**held, "buckets": [[4000, 9000]]}),
    )
    units = [f"{seed}-{i}" for i in range(3_000)]
    kept: dict[str, set[str]] = {}
    for policy in ("toy", "other"):
        found = ask_many(bench, units, policy, context={"country": "fr"})
        kept[policy] = {unit for unit, one in zip(units, found, strict=True) if one["variant"] == HELD_OUT}
        marked = {
            (one["version"], one["experiment"], one["variant_propensity"])
            for one in found
            if one["variant"] == HELD_OUT
        }
        assert marked == {(1, None, 1.0)}
    assert kept["toy"] == kept["other"]
    # Five standard deviations of a binomial count.
    assert abs(len(kept["toy"]) - 300) < 5 * (3_000 * 0.1 * 0.9) ** 0.5
    assert bench.decide("toy", observation=ROW, unit=min(kept["toy"]))["variant"] == HELD_OUT


def test_the_fast_lane_and_the_handlers_give_a_context_the_same_variant() -> None:
    platform = shared_platform()
    platform.restore()
    variants = [{"name": "A", "version": 1, "weight": 1}, {"name": "B", "version": 2, "weight": 1}]
    place = {"layer": "l", "salt": "l", "buckets": [[0, 9000]], "holdout": [[9000, 10_000]]}
    spec = {"name": "exp", "design": "user", "salt": "s", "conditional": conditional(), "placement": place}
    platform.control.create_deployment("toy", variants, spec)
    platform.follow()
    fields = ("variant", "version", "experiment", "variant_propensity", "action")

    def answers(address: str) -> list[list[Any]]:
        found = []
        with httpx.Client(base_url=f"http://{address}") as client:
            for i in range(60):
                context = {"age": 30 + i} if i % 4 else {}
                body = {"observation": [0.1, -0.5, i / 15 - 2], "unit": f"u{i}", "context": context}
                reply = client.post("/api/v1/policies/toy/decide", json=body)
                assert reply.status_code == 200
                found.append([reply.json()[name] for name in fields])
        return found

    with serving(platform.app) as address:
        plain = answers(address)
        with platform.fast_lane():
            fast = answers(address)
    platform.restore()
    assert fast == plain
    assert {one[0] for one in plain} == {"A", "B", OUTSIDE, HELD_OUT}
