"""Rules of the house that no linter checks."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import rlaas


def _loaded_by(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_rlaas_loads_nothing_heavy() -> None:
    assert not _loaded_by("import rlaas") & {"ray", "torch", "mlflow", "numpy", "pymoo", "deltalake", "onnxruntime"}


def test_the_gateway_loads_no_trainer_and_no_registry() -> None:
    loaded = _loaded_by("import rlaas.serving.gateway")
    assert "ray" in loaded
    assert not loaded & {"torch", "mlflow", "pymoo", "ray.rllib"}


def test_rooms_are_reachable_as_attributes() -> None:
    assert rlaas.scenarios.available() == ("network5g", "recsys")
    assert rlaas.Client.__module__.startswith("rlaas.client")
    assert "scenarios" in dir(rlaas)


def test_entry_points_hold_no_logic(repository: Path) -> None:
    for path in (repository / "ray_apps").glob("*.py"):
        assert len(path.read_text().splitlines()) < 100, path.name


def test_generic_rooms_do_not_know_the_shipped_scenarios(repository: Path) -> None:
    allowed = {"rlaas/scenarios/network5g", "rlaas/scenarios/recsys"}
    for path in (repository / "rlaas").rglob("*.py"):
        relative = path.relative_to(repository).as_posix()
        if any(relative.startswith(prefix) for prefix in allowed):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                assert not {"network5g", "recsys"} & {c for c in constants if isinstance(c, str)}, relative
