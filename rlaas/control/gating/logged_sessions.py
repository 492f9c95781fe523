"""The sessions of the lake that a version is judged on: their decisions in order, from the first one on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlaas.bundles import BundlePolicy
from rlaas.control.gating.declaration import GateDeclaration
from rlaas.control.gating.logged import MOST_CELLS, MOST_ROWS, LoggedRows, columns_of, telling_days
from rlaas.errors import InvalidInputError
from rlaas.lake import Lake

__all__ = ["MOST_STEPS", "LoggedSessions", "read_sessions"]

IntArray = NDArray[np.int64]
_Mask = NDArray[np.bool_]

MOST_STEPS = 4_000_000
"""Sessions times the steps of the longest: each table of them stays below 32 MB."""

MOST_HELD = 1_000_000
"""Rows that are held at most, beside a day, to find the newest whole sessions in: long ones may reach far back."""

MOST_CUT = 0.05
"""Share of the sessions that may have been cut before the horizon."""


@dataclass(frozen=True, slots=True)
class LoggedSessions:
    """Whole sessions up to the horizon, their rows one after another.

    Attributes:
        horizon, discount: of the value of a session.
        rows: decisions [n], by session and step.
        session: running number of each row's session [n].
        step: of each row in its session, from 0 [n].
        terminated: whether the session ended by itself after the row [n].
        following: row that holds what followed [n], also beyond the horizon; -1: nothing, or nobody knows.
        beyond: decisions beyond the horizon, of which ``following`` needs the states; its rows are counted after
            those of ``rows``.
        cut: sessions as old as those that count, which neither ended nor reached the horizon.
    """

    horizon: int
    discount: float
    rows: LoggedRows
    session: IntArray
    step: IntArray
    terminated: _Mask
    following: IntArray
    beyond: LoggedRows
    cut: int

    @property
    def n(self) -> int:
        """Sessions."""
        return int(self.session.max()) + 1 if len(self.session) else 0

    def check_whole(self) -> None:
        """Refuse sessions of which too many were cut: what is left are the short ones, which may be the bad ones.

        Raises:
            InvalidInputError: more than 5 % were.
        """
        if self.cut > MOST_CUT * (self.n + self.cut):
            raise InvalidInputError(
                f"{self.cut} of {self.n + self.cut} sessions were cut before the horizon of {self.horizon} steps and "
                f"did not end by themselves; at most {MOST_CUT:.0%} may be: declare a shorter horizon",
                field="horizon",
            )

    def sentence(self) -> str:
        """How many there are, and why not more."""
        return f"{self.n} sessions; {self.rows.sentence()}"


@dataclass(frozen=True, slots=True)
class _Runs:
    """Rows by session and step, divided into runs from a beginning to an end or a gap, [n] each."""

    run: IntArray
    step: IntArray
    whole: _Mask  # of rows: their run has a beginning


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Sorted rows [n], and which of them are of the sessions that are taken."""

    rows: pa.Table
    runs: _Runs
    kept: _Mask
    after: IntArray
    cut: int
    more: bool  # whole sessions are there that are not taken
    left_out: Mapping[str, int]


def read_sessions(
    lake: Lake, policy: str, declaration: GateDeclaration, bundle: BundlePolicy, *, now_us: int
) -> LoggedSessions:
    """Read the sessions of a policy, a day at a time and the newest first, until there are enough whole ones.

    A session begins at step 0, or after a step that ended an episode, and goes on as long as no step is missing. Left
    out is, beside what :func:`~rlaas.control.gating.logged.read_logged` leaves out, what cannot be placed (no session
    or step, one that repeats a step, what comes after a gap) and every session that neither ended nor reached the
    horizon; of those there may be few only, see :meth:`LoggedSessions.check_whole`. Since short sessions end sooner,
    the newest are left out whatever became of them: those that began later before the last decision than the longest
    session takes that is seen to its end.

    Args:
        lake, policy, declaration, bundle, now_us: as of :func:`~rlaas.control.gating.logged.read_logged`; the
            declaration has a horizon.

    Raises:
        InvalidInputError: the version has no such mode or objective.
        LakeError: the table is damaged.
    """
    more = ("step", "terminated", "truncated")
    days, read, held, left_out = list[pa.Table](), 0, 0, Counter[str]()
    enough = _most(bundle)
    for day in telling_days(lake, policy, declaration, bundle, now_us=now_us, more=more):
        placed = _mask(day.rows, "session", valid=True) & _mask(day.rows, "step", valid=True)
        days.append(day.rows.filter(pa.array(placed)))
        read, held = read + day.read, held + int(placed.sum())
        left_out.update(day.left_out)
        left_out.update(_left(placed, "without session and step"))
        if held < enough and not day.oldest:
            continue
        chosen = _choose(pa.concat_tables(days), declaration, bundle, oldest=day.oldest)
        if chosen.more or held >= MOST_HELD:
            break
        enough = 2 * held  # sorting every time what is held would take longer than reading it
    left_out.update(chosen.left_out)
    return _assembled(chosen, bundle, declaration, read, left_out)


