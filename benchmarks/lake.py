"""The lake's write path and its join: rows a second into bronze, and what a join costs as history grows.

    python -m benchmarks.lake [--quick] [--json] [--history ROWS]

**Write path.** Four producers, each a process with a write-ahead log at level ``process``, append decisions of 32
features, encoded as the Gateway encodes them: 100 made together in one record, or each alone. A committer in a
process of its own moves them into ``bronze.decisions``. Producers wait while 64 MB are uncommitted. The rate is all
rows over the time until the last of them is in the table. Everything shares the cores of this machine. Beside it the
rivals of ``benchmarks.lake_log``, alone on the machine: ``write_deltalake`` and plain Parquet of batches as large as
the committer's, of records held in memory.

**What bounds it.** Processor time of one row by part, each part alone in one process; it is what stays the same on a
machine that is busy with other things.

**Join.** A table with history, 10,000 decisions a day, then joins of 1,000 new decisions and 1,000 outcomes. Of those
100 are for decisions of the day before, 5 for decisions of any age, and 2 correct an outcome of any age; the processor
time of one, median of five. The rival is the full recomputation: read both tables, join, replace. ``--history`` adds a
larger history, for which the rival is not run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.lake_log import _backlog, _in_folder, _rivals
from rlaas.lake import Committer, Lake, WriteAheadLog, join_outcomes, rebuild, update_transitions, verify_log
from rlaas.lake.batches import DecisionColumns, decode_batch, encode_batch
from rlaas.lake.committer import CommitReport
from rlaas.lake.records import DecisionCommon
from rlaas.lake.rows import batch_rows, date_of
from rlaas.lake.schemas import table_spec
from rlaas.lake.segments import HEADER, frame, read_segment

PRODUCERS, BATCH, FEATURES = 4, 100, 32
TARGET_ROWS_PER_S = 100_000
MAX_BACKLOG_BYTES = 64 * 2**20
NEW, LATE, OLD, CORRECTED, JOINS = 1000, 100, 5, 2, 5
UNSEEN = 0.2
"""Share of the decisions of history that have no outcome yet."""
DAY_US = 86_400_000_000
NOW_US = 1_780_000_000_000_000
_SPAWN = multiprocessing.get_context("spawn")


class _Decided:
    """Decisions as the Gateway hands them to its log, no two ids alike."""

    def __init__(self, seed: int) -> None:
        self._rows = np.random.default_rng(seed).normal(size=(512, FEATURES))
        self._tail, self._count = f"7abc8{seed:015x}-bench{seed}-0123abcdv1-{'0' * 32}", 0

    def together(self, size: int) -> bytes:
        """So many made together: one record."""
        at = np.arange(self._count, self._count + size)
        columns = DecisionColumns(
            decision_ids=self._names(size),
            variant_propensities=[1.0] * size,
            n_features=FEATURES,
            n_actions=1,
            units=[f"user-{number % 10_000}" for number in at.tolist()],
        )
        return encode_batch(columns, self._common(), self._rows[at % 512], (at % 10).astype(np.float64)[:, None])

    def singly(self, size: int) -> list[bytes]:
        """So many made one by one: a record each."""
        return [self.together(1) for _ in range(size)]

    def _names(self, size: int) -> list[str]:
        self._count += size
        return [f"{number:012x}{self._tail}" for number in range(self._count - size, self._count)]

    def _common(self) -> bytes:
        return DecisionCommon(
            tenant="default",
            time_us=time.time_ns() // 1000,
            scenario="bench",
            policy="bench",
            version=1,
            variant="champion",
            generation=3,
            producer="bench",
            experiment=None,
            mode=None,
            preference=None,
        ).encoded()


def _produce(root: Path, seed: int, seconds: float, together: bool, ready: Any, go: Any, result: Any) -> None:
    """Append for some seconds; puts (rows, processor seconds) into ``result``."""
    decided = _Decided(seed)
    with WriteAheadLog(root, "decisions", f"bench{seed}") as log:
        ready.release()
        go.wait()
        begun, count, looked, used = time.monotonic(), 0, 0.0, time.process_time()
        while (now := time.monotonic()) - begun < seconds:
            if now - looked > 0.1:
                looked = now
                while _backlog(root)[0] > MAX_BACKLOG_BYTES and time.monotonic() - begun < seconds:
                    time.sleep(0.01)
                log.seal()
            if together:
                log.append([decided.together(BATCH)])
            else:
                for payload in decided.singly(BATCH):
                    log.append([payload])
            count += BATCH
        result.put((count, time.process_time() - used))


def _commit(root: Path, lake: Path, ready: Any, stop: Any, result: Any) -> None:
    """Commit until told to stop and all is committed; puts (report, commits, processor seconds) into ``result``."""
    committer = Committer(Lake(lake), root)
    committer.run_once()
    ready.release()
    total, commits, used = CommitReport(), 0, time.process_time()
    while True:
        stopping = stop.is_set()
        found = committer.run_once()
        total += found
        commits += bool(found.segments)
        if stopping and not found.segments:
            break
        if not found.segments:
            time.sleep(0.02)
    result.put((total.decisions, commits, time.process_time() - used))


def _write_path(root: Path, seconds: float, together: bool) -> dict[str, float]:
    """Rows a second into bronze with everything at work, and the processor time that it took."""
    ready, go, stop = _SPAWN.Semaphore(0), _SPAWN.Event(), _SPAWN.Event()
    produced, committed = _SPAWN.Queue(), _SPAWN.Queue()
    wal, lake = root / "wal", root / "lake"
    committer = _SPAWN.Process(target=_commit, args=(wal, lake, ready, stop, committed))
    producers = [
        _SPAWN.Process(target=_produce, args=(wal, seed, seconds, together, ready, go, produced))
        for seed in range(PRODUCERS)
    ]
    for process in (committer, *producers):
        process.start()
    for _ in range(PRODUCERS + 1):
        ready.acquire()
    begun = time.monotonic()
    go.set()
    written = [produced.get(timeout=seconds + 60) for _ in producers]
    for process in producers:
        process.join()
    stop.set()
    rows, commits, used = committed.get(timeout=300)
    spent = time.monotonic() - begun
    committer.join()
    appended = sum(count for count, _ in written)
    found = verify_log(Lake(lake), wal).decisions
    if not found.exactly_once or not appended == rows == found.rows:
        raise RuntimeError(f"{appended} decisions were appended, {rows} committed: {found}")
    return {
        "rate": rows / spent,
        "producer_us": 1e6 * sum(cpu for _, cpu in written) / rows,
        "committer_us": 1e6 * used / rows,
        "batch": rows / max(commits, 1),
    }


def _parts(root: Path, rows: int) -> dict[str, float]:
    """Processor microseconds of one row, by part; the best of three, as everything else on the machine only adds."""
    made = _Decided(PRODUCERS)
    together = [made.together(BATCH) for _ in range(rows // BATCH)]
    singly = made.singly(rows)
    batches = [decode_batch(payload) for payload in together]
    alone = [decode_batch(payload) for payload in singly]
    segments = {name: root / f"{name}.seg" for name in ("together", "singly")}
    for path, payloads in zip(segments.values(), (together, singly), strict=True):
        path.write_bytes(HEADER + frame(payloads))
    table = batch_rows(batches)
    log = WriteAheadLog(root / "wal", "decisions", "parts", max_segment_bytes=2**40)
    parts: dict[str, Callable[[], object]] = {
        "together, producer: encode": lambda: [made.together(BATCH) for _ in range(rows // BATCH)],
        "together, producer: checksum and write": lambda: [log.append([payload]) for payload in together],
        "together, committer: read and check a segment": lambda: read_segment(segments["together"]),
        "together, committer: decode": lambda: [decode_batch(payload) for payload in together],
        "together, committer: rows": lambda: batch_rows(batches),
        "singly, producer: encode": lambda: made.singly(rows),
        "singly, producer: checksum and write": lambda: [log.append([payload]) for payload in singly],
        "singly, committer: read and check a segment": lambda: read_segment(segments["singly"]),
        "singly, committer: decode": lambda: [decode_batch(payload) for payload in singly],
        "singly, committer: rows": lambda: batch_rows(alone),
        "both, committer: write_deltalake": lambda: write_deltalake(
            str(root / "delta"), table, mode="append", partition_by=["tenant", "date"]
        ),
    }
    found = {}
    for name, work in parts.items():
        times = []
        for _ in range(3):
            begun = time.process_time()
            work()
            times.append(time.process_time() - begun)
        found[name] = 1e6 * min(times) / rows
    log.close()
    return found


class _History:
    """A lake with so many decisions and outcomes, about 10,000 a day at most 1,000 days back, and what comes next."""

    def __init__(self, lake: Lake, rows: int, features: int) -> None:
        self._lake, self._features = lake, features
        self._rng = np.random.default_rng(rows)
        self._names: list[str] = []
        self._times: list[int] = []
        self._number = 0
        self._unseen: list[int] = []
        days = max(1, min(rows // 10_000, 1000))
        for day in range(days):
            count = rows // days
            begun = NOW_US - (days - day) * DAY_US
            self._add(begun + np.sort(self._rng.integers(0, DAY_US, count)), seen=round((1 - UNSEEN) * count))

    def new(self, now_us: int) -> None:
        """1,000 decisions and 1,000 outcomes more, in one commit each."""
        before = len(self._names)
        self._add(now_us + np.arange(NEW) * 1000, seen=NEW - LATE - OLD - CORRECTED)
        waiting = [at for at in self._unseen if at < before]
        yesterday = waiting[-round(UNSEEN * 10_000) :]
        late = {*self._rng.choice(yesterday, LATE, replace=False), *self._rng.choice(waiting, OLD, replace=False)}
        corrected = self._rng.integers(0, before, CORRECTED)
        self._unseen = [at for at in self._unseen if at not in late]
        names = [self._names[at] for at in (*late, *corrected)]
        revisions = np.repeat([0, 1 + self._number], [len(late), CORRECTED])
        self._outcomes(names, np.full(len(names), now_us + NEW * 1000), revisions)

    def _add(self, times: np.ndarray, seen: int) -> None:
        names = [f"{at // 1000:012x}7{self._number:03x}8{index:015x}-bench" for index, at in enumerate(times.tolist())]
        self._number += 1
        place = np.arange(len(times))
        lists = pa.ListArray.from_arrays(
            pa.array(np.arange(len(times) + 1, dtype=np.int32) * self._features),
            pa.array(self._rng.normal(size=len(times) * self._features)),
        )
        values = {
            "date": [date_of(at) for at in times.tolist()],
            "receipt_id": names,
            "decision_id": names,
            "time_us": times,
            "session": [f"s{self._number}-{at // 20}" for at in place.tolist()],
            "step": place % 20,
            "variant_propensity": np.ones(len(times)),
            "observation": lists,
            "action": pa.array([[1.0]] * len(times)),
        }
        self._write("bronze.decisions", values, len(times))
        chosen = np.sort(self._rng.choice(len(names), seen, replace=False))
        self._unseen += (len(self._names) + np.setdiff1d(np.arange(len(names)), chosen)).tolist()
        self._names += names
        self._outcomes([names[at] for at in chosen], times[chosen] + 5000, np.zeros(seen, dtype=np.int64))

    def _outcomes(self, names: list[str], times: np.ndarray, revisions: np.ndarray) -> None:
        self._number += 1
        values = {
            "date": [date_of(at) for at in times.tolist()],
            "receipt_id": [f"r{self._number}-{name}" for name in names],
            "outcome_id": [f"o-{name}" for name in names],
            "decision_id": names,
            "revision": revisions,
            "outcome": [[("latency", value)] for value in self._rng.normal(size=len(names)).tolist()],
            "terminated": [False] * len(names),
            "truncated": [False] * len(names),
            "time_us": times,
            "received_us": times,
        }
        self._write("bronze.outcomes", values, len(names))

    def _write(self, name: str, values: dict[str, Any], count: int) -> None:
        same: dict[str, Any] = {"tenant": "default", "version": 1, "generation": 1, "schema_version": 1}
        arrays = []
        for field in table_spec(name).schema:
            if field.name in values:
                given = values[field.name]
                arrays.append(given.cast(field.type) if isinstance(given, pa.Array) else pa.array(given, field.type))
            elif field.nullable:
                arrays.append(pa.nulls(count, field.type))
            else:
                arrays.append(pa.repeat(pa.scalar(same.get(field.name, "bench"), field.type), count))
        rows = pa.Table.from_arrays(arrays, schema=table_spec(name).schema)
        self._lake.append_once(name, {"benchmark": [(self._number, lambda: rows)]})


def _cost(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def _recompute(lake: Lake) -> None:
    """The full recomputation: everything read, joined and replaced."""
    delta = lake.open_or_create("silver.transitions")
    joined = join_outcomes(lake.read("bronze.decisions"), lake.read("bronze.outcomes"), orphan_before_us=0)
    lake.replace(delta, joined.transitions, f"tenant = '{lake.tenant}'")


def _join(root: Path, rows: int, features: int, *, rival: bool) -> tuple[float, float | None]:
    """Processor seconds of one join behind so many rows, and of the full recomputation."""
    lake = Lake(root / "lake")
    history = _History(lake, rows, features)
    rebuild(lake, now_us=NOW_US)
    costs = []
    for number in range(JOINS + 1):
        now_us = NOW_US + number * 10_000_000
        history.new(now_us)
        costs.append(_cost(lambda now_us=now_us: update_transitions(lake, now_us=now_us)))
    ours = statistics.median(costs[1:])
    full = _cost(lambda: _recompute(lake)) if rival else None
    print(f"join behind {rows:,} rows: {1e3 * ours:.0f} ms, whole {full}", file=sys.stderr)
    return ours, full


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--history", type=int, default=0, help="one more history of so many rows, of 2 features")


def main() -> None:
    arguments = parse_arguments("lake", _more)
    quick = arguments.quick
    parts = _in_folder(lambda folder: _parts(folder, 5_000 if quick else 40_000))
    rows, notes = [], []
    for name, together in (("together", True), ("singly", False)):
        path = _in_folder(lambda folder, both=together: _write_path(folder, 3.0 if quick else 60.0, both))
        what = f"decisions made {name}, from 4 producers into bronze"
        rows.append(Row(what, "1/s", path["rate"], "promised", TARGET_ROWS_PER_S))
        batch = max(BATCH, round(path["batch"]))
        rivals = _in_folder(lambda folder, size=batch: _rivals(folder, size, 1.0 if quick else 10.0))
        rows += [Row("the same", "1/s", path["rate"], rival, value) for rival, value in rivals.items()]
        allowed = _allowed(parts, name)
        rows += [
            Row("  processor time of a row, all producers", "us", path["producer_us"]),
            Row("  processor time of a row, committer", "us", path["committer_us"]),
            Row("  rows that two free cores allow, by the parts below", "1/s", allowed, "promised", TARGET_ROWS_PER_S),
        ]
        notes.append(f"{name}: {path['batch']:,.0f} rows in a commit")
    rows += [Row(f"  {name}", "us", value) for name, value in parts.items()]
    sizes = (10_000, 30_000) if quick else (10_000, 100_000, 1_000_000)
    for size in sizes:
        ours, full = _in_folder(lambda folder, size=size: _join(folder, size, FEATURES, rival=True))
        what = f"join of 1,000 decisions and outcomes behind {size:,} rows"
        theirs = None if full is None else 1e3 * full
        rows.append(Row(what, "ms", 1e3 * ours, "full recomputation", theirs, better="lower"))
    if arguments.history:
        ours, _ = _in_folder(lambda folder: _join(folder, arguments.history, 2, rival=False))
        rows.append(Row(f"the same behind {arguments.history:,} rows of 2 features", "ms", 1e3 * ours))
    notes.append("us and ms are of the processor; rates are of the clock, with all processes on this machine")
    report("lake", rows, arguments.json, notes)


def _allowed(parts: dict[str, float], how: str) -> float:
    """Rows a second: the committer is one process, and both together have two cores."""
    mine = {name: value for name, value in parts.items() if name.startswith((how, "both"))}
    committer = sum(value for name, value in mine.items() if "committer" in name)
    return min(1e6 / committer, 2e6 / sum(mine.values()))


if __name__ == "__main__":
    main()
