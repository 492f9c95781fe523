"""Finding fronts: those that registered versions were chosen from, and those that searches left in the home."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaas.errors import InvalidInputError, NotFoundError, OperatorError, RequestError, RlaasError
from rlaas.fronts import Front
from rlaas.names import check_name
from rlaas.registry.front_documents import parse_front, read_front
from rlaas.registry.registry import CHAMPION, Registry
from rlaas.registry.versions import PolicyVersion

__all__ = ["CANDIDATE", "FrontProblem", "FrontStore", "StoredFront"]

CANDIDATE = "candidate"
FOLDER = "fronts"
_KEEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFront:
    """A front and where it was found.

    Attributes:
        front: the candidates.
        label: what it is asked for by: an alias of a registered version, or the label of a file.
        source: ``registry`` or ``file``.
        policy_version: number of the registered version, None for a file.
        file: name of the file in the home's ``fronts``, None for a registered one.
        updated_us: UTC microseconds at which it was registered or written.
    """

    front: Front
    label: str
    source: Literal["registry", "file"]
    policy_version: int | None = None
    file: str | None = None
    updated_us: int

    @property
    def scenario(self) -> str:
        """Name of the front's scenario."""
        return self.front.scenario

    def to_dict(self) -> dict[str, Any]:
        """Where it was found and how large it is, without the candidates, as plain JSON types."""
        return {
            "scenario": self.front.scenario,
            "label": self.label,
            "version": self.front.version,
            "source": self.source,
            "policy_version": self.policy_version,
            "file": self.file,
            "updated_us": self.updated_us,
            "objectives": list(self.front.names),
            "candidates": len(self.front.candidates),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontProblem:
    """A stored front that cannot be read.

    Attributes:
        where: the file, or the version.
        error: why.
    """

    where: str
    error: RlaasError

    def to_dict(self) -> dict[str, Any]:
        """The problem as plain JSON types."""
        return {"where": self.where, "error": self.error.message}


class FrontStore:
    """Fronts of one tenant by scenario and label. Thread-safe.

    A label is an alias of the registry (``champion``, ``candidate``), whose version holds the front that it was chosen
    from, or that of a file ``fronts/<scenario>-<label>.json`` in the home; a file under another name, or under one of
    the aliases, is none.

    Args:
        registry: where versions and their fronts are; its settings name the home.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._folder = registry.settings.home / FOLDER
        self._known: dict[tuple[str, int], Front | None] = {}
        self._lock = threading.Lock()

    def find(
        self, scenario: str, label: str | None = None, *, prefer: Sequence[str] = (CHAMPION, CANDIDATE)
    ) -> StoredFront:
        """The front of a scenario with a label; without one the first of ``prefer`` that has one, then the newest file.

        Raises:
            InvalidInputError: not a plain name.
            NotFoundError: no such front; names the existing labels.
            OperatorError: it is there and cannot be read.
        """
        check_name(scenario, field="scenario")
        if label is not None:
            check_name(label, field="label")
            found = self._labelled(scenario, label)
            if found is not None:
                return found
        else:
            for alias in prefer:
                found = self._labelled(scenario, alias)
                if found is not None:
                    return found
            files = self._files(scenario)
            if files:
                return self._of_file(max(files, key=lambda file: (_written_ns(file), file.name)), scenario)
        wanted = "front" if label is None else f"front {label!r}"
        labels = ", ".join(self.labels(scenario))
        way_out = f"allowed: {labels}" if labels else "rlaas optimize searches one, a training brings one with it"
        raise NotFoundError(
            f"scenario {scenario!r} has no {wanted}; {way_out}", field="scenario" if label is None else "label"
        )

    def of_version(self, policy: str, ref: int | str) -> StoredFront:
        """The front that a registered version was chosen from.

        Args:
            policy: name in the registry.
            ref: version number or alias.

        Raises:
            NotFoundError: no such policy or version, or one without a front.
            OperatorError: it is there and cannot be read.
        """
        version = self._registry.get(policy, ref)
        found = self._of_version(version, str(ref))
        if found is None:
            raise NotFoundError(f"version {version.version} of {policy} has no front", field="policy")
        return found

    def labels(self, scenario: str) -> list[str]:
        """What the fronts of a scenario may be asked for by, sorted."""
        aliases = {
            alias
            for alias, version in self._aliases(scenario).items()
            if alias in (CHAMPION, CANDIDATE) and self._registered(version) is not None
        }
        return sorted(aliases | {_label(file, scenario) for file in self._files(scenario)})

    def all(self) -> tuple[list[StoredFront], list[FrontProblem]]:
        """Every front, by scenario and label, and those that cannot be read."""
        found: list[StoredFront] = []
        problems: list[FrontProblem] = []
        for policy in self._registry.names():
            for alias, version in self._aliases(policy).items():
                if alias not in (CHAMPION, CANDIDATE):
                    continue
                try:
                    stored = self._of_version(version, alias)
                except RlaasError as problem:
                    problems.append(FrontProblem(where=f"{policy} version {version.version}", error=problem))
                else:
                    found += [stored] if stored is not None else []
        searched, unreadable = self.searched()
        found += searched
        problems += unreadable
        return sorted(found, key=lambda stored: (stored.scenario, stored.label, stored.source)), problems

    def searched(self) -> tuple[list[StoredFront], list[FrontProblem]]:
        """The fronts of files, which need no registry, by name of the file, and those that cannot be read."""
        found: list[StoredFront] = []
        problems: list[FrontProblem] = []
        for file in sorted(self._folder.glob("*.json")):
            try:
                stored = self._of_file(file, None)
                _check_file_name(file, stored.scenario)
                found.append(stored)
            except RlaasError as problem:
                problems.append(FrontProblem(where=f"{FOLDER}/{file.name}", error=problem))
        return found, problems

    def _labelled(self, scenario: str, label: str) -> StoredFront | None:
        file = self._folder / f"{scenario}-{label}.json"
        if label not in (CHAMPION, CANDIDATE):
            return self._of_file(file, scenario) if file.is_file() and not _is_of_longer(file, scenario) else None
        version = self._aliases(scenario).get(label)
        return None if version is None else self._of_version(version, label)

    def _aliases(self, policy: str) -> dict[str, PolicyVersion]:
        try:
            versions = self._registry.versions(policy)
        except NotFoundError:  # searched and never trained: all its fronts are files
            return {}
        return {alias: version for version in versions for alias in version.aliases}

    def _of_version(self, version: PolicyVersion, label: str) -> StoredFront | None:
        front = self._registered(version)
        if front is None:
            return None
        return StoredFront(
            front=front,
            label=label,
            source="registry",
            policy_version=version.version,
            updated_us=version.created_us,
        )

    def _registered(self, version: PolicyVersion) -> Front | None:
        key = (version.name, version.version)
        with self._lock:
            if key in self._known:
                return self._known[key]
        document = self._registry.front(*key)
        where = f"the front of {version.name} version {version.version}"
        front = None if document is None else _stored(where, document)
        with self._lock:  # a version never changes: what was read once stays right
            if len(self._known) >= _KEEP:
                self._known.clear()
            self._known[key] = front
        return front

    def _files(self, scenario: str) -> list[Path]:
        # "a-b-static.json" is also what a scenario "a" might have called "b-static": the document decides.
        candidates = self._folder.glob(f"{scenario}-*.json")
        return [
            file
            for file in sorted(candidates)
            if _label(file, scenario) not in (CHAMPION, CANDIDATE) and _is_of(file, scenario)
        ]

    def _of_file(self, file: Path, scenario: str | None) -> StoredFront:
        try:
            front = read_front(file)
        except InvalidInputError as problem:
            # Here nobody has sent it: it is the installation's own file that is damaged.
            reason = problem.message.removeprefix(str(file))
            raise OperatorError(f"{FOLDER}/{file.name}{reason}", field="front") from problem
        if scenario is not None and front.scenario != scenario:
            raise OperatorError(f"{FOLDER}/{file.name} holds a front of {front.scenario!r}", field="front")
        return StoredFront(
            front=front,
            label=_label(file, front.scenario),
            source="file",
            file=file.name,
            updated_us=_written_ns(file) // 1000,
        )


def _stored(where: str, document: Mapping[str, Any]) -> Front:
    try:
        return parse_front(document)
    except RequestError as problem:
        raise OperatorError(f"{where} cannot be read: {problem.message}", field="front") from problem


def _is_of(file: Path, scenario: str) -> bool:
    try:
        return read_front(file).scenario == scenario
    except InvalidInputError:
        # Damaged: it counts as the scenario's, so that asking for it says what is wrong.
        return True


def _label(file: Path, scenario: str) -> str:
    return file.stem.removeprefix(f"{scenario}-")


def _written_ns(file: Path) -> int:
    """When a file was written, UTC nanoseconds.

    Raises:
        OperatorError: it is gone, or may not be looked at.
    """
    try:
        return file.stat().st_mtime_ns
    except OSError as problem:
        raise OperatorError(f"{FOLDER}/{file.name}: {problem.strerror or problem}", field="front") from problem


def _is_of_longer(file: Path, scenario: str) -> bool:
    """Whether a file named as if it were the scenario's is rightly that of one whose name goes on."""
    try:
        found = read_front(file).scenario
    except InvalidInputError:
        return False
    return found != scenario and file.stem.startswith(f"{found}-")


def _check_file_name(file: Path, scenario: str) -> None:
    """Raise if no label asks for this file.

    Raises:
        OperatorError: says how it has to be named.
    """
    label = _label(file, scenario)
    if label == file.stem or not label or label in (CHAMPION, CANDIDATE):
        raise OperatorError(
            f"{FOLDER}/{file.name} holds a front of {scenario!r}, whose files are named {scenario}-<label>.json, the "
            f"label other than {CHAMPION} and {CANDIDATE}",
            field="front",
        )
