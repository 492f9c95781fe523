"""One reader for every YAML file: its errors name the file, the key and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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
        ("inner: {depth: -1}", "inner.depth: must be >= 0, got -1"),
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


class Kinds(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    word: str = "x"
    share: float = Field(default=0.5, gt=0, lt=1)
    flag: bool = True
    way: Literal["near", "far"] = "near"
    seeds: tuple[int, ...] = Field(default=(1,), min_length=1)
    table: dict[str, int] = {}
    inner: Inner = Inner()
    needed: int


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word: 5", "word: must be a text, got 5"),
        ("share: much", "share: must be a number, got 'much'"),
        ("share: 0", "share: must be > 0, got 0"),
        ("share: 1.5", "share: must be < 1, got 1.5"),
        ("share: .nan", "share: must be a finite number, got nan"),
        ("flag: sometimes", "flag: must be true or false, got 'sometimes'"),
        ("way: out", "way: must be 'near' or 'far', got 'out'"),
        ("seeds: 3", "seeds: must be a list, got 3"),
        ("seeds: []", "seeds: must have at least 1 items, got []"),
        ("seeds: [1, x]", "seeds.1: must be a whole number, got 'x'"),
        ("seeds: [1, 1.5]", "seeds.1: must be a whole number, got 1.5"),
        ("table: [1]", "table: must be a mapping of keys, got [1]"),
        ("inner: deep", "inner: must be a mapping of keys, got 'deep'"),
        ("word: y", "needed: is missing; it has to be given"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed_in_plain_words(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(_written(tmp_path, text), Kinds)
    assert str(caught.value).endswith(f"file.yaml: {expected}")
    assert caught.value.field == expected.partition(":")[0]
