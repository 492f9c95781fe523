"""What a Ray of our own is started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rlaas.serving.environment import FAST_LANE

_CODE = """
import json, os, sys
from pathlib import Path
from rlaas.serving.environment import enter_fast_lane
enter_fast_lane(Path(sys.argv[1]))
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith("RAY_")}))
"""


def entered(folder: Path, **given: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", _CODE, str(folder)]
    done = subprocess.run(command, env={**kept, **given}, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_local_ray_gets_a_launcher_of_its_own_and_stops_soon(tmp_path: Path) -> None:
    found = entered(tmp_path)
    launcher = found.pop("RAY_SERVE_HAPROXY_BINARY_PATH")
    assert Path(launcher).parent == tmp_path
    assert "haproxy_supervisor.py" in Path(launcher).read_text()
    assert float(found["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]) < 5
    wanted = {name: value for name, value in FAST_LANE.items() if name != "RAY_SERVE_HAPROXY_BINARY_PATH"}
    assert wanted.items() <= found.items()


def test_what_is_set_stays(tmp_path: Path) -> None:
    found = entered(tmp_path, RAY_SERVE_HAPROXY_BINARY_PATH="/opt/haproxy", RAY_SERVE_HAPROXY_NBTHREAD="2")
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/opt/haproxy"
    assert found["RAY_SERVE_HAPROXY_NBTHREAD"] == "2"
    assert not (tmp_path / "haproxy").exists()
