"""What travels and what becomes of it: moments, sums, averages, the proximal term, checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from federated_kit import federation
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rlaas.errors import ConfigurationError, ConflictError
from rlaas.training.backprop import FlatParameters
from rlaas.training.conditioning import RunningMoments
from rlaas.training.federated.averaging import average_masked, average_noised, average_plain
from rlaas.training.federated.checkpoints import FederationState, load_newest, write_state
from rlaas.training.federated.fixed_point import bits_for, to_grid, to_limbs
from rlaas.training.federated.privacy import plan_noise
from rlaas.training.federated.results import RoundResult
from rlaas.training.federated.roster import Deadline, Roster
from rlaas.training.federated.state import FixedMoments, Layout, Sums, moments_of, sums_of

LAYOUT = Layout(
    parameters=(("policy.w", (2, 3)),),
    scales=(("reward_scale", (1,)),),
    features=("x", "y"),
    objectives=("near",),
    losses=("policy_loss",),
)


def _moments(rows: np.ndarray) -> RunningMoments:
    moments = RunningMoments(rows.shape[1])
    moments.update(rows)
    return moments


@given(st.integers(1, 5), st.integers(0, 1000))
def test_sums_of_sites_are_the_moments_of_all_rows(sites: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Far from zero: sums of squares in doubles would lose the deviation.
    rows = [1e6 + 1e-2 * rng.normal(size=(rng.integers(2, 50), 2)) for _ in range(sites)]
    total = [sum(column) for column in zip(*(sums_of(_moments(r).get_state()) for r in rows), strict=True)]
    merged = RunningMoments(2)
    merged.set_state(moments_of(total))
    everything = _moments(np.concatenate(rows))
    assert merged.count == everything.count
    np.testing.assert_allclose(merged.mean, everything.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.deviation(), everything.deviation(), rtol=1e-6)


def test_no_rows_have_no_moments() -> None:
    state = moments_of([Fraction(0)] * 5)
    assert state["count"] == 0.0
    assert state["mean"].tolist() == [0.0, 0.0]


def test_fixed_moments_stay() -> None:
    moments = FixedMoments(np.array([1.0, -2.0]), np.array([0.5, 3.0]))
    moments.update(np.ones((100, 2)))
    assert moments.mean.tolist() == [1.0, -2.0]
    np.testing.assert_allclose(moments.deviation(), [0.5, 3.0])


def _sums(decisions: int, seed: int = 0) -> Sums:
    rng = np.random.default_rng(seed)
    n = Fraction(decisions)
    return Sums(
        decisions=n,
        moments=sums_of(_moments(rng.normal(size=(decisions, 2))).get_state()),
        scales=(n, n * Fraction(0.25)),
        losses=(n, n * Fraction(float(seed))),
    )


def test_sums_come_back_from_the_ring() -> None:
    sums = _sums(64)
    assert len(sums.wide()) == Sums.count(LAYOUT)
    back = Sums.from_wide(sums.wide(), LAYOUT)
    assert back.decisions == 64
    assert back.scales == (64, 16)
    for a, b in zip(back.moments, sums.moments, strict=True):
        assert abs(a - b) <= Fraction(1, 2**41)


def test_fedavg_is_the_mean_weighted_by_decisions() -> None:
    rng = np.random.default_rng(5)
    values = {name: rng.normal(size=6).astype(np.float32) for name in "abc"}
    counts = {"a": 100, "b": 300, "c": 50}
    updates = {name: (values[name], _sums(counts[name], i).wide()) for i, name in enumerate("abc")}
    found = average_plain(updates, LAYOUT)
    wanted = np.average([values[n].astype(np.float64) for n in "abc"], axis=0, weights=[100, 300, 50])
    np.testing.assert_allclose(found.parameters, wanted, rtol=1e-6)
    assert found.weights == pytest.approx({"a": 100 / 450, "b": 300 / 450, "c": 50 / 450})
    assert found.sums is not None
    # Losses 0, 1 and 2.
    assert float(found.sums.losses[1] / found.sums.losses[0]) == pytest.approx((300 + 100) / 450)


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=6, max_size=6), st.integers(1, 2**29 - 1))
def test_one_sites_average_is_its_own_bit_for_bit(values: list[float], decisions: int) -> None:
    given_values = np.array(values, dtype=np.float32)
    sums = Sums(Fraction(decisions), (Fraction(0),) * 5, (Fraction(0),) * 2, (Fraction(0),) * 2)
    found = average_plain({"a": (given_values, sums.wide())}, LAYOUT)
    assert (found.parameters == given_values).all()


def test_masked_sums_give_the_plain_average_up_to_the_grid() -> None:
    config = federation(decisions=100)
    assert config.secure is not None
    rng = np.random.default_rng(6)
    before = rng.normal(size=6).astype(np.float32)
    bits = bits_for(config.secure.limit, 3)
    updates, total = {}, np.zeros(6 + 4 * Sums.count(LAYOUT), dtype=np.uint64)
    for i, name in enumerate("abc"):
        after, sums = (before + rng.normal(size=6)).astype(np.float32), _sums(60 + 40 * i, i)
        updates[name] = (after, sums.wide())
        change = float(sums.decisions / 100) * (after.astype(np.float64) - before)
        total = total + np.concatenate((to_grid(change, bits, config.secure.limit), to_limbs(sums.wide())))
    plain = average_plain(updates, LAYOUT)
    masked = average_masked(total, 3, before, LAYOUT, config)
    assert masked.sums == plain.sums
    np.testing.assert_allclose(masked.parameters, plain.parameters, rtol=1e-6, atol=1e-7)
    assert 0.0 < masked.rounding < 1e-12


def test_noised_sums_give_every_site_the_same_weight() -> None:
    plan = plan_noise(clip=1.0, multiplier=1e-3, size=6, honest=3)
    before = np.ones(6, dtype=np.float32)
    total = sum(to_grid(np.full(6, change), plan.bits, 4.0) for change in (0.5, -0.25, 0.125))
    assert isinstance(total, np.ndarray)
    found = average_noised(total, 3, before, plan)
    np.testing.assert_allclose(found.parameters, 1.0 + 0.125, atol=1e-6)
    assert found.sums is None


# FedProx.


def test_the_pull_is_the_gradient_of_the_proximal_term() -> None:
    torch.manual_seed(0)
    shared, other = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(5))
    flat = FlatParameters([shared, other])
    flat.tie(0.7, [shared])
    anchor = shared.detach().clone()
    with torch.no_grad():
        flat.value.add_(torch.randn_like(flat.value))
    assert flat.value.grad is not None
    own = torch.randn_like(flat.value)
    flat.value.grad.copy_(own)
    flat.pull()
    twin, other_twin = shared.detach().clone().requires_grad_(), other.detach().clone().requires_grad_()
    loss = 0.35 * (twin - anchor).square().sum() + 0.0 * other_twin.sum()
    wanted = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, (twin, other_twin))])
    torch.testing.assert_close(flat.value.grad - own, wanted)
    flat.tie(0.0, [shared])
    flat.value.grad.copy_(own)
    flat.pull()
    assert torch.equal(flat.value.grad, own)


# Checkpoints.


def _result(number: int) -> RoundResult:
    return RoundResult(
        number=number,
        attempt=1,
        sites=("a", "b"),
        left_out={"c": "training: late"},
        failures=(),
        weights={"a": 0.5, "b": 0.5},
        decisions=512.0,
        losses={"policy_loss": 0.1},
        moved=0.2,
        rounding=0.0,
        epsilon=1.5,
        delta=1e-3,
        noise=0.1,
        seconds=1.0,
        began=1.0,
    )


def _state(rounds: int, rho: float = 0.25) -> FederationState:
    return FederationState(
        parameters=np.arange(6, dtype=np.float32) + rounds,
        scales=np.array([0.5], dtype=np.float32) if rounds else None,
        moments=(2**90, -7),
        rho=rho,
        rounds=tuple(_result(i + 1) for i in range(rounds)),
        run_id="run",
    )


def _same(a: FederationState | None, b: FederationState) -> bool:
    assert a is not None
    scales = (a.scales is None and b.scales is None) or (a.scales == b.scales).all()  # type: ignore[union-attr]
    return bool(
        (a.parameters == b.parameters).all()
        and scales
        and (a.moments, a.rho, a.rounds, a.run_id) == (b.moments, b.rho, b.rounds, b.run_id)
    )


def test_states_come_back_and_the_last_two_are_kept(tmp_path: Path) -> None:
    assert load_newest(tmp_path, "digest") is None
    for rounds in range(4):
        write_state(tmp_path, _state(rounds), "digest")
        assert _same(load_newest(tmp_path, "digest"), _state(rounds))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-000002", "round-000003"]


@pytest.mark.parametrize("harm", ["cut", "flip", "lost", "edited"])
def test_a_damaged_state_is_passed_over(harm: str, tmp_path: Path) -> None:
    for rounds in (1, 2):
        write_state(tmp_path, _state(rounds), "digest")
    model, document = tmp_path / "round-000002" / "model.safetensors", tmp_path / "round-000002" / "state.json"
    if harm == "cut":
        document.write_bytes(document.read_bytes()[:100])
    elif harm == "flip":
        model.write_bytes(model.read_bytes()[:-1] + b"\x07")
    elif harm == "lost":
        model.unlink()
    else:
        sealed = json.loads(document.read_text())
        sealed["state"]["rho"] = 0.0
        document.write_text(json.dumps(sealed))
    assert _same(load_newest(tmp_path, "digest"), _state(1))
    # A new round 2 takes its place.
    write_state(tmp_path, _state(2), "digest")
    assert _same(load_newest(tmp_path, "digest"), _state(2))


def test_privacy_that_was_spent_is_written_into_the_same_round(tmp_path: Path) -> None:
    write_state(tmp_path, _state(1, rho=0.25), "digest")
    inode = (tmp_path / "round-000001" / "model.safetensors").stat().st_ino
    write_state(tmp_path, _state(1, rho=0.5), "digest")
    assert _same(load_newest(tmp_path, "digest"), _state(1, rho=0.5))
    assert (tmp_path / "round-000001" / "model.safetensors").stat().st_ino == inode


def test_another_federations_folder_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path, _state(1), "digest")
    with pytest.raises(ConflictError, match="holds a federation of another configuration"):
        load_newest(tmp_path, "other")


# The roster.


def test_a_site_with_another_layout_is_refused(tmp_path: Path) -> None:
    roster = Roster(federation(), tmp_path, LAYOUT)
    roster._check_layout("centre", replace(LAYOUT))
    other = replace(LAYOUT, features=("x", "z"))
    with pytest.raises(
        ConfigurationError, match=r"site 'centre' does not fit: its features are \('x', 'z'\)"
    ) as caught:
        roster._check_layout("centre", other)
    assert caught.value.field == "sites.centre.options"


def test_a_deadline_runs_out() -> None:
    assert Deadline(0.0).left == 0.0
    assert 99.0 < Deadline(100.0).left <= 100.0
