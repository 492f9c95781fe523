import math
import time
from threading import Event, Timer

import numpy as np
import pytest
from numba import njit
from numpy.random import Philox
from scipy import stats

from rlaas.errors import ConfigurationError
from rlaas.scenarios.compiled import (
    Workers,
    circle,
    claim,
    environment_key,
    exp2,
    fetch_ahead,
    linear_to_db,
    log2,
    normal_pair,
    region,
    sigmoid,
    uniforms,
)
from rlaas.scenarios.compiled.rng import philox_words

load_x, _ = region(0)
load_y, _ = region(1)
_, store_out = region(2)

# Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
KNOWN = (
    ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "wanted"), KNOWN)
def test_philox_gives_the_published_words(counter, key, wanted):
    out = np.zeros((1, 4), dtype=np.uint64)
    philox_words(np.uint64(key), np.array([counter], dtype=np.uint64), out)
    assert tuple(int(w) for w in out[0]) == wanted


@njit
def _many(key, steps, out):
    for s in range(steps):
        for i in range(out.shape[1]):
            out[s, i, 0], out[s, i, 1], out[s, i, 2], out[s, i, 3] = uniforms(key, s, 1, i)


def test_uniform_numbers_are_uniform_and_independent_between_steps_and_indices():
    out = np.zeros((200, 50, 4), dtype=np.float32)
    _many(environment_key(3), 200, out)
    assert out.min() >= 0.0
    assert out.max() < 1.0
    assert stats.kstest(out.ravel(), "uniform").pvalue > 1e-3
    centred = out.astype(np.float64) - 0.5
    for a, b in ((centred[:-1], centred[1:]), (centred[:, :-1], centred[:, 1:]), (centred[..., :3], centred[..., 1:])):
        assert abs((a * b).mean() * 12) < 5 / math.sqrt(a.size)
    assert environment_key(3) != environment_key(4)


@njit
def _apply(x, y, out):
    for i in range(len(x)):
        out[i, 0] = exp2(x[i])
        out[i, 1] = log2(y[i])
        out[i, 2] = linear_to_db(y[i])
        out[i, 3] = sigmoid(x[i])


def test_exponentials_and_logarithms_agree_with_numpy_to_float32():
    x = np.linspace(-120, 120, 20001, dtype=np.float32)
    y = np.logspace(-30, 30, 20001).astype(np.float32)
    out = np.zeros((len(x), 4), dtype=np.float32)
    _apply(x, y, out)
    np.testing.assert_allclose(out[:, 0], np.exp2(x.astype(np.float64)), rtol=3e-7)
    np.testing.assert_allclose(out[:, 1], np.log2(y.astype(np.float64)), rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(out[:, 2], 10 * np.log10(y.astype(np.float64)), rtol=5e-7, atol=1e-6)
    np.testing.assert_allclose(out[:, 3], 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-5, atol=1e-37)
    one = np.ones(1, dtype=np.float32)
    _apply(0 * one, one, out[:1])
    assert out[0, 0] == 1.0
    assert out[0, 1] == 0.0


@njit
def _normals(u, out):
    for i in range(len(u)):
        out[i, 0], out[i, 1] = normal_pair(u[i, 0], u[i, 1])


def test_normal_numbers_are_normal():
    u = np.random.Generator(Philox(5)).random((40_000, 2), dtype=np.float32)
    u[0] = 0.0
    out = np.zeros_like(u)
    _normals(u, out)
    assert np.isfinite(out).all()
    assert stats.kstest(out.ravel(), "norm").pvalue > 1e-3


@njit(nogil=True)
def _count_claims(worker, tickets, seen, by):
    first, last = claim(tickets)
    while first < last:
        for e in range(first, last):
            seen[e] += 1
            by[e] = worker
        first, last = claim(tickets)


@pytest.mark.parametrize("environments", [1, 7, 8, 100, 1003])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_workers_cover_every_environment_once_whatever_the_threads(environments, threads):
    workers = Workers(environments, threads)
    seen, by = np.zeros(environments, dtype=np.int64), np.zeros(environments, dtype=np.int64)
    for _ in range(300):
        workers.run(_count_claims, seen, by)
    assert (seen == 300).all()
    assert set(by) <= set(range(workers.count))


def test_a_thread_that_is_late_leaves_its_share_to_the_others():
    late, workers, done = Event(), Workers(100, 2), []

    def kernel(worker, tickets, seen):
        if worker == 1:
            late.wait()
        _count_claims(worker, tickets, seen, np.zeros(100, dtype=np.int64))
        done.append(worker)
        late.set()

    seen = np.zeros(100, dtype=np.int64)
    workers.run(kernel, seen)
    assert (seen == 1).all()
    assert done[0] == 0


def test_an_error_in_a_thread_is_not_lost():
    begun = Event()

    def kernel(worker, tickets):
        if worker == 2:
            begun.set()
            raise ZeroDivisionError("run")
        begun.wait()

    workers = Workers(100, 3)
    for _ in range(3):
        begun.clear()
        with pytest.raises(ZeroDivisionError, match="run"):
            workers.run(kernel)


def test_an_interrupted_run_leaves_nobody_at_work():
    release, working, workers = Event(), [], Workers(100, 2)

    def kernel(worker, tickets):
        if worker == 1:
            working.append(True)
            release.wait()
            working.clear()
            return
        while not working:
            time.sleep(0.001)
        Timer(0.2, release.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.run(kernel)
    assert not working
    seen = np.zeros(100, dtype=np.int64)
    workers.run(_count_claims, seen, np.zeros(100, dtype=np.int64))
    assert (seen == 1).all()


@njit
def _add(x, y, out):
    for row in range(out.shape[0]):
        for block in range(0, out.shape[1], 8):
            for j in range(block, block + 8):
                store_out(out, row, j, load_x(x, row, j) + load_y(y, row, j))


def test_regions_are_arrays_like_any_other():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 5, 24)).astype(np.float32)
    out = np.zeros_like(x)
    _add(x, y, out)
    np.testing.assert_array_equal(out, x + y)


@njit
def _fetch(array, row):
    fetch_ahead(array, row)


def test_fetching_ahead_reads_nothing_beyond_the_end():
    for array in (np.zeros((3, 7)), np.zeros(3, dtype=[("a", "f8", (50,))]), np.zeros((3, 0))):
        for row in (0, 2, 3, 10**9):
            _fetch(array, row)
        assert not array.view(np.float64).any()


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_a_wrong_number_of_threads_is_refused_by_name(threads):
    with pytest.raises(ConfigurationError, match="threads must be a whole number >= 1"):
        Workers(10, threads)


def test_circle_is_cosine_and_sine() -> None:
    turns = np.random.default_rng(4).uniform(-3, 3, 5000).astype(np.float32)
    got = np.array([circle(x) for x in np.append(turns, np.float32([0, 0.25, 0.5, 0.75, 1]))])
    angle = 2 * np.pi * np.append(turns, [0, 0.25, 0.5, 0.75, 1]).astype(np.float64)
    np.testing.assert_allclose(got[:, 0], np.cos(angle), atol=5e-7)
    np.testing.assert_allclose(got[:, 1], np.sin(angle), atol=5e-7)
