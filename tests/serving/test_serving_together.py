from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, Bench, deployment, make_bench

from rlaas.errors import InvalidInputError, LakeError, RetryableError
from rlaas.lake.batches import decisions_in
from rlaas.serving.gather import Gather
from rlaas.serving.questions import Question

ROW = [0.1, -0.5, 2.0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    toys = {("toy", v): policy_bundle(tmp_path / f"toy{v}", seed=v) for v in (1, 2)}
    box = {("box", 1): policy_bundle(tmp_path / "box", kind="box", seed=5)}
    halves = [{"name": "champion", "version": 2, "weight": 1}, {"name": "challenger", "version": 1, "weight": 1}]
    experiment = {"name": "try", "design": "user", "salt": "s"}
    return make_bench(
        tmp_path,
        toys | box,
        deployment("toy", halves, fallback=1, experiment=experiment),
        deployment("box", [{"name": "champion", "version": 1, "weight": 1}]),
    )


def _read(bench: Bench, policy: str, **body: Any) -> Question:
    return bench.engine.read(PRINCIPAL, policy, json.dumps(body).encode())


def _mixed() -> list[tuple[str, dict[str, Any]]]:
    rng = np.random.default_rng(3)
    asked: list[tuple[str, dict[str, Any]]] = []
    for turn in range(60):
        body: dict[str, Any] = {"observation": rng.normal(size=3).round(3).tolist()}
        if turn % 3 == 0:
            body["mode"] = "emergency"
        elif turn % 3 == 1:
            body["preference"] = {"latency": 0.25, "throughput": 0.75}
        if turn % 4 == 3:
            asked.append(("box", body))
        else:
            asked.append(("toy", body | {"unit": f"unit{turn}", "context": {"turn": turn}}))
    return asked


def _said(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "decision_id"}


def test_together_each_gets_what_it_gets_alone_and_each_is_logged(bench: Bench) -> None:
    alone = [bench.decide(policy, **body) for policy, body in _mixed()]
    given = bench.engine.answer_together([_read(bench, policy, **body) for policy, body in _mixed()])
    together = [json.loads(answer) for answer in given if isinstance(answer, bytes)]
    assert {answer["variant"] for answer in together} == {"champion", "challenger"}
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.pop("action"), one.pop("action"), rtol=1e-5)
        assert _said(other) == _said(one)
    records = {record.decision_id: record for record in bench.logged_decisions()}
    assert len(records) == 2 * len(alone)
    for answer, before, (policy, body) in zip(together, alone, _mixed(), strict=True):
        record, single = records[answer["decision_id"]], records[before["decision_id"]]
        assert record.policy == policy
        assert record.observation == body["observation"]
        assert (record.unit, record.mode, record.context) == (body.get("unit"), body.get("mode"), body.get("context"))
        for name in ("version", "variant", "variant_propensity", "experiment", "preference", "generation", "tenant"):
            assert getattr(record, name) == getattr(single, name)
    counted = {(tally.policy, tally.version): tally.decisions for tally in bench.engine.tally.snapshot()}
    assert sum(counted.values()) == 2 * len(alone)


def test_one_that_cannot_be_answered_leaves_the_others_alone(bench: Bench) -> None:
    asked = [
        _read(bench, "toy", observation=ROW),
        _read(bench, "toy", observation=[0.1, 1e300, 2.0]),  # not finite as float32
        _read(bench, "toy", observation=ROW, mode="nonsense"),
        _read(bench, "toy", observation=ROW),
    ]
    first, overflows, unknown, last = bench.engine.answer_together(asked)
    assert isinstance(first, bytes)
    assert isinstance(last, bytes)
    assert isinstance(overflows, InvalidInputError)
    assert overflows.field == "observation[0].x1"
    with pytest.raises(InvalidInputError) as alone:
        bench.decide("toy", observation=[0.1, 1e300, 2.0])
    assert str(overflows) == str(alone.value)
    assert isinstance(unknown, InvalidInputError)
    assert "emergency" in str(unknown)
    ids = [json.loads(answer)["decision_id"] for answer in (first, last)]
    assert sorted(record.decision_id for record in bench.logged_decisions()) == sorted(ids)


