"""One site: what it trains, what it takes over, what it lets out. In this process; Ray only because RLlib wants it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from federated_kit import PPO, SAC, federation
from scipy.stats import binom

from rlaas.bundles import load_bundle
from rlaas.errors import OperatorError, TrainingError
from rlaas.training import build_algorithm
from rlaas.training.federated import FederationConfig
from rlaas.training.federated.averaging import average_masked, average_plain
from rlaas.training.federated.masking import unmask
from rlaas.training.federated.site import Site
from rlaas.training.federated.state import GlobalModel, Layout, Sums, moments_of
from rlaas.training.federated.template import Template

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

EMPTY = {"count": 0.0, "mean": np.zeros(2), "squares": np.zeros(2)}


@contextmanager
def _sites(config: FederationConfig) -> Iterator[tuple[list[Site], Layout, GlobalModel]]:
    """All sites of a federation, started, and the first global model."""
    template = Template(config)
    model = GlobalModel(template.parameters(), None, EMPTY)
    sites = [Site(config.model_dump(mode="json"), site.name, None) for site in config.sites]
    try:
        for site in sites:
            assert site.start(0) == template.layout
        yield sites, template.layout, model
    finally:
        for site in sites:
            site.stop()
        template.stop()


@pytest.mark.parametrize("training", [PPO, SAC], ids=["ppo", "sac"])
@pytest.mark.parametrize("method", ["fedavg", "fedprox"])
def test_one_round_of_one_site_is_plain_training_bit_for_bit(training: dict[str, Any], method: str) -> None:
    config = federation(
        training, count=1, secure=None, rounds=1, decisions=2_048, method=method, mu=0.0 if method == "fedprox" else 1.0
    )
    plain = build_algorithm(config.training_of("north"), "ppo" if training is PPO else "sac")
    while plain.steps_done < 2_048:
        plain.train()
    with _sites(config) as ((site,), layout, model):
        site.train(model)
        found = average_plain({"north": site.plain_update()}, layout)
    before = torch.from_numpy(model.parameters)
    wanted = torch.from_numpy(layout.read(plain.learner.net))
    assert torch.equal(torch.from_numpy(found.parameters), wanted)
    assert not torch.equal(before, wanted)
    assert found.sums is not None
    scales = [float(s / found.sums.scales[0]) for s in found.sums.scales[1:]]
    assert scales == pytest.approx(layout.read_scales(plain.learner.net).tolist(), rel=1e-6)
    state, shared = plain.observed(), moments_of(found.sums.moments)
    assert shared["count"] == state["count"]
    np.testing.assert_allclose(shared["mean"], state["mean"], rtol=1e-9)
    np.testing.assert_allclose(shared["squares"], state["squares"], rtol=1e-9)
    assert plain.calibrated
    plain.stop()


@pytest.mark.parametrize("training", [PPO, SAC], ids=["ppo", "sac"])
def test_a_strong_pull_keeps_a_site_near_the_global_model(training: dict[str, Any]) -> None:
    moved = {}
    for mu in (0.0, 0.1, 100.0):
        # The policy alone: calibration moves SAC's critics by other means than gradients.
        config = federation(
            training, count=1, secure=None, rounds=1, decisions=2_048, share="policy", method="fedprox", mu=mu
        )
        with _sites(config) as ((site,), _, model):
            site.train(model)
            moved[mu] = float(np.linalg.norm(site.plain_update()[0] - model.parameters))
    assert moved[100.0] < 0.3 * moved[0.0]
    assert moved[100.0] < moved[0.1] < moved[0.0]


def test_what_is_shared_and_what_stays() -> None:
    for share, others in (("all", {"critic", "log_temperature"}), ("policy", set())):
        with _sites(federation(SAC, count=1, secure=None, share=share)) as (_, layout, _model):
            rooms = {name.split(".")[0] for name, _ in layout.parameters}
            assert rooms == {"policy"} | others
            assert {name for name, _ in layout.scales} == (
                {"reward_scale", "utility_scale"} if share == "all" else set()
            )
            assert not any("target" in name or "normaliser" in name for name, _ in layout.parameters + layout.scales)


def test_noise_falls_with_a_sites_own_progress_and_is_gone_from_what_is_exported(tmp_path: Path) -> None:
    ppo = {**PPO, "scenario": "training_toys:Toy", "algorithm": "ppo", "ppo": {**PPO["ppo"], "final_noise": 0.1}}
    config = federation(ppo, count=1, secure=None, decisions=1_024, rounds=2)
    with _sites(config) as ((site,), layout, model):
        site.train(model)
        noise = site._algo.policy.noise
        # The last update of the first round began at seven sixteenths.
        assert float(noise[1]) == pytest.approx(7 / 16 * math.log(0.1))
        assert not any("noise" in name for name, _ in layout.parameters + layout.scales)
        site._adopt(model)
        assert float(noise[1]) == pytest.approx(7 / 16 * math.log(0.1))
    template, plain = Template(config), Template(federation({**ppo, "ppo": PPO["ppo"]}, count=1, secure=None))
    try:
        zeros = np.zeros((1, 2), dtype=np.float32)
        bundles = [load_bundle(one.export(model, tmp_path / str(i), {})) for i, one in enumerate((template, plain))]
        untrained = [bundle.forward(zeros, zeros + 0.5)["log_std"] for bundle in bundles]
        np.testing.assert_allclose(untrained[0] - untrained[1], math.log(0.1), rtol=1e-5)
    finally:
        template.stop()
        plain.stop()


def test_a_site_takes_the_global_model_over_and_keeps_its_own() -> None:
    config = federation(SAC, count=1, secure=None, decisions=1_024, rounds=3)
    with _sites(config) as ((site,), layout, model):
        site.train(model)
        algo = site._algo
        replay, updates = len(algo.replay), algo.learner.updates
        target = {k: v.clone() for k, v in algo.learner.net.target.state_dict().items()}
        given = GlobalModel(
            model.parameters + 0.01,
            np.array([3.0, 0.5, 2.0], dtype=np.float32),
            {"count": 100.0, "mean": np.array([0.5, 2.0]), "squares": np.array([400.0, 100.0])},
        )
        site._adopt(given)
        net = algo.learner.net
        assert (layout.read(net) == given.parameters).all()
        assert layout.read_scales(net).tolist() == [3.0, 0.5, 2.0]
        # The optimizer moves the module itself, not a copy of what it was.
        actor = torch.cat([p.detach().reshape(-1) for p in net.policy.parameters()])
        assert torch.equal(algo.learner.flats[0].value.detach(), actor)
        assert all(torch.equal(v, target[k]) for k, v in net.target.state_dict().items())
        site.train(given)
        assert len(algo.replay) > replay + 900
        assert algo.learner.updates > updates
        _, wide = site.plain_update()
        sums = Sums.from_wide(wide, layout)
        # The round's own observations only, whatever the global moments hold.
        assert sums.moments[0] == 1_024
        assert layout.read_scales(net).tolist() == [3.0, 0.5, 2.0]


def test_a_site_that_joins_late_calibrates_nothing_and_follows_the_critics_it_was_given() -> None:
    config = federation(SAC, count=1, secure=None, decisions=1_024, rounds=3)
    with _sites(config) as ((site,), layout, model):
        given = GlobalModel(model.parameters + 0.01, np.array([3.0, 0.5, 2.0], dtype=np.float32), EMPTY)
        site._adopt(given)
        net = site._algo.learner.net
        for a, b in zip(net.critic.parameters(), net.target.parameters(), strict=True):
            assert torch.equal(a, b)
        site.train(given)
        assert layout.read_scales(net).tolist() == [3.0, 0.5, 2.0]


def test_sites_that_are_still_warming_up_report_no_scales() -> None:
    config = federation(SAC | {"sac": {"learning_starts": 1_500}}, count=1, secure=None, decisions=1_024, rounds=3)
    with _sites(config) as ((site,), layout, model):
        site.train(model)
        sums = Sums.from_wide(site.plain_update()[1], layout)
        assert sums.decisions == 1_024
        assert set(sums.scales) == {0}
        assert set(sums.losses) == {0}


def test_a_fixed_normaliser_comes_from_ranges_and_nothing_is_summed() -> None:
    config = federation(
        count=1, secure=None, normaliser="fixed", observation_ranges={"target": (-2.0, 4.0), "share": (0.0, 1.0)}
    )
    template = Template(config)
    assert template.fixed is not None
    assert template.fixed.mean.tolist() == [1.0, 0.5]
    np.testing.assert_allclose(template.fixed.deviation(), [6 / np.sqrt(12), 1 / np.sqrt(12)])
    template.stop()
    site = Site(config.model_dump(mode="json"), "north", None)
    layout = site.start(0)
    site.train(GlobalModel(layout.read(site._algo.learner.net), None, template.fixed.get_state()))
    assert set(Sums.from_wide(site.plain_update()[1], layout).moments) == {0}
    np.testing.assert_allclose(site._algo.policy.normaliser.mean.numpy(), [1.0, 0.5])
    site.stop()


def test_ranges_that_are_missing_or_unknown_are_named() -> None:
    with pytest.raises(ValueError, match="normaliser fixed needs a range for share"):
        Template(federation(normaliser="fixed"))
    with pytest.raises(ValueError, match="'toy-discrete' has no feature 'colour'"):
        Template(federation(normaliser="fixed", observation_ranges={"colour": (0.0, 1.0)}))


def test_masked_updates_add_up_to_the_plain_average() -> None:
    config = federation(count=3, decisions=512)
    with _sites(config) as (sites, layout, model):
        for site in sites:
            site.train(model)
        updates = {str(i): site.plain_update() for i, site in enumerate(sites, start=1)}
        session = b"x" * 32
        keys = {i: site.open_session(session) for i, site in enumerate(sites, start=1)}
        sealed = {i: site.share_keys(keys) for i, site in enumerate(sites, start=1)}
        masked = {
            i: site.masked_update({j: sealed[j][i] for j in sealed if j != i}, None)
            for i, site in enumerate(sites, start=1)
        }
        revealed = {i: site.reveal([1, 2, 3]) for i, site in enumerate(sites, start=1)}
        total = unmask(masked, keys, sealed, revealed, session=session, threshold=2)
        with pytest.raises(OperatorError, match="has no update: it has not trained"):
            sites[0].open_session(session)
    plain, secure = average_plain(updates, layout), average_masked(total, 3, model.parameters, layout, config)
    assert secure.sums == plain.sums
    np.testing.assert_allclose(secure.parameters, plain.parameters, rtol=0, atol=1e-7)
    assert not (plain.parameters == model.parameters).all()
    # A masked vector is uniform on the ring of 2**64: one of 2**14 elements lies below 2**50 by chance, where half of
    # an update's do.
    small = sum(int(x) < 2**50 for x in masked[1])
    assert binom.sf(small - 1, len(masked[1]), 2.0**-14) > 1e-9


def test_a_site_whose_training_fails_starts_afresh_in_the_next_round() -> None:
    config = federation(SAC | {"scenario": "training_toys:BrokenToy"}, count=1, secure=None, decisions=1_024)
    with _sites(config) as ((site,), _, model):
        for _ in range(2):
            with pytest.raises(TrainingError, match="became nan"):
                site.train(model)
            assert site._algo is None
            with pytest.raises(OperatorError, match="has no update"):
                site.plain_update()


def test_a_site_keeps_its_last_two_checkpoints_and_goes_on_from_them(tmp_path: Path) -> None:
    config = federation(SAC, count=1, secure=None, decisions=1_024, rounds=5)
    first = Site(config.model_dump(mode="json"), "north", str(tmp_path))
    layout = first.start(0)
    model = GlobalModel(layout.read(first._algo.learner.net), None, EMPTY)
    for number in (1, 2, 3):
        first.train(model)
        first.save(number)
    assert sorted(path.name for path in next(tmp_path.iterdir()).iterdir()) == ["round-000002", "round-000003"]
    second = Site(config.model_dump(mode="json"), "north", str(tmp_path))
    second.start(3)
    assert 3 * 900 < len(second._algo.replay) == len(first._algo.replay)
    for site in (first, second):
        site.train(model)
    assert (first.plain_update()[0] == second.plain_update()[0]).all()
    assert first.plain_update()[1] == second.plain_update()[1]
    second.stop()
    # Round 1 of another federation with the same configuration owes nothing to this one.
    third = Site(config.model_dump(mode="json"), "north", str(tmp_path))
    third.start(0)
    assert len(third._algo.replay) == 0
    assert not list(next(tmp_path.iterdir()).iterdir())
    third.stop()
    first.stop()
