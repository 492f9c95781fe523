"""The calibration report of recsys: click levels and position curves beside the Open Bandit Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice, shown
from rlaas.scenarios.base import LoggedPair
from rlaas.scenarios.checks import is_whole
from rlaas.scenarios.data import data_directory
from rlaas.scenarios.recsys.logged.curves import (
    PositionCurve,
    clustered_interval,
    detectable_ratio,
    position_curve,
    propensity_balance,
)
from rlaas.scenarios.recsys.logged.open_bandit import LoggedFeedback, check_clicks, item_distribution, read_log
from rlaas.scenarios.recsys.scenario import Recommender
from rlaas.scenarios.reports import Report, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SimulatedCurve", "calibration_report", "logged_pairs", "simulated_curve"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FOLDER = "open_bandit"
CAMPAIGNS: tuple[Literal["all", "men"], ...] = ("all", "men")
POLICIES: tuple[Literal["random", "bts"], ...] = ("random", "bts")
FITTED = ("random", "all")
"""The log whose click level the simulator's level ``open_bandit`` was set to; every other log is held out."""
LEVEL = "open_bandit"
SIMULATED = ("random", "popularity")
PAGES = 220
"""Steps of each stream, as many as the calibration of the level took: what the shop learns later raises the level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCurve:
    """Clicks by position of the page under one baseline.

    Pages of one stream share users, trends and the day, so intervals take streams as what is independent.

    Attributes:
        baseline: its name.
        by_stream: clicks by position of each stream [streams, slate].
        shown: pages of each stream [streams].
    """

    baseline: str
    by_stream: IntArray
    shown: IntArray

    @property
    def clicks(self) -> IntArray:
        """By position [slate]."""
        return np.asarray(self.by_stream.sum(axis=0))

    @property
    def pages(self) -> int:
        """Shown."""
        return int(self.shown.sum())

    @property
    def level(self) -> float:
        """Clicks per impression."""
        return float(self.clicks.sum() / (self.pages * len(self.clicks)))

    def level_interval(self) -> tuple[float, float, float]:
        """95 % interval of the level over streams, and its design effect."""
        return clustered_interval(self.by_stream.sum(axis=1), self.shown * self.by_stream.shape[1])

    def relative(self, positions: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Rate of the first positions over their common rate, with 95 % intervals over streams [positions]."""
        clicks = self.by_stream[:, :positions]
        of_all = clicks.sum(axis=1)
        rate = positions * clicks.sum(axis=0) / of_all.sum()
        # A position's share of the clicks is a ratio of sums over streams too.
        ends = np.array([clustered_interval(column, of_all)[:2] for column in clicks.T])
        return rate, positions * ends[:, 0], positions * ends[:, 1]

    @property
    def rate(self) -> FloatArray:
        """Clicks per impression by position [slate]."""
        return np.asarray(self.clicks / self.pages)


def simulated_curve(scenario: Recommender, baseline: str, *, streams: int, pages: int, seed: int = 0) -> SimulatedCurve:
    """Show pages by a baseline and count clicks by position.

    Args:
        scenario: the shop.
        baseline: name of the baseline.
        streams: environments side by side, at least 2. pages: steps of each.
        seed: of the environments.

    Raises:
        ConfigurationError: no such baseline.
        InvalidInputError: no recommender, fewer than 2 streams, or no page.
    """
    if not isinstance(scenario, Recommender):
        raise InvalidInputError(f"scenario is {shown(scenario)}; expected a Recommender", field="scenario")
    check_choice(baseline, scenario.baselines, field="baseline")
    for name, value, least in (("streams", streams, 2), ("pages", pages, 1)):
        if not is_whole(value) or value < least:
            raise InvalidInputError(f"{name} must be a whole number >= {least}, got {shown(value)}", field=name)
    env = scenario.vector_env(streams, seed)
    observation, _ = env.reset(seed=seed)
    controller = scenario.baselines[baseline].make()
    controller.reset(env.num_envs, seed)
    clicks = np.zeros((env.num_envs, scenario.options["slate"]), dtype=np.int64)
    pages_shown = np.zeros(env.num_envs, dtype=np.int64)
    for _ in range(pages):
        action = controller.act(observation)
        following, reward, _, _, infos = env.step(action)
        controller.learn(observation, action, reward)
        observation = following
        pages_shown += infos["slate"][:, 0] >= 0
        clicked = np.flatnonzero(infos["click"] >= 0)
        clicks[clicked, infos["click"][clicked]] += 1
    env.close()
    return SimulatedCurve(baseline=baseline, by_stream=clicks, shown=pages_shown)


