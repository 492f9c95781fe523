"""Where the cells stand and what the ground between them does to a signal."""

from __future__ import annotations

from rlaas.scenarios.network5g.geography.layout import SIZES, USERS, Layout, hexagonal, layout_of_size
from rlaas.scenarios.network5g.geography.maps import Maps, build_maps, fitting_resolution, map_bytes
from rlaas.scenarios.network5g.geography.sites import read_sites

__all__ = [
    "SIZES",
    "USERS",
    "Layout",
    "Maps",
    "build_maps",
    "fitting_resolution",
    "hexagonal",
    "layout_of_size",
    "map_bytes",
    "read_sites",
]
