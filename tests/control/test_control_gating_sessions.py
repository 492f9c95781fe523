"""Gates that declare an estimator of sessions: a solved task in a real lake, sessions with holes, the whole way."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from session_logs import EPSILON, SECOND_US, greedy_task, log_sessions, task_bundles
from support.bundles import policy_bundle
from support.gate_kit import reads_of

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.gating import GateDeclaration, Override
from rlaas.control.gating.evidence import judge_version
from rlaas.control.gating.logged_sessions import LoggedSessions, read_sessions
from rlaas.control.service import ControlService
from rlaas.errors import ConflictError, InvalidInputError
from rlaas.experiments.gate import Verdict
from rlaas.experiments.sequential_off_policy import (
    SESSION_ESTIMATORS,
    SessionLog,
    estimate_sessions,
    fitted_q_evaluation,
)
from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.settings import load_settings

HORIZON, DISCOUNT, SESSIONS = 3, 0.9, 1200
DECLARED: dict[str, Any] = {
    "value": "throughput",
    "estimator": "wpdis",
    "horizon": HORIZON,
    "discount": DISCOUNT,
    "window_s": 3e8,
    "max_age_s": 3e8,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return task_bundles(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def bundles(folders: list[Path]) -> list[BundlePolicy]:
    return [load_bundle(folder) for folder in folders]


def logged_task(
    bundles: list[BundlePolicy], judged: int, *, n: int = SESSIONS, steps: int = HORIZON + 1, seed: int = 0
) -> Any:
    """The solved task for the judgement of a version, and sessions that version 1 logged of it."""
    task = greedy_task(bundles[0], bundles[1], bundles[judged])
    return task, task.log(n, steps, seed)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, bundles: list[BundlePolicy]) -> Lake:
    found = Lake(tmp_path_factory.mktemp("lake") / "lake")
    log_sessions(found, logged_task(bundles, 1)[1])
    return found


def sessions_of(lake: Lake, bundle: BundlePolicy, **declared: Any) -> LoggedSessions:
    return read_sessions(lake, "toy", GateDeclaration(**{**DECLARED, **declared}), bundle, now_us=_now(lake))


def _now(lake: Lake) -> int:
    return int(max(lake.read("silver.transitions", ["time_us"]).column("time_us").to_pylist())) + SECOND_US


def verdict_of(
    lake: Lake, bundle: BundlePolicy, *, explore: bool = False, epsilon: float = 0.0, **declared: Any
) -> Verdict:
    given = GateDeclaration(**{**DECLARED, **declared})
    return judge_version(
        given.policy(1),
        bundle,
        sessions_of(lake, bundle, **declared),
        subject="toy:2",
        explore=explore,
        epsilon=epsilon,
        now_us=_now(lake),
    )


@pytest.mark.parametrize("judged", [1, 2])
def test_every_estimator_holds_what_dynamic_programming_gives(
    lake: Lake, bundles: list[BundlePolicy], judged: int
) -> None:
    task, log = logged_task(bundles, judged)
    truth = task.value(HORIZON, DISCOUNT)
    verdict = verdict_of(lake, bundles[judged])
    assert {line.estimator for line in verdict.lines} == set(SESSION_ESTIMATORS)
    inside = np.asarray(log.step) < HORIZON
    short = SessionLog(
        **{k: np.asarray(v)[inside] for k in SessionLog.__dataclass_fields__ if (v := getattr(log, k)) is not None}
    )
    options: dict[str, Any] = {"horizon": HORIZON, "discount": DISCOUNT}
    for line in verdict.lines:
        assert line.refused is None
        # The log is the one of `bundles[1]`'s task, whose sessions do not depend on who is judged.
        assert line.low is not None
        assert line.high is not None
        assert line.low < truth < line.high
        assert line.n == SESSIONS
        if line.estimator in ("pdis", "wpdis"):
            by_hand = estimate_sessions(short, estimator=line.estimator, **options)  # type: ignore[arg-type]
            assert (line.value, line.low) == (pytest.approx(by_hand.value), pytest.approx(by_hand.low))
        if line.estimator == "fqe":
            table = fitted_q_evaluation(short, **options)
            assert line.value == pytest.approx(table.value, abs=2e-3)  # another basis of the same three states
            assert line.effective_sample_size == pytest.approx(table.effective_sample_size, rel=0.01)


def test_the_interval_of_the_declared_one_decides(lake: Lake, bundles: list[BundlePolicy]) -> None:
    for estimator in SESSION_ESTIMATORS:
        better, worse = (verdict_of(lake, version, estimator=estimator) for version in bundles[1:])
        assert (better.outcome, worse.outcome) == ("passed", "failed")
        assert better.lines[0].estimator == estimator
        assert better.lift_low is not None
        assert better.lift_low > 0
    same = verdict_of(lake, bundles[0], explore=True, epsilon=EPSILON, margin=0.01)
    # The version that logged: every weight is 1, and its value is what was logged.
    assert same.outcome == "passed"
    assert same.lift == pytest.approx(0, abs=1e-9)
    assert same.lines[0].effective_sample_size == pytest.approx(SESSIONS)
    assert "over the first 3 steps of a session, discounted by 0.9" in same.reason


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"min_effective_sample_size": 1000}, r"no overlap: \d+ effective of 1200 logged; at least 1000 are needed"),
        ({"min_effective_share": 0.9}, "no overlap: .* at least 1080 are needed"),
        ({"horizon": 40}, r"\d+ of 1200 sessions were cut before the horizon of 40 steps"),
        ({"value": "orders"}, "too short: 0 sessions; 0 of .* without orders"),
    ],
)
def test_too_little_is_no_verdict(lake: Lake, bundles: list[BundlePolicy], changed: dict[str, Any], says: str) -> None:
    verdict = verdict_of(lake, bundles[1], **changed)
    assert verdict.outcome == "no_verdict"
    assert re.search(says, verdict.reason)


def test_sessions_that_cannot_be_placed_are_left_out_and_counted(tmp_path: Path, bundles: list[BundlePolicy]) -> None:
    lake = Lake(tmp_path / "lake")
    _, log = logged_task(bundles, 1, n=40, steps=5)
    session, step = np.asarray(log.session), np.asarray(log.step)
    log_sessions(lake, log, seed=1)
    whole = sessions_of(lake, bundles[1])
    counted = len(whole.rows.reward)
    assert counted == int((step < HORIZON).sum())
    assert dict(whole.rows.left_out) == {"beyond the horizon": int((step >= HORIZON).sum())}
    # The same again, with a hole after the first step of session 7, no steps in 8, and every step twice in 9.
    holes = {
        "step": lambda row: (
            None if row["session"] == 8 else int(row["step"]) + (row["session"] == 7 and row["step"] > 0)
        )
    }
    log_sessions(lake, log, seed=2, **holes)
    log_sessions(lake, replace(log), seed=3, session=lambda row: f"3/{min(row['session'], 9):06d}")
    found = sessions_of(lake, bundles[1])
    left = dict(found.rows.left_out)
    assert left["without session and step"] == int((session == 8).sum())
    assert left["of a session that repeats a step"] == int((session >= 9).sum())
    seventh = int((session == 7).sum())
    if seventh > 1:
        assert left["after a gap"] == seventh - 1
        assert left["of a session that was cut before the horizon"] == 1
    assert found.rows.read == 3 * len(session)
    assert counted + sum(left.values()) + (len(found.rows.reward) - counted) == found.rows.read


def test_an_episode_begins_where_one_has_ended(tmp_path: Path, bundles: list[BundlePolicy]) -> None:
    lake = Lake(tmp_path / "lake")
    _, log = logged_task(bundles, 1, n=60, steps=HORIZON)
    # All in one session, one after another; the last step of each ends it.
    session, step = np.asarray(log.session), np.asarray(log.step)
    order = np.lexsort((step, session))
    place = np.empty(len(order), dtype=int)
    place[order] = np.arange(len(order))
    last = np.r_[session[order][1:] != session[order][:-1], True]
    ended = np.empty(len(order), dtype=bool)
    ended[order] = last
    log_sessions(lake, replace(log, session=np.zeros(len(order), dtype=int), step=place, terminated=ended), seed=4)
    found = sessions_of(lake, bundles[1])
    length = np.bincount(session)
    begins = np.cumsum(length) - length
    early = begins <= begins[-1] + length[-1] - length.max()  # the last ones might not be seen to their end
    assert found.n == early.sum() >= 58
    np.testing.assert_array_equal(np.bincount(found.session), length[early])
    assert sum(found.rows.left_out.values()) == length[~early].sum()
    # They are of one unit, so that their interval would be that of one.
    assert verdict_of(lake, bundles[1]).outcome == "no_verdict"
    assert "at least 2 units" in verdict_of(lake, bundles[1]).reason


def test_sessions_that_began_late_are_left_out_whatever_became_of_them(
    tmp_path: Path, bundles: list[BundlePolicy]
) -> None:
    lake = Lake(tmp_path / "lake")
    _, log = logged_task(bundles, 1, n=50, steps=HORIZON)
    start = 1_800_000_000 * SECOND_US
    log_sessions(lake, log, seed=5, start_us=start)
    late = np.asarray(log.step) < 2  # of those that began three seconds later only two steps are there yet
    cut = SessionLog(
        **{k: np.asarray(v)[late] for k in SessionLog.__dataclass_fields__ if (v := getattr(log, k)) is not None}
    )
    log_sessions(lake, cut, seed=6, start_us=start + 3 * SECOND_US)
    found = sessions_of(lake, bundles[1])
    assert found.n == 50  # not those of the second batch that ended quickly: the others would be missing
    assert found.rows.left_out["of a session that began too late to be seen to its end"] > 0


def test_only_the_newest_sessions_are_taken(
    lake: Lake, bundles: list[BundlePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = sessions_of(lake, bundles[1])
    monkeypatch.setattr("rlaas.control.gating.logged_sessions.MOST_ROWS", 500)
    some = sessions_of(lake, bundles[1])
    assert 490 < len(some.rows.reward) <= 500
    assert some.rows.left_out["older"] == len(everything.rows.reward) - len(some.rows.reward)
    monkeypatch.setattr("rlaas.control.gating.logged_sessions.MOST_STEPS", 90)
    assert sessions_of(lake, bundles[1]).n == 90 // HORIZON


def test_days_are_read_from_the_newest_on_until_there_are_enough_whole_sessions(
    tmp_path: Path, bundles: list[BundlePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, day_us = Lake(tmp_path / "lake"), 86_400 * SECOND_US
    _, log = logged_task(bundles, 1, n=20, steps=HORIZON + 1)
    begin = 20_000 * day_us
    for day in range(4):
        # All of a day's sessions begin in its last two seconds, and go on into the next one.
        log_sessions(lake, log, seed=day, start_us=begin + (day + 1) * day_us - 2 * SECOND_US)
    everything = sessions_of(lake, bundles[1])
    assert everything.n == 80
    held = reads_of(lake, monkeypatch)
    monkeypatch.setattr("rlaas.control.gating.logged_sessions.MOST_ROWS", 30)
    some = sessions_of(lake, bundles[1])
    assert held.pop(0) == everything.rows.read  # for the time of the judgement
    assert len(held) == 2  # the fifth day, with the ends of sessions, and the fourth
    assert some.n < everything.n
    for name in ("reward", "propensity", "observation"):
        wanted, found = getattr(everything.rows, name), getattr(some.rows, name)
        assert len(found) <= 30
        np.testing.assert_array_equal(found, wanted[-len(found) :])
    assert some.rows.left_out["after a gap, or of a session that began on a day not read"] > 0
    assert some.rows.read == sum(held) == len(some.rows.reward) + sum(some.rows.left_out.values())


def test_actions_in_a_box_are_weighed_by_densities(tmp_path: Path) -> None:
    bundle = load_bundle(policy_bundle(tmp_path / "box", kind="box", actions=1, conditioned=False, seed=3))
    lake, rng, n = Lake(tmp_path / "lake"), np.random.default_rng(0), 300
    observation = rng.normal(size=(2 * n, 3)).astype(np.float32)
    action, density = bundle.act(observation, rng=rng, epsilon=0.2)
    assert density is not None
    log = SessionLog(
        session=np.repeat(np.arange(n), 2),
        step=np.tile([0, 1], n),
        reward=rng.normal(size=2 * n),
        terminated=np.tile([False, True], n),
        propensity=density,
        evaluation_probability=density,
        action=action[:, 0],
        features=observation,
    )
    log_sessions(lake, log)
    same = verdict_of(lake, bundle, explore=True, epsilon=0.2, horizon=2, margin=0.01)
    assert {line.estimator for line in same.lines} == {"pdis", "wpdis"}
    assert same.lines[0].value == pytest.approx(same.reference_value)
    assert same.outcome == "passed"
    assert "has no density" in verdict_of(lake, bundle, horizon=2).reason
    with pytest.raises(InvalidInputError, match="allowed: dr, ipw, pdis, sndr, snipw, wpdis"):
        GateDeclaration(**{**DECLARED, "estimator": "fqe"}).check(bundle)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"horizon": None}, "'wpdis' needs a horizon"),
        ({"estimator": "snipw"}, "horizon goes with an estimator of sessions: pdis, wpdis, pddr, fqe"),
        ({"estimator": "snipw", "horizon": None}, "discount goes with an estimator of sessions"),
        ({"horizon": 0}, "greater than or equal to 1"),
        ({"discount": 1.01}, "less than or equal to 1"),
        ({"discount": 0.0}, "greater than 0"),
    ],
)
def test_what_is_declared_of_sessions_has_to_fit(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GateDeclaration(**{**DECLARED, **given})
    whole = GateDeclaration(value="throughput", estimator="fqe", horizon=5)
    assert whole.metric() == "throughput over the first 5 steps of a session"
    assert whole.policy(7).estimator == "fqe"


@pytest.mark.parametrize("estimator", ["wpdis", "fqe"])
def test_a_gate_of_sessions_stands_before_live_traffic(
    tmp_path: Path, folders: list[Path], bundles: list[BundlePolicy], estimator: str
) -> None:
    settings = load_settings(home=tmp_path / "home")
    registry = Registry(settings)
    for folder in folders:
        registry.register("toy", folder)
    control = ControlService(settings)
    control.promote("toy", 1)
    log_sessions(Lake(settings.lake_root), logged_task(bundles, 1, n=SESSIONS, seed=8)[1])
    control.gates.declare("toy", GateDeclaration(value="throughput", estimator=estimator, horizon=HORIZON))
    with pytest.raises(ConflictError, match=f"toy:3 may not get live traffic: failed: {estimator} gives") as refused:
        control.promote("toy", 3)
    assert "effective sample size" in refused.value.message
    control.promote("toy", 2)
    assert [(e["kind"], e["version"]) for e in control.gates.history("toy")] == [
        ("passed", 2),
        ("refused", 3),
        ("declared", None),
    ]
    report = control.gates.history("toy")[0]["report"]
    assert report["verdict"]["lines"][0]["n"] == SESSIONS
    assert report["rows"]["left_out"]["beyond the horizon"] > 0
    with pytest.raises(ConflictError, match="passes already"):
        control.gates.promise("toy", 2, Override("to be sure"))
