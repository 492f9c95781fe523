"""A local Ray for one command: started in a folder of its own, gone without a trace afterwards."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlaas.errors import ConfigurationError

__all__ = ["local_ray"]

# Logical, not physical: Serve's replicas and the search pool reserve slots while the driver trains.
LOGICAL_CPUS = 8

_FOLDERS = Path("/tmp")
_PREFIX = "rlaas-ray-"
_FRESH_PREFIX = "rlaas-new-"
_LOCK = "owner.lock"
_REACHABLE_S = 5.0


@contextmanager
def local_ray(address: str | None = None, *, fast_lane: bool = False) -> Iterator[dict[str, str]]:
    """A local Ray for the length of the block (or the cluster at ``address``); yields the URLs that are up.

    With ``fast_lane`` a local Ray gets the variables of :mod:`rlaas.serving.environment`; a cluster has to have them
    already.

    On the way out every local Ray process is stopped and their folder is removed, whatever happened inside. A cluster
    that was given is left running.
    """
    import ray

    from rlaas.serving.environment import enter_fast_lane

    # Serve announces each of its steps; what a user needs to know, the command says itself.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if address is not None:
        _check_reachable(address)
        try:
            context = ray.init(address=address, logging_level="error", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as problem:
            reason = " ".join(str(problem).split())[:200]
            raise ConfigurationError(f"no Ray answers at address {address!r}: {reason}", field="address") from problem
        try:
            yield {"Ray dashboard": f"http://{context.dashboard_url}"} if context.dashboard_url else {}
        finally:
            ray.shutdown()
        return
    _remove_leftovers()
    folder, lock = _own_folder()
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        if fast_lane:
            enter_fast_lane(Path(folder))
        context = ray.init(
            address="local",  # not that of RAY_ADDRESS
            num_cpus=LOGICAL_CPUS,
            include_dashboard=True,
            logging_level="error",
            log_to_driver=False,
            _temp_dir=folder,
        )
        # Ray's own handler would end this process at once and leave the rest of the block undone.
        signal.signal(signal.SIGTERM, terminate)
        yield {"Ray dashboard": f"http://{context.dashboard_url}"} if context.dashboard_url else {}
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _own_folder() -> tuple[str, int]:
    """A new folder, and the lock in it, which the kernel opens when this process ends, however that happens."""
    # Ray puts sockets below this folder, and a socket's path may hold 107 characters at most.
    fresh = Path(tempfile.mkdtemp(prefix=_FRESH_PREFIX, dir=_FOLDERS))
    lock = os.open(fresh / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Named only now: until it is locked it would look like a leftover.
    return str(fresh.rename(fresh.with_name(_PREFIX + fresh.name.removeprefix(_FRESH_PREFIX)))), lock


def _check_reachable(address: str) -> None:
    """Raise where nothing listens at ``address``: Ray itself tries for minutes before it says so."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto" and "local", and what Ray itself refuses
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE_S).close()
    except (OSError, OverflowError) as problem:
        raise ConfigurationError(f"no Ray answers at address {address!r}: {problem}", field="address") from problem


def _remove_leftovers() -> None:
    """Remove the folders of earlier processes of this user that were killed before they could do so themselves."""
    for folder in _FOLDERS.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # not ours, about to be locked, or removed by somebody else
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
