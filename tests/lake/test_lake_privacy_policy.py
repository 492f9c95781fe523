from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lake_records import decision

from rlaas.configfiles import read_config
from rlaas.errors import ConfigurationError
from rlaas.lake import Committer, WriteAheadLog, encode
from rlaas.lake.privacy import PrivacyPolicy, TableRules, protected_lake
from rlaas.lake.privacy.policy import MASKED, shaped, token_of
from rlaas.settings import Settings

NAMES = st.sampled_from(["user", "mail", "page", "deep"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def leaves(document: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(document, dict):
        return [leaf for key, value in document.items() for leaf in leaves(value, f"{path}.{key}")]
    if isinstance(document, list):
        return [leaf for value in document for leaf in leaves(value, path)]
    return [(path, document)]


def ruled(rules: dict[str, str], path: str, other: str) -> str:
    """The rule of the longest path above: said once more, another way."""
    parts = path.split(".")
    above = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((rules[name] for name in above if name in rules), other)


@given(
    document=DOCUMENTS,
    rules=st.dictionaries(
        st.builds(lambda parts: ".".join(["context", *parts]), st.lists(NAMES, min_size=1, max_size=3)),
        st.sampled_from(["keep", "mask", "tokenise", "drop"]),
        max_size=4,
    ),
    other=st.sampled_from(["keep", "mask", "tokenise"]),
)
def test_each_part_of_a_document_follows_the_nearest_rule_above_it(
    document: Any, rules: dict[str, Any], other: Any
) -> None:
    made = leaves(shaped(document, rules, other, lambda text: f"<{text}>", "context"), "context")
    wanted = []
    for path, value in leaves(document, "context"):
        action = ruled(rules, path, other)
        text = value if isinstance(value, str) else json.dumps(value)
        masked = {"keep": value, "mask": MASKED, "tokenise": f"<{text}>", "drop": None}[action]
        wanted.append((path, None if value is None else masked))
    # A dropped key is gone, or null where something is kept below it: either way nothing of the value is left.
    assert [leaf for leaf in made if leaf[1] is not None] == [leaf for leaf in wanted if leaf[1] is not None]


def test_tokens_tell_subjects_apart_and_nothing_else() -> None:
    first, second = b"1" * 32, b"2" * 32
    assert token_of(first, "a") == token_of(first, "a")
    assert len({token_of(first, "a"), token_of(second, "a"), token_of(first, "b")}) == 3


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"columns": {"nothing": "mask"}}, "unknown tables.bronze.decisions column 'nothing'"),
        ({"columns": {"decision_id": "drop"}}, "must have a value"),
        ({"columns": {"observation": "mask"}}, "is no text"),
        ({"columns": {"observation.x": "mask"}}, "is not JSON text"),
        ({"subject": ["whom"]}, "unknown tables.bronze.decisions column 'whom'"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(tmp_path: Path, rules: dict[str, Any], message: str) -> None:
    (tmp_path / "policy.yaml").write_text(json.dumps({"tables": {"bronze.decisions": rules}}))
    with pytest.raises(ConfigurationError, match=message):
        protected_lake(Settings(home=tmp_path / "home", privacy=tmp_path / "policy.yaml"))


def test_tokens_need_a_subject() -> None:
    with pytest.raises(ValueError, match="names no subject"):
        PrivacyPolicy(tables={"bronze.decisions": TableRules(columns={"unit": "tokenise"})})


def test_a_record_that_cannot_be_read_is_withheld_from_quarantine(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "tables: {bronze.decisions: {subject: [unit], columns: {unit: tokenise, context: mask}}}"
    )
    settings = Settings(home=tmp_path / "home", privacy=tmp_path / "policy.yaml")
    with WriteAheadLog(settings.wal_root, "decisions", "g") as wal:
        wal.append([b'{"unit": "user-17', json.dumps({"unit": "user-17", "context": {"a": "user-17"}}).encode()])
        wal.append([encode(decision("d", unit="user-17", context={"a": "user-17"})), encode(decision("e"))])
    lake = protected_lake(settings)
    Committer(lake, settings.wal_root).run_once()
    payloads = lake.read("quarantine.decisions", ["payload"]).column("payload").to_pylist()
    assert not any(b"user-17" in payload for payload in payloads)
    assert any(payload.startswith(b"sha256:") for payload in payloads)
    key = lake.vault.key(lake.vault.filed("user-17"))
    assert key is not None
    rows = {row["decision_id"]: row for row in lake.read("bronze.decisions").to_pylist()}
    assert rows["d"]["unit"] == token_of(key, "user-17")
    assert json.loads(rows["d"]["context"]) == {"a": MASKED}
    assert rows["e"]["unit"] is rows["e"]["context"] is None


def test_the_policy_that_is_shipped_can_be_kept(tmp_path: Path, repository: Path) -> None:
    file = repository / "configs" / "privacy" / "tokenise.yaml"
    policy = read_config(file, PrivacyPolicy)
    assert policy.tables["bronze.decisions"].columns["unit"] == "tokenise"
    protected_lake(Settings(home=tmp_path, privacy=file))
