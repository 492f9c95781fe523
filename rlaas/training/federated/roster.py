"""The sites' actors, and asking all of them at once without waiting for those that are late or gone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rlaas.errors import ConfigurationError, RlaasError, shown
from rlaas.training.federated.config import FederationConfig, SiteConfig
from rlaas.training.federated.site import Site
from rlaas.training.federated.state import Layout

__all__ = ["Answers", "Deadline", "Roster"]


class Deadline:
    """A point in time.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True, slots=True)
class Answers:
    """What a question to several sites gave.

    Attributes:
        values: by site.
        missing: why the others did not answer, in words.
        errors: what they raised, for those that raised an error of ours.
    """

    values: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    errors: dict[str, RlaasError] = field(default_factory=dict)


class Roster:
    """One actor per site. An actor that is gone is made anew when it is next invited.

    Args:
        config: the federation.
        folder: of the federation; sites without a folder of their own keep their checkpoints below it.
        layout: that every site must have.
    """

    def __init__(self, config: FederationConfig, folder: Path, layout: Layout) -> None:
        self._config, self._folder, self._layout = config, folder, layout
        self._document = config.model_dump(mode="json")
        self._actors: dict[str, Any] = {}
        self._started: set[str] = set()

    def open(self, finished: int) -> Answers:
        """Start the actors that are missing, and wait for them.

        Args:
            finished: rounds that are done: sites continue from their own checkpoint of that round.

        Returns:
            The layouts of those that started, and why others did not.

        Raises:
            ConfigurationError: a site's options cannot work, it does not fit the others, or no node can ever hold it.
        """
        absent = [site for site in self._config.sites if site.name not in self._started]
        for site in absent:
            _check_place(site)
        for site in absent:
            if site.name not in self._actors:
                actor: Any = ray.remote(Site)
                actor = actor.options(num_cpus=site.cpus, resources=dict(site.resources), max_restarts=0)
                self._actors[site.name] = actor.remote(self._document, site.name, self._own_folder(site))
        placed = self.ask([site.name for site in absent], "ready", Deadline(self._config.start_s))
        for name, reason in placed.missing.items():
            if reason == "late":
                # It keeps its place in the queue: the next round may find it there.
                needs = _needs(self._config.site(name))
                placed.missing[name] = f"not ready within {self._config.start_s:g} s; it needs {needs}"
        answers = self.ask(placed.values, "start", Deadline(self._config.start_s), finished)
        for name, problem in answers.errors.items():
            if isinstance(problem, ConfigurationError):
                raise ConfigurationError(f"site {name!r}: {problem.message}", field=f"sites.{name}") from problem
        for name, layout in answers.values.items():
            self._check_layout(name, layout)
        self._started.update(answers.values)
        answers.missing.update(placed.missing)
        return answers

    @property
    def present(self) -> list[str]:
        """Sites that can train, in the order of the configuration."""
        return [site.name for site in self._config.sites if site.name in self._started]

    def ask(self, names: Iterable[str], method: str, deadline: Deadline, *arguments: Any) -> Answers:
        """Call a method of several sites with the same arguments; see :meth:`ask_each`."""
        return self.ask_each(dict.fromkeys(names, arguments), method, deadline)

    def ask_each(self, arguments: Mapping[str, tuple[Any, ...]], method: str, deadline: Deadline) -> Answers:
        """Call a method of several sites at once, and take what has come by the deadline.

        A site whose process is gone loses its place, and gets a new actor at the next :meth:`open`. One that is late
        stays: it may be in time for the next round.
        """
        calls = {getattr(self._actors[name], method).remote(*given): name for name, given in arguments.items()}
        answers = Answers()
        waiting = list(calls)
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=deadline.left)
            if not done:
                break
            self._take(calls[done[0]], done[0], answers)
        answers.missing.update({calls[call]: "late" for call in waiting})
        return answers

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors.values():
            ray.kill(actor)
        self._actors.clear()
        self._started.clear()

    def _take(self, name: str, call: Any, answers: Answers) -> None:
        try:
            answers.values[name] = ray.get(call, timeout=0)
        except RayTaskError as problem:
            cause = problem.cause
            if isinstance(cause, RlaasError):
                answers.errors[name] = cause
                answers.missing[name] = cause.message
            else:
                answers.missing[name] = f"{type(cause).__name__}: {shown(cause, str)}"
        except RayActorError:
            answers.missing[name] = "its process is gone"
            self._actors.pop(name, None)
            self._started.discard(name)
        except GetTimeoutError:
            # Ready, but its value cannot be fetched: its node is going away.
            answers.missing[name] = "its answer cannot be fetched"

    def _own_folder(self, site: SiteConfig) -> str | None:
        if not self._config.keep_site_state:
            return None
        return str(site.folder or self._folder / "sites" / site.name)

    def _check_layout(self, name: str, layout: Layout) -> None:
        for part in Layout.__dataclass_fields__:
            here, there = getattr(self._layout, part), getattr(layout, part)
            if here != there:
                raise ConfigurationError(
                    f"site {name!r} does not fit: its {part} are {shown(there)}, the federation's {shown(here)}",
                    field=f"sites.{name}.options",
                )


def _check_place(site: SiteConfig) -> None:
    """Refuse a site that asks for a resource no node has; a cluster that grows brings more CPUs, not new names."""
    have = ray.cluster_resources()
    for resource in site.resources:
        if resource not in have:
            known = sorted(name for name in have if not name.startswith(("node:", "object_store", "memory")))
            raise ConfigurationError(
                f"site {site.name!r}: no node has the resource {resource!r}; the cluster has {', '.join(known)}",
                field=f"sites.{site.name}.resources",
            )


def _needs(site: SiteConfig) -> str:
    wanted = {"CPU": site.cpus, **site.resources}
    free = ray.available_resources()
    return ", ".join(f"{name} {amount:g} (free {free.get(name, 0.0):g})" for name, amount in wanted.items())
