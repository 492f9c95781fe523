"""One reader for every YAML file: its errors name the file, the key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int = Field(default=1, ge=0)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "x"
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    perhaps: Inner | None = None


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return path


def test_reads_nested_documents(tmp_path: Path) -> None:
    path = _written(tmp_path, "inner: {depth: 3}\nseveral: [{depth: 2}]\n")
    assert read_config(path, Outer) == Outer(inner=Inner(depth=3), several=(Inner(depth=2),))
    assert read_config(_written(tmp_path, ""), Outer) == Outer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nam: y", "unknown key 'nam'; allowed: inner, name, perhaps, several"),
        ("inner: {deep: 1}", "unknown key 'inner.deep'; allowed: depth"),
        ("several: [{depth: 1}, {deep: 1}]", "unknown key 'several.1.deep'; allowed: depth"),
        ("perhaps: {deep: 1}", "unknown key 'perhaps.deep'; allowed: depth"),
        ("inner: {depth: -1}", "inner.depth: Input should be greater than or equal to 0"),
        ("[1, 2]", "expected a mapping with keys inner, name, perhaps, several"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(_written(tmp_path, text), Outer)
    assert expected in str(caught.value)
    assert "file.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_config(tmp_path / "none.yaml", Outer)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read: it is not UTF-8"):
        read_config(binary, Outer)
