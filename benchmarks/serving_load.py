"""Load on an HTTP server from a process of its own: as fast as it will go, or at a fixed rate.

    python -m benchmarks.serving_load URL --seconds 8 --connections 64 [--rate 5000] [--header "name: value"] < BODY

Prints one JSON document: answers per second, failures, and latencies in microseconds. At a fixed rate requests leave by
the clock whether or not earlier ones have been answered, and latency counts from the moment a request was *due*: a
server that stalls is charged for everyone who had to wait (Tene's "coordinated omission"). Latencies fall into buckets
of 1 % width, as in HdrHistogram.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

__all__ = ["Histogram", "run_load"]

ROOT = Path(__file__).parent.parent
_GROWTH = math.log(1.01)


class Histogram:
    """Counts of durations in buckets of 1 % width."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        bucket = int(math.log(max(seconds, 1e-6) * 1e6) / _GROWTH)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.total += 1

    def quantile_us(self, q: float) -> float:
        """Upper end in microseconds of the bucket that holds a quantile; NaN where nothing was counted."""
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= q * self.total:
                return math.exp((bucket + 1) * _GROWTH)
        return math.nan


class _Account:
    """What came back."""

    def __init__(self) -> None:
        self.latency = Histogram()
        self.answered = 0
        self.failed = 0
        self.first_failure = ""


class _Connection(asyncio.Protocol):
    """Keep-alive HTTP/1.1: requests go out, answers are counted; one under way at a time."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._due = 0.0
        self.idle = True
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._load.free(self)

    def send(self, due: float) -> None:
        self.idle = False
        self._due = due
        self._transport.write(self._load.message)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._buffer[:head_end].lower()
        at = head.find(b"content-length:")
        if at < 0:  # chunked: complete with the last chunk
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
            end = len(self._buffer)
        else:
            end = head_end + 4 + int(head[at + 15 :].split(b"\r", 1)[0])
            if len(self._buffer) < end:
                return
        ok = head.startswith((b"http/1.1 200", b"http/1.1 202"))
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        self._load.answered(self, ok, self._due, text)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.idle:
            self._load.answered(self, False, self._due, f"connection lost: {exc}".encode())
        self._load.lost()


class _Load:
    def __init__(self, message: bytes, rate: float | None, until: float) -> None:
        self.message = message
        self.account = _Account()
        self._rate = rate
        self._until = until
        self._waiting: deque[float] = deque()
        self._idle: deque[_Connection] = deque()
        self.open = 0

    def free(self, connection: _Connection) -> None:
        self.open += 1
        connection.idle = True
        self._next(connection)

    def lost(self) -> None:
        self.open -= 1

    def _next(self, connection: _Connection) -> None:
        now = time.perf_counter()
        if self._rate is None:
            if now < self._until:
                connection.send(now)
        elif self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def due(self, moment: float) -> None:
        if self._idle:
            self._idle.popleft().send(moment)
        else:
            self._waiting.append(moment)

    def answered(self, connection: _Connection, ok: bool, due: float, text: bytes) -> None:
        account = self.account
        if ok:
            account.answered += 1
            account.latency.add(time.perf_counter() - due)
        else:
            account.failed += 1
            account.first_failure = account.first_failure or text[:300].decode("latin-1")
        connection.idle = True
        if text.startswith(b"HTTP"):
            self._next(connection)

    @property
    def unanswered(self) -> int:
        return len(self._waiting)


async def _drive(
    url: str, body: bytes, headers: Sequence[str], seconds: float, connections: int, rate: float | None
) -> dict[str, Any]:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body)}"]
    message = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    load = _Load(message, rate, started + seconds)
    await asyncio.gather(
        *(loop.create_connection(lambda: _Connection(load), parts.hostname, parts.port) for _ in range(connections))
    )
    if rate is None:
        await asyncio.sleep(started + seconds - time.perf_counter())
    else:
        sent = 0
        while (now := time.perf_counter()) < started + seconds:
            while sent < (now - started) * rate:
                load.due(started + sent / rate)
                sent += 1
            await asyncio.sleep(0.0005)
    elapsed = time.perf_counter() - started
    answered = load.account.answered
    await asyncio.sleep(0.5)  # stragglers count for latency, not for the rate
    account = load.account
    return {
        "rate": answered / elapsed,
        "answered": account.answered,
        "failed": account.failed + load.unanswered,
        "first_failure": account.first_failure,
        **{f"p{name}": account.latency.quantile_us(q) for name, q in _QUANTILES.items()},
    }


_QUANTILES = {"50": 0.5, "99": 0.99, "999": 0.999}


def run_load(
    url: str,
    body: bytes,
    *,
    seconds: float,
    connections: int = 64,
    rate: float | None = None,
    headers: Sequence[str] = (),
) -> dict[str, Any]:
    """Run this module in a process of its own, and read what it prints.

    Args:
        url: what to post to.
        body: what to post.
        seconds: for how long.
        connections: kept alive, one request under way on each.
        rate: requests a second; without it each connection sends the next when it has the answer.
        headers: further header lines.
    """
    command = [sys.executable, "-m", "benchmarks.serving_load", url, "--seconds", str(seconds)]
    command += ["--connections", str(connections)] + (["--rate", str(rate)] if rate else [])
    for line in headers:
        command += ["--header", line]
    done = subprocess.run(command, cwd=ROOT, input=body, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--header", action="append", default=[])
    arguments = parser.parse_args()
    body = sys.stdin.buffer.read()
    uvloop.install()
    found = asyncio.run(
        _drive(arguments.url, body, arguments.header, arguments.seconds, arguments.connections, arguments.rate)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
