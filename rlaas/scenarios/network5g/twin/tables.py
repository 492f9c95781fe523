"""What the twin reads: the engine's tables as tensors on the device, and the schedule of events.

All networks are in the same step, so what depends on the clock alone is decided on the host, which costs no transfer.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlaas.scenarios.network5g.control import HIGH, LOW
from rlaas.scenarios.network5g.engine import Constants, LinkTables, MapTables, WorldTables
from rlaas.scenarios.network5g.engine.events import END, KIND, OUTAGE, RADIUS, REPEAT, START, SURGE, UNIT, VALUE, X, Y
from rlaas.scenarios.network5g.engine.links import LOW_ERROR

__all__ = ["Scene", "Schedule", "Surge", "Tables"]


class Scene(NamedTuple):
    """What the schedule makes of the cells in a step.

    Attributes:
        power_dbm: transmit power at full power [C].
        rows: power model of each cell [C, columns of ``power.ROW_COLUMNS``].
        failed: out of order [C].
    """

    power_dbm: Tensor
    rows: Tensor
    failed: Tensor


class Surge(NamedTuple):
    """A factor on demand, within ``radius`` m of a place or, where it is 0, everywhere."""

    x: float
    y: float
    radius: float
    factor: float


class Schedule:
    """The events of a network by clock."""

    def __init__(self, world: WorldTables, device: torch.device, dtype: torch.dtype) -> None:
        self._world, self._device, self._dtype = world, device, dtype
        self._scenes: dict[tuple[int, ...], Scene] = {}

    def _running(self, clock: int, *, surges: bool) -> tuple[int, ...]:
        events = self._world.events
        found = []
        for row, event in enumerate(events):
            # The first tick of a stream is its reset.
            now = (clock - 1) % int(event[REPEAT]) if event[REPEAT] > 0 else clock - 1
            if (event[KIND] >= SURGE) == surges and event[START] <= now < event[END]:
                found.append(row)
        return tuple(found)

    def scene(self, clock: int) -> Scene:
        """What happens to the cells; the same tensors as long as nothing changes."""
        running = self._running(clock, surges=False)
        if running not in self._scenes:
            self._scenes[running] = self._make(running)
        return self._scenes[running]

    def _make(self, running: tuple[int, ...]) -> Scene:
        world = self._world
        power, model = world.power_dbm.copy(), world.power_model.copy()
        failed = np.zeros(len(model), dtype=bool)
        for row in running:
            event = world.events[row]
            cell = int(event[UNIT])
            if int(event[KIND]) == OUTAGE:
                failed[cell] = True
            else:
                model[cell] = int(event[X])
                power[cell] += np.float32(event[VALUE])
        return Scene(
            power_dbm=torch.tensor(power, device=self._device),
            rows=torch.tensor(world.power_rows[model], device=self._device, dtype=self._dtype),
            failed=torch.tensor(failed, device=self._device),
        )

    def surges(self, clock: int) -> tuple[Surge, ...]:
        """What changes demand."""
        rows = (self._world.events[row] for row in self._running(clock, surges=True))
        return tuple(Surge(float(e[X]), float(e[Y]), float(e[RADIUS]), float(e[VALUE])) for e in rows)


class Tables:
    """Constants and tables on a device; users in the order eMBB, URLLC, mMTC.

    Attributes:
        c: the engine's constants. device, dtype: where, and of what the queues are made.
        users, cells: of a network. movers: users that are no machines.
        slices: columns of eMBB, URLLC and mMTC users.
        realisations, nodes: of the maps.
        link_db [realisations * 2 * nodes, C], sine_below [nodes, C], beam_db [nodes, C]: maps.
        entry: of normal users and, behind them, of URLLC; entries of the latter count on from the former.
        efficiency, threshold_db: by entry. best, best_low: highest efficiency of both kinds.
        grid_top: last row of ``entry`` of either kind. first_entry: entry that means outage [U].
        grid_first: first row of ``entry`` [U]. odds: log odds of the error rate aimed at [U]. normal: not URLLC [U].
        burst_sigmas: standard deviations of interference that rates allow for [U].
        hours, hour_cdf, demand: of the day, float64. most_demand: the largest.
        neighbours [C, n]; default, low, high: settings [C, 9], [9], [9].
        trace_xy [n, 2], trace_first, trace_length: of the traces.
        schedule: events.
    """

    def __init__(
        self,
        c: Constants,
        maps: MapTables,
        links: LinkTables,
        world: WorldTables,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        def put(values: NDArray[Any], kind: torch.dtype) -> Tensor:
            return torch.tensor(values, device=device, dtype=kind)

        f32, f64, i64 = torch.float32, torch.float64, torch.int64
        self.c, self.device, self.dtype = c, device, dtype
        self.cells, self.users, self.movers = c.cells, c.embb + c.urllc + c.mmtc, c.embb + c.urllc
        self.slices = (slice(0, c.embb), slice(c.embb, self.movers), slice(self.movers, self.users))
        self.realisations, self.nodes = maps.link_db.shape[0], maps.link_db.shape[2]
        self.link_db = put(maps.link_db[..., : c.cells], f32).reshape(-1, c.cells)
        self.sine_below = put(maps.sine_below[:, : c.cells], f32)
        self.beam_db = put(maps.beam_db[:, : c.cells], f32)
        normal, urllc = len(links.efficiency), np.zeros(self.users, dtype=bool)
        urllc[self.slices[1]] = True
        self.entry = put(np.concatenate([links.entry, links.low_entry.astype(np.int64) + normal]), i64)
        self.efficiency = put(np.concatenate([links.efficiency, links.low_efficiency]), f32)
        self.threshold_db = put(np.concatenate([links.threshold_db, links.low_threshold_db]), f32)
        self.best, self.best_low = float(links.efficiency[-1]), float(links.low_efficiency[-1])
        self.grid_top = len(links.entry) - 1
        self.grid_first = put(np.where(urllc, len(links.entry), 0), i64)
        self.first_entry = put(np.where(urllc, normal, 0), i64)
        odds = [math.log((1.0 - p) / p) for p in (c.target_error, LOW_ERROR)]
        self.odds = put(np.where(urllc, odds[1], odds[0]), f32)
        self.normal = put(~urllc, torch.bool)
        self.burst_sigmas = put(np.where(urllc, c.urllc_burst_sigmas, c.burst_sigmas), f32)
        self.hours, self.hour_cdf, self.demand = (put(v, f64) for v in (world.hours, world.hour_cdf, world.demand))
        self.most_demand = float(world.demand.max())
        self.neighbours = put(world.neighbours, i64)
        self.default, self.low, self.high = put(world.default, dtype), put(LOW, dtype), put(HIGH, dtype)
        self.trace_xy = put(world.trace_xy, f32)
        self.trace_first, self.trace_length = put(world.trace_first, i64), put(world.trace_length, i64)
        self.schedule = Schedule(world, device, dtype)
