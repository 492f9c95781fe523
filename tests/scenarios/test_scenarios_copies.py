"""Copies of environments: laid out like the original, and they step to the same bits."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlaas import scenarios
from rlaas.scenarios.apart import arrays_apart, is_apart, separate, set_apart

GUARD = 4096
WAYS: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


def test_what_separate_returns_is_apart_and_what_it_is_made_of_is_not() -> None:
    array = separate((3, 4), np.float32, 2)
    assert is_apart(array)
    assert is_apart(separate((2, 0)))
    for other in (
        array.copy(),
        array[1:],
        array[:, :3],
        np.zeros(9000, dtype=np.uint8)[4096:],
        array.base,
        [1.0],
        None,
    ):
        assert not is_apart(other)


def test_what_is_held_twice_stays_one_and_what_is_apart_stays() -> None:
    plain, far = np.arange(3.0), separate(3)
    pair = (plain, far)
    owner = SimpleNamespace(pair=pair, again=(pair, 1), listed=[plain], named={"a": plain}, other=np.arange(3.0))
    other = owner.other
    set_apart(owner, [plain, far])
    new = owner.pair[0]
    assert is_apart(new)
    np.testing.assert_array_equal(new, plain)
    assert owner.pair[1] is far
    assert owner.again[0] is owner.pair
    assert owner.listed[0] is new
    assert owner.named["a"] is new
    assert owner.other is other
    assert {id(array) for array in arrays_apart(owner)} == {id(new), id(far)}


@pytest.fixture(params=[("network5g", {}), ("recsys", {"items": 300})], ids=str)
def env(request: pytest.FixtureRequest) -> Any:
    name, options = request.param
    env = scenarios.load(name, **options).vector_env(3, seed=5)
    env.reset(seed=5)
    return env


def _steps(env: Any, count: int, seed: int) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [array.copy() for _ in range(count) for array in env.step(env.action_space.sample())[:4]]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_laid_out_like_the_original_and_steps_to_the_same_bits(env: Any, way: str) -> None:
    _steps(env, 9, seed=1)
    again = WAYS[way](env)
    mine, theirs = arrays_apart(env), arrays_apart(again)
    assert len(mine) > 20
    assert [(a.shape, a.dtype) for a in theirs] == [(a.shape, a.dtype) for a in mine]
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.shares_memory(a, b)
        # NumPy does not say where an array without elements lies.
        assert not b.size or b.ctypes.data % 64 == 0
    # Far from each other, whatever the heap says.
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in theirs if a.size)
    assert all(start - end >= 2 * GUARD for (_, end), (start, _) in pairwise(spans))
    before = env.get_state()
    first = _steps(again, 12, seed=2)
    for name, value in env.get_state().items():
        np.testing.assert_equal(value, before[name], err_msg=f"{name}: stepping the copy moved the original")
    for a, b in zip(first, _steps(env, 12, seed=2), strict=True):
        assert a.tobytes() == b.tobytes()
    # A copy of a copy, and one that starts anew.
    last = WAYS[way](again)
    assert len(arrays_apart(last)) == len(mine)
    assert last.reset(seed=8)[0].tobytes() == env.reset(seed=8)[0].tobytes()


def test_a_shallow_copy_leaves_the_original_as_it_is(env: Any) -> None:
    before = arrays_apart(env)
    copy.copy(env)
    assert all(a is b for a, b in zip(before, arrays_apart(env), strict=True))
