"""The folder that a run is kept in: what it is, how it was planned, and how far it got."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaas.errors import ConflictError, OperatorError
from rlaas.files import sync, write_text
from rlaas.optimization.checkpoint import load_state, save_state
from rlaas.optimization.problems import Problem
from rlaas.optimization.spread.planner import Plan
from rlaas.optimization.spread.recipe import Recipe, Shape

__all__ = ["EVENTS_FILE", "RunFolder"]

EVENTS_FILE = "events.jsonl"
"""Event log of an asynchronous run."""

STATE_FILE = "state.npz"
"""State of any other run."""

RUN_FILE = "run.json"

SCHEMA_VERSION = 2


class RunFolder:
    """Keeps one run.

    Args:
        path: the folder; made when the run is begun.
        recipe: of the engine.
        problem: what is searched.
        resume: whether a run that lies there is to go on.
        identity: what else makes the search what it is, in JSON types: which problem, on which seeds.

    Raises:
        ConflictError: a run lies there and is not to go on, or it is another's.
        OperatorError: what lies there cannot be read.

    Attributes:
        plan: of the run that lies there; None where there is none.
        identity: what makes two runs the same search: the engine's recipe, the problem's shape, what the caller says.
        events: path of the event log.
    """

    def __init__(
        self,
        path: str | Path,
        recipe: Recipe,
        problem: Problem,
        *,
        resume: bool,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(path)
        self.identity: dict[str, Any] = json.loads(
            json.dumps(
                {"recipe": recipe.to_dict(), "problem": Shape.of(problem).to_dict(), "search": dict(identity or {})}
            )
        )
        self.events = self._path / EVENTS_FILE
        self._state = self._path / STATE_FILE
        self.plan = self._stored(resume)

    def begin(self, plan: Plan) -> None:
        """Write down what is about to run."""
        self._path.mkdir(parents=True, exist_ok=True)
        document = {"schema_version": SCHEMA_VERSION, "plan": plan.to_dict(), **self.identity}
        write_text(self._path / RUN_FILE, json.dumps(document, indent=2) + "\n")
        sync(self._path)

    def save(self, state: dict[str, Any]) -> None:
        """Keep how far the run got."""
        save_state(self._state, state)

    def load(self) -> dict[str, Any] | None:
        """How far the run got; None where it did not finish a first generation.

        Raises:
            OperatorError: the state is damaged.
        """
        return load_state(self._state) if self._state.exists() else None

    def _stored(self, resume: bool) -> Plan | None:
        file = self._path / RUN_FILE
        if not file.exists():
            return None
        if not resume:
            raise ConflictError(
                f"{self._path} holds a run already; resume it, or name another folder", field="checkpoint"
            )
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            if document["schema_version"] != SCHEMA_VERSION:
                raise ValueError("another schema version")
            changed = [
                key
                for part, entries in self.identity.items()
                for key in {**document[part], **entries}
                if document[part].get(key) != entries.get(key)
            ]
            plan = Plan.from_dict(document["plan"])
        except (ValueError, KeyError, TypeError) as problem:
            raise OperatorError(
                f"{file} is no record of a run that this version can read; name another folder",
                field="checkpoint",
            ) from problem
        if changed:
            raise ConflictError(
                f"{self._path} holds the run of another search: it differs in {', '.join(changed)}; resume it with "
                "what it was begun with, or name another folder",
                field="checkpoint",
            )
        return plan
