"""Decides and stores at the edge: numpy, onnxruntime, the standard library. The manual is docs/edge.md of rlaas."""

import fcntl
import hashlib
import json
import os
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Model:
    """One version of the policy; it decides only after its digests and its golden batch were right."""

    def __init__(self, folder: Path) -> None:
        for digest, name in map(str.split, (folder / "SHA256SUMS").read_text().splitlines()):
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                raise ValueError(f"{folder / name} does not match its digest")
        self.about, golden = (json.loads((folder / name).read_text()) for name in ("edge.json", "golden.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(folder / "policy.onnx", options, ["CPUExecutionProvider"])
        out = self.session.run(list(golden["outputs"]), {n: np.float32(rows) for n, rows in golden["inputs"].items()})
        for found, wanted in zip(out, map(np.array, golden["outputs"].values()), strict=True):
            if not np.all(np.abs(found - wanted) <= self.about["tolerance"] * np.maximum(1, np.abs(wanted))):
                raise ValueError(f"{folder}: the golden batch disagrees")

    def act(self, row: Any, mode: str | None, given: dict[str, float] | None) -> tuple[Any, dict[str, float] | None]:
        """The action for one observation [n_features], within its bounds, and the preference it was taken under."""
        about, feed, used, allowed = self.about, {"observation": row[None]}, None, self.about["preferences"]
        if row.shape != (about["n_features"],) or not np.isfinite(row).all():
            raise ValueError(f"observation must hold {about['n_features']} finite numbers")
        if (mode or "") not in allowed or (mode and given is not None):
            raise ValueError(f"mode {mode!r}; allowed: one of {list(allowed)}, and no preference with it")
        if about["preference_conditioned"]:
            weights = dict.fromkeys(allowed[""], 0.0) | (allowed[mode or ""] if given is None else given)
            share = np.array([*weights.values()], np.float64)
            if len(share) > len(allowed[""]) or not (share >= 0).all() or not 0 < share.sum() < np.inf:
                raise ValueError(f"preference {given}; allowed: weights >= 0, not all 0, of {list(allowed[''])}")
            used = dict(zip(weights, (share / share.sum()).tolist(), strict=True))
            feed["preference"] = np.array([[*used.values()]], np.float32)
        action, head = self.session.run(["action", about["head"]], feed)
        if not np.isfinite(head).all():
            raise ArithmeticError("the output of the network is not finite: act by your safe default")
        return action[0].tolist(), used


class Edge:
    """A policy and the store of what it decided; one process at a time has a folder. Thread-safe."""

    def __init__(self, folder: str | Path, *, max_bytes: int = 2**26, fsync: bool = False) -> None:
        self.folder, self.max_bytes, self.fsync, self.lock = Path(folder), max_bytes, fsync, threading.Lock()
        self.store, self.current, self.dropped = self.folder / "store", self.folder / "current", 0
        self.store.mkdir(exist_ok=True)
        self.held = os.open(self.store / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.model = Model(self.folder / self.current.read_text() if self.current.exists() else self.folder)
        segments = sorted(self.store.glob("*.log"))
        self.number, self.size = int(segments[-1].stem) + 1 if segments else 1, sum(s.stat().st_size for s in segments)

    def decide(self, observation: Any, mode: str | None = None, preference: Any = None, **more: Any) -> dict[str, Any]:
        """Decide and store (more: session, step, unit, context); an id of None says that the store took no more."""
        model, row = self.model, np.asarray(observation, np.float32)
        action, weights = model.act(row, mode, preference)
        made = {"version": model.about["version"], "action": action}
        more |= {"observation": row.tolist(), "mode": mode, "preference": weights, **made}
        return {"decision_id": self._keep("decision", more), "policy": model.about["policy"], **made}

    def outcome(self, decision_id: str, outcome: dict[str, float], **more: Any) -> str | None:
        """Store what came of a decision (more: outcome_id, revision, terminated, truncated)."""
        if not {*outcome} <= {*self.model.about["outcome_fields"]}:
            raise ValueError(f"outcome {outcome}; allowed: {self.model.about['outcome_fields']}")
        return self._keep("outcome", more | {"decision_id": decision_id, "outcome": outcome})

    def _keep(self, kind: str, record: dict[str, Any]) -> str | None:
        """Write one checksummed line in one call: with an id returned it survives kill -9, with None it was dropped."""
        now, noise, allowed = time.time_ns(), os.urandom(9).hex(), self.model.about["fields"][kind]
        if not {*record} <= {*allowed}:
            raise TypeError(f"{kind} has {list(record)}; allowed: {allowed}")
        name = f"{now // 10**6:012x}7{noise[:3]}8{noise[3:]}-{record.get('version', 0)}"  # UUIDv7 of RFC 9562
        record = {"kind": kind, "id": name, "time_us": now // 1000, **record}
        data = json.dumps(record, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        line = b"%08x %b\n" % (zlib.crc32(data), data)
        with self.lock:
            with suppress(OSError), (self.store / f"{self.number:08d}.log").open("ab", buffering=0) as file:
                if self.size + len(line) <= self.max_bytes:
                    self.size += (written := file.write(line))
                    self.number += written < len(line) or file.tell() > 2**18  # never write behind a torn line
                    if self.fsync:
                        os.fsync(file.fileno())
                    if written == len(line):
                        return name
            self.dropped += 1
            return None
