"""The compiled engine: a step of the recommender as one kernel over a chunk of environments.

Arrays travel as named tuples: :class:`State` by environment, :class:`Tables` shared and read only, :class:`Scratch` by
thread, :class:`Outputs`. The kernels allocate nothing, so they are compiled without Numba's run time (``_nrt=False``):
counting the references of a hundred arrays at every call took longer than the rest of the step.

Numba looks at a kernel's own file to decide whether its compiled code on disk is current. After a change to a module
that ``step.py`` calls, delete ``__pycache__`` in this folder.
"""

from rlaas.scenarios.recsys.engine.observation import OBSERVATION_BOUND, observation_names
from rlaas.scenarios.recsys.engine.state import Outputs, Scratch, State, state_bytes
from rlaas.scenarios.recsys.engine.step import begin_streams, look, step_streams
from rlaas.scenarios.recsys.engine.tables import EXPLORATIONS, RULES, Constants, Tables, constants_of, tables_of

__all__ = [
    "EXPLORATIONS",
    "OBSERVATION_BOUND",
    "RULES",
    "Constants",
    "Outputs",
    "Scratch",
    "State",
    "Tables",
    "begin_streams",
    "constants_of",
    "look",
    "observation_names",
    "state_bytes",
    "step_streams",
    "tables_of",
]
