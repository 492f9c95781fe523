"""Decisions of a policy in a span of time, with what came of them, from the lake."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlaas.errors import NotFoundError
from rlaas.lake import Lake
from rlaas.monitoring.aggregates import flat_lists, outcome_streams
from rlaas.monitoring.check import Traffic

__all__ = ["read_traffic"]


def read_traffic(lake: Lake, policy: str, since_us: int, until_us: int, *, version: int | None = None) -> Traffic:
    """Decisions from ``bronze.decisions`` and outcomes from ``silver.transitions``.

    Args:
        lake: where they are.
        policy: that decided.
        since_us, until_us: UTC microseconds; the end is not included.
        version: of the policy; None: any.

    Raises:
        NotFoundError: there is no decision of it in that time.
        LakeError: a table is damaged.
    """
    of = (pc.field("policy") == policy) & (pc.field("time_us") >= since_us) & (pc.field("time_us") < until_us)
    if version is not None:
        of &= pc.field("version") == version
    rows = lake.read("bronze.decisions", ["decision_id", "observation", "action"], filter=of)
    widths = pc.list_value_length(rows["observation"])
    if len(rows):  # a version of another shape may have been live, too
        usual = pc.mode(widths)[0]["mode"].as_py()
        rows = rows.filter(pc.equal(widths, usual))
    observation, action = flat_lists(rows["observation"]), flat_lists(rows["action"])
    if observation is None or action is None:
        raise NotFoundError(
            f"there is no decision of policy {policy!r} between {since_us} and {until_us}", field="policy"
        )
    discrete = action.shape[1] == 1 and bool(np.all((action == np.floor(action)) & (action >= 0)))
    known = lake.read("silver.transitions", ["decision_id", "outcome"], filter=of)
    place = pc.index_in(rows["decision_id"], value_set=known["decision_id"].combine_chunks())
    there = pc.is_valid(place).to_numpy(zero_copy_only=False)
    outcomes: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
    if there.any():
        taken = known.take(pc.drop_null(place))
        for stream, values in outcome_streams(pa.table({"outcome": taken["outcome"]})).items():
            whole = np.full(len(rows), np.nan)
            whole[there] = values
            outcomes[stream.removeprefix("outcome.")] = whole
    return Traffic(observations=observation, actions=action, discrete=discrete, outcomes=outcomes)
