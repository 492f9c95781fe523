"""Fronts for what shows and serves them: one like a mobile network's, and one whose every name is hostile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaas.fronts import Candidate, Front
from rlaas.objectives import Mode, Objective, Preference, Rule

NETWORK = (
    Objective(name="latency", unit="ms", direction="minimize", low=5.0, high=25.0, description="mean packet delay"),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=7.0, high=29.0),
    Objective(name="energy", unit="W", direction="minimize", low=150.0, high=360.0),
    Objective(name="satisfaction", unit="", direction="maximize", low=0.6, high=1.0),
)
MODES = {
    "emergency": Mode(
        name="emergency",
        preference=Preference.of(NETWORK, [0.6, 0.2, 0.1, 0.1]),
        rules=(Rule(objective="satisfaction", at_least=0.7),),
    ),
    "normal": Mode(name="normal", preference=Preference.uniform(NETWORK)),
    "energy_saving": Mode(name="energy_saving", preference=Preference.of(NETWORK, [0.15, 0.1, 0.6, 0.15])),
}

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "quote \" and ' and \\ and `${1}`",
    "line\u2028separator\u2029paragraph\nbreak",
    "<!-- <script>",
    "{{data}} {{script}}",
    "__proto__",
    "constructor",
    "$x^{2$ & &lt; &amp;",
    "\u202eright to left \U0001f4a9 漢字",
    "lone \ud800 surrogate",
    "x" * 300,
]


class NoOperations:
    """The processes around Control, which fronts have nothing to do with."""

    def scale(self, replicas: int) -> None:
        """Never called."""
        raise AssertionError(replicas)

    def lake_status(self) -> dict[str, Any]:
        """Never called."""
        raise AssertionError

    def flush_lake(self) -> dict[str, Any]:
        """Never called."""
        raise AssertionError


def write_front_file(home: Path, front: Front, label: str) -> Path:
    """Leave a front in a home as a search does."""
    folder = home / "fronts"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{front.scenario}-{label}.json"
    file.write_text(json.dumps(front.to_dict()))
    return file


def network_front(count: int = 60, *, seed: int = 1, scenario: str = "network") -> Front:
    """A front [count, 4] on a curved surface, with intervals; every third candidate is a configuration."""
    rng = np.random.default_rng(seed)
    goodness = np.abs(rng.normal(size=(count, len(NETWORK))))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    return front_of(NETWORK, goodness, rng, [f"candidate-{i}" for i in range(count)], scenario)


def hostile_front() -> Front:
    """Names that try to end a script, to be markup, a formula, a placeholder or a property of every object."""
    rng = np.random.default_rng(3)
    goodness = np.abs(rng.normal(size=(len(HOSTILE), 2)))
    goodness /= np.linalg.norm(goodness, axis=1, keepdims=True)
    objectives = (
        Objective(name="</text><b>cost</b>", unit="</script>$", direction="minimize", low=0.0, high=1.0),
        Objective(name="__proto__", unit="\u2028", direction="maximize", low=-1.0, high=1.0, description="'\"><i>"),
    )
    return front_of(objectives, goodness, rng, HOSTILE, "</title><script>document.title='owned'</script>")


def front_of(
    objectives: Sequence[Objective],
    goodness: np.ndarray,
    rng: np.random.Generator,
    names: Sequence[str],
    scenario: str,
) -> Front:
    """A front with these goodness values [n, m]."""
    low, high = np.array([o.low for o in objectives]), np.array([o.high for o in objectives])
    up = np.array([o.direction == "maximize" for o in objectives])
    values = low + np.where(up, goodness, 1.0 - goodness) * (high - low)
    widths = rng.uniform(0.005, 0.03, size=values.shape) * (high - low)
    return Front.of(
        scenario,
        objectives,
        [
            Candidate(
                name=name,
                kind="configuration" if i % 3 == 0 else "policy",
                mean=tuple(values[i].tolist()),
                half_width=tuple(widths[i].tolist()),
                seeds=(1, 2, 3),
                parameters={"index": i, "note": name},
            )
            for i, name in enumerate(names)
        ],
    )
