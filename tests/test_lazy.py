"""Names that are loaded on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

PACKAGES = (
    "rlaas.control",
    "rlaas.experiments",
    "rlaas.lake",
    "rlaas.lake.privacy",
    "rlaas.monitoring",
    "rlaas.serving",
)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_is_there_and_another_is_none(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing


def test_modules_are_loaded_when_their_names_are_asked_for() -> None:
    code = (
        "import sys, rlaas.lake as lake; assert 'rlaas.lake.tables' not in sys.modules;"
        "lake.Lake; assert 'rlaas.lake.tables' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
