"""What can be said and asked about drift, without HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from rlaas.configfiles import complaint
from rlaas.control.drift.deliveries import Deliveries
from rlaas.control.drift.store import DriftStore
from rlaas.control.state import StateDatabase
from rlaas.errors import InvalidInputError
from rlaas.monitoring import DriftConfig

__all__ = ["DriftService"]


class DriftService:
    """Configurations, status and alerts of a tenant.

    Args:
        database: the state database.
        tenant: whose.
        known: raises NotFoundError for a policy that is not registered.
        clock: UTC time in microseconds.
    """

    def __init__(
        self,
        database: StateDatabase,
        tenant: str,
        known: Callable[[str], object],
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.store = DriftStore(database, tenant)
        self.deliveries = Deliveries(database, tenant, clock=clock)
        self._known, self._clock = known, clock

    def configure(self, model: str, document: Any) -> dict[str, Any]:
        """Watch a policy so from now on; its baseline is learned anew.

        Raises:
            InvalidInputError: a wrong key or value; names it and what is allowed.
            NotFoundError: there is no such policy.
            ConflictError: it was changed by somebody else meanwhile.
        """
        if not isinstance(document, Mapping):
            raise InvalidInputError("the body must be an object", field="body")
        try:
            config = DriftConfig.model_validate(document)
        except ValidationError as problem:
            first = problem.errors()[0]
            path = ".".join(str(part) for part in first["loc"]) or "body"
            text = complaint(first)
            if first["type"] == "extra_forbidden":
                text = f"unknown key; allowed: {', '.join(DriftConfig.model_fields)}"
            raise InvalidInputError(f"{path}: {text}", field=path) from problem
        self._known(model)
        stored = self.store.configure(model, config, self._clock())
        return self._document(stored.model)

    def config(self, model: str) -> dict[str, Any]:
        """How a policy is watched.

        Raises:
            NotFoundError: it is not.
        """
        return self._document(model)

    def status(self, model: str) -> dict[str, Any]:
        """What the watch of a policy is doing, and the episode that lasts.

        Raises:
            NotFoundError: it is not watched.
        """
        self.store.config(model)
        watch, episode = self.store.watch(model), self.store.open_episode(model)
        document: Mapping[str, Any] = {} if watch is None else watch.document
        seconds = document.get("seconds", {})
        return {
            "model": model,
            "version": None if watch is None else watch.version,
            "phase": document.get("phase", "waiting"),
            "remaining_s": document.get("remaining_s"),
            "streams": document.get("streams", []),
            "last_second": document.get("last_second"),
            "late": seconds.get("late", 0),
            "evidence": document.get("evidence", []),
            "positions": document.get("positions", {}),
            "updated_us": None if watch is None else watch.updated_us,
            "episode": None if episode is None else episode.to_dict(),
        }

    def alerts(
        self, *, model: str | None = None, state: Literal["active", "closed"] | None = None
    ) -> list[dict[str, Any]]:
        """Every episode, newest first, with what became of the messages about it."""
        sent: dict[str, list[dict[str, Any]]] = {}
        for one in self.deliveries.all():
            key, event = one.id.rsplit("/", 1)
            sent.setdefault(key, []).append({"event": event, "url": one.url, "tries": one.tries, "status": one.status})
        found = [
            {**one.to_dict(), "webhooks": sent.get(f"{one.model}/{one.number}", [])}
            for one in self.store.episodes(model)
        ]
        return [one for one in found if state is None or one["state"] == state]

    def _document(self, model: str) -> dict[str, Any]:
        stored = self.store.config(model)
        return {
            "model": model,
            "revision": stored.revision,
            "updated_us": stored.updated_us,
            "config": stored.config.model_dump(mode="json"),
        }
