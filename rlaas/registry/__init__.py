"""The registry: policies by name and version, their aliases and their lineage, kept in MLflow.

MLflow takes seconds to import, so nothing here does so before the first call that needs it.
"""

from rlaas.registry.front_documents import parse_front, read_front
from rlaas.registry.fronts import FrontStore, StoredFront
from rlaas.registry.lineage import git_commit
from rlaas.registry.nested import NestedRuns
from rlaas.registry.registry import CHAMPION, Registry
from rlaas.registry.runs import PARENT_RUN_TAG, LiveRun
from rlaas.registry.store import Store
from rlaas.registry.versions import TENANT_TAG, PolicyVersion, check_alias

__all__ = [
    "CHAMPION",
    "PARENT_RUN_TAG",
    "TENANT_TAG",
    "FrontStore",
    "LiveRun",
    "NestedRuns",
    "PolicyVersion",
    "Registry",
    "Store",
    "StoredFront",
    "check_alias",
    "git_commit",
    "parse_front",
    "read_front",
]
