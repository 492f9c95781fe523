from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.decisions import Choice, resolve, topsis
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule, normalise

OBJECTIVES = (
    Objective(name="latency", unit="", direction="minimize", low=0.4, high=1.6),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0, high=20),
    Objective(name="energy", unit="W", direction="minimize", low=200, high=800),
)
VALUES = {
    "fast": (0.5, 12.0, 700.0),
    "wide": (0.9, 18.0, 650.0),
    "green": (1.3, 8.0, 300.0),
    "even": (0.8, 13.0, 480.0),
}


def _front(values: dict[str, tuple[float, ...]] = VALUES, half_width: float = 0.01) -> Front:
    return Front.of(
        "toy",
        OBJECTIVES,
        [Candidate(name=k, kind="policy", mean=v, half_width=(half_width,) * 3) for k, v in values.items()],
    )


def _mode(weights: tuple[float, ...], *rules: Rule) -> Mode:
    return Mode(name="emergency", preference=Preference.of(OBJECTIVES, weights), rules=rules)


def test_weights_pull_the_choice() -> None:
    front = _front()
    assert resolve(front, mode=_mode((0.8, 0.1, 0.1))).candidate.name == "fast"
    assert resolve(front, mode=_mode((0.05, 0.9, 0.05))).candidate.name == "wide"
    assert resolve(front, mode=_mode((0.05, 0.05, 0.9))).candidate.name == "green"


@pytest.mark.parametrize("normalisation", ["range", "vector", "minmax"])
def test_scores_are_topsis_of_the_competing(normalisation: str) -> None:
    front = _front()
    mode = _mode((0.5, 0.3, 0.2))
    choice = resolve(front, mode=mode, normalisation=normalisation)
    if normalisation == "range":
        expected = _topsis_in_ranges(normalise(OBJECTIVES, front.values()), np.array(mode.preference.weights))
    else:
        expected = topsis(front.values(), mode.preference.weights, [False, True, False], normalisation)
    assert choice.scores == pytest.approx(dict(zip(VALUES, expected, strict=True)))
    assert choice.certificate.score == max(choice.scores.values())
    ordered = sorted(choice.scores.values(), reverse=True)
    assert choice.certificate.margin == pytest.approx(ordered[0] - ordered[1])


def test_weighted_sum_uses_the_frozen_ranges() -> None:
    choice = resolve(_front(), mode=_mode((1, 1, 1)), method="weighted_sum")
    assert choice.scores["even"] == pytest.approx((0.8 / 1.2 + 13 / 20 + 320 / 600) / 3)


def test_rules_come_before_weights() -> None:
    rule = Rule(objective="energy", at_most=500)
    choice = resolve(_front(), mode=_mode((0.8, 0.1, 0.1), rule))
    assert choice.candidate.name == "even"
    assert set(choice.scores) == {"even", "green"}
    certificate = choice.certificate
    assert certificate.feasible
    assert (certificate.considered, certificate.excluded) == (2, 2)
    assert certificate.rules_kept == ("energy <= 500",)
    assert certificate.rules_violated == ()
    assert "(2 more broke a rule)" in certificate.why


def test_without_a_feasible_candidate_the_nearest_wins_and_it_is_said() -> None:
    rules = (Rule(objective="latency", at_most=0.6), Rule(objective="throughput", at_least=14))
    choice = resolve(_front(), mode=_mode((0.1, 0.1, 0.8), *rules))
    # Violations in ranges: fast 2/20, wide .3/1.2, green .7/1.2 + 6/20, even .2/1.2 + 1/20.
    assert choice.candidate.name == "fast"
    certificate = choice.certificate
    assert not certificate.feasible
    assert certificate.rules_kept == ("latency <= 0.6",)
    assert certificate.rules_violated == ("throughput >= 14",)
    assert certificate.runner_up == "even"
    assert certificate.why.startswith("No candidate keeps every rule of mode emergency: fast misses least")
    assert "throughput >= 14 by 2" in certificate.why
    assert "the runner-up even, which misses the rules by more and has a score" in certificate.why
    # It is the only one nearest, whatever the weights.
    assert set(certificate.holds_while.values()) == {(0.0, 1.0)}


def test_a_rule_that_the_interval_crosses_is_uncertain() -> None:
    rule = Rule(objective="latency", at_most=0.52)
    assert resolve(_front(), mode=_mode((1, 0, 0), rule)).certificate.rules_uncertain == ()
    for width in (0.05, float("inf")):
        certificate = resolve(_front(half_width=width), mode=_mode((1, 0, 0), rule)).certificate
        assert certificate.rules_uncertain == certificate.rules_kept == ("latency <= 0.52",)
        assert len(certificate.doubts) == 1
        assert certificate.doubts[0] in certificate.lines()
    assert "but its interval is not known." in certificate.doubts[0]
    certificate = resolve(_front(half_width=0.05), mode=_mode((1, 0, 0), rule)).certificate
    assert certificate.doubts == (
        "Rule latency <= 0.52 is kept by the mean 0.5, but not by its whole interval (± 0.05).",
    )


