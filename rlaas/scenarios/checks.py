"""Checks that every scenario's environments share: seeds, numbers of environments, arrays of numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import InvalidInputError, shown

__all__ = [
    "LARGEST_BATCH",
    "available_bytes",
    "check_count",
    "check_environment",
    "check_num_envs",
    "check_seed",
    "check_seeds",
    "is_number",
    "is_whole",
    "numbers",
    "seed_list",
]

LARGEST_BATCH = 10_000_000
"""Most environments stepped together."""


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number by its type: no bool, no float that happens to be whole."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a real number by its type: no bool, no complex."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def seed_list(seed: int | Sequence[int] | None, environments: int) -> list[int]:
    """One seed per environment: a sequence as it stands, an integer spread so that environment i is always the same.

    Raises:
        InvalidInputError: a sequence of another length, or anything but whole numbers >= 0.
    """
    if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str | bytes | bytearray | memoryview):
        if isinstance(seed, np.ndarray) and seed.ndim == 0:
            return seed_list(seed[()], environments)
        seeds = [_seed(s) for s in seed]
        if len(seeds) != environments:
            raise InvalidInputError(f"seed has {len(seeds)} entries; expected {environments}", field="seed")
        return seeds
    root = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else _seed(seed)
    # Environment 0 keeps the seed itself, so that a single environment and a batch's first agree.
    return [root, *(int(c.generate_state(1)[0]) for c in np.random.SeedSequence(root).spawn(environments)[1:])]


def check_seed(seed: Any) -> None:
    """Refuse what cannot seed a single environment: anything but a whole number >= 0 or None.

    Raises:
        InvalidInputError: names ``seed``.
    """
    if seed is not None:
        _seed(seed)


def _seed(value: Any) -> int:
    if not is_whole(value) or value < 0:
        raise InvalidInputError(
            f"seed must be a whole number >= 0, one of them per environment, or None, got {shown(value)}", field="seed"
        )
    return int(value)


def check_num_envs(num_envs: Any) -> int:
    """The number of environments, if there can be so many.

    Raises:
        InvalidInputError: no whole number from 1 to :data:`LARGEST_BATCH`.
    """
    if not is_whole(num_envs) or num_envs < 1:
        raise InvalidInputError(f"num_envs must be a whole number >= 1, got {shown(num_envs)}", field="num_envs")
    if num_envs > LARGEST_BATCH:
        raise InvalidInputError(f"num_envs must be at most {LARGEST_BATCH}, got {shown(num_envs)}", field="num_envs")
    return int(num_envs)


def check_count(field: str, value: Any, least: int) -> int:
    """A whole number that is large enough.

    Raises:
        InvalidInputError: names the field.
    """
    if not is_whole(value) or value < least:
        raise InvalidInputError(f"{field} must be a whole number >= {least}, got {shown(value)}", field=field)
    return int(value)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Seeds to evaluate on, each a world of its own.

    Raises:
        InvalidInputError: none, anything but whole numbers >= 0, or one of them twice.
    """
    if isinstance(seeds, np.ndarray) and seeds.ndim == 1:
        seeds = list(seeds)
    if isinstance(seeds, str | bytes | bytearray | memoryview) or not isinstance(seeds, Sequence):
        raise InvalidInputError(f"seeds must be a list of whole numbers >= 0, got {shown(seeds)}", field="seeds")
    if not seeds:
        raise InvalidInputError("seeds must hold at least one seed, got none", field="seeds")
    for i, seed in enumerate(seeds):
        if not is_whole(seed) or seed < 0:
            raise InvalidInputError(f"seeds[{i}] must be a whole number >= 0, got {shown(seed)}", field="seeds")
    chosen = tuple(int(seed) for seed in seeds)
    if len(set(chosen)) < len(chosen):
        # One world seen twice would make every interval narrower than it is.
        twice = next(seed for i, seed in enumerate(chosen) if seed in chosen[:i])
        raise InvalidInputError(f"seeds must differ from each other, got {twice} more than once", field="seeds")
    return chosen


def check_environment(environment: Any, environments: int) -> int:
    """The index of one environment of several.

    Raises:
        InvalidInputError: there is no such environment.
    """
    if not is_whole(environment) or not 0 <= environment < environments:
        raise InvalidInputError(
            f"environment must be from 0 to {environments - 1}, got {shown(environment)}", field="environment"
        )
    return int(environment)


def available_bytes() -> int:
    """Memory that this process could ever have: the machine's, or less where a container has a limit."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            limit = min(limit, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):
            # No such limit: another kind of machine, or the word max.
            continue
    return limit


def numbers(values: Any, field: str) -> NDArray[Any]:
    """The values as an array of real numbers; one of float32 or float64 as it stands.

    Raises:
        InvalidInputError: ragged, masked, or of anything but integers and floats; names ``field``.
    """
    if type(values) is np.ndarray and values.dtype.char in "fd":
        return values
    if isinstance(values, np.ma.MaskedArray):
        raise InvalidInputError(f"{field} is not an array of numbers: it is masked; fill it first", field=field)
    try:
        array = np.asarray(values)
    except Exception as problem:  # other libraries' arrays raise whatever they like when they cannot be converted
        reason = " ".join(str(problem).split())[:120]
        raise InvalidInputError(f"{field} is not an array of numbers: {reason}", field=field) from problem
    if array.dtype.kind not in "fiu":
        raise InvalidInputError(
            f"{field} is not an array of numbers but of {array.dtype}; allowed: floats or integers", field=field
        )
    return array
