"""A small Ray of one's own, whose workers find the given folders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["started_ray"]


@contextmanager
def started_ray(*folders: Path, cpus: int = 2) -> Iterator[None]:
    """Start Ray for the block; one that runs already would not find the folders, and is stopped."""
    import ray

    ray.shutdown()
    # Unix sockets allow some 100 characters: a short folder of our own.
    home = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        # Workers take over the environment of their raylet, and yield to everything else, which on a busy machine
        # means that a test hardly moves.
        patch.setenv("RAY_worker_niceness", "0")
        for folder in reversed(folders):
            patch.setenv("PYTHONPATH", str(folder), prepend=":")
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 1024 * 1024,
            _temp_dir=home,
        )
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(home, ignore_errors=True)
