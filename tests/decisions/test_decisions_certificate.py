from __future__ import annotations

import json
import math

import numpy as np
import pytest
from decision_kit import Columns, Unsigned, curved_front, front_of, mode_of, tables, weight_vectors
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from rlaas.decisions import METHODS, resolve
from rlaas.decisions.region import wilson_interval
from rlaas.decisions.rules import RuleBook, RuleFile
from rlaas.decisions.segments import simplex_sample
from rlaas.errors import InvalidInputError
from rlaas.fronts import Front
from rlaas.objectives import Objective, Rule, normalise


def _without(front: Front, name: str) -> Front:
    left = tuple(c for c in front.candidates if c.name != name)
    return Front(scenario=front.scenario, objectives=front.objectives, candidates=left)


class TestRegion:
    @settings(deadline=None, max_examples=40)
    @given(rows=tables(size=3), weights=weight_vectors(3))
    def test_radius_of_the_weighted_sum_is_the_linear_programmes(
        self, rows: np.ndarray, weights: tuple[float, ...]
    ) -> None:
        """Least half L1 distance to weights under which a rival draws level, by scipy for each rival."""
        front = front_of(rows)
        choice = resolve(front, mode=mode_of(weights), method="weighted_sum")
        goodness = normalise(front.objectives, rows)
        winner = int(choice.candidate.name[1:])
        share = np.array(weights) / sum(weights)
        radii = []
        for rival in range(len(rows)):
            if rival == winner:
                continue
            # Variables: up [3] and down [3], the weight given to and taken from each objective.
            lead = goodness[winner] - goodness[rival]
            found = linprog(
                np.full(6, 0.5),
                A_ub=np.concatenate([lead, -lead])[None],
                b_ub=[-lead @ share],
                A_eq=[[1, 1, 1, -1, -1, -1]],
                b_eq=[0],
                bounds=[(0, None)] * 3 + [(0, w) for w in share],
            )
            # With all weight on the objective where it leads least the rival is as near as it comes.
            if lead.min() <= 0:
                radii.append(found.fun)
            assert (found.status == 0) == (lead.min() <= 0) or abs(lead.min()) < 1e-6
        region = choice.certificate.region
        assert region.radius_exact
        if radii:
            assert region.radius == pytest.approx(min(radii), abs=1e-7)
        else:
            assert region.radius is None

    @settings(deadline=None, max_examples=10)
    @given(weights=weight_vectors(3), seed=st.integers(0, 1000), method=st.sampled_from(["topsis", "vikor", "nash"]))
    def test_the_radius_found_is_reached(self, weights: tuple[float, ...], seed: int, method: str) -> None:
        """It is an upper bound of what is safe, but a close one: half of it is safe in 20 random directions."""
        front = curved_front(12, seed)
        choice = resolve(front, mode=mode_of(weights), method=method)
        radius = choice.certificate.region.radius
        assert not choice.certificate.region.radius_exact
        assert radius is not None
        share = np.array(weights) / sum(weights)
        for other in np.random.default_rng(seed).dirichlet(np.ones(3), 20):
            distance = 0.5 * np.abs(other - share).sum()
            near = share + min(0.5 * radius / distance, 1.0) * (other - share)
            assert resolve(front, mode=mode_of(near), method=method).candidate == choice.candidate

    def test_share_of_two_objectives_by_hand(self) -> None:
        """c01 wins between the crossings of its line with the others': 1/4 < w_b < 3/4."""
        objectives = tuple(Objective(name=n, unit="", direction="maximize", low=0, high=1) for n in "ab")
        front = front_of([[1.0, 0.0], [0.75, 0.75], [0.0, 1.0]], objectives)
        certificate = resolve(front, mode=mode_of([0.5, 0.5]), method="weighted_sum").certificate
        assert certificate.candidate == "c01"
        assert certificate.holds_while["b"] == pytest.approx((0.25, 0.75))
        assert certificate.region.radius == pytest.approx(0.25)
        low, high = certificate.region.share_interval
        assert low < 0.5 < high
        assert high - low < 0.05
        half_spaces = {h.rival: h.coefficients for h in certificate.region.half_spaces}
        assert half_spaces == {"c00": {"a": -0.25, "b": 0.75}, "c02": {"a": 0.75, "b": -0.25}}

    @settings(deadline=None, max_examples=40)
    @given(rows=tables(size=3), weights=weight_vectors(3), other=weight_vectors(3))
    def test_half_spaces_are_the_region(
        self, rows: np.ndarray, weights: tuple[float, ...], other: tuple[float, ...]
    ) -> None:
        front = front_of(rows)
        choice = resolve(front, mode=mode_of(weights), method="weighted_sum")
        share = np.array(other) / sum(other)
        leads = [
            sum(c * w for c, w in zip(h.coefficients.values(), share, strict=True))
            for h in choice.certificate.region.half_spaces
        ]
        assume(not leads or abs(min(leads)) > 1e-9)
        inside = all(lead > 0 for lead in leads)
        assert (resolve(front, mode=mode_of(other), method="weighted_sum").candidate == choice.candidate) == inside

    def test_the_interval_covers_the_share(self) -> None:
        """Of 400 samples of 500 weights 95 % have the true share, 1/2, inside: 380 +- 4 standard deviations of 4.4."""
        covered = 0
        for seed in range(400):
            drawn = simplex_sample(np.random.default_rng(seed), 500, 2)[:, 1]
            low, high = wilson_interval(int(((drawn > 0.25) & (drawn < 0.75)).sum()), 500)
            covered += low < 0.5 < high
        assert 362 <= covered <= 398

    def test_nobody_else_can_win(self) -> None:
        region = resolve(front_of([[0.5, 0.5]]), mode=mode_of([1, 1])).certificate.region
        assert (region.radius, region.radius_exact, region.share, region.share_interval) == (None, True, 1.0, (1, 1))

    def test_the_same_bits_on_every_call(self) -> None:
        front, mode = curved_front(20), mode_of([0.5, 0.3, 0.2])
        assert resolve(front, mode=mode) == resolve(front, mode=mode)


