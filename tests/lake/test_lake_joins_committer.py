"""The Committer's process joins by itself, and a join that fails shows in its status."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.lake_records import decisions, outcomes, wait_until

from rlaas.control import committing
from rlaas.control.committing import CommitterDeployment
from rlaas.errors import LakeError, OperatorError
from rlaas.lake import Lake, WriteAheadLog, loop
from rlaas.serving.config import ServingConfig
from rlaas.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


@pytest.fixture
def committer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The deployment's own class, without Serve around it."""
    for name in ("configure_events", "give_way"):
        monkeypatch.setattr(committing, name, lambda: None)
    config = ServingConfig(committer={"interval_s": 0.02, "join_s": 0.02})  # type: ignore[arg-type]
    made = CommitterDeployment.func_or_class(config, settings)  # type: ignore[attr-defined]
    yield made
    made._loop.halt()
    made._joins.halt()


def test_what_is_appended_becomes_transitions_by_itself(
    committer: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(settings.lake_root)
    with (
        WriteAheadLog(settings.wal_root, "decisions", "g") as log,
        WriteAheadLog(settings.wal_root, "outcomes", "g") as o,
    ):
        log.append(decisions("d", 2))
        o.append(outcomes("r", ["d0", "d1"]))
    wait_until(lambda: lake.count("silver.transitions") == 2)
    committer.check_health()

    def fails(lake: Lake) -> int:
        raise LakeError("no room for silver")

    with monkeypatch.context() as broken:
        broken.setattr(loop, "update_transitions", fails)
        wait_until(lambda: asyncio.run(committer.status())["last_error"] == "no room for silver")
    wait_until(lambda: asyncio.run(committer.status())["last_error"] is None)
    assert asyncio.run(committer.status())["joined_age_s"] >= 0
    committer._joins.halt()
    with pytest.raises(OperatorError, match="join's thread has ended"):
        committer.check_health()
