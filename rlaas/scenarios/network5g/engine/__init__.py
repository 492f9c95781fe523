"""The compiled engine of network5g: one fused kernel per chunk of networks, arrays that live from step to step."""

from rlaas.scenarios.network5g.engine.arrays import LinkTables, MapTables, Out, Scratch, State, WorldTables
from rlaas.scenarios.network5g.engine.building import MOBILITY, MODULATIONS, Network, build
from rlaas.scenarios.network5g.engine.constants import Constants
from rlaas.scenarios.network5g.engine.delays import DELAY_EDGES_MS, delay_statistics
from rlaas.scenarios.network5g.engine.engine import Engine
from rlaas.scenarios.network5g.engine.events import EVENTS

__all__ = [
    "DELAY_EDGES_MS",
    "EVENTS",
    "MOBILITY",
    "MODULATIONS",
    "Constants",
    "Engine",
    "LinkTables",
    "MapTables",
    "Network",
    "Out",
    "Scratch",
    "State",
    "WorldTables",
    "build",
    "delay_statistics",
]