class TestRuleChanges:
    FRONT = front_of([[0.1, 0.2, 0.9], [0.4, 0.6, 0.5], [0.7, 0.9, 0.3], [0.9, 0.95, 0.1]])

    def test_by_hand(self) -> None:
        """Only a (minimised) counts, so the feasible candidate with the least a wins."""
        mode = mode_of([1, 0, 0], Rule(objective="b", at_least=0.5), Rule(objective="c", at_most=0.6))
        certificate = resolve(self.FRONT, mode=mode, method="weighted_sum").certificate
        assert certificate.candidate == "c01"
        b, c = certificate.rule_changes
        assert (b.rule, c.rule) == ("b >= 0.5", "c <= 0.6")
        assert (b.tighten, b.tighten_bound, b.tightened) == (pytest.approx(0.1), pytest.approx(0.6), "c02")
        # Without either rule alone the other one still keeps c00 out.
        assert (b.loosen, b.loosen_bound, b.loosened, b.without) == (None, None, None, "c01")
        assert (c.tighten, c.tighten_bound, c.tightened) == (pytest.approx(0.1), pytest.approx(0.5), "c02")
        assert (c.loosen, c.without) == (None, "c01")
        alone = resolve(self.FRONT, mode=mode_of([1, 0, 0], mode.rules[0]), method="weighted_sum").certificate
        (b,) = alone.rule_changes
        assert (b.loosen, b.loosen_bound, b.loosened) == (pytest.approx(0.3), pytest.approx(0.2), "c00")
        assert b.without == "c00"

    def test_beyond_the_last_that_keeps_the_rule(self) -> None:
        rule = Rule(objective="a", at_most=0.2)
        (change,) = resolve(self.FRONT, mode=mode_of([0, 1, 0], rule)).certificate.rule_changes
        assert (change.tighten_bound, change.tightened) == (pytest.approx(0.1), "c00")
        lines = resolve(self.FRONT, mode=mode_of([0, 1, 0], rule)).certificate.lines()
        assert any("beyond which nobody keeps the rules and it misses them least" in line for line in lines)

    @settings(deadline=None, max_examples=60)
    @given(st.data())
    def test_the_choice_stays_up_to_the_bound_and_not_beyond(self, data: st.DataObject) -> None:
        rows = data.draw(tables(size=3))
        mode_rules = (
            Rule(objective="a", at_most=data.draw(st.integers(0, 12)) / 12 + 0.01),
            Rule(objective="b", at_least=data.draw(st.integers(0, 12)) / 12 - 0.01),
        )
        weights = data.draw(weight_vectors(3))
        method = data.draw(st.sampled_from(sorted(METHODS)))
        front = front_of(rows)
        choice = resolve(front, mode=mode_of(weights, *mode_rules), method=method)

        def resolved(j: int, bound: float) -> tuple[str, bool]:
            moved = list(mode_rules)
            moved[j] = Rule(objective="a", at_most=bound) if j == 0 else Rule(objective="b", at_least=bound)
            certificate = resolve(front, mode=mode_of(weights, *moved), method=method).certificate
            return certificate.candidate, certificate.feasible

        own = (choice.candidate.name, choice.certificate.feasible)
        for j, change in enumerate(choice.certificate.rule_changes):
            sign = 1 if j == 0 else -1
            bound = mode_rules[j].at_most if j == 0 else mode_rules[j].at_least
            assert bound is not None
            if change.tighten_bound is not None:
                assert resolved(j, change.tighten_bound + sign * 1e-6)[0] == own[0]
                beyond = resolved(j, change.tighten_bound - sign * 1e-6)
                assert beyond != own
                # Where nobody keeps the rules, violations can be equal at the border and part right behind it.
                assert not own[1] or beyond[0] == change.tightened
            else:
                assert resolved(j, bound - sign * 5.0) == own
            if change.loosen_bound is not None:
                if abs(change.loosen_bound - bound) > 2e-6:
                    assert resolved(j, change.loosen_bound - sign * 1e-6)[0] == own[0]
                beyond = resolved(j, change.loosen_bound + sign * 1e-6)
                assert beyond[0] != own[0]
                assert not own[1] or beyond[0] == change.loosened
            else:
                assert resolved(j, bound + sign * 5.0)[0] == own[0]
            left = [rule for i, rule in enumerate(mode_rules) if i != j]
            assert resolve(front, mode=mode_of(weights, *left), method=method).candidate.name == change.without


