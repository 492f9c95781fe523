"""The compiled heart of the features: one state machine that both stores are computed with.

An event is (available, time, value): when it could first be used here, when it happened, and its value; all times are
UTC microseconds. Events of an entity are fed in the order in which they became available. A value is a function of the
*set* of events fed so far, and of nothing else: sums are exact (kept as non-overlapping doubles and rounded once;
Shewchuk, "Adaptive precision floating-point arithmetic", 1997, as in Python's ``math.fsum``), and of events at one time
the later known one is the last. So neither batches nor late events nor the order of arrival leave a trace in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["FLOATS", "INTS", "KINDS", "advance", "as_of", "feature_log", "fresh_state", "order_by"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

KINDS = {"last": 0, "count": 1, "sum": 2, "mean": 3, "min": 4, "max": 5}
_LAST, _COUNT, _SUM, _MEAN, _MIN, _MAX = range(6)

INTS = 6
_HEAD, _HEAD_KNOWN, _KNOWN, _COUNTED, _PARTIALS, _LENGTH = range(INTS)
"""Time of the newest event, when that was known, when the latest known one was, number of events that count, of
partial sums, and of events in the buffer."""

FLOATS = 64
"""The first is the last value or the extreme; behind it the partial sums, of which exponents of doubles allow 40."""

_ENOUGH_MOVES = 32
_NEVER = np.iinfo(np.int64).min


Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    """Numba's, with the type that it hides."""
    return cast("Function", njit(cache=True, nogil=True)(function))


def fresh_state() -> tuple[Ints, Floats]:
    """The state before the first event."""
    ints, floats = np.zeros(INTS, np.int64), np.zeros(FLOATS)
    ints[[_HEAD, _HEAD_KNOWN, _KNOWN]] = _NEVER
    return ints, floats


@_compiled
def _add(floats: Any, n: Any, x: Any) -> Any:
    """Add ``x`` to ``n`` partial sums exactly; their new number."""
    kept = 0
    for j in range(n):
        y = floats[1 + j]
        if abs(x) < abs(y):
            x, y = y, x
        high = x + y
        low = y - (high - x)
        if low != 0.0:
            floats[1 + kept] = low
            kept += 1
        x = high
    floats[1 + kept] = x
    return kept + 1


@_compiled
def _total(floats: Any, n: Any) -> Any:
    """The sum of the partial sums, rounded once, to even."""
    if n == 0:
        return 0.0
    k = n
    high = floats[k]
    low = 0.0
    while k > 1:
        x = high
        k -= 1
        y = floats[k]
        high = x + y
        low = y - (high - x)
        if low != 0.0:
            break
    if k > 1 and ((low < 0.0 and floats[k - 1] < 0.0) or (low > 0.0 and floats[k - 1] > 0.0)):
        y = low * 2.0
        x = high + y
        if y == x - high:
            high = x
    return high + 0.0


@_compiled
def _beats(kind: Any, value: Any, other: Any) -> Any:
    return value < other if kind == _MIN else value > other


@_compiled
def _extreme(kind: Any, values: Any, start: Any, end: Any) -> Any:
    found = values[start]
    for j in range(start + 1, end):
        if _beats(kind, values[j], found):
            found = values[j]
    return found


@_compiled
def advance(
    kind: Any,
    window_us: Any,
    available: Any,
    times: Any,
    values: Any,
    first: Any,
    end: Any,
    ints: Any,
    floats: Any,
    buffer_times: Any,
    buffer_values: Any,
    out_values: Any,
    out_times: Any,
) -> Any:
    """Feed events [first, end) of one entity; what is not a number does not count.

    Args:
        kind: of :data:`KINDS`.
        window_us: events of the last microseconds before the newest count, (newest - window, newest]; -1: all.
        available, times, values: of the events [n].
        first, end: which of them.
        ints, floats: state, changed in place; see :func:`fresh_state`.
        buffer_times, buffer_values: events of the window by time, from 0 to the length in the state.
        out_values, out_times: value behind each event (NaN: none yet) and the time of the newest one [n].

    Returns:
        The buffers, which may have had to grow.
    """
    start = 0
    length = ints[_LENGTH]
    windowed = window_us >= 0
    extremal = kind in (_MIN, _MAX)
    additive = kind in (_SUM, _MEAN)
    for i in range(first, end):
        v = values[i]
        t = times[i]
        if not np.isnan(v):
            v += 0.0  # one zero
            ints[_KNOWN] = max(ints[_KNOWN], available[i])
            if t > ints[_HEAD]:
                ints[_HEAD] = t
                ints[_HEAD_KNOWN] = available[i]
                if kind == _LAST:
                    floats[0] = v
            elif t == ints[_HEAD] and kind == _LAST:
                a = ints[_HEAD_KNOWN]
                if available[i] > a or (available[i] == a and v > floats[0]):
                    ints[_HEAD_KNOWN] = available[i]
                    floats[0] = v
            if windowed:
                limit = ints[_HEAD] - window_us
                lost = False
                while length > 0 and buffer_times[start] <= limit:
                    gone = buffer_values[start]
                    start += 1
                    length -= 1
                    if additive:
                        ints[_PARTIALS] = _add(floats, ints[_PARTIALS], -gone)
                    elif extremal and gone == floats[0]:
                        lost = True
                if t > limit:
                    if start + length == len(buffer_times):
                        if start < len(buffer_times) // 2 or start == 0:
                            size = max(16, 2 * len(buffer_times))
                            more_times, more_values = np.empty(size, np.int64), np.empty(size)
                        else:
                            more_times, more_values = buffer_times, buffer_values
                        for j in range(length):
                            more_times[j] = buffer_times[start + j]
                            more_values[j] = buffer_values[start + j]
                        buffer_times, buffer_values = more_times, more_values
                        start = 0
                    place = start + length
                    while place > start and buffer_times[place - 1] > t:
                        buffer_times[place] = buffer_times[place - 1]
                        buffer_values[place] = buffer_values[place - 1]
                        place -= 1
                    buffer_times[place] = t
                    buffer_values[place] = v
                    length += 1
                    if additive:
                        ints[_PARTIALS] = _add(floats, ints[_PARTIALS], v)
                    elif extremal and not lost and (length == 1 or _beats(kind, v, floats[0])):
                        floats[0] = v
                if lost and length > 0:
                    floats[0] = _extreme(kind, buffer_values, start, start + length)
                ints[_COUNTED] = length
            else:
                ints[_COUNTED] += 1
                if additive:
                    ints[_PARTIALS] = _add(floats, ints[_PARTIALS], v)
                elif extremal and (ints[_COUNTED] == 1 or _beats(kind, v, floats[0])):
                    floats[0] = v
        out_times[i] = ints[_HEAD]
        if ints[_COUNTED] == 0:
            out_values[i] = np.nan
        elif kind == _COUNT:
            out_values[i] = ints[_COUNTED]
        elif kind == _SUM:
            out_values[i] = _total(floats, ints[_PARTIALS])
        elif kind == _MEAN:
            out_values[i] = _total(floats, ints[_PARTIALS]) / ints[_COUNTED]
        else:
            out_values[i] = floats[0]
    if start > 0:
        for j in range(length):
            buffer_times[j] = buffer_times[start + j]
            buffer_values[j] = buffer_values[start + j]
    ints[_LENGTH] = length
    return buffer_times, buffer_values


