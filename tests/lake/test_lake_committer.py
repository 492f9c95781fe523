from __future__ import annotations

import gc
import json
import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable
from support.lake_records import decision, decisions, names, outcomes, segments_below

from rlaas.errors import ConflictError, InvalidInputError, LakeError
from rlaas.lake import CommitReport, Committer, Lake, WriteAheadLog, encode, verify
from rlaas.lake.segments import HEADER, LOCK_NAME, frame


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def wal(tmp_path: Path) -> Path:
    return tmp_path / "wal"


def test_nothing_written_is_nothing_committed(lake: Lake, wal: Path) -> None:
    assert Committer(lake, wal).run_once() == CommitReport()
    assert lake.versions() == {}


def test_sealed_segments_of_a_living_producer_move_into_bronze(lake: Lake, wal: Path) -> None:
    committer = Committer(lake, wal)
    with WriteAheadLog(wal, "decisions", "gateway") as log, WriteAheadLog(wal, "outcomes", "gateway") as other:
        log.append(decisions("d", 3))
        log.seal()
        log.append(decisions("e", 2))
        other.append(outcomes("r", names("d", 3)))
        other.seal()
        assert committer.run_once() == CommitReport(decisions=3, outcomes=3, segments=2)
        assert committer.run_once() == CommitReport()
        assert segments_below(wal) == ["00000002.open"]
        log.seal()
        assert committer.run_once() == CommitReport(decisions=2, segments=1)
    assert verify(lake, decisions=names("d", 3) + names("e", 2), outcomes=names("r", 3)).exactly_once


def test_small_segments_of_all_producers_share_one_commit(lake: Lake, wal: Path) -> None:
    for producer in ("one", "two"):
        with WriteAheadLog(wal, "decisions", producer) as log:
            for index in range(5):
                log.append(decisions(f"{producer}{index}-", 2))
                log.seal()
    assert Committer(lake, wal).run_once() == CommitReport(decisions=20, segments=10)
    assert lake.version("bronze.decisions") == 2  # made, given its constraints, one commit of rows


def test_a_batch_is_bounded(lake: Lake, wal: Path) -> None:
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        for index in range(4):
            log.append(decisions(f"b{index}-", 2))
            log.seal()
    assert Committer(lake, wal, max_batch_bytes=1).run_once() == CommitReport(decisions=8, segments=4)
    assert lake.version("bronze.decisions") == 5


def test_a_producer_that_ended_leaves_no_folder(lake: Lake, wal: Path) -> None:
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append(decisions("d", 1))
        assert Committer(lake, wal).run_once() == CommitReport()
        assert log.folder.is_dir()
    assert Committer(lake, wal).run_once() == CommitReport(decisions=1, segments=1)
    assert not log.folder.exists()


def test_segments_that_were_committed_but_not_deleted_are_only_deleted(lake: Lake, wal: Path) -> None:
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append([*decisions("d", 3), b"unreadable"])
        log.seal()
        segment = log.folder / "00000001.seg"
        kept = segment.read_bytes()
        committer = Committer(lake, wal)
        committer.run_once()
        segment.write_bytes(kept)
        log.append(decisions("e", 1))
        log.seal()
        assert committer.run_once() == CommitReport(decisions=1, segments=2)
    assert verify(lake, decisions=[*names("d", 3), "e0"]).exactly_once
    assert lake.count("quarantine.decisions") == 1


def test_the_bookkeeping_is_one_transaction_per_producer(lake: Lake, wal: Path) -> None:
    with WriteAheadLog(wal, "outcomes", "gateway") as log:
        for index in range(3):
            log.append(outcomes(f"r{index}-", ["d"]))
            log.seal()
    Committer(lake, wal).run_once()
    table = DeltaTable(f"{lake.root}/bronze/outcomes")
    assert table.transaction_version(f"rlaas/default/outcomes/{log.producer}") == 3


