"""``rlaas serve``: whatever the registry's champions are, one line when ready, and a clean end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.processes import assert_gone, free_port, interrupt, start, wait_for
from support.toy import ToyScenario

from rlaas.client import Client
from rlaas.registry import Registry
from rlaas.settings import load_settings
from rlaas.training import export_constant


@pytest.mark.ray
def test_serves_the_champion_and_stops_cleanly(tmp_path: Path) -> None:
    home, log, port = tmp_path / "home", tmp_path / "log", free_port()
    bundle = export_constant(ToyScenario(), np.array([0.25]), tmp_path / "bundle", lineage={})
    registry = Registry(load_settings(home=home))
    version = registry.register("toy", bundle, alias="champion")
    process = start(["serve", "--port", str(port), "--replicas", "2"], home, log)
    try:
        wait_for(process, log, "rlaas is ready at")
        assert f"http://127.0.0.1:{port}: toy:{version.version}" in log.read_text()
        with Client(f"http://127.0.0.1:{port}") as client:
            answer = client.decide("toy", observation=[0.5, 1.0])
            assert answer["version"] == version.version
            assert answer["action"] == pytest.approx([0.25], abs=1e-5)
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    finally:
        begun = time.monotonic()
        status = interrupt(process, signal.SIGTERM)
    assert status == 0, log.read_text()
    assert time.monotonic() - begun < 25  # about 5 s on an idle machine; Serve's own way of stopping takes 35
    assert "Traceback" not in log.read_text()
    assert "will not be applied" not in log.read_text()
    assert_gone(str(home))


@pytest.mark.ray
def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        log = tmp_path / "log"
        process = start(["serve", "--port", str(taken.getsockname()[1])], tmp_path / "home", log)
        assert process.wait(60) == 2
    assert "is in use" in log.read_text()
    assert not (tmp_path / "home").exists()
