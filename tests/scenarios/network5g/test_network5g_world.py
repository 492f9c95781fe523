"""The part of a network that no action changes: places, walks, traces, walls, hours and arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from scipy import stats

from rlaas.errors import ConfigurationError
from rlaas.scenarios.network5g import Network5G
from rlaas.scenarios.network5g.engine.world import _poisson
from rlaas.scenarios.network5g.measured import HOURLY_DEMAND
from rlaas.scenarios.network5g.propagation import entry_loss_db
from rlaas.scenarios.network5g.reference import STEP_S, reference


class Walk:
    """Networks that only walk: positions by step, settings at their default."""

    def __init__(self, envs=4, seed=0, **options):
        self.scenario = Network5G(**{"episode_steps": 100_000, **options})
        self.env = self.scenario.vector_env(envs, copy=False)
        self.env.reset(seed=seed)
        self.action = np.repeat(self.scenario.baselines["default"].make().action[None], self.env.num_envs, axis=0)
        self.users = self.env.engine.state.users
        self.walking = sum(self.scenario.users[:2])

    def step(self):
        self.env.step(self.action)

    def place(self):
        return np.stack([self.users["x"], self.users["y"]], axis=-1).astype(float)

    def shift(self, before, after):
        d = after - before
        return np.stack(self.scenario.network.layout.nearest_image(d[..., 0], d[..., 1]), axis=-1)


def lattice(walk, place):
    """Places in units of the two periods, [0, 1)."""
    layout = walk.scenario.network.layout
    return np.mod(place @ np.linalg.inv(layout.periods), 1.0)


@pytest.mark.parametrize("size", ["small", "large"])
def test_users_walk_at_their_speed_and_stay_inside(size):
    walk, (slow, fast) = Walk(size=size), reference().traffic.speed_m_s
    before = walk.place()
    for _ in range(300):
        walk.step()
        walked = np.linalg.norm(walk.shift(before, walk.place()), axis=-1)
        before = walk.place()
        assert walked.max() <= fast * STEP_S + 1e-3
        assert (walked[:, walk.walking :] == 0).all()  # machines stand still
        speed = np.hypot(walk.users["vx"], walk.users["vy"])[:, : walk.walking]
        assert speed.min() >= slow - 1e-4
        assert speed.max() <= fast + 1e-4
        if size == "small":
            assert np.linalg.norm(before, axis=-1).max() <= walk.scenario.network.layout.radius_m + 1e-3


@pytest.mark.parametrize("mobility", ["waypoint", "gauss_markov"])
def test_users_are_spread_evenly_on_the_wrapped_plane_at_all_times(mobility):
    walk = Walk(envs=150, size="medium", mobility=mobility)
    for steps in (0, 300):
        for _ in range(steps):
            walk.step()
        here = lattice(walk, walk.place()[:, : walk.walking]).reshape(-1, 2)
        for axis in range(2):
            assert stats.kstest(here[:, axis], "uniform").pvalue > 1e-4
        counts, _, _ = np.histogram2d(*here.T, bins=8, range=[[0, 1], [0, 1]])
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_a_disc_begins_evenly_filled():
    walk = Walk(envs=200)
    radius = np.linalg.norm(walk.place(), axis=-1).ravel() / walk.scenario.network.layout.radius_m
    assert stats.kstest(radius**2, "uniform").pvalue > 1e-4


def test_a_leg_is_walked_to_its_end_at_one_velocity():
    walk = Walk(envs=8, size="medium")
    low, high = reference().traffic.leg_m
    turned = 0
    for _ in range(400):
        left = walk.users["left"][:, : walk.walking].copy()
        velocity = np.stack([walk.users["vx"], walk.users["vy"]])[..., : walk.walking].copy()
        before = walk.place()[:, : walk.walking]
        walk.step()
        now = np.stack([walk.users["vx"], walk.users["vy"]])[..., : walk.walking]
        same = (now == velocity).all(axis=0)
        walked = walk.shift(before, walk.place()[:, : walk.walking])
        speed = np.hypot(*velocity)
        ahead = np.minimum(speed * STEP_S, left)
        assert np.linalg.norm(walked, axis=-1) == pytest.approx(ahead, abs=2e-3)
        fresh = walk.users["left"][:, : walk.walking][~same]
        assert ((fresh >= low - 1e-3) & (fresh <= high + 1e-3)).all()
        turned += int((~same).sum())
    assert turned > 50


def test_gauss_markov_keeps_its_memory_and_spread():
    walk = Walk(envs=60, size="medium", mobility="gauss_markov")
    memory = np.exp(-STEP_S / reference().traffic.gauss_markov_memory_s)
    for _ in range(300):  # forget the start, where velocities are their means
        walk.step()
    part = slice(0, walk.walking)
    mean = np.stack([walk.users["mean_x"], walk.users["mean_y"]])[..., part].astype(float)
    speed = np.hypot(*mean)
    previous, pairs, spread = None, [], []
    for _ in range(150):
        walk.step()
        off = (np.stack([walk.users["vx"], walk.users["vy"]])[..., part] - mean) / speed
        if previous is not None:
            pairs.append((previous * off).mean())
        spread.append((off**2).mean())
        previous = off
    # Half the speed in the plane, so a quarter of its square, half of it along each axis.
    assert np.mean(spread) == pytest.approx(0.125, rel=0.05)
    assert np.mean(pairs) / np.mean(spread) == pytest.approx(memory, abs=0.01)
    lo, hi = reference().traffic.speed_m_s
    assert stats.kstest(speed.ravel(), stats.uniform(lo, hi - lo).cdf).pvalue > 1e-4


def test_gauss_markov_turns_back_at_the_rim():
    walk = Walk(envs=20, mobility="gauss_markov")
    radius = walk.scenario.network.layout.radius_m
    for _ in range(600):
        walk.step()
        assert np.linalg.norm(walk.place(), axis=-1).max() <= radius + 1e-3
    # Without the rim nearly everybody would have left by now; with it they are all over the disc.
    assert np.linalg.norm(walk.place(), axis=-1)[:, : walk.walking].min() < 0.5 * radius


def test_a_trace_is_followed_step_by_step():
    t = np.arange(400) * STEP_S
    traces = [np.stack([8 * t, 0 * t], axis=1), np.stack([20 * np.cos(t), 20 * np.sin(t)], axis=1)]
    walk = Walk(size="medium", mobility="trace", traces=traces)
    part, seen = slice(0, walk.walking), set()
    for _ in range(450):
        row, trace = walk.users["left"][:, part].astype(int), walk.users["trace"][:, part].copy()
        before = walk.place()[:, part]
        walk.step()
        walked = walk.shift(before, walk.place()[:, part])
        on = row + 1 < 400
        for index, path in enumerate(traces):
            mine = on & (trace == index)
            wanted = path[row[mine] + 1] - path[row[mine]]
            np.testing.assert_allclose(walked[mine], wanted, atol=2e-3)
        # At its end another trace is taken up where the user stands.
        assert np.linalg.norm(walked[~on], axis=-1) == pytest.approx(0.0, abs=2e-3)
        seen |= set(trace.ravel().tolist())
    assert seen == {0, 1}


def test_a_trace_that_leaves_the_disc_is_folded_back_without_jumps():
    t = np.arange(900) * STEP_S
    walk = Walk(mobility="trace", traces=[np.stack([30 * t, 5 * t], axis=1)])
    radius, before = walk.scenario.network.layout.radius_m, walk.place()
    for _ in range(800):
        walk.step()
        here = walk.place()
        assert np.linalg.norm(here, axis=-1).max() <= radius + 1e-3
        # Folding shortens a step near the centre and never stretches one by more than the angle it turns.
        assert np.linalg.norm(here - before, axis=-1).max() < 8.0
        before = here


@pytest.mark.parametrize(
    ("traces", "message"),
    [
        (None, "needs traces"),
        ([np.zeros((1, 2))], r"traces\[0\] must be finite positions"),
        ([np.zeros((5, 2)), np.zeros((5, 3))], r"traces\[1\] must be finite positions"),
        ([np.full((5, 2), np.nan)], r"traces\[0\] must be finite positions"),
    ],
)
def test_impossible_traces_are_refused(traces, message):
    with pytest.raises(ConfigurationError, match=message):
        Network5G(mobility="trace", traces=traces)


def test_walls_cost_what_tr_38901_says():
    walk = Walk(envs=200, size="medium", indoor=0.6)
    indoor = walk.users["indoor"] == 1
    assert indoor.mean() == pytest.approx(0.6, abs=0.02)
    loss = walk.users["loss_db"].astype(float)
    assert (loss[~indoor] == 0).all()
    # Section 7.4.3: entry loss + 0.5 dB/m times the smaller of two uniform depths up to 25 m + N(0, 4.4 dB).
    entry = entry_loss_db(3.5)
    assert entry == pytest.approx(
        5 - 10 * np.log10(0.3 * 10 ** (-(2 + 0.2 * 3.5) / 10) + 0.7 * 10 ** (-(5 + 4 * 3.5) / 10))
    )
    depth_mean, depth_variance = 25 / 3, 25**2 / 18
    count = indoor.sum()
    spread = np.sqrt(4.4**2 + 0.25 * depth_variance)
    # Losses below 0 are cut off, which happens to one user in a thousand.
    assert loss[indoor].mean() == pytest.approx(entry + 0.5 * depth_mean, abs=5 * spread / np.sqrt(count))
    assert loss[indoor].std() == pytest.approx(spread, rel=0.03)
    before = walk.place()
    for _ in range(5):
        walk.step()
    still = (walk.place() == before).all(axis=-1)
    assert still[indoor].all()
    assert not still[:, : walk.walking][~indoor[:, : walk.walking]].any()


@njit
def counts_of(mean, uniforms, out):
    for i in range(len(uniforms)):
        out[i] = _poisson(mean, np.exp(-mean), uniforms[i])


@pytest.mark.parametrize("mean", [0.0, 0.05, 1.0, 7.3, 60.0])
def test_counts_are_the_quantiles_of_poisson(mean):
    uniforms = np.random.default_rng(0).random(20_000)
    found = np.zeros(len(uniforms), dtype=np.int64)
    counts_of(mean, uniforms, found)
    np.testing.assert_array_equal(found, np.maximum(stats.poisson(mean).ppf(uniforms), 0))


@pytest.mark.parametrize("hour", [5.0, 17.5])
def test_arrivals_are_poisson_with_the_hours_mean(hour):
    scenario = Network5G(hour=hour, load="high", episode_steps=4000)
    env, ref = scenario.vector_env(1, threads=1), reference().traffic
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    demand, kept = np.interp(hour, np.arange(25), [*HOURLY_DEMAND, HOURLY_DEMAND[0]]), []
    # At five o'clock a user asks for a file in a hundred steps: that many steps bring the variance within a tenth.
    for _ in range(3600):
        env.step(actions)
        kept.append(env.engine.scratch.users["demand"][0].copy())
    found, first = np.array(kept), 0
    for s, count in enumerate(scenario.users):
        mine = found[:, first : first + count]
        wanted = ref.rates_per_s[s] * scenario.network.regime.scale * STEP_S * demand
        if s == 1:
            assert mine == pytest.approx(wanted)
        else:
            assert mine.mean() == pytest.approx(wanted, abs=5 * np.sqrt(wanted / mine.size))
            assert mine.var() == pytest.approx(wanted, rel=0.1)
            # Users and steps are independent of one another.
            assert abs(np.corrcoef(mine[:, 0], mine[:, 1])[0, 1]) < 0.15
            assert abs(np.corrcoef(mine[:-1, 0], mine[1:, 0])[0, 1]) < 0.15
        first += count


def test_bursts_of_machines_follow_the_beta_density_and_keep_the_mean():
    scenario = Network5G(hour=12, mmtc_traffic="beta", embb_traffic="constant", episode_steps=1000)
    env, ref = scenario.vector_env(1, threads=1), reference().traffic
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    rates, files, period = [], [], round(ref.mmtc_burst_s / STEP_S)
    for _ in range(2 * period):
        env.step(actions)
        work = env.engine.scratch.users[0]
        rates.append(work["arrival_rate"][-1])
        files.append(work["demand"][0])
    x = np.arange(2 * period) % period / period
    usual = ref.rates_per_s[2] * scenario.network.regime.scale * HOURLY_DEMAND[12]
    assert rates == pytest.approx(usual * stats.beta(3, 4).pdf(x), rel=1e-9, abs=1e-12)
    assert np.mean(rates) == pytest.approx(usual, rel=1e-3)
    assert np.ptp(files) == 0
    assert files[0] == pytest.approx(ref.rates_per_s[0] * scenario.network.regime.scale * HOURLY_DEMAND[12] * STEP_S)


def test_hours_are_weighted_by_demand():
    hours = Walk(envs=3000, users=3).env.engine.state.environments["hour"]
    allowed = np.array(reference().traffic.demand_hours)
    demand = np.array(HOURLY_DEMAND)[allowed]
    counts = [(hours == hour).sum() for hour in allowed]
    assert sum(counts) == 3000
    assert stats.chisquare(counts, 3000 * demand / demand.sum()).pvalue > 1e-4
    assert np.mean(HOURLY_DEMAND) == pytest.approx(1.0, abs=1e-4)


def test_the_clock_runs_through_the_day():
    scenario = Network5G(hour=23.0, hours_per_s=1.0, episode_steps=100)
    env = scenario.vector_env(1)
    env.reset(seed=1)
    actions = np.repeat(scenario.baselines["default"].make().action[None], env.num_envs, axis=0)
    sine, cosine = (scenario.observation_names.index(name) for name in ("hour_sin", "hour_cos"))
    rates = []
    for step in range(40):
        seen = env.step(actions)[0]
        hour = (23.0 + 0.1 * step) % 24
        assert seen[:, sine] == pytest.approx(np.sin(2 * np.pi * hour / 24), abs=1e-5)
        assert seen[:, cosine] == pytest.approx(np.cos(2 * np.pi * hour / 24), abs=1e-5)
        rates.append((hour, env.engine.scratch.users["arrival_rate"][0, 0]))
    hours, found = np.array(rates).T
    wanted = np.interp(hours, np.arange(25), [*HOURLY_DEMAND, HOURLY_DEMAND[0]])
    assert found / found[0] == pytest.approx(wanted / wanted[0])
    still = Network5G(hour=23.0).vector_env(1)
    still.reset(seed=1)
    first = still.step(actions)[0][:, sine]
    np.testing.assert_array_equal(first, still.step(actions)[0][:, sine])


def test_realisations_of_the_landscape_are_drawn_evenly():
    chosen = Walk(envs=2000, users=3).env.engine.state.environments["realisation"]
    counts = np.bincount(chosen, minlength=reference().radio.map_realisations)
    assert len(counts) == reference().radio.map_realisations
    assert stats.chisquare(counts).pvalue > 1e-4
