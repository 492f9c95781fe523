"""Syncs an edge with its platform over HTTP: the standard library only. The manual is docs/edge.md of rlaas."""

import base64
import hmac
import json
import os
import shutil
import threading
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any


class Link:
    """The way to the platform, which may be cut at any moment: only what was acknowledged leaves the store.

    Args:
        edge: the ``rlaas_edge.Edge`` whose decisions are sent and whose version is replaced.
        timeout_s: how long one request may take.
        pauses_s: waits between the tries of one request.
    """

    def __init__(self, edge: Any, *, timeout_s: float = 30.0, pauses_s: tuple[float, ...] = (0.5, 2.0)) -> None:
        self.edge, self.timeout_s, self.pauses_s = edge, timeout_s, pauses_s
        self.device: dict[str, str] = json.loads((edge.folder / "device.json").read_text())
        self.last: dict[str, Any] = {}
        self.stopped, self.busy = threading.Event(), threading.Lock()

    def follow(self, seconds: float = 30.0) -> threading.Thread:
        """Sync every so many seconds in the background until ``stopped`` is set; ``last`` holds the newest report."""

        def run() -> None:
            while not self.stopped.wait(seconds):
                self.sync()

        thread = threading.Thread(target=run, name="rlaas-edge-link", daemon=True)
        thread.start()
        return thread

    def sync(self) -> dict[str, Any]:
        """Send what is stored, oldest first, and take the live version. A cut link is reported, not raised.

        Returns:
            ``accepted`` and ``duplicates``: records that the platform has now, and those of them that it had before;
            ``refused``: those that it never takes, with the reason; ``damaged``: lines that failed their checksum;
            ``version``: in use now; ``left``: bytes not sent; ``error``: why it stopped early, or None.
        """
        with self.busy:
            self.last = self._sync()
            return self.last

    def _sync(self) -> dict[str, Any]:
        edge = self.edge
        report: dict[str, Any] = {"accepted": 0, "duplicates": 0, "refused": [], "damaged": 0, "error": None}
        with edge.lock:
            edge.number += (edge.store / f"{edge.number:08d}.log").exists()
            segments = sorted(path for path in edge.store.glob("*.log") if int(path.stem) < edge.number)
        try:
            for path in segments or [None]:
                self._send(path, report)
        except urllib.error.HTTPError as problem:
            report["error"] = f"{problem}: {problem.read(1000).decode(errors='replace')}"
        except (OSError, HTTPException, ValueError) as problem:
            report["error"] = f"{type(problem).__name__}: {problem}"
        return {**report, "version": edge.model.about["version"], "left": edge.size}

    def _send(self, path: Path | None, report: dict[str, Any]) -> None:
        """One segment in one request; it is deleted once the platform has answered for every record in it."""
        edge, records, damaged = self.edge, [], 0
        for line in path.read_bytes().split(b"\n") if path else []:
            if line[:8] == b"%08x" % zlib.crc32(line[9:]):
                records.append(json.loads(line[9:]))
            else:
                damaged += line != b""
        about = edge.model.about
        answer = self._ask(about["policy"], {"version": about["version"], "int8": about["int8"], "records": records})
        report["accepted"] += len(answer["accepted"])
        report["duplicates"] += sum(item["duplicate"] for item in answer["accepted"])
        report["refused"] += answer["refused"]
        report["damaged"] += damaged
        if path:
            with edge.lock:
                edge.size -= path.stat().st_size
                path.unlink()
        if answer["export"]:
            self._install(answer["version"], answer["export"])

    def _ask(self, policy: str, message: dict[str, Any]) -> dict[str, Any]:
        """Post a signed message; the signature of the answer covers that of the message, so it cannot be an old one."""
        message = {"device": self.device["device"], "nonce": os.urandom(16).hex(), **message}
        body, url = json.dumps(message).encode(), f"{self.device['url'].rstrip('/')}/api/v1/edge/{policy}/sync"
        proof = self._sign(policy.encode() + b"\0" + body)
        headers = {"content-type": "application/json", "x-rlaas-signature": proof}
        for pause in (*self.pauses_s, None):
            try:
                request = urllib.request.Request(url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:
                    content, signature = reply.read(), reply.headers["x-rlaas-signature"] or ""
                break
            except (OSError, HTTPException) as problem:
                # What the platform refuses it refuses again; everything else may pass.
                if pause is None or getattr(problem, "code", 503) not in {408, 425, 429, 500, 502, 503, 504}:
                    raise
                self.stopped.wait(pause)
        if not hmac.compare_digest(signature, self._sign(proof.encode() + content)):
            raise ValueError("the answer is not signed by the platform")
        answer: dict[str, Any] = json.loads(content)
        return answer

    def _sign(self, content: bytes) -> str:
        return hmac.new(bytes.fromhex(self.device["key"]), content, "sha256").hexdigest()

    def _install(self, version: int, files: dict[str, str]) -> None:
        """Write a version beside the one in use, check it, and switch to it from the next decision on."""
        edge, target = self.edge, self.edge.folder / f"v{version}"
        target.mkdir(exist_ok=True)
        for name, content in files.items():
            (target / name).write_bytes(base64.b64decode(content))
        model = type(edge.model)(target)
        for what in ("policy", "features", "action"):
            if model.about[what] != edge.model.about[what]:
                raise ValueError(f"version {version} has another {what}: install its export by hand")
        os.sync()
        before = edge.current.read_text() if edge.current.exists() else ""
        pointer = edge.current.with_suffix(".new")
        pointer.write_text(target.name)
        pointer.replace(edge.current)
        edge.model = model
        for old in edge.folder.glob("v[0-9]*"):
            if old.name not in {target.name, before}:
                shutil.rmtree(old)
