"""The main job: the whole loop on one Ray application, shown end to end."""

from rlaas.demo.options import DemoOptions
from rlaas.demo.run import run_demo

__all__ = ["DemoOptions", "run_demo"]
