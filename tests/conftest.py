"""What every test shares: quiet vendors, one thread per numeric library, a home of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything imports Ray, MLflow or torch: these are read at import.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# Ray takes up a token that an earlier Ray of this user left behind, on whichever side starts later.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import pytest
from hypothesis import settings as hypothesis_settings

# How long an example takes says nothing about correctness; a busy machine must not fail a test.
hypothesis_settings.register_profile("rlaas", deadline=None)
hypothesis_settings.load_profile("rlaas")

sys.path.insert(0, str(Path(__file__).parent))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Processes that share the files out begin with the longest."""
    if hasattr(config, "workerinput"):
        from support.order import longest_first

        items[:] = longest_first(items)


@pytest.fixture
def _here() -> Iterator[None]:
    """A test that leaves the process in a folder of its own breaks those after it, once the folder is gone."""
    before = Path.cwd()
    yield
    after = Path.cwd()
    os.chdir(before)
    assert after == before, f"the test left this process in {after}"


@pytest.fixture(autouse=True)
def _own_home(_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the developer's own ``.rlaas``."""
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).parent.parent
