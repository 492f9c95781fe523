"""Float32 arithmetic that compilers can vectorise: exponentials, logarithms, normals.

Polynomials instead of library calls: the same bits on every machine with IEEE arithmetic, whatever its C library, and
several times faster inside a loop over links.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from rlaas.scenarios.compiled.kernels import inner

__all__ = ["circle", "db_to_linear", "exp2", "linear_to_db", "log2", "normal_pair", "sigmoid"]

_DB_TO_LOG2 = np.float32(math.log2(10.0) / 10.0)
_LOG2_TO_DB = np.float32(10.0 * math.log10(2.0))
_LOG2_E = np.float32(math.log2(math.e))
_LOWEST, _HIGHEST = np.float32(-126.0), np.float32(126.0)
_TINY = np.float32(1.2e-38)

# Taylor coefficients of 2^x = exp(x ln 2) around 0; on [-1/2, 1/2] the rest after x^6 is below 1.3e-7.
_E1, _E2, _E3, _E4, _E5, _E6 = (np.float32(math.log(2.0) ** k / math.factorial(k)) for k in range(1, 7))
# log2(m) = 2 / ln 2 * atanh(s), s = (m - 1) / (m + 1), for m in [sqrt(1/2), sqrt 2): |s| < 0.172, rest below 1e-8.
_L1, _L3, _L5, _L7, _L9 = (np.float32(2.0 / math.log(2.0) / k) for k in (1, 3, 5, 7, 9))

_ONE, _HALF, _TWO = np.float32(1.0), np.float32(0.5), np.float32(2.0)
_ROOT = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
_MINUS_TWO_LN2 = np.float32(-2.0 * math.log(2.0))


@intrinsic
def _power_of_two(_typing: Any, _whole: Any) -> Any:
    """2^n of a whole float32 n in [-126, 127]: n + 127 as the exponent's bits.

    Numba makes 64 bit integers of a float on its way to 32, which halves what fits into a vector.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(32)
        exponent = builder.add(builder.fptosi(arguments[0], word), word(127))
        return builder.bitcast(builder.shl(exponent, word(23)), ir.FloatType())

    return types.float32(types.float32), generate


@inner
def exp2(x: np.float32) -> np.float32:
    """2^x with a relative error below 2e-7; x is clipped to [-126, 126]."""
    x = min(max(x, _LOWEST), _HIGHEST)
    whole = np.floor(x + _HALF)
    f = x - whole
    fraction = _ONE + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return np.float32(fraction * _power_of_two(whole))


@inner
def log2(x: np.float32) -> np.float32:
    """Binary logarithm of x > 0 with an absolute error below 3e-7 times its size plus 1; x <= 0 gives about -126."""
    x = max(x, _TINY)
    # Back to 32 bits at once: numba's integers grow with every operation.
    bits = np.int32(np.float32(x).view(np.int32) - _ROOT)
    exponent = np.int32(bits >> np.int32(23))
    mantissa = np.int32((bits & np.int32(0x007FFFFF)) + _ROOT).view(np.float32)
    s = (mantissa - _ONE) / (mantissa + _ONE)
    q = s * s
    return np.float32(np.float32(exponent) + s * (_L1 + q * (_L3 + q * (_L5 + q * (_L7 + q * _L9)))))


@inner
def db_to_linear(x: np.float32) -> np.float32:
    """10^(x / 10)."""
    return np.float32(exp2(np.float32(x * _DB_TO_LOG2)))


@inner
def linear_to_db(x: np.float32) -> np.float32:
    """10 log10 x for x > 0."""
    return np.float32(_LOG2_TO_DB * log2(x))


@inner
def sigmoid(x: np.float32) -> np.float32:
    """1 / (1 + exp(-x))."""
    return np.float32(_ONE / (_ONE + exp2(np.float32(-x * _LOG2_E))))


@inner
def normal_pair(u: np.float32, v: np.float32) -> tuple[np.float32, np.float32]:
    """Two independent standard normal numbers from two uniform ones in [0, 1) (Box and Muller 1958)."""
    radius = np.float32(math.sqrt(_MINUS_TWO_LN2 * log2(np.float32(_ONE - u))))
    angle = np.float32(2.0 * math.pi) * v
    return np.float32(radius * math.cos(angle)), np.float32(radius * math.sin(angle))


# Taylor coefficients of sin(2 pi x); on [-1/4, 1/4] the rest after x^11 is below 6e-8.
_S1, _S3, _S5, _S7, _S9, _S11 = (
    np.float32((-1.0) ** (k // 2) * (2.0 * math.pi) ** k / math.factorial(k)) for k in (1, 3, 5, 7, 9, 11)
)
_QUARTER = np.float32(0.25)


@inner
def _sine(x: np.float32) -> np.float32:
    q = x * x
    return np.float32(x * (_S1 + q * (_S3 + q * (_S5 + q * (_S7 + q * (_S9 + q * _S11))))))


@inner
def circle(turns: np.float32) -> tuple[np.float32, np.float32]:
    """Cosine and sine of an angle in turns, with an absolute error below 5e-7 for angles of a few turns."""
    x = turns - np.floor(turns + _HALF)
    away = np.float32(abs(x))
    # Folded into [-1/4, 1/4], where the polynomial holds.
    folded = _QUARTER - np.float32(abs(away - _QUARTER))
    sine = _sine(folded)
    return _sine(np.float32(_QUARTER - away)), np.float32(sine if x >= np.float32(0.0) else -sine)