def _folder(data_dir: str | Path | None) -> Path:
    if data_dir is not None and not isinstance(data_dir, str | Path):
        raise ConfigurationError(f"data_dir is {shown(data_dir)}; expected a folder or None", field="data_dir")
    return data_directory(data_dir) / FOLDER


def logged_pairs(data_dir: str | Path | None = None) -> tuple[LoggedPair, ...]:
    """The logs of both policies and campaigns, each as evidence about the other.

    Args:
        data_dir: folder that holds ``open_bandit``; default: ``RLAAS_DATA_DIR``.

    Raises:
        ConfigurationError: a log is missing or damaged.
    """
    pairs = []
    for campaign in CAMPAIGNS:
        logs = {policy: read_log(_folder(data_dir), policy, campaign) for policy in POLICIES}
        uniform = np.full((logs["random"].n_positions, logs["random"].n_items), 1 / logs["random"].n_items)
        moved = item_distribution(logs["bts"])
        pairs.append(LoggedPair(behaviour=logs["random"], evaluation=logs["bts"], distribution=moved))
        pairs.append(LoggedPair(behaviour=logs["bts"], evaluation=logs["random"], distribution=uniform))
    return tuple(pairs)


def calibration_report(data_dir: str | Path | None = None, *, quick: bool = False) -> Report:
    """Compare click levels and position curves with the logs.

    Args:
        data_dir: folder that holds ``open_bandit``; default: ``RLAAS_DATA_DIR``.
        quick: show fewer pages.

    Raises:
        ConfigurationError: a log is missing, damaged or without a click.
    """
    folder = _folder(data_dir)
    logs = [read_log(folder, policy, campaign) for campaign in CAMPAIGNS for policy in POLICIES]
    for log in logs:
        check_clicks(log)
    curves = [position_curve(log) for log in logs]
    scenario = Recommender(level=LEVEL)
    streams = 256 if quick else 4096
    ours = [simulated_curve(scenario, name, streams=streams, pages=PAGES) for name in SIMULATED]
    levels, levels_say = _levels(curves, ours)
    positions, positions_say = _positions(curves, ours)
    amount = "A quick look: few pages. " if quick else ""
    return Report(
        title="recsys against the Open Bandit Dataset",
        summary=(
            (
                f"{amount}Saito, Aihara, Matsutani & Narita 2021, small sample: a fashion shop, three positions, items "
                f"shown by a uniform policy (random) or Bernoulli Thompson sampling (bts). The simulator runs at the "
                f"level `{LEVEL}`, whose one constant was set to the click level of {' / '.join(FITTED)}; all other "
                "logs are held out."
            ),
            (
                f"In short: {levels_say} {positions_say} Orders, prices, costs, patience, drift of interests and "
                "several pages per session are not in the data: nothing measured speaks for or against them."
            ),
        ),
        sections=(levels, positions, _soundness(logs)),
    )


