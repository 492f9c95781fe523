"""Observations as they stand in the body of a request.

The log keeps the numbers as they were sent. Where they came as JSON they are copied from the body: to write a double
again takes longer than to read it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["Written", "as_written", "many_as_written"]

Written = list[float] | msgspec.Raw
"""Numbers of an observation, or the JSON array of them."""

_LONGEST_NUMBER = 32
"""Bytes of a number and what is around it, at most, in a body that is copied from: spaces are not worth keeping."""

_REST = 4096


class _One(msgspec.Struct):
    observation: msgspec.Raw


class _Many(msgspec.Struct):
    observations: list[msgspec.Raw]


_ONE = msgspec.json.Decoder(_One)
_MANY = msgspec.json.Decoder(_Many)


def as_written(body: bytes, observation: list[float]) -> Written:
    """The one observation of a body, for the log.

    Args:
        body: that was decoded and checked.
        observation: that it holds.
    """
    if len(body) > _REST + _LONGEST_NUMBER * len(observation):
        return observation
    return _ONE.decode(body).observation


def many_as_written(body: bytes, observations: list[list[float]]) -> Sequence[Written]:
    """All observations of a body, each as :func:`as_written` has it.

    Args:
        body: that was decoded and checked.
        observations: that it holds, of one length.
    """
    if not observations or len(body) > _REST + _LONGEST_NUMBER * len(observations) * len(observations[0]):
        return observations
    return _MANY.decode(body).observations
