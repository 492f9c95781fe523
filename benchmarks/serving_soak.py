"""Memory of a Gateway under load: does it grow?

    python -m benchmarks.serving_soak [--minutes 30] [--rate 1000] [--quick] [--json]

One Gateway behind HAProxy answers decisions at a fixed rate, each logged, versions being promoted back and forth once a
minute. Every second its resident memory, its file descriptors and its threads are read from ``/proc``. After a warm-up
(a fifth of the time, at least 20 s) a straight line is fitted to the memory; another to the second half of the time,
since heaps go on settling. Each slope has a 95 % interval in which neighbouring samples count as dependent (Newey and
West, 1987), because memory moves in steps. HAProxy and the Committer are watched in the same way. Threads are told
apart by the names that they gave themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import statsmodels.api as sm  # type: ignore[import-untyped]

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.serving_faults_platform import Platform, started
from benchmarks.serving_load import run_load

__all__ = ["Sample", "sample", "slope"]

_PROMOTE_S = 60.0
ONE = json.dumps({"observation": [round(0.01 * i, 4) for i in range(32)]}).encode()


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment.

    Attributes:
        at_s: seconds since the load began.
        megabytes: resident memory.
        files: open file descriptors.
        threads: threads by name.
    """

    at_s: float
    megabytes: float
    files: int
    threads: Counter[str]


def sample(pid: int, at_s: float) -> Sample:
    """Read a process from ``/proc``.

    Raises:
        OSError: it has ended.
    """
    process = Path("/proc", str(pid))
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    files = len(list((process / "fd").iterdir()))
    return Sample(at_s, int(fields["VmRSS"].split()[0]) / 1024, files, _threads(process))


def _threads(process: Path) -> Counter[str]:
    names: Counter[str] = Counter()
    for name in process.glob("task/*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names[re.sub(r"[-#]?\d+$", "", name.read_text().strip())] += 1
    return names


def slope(samples: list[Sample]) -> tuple[float, float, float]:
    """Growth of the memory and its 95 % interval, megabytes an hour.

    Args:
        samples: at least three, in order.
    """
    hours = np.array([one.at_s for one in samples]) / 3600
    memory = np.array([one.megabytes for one in samples])
    lags = max(1, round(4 * (len(samples) / 100) ** (2 / 9)), len(samples) // 20)
    fit = sm.OLS(memory, sm.add_constant(hours)).fit(cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": True})
    low, high = fit.conf_int()[1]
    return float(fit.params[1]), float(low), float(high)


def _watch(platform: Platform, seconds: float, rate: float) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Samples by process, and what the load reports."""
    watched: Mapping[str, int] = {
        "Gateway": platform.gateways()[0],
        "HAProxy": platform.proxies()[0],
        "Committer": platform.processes("ray::ServeReplica:rlaas:Committer")[0],
    }
    found: dict[str, list[Sample]] = {name: [] for name in watched}
    url = f"{platform.url}/api/v1/policies/bench/decide"
    begun = promoted = time.monotonic()
    version = 1
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run_load, url, ONE, seconds=seconds, rate=rate)
        while not load.done():
            for name, pid in watched.items():
                found[name].append(sample(pid, time.monotonic() - begun))
            if time.monotonic() - promoted >= min(_PROMOTE_S, seconds / 5):
                promoted, version = time.monotonic(), 3 - version
                if not platform.promote(version):
                    raise RuntimeError(f"version {version} could not be promoted")
            time.sleep(1.0)
        return found, load.result()


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, help="of load; 30 by default, 1 with --quick")
    parser.add_argument("--rate", type=float, default=1000.0, help="decisions a second")


def main() -> None:
    arguments = parse_arguments("serving_soak", _own_arguments)
    minutes = arguments.minutes or (1.0 if arguments.quick else 30.0)
    root = Path(tempfile.mkdtemp(prefix="rs", dir=tempfile.gettempdir()))
    try:
        with contextlib.redirect_stdout(sys.stderr), started(root, replicas=1) as platform:
            found, load = _watch(platform, 60 * minutes, arguments.rate)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows: list[Row] = []
    speed = f"{load['answered']:,} decisions at {arguments.rate:,.0f}/s, {load['failed']} failed"
    notes = [f"{speed}, p99 {load['p99'] / 1000:.1f} ms"]
    for name, samples in found.items():
        settled = [one for one in samples if one.at_s >= max(20.0, 12 * minutes)]
        growth, low, high = slope(settled)
        late, late_low, late_high = slope([one for one in samples if one.at_s >= 30 * minutes])
        rows += [
            Row(f"{name}: growth of the memory", "MB/h", growth),
            Row(f"{name}: growth of the memory in the second half", "MB/h", late),
            Row(f"{name}: memory after the warm-up", "MB", settled[0].megabytes),
            Row(f"{name}: memory at the end", "MB", settled[-1].megabytes),
            Row(
                f"{name}: file descriptors at the end",
                "",
                settled[-1].files,
                "ours, after the warm-up",
                settled[0].files,
            ),
            Row(
                f"{name}: threads at the end",
                "",
                settled[-1].threads.total(),
                "ours, after the warm-up",
                settled[0].threads.total(),
            ),
            Row(f"{name}: most threads", "", max(one.threads.total() for one in samples)),
        ]
        course = ", ".join(f"{samples[len(samples) * k // 10].megabytes:.1f}" for k in range(1, 10))
        flat = "flat within the interval" if late_low <= 0 else "it grows"
        notes.append(f"{name}: {growth:+.2f} MB/h, 95 % interval {low:+.2f} to {high:+.2f}")
        notes.append(f"{name}: second half {late:+.2f} MB/h, 95 % interval {late_low:+.2f} to {late_high:+.2f}: {flat}")
        notes.append(f"{name}: MB at each tenth of the time: {course}")
        first, last = settled[0].threads, settled[-1].threads
        changed = [
            f"{what} {first[what]} -> {last[what]}" for what in sorted(first | last) if first[what] != last[what]
        ]
        notes.append(f"{name}: threads by name that changed: {', '.join(changed) or 'none'}")
    report("serving_soak", rows, arguments.json, notes)


if __name__ == "__main__":
    main()
