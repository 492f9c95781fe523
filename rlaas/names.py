"""Names that become paths, keys and table partitions: one rule for all of them."""

from __future__ import annotations

import re

from rlaas.errors import InvalidInputError, RequestError

__all__ = ["check_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_name(value: str, *, field: str, error: type[RequestError] = InvalidInputError) -> str:
    """Return ``value`` if it is a plain name: letters, digits, ``_ . -``, at most 128, no ``..``.

    Raises:
        RequestError: (of the given type) for anything that could escape a folder or a key.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value) or ".." in value:
        raise error(
            f"{field} {str(value)[:80]!r} is not a plain name; allowed: letters, digits, '_', '.', '-', "
            "starting with a letter or digit, at most 128 characters, no '..'",
            field=field,
        )
    return value
