"""A gate that takes long to judge keeps nobody waiting, and judges what is still wanted when it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.control_kit import Routes
from support.experiment_kit import document
from support.gate_kit import gated_control

from rlaas.control.experiments import ExperimentService, parse_document
from rlaas.control.gating import GateDeclaration
from rlaas.control.gating import service as gating
from rlaas.control.keyed_locks import KeyedLocks
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError
from rlaas.lake import Lake
from rlaas.settings import Settings

DECLARED = GateDeclaration(value="throughput", estimator="snipw")
LONG_S = 60.0


class SlowJudge:
    """Judges as ever, but only once it is let go; tells how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go = threading.Semaphore(0), threading.Event()
        self.judged: list[str] = []
        self._judge = gating.judge_version
        monkeypatch.setattr(gating, "judge_version", self)

    def __call__(self, *args: Any, subject: str, **options: Any) -> Any:
        self.judged.append(subject)
        self.asked.release()
        assert self.go.wait(LONG_S)
        return self._judge(*args, subject=subject, **options)

    @contextmanager
    def during(self, change: Callable[[], Any]) -> Iterator[list[Any]]:
        """A change of which the judgement waits until the end of the block; then what it gave, or its error."""
        given: list[Any] = []

        def run() -> None:
            try:
                given.append(change())
            except ConflictError as problem:
                given.append(problem)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert self.asked.acquire(timeout=LONG_S)
            yield given
        finally:
            self.go.set()
            thread.join(LONG_S)
        assert not thread.is_alive()


@pytest.fixture
def control(gated: Settings, tmp_path: Path) -> ControlService:
    return gated_control(gated, tmp_path, DECLARED)


@pytest.fixture
def slow(control: ControlService, monkeypatch: pytest.MonkeyPatch) -> SlowJudge:
    return SlowJudge(monkeypatch)


def one(version: int) -> list[dict[str, Any]]:
    return [{"name": "next", "version": version, "weight": 1}]


def live(control: ControlService, policy: str = "toy") -> list[int]:
    return [variant.version for variant in control.status(policy)[0].variants]


def test_a_slow_gate_blocks_no_other_change(control: ControlService, gated: Settings, slow: SlowJudge) -> None:
    routes = Routes(control, ExperimentService(control, "default", Lake(gated.lake_root)))
    create = {"policy": "toy", "variants": one(2)}
    with slow.during(lambda: routes("POST", "deployments/create", create, idempotency_key="slow")) as given:
        assert routes("POST", "models/other/promote", {"version": 1})[0] == 200
        split = {"policy": "other", "variants": [*one(1), {"name": "more", "version": 1, "weight": 1}]}
        assert routes("POST", "deployments/create", split, idempotency_key="quick")[0] == 200
        assert routes("DELETE", "deployments/other")[0] == 200
        assert routes("POST", "experiments", {**document(id="else"), "policy": "other"}, idempotency_key="e")[0] == 404
        # The same policy too: going back to what has served asks nobody.
        assert routes("POST", "models/toy/promote", {"version": 1})[0] == 200
        assert live(control) == [1]
        assert given == []
    assert given[0][0] == 200
    assert live(control) == [2]
    assert slow.judged == ["toy:2"]


def test_an_experiment_is_judged_before_its_lock_too(control: ControlService, gated: Settings, slow: SlowJudge) -> None:
    experiments = ExperimentService(control, "default", Lake(gated.lake_root))
    with slow.during(lambda: experiments.create(parse_document(document()))) as given:
        assert experiments.recover() == []  # takes the lock of the experiments
        assert experiments.all() == []
        control.promote("other", 1)
    assert given[0]["state"] == "running"
    assert [event["kind"] for event in control.gates.history("toy")] == ["passed", "declared"]


def test_a_declaration_that_changes_meanwhile_is_what_counts(control: ControlService, slow: SlowJudge) -> None:
    with slow.during(lambda: control.promote("toy", 2)) as given:
        control.gates.declare("toy", DECLARED.model_copy(update={"reference": 95.0}))
    assert isinstance(given[0], ConflictError)
    assert "failed: snipw gives throughput" in given[0].message
    assert slow.judged == ["toy:2", "toy:2"]
    assert live(control) == [1]
    # What was judged by the declaration of before is in nobody's history.
    assert [event["kind"] for event in control.gates.history("toy")] == ["refused", "declared", "declared"]


def test_a_gate_that_is_removed_meanwhile_asks_nobody(control: ControlService, slow: SlowJudge) -> None:
    with slow.during(lambda: control.promote("toy", 3)):
        control.gates.remove("toy")
    assert live(control) == [3]
    assert [event["kind"] for event in control.gates.history("toy")] == ["removed", "declared"]


def test_what_has_become_impossible_meanwhile_is_refused(control: ControlService, slow: SlowJudge) -> None:
    before = control.status("toy")[0].etag
    with slow.during(lambda: control.promote("toy", 2, if_match=before)) as given:
        control.create_deployment("toy", one(1), fallback=3)
    assert isinstance(given[0], ConflictError)
    assert "If-Match" in given[0].message
    assert live(control) == [1]
    assert [event["kind"] for event in control.gates.history("toy")] == ["declared"]


def test_a_declaration_that_never_stays_ends_in_an_error(
    control: ControlService, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, margins = gating.judge_version, iter(range(1, 100))

    def unsettled(*args: Any, **options: Any) -> Any:
        control.gates.declare("toy", DECLARED.model_copy(update={"margin": float(next(margins))}))
        return judge(*args, **options)

    monkeypatch.setattr(gating, "judge_version", unsettled)
    with pytest.raises(ConflictError, match="anew again and again") as caught:
        control.promote("toy", 2)
    assert caught.value.field == "gate"
    assert live(control) == [1]


def test_locks_are_by_key_and_leave_nothing_behind() -> None:
    locks, entered, go = KeyedLocks(), threading.Event(), threading.Event()
    order: list[str] = []

    def hold() -> None:
        with locks("a"):
            entered.set()
            assert go.wait(LONG_S)
            order.append("first")

    def wait() -> None:
        with locks("a"):
            order.append("second")

    threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
    threads[0].start()
    assert entered.wait(LONG_S)
    threads[1].start()
    with locks("b"):
        assert order == []
        assert len(locks) == 2
    go.set()
    for thread in threads:
        thread.join(LONG_S)
    assert order == ["first", "second"]
    with pytest.raises(ValueError, match="broken"), locks("a"):
        raise ValueError("broken")
    assert len(locks) == 0
