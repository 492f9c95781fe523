"""Faults under load: what a client notices while processes of the platform are killed or replaced.

    python -m benchmarks.serving_faults [--quick] [--json] [--only kills control controller proxy scale redeploy]

Three Gateways behind HAProxy answer 200 decisions a second. The client (:mod:`benchmarks.serving_faults_client`) is a
process of its own. Meanwhile:

* ``kills``: a Gateway gets ``kill -9`` every 10 s for 5 minutes.
* ``control``: the Control replica is killed; promotions have to work again.
* ``controller``: Serve's controller is killed; the pool has to be resizable again.
* ``proxy``: HAProxy is killed, the only one there is, five times; then it has to hear of a new Gateway.
* ``scale``: the pool goes from 3 to 1 and back.
* ``redeploy``: the application is deployed anew with another option, which replaces every process of it.

In the end the lake is flushed, and every decision that was acknowledged has to be in ``bronze.decisions`` once.

A request fails where its *first* attempt brings no decision; what is left after one repeat 0.1 s later, and after four
with doubling pauses (the patience of ``rlaas.Client``), stands beside it. The client repeats whatever failed; that of
the platform repeats ``decide`` only where the connection was refused, because an answer that was lost on the way back
means a decision in the log that nobody acts on.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.serving_faults_client import ATTEMPTS, Answer, Load
from benchmarks.serving_faults_platform import Platform, started, until

__all__ = ["Span", "fault_run", "lost_or_doubled"]

SECTIONS = ("kills", "control", "controller", "proxy", "scale", "redeploy")
_KILL_EVERY_S = 10.0
_PROXY_KILLS = 5


@dataclass(frozen=True, slots=True)
class Span:
    """What clients saw in one part of the run.

    Attributes:
        name: of the part.
        answers: the requests that were due in it.
        facts: what else was measured: description, and seconds or a count.
    """

    name: str
    answers: Sequence[Answer]
    facts: dict[str, float]

    def failed(self, attempts: int) -> int:
        """Requests that so many attempts did not bring a decision."""
        return sum(not 0 < answer.attempts <= attempts for answer in self.answers)

    def outage_s(self) -> float:
        """Longest time in which no request was due that its first attempt brought a decision."""
        good = [answer.due for answer in self.answers if answer.attempts == 1]
        edges = [self.answers[0].due, *good, self.answers[-1].due]
        return max(later - sooner for sooner, later in itertools.pairwise(edges))


def _kills(platform: Platform, seconds: float) -> dict[str, float]:
    killed, begun = 0, time.monotonic()
    while (due := killed * _KILL_EVERY_S) < seconds:
        time.sleep(max(0.0, begun + due - time.monotonic()))
        os.kill(platform.gateways()[0], signal.SIGKILL)  # the oldest: one that only just starts serves nobody yet
        killed += 1
    time.sleep(0.5)
    return {
        "Gateways killed": killed,
        "until three Gateways run after the last kill, s": 0.5 + until(lambda: platform.ready(3), 120),
    }


def _control(platform: Platform, _: float) -> dict[str, float]:
    for pid in platform.processes("ray::ServeReplica:rlaas:Control"):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    return {"until a promotion works again, s": until(lambda: platform.promote(2), 120)}


def _controller(platform: Platform, _: float) -> dict[str, float]:
    (before,) = platform.processes("ray::ServeController")
    os.kill(before, signal.SIGKILL)
    begun = time.monotonic()
    until(lambda: [pid for pid in platform.processes("ray::ServeController") if pid != before], 60)
    until(lambda: platform.scale(3), 120)
    back = time.monotonic() - begun
    until(lambda: platform.ready(3), 120)
    return {"until it takes orders again, s": back}


def _proxy(platform: Platform, _: float) -> dict[str, float]:
    back = []
    for _kill in range(_PROXY_KILLS):
        time.sleep(3)
        killed = platform.proxies()
        begun = time.monotonic()
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        until(lambda before=killed: not set(before) & set(platform.proxies()), 10, 0.001)
        until(platform.decides, 120, 0.001)
        back.append(time.monotonic() - begun)
    # Back is only who also hears of new replicas.
    os.kill(platform.gateways()[0], signal.SIGKILL)
    time.sleep(1)
    until(lambda: platform.ready(3), 120)
    named = {f"kill {number}, until a decision, s": seconds for number, seconds in enumerate(back, 1)}
    return {**named, "longest until a decision, s": max(back)}


def _scale(platform: Platform, _: float) -> dict[str, float]:
    until(lambda: platform.scale(1), 10)
    down = until(lambda: platform.ready(1), 240)
    until(lambda: platform.scale(3), 10)
    return {"from 3 to 1, s": down, "from 1 to 3, s": until(lambda: platform.ready(3), 240)}


def _redeploy(platform: Platform, _: float) -> dict[str, float]:
    before = set(platform.gateways())
    begun = time.monotonic()
    platform.redeploy(0.25)
    until(lambda: not before & set(platform.gateways()) and platform.ready(3), 240)
    return {"until all are replaced, s": time.monotonic() - begun}


_PARTS: dict[str, Callable[[Platform, float], dict[str, float]]] = {
    "kills": _kills,
    "control": _control,
    "controller": _controller,
    "proxy": _proxy,
    "scale": _scale,
    "redeploy": _redeploy,
}


def fault_run(
    platform: Platform, names: Sequence[str], *, seconds: float, rate: float = 200.0
) -> tuple[list[Span], list[str]]:
    """Go through parts of the run under load.

    Args:
        platform: with three Gateways.
        names: of the parts.
        seconds: for which Gateways are killed.
        rate: requests a second.

    Returns:
        What clients saw, and the ids of all acknowledged decisions.
    """
    load = Load(f"{platform.url}/api/v1/policies/bench/decide", rate, platform.root)
    begun: list[tuple[str, float, float, dict[str, float]]] = []
    answers: list[Answer] = []
    try:
        time.sleep(2)
        for name in names:
            start = time.monotonic()
            print(f"{name} ...", flush=True)
            facts = _PARTS[name](platform, seconds)
            time.sleep(2)
            begun.append((name, start, time.monotonic(), facts))
    finally:
        answers = load.stop()
    spans = [Span(name, [a for a in answers if start <= a.due < end], facts) for name, start, end, facts in begun]
    return spans, [answer.decision for answer in answers if answer.decision]


def lost_or_doubled(platform: Platform, decisions: Sequence[str]) -> tuple[int, int]:
    """Flush the lake, then count the acknowledged decisions that are not in it, and rows of them that are too many."""
    from rlaas.lake import Lake, verify
    from rlaas.settings import load_settings

    answer = platform.http.post("/api/v1/lake/flush", timeout=150)
    if not answer.is_success:
        raise RuntimeError(f"the lake could not be flushed: {answer.text}")
    found = verify(Lake(load_settings(home=platform.root / "home").lake_root), decisions=decisions).decisions
    return len(found.missing), found.duplicates + len(decisions) - found.acknowledged


_PATIENCE = {1: "at the first attempt", 2: "after one repeat", ATTEMPTS: "after four repeats"}
_PROMISED = {"kills": 0.1, "scale": 0.0, "redeploy": 0.0}


def _rows(spans: Sequence[Span], acknowledged: int, lost: int, doubled: int) -> list[Row]:
    rows = []
    for span in spans:
        promised = _PROMISED.get(span.name)
        for attempts, patience in _PATIENCE.items():
            share = 100 * span.failed(attempts) / len(span.answers)
            rival = None if promised is None else "promised"
            rows.append(Row(f"{span.name}: failed {patience}", "%", share, rival, promised, "lower"))
        limit = 0.5 if span.name == "proxy" else None
        rival = None if limit is None else "promised"
        rows.append(Row(f"{span.name}: longest outage", "s", span.outage_s(), rival, limit, "lower"))
        rows += [Row(f"{span.name}: {what}", "", value) for what, value in span.facts.items()]
    total = sum(len(span.answers) for span in spans)
    for attempts, patience in _PATIENCE.items():
        share = 100 * (1 - sum(span.failed(attempts) for span in spans) / total)
        rows.append(Row(f"availability over the whole run, {patience}", "%", share, "promised", 99.9))
    return [
        *rows,
        Row("acknowledged decisions", "", acknowledged),
        Row("acknowledged decisions that are not in bronze", "", lost, "promised", 0, "lower"),
        Row("rows of acknowledged decisions too many", "", doubled, "promised", 0, "lower"),
    ]


def _notes(spans: Sequence[Span]) -> list[str]:
    notes = []
    for span in spans:
        causes = Counter(answer.failure for answer in span.answers if answer.failure)
        found = "; ".join(f"{count} x {cause}" for cause, count in causes.most_common(6))
        notes.append(f"{span.name}: {len(span.answers):,} requests; first failures: {found or 'none'}")
    return notes


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="parts to run")
    parser.add_argument("--seconds", type=float, help="for which Gateways are killed; 300, or 30 with --quick")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")


def main() -> None:
    arguments = parse_arguments("serving_faults", _own_arguments)
    root = Path(tempfile.mkdtemp(prefix="rf", dir=tempfile.gettempdir()))
    try:
        with contextlib.redirect_stdout(sys.stderr), started(root) as platform:  # the result stands alone
            names = [name for name in SECTIONS if name in arguments.only]
            seconds = arguments.seconds or (30.0 if arguments.quick else 300.0)
            spans, decisions = fault_run(platform, names, seconds=seconds, rate=arguments.rate)
            lost, doubled = lost_or_doubled(platform, decisions)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    report("serving_faults", _rows(spans, len(decisions), lost, doubled), arguments.json, _notes(spans))


if __name__ == "__main__":
    main()
