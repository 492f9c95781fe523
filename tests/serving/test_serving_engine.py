from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bundles import OBJECTIVES, policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.bundles import load_bundle
from rlaas.errors import (
    ConflictError,
    ForgedDecisionError,
    InvalidInputError,
    MalformedBodyError,
    NotFoundError,
    RequestError,
    RetryableError,
)
from rlaas.serving.decision_ids import DecisionIds, policy_tag

ROW = [0.1, -0.5, 2.0]
ONE = [{"name": "champion", "version": 1, "weight": 1}]
TWO = [
    {"name": "champion", "version": 1, "weight": 1},
    {"name": "challenger", "version": 2, "weight": 1, "explore": True},
]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        ("toy", 1): policy_bundle(root / "toy1", seed=1),
        ("toy", 2): policy_bundle(root / "toy2", seed=2),
        ("toy", 3): policy_bundle(root / "toy3", features=4),
        ("box", 1): policy_bundle(root / "box1", kind="box", actions=2),
        ("plain", 1): policy_bundle(root / "plain1", conditioned=False, objectives=OBJECTIVES[:1], modes={}),
    }


@pytest.fixture
def bench(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> Bench:
    return make_bench(
        tmp_path,
        paths,
        deployment("toy", ONE),
        deployment("box", [{**ONE[0], "explore": True}]),
        deployment("plain", ONE),
    )


# --- decide ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({}, {"latency": 0.5, "throughput": 0.5}),
        ({"mode": "emergency"}, {"latency": 1.0, "throughput": 0.0}),
        ({"preference": {"throughput": 3, "latency": 1}}, {"latency": 0.25, "throughput": 0.75}),
    ],
)
def test_the_answer_is_the_bundle_s_and_is_logged_as_given(
    bench: Bench, paths: dict[tuple[str, int], Path], fields: dict[str, Any], weights: dict[str, float]
) -> None:
    answer = bench.decide("toy", observation=ROW, session="s", step=4, unit="u", context={"a": [1]}, **fields)
    bundle = load_bundle(paths["toy", 1])
    expected, _ = bundle.act(bundle.check_observations([ROW]), bundle.preference(weights))
    assert answer == {
        "decision_id": answer["decision_id"],
        "action": int(expected[0]),
        "policy": "toy",
        "version": 1,
        "variant": "champion",
        "experiment": None,
        "variant_propensity": 1.0,
        "action_propensity": None,
    }
    assert bench.ids.verify(answer["decision_id"]).tag == policy_tag("toy")
    (record,) = bench.logged_decisions()
    assert record.receipt_id == record.decision_id == answer["decision_id"]
    assert record.observation == ROW
    assert (record.action, record.mode, record.preference) == ([answer["action"]], fields.get("mode"), weights)
    assert (record.session, record.step, record.unit, record.context) == ("s", 4, "u", {"a": [1]})
    assert (record.scenario, record.version, record.generation, record.tenant) == ("toy", 1, 1, "default")


