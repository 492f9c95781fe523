"""The compiled engine: a step of the recommender as one kernel over a chunk of environments.

Arrays travel as named tuples: :class:`State` by environment, :class:`Tables` shared and read only, :class:`Scratch` by
thread, :class:`Outputs`. Nothing is allocated in a step.
"""

from rlaas.scenarios.recsys.engine.observation import OBSERVATION_BOUND, observation_names
from rlaas.scenarios.recsys.engine.state import Outputs, Scratch, State, state_bytes
from rlaas.scenarios.recsys.engine.step import BEGIN, LOOK, STEP, advance
from rlaas.scenarios.recsys.engine.tables import EXPLORATIONS, RULES, Tables, constants_of, tables_of

__all__ = [
    "BEGIN",
    "EXPLORATIONS",
    "LOOK",
    "OBSERVATION_BOUND",
    "RULES",
    "STEP",
    "Outputs",
    "Scratch",
    "State",
    "Tables",
    "advance",
    "constants_of",
    "observation_names",
    "state_bytes",
    "tables_of",
]
