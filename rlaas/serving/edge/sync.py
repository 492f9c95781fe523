"""The platform's end of the link: takes what devices decided, exactly once, and hands out the live version.

Bytes in, bytes out, errors of :mod:`rlaas.errors` in between, like :mod:`rlaas.serving.engine`. A device makes its own
ids (UUIDv7 and version); the platform derives the decision id from them, always the same one, and that id is the
receipt under which the record is logged. A batch that comes again is recognised by its receipts, wherever it was taken
and whatever was restarted since.
"""

from __future__ import annotations

import base64
import fcntl
import hmac
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from rlaas.errors import InvalidInputError, LakeError, RequestError, RetryableError, RlaasError
from rlaas.serving.decision_ids import DecisionIds
from rlaas.serving.edge.export import edge_files
from rlaas.serving.edge.receipts import Receipts
from rlaas.serving.edge.records import Delivery, EdgeRecord, decode_record, deliver
from rlaas.serving.engine import Log
from rlaas.serving.loaded import LivePolicy, LiveState
from rlaas.serving.principal import Principal
from rlaas.serving.requests import malformed

__all__ = ["DeviceKeyError", "EdgeAnswer", "EdgeSync", "device_key"]

MAX_RECORDS = 20_000
_DEVICE = re.compile(r"[0-9a-z]{1,28}", re.ASCII)
_REMEMBERED = 8
_POLL_S = 0.02


class DeviceKeyError(RequestError):
    """A request that no device of this installation signed."""

    http_status = 401


@dataclass(frozen=True, slots=True)
class EdgeAnswer:
    """The answer to a device.

    Attributes:
        body: JSON.
        signature: goes into the header ``x-rlaas-signature``.
    """

    body: bytes
    signature: str


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: str
    nonce: str
    version: int
    int8: bool
    records: list[msgspec.Raw]


class _Taken(msgspec.Struct, frozen=True):
    id: str
    receipt_id: str
    duplicate: bool


class _Refused(msgspec.Struct, frozen=True):
    index: int
    id: str | None
    reason: str


class _Answer(msgspec.Struct, frozen=True):
    accepted: list[_Taken]
    refused: list[_Refused]
    version: int
    export: dict[str, str] | None
    export_error: str | None


def device_key(secret: bytes, device: str, *, tenant: str) -> str:
    """The key of a device, 64 hex digits: derived from the installation's secret, so nothing has to be stored.

    Raises:
        InvalidInputError: the device's name is not 1 to 28 lower-case letters and digits.
    """
    if not _DEVICE.fullmatch(device):
        raise InvalidInputError(f"device {device[:80]!r} must be 1 to 28 lower-case letters and digits", field="device")
    return hmac.digest(secret, f"rlaas-edge\0{tenant}\0{device}".encode(), "sha256").hex()


