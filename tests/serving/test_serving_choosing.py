"""Constraints at request time: the best candidate that keeps them decides, or the caller hears what could be kept."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.bundles import policy_bundle
from support.serving_kit import Bench, deployment, make_bench

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.decisions import resolve
from rlaas.errors import BundleError, InvalidInputError, RetryableError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Preference
from rlaas.serving.choosing import FrontChooser
from rlaas.serving.served_front import ServedCandidate, ServedFront, encode_front, front_key, read_served_front

ROW = [0.1, -0.5, 2.0]
ONE = [{"name": "champion", "version": 1, "weight": 1}]
OBJECTIVES = ("latency", "throughput")
EQUAL = {"latency": 0.5, "throughput": 0.5}


def _candidate(name: str, latency: float, throughput: float, width: float | None = 0.1, **fields: Any) -> Any:
    if "action" not in fields:
        fields = {"preference": {"latency": 1.0}, **fields}
    return ServedCandidate(name=name, mean=(latency, throughput), half_width=(width, width), **fields)


CANDIDATES = (
    _candidate("quick", 1.0, 20.0, preference={"latency": 1.0}),
    _candidate("even", 3.0, 60.0, preference={"latency": 0.3, "throughput": 0.7}),
    _candidate("wide", 6.0, 90.0, preference={"throughput": 1.0}),
    _candidate("fixed", 2.0, 45.0, action=3),
)
FRONT = ServedFront(version="abc", objectives=OBJECTIVES, candidates=CANDIDATES)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("choosing")
    (root / "toy.json").write_bytes(encode_front(FRONT))
    (root / "broken.json").write_text("{")
    return {
        ("toy", 1): policy_bundle(root / "toy1", seed=1),
        ("toy", 2): policy_bundle(root / "toy2", seed=2),
        front_key("toy", 1): root / "toy.json",
        ("bare", 1): policy_bundle(root / "bare", seed=1),
        ("broken", 1): policy_bundle(root / "broken", seed=1),
        front_key("broken", 1): root / "broken.json",
        ("box", 1): policy_bundle(root / "box", kind="box", actions=2),
    }


@pytest.fixture(scope="module")
def policy(paths: dict[tuple[str, int], Path]) -> BundlePolicy:
    return load_bundle(paths["toy", 1])


@pytest.fixture
def bench(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> Bench:
    return make_bench(tmp_path, paths, *(deployment(name, ONE) for name in ("toy", "bare", "broken")))


# --- the chooser -------------------------------------------------------------------------------------------------

value = st.floats(0, 10).map(lambda number: round(number, 3))
candidate = st.tuples(value, value, st.floats(0, 1).map(lambda number: round(number, 3)))
bound = st.one_of(st.none(), value)


@settings(max_examples=300, deadline=None)
@given(st.lists(candidate, min_size=1, max_size=12), bound, bound, bound, st.floats(0, 1))
def test_the_choice_is_that_of_resolve_among_those_that_keep_the_constraints(
    policy: BundlePolicy,
    rows: list[Any],
    most: float | None,
    least: float | None,
    floor: float | None,
    share: float,
) -> None:
    constraints: dict[str, dict[str, float]] = {}
    if most is not None:
        constraints["latency"] = {"max": most}
    if floor is not None and (most is None or floor <= most):
        constraints.setdefault("latency", {})["min"] = floor
    if least is not None:
        constraints["throughput"] = {"min": least}
    assume(constraints)
    served = tuple(_candidate(f"c{i:02}", *row) for i, row in enumerate(rows))
    chooser = FrontChooser(ServedFront(version="v", objectives=OBJECTIVES, candidates=served), policy)
    weights = Preference.of(OBJECTIVES, [share, 1 - share])
    members = [
        Candidate(name=f"c{i:02}", kind="policy", mean=row[:2], half_width=(row[2],) * 2)
        for i, row in enumerate(rows)
        if all(
            row[j] + row[2] <= ends.get("max", math.inf) and row[j] - row[2] >= ends.get("min", -math.inf)
            for j, ends in ((OBJECTIVES.index(name), ends) for name, ends in constraints.items())
        )
    ]
    if members:
        front = Front(scenario="toy", objectives=policy.objectives, candidates=tuple(members))
        expected = resolve(front, mode=Mode(name="asked", preference=weights)).candidate.name
        assert chooser.choose(constraints, weights.to_dict()).name == expected
        return
    with pytest.raises(InvalidInputError) as caught:
        chooser.choose(constraints, weights.to_dict())
    found = re.fullmatch(
        r"constraints\.(\w+)\.(min|max) = \S+ is kept by no candidate of the front; the nearest value that can be kept"
        r"( beside the other constraints)?( once others are loosened too)? is (\S+) \(c\d\d\)",
        caught.value.message,
    )
    assert found is not None, caught.value.message
    assert caught.value.field == f"constraints.{found[1]}.{found[2]}"
    if found[4] is None and (found[2] == "max" or float(found[5]) <= constraints[found[1]].get("max", math.inf)):
        # What is said to be possible is.
        constraints[found[1]][found[2]] = float(found[5])
        chooser.choose(constraints, weights.to_dict())


def test_the_worse_end_of_the_interval_counts_and_one_seed_is_no_promise(policy: BundlePolicy) -> None:
    chooser = FrontChooser(FRONT, policy)
    assert chooser.choose({"latency": {"max": 1.1}}, EQUAL).name == "quick"
    with pytest.raises(InvalidInputError, match=r"latency\.max = 1\.09 is kept by no .* is 1\.1 \(quick\)"):
        chooser.choose({"latency": {"max": 1.09}}, EQUAL)
    with pytest.raises(InvalidInputError, match=r"throughput\.min = 95 is kept by no .* is 89\.9 \(wide\)"):
        chooser.choose({"throughput": {"min": 95}}, EQUAL)
    with pytest.raises(InvalidInputError, match=r"beside the other constraints is 3\.1 \(even\)"):
        chooser.choose({"throughput": {"min": 50}, "latency": {"max": 3}}, EQUAL)
    with pytest.raises(InvalidInputError, match="once others are loosened too"):
        chooser.choose({"throughput": {"min": 95}, "latency": {"max": 0.5}}, EQUAL)
    unsure = tuple(_candidate(f"c{i}", 1.0, 1.0, None) for i in range(2))
    alone = FrontChooser(ServedFront(version="v", objectives=OBJECTIVES, candidates=unsure), policy)
    with pytest.raises(InvalidInputError, match=r"latency\.max can be promised by no candidate .*one seed"):
        alone.choose({"latency": {"max": 100}}, EQUAL)


@pytest.mark.parametrize(
    ("constraints", "field", "message"),
    [
        ([], "constraints", "must be like"),
        ({}, "constraints", "must be like"),
        ("latency < 3", "constraints", "must be like"),
        ({"colour": {"max": 1}}, "constraints objective", "allowed: latency, throughput"),
        ({"latency": 1}, "constraints.latency", "must be an object with min, max or both"),
        ({"latency": {}}, "constraints.latency", "must be an object with min, max or both"),
        ({"latency": {"most": 1}}, "constraints.latency", "unknown constraints.latency 'most'; allowed: max, min"),
        ({"latency": {"max": "1"}}, "constraints.latency.max", "must be a finite number, got '1'"),
        ({"latency": {"max": None}}, "constraints.latency.max", "must be a finite number"),
        ({"latency": {"max": True}}, "constraints.latency.max", "must be a finite number"),
        ({"latency": {"max": 10**400}}, "constraints.latency.max", "must be a finite number"),
        ({"latency": {"min": 2, "max": 1}}, "constraints.latency.min", "is above max"),
    ],
)
def test_malformed_constraints_are_refused_with_their_field(
    policy: BundlePolicy, constraints: Any, field: str, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        FrontChooser(FRONT, policy).choose(constraints, EQUAL)
    assert caught.value.field == field


def test_a_front_that_does_not_fit_is_refused(policy: BundlePolicy) -> None:
    with pytest.raises(BundleError, match="the front is of energy; the policy of latency, throughput"):
        FrontChooser(ServedFront(version="v", objectives=("energy",), candidates=()), policy)
    with pytest.raises(BundleError, match="no candidate of this version"):
        FrontChooser(ServedFront(version="v", objectives=OBJECTIVES, candidates=()), policy)
    for wrong in ({"action": 9}, {"action": [0.1]}, {"preference": {"colour": 1}}, {"preference": None}):
        served = (_candidate("x", 1, 1, **wrong),)
        with pytest.raises(BundleError, match="the front cannot be used"):
            FrontChooser(ServedFront(version="v", objectives=OBJECTIVES, candidates=served), policy)


def test_columns_go_by_name(policy: BundlePolicy, tmp_path: Path) -> None:
    turned = ServedFront(
        version="v",
        objectives=("throughput", "latency"),
        candidates=(ServedCandidate(name="c", mean=(50.0, 2.0), half_width=(1.0, 0.5), preference=EQUAL),),
    )
    file = tmp_path / "front.json"
    file.write_bytes(encode_front(turned))
    chooser = FrontChooser(read_served_front(file), policy)
    assert chooser.choose({"latency": {"max": 2.5}, "throughput": {"min": 49}}, EQUAL).name == "c"


def test_a_repeated_question_is_answered_from_memory_and_memory_is_bounded(
    policy: BundlePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    chooser = FrontChooser(FRONT, policy)
    first = chooser.choose({"latency": {"max": 4}}, EQUAL)
    for bound_ in np.linspace(4.1, 10, 300).tolist():
        chooser.choose({"latency": {"max": bound_}}, EQUAL)
    assert len(chooser._answers) == 256
    assert chooser.choose({"latency": {"max": 4}}, EQUAL) is first
    monkeypatch.setattr(chooser, "_best", None)
    assert chooser.choose({"latency": {"max": 4}}, EQUAL) is first


# --- in the engine -----------------------------------------------------------------------------------------------


def test_a_constrained_answer_is_that_of_the_candidate_and_says_which(
    bench: Bench, paths: dict[tuple[str, int], Path]
) -> None:
    bundle = load_bundle(paths["toy", 1])
    row = bundle.check_observations([ROW])
    answer = bench.decide("toy", observation=ROW, preference={"throughput": 1}, constraints={"latency": {"max": 3.5}})
    expected = bundle.act(row, bundle.preference({"latency": 0.3, "throughput": 0.7}))[0][0]
    assert (answer["candidate"], answer["action"], answer["version"]) == ("even", expected, 1)
    assert "candidate" not in bench.decide("toy", observation=ROW)
    fixed = {"latency": {"max": 2.5}, "throughput": {"min": 40}}
    static = bench.decide("toy", observation=ROW, mode="normal", constraints=fixed)
    assert (static["candidate"], static["action"], static["action_propensity"]) == ("fixed", 3, None)
    many = bench.decide("toy", observations=[ROW] * 3, constraints=fixed)["decisions"]
    assert [(d["candidate"], d["action"]) for d in many] == [("fixed", 3)] * 3
    first, plain, second, *rest = bench.logged_decisions()
    assert (first.candidate, plain.candidate, second.candidate) == ("even", None, "fixed")
    assert (first.preference, second.preference) == ({"latency": 0.3, "throughput": 0.7}, None)
    assert (first.mode, second.mode) == (None, "normal")
    assert {record.candidate for record in rest} == {"fixed"}


def test_what_cannot_be_kept_is_refused_and_nothing_is_logged(bench: Bench) -> None:
    for policy, body, message in (
        ("toy", {"latency": {"max": 0.2}}, "is kept by no candidate"),
        ("toy", {"latency": 3}, "must be an object"),
        ("bare", {"latency": {"max": 3}}, "constraints need a front, and version 1 of 'bare' has none"),
        ("broken", {"latency": {"max": 3}}, "has none that can be used: the front broken.json cannot be read"),
    ):
        with pytest.raises(InvalidInputError, match=message) as caught:
            bench.decide(policy, observation=ROW, constraints=body)
        assert (caught.value.field or "").startswith("constraints")
    with pytest.raises(InvalidInputError, match="unknown mode 'panic'"):
        bench.decide("toy", observation=ROW, mode="panic", constraints={"latency": {"max": 3}})
    with pytest.raises(InvalidInputError, match="exclude each other"):
        bench.decide("toy", observation=ROW, mode="normal", preference=EQUAL, constraints={"latency": {"max": 3}})
    assert bench.logged_decisions() == []
    assert bench.decide("broken", observation=ROW)["version"] == 1


def test_a_constrained_answer_is_shielded_too_and_a_reserve_without_a_front_is_none(
    tmp_path: Path, paths: dict[tuple[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shield = {"forbidden": [{"choices": [3], "substitute": 0}]}
    bench = make_bench(tmp_path, paths, deployment("toy", ONE, fallback=2, shield=shield))
    fixed = {"latency": {"max": 2.5}, "throughput": {"min": 40}}
    answer = bench.decide("toy", observation=ROW, constraints=fixed)
    assert (answer["action"], answer["shielded"], answer["candidate"]) == (0, True, "fixed")
    (record,) = bench.logged_decisions()
    assert (record.action, record.proposed_action) == ([0.0], [3.0])

    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    live = bench.engine.state.policies["toy"]
    monkeypatch.setattr(live.primary.policy, "act", fails)
    assert bench.decide("toy", observation=ROW)["variant"] == "fallback"
    with pytest.raises(RetryableError):  # the fallback has no front that could keep them
        bench.decide("toy", observation=ROW, constraints={"latency": {"max": 1.5}})
    assert bench.decide("toy", observation=ROW, constraints=fixed)["candidate"] == "fixed"  # no network is asked


def test_shadows_are_not_compared_with_what_constraints_decided(
    tmp_path: Path, paths: dict[tuple[str, int], Path]
) -> None:
    shadowed = [*ONE, {"name": "shade", "version": 2, "weight": 0, "shadow": True}]
    bench = make_bench(tmp_path, paths, deployment("toy", shadowed))
    bench.decide("toy", observation=ROW, constraints={"latency": {"max": 3.5}})
    assert bench.engine.shadows.work() == 0
    bench.decide("toy", observations=[ROW], constraints={"latency": {"max": 3.5}})
    assert bench.engine.shadows.work() == 0
    bench.decide("toy", observation=ROW)
    assert bench.engine.shadows.work() == 1
