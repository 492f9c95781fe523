"""A real platform with the fast lane, in a process of its own because Serve reads its variables at import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import TESTS, environment

ROOT = TESTS.parent


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_when_processes_die_under_load(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.serving_faults", "--json", "--seconds", "11", "--rate", "50"]
    done = subprocess.run(
        [*command, "--only", "kills", "control", "controller", "proxy"],
        cwd=ROOT,
        env={**environment(tmp_path / "home"), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {row["what"]: row["ours"] for row in json.loads(done.stdout)["rows"]}

    assert found["acknowledged decisions"] > 1000
    assert found["acknowledged decisions that are not in bronze"] == 0
    assert found["rows of acknowledged decisions too many"] == 0
    assert found["kills: Gateways killed"] >= 2
    # A request that was with the killed Gateway is lost to the client; whoever asks again gets an answer.
    assert found["kills: failed after one repeat"] <= 0.5
    # Neither the control plane nor the controller is on the path of a decision. A busy machine makes Gateways shed
    # requests with 429, which says "try again".
    for name in ("control", "controller"):
        assert found[f"{name}: failed after four repeats"] == 0
    # HAProxy's supervisor replaces it at once; Serve alone takes five seconds.
    assert found["proxy: longest until a decision, s"] < 2.5
    assert found["proxy: failed after four repeats"] == 0
    assert found["control: until a promotion works again, s"] < 90
    assert found["controller: until it takes orders again, s"] < 90