@dataclass
class EdgeSync:
    """Answers ``POST /api/v1/edge/{policy}/sync``.

    Thread-safe. One batch of a device is taken at a time, by whichever process of this host got it.

    Attributes:
        secret: the installation's, as signs decision ids.
        decisions: log of decisions.
        outcomes: log of outcomes.
        receipts: knows what was taken before.
        locks: folder for one lock a device, the same for all processes that take batches.
        bundle: folder of the bundle of a (policy, version).
        refusal: why a (policy, version) may not go to devices, None if it may; asked before a version is handed out,
            and raises :class:`~rlaas.errors.RlaasError` where nobody can say.
        lock_timeout_s: how long a batch waits for another one of its device.
    """

    secret: bytes
    decisions: Log
    outcomes: Log
    receipts: Receipts
    locks: Path
    bundle: Callable[[str, int], Path]
    refusal: Callable[[str, int], str | None] = lambda _policy, _version: None
    lock_timeout_s: float = 10.0
    _exports: OrderedDict[tuple[str, int, bool], dict[str, str]] = field(default_factory=OrderedDict, repr=False)

    def sync(self, principal: Principal, policy: str, signature: str, body: bytes, state: LiveState) -> EdgeAnswer:
        """Log what is new, acknowledge everything, and name the live version. Slow: call it off the event loop.

        A record that can never be taken is refused on its own, with the reason: it must not hold up those behind it.

        Args:
            principal: who asks.
            policy: from the path.
            signature: HMAC-SHA256 by the device's key over policy, a zero byte and body, in hex.
            body: ``{"device", "nonce", "version", "int8", "records": [...]}``.
            state: what is live.

        Raises:
            MalformedBodyError: not JSON.
            InvalidInputError: JSON of another shape.
            DeviceKeyError: the signature is not that of the device.
            NotFoundError: the policy is not live; the device keeps its records.
            RetryableError: the log cannot take the records now; what was taken is recognised next time.
        """
        batch = _decode(body)
        key = bytes.fromhex(device_key(self.secret, batch.device, tenant=principal.tenant))
        proof = hmac.digest(key, policy.encode() + b"\0" + body, "sha256").hex()
        if not hmac.compare_digest(proof.encode(), signature.encode("utf-8", "replace")):
            raise DeviceKeyError("x-rlaas-signature is not that of the device over this body", field="signature")
        live = state.policy(policy)
        refused: list[_Refused] = []
        deliveries = self._deliveries(principal, live, batch, refused)
        with self._alone(batch.device):
            accepted = self._take(batch.device, deliveries)
        export, export_error = None, None
        if batch.version != live.primary.version:
            try:
                export_error = self.refusal(policy, live.primary.version)
                if export_error is None:
                    export = self._export(policy, live.primary.version, batch.int8)
            except RlaasError as problem:  # the records are safe, and the device goes on with what it has
                export_error = problem.message
        answer = msgspec.json.encode(_Answer(accepted, refused, live.primary.version, export, export_error))
        return EdgeAnswer(answer, hmac.digest(key, proof.encode() + answer, "sha256").hex())

    def _deliveries(
        self, principal: Principal, live: LivePolicy, batch: _Batch, refused: list[_Refused]
    ) -> list[Delivery]:
        # A producer of its own kind: no Gateway can have signed, nor ever sign, an id of a device.
        ids = DecisionIds(self.secret, f"edge{batch.device}", tenant=principal.tenant)
        received_us = time.time_ns() // 1000
        deliveries: list[Delivery] = []
        for index, raw in enumerate(batch.records):
            record: EdgeRecord | None = None
            try:
                record = decode_record(bytes(raw))
                deliveries.append(deliver(record, live, ids, principal.tenant, batch.device, received_us))
            except RequestError as problem:
                refused.append(_Refused(index, record.id if record else None, problem.message))
        return deliveries

    def _take(self, device: str, deliveries: Sequence[Delivery]) -> list[_Taken]:
        marker = f'"edge-{device}"'.encode()
        try:
            known = {
                stream: self.receipts.known(
                    stream,
                    {item.receipt_id for item in deliveries if item.stream == stream},
                    marker=marker,
                    dates={item.date for item in deliveries} if stream == "decisions" else None,
                )
                for stream in ("decisions", "outcomes")
            }
            accepted: list[_Taken] = []
            fresh: dict[str, list[bytes]] = {"decisions": [], "outcomes": []}
            for item in deliveries:
                duplicate = item.receipt_id in known[item.stream]
                accepted.append(_Taken(item.id, item.receipt_id, duplicate))
                if not duplicate:
                    known[item.stream].add(item.receipt_id)
                    fresh[item.stream].append(item.payload)
            # Decisions first: an outcome never waits for a decision that was not logged.
            self.decisions.append(fresh["decisions"])
            self.outcomes.append(fresh["outcomes"])
        except LakeError as problem:
            raise RetryableError("the records cannot be logged now; send them again later") from problem
        return accepted

    @contextmanager
    def _alone(self, device: str) -> Iterator[None]:
        self.locks.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.locks / f"{device}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            deadline = time.monotonic() + self.lock_timeout_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise RetryableError(f"another batch of device {device!r} is being taken") from None
                    time.sleep(_POLL_S)
            yield
        finally:
            os.close(handle)

    def _export(self, policy: str, version: int, int8: bool) -> dict[str, str]:
        found = self._exports.get((policy, version, int8))
        if found is None:
            files = edge_files(self.bundle(policy, version), policy, version, int8=int8)
            found = {name: base64.b64encode(content).decode() for name, content in files.items()}
            self._exports[policy, version, int8] = found
            while len(self._exports) > _REMEMBERED:
                self._exports.popitem(last=False)
        return found


_BATCH = msgspec.json.Decoder(_Batch)


def _decode(body: bytes) -> _Batch:
    try:
        batch = _BATCH.decode(body)
    except msgspec.ValidationError as problem:
        raise InvalidInputError(f"body: {problem}", field="body") from problem
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise malformed(body, problem) from problem
    if len(batch.records) > MAX_RECORDS:
        raise InvalidInputError(
            f"records has {len(batch.records)} entries; at most {MAX_RECORDS} are allowed", field="records"
        )
    return batch
