"""network5g: a 5G radio network with three slices, energy and handover, controlled cell by cell."""

from rlaas.scenarios.network5g.control import ACTION_NAMES
from rlaas.scenarios.network5g.env import VectorNetwork5G
from rlaas.scenarios.network5g.scenario import Network5G
from rlaas.scenarios.network5g.single import ENVIRONMENT_ID, SingleNetwork5G

__all__ = ["ACTION_NAMES", "ENVIRONMENT_ID", "Network5G", "SingleNetwork5G", "VectorNetwork5G"]
