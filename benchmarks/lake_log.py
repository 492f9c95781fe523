"""Decisions per second that the log sustains: write-ahead log, committer, Delta table, without falling behind.

    python -m benchmarks.lake_log [--quick] [--json]

Generators (one process per two cores, at least one) write decisions of 32 features as a Gateway does: one record and
one system call each, encoded without reading back, handed over every 0.5 s. The committer runs in a process of its own
as in the platform, every second. Everything shares the cores of this machine.

First the committer alone on a log that lies there: the rate that it cannot exceed. Then both at once at shares of it,
60 s each: the highest rate at which the age of the oldest record that is not in the table does not grow. Beside it,
alone on the machine as the committer was: ``write_deltalake`` and plain Parquet files from the same records held in
memory, a file or commit for each batch of the size that the committer moved at once. Neither of them has made anything
durable before its batch is written.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake

from benchmarks.harness import Row, parse_arguments, report
from rlaas.lake import Committer, CommitterLoop, DecisionRecord, Lake, WriteAheadLog, encode
from rlaas.serving.decision_ids import DecisionIds, policy_tag
from rlaas.serving.events import configure_events

FEATURES = 32
SEAL_S, INTERVAL_S = 0.5, 1.0
SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_SPAWN = multiprocessing.get_context("spawn")


class _Source:
    """Decisions as the engine writes them, no two alike."""

    def __init__(self, seed: int) -> None:
        self._rows = np.random.default_rng(seed).normal(size=(512, FEATURES)).tolist()
        self._ids = DecisionIds(b"benchmark-secret-of-32-bytes-len", f"bench{seed}", tenant="default")
        self._tag = policy_tag("bench", 1)
        self._count = 0

    def record(self) -> DecisionRecord:
        """The next one."""
        self._count += 1
        name = self._ids.mint(self._tag)
        return DecisionRecord(
            receipt_id=name,
            decision_id=name,
            tenant="default",
            time_us=time.time_ns() // 1000,
            scenario="bench",
            policy="bench",
            version=1,
            variant="champion",
            variant_propensity=1.0,
            observation=self._rows[self._count % len(self._rows)],
            action=[float(self._count % 10)],
            generation=3,
            producer="bench",
            unit=f"user-{self._count % 10_000}",
        )


def _generate(root: Path, seed: int, rate: float, seconds: float, ready: Any, go: Event, result: Any) -> None:
    """Append at a rate for some seconds; puts (appended, seconds) into ``result``."""
    source = _Source(seed)
    with WriteAheadLog(root, "decisions", f"bench{seed}") as log:
        ready.release()
        go.wait()
        started = sealed = time.monotonic()
        count = 0
        while (elapsed := time.monotonic() - started) < seconds:
            while count < elapsed * rate and time.monotonic() - started < seconds:
                for _ in range(16):
                    log.append([encode(source.record(), trusted=True)])
                count += 16
            if time.monotonic() - sealed >= SEAL_S:
                log.seal()
                sealed = time.monotonic()
            time.sleep(0.001)
        result.put((count, time.monotonic() - started))


def _commit(root: Path, lake: Path, ready: Any, stop: Event, result: Any) -> None:
    """Commit as the platform does until told to stop; puts the processor seconds into ``result``."""
    configure_events()
    loop = CommitterLoop(Committer(Lake(lake), root), interval_s=INTERVAL_S)
    begun = time.process_time()
    loop.start()
    ready.release()
    stop.wait()
    used = time.process_time() - begun
    loop.stop()
    result.put(used)


def _backlog(root: Path) -> tuple[int, float]:
    """Bytes in the log, and seconds since the oldest of its segments was last written to."""
    size, oldest = 0, time.time()
    for path in root.rglob("*.*"):
        if path.suffix not in (".seg", ".open"):
            continue
        try:
            status = path.stat()
        except FileNotFoundError:
            continue  # committed meanwhile
        size += status.st_size
        oldest = min(oldest, status.st_mtime)
    return size, time.time() - oldest


@contextmanager
def _committing(root: Path, lake: Path, used: list[float]) -> Iterator[None]:
    """A committer process for the block; its processor seconds come after it."""
    ready, stop, result = _SPAWN.Semaphore(0), _SPAWN.Event(), _SPAWN.Queue()
    process = _SPAWN.Process(target=_commit, args=(root, lake, ready, stop, result))
    process.start()
    ready.acquire()
    try:
        yield
    finally:
        stop.set()
        used.append(result.get(timeout=300))
        process.join()


@contextmanager
def _generating(root: Path, rate: float, seconds: float, done: list[tuple[int, float]]) -> Iterator[None]:
    """Generators for the block, which they may outlive; what they wrote comes after it."""
    count = max(1, (os.cpu_count() or 1) // 2)
    ready, go, result = _SPAWN.Semaphore(0), _SPAWN.Event(), _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=_generate, args=(root, seed, rate / count, seconds, ready, go, result))
        for seed in range(count)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    go.set()
    try:
        yield
    finally:
        done += [result.get(timeout=seconds + 60) for _ in processes]
        for process in processes:
            process.join()


def _capacity(root: Path, seconds: float) -> tuple[float, float, int]:
    """Records a second into an empty log at full speed, records a second from a standing log, bytes of a record."""
    done: list[tuple[int, float]] = []
    with _generating(root / "wal", float("inf"), seconds, done):
        pass
    written = sum(count for count, _ in done) / max(spent for _, spent in done)
    size, _ = _backlog(root / "wal")
    lake = Lake(root / "lake")
    begun = time.monotonic()
    report = Committer(lake, root / "wal").run_once()
    spent = time.monotonic() - begun
    if lake.count("bronze.decisions") != report.decisions or report.refused:
        raise RuntimeError(f"the committer lost or refused records: {report}")
    return written, report.decisions / spent, round(size / report.decisions)


def _sustains(root: Path, rate: float, seconds: float) -> dict[str, float]:
    """Generate and commit at once: what was appended a second, and how the backlog moved."""
    done: list[tuple[int, float]] = []
    used: list[float] = []
    samples: list[tuple[float, int, float]] = []
    with _committing(root / "wal", root / "lake", used), _generating(root / "wal", rate, seconds, done):
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            samples.append((elapsed, *_backlog(root / "wal")))
            time.sleep(0.2)
    half = [sample for sample in samples if sample[0] > seconds / 3]
    middle = len(half) // 2
    first, last = (statistics.fmean(age for _, _, age in part) for part in (half[:middle], half[middle:]))
    appended = sum(count for count, _ in done)
    stored = Lake(root / "lake").count("bronze.decisions")
    if stored != appended:
        raise RuntimeError(f"{appended} decisions were appended, {stored} are in the table")
    return {
        "rate": appended / max(spent for _, spent in done),
        "age_s": last,
        "growth_s": last - first,
        "megabytes": statistics.fmean(size for _, size, _ in half[middle:]) / 1e6,
        "busy": used[0] / seconds,
    }


def _rivals(root: Path, batch: int, seconds: float) -> dict[str, float]:
    """Records a second of plain writers, from the same records."""
    source = _Source(99)
    records = [source.record() for _ in range(batch)]

    def table() -> pa.Table:
        names = DecisionRecord.__struct_fields__
        rows = [{name: getattr(record, name) for name in names} for record in records]
        return pa.Table.from_pylist(rows).drop_columns(["preference", "context"])

    def delta(_: int) -> None:
        write_deltalake(str(root / "delta"), table(), mode="append")

    def parquet(number: int) -> None:
        pq.write_table(table(), root / f"{number}.parquet")

    found = {}
    for name, write in (("write_deltalake, a commit per batch", delta), ("plain Parquet files", parquet)):
        count, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds or not count:
            write(count)
            count += 1
        found[name] = count * batch / (time.monotonic() - begun)
    return found


def _in_folder(work: Any) -> Any:
    folder = Path(tempfile.mkdtemp(prefix="rlog"))
    try:
        return work(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    arguments = parse_arguments("lake_log")
    seconds = 6.0 if arguments.quick else 60.0
    written, drained, size = _in_folder(lambda folder: _capacity(folder, seconds / 6))
    # Both need the cores: nothing above this can last.
    ceiling = min(written, drained)
    held: dict[str, float] | None = None
    tried: list[str] = []
    for share in SHARES[::2] if arguments.quick else SHARES:
        found = _in_folder(lambda folder, rate=share * ceiling: _sustains(folder, rate, seconds))
        holds = found["growth_s"] < 0.5 and found["rate"] > 0.97 * share * ceiling
        tried.append(
            f"{share * ceiling:,.0f}/s asked: {found['rate']:,.0f}/s appended, oldest record {found['age_s']:.2f} s"
            f" ({found['growth_s']:+.2f} s), {found['megabytes']:.1f} MB in the log, committer on"
            f" {100 * found['busy']:.0f} % of a core: {'holds' if holds else 'falls behind'}"
        )
        print(tried[-1], file=sys.stderr)
        if holds:
            held = found
            break
    if held is None:
        raise RuntimeError("the log fell behind at every rate: " + "; ".join(tried))
    rivals = _in_folder(lambda folder: _rivals(folder, max(100, round(held["rate"] * INTERVAL_S)), seconds / 6))
    rows = [
        Row("decisions through the log into bronze, sustained", "1/s", held["rate"], "promised", 20_000),
        *(
            Row("decisions from the log into bronze, committer alone", "1/s", drained, name, rate)
            for name, rate in rivals.items()
        ),
        Row("decisions appended to the log, generators alone", "1/s", written),
        Row("age of the oldest decision that is not in bronze, at the sustained rate", "s", held["age_s"]),
        Row("of a core for the committer, at the sustained rate", "%", 100 * held["busy"]),
        Row("bytes of a decision in the log", "B", size),
    ]
    report("lake_log", rows, arguments.json, tried)


if __name__ == "__main__":
    main()
