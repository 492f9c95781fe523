"""Who is asking: resolved once per request, by every lane that answers requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Principal", "resolve_principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        tenant: owner of everything that the request may see.
    """

    tenant: str


@lru_cache(maxsize=1024)
def _of_tenant(tenant: str) -> Principal:
    return Principal(tenant)


def resolve_principal(headers: Iterable[tuple[bytes, bytes]], *, tenant: str) -> Principal:
    """The principal behind a request.

    An installation has one tenant until accounts exist, so the headers decide nothing yet: whoever reaches the
    port acts for the installation's tenant.

    Args:
        headers: of the ASGI scope, lower-case names.
        tenant: the installation's tenant.
    """
    del headers
    return _of_tenant(tenant)