def test_what_cannot_be_read_is_quarantined_with_the_reason_and_blocks_nothing(lake: Lake, wal: Path) -> None:
    foreign = encode(decision("foreign", tenant="other"))
    later_schema = json.dumps({**json.loads(encode(decision("later"))), "schema_version": 2}).encode()
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append([b"\xffnot json", *decisions("d", 2), later_schema, foreign])
        log.seal()
        log.append([b"{}"])
    with WriteAheadLog(wal, "outcomes", "gateway") as other:
        other.append([encode(decision("in the wrong stream"))])
    report = Committer(lake, wal).run_once()
    assert report == CommitReport(decisions=2, refused=5, segments=3)
    assert verify(lake, decisions=names("d", 2)).exactly_once
    rows = {row["payload"]: row for row in lake.read("quarantine.decisions").to_pylist()}
    assert set(rows) == {b"\xffnot json", later_schema, foreign, b"{}"}
    assert "schema_version" in rows[later_schema]["reason"]
    assert "'other'" in rows[foreign]["reason"]
    assert rows[foreign]["receipt_id"] == "foreign"
    assert {row["producer"] for row in rows.values()} == {log.producer}
    assert {row["stage"] for row in rows.values()} == {"commit"}
    assert lake.count("quarantine.outcomes") == 1


def test_a_damaged_segment_stops_only_its_own_producer(lake: Lake, wal: Path) -> None:
    with WriteAheadLog(wal, "decisions", "a-damaged") as bad, WriteAheadLog(wal, "decisions", "b-healthy") as good:
        for log, prefix in ((bad, "x"), (good, "y")):
            for index in range(3):
                log.append(decisions(f"{prefix}{index}-", 1))
                log.seal()
        damaged = bad.folder / "00000002.seg"
        content = bytearray(damaged.read_bytes())
        content[40] ^= 1
        damaged.write_bytes(content)
        committer = Committer(lake, wal)
        for _ in range(2):
            with pytest.raises(LakeError, match=r"00000002\.seg is damaged at offset 8"):
                committer.run_once()
        assert verify(lake, decisions=["x0-0", "y0-0", "y1-0", "y2-0"]).exactly_once
        assert lake.count("bronze.decisions") == 4
        damaged.rename(damaged.with_suffix(".damaged"))
        committer.run_once()
        assert verify(lake, decisions=["x0-0", "x2-0", "y0-0", "y1-0", "y2-0"]).exactly_once


def test_a_damaged_open_segment_of_a_dead_producer_is_not_cut(lake: Lake, wal: Path) -> None:
    folder = wal / "default" / "decisions" / "dead"
    folder.mkdir(parents=True)
    (folder / LOCK_NAME).touch()
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append(decisions("d", 3))
        log.seal()
        content = bytearray((log.folder / "00000001.seg").read_bytes())
    content[9] ^= 0x40  # a length that reaches beyond the end, as in a torn record
    (folder / "00000001.seg").write_bytes(HEADER + frame(decisions("before", 2)))
    (folder / "00000002.open").write_bytes(content)
    with pytest.raises(LakeError, match=r"00000002\.open is damaged at offset 8"):
        Committer(lake, wal).run_once()
    assert (folder / "00000002.open").read_bytes() == content
    assert verify(lake, decisions=[*names("d", 3), *names("before", 2)]).exactly_once


def test_a_folder_without_a_lock_is_one_that_never_wrote(lake: Lake, wal: Path) -> None:
    folder = wal / "default" / "decisions" / "died-while-born"
    folder.mkdir(parents=True)
    Committer(lake, wal).run_once()
    assert not folder.exists()


