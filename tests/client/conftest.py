"""The real platform on a real port, behind the fast lane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.http_platform import HttpPlatform, shared_platform
from support.http_server import serving


@pytest.fixture(scope="module")
def platform() -> HttpPlatform:
    """Shared by the whole process: a test that needs it as it was made restores it first."""
    return shared_platform()


@pytest.fixture(scope="module")
def platform_url(platform: HttpPlatform) -> Iterator[str]:
    with platform.fast_lane(), serving(platform.app) as address:
        yield f"http://{address}"