def _levels(curves: Sequence[PositionCurve], ours: Sequence[SimulatedCurve]) -> tuple[Section, str]:
    rows: list[tuple[str, str, int, int, float, str]] = []
    effects: list[float] = []
    for curve in curves:
        used = "fitted" if (curve.policy, curve.campaign) == FITTED else "held out"
        rows.append(
            (
                f"{curve.policy} / {curve.campaign}",
                used,
                int(curve.clicks.sum()),
                int(curve.impressions.sum()),
                100 * curve.level,
                f"{100 * curve.level_low:.2f} to {100 * curve.level_high:.2f}",
            )
        )
    for simulated in ours:
        impressions = simulated.pages * len(simulated.clicks)
        low, high, effect = simulated.level_interval()
        effects.append(effect)
        rows.append(
            (
                f"simulated {simulated.baseline}",
                "simulated",
                int(simulated.clicks.sum()),
                impressions,
                100 * simulated.level,
                f"{100 * low:.3f} to {100 * high:.3f}",
            )
        )
    by_log = {(curve.policy, curve.campaign): curve for curve in curves}
    random, popular = ours
    inside = [
        f"{curve.policy} / {curve.campaign}" for curve in curves if curve.level_low <= popular.level <= curve.level_high
    ]
    lifts = ", ".join(f"{_lift(by_log['bts', c], by_log['random', c])} for {c}" for c in CAMPAIGNS)
    lift = popular.level / random.level
    section = Section(
        title="Click level",
        text=(
            (
                "Clicks per impression in %, with 95 % Wilson intervals. Pages hold three items in the logs and ten in "
                "the simulator. Simulated impressions of one stream of users depend on one another: their intervals "
                f"take streams as independent, which makes them {min(effects) ** 0.5:.1f} to "
                f"{max(effects) ** 0.5:.1f} times as wide as if every impression were. The logs name no users, so "
                "theirs cannot and are too narrow by what users differ."
            ),
        ),
        header=("policy", "use", "clicks", "impressions", "click rate %", "interval %"),
        rows=rows,
        figures={"levels": _levels_figure(curves, ours)},
        notes=(
            (
                f"Thompson sampling over random in the logs: {lifts}; "
                f"popularity over random simulated: {lift:.2f}. These are no twins: the logs' random policy draws "
                "items, the simulator's a strategy for every page. The campaigns differ in level by themselves, "
                "which one constant cannot follow."
            ),
        ),
    )
    return section, (
        f"The level simulated under popularity lies within the interval of {len(inside)} of {len(curves)} logs "
        f"({', '.join(inside) or 'none'})."
    )


def _lift(over: PositionCurve, under: PositionCurve) -> str:
    """Ratio of two click levels with its 95 % interval (Katz et al. 1978: normal on the log scale, rare events)."""
    ratio = over.level / under.level
    spread = np.exp(1.96 * np.sqrt(1 / over.clicks.sum() + 1 / under.clicks.sum()))
    return f"{ratio:.2f} ({ratio / spread:.2f} to {ratio * spread:.2f})"


