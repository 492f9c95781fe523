"""Death at every single change of a file, Delta's and SQLite's own included: nothing is lost, doubled or mixed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lake_faults import Faults, compiler, faults
from support.lake_records import START_US, decision, decisions, names, outcomes

from rlaas.lake import (
    Committer,
    Lake,
    WriteAheadLog,
    encode,
    join_outcomes,
    update_transitions,
    verify,
    verify_log,
)
from rlaas.lake.segments import HEADER, LOCK_NAME, frame

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with faults(tmp_path_factory.mktemp("shim")) as found:
        yield found


def fill(wal: Path) -> tuple[list[str], list[str]]:
    """A log that was closed, one of a producer that died while writing, and one of outcomes; what they acknowledged."""
    with WriteAheadLog(wal, "decisions", "closed") as closed:
        closed.append(decisions("a", 2))
    dead = wal / "default" / "decisions" / "dead"
    dead.mkdir()
    (dead / LOCK_NAME).touch()
    (dead / "00000001.open").write_bytes(HEADER + frame(decisions("b", 2)) + frame(decisions("torn", 1))[:-5])
    with WriteAheadLog(wal, "outcomes", "closed") as other:
        other.append(outcomes("r", names("a", 2)))
    return [*names("a", 2), *names("b", 2)], names("r", 2)


@pytest.mark.parametrize("torn", [False, True], ids=["before it", "in the middle of it"])
def test_a_committer_that_dies_at_any_change_leaves_the_old_or_the_new(
    tmp_path: Path, dying: Faults, torn: bool
) -> None:
    template = tmp_path / "template"
    acknowledged, receipts = fill(template / "wal")
    for name in ("bronze.decisions", "bronze.outcomes"):
        Lake(template / "lake").open_or_create(name)
    step, died = 0, True
    seen: set[tuple[int, int]] = set()
    while died:
        root = tmp_path / "now"
        shutil.copytree(template, root)
        died = dying.run("commit", root, at=step, torn=torn)
        lake = Lake(root / "lake")
        counts = lake.count("bronze.decisions"), lake.count("bronze.outcomes")
        assert counts in {(0, 0), (4, 0), (4, 2)}, step
        seen.add(counts)
        assert verify_log(lake, root / "wal").exactly_once, step
        Committer(lake, root / "wal").run_once()
        assert verify(lake, decisions=acknowledged, outcomes=receipts).exactly_once, step
        assert (lake.count("bronze.decisions"), lake.count("bronze.outcomes")) == (4, 2)
        found = verify_log(lake, root / "wal")
        assert found.exactly_once
        assert found.decisions.waiting == found.decisions.committed == 0
        shutil.rmtree(root)
        step += 1
    assert seen == {(0, 0), (4, 0), (4, 2)}
    assert step > 25


@pytest.mark.parametrize("torn", [False, True], ids=["before it", "in the middle of it"])
def test_a_producer_that_dies_at_any_change_loses_nothing_that_it_acknowledged(
    tmp_path: Path, dying: Faults, torn: bool
) -> None:
    step, died = 0, True
    while died:
        root = tmp_path / f"{step}"
        root.mkdir()
        died = dying.run("produce", root, at=step, torn=torn)
        told = Path(f"{root}.acknowledged")
        batches = [int(line) for line in told.read_text().split()] if told.exists() else []
        lake = Lake(root / "lake")
        assert verify_log(lake, root / "wal").exactly_once
        Committer(lake, root / "wal").run_once()
        acknowledged = [f"b{batch}-{index}" for batch in batches for index in range(2)]
        assert verify(lake, decisions=acknowledged).exactly_once, step
        # On top of it at most what was written and not yet acknowledged: a batch, or the first part of it.
        on_top = set(lake.read("bronze.decisions").column("receipt_id").to_pylist()) - {*acknowledged}
        assert on_top <= {f"b{len(batches)}-0", f"b{len(batches)}-1"}
        assert lake.count("bronze.decisions") == len(acknowledged) + len(on_top)
        step += 1
    assert len(batches) == 4
    assert step > 20


def test_a_join_that_dies_at_any_change_neither_loses_nor_doubles(tmp_path: Path, dying: Faults) -> None:
    template = tmp_path / "template"
    wal, lake = template / "wal", Lake(template / "lake")
    steps = [decision(f"s-{step}", session="s", step=step, time_us=START_US + step) for step in range(4)]
    with WriteAheadLog(wal, "decisions", "p") as log, WriteAheadLog(wal, "outcomes", "p") as other:
        log.append([encode(made) for made in steps[:2]])
        log.seal()
        other.append(outcomes("r", ["s-0", "s-1", "never"]))
        other.seal()
        Committer(lake, wal).run_once()
        assert update_transitions(lake) == 2
        log.append([encode(made) for made in steps[2:]])
        other.append(outcomes("t", ["s-2"]))
    Committer(lake, wal).run_once()
    full = join_outcomes(lake.read("bronze.decisions"), lake.read("bronze.outcomes"), orphan_before_us=START_US + 1)
    wanted = full.transitions.sort_by("time_us").to_pylist()
    assert len(wanted) == 3
    step, died = 0, True
    while died:
        root = tmp_path / "now"
        shutil.copytree(template, root)
        died = dying.run("join", root, at=step, torn=True)
        after = Lake(root / "lake")
        assert after.count("silver.transitions") in {2, 3}
        assert update_transitions(after) == 3
        assert after.read("silver.transitions").sort_by("time_us").to_pylist() == wanted, step
        assert after.read("quarantine.outcomes").column("receipt_id").to_pylist() == ["r2"]
        shutil.rmtree(root)
        step += 2  # most of them are SQLite's own
    assert step > 25
