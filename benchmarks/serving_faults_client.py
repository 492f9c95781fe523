"""A client that keeps its pace whatever happens, and writes down what became of every request.

    python -m benchmarks.serving_faults_client URL RATE OUTPUT

Requests leave by the clock, whether or not earlier ones were answered, over as many kept-alive connections as that
takes. What fails is repeated, up to four times with doubling pauses. It ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["ATTEMPTS", "Answer", "Load"]

ROOT = Path(__file__).parent.parent
ATTEMPTS = 5
_BODY = json.dumps({"observation": [round(0.01 * i, 4) for i in range(32)]}).encode()
_FIRST_PAUSE_S = 0.1
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Attributes:
        due: when it was due, seconds of the monotonic clock.
        done: when the last attempt ended.
        attempts: how many it took; 0: none brought a decision.
        decision: id of the acknowledged decision, or empty.
        failure: why the first attempt failed, or empty.
    """

    due: float
    done: float
    attempts: int
    decision: str
    failure: str


class _Client:
    """Open-loop requests over kept-alive connections, as many as it takes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        self._message = f"{head}Content-Length: {len(_BODY)}\r\n\r\n".encode() + _BODY
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.answers: list[Answer] = []

    async def request(self, due: float) -> None:
        failure, attempts, decision = "", 0, ""
        for attempt in range(ATTEMPTS):
            try:
                decision = await asyncio.wait_for(self._attempt(), _TIMEOUT_S)
                attempts = attempt + 1
                break
            except (OSError, EOFError, ValueError, TimeoutError) as problem:
                failure = failure or (str(problem) if type(problem) is ValueError else type(problem).__name__)
                if attempt + 1 < ATTEMPTS:
                    await asyncio.sleep(_FIRST_PAUSE_S * 2**attempt)
        self.answers.append(Answer(due, time.monotonic(), attempts, decision, failure))

    async def _attempt(self) -> str:
        """The id of the decision.

        Raises:
            OSError, EOFError: no connection, or it was lost.
            ValueError: another status than 200.
        """
        reader, writer = await self._connection()
        try:
            writer.write(self._message)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: *(\d+)", head)
            text = await reader.readexactly(int(length.group(1)) if length else 0)
        except BaseException:
            writer.transport.abort()
            raise
        if not length or b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))
        if not head.startswith(b"http/1.1 200"):
            reason = re.search(rb'"detail":"([^"]{,100})', text) or re.match(rb"(.{,40})", text)
            raise ValueError(f"HTTP {head[9:12].decode()} {reason.group(1).decode() if reason else ''}")
        return str(json.loads(text)["decision_id"])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)


async def _drive(url: str, rate: float, output: Path) -> None:
    client, stop = _Client(url), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    tasks: set[asyncio.Task[None]] = set()
    started, sent = time.monotonic(), 0
    while not stop.is_set():
        while sent < (time.monotonic() - started) * rate:
            task = asyncio.create_task(client.request(started + sent / rate))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*tasks)
    output.write_text(json.dumps([astuple(answer) for answer in client.answers]))


class Load:
    """The client as a process, from ``with`` to its end.

    Args:
        url: of ``decide``.
        rate: requests a second.
        folder: for what it writes.
    """

    def __init__(self, url: str, rate: float, folder: Path) -> None:
        self._output = folder / "answers.json"
        command = [sys.executable, "-m", "benchmarks.serving_faults_client", url, str(rate), str(self._output)]
        self._process = subprocess.Popen(command, cwd=ROOT)

    def stop(self) -> list[Answer]:
        """Every request with its end, in the order in which they were due."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(60) != 0:
            raise RuntimeError("the client ended with an error")
        found: list[list[Any]] = json.loads(self._output.read_text())
        return sorted((Answer(*one) for one in found), key=lambda answer: answer.due)


if __name__ == "__main__":
    asyncio.run(_drive(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
