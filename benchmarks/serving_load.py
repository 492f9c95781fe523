"""Load on an HTTP server from a process of its own: as fast as it will go, or at a fixed rate.

    python -m benchmarks.serving_load URL --seconds 8 --connections 64 [--rate 5000] [--header "name: value"] < BODY

Prints one JSON document: answers per second, failures, and latencies in microseconds. At a fixed rate requests leave by
the clock whether or not earlier ones have been answered, and latency counts from the moment a request was *due*: a
server that stalls is charged for everyone who had to wait (Tene's "coordinated omission"). Answers may come up to five
seconds after the end; later ones have failed. Latencies fall into buckets of 1 % width, as in HdrHistogram.

Plain sockets and one loop: on few cores the load takes from the server whatever it costs itself.
"""

from __future__ import annotations

import argparse
import array
import json
import math
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

__all__ = ["Histogram", "run_load"]

ROOT = Path(__file__).parent.parent
_GROWTH = math.log(1.01)
_NAP_S = 0.0002
_STRAGGLE_S = 5.0
_BUFFERED = 8192


class Histogram:
    """Counts of durations in buckets of 1 % width."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, dtype=np.int64)
        self._new = array.array("d")

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self._new.append(seconds)
        if len(self._new) >= _BUFFERED:
            self._sort_in()

    def _sort_in(self) -> None:
        buckets = (np.log(np.maximum(np.array(self._new), 1e-6) * 1e6) / _GROWTH).astype(np.int64)
        counts = np.bincount(buckets, minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts, self._new = counts, array.array("d")

    def quantile_us(self, q: float) -> float:
        """Upper end in microseconds of the bucket that holds a quantile; NaN where nothing was counted."""
        self._sort_in()
        seen = np.cumsum(self._counts)
        if not len(seen):
            return math.nan
        return math.exp((int(np.searchsorted(seen, q * seen[-1])) + 1) * _GROWTH)


class _Connection:
    """Keep-alive HTTP/1.1, one request under way at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._buffer = b""

    def send(self, message: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(message)

    def read(self) -> bytes | None:
        """An answer as a whole, once it is there.

        Raises:
            OSError: the other side hung up.
        """
        data = self.socket.recv(262_144)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._buffer = buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = buffer[:head_end].lower()
        at = head.find(b"content-length:")
        if at < 0:  # chunked: complete with the last chunk
            whole = buffer.endswith(b"0\r\n\r\n")
        else:
            whole = len(buffer) >= head_end + 4 + int(head[at + 15 :].split(b"\r", 1)[0])
        if not whole:
            return None
        self._buffer = b""
        return buffer


def _drive(
    url: str, body: bytes, headers: Sequence[str], seconds: float, connections: int, rate: float | None
) -> dict[str, Any]:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
    lines += [*headers, f"Content-Length: {len(body)}"]
    message = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    idle = deque(_Connection((parts.hostname or "127.0.0.1", parts.port or 80)) for _ in range(connections))
    by_number = {connection.socket.fileno(): connection for connection in idle}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    latency = Histogram()
    answered = in_time = failed = sent = 0
    first_failure = ""
    clock = time.perf_counter
    started = clock()
    ends = started + seconds
    total = math.inf if rate is None else math.floor(seconds * rate)
    while True:
        now = clock()
        while idle and sent < total and now < ends + _STRAGGLE_S and by_number:
            due = now if rate is None else started + sent / rate
            if due > now or (rate is None and now >= ends):
                break
            connection = idle.popleft()
            sent += 1
            try:
                connection.send(message, due)
            except OSError as problem:
                failed += 1
                first_failure = first_failure or str(problem)
                poll.unregister(connection.socket)
                del by_number[connection.socket.fileno()]
        under_way = len(by_number) - len(idle)
        if now >= ends and (now >= ends + _STRAGGLE_S or not (under_way or (rate is not None and sent < total))):
            break
        if not by_number:
            break
        until = ends if now < ends else ends + _STRAGGLE_S
        for number, _ in poll.poll(until - now if rate is None and under_way else 0):
            connection = by_number[number]
            try:
                text = connection.read()
            except OSError as problem:
                poll.unregister(number)
                del by_number[number]
                if connection in idle:  # hung up between two requests: nobody asked for anything
                    idle.remove(connection)
                else:
                    failed += 1
                    first_failure = first_failure or f"connection lost: {problem}"
                continue
            if text is None:
                continue
            now = clock()
            if text.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
                answered += 1
                in_time += now <= ends
                latency.add(now - connection.due)
            else:
                failed += 1
                first_failure = first_failure or text[:300].decode("latin-1")
            idle.append(connection)
        if rate is not None:
            time.sleep(_NAP_S)
    unanswered = len(by_number) - len(idle) + (0 if rate is None else int(total) - sent)
    first_failure = first_failure or (
        f"{unanswered} were not answered {_STRAGGLE_S:g} s after the end" if unanswered else ""
    )
    return {
        "rate": in_time / seconds,
        "answered": answered,
        "failed": failed + unanswered,
        "first_failure": first_failure,
        **{f"p{name}": latency.quantile_us(q) for name, q in _QUANTILES.items()},
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
    print(
        json.dumps(
            _drive(arguments.url, body, arguments.header, arguments.seconds, arguments.connections, arguments.rate)
        )
    )


if __name__ == "__main__":
    main()
