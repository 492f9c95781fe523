"""Databases are opened in one place."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from rlaas.databases import create_tables, database_file, open_database
from rlaas.errors import ConfigurationError, OperatorError


def test_a_file_is_made_with_its_folder_and_prepared(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.db"
    engine = open_database(f"sqlite:///{file}", field="state_url", private=True, pragmas={"secure_delete": "ON"})
    with engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "secure_delete")]
    engine.dispose()
    assert found == ["wal", 1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert database_file(f"sqlite:///{file}", field="state_url") == file
    assert database_file("sqlite://", field="state_url") is None


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("no url", "state_url is not an SQLAlchemy URL"),
        ("mysql://here/there", "unknown backend 'mysql'; allowed: postgresql, sqlite"),
        ("postgresql+nosuch://here/there", "state_url: the driver of postgresql.nosuch is not installed"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_the_name_of_its_setting(url: str, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        open_database(url, field="state_url")


def test_a_file_that_is_no_database_is_an_operators_matter(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database, but long enough to be taken for one" * 30)
    engine = open_database(f"sqlite:///{tmp_path}/state.db", field="state_url")
    metadata = sa.MetaData()
    sa.Table("things", metadata, sa.Column("name", sa.Text))
    with pytest.raises(OperatorError, match="cannot open the state database"):
        create_tables(engine, metadata, what="the state database", field="state_url")


def test_tables_that_another_process_makes_meanwhile_are_no_error(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    metadata = sa.MetaData()
    tables = [sa.Table(name, metadata, sa.Column("name", sa.Text)) for name in ("first", "second")]
    engine = open_database(f"sqlite:///{file}", field="state_url")

    def overtaken(target: sa.MetaData, connection: sa.Connection, **_: object) -> None:
        with sqlite3.connect(file) as other:  # between look and leap
            other.execute("CREATE TABLE IF NOT EXISTS second (name TEXT)")

    sa.event.listen(tables[0], "after_create", overtaken)
    sa.event.listen(tables[0], "before_create", overtaken)
    create_tables(engine, metadata, what="the state database", field="state_url")
    assert set(sa.inspect(engine).get_table_names()) == {"first", "second"}
