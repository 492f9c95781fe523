from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.lake_records import segments_below

from rlaas.errors import ConfigurationError, InvalidInputError, LakeError
from rlaas.lake import WriteAheadLog, read_segment
from rlaas.lake.segments import HEADER, MAX_RECORD_BYTES, frame

PAYLOADS = st.lists(st.binary(max_size=40).map(lambda data: data + b"}"), max_size=8)


def sealed_payloads(log: WriteAheadLog) -> list[bytes]:
    return [payload for path in sorted(log.folder.glob("*.seg")) for payload in read_segment(path)]


def test_what_is_appended_can_be_read_in_order(tmp_path: Path) -> None:
    with WriteAheadLog(tmp_path, "decisions", "gateway") as log:
        log.append([b"one", b"two"])
        log.append([])
        assert segments_below(tmp_path) == ["00000001.open"]
        assert log.seal()
        assert not log.seal()
        log.append([b"three"])
        assert segments_below(tmp_path) == ["00000001.seg", "00000002.open"]
        assert read_segment(log.folder / "00000002.open") == [b"three"]
    assert log.folder.parent == tmp_path / "default" / "decisions"
    assert sealed_payloads(log) == [b"one", b"two", b"three"]


def test_a_log_never_continues_under_the_name_of_another(tmp_path: Path) -> None:
    with WriteAheadLog(tmp_path, "decisions", "gateway") as one, WriteAheadLog(tmp_path, "decisions", "gateway") as two:
        assert one.producer != two.producer
        assert one.producer.startswith("gateway-")


def test_a_full_segment_is_sealed_by_itself(tmp_path: Path) -> None:
    with WriteAheadLog(tmp_path, "decisions", "gateway", max_segment_bytes=100) as log:
        for index in range(10):
            log.append([b"x" * 60 + str(index).encode()])
        assert segments_below(tmp_path) == [f"{number:08d}.seg" for number in range(1, 5)] + ["00000005.open"]
    assert [payload[-1:] for payload in sealed_payloads(log)] == [str(index).encode() for index in range(10)]


