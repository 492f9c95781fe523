"""Which front a command is about, and the modes of its scenario where that is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaas.cli.output import stderr
from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.scenarios import Scenario, available, load

# The registry and the methods take a second to import, which a command about something else should not pay.
if TYPE_CHECKING:
    from rlaas.decisions import Choice
    from rlaas.fronts import Front
    from rlaas.objectives import Mode
    from rlaas.registry.fronts import FrontStore, StoredFront

__all__ = [
    "FrontOption",
    "LabelOption",
    "PolicyOption",
    "ScenarioArgument",
    "Subject",
    "find_front",
    "front_store",
    "installed",
]

ScenarioArgument = Annotated[str | None, typer.Argument(help="Name of a scenario, or module:attribute.")]
FrontOption = Annotated[Path | None, typer.Option("--front", help="A front as JSON, instead of a stored one.")]
PolicyOption = Annotated[str | None, typer.Option(help="Version or alias of the registered policy whose front it is.")]
LabelOption = Annotated[str | None, typer.Option(help="Label of a stored front; `rlaas fronts list` shows them.")]

# Work goes on with what was made last; a platform, which answers for what is live, looks for the champion first.
PREFERRED = ("candidate", "champion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A front and what is known about it.

    Attributes:
        front: the candidates.
        scenario: of the front, None where none of its name and objectives is installed.
        origin: where it was found, for people.
        stored: the same for programs, None for a file that was named.
    """

    front: Front
    scenario: Scenario | None
    origin: str
    stored: StoredFront | None

    @property
    def modes(self) -> Mapping[str, Mode]:
        """Modes of the scenario, none where it is not installed."""
        return {} if self.scenario is None else self.scenario.modes

    def choices(self) -> dict[str, Choice]:
        """What each mode chooses by the default method."""
        from rlaas.decisions import resolve

        return {name: resolve(self.front, mode=mode) for name, mode in self.modes.items()}


def front_store() -> FrontStore:
    """The fronts of the installation."""
    from rlaas.registry import Registry
    from rlaas.registry.fronts import FrontStore
    from rlaas.settings import load_settings

    return FrontStore(Registry(load_settings()))


def installed(name: str) -> Scenario | None:
    """A scenario by name or ``module:attribute``; None for a plain name that is not installed.

    Raises:
        ConfigurationError: a ``module:attribute`` that cannot be loaded.
    """
    return load(name) if ":" in name or name in available() else None


def find_front(
    scenario: str | None,
    *,
    file: Path | None = None,
    policy: str | None = None,
    label: str | None = None,
    loaded: Scenario | None = None,
) -> Subject:
    """The front that the options name.

    Args:
        scenario: name, or ``module:attribute``.
        file: a front as JSON.
        policy: version or alias of the scenario's registered policy.
        label: of a stored front.
        loaded: the scenario, where the caller has it already.

    Raises:
        ConfigurationError: nothing is named, or two sources are.
        InvalidInputError: the file holds no front, or one of another scenario or with other objectives.
        NotFoundError: no such front.
    """
    given = [
        f"--{name}" for name, value in (("front", file), ("policy", policy), ("label", label)) if value is not None
    ]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} name different fronts; give one", field=given[1][2:])
    if scenario is None and file is None:
        raise ConfigurationError("name a scenario, or a file with --front", field="scenario")
    known = loaded if loaded is not None or scenario is None else installed(scenario)
    if file is not None:
        from rlaas.registry.front_documents import read_front

        try:
            front = read_front(file)
        except InvalidInputError as problem:
            raise InvalidInputError(f"--front {problem.message}", field=problem.field) from problem
        if scenario is None:
            own = installed(front.scenario) if front.scenario in available() else None
            known = own if own is not None and _same_objectives(front, own) else None
        else:
            _check_scenario(front, scenario if known is None else known.name, file)
        _check_objectives(front, known)
        _warn_of_reference(front, known)
        return Subject(front=front, scenario=known, origin=str(file), stored=None)
    name = known.name if known is not None else str(scenario)
    store = front_store()
    found = store.of_version(name, policy) if policy is not None else store.find(name, label, prefer=PREFERRED)
    _check_objectives(found.front, known)
    _warn_of_reference(found.front, known)
    where = f"fronts/{found.file}" if found.file else f"{name} version {found.policy_version}, {found.label}"
    return Subject(front=found.front, scenario=known, origin=where, stored=found)


def _same_objectives(front: Front, scenario: Scenario) -> bool:
    return list(front.names) == [o.name for o in scenario.objectives]


def _check_scenario(front: Front, name: str, file: Path) -> None:
    if front.scenario != name:
        raise InvalidInputError(f"--front {file} holds a front of {front.scenario}, not of {name}", field="front")


def _warn_of_reference(front: Front, scenario: Scenario | None) -> None:
    if scenario is None or not front.reference_hash or not scenario.reference_hash:
        return
    if front.reference_hash != scenario.reference_hash:
        stderr().print(
            f"warning: the front was made with reference {front.reference_hash}; {scenario.name} now has "
            f"{scenario.reference_hash}, so that its values may not compare",
            style="yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _check_objectives(front: Front, scenario: Scenario | None) -> None:
    if scenario is not None and not _same_objectives(front, scenario):
        raise InvalidInputError(
            f"the front is about {', '.join(front.names)}; "
            f"{scenario.name} has {', '.join(o.name for o in scenario.objectives)}",
            field="front",
        )