def test_only_one_committer_works_at_a_time(lake: Lake, wal: Path) -> None:
    class Slow(Lake):
        def append_once(self, *args, **kwargs):
            inside.set()
            assert proceed.wait(30)
            return super().append_once(*args, **kwargs)

    inside, proceed = threading.Event(), threading.Event()
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append(decisions("d", 2))
    reports: list[CommitReport] = []
    slow = Committer(Slow(lake.root), wal)
    thread = threading.Thread(target=lambda: reports.append(slow.run_once()))
    thread.start()
    assert inside.wait(30)
    with pytest.raises(ConflictError, match="another committer"):
        Committer(lake, wal, lock_timeout_s=0.0).run_once()
    waiting = Committer(lake, wal)
    second = threading.Thread(target=lambda: reports.append(waiting.run_once()))
    second.start()
    proceed.set()
    thread.join()
    second.join()
    assert reports == [CommitReport(decisions=2, segments=1), CommitReport()]
    assert verify(lake, decisions=names("d", 2)).exactly_once


def test_a_commit_that_another_one_overtook_is_looked_at_again(lake: Lake, wal: Path) -> None:
    # The overtaker has the same segments under another lock: two hosts on a volume whose locks do not reach that far.
    class Overtaken(Lake):
        overtaker: Committer | None = None

        def open_or_create(self, table: str) -> DeltaTable:
            opened = super().open_or_create(table)
            if self.overtaker is not None:
                overtaker, self.overtaker = self.overtaker, None
                overtaker._run_stream("decisions", [])
            return opened

    with WriteAheadLog(wal, "decisions", "gateway") as log:
        log.append(decisions("d", 2))
        log.seal()
        segment = log.folder / "00000001.seg"
        content = segment.read_bytes()
        overtaken = Overtaken(lake.root)
        overtaken.open_or_create("bronze.decisions")
        overtaken.overtaker = Committer(lake, wal)
        committer = Committer(overtaken, wal)
        unlink = Path.unlink

        def unlink_again(path: Path, missing_ok: bool = False) -> None:
            unlink(path)
            if path == segment and overtaken.overtaker is None and not restored:
                restored.append(path)
                segment.write_bytes(content)

        restored: list[Path] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", unlink_again)
            assert committer.run_once() == CommitReport(decisions=0, segments=1)
        assert restored
    assert verify(lake, decisions=names("d", 2)).exactly_once


def test_small_files_are_merged_now_and_then(lake: Lake, wal: Path) -> None:
    committer = Committer(lake, wal, compact_every=4)
    with WriteAheadLog(wal, "decisions", "gateway") as log:
        for index in range(9):
            log.append(decisions(f"b{index}-", 2))
            log.seal()
            committer.run_once()
    assert len(DeltaTable(f"{lake.root}/bronze/decisions").file_uris()) == 2
    assert verify(lake, decisions=[f"b{index}-{part}" for index in range(9) for part in range(2)]).exactly_once


@pytest.mark.parametrize("collects", [True, False])
def test_cycles_are_looked_for_again_afterwards(lake: Lake, wal: Path, collects: bool) -> None:
    """Also where a run fails."""
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with WriteAheadLog(wal, "decisions", "gateway") as log:
            log.append(decisions("d", 1))
        Committer(lake, wal).run_once()
        assert gc.isenabled() is collects
        with WriteAheadLog(wal, "decisions", "gateway") as log:
            log.append(decisions("e", 1))
            log.seal()
            path = log.folder / "00000001.seg"
            path.write_bytes(path.read_bytes()[:-1])
            with pytest.raises(LakeError, match="damaged"):
                Committer(lake, wal).run_once()
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


def test_a_committer_belongs_to_the_tenant_of_its_lake(lake: Lake, wal: Path) -> None:
    with pytest.raises(InvalidInputError, match="allowed: default"):
        Committer(lake, wal, tenant="acme")
    acme = Lake(lake.root, "acme")
    with WriteAheadLog(wal, "decisions", "gateway", tenant="acme") as log:
        log.append([encode(decision("d", tenant="acme"))])
    assert Committer(lake, wal, tenant="default").run_once() == CommitReport()
    assert Committer(acme, wal, tenant="acme").run_once() == CommitReport(decisions=1, segments=1)
    assert (lake.count("bronze.decisions"), acme.count("bronze.decisions")) == (0, 1)
