"""What the compiled engines of the scenarios share: counter-based random numbers, fast arithmetic, threads."""

from rlaas.scenarios.compiled.kernels import entry_point, inner
from rlaas.scenarios.compiled.maths import circle, db_to_linear, exp2, linear_to_db, log2, normal_pair, sigmoid
from rlaas.scenarios.compiled.memory import fetch_ahead, region, separate
from rlaas.scenarios.compiled.rng import environment_key, philox, uniforms
from rlaas.scenarios.compiled.threads import Workers, claim, default_threads

__all__ = [
    "Workers",
    "circle",
    "claim",
    "db_to_linear",
    "default_threads",
    "entry_point",
    "environment_key",
    "exp2",
    "fetch_ahead",
    "inner",
    "linear_to_db",
    "log2",
    "normal_pair",
    "philox",
    "region",
    "separate",
    "sigmoid",
    "uniforms",
]