@_compiled
def feature_log(kind: Any, window_us: Any, codes: Any, available: Any, times: Any, values: Any) -> Any:
    """Value behind each event and the time of the newest event then, of events sorted by (code, available, time).

    Args:
        kind, window_us: as of :func:`advance`.
        codes: entities [n].
        available, times, values: of the events [n].

    Returns:
        Values float64 [n] and times int64 [n].
    """
    n = len(codes)
    out_values, out_times = np.empty(n), np.empty(n, np.int64)
    ints, floats = np.zeros(INTS, np.int64), np.zeros(FLOATS)
    buffer_times, buffer_values = np.empty(16, np.int64), np.empty(16)
    first = 0
    while first < n:
        end = first + 1
        while end < n and codes[end] == codes[first]:
            end += 1
        ints[:] = 0
        ints[:_COUNTED] = _NEVER
        floats[0] = 0.0
        buffer_times, buffer_values = advance(
            kind,
            window_us,
            available,
            times,
            values,
            first,
            end,
            ints,
            floats,
            buffer_times,
            buffer_values,
            out_values,
            out_times,
        )
        first = end
    return out_values, out_times


@_compiled
def order_by(codes: Any, first: Any, second: Any) -> Any:
    """The order of rows by (code, first, second) int64 [n], equal ones as they came.

    Rows by code are put together by counting; within a code they mostly are in order already, or nearly.

    Args:
        codes: from -1 on, not much larger than [n].
        first, second: keys [n].
    """
    n = len(codes)
    if n == 0:
        return np.empty(0, np.int64)
    ends = np.zeros(codes.max() + 3, np.int64)
    for i in range(n):
        ends[codes[i] + 2] += 1
    for code in range(1, len(ends)):
        ends[code] += ends[code - 1]
    order = np.empty(n, np.int64)
    for i in range(n):
        place = codes[i] + 1
        order[ends[place]] = i
        ends[place] += 1
    start = 0
    for place in range(len(ends) - 1):
        end = ends[place]
        moves = _ENOUGH_MOVES * (end - start)
        for i in range(start + 1, end):
            row = order[i]
            a, b = first[row], second[row]
            j = i
            while j > start and (first[order[j - 1]] > a or (first[order[j - 1]] == a and second[order[j - 1]] > b)):
                order[j] = order[j - 1]
                j -= 1
            order[j] = row
            moves -= i - j
            if moves < 0:
                # Not nearly: what came before is in order, the rest as it came, so that sorting stably is right.
                part = order[start:end].copy()
                part = part[np.argsort(second[part], kind="mergesort")]
                order[start:end] = part[np.argsort(first[part], kind="mergesort")]
                break
        start = end
    return order


@_compiled
def as_of(
    codes: Any,
    available: Any,
    times: Any,
    values: Any,
    asked_codes: Any,
    asked_at: Any,
    ttl_us: Any,
    out: Any,
    rows: Any,
) -> Any:
    """For each question the newest value that was available and fresh then, written to ``out[rows]``.

    Args:
        codes, available, times, values: a feature's log [n], sorted by (code, available).
        asked_codes, asked_at: questions [m], sorted by (code, time); a code that has no events is -1.
        ttl_us: a value is fresh for so long after the newest event in it.
        out: to write to; NaN where there is no such value.
        rows: place in ``out`` of each question [m].

    Returns:
        Number of questions whose newest value was stale.
    """
    n = len(codes)
    i = 0
    stale = 0
    for j in range(len(asked_codes)):
        code, at = asked_codes[j], asked_at[j]
        while i < n and (codes[i] < code or (codes[i] == code and available[i] <= at)):
            i += 1
        out[rows[j]] = np.nan
        if i > 0 and codes[i - 1] == code and not np.isnan(values[i - 1]):
            if at - times[i - 1] <= ttl_us:
                out[rows[j]] = values[i - 1]
            else:
                stale += 1
    return stale
