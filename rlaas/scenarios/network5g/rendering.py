"""Pictures of a network: where users are, who serves them, how loaded the cells are and where they look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlaas.scenarios.network5g.control import ACTION_NAMES, HIGH, LOW
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlaas.scenarios.network5g.env import VectorNetwork5G

__all__ = ["draw_network", "network_figure"]

_SLICES = (("eMBB", "o"), ("URLLC", "^"), ("mMTC", "s"))
_OFF = "#9aa0a6"


def _settings(env: VectorNetwork5G, network: int) -> dict[str, NDArray[np.float64]]:
    """Settings in force by component [cells], read back from the observation."""
    seen = env.engine.out.observation[network]
    first = OBSERVATION_NAMES.index(f"own_{ACTION_NAMES[0]}")
    return {
        name: LOW[i] + (HIGH[i] - LOW[i]) * seen[:, first + i].astype(np.float64) for i, name in enumerate(ACTION_NAMES)
    }


def network_figure(env: VectorNetwork5G, network: int = 0) -> Figure:
    """Map of one network of a vector environment, with a bar of resource-block use per cell.

    A sector's wedge points where its antenna looks; its length falls with the tilt, its width with the power; its
    colour is the share of resource blocks in use, grey for a cell that is off. Lines join users to their cells where
    they have data waiting.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle, Wedge

    layout, state = env.layout, env.engine.state
    users, slices = state.users[network], env.engine.network.users
    use, off = state.cells["use"][network], state.cells["off"][network].astype(bool)
    settings = _settings(env, network)
    figure = Figure(figsize=(10.5, 6.4), dpi=100, layout="constrained")
    area, bars = figure.subplots(1, 2, width_ratios=(2.6, 1))
    colours = colormaps["YlOrRd"]
    site = layout.sites[layout.site_of_cell]
    spread = np.ptp(layout.sites, axis=0).max() if len(layout.sites) > 1 else 400.0
    reach = 0.16 * spread
    for cell in range(layout.cells):
        colour = _OFF if off[cell] else colours(0.1 + 0.8 * float(use[cell]))
        size = reach * (1.25 - settings["tilt_deg"][cell] / 24.0)
        if layout.azimuth_deg is None or not np.isfinite(layout.azimuth_deg[cell]):
            area.add_patch(Circle(tuple(site[cell]), size, color=colour, alpha=0.45, lw=0))
        else:
            half = 32.5 * 10 ** (settings["power_db"][cell] / 30.0)
            look = layout.azimuth_deg[cell]
            area.add_patch(
                Wedge(tuple(site[cell]), 1.7 * size, look - half, look + half, color=colour, alpha=0.55, lw=0)
            )
        look = 0.0 if layout.azimuth_deg is None else np.nan_to_num(layout.azimuth_deg[cell])
        away = 0.0 if layout.azimuth_deg is None else 0.9 * reach
        label = site[cell] + away * np.array([np.cos(np.deg2rad(look)), np.sin(np.deg2rad(look))])
        up = 9 if layout.azimuth_deg is None else 0
        area.annotate(
            str(cell), tuple(label), xytext=(0, up), textcoords="offset points", ha="center", va="center", fontsize=8
        )
    area.plot(*layout.sites.T, marker="1", ms=13, mew=2, color="black", ls="none")
    place = np.stack([users["x"], users["y"]], axis=1).astype(np.float64)
    dx, dy = layout.nearest_image(*(place[:, None] - layout.sites[None]).transpose(2, 0, 1))
    serving = users["serving"]
    own = layout.site_of_cell[serving]
    offset = np.stack([dx[np.arange(len(own)), own], dy[np.arange(len(own)), own]], axis=1)
    waiting = np.zeros(len(own), dtype=bool)
    waiting[: slices[0]] = state.embb["backlog"][network] > 0
    palette = colormaps["tab20"](np.arange(layout.cells) % 20)
    shown = layout.sites[own] + offset
    for i in np.flatnonzero(waiting):
        ends = np.stack([layout.sites[own[i]], shown[i]])
        area.plot(*ends.T, color=palette[serving[i]], lw=0.6, alpha=0.6, zorder=1)
    first = 0
    for (name, marker), count in zip(_SLICES, slices, strict=True):
        part = slice(first, first + count)
        area.scatter(
            *shown[part].T,
            c=palette[serving[part]],
            marker=marker,
            s=26,
            lw=0.4,
            edgecolors="black",
            label=name,
            zorder=2,
        )
        first += count
    area.set_aspect("equal")
    area.set_xlabel("m")
    area.set_ylabel("m")
    legend = area.legend(loc="upper right", fontsize=8, framealpha=0.9)
    for handle in legend.legend_handles:
        handle.set_facecolor("white")
    here = state.environments[network]
    hour = (here["hour"] + env.engine.constants.hours_per_step * here["step"]) % 24
    area.set_title(
        f"{layout.cells} cells, {sum(slices)} users, {int(hour):02d}:{int(hour % 1 * 60):02d}, "
        f"t = {here['step'] / 10:.1f} s",
        fontsize=10,
    )
    rows = np.arange(layout.cells)
    shades = [_OFF if o else colours(0.1 + 0.8 * float(u)) for o, u in zip(off, use, strict=True)]
    bars.barh(rows, use, color=shades, edgecolor="#555555", lw=0.4)
    for cell in range(layout.cells):
        watts = float(env.engine.out.numerators[network, cell, 4]) / 0.1
        text = "off" if off[cell] else f"{watts:.0f} W, tilt {settings['tilt_deg'][cell]:.0f}°"
        bars.text(1.02, cell, text, va="center", fontsize=7)
    bars.set_xlim(0, 1)
    bars.set_yticks(rows, [str(c) for c in rows], fontsize=7)
    bars.set_ylabel("cell")
    bars.invert_yaxis()
    bars.set_xlabel("resource blocks in use")
    for side in ("top", "right"):
        bars.spines[side].set_visible(False)
    return figure


def draw_network(env: VectorNetwork5G, network: int = 0) -> NDArray[np.uint8]:
    """The figure as an image [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(network_figure(env, network))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