class TestPreparedRequirements:
    def test_they_exclude_beside_the_modes_rules(self) -> None:
        front = front_of([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9]])
        rules = Columns(((0.3,), (-0.1,), (0.0,)), ("quiet at night",))
        mode = mode_of([1, 0], Rule(objective="b", at_most=0.8))
        choice = resolve(front, mode=mode, rules=rules, method="weighted_sum")
        certificate = choice.certificate
        assert choice.candidate.name == "c01"
        assert (certificate.considered, certificate.excluded) == (1, 2)
        assert certificate.rules_kept == ("b <= 0.8", "quiet at night")
        prepared = certificate.rule_changes[1]
        assert (prepared.loosen, prepared.loosen_bound, prepared.loosened) == (0.3, None, "c00")
        assert (prepared.tighten, prepared.tightened) == (0.1, "c01")
        assert prepared.without == "c00"

    def test_their_rows_follow_the_front_not_the_names(self) -> None:
        front = front_of([[0.1, 0.5], [0.2, 0.6]])
        turned = Front(scenario="toy", objectives=front.objectives, candidates=front.candidates[::-1])
        rules = Columns(((0.0,), (0.5,)), ("r",))
        assert resolve(front, mode=mode_of([1, 0]), rules=rules).candidate.name == "c00"
        assert resolve(turned, mode=mode_of([1, 0]), rules=rules).candidate.name == "c01"

    def test_none_that_keeps_them(self) -> None:
        rules = Columns(((0.3,), (0.2,)), ("r",))
        choice = resolve(front_of([[0.1, 0.5], [0.2, 0.6]]), mode=mode_of([1, 0]), rules=rules)
        assert choice.candidate.name == "c01"
        assert choice.certificate.rules_violated == ("r",)
        assert "breaking r by 0.2 of the range" in choice.certificate.why

    def test_without_room_told_none_is_claimed(self) -> None:
        rules = Unsigned(((0.3,), (-0.1,), (0.0,)), ("quiet at night",))
        front = front_of([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9]])
        certificate = resolve(front, mode=mode_of([1, 0]), rules=rules, method="weighted_sum").certificate
        (change,) = certificate.rule_changes
        assert (change.slack_known, change.tighten, change.tightened) == (False, None, None)
        assert (change.loosen, change.loosened, change.without) == (0.3, "c00", "c00")
        assert any("how far it can be tightened is not known" in line for line in certificate.lines())

    def test_rules_from_a_book(self) -> None:
        """Those of the rule engine know their room."""
        file = RuleFile.model_validate(
            {
                "version": 1,
                "context": {"load": {"type": "number", "range": [0, 1]}},
                "rules": [{"name": "fast", "when": "load > 0.9", "require": "a <= 0.25"}],
            }
        )
        front = front_of([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9]])
        book = RuleBook.of(file, objectives=front.objectives, modes=["mode"])
        busy, quiet = (book.apply({"load": load}) for load in (0.95, 0.5))
        certificate = resolve(front, mode=mode_of([0, 1]), rules=busy, method="weighted_sum").certificate
        assert certificate.candidate == "c01"
        (change,) = certificate.rule_changes
        assert (change.tighten, change.tightened) == (pytest.approx(0.05), "c00")
        assert (change.loosen, change.loosened, change.without) == (pytest.approx(0.05), "c02", "c02")
        assert resolve(front, mode=mode_of([0, 1]), rules=quiet).candidate.name == "c02"

    def test_rules_of_a_book_are_judged_by_the_interval_too(self) -> None:
        """c01 has a at 0.2 +- 0.01."""
        front = front_of([[0.1, 0.5], [0.2, 0.6]])
        for bound, certain in ((0.205, False), (0.25, True)):
            file = RuleFile.model_validate({"version": 1, "rules": [{"name": "low", "require": f"a <= {bound}"}]})
            rules = RuleBook.of(file, objectives=front.objectives, modes=["mode"]).apply({})
            certificate = resolve(front, mode=mode_of([0, 1]), rules=rules, method="weighted_sum").certificate
            assert certificate.candidate == "c01"
            text = f"low: require a <= {bound}"
            assert certificate.rules_kept == (text,)
            assert certificate.rules_uncertain == (() if certain else (text,))
            sentence = f"Rule {text} is kept by the means, but not by their whole intervals."
            assert (sentence in certificate.lines()) != certain

    @pytest.mark.parametrize(
        ("require", "plain"),
        [("a <= 0.25", True), ("a <= 0.25 and b >= 0", False), ("seeds >= 0", False), ('kind == "policy"', False)],
    )
    def test_only_a_bound_on_an_objective_moves_along_a_range(self, require: str, plain: bool) -> None:
        front = front_of([[0.1, 0.5], [0.2, 0.6], [0.3, 0.9]])
        file = RuleFile.model_validate({"version": 1, "rules": [{"name": "r", "require": require}]})
        rules = RuleBook.of(file, objectives=front.objectives, modes=["mode"]).apply({})
        certificate = resolve(front, mode=mode_of([1, 0]), rules=rules, method="weighted_sum").certificate
        (change,) = certificate.rule_changes
        assert change.plain == plain
        assert (change.tighten is not None) == plain
        assert any("can be tightened" in line for line in certificate.lines()) == plain
        assert change.without == "c00"
        assert any(line.endswith("without the rule the choice stays.") for line in certificate.lines())

    def test_bounds_at_infinity(self) -> None:
        """A candidate that keeps a rule by no finite amount, and one that can never keep it."""
        rules = Columns(((-math.inf,), (-0.2,), (math.inf,)), ("r",))
        front = front_of([[0.2, 0.5], [0.3, 0.6], [0.1, 0.9]])
        (change,) = resolve(front, mode=mode_of([1, 0]), rules=rules, method="weighted_sum").certificate.rule_changes
        assert (change.tighten, change.loosen, change.without) == (None, None, "c02")

    @pytest.mark.parametrize(
        "rules",
        [
            Columns(((0.1,),), ("r",)),
            Columns(((0.1,), (0.2,)), ("r", "s")),
            Columns(((math.nan,), (0.2,)), ("r",)),
        ],
    )
    def test_ones_that_do_not_fit_are_refused(self, rules: Columns) -> None:
        with pytest.raises(InvalidInputError, match=r"rules gave violations of shape .* expected no NaN"):
            resolve(front_of([[0.1, 0.5], [0.2, 0.6]]), mode=mode_of([1, 0]), rules=rules)