def test_a_box_policy_explores_within_its_bounds_with_its_density(bench: Bench) -> None:
    answer = bench.decide("box", observations=[ROW] * 50)
    actions = np.array([d["action"] for d in answer["decisions"]])
    assert actions.shape == (50, 2)
    assert ((actions >= 0) & (actions <= 1)).all()
    assert len(np.unique(actions[:, 0])) > 40
    densities = np.array([d["action_propensity"] for d in answer["decisions"]])
    # The density that was reported is that of the action in the normalised box: invert the tanh and compare.
    bundle = bench.engine.state.policies["box"].primary.policy
    out = bundle.forward(bundle.check_observations([ROW]), bundle.preference({"latency": 1, "throughput": 1}))
    unit = actions * 2 - 1
    before = np.arctanh(unit)
    sigma = np.exp(out["log_std"].astype(float))
    normal = -0.5 * ((before - out["mean"]) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(densities, (normal - np.log1p(-(unit**2))).sum(axis=1), rtol=1e-4, atol=1e-3)


def test_a_preference_is_checked_but_not_claimed_by_a_policy_without_one(bench: Bench) -> None:
    bench.decide("plain", observation=ROW, preference={"latency": 1})
    assert bench.logged_decisions()[0].preference is None
    with pytest.raises(InvalidInputError, match="throughput"):
        bench.decide("plain", observation=ROW, preference={"throughput": 1})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "observation"),
        ({"observation": ROW, "observations": [ROW]}, "observation"),
        ({"observation": [1, 2]}, "observation"),
        ({"observation": [1, 2, "3"]}, "observation[2]"),
        ({"observation": [1, 2, True]}, "observation[2]"),
        ({"observation": [1, 2, None]}, "observation[2]"),
        ({"observation": [[1, 2, 3]]}, "observation[0]"),
        ({"observation": {"a": 1}}, "observation"),
        ({"observation": [1, 2, 1e39]}, "observation[0].x2"),
        ({"observations": []}, "observations"),
        ({"observations": [ROW, [1, 2]]}, "observations[1]"),
        ({"observations": [ROW] * 101}, "observations"),
        ({"observation": ROW, "mode": "panic"}, "mode"),
        ({"observation": ROW, "mode": "normal", "preference": {"latency": 1}}, "preference"),
        ({"observation": ROW, "preference": {"latency": -1}}, "preference.latency"),
        ({"observation": ROW, "preference": {"colour": 1}}, "preference objective"),
        ({"observation": ROW, "preference": {}}, "preference"),
        ({"observation": ROW, "preference": {"throughput": 1, "latency": "1"}}, "preference.latency"),
        ({"observation": ROW, "step": -1}, "step"),
        ({"observation": ROW, "step": 1.5}, "step"),
        ({"observation": ROW, "unit": ""}, "unit"),
        ({"observation": ROW, "unit": "x" * 257}, "unit"),
        ({"observations": [ROW, ROW], "unit": ["a"]}, "unit"),
        ({"observations": [ROW, ROW], "session": ["a", "b", "c"]}, "session"),
        ({"observation": ROW, "context": [1]}, "context"),
        ({"observation": ROW, "context": json.loads('{"a":' * 33 + "1" + "}" * 33)}, "context"),
        ({"observation": ROW, "constraints": {"latency": 1}}, "constraints"),
        ({"observation": ROW, "entities": {"a": 1}}, "entities"),
        ({"observation": ROW, "colour": 1}, "colour"),
        ([ROW], "body"),
    ],
)
def test_a_bad_decide_names_the_field_and_leaves_nothing(bench: Bench, body: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        bench.engine.decide(PRINCIPAL, "toy", json.dumps(body).encode())
    assert caught.value.field == field
    assert "\n" not in caught.value.message
    assert bench.logged_decisions() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"observation": [1, NaN, 3]}', "observation[1]"),
        (b'{"observations": [[1, 2, 3], [1, -Infinity, 3]]}', "observations[1][1]"),
        (b'{"preference": {"latency": Infinity}}', "preference.latency"),
        (b"", "body"),
        (b"\xff\xfe", "body"),
        (b"{", "body"),
        (b'{"observation": [1]} x', "body"),
        (b'{"context": ' + b'{"a":' * 100_000, "body"),
    ],
)
def test_what_is_not_json_is_said_so(bench: Bench, body: bytes, field: str) -> None:
    with pytest.raises(MalformedBodyError) as caught:
        bench.engine.decide(PRINCIPAL, "toy", body)
    assert caught.value.field == field
    assert caught.value.http_status == 400


def test_an_unknown_policy_is_told_from_an_impossible_name(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="allowed: box, plain, toy"):
        bench.decide("other", observation=ROW)
    for name in ("../toy", "", "a/b", "x" * 200):
        with pytest.raises(InvalidInputError, match="plain name"):
            bench.decide(name, observation=ROW)


# --- allocation --------------------------------------------------------------------------------------------------


