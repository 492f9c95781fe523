"""Keeps the online store in step with the sources: what changed in a source since last time is fed to the states.

Values, states and the position in the source change in one transaction: a process that is killed anywhere leaves either
all of the step or nothing of it. A value follows from the set of its entity's events (:mod:`.kernels`), so it does not
matter in how many steps, or in which order, they came.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from rlaas.errors import RetryableError, RlaasError
from rlaas.lake.features.events import EntityCodes, EventReader, Events
from rlaas.lake.features.sources import Change, SourceMovedError, SourceState, open_source
from rlaas.lake.features.states import FeatureState
from rlaas.lake.features.store import FeatureStore, FeatureVersion, StoredValue
from rlaas.lake.tables import Lake

__all__ = ["Materialized", "materialize"]

_ATTEMPTS = 5
_TOGETHER = 1 << 19
"""Events that are fed at once: an entity's state is read and written once for them."""


@dataclass(frozen=True, slots=True)
class Materialized:
    """What one step did for a feature.

    Attributes:
        feature: ``name@version``.
        events: that were fed.
        entities: whose values were written.
        rebuilt: everything was read again.
    """

    feature: str
    events: int
    entities: int
    rebuilt: bool


class _OvertakenError(Exception):
    """Another process brought the same features further meanwhile."""


def materialize(
    store: FeatureStore, lake: Lake, features: Sequence[FeatureVersion] | None = None
) -> list[Materialized]:
    """Bring online values to what their sources hold now; a source that cannot be read holds up its own features only.

    Args:
        store: of the values.
        lake: of the sources.
        features: which; default the newest version of every feature, and older ones that were brought here before.

    Raises:
        RlaasError: of the first source that could not be read, once the others were:
        ConfigurationError: it lacks a column.
        NotFoundError: it is gone.
        LakeError: it is damaged.
        RetryableError: other processes were faster again and again.
    """
    if features is None:
        known = store.progress()
        newest = {one.key for one in store.newest()}
        features = [one for one in store.features() if one.key in newest or one.key in known]
    done: list[Materialized] = []
    by_source: dict[str, list[FeatureVersion]] = {}
    for one in features:
        by_source.setdefault(one.definition.source.model_dump_json(), []).append(one)
    problems: list[RlaasError] = []
    for group in by_source.values():
        try:
            done += _brought(store, lake, group)
        except RlaasError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]
    return done


def _brought(store: FeatureStore, lake: Lake, group: Sequence[FeatureVersion]) -> list[Materialized]:
    for attempt in range(_ATTEMPTS):
        try:
            return _bring(store, lake, group)
        except (_OvertakenError, SourceMovedError) as problem:
            if attempt == _ATTEMPTS - 1:
                raise RetryableError(
                    f"{group[0].key}: values or source were changed by others {_ATTEMPTS} times; try again"
                ) from problem
    raise AssertionError("unreachable: the last attempt returns or raises")


def _bring(store: FeatureStore, lake: Lake, group: Sequence[FeatureVersion]) -> list[Materialized]:
    """All features of one source; those that stand at the same place are brought together."""
    progress = store.progress()
    state = open_source(group[0].definition.source, lake)
    by_token: dict[str | None, list[FeatureVersion]] = {}
    for one in group:
        known = progress.get(one.key)
        by_token.setdefault(None if known is None else known.token, []).append(one)
    done: list[Materialized] = []
    for token, members in by_token.items():
        if token == state.token:
            done += [Materialized(one.key, 0, 0, False) for one in members]
            continue
        change = None if token is None else state.since(token)
        try:
            done += _Step(store, state, members, token).run(change)
        except SourceMovedError:
            if change is None:
                raise
            # Of an older state, vacuumed away: its rows cannot be told from the new ones.
            done += _Step(store, state, members, token).run(None)
    return done


