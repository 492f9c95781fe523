"""Follows every policy that is watched: rows in, evidence, episodes, and what has to be done about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import structlog
from sqlalchemy.engine import Connection

from rlaas.control.drift.deliveries import Deliveries
from rlaas.control.drift.follower import Forward, bring_forward, ended, fresh, take_in
from rlaas.control.drift.store import DriftStore, Episode, StoredConfig, StoredWatch
from rlaas.control.drift.triggers import RetrainRequest, RetrainTrigger
from rlaas.control.rollouts.lease import Lease
from rlaas.control.state import StateDatabase
from rlaas.errors import ConflictError, LakeError, RequestError, RlaasError, shown
from rlaas.lake import Lake
from rlaas.lake.schemas import table_spec
from rlaas.monitoring import BronzeTail, Seconds

__all__ = ["DriftReconciler", "EpisodeHook"]

EpisodeHook = Callable[[Episode], Mapping[str, Any] | None]
"""Asked once, when an episode begins, what the resolver chooses for the new regime; the answer is kept with it."""
TABLES = ("bronze.decisions", "bronze.outcomes")
_MOST_VERSIONS = 60
"""Of a table that are read at one look: after a long pause the watch is stored in between."""


class DriftReconciler:
    """Brings the watches of a tenant forward while it holds the lease; a second one waits for the lease.

    It may be killed at any point: positions, detectors, episodes and messages change together or not at all, and a
    retraining that was claimed and not handed over is handed over again under the same id.

    Args:
        database: the state database.
        tenant: whose policies.
        lake: whose ``bronze`` is followed.
        trigger: begins retrainings.
        hook: asked when an episode begins.
        lease: default one that lasts 5 s.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        tenant: str,
        lake: Lake,
        *,
        trigger: RetrainTrigger,
        hook: EpisodeHook | None = None,
        lease: Lease | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._database, self._tenant, self._clock = database, tenant, clock
        self.store = DriftStore(database, tenant)
        self.deliveries = Deliveries(database, tenant, clock=clock)
        self._tails = {table: BronzeTail(lake, table) for table in TABLES}
        self._trigger, self._hook = trigger, hook
        self._lease = lease or Lease(database, f"drift/{tenant}", clock=clock)
        self._events = structlog.get_logger("rlaas.control").bind(tenant=tenant)

    def tick(self) -> None:
        """Look at every watched policy once."""
        configs = self.store.configs()
        if not configs or not self._lease.hold():
            return
        read: dict[tuple[str, int], list[tuple[int, pa.Table]]] = {}
        for stored in configs:
            try:
                self._follow(stored, read)
                self._act(stored)
            except ConflictError as problem:
                # Overtaken by whoever has the lease now, or by an operator: the next look starts from what they wrote.
                self._events.warning("drift_overtaken", policy=stored.model, error=problem.message)
            except RlaasError as problem:  # one damaged table must not keep other policies from being watched
                self._events.error("drift_not_followed", policy=stored.model, error=problem.message)

    def release(self) -> None:
        """Let another process go on at once."""
        self._lease.release()

    def _follow(self, stored: StoredConfig, read: dict[tuple[str, int], list[tuple[int, pa.Table]]]) -> None:
        version = self._live(stored.model)
        watch = self.store.watch(stored.model)
        if version is None:
            return
        if watch is None:
            self._begin(stored, version)
            return
        if (watch.version, watch.config_revision) != (version, stored.revision):
            self._begin_again(stored, version, watch)
            return
        document = watch.document
        seconds, discrete = Seconds.from_dict(document["seconds"]), document["discrete"]
        positions = dict(document["positions"])
        for table in TABLES:
            key = (table, positions[table])
            if key not in read:
                read[key] = self._read(*key)
            for number, rows in read[key]:
                discrete = take_in(seconds, stored.model, version, table, rows, discrete)
                positions[table] = number
        if positions == document["positions"]:
            return
        forward = bring_forward(
            stored,
            watch,
            seconds,
            discrete,
            positions,
            self.store.open_episode(stored.model),
            numbers=self.store.count(stored.model),
            now_us=self._clock(),
        )
        self._commit(stored, forward)

    def _read(self, table: str, after: int) -> list[tuple[int, pa.Table]]:
        found: list[tuple[int, pa.Table]] = []
        try:
            for number, rows in self._tails[table].after(after):
                found.append((number, rows))
                if len(found) == _MOST_VERSIONS:
                    break
        except LakeError as problem:
            if problem.field != "version" or found:
                raise
            # Away for so long that the log was cleaned: what happened meanwhile is not judged.
            self._events.error("drift_rows_missed", table=table, after=after, error=problem.message)
            found.append((self._tails[table].version(), table_spec(table).schema.empty_table()))
        return found

    def _begin(self, stored: StoredConfig, version: int) -> None:
        positions = {table: tail.version() for table, tail in self._tails.items()}
        watch = fresh(stored, version, positions, None)
        self.store.commit(replace(watch, revision=1, updated_us=self._clock()), lease=self._lease)
        self._events.info("drift_watch_begun", policy=stored.model, version=version)

    def _begin_again(self, stored: StoredConfig, version: int, watch: StoredWatch) -> None:
        after = fresh(stored, version, watch.document["positions"], watch)
        after = replace(after, revision=watch.revision + 1, updated_us=self._clock())
        episode = self.store.open_episode(stored.model)
        if episode is not None:
            why = "promoted" if watch.version != version else "reconfigured"
            episode = ended(episode, why, self._clock())
        self._commit(stored, Forward(after, episode))
        self._events.info("drift_watch_begun", policy=stored.model, version=version)

    def _commit(self, stored: StoredConfig, forward: Forward) -> None:
        episode, url = forward.episode, stored.config.webhook
        event = None
        if episode is not None:
            event = "opened" if forward.new else "closed" if episode.closed_us is not None else None

        def tell(connection: Connection) -> None:
            if episode is not None and event is not None and url is not None and stored.config.action != "none":
                id_ = f"{episode.model}/{episode.number}/{event}"
                self.deliveries.add(connection, id_, url, {"event": event, "alert": episode.to_dict()})

        self.store.commit(forward.watch, episode=episode, new=forward.new, lease=self._lease, also=tell)
        if episode is not None and event is not None:
            strongest = episode.streams[0] if episode.streams else {}
            self._events.warning(
                f"drift_{event}",
                policy=episode.model,
                episode=episode.number,
                version=episode.version,
                second=episode.second,
                closed_by=episode.closed_by,
                stream=strongest.get("stream"),
                sigma=strongest.get("sigma"),
            )

    def _act(self, stored: StoredConfig) -> None:
        """What an open episode asks for: one retraining behind the cool-down, and one word of the resolver."""
        episode = self.store.open_episode(stored.model)
        if episode is None:
            return
        now_us = self._clock()
        if episode.retrain == "waiting":
            before = self.store.last_retrain_us(stored.model)
            if before is None or now_us - before >= stored.config.cool_down_s * 1e6:
                id_ = f"retrain-{self._tenant}-{episode.model}-{episode.number}-{episode.opened_us}"
                episode = self.store.change(replace(episode, retrain="claimed", retrain_us=now_us, retrain_id=id_))
        if episode.retrain == "claimed":
            episode = self._hand_over(stored, episode)
        if self._hook is not None and episode.resolution is None and stored.config.action != "none":
            self._resolve(self._hook, episode)

    def _hand_over(self, stored: StoredConfig, episode: Episode) -> Episode:
        assert episode.retrain_id is not None
        pipeline = stored.config.pipeline
        try:
            if pipeline is None:
                raise ConflictError("the configuration no longer names a pipeline", field="pipeline")
            job = self._trigger.request(RetrainRequest(episode.retrain_id, episode.model, episode.number, pipeline))
        except RequestError as problem:
            self._events.error("retrain_refused", policy=episode.model, episode=episode.number, error=problem.message)
            return self.store.change(replace(episode, retrain="failed", retrain_job=problem.message))
        except (RlaasError, OSError) as problem:  # it stays claimed: the next look asks again
            self._events.warning("retrain_delayed", policy=episode.model, error=shown(problem, str))
            return episode
        after = self.store.change(replace(episode, retrain="requested", retrain_job=job))
        self._events.warning("retrain_requested", policy=episode.model, episode=episode.number, job=job)
        return after

    def _resolve(self, hook: EpisodeHook, episode: Episode) -> None:
        try:
            chosen = hook(episode)
        except RlaasError as problem:
            chosen = {"error": problem.message}
        self.store.change(replace(episode, resolution=chosen or {}))
        self._events.info("drift_resolved", policy=episode.model, episode=episode.number, chosen=chosen)

    def _live(self, model: str) -> int | None:
        """The version with the largest share of the traffic; None where nothing is live."""
        stored = self._database.of_policy(self._tenant, model)
        if stored is None or stored.record is None:
            return None
        serving = [variant for variant in stored.record.variants if not variant.shadow]
        return max(serving, key=lambda variant: variant.weight).version if serving else None
