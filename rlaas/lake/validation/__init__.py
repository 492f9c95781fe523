"""Contracts over tables of the lake: rules that rows keep, clauses that a table keeps, and reports of both.

:func:`validate` checks tables of bronze and silver, lists bad rows in ``quarantine.*`` and stores a report;
:func:`check_transitions` is the contract that a pipeline holds pinned transitions to before a policy is judged by them.
"""

from rlaas.lake.validation.checks import Check
from rlaas.lake.validation.config import VALIDATED, TableContract, ValidationConfig, load_validation_config
from rlaas.lake.validation.contract import ContractConfig, check_transitions
from rlaas.lake.validation.reports import TableReport, newest_reports
from rlaas.lake.validation.run import validate
from rlaas.lake.validation.volume import VolumeConfig

__all__ = [
    "VALIDATED",
    "Check",
    "ContractConfig",
    "TableContract",
    "TableReport",
    "ValidationConfig",
    "VolumeConfig",
    "check_transitions",
    "load_validation_config",
    "newest_reports",
    "validate",
]
