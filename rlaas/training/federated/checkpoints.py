"""The federation on disk: one folder per finished round, written in one piece; the newest intact one counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from rlaas.errors import ConflictError
from rlaas.files import sync, write_bytes, write_text
from rlaas.training.federated.results import RoundResult

__all__ = ["FederationState", "load_newest", "write_state"]

KEPT = 2
MODEL, STATE = "model.safetensors", "state.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationState:
    """Everything that the coordinator knows between two rounds.

    Attributes:
        parameters: of the global model [n].
        scales: of the rewards, or None while no site has set them.
        moments: count, sums and sums of squares of all observations, as wide numbers; empty for a fixed normaliser.
        rho: privacy spent, zero-concentrated; failed tries that came as far as unmasking included.
        rounds: results so far.
        run_id: MLflow run of the federation, or None.
    """

    parameters: NDArray[np.float32]
    scales: NDArray[np.float32] | None
    moments: tuple[int, ...]
    rho: float
    rounds: tuple[RoundResult, ...]
    run_id: str | None

    @property
    def finished(self) -> int:
        """Rounds that are done."""
        return len(self.rounds)


def write_state(folder: Path, state: FederationState, digest: str) -> Path:
    """Write ``state`` as ``folder/round-NNNNNN`` and remove all but the last two.

    Args:
        folder: of the federation.
        state: to be kept.
        digest: of the configuration.
    """
    target = folder / f"round-{state.finished:06d}"
    partial = folder / f"{target.name}.partial"
    tensors = {"parameters": state.parameters}
    if state.scales is not None:
        tensors["scales"] = state.scales
    model = save(tensors)
    document = {
        "schema_version": SCHEMA_VERSION,
        "config": digest,
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "moments": [str(value) for value in state.moments],
        "rho": state.rho,
        "rounds": [result.to_dict() for result in state.rounds],
        "run_id": state.run_id,
    }
    body = json.dumps(document, sort_keys=True)
    sealed = json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "state": document}, indent=1)
    before = _read(target)
    if before is not None and before[0]["model_sha256"] == document["model_sha256"]:
        # The same model with more privacy spent: never without a state in between.
        write_text(target / STATE, sealed)
        sync(target)
        return target
    for old in (partial, target):
        shutil.rmtree(old, ignore_errors=True)
    partial.mkdir(parents=True)
    write_bytes(partial / MODEL, model)
    write_text(partial / STATE, sealed)
    sync(partial)
    partial.rename(target)
    sync(folder)
    for old in sorted(folder.glob("round-*[0-9]"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_newest(folder: Path, digest: str) -> FederationState | None:
    """The newest intact state in ``folder``, or None if there is none.

    Raises:
        ConflictError: the folder holds a federation of another configuration.
    """
    for path in sorted(folder.glob("round-*[0-9]"), reverse=True):
        read = _read(path)
        if read is None:
            continue
        document, tensors = read
        if document["config"] != digest:
            raise ConflictError(
                f"{folder} holds a federation of another configuration; give this one another name, or start it afresh",
                field="name",
            )
        return FederationState(
            parameters=tensors["parameters"],
            scales=tensors.get("scales"),
            moments=tuple(int(value) for value in document["moments"]),
            rho=float(document["rho"]),
            rounds=tuple(RoundResult.from_dict(result) for result in document["rounds"]),
            run_id=document["run_id"],
        )
    return None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """State and tensors of one folder; None if it is damaged, which a power cut may leave behind."""
    try:
        model, sealed = (path / MODEL).read_bytes(), json.loads((path / STATE).read_bytes())
        document: dict[str, Any] = sealed["state"]
        body = json.dumps(document, sort_keys=True)
        intact = hashlib.sha256(body.encode()).hexdigest() == sealed["sha256"]
        intact = intact and hashlib.sha256(model).hexdigest() == document["model_sha256"]
        return (document, load(model)) if intact else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