def test_a_user_split_is_sticky_and_its_propensities_are_exact(bench: Bench) -> None:
    weights = [{**TWO[0], "weight": 3}, {**TWO[1], "weight": 1}]
    spec = {"name": "ab", "design": "user", "salt": "s"}
    bench.switch(deployment("toy", weights, experiment=spec, generation=2))
    units = [f"u{i}" for i in range(100)]
    first = bench.decide("toy", observations=[ROW] * 100, unit=units)["decisions"]
    second = [bench.decide("toy", observation=ROW, unit=unit) for unit in units]
    assert [d["variant"] for d in first] == [d["variant"] for d in second]
    shares = {"champion": 0.75, "challenger": 0.25}
    assert all(d["variant_propensity"] == shares[d["variant"]] and d["experiment"] == "ab" for d in first)
    assert 50 < sum(d["variant"] == "champion" for d in first) < 95
    logged = bench.logged_decisions()
    assert {r.decision_id: r.unit for r in logged[:100]} == {
        d["decision_id"]: unit for d, unit in zip(first, units, strict=True)
    }
    assert {r.generation for r in logged} == {2}


def test_rows_of_a_mixed_batch_keep_their_order(bench: Bench, paths: dict[tuple[str, int], Path]) -> None:
    greedy = [TWO[0], {**TWO[1], "explore": False}]
    bench.switch(deployment("toy", greedy, experiment={"name": "ab", "design": "user", "salt": "s"}))
    rows = np.random.default_rng(0).normal(size=(40, 3)).tolist()
    decisions = bench.decide("toy", observations=rows, unit=[f"u{i}" for i in range(40)])["decisions"]
    for version in (1, 2):
        bundle = load_bundle(paths["toy", version])
        actions, _ = bundle.act(bundle.check_observations(rows), bundle.preference({"latency": 1, "throughput": 1}))
        mine = [i for i, d in enumerate(decisions) if d["version"] == version]
        assert mine
        assert [decisions[i]["action"] for i in mine] == actions[mine].tolist()
    logged = {r.decision_id: r.observation for r in bench.logged_decisions()}
    assert [logged[d["decision_id"]] for d in decisions] == rows


def test_the_last_of_repeated_fields_counts_in_the_log_too(bench: Bench) -> None:
    bench.engine.decide(PRINCIPAL, "toy", b'{"observation": [1, 1, 1], "\\u006fbservation": [2, 3e0, -4]}')
    assert [record.observation for record in bench.logged_decisions()] == [[2.0, 3.0, -4.0]]


def test_a_switchback_moves_everybody_by_blocks_of_steps(bench: Bench) -> None:
    spec = {"name": "sb", "design": "switchback", "salt": "s", "block_steps": 10}
    bench.switch(deployment("toy", TWO, experiment=spec))
    with pytest.raises(InvalidInputError, match="step is needed") as caught:
        bench.decide("toy", observation=ROW)
    assert caught.value.field == "step"
    arms = [bench.decide("toy", observations=[ROW, ROW], step=step)["decisions"] for step in range(40)]
    assert all(a["variant"] == b["variant"] for a, b in arms)
    blocks = [{arms[10 * block + i][0]["variant"] for i in range(10)} for block in range(4)]
    assert all(len(block) == 1 for block in blocks)
    assert blocks[0] != blocks[1]
    assert blocks[2] != blocks[3]


# --- live state --------------------------------------------------------------------------------------------------


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_live(
    bench: Bench, paths: dict[tuple[str, int], Path]
) -> None:
    before = bench.engine.state.policies["toy"]
    damaged = paths["toy", 2].parent / "damaged"
    damaged.mkdir(exist_ok=True)
    for part in paths["toy", 2].iterdir():
        (damaged / part.name).write_bytes(part.read_bytes()[:-1] if part.suffix == ".onnx" else part.read_bytes())
    bench.paths = {**paths, ("toy", 2): damaged}
    failures = bench.switch(deployment("toy", TWO, generation=2))
    assert "sha256" in failures["dep-toy"]
    assert bench.engine.state.policies["toy"] is before
    assert bench.decide("toy", observation=ROW)["version"] == 1
    mixed = [ONE[0], {"name": "b", "version": 3, "weight": 1}]
    assert "have other features" in bench.switch(deployment("toy", mixed))["dep-toy"]
    assert "no bundle" in bench.switch(deployment("toy", [{**ONE[0], "version": 9}]))["dep-toy"]


