"""Children of the privacy tests: an erasure that is killed, or counts where it could be."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from rlaas.lake.privacy import Budget, Eraser, Vault, protected_lake, rewriting
from rlaas.lake.privacy.budget import BudgetError
from rlaas.settings import Settings


class _Steps:
    """Counts steps that change something, and dies at one of them."""

    def __init__(self, last: int) -> None:
        self.done, self._last = 0, last

    def tick(self) -> None:
        self.done += 1
        if self.done == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        @wraps(inner)
        def outer(*args: Any, **options: Any) -> Any:
            self.tick()
            result = inner(*args, **options)
            self.tick()
            return result

        setattr(owner, name, outer)


def erase(home: Path, subject: str, last: int, counted: Path) -> None:
    """Erase, and be killed at step ``last``; otherwise write down how many steps there were."""
    steps = _Steps(last)
    for owner, name in ((rewriting, "_rewrite"), (DeltaTable, "create_checkpoint"), (Vault, "begin"), (Vault, "save")):
        steps.around(owner, name)
    for name in ("note_decisions", "finish", "scrub"):
        steps.around(Vault, name)
    sys.addaudithook(lambda event, _: steps.tick() if event in ("os.remove", "os.rename") else None)
    settings = Settings(home=home)
    Eraser(settings, protected_lake(settings), trained={}).erase(subject)
    counted.write_text(str(steps.done))


def spend(url: str, analyst: str, tries: int, granted: Path) -> None:
    """Ask again and again; write down how often the budget covered it."""
    ledger = Budget(url, "default")
    paid = 0
    for _ in range(tries):
        try:
            ledger.reserve(analyst, {}, epsilon=0.1)
            paid += 1
        except BudgetError:
            continue
    granted.write_text(str(paid))
