from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.lake_records import START_US, decision, decisions, names, outcome

from rlaas.errors import ConflictError, LakeError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, verify, verify_log
from rlaas.lake.batches import DecisionColumns, encode_batch
from rlaas.lake.committer import exclusive
from rlaas.lake.records import DecisionCommon
from rlaas.lake.rows import decision_rows, outcome_rows
from rlaas.lake.segments import HEADER, LOCK_NAME, frame


def test_what_is_missing_and_what_is_there_too_often(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    stored = [decision(name) for name in ("a", "b", "b", "b", "unasked", "unasked")]
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows(stored))]})
    lake.append_once("bronze.outcomes", {"app": [(1, lambda: outcome_rows([outcome("r", "a")]))]})
    found = verify(lake, decisions=["a", "b", "lost", "a"], outcomes=["r"])
    assert (found.decisions.acknowledged, found.decisions.in_bronze, found.decisions.duplicates) == (3, 2, 2)
    assert found.decisions.missing == ("lost",)
    assert not found.decisions.exactly_once
    assert found.outcomes.exactly_once
    assert not found.exactly_once
    assert verify(lake, decisions=["a"], outcomes=["r"]).exactly_once


def test_a_duplicate_alone_is_not_exactly_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append_once("bronze.decisions", {"app": [(1, lambda: decision_rows([decision("a"), decision("a")]))]})
    found = verify(lake, decisions=["a"])
    assert not found.decisions.missing
    assert not found.exactly_once


def test_nothing_acknowledged_is_nothing_to_miss(tmp_path: Path) -> None:
    found = verify(Lake(tmp_path))
    assert found.exactly_once
    assert found.decisions.acknowledged == found.outcomes.acknowledged == 0
    assert verify(Lake(tmp_path), outcomes=["r"]).outcomes.missing == ("r",)


def logged(wal: Path, producer: str = "gateway") -> WriteAheadLog:
    """A log with two sealed segments and an open one."""
    log = WriteAheadLog(wal, "decisions", producer)
    for prefix in "ab":
        log.append(decisions(prefix, 3))
        log.seal()
    log.append(decisions("c", 2))
    return log


def test_the_log_says_what_has_to_be_in_the_table(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    assert verify_log(lake, wal).exactly_once  # nothing anywhere
    with logged(wal) as log:
        found = verify_log(lake, wal)
        assert found.exactly_once
        assert (found.decisions.waiting, found.decisions.committed, found.decisions.rows) == (8, 0, 0)
        # Committed, but not yet removed: the committer died in between.
        kept = {path.name: path.read_bytes() for path in log.folder.glob("*.seg")}
        Committer(lake, wal).run_once()
        for name, content in kept.items():
            (log.folder / name).write_bytes(content)
        found = verify_log(lake, wal)
        assert found.exactly_once
        assert (found.decisions.waiting, found.decisions.committed, found.decisions.rows) == (2, 6, 6)
        assert found.decisions.producers == 1
        assert found.outcomes.rows == 0


def test_what_the_table_lost_or_has_too_early_is_named(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    with logged(wal) as log:
        app = f"rlaas/default/decisions/{log.producer}"
        stored = [decision(name) for name in ("a0", "a2", "a2", "b1")]
        lake.append_once("bronze.decisions", {app: [(1, lambda: decision_rows(stored))]})
        found = verify_log(lake, wal)
        assert found.decisions.missing == ("a1",)
        assert found.decisions.early == ("b1",)
        assert found.decisions.duplicates == 1
        assert not found.exactly_once
        assert found.outcomes.exactly_once


def test_a_segment_that_disappeared_is_a_gap(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    with logged(wal) as log:
        (log.folder / "00000002.seg").unlink()
        found = verify_log(lake, wal)
        assert found.decisions.gaps == (f"{log.producer}/00000002",)
        assert not found.exactly_once
        (log.folder / "00000001.seg").unlink()
        assert len(verify_log(lake, wal).decisions.gaps) == 2


def test_unreadable_records_are_counted_and_are_no_gap(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append([b"unreadable", encode(decision("d", tenant="other"))])
        log.seal()
        assert verify_log(lake, wal).decisions.refused == 2
        Committer(lake, wal).run_once()  # a segment that is in quarantine alone
        log.append(decisions("d", 1))
        found = verify_log(lake, wal)
        assert found.exactly_once
        assert (found.decisions.waiting, found.decisions.refused) == (1, 0)


@pytest.mark.parametrize("suffix", ["seg", "open"])
def test_every_flipped_bit_is_found(tmp_path: Path, suffix: str) -> None:
    """In whichever byte of a segment: it is named, nothing of it is committed, and the other producers go on."""
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    good = HEADER + frame(decisions("d", 2))
    folder = wal / "default" / "decisions" / "dead"
    folder.mkdir(parents=True)
    (folder / LOCK_NAME).touch()
    path = folder / f"00000001.{suffix}"
    step = 1 if suffix == "seg" else 7
    for place in range(0, len(good), step):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        found = verify_log(lake, wal).decisions
        assert len(found.damaged) == 1, place
        assert str(path) in found.damaged[0]
        assert "damaged at offset" in found.damaged[0]
        assert found.waiting == 0
        assert not found.exactly_once
    with WriteAheadLog(wal, "decisions", "alive") as log:
        log.append(decisions("e", 2))
    with pytest.raises(LakeError, match="damaged at offset"):
        Committer(lake, wal).run_once()
    assert path.exists()
    assert verify(lake, decisions=["e0", "e1"]).exactly_once
    assert lake.count("bronze.decisions") == 2
    path.write_bytes(good)
    Committer(lake, wal).run_once()
    assert verify(lake, decisions=["d0", "d1", "e0", "e1"]).exactly_once
    assert verify_log(lake, wal).exactly_once


def test_it_waits_for_a_commit_and_gives_up(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    with exclusive(wal, "default", 0.0), pytest.raises(ConflictError, match="another committer"):
        verify_log(lake, wal, lock_timeout_s=0.0)


def test_decisions_made_together_count_each(tmp_path: Path) -> None:
    lake, wal = Lake(tmp_path / "lake"), tmp_path / "wal"
    common = DecisionCommon(
        tenant="default",
        time_us=START_US,
        scenario="s",
        policy="p",
        version=1,
        variant="champion",
        generation=1,
        producer="gateway",
        experiment=None,
        mode=None,
        preference=None,
    )
    columns = DecisionColumns(decision_ids=names("t", 3), variant_propensities=[1.0] * 3, n_features=2, n_actions=1)
    record = encode_batch(columns, common.encoded(), np.zeros((3, 2)), np.zeros((3, 1)))
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append([record, *decisions("d", 1), record[:-9]])
        log.seal()
        found = verify_log(lake, wal).decisions
        assert (found.waiting, found.refused, found.exactly_once) == (4, 1, True)
        content = (log.folder / "00000001.seg").read_bytes()
        Committer(lake, wal).run_once()
        assert verify(lake, decisions=[*names("t", 3), "d0"]).exactly_once
        # The segment again, under the next number: all of it is in the table already.
        (log.folder / "00000002.seg").write_bytes(content)
        assert verify_log(lake, wal).decisions.early == ("d0", "t0", "t1", "t2")
        (log.folder / "00000002.seg").unlink()
        assert verify_log(lake, wal).exactly_once