def _choose(rows: pa.Table, declaration: GateDeclaration, bundle: BundlePolicy, *, oldest: bool) -> _Chosen:
    """The newest whole sessions among rows that have a session and a step.

    Args:
        rows: of the days that were read.
        declaration, bundle: as of :func:`read_sessions`.
        oldest: whether there are no days before.
    """
    horizon, left_out = declaration.horizon or 1, Counter[str]()

    def leave(kept: _Mask, reason: str) -> None:
        left_out.update(_left(kept, reason))

    rows = rows.sort_by([("session", "ascending"), ("step", "ascending")]).combine_chunks()
    once = _without_repeats(rows)
    leave(once, "of a session that repeats a step")
    rows = rows.filter(pa.array(once)).combine_chunks()
    runs = _runs(rows)
    leave(runs.whole, "after a gap" if oldest else "after a gap, or of a session that began on a day not read")
    # A row is known by what follows it before anything is cut off.
    after = _following(runs)
    inside = runs.whole & (runs.step < horizon)
    leave(inside | ~runs.whole, "beyond the horizon")
    complete = _complete(rows, runs, inside, horizon)
    leave(complete | ~inside, "of a session that was cut before the horizon")
    seen, cut = _seen_to_the_end(rows, runs, complete)
    leave(seen | ~complete, "of a session that began too late to be seen to its end")
    newest = _newest(rows, runs, seen, bundle)
    leave(newest | ~seen, "older")
    return _Chosen(rows, runs, newest, after, cut, bool((seen & ~newest).any()), left_out)


def _left(kept: _Mask, reason: str) -> dict[str, int]:
    return {} if kept.all() else {reason: int((~kept).sum())}


def _mask(rows: pa.Table, column: str, *, valid: bool = False) -> _Mask:
    values = rows.column(column).is_valid() if valid else rows.column(column)
    return np.asarray(values.to_numpy(), dtype=np.bool_)


def _codes(rows: pa.Table) -> IntArray:
    """Running number of each row's session, of rows that are sorted by it [n]."""
    encoded = rows.column("session").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def _steps(rows: pa.Table) -> IntArray:
    return np.asarray(rows.column("step").to_numpy(), dtype=np.int64)


def _without_repeats(rows: pa.Table) -> _Mask:
    """Rows of sessions in which no step occurs twice [n]: of two, nobody knows which one led on."""
    session, step = _codes(rows), _steps(rows)
    twice = np.zeros(len(session), dtype=np.bool_)
    twice[1:] = (session[1:] == session[:-1]) & (step[1:] == step[:-1])
    return ~np.isin(session, session[twice])


def _runs(rows: pa.Table) -> _Runs:
    session, step = _codes(rows), _steps(rows)
    n = len(session)
    follows, ended = np.zeros(n, dtype=np.bool_), _mask(rows, "terminated") | _mask(rows, "truncated")
    follows[1:] = (session[1:] == session[:-1]) & (step[1:] == step[:-1] + 1)
    after_end = np.zeros(n, dtype=np.bool_)
    after_end[1:] = ended[:-1]
    begins = (step == 0) | (follows & after_end)
    breaks = ~follows | after_end
    run = np.cumsum(breaks) - 1
    first = np.flatnonzero(breaks)
    return _Runs(run, np.arange(n) - first[run], begins[first][run])


