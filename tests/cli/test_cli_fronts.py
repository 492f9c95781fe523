"""``rlaas fronts``: listing, showing, drawing and asking, with real files and a real registry."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.bundles import policy_bundle
from support.front_kit import HOSTILE, hostile_front, network_front, write_front_file

from rlaas.cli.main import app, run
from rlaas.decisions.elicitation import Elicitation
from rlaas.fronts import Candidate, Front
from rlaas.optimization import front_hypervolume
from rlaas.plots import KINDS
from rlaas.registry import Registry
from rlaas.scenarios import load
from rlaas.settings import load_settings

TOY = "support.toy:ToyScenario"


def toy_front() -> Front:
    objectives = load(TOY).objectives
    members = [
        Candidate(
            name=f"effort-{i}",
            kind="configuration" if i % 2 else "policy",
            mean=(0.4 * i, 2.0 + 0.8 * i),
            half_width=(0.05, math.inf),
            seeds=(1, 2),
            parameters={"effort": i / 10},
        )
        for i in range(11)
    ]
    return Front.of("toy", objectives, members)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(toy_front().to_dict()))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with a champion and a candidate of the toy, a search's front, and a file that is none."""
    root = tmp_path_factory.mktemp("fronts")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for alias, kept in (("champion", 5), ("candidate", 11)):
        front = toy_front()
        part = Front(scenario="toy", objectives=front.objectives, candidates=front.candidates[:kept])
        registry.register(
            "toy", policy_bundle(root / alias, seed=kept), documents={"front.json": part.to_dict()}, alias=alias
        )
    write_front_file(settings.home, toy_front(), "static")
    write_front_file(settings.home, toy_front(), "broken").write_text("[]")
    return settings.home


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(app, [*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_front_is_listed_and_what_is_none_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(home))
    found = document(capsys, "fronts", "list")
    assert [(f["label"], f["candidates"], f["source"]) for f in found["fronts"]] == [
        ("candidate", 11, "registry"),
        ("champion", 5, "registry"),
        ("static", 11, "file"),
    ]
    assert [p["where"] for p in found["problems"]] == ["fronts/toy-broken.json"]
    assert run(app, ["fronts", "list"]) == 0
    captured = capsys.readouterr()
    assert "champion" in captured.out
    assert "fronts/toy-broken.json" in captured.err


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ([], 11),
        (["--policy", "champion"], 5),
        (["--policy", "1"], 5),
        (["--label", "champion"], 5),
        (["--label", "static"], 11),
    ],
    ids=str,
)
def test_a_scenario_stands_for_its_newest_front(
    options: list[str], count: int, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(home))
    assert len(document(capsys, "fronts", "show", TOY, *options)["candidates"]) == count
    assert run(app, ["fronts", "show", "toy", *options]) == 0
    assert capsys.readouterr().out.startswith("toy: front ")


