"""A local Ray for each file, whose workers find the toys."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_ray import started_ray

HERE = Path(__file__).parent
TOYS = HERE.parent / "training"
sys.path[:0] = [str(TOYS), str(HERE)]


@pytest.fixture(scope="module")
def tuning_ray() -> Iterator[None]:
    with started_ray(TOYS, HERE):
        yield
