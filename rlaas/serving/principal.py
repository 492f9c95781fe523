"""Who is asking: resolved once per request, by every lane that answers requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Principal", "resolve_principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a request.

    Attributes:
        tenant: owner of everything that the request may see.
    """

    tenant: str


def resolve_principal(headers: Mapping[str, str], *, tenant: str) -> Principal:
    """The principal behind a request.

    An installation has one tenant until accounts exist, so the headers decide nothing yet: whoever reaches the
    port acts for the installation's tenant.

    Args:
        headers: request headers, lower-case names.
        tenant: the installation's tenant.
    """
    del headers
    return Principal(tenant)