def _following(runs: _Runs) -> IntArray:
    """Row after each one in its run [n]; -1 at the end of a run."""
    after = np.full(len(runs.run), -1, dtype=np.int64)
    goes_on = runs.run[1:] == runs.run[:-1]
    after[:-1][goes_on] = np.flatnonzero(goes_on) + 1
    return after


def _complete(rows: pa.Table, runs: _Runs, inside: _Mask, horizon: int) -> _Mask:
    """Rows inside the horizon of the runs that reach it or end before [n]."""
    enough = inside & (_mask(rows, "terminated") | (runs.step == horizon - 1))
    return inside & np.isin(runs.run, runs.run[enough])


def _seen_to_the_end(rows: pa.Table, runs: _Runs, complete: _Mask) -> tuple[_Mask, int]:
    """Those of ``complete`` that began so early that they would be complete however long they took.

    Also how many sessions are as old, and are not complete.
    """
    if not complete.any():
        return complete, len(np.unique(runs.run[runs.whole]))
    time = np.asarray(rows.column("time_us").to_numpy(), dtype=np.int64)
    began, ended = _span(time, runs, complete)
    longest = int((ended - began)[np.unique(runs.run[complete])].max())
    latest = int(time.max()) - longest
    first = runs.whole & (runs.step == 0)
    cut = first & (time <= latest) & ~np.isin(runs.run, runs.run[complete])
    return complete & (began[runs.run] <= latest), int(cut.sum())


def _newest(rows: pa.Table, runs: _Runs, seen: _Mask, bundle: BundlePolicy) -> _Mask:
    """The newest of the sessions, as many as are taken."""
    if not seen.any():
        return seen
    began, _ = _span(np.asarray(rows.column("time_us").to_numpy(), dtype=np.int64), runs, seen)
    chosen, length = np.unique(runs.run[seen], return_counts=True)
    order = np.argsort(-began[chosen], kind="stable")
    most = _most(bundle)
    total, longest = np.cumsum(length[order]), np.maximum.accumulate(length[order])
    fits = (total <= most) & (longest * np.arange(1, len(order) + 1) <= MOST_STEPS)
    return seen & np.isin(runs.run, chosen[order[: int(np.argmin(fits)) if not fits.all() else len(order)]])


def _most(bundle: BundlePolicy) -> int:
    """Rows of sessions that are taken."""
    return max(1, min(MOST_ROWS, MOST_CELLS // max(bundle.n_features, getattr(bundle.manifest.action, "n", 1))))


def _span(time: IntArray, runs: _Runs, of: _Mask) -> tuple[IntArray, IntArray]:
    """First and last time of each run's rows ``of`` [n_runs]."""
    n_runs = int(runs.run.max()) + 1
    began, ended = np.full(n_runs, np.iinfo(np.int64).max), np.zeros(n_runs, dtype=np.int64)
    np.minimum.at(began, runs.run[of], time[of])
    np.maximum.at(ended, runs.run[of], time[of])
    return began, ended


def _assembled(
    chosen: _Chosen, bundle: BundlePolicy, declaration: GateDeclaration, read: int, left_out: Mapping[str, int]
) -> LoggedSessions:
    rows, runs, kept, mine = chosen.rows, chosen.runs, chosen.kept, np.flatnonzero(chosen.kept)
    # What follows the last row that counts lies beyond the horizon; its state is needed all the same.
    next_rows = chosen.after[mine]
    beyond = np.setdiff1d(next_rows[next_rows >= 0], mine)
    place = np.full(len(kept) + 1, -1, dtype=np.int64)  # the last one stands for "nothing follows"
    place[mine], place[beyond] = np.arange(len(mine)), len(mine) + np.arange(len(beyond))
    return LoggedSessions(
        horizon=declaration.horizon or 1,
        discount=declaration.gamma,
        rows=columns_of(_taken(rows, mine), bundle, read, left_out),
        session=np.asarray(np.unique(runs.run[mine], return_inverse=True)[1], dtype=np.int64),
        step=runs.step[mine],
        terminated=_mask(rows, "terminated")[mine],
        following=place[next_rows],
        beyond=columns_of(_taken(rows, beyond), bundle, 0, {}),
        cut=chosen.cut,
    )


def _taken(rows: pa.Table, which: Any) -> pa.Table:
    return rows.take(pa.array(which, type=pa.int64()))