class TestRankReversal:
    def test_topsis_is_known_to_reverse(self) -> None:
        """On 60 random matrices some choice hangs on a candidate that is not chosen; each is checked by resolving."""
        rng = np.random.default_rng(5)
        found = 0
        for _ in range(60):
            front = front_of(rng.random((5, 3)))
            mode = mode_of(rng.dirichlet(np.ones(3)))
            choice = resolve(front, mode=mode)
            reversals = {r.candidate: r.choice for r in choice.certificate.rank_reversals if r.change == "without"}
            for candidate in front.candidates:
                if candidate != choice.candidate:
                    again = resolve(_without(front, candidate.name), mode=mode).candidate.name
                    assert again == reversals.get(candidate.name, choice.candidate.name)
            found += len(reversals)
        assert found > 0

    @settings(deadline=None, max_examples=40)
    @given(rows=tables(size=3), weights=weight_vectors(3), method=st.sampled_from(["weighted_sum", "nash"]))
    def test_methods_that_score_each_alone_never_reverse(
        self, rows: np.ndarray, weights: tuple[float, ...], method: str
    ) -> None:
        assert resolve(front_of(rows), mode=mode_of(weights), method=method).certificate.rank_reversals == ()

    def test_copies_are_tried(self) -> None:
        """A second copy moves the norms of TOPSIS's columns, and with them a close race; frozen ranges stay."""
        rng = np.random.default_rng(11)
        kinds: dict[str, list[str]] = {"vector": [], "range": []}
        for _ in range(300):
            front, mode = front_of(rng.random((4, 3))), mode_of(rng.dirichlet(np.ones(3)))
            for normalisation, found in kinds.items():
                certificate = resolve(front, mode=mode, normalisation=normalisation).certificate
                found += [reversal.change for reversal in certificate.rank_reversals]
                text = certificate.lines()[-2]
                assert text.startswith("Rank reversal: " if certificate.rank_reversals else "No rank reversal: ")
        assert set(kinds["vector"]) == {"without", "twice"}
        assert set(kinds["range"]) == {"without"}  # of the one that was the ideal or the worst
        assert len(kinds["range"]) < len(kinds["vector"])


