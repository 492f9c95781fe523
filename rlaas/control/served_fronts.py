"""Fronts for the Gateways: of each live version the candidates that it can decide as, written once as a small file."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from rlaas.bundles import MANIFEST, WEIGHTS, BundleManifest
from rlaas.errors import InvalidInputError, NotFoundError, RlaasError
from rlaas.files import write_bytes
from rlaas.fronts import Candidate, Front
from rlaas.registry import FrontStore, StoredFront
from rlaas.scenarios import ConstantController, Scenario, available, load
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.served_front import ServedCandidate, ServedFront, encode_front, front_key
from rlaas.serving.shield import action_of

__all__ = ["ServedFronts", "served_front"]

NETWORK = "weights_sha256"
"""Parameter of a candidate that names the weights of the policy it is."""


class ServedFronts:
    """Finds and writes them; thread-safe. What was found for a generation of a deployment stays for its life.

    Args:
        store: the fronts of the tenant.
        folder: where the files go, which the Gateways can read as they read bundles.
    """

    def __init__(self, store: FrontStore, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._files: dict[tuple[str, int], tuple[int, str | None]] = {}
        self._lock = threading.Lock()
        self._events = structlog.get_logger("rlaas.control")

    def paths(
        self, records: Mapping[tuple[str, int], DeploymentRecord], bundles: Mapping[tuple[str, int], str]
    ) -> dict[tuple[str, int], str]:
        """The files, by :func:`rlaas.serving.served_front.front_key`; a version without a front has none.

        Args:
            records: deployment by policy and version: with another generation a newer front may have come.
            bundles: folders by the same.
        """
        found = {key: self._file(*key, records[key].generation, Path(folder)) for key, folder in bundles.items()}
        return {front_key(*key): file for key, file in found.items() if file is not None}

    def _file(self, policy: str, version: int, generation: int, bundle: Path) -> str | None:
        with self._lock:
            known = self._files.get((policy, version))
            if known is not None and known[0] == generation:
                return known[1]
            try:
                found = self._write(policy, version, bundle)
            except (RlaasError, OSError, ValueError) as problem:  # the version is served without constraints then
                self._events.error("front_unavailable", policy=policy, version=version, error=str(problem))
                found = None
            self._files[policy, version] = generation, found
            return found

    def _write(self, policy: str, version: int, bundle: Path) -> str | None:
        manifest = BundleManifest.model_validate_json((bundle / MANIFEST).read_bytes())
        stored, own = self._find(policy, version, manifest.scenario)
        if stored is None:
            return None
        front = served_front(stored.front, manifest, own=own)
        if not front.candidates:
            return None
        target = self._folder / f"{policy}-{version}-{front.version}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(target, encode_front(front))
        return str(target)

    def _find(self, policy: str, version: int, scenario: str) -> tuple[StoredFront | None, bool]:
        """The front that the version was chosen from (True), else the newest of its scenario (False)."""
        try:
            return self._store.of_version(policy, version), True
        except NotFoundError:
            pass
        try:
            return self._store.find(scenario), False
        except NotFoundError:
            return None, False


def served_front(front: Front, manifest: BundleManifest, *, own: bool) -> ServedFront:
    """What a version can decide as: the candidates that are this policy, and configurations that are one action.

    Args:
        front: that was found.
        manifest: of the version.
        own: the version was chosen from this front, so that candidates which do not name their weights are its.
    """
    scenario = load(manifest.scenario) if manifest.scenario in available() else None
    if scenario is not None and front.reference_hash not in ("", scenario.reference_hash):
        scenario = None  # of another world, whose configurations may mean other actions
    found = [_candidate(candidate, manifest, scenario, own=own) for candidate in front.candidates]
    return ServedFront(
        version=front.version,
        objectives=front.names,
        candidates=tuple(candidate for candidate in found if candidate is not None),
    )


def _candidate(
    candidate: Candidate, manifest: BundleManifest, scenario: Scenario | None, *, own: bool
) -> ServedCandidate | None:
    if not 0 < len(candidate.name) <= 256 or not candidate.name.isprintable():
        return None  # the lake could not keep it
    preference: dict[str, float] | None = None
    action: Any = None
    if candidate.kind == "configuration":
        action = _action(candidate.parameters, manifest, scenario)
        if action is None:
            return None
    else:
        weights = candidate.parameters.get(NETWORK)
        mine = weights == manifest.files.get(WEIGHTS) if weights is not None else own and candidate.kind == "policy"
        preference = candidate.parameters.get("preference")
        if not mine or (manifest.preference_conditioned and not isinstance(preference, Mapping)):
            return None
    return ServedCandidate(
        name=candidate.name,
        mean=tuple(float(value) for value in candidate.mean),
        half_width=tuple(None if width == float("inf") else float(width) for width in candidate.half_width),
        preference=dict(preference) if manifest.preference_conditioned and preference is not None else None,
        action=action,
    )


def _action(parameters: Mapping[str, Any], manifest: BundleManifest, scenario: Scenario | None) -> Any:
    """The one action of a configuration, as answers hold it; None where it is none of the version's."""
    if scenario is None or parameters.get("tunable") not in scenario.tunables:
        return None
    values = parameters.get("values")
    family = scenario.tunables[str(parameters["tunable"])]
    if not isinstance(values, Mapping) or set(values) != set(family.parameters):
        return None
    controller = family.controller([values[name] for name in family.parameters])
    if not isinstance(controller, ConstantController):
        return None
    action = controller.action.tolist()
    try:
        action_of(action, manifest.action, "action")
    except InvalidInputError:  # of another form of the scenario
        return None
    return action
