"""Which policies are in memory: all where they fit, otherwise those used last.

An installation may have thousands of policies live of which a few are asked at any hour. Beyond the limit the least
recently used one goes when another is asked for; the request that asks waits while it is loaded, off the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlaas.errors import BundleError
from rlaas.serving.entities import FeatureCatalogue
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.loaded import LiveState
from rlaas.serving.loading import load_state

__all__ = ["Residents"]


class Residents:
    """Loads and drops policies; thread-safe.

    Args:
        most: policies in memory at a time.
        catalogue: where the features are that deployments declare; None: there are none.

    Attributes:
        state: what is served now.
        failures: why a deployment could not be loaded, by its id.
    """

    def __init__(self, most: int, catalogue: FeatureCatalogue | None = None) -> None:
        self._most = most
        self._catalogue = catalogue
        self._records: dict[str, DeploymentRecord] = {}
        self._paths: Mapping[tuple[str, int], Path] = {}
        self._lock = threading.Lock()
        self.state = LiveState()
        self.failures: dict[str, str] = {}

    def path(self, policy: str, version: int) -> Path:
        """Folder of a bundle.

        Raises:
            BundleError: the registry has none.
        """
        found = self._paths.get((policy, version))
        if found is None:
            raise BundleError(f"the registry has no bundle of {policy} version {version}", field="version")
        return found

    def is_current(self, records: Sequence[DeploymentRecord]) -> bool:
        """Whether exactly these records are served, none of them after a failure."""
        return not self.failures and self._records == {record.policy: record for record in records}

    def follow(
        self, records: Sequence[DeploymentRecord], paths: Mapping[tuple[str, int], Path], used: Mapping[str, int]
    ) -> LiveState:
        """Serve ``records``; slow, since it reads files.

        Args:
            records: everything that is live.
            paths: folder of the bundle of each (policy, version).
            used: when each policy was last asked, in any unit that grows.
        """
        with self._lock:
            self._records = {record.policy: record for record in records}
            self._paths = paths
            return self._load(self._order(used))

    def admit(self, policy: str, used: Mapping[str, int]) -> LiveState:
        """Have ``policy`` in memory, in place of the one that was used longest ago; slow."""
        with self._lock:
            if policy in self.state.policies or policy not in self._records:
                return self.state
            return self._load([policy, *(name for name in self._order(used) if name != policy)])

    def _order(self, used: Mapping[str, int]) -> list[str]:
        """Names by right to stay: those in memory and used last, then what changed last."""
        loaded = self.state.policies
        return sorted(
            self._records,
            key=lambda name: (name in loaded, used.get(name, 0), self._records[name].updated_us, name),
            reverse=True,
        )

    def _load(self, order: Sequence[str]) -> LiveState:
        keep = frozenset(order[: self._most])
        self.state, self.failures = load_state(
            self.state, tuple(self._records.values()), self._paths, keep=keep, catalogue=self._catalogue
        )
        return self.state
