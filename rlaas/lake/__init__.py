"""The lake: a write-ahead log, Delta tables, and the committer and joins between them.

A Gateway writes :mod:`~rlaas.lake.records` to a :class:`~rlaas.lake.wal.WriteAheadLog` and acknowledges; the
:class:`~rlaas.lake.committer.Committer` moves them into ``bronze`` exactly once;
:func:`~rlaas.lake.joins.update_transitions` joins them into ``silver.transitions``.

Names are loaded on first use: a Gateway that needs only the log and the records never loads Delta or Arrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.lake.archives import read_across
    from rlaas.lake.committer import CommitReport, Committer
    from rlaas.lake.dataset_diff import diff_datasets
    from rlaas.lake.datasets import Dataset, create_dataset, dataset, read_dataset, replace_datasets
    from rlaas.lake.gold import training_rows, update_training
    from rlaas.lake.housekeeping import keep_up
    from rlaas.lake.joins import join_outcomes, rebuild, update_transitions
    from rlaas.lake.lifecycle import LakePlan, load_lake_plan
    from rlaas.lake.loop import CommitterLoop, JoinLoop
    from rlaas.lake.maintenance import maintain
    from rlaas.lake.records import DecisionRecord, OutcomeRecord, decode_decision, decode_outcome, encode
    from rlaas.lake.retention import retain
    from rlaas.lake.schemas import TABLES
    from rlaas.lake.segments import read_segment
    from rlaas.lake.tables import Lake
    from rlaas.lake.verification import LogVerification, Verification, Verifications, verify, verify_log
    from rlaas.lake.wal import WriteAheadLog

__all__ = [
    "TABLES",
    "CommitReport",
    "Committer",
    "CommitterLoop",
    "Dataset",
    "DecisionRecord",
    "JoinLoop",
    "Lake",
    "LakePlan",
    "LogVerification",
    "OutcomeRecord",
    "Verification",
    "Verifications",
    "WriteAheadLog",
    "create_dataset",
    "dataset",
    "decode_decision",
    "decode_outcome",
    "diff_datasets",
    "encode",
    "join_outcomes",
    "keep_up",
    "load_lake_plan",
    "maintain",
    "read_across",
    "read_dataset",
    "read_segment",
    "rebuild",
    "replace_datasets",
    "retain",
    "training_rows",
    "update_training",
    "update_transitions",
    "verify",
    "verify_log",
]

_HOME = {
    "TABLES": "schemas",
    "CommitReport": "committer",
    "Committer": "committer",
    "CommitterLoop": "loop",
    "Dataset": "datasets",
    "DecisionRecord": "records",
    "JoinLoop": "loop",
    "Lake": "tables",
    "LakePlan": "lifecycle",
    "LogVerification": "verification",
    "OutcomeRecord": "records",
    "Verification": "verification",
    "Verifications": "verification",
    "WriteAheadLog": "wal",
    "create_dataset": "datasets",
    "dataset": "datasets",
    "decode_decision": "records",
    "decode_outcome": "records",
    "diff_datasets": "dataset_diff",
    "encode": "records",
    "join_outcomes": "joins",
    "keep_up": "housekeeping",
    "load_lake_plan": "lifecycle",
    "maintain": "maintenance",
    "read_across": "archives",
    "read_dataset": "datasets",
    "read_segment": "segments",
    "rebuild": "joins",
    "replace_datasets": "datasets",
    "retain": "retention",
    "training_rows": "gold",
    "update_training": "gold",
    "update_transitions": "joins",
    "verify": "verification",
    "verify_log": "verification",
}

__getattr__, __dir__ = lazy_names(__name__, _HOME)
