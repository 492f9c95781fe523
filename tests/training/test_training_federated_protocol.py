"""Secure aggregation without processes: shares, fixed point, masks, and sums that are exact whoever drops out."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from rlaas.errors import InvalidInputError, OperatorError, TrainingError
from rlaas.training.federated import fixed_point as fp
from rlaas.training.federated.masking import MaskingSite, PublicKeys, Revealed, expand, unmask
from rlaas.training.federated.shamir import PRIME, reconstruct, split

SESSION = b"s" * 32


def _vectors(n: int, size: int, seed: int) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {u: rng.integers(0, 2**64, size, dtype=np.uint64) for u in range(1, n + 1)}


class Session:
    """All sites of a session, driven step by step; any of them may be left out at any step."""

    def __init__(self, vectors: dict[int, np.ndarray], threshold: int) -> None:
        self.vectors, self.threshold = vectors, threshold
        self.sites = {u: MaskingSite(u, SESSION, threshold) for u in vectors}
        self.keys: dict[int, PublicKeys] = {}
        self.sealed: dict[int, dict[int, bytes]] = {}
        self.masked: dict[int, np.ndarray] = {}
        self.revealed: dict[int, Revealed] = {}

    def run(self, *gone: set[int]) -> np.ndarray:
        """``gone``: who is missing from the steps keys, shares, masks and reveal (and from all later ones)."""
        left = set(self.sites) - gone[0]
        self.keys = {u: self.sites[u].advertise() for u in left}
        left -= gone[1]
        self.sealed = {u: self.sites[u].share(self.keys) for u in left}
        left -= gone[2]
        for u in left:
            inbox = {v: given[u] for v, given in self.sealed.items() if v != u}
            self.masked[u] = self.sites[u].mask(self.vectors[u], inbox)
        left -= gone[3]
        self.revealed = {u: self.sites[u].reveal(set(self.masked)) for u in left}
        return unmask(self.masked, self.keys, self.sealed, self.revealed, session=SESSION, threshold=self.threshold)


def _plain_sum(vectors: dict[int, np.ndarray], sites: set[int]) -> np.ndarray:
    return np.sum([vectors[u] for u in sites], axis=0, dtype=np.uint64)


# Shamir's shares.


@given(
    secret=st.binary(min_size=32, max_size=32),
    n=st.integers(1, 9),
    data=st.data(),
)
def test_any_threshold_of_shares_gives_the_secret(secret: bytes, n: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, n))
    shares = split(secret, threshold, range(1, n + 1))
    chosen = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert reconstruct({x: shares[x] for x in chosen}) == secret


def test_fewer_shares_fit_every_secret() -> None:
    shares = split(b"\x07" * 32, 3, range(1, 6))
    # Two points and any third value at 0 lie on one parabola: two shares exclude no secret.
    for guess in (0, 1, 2**255):
        slope = [(int.from_bytes(shares[x]) - guess) * pow(x, -1, PRIME) % PRIME for x in (1, 2)]
        second = (slope[1] - slope[0]) % PRIME
        first = (slope[0] - second) % PRIME
        for x in (1, 2):
            assert (guess + first * x + second * x * x) % PRIME == int.from_bytes(shares[x])


def test_wrong_shares_are_noticed() -> None:
    shares = split(b"\x07" * 32, 3, range(1, 6))
    with pytest.raises(InvalidInputError, match="2 shares do not give a secret"):
        reconstruct({1: shares[1], 2: shares[2]})


@pytest.mark.parametrize(
    ("secret", "threshold", "points", "field"),
    [(b"short", 1, [1], "secret"), (b"\0" * 32, 3, [1, 2], "threshold"), (b"\0" * 32, 1, [1, 1], "points")],
)
def test_impossible_sharings_are_refused(secret: bytes, threshold: int, points: list[int], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        split(secret, threshold, points)
    assert caught.value.field == field


# Fixed point.


@given(st.lists(st.lists(st.floats(-1024, 1024), min_size=3, max_size=3), min_size=1, max_size=40))
def test_grid_sums_are_off_by_half_a_grid_unit_a_term_at_most(rows: list[list[float]]) -> None:
    bits = fp.bits_for(1024.0, len(rows))
    total = np.sum([fp.to_grid(row, bits, 1024.0) for row in rows], axis=0, dtype=np.uint64)
    exact = [float(sum(map(Fraction, column))) for column in zip(*rows, strict=True)]
    # The sum itself is rounded to a double once.
    slack = len(rows) * 2.0 ** -(bits + 1) + 2.0**-52 * np.abs(exact)
    assert (np.abs(fp.from_grid(total, bits) - exact) <= slack).all()


@given(limit=st.floats(1e-3, 1e12), terms=st.integers(1, fp.MOST_TERMS))
def test_sums_at_the_limit_cannot_wrap(limit: float, terms: int) -> None:
    bits = fp.bits_for(limit, terms)
    assert terms * math.ceil(limit * 2.0**bits) <= 2**62 + terms
    edge = int(fp.to_grid([limit], bits, limit).view(np.int64)[0])
    assert edge * terms < 2**63


@pytest.mark.parametrize("value", [1024.5, -2000.0, math.inf, math.nan])
def test_what_does_not_fit_the_ring_is_refused(value: float) -> None:
    with pytest.raises(TrainingError, match=r"beyond secure\.limit 1024"):
        fp.to_grid([0.0, value], 40, 1024.0)


def test_noise_that_does_not_fit_is_refused() -> None:
    assert fp.to_grid([1.0], 10, 4.0, np.array([-3072]))[0] == np.uint64(2**64 - 2048)
    with pytest.raises(TrainingError, match="beyond"):
        fp.to_grid([1.0], 10, 4.0, np.array([3073]))


wide_numbers = st.integers(-fp.WIDE_LIMIT + 1, fp.WIDE_LIMIT - 1)


@given(st.lists(st.lists(wide_numbers, min_size=2, max_size=2), min_size=1, max_size=30))
def test_wide_sums_are_exact(rows: list[list[int]]) -> None:
    total = np.sum([fp.to_limbs(row) for row in rows], axis=0, dtype=np.uint64)
    assert fp.from_limbs(total) == [sum(column) for column in zip(*rows, strict=True)]


def test_the_most_terms_of_the_largest_size_do_not_carry_over() -> None:
    for value in (fp.WIDE_LIMIT - 1, -fp.WIDE_LIMIT + 1, -1):
        limbs = fp.to_limbs([value]) * np.uint64(fp.MOST_TERMS)
        assert fp.from_limbs(limbs) == [value * fp.MOST_TERMS]


@given(st.floats(-1e25, 1e25))
def test_wide_numbers_keep_twelve_decimals(value: float) -> None:
    assert abs(fp.from_wide(fp.to_wide(value)) - Fraction(value)) <= Fraction(1, 2**41)


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30])
def test_numbers_too_wide_are_refused(value: float) -> None:
    with pytest.raises(TrainingError, match="observations"):
        fp.to_wide(value, "observations")


# Masks.


def test_masks_are_the_chacha20_of_rfc_8439() -> None:
    key = bytes(range(32))
    # RFC 8439, 2.3.2: the block with counter 1 and this nonce; our masks start at counter 0 with nonce 0.
    nonce = bytes.fromhex("01000000000000090000004a00000000")
    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    assert block[:16].hex() == "10f1e7e4d13b5915500fdd1fa32071c4"
    ours = expand(key, 8)
    reference = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(64))
    assert [int(x) for x in ours] == [int.from_bytes(reference[8 * i : 8 * i + 8], "little") for i in range(8)]


def test_nobody_drops_out() -> None:
    vectors = _vectors(5, 40, 1)
    total = Session(vectors, 3).run(set(), set(), set(), set())
    assert (total == _plain_sum(vectors, set(vectors))).all()


def test_every_pattern_of_two_drop_outs() -> None:
    vectors = _vectors(5, 4, 2)
    for pair in combinations(range(1, 6), 2):
        for first in range(4):
            for second in range(4):
                gone: list[set[int]] = [set(), set(), set(), set()]
                gone[first].add(pair[0])
                gone[second].add(pair[1])
                session = Session(vectors, 3)
                total = session.run(*gone)
                # Who drops out after the mask is in the sum all the same.
                assert (total == _plain_sum(vectors, set(vectors) - gone[0] - gone[1] - gone[2])).all()
                assert set(session.masked) == set(vectors) - gone[0] - gone[1] - gone[2]


@hypothesis_settings(max_examples=30)
@given(st.data())
def test_sums_are_exact_or_there_is_an_error(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(2, n))
    step = {u: data.draw(st.integers(0, 7)) for u in range(1, n + 1)}
    gone = [{u for u, s in step.items() if s == k} for k in range(4)]
    vectors = _vectors(n, 3, data.draw(st.integers(0, 100)))
    delivered = set(vectors) - gone[0] - gone[1] - gone[2]
    if len(delivered - gone[3]) < threshold:
        with pytest.raises(OperatorError):
            Session(vectors, threshold).run(*gone)
    else:
        total = Session(vectors, threshold).run(*gone)
        assert (total == _plain_sum(vectors, delivered)).all()


def test_a_masked_vector_is_uniform_and_not_the_plain_one() -> None:
    size = 50_000
    vectors = dict.fromkeys((1, 2, 3), np.zeros(size, dtype=np.uint64))
    session = Session(vectors, 2)
    session.run(set(), set(), set(), set())
    for masked in session.masked.values():
        assert (masked != 0).all()
        # Each byte of a uniform element is uniform over 256 values, the highest and the lowest alike.
        for byte in masked.view(np.uint8).reshape(size, 8).T:
            assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 1e-5
        # Successive elements are unrelated.
        low = (masked & np.uint64(15)).astype(int)
        assert stats.chisquare(np.bincount(16 * low[:-1] + low[1:], minlength=256)).pvalue > 1e-5


def test_two_sessions_with_the_same_vector_look_different() -> None:
    vectors = _vectors(3, 64, 3)
    first, second = Session(vectors, 2), Session(vectors, 2)
    first.run(set(), set(), set(), set())
    second.run(set(), set(), set(), set())
    assert (first.masked[1] != second.masked[1]).all()


def test_a_site_reveals_once_and_never_both_secrets_of_another() -> None:
    session = Session(_vectors(4, 2, 4), 2)
    session.run(set(), set(), {4}, set())
    for number, revealed in session.revealed.items():
        assert set(revealed.seeds) == {1, 2, 3}
        assert set(revealed.keys) == {4}
        with pytest.raises(OperatorError, match="asked to reveal when its next step was 'done'"):
            session.sites[number].reveal({1, 2})


def test_steps_out_of_order_are_refused() -> None:
    site = MaskingSite(1, SESSION, 2)
    with pytest.raises(OperatorError, match="asked to mask when its next step was 'advertise'"):
        site.mask(np.zeros(1, dtype=np.uint64), {})


def test_too_few_partners_and_strangers_are_refused() -> None:
    sites = {u: MaskingSite(u, SESSION, 3) for u in (1, 2, 3)}
    keys = {u: site.advertise() for u, site in sites.items()}
    with pytest.raises(OperatorError, match="2 sites that it cannot work with"):
        sites[1].share({1: keys[1], 2: keys[2]})
    with pytest.raises(OperatorError, match="3 sites that it cannot work with"):
        sites[2].share({**keys, 2: keys[1]})  # its own key, exchanged for another
    sealed = sites[3].share(keys)
    with pytest.raises(OperatorError, match="1 sites that it cannot work with"):
        sites[3].mask(np.zeros(1, dtype=np.uint64), {1: sealed[1]})


def test_survivors_are_checked() -> None:
    sites = {u: MaskingSite(u, SESSION, 2) for u in (1, 2, 3)}
    keys = {u: site.advertise() for u, site in sites.items()}
    sealed = {u: site.share(keys) for u, site in sites.items()}
    for number, survivors in ((1, {1}), (2, {2, 9}), (3, {1, 2})):
        sites[number].mask(np.zeros(1, dtype=np.uint64), {v: sealed[v][number] for v in sealed if v != number})
        with pytest.raises(OperatorError, match="does not reveal"):
            sites[number].reveal(survivors)


def test_tampered_shares_are_noticed() -> None:
    sites = {u: MaskingSite(u, SESSION, 2) for u in (1, 2)}
    keys = {u: site.advertise() for u, site in sites.items()}
    sealed = {u: site.share(keys) for u, site in sites.items()}
    broken = bytes([sealed[2][1][0] ^ 1]) + sealed[2][1][1:]
    sites[1].mask(np.zeros(1, dtype=np.uint64), {2: broken})
    with pytest.raises(OperatorError, match="shares of site 2 for site 1 were tampered with"):
        sites[1].reveal({1, 2})


def test_sealed_shares_show_no_share() -> None:
    site = MaskingSite(1, SESSION, 2)
    other = MaskingSite(2, SESSION, 2)
    sealed = site.share({1: site.advertise(), 2: other.advertise()})
    assert set(sealed) == {2}
    assert len(sealed[2]) == 2 * 66 + 16
    assert site._own[:66] not in sealed[2]
    assert site._own[66:] not in sealed[2]
