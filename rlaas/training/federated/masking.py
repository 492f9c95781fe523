"""Secure aggregation: the sum of the sites' vectors, and nothing else.

After Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning", in the version
against honest-but-curious parties.

Every pair of sites agrees on a mask that one adds and the other subtracts, and every site adds a mask of its own. The
secrets behind both are shared among all sites, so that the coordinator can remove the own masks of those that delivered
and the pair masks of those that did not. A site never reveals both kinds of one other site.

This file holds the two roles as plain state machines; :mod:`~rlaas.training.federated.exchange` carries their messages.
Nothing here authenticates: a coordinator that hands out keys of its own making reads everything. See
``docs/federated.md``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from rlaas.errors import OperatorError
from rlaas.training.federated.shamir import SECRET_BYTES, SHARE_BYTES, reconstruct, split

__all__ = ["MaskingSite", "PublicKeys", "Revealed", "expand", "unmask"]

Elements = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """What a site tells all others: X25519 public keys for sealing shares and for pair masks, 32 bytes each."""

    sealing: bytes
    masking: bytes


@dataclass(frozen=True, slots=True)
class Revealed:
    """The shares that one site gives up, by the site whose secret they belong to."""

    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]


def expand(seed: bytes, n: int) -> Elements:
    """``n`` uniform elements of Z_2^64 from a seed of 32 bytes: the ChaCha20 keystream. A seed is used once."""
    stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor().update(bytes(8 * n))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


@dataclass
class MaskingSite:
    """One site in one session. Each step is taken once, in order.

    Args:
        number: of the site, from 1; the point of its shares.
        session: bytes that no other session has; they enter every derived key.
        threshold: sites that must survive until the end.
    """

    number: int
    session: bytes
    threshold: int
    _sealing: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)
    _masking: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)
    _seed: bytes = field(default_factory=lambda: os.urandom(SECRET_BYTES), repr=False)
    _peers: dict[int, PublicKeys] = field(default_factory=dict, repr=False)
    _own: bytes = field(default=b"", repr=False)
    _sealed: dict[int, bytes] = field(default_factory=dict, repr=False)
    _step: str = "advertise"

    def advertise(self) -> PublicKeys:
        """Step 1: the public keys."""
        self._take("advertise", "share")
        return PublicKeys(_public(self._sealing), _public(self._masking))

    def share(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """Step 2: shares of both secrets for every other site of ``keys``, sealed for it alone.

        Raises:
            OperatorError: fewer sites than the threshold, or this one is not among them as it spoke.
        """
        self._take("share", "mask")
        own = PublicKeys(_public(self._sealing), _public(self._masking))
        if len(keys) < self.threshold or keys.get(self.number) != own:
            raise OperatorError(f"site {self.number} was given keys of {len(keys)} sites that it cannot work with")
        self._peers = dict(keys)
        masking = self._masking.private_bytes_raw()
        key_shares = split(masking, self.threshold, keys)
        seed_shares = split(self._seed, self.threshold, keys)
        pairs = {number: key_shares[number] + seed_shares[number] for number in keys}
        self._own = pairs.pop(self.number)
        return {number: self._box(self.number, number).encrypt(bytes(12), pair, None) for number, pair in pairs.items()}

    def mask(self, vector: Elements, sealed: Mapping[int, bytes]) -> Elements:
        """Step 3: ``vector`` [n] under its masks.

        Args:
            vector: elements of Z_2^64.
            sealed: by the other site, what it has sealed for this one; only pairs with these are masked.

        Raises:
            OperatorError: with this one they are fewer than the threshold, or one of them is unknown.
        """
        self._take("mask", "reveal")
        if len(sealed) + 1 < self.threshold or not set(sealed) <= set(self._peers) - {self.number}:
            raise OperatorError(f"site {self.number} was given shares of {len(sealed)} sites that it cannot work with")
        self._sealed = dict(sealed)
        masked = vector + expand(_derive(self._seed, self.session, b"own mask"), len(vector))
        for number in sealed:
            mask = expand(_pair_seed(self._masking, self._peers[number].masking, self.session), len(vector))
            masked = masked + mask if self.number < number else masked - mask
        return masked

    def reveal(self, survivors: Collection[int]) -> Revealed:
        """Step 4: shares of the own-mask seeds of ``survivors`` and of the keys of all others that shared.

        Raises:
            OperatorError: fewer survivors than the threshold, or strangers among them, or a share was tampered with.
        """
        self._take("reveal", "done")
        known = {*self._sealed, self.number}
        if len(set(survivors)) < self.threshold or not set(survivors) <= known or self.number not in survivors:
            raise OperatorError(f"site {self.number} does not reveal shares for {len(survivors)} survivors")
        opened = {number: self._open(number, sealed) for number, sealed in self._sealed.items()}
        opened[self.number] = self._own
        return Revealed(
            seeds={number: opened[number][SHARE_BYTES:] for number in sorted(survivors)},
            keys={number: opened[number][:SHARE_BYTES] for number in sorted(known - set(survivors))},
        )

    def _take(self, step: str, following: str) -> None:
        # A second set of survivors for the same masked vector would give away the difference of the two sums.
        if self._step != step:
            raise OperatorError(f"site {self.number} was asked to {step} when its next step was {self._step!r}")
        self._step = following

    def _box(self, sender: int, receiver: int) -> ChaCha20Poly1305:
        """One message travels each way in a session, so a key serves once and its nonce may be zero."""
        other = receiver if sender == self.number else sender
        agreed = self._sealing.exchange(X25519PublicKey.from_public_bytes(self._peers[other].sealing))
        return ChaCha20Poly1305(_derive(agreed, self.session, b"shares %d to %d" % (sender, receiver)))

    def _open(self, number: int, sealed: bytes) -> bytes:
        try:
            return self._box(number, self.number).decrypt(bytes(12), sealed, None)
        except InvalidTag as problem:
            raise OperatorError(f"the shares of site {number} for site {self.number} were tampered with") from problem


def unmask(
    masked: Mapping[int, Elements],
    keys: Mapping[int, PublicKeys],
    sharing: Iterable[int],
    revealed: Mapping[int, Revealed],
    *,
    session: bytes,
    threshold: int,
) -> Elements:
    """The coordinator's part: the exact sum [n] of the vectors behind ``masked``.

    Args:
        masked: by site, of all that delivered.
        keys: public keys by site.
        sharing: sites that shared their secrets: those whose pair masks are in the vectors.
        revealed: by site, of those that answered the last step.
        session: as in the sites.
        threshold: as in the sites.

    Raises:
        OperatorError: fewer answers than the threshold.
    """
    if len(revealed) < threshold:
        raise OperatorError(f"{len(revealed)} sites revealed shares, {threshold} are needed")
    # Any set of that size will do; all of them cost more and say the same.
    chosen = dict(sorted(revealed.items())[:threshold])
    total = np.zeros(len(next(iter(masked.values()))), dtype=np.uint64)
    for number, vector in masked.items():
        seed = reconstruct({holder: shares.seeds[number] for holder, shares in chosen.items()})
        total = total + vector - expand(_derive(seed, session, b"own mask"), len(vector))
    for gone in sorted(set(sharing) - set(masked)):
        key = reconstruct({holder: shares.keys[gone] for holder, shares in chosen.items()})
        private = X25519PrivateKey.from_private_bytes(key)
        for number in masked:
            mask = expand(_pair_seed(private, keys[number].masking, session), len(total))
            total = total - mask if number < gone else total + mask
    return total


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _pair_seed(own: X25519PrivateKey, other: bytes, session: bytes) -> bytes:
    return _derive(own.exchange(X25519PublicKey.from_public_bytes(other)), session, b"pair mask")


def _derive(secret: bytes, session: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=session, info=b"rlaas federated " + purpose).derive(secret)
