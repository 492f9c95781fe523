"""An ASGI application behind a real uvicorn on a port of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """``host:port`` of the application for the length of the block."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        # Without uvicorn's own logging: setting it up closes every handler there is, absl's among them, and that closes
        # what pytest captures with.
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", log_config=None, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=30)
