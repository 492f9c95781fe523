"""The part of the network that no action changes: where users are, what they ask for, how their channels fade.

Random numbers come in blocks of fixed size from one generator per environment, so the stream of an environment
depends neither on the actions (common random numbers) nor on the environments stepped beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import poisson

from rlaas.scenarios.network5g import radio
from rlaas.scenarios.network5g.layout import Layout
from rlaas.scenarios.network5g.reference import STEP_S, Reference

__all__ = ["World", "WorldState"]

BLOCK = 8
"""Steps drawn at a time: one generator call serves several steps."""
UNIFORMS = 4
"""Uniform numbers per user and step: arrivals, leg direction or radius, leg length or angle, speed."""

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


@dataclass(slots=True)
class WorldState:
    """Everything the next steps of the world depend on, generators apart; [envs, users, ...]."""

    position: Float64Array
    target: Float64Array
    speed: Float64Array
    shadow: Float32Array
    sight: Float32Array
    hour: NDArray[np.int64]
    normals: Float32Array
    uniforms: Float64Array

    def copy(self) -> WorldState:
        """A deep copy."""
        return WorldState(**{f.name: getattr(self, f.name).copy() for f in fields(self)})


class World:
    """Mobility, shadowing and arrivals of ``envs`` environments.

    Attributes:
        link_db: element gain minus path loss minus shadowing [envs, users, cells] after :meth:`move`.
        sine_below: sine of the angle below the horizon at which a cell sees a user [envs, users, cells].
        state: see :class:`WorldState`.
        generators: one per environment.
    """

    def __init__(
        self,
        cells: Layout,
        users: tuple[int, int, int],
        scale: float,
        hour: float | None,
        ref: Reference,
        generators: list[np.random.Generator],
    ) -> None:
        self.layout = cells
        self.users = users
        self.reference = ref
        self.generators = generators
        self.hours = np.array(ref.traffic.demand_hours if hour is None else (hour,), dtype=np.float64)
        self._demand = np.array([ref.traffic.demand(float(h)) for h in self.hours])
        self._hour_cdf = np.cumsum(self._demand / self._demand.sum())
        rates = np.array(ref.traffic.rates_per_s) * scale
        self.rates = self._demand[:, None] * rates
        self._counts = [_CountTable(self.rates[:, s] * STEP_S) for s in range(3)]
        envs, total, sites = len(generators), sum(users), len(cells.sites)
        slow = np.ones(total)
        slow[users[0] + users[1] :] = 0.0
        self._moves = slow > 0
        self.state = WorldState(
            position=np.zeros((envs, total, 2)),
            target=np.zeros((envs, total, 2)),
            speed=np.zeros((envs, total)),
            shadow=np.zeros((envs, total, sites), dtype=np.float32),
            sight=np.zeros((envs, total, sites), dtype=np.float32),
            hour=np.zeros(envs, dtype=np.int64),
            normals=np.zeros((envs, BLOCK, 2, total, sites), dtype=np.float32),
            uniforms=np.zeros((envs, BLOCK, UNIFORMS, total)),
        )
        self.link_db: Float32Array
        self.sine_below: Float32Array

    def reset(self) -> None:
        """Place users, draw their channels and the hour of the day."""
        s, total = self.state, sum(self.users)
        for e, generator in enumerate(self.generators):
            u = generator.random((2 * UNIFORMS + 1, total))
            s.hour[e] = min(int(np.searchsorted(self._hour_cdf, u[8, 0], side="right")), len(self.hours) - 1)
            s.uniforms[e, 0], s.uniforms[e, 1] = u[:UNIFORMS], u[UNIFORMS : 2 * UNIFORMS]
            generator.standard_normal(out=s.shadow[e], dtype=np.float32)
            generator.standard_normal(out=s.sight[e], dtype=np.float32)
        first, second = s.uniforms[:, 0], s.uniforms[:, 1]
        s.position[...] = self._place(first)
        s.target[...] = s.position
        self._new_legs(second, np.ones((len(s.hour), total), dtype=bool))
        self._channel(None)

    def draw(self, step: int) -> int:
        """Make the random numbers of ``step`` available; their index within the block."""
        index = step % BLOCK
        if index == 0:
            for e, generator in enumerate(self.generators):
                generator.standard_normal(out=self.state.normals[e], dtype=np.float32)
                generator.random(out=self.state.uniforms[e])
        return index

    def move(self, index: int) -> None:
        """Move every user for one decision interval and update its channel."""
        s = self.state
        way = s.target - s.position
        left = np.sqrt(way[..., 0] ** 2 + way[..., 1] ** 2)
        stride = s.speed * STEP_S
        arrived = stride >= left
        share = np.where(arrived, 1.0, stride / np.maximum(left, 1e-9))
        s.position += way * share[..., None]
        # On arrival a user takes up its next leg; the rest of this stride is not walked.
        self._new_legs(s.uniforms[:, index], arrived & self._moves)
        self._channel((np.minimum(stride, left), s.normals[:, index]))

    def arrivals(self, index: int) -> tuple[Float64Array, Float64Array, Float64Array]:
        """Files or packets that arrive in this interval, by slice: Poisson, [envs, users of the slice] each."""
        u, (embb, urllc, _) = self.state.uniforms[:, index, 0], self.users
        parts = (u[:, :embb], u[:, embb : embb + urllc], u[:, embb + urllc :])
        return tuple(  # type: ignore[return-value]
            table.count(part, self.state.hour) for table, part in zip(self._counts, parts, strict=True)
        )

    def _place(self, u: Float64Array) -> Float64Array:
        """Uniform positions [envs, users, 2] from two rows of uniform numbers."""
        if self.layout.periods is not None:
            a, b = self.layout.periods
            return np.asarray(u[:, 1, :, None] * a + u[:, 2, :, None] * b)
        radius, angle = self.layout.radius_m * np.sqrt(u[:, 1]), 2 * np.pi * u[:, 2]
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)

    def _new_legs(self, u: Float64Array, which: NDArray[np.bool_]) -> None:
        """Random waypoint: a fresh target and speed for the users in ``which`` [envs, users].

        Without wrap-around the target is uniform in the disc; on the wrapped plane it lies in a uniform direction at
        a uniform distance, which keeps users uniformly spread.
        """
        s, traffic = self.state, self.reference.traffic
        if self.layout.periods is None:
            target = self._place(u)
        else:
            low, high = traffic.leg_m
            length, angle = low + (high - low) * u[:, 1], 2 * np.pi * u[:, 2]
            target = s.position + np.stack([length * np.cos(angle), length * np.sin(angle)], axis=-1)
        slow, fast = traffic.speed_m_s
        s.target[...] = np.where(which[..., None], target, s.target)
        s.speed[...] = np.where(which, slow + (fast - slow) * u[:, 3], s.speed)
        s.speed[:, ~self._moves] = traffic.mmtc_speed_m_s

    def _channel(self, moved: tuple[Float64Array, Float32Array] | None) -> None:
        """Path loss, line of sight and shadowing at the present positions; ``moved`` by how far and with which normals.

        Sectors of a site share both fields. Each is a first-order autoregressive walk over the distance moved.
        """
        s, cells, r = self.state, self.layout, self.reference.radio
        dx = (s.position[:, :, None, 0] - cells.sites[:, 0]).astype(np.float32)
        dy = (s.position[:, :, None, 1] - cells.sites[:, 1]).astype(np.float32)
        dx, dy = cells.nearest_image(dx, dy)
        distance = np.maximum(np.sqrt(dx * dx + dy * dy), np.float32(r.minimum_distance_m))
        if moved is not None:
            stride, normals = moved
            _walk(s.sight, normals[:, 0], np.exp(-stride / r.los_correlation_m)[..., None])
        los = ndtr(s.sight) < radio.los_probability(distance)
        if moved is not None:
            keep = {sight: np.exp(-stride / d)[..., None] for sight, d in radio.SHADOW_CORRELATION_M.items()}
            _walk(s.shadow, normals[:, 1], np.where(los, keep[True], keep[False]))
        with_sight, without = radio.uma_path_loss_db(
            distance, carrier_ghz=r.carrier_ghz, site_height=r.site_height_m, user_height=r.user_height_m
        )
        sigma = np.where(los, np.float32(radio.SHADOW_DB[True]), np.float32(radio.SHADOW_DB[False]))
        loss = np.where(los, with_sight, without) + sigma * s.shadow
        height = np.float32(r.site_height_m - r.user_height_m)
        sine = height / np.sqrt(distance * distance + height * height)
        elevation = radio.elevation_attenuation_db(np.rad2deg(np.arcsin(sine)))
        if cells.azimuth_deg is None:
            self.link_db = np.asarray(radio.element_gain_db(elevation) - loss, dtype=np.float32)
            self.sine_below = np.asarray(sine, dtype=np.float32)
            return
        bearing = np.take(np.rad2deg(np.arctan2(dy, dx)), cells.site_of_cell, axis=2)
        off = bearing - cells.azimuth_deg.astype(np.float32)
        off = off - np.float32(360.0) * np.rint(off / np.float32(360.0))
        gain = radio.element_gain_db(radio.azimuth_attenuation_db(off) + np.take(elevation, cells.site_of_cell, axis=2))
        self.link_db = np.asarray(gain - np.take(loss, cells.site_of_cell, axis=2), dtype=np.float32)
        self.sine_below = np.take(sine, cells.site_of_cell, axis=2)


class _CountTable:
    """Poisson counts by inversion, for several means at once: one uniform number gives one count."""

    def __init__(self, means: Float64Array) -> None:
        length = int(poisson.ppf(1 - 1e-12, means.max())) + 1
        cdf = poisson.cdf(np.arange(length), means[:, None])
        # Row r occupies [r, r + 1), so that one binary search serves all rows.
        self._edges = (np.minimum(cdf, 1.0) + np.arange(len(means))[:, None]).ravel()
        self._length = length

    def count(self, u: Float64Array, row: NDArray[np.int64]) -> Float64Array:
        """Counts [envs, users] for uniform numbers u [envs, users] with the mean of ``row`` [envs]."""
        found = np.searchsorted(self._edges, u + row[:, None], side="right") - row[:, None] * self._length
        return np.asarray(np.minimum(found, self._length - 1), dtype=np.float64)


def _walk(field: Float32Array, normals: Float32Array, keep: NDArray[Any]) -> None:
    """One step of a unit-variance autoregressive walk, in place: r field + sqrt(1 - r^2) normals."""
    r = keep.astype(np.float32)
    field *= r
    field += np.sqrt(1.0 - r * r) * normals
