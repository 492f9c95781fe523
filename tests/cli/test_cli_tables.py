"""Tables that fit: no word of a name is broken at 80 columns, whatever has to give way for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from rlaas.cli.main import app, run
from rlaas.cli.output import print_lines
from rlaas.cli.tables import fitting_table
from rlaas.fronts import Candidate, CandidateKind, Front
from rlaas.scenarios import load

NAMES = ("network5g@mostly-satisfaction", "network5g@energy+satisfaction", "static-with-quite-a-long-name-17")


def screen(columns: list[str], rows: list[list[str]], width: int, title: str = "a title") -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(fitting_table(title, columns, rows, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_what_fits_stands_in_one_line_per_row() -> None:
    lines = screen(["name", "speed [km/h]"], [["a", "1 ± 0.5"], ["b", "2"]], 40)
    assert lines[0] == "a title"
    assert [line for line in lines if "│" in line] == ["│ a    │ 1 ± 0.5      │", "│ b    │ 2            │"]


def test_units_fold_below_their_name_and_intervals_keep_their_sign() -> None:
    lines = screen(["name", "speed [km/h]"], [["candidate-1", "10.5 ± 0.5"]], 24)
    assert [line for line in lines if "┃" in line][:2] == [
        "┃             ┃ speed  ┃",
        "┃ name        ┃ [km/h] ┃",
    ]
    assert [line for line in lines if "│" in line] == ["│ candidate-1 │ 10.5   │", "│             │ ± 0.5  │"]


def test_then_borders_go_and_at_last_it_stands_upright() -> None:
    columns, rows = ["name", "energy", "note"], [["candidate-1", "12.5", "fast"], ["candidate-2", "13", ""]]
    assert screen(columns, rows, 25)[1:] == [
        "name         energy  note",
        "candidate-1  12.5    fast",
        "candidate-2  13",
    ]
    assert screen(columns, rows, 24)[1:] == [
        "candidate-1",
        "  energy  12.5",
        "  note    fast",
        "candidate-2",
        "  energy  13",
    ]


def test_brackets_are_no_markup() -> None:
    lines = "\n".join(screen(["name", "wait [s]", "kind [b]"], [["[red]a", "1", ":smile:"]], 60, "[b]title"))
    for text in ("[b]title", "wait [s]", "kind [b]", "[red]a", ":smile:"):
        assert text in lines


WORDS = st.text("abc-@.ü€漢", min_size=1, max_size=12)


@settings(max_examples=200)
@given(
    st.integers(2, 5).flatmap(
        lambda n: st.lists(
            st.lists(st.lists(WORDS, max_size=3).map(" ".join), min_size=n, max_size=n), min_size=1, max_size=4
        )
    ),
    st.integers(30, 100),
)
def test_no_word_is_ever_broken_or_lost(rows: list[list[str]], width: int) -> None:
    columns = [f"column-{j}" for j in range(len(rows[0]))]
    lines = screen(columns, rows, width)
    assert max(cell_len(line) for line in lines) <= width
    found = " ".join(lines).replace("│", " ").replace("┃", " ").split()
    for word in (word for row in rows for cell in row for word in cell.split()):
        assert word in found


def as_in_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A terminal without colours: sentences are broken between words."""
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", str(width)), ("LINES", "50")):
        monkeypatch.setenv(name, value)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[bool], Path]:
    def written(mixed: bool) -> Path:
        means = ((0.6, 14.0, 190.0, 0.81), (0.7, 24.0, 251.0, 0.86), (0.61, 20.0, 203.0, 0.75))
        kinds: tuple[CandidateKind, ...] = ("policy", "configuration", "hyperparameters")
        members = [
            Candidate(name=name, kind=kind if mixed else "policy", mean=mean, half_width=(0.06, 2.9, 4.1, 0.02))
            for name, kind, mean in zip(NAMES, kinds, means, strict=True)
        ]
        path = tmp_path / "front.json"
        path.write_text(json.dumps(Front.of("network5g", load("network5g").objectives, members).to_dict()))
        return path

    return written


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        ["fronts", "show", "network5g"],
        ["resolve", "network5g"],
        ["resolve", "network5g", "--explain"],
        ["resolve", "network5g", "--rules", "configs/rules/network5g.yaml", "--context", "disaster=true", "--dry-run"],
    ],
    ids=["show", "resolve", "explain", "dry-run"],
)
def test_screens_fit_and_name_candidates_whole(
    command: list[str],
    mixed: bool,
    width: int,
    file: Callable[[bool], Path],
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(repository)
    as_in_a_terminal(monkeypatch, width)
    path = file(mixed)
    assert run(app, [*command, "--front", str(path)]) == 0
    out = capsys.readouterr().out
    assert max(cell_len(line) for line in out.splitlines() if str(path) not in line) <= width
    words = set(out.replace("│", " ").split())
    shown = json.loads(path.read_text())["candidates"] if command[0] == "fronts" else []
    assert all(c["name"] in words for c in shown)
    for broken in (name[:cut] for name in NAMES for cut in range(len("network5g@"), len(name))):
        assert broken not in words


def test_sentences_are_whole_where_nobody_reads_them_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    sentence = "one sentence that is longer than that [b]"
    print_lines([sentence])
    assert capsys.readouterr().out == sentence + "\n"
    as_in_a_terminal(monkeypatch, 20)
    print_lines([sentence])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "one sentence that is",
        "longer than that [b]",
    ]