class TestDocument:
    MODE = mode_of([0.5, 0.3, 0.2], Rule(objective="a", at_most=0.9))

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_is_plain_json(self, method: str) -> None:
        certificate = resolve(curved_front(9), mode=self.MODE, method=method).certificate
        document = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
        assert document["weights"] == pytest.approx({"a": 0.5, "b": 0.3, "c": 0.2})
        assert set(document["distances"]) == set(document["runner_up_distances"])
        assert document["region"]["share_interval"][0] <= document["region"]["share"]
        assert [change["rule"] for change in document["rule_changes"]] == ["a <= 0.9"]
        assert document["front_version"]

    def test_reads_as_sentences(self) -> None:
        certificate = resolve(curved_front(9), mode=self.MODE, method="vikor").certificate
        lines = certificate.lines()
        assert lines[0] == certificate.why
        assert all(line.endswith(".") and line[0].isalnum() for line in lines)
        text = " ".join(lines)
        for part in (
            f"By vikor, {certificate.candidate} scores",
            "(S 0.",
            "compromise set: ",
            "Weights, each with the range in which the choice stays: a 0.5 (from",
            "% of all weights (",
            "Rule a <= 0.9: it can be tightened to",
            "ank reversal",
            f"Front version {certificate.front_version}",
        ):
            assert part in text

    def test_version_follows_the_front(self) -> None:
        versions = {
            resolve(front, mode=mode_of([1, 1, 1])).certificate.front_version
            for front in (curved_front(5, 1), curved_front(5, 2), curved_front(5, 1))
        }
        assert len(versions) == 2

    def test_names_of_any_script(self) -> None:
        objective = Objective(name="délai", unit="µs", direction="minimize", low=0, high=1)
        front = front_of([[0.5]], [objective])
        mode = type(self.MODE)(name="été", preference=type(self.MODE.preference)(("délai",), (1.0,)))
        choice = resolve(front, mode=mode)
        assert "délai (0.5 µs)" in choice.certificate.why
        assert choice.certificate.holds_while == {"délai": (1.0, 1.0)}
