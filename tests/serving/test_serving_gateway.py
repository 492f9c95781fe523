"""One Gateway replica without Serve: how it follows what Control says is live."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from support.bundles import policy_bundle
from support.serving_kit import SECRET, deployment

from rlaas.serving import gateway
from rlaas.serving.config import ServingConfig
from rlaas.serving.gateway import Gateway
from rlaas.serving.live import DeploymentRecord, LiveAnswer
from rlaas.settings import load_settings


class _Control:
    """A handle that says what is live."""

    def __init__(self, paths: dict[tuple[str, int], str]) -> None:
        self.records: Sequence[DeploymentRecord] = ()
        self.paths = paths
        self.live = SimpleNamespace(remote=self._live)

    async def _live(self, *_: Any) -> LiveAnswer:
        return LiveAnswer(SECRET, tuple(self.records), self.paths)


def _deployed(policy: str, version: int, generation: int = 1) -> DeploymentRecord:
    variants = [{"name": "champion", "version": version, "weight": 1}]
    return deployment(policy, variants, generation=generation)


@pytest.fixture
def control(tmp_path: Path) -> _Control:
    paths = {("toy", version): policy_bundle(tmp_path / f"toy{version}", seed=version) for version in (1, 2)}
    return _Control({key: str(path) for key, path in paths.items()})


@pytest.fixture
def replica(control: _Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(gateway, "configure_events", lambda: None)
    monkeypatch.setattr(serve, "get_replica_context", lambda: SimpleNamespace(replica_tag="r"))
    plain: Any = Gateway.func_or_class
    made = next(kind for kind in plain.__mro__ if "_follow_once" in vars(kind))
    return made(control, ServingConfig(), load_settings(home=tmp_path / "home"))


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done: list[str] = []
    for name in ("unfreeze", "collect", "freeze"):
        monkeypatch.setattr(gc, name, lambda name=name: done.append(name))
    return done


def test_what_cannot_be_loaded_costs_no_switch_with_every_poll(
    replica: Any, control: _Control, collections: list[str]
) -> None:
    control.records = (_deployed("toy", 1), _deployed("bad", 7))

    async def polls(count: int) -> None:
        for _ in range(count):
            await replica._follow_once()

    asyncio.run(polls(1))
    served = replica.engine().state
    assert list(served.policies) == ["toy"]
    assert collections == ["collect", "freeze"]
    asyncio.run(polls(5))
    assert replica.engine().state is served
    assert collections == ["collect", "freeze"]
    control.records = (_deployed("toy", 2, generation=2), _deployed("bad", 7))
    asyncio.run(polls(5))
    assert replica.engine().state.policies["toy"].primary.version == 2
    assert collections == ["collect", "freeze"] * 2


def test_what_older_states_left_behind_is_collected_now_and_then(
    replica: Any, control: _Control, collections: list[str]
) -> None:
    async def promotions(count: int) -> None:
        for generation in range(1, count + 1):
            control.records = (_deployed("toy", 1 + generation % 2, generation),)
            await replica._follow_once()

    asyncio.run(promotions(2 * gateway._THAW_EACH))
    assert collections.count("unfreeze") == 2
    assert collections.count("collect") == collections.count("freeze") == 2 * gateway._THAW_EACH
