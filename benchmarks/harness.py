"""What every benchmark shares: one row per claim, the machine it ran on, a table or JSON on stdout.

A benchmark measures ours and a rival in the same run on the same machine, so a row stands for itself::

    from benchmarks.harness import Row, parse_arguments, report, rate

    arguments = parse_arguments("environments")
    rows = [Row("env steps, 7 cells, 15 users", "steps/s", ours=5200.0, rival="mobile-env 2.1", rival_value=47.0)]
    report("environments", rows, arguments.json)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CONFIGS", "Row", "interleaved_rates", "machine", "parse_arguments", "rate", "report"]

CONFIGS = Path(__file__).parent.parent / "configs" / "training"
"""The training configurations as shipped."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured claim.

    Attributes:
        what: what was measured.
        unit: unit of both values, for example ``steps/s`` or ``ms``.
        ours: our value.
        rival: name and version of what it is compared with, or None where nothing comparable exists.
        rival_value: its value in the same unit, measured in the same run.
        better: whether a higher or a lower value is better; the ratio is above 1 where ours is better.
    """

    what: str
    unit: str
    ours: float
    rival: str | None = None
    rival_value: float | None = None
    better: str = "higher"

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, or None without a rival."""
        if self.rival_value is None or self.rival_value == 0 or self.ours == 0:
            return None
        return self.ours / self.rival_value if self.better == "higher" else self.rival_value / self.ours

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "rival": self.rival,
            "rival_value": self.rival_value,
            "ratio": self.ratio,
        }


def machine() -> dict[str, Any]:
    """The machine this process runs on; ``load_1min`` tells how busy others keep it."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def rate(work: Callable[[], float], *, seconds: float = 2.0, repeats: int = 3) -> float:
    """Median over ``repeats`` of the units per second that ``work`` does.

    Args:
        work: does some work and returns how many units that was. Called once first, unmeasured.
        seconds: wall time of each repeat.
        repeats: odd, so that the median is one of the measurements.
    """
    work()
    rates = []
    for _ in range(repeats):
        units, started = 0.0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds or units == 0:
            units += work()
        rates.append(units / elapsed)
    return statistics.median(rates)


def interleaved_rates(works: Sequence[Callable[[], float]], *, seconds: float = 2.0, rounds: int = 15) -> list[float]:
    """Medians of the units per second of several works that are compared with one another.

    They take turns in short windows, so that a slow minute of the machine falls on all of them.

    Args:
        works: see :func:`rate`.
        seconds: wall time of all windows of one work together.
        rounds: windows of each, odd.
    """
    found: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for rates, work in zip(found, works, strict=True):
            rates.append(rate(work, seconds=seconds / rounds, repeats=1))
    return [statistics.median(rates) for rates in found]


def parse_arguments(
    benchmark: str, extend: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """``--json`` (one document on stdout) and ``--quick`` (seconds, for a smoke test), plus what ``extend`` adds."""
    parser = argparse.ArgumentParser(description=f"benchmark: {benchmark}")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--quick", action="store_true", help="run for seconds only: shows that it works, not how fast")
    if extend is not None:
        extend(parser)
    return parser.parse_args()


def report(benchmark: str, rows: Sequence[Row], as_json: bool, notes: Sequence[str] = ()) -> None:
    """Print the rows as one JSON document or as a Markdown table that fits RESULTS.md, with ``notes`` below."""
    here = machine()
    if as_json:
        document = {"benchmark": benchmark, "machine": here, "rows": [row.to_dict() for row in rows]}
        if notes:
            document["notes"] = list(notes)
        print(json.dumps(document, indent=2, allow_nan=False))
        return
    print(f"{benchmark}, {here['date']}: {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, ", end="")
    print(f"{here['system']}, Python {here['python']}, load {here['load_1min']}\n")
    print("| what | unit | ours | rival | rival's value | ratio |\n|---|---|---:|---|---:|---:|")
    for row in rows:
        theirs = "" if row.rival_value is None else f"{row.rival_value:,.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        print(f"| {row.what} | {row.unit} | {row.ours:,.4g} | {row.rival or ''} | {theirs} | {ratio} |")
    if notes:
        print("\n" + "\n".join(f"- {note}" for note in notes))
