"""An operator's word that a version may go live."""

from __future__ import annotations

from dataclasses import dataclass

from rlaas.errors import InvalidInputError, shown

__all__ = ["LONGEST_REASON", "NO_OVERRIDE", "Override", "check_actor"]

LONGEST_REASON = 500
_LONGEST_ACTOR = 128


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator says when a version shall go live; with a reason also where the gate does not pass it.

    Attributes:
        reason: why, 1 to 500 characters; None: the gate decides.
        actor: who, 1 to 128 characters.

    Raises:
        InvalidInputError: an empty or too long reason or name.
    """

    reason: str | None = None
    actor: str = "operator"

    def __post_init__(self) -> None:
        check_actor(self.actor)
        if self.reason is not None:
            _check(self.reason, "override", f"a reason of 1 to {LONGEST_REASON} characters", LONGEST_REASON)


def check_actor(actor: str) -> None:
    """Refuse what names nobody.

    Raises:
        InvalidInputError: not a text of 1 to 128 characters.
    """
    _check(actor, "actor", f"a name of 1 to {_LONGEST_ACTOR} characters", _LONGEST_ACTOR)


def _check(value: object, field: str, expected: str, longest: int) -> None:
    if not isinstance(value, str) or not value.strip() or len(value) > longest:
        raise InvalidInputError(f"{field} must be {expected}, got {shown(value)}", field=field)


NO_OVERRIDE = Override()
"""Nobody says anything: the gate decides."""