def test_why_reads_as_two_sentences() -> None:
    why = resolve(_front(), mode=_mode((0.8, 0.1, 0.1))).certificate.why
    assert why.count(". ") == 1
    assert why.endswith(".")
    assert "fast is first of 4 candidates for mode emergency; it is best at latency (0.5)" in why
    assert "For that it gives up throughput (12 Mbit/s) against 18 Mbit/s of wide and energy (700 W)" in why
    assert "the runner-up even with a score" in why


def test_why_of_a_compromise() -> None:
    why = resolve(_front(), mode=_mode((1, 1, 1))).certificate.why
    assert "even is first" in why
    assert "best at no single objective" in why


def test_a_lone_candidate() -> None:
    choice = resolve(_front({"only": (1.0, 1.0, 700.0)}), mode=_mode((1, 1, 1)))
    certificate = choice.certificate
    assert (certificate.runner_up, certificate.margin, certificate.score) == (None, None, 1.0)
    assert certificate.why.startswith("only is the only candidate for mode emergency; it has latency (1), throughput")
    assert set(certificate.holds_while.values()) == {(0.0, 1.0)}


def test_ties_go_to_the_first_name_whatever_the_order() -> None:
    mirrored = {"b": (0.5, 10.0, 400.0), "a": (0.6, 12.0, 400.0)}
    mode = _mode((0, 0, 1))
    assert resolve(_front(mirrored), mode=mode).candidate.name == "a"
    assert resolve(_front(dict(reversed(mirrored.items()))), mode=mode).candidate.name == "a"


def test_preference_in_another_order_of_objectives() -> None:
    names = ("energy", "latency", "throughput")
    mode = Mode(name="emergency", preference=Preference.of(names, {"latency": 0.8, "throughput": 0.1, "energy": 0.1}))
    assert resolve(_front(), mode=mode).scores == resolve(_front(), mode=_mode((0.8, 0.1, 0.1))).scores


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.floats(0.02, 1)] * 3), st.sampled_from(["topsis", "weighted_sum"]))
def test_certificate_holds_inside_its_range_and_not_just_beyond(weights: tuple[float, ...], method: str) -> None:
    front = _front()
    choice = resolve(front, mode=_mode(weights), method=method)
    base = np.array(choice_weights(choice, weights))
    for j, (low, high) in enumerate(choice.certificate.holds_while.values()):
        assert low <= base[j] + 1e-12
        assert high >= base[j] - 1e-12
        for target in np.linspace(low, high, 7)[1:-1]:
            assert _winner(front, base, j, target, method) == choice.candidate.name
        for border, beyond in ((low, low - 1e-4), (high, high + 1e-4)):
            if 0 < border < 1 and 0 <= beyond <= 1:
                assert _winner(front, base, j, beyond, method) != choice.candidate.name


def choice_weights(choice: Choice, weights: tuple[float, ...]) -> tuple[float, ...]:
    assert set(choice.certificate.holds_while) == {o.name for o in OBJECTIVES}
    return Preference.of(OBJECTIVES, weights).weights


def _topsis_in_ranges(goodness: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As Hwang & Yoon (1981), on columns that the frozen ranges have normalised."""
    weighted = goodness * weights
    to_ideal = np.linalg.norm(weighted - weighted.max(axis=0), axis=1)
    to_worst = np.linalg.norm(weighted - weighted.min(axis=0), axis=1)
    return to_worst / (to_ideal + to_worst)


def _winner(front: Front, base: np.ndarray, j: int, target: float, method: str) -> str:
    others = np.delete(base, j)
    moved = np.insert(others / others.sum() * (1 - target), j, target)
    if method == "topsis":
        scores = _topsis_in_ranges(normalise(OBJECTIVES, front.values()), moved)
    else:
        scores = normalise(OBJECTIVES, front.values()) @ moved
    return front.candidates[int(scores.argmax())].name


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=8), st.tuples(*[st.floats(0.01, 1)] * 3))
def test_any_front_resolves_to_plain_json(rows: list[tuple[float, ...]], weights: tuple[float, ...]) -> None:
    values = {f"c{i}": (0.4 + r[0], 20 * r[1], 200 + 600 * r[2]) for i, r in enumerate(rows)}
    choice = resolve(_front(values), mode=_mode(weights, Rule(objective="energy", at_most=400)))
    document = json.loads(json.dumps(choice.certificate.to_dict(), allow_nan=False))
    assert document["candidate"] == choice.candidate.name
    assert document["feasible"] == (choice.candidate.mean[2] <= 400)
    assert set(document["holds_while"]) == {"latency", "throughput", "energy"}


def test_bad_requests_name_the_field() -> None:
    short = Mode(name="half", preference=Preference.of(OBJECTIVES[:2], [1, 1]))
    with pytest.raises(InvalidInputError, match=r"mode 'half' has 2 weights \(latency, throughput\); .* 3 objectives"):
        resolve(_front(), mode=short)
    with pytest.raises(
        InvalidInputError, match="unknown method 'vote'; allowed: knee, lexicographic, nash, topsis, vi"
    ):
        resolve(_front(), mode=_mode((1, 1, 1)), method="vote")
    empty = Front(scenario="toy", objectives=OBJECTIVES, candidates=())
    with pytest.raises(InvalidInputError, match="the front of toy has no candidate"):
        resolve(empty, mode=_mode((1, 1, 1)))
