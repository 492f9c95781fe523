"""Calls about experiments: declared, watched and stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaas.client.wire import Answer, Call, CallSender, encode, given, idempotency, page, quoted

__all__ = ["ExperimentCalls"]

_PATH = "/api/v1/experiments"


class ExperimentCalls(CallSender[Answer]):
    """Experiments and their results."""

    def experiments(self, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Experiments, newest first: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", _PATH, query=page(page_size, page_token)))

    def create_experiment(self, document: Mapping[str, Any], *, idempotency_key: str | None = None) -> Answer:
        """Begin an experiment: its variants are the deployment's next generation.

        Args:
            document: what is declared, see ``docs/experiments.md``.
            idempotency_key: repeats under the same key get the first answer; drawn for each call by default.
        """
        return self._send(Call("POST", _PATH, encode(document), headers=idempotency(idempotency_key)))

    def experiment(self, experiment: str) -> Answer:
        """One experiment: its ``document``, its ``state`` and its ``history``."""
        return self._send(Call("GET", f"{_PATH}/{quoted(experiment)}"))

    def experiment_result(self, experiment: str) -> Answer:
        """The latest result page."""
        return self._send(Call("GET", f"{_PATH}/{quoted(experiment)}/result"))

    def experiment_audit(self, experiment: str, *, page_size: int = 1000, page_token: str | None = None) -> Answer:
        """Records that came too late and changed nothing: ``items`` and ``next_page_token``."""
        return self._send(Call("GET", f"{_PATH}/{quoted(experiment)}/audit", query=page(page_size, page_token)))

    def analyse_experiment(self, experiment: str) -> Answer:
        """Take in what is new in the lake now, and return the result page."""
        return self._send(Call("POST", f"{_PATH}/{quoted(experiment)}/analyse"))

    def stop_experiment(
        self, experiment: str, decision: str, *, reason: str, variant: str | None = None, actor: str | None = None
    ) -> Answer:
        """End an experiment, and serve what was decided.

        Args:
            experiment: its id.
            decision: ``ship`` a variant, ``keep`` the control, or ``none``: what was live before.
            reason: why; kept in the history.
            variant: to ship; needed where there are several treatments.
            actor: who.
        """
        body = encode({"decision": decision, "reason": reason, **given(variant=variant, actor=actor)})
        return self._send(Call("POST", f"{_PATH}/{quoted(experiment)}/stop", body, headers=idempotency(None)))
