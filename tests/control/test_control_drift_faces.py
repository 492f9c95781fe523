"""Drift over HTTP, through the Python client, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from drift_kit import START_S, World
from support.http_platform import HttpPlatform, shared_platform
from support.http_server import serving

from rlaas.cli.main import app, run
from rlaas.client import Client
from rlaas.control.drift import DriftStore, Episode
from rlaas.control.drift.store import StoredWatch
from rlaas.errors import InvalidInputError, NotFoundError


@pytest.fixture(scope="module")
def platform() -> HttpPlatform:
    return shared_platform()


@pytest.fixture(scope="module")
def url(platform: HttpPlatform) -> Iterator[str]:
    platform.restore()
    with serving(platform.app) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def store(platform: HttpPlatform, url: str) -> DriftStore:
    """Two episodes of ``box``, of which one lasts."""
    with Client(url) as client:
        stored = client.configure_drift("box", {"action": "alert", "webhook": "http://127.0.0.1:9/"})
    store = DriftStore(platform.control.database, "default")
    stream = {"stream": "observation.0", "evidence": 1.2, "sigma": 1.5, "sigma_unit": 0.1}
    shown = {"phase": "watching", "remaining_s": 0, "streams": ["observation.0"], "last_second": START_S + 9}
    watch = StoredWatch("box", 1, stored["revision"], 0, {**shown, "evidence": [stream]}, None, 1)
    for number in (1, 2):
        episode = Episode("box", number, 1, 1, START_S, number * 1_000_000, number, [stream])
        watch = replace(watch, revision=watch.revision + 1)
        store.commit(watch, episode=episode, new=True)
        if number == 1:
            store.change(replace(episode, revision=1, closed_us=2_000_000, closed_by="quiet"))
    return store


def test_what_is_said_comes_back_and_what_is_wrong_is_named(url: str, store: DriftStore) -> None:
    with Client(url) as client:
        found = client.drift_config("box")
        assert found["config"]["webhook"] == "http://127.0.0.1:9/"
        assert found["config"]["arl_days"] == 100.0
        with pytest.raises(InvalidInputError, match=r"reference.cycle: must be 'none', 'day' or 'week'") as caught:
            client.configure_drift("box", {"reference": {"cycle": "moon"}})
        assert caught.value.field == "reference.cycle"
        with pytest.raises(NotFoundError) as missing:
            client.configure_drift("nobody", {})
        assert missing.value.field == "model"
        with pytest.raises(NotFoundError, match="no drift configuration"):
            client.drift_status("nobody")


def test_alerts_are_paged_by_policy_and_state(url: str, store: DriftStore) -> None:
    with Client(url) as client:
        first = client.drift_alerts(policy="box", page_size=1)
        second = client.drift_alerts(policy="box", page_size=1, page_token=first["next_page_token"])
        assert [one["items"][0]["episode"] for one in (first, second)] == [2, 1]
        assert second["next_page_token"] is None
        assert [one["episode"] for one in client.drift_alerts(state="active")["items"]] == [2]
        assert [one["closed_by"] for one in client.drift_alerts(state="closed")["items"]] == ["quiet"]
        assert client.drift_alerts(policy="toy")["items"] == []
        with pytest.raises(InvalidInputError, match="unknown state"):
            client.drift_alerts(state="sleeping")


def test_the_command_line_shows_it(
    url: str, store: DriftStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "drift.yaml"
    file.write_text("arl_days: 200\n")
    assert run(app, ["drift", "alerts", "--url", url, "--state", "active", "--json"]) == 0
    assert [one["episode"] for one in json.loads(capsys.readouterr().out)] == [2]
    assert run(app, ["drift", "status", "box", "--url", url]) == 0
    shown = capsys.readouterr().out
    assert "box version 1: watching" in shown
    assert "episode 2 since 1970-01-01 00:00:02: observation.0 +1.5 sigma" in shown
    assert run(app, ["drift", "config", "toy", "--file", str(file), "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["arl_days"] == 200
    assert run(app, ["drift", "config", "toy", "--url", url]) == 0
    assert "arl_days" in capsys.readouterr().out
    assert run(app, ["drift", "alerts", "--url", url, "--state", "sleeping"]) == 2
    assert "allowed: active, closed" in capsys.readouterr().err


def test_a_window_of_the_lake_is_checked_and_drift_is_an_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path))
    world = World(tmp_path)
    world.traffic(200)
    world.traffic(50)
    even = str(world.second * 1_000_000)
    check = ["drift", "check", "toy", "--window-s", "50", "--reference-s", "200", "--until-us"]
    assert run(app, [*check, even, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["drifted"], report["rows"]) == (False, [4000, 1000])
    world.second += 1000
    world.traffic(50, shift=5.0)
    after = str(world.second * 1_000_000)
    assert run(app, [*check[:-3], "--reference-s", "1250", "--until-us", after]) == 1
    shown = capsys.readouterr().out
    assert "observation.0" in shown
    assert "the window has drifted" in shown
    assert run(app, ["drift", "check", "nobody", "--until-us", even]) == 2
    assert "no decision of policy 'nobody'" in capsys.readouterr().err