@pytest.mark.parametrize("fsync", [False, True])
def test_threads_may_append_and_seal_at_the_same_time(tmp_path: Path, fsync: bool) -> None:
    count = 40 if fsync else 300

    def work(log: WriteAheadLog, name: int) -> None:
        for index in range(count):
            log.append([f"{name}:{index}:{part}".encode() for part in range(2)])
            if index % 50 == 0:
                log.seal()

    with WriteAheadLog(tmp_path, "decisions", "gateway", max_segment_bytes=2_000, fsync=fsync) as log:
        threads = [threading.Thread(target=work, args=(log, name)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = sealed_payloads(log)
    assert sorted(found) == sorted(
        f"{name}:{index}:{part}".encode() for name in range(4) for index in range(count) for part in range(2)
    )
    for name in range(4):
        mine = [payload for payload in found if payload.startswith(f"{name}:".encode())]
        assert mine == [f"{name}:{index}:{part}".encode() for index in range(count) for part in range(2)]


@pytest.fixture
def small_disk():
    """Files of this process may not grow beyond 64 KiB for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, small_disk: None) -> None:
    with WriteAheadLog(tmp_path, "decisions", "gateway") as log:
        log.append([b"kept"])
        with pytest.raises(LakeError, match=r"only \d+ of \d+ bytes"):  # the system takes the part that fits
            log.append([b"small", b"x" * 70_000])
        assert read_segment(log.folder / "00000001.open") == [b"kept"]
        log.append([b"y" * 65_500])  # up to the limit, to the byte
        with pytest.raises(LakeError, match=r"00000001\.open"):  # not one byte fits
            log.append([b"z"])
        assert log.seal()
        log.append([b"after"])
    assert [payload[:5] for payload in sealed_payloads(log)] == [b"kept", b"yyyyy", b"after"]


def test_the_first_write_of_a_segment_may_fail_too(tmp_path: Path, small_disk: None) -> None:
    with WriteAheadLog(tmp_path, "decisions", "gateway") as log:
        with pytest.raises(LakeError):
            log.append([b"x" * 70_000])
        assert not log.seal()
        log.append([b"after"])
    assert sealed_payloads(log) == [b"after"]


def test_a_log_that_cannot_roll_back_accepts_nothing_more(tmp_path: Path, small_disk: None, monkeypatch) -> None:
    log = WriteAheadLog(tmp_path, "decisions", "gateway")
    log.append([b"kept"])

    def refuse(fd: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(LakeError):
        log.append([b"x" * 70_000])
    with pytest.raises(LakeError, match="restart the process"):
        log.append([b"more"])
    with pytest.raises(LakeError, match="restart the process"):
        log.seal()
    log.close()
    # The half record is the torn end of a dead producer's segment.
    assert segments_below(tmp_path) == ["00000001.open"]
    assert read_segment(log.folder / "00000001.open") == [b"kept"]


@given(payloads=PAYLOADS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_open_segment_cut_anywhere_reads_as_the_records_before_the_cut(tmp_path: Path, payloads, data) -> None:
    whole = HEADER + frame(payloads)
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path / "00000001.open"
    path.write_bytes(whole[:cut])
    complete = [payload for index, payload in enumerate(payloads) if len(HEADER + frame(payloads[: index + 1])) <= cut]
    assert read_segment(path) == complete
    path.write_bytes(whole[:cut] + bytes(len(whole) - cut))  # a power cut: the length is there, the data is not
    assert read_segment(path) == complete


@given(payloads=PAYLOADS, data=st.data(), name=st.sampled_from(["00000001.seg", "00000001.open"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path, payloads, data, name: str) -> None:
    whole = bytearray(HEADER + frame(payloads))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = tmp_path / name
    path.write_bytes(whole)
    with pytest.raises(LakeError, match=rf"{name} is damaged at offset \d+"):
        read_segment(path)


@given(payloads=PAYLOADS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_sealed_segment_may_not_end_early(tmp_path: Path, payloads, data) -> None:
    whole = HEADER + frame(payloads)
    ends = {len(HEADER + frame(payloads[:count])) for count in range(len(payloads) + 1)}
    cut = data.draw(st.integers(0, len(whole)).filter(lambda at: at not in ends))
    path = tmp_path / "00000001.seg"
    path.write_bytes(whole[:cut])
    with pytest.raises(LakeError, match="incomplete"):
        read_segment(path)


def test_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="decisions, outcomes"):
        WriteAheadLog(tmp_path, "rewards", "gateway")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="tenant"):
        WriteAheadLog(tmp_path, "decisions", "gateway", tenant="../other")
    with pytest.raises(InvalidInputError, match="producer"):
        WriteAheadLog(tmp_path, "decisions", "../gateway")
    with WriteAheadLog(tmp_path, "decisions", "gateway") as log:
        for payload in (b"", bytes(MAX_RECORD_BYTES + 1)):
            with pytest.raises(InvalidInputError, match="allowed: 1 to"):
                log.append([b"good", payload])
        assert not log.seal()
    assert [path.name for path in tmp_path.iterdir()] == ["default"]


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = WriteAheadLog(tmp_path, "decisions", "gateway")
    log.close()
    log.close()
    with pytest.raises(LakeError, match="closed"):
        log.append([b"late"])


def test_a_folder_that_cannot_be_made_is_an_error_of_the_lake(tmp_path: Path) -> None:
    (tmp_path / "default").write_text("in the way")
    with pytest.raises(LakeError, match="cannot make"):
        WriteAheadLog(tmp_path, "decisions", "gateway")


def test_writing_the_log_loads_neither_delta_nor_arrow() -> None:
    program = (
        "import sys, rlaas.lake\n"
        "from rlaas.lake import WriteAheadLog, DecisionRecord, encode\n"
        "print(sorted({'deltalake', 'pyarrow', 'numpy', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
