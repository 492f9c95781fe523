"""Candidates of every kind stand in one archive with their evaluations, and one front comes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError, UnknownNameError
from rlaas.objectives import Objective
from rlaas.optimization.archive import Contender, EvidenceArchive

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="rate", unit="Mbit/s", direction="maximize", low=0.0, high=100.0),
)
POLICY = Contender(name="policy@normal", kind="policy", parameters={"preference": {"latency": 0.5, "rate": 0.5}})
STATIC = Contender(name="static-3", kind="configuration", parameters={"tunable": "static", "values": {"power": 3.0}})
TUNED = Contender(name="größe", kind="hyperparameters", parameters={"lr": 0.001})


def _archive() -> EvidenceArchive:
    return EvidenceArchive("toy", OBJECTIVES, reference_hash="abc")


def _filled(seed: int = 0) -> EvidenceArchive:
    rng = np.random.default_rng(seed)
    archive = _archive()
    world = rng.normal(0, 0.5, (8, 2))
    for contender, mean in ((POLICY, [2.0, 50.0]), (STATIC, [4.0, 80.0]), (TUNED, [5.0, 70.0])):
        archive.add(contender, range(8), world + rng.normal(0, 0.05, (8, 2)) + mean)
    return archive


def test_kinds_share_one_front() -> None:
    archive = _filled()
    front = archive.front()
    assert [(c.name, c.kind) for c in front.candidates] == [("policy@normal", "policy"), ("static-3", "configuration")]
    assert (front.scenario, front.reference_hash, front.objectives) == ("toy", "abc", OBJECTIVES)
    assert front.candidates[0].parameters == POLICY.parameters
    assert front.candidates[0].seeds == tuple(range(8))


def test_half_widths_are_students() -> None:
    archive = _filled()
    _, values = archive.samples("static-3")
    low, high = stats.t.interval(0.95, 7, loc=values.mean(0), scale=stats.sem(values))
    candidate = archive.candidate("static-3")
    np.testing.assert_allclose(candidate.mean, values.mean(0))
    np.testing.assert_allclose(candidate.half_width, (high - low) / 2)


def test_one_seed_has_no_interval() -> None:
    archive = _archive()
    archive.add(POLICY, [3], [[1.0, 2.0]])
    assert archive.candidate("policy@normal").half_width == (np.inf, np.inf)
    assert [one.status for one in archive.standings()] == ["undecided"]


def test_means_are_taken_on_shared_seeds_only() -> None:
    archive = _archive()
    archive.add(POLICY, [1, 2], [[1.0, 9.0], [3.0, 9.0]])
    archive.add(STATIC, [2, 7], [[2.0, 9.0], [0.0, 90.0]])  # seed 7 is an easy world
    front = archive.front()
    assert [(c.name, c.mean, c.seeds) for c in front.candidates] == [("static-3", (2.0, 9.0), (2,))]
    archive.add(TUNED, [5], [[1.0, 1.0]])
    with pytest.raises(InvalidInputError, match="no seed on which all of 3 candidates were evaluated"):
        archive.front()
    assert len(archive.front(["größe"]).candidates) == 1


def test_evidence_grows_and_repeats_are_harmless() -> None:
    archive = _archive()
    archive.add(POLICY)
    assert archive.samples(POLICY.name)[1].shape == (0, 2)
    archive.add(POLICY, [1], [[1.0, 2.0]])
    archive.add(POLICY, [1, 2], [[1.0 + 1e-12, 2.0], [3.0, 4.0]])
    assert archive.samples(POLICY.name)[0] == (1, 2)
    assert archive.samples(POLICY.name)[1].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (len(archive), archive.contender(POLICY.name)) == (1, POLICY)


def test_failed_evaluations_are_left_out() -> None:
    archive = _archive()
    archive.add(POLICY, [1, 2, 3], [[1.0, 2.0], [np.nan, 4.0], [5.0, 6.0]])
    assert archive.samples(POLICY.name)[0] == (1, 3)
    assert archive.missing([POLICY.name], [1, 2, 3]) == 1
    archive.add(POLICY, [2], [[3.0, 4.0]])
    assert archive.missing([POLICY.name], [1, 2, 3]) == 0


def test_tables_are_minimised_ranges() -> None:
    archive = _archive()
    archive.add(POLICY, [1, 2], [[1.0, 25.0], [2.0, 50.0]])
    archive.add(STATIC, [2], [[10.0, 100.0]])
    np.testing.assert_array_equal(
        archive.table([STATIC.name, POLICY.name], [2, 1]),
        [[[1.0, -1.0], [np.nan, np.nan]], [[0.2, -0.5], [0.1, -0.25]]],
    )


def test_directions_count_in_comparisons() -> None:
    archive = _filled()
    found = archive.compare("static-3", "größe")
    assert (found.verdict, found.paired) == ("dominates", True)
    assert archive.compare("größe", "static-3").verdict == "dominated"
    assert archive.compare("policy@normal", "static-3").verdict == "incomparable"
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_standings_name_who_dominates_and_how_sure_that_is() -> None:
    by_name = {one.name: one for one in _filled().standings(confidence=0.99)}
    assert by_name["größe"].status == "dominated"
    assert by_name["größe"].dominated_by == "static-3"
    assert by_name["policy@normal"].status == by_name["static-3"].status == "member"
    assert all(one.confidence is not None and 0.99 <= one.confidence <= 1 for one in by_name.values())
    assert json.loads(json.dumps(by_name["größe"].to_dict())) == by_name["größe"].to_dict()


def test_a_candidate_without_evidence_is_no_rival() -> None:
    archive = _filled()
    archive.add(Contender(name="broken", kind="policy"))
    assert [one.status for one in archive.standings()] == ["member", "member", "dominated", "undecided"]


def test_standings_of_nothing() -> None:
    assert _archive().standings() == ()


@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([0.0, 0.02, 0.2]))
def test_never_are_all_dominated(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    archive = _archive()
    means = rng.normal(50, 5, (6, 2))
    for i, mean in enumerate(means):
        archive.add(Contender(name=str(i), kind="policy"), range(5), mean + rng.normal(0, 0.1, (5, 2)))
    standings = archive.standings(tolerance=tolerance)
    assert any(one.status != "dominated" for one in standings)
    status = {one.name: one.status for one in standings}
    if tolerance == 0:
        best = archive.front().candidates
        assert all(status[c.name] != "dominated" for c in best)


@pytest.mark.parametrize(
    ("seeds", "values", "message"),
    [
        ([1, 1], [[1, 2], [1, 2]], "seed 1 occurs twice"),
        ([-1], [[1, 2]], "seeds must be whole numbers >= 0, got -1"),
        ([True], [[1, 2]], "got True"),
        ([1.5], [[1, 2]], "got 1.5"),
        ([5], [[1, 2, 3]], r"shape \(1, 3\); expected \(1, 2\).*latency, rate"),
        ([5], None, r"shape \(0, 2\); expected \(1, 2\)"),
        ([], [[1, 2]], r"shape \(1, 2\); expected \(0, 2\)"),
        ([5], [["fast", 2]], "values of 'static-3' must be numbers"),
        ([5], [[np.inf, 2]], "within 1e\\+100 ranges"),
        ([5], [[1e200, 2]], "within 1e\\+100 ranges"),
    ],
)
def test_bad_evidence_changes_nothing(seeds: list[int], values: object, message: str) -> None:
    archive = _filled()
    with pytest.raises(InvalidInputError, match=message):
        archive.add(STATIC, seeds, values)  # type: ignore[arg-type]
    assert archive.samples("static-3")[0] == tuple(range(8))


def test_contradictions_are_refused() -> None:
    archive = _filled()
    with pytest.raises(ConflictError, match=r"'static-3' has .* on seed 3, now \[9.0, 9.0\]"):
        archive.add(STATIC, [9, 3], [[1.0, 1.0], [9.0, 9.0]])
    assert archive.samples("static-3")[0] == tuple(range(8))
    with pytest.raises(ConflictError, match="with another kind or other parameters"):
        archive.add(Contender(name="static-3", kind="policy"), [9], [[1.0, 1.0]])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no contender 'nobody' in the archive of toy; it has 3, policy@normal"):
        _filled().candidate("nobody")
    with pytest.raises(InvalidInputError, match=r"'static-3' has no evaluation on seeds \[99\]"):
        _filled().candidate("static-3", [1, 99])
    with pytest.raises(InvalidInputError, match="at least one candidate"):
        _archive().front()


@pytest.mark.parametrize("confidence", [0.5, 1.0, np.nan, True, "high"])
def test_confidence_is_checked(confidence: object) -> None:
    with pytest.raises(InvalidInputError, match=r"confidence must be a number in \(0.5, 1\)"):
        _filled().standings(confidence=confidence)  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerance", [-0.1, np.inf, np.nan, True, "some"])
def test_tolerance_is_checked(tolerance: object) -> None:
    with pytest.raises(InvalidInputError, match="tolerance must be a finite number >= 0"):
        _filled().compare("static-3", "größe", tolerance=tolerance)  # type: ignore[arg-type]


def test_archives_need_objectives_and_contenders_names() -> None:
    with pytest.raises(ConfigurationError, match=r"at least one objective.*got \(none\)"):
        EvidenceArchive("toy", [])
    with pytest.raises(ConfigurationError, match="latency, latency"):
        EvidenceArchive("toy", [OBJECTIVES[0]] * 2)
    with pytest.raises(InvalidInputError, match="name must be text"):
        Contender(name="", kind="policy")
    with pytest.raises(InvalidInputError, match="allowed: configuration, hyperparameters, policy"):
        Contender(name="x", kind="plan")  # type: ignore[arg-type]
