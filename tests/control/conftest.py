"""Homes with fronts in them, and without, and one whose policies have something for a gate to judge by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.bundles import policy_bundle
from support.front_kit import network_front, write_front_file
from support.gate_kit import gated_home

from rlaas.registry import Registry
from rlaas.settings import Settings, load_settings


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A registry in which the champion and the candidate of a scenario have fronts, and one version has none."""
    root = tmp_path_factory.mktemp("fronts")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for alias, seed in (("champion", 1), ("candidate", 2)):
        documents = {"front.json": network_front(8, seed=seed).to_dict()}
        registry.register("network", policy_bundle(root / alias, seed=seed), documents=documents, alias=alias)
    registry.register("plain", policy_bundle(root / "plain"))
    write_front_file(settings.home, network_front(5, seed=3), "static")
    write_front_file(settings.home, network_front(4, seed=4, scenario="network-b"), "static")
    return settings


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in which nothing is registered; making one takes seconds."""
    settings = load_settings(home=tmp_path_factory.mktemp("blank") / "home")
    assert Registry(settings).names() == []
    return settings.home


@pytest.fixture
def empty(blank: Path, tmp_path: Path) -> Settings:
    shutil.copytree(blank, tmp_path / "home")
    return load_settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of :func:`support.gate_kit.gated_home`, for every module: each test has a state database of its own."""
    return gated_home(tmp_path_factory.mktemp("gated"))
