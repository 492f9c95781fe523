"""A local Ray for each file, and the toys on the import path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.local_ray import started_ray

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with started_ray(HERE):
        yield
