"""Ids of the scenarios for ``gymnasium.make`` and ``gymnasium.make_vec``.

Only names are registered: what they stand for is imported by the first ``make``. Gymnasium has looked for plugins of
installed packages (the entry points ``gymnasium.envs``) no more since its version 1.0, so ``import rlaas`` has to
register them, and must not load Gymnasium for it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["ENVIRONMENTS", "register_environments", "register_when_loaded"]

ENVIRONMENTS = {
    "rlaas/Network5G-v0": ("rlaas.scenarios.network5g.single:SingleNetwork5G", "make_vector"),
    "rlaas/Recommender-v0": ("rlaas.scenarios.recsys.single:RecommenderEnv", "recommender_vector_env"),
}
"""Entry point of the single environment by id, and the function beside it that makes many."""


def register_environments() -> None:
    """Register the ids with Gymnasium, each once."""
    import gymnasium

    for name, (single, many) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            module = single.partition(":")[0]
            gymnasium.register(id=name, entry_point=single, vector_entry_point=f"{module}:{many}")


def register_when_loaded() -> None:
    """Register the ids now where Gymnasium is loaded, otherwise as soon as somebody imports it."""
    if "gymnasium" in sys.modules:
        register_environments()
    elif not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        # First, or another finder would answer.
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    """Lets every import pass but the first of Gymnasium, after which the ids are registered."""

    def __init__(self) -> None:
        self._asking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "gymnasium" or self._asking:
            return None
        # The answer is that of whoever would have given it without this finder.
        self._asking = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking = False
        if spec is None or spec.loader is None:
            return spec
        execute, loader = spec.loader.exec_module, spec.loader

        def execute_and_register(module: ModuleType) -> None:
            # Set aside before anything else: the module keeps its loader, which is to be an ordinary one again.
            del loader.exec_module
            execute(module)
            # Only now: an import that failed will be tried again.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            register_environments()

        # The loader is of this one module. A loader of our own in its place would hide what others ask of it
        # (resources, source text).
        loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
