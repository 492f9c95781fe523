from __future__ import annotations

import hmac
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import ConfigurationError, ForgedDecisionError
from rlaas.serving.decision_ids import DecisionIds, policy_tag, uuid7_hex

SECRET = b"0123456789abcdef"
IDS = DecisionIds(SECRET, "p1", tenant="default")
UUID = uuid7_hex(7)


def test_uuid7_is_one_and_sorts_by_time() -> None:
    before = time.time_ns() // 1_000_000
    parsed = uuid.UUID(uuid7_hex())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000
    assert uuid7_hex(1) < uuid7_hex(2) < uuid7_hex(1_000_000)
    assert len({uuid7_hex(5) for _ in range(1000)}) == 1000


def test_an_issued_id_verifies_in_every_process_that_holds_the_secret() -> None:
    minted = IDS.mint(policy_tag("toy"))
    verified = DecisionIds(SECRET, "another", tenant="default").verify(minted)
    assert (verified.producer, verified.tag) == ("p1", policy_tag("toy"))
    assert uuid.UUID(verified.uuid).version == 7
    assert verified.version is None


@given(st.binary(min_size=16, max_size=200), st.text(max_size=20))
def test_what_proves_an_id_is_hmac_sha256_of_tenant_and_id(secret: bytes, tenant: str) -> None:
    tenant = tenant.encode("utf-8", "replace").decode()
    body, _, mac = DecisionIds(secret, "p1", tenant=tenant).mint(policy_tag("toy", 3)).rpartition("-")
    assert mac == hmac.digest(secret, f"{tenant}\0{body}".encode(), "sha256").hex()[:32]


@given(st.integers(1, 2**48))
def test_an_id_says_which_version_decided(version: int) -> None:
    verified = IDS.verify(IDS.sign(UUID, policy_tag("toy", version)))
    assert (verified.uuid, verified.tag, verified.version) == (UUID, policy_tag("toy"), version)


@pytest.mark.parametrize(
    "other", [DecisionIds(b"x" * 16, "p1", tenant="default"), DecisionIds(SECRET, "p1", tenant="b")]
)
def test_another_secret_or_tenant_is_a_forgery(other: DecisionIds) -> None:
    with pytest.raises(ForgedDecisionError) as caught:
        IDS.verify(other.mint(policy_tag("toy")))
    assert caught.value.field == "decision_id"


@given(st.text(max_size=300))
def test_whatever_was_not_minted_is_forged(text: str) -> None:
    with pytest.raises(ForgedDecisionError):
        IDS.verify(text)


# One for all examples: what hypothesis may draw must not change from one to the next.
MINTED = IDS.mint(policy_tag("toy"))


@given(st.data())
def test_a_changed_character_is_noticed(data: st.DataObject) -> None:
    minted = MINTED
    index = data.draw(st.integers(0, len(minted) - 1))
    letter = data.draw(st.sampled_from("0123456789abcdef-z٣").filter(lambda c: c != minted[index]))
    with pytest.raises(ForgedDecisionError):
        IDS.verify(minted[:index] + letter + minted[index + 1 :])


def test_weak_keys_and_odd_producers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 16 bytes"):
        DecisionIds(b"short", "p", tenant="default")
    with pytest.raises(ConfigurationError, match="producer"):
        DecisionIds(SECRET, "P-1", tenant="default")
