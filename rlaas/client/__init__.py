"""Clients of a running platform: :class:`Client` waits, :class:`AsyncClient` awaits; both offer the same calls."""

from rlaas.client.clients import AsyncClient, Client
from rlaas.client.retrying import DeadlinePassedError, NoAnswerError
from rlaas.client.sessions import AsyncSession, Session

__all__ = ["AsyncClient", "AsyncSession", "Client", "DeadlinePassedError", "NoAnswerError", "Session"]
