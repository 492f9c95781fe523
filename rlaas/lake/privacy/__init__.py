"""Privacy of the lake: tokens on the way in, erasure, and aggregates with noise.

* :func:`~rlaas.lake.privacy.guard.protected_lake` opens the lake of an installation with its policy and vault;
* :class:`~rlaas.lake.privacy.erasure.Eraser` takes a subject out of everything, and
  :func:`~rlaas.lake.privacy.reports.verify_report` checks what it signed;
* :func:`~rlaas.lake.privacy.aggregates.aggregate` counts, sums and averages under differential privacy, paid for from
  a :class:`~rlaas.lake.privacy.budget.Budget`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaas.lazy import lazy_names

if TYPE_CHECKING:
    from rlaas.lake.privacy.aggregates import Query, aggregate
    from rlaas.lake.privacy.budget import Budget
    from rlaas.lake.privacy.erasure import Eraser
    from rlaas.lake.privacy.guard import Gate, ProtectedLake, protected_lake
    from rlaas.lake.privacy.policy import PrivacyPolicy, TableRules
    from rlaas.lake.privacy.reports import verify_report
    from rlaas.lake.privacy.vault import Vault

_HOME = {
    "Budget": "budget",
    "Eraser": "erasure",
    "Gate": "guard",
    "PrivacyPolicy": "policy",
    "ProtectedLake": "guard",
    "Query": "aggregates",
    "TableRules": "policy",
    "Vault": "vault",
    "aggregate": "aggregates",
    "protected_lake": "guard",
    "verify_report": "reports",
}

__all__ = [
    "Budget",
    "Eraser",
    "Gate",
    "PrivacyPolicy",
    "ProtectedLake",
    "Query",
    "TableRules",
    "Vault",
    "aggregate",
    "protected_lake",
    "verify_report",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
