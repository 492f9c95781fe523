"""The front of a live version as Gateways get it: what can be decided with it, and what that reaches.

Control writes it beside the bundles, once for each version, and names the file in its answer to the Gateways.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rlaas.errors import BundleError

__all__ = ["ServedCandidate", "ServedFront", "encode_front", "front_key", "read_served_front"]

_Name = Annotated[str, Meta(min_length=1, max_length=256)]


class ServedCandidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The version under a preference, or a fixed action.

    Attributes:
        name: in the front.
        mean: objective values in the order of the front's objectives, in their units.
        half_width: of the 95 % intervals of ``mean``; None where it is not known.
        preference: weights by objective that the policy acts under; None for a policy that takes none.
        action: that is always taken, in place of the policy's.
    """

    name: _Name
    mean: tuple[float, ...]
    half_width: tuple[float | None, ...]
    preference: dict[str, float] | None = None
    action: int | list[float] | None = None


class ServedFront(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Candidates that a version can decide as.

    Attributes:
        version: of the whole front, see :attr:`rlaas.fronts.Front.version`.
        objectives: names, in the order of the means.
        candidates: those that belong to the version, and fixed actions.
    """

    version: str
    objectives: tuple[str, ...]
    candidates: tuple[ServedCandidate, ...]
    schema_version: Literal[1] = 1


_decoder = msgspec.json.Decoder(ServedFront)


def front_key(policy: str, version: int) -> tuple[str, int]:
    """Where :attr:`~rlaas.serving.live.LiveAnswer.paths` has the file of a front; no policy's name has a slash."""
    return f"{policy}/front", version


def encode_front(front: ServedFront) -> bytes:
    """The content of the file of a front."""
    return msgspec.json.encode(front)


def read_served_front(path: Path) -> ServedFront:
    """Read the file of a front.

    Raises:
        BundleError: it is gone or damaged.
    """
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise BundleError(f"the front {path.name} cannot be read: {problem}", field="front") from problem
