"""Mappings by name that say which names they have when asked for another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from rlaas.errors import UnknownNameError, check_choice

__all__ = ["Choices"]

Value = TypeVar("Value")


class Choices(dict[str, Value]):
    """A dictionary whose missing key is an error that names the choices.

    Args:
        field: what a key is called in the message, for example ``baseline``.
        values: what is chosen from, by name.
    """

    def __init__(self, field: str, values: Mapping[str, Value]) -> None:
        super().__init__(values)
        self._field = field

    def __missing__(self, name: Any) -> NoReturn:
        check_choice(name, self, field=self._field, error=UnknownNameError)
        raise AssertionError(f"{name!r} is one of the choices")
