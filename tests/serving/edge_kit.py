"""A platform's end of the link as processes see it, and exports to put in front of it.

Run as a script it is the server: ``edge_kit.py ROOT PORT [DIE_AFTER]``, with bundles ``ROOT/v1``, ``ROOT/v2`` and the
live version in ``ROOT/live``. After ``DIE_AFTER`` batches it dies between the log and the answer.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from support.bundles import policy_bundle
from support.serving_kit import PRINCIPAL, SECRET, deployment

from rlaas.bundles import MODEL, WEIGHTS, BundleManifest, write_manifest
from rlaas.errors import RlaasError
from rlaas.files import sha256_of
from rlaas.lake import Committer, Lake, WriteAheadLog
from rlaas.serving.edge import EdgeSync, Receipts, device_key, export_edge
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.loaded import LiveState
from rlaas.serving.loading import load_state
from rlaas.serving.problems import problem_of

DEVICE = "till7"


def exported(root: Path, name: str = "export", *, url: str = "http://127.0.0.1:9", **options: Any) -> Path:
    """The first version at ``root/v1``, exported for the device."""
    link = {"device": DEVICE, "url": url, "key": device_key(SECRET, DEVICE, tenant="default")}
    export_edge(root / "v1", root / name, policy="toy", version=1, device=link, decisions=1, **options)
    return root / name


def loaded(folder: Path, name: str = "rlaas_edge") -> ModuleType:
    """A module of an export, as a device imports it."""
    spec = importlib.util.spec_from_file_location(f"{name}_{abs(hash(folder))}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def choices_bundle(folder: Path, sizes: tuple[int, ...] = (2, 3)) -> Path:
    """A bundle with one choice in each of several components."""
    policy_bundle(folder, actions=sum(sizes), seed=5)
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["action"] = {"kind": "choices", "sizes": list(sizes)}
    manifest["files"] = {name: sha256_of(folder / name) for name in (MODEL, WEIGHTS)}
    write_manifest(folder, BundleManifest.model_validate(manifest))
    return folder


class Platform:
    """What a Gateway gives to its edge route: logs of its own, the lake, and what is live."""

    def __init__(self, root: Path, *, version: int = 1, seconds: float = 10.0) -> None:
        self.root = root
        self.decisions = WriteAheadLog(root / "wal", "decisions", "gateway")
        self.outcomes = WriteAheadLog(root / "wal", "outcomes", "gateway")
        self.sync = EdgeSync(
            secret=SECRET,
            decisions=self.decisions,
            outcomes=self.outcomes,
            receipts=Receipts(root / "wal", lambda: Lake(root / "lake"), "default"),
            locks=root / "edge-locks",
            bundle=lambda _, number: root / f"v{number}",
            lock_timeout_s=seconds,
        )
        self.state = self.live(version)

    def live(self, version: int) -> LiveState:
        record: DeploymentRecord = deployment("toy", [{"name": "champion", "version": version, "weight": 1}])
        state, failures = load_state(LiveState(), [record], {("toy", version): self.root / f"v{version}"})
        assert failures == {}
        return state

    def seal(self) -> None:
        self.decisions.seal()
        self.outcomes.seal()

    def close(self) -> None:
        self.decisions.close()
        self.outcomes.close()


def commit(root: Path) -> None:
    """What the committer does all the time."""
    Committer(Lake(root / "lake"), root / "wal").run_once()


def serve(root: Path, port: int, die_after: int | None) -> None:
    """The route as a Gateway mounts it."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    platform, version, taken = Platform(root), 1, 0

    async def answer(request: Request) -> Response:
        nonlocal taken, version
        if (wanted := int((root / "live").read_text())) != version:
            platform.state, version = platform.live(wanted), wanted
        body, signature = await request.body(), request.headers.get("x-rlaas-signature", "")
        try:
            found = await asyncio.to_thread(
                platform.sync.sync, PRINCIPAL, request.path_params["policy"], signature, body, platform.state
            )
        except RlaasError as problem:
            status, document = problem_of(problem)
            return Response(document, status)
        taken += bool(json.loads(body)["records"])
        if taken == die_after:
            os._exit(9)
        platform.seal()
        return Response(found.body, headers={"x-rlaas-signature": found.signature})

    app = Starlette(routes=[Route("/api/v1/edge/{policy}/sync", answer, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
