"""Pictures of fronts: scatter, parallel coordinates and petals as PNG, and one interactive page without a network."""

from rlaas.plots.files import KINDS, check_plot, write_plot
from rlaas.plots.page import VIEWS, page
from rlaas.plots.parallel import parallel
from rlaas.plots.petal import petal
from rlaas.plots.scatter import scatter
from rlaas.plots.view import FrontView

__all__ = ["KINDS", "VIEWS", "FrontView", "check_plot", "page", "parallel", "petal", "scatter", "write_plot"]