def test_unchanged_bundles_are_kept_in_memory(bench: Bench) -> None:
    first = bench.engine.state.policies["toy"].primary.policy
    assert bench.switch(deployment("toy", TWO, generation=2)) == {}
    assert bench.engine.state.policies["toy"].variants["champion"].policy is first
    assert bench.engine.state.generations() == {"dep-toy": 2}
    with pytest.raises(NotFoundError):
        bench.decide("box", observation=ROW)


# --- outcomes ----------------------------------------------------------------------------------------------------


def _outcome(bench: Bench, **fields: Any) -> dict[str, Any]:
    decision = bench.decide("toy", observation=ROW)["decision_id"]
    return {"outcome_id": "o1", "decision_id": decision, "outcome": {"latency": 3.5, "orders": 1}, **fields}


def test_outcomes_are_logged_once_and_acknowledged_again(bench: Bench) -> None:
    outcome = _outcome(bench, terminated=True, time=123)
    (first,) = bench.report(outcome)
    (again,) = bench.report([outcome])
    (third,) = bench.report({"outcomes": [outcome]})
    assert first == {"outcome_id": "o1", "revision": 0, "receipt_id": first["receipt_id"], "duplicate": False}
    assert again == third == {**first, "duplicate": True}
    (corrected,) = bench.report({**outcome, "revision": 1, "outcome": {"latency": 4}})
    assert corrected["receipt_id"] != first["receipt_id"]
    logged = bench.logged_outcomes()
    assert [(r.receipt_id, r.revision) for r in logged] == [(first["receipt_id"], 0), (corrected["receipt_id"], 1)]
    assert (logged[0].policy, logged[0].outcome, logged[0].time_us) == ("toy", {"latency": 3.5, "orders": 1.0}, 123)
    assert (logged[0].terminated, logged[0].truncated) == (True, False)


def test_another_content_under_the_same_revision_is_a_conflict(bench: Bench) -> None:
    outcome = _outcome(bench)
    bench.report(outcome)
    with pytest.raises(ConflictError, match="higher revision") as caught:
        bench.report([_outcome(bench, outcome_id="fresh"), {**outcome, "terminated": True}])
    assert caught.value.http_status == 409
    assert [r.outcome_id for r in bench.logged_outcomes()] == ["o1"]