def _levels_figure(curves: Sequence[PositionCurve], ours: Sequence[SimulatedCurve]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    axes = figure.subplots()
    labels = [f"{c.policy}\n{c.campaign}" for c in curves] + [f"simulated\n{c.baseline}" for c in ours]
    level = np.array([c.level for c in curves] + [c.level for c in ours])
    bounds = [c.level_interval() for c in ours]
    low = np.array([c.level_low for c in curves] + [b[0] for b in bounds])
    high = np.array([c.level_high for c in curves] + [b[1] for b in bounds])
    colours = ["tab:orange"] * len(curves) + ["tab:blue"] * len(ours)
    axes.bar(labels, 100 * level, color=colours)
    axes.errorbar(
        labels, 100 * level, 100 * np.array([level - low, high - level]), fmt="none", color="black", capsize=3
    )
    axes.set_ylabel("clicks per impression [%]")
    axes.tick_params(axis="x", labelsize=8)
    return figure


def _positions(curves: Sequence[PositionCurve], ours: Sequence[SimulatedCurve]) -> tuple[Section, str]:
    """Rates by position over the rate of all three first positions, so that levels do not matter."""
    rows: list[tuple[str | float, ...]] = []
    for curve in curves:
        level = curve.level
        texts = [
            f"{r / level:.2f} ({lo / level:.2f} to {hi / level:.2f})"
            for r, lo, hi in zip(curve.rate, curve.low, curve.high, strict=True)
        ]
        rows.append((f"{curve.policy} / {curve.campaign}", *texts, curve.p_value))
    n_positions = len(curves[0].rate)
    agree = total = 0
    for simulated in ours:
        ratios = zip(*simulated.relative(n_positions), strict=True)
        texts = [f"{rate:.2f} ({low:.2f} to {high:.2f})" for rate, low, high in ratios]
        rows.append((f"simulated {simulated.baseline}", *texts, "-"))
    relative = ours[0].rate[:n_positions] / ours[0].rate[:n_positions].mean()
    for curve in curves:
        inside = (curve.low / curve.level <= relative) & (relative <= curve.high / curve.level)
        agree, total = agree + int(inside.sum()), total + len(inside)
    say = _few_clicks_say(curves)
    section = Section(
        title="Clicks by position",
        text=(
            (
                "Click rate of each of the first three positions over their common rate, with 95 % intervals; p of a "
                "chi-square test that the positions of a log have one rate."
            ),
        ),
        header=("policy", "first", "second", "third", "p"),
        rows=rows,
        figures={"positions": _positions_figure(curves, ours)},
        notes=(
            (
                "The three items of the logs stand beside one another, all in view; the simulator's page is a list of "
                "ten of which a phone shows the first few. Falling interest down a list is the literature's, not this "
                f"data's. {say}"
            ),
        ),
    )
    return (
        section,
        f"Of {total} measured rates by position, {agree} have the simulated random policy's in their interval.",
    )


def _few_clicks_say(curves: Sequence[PositionCurve]) -> str:
    """What the tests of equal positions could have found, which is what a large p-value is worth."""
    flat = [curve for curve in curves if curve.p_value >= 0.05]
    if not flat:
        return "In every log the positions differ at the 5 % level."
    clicks = sorted(int(curve.clicks.sum()) for curve in flat)
    least, most = (detectable_ratio(n, len(flat[0].rate)) for n in (clicks[-1], clicks[0]))
    counted = f"{clicks[0]} to {clicks[-1]} clicks" if clicks[0] < clicks[-1] else f"{clicks[0]} clicks"
    ratio = f"{least:.1f} to {most:.1f}" if least < most else f"{most:.1f}"
    return (
        f"In {len(flat)} of {len(curves)} logs p is at least .05, which is no evidence of equal positions: with "
        f"{counted} a test at 5 % finds, four times in five, only a position that is clicked {ratio} times as often "
        "as each of the others. Smaller differences are neither shown nor excluded."
    )


def _positions_figure(curves: Sequence[PositionCurve], ours: Sequence[SimulatedCurve]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 3.4), layout="constrained")
    axes = figure.subplots()
    n_positions = len(curves[0].rate)
    for i, curve in enumerate(curves):
        error = np.array([curve.rate - curve.low, curve.high - curve.rate]) / curve.level
        at = np.arange(1, n_positions + 1) + 0.06 * (i - (len(curves) - 1) / 2)
        label = f"{curve.policy} / {curve.campaign}"
        axes.errorbar(at, curve.rate / curve.level, error, fmt="o", ms=4, capsize=2, label=label)
    for simulated in ours:
        rate = simulated.rate / simulated.rate[:n_positions].mean()
        axes.plot(np.arange(1, len(rate) + 1), rate, marker=".", label=f"simulated {simulated.baseline}")
    axes.set_xlabel("position")
    axes.set_ylabel("click rate over that of the first three")
    axes.set_ylim(bottom=0.0)
    axes.legend(fontsize=8)
    return figure


def _soundness(logs: Sequence[LoggedFeedback]) -> Section:
    rows = []
    for log in logs:
        balance = propensity_balance(log)
        ratios = zip(balance.ratio, balance.low, balance.high, strict=True)
        texts = [f"{ratio:.2f} ({low:.2f} to {high:.2f})" for ratio, low, high in ratios]
        rows.append((f"{log.policy} / {log.campaign}", *texts))
    return Section(
        title="Are the logged propensities sound?",
        text=("Mean of 1 / propensity over the number of items by position: 1 in expectation where they are right.",),
        header=("log", "first", "second", "third"),
        rows=rows,
    )
