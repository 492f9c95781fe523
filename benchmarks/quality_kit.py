"""What the parts of the quality benchmark share: statistics over seeds, and results that outlive an interruption."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy import stats

import rlaas.scenarios
import rlaas.training
from benchmarks.harness import Row
from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.training import TrainingConfig, TrainingRun, train

__all__ = [
    "Cache",
    "Findings",
    "Summary",
    "one_ray",
    "pooled_ratio",
    "simulator",
    "summary",
    "trained",
    "trainer",
    "training_seeds",
    "versions",
]

RESAMPLES = 10_000
PACKAGES = ("rlaas", "ray", "torch", "gymnasium", "mo-gymnasium", "stable-baselines3", "morl-baselines")


def versions(*names: str) -> dict[str, str]:
    """Versions of the packages that a figure depends on."""
    return {name: version(name) for name in names or PACKAGES}


def _digest(package: ModuleType) -> str:
    """Of the sources of a package."""
    sources = sorted(Path(str(package.__file__)).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


@functools.cache
def simulator() -> dict[str, str]:
    """Digest of the scenarios' code: what anybody reached in them before a change of it counts no more."""
    return {"simulator": _digest(rlaas.scenarios)}


@functools.cache
def trainer() -> dict[str, str]:
    """Digests of the training code and the scenarios': what ours learned before a change of them counts no more."""
    return {"trainer": _digest(rlaas.training), **simulator(), **versions("torch", "ray")}


@dataclass(frozen=True, slots=True)
class Summary:
    """Interquartile mean over training seeds with its 95 % bootstrap interval, and the single values."""

    value: float
    low: float
    high: float
    each: tuple[float, ...]

    def __str__(self) -> str:
        single = ", ".join(f"{value:.4g}" for value in self.each)
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}] (seeds: {single})"


def summary(values: Sequence[float]) -> Summary:
    """Interquartile mean (Agarwal et al. 2021, arXiv 2108.13264, as rliable has it) and percentile interval.

    The mean of the middle half: a quarter is trimmed at each end, rounded down, so that up to three seeds are averaged
    as they are. Runs are resampled within their task (rliable's stratified bootstrap); there is one task here.
    """
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    means = stats.trim_mean(array[drawn], 0.25, axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Summary(float(stats.trim_mean(array, 0.25)), float(low), float(high), tuple(array.tolist()))


def pooled_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Summary:
    """Ratio of the means with its bootstrap interval; the pairs of ours and theirs are resampled together."""
    a, b = np.asarray(ours), np.asarray(theirs)
    drawn = np.random.default_rng(0).integers(len(a), size=(RESAMPLES, len(a)))
    low, high = np.quantile(a[drawn].mean(axis=1) / b[drawn].mean(axis=1), (0.025, 0.975))
    return Summary(float(a.mean() / b.mean()), float(low), float(high), tuple((a / b).tolist()))


@dataclass(slots=True)
class Findings:
    """Rows of the table and lines below it."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Cache:
    """Results by what they depend on, so that an interrupted benchmark goes on where it was.

    Args:
        folder: where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def result(self, name: str, settings: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What ``work`` gave under these settings, now or in an earlier run.

        Args:
            name: of the file, for people: part, learner and seed.
            settings: all that the result depends on; others give another file.
            work: gives the result in JSON types; ``seconds`` of wall time are added.
        """
        text = json.dumps(settings, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        file = None if self.folder is None else self.folder / f"{name}-{digest}.json"
        if file is not None and file.is_file():
            stored: dict[str, Any] = json.loads(file.read_text())["result"]
            return stored
        started = time.perf_counter()
        result = work()
        result["seconds"] = round(time.perf_counter() - started, 1)
        print(f"quality: {name}: {result['seconds']:.0f} s", file=sys.stderr, flush=True)
        if file is not None:
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps({"name": name, "settings": json.loads(text), "result": result}, indent=1))
            partial.replace(file)
        return result


@contextmanager
def one_ray(cpus: int = 1) -> Iterator[None]:
    """A local Ray for all trainings of a benchmark."""
    import ray

    with tempfile.TemporaryDirectory(prefix="rq") as folder:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=100 * 1024 * 1024,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()


def training_seeds(count: int, only: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds from 1 to ``count``, or those that were asked for."""
    return tuple(only) if only else tuple(range(1, count + 1))


def trained(config: TrainingConfig) -> tuple[TrainingRun, BundlePolicy]:
    """A finished training and its policy, loaded; the files are gone."""
    with tempfile.TemporaryDirectory() as folder:
        run = train(config, output=Path(folder))
        return run, load_bundle(run.bundle)
