"""Shields at work in an engine with a real log: what is answered, logged and remembered; the safe default."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import InvalidInputError, RetryableError
from rlaas.serving.guard import Guard
from rlaas.serving.live import DeploymentRecord

ROW = [0.1, -0.5, 2.0]
ONE = [{"name": "champion", "version": 1, "weight": 1}]
CHANGE = [0.05, None]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    root = tmp_path_factory.mktemp("bundles")
    return {
        ("toy", 1): policy_bundle(root / "toy1", seed=1),
        ("box", 1): policy_bundle(root / "box1", kind="box", actions=2, seed=1),
        ("box", 2): policy_bundle(root / "box2", kind="box", actions=2, seed=2),
    }


def _rule(name: str, when: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "when": when, **fields}


def _bench(root: Path, paths: dict[tuple[str, int], Path], policy: str, **fields: Any) -> Bench:
    return make_bench(root, paths, deployment(policy, [{**ONE[0], "explore": True}], **fields))


def _ask(bench: Bench) -> None:
    bench.decide("box", observation=ROW)
    bench.decide("box", observations=[ROW] * 20)


def test_the_answer_says_so_and_the_log_keeps_both(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    free = _bench(tmp_path / "free", paths, "box")
    _ask(free)
    wild = free.logged_decisions()
    middle = float(np.median([record.action[0] for record in wild]))
    held = _bench(tmp_path / "held", paths, "box", shield={"bounds": {"high": [middle, None]}})
    _ask(held)
    tame = held.logged_decisions()
    assert [record.proposed_action for record in wild] == [None] * 21
    changed = [record for record in tame if record.proposed_action is not None]
    assert 0 < len(changed) < 21
    for one, other in zip(wild, tame, strict=True):
        # Same seed: the policy proposes the same, with the same density, whatever is answered.
        assert (other.proposed_action or other.action) == one.action
        assert other.action_propensity == one.action_propensity
        assert other.action == [min(one.action[0], middle), one.action[1]]


def test_answers_that_the_shield_left_alone_look_as_without_one(
    tmp_path: Path, paths: dict[tuple[str, int], Path]
) -> None:
    idle = [_rule("never", "x0 > 100", action=0)]
    free, held = _bench(tmp_path / "a", paths, "toy"), _bench(tmp_path / "b", paths, "toy", shield={"rules": idle})
    answers = [bench.engine.decide(PRINCIPAL, "toy", b'{"observation":[1,2,3]}') for bench in (free, held)]
    assert len(answers[0]) == len(answers[1])
    first, second = (answer[answer.index(b'"action"') :] for answer in answers)
    assert first == second
    assert b"shielded" not in second
    always = _bench(tmp_path / "c", paths, "toy", shield={"rules": [_rule("on", "x0 < 100", action=3)]})
    assert always.decide("toy", observation=ROW)["action"] == 3
    many = always.decide("toy", observations=[ROW] * 40)["decisions"]
    assert {d["action"] for d in many} == {3}
    proposed = [record.proposed_action for record in always.logged_decisions()[1:]]
    assert [d.get("shielded", False) for d in many] == [p is not None for p in proposed]
    assert {p[0] for p in proposed if p is not None} <= {0.0, 1.0, 2.0}


def test_changes_are_limited_from_step_to_step(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    bench = _bench(tmp_path, paths, "box", shield={"max_change": CHANGE})
    taken = [bench.decide("box", observation=ROW, session="s", step=step)["action"] for step in range(30)]
    changes = np.abs(np.diff(np.array(taken), axis=0))
    assert changes[:, 0].max() <= 0.05 + 1e-12
    assert changes[:, 1].max() > 0.05
    # A repeated step is held to the step before it, not to its first try.
    again = bench.decide("box", observation=ROW, session="s", step=29)["action"]
    assert abs(again[0] - taken[28][0]) <= 0.05 + 1e-12
    # What this process did not decide, the caller has to say.
    for step in (5, 31, 40):
        with pytest.raises(InvalidInputError, match=r"context\.previous_action is needed: .* step \d+ of session 's'"):
            bench.decide("box", observation=ROW, session="s", step=step)
    told = bench.decide("box", observation=ROW, session="new", step=9, context={"previous_action": [0.7, 0]})
    assert abs(told["action"][0] - 0.7) <= 0.05 + 1e-12
    next_ = bench.decide("box", observation=ROW, session="new", step=10)
    assert abs(next_["action"][0] - told["action"][0]) <= 0.05 + 1e-12


def test_rows_that_share_a_session_step_side_by_side(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    bench = _bench(tmp_path, paths, "box", shield={"max_change": [0.05, 0.05]})
    before = None
    for step in range(5):
        sessions = ["a", "b", "a"]
        answer = bench.decide("box", observations=[ROW] * 3, session=sessions, step=step)["decisions"]
        now = np.array([d["action"] for d in answer])
        if before is not None:
            assert np.abs(now - before).max() <= 0.05 + 1e-12
        before = now
    told = bench.decide("box", observations=[ROW] * 2, context={"previous_action": [[0.1, 0.1], [0.9, 0.9]]})
    actions = np.array([d["action"] for d in told["decisions"]])
    assert np.abs(actions - [[0.1, 0.1], [0.9, 0.9]]).max() <= 0.05 + 1e-12


@pytest.mark.parametrize("wrong", [[1], "a", [[1, 2], [1, 2]], [1, None], {"a": 1}, [[]], 3, [10**400, 1]])
def test_a_previous_action_that_is_none_is_refused(
    tmp_path: Path, paths: dict[tuple[str, int], Path], wrong: Any
) -> None:
    bench = _bench(tmp_path, paths, "box", shield={"max_change": CHANGE})
    with pytest.raises(InvalidInputError, match="previous_action") as caught:
        bench.decide("box", observation=ROW, context={"previous_action": wrong})
    assert caught.value.field == "context.previous_action"
    assert bench.logged_decisions() == []


def test_what_is_remembered_is_bounded_and_survives_threads(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    bench = _bench(tmp_path, paths, "box", shield={"max_change": CHANGE})
    bench.engine._guard = Guard(remembered=10)

    def drive(name: str) -> None:
        for step in range(20):
            bench.decide("box", observation=ROW, session=f"{name}{step}", step=0)

    threads = [threading.Thread(target=drive, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.engine._guard._last) == 10
    with pytest.raises(InvalidInputError, match="not decided here"):
        bench.decide("box", observation=ROW, session="a0", step=1)


@pytest.mark.parametrize(("safe", "fixed"), [(2, 1), ([0.5, 1], [1, 0.25])])
def test_a_deployment_with_a_shield_is_read_back_as_it_was_written(safe: Any, fixed: Any) -> None:
    shield = {
        "max_change": CHANGE,
        "context": {"load": {"type": "number", "range": [0, 1]}},
        "rules": [_rule("a", "x0 > 1 and load > 0.5", action=fixed), _rule("b", "x0 > 1", bounds={"low": [0, None]})],
    }
    record = deployment("box", ONE, shield=shield, safe_action=safe)
    assert DeploymentRecord.model_validate(record.model_dump()) == record
    assert DeploymentRecord.model_validate_json(record.model_dump_json()) == record
    before = record.model_dump(exclude={"shield", "safe_action"})
    assert DeploymentRecord.model_validate(before).shield is None


def test_a_shield_that_does_not_fit_is_no_new_generation(tmp_path: Path, paths: dict[tuple[str, int], Path]) -> None:
    bench = _bench(tmp_path, paths, "box")
    failures = bench.switch(deployment("box", ONE, generation=2, shield={"max_change": [1]}))
    assert "shield.max_change has 1 components" in failures["dep-box"]
    assert bench.engine.state.policies["box"].record.generation == 1


# --- the safe default --------------------------------------------------------------------------------------------


def _raises(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a damaged network")


def test_the_safe_action_answers_when_no_version_can(
    tmp_path: Path, paths: dict[tuple[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = [{"name": "champion", "version": 2, "weight": 1, "explore": True}]
    experiment = {"name": "try", "design": "user", "salt": "s"}
    safe = {"safe_action": [0.25, 0.5], "fallback": 1, "experiment": experiment}
    bench = make_bench(tmp_path, paths, deployment("box", variants, **safe))
    assert bench.decide("box", observation=ROW)["variant"] == "champion"
    live = bench.engine.state.policies["box"]
    for variant in (*live.variants.values(), *live.reserves):
        monkeypatch.setattr(variant.policy, "act", _raises)
    for _ in range(30):
        answer = bench.decide("box", observation=ROW)
        assert {**answer, "decision_id": ""} == {
            "decision_id": "",
            "action": [0.25, 0.5],
            "policy": "box",
            "version": 0,
            "variant": "safe-default",
            "experiment": None,
            "variant_propensity": 1.0,
            "action_propensity": None,
        }
    assert bench.engine.acting.circuits.open() == [("box", 1), ("box", 2)]
    many = bench.decide("box", observations=[ROW] * 3)["decisions"]
    assert [d["action"] for d in many] == [[0.25, 0.5]] * 3
    record = bench.logged_decisions()[-1]
    assert (record.version, record.variant, record.preference) == (0, "safe-default", None)
    assert bench.ids.verify(answer["decision_id"]).version == 0
    assert bench.report({"outcome_id": "o", "decision_id": answer["decision_id"], "outcome": {"latency": 1}})
    assert {t.version: t.decisions for t in bench.engine.tally.snapshot()}[0] == 33


def test_a_safe_choice_is_one_number(
    tmp_path: Path, paths: dict[tuple[str, int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(tmp_path, paths, deployment("toy", ONE, safe_action=2))
    monkeypatch.setattr(bench.engine.state.policies["toy"].primary.policy, "act", _raises)
    assert bench.decide("toy", observation=ROW)["action"] == 2
    assert [d["action"] for d in bench.decide("toy", observations=[ROW] * 2)["decisions"]] == [2, 2]
    assert bench.switch(deployment("toy", ONE, generation=2)) == {}
    with pytest.raises(RetryableError):
        bench.decide("toy", observation=ROW)


@pytest.mark.parametrize(
    ("policy", "fields", "message"),
    [
        ("toy", {"safe_action": 4}, "safe_action must be a choice from 0 to 3"),
        ("toy", {"safe_action": [1.0]}, "safe_action must be a choice"),
        ("box", {"safe_action": 1}, "safe_action must have 2 components"),
        ("box", {"safe_action": [0.5, 7]}, r"safe_action\[1\] is 7; allowed: 0 to 1"),
        (
            "box",
            {"safe_action": [0.5, 0.9], "shield": {"bounds": {"high": [None, 0.5]}}},
            "safe_action lies outside shield.bounds",
        ),
        (
            "toy",
            {"safe_action": 1, "shield": {"forbidden": [{"choices": [1], "substitute": 0}]}},
            "safe_action: choice 1 is in shield.forbidden",
        ),
    ],
)
def test_a_safe_action_that_is_none_is_refused(
    tmp_path: Path, paths: dict[tuple[str, int], Path], policy: str, fields: dict[str, Any], message: str
) -> None:
    bench = make_bench(tmp_path, paths)
    failures = bench.switch(deployment(policy, ONE, **fields))
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(failures[f"dep-{policy}"])