def test_show_holds_the_front_its_version_and_the_choices(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    front = toy_front()
    found = document(capsys, "fronts", "show", TOY, "--front", str(file))
    assert Front.from_dict(found) == front
    assert found["version"] == front.version
    assert found["hypervolume"] == pytest.approx(front_hypervolume(front))
    assert set(found["choices"]) == {"balanced", "cheap"}
    assert run(app, ["fronts", "show", TOY, "--front", str(file)]) == 0
    out = capsys.readouterr().out
    assert "quality" in out
    assert "0.4 ± 0.05" in out
    # Without its scenario a front has no modes; everything else is there.
    assert document(capsys, "fronts", "show", "--front", str(file))["choices"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_pages_are_written(
    kind: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / f"{kind}.html"
    found = document(capsys, "fronts", "plot", TOY, "--front", str(file), "--kind", kind, "--output", str(page))
    assert found["output"] == str(page)
    assert set(found["choices"]) == {"balanced", "cheap"}
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    if kind != "page":
        picture = page.with_suffix(".png")
        assert run(app, ["fronts", "plot", TOY, "--front", str(file), "--kind", kind, "--output", str(picture)]) == 0
        assert f"11 candidates of toy in {picture}" in capsys.readouterr().out
        with Image.open(picture) as opened:
            assert min(opened.size) > 300


def test_baselines_are_evaluated_on_demand(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = str(tmp_path / "a.html")
    found = document(capsys, "fronts", "plot", TOY, "--front", str(file), "--baselines", "--output", page)
    assert found["baselines"] == ["half", "full"]
    embedded = Path(page).read_text(encoding="utf-8")
    assert '"baselines":[{"name":"half"' in embedded


def test_answers_lead_where_the_library_leads(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = Elicitation(toy_front()).answer("a")
    found = document(capsys, "fronts", "ask", "--front", str(file), "--answers", "a")
    assert found["preference"] == pytest.approx(state.result().to_dict())
    assert found["answered"] == 1
    assert Elicitation.from_dict(found["state"], toy_front()).summary() == state.summary()
    assert run(app, ["fronts", "ask", "--front", str(file), "--answers", "a"]) == 0
    out = capsys.readouterr().out
    assert f"recommended: {state.recommended.name}" in out
    assert f"rlaas resolve toy --front {file} --method weighted_sum --weights cost=" in out


def test_a_dialogue_forgives_typing_and_takes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(network_front(30).to_dict()))
    monkeypatch.setattr("sys.stdin", io.StringIO("what\nundo\nb\nu\nA\nq\n"))
    assert run(app, ["fronts", "ask", "--front", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    expected = Elicitation(network_front(30)).answer("a")
    assert json.loads(captured.out)["preference"] == pytest.approx(expected.result().to_dict())
    assert "allowed: a, b, equal, undo, quit" in captured.err
    assert captured.err.count("1. Which is better?") == 4
    assert captured.err.count("2. Which is better?") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(""))  # nobody is there
    assert run(app, ["fronts", "ask", "--front", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answered"] == 0


def test_names_reach_a_terminal_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    front = hostile_front()
    harmless = [c for c in front.candidates if c.name.isprintable()]
    assert len(harmless) > 6
    path = tmp_path / "front.json"
    path.write_text(json.dumps(Front.of("[red]s[/]", front.objectives, harmless).to_dict()))
    assert run(app, ["fronts", "show", "--front", str(path)]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert HOSTILE[6] in shown
    for name in ("a\x1b[31m", "\ud800", "", "a\nb"):
        content = front.to_dict()
        content["candidates"][0]["name"] = name
        path.write_text(json.dumps(content))
        assert run(app, ["fronts", "show", "--front", str(path)]) == 2
        assert "without control characters" in capsys.readouterr().err


DAMAGES: list[tuple[Any, str]] = [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ([], "a front is a JSON object"),
    ({}, "lacks 'schema_version'"),
    ({"schema_version": 9}, "schema_version 9 is not supported"),
    ({"candidates": []}, "has no candidate"),
    ({"candidates": 3}, "is malformed"),
    ({"candidates": ["x"]}, "is malformed"),
    ({"objectives": []}, "a front needs objectives"),
    ({"scenario": ""}, "scenario: expected text"),
    ({"half_width": [1.0]}, "2 means but 1 half widths"),
    ({"mean": [1.0], "half_width": [1.0]}, "has 1 means; expected 2"),
    ({"mean": [math.nan, 1.0]}, "cost must be a finite number, got nan"),
    ({"mean": [1.0, True]}, "quality must be a finite number, got True"),
    ({"mean": ["1", 1.0]}, "cost must be a finite number, got '1'"),
    ({"half_width": [-1.0, 1.0]}, "half_width holds numbers >= 0"),
    ({"half_width": ["x", 1.0]}, "half_width holds numbers >= 0"),
    ({"kind": "robot"}, "unknown candidate kind 'robot'"),
    ({"parameters": []}, "parameters are an object"),
    ({"parameters": {"x": math.nan}}, "parameters that JSON cannot hold"),
    ({"seeds": ["x"]}, "seeds are whole numbers"),
    ({"name": "effort-1"}, "occurs twice among the candidates"),
]


@pytest.mark.parametrize(("damage", "expected"), DAMAGES, ids=lambda value: str(value)[:40])
def test_a_file_that_is_no_front_is_refused_in_one_line(
    damage: Any, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: Any = damage
    if isinstance(damage, dict) and damage:
        content = {**toy_front().to_dict()}
        own = {key: value for key, value in damage.items() if key in content}
        content.update(own)
        if not own:
            content["candidates"] = [{**content["candidates"][0], **damage}, *content["candidates"][1:]]
    path = tmp_path / "front.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert run(app, ["fronts", "show", "--front", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: --front {path}")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show"], "name a scenario, or a file with --front"),
        (["show", "--front", "/nowhere.json"], "--front /nowhere.json: No such file or directory"),
        (["show", "../etc"], "is not a plain name"),
        (["show", "x", "--label", "a", "--policy", "b"], "--policy and --label name different fronts; give one"),
        (["show", "x", "--label", "../a"], "is not a plain name"),
        (["show", "nowhere:Nothing"], "'nowhere:Nothing' cannot be loaded"),
        (["plot", "x", "--output", "a.pdf"], "'a.pdf' must end in .html for kind page"),
        (["plot", "x", "--kind", "scatter", "--output", "a.pdf"], "must end in .html or .png for kind scatter"),
        (["plot", "x", "--kind", "violin", "--output", "a.png"], f"unknown kind 'violin'; allowed: {', '.join(KINDS)}"),
        (["plot", "x", "--pair", "a", "--output", "a.html"], "--pair 'a' must be two objectives"),
        (["plot", "x", "--output", "/dev/null/a.html"], "cannot be created: /dev/null is a file"),
        (["plot", "x", "--output", "no/where/a.html"], "--output no/where/a.html: there is no folder"),
        (["plot", "x", "--kind", "parallel", "--pair", "a,b", "--output", "a.png"], "--pair belongs to --kind scatter"),
        (["plot", "x", "--kind", "petal", "--pair", "a,b", "--output", "a.png"], "--pair belongs to --kind scatter"),
        (["plot", "x", "--kind", "scatter", "--candidate", "a", "--output", "a.png"], "--candidate belongs to --kind"),
        (["plot", "x", "--kind", "parallel", "--candidate", "a", "--output", "a.png"], "or page, not to parallel"),
        (["plot", "x"], "Missing option '--output'"),
        (["ask", "x", "--answers", "abc"], "--answers 'abc' holds 'c'; allowed: a, b and e (equal)"),
        (["ask", "x", "--seed", "-1"], "--seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(app, ["fronts", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_bad_wishes_about_a_front_write_nothing(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "a.png"
    plot = ["fronts", "plot", "--front", str(file), "--output", str(picture), "--kind"]
    for arguments, expected in (
        ([*plot, "scatter", "--pair", "cost,speed"], "unknown --pair objective 'speed'; allowed: cost, quality"),
        ([*plot, "petal", "--candidate", "nobody"], "unknown --candidate 'nobody'; allowed: effort-0,"),
        ([*plot, "scatter", "--baselines"], "--baselines needs the scenario toy, which is not installed here"),
        (["fronts", "ask", "--front", str(file), "--tolerance", "2", "--answers", "a"], "tolerance must be"),
        (["fronts", "show", "network5g", "--front", str(file)], "holds a front of toy, not of network5g"),
        (["fronts", "show", "mars", "--front", str(file)], "holds a front of toy, not of mars"),
    ):
        assert run(app, arguments) == 2
        assert expected in capsys.readouterr().err
    assert not picture.exists()


def test_a_page_draws_no_candidate_that_is_not_there(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a.html"
    plot = ["fronts", "plot", "--front", str(file), "--output", str(output), "--candidate"]
    assert run(app, [*plot, "nobody"]) == 2
    assert "unknown --candidate 'nobody'" in capsys.readouterr().err
    assert not output.exists()
    assert run(app, [*plot, "effort-1", "--pair", "cost,quality"]) == 0


def test_answers_beyond_the_last_question_are_left_over(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["fronts", "ask", "--front", str(file), "--answers", "a" * 60, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["done"]
    assert 0 < found["answered"] < 60
    assert captured.err == f"note: {found['answered']} of 60 answers were used; then nothing was left to ask\n"
    exact = ["fronts", "ask", "--front", str(file), "--answers", "a" * found["answered"], "--json"]
    assert run(app, exact) == 0
    again = capsys.readouterr()
    assert json.loads(again.out) == found
    assert again.err == ""


@pytest.mark.parametrize(("made_with", "warned"), [("old", True), ("", False), ("toy", False)])
def test_a_front_of_another_reference_is_used_with_a_warning(
    made_with: str,
    warned: bool,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file.write_text(json.dumps({**toy_front().to_dict(), "reference_hash": made_with}))
    assert run(app, ["fronts", "show", TOY, "--front", str(file), "--json"]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["candidates"]) == 11
    assert ("warning: the front was made with reference old; toy now has toy" in captured.err) == warned
    assert warned or captured.err == ""


def test_a_large_front_is_shown_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "front.json"
    path.write_text(json.dumps(network_front(400).to_dict()))
    assert len(document(capsys, "fronts", "show", "--front", str(path))["candidates"]) == 400
    output = str(tmp_path / "a.html")
    assert document(capsys, "fronts", "plot", "--front", str(path), "--output", output)["candidates"] == 400
