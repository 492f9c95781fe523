"""Reading real Delta tables through a real Ray Data: the same rows as Delta's own reader gives, version by version."""

from __future__ import annotations

import base64
import datetime
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from offline_logs import SCHEMA, lake_of, logged
from training_toys import DiscreteToy, Toy

from rlaas.errors import ConfigurationError, InvalidInputError, LakeError, NotFoundError
from rlaas.lake import Lake
from rlaas.training import open_source
from rlaas.training.offline import SourceSettings

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.ray]


def _ids(lake: Lake, rows: int = 1_000, scenario: str = "toy", **settings: Any) -> list[str]:
    source = open_source(lake, SourceSettings(**settings), scenario)
    return [name for table in source.batches(rows) for name in table.column("decision_id").to_pylist()]


def _table(lake: Lake) -> DeltaTable:
    return DeltaTable(f"{lake.root}/silver/transitions")


def test_rows_are_those_of_the_version(tmp_path: Path) -> None:
    commits = [logged(Toy(), 30, seed=seed, date=f"2026-01-0{1 + seed % 2}") for seed in range(3)]
    lake = lake_of(tmp_path, *commits)
    _table(lake).optimize.compact()
    _table(lake).delete("decision_id LIKE '%-00003-%'")
    assert lake.version("silver.transitions") == 4
    columns = ["decision_id", "observation", "action", "outcome", "next_observation", "terminated", "truncated"]
    for version in range(5):
        source = open_source(lake, SourceSettings(version=version), "toy")
        assert source.version == version
        ours = pa.concat_tables(source.batches()).select(columns).sort_by("decision_id")
        theirs = lake.read("silver.transitions", columns, version=version).sort_by("decision_id")
        assert ours.num_rows == theirs.num_rows >= 200
        assert ours.to_pylist() == theirs.to_pylist()
    # The files that compaction and deletion replaced still lie in the folder.
    assert len(_ids(lake)) == len(_ids(lake, version=3)) - 3 * 8 == len(_ids(lake, version=2)) - 3 * 8


def test_batches_stream_in_a_fixed_order(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, *(logged(Toy(), 200, seed=seed) for seed in range(3)))
    source = open_source(lake, SourceSettings(), "toy")
    batches = list(source.batches(100))
    assert max(batch.num_rows for batch in batches) == 100
    assert len(batches) >= 45
    assert pa.concat_tables(batches).equals(pa.concat_tables(source.batches(100)))


def test_filters_choose_rows(tmp_path: Path) -> None:
    lake = lake_of(
        tmp_path,
        logged(Toy(), 5, seed=1, date="2026-01-01", policy="a", version=1),
        logged(Toy(), 5, seed=2, date="2026-01-02", policy="a", version=2),
        logged(Toy(), 5, seed=3, date="2026-01-03", policy="b", version=2),
        logged(DiscreteToy(), 5, seed=4, date="2026-01-03"),
        logged(Toy(), 5, seed=5, tenant="other"),
    )

    def seeds(**settings: Any) -> set[str]:
        return {name.split("-")[0] for name in _ids(lake, **settings)}

    assert seeds() == {"d1", "d2", "d3"}
    assert seeds(scenario="toy-discrete") == {"d4"}
    assert seeds(policy="a") == {"d1", "d2"}
    assert seeds(policy="a", policy_versions=(2,)) == {"d2"}
    assert seeds(first_date=datetime.date(2026, 1, 2)) == {"d2", "d3"}
    assert seeds(first_date="2026-01-02", last_date="2026-01-02") == {"d2"}
    assert seeds(policy="c") == set()
    with pytest.raises(ConfigurationError, match="first_date 2026-01-03 is after last_date 2026-01-02"):
        SourceSettings(first_date="2026-01-03", last_date="2026-01-02")
    with pytest.raises(ConfigurationError, match="policy_versions need a policy"):
        SourceSettings(policy_versions=(1,))


def test_rows_marked_by_a_deletion_vector_are_left_out(tmp_path: Path) -> None:
    """Other engines delete rows by a bitmap beside the file; deltalake reads such tables but does not write them."""
    lake = lake_of(tmp_path, logged(Toy(), 5))
    log = tmp_path / "silver" / "transitions" / "_delta_log"
    first = map(json.loads, (log / f"{0:020d}.json").read_text().splitlines())
    (add,) = [action["add"] for action in first if "add" in action]
    gone = [1, 3, 4]
    # A portable roaring bitmap: cookie, one container of key 0, its offset, its members.
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(gone) - 1, 16) + struct.pack(f"<{len(gone)}H", *gone)
    vector = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    vector += b"\0" * (-len(vector) % 4)
    removed = {"path": add["path"], "partitionValues": add["partitionValues"], "dataChange": True}
    marked = add | {
        "deletionVector": {
            "storageType": "i",
            "pathOrInlineDv": base64.b85encode(vector).decode().translate(_Z85),
            "sizeInBytes": len(vector),
            "cardinality": len(gone),
        }
    }
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    commit = [{"protocol": protocol}, {"remove": removed}, {"add": marked}]
    (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, commit)))
    theirs = QueryBuilder().register("rows", _table(lake)).execute("SELECT decision_id FROM rows").read_all()
    ours = _ids(lake)
    assert len(ours) == 40 - len(gone)
    assert sorted(ours) == sorted(pa.table(theirs).column(0).to_pylist())
    assert len(_ids(lake, version=0)) == 40


# Delta writes base 85 with ZeroMQ's alphabet.
_Z85 = str.maketrans(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
)


def test_a_gold_table_reads_alike(tmp_path: Path) -> None:
    table = logged(Toy(), 5).drop_columns(["scenario", "version"])
    lake = lake_of(tmp_path, table, name="gold.toy_training")
    assert len(_ids(lake, table="gold.toy_training")) == 40
    with pytest.raises(InvalidInputError, match=r"lacks the column 'version' \(source.policy_versions"):
        _ids(lake, table="gold.toy_training", policy="toy", policy_versions=(1,))


def test_columns_that_came_later_are_null_before(tmp_path: Path) -> None:
    early = logged(Toy(), 5, seed=1).drop_columns(["preference"])
    lake = lake_of(tmp_path, early)
    late = logged(Toy(), 5, seed=2, preference=[("near", 1.0)])
    write_deltalake(f"{lake.root}/silver/transitions", late, mode="append", schema_mode="merge")
    rows = pa.concat_tables(open_source(lake, SourceSettings(), "toy").batches())
    known = pc.is_valid(rows.column("preference")).to_pylist()
    assert [name.startswith("d2") for name in rows.column("decision_id").to_pylist()] == known


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"there is no table silver.transitions under .*rlaas lake commit"):
        _ids(Lake(tmp_path))
    lake = lake_of(tmp_path, logged(Toy(), 5))
    with pytest.raises(NotFoundError, match="has no version 3; allowed: 0 to 0"):
        _ids(lake, version=3)
    bare = lake_of(tmp_path / "bare", logged(Toy(), 5).drop_columns(["outcome"]))
    with pytest.raises(InvalidInputError, match=r"silver.transitions lacks the column 'outcome'"):
        _ids(bare)
    with pytest.raises(ConfigurationError, match="table: String should match pattern"):
        SourceSettings(table="bronze.decisions")
    empty = lake_of(tmp_path / "empty", SCHEMA.empty_table())
    assert _ids(empty) == []
    (file,) = (tmp_path / "silver").rglob("*.parquet")
    file.unlink()
    with pytest.raises(LakeError, match=r"silver.transitions version 0 cannot be read"):
        _ids(lake)
