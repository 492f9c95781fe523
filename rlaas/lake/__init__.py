"""The lake: a write-ahead log, Delta tables, and the committer and joins between them.

A Gateway writes :mod:`~rlaas.lake.records` to a :class:`~rlaas.lake.wal.WriteAheadLog` and acknowledges; the
:class:`~rlaas.lake.committer.Committer` moves them into ``bronze`` exactly once;
:func:`~rlaas.lake.joins.update_transitions` joins them into ``silver.transitions``.

Names are loaded on first use: a Gateway that needs only the log and the records never loads Delta or Arrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaas.lake.committer import CommitReport, Committer
    from rlaas.lake.joins import join_outcomes, update_transitions
    from rlaas.lake.loop import CommitterLoop
    from rlaas.lake.records import DecisionRecord, OutcomeRecord, decode_decision, decode_outcome, encode
    from rlaas.lake.schemas import TABLES
    from rlaas.lake.segments import read_segment
    from rlaas.lake.tables import Lake
    from rlaas.lake.verification import Verification, Verifications, verify
    from rlaas.lake.wal import WriteAheadLog

__all__ = [
    "TABLES",
    "CommitReport",
    "Committer",
    "CommitterLoop",
    "DecisionRecord",
    "Lake",
    "OutcomeRecord",
    "Verification",
    "Verifications",
    "WriteAheadLog",
    "decode_decision",
    "decode_outcome",
    "encode",
    "join_outcomes",
    "read_segment",
    "update_transitions",
    "verify",
]

_HOME = {
    "TABLES": "schemas",
    "CommitReport": "committer",
    "Committer": "committer",
    "CommitterLoop": "loop",
    "DecisionRecord": "records",
    "Lake": "tables",
    "OutcomeRecord": "records",
    "Verification": "verification",
    "Verifications": "verification",
    "WriteAheadLog": "wal",
    "decode_decision": "records",
    "decode_outcome": "records",
    "encode": "records",
    "join_outcomes": "joins",
    "read_segment": "segments",
    "update_transitions": "joins",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rlaas.lake' has no attribute {name!r}")
    return getattr(importlib.import_module(f"rlaas.lake.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
