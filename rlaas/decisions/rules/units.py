"""Units of quantities in rules: which convert into which, and by what exact factor."""

from __future__ import annotations

from fractions import Fraction

from rlaas.errors import ConfigurationError

__all__ = ["convertible", "in_unit"]

PREFIXES = {
    "p": Fraction(1, 10**12),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "µ": Fraction(1, 10**6),
    "μ": Fraction(1, 10**6),  # the Greek letter, which keyboards give for the micro sign
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
}
"""SI prefixes (BIPM, The International System of Units, 9th edition, table 7), as far as rules need them."""

BASES = {
    "s": ("time", Fraction(1)),
    "bit/s": ("rate", Fraction(1)),
    "B/s": ("rate", Fraction(8)),
    "bit": ("data", Fraction(1)),
    "B": ("data", Fraction(8)),
    "W": ("power", Fraction(1)),
    "J": ("energy", Fraction(1)),
    "Wh": ("energy", Fraction(3600)),
    "Hz": ("frequency", Fraction(1)),
    "m": ("length", Fraction(1)),
}
"""Units that take a prefix: the quantity that each measures, and its size in that quantity's coherent unit."""

UNITS = {
    **{
        prefix + base: (kind, size * scale)
        for base, (kind, scale) in BASES.items()
        for prefix, size in PREFIXES.items()
    },
    "min": ("time", Fraction(60)),
    "h": ("time", Fraction(3600)),
    "": ("share", Fraction(1)),
    "%": ("share", Fraction(1, 100)),
    "‰": ("share", Fraction(1, 1000)),
    "ppm": ("share", Fraction(1, 10**6)),
}


def convertible(unit: str) -> tuple[str, ...]:
    """Units that quantities may be written in where a field has ``unit``, that unit first."""
    if unit not in UNITS:
        return (unit,)
    kind = UNITS[unit][0]
    others = (other for other, (measures, _) in UNITS.items() if measures == kind and other not in {unit, ""})
    return (unit, *others)


def in_unit(number: Fraction, written: str, unit: str) -> float:
    """``number``, written in a unit, in another one, rounded once.

    Args:
        number: the exact value as written.
        written: its unit; ``""`` where none was written, which means ``unit`` itself.
        unit: of the field it is compared with.

    Raises:
        ConfigurationError: the units measure different things, or the result is beyond the range of floats.
    """
    if written and written != unit:
        if written not in UNITS or unit not in UNITS or UNITS[written][0] != UNITS[unit][0]:
            allowed = ", ".join(name or "no unit" for name in convertible(unit))
            raise ConfigurationError(f"unit {written!r} does not convert; allowed: {allowed}", field="unit")
        number = number * UNITS[written][1] / UNITS[unit][1]
    try:
        return float(number)
    except OverflowError as problem:
        raise ConfigurationError("the number is beyond the range of floats (1.8e308)", field="number") from problem
