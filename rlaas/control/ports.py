"""Whether a port can be listened on, asked before anything is started."""

from __future__ import annotations

import errno
import socket

from rlaas.errors import ConfigurationError

__all__ = ["check_port"]


def check_port(host: str, port: int) -> None:
    """Raise if something listens on ``port`` already: Serve would share it, and requests would go to either.

    Raises:
        ConfigurationError: the port is taken or not for this user, or ``host`` is no address of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            if isinstance(problem, socket.gaierror) or problem.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    f"--host {host!r} is not an address of this machine", field="host"
                ) from problem
            if problem.errno == errno.EACCES:
                raise ConfigurationError(
                    f"--port {port} may not be opened by this user; choose one above 1023", field="port"
                ) from problem
            raise ConfigurationError(
                f"--port {port} is in use on {host}; choose another one", field="port"
            ) from problem
