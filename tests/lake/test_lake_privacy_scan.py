from __future__ import annotations

import bz2
import gzip
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import LakeError
from rlaas.lake.privacy.needles import Needles
from rlaas.lake.privacy.pages import parquet_parts
from rlaas.lake.privacy.scan import scan

NEEDLE, LONGER = "user-17", "user-171"


def hits(folder: Path, *texts: str, tenant: str = "default") -> list[str]:
    return [path.name for path in scan([folder], Needles(texts), tenant=tenant).hits]


def spelt(text: str, needle: str) -> bool:
    """Whether a text holds a needle by itself, said without a regular expression."""
    for at in range(len(text) - len(needle) + 1):
        around = text[max(0, at - 1) : at] + text[at + len(needle) : at + len(needle) + 1]
        if text[at : at + len(needle)] == needle and not any(c.isalnum() or ord(c) > 127 for c in around):
            return True
    return False


@given(st.lists(st.sampled_from([NEEDLE, "x", "7", "/", '"', " ", "é", "-"]), max_size=7).map("".join))
def test_a_word_counts_where_it_stands_by_itself(text: str) -> None:
    assert Needles([NEEDLE]).said_in(text.encode()) == spelt(text, NEEDLE)
    column = pa.chunked_array([pa.array([text, None])])
    assert Needles([NEEDLE]).matches(column).to_pylist() == [spelt(text, NEEDLE), False]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
def test_a_value_is_found_in_parquet_whatever_it_is_packed_with(
    tmp_path: Path, codec: str, options: dict[str, Any]
) -> None:
    # Behind many others, so that it is neither the smallest nor the largest, which the footer says in plain.
    names = [f"a{index:05d}-{'x' * (index % 40)}" for index in range(4000)]
    rows = {"unit": [*names, NEEDLE, "zz"], "n": list(range(4002))}
    pq.write_table(pa.table(rows), tmp_path / "with.parquet", compression=codec, **options)
    pq.write_table(pa.table({**rows, "unit": [*names, LONGER, "zz"]}), tmp_path / "without.parquet", compression=codec)
    assert hits(tmp_path, NEEDLE) == ["with.parquet"]
    whole = b"".join(parquet_parts(tmp_path / "with.parquet"))
    assert NEEDLE.encode() in whole
    assert len(whole) >= 4000 * 7


def test_a_value_left_over_in_a_dictionary_is_found(tmp_path: Path) -> None:
    # No row has it, and so nobody who reads rows sees it.
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["other", NEEDLE]))
    pq.write_table(pa.table({"unit": column}), tmp_path / "left.parquet", compression="zstd")
    assert pq.read_table(tmp_path / "left.parquet").column("unit").to_pylist() == ["other", "other"]
    assert hits(tmp_path, NEEDLE) == ["left.parquet"]


def test_a_statistic_is_found_in_a_footer(tmp_path: Path) -> None:
    pq.write_table(pa.table({"unit": [NEEDLE]}), tmp_path / "one.parquet")
    footer = list(parquet_parts(tmp_path / "one.parquet"))[-1]
    assert NEEDLE.encode() in footer


def test_other_kinds_of_files_are_looked_into(tmp_path: Path) -> None:
    text = f'{{"who": "{NEEDLE}"}}'.encode()
    (tmp_path / "plain.json").write_bytes(text)
    (tmp_path / "longer.json").write_bytes(text.replace(NEEDLE.encode(), LONGER.encode()))
    (tmp_path / "binary.bin").write_bytes(b"\xff\x00" + NEEDLE.encode() + b"1")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text * 9))
    (tmp_path / "packed.bz2").write_bytes(bz2.compress(text * 9))
    (tmp_path / "packed.zst").write_bytes(pa.compress(text * 9, codec="zstd", asbytes=True))
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", text * 9)
    (tmp_path / "empty").touch()
    found = ["binary.bin", "packed.bz2", "packed.gz", "packed.zst", "plain.json", "weights.pt"]
    assert hits(tmp_path, NEEDLE) == found


def test_free_pages_of_a_database_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with closing(sqlite3.connect(file)) as base:
        base.execute("PRAGMA secure_delete=OFF")
        base.execute("CREATE TABLE t (tenant TEXT, unit TEXT)")
        base.executemany("INSERT INTO t VALUES ('default', ?)", [(NEEDLE,), (LONGER,)])
        base.commit()
        assert hits(tmp_path, NEEDLE) == ["state.db"]
        base.execute("DELETE FROM t")
        base.commit()
        assert hits(tmp_path, NEEDLE) == ["state.db"]
        base.execute("VACUUM")
    assert hits(tmp_path, NEEDLE) == []


@pytest.mark.parametrize("subject", ['o"brien', "jürgen", "a\\b/c d"])
def test_an_id_is_found_however_json_and_urls_write_it(tmp_path: Path, subject: str) -> None:
    import json
    from urllib.parse import quote

    (tmp_path / "ascii.json").write_text(json.dumps({"u": subject}))
    (tmp_path / "twice.json").write_text(json.dumps({"stats": json.dumps({"minValues": {"u": subject}})}))
    (tmp_path / "utf8.json").write_text(json.dumps({"u": subject}, ensure_ascii=False))
    (tmp_path / "url.txt").write_text(f"https://h/{quote(subject, safe='')}/x")
    assert hits(tmp_path, subject) == ["ascii.json", "twice.json", "url.txt", "utf8.json"]


def test_what_is_another_tenants_is_left_alone(tmp_path: Path) -> None:
    for tenant in ("default", "other"):
        folder = tmp_path / f"tenant={tenant}"
        folder.mkdir()
        (folder / f"{tenant}.txt").write_text(NEEDLE)
    assert hits(tmp_path, NEEDLE) == ["default.txt"]


def test_a_damaged_file_is_no_clean_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"unit": ["abcd"] * 100}), tmp_path / "bad.parquet")
    data = bytearray((tmp_path / "bad.parquet").read_bytes())
    data[-40:-8] = b"\xff" * 32
    (tmp_path / "bad.parquet").write_bytes(bytes(data))
    with pytest.raises(LakeError, match=r"bad\.parquet is damaged"):
        hits(tmp_path, NEEDLE)
