"""Queues inside one decision interval: closed-form sharing, M/G/1 waiting, and the lags that make delays exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ring", "by_cell", "drain", "late_probability", "mg1_wait"]

FloatArray = NDArray[np.float64]


def by_cell(values: NDArray[Any], flat_cell: NDArray[np.int64], envs: int, cells: int) -> FloatArray:
    """Sum of ``values`` [envs, users] over the users of each cell [envs, cells].

    ``flat_cell`` is ``env * cells + cell`` of each user. Users are added in order, so an environment's sums do not
    depend on the others in the batch.
    """
    sums = np.bincount(flat_cell.ravel(), weights=np.ravel(values), minlength=envs * cells)
    return np.asarray(sums.reshape(envs, cells), dtype=np.float64)


def drain(
    backlog: FloatArray, rate: FloatArray, weight: FloatArray, server: NDArray[np.int64], time: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted processor sharing until the backlog is gone or the time is over, in closed form.

    At every instant a server's time is split over its users with data in proportion to their weights; whoever
    finishes leaves a larger share to the rest (generalised processor sharing in virtual time, Parekh and Gallager
    1993): with ``v = backlog / (rate * weight)``, user k finishes at ``sum_j weight_j min(v_j, v_k)``.

    Args:
        backlog: data waiting [envs, users].
        rate: rate with the whole server to itself [envs, users]; 0 for a user that cannot be served.
        weight: positive share weight [envs, users].
        server: server index of each user [envs, users].
        time: time each server has [envs, servers].

    Returns:
        Data served [envs, users], the server time at which each user finished, or all of it [envs, users], and the
        time each server was busy [envs, servers].
    """
    envs, servers = time.shape
    active = (backlog > 0) & (rate > 0)
    w = np.where(active, weight, 0.0)
    v = np.divide(backlog, rate * weight, out=np.full_like(backlog, np.inf), where=active)
    order = np.lexsort((v, server), axis=-1)
    v_sorted = np.take_along_axis(v, order, axis=1)
    w_sorted = np.take_along_axis(w, order, axis=1)
    s_sorted = np.take_along_axis(server, order, axis=1)
    work = np.where(w_sorted > 0, w_sorted * np.where(np.isfinite(v_sorted), v_sorted, 0.0), 0.0)

    flat = s_sorted + servers * np.arange(envs)[:, None]
    total_w = by_cell(w_sorted, flat, envs, servers)
    total_work = by_cell(work, flat, envs, servers)
    # Users of earlier servers come first: what they add to the running sums is taken off again.
    before_w = np.cumsum(total_w, axis=1) - total_w
    before_work = np.cumsum(total_work, axis=1) - total_work
    own_work = np.cumsum(work, axis=1) - before_work.ravel()[flat]
    later_w = np.maximum(total_w.ravel()[flat] - (np.cumsum(w_sorted, axis=1) - before_w.ravel()[flat]), 0.0)
    served_users = w_sorted > 0
    finish = np.where(served_users, own_work + np.where(served_users, v_sorted, 0.0) * later_w, np.inf)
    limit = time.ravel()[flat]
    done = finish <= limit

    done_work = by_cell(np.where(done, work, 0.0), flat, envs, servers)
    open_w = by_cell(np.where(done, 0.0, w_sorted), flat, envs, servers)
    left = np.maximum(time - done_work, 0.0)
    v_end = np.divide(left, open_w, out=np.zeros_like(left), where=open_w > 0)
    busy = np.where(open_w > 0, time, np.minimum(done_work, time))

    fraction = np.where(done, 1.0, np.minimum(v_end.ravel()[flat] / np.maximum(v_sorted, 1e-300), 1.0))
    fraction = np.where(served_users, fraction, 0.0)
    back = np.empty_like(order)
    np.put_along_axis(back, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    served = backlog * np.take_along_axis(fraction, back, axis=1)
    finished = np.take_along_axis(np.where(done, finish, limit), back, axis=1)
    return served, finished, busy


def mg1_wait(
    load: FloatArray, mean_service: FloatArray, second_moment: FloatArray, *, load_limit: float = 0.98
) -> FloatArray:
    """Mean wait [...] of an M/G/1 queue, ``E[W] = rho s (1 + c^2) / (2 (1 - rho))`` (Pollaczek-Khinchine).

    ``s (1 + c^2) = E[S^2] / E[S]``. Beyond ``load_limit`` the wait stays at the limit's: the backlog that builds up
    there is carried from step to step by the caller.
    """
    rho = np.minimum(load, load_limit)
    spread = np.divide(second_moment, mean_service, out=np.zeros_like(second_moment), where=mean_service > 0)
    return rho * spread / (2.0 * (1.0 - rho))


def late_probability(
    slack: FloatArray, load: FloatArray, wait: FloatArray, pause: FloatArray, share: FloatArray
) -> FloatArray:
    """P(waiting + pause > slack) [...] for an M/G/1 queue behind a transmitter that sleeps part of each cycle.

    Waiting has ``P(W > t) = rho exp(-rho t / E[W])``; a packet that falls into the pause waits for its rest, uniform
    on ``[0, pause]``, as well.

    Args:
        slack: time left after the fixed parts of the delay [...]; negative means surely late.
        load: rho < 1.
        wait: E[W].
        pause: length of the pause.
        share: share of packets that fall into it.
    """
    pace = np.divide(load, wait, out=np.full_like(load, 1e30), where=wait > 0)
    ahead = np.maximum(slack, 0.0)
    after = np.maximum(slack - pause, 0.0)
    at_slack = np.exp(-np.minimum(pace * ahead, 700.0))
    at_rest = np.exp(-np.minimum(pace * after, 700.0))
    # The integral of the tail over the rest of the pause; where the rest exceeds the slack it is 1.
    integral = np.maximum(pause - ahead, 0.0) + load / np.maximum(pace, 1e-30) * (at_rest - at_slack)
    paused = np.divide(integral, pause, out=np.zeros_like(integral), where=pause > 0)
    late = (1.0 - share) * load * at_slack + share * paused
    return np.asarray(np.where(slack < 0, 1.0, np.minimum(late, 1.0)))


class Ring:
    """The last values of a running sum, by lag in steps.

    Attributes:
        data: [length, envs, users], the value of step t at ``t % length``.
    """

    def __init__(self, length: int, envs: int, users: int) -> None:
        self.data = np.zeros((length, envs, users))

    def write(self, step: int, values: FloatArray) -> None:
        """Keep the value of ``step`` [envs, users]."""
        self.data[step % len(self.data)] = values

    def lag(self, step: int, steps: int) -> FloatArray:
        """The value ``steps`` before ``step`` [envs, users]; 0 before the first step. At most length - 1."""
        return np.asarray(self.data[(step - steps) % len(self.data)])

    def clear(self) -> None:
        """Forget everything."""
        self.data[...] = 0.0
