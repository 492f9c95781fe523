"""``rlaas scenarios`` and ``evaluate``: looking at problems, and judging what controls them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rlaas.cli import scenario_reports
from rlaas.cli.output import JsonOption, bar, print_json, print_table
from rlaas.errors import InvalidInputError, check_choice
from rlaas.scenarios import EvaluationProtocol, Scenario, available, load

__all__ = ["app", "evaluate"]

app = typer.Typer(help="The scenarios and what they are made of.", invoke_without_command=True)

app.command("calibrate")(scenario_reports.calibrate)
app.command("render")(scenario_reports.render)
app.command("feasibility")(scenario_reports.feasibility)

ScenarioArgument = Annotated[str, typer.Argument(help="Name of a scenario, or module:attribute.")]


@app.callback()
def list_scenarios(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the installed scenarios; with a command, say what one is made of, draw it, or ask what it allows."""
    if context.invoked_subcommand is not None:
        if as_json:
            # The list's own flag: passed over, it would leave a reader of JSON with tables.
            raise InvalidInputError(f"--json goes behind {context.invoked_subcommand}", field="json")
        return
    loaded = [(name, load(name)) for name in available()]
    if as_json:
        print_json([_document(s) for _, s in loaded])
        return
    print_table(
        "scenarios",
        ("name", "algorithm", "objectives", "modes", "baselines"),
        [
            (
                name,
                s.algorithm,
                ", ".join(o.name for o in s.objectives),
                ", ".join(s.modes),
                ", ".join(s.baselines),
            )
            for name, s in loaded
        ],
    )


@app.command("show")
def show(scenario: ScenarioArgument, as_json: JsonOption = False) -> None:
    """Show one scenario: options, objectives, modes, baselines, features, targets."""
    loaded = load(scenario)
    document = _document(loaded)
    if as_json:
        print_json(document)
        return
    print_table(
        f"{loaded.name}: objectives (reference {loaded.reference_hash})",
        ("name", "unit", "direction", "range", "target", "description"),
        [
            (
                o.name,
                o.unit or "-",
                o.direction,
                f"{o.low:g} .. {o.high:g}",
                loaded.targets[o.name].describe() if o.name in loaded.targets else "-",
                o.description,
            )
            for o in loaded.objectives
        ],
    )
    print_table("options", ("name", "default"), [(name, _option(value)) for name, value in loaded.options.items()])
    print_table(
        "modes",
        ("name", "preference", "rules"),
        [
            (m.name, _weights(m.preference.to_dict()), ", ".join(str(r) for r in m.rules) or "-")
            for m in loaded.modes.values()
        ],
    )
    print_table("baselines", ("name", "description"), [(b.name, b.description) for b in loaded.baselines.values()])
    print_table(
        "tunables", ("name", "parameters"), [(t.name, ", ".join(t.parameters)) for t in loaded.tunables.values()]
    )
    print_table("features", ("#", "name"), list(enumerate(loaded.observation_names)))


def _option(value: Any) -> str:
    return "-" if value is None or value == () else str(value)


def _weights(preference: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in preference.items())


def _document(scenario: Scenario) -> dict[str, Any]:
    return {
        "name": scenario.name,
        "algorithm": scenario.algorithm,
        "reference_hash": scenario.reference_hash,
        "options": dict(scenario.options),
        "objectives": [o.to_dict() for o in scenario.objectives],
        "modes": {
            m.name: {"preference": m.preference.to_dict(), "rules": [str(r) for r in m.rules]}
            for m in scenario.modes.values()
        },
        "baselines": {b.name: b.description for b in scenario.baselines.values()},
        "tunables": {t.name: list(t.parameters) for t in scenario.tunables.values()},
        "features": list(scenario.observation_names),
        "targets": {t.objective: t.describe() for t in scenario.targets.values()},
        "protocols": {name: p.describe() for name, p in scenario.protocols.items()},
    }


def _protocol(scenario: Scenario, name: str) -> EvaluationProtocol:
    check_choice(name, scenario.protocols, field="protocol")
    return scenario.protocols[name]


def evaluate(
    scenario: ScenarioArgument,
    policy: Annotated[str | None, typer.Option(help="Version or alias of the registered policy.")] = None,
    baseline: Annotated[str | None, typer.Option(help="One baseline; default: all of them.")] = None,
    mode: Annotated[str | None, typer.Option(help="Mode of the policy; default: the scenario's primary.")] = None,
    option: scenario_reports.OptionsOption = None,
    protocol: Annotated[str, typer.Option(help="short or full.")] = "short",
    seed: Annotated[int, typer.Option(min=0, help="Which evaluation seeds.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Evaluate baselines, or a registered policy, on common seeds."""
    from rlaas.pipeline import evaluate_controller, seeds_for
    from rlaas.scenarios import Controller

    options = scenario_reports.parse_options(option or [])
    loaded = load(scenario, **options)
    chosen = _protocol(loaded, protocol)
    controllers: dict[str, Controller] = {}
    if mode is not None:
        check_choice(mode, loaded.modes, field="mode")
    if policy is not None:
        from rlaas.bundles import load_bundle
        from rlaas.registry import Registry
        from rlaas.settings import load_settings
        from rlaas.training import PolicyController

        name = mode or loaded.primary_mode
        registry = Registry(load_settings())
        version = registry.get(loaded.name, policy)
        bundle = load_bundle(registry.path(loaded.name, version.version))
        controllers[f"{loaded.name}:{version.version}@{name}"] = PolicyController(bundle, loaded.modes[name].preference)
    if baseline is not None:
        check_choice(baseline, loaded.baselines, field="baseline")
    for name in [baseline] if baseline else list(loaded.baselines) if policy is None else []:
        controllers[name] = loaded.baselines[name].make()
    results = {}
    seeds = seeds_for("table", seed, chosen.seeds)
    with bar(f"evaluate {loaded.name}") as advance:
        for done, (name, controller) in enumerate(controllers.items(), 1):
            results[name] = evaluate_controller(loaded, controller, seeds, chosen)
            advance(done, len(controllers))
    names = [o.name for o in loaded.objectives]
    if as_json:
        print_json(
            {
                "scenario": loaded.name,
                "options": options,
                "reference_hash": loaded.reference_hash,
                "protocol": chosen.describe(),
                "results": {
                    label: {
                        n: {"mean": m, "half_width": h}
                        for n, m, h in zip(names, e.mean().tolist(), e.half_width().tolist(), strict=True)
                    }
                    for label, e in results.items()
                },
            }
        )
        return
    given = "".join(f", {name}={value}" for name, value in options.items())
    print_table(
        f"{loaded.name}{given}, {chosen.describe()}, 95 % intervals",
        ("candidate", *names),
        [
            (label, *(f"{m:.4g} ± {h:.2g}" for m, h in zip(e.mean(), e.half_width(), strict=True)))
            for label, e in results.items()
        ],
    )
