"""The OpenAPI 3.1 document of every route of the platform.

It lies beside this file, made from the routes' own structs and models by ``python -m rlaas.client.contract``, because a
Gateway must not load the control plane to describe it. A test makes it anew and compares.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["openapi_document"]


@cache
def openapi_document() -> bytes:
    """The document as JSON."""
    return files(__package__).joinpath("document.json").read_bytes()