def test_a_request_is_taken_as_a_whole_or_not_at_all(bench: Bench) -> None:
    good = _outcome(bench)
    for bad, field in (
        ({**good, "outcome_id": "o2", "outcome": {"colour": 1}}, "outcomes[1].outcome.colour"),
        ({**good, "outcome_id": "o2", "decision_id": "made-up"}, "outcomes[1].decision_id"),
        (good, "outcomes[1].outcome_id"),
    ):
        with pytest.raises(RequestError) as caught:
            bench.report([good, bad])
        assert (caught.value.field, caught.value.http_status) == (field, 422)
    assert bench.logged_outcomes() == []
    assert bench.report(good)[0]["duplicate"] is False


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"revision": -1}, "revision"),
        ({"revision": True}, "revision"),
        ({"revision": 1.0}, "revision"),
        ({"outcome": {}}, "outcome"),
        ({"outcome": {"orders": 1, "latency": "fast"}}, "outcome.latency"),
        ({"outcome": {"latency": None}}, "outcome.latency"),
        ({"outcome": {f"x{i}": 1 for i in range(65)}}, "outcome"),
        ({"outcome_id": ""}, "outcome_id"),
        ({"terminated": 1}, "terminated"),
        ({"time": -1}, "time"),
        ({"time": 10**18}, "time"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_bad_outcome_names_the_field(bench: Bench, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        bench.report({**_outcome(bench), **change})
    assert caught.value.field == field
    assert bench.logged_outcomes() == []


def test_a_number_beyond_a_double_is_refused_in_any_writing(bench: Bench) -> None:
    decision = bench.decide("toy", observation=ROW)["decision_id"]
    for number in ("1e999", "1" + "0" * 400):
        for body, field in (
            (f'{{"observation": [1, 2, {number}]}}', "observation"),
            (f'{{"observation": [1, 2, 3], "preference": {{"latency": {number}}}}}', "preference"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                bench.engine.decide(PRINCIPAL, "toy", body.encode())
            assert str(caught.value.field).startswith(field)
        outcome = f'{{"outcome_id": "o", "decision_id": "{decision}", "outcome": {{"latency": {number}}}}}'
        with pytest.raises(InvalidInputError):
            bench.engine.record_outcomes(PRINCIPAL, outcome.encode())
    assert bench.logged_outcomes() == []


def test_ids_of_another_installation_are_forged(bench: Bench) -> None:
    foreign = DecisionIds(b"another installation", "test", tenant="default").mint(policy_tag("toy"))
    with pytest.raises(ForgedDecisionError, match="was not issued here"):
        bench.report({"outcome_id": "o", "decision_id": foreign, "outcome": {"latency": 1}})


def test_an_outcome_of_a_policy_that_is_live_no_longer_is_taken(bench: Bench) -> None:
    outcome = _outcome(bench)
    bench.switch(deployment("box", ONE))
    assert bench.report(outcome)[0]["duplicate"] is False
    assert bench.logged_outcomes()[0].policy is None
    with pytest.raises(InvalidInputError, match="plain name"):
        bench.report({**outcome, "revision": 1, "outcome": {"../x": 1}})


def test_a_full_disk_is_503_and_nothing_is_acknowledged(bench: Bench) -> None:
    outcome = _outcome(bench)
    bench.decisions.seal()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(RetryableError) as decision:
            bench.decide("toy", observation=ROW)
        with pytest.raises(RetryableError) as report:
            bench.report(outcome)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert decision.value.http_status == report.value.http_status == 503
    assert bench.report(outcome)[0]["duplicate"] is False
    assert len(bench.logged_decisions()) == 1
    assert len(bench.logged_outcomes()) == 1


# --- anything ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
DECIDE = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("observation", "observations", "unit", "session", "step", "mode", "context", "x"), JSON),
)
GOOD_ROW = st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3)
NEARLY = st.fixed_dictionaries(
    {"observation": GOOD_ROW}, optional={"step": JSON, "context": JSON, "preference": JSON, "unit": JSON}
)
OUTCOME = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("outcome_id", "decision_id", "revision", "outcome", "time", "outcomes"), JSON),
)


@contextmanager
def nothing_but_refusal() -> Iterator[None]:
    """Whatever is raised must be an error that tells the sender what to mend."""
    try:
        yield
    except RequestError as problem:
        if not (400 <= problem.http_status < 500 and problem.field):
            raise AssertionError(f"{problem!r} does not help its sender") from problem


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=64) | st.one_of(DECIDE, NEARLY, JSON).map(lambda d: json.dumps(d).encode()))
def test_no_body_of_decide_does_more_than_be_refused(bench: Bench, body: bytes) -> None:
    with nothing_but_refusal():
        answer = json.loads(bench.engine.decide(PRINCIPAL, "toy", body))
        assert {"decision_id", "decisions"} & answer.keys()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=64) | st.one_of(OUTCOME, st.lists(OUTCOME), JSON).map(lambda d: json.dumps(d).encode()))
def test_no_body_of_outcomes_does_more_than_be_refused(bench: Bench, body: bytes) -> None:
    with pytest.raises(RequestError) as caught:  # no made-up body holds an issued decision id
        bench.engine.record_outcomes(PRINCIPAL, body)
    assert 400 <= caught.value.http_status < 500


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=GOOD_ROW, step=st.none() | st.integers(0, 2**62), context=st.none() | st.dictionaries(st.text(), st.text()))
def test_every_possible_decision_is_taken_and_read_back(
    bench: Bench, row: list[float], step: int | None, context: dict[str, str] | None
) -> None:
    body = json.dumps({"observation": row, "step": step, "context": context}).encode()
    answer = json.loads(bench.engine.decide(PRINCIPAL, "toy", body))
    record = bench.logged_decisions()[-1]
    assert record.decision_id == answer["decision_id"]
    assert (record.step, record.context) == (step, context)
    assert record.observation == row
