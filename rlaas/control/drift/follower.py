"""One policy brought forward by the rows that are new: from seconds that are complete to evidence, and to episodes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.control.drift.store import Episode, StoredConfig, StoredWatch
from rlaas.monitoring import Detection, DriftConfig, Seconds, Watch, decision_streams, outcome_streams, stream_kind

__all__ = ["SETTLE_S", "Forward", "bring_forward", "fresh", "take_in"]

SETTLE_S = 60
"""Seconds of traffic in which the streams are seen that are watched from then on."""
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Forward:
    """What follows from some rows.

    Attributes:
        watch: to be stored.
        episode: begun or changed; None where none is.
        new: whether it begins.
    """

    watch: StoredWatch
    episode: Episode | None = None
    new: bool = False


def fresh(stored: StoredConfig, version: int, positions: Mapping[str, int], before: StoredWatch | None) -> StoredWatch:
    """A watch that begins: with a policy, with a new version of it, or with another configuration."""
    document = {"positions": dict(positions), "seconds": Seconds().to_dict(), "discrete": None, "phase": "settling"}
    revision = 0 if before is None else before.revision
    return StoredWatch(stored.model, version, stored.revision, revision, document, None, 0)


def take_in(
    seconds: Seconds, model: str, version: int, table: str, rows: pa.Table, discrete: bool | None
) -> bool | None:
    """Add the rows of a policy version to its seconds; whether its actions are indices, where that is known."""
    if table == "bronze.outcomes":
        mine = rows.filter(pc.equal(rows["policy"], model)) if len(rows) else rows
        if len(mine):
            # Whose version an outcome is of, its decision's id says.
            tagged = pc.match_substring_regex(mine["decision_id"], f"-[0-9a-f]{{8}}(v{version:x})?-[0-9a-f]+$")
            other = pc.match_substring_regex(mine["decision_id"], "-[0-9a-f]{8}v[0-9a-f]+-[0-9a-f]+$")
            mine = mine.filter(pc.or_(tagged, pc.invert(other)))
        if len(mine):
            seconds.add(mine["received_us"].to_numpy(), outcome_streams(mine), table=table)
        return discrete
    mine = rows.filter(pc.and_(pc.equal(rows["policy"], model), pc.equal(rows["version"], version)))
    if not len(mine):
        return discrete
    streams = decision_streams(mine, discrete=discrete)
    if discrete is None:
        discrete = any(name.startswith("action.is_") for name in streams)
    seconds.add(mine["time_us"].to_numpy(), streams, table=table)
    return discrete


def bring_forward(
    stored: StoredConfig,
    watch: StoredWatch,
    seconds: Seconds,
    discrete: bool | None,
    positions: Mapping[str, int],
    episode: Episode | None,
    *,
    numbers: int,
    now_us: int,
) -> Forward:
    """Judge the seconds that are complete.

    Args:
        stored: how the policy is watched.
        watch: where it stood.
        seconds: with the new rows.
        discrete: whether actions are indices.
        positions: versions of the tables up to which rows were taken in.
        episode: that lasts.
        numbers: number of its latest episode.
        now_us: UTC microseconds.
    """
    config, state = stored.config, watch.state
    newest = min(seconds.newest, now_us // 1_000_000)
    until = newest - max(1, math.ceil(config.lateness_s))
    looking: Watch | None = None
    found: list[Detection] = []
    if state is not None:
        looking = Watch.load(config, state)
    elif seconds.sums and until - min(seconds.sums) >= min(SETTLE_S, config.reference.learn_s):
        streams = _streams(config, seconds)
        looking = Watch(config, streams) if streams else None
    if looking is not None:
        at, means, counts = seconds.close(until, looking.streams)
        shares = [i for i, name in enumerate(looking.streams) if name.startswith("action.is_")]
        if shares:  # a share of a second in which others were chosen is 0
            taken = counts[:, shares].max(axis=1, keepdims=True)
            means[:, shares] = np.where(taken > 0, np.nan_to_num(means[:, shares]), np.nan)
            counts[:, shares] = taken
        found = looking.update(at, means, counts)
        state = looking.dump()
    after = replace(
        watch,
        revision=watch.revision + 1,
        document={"positions": dict(positions), "seconds": seconds.to_dict(), "discrete": discrete, **_shown(looking)},
        state=state,
        updated_us=now_us,
    )
    return _episode(config, after, episode, found, looking, numbers, now_us)


def _streams(config: DriftConfig, seconds: Seconds) -> list[str]:
    """What is watched: the streams of the kinds that were seen, and of them those that are named."""
    seen = {name for sums in seconds.sums.values() for name in sums}
    wanted = {name for name in seen if stream_kind(name) in config.monitor}
    if config.features is not None:
        wanted &= set(config.features)
    return sorted(wanted)


def _shown(watch: Watch | None) -> dict[str, Any]:
    if watch is None:
        return {"phase": "settling"}
    return {
        "phase": watch.phase,
        "remaining_s": watch.remaining_s,
        "streams": list(watch.streams),
        "last_second": watch.last_second,
        "evidence": [asdict(one) for one in watch.evidence()[:_SHOWN]],
    }


def _episode(
    config: DriftConfig,
    after: StoredWatch,
    episode: Episode | None,
    found: Sequence[Detection],
    watch: Watch | None,
    numbers: int,
    now_us: int,
) -> Forward:
    if found and episode is None:
        first = found[0]
        begun = Episode(
            model=after.model,
            number=numbers + 1,
            version=after.version,
            revision=1,
            second=first.second,
            opened_us=now_us,
            last_us=found[-1].second * 1_000_000,
            streams=[asdict(one) for one in first.streams],
            retrain="waiting" if config.action == "retrain" else "none",
        )
        return Forward(after, begun, new=True)
    if episode is None or watch is None:
        return Forward(after)
    if found:
        last = {**{one["stream"]: dict(one) for one in episode.streams}}
        last |= {one.stream: asdict(one) for detection in found for one in detection.streams}
        lasting = replace(
            episode,
            revision=episode.revision + 1,
            last_us=found[-1].second * 1_000_000,
            streams=sorted(last.values(), key=lambda one: -one["evidence"]),
        )
        return Forward(after, lasting)
    if watch.last_second * 1_000_000 - episode.last_us >= config.quiet_s * 1e6:
        return Forward(after, ended(episode, "quiet", now_us))
    return Forward(after)


def ended(episode: Episode, why: str, now_us: int) -> Episode:
    """An episode that is over. A retraining that has not been handed over is not wanted any more."""
    retrain = "none" if episode.retrain == "waiting" else episode.retrain
    return replace(episode, revision=episode.revision + 1, closed_us=now_us, closed_by=why, retrain=retrain)
