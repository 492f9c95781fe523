"""Clients of a running platform: :class:`Client` waits, :class:`AsyncClient` awaits; both offer the same calls."""

from rlaas.client.clients import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
