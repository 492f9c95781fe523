"""``rlaas experiments``: over real HTTP against a real Control, and the calculator without one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from scipy import stats
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.proportion import proportion_effectsize
from support.adaptive_site import Site
from support.control_kit import control_over, home_with
from support.experiment_kit import START_US, Traffic, document
from support.front_kit import NoOperations
from support.http_server import serving
from support.lanes import StandIn

from rlaas.cli.main import app, run
from rlaas.control.experiments import ExperimentService, parse_document
from rlaas.control.gating import GateDeclaration
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.lake import Lake
from rlaas.lake.records import DecisionRecord
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.serving.web import create_app

WIDTH = 80
LOGGED = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")
TIMING = {"window_s": 600.0, "lateness_s": 120.0}


class Platform:
    """A platform whose lake the test fills."""

    def __init__(self, url: str, lake: Lake, control: ControlService) -> None:
        self.url, self.lake, self.control = url, lake, control

    def fill(self, given: dict[str, Any], seed: int, lift: float) -> None:
        traffic = Traffic(parse_document(given), seed, lift=lift)
        traffic.make(1200)
        for table, rows in (
            ("bronze.decisions", decision_rows(traffic.decisions)),
            ("bronze.outcomes", outcome_rows(traffic.outcomes)),
        ):
            self.lake.append_once(table, {f"kit-{given['id']}": [(1, lambda rows=rows: rows)]})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("experiments")
    control, lake = control_over(home_with(root, {"toy": [{"seed": 1}, {"seed": 2}]}), root), Lake(root / "lake")
    service = ExperimentService(control, "default", lake, clock=lambda: START_US)
    routes = ControlRoutes(control, NoOperations(), experiments=service)
    with serving(create_app(StandIn(control=routes))) as address:
        yield Platform(f"http://{address}", lake, control)


@pytest.fixture
def ask(platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", str(WIDTH))

    def asked(*arguments: str, status: int = 0, online: bool = True) -> str:
        where = ["--url", platform.url] if online else []
        assert run(app, ["experiments", *arguments, *where]) == status
        captured = capsys.readouterr()
        # Control runs in this process, and its log goes to the same place.
        lines = [line for line in captured.out.splitlines() if not LOGGED.match(line)]
        if "--json" not in arguments:
            # Sentences stay on one line where nobody breaks them: this is no terminal.
            assert all(len(line) <= WIDTH for line in lines if not line.endswith("."))
        return "\n".join(lines) if status == 0 else captured.err

    return asked


def test_an_experiment_from_the_file_to_the_end(platform: Platform, ask: Any, tmp_path: Path) -> None:
    given = document(
        id="ranking-2",
        description="Does version 2 earn more?",
        holdout=0.1,
        primary={
            "kind": "mean",
            "name": "revenue_per_user",
            "value": "throughput",
            "cuped": "before",
            "segments": ["country"],
            **TIMING,
        },
        secondary=[{"kind": "proportion", "name": "bought_at_all", "value": "orders", **TIMING}],
        guardrails=[
            {
                "metric": {
                    "kind": "quantile",
                    "name": "latency_p90",
                    "value": "latency",
                    "quantile": 0.9,
                    "better": "lower",
                    **TIMING,
                },
                "margin": 0.5,
            }
        ],
    )
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(given))
    assert ask("create", str(file)) == "experiment ranking-2 of toy is running"
    assert "ranking-2" in ask("list")
    shown = ask("show", "ranking-2")
    assert "Does version 2 earn more?" in shown
    assert "A (version 1, weight 1), B (version 2, weight 1)" in " ".join(shown.split()).replace("│ │ ", "")
    assert "too early" in ask("result", "ranking-2")
    platform.fill(given, 1, lift=2.0)
    page = json.loads(ask("result", "ranking-2", "--fresh", "--json"))
    screen = ask("result", "ranking-2")
    words = " ".join(re.sub(r"[│┃]", " ", screen).split())
    assert f"Recommended: ship B; {page['recommendation']['reason']}." in words
    for name in ("revenue_per_user", "bought_at_all", "latency_p90", "country de", "country fr", "holdout", "passed"):
        assert name in words
    standing = page["metrics"]["revenue_per_user"]["treatments"]["B"]["always_valid"]
    assert f"{standing['low']:.4g} to {standing['high']:.4g}" in words
    assert f"{page['exposure']['units']['B']:,}" in words
    assert (
        f"Probably best by revenue_per_user: B ({page['metrics']['revenue_per_user']['best']['B']['probability']:.1%})"
        in words
    )
    assert ask("stop", "ranking-2", "--decision", "ship", "--reason", "earns more") == (
        "experiment ranking-2 is stopped: ship B"
    )
    assert platform.control.status("toy")[0].variants[0].version == 2
    assert json.loads(ask("show", "ranking-2", "--json"))["verdict"]["reason"] == "earns more"
    assert "it cannot be stopped" in ask("stop", "ranking-2", "--decision", "keep", "--reason", "x", status=2)
    platform.control.promote("toy", 1)


def test_an_override_lets_the_versions_of_an_experiment_through_once(
    platform: Platform, ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = platform.control.gates
    gates.declare("toy", GateDeclaration(value="throughput", estimator="snipw", min_effective_sample_size=1e9))
    # Version 2 has served already where an earlier test has shipped it: as if it had not.
    with platform.control.database.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM policy_served_versions WHERE version = 2"))
    try:
        file = tmp_path / "experiment.yaml"
        file.write_text(yaml.safe_dump(document(id="past-the-gate")))
        assert "toy:2 may not get live traffic: no verdict" in ask("create", str(file), status=2)
        assert "must not be empty" in ask("create", str(file), "--override", " ", status=2)
        arguments = ["experiments", "create", str(file), "--override", "ethics board", "--actor", "ada"]
        assert run(app, [*arguments, "--url", platform.url, "--json"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out[said.out.index("{") :])["state"] == "running"
        assert "let through once, past the gate of toy: version 2 (ethics board)" in said.err
        assert [(e["kind"], e["version"], e["actor"]) for e in gates.history("toy")[:3]] == [
            ("overridden", 2, "ada"),
            ("promised", 2, "ada"),
            ("refused", 2, "operator"),
        ]
        # What is refused for another reason lets nobody through.
        assert "past-the-gate" in ask("create", str(file), "--override", "again", status=2)
        assert gates.history("toy")[0]["kind"] == "overridden"
        ask("stop", "past-the-gate", "--decision", "none", "--reason", "enough")
    finally:
        gates.remove("toy")


def test_errors_say_what_is_wrong_and_what_is_allowed(ask: Any, tmp_path: Path) -> None:
    assert "no experiment 'nothing'" in ask("result", "nothing", status=2)
    assert "cannot be read" in ask("create", str(tmp_path / "none.yaml"), status=2)
    file = tmp_path / "experiment.yaml"
    file.write_text("a: [")
    assert "not YAML" in ask("create", str(file), status=2)
    file.write_text(yaml.safe_dump(document(stopping={"kind": "never"})))
    assert "allowed: sequential, fixed" in ask("create", str(file), status=2)
    assert "allowed: keep, none, ship" in ask("stop", "x", "--decision", "win", "--reason", "r", status=2)
    assert "--deviation for a mean or --base" in ask("power", "--units", "10", status=2, online=False)
    assert "--effect to get the units" in ask("power", "--base", "0.1", status=2, online=False)
    assert "base is 2" in ask("power", "--base", "2", "--effect", "1", status=2, online=False)


def test_the_calculator_agrees_with_statsmodels(ask: Any) -> None:
    found = json.loads(ask("power", "--effect", "0.1", "--deviation", "2", "--per-day", "5000", "--json", online=False))
    known = TTestIndPower().solve_power(effect_size=0.05, alpha=0.05, power=0.8)
    assert found["fixed"]["units_per_variant"] == math.ceil(known)
    assert found["fixed"]["days"] == 7 * math.ceil(math.ceil(known) * 2 / 5000 / 7)
    assert found["sequential"]["units"] > found["fixed"]["units"]
    assert "one look" in ask("power", "--effect", "0.1", "--deviation", "2", online=False)
    found = json.loads(ask("power", "--effect", "0.02", "--base", "0.1", "--json", online=False))
    size = NormalIndPower().solve_power(proportion_effectsize(0.12, 0.1), alpha=0.05, power=0.8)
    assert found["fixed"]["units_per_variant"] == pytest.approx(size, rel=0.01)
    # And back: what was planned for the effect finds it, judged at once or at any time.
    for kind in ("fixed", "sequential"):
        units = str(found[kind]["units_per_variant"])
        back = json.loads(ask("power", "--units", units, "--base", "0.1", "--json", online=False))
        assert back[kind]["effect"] == pytest.approx(0.02, rel=1e-3)


def test_several_treatments_share_the_level(ask: Any) -> None:
    found = json.loads(ask("power", "--effect", "0.1", "--deviation", "2", "--variants", "3", "--json", online=False))
    z = stats.norm.isf(0.0125) + stats.norm.isf(0.2)
    assert found["fixed"]["units_per_variant"] == pytest.approx(2 * (z * 2 / 0.1) ** 2, rel=1e-3)
    assert found["fixed"]["units"] == 3 * found["fixed"]["units_per_variant"]


def test_the_example_of_the_documentation_is_one(repository: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (repository / "docs" / "experiments.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        assert parse_document(yaml.safe_load(block)).variants


MODES = {"kind": "objective_thompson", "batch_s": 900.0, "minimum_share": 0.1}
LINEAR = {
    "kind": "linear_thompson",
    "features": [{"source": "observation", "name": "x2"}],
    "batch_s": 900.0,
    "mean": 1.0,
    "variance": 1.0,
}


def test_experiments_by_features_and_by_mode_beside_a_layers_holdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    versions = [{"seed": 1, "conditioned": False}, {"seed": 2, "conditioned": False}]
    site = Site(home_with(tmp_path, {"toy": versions}), tmp_path)
    routes = ControlRoutes(site.control, NoOperations(), experiments=site.service)
    metric = {"kind": "mean", "name": "orders", "value": "orders", "window_s": 60.0}

    def value(one: DecisionRecord) -> dict[str, float]:
        fast = one.variant == "B"
        return {"orders": 1.0 + fast * one.observation[2], "latency": 0.2 if fast else 0.8, "throughput": 0.5}

    with serving(create_app(StandIn(control=routes))) as address:

        def asked(*arguments: str) -> str:
            assert run(app, ["experiments", *arguments, "--url", f"http://{address}"]) == 0
            lines = [line for line in capsys.readouterr().out.splitlines() if not LOGGED.match(line)]
            assert all(len(line) <= WIDTH for line in lines if not line.endswith("."))
            return "\n".join(lines)

        for id_, allocation in (("linear", LINEAR), ("modal", MODES)):
            place = {"layer": "ranking", "share": 0.6, "holdout": 0.2}
            rule = {"kind": "fixed", "horizon": 50}
            declared = document(
                id=id_, primary=metric, stopping=rule, allocation=allocation, placement=place, start_us=None
            )
            (tmp_path / f"{id_}.yaml").write_text(yaml.safe_dump(declared))
            asked("create", str(tmp_path / f"{id_}.yaml"))
            assert "ranking, share 0.6, holdout 0.2" in asked("show", id_)
            for batch in range(2):
                rows = [[0.0, 0.0, (-1.0) ** i] for i in range(100)]
                site.serve([f"u{i}" for i in range(100)], value, rows=rows, mode="emergency" if batch else "normal")
                asked("result", id_, "--fresh")
                site.service.reallocate(id_)
            screen = asked("result", id_, "--fresh")
            assert "layer ranking against its holdout" in screen
            assert "20.0% held out as planned." in screen
            if id_ == "linear":
                assert "regressions, of what is good" in screen
            else:
                assert "by mode, against A" in screen
                assert re.search(r"emergency .*B .*serve", screen)
            asked("stop", id_, "--decision", "keep", "--reason", "enough")
