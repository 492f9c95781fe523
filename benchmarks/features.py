"""Features: point-in-time training sets, and reads of the online store.

    python -m benchmarks.features [--quick] [--json]

Training sets: 10 million rows (time-sorted, as pandas wants them) join the last value and a rolling mean of 10 million
events of 100,000 entities, from one Parquet file to another. The rival is ``pandas.merge_asof`` on the same files:
read, join the last value, write. It has no rolling mean, takes the event that arrived last for the newest one, and its
memory has no bound. Each runs in a process of its own, whose processor seconds and largest resident set are taken.

Online: reads of 8 features of one of 50,000 entities from SQLite, one after another, without the cache in front of it;
the rival is a plain dict of the same values, which is what nothing at all would cost. "Beside a writer" means that
another process brings features in step all the time. Processor times of a read say what it takes where the machine has
a core to spare; the other ones contain whatever else ran.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Row, parse_arguments, report
from rlaas.lake import Lake
from rlaas.lake.features import FeatureDefinition, FeatureStore, OnlineFeatures, materialize, write_training_set
from rlaas.lake.features.store import FeatureVersion

SECOND = 1_000_000
DAYS = 7
BATCH = 1_000_000
TTL_S = 3600.0


def _definition(name: str, aggregate: str, path: Path, window_s: float | None = None) -> FeatureDefinition:
    return FeatureDefinition.model_validate(
        {
            "name": name,
            "entity": "cell",
            "source": {"path": str(path), "entity": "cell", "arrived": "arrived_us"},
            "value": "load",
            "transformation": {"aggregate": aggregate, "window_s": window_s},
            "ttl_s": TTL_S,
            "owner": "benchmark",
        }
    )


def _write(path: Path, rows: int, entities: int, seed: int, *, events: bool) -> None:
    """Rows by time, in Parquet; events also have a value, and arrive up to a minute later."""
    rng = np.random.default_rng(seed)
    names = pa.array([f"c-{i}" for i in range(entities)])
    span = DAYS * 86_400 * SECOND // -(-rows // BATCH)
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, BATCH):
        n = min(BATCH, rows - start)
        times = np.sort(rng.integers(0, span, n)) + start // BATCH * span
        table = pa.table({"cell": names.take(pa.array(rng.integers(0, entities, n))), "time_us": times})
        if events:
            table = table.append_column("arrived_us", pa.array(times + rng.integers(0, 60 * SECOND, n)))
            table = table.append_column("load", pa.array(rng.normal(size=n)))
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _ours(folder: Path, windows: bool) -> None:
    features = [_definition("last", "last", folder / "events.parquet")]
    if windows:
        features.append(_definition("mean_1d", "mean", folder / "events.parquet", 86_400.0))
    write_training_set(
        Lake(folder / "lake"),
        [FeatureVersion(one, 1, 0) for one in features],
        folder / "rows.parquet",
        folder / "ours.parquet",
    )


def _pandas(folder: Path) -> None:
    import pandas as pd

    events = pd.read_parquet(folder / "events.parquet", columns=["cell", "arrived_us", "load"])
    rows = pd.read_parquet(folder / "rows.parquet")
    # By arrival, so that it sees what is seen here; out-of-order events and ages are beyond it.
    events = events.sort_values("arrived_us")
    tolerance = int(TTL_S * SECOND)
    found = pd.merge_asof(rows, events, left_on="time_us", right_on="arrived_us", by="cell", tolerance=tolerance)
    found.to_parquet(folder / "theirs.parquet")


def _worker(arguments: argparse.Namespace) -> None:
    """One join in this process; says on stdout what it took."""
    folder = Path(arguments.folder)
    if arguments.worker != "pandas":
        _warm_up(folder)
    begun, used = time.perf_counter(), time.process_time()
    if arguments.worker == "pandas":
        _pandas(folder)
    else:
        _ours(folder, windows=arguments.worker == "windows")
    document = {
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - used,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(document))


def _warm_up(folder: Path) -> None:
    """Compile, which a process that goes on does once."""
    small = folder / "small"
    small.mkdir(exist_ok=True)
    _write(small / "events.parquet", 100, 5, 1, events=True)
    _write(small / "rows.parquet", 100, 5, 2, events=False)
    _ours(small, windows=True)


def _joined(folder: Path, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.features", "--worker", what, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _check_same(folder: Path) -> int:
    """Rows on which the last values differ: those whose newest event was overtaken on its way by an older one."""
    ours = pq.read_table(folder / "ours.parquet", columns=["last"])["last"].to_numpy(zero_copy_only=False)
    theirs = pq.read_table(folder / "theirs.parquet", columns=["load"])["load"].to_numpy(zero_copy_only=False)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return int((~same).sum())


def _training_sets(folder: Path, rows: int, entities: int) -> tuple[list[Row], list[str]]:
    _write(folder / "events.parquet", rows, entities, 1, events=True)
    _write(folder / "rows.parquet", rows, entities, 2, events=False)
    windows = _joined(folder, "windows")
    last, rival = _joined(folder, "last"), _joined(folder, "pandas")
    differ = _check_same(folder)
    found = [
        Row(f"training set of {rows:,} rows, last value", "s", last["seconds"], "pandas.merge_asof", rival["seconds"]),
        Row("the same, processor time", "CPU s", last["cpu"], "pandas.merge_asof", rival["cpu"]),
        Row("the same, largest resident set", "GiB", last["gib"], "pandas.merge_asof", rival["gib"]),
        Row(f"training set of {rows:,} rows, last value and mean over a day", "s", windows["seconds"], "promised", 60),
        Row("the same", "rows/s", rows / windows["seconds"]),
        Row("the same, processor time", "CPU s", windows["cpu"]),
        Row("the same, largest resident set", "GiB", windows["gib"]),
    ]
    note = f"{differ:,} of {rows:,} last values differ from those of pandas, which takes the last to arrive"
    return found, [note]


def _online(folder: Path, entities: int, reads: int) -> list[Row]:
    """Latencies of single reads, in milliseconds."""
    path = folder / "online.parquet"
    _write(path, 4 * entities, entities, 3, events=True)
    store = FeatureStore(f"sqlite:///{folder / 'features.db'}")
    names = ("last", "count", "sum", "mean", "min", "max")
    definitions = [_definition(name, name, path) for name in names]
    definitions += [_definition(f"{name}_1h", name, path, 3600.0) for name in ("mean", "max")]
    features = [version for version, _ in store.apply(definitions)]
    used = time.process_time()
    materialize(store, Lake(folder / "lake"))
    brought = 4 * entities * len(features) / (time.process_time() - used)
    rng = np.random.default_rng(4)
    asked = [{"cell": f"c-{i}"} for i in rng.integers(0, entities, reads)]
    cold, warm = OnlineFeatures(store, features), OnlineFeatures(store, features, keep_s=3600.0, most=2 * entities)
    everything = {one["cell"]: tuple(value.value for value in cold.read([one])[0]) for one in asked}
    for one in asked:
        warm.read([one])
    plain_dict = _latencies(lambda one: everything[one["cell"]], asked)
    found = {"": _latencies(lambda one: cold.read([one]), asked)}
    found[", cached"] = _latencies(lambda one: warm.read([one]), asked)
    writer = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.features", "--worker", "writer", "--folder", str(folder)],
        stdout=subprocess.PIPE,
    )
    try:
        assert writer.stdout is not None
        writer.stdout.readline()  # it has begun
        found[", beside a writer"] = _latencies(lambda one: cold.read([one]), asked)
    finally:
        writer.kill()
        writer.wait()
    rows = []
    for what, (wall, processor) in found.items():
        for share in (50, 99):
            theirs = float(np.percentile(plain_dict[0], share))
            name = f"online read of 8 features, p{share}{what}"
            rows.append(Row(name, "ms", float(np.percentile(wall, share)), "plain dict", theirs))
            rows.append(Row(f"{name}, processor time", "ms", float(np.percentile(processor, share))))
    promised = float(np.percentile(found[""][0], 99)), float(np.percentile(found[""][1], 99))
    rows.append(Row("online read of 8 features, p99", "ms", promised[0], "promised", 2.0))
    rows.append(Row("the same, processor time", "ms", promised[1], "promised", 2.0))
    rows.append(Row("materialisation from nothing, events of a feature", "1/CPU s", brought))
    return rows


def _write_on(folder: Path) -> None:
    """Append events of other features and bring them online, until killed."""
    store = FeatureStore(f"sqlite:///{folder / 'features.db'}")
    more = folder / "more"
    more.mkdir()
    names = ("last", "count", "sum", "mean", "min", "max")
    features = [version for version, _ in store.apply([_definition(f"more_{name}", name, more) for name in names])]
    count = 0
    while True:
        _write(more / f"{count}.parquet", 1000, 1000, count, events=True)
        materialize(store, Lake(folder / "lake"), features)
        print(count, flush=True)
        count += 1


def _latencies(read: Any, asked: list[dict[str, str]]) -> tuple[list[float], list[float]]:
    """Wall and processor time of each read, milliseconds."""
    wall, processor = [], []
    for one in asked:
        begun, used = time.perf_counter_ns(), time.thread_time_ns()
        read(one)
        processor.append((time.thread_time_ns() - used) / 1e6)
        wall.append((time.perf_counter_ns() - begun) / 1e6)
    return wall, processor


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worker", choices=["last", "windows", "pandas", "writer"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)


def main() -> None:
    arguments = parse_arguments("features", _extend)
    if arguments.worker == "writer":
        _write_on(Path(arguments.folder))
    elif arguments.worker:
        _worker(arguments)
    else:
        rows, entities, reads = (200_000, 2_000, 2_000) if arguments.quick else (10_000_000, 50_000, 20_000)
        with tempfile.TemporaryDirectory(prefix="features-") as folder:
            joined, notes = _training_sets(Path(folder), rows, 2 * entities)
            online = _online(Path(folder), entities, reads)
        report("features", [*joined, *online], arguments.json, notes)


if __name__ == "__main__":
    main()
