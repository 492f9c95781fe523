"""``rlaas experiments``: over real HTTP against a real Control, and the calculator without one."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.proportion import proportion_effectsize
from support.bundles import policy_bundle
from support.experiment_kit import START_US, Traffic, document
from support.http_server import serving

from rlaas.cli.main import app, run
from rlaas.control.experiments import ExperimentService, parse_document
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.errors import NotReadyError
from rlaas.lake import Lake
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.registry import Registry
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.transport import Limits
from rlaas.serving.web import ControlReply, ControlRequest, create_app
from rlaas.settings import load_settings

WIDTH = 80
LOGGED = re.compile(r"^\S*\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")
TIMING = {"window_s": 600.0, "lateness_s": 120.0}


class NoOperations:
    """No processes around Control."""

    def scale(self, replicas: int) -> None:
        raise AssertionError(replicas)

    def lake_status(self) -> dict[str, Any]:
        return {}

    def flush_lake(self) -> dict[str, Any]:
        return {}


class Lane:
    """A Gateway's routes with nothing but Control behind them."""

    tenant = "default"
    limits = Limits(1 << 20, 5.0)

    def __init__(self, routes: ControlRoutes) -> None:
        self._routes = routes

    def engine(self) -> DecisionEngine:
        raise NotReadyError("nothing is loaded")

    async def warm(self, policy: str) -> None:
        raise AssertionError(policy)

    async def forward(self, request: ControlRequest) -> ControlReply:
        return await asyncio.to_thread(self._routes.dispatch, request)


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
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    registry.register("toy", policy_bundle(root / "one", seed=1), alias="champion")
    registry.register("toy", policy_bundle(root / "two", seed=2))
    control, lake = ControlService(settings), Lake(root / "lake")
    control.adopt_champions()
    service = ExperimentService(control, "default", lake, clock=lambda: START_US)
    with serving(create_app(Lane(ControlRoutes(control, NoOperations(), experiments=service)))) as address:
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
