from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import RetryableError
from rlaas.serving.circuit import FAILURES, FIRST_PAUSE_S, WINDOW, Circuit, Circuits

ROW = [0.1, -0.5, 2.0]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_circuit_opens_tries_once_a_pause_and_closes() -> None:
    clock = Clock()
    circuit = Circuit(clock)
    for _ in range(FAILURES - 1):
        circuit.failed()
    assert circuit.admits()
    circuit.failed()
    assert circuit.is_open
    assert not circuit.admits()
    clock.now = FIRST_PAUSE_S
    assert circuit.admits()
    assert not circuit.admits()  # one trial a pause
    circuit.failed()  # which makes the next pause twice as long
    clock.now += 2 * FIRST_PAUSE_S - 0.01
    assert not circuit.admits()
    clock.now += 0.02
    assert circuit.admits()
    circuit.succeeded()
    assert not circuit.is_open
    circuit.failed()
    assert circuit.admits()


def test_seldom_failures_do_not_open_it() -> None:
    circuit = Circuit(Clock())
    for turn in range(20 * WINDOW):
        (circuit.failed if turn % 3 == 0 else circuit.succeeded)()
        assert not circuit.is_open


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    paths = {("toy", v): policy_bundle(tmp_path / f"toy{v}", seed=v) for v in (1, 2)}
    two = [{"name": "champion", "version": 2, "weight": 1}]
    experiment = {"name": "try", "design": "user", "salt": "s"}
    return make_bench(tmp_path, paths, deployment("toy", two, fallback=1, experiment=experiment))


def _break(bench: Bench, monkeypatch: pytest.MonkeyPatch, *versions: int, how: Any) -> None:
    live = bench.engine.state.policies["toy"]
    for variant in (*live.variants.values(), *live.reserves):
        if variant.version in versions:
            monkeypatch.setattr(variant.policy, "act", how)


def _raises(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a damaged network")


def _not_finite(rows: Any, *_: Any, **__: Any) -> Any:
    return np.full((len(rows), 2), np.nan), None


@pytest.mark.parametrize("how", [_raises, _not_finite])
def test_the_fallback_answers_for_a_version_that_fails_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    assert bench.decide("toy", observation=ROW)["version"] == 2
    expected = bench.engine.state.policies["toy"].reserves[0].policy
    _break(bench, monkeypatch, 2, how=how)
    for _ in range(FAILURES + 5):
        answer = bench.decide("toy", observation=ROW)
        assert (answer["version"], answer["variant"], answer["experiment"]) == (1, "fallback", None)
    many = bench.decide("toy", observations=[ROW, ROW])["decisions"]
    assert [(d["version"], d["variant_propensity"]) for d in many] == [(1, 1.0)] * 2
    weights = bench.engine.state.policies["toy"].reserves[0].preference(None, None)[0]
    assert answer["action"] == expected.act(np.array([ROW], dtype=np.float32), weights)[0][0]
    # The failing version was asked until its circuit opened, not for every request.
    errors = {tally.version: tally.errors for tally in bench.engine.tally.snapshot()}
    assert errors == {1: 0, 2: FAILURES}
    assert bench.engine.acting.circuits.open() == [("toy", 2)]
    assert {record.version for record in bench.logged_decisions()[1:]} == {1}


def test_a_trial_counts_once_whether_one_asks_or_several_together(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(bench.engine.acting, "circuits", Circuits(clock))
    _break(bench, monkeypatch, 2, how=_raises)
    for _ in range(FAILURES):
        bench.decide("toy", observation=ROW)
    for trial in range(2):
        clock.now += 2**trial * FIRST_PAUSE_S
        body = json.dumps({"observation": ROW}).encode()
        answers = bench.engine.answer_together([bench.engine.read(PRINCIPAL, "toy", body) for _ in range(4)])
        assert [json.loads(answer)["version"] for answer in answers if isinstance(answer, bytes)] == [1] * 4
    errors = {tally.version: tally.errors for tally in bench.engine.tally.snapshot()}
    assert errors[2] == FAILURES + 2
    clock.now += 4 * FIRST_PAUSE_S - 0.01  # each trial that fails doubles the pause
    assert not bench.engine.acting.circuits.of("toy", 2).admits()


def test_with_nobody_left_the_answer_is_503_and_nothing_is_logged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break(bench, monkeypatch, 1, 2, how=_raises)
    for _ in range(2 * FAILURES):
        with pytest.raises(RetryableError, match="no version of 'toy' can answer now: version 2 keeps failing"):
            bench.decide("toy", observation=ROW)
    assert bench.logged_decisions() == []


def test_the_callers_own_faults_count_against_nobody(bench: Bench) -> None:
    for _ in range(2 * FAILURES):
        with pytest.raises(ValueError, match="mode"):
            bench.decide("toy", observation=ROW, mode="nonsense")
    assert bench.engine.acting.circuits.open() == []
    assert bench.decide("toy", observation=ROW)["version"] == 2
