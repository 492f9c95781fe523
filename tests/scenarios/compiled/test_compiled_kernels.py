"""How kernels are compiled: once for all processes, and without what only Python needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from rlaas.scenarios.compiled import entry_point, inner

CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
from kernel import total
place = Path(sys.argv[1])
(place / f"ready-{sys.argv[2]}").touch()
while not (place / "go").exists():
    time.sleep(0.001)
value = total(np.arange(4.0))
print(json.dumps([value, sum(total.stats.cache_misses.values()), sum(total.stats.cache_hits.values())]))
"""
KERNEL = """
from rlaas.scenarios.compiled import entry_point, inner

@inner
def scaled(x, factor):
    return x * factor

@entry_point
def total(values):
    found = 0.0
    for i in range(values.shape[0]):
        found += scaled(values[i], 2.0)
    return found
"""


@inner
def _scaled(x, factor):  # type: ignore[no-untyped-def]
    return x * factor + 0.1


@inner(inline=False, no_nan=True)
def _larger(a, b):  # type: ignore[no-untyped-def]
    return a if a > b else b


@entry_point
def _both(values, out) -> None:  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        out[i] = _larger(_scaled(values[i], 3.0), 1.0)


def test_of_processes_that_start_together_one_compiles(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    children = [
        subprocess.Popen([*command, str(number)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    while len(list(tmp_path.glob("ready-*"))) < len(children):
        assert all(child.poll() is None for child in children)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    found = [json.loads(child.communicate(timeout=120)[0]) for child in children]
    assert [value for value, *_ in found] == [12.0] * 3
    assert sorted(misses for _, misses, _ in found) == [0, 0, 1]
    assert sorted(hits for _, _, hits in found) == [0, 1, 1]


def test_what_is_compiled_for_kernels_can_be_called_from_python_and_says_the_same() -> None:
    values = np.random.default_rng(0).normal(size=50)
    out = np.zeros_like(values)
    _both(values, out)
    np.testing.assert_array_equal(out, [_larger(_scaled(value, 3.0), 1.0) for value in values])
    assert (out >= 1.0).all()
    assert (out > 1.0).any()
