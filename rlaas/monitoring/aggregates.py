"""One-second means of what was decided and of what came of it, from rows of ``bronze``.

Streams are ``observation.<i>``, ``action.<i>`` (for a discrete action ``action.is_<k>``, the share of each action) and
``outcome.<objective>``. Decisions count in the second in which they were made, outcomes in that in which they arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["MOST_ACTIONS", "WAIT_S", "Seconds", "decision_streams", "flat_lists", "outcome_streams", "stream_kind"]

FloatArray = NDArray[np.float64]
Sums = dict[str, tuple[float, float]]

MOST_ACTIONS = 64
"""Discrete actions with a stream each; what lies beyond shares none."""
WAIT_S = 10
"""Seconds that decisions wait for the outcomes of the same second, or these for them, to be in the lake."""
_US = 1_000_000
_PREFIXES = {"observation": "input", "action": "action", "outcome": "outcome"}


def stream_kind(stream: str) -> str:
    """``input``, ``action`` or ``outcome``."""
    return _PREFIXES[stream.split(".", 1)[0]]


def flat_lists(column: pa.ChunkedArray) -> FloatArray | None:
    """Lists of equal length as an array [n, width]; None where they differ in length or there are none."""
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    if not len(lists) or lists.null_count:
        return None
    widths = np.diff(lists.offsets.to_numpy())
    if not widths[0] or np.any(widths != widths[0]):
        return None
    values: FloatArray = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), int(widths[0]))


def decision_streams(rows: pa.Table, *, discrete: bool | None = None) -> dict[str, FloatArray]:
    """Values [n] by stream of decisions, which all have the same width.

    Args:
        rows: of ``bronze.decisions``; those of another width than the most are not to be among them.
        discrete: whether the one element of an action is its index; None: it is if every one is a whole number.
    """
    found: dict[str, FloatArray] = {}
    observation, action = flat_lists(rows["observation"]), flat_lists(rows["action"])
    if observation is not None:
        found |= {f"observation.{i}": observation[:, i] for i in range(observation.shape[1])}
    if action is None:
        return found
    whole = action.shape[1] == 1 and bool(np.all((action == np.floor(action)) & (action >= 0)))
    if whole if discrete is None else discrete:
        index = action[:, 0]
        for k in range(int(min(index.max(), MOST_ACTIONS - 1)) + 1):
            found[f"action.is_{k}"] = (index == k).astype(np.float64)
    else:
        found |= {f"action.{i}": action[:, i] for i in range(action.shape[1])}
    return found


def outcome_streams(rows: pa.Table) -> dict[str, FloatArray]:
    """Values [n] by stream of rows with an ``outcome``, NaN where it does not name the objective."""
    maps = rows["outcome"].combine_chunks()
    if isinstance(maps, pa.ChunkedArray):
        maps = pa.concat_arrays(maps.chunks)
    widths = np.diff(maps.offsets.to_numpy()) if len(maps) else np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(maps)), widths)
    keys = np.array(maps.keys.to_pylist() if len(maps) else [], dtype=object)
    items = maps.items.to_numpy(zero_copy_only=False) if len(maps) else np.zeros(0)
    found: dict[str, FloatArray] = {}
    for name in sorted(set(keys.tolist())):
        values = np.full(len(maps), np.nan)
        mine = keys == name
        values[owner[mine]] = items[mine]
        found[f"outcome.{name}"] = values
    return found


@dataclass(slots=True)
class Seconds:
    """Sums by second and stream of what has come in and is not done with.

    Attributes:
        sums: by UTC second, then by stream: sum and count.
        closed: last second that was handed out; what comes later for it, or for one before, is too late.
        late: records that came too late.
        newest_of: by table the newest second that was seen of it.
    """

    sums: dict[int, Sums] = field(default_factory=dict)
    closed: int = -1
    late: int = 0
    newest_of: dict[str, int] = field(default_factory=dict)

    @property
    def newest(self) -> int:
        """Newest second up to which every table has come, but for one that is far behind or holds nothing; -1: none."""
        first = max(self.newest_of.values(), default=-1)
        return min((one for one in self.newest_of.values() if first - one <= WAIT_S), default=-1)

    def add(self, time_us: NDArray[np.int64], values: Mapping[str, FloatArray], *, table: str = "") -> None:
        """Take in records of a table at times [n], with a value [n] for each stream; a NaN is no value."""
        if not len(time_us):
            return
        seconds = time_us // _US
        self.newest_of[table] = max(self.newest_of.get(table, -1), int(seconds.max()))
        good = seconds > self.closed
        self.late += int(len(seconds) - good.sum())
        if not good.any():
            return
        different, places = np.unique(seconds[good], return_inverse=True)
        for stream, column in values.items():
            x = column[good]
            there = np.isfinite(x)
            total = np.bincount(places[there], x[there], len(different))
            count = np.bincount(places[there], minlength=len(different))
            for second, one, n in zip(different.tolist(), total.tolist(), count.tolist(), strict=True):
                if n:
                    sums = self.sums.setdefault(second, {})
                    before = sums.get(stream, (0.0, 0.0))
                    sums[stream] = (before[0] + one, before[1] + n)

    def close(self, until: int, streams: Iterable[str]) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Hand out the seconds up to ``until`` in which something happened: seconds [n], means and counts [n, streams].

        They are not taken in again.
        """
        names = tuple(streams)
        ready = sorted(second for second in self.sums if second <= until)
        means = np.full((len(ready), len(names)), np.nan)
        counts = np.zeros((len(ready), len(names)))
        for row, second in enumerate(ready):
            sums = self.sums.pop(second)
            for column, name in enumerate(names):
                total, count = sums.get(name, (0.0, 0.0))
                if count:
                    means[row, column], counts[row, column] = total / count, count
        self.closed = max(self.closed, until)
        return np.array(ready, dtype=np.int64), means, counts

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return {
            "sums": {str(second): {k: list(v) for k, v in sums.items()} for second, sums in self.sums.items()},
            "closed": self.closed,
            "late": self.late,
            "newest_of": dict(self.newest_of),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> Seconds:
        """What :meth:`to_dict` gave."""
        sums = document["sums"]
        assert isinstance(sums, dict)
        kept = {int(s): {k: (float(v[0]), float(v[1])) for k, v in one.items()} for s, one in sums.items()}
        closed, late = (int(str(document[name])) for name in ("closed", "late"))
        newest_of = document["newest_of"]
        assert isinstance(newest_of, dict)
        return cls(kept, closed, late, {str(table): int(second) for table, second in newest_of.items()})
