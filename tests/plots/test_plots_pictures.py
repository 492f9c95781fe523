"""Scatter, parallel coordinates and petals: what is drawn, what is refused, and names that no picture trips over."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.front_kit import HOSTILE, MODES, NETWORK, front_of, hostile_front, network_front

from rlaas.decisions import resolve
from rlaas.errors import InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective
from rlaas.plots import KINDS, FrontView, check_plot, parallel, petal, scatter, write_plot
from rlaas.plots.style import KIND_STYLES, plain

BASELINES = (
    Candidate(name="default", kind="configuration", mean=(20.0, 12.0, 300.0, 0.7), half_width=(0.5, 0.4, 6.0, 0.02)),
    Candidate(name="sleep", kind="configuration", mean=(22.0, 13.0, 200.0, 0.72), half_width=(math.inf,) * 4),
)


def view_of(front: Front, baselines: tuple[Candidate, ...] = ()) -> FrontView:
    choices = {name: resolve(front, mode=mode) for name, mode in MODES.items()}
    return FrontView.of(front, choices=choices, baselines=baselines)


def texts(figure: Any) -> str:
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return "\n".join(found)


def positions(figure: Any) -> set[tuple[float, float]]:
    return {
        (round(float(x), 9), round(float(y), 9))
        for axis in figure.axes
        for line in axis.lines
        for x, y in zip(np.atleast_1d(line.get_xdata()), np.atleast_1d(line.get_ydata()), strict=True)
    }


def test_every_candidate_stands_in_every_panel_and_choices_are_ringed() -> None:
    front = network_front()
    figure = scatter(view_of(front, BASELINES))
    assert len(figure.axes) == 6
    drawn = positions(figure)
    for member in (*front.candidates, *BASELINES):
        for y in range(1, 4):
            for x in range(y):
                assert (round(member.mean[x], 9), round(member.mean[y], 9)) in drawn
    said = texts(figure)
    legend = "\n".join(text.get_text() for text in figure.legends[0].get_texts())
    for mode, name in view_of(front).chosen.items():
        assert f"{mode}: {name}" in legend
    assert "latency [ms]\n(lower is better)" in said
    assert "baseline default" in legend


def test_kinds_differ_in_marker_and_in_colour() -> None:
    assert len({colour for colour, _ in KIND_STYLES.values()}) == len({m for _, m in KIND_STYLES.values()}) == 3
    figure = scatter(view_of(network_front()), pair=("latency", "energy"))
    looks = {(line.get_marker(), line.get_color()) for line in figure.axes[0].lines if line.get_marker() in "os"}
    assert {("s", KIND_STYLES["configuration"][0]), ("o", KIND_STYLES["policy"][0])} <= looks


def test_a_pair_is_drawn_as_named_and_bars_are_the_half_widths() -> None:
    front = network_front(5)
    figure = scatter(FrontView.of(front), pair=("energy", "latency"))
    (axis,) = figure.axes
    assert axis.get_xlabel().startswith("energy [W]")
    segments = [s for bars in axis.collections for s in bars.get_segments()]
    for member in front.candidates:
        low, high = member.mean[2] - member.half_width[2], member.mean[2] + member.half_width[2]
        assert any(np.allclose(s[:, 0], [low, high]) and np.allclose(s[:, 1], member.mean[0]) for s in segments)


def test_an_unknown_interval_has_no_bar() -> None:
    front = network_front(1)
    alone = dataclasses.replace(front.candidates[0], half_width=(math.inf, math.nan, 1.0, 0.01))
    front = dataclasses.replace(front, candidates=(alone,))
    (axis,) = scatter(FrontView.of(front), pair=("latency", "throughput")).axes
    for bars in axis.collections:
        for start, end in bars.get_segments():
            np.testing.assert_array_equal(start, end)


def test_one_that_gave_everything_up_squeezes_nobody_and_is_named() -> None:
    front = network_front(30)
    lost = Candidate(name="lost", kind="policy", mean=(4.0, -4000.0, 151.0, 0.99), half_width=(0.1,) * 4)
    idle = dataclasses.replace(lost, name="off")
    view = FrontView.of(Front.of("n", NETWORK, [*front.candidates, lost]), baselines=[idle])
    figure = scatter(view, pair=("latency", "throughput"))
    (axis,) = figure.axes
    assert axis.get_ylim()[0] > -20
    assert view.outside(0, 1) == ("lost", "baseline off")
    assert view.outside(0, 3) == ()
    for drawn in (figure, scatter(view), parallel(view)):
        assert "2 outside the picture: lost, baseline off" in texts(drawn)
    assert "outside" not in texts(scatter(view, pair=("latency", "satisfaction")))


def test_of_many_that_are_outside_some_are_named() -> None:
    far = [
        Candidate(name=f"far-{i}", kind="policy", mean=(4.0 - 0.1 * i, -4000.0 - i, 151.0, 0.99), half_width=(0.1,) * 4)
        for i in range(20)
    ]
    view = FrontView.of(Front.of("n", NETWORK, [*network_front(30).candidates, *far]))
    said = " ".join(texts(scatter(view)).split())
    assert "20 outside the picture: far-0, far-1, " in said
    assert "far-11 and 8 more" in said
    assert "far-12" not in said


def test_a_chosen_one_is_never_outside() -> None:
    lost = Candidate(name="lost", kind="policy", mean=(-1000.0, 8.0, 355.0, 0.99), half_width=(0.1,) * 4)
    front = Front.of("n", NETWORK, [*network_front(30).candidates, lost])
    view = FrontView.of(front, choices={"emergency": resolve(front, mode=MODES["emergency"])})
    assert view.chosen == {"emergency": "lost"}
    assert view.limits()[0, 0] < -1000
    low, high = parallel(view).axes[0].get_ylim()
    goodness = view.goodness()[-1]
    assert low < goodness.min()
    assert goodness.max() < high


def test_parallel_lines_are_goodness_and_ticks_are_units() -> None:
    front = network_front()
    view = view_of(front, BASELINES)
    figure = parallel(view)
    (axis,) = figure.axes
    lines = [segment for lines in axis.collections for segment in lines.get_segments()]
    assert len(lines) + len(view.modes_by_candidate()) == len(front.candidates) + len(BASELINES)
    heights = {tuple(np.round(line[:, 1], 9)) for line in lines}
    for candidate, goodness in zip(front.candidates, view.goodness(), strict=True):
        if candidate.name not in view.modes_by_candidate():
            assert tuple(np.round(goodness, 9)) in heights
    said = texts(figure)
    assert "5 ms" in said  # the better end of a minimised objective stands where goodness is 1
    ticks = {text.get_text(): text.xy[1] for text in axis.texts}
    assert ticks["5 ms"] == pytest.approx(1.0)
    assert ticks["25 ms"] == pytest.approx(0.0)
    assert ticks["29 Mbit/s"] == pytest.approx(1.0)


def test_petals_are_goodness_and_say_what_lies_beyond() -> None:
    beyond = Candidate(name="beyond", kind="policy", mean=(1.0, 20.0, 400.0, 0.8), half_width=(0.1, 0.1, 1.0, 0.01))
    front = Front.of("n", NETWORK, [beyond])
    figure = petal(FrontView.of(front))
    (axis,) = figure.axes
    lengths = [bar.get_height() for bar in axis.patches]
    np.testing.assert_allclose(lengths, [1.0, 13 / 22, 0.0, 0.5])
    said = texts(figure)
    assert "1 ms\nbetter than the range" in said
    assert "400 W\nworse than the range" in said


def test_flowers_are_the_choices_or_the_best_of_each_objective_or_those_named() -> None:
    front = network_front()
    view = view_of(front)
    assert len(petal(view).axes) == len(set(view.chosen.values()))
    bare = FrontView.of(front)
    best = {front.candidates[i].name for i in bare.goodness().argmax(axis=0)}
    assert len(petal(bare).axes) == len(best)
    assert "best latency" in texts(petal(bare))
    assert len(petal(view, candidates=["candidate-7", "candidate-9"]).axes) == 2
    with pytest.raises(InvalidInputError, match="unknown candidate 'nobody'"):
        petal(view, candidates=["nobody"])
    with pytest.raises(InvalidInputError, match="1 to 24 candidates, not 0"):
        petal(view, candidates=[])
    with pytest.raises(InvalidInputError, match="1 to 24 candidates, not 30"):
        petal(view, candidates=[f"candidate-{i}" for i in range(30)])


@pytest.mark.parametrize("kind", ["scatter", "parallel", "petal"])
def test_pictures_are_written_and_the_same_front_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    view = view_of(network_front(), BASELINES)
    first = write_plot(view, kind, tmp_path / "new" / "a.png").read_bytes()
    assert write_plot(view, kind, tmp_path / "b.PNG").read_bytes() == first
    with Image.open(tmp_path / "b.PNG") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 10
    np.testing.assert_array_equal(pixels[0, 0], 255)  # a light background


@pytest.mark.parametrize("kind", ["scatter", "parallel", "petal"])
def test_no_name_breaks_a_picture(kind: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    view = FrontView.of(hostile_front())
    write_plot(view, kind, tmp_path / "a.png", candidates=list(HOSTILE))
    assert not [str(w.message) for w in recwarn if "font" in str(w.message) or "Glyph" in str(w.message)]


def test_text_is_one_short_line_of_glyphs_that_exist() -> None:
    assert plain("a\n\tb\u2028c") == "a b c"
    assert plain("漢") == "\N{WHITE SQUARE}"
    assert plain("$x$") == r"\$x\$"
    assert len(plain("y" * 500)) == 40


@pytest.mark.parametrize("kind", ["scatter", "parallel", "petal"])
@pytest.mark.parametrize("m", [1, 2, 3, 9])
def test_any_number_of_objectives(kind: str, m: int, tmp_path: Path) -> None:
    objectives = [Objective(name=f"o{j}", unit="s", direction="minimize", low=0.0, high=1.0) for j in range(m)]
    rng = np.random.default_rng(0)
    view = FrontView.of(front_of(objectives, rng.random((4, m)), rng, list("abcd"), "s"))
    if kind == "scatter" and m in (1, 9):
        with pytest.raises(InvalidInputError, match="needs two objectives" if m == 1 else "name a pair of o0, o1"):
            write_plot(view, kind, tmp_path / "a.png")
        assert not list(tmp_path.iterdir())
        return
    assert write_plot(view, kind, tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("value", [0.0, 1e-300, -1e99, 1e99])
def test_candidates_that_nothing_tells_apart_are_drawn(value: float, tmp_path: Path) -> None:
    objectives = NETWORK[:2]
    twins = tuple(Candidate(name=n, kind="policy", mean=(value, value), half_width=(0.0, 0.0)) for n in "ab")
    front = Front(scenario="s", objectives=objectives, candidates=twins)
    for kind in ("scatter", "parallel", "petal"):
        assert write_plot(FrontView.of(front), kind, tmp_path / f"{kind}.png").is_file()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mean": (1e101, 1.0, 1.0, 1.0)}, "beyond 1e\\+100"),
        ({"half_width": (-1.0, 1.0, 1.0, 1.0)}, "half width outside"),
        ({"half_width": (1e101, 1.0, 1.0, 1.0)}, "half width outside"),
        ({"half_width": ("x", 1.0, 1.0, 1.0)}, "is no number"),
        ({"mean": (1.0,), "half_width": (1.0,)}, "has 1 objectives; expected 4"),
    ],
)
def test_what_no_axis_can_hold_is_refused(change: dict[str, Any], expected: str) -> None:
    front = network_front(3)
    wrong = dataclasses.replace(front.candidates[1], **change)
    with pytest.raises(InvalidInputError, match=expected):
        FrontView.of(dataclasses.replace(front, candidates=(front.candidates[0], wrong)))
    with pytest.raises(InvalidInputError, match=expected):
        FrontView.of(front, baselines=[wrong])


def test_an_empty_front_and_a_foreign_choice_are_refused() -> None:
    front = network_front(3)
    with pytest.raises(InvalidInputError, match="no candidate to show"):
        FrontView.of(dataclasses.replace(front, candidates=()))
    choice = resolve(front, mode=MODES["normal"])
    other = dataclasses.replace(choice, candidate=dataclasses.replace(choice.candidate, name="stranger"))
    with pytest.raises(InvalidInputError, match="'stranger', which is not on the front"):
        FrontView.of(front, choices={"normal": other})


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("scatter", "a.pdf", "'a.pdf' must end in .html or .png for kind scatter"),
        ("page", "a.png", "'a.png' must end in .html for kind page"),
        ("petal", "png", "'png' must end in"),
        ("violin", "a.png", f"unknown kind 'violin'; allowed: {', '.join(KINDS)}"),
    ],
)
def test_other_kinds_and_endings_are_refused_by_naming_the_allowed(kind: str, name: str, expected: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_plot(kind, Path(name))
    assert expected in caught.value.message


@pytest.mark.parametrize("pair", [("latency", "latency"), ("latency", "speed")])
def test_a_pair_names_two_objectives_of_the_front(pair: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        scatter(FrontView.of(network_front(3)), pair=pair)


@pytest.mark.parametrize("count", [1, 5])
def test_every_petal_label_lies_within_the_picture(count: int) -> None:
    """The widest: long names of wide letters, and values far outside of the range."""
    objectives = [
        Objective(name="W" * 17 + str(j), unit="Mbit/s", direction="minimize", low=0, high=1) for j in range(5)
    ]
    rng = np.random.default_rng(0)
    front = front_of(objectives, rng.random((count, 5)) * 6.0 - 3.0, rng, list("abcde")[:count], "s")
    front = dataclasses.replace(front, candidates=front.candidates[:count])
    figure = petal(FrontView.of(front), candidates=[c.name for c in front.candidates])
    figure.canvas.draw()
    assert "worse than the range" in texts(figure)
    right = figure.bbox.width
    for axis in figure.axes:
        for label in axis.get_xticklabels():
            box = label.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= right


def test_long_labels_leave_the_flowers_their_size_and_zero_is_zero() -> None:
    unit = "EUR per 1,000 impressions"
    objectives = [
        Objective(name="o" * 30 + str(j), unit=unit, direction="minimize", low=0.0, high=1.0) for j in range(8)
    ]
    rng = np.random.default_rng(0)
    view = FrontView.of(front_of(objectives, rng.random((9, 8)), rng, list("abcdefghi"), "s"))
    figure = petal(view)
    for axis in figure.axes:
        box = axis.get_position()
        assert box.width * figure.get_figwidth() == pytest.approx(2.0)
        assert box.height * figure.get_figheight() == pytest.approx(2.0)
    assert "e-1" not in texts(parallel(view))
