"""``rlaas scenarios calibrate``, ``render`` and ``feasibility``: pages and pictures of a scenario."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlaas.cli.output import JsonOption, bar, check_file, check_folder, console_for, print_json, print_table
from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.scenarios import load

if TYPE_CHECKING:
    from rlaas.scenarios import Scenario
    from rlaas.scenarios.reports import Report

__all__ = ["calibrate", "feasibility", "parse_options", "render"]

ScenarioArgument = Annotated[str, typer.Argument(help="Name of a scenario, or module:attribute.")]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="Option of the scenario, as name=value; once for each. `show` lists them."),
]
LoadOption = Annotated[str | None, typer.Option("--load", help="Short for --option load=...")]
OutputFolder = Annotated[Path, typer.Option(help="Folder of the page and its figures.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A first look: simulate and search much less.")]

FRAME_MS = 100
"""How long a frame of an animation stands."""
PALETTE_FRAMES = 8
"""Frames whose colours make the palette of an animation."""
SUFFIXES = (".gif", ".png")
LONGEST_NAME = 80
"""Characters of options in a file's name."""
_PLAIN = re.compile(r"[a-z_0-9]+=[A-Za-z0-9_.+]+")
"""An option whose value stands in a file's name as it is. Without ``-``, which separates options."""


def calibrate(
    scenario: ScenarioArgument,
    output: OutputFolder = Path("reports"),
    data_dir: Annotated[Path | None, typer.Option(help="Measured data; default: RLAAS_DATA_DIR.")] = None,
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the simulator with measurements, and write a page with figures."""
    from rlaas.pipeline import replay_section

    check_folder(output)
    loaded = load(scenario)
    with bar(f"calibrate {loaded.name}") as advance:
        report = loaded.calibration(data_dir, quick=quick)
        pairs = loaded.logs(data_dir)
        if pairs:
            section = replay_section(pairs, runs=5 if quick else 30, progress=advance)
            report = replace(report, sections=(*report.sections, section))
        advance(1, 1)
    _publish(report, output, f"{_file_name(loaded)}-calibration", as_json)


def feasibility(
    scenario: ScenarioArgument,
    option: OptionsOption = None,
    load_regime: LoadOption = None,
    tunable: Annotated[list[str] | None, typer.Option(help="Family of controllers; default: all.")] = None,
    generations: Annotated[int | None, typer.Option(help="Generations of every search.")] = None,
    population: Annotated[int | None, typer.Option(help="Controllers of every generation.")] = None,
    worlds: Annotated[int | None, typer.Option(help="Seeds of every evaluation of a search.")] = None,
    steps: Annotated[int | None, typer.Option(help="Counted steps of every evaluation of a search.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of worlds and searches.")] = 0,
    capabilities: Annotated[
        bool, typer.Option(help="Add what the scenario can do in configurations of its own, whatever the options.")
    ] = True,
    output: OutputFolder = Path("reports"),
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search what can be reached, alone and together, and hold it against the published targets."""
    from rlaas.pipeline import Budget, feasibility_page
    from rlaas.pipeline import feasibility as answer

    check_folder(output)
    options = parse_options([*(option or []), *([] if load_regime is None else [f"load={load_regime}"])])
    loaded = load(scenario, **options)
    budget = Budget.of(loaded, quick=quick, generations=generations, population=population, worlds=worlds, steps=steps)
    with bar(f"feasibility of {loaded.name}") as advance:
        found = answer(loaded, budget, tunables=tunable, options=options, seed=seed, progress=advance)
        extra = loaded.capabilities(quick=quick) if capabilities else ()
    page = feasibility_page(found, extra)
    name = f"{_file_name(loaded)}-feasibility{_options_part(options)}"
    _publish(page, output, name, as_json, found.to_dict())


def render(
    scenario: ScenarioArgument,
    output: Annotated[Path, typer.Option(help="File to write: .gif for an animation, .png for the last frame.")],
    baseline: Annotated[str | None, typer.Option(help="Who controls it; default: the scenario's default.")] = None,
    option: OptionsOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the environment.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Steps to run.")] = 100,
    every: Annotated[int, typer.Option(min=1, help="Steps between two frames.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Run a baseline and draw what happens."""
    if output.suffix.lower() not in SUFFIXES:
        raise InvalidInputError(f"--output must end in {' or '.join(SUFFIXES)}, got {output}", field="output")
    check_file(output)
    loaded = load(scenario, **parse_options(option or []))
    name = baseline or loaded.default_baseline
    check_choice(name, loaded.baselines, field="baseline")
    frames = _frames(loaded, name, seed, steps, steps if output.suffix.lower() == ".png" else every)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix.lower() == ".png":
        frames[-1].save(output)
    else:
        shown = _one_palette(frames)
        shown[0].save(output, save_all=True, append_images=shown[1:], duration=FRAME_MS, loop=0)
    if as_json:
        print_json({"scenario": loaded.name, "baseline": name, "frames": len(frames), "output": str(output)})
        return
    typer.echo(f"{len(frames)} frame{'s' if len(frames) > 1 else ''} of {loaded.name} under {name} in {output}")


def parse_options(given: Sequence[str]) -> dict[str, Any]:
    """Scenario options from ``name=value``; values as YAML has them (``7`` is a number, ``[1, 2]`` a list).

    Raises:
        ConfigurationError: not of that form, not YAML, or a name twice.
    """
    import yaml

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigurationError(f"--option {text!r} must be name=value", field="option")
        if name in options:
            raise ConfigurationError(f"option {name} is given twice", field=name)
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as problem:
            raise ConfigurationError(f"--option {name}: {value!r} is no YAML value", field=name) from problem
    return options


def _frames(scenario: Scenario, baseline: str, seed: int, steps: int, every: int) -> list[Any]:
    from PIL import Image

    env = scenario.vector_env(1, seed)
    observation, _ = env.reset(seed=seed)
    controller = scenario.baselines[baseline].make()
    controller.reset(env.num_envs, seed)
    frames = []
    with bar(f"render {scenario.name}") as advance:
        for step in range(1, steps + 1):
            action = controller.act(observation)
            following, reward, _, _, _ = env.step(action)
            controller.learn(observation, action, reward)
            observation = following
            if step % every == 0 or step == steps:
                frames.append(Image.fromarray(scenario.picture(env)))
            advance(step, steps)
    env.close()
    return frames


def _one_palette(frames: list[Any]) -> list[Any]:
    """The frames in 256 colours common to all: with palettes of their own the colours would flicker."""
    from PIL import Image

    some = frames[:: max(1, len(frames) // PALETTE_FRAMES)]
    strip = Image.new("RGB", (frames[0].width, sum(frame.height for frame in some)))
    top = 0
    for frame in some:
        strip.paste(frame, (0, top))
        top += frame.height
    palette = strip.quantize(colors=256)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _file_name(scenario: Scenario) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in scenario.name)


def _options_part(options: Mapping[str, Any]) -> str:
    """``-load=high-size=medium``: names that differ where options do; the page's title has the options in full.

    What is too long, or has characters that a shell or a file system might not take, is known by a digest.
    """
    # In one order, whichever they were given in: the same question is the same page.
    parts = [f"{name}={value}" for name, value in sorted(options.items())]
    plain = "".join(f"-{part}" for part in parts)
    if len(plain) <= LONGEST_NAME and all(_PLAIN.fullmatch(part) for part in parts):
        return plain
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    kept = "".join(f"-{part}" for part in parts if _PLAIN.fullmatch(part))
    return f"{kept if len(kept) <= LONGEST_NAME else ''}-{digest}"


def _publish(report: Report, folder: Path, name: str, as_json: bool, document: dict[str, Any] | None = None) -> None:
    """Write the page, and print it: as tables, or as one JSON document."""
    page = report.write(folder, name)
    if as_json:
        print_json({**(document or {}), "report": report.to_dict(), "page": str(page)})
        return
    console = console_for(as_json)
    for paragraph in report.summary:
        console.print(paragraph, markup=False)
    for section in report.sections:
        if section.rows:
            print_table(section.title, section.header, [[_cell(cell) for cell in row] for row in section.rows])
        for note in section.notes:
            console.print(note, markup=False, style="dim")
    console.print(f"page and figures: {page}", markup=False)


def _cell(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
