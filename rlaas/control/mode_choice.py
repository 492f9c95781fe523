"""Which mode a caller's words amount to: explicit weights, what rules set, a name, or the scenario's primary mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaas.errors import InvalidInputError, check_choice
from rlaas.objectives import Mode, Objective, Preference

__all__ = ["PREFERENCE", "requested_mode"]

PREFERENCE = "preference"
"""Name of the mode that explicit weights make."""


def requested_mode(
    objectives: Sequence[Objective],
    modes: Mapping[str, Mode],
    *,
    mode: str | None = None,
    preference: Mapping[str, float] | None = None,
    by_rules: str | None = None,
    primary: str | None = None,
    name: str = PREFERENCE,
) -> Mode:
    """The mode to resolve under.

    Explicit weights stand as they are given, and a mode that rules set is set aside. Otherwise the mode that rules set
    goes before the one that was named: rules are there to override what a caller usually wants. Where nobody says
    anything the primary mode holds.

    Args:
        objectives: of the front.
        modes: of the scenario; none where it is not installed.
        mode: name, as the caller gives it.
        preference: weights by objective, as the caller gives them.
        by_rules: name of the mode that rules set in the present context.
        primary: name of the mode that holds where nobody says anything.
        name: of the mode that explicit weights make.

    Raises:
        InvalidInputError: both a mode and weights, an unknown mode, impossible weights, or no mode at all.
    """
    if mode is not None and preference is not None:
        raise InvalidInputError(f"mode and {name} exclude each other; give one", field="mode")
    if preference is not None:
        return Mode(name=name, preference=Preference.of(objectives, preference, field=name))
    if mode is not None:
        check_choice(mode, modes, field="mode", error=InvalidInputError)
    wanted = by_rules or mode or primary
    if wanted is None:
        raise InvalidInputError(
            f"the scenario is not installed here, so that it has no modes; give a {name}: weights of "
            f"{', '.join(o.name for o in objectives)}",
            field=name,
        )
    return modes[wanted]
