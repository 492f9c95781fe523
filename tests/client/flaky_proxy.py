"""A real HTTP proxy in front of a platform that loses, refuses and delays what it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx


class FlakyProxy:
    """Passes requests on; the next ones as planned.

    Args:
        upstream: ``http://...``.

    Attributes:
        plan: what to do with the next requests: ``drop`` (pass it on and lose the answer), ``refuse`` (close at once),
            a status with headers and body (answer oneself), or seconds (wait, then pass it on).
        seen: method, path and headers of every request.
        passed: how many went on to the platform.
    """

    def __init__(self, upstream: str) -> None:
        self.plan: list[str | float | tuple[int, dict[str, str], bytes]] = []
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.times: list[float] = []
        self.passed = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.command, self.path, headers))
                outer.times.append(time.monotonic())
                step = outer.plan.pop(0) if outer.plan else 0.0
                if isinstance(step, tuple):
                    self.reply(*step)
                    return
                if isinstance(step, float):
                    time.sleep(step)
                if step != "refuse":
                    outer.passed += 1
                    kept = {name: value for name, value in headers.items() if name not in ("host", "connection")}
                    answer = httpx.request(self.command, upstream + self.path, headers=kept, content=body)
                    if step != "drop":
                        named = {name: answer.headers[name] for name in answer.headers if name != "content-length"}
                        self.reply(answer.status_code, named, answer.content)
                        return
                self.close_connection = True
                self.connection.close()

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # whoever asked no longer waits
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def flaky(upstream: str) -> Iterator[FlakyProxy]:
    """A proxy for the length of the block."""
    proxy = FlakyProxy(upstream)
    thread = threading.Thread(target=proxy.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.http.shutdown()
        proxy.http.server_close()
        thread.join(timeout=10)
