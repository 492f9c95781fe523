"""A picture of a session: the page and what the user did with it, interests against their estimate, patience."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SessionView", "draw_session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as it stands, with what is hidden from the platform.

    Attributes:
        user: running number in the stream.
        session: which of that user's, from 1.
        satisfaction: of the user, 0 to 1.
        slate: items of the last page [slate]; empty before the first.
        utility, probability: of each, to the user [slate].
        click: clicked position, -1 for none.
        order: whether an order was placed.
        topic: main topic of each item [slate].
        taste, estimate: topic shares, true and believed [topics].
        patience: before the session and after each page.
    """

    user: int
    session: int
    satisfaction: float
    slate: NDArray[np.int64]
    utility: NDArray[np.float32]
    probability: NDArray[np.float32]
    click: int
    order: bool
    topic: NDArray[np.int64]
    taste: NDArray[np.float32]
    estimate: NDArray[np.float32]
    patience: NDArray[np.float32]


def draw_session(view: SessionView, *, width: int = 960, height: int = 540) -> NDArray[np.uint8]:
    """Pixels [height, width, 3] of the view."""
    # Imported here: matplotlib takes half a second, and only pictures need it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    title = f"user {view.user}, session {view.session}, page {len(view.patience) - 1}"
    figure.suptitle(f"{title}, satisfaction {view.satisfaction:.2f}", fontsize=11)
    places: dict[str, Any] = figure.subplot_mosaic([["page", "interests"], ["page", "session"]], width_ratios=(3, 2))
    page, interests, session = places["page"], places["interests"], places["session"]

    positions = range(len(view.slate))
    chosen = "tab:green" if view.order else "tab:orange"
    page.barh(positions, view.probability, color=[chosen if p == view.click else "tab:blue" for p in positions])
    for p in positions:
        mark = "  clicked" + (" and ordered" if view.order else "") if p == view.click else ""
        label = f" item {view.slate[p]}, topic {view.topic[p]}, utility {view.utility[p]:.2f}{mark}"
        page.text(0, p, label, va="center", fontsize=8)
    page.invert_yaxis()
    page.set(title="page" if len(view.slate) else "no page shown yet", xlabel="click probability", ylabel="position")

    topics = np.arange(len(view.taste))
    interests.bar(topics - 0.2, view.taste, 0.4, label="true")
    interests.bar(topics + 0.2, view.estimate, 0.4, label="estimated")
    interests.set(title="interests", xlabel="topic", ylim=(0, 1))
    interests.legend(fontsize=8)

    session.plot(np.arange(len(view.patience)), view.patience, marker="o")
    session.axhline(0, color="grey", linewidth=0.8)
    session.set(title="patience", xlabel="page", ylabel="pages left")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