class _Step:
    """One transaction.

    Args:
        store: to write to.
        state: of the source.
        members: features that stand at the same place in it.
        token: that place; None: they have no values yet.
    """

    def __init__(
        self, store: FeatureStore, state: SourceState, members: Sequence[FeatureVersion], token: str | None
    ) -> None:
        self._store, self._state, self._members, self._token = store, state, members, token
        self._reader = EventReader([one.definition for one in members])
        self._codes = EntityCodes()
        self._fed = np.zeros(len(members), np.int64)
        self._written: list[set[str]] = [set() for _ in members]

    def run(self, change: Change | None) -> list[Materialized]:
        """Feed what changed; everything where that is not known.

        Raises:
            _OvertakenError: another process was faster.
        """
        with self._store.begin() as connection:
            for one in self._members:
                if not self._store.claim(connection, one.key, self._token, self._state.token):
                    raise _OvertakenError
            if change is None:
                for one in self._members:
                    self._store.clear(connection, one.key)
                self._feed(connection, self._read(self._state.dataset))
            elif change.removed is None:
                self._feed(connection, self._read(change.added))
            else:
                self._feed_difference(connection, change)
        return [
            Materialized(one.key, int(fed), len(written), change is None)
            for one, fed, written in zip(self._members, self._fed, self._written, strict=True)
        ]

    def _read(self, dataset: object) -> Iterator[Events]:
        for table in self._state.read(dataset, self._reader.columns):
            yield self._reader.events(table)

    def _feed_difference(self, connection: Connection, change: Change) -> None:
        """Files were rewritten: feed the rows that are new; entities that lost one are fed from the beginning."""
        old = _joined(self._read(change.removed), len(self._members))
        new = _joined(self._read(change.added), len(self._members))
        fresh, lost = _difference(old, new, self._codes)
        names = self._codes.names()
        changed = sorted({names[code] for code in np.unique(lost)})
        if changed:
            for one in self._members:
                self._store.clear(connection, one.key, changed)
            those = pa.array(changed, pa.string())
            everything = self._read(self._state.dataset)
            self._feed(connection, (_where(part, pc.is_in(part.entities, value_set=those)) for part in everything))
            fresh = _where(fresh, pc.invert(pc.is_in(fresh.entities, value_set=those)))
        self._feed(connection, [fresh])

    def _feed(self, connection: Connection, parts: Iterable[Events]) -> None:
        for together in _gathered(parts, len(self._members)):
            codes = self._codes.of(together.entities)
            order = np.lexsort((together.times, together.available, codes))
            codes = codes[order]
            bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
            names = self._codes.names()
            available, times = together.available[order], together.times[order]
            for place, one in enumerate(self._members):
                values = together.values[place][order]
                spans = [
                    (names[codes[start]], int(start), int(end)) for start, end in itertools.pairwise(bounds.tolist())
                ]
                self._feed_one(connection, place, one, spans, (available, times, values))

    def _feed_one(
        self,
        connection: Connection,
        place: int,
        one: FeatureVersion,
        spans: Sequence[tuple[str, int, int]],
        columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    ) -> None:
        available, times, fed = columns
        counts = ~np.isnan(fed)
        spans = [span for span in spans if counts[span[1] : span[2]].any()]
        before = self._store.states(connection, one.key, [name for name, _, _ in spans])
        values: dict[str, StoredValue] = {}
        states: dict[str, bytes] = {}
        for name, start, end in spans:
            state = FeatureState(one.definition, before.get(name))
            state.feed(available[start:end], times[start:end], fed[start:end])
            values[name] = StoredValue(state.value, state.time_us, state.known_us)
            states[name] = state.encoded()
        self._store.write(connection, one.key, values, states)
        self._fed[place] += int(counts.sum())
        self._written[place] |= values.keys()


def _gathered(parts: Iterable[Events], features: int) -> Iterator[Events]:
    """Parts put together until they are worth a turn."""
    waiting: list[Events] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= _TOGETHER:
            yield _joined(waiting, features)
            waiting = []
    if any(map(len, waiting)):
        yield _joined(waiting, features)


def _joined(parts: Iterable[Events], features: int) -> Events:
    found = list(parts)
    if not found:
        nothing = np.empty(0, np.int64)
        return Events(pa.array([], pa.string()), nothing, nothing, np.empty((features, 0)))
    return Events(
        pa.concat_arrays([part.entities for part in found]),
        np.concatenate([part.available for part in found]),
        np.concatenate([part.times for part in found]),
        np.concatenate([part.values for part in found], axis=1),
    )


def _where(events: Events, mask: pa.Array) -> Events:
    keep = mask.to_numpy(zero_copy_only=False)
    return Events(events.entities.filter(mask), events.available[keep], events.times[keep], events.values[:, keep])


def _difference(old: Events, new: Events, codes: EntityCodes) -> tuple[Events, NDArray[np.int64]]:
    """Rows of ``new`` that ``old`` lacks, counted; and the codes of the entities of those that ``new`` lacks."""
    counted: list[NDArray[np.int64]] = []
    for part in (old, new):
        values = np.ascontiguousarray(part.values.T)
        columns = [codes.of(part.entities)[:, None], part.available[:, None], part.times[:, None]]
        counted.append(np.concatenate([*columns, values.view(np.int64)], axis=1))
    rows = np.concatenate(counted)
    _, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    n_old = len(old)
    balance = np.bincount(group[n_old:], minlength=group.max(initial=-1) + 1) - np.bincount(
        group[:n_old], minlength=group.max(initial=-1) + 1
    )
    lost = rows[:n_old, 0][balance[group[:n_old]] < 0]
    # Of equal rows the last ones are the new ones; which of them makes no difference.
    order = np.argsort(group[n_old:], kind="stable")
    sorted_groups = group[n_old:][order]
    starts = np.searchsorted(sorted_groups, sorted_groups, side="left")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts
    fresh = rank < balance[group[n_old:]]
    return _where(new, pa.array(fresh)), lost
