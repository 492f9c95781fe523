"""An engine on real bundles and a real write-ahead log, without Ray and without HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaas.lake.batches import decisions_in
from rlaas.lake.records import DecisionRecord, OutcomeRecord, decode_outcome
from rlaas.lake.segments import read_segment
from rlaas.lake.wal import WriteAheadLog
from rlaas.serving.decision_ids import DecisionIds
from rlaas.serving.engine import DecisionEngine
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.loaded import LiveState
from rlaas.serving.loading import load_state
from rlaas.serving.pressure import Pressure
from rlaas.serving.principal import Principal

SECRET = b"a secret of the tests only"
PRINCIPAL = Principal("default")


def deployment(policy: str, variants: Sequence[dict[str, Any]], **fields: Any) -> DeploymentRecord:
    document = {
        "id": f"dep-{policy}",
        "tenant": "default",
        "policy": policy,
        "generation": 1,
        "variants": variants,
        "updated_us": 1,
        **fields,
    }
    return DeploymentRecord.model_validate(document)


@dataclass
class Bench:
    """An engine, and what it wrote."""

    engine: DecisionEngine
    ids: DecisionIds
    decisions: WriteAheadLog
    outcomes: WriteAheadLog
    paths: dict[tuple[str, int], Path]

    def switch(self, *records: DeploymentRecord) -> dict[str, str]:
        state, failures = load_state(self.engine.state, records, self.paths)
        self.engine.switch(state)
        return failures

    def decide(self, policy: str, **body: Any) -> dict[str, Any]:
        return json.loads(self.engine.decide(PRINCIPAL, policy, json.dumps(body).encode()))

    def report(self, body: Any) -> list[dict[str, Any]]:
        return json.loads(self.engine.record_outcomes(PRINCIPAL, json.dumps(body).encode()))["accepted"]

    def logged_decisions(self) -> list[DecisionRecord]:
        return [record for payload in _payloads(self.decisions) for record in decisions_in(payload)]

    def logged_outcomes(self) -> list[OutcomeRecord]:
        return [decode_outcome(payload) for payload in _payloads(self.outcomes)]


def make_bench(
    root: Path,
    paths: dict[tuple[str, int], Path],
    *records: DeploymentRecord,
    seed: int = 0,
    pressure: Pressure | None = None,
) -> Bench:
    ids = DecisionIds(SECRET, "test", tenant="default")
    decisions = WriteAheadLog(root / "wal", "decisions", "test")
    outcomes = WriteAheadLog(root / "wal", "outcomes", "test")
    engine = DecisionEngine(
        ids=ids,
        producer="test",
        decisions=decisions,
        outcomes=outcomes,
        max_rows=100,
        seed=seed,
        pressure=pressure,
    )
    bench = Bench(engine, ids, decisions, outcomes, paths)
    assert engine.state == LiveState()
    assert bench.switch(*records) == {}
    return bench


def _payloads(log: WriteAheadLog) -> list[bytes]:
    log.seal()
    return [payload for path in sorted(log.folder.glob("*.seg")) for payload in read_segment(path)]