def test_a_network_that_fails_for_one_row_is_replaced_for_that_row_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = bench.engine.state.policies["box"]
    honest = live.primary.policy.act

    def picky(rows: Any, *rest: Any, **named: Any) -> Any:
        if (rows[:, 0] > 100).any():
            raise ZeroDivisionError("a network that breaks on one row")
        return honest(rows, *rest, **named)

    monkeypatch.setattr(live.primary.policy, "act", picky)
    fine, broken, also_fine = bench.engine.answer_together(
        [_read(bench, "box", observation=row, mode="normal") for row in (ROW, [101.0, 0.0, 0.0], ROW)]
    )
    assert isinstance(fine, bytes)
    assert isinstance(also_fine, bytes)
    assert isinstance(broken, RetryableError)
    errors = {tally.policy: tally.errors for tally in bench.engine.tally.snapshot()}
    assert errors["box"] == 1  # the run of all three is nobody's failure


def test_without_a_log_nobody_is_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise LakeError("the disk is full")

    monkeypatch.setattr(bench.decisions, "append", full)
    answers = bench.engine.answer_together([_read(bench, "toy", observation=ROW) for _ in range(5)])
    assert [str(answer) for answer in answers] == [
        "the decision cannot be logged now, so it was not taken; try again later"
    ] * 5
    assert all(isinstance(answer, RetryableError) for answer in answers)


def test_what_arrives_in_one_turn_shares_a_write_and_one_who_left_disturbs_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[list[int]] = []
    append = bench.decisions.append

    def counting(payloads: list[bytes]) -> None:
        writes.append([len(decisions_in(payload)) for payload in payloads])
        append(payloads)

    monkeypatch.setattr(bench.decisions, "append", counting)

    async def run() -> list[Any]:
        gather = Gather(bench.engine)

        async def ask(observation: list[float]) -> bytes:
            return await gather.ask(_read(bench, "box", observation=observation, mode="normal"))

        asked = [asyncio.ensure_future(ask([float(turn), 0.0, 0.0])) for turn in range(20)]
        await asyncio.sleep(0)
        asked[3].cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert await ask(ROW)
        return answers

    answers = asyncio.run(run())
    assert isinstance(answers[3], asyncio.CancelledError)
    assert len({json.loads(answer)["decision_id"] for answer in answers if isinstance(answer, bytes)}) == 19
    assert writes == [[20], [1]]


class _Counting:
    """An engine that answers at once, and notes how many it was asked together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def answer_together(self, questions: list[Any]) -> list[bytes]:
        self.sizes.append(len(questions))
        return [b"{}"] * len(questions)


class _Simulated(asyncio.SelectorEventLoop):
    """A loop whose time passes only while it has nothing to do: then at once."""

    def __init__(self) -> None:
        self._now = 0.0
        self.waits: list[float] = []
        selector = selectors.SelectSelector()
        poll = selector.select

        def select(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return poll(0)

        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
        self.waits.append(delay)
        return super().call_later(delay, *rest, **more)


def _simulate(work: Callable[[Gather], Coroutine[Any, Any, None]]) -> tuple[list[int], int]:
    """How many were answered together each time, and how often was waited."""
    engine = _Counting()
    with asyncio.Runner(loop_factory=_Simulated) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, _Simulated)
        runner.run(work(Gather(engine, loop.time)))  # type: ignore[arg-type]
        return engine.sizes, len(loop.waits)


def test_a_wait_is_worth_it_where_callers_come_by_the_clock() -> None:
    async def steady(gather: Gather) -> None:
        loop = asyncio.get_running_loop()
        answers: list[Any] = []
        for turn in range(8000):  # one each 50 us
            loop.call_at(50e-6 * turn, lambda: answers.append(gather.ask(None)))  # type: ignore[arg-type]
        await asyncio.sleep(8000 * 50e-6)
        await asyncio.gather(*answers)

    sizes, waits = _simulate(steady)
    assert sum(sizes) == 8000
    assert waits > 100
    assert np.mean(sizes[len(sizes) // 2 :]) > 4


def test_a_wait_is_not_worth_it_where_callers_wait_themselves() -> None:
    async def in_turn(gather: Gather) -> None:
        async def caller() -> None:
            for _ in range(1000):
                await gather.ask(None)  # type: ignore[arg-type]

        await asyncio.gather(*(caller() for _ in range(8)))

    sizes, waits = _simulate(in_turn)
    assert sum(sizes) == 8000
    assert waits <= len(sizes) / 60


def test_a_crash_leaves_nobody_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(_: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(bench.engine, "answer_together", crashes)

    async def run() -> list[Any]:
        gather = Gather(bench.engine)
        asked = [gather.ask(_read(bench, "box", observation=ROW, mode="normal")) for _ in range(3)]
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    assert [type(answer) for answer in asyncio.run(run())] == [ZeroDivisionError] * 3
