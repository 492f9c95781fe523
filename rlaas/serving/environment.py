"""The variables that make Serve load the fast lane; they are read when Ray starts, so they have to be set before.

On a cluster they stand in the environment of every Ray container (``clusters/base``). For a Ray of its own,
``rlaas serve`` sets them here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from rlaas.errors import ConfigurationError
from rlaas.serving.fast_lane import CALLBACK
from rlaas.serving.haproxy import LAUNCHER, write_launcher

__all__ = ["FAST_LANE", "enter_fast_lane"]

_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"

FAST_LANE: Mapping[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # a C proxy, and replicas that listen themselves
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": CALLBACK,
    # Throughput mode turns these two off: Control asks the committer from a thread, and events go to standard error.
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "1",
    "RAY_SERVE_LOG_TO_STDERR": "1",
    _BINARY: LAUNCHER,  # HAProxy with a parent that replaces it at once when it is killed
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "0.5",  # three misses and Serve replaces it; 10 s each otherwise
    "RAY_worker_niceness": "0",  # Ray nices its workers to 15: beside other work the servers would come last
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Ray writes this as it is into HAProxy's defaults, and has no variable for the other two lines: a header that comes
    # byte by byte is waited for so long, and only what went wrong is logged, not every request.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure\n    timeout http-request 10s\n    option dontlog-normal",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",  # it parses one datagram for each request, in Python
}
"""What every Ray process of a platform with the fast lane needs."""

_PORTS = {
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
}
_FIRST_PORT, _LAST_PORT = 30_000, 32_000
"""Below what Linux hands out for outgoing connections, from where Ray's own ports come."""

_REPLICA_PORTS = 100
_DRAINING_S = "2"


def enter_fast_lane(folder: Path) -> None:
    """Set the variables for a Ray that this process is about to start, beside whatever else runs on the machine.

    What is set already stays as it is.

    Args:
        folder: for the proxy's own files; it exists, and its path has to be short enough for a socket.

    Raises:
        ConfigurationError: Serve was imported already, and would not notice; or there is no HAProxy.
    """
    if "ray.serve" in sys.modules:
        raise ConfigurationError("enter the fast lane before ray.serve is imported", field="ray")
    if _BINARY not in os.environ:
        os.environ[_BINARY] = str(write_launcher(folder / "haproxy"))
    first = _free_block(_REPLICA_PORTS)
    wanted = {
        **FAST_LANE,
        # Serve lets what stops listen on for half a minute, for balancers that ask rarely; HAProxy is told at once.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": _DRAINING_S,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _REPLICA_PORTS),
        **{name: str(_free_port()) for name in sorted(_PORTS)},
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _free_block(size: int) -> int:
    """First port of a block whose ends nobody listens on; replicas step over what is taken in between."""
    for first in range(_FIRST_PORT, _LAST_PORT, size):
        if _is_free(first) and _is_free(first + size - 1):
            return first
    raise ConfigurationError(f"no ports are free between {_FIRST_PORT} and {_LAST_PORT}", field="port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        found: int = probe.getsockname()[1]
        return found
