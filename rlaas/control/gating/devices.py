"""The gate before devices: an export, and the version that a device takes when its link returns."""

from __future__ import annotations

import threading

from rlaas.control.gating.override import Override
from rlaas.control.gating.service import GateService, refusal_of
from rlaas.control.gating.store import GateEvent, StoredGate
from rlaas.errors import ConflictError
from rlaas.registry import Registry
from rlaas.serving.live import Variant

__all__ = ["DeviceGate"]


class DeviceGate:
    """Asks the gate of a policy before a version goes to devices, which decide on live traffic by its mode.

    Args:
        gates: of the tenant.
        registry: of the versions.
    """

    def __init__(self, gates: GateService, registry: Registry) -> None:
        self._gates, self._registry = gates, registry
        self._asking = threading.Lock()

    def ask(self, policy: str, version: int, override: Override, *, again: bool = True) -> None:
        """Let a version go to devices, or refuse it.

        Not asked are a version that has served on its own, and one that was let go to devices under this declaration.
        While a rollout or an experiment is running, its versions have not served on their own yet.

        Args:
            policy: whose gate.
            version: that shall go.
            override: who asks; with a reason it lets through what does not pass.
            again: judge anew what was refused before. Otherwise it stays refused until an operator says something, so
                that whoever asks again and again does not pass by chance.

        Raises:
            NotFoundError: no such policy or version.
            ConflictError: the version does not pass and there is no override.
            LakeError: the lake cannot be read.
        """
        self._registry.get(policy, version)
        # One at a time: many devices come back at once, and one judgement is enough for all of them.
        with self._asking:
            store = self._gates.store
            gate = store.gate(policy)
            if gate is None or version in self._gates.on_their_own(policy):
                return
            last = self._last(policy, version, gate)
            if last is not None and last.kind in ("passed", "overridden"):
                return
            if last is not None and last.kind == "refused" and not again:
                raise ConflictError(
                    f"{policy}:{version} may not go to devices: {last.reason}; an operator lets it through with rlaas "
                    "policies gate override",
                    field="override",
                )
            variant = Variant(name="edge", version=version, weight=1.0)
            judged = self._gates.judged(policy, gate, variant)
            passed = judged.verdict.outcome == "passed"
            word = override if passed else self._gates.word(policy, gate, version, override)
            refused = self._gates.settle(policy, variant, judged, word, edge=True)
        if refused is not None:
            raise ConflictError(refusal_of(refused), field="override")

    def _last(self, policy: str, version: int, gate: StoredGate) -> GateEvent | None:
        """The last word on a version for devices since the declaration; an operator's word beforehand is one too."""
        mine = (event for _, event in self._gates.store.events(policy) if event.version == version)
        return next((e for e in mine if (e.edge or e.kind == "promised") and e.time_us >= gate.declared_us), None)
